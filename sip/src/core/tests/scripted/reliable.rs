//! Reliable provisional responses (RFC 3262) and early UPDATEs (RFC 3311) on both legs.

use super::large::{large_offer, refuse_tcp, sent_over};
use super::restart::request_of_carrier;
use super::*;
use crate::message::{HeaderName, Method, Written};

/// A call that rings: the phone takes reliable responses, and so do we.
struct Ringing {
    desk: Desk,
    talk: Talk,
    a: LegId,
    b: LegId,
    /// The B-leg's INVITE.
    invite: Message,
    /// CSeq of the carrier's requests.
    cseq: u32,
}

const SUPPORTED: &str = "Supported: 100rel\r\nAllow: INVITE, ACK, BYE, CANCEL, PRACK, UPDATE\r\n";

fn sdp(text: &str) -> schema::leg::Sdp {
    Pii::new(text.into())
}

fn held(sdp: &str) -> String {
    format!("{sdp}a=sendonly\r\n")
}

fn body(message: &Message) -> &str {
    std::str::from_utf8(message.body()).expect("text")
}

impl Ringing {
    fn new(more: &str) -> Self {
        let mut desk = Desk::with(CoreConfig { dialog_probe: Duration::ZERO, ..config() }, 3);
        let first = desk.text("INVITE", udp(), "c", "", 1, more, OFFER);
        desk.take(udp(), &first);
        let credentials = format!("{more}{}", desk.credentials("INVITE"));
        let second = desk.text("INVITE", udp(), "c", "", 2, &credentials, OFFER);
        desk.take(udp(), &second);
        let Some(LegEvent::Invited(invited)) = desk.take_legs().pop() else { panic!("no INVITE") };
        let (a, b) = (invited.leg, LegId::b(invited.leg.call, 1));
        let invite = desk.dial(b);
        assert!(invite.supported().any(|tag| tag == "100rel"));
        desk.carrier(&invite, 100, "x", "");
        desk.take_sent();
        let talk = Talk { leg: a, call_id: "c".into(), to_tag: String::new(), cseq: 2, flow: udp() };
        Self { desk, talk, a, b, invite, cseq: 0 }
    }

    /// The caller is told a 18x; as it was sent, if it was.
    fn progress(&mut self, status: u16, text: Option<&str>) -> Option<Message> {
        self.desk.leg(LegCommand::Progress { leg: self.a, status, sdp: text.map(sdp) });
        let sent = self.desk.sent_to(PHONE.into()).pop()?;
        let sent = Message::parse_datagram(&Bytes::from(sent)).expect("readable");
        self.talk.to_tag = sent.to_tag().expect("a tag").to_owned();
        Some(sent)
    }

    fn accept(&mut self, text: &str) {
        self.desk.leg(LegCommand::Accept { leg: self.a, sdp: Some(sdp(text)) });
    }

    /// The phone's PRACK; what is answered.
    fn prack(&mut self, rack: &str, body: &str) -> Vec<String> {
        self.desk.take_sent();
        self.desk.in_dialog(&mut self.talk, "PRACK", &format!("RAck: {rack}\r\n"), body);
        self.desk.kinds()
    }

    fn prack_of(&mut self, response: &Message) -> Vec<String> {
        self.prack(&format!("{} 2 INVITE", response.rseq().expect("a number")), "")
    }

    /// The carrier's reliable 18x; what we send it.
    fn reliable(&mut self, status: u16, tag: &str, rseq: u32, body: &str) -> Vec<Message> {
        let contact = NameAddr::parse(&format!("<sip:{tag}@127.0.0.1:5090>")).expect("valid");
        let response = ResponseBuilder::to_request(&self.invite, status, Some(tag))
            .contact(&contact)
            .header(HeaderName::Require, &"100rel")
            .header(HeaderName::RSeq, &rseq)
            .header(HeaderName::Allow, &"INVITE, ACK, BYE, CANCEL, PRACK, UPDATE");
        let body = Bytes::from(body.to_owned());
        let response = if body.is_empty() { response } else { response.body("application/sdp", body) };
        let text = String::from_utf8(response.build().expect("complete").to_vec()).expect("text");
        self.desk.take_sent();
        self.desk.take(Flow::udp(CARRIER.into()), &text);
        let sent = self.desk.take_sent().into_iter();
        sent.map(|text| Message::parse_datagram(&Bytes::from(text)).expect("readable")).collect()
    }

