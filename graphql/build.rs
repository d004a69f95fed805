//! Builds the dashboard and tells the crate where its files are: `RINGFENCE_DASHBOARD_DIR`, which rust-embed reads.
//!
//! The result is cached under `target/dashboard/<hash of the inputs>`, shared by all profiles, so npm runs only when the
//! dashboard or the schema changed. It runs in a copy: nothing is written into the source tree. Where it cannot run, a page
//! is embedded that says how to get the dashboard, and the server is otherwise whole.
//!
//! `RINGFENCE_DASHBOARD=skip` embeds that page at once; `RINGFENCE_DASHBOARD=require` makes a failure an error.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;
use std::{env, io};

/// Vite's own lower bound.
const NODE_AT_LEAST: (u32, u32) = (20, 19);

/// What npm and the editor leave in the folder, and what the build does not read.
const NOT_INPUTS: [&str; 5] = ["node_modules", "dist", "generated", "README.md", ".gitignore"];

/// How the names of the folders begin in which npm runs.
const WORK: &str = "work-";

/// Installs what the lock file names, from npm's cache where it can; without a network it gives up in seconds.
const NPM_CI: [&str; 7] = [
    "ci",
    "--include=dev",
    "--prefer-offline",
    "--no-progress",
    "--fetch-timeout=60000",
    "--fetch-retry-mintimeout=1000",
    "--fetch-retry-maxtimeout=5000",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=RINGFENCE_DASHBOARD");
    let mode = env::var("RINGFENCE_DASHBOARD").unwrap_or_default();
    let built = match mode.as_str() {
        "skip" => Err("RINGFENCE_DASHBOARD=skip".to_owned()),
        "" | "require" => Inputs::read().and_then(|inputs| built_folder(&inputs)),
        other => panic!("RINGFENCE_DASHBOARD is \"{other}\", but only \"skip\" and \"require\" are known"),
    };
    let dir = built.unwrap_or_else(|reason| {
        assert!(mode != "require", "the dashboard was not built: {reason}");
        println!("cargo:warning=the dashboard is not embedded: {reason}");
        println!("cargo:warning=cargo does not try again by itself: build with RINGFENCE_DASHBOARD=require to have it");
        missing_page().expect("write the page that stands in for the dashboard")
    });
    println!("cargo:rustc-env=RINGFENCE_DASHBOARD_DIR={}", dir.display());
}

/// Every file that the build reads, by its path in the repository, with `/` on every system.
struct Inputs {
    root: PathBuf,
    files: BTreeMap<String, Vec<u8>>,
    newest: SystemTime,
}

impl Inputs {
    fn read() -> Result<Self, String> {
        let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
        let root = manifest.parent().expect("a crate in a workspace").to_owned();
        let mut inputs = Self { root, files: BTreeMap::new(), newest: SystemTime::UNIX_EPOCH };
        inputs.watch("schema/schema.graphql");
        inputs.add_file("schema/schema.graphql").map_err(|e| format!("schema/schema.graphql: {e}"))?;
        inputs.add_dashboard().map_err(|e| format!("dashboard: {e}"))?;
        Ok(inputs)
    }

    fn add_dashboard(&mut self) -> io::Result<()> {
        for entry in fs::read_dir(self.root.join("dashboard"))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if !NOT_INPUTS.contains(&name.as_str()) {
                // Watched as a whole: cargo notices new and removed files in a folder, at any depth.
                self.watch(&format!("dashboard/{name}"));
                self.add(&format!("dashboard/{name}"))?;
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &str) -> io::Result<()> {
        if !self.root.join(path).is_dir() {
            return self.add_file(path);
        }
        for entry in fs::read_dir(self.root.join(path))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if !name.ends_with(".test.ts") {
                self.add(&format!("{path}/{name}"))?;
            }
        }
        Ok(())
    }

    fn add_file(&mut self, path: &str) -> io::Result<()> {
        let file = self.root.join(path);
        self.newest = self.newest.max(fs::metadata(&file)?.modified()?);
        self.files.insert(path.to_owned(), fs::read(file)?);
        Ok(())
    }

    fn watch(&self, path: &str) {
        println!("cargo:rerun-if-changed={}", self.root.join(path).display());
    }

    /// FNV-1a over every path and content, with their lengths: the name of the cached result.
    fn hash(&self) -> String {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut add = |bytes: &[u8]| {
            for byte in (bytes.len() as u64).to_le_bytes().iter().chain(bytes) {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        };
        for (path, content) in &self.files {
            add(path.as_bytes());
            add(content);
        }
        format!("{hash:016x}")
    }

    fn copy_to(&self, folder: &Path) -> io::Result<()> {
        for (path, content) in &self.files {
            let file = folder.join(path);
            fs::create_dir_all(file.parent().expect("a file is in a folder"))?;
            fs::write(file, content)?;
        }
        Ok(())
    }
}

/// The folder of the built dashboard, from the cache or newly made.
fn built_folder(inputs: &Inputs) -> Result<PathBuf, String> {
    let cache = target_dir().join("dashboard");
    let result = cache.join(inputs.hash());
    // Someone may delete the cache.
    println!("cargo:rerun-if-changed={}", result.join("index.html").display());
    if is_complete(&result) {
        return Ok(result);
    }
    let wrote = |e: io::Error| format!("{}: {e}", cache.display());
    fs::create_dir_all(&cache).map_err(wrote)?;
    // Two builds (of two profiles, or of an editor) may be here at once. The lock ends with its process.
    let lock = File::create(cache.join("lock")).map_err(wrote)?;
    lock.lock().map_err(wrote)?;
    if is_complete(&result) {
        return Ok(result);
    }
    let node = check_node()?;
    remove_left_over(&cache);
    // Of its own name: npm may outlive a build that was killed, and still write.
    let work = cache.join(format!("{WORK}{}", std::process::id()));
    let made = make(inputs, &work, &result);
    let cleaned = fs::remove_dir_all(&work);
    made.map_err(|reason| format!("{reason} (node {node})"))?;
    cleaned.map_err(wrote)?;
    Ok(result)
}

/// Removes the copies of builds that were killed. Called with the lock held, so nobody is at work in them.
fn remove_left_over(cache: &Path) {
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(WORK) {
            let _ = fs::remove_dir_all(entry.path()); // the next build tries again
        }
    }
}

