//! The writer on SQLite: one thread with prepared row statements. A batch is one transaction with one fdatasync of the write-ahead
//! log. Three more threads keep it at that: one syncs, one tells the outcomes, one carries the log into the database.

use super::batch::{Fences, Hopper};
use super::checkpoint::Checkpointer;
use super::encode::{CALL_UPDATED, Encoded, Form, Newest, Rows, Write};
use super::known::Known;
use super::pace::{Commit, Pace};
use super::{Rejected, all_failed};
use crate::sql::{SqliteDb, Value, insert_text, stop_if_unsafe};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, Statement, ToSql, ffi, params};
use schema::id::{AccountKey, CallNo, Seq, TransferId};
use schema::journal::{Outcome, Rejection};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use sync::{Log, Syncer, Unsynced};
use tokio::runtime::Handle;

mod frames;
mod sync;
mod vfs;

/// The newest entry of an account. The number of its last call is in the row, not in the index, and mostly nobody asks.
const NEWEST: &str = "select max(seq), 0 from entries where account_key = ?1";
const NEWEST_CALL: &str = "select seq, last_call from entries where account_key = ?1 order by seq desc limit 1";
const TAKEN_KEY: &str = "select transfer, request from entries where account_key = ?1 and key = ?2";

/// Why a batch was not written.
enum Trouble {
    /// A row was refused by a constraint, or a row that must exist does not: an entry contradicts the database.
    Contradiction,
    /// The database failed.
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation) => Self::Contradiction,
            _ => Self::Database(error),
        }
    }
}

/// Runs until the last handle of the journal is gone.
pub(super) fn write(hopper: &Hopper, fences: Fences, db: &Arc<SqliteDb>, log: u32, runtime: &Handle) {
    let checkpointer = Checkpointer::start(db.clone(), log, runtime);
    let syncer = Syncer::start(db.clone(), runtime);
    let mut line = Line { hopper, fences, db, runtime, syncer, pace: Pace::default() };
    // A connection that failed is not used again.
    loop {
        let connection = open(db);
        let writer = match &connection {
            Ok(connection) => Writer::prepare(connection, db).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let goes_on = match writer {
            Ok(mut writer) => line.run(|entries| Some((writer.write(entries, &checkpointer)?, writer.log.clone()))),
            Err(error) => line.run(|_| {
                tracing::error!(error, "the database cannot be opened for writing");
                None
            }),
        };
        if !goes_on {
            return;
        }
    }
}

/// The log is synced beside the writer, and carried into the database by the checkpointer, never by a commit; nothing is written
/// to it before a commit (`frames.rs`). The cache, 8 MB between batches, holds what is written again soon; the kernel has the
/// rest. After most commits SQLite looks at each page in it, so a larger one costs more than it saves.
const PRAGMAS: &str = "pragma journal_mode = wal; pragma synchronous = normal; pragma foreign_keys = on; pragma secure_delete = on; \
     pragma wal_autocheckpoint = 0; pragma cache_size = -8192; pragma cache_spill = off; pragma temp_store = memory;";

pub(super) fn open(db: &SqliteDb) -> Result<Connection, rusqlite::Error> {
    open_at(&db.path)
}

fn open_at(path: &Path) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open_with_flags_and_vfs(path, OpenFlags::default(), vfs::registered()?)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.execute_batch(PRAGMAS)?;
    // SQLite says nothing of a setting that it does not know.
    if connection.query_row("pragma cache_spill", [], |row| row.get::<_, i64>(0))? != 0 {
        let misuse = ffi::Error::new(ffi::SQLITE_MISUSE);
        return Err(rusqlite::Error::SqliteFailure(misuse, Some("cache_spill is not off".to_owned())));
    }
    Ok(connection)
}

/// Batches on their way to the database and back.
struct Line<'a> {
    hopper: &'a Hopper,
    fences: Fences,
    db: &'a SqliteDb,
    runtime: &'a Handle,
    syncer: Syncer,
    pace: Pace,
}

impl Line<'_> {
    /// Writes batches until one fails (`None`), which is all told so. False when nothing can come any more.
    #[expect(clippy::disallowed_methods, reason = "the journal's threads time its commits")]
    fn run(&mut self, mut write: impl FnMut(&[Encoded]) -> Option<(Vec<Outcome>, Arc<Log>)>) -> bool {
        loop {
            let Some(batch) = self.runtime.block_on(self.hopper.take()) else { return false };
            let (entries, writing) = self.fences.admit(batch);
            let begun = Instant::now();
            let written = if entries.is_empty() {
                None
            } else {
                let _gate = self.db.gate.blocking_lock();
                write(&entries)
            };
            let (wrote, failed) = (begun.elapsed(), written.is_none() && !entries.is_empty());
            let (outcomes, log) = written.map_or_else(|| (all_failed(entries.len()), None), |(o, log)| (o, Some(log)));
            let (entries, commit) = (entries.len(), self.db.durable.last());
            let written = self.fences.conclude(writing, outcomes);
            self.syncer.hand_over(Unsynced { written, entries, begun, commit, log });
            if failed {
                return true;
            }
            self.pace.note(Commit { entries, took: begun.elapsed(), waiting: self.hopper.waiting() });
            if let Some(pause) = self.pace.pause() {
                std::thread::sleep(pause);
            }
            self.syncer.rest(wrote);
        }
    }
}

