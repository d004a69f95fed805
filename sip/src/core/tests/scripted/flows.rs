//! Phones that register by several flows, and behind proxies.

use super::*;
use crate::core::timers::Timer;

pub(super) const BOTH: &str = "Supported: path, outbound\r\n";

/// A REGISTER with this behind its Contact's address, challenged and sent again; the answer to it.
pub(super) fn registers(desk: &mut Desk, flow: Flow, contact: &str, more: &str) -> Message {
    send_register(desk, flow, contact, more, |text| text);
    let answer = desk.last_sent();
    desk.take_sent();
    answer
}

/// The same, on its way changed by this.
pub(super) fn send_register(
    desk: &mut Desk,
    flow: Flow,
    contact: &str,
    more: &str,
    changed: impl Fn(String) -> String,
) {
    let send = |desk: &mut Desk, more: &str| {
        let cseq = desk.serial + 1;
        let text = desk.text("REGISTER", flow, "r", "", cseq, more, "");
        let text = text.replace(TARGET, "sip:localhost").replace("To: <sip:localhost>", "To: <sip:demo@localhost>");
        let peer = flow.peer;
        let text =
            text.replace(&format!("Contact: <sip:demo@{peer}>"), &format!("Contact: <sip:demo@{peer};ob>{contact}"));
        desk.take(flow, &changed(text));
    };
    send(desk, more);
    if desk.last_sent().status() == Some(401) {
        let credentials = desk.credentials("REGISTER");
        send(desk, &format!("{more}{credentials}"));
    }
}

pub(super) fn flow_number(number: u32) -> String {
    format!(";+sip.instance=\"<urn:uuid:1>\";reg-id={number}")
}

/// A phone with two flows, and a call over the first.
fn with_two_flows(path: &str) -> (Desk, Talk) {
    let mut desk = Desk::with(CoreConfig { dialog_probe: Duration::from_secs(30), ..config() }, 3);
    for number in [1, 2] {
        let more = if number == 2 { format!("{BOTH}{path}") } else { BOTH.to_owned() };
        let answer = registers(&mut desk, tls(number.into(), 1), &flow_number(number), &more);
        assert_eq!(answer.status(), Some(200));
        assert_eq!(answer.contacts().len(), usize::try_from(number).expect("small"), "each flow is a binding");
        assert_eq!(
            (answer.require().collect::<Vec<_>>(), answer.text(HeaderName::FlowTimer)),
            (vec!["outbound"], Some("100"))
        );
    }
    let talk = desk.talk(tls(1, 1), "c");
    (desk, talk)
}

#[test]
fn phones_that_come_and_go_leave_one_timer_for_those_that_stay() {
    let mut desk = Desk::new();
    let phone = |number: u32| format!(";+sip.instance=\"<urn:uuid:{number}>\"");
    registers(&mut desk, tls(1, 1), &phone(1), "Expires: 3600\r\n");
    for _ in 0..10 {
        for expires in ["Expires: 60\r\n", "Expires: 0\r\n"] {
            assert_eq!(registers(&mut desk, tls(2, 2), &phone(2), expires).status(), Some(200));
        }
        desk.wait(Duration::from_secs(61));
    }
    registers(&mut desk, tls(1, 1), &phone(1), "Expires: 3600\r\n");
    desk.wait(Duration::from_secs(3_000));
    assert_eq!((desk.core.counts().registrations, desk.core.timers.count(&Timer::Bindings)), (1, 1));
}

/// Flow and message of what was sent last.
fn last(desk: &Desk) -> (SocketAddr, Message) {
    (desk.sent.last().expect("sent").0, desk.last_sent())
}

