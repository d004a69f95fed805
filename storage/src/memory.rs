//! A simulated disk: what a database keeps, as plain maps, with faults that a test or the simulator chooses. It uses no
//! thread and no clock, and its order never depends on a hasher.

use crate::error::StoreError;
use schema::journal::{Entry, Outcome, Rejection};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

mod apply;
mod tables;

pub(crate) use tables::{Account, Tables};

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
    /// From now on nothing reaches the platter, though it is acknowledged: a crash loses it. The control experiment that a
    /// simulator must catch.
    pub lies: bool,
}

/// What a crash does with a batch that was written and not yet acknowledged: both happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    /// It did not reach the platter.
    Lost,
    /// It did, but nobody was told.
    Kept,
}

#[derive(Default)]
struct Disk {
    tables: Tables,
    /// What a crash goes back to while the disk lies.
    platter: Option<Box<Tables>>,
    /// Written, not yet synced.
    unsynced: Vec<Entry>,
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
        let mut disk = self.disk();
        disk.faults = faults;
        if faults.lies {
            let now = disk.tables.clone();
            disk.platter.get_or_insert_with(|| Box::new(now));
        } else {
            disk.platter = None;
        }
    }

    /// What it does wrong now; counters as they have run down.
    #[must_use]
    pub fn faults(&self) -> MemFaults {
        self.disk().faults
    }

    /// What a power failure does to the disk. Call it when the runtime that used it is gone.
    pub fn crash(&self, unsynced: Unsynced) {
        let mut disk = self.disk();
        let entries = std::mem::take(&mut disk.unsynced);
        if unsynced == Unsynced::Kept {
            let _ = disk.tables.apply_all(entries);
        }
        if let Some(platter) = disk.platter.take() {
            disk.tables = *platter;
            disk.faults.lies = false;
        }
    }

    pub(crate) fn read<T>(&self, read: impl FnOnce(&Tables) -> T) -> Result<T, StoreError> {
        let mut disk = self.disk();
        disk.call_fails()?;
        Ok(read(&disk.tables))
    }

    pub(crate) fn write<T>(&self, write: impl FnOnce(&mut Tables) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut disk = self.disk();
        disk.call_fails()?;
        write(&mut disk.tables)
    }

    /// Takes a batch and says how long it will take.
    pub(crate) fn begin(&self, entries: Vec<Entry>) -> Duration {
        let mut disk = self.disk();
        disk.unsynced = entries;
        disk.faults.sync + std::mem::take(&mut disk.faults.next_stall)
    }

    /// The batch is durable, or failed.
    pub(crate) fn sync(&self) -> Vec<Outcome> {
        let mut disk = self.disk();
        let entries = std::mem::take(&mut disk.unsynced);
        if disk.faults.failing_batches > 0 {
            disk.faults.failing_batches -= 1;
            return vec![Err(Rejection::Failed); entries.len()];
        }
        disk.tables.apply_all(entries)
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        // A panic elsewhere leaves the maps whole: each entry is checked before any of it is written.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Disk {
    fn call_fails(&mut self) -> Result<(), StoreError> {
        if self.faults.failing_calls == 0 {
            return Ok(());
        }
        self.faults.failing_calls -= 1;
        Err(StoreError::Unavailable("injected failure".to_owned()))
    }
}
