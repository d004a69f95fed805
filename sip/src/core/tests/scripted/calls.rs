//! Calls whose messages cross, fork, move or never come.

use super::*;

#[test]
fn a_cancel_that_overtakes_the_credential_ends_the_invite() {
    let mut desk = Desk::new();
    desk.answers = false;
    let invite = desk.invite(udp(), "c");
    desk.take_sent();
    let branch = invite.split("branch=").nth(1).and_then(|rest| rest.split("\r\n").next()).expect("a branch");
    let cancel = desk.text("CANCEL", udp(), "c", "", 2, "", "");
    let own = cancel.split("branch=").nth(1).and_then(|rest| rest.split("\r\n").next()).expect("a branch");
    let cancel = cancel.replace(own, branch);
    desk.take(udp(), &cancel);
    assert_eq!(desk.kinds(), ["200", "487"]);
    let ticket = desk.wanted[0];
    desk.answer(ticket);
    desk.handle(Input::Timeout);
    assert!(desk.legs.is_empty());
    desk.assert_empty();
}

#[test]
fn a_200_without_ack_is_repeated_and_ends_in_a_bye_after_32_seconds() {
    for flow in [udp(), tls(1, 1)] {
        let mut desk = Desk::new();
        let leg = desk.invited(flow, "c").leg;
        desk.take_sent();
        desk.leg(LegCommand::Accept { leg, sdp: Some(Pii::new(ANSWER.into())) });
        desk.wait(Duration::from_millis(31_999));
        assert_eq!(desk.kinds(), ["200"; 11], "at 0, 0.5, 1.5, 3.5, 7.5, then every 4 s");
        assert!(desk.legs.is_empty());
        desk.wait(Duration::from_millis(1));
        assert!(matches!(desk.take_legs()[..], [LegEvent::Ended { cause: EndCause::NoAck, .. }]));
        assert_eq!(desk.kinds(), ["BYE"]);
        desk.assert_empty();
    }
}

#[test]
fn a_hang_up_before_the_ack_waits_for_it() {
    let mut desk = Desk::new();
    let leg = desk.invited(udp(), "c").leg;
    desk.leg(LegCommand::Accept { leg, sdp: Some(Pii::new(ANSWER.into())) });
    let tag = desk.last_sent().to_tag().expect("a tag").to_owned();
    desk.take_sent();
    desk.leg(LegCommand::HangUp { leg, cause: HangupCause::OtherLeg });
    assert!(desk.take_sent().is_empty());
    let ack = desk.text("ACK", udp(), "c", &tag, 2, "", "");
    desk.take(udp(), &ack);
    assert_eq!(desk.kinds(), ["BYE"]);
    let told = desk.take_legs();
    assert!(
        matches!(told[..], [LegEvent::Confirmed { .. }, LegEvent::Ended { cause: EndCause::HungUp, .. }]),
        "{told:?}"
    );
    desk.assert_empty();
}

/// RFC 3261 §9.2: what is answered cannot be taken back.
#[test]
fn a_cancel_after_our_200_changes_nothing() {
    for acknowledged in [false, true] {
        let mut desk = Desk::with(CoreConfig { dialog_probe: Duration::ZERO, ..config() }, 3);
        let leg = desk.invited(udp(), "c").leg;
        let branch = |desk: &Desk| format!("branch=z9hG4bKp{}\r\n", desk.serial);
        let of_invite = branch(&desk);
        desk.leg(LegCommand::Accept { leg, sdp: Some(Pii::new(ANSWER.into())) });
        let to_tag = desk.last_sent().to_tag().expect("a tag").to_owned();
        desk.take_sent();
        let ack = desk.text("ACK", udp(), "c", &to_tag, 2, "", "");
        if acknowledged {
            desk.take(udp(), &ack);
            desk.take_legs();
        }
        let cancel = desk.text("CANCEL", udp(), "c", "", 2, "", "").replace(&branch(&desk), &of_invite);
        for _ in 0..2 {
            desk.take(udp(), &cancel);
            let ok = desk.last_sent();
            assert_eq!((ok.cseq().1, ok.to_tag()), (&Method::Cancel, Some(&*to_tag)));
            assert_eq!(desk.kinds(), ["200"]);
            assert!(desk.take_legs().is_empty());
        }
        if !acknowledged {
            desk.take(udp(), &ack);
            assert!(matches!(desk.take_legs()[..], [LegEvent::Confirmed { .. }]));
        }
        let mut talk = Talk { leg, call_id: "c".into(), to_tag, cseq: 2, flow: udp() };
        desk.in_dialog(&mut talk, "BYE", "", "");
        desk.leg(LegCommand::Settled { call: leg.call });
        assert_eq!(desk.kinds(), ["200"]);
        assert!(matches!(desk.take_legs()[..], [LegEvent::Ended { cause: EndCause::Bye { .. }, .. }]));
        desk.assert_empty();
    }
}

