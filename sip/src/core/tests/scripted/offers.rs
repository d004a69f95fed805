//! Changes of a session: hold and codecs pass from leg to leg, and what happens when they cross, are refused or meet silence.

use super::restart::{connected, request_of_carrier, restarted};
use super::*;
use crate::message::Method;

/// A call that is up on both sides.
struct Call {
    desk: Desk,
    talk: Talk,
    a: LegId,
    b: LegId,
    /// The B-leg's INVITE.
    invite: Message,
    /// CSeq of the carrier's requests.
    cseq: u32,
}

fn held(sdp: &str) -> String {
    format!("{}a=sendonly\r\n", sdp.replace(" 1 1 IN", " 1 2 IN"))
}

fn sdp(text: &str) -> schema::leg::Sdp {
    Pii::new(text.into())
}

fn is_offered(legs: &[LegEvent], id: LegId) -> bool {
    matches!(legs, [LegEvent::Offered { leg, .. }] if *leg == id)
}

fn body(message: &Message) -> &str {
    std::str::from_utf8(message.body()).expect("text")
}

impl Call {
    fn new() -> Self {
        Self::over(udp(), GatewayTransport::Udp)
    }

    fn over(flow: Flow, carrier: GatewayTransport) -> Self {
        let mut desk = Desk::with(CoreConfig { dialog_probe: Duration::ZERO, ..config() }, 3);
        desk.carrier = carrier;
        let (talk, invite, ..) = connected(&mut desk, flow);
        let (a, b) = (talk.leg, LegId::b(talk.leg.call, 1));
        Self { desk, talk, a, b, invite, cseq: 0 }
    }

    /// What the phone sends.
    fn phone(&mut self, method: &str, body: &str) {
        self.desk.in_dialog(&mut self.talk, method, "", body);
    }

    /// What the carrier sends.
    fn carrier(&mut self, method: &str, body: &str) {
        if method != "ACK" {
            self.cseq += 1;
        }
        let text = request_of_carrier(&self.invite, method, self.cseq, body);
        self.desk.take(self.desk.of_carrier(), &text);
    }

    /// The phone's ACK of what it sent last.
    fn ack(&mut self, body: &str) {
        let Talk { call_id, to_tag, cseq, flow, .. } = self.talk.clone();
        let ack = self.desk.text("ACK", flow, &call_id, &to_tag, cseq, "", body);
        self.desk.take(flow, &ack);
    }

    /// The phone takes back the re-INVITE that it sent last.
    fn cancel(&mut self) {
        let of_invite = format!("z9hG4bKp{}", self.desk.serial);
        let Talk { call_id, to_tag, cseq, flow, .. } = self.talk.clone();
        let cancel = self.desk.text("CANCEL", flow, &call_id, &to_tag, cseq, "", "");
        let own = format!("z9hG4bKp{}", self.desk.serial);
        self.desk.take(flow, &cancel.replace(&own, &of_invite));
    }

    /// The B-leg is offered this; our re-INVITE.
    fn offer_b(&mut self, text: &str) -> Message {
        self.desk.leg(LegCommand::Offer { leg: self.b, offer: sdp(text) });
        self.desk.last_sent()
    }

    fn answer_a(&mut self, answer: Result<&str, u16>) {
        self.desk.leg(LegCommand::AnswerOffer { leg: self.a, answer: answer.map(sdp) });
    }

    /// The hang-up of both sides, after which nothing is left.
    fn end(mut self) {
        self.phone("BYE", "");
        self.desk.leg(LegCommand::Settled { call: self.a.call });
        self.desk.leg(LegCommand::HangUp { leg: self.b, cause: HangupCause::OtherLeg });
        self.desk.assert_empty();
    }
}

#[test]
fn a_hold_passes_from_leg_to_leg_and_its_answer_back() {
    for method in ["INVITE", "UPDATE"] {
        let mut call = Call::new();
        let first = body(&call.invite).to_owned();
        call.phone(method, &held(OFFER));
        let expected: &[&str] = if method == "INVITE" { &["100"] } else { &[] };
        assert_eq!(call.desk.kinds(), expected);
        assert!(is_offered(&call.desk.take_legs(), call.a));
        let offer = call.offer_b(&held(OFFER));
        assert_eq!((offer.method(), offer.to_tag(), offer.cseq().0), (&Method::Invite, Some("x"), 2));
        assert!(body(&offer).contains("a=sendonly") && !body(&offer).contains("phone"), "{}", body(&offer));
        let origin = |text: &str| text.lines().find(|line| line.starts_with("o=")).map(str::to_owned);
        assert_eq!(origin(body(&offer)), origin(&first).map(|line| line.replace(" 1 IN", " 2 IN")), "a newer version");
        call.desk.take_sent();
        let answer = format!("{ANSWER}a=recvonly\r\n");
        call.desk.carrier(&offer, 200, "x", &answer);
        assert_eq!(call.desk.kinds(), ["ACK"]);
        let told = call.desk.take_legs();
        let [LegEvent::OfferAnswered { leg, answer: Ok(_) }, LegEvent::Checkpointed { checkpoint, .. }] = &told[..]
        else {
            panic!("{told:?}")
        };
        assert_eq!(*leg, call.b);
        assert!(checkpoint.state.expose().contains("recvonly"));
        call.answer_a(Ok(&answer));
        let ok = call.desk.last_sent();
        assert_eq!((ok.status(), ok.method().as_str()), (Some(200), method));
        assert!(body(&ok).contains("a=recvonly") && !body(&ok).contains("o=carrier"));
        assert!(matches!(&call.desk.take_legs()[..], [LegEvent::Checkpointed { leg, .. }] if *leg == call.a));
        call.desk.take_sent();
        // Repetitions: of our 200 until its ACK, of their 200 until ours.
        call.desk.wait(Duration::from_millis(500));
        assert_eq!(call.desk.kinds(), if method == "INVITE" { vec!["200"] } else { vec![] });
        call.desk.carrier(&offer, 200, "x", &answer);
        assert_eq!(call.desk.kinds(), ["ACK"]);
        call.ack("");
        // The same again changes nothing: it is answered here.
        call.phone(method, &held(OFFER));
        assert_eq!(call.desk.kinds(), ["200"]);
        call.ack("");
        assert!(call.desk.take_legs().is_empty());
        call.end();
    }
}

