//! Session timers: who refreshes, how, and what happens when nobody does.

use super::registering::ASKS;
use super::restart::{connected, restarted};
use super::*;
use crate::message::{HeaderName, Method, ResponseBuilder};

const TIMED: &str = "Supported: timer\r\nAllow: INVITE, ACK, BYE, UPDATE\r\n";

fn quiet() -> CoreConfig {
    CoreConfig { dialog_probe: Duration::ZERO, ..config() }
}

/// A call that is up, and then a refresh of the phone's with these headers: what our 200 says of the timer.
fn refreshed(desk: &mut Desk, more: &str) -> (Talk, Option<String>) {
    let mut talk = desk.talk(udp(), "c");
    desk.in_dialog(&mut talk, "UPDATE", more, "");
    let ok = desk.last_sent();
    assert_eq!(ok.status(), Some(200), "{more}");
    let required = ok.require().any(|tag| tag == "timer");
    let said = ok.text(HeaderName::SessionExpires).map(str::to_owned);
    assert_eq!(required, said.as_deref().is_some_and(|said| said.ends_with("uac")), "{more}");
    desk.take_sent();
    desk.take_legs();
    (talk, said)
}

fn respond(desk: &mut Desk, response: ResponseBuilder) {
    let text = String::from_utf8(response.build().expect("complete").to_vec()).expect("text");
    desk.take(udp(), &text);
}

/// The phone's 200 to an UPDATE of ours.
fn accept(desk: &mut Desk, request: &Message, expires: &str) {
    respond(desk, ResponseBuilder::to_request(request, 200, None).header(HeaderName::SessionExpires, &expires));
}

/// The far end refuses a refresh: it takes so many seconds at least.
fn too_short(desk: &mut Desk, request: &Message, min_se: u32) {
    respond(desk, ResponseBuilder::to_request(request, 422, None).header(HeaderName::MinSe, &min_se));
}

#[test]
fn a_session_timer_is_agreed_as_the_far_end_asks() {
    let cases = [
        ("", None),
        ("Session-Expires: nonsense\r\n", None),
        // A proxy has put it in (RFC 4028 §9, table 2).
        ("Session-Expires: 600\r\n", Some("600;refresher=uas")),
        ("Session-Expires: 600;refresher=uac\r\n", Some("600;refresher=uas")),
        ("Session-Expires: 60\r\n", Some("90;refresher=uas")),
        ("Supported: timer\r\n", Some("1800;refresher=uas")),
        ("Supported: timer\r\nSession-Expires: 600\r\n", Some("600;refresher=uas")),
        ("Require: timer\r\nSession-Expires: 600;refresher=uac\r\n", Some("600;refresher=uac")),
        ("Supported: timer\r\nx: 600 ; refresher=UAS\r\n", Some("600;refresher=uas")),
        ("Supported: timer\r\nSession-Expires: 4000000000\r\n", Some("7200;refresher=uas")),
        ("Supported: timer\r\nSession-Expires: 9000\r\nMin-SE: 8000\r\n", Some("8000;refresher=uas")),
        ("Supported: timer\r\nSession-Expires: nonsense\r\n", Some("1800;refresher=uas")),
    ];
    for (more, expected) in cases {
        assert_eq!(refreshed(&mut Desk::with(quiet(), 3), more).1.as_deref(), expected, "{more}");
    }
}

#[test]
fn an_interval_under_90_seconds_is_a_422() {
    let mut desk = Desk::with(quiet(), 3);
    let more = "Supported: timer\r\nSession-Expires: 89\r\n";
    let text = desk.text("INVITE", udp(), "d", "", 1, more, OFFER);
    desk.take(udp(), &text);
    let refused = desk.take_sent().pop().expect("an answer");
    assert!(refused.starts_with("SIP/2.0 422") && refused.contains("\r\nMin-SE: 90\r\n"), "{refused}");
    let mut talk = desk.talk(udp(), "c");
    desk.in_dialog(&mut talk, "UPDATE", more, "");
    assert_eq!(desk.kinds(), ["422"]);
}