fn is_complete(result: &Path) -> bool {
    result.join("index.html").is_file()
}

/// Runs npm in a fresh copy at `work` and moves what it built to `result`, which so appears complete or not at all.
fn make(inputs: &Inputs, work: &Path, result: &Path) -> Result<(), String> {
    let wrote = |e: io::Error| format!("{}: {e}", work.display());
    inputs.copy_to(work).map_err(wrote)?;
    let dashboard = work.join("dashboard");
    npm(&dashboard, &NPM_CI)?;
    npm(&dashboard, &["run", "build"])?;
    let dist = dashboard.join("dist");
    if !is_complete(&dist) {
        return Err("`npm run build` made no dist/index.html".to_owned());
    }
    date(&dist, inputs.newest).map_err(wrote)?;
    if result.exists() {
        fs::remove_dir_all(result).map_err(wrote)?;
    }
    fs::rename(dist, result).map_err(wrote)
}

/// Gives the result the date of the newest input: cargo takes a watched file that is newer than the start of this script
/// for a change, and would run it again.
fn date(path: &Path, modified: SystemTime) -> io::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            date(&entry?.path(), modified)?;
        }
        return Ok(());
    }
    File::options().append(true).open(path)?.set_modified(modified)
}

fn check_node() -> Result<String, String> {
    let (major, minor) = NODE_AT_LEAST;
    let wanted = format!("Node.js {major}.{minor} or newer with npm is needed");
    let output = Command::new("node").arg("--version").output();
    let output = output.map_err(|e| format!("{wanted}, and `node --version` says: {e}"))?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let mut numbers = version.trim_start_matches('v').split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found < NODE_AT_LEAST {
        return Err(format!("{wanted}, and this is \"{version}\""));
    }
    Ok(version)
}

/// Runs npm; a failure is told by its first line about an error, and in full in the log in `OUT_DIR`.
fn npm(folder: &Path, arguments: &[&str]) -> Result<(), String> {
    let command = format!("`npm {}`", arguments.join(" "));
    let program = if cfg!(windows) { "npm.cmd" } else { "npm" };
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .env_remove("NODE_ENV") // "production" would leave out what builds
        .env("NO_COLOR", "1")
        .output()
        .map_err(|e| format!("{command} did not start: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    let log = out_dir().join("dashboard.log");
    fs::write(&log, &text).map_err(|e| format!("{}: {e}", log.display()))?;
    let text = String::from_utf8_lossy(&text);
    let mut said = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first_error = said.clone().find(|line| line.to_lowercase().contains("error")).or_else(|| said.next_back());
    Err(format!("{command} failed: {} (all of it: {})", first_error.unwrap_or("no output"), log.display()))
}

fn out_dir() -> PathBuf {
    PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"))
}

/// The target folder: the one above `OUT_DIR` that cargo has tagged, and not that of one target triple in it. Without a tag
/// `OUT_DIR` itself, where the cache works too, though for one profile only.
fn target_dir() -> PathBuf {
    let out = out_dir();
    let tagged = out.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    let triple = env::var_os("TARGET");
    match tagged {
        Some(folder) if folder.file_name() == triple.as_deref() => folder.parent().unwrap_or(folder).to_owned(),
        Some(folder) => folder.to_owned(),
        None => out,
    }
}

/// Writes the page that stands in for the dashboard. It keeps to the same Content-Security-Policy: no inline style.
fn missing_page() -> io::Result<PathBuf> {
    let dir = out_dir().join("dashboard-missing");
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("index.html"), MISSING_PAGE)?;
    fs::write(dir.join("missing.css"), MISSING_STYLE)?;
    Ok(dir)
}

const MISSING_PAGE: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Ringfence: no dashboard in this build</title>
<link rel="stylesheet" href="/missing.css">
</head>
<body>
<main>
<h1>Ringfence is running, without its dashboard</h1>
<p>This binary was built without the web dashboard. Calls, the GraphQL API at <code>/graphql</code> and its subscriptions at
<code>/graphql/ws</code> work as usual.</p>
<p>To get the dashboard, install <strong>Node.js 20.19 or newer</strong> with npm and build again:</p>
<pre>RINGFENCE_DASHBOARD=require cargo build --release</pre>
<p>The first time npm fetches the packages named in <code>dashboard/package-lock.json</code> from your package registry.</p>
<p>A warning in the output of the build said why it is missing.</p>
</main>
</body>
</html>
"#;

const MISSING_STYLE: &str = "\
:root { color-scheme: light dark; font-family: system-ui, sans-serif; line-height: 1.5 }
main { max-width: 42rem; margin: 10vh auto; padding: 0 1rem }
h1 { font-size: 1.5rem }
pre, code { font-family: ui-monospace, monospace; overflow-wrap: anywhere; white-space: pre-wrap }
";