#[test]
fn the_carrier_may_change_the_session_too() {
    let mut call = Call::new();
    call.carrier("INVITE", &held(ANSWER));
    assert!(is_offered(&call.desk.take_legs(), call.b));
    call.desk.leg(LegCommand::Offer { leg: call.a, offer: sdp(&held(ANSWER)) });
    let offer = call.desk.last_sent();
    assert_eq!((offer.to_tag(), offer.cseq().0), (Some("a"), 1));
    let response = crate::message::ResponseBuilder::to_request(&offer, 200, None)
        .contact(&NameAddr::parse("<sip:demo@127.0.0.1:5100>").expect("valid"))
        .body("application/sdp", Bytes::from(format!("{OFFER}a=recvonly\r\n")));
    let text = String::from_utf8(response.build().expect("complete").to_vec()).expect("text");
    call.desk.take(udp(), &text);
    assert!(matches!(
        call.desk.take_legs()[..],
        [LegEvent::OfferAnswered { answer: Ok(_), .. }, LegEvent::Checkpointed { .. }]
    ));
    call.desk.leg(LegCommand::AnswerOffer { leg: call.b, answer: Ok(sdp(&format!("{OFFER}a=recvonly\r\n"))) });
    assert!(body(&call.desk.last_sent()).contains("a=recvonly"));
    call.carrier("ACK", "");
    call.end();
}

#[test]
fn a_refusal_keeps_the_session_and_tells_its_class_only() {
    for (status, told) in [(488, 488), (415, 488), (486, 488), (500, 500), (603, 606), (504, 504), (487, 504)] {
        let mut call = Call::new();
        call.phone("INVITE", &held(OFFER));
        let offer = call.offer_b(&held(OFFER));
        call.desk.take_legs();
        call.desk.take_sent();
        call.desk.carrier(&offer, status, "x", "");
        assert_eq!(call.desk.kinds(), ["ACK"]);
        let legs = call.desk.take_legs();
        assert!(matches!(legs[..], [LegEvent::OfferAnswered { answer: Err(s), .. }] if s == status), "{legs:?}");
        call.answer_a(Err(status));
        assert_eq!(call.desk.kinds(), [told.to_string()]);
        // What stood before still stands, and is refreshed.
        call.phone("UPDATE", OFFER);
        assert_eq!(call.desk.kinds(), ["200"]);
        assert!(call.desk.take_legs().is_empty());
        call.end();
    }
}

#[test]
fn offers_that_cross_are_refused_by_491_and_ours_is_tried_again() {
    let mut call = Call::new();
    let offer = call.offer_b(&held(OFFER));
    call.desk.take_sent();
    call.carrier("INVITE", &held(ANSWER));
    assert_eq!(call.desk.kinds(), ["491"]);
    call.carrier("UPDATE", &held(ANSWER));
    assert_eq!(call.desk.kinds(), ["491"]);
    call.desk.carrier(&offer, 491, "x", "");
    assert_eq!(call.desk.kinds(), ["ACK"]);
    assert!(call.desk.take_legs().is_empty(), "not refused for good");
    call.desk.wait(Duration::from_millis(2_099));
    assert!(!call.desk.kinds().contains(&"INVITE".to_owned()), "whoever made the Call-ID waits longer");
    call.desk.wait(Duration::from_millis(1_901));
    let again = call.desk.last_sent();
    assert_eq!((again.method(), again.cseq().0, again.body()), (&Method::Invite, 3, offer.body()));
    call.desk.carrier(&again, 200, "x", ANSWER);
    assert!(matches!(call.desk.take_legs()[..], [LegEvent::OfferAnswered { answer: Ok(_), .. }, _]));
    call.end();
}

#[test]
fn two_offers_of_one_side_or_of_both_wait_for_each_other() {
    let mut call = Call::new();
    call.phone("INVITE", &held(OFFER));
    call.desk.take_legs();
    call.desk.take_sent();
    call.phone("UPDATE", &held(OFFER));
    let later = call.desk.take_sent();
    assert!(later[0].starts_with("SIP/2.0 500") && later[0].contains("\r\nRetry-After: "));
    // The other side's offer meets ours on its way.
    call.desk.leg(LegCommand::Offer { leg: call.a, offer: sdp(&held(ANSWER)) });
    assert!(matches!(call.desk.take_legs()[..], [LegEvent::OfferAnswered { answer: Err(491), .. }]));
    call.answer_a(Err(491));
    assert_eq!(call.desk.kinds(), ["491"]);
    call.end();
}

