//! Carriers that want to be registered with.

use super::*;

pub(super) const ASKS: &str = "Digest realm=\"carrier.example\", nonce=\"n1\", qop=\"auth\", algorithm=SHA-256";
const OURS: &str = "<sip:us@127.0.0.1:5060>";

/// The REGISTER sent last.
fn register(desk: &Desk) -> Message {
    let texts = desk.sent.iter().rev().map(|(_, text)| text);
    let text = texts.into_iter().find(|text| text.starts_with("REGISTER ")).expect("a REGISTER");
    Message::parse_datagram(&Bytes::from(text.clone())).expect("readable")
}

/// Time passes while the carrier answers probes.
fn wait(desk: &mut Desk, seconds: u64) {
    for _ in 0..seconds {
        desk.wait(Duration::from_secs(1));
        let (probes, others) =
            std::mem::take(&mut desk.sent).into_iter().partition(|(_, text)| text.starts_with("OPTIONS "));
        desk.sent = others;
        for (_, probe) in probes {
            let probe = Message::parse_datagram(&Bytes::from(probe)).expect("readable");
            desk.carrier(&probe, 200, "x", "");
        }
    }
}

fn registers(desk: &mut Desk) -> usize {
    desk.kinds().iter().filter(|kind| *kind == "REGISTER").count()
}

/// The carrier accepts a REGISTER.
fn accept(desk: &mut Desk, request: &Message, contacts: &[&str]) {
    let mut response = ResponseBuilder::to_request(request, 200, Some("r"));
    for contact in contacts {
        response = response.contact(&NameAddr::parse(contact).expect("valid"));
    }
    let text = String::from_utf8(response.build().expect("complete").to_vec()).expect("text");
    desk.take(Flow::udp(CARRIER.into()), &text);
}

fn refuse(desk: &mut Desk, request: &Message, status: u16, more: Option<(HeaderName, u32)>) {
    let mut response = ResponseBuilder::to_request(request, status, Some("r"));
    if let Some((name, value)) = more {
        response = response.header(name, &value);
    }
    let text = String::from_utf8(response.build().expect("complete").to_vec()).expect("text");
    desk.take(Flow::udp(CARRIER.into()), &text);
}

fn begun() -> (Desk, Message) {
    let mut desk = Desk::new();
    desk.trunks(vec![with_login(None, Some(600))]);
    desk.handle(Input::Timeout);
    let first = register(&desk);
    (desk, first)
}

/// Registered for so many seconds.
fn registered(seconds: u32) -> Desk {
    let (mut desk, first) = begun();
    desk.challenge(&first, 401, &[ASKS]);
    let again = register(&desk);
    accept(&mut desk, &again, &[&format!("{OURS};expires={seconds}")]);
    desk.take_sent();
    desk
}

#[test]
fn a_trunk_is_down_until_its_carrier_has_us_registered() {
    let (mut desk, first) = begun();
    assert_eq!(desk.probed, [Some(TrunkDown::Unregistered)]);
    assert_eq!(first.request_uri().map(ToString::to_string).as_deref(), Some("sip:127.0.0.1:5090"));
    assert_eq!(first.to().uri.to_string(), "sip:us@127.0.0.1:5090");
    assert_eq!((first.contacts()[0].to_string().as_str(), first.expires()), (OURS, Some(600)));
    desk.challenge(&first, 401, &[ASKS]);
    let again = register(&desk);
    assert_eq!((again.call_id(), again.cseq().0), (first.call_id(), first.cseq().0 + 1));
    assert!(is_right(&again, HeaderName::Authorization, "carrier-secret"));
    assert_eq!(desk.probed.len(), 1, "not yet");
    accept(&mut desk, &again, &["<sip:us@192.0.2.9>;expires=7", &format!("{OURS};expires=300")]);
    assert_eq!(desk.probed[1..], [None]);
    // It is refreshed before it ends, with the nonce that is known.
    desk.take_sent();
    wait(&mut desk, 179);
    assert_eq!(registers(&mut desk), 0);
    let seconds = (1..=77).find(|_| {
        wait(&mut desk, 1);
        desk.sent.iter().any(|(_, text)| text.starts_with("REGISTER "))
    });
    assert!(seconds.is_some());
    let refresh = register(&desk);
    assert_eq!((refresh.call_id(), refresh.cseq().0), (first.call_id(), first.cseq().0 + 2));
    assert_eq!(answer_in(&refresh, HeaderName::Authorization)["nc"], "00000002");
    // The nonce has aged.
    desk.challenge(&refresh, 401, &[&format!("{}, stale=true", ASKS.replace("n1", "n2"))]);
    let again = register(&desk);
    assert_eq!(answer_in(&again, HeaderName::Authorization)["nonce"], "n2");
    accept(&mut desk, &again, &[&format!("{OURS};expires=300")]);
    assert_eq!(desk.probed.len(), 2, "it was up all the while");
}

#[test]
fn a_carrier_that_is_gone_is_down_when_its_registration_has_ended() {
    let mut desk = registered(100);
    assert_eq!(desk.probed.pop(), Some(None));
    wait(&mut desk, 99);
    assert_eq!(desk.probed, [Some(TrunkDown::Unregistered)], "it holds, though it could not be refreshed");
    wait(&mut desk, 40);
    assert_eq!(desk.probed.last(), Some(&Some(TrunkDown::Silent)));
    // It answers a probe again: it is registered with at once, whatever back-off there was.
    desk.take_sent();
    desk.wait(Duration::from_secs(600));
    // A probe that has just left, not one that is given up meanwhile.
    let known = desk.take_sent();
    let new_probe = (0..120).find_map(|_| {
        desk.wait(Duration::from_millis(500));
        let mut texts = desk.sent.iter().map(|(_, text)| text);
        texts.find(|text| text.starts_with("OPTIONS ") && !known.contains(*text)).cloned()
    });
    let probe = Message::parse_datagram(&Bytes::from(new_probe.expect("a probe"))).expect("readable");
    desk.take_sent();
    desk.carrier(&probe, 200, "x", "");
    desk.wait(Duration::from_secs(11));
    let again = register(&desk);
    accept(&mut desk, &again, &[&format!("{OURS};expires=100")]);
    assert_eq!(desk.probed.last(), Some(&None));
}

