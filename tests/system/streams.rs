//! The real program ends in the middle of calls over connections, killed or drained, and the next one carries them on: whoever
//! hangs up then, phone or carrier, does so as if nothing had happened.

use ringfence::certificate::self_signed;
use schema::money::Micros;
use sip::demo::carrier::CarrierEvent;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;
use tests::carrier::TestCarrier;
use tests::dns::TestDns;
use tests::phone::TestPhone;
use tests::place::{COST_DECK, Place, SHOP_DECK, listener};
use tests::program::Program;
use tests::site::END;
use tests::softphone::{Baresip, Line};
use tokio::time::{Instant, sleep};

const NUMBER: &str = "+15550000000";
/// The carrier ends it 15 s after its answer.
const CARRIER_ENDS: &str = "+15550000082";
const PHONES: usize = 3;

/// How the program ends.
#[derive(Debug, Clone, Copy)]
enum Ending {
    /// Nothing is said to anybody.
    Killed,
    /// By SIGTERM.
    Drained,
}

fn world(gateway: &str) -> String {
    format!(
        r#"
        [[rate_deck]]
        name = "Shop"
        file = "shop.csv"
        currency = "EUR"
        [[rate_deck]]
        name = "Cost"
        file = "cost.csv"
        currency = "EUR"
        [[carrier]]
        name = "Carrier"
        gateway = "{gateway}"
        currency = "EUR"
        deck = "Cost"
        [[accounts_bulk]]
        count = {PHONES}
        first_sip_username = "u0"
        sip_password = "pw{{n}}"
        country = "GB"
        currency = "EUR"
        opening_credit = "3.00"
        rate_deck = "Shop"
        caller_ids = [{{ number = "+442079460555", evidence = "assigned" }}]
        limits = {{ rate_per_minute = "none" }}
        "#
    )
}

/// A program with this carrier that can be [`followed`], and what its screen showed.
async fn serving(place: &Place, gateway: &str) -> (Program, String) {
    place.write("shop.csv", SHOP_DECK);
    place.write("cost.csv", COST_DECK);
    place.write("world.toml", &world(gateway));
    place.succeed(&["provision", "world.toml"]).await;
    let server = place.serve_to_restart().await;
    let screen = server.stdout();
    (server, screen)
}

/// Ends the program while so many calls are up; the next one.
async fn followed(place: &Place, server: Program, screen: &str, ending: Ending, calls: usize) -> Program {
    match ending {
        Ending::Killed => server.kill().expect("it lives"),
        Ending::Drained => {
            server.terminate();
            let ended = server.ended(END).await;
            assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        }
    }
    let before = records(place).len();
    sleep(Duration::from_secs(1)).await;
    let server = place.start_again(screen).await;
    assert!(server.stdout().contains(&format!("{calls} live calls")), "{}", server.stdout());
    sleep(Duration::from_secs(2)).await;
    assert_eq!(records(place).len(), before, "the calls go on");
    server
}

/// Calls that are over, in the order of their ends: how long each was, and what it cost.
fn records(place: &Place) -> Vec<(i64, i64)> {
    let database = place.database();
    let mut read = database.prepare("select talk_ms, charged from cdrs order by ended_at").expect("read");
    let rows = read.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("read");
    rows.map(|row| row.expect("a record")).collect()
}

/// So many calls are over; the last one is charged for all of its time, which can only be one of these.
async fn billed(place: &Place, calls: usize, talk: Range<Duration>) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while records(place).len() < calls && Instant::now() < deadline {
        sleep(Duration::from_millis(50)).await;
    }
    let records = records(place);
    assert_eq!(records.len(), calls, "{records:?}");
    let (talk_ms, charged) = records[calls - 1];
    let lasted = Duration::from_millis(talk_ms.unsigned_abs());
    assert!(talk.contains(&lasted), "{lasted:?} from its answer to its BYE, not of {talk:?}");
    assert_eq!(Micros(charged), Micros(10_000 * (talk_ms + 999).div_euclid(1_000)));
}

