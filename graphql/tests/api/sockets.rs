//! The WebSocket: who gets in, which codes close it, and what ends it.

use crate::live::Phone;
use crate::world::{CUSTOMER, World};
use axum::http::StatusCode;
use serde_json::json;
use std::time::Duration;
use storage::MemDisk;
use storage::memory::MemFaults;
use tokio::time::Instant;

const BALANCE: &str = "subscription { balance { remaining { amount } } }";

#[tokio::test]
async fn a_foreign_page_gets_no_socket() {
    let world = World::start().await;
    let page = world.signed_in(CUSTOMER).await;
    for origin in ["https://evil.example", "null", "http://localhost:1"] {
        assert_eq!(page.with("origin", origin).socket().await.err(), Some(StatusCode::FORBIDDEN), "{origin}");
    }
    assert!(page.socket().await.is_ok());
    assert!(page.with("origin", "https://app.example.test").socket().await.is_ok());
}

#[tokio::test]
async fn each_break_of_the_protocol_has_its_code() {
    let world = World::start().await;
    let page = world.signed_in(CUSTOMER).await;
    let init = json!({"type": "connection_init"});
    let subscribe = json!({"type": "subscribe", "id": "1", "payload": {"query": BALANCE}});
    let nonsense = json!({"type": "nonsense"});
    let foreign = json!({"type": "connection_init", "payload": {"authorization": "Bearer nonsense"}});
    for (what, messages, code) in [
        ("no message of the protocol", vec![&nonsense], 4400),
        ("no message after the init", vec![&init, &nonsense], 4400),
        ("a subscription before the init", vec![&subscribe], 4401),
        ("a token that is none", vec![&foreign], 4403),
        ("an id that is taken", vec![&init, &subscribe, &subscribe], 4409),
        ("a second init", vec![&init, &init], 4429),
    ] {
        let mut socket = page.socket().await.expect("a socket");
        for message in messages {
            socket.send(message.clone()).await;
        }
        assert_eq!(socket.closed().await, code, "{what}");
    }
    let mut nobody = world.browser().socket().await.expect("a socket");
    nobody.send(init.clone()).await;
    assert_eq!(nobody.closed().await, 4403, "nobody is signed in");
    let mut binary = page.socket().await.expect("a socket");
    use futures_util::SinkExt;
    binary.0.send(tokio_tungstenite::tungstenite::Message::Binary(vec![1, 2, 3].into())).await.expect("sent");
    assert_eq!(binary.closed().await, 4400);
}

#[tokio::test]
async fn a_store_that_fails_says_nothing_about_the_session() {
    let disk = MemDisk::new();
    let world = World::start_on_disk(&disk).await;
    let (page, app) = (world.signed_in(CUSTOMER).await, world.token(CUSTOMER, &["READ"]).await);
    for client in [&page, &app] {
        let mut socket = client.socket().await.expect("a socket");
        disk.set_faults(MemFaults { failing_calls: u32::MAX, ..MemFaults::default() });
        socket.send(client.init()).await;
        assert_eq!(socket.closed().await, 1013, "not as a token that was revoked");
        disk.set_faults(MemFaults::default());
        client.ready_socket().await;
    }
}

