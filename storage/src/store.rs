//! One set of functions over three kinds of store.

use crate::error::StoreError;
use crate::keyring::{Class, Keyring, Subject};
use crate::memory::MemDisk;
use crate::sql::{Db, SqlStore, is_sealed};
use crate::url::DatabaseUrl;
use std::sync::Arc;
use std::time::Duration;

/// How long closing connections may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

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
    Sql(Arc<SqlStore>),
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match &self.backend {
            Backend::Memory(_) => "memory",
            Backend::Sql(sql) => match sql.db {
                Db::Sqlite(_) => "sqlite",
                Db::Postgres(_) => "postgres",
            },
        };
        write!(f, "Store({name})")
    }
}

/// A page's size: 1 to 1,000.
pub(crate) fn page(limit: u32) -> usize {
    limit.clamp(1, 1_000) as usize
}

impl Store {
    /// Opens a database and brings it to this program's version.
    ///
    /// # Errors
    /// [`StoreError::Newer`] for one that a newer program wrote; [`StoreError::OtherKeys`] for one whose data these keys do not
    /// open; or it cannot be opened.
    pub async fn open(url: &DatabaseUrl, keys: Keyring) -> Result<Self, StoreError> {
        Ok(Self { backend: Backend::Sql(Arc::new(SqlStore::open(url, keys).await?)) })
    }

    /// Whether a database was sealed with a key store already: beside a new one nobody could read it. A SQLite file that is missing
    /// is not made.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn is_sealed(url: &DatabaseUrl) -> Result<bool, StoreError> {
        is_sealed(url).await
    }

    /// On a simulated disk, which outlives it. Nothing is sealed there, and no threads or clocks are used.
    #[must_use]
    pub fn memory(disk: &MemDisk) -> Self {
        Self { backend: Backend::Memory(disk.clone()) }
    }

    /// Destroys a key: what it sealed is gone for ever, backups included.
    ///
    /// # Errors
    /// [`StoreError::Refused`] for call data of an account with a live call; or the store failed.
    pub async fn destroy_key(&self, subject: Subject, class: Class) -> Result<(), StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.destroy_key(subject, class).await,
            Backend::Memory(disk) => disk.write(|t| t.destroy_key(subject, class)),
        }
    }

    /// Closes the connections, within 2 s: a database that does not answer is not waited for. Journals of this store must have been
    /// flushed.
    pub async fn close(&self) {
        let closed = async {
            match &self.backend {
                Backend::Sql(sql) => {
                    sql.db.close().await;
                    sql.keys.close().await;
                }
                Backend::Memory(_) => {}
            }
        };
        if tokio::time::timeout(CLOSE_LIMIT, closed).await.is_err() {
            tracing::warn!("the database does not answer: its connections are left to it");
        }
    }
}
