//! Where requests in a carrier's dialog go: over which transport, and after the carrier has moved.

use super::large::sent_over;
use super::restart::request_of_carrier;
use super::*;
use crate::message::Message;
use schema::edge::Located;
use schema::leg::Key;
use schema::target::{Server, Targets, TrunkGateway};

const MOVED: &str = "<sip:c@203.0.113.9>";

fn quiet() -> CoreConfig {
    CoreConfig { dialog_probe: Duration::ZERO, ..config() }
}

/// The carrier's 2xx with this Contact.
fn accepted(desk: &mut Desk, request: &Message, contact: &str, more: &[(HeaderName, &str)]) {
    let contact = NameAddr::parse(contact).expect("valid");
    let response = ResponseBuilder::to_request(request, 200, Some("x")).contact(&contact);
    let response = more.iter().fold(response, |response, (name, value)| response.header(*name, value));
    let response = response.body("application/sdp", Bytes::from(ANSWER)).build().expect("complete");
    desk.take(Flow::udp(CARRIER.into()), std::str::from_utf8(&response).expect("text"));
}

/// A call over this transport whose 200 had this Contact, and more.
fn up(transport: GatewayTransport, contact: &str, more: &[(HeaderName, &str)]) -> (Desk, LegId, Message) {
    let (mut desk, leg) = (Desk::with(quiet(), 3), some_call());
    let gateway = Gateway { transport, ..gateway() };
    desk.leg(LegCommand::Invite(Box::new(Invite { gateway, ..outgoing(leg) })));
    let invite = desk.last_sent();
    accepted(&mut desk, &invite, contact, more);
    desk.leg(LegCommand::Confirm { leg, answer: None });
    (desk, leg, invite)
}

/// Where the last request went: its method, over what, to which address.
fn went(desk: &Desk) -> String {
    let (to, _) = desk.sent.last().expect("sent");
    format!("{} {} {to}", desk.last_sent().method(), sent_over(desk))
}

fn press_key(desk: &mut Desk, leg: LegId) {
    desk.leg(LegCommand::PressKey { leg, key: Key { signal: Pii::new('5'), duration_ms: None } });
}

/// Where INFO, a re-INVITE, its ACK and BYE go.
fn all_ways(desk: &mut Desk, leg: LegId, contact: &str) -> Vec<String> {
    press_key(desk, leg);
    let info = went(desk);
    desk.leg(LegCommand::Offer { leg, offer: Pii::new(OFFER.replace("4000", "4002").into()) });
    let (invite, request) = (went(desk), desk.last_sent());
    accepted(desk, &request, contact, &[]);
    let ack = went(desk);
    desk.leg(LegCommand::HangUp { leg, cause: HangupCause::OtherLeg });
    vec![info, invite, ack, went(desk)]
}

fn each(to: &str) -> Vec<String> {
    ["INFO", "INVITE", "ACK", "BYE"].iter().map(|method| format!("{method} {to}")).collect()
}

#[test]
fn an_address_is_spoken_to_over_the_transport_that_its_uri_names_and_no_less_protected_than_the_call() {
    use GatewayTransport::{Tcp, Tls, Udp};
    let cases = [
        (Udp, "<sip:c@192.0.2.9>", "UDP 192.0.2.9:5060"),
        (Udp, "<sip:c@192.0.2.9:5070;transport=TCP>", "TCP 192.0.2.9:5070"),
        (Udp, "<sip:c@192.0.2.9;transport=tls>", "TLS 192.0.2.9:5061"),
        (Udp, "<sips:c@192.0.2.9>", "TLS 192.0.2.9:5061"),
        (Udp, "<sip:c@[2001:db8::9];transport=tcp>", "TCP [2001:db8::9]:5060"),
        // What we do not speak says nothing.
        (Udp, "<sip:c@192.0.2.9;transport=ws>", "UDP 192.0.2.9:5060"),
        (Tcp, "<sip:c@192.0.2.9;transport=sctp>", "TCP 192.0.2.9:5060"),
        (Tcp, "<sip:c@192.0.2.9>", "TCP 192.0.2.9:5060"),
        (Tcp, "<sip:c@192.0.2.9;transport=udp>", "UDP 192.0.2.9:5060"),
        (Tls, "<sip:c@192.0.2.9;transport=udp>", "TLS 192.0.2.9:5061"),
        (Tls, "<sip:c@192.0.2.9:5070;transport=tcp>", "TLS 192.0.2.9:5070"),
    ];
    for (transport, uri, expected) in cases {
        let (mut desk, leg, _) = up(transport, uri, &[]);
        assert_eq!(went(&desk), format!("ACK {expected}"), "{uri}");
        assert_eq!(all_ways(&mut desk, leg, uri), each(expected), "{uri}");
        // Of a proxy the same holds.
        let route = uri.replace("c@", "").replace('>', ";lr>");
        let (desk, ..) = up(transport, "<sip:c@127.0.0.1:5090>", &[(HeaderName::RecordRoute, &route)]);
        assert_eq!(went(&desk), format!("ACK {expected}"), "{route}");
    }
}