#[test]
fn an_unchanged_session_is_refreshed_without_the_other_leg() {
    let mut desk = Desk::with(CoreConfig { dialog_probe: Duration::ZERO, ..config() }, 3);
    let mut talk = desk.talk(udp(), "c");
    let newer = OFFER.replace("phone 1 1", "phone 1 2");
    let cases: [(&str, &str, &str, &str); 9] = [
        ("INFO", "Content-Type: text/plain\r\n", "hello", "415"),
        ("REFER", "Refer-To: <sip:x@localhost>\r\n", "", "405"),
        ("NONSENSE", "", "", "501"),
        ("OPTIONS", "", "", "200"),
        ("UPDATE", "Require: 100rel\r\n", "", "420"),
        ("UPDATE", "Content-Type: text/plain\r\n", "hello", "415"),
        ("UPDATE", "", "", "200"),
        ("UPDATE", "", &newer, "200"),
        ("INVITE", "", "v=0\r\nnonsense\r\n", "488"),
    ];
    for (method, more, body, status) in cases {
        desk.in_dialog(&mut talk, method, more, body);
        assert_eq!(desk.kinds(), [status], "{method} {more}");
    }
    // The 488 is acknowledged within its transaction; a refresh is repeated until its ACK.
    desk.wait(Duration::from_secs(33));
    desk.take_sent();
    desk.in_dialog(&mut talk, "INVITE", "", OFFER);
    let ok = desk.last_sent();
    assert!(ok.has_sdp() && ok.status() == Some(200));
    desk.in_dialog(&mut talk, "INVITE", "", OFFER);
    desk.wait(Duration::from_secs(1));
    assert_eq!(desk.kinds(), ["200", "491", "200", "491"], "the second INVITE crosses the first");
    let ack = desk.text("ACK", udp(), "c", &talk.to_tag.clone(), talk.cseq - 1, "", "");
    desk.take(udp(), &ack);
    assert!(desk.take_legs().is_empty(), "a refresh is nobody's business");
    talk.cseq -= 5;
    desk.in_dialog(&mut talk, "BYE", "", "");
    assert!(desk.kinds().contains(&"500".to_owned()), "it was overtaken");
    talk.cseq += 5;
    desk.in_dialog(&mut talk, "BYE", "", "");
    desk.leg(LegCommand::Settled { call: talk.leg.call });
    assert_eq!(desk.kinds(), ["200"]);
    desk.in_dialog(&mut talk, "BYE", "", "");
    assert_eq!(desk.kinds(), ["200"], "repeated in another transaction");
    desk.in_dialog(&mut talk, "OPTIONS", "", "");
    assert_eq!(desk.kinds(), ["481"]);
    desk.assert_empty();
}