#[test]
fn silence_of_the_other_side_is_a_504_and_a_late_answer_is_taken_back() {
    let mut call = Call::new();
    call.phone("UPDATE", &held(OFFER));
    let offer = call.offer_b(&held(OFFER));
    call.desk.carrier(&offer, 180, "x", "");
    call.desk.take_legs();
    call.desk.take_sent();
    call.desk.wait(Duration::from_secs(20));
    assert!(matches!(call.desk.take_legs()[..], [LegEvent::OfferAnswered { answer: Err(504), .. }]));
    assert_eq!(call.desk.kinds()[..2], ["100", "CANCEL"], "the UPDATE is told that it waits");
    call.answer_a(Err(504));
    assert_eq!(call.desk.kinds(), ["504"]);
    call.desk.carrier(&offer, 200, "x", ANSWER);
    let back = call.desk.last_sent();
    assert_eq!(*back.method(), Method::Invite);
    assert!(!body(&back).contains("sendonly"), "what the phone has");
    call.desk.carrier(&back, 200, "x", ANSWER);
    let told = call.desk.take_legs();
    assert!(told.iter().all(|event| matches!(event, LegEvent::Checkpointed { .. })), "{told:?}");
    call.end();
}

#[test]
fn an_offer_about_which_nobody_says_anything_is_answered_in_time() {
    let mut call = Call::new();
    call.phone("INVITE", &held(OFFER));
    call.desk.take_sent();
    call.desk.wait(Duration::from_secs(25));
    assert_eq!(call.desk.kinds()[0], "504");
    call.answer_a(Ok(ANSWER));
    let back = call.desk.last_sent();
    assert!(!call.desk.kinds().contains(&"200".to_owned()), "too late");
    call.desk.carrier(&back, 200, "x", ANSWER);
    // No answer at all: the re-INVITE ends by itself.
    let _ = call.offer_b(&held(OFFER));
    call.desk.take_legs();
    call.desk.wait(Duration::from_secs(33));
    assert!(matches!(call.desk.take_legs()[..], [LegEvent::OfferAnswered { answer: Err(504), .. }]));
    assert!(call.desk.core.legs.get(&call.b).expect("the leg").change.is_none());
    call.end();
}

#[test]
fn a_bye_that_crosses_an_offer_ends_both() {
    for (method, answers) in [("INVITE", true), ("UPDATE", false)] {
        let mut call = Call::new();
        call.phone(method, &held(OFFER));
        let offer = call.offer_b(&held(OFFER));
        call.desk.carrier(&offer, 100, "x", "");
        call.desk.take_legs();
        call.desk.take_sent();
        call.phone("BYE", "");
        call.desk.leg(LegCommand::Settled { call: call.a.call });
        assert_eq!(call.desk.kinds(), ["487", "200"]);
        assert!(matches!(call.desk.take_legs()[..], [LegEvent::Ended { cause: EndCause::Bye { .. }, .. }]));
        call.desk.leg(LegCommand::HangUp { leg: call.b, cause: HangupCause::OtherLeg });
        assert_eq!(call.desk.kinds(), ["BYE"]);
        if answers {
            call.desk.carrier(&offer, 200, "x", ANSWER);
            assert_eq!(call.desk.kinds(), ["ACK", "BYE"]);
        }
        // A carrier that rings for ever leaves nothing behind either.
        call.desk.assert_empty();
    }
}

#[test]
fn a_dialog_that_the_far_end_does_not_know_any_more_ends_the_leg() {
    for (status, expected) in [(481, &["ACK"][..]), (408, &["ACK", "BYE"])] {
        let mut call = Call::new();
        let offer = call.offer_b(&held(OFFER));
        call.desk.take_sent();
        call.desk.carrier(&offer, status, "x", "");
        assert_eq!(call.desk.kinds(), expected);
        assert!(matches!(call.desk.take_legs()[..], [LegEvent::Ended { leg, cause: EndCause::Lost }] if leg == call.b));
        call.end();
    }
}

#[test]
fn a_reinvite_without_an_offer_gets_ours_and_its_answer_passes_on() {
    let mut call = Call::new();
    call.phone("INVITE", "");
    let ok = call.desk.last_sent();
    assert_eq!((ok.status(), body(&ok).contains("m=audio 9000")), (Some(200), true));
    call.ack(OFFER);
    assert!(call.desk.take_legs().is_empty(), "nothing is new");
    call.phone("INVITE", "");
    call.ack(&held(OFFER));
    assert!(matches!(call.desk.take_legs()[..], [LegEvent::Offered { .. }, LegEvent::Checkpointed { .. }]));
    call.answer_a(Ok(ANSWER));
    call.end();
}

/// Nothing of it would pass: the audio would be gone and the call go on (RFC 3261 §14.2).
#[test]
fn a_fax_alone_is_refused_on_both_legs_and_the_call_goes_on() {
    let fax = OFFER.replace(" 1 1 IN", " 1 2 IN").replace("audio 4000 RTP/AVP 0", "image 4002 udptl t38");
    let instead = format!("{}m=image 4002 udptl t38\r\n", OFFER.replace("audio 4000", "audio 0"));
    let mut call = Call::new();
    for method in ["INVITE", "UPDATE"] {
        for offer in [&fax, &instead] {
            call.phone(method, offer);
            call.carrier(method, offer);
            assert_eq!(call.desk.kinds(), ["488", "488"], "{method} {offer}");
            assert!(call.desk.take_legs().is_empty());
        }
    }
    // What stood before stands, and beside the audio a fax goes on as rejected; off by itself everything may be.
    call.phone("UPDATE", OFFER);
    assert_eq!(call.desk.kinds(), ["200"]);
    for offer in [format!("{OFFER}m=image 4002 udptl t38\r\n"), OFFER.replace("audio 4000", "audio 0")] {
        call.phone("UPDATE", &offer);
        assert!(is_offered(&call.desk.take_legs(), call.a), "{offer}");
        call.answer_a(Err(488));
    }
    call.end();
}

