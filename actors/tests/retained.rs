//! How much memory a live call keeps on the actors' side: an allocator that counts stands in for the usual one, so this test has a
//! program of its own. SQLite's own memory is not in the figure.

#[path = "../benches/calls/world.rs"]
mod world;

use std::time::Duration;
use world::World;

#[global_allocator]
static COUNTING: dhat::Alloc = dhat::Alloc;

const ACCOUNTS: u32 = 20;
/// So many that what the test itself keeps is nothing beside them.
const CALLS: u32 = 1_000;

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
async fn a_live_call_keeps_at_most_7728_bytes() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let folder = tempfile::tempdir().expect("a folder");
    let mut world = World::start(folder.path(), ACCOUNTS).await;
    // Whatever grows with the first calls and stays has grown.
    connect(&mut world, 0).await;
    world.hang_up(0..CALLS).await;
    let before = used().await;
    connect(&mut world, CALLS).await;
    assert_eq!(world.actors.counts().live_calls, CALLS as usize);
    let kept = used().await.saturating_sub(before) / CALLS as usize;
    assert!(kept <= 7_728, "{kept} bytes for each call");
}
