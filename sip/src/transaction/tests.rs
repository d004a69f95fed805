//! Each machine as a table: given a state, when this happens, then these steps.

use super::*;

fn at(ms: u64) -> Mono {
    Mono(ms * 1_000)
}

#[test]
fn an_invite_is_repeated_at_doubling_intervals_and_given_up() {
    let mut machine = InviteClient::new(at(0), false);
    let mut sent = Vec::new();
    let mut steps = Vec::new();
    while let Some(next) = machine.next_time() {
        steps = machine.on_time(next).to_vec();
        if steps == [Step::Repeat] {
            sent.push(next.0 / 1_000);
        } else {
            assert_eq!(next, at(32_000));
            break;
        }
    }
    assert_eq!(sent, [500, 1_500, 3_500, 7_500, 15_500, 31_500]);
    assert_eq!(steps, [Step::TimedOut, Step::Terminate]);
}

#[test]
fn invite_client_table() {
    let (calling, now) = (InviteClient::new(at(0), false), at(100));
    let after = |responses: &[u16]| {
        let mut machine = calling.clone();
        let steps = responses.iter().map(|status| machine.on_response(*status, false, now)).last();
        (steps.unwrap_or_default().to_vec(), machine.next_time())
    };
    let cases: [(&[u16], &[Step], Option<Mono>); 8] = [
        (&[100], &[Step::Deliver], None),
        (&[100, 180], &[Step::Deliver], None),
        (&[200], &[Step::Deliver], Some(at(32_100))),
        (&[180, 200, 200], &[Step::Deliver], Some(at(32_100))),
        (&[486], &[Step::Ack, Step::Deliver], Some(at(32_100))),
        (&[486, 486], &[Step::Ack], Some(at(32_100))),
        (&[486, 200], &[], Some(at(32_100))),
        (&[200, 486], &[], Some(at(32_100))),
    ];
    for (responses, steps, next) in cases {
        assert_eq!(after(responses), (steps.to_vec(), next), "{responses:?}");
    }
    let mut accepted = calling.clone();
    accepted.on_response(200, false, now);
    assert_eq!(accepted.on_time(at(32_099)), []);
    assert_eq!(accepted.on_time(at(32_100)), [Step::Terminate]);
}

#[test]
fn over_a_reliable_transport_nothing_is_repeated() {
    assert_eq!(InviteClient::new(at(0), true).next_time(), Some(at(32_000)));
    assert_eq!(OtherClient::new(at(0), true).next_time(), Some(at(32_000)));
    let mut invite = InviteServer::Proceeding;
    invite.sent(486, true, at(0));
    assert_eq!(invite.next_time(), Some(at(32_000)));
    assert_eq!(invite.on_ack(true, at(10)), [Step::Terminate]);
}

#[test]
fn other_requests_are_repeated_up_to_t2() {
    let mut machine = OtherClient::new(at(0), false);
    let mut sent = Vec::new();
    loop {
        let next = machine.next_time().expect("a timer");
        match machine.on_time(next) {
            [Step::Repeat] => sent.push(next.0 / 1_000),
            steps => {
                assert_eq!((steps, next), (&[Step::TimedOut, Step::Terminate][..], at(32_000)));
                break;
            }
        }
    }
    assert_eq!(sent, [500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500]);
}

#[test]
fn a_provisional_answer_slows_repetitions_down() {
    let mut machine = OtherClient::new(at(0), false);
    assert_eq!(machine.on_response(100, false, at(200)), [Step::Deliver]);
    assert_eq!(machine.next_time(), Some(at(4_200)));
    assert_eq!(machine.on_response(200, false, at(300)), [Step::Deliver]);
    assert_eq!(machine.on_response(200, false, at(400)), []);
    assert_eq!(machine.on_time(at(5_300)), [Step::Terminate]);
}

#[test]
fn a_failure_is_repeated_until_its_ack() {
    let mut machine = InviteServer::Proceeding;
    assert_eq!(machine.on_repeated(), [Step::Repeat]);
    machine.sent(180, false, at(0));
    assert_eq!(machine.next_time(), None);
    machine.sent(486, false, at(1_000));
    assert_eq!(machine.on_time(at(1_500)), [Step::Repeat]);
    assert_eq!(machine.on_time(at(2_499)), []);
    assert_eq!(machine.on_time(at(2_500)), [Step::Repeat]);
    assert_eq!(machine.on_ack(false, at(2_600)), []);
    assert_eq!(machine.on_repeated(), []);
    assert_eq!(machine.on_time(at(7_600)), [Step::Terminate]);
}

#[test]
fn a_failure_without_ack_is_given_up() {
    let mut machine = InviteServer::Proceeding;
    machine.sent(486, false, at(0));
    let mut last = at(0);
    for _ in 0..50 {
        last = machine.next_time().expect("a timer");
        if machine.on_time(last) == [Step::Terminate] {
            break;
        }
    }
    assert_eq!(last, at(32_000));
}

#[test]
fn repeated_invites_after_a_2xx_are_absorbed() {
    let mut machine = InviteServer::Proceeding;
    machine.sent(200, false, at(0));
    assert_eq!(machine.on_repeated(), []);
    assert_eq!(machine.on_ack(false, at(5)), []);
    assert_eq!(machine.on_repeated(), [], "behind the ACK, too");
    assert_eq!(machine.on_time(at(31_999)), []);
    assert_eq!(machine.on_repeated(), []);
    assert_eq!(machine.on_time(at(32_000)), [Step::Terminate]);
}

#[test]
fn a_repeated_request_gets_its_answer_again() {
    let mut machine = OtherServer::new(at(0));
    assert_eq!(machine.on_repeated(), []);
    machine.sent(200, false, at(0));
    assert_eq!(machine.on_repeated(), [Step::Repeat]);
    assert_eq!(machine.on_time(at(31_999)), []);
    assert_eq!(machine.on_time(at(32_000)), [Step::Terminate]);
}

#[test]
fn a_request_that_waits_is_told_after_3_500_ms_and_forgotten_when_nobody_waits() {
    let mut machine = OtherServer::new(at(0));
    assert_eq!((machine.on_time(at(3_499)), machine.next_time()), (&[][..], Some(at(3_500))));
    assert_eq!(machine.on_time(at(3_500)), [Step::Try]);
    machine.sent(100, false, at(3_500));
    assert_eq!(machine.on_repeated(), [Step::Repeat]);
    assert_eq!((machine.on_time(at(31_999)), machine.next_time()), (&[][..], Some(at(32_000))));
    assert_eq!(machine.on_time(at(32_000)), [Step::Terminate], "a later answer would be late (RFC 4320 §4.2)");
}
