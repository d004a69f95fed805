//! Probes in the dialog: when they leave, and what an answer, a refusal and silence mean.

use super::restart::{connected, restarted};
use super::*;
use crate::message::Method;

fn carrier() -> Flow {
    Flow::udp(CARRIER.into())
}

/// The probe that was sent last.
fn probe(desk: &Desk) -> Message {
    let probe = desk.last_sent();
    assert_eq!(*probe.method(), Method::Options);
    probe
}

fn is_lost(legs: &[LegEvent], id: LegId) -> bool {
    matches!(legs, [LegEvent::Ended { leg, cause: EndCause::Lost }] if *leg == id)
}

/// A call after a restart, both sides asked: the probes of A and of B.
fn asked() -> (Desk, Talk, LegId, Message, Message) {
    let (talk, _, a, b) = connected(&mut Desk::new(), udp());
    let mut desk = restarted((talk.leg, &a), &b);
    let b_leg = LegId::b(talk.leg.call, 1);
    desk.leg(LegCommand::Probe { leg: talk.leg });
    let of_a = probe(&desk);
    desk.leg(LegCommand::Probe { leg: b_leg });
    let of_b = probe(&desk);
    desk.take_sent();
    (desk, talk, b_leg, of_a, of_b)
}

#[test]
fn a_phone_of_which_nothing_is_heard_is_asked_every_thirty_seconds() {
    let mut desk = Desk::new();
    let mut talk = desk.talk(udp(), "c");
    desk.wait(Duration::from_secs(29));
    desk.in_dialog(&mut talk, "UPDATE", "", "");
    assert!(matches!(desk.take_legs()[..], [LegEvent::Alive { .. }]));
    desk.take_sent();
    desk.wait(Duration::from_secs(29));
    assert!(desk.take_sent().is_empty(), "it said something");
    // Any answer shows that somebody is there.
    for status in [200, 404, 405, 501, 603] {
        desk.wait(Duration::from_secs(1));
        let options = probe(&desk);
        assert_eq!((options.to_tag(), options.from_tag()), (Some("a"), Some(&*talk.to_tag)));
        desk.phone(udp(), &options, status);
        assert!(matches!(desk.take_legs()[..], [LegEvent::Alive { leg }] if leg == talk.leg), "{status}");
        desk.take_sent();
        desk.wait(Duration::from_secs(29));
        assert!(desk.take_sent().is_empty());
    }
    // The carrier's leg is not asked: it would end the call itself.
    desk.in_dialog(&mut talk, "BYE", "", "");
    desk.assert_empty();
}

#[test]
fn signs_of_life_are_told_once_a_second_at_most() {
    let mut desk = Desk::new();
    let mut talk = desk.talk(udp(), "c");
    desk.wait(Duration::from_secs(5));
    for _ in 0..10 {
        desk.in_dialog(&mut talk, "OPTIONS", "", "");
        desk.wait(Duration::from_millis(250));
    }
    assert_eq!(desk.take_legs().len(), 3, "at 0, 1 and 2 s");
}

#[test]
fn two_probes_without_answer_end_the_leg() {
    let mut desk = Desk::new();
    let talk = desk.talk(udp(), "c");
    desk.wait(Duration::from_secs(30 + 32 + 31));
    assert!(desk.take_legs().is_empty());
    desk.take_sent();
    desk.wait(Duration::from_secs(1));
    assert!(is_lost(&desk.take_legs(), talk.leg), "30 s, then twice 64·T1");
    assert_eq!(desk.kinds().last().map(String::as_str), Some("BYE"), "it may hear us without being heard");
    desk.assert_empty();
}

#[test]
fn one_answer_is_enough_to_begin_counting_again() {
    let mut desk = Desk::new();
    let talk = desk.talk(udp(), "c");
    desk.wait(Duration::from_secs(30 + 32));
    let options = probe(&desk);
    desk.phone(udp(), &options, 200);
    desk.wait(Duration::from_secs(30 + 32 + 31));
    assert!(matches!(desk.take_legs()[..], [LegEvent::Alive { .. }]));
    desk.wait(Duration::from_secs(1));
    assert!(is_lost(&desk.take_legs(), talk.leg));
}

