//! More than the node can carry: new calls and registrations are refused before anything is spent on them; what is under way
//! goes on.

use super::*;

/// So many calls a second.
fn slow(calls_per_second: u32) -> Desk {
    Desk::with(CoreConfig { calls_per_second, ..config() }, 3)
}

impl Desk {
    /// The first INVITE of a call, without credentials; the status of its answer.
    fn knock(&mut self, call_id: &str) -> String {
        let text = self.text("INVITE", udp(), call_id, "", 1, "", OFFER);
        self.take(udp(), &text);
        self.kinds_of_last()
    }

    fn kinds_of_last(&self) -> String {
        self.sent.last().map(|(_, text)| text[8..11].to_owned()).unwrap_or_default()
    }

    fn register(&mut self, call_id: &str, cseq: u32, credentials: &str) -> String {
        let text =
            self.text("REGISTER", udp(), call_id, "", cseq, credentials, "").replace(TARGET, "sip:demo@localhost");
        let text = text.replacen("sip:demo@localhost SIP/2.0", "sip:localhost SIP/2.0", 1);
        self.take(udp(), &text);
        self.kinds_of_last()
    }

    /// Whether it is turned away before it is read.
    fn is_turned_away(&mut self, text: &str) -> bool {
        let is_away = self.core.turn_away(udp().peer, text.as_bytes(), self.now);
        self.handle(Input::Timeout);
        is_away
    }

    /// Calls that come in and about which nobody decides.
    fn undecided(&mut self, count: usize) -> Vec<LegId> {
        (0..count).map(|n| self.invited(udp(), &format!("undecided{n}")).leg).collect()
    }
}

/// The CANCEL of an INVITE.
pub(super) fn cancel_of(invite: &str) -> String {
    let head = invite.split("\r\n\r\n").next().unwrap_or_default();
    let kept = head.lines().filter(|line| !line.starts_with("Content-") && !line.starts_with("Proxy-Auth"));
    let text: String = kept.map(|line| format!("{line}\r\n")).collect();
    text.replace("INVITE", "CANCEL") + "Content-Length: 0\r\n\r\n"
}

fn retry_after(text: &str) -> u32 {
    let value = text.split("\r\nRetry-After: ").nth(1).and_then(|rest| rest.lines().next());
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no Retry-After in {text}"))
}

#[test]
fn calls_beyond_the_rate_are_refused_before_a_challenge_and_whoever_was_challenged_comes_in() {
    let mut desk = slow(5);
    let mut talk = desk.talk(udp(), "up");
    let ringing = desk.invite(udp(), "rings");
    desk.take_legs();
    desk.take_sent();
    // Two tokens went to these; a challenge takes one, its answer none.
    let mut challenged = Vec::new();
    for n in 0..3 {
        assert_eq!(desk.knock(&format!("c{n}")), "407");
        challenged.push((format!("c{n}"), desk.credentials("INVITE")));
    }
    let tables = desk.core.counts();
    let mut waits = Vec::new();
    for n in 0..20 {
        assert_eq!(desk.knock(&format!("late{n}")), "503");
        waits.push(retry_after(&desk.sent.last().expect("an answer").1));
    }
    assert!(waits.iter().all(|wait| (5..15).contains(wait)) && waits.iter().any(|wait| *wait != waits[0]), "{waits:?}");
    assert_eq!(desk.core.counts(), tables, "nothing is kept of them");
    for (call_id, credentials) in &challenged {
        let text = desk.text("INVITE", udp(), call_id, "", 2, credentials, OFFER);
        desk.take(udp(), &text);
        assert!(matches!(desk.take_legs()[..], [LegEvent::Invited(_)]), "{call_id}");
    }
    // Credentials of a nonce that was used before are a call like others.
    let text =
        desk.text("INVITE", udp(), "again", "", 2, &challenged[0].1.replace("nc=00000001", "nc=00000002"), OFFER);
    desk.take(udp(), &text);
    assert_eq!(desk.kinds_of_last(), "503");
    // What is under way goes on.
    desk.take_sent();
    desk.in_dialog(&mut talk, "OPTIONS", "", "");
    desk.in_dialog(&mut talk, "INVITE", "", OFFER);
    desk.in_dialog(&mut talk, "BYE", "", "");
    assert!(!desk.kinds().contains(&"503".to_owned()));
    let cancel = cancel_of(&ringing);
    desk.take(udp(), &cancel);
    assert_eq!(desk.kinds(), ["200", "487"]);
    assert_eq!(desk.core.figures().overload.rate, 21);
    // A second later there is room again.
    desk.wait(Duration::from_secs(1));
    assert_eq!(desk.knock("later"), "407");
}

