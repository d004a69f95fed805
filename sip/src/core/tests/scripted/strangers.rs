//! Floods, guesses and scanners from elsewhere, while an owner's phone goes on.

use super::*;

/// Not of a network that the test's configuration exempts.
fn at(last: u8) -> Flow {
    Flow::udp(SocketAddr::from(([192, 0, 2, last], 5100)))
}

impl Desk {
    /// An INVITE with a wrong answer to the challenge given to `asked`, sent from `flow`; what it is answered.
    fn guess(&mut self, asked: Flow, flow: Flow) -> Vec<String> {
        self.take_sent();
        let first = self.text("INVITE", asked, "guess", "", 1, "", OFFER);
        self.take(asked, &first);
        if self.sent.is_empty() {
            return Vec::new();
        }
        let challenge = Challenge::best_of(&self.last_sent()).expect("a challenge");
        let answer = challenge.answer("demo", "a guess", "INVITE", TARGET, "c", 1);
        let wrong = format!("Proxy-Authorization: {answer}\r\n");
        self.take_sent();
        let text = self.text("INVITE", flow, "guess", "", 2, &wrong, OFFER);
        self.take(flow, &text);
        self.handle(Input::Timeout);
        self.kinds()
    }
}

#[test]
fn ten_wrong_answers_ban_a_source_and_no_other() {
    let mut desk = Desk::new();
    let mut talk = desk.talk(at(1), "owner");
    for guess in 0..10 {
        assert_eq!(desk.guess(at(9), at(9)), ["100", "407"], "guess {guess}");
    }
    assert!(desk.guess(at(9), at(9)).is_empty(), "banned");
    assert_eq!((desk.core.figures().guard.bans, desk.core.figures().guard.failures), (1, 10));
    desk.in_dialog(&mut talk, "OPTIONS", "", "");
    assert_eq!(desk.kinds(), ["200"]);
    desk.invited(at(1), "again");
    desk.wait(Duration::from_secs(600));
    desk.take_sent();
    assert_eq!(desk.guess(at(9), at(9)), ["100", "407"]);
}

#[test]
fn a_forged_source_is_not_banned_for_what_it_did_not_send() {
    let mut desk = Desk::new();
    // The attacker's own nonce, on datagrams that name a victim's address as their source.
    for _ in 0..30 {
        desk.guess(at(9), at(1));
        desk.wait(Duration::from_secs(1));
    }
    let counts = desk.core.figures().guard;
    assert_eq!((counts.failures, counts.bans), (0, 0));
    desk.invited(at(1), "victim");
}

#[test]
fn a_flood_is_not_answered_and_dialogs_and_known_phones_go_on() {
    let mut desk = Desk::new();
    let mut talk = desk.talk(at(1), "owner");
    for flooder in [at(9), at(1)] {
        for _ in 0..100 {
            let text = desk.text("OPTIONS", flooder, "flood", "", 1, "", "");
            desk.take(flooder, &text);
        }
        let answered = desk.kinds().len();
        assert_eq!(answered, if flooder == at(1) { 100 } else { 40 }, "{flooder:?}");
    }
    desk.in_dialog(&mut talk, "BYE", "", "");
    assert!(desk.take_legs().iter().any(|event| matches!(event, LegEvent::Ended { .. })));
    desk.invited(at(1), "again");
    // A dialog whose phone moved to where the flood comes from.
    let mut moved = Talk { flow: at(9), ..desk.talk(at(1), "moving") };
    desk.in_dialog(&mut moved, "BYE", "", "");
    assert_eq!(desk.kinds(), ["407"]);
}

#[test]
fn scanners_are_not_answered() {
    let mut desk = Desk::new();
    let text = desk.text("OPTIONS", udp(), "scan", "", 1, "User-Agent: friendly-scanner\r\n", "");
    desk.take(udp(), &text);
    assert!(desk.sent.is_empty());
    assert_eq!(desk.core.figures().guard.scanners, 1);
}

#[test]
fn a_name_guessed_at_from_many_places_is_slow_for_strangers_only() {
    let mut desk = Desk::new();
    desk.talk(at(1), "owner");
    for guess in 0..20 {
        assert_eq!(desk.guess(at(100 + guess), at(100 + guess)), ["100", "407"]);
    }
    assert_eq!(desk.guess(at(200), at(200)), ["100", "407"], "one in 30 s");
    assert_eq!(desk.guess(at(201), at(201)), ["503"]);
    desk.invited(at(1), "again");
    assert_eq!(desk.core.figures().guard.accounts_slowed, 1);
}
