//! House rules that no compiler checks: allowed crate edges, pure files, invariants named and tested, documents true.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests folder lies in the workspace").to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file below `folder` with this ending, as paths from the workspace's root, sorted.
fn files(folder: &str, ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() && !["target", "node_modules", ".git", "data"].contains(&name.as_str()) {
                folders.push(path);
            } else if name.ends_with(ending) {
                found.push(path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

fn rust_files() -> Vec<String> {
    ["schema", "storage", "sip", "actors", "graphql", "src", "tests"].iter().flat_map(|f| files(f, ".rs")).collect()
}

/// A file's text up to its inline tests: a module, with its body, under `#[cfg(test)]`. Tests in a file of their own and single
/// items for tests do not end what is looked at.
fn before_tests(text: &str) -> &str {
    let (mut at, mut attribute) = (0, None);
    for line in text.split_inclusive('\n') {
        let code = line.trim();
        let is_module = code.strip_prefix("pub(crate) ").unwrap_or(code).starts_with("mod ") && code.ends_with('{');
        match attribute {
            Some(start) if is_module => return &text[..start],
            _ => attribute = (code == "#[cfg(test)]").then_some(at),
        }
        at += line.len();
    }
    text
}

#[test]
fn only_inline_tests_are_no_part_of_a_file() {
    let decides = "mod a;\n#[cfg(test)]\nmod tests;\nfn a() {}\n#[cfg(test)]\nconst B: u8 = 0;\nfn c() {}\n";
    assert_eq!(before_tests(decides), decides);
    for module in ["mod tests {", "pub(crate) mod tests {"] {
        assert_eq!(before_tests(&format!("{decides}#[cfg(test)]\n{module}\n    fn d() {{}}\n}}\n")), decides);
    }
}

#[test]
fn crates_import_only_what_the_design_allows() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("schema", &[][..]),
        ("storage", &["schema"][..]),
        ("sip", &["schema"][..]),
        ("actors", &["schema", "storage"][..]),
        ("graphql", &["schema", "storage", "actors"][..]),
    ]);
    let ours = ["schema", "storage", "sip", "actors", "graphql", "ringfence", "tests"];
    for (name, edges) in allowed {
        let manifest: toml::Table = read(&format!("{name}/Cargo.toml")).parse().expect("a manifest");
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(table) = manifest.get(section).and_then(toml::Value::as_table) else { continue };
            for dependency in table.keys().filter(|d| ours.contains(&d.as_str())) {
                assert!(edges.contains(&dependency.as_str()), "{name} must not import {dependency} ({section})");
            }
        }
    }
}

#[test]
fn foreign_crates_stay_where_the_design_puts_them() {
    let banned = [
        ("schema", &["tokio", "sqlx", "async-graphql", "ractor", "axum"][..]),
        ("sip", &["sqlx", "ractor", "axum", "async-graphql"][..]),
        ("actors", &["axum", "async-graphql", "sqlx"][..]),
        ("graphql", &["sqlx", "ractor"][..]),
    ];
    for (name, crates) in banned {
        let manifest: toml::Table = read(&format!("{name}/Cargo.toml")).parse().expect("a manifest");
        let table = manifest["dependencies"].as_table().expect("dependencies");
        for dependency in crates {
            assert!(!table.contains_key(*dependency), "{name} must not import {dependency}");
        }
    }
}

/// Files that decide: no async, clock, randomness or I/O. A folder ends in a slash.
const PURE: &[&str] = &[
    "schema/src/",
    "sip/src/message",
    "sip/src/digest",
    "sip/src/sdp",
    "sip/src/transaction",
    "sip/src/dialog",
    "sip/src/registrar",
    "sip/src/core",
    "sip/src/guard",
    "sip/src/key",
    "sip/src/locate",
    "sip/src/overload",
    "sip/src/registration",
    "sip/src/transport/inbox",
    "sip/src/transport/registry",
    "sip/src/transport/stun",
    "actors/src/account/",
    "actors/src/call/",
    "actors/src/rating",
    "actors/src/routing",
    "actors/src/dialplan",
    "actors/src/restarts",
    "actors/src/poison",
    "src/listener/room",
    "graphql/src/limits",
    "graphql/src/origin",
    "graphql/src/policy",
    "graphql/src/ws/protocol",
];

