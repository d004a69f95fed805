//! Carriers that are known by name: where their calls go, for how long, and what happens when a target fails.

use super::registering::ASKS;
use super::*;
use crate::core::peers::{Bound, Way};
use schema::carrier::TrunkDown;
use schema::edge::Located;
use schema::target::{Server, Targets, TrunkGateway};

const NAME: &str = "udp:sip.example.com";

fn name(text: &str) -> GatewayName {
    match text.parse() {
        Ok(TrunkGateway::Named(name)) => name,
        other => panic!("{text}: {other:?}"),
    }
}

fn target(last: u8) -> Gateway {
    Gateway { transport: GatewayTransport::Udp, address: SocketAddr::from(([192, 0, 2, last], 5060)) }
}

/// One server for each, the first preferred.
fn targets(last: &[u8]) -> Targets {
    let server = |(rank, last): (usize, &u8)| Server { rank: rank as u16, weight: 0, gateways: vec![target(*last)] };
    Targets::new(last.iter().enumerate().map(server).collect())
}

impl Desk {
    fn located(&mut self, text: &str, found: Result<&[u8], TrunkDown>, ttl_s: u32) {
        let found = found.map(|last| Located { targets: targets(last), ttl_s });
        self.handle(Input::Edge(EdgeCommand::Located { name: name(text), found }));
    }

    /// A trunk by name.
    fn named(&mut self) {
        self.trunks(vec![TrunkAddress { gateway: NAME.parse().expect("a name"), ..trunk() }]);
    }

    fn state(&self) -> (Option<TrunkDown>, Vec<u8>) {
        let last = |gateway: Gateway| match gateway.address.ip() {
            std::net::IpAddr::V4(ip) => ip.octets()[3],
            std::net::IpAddr::V6(_) => 0,
        };
        let state = self.states.last().expect("something was told");
        (state.down, state.targets.iter().flat_map(|targets| targets.gateways().map(last)).collect())
    }

    /// A call to this target.
    fn call(&mut self, attempt: u8, last: u8) -> Message {
        let leg = LegId::b(some_call().call, attempt);
        let invite = Invite { gateway: target(last), name: Some(name(NAME)), ..outgoing(leg) };
        self.leg(LegCommand::Invite(Box::new(invite)));
        assert_eq!(self.sent.last().map(|(to, _)| *to), Some(target(last).address));
        self.last_sent()
    }

    /// A target answers.
    fn answers(&mut self, last: u8, request: &Message, status: u16, contact: &str) {
        let contact = NameAddr::parse(contact).expect("valid");
        let mut response = ResponseBuilder::to_request(request, status, Some("b")).contact(&contact);
        if status == 200 {
            response = response.body("application/sdp", Bytes::from(ANSWER));
        }
        let text = String::from_utf8(response.build().expect("complete").to_vec()).expect("text");
        self.take(Flow::udp(target(last).address), &text);
    }
}

#[test]
fn a_trunk_by_name_is_up_when_dns_has_answered_and_each_target_is_probed() {
    let mut desk = Desk::new();
    desk.named();
    assert_eq!((desk.names.len(), desk.state()), (1, (Some(TrunkDown::Searching), vec![])));
    assert!(desk.sent.is_empty());
    desk.located(NAME, Ok(&[1, 2]), 300);
    assert_eq!(desk.state(), (None, vec![1, 2]));
    let probes = std::mem::take(&mut desk.sent);
    assert_eq!(probes.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [target(1).address, target(2).address]);
    assert!(probes.iter().all(|(_, text)| text.starts_with("OPTIONS sip:sip.example.com SIP/2.0")));
    // The second one answers, the first never does.
    for _ in 0..4 {
        let second =
            desk.sent.iter().chain(&probes).rev().find(|(to, _)| *to == target(2).address).expect("probed").clone();
        let request = Message::parse_datagram(&Bytes::from(second.1)).expect("readable");
        desk.answers(2, &request, 200, "<sip:c@192.0.2.2>");
        desk.sent.clear();
        desk.wait(Duration::from_secs(30));
    }
    assert_eq!(desk.state(), (None, vec![2]), "whoever does not answer is not called");
    // Known as a carrier by the addresses of its name only.
    assert!(desk.core.is_trunk(Flow::udp(target(1).address)) && !desk.core.is_trunk(Flow::udp(target(3).address)));
}

