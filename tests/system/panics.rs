//! Actors that panic in the middle of calls (invariant A3).

use actors::faults::{Fault, FaultPoint};
use actors::poison::Subject;
use actors::{AskError, CreditError};
use ringfence::admin::{Client, Reply, Request};
use schema::call::HangupSide;
use schema::id::AccountKey;
use schema::money::Micros;
use tests::phone::TestPhone;
use tests::server::TestServer;

async fn caller(server: &TestServer, credit: &str) -> (TestPhone, AccountKey) {
    server.accounts(1, credit, "live_calls = 5, calls_per_minute = 100").await;
    let account = server.account("u0").await;
    (TestPhone::start(server.addresses().sip_udp.expect("UDP"), "u0", "pw0").await, account)
}

/// Every call was charged what it lasted, and the ledger says the same.
async fn charged_right(server: &TestServer, account: AccountKey, credited: Micros) {
    let mut charged = Micros::ZERO;
    for cdr in server.history(account).await {
        let seconds = i64::try_from(cdr.talk_ms.div_ceil(1_000)).expect("short");
        assert_eq!((cdr.charged, cdr.loss), (Micros(10_000 * seconds), Micros::ZERO), "{} ms", cdr.talk_ms);
        charged += cdr.charged;
    }
    assert_eq!(server.view(account).await.balance.total, credited - charged);
}

#[tokio::test(flavor = "multi_thread")]
async fn a3_a_panic_in_a_call_ends_that_call_only_and_settles_it() {
    let server = TestServer::start().await;
    let (mut phone, account) = caller(&server, "10.00").await;
    let (struck, other) = (phone.talk("15550000000").await, phone.talk("15550000001").await);
    server
        .until("the first call has cost something", async |s| {
            s.actors.view(account).await.is_ok_and(|view| view.live_calls[0].cost >= Micros(20_000))
        })
        .await;
    let live = server.view(account).await.live_calls.clone();
    assert_eq!(live.len(), 2);

    server.server.actors.panic_call(live[0].id);
    assert!(!phone.ended(struck).await, "the server ends the struck call");
    server
        .until("the struck call is in the history", async |s| s.store.call(live[0].id).await.is_ok_and(|c| c.is_some()))
        .await;
    let struck = server.history(account).await.remove(0);
    assert_eq!(struck.call.id, live[0].id);
    assert!(struck.charged >= Micros(20_000) && struck.talk_ms >= 1_000, "{struck:?}");
    assert_eq!(struck.call.hangup.as_ref().map(|hangup| hangup.side), Some(HangupSide::Service));
    assert_eq!(server.server.actors.counts().live_calls, 1);

    // The other one goes on, and ends as any other.
    let cost = server.view(account).await.live_calls[0].cost;
    server
        .until("the other call still costs more", async |s| {
            s.actors.view(account).await.is_ok_and(|view| view.live_calls[0].cost > cost)
        })
        .await;
    assert!(phone.is_up(other));
    phone.hang_up(other).await;
    server.left_clean().await;
    assert_eq!(server.history(account).await.len(), 2);
    charged_right(&server, account, Micros(10_000_000)).await;
    assert_eq!(server.server.actors.counts().restarts, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a3_a_panic_in_an_account_is_followed_by_a_rebuilt_one_and_its_calls_go_on() {
    let server = TestServer::start().await;
    // A minute for the first call, at most ten seconds for the second, which needs the rebuilt account soon.
    let (mut phone, account) = caller(&server, "0.70").await;
    let (first, second) = (phone.talk("15550000000").await, phone.talk("15550000001").await);
    let before = server.view(account).await;
    assert_eq!(before.live_calls.len(), 2);

    server.server.actors.panic_account(account);
    server.until("the account has failed", async |s| s.actors.counts().restarts == 1).await;
    let after = server.view(account).await;
    let ids = |view: &actors::AccountView| view.live_calls.iter().map(|call| call.id).collect::<Vec<_>>();
    assert_eq!(ids(&after), ids(&before), "rebuilt with its live calls");
    assert_eq!(after.balance.total, before.balance.total);
    assert!(after.balance.reserved >= before.balance.reserved);
    assert!(phone.is_up(first) && phone.is_up(second));

    // It still extends, meters and settles: money comes, the second call outlasts what was there for it at first.
    let credit = ringfence::credit::by_operator("10.00", "k", "r").expect("an amount");
    server.server.actors.credit(account, credit).await.expect("posted");
    server
        .until("the second call has cost more than the first money", async |s| {
            s.actors.view(account).await.is_ok_and(|view| view.live_calls[1].cost > Micros(100_000))
        })
        .await;
    assert!(phone.is_up(first) && phone.is_up(second));
    // Once more, with the hang-up at the same time.
    server.server.actors.panic_account(account);
    phone.hang_up(first).await;
    phone.hang_up(second).await;
    server.left_clean().await;
    assert_eq!(server.history(account).await.len(), 2);
    charged_right(&server, account, Micros(10_700_000)).await;
}

/// What `/metrics` says of a name.
async fn metric(server: &TestServer, name: &str) -> Option<String> {
    let client = tests::api::Client::app(server.addresses().metrics, [127, 0, 0, 1].into());
    let text = client.text("/metrics").await;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned))
}