#[test]
fn we_refresh_by_update_at_half_of_the_interval() {
    let mut desk = Desk::with(quiet(), 3);
    refreshed(&mut desk, &format!("{TIMED}Session-Expires: 600\r\n"));
    for _ in 0..3 {
        desk.wait(Duration::from_millis(299_999));
        assert!(desk.take_sent().is_empty());
        desk.wait(Duration::from_millis(1));
        let update = desk.last_sent();
        assert_eq!((update.method(), update.has_sdp()), (&Method::Update, false));
        assert_eq!(update.text(HeaderName::SessionExpires), Some("600;refresher=uac"));
        desk.take_sent();
        accept(&mut desk, &update, "600;refresher=uac");
    }
    assert!(desk.take_legs().is_empty());
}

#[test]
fn a_far_end_without_update_is_refreshed_by_an_unchanged_reinvite() {
    let mut desk = Desk::with(quiet(), 3);
    let mut talk = desk.talk(udp(), "c");
    desk.in_dialog(&mut talk, "INVITE", "Supported: timer\r\nSession-Expires: 600\r\n", OFFER);
    let ok = desk.last_sent();
    let ack = desk.text("ACK", udp(), "c", &talk.to_tag.clone(), talk.cseq, "", "");
    desk.take(udp(), &ack);
    desk.take_legs();
    desk.wait(Duration::from_secs(300));
    let invite = desk.last_sent();
    assert_eq!((invite.method(), invite.body()), (&Method::Invite, ok.body()), "the version too is the same");
    let response = ResponseBuilder::to_request(&invite, 200, None)
        .header(HeaderName::SessionExpires, &"600;refresher=uas")
        .body("application/sdp", Bytes::from_static(OFFER.as_bytes()));
    let text = String::from_utf8(response.build().expect("complete").to_vec()).expect("text");
    desk.take_sent();
    desk.take(udp(), &text);
    assert_eq!(desk.kinds(), ["ACK"]);
    let told = desk.take_legs();
    assert!(!told.iter().any(|event| matches!(event, LegEvent::OfferAnswered { .. })), "{told:?}");
    // From now on it is theirs: nothing of ours leaves, and it ends when they do not refresh.
    desk.wait(Duration::from_secs(567));
    assert!(desk.take_sent().is_empty());
    desk.wait(Duration::from_secs(1));
    assert_eq!(desk.kinds(), ["BYE"]);
}

#[test]
fn a_session_that_nobody_refreshes_is_lost_before_its_interval_ends() {
    for refresher in ["uac", "uas"] {
        let mut desk = Desk::with(quiet(), 3);
        let (talk, _) = refreshed(&mut desk, &format!("{TIMED}Session-Expires: 600;refresher={refresher}\r\n"));
        desk.wait(Duration::from_secs(567));
        assert!(desk.take_legs().is_empty());
        desk.wait(Duration::from_secs(1));
        assert!(matches!(desk.take_legs()[..], [LegEvent::Ended { leg, cause: EndCause::Lost }] if leg == talk.leg));
        assert_eq!(desk.kinds().last().map(String::as_str), Some("BYE"));
        desk.assert_empty();
    }
}

#[test]
fn a_refresh_that_is_refused_is_tried_in_another_way() {
    let mut desk = Desk::with(quiet(), 3);
    let (talk, _) = refreshed(&mut desk, &format!("{TIMED}Session-Expires: 600\r\n"));
    desk.wait(Duration::from_secs(300));
    let update = desk.last_sent();
    assert_eq!(*update.method(), Method::Update);
    desk.phone(udp(), &update, 491);
    desk.wait(Duration::from_secs(5));
    let update = desk.last_sent();
    assert_eq!(*update.method(), Method::Update);
    desk.phone(udp(), &update, 405);
    desk.wait(Duration::from_millis(1));
    assert_eq!(*desk.last_sent().method(), Method::Invite);
    let mut gone = Desk::with(quiet(), 3);
    refreshed(&mut gone, &format!("{TIMED}Session-Expires: 600\r\n"));
    gone.wait(Duration::from_secs(300));
    let update = gone.last_sent();
    gone.phone(udp(), &update, 481);
    assert!(matches!(gone.take_legs()[..], [LegEvent::Ended { leg, cause: EndCause::Lost }] if leg == talk.leg));
}

