//! The writer on SQLite: one thread with prepared row statements. A batch is one transaction with one fsync
//! (write-ahead log, `synchronous=FULL`).

use super::encode::{Encoded, Form, Rows, Write, encode};
use super::{Batch, Queue, Rejected, all_failed};
use crate::keyring::{Keyring, Subject};
use crate::sql::{SqliteDb, Value, fatal, insert_text};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, ToSql, params, params_from_iter};
use schema::journal::{Outcome, Rejection};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

const UPDATE_FIGURES: &str = "update accounts set seq = $1, status = $2, total = $3, held = $4, receivable = $5, last_call = $6 \
     where key = $7 and seq = $1 - 1";
const TAKEN_KEY: &str = "select id, request from transfers where account_key = $1 and key = $2";

struct Writer {
    db: Arc<SqliteDb>,
    /// Opened with the first batch.
    connection: Option<Connection>,
    /// The text of each [`Write`].
    texts: Vec<String>,
}

/// Why a whole batch was not written.
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
pub(super) fn write(mut queue: Queue, db: Arc<SqliteDb>, keys: &Keyring, runtime: &Handle) {
    let texts = Write::ALL.into_iter().map(text).collect();
    let mut writer = Writer { db, connection: None, texts };
    while let Some(Batch { entries, told }) = queue.next_blocking() {
        let subjects = entries.iter().map(|e| Subject::Account(e.account));
        let missing: Vec<_> = subjects.filter(|subject| !keys.is_loaded(*subject)).collect();
        if !missing.is_empty()
            && let Err(error) = runtime.block_on(keys.load(&missing))
        {
            tracing::error!(%error, "keys cannot be read");
        }
        let encoded: Vec<_> = entries.iter().map(|entry| encode(entry, keys)).collect();
        queue.tell(told, if encoded.is_empty() { Vec::new() } else { writer.write(&encoded) });
    }
}

fn text(write: Write) -> String {
    match write.form() {
        Form::Insert(into, rest) => insert_text(into, into.split(',').count(), 1, false) + rest,
        Form::UpdateCall => "update calls set held = $1, state = $2 where account_key = $3 and no = $4".to_owned(),
        Form::DeleteCall => "delete from calls where account_key = $1 and no = $2".to_owned(),
    }
}

impl Writer {
    fn write(&mut self, entries: &[Encoded]) -> Vec<Outcome> {
        let gate = self.db.gate.clone();
        let _gate = gate.blocking_lock();
        let written = match self.transaction(entries, false) {
            // Some entry of the batch is at fault: each is written on its own savepoint, so that only that one fails.
            Err(Trouble::Contradiction) => self.transaction(entries, true),
            written => written,
        };
        written.unwrap_or_else(|trouble| {
            if let Trouble::Database(error) = trouble {
                stop_if_unsafe(&error);
                tracing::error!(%error, entries = entries.len(), "a journal batch failed");
            }
            all_failed(entries.len())
        })
    }

