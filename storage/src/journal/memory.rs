//! The writer on memory: an ordinary task, so that the simulator's paused time drives it.

use super::Item;
use super::batch::{Batch, Fences};
use crate::memory::MemDisk;
use tokio::sync::mpsc;

pub(super) async fn write(mut waiting: mpsc::Receiver<Item>, limit: usize, mut fences: Fences, disk: MemDisk) {
    while let Some(batch) = Batch::next(&mut waiting, limit).await {
        let (entries, writing) = fences.admit(batch);
        let mut outcomes = Vec::new();
        if !entries.is_empty() {
            let time = disk.begin(entries);
            if !time.is_zero() {
                tokio::time::sleep(time).await;
            }
            if disk.halts() {
                return std::future::pending().await;
            }
            outcomes = disk.sync();
        }
        let written = !outcomes.is_empty();
        fences.conclude(writing, outcomes).tell();
        if written {
            disk.acknowledged();
        }
    }
}
