//! INVITEs without an offer (RFC 3261 §13.2.1, §13.3.1): the carrier's 200 offers, the caller's ACK answers, and the carrier's ACK
//! waits for that.

use super::large::{refuse_tcp, sent_over};
use super::restart::restarted;
use super::*;
use crate::message::Method;
use schema::leg::Checkpoint;

/// The phone's answer to the carrier's offer.
const CALLERS: &str =
    "v=0\r\no=phone 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4002 RTP/AVP 0\r\n";

struct Call {
    desk: Desk,
    a: LegId,
    b: LegId,
    /// The B-leg's INVITE.
    invite: Message,
    a_checkpoint: Checkpoint,
    to_tag: String,
}

fn body(message: &Message) -> &str {
    std::str::from_utf8(message.body()).expect("text")
}

impl Call {
    /// The phone has called without an offer; the carrier has our INVITE.
    fn new() -> Self {
        let mut desk = Desk::with(CoreConfig { dialog_probe: Duration::ZERO, ..config() }, 3);
        let first = desk.text("INVITE", udp(), "c", "", 1, "", "");
        desk.take(udp(), &first);
        let credentials = desk.credentials("INVITE");
        let second = desk.text("INVITE", udp(), "c", "", 2, &credentials, "");
        desk.take(udp(), &second);
        let Some(LegEvent::Invited(invited)) = desk.take_legs().pop() else { panic!("no INVITE") };
        assert!(invited.offer.is_none());
        let (a, b) = (invited.leg, LegId::b(invited.leg.call, 1));
        desk.leg(LegCommand::Invite(Box::new(Invite { offer: None, ..outgoing(b) })));
        let invite = desk.last_sent();
        assert!(invite.body().is_empty());
        desk.take_sent();
        Self { desk, a, b, invite, a_checkpoint: invited.checkpoint.clone(), to_tag: String::new() }
    }

    /// The carrier has answered with an offer, which the phone is told; the B-leg's checkpoint.
    fn answered() -> (Self, Checkpoint) {
        let mut call = Self::new();
        call.desk.carrier(&call.invite, 200, "x", ANSWER);
        let told = call.desk.take_legs();
        let [LegEvent::Answered { offers: true, sdp: Some(sdp), checkpoint, .. }] = &told[..] else {
            panic!("{told:?}")
        };
        call.accept(sdp.clone());
        (call, checkpoint.clone())
    }

    fn accept(&mut self, sdp: schema::leg::Sdp) {
        self.desk.leg(LegCommand::Accept { leg: self.a, sdp: Some(sdp) });
        let ok = self.desk.last_sent();
        assert!(body(&ok).contains("m=audio 9000") && !body(&ok).contains("o=carrier"), "{}", body(&ok));
        self.to_tag = ok.to_tag().expect("a tag").to_owned();
        assert_eq!(self.desk.kinds(), ["200"], "the carrier's ACK waits");
    }

    fn ack(&mut self, body: &str) {
        let to_tag = self.to_tag.clone();
        let ack = self.desk.text("ACK", udp(), "c", &to_tag, 2, "", body);
        self.desk.take(udp(), &ack);
    }

    /// The ACK and the BYE that end the carrier's leg: all its media are refused.
    fn assert_refused(&mut self) {
        let sent = self.desk.sent_to(CARRIER.into());
        let [ack, bye] = &sent[..] else { panic!("{sent:?}") };
        assert!(ack.starts_with("ACK ") && ack.contains("m=audio 0 RTP/AVP 0\r\n"), "{ack}");
        assert!(bye.starts_with("BYE "), "{bye}");
    }
}