#[test]
fn a_fork_that_nobody_wants_is_ended_over_the_transport_of_its_contact() {
    let (mut desk, _, invite) = up(GatewayTransport::Udp, "<sip:c@127.0.0.1:5090>", &[]);
    desk.take_sent();
    let contact = NameAddr::parse("<sip:y@192.0.2.9;transport=tcp>").expect("valid");
    let response = ResponseBuilder::to_request(&invite, 200, Some("y")).contact(&contact).build().expect("complete");
    desk.take(Flow::udp(CARRIER.into()), std::str::from_utf8(&response).expect("text"));
    assert_eq!(went(&desk), "BYE TCP 192.0.2.9:5060");
    assert_eq!(desk.kinds(), ["ACK", "BYE"]);
}

/// The carrier's request with this Contact.
fn moves(desk: &mut Desk, invite: &Message, method: &str, contact: &str, body: &str) {
    let text = request_of_carrier(invite, method, 1, body).replace("<sip:c@127.0.0.1:5090>", contact);
    desk.take(Flow::udp(CARRIER.into()), &text);
}

#[test]
fn a_carrier_that_moves_is_followed_by_the_next_request() {
    let old = "<sip:c@127.0.0.1:5090>";
    let moved = each("UDP 203.0.113.9:5060");
    // By an UPDATE or re-INVITE that changes nothing else.
    for (method, body) in [("UPDATE", ""), ("UPDATE", ANSWER), ("INVITE", ANSWER)] {
        let (mut desk, leg, invite) = up(GatewayTransport::Udp, old, &[]);
        moves(&mut desk, &invite, method, MOVED, body);
        assert_eq!(desk.last_sent().status(), Some(200));
        moves(&mut desk, &invite, "ACK", MOVED, "");
        assert_eq!(all_ways(&mut desk, leg, MOVED), moved, "{method}");
    }
    // Over another transport, and an ACK that is asked for again is written for that.
    let (mut desk, leg, invite) = up(GatewayTransport::Udp, old, &[]);
    moves(&mut desk, &invite, "UPDATE", "<sip:c@203.0.113.9;transport=tcp>", "");
    accepted(&mut desk, &invite, old, &[]);
    assert_eq!((went(&desk).as_str(), desk.last_sent().cseq().0), ("ACK TCP 203.0.113.9:5060", invite.cseq().0));
    assert_eq!(all_ways(&mut desk, leg, "<sip:c@203.0.113.9;transport=tcp>"), each("TCP 203.0.113.9:5060"));
    // By one that changes the session, once it is accepted.
    let (mut desk, leg, invite) = up(GatewayTransport::Udp, old, &[]);
    let other = ANSWER.replace("9000", "9002");
    moves(&mut desk, &invite, "UPDATE", MOVED, &other);
    press_key(&mut desk, leg);
    assert_eq!(went(&desk), "INFO UDP 127.0.0.1:5090");
    desk.leg(LegCommand::AnswerOffer { leg, answer: Ok(Pii::new(OFFER.into())) });
    assert_eq!(all_ways(&mut desk, leg, MOVED), moved);
    let (mut desk, leg, invite) = up(GatewayTransport::Udp, old, &[]);
    moves(&mut desk, &invite, "UPDATE", MOVED, &other);
    desk.leg(LegCommand::AnswerOffer { leg, answer: Err(488) });
    press_key(&mut desk, leg);
    assert_eq!(went(&desk), "INFO UDP 127.0.0.1:5090", "a refusal refreshes nothing");
    // By its 200 to a re-INVITE of ours, whose ACK follows it; and to an UPDATE of ours.
    let (mut desk, leg, _) = up(GatewayTransport::Udp, old, &[]);
    let expected: Vec<String> = moved[2..].to_vec();
    assert_eq!(all_ways(&mut desk, leg, MOVED)[2..], expected);
    let timer = [(HeaderName::Allow, "UPDATE"), (HeaderName::SessionExpires, "400;refresher=uac")];
    let (mut desk, leg, _) = up(GatewayTransport::Udp, old, &timer);
    desk.wait(Duration::from_secs(200));
    let update = desk.last_sent();
    assert_eq!(went(&desk), "UPDATE UDP 127.0.0.1:5090");
    desk.take_legs();
    accepted(&mut desk, &update, MOVED, &timer);
    let told = desk.take_legs();
    let [LegEvent::Checkpointed { checkpoint, .. }] = &told[..] else { panic!("{told:?}") };
    assert!(checkpoint.state.expose().contains("UDP 203.0.113.9:5060"), "it is there after a restart");
    assert_eq!(all_ways(&mut desk, leg, MOVED), moved);
    desk.assert_empty();
}

