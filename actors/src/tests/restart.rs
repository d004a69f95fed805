//! Calls from before a restart, and calls whose actor failed when they were over.

use super::MOBILE;
use super::world::{Carrier, World, call_id};
use crate::faults::{Fault, FaultPoint};
use crate::poison::Subject;
use crate::system::HangUpError;
use schema::call::HangupSide;
use schema::edge::Binding;
use schema::id::{AccountKey, CallNo, CredentialId};
use schema::leg::LegId;
use schema::money::Micros;
use schema::pii::Pii;
use schema::time::Timestamp;
use std::time::Duration;
use storage::BindingWrite;
use storage::memory::MemFaults;
use uuid::Uuid;

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

/// After that long its carrier knows nothing of it: its INVITE would be a new call, perhaps at night.
#[tokio::test(start_paused = true)]
async fn a_call_that_rang_long_ago_is_not_dialled_again() {
    for (down_ms, said) in [(60_000, "take back a and b1"), (95_000, "take back a")] {
        let world = World::start(10_000_000, Carrier::Rings).await;
        world.invite(1, MOBILE);
        world.pass(1_000).await;
        let world = world.restart_after(down_ms, Carrier::Answers).await;
        world.pass(4_000).await;
        assert!(world.said().contains(&said.to_owned()), "after {down_ms} ms");
        assert_eq!((world.cdr(1).await.charged, world.actors.counts().live_calls), (Micros(0), 0));
        assert_eq!(world.view().await.balance.reserved, Micros::ZERO);
        world.audit().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_dialogs_state_whose_entry_is_rejected_is_brought_again() {
    let world = World::start(10_000_000, Carrier::Answers).await;
    world.invite(1, MOBILE);
    world.pass(1_000).await;
    let [a, b] = [LegId::a(call_id(1)), LegId::b(call_id(1), 1)];
    world.disk.set_faults(MemFaults { failing_batches: 2, ..MemFaults::default() });
    world.changed(a, "moved");
    world.pass(10).await;
    world.changed(b, "held");
    world.changed(b, "resumed");
    world.pass(4_000).await;
    assert_eq!(world.stored_dialogs().await, [Some("moved".to_owned()), Some("resumed".to_owned())]);
    world.bye_from_caller(1);
    world.pass(1_000).await;
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

/// A phone of the n-th account.
fn phone(n: u32, account: AccountKey, at: Timestamp) -> Binding {
    Binding {
        credential: CredentialId(Uuid::from_u128(n.into())),
        account,
        contact: Pii::new("sip:phone@192.0.2.1:5060".to_owned()),
        instance: None,
        reg_id: None,
        path: Vec::new(),
        source: Pii::new("udp 192.0.2.1:5060".to_owned()),
        registered_at: at,
        expires_at: at + Duration::from_secs(3_600),
    }
}

/// It is stored, past the actors.
async fn store_phone(world: &World, n: u32, account: AccountKey) {
    let (phone, at) = (BindingWrite::Put(phone(n, account, world.now().wall)), world.now().wall);
    world.store.write_bindings(&[phone], at).await.expect("written");
}

#[tokio::test(start_paused = true)]
async fn a3_rows_that_cannot_be_read_stand_in_nobodys_way() {
    let world = World::with_accounts(3, 10_000_000, Carrier::Answers).await;
    for (n, account) in (1..).zip(&world.accounts) {
        world.invite_of(*account, n, MOBILE);
        store_phone(&world, n, *account).await;
    }
    world.pass(5_000).await;
    world.disk.spoil_call(world.accounts[0], CallNo(1));
    world.disk.spoil_bindings(CredentialId(Uuid::from_u128(2)));
    let world = world.restart().await;
    world.pass(10).await;
    assert_eq!([1, 2, 3].map(|n| world.actors.is_live(call_id(n))), [false, true, true]);
    assert_eq!((world.edge_knows(), world.actors.counts().unreadable_rows), ((true, 2), 2));
    // A BYE that may be repeated from before the restart would count as unheard.
    world.pass(35_000).await;
    for call in [2, 3] {
        world.bye_from_caller(call);
    }
    world.pass(1_000).await;
    assert_eq!([world.cdr(2).await.call.billed_seconds, world.cdr(3).await.call.billed_seconds], [41, 41]);
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn phones_are_known_again_when_their_rows_can_be_read_again() {
    let world = World::start(10_000_000, Carrier::Answers).await;
    store_phone(&world, 1, world.account).await;
    let disk = world.disk.clone();
    let fails = move |_: &_| disk.set_faults(MemFaults { failing_calls: 3, ..MemFaults::default() });
    let world = world.restart_armed(Carrier::Answers, fails).await;
    world.pass(10_000).await;
    assert_eq!(world.edge_knows(), (true, 1));
}

#[tokio::test(start_paused = true)]
async fn a_command_without_a_server_leaves_calls_and_phones_to_the_next_one() {
    let world = World::start(10_000_000, Carrier::Rings).await;
    world.invite(1, MOBILE);
    world.invite(2, MOBILE);
    world.pass(1_000).await;
    world.answer(1);
    store_phone(&world, 1, world.account).await;
    // The answered call's renewal is due soon: whoever takes it up holds money for it.
    world.pass(39_000).await;
    let stored = async |world: &World| format!("{:?}", world.store.live_calls(None, 10).await.expect("readable"));
    let before = stored(&world).await;
    let world = world.restart_as_a_command().await;
    let reserved = world.view().await.balance.reserved;
    world.credit(1_000_000, "top-up").await.expect("posted");
    world.pass(5_000).await;
    assert_eq!((world.said(), world.edge_knows()), (Vec::new(), (false, 0)));
    assert_eq!((stored(&world).await, world.view().await.balance.reserved), (before, reserved));
    let world = world.restart_with(Carrier::Answers).await;
    world.pass(1_000).await;
    assert_eq!((world.actors.is_live(call_id(1)), world.edge_knows()), (true, (true, 1)));
    assert_eq!(world.cdr(2).await.charged, Micros(0));
    world.bye_from_callee(1);
    world.pass(1_000).await;
    assert_eq!(world.cdr(1).await.call.billed_seconds, 46);
    world.audit().await;
}

/// A call of ten seconds; then another process finds the account unreadable so often.
async fn found_while_accounts_cannot_be_loaded(times: u32) -> World {
    let world = World::start(10_000_000, Carrier::Answers).await;
    world.invite(1, MOBILE);
    world.pass(10_000).await;
    let disk = world.disk.clone();
    let fails = move |_: &_| disk.set_faults(MemFaults { failing_loads: times, ..MemFaults::default() });
    world.restart_armed(Carrier::Answers, fails).await
}

#[tokio::test(start_paused = true)]
async fn an_answered_call_outlasts_a_database_that_is_away_for_a_while() {
    // Tried at once, and after 1, 3, 7 and 15 s.
    let world = found_while_accounts_cannot_be_loaded(4).await;
    let said = world.said();
    assert!(world.actors.is_live(call_id(1)) && !said.iter().any(|word| word.starts_with("hang up")), "{said:?}");
    assert_eq!(said[..2], ["resume a", "resume b1"], "its legs were known at once: {said:?}");
    let waited = world.now().mono.since(schema::time::Mono(1_010_010_000));
    assert_eq!(waited.as_secs(), 15);
    world.bye_from_caller(1);
    world.pass(1_000).await;
    assert_eq!(world.cdr(1).await.call.hangup.as_ref().map(|hangup| hangup.side), Some(HangupSide::Caller));
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn c2_a_call_that_cannot_be_taken_up_ends_with_its_grant_and_is_settled_in_time() {
    let world = found_while_accounts_cannot_be_loaded(1_000).await;
    let said = world.said();
    assert!(
        said.ends_with(&["hang up b1 ServiceFailure".to_owned(), "hang up a ServiceFailure".to_owned()]),
        "{said:?}"
    );
    let talked = world.now().mono.since(schema::time::Mono(1_000_000_000));
    assert!((60..=61).contains(&talked.as_secs()), "{talked:?}");
    assert!(!world.actors.is_live(call_id(1)) && world.actors.counts().unsettled_calls == 1);
    world.disk.set_faults(MemFaults::default());
    world.pass(11_000).await;
    let cdr = world.cdr(1).await;
    assert_eq!((cdr.charged, world.view().await.balance.reserved), (Micros::ZERO, Micros::ZERO));
    // Not billed for a talk of nothing, which may cost something: nothing shows that its caller heard the answer.
    assert!(cdr.call.ended_at > cdr.call.answered_at && cdr.carrier_cost.is_some(), "{cdr:?}");
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a_settlement_that_kills_its_account_after_a_restart_holds_up_no_other() {
    let world = World::with_accounts(3, 10_000_000, Carrier::Answers).await;
    let kills = Fault { point: FaultPoint::Received, kind: Some("settle"), times: 1_000 };
    for (n, account) in (1..).zip(&world.accounts) {
        world.invite_of(*account, n, MOBILE);
        world.actors.arm(Subject::Account(*account), kills);
    }
    world.pass(10_000).await;
    (1..=3).for_each(|call| world.bye_from_caller(call));
    world.pass(30_000).await;
    assert_eq!(world.actors.counts().unsettled_calls, 3);
    let first = Subject::Account(world.accounts[0]);
    let world = world.restart_armed(Carrier::Answers, |actors| actors.arm(first, kills)).await;
    world.pass(5_000).await;
    assert_eq!(world.actors.counts().unsettled_calls, 1, "recovered all the same");
    assert_eq!([world.cdr(2).await.call.billed_seconds, world.cdr(3).await.call.billed_seconds], [10, 10]);
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_ends_while_the_process_does_is_settled_before_it_is_over() {
    let world = World::start(10_000_000, Carrier::Rings).await;
    (1..=2).for_each(|call| world.invite(call, MOBILE));
    world.pass(500).await;
    (1..=2).for_each(|call| world.answer(call));
    world.pass(9_500).await;
    world.actors.drain(Duration::from_secs(1)).await;
    world.disk.set_faults(MemFaults { sync: Duration::from_millis(300), ..MemFaults::default() });
    // The other leg's BYE is awaited for half a second, the commit takes as long again.
    world.bye_from_caller(1);
    world.actors.finish(Duration::from_secs(1)).await;
    assert_eq!(world.cdr(1).await.call.billed_seconds, 10, "9.5 s, to its BYE");
    // Nothing ends: nothing is waited for. A disk that hangs is not waited for either.
    let begun = tokio::time::Instant::now();
    world.actors.finish(Duration::from_secs(1)).await;
    assert!(begun.elapsed() < Duration::from_millis(10), "{:?}", begun.elapsed());
    world.disk.set_faults(MemFaults { sync: Duration::from_secs(3_600), ..MemFaults::default() });
    world.bye_from_caller(2);
    world.actors.finish(Duration::from_secs(1)).await;
    assert_eq!(begun.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn c4_a_call_whose_legs_cannot_be_told_is_left_to_the_next_process() {
    let world = World::start(10_000_000, Carrier::Answers).await;
    world.invite(1, MOBILE);
    world.pass(55_000).await;
    world.end_sip().await;
    world.bye_from_caller(1);
    world.actors.finish(Duration::from_secs(1)).await;
    let stored = world.store.call(call_id(1)).await.expect("read");
    assert_eq!((stored.is_some(), world.actors.counts().live_calls), (false, 1), "nobody has told the carrier");
    let world = world.restart_with(Carrier::Forgets).await;
    world.pass(1_000).await;
    assert!(world.said().contains(&"resume b1".to_owned()));
    assert_eq!(world.cdr(1).await.call.billed_seconds, 40, "to its last proof of life");
    world.audit().await;
}

#[tokio::test(start_paused = true)]
async fn who_hangs_up_is_not_told_that_a_call_was_told_when_it_was_not() {
    let world = World::start(10_000_000, Carrier::Answers).await;
    world.invite(1, MOBILE);
    world.pass(10_000).await;
    let (disk, account) = (world.disk.clone(), world.account);
    let (told, asked) = tokio::sync::oneshot::channel();
    let hang_up_meanwhile = move |actors: &crate::Actors| {
        disk.set_faults(MemFaults { failing_loads: 2, ..MemFaults::default() });
        let actors = actors.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let _ = told.send(actors.hang_up(account, call_id(1)).await);
        });
    };
    let world = world.restart_armed(Carrier::Answers, hang_up_meanwhile).await;
    assert_eq!(asked.await.expect("asked"), Err(HangUpError::NotTold), "it has no actor yet");
    assert!(world.actors.is_live(call_id(1)));
    // More than fit into its queue, at once; and a disk that hangs.
    world.disk.set_faults(MemFaults { sync: Duration::from_secs(3_600), ..MemFaults::default() });
    let begun = tokio::time::Instant::now();
    let asked = (0..257).map(|_| world.actors.hang_up(account, call_id(1)));
    let answers = futures_util::future::join_all(asked).await;
    assert_eq!((&answers[256], begun.elapsed() < Duration::from_secs(5)), (&Err(HangUpError::NotTold), true));
    assert!(answers[..256].iter().all(|answer| *answer == Err(HangUpError::Unknown)), "{answers:?}");
}