/// RFC 3264 §6, RFC 4568 §5.1.2, RFC 5763 §5: whoever had answered is not answered with our offer.
#[test]
fn a_refresh_of_the_side_that_had_answered_is_answered() {
    const KEYS: [&str; 2] =
        ["a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:k1", "a=crypto:2 AES_CM_128_HMAC_SHA1_32 inline:k2"];
    let [first, second] = KEYS;
    let offer = held(OFFER).replace("a=sendonly\r\n", "").replace("RTP/AVP", "RTP/SAVP");
    let offer = format!("{offer}{first}\r\n{second}\r\na=setup:actpass\r\nm=video 4002 RTP/AVP 31\r\n");
    let answer = ANSWER.replace("RTP/AVP", "RTP/SAVP");
    let theirs = second.replace("k2", "k9");
    let answer = format!("{answer}{theirs}\r\na=setup:passive\r\nm=video 0 RTP/AVP 31\r\na=inactive\r\n");
    let mut call = Call::over(tls(1, 1), GatewayTransport::Tls);
    call.phone("INVITE", &offer);
    let ours = call.offer_b(&offer);
    assert!(body(&ours).contains("m=video 4002") && body(&ours).contains(first) && body(&ours).contains("actpass"));
    call.desk.carrier(&ours, 200, "x", &answer);
    call.answer_a(Ok(&answer));
    let to_phone = call.desk.last_sent();
    call.ack("");
    call.desk.take_legs();
    let version = |message: &Message| body(message).split(' ').nth(2).and_then(|text| text.parse::<u64>().ok());
    call.carrier("UPDATE", &answer);
    let ok = call.desk.last_sent();
    assert_eq!((ok.status(), version(&ok)), (Some(200), version(&ours).map(|version| version + 1)));
    assert!(body(&ok).contains("m=video 0 ") && body(&ok).contains("m=audio 4000 "), "{}", body(&ok));
    assert!(!body(&ok).contains(first) && body(&ok).contains(second) && body(&ok).contains("a=setup:active"));
    let told = call.desk.take_legs();
    assert!(matches!(&told[..], [LegEvent::Checkpointed { leg, .. }] if *leg == call.b), "{told:?}");
    // From now on it is the same each time, and so it is for the side that had offered.
    call.carrier("UPDATE", &answer);
    assert_eq!(call.desk.last_sent().body(), ok.body());
    call.phone("UPDATE", &offer);
    assert_eq!(call.desk.last_sent().body(), to_phone.body());
    assert!(call.desk.take_legs().is_empty());
    call.end();
}

/// RFC 4568 §7: whoever reads the signalling would listen. In what protects it they pass, and so does what needs none.
#[test]
fn keys_of_media_leave_over_tls_alone_and_only_when_the_whole_call_is_over_it() {
    const KEY: &str = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:k1\r\n";
    const PRINT: &str = "a=fingerprint:sha-256 AB:CD\r\na=setup:actpass\r\n";
    let (must, may) = (format!("{OFFER}{KEY}").replace("RTP/AVP", "RTP/SAVP"), format!("{OFFER}{KEY}"));
    let dtls = format!("{OFFER}{PRINT}{KEY}").replace("RTP/AVP", "UDP/TLS/RTP/SAVP");
    let either = format!("{must}m=audio 4002 RTP/AVP 0\r\n");
    use GatewayTransport::{Tcp, Tls, Udp};
    for (flow, carrier, is_protected) in [
        (udp(), Udp, false),
        (udp(), Tls, false),
        (tls(1, 1), Udp, false),
        (tls(1, 1), Tcp, false),
        (tls(1, 1), Tls, true),
    ] {
        // In a call: each way, by INVITE and UPDATE, and in answers.
        let mut call = Call::over(flow, carrier);
        for (offer, passes) in [(&may, true), (&dtls, true), (&either, true), (&must, is_protected)] {
            let ours = call.offer_b(offer);
            if passes {
                assert_eq!(body(&ours).contains("inline:k1"), is_protected, "{flow:?} {carrier:?} {}", body(&ours));
                assert!(!body(&ours).contains("m=audio 0 ") || (!is_protected && offer == &either));
                assert_eq!(body(&ours).contains("fingerprint"), offer == &dtls);
                call.desk.carrier(&ours, 200, "x", ANSWER);
                call.desk.take_legs();
            } else {
                let told = call.desk.take_legs();
                assert!(matches!(told[..], [LegEvent::OfferAnswered { answer: Err(488), .. }]), "{told:?}");
            }
            call.phone("UPDATE", &format!("{OFFER}a=ptime:{}\r\n", 20 + offer.len() % 7));
            call.answer_a(Ok(offer));
            let answer = call.desk.last_sent();
            assert_eq!((answer.status(), body(&answer).contains("inline:k1")), (Some(200), is_protected));
            call.desk.take_legs();
        }
        // In its first INVITE, and when that is repeated after a crash.
        for offer in [&may, &must] {
            let mut desk = Desk::new();
            desk.carrier = carrier;
            let first = desk.text("INVITE", flow, "c", "", 1, "", offer);
            desk.take(flow, &first);
            let credentials = desk.credentials("INVITE");
            let second = desk.text("INVITE", flow, "c", "", 2, &credentials, offer);
            desk.take(flow, &second);
            let Some(LegEvent::Invited(invited)) = desk.take_legs().pop() else {
                let refused = desk.last_sent();
                let words = Some("SIP;cause=488;text=\"keys of media (SDES) need TLS\"");
                assert_eq!((refused.status(), refused.text(HeaderName::Reason)), (Some(488), words));
                assert!(flow == udp() && offer == &must);
                continue;
            };
            assert_eq!(invited.needs_tls, offer == &must);
            desk.take_sent();
            let b = LegId::b(invited.leg.call, 1);
            desk.dial_with(b, offer);
            let sent = desk.sent_to(CARRIER.into());
            assert_eq!(sent.len(), usize::from(is_protected || offer == &may), "{flow:?} {carrier:?}");
            let Some(invite) = sent.first() else {
                let told = desk.take_legs();
                assert!(matches!(told[..], [LegEvent::Failed { status: 488, rang: false, .. }]), "{told:?}");
                continue;
            };
            assert_eq!(invite.contains("inline:k1"), is_protected);
            // An answer of which no stream passes would leave silence that costs.
            let sent_invite = Message::parse_datagram(&Bytes::from(invite.clone())).expect("readable");
            desk.carrier(&sent_invite, 200, "x", &must);
            match &desk.take_legs()[..] {
                [LegEvent::Answered { .. }] => assert!(is_protected),
                [LegEvent::Failed { status: 502, answered: true, .. }] => assert!(!is_protected),
                told => panic!("{told:?}"),
            }
            let mut after = Desk::with(config(), 77);
            let (leg, checkpoint) = (invited.leg, invited.checkpoint.clone());
            let again = Invite { gateway: Gateway { transport: carrier, ..gateway() }, offer: None, ..outgoing(b) };
            let call = schema::leg::TakeBack { leg, checkpoint, invite: Some(Box::new(again)), retry_after_s: 7 };
            after.leg(LegCommand::TakeBack(Box::new(call)));
            assert_eq!(after.sent_to(CARRIER.into()), std::slice::from_ref(invite), "the same to the last byte");
        }
    }
}

