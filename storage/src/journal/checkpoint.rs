//! Carries SQLite's write-ahead log into the database, beside the writer: a commit never does it, so none is slow because of it.
//!
//! The bulk is carried while the writer goes on. Only then, with little left, the writer is held for a moment, so that
//! everything is carried and the log begins anew: otherwise it would grow for as long as entries keep coming.

use super::sqlite::open;
use super::vital::{start_thread, sync_or_end};
use crate::sql::{SqliteDb, stop_if_unsafe};
use rusqlite::Connection;
use std::fs::File;
use std::mem::ManuallyDrop;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::runtime::Handle;

/// With so many pages left the writer is held.
const REST: i64 = 512;

/// Most turns beside the writer before it is held anyway.
const TURNS: usize = 4;

/// How long the writer is held for a reader to end, an audit's snapshots are shorter; and how often in a row. SQLite waits for the
/// place of a reader: whoever reads next may take the same one, though it would not be in the way.
const HELD: Duration = Duration::from_millis(30);
const TRIES: usize = 4;

/// How long a reader that did not end then is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// A handle of the thread, which ends with it.
pub(super) struct Checkpointer {
    wake: mpsc::SyncSender<()>,
    /// Pages (4 KB) in the log at which it is carried over.
    most: i64,
}

impl Checkpointer {
    pub(super) fn start(db: Arc<SqliteDb>, most: u32, runtime: &Handle) -> Self {
        let most = i64::from(most);
        let (wake, woken) = mpsc::sync_channel(1);
        start_thread("journal-carry", runtime, move || {
            let (mut connection, mut file) = (None, ManuallyDrop::new(None));
            while woken.recv().is_ok() {
                let carried = carry(&db, most, &mut connection, &mut file);
                if let Err(error) = &carried {
                    stop_if_unsafe(error.sqlite_error().map(|e| e.extended_code), &error.to_string());
                    tracing::warn!(%error, "the write-ahead log was not carried into the database");
                    connection = None;
                }
                if !matches!(carried, Ok(true)) {
                    std::thread::sleep(PAUSE);
                }
                // Asked for meanwhile: if it is still so, it is said again.
                let _ = woken.try_recv();
            }
        });
        Self { wake, most }
    }

    /// Told after each commit how many pages the log has.
    pub(super) fn log_is(&self, pages: i64) {
        if pages >= self.most {
            // It may be at work already.
            let _ = self.wake.try_send(());
        }
    }
}

/// False when a reader was in the way: the log goes on growing until the next try. `file` is the database's, for syncing: it is
/// never closed, since with it the process would lose the locks that SQLite has on the file.
fn carry(
    db: &SqliteDb,
    most: i64,
    connection: &mut Option<Connection>,
    file: &mut Option<File>,
) -> Result<bool, rusqlite::Error> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(open(db)?),
    };
    connection.busy_timeout(HELD)?;
    for _ in 0..TURNS {
        let carried = turn(connection, "pragma wal_checkpoint(passive)")?.length;
        // SQLite itself does so in the last turn, when the writer is held.
        sync(db, file);
        // What was added meanwhile is the rest.
        let now = turn(connection, "pragma wal_checkpoint(noop)")?.length;
        if now < most / 2 {
            return Ok(true); // begun anew since it was asked for
        }
        if now - carried < REST {
            break;
        }
    }
    let _gate = db.gate.blocking_lock();
    for _ in 0..TRIES {
        if !turn(connection, "pragma wal_checkpoint(restart)")?.busy {
            return Ok(true);
        }
    }
    Ok(false)
}

fn sync(db: &SqliteDb, file: &mut Option<File>) {
    if file.is_none() {
        *file = File::open(&db.path).ok();
    }
    if let Some(file) = file {
        sync_or_end(file, "the database file");
    }
}

struct Turn {
    /// Someone was in the way.
    busy: bool,
    /// Pages in the log.
    length: i64,
}

fn turn(connection: &Connection, pragma: &str) -> Result<Turn, rusqlite::Error> {
    connection.query_row(pragma, [], |row| Ok(Turn { busy: row.get(0)?, length: row.get(1)? }))
}
