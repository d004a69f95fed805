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

/// A store on this disk with one account, which has 100.
async fn one_account(disk: &MemDisk) -> (Store, World, Actor) {
    let store = Store::memory(disk);
    let mut world = World::new(store.clone(), 1).await;
    let key = world.account("ann", 100).await;
    let actor = world.actor(key).await;
    (store, world, actor)
}

/// A credit is submitted and the power fails before it is durable. Returns what was acknowledged and what is stored.
fn credit_and_crash(unsynced: Unsynced) -> (Vec<Outcome>, Micros) {
    let disk = MemDisk::new();
    let told = Arc::new(Mutex::new(Vec::new()));
    runtime().block_on(async {
        let (store, mut world, mut actor) = one_account(&disk).await;
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
    for (acknowledged, unsynced, total) in [
        (false, Unsynced::Lost, 100),
        (false, Unsynced::Torn, 101),
        (false, Unsynced::First, 103),
        (false, Unsynced::Kept, 103),
        (true, Unsynced::Lost, 103),
    ] {
        let halt = Halt { batches: 0, acknowledged, behind: false };
        let disk = MemDisk::new();
        runtime().block_on(async {
            let (store, mut world, mut actor) = one_account(&disk).await;
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

/// A credit of 1 to each of two accounts is being synced, one of 10 stands behind it; then `wait` passes. Returns what was
/// acknowledged.
fn two_in_flight(disk: &MemDisk, wait: Duration) -> Arc<Mutex<Vec<Outcome>>> {
    let told = Arc::new(Mutex::new(Vec::new()));
    runtime().block_on(async {
        let store = Store::memory(disk);
        let mut world = World::new(store.clone(), 1).await;
        let (ann, ben) = (world.account("ann", 100).await, world.account("ben", 100).await);
        let (mut ann, mut ben) = (world.actor(ann).await, world.actor(ben).await);
        disk.set_faults(MemFaults { sync: Duration::from_millis(5), ..MemFaults::default() });
        let journal = Journal::start(&store, JournalOptions::default());
        for (amount, key) in [(1, "a"), (10, "b")] {
            for actor in [&mut ann, &mut ben] {
                let (entry, told) = (actor.credit(&mut world, amount, key, [0; 32]).1, told.clone());
                journal.submit(entry, Box::new(move |o| told.lock().expect("not poisoned").push(o))).expect("room");
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(disk.in_flight(), 2);
        assert_eq!(totals(disk).await, [100, 100], "what is not durable is not seen");
        tokio::time::sleep(wait).await;
    });
    told
}

async fn totals(disk: &MemDisk) -> [i64; 2] {
    let store = Store::memory(disk);
    let mut totals = [0; 2];
    for (total, key) in totals.iter_mut().zip([1, 2]) {
        let account = store.account(AccountKey(key)).await.expect("readable").expect("there");
        *total = account.figures.total.0;
    }
    totals
}

#[test]
fn a_crash_with_two_batches_in_flight_keeps_some_from_the_front() {
    for (wait, unsynced, acknowledged, stored) in [
        (0, Unsynced::Lost, 0, [100, 100]),
        (0, Unsynced::Torn, 0, [101, 101]),
        (0, Unsynced::First, 0, [101, 101]),
        (0, Unsynced::Kept, 0, [111, 111]),
        // The older one is durable and told: 5 ms, and the other one takes as long again.
        (5, Unsynced::Lost, 2, [101, 101]),
        (5, Unsynced::Torn, 2, [111, 101]),
        (5, Unsynced::First, 2, [111, 111]),
        (7, Unsynced::Lost, 4, [111, 111]),
    ] {
        let disk = MemDisk::new();
        let told = two_in_flight(&disk, Duration::from_millis(wait));
        disk.crash(unsynced);
        assert_eq!(*told.lock().expect("not poisoned"), vec![Ok(()); acknowledged], "{wait} ms {unsynced:?}");
        runtime().block_on(async {
            crate::audited(&Store::memory(&disk)).await;
            assert_eq!(totals(&disk).await, stored, "{wait} ms {unsynced:?}");
        });
        assert_eq!(disk.in_flight(), 0);
    }
}

#[test]
fn a_journal_halts_once_another_batch_is_behind_the_one_that_is_synced() {
    let disk = MemDisk::new();
    runtime().block_on(async {
        let (store, mut world, mut actor) = one_account(&disk).await;
        let halt = Some(Halt { batches: 0, acknowledged: false, behind: true });
        disk.set_faults(MemFaults { sync: Duration::from_millis(5), halt, ..MemFaults::default() });
        let journal = Journal::start(&store, JournalOptions { queue: 10, batch: 1, ..Default::default() });
        let alone = actor.credit(&mut world, 1, "a", [0; 32]).1;
        assert_eq!(submit(&journal, vec![alone]).await, [Ok(())]);
        let pair = ["b", "c"].map(|name| actor.credit(&mut world, 1, name, [0; 32]).1);
        let told = tokio::time::timeout(Duration::from_secs(1), submit(&journal, pair.to_vec())).await;
        assert!(told.is_err() && disk.is_halted() && disk.in_flight() == 2);
    });
    disk.crash(Unsynced::First);
    runtime().block_on(async {
        let loaded = Store::memory(&disk).account(AccountKey(1)).await.expect("readable").expect("there");
        assert_eq!(loaded.figures.total, Micros(102));
    });
}

/// What is known of a batch before it is durable holds for the one behind it; nobody is told before, and all in order.
#[tokio::test(start_paused = true)]
async fn a_rejection_in_the_batch_that_is_synced_fences_the_one_behind_it() {
    let disk = MemDisk::new();
    let store = Store::memory(&disk);
    let mut world = World::new(store.clone(), 1).await;
    let (ann, ben) = (world.account("ann", 100).await, world.account("ben", 100).await);
    let (mut ann, mut ben) = (world.actor(ann).await, world.actor(ben).await);
    disk.set_faults(MemFaults { sync: Duration::from_millis(5), ..MemFaults::default() });
    let journal = Journal::start(&store, JournalOptions::default());
    let (begun, told) = (tokio::time::Instant::now(), Arc::new(Mutex::new(Vec::new())));
    let submit = |entry| {
        let told = told.clone();
        let done = move |outcome| told.lock().expect("not poisoned").push((begun.elapsed().as_millis(), outcome));
        journal.submit(entry, Box::new(done)).expect("room");
    };
    let mut stale = ann.clone();
    let (good, other) = (ann.credit(&mut world, 1, "a", [0; 32]).1, ben.credit(&mut world, 1, "a", [0; 32]).1);
    // Two of the first batch: the second one is decided on a state that never was, as is what follows it.
    let (rejected, follows) =
        (stale.credit(&mut world, 5, "b", [0; 32]).1, stale.credit(&mut world, 5, "c", [0; 32]).1);
    [good, rejected, other].into_iter().for_each(submit);
    tokio::time::sleep(Duration::from_millis(1)).await;
    [follows, ben.credit(&mut world, 1, "b", [0; 32]).1].into_iter().for_each(submit);
    journal.flush().await;
    let fenced = Err(Rejection::Fenced);
    let expected = [(5, Ok(())), (5, fenced.clone()), (5, Ok(())), (10, fenced), (10, Ok(()))];
    assert_eq!(*told.lock().expect("not poisoned"), expected);
    assert_eq!(totals(&disk).await, [101, 102]);
}

/// A batch that failed is told so in its turn, and the batch behind it knew.
#[tokio::test(start_paused = true)]
async fn a_failed_batch_fences_the_one_behind_it() {
    let disk = MemDisk::new();
    let (store, mut world, mut actor) = one_account(&disk).await;
    disk.set_faults(MemFaults { sync: Duration::from_millis(5), failing_batches: 1, ..MemFaults::default() });
    let journal = Journal::start(&store, JournalOptions { queue: 10, batch: 1, ..Default::default() });
    let entries = ["a", "b"].map(|name| actor.credit(&mut world, 1, name, [0; 32]).1);
    assert_eq!(submit(&journal, entries.to_vec()).await, [Err(Rejection::Failed), Err(Rejection::Fenced)]);
    assert_eq!(disk.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn failures_and_stalls_are_injected() {
    let disk = MemDisk::new();
    let (store, mut world, mut actor) = one_account(&disk).await;
    let journal = Journal::start(&store, JournalOptions::default());
    disk.set_faults(MemFaults { failing_batches: 1, failing_calls: 1, ..MemFaults::default() });
    assert!(matches!(store.account(actor.key).await, Err(StoreError::Unavailable(_))));
    let before = actor.clone();
    let (first, second) = (actor.credit(&mut world, 1, "a", [0; 32]).1, actor.credit(&mut world, 1, "b", [0; 32]).1);
    assert_eq!(submit(&journal, vec![first.clone(), second]).await, vec![Err(Rejection::Failed); 2]);
    assert_eq!(world.actor(actor.key).await.figures, before.figures);
    let begun = tokio::time::Instant::now();
    disk.set_faults(MemFaults { next_stall: Duration::from_secs(3), ..MemFaults::default() });
    assert_eq!(submit(&journal, vec![first]).await, [Ok(())]);
    assert_eq!(begun.elapsed(), Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_and_calls_nobody() {
    let disk = MemDisk::new();
    let (store, mut world, mut actor) = one_account(&disk).await;
    let journal = Journal::start(&store, JournalOptions { queue: 2, ..Default::default() });
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
    let (store, mut world, mut actor) = one_account(&disk).await;
    let journal = Journal::start(&store, JournalOptions { queue: 10, batch: 1, ..Default::default() });
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
    let (store, mut world, mut actor) = one_account(&MemDisk::new()).await;
    let journal = Journal::start(&store, JournalOptions::default());
    let entry = actor.credit(&mut world, 1, "a", [0; 32]).1;
    journal.submit(entry, Box::new(|_| panic!("a bug in an actor"))).expect("room");
    let entry = actor.credit(&mut world, 1, "b", [0; 32]).1;
    assert_eq!(submit(&journal, vec![entry]).await, [Ok(())]);
}