fn text(write: Write) -> String {
    match write.form() {
        Form::Insert(into, rest) => insert_text(into, into.split(',').count(), 1, false) + rest,
        Form::UpdateCall => {
            let set = (1..).zip(CALL_UPDATED).map(|(n, column)| format!("{column} = coalesce(?{n}, {column})"));
            let set = set.collect::<Vec<_>>().join(", ");
            let [account, no, before] = [1, 2, 3].map(|n| CALL_UPDATED.len() + n);
            format!(
                "update calls set {set} \
                 where account_key = ?{account} and no = ?{no} and hold_step = coalesce(?{before}, hold_step)"
            )
        }
        // It follows the entry's first row.
        Form::InsertEvent => "insert into events (id, payload) values (last_insert_rowid(), ?3)".to_owned(),
        Form::DeleteCall => "delete from calls where account_key = ?1 and no = ?2".to_owned(),
    }
}

/// A connection with its statements.
struct Writer<'c> {
    connection: &'c Connection,
    log: Arc<Log>,
    db: &'c SqliteDb,
    begin: Statement<'c>,
    commit: Statement<'c>,
    newest: Statement<'c>,
    newest_call: Statement<'c>,
    taken: Statement<'c>,
    log_length: Statement<'c>,
    known: Known,
    /// One for each [`Write`].
    writes: Vec<Statement<'c>>,
}

impl<'c> Writer<'c> {
    fn prepare(connection: &'c Connection, db: &'c SqliteDb) -> Result<Self, Box<dyn Error>> {
        let prepare = |text: &str| connection.prepare(text);
        let begin = prepare("begin immediate")?;
        Ok(Self {
            connection,
            log: Arc::new(Log::open(db)?),
            db,
            begin,
            commit: prepare("commit")?,
            newest: prepare(NEWEST)?,
            newest_call: prepare(NEWEST_CALL)?,
            taken: prepare(TAKEN_KEY)?,
            log_length: prepare("pragma wal_checkpoint(noop)")?,
            known: Known::default(),
            writes: Write::ALL.into_iter().map(|write| prepare(&text(write))).collect::<Result<_, _>>()?,
        })
    }

    /// `None`: the database failed, nothing was written.
    fn write(&mut self, entries: &[Encoded], checkpointer: &Checkpointer) -> Option<Vec<Outcome>> {
        let mut newest = BTreeMap::new();
        let written = self.transaction(|writer| writer.together(entries, &mut newest));
        match &written {
            Ok(_) => self.known.learn(newest),
            Err(_) => self.known = Known::default(),
        }
        let written = match written {
            // Some entry of the batch is at fault: each is written on its own savepoint, so that only that one fails.
            Err(Trouble::Contradiction) => self.transaction(|writer| writer.singly(entries)),
            written => written,
        };
        match written {
            Ok(outcomes) => {
                if let Ok(length) = self.log_length.query_row([], |row| row.get::<_, i64>(1)) {
                    checkpointer.log_is(length);
                }
                Some(outcomes)
            }
            Err(trouble) => {
                if let Trouble::Database(error) = trouble {
                    stop_if_unsafe(error.sqlite_error().map(|e| e.extended_code), &error.to_string());
                    tracing::error!(%error, entries = entries.len(), "a journal batch failed");
                }
                None
            }
        }
    }

    fn transaction(
        &mut self,
        fill: impl FnOnce(&mut Self) -> Result<Vec<Outcome>, Trouble>,
    ) -> Result<Vec<Outcome>, Trouble> {
        self.begin.raw_execute()?;
        let outcomes = fill(self).and_then(|outcomes| {
            self.db.durable.commits();
            self.commit.raw_execute()?;
            Ok(outcomes)
        });
        if outcomes.is_err() && !self.connection.is_autocommit() {
            self.connection.execute_batch("rollback")?;
        }
        outcomes
    }

    /// All entries, unless one is at fault. `newest`: of each account what this batch has written last.
    fn together(
        &mut self,
        entries: &[Encoded],
        newest: &mut BTreeMap<AccountKey, Newest>,
    ) -> Result<Vec<Outcome>, Trouble> {
        let mut rejected = Rejected::default();
        let mut write = |entry: &Encoded| rejected.attempt(entry.account, || self.entry(entry, newest));
        entries.iter().map(&mut write).collect()
    }

