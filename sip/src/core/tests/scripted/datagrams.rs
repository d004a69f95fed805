//! Phones with several flows over UDP (RFC 5626): what is registered, what silence means, and what a move or a restart changes.

use super::flows::{BOTH, flow_number, registers, send_register};
use super::*;

/// A phone that was registered before a restart.
fn restored(binding: Binding) -> Input {
    Input::Edge(EdgeCommand::BindingRestored { binding: Box::new(binding), username: "demo".into() })
}

/// The flow of a phone's socket: loopback address `last`, port `port`.
fn at(last: u8, port: u16) -> Flow {
    Flow::udp(([127, 0, 0, last], port).into())
}

fn wifi() -> Flow {
    at(1, 5100)
}

fn mobile() -> Flow {
    at(2, 5200)
}

/// A phone with two flows, the second of them the newest, and a call over the first.
fn with_two_flows() -> (Desk, Talk) {
    let mut desk = Desk::new();
    for (number, flow) in [(1, wifi()), (2, mobile())] {
        let answer = registers(&mut desk, flow, &flow_number(number), BOTH);
        assert_eq!((answer.status(), answer.contacts().len()), (Some(200), usize::try_from(number).expect("small")));
        assert_eq!(
            (answer.require().collect::<Vec<_>>(), answer.text(HeaderName::FlowTimer)),
            (vec!["outbound"], Some("29"))
        );
    }
    let talk = desk.talk(wifi(), "c");
    (desk, talk)
}

/// What was sent last, and by which flow.
fn last(desk: &Desk) -> (Flow, Message) {
    (*desk.flows.last().expect("sent"), desk.last_sent())
}

/// An OPTIONS that has just left in the dialog of a call.
fn asked(desk: &mut Desk, talk: &Talk) -> (Flow, Message) {
    desk.leg(LegCommand::Probe { leg: talk.leg });
    desk.handle(Input::Timeout);
    let (flow, options) = last(desk);
    assert_eq!(*options.method(), Method::Options);
    desk.take_sent();
    (flow, options)
}

fn flow_numbers(answer: &Message) -> Vec<Option<String>> {
    answer.contacts().iter().map(|contact| contact.params.value("reg-id").map(str::to_owned)).collect()
}

fn numbers<const N: usize>(numbers: [u32; N]) -> Vec<Option<String>> {
    numbers.iter().map(|number| Some(number.to_string())).collect()
}

#[test]
fn each_flow_over_udp_is_a_binding_that_is_replaced_and_ended_alone() {
    let (mut desk, _) = with_two_flows();
    // Its instance and number are the flow, wherever it comes from.
    let answer = registers(&mut desk, at(3, 5300), &flow_number(1), BOTH);
    assert_eq!(flow_numbers(&answer), numbers([2, 1]));
    assert_eq!(desk.bindings.last().map(|binding| binding.source.expose().as_str()), Some("UDP 127.0.0.3:5300"));
    let answer = registers(&mut desk, mobile(), &format!("{};expires=0", flow_number(2)), BOTH);
    assert_eq!((flow_numbers(&answer), desk.core.counts().registrations), (numbers([1]), 1));
    // Without the option tag the number means nothing: one phone, one binding.
    let mut desk = Desk::new();
    for (number, flow) in [(1, wifi()), (2, mobile())] {
        let answer = registers(&mut desk, flow, &flow_number(number), "");
        assert_eq!((flow_numbers(&answer), answer.require().count()), (vec![None], 0));
    }
    // There are no more of them than contacts.
    let mut desk = Desk::new();
    for number in 1..=6_u8 {
        registers(&mut desk, at(number, 5100), &flow_number(number.into()), BOTH);
    }
    let answer = registers(&mut desk, at(6, 5100), &flow_number(6), BOTH);
    assert_eq!(flow_numbers(&answer), numbers([2, 3, 4, 5, 6]));
}

