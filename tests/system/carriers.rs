//! Carriers that do not know us by our address: they ask for credentials, and may want to be registered with.

use schema::carrier::TrunkDown;
use schema::id::TrunkId;
use schema::pii::Pii;
use sip::demo::carrier::{CarrierCommand, CarrierEvent, CarrierLogin};
use sip::digest::{Algorithm, ha1};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;
use tests::carrier::TestCarrier;
use tests::logs::Logs;
use tests::phone::TestPhone;
use tests::place::{COST_DECK, Place, SHOP_DECK, listener};
use tests::server::TestServer;

const PASSWORD: &str = "canary-carrier-password";
const REALM: &str = "carrier.test";
/// The test carrier answers at once.
const ANSWERS: &str = "15550000000";
/// It rings.
const RINGS: &str = "15550000060";

fn login(registers_s: Option<(u32, u32)>) -> CarrierLogin {
    CarrierLogin {
        username: "us".to_owned(),
        password: Pii::new(PASSWORD.to_owned()),
        realm: REALM.to_owned(),
        algorithms: vec![Algorithm::Sha256, Algorithm::Md5],
        registers_s,
    }
}

/// A carrier tried before the ordinary one.
fn asks(gateway: SocketAddr, password: &str, more: &str) -> String {
    format!(
        "[[carrier]]\nname = \"Asks\"\ngateway = \"udp:{gateway}\"\ncurrency = \"EUR\"\ndeck = \"Wholesale\"\n\
         priority = -1\nauth_username = \"us\"\nauth_password = \"{password}\"\n{more}\n"
    )
}

/// A server with an account, the ordinary carrier and one that asks.
async fn server(carrier: &TestCarrier, password: &str, more: &str) -> (TestServer, TestCarrier) {
    let mut server = TestServer::start_with(|config| config.test_carrier = None).await;
    let ordinary = TestCarrier::start().await;
    server.gateway = ordinary.address;
    server.accounts(1, "10.00", "live_calls = 5, calls_per_minute = 100").await;
    server.provision(&asks(carrier.address, password, more)).await;
    (server, ordinary)
}

async fn phone(server: &TestServer) -> TestPhone {
    TestPhone::start(server.addresses().sip_udp.expect("UDP"), "u0", "pw0").await
}

async fn trunk(server: &TestServer) -> TrunkId {
    let trunks = server.server.store.trunks().await.expect("readable");
    trunks.iter().find(|trunk| trunk.name == "Asks").expect("provisioned").id
}

async fn is_down(server: &TestServer, down: Option<TrunkDown>) {
    let id = trunk(server).await;
    server.until("the trunk changes", async |s| s.actors.trunk(id).is_some_and(|(_, is)| is == down)).await;
}

/// Calls and hangs up; over which carrier it went.
async fn route(server: &TestServer, phone: &mut TestPhone) -> String {
    let call = phone.talk(ANSWERS).await;
    phone.hang_up(call).await;
    server.left_clean().await;
    let history = server.history(server.account("u0").await).await;
    history.last().and_then(|cdr| cdr.call.route.clone()).expect("a route")
}