/// However long: whatever is shorter would be refused until the session is over.
#[test]
fn a_refresh_that_is_too_short_is_made_as_long_as_the_422_says() {
    for min_se in [9_000, u32::MAX] {
        let mut desk = Desk::with(quiet(), 3);
        refreshed(&mut desk, &format!("{TIMED}Session-Expires: 600\r\n"));
        desk.wait(Duration::from_secs(300));
        let update = desk.last_sent();
        desk.take_sent();
        too_short(&mut desk, &update, min_se);
        desk.wait(Duration::from_secs(5));
        let again = desk.last_sent();
        assert_eq!(again.cseq().0, update.cseq().0 + 1);
        let terms = format!("{min_se};refresher=uac");
        assert_eq!((again.method(), again.text(HeaderName::SessionExpires)), (&Method::Update, Some(&*terms)));
        desk.take_sent();
        accept(&mut desk, &again, &terms);
        desk.wait(Duration::from_secs(4_499));
        assert!(desk.take_sent().is_empty() && desk.take_legs().is_empty());
    }
}

/// The 200 to the first INVITE says what it asked for.
#[test]
fn the_200_to_an_invite_carries_its_session_timer() {
    for (more, refresher) in
        [("Supported: timer\r\nSession-Expires: 600;refresher=uac\r\n", "uac"), ("Session-Expires: 600\r\n", "uas")]
    {
        let mut desk = Desk::with(quiet(), 3);
        let first = desk.text("INVITE", udp(), "c", "", 1, more, OFFER);
        desk.take(udp(), &first);
        let more = format!("{more}{}", desk.credentials("INVITE"));
        let second = desk.text("INVITE", udp(), "c", "", 2, &more, OFFER);
        desk.take(udp(), &second);
        let Some(LegEvent::Invited(invited)) = desk.take_legs().pop() else { panic!("no INVITE") };
        desk.leg(LegCommand::Accept { leg: invited.leg, sdp: Some(Pii::new(ANSWER.into())) });
        let ok = desk.last_sent();
        assert_eq!(ok.text(HeaderName::SessionExpires), Some(&*format!("600;refresher={refresher}")));
        assert_eq!(ok.require().any(|tag| tag == "timer"), refresher == "uac");
        let ack = desk.text("ACK", udp(), "c", ok.to_tag().expect("a tag"), 2, "", "");
        desk.take(udp(), &ack);
        desk.take_sent();
        // Ours to refresh, or theirs.
        desk.wait(Duration::from_secs(300));
        assert_eq!(desk.kinds().is_empty(), refresher == "uac");
    }
}

#[test]
fn an_update_that_a_far_end_does_not_take_is_followed_by_a_reinvite() {
    for status in [400, 415, 420, 488, 500, 501, 606] {
        let mut desk = Desk::with(quiet(), 3);
        refreshed(&mut desk, &format!("{TIMED}Session-Expires: 600\r\n"));
        desk.wait(Duration::from_secs(300));
        let update = desk.last_sent();
        desk.phone(udp(), &update, status);
        desk.wait(Duration::from_millis(1));
        let invite = desk.last_sent();
        assert_eq!(*invite.method(), Method::Invite, "{status}");
        // Which is taken with a longer interval only.
        too_short(&mut desk, &invite, 900);
        desk.wait(Duration::from_secs(5));
        let again = desk.last_sent();
        assert_eq!((again.method(), again.cseq().0), (&Method::Invite, invite.cseq().0 + 1));
        assert_eq!(again.text(HeaderName::SessionExpires), Some("900;refresher=uac"));
        assert_eq!(again.text(HeaderName::MinSe), Some("900"));
    }
}

