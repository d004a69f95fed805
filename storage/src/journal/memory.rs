//! The writer on memory: an ordinary task, so that the simulator's paused time drives it.

use super::{Batch, Queue, acknowledge};
use crate::memory::MemDisk;

pub(super) async fn write(mut queue: Queue, disk: MemDisk) {
    while let Some(Batch { entries, done, flushes }) = queue.next().await {
        if entries.is_empty() {
            acknowledge(done, flushes, Vec::new());
            continue;
        }
        let time = disk.begin(entries);
        if !time.is_zero() {
            tokio::time::sleep(time).await;
        }
        acknowledge(done, flushes, disk.sync());
    }
}