#[test]
fn a_phone_that_moves_is_followed_and_its_checkpoint_renewed() {
    let mut desk = Desk::new();
    let mut talk = desk.talk(udp(), "c");
    talk.flow = Flow::udp(SocketAddr::from(([127, 0, 0, 1], 5199)));
    desk.in_dialog(&mut talk, "UPDATE", "", "");
    assert_eq!(desk.kinds(), ["200"]);
    assert!(matches!(desk.take_legs()[..], [LegEvent::Checkpointed { .. }]));
    desk.in_dialog(&mut talk, "UPDATE", "", "");
    assert!(desk.take_legs().is_empty(), "nothing changed");
    desk.take_sent();
    desk.leg(LegCommand::HangUp { leg: talk.leg, cause: HangupCause::Requested });
    assert_eq!(desk.sent[0].0, talk.flow.peer);
    assert!(desk.sent[0].1.starts_with("BYE sip:demo@127.0.0.1:5199 SIP/2.0"));
}

#[test]
fn a2_a_bye_is_answered_when_the_end_of_its_call_is_durable() {
    let mut desk = Desk::new();
    let mut talk = desk.talk(udp(), "c");
    desk.in_dialog(&mut talk, "BYE", "", "");
    assert!(matches!(desk.take_legs()[..], [LegEvent::Ended { cause: EndCause::Bye { .. }, .. }]));
    talk.cseq -= 1;
    desk.in_dialog(&mut talk, "BYE", "", "");
    assert!(desk.take_sent().is_empty(), "nor is its repetition in a transaction of its own");
    desk.leg(LegCommand::Settled { call: talk.leg.call });
    assert_eq!(desk.kinds(), ["200", "200"]);
    desk.in_dialog(&mut talk, "BYE", "", "");
    assert_eq!(desk.kinds(), ["200"], "from now on at once");
    desk.assert_empty();
}

#[test]
fn a_bye_whose_end_does_not_become_durable_is_answered_before_the_other_side_gives_up() {
    let mut desk = Desk::new();
    let mut talk = desk.talk(udp(), "c");
    desk.in_dialog(&mut talk, "BYE", "", "");
    desk.wait(Duration::from_secs(3));
    assert!(desk.take_sent().is_empty());
    desk.wait(Duration::from_secs(1));
    assert_eq!(desk.kinds(), ["100", "200"], "told after 3.5 s that it waits (RFC 4320)");
    desk.leg(LegCommand::Settled { call: talk.leg.call });
    assert!(desk.take_sent().is_empty(), "once is enough");
    desk.assert_empty();
}

#[test]
fn a_request_from_elsewhere_must_show_the_calls_own_credential() {
    let mut desk = Desk::new();
    let mut talk = desk.talk(udp(), "c");
    talk.flow = Flow::udp(SocketAddr::from(([127, 0, 0, 7], 5100)));
    desk.in_dialog(&mut talk, "BYE", "", "");
    assert!(desk.legs.is_empty());
    let credentials = desk.credentials("BYE");
    assert_eq!(desk.kinds(), ["407"]);
    desk.in_dialog(&mut talk, "BYE", &credentials, "");
    desk.leg(LegCommand::Settled { call: talk.leg.call });
    assert_eq!(desk.kinds(), ["200"]);
    assert!(matches!(desk.take_legs()[..], [LegEvent::Ended { cause: EndCause::Bye { .. }, .. }]));
    desk.assert_empty();
}

#[test]
fn forked_and_repeated_200s_are_acknowledged_and_the_forks_hung_up_once() {
    let mut desk = Desk::new();
    let leg = some_call();
    let invite = desk.dial(leg);
    desk.carrier(&invite, 180, "one", "");
    desk.carrier(&invite, 200, "one", ANSWER);
    assert!(matches!(desk.take_legs()[..], [LegEvent::Progress { .. }, LegEvent::Answered { .. }]));
    desk.take_sent();
    desk.carrier(&invite, 200, "one", ANSWER);
    assert!(desk.take_sent().is_empty(), "the commit is not done");
    desk.leg(LegCommand::Confirm { leg, answer: None });
    desk.carrier(&invite, 200, "one", ANSWER);
    desk.carrier(&invite, 200, "two", ANSWER);
    desk.carrier(&invite, 200, "two", ANSWER);
    let sent = desk.take_sent().into_iter().map(|text| Message::parse_datagram(&Bytes::from(text)).expect("readable"));
    let sent: Vec<_> =
        sent.map(|message| format!("{} {}", message.method(), message.to_tag().unwrap_or("-"))).collect();
    assert_eq!(sent, ["ACK one", "ACK one", "ACK two", "BYE two", "ACK two"]);
    assert!(desk.take_legs().is_empty());
    desk.leg(LegCommand::HangUp { leg, cause: HangupCause::OtherLeg });
    desk.wait(Duration::from_secs(1));
    desk.assert_empty();
}