    /// The phone answers a request of ours.
    fn phone_answers(&mut self, request: &Message, status: u16, text: &str) {
        let response =
            ResponseBuilder::to_request(request, status, None).body("application/sdp", text.to_owned().into());
        let text = response.build().expect("complete");
        self.desk.take(udp(), std::str::from_utf8(&text).expect("text"));
    }

    fn offer(&mut self, leg: LegId, text: &str) -> Message {
        self.desk.leg(LegCommand::Offer { leg, offer: sdp(text) });
        self.desk.last_sent()
    }

    fn ack(&mut self) {
        let Talk { call_id, to_tag, flow, .. } = self.talk.clone();
        let ack = self.desk.text("ACK", flow, &call_id, &to_tag, 2, "", "");
        self.desk.take(flow, &ack);
    }

    /// Both hang up, whatever they were doing, and nothing is left.
    fn end(mut self) {
        for leg in [self.a, self.b] {
            self.desk.leg(LegCommand::HangUp { leg, cause: HangupCause::Requested });
        }
        self.desk.leg(LegCommand::Settled { call: self.a.call });
        self.desk.assert_empty();
    }

    /// The carrier's request in its early dialog.
    fn carrier(&mut self, method: &str, body: &str) {
        self.cseq += 1;
        let text = request_of_carrier(&self.invite, method, self.cseq, body);
        self.desk.take_sent();
        self.desk.take(Flow::udp(CARRIER.into()), &text);
    }

    /// Both sides have an early session that was answered reliably.
    fn early() -> Self {
        let mut call = Self::new(SUPPORTED);
        let prack = call.reliable(183, "x", 5, ANSWER).pop().expect("a PRACK");
        call.desk.carrier(&prack, 200, "x", "");
        let session = call.progress(183, Some(ANSWER)).expect("sent");
        assert_eq!(call.prack_of(&session), ["200"]);
        call.desk.take_legs();
        call
    }
}

#[test]
fn a_caller_that_takes_them_gets_numbered_responses_one_by_one_until_each_is_acknowledged() {
    for more in ["Require: 100rel\r\n", SUPPORTED] {
        let mut call = Ringing::new(more);
        let first = call.progress(180, None).expect("sent");
        assert!(first.require().eq(["100rel"]) && first.allow().any(|method| method == "UPDATE"));
        let rseq = first.rseq().expect("a number");
        assert!((1..1 << 31).contains(&rseq));
        assert!(call.progress(183, Some(ANSWER)).is_none(), "one is outstanding at a time");
        call.desk.wait(Duration::from_millis(7_500));
        assert_eq!(call.desk.kinds(), ["180"; 4], "at 0.5, 1.5, 3.5 and 7.5 s");
        for (rack, status) in [
            (format!("{} 2 INVITE", rseq + 1), "481"),
            (format!("{rseq} 1 INVITE"), "481"),
            (format!("{rseq} 2 UPDATE"), "481"),
            (format!("{rseq} INVITE"), "400"),
        ] {
            assert_eq!(call.prack(&rack, ""), [status], "{rack}");
        }
        let rack = format!("{rseq} 2 INVITE");
        call.talk.cseq += 1;
        let prack = call.desk.text(
            "PRACK",
            udp(),
            "c",
            &call.talk.to_tag.clone(),
            call.talk.cseq,
            &format!("RAck: {rack}\r\n"),
            "",
        );
        call.desk.take(udp(), &prack);
        let second = call.desk.last_sent();
        assert_eq!((call.desk.kinds(), second.rseq()), (vec!["200".into(), "183".into()], Some(rseq + 1)));
        assert!(body(&second).contains("m=audio 9000"));
        call.desk.take(udp(), &prack);
        assert_eq!(call.desk.kinds(), ["200"], "repeated");
        assert_eq!(call.prack(&rack, ""), ["481"], "another one");
        assert_eq!(call.prack_of(&second), ["200"]);
        let third = call.progress(183, Some(ANSWER)).expect("sent");
        assert!(third.body().is_empty(), "the offer is answered once");
        assert_eq!(call.prack_of(&third), ["200"]);
        call.desk.wait(Duration::from_secs(40));
        assert!(call.desk.take_sent().is_empty());
        call.end();
    }
}