#[test]
fn an_answer_of_dns_is_used_as_long_as_its_ttl_says() {
    let mut desk = Desk::new();
    desk.named();
    desk.located(NAME, Ok(&[1]), 60);
    desk.wait(Duration::from_secs(59));
    assert_eq!(desk.names.len(), 1);
    desk.wait(Duration::from_secs(1));
    assert_eq!(desk.names.len(), 2, "asked again");
    assert_eq!(desk.state(), (None, vec![1]), "and used until the answer comes");
    desk.located(NAME, Ok(&[2]), 0);
    assert_eq!(desk.state(), (None, vec![2]));
    desk.wait(Duration::from_millis(4_900));
    assert_eq!(desk.names.len(), 2, "a TTL of 0 is no query for each call");
    desk.wait(Duration::from_millis(100));
    assert_eq!(desk.names.len(), 3);
    // Silence keeps what was known last, for an hour.
    desk.located(NAME, Err(TrunkDown::DnsSilent), 0);
    assert_eq!(desk.state(), (None, vec![2]));
    for _ in 0..121 {
        desk.wait(Duration::from_secs(30));
        desk.located(NAME, Err(TrunkDown::DnsSilent), 0);
        desk.states.dedup();
    }
    assert_eq!(desk.state().0, Some(TrunkDown::DnsSilent));
    desk.located(NAME, Ok(&[3]), 300);
    assert_eq!(desk.state(), (None, vec![3]));
    desk.wait(Duration::from_secs(300));
    desk.located(NAME, Err(TrunkDown::NoSuchName), 0);
    assert_eq!(desk.state(), (Some(TrunkDown::NoSuchName), vec![]), "a name that is gone is believed at once");
    let asked = desk.names.len();
    desk.wait(Duration::from_secs(31));
    assert_eq!(desk.names.len(), asked + 1, "and asked again");
    desk.trunks(Vec::new());
    desk.wait(Duration::from_secs(120));
    desk.located(NAME, Ok(&[1]), 60);
    desk.wait(Duration::from_secs(120));
    assert_eq!(desk.names.len(), asked + 1, "nobody asks for a trunk that is gone");
}

#[test]
fn a_target_that_fails_a_call_is_skipped_for_30_seconds_while_there_are_others() {
    let mut desk = Desk::new();
    desk.named();
    desk.located(NAME, Ok(&[1, 2]), 3_000);
    let invite = desk.call(1, 1);
    assert_eq!(invite.request_uri().map(ToString::to_string).as_deref(), Some("sip:+447700900000@sip.example.com"));
    desk.answers(1, &invite, 503, "<sip:c@192.0.2.1>");
    assert!(matches!(desk.take_legs()[..], [LegEvent::Failed { status: 503, rang: false, .. }]));
    assert_eq!(desk.state(), (None, vec![2]));
    let invite = desk.call(2, 2);
    desk.answers(2, &invite, 503, "<sip:c@192.0.2.2>");
    assert_eq!(desk.state(), (None, vec![1, 2]), "with all of them failed all are tried again");
    desk.wait(Duration::from_secs(31));
    assert_eq!(desk.state(), (None, vec![1, 2]));
    // What the callee decided says nothing about the target; silence does.
    let invite = desk.call(3, 1);
    desk.answers(1, &invite, 486, "<sip:c@192.0.2.1>");
    assert_eq!(desk.state(), (None, vec![1, 2]));
    let leg = LegId::b(some_call().call, 4);
    desk.call(4, 1);
    desk.wait(Duration::from_millis(3_900));
    desk.leg(LegCommand::HangUp { leg, cause: HangupCause::Cancelled });
    assert_eq!(desk.state(), (None, vec![1, 2]), "it had no time to answer");
    let leg = LegId::b(some_call().call, 5);
    desk.call(5, 1);
    desk.wait(Duration::from_secs(8));
    desk.leg(LegCommand::HangUp { leg, cause: HangupCause::NotWanted });
    assert_eq!(desk.state(), (None, vec![2]));
    desk.handle(Input::Unreachable(target(2).into(), Unreached::NoConnection));
    desk.trunks(Vec::new());
    desk.assert_empty();
}

