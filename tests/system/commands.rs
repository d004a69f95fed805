//! The command line as a newcomer meets it: the real program, in an empty folder.

use ringfence::development::{CUSTOMER_EMAIL, OPERATOR_EMAIL};
use std::net::{TcpListener, UdpSocket};
use std::time::Duration;
use tests::phone::TestPhone;
use tests::place::{LISTENERS, Place, listener, one_line};

/// A server ends within this after it was asked to.
const END: Duration = Duration::from_secs(12);
const DECK: &str = "\
prefix,destination,rate_per_minute,connect_fee,minimum_s,increment_s,grace_s,effective_from,effective_until
447700900,Fiction UK,0.60,0,0,1,0,,
";
const WORLD: &str = r#"
[[rate_deck]]
name = "Shop"
file = "shop.csv"
currency = "EUR"
[[carrier]]
name = "Second carrier"
gateway = "tcp:127.0.0.1:5999"
currency = "EUR"
deck = "Shop"
[[operator]]
email = "finance@example.test"
password = "a long password"
roles = ["finance"]
[[account]]
email = "eve@example.test"
username = "Eve"
password = "another password"
country = "GB"
currency = "EUR"
opening_credit = "3.00"
rate_deck = "Shop"
sip_username = "eve"
sip_password = "evepassword"
caller_ids = [{ number = "+442079460555", evidence = "document" }]
callback_numbers = ["+447700900999"]
limits = { rate_per_minute = "none" }
[[accounts_bulk]]
count = 2000
first_sip_username = "b100"
sip_password = "pw{n}"
country = "GB"
currency = "EUR"
opening_credit = "1.00"
rate_deck = "Shop"
"#;

fn place_with_world() -> Place {
    let place = Place::default();
    place.write("shop.csv", DECK);
    place.write("world.toml", WORLD);
    place
}

