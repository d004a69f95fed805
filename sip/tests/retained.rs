//! How much memory a live call and a finished transaction keep: an allocator that counts stands in for the usual one, so this test has a program
//! of its own.

#[path = "../benches/core/world.rs"]
mod world;

use std::sync::Mutex;
use std::time::Duration;
use world::World;

#[global_allocator]
static COUNTING: dhat::Alloc = dhat::Alloc;

const CALLS: usize = 400;

/// Tests of one program run side by side, and the allocator counts for all of them.
static ALONE: Mutex<()> = Mutex::new(());

/// A call that is up, its transactions gone: two legs with their dialogs, session descriptions and timers.
#[test]
fn a_live_call_keeps_at_most_2528_bytes() {
    let _alone = ALONE.lock();
    let profiler = dhat::Profiler::builder().testing().build();
    let mut world = World::new(1_000_000);
    world.hangs_up = false;
    let used = || dhat::HeapStats::get().curr_bytes;
    let before = used();
    for number in 0..CALLS {
        world.call(number as u64, Duration::ZERO);
    }
    // The transactions of the INVITEs are over, the first probes answered and absorbed.
    for _ in 0..40 {
        world.pass(Duration::from_secs(1));
    }
    world.forget_the_far_ends();
    let kept = used() - before;
    let counts = world.core.counts();
    assert_eq!((counts.legs, counts.server_transactions, counts.client_transactions), (2 * CALLS, 0, 0));
    assert!(kept <= 2_528 * CALLS, "{} bytes for each call", kept / CALLS);
    drop(profiler);
}

/// Calls that are over leave the transactions that absorb repetitions, their timers, and dialogs that still answer a BYE. Calls that
/// were refused leave those of INVITEs alone.
#[test]
fn a_finished_transaction_keeps_at_most_700_bytes() {
    for (refuses, of_a_call) in [(false, 4), (true, 1)] {
        let kept = kept_of_a_transaction(refuses, of_a_call);
        assert!(kept <= 700, "{kept} bytes for each, refused: {refuses}");
    }
}

fn kept_of_a_transaction(refuses: bool, of_a_call: usize) -> usize {
    let _alone = ALONE.lock();
    let profiler = dhat::Profiler::builder().testing().build();
    let mut world = World::new(1_000_000);
    world.refuses = refuses;
    let used = || dhat::HeapStats::get().curr_bytes;
    let before = used();
    for number in 0..CALLS {
        world.call(number as u64, Duration::ZERO);
    }
    // Timers of what was answered have run out.
    world.pass(Duration::from_secs(1));
    world.forget_the_far_ends();
    let kept = used() - before;
    let counts = world.core.counts();
    let transactions = counts.server_transactions + counts.client_transactions;
    assert_eq!(counts.legs, 0, "every call is over");
    assert!(transactions >= of_a_call * CALLS, "{transactions} transactions stand for {CALLS} calls");
    drop(profiler);
    println!("{} bytes for each of {transactions} transactions, refused: {refuses}", kept / transactions);
    kept / transactions
}
