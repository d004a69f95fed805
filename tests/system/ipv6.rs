//! Calls between IPv4 and IPv6.

use schema::call::HangupSide;
use sip::demo::carrier::CarrierEvent;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tests::carrier::TestCarrier;
use tests::phone::TestPhone;
use tests::server::TestServer;
use tests::wire::Wire;

/// The test carrier answers and hangs up after five seconds.
const HANGS_UP: &str = "+447700900080";
/// It answers at once.
const ANSWERS: &str = "+447700900001";

/// A call over these addresses is hung up by the caller, and another one by the carrier, whose BYE finds us by our Contact.
async fn calls(phone_at: IpAddr, carrier_at: IpAddr) {
    let mut server = TestServer::start_with(|config| {
        config.test_carrier = None;
        config.sip.v6.udp = Some((Ipv6Addr::LOCALHOST, 0).into());
        config.sip.v6.tcp = Some((Ipv6Addr::LOCALHOST, 0).into());
    })
    .await;
    let mut carrier = TestCarrier::at(carrier_at, &Wire::default()).await;
    server.gateway = carrier.address;
    server.accounts(1, "10.00", "live_calls = 2, calls_per_minute = 10").await;
    let account = server.account("u0").await;
    let addresses = server.addresses();
    let listener = if phone_at.is_ipv6() { addresses.sip_v6.udp } else { addresses.sip_udp };
    let mut phone = TestPhone::start_at(phone_at, listener.expect("UDP"), "u0", "pw0").await;
    phone.register().await;
    let call = phone.talk(ANSWERS).await;
    assert_eq!(carrier.event().await, CarrierEvent::Confirmed);
    phone.hang_up(call).await;
    assert_eq!(carrier.event().await, CarrierEvent::Ended { by_carrier: false });
    let call = phone.talk(HANGS_UP).await;
    assert_eq!(carrier.event().await, CarrierEvent::Confirmed);
    assert_eq!(carrier.event().await, CarrierEvent::Ended { by_carrier: true });
    phone.ended(call).await;
    server.left_clean().await;
    let sides: Vec<_> =
        server.history(account).await.iter().map(|cdr| cdr.call.hangup.as_ref().map(|h| h.side)).collect();
    assert!(sides.contains(&Some(HangupSide::Callee)) && sides.contains(&Some(HangupSide::Caller)), "{sides:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_on_ipv4_calls_over_a_carrier_on_ipv6() {
    calls(Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_on_ipv6_calls_over_a_carrier_on_ipv4() {
    calls(Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()).await;
}