#[test]
fn a_refresh_that_asks_for_too_little_asks_for_what_the_422_says_and_names_it_from_then_on() {
    let mut desk = Desk::with(quiet(), 3);
    let (talk, _) = refreshed(&mut desk, &format!("{TIMED}Session-Expires: 600\r\n"));
    desk.wait(Duration::from_secs(300));
    let update = desk.last_sent();
    assert_eq!((update.method(), update.text(HeaderName::MinSe)), (&Method::Update, None));
    too_short(&mut desk, &update, 10_000);
    desk.wait(Duration::from_secs(5));
    let again = desk.last_sent();
    assert_eq!((again.method(), again.cseq().0), (&Method::Update, update.cseq().0 + 1));
    assert_eq!(again.text(HeaderName::SessionExpires), Some("10000;refresher=uac"));
    assert_eq!(again.text(HeaderName::MinSe), Some("10000"));
    accept(&mut desk, &again, "10000;refresher=uac");
    desk.wait(Duration::from_secs(5_000));
    let third = desk.last_sent();
    assert_eq!((third.method(), third.cseq().0), (&Method::Update, again.cseq().0 + 1));
    assert_eq!(third.text(HeaderName::MinSe), Some("10000"));
    assert!(desk.take_legs().is_empty(), "the call goes on: {:?}", talk.leg);
}

#[test]
fn a_422_that_wants_nothing_else_is_not_followed_at_once() {
    let mut desk = Desk::with(quiet(), 3);
    refreshed(&mut desk, &format!("{TIMED}Session-Expires: 600\r\n"));
    desk.wait(Duration::from_secs(300));
    let update = desk.last_sent();
    too_short(&mut desk, &update, 300);
    desk.take_sent();
    desk.wait(Duration::from_secs(4));
    assert!(desk.sent.is_empty());
    desk.wait(Duration::from_secs(1));
    assert_eq!((desk.last_sent().method(), desk.last_sent().cseq().0), (&Method::Update, update.cseq().0 + 1));
}

/// Whoever waits for its answer does not hear of it.
#[test]
fn an_offer_that_meets_a_422_is_made_again_for_as_long_as_that_says() {
    let mut desk = Desk::with(quiet(), 3);
    let (talk, _) = refreshed(&mut desk, &format!("{TIMED}Session-Expires: 600\r\n"));
    desk.leg(LegCommand::Offer { leg: talk.leg, offer: Pii::new(OFFER.into()) });
    let invite = desk.last_sent();
    assert_eq!(invite.text(HeaderName::SessionExpires), Some("600;refresher=uac"));
    too_short(&mut desk, &invite, 900);
    desk.wait(Duration::from_secs(2));
    let again = desk.last_sent();
    assert_eq!((again.method(), again.cseq().0), (&Method::Invite, invite.cseq().0 + 1));
    assert_eq!((again.text(HeaderName::SessionExpires), again.body()), (Some("900;refresher=uac"), invite.body()));
    assert!(desk.take_legs().is_empty(), "not refused");
    // One that wants nothing else is a refusal.
    too_short(&mut desk, &again, 900);
    assert!(matches!(desk.take_legs()[..], [LegEvent::OfferAnswered { answer: Err(422), .. }]));
}

/// The refresh learns first how long it has to be; the offer had asked for less all the same.
#[test]
fn an_offer_beside_a_refresh_is_made_again_when_both_meet_a_422() {
    let mut desk = Desk::with(quiet(), 3);
    let (talk, _) = refreshed(&mut desk, &format!("{TIMED}Session-Expires: 600\r\n"));
    desk.wait(Duration::from_secs(300));
    let update = desk.last_sent();
    desk.leg(LegCommand::Offer { leg: talk.leg, offer: Pii::new(OFFER.into()) });
    let invite = desk.last_sent();
    assert_eq!((update.method(), invite.method()), (&Method::Update, &Method::Invite));
    too_short(&mut desk, &update, 900);
    too_short(&mut desk, &invite, 900);
    desk.wait(Duration::from_secs(2));
    let again = desk.last_sent();
    assert_eq!((again.method(), again.text(HeaderName::SessionExpires)), (&Method::Invite, Some("900;refresher=uac")));
    assert!(again.cseq().0 > invite.cseq().0 && desk.take_legs().is_empty(), "asked again, and not refused");
}