#[test]
fn a_200_waits_for_the_prack_of_a_session_description_and_for_no_other() {
    let mut call = Ringing::new(SUPPORTED);
    let session = call.progress(183, Some(ANSWER)).expect("sent");
    call.accept(ANSWER);
    assert!(call.desk.take_sent().is_empty());
    assert_eq!(call.prack_of(&session), ["200", "200"]);
    call.ack();
    assert!(matches!(call.desk.take_legs()[..], [LegEvent::Confirmed { answer: None, .. }, ..]));
    assert!(call.desk.take_sent().is_empty(), "the session is what it was told");
    call.end();

    let mut call = Ringing::new(SUPPORTED);
    let ringing = call.progress(180, None).expect("sent");
    assert!(call.progress(183, Some(ANSWER)).is_none());
    call.accept(ANSWER);
    let ok = call.desk.last_sent();
    assert_eq!((ok.status(), ok.has_sdp()), (Some(200), true), "the 183 with the answer never left");
    call.desk.take_sent();
    call.ack();
    assert_eq!(call.prack_of(&ringing), ["200"], "late");
    assert_eq!(call.prack_of(&ringing), ["481"]);
    call.desk.wait(Duration::from_secs(40));
    assert!(call.desk.take_sent().is_empty());
    call.end();
}

#[test]
fn a_caller_that_never_acknowledges_is_refused_after_32_seconds() {
    for is_answered in [false, true] {
        let mut call = Ringing::new(SUPPORTED);
        call.progress(183, Some(ANSWER)).expect("sent");
        if is_answered {
            call.accept(ANSWER);
        }
        call.desk.wait(Duration::from_millis(31_999));
        assert_eq!(call.desk.kinds(), ["183"; 6]);
        assert!(call.desk.take_legs().is_empty());
        call.desk.wait(Duration::from_millis(1));
        assert_eq!(call.desk.kinds()[0], "504");
        let told = call.desk.take_legs();
        assert!(matches!(told[..], [LegEvent::Ended { leg, cause: EndCause::NoPrack }] if leg == call.a), "{told:?}");
        call.end();
    }
}

#[test]
fn a_cancel_ends_what_is_repeated() {
    let mut call = Ringing::new(SUPPORTED);
    call.progress(183, Some(ANSWER)).expect("sent");
    call.desk.leg(LegCommand::HangUp { leg: call.a, cause: HangupCause::Cancelled });
    assert_eq!(call.desk.kinds(), ["487"]);
    call.desk.wait(Duration::from_secs(20));
    assert!(!call.desk.kinds().contains(&"183".to_owned()));
    call.end();
}

#[test]
fn without_an_offer_a_caller_that_requires_them_hears_the_answer_only() {
    let mut desk = Desk::new();
    let first = desk.text("INVITE", udp(), "c", "", 1, "Require: 100rel\r\n", "");
    desk.take(udp(), &first);
    let credentials = format!("Require: 100rel\r\n{}", desk.credentials("INVITE"));
    let second = desk.text("INVITE", udp(), "c", "", 2, &credentials, "");
    desk.take(udp(), &second);
    let Some(LegEvent::Invited(invited)) = desk.take_legs().pop() else { panic!("no INVITE") };
    let b = LegId::b(invited.leg.call, 1);
    desk.leg(LegCommand::Invite(Box::new(Invite { offer: None, ..outgoing(b) })));
    assert!(!desk.last_sent().supported().any(|tag| tag == "100rel"));
    desk.take_sent();
    desk.leg(LegCommand::Progress { leg: invited.leg, status: 180, sdp: None });
    assert!(desk.take_sent().is_empty(), "a first reliable response would need an offer");
    desk.leg(LegCommand::Accept { leg: invited.leg, sdp: Some(sdp(ANSWER)) });
    assert_eq!(desk.kinds(), ["200"]);
}

