//! The actors together, on a simulated disk and paused time, with a simulated SIP side.

mod events;
mod panics;
mod restart;
mod storm;
mod world;

use crate::account::authorize::QuoteRequest;
use crate::system::HangUpError;
use crate::{AskError, CreditError, CreditRefused};
use futures_util::StreamExt;
use schema::call::{CallState, HangupSide, RefusalCode};
use schema::id::CallNo;
use schema::leg::{HangupCause, LegCommand};
use schema::money::Micros;
use schema::pii::Pii;
use std::time::Duration;
use storage::memory::MemFaults;
use world::{Carrier, World, call_id};

const MOBILE: &str = "+447700900123";

#[tokio::test(start_paused = true)]
async fn a_call_goes_all_the_way_within_its_budget() {
    let world = World::start(10_000_000, Carrier::Rings).await;
    let before = world.actors.counts();
    let written = world.journal.written().1;
    world.invite(1, MOBILE);
    world.pass(1_000).await;
    world.answer(1);
    world.pass(30_000).await;
    world.bye_from_caller(1);
    world.pass(1_000).await;
    let after = world.actors.counts();
    let messages = after.account_messages + after.call_messages - before.account_messages - before.call_messages;
    assert!(messages <= 6, "{messages} mailbox messages");
    assert_eq!(world.journal.written().1 - written, 3, "journal entries");
    assert_eq!(world.row_writes().await, 10);
    assert_eq!(after.live_calls, 0);
    let cdr = world.cdr(1).await;
    assert_eq!((cdr.call.state, cdr.charged, cdr.call.billed_seconds), (CallState::Ended, Micros(300_000), 30));
    assert_eq!(
        world.said(),
        ["invite b1", "180 a", "confirm b1", "accept a", "hang up b1 OtherLeg"].map(str::to_owned)
    );
    let view = world.view().await;
    assert_eq!((view.balance.total, view.balance.reserved), (Micros(9_700_000), Micros(0)));
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn c3_a_bye_that_waits_behind_a_renewal_ends_the_call() {
    // Before and after the cut-off is due, at 3.5 s; the renewal is awaited until 3.95 s.
    for talked_ms in [3_200, 3_700] {
        let world = World::start(40_000, Carrier::Answers).await; // 4 s
        world.invite(1, MOBILE);
        world.pass(2_500).await;
        world.disk.set_faults(MemFaults { next_stall: Duration::from_secs(7), ..MemFaults::default() });
        let ends = async {
            world.pass(talked_ms - 2_500).await;
            world.bye_from_caller(1);
            world.pass(20_000).await;
        };
        let _ = tokio::join!(world.credit(100_000, "top-up"), ends);
        let cdr = world.cdr(1).await;
        assert_eq!(cdr.call.hangup.as_ref().map(|hangup| hangup.side), Some(HangupSide::Caller));
        assert!(cdr.talk_ms.abs_diff(talked_ms) < 50, "{}", cdr.talk_ms);
        world.audit().await;
    }
}

#[tokio::test(start_paused = true)]
async fn c4_a_call_is_settled_when_its_other_leg_was_told() {
    let world = World::start(10_000_000, Carrier::Silent).await;
    world.invite(1, MOBILE);
    world.pass(1_000).await;
    world.answer(1);
    world.pass(30_000).await;
    let written = world.journal.written().1;
    world.bye_from_caller(1);
    world.pass(300).await;
    assert_eq!(world.journal.written().1, written, "the BYE to the callee has not left");
    world.bye_to_callee(1);
    world.pass(1).await;
    assert_eq!(world.journal.written().1 - written, 1);
    assert_eq!(world.cdr(1).await.call.billed_seconds, 30);
}

#[tokio::test(start_paused = true)]
async fn five_calls_share_money_for_ninety_seconds_and_use_all_of_it() {
    let world = World::start(900_000, Carrier::Answers).await;
    for call in 1..=5 {
        world.invite(call, MOBILE);
        world.pass(100).await;
    }
    assert_eq!(world.view().await.live_calls.len(), 5);
    world.pass(120_000).await;
    assert_eq!(world.actors.counts().live_calls, 0, "all are cut");
    let mut charged = Micros::ZERO;
    for call in 1..=5 {
        let cdr = world.cdr(call).await;
        assert!(cdr.talk_ms <= 1_000 * cdr.call.billed_seconds, "c2: within its grant");
        assert_eq!(cdr.call.hangup.as_ref().map(|h| h.side), Some(HangupSide::Service));
        charged += cdr.charged;
    }
    let balance = world.view().await.balance;
    assert!(charged <= Micros(900_000));
    assert_eq!((balance.total, balance.available), (Micros(900_000) - charged, Micros(900_000) - charged));
    assert!(balance.available < Micros(10_000), "nothing usable is left over: {}", balance.available);
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a_credit_during_a_call_extends_it() {
    let world = World::start(600_000, Carrier::Answers).await;
    world.invite(1, MOBILE);
    world.pass(50_000).await;
    let until =
        |view: &crate::AccountView| view.live_calls[0].funded_until.map(|at| at.since(world.now().wall).as_secs());
    assert_eq!(until(&*world.view().await), Some(9));
    assert!(world.credit(600_000, "top-up").await.is_ok());
    assert_eq!(until(&*world.view().await), Some(69));
    world.pass(60_000).await;
    assert_eq!(world.actors.counts().live_calls, 1);
    world.pass(20_000).await;
    assert_eq!(world.cdr(1).await.call.billed_seconds, 120);
    let events = world.events_of_call_warnings().await;
    assert_eq!(events, [Some(60), Some(30), Some(10), None, Some(60), Some(30), Some(10)]);
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_call_ends_that_call_only_and_it_is_settled() {
    let world = World::start(10_000_000, Carrier::Answers).await;
    world.invite(1, MOBILE);
    world.invite(2, MOBILE);
    world.pass(10_000).await;
    world.said();
    world.actors.panic_call(call_id(1));
    world.pass(1_000).await;
    assert!(world.said().contains(&"hang up a ServiceFailure".to_owned()));
    let cdr = world.cdr(1).await;
    assert_eq!(cdr.call.hangup.as_ref().map(|h| h.reason.as_str()), Some("the service failed"));
    assert!((9..=11).contains(&cdr.call.billed_seconds) && cdr.charged.is_positive());
    assert!(world.actors.is_live(call_id(2)) && !world.actors.is_live(call_id(1)));
    let view = world.view().await;
    assert_eq!((view.live_calls.len(), view.balance.reserved), (1, Micros(600_000)));
    world.bye_from_caller(2);
    world.pass(1_000).await;
    assert_eq!(world.view().await.balance.reserved, Micros(0));
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_an_account_rebuilds_it_and_its_calls_go_on() {
    let world = World::start(10_000_000, Carrier::Answers).await;
    world.invite(1, MOBILE);
    world.pass(10_000).await;
    world.actors.panic_account(world.account);
    world.pass(100).await;
    assert_eq!(world.actors.counts().restarts, 1);
    assert_eq!(world.actors.counts().loaded_accounts, 1, "rebuilt at once, for its live call");
    assert_eq!(world.view().await.live_calls[0].state, CallState::Answered);
    // Renewed by the successor, and settled by it.
    world.pass(60_000).await;
    assert_eq!(world.view().await.balance.reserved, Micros(1_200_000));
    world.bye_from_callee(1);
    world.pass(1_000).await;
    assert_eq!(world.cdr(1).await.call.billed_seconds, 71);
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a_question_that_a_panic_swallowed_is_asked_again() {
    let world = World::start(10_000_000, Carrier::Answers).await;
    world.view().await;
    world.actors.panic_account(world.account);
    // In the mailbox behind the panic.
    world.invite(1, MOBILE);
    world.pass(1_000).await;
    assert_eq!(world.view().await.live_calls.len(), 1);
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a3_a_successor_loads_only_what_its_predecessor_left() {
    let world = World::start(10_000_000, Carrier::Answers).await;
    world.view().await;
    world.disk.set_faults(MemFaults { sync: Duration::from_millis(400), ..MemFaults::default() });
    world.invite(1, MOBILE);
    world.pass(100).await;
    // The hold is with the journal, not yet durable.
    world.actors.panic_account(world.account);
    world.pass(10).await;
    world.invite(2, MOBILE);
    world.pass(3_000).await;
    let view = world.view().await;
    assert_eq!((view.live_calls.len(), view.balance.reserved), (2, Micros(1_200_000)));
    assert_eq!(world.actors.counts().restarts, 1, "no entry was rejected");
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn c1_no_invite_leaves_before_its_hold_is_durable() {
    let world = World::start(10_000_000, Carrier::Answers).await;
    world.view().await;
    world.disk.set_faults(MemFaults { sync: Duration::from_millis(400), ..MemFaults::default() });
    world.invite(1, MOBILE);
    world.pass(300).await;
    assert_eq!(world.said(), Vec::<String>::new());
    world.pass(200).await;
    assert_eq!(world.said()[0], "invite b1");
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a2_nothing_is_told_before_the_commit() {
    let world = World::start(10_000_000, Carrier::Answers).await;
    let cursor = world.view().await.cursor;
    world.disk.set_faults(MemFaults { sync: Duration::from_millis(400), ..MemFaults::default() });
    let mut events = Box::pin(world.actors.events(world.account, Some(cursor)));
    world.invite(1, MOBILE);
    world.pass(300).await;
    assert!(tokio::time::timeout(Duration::from_millis(1), events.next()).await.is_err());
    world.pass(200).await;
    assert!(tokio::time::timeout(Duration::from_millis(1), events.next()).await.is_ok());
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_fails_is_as_if_it_never_was() {
    let world = World::start(10_000_000, Carrier::Answers).await;
    world.view().await;
    world.disk.set_faults(MemFaults { failing_batches: 1, ..MemFaults::default() });
    world.invite(1, MOBILE);
    world.pass(2_000).await;
    assert_eq!(world.said(), ["reject a 503"]);
    let view = world.view().await;
    assert_eq!((view.balance.reserved, view.live_calls.len()), (Micros(0), 0));
    world.invite(2, MOBILE);
    world.pass(1_000).await;
    assert_eq!(world.view().await.live_calls.len(), 1);
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a_settlement_that_fails_is_repeated_until_it_is_stored() {
    let world = World::start(10_000_000, Carrier::Answers).await;
    world.invite(1, MOBILE);
    world.pass(5_000).await;
    world.disk.set_faults(MemFaults { failing_batches: 2, ..MemFaults::default() });
    world.bye_from_caller(1);
    world.pass(10_000).await;
    let cdr = world.cdr(1).await;
    assert_eq!((cdr.call.billed_seconds, world.actors.counts().live_calls), (5, 0));
    assert_eq!(world.view().await.balance.total, Micros(9_950_000));
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_is_recorded_and_told() {
    let world = World::start(0, Carrier::Answers).await;
    world.invite(1, MOBILE);
    world.pass(1_000).await;
    assert_eq!(world.said(), ["reject a 402"]);
    let cdr = world.cdr(1).await;
    assert_eq!(cdr.call.explanation.refusal.map(|r| r.code), Some(RefusalCode::InsufficientBalance));
    assert_eq!((cdr.no, world.actors.counts().live_calls), (CallNo(1), 0));
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a_quote_says_what_a_call_does() {
    let world = World::start(900_000, Carrier::Answers).await;
    let request = |to: &str| QuoteRequest { destination: Pii::new(to.to_owned()), caller_id: None, withhold: false };
    let quote = world.actors.quote(world.account, request(MOBILE)).await.expect("quoted");
    assert_eq!((quote.affordable_s, quote.explanation.refusal), (90, None));
    assert_eq!(quote.explanation.candidates[0].outcome, "planned");
    let quote = world.actors.quote(world.account, request("999")).await.expect("quoted");
    assert_eq!(quote.explanation.refusal.map(|r| r.code), Some(RefusalCode::EmergencyNotSupported));
    assert_eq!(world.journal.written().1, 0, "a quote leaves nothing behind");
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn hanging_up_ends_both_legs_and_an_ended_call_succeeds_too() {
    let world = World::start(10_000_000, Carrier::Answers).await;
    world.invite(1, MOBILE);
    world.pass(3_000).await;
    let call = world.actors.hang_up(world.account, call_id(1)).await.expect("hung up");
    assert_eq!((call.state, call.billed_seconds), (CallState::Ended, 3));
    assert_eq!(world.said()[3..], ["hang up a Requested", "hang up b1 Requested"].map(str::to_owned));
    assert_eq!(world.actors.hang_up(world.account, call_id(1)).await.map(|c| c.id), Ok(call.id));
    assert_eq!(world.actors.hang_up(world.account, call_id(9)).await, Err(HangUpError::NotFound));
    assert_eq!(world.actors.hang_up(schema::id::AccountKey(99), call_id(1)).await, Err(HangUpError::NotFound));
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn l4_a_key_credits_once_over_restarts_and_at_the_same_time() {
    let world = World::start(0, Carrier::Answers).await;
    let (one, two) = tokio::join!(world.credit(500_000, "k"), world.credit(500_000, "k"));
    let replayed: Vec<bool> = [one, two].into_iter().map(|c| c.expect("posted").replayed).collect();
    assert_eq!(replayed.iter().filter(|r| **r).count(), 1);
    assert_eq!(world.credit(700_000, "k").await, Err(CreditError::Refused(CreditRefused::Conflict)));
    let world = world.restart().await;
    assert!(world.credit(500_000, "k").await.expect("the stored transfer").replayed);
    assert_eq!(world.credit(700_000, "k").await, Err(CreditError::Refused(CreditRefused::Conflict)));
    assert_eq!(world.view().await.balance.total, Micros(500_000));
    assert_eq!(world.actors.view(schema::id::AccountKey(99)).await.err(), Some(AskError::NotFound));
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn the_node_turns_calls_away_when_it_is_full_or_draining() {
    let world = World::start_with(10_000_000, Carrier::Answers, |config| config.max_live_calls = 1).await;
    world.invite(1, MOBILE);
    world.invite(2, MOBILE);
    world.pass(1_000).await;
    assert_eq!(world.said().iter().filter(|s| *s == "reject a 503").count(), 1);
    world.actors.drain(Duration::from_secs(1)).await;
    world.bye_from_caller(1);
    world.pass(1_000).await;
    world.said();
    world.invite(3, MOBILE);
    world.pass(1_000).await;
    assert_eq!((world.said(), world.actors.counts().calls_shed), (vec!["reject a 503".to_owned()], 2));
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_account_leaves_memory_and_comes_back() {
    let world = World::start(10_000_000, Carrier::Answers).await;
    world.invite(1, MOBILE);
    world.pass(1_000).await;
    world.pass(600_000).await;
    assert_eq!(world.actors.counts().loaded_accounts, 1, "not while a call lasts");
    world.bye_from_caller(1);
    world.pass(600_000).await;
    assert_eq!(world.actors.counts().loaded_accounts, 0);
    assert!(world.view().await.balance.total < Micros(10_000_000));
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a_busy_carrier_is_replaced_by_the_next() {
    let world = World::start(10_000_000, Carrier::FirstFails).await;
    world.invite(1, MOBILE);
    world.pass(3_000).await;
    assert_eq!(world.said()[..2], ["invite b1".to_owned(), "invite b2".to_owned()]);
    let view = world.view().await;
    assert_eq!(view.live_calls[0].route.as_deref(), Some("carrier 2"));
    assert_eq!((world.channels(1), world.channels(2)), (0, 1), "the failed carrier's channel is free again");
    world.bye_from_caller(1);
    world.pass(1_000).await;
    assert_eq!((world.channels(1), world.channels(2)), (0, 0));
    assert_eq!(world.store.attempts(world.account, CallNo(1)).await.expect("read").len(), 1);
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_is_hung_up_and_costs_us_only() {
    let world = World::start(10_000_000, Carrier::Rings).await;
    world.invite(1, MOBILE);
    world.pass(1_000).await;
    world.cancel(1);
    world.answer(1);
    world.pass(1_000).await;
    let cdr = world.cdr(1).await;
    assert_eq!((cdr.charged, cdr.carrier_cost.is_some()), (Micros(0), true));
    // An answer after the end is hung up too.
    world.said();
    world.answer(1);
    world.pass(100).await;
    assert_eq!(world.said(), ["hang up b1 NotWanted"]);
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a_trunk_that_is_down_is_not_used() {
    let world = World::start(10_000_000, Carrier::Answers).await;
    world.probe(1, false);
    world.pass(10).await;
    world.invite(1, MOBILE);
    world.pass(1_000).await;
    assert_eq!(world.view().await.live_calls[0].route.as_deref(), Some("carrier 2"));
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn many_calls_leave_nothing_behind() {
    let world = World::start(1_000_000_000, Carrier::Answers).await;
    for call in 1..=300 {
        world.invite(call, MOBILE);
        if call % 3 == 0 {
            world.bye_from_caller(call - 1);
        }
        world.pass(50).await;
    }
    world.pass(2_000).await;
    for call in 1..=300 {
        world.bye_from_callee(call);
    }
    world.pass(10_000).await;
    let (counts, view) = (world.actors.counts(), world.view().await);
    assert_eq!((counts.live_calls, counts.journal_depth), (0, 0));
    assert_eq!((view.balance.reserved, view.live_calls.len()), (Micros(0), 0));
    assert_eq!((world.channels(1), world.channels(2)), (0, 0));
    let mut charged = Micros::ZERO;
    for call in 1..=300 {
        charged += world.cdr(call).await.charged;
    }
    assert_eq!(view.balance.total, Micros(1_000_000_000) - charged);
    world.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn on_several_threads_and_with_panics_nothing_is_left_behind() {
    let world = World::start(1_000_000_000, Carrier::Answers).await;
    for call in 1..=400_u32 {
        world.invite(call, if call % 7 == 0 { "999" } else { MOBILE });
        match call % 5 {
            0 => world.bye_from_caller(call),
            1 if call > 10 => world.bye_from_callee(call - 10),
            2 if call % 20 == 2 => world.actors.panic_call(call_id(call)),
            3 if call % 50 == 3 => world.actors.panic_account(world.account),
            _ => {}
        }
        world.pass(1).await;
    }
    world.pass(500).await;
    for _ in 0..50 {
        for call in 1..=400 {
            world.bye_from_callee(call);
        }
        world.pass(200).await;
        if world.actors.counts().live_calls == 0 && world.view().await.live_calls.is_empty() {
            break;
        }
    }
    let view = world.view().await;
    assert_eq!((world.actors.counts().live_calls, view.live_calls.len()), (0, 0));
    assert_eq!((view.balance.reserved, world.channels(1), world.channels(2)), (Micros(0), 0, 0));
    assert!(world.actors.counts().restarts > 5);
    world.audit().await;
}

/// For tests that only look at what a leg was told.
fn words(command: &LegCommand) -> Option<String> {
    use schema::call::LegSide;
    let leg = |leg: &schema::leg::LegId| match leg.side {
        LegSide::A => "a".to_owned(),
        LegSide::B => format!("b{}", leg.attempt),
    };
    let cause = |cause: &HangupCause| format!("{cause:?}");
    Some(match command {
        LegCommand::Invite(invite) => format!("invite {}", leg(&invite.leg)),
        LegCommand::Progress { leg: to, status, .. } => format!("{status} {}", leg(to)),
        LegCommand::Accept { leg: to, .. } => format!("accept {}", leg(to)),
        LegCommand::Reject { leg: to, status, .. } => format!("reject {} {status}", leg(to)),
        LegCommand::Confirm { leg: to, .. } => format!("confirm {}", leg(to)),
        LegCommand::HangUp { leg: to, cause: why } => format!("hang up {} {}", leg(to), cause(why)),
        LegCommand::Resume { leg: to, .. } => format!("resume {}", leg(to)),
        LegCommand::Settled { .. } => return None,
        LegCommand::Probe { leg: to } => format!("probe {}", leg(to)),
        LegCommand::Offer { leg: to, .. } => format!("offer {}", leg(to)),
        LegCommand::AnswerOffer { leg: to, .. } => format!("answer {}", leg(to)),
        LegCommand::PressKey { leg: to, .. } => format!("key {}", leg(to)),
        LegCommand::TakeBack(call) => {
            let invite = call.invite.as_ref().map_or_else(String::new, |invite| format!(" and {}", leg(&invite.leg)));
            format!("take back {}{invite}", leg(&call.leg))
        }
    })
}