#[test]
fn what_is_beyond_the_rate_is_refused_at_first_sight_and_nothing_else() {
    let mut desk = slow(5);
    let invite = desk.text("INVITE", udp(), "new", "", 1, "", OFFER);
    assert!(!desk.is_turned_away(&invite), "there is room");
    let ringing = desk.invite(udp(), "rings");
    let up = desk.talk(udp(), "up");
    assert_eq!(desk.knock("c"), "407");
    let credentials = desk.credentials("INVITE");
    let answered = desk.text("INVITE", udp(), "c", "", 2, &credentials, OFFER);
    while desk.knock("fill") == "407" {}
    let read = desk.text("INVITE", udp(), "other", "", 1, "", OFFER);
    // As many are read as may come in.
    let passed = (0..20).take_while(|_| !desk.is_turned_away(&read)).count();
    assert!((1..=5).contains(&passed), "{passed}");
    let tables = desk.core.counts();
    desk.take_sent();
    assert!(desk.is_turned_away(&invite));
    let at_sight = desk.last_sent();
    desk.take(udp(), &invite);
    let when_read = desk.last_sent();
    assert_eq!((at_sight.status(), at_sight.to_tag()), (Some(503), when_read.to_tag()));
    assert!((5..15).contains(&retry_after(&desk.sent[0].1)));
    let ack = |tag: &str| invite.replace("INVITE", "ACK").replacen("\r\nCall-ID", &format!(";tag={tag}\r\nCall-ID"), 1);
    assert!(desk.is_turned_away(&ack(at_sight.to_tag().expect("a tag"))));
    desk.take_sent();
    let in_dialog = desk.text("INVITE", udp(), "up", &up.to_tag, 9, "", OFFER);
    for kept in
        [&ringing, &answered, &ack("another"), &in_dialog, &desk.text("BYE", udp(), "up", &up.to_tag, 3, "", "")]
    {
        assert!(!desk.is_turned_away(kept), "{kept}");
    }
    assert!(desk.take_sent().is_empty(), "an ACK has no answer, nor has what is read");
    assert_eq!(desk.core.counts(), tables, "nothing is kept of it");
    // Over ten seconds, of fifty a second, about as many are read as are let in.
    let (mut challenged, mut in_vain) = (0, 0);
    for n in 0..500 {
        desk.wait(Duration::from_millis(20));
        let invite = desk.text("INVITE", udp(), &format!("n{n}"), "", 1, "", OFFER);
        if !desk.is_turned_away(&invite) {
            desk.take(udp(), &invite);
            let is_challenged = desk.kinds_of_last() == "407";
            challenged += u32::from(is_challenged);
            in_vain += u32::from(!is_challenged);
        }
    }
    assert!((49..=51).contains(&challenged) && in_vain <= 5, "{challenged} challenged, {in_vain} read in vain");
}

#[test]
fn while_set_up_stands_still_new_calls_are_refused_and_let_in_again_when_it_goes_on() {
    let mut desk = Desk::new();
    let mut talk = desk.talk(udp(), "up");
    let stuck = desk.undecided(30);
    desk.wait(Duration::from_millis(40));
    assert_eq!(desk.knock("soon"), "407", "they have not waited long");
    desk.wait(Duration::from_millis(1_100));
    assert_eq!(desk.knock("late"), "503");
    retry_after(&desk.sent.last().expect("an answer").1);
    desk.take_sent();
    desk.in_dialog(&mut talk, "BYE", "", "");
    desk.leg(LegCommand::Settled { call: talk.leg.call });
    assert_eq!(desk.kinds(), ["200"], "a BYE is answered");
    let figures = desk.core.figures().overload;
    assert_eq!((figures.limit, figures.delay), (Some(0), 1));
    for leg in stuck {
        desk.leg(LegCommand::Reject { leg, status: 402, reason: None, retry_after_s: None });
    }
    desk.wait(Duration::from_millis(150));
    desk.knock("ends-the-interval");
    desk.wait(Duration::from_millis(150));
    assert_eq!(desk.knock("again"), "407");
    desk.assert_empty();
}

