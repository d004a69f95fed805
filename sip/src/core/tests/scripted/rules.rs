//! Rules for requests that are not what they should be: loops, numbers that cannot be dialled, methods that nobody offers, and
//! answers that take long.

use super::*;
use crate::core::exchange::Owner;
use crate::core::peers::Way;
use crate::message::{HeaderName, RequestBuilder, Uri, limits};

/// Status, Allow and Reason of the last thing sent.
fn answer(desk: &mut Desk) -> (Option<u16>, Option<String>, Option<String>) {
    let last = desk.last_sent();
    let text = |name| last.text(name).map(str::to_owned);
    (last.status(), text(HeaderName::Allow), text(HeaderName::Reason))
}

#[test]
fn a_request_of_ours_that_comes_back_is_a_loop() {
    let mut desk = Desk::new();
    desk.trunks(vec![trunk()]);
    let options = desk.last_sent();
    let invite = desk.dial(some_call());
    for ours in [&options, &invite] {
        let carrier = Flow::udp(CARRIER.into());
        let via = format!("Via: {}\r\n", ours.top_via());
        let method = ours.method().as_str().to_owned();
        let text = desk.text(&method, carrier, "c", "", 1, "", "");
        // Over another hop, and thrown back as it was.
        let (line, rest) = text.split_once("\r\n").expect("lines");
        let through = format!("{line}\r\n{}", rest.replacen("Max-Forwards", &format!("{via}Max-Forwards"), 1));
        let (_, rest) = rest.split_once("\r\n").expect("lines");
        let back = format!("{line}\r\n{via}{rest}");
        for (flow, text) in [(carrier, &through), (udp(), &through), (carrier, &back)] {
            desk.take_sent();
            desk.take(flow, text);
            assert_eq!(desk.kinds(), ["482"], "{text}");
        }
        // Neither the branch of another method nor another's sent-by is ours.
        let other = through.replace("127.0.0.1:5060", "192.0.2.1:5060");
        desk.take(udp(), &other);
        let other = through.replacen(&method, "MESSAGE", 1).replace(&format!("1 {method}"), "1 MESSAGE");
        desk.take(udp(), &other);
        assert!(!desk.kinds().contains(&"482".to_owned()));
    }
    assert!(desk.take_legs().is_empty());
}

#[test]
fn a_tel_uri_is_called_and_one_that_cannot_be_dialled_is_refused_with_words() {
    let mut desk = Desk::new();
    let at = |text: &str, uri: &str| text.replacen(TARGET, uri, 1);
    for (uri, words) in [
        ("tel:+447700900000;ext=12", "an extension (ext) cannot be dialled"),
        ("tel:900000;phone-context=+447700", "a number of another dial plan (phone-context)"),
    ] {
        let text = at(&desk.text("INVITE", udp(), "c", "", 1, "", OFFER), uri);
        desk.take(udp(), &text);
        let (status, _, reason) = answer(&mut desk);
        assert_eq!((status, reason), (Some(484), Some(format!("SIP;cause=484;text=\"{words}\""))), "{uri}");
    }
    assert_eq!(desk.core.counts(), Counts::default());
    let from = "From: <tel:+44-20-7946-0123>;tag=a";
    let as_tel = |text: String| {
        at(&text, "tel:+44-7700-900000")
            .replace("From: <sip:demo@localhost>;tag=a", from)
            .replace(&format!("To: <{TARGET}>"), "To: <tel:+44-7700-900000>")
    };
    let first = as_tel(desk.text("INVITE", udp(), "d", "", 1, "", OFFER));
    desk.take(udp(), &first);
    let challenge = Challenge::best_of(&desk.last_sent()).expect("a challenge");
    let digest = challenge.answer("demo", "secret", "INVITE", "tel:+44-7700-900000", "c", 1);
    let second = as_tel(desk.text("INVITE", udp(), "d", "", 2, &format!("Proxy-Authorization: {digest}\r\n"), OFFER));
    desk.take(udp(), &second);
    let told = desk.take_legs();
    let [LegEvent::Invited(invited)] = &told[..] else { panic!("{told:?}") };
    assert_eq!(invited.dialled.expose(), "+44-7700-900000");
    assert_eq!(invited.wanted_caller_id.as_ref().cloned(), Some(CallerIdWish::From(Pii::new("+442079460123".into()))));
}

