//! Calls that are never answered: the phone hears why, nothing is charged, nothing stays held.

use schema::call::{CallState, HangupSide};
use schema::money::Micros;
use sip::demo::phone::PhoneCall;
use tests::phone::TestPhone;
use tests::server::TestServer;

/// Waits until the only call rings, and is held for.
async fn ringing(server: &TestServer, account: schema::id::AccountKey) -> schema::id::CallId {
    server
        .until("the call rings", async |s| {
            s.actors
                .view(account)
                .await
                .is_ok_and(|view| view.live_calls.iter().any(|call| call.state == CallState::Ringing))
        })
        .await;
    let view = server.view(account).await;
    assert!(view.balance.reserved > Micros::ZERO && view.balance.accrued == Micros::ZERO);
    view.live_calls[0].id
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_not_answered_cost_nothing() {
    let server = TestServer::start().await;
    server.accounts(2, "1.00", "live_calls = 5, calls_per_minute = 100").await;
    let account = server.account("u0").await;
    let udp = server.addresses().sip_udp.expect("UDP");
    let mut phone = TestPhone::start(udp, "u0", "pw0").await;
    for (number, status) in [("15550000050", 486), ("15550000070", 502), ("15550000090", 604), ("15550000095", 603)] {
        let call = phone.dial(number).await;
        assert_eq!(phone.outcome(call).await, Err(status), "{number}");
    }
    // The phone gives up while it rings.
    let call = phone.dial("15550000060").await;
    ringing(&server, account).await;
    phone.give_up(call).await;
    assert_eq!(phone.outcome(call).await, Err(487));
    // The owner ends it from the dashboard while it rings.
    server.until("the call is settled", async |s| s.actors.counts().live_calls == 0).await;
    let call = phone.dial("15550000060").await;
    let id = ringing(&server, account).await;
    server.server.actors.hang_up(account, id).await.expect("hung up");
    let refused = phone.outcome(call).await.expect_err("never answered");
    assert!((400..700).contains(&refused), "{refused}");

    server.left_clean().await;
    let history = server.history(account).await;
    assert_eq!(history.len(), 6);
    for cdr in &history {
        assert_eq!((cdr.charged, cdr.talk_ms, cdr.call.answered_at), (Micros::ZERO, 0, None), "{cdr:?}");
    }
    let side = |n: usize| history[n].call.hangup.as_ref().map(|hangup| (hangup.side, hangup.sip_code));
    assert_eq!(side(0), Some((HangupSide::Callee, Some(486))));
    assert_eq!(side(4).map(|(side, _)| side), Some(HangupSide::Caller));
    assert_eq!(side(5).map(|(side, _)| side), Some(HangupSide::Service));
    let balance = server.view(account).await.balance;
    assert_eq!((balance.total, balance.reserved), (Micros(1_000_000), Micros::ZERO));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_call_says_why_and_holds_nothing() {
    let server = TestServer::start().await;
    server.accounts(1, "0.005", "live_calls = 1, calls_per_minute = 100").await;
    let account = server.account("u0").await;
    let mut phone = TestPhone::start(server.addresses().sip_udp.expect("UDP"), "u0", "pw0").await;
    let refused = async |phone: &mut TestPhone, number: &str| {
        let call: PhoneCall = phone.dial(number).await;
        phone.outcome(call).await.expect_err(number)
    };
    assert_eq!(refused(&mut phone, "15550000000").await, 402, "not one second is affordable");
    let credit = ringfence::credit::by_operator("1.00", "k", "r").expect("an amount");
    server.server.actors.credit(account, credit).await.expect("posted");
    let call = phone.talk("15550000000").await;
    assert_eq!(refused(&mut phone, "15550000001").await, 480, "one call at a time");
    phone.hang_up(call).await;
    server.until("the call is settled", async |s| s.actors.counts().live_calls == 0).await;
    for (number, status) in [("911", 403), ("112", 403), ("+33123456789", 404), ("12", 484), ("+19005550199", 403)] {
        assert_eq!(refused(&mut phone, number).await, status, "{number}");
    }
    server.left_clean().await;
    let history = server.history(account).await;
    assert_eq!(history.iter().filter(|cdr| cdr.call.state == CallState::Refused).count(), 7);
    for cdr in history.iter().filter(|cdr| cdr.call.state == CallState::Refused) {
        let refusal = cdr.call.explanation.refusal.as_ref().expect("says why");
        assert!(cdr.charged == Micros::ZERO && !refusal.message.is_empty(), "{refusal:?}");
    }
}
