//! SIPp calls with digest from many accounts.

use std::net::SocketAddr;
use tests::api::Client;
use tests::server::TestServer;
use tests::sipp::{Outcome, Sipp};

fn caller(server: SocketAddr, transport: &'static str, calls: u32) -> Sipp {
    let callers = (0..50).map(|n| (format!("u{n}"), format!("pw{n}"), format!("1555{n:07}"))).collect();
    Sipp { server, transport, calls, rate: 100, at_once: 200, hold_ms: 1_000, callers, patience_ms: 40_000 }
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