    fn transaction(&mut self, entries: &[Encoded], alone: bool) -> Result<Vec<Outcome>, Trouble> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => open(&self.db)?,
        };
        let outcomes = self.fill(&connection, entries, alone);
        let outcomes = outcomes.and_then(|outcomes| Ok(connection.execute_batch("commit").map(|()| outcomes)?));
        if outcomes.is_err() && !connection.is_autocommit() {
            connection.execute_batch("rollback")?;
        }
        self.connection = Some(connection);
        outcomes
    }

    fn fill(&self, connection: &Connection, entries: &[Encoded], alone: bool) -> Result<Vec<Outcome>, Trouble> {
        connection.execute_batch("begin immediate")?;
        let mut rejected = Rejected::default();
        let mut write = |entry: &Encoded| {
            rejected.attempt(entry.account, || {
                if alone { self.entry_alone(connection, entry) } else { self.entry(connection, entry) }
            })
        };
        entries.iter().map(&mut write).collect()
    }

    /// On a savepoint, so that a contradiction takes back this entry only.
    fn entry_alone(&self, connection: &Connection, entry: &Encoded) -> Result<Outcome, Trouble> {
        connection.execute_batch("savepoint entry")?;
        let outcome = match self.entry(connection, entry) {
            Err(Trouble::Contradiction) => {
                tracing::error!(account = entry.account.0, seq = entry.seq.0, "an entry contradicts the rows");
                connection.execute_batch("rollback to entry")?;
                Err(Rejection::Failed)
            }
            outcome => outcome?,
        };
        connection.execute_batch("release entry")?;
        Ok(outcome)
    }

    /// Writes one entry whole, or rejects it before anything of it is written.
    fn entry(&self, connection: &Connection, entry: &Encoded) -> Result<Outcome, Trouble> {
        for (key, _) in &entry.keys {
            let mut taken = connection.prepare_cached(TAKEN_KEY)?;
            let mut rows = taken.query(params![entry.account.0, key.key])?;
            if let Some(row) = rows.next()? {
                let (id, request): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?);
                let transfer = uuid::Uuid::from_slice(&id).map_err(|_| Trouble::Contradiction)?;
                let transfer = schema::id::TransferId(transfer);
                return Ok(Err(Rejection::DuplicateKey { transfer, same_request: request == key.request }));
            }
        }
        let rows = match &entry.rows {
            Ok(rows) => rows,
            Err(reason) => return self.malformed(connection, entry, reason),
        };
        let figures = connection.prepare_cached(UPDATE_FIGURES)?.execute(params_from_iter(&rows.figures))?;
        if figures == 0 {
            return Ok(Err(Rejection::Fenced));
        }
        self.rows(connection, rows)?;
        Ok(Ok(()))
    }

    fn rows(&self, connection: &Connection, rows: &Rows) -> Result<(), Trouble> {
        for (write, values) in &rows.writes {
            let text = &self.texts[*write as usize];
            if connection.prepare_cached(text)?.execute(params_from_iter(values))? != 1 {
                return Err(Trouble::Contradiction);
            }
        }
        Ok(())
    }

    /// An entry that cannot be written at all is still fenced first.
    fn malformed(&self, connection: &Connection, entry: &Encoded, reason: &'static str) -> Result<Outcome, Trouble> {
        let mut select = connection.prepare_cached("select 1 from accounts where key = $1 and seq = $2 - 1")?;
        if !select.exists(params![entry.account.0, entry.seq.0])? {
            return Ok(Err(Rejection::Fenced));
        }
        tracing::error!(account = entry.account.0, seq = entry.seq.0, reason, "an entry is malformed");
        Ok(Err(Rejection::Failed))
    }
}

fn open(db: &SqliteDb) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open(&db.path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(32);
    connection.execute_batch(
        "pragma journal_mode = wal; pragma synchronous = full; pragma foreign_keys = on; pragma secure_delete = on;",
    )?;
    Ok(connection)
}

/// After a failed write or fsync the kernel may have dropped the pages and would report success next time: only a restart,
/// which reads what is really there, is safe.
fn stop_if_unsafe(error: &rusqlite::Error) {
    let code = error.sqlite_error_code();
    if matches!(code, Some(ErrorCode::SystemIoFailure | ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)) {
        fatal(&error.to_string());
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let value = match self {
            Self::Int(Some(number)) => ValueRef::Integer(*number),
            Self::Text(Some(text)) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(Some(bytes)) => ValueRef::Blob(bytes),
            Self::Id(Some(id)) => ValueRef::Blob(id.as_bytes()),
            Self::Bool(truth) => ValueRef::Integer(i64::from(*truth)),
            Self::Int(None) | Self::Text(None) | Self::Bytes(None) | Self::Id(None) => ValueRef::Null,
        };
        Ok(ToSqlOutput::Borrowed(value))
    }
}