#[test]
fn a_carriers_reliable_responses_are_acknowledged_once_and_in_order_in_each_early_dialog() {
    let mut call = Ringing::new("");
    let acknowledged = |sent: &[Message]| -> Vec<(String, u32, String)> {
        let one = |prack: &Message| {
            assert_eq!(*prack.method(), Method::Prack);
            let uri = prack.request_uri().expect("a request").to_string();
            (uri, prack.cseq().0, prack.rack().expect("what it acknowledges").written())
        };
        sent.iter().map(one).collect()
    };
    let prack =
        |tag: &str, cseq: u32, rseq: u32| vec![(format!("sip:{tag}@127.0.0.1:5090"), cseq, format!("{rseq} 1 INVITE"))];
    let sent = call.reliable(183, "x", 5, ANSWER);
    assert_eq!(acknowledged(&sent), prack("x", 2, 5));
    assert_eq!(sent[0].to_tag(), Some("x"));
    assert!(matches!(call.desk.take_legs()[..], [LegEvent::Progress { status: 183, sdp: Some(_), .. }]));
    for (status, rseq) in [(183, 5), (180, 7), (180, 4)] {
        assert!(call.reliable(status, "x", rseq, "").is_empty(), "repeated, or out of order: {rseq}");
        assert!(call.desk.take_legs().is_empty());
    }
    assert_eq!(acknowledged(&call.reliable(180, "x", 6, ANSWER)), prack("x", 3, 6));
    assert!(matches!(call.desk.take_legs()[..], [LegEvent::Progress { status: 180, sdp: None, .. }]), "one answer");
    let sent = call.reliable(180, "y", 100, "");
    assert_eq!((acknowledged(&sent), sent[0].to_tag()), (prack("y", 4, 100), Some("y")));
    assert_eq!(acknowledged(&call.reliable(180, "x", 7, "")), prack("x", 5, 7), "the first goes on");
    for fork in 0..10 {
        let is_known = fork < crate::core::reliable::FORKS_MAX - 2;
        assert_eq!(call.reliable(180, &format!("f{fork}"), 1, "").len(), usize::from(is_known), "{fork}");
    }
    call.desk.take_legs();
    let other = ANSWER.replace("9000", "9002");
    call.desk.carrier(&call.invite, 200, "y", &other);
    let told = call.desk.take_legs();
    let [LegEvent::Answered { sdp: Some(answer), .. }] = &told[..] else { panic!("{told:?}") };
    assert!(answer.expose().contains("9002"), "of the fork that answered");
    call.desk.take_sent();
    call.desk.leg(LegCommand::Confirm { leg: call.b, answer: None });
    let ack = call.desk.last_sent();
    assert_eq!((ack.method(), ack.cseq().0, ack.to_tag()), (&Method::Ack, 1, Some("y")));
    call.desk.leg(LegCommand::HangUp { leg: call.b, cause: HangupCause::OtherLeg });
    let bye = call.desk.last_sent();
    assert!(bye.cseq().0 > 11 && bye.to_tag() == Some("y"), "behind its PRACKs");
    call.end();

    // A response that crosses our CANCEL is acknowledged, too.
    let mut call = Ringing::new("");
    call.desk.leg(LegCommand::HangUp { leg: call.b, cause: HangupCause::Cancelled });
    assert_eq!(call.desk.kinds(), ["CANCEL"]);
    assert_eq!(acknowledged(&call.reliable(183, "x", 1, ANSWER)), prack("x", 2, 1));
    assert!(call.desk.take_legs().is_empty());
    call.desk.carrier(&call.invite, 487, "x", "");
    call.end();
}

#[test]
fn an_answer_that_came_reliably_stands_and_another_forks_is_offered_after_the_ack() {
    for (tag, changed) in [("x", false), ("y", true)] {
        let mut call = Ringing::early();
        let other = ANSWER.replace("9000", "9002");
        call.desk.carrier(&call.invite, 200, tag, &other);
        let told = call.desk.take_legs();
        let [LegEvent::Answered { sdp: Some(answer), .. }] = &told[..] else { panic!("{told:?}") };
        assert_eq!(answer.expose().contains("9002"), changed);
        call.desk.leg(LegCommand::Confirm { leg: call.b, answer: None });
        call.desk.take_sent();
        call.accept(answer.expose().as_ref());
        assert!(call.desk.last_sent().body().is_empty());
        call.desk.take_sent();
        call.ack();
        let sent = call.desk.take_sent();
        assert_eq!(sent.iter().any(|text| text.starts_with("INVITE ") && text.contains("m=audio 9002")), changed);
        call.desk.take_legs();
        call.end();
    }
}

