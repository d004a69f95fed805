//! SQLite and PostgreSQL behind one small set of functions, so that every statement is written once: `$1` placeholders, integers
//! as `bigint`, identities as UUID, booleans, text and bytes. Only DDL and the hot batch differ by engine.
//!
//! SQLite has two writers in this process: the journal's thread and, for everything rare, one connection here. Both take
//! `gate` first, a fair lock, so that neither ever polls the database's own lock (`busy_timeout` is for other processes).

use crate::error::StoreError;
use crate::journal::end_process;
use crate::keyring::{Class, Keyring, LIVE_CALL, Subject};
use crate::url::DatabaseUrl;
use futures_util::{Stream, StreamExt, TryFutureExt};
use sqlx::postgres::PgPool;
use sqlx::sqlite::SqlitePool;
use sqlx::{AssertSqlSafe, Postgres, Sqlite, Transaction, query_with};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard};

mod account;
mod binding;
mod call;
mod durable;
mod event;
mod ledger;
mod mark;
mod migrate;
mod open;
mod person;
mod session;
mod silence;
mod tariff;
mod value;

use durable::Durable;
pub(crate) use mark::is_sealed;
pub(crate) use migrate::{DATA, KEYS, migrate};
pub(crate) use open::log_of;
pub(crate) use silence::{SILENCE_MAX, silent};
use silence::{answered, next_row};
pub(crate) use value::{Row, Value};
use value::{postgres, sqlite};

/// Ends the process when SQLite failed in a way after which nothing that the kernel says about the file can be believed: a
/// failed fsync or write may have dropped dirty pages, and the next fsync would report success. Only a restart, which reads
/// what is really there, is safe. Everything else (a full disk, a lock that does not come free, a failed read, no memory) left the
/// file as it was: what was asked fails, and may be asked again.
///
/// `code`: SQLite's extended code.
pub(crate) fn stop_if_unsafe(code: Option<i32>, message: &str) {
    if code.is_some_and(is_unsafe) {
        end_process(&format!("the database file cannot be written ({message})"));
    }
}

/// Extended codes are the primary one and a number above its 8 bits.
const fn is_unsafe(code: i32) -> bool {
    const CORRUPT: i32 = 11;
    const NOTADB: i32 = 26;
    const IOERR: i32 = 10;
    match (code & 0xff, code >> 8) {
        (CORRUPT | NOTADB, _) => true,
        // READ, SHORT_READ; the locks: UNLOCK, RDLOCK, BLOCKED, NOMEM, ACCESS, CHECKRESERVEDLOCK, LOCK; making the shared index:
        // SHMOPEN, SHMSIZE, SHMLOCK. None of them lost a page. FSYNC, DIR_FSYNC, WRITE, TRUNCATE, CLOSE and whatever is new did or might.
        (IOERR, 1 | 2 | 8 | 9 | 11 | 12 | 13 | 14 | 15 | 18 | 19 | 20) => false,
        (IOERR, _) => true,
        _ => false,
    }
}

/// A store in a SQL database, with the keys of its sealed columns.
pub(crate) struct SqlStore {
    pub(crate) db: Db,
    pub(crate) keys: Keyring,
    /// Held by whoever imports a rate deck.
    importing: Arc<Mutex<()>>,
}

/// A database. A cheap handle.
#[derive(Clone)]
pub(crate) enum Db {
    Sqlite(Arc<SqliteDb>),
    Postgres(PgPool),
}

pub(crate) struct SqliteDb {
    pub(crate) path: PathBuf,
    /// Held by whoever writes.
    pub(crate) gate: Arc<Mutex<()>>,
    /// Asked by whoever reads.
    pub(crate) durable: Durable,
    read: SqlitePool,
    write: SqlitePool,
}

