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

/// The answer to a REGISTER of `name` with a wrong secret, without its nonces.
fn answer_to(core: &mut Core, name: &str, serial: u32) -> String {
    let begin = Now { mono: Mono(1_000_000), wall: Timestamp(1_700_000_000_000_000) };
    let now = begin.after(Duration::from_millis(u64::from(serial) * 100));
    let (flow, mut sent) = (udp(), Vec::new());
    let text = |cseq: u32, more: &str| {
        let via = format!("SIP/2.0/UDP {PHONE};branch=z9hG4bK{serial:08}{cseq}", PHONE = flow.peer);
        format!(
            "REGISTER sip:localhost SIP/2.0\r\nVia: {via}\r\nMax-Forwards: 70\r\nFrom: <sip:a@localhost>;tag=a\r\nTo: <sip:a@localhost>\r\nCall-ID: {serial:08}\r\nCSeq: {cseq} REGISTER\r\n{more}Content-Length: 0\r\n\r\n"
        )
    };
    let mut take = |text: String, sent: &mut Vec<Bytes>| {
        let message = Message::parse_datagram(&Bytes::from(text)).expect("well-formed").with_source(flow.peer);
        let found =
            if name == "demo" { CredentialLookup::Found(Box::new(credential())) } else { CredentialLookup::Unknown };
        let mut found = Some(found);
        core.handle(Input::Message(flow, message), now);
        while let Some(output) = core.poll_output() {
            match output {
                Output::Send(_, bytes) => sent.push(bytes),
                Output::Edge(EdgeEvent::CredentialWanted { ticket, .. }) => {
                    let found = found.take().expect("asked once");
                    core.handle(Input::Edge(EdgeCommand::Credential { ticket, found }), now);
                }
                other => panic!("nothing else: {other:?}"),
            }
        }
    };
    take(text(1, ""), &mut sent);
    let first = Message::parse_datagram(&sent.pop().expect("a challenge")).expect("readable");
    let challenge = Challenge::best_of(&first).expect("a challenge");
    let answer = challenge.answer(name, "wrong", "REGISTER", "sip:localhost", "c", 1);
    take(text(2, &format!("Authorization: {answer}\r\n")), &mut sent);
    let last = String::from_utf8(sent.pop().expect("an answer").to_vec()).expect("text");
    let mut parts = last.split("nonce=\"");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |shown, part| shown + part.split_once('"').map_or("", |(_, rest)| rest))
}

#[test]
fn an_unknown_name_and_a_wrong_secret_are_answered_with_the_same_bytes() {
    let answer = |name| {
        let mut core = Core::new(config(), Entropy::from_number(3)).expect("a realm");
        answer_to(&mut core, name, 1)
    };
    let (unknown, wrong) = (answer("nemo"), answer("demo"));
    assert!(wrong.starts_with("SIP/2.0 401 ") && wrong.contains("WWW-Authenticate"), "{wrong}");
    assert_eq!(unknown, wrong);
}
