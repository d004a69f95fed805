//! The writer on memory: an ordinary task, so that the simulator's paused time drives it.

use super::{Batch, Queue};
use crate::memory::MemDisk;

pub(super) async fn write(mut queue: Queue, disk: MemDisk) {
    while let Some(Batch { entries, told }) = queue.next().await {
        if entries.is_empty() {
            queue.tell(told, Vec::new());
            continue;
        }
        let time = disk.begin(entries);
        if !time.is_zero() {
            tokio::time::sleep(time).await;
        }
        queue.tell(told, disk.sync());
    }
}