#[test]
fn an_invite_without_an_offer_gets_the_carriers_and_its_answer_passes_in_the_ack() {
    let mut call = Call::new();
    call.desk.carrier(&call.invite, 183, "x", ANSWER);
    let told = call.desk.take_legs();
    assert!(
        matches!(told[..], [LegEvent::Progress { sdp: None, rings: true, .. }]),
        "not an offer: it is not reliable"
    );
    call.desk.carrier(&call.invite, 200, "x", ANSWER);
    let told = call.desk.take_legs();
    let [LegEvent::Answered { offers: true, sdp: Some(sdp), .. }] = &told[..] else { panic!("{told:?}") };
    call.accept(sdp.clone());
    call.desk.carrier(&call.invite, 200, "x", ANSWER);
    assert!(call.desk.take_sent().is_empty(), "repeated: still waiting");
    call.ack(CALLERS);
    let told = call.desk.take_legs();
    let [LegEvent::Confirmed { answer: Some(answer), .. }, LegEvent::Checkpointed { checkpoint, .. }] = &told[..]
    else {
        panic!("{told:?}")
    };
    assert!(checkpoint.state.expose().contains("m=audio 4002"));
    assert!(call.desk.take_sent().is_empty());
    call.desk.leg(LegCommand::Confirm { leg: call.b, answer: Some(answer.clone()) });
    let ack = call.desk.last_sent();
    assert_eq!((ack.method(), ack.cseq().0, ack.to_tag()), (&Method::Ack, 1, Some("x")));
    assert!(body(&ack).contains("m=audio 4002") && !body(&ack).contains("phone"), "{}", body(&ack));
    assert!(matches!(&call.desk.take_legs()[..], [LegEvent::Checkpointed { leg, .. }] if *leg == call.b));
    let first = call.desk.take_sent();
    call.desk.carrier(&call.invite, 200, "x", ANSWER);
    assert_eq!(call.desk.take_sent(), first, "the same ACK again");
    call.desk.leg(LegCommand::Confirm { leg: call.b, answer: None });
    assert!(call.desk.take_sent().is_empty(), "once");
    // A fork that answers, too, is refused its media.
    call.desk.carrier(&call.invite, 200, "fork", ANSWER);
    call.assert_refused();
    for leg in [call.a, call.b] {
        call.desk.leg(LegCommand::HangUp { leg, cause: HangupCause::Requested });
    }
    call.desk.assert_empty();
}

/// The carrier answers a call that was cancelled, and has its offer refused.
fn answered_too_late() -> Call {
    let mut call = Call::new();
    call.desk.carrier(&call.invite, 180, "x", "");
    call.desk.leg(LegCommand::HangUp { leg: call.b, cause: HangupCause::Cancelled });
    call.desk.take_sent();
    call.desk.carrier(&call.invite, 200, "x", ANSWER);
    call.assert_refused();
    call
}

#[test]
fn a_200_that_comes_again_when_its_leg_is_gone_is_refused_its_media_again() {
    let mut call = answered_too_late();
    call.desk.carrier(&call.invite, 200, "x", ANSWER);
    let again = call.desk.sent_to(CARRIER.into());
    assert!(
        again.len() == 1 && again[0].starts_with("ACK ") && again[0].contains("m=audio 0 RTP/AVP 0\r\n"),
        "{again:?}"
    );
}

#[test]
fn an_ack_over_1300_bytes_goes_over_tcp_and_over_udp_when_that_is_refused() {
    let (mut call, _) = Call::answered();
    call.desk.trunks(vec![TrunkAddress { large_over_tcp: true, ..trunk() }]);
    call.ack(&(CALLERS.to_owned() + &format!("a=fmtp:0 {}\r\n", "x".repeat(300)).repeat(4)));
    let told = call.desk.take_legs();
    let [LegEvent::Confirmed { answer: Some(answer), .. }, ..] = &told[..] else { panic!("{told:?}") };
    call.desk.take_sent();
    call.desk.leg(LegCommand::Confirm { leg: call.b, answer: Some(answer.clone()) });
    let large = call.desk.last_sent();
    assert_eq!((large.method(), sent_over(&call.desk).as_str()), (&Method::Ack, "TCP"));
    // The 200 that is repeated is acknowledged the same way.
    let first = call.desk.sent.last().cloned();
    call.desk.carrier(&call.invite, 200, "x", ANSWER);
    assert_eq!((call.desk.sent.last().cloned(), call.desk.sent.len()), (first, 2));
    refuse_tcp(&mut call.desk);
    let small = call.desk.last_sent();
    assert_eq!((small.method(), sent_over(&call.desk).as_str()), (&Method::Ack, "UDP"));
    assert_eq!((small.cseq(), small.body(), small.to_tag()), (large.cseq(), large.body(), large.to_tag()));
    call.desk.take_sent();
    refuse_tcp(&mut call.desk);
    assert!(call.desk.take_sent().is_empty(), "it went over UDP");
    call.desk.carrier(&call.invite, 200, "x", ANSWER);
    assert_eq!((call.desk.last_sent().method(), sent_over(&call.desk).as_str()), (&Method::Ack, "UDP"));
    call.desk.trunks(Vec::new());
    for leg in [call.a, call.b] {
        call.desk.leg(LegCommand::HangUp { leg, cause: HangupCause::Requested });
    }
    call.desk.assert_empty();
}

#[test]
fn an_ack_without_the_answer_that_is_due_ends_both_legs() {
    for answer in ["", "v=0\r\nnonsense\r\n"] {
        let (mut call, _) = Call::answered();
        call.ack(answer);
        let told = call.desk.take_legs();
        assert!(matches!(told[..], [LegEvent::Ended { cause: EndCause::NoSession, .. }]), "{told:?}");
        assert_eq!(call.desk.kinds(), ["BYE"]);
        call.desk.leg(LegCommand::HangUp { leg: call.b, cause: HangupCause::OtherLeg });
        call.assert_refused();
        assert!(matches!(call.desk.take_legs()[..], [LegEvent::Ended { cause: EndCause::HungUp, .. }]));
        call.desk.assert_empty();
    }
}

