//! What a panic costs, what many cost, and what becomes of a message that kills whoever takes it.

use super::MOBILE;
use super::world::{Carrier, World, call_id};
use crate::faults::{Fault, FaultPoint};
use crate::poison::{About, SET_ASIDE_FOR, Subject};
use crate::{AskError, CreditError};
use schema::call::{CallState, HangupSide};
use schema::leg::LegCommand;
use schema::money::Micros;
use std::time::Duration;
use storage::memory::MemFaults;

const LAPSED_MS: u64 = SET_ASIDE_FOR.as_millis() as u64 + 60_000;

impl World {
    /// The account's next messages of a kind kill it.
    fn poison(&self, kind: &'static str, point: FaultPoint, times: u32) {
        self.actors.arm(Subject::Account(self.account), Fault { point, kind: Some(kind), times });
    }

    /// The kinds of the messages that are set aside.
    fn set_aside(&self) -> Vec<&'static str> {
        self.actors.set_aside().iter().map(|aside| aside.work.kind).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_kills_three_times_is_set_aside_and_all_others_go_on() {
    let world = World::start(1_000_000, Carrier::Answers).await;
    world.poison("credit", FaultPoint::Received, 3);
    assert_eq!(world.credit(500, "k").await, Err(CreditError::Ask(AskError::SetAside)));
    assert_eq!(world.actors.counts().panics, 3);
    // Refused at once from now on; another key is credited, the account answers.
    assert_eq!(world.credit(500, "k").await, Err(CreditError::Ask(AskError::SetAside)));
    assert!(world.credit(700, "k2").await.is_ok());
    assert_eq!((world.actors.counts().panics, world.view().await.balance.total), (3, Micros(1_000_700)));
    let listed = world.actors.set_aside()[0];
    assert_eq!((listed.subject, listed.work.kind, listed.refused), (Subject::Account(world.account), "credit", 2));
    assert!(matches!(listed.work.about, About::Key(_)) && !format!("{}", listed.work).contains("k2"));
    // In time it is tried again.
    world.pass(LAPSED_MS).await;
    assert_eq!(world.set_aside(), Vec::<&str>::new());
    assert!(world.credit(500, "k").await.is_ok());
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_kills_twice_is_answered_the_third_time() {
    let world = World::start(1_000_000, Carrier::Answers).await;
    for key in ["a", "b", "c"] {
        world.poison("credit", FaultPoint::Decided, 2);
        assert!(world.credit(500, key).await.is_ok_and(|credited| !credited.replayed));
    }
    // After the entry left the actor the caller is answered all the same, and nothing is posted twice.
    world.poison("credit", FaultPoint::Done, 1);
    assert!(world.credit(500, "d").await.is_ok());
    let counts = world.actors.counts();
    assert_eq!((counts.panics, counts.set_aside, world.view().await.balance.total), (7, 0, Micros(1_002_000)));
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_question_kills_the_account_is_refused_and_leaves_no_hold() {
    for point in [FaultPoint::Received, FaultPoint::Decided] {
        let world = World::start(1_000_000, Carrier::Answers).await;
        world.poison("authorize", point, 3);
        world.invite(1, MOBILE);
        world.pass(2_000).await;
        assert_eq!((world.said(), world.set_aside()), (vec!["reject a 503".to_owned()], vec!["authorize"]));
        world.invite(2, MOBILE);
        world.pass(1_000).await;
        assert_eq!(world.view().await.live_calls.len(), 1, "another call goes ahead");
        world.bye_from_caller(2);
        world.pass(1_000).await;
        let view = world.view().await;
        assert_eq!((view.balance.reserved, world.actors.counts().live_calls), (Micros(0), 0));
        world.audit().await;
    }
}

#[tokio::test(start_paused = true)]
async fn c2_a_renewal_that_kills_the_account_ends_the_call_within_what_is_paid() {
    let world = World::start(10_000_000, Carrier::Answers).await;
    world.poison("renew", FaultPoint::Decided, 1_000);
    world.invite(1, MOBILE);
    world.pass(70_000).await;
    let cdr = world.cdr(1).await;
    assert!(cdr.talk_ms <= 60_000 && cdr.charged == Micros(600_000), "{cdr:?}");
    assert_eq!((world.actors.counts().panics, world.actors.counts().live_calls), (3, 0));
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn warnings_that_kill_the_account_are_left_out_and_its_calls_go_on() {
    let world = World::start(600_000, Carrier::Answers).await;
    world.poison("warn", FaultPoint::Received, 1_000);
    world.invite(1, MOBILE);
    world.pass(61_000).await;
    assert_eq!((world.cdr(1).await.charged, world.set_aside()), (Micros(600_000), vec!["warn"]));
    world.audit().await;
}

/// A call of ten seconds whose settlement kills its account.
async fn unsettled(point: FaultPoint) -> World {
    let world = World::start(10_000_000, Carrier::Answers).await;
    world.invite(1, MOBILE);
    world.pass(10_000).await;
    world.poison("settle", point, 1_000);
    world.bye_from_caller(1);
    world.pass(30_000).await;
    let counts = world.actors.counts();
    assert_eq!((counts.panics, counts.unsettled_calls, counts.live_calls), (3, 1, 0));
    assert_eq!(world.set_aside(), ["settle"]);
    let view = world.view().await;
    assert_eq!((view.balance.total, view.balance.reserved), (Micros(10_000_000), Micros(600_000)), "nothing is billed");
    assert_eq!((view.live_calls[0].state, view.live_calls[0].billed_seconds), (CallState::Ending, 10));
    world.audit().await;
    world
}

#[tokio::test(start_paused = true)]
async fn a2_a_bye_whose_settlement_is_set_aside_is_answered_when_its_end_is_kept() {
    let world = World::start(10_000_000, Carrier::Answers).await;
    world.invite(1, MOBILE);
    world.pass(10_000).await;
    world.poison("settle", FaultPoint::Received, 1_000);
    // Keeping it fails once, too, and then its account cannot be loaded.
    let faults =
        MemFaults { sync: Duration::from_millis(300), failing_batches: 1, failing_loads: 1, ..MemFaults::default() };
    world.disk.set_faults(faults);
    world.commands();
    world.bye_from_caller(1);
    let mut is_answered = false;
    for _ in 0..80 {
        world.pass(50).await;
        is_answered = world.commands().iter().any(|command| matches!(command, LegCommand::Settled { .. }));
        if is_answered {
            break;
        }
    }
    let (_, live) = world.store.live_call(call_id(1)).await.expect("read").expect("it keeps its hold");
    assert_eq!((is_answered, live.call.state), (true, CallState::Ending));
}

/// Billed once, to the caller's BYE.
async fn settled(world: &World) {
    let cdr = world.cdr(1).await;
    assert_eq!((cdr.call.billed_seconds, cdr.charged), (10, Micros(100_000)));
    assert_eq!(cdr.call.hangup.as_ref().map(|hangup| hangup.side), Some(HangupSide::Caller));
    let view = world.view().await;
    assert_eq!((view.balance.total, view.balance.reserved), (Micros(9_900_000), Micros(0)));
    assert_eq!((view.live_calls.len(), world.actors.counts().unsettled_calls), (0, 0));
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn l3_a_settlement_that_kills_its_account_keeps_its_hold_and_is_tried_again() {
    for point in [FaultPoint::Received, FaultPoint::Decided] {
        let world = unsettled(point).await;
        // Still poison when it is tried again: three more deaths, no more.
        world.pass(LAPSED_MS).await;
        assert_eq!((world.actors.counts().panics, world.set_aside()), (6, vec!["settle"]));
        world.actors.disarm();
        world.pass(LAPSED_MS).await;
        settled(&world).await;
    }
}

#[tokio::test(start_paused = true)]
async fn c3_a_settlement_that_killed_its_account_is_done_after_a_restart_and_bills_to_the_end() {
    let world = unsettled(FaultPoint::Decided).await.restart().await;
    world.pass(10_000).await;
    assert!(world.said().contains(&"hang up b1 ServiceFailure".to_owned()), "its legs are told to end, not to go on");
    settled(&world).await;
}

#[tokio::test(start_paused = true)]
async fn c3_a_call_that_panics_after_its_end_is_billed_to_its_end() {
    let world = World::start(10_000_000, Carrier::Answers).await;
    world.invite(1, MOBILE);
    world.pass(5_000).await;
    world.disk.set_faults(MemFaults { failing_batches: 3, ..MemFaults::default() });
    world.bye_from_caller(1);
    // The settlement fails and is tried again, in 1 s, in 2 s.
    world.pass(2_000).await;
    world.actors.panic_call(call_id(1));
    world.pass(20_000).await;
    let cdr = world.cdr(1).await;
    assert_eq!((cdr.call.billed_seconds, cdr.charged), (5, Micros(50_000)), "not to the panic");
    assert_eq!(cdr.call.hangup.as_ref().map(|hangup| hangup.side), Some(HangupSide::Caller));
    assert_eq!((world.actors.counts().live_calls, world.view().await.balance.reserved), (0, Micros(0)));
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_is_lost_wherever_its_actor_panics_and_nothing_else_is() {
    for kind in ["begin", "leg event", "time-out"] {
        for point in [FaultPoint::Received, FaultPoint::Decided, FaultPoint::Done] {
            let world = World::start(10_000_000, Carrier::Answers).await;
            world.actors.arm(Subject::Call(call_id(1)), Fault { point, kind: Some(kind), times: 1 });
            world.invite(1, MOBILE);
            world.invite(2, MOBILE);
            world.pass(90_000).await;
            assert!(world.actors.is_live(call_id(2)) && !world.actors.is_live(call_id(1)), "{kind} {point:?}");
            world.bye_from_caller(2);
            world.pass(5_000).await;
            let (view, counts) = (world.view().await, world.actors.counts());
            assert_eq!(
                (view.balance.reserved, counts.live_calls, counts.panics),
                (Micros(0), 0, 1),
                "{kind} {point:?}"
            );
            assert_eq!((world.channels(1), world.channels(2)), (0, 0));
            world.audit().await;
        }
    }
}

/// Kills the account until it rests longer than anybody waits.
async fn exhausted(world: &World) {
    for _ in 0..9 {
        world.view().await;
        world.actors.panic_account(world.account);
        world.pass(1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_account_that_fails_again_and_again_rests_and_says_so() {
    let world = World::start(10_000_000, Carrier::Answers).await;
    exhausted(&world).await;
    assert_eq!(world.actors.view(world.account).await.err(), Some(AskError::Resting));
    assert_eq!(world.actors.counts().resting, 1);
    world.invite(1, MOBILE);
    world.pass(5).await;
    assert_eq!(world.said(), ["reject a 503"], "at once");
    world.pass(1_300).await;
    assert_eq!(world.actors.counts().resting, 0);
    world.invite(2, MOBILE);
    world.pass(100).await;
    assert_eq!(world.view().await.live_calls.len(), 1);
    // After a quiet time a panic costs no rest again.
    world.pass(12_000).await;
    world.actors.panic_account(world.account);
    world.pass(1).await;
    assert_eq!((world.actors.counts().loaded_accounts, world.actors.counts().panics), (1, 10));
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_ends_while_its_account_rests_is_billed_to_its_end() {
    let world = World::start(10_000_000, Carrier::Answers).await;
    let began = world.now().mono;
    world.invite(1, MOBILE);
    world.pass(5_000).await;
    exhausted(&world).await;
    let most_ms = u64::try_from(world.now().mono.since(began).as_millis()).expect("short");
    world.bye_from_caller(1);
    world.pass(10_000).await;
    let cdr = world.cdr(1).await;
    assert!((4_000..=most_ms).contains(&cdr.talk_ms), "{} of {most_ms} ms", cdr.talk_ms);
    assert!((5..=7).contains(&cdr.call.billed_seconds), "{}", cdr.call.billed_seconds);
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_fails_costs_no_call() {
    let world = World::start(10_000_000, Carrier::Answers).await;
    for call in 1..=3 {
        world.invite(call, MOBILE);
    }
    world.pass(5_000).await;
    world.actors.panic_supervisor_of(world.account);
    world.actors.panic_trunks_supervisor();
    world.actors.panic_trunk(crate::routing::tests::trunk(1, 1).id);
    world.invite(4, MOBILE);
    world.pass(70_000).await;
    assert_eq!((world.actors.counts().live_calls, world.view().await.live_calls.len()), (4, 4));
    world.probe(1, false);
    world.pass(10).await;
    world.invite(5, MOBILE);
    world.pass(1_000).await;
    assert_eq!(world.view().await.live_calls[4].route.as_deref(), Some("carrier 2"), "trunks are looked after");
    for call in 1..=5 {
        world.bye_from_callee(call);
    }
    world.pass(5_000).await;
    assert_eq!((world.actors.counts().live_calls, world.view().await.balance.reserved), (0, Micros(0)));
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_supervisors_fail_again_and_again_gives_up_and_the_next_goes_on() {
    let world = World::start(10_000_000, Carrier::Answers).await;
    world.invite(1, MOBILE);
    world.pass(5_000).await;
    for _ in 0..10 {
        world.actors.panic_supervisor_of(world.account);
        world.pass(100).await;
    }
    assert!(tokio::time::timeout(Duration::from_millis(1), world.actors.failed()).await.is_err(), "not yet");
    assert!(world.actors.is_live(call_id(1)) && world.view().await.live_calls.len() == 1);
    world.actors.panic_supervisor_of(world.account);
    tokio::time::timeout(Duration::from_secs(1), world.actors.failed()).await.expect("it gives up");
    world.said();
    world.invite(2, MOBILE);
    world.pass(100).await;
    assert_eq!(world.said(), ["reject a 503"]);
    let world = world.restart().await;
    world.pass(1_000).await;
    assert!(world.actors.is_live(call_id(1)), "the next process takes the call up");
    world.bye_from_caller(1);
    world.pass(1_000).await;
    assert_eq!(world.view().await.balance.reserved, Micros(0));
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn an_account_whose_calls_fail_again_and_again_gets_no_new_ones_for_a_while() {
    let world = World::with_accounts(2, 10_000_000, Carrier::Answers).await;
    for call in 1..=4 {
        world.invite(call, MOBILE);
        world.pass(100).await;
        world.actors.panic_call(call_id(call));
        world.pass(10).await;
    }
    world.said();
    world.invite(5, MOBILE);
    world.invite_of(world.accounts[1], 6, MOBILE);
    world.pass(20).await;
    assert!(world.said().contains(&"reject a 503".to_owned()));
    assert!(!world.actors.is_live(call_id(5)) && world.actors.is_live(call_id(6)), "others are let in");
    world.pass(100).await;
    world.invite(7, MOBILE);
    world.pass(20).await;
    assert!(world.actors.is_live(call_id(7)));
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn while_too_many_calls_fail_no_new_ones_are_let_in_and_the_node_is_not_ready() {
    let world = World::with_accounts(60, 10_000_000, Carrier::Answers).await;
    for call in 0..101 {
        world.invite_of(world.accounts[call as usize % 60], call, MOBILE);
        world.pass(20).await;
        assert!(world.actors.is_ready());
        world.actors.panic_call(call_id(call));
        world.pass(5).await;
    }
    assert!(!world.actors.is_ready());
    assert_eq!(world.actors.counts().beyond_intensity, 1);
    world.invite_of(world.accounts[59], 200, MOBILE);
    world.pass(20).await;
    assert!(!world.actors.is_live(call_id(200)));
    world.pass(10_000).await;
    assert!(world.actors.is_ready());
    world.invite_of(world.accounts[59], 201, MOBILE);
    world.pass(20).await;
    assert!(world.actors.is_live(call_id(201)));
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn questions_wait_in_a_bounded_line_and_calls_do_not_stand_in_it() {
    let world = World::start(10_000_000, Carrier::Answers).await;
    world.view().await;
    world.disk.set_faults(MemFaults { sync: Duration::from_millis(400), ..MemFaults::default() });
    // What waits behind this entry waits for its commit.
    world.invite(1, MOBILE);
    world.pass(10).await;
    let asked: Vec<_> = (0..300)
        .map(|_| {
            let (actors, account) = (world.actors.clone(), world.account);
            tokio::spawn(async move { actors.view(account).await.err() })
        })
        .collect();
    world.pass(10).await;
    world.invite(2, MOBILE);
    world.pass(3_000).await;
    let mut refused = 0;
    for answer in asked {
        match answer.await.expect("no panic") {
            None => {}
            Some(AskError::Unavailable) => refused += 1,
            Some(other) => panic!("{other}"),
        }
    }
    assert_eq!((refused, world.view().await.live_calls.len()), (44, 2));
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_ringing_does_not_fill_a_calls_mailbox() {
    let world = World::start(10_000_000, Carrier::Rings).await;
    world.invite(1, MOBILE);
    world.pass(100).await;
    world.disk.set_faults(MemFaults { next_stall: Duration::from_secs(2), ..MemFaults::default() });
    world.answer(1);
    world.pass(10).await;
    // The call waits for its account.
    for _ in 0..10_000 {
        world.rings(1);
    }
    world.bye_from_callee(1);
    assert!(world.actors.counts().messages_dropped >= 9_700);
    world.pass(5_000).await;
    assert_eq!((world.actors.counts().live_calls, world.cdr(1).await.call.state), (0, CallState::Ended));
    world.audit().await;
}
