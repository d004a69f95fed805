//! The real program is killed in the middle of a call over a connection: the phone finds it again, and hangs up as if nothing
//! had happened.

use schema::money::Micros;
use sip::demo::carrier::CarrierEvent;
use std::net::SocketAddr;
use std::time::Duration;
use tests::carrier::TestCarrier;
use tests::place::{COST_DECK, Place, SHOP_DECK, listener};
use tests::softphone::{Baresip, Line};

const NUMBER: &str = "+15550000000";

fn world(carrier: SocketAddr) -> String {
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
        gateway = "udp:{carrier}"
        currency = "EUR"
        deck = "Cost"
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
        caller_ids = [{{ number = "+442079460555", evidence = "document" }}]
        limits = {{ rate_per_minute = "none" }}
        "#
    )
}

/// Calls of the account that are over: how long each was, what it cost, and how it ended.
fn records(place: &Place) -> Vec<(i64, i64)> {
    let database = place.database();
    let mut read = database.prepare("select talk_ms, charged from cdrs order by started_at").expect("read");
    let rows = read.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("read");
    rows.map(|row| row.expect("a record")).collect()
}

async fn survives(transport: &'static str) {
    let place = Place::default();
    let mut carrier = TestCarrier::start().await;
    place.write("shop.csv", SHOP_DECK);
    place.write("cost.csv", COST_DECK);
    place.write("world.toml", &world(carrier.address));
    place.succeed(&["provision", "world.toml"]).await;
    let server = place.serve_to_restart().await;
    let screen = server.stdout();
    let certificate = place.folder.path().join("data/tls/cert.pem");
    let address = listener(&screen, &transport.to_uppercase());
    let line = Line { username: "eve", password: "evepassword", transport, server: address, certificate: &certificate };
    let mut phone = Baresip::start(&place.folder.path().join("baresip"), line).await;
    phone.registered().await;
    phone.tell("dial", NUMBER).await;
    phone.event("CALL_ESTABLISHED").await;
    assert_eq!(carrier.event().await, CarrierEvent::Confirmed);
    tokio::time::sleep(Duration::from_secs(2)).await;

    // It is killed: nothing is said to anybody.
    drop(server);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let server = place.start_again(&screen).await;
    assert!(server.stdout().contains("1 live calls"), "{}", server.stdout());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(records(&place).is_empty(), "the call goes on");
    phone.tell("hangup", "").await;
    phone.event("CALL_CLOSED").await;
    assert_eq!(carrier.event().await, CarrierEvent::Ended { by_carrier: false });
    for _ in 0..600 {
        if !records(&place).is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let records = records(&place);
    let [(talk_ms, charged)] = records[..] else { panic!("one call: {records:?}") };
    assert!((5_000..60_000).contains(&talk_ms), "from its answer to its BYE: {talk_ms} ms");
    assert_eq!(Micros(charged), Micros(10_000 * (talk_ms + 999).div_euclid(1_000)));
    assert!(place.succeed(&["audit"]).await.ends_with("clean\n"));
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_over_tcp_survives_a_kill_and_is_hung_up_by_its_phone() {
    survives("tcp").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_over_tls_survives_a_kill_and_is_hung_up_by_its_phone() {
    survives("tls").await;
}