#[test]
fn refusals_are_told_by_name_and_tried_again_later() {
    let (mut desk, first) = begun();
    refuse(&mut desk, &first, 423, Some((HeaderName::MinExpires, 1_800)));
    let longer = register(&desk);
    assert_eq!((longer.expires(), longer.cseq().0), (Some(1_800), first.cseq().0 + 1));
    refuse(&mut desk, &longer, 503, Some((HeaderName::RetryAfter, 120)));
    assert_eq!(desk.probed, [Some(TrunkDown::Unregistered), Some(TrunkDown::RegistrationRefused)]);
    desk.take_sent();
    desk.wait(Duration::from_secs(119));
    assert_eq!(registers(&mut desk), 0);
    desk.wait(Duration::from_secs(2));
    let second = register(&desk);
    desk.challenge(&second, 401, &[ASKS]);
    let answer = register(&desk);
    desk.take_sent();
    desk.challenge(&answer, 401, &[&ASKS.replace("n1", "n2")]);
    assert_eq!(registers(&mut desk), 0, "a wrong password is not sent again");
    assert_eq!(desk.probed.last(), Some(&Some(TrunkDown::CredentialsRefused)));
    desk.wait(Duration::from_secs(149));
    assert_eq!(registers(&mut desk), 0, "and seldom tried again");
}

#[test]
fn a_registration_that_the_carrier_lost_is_made_again_when_a_call_is_forbidden() {
    let mut desk = registered(600);
    desk.wait(Duration::from_secs(20));
    desk.take_sent();
    let invite = desk.dial(some_call());
    desk.carrier(&invite, 403, "x", "");
    desk.handle(Input::Timeout);
    assert_eq!(registers(&mut desk), 1);
}

/// What strangers close says nothing about a carrier, and walks no registrations.
#[test]
fn a_registration_is_made_again_when_our_own_connection_to_the_carrier_ends_and_no_other() {
    let mut desk = Desk::new();
    let gateway = Gateway { transport: GatewayTransport::Tcp, address: CARRIER.into() };
    desk.trunks(vec![TrunkAddress { gateway: gateway.into(), ..with_login(None, Some(600)) }]);
    desk.handle(Input::Timeout);
    desk.challenge(&register(&desk), 401, &[ASKS]);
    let again = register(&desk);
    accept(&mut desk, &again, &[&format!("<{}>;expires=600", again.contacts()[0].uri)]);
    desk.wait(Duration::from_secs(20));
    desk.take_sent();
    let flow = Flow { protocol: Protocol::Tcp, peer: CARRIER.into(), connection: Some(ConnectionId(1)) };
    desk.handle(Input::FlowClosed(flow));
    desk.handle(Input::Timeout);
    assert_eq!(registers(&mut desk), 0);
    desk.handle(Input::Disconnected(flow, gateway.into()));
    desk.handle(Input::Timeout);
    assert_eq!(registers(&mut desk), 1);
}

#[test]
fn a_trunk_that_goes_or_changes_leaves_its_carrier_and_a_server_that_ends_all() {
    let mut desk = registered(600);
    assert_eq!(desk.core.counts().carrier_registrations, 1);
    // Another password: out with the old one, in with the new one.
    let login = TrunkLogin {
        password: Pii::new("newer".into()),
        ..(**with_login(None, Some(600)).login.as_ref().expect("one")).clone()
    };
    desk.trunks(vec![TrunkAddress { login: Some(std::sync::Arc::new(login)), ..trunk() }]);
    desk.handle(Input::Timeout);
    let sent: Vec<Message> = desk
        .take_sent()
        .into_iter()
        .filter(|text| text.starts_with("REGISTER "))
        .map(|text| Message::parse_datagram(&Bytes::from(text)).expect("readable"))
        .collect();
    let [leaves, begins] = &sent[..] else { panic!("{} REGISTERs", sent.len()) };
    assert_eq!((leaves.expires(), begins.expires()), (Some(0), Some(600)));
    assert!(is_right(leaves, HeaderName::Authorization, "carrier-secret"), "with the password it had");
    // Its nonce has aged.
    desk.challenge(leaves, 401, &[&format!("{}, stale=true", ASKS.replace("n1", "n2"))]);
    let left = register(&desk);
    assert_eq!(left.expires(), Some(0));
    accept(&mut desk, &left, &[]);
    assert_eq!(desk.core.counts().carrier_registrations, 1);
    desk.challenge(begins, 401, &[ASKS]);
    let again = register(&desk);
    assert!(is_right(&again, HeaderName::Authorization, "newer"));
    accept(&mut desk, &again, &[&format!("{OURS};expires=600")]);
    desk.take_sent();
    desk.handle(Input::Edge(EdgeCommand::Leaving));
    let last = register(&desk);
    assert_eq!(last.expires(), Some(0));
    accept(&mut desk, &last, &[]);
    assert_eq!(desk.core.counts().carrier_registrations, 0);
    desk.take_sent();
    desk.trunks(vec![with_login(Some("x"), Some(600))]);
    desk.wait(Duration::from_secs(100));
    assert_eq!(registers(&mut desk), 0, "a server that ends registers with nobody");
}