/// A transaction; rolled back when it is dropped.
pub(crate) enum Tx {
    Sqlite(Transaction<'static, Sqlite>, Option<OwnedMutexGuard<()>>),
    Postgres(Transaction<'static, Postgres>),
}

/// The values of a statement, in the order of its placeholders.
macro_rules! values {
    ($($value:expr),* $(,)?) => { vec![$($crate::sql::Value::from($value)),*] };
}
pub(crate) use values;

impl SqlStore {
    /// Opens and migrates. Data that was sealed with other keys is refused.
    pub(crate) async fn open(url: &DatabaseUrl, keys: Keyring) -> Result<Self, StoreError> {
        let db = Db::open(url).await?;
        migrate(&db, &DATA).await?;
        mark::compare(&db, &keys).await?;
        Ok(Self { db, keys, importing: Arc::default() })
    }
}

impl SqlStore {
    /// Destroys a key and erases the blind indexes of what it sealed.
    pub(crate) async fn destroy_key(&self, subject: Subject, class: Class) -> Result<(), StoreError> {
        if let (Subject::Account(key), Class::Calls) = (subject, class) {
            let live = self.db.fetch_one("select no from calls where account_key = $1 limit 1", values![key.0]).await?;
            if live.is_some() {
                return Err(LIVE_CALL);
            }
        }
        self.keys.destroy(subject, class).await?;
        match (subject, class) {
            (Subject::Account(key), Class::Identity) => {
                let text = "update caller_ids set number_index = null where account_key = $1";
                self.db.execute(text, values![key.0]).await?;
            }
            (Subject::Account(key), Class::Calls) => {
                let text =
                    "update cdrs set destination_index = null where account_key = $1 and destination_index is not null";
                self.db.execute(text, values![key.0]).await?;
            }
            (Subject::Account(key), Class::Tech) => {
                self.db.execute("delete from bindings where account_key = $1", values![key.0]).await?;
            }
            (Subject::User(user), Class::Identity) => {
                self.db.execute("update users set email_index = null where id = $1", values![user.0]).await?;
            }
            (Subject::Account(_), Class::Billing) | (Subject::User(_) | Subject::Trunk(_), _) => {}
        }
        Ok(())
    }
}

impl Db {
    /// For writing: one at a time on SQLite.
    pub(crate) async fn write(&self) -> Result<Tx, StoreError> {
        match self {
            Self::Sqlite(db) => {
                let gate = db.gate.clone().lock_owned().await;
                Ok(Tx::Sqlite(db.write.begin_with("begin immediate").await.map_err(failed)?, Some(gate)))
            }
            Self::Postgres(pool) => Ok(Tx::Postgres(answered(pool.begin().map_err(failed)).await?)),
        }
    }

    /// Reads all from one snapshot. Waits for the disk afterwards, when the connection is free again.
    pub(crate) async fn in_snapshot<T>(
        &self,
        read: impl AsyncFnOnce(&mut Tx) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut tx = self.snapshot().await?;
        let found = read(&mut tx).await?;
        drop(tx);
        self.is_durable().await;
        Ok(found)
    }

    /// Returns when all that could be read until now is durable.
    async fn is_durable(&self) {
        if let Self::Sqlite(db) = self {
            db.durable.all().await;
        }
    }

    async fn snapshot(&self) -> Result<Tx, StoreError> {
        match self {
            Self::Sqlite(db) => Ok(Tx::Sqlite(db.read.begin().await.map_err(failed)?, None)),
            Self::Postgres(pool) => {
                let begin = "begin isolation level repeatable read read only";
                Ok(Tx::Postgres(answered(pool.begin_with(begin).map_err(failed)).await?))
            }
        }
    }

    /// Rows of one reading statement.
    pub(crate) async fn fetch(&self, sql: &'static str, values: Vec<Value>) -> Result<Vec<Row>, StoreError> {
        let rows = self.look_up(sql, values).await?;
        self.is_durable().await;
        Ok(rows)
    }

    /// The first row of one reading statement.
    pub(crate) async fn fetch_one(&self, sql: &'static str, values: Vec<Value>) -> Result<Option<Row>, StoreError> {
        Ok(self.fetch(sql, values).await?.into_iter().next())
    }

    /// As [`Self::fetch`], of tables that the journal does not write, or of what promises nobody anything: never waits for the disk.
    pub(crate) async fn look_up(&self, sql: &'static str, values: Vec<Value>) -> Result<Vec<Row>, StoreError> {
        match self {
            Self::Sqlite(db) => collect(query_with(sql, sqlite(values)?).fetch(&db.read), Row::sqlite).await,
            Self::Postgres(pool) => {
                answered(collect(query_with(sql, postgres(values)?).fetch(pool), Row::postgres)).await
            }
        }
    }

    /// As [`Self::fetch_one`], of tables that the journal does not write.
    pub(crate) async fn look_up_one(&self, sql: &'static str, values: Vec<Value>) -> Result<Option<Row>, StoreError> {
        Ok(self.look_up(sql, values).await?.into_iter().next())
    }

    /// One writing statement in a transaction of its own. Returns how many rows it changed.
    pub(crate) async fn execute(&self, sql: &'static str, values: Vec<Value>) -> Result<u64, StoreError> {
        let mut tx = self.write().await?;
        let changed = tx.execute(sql, values).await?;
        tx.commit().await?;
        Ok(changed)
    }

    /// After something was overwritten that must not be found again: empties the write-ahead log, which still holds the old
    /// page (the page itself was overwritten in place). PostgreSQL keeps dead rows until vacuum: it is asked for one.
    pub(crate) async fn forget_overwritten(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(db) => {
                let _gate = db.gate.lock().await;
                sqlx::raw_sql("pragma wal_checkpoint(truncate)")
                    .execute(&db.write)
                    .await
                    .map(drop)
                    .map_err(sqlite_failed)
            }
            Self::Postgres(pool) => sqlx::raw_sql("vacuum subject_keys").execute(pool).await.map(drop).map_err(failed),
        }
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(db) => {
                db.read.close().await;
                db.write.close().await;
            }
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

impl Tx {
    pub(crate) async fn fetch(&mut self, sql: &'static str, values: Vec<Value>) -> Result<Vec<Row>, StoreError> {
        match self {
            Self::Sqlite(tx, _) => collect(query_with(sql, sqlite(values)?).fetch(&mut **tx), Row::sqlite).await,
            Self::Postgres(tx) => {
                answered(collect(query_with(sql, postgres(values)?).fetch(&mut **tx), Row::postgres)).await
            }
        }
    }

    pub(crate) async fn fetch_one(&mut self, sql: &'static str, values: Vec<Value>) -> Result<Option<Row>, StoreError> {
        Ok(self.fetch(sql, values).await?.into_iter().next())
    }

    /// Hands each row over as it comes: for more rows than fit in memory. PostgreSQL may work on such a statement for minutes before
    /// the first one.
    pub(crate) async fn each(
        &mut self,
        sql: &'static str,
        values: Vec<Value>,
        mut take: impl FnMut(Row) -> Result<(), StoreError> + Send,
    ) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx, _) => {
                let mut rows = query_with(sql, sqlite(values)?).fetch(&mut **tx);
                while let Some(row) = rows.next().await {
                    take(Row::sqlite(row.map_err(failed)?))?;
                }
            }
            Self::Postgres(tx) => {
                let mut rows = query_with(sql, postgres(values)?).fetch(&mut **tx);
                while let Some(row) = next_row(&mut rows).await {
                    take(Row::postgres(row.map_err(failed)?))?;
                }
            }
        }
        Ok(())
    }

