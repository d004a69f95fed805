//! How a database is opened: its files, its connections, and what each of them is asked for.

use super::durable::Durable;
use super::silence::closing_useless;
use super::{Db, SqliteDb, failed};
use crate::error::StoreError;
use crate::url::DatabaseUrl;
use rustix::fs::{Advice, fadvise};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// Mode of a database's files.
const OWNER_ONLY: u32 = 0o600;
/// How long a statement waits for another process's lock on a SQLite file.
const BUSY: Duration = Duration::from_secs(5);

/// The write-ahead log of a database file.
pub(crate) fn log_of(path: &Path) -> PathBuf {
    beside(path, "-wal")
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Makes the file, if it is missing, and has it and those beside it readable by their owner only, whatever its folder allows:
/// SQLite gives its write-ahead log the database file's mode. Returns where it is, past links: there SQLite has the others.
fn keep_private(path: &Path) -> io::Result<PathBuf> {
    File::options().create(true).truncate(false).append(true).mode(OWNER_ONLY).open(path)?;
    let path = fs::canonicalize(path)?;
    for suffix in ["", "-wal", "-shm"] {
        let name = beside(&path, suffix);
        match fs::metadata(&name) {
            Ok(found) if found.permissions().mode() & 0o077 != 0 => {
                fs::set_permissions(&name, fs::Permissions::from_mode(OWNER_ONLY))?;
                tracing::warn!(file = %name.display(), "others could read the file: it is its owner's only now");
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(path)
}

/// Makes durable what an earlier process left in the log, its name too, before anyone reads it. It is read from the disk then: after
/// a failed sync the kernel may still have pages that the disk has not.
fn settle_log(path: &Path) -> io::Result<()> {
    let log = match File::open(log_of(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        log => log?,
    };
    log.sync_data()?;
    let _ = fadvise(&log, 0, None, Advice::DontNeed);
    if let Some(folder) = path.parent()
        && let Err(error) = File::open(folder).and_then(|folder| folder.sync_all())
    {
        tracing::warn!(folder = %folder.display(), %error, "the folder of the database cannot be synced");
    }
    Ok(())
}

/// What the server is asked for each of our sessions. One whose client is not heard of any more ends within half a minute, and
/// with it what it has locked: by its default that takes two hours.
const SESSION: [(&str, &str); 6] = [
    ("synchronous_commit", "on"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "25s"),
    ("idle_in_transaction_session_timeout", "30s"),
];

/// `version`: PostgreSQL's number of it, 140000 for 14.
const fn check_version(version: i64) -> Result<(), StoreError> {
    if version < 140_000 {
        return Err(StoreError::Refused("the server is older than PostgreSQL 14"));
    }
    Ok(())
}

impl Db {
    /// Opens; a SQLite file is made when it is missing.
    pub(crate) async fn open(url: &DatabaseUrl) -> Result<Self, StoreError> {
        match url {
            DatabaseUrl::Sqlite(path) => Self::open_sqlite(path).await,
            DatabaseUrl::Postgres(text) => {
                let options = PgConnectOptions::from_str(text).map_err(failed)?;
                let options = options.options(SESSION).application_name("ringfence").disable_statement_logging();
                let pool = PgPoolOptions::new().max_connections(8).acquire_timeout(Duration::from_secs(10));
                let pool = closing_useless(pool).connect_with(options).await.map_err(failed)?;
                let version = "select current_setting('server_version_num')::bigint";
                check_version(sqlx::query_scalar(version).fetch_one(&pool).await.map_err(failed)?)?;
                Ok(Self::Postgres(pool))
            }
        }
    }

    async fn open_sqlite(path: &Path) -> Result<Self, StoreError> {
        let io = |error| failed(sqlx::Error::Io(error));
        let path = keep_private(path).map_err(io)?;
        settle_log(&path).map_err(io)?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .pragma("secure_delete", "on")
            // Beside a journal, whose checkpointer begins much earlier, never reached.
            .pragma("wal_autocheckpoint", "40000")
            .busy_timeout(BUSY)
            .disable_statement_logging();
        let pool = |most| {
            let pool = SqlitePoolOptions::new().max_connections(most).test_before_acquire(false);
            pool.idle_timeout(None).max_lifetime(None)
        };
        let write = pool(1).connect_with(options.clone()).await.map_err(failed)?;
        // An audit reads the pages of a range of accounts twice: 16 MB hold them.
        let options = options.pragma("query_only", "on").pragma("cache_size", "-16384");
        let read = pool(4).connect_with(options).await.map_err(failed)?;
        let (gate, durable) = (Arc::default(), Durable::default());
        Ok(Self::Sqlite(Arc::new(SqliteDb { path, gate, durable, read, write })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_postgresql_that_cannot_end_a_session_and_wait_for_that_is_refused() {
        for (version, is_refused) in [(130_018, true), (140_000, false), (150_013, false), (180_001, false)] {
            assert_eq!(check_version(version).is_err(), is_refused, "{version}");
        }
    }
}