#[test]
fn whoever_does_not_know_the_call_any_more_ends_it() {
    for (status, says_bye) in [(481, false), (408, true)] {
        let (mut desk, talk, b, of_a, of_b) = asked();
        desk.phone(udp(), &of_a, status);
        assert!(is_lost(&desk.take_legs(), talk.leg));
        assert_eq!(desk.kinds() == ["BYE"], says_bye);
        desk.carrier(&of_b, status, "x", "");
        assert!(is_lost(&desk.take_legs(), b));
        desk.assert_empty();
    }
}

#[test]
fn after_a_restart_both_sides_are_asked_once_and_the_phone_again() {
    let (mut desk, talk, b, of_a, of_b) = asked();
    assert_eq!((of_a.cseq().0, of_b.cseq().0), (1_001, 1_002));
    desk.phone(carrier(), &of_b, 405);
    desk.phone(udp(), &of_a, 200);
    let told = desk.take_legs();
    assert!(
        matches!(told[..], [LegEvent::Alive { leg: one }, LegEvent::Alive { leg: two }] if one == b && two == talk.leg)
    );
    desk.take_sent();
    desk.wait(Duration::from_secs(30));
    let sent = desk.take_sent();
    assert!(matches!(&sent[..], [one] if one.starts_with("OPTIONS sip:demo@127.0.0.1:5100 ")), "{sent:?}");
}

#[test]
fn the_bye_of_a_leg_in_doubt_tells_whether_it_was_there() {
    for (status, expected) in [(Some(200), EndCause::HungUp), (Some(481), EndCause::Lost), (None, EndCause::Lost)] {
        let (talk, _, a, b) = connected(&mut Desk::new(), udp());
        let mut desk = restarted((talk.leg, &a), &b);
        desk.leg(LegCommand::HangUp { leg: talk.leg, cause: HangupCause::FundsExhausted });
        let bye = desk.last_sent();
        assert!(desk.take_legs().is_empty());
        match status {
            Some(status) => desk.phone(udp(), &bye, status),
            None => desk.wait(Duration::from_secs(32)),
        }
        assert!(matches!(desk.take_legs()[..], [LegEvent::Ended { cause, .. }] if cause == expected), "{status:?}");
    }
}

#[test]
fn a_full_transaction_table_only_delays_a_probe() {
    let mut desk = Desk::with(CoreConfig { transactions_max: 1, ..config() }, 3);
    let talk = desk.talk(udp(), "c");
    // Our INVITE takes the one place, the carrier is silent for 32 s.
    desk.wait(Duration::from_secs(10));
    desk.dial(some_call());
    desk.wait(Duration::from_secs(33));
    let options = probe(&desk);
    desk.phone(udp(), &options, 200);
    let told = desk.take_legs();
    assert!(told.iter().any(|event| matches!(event, LegEvent::Alive { leg } if *leg == talk.leg)), "{told:?}");
}

#[test]
fn probes_can_be_switched_off() {
    let quiet = CoreConfig { dialog_probe: Duration::ZERO, ..config() };
    let (talk, _, a, _) = connected(&mut Desk::with(quiet.clone(), 3), udp());
    let mut desk = Desk::with(quiet, 77);
    desk.leg(LegCommand::Resume { leg: talk.leg, checkpoint: a });
    desk.leg(LegCommand::Probe { leg: talk.leg });
    assert!(matches!(desk.take_legs()[..], [LegEvent::Unwatched { .. }]), "it counts as there");
    desk.wait(Duration::from_secs(600));
    assert!(desk.take_sent().is_empty() && desk.take_legs().is_empty());
    desk.leg(LegCommand::HangUp { leg: talk.leg, cause: HangupCause::Requested });
    assert!(matches!(desk.take_legs()[..], [LegEvent::Ended { cause: EndCause::HungUp, .. }]));
    desk.assert_empty();
}