#[test]
fn a_caller_that_never_answers_is_given_up_before_the_carrier_gives_us_up() {
    let (mut call, _) = Call::answered();
    call.desk.wait(Duration::from_millis(19_999));
    assert!(call.desk.take_legs().is_empty());
    call.desk.wait(Duration::from_millis(1));
    assert!(matches!(call.desk.take_legs()[..], [LegEvent::Ended { cause: EndCause::NoAck, .. }]));
    call.desk.take_sent();
    call.desk.leg(LegCommand::HangUp { leg: call.b, cause: HangupCause::OtherLeg });
    call.assert_refused();
    call.desk.assert_empty();
}

#[test]
fn a_carrier_that_hangs_up_or_answers_too_late_has_its_offer_refused() {
    let (mut call, _) = Call::answered();
    call.desk.take(Flow::udp(CARRIER.into()), &super::restart::bye_of_carrier(&call.invite));
    let sent = call.desk.sent_to(CARRIER.into());
    assert!(sent.iter().any(|text| text.starts_with("ACK ") && text.contains("m=audio 0 ")), "{sent:?}");
    call.desk.leg(LegCommand::HangUp { leg: call.a, cause: HangupCause::OtherLeg });
    call.ack(CALLERS);
    call.desk.leg(LegCommand::Settled { call: call.a.call });
    call.desk.assert_empty();

    let mut call = answered_too_late();
    call.desk.leg(LegCommand::HangUp { leg: call.a, cause: HangupCause::Cancelled });
    call.desk.assert_empty();
}

#[test]
fn after_a_restart_the_answer_that_is_due_still_passes() {
    // The process ends before the caller's ACK: its 200 is sent again, and the carrier's waits on.
    let (mut call, b) = Call::answered();
    let to_tag = call.to_tag.clone();
    call.desk = restarted((call.a, &call.a_checkpoint), &b);
    call.desk.trunks(vec![trunk()]);
    call.desk.take_sent();
    call.desk.carrier(&call.invite, 200, "x", ANSWER);
    assert!(call.desk.take_sent().is_empty());
    call.accept(Pii::new(ANSWER.into()));
    assert_eq!(call.to_tag, to_tag);
    call.ack(CALLERS);
    let told = call.desk.take_legs();
    let Some(LegEvent::Confirmed { answer: Some(answer), .. }) = told.first() else { panic!("{told:?}") };
    let Some(LegEvent::Checkpointed { checkpoint: a, .. }) = told.last() else { panic!("{told:?}") };
    call.desk.take_sent();
    call.desk.leg(LegCommand::Confirm { leg: call.b, answer: Some(answer.clone()) });
    assert!(call.desk.take_sent()[0].contains("m=audio 4002"));
    let told = call.desk.take_legs();
    let Some(LegEvent::Checkpointed { checkpoint: confirmed, .. }) = told.last() else { panic!("{told:?}") };

    // It ends between the two ACKs: the answer is known and passes when the call is taken up.
    let mut desk = restarted((call.a, a), &b);
    desk.leg(LegCommand::Accept { leg: call.a, sdp: Some(Pii::new(ANSWER.into())) });
    assert_eq!(desk.kinds(), ["OPTIONS"], "the caller has acknowledged it");
    let told = desk.take_legs();
    let [LegEvent::Confirmed { answer: Some(answer), .. }] = &told[..] else { panic!("{told:?}") };
    desk.leg(LegCommand::Confirm { leg: call.b, answer: Some(answer.clone()) });
    assert!(desk.take_sent()[0].contains("m=audio 4002"));

    // It ends behind them: a repeated 200 is acknowledged with the same answer.
    let mut desk = restarted((call.a, a), confirmed);
    desk.trunks(vec![trunk()]);
    desk.take_sent();
    desk.carrier(&call.invite, 200, "x", ANSWER);
    let sent = desk.take_sent();
    assert!(sent.len() == 1 && sent[0].starts_with("ACK ") && sent[0].contains("m=audio 4002"), "{sent:?}");

    // Nobody answers: the carrier's leg does not wait for ever.
    let mut desk = restarted((call.a, &call.a_checkpoint), &b);
    desk.wait(Duration::from_secs(70));
    let sent = desk.sent_to(CARRIER.into());
    assert!(sent.iter().any(|text| text.starts_with("ACK ") && text.contains("m=audio 0 ")), "{sent:?}");
    assert!(sent.iter().any(|text| text.starts_with("BYE ")));
}
