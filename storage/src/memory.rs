//! A simulated disk: what a database keeps, as plain maps, with faults that a test or the simulator chooses. It uses no
//! thread and no clock, and its order never depends on a hasher.

use crate::error::StoreError;
use schema::id::{AccountKey, CallNo, CredentialId};
use schema::journal::{Entry, Outcome, Rejection};
use schema::wrong::{self, Wrong};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

mod apply;
mod tables;

pub(crate) use tables::{Account, EntryRow, StoredEntry, Tables};

/// A simulated disk. It outlives the [`crate::Store`]s and journals on it: a crash drops the runtime and keeps the disk.
#[derive(Clone, Default)]
pub struct MemDisk(Arc<Mutex<Disk>>);

/// What the disk does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemFaults {
    /// How long each journal batch takes to become durable.
    pub sync: Duration,
    /// Taken by the next batch in addition, once.
    pub next_stall: Duration,
    /// So many journal batches fail from now on; nothing of them is written.
    pub failing_batches: u32,
    /// So many reads and other writes fail from now on.
    pub failing_calls: u32,
    /// So many loads of accounts fail from now on.
    pub failing_loads: u32,
    /// The journal stops for ever at this point: the moment of a crash to come.
    pub halt: Option<Halt>,
}

/// A point of the journal's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Halt {
    /// So many batches from now on are done before it.
    pub batches: u32,
    /// When the batch is acknowledged; else when it is written and nobody was told: whether it is durable, the crash decides.
    pub acknowledged: bool,
    /// Only when another batch is written behind it.
    pub behind: bool,
}

/// What a crash does with the batches that were written and not yet acknowledged, two at most: some of them, from the front, are
/// durable though nobody was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    /// Nothing reached the platter.
    Lost,
    /// All did.
    Kept,
    /// The one that was being synced did, the one behind it did not.
    First,
    /// The first half of their entries did.
    Torn,
}

#[derive(Default)]
struct Disk {
    tables: Tables,
    /// What a crash goes back to, in the wrong version that does not sync.
    platter: Option<Box<Tables>>,
    /// Written, not yet synced: the one that is being synced and the one behind it.
    unsynced: VecDeque<Unfinished>,
    halted: bool,
    /// Counts the changes of the tables.
    version: u64,
    faults: MemFaults,
}

/// A batch that is written and not durable.
struct Unfinished {
    entries: Vec<Entry>,
    /// What becomes of them, once that was asked or the batch has failed. Then nothing changes it.
    outcomes: Option<Vec<Outcome>>,
}

impl Unfinished {
    fn apply(self, tables: &mut Tables) -> Vec<Outcome> {
        let Some(outcomes) = self.outcomes else { return tables.apply_all(self.entries) };
        let accepted = self.entries.into_iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_ok());
        accepted.for_each(|(entry, _)| tables.write(entry));
        outcomes
    }
}

impl std::fmt::Debug for MemDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MemDisk")
    }
}

impl MemDisk {
    /// An empty disk without faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Chooses what it does wrong from now on.
    pub fn set_faults(&self, faults: MemFaults) {
        self.disk().faults = faults;
    }

    /// What it does wrong now; counters as they have run down.
    #[must_use]
    pub fn faults(&self) -> MemFaults {
        self.disk().faults
    }

    /// What a power failure does to the disk. Call it when the runtime that used it is gone.
    pub fn crash(&self, unsynced: Unsynced) {
        let mut disk = self.disk();
        let mut batches = std::mem::take(&mut disk.unsynced);
        if unsynced == Unsynced::First && batches.len() > 1 && wrong::chosen(Wrong::SyncedOutOfOrder) {
            batches.pop_front();
            batches.iter_mut().for_each(|batch| batch.outcomes = Some(vec![Ok(()); batch.entries.len()]));
        }
        let mut left = match unsynced {
            Unsynced::Lost => 0,
            Unsynced::Kept => usize::MAX,
            Unsynced::First => batches.front().map_or(0, |first| first.entries.len()),
            Unsynced::Torn => batches.iter().map(|batch| batch.entries.len()).sum::<usize>() / 2,
        };
        for mut batch in batches {
            batch.entries.truncate(left);
            left -= batch.entries.len().min(left);
            batch.apply(&mut disk.tables);
        }
        if let Some(platter) = disk.platter.take() {
            disk.tables = *platter;
        }
        disk.version += 1;
        (disk.halted, disk.faults.halt) = (false, None);
    }