#[test]
fn pure_files_decide_without_async_clock_randomness_or_io() {
    let forbidden = [
        "async ",
        ".await",
        "tokio",
        "ractor",
        "sqlx",
        "::now()",
        "std::fs",
        "std::net::TcpStream",
        "std::net::UdpSocket",
        "std::thread",
        "OsRng",
        "thread_rng",
    ];
    let mut pure = 0;
    for file in rust_files().iter().filter(|f| PURE.iter().any(|p| f.starts_with(p))) {
        pure += 1;
        let text = read(file);
        for (number, line) in before_tests(&text).lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            for word in forbidden {
                assert!(!code.contains(word), "{file}:{}: a pure file must not contain {word:?}", number + 1);
            }
        }
    }
    assert!(pure > 30, "the list of pure files matches only {pure} files");
    for entry in PURE {
        assert!(rust_files().iter().any(|f| f.starts_with(entry)), "PURE names {entry}, which does not exist");
    }
}

#[test]
fn files_stay_readable() {
    // Longer files, each with its reason.
    let listed: &[(&str, &str)] = &[];
    for file in rust_files() {
        let lines = before_tests(&read(&file)).lines().count();
        let is_test = file.starts_with("tests/") || file.contains("/tests/") || file.ends_with("tests.rs");
        let excused = listed.iter().any(|(name, _)| *name == file);
        assert!(
            lines <= 500 || is_test || excused,
            "{file} has {lines} lines before its tests; split it or list it with a reason"
        );
    }
}

#[test]
fn files_have_honest_names_and_begin_with_what_they_answer() {
    for file in rust_files() {
        let stem = Path::new(&file).file_stem().expect("a name").to_string_lossy().into_owned();
        assert!(
            !["util", "utils", "helper", "helpers", "manager", "common", "misc", "mod"].contains(&stem.as_str()),
            "{file}: a name that says nothing"
        );
        assert!(read(&file).starts_with("//!"), "{file} must begin with a //! line that says what question it answers");
    }
}

/// Files that submit journal entries.
const SUBMIT: &[&str] = &["actors/src/account.rs"];

#[test]
fn a1_only_account_actors_write_the_journal() {
    for file in rust_files() {
        let is_other = file.starts_with("storage/") || file.contains("tests") || file.contains("/benches/");
        let submits = !is_other && before_tests(&read(&file)).contains(".submit(");
        assert_eq!(submits, SUBMIT.contains(&file.as_str()), "{file}: only an account's actor changes its state");
    }
}

#[test]
fn every_invariant_is_named_in_the_architecture_and_held_by_a_test() {
    let architecture = read("ARCHITECTURE.md");
    let ids = ["L1", "L2", "L3", "L4", "C1", "C2", "C3", "C4", "P1", "P2", "P3", "P4", "A1", "A2", "A3"];
    let sources: Vec<(String, String)> = rust_files().into_iter().map(|f| (f.clone(), read(&f))).collect();
    for id in ids {
        assert!(architecture.contains(&format!("**{id}**")), "ARCHITECTURE.md does not name invariant {id}");
        let prefix = format!("fn {}_", id.to_lowercase());
        let tested = sources.iter().any(|(_, text)| text.contains(&prefix));
        let owed = architecture.contains(&format!("{id} has no test yet"));
        assert!(tested || owed, "no test begins with {prefix}, and ARCHITECTURE.md does not say that it is owed");
        assert!(!(tested && owed), "ARCHITECTURE.md says that {id} has no test, but one exists");
    }
    let mut unknown = BTreeSet::new();
    for (file, text) in &sources {
        for (at, _) in text.match_indices("invariant ") {
            let id: String = text[at + 10..].chars().take_while(char::is_ascii_alphanumeric).collect();
            let looks_like_one = id.len() == 2 && id.starts_with(['L', 'C', 'P', 'A']);
            if looks_like_one && !ids.contains(&id.as_str()) {
                unknown.insert(format!("{file}: {id}"));
            }
        }
    }
    assert!(unknown.is_empty(), "unknown invariants: {unknown:?}");
}

