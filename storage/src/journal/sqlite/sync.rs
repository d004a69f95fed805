//! Makes SQLite's commits durable, beside the writer: while the disk is busy with one batch, the next is written behind it. A commit
//! alone leaves its frames with the kernel (`synchronous=NORMAL` in write-ahead mode), one fdatasync of the log brings them to the
//! disk, all that were written before with it: after a power failure the log ends with some commit, and whoever was told is in it.

use super::super::batch::Written;
use super::super::pace::gathers;
use super::super::record_commit;
use super::super::vital::{start_thread, sync_or_end};
use crate::sql::{SqliteDb, log_of};
use std::fs::File;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

#[cfg(test)]
mod tests;

/// The write-ahead log, for syncing. SQLite has its locks on other files, so closing this one takes none of them away.
pub(super) struct Log(File);

impl Log {
    /// Of a database that somebody has open, so that there is one.
    pub(super) fn open(db: &SqliteDb) -> io::Result<Self> {
        Ok(Self(File::open(log_of(&db.path))?))
    }
}

/// A batch that was written and is not durable yet; or whose every entry was rejected, which has nothing to sync.
pub(super) struct Unsynced {
    pub(super) written: Written,
    pub(super) entries: usize,
    /// When it was taken.
    pub(super) begun: Instant,
    /// The last commit so far, as readers see it.
    pub(super) commit: u64,
    pub(super) log: Option<Arc<Log>>,
}

/// What the disk did last.
#[derive(Default)]
struct Done {
    batches: u64,
    /// How long the last one took.
    took: Duration,
}

/// A handle of the thread, which ends with it.
pub(super) struct Syncer {
    queue: mpsc::SyncSender<Unsynced>,
    handed_over: u64,
    done: Arc<(Mutex<Done>, Condvar)>,
}

impl Syncer {
    pub(super) fn start(db: Arc<SqliteDb>, runtime: &Handle) -> Self {
        // Room for one: nobody is told later than the next batch is durable.
        let (tell, told) = mpsc::sync_channel::<Written>(1);
        start_thread("journal-tell", runtime, move || told.into_iter().for_each(Written::tell));
        // No room at all: one batch is written ahead of the disk, no more.
        let (queue, unsynced) = mpsc::sync_channel::<Unsynced>(0);
        let done = Arc::<(Mutex<Done>, Condvar)>::default();
        let note = done.clone();
        start_thread("journal-sync", runtime, move || {
            for batch in unsynced {
                #[cfg(test)]
                tests::wait_for_disk(&db.path);
                let took = make_durable(&batch);
                db.durable.reached(batch.commit);
                let mut done = note.0.lock().unwrap_or_else(PoisonError::into_inner);
                *done = Done { batches: done.batches + 1, took };
                drop(done);
                note.1.notify_one();
                tell.send(batch.written).expect("the telling thread outlives the syncing one");
            }
        });
        Self { queue, handed_over: 0, done }
    }

    /// Hands a written batch over when the disk is done with the one before.
    pub(super) fn hand_over(&mut self, batch: Unsynced) {
        self.handed_over += 1;
        self.queue.send(batch).expect("the syncing thread outlives the writer");
    }

    /// Lets the next batch gather while the disk is busy with the last, which was written within `wrote`.
    pub(super) fn rest(&self, wrote: Duration) {
        let (done, changed) = &*self.done;
        let done = done.lock().unwrap_or_else(PoisonError::into_inner);
        let gathers = gathers(done.took, wrote);
        if !gathers.is_zero() {
            drop(changed.wait_timeout_while(done, gathers, |done| done.batches < self.handed_over));
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the journal's threads time its commits")]
fn make_durable(batch: &Unsynced) -> Duration {
    let begun = Instant::now();
    if let Some(log) = &batch.log {
        sync_or_end(&log.0, "the database's log");
    }
    record_commit(batch.entries, batch.begun.elapsed());
    begun.elapsed()
}
