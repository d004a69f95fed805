//! What a leg is after a restart, and what of one leg may be seen on the other.

use super::*;

/// A call that is up on both sides, and what is stored of it.
pub(super) fn connected(
    desk: &mut Desk,
    flow: Flow,
) -> (Talk, Message, schema::leg::Checkpoint, schema::leg::Checkpoint) {
    let invited = desk.invited(flow, "c");
    let (a, b) = (invited.leg, LegId::b(invited.leg.call, 1));
    let invite = desk.dial(b);
    desk.carrier(&invite, 200, "x", ANSWER);
    let Some(LegEvent::Answered { checkpoint, .. }) = desk.take_legs().pop() else { panic!("not answered") };
    desk.leg(LegCommand::Confirm { leg: b, answer: None });
    desk.leg(LegCommand::Accept { leg: a, sdp: Some(Pii::new(ANSWER.into())) });
    let to_tag = desk.last_sent().to_tag().expect("a tag").to_owned();
    let ack = desk.text("ACK", flow, "c", &to_tag, 2, "", "");
    desk.take(flow, &ack);
    desk.take_legs();
    desk.take_sent();
    let talk = Talk { leg: a, call_id: String::from("c"), to_tag, cseq: 2, flow };
    (talk, invite, invited.checkpoint.clone(), checkpoint)
}

/// Another process with both legs taken up.
pub(super) fn restarted(a: (LegId, &schema::leg::Checkpoint), b: &schema::leg::Checkpoint) -> Desk {
    let mut desk = Desk::with(config(), 77);
    desk.leg(LegCommand::Resume { leg: a.0, checkpoint: a.1.clone() });
    desk.leg(LegCommand::Resume { leg: LegId::b(a.0.call, 1), checkpoint: b.clone() });
    assert!(desk.take_sent().is_empty() && desk.take_legs().is_empty());
    desk
}

/// What a later program may have stored.
pub(super) fn of_another_version(checkpoint: &schema::leg::Checkpoint) -> schema::leg::Checkpoint {
    let state = checkpoint.state.expose().replacen("\"version\":1,", "\"version\":999,", 1);
    assert_ne!(*state, **checkpoint.state.expose());
    schema::leg::Checkpoint { state: Pii::new(state.into()) }
}

/// The carrier's BYE.
pub(super) fn bye_of_carrier(invite: &Message) -> String {
    let (from, to) = (invite.to().with_tag("x").expect("valid"), invite.from());
    format!(
        "BYE {} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5090;branch=z9hG4bKc\r\nMax-Forwards: 70\r\nFrom: {from}\r\nTo: {to}\r\nCall-ID: {}\r\nCSeq: 1 BYE\r\nContent-Length: 0\r\n\r\n",
        invite.contacts()[0].uri,
        invite.call_id(),
    )
}

/// Another request of the carrier in the dialog of our INVITE, with its session description.
pub(super) fn request_of_carrier(invite: &Message, method: &str, cseq: u32, body: &str) -> String {
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    bye_of_carrier(invite)
        .replace("BYE", method)
        .replace("CSeq: 1 ", &format!("CSeq: {cseq} "))
        .replace("z9hG4bKc", &format!("z9hG4bKc{method}{cseq}"))
        .replace(
            "Content-Length: 0\r\n\r\n",
            &format!("Contact: <sip:c@127.0.0.1:5090>\r\n{kind}Content-Length: {}\r\n\r\n{body}", body.len()),
        )
}