/// Without numbers a caller may keep the first answer that it hears.
#[test]
fn another_forks_answer_is_offered_after_the_ack_to_a_caller_that_heard_one_before() {
    let other = ANSWER.replace("9000", "9002");
    let same = ANSWER.replace("carrier 9 9", "carrier 9 10");
    let cases: [(&[&str], &str, bool); 6] = [
        (&[ANSWER], &other, true),
        (&[ANSWER, &other], &other, true),
        (&[ANSWER], ANSWER, false),
        (&[ANSWER], &same, false),
        (&[ANSWER, ANSWER], ANSWER, false),
        (&[], &other, false),
    ];
    for (early, answer, is_offered) in cases {
        let mut call = Ringing::new("");
        for (fork, early) in early.iter().enumerate() {
            call.desk.carrier(&call.invite, 183, &format!("x{fork}"), early);
            assert!(matches!(call.desk.take_legs()[..], [LegEvent::Progress { status: 183, sdp: Some(_), .. }]));
            assert!(call.progress(183, Some(early)).expect("sent").has_sdp());
        }
        call.desk.carrier(&call.invite, 200, "y", answer);
        call.desk.leg(LegCommand::Confirm { leg: call.b, answer: None });
        call.accept(answer);
        let ok = call.desk.last_sent();
        assert_eq!((ok.status(), ok.has_sdp()), (Some(200), true));
        call.talk.to_tag = ok.to_tag().expect("a tag").to_owned();
        call.desk.take_sent();
        call.desk.take_legs();
        call.ack();
        if is_offered {
            let offer = call.desk.last_sent();
            assert!(*offer.method() == Method::Invite && body(&offer).contains("m=audio 9002"));
            call.phone_answers(&offer, 200, OFFER);
            assert_eq!(call.desk.kinds(), ["INVITE", "ACK"]);
        }
        assert!(call.desk.take_sent().is_empty(), "{early:?} {answer}");
        call.end();
    }
    // One that waits for a PRACK was never heard.
    let mut call = Ringing::new(SUPPORTED);
    call.progress(180, None).expect("sent");
    assert!(call.progress(183, Some(ANSWER)).is_none());
    call.desk.carrier(&call.invite, 200, "y", &other);
    call.desk.leg(LegCommand::Confirm { leg: call.b, answer: None });
    call.accept(&other);
    call.desk.take_sent();
    call.ack();
    assert!(call.desk.take_sent().is_empty());
    call.end();
}