#[test]
fn the_ack_waits_for_the_name_in_a_contact_and_goes_where_it_leads() {
    let mut desk = Desk::new();
    desk.named();
    desk.located(NAME, Ok(&[1]), 3_000);
    let answered = |desk: &mut Desk, attempt| {
        let invite = desk.call(attempt, 1);
        desk.answers(1, &invite, 200, "<sip:c@media.example.net>");
        desk.sent.clear();
        desk.leg(LegCommand::Confirm { leg: LegId::b(some_call().call, attempt), answer: None });
    };
    answered(&mut desk, 1);
    assert_eq!(desk.names.last(), Some(&name("udp:media.example.net")));
    assert!(desk.sent.is_empty(), "it waits");
    desk.located("udp:media.example.net", Ok(&[9]), 60);
    let acks = std::mem::take(&mut desk.sent);
    assert_eq!(acks.len(), 1);
    assert!(acks[0].0 == target(9).address && acks[0].1.starts_with("ACK sip:c@media.example.net"));
    let asked = desk.names.len();
    answered(&mut desk, 2);
    assert_eq!(desk.sent.pop().map(|(to, _)| to), Some(target(9).address), "it is known now");
    assert_eq!(desk.names.len(), asked);
    // It holds as long as its TTL says; then a name that leads nowhere, or no answer at all, costs 2 s at most.
    desk.wait(Duration::from_secs(61));
    desk.sent.clear();
    answered(&mut desk, 3);
    desk.located("udp:media.example.net", Err(TrunkDown::NoSuchName), 0);
    assert_eq!(desk.sent.pop().map(|(to, _)| to), Some(target(1).address), "it goes where the call went");
    desk.wait(Duration::from_secs(31));
    desk.sent.clear();
    answered(&mut desk, 4);
    desk.wait(Duration::from_millis(1_900));
    let acks = |desk: &mut Desk| desk.sent_to(target(1).address).iter().filter(|text| text.starts_with("ACK ")).count();
    assert_eq!(acks(&mut desk), 0);
    desk.wait(Duration::from_millis(100));
    assert_eq!(acks(&mut desk), 1);
    // Whoever hangs up meanwhile does not overtake it.
    desk.located("udp:media.example.net", Err(TrunkDown::NoSuchName), 0);
    desk.wait(Duration::from_secs(31));
    desk.sent.clear();
    answered(&mut desk, 5);
    desk.leg(LegCommand::HangUp { leg: LegId::b(some_call().call, 5), cause: HangupCause::OtherLeg });
    assert_eq!(desk.kinds(), ["ACK", "BYE"]);
}

#[test]
fn a_tls_carrier_with_a_wrong_certificate_is_down_with_that_reason() {
    let mut desk = Desk::new();
    let gateway = Gateway { transport: GatewayTransport::Tls, address: target(1).address };
    let named = |text: &str, id: u64| TrunkAddress {
        trunk: schema::id::TrunkId::generate(&mut Entropy::from_number(id), Timestamp(0)),
        gateway: text.parse().expect("a name"),
        large_over_tcp: false,
        login: None,
    };
    desk.trunks(vec![named("tls:a.example.com", 1), named("tls:b.example.com", 2)]);
    let found =
        || Located { targets: Targets::new(vec![Server { rank: 0, weight: 0, gateways: vec![gateway] }]), ttl_s: 300 };
    let mut probed = Vec::new();
    for name_text in ["tls:a.example.com", "tls:b.example.com"] {
        let located = EdgeCommand::Located { name: name(name_text), found: Ok(found()) };
        desk.core.handle(Input::Edge(located), desk.now);
        while let Some(output) = desk.core.poll_output() {
            if let Output::SendTo(to, _) = output {
                probed.push(to);
            }
        }
    }
    // One address under two names: each has to show its own certificate, not the one of the other or of the address.
    let names: Vec<_> = probed.iter().map(|to| desk.core.peer_name(*to).map(ToString::to_string)).collect();
    assert_eq!(names, [Some("a.example.com".to_owned()), Some("b.example.com".to_owned())]);
    for (why, down) in [(Unreached::WrongName, TrunkDown::WrongName), (Unreached::Untrusted, TrunkDown::Untrusted)] {
        desk.handle(Input::Unreachable(probed[0], why));
        assert_eq!(desk.states.last().map(|state| state.down), Some(Some(down)), "at the first probe");
        desk.states.clear();
        desk.core.handle(Input::Timeout, desk.now);
        desk.now = desk.now.after(Duration::from_secs(30));
        desk.core.handle(Input::Timeout, desk.now);
        while desk.core.poll_output().is_some() {}
    }
}

