//! SIPp calls with digest from many accounts.

use std::net::SocketAddr;
use tests::api::Client;
use tests::port::lasting_port;
use tests::server::TestServer;
use tests::sipp::{Outcome, Sipp};

fn caller(server: SocketAddr, transport: &'static str, calls: u32) -> Sipp {
    let callers = (0..50).map(|n| (format!("u{n}"), format!("pw{n}"), format!("1555{n:07}"))).collect();
    Sipp {
        server,
        transport,
        calls,
        rate: 100,
        at_once: 200,
        hold_ms: 1_000,
        callers,
        patience_ms: 40_000,
        may_be_refused: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_calls_from_fifty_accounts_leave_nothing_behind() {
    let server = TestServer::start().await;
    server.accounts(50, "100.00", "live_calls = 20, calls_per_minute = 1000").await;
    let sipp = caller(server.addresses().sip_udp.expect("UDP"), "u1", 2_000);
    let outcome = sipp.run_beside(server.folder.path()).await;
    assert_eq!(outcome, Outcome { successful: 2_000, failed: 0 });
    server
        .until("no call, leg or hold is left", async |s| {
            let counts = s.sip_counts();
            s.actors.counts().live_calls == 0
                && counts.legs + counts.dialogs + counts.server_transactions + counts.client_transactions == 0
                && s.store.open_holds().await.is_ok_and(|open| open == 0)
        })
        .await;
    let metrics = Client::app(server.addresses().metrics, [127, 0, 0, 1].into()).text("/metrics").await;
    for name in
        ["live_calls", "open_holds", "sip_legs", "sip_dialogs", "sip_server_transactions", "sip_client_transactions"]
    {
        assert!(metrics.lines().any(|line| line == format!("ringfence_{name} 0")), "{name} in {metrics}");
    }
    let report = storage::audit::audit(&server.server.store, |_| ()).await.expect("readable");
    assert!(report.is_clean(), "{:?}", report.told);
    assert_eq!(report.cdrs, 2_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_over_one_tcp_connection_are_answered_and_hung_up_by_the_other_side() {
    let server = TestServer::start().await;
    server.accounts(10, "100.00", "live_calls = 100, calls_per_minute = 1000").await;
    let mut sipp = caller(server.addresses().sip_tcp.expect("TCP"), "t1", 100);
    // Numbers that end in 80 hang up after five seconds.
    sipp.callers = (0..10).map(|n| (format!("u{n}"), format!("pw{n}"), format!("155500{n:03}80"))).collect();
    (sipp.rate, sipp.hold_ms) = (50, 0);
    let outcome = sipp.run_beside(server.folder.path()).await;
    assert_eq!(outcome, Outcome { successful: 100, failed: 0 });
    server.until("every call is settled", async |s| s.actors.counts().live_calls == 0).await;
    let report = storage::audit::audit(&server.server.store, |_| ()).await.expect("readable");
    assert!(report.is_clean() && report.cdrs == 100, "{report}");
}

/// A phone that requires reliable provisional responses and is late with its first PRACK, and a carrier that sends them.
#[tokio::test(flavor = "multi_thread")]
async fn reliable_responses_pass_between_a_phone_and_a_carrier_of_another_maker() {
    let mut server = TestServer::start().await;
    server.gateway = SocketAddr::from(([127, 0, 0, 1], lasting_port()));
    let folder = server.folder.path().join("carrier");
    std::fs::create_dir(&folder).expect("a folder");
    let _carrier = Sipp::carrier(&folder, include_str!("scenarios/reliable_carrier.xml"), server.gateway);
    server.accounts(10, "100.00", "live_calls = 20, calls_per_minute = 1000").await;
    let mut sipp = caller(server.addresses().sip_udp.expect("UDP"), "u1", 30);
    sipp.rate = 20;
    sipp.callers = (0..10).map(|n| (format!("u{n}"), format!("pw{n}"), format!("1555{n:07}"))).collect();
    let outcome = sipp.act_beside(server.folder.path(), include_str!("scenarios/reliable_caller.xml").to_owned()).await;
    assert_eq!(outcome, Outcome { successful: 30, failed: 0 });
    assert_eq!(server.left_clean().await.cdrs, 30);
}

/// A phone that calls without an offer: the carrier's passes to it, and its answer in the ACK back.
#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_leaves_the_offer_to_the_carrier_is_connected() {
    let server = TestServer::start().await;
    server.accounts(10, "100.00", "live_calls = 20, calls_per_minute = 1000").await;
    let mut sipp = caller(server.addresses().sip_udp.expect("UDP"), "u1", 30);
    sipp.rate = 20;
    sipp.callers = (0..10).map(|n| (format!("u{n}"), format!("pw{n}"), format!("1555{n:07}"))).collect();
    let outcome =
        sipp.act_beside(server.folder.path(), include_str!("scenarios/offerless_caller.xml").to_owned()).await;
    assert_eq!(outcome, Outcome { successful: 30, failed: 0 });
    assert_eq!(server.left_clean().await.cdrs, 30);
}