#[test]
fn early_updates_pass_from_leg_to_leg_and_their_answers_back() {
    let mut call = Ringing::early();
    // The phone's.
    call.desk.in_dialog(&mut call.talk, "UPDATE", "", &held(OFFER));
    assert!(matches!(&call.desk.take_legs()[..], [LegEvent::Offered { leg, .. }] if *leg == call.a));
    let update = call.offer(call.b, &held(OFFER));
    assert_eq!((update.method(), update.to_tag(), update.cseq().0), (&Method::Update, Some("x"), 3));
    assert_eq!(update.request_uri().map(ToString::to_string).as_deref(), Some("sip:x@127.0.0.1:5090"));
    assert!(body(&update).contains("a=sendonly") && !body(&update).contains("phone"));
    let answer = format!("{ANSWER}a=recvonly\r\n");
    call.desk.take_sent();
    call.desk.carrier(&update, 200, "x", &answer);
    assert!(call.desk.take_sent().is_empty(), "no ACK");
    assert!(matches!(call.desk.take_legs()[..], [LegEvent::OfferAnswered { answer: Ok(_), .. }]));
    call.desk.leg(LegCommand::AnswerOffer { leg: call.a, answer: Ok(sdp(&answer)) });
    let ok = call.desk.last_sent();
    assert_eq!((ok.status(), ok.method()), (Some(200), &Method::Update));
    assert!(body(&ok).contains("a=recvonly"));
    // The carrier's.
    let moved = ANSWER.replace("9000", "9004");
    call.carrier("UPDATE", &moved);
    assert!(matches!(&call.desk.take_legs()[..], [LegEvent::Offered { leg, .. }] if *leg == call.b));
    let update = call.offer(call.a, &moved);
    assert_eq!((update.method(), update.to_tag()), (&Method::Update, Some("a")));
    assert!(body(&update).contains("m=audio 9004"));
    call.phone_answers(&update, 200, OFFER);
    assert!(matches!(call.desk.take_legs()[..], [LegEvent::OfferAnswered { answer: Ok(_), .. }]));
    call.desk.leg(LegCommand::AnswerOffer { leg: call.b, answer: Ok(sdp(OFFER)) });
    assert_eq!((call.desk.last_sent().status(), call.desk.last_sent().has_sdp()), (Some(200), true));
    // The answer of the INVITE keeps what was agreed, and so does what is stored.
    call.desk.carrier(&call.invite, 200, "x", ANSWER);
    let told = call.desk.take_legs();
    let [LegEvent::Answered { sdp: Some(answer), checkpoint, .. }] = &told[..] else { panic!("{told:?}") };
    assert!(answer.expose().contains("9004") && checkpoint.state.expose().contains("9004"));
    call.desk.leg(LegCommand::Confirm { leg: call.b, answer: None });
    assert!(call.desk.take_legs().is_empty(), "that is stored already");
    call.accept(answer.expose().as_ref());
    call.ack();
    let told = call.desk.take_legs();
    let Some(LegEvent::Checkpointed { leg, checkpoint }) = told.last() else { panic!("{told:?}") };
    assert!(*leg == call.a && checkpoint.state.expose().contains("9004"), "what the caller was told before the answer");
    call.desk.take_sent();
    call.carrier("BYE", "");
    assert!(matches!(call.desk.take_legs().last(), Some(LegEvent::Ended { .. })), "its CSeq goes on");
    call.end();
}

#[test]
fn an_early_update_over_1300_bytes_goes_over_tcp_and_over_udp_when_that_is_refused() {
    let mut call = Ringing::early();
    call.desk.trunks(vec![TrunkAddress { large_over_tcp: true, ..trunk() }]);
    let large = call.offer(call.b, &large_offer());
    assert_eq!((large.method(), sent_over(&call.desk).as_str()), (&Method::Update, "TCP"));
    assert!(call.desk.sent.last().is_some_and(|(_, text)| text.len() > 1_300));
    call.desk.carrier(&large, 200, "x", ANSWER);
    assert!(matches!(call.desk.take_legs()[..], [LegEvent::OfferAnswered { answer: Ok(_), .. }]));
    let refused = call.offer(call.b, &large_offer());
    refuse_tcp(&mut call.desk);
    let again = call.desk.last_sent();
    assert_eq!((again.method(), sent_over(&call.desk).as_str()), (&Method::Update, "UDP"));
    assert_eq!(
        (again.cseq().0, again.body(), again.to_tag()),
        (refused.cseq().0 + 1, refused.body(), refused.to_tag())
    );
    assert_ne!(again.branch(), refused.branch());
    assert!(call.desk.take_legs().is_empty(), "nobody hears of it");
    call.desk.carrier(&again, 200, "x", ANSWER);
    assert!(matches!(call.desk.take_legs()[..], [LegEvent::OfferAnswered { answer: Ok(_), .. }]));
    // The phone's own flow is the only way to it.
    call.offer(call.a, &large_offer());
    assert_eq!(sent_over(&call.desk), "UDP");
    call.desk.trunks(Vec::new());
    call.end();
}

#[test]
fn an_offer_in_a_prack_is_answered_in_its_200() {
    let mut call = Ringing::new(SUPPORTED);
    let prack = call.reliable(183, "x", 5, ANSWER).pop().expect("a PRACK");
    call.desk.carrier(&prack, 200, "x", "");
    let session = call.progress(183, Some(ANSWER)).expect("sent");
    call.desk.take_legs();
    let rack = format!("{} 2 INVITE", session.rseq().expect("a number"));
    assert!(call.prack(&rack, &held(OFFER)).is_empty());
    assert!(matches!(&call.desk.take_legs()[..], [LegEvent::Offered { leg, .. }] if *leg == call.a));
    call.desk.leg(LegCommand::AnswerOffer { leg: call.a, answer: Ok(sdp(ANSWER)) });
    let ok = call.desk.last_sent();
    assert_eq!((ok.status(), ok.method(), ok.has_sdp()), (Some(200), &Method::Prack, true));
    call.desk.take_sent();
    call.desk.wait(Duration::from_secs(40));
    assert!(call.desk.take_sent().is_empty(), "the response is acknowledged");
    call.end();
}

