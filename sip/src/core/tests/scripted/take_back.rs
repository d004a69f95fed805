//! Calls that rang when the process ended.

use super::*;
use schema::leg::TakeBack;

/// A call that rings on both sides: what the carrier was sent, and what is stored of the caller.
fn ringing(flow: Flow) -> (Box<Invited>, String) {
    let mut desk = Desk::new();
    let invited = desk.invited(flow, "c");
    desk.take_sent();
    let b = LegId::b(invited.leg.call, 1);
    desk.leg(LegCommand::Invite(Box::new(Invite { offer: invited.offer.clone(), ..outgoing(b) })));
    (invited, desk.take_sent().pop().expect("an INVITE"))
}

fn taken_back(invited: &Invited) -> Desk {
    let mut desk = Desk::with(config(), 77);
    desk.leg(LegCommand::TakeBack(Box::new(TakeBack {
        leg: invited.leg,
        checkpoint: invited.checkpoint.clone(),
        invite: Some(Box::new(Invite { offer: None, ring_timeout_s: 2, ..outgoing(LegId::b(invited.leg.call, 1)) })),
        retry_after_s: 7,
    })));
    desk
}

fn message(text: &str) -> Message {
    Message::parse_datagram(&Bytes::from(text.to_owned())).expect("readable")
}

fn kinds(texts: &[String]) -> Vec<&str> {
    let kind = |text: &str| if text.starts_with("SIP/2.0") { 8..11 } else { 0..text.find(' ').unwrap_or(0) };
    texts.iter().map(|text| &text[kind(text)]).collect()
}

#[test]
fn the_invite_is_repeated_byte_for_byte_and_cancelled_once_a_carrier_has_said_something() {
    for flow in [udp(), tls(1, 1)] {
        let (invited, first) = ringing(flow);
        let mut desk = taken_back(&invited);
        assert_eq!(desk.sent_to(CARRIER.into()), std::slice::from_ref(&first), "the same to the last byte");
        // Nothing may be cancelled before a provisional answer (RFC 3261 §9.1): the INVITE is repeated instead.
        desk.wait(Duration::from_millis(600));
        assert_eq!(desk.sent_to(CARRIER.into()), std::slice::from_ref(&first));
        let invite = message(&first);
        desk.carrier(&invite, 180, "x", "");
        let sent = desk.sent_to(CARRIER.into());
        assert_eq!(kinds(&sent), ["CANCEL"]);
        let cancel = message(&sent[0]);
        assert_eq!((cancel.branch(), cancel.cseq().0), (invite.branch(), invite.cseq().0));
        desk.carrier(&cancel, 200, "x", "");
        desk.carrier(&invite, 487, "x", "");
        assert_eq!(kinds(&desk.sent_to(CARRIER.into())), ["ACK"]);
        assert!(matches!(desk.take_legs()[..], [LegEvent::Failed { status: 487, .. }]));
        desk.assert_empty();
    }
}

#[test]
fn an_answer_that_comes_instead_is_acknowledged_and_ended() {
    let (invited, first) = ringing(udp());
    let mut desk = taken_back(&invited);
    desk.take_sent();
    desk.carrier(&message(&first), 200, "x", ANSWER);
    assert_eq!(kinds(&desk.sent_to(CARRIER.into())), ["ACK", "BYE"]);
    assert!(matches!(desk.take_legs()[..], [LegEvent::Failed { status: 487, .. }]));
    // Its repetition, too.
    desk.carrier(&message(&first), 200, "x", ANSWER);
    assert_eq!(kinds(&desk.sent_to(CARRIER.into())), ["ACK"]);
}

#[test]
fn the_caller_gets_its_final_answer_until_it_acknowledges_it() {
    let (invited, _) = ringing(udp());
    let mut desk = taken_back(&invited);
    let sent = desk.sent_to(PHONE.into());
    assert_eq!(kinds(&sent), ["503"]);
    assert!(sent[0].contains("\r\nRetry-After: 7\r\n"), "{}", sent[0]);
    let refusal = message(&sent[0]);
    assert_eq!((refusal.call_id(), refusal.cseq().0, refusal.from_tag()), ("c", 2, Some("a")));
    assert!(refusal.to_tag().is_some());
    desk.wait(Duration::from_millis(500));
    assert_eq!(desk.sent_to(PHONE.into()), sent, "repeated, the same (timer G)");
    // The ACK has the INVITE's branch.
    let ack = desk.text("ACK", udp(), "c", refusal.to_tag().expect("a tag"), 2, "", "");
    let branch = refusal.branch().expect("a branch").to_owned();
    let own = message(&ack).branch().expect("a branch").to_owned();
    desk.take(udp(), &ack.replace(&own, &branch));
    desk.wait(Duration::from_secs(10));
    assert!(desk.sent_to(PHONE.into()).is_empty(), "acknowledged");
}

#[test]
fn a_cancel_that_crosses_the_restart_is_answered() {
    let (invited, _) = ringing(udp());
    let mut desk = taken_back(&invited);
    let refusal = message(&desk.sent_to(PHONE.into())[0]);
    let cancel = desk.text("CANCEL", udp(), "c", "", 2, "", "");
    let own = message(&cancel).branch().expect("a branch").to_owned();
    desk.take(udp(), &cancel.replace(&own, refusal.branch().expect("a branch")));
    assert_eq!(kinds(&desk.sent_to(PHONE.into())), ["200"]);
}

#[test]
fn over_a_connection_the_caller_is_told_only_when_it_is_back() {
    let (invited, _) = ringing(tls(1, 1));
    let mut desk = taken_back(&invited);
    assert!(desk.sent_to(tls(1, 1).peer).is_empty(), "its INVITE went with its connection");
    let mut before = Desk::new();
    super::calls::register(&mut before, tls(1, 1));
    let invited = before.invited(tls(1, 1), "c");
    let mut desk = Desk::with(config(), 77);
    super::calls::register(&mut desk, tls(4, 4));
    desk.take_sent();
    let (leg, checkpoint) = (invited.leg, invited.checkpoint.clone());
    desk.leg(LegCommand::TakeBack(Box::new(TakeBack { leg, checkpoint, invite: None, retry_after_s: 7 })));
    assert_eq!(kinds(&desk.sent_to(tls(4, 4).peer)), ["503"]);
}

#[test]
fn what_cannot_be_read_any_more_is_left_alone() {
    let (mut invited, _) = ringing(udp());
    invited.checkpoint = super::restart::of_another_version(&invited.checkpoint);
    let mut desk = taken_back(&invited);
    assert!(desk.sent_to(PHONE.into()).is_empty());
    desk.assert_empty();
}