/// As a proxy forwards it (RFC 3261 §16.7 step 5), or the first answer to an INVITE that was repeated after a restart.
#[test]
fn a_200_behind_a_failure_is_acknowledged_and_ended() {
    let mut desk = Desk::new();
    desk.trunks(vec![trunk()]);
    let leg = some_call();
    let invite = desk.dial(leg);
    desk.carrier(&invite, 180, "one", "");
    desk.leg(LegCommand::HangUp { leg, cause: HangupCause::Cancelled });
    desk.carrier(&invite, 487, "one", "");
    desk.take_sent();
    desk.take_legs();
    desk.carrier(&invite, 200, "two", ANSWER);
    assert_eq!(desk.kinds(), ["ACK", "BYE"]);
    desk.carrier(&invite, 200, "two", ANSWER);
    assert_eq!(desk.kinds(), ["ACK"], "its BYE is under way");
    assert!(desk.take_legs().is_empty(), "it failed before");
    desk.trunks(Vec::new());
    desk.assert_empty();
}

#[test]
fn a_200_repeated_behind_its_transaction_is_acknowledged_anew() {
    let mut desk = Desk::new();
    desk.trunks(vec![trunk()]);
    let leg = some_call();
    let invite = desk.dial(leg);
    desk.carrier(&invite, 200, "one", ANSWER);
    desk.leg(LegCommand::Confirm { leg, answer: None });
    let has_ack = |desk: &Desk| desk.core.legs.get(&leg).expect("up").ack.is_some();
    assert!(has_ack(&desk));
    desk.wait(Duration::from_secs(33));
    assert!(!has_ack(&desk), "it is not kept for the whole call");
    desk.take_sent();
    desk.carrier(&invite, 200, "one", ANSWER);
    assert_eq!(desk.kinds(), ["ACK"]);
}

#[test]
fn a_cancel_waits_for_a_provisional_response_and_a_200_that_crosses_it_is_ended() {
    let mut desk = Desk::new();
    let leg = some_call();
    let invite = desk.dial(leg);
    desk.leg(LegCommand::HangUp { leg, cause: HangupCause::Cancelled });
    desk.wait(Duration::from_millis(600));
    assert_eq!(desk.kinds(), ["INVITE", "INVITE"], "repeated to get a provisional response");
    desk.carrier(&invite, 100, "x", "");
    assert_eq!(desk.kinds(), ["CANCEL"]);
    desk.carrier(&invite, 180, "x", "");
    assert!(desk.take_sent().is_empty(), "cancelled once");
    desk.carrier(&invite, 200, "x", ANSWER);
    assert_eq!(desk.kinds(), ["ACK", "BYE"]);
    assert!(
        matches!(desk.take_legs()[..], [LegEvent::Failed { status: 487, answered: true, .. }]),
        "the carrier charges"
    );
    desk.carrier(&invite, 200, "x", ANSWER);
    assert_eq!(desk.kinds(), ["ACK"], "its BYE is under way");
    desk.assert_empty();
}

#[test]
fn an_answer_that_cannot_be_used_is_ended_and_told_as_one() {
    for sdp in ["", "v=0\r\nnonsense\r\n"] {
        let mut desk = Desk::new();
        let invite = desk.dial(some_call());
        desk.carrier(&invite, 200, "x", sdp);
        assert_eq!(desk.kinds(), ["INVITE", "ACK", "BYE"]);
        assert!(matches!(desk.take_legs()[..], [LegEvent::Failed { status: 502, answered: true, .. }]), "{sdp}");
        desk.assert_empty();
    }
}

