//! A carrier over TLS, played by baresip: a whole call with the certificate of its name, and none with that of another.

use ringfence::certificate::self_signed;
use schema::carrier::TrunkDown;
use schema::money::Micros;
use tempfile::TempDir;
use tests::dns::TestDns;
use tests::phone::TestPhone;
use tests::server::TestServer;
use tests::softphone::Baresip;

const NUMBER: &str = "+447700900001";

/// A server whose only carrier, `carrier.test`, shows a trusted certificate for this name.
async fn server(folder: &TempDir, certified: &str) -> (TestServer, Baresip, TestDns) {
    let dns = TestDns::start().await;
    dns.loopback("carrier.test");
    let (certificate, key) = self_signed(folder.path(), certified).expect("a certificate");
    let folder = folder.path().join("baresip");
    let (carrier, address) = Baresip::answering(&folder, NUMBER, "tls", (&certificate, &key)).await;
    let asked = dns.address;
    let mut server = TestServer::start_with(|config| {
        config.test_carrier = None;
        config.sip.dns = vec![asked];
        config.sip.carrier_ca = Some(certificate);
    })
    .await;
    server.gateway_name = Some(format!("tls:carrier.test:{}", address.port()));
    server.accounts(1, "10.00", "live_calls = 5, calls_per_minute = 50").await;
    (server, carrier, dns)
}

async fn is_down(server: &TestServer, down: Option<TrunkDown>) {
    let id = server.server.store.trunks().await.expect("readable").first().expect("provisioned").id;
    server.until("the trunk is as it should be", async |s| s.actors.trunk(id).is_some_and(|(_, is)| is == down)).await;
}

async fn phone(server: &TestServer) -> TestPhone {
    TestPhone::start(server.addresses().sip_udp.expect("UDP"), "u0", "pw0").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_over_tls_to_a_carrier_of_another_maker_is_answered_and_billed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, mut carrier, _dns) = server(&folder, "carrier.test").await;
    is_down(&server, None).await;
    let (account, mut phone) = (server.account("u0").await, phone(&server).await);
    let call = phone.talk(NUMBER).await;
    carrier.event("CALL_ESTABLISHED").await;
    tokio::time::sleep(std::time::Duration::from_millis(1_200)).await;
    phone.hang_up(call).await;
    carrier.event("CALL_CLOSED").await;
    // And one that the carrier ends.
    let call = phone.talk(NUMBER).await;
    carrier.event("CALL_ESTABLISHED").await;
    carrier.tell("hangup", "").await;
    assert!(!phone.ended(call).await);
    server.left_clean().await;
    let history = server.history(account).await;
    assert_eq!(history.len(), 2);
    for cdr in &history {
        let seconds = cdr.talk_ms.div_ceil(1_000);
        assert_eq!(cdr.charged, Micros(10_000 * i64::try_from(seconds).expect("short")), "a cent a second");
    }
    assert!(history[0].charged >= Micros(20_000));
    let shown = carrier.shown();
    let requests = |method: &str| shown.lines().filter(|line| line.starts_with(&format!("{method} sip"))).count();
    assert!(requests("INVITE") == 2 && requests("ACK") == 2 && requests("BYE") == 2, "{shown}");
    assert!(!shown.contains("UDP 127.0.0.1") && !shown.contains("TCP 127.0.0.1"), "all of it over TLS: {shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_carrier_with_the_certificate_of_another_name_is_sent_no_invite() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, carrier, _dns) = server(&folder, "another.test").await;
    is_down(&server, Some(TrunkDown::WrongName)).await;
    let (account, mut phone) = (server.account("u0").await, phone(&server).await);
    let call = phone.dial(NUMBER).await;
    assert_eq!(phone.outcome(call).await, Err(503), "it may be up again soon");
    server.left_clean().await;
    let cdr = server.history(account).await.pop().expect("a record");
    let outcomes: Vec<_> = cdr.call.explanation.candidates.iter().map(|route| route.outcome.as_str()).collect();
    assert_eq!(outcomes, ["excluded: down: its TLS certificate is for another name"]);
    assert_eq!(cdr.charged, Micros(0));
    let shown = carrier.shown();
    assert!(shown.contains("baresip"), "it runs: {shown}");
    assert!(!shown.contains("INVITE") && !shown.contains("OPTIONS"), "nothing reaches it: {shown}");
}