#[test]
fn methods_that_we_do_not_offer_are_refused_with_those_that_we_do() {
    for flow in [udp(), tls(1, 1)] {
        let mut desk = Desk::with(CoreConfig { dialog_probe: Duration::ZERO, ..config() }, 3);
        let mut talk = desk.talk(flow, "c");
        let refer_to = "Refer-To: <sip:+447700900001@localhost>\r\n";
        for (method, more, status) in [
            ("REFER", refer_to, 405),
            ("MESSAGE", "", 405),
            ("SUBSCRIBE", "Event: dialog\r\n", 405),
            ("NOTIFY", "Event: refer\r\n", 405),
            ("PUBLISH", "Event: presence\r\n", 405),
            ("NONSENSE", "", 501),
            ("refer", refer_to, 501),
        ] {
            let text = desk.text(method, flow, "d", "", 1, more, "");
            desk.take(flow, &text);
            let out_of_dialog = answer(&mut desk);
            desk.in_dialog(&mut talk, method, more, "");
            for (told, allow, _) in [out_of_dialog, answer(&mut desk)] {
                assert_eq!(told, Some(status), "{method}");
                let allow = allow.expect("what we do");
                assert!(allow.contains("INVITE") && allow.contains("BYE") && !allow.contains("REFER"), "{allow}");
            }
        }
        assert!(desk.take_legs().is_empty(), "the call goes on");
        desk.in_dialog(&mut talk, "BYE", "", "");
        desk.leg(LegCommand::Settled { call: talk.leg.call });
        desk.assert_empty();
    }
}

#[test]
fn a_request_that_waits_is_told_so_late_enough_and_never_answered_too_late() {
    for flow in [udp(), tls(1, 1)] {
        let mut desk = Desk::with(CoreConfig { dialog_probe: Duration::ZERO, ..config() }, 3);
        let mut talk = desk.talk(flow, "c");
        let held = format!("{OFFER}a=sendonly\r\n");
        talk.cseq += 1;
        let text = desk.text("UPDATE", flow, "c", &talk.to_tag.clone(), talk.cseq, "", &held);
        desk.take(flow, &text);
        desk.wait(Duration::from_millis(3_499));
        desk.take(flow, &text);
        assert!(desk.take_sent().is_empty(), "RFC 4320 §4.1: not before the client has slowed down");
        desk.wait(Duration::from_millis(1));
        assert_eq!(desk.kinds(), ["100"]);
        desk.take(flow, &text);
        assert_eq!(desk.kinds(), ["100"], "repeated");
        desk.leg(LegCommand::AnswerOffer { leg: talk.leg, answer: Ok(Pii::new(ANSWER.into())) });
        desk.take(flow, &text);
        let again: &[&str] = if flow.protocol == Protocol::Udp { &["200", "200"] } else { &["200", "500"] };
        assert_eq!(desk.kinds(), again, "over a reliable transport nothing is repeated");
        desk.take_legs();
        // One of which nobody decides: told in time that it failed, and nothing afterwards.
        desk.in_dialog(&mut talk, "UPDATE", "", &held.replace("sendonly", "recvonly"));
        desk.wait(Duration::from_secs(32));
        let (told, again): (Vec<_>, Vec<_>) = desk.kinds().into_iter().partition(|kind| kind == "100" || kind == "504");
        assert_eq!((told, again), (vec!["100".to_owned(), "504".to_owned()], vec![]));
        desk.leg(LegCommand::AnswerOffer { leg: talk.leg, answer: Ok(Pii::new(ANSWER.into())) });
        desk.wait(Duration::from_secs(5));
        assert!(desk.take_sent().is_empty(), "RFC 4320 §4.2: its client has given up");
        desk.in_dialog(&mut talk, "BYE", "", "");
        desk.leg(LegCommand::Settled { call: talk.leg.call });
        desk.assert_empty();
    }
}

#[test]
fn a_multipart_body_is_refused_by_415_with_what_is_read() {
    let body = format!("--b\r\nContent-Type: application/sdp\r\n\r\n{OFFER}\r\n--b--\r\n");
    let kind = "Content-Type: multipart/mixed;boundary=b\r\n";
    let mut desk = Desk::with(CoreConfig { dialog_probe: Duration::ZERO, ..config() }, 3);
    let text = desk.text("INVITE", udp(), "d", "", 1, kind, &body);
    desk.take(udp(), &text);
    let refused = |desk: &Desk| {
        let answer = desk.last_sent();
        assert_eq!((answer.status(), answer.text(HeaderName::Accept)), (Some(415), Some("application/sdp")));
    };
    refused(&desk);
    assert!(desk.take_legs().is_empty());
    let mut talk = desk.talk(udp(), "c");
    for method in ["INVITE", "UPDATE"] {
        desk.in_dialog(&mut talk, method, kind, &body);
        refused(&desk);
    }
    assert!(desk.take_legs().is_empty(), "the session stays as it was");
}