#[test]
fn what_the_other_side_refuses_of_an_answer_in_an_ack_is_taken_back() {
    let mut call = Call::new();
    let moved = ANSWER.replace("9000", "9002");
    call.carrier("INVITE", "");
    call.carrier("ACK", &moved);
    assert!(is_offered(&call.desk.take_legs()[..1], call.b));
    call.desk.take_sent();
    call.desk.leg(LegCommand::AnswerOffer { leg: call.b, answer: Err(488) });
    let back = call.desk.last_sent();
    assert_eq!((call.desk.kinds(), body(&back).contains("m=audio 4000")), (vec!["INVITE".to_owned()], true));
    call.desk.carrier(&back, 200, "x", ANSWER);
    assert!(is_offered(&call.desk.take_legs()[..1], call.b), "it is where it was");
    // Whatever it says then, it is asked once.
    call.desk.leg(LegCommand::AnswerOffer { leg: call.b, answer: Ok(sdp(OFFER)) });
    call.desk.take_sent();
    // More changes than are passed on are taken back, too, and a later refresh tells what is new.
    call.desk.wait(Duration::from_secs(10));
    call.desk.take_sent();
    for port in 0..11 {
        call.carrier("INVITE", "");
        assert_eq!(call.desk.kinds(), ["200"]);
        call.carrier("ACK", &ANSWER.replace("9000", &format!("91{port:02}")));
    }
    let back = call.desk.last_sent();
    assert!(*back.method() == Method::Invite && back.is_request());
    call.desk.take_legs();
    let last = ANSWER.replace("9000", "9110");
    call.desk.carrier(&back, 200, "x", &last);
    assert!(!call.desk.take_legs().iter().any(|event| matches!(event, LegEvent::Offered { .. })), "too many");
    call.desk.wait(Duration::from_secs(10));
    call.carrier("UPDATE", &last);
    assert!(is_offered(&call.desk.take_legs(), call.b));
    call.end();
}

#[test]
fn a_carrier_that_does_not_go_back_is_asked_for_again_and_again_at_each_refresh() {
    let mut call = Call::new();
    let moved = ANSWER.replace("9000", "9002");
    let refuse = |call: &mut Call| {
        assert!(is_offered(&call.desk.take_legs()[..1], call.b));
        call.desk.take_sent();
        call.desk.leg(LegCommand::AnswerOffer { leg: call.b, answer: Err(488) });
    };
    call.carrier("INVITE", "");
    call.carrier("ACK", &moved);
    refuse(&mut call);
    let back = call.desk.last_sent();
    call.desk.carrier(&back, 200, "x", &moved);
    // The phone is asked once more, and neither side for ever.
    refuse(&mut call);
    assert!(call.desk.take_sent().is_empty());
    call.carrier("INVITE", "");
    call.carrier("ACK", &moved);
    refuse(&mut call);
    let back = call.desk.last_sent();
    assert_eq!(call.desk.kinds(), ["INVITE"]);
    call.desk.carrier(&back, 200, "x", &moved);
    refuse(&mut call);
    // Its own refresh is answered with what stands, whatever the phone says: else its session timer would end the call.
    call.carrier("UPDATE", &moved);
    refuse(&mut call);
    assert_eq!(call.desk.kinds(), ["200"]);
    call.desk.take_legs();
    call.carrier("UPDATE", &moved);
    assert!(is_offered(&call.desk.take_legs(), call.b));
    call.desk.leg(LegCommand::AnswerOffer { leg: call.b, answer: Ok(sdp(OFFER)) });
    call.desk.take_legs();
    call.carrier("UPDATE", &moved);
    assert!(call.desk.take_legs().is_empty(), "nothing is new");
    call.end();
}