    fn entry(&mut self, entry: &Encoded, newest: &mut BTreeMap<AccountKey, Newest>) -> Result<Outcome, Trouble> {
        if let Some(duplicate) = self.duplicate(entry)? {
            return Ok(Err(duplicate));
        }
        let known = newest.get(&entry.account).copied().or_else(|| self.known.of(entry.account));
        let before = match known.filter(|known| known.precedes(entry)) {
            Some(before) => Some(before),
            None => self.newest(entry)?,
        };
        let Some(before) = before.filter(|before| before.precedes(entry)) else {
            return Ok(Err(Rejection::Fenced));
        };
        if !before.allows(entry) {
            return Err(Trouble::Contradiction);
        }
        self.rows(entry.rows.as_ref().map_err(|_| Trouble::Contradiction)?)?;
        newest.insert(entry.account, Newest::after(entry));
        Ok(Ok(()))
    }

    /// Each entry on a savepoint, so that a contradiction takes back that entry only.
    fn singly(&mut self, entries: &[Encoded]) -> Result<Vec<Outcome>, Trouble> {
        let mut rejected = Rejected::default();
        let mut write = |entry: &Encoded| rejected.attempt(entry.account, || self.entry_alone(entry));
        entries.iter().map(&mut write).collect()
    }

    fn entry_alone(&mut self, entry: &Encoded) -> Result<Outcome, Trouble> {
        if let Some(duplicate) = self.duplicate(entry)? {
            return Ok(Err(duplicate));
        }
        let Some(before) = self.newest(entry)?.filter(|before| before.precedes(entry)) else {
            return Ok(Err(Rejection::Fenced));
        };
        let rows = match &entry.rows {
            Ok(rows) => rows,
            Err(reason) => {
                tracing::error!(account = entry.account.0, seq = entry.seq.0, reason, "an entry is malformed");
                return Ok(Err(Rejection::Failed));
            }
        };
        self.connection.execute_batch("savepoint entry")?;
        let written = if before.allows(entry) { self.rows(rows) } else { Err(Trouble::Contradiction) };
        let outcome = match written {
            Err(Trouble::Contradiction) => {
                tracing::error!(account = entry.account.0, seq = entry.seq.0, "an entry contradicts the rows");
                self.connection.execute_batch("rollback to entry")?;
                Err(Rejection::Failed)
            }
            written => Ok(written?),
        };
        self.connection.execute_batch("release entry")?;
        Ok(outcome)
    }

    /// Whether an idempotency key of the entry is taken.
    fn duplicate(&mut self, entry: &Encoded) -> Result<Option<Rejection>, Trouble> {
        for (key, _) in &entry.keys {
            let mut rows = self.taken.query(params![entry.account.0, key.key])?;
            if let Some(row) = rows.next()? {
                let (id, request): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?);
                let transfer = TransferId(uuid::Uuid::from_slice(&id).map_err(|_| Trouble::Contradiction)?);
                return Ok(Some(Rejection::DuplicateKey { transfer, same_request: request == key.request }));
            }
        }
        Ok(None)
    }

    /// An account's newest entry; `None` when there is no such account.
    fn newest(&mut self, entry: &Encoded) -> Result<Option<Newest>, Trouble> {
        let statement = if entry.begins { &mut self.newest_call } else { &mut self.newest };
        let mut rows = statement.query([entry.account.0])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let Some(seq) = row.get(0)? else { return Ok(None) };
        Ok(Some(Newest { seq: Seq(seq), last_call: CallNo(row.get(1)?) }))
    }

    fn rows(&mut self, rows: &Rows) -> Result<(), Trouble> {
        for (write, values) in rows {
            let statement = &mut self.writes[*write as usize];
            bind(statement, values)?;
            if statement.raw_execute()? != 1 {
                return Err(Trouble::Contradiction);
            }
        }
        Ok(())
    }
}

fn bind(statement: &mut Statement<'_>, values: &[Value]) -> Result<(), rusqlite::Error> {
    for (place, value) in (1..).zip(values) {
        statement.raw_bind_parameter(place, value)?;
    }
    Ok(())
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let value = match self {
            Self::Int(Some(number)) => ValueRef::Integer(*number),
            Self::Text(Some(text)) => ValueRef::Text(text.as_bytes()),
            Self::Word(word) => ValueRef::Text(word.as_bytes()),
            Self::Bytes(Some(bytes)) => ValueRef::Blob(bytes),
            Self::Id(Some(id)) => ValueRef::Blob(id.as_bytes()),
            Self::Bool(truth) => ValueRef::Integer(i64::from(*truth)),
            Self::Int(None) | Self::Text(None) | Self::Bytes(None) | Self::Id(None) => ValueRef::Null,
        };
        Ok(ToSqlOutput::Borrowed(value))
    }
}
