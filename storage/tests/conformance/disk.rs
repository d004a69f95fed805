//! The simulated disk: crashes, failures and stalls, on paused time.

use crate::samples::*;
use schema::id::AccountKey;
use schema::journal::{Outcome, Rejection};
use schema::money::Micros;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use storage::memory::{Halt, MemFaults, Unsynced};
use storage::*;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime")
}

/// A credit is submitted and the power fails before it is durable. Returns what was acknowledged and what is stored.
fn credit_and_crash(unsynced: Unsynced) -> (Vec<Outcome>, Micros) {
    let disk = MemDisk::new();
    let told = Arc::new(Mutex::new(Vec::new()));
    runtime().block_on(async {
        let store = Store::memory(&disk);
        let mut world = World::new(store.clone(), 1).await;
        let key = world.account("ann", 100).await;
        let mut actor = world.actor(key).await;
        disk.set_faults(MemFaults { sync: Duration::from_millis(5), ..MemFaults::default() });
        let journal = Journal::start(&store, JournalOptions::default());
        let (first, second) =
            (actor.credit(&mut world, 1, "a", [0; 32]).1, actor.credit(&mut world, 10, "b", [0; 32]).1);
        for (wait, entry) in [(6, first), (2, second)] {
            let told = told.clone();
            journal.submit(entry, Box::new(move |o| told.lock().expect("not poisoned").push(o))).expect("room");
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
    });
    disk.crash(unsynced);
    let stored = runtime().block_on(async {
        let store = Store::memory(&disk);
        crate::audited(&store).await;
        store.account(AccountKey(1)).await.expect("readable").expect("there").figures.total
    });
    let told = told.lock().expect("not poisoned").clone();
    (told, stored)
}

#[test]
fn a_crash_loses_what_was_not_acknowledged_or_keeps_it_unseen() {
    assert_eq!(credit_and_crash(Unsynced::Lost), (vec![Ok(())], Micros(101)));
    assert_eq!(credit_and_crash(Unsynced::Kept), (vec![Ok(())], Micros(111)));
}

#[test]
fn a_journal_that_halts_leaves_its_batch_to_the_crash() {
    for (halt, unsynced, total) in [
        (Halt { batches: 0, acknowledged: false }, Unsynced::Lost, 100),
        (Halt { batches: 0, acknowledged: false }, Unsynced::Torn, 101),
        (Halt { batches: 0, acknowledged: false }, Unsynced::Kept, 103),
        (Halt { batches: 0, acknowledged: true }, Unsynced::Lost, 103),
    ] {
        let disk = MemDisk::new();
        runtime().block_on(async {
            let store = Store::memory(&disk);
            let mut world = World::new(store.clone(), 1).await;
            let key = world.account("ann", 100).await;
            let mut actor = world.actor(key).await;
            disk.set_faults(MemFaults { halt: Some(halt), ..MemFaults::default() });
            let journal = Journal::start(&store, JournalOptions::default());
            let entries =
                vec![actor.credit(&mut world, 1, "a", [0; 32]).1, actor.credit(&mut world, 2, "b", [0; 32]).1];
            let told = tokio::time::timeout(Duration::from_secs(1), submit(&journal, entries)).await;
            assert_eq!(told.is_ok(), halt.acknowledged);
        });
        assert!(disk.is_halted());
        disk.crash(unsynced);
        runtime().block_on(async {
            let loaded = Store::memory(&disk).account(AccountKey(1)).await.expect("readable").expect("there");
            assert_eq!(loaded.figures.total, Micros(total), "{halt:?} {unsynced:?}");
        });
    }
}

#[tokio::test(start_paused = true)]
async fn failures_and_stalls_are_injected() {
    let disk = MemDisk::new();
    let store = Store::memory(&disk);
    let mut world = World::new(store.clone(), 1).await;
    let key = world.account("ann", 100).await;
    let mut actor = world.actor(key).await;
    let journal = Journal::start(&store, JournalOptions::default());
    disk.set_faults(MemFaults { failing_batches: 1, failing_calls: 1, ..MemFaults::default() });
    assert!(matches!(store.account(key).await, Err(StoreError::Unavailable(_))));
    let before = actor.clone();
    let (first, second) = (actor.credit(&mut world, 1, "a", [0; 32]).1, actor.credit(&mut world, 1, "b", [0; 32]).1);
    assert_eq!(submit(&journal, vec![first.clone(), second]).await, vec![Err(Rejection::Failed); 2]);
    assert_eq!(world.actor(key).await.figures, before.figures);
    let begun = tokio::time::Instant::now();
    disk.set_faults(MemFaults { next_stall: Duration::from_secs(3), ..MemFaults::default() });
    assert_eq!(submit(&journal, vec![first]).await, [Ok(())]);
    assert_eq!(begun.elapsed(), Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_and_calls_nobody() {
    let disk = MemDisk::new();
    let store = Store::memory(&disk);
    let mut world = World::new(store.clone(), 1).await;
    let key = world.account("ann", 100).await;
    let mut actor = world.actor(key).await;
    let journal = Journal::start(&store, JournalOptions { queue: 2, batch: 512 });
    let told = Arc::new(Mutex::new(0));
    let mut results = Vec::new();
    for n in 0..4 {
        let entry = actor.credit(&mut world, 1, &format!("k{n}"), [0; 32]).1;
        let told = told.clone();
        results.push(journal.submit(entry, Box::new(move |_| *told.lock().expect("not poisoned") += 1)));
    }
    assert_eq!(results, [Ok(()), Ok(()), Err(JournalFull), Err(JournalFull)]);
    assert_eq!(journal.depth(), 2);
    journal.flush().await;
    assert_eq!(*told.lock().expect("not poisoned"), 2);
    assert_eq!(journal.depth(), 0);
}

/// What stands in the queue when a rejection is told was decided on the rejected state, even if its seq would fit again.
#[tokio::test(start_paused = true)]
async fn entries_handed_over_before_a_rejection_is_told_are_fenced() {
    let disk = MemDisk::new();
    let store = Store::memory(&disk);
    let mut world = World::new(store.clone(), 1).await;
    let key = world.account("ann", 100).await;
    let mut actor = world.actor(key).await;
    let journal = Journal::start(&store, JournalOptions { queue: 10, batch: 1 });
    let mut stale = actor.clone();
    let (_, good) = actor.credit(&mut world, 1, "a", [0; 32]);
    let (_, other) = stale.credit(&mut world, 5, "b", [0; 32]);
    let (_, follows) = stale.credit(&mut world, 5, "c", [0; 32]);
    let fenced = Err(Rejection::Fenced);
    assert_eq!(submit(&journal, vec![good, other, follows]).await, [Ok(()), fenced.clone(), fenced]);
    let (_, fresh) = actor.credit(&mut world, 1, "d", [0; 32]);
    assert_eq!(submit(&journal, vec![fresh]).await, [Ok(())], "after the rejection was told the account goes on");
}

#[tokio::test(start_paused = true)]
async fn a_panicking_acknowledgement_stops_nobody() {
    let store = Store::memory(&MemDisk::new());
    let mut world = World::new(store.clone(), 1).await;
    let key = world.account("ann", 100).await;
    let mut actor = world.actor(key).await;
    let journal = Journal::start(&store, JournalOptions::default());
    let entry = actor.credit(&mut world, 1, "a", [0; 32]).1;
    journal.submit(entry, Box::new(|_| panic!("a bug in an actor"))).expect("room");
    let entry = actor.credit(&mut world, 1, "b", [0; 32]).1;
    assert_eq!(submit(&journal, vec![entry]).await, [Ok(())]);
}