#[test]
fn a_request_without_room_to_wait_is_refused_unless_it_is_a_repetition() {
    let mut desk = Desk::new();
    let second = desk.invite(udp(), "c");
    desk.take_sent();
    let surplus = |desk: &mut Desk, text: &str| {
        let message = Message::parse_datagram(&Bytes::from(text.to_owned())).expect("well-formed");
        desk.handle(Input::Surplus(udp(), message.with_source(udp().peer)));
        desk.kinds()
    };
    assert_eq!(surplus(&mut desk, &second), ["100"]);
    let other = desk.text("INVITE", udp(), "d", "", 1, "", OFFER);
    assert_eq!(surplus(&mut desk, &other), ["503"]);
    let register = desk.text("REGISTER", udp(), "r", "", 1, "", "");
    assert_eq!(surplus(&mut desk, &register), ["503"]);
    assert_eq!(desk.core.figures().overload.queue, 2);
}

#[test]
fn when_the_table_is_full_for_new_requests_there_is_room_for_those_of_calls() {
    let mut desk = Desk::with(CoreConfig { transactions_max: 16, ..config() }, 3);
    let mut talk = desk.talk(udp(), "up");
    for n in 0.. {
        if desk.core.counts().server_transactions == 14 {
            break;
        }
        desk.invited(udp(), &format!("c{n}"));
    }
    assert_eq!(desk.knock("late"), "503");
    desk.take_sent();
    desk.in_dialog(&mut talk, "OPTIONS", "", "");
    desk.in_dialog(&mut talk, "BYE", "", "");
    desk.leg(LegCommand::Settled { call: talk.leg.call });
    assert_eq!(desk.kinds(), ["200", "200"]);
    assert_eq!(desk.core.counts().server_transactions, 16);
}

#[test]
fn phones_that_all_register_at_once_leave_room_for_calls() {
    let mut desk = Desk::with(CoreConfig { lookups_max: 16, ..config() }, 3);
    desk.answers = false;
    let mut statuses = Vec::new();
    for n in 0..12 {
        let call_id = format!("r{n}");
        assert_eq!(desk.register(&call_id, 1, ""), "401");
        let credentials = desk.credentials("REGISTER");
        desk.take_sent();
        statuses.push(desk.register(&call_id, 2, &credentials));
    }
    assert_eq!(desk.core.counts().lookups, 8, "half of the room");
    assert_eq!(statuses.iter().filter(|status| *status == "503").count(), 4, "{statuses:?}");
    retry_after(&desk.sent.last().expect("an answer").1);
    desk.invite(udp(), "call");
    assert_eq!(desk.core.counts().lookups, 9, "a call is looked up");
    assert_eq!(desk.core.figures().overload.registrations, 4);
    // They wait long to be handled at all: no more are challenged, calls are.
    for _ in 0..3 {
        desk.handle(Input::Waited { calls: Duration::ZERO, others: Duration::from_millis(60) });
        desk.wait(Duration::from_millis(101));
    }
    assert_eq!((desk.register("late", 1, ""), desk.knock("call2")), ("503".into(), "407".into()));
    desk.handle(Input::Waited { calls: Duration::ZERO, others: Duration::ZERO });
    desk.wait(Duration::from_millis(101));
    assert_eq!(desk.register("later", 1, ""), "401");
}

#[test]
fn registrations_of_a_storm_run_out_at_different_times() {
    let mut desk = Desk::new();
    let granted = |desk: &mut Desk, n: u32| {
        let call_id = format!("r{n}");
        desk.register(&call_id, 1, "");
        let expires = "Expires: 1000\r\n".to_owned() + &desk.credentials("REGISTER");
        assert_eq!(desk.register(&call_id, 2, &expires), "200");
        let text = desk.sent.pop().expect("an answer").1;
        let seconds = text.split(";expires=").nth(1).and_then(|rest| rest.lines().next()).map(str::to_owned);
        seconds.and_then(|seconds| seconds.parse::<u32>().ok()).expect("seconds")
    };
    let all: Vec<u32> = (0..80).map(|n| granted(&mut desk, n)).collect();
    let (first, storm) = all.split_at(50);
    assert!(first.iter().all(|seconds| *seconds == 1_000), "{first:?}");
    let different: std::collections::BTreeSet<_> = storm.iter().collect();
    assert!(different.len() > 10 && storm.iter().all(|seconds| (900..=1_000).contains(seconds)), "{storm:?}");
    desk.wait(Duration::from_secs(1));
    assert_eq!(granted(&mut desk, 80), 1_000, "it is over");
}