/// RFC 3264 §8: what was offered counts as said, so what stands is said in a newer version.
#[test]
fn an_answer_that_cannot_be_understood_brings_back_what_stands() {
    for understood in [true, false] {
        let mut call = Call::new();
        call.phone("INVITE", &held(OFFER));
        let offer = call.offer_b(&held(OFFER));
        call.desk.take_legs();
        call.desk.take_sent();
        call.desk.carrier(&offer, 200, "x", "v=0\r\nnonsense\r\n");
        let back = call.desk.last_sent();
        assert_eq!(call.desk.kinds(), ["ACK", "INVITE"]);
        let told = call.desk.take_legs();
        assert!(matches!(told[0], LegEvent::OfferAnswered { answer: Err(488), .. }), "{told:?}");
        let version = |message: &Message| body(message).split(' ').nth(2).and_then(|text| text.parse::<u64>().ok());
        assert_eq!(version(&back), version(&offer).map(|version| version + 1));
        assert!(!body(&back).contains("sendonly"));
        call.answer_a(Err(488));
        call.desk.take_sent();
        call.desk.carrier(&back, 200, "x", if understood { ANSWER } else { "" });
        assert_eq!(call.desk.kinds(), ["ACK"], "it is asked once, and the call goes on");
        let ended = |event: &LegEvent| matches!(event, LegEvent::Ended { .. });
        assert!(!call.desk.take_legs().iter().any(ended));
        call.end();
    }
}

/// It refuses what is brought back, too: what stands is not told it by the version of another session (RFC 3264 §8).
#[test]
fn a_version_names_one_session_whatever_the_far_end_makes_of_it() {
    let mut call = Call::new();
    call.phone("INVITE", &held(OFFER));
    let offer = call.offer_b(&held(OFFER));
    call.desk.carrier(&offer, 200, "x", "v=0\r\nnonsense\r\n");
    let back = call.desk.last_sent();
    call.answer_a(Err(488));
    call.desk.carrier(&back, 488, "x", "");
    call.desk.take_sent();
    call.carrier("INVITE", ANSWER);
    let told = call.desk.last_sent();
    assert_eq!(told.status(), Some(200));
    let origin = |message: &Message| body(message).lines().nth(1).map(str::to_owned);
    assert_ne!(origin(&told), origin(&offer));
    assert!(body(&offer).contains("sendonly") && !body(&told).contains("sendonly"));
    call.end();
}

#[test]
fn a_flood_of_changes_is_slowed_down() {
    let mut call = Call::new();
    let mut passed = 0;
    for version in 2..30 {
        call.phone("UPDATE", &held(OFFER).replace("m=audio 4000", &format!("m=audio {version}000")));
        if is_offered(&call.desk.take_legs(), call.a) {
            passed += 1;
            call.answer_a(Err(488));
        }
    }
    assert_eq!(passed, 10);
    call.desk.wait(Duration::from_secs(10));
    call.phone("UPDATE", &held(OFFER));
    assert!(is_offered(&call.desk.take_legs(), call.a));
    call.end();
}

#[test]
fn a_change_is_there_after_a_restart() {
    let mut call = Call::new();
    call.phone("UPDATE", &held(OFFER));
    let offer = call.offer_b(&held(OFFER));
    call.desk.carrier(&offer, 200, "x", &format!("{ANSWER}a=recvonly\r\n"));
    call.answer_a(Ok(&format!("{ANSWER}a=recvonly\r\n")));
    let told = call.desk.take_legs();
    let kept = |id: LegId| {
        let of = |event: &LegEvent| match event {
            LegEvent::Checkpointed { leg, checkpoint } if *leg == id => Some(checkpoint.clone()),
            _ => None,
        };
        told.iter().rev().find_map(of).expect("kept")
    };
    let mut desk = restarted((call.a, &kept(call.a)), &kept(call.b));
    let mut talk = call.talk.clone();
    desk.in_dialog(&mut talk, "UPDATE", "", &held(OFFER));
    let ok = desk.last_sent();
    assert_eq!((ok.status(), body(&ok).contains("a=recvonly")), (Some(200), true), "nothing is new");
}

#[test]
fn keys_in_info_pass_to_the_other_leg_and_nothing_else_does() {
    let mut call = Call::new();
    let relay = "Content-Type: application/dtmf-relay\r\n";
    let cases = [
        (relay, "Signal=5\r\nDuration=200\r\n", "200", Some("Signal=5\r\nDuration=200\r\n")),
        ("Content-Type: application/dtmf\r\n", "#", "200", Some("Signal=#\r\nDuration=160\r\n")),
        (relay, "Signal=5\r\nX=secret\r\n", "400", None),
        ("Content-Type: text/plain\r\n", "5", "415", None),
        ("Info-Package: dtmf\r\nContent-Type: application/dtmf-relay\r\n", "Signal=5\r\n", "469", None),
        ("Info-Package: other\r\n", "", "469", None),
        ("", "", "200", None),
    ];
    for (more, body_text, status, expected) in cases {
        call.desk.in_dialog(&mut call.talk, "INFO", more, body_text);
        assert_eq!(call.desk.kinds(), [status], "{more}{body_text}");
        let Some(expected) = expected else {
            assert!(call.desk.take_legs().is_empty());
            continue;
        };
        let Some(LegEvent::KeyPressed { leg, key }) = call.desk.take_legs().pop() else { panic!("no key") };
        assert_eq!(leg, call.a);
        call.desk.leg(LegCommand::PressKey { leg: call.b, key });
        let info = call.desk.last_sent();
        assert_eq!((info.method(), body(&info)), (&Method::Info, expected));
        call.desk.carrier(&info, 415, "x", "");
        assert!(call.desk.take_legs().is_empty());
        call.desk.take_sent();
    }
    call.end();
}

