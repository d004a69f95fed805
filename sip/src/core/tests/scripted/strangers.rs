//! Floods, guesses and scanners from elsewhere, while an owner's phone goes on.

use super::overload::cancel_of;
use super::*;
use crate::core::authenticate::REFUSAL;
use crate::flow::Standing;

/// Not of a network that the test's configuration exempts.
fn at(last: u8) -> Flow {
    Flow::udp(SocketAddr::from(([192, 0, 2, last], 5100)))
}

impl Desk {
    /// An INVITE with a wrong answer to a challenge that was asked for from `asked`; `None` when there was none.
    fn guessing(&mut self, asked: Flow, flow: Flow) -> Option<String> {
        self.take_sent();
        let first = self.text("INVITE", asked, "guess", "", 1, "", OFFER);
        self.take(asked, &first);
        if self.sent.is_empty() {
            return None;
        }
        let challenge = Challenge::best_of(&self.last_sent()).expect("a challenge");
        let answer = challenge.answer("demo", "a guess", "INVITE", TARGET, "c", 1);
        let wrong = format!("Proxy-Authorization: {answer}\r\n");
        self.take_sent();
        Some(self.text("INVITE", flow, "guess", "", 2, &wrong, OFFER))
    }

    /// An INVITE with a wrong answer to the challenge given to `asked`, sent from `flow`; what it is answered.
    fn guess(&mut self, asked: Flow, flow: Flow) -> Vec<String> {
        let Some(text) = self.guessing(asked, flow) else { return Vec::new() };
        self.take(flow, &text);
        self.wait(REFUSAL);
        // Refusals of earlier guesses, which are not acknowledged, are repeated.
        self.sent.retain(|(to, _)| *to == flow.peer);
        let mut kinds = self.kinds();
        kinds.dedup();
        kinds
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
    let now = desk.now.mono;
    let standings = [9, 1, 8].map(|last| desk.core.standing(Protocol::Tls, at(last).peer, now));
    assert_eq!(standings, [Standing::Banned, Standing::Known, Standing::Stranger]);
    desk.in_dialog(&mut talk, "OPTIONS", "", "");
    assert_eq!(desk.kinds(), ["200"]);
    desk.invited(at(1), "again");
    desk.wait(Duration::from_secs(600));
    desk.take_sent();
    assert_eq!(desk.guess(at(9), at(9)), ["100", "407"]);
}

#[test]
fn a_guess_that_is_taken_back_at_once_counts() {
    let mut desk = Desk::new();
    desk.talk(at(1), "owner");
    desk.answers = false;
    for guess in 0..10 {
        let invite = desk.guessing(at(9), at(9)).expect("a challenge");
        desk.take(at(9), &invite);
        desk.take(at(9), &cancel_of(&invite));
        desk.sent.retain(|(to, _)| *to == at(9).peer);
        assert_eq!(desk.kinds(), ["100", "200", "487"], "guess {guess}");
        let ticket = desk.wanted.pop().expect("a question");
        desk.answer(ticket);
    }
    assert_eq!((desk.core.figures().guard.bans, desk.core.figures().guard.failures), (1, 10));
    assert_eq!(desk.guessing(at(9), at(9)), None, "banned");
    desk.wait(Duration::from_secs(1));
    assert_eq!(desk.core.figures().tables.lookups, 0, "nobody waits for an answer");
}

#[test]
fn a_scanner_over_a_connection_is_banned_and_one_that_may_be_forged_is_not() {
    let mut desk = Desk::new();
    let scan = |desk: &mut Desk, flow: Flow| {
        for n in 0..4 {
            let text = desk.text("OPTIONS", flow, &format!("scan{n}"), "", 1, "User-Agent: friendly-scanner\r\n", "");
            desk.take(flow, &text);
        }
        assert!(desk.sent.is_empty(), "no answer");
        let now = desk.now.mono;
        desk.core.standing(Protocol::Tls, flow.peer, now)
    };
    assert_eq!(scan(&mut desk, at(1)), Standing::Stranger);
    let connected = Flow { protocol: Protocol::Tcp, connection: Some(ConnectionId(7)), ..at(2) };
    assert_eq!(scan(&mut desk, connected), Standing::Banned);
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
    // Nor what they send that breaks a rule; over a connection it counts as much.
    let broken = text.replace("CSeq: 1 OPTIONS", "CSeq: 1 BYE");
    let error = |text: &str| Message::parse_datagram(&Bytes::from(text.to_owned())).expect_err("a rule is broken");
    let connected = Flow { protocol: Protocol::Tcp, connection: Some(ConnectionId(7)), ..at(2) };
    let now = desk.now;
    assert!(!desk.core.may_refuse(udp(), &error(&broken), now));
    for _ in 0..4 {
        assert!(!desk.core.may_refuse(connected, &error(&broken), now));
    }
    assert_eq!(desk.core.standing(Protocol::Tls, connected.peer, now.mono), Standing::Banned);
    let other = broken.replace("friendly-scanner", "some phone");
    assert!(desk.core.may_refuse(at(3), &error(&other), now));
}

#[test]
fn a_look_at_what_we_can_do_says_it() {
    let mut desk = Desk::new();
    let text = desk.text("OPTIONS", udp(), "look", "", 1, "", "");
    desk.take(udp(), &text);
    let answer = desk.last_sent();
    assert_eq!(answer.status(), Some(200));
    assert!(answer.allow().any(|method| method == "INVITE") && answer.text(HeaderName::Accept).is_some());
    assert_eq!(answer.text(HeaderName::Supported), Some("timer, 100rel, path, outbound"));
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

/// The answer to such a request of `name` with a wrong secret, without its nonces, and how long after the request it leaves when the
/// look-up takes so long.
fn answer_to(method: &str, name: &str, look_up: Duration) -> (String, Duration) {
    let mut core = Core::new(config(), Entropy::from_number(3)).expect("a realm");
    let begin = Now { mono: Mono(1_000_000), wall: Timestamp(1_700_000_000_000_000) };
    let flow = udp();
    let mut take = |input: Input, now: Now| {
        core.handle(input, now);
        let outputs: Vec<_> = std::iter::from_fn(|| core.poll_output()).collect();
        (outputs, core.next_timeout())
    };
    let (uri, to, credentials) = match method {
        "REGISTER" => ("sip:localhost", "sip:a@localhost", "Authorization"),
        _ => (TARGET, TARGET, "Proxy-Authorization"),
    };
    let mut ask = |cseq: u32, more: &str| {
        let via = format!("SIP/2.0/UDP {PHONE};branch=z9hG4bK{cseq}", PHONE = flow.peer);
        let text = format!(
            "{method} {uri} SIP/2.0\r\nVia: {via}\r\nMax-Forwards: 70\r\nFrom: <sip:a@localhost>;tag=a\r\nTo: <{to}>\r\nCall-ID: c\r\nCSeq: {cseq} {method}\r\nContact: <sip:a@{PHONE}>\r\n{more}Content-Length: 0\r\n\r\n",
            PHONE = flow.peer
        );
        let message = Message::parse_datagram(&Bytes::from(text)).expect("well-formed").with_source(flow.peer);
        take(Input::Message(flow, message), begin).0
    };
    let Some(Output::Send(_, challenge)) = ask(1, "").pop() else { panic!("no challenge") };
    let challenge = Challenge::best_of(&Message::parse_datagram(&challenge).expect("readable")).expect("a challenge");
    let answer = challenge.answer(name, "wrong", method, uri, "c", 1);
    let outputs = ask(2, &format!("{credentials}: {answer}\r\n"));
    let wanted = outputs.iter().find_map(|output| match output {
        Output::Edge(EdgeEvent::CredentialWanted { ticket, .. }) => Some(*ticket),
        _ => None,
    });
    let Some(ticket) = wanted else { panic!("{outputs:?}") };
    let found =
        if name == "demo" { CredentialLookup::Found(Box::new(credential())) } else { CredentialLookup::Unknown };
    let found_at = begin.after(look_up);
    let (mut sent, mut next) = take(Input::Edge(EdgeCommand::Credential { ticket, found }), found_at);
    assert_eq!(sent.is_empty(), look_up < REFUSAL, "{sent:?}");
    let mut now = found_at;
    while sent.is_empty() {
        now = now.after(next.expect("an answer is due").since(now.mono));
        (sent, next) = take(Input::Timeout, now);
    }
    let Some(Output::Send(_, last)) = sent.pop() else { panic!("{sent:?}") };
    let last = String::from_utf8(last.to_vec()).expect("text");
    let mut parts = last.split("nonce=\"");
    let first = parts.next().unwrap_or_default().to_owned();
    let text = parts.fold(first, |shown, part| shown + part.split_once('"').map_or("", |(_, rest)| rest));
    (text, now.mono.since(begin.mono))
}

#[test]
fn an_unknown_name_and_a_wrong_secret_are_answered_with_the_same_bytes_at_the_same_time() {
    for (method, challenge) in
        [("REGISTER", "401 Unauthorized\r\n"), ("INVITE", "407 Proxy Authentication Required\r\n")]
    {
        let (wrong, at) = answer_to(method, "demo", Duration::from_millis(30));
        assert!(wrong.strip_prefix("SIP/2.0 ").is_some_and(|rest| rest.starts_with(challenge)), "{wrong}");
        assert!(wrong.contains("-Authenticate: Digest "), "{wrong}");
        assert_eq!(at, REFUSAL);
        assert_eq!(answer_to(method, "nemo", Duration::from_micros(100)), (wrong, at));
        // One that takes longer than that is answered as soon as it is done.
        let late = REFUSAL + Duration::from_millis(1);
        assert_eq!(answer_to(method, "nemo", late).1, late);
    }
}

/// Where connections are scarce those of strangers end first.
#[test]
fn a_connection_is_trusted_for_a_digest_a_dialog_or_a_trunk() {
    let mut desk = Desk::new();
    let mut talk = desk.talk(tls(1, 1), "talk");
    assert!(desk.trusted.contains(&tls(1, 1)));
    let stranger = tls(2, 9);
    let options = desk.text("OPTIONS", stranger, "scan", "", 1, "", "");
    desk.take(stranger, &options);
    assert!(!desk.trusted.contains(&stranger));
    // A phone behind a proxy: its dialog goes on over a connection on which nobody signed in.
    talk.flow = tls(3, 2);
    desk.in_dialog(&mut talk, "OPTIONS", "", "");
    assert!(desk.trusted.contains(&tls(3, 2)));
    let trunk = Flow { protocol: Protocol::Tcp, peer: CARRIER.into(), connection: Some(ConnectionId(4)) };
    let gateway = Gateway { transport: GatewayTransport::Tcp, address: CARRIER.into() }.into();
    let id = TrunkId::generate(&mut Entropy::from_number(6), Timestamp(0));
    let address = TrunkAddress { trunk: id, gateway, large_over_tcp: false, login: None };
    desk.handle(Input::Edge(EdgeCommand::Trunks(vec![address])));
    let options = desk.text("OPTIONS", trunk, "health", "", 1, "", "");
    desk.take(trunk, &options);
    assert!(desk.trusted.contains(&trunk));
    // While dialogs are resumed any tag may be one's: its request waits, its connection earns nothing.
    let mut desk = Desk::new();
    desk.core = desk.core.recovering();
    let bye = desk.text("BYE", stranger, "talk", "x", 1, "", "");
    desk.take(stranger, &bye);
    assert!(desk.trusted.is_empty() && desk.sent.is_empty());
    desk.handle(Input::Edge(EdgeCommand::Recovered));
    assert_eq!((desk.kinds(), desk.trusted.len()), (vec!["481".to_owned()], 0));
}