    /// Whether the journal came to its [`Halt`].
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.disk().halted
    }

    /// Changes with every change of what is stored.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.disk().version
    }

    pub(crate) fn read<T>(&self, read: impl FnOnce(&Tables) -> T) -> Result<T, StoreError> {
        let mut disk = self.disk();
        disk.call_fails()?;
        Ok(read(&disk.tables))
    }

    /// Reads an account for its actor.
    pub(crate) fn load<T>(&self, load: impl FnOnce(&Tables) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut disk = self.disk();
        disk.call_fails()?;
        fails(&mut disk.faults.failing_loads)?;
        load(&disk.tables)
    }

    /// Bit rot: the row of a live call cannot be opened any more, nor its account loaded while the call is live.
    pub fn spoil_call(&self, account: AccountKey, call: CallNo) {
        if let Some(account) = self.disk().tables.accounts.get_mut(&account) {
            account.rotten.insert(call);
        }
    }

    /// Bit rot: the bindings of a credential cannot be opened any more.
    pub fn spoil_bindings(&self, credential: CredentialId) {
        self.disk().tables.rotten_bindings.insert(credential);
    }

    pub(crate) fn write<T>(&self, write: impl FnOnce(&mut Tables) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut disk = self.disk();
        disk.call_fails()?;
        disk.version += 1;
        write(&mut disk.tables)
    }

    /// Takes a batch, behind the one that is being synced.
    pub(crate) fn begin(&self, entries: Vec<Entry>) {
        let mut disk = self.disk();
        let failed = disk.faults.failing_batches > 0;
        disk.faults.failing_batches -= u32::from(failed);
        let outcomes = failed.then(|| vec![Err(Rejection::Failed); entries.len()]);
        disk.unsynced.push_back(Unfinished { entries, outcomes });
        assert!(disk.unsynced.len() <= 2, "a batch is being synced, another one is behind it");
    }

    /// The older batch is synced from now on: how long that takes.
    pub(crate) fn sync_time(&self) -> Duration {
        let mut disk = self.disk();
        disk.faults.sync + std::mem::take(&mut disk.faults.next_stall)
    }

    /// What becomes of the entries of the one batch in flight, which is not durable yet. They are checked against what is durable:
    /// nothing else is before them.
    pub(crate) fn decide(&self) -> Vec<Outcome> {
        let Disk { unsynced, tables, .. } = &mut *self.disk();
        let batch = unsynced.front_mut().expect("a batch is in flight");
        batch.outcomes.get_or_insert_with(|| tables.outcomes(&batch.entries)).clone()
    }

    /// Batches that are written and not durable.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.disk().unsynced.len()
    }

    /// The older batch is about to be durable; whether the journal comes to its halt here.
    pub(crate) fn halts(&self) -> bool {
        let mut disk = self.disk();
        let behind = disk.unsynced.len() > 1;
        let reached = |halt: Halt| halt.batches == 0 && !halt.acknowledged && (behind || !halt.behind);
        disk.halted |= disk.faults.halt.is_some_and(reached);
        disk.halted
    }

    /// The older batch is durable, or failed.
    pub(crate) fn sync(&self) -> Vec<Outcome> {
        let mut disk = self.disk();
        let batch = disk.unsynced.pop_front().expect("a batch is in flight");
        if wrong::chosen(Wrong::SkippedSync) && disk.platter.is_none() {
            disk.platter = Some(Box::new(disk.tables.clone()));
        }
        disk.version += 1;
        batch.apply(&mut disk.tables)
    }

    /// Everyone was told of the batch.
    pub(crate) fn acknowledged(&self) {
        let mut disk = self.disk();
        if let Some(halt) = &mut disk.faults.halt {
            let reached = halt.batches == 0 && halt.acknowledged;
            halt.batches = halt.batches.saturating_sub(1);
            disk.halted |= reached;
        }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        // A panic elsewhere leaves the maps whole: each entry is checked before any of it is written.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Disk {
    fn call_fails(&mut self) -> Result<(), StoreError> {
        fails(&mut self.faults.failing_calls)
    }
}

/// One of so many failures, if any is left.
fn fails(left: &mut u32) -> Result<(), StoreError> {
    if *left == 0 {
        return Ok(());
    }
    *left -= 1;
    Err(StoreError::Unavailable("injected failure".to_owned()))
}