#[test]
fn a_tls_carriers_name_goes_through_a_restart() {
    let mut before = Desk::new();
    let gateway = Gateway { transport: GatewayTransport::Tls, address: target(1).address };
    let leg = some_call();
    let invite = Invite { gateway, name: Some(name("tls:sip.example.com")), ..outgoing(leg) };
    before.leg(LegCommand::Invite(Box::new(invite)));
    let invite = before.last_sent();
    before.answers(1, &invite, 200, "<sip:c@192.0.2.9>");
    let Some(LegEvent::Answered { checkpoint, .. }) = before.take_legs().pop() else { panic!("not answered") };
    let mut desk = Desk::with(config(), 5);
    desk.leg(LegCommand::Resume { leg, checkpoint });
    desk.core.handle(Input::Leg(LegCommand::Probe { leg }), desk.now);
    let mut went = None;
    while let Some(output) = desk.core.poll_output() {
        if let Output::SendTo(to, _) = output {
            went = Some(to);
        }
    }
    let to = went.expect("probed");
    assert_eq!(to.address, SocketAddr::from(([192, 0, 2, 9], 5061)));
    assert_eq!(desk.core.peer_name(to).map(ToString::to_string).as_deref(), Some("sip.example.com"));
}

/// What is stored with the answer names the place the call went to: its Contact's name is not looked up yet. Where that leads is
/// stored when the call is up.
#[test]
fn a_dialog_taken_up_goes_where_the_name_in_its_contact_led() {
    let mut before = Desk::new();
    let leg = LegId::b(some_call().call, 1);
    let invite = before.call(1, 1);
    before.answers(1, &invite, 200, "<sip:c@media.example.net>");
    before.located("udp:media.example.net", Ok(&[9]), 60);
    before.take_legs();
    before.leg(LegCommand::Confirm { leg, answer: None });
    let Some(LegEvent::Checkpointed { checkpoint, .. }) = before.take_legs().pop() else { panic!("not stored") };
    let mut desk = Desk::with(config(), 5);
    desk.leg(LegCommand::Resume { leg, checkpoint });
    desk.leg(LegCommand::HangUp { leg, cause: HangupCause::OtherLeg });
    let (to, text) = desk.sent.pop().expect("said");
    assert!(to == target(9).address && text.starts_with("BYE sip:c@media.example.net"), "{to}");
}

#[test]
fn carriers_names_come_and_go_without_end_and_those_in_use_stay() {
    let mut desk = Desk::new();
    let gateway = Gateway { transport: GatewayTransport::Tls, address: target(1).address };
    desk.trunks(vec![TrunkAddress { gateway: "tls:trunk.example.com".parse().expect("a name"), ..trunk() }]);
    let trunk = desk.core.number_of(&name("tls:trunk.example.com").host);
    let call = |desk: &mut Desk, attempt: u8, text: &str| {
        let leg = LegId::b(some_call().call, attempt);
        desk.leg(LegCommand::Invite(Box::new(Invite { gateway, name: Some(name(text)), ..outgoing(leg) })));
        (leg, desk.last_sent())
    };
    let way = |desk: &Desk, leg| match desk.core.legs.get(&leg).map(Bound::way) {
        Some(Way::To(to)) => (to.name, desk.core.peer_name(to).map(ToString::to_string)),
        other => panic!("{other:?}"),
    };
    let (long, invite) = call(&mut desk, 1, "tls:long.example.com");
    desk.answers(1, &invite, 200, "<sip:c@192.0.2.1;transport=tls>");
    desk.leg(LegCommand::Confirm { leg: long, answer: None });
    let (before, mut given) = (way(&desk, long), std::collections::BTreeSet::new());
    assert_eq!(before.1.as_deref(), Some("long.example.com"));
    for attempt in 2..100 {
        let (leg, invite) = call(&mut desk, attempt, &format!("tls:edge-{attempt}.example.com"));
        let (number, host) = way(&desk, leg);
        assert_eq!(host, Some(format!("edge-{attempt}.example.com")), "each has its name");
        assert!(given.insert(number), "no number was another's");
        desk.answers(1, &invite, 486, "<sip:c@192.0.2.1>");
        desk.wait(Duration::from_secs(40));
        assert!(desk.core.names.peers() <= 16, "{}", desk.core.names.peers());
    }
    assert_eq!(way(&desk, long), before);
    assert_eq!(desk.core.number_of(&name("tls:trunk.example.com").host), trunk);
}