#[test]
fn a_carrier_behind_a_proxy_stays_behind_it_and_a_phone_at_its_flow() {
    let route = [(HeaderName::RecordRoute, "<sip:192.0.2.9;lr>")];
    let (mut desk, leg, invite) = up(GatewayTransport::Udp, "<sip:c@127.0.0.1:5090>", &route);
    moves(&mut desk, &invite, "UPDATE", MOVED, "");
    press_key(&mut desk, leg);
    assert_eq!(went(&desk), "INFO UDP 192.0.2.9:5060");
    let uri = desk.last_sent().request_uri().map(ToString::to_string);
    assert_eq!(uri.as_deref(), Some("sip:c@203.0.113.9"), "its target is the new one");
    let mut talk = desk.talk(udp(), "c");
    talk.cseq += 1;
    let update = desk.text("UPDATE", udp(), "c", &talk.to_tag, talk.cseq, "", "");
    desk.take(udp(), &update.replace("Contact: <sip:demo@127.0.0.1:5100>", "Contact: <sip:demo@203.0.113.9>"));
    desk.leg(LegCommand::HangUp { leg: talk.leg, cause: HangupCause::OtherLeg });
    assert_eq!(went(&desk), "BYE UDP 127.0.0.1:5100");
}

/// Where this name leads.
fn located(desk: &mut Desk, name: &str, address: &str) {
    let Ok(TrunkGateway::Named(name)) = name.parse() else { panic!("{name}") };
    let gateway = Gateway { transport: GatewayTransport::Udp, address: address.parse().expect("an address") };
    let targets = Targets::new(vec![Server { rank: 0, weight: 0, gateways: vec![gateway] }]);
    desk.handle(Input::Edge(EdgeCommand::Located { name, found: Ok(Located { targets, ttl_s: 60 }) }));
}

#[test]
fn a_carrier_that_moves_to_a_name_is_followed_when_it_is_known_and_no_further_than_it_says() {
    let (mut desk, leg, invite) = up(GatewayTransport::Udp, "<sip:c@first.example.net>", &[]);
    assert_eq!(desk.last_sent().method(), &Method::Invite, "the ACK waits for the name");
    // It moves meanwhile: the ACK waits no longer, and what comes of the first name concerns nobody.
    moves(&mut desk, &invite, "UPDATE", "<sip:c@second.example.net>", "");
    let acks = |desk: &mut Desk| desk.kinds().iter().filter(|kind| *kind == "ACK").count();
    assert_eq!(acks(&mut desk), 1);
    located(&mut desk, "udp:first.example.net", "192.0.2.1:5060");
    press_key(&mut desk, leg);
    assert_eq!(went(&desk), "INFO UDP 127.0.0.1:5090");
    located(&mut desk, "udp:second.example.net", "192.0.2.2:5060");
    assert_eq!(all_ways(&mut desk, leg, "<sip:c@second.example.net>"), each("UDP 192.0.2.2:5060"));
    assert_eq!(acks(&mut desk), 1, "of the re-INVITE");
    // To an address.
    let (mut desk, leg, invite) = up(GatewayTransport::Udp, "<sip:c@first.example.net>", &[]);
    moves(&mut desk, &invite, "UPDATE", MOVED, "");
    located(&mut desk, "udp:first.example.net", "192.0.2.1:5060");
    assert_eq!(all_ways(&mut desk, leg, MOVED), each("UDP 203.0.113.9:5060"));
}