    pub(crate) async fn execute(&mut self, sql: &'static str, values: Vec<Value>) -> Result<u64, StoreError> {
        match self {
            Self::Sqlite(tx, _) => {
                let done = query_with(sql, sqlite(values)?).execute(&mut **tx).await.map_err(sqlite_failed)?;
                Ok(done.rows_affected())
            }
            Self::Postgres(tx) => {
                let done = answered(query_with(sql, postgres(values)?).execute(&mut **tx).map_err(failed)).await?;
                Ok(done.rows_affected())
            }
        }
    }

    /// Several statements without values: migrations, which take as long as they take.
    pub(crate) async fn script(&mut self, sql: &'static str) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx, _) => sqlx::raw_sql(sql).execute(&mut **tx).await.map(drop).map_err(sqlite_failed),
            Self::Postgres(tx) => sqlx::raw_sql(sql).execute(&mut **tx).await.map(drop).map_err(failed),
        }
    }

    /// Inserts rows, 200 a statement. `into` names table and columns: `decks (id, name)`.
    pub(crate) async fn insert(&mut self, into: &'static str, rows: Vec<Vec<Value>>) -> Result<(), StoreError> {
        self.insert_or(into, rows, "").await.map(drop)
    }

    /// Inserts those rows whose keys are not there yet. Returns how many.
    pub(crate) async fn insert_new(&mut self, into: &'static str, rows: Vec<Vec<Value>>) -> Result<u64, StoreError> {
        self.insert_or(into, rows, " on conflict do nothing").await
    }

    async fn insert_or(
        &mut self,
        into: &'static str,
        rows: Vec<Vec<Value>>,
        or: &'static str,
    ) -> Result<u64, StoreError> {
        let (mut rows, mut inserted) = (rows.into_iter(), 0);
        let mut built = (0, Arc::<str>::default());
        loop {
            let part: Vec<_> = rows.by_ref().take(200).collect();
            let Some(width) = part.first().map(Vec::len) else { return Ok(inserted) };
            if built.0 != part.len() {
                let numbered = matches!(self, Self::Postgres(_));
                built = (part.len(), (insert_text(into, width, part.len(), numbered) + or).into());
            }
            let text = built.1.clone();
            let values: Vec<_> = part.into_iter().flatten().collect();
            inserted += match self {
                Self::Sqlite(tx, _) => {
                    let query = query_with(AssertSqlSafe(text), sqlite(values)?);
                    query.execute(&mut **tx).await.map_err(sqlite_failed)?.rows_affected()
                }
                Self::Postgres(tx) => {
                    let query = query_with(AssertSqlSafe(text), postgres(values)?);
                    answered(query.execute(&mut **tx).map_err(failed)).await?.rows_affected()
                }
            };
        }
    }

    /// Rows whose column, the last word of `select`, is one of `values`; 200 a statement.
    pub(crate) async fn fetch_in(&mut self, select: &'static str, values: Vec<Value>) -> Result<Vec<Row>, StoreError> {
        let mut found = Vec::new();
        for part in values.chunks(200) {
            let mut text = format!("{select} in (");
            push_marks(&mut text, 0, part.len(), matches!(self, Self::Postgres(_)));
            text.push(')');
            let text = AssertSqlSafe(text);
            found.extend(match self {
                Self::Sqlite(tx, _) => {
                    collect(query_with(text, sqlite(part.to_vec())?).fetch(&mut **tx), Row::sqlite).await?
                }
                Self::Postgres(tx) => {
                    answered(collect(query_with(text, postgres(part.to_vec())?).fetch(&mut **tx), Row::postgres))
                        .await?
                }
            });
        }
        Ok(found)
    }

    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx, _gate) => tx.commit().await.map_err(sqlite_failed),
            Self::Postgres(tx) => answered(tx.commit().map_err(failed)).await,
        }
    }
}