#[test]
fn after_a_restart_both_sides_may_hang_up_and_refresh() {
    let mut before = Desk::new();
    let (mut talk, invite, a, b) = connected(&mut before, udp());

    let mut desk = restarted((talk.leg, &a), &b);
    desk.in_dialog(&mut talk, "INVITE", "", OFFER);
    let ok = desk.last_sent();
    assert_eq!((ok.status(), ok.has_sdp()), (Some(200), true));
    let session = std::str::from_utf8(ok.body()).expect("text");
    assert!(session.contains("m=audio 9000") && !session.contains("o=carrier"), "{session}");
    let ack = desk.text("ACK", udp(), "c", &talk.to_tag.clone(), talk.cseq, "", "");
    desk.take(udp(), &ack);
    desk.take_sent();
    desk.in_dialog(&mut talk, "BYE", "", "");
    desk.leg(LegCommand::Settled { call: talk.leg.call });
    assert_eq!(desk.kinds(), ["200"]);
    let told = desk.take_legs();
    assert!(matches!(told[..], [LegEvent::Alive { .. }, LegEvent::Ended { cause: EndCause::Bye { .. }, .. }]));
    desk.leg(LegCommand::HangUp { leg: LegId::b(talk.leg.call, 1), cause: HangupCause::OtherLeg });
    let bye = desk.last_sent();
    assert_eq!((bye.method(), bye.cseq().0, bye.to_tag()), (&crate::message::Method::Bye, 1_002, Some("x")));
    assert!(desk.take_legs().is_empty(), "the carrier's leg may have ended before: its answer tells");
    desk.carrier(&bye, 200, "x", "");
    assert!(matches!(desk.take_legs()[..], [LegEvent::Ended { cause: EndCause::HungUp, .. }]));
    desk.assert_empty();

    let mut desk = restarted((talk.leg, &a), &b);
    desk.take(Flow::udp(CARRIER.into()), &bye_of_carrier(&invite));
    desk.leg(LegCommand::Settled { call: talk.leg.call });
    assert_eq!(desk.kinds(), ["200"]);
    desk.leg(LegCommand::HangUp { leg: talk.leg, cause: HangupCause::OtherLeg });
    let bye = desk.last_sent();
    assert_eq!((bye.cseq().0, bye.from_tag(), bye.to_tag()), (1_001, Some(&*talk.to_tag), Some("a")));
    assert_eq!(desk.sent.last().map(|(to, _)| *to), Some(PHONE.into()));
}

#[test]
fn after_a_restart_a_phone_is_found_by_its_new_connection() {
    let mut before = Desk::new();
    super::calls::register(&mut before, tls(1, 1));
    let (talk, _, a, b) = connected(&mut before, tls(1, 1));
    let mut desk = restarted((talk.leg, &a), &b);
    desk.leg(LegCommand::HangUp { leg: talk.leg, cause: HangupCause::Requested });
    assert!(desk.take_sent().is_empty(), "not yet connected");
    super::calls::register(&mut desk, tls(9, 1));
    assert_eq!(desk.kinds().last().map(String::as_str), Some("BYE"));
}

#[test]
fn a_checkpoint_of_another_version_ends_the_leg() {
    let mut desk = Desk::new();
    let (_, _, checkpoint, _) = connected(&mut Desk::new(), udp());
    let checkpoint = of_another_version(&checkpoint);
    desk.leg(LegCommand::Resume { leg: some_call(), checkpoint });
    assert!(matches!(desk.take_legs()[..], [LegEvent::Ended { cause: EndCause::Lost, .. }]));
    assert_eq!(desk.core.counts(), Counts::default());
}

#[test]
fn resuming_a_leg_that_is_there_changes_nothing() {
    let mut desk = Desk::new();
    let invited = desk.invited(udp(), "c");
    desk.leg(LegCommand::Resume { leg: invited.leg, checkpoint: invited.checkpoint.clone() });
    desk.take_sent();
    desk.leg(LegCommand::Reject { leg: invited.leg, status: 486, reason: None, retry_after_s: None });
    assert_eq!(desk.kinds(), ["486"]);
    desk.assert_empty();
}

#[test]
fn an_attempt_is_the_same_byte_for_byte_in_another_process() {
    let one = Desk::with(config(), 3).dial(some_call());
    let mut other = Desk::with(config(), 4);
    other.talk(udp(), "unrelated");
    let again = other.dial(some_call());
    let bytes =
        |message: &Message| message.contacts()[0].to_string() + std::str::from_utf8(message.body()).expect("text");
    assert_eq!(bytes(&one), bytes(&again));
    assert_eq!((one.branch(), one.call_id()), (again.branch(), again.call_id()));
}