#[test]
fn a_flow_over_udp_is_where_its_register_came_from() {
    // No rport, and a Via with another port: answers go there (RFC 3261 §18.2.2), requests by the flow.
    let (outer, named) = (at(9, 40_000), at(9, 5060));
    let inner = |text: String| text.replace("Via: SIP/2.0/UDP 127.0.0.9:40000;", "Via: SIP/2.0/UDP 127.0.0.9:5060;");
    let mut desk = Desk::new();
    for (more, source) in [("", "UDP 127.0.0.9:5060"), (BOTH, "UDP 127.0.0.9:40000")] {
        send_register(&mut desk, outer, &flow_number(1), more, inner);
        assert_eq!((last(&desk).0, desk.last_sent().status()), (named, Some(200)));
        assert_eq!(desk.bindings.last().map(|binding| binding.source.expose().as_str()), Some(source));
        desk.take_sent();
    }
    let invite = desk.text("INVITE", outer, "c", "", 1, "", OFFER);
    desk.take(outer, &inner(invite));
    let credentials = desk.credentials("INVITE");
    let invite = desk.text("INVITE", outer, "c", "", 2, &credentials, OFFER);
    desk.take(outer, &inner(invite));
    let Some(LegEvent::Invited(invited)) = desk.take_legs().pop() else { panic!("no INVITE") };
    desk.leg(LegCommand::Accept { leg: invited.leg, sdp: Some(Pii::new(ANSWER.into())) });
    let (flow, ok) = last(&desk);
    assert_eq!((flow, ok.status()), (named, Some(200)));
    let ack = desk.text("ACK", outer, "c", ok.to_tag().expect("a tag"), 2, "", "");
    desk.take(outer, &ack);
    let update = desk.text("UPDATE", outer, "c", ok.to_tag().expect("a tag"), 3, "", "");
    desk.take(outer, &inner(update));
    assert_eq!((last(&desk).0, desk.last_sent().status()), (named, Some(200)));
    desk.leg(LegCommand::HangUp { leg: invited.leg, cause: HangupCause::OtherLeg });
    assert_eq!((last(&desk).0, desk.last_sent().method()), (outer, &Method::Bye));
}

#[test]
fn a_request_that_meets_silence_over_udp_leaves_by_the_next_flow() {
    let (mut desk, talk) = with_two_flows();
    let other = desk.talk(wifi(), "d");
    let (flow, first) = asked(&mut desk, &talk);
    assert_eq!(flow, wifi());
    desk.wait(Duration::from_secs(5));
    assert_eq!(asked(&mut desk, &other).0, wifi());
    desk.wait(Duration::from_millis(26_999));
    assert!(desk.sent_to(mobile().peer).is_empty());
    desk.flows.clear();
    desk.wait(Duration::from_millis(1));
    // Both calls go on there, as does what is stored of them.
    assert_eq!(desk.flows, [mobile()]);
    let told = desk.take_legs();
    assert!(matches!(told[..], [LegEvent::Checkpointed { .. }, LegEvent::Checkpointed { .. }]), "{told:?}");
    let (_, again) = last(&desk);
    assert_eq!((again.method(), again.call_id(), again.cseq().0), (&Method::Options, "c", first.cseq().0 + 1));
    desk.phone(mobile(), &again, 200);
    desk.wait(Duration::from_secs(5));
    let (flow, of_other) = last(&desk);
    assert_eq!((flow, of_other.call_id()), (mobile(), "d"));
    desk.phone(mobile(), &of_other, 200);
    assert!(matches!(desk.take_legs()[..], [LegEvent::Alive { .. }, LegEvent::Alive { .. }]));
    desk.leg(LegCommand::HangUp { leg: other.leg, cause: HangupCause::OtherLeg });
    let (_, bye) = last(&desk);
    desk.phone(mobile(), &bye, 200);
    desk.take_legs();
    // The registration of the silent one stands, and the call stays where it was heard.
    assert_eq!(desk.core.counts().registrations, 2);
    let (flow, _) = asked(&mut desk, &talk);
    assert_eq!(flow, mobile());
    // The last flow that was heard is not left for one that was not: silence is silence then.
    desk.take_sent();
    desk.wait(Duration::from_secs(32));
    assert!(desk.sent_to(wifi().peer).is_empty() && desk.take_legs().is_empty());
    desk.wait(Duration::from_secs(32));
    assert!(matches!(desk.take_legs()[..], [LegEvent::Ended { cause: EndCause::Lost, .. }]));
    let (flow, bye) = last(&desk);
    assert_eq!((flow, bye.method()), (mobile(), &Method::Bye));
    desk.take_sent();
    desk.assert_empty();
    assert!(desk.sent_to(wifi().peer).is_empty());
}

#[test]
fn a_bye_that_meets_silence_leaves_by_the_next_flow_and_a_430_is_no_silence() {
    let (mut desk, talk) = with_two_flows();
    desk.leg(LegCommand::HangUp { leg: talk.leg, cause: HangupCause::OtherLeg });
    desk.take_sent();
    desk.wait(Duration::from_secs(32));
    let (flow, bye) = last(&desk);
    assert_eq!((flow, bye.method()), (mobile(), &Method::Bye));
    desk.phone(mobile(), &bye, 200);
    desk.assert_empty();
    assert_eq!(desk.core.counts().registrations, 2);
    // A 430 ends the binding, at once.
    let (mut desk, talk) = with_two_flows();
    let (flow, options) = asked(&mut desk, &talk);
    desk.phone(flow, &options, 430);
    assert_eq!((last(&desk).0, desk.core.counts().registrations), (mobile(), 1));
}

