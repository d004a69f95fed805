//! What strangers, floods and slow neighbours meet.

use super::*;

#[test]
fn strangers_leave_nothing_behind() {
    let mut desk = Desk::new();
    for method in ["INVITE", "OPTIONS", "MESSAGE", "SUBSCRIBE", "REFER", "PUBLISH", "NOTIFY", "BYE", "NONSENSE"] {
        let text = desk.text(method, udp(), "c", "", 1, "", "");
        desk.take(udp(), &text);
        desk.take(udp(), &text);
        let tags: Vec<_> = desk
            .take_sent()
            .iter()
            .map(|text| text.split("\r\nTo: ").nth(1).and_then(|to| to.lines().next()).map(str::to_owned))
            .collect();
        assert_eq!((tags.len(), &tags[0]), (2, &tags[1]), "{method}: a repetition is answered with the same tag");
        let text = desk.text(method, udp(), "c", "unknown", 1, "", "");
        desk.take(udp(), &text);
        assert_eq!(desk.kinds(), ["481"], "{method}");
        assert_eq!(desk.core.counts(), Counts::default(), "{method}");
    }
    let ack = desk.text("ACK", udp(), "c", "unknown", 1, "", "");
    desk.take(udp(), &ack);
    assert!(desk.take_sent().is_empty());
    assert_eq!(desk.core.counts(), Counts::default());
    assert!(desk.core.next_timeout().is_none());
}

#[test]
fn a_wrong_secret_is_looked_up_like_an_unknown_name_and_a_replay_is_stale() {
    let mut desk = Desk::new();
    desk.invited(udp(), "c");
    assert_eq!(desk.wanted.len(), 1);
    desk.invited(udp(), "d");
    assert_eq!(desk.wanted.len(), 1, "remembered");
    let first = desk.text("INVITE", udp(), "e", "", 1, "", OFFER);
    desk.take(udp(), &first);
    let right = desk.credentials("INVITE");
    let at = right.find("response=\"").expect("a response") + 10;
    let flipped = if right.as_bytes()[at] == b'0' { "1" } else { "0" };
    let wrong = format!("{}{flipped}{}", &right[..at], &right[at + 1..]);
    desk.take_sent();
    let text = desk.text("INVITE", udp(), "e", "", 2, &wrong, OFFER);
    desk.take(udp(), &text);
    desk.wait(crate::core::authenticate::REFUSAL);
    assert_eq!((desk.kinds(), desk.wanted.len()), (vec!["100".into(), "407".into()], 2));
    let text = desk.text("INVITE", udp(), "e", "", 3, &right, OFFER);
    desk.take(udp(), &text);
    assert!(matches!(desk.take_legs()[..], [LegEvent::Invited(_)]));
    desk.take_sent();
    let text = desk.text("INVITE", udp(), "f", "", 1, &right, OFFER);
    desk.take(udp(), &text);
    let replayed = desk.take_sent().pop().expect("an answer");
    assert!(replayed.starts_with("SIP/2.0 407") && replayed.contains("stale=true"));
}

#[test]
fn a_revoked_credential_is_not_remembered() {
    let mut desk = Desk::new();
    desk.invited(udp(), "c");
    desk.handle(Input::Edge(EdgeCommand::CredentialRevoked { credential: credential().id }));
    desk.invited(udp(), "d");
    assert_eq!(desk.wanted.len(), 2);
    // Nor when the answer was on its way.
    desk.wait(Duration::from_secs(31));
    desk.answers = false;
    desk.invite(udp(), "e");
    desk.handle(Input::Edge(EdgeCommand::CredentialRevoked { credential: credential().id }));
    desk.answer(desk.wanted[2]);
    desk.answers = true;
    desk.invited(udp(), "f");
    assert_eq!(desk.wanted.len(), 4);
}

#[test]
fn a_credential_that_cannot_be_looked_up_in_time_is_a_503() {
    let mut desk = Desk::new();
    desk.answers = false;
    desk.invite(udp(), "c");
    desk.take_sent();
    desk.wait(Duration::from_millis(1_999));
    assert!(desk.take_sent().is_empty());
    desk.wait(Duration::from_millis(1));
    let answer = desk.take_sent().pop().expect("an answer");
    assert!(answer.starts_with("SIP/2.0 503") && answer.contains("\r\nRetry-After: "));
    desk.assert_empty();
}