#[test]
fn an_early_update_that_comes_too_soon_or_crosses_another_is_refused() {
    let mut call = Ringing::new(SUPPORTED);
    let ringing = call.progress(180, None).expect("sent");
    assert_eq!(call.prack_of(&ringing), ["200"]);
    assert_eq!(call.reliable(180, "x", 5, "").len(), 1);
    call.desk.take_legs();
    let status = |call: &mut Ringing| (call.desk.last_sent().status(), call.desk.last_sent().retry_after().is_some());
    // The INVITE's offer is not answered: theirs waits, ours is in the way.
    for method in ["UPDATE", "INVITE"] {
        call.desk.in_dialog(&mut call.talk, method, "", &held(OFFER));
        assert_eq!(status(&mut call), (Some(500), true), "{method}");
        call.carrier(method, ANSWER);
        assert_eq!(status(&mut call), (Some(491), false), "{method}");
    }
    // One without an offer refreshes its sender's target.
    call.desk.in_dialog(&mut call.talk, "UPDATE", "", "");
    assert_eq!(status(&mut call), (Some(200), false));
    call.carrier("UPDATE", "");
    assert_eq!(status(&mut call), (Some(200), false));
    for leg in [call.a, call.b] {
        call.desk.leg(LegCommand::Offer { leg, offer: sdp(OFFER) });
        assert!(matches!(call.desk.take_legs()[..], [LegEvent::OfferAnswered { answer: Err(491), .. }]));
    }
    call.end();

    let mut call = Ringing::early();
    call.desk.in_dialog(&mut call.talk, "UPDATE", "", &held(OFFER));
    call.desk.in_dialog(&mut call.talk, "UPDATE", "", &held(OFFER));
    assert_eq!(status(&mut call), (Some(500), true), "the first is not answered");
    let update = call.offer(call.b, &held(OFFER));
    call.carrier("UPDATE", &held(ANSWER));
    assert_eq!(status(&mut call), (Some(491), false), "ours crosses it");
    call.desk.take_legs();
    call.desk.carrier(&update, 491, "x", "");
    call.desk.take_sent();
    call.desk.wait(Duration::from_millis(4_100));
    let again = call.desk.last_sent();
    assert_eq!((again.method(), body(&again).contains("sendonly")), (&Method::Update, true), "tried again");
    call.desk.carrier(&again, 481, "x", "");
    assert!(matches!(call.desk.take_legs()[..], [LegEvent::OfferAnswered { answer: Err(481), .. }]));
    call.desk.leg(LegCommand::AnswerOffer { leg: call.a, answer: Err(481) });
    assert_eq!(status(&mut call), (Some(488), false), "the call rings on");
    call.end();

    // An UPDATE of ours does not overtake our PRACK.
    let mut call = Ringing::new(SUPPORTED);
    let prack = call.reliable(183, "x", 5, ANSWER).pop().expect("a PRACK");
    call.desk.take_legs();
    call.desk.leg(LegCommand::Offer { leg: call.b, offer: sdp(OFFER) });
    assert!(matches!(call.desk.take_legs()[..], [LegEvent::OfferAnswered { answer: Err(491), .. }]));
    call.desk.carrier(&prack, 200, "x", "");
    assert_eq!(*call.offer(call.b, OFFER).method(), Method::Update);
    call.end();

    // Of another fork nothing is passed on, nor is its dialog denied.
    let mut call = Ringing::early();
    call.reliable(180, "other", 1, "");
    let text = request_of_carrier(&call.invite, "UPDATE", 1, ANSWER).replace("tag=x", "tag=other");
    call.desk.take(Flow::udp(CARRIER.into()), &text);
    assert_eq!(status(&mut call), (Some(500), true));
    // What is under way when the call ends is answered, and what another fork's answer has overtaken is over.
    call.desk.in_dialog(&mut call.talk, "UPDATE", "", &held(OFFER));
    call.offer(call.b, &held(OFFER));
    call.desk.carrier(&call.invite, 200, "other", ANSWER);
    call.desk.take_sent();
    call.desk.leg(LegCommand::HangUp { leg: call.a, cause: HangupCause::OtherLeg });
    assert_eq!(call.desk.kinds(), ["487", "487"]);
    call.end();
}