#[test]
fn whoever_says_anything_is_not_silent() {
    let (mut desk, talk) = with_two_flows();
    let (_, options) = asked(&mut desk, &talk);
    desk.wait(Duration::from_secs(4));
    desk.phone(wifi(), &options, 100);
    desk.wait(Duration::from_secs(28));
    assert!(desk.sent_to(mobile().peer).is_empty(), "it was heard: this flow has not failed");
}

#[test]
fn a_flow_that_was_silent_counts_again_when_its_phone_speaks_over_it() {
    for speaks in ["INVITE", "OPTIONS", "REGISTER", "not"] {
        let (mut desk, mut talk) = with_two_flows();
        asked(&mut desk, &talk);
        desk.wait(Duration::from_secs(32));
        let (_, again) = last(&desk);
        desk.phone(mobile(), &again, 200);
        match speaks {
            "INVITE" => drop(desk.talk(wifi(), "d")),
            "OPTIONS" => {
                // From another address than its newest one it has to show whose it is.
                desk.in_dialog(&mut talk, "OPTIONS", "", "");
                let credentials = desk.credentials("OPTIONS");
                desk.in_dialog(&mut talk, "OPTIONS", &credentials, "");
                assert_eq!(desk.last_sent().status(), Some(200));
                talk.flow = mobile();
                desk.in_dialog(&mut talk, "UPDATE", "", "");
                let credentials = desk.credentials("UPDATE");
                desk.in_dialog(&mut talk, "UPDATE", &credentials, "");
            }
            "REGISTER" => drop(registers(&mut desk, wifi(), &flow_number(1), BOTH)),
            _ => {}
        }
        // The call goes on by the other flow, until that is silent.
        assert_eq!(asked(&mut desk, &talk).0, mobile());
        desk.wait(Duration::from_secs(32));
        let expected = if speaks == "not" { mobile() } else { wifi() };
        assert_eq!(last(&desk).0, expected, "{speaks}");
    }
}

#[test]
fn what_nobody_waits_for_any_more_does_not_leave_again() {
    // An offer is given up after 20 s.
    let (mut desk, talk) = with_two_flows();
    desk.leg(LegCommand::Offer { leg: talk.leg, offer: Pii::new(OFFER.replace("4000", "4002").into()) });
    desk.wait(Duration::from_secs(20));
    assert!(matches!(desk.take_legs()[..], [LegEvent::OfferAnswered { answer: Err(504), .. }]));
    desk.wait(Duration::from_secs(12));
    assert!(desk.sent_to(mobile().peer).is_empty());
    // A key is not pressed half a minute late, but the next one knows the way.
    let (mut desk, talk) = with_two_flows();
    let key = schema::leg::Key { signal: Pii::new('5'), duration_ms: None };
    desk.leg(LegCommand::PressKey { leg: talk.leg, key: key.clone() });
    desk.wait(Duration::from_secs(32));
    assert!(desk.sent_to(mobile().peer).iter().all(|text| !text.starts_with("INFO")));
    desk.leg(LegCommand::PressKey { leg: talk.leg, key });
    assert_eq!((last(&desk).0, desk.last_sent().method()), (mobile(), &Method::Info));
}

#[test]
fn a_flow_that_is_registered_from_another_address_takes_its_calls_along() {
    let (mut desk, mut talk) = with_two_flows();
    let (over, other) = (desk.talk(wifi(), "d"), desk.talk(mobile(), "e"));
    asked(&mut desk, &talk);
    desk.leg(LegCommand::HangUp { leg: over.leg, cause: HangupCause::OtherLeg });
    desk.take_legs();
    desk.take_sent();
    desk.flows.clear();
    talk.flow = at(3, 5300);
    send_register(&mut desk, talk.flow, &flow_number(1), BOTH, |text| text);
    assert!(desk.flows.iter().all(|flow| *flow == talk.flow), "what is under way follows at once");
    let mut sent = desk.sent_to(talk.flow.peer);
    sent.retain(|text| !text.starts_with("SIP"));
    let [bye] = &sent[..] else { panic!("{sent:?}") };
    assert!(bye.starts_with("BYE "));
    desk.phone(talk.flow, &Message::parse_datagram(&Bytes::from(bye.clone())).expect("readable"), 200);
    let told = desk.take_legs();
    assert!(matches!(told[..], [LegEvent::Checkpointed { leg, .. }] if leg == talk.leg), "{told:?}");
    // Whether it is there it is asked anew.
    desk.wait(Duration::from_secs(32));
    let (flow, again) = last(&desk);
    assert_eq!((flow, again.method()), (talk.flow, &Method::Options));
    desk.phone(talk.flow, &again, 200);
    // The phone is known there.
    desk.in_dialog(&mut talk, "OPTIONS", "", "");
    assert_eq!(desk.last_sent().status(), Some(200));
    desk.leg(LegCommand::HangUp { leg: talk.leg, cause: HangupCause::OtherLeg });
    assert_eq!((last(&desk).0, desk.last_sent().method()), (talk.flow, &Method::Bye));
    // What goes by its other flow goes there still.
    desk.leg(LegCommand::HangUp { leg: other.leg, cause: HangupCause::OtherLeg });
    assert_eq!((last(&desk).0, desk.last_sent().method()), (mobile(), &Method::Bye));
}