#[test]
fn a_request_leaves_by_the_next_flow_when_its_own_has_failed() {
    let (mut desk, talk) = with_two_flows("");
    // By a 430, which ends that binding.
    desk.leg(LegCommand::Probe { leg: talk.leg });
    desk.handle(Input::Timeout);
    let first = desk.last_sent();
    desk.phone(tls(1, 1), &first, 430);
    let again = desk.last_sent();
    assert_eq!((again.method(), again.cseq().0), (&Method::Options, first.cseq().0));
    assert_ne!(again.branch(), first.branch());
    assert_eq!(desk.core.counts().registrations, 1);
    desk.phone(tls(2, 1), &again, 200);
    assert!(desk.take_legs().iter().all(|event| matches!(event, LegEvent::Alive { .. })), "the call goes on");
    // A 430 of the last one is no sign of life.
    desk.leg(LegCommand::Probe { leg: talk.leg });
    desk.handle(Input::Timeout);
    let third = desk.last_sent();
    desk.take_sent();
    desk.phone(tls(2, 1), &third, 430);
    assert!(desk.take_legs().is_empty() && desk.take_sent().is_empty());
    assert_eq!(desk.core.counts().registrations, 0);
}

#[test]
fn what_is_under_way_over_a_connection_that_ends_leaves_by_another_one() {
    let (mut desk, talk) = with_two_flows("");
    desk.leg(LegCommand::Offer { leg: talk.leg, offer: Pii::new(OFFER.replace("4000", "4002").into()) });
    let first = desk.last_sent();
    desk.take_sent();
    desk.handle(Input::FlowClosed(tls(1, 1)));
    let again = desk.last_sent();
    assert_eq!((again.method(), again.body(), again.cseq().0), (&Method::Invite, first.body(), first.cseq().0));
    desk.phone(tls(2, 1), &again, 488);
    assert!(matches!(desk.take_legs()[..], [LegEvent::OfferAnswered { answer: Err(488), .. }]));
    // The next request knows the way.
    desk.take_sent();
    desk.leg(LegCommand::HangUp { leg: talk.leg, cause: HangupCause::OtherLeg });
    let bye = desk.last_sent();
    assert_eq!(*bye.method(), Method::Bye);
    // The phone comes back by its first flow, then the second ends: the BYE, whose leg is gone, follows it.
    registers(&mut desk, tls(3, 1), &flow_number(1), BOTH);
    desk.handle(Input::FlowClosed(tls(2, 1)));
    assert_eq!(desk.kinds(), ["BYE"]);
    desk.assert_empty();
}

#[test]
fn what_leaves_again_keeps_its_order() {
    let (mut desk, talk) = with_two_flows("");
    for _ in 0..8 {
        let key = schema::leg::Key { signal: Pii::new('5'), duration_ms: None };
        desk.leg(LegCommand::PressKey { leg: talk.leg, key });
    }
    let cseqs = |desk: &mut Desk| {
        let sent =
            desk.take_sent().into_iter().map(|text| Message::parse_datagram(&Bytes::from(text)).expect("readable"));
        sent.map(|request| request.cseq().0).collect::<Vec<_>>()
    };
    let first = cseqs(&mut desk);
    desk.flows.clear();
    desk.handle(Input::FlowClosed(tls(1, 1)));
    assert_eq!(desk.flows, [tls(2, 1); 8]);
    assert_eq!(cseqs(&mut desk), first);
}

#[test]
fn a_connection_that_is_silent_is_left_for_the_next_flow() {
    let (mut desk, talk) = with_two_flows("");
    desk.leg(LegCommand::Probe { leg: talk.leg });
    desk.handle(Input::Timeout);
    assert_eq!(desk.flows.last(), Some(&tls(1, 1)));
    desk.wait(Duration::from_secs(32));
    assert_eq!(desk.flows.last(), Some(&tls(2, 1)));
    let options = desk.last_sent();
    desk.phone(tls(2, 1), &options, 200);
    assert!(matches!(desk.take_legs()[..], [LegEvent::Checkpointed { .. }, LegEvent::Alive { .. }]));
    assert_eq!(desk.core.counts().registrations, 2);
}

