//! The writer on memory: an ordinary task, so that the simulator's paused time drives it. Two batches are in flight: what comes
//! while one is being synced is written behind it.

use super::Item;
use super::batch::{Batch, Fences, Writing, Written};
use crate::memory::MemDisk;
use schema::journal::{Entry, Outcome};
use schema::wrong::{self, Wrong};
use tokio::sync::mpsc;

pub(super) async fn write(waiting: mpsc::Receiver<Item>, limit: usize, fences: Fences, disk: MemDisk) {
    let mut line = Line { waiting, limit, fences, disk };
    while let Some(batch) = Batch::next(&mut line.waiting, limit).await {
        let mut next = Some(line.begin(batch));
        while let Some(batch) = next {
            next = line.sync(batch).await;
        }
    }
}

/// Batches on their way to the disk.
struct Line {
    waiting: mpsc::Receiver<Item>,
    limit: usize,
    fences: Fences,
    disk: MemDisk,
}

/// A batch in flight.
struct Flying {
    /// Else there is nothing of it to sync.
    is_written: bool,
    answers: Answers,
}

enum Answers {
    /// What becomes of its entries is not known.
    Open(Writing),
    /// It is, and nobody was told.
    Known(Written),
    /// Everyone was told.
    Told,
}

impl Line {
    /// Writes a batch, behind the one that is being synced if there is one.
    fn begin(&mut self, batch: Batch<Entry>) -> Flying {
        let (entries, writing) = self.fences.admit(batch);
        let is_written = !entries.is_empty();
        if is_written {
            self.disk.begin(entries);
        }
        Flying { is_written, answers: Answers::Open(writing) }
    }

    /// Syncs the older batch in flight and tells everyone. Gives the one that was written behind it meanwhile.
    async fn sync(&mut self, mut batch: Flying) -> Option<Flying> {
        let mut behind = None;
        if batch.is_written {
            let time = self.disk.sync_time();
            if !time.is_zero() {
                let mut synced = std::pin::pin!(tokio::time::sleep(time));
                let next = tokio::select! {
                    biased;
                    () = &mut synced => None,
                    next = Batch::next(&mut self.waiting, self.limit) => next,
                };
                if let Some(next) = next {
                    // What is rejected here concerns the next one.
                    self.decide(&mut batch);
                    behind = Some(self.begin(next));
                }
                if !synced.is_elapsed() {
                    synced.await;
                }
            }
            if self.disk.halts() {
                return std::future::pending().await;
            }
        }
        let outcomes = if batch.is_written { self.disk.sync() } else { Vec::new() };
        if let Some(written) = self.answers(batch.answers, outcomes) {
            written.tell();
        }
        if batch.is_written {
            self.disk.acknowledged();
        }
        if let Some(behind) = behind.as_mut().filter(|_| wrong::chosen(Wrong::OneSyncForTwo)) {
            self.decide(behind);
            if let Answers::Known(written) = std::mem::replace(&mut behind.answers, Answers::Told) {
                written.tell();
            }
        }
        behind
    }

    /// Asks what becomes of the older batch in flight before it is durable.
    fn decide(&mut self, batch: &mut Flying) {
        let outcomes = if batch.is_written { self.disk.decide() } else { Vec::new() };
        let answers = std::mem::replace(&mut batch.answers, Answers::Told);
        batch.answers = self.answers(answers, outcomes).map_or(Answers::Told, Answers::Known);
    }

    fn answers(&mut self, answers: Answers, outcomes: Vec<Outcome>) -> Option<Written> {
        match answers {
            Answers::Open(writing) => Some(self.fences.conclude(writing, outcomes)),
            Answers::Known(written) => Some(written),
            Answers::Told => None,
        }
    }
}