#[test]
fn full_tables_answer_503_and_stay_full() {
    let small = CoreConfig { lookups_max: 2, legs_max: 4, transactions_max: 6, ..config() };
    let mut desk = Desk::with(CoreConfig { dialog_probe: Duration::ZERO, ..small }, 3);
    let talk = desk.talk(udp(), "t");
    desk.wait(Duration::from_secs(33));
    desk.answers = false;
    for call in 0..4 {
        desk.invite(udp(), &format!("c{call}"));
    }
    assert_eq!(desk.core.counts().lookups, 2);
    let retry = desk.sent.iter().filter(|(_, text)| text.starts_with("SIP/2.0 503") && text.contains("Retry-After"));
    assert_eq!(retry.count(), 2);
    for ticket in desk.wanted.split_off(1) {
        desk.answer(ticket);
    }
    desk.answers = true;
    desk.handle(Input::Timeout);
    desk.invited(udp(), "d");
    let refused = desk.text("INVITE", udp(), "e", "", 1, "", OFFER);
    desk.take_sent();
    desk.take(udp(), &refused);
    assert_eq!((desk.kinds(), desk.core.counts().legs), (vec!["503".into()], 4));
    // Our own requests leave even so, only without repetitions.
    for n in 1..=9 {
        let leg = LegId { attempt: n, ..some_call() };
        desk.leg(LegCommand::Invite(Box::new(outgoing(leg))));
    }
    let counts = desk.core.counts();
    assert_eq!(counts.client_transactions, 6);
    let failed = desk.take_legs().iter().filter(|e| matches!(e, LegEvent::Failed { status: 503, .. })).count();
    assert_eq!(failed, 3);
    desk.take_sent();
    desk.leg(LegCommand::HangUp { leg: talk.leg, cause: HangupCause::Requested });
    assert_eq!((desk.kinds(), desk.core.counts().client_transactions), (vec!["BYE".into()], 6));
}

#[test]
fn an_invite_that_comes_by_two_ways_is_one_call() {
    let mut desk = Desk::new();
    let invite = desk.invite(udp(), "c");
    assert_eq!(desk.take_legs().len(), 1);
    desk.take_sent();
    desk.take(udp(), &invite);
    assert_eq!(desk.kinds(), ["100"], "repeated");
    desk.take(udp(), &invite.replace("branch=z9hG4bK", "branch=z9hG4bKother"));
    assert_eq!(desk.kinds(), ["482"], "merged");
    assert!(desk.take_legs().is_empty());
}

#[test]
fn a_trunk_may_not_call_in_and_is_probed_once_in_30_seconds_whatever_the_list_does() {
    let mut desk = Desk::new();
    desk.trunks(vec![trunk()]);
    assert_eq!(desk.kinds(), ["OPTIONS"]);
    let carrier = Flow::udp(CARRIER.into());
    let text = desk.text("INVITE", carrier, "c", "", 1, "", OFFER);
    desk.take(carrier, &text);
    assert_eq!(desk.kinds(), ["404"]);
    let elsewhere = Gateway { address: ([127, 0, 0, 1], 5091).into(), ..gateway() };
    desk.trunks(vec![TrunkAddress { gateway: elsewhere.into(), ..trunk() }]);
    desk.trunks(vec![trunk()]);
    desk.take_sent();
    desk.wait(Duration::from_secs(89));
    let branches: std::collections::BTreeSet<_> = desk
        .take_sent()
        .iter()
        .filter_map(|text| text.split("branch=").nth(1)?.lines().next().map(str::to_owned))
        .collect();
    // The first one's repetitions, two of the changes, and those after 30 and 60 s.
    assert_eq!(branches.len(), 5);
}

#[test]
fn a_200_of_nobodys_invite_is_ended_when_a_trunk_sends_it_and_ignored_otherwise() {
    let lost = Desk::new().dial(some_call());
    let mut desk = Desk::new();
    desk.trunks(vec![trunk()]);
    desk.take_sent();
    desk.carrier(&lost, 200, "x", ANSWER);
    assert_eq!(desk.kinds(), ["ACK", "BYE"]);
    desk.trunks(Vec::new());
    desk.carrier(&lost, 200, "y", ANSWER);
    assert!(desk.take_sent().is_empty());
    desk.assert_empty();
}
