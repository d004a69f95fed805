//! A simulated disk: what a database keeps, as plain maps, with faults that a test or the simulator chooses. It uses no
//! thread and no clock, and its order never depends on a hasher.

use crate::error::StoreError;
use schema::id::{AccountKey, CallNo, CredentialId};
use schema::journal::{Entry, Outcome, Rejection};
use schema::wrong::{self, Wrong};
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
}

/// What a crash does with a batch that was written and not yet acknowledged: both happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    /// It did not reach the platter.
    Lost,
    /// It did, but nobody was told.
    Kept,
    /// Its first half did.
    Torn,
}

#[derive(Default)]
struct Disk {
    tables: Tables,
    /// What a crash goes back to, in the wrong version that does not sync.
    platter: Option<Box<Tables>>,
    /// Written, not yet synced.
    unsynced: Vec<Entry>,
    halted: bool,
    /// Counts the changes of the tables.
    version: u64,
    faults: MemFaults,
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
        let mut entries = std::mem::take(&mut disk.unsynced);
        match unsynced {
            Unsynced::Lost => entries.clear(),
            Unsynced::Torn => entries.truncate(entries.len() / 2),
            Unsynced::Kept => {}
        }
        let _ = disk.tables.apply_all(entries);
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

    /// Takes a batch and says how long it will take.
    pub(crate) fn begin(&self, entries: Vec<Entry>) -> Duration {
        let mut disk = self.disk();
        disk.unsynced = entries;
        disk.faults.sync + std::mem::take(&mut disk.faults.next_stall)
    }

    /// The batch is written; whether the journal comes to its halt here.
    pub(crate) fn halts(&self) -> bool {
        let mut disk = self.disk();
        disk.halted |= disk.faults.halt.is_some_and(|halt| halt.batches == 0 && !halt.acknowledged);
        disk.halted
    }

    /// The batch is durable, or failed.
    pub(crate) fn sync(&self) -> Vec<Outcome> {
        let mut disk = self.disk();
        let entries = std::mem::take(&mut disk.unsynced);
        if disk.faults.failing_batches > 0 {
            disk.faults.failing_batches -= 1;
            return vec![Err(Rejection::Failed); entries.len()];
        }
        if wrong::chosen(Wrong::SkippedSync) && disk.platter.is_none() {
            disk.platter = Some(Box::new(disk.tables.clone()));
        }
        disk.version += 1;
        disk.tables.apply_all(entries)
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
