//! Calls from the first INVITE to the last BYE, in fair weather and foul.

use super::*;

#[test]
fn a_call_is_answered_and_the_caller_hangs_up() {
    let mut world = World::new("secret", FAIR);
    world.call("+447700900000");
    world.run(Duration::from_secs(5));
    assert!(answered(&world));
    assert!(world.saw(|event| matches!(event, LegEvent::Confirmed { .. })));
    world.command(PhoneCommand::HangUp { call: CALL });
    world.run(Duration::from_secs(2));
    assert!(
        world.saw(|event| matches!(event, LegEvent::Ended { leg, cause: EndCause::Bye { .. } } if leg.attempt == 0))
    );
    assert!(world.saw(|event| matches!(event, LegEvent::Ended { leg, cause: EndCause::HungUp } if leg.attempt == 1)));
    assert_eq!(world.carrier.counts().ended, 1);
    world.assert_empty();
}

#[test]
fn c4_the_called_side_hangs_up_and_the_callers_leg_ends() {
    let mut world = World::new("secret", FAIR);
    world.call("+447700900080");
    world.run(Duration::from_secs(7));
    assert!(world.phone_events.iter().any(|event| matches!(event, PhoneEvent::Ended { by_phone: false, .. })));
    world.assert_empty();
}

#[test]
fn early_media_busy_and_unknown_numbers_reach_the_phone() {
    for (number, status) in
        [("+447700900050", 486), ("+447700900070", 503), ("+447700900090", 604), ("+447700900095", 603)]
    {
        let mut world = World::new("secret", FAIR);
        world.call(number);
        world.run(Duration::from_secs(2));
        assert!(
            world.phone_events.contains(&PhoneEvent::Failed { call: CALL, status }),
            "{number}: {:?}",
            world.phone_events
        );
        world.assert_empty();
    }
    let mut world = World::new("secret", FAIR);
    world.call("+447700900040");
    world.run(Duration::from_secs(7));
    assert!(world.phone_events.contains(&PhoneEvent::Progress { call: CALL, status: 183, early_media: true }));
    assert!(answered(&world));
}

#[test]
fn a_ringing_call_is_cancelled() {
    let mut world = World::new("secret", FAIR);
    world.call("+447700900060");
    world.run(Duration::from_secs(3));
    world.command(PhoneCommand::HangUp { call: CALL });
    world.run(Duration::from_secs(3));
    assert!(world.phone_events.contains(&PhoneEvent::Failed { call: CALL, status: 487 }));
    assert!(world.saw(|event| matches!(event, LegEvent::Cancelled { .. })));
    assert!(world.saw(|event| matches!(event, LegEvent::Failed { status: 487, .. })));
    assert_eq!(world.carrier.counts().cancelled, 1);
    world.assert_empty();
}

#[test]
fn an_unanswered_call_ends_after_the_ring_time() {
    let mut world = World::new("secret", FAIR);
    world.call("+447700900061");
    world.run(Duration::from_secs(70));
    assert!(world.saw(|event| matches!(event, LegEvent::Failed { status: 408, rang: true, .. })));
    assert!(world.phone_events.contains(&PhoneEvent::Failed { call: CALL, status: 408 }));
    world.assert_empty();
}

#[test]
fn lost_repeated_and_reordered_datagrams_change_nothing() {
    let weathers: [Weather; 5] = [
        |n| if n % 3 == 0 { &[] } else { &[1] },
        |n| if n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 61 < 3 { &[] } else { &[3] },
        |n| if n % 5 == 0 { &[] } else { &[1, 6] },
        |_| &[1, 2, 4],
        |n| if n % 2 == 0 { &[20] } else { &[1] },
    ];
    for (at, weather) in weathers.into_iter().enumerate() {
        let mut world = World::new("secret", weather);
        world.call("+447700900000");
        world.run(Duration::from_secs(31));
        assert!(answered(&world), "weather {at}: {:?}", world.phone_events);
        world.command(PhoneCommand::HangUp { call: CALL });
        world.run(Duration::from_secs(40));
        let count = |wanted: fn(&LegEvent) -> bool| world.leg_events.iter().filter(|event| wanted(event)).count();
        assert_eq!(count(|event| matches!(event, LegEvent::Invited(_))), 1, "weather {at}");
        assert_eq!(count(|event| matches!(event, LegEvent::Answered { .. })), 1, "weather {at}");
        assert_eq!(count(|event| matches!(event, LegEvent::Ended { .. })), 2, "weather {at}");
        world.assert_empty();
    }
}

#[test]
fn a_200_that_is_never_acknowledged_ends_in_a_bye() {
    let mut world = World::new("secret", FAIR);
    world.call("+447700900000");
    world.run(Duration::from_millis(3));
    world.is_cut_off = true;
    world.run(Duration::from_secs(40));
    let is_a = |leg: &LegId| leg.side == schema::call::LegSide::A;
    let no_ack = |event: &LegEvent| matches!(event, LegEvent::Ended { leg, cause: EndCause::NoAck } if is_a(leg));
    assert!(world.saw(no_ack), "{:?}", world.leg_events);
    assert!(world.to_phone.iter().any(|sent| sent.starts_with(b"BYE ")), "the phone is told");
    assert_eq!(world.carrier.counts().ended, 1, "the carrier too");
    world.run(Duration::from_secs(300));
    assert_eq!(world.core.counts(), Counts::default());
}

/// What a phone's first INVITE and the carrier's are.
fn both_invites(caller: Caller, withhold: bool) -> [String; 2] {
    let mut world = World::of(caller, "secret", FAIR);
    world.withhold = withhold;
    world.call("+447700900000");
    world.run(Duration::from_secs(1));
    [&world.from_phone, &world.to_carrier]
        .map(|sent| String::from_utf8(sent.first().expect("an INVITE").to_vec()).expect("text"))
}

#[test]
fn p1_the_b_leg_is_the_same_whoever_calls_from_wherever() {
    let other = Caller { username: "canary", at: ([127, 0, 0, 1], 5199), seed: 44, name: "Jane Canary" };
    for withhold in [false, true] {
        let ([a, b], [other_a, other_b]) = (both_invites(DEMO, withhold), both_invites(other, withhold));
        assert_eq!(b, other_b);
        assert!(b.starts_with("INVITE "));
        // What tells the two callers apart, and what their carriers have not seen.
        let own = |text: &str, start: &str| text.lines().find(|line| line.starts_with(start)).map(str::to_owned);
        for start in ["Via: ", "From: ", "Call-ID: ", "Contact: ", "o="] {
            assert!(own(&a, start).is_some() && own(&a, start) != own(&other_a, start), "{start}: {a}");
        }
        for trace in ["canary", "Canary", "demo", "5100", "5199", "Authorization", "User-Agent"] {
            assert!(!b.contains(trace), "{trace} of the A-leg is in {b}");
        }
    }
}
