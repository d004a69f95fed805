//! Phones behind a connection that the restart has cut: what waits for them, how they are found, and when they are given up.

use super::calls::register;
use super::restart::{connected, restarted};
use super::*;

/// A call over TLS, up before the restart; the process after it.
fn over_tls() -> (Desk, Talk) {
    let mut before = Desk::new();
    register(&mut before, tls(1, 1));
    let (talk, _, checkpoint, _) = connected(&mut before, tls(1, 1));
    let mut desk = Desk::with(config(), 77);
    desk.leg(LegCommand::Resume { leg: talk.leg, checkpoint });
    (desk, talk)
}

fn accept(desk: &mut Desk, leg: LegId) {
    desk.leg(LegCommand::Accept { leg, sdp: Some(Pii::new(ANSWER.into())) });
}

#[test]
fn a_probe_waits_until_the_phone_has_come_back() {
    let (mut desk, talk) = over_tls();
    desk.leg(LegCommand::Probe { leg: talk.leg });
    desk.wait(Duration::from_secs(31));
    assert!(desk.take_sent().is_empty() && desk.take_legs().is_empty());
    register(&mut desk, tls(9, 7));
    let options = desk.last_sent();
    assert_eq!(*options.method(), crate::message::Method::Options);
    assert_eq!(desk.sent.last().map(|(to, _)| *to), Some(tls(9, 7).peer));
    desk.phone(tls(9, 7), &options, 200);
    assert!(matches!(desk.take_legs()[..], [LegEvent::Alive { leg }] if leg == talk.leg));
}

#[test]
fn a_phone_that_does_not_come_back_in_time_is_lost() {
    let (mut desk, talk) = over_tls();
    desk.leg(LegCommand::Probe { leg: talk.leg });
    desk.wait(Duration::from_secs(32));
    assert!(matches!(desk.take_legs()[..], [LegEvent::Ended { leg, cause: EndCause::Lost }] if leg == talk.leg));
    // It is told when it comes back soon after all.
    register(&mut desk, tls(9, 1));
    assert_eq!(desk.kinds().last().map(String::as_str), Some("BYE"));
    desk.assert_empty();
}

#[test]
fn the_answer_is_sent_again_over_the_new_connection() {
    let (mut desk, talk) = over_tls();
    accept(&mut desk, talk.leg);
    assert!(desk.take_sent().is_empty());
    register(&mut desk, tls(9, 1));
    let ok = desk.last_sent();
    assert_eq!((ok.status(), ok.cseq().0, ok.to_tag()), (Some(200), 2, Some(&*talk.to_tag)));
    desk.take_sent();
    let ack = desk.text("ACK", tls(9, 1), "c", &talk.to_tag, 2, "", "");
    desk.take(tls(9, 1), &ack);
    assert!(matches!(desk.take_legs()[..], [LegEvent::Confirmed { .. }]));
    desk.wait(Duration::ZERO);
    let options = desk.last_sent();
    assert_eq!(*options.method(), Method::Options);
    desk.phone(tls(9, 1), &options, 200);
    assert!(matches!(desk.take_legs()[..], [LegEvent::Alive { .. }]));
    desk.take_sent();
    desk.wait(Duration::from_secs(20));
    assert!(desk.take_sent().is_empty(), "it is not repeated any more");
}

#[test]
fn a_request_over_a_new_connection_shows_the_way_once_it_has_proved_whose_it_is() {
    let (mut desk, mut talk) = over_tls();
    accept(&mut desk, talk.leg);
    // Another address, not registered there: it is challenged, not dropped.
    talk.flow = tls(5, 44);
    desk.in_dialog(&mut talk, "UPDATE", "", "");
    assert_eq!(desk.last_sent().status(), Some(407));
    let credentials = desk.credentials("UPDATE");
    desk.take_sent();
    desk.in_dialog(&mut talk, "UPDATE", &credentials, "");
    let answers: Vec<_> = desk.sent_to(talk.flow.peer).iter().map(|text| text[8..11].to_owned()).collect();
    assert!(answers.contains(&"200".to_owned()), "{answers:?}");
    assert!(desk.take_legs().iter().any(|event| matches!(event, LegEvent::Alive { .. })));
    // A stranger's credential changes nothing.
    let (mut desk, mut talk) = over_tls();
    talk.flow = tls(5, 44);
    desk.in_dialog(&mut talk, "BYE", "", "");
    assert_eq!(desk.kinds(), ["407"]);
    assert!(desk.take_legs().is_empty());
}

#[test]
fn an_answer_sent_again_that_is_not_acknowledged_ends_no_call_that_is_up() {
    for flow in [udp(), tls(9, 1)] {
        let (mut desk, talk) = if flow == udp() {
            let (talk, _, a, b) = connected(&mut Desk::new(), udp());
            (restarted((talk.leg, &a), &b), talk)
        } else {
            over_tls()
        };
        accept(&mut desk, talk.leg);
        if flow != udp() {
            register(&mut desk, flow);
        }
        desk.wait(Duration::from_secs(32));
        assert!(desk.take_legs().is_empty(), "no ACK proves nothing: it may have come before");
        let options = desk.last_sent();
        assert_eq!(*options.method(), crate::message::Method::Options);
        desk.phone(flow, &options, 200);
        assert!(matches!(desk.take_legs()[..], [LegEvent::Alive { .. }]));
    }
}

#[test]
fn a_connection_that_breaks_while_its_phone_is_asked_is_no_miss() {
    let mut desk = Desk::new();
    register(&mut desk, tls(1, 1));
    let talk = desk.talk(tls(1, 1), "c");
    desk.wait(Duration::from_secs(30));
    desk.take_sent();
    desk.handle(Input::FlowClosed(tls(1, 1)));
    desk.wait(Duration::from_secs(20));
    register(&mut desk, tls(2, 1));
    let options = desk.last_sent();
    desk.phone(tls(2, 1), &options, 200);
    assert!(matches!(desk.take_legs()[..], [LegEvent::Alive { leg }] if leg == talk.leg));
}

#[test]
fn the_bye_of_a_leg_in_doubt_waits_for_its_phone() {
    for (comes_back, expected) in [(true, EndCause::HungUp), (false, EndCause::Lost)] {
        let (mut desk, talk) = over_tls();
        desk.leg(LegCommand::HangUp { leg: talk.leg, cause: HangupCause::Requested });
        if comes_back {
            register(&mut desk, tls(9, 1));
            let bye = desk.last_sent();
            desk.phone(tls(9, 1), &bye, 200);
        } else {
            desk.wait(Duration::from_secs(32));
        }
        assert!(matches!(desk.take_legs()[..], [LegEvent::Ended { cause, .. }] if cause == expected));
        desk.assert_empty();
    }
}