#[test]
fn what_was_agreed_stands_until_a_longer_interval_is_taken() {
    let mut desk = Desk::with(quiet(), 3);
    let (talk, _) = refreshed(&mut desk, &format!("{TIMED}Session-Expires: 600\r\n"));
    desk.wait(Duration::from_secs(300));
    let update = desk.last_sent();
    too_short(&mut desk, &update, 3_600);
    // Nobody answers the next one.
    desk.wait(Duration::from_secs(300));
    assert!(matches!(desk.take_legs()[..], [LegEvent::Ended { leg, cause: EndCause::Lost }] if leg == talk.leg));
}

#[test]
fn a_carrier_decides_whether_its_leg_has_a_timer_and_it_survives_a_restart() {
    let mut before = Desk::with(quiet(), 3);
    let (talk, _, a, plain) = connected(&mut before, udp());
    assert!(!plain.state.expose().contains("\"timer\""));
    let (mut other, leg) = (Desk::with(quiet(), 4), LegId::b(talk.leg.call, 1));
    let invite = other.dial(leg);
    assert!(invite.supported().any(|tag| tag == "timer"));
    assert_eq!(invite.text(HeaderName::SessionExpires), Some("1800;refresher=uac"));
    let contact = NameAddr::parse("<sip:c@127.0.0.1:5090>").expect("valid");
    let response = ResponseBuilder::to_request(&invite, 200, Some("x"))
        .contact(&contact)
        .header(HeaderName::Allow, &"INVITE, UPDATE")
        .header(HeaderName::SessionExpires, &"400;refresher=uac")
        .body("application/sdp", Bytes::from_static(ANSWER.as_bytes()));
    let text = String::from_utf8(response.build().expect("complete").to_vec()).expect("text");
    other.take(Flow::udp(CARRIER.into()), &text);
    let Some(LegEvent::Answered { checkpoint, .. }) = other.take_legs().pop() else { panic!("not answered") };
    other.leg(LegCommand::Confirm { leg, answer: None });
    other.take_sent();
    other.wait(Duration::from_secs(200));
    assert_eq!(*other.last_sent().method(), Method::Update);
    // After a restart it is refreshed soon, since nobody knows when it was the last time.
    let mut desk = restarted((talk.leg, &a), &checkpoint);
    desk.wait(Duration::from_secs(50));
    let update = desk.last_sent();
    assert_eq!((update.method(), update.to_tag()), (&Method::Update, Some("x")));
}

/// A carrier wants sessions refreshed no more often than so many seconds.
fn wants_longer(desk: &mut Desk, invite: &Message, min_se: u32) {
    let response = ResponseBuilder::to_request(invite, 422, Some("x")).header(HeaderName::MinSe, &min_se);
    let text = String::from_utf8(response.build().expect("complete").to_vec()).expect("text");
    desk.take_sent();
    desk.take(Flow::udp(CARRIER.into()), &text);
}