#[test]
fn a_phone_that_never_answers_puts_off_its_end_by_no_registration() {
    for two_flows in [false, true] {
        let (mut desk, talk) = with_two_flows();
        let (hung_up, asked_at) = (desk.talk(wifi(), "d"), desk.now.mono);
        desk.leg(LegCommand::HangUp { leg: hung_up.leg, cause: HangupCause::OtherLeg });
        desk.leg(LegCommand::Probe { leg: talk.leg });
        let mut is_lost = false;
        for turn in 0..20_u16 {
            // From another port each time, or by both flows, as they are.
            let flow = if two_flows { wifi() } else { at(3, 5300 + turn) };
            registers(&mut desk, flow, &flow_number(1), BOTH);
            if two_flows {
                registers(&mut desk, mobile(), &flow_number(2), BOTH);
            }
            desk.wait(Duration::from_secs(20));
            is_lost |=
                desk.take_legs().iter().any(|event| matches!(event, LegEvent::Ended { cause: EndCause::Lost, .. }));
            let took = desk.now.mono.since(asked_at);
            assert_eq!(is_lost, took >= Duration::from_secs(64), "after {took:?}");
        }
        assert_eq!(desk.core.counts().client_transactions, 0, "nor do its BYEs go on for ever");
    }
}

#[test]
fn a_binding_from_before_a_restart_does_not_replace_what_is_registered_since() {
    let mut before = Desk::new();
    registers(&mut before, wifi(), &flow_number(1), BOTH);
    let mut desk = Desk::new();
    registers(&mut desk, mobile(), &flow_number(1), BOTH);
    for binding in before.bindings {
        desk.handle(restored(binding));
    }
    let talk = desk.talk(mobile(), "c");
    assert_eq!(desk.core.counts().registrations, 1);
    let (flow, options) = asked(&mut desk, &talk);
    desk.phone(flow, &options, 200);
    registers(&mut desk, at(3, 5300), &flow_number(1), BOTH);
    assert_eq!(asked(&mut desk, &talk).0, at(3, 5300), "it was the newer one that moved");
}

/// The process after this one, with the bindings and a call of it.
fn restarted(before: &Desk, leg: LegId, checkpoint: schema::leg::Checkpoint) -> Desk {
    let mut desk = Desk::with(config(), 77);
    desk.leg(LegCommand::Resume { leg, checkpoint });
    let mut bindings: Vec<_> = before.bindings.clone();
    // As the store gives them: in no order that says which is the newest.
    bindings.sort_by_key(|binding| std::cmp::Reverse(binding.reg_id));
    for binding in bindings {
        desk.handle(restored(binding));
    }
    desk
}

#[test]
fn flows_over_udp_are_there_after_a_restart() {
    // The call's own flow is silent after the restart: the phone is found by the newest other one.
    let mut before = Desk::new();
    for (number, flow) in [(1, wifi()), (2, at(5, 5500)), (3, mobile())] {
        registers(&mut before, flow, &flow_number(number), BOTH);
        before.wait(Duration::from_secs(1));
    }
    let invited = before.invited(wifi(), "c");
    let mut desk = restarted(&before, invited.leg, invited.checkpoint.clone());
    assert_eq!(desk.core.counts().registrations, 3);
    desk.leg(LegCommand::Probe { leg: invited.leg });
    assert_eq!(last(&desk).0, wifi());
    desk.wait(Duration::from_secs(32));
    assert_eq!(last(&desk).0, mobile());
    // A call whose connection the restart has cut goes on over UDP, without waiting for the phone.
    let mut before = Desk::new();
    registers(&mut before, tls(1, 1), &flow_number(1), BOTH);
    registers(&mut before, mobile(), &flow_number(2), BOTH);
    let invited = before.invited(tls(1, 1), "c");
    let mut desk = Desk::with(config(), 77);
    desk.leg(LegCommand::Resume { leg: invited.leg, checkpoint: invited.checkpoint.clone() });
    desk.leg(LegCommand::Probe { leg: invited.leg });
    assert!(desk.take_sent().is_empty(), "nobody is there yet");
    for binding in before.bindings {
        desk.handle(restored(binding));
    }
    desk.handle(Input::Timeout);
    assert_eq!((last(&desk).0, desk.last_sent().method()), (mobile(), &Method::Options));
}
