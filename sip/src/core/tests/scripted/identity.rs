//! Who calls, as the carrier is told: From, Privacy (RFC 3323) and P-Asserted-Identity (RFC 3325); and why something ends (RFC 3326).

use super::*;

/// All that a carrier is sent of a call: INVITE, ACK, BYE.
fn call_over(trusted: bool, presentation: Presentation) -> Vec<String> {
    let mut desk = Desk::new();
    let leg = some_call();
    desk.leg(LegCommand::Invite(Box::new(Invite { trusted, presentation, ..outgoing(leg) })));
    let invite = desk.last_sent();
    desk.carrier(&invite, 200, "x", ANSWER);
    desk.leg(LegCommand::Confirm { leg, answer: None });
    desk.leg(LegCommand::HangUp { leg, cause: HangupCause::OtherLeg });
    desk.sent_to(CARRIER.into())
}

#[test]
fn p1_a_withheld_number_is_asserted_to_trusted_carriers_and_shown_to_none() {
    let asserted = "<sip:+442079460123@localhost>";
    let shown = ("<sip:+442079460123@localhost>;tag=tag", None, None);
    let withheld = ("\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=tag", Some("id"));
    let cases = [
        // Trusted, withheld; From, Privacy and the asserted identity; how often the INVITE and the others name the number.
        (false, false, shown, [1, 1, 1]),
        (true, false, shown, [1, 1, 1]),
        (false, true, (withheld.0, withheld.1, None), [0, 0, 0]),
        (true, true, (withheld.0, withheld.1, Some(asserted)), [1, 0, 0]),
    ];
    for (trusted, is_withheld, (from, privacy, identity), named) in cases {
        let presentation = if is_withheld { Presentation::Withheld } else { Presentation::Shown };
        let sent = call_over(trusted, presentation(presented()));
        let invite = Message::parse_datagram(&sent[0].clone().into()).expect("readable");
        let told = [HeaderName::From, HeaderName::Privacy, HeaderName::PAssertedIdentity].map(|name| invite.text(name));
        assert_eq!(told, [Some(from), privacy, identity], "trusted {trusted}, withheld {is_withheld}");
        let numbers: Vec<_> = sent.iter().map(|text| text.matches("442079460123").count()).collect();
        assert_eq!(numbers, named, "trusted {trusted}, withheld {is_withheld}: {sent:?}");
    }
}

#[test]
fn our_bye_cancel_and_refusals_say_why() {
    let reason = |message: &Message| message.text(HeaderName::Reason).map(str::to_owned);
    let mut desk = Desk::new();
    let talk = desk.talk(udp(), "c");
    desk.leg(LegCommand::HangUp { leg: talk.leg, cause: HangupCause::FundsExhausted });
    let bye = desk.last_sent();
    assert_eq!(
        (bye.method(), reason(&bye).as_deref()),
        (&Method::Bye, Some("Q.850;cause=21;text=\"the balance ran out\""))
    );

    let leg = some_call();
    let invite = desk.dial(leg);
    desk.carrier(&invite, 180, "x", "");
    desk.leg(LegCommand::HangUp { leg, cause: HangupCause::NoAnswer });
    let cancel = desk.last_sent();
    let why = reason(&cancel);
    assert_eq!((cancel.method(), why.as_deref()), (&Method::Cancel, Some("Q.850;cause=19;text=\"call cleared\"")));

    let leg = desk.invited(udp(), "d").leg;
    let words = Some("no route to this destination".into());
    desk.leg(LegCommand::Reject { leg, status: 404, reason: words, retry_after_s: None });
    let refusal = desk.last_sent();
    let why = reason(&refusal);
    assert_eq!(
        (refusal.status(), why.as_deref()),
        (Some(404), Some("SIP;cause=404;text=\"no route to this destination\""))
    );
}

#[test]
fn tags_have_64_bits_that_differ_from_call_to_call_and_process_to_process() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in [3, 4] {
        let mut desk = Desk::with(config(), seed);
        desk.trunks(vec![trunk()]);
        let probe = desk.last_sent();
        seen.insert(probe.from_tag().expect("ours").to_owned());
        for call_id in ["c", "d"] {
            let first = desk.text("INVITE", udp(), call_id, "", 1, "", OFFER);
            desk.take(udp(), &first);
            seen.insert(desk.last_sent().to_tag().expect("a challenge's").to_owned());
            let talk = desk.talk(udp(), call_id);
            seen.insert(talk.to_tag);
        }
    }
    assert_eq!(seen.len(), 2 * (1 + 2 * 2), "{seen:?}");
    assert!(seen.iter().all(|tag| tag.len() == 16 && tag.bytes().all(|byte| byte.is_ascii_hexdigit())), "{seen:?}");
}