/// The last number of a class that RFC 3261 names nothing for.
#[test]
fn a_status_that_nobody_knows_counts_as_its_class() {
    let begun = || {
        let mut desk = Desk::new();
        let invite = desk.dial(some_call());
        desk.take_sent();
        (desk, invite)
    };
    for status in [399, 499, 599, 699] {
        let (mut desk, invite) = begun();
        desk.carrier(&invite, status, "x", "");
        assert_eq!(desk.kinds(), ["ACK"], "{status}");
        let told = desk.take_legs();
        assert!(matches!(told[..], [LegEvent::Failed { status: it, .. }] if it == status), "{told:?}");
    }
    let (mut desk, invite) = begun();
    desk.carrier(&invite, 199, "x", "");
    assert!(desk.take_legs().is_empty(), "it does not ring");
    desk.wait(Duration::from_secs(3));
    assert!(desk.take_sent().is_empty(), "it has arrived: not repeated");
    desk.carrier(&invite, 299, "x", ANSWER);
    let told = desk.take_legs();
    assert!(matches!(told[..], [LegEvent::Answered { .. }]), "{told:?}");
}

#[test]
fn a_response_belongs_to_the_request_of_its_branch_and_method() {
    let mut desk = Desk::new();
    let leg = some_call();
    let invite = desk.dial(leg);
    desk.carrier(&invite, 180, "x", "");
    desk.leg(LegCommand::HangUp { leg, cause: HangupCause::Cancelled });
    let cancel = desk.last_sent();
    assert_eq!((cancel.method(), cancel.branch()), (&Method::Cancel, invite.branch()));
    desk.take_legs();
    desk.take_sent();
    let refusal = |branch: &str, method: &str| {
        let response = ResponseBuilder::to_request(&invite, 487, Some("x")).build().expect("complete");
        let text = String::from_utf8(response.to_vec()).expect("text");
        text.replace(invite.branch().expect("ours"), branch).replace("CSeq: 1 INVITE", &format!("CSeq: 1 {method}"))
    };
    let ours = invite.branch().expect("ours").to_owned();
    // The CANCEL's own answer ends no INVITE; neither do answers to what was not asked.
    for (branch, method) in [(&*ours, "CANCEL"), ("z9hG4bKother", "INVITE"), (&ours, "BYE")] {
        desk.take(Flow::udp(CARRIER.into()), &refusal(branch, method));
        assert!(desk.take_legs().is_empty() && desk.take_sent().is_empty(), "{branch} {method}");
    }
    desk.take(Flow::udp(CARRIER.into()), &refusal(&ours, "INVITE"));
    assert_eq!(desk.kinds(), ["ACK"]);
    assert!(matches!(desk.take_legs()[..], [LegEvent::Failed { status: 487, .. }]));
}

#[test]
fn a_dialog_ends_with_its_bye_and_an_early_one_with_its_refusal() {
    let mut desk = Desk::with(CoreConfig { dialog_probe: Duration::ZERO, ..config() }, 3);
    let mut talk = desk.talk(udp(), "c");
    desk.in_dialog(&mut talk, "OPTIONS", "", "");
    assert_eq!(desk.kinds(), ["200"]);
    desk.leg(LegCommand::HangUp { leg: talk.leg, cause: HangupCause::OtherLeg });
    desk.take_sent();
    desk.in_dialog(&mut talk, "OPTIONS", "", "");
    assert_eq!(desk.kinds(), ["481"]);

    let leg = desk.invited(udp(), "d").leg;
    desk.leg(LegCommand::Progress { leg, status: 180, sdp: None });
    let to_tag = desk.last_sent().to_tag().expect("a tag").to_owned();
    let mut early = Talk { leg, call_id: "d".into(), to_tag, cseq: 2, flow: udp() };
    desk.take_sent();
    desk.in_dialog(&mut early, "OPTIONS", "", "");
    assert_eq!(desk.kinds(), ["200"]);
    desk.leg(LegCommand::Reject { leg, status: 486, reason: None, retry_after_s: None });
    assert_eq!(desk.kinds(), ["486"]);
    desk.in_dialog(&mut early, "OPTIONS", "", "");
    assert_eq!(desk.kinds(), ["481"]);
}

#[test]
fn an_invite_beyond_the_limits_of_reading_does_not_leave() {
    let us = Uri::parse("sip:demo@localhost").expect("valid");
    let leaves = |length: usize| {
        let mut desk = Desk::new();
        let way = Way::Flow(udp());
        let invite = RequestBuilder::new(Method::Invite, us.clone())
            .from(&NameAddr::new(us.clone()).with_tag("a").expect("a token"))
            .to(&NameAddr::new(us.clone()))
            .contact(&NameAddr::new(us.clone()))
            .call_id("c")
            .cseq(1)
            .header(HeaderName::Reason, &"n".repeat(length - "Reason: ".len()));
        let departure = desk.core.departure(None, way, None, invite, Owner::Nobody).expect("a listener");
        desk.core.begin_invite(departure, desk.now).is_some()
    };
    assert!(leaves(100) && leaves(limits::MAX_HEADER_LINE));
    assert!(!leaves(limits::MAX_HEADER_LINE + 1));
}