#[test]
fn a_key_that_a_carrier_presses_passes_to_the_phone() {
    let mut call = Call::new();
    call.cseq += 1;
    let text = request_of_carrier(&call.invite, "INFO", call.cseq, "Signal=5\r\nDuration=200\r\n");
    call.desk.take(call.desk.of_carrier(), &text.replace("application/sdp", "application/dtmf-relay"));
    assert_eq!(call.desk.kinds(), ["200"]);
    let Some(LegEvent::KeyPressed { leg, key }) = call.desk.take_legs().pop() else { panic!("no key") };
    assert_eq!(leg, call.b);
    call.desk.leg(LegCommand::PressKey { leg: call.a, key });
    let info = call.desk.last_sent();
    assert_eq!(call.desk.sent.last().map(|(to, _)| *to), Some(PHONE.into()));
    assert_eq!((info.method(), body(&info)), (&Method::Info, "Signal=5\r\nDuration=200\r\n"));
    call.desk.phone(udp(), &info, 200);
    assert!(call.desk.take_legs().is_empty());
    call.end();
}

const NOT_TAKEN: [(&str, &str); 2] = [("REFER", "405"), ("NONSENSE", "501")];

#[test]
fn what_a_carrier_may_not_ask_is_refused_and_the_call_goes_on() {
    let mut call = Call::new();
    for (method, status) in NOT_TAKEN {
        call.carrier(method, "");
        let refused = call.desk.last_sent();
        assert_eq!(call.desk.kinds(), [status], "{method}");
        let allowed = refused.text(HeaderName::Allow).unwrap_or_default();
        assert!(allowed.contains("INVITE") && !allowed.contains(method), "{allowed}");
    }
    assert!(call.desk.take_legs().is_empty());
    // It does: the carrier's hold passes on.
    call.carrier("INVITE", &held(ANSWER));
    assert!(is_offered(&call.desk.take_legs(), call.b));
    call.desk.leg(LegCommand::AnswerOffer { leg: call.b, answer: Ok(sdp(OFFER)) });
    assert_eq!(call.desk.last_sent().status(), Some(200));
    call.carrier("ACK", "");
    call.end();
}

#[test]
fn what_neither_side_may_ask_is_refused_while_it_rings_and_the_call_is_answered() {
    let mut desk = Desk::with(CoreConfig { dialog_probe: Duration::ZERO, ..config() }, 3);
    let a = desk.invited(udp(), "c").leg;
    let b = LegId::b(a.call, 1);
    let invite = desk.dial(b);
    desk.carrier(&invite, 180, "x", "");
    desk.leg(LegCommand::Progress { leg: a, status: 180, sdp: None });
    let to_tag = desk.last_sent().to_tag().expect("a tag").to_owned();
    let mut talk = Talk { leg: a, call_id: "c".into(), to_tag, cseq: 2, flow: udp() };
    desk.take_legs();
    desk.take_sent();
    for (cseq, (method, status)) in (1..).zip(NOT_TAKEN) {
        desk.take(desk.of_carrier(), &request_of_carrier(&invite, method, cseq, ""));
        assert_eq!(desk.kinds(), [status], "{method} of the carrier");
        desk.in_dialog(&mut talk, method, "", "");
        assert_eq!(desk.kinds(), [status], "{method} of the phone");
    }
    assert!(desk.take_legs().is_empty());
    desk.carrier(&invite, 200, "x", ANSWER);
    assert!(matches!(desk.take_legs()[..], [LegEvent::Answered { leg, .. }] if leg == b));
    desk.leg(LegCommand::Confirm { leg: b, answer: None });
    desk.leg(LegCommand::Accept { leg: a, sdp: Some(sdp(ANSWER)) });
    let ack = desk.text("ACK", udp(), "c", &talk.to_tag.clone(), 2, "", "");
    desk.take(udp(), &ack);
    assert_eq!(desk.kinds(), ["ACK", "200"]);
    assert!(matches!(desk.take_legs()[..], [LegEvent::Confirmed { leg, .. }] if leg == a));
    Call { desk, talk, a, b, invite, cseq: 2 }.end();
}

#[test]
fn a_hold_ends_by_an_invite_without_an_offer_too() {
    let mut call = Call::new();
    call.phone("INVITE", &held(OFFER));
    let offer = call.offer_b(&held(OFFER));
    call.desk.carrier(&offer, 200, "x", &format!("{ANSWER}a=recvonly\r\n"));
    call.answer_a(Ok(&format!("{ANSWER}a=recvonly\r\n")));
    assert!(body(&call.desk.last_sent()).contains("recvonly"));
    call.ack("");
    call.phone("INVITE", "");
    let ok = call.desk.last_sent();
    assert!(ok.status() == Some(200) && !body(&ok).contains("recvonly"), "all there is: {}", body(&ok));
    call.desk.take_legs();
    call.ack(&OFFER.replace(" 1 1 IN", " 1 3 IN"));
    assert!(is_offered(&call.desk.take_legs()[..1], call.a));
    call.end();
}