#[test]
fn a_fork_that_says_no_transport_is_ended_where_the_invite_went() {
    for contact in ["<sip:y@192.0.2.2>", "<sip:y@gw2.example>"] {
        let (mut desk, _, invite) = up(GatewayTransport::Udp, "<sip:c@192.0.2.1;transport=tcp>", &[]);
        assert_eq!(went(&desk), "ACK TCP 192.0.2.1:5060");
        let to = NameAddr::parse(contact).expect("valid");
        let response = ResponseBuilder::to_request(&invite, 200, Some("y")).contact(&to).build().expect("complete");
        desk.take(Flow::udp(CARRIER.into()), std::str::from_utf8(&response).expect("text"));
        let expected = if contact.contains("gw2") {
            format!("BYE UDP {}", SocketAddr::from(CARRIER))
        } else {
            "BYE UDP 192.0.2.2:5060".to_owned()
        };
        assert_eq!(went(&desk), expected);
    }
}

#[test]
fn a_contact_with_headers_is_spoken_to_without_them() {
    let (mut desk, leg, _) = up(GatewayTransport::Udp, "<sip:c@127.0.0.1:5090?subject=x>", &[]);
    assert_eq!(desk.kinds(), ["INVITE", "ACK"]);
    desk.leg(LegCommand::HangUp { leg, cause: HangupCause::OtherLeg });
    assert!(desk.take_sent()[0].starts_with("BYE sip:c@127.0.0.1:5090 SIP/2.0\r\n"));
}

#[test]
fn a_stray_answer_of_a_phone_opens_no_connection_to_its_contact() {
    let mut desk = Desk::with(quiet(), 3);
    let mut talk = desk.talk(tls(1, 1), "c");
    desk.leg(LegCommand::Offer { leg: talk.leg, offer: Pii::new(ANSWER.replace("9000", "9002").into()) });
    let reinvite = desk.last_sent();
    desk.in_dialog(&mut talk, "BYE", "", "");
    desk.leg(LegCommand::Settled { call: talk.leg.call });
    desk.take_sent();
    let contact = NameAddr::parse("<sip:x@10.0.0.5:6379;transport=tcp>").expect("valid");
    let response = ResponseBuilder::to_request(&reinvite, 200, None).contact(&contact).build().expect("complete");
    desk.take(tls(1, 1), std::str::from_utf8(&response).expect("text"));
    let sent = std::mem::take(&mut desk.sent);
    assert!(!sent.is_empty() && sent.iter().all(|(to, _)| *to == tls(1, 1).peer), "{sent:?}");
}

/// Two trunks may share a carrier's address: then nobody knows whose a stray answer is, but a carrier's it is.
#[test]
fn a_stray_answer_of_a_carrier_with_two_trunks_is_ended_where_its_contact_says() {
    let mut desk = Desk::with(quiet(), 3);
    let other = TrunkId::generate(&mut Entropy::from_number(7), Timestamp(0));
    desk.trunks(vec![trunk(), TrunkAddress { trunk: other, ..trunk() }]);
    let invite = desk.dial(some_call());
    desk.carrier(&invite, 180, "x", "");
    desk.leg(LegCommand::HangUp { leg: some_call(), cause: HangupCause::Cancelled });
    desk.wait(Duration::from_secs(200));
    desk.take_sent();
    accepted(&mut desk, &invite, "<sip:c@192.0.2.9>", &[]);
    assert_eq!(went(&desk), "BYE UDP 192.0.2.9:5060");
}
