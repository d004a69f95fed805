//! Calls from before a restart, and calls whose actor failed when they were over.

use super::MOBILE;
use super::world::{Carrier, World, call_id};
use schema::call::HangupSide;
use schema::money::Micros;
use storage::memory::MemFaults;

#[tokio::test(start_paused = true)]
async fn answered_calls_go_on_after_a_restart_and_ringing_ones_end() {
    let world = World::start(10_000_000, Carrier::Rings).await;
    world.invite(1, MOBILE);
    world.invite(2, MOBILE);
    world.pass(1_000).await;
    world.answer(1);
    world.pass(10_000).await;
    let world = world.restart_with(Carrier::Answers).await;
    world.pass(1_000).await;
    let said = world.said();
    assert!(said.contains(&"resume a".to_owned()) && said.contains(&"resume b1".to_owned()), "{said:?}");
    assert!(said.contains(&"take back a and b1".to_owned()), "{said:?}");
    assert_eq!((world.cdr(2).await.charged, world.actors.counts().live_calls), (Micros(0), 1));
    world.pass(49_000).await;
    assert_eq!(world.view().await.balance.reserved, Micros(1_200_000), "renewed after the restart");
    world.bye_from_callee(1);
    world.pass(1_000).await;
    assert_eq!(world.cdr(1).await.call.billed_seconds, 61, "60.02 s");
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_ended_unheard_is_billed_to_its_last_proof_of_life() {
    let world = World::start(10_000_000, Carrier::Answers).await;
    world.invite(1, MOBILE);
    // Renewed after 40 s; both leave while no process is there.
    world.pass(55_000).await;
    let world = world.restart_with(Carrier::Forgets).await;
    world.pass(1_000).await;
    let cdr = world.cdr(1).await;
    assert_eq!((cdr.call.billed_seconds, cdr.charged, cdr.loss), (40, Micros(400_000), Micros::ZERO));
    assert_eq!(cdr.call.hangup.as_ref().map(|h| h.reason.as_str()), Some("the connection was lost"));
    assert_eq!(world.view().await.balance.reserved, Micros::ZERO);
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_actor_fails_while_it_is_settled_is_billed_to_its_end() {
    let world = World::start(10_000_000, Carrier::Answers).await;
    world.invite(1, MOBILE);
    world.pass(10_000).await;
    world.disk.set_faults(MemFaults { failing_batches: 3, ..MemFaults::default() });
    world.bye_from_caller(1);
    world.pass(2_500).await;
    world.actors.panic_call(call_id(1));
    world.pass(10_000).await;
    let cdr = world.cdr(1).await;
    let billed = (cdr.call.billed_seconds, cdr.call.hangup.as_ref().map(|h| h.side));
    assert_eq!(billed, (10, Some(HangupSide::Caller)), "to its BYE, not to the panic");
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_actor_fails_while_it_is_not_known_whether_it_was_up_is_billed_to_its_proof() {
    let world = World::start(10_000_000, Carrier::Answers).await;
    world.invite(1, MOBILE);
    world.pass(55_000).await;
    let world = world.restart_with(Carrier::Silent).await;
    world.pass(1_000).await;
    world.caller_is_there(1);
    world.bye_from_caller(1);
    world.pass(3_000).await;
    assert!(world.actors.is_live(call_id(1)), "what the carrier says to its BYE is awaited");
    world.actors.panic_call(call_id(1));
    world.pass(10_000).await;
    assert_eq!(world.cdr(1).await.call.billed_seconds, 40);
    world.audit().await;
}