/// Nothing of it would reach the carrier.
#[test]
fn an_invite_for_a_fax_alone_is_refused() {
    let mut desk = Desk::new();
    let fax = OFFER.replace("audio 4000 RTP/AVP 0", "image 4002 udptl t38");
    let first = desk.text("INVITE", udp(), "c", "", 1, "", &fax);
    desk.take(udp(), &first);
    let credentials = desk.credentials("INVITE");
    let second = desk.text("INVITE", udp(), "c", "", 2, &credentials, &fax);
    desk.take(udp(), &second);
    assert_eq!(desk.kinds(), ["407", "100", "488"]);
    assert!(desk.take_legs().is_empty());
    desk.assert_empty();
}

/// A carrier that only says that it is at work has not reached anybody: its call may be tried elsewhere.
#[test]
fn only_a_180_or_early_media_says_that_it_rings() {
    for (status, sdp, rings) in
        [(180, "", true), (183, ANSWER, true), (183, "", false), (181, "", false), (182, "", false)]
    {
        let mut desk = Desk::new();
        let invite = desk.dial(some_call());
        desk.carrier(&invite, status, "x", sdp);
        let told = desk.take_legs();
        assert!(
            matches!(told[..], [LegEvent::Progress { status: it, rings: told, .. }] if (it, told) == (status, rings))
        );
        desk.carrier(&invite, 503, "x", "");
        let told = desk.take_legs();
        assert!(matches!(told[..], [LegEvent::Failed { status: 503, rang, .. }] if rang == rings), "{status} {told:?}");
    }
}

#[test]
fn a_redirect_or_a_challenge_without_a_login_ends_the_attempt() {
    for status in [302, 401, 407] {
        let mut desk = Desk::new();
        let invite = desk.dial(some_call());
        desk.carrier(&invite, status, "x", "");
        assert_eq!(desk.kinds(), ["INVITE", "ACK"]);
        assert!(matches!(desk.take_legs()[..], [LegEvent::Failed { status: told, .. }] if told == status));
        desk.assert_empty();
    }
}

#[test]
fn a_connection_that_ends_while_ringing_is_a_cancelled_call() {
    let mut desk = Desk::new();
    desk.invited(tls(1, 1), "c");
    desk.handle(Input::FlowClosed(tls(1, 1)));
    assert!(matches!(desk.take_legs()[..], [LegEvent::Cancelled { .. }]));
    assert_eq!(desk.core.counts().server_transactions, 0);
    desk.assert_empty();
}

#[test]
fn a_bye_waits_for_a_phone_whose_connection_is_gone() {
    let mut desk = Desk::new();
    let talk = desk.talk(tls(1, 1), "c");
    desk.handle(Input::FlowClosed(tls(1, 1)));
    assert!(desk.take_legs().is_empty(), "the call goes on");
    desk.leg(LegCommand::HangUp { leg: talk.leg, cause: HangupCause::FundsExhausted });
    assert!(matches!(desk.take_legs()[..], [LegEvent::Ended { cause: EndCause::HungUp, .. }]));
    assert!(desk.take_sent().is_empty());
    desk.wait(Duration::from_secs(20));
    register(&mut desk, tls(2, 1));
    let kinds = desk.kinds();
    assert_eq!(kinds.last().map(String::as_str), Some("BYE"), "{kinds:?}");
    desk.assert_empty();
}

#[test]
fn a_phone_that_does_not_come_back_is_forgotten() {
    let mut desk = Desk::new();
    let talk = desk.talk(tls(1, 1), "c");
    desk.handle(Input::FlowClosed(tls(1, 1)));
    desk.leg(LegCommand::HangUp { leg: talk.leg, cause: HangupCause::Requested });
    desk.wait(Duration::from_secs(33));
    assert!(desk.core.parked.is_empty());
    register(&mut desk, tls(2, 1));
    assert!(!desk.kinds().contains(&"BYE".to_owned()));
    desk.assert_empty();
}

