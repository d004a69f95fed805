//! What a whole call costs on the actors' side, with its three entries in a SQLite journal: `cargo bench -p actors --bench calls
//! -- [CALLS] [AT A TIME]`, by hand. For what costs it, under `valgrind --tool=callgrind`; for a figure that holds, divide the
//! difference of two runs by the difference of their calls.

mod world;

use std::time::Duration;
use world::World;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ACCOUNTS: u32 = 20;

fn argument(place: usize, default: u32) -> u32 {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    words.get(place).map_or(default, |word| word.parse().expect("a whole number"))
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (calls, at_a_time) = (argument(0, 20_000), argument(1, 100).max(1));
    let folder = tempfile::tempdir().expect("a folder");
    let mut world = World::start(folder.path(), ACCOUNTS).await;
    let before = cpu_time();
    for first in (0..calls).step_by(at_a_time as usize) {
        let batch = first..(first + at_a_time).min(calls);
        world.connect(batch.clone()).await;
        world.hang_up(batch).await;
    }
    println!("{calls} calls, {at_a_time} at a time: {:?} of processor time each", (cpu_time() - before) / calls.max(1));
}

/// User and system time, in the kernel's ticks of 10 ms.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").expect("Linux tells about this process");
    let ticks = |n| text.split_whitespace().nth(n).and_then(|word| word.parse::<u64>().ok()).expect("a number");
    Duration::from_millis(10 * (ticks(13) + ticks(14)))
}
