//! Money that ends during calls: all are cut in time, nothing below zero, nothing usable left over.

use schema::call::HangupSide;
use schema::money::Micros;
use std::sync::{Arc, Mutex};
use tests::phone::TestPhone;
use tests::server::TestServer;

/// One billing step of the test rates: a second.
const STEP: Micros = Micros(10_000);

#[tokio::test(flavor = "multi_thread")]
async fn money_for_ninety_seconds_and_five_calls_is_used_up_and_never_overdrawn() {
    let server = TestServer::start().await;
    server.accounts(1, "0.90", "live_calls = 5, calls_per_minute = 100").await;
    let account = server.account("u0").await;
    let mut figures = server.server.actors.watch(account).await.expect("figures");
    let seen = Arc::new(Mutex::new(vec![figures.borrow_and_update().balance]));
    let watched = seen.clone();
    let watching = tokio::spawn(async move {
        while figures.changed().await.is_ok() {
            watched.lock().expect("not poisoned").push(figures.borrow_and_update().balance);
        }
    });
    let mut phone = TestPhone::start(server.addresses().sip_udp.expect("UDP"), "u0", "pw0").await;
    let mut calls = Vec::new();
    for n in 0..5 {
        calls.push(phone.dial(&format!("155500000{n:02}")).await);
    }
    for call in &calls {
        phone.outcome(*call).await.expect("all five are answered: a step is there for each");
    }
    for call in &calls {
        assert!(!phone.ended(*call).await, "cut by the server, not by the phone");
    }
    server.until("all calls are settled", async |s| s.actors.counts().live_calls == 0).await;

    let history = server.history(account).await;
    assert_eq!(history.len(), 5);
    let mut charged = Micros::ZERO;
    for cdr in &history {
        charged += cdr.charged;
        let hangup = cdr.call.hangup.as_ref().expect("ended");
        assert_eq!((hangup.side, cdr.loss), (HangupSide::Service, Micros::ZERO), "{hangup:?}");
        assert_eq!(cdr.charged, Micros(STEP.0 * i64::try_from(cdr.call.billed_seconds).expect("short")));
        // C2: the BYE leaves 500 ms before the paid boundary; as much again is left to a machine that is busy.
        let paid_ms = cdr.call.billed_seconds * 1_000;
        assert!(cdr.talk_ms <= paid_ms + 500, "talked {} ms, paid {paid_ms} ms", cdr.talk_ms);
        assert!(cdr.talk_ms + 1_000 >= paid_ms, "cut long before what was paid: {} of {paid_ms} ms", cdr.talk_ms);
    }
    let balance = server.view(account).await.balance;
    assert_eq!((balance.total, balance.reserved), (Micros(900_000) - charged, Micros::ZERO));
    assert!(!balance.total.is_negative() && balance.total < STEP, "left over: {}", balance.total);

    let report = server.left_clean().await;
    assert_eq!(report.cdrs, 5);
    watching.abort();
    let seen = seen.lock().expect("not poisoned");
    assert!(seen.len() > 10, "the watch saw only {} figures", seen.len());
    for balance in &*seen {
        assert!(!balance.available.is_negative(), "L1: {balance:?}");
        assert!(balance.accrued <= balance.total && balance.reserved <= balance.total, "{balance:?}");
        assert_eq!(balance.available, balance.total - balance.reserved);
    }
    assert!(seen.is_sorted_by(|a, b| b.remaining <= a.remaining), "remaining only falls");
}