#[test]
fn legs_that_nobody_decides_about_end_by_themselves() {
    let mut desk = Desk::new();
    desk.invited(udp(), "c");
    let invite = desk.dial(some_call());
    desk.carrier(&invite, 200, "x", ANSWER);
    desk.take_sent();
    desk.take_legs();
    desk.wait(Duration::from_secs(61));
    assert_eq!(desk.kinds()[..2], ["ACK", "BYE"]);
    desk.wait(Duration::from_secs(180));
    assert!(desk.kinds().contains(&"504".to_owned()));
    let told = desk.take_legs();
    assert!(matches!(told[..], [LegEvent::Ended { .. }, LegEvent::Cancelled { .. }]), "{told:?}");
    desk.assert_empty();
}

pub(super) fn register(desk: &mut Desk, flow: Flow) {
    let target =
        |text: String| text.replace(TARGET, "sip:localhost").replace("To: <sip:localhost>", "To: <sip:demo@localhost>");
    let first = target(desk.text("REGISTER", flow, "r", "", desk.serial + 1, "", ""));
    desk.take(flow, &first);
    let credentials = desk.credentials("REGISTER");
    let second = target(desk.text("REGISTER", flow, "r", "", desk.serial + 1, "", ""))
        .replace("Content-Length", &format!("{credentials}Content-Length"));
    desk.take(flow, &second);
}

/// What the person called learns of the caller's affairs (P1): nothing.
#[test]
fn p1_a_carrier_is_not_told_why_its_leg_ends() {
    let causes = [HangupCause::FundsExhausted, HangupCause::AccountSuspended, HangupCause::Requested];
    for (n, cause) in causes.into_iter().enumerate() {
        let mut desk = Desk::new();
        let talk = desk.talk(udp(), &format!("{n}"));
        let b = LegId::b(talk.leg.call, 1);
        let invite = desk.dial(b);
        desk.carrier(&invite, 200, "x", ANSWER);
        desk.take_sent();
        for leg in [talk.leg, b] {
            desk.leg(LegCommand::HangUp { leg, cause });
        }
        let reason = |text: &str| text.lines().find_map(|line| line.strip_prefix("Reason: ").map(str::to_owned));
        let byes = desk.take_sent().into_iter().filter(|text| text.starts_with("BYE "));
        let told: Vec<_> = byes.map(|bye| reason(&bye).expect("a reason")).collect();
        let to_phone = format!("Q.850;cause={};text=\"{}\"", cause.q850(), cause.as_str());
        assert_eq!(told, [to_phone, "Q.850;cause=16;text=\"call cleared\"".to_owned()]);
        let ringing = desk.dial(LegId::b(talk.leg.call, 2));
        desk.carrier(&ringing, 180, "y", "");
        desk.leg(LegCommand::HangUp { leg: LegId::b(talk.leg.call, 2), cause });
        assert_eq!(desk.last_sent().text(HeaderName::Reason), Some("Q.850;cause=16;text=\"call cleared\""));
    }
}

#[test]
fn where_to_complain_is_what_the_network_says_never_where_the_called_phone_is() {
    let card = "<https://block.example/card>;purpose=jwscard";
    let cases = [
        (608, vec![card], Some("https://block.example/card")),
        (603, vec!["<https://x.example/i>;purpose=icon", card], Some("https://block.example/card")),
        (608, vec!["<http://block.example/card>;purpose=jwscard"], None),
        (603, vec![], None),
        (486, vec![card], None),
    ];
    for (status, cards, told) in cases {
        let mut desk = Desk::new();
        let invite = desk.dial(some_call());
        let contact = NameAddr::parse("<sip:ext@203.0.113.9>").expect("valid");
        let response = ResponseBuilder::to_request(&invite, status, Some("x")).contact(&contact);
        let response = cards.iter().fold(response, |response, card| response.header(HeaderName::CallInfo, card));
        let text = String::from_utf8(response.build().expect("complete").to_vec()).expect("text");
        desk.take(Flow::udp(CARRIER.into()), &text);
        let [LegEvent::Failed { redress, .. }] = &desk.take_legs()[..] else { panic!("no failure") };
        assert_eq!(redress.as_deref(), told, "{status} {cards:?}");
    }
}