#[tokio::test]
async fn a_silent_socket_is_closed_after_three_seconds() {
    let world = World::start().await;
    let mut socket = world.browser().socket().await.expect("a socket");
    let begun = Instant::now();
    assert_eq!(socket.closed().await, 4408);
    assert!((Duration::from_millis(2_900)..Duration::from_secs(6)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn one_address_cannot_take_the_sockets_of_others() {
    let world = World::start().await;
    let (flood, customer) = (world.browser().with("x-forwarded-for", "192.0.2.1"), world.signed_in(CUSTOMER).await);
    let mut silent = Vec::new();
    while let Ok(socket) = flood.socket().await {
        silent.push(socket);
        assert!(silent.len() <= 100, "one address has a share");
    }
    assert_eq!((silent.len(), flood.socket().await.err()), (100, Some(StatusCode::TOO_MANY_REQUESTS)));
    customer.with("x-forwarded-for", "192.0.2.2").ready_socket().await;
    silent.clear();
    let given_back = async {
        while flood.socket().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), given_back).await.expect("given back");
}

#[tokio::test]
async fn a_large_frame_ends_the_socket() {
    let world = World::start().await;
    let mut socket = world.signed_in(CUSTOMER).await.ready_socket().await;
    socket.send(json!({"type": "ping", "payload": {"x": "x".repeat(15_000)}})).await;
    assert_eq!(socket.receive().await, Ok(json!({"type": "pong"})));
    socket.send_text("x".repeat(17 * 1024)).await;
    assert!(socket.receive().await.is_err());
}

#[tokio::test]
async fn a_session_has_five_sockets() {
    let world = World::start().await;
    let page = world.signed_in(CUSTOMER).await;
    let mut open = Vec::new();
    for _ in 0..5 {
        open.push(page.ready_socket().await);
    }
    let mut sixth = page.socket().await.expect("a socket");
    sixth.send(json!({"type": "connection_init"})).await;
    assert_eq!(sixth.closed().await, 4429);
    world.signed_in(CUSTOMER).await.ready_socket().await; // another session is not concerned
    open.pop();
    // As soon as the server has noticed.
    let begun = Instant::now();
    loop {
        let mut next = page.socket().await.expect("a socket");
        next.send(json!({"type": "connection_init"})).await;
        match next.receive().await {
            Ok(ready) => break assert_eq!(ready, json!({"type": "connection_ack"})),
            Err(closed) => assert!(begun.elapsed() < Duration::from_secs(5), "{closed:?}"),
        }
    }
}

#[tokio::test]
async fn a_socket_has_twenty_subscriptions() {
    let world = World::start().await;
    let mut socket = world.signed_in(CUSTOMER).await.ready_socket().await;
    for id in 0..20 {
        socket.subscribe(&id.to_string(), BALANCE, json!({})).await;
    }
    for id in 0..20 {
        let message = socket.receive().await.expect("open");
        assert_eq!(
            (&message["type"], message["payload"]["data"]["balance"]["remaining"]["amount"].as_str()),
            (&json!("next"), Some("10.00")),
            "{id}: {message}"
        );
    }
    socket.subscribe("one more", BALANCE, json!({})).await;
    let refused = socket.receive().await.expect("open");
    assert_eq!((&refused["type"], &refused["id"]), (&json!("error"), &json!("one more")));
    assert_eq!(refused["payload"][0]["extensions"]["code"], "RATE_LIMITED");
    socket.send(json!({"type": "complete", "id": "7"})).await;
    socket.subscribe("one more", BALANCE, json!({})).await;
    assert_eq!(socket.next("one more").await["balance"]["remaining"]["amount"], "10.00");
}

#[tokio::test]
async fn only_subscriptions_are_served() {
    let world = World::start().await;
    let mut socket = world.signed_in(CUSTOMER).await.ready_socket().await;
    for (query, code) in [
        ("{ viewer { id } }", "INVALID_INPUT"),
        ("mutation { signOut { ok } }", "INVALID_INPUT"),
        ("subscription { balance { remaining { amount } } liveCalls { id } }", "INVALID_INPUT"),
        ("subscription { nonsense }", "INVALID_INPUT"),
        ("subscription { accountEvents(after: \"nonsense\") { at } }", "INVALID_INPUT"),
    ] {
        socket.subscribe("1", query, json!({})).await;
        let message = socket.receive().await.expect("open");
        assert_eq!((&message["type"], &message["id"]), (&json!("error"), &json!("1")), "{query}: {message}");
        assert_eq!(message["payload"][0]["extensions"]["code"], code, "{query}: {message}");
    }
}

#[tokio::test]
async fn a_cursor_of_another_account_is_refused() {
    let world = World::start().await;
    let query = "{ viewer { account { eventCursor } } }";
    let foreign = world.signed_in(crate::world::OTHER).await.query(query).await;
    let cursor = foreign.body["data"]["viewer"]["account"]["eventCursor"].clone();
    let mut socket = world.signed_in(CUSTOMER).await.ready_socket().await;
    socket.subscribe("1", "subscription($c: Cursor) { accountEvents(after: $c) { at } }", json!({"c": cursor})).await;
    assert_eq!(socket.receive().await.expect("open")["payload"][0]["extensions"]["code"], "INVALID_INPUT");
}

#[tokio::test]
async fn signing_out_closes_the_sockets_at_once() {
    let world = World::start().await;
    let page = world.signed_in(CUSTOMER).await;
    let mut sockets = [page.ready_socket().await, page.ready_socket().await];
    let mut other = world.signed_in(CUSTOMER).await.ready_socket().await;
    sockets[0].subscribe("1", BALANCE, json!({})).await;
    sockets[0].next("1").await;
    let begun = Instant::now();
    page.query("mutation { signOut { ok } }").await;
    for socket in &mut sockets {
        assert_eq!(socket.closed().await, 4403);
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    other.subscribe("1", BALANCE, json!({})).await;
    other.next("1").await; // another session lives on
}

#[tokio::test]
async fn revoking_a_token_closes_its_sockets_at_once() {
    let world = World::start().await;
    let owner = world.signed_in(CUSTOMER).await;
    let app = world.token(CUSTOMER, &["READ"]).await;
    let mut socket = app.ready_socket().await;
    socket.subscribe("1", BALANCE, json!({})).await;
    assert_eq!(socket.next("1").await["balance"]["remaining"]["amount"], "10.00");
    let id =
        app.query("{ viewer { deviceTokens { id } } }").await.body["data"]["viewer"]["deviceTokens"][0]["id"].clone();
    let query = "mutation($id: ID!) { revokeDeviceToken(input: {id: $id}) { id } }";
    assert_eq!(owner.send(query, json!({"id": id})).await.code(), None);
    assert_eq!(socket.closed().await, 4403);
}

#[tokio::test]
async fn an_event_is_not_sent_to_a_session_that_has_ended() {
    let world = World::start().await;
    let page = world.signed_in(CUSTOMER).await;
    let (mut subscribed, mut late) = (page.ready_socket().await, page.ready_socket().await);
    subscribed.subscribe("1", BALANCE, json!({})).await;
    subscribed.next("1").await;
    let phone = Phone::of(&world);
    world.pass(Duration::from_secs(31 * 60));
    let forbidden = Err(Some((4403, "Forbidden".to_owned())));
    phone.dial("+447700900123");
    assert_eq!(subscribed.receive().await, forbidden);
    late.subscribe("1", BALANCE, json!({})).await;
    assert_eq!(late.receive().await, forbidden);
}

#[tokio::test]
async fn a_token_without_read_watches_nothing() {
    let world = World::start().await;
    let mut socket = world.token(CUSTOMER, &["CALL"]).await.ready_socket().await;
    for query in [BALANCE, "subscription { liveCalls { id } }", "subscription { accountEvents { at } }"] {
        socket.subscribe("1", query, json!({})).await;
        let message = socket.receive().await.expect("open");
        assert_eq!(
            (&message["type"], &message["payload"][0]["extensions"]["code"]),
            (&json!("error"), &json!("FORBIDDEN")),
            "{message}"
        );
    }
}

#[tokio::test]
async fn a_client_without_the_subprotocol_is_told() {
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;
    let world = World::start().await;
    let request = format!("ws://{}/graphql/ws", world.address).into_client_request().expect("a request");
    let (stream, _) = tokio_tungstenite::connect_async(request).await.expect("a socket");
    assert_eq!(crate::world::Socket(stream).closed().await, 4406);
}

/// Moves the runtime's time forward without waiting for it.
async fn skip(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_cut() {
    let world = World::start().await;
    let page = world.signed_in(CUSTOMER).await;
    let (mut silent, mut lively) = (page.ready_socket().await, page.ready_socket().await);
    for _ in 0..3 {
        skip(Duration::from_secs(20)).await;
        assert_eq!(lively.receive().await, Ok(json!({"type": "ping"})));
        lively.send(json!({"type": "pong"})).await;
        lively.send(json!({"type": "ping"})).await;
        assert_eq!(lively.receive().await, Ok(json!({"type": "pong"})), "it was heard");
    }
    assert_eq!(silent.receive().await, Ok(json!({"type": "ping"})));
    assert_eq!(silent.receive().await, Err(Some((1001, "no answer to a ping".to_owned()))));
}

#[tokio::test]
async fn too_many_messages_end_the_socket() {
    let world = World::start().await;
    let mut socket = world.signed_in(CUSTOMER).await.ready_socket().await;
    for _ in 0..250 {
        socket.send(json!({"type": "pong"})).await;
    }
    assert_eq!(socket.closed().await, 4429);
}