/// The words that follow `password`, in order.
fn passwords(screen: &str) -> Vec<String> {
    let words: Vec<&str> = screen.split_whitespace().collect();
    words.windows(2).filter(|pair| pair[0] == "password").map(|pair| pair[1].to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_shows_secrets_once_and_a_second_says_what_it_found() {
    let place = Place::default();
    let server = place.serve().await;
    let first = server.stdout();
    assert!(first.lines().count() <= 24 && first.lines().all(|line| line.len() <= 120), "one screen: {first}");
    let secrets = passwords(&first);
    assert_eq!(secrets.len(), 3, "customer, operator and phone: {first}");
    for shown in ["http://127.0.0.1:", CUSTOMER_EMAIL, OPERATOR_EMAIL, "(UDP)", "(TCP)", "(TLS)", "demo", "+447700900"]
    {
        assert!(first.contains(shown), "{shown}: {first}");
    }
    server.terminate();
    let ended = server.ended(END).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);

    let server = place.serve().await;
    let second = server.stdout();
    assert!(second.contains("Found 1 accounts and 0 live calls"), "{second}");
    server.terminate();
    let ended = server.ended(END).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    for secret in secrets {
        assert!(!ended.stdout.contains(&secret) && !ended.stderr.contains(&secret), "a secret again: {}", ended.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_one_clear_line_and_leaves_nothing_behind() {
    let on_ipv6 = [
        ("RINGFENCE_SIP__V6__UDP", "sip.v6.udp"),
        ("RINGFENCE_SIP__V6__TCP", "sip.v6.tcp"),
        ("RINGFENCE_SIP__V6__TLS", "sip.v6.tls"),
    ];
    for (variable, key) in LISTENERS.into_iter().chain(on_ipv6) {
        let place = Place::default();
        let (tcp, udp);
        let free = if key.contains("v6") { "[::1]:0" } else { "127.0.0.1:0" };
        let taken = if ["sip.udp", "sip.v6.udp", "test_carrier"].contains(&key) {
            udp = UdpSocket::bind(free).expect("a port");
            udp.local_addr()
        } else {
            tcp = TcpListener::bind(free).expect("a port");
            tcp.local_addr()
        };
        let taken = taken.expect("an address").to_string();
        let mut command = place.command(&[]);
        command.env(variable, &taken);
        let said = one_line(place.start(command).ended(END).await, 1);
        assert!(said.contains(&format!("{key} = {taken}: ")), "{key}: {said}");
        assert!(!place.folder.path().join("data/ringfence.db").exists(), "{key}: nothing is stored yet");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_or_socket_that_cannot_be_used_is_found_before_anything_is_stored() {
    let place = Place::default();
    let stored = || place.folder.path().join("data/ringfence.db").exists();
    let mut command = place.command(&[]);
    command.env("RINGFENCE_HTTP__TLS__CERT", "nowhere.pem").env("RINGFENCE_HTTP__TLS__KEY", "nowhere.key");
    let said = one_line(place.start(command).ended(END).await, 1);
    assert!(said.contains("http.tls: cannot read certificate nowhere.pem") && !stored(), "{said}");
    std::fs::create_dir(place.folder.path().join("data/admin.sock")).expect("made");
    let said = place.fail(&[], 1).await;
    assert!(said.contains("cannot make data/admin.sock: ") && !stored(), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_could_not_be_taken_is_taken_next() {
    let place = Place::default();
    let mut command = place.traced(&["-e", "trace=accept4", "-e", "inject=accept4:error=EMFILE:when=1"], &[]);
    for (name, _) in LISTENERS {
        command.env(name, "127.0.0.1:0");
    }
    let mut server = place.start(command);
    server.until("ready", |said| said.contains("The passwords are shown this once")).await;
    for _ in 0..2 {
        place.succeed(&["failures"]).await;
    }
    assert!(server.stderr().contains("a command could not be taken"), "{}", server.stderr());
    server.terminate();
    assert_eq!(server.ended(END).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_used_is_one_clear_line() {
    let place = Place::default();
    place.write("data", "a file in the folder's place");
    let said = place.fail(&[], 1).await;
    assert!(said.starts_with("ringfence: data_dir data: cannot be written"), "{said}");

    let config = "development = true\n[sip]\nudp = \"127.0.0.1:5060\"\n";
    let cases: [(String, &[&str]); 6] = [
        (format!("{config}port = 1"), &["unknown key sip.port", "allowed are domain"]),
        (config.replace("5060", "port"), &["sip.udp", "127.0.0.1:port"]),
        (config.replace("127.0.0.1", "0.0.0.0"), &["sip.udp = 0.0.0.0:5060", "loopback"]),
        (config.replace("true", "\"maybe\""), &["development = string \"maybe\"", "must be a boolean"]),
        ("[[".to_owned(), &["config.toml: TOML parse error at line 1, column 3: "]),
        ("development = false".to_owned(), &["sip = (no listener)"]),
    ];
    for (text, wanted) in cases {
        place.write("config.toml", &text);
        // What the file says counts, not the listeners of the environment.
        let mut command = place.command(&["serve", "--config", "config.toml"]);
        for (name, _) in LISTENERS {
            command.env_remove(name);
        }
        let said = one_line(place.start(command).ended(END).await, 2);
        for part in wanted {
            assert!(said.contains(part), "{text}: {said}");
        }
    }
    let said = place.fail(&["--config", "nowhere.toml"], 2).await;
    assert!(said.contains("--config nowhere.toml"), "{said}");
    for (name, value, wanted) in [
        ("RINGFENCE_HTP__LISTEN", "127.0.0.1:0", "environment: unknown key htp"),
        ("RINGFENCE_LIMITS__LIVE_CALLS", "0", "limits.live_calls = 0: must be 1 to 1000000"),
        ("RINGFENCE_LIMITS__LIVE_CALLS", "many", "limits.live_calls"),
    ] {
        let mut command = place.command(&[]);
        command.env(name, value);
        let said = one_line(place.start(command).ended(END).await, 2);
        assert!(said.contains(wanted), "{name}={value}: {said}");
    }
    // Wrong usage is clap's to explain.
    for arguments in [&["dance"][..], &["credit", "demo"], &["demo", "call", "--seconds", "0"]] {
        assert_eq!(place.run(arguments).await.code, Some(2), "{arguments:?}");
    }
    assert!(place.succeed(&["--help"]).await.contains("provision"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_folder_has_one_server() {
    let place = Place::default();
    let first = place.serve().await;
    let said = place.fail(&[], 1).await;
    assert!(said.contains("data_dir data: another ringfence server uses this folder"), "{said}");
    first.terminate();
    assert_eq!(first.ended(END).await.code, Some(0));
    drop(place.serve().await);
    // A server that was killed leaves its socket and lock file; neither is in the way.
    drop(place.serve().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_world_file_creates_what_is_missing_and_a_second_time_nothing() {
    let place = place_with_world();
    let created = "created 1 operators, 1 carriers, 1 rate decks and 2001 accounts; 0 accounts were there already (data_dir data, sip.domain localhost)\n";
    let existed = "created 0 operators, 0 carriers, 0 rate decks and 0 accounts; 2001 accounts were there already (data_dir data, sip.domain localhost)\n";
    assert_eq!(place.succeed(&["provision", "world.toml"]).await, created);
    let rows = place.rows();
    for wanted in [("accounts", 2_001), ("credentials", 2_001), ("entries", 4_002), ("caller_ids", 1), ("rates", 1)] {
        assert!(rows.iter().any(|(name, count)| (name.as_str(), *count) == wanted), "{wanted:?}: {rows:?}");
    }
    assert_eq!(place.succeed(&["provision", "world.toml"]).await, existed);
    assert_eq!(place.rows(), rows, "nothing is created twice");
    place.write(
        "other.toml",
        &WORLD.replace("\"none\" }", "\"1.00\" }").replace("country = \"GB\"", "country = \"US\""),
    );
    let differs = "account of sip_username eve: was not changed, and differs in country, limits\n";
    assert_eq!(place.succeed(&["provision", "other.toml"]).await, existed.to_owned() + differs);
    assert!(place.succeed(&["audit"]).await.ends_with("clean\n"));

    // A running server does it itself, and knows at once.
    let server = place.serve().await;
    let rows = place.rows();
    assert_eq!(place.succeed(&["provision", "world.toml"]).await, existed);
    assert_eq!(place.succeed(&["provision", "other.toml"]).await, existed.to_owned() + differs);
    assert_eq!(place.rows(), rows, "nor by a running server");
    let more = WORLD.replace("b100", "c1").replace("2000", "3").replace("\"eve\"", "\"eva\"").replace("eve@", "eva@");
    place.write("more.toml", &more);
    let said = place.succeed(&["provision", "more.toml"]).await;
    assert_eq!(
        said,
        created.replace("1 operators, 1 carriers, 1 rate", "0 operators, 0 carriers, 0 rate").replace("2001", "4")
    );
    let mut phone = TestPhone::start(listener(&server.stdout(), "UDP"), "eva", "evepassword").await;
    let call = phone.talk("+447700900001").await;
    phone.hang_up(call).await;
    let mut phone = TestPhone::start(listener(&server.stdout(), "UDP"), "c2", "pw2").await;
    assert_eq!(
        {
            let call = phone.dial("+447700900001").await;
            phone.outcome(call).await
        },
        Err(403),
        "no caller ID"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_world_file_changes_nothing() {
    let place = place_with_world();
    place.succeed(&["provision", "world.toml"]).await;
    let bad_deck = format!("{DECK}4479,UK mobile,0.1o,0,0,1,0,,\n44x,Nowhere,0.10,0,0,0,0,,\n");
    place.write("bad.csv", &bad_deck);
    // A good deck of a new name comes before the bad one, and people after it.
    let two_decks = WORLD.replace("Shop", "New").replace("eve", "ina").replace("b100", "d1").replace("2000", "2")
        + "[[rate_deck]]\nname = \"Bad\"\nfile = \"bad.csv\"\ncurrency = \"EUR\"\n";
    let cases: [(String, &[&str]); 8] = [
        (WORLD.replace("\"eve\"", "\"adam\""), &["account.email of sip_username adam: "]),
        (
            two_decks.clone(),
            &["bad.csv: line 3, column rate_per_minute: ", "found '0.1o'", "bad.csv: line 4, column prefix: ", "'44x'"],
        ),
        (two_decks.replace("bad.csv", "none.csv"), &["none.csv: "]),
        (
            two_decks
                .replace("bad.csv", "shop.csv")
                .replace("[\"finance\"]", "[\"king\"]")
                .replace("finance@", "king@"),
            &["operator.roles of operator ", " = king: must be "],
        ),
        (
            WORLD.replace("Shop", "New").replacen("rate_deck = \"New\"", "rate_deck = \"Old\"", 1),
            &["account.rate_deck of sip_username ", ": no rate deck is named Old"],
        ),
        (
            WORLD.replace("name = \"Shop\"", "name = \"New\"").replace("deck = \"Shop\"", "deck = \"New\"").replacen(
                "currency = \"EUR\"",
                "currency = \"GBP\"",
                1,
            ),
            &[" of ", ": rate deck New is in GBP, not in EUR"],
        ),
        (WORLD.replace("\"3.00\"", "3.5"), &["world.toml: line 21: ", "an amount as text"]),
        (WORLD.replace("opening_credit = \"1.00\"", "openning = 1"), &["unknown field `openning`"]),
    ];
    let rows = place.rows();
    for running in [false, true] {
        let server = if running { Some(place.serve().await) } else { None };
        let rows = if running { place.rows() } else { rows.clone() };
        for (world, wanted) in &cases {
            place.write("world.toml", world);
            let outcome = place.run(&["provision", "world.toml"]).await;
            assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""), "{}", outcome.stderr);
            for part in *wanted {
                assert!(outcome.stderr.contains(part), "{part}: {}", outcome.stderr);
            }
            assert_eq!(place.rows(), rows, "nothing has changed: {}", outcome.stderr);
        }
        drop(server);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn l4_a_credit_counts_once_with_and_without_a_server() {
    let place = place_with_world();
    place.succeed(&["provision", "world.toml"]).await;
    let credit =
        |amount: &'static str, key: &'static str| ["credit", "eve", amount, "--key", key, "--reason", "a gift"];
    assert_eq!(place.succeed(&credit("2.00", "k1")).await, "available 5.00 EUR\n");
    let again = "this key was used before, nothing was posted; available 5.00 EUR\n";
    assert_eq!(place.succeed(&credit("2.00", "k1")).await, again);
    let refused = place.fail(&credit("2.01", "k1"), 1).await;
    assert!(refused.contains("key") && !refused.contains("Conflict"), "{refused}");

    let server = place.serve().await;
    assert_eq!(place.succeed(&credit("2.00", "k1")).await, again, "a server knows what was posted before it");
    assert_eq!(place.fail(&credit("2.01", "k1"), 1).await, refused, "and says the same");
    assert_eq!(place.succeed(&credit("-0.50", "k2")).await, "available 4.50 EUR\n");
    for (arguments, wanted) in [
        (credit("-5.00", "k3"), "available"),
        (credit("0", "k3"), "amount"),
        (credit("five", "k3"), "amount five"),
        (credit("1.00", ""), "key"),
        (["credit", "nobody", "1.00", "--key", "k", "--reason", "r"], "no account has the id or SIP username nobody"),
    ] {
        let said = place.fail(&arguments, 1).await;
        assert!(said.contains(wanted), "{arguments:?}: {said}");
    }
    assert!(place.succeed(&["audit"]).await.ends_with("clean\n"), "beside a running server");
    server.terminate();
    assert_eq!(server.ended(END).await.code, Some(0));
    assert_eq!(place.succeed(&credit("-0.50", "k2")).await, again.replace("5.00", "4.50"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_works_on_what_is_there_makes_nothing() {
    let place = Place::default();
    let data = place.folder.path().join("data");
    let credit = ["credit", "demo", "1.00", "--key", "k", "--reason", "r"];
    let commands: [(&[&str], &str); 2] = [(&["audit"], "nothing to audit"), (&credit, "nothing to credit")];
    let all_refused = async || {
        for (command, says) in commands {
            let said = place.fail(command, 1).await;
            assert!(said.contains("data_dir data: ") && said.contains(says), "{said}");
        }
    };
    all_refused().await;
    assert!(!data.exists(), "no folder");
    std::fs::create_dir(&data).expect("made");
    all_refused().await;
    assert!(std::fs::read_dir(&data).expect("a folder").next().is_none(), "nor in a folder");
}

#[tokio::test(flavor = "multi_thread")]
async fn rates_of_a_world_that_failed_half_way_are_in_force() {
    let place = place_with_world();
    let _server = place.serve().await;
    let trigger = "create trigger nobody before insert on users begin select raise(abort, 'no more people'); end";
    place.database().execute_batch(trigger).expect("made");
    place.write("shop.csv", &DECK.replace("0.60", "30.00"));
    place.write("world.toml", &WORLD.replace("\"Shop\"", "\"Retail\""));
    let outcome = place.run(&["provision", "world.toml"]).await;
    assert!(outcome.code == Some(1) && outcome.stderr.contains("no more people"), "{}", outcome.stderr);
    // The demo customer's deck was stored before: a call is dearer than it may be.
    let outcome = place.run(&["demo", "call", "--seconds", "2"]).await;
    assert!(outcome.stdout.contains("403 not answered"), "{}", outcome.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn rates_of_a_world_that_was_given_up_are_in_force() {
    let place = place_with_world();
    let _server = place.serve().await;
    place.write("shop.csv", &DECK.replace("0.60", "30.00"));
    place.write("world.toml", &WORLD.replace("\"Shop\"", "\"Retail\"").replace("2000", "2000000"));
    let provisioning = place.start(place.command(&["provision", "world.toml"]));
    let stored = "select exists (select 1 from rates where per_minute = 30000000000)";
    while !place.database().query_row(stored, [], |row| row.get::<_, bool>(0)).expect("read") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    provisioning.kill().expect("it was not done");
    for _ in 0..5 {
        let outcome = place.run(&["demo", "call", "--seconds", "1"]).await;
        if outcome.stdout.contains("403 not answered") {
            return;
        }
    }
    panic!("calls go on at the old price");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_names_what_is_broken() {
    let place = Place::default();

    let server = place.serve().await;
    place.succeed(&["credit", "demo", "1.00", "--key", "k", "--reason", "r"]).await;
    server.terminate();
    assert_eq!(server.ended(END).await.code, Some(0));
    let clean = place.succeed(&["audit"]).await;
    assert_eq!(clean, "1 accounts, 2 transfers, 0 holds, 0 live calls, 0 CDRs, 2 events\nclean\n");

    let spoil = |by: i64| {
        place.database().execute_batch(&format!(
            "drop trigger entries_update; update entries set total = total + {by} where seq = 2; \
             create trigger entries_update before update on entries begin select raise(abort, 'entries are append-only'); end"
        ))
    };
    spoil(1).expect("spoilt");
    let outcome = place.run(&["audit"]).await;
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(1), ""));
    assert!(
        outcome.stdout.contains("\ntotal: account 1: ") && outcome.stdout.ends_with(" breaches\n"),
        "{}",
        outcome.stdout
    );
    spoil(-1).expect("mended");
    assert_eq!(place.succeed(&["audit"]).await, clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_call_shows_the_money_falling_the_cdr_and_the_ledger() {
    let place = Place::default();
    let said = place.fail(&["demo", "call"], 1).await;
    assert!(said.contains("no server runs on data"), "{said}");

    let server = place.serve().await;
    let said = place.succeed(&["demo", "call", "--seconds", "4"]).await;
    let remaining: Vec<f64> = said
        .lines()
        .filter_map(|line| line.trim().strip_prefix("remaining")?.split_whitespace().next()?.parse().ok())
        .collect();
    assert!(remaining.len() >= 4 && remaining.is_sorted_by(|a, b| a >= b), "{said}");
    assert!(remaining[0] == 10.0 && remaining[remaining.len() - 1] < 10.0, "{said}");
    for wanted in [
        "180 ringing",
        "200 answered",
        "hung up by the phone",
        "CDR of call",
        "Ledger, newest first",
        "CALL_CHARGE",
        "TOP_UP",
    ] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    let outcome = place.run(&["demo", "call", "--to", "+447700900050"]).await;
    assert_eq!(outcome.code, Some(1), "a busy callee is no success");
    assert!(outcome.stdout.contains("486 not answered"), "{}", outcome.stdout);

    // A call and a connection are no reason to stay.
    let mut phone = place.start(place.command(&["demo", "call", "--seconds", "60"]));
    phone.until("answered", |said| said.contains("200 answered")).await;
    server.terminate();
    let ended = server.ended(END).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    drop(phone);
    let server = place.serve().await;
    assert!(server.stdout().contains("Found 1 accounts and 1 live calls"), "{}", server.stdout());
    assert!(place.succeed(&["audit"]).await.ends_with("clean\n"));
}