#[test]
fn a_carrier_that_cannot_be_reached_has_as_much_time_as_a_silent_one() {
    let (mut before, b) = (Desk::new(), some_call());
    let gateway = Gateway { transport: GatewayTransport::Tcp, ..gateway() };
    before.leg(LegCommand::Invite(Box::new(Invite { gateway, ..outgoing(b) })));
    let invite = before.last_sent();
    before.carrier(&invite, 200, "x", ANSWER);
    let Some(LegEvent::Answered { checkpoint, .. }) = before.take_legs().pop() else { panic!("not answered") };
    let mut desk = Desk::with(config(), 77);
    desk.leg(LegCommand::Resume { leg: b, checkpoint });
    desk.leg(LegCommand::Probe { leg: b });
    let destination = Destination::new(Protocol::Tcp, CARRIER.into());
    desk.handle(Input::Unreachable(destination, Unreached::NoConnection));
    desk.wait(Duration::from_secs(31));
    assert!(desk.take_legs().is_empty());
    desk.wait(Duration::from_secs(1));
    desk.handle(Input::Unreachable(destination, Unreached::NoConnection));
    assert!(is_lost(&desk.take_legs(), b));
}

proptest::proptest! {
    /// However answers and silence follow each other: a phone that answers within the second probe stays, one that is silent is
    /// found out within the pause and twice 64·T1, and no timer is ever left behind.
    #[test]
    fn a_silent_phone_is_found_out_in_time(every in 10..120_u64, delays in proptest::collection::vec(0..70_u64, 0..6)) {
        let every = Duration::from_secs(every);
        let mut desk = Desk::with(CoreConfig { dialog_probe: every, ..config() }, 3);
        let talk = desk.talk(udp(), "c");
        for delay in delays.into_iter().map(Duration::from_secs) {
            desk.wait(every);
            let first = probe(&desk);
            desk.wait(delay.min(Duration::from_secs(63)));
            let newest = if delay >= Duration::from_secs(32) { probe(&desk) } else { first };
            desk.phone(udp(), &newest, 200);
            let told = desk.take_legs();
            proptest::prop_assert!(matches!(told[..], [LegEvent::Alive { .. }]), "{:?}", told);
        }
        desk.wait(every + Duration::from_secs(64) - Duration::from_millis(1));
        proptest::prop_assert!(desk.take_legs().is_empty());
        desk.wait(Duration::from_millis(1));
        proptest::prop_assert!(is_lost(&desk.take_legs(), talk.leg));
        desk.assert_empty();
    }
}

/// A proxy on the way says 100 for a phone that is gone, and may not say 408 (RFC 4320 §4).
#[test]
fn what_a_proxy_says_meanwhile_is_no_sign_of_life() {
    let mut desk = Desk::new();
    let talk = desk.talk(udp(), "c");
    desk.wait(Duration::from_secs(30));
    for _ in 0..2 {
        let options = probe(&desk);
        desk.phone(udp(), &options, 100);
        assert!(desk.take_legs().is_empty());
        desk.wait(Duration::from_secs(32));
    }
    assert!(is_lost(&desk.take_legs(), talk.leg));
    // Nor is it the answer to a BYE, by which a leg in doubt is billed.
    let (mut desk, talk, ..) = asked();
    desk.leg(LegCommand::HangUp { leg: talk.leg, cause: HangupCause::FundsExhausted });
    let bye = desk.last_sent();
    assert_eq!(*bye.method(), Method::Bye);
    desk.phone(udp(), &bye, 100);
    assert!(desk.take_legs().is_empty());
    desk.phone(udp(), &bye, 481);
    assert!(is_lost(&desk.take_legs(), talk.leg));
}