async fn readiness(server: &TestServer) -> String {
    tests::api::Client::app(server.addresses().http, [127, 0, 0, 1].into()).text("/readyz").await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_sees_which_message_is_set_aside_and_which_call_could_not_be_settled() {
    let server = TestServer::start_to_restart().await;
    let (mut phone, account) = caller(&server, "10.00").await;
    let talking = phone.talk("15550000000").await;
    let arm = |kind, times| {
        let fault = Fault { point: FaultPoint::Decided, kind: Some(kind), times };
        server.server.actors.arm(Subject::Account(account), fault);
    };
    arm("credit", 3);
    let credit = || ringfence::credit::by_operator("1.00", "k", "r").expect("an amount");
    let answer = server.server.actors.credit(account, credit()).await;
    assert_eq!(answer, Err(CreditError::Ask(AskError::SetAside)));
    assert!(phone.is_up(talking), "the account's call goes on");
    arm("settle", 100);
    phone.hang_up(talking).await;
    server.until("the call's end is kept", async |s| s.actors.counts().unsettled_calls == 1).await;
    server
        .until("it is shown as ending", async |s| {
            s.actors.view(account).await.is_ok_and(|view| view.live_calls[0].state == schema::call::CallState::Ending)
        })
        .await;

    let mut client = Client::connect(&server.config.data_dir).await.expect("a socket").expect("a server");
    client.send(&Request::Failures).await.expect("asked");
    let Some(Reply::Lines(lines)) = client.reply().await.expect("answered") else { panic!("lines are expected") };
    assert!(lines[0].starts_with("6 panics since the start; 0 resting, 0 supervisors"), "{lines:?}");
    assert!(lines[0].ends_with("1 calls over but not settled"), "{lines:?}");
    let told = |words: &str| lines.iter().any(|line| line.starts_with("set aside since ") && line.contains(words));
    assert!(told(&format!("account {}: credit with key ", account.0)) && told(": settle of call "), "{lines:?}");
    assert_eq!(metric(&server, "ringfence_messages_set_aside").await.as_deref(), Some("2"));
    assert_eq!(metric(&server, "ringfence_calls_unsettled").await.as_deref(), Some("1"));
    assert_eq!(readiness(&server).await, "ready\n", "one bad account does not take the node away");

    // The next process settles it, to its end, without asking the phone to go on.
    let ended_at = tokio::time::Instant::now();
    let server = server.restarted().await;
    server.server.actors.recovered().await;
    server.left_clean().await;
    let cdr = server.history(account).await.remove(0);
    assert!(cdr.talk_ms < 3_000 + u64::try_from(ended_at.elapsed().as_millis()).expect("short"), "{cdr:?}");
    assert_eq!(cdr.call.hangup.as_ref().map(|hangup| hangup.side), Some(HangupSide::Caller));
    charged_right(&server, account, Micros(10_000_000)).await;
}