#[test]
fn an_ipv6_peer_is_told_our_ipv6_address_in_brackets() {
    let v6 = crate::core::AdvertisedV6 {
        udp: Some(Advertised { host: "[2001:db8::5]".into(), port: 5062 }),
        ..Default::default()
    };
    let mut desk = Desk::with(CoreConfig { v6, ..config() }, 3);
    let invite_to = |desk: &mut Desk, attempt, address: &str| {
        let gateway = Gateway { transport: GatewayTransport::Udp, address: address.parse().expect("an address") };
        let leg = LegId::b(some_call().call, attempt);
        desk.leg(LegCommand::Invite(Box::new(Invite { gateway, ..outgoing(leg) })));
        desk.take_sent().pop().expect("sent")
    };
    let text = invite_to(&mut desk, 1, "[2001:db8::9]:5070");
    for part in [
        "INVITE sip:+447700900000@[2001:db8::9]:5070 SIP/2.0\r\n",
        "Via: SIP/2.0/UDP [2001:db8::5]:5062;",
        "@[2001:db8::5]:5062>",
        "To: <sip:+447700900000@[2001:db8::9]>",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let text = invite_to(&mut desk, 2, "192.0.2.1:5070");
    assert!(text.contains("Via: SIP/2.0/UDP 127.0.0.1:5060;") && !text.contains("2001"), "{text}");
    desk.core.config.advertised(Protocol::Tls, true).expect("what is not listened on is named as another transport");
    assert!(desk.core.config.is_ours("[2001:db8::5]"));
}

/// The REGISTERs sent since the last look, with where they went.
fn registers(desk: &mut Desk) -> Vec<(SocketAddr, Message)> {
    let sent = std::mem::take(&mut desk.sent).into_iter().filter(|(_, text)| text.starts_with("REGISTER "));
    let mut sent: Vec<(SocketAddr, String)> = sent.collect();
    // Repetitions are the same.
    sent.dedup();
    sent.into_iter().map(|(to, text)| (to, Message::parse_datagram(&Bytes::from(text)).expect("readable"))).collect()
}

#[test]
fn a_trunk_by_name_registers_with_its_first_target_and_with_the_next_when_that_fails() {
    let mut desk = Desk::new();
    let trunk = TrunkAddress { gateway: NAME.parse().expect("a name"), ..with_login(None, Some(600)) };
    desk.trunks(vec![trunk]);
    desk.wait(Duration::from_secs(10));
    assert_eq!((registers(&mut desk).len(), desk.state().0), (0, Some(TrunkDown::Searching)));
    desk.located(NAME, Ok(&[1, 2]), 3_000);
    assert_eq!(desk.state(), (Some(TrunkDown::Unregistered), vec![]), "its name is not enough");
    let [(to, first)] = &registers(&mut desk)[..] else { panic!("not one REGISTER") };
    assert_eq!(*to, target(1).address);
    assert_eq!(first.request_uri().map(ToString::to_string).as_deref(), Some("sip:sip.example.com"));
    assert_eq!(first.to().uri.to_string(), "sip:us@sip.example.com");
    desk.answers(1, first, 503, "<sip:c@192.0.2.1>");
    assert_eq!(desk.state().0, Some(TrunkDown::RegistrationRefused));
    desk.sent.clear();
    desk.wait(Duration::from_secs(31));
    let [(to, second)] = &registers(&mut desk)[..] else { panic!("not one REGISTER") };
    assert_eq!(*to, target(2).address, "the next one");
    desk.challenge(second, 401, &[ASKS]);
    let [(to, again)] = &registers(&mut desk)[..] else { panic!("not one REGISTER") };
    assert!(*to == target(2).address && is_right(again, HeaderName::Authorization, "carrier-secret"));
    desk.answers(2, again, 200, "<sip:us@127.0.0.1:5060>;expires=100");
    assert_eq!(desk.state(), (None, vec![1, 2]), "registered, and found");
    // It is refreshed where it was made, and left there though its name leads elsewhere now.
    desk.sent.clear();
    desk.wait(Duration::from_secs(86));
    let [(to, refresh)] = &registers(&mut desk)[..] else { panic!("not one REGISTER") };
    assert_eq!(*to, target(2).address);
    desk.answers(2, refresh, 200, "<sip:us@127.0.0.1:5060>;expires=100");
    desk.located(NAME, Ok(&[3]), 3_000);
    desk.sent.clear();
    desk.trunks(Vec::new());
    let [(to, left)] = &registers(&mut desk)[..] else { panic!("not one REGISTER") };
    assert_eq!((*to, left.expires()), (target(2).address, Some(0)));
}