#[test]
fn what_has_left_by_another_flow_is_cancelled_there() {
    let (mut desk, talk) = with_two_flows("");
    desk.leg(LegCommand::Offer { leg: talk.leg, offer: Pii::new(OFFER.replace("4000", "4002").into()) });
    desk.handle(Input::FlowClosed(tls(1, 1)));
    let again = desk.last_sent();
    // The phone rings at somebody who does not decide.
    desk.phone(tls(2, 1), &again, 180);
    desk.flows.clear();
    desk.wait(Duration::from_secs(20));
    assert!(matches!(desk.take_legs()[..], [LegEvent::OfferAnswered { answer: Err(504), .. }]));
    assert_eq!(*desk.last_sent().method(), Method::Cancel);
    assert_eq!(desk.flows.last(), Some(&tls(2, 1)));
}

#[test]
fn a_path_is_kept_returned_and_followed() {
    let path = "Path: <sip:near@10.0.0.1;lr>, <sip:edge@10.0.0.2;lr;ob>\r\nRequire: path\r\n";
    let (mut desk, talk) = with_two_flows(path);
    desk.handle(Input::FlowClosed(tls(1, 1)));
    desk.leg(LegCommand::Probe { leg: talk.leg });
    desk.handle(Input::Timeout);
    desk.take_sent();
    let answer = registers(&mut desk, tls(2, 1), &flow_number(2), &format!("{BOTH}{path}"));
    let hops: Vec<_> = answer.values(HeaderName::Path).flatten().collect();
    assert_eq!(hops, ["<sip:near@10.0.0.1;lr>", "<sip:edge@10.0.0.2;lr;ob>"]);
    let (mut desk, talk) = with_two_flows(path);
    desk.leg(LegCommand::Probe { leg: talk.leg });
    desk.handle(Input::Timeout);
    let first = desk.last_sent();
    assert!(first.routes().is_empty());
    desk.phone(tls(1, 1), &first, 430);
    let (_, again) = last(&desk);
    let routes: Vec<_> = again.routes().iter().map(ToString::to_string).collect();
    assert_eq!(routes, ["<sip:near@10.0.0.1;lr>", "<sip:edge@10.0.0.2;lr;ob>"]);
    assert_eq!(again.request_uri(), first.request_uri());
}

#[test]
fn what_follows_a_call_to_another_flow_takes_its_path() {
    let hops = |request: &Message| request.routes().iter().map(ToString::to_string).collect::<Vec<_>>();
    let path = "Path: <sip:near@10.0.0.1;lr>, <sip:edge@10.0.0.2;lr;ob>\r\n";
    let both = ["<sip:near@10.0.0.1;lr>", "<sip:edge@10.0.0.2;lr;ob>"];
    // A request meets a proxy that does not know the phone any more, or the connection ends while nothing is under way.
    for meets_430 in [true, false] {
        let (mut desk, talk) = with_two_flows(path);
        if meets_430 {
            desk.leg(LegCommand::Probe { leg: talk.leg });
            desk.handle(Input::Timeout);
            let first = desk.last_sent();
            desk.phone(tls(1, 1), &first, 430);
            let again = desk.last_sent();
            desk.phone(tls(2, 1), &again, 200);
        } else {
            desk.handle(Input::FlowClosed(tls(1, 1)));
        }
        desk.take_sent();
        desk.leg(LegCommand::Probe { leg: talk.leg });
        desk.handle(Input::Timeout);
        let options = desk.last_sent();
        assert_eq!(
            (options.method(), hops(&options)),
            (&Method::Options, both.map(str::to_owned).to_vec()),
            "{meets_430}"
        );
        desk.phone(tls(2, 1), &options, 200);
        desk.leg(LegCommand::Offer { leg: talk.leg, offer: Pii::new(OFFER.into()) });
        let reinvite = desk.last_sent();
        assert_eq!((reinvite.method(), hops(&reinvite)), (&Method::Invite, both.map(str::to_owned).to_vec()));
        desk.phone(tls(2, 1), &reinvite, 488);
        desk.leg(LegCommand::HangUp { leg: talk.leg, cause: HangupCause::Requested });
        let bye = desk.last_sent();
        assert_eq!((bye.method(), hops(&bye)), (&Method::Bye, both.map(str::to_owned).to_vec()), "{meets_430}");
    }
}

