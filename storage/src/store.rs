//! One set of functions over three kinds of store.

use crate::error::StoreError;
use crate::keyring::{Class, Subject};
use crate::memory::MemDisk;

/// Where accounts, calls and money are kept: SQLite, PostgreSQL or memory. A cheap handle.
///
/// What an account's actor decides goes through a [`crate::Journal`]; everything else is here.
#[derive(Clone)]
pub struct Store {
    pub(crate) backend: Backend,
}

#[derive(Clone)]
pub(crate) enum Backend {
    Memory(MemDisk),
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match &self.backend {
            Backend::Memory(_) => "memory",
        };
        write!(f, "Store({name})")
    }
}

/// A page's size: 1 to 1,000.
pub(crate) fn page(limit: u32) -> usize {
    limit.clamp(1, 1_000) as usize
}

impl Store {
    /// On a simulated disk, which outlives it. Nothing is sealed there, and no threads or clocks are used.
    #[must_use]
    pub fn memory(disk: &MemDisk) -> Self {
        Self { backend: Backend::Memory(disk.clone()) }
    }

    /// Destroys a key: what it sealed is gone for ever, backups included. Call data only when the account has no live call.
    ///
    /// # Errors
    /// The store failed.
    pub async fn destroy_key(&self, subject: Subject, class: Class) -> Result<(), StoreError> {
        match &self.backend {
            Backend::Memory(disk) => disk.write(|t| {
                t.destroy_key(subject, class);
                Ok(())
            }),
        }
    }

    /// Closes the connections. Journals of this store must have been flushed.
    pub async fn close(&self) {
        match &self.backend {
            Backend::Memory(_) => {}
        }
    }
}