#[test]
fn a_200_follows_a_phone_whose_connection_ended_before_its_ack() {
    let mut desk = Desk::new();
    register(&mut desk, tls(1, 1));
    let mut talk = desk.talk(tls(1, 1), "c");
    desk.in_dialog(&mut talk, "INVITE", "", OFFER);
    desk.take_sent();
    desk.handle(Input::FlowClosed(tls(1, 1)));
    desk.wait(Duration::from_secs(1));
    assert!(desk.take_sent().is_empty(), "there is no way");
    register(&mut desk, tls(2, 1));
    desk.take_sent();
    desk.wait(Duration::from_secs(4));
    assert!(desk.kinds().contains(&"200".to_owned()));
    let ack = desk.text("ACK", tls(2, 1), "c", &talk.to_tag.clone(), talk.cseq, "", "");
    desk.take(tls(2, 1), &ack);
    desk.wait(Duration::from_secs(40));
    assert!(!desk.take_legs().iter().any(|event| matches!(event, LegEvent::Ended { cause: EndCause::NoAck, .. })));
}

/// RFC 3261 §12.1.1: who calls by `sips:` has a dialog that is `sips:` on our side, too.
#[test]
fn a_sips_call_has_a_sips_contact_and_comes_over_tls_only() {
    let mut desk = Desk::new();
    for (flow, answer) in [(udp(), "416"), (tls(1, 1), "200")] {
        let first = desk.text("INVITE", flow, "c", "", 1, "", OFFER).replacen("sip:", "sips:", 1);
        desk.take(flow, &first);
        let challenge = Challenge::best_of(&desk.last_sent()).expect("a challenge");
        let answered = challenge.answer("demo", "secret", "INVITE", &TARGET.replace("sip:", "sips:"), "c", 1);
        let credentials = format!("Proxy-Authorization: {answered}\r\n");
        let second = desk.text("INVITE", flow, "c", "", 2, &credentials, OFFER).replacen("sip:", "sips:", 1);
        desk.take(flow, &second);
        if let Some(LegEvent::Invited(invited)) = desk.take_legs().pop() {
            desk.leg(LegCommand::Accept { leg: invited.leg, sdp: Some(Pii::new(ANSWER.into())) });
            assert!(desk.last_sent().text(HeaderName::Contact).is_some_and(|contact| contact.starts_with("<sips:")));
        }
        assert_eq!(desk.kinds().last().map(String::as_str), Some(answer));
    }
}

/// Somebody opens a connection, has many calls asked about over it, and is gone.
#[test]
fn all_calls_that_ring_over_a_connection_are_over_when_it_ends_and_nothing_stays() {
    let mut desk = Desk::new();
    let flow = tls(1, 1);
    let mut rings = Vec::new();
    for number in 0..200 {
        let leg = desk.invited(flow, &format!("ring{number}")).leg;
        // Some have got far, of some nobody has heard yet.
        if number % 2 == 0 {
            desk.leg(LegCommand::Progress { leg, status: 180, sdp: None });
        }
        rings.push(leg);
    }
    desk.take_sent();
    desk.handle(Input::FlowClosed(flow));
    let mut over: Vec<_> = desk
        .take_legs()
        .into_iter()
        .map(|event| match event {
            LegEvent::Cancelled { leg } => leg,
            other => panic!("{other:?}"),
        })
        .collect();
    over.sort();
    rings.sort();
    assert_eq!(over, rings);
    // What their actors say too late changes nothing.
    for leg in rings {
        desk.leg(LegCommand::Reject { leg, status: 480, reason: None, retry_after_s: None });
    }
    assert!(desk.take_sent().is_empty() && desk.take_legs().is_empty());
    desk.assert_empty();
}