/// HA1 as anybody might write it down.
fn ha1_texts() -> Vec<Vec<u8>> {
    let secret = ha1("us", REALM, PASSWORD);
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    };
    let (md5, sha256) = (secret.md5.to_vec(), secret.sha256.to_vec());
    vec![hex(&md5).into_bytes(), hex(&sha256).into_bytes(), md5, sha256]
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_a_call_over_a_carrier_that_asks_costs_no_more_writes_and_shows_no_secret() {
    let logs = Logs::listen();
    let mut carrier = TestCarrier::asking(&login(None)).await;
    let (server, mut ordinary) = server(&carrier, PASSWORD, "auth_realm = \"carrier.test\"").await;
    let account = server.account("u0").await;
    let mut phone = phone(&server).await;
    let before = server.view(account).await.cursor.seq.0;
    assert_eq!(route(&server, &mut phone).await, "Asks");
    let entries = server.view(account).await.cursor.seq.0 - before;
    // Asked once: the BYE brings its credentials along.
    let seen = [CarrierEvent::Challenged, CarrierEvent::Confirmed, CarrierEvent::Ended { by_carrier: false }];
    assert_eq!(carrier.so_far(), seen);
    assert_eq!(entries, 3, "call and hold, answer, end: as over any carrier");
    let attempts = server.history(account).await.last().map(|cdr| cdr.call.explanation.candidates.len());
    assert_eq!(attempts, Some(2));
    assert!(ordinary.so_far().is_empty());

    // It hangs up by itself, and is cancelled while it rings.
    let call = phone.talk("15550000080").await;
    assert!(!phone.ended(call).await);
    let call = phone.dial(RINGS).await;
    phone.rings(call).await;
    phone.give_up(call).await;
    assert_eq!(phone.outcome(call).await, Err(487));
    carrier.until(CarrierEvent::Cancelled).await;
    // Nonces that aged in the middle of a call.
    let call = phone.talk(ANSWERS).await;
    carrier.so_far();
    carrier.tell(CarrierCommand::AgeNonces).await;
    phone.hang_up(call).await;
    carrier.until(CarrierEvent::Challenged).await;
    carrier.until(CarrierEvent::Ended { by_carrier: false }).await;
    server.left_clean().await;

    let lines = logs.lines();
    assert!(lines.iter().any(|line| line.contains("call over")), "the logs are heard");
    let data = server.config.data_dir.clone();
    server.server.stop().await.expect("the server ends");
    let secrets: Vec<Vec<u8>> = [PASSWORD.as_bytes().to_vec()].into_iter().chain(ha1_texts()).collect();
    let mut looked_at = 0;
    for secret in &secrets {
        assert!(!lines.iter().any(|line| contains(line.as_bytes(), secret)), "a secret is logged");
        for file in std::fs::read_dir(&data).expect("readable").flatten().filter(|file| file.path().is_file()) {
            let bytes = std::fs::read(file.path()).expect("readable");
            looked_at += usize::from(contains(&bytes, REALM.as_bytes()));
            assert!(!contains(&bytes, secret), "a secret is in {:?}", file.file_name());
        }
    }
    assert!(looked_at > 0, "what is not sealed is found this way");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_named_and_calls_go_elsewhere() {
    let mut carrier = TestCarrier::asking(&login(None)).await;
    let (server, mut ordinary) = server(&carrier, "not the password", "").await;
    let mut phone = phone(&server).await;
    assert_eq!(route(&server, &mut phone).await, "Test carrier");
    assert_eq!(
        carrier.so_far(),
        [CarrierEvent::Challenged, CarrierEvent::Challenged],
        "asked, and told that it is wrong"
    );
    is_down(&server, Some(TrunkDown::CredentialsRefused)).await;
    // The next call does not try it.
    assert_eq!(route(&server, &mut phone).await, "Test carrier");
    assert!(carrier.so_far().is_empty());
    let history = server.history(server.account("u0").await).await;
    let left_out = &history.last().expect("a call").call.explanation.candidates;
    let asks = left_out.iter().find(|route| route.carrier == "Asks").expect("thought of");
    assert_eq!(asks.outcome, "excluded: down: it refuses the credentials");
    assert_eq!(ordinary.so_far().iter().filter(|event| **event == CarrierEvent::Confirmed).count(), 2);
    // A realm that is not the configured one is not answered at all.
    server.provision(&asks_of(&carrier, "auth_realm = \"another.test\"")).await;
    is_down(&server, None).await;
    assert_eq!(route(&server, &mut phone).await, "Test carrier");
    assert_eq!(carrier.so_far(), [CarrierEvent::Challenged]);
    is_down(&server, Some(TrunkDown::OtherRealm)).await;
    // Put right, it is used at once.
    server.provision(&asks_of(&carrier, "auth_realm = \"carrier.test\"")).await;
    is_down(&server, None).await;
    assert_eq!(route(&server, &mut phone).await, "Asks");
}

fn asks_of(carrier: &TestCarrier, more: &str) -> String {
    asks(carrier.address, PASSWORD, more)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trunk_is_registered_refreshed_registered_again_and_left() {
    // It grants eight seconds, whatever it is asked for, and refuses less than two minutes.
    let mut carrier = TestCarrier::asking(&login(Some((120, 8)))).await;
    let (server, _ordinary) = server(&carrier, PASSWORD, "register = true\nregister_expires = 60").await;
    let mut phone = phone(&server).await;
    carrier.until(CarrierEvent::Registered).await;
    is_down(&server, None).await;
    assert_eq!(route(&server, &mut phone).await, "Asks");
    carrier.until(CarrierEvent::Ended { by_carrier: false }).await;
    carrier.tell(CarrierCommand::AgeNonces).await;
    carrier.until(CarrierEvent::Registered).await;
    // The carrier forgets us: the call it forbids shows that.
    carrier.tell(CarrierCommand::ForgetRegistration).await;
    let call = phone.dial(ANSWERS).await;
    assert!(phone.outcome(call).await.is_err());
    carrier.until(CarrierEvent::Registered).await;
    assert_eq!(route(&server, &mut phone).await, "Asks");
    // Another password: the trunk is down until it is registered again, and leaves by the one it had.
    server.provision(&asks(carrier.address, "not the password", "register = true\nregister_expires = 60")).await;
    carrier.until(CarrierEvent::Unregistered).await;
    is_down(&server, Some(TrunkDown::CredentialsRefused)).await;
    server.provision(&asks(carrier.address, PASSWORD, "register = true\nregister_expires = 60")).await;
    carrier.until(CarrierEvent::Registered).await;
    is_down(&server, None).await;
    server.server.stop().await.expect("the server ends");
    carrier.until(CarrierEvent::Unregistered).await;
}

fn world(carrier: SocketAddr) -> String {
    let carrier = asks(carrier, PASSWORD, "");
    format!(
        r#"
        [[rate_deck]]
        name = "Shop"
        file = "shop.csv"
        currency = "EUR"
        [[rate_deck]]
        name = "Wholesale"
        file = "cost.csv"
        currency = "EUR"
        {carrier}
        [[accounts_bulk]]
        count = 1
        first_sip_username = "u0"
        sip_password = "pw{{n}}"
        country = "US"
        currency = "EUR"
        opening_credit = "3.00"
        rate_deck = "Shop"
        caller_ids = [{{ number = "+442079460555", evidence = "document" }}]
        limits = {{ rate_per_minute = "none" }}
        "#
    )
}

/// The program is killed while one call rings behind a challenge, and while another one is up behind it.
#[tokio::test(flavor = "multi_thread")]
async fn c1_calls_behind_a_challenge_are_withdrawn_or_go_on_after_a_kill() {
    let place = Place::default();
    let mut carrier = TestCarrier::asking(&login(None)).await;
    place.write("shop.csv", SHOP_DECK);
    place.write("cost.csv", COST_DECK);
    place.write("world.toml", &world(carrier.address));
    place.succeed(&["provision", "world.toml"]).await;
    let server = place.serve_to_restart().await;
    let screen = server.stdout();
    let mut phone = TestPhone::start(listener(&screen, "UDP"), "u0", "pw0").await;
    let up = phone.talk(ANSWERS).await;
    carrier.until(CarrierEvent::Confirmed).await;
    let rings = phone.dial(RINGS).await;
    phone.rings(rings).await;
    drop(server);

    let server = place.start_again(&screen).await;
    // The carrier is asked in the transaction that rings, and only once.
    carrier.until(CarrierEvent::Cancelled).await;
    assert_eq!(phone.outcome(rings).await, Err(503));
    assert!(phone.is_up(up));
    phone.hang_up(up).await;
    carrier.until(CarrierEvent::Ended { by_carrier: false }).await;
    let records =
        || -> i64 { place.database().query_row("select count(*) from cdrs", [], |row| row.get(0)).expect("counted") };
    for _ in 0..300 {
        if records() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(records(), 2);
    assert!(place.succeed(&["audit"]).await.ends_with("clean\n"));
    drop(server);
}