#[test]
fn every_path_named_in_the_architecture_exists() {
    let text = read("ARCHITECTURE.md");
    let endings = [".rs", ".md", ".toml", ".graphql", ".sql", "/"];
    for quoted in text.split('`').skip(1).step_by(2) {
        let is_path = endings.iter().any(|e| quoted.ends_with(e))
            && quoted.contains('/')
            && !quoted.contains([' ', '{', '<', '*', ':']);
        if is_path && !quoted.starts_with(['/', '.']) {
            assert!(root().join(quoted).exists(), "ARCHITECTURE.md names {quoted}, which does not exist");
        }
    }
    assert!(text.lines().count() <= 300, "ARCHITECTURE.md is longer than 300 lines");
}

#[test]
fn every_direct_dependency_has_its_reason() {
    let manifest: toml::Table = read("Cargo.toml").parse().expect("a manifest");
    let architecture = read("ARCHITECTURE.md");
    let table = manifest["workspace"]["dependencies"].as_table().expect("workspace dependencies");
    for (name, value) in table {
        let is_ours = value.get("path").is_some();
        assert!(is_ours || architecture.contains(&format!("`{name}`")), "ARCHITECTURE.md gives no reason for {name}");
    }
}

#[test]
fn no_file_names_this_machine_or_a_registry() {
    // Written in pieces, so that this file does not name them either.
    let words =
        ["/wo".to_owned() + "rk/", "crates".to_owned() + ".io", "npm".to_owned() + "js", "pypi".to_owned() + ".org"];
    let endings = [".rs", ".md", ".toml", ".ts", ".svelte", ".json", ".sql", ".graphql", ".html", ".css"];
    for file in endings.iter().flat_map(|e| files(".", e)).filter(|f| !f.ends_with("Cargo.lock")) {
        let text = read(&file);
        for word in &words {
            assert!(!text.contains(word.as_str()), "{file} names {word}");
        }
    }
}

#[test]
fn no_document_is_cited_that_is_not_here() {
    let pages = [
        "DES".to_owned() + "IGN",
        "features".to_owned() + ".md",
        "security".to_owned() + ".md",
        "security ".to_owned() + "page",
    ];
    for file in [".rs", ".md"].iter().flat_map(|e| files(".", e)) {
        let text = read(&file);
        for page in &pages {
            assert!(
                !text.contains(page.as_str()),
                "{file} cites {page}, which is not in the repository: say the reason there"
            );
        }
    }
}

/// Whether a function of this name is run as a test: it is marked as one, or listed for every store.
fn is_test(sources: &[String], name: &str) -> bool {
    let signature = format!("fn {name}(");
    sources.iter().any(|text| {
        let lists = text.split("conformance! {").skip(1).filter_map(|rest| rest.split('}').next());
        if lists.flat_map(str::split_whitespace).any(|listed| listed == name) {
            return true;
        }
        text.match_indices(&signature).any(|(at, _)| {
            let above = text[..at].rsplit('\n').skip(1).map(str::trim);
            let mut attributes = above.take_while(|line| line.starts_with(['#', '/']));
            attributes.any(|line| line == "#[test]" || line.starts_with("#[tokio::test"))
        })
    })
}

/// `sip/RFC.md` says which test shows what; a name that is no test's would show nothing.
#[test]
fn every_test_that_the_rfc_table_names_exists() {
    let table = read("sip/RFC.md");
    let sources: Vec<String> = rust_files().iter().map(|file| read(file)).collect();
    let mut rows = 0;
    for row in table.lines().filter(|line| line.starts_with("| ") && !line.contains("| status |")) {
        rows += 1;
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [section, _, status, tests] = cells[..] else { panic!("{row}: four cells") };
        let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        let kind = status.split(':').next().unwrap_or(status);
        match kind {
            "done" => assert!(!named.is_empty(), "{section}: done, and no test shows it"),
            "part" => assert!(status.len() > kind.len() + 2, "{section}: part of what"),
            "out" => assert!(named.is_empty() && status.len() > kind.len(), "{section}: out, why"),
            "not yet" => assert!(named.is_empty(), "{section}: not yet, and there is a test"),
            other => panic!("{section}: {other:?} is no status"),
        }
        for name in named {
            assert!(is_test(&sources, name), "{section} names the test {name}, which does not exist");
        }
    }
    assert!(rows > 60, "only {rows} rows");
}