#[test]
fn a_response_that_has_lost_its_way_is_discarded() {
    let mut desk = Desk::new();
    let leg = some_call();
    let invite = desk.dial(leg);
    desk.take_sent();
    let response = ResponseBuilder::to_request(&invite, 486, Some("x")).build().expect("complete");
    let response = String::from_utf8(response.to_vec()).expect("text");
    let own = format!("{} ", invite.text(HeaderName::Via).and_then(|via| via.split(';').next()).expect("ours"))
        .trim()
        .to_owned();
    let foreign = response.replace(&own, "SIP/2.0/UDP 198.51.100.7");
    let crowded = response.replacen("\r\nVia: ", "\r\nVia: SIP/2.0/UDP 198.51.100.7;branch=z9hG4bKx\r\nVia: ", 1);
    let below = response.replacen("\r\nFrom: ", "\r\nVia: SIP/2.0/UDP 198.51.100.7;branch=z9hG4bKx\r\nFrom: ", 1);
    for lost in [&foreign, &crowded, &below] {
        assert_ne!(*lost, response);
        desk.take(Flow::udp(CARRIER.into()), lost);
        assert!(desk.take_legs().is_empty() && desk.take_sent().is_empty(), "{lost}");
    }
    desk.take(Flow::udp(CARRIER.into()), &response);
    assert!(matches!(desk.take_legs()[..], [LegEvent::Failed { status: 486, .. }]));
}

/// RFC 3323 §4.2: nothing of a caller's but its media's addresses reaches another leg.
#[test]
fn whoever_requires_privacy_gets_it_except_for_its_media() {
    let mut desk = Desk::new();
    for (more, status) in [
        ("Proxy-Require: privacy\r\n", "407"),
        ("Proxy-Require: Privacy\r\nPrivacy: id; critical\r\n", "407"),
        ("Proxy-Require: privacy\r\nPrivacy: header;session\r\n", "420"),
        ("Proxy-Require: privacy, sec-agree\r\n", "420"),
        ("Privacy: id;session;critical\r\n", "500"),
        ("Privacy: id; Critical\r\nPrivacy: Session\r\n", "500"),
        ("Privacy: home;critical\r\n", "500"),
        ("Privacy: id;session\r\n", "407"),
        ("Privacy: header;user;id;history;critical;\r\n", "407"),
    ] {
        let text = desk.text("INVITE", udp(), "c", "", 1, more, OFFER);
        desk.take(udp(), &text);
        assert_eq!(desk.kinds(), [status], "{more}");
    }
    let text = desk.text("INVITE", udp(), "c", "", 1, "Privacy: session;critical\r\n", OFFER);
    desk.take(udp(), &text);
    let words = "SIP;cause=500;text=\"no privacy of the session: the addresses of media pass\"";
    assert_eq!(answer(&mut desk), (Some(500), None, Some(words.to_owned())));
    let text = desk.text("INVITE", udp(), "c", "", 1, "Proxy-Require: privacy, sec-agree\r\n", OFFER);
    desk.take(udp(), &text);
    assert_eq!(desk.last_sent().text(HeaderName::Unsupported), Some("sec-agree"));
    // Whoever has no header says it by its name (RFC 3261 §8.1.1.3).
    let mut credentials = String::new();
    for cseq in [1, 2] {
        let text = desk.text("INVITE", udp(), "d", "", cseq, &credentials, OFFER);
        desk.take(udp(), &text.replace("From: <sip:demo@", "From: \"Anonymous\" <sip:demo@"));
        if cseq == 1 {
            credentials = desk.credentials("INVITE");
        }
    }
    let told = desk.take_legs();
    assert!(matches!(&told[..], [LegEvent::Invited(invited)] if invited.withhold), "{told:?}");
}

/// Only a call goes on from here (RFC 3261 §8.1.1.6).
#[test]
fn a_bye_that_may_go_no_further_has_arrived() {
    let mut desk = Desk::new();
    let talk = desk.talk(udp(), "c");
    let bye = desk.text("BYE", talk.flow, &talk.call_id, &talk.to_tag, talk.cseq + 1, "", "");
    desk.take(talk.flow, &bye.replace("Max-Forwards: 70", "Max-Forwards: 0"));
    assert!(matches!(desk.take_legs()[..], [LegEvent::Ended { cause: EndCause::Bye { .. }, .. }]));
}

/// Else a carrier could not answer us behind a NAT (RFC 3581 §3).
#[test]
fn our_requests_ask_for_answers_to_where_they_come_from() {
    let mut desk = Desk::new();
    let invite = desk.dial(some_call());
    let text = &desk.sent.last().expect("sent").1;
    assert!(text.lines().any(|line| line.starts_with("Via: ") && line.contains(";rport")), "{text}");
    assert_eq!(*invite.method(), Method::Invite);
}