#[test]
fn a_reinvite_that_is_taken_back_changes_nothing() {
    for provisional in [true, false] {
        let mut call = Call::new();
        call.phone("INVITE", &held(OFFER));
        let offer = call.offer_b(&held(OFFER));
        if provisional {
            call.desk.carrier(&offer, 180, "x", "");
        }
        call.desk.take_sent();
        call.desk.take_legs();
        call.cancel();
        let kinds = call.desk.kinds();
        assert_eq!(kinds, if provisional { vec!["200", "487", "CANCEL"] } else { vec!["200", "487"] });
        assert!(
            matches!(call.desk.take_legs()[..], [LegEvent::OfferAnswered { leg, answer: Err(504) }] if leg == call.b)
        );
        call.answer_a(Err(504));
        // Should the other side agree nevertheless, it is brought back.
        call.desk.carrier(&offer, 200, "x", &format!("{ANSWER}a=recvonly\r\n"));
        let back = call.desk.last_sent();
        assert!(*back.method() == Method::Invite && !body(&back).contains("sendonly"));
        call.desk.carrier(&back, 200, "x", ANSWER);
        assert!(!call.desk.take_legs().iter().any(|event| matches!(event, LegEvent::Offered { .. })), "nothing is new");
        call.end();
    }
}

#[test]
fn an_offer_that_nobody_wants_any_more_is_not_made_again() {
    let mut call = Call::new();
    call.phone("UPDATE", &held(OFFER));
    let offer = call.offer_b(&held(OFFER));
    call.desk.wait(Duration::from_secs(21));
    call.desk.take_sent();
    call.desk.carrier(&offer, 491, "x", "");
    call.desk.wait(Duration::from_secs(5));
    assert!(!call.desk.kinds().contains(&"INVITE".to_owned()));
    call.end();
}

#[test]
fn an_answer_that_says_something_new_to_a_refresh_passes_on() {
    let mut call = Call::new();
    let leg = call.desk.core.legs.get(&call.b).expect("the leg");
    let (offer, until) = (
        sdp(std::str::from_utf8(&leg.told(call.desk.core.config.sdp_address).expect("one")).expect("text")),
        call.desk.now,
    );
    let purpose = crate::core::change::Purpose::Refreshing;
    for (answer, is_new) in [(ANSWER.to_owned(), false), (ANSWER.replace("9000", "9002"), true)] {
        call.desk.core.offer_for(call.b, &offer, purpose, until.mono + Duration::from_secs(20), until);
        call.desk.handle(Input::Timeout);
        let refresh = call.desk.last_sent();
        assert_eq!(*refresh.method(), Method::Invite);
        call.desk.take_legs();
        call.desk.carrier(&refresh, 200, "x", &answer);
        let told = call.desk.take_legs();
        assert_eq!(told.iter().any(|event| matches!(event, LegEvent::Offered { leg, .. } if *leg == call.b)), is_new);
    }
    call.end();
}

/// RFC 3311 §5.2: only offers cross.
#[test]
fn an_update_without_an_offer_is_answered_while_one_is_under_way() {
    let mut call = Call::new();
    call.phone("INVITE", &held(OFFER));
    let _ = call.offer_b(&held(OFFER));
    call.desk.take_sent();
    call.phone("UPDATE", "");
    call.carrier("UPDATE", "");
    assert_eq!(call.desk.kinds(), ["200", "200"]);
    call.end();
}

/// The call's actor has the message in hand when the CANCEL comes.
#[test]
fn what_is_agreed_to_an_offer_that_was_taken_back_is_brought_back() {
    for accepted_before in [false, true] {
        let mut call = Call::new();
        call.phone("INVITE", &held(OFFER));
        let answer = format!("{ANSWER}a=recvonly\r\n");
        if !accepted_before {
            call.cancel();
        }
        let offer = call.offer_b(&held(OFFER));
        call.desk.carrier(&offer, 200, "x", &answer);
        if accepted_before {
            call.cancel();
        }
        assert!(call.desk.kinds().contains(&"487".to_owned()));
        // A newer one waits until what is on its way has come.
        call.phone("INVITE", &held(OFFER));
        assert_eq!(call.desk.kinds().last().map(String::as_str), Some("500"));
        call.answer_a(Ok(&answer));
        let back = call.desk.last_sent();
        assert!(*back.method() == Method::Invite && !body(&back).contains("sendonly"), "what the phone has");
        call.desk.carrier(&back, 200, "x", ANSWER);
        call.desk.take_legs();
        call.phone("INVITE", &held(OFFER));
        assert!(is_offered(&call.desk.take_legs(), call.a));
        call.end();
    }
}

/// RFC 3311 §5.2, and what came first must not win over what came later.
#[test]
fn one_update_waits_for_another_and_an_older_request_moves_nothing_back() {
    let mut call = Call::new();
    call.phone("UPDATE", &held(OFFER));
    call.desk.take_sent();
    call.phone("UPDATE", "");
    assert_eq!(call.desk.kinds(), ["500"]);
    call.answer_a(Err(488));
    call.desk.take_sent();
    call.phone("INVITE", &held(OFFER));
    let port_before = call.talk.flow;
    call.talk.flow = Flow::udp(([127, 0, 0, 1], 7777).into());
    call.phone("UPDATE", "");
    call.talk.flow = port_before;
    assert_eq!(call.desk.core.legs.get(&call.a).expect("the leg").dialog.target.port(), Some(7777));
    call.answer_a(Ok(ANSWER));
    assert_eq!(call.desk.core.legs.get(&call.a).expect("the leg").dialog.target.port(), Some(7777));
    call.end();
}

#[test]
fn a_whole_offer_is_stored_with_its_version() {
    let mut call = Call::new();
    call.phone("INVITE", &held(OFFER));
    call.answer_a(Ok(&format!("{ANSWER}a=recvonly\r\n")));
    call.ack("");
    call.desk.take_legs();
    call.phone("INVITE", "");
    assert!(matches!(&call.desk.take_legs()[..], [LegEvent::Checkpointed { leg, .. }] if *leg == call.a));
    call.ack(&held(OFFER));
    call.end();
}
