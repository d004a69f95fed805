//! A server that is ended and started again in the middle of calls: both legs stay up, and nothing is lost.

use schema::call::HangupSide;
use schema::edge::{Binding, BindingChange, EdgeEvent};
use schema::money::Micros;
use schema::pii::Pii;
use sip::demo::carrier::CarrierEvent;
use std::time::Duration;
use tests::carrier::TestCarrier;
use tests::phone::TestPhone;
use tests::server::TestServer;

/// More than are written at once.
const BINDINGS: u32 = 2_000;

#[tokio::test(flavor = "multi_thread")]
async fn a3_calls_survive_a_restart_and_are_charged_for_all_their_time() {
    let mut server = TestServer::start_to_restart().await;
    let mut carrier = TestCarrier::start().await;
    server.gateway = carrier.address;
    server.accounts(1, "10.00", "live_calls = 5, calls_per_minute = 100").await;
    let account = server.account("u0").await;
    let mut phone = TestPhone::start(server.addresses().sip_udp.expect("UDP"), "u0", "pw0").await;
    // The other side ends this one ten seconds after its answer.
    let other_ends = phone.talk("15550000081").await;
    let phone_ends = phone.talk("15550000000").await;
    let service_ends = phone.talk("15550000001").await;
    for _ in 0..3 {
        assert_eq!(carrier.event().await, CarrierEvent::Confirmed);
    }
    let before = server.view(account).await;

    let server = server.restarted().await;
    server.server.actors.recovered().await;
    let after = server.view(account).await;
    assert_eq!(after.live_calls.len(), 3);
    assert_eq!((after.balance.total, after.balance.reserved), (before.balance.total, before.balance.reserved));
    assert!(phone.is_up(phone_ends) && phone.is_up(service_ends) && phone.is_up(other_ends));

    phone.hang_up(phone_ends).await;
    assert_eq!(carrier.event().await, CarrierEvent::Ended { by_carrier: false });
    let last = after.live_calls[2].id;
    server.server.actors.hang_up(account, last).await.expect("hung up");
    assert!(!phone.ended(service_ends).await);
    assert_eq!(carrier.event().await, CarrierEvent::Ended { by_carrier: false });
    assert!(!phone.ended(other_ends).await);
    assert_eq!(carrier.event().await, CarrierEvent::Ended { by_carrier: true });

    server.left_clean().await;
    let history = server.history(account).await;
    let sides: Vec<_> = history.iter().filter_map(|cdr| Some(cdr.call.hangup.as_ref()?.side)).collect();
    assert_eq!(sides, [HangupSide::Callee, HangupSide::Caller, HangupSide::Service]);
    for cdr in &history {
        let seconds = i64::try_from(cdr.talk_ms.div_ceil(1_000)).expect("short");
        assert_eq!((cdr.charged, cdr.loss), (Micros(10_000 * seconds), Micros::ZERO));
    }
    assert!((9_900..20_000).contains(&history[0].talk_ms), "{} ms", history[0].talk_ms);
    // A new call is as any other.
    let call = phone.talk("15550000000").await;
    phone.hang_up(call).await;
    server.left_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_is_told_it_is_registered_while_the_server_ends_is_stored() {
    let server = TestServer::start().await;
    server.accounts(1, "1.00", "live_calls = 5, calls_per_minute = 100").await;
    let credential = server.server.store.credential("u0").await.expect("readable").expect("there");
    let (actors, at) = (&server.server.actors, ringfence::clock::system()().wall);
    actors.drain(Duration::from_secs(10)).await;
    for n in 1..=BINDINGS {
        let binding = Binding {
            credential: credential.id,
            account: credential.account,
            contact: Pii::new(format!("sip:phone{n}@127.0.0.1:5060")),
            instance: None,
            reg_id: None,
            path: Vec::new(),
            source: Pii::new("udp 127.0.0.1:5060".to_owned()),
            registered_at: at,
            expires_at: at + Duration::from_secs(3_600),
        };
        let change = BindingChange { binding, bindings: n };
        actors.on_edge_event(EdgeEvent::BindingChanged(Box::new(change)));
    }
    actors.finish(Duration::from_secs(10)).await;
    let stored = server.server.store.bindings(at).await.expect("readable");
    assert_eq!(stored.len(), BINDINGS as usize);
}
