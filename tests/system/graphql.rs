//! A call from a phone as its owner sees and ends it: HTTP, WebSocket and SIP at the same time.

use serde_json::{Value, json};
use sip::demo::carrier::CarrierEvent;
use std::net::{IpAddr, Ipv4Addr};
use tests::api::{Client, Socket};
use tests::carrier::TestCarrier;
use tests::phone::TestPhone;
use tests::server::{PASSWORD, SIP_PASSWORD, TestServer};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const EVENTS: &str = "subscription($after: Cursor) { accountEvents(after: $after) { __typename cursor \
    ... on CallChanged { call { id state hangup { side } cost { micros } } } \
    ... on BalanceChanged { balance { total { micros } reserved { micros } } } \
    ... on CallWarning { secondsLeft } } }";
/// Every state a softphone call goes through, in order.
const STATES: [&str; 6] = ["AUTHORIZING", "ROUTING", "RINGING", "ANSWERED", "ENDING", "ENDED"];

fn micros(value: &Value) -> i64 {
    value["micros"].as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no amount: {value}"))
}

/// States come in their order; one may be passed over, none comes back.
fn in_order(states: &[String]) {
    let places: Vec<_> = states.iter().map(|state| STATES.iter().position(|known| known == state)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{states:?}");
}

/// Reads live calls until one is as wanted; the states seen on the way.
async fn live_until(socket: &mut Socket, wanted: impl Fn(&Value) -> bool) -> (Vec<String>, Value) {
    let mut states = Vec::new();
    loop {
        let calls = socket.next("calls").await["liveCalls"].clone();
        states.extend(calls[0]["state"].as_str().map(str::to_owned));
        if wanted(&calls) {
            return (states, calls);
        }
    }
}

/// Reads events until the call has ended.
async fn events_until_ended(socket: &mut Socket, name: &str) -> Vec<Value> {
    let mut events = Vec::new();
    loop {
        let event = socket.next(name).await["accountEvents"].clone();
        let ended = event["call"]["state"] == "ENDED";
        events.push(event);
        if ended {
            return events;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_watched_and_hung_up_by_its_owner() {
    let mut server = TestServer::start().await;
    let mut carrier = TestCarrier::start().await;
    server.gateway = carrier.address;
    server.customer("ann", "10.00").await;
    let http = server.addresses().http;
    let page = Client::page(http, LOOPBACK).signed_in("ann@example.test", PASSWORD).await;
    let app = Client::app(http, LOOPBACK).with_token("ann@example.test", PASSWORD).await;
    let account = page.ask("{ viewer { account { eventCursor balance { available { micros } } } } }", json!({})).await;
    let account = account["viewer"]["account"].clone();
    assert_eq!(micros(&account["balance"]["available"]), 10_000_000);

    let mut socket = page.socket().await;
    socket
        .subscribe("balance", "subscription { balance { remaining { micros } available { micros } } }", json!({}))
        .await;
    socket.subscribe("calls", "subscription { liveCalls { id state cost { micros } } }", json!({})).await;
    socket.subscribe("events", EVENTS, json!({})).await;
    let mut other_socket = app.socket().await;
    other_socket.subscribe("balance", "subscription { balance { remaining { micros } } }", json!({})).await;
    assert_eq!(socket.next("calls").await["liveCalls"], json!([]));
    assert_eq!(micros(&socket.next("balance").await["balance"]["remaining"]), 10_000_000);
    assert_eq!(micros(&other_socket.next("balance").await["balance"]["remaining"]), 10_000_000);

    // The last digits 20: it rings for two seconds, then answers.
    let mut phone = TestPhone::start(server.addresses().sip_udp.expect("UDP"), "ann", SIP_PASSWORD).await;
    let dialled = phone.dial("+447700900020").await;
    let (mut states, calls) = live_until(&mut socket, |calls| micros(&calls[0]["cost"]) >= 20_000).await;
    phone.outcome(dialled).await.expect("answered");
    let call = calls[0]["id"].as_str().expect("an id").to_owned();
    for seen in ["RINGING", "ANSWERED"] {
        assert!(states.iter().any(|state| state == seen), "{seen} of {states:?}");
    }
    for socket in [&mut socket, &mut other_socket] {
        let mut remaining = vec![10_000_000];
        while remaining.len() < 4 {
            let now = micros(&socket.next("balance").await["balance"]["remaining"]);
            if now != remaining[remaining.len() - 1] {
                remaining.push(now);
            }
        }
        assert!(remaining.is_sorted_by(|a, b| a > b), "remaining falls: {remaining:?}");
    }

    // The app ends it; the page and the phone see that.
    let hung_up = app.ask(
        "mutation($i: HangUpInput!) { hangUp(input: $i) { call { state hangup { side } cost { micros } } } }",
        json!({"i": {"callId": call}}),
    );
    let ended = hung_up.await["hangUp"]["call"].clone();
    assert_eq!((&ended["state"], &ended["hangup"]["side"]), (&json!("ENDED"), &json!("SERVICE")));
    assert!(!phone.ended(dialled).await, "the phone gets a BYE");
    assert_eq!(carrier.event().await, CarrierEvent::Confirmed);
    assert_eq!(carrier.event().await, CarrierEvent::Ended { by_carrier: false }, "the carrier gets one too");
    let (rest, _) = live_until(&mut socket, |calls| calls == &json!([])).await;
    states.extend(rest);
    in_order(&states);
    assert_eq!(server.server.actors.counts().live_calls, 0);

    let events = events_until_ended(&mut socket, "events").await;
    let of_the_call = events.iter().filter(|event| event["call"]["id"] == call.as_str());
    let states: Vec<_> =
        of_the_call.map(|event| event["call"]["state"].as_str().expect("a state").to_owned()).collect();
    in_order(&states);
    assert!(states.contains(&"ANSWERED".to_owned()) && states.ends_with(&["ENDED".to_owned()]), "{states:?}");
    no_gap(&page, &account["eventCursor"], &events).await;
    recorded(&page, &call, micros(&ended["cost"])).await;
    server.left_clean().await;
}

/// What was delivered live is what a later subscriber is told, from the beginning and from any place in between.
async fn no_gap(page: &Client, before: &Value, live: &[Value]) {
    let mut socket = page.socket().await;
    socket.subscribe("all", EVENTS, json!({"after": before})).await;
    let stored = events_until_ended(&mut socket, "all").await;
    assert_eq!(stored, live);
    let middle = live.len() / 2;
    socket.subscribe("half", EVENTS, json!({"after": live[middle - 1]["cursor"]})).await;
    assert_eq!(events_until_ended(&mut socket, "half").await, live[middle..]);
}

/// The history and the ledger tell the call.
async fn recorded(page: &Client, call: &str, cost: i64) {
    let query = "query($id: ID!) { call(id: $id) { id state } viewer { account { balance { total { micros } reserved { micros } } liveCalls { id } \
        calls(first: 1) { edges { node { id state destination cost { micros } billedSeconds hangup { side } } } } \
        ledger(first: 2) { edges { node { kind amount { micros } balanceAfter { micros } call { id } } } } } } }";
    let data = page.ask(query, json!({"id": call})).await;
    assert_eq!(data["call"], json!({"id": call, "state": "ENDED"}));
    let account = &data["viewer"]["account"];
    assert_eq!((micros(&account["balance"]["total"]), micros(&account["balance"]["reserved"])), (10_000_000 - cost, 0));
    assert_eq!(account["liveCalls"], json!([]));
    let last = &account["calls"]["edges"][0]["node"];
    assert_eq!(
        (&last["id"], &last["state"], &last["destination"]),
        (&json!(call), &json!("ENDED"), &json!("+447700900020"))
    );
    let seconds = last["billedSeconds"].as_i64().expect("a number");
    assert!(seconds >= 3 && cost == 10_000 * seconds && micros(&last["cost"]) == cost, "{last}");
    let entry = &account["ledger"]["edges"][0]["node"];
    assert_eq!((&entry["kind"], &entry["call"]["id"]), (&json!("CALL_CHARGE"), &json!(call)));
    assert_eq!((micros(&entry["amount"]), micros(&entry["balanceAfter"])), (-cost, 10_000_000 - cost));
    assert_eq!(account["ledger"]["edges"][1]["node"]["kind"], "TOP_UP");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_ends_what_it_opened() {
    let server = TestServer::start().await;
    server.customer("ann", "10.00").await;
    let http = server.addresses().http;
    let page = Client::page(http, LOOPBACK).signed_in("ann@example.test", PASSWORD).await;
    let query = "mutation($i: CreateDeviceTokenInput!) { createDeviceToken(input: $i) { token deviceToken { id } } }";
    let made = page.ask(query, json!({"i": {"label": "app", "scopes": ["READ"]}})).await["createDeviceToken"].clone();
    let app = Client::app(http, LOOPBACK).bearing(made["token"].as_str().expect("a token"));
    let mut socket = app.socket().await;
    socket.subscribe("balance", "subscription { balance { remaining { micros } } }", json!({})).await;
    socket.next("balance").await;
    page.ask(
        "mutation($i: RevokeDeviceTokenInput!) { revokeDeviceToken(input: $i) { id } }",
        json!({"i": {"id": made["deviceToken"]["id"]}}),
    )
    .await;
    assert_eq!(socket.closed().await, 4403);
    assert_eq!(page.ask("mutation { signOut { ok } }", json!({})).await["signOut"]["ok"], true);
    assert_eq!(page.ask("{ viewer { id } }", json!({})).await["viewer"], Value::Null);
}