#[test]
fn a_call_whose_interval_is_too_short_for_a_carrier_asks_for_a_longer_one() {
    let mut desk = Desk::with(quiet(), 3);
    desk.trunks(vec![with_login(None, None)]);
    let leg = some_call();
    let first = desk.dial(leg);
    desk.challenge(&first, 407, &[ASKS]);
    let asked = desk.last_sent();
    wants_longer(&mut desk, &asked, 3_600);
    let longer = desk.last_sent();
    assert_eq!((longer.method(), longer.cseq().0, longer.to_tag()), (&Method::Invite, asked.cseq().0 + 1, None));
    assert_eq!((longer.call_id(), longer.from_tag(), longer.body()), (first.call_id(), first.from_tag(), first.body()));
    let said = |message: &Message, name| message.text(name).map(str::to_owned);
    assert_eq!(said(&longer, HeaderName::SessionExpires).as_deref(), Some("3600;refresher=uac"));
    assert_eq!(said(&longer, HeaderName::MinSe).as_deref(), Some("3600"));
    assert!(is_right(&longer, HeaderName::ProxyAuthorization, "carrier-secret"));
    assert!(longer.branch() != asked.branch() && desk.take_legs().is_empty());
    // A CANCEL belongs to this one.
    desk.carrier(&longer, 180, "x", "");
    desk.leg(LegCommand::HangUp { leg, cause: HangupCause::Cancelled });
    let cancel = desk.last_sent();
    assert_eq!(
        (cancel.method(), cancel.branch(), cancel.cseq().0),
        (&Method::Cancel, longer.branch(), longer.cseq().0)
    );
    desk.carrier(&longer, 487, "x", "");
    desk.take_legs();
    // Each proxy on the way may want more, but not for ever; whoever wants no more than was offered gets nothing at once.
    for wanted in [&[2_000, 3_000, 4_000, 5_000][..], &[2_000, 2_000], &[1_800]] {
        let mut desk = Desk::with(quiet(), 3);
        let mut sent = desk.dial(LegId::b(some_call().call, 2));
        for (number, min_se) in wanted.iter().enumerate() {
            wants_longer(&mut desk, &sent, *min_se);
            sent = desk.last_sent();
            let asks = (number + 1 < wanted.len()).then(|| format!("{min_se};refresher=uac"));
            assert_eq!(said(&sent, HeaderName::SessionExpires), asks, "{wanted:?}");
            assert!(desk.take_legs().is_empty());
        }
        wants_longer(&mut desk, &sent, 9_000);
        assert_eq!(desk.kinds().last().map(String::as_str), Some("ACK"));
        assert!(matches!(desk.take_legs()[..], [LegEvent::Failed { status: 422, .. }]));
    }
}

#[test]
fn a_phone_without_update_is_refreshed_by_a_reinvite_after_a_restart_too() {
    let mut before = Desk::with(quiet(), 3);
    let (mut talk, _, _, b) = connected(&mut before, udp());
    before.in_dialog(&mut talk, "UPDATE", "Supported: timer\r\nSession-Expires: 600\r\n", "");
    let told = before.take_legs();
    let is_its = |event: &LegEvent| matches!(event, LegEvent::Checkpointed { leg, .. } if *leg == talk.leg);
    let Some(LegEvent::Checkpointed { checkpoint: a, .. }) = told.iter().find(|event| is_its(event)) else {
        panic!("{told:?}")
    };
    // As its INVITE leaves it: what we answer is not known yet.
    let mut stored: serde_json::Value = serde_json::from_str(a.state.expose()).expect("an object");
    assert!(stored.as_object_mut().expect("an object").remove("local_sdp").is_some());
    let a = schema::leg::Checkpoint { state: Pii::new(stored.to_string().into()) };
    let mut desk = restarted((talk.leg, &a), &b);
    desk.wait(Duration::from_secs(75));
    assert_eq!(*desk.last_sent().method(), Method::Invite);
}

/// Its 200 would else switch the far end's timer off (RFC 4028 §7.2).
#[test]
fn an_update_before_our_ack_of_the_200_keeps_the_session_timer() {
    let mut desk = Desk::with(quiet(), 3);
    let leg = some_call();
    let invite = desk.dial(leg);
    let contact = NameAddr::parse("<sip:c@127.0.0.1:5090>").expect("valid");
    let response = ResponseBuilder::to_request(&invite, 200, Some("x")).contact(&contact);
    let response =
        response.header(HeaderName::SessionExpires, &"600;refresher=uas").header(HeaderName::Require, &"timer");
    let response = response.body("application/sdp", Bytes::from(ANSWER)).build().expect("complete");
    desk.take(Flow::udp(CARRIER.into()), std::str::from_utf8(&response).expect("text"));
    let update = super::restart::request_of_carrier(&invite, "UPDATE", 1, "");
    let update =
        update.replace("Content-Length", "Supported: timer\r\nSession-Expires: 600;refresher=uac\r\nContent-Length");
    desk.take(Flow::udp(CARRIER.into()), &update);
    let ok = desk.last_sent();
    assert_eq!((ok.status(), ok.text(HeaderName::SessionExpires)), (Some(200), Some("600;refresher=uac")));
}
