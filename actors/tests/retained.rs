//! How much memory a live call keeps on the actors' side: an allocator that counts stands in for the usual one, so this test has a
//! program of its own. SQLite's own memory is not in the figure.

#[path = "../benches/calls/world.rs"]
mod world;

use std::time::Duration;
use world::World;

#[global_allocator]
static COUNTING: dhat::Alloc = dhat::Alloc;

const ACCOUNTS: u32 = 20;
const CALLS: u32 = 600;

/// Connects as many calls, not all at once: on a busy machine an account would be asked in vain.
async fn connect(world: &mut World, first: u32) {
    for from in (first..first + CALLS).step_by(100) {
        world.connect(from..from + 100).await;
    }
}

/// Bytes in use when what was under way is done.
async fn used() -> usize {
    let mut least = usize::MAX;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        least = least.min(dhat::HeapStats::get().curr_bytes);
    }
    least
}

/// A call that talks: its actor with its mailboxes and timer, and the account's row of it. Its dialogs are stored and not kept.
#[tokio::test]
async fn a_live_call_keeps_at_most_7712_bytes() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let folder = tempfile::tempdir().expect("a folder");
    let mut world = World::start(folder.path(), ACCOUNTS).await;
    // Whatever grows with the first calls and stays has grown.
    connect(&mut world, 0).await;
    world.hang_up(0..CALLS).await;
    let mut kept = usize::MAX;
    // Twice: what is opened or grows once in a while counts in one of the two.
    for round in 1..=2 {
        let before = used().await;
        connect(&mut world, round * CALLS).await;
        assert_eq!(world.actors.counts().live_calls, (round * CALLS) as usize);
        kept = kept.min(used().await.saturating_sub(before) / CALLS as usize);
    }
    assert!(kept <= 7_712, "{kept} bytes for each call");
}