#[test]
fn a_path_that_cannot_be_used_is_refused_by_name() {
    let hops = |count: usize| format!("Path: {}\r\n", vec!["<sip:p@10.0.0.1;lr>"; count].join(", "));
    let long = format!(
        "Path: <sip:{}@10.0.0.1;lr>, <sip:{}@10.0.0.1;lr>, <sip:{}@10.0.0.1;lr>\r\n",
        "a".repeat(700),
        "b".repeat(700),
        "c".repeat(700)
    );
    for (more, status) in [
        (format!("{BOTH}{}", hops(8)), 200),
        (format!("{BOTH}{}", hops(9)), 400),
        (format!("{BOTH}{long}"), 400),
        (format!("{BOTH}Path: nonsense\r\n"), 400),
        (hops(1), 420),
        (format!("{}Require: path, other\r\n", hops(1)), 420),
        (format!("{BOTH}Require: path, outbound\r\n"), 200),
    ] {
        let mut desk = Desk::new();
        let answer = registers(&mut desk, tls(1, 1), "", &more);
        assert_eq!(answer.status(), Some(status), "{more}");
        if more == hops(1) {
            assert_eq!(answer.text(HeaderName::Unsupported), Some("path"));
        }
    }
}

#[test]
fn a_proxy_that_does_not_keep_flows_is_a_439() {
    let via = "Via: SIP/2.0/TLS 10.0.0.9;branch=z9hG4bKinner\r\n";
    for (path, status) in [
        ("", 439),
        ("Path: <sip:edge@10.0.0.2;lr>\r\n", 439),
        ("Path: <sip:edge@10.0.0.2;lr;ob>, <sip:inner@10.0.0.3;lr>\r\n", 439),
        ("Path: <sip:near@10.0.0.2;lr>, <sip:edge@10.0.0.3;lr;ob>\r\n", 200),
    ] {
        let mut desk = Desk::new();
        let answer = registers(&mut desk, tls(1, 1), &flow_number(1), &format!("{via}{BOTH}{path}"));
        assert_eq!(answer.status(), Some(status), "{path}");
    }
    // Whoever does not ask for it is promised nothing, so nothing is refused for lack of it.
    for flow in [tls(1, 1), udp()] {
        let answer = registers(&mut Desk::new(), flow, &flow_number(1), &format!("{via}Supported: path\r\n"));
        let promised = (answer.require().count(), answer.text(HeaderName::FlowTimer));
        assert_eq!((answer.status(), promised), (Some(200), (0, None)));
    }
}

#[test]
fn a_phone_that_connects_anew_each_time_and_never_answers_is_lost() {
    let mut desk = Desk::new();
    registers(&mut desk, tls(1, 1), &flow_number(1), BOTH);
    let talk = desk.talk(tls(1, 1), "c");
    desk.leg(LegCommand::Probe { leg: talk.leg });
    let asked_at = desk.now.mono;
    for connection in 2..12 {
        desk.wait(Duration::from_secs(20));
        let is_lost = desk.take_legs().iter().any(|told| matches!(told, LegEvent::Ended { cause: EndCause::Lost, .. }));
        if is_lost {
            return assert!(desk.now.mono.since(asked_at) >= Duration::from_secs(80), "four questions");
        }
        desk.handle(Input::FlowClosed(tls(1, connection - 1)));
        registers(&mut desk, tls(1, connection), &flow_number(1), BOTH);
    }
    panic!("it was asked for ever");
}