/// `insert into TABLE (a, b) values ($1, $2), ($3, $4)`: constants and numbers only.
///
/// On SQLite with `?` instead: it looks numbered placeholders up by name, one after the other, and there may be thousands.
pub(crate) fn insert_text(into: &'static str, width: usize, rows: usize, numbered: bool) -> String {
    let mut text = format!("insert into {into} values ");
    for row in 0..rows {
        text.push_str(if row == 0 { "(" } else { ", (" });
        push_marks(&mut text, row * width, width, numbered);
        text.push(')');
    }
    text
}

fn push_marks(text: &mut String, before: usize, marks: usize, numbered: bool) {
    for mark in 1..=marks {
        if mark > 1 {
            text.push_str(", ");
        }
        if numbered {
            text.push('$');
            text.push_str(&(before + mark).to_string());
        } else {
            text.push('?');
        }
    }
}

async fn collect<R>(
    mut rows: impl Stream<Item = Result<R, sqlx::Error>> + Unpin,
    wrap: impl Fn(R) -> Row,
) -> Result<Vec<Row>, StoreError> {
    let mut collected = Vec::new();
    while let Some(row) = rows.next().await {
        collected.push(wrap(row.map_err(failed)?));
    }
    Ok(collected)
}

/// As [`failed`], of SQLite: does not return when the file cannot be believed any more.
fn sqlite_failed(error: sqlx::Error) -> StoreError {
    if let sqlx::Error::Database(e) = &error {
        stop_if_unsafe(e.code().and_then(|code| code.parse().ok()), e.message());
    }
    failed(error)
}

/// The engine's error without its detail, which could quote a row.
pub(crate) fn failed(error: sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::Database(e) => {
            StoreError::Database { code: e.code().map(|c| c.into_owned()), message: e.message().to_owned() }
        }
        sqlx::Error::Io(e) => StoreError::Unavailable(e.kind().to_string()),
        sqlx::Error::PoolTimedOut => StoreError::Unavailable("no connection became free".to_owned()),
        sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
            StoreError::Unavailable("the store was closed".to_owned())
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnIndexOutOfBounds { .. } => {
            StoreError::unreadable("a row", "a column of another type")
        }
        sqlx::Error::Configuration(_) => StoreError::Unavailable("the database url is not understood".to_owned()),
        other => StoreError::Database { code: None, message: other.to_string() },
    }
}

impl StoreError {
    /// A unique or primary key was in use.
    pub(crate) fn is_unique(&self) -> bool {
        matches!(self, Self::Database { code: Some(code), .. } if ["2067", "1555", "23505"].contains(&code.as_str()))
    }

    /// A row that is referred to does not exist.
    pub(crate) fn is_foreign_key(&self) -> bool {
        matches!(self, Self::Database { code: Some(code), .. } if ["787", "23503"].contains(&code.as_str()))
    }

    /// Says what was taken or missing, where the database named a constraint only.
    pub(crate) fn named(self, taken: &'static str, missing: &'static str) -> Self {
        match self {
            error if error.is_unique() => Self::Taken(taken),
            error if error.is_foreign_key() => Self::NotFound(missing),
            error => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_unsafe;

    #[test]
    fn only_what_may_have_lost_a_page_ends_the_process() {
        // FSYNC, DIR_FSYNC, WRITE, TRUNCATE, CLOSE, DIR_CLOSE; CORRUPT, CORRUPT_VTAB, NOTADB.
        for code in [1_034, 1_290, 778, 1_546, 4_106, 4_362, 11, 267, 26] {
            assert!(is_unsafe(code), "{code}");
        }
        // FULL, BUSY, BUSY_SNAPSHOT, LOCKED, CONSTRAINT_UNIQUE, READONLY, NOMEM; IOERR_READ, _SHORT_READ, _NOMEM, _LOCK, _SHMSIZE.
        for code in [0, 13, 5, 517, 6, 2_067, 8, 7, 266, 522, 3_082, 3_850, 4_874] {
            assert!(!is_unsafe(code), "{code}");
        }
    }
}