/// All that a carrier is sent in a call of this A-leg, from its INVITE to its BYE.
fn seen_by_the_carrier(flow: Flow, call_id: &str, more: &str, offer: &str) -> Vec<String> {
    let mut desk = Desk::new();
    let first = desk.text("INVITE", flow, call_id, "", 1, more, offer);
    desk.take(flow, &first);
    let credentials = desk.credentials("INVITE");
    let second = desk.text("INVITE", flow, call_id, "", 2, &format!("{more}{credentials}"), offer);
    desk.take(flow, &second);
    let Some(LegEvent::Invited(invited)) = desk.take_legs().pop() else { panic!("not invited") };
    let (a, b) = (invited.leg, LegId::b(invited.leg.call, 1));
    desk.take_sent();
    desk.leg(LegCommand::Invite(Box::new(Invite { offer: invited.offer.clone(), ..outgoing(b) })));
    let invite = desk.last_sent();
    desk.carrier(&invite, 180, "x", "");
    desk.carrier(&invite, 200, "x", ANSWER);
    desk.leg(LegCommand::Confirm { leg: b, answer: None });
    desk.leg(LegCommand::Accept { leg: a, sdp: Some(Pii::new(ANSWER.into())) });
    let tag = desk.last_sent().to_tag().expect("a tag").to_owned();
    for (method, cseq) in [("ACK", 2), ("BYE", 3)] {
        let text = desk.text(method, flow, call_id, &tag, cseq, more, "");
        desk.take(flow, &text);
    }
    desk.leg(LegCommand::HangUp { leg: b, cause: HangupCause::OtherLeg });
    desk.sent.iter().filter(|(to, _)| *to == CARRIER.into()).map(|(_, text)| text.clone()).collect()
}

#[test]
fn p1_nothing_of_the_a_leg_but_its_media_reaches_the_carrier() {
    let canary = "+15550001111";
    let everything: String = [
        "P-Asserted-Identity",
        "P-Preferred-Identity",
        "Remote-Party-ID",
        "Diversion",
        "History-Info",
        "Referred-By",
        "P-Charge-Info",
        "Reply-To",
    ]
    .iter()
    .map(|name| format!("{name}: <sip:{canary}@a.example>\r\n"))
    .chain(
        ["User-Agent", "Subject", "Organization", "User-to-User", "X-Account", "P-Access-Network-Info", "Session-ID"]
            .iter()
            .map(|name| format!("{name}: {canary}\r\n")),
    )
    .collect();
    let talkative = format!(
        "v=0\r\no={canary} 77 78 IN IP4 10.9.8.7\r\ns={canary}\r\ni={canary}\r\ne=a@b.example\r\np={canary}\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\na=tool:{canary}\r\nm=audio 4000 RTP/AVP 0\r\na=label:{canary}\r\na=ssrc:1 cname:{canary}\r\na=candidate:1 1 UDP 1 alices-laptop.local 4000 typ host\r\na=candidate:2 1 UDP 1 192.168.1.77 4000 typ host\r\na=setup:{canary}\r\na=fingerprint:{canary}\r\na=ice-options:{canary}\r\na=crypto:1 S1 inline:k1\r\n"
    );
    let quiet = seen_by_the_carrier(udp(), "c", "", OFFER);
    let loud = seen_by_the_carrier(
        Flow::udp(SocketAddr::from(([127, 9, 9, 9], 5999))),
        "another-call-id",
        &everything,
        &talkative,
    );
    assert_eq!(quiet.len(), 3, "INVITE, ACK, BYE");
    assert_eq!(quiet, loud);
}

/// The carrier's trunk is told.
fn trust_carrier(desk: &mut Desk) {
    let trunk = TrunkId::generate(&mut Entropy::from_number(6), Timestamp(0));
    let gateway = Gateway { transport: GatewayTransport::Udp, address: CARRIER.into() }.into();
    desk.handle(Input::Edge(EdgeCommand::Trunks(vec![TrunkAddress {
        trunk,
        gateway,
        large_over_tcp: false,
        login: None,
    }])));
    desk.take_sent();
}

#[test]
fn shortly_after_an_answer_both_sides_are_told_again() {
    let mut before = Desk::new();
    let (talk, invite, a, b) = connected(&mut before, udp());
    let mut desk = restarted((talk.leg, &a), &b);
    desk.leg(LegCommand::Accept { leg: talk.leg, sdp: Some(Pii::new(ANSWER.into())) });
    let ok = desk.last_sent();
    assert_eq!((ok.status(), ok.cseq().0, ok.to_tag()), (Some(200), 2, Some(&*talk.to_tag)));
    let ack = desk.text("ACK", udp(), "c", &talk.to_tag, 2, "", "");
    desk.take(udp(), &ack);
    // A phone that has hung up acknowledges it too: it is asked.
    assert!(matches!(desk.take_legs()[..], [LegEvent::Confirmed { .. }]));
    desk.wait(Duration::ZERO);
    let options = desk.last_sent();
    assert_eq!(*options.method(), Method::Options);
    desk.phone(udp(), &options, 200);
    assert!(matches!(desk.take_legs()[..], [LegEvent::Alive { .. }]));
    desk.take_sent();
    // The carrier repeats its 200: it is acknowledged, not ended.
    trust_carrier(&mut desk);
    desk.carrier(&invite, 200, "x", ANSWER);
    assert_eq!(desk.kinds(), ["ACK"]);
    assert!(desk.take_legs().is_empty());
}