/// Its tag is known to nobody here, but it is a dialog (RFC 3261 §12.1).
#[test]
fn an_early_dialog_of_a_response_that_is_not_reliable_is_not_denied() {
    let mut call = Ringing::new(SUPPORTED);
    call.desk.carrier(&call.invite, 180, "x", "");
    call.desk.take_legs();
    for (method, body, status) in [("UPDATE", "", "200"), ("UPDATE", ANSWER, "500"), ("INFO", "", "500")] {
        call.carrier(method, body);
        let answer = call.desk.last_sent();
        assert_eq!(call.desk.kinds(), [status], "{method} {body}");
        assert_eq!((answer.retry_after().is_some(), answer.contact().is_some()), (status == "500", status == "200"));
    }
    assert!(call.desk.take_legs().is_empty());
    // The dialog that the answer makes begins with whatever CSeq comes first.
    call.desk.carrier(&call.invite, 200, "x", ANSWER);
    call.desk.leg(LegCommand::Confirm { leg: call.b, answer: None });
    call.carrier("UPDATE", "");
    assert_eq!(call.desk.kinds(), ["200"]);
    let text = request_of_carrier(&call.invite, "INFO", 9, "").replace("tag=x", "tag=other");
    call.desk.take(Flow::udp(CARRIER.into()), &text);
    assert_eq!(call.desk.kinds(), ["481"], "of a fork that nobody took");
    call.end();
}

/// The carrier knows us by our credentials only, and asks for each kind of request anew.
#[test]
fn early_requests_are_answered_for_by_digest_too() {
    const ASKS: &str = "Digest realm=\"carrier.example\", nonce=\"n1\", qop=\"auth\", algorithm=SHA-256";
    const PROXY: HeaderName = HeaderName::ProxyAuthorization;
    let nonce = |number: u8| ASKS.replace("n1", &format!("n{number}")).replace("SHA-256", "SHA-256, stale=true");
    let mut call = Ringing::new(SUPPORTED);
    call.desk.trunks(vec![with_login(None, None)]);
    call.desk.challenge(&call.invite, 407, &[ASKS]);
    call.invite = call.desk.last_sent();
    let prack = call.reliable(183, "x", 1, ANSWER).pop().expect("a PRACK");
    assert!(is_right(&prack, PROXY, "carrier-secret"), "without being asked again");
    call.desk.challenge(&prack, 407, &[&nonce(2)]);
    let again = call.desk.last_sent();
    let rack = |message: &Message| message.text(HeaderName::RAck).map(str::to_owned);
    assert_eq!((again.method(), again.cseq().0, rack(&again)), (&Method::Prack, prack.cseq().0 + 1, rack(&prack)));
    assert_eq!(rack(&again), Some(format!("1 {} INVITE", call.invite.cseq().0)));
    assert!(is_right(&again, PROXY, "carrier-secret"));
    // No offer overtakes it.
    call.desk.take_legs();
    call.desk.leg(LegCommand::Offer { leg: call.b, offer: sdp(&held(OFFER)) });
    assert!(matches!(call.desk.take_legs()[..], [LegEvent::OfferAnswered { answer: Err(491), .. }]));
    call.desk.carrier(&again, 200, "x", "");
    let update = call.offer(call.b, &held(OFFER));
    assert_eq!(*update.method(), Method::Update);
    call.desk.challenge(&update, 407, &[&nonce(3)]);
    let again = call.desk.last_sent();
    assert_eq!((again.method(), again.cseq().0, again.body()), (&Method::Update, update.cseq().0 + 1, update.body()));
    assert!(is_right(&again, PROXY, "carrier-secret") && call.desk.take_legs().is_empty());
    call.desk.carrier(&again, 200, "x", &held(ANSWER));
    assert!(matches!(call.desk.take_legs()[..], [LegEvent::OfferAnswered { answer: Ok(_), .. }]));
}
