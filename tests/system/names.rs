//! Carriers that are known by name, with a DNS server of the test's own.

use sip::demo::carrier::CarrierEvent;
use std::net::{Ipv6Addr, UdpSocket};
use std::time::Duration;
use tests::carrier::TestCarrier;
use tests::dns::TestDns;
use tests::phone::TestPhone;
use tests::server::TestServer;
use tests::wire::Wire;
use tokio::time::Instant;

/// The test carrier answers at once.
const ANSWERS: &str = "+447700900001";

/// A server whose carrier is found under this name.
async fn server(dns: &TestDns, gateway: &str) -> TestServer {
    let address = dns.address;
    let mut server = TestServer::start_with(|config| {
        config.test_carrier = None;
        config.sip.dns = vec![address];
        config.sip.v6.udp = Some((Ipv6Addr::LOCALHOST, 0).into());
    })
    .await;
    server.gateway_name = Some(gateway.to_owned());
    server.accounts(2, "10.00", "live_calls = 5, calls_per_minute = 50").await;
    server
}

async fn phone(server: &TestServer, username: &str) -> TestPhone {
    let password = username.replace('u', "pw");
    TestPhone::start(server.addresses().sip_udp.expect("UDP"), username, &password).await
}

/// Calls and hangs up; the carrier that took the call sees both.
async fn call(phone: &mut TestPhone, carrier: &mut TestCarrier) {
    let call = phone.talk(ANSWERS).await;
    assert_eq!(carrier.event().await, CarrierEvent::Confirmed);
    phone.hang_up(call).await;
    assert_eq!(carrier.event().await, CarrierEvent::Ended { by_carrier: false });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_carrier_is_found_by_naptr_and_srv_in_the_order_of_their_priorities() {
    let (dns, mut first, mut second) = (TestDns::start().await, TestCarrier::start().await, TestCarrier::start().await);
    dns.naptr("calls.test", 10, "SIP+D2U", "_sip._udp.calls.test");
    dns.srv("_sip._udp.calls.test", 20, second.address.port(), "b.calls.test", 5);
    dns.srv("_sip._udp.calls.test", 10, first.address.port(), "a.calls.test", 5);
    dns.loopback("a.calls.test");
    dns.loopback("b.calls.test");
    let server = server(&dns, "calls.test").await;
    let mut phone = phone(&server, "u0").await;
    // The first call comes right after the start: it waits for the name.
    for _ in 0..3 {
        call(&mut phone, &mut first).await;
    }
    // The TTL runs out, and the priorities are others.
    let asked = dns.asked();
    dns.only_srv("_sip._udp.calls.test", second.address.port(), "b.calls.test", 300);
    tokio::time::timeout(Duration::from_secs(20), async {
        // NAPTR, SRV and the host's address.
        while dns.asked() < asked + 3 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("it is asked again");
    // What was answered is soon used.
    let by_second = async {
        loop {
            let call = phone.talk(ANSWERS).await;
            let (event, by_second) = tokio::select! {
                event = first.event() => (event, false),
                event = second.event() => (event, true),
            };
            assert_eq!(event, CarrierEvent::Confirmed);
            phone.hang_up(call).await;
            let carrier = if by_second { &mut second } else { &mut first };
            assert_eq!(carrier.event().await, CarrierEvent::Ended { by_carrier: false });
            if by_second {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), by_second).await.expect("the new answer is used");
    server.left_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_fails_over_to_the_next_target_when_the_first_is_dead() {
    let (dns, mut alive) = (TestDns::start().await, TestCarrier::start().await);
    let dead = UdpSocket::bind(("127.0.0.1", 0)).expect("a socket");
    dns.srv("_sip._udp.calls.test", 10, dead.local_addr().expect("bound").port(), "a.calls.test", 300);
    dns.srv("_sip._udp.calls.test", 20, alive.address.port(), "a.calls.test", 300);
    dns.loopback("a.calls.test");
    let server = server(&dns, "udp:calls.test").await;
    let account = server.account("u0").await;
    let mut phone = phone(&server, "u0").await;
    call(&mut phone, &mut alive).await;
    server.left_clean().await;
    let cdr = server.history(account).await.pop().expect("a call");
    assert_eq!(cdr.attempts, 2);
    let outcomes: Vec<_> = cdr.call.explanation.candidates.iter().map(|c| c.outcome.as_str()).collect();
    assert_eq!(outcomes[0], "408 Request Timeout");
    // Both attempts were INVITEs of their own.
    let mut buffer = [0; 4_096];
    dead.set_nonblocking(true).expect("set");
    let invites = std::iter::from_fn(|| dead.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec()));
    let invites: Vec<Vec<u8>> =
        invites.filter(|bytes| bytes.starts_with(b"INVITE sip:+447700900001@calls.test ")).collect();
    assert!(!invites.is_empty() && invites.windows(2).all(|pair| pair[0] == pair[1]), "the same branch when repeated");
    // The dead one is not tried again at once.
    let begun = Instant::now();
    call(&mut phone, &mut alive).await;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    server.left_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_carrier_with_an_aaaa_record_is_called_over_ipv6() {
    let dns = TestDns::start().await;
    let mut carrier = TestCarrier::at(Ipv6Addr::LOCALHOST.into(), &Wire::default()).await;
    assert!(carrier.address.is_ipv6());
    dns.srv("_sip._udp.calls.test", 10, carrier.address.port(), "a.calls.test", 300);
    dns.loopback_v6("a.calls.test");
    let server = server(&dns, "udp:calls.test").await;
    let mut phone = phone(&server, "u0").await;
    call(&mut phone, &mut carrier).await;
    server.left_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_does_not_exist_is_a_trunk_that_is_down_with_that_reason() {
    let dns = TestDns::start().await;
    let server = server(&dns, "nowhere.test").await;
    let account = server.account("u0").await;
    let mut phone = phone(&server, "u0").await;
    let wanted = phone.dial(ANSWERS).await;
    assert!(phone.outcome(wanted).await.is_err());
    server.left_clean().await;
    let cdr = server.history(account).await.pop().expect("a record");
    let outcomes: Vec<_> = cdr.call.explanation.candidates.iter().map(|c| c.outcome.as_str()).collect();
    assert_eq!(outcomes, ["excluded: down: its name does not exist in DNS"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_dns_server_delays_no_other_call() {
    let (dns, mut carrier) = (TestDns::start().await, TestCarrier::start().await);
    dns.late(Duration::from_secs(60));
    let mut server = server(&dns, "slow.test").await;
    // With the slow name alone a call waits for it a short time, then is told so.
    let mut waiting = phone(&server, "u1").await;
    let begun = Instant::now();
    let wanted = waiting.dial(ANSWERS).await;
    let status = waiting.outcome(wanted).await;
    assert!(status.is_err() && begun.elapsed() < Duration::from_secs(5), "{status:?} after {:?}", begun.elapsed());
    assert!(begun.elapsed() >= Duration::from_millis(1_800), "it waited: {:?}", begun.elapsed());
    // Another carrier takes calls at once, while DNS is still being asked.
    server.gateway_name = None;
    server.gateway = carrier.address;
    let other = "[[carrier]]\nname = \"Slow\"\ngateway = \"other.test\"\ncurrency = \"EUR\"\ndeck = \"Wholesale\"";
    server.provision(other).await;
    let mut phone = phone(&server, "u0").await;
    // Shorter than a call waits for a name.
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        let begun = Instant::now();
        let call = phone.talk(ANSWERS).await;
        longest = longest.max(begun.elapsed());
        assert_eq!(carrier.event().await, CarrierEvent::Confirmed);
        phone.hang_up(call).await;
        assert_eq!(carrier.event().await, CarrierEvent::Ended { by_carrier: false });
    }
    assert!(dns.asked() > 0 && longest < Duration::from_millis(1_800), "{longest:?}");
    server.left_clean().await;
}