#[test]
fn a_caller_that_had_acknowledged_its_answer_is_asked_too() {
    let mut before = Desk::new();
    let (mut talk, _, _, b) = connected(&mut before, udp());
    before.in_dialog(&mut talk, "UPDATE", "Supported: timer\r\nSession-Expires: 600\r\n", "");
    let told = before.take_legs();
    let a = told.iter().find_map(|event| match event {
        LegEvent::Checkpointed { leg, checkpoint } if *leg == talk.leg => Some(checkpoint.clone()),
        _ => None,
    });
    let mut desk = restarted((talk.leg, &a.expect("its session changed")), &b);
    desk.leg(LegCommand::Accept { leg: talk.leg, sdp: Some(Pii::new(ANSWER.into())) });
    desk.wait(Duration::ZERO);
    assert_eq!(desk.kinds(), ["OPTIONS"]);
}

#[test]
fn where_nobody_is_asked_both_count_as_there() {
    let mut before = Desk::new();
    let (talk, _, a, b) = connected(&mut before, udp());
    let mut desk = Desk::with(CoreConfig { dialog_probe: Duration::ZERO, ..config() }, 77);
    let carrier = LegId::b(talk.leg.call, 1);
    desk.leg(LegCommand::Resume { leg: talk.leg, checkpoint: a });
    desk.leg(LegCommand::Resume { leg: carrier, checkpoint: b });
    for leg in [talk.leg, carrier] {
        desk.leg(LegCommand::Probe { leg });
        assert!(matches!(desk.take_legs()[..], [LegEvent::Unwatched { leg: told }] if told == leg));
        desk.leg(LegCommand::Probe { leg });
        assert!(desk.take_legs().is_empty() && desk.take_sent().is_empty());
    }
}

#[test]
fn a_bye_that_comes_before_its_dialog_is_resumed_waits_for_it() {
    let mut before = Desk::new();
    let (talk, invite, a, b) = connected(&mut before, udp());
    let mut desk = Desk::with(config(), 77);
    desk.core = desk.core.recovering();
    desk.take(Flow::udp(CARRIER.into()), &bye_of_carrier(&invite));
    assert!(desk.take_sent().is_empty());
    desk.leg(LegCommand::Resume { leg: talk.leg, checkpoint: a });
    desk.leg(LegCommand::Resume { leg: LegId::b(talk.leg.call, 1), checkpoint: b });
    desk.handle(Input::Edge(EdgeCommand::Recovered));
    desk.leg(LegCommand::Settled { call: talk.leg.call });
    assert_eq!(desk.kinds(), ["200"]);
    assert!(matches!(desk.take_legs()[..], [LegEvent::Ended { cause: EndCause::Bye { .. }, .. }]));
}

#[test]
fn a_fork_that_answers_before_its_dialog_is_resumed_is_ended_when_it_says_so_again() {
    let mut before = Desk::new();
    let (talk, invite, a, b) = connected(&mut before, udp());
    let mut desk = Desk::with(config(), 77);
    desk.core = desk.core.recovering();
    trust_carrier(&mut desk);
    desk.carrier(&invite, 200, "fork", ANSWER);
    assert!(desk.take_sent().is_empty(), "whose it is is not known yet");
    desk.leg(LegCommand::Resume { leg: talk.leg, checkpoint: a });
    desk.leg(LegCommand::Resume { leg: LegId::b(talk.leg.call, 1), checkpoint: b });
    desk.handle(Input::Edge(EdgeCommand::Recovered));
    desk.carrier(&invite, 200, "fork", ANSWER);
    assert_eq!(desk.kinds(), ["ACK", "BYE"]);
    assert!(desk.take_legs().is_empty());
}