/// Calls of phones over connections to a carrier over UDP, which ends the last one itself.
async fn phones_go_on(transport: &'static str, ending: Ending) {
    let place = Place::default();
    let mut carrier = TestCarrier::start().await;
    let (server, screen) = serving(&place, &format!("udp:{}", carrier.address)).await;
    let certificate = place.folder.path().join("data/tls/cert.pem");
    let address = listener(&screen, &transport.to_uppercase());
    let mut calls = Vec::new();
    for n in 0..PHONES {
        let (username, password) = (format!("u{n}"), format!("pw{n}"));
        let line =
            Line { username: &username, password: &password, transport, server: address, certificate: &certificate };
        let mut phone = Baresip::start(&place.folder.path().join(&username), line).await;
        phone.registered().await;
        let dialled = Instant::now();
        let by_carrier = n == PHONES - 1;
        phone.tell("dial", if by_carrier { CARRIER_ENDS } else { NUMBER }).await;
        phone.event("CALL_ESTABLISHED").await;
        assert_eq!(carrier.event().await, CarrierEvent::Confirmed);
        calls.push((phone, by_carrier, dialled, Instant::now()));
    }
    sleep(Duration::from_secs(2)).await;

    let server = followed(&place, server, &screen, ending, PHONES).await;
    for (over, (mut phone, by_carrier, dialled, answered)) in (1..).zip(calls) {
        let least = answered.elapsed();
        if by_carrier {
            // It comes back with a request in its dialog, and is told over that connection.
            phone.tell("hold", "").await;
            assert_eq!(carrier.event().await, CarrierEvent::Confirmed);
        } else {
            phone.tell("hangup", "").await;
        }
        phone.event("CALL_CLOSED").await;
        assert_eq!(carrier.event().await, CarrierEvent::Ended { by_carrier });
        billed(&place, over, least..dialled.elapsed()).await;
    }
    assert!(place.succeed(&["audit"]).await.ends_with("clean\n"));
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_over_tcp_survive_a_kill_and_either_side_hangs_up() {
    phones_go_on("tcp", Ending::Killed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_over_tls_survive_a_kill_and_either_side_hangs_up() {
    phones_go_on("tls", Ending::Killed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_over_tcp_outlive_a_drain_and_either_side_hangs_up() {
    phones_go_on("tcp", Ending::Drained).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_over_tls_outlive_a_drain_and_either_side_hangs_up() {
    phones_go_on("tls", Ending::Drained).await;
}

/// baresip as a carrier that the program finds by its name.
async fn carrier(place: &mut Place, transport: &str, dns: &TestDns) -> (Baresip, String) {
    dns.loopback("carrier.test");
    let folder = place.folder.path().join("carrier");
    let (certificate, key) = self_signed(&folder, "carrier.test").expect("a certificate");
    let (carrier, address) = Baresip::answering(&folder, NUMBER, transport, (&certificate, &key)).await;
    let show = |path: &Path| path.display().to_string();
    place.environment.insert("RINGFENCE_SIP__DNS", format!("[\"{}\"]", dns.address));
    place.environment.insert("RINGFENCE_SIP__CARRIER_CA", show(&certificate));
    (carrier, format!("{transport}:carrier.test:{}", address.port()))
}

/// Calls of a phone over UDP to a carrier over connections: one after the other, each ended by the phone or by the carrier.
async fn carriers_go_on(transport: &'static str) {
    let mut place = Place::default();
    let dns = TestDns::start().await;
    let (mut carrier, gateway) = carrier(&mut place, transport, &dns).await;
    let (mut server, screen) = serving(&place, &gateway).await;
    carrier.shows("OPTIONS sip:").await;
    let mut phone = TestPhone::start(listener(&screen, "UDP"), "u0", "pw0").await;
    let endings = [Ending::Killed, Ending::Drained].into_iter().flat_map(|how| [(how, false), (how, true)]);
    for (calls, (ending, by_carrier)) in (1..).zip(endings) {
        let dialled = Instant::now();
        let call = phone.talk(NUMBER).await;
        let answered = Instant::now();
        carrier.event("CALL_ESTABLISHED").await;
        sleep(Duration::from_millis(500)).await;
        server = followed(&place, server, &screen, ending, 1).await;
        assert!(phone.is_up(call));
        let least = answered.elapsed();
        if by_carrier {
            carrier.tell("hangup", "").await;
            assert!(!phone.ended(call).await, "the carrier ended it");
        } else {
            phone.hang_up(call).await;
        }
        carrier.event("CALL_CLOSED").await;
        billed(&place, calls, least..dialled.elapsed()).await;
    }
    assert!(place.succeed(&["audit"]).await.ends_with("clean\n"));
    drop(server);
    let shown = carrier.shown();
    assert!(!shown.contains("UDP 127.0.0.1"), "all of it over connections: {shown}");
    let requests = |method: &str| shown.lines().filter(|line| line.starts_with(&format!("{method} sip"))).count();
    assert!(requests("INVITE") == 4 && requests("BYE") == 4, "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_to_a_carrier_over_tcp_outlive_kills_and_drains_and_either_side_hangs_up() {
    carriers_go_on("tcp").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_to_a_carrier_over_tls_outlive_kills_and_drains_and_either_side_hangs_up() {
    carriers_go_on("tls").await;
}
