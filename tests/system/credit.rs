//! Money that comes during a call.

use actors::{Actors, EventItem, LiveView};
use futures_util::{Stream, StreamExt as _};
use ringfence::admin::{Client, Reply, Request};
use schema::call::HangupSide;
use schema::event::EventBody;
use schema::money::Micros;
use schema::time::Timestamp;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tests::phone::TestPhone;
use tests::server::TestServer;
use tokio::sync::watch;

/// The first figures that are as wanted.
async fn figures(watch: &mut watch::Receiver<Arc<LiveView>>, wanted: impl Fn(&LiveView) -> bool) -> Arc<LiveView> {
    let seen = watch.wait_for(|view| wanted(view));
    tokio::time::timeout(Duration::from_secs(60), seen).await.expect("in time").expect("the watch goes on").clone()
}

/// The next warning: seconds left, or that it is withdrawn.
async fn warning(events: &mut (impl Stream<Item = EventItem> + Unpin)) -> (Option<u32>, Option<Timestamp>) {
    let warning = async {
        loop {
            if let Some(EventItem::Event(event)) = events.next().await
                && let EventBody::CallWarning { call, seconds_left } = event.body
            {
                return (seconds_left, call.funded_until);
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), warning).await.expect("a warning in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credit_during_a_call_extends_it_and_withdraws_the_warning() {
    let server = TestServer::start().await;
    server.accounts(1, "0.12", "live_calls = 5, calls_per_minute = 100").await;
    let account = server.account("u0").await;
    let actors: &Actors = &server.server.actors;
    let mut events = pin!(actors.events(account, None));
    let mut watch = actors.watch(account).await.expect("figures");
    let mut phone = TestPhone::start(server.addresses().sip_udp.expect("UDP"), "u0", "pw0").await;
    let call = phone.talk("15550000000").await;
    let poor = figures(&mut watch, |view| view.live_calls.iter().any(|call| call.funded_until.is_some())).await;
    let first_end = poor.live_calls[0].funded_until.expect("it is known when the money ends");
    while warning(&mut events).await.0 != Some(10) {}

    let mut admin = Client::connect(&server.config.data_dir).await.expect("a socket").expect("a server");
    let (account_name, key, reason) = ("u0".to_owned(), "top-up 1".to_owned(), "a gift".to_owned());
    admin.send(&Request::Credit { account: account_name, amount: "5.00".to_owned(), key, reason }).await.expect("sent");
    let reply = admin.reply().await.expect("readable");
    assert!(matches!(reply, Some(Reply::Credited { repeated: false, .. })), "{reply:?}");

    let (seconds_left, funded_until) = warning(&mut events).await;
    assert_eq!(seconds_left, None, "the warning is withdrawn");
    // 5.00 are 500 seconds more, whatever is held of them already.
    let (earliest, latest) = (first_end + Duration::from_secs(498), first_end + Duration::from_secs(502));
    let moved = |end: Option<Timestamp>| end.is_some_and(|end| earliest <= end && end <= latest);
    assert!(moved(funded_until), "{funded_until:?}, was {first_end:?}");
    let rich = figures(&mut watch, |view| moved(view.live_calls[0].funded_until)).await;
    assert!(!rich.balance.available.is_negative());

    // Well beyond the end of the first money it is still up, and the phone ends it.
    figures(&mut watch, |view| view.live_calls[0].cost >= Micros(150_000)).await;
    assert!(phone.is_up(call), "the call goes on");
    phone.hang_up(call).await;
    server.until("the call is settled", async |s| s.actors.counts().live_calls == 0).await;
    let history = server.history(account).await;
    let cdr = &history[0];
    assert_eq!(cdr.call.hangup.as_ref().map(|hangup| hangup.side), Some(HangupSide::Caller));
    let seconds = cdr.talk_ms.div_ceil(1_000);
    assert!(seconds >= 15, "{} ms", cdr.talk_ms);
    assert_eq!(
        (cdr.call.billed_seconds, cdr.charged),
        (seconds, Micros(10_000 * i64::try_from(seconds).expect("short")))
    );
    assert_eq!(server.view(account).await.balance.total, Micros(5_120_000) - cdr.charged);
    server.left_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l4_a_key_credits_once_and_tells_another_request_apart() {
    let server = TestServer::start().await;
    server.accounts(1, "1.00", "live_calls = 5, calls_per_minute = 100").await;
    let credit = async |amount: &str, reason: &str| {
        let mut admin = Client::connect(&server.config.data_dir).await.expect("a socket").expect("a server");
        let (account, key) = ("u0".to_owned(), "k".to_owned());
        let request = Request::Credit { account, amount: amount.to_owned(), key, reason: reason.to_owned() };
        admin.send(&request).await.expect("sent");
        admin.reply().await.expect("readable").expect("an answer")
    };
    // The same request from many sides at once: one of them posts.
    let all = futures_util::future::join_all((0..8).map(|_| credit("2.00", "r"))).await;
    let posted = all.iter().filter(|reply| matches!(reply, Reply::Credited { repeated: false, .. })).count();
    let repeated = all.iter().filter(|reply| matches!(reply, Reply::Credited { repeated: true, .. })).count();
    assert_eq!((posted, repeated), (1, 7), "{all:?}");
    for (amount, reason) in [("3.00", "r"), ("2.00", "another reason"), ("-2.00", "r")] {
        assert!(matches!(credit(amount, reason).await, Reply::Failed(_)), "{amount} {reason}");
    }
    let account = server.account("u0").await;
    assert_eq!(server.view(account).await.balance.total, Micros(3_000_000));
    server.left_clean().await;
}
