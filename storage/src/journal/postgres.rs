//! The writer on PostgreSQL: one transaction of a few set-based statements for each batch (`unnest` arrays). The accounts' newest
//! entries, where they are not known, are read first, so that who is fenced and which key is taken is known before anything is
//! written. What was read stays true: entries never go, and a second one with the same number is refused by their key.

use super::batch::{Fences, Hopper, Written};
use super::encode::{CALL_UPDATED, Encoded, Form, Newest, Rows, Write};
use super::known::Known;
use super::pace::{Commit, Pace, Patience};
use super::vital::start_task;
use super::{Rejected, all_failed, record_commit};
use crate::sql::{Value, failed};
use columns::{Column, arguments, columns};
use link::{Link, Session};
use schema::id::{AccountKey, CallNo, Seq, TransferId};
use schema::journal::{Outcome, Rejection};
use sqlx::postgres::{PgPool, PgRow};
use sqlx::{AssertSqlSafe, Connection, PgExecutor, Postgres, Row, Transaction, query_with};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use uuid::Uuid;

mod columns;
mod link;

/// Why a batch was not written.
enum Trouble {
    /// The server refused a row, or a row that must exist does not.
    Contradiction,
    /// Nothing was written.
    NotDone(sqlx::Error),
    /// The connection broke while the commit was under way: it may have happened.
    Unknown(sqlx::Error),
}

/// Classes of SQLSTATE that an entry of the batch may be the reason of.
const SINGLY: [&str; 5] = ["21", "22", "23", "40", "P0"];

impl From<sqlx::Error> for Trouble {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            // Integrity constraint, data exception, one row written twice by a statement, append-only, deadlock: try it singly.
            sqlx::Error::Database(e) if e.code().is_some_and(|code| SINGLY.contains(&&code[..2])) => {
                Self::Contradiction
            }
            _ => Self::NotDone(error),
        }
    }
}

/// Runs until the last handle of the journal is gone. `lane`: its number, below 10.
pub(super) async fn write(hopper: Arc<Hopper>, mut fences: Fences, pool: PgPool, lane: usize) {
    let mut link = Link::new((*pool.connect_options()).clone(), lane);
    let (mut pace, mut patience) = (Pace::default(), Patience::default());
    // Those of one batch are told while the next is written, and no further behind.
    let (tell, mut told) = mpsc::channel::<Written>(1);
    let telling = start_task("journal-tell", async move {
        while let Some(written) = told.recv().await {
            written.tell();
        }
    });
    while let Some(batch) = hopper.take_patiently(&mut patience).await {
        let (entries, writing) = fences.admit(batch);
        let begun = tokio::time::Instant::now();
        let outcomes = if entries.is_empty() { Vec::new() } else { write_batch(&mut link, &entries).await };
        let commit = Commit { entries: entries.len(), took: begun.elapsed(), waiting: hopper.waiting() };
        record_commit(commit.entries, commit.took);
        pace.note(commit);
        patience.note(commit);
        if tell.send(fences.conclude(writing, outcomes)).await.is_err() {
            break; // the runtime is ending
        }
        if let Some(pause) = pace.pause() {
            tokio::time::sleep(pause).await;
        }
    }
    drop(tell);
    let _ = telling.await;
    link.close().await;
}

async fn write_batch(link: &mut Link, entries: &[Encoded]) -> Vec<Outcome> {
    let mut written = transaction(link, entries).await;
    if let Err(Trouble::NotDone(error)) = written {
        // Nothing was written, and a new connection may do.
        tracing::warn!(error = %failed(error), "a journal batch is tried again on a new connection");
        written = transaction(link, entries).await;
    }
    match written {
        Ok(outcomes) => outcomes,
        // Some entry of the batch is at fault: each is written on its own, so that only that one fails.
        Err(Trouble::Contradiction) if entries.len() > 1 => {
            let mut outcomes = Vec::with_capacity(entries.len());
            let mut rejected = Rejected::default();
            for entry in entries {
                if rejected.contains(entry.account) {
                    outcomes.push(Err(Rejection::Fenced));
                    continue;
                }
                let outcome = Box::pin(write_batch(link, std::slice::from_ref(entry))).await;
                outcome.iter().for_each(|outcome| rejected.note(entry.account, outcome));
                outcomes.extend(outcome);
            }
            outcomes
        }
        Err(Trouble::Contradiction) if is_behind(link, &entries[0]).await => vec![Err(Rejection::Fenced)],
        Err(Trouble::Contradiction) => {
            tracing::error!(account = entries[0].account.0, seq = entries[0].seq.0, "an entry contradicts the rows");
            all_failed(1)
        }
        Err(Trouble::NotDone(error)) => {
            tracing::error!(error = %failed(error), entries = entries.len(), "a journal batch failed");
            all_failed(entries.len())
        }
        Err(Trouble::Unknown(error)) => {
            tracing::error!(error = %failed(error), entries = entries.len(), "the outcome of a journal batch is unknown");
            resolve(link, entries).await
        }
    }
}

async fn transaction(link: &mut Link, entries: &[Encoded]) -> Result<Vec<Outcome>, Trouble> {
    link.within_silence(async |session| write_all(session, entries).await).await
}

async fn write_all(session: &mut Session, entries: &[Encoded]) -> Result<Vec<Outcome>, Trouble> {
    let Session { connection, known, writing } = session;
    let begin = format!("begin; select pg_advisory_xact_lock_shared({writing})");
    let mut tx = connection.begin_with(AssertSqlSafe(begin)).await?;
    let mut newest = newest(&mut tx, entries, known).await?;
    let outcomes = decide(&mut tx, entries, &mut newest).await?;
    let accepted = entries.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_ok());
    write_rows(&mut tx, accepted.filter_map(|(entry, _)| entry.rows.as_ref().ok())).await?;
    match tx.commit().await {
        Ok(()) => {
            known.learn(newest);
            Ok(outcomes)
        }
        Err(error @ sqlx::Error::Database(_)) => Err(error.into()),
        Err(error) => Err(Trouble::Unknown(error)),
    }
}

/// Who is fenced and whose key is taken, entry by entry.
async fn decide(
    tx: &mut Transaction<'_, Postgres>,
    entries: &[Encoded],
    newest: &mut BTreeMap<AccountKey, Newest>,
) -> Result<Vec<Outcome>, Trouble> {
    let mut taken = taken_keys(tx, entries).await?;
    let mut outcomes: Vec<Outcome> = Vec::with_capacity(entries.len());
    let mut rejected = Rejected::default();
    for entry in entries {
        if rejected.contains(entry.account) {
            outcomes.push(Err(Rejection::Fenced));
            continue;
        }
        let duplicate = entry.keys.iter().find_map(|(key, _)| {
            let (transfer, request) = taken.get(&(entry.account.0, key.key.clone()))?;
            Some(Rejection::DuplicateKey { transfer: *transfer, same_request: *request == key.request })
        });
        let stored = newest.get_mut(&entry.account);
        let outcome = match (duplicate, stored, &entry.rows) {
            (Some(rejection), Some(_), _) => Err(rejection),
            (None, Some(before), Ok(_)) if before.precedes(entry) => {
                if !before.allows(entry) {
                    return Err(Trouble::Contradiction);
                }
                *before = Newest::after(entry);
                for (key, transfer) in &entry.keys {
                    taken.insert((entry.account.0, key.key.clone()), (*transfer, key.request.to_vec()));
                }
                Ok(())
            }
            (None, Some(before), Err(reason)) if before.precedes(entry) => {
                tracing::error!(account = entry.account.0, seq = entry.seq.0, reason, "an entry is malformed");
                Err(Rejection::Failed)
            }
            _ => Err(Rejection::Fenced),
        };
        rejected.note(entry.account, &outcome);
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

/// The newest entry of each account: what is known of it, when the batch's first entry follows that, else what the database has.
async fn newest(
    tx: &mut Transaction<'_, Postgres>,
    entries: &[Encoded],
    known: &Known,
) -> Result<BTreeMap<AccountKey, Newest>, sqlx::Error> {
    let (mut newest, mut unknown) = (BTreeMap::new(), BTreeSet::new());
    for entry in entries {
        if newest.contains_key(&entry.account) || unknown.contains(&entry.account) {
            continue;
        }
        match known.of(entry.account).filter(|known| known.precedes(entry)) {
            Some(before) => drop(newest.insert(entry.account, before)),
            None => drop(unknown.insert(entry.account)),
        }
    }
    if !unknown.is_empty() {
        newest.extend(look_up(&mut **tx, unknown).await?);
    }
    Ok(newest)
}

async fn look_up(
    connection: impl PgExecutor<'_>,
    accounts: BTreeSet<AccountKey>,
) -> Result<BTreeMap<AccountKey, Newest>, sqlx::Error> {
    let text = "select u.account_key, e.seq, e.last_call from unnest($1::bigint[]) as u(account_key) \
                cross join lateral (select seq, last_call from entries where account_key = u.account_key order by seq desc limit 1) e";
    let accounts = Column::Ints(accounts.into_iter().map(|account| Some(account.0)).collect());
    let rows = query_with(text, arguments([accounts])?).fetch_all(connection).await?;
    let newest = |row: &PgRow| {
        let newest = Newest { seq: Seq(row.try_get(1)?), last_call: CallNo(row.try_get(2)?) };
        Ok((AccountKey(row.try_get(0)?), newest))
    };
    rows.iter().map(newest).collect()
}

/// Whether another writer was first: an entry that failed alone is fenced then. When that cannot be read it is not known.
async fn is_behind(link: &mut Link, entry: &Encoded) -> bool {
    let account = BTreeSet::from([entry.account]);
    let newest = link.within_silence(async |session| Ok(look_up(&mut session.connection, account).await?)).await;
    newest.is_ok_and(|newest| newest.get(&entry.account).is_none_or(|newest| newest.seq >= entry.seq))
}

type TakenKeys = BTreeMap<(i64, String), (TransferId, Vec<u8>)>;

async fn taken_keys(tx: &mut Transaction<'_, Postgres>, entries: &[Encoded]) -> Result<TakenKeys, sqlx::Error> {
    let wanted: Vec<_> =
        entries.iter().flat_map(|e| e.keys.iter().map(|(key, _)| (e.account.0, key.key.clone()))).collect();
    if wanted.is_empty() {
        return Ok(TakenKeys::new());
    }
    let (accounts, keys) = wanted.into_iter().map(|(account, key)| (Some(account), Some(key))).unzip();
    let text = "select t.account_key, t.key, t.transfer, t.request from entries t \
                join unnest($1::bigint[], $2::text[]) as u(account_key, key) on t.account_key = u.account_key and t.key = u.key";
    let rows = query_with(text, arguments([Column::Ints(accounts), Column::Texts(keys)])?).fetch_all(&mut **tx).await?;
    rows.iter()
        .map(|row| {
            let transfer = TransferId(row.try_get::<Uuid, _>(2)?);
            Ok(((row.try_get(0)?, row.try_get(1)?), (transfer, row.try_get(3)?)))
        })
        .collect()
}

/// The rows of all entries, one statement for each kind, those of the entries themselves first.
async fn write_rows<'e>(
    tx: &mut Transaction<'_, Postgres>,
    rows: impl Iterator<Item = &'e Rows> + Send,
) -> Result<(), Trouble> {
    let mut by_kind: BTreeMap<Write, Vec<Vec<Value>>> = BTreeMap::new();
    let mut calls = Calls::default();
    for (write, values) in rows.flatten() {
        match write {
            Write::CallInsert | Write::CallUpdate | Write::CallDelete => calls.fold(*write, values)?,
            _ => by_kind.entry(*write).or_default().push(values.clone()),
        }
    }
    calls.unfold(&mut by_kind);
    for (write, rows) in by_kind {
        let expected = rows.len() as u64;
        let columns = columns(rows);
        let text = text(write, &columns);
        let done = query_with(AssertSqlSafe(text), arguments(columns)?).execute(&mut **tx).await?;
        if done.rows_affected() != expected {
            return Err(Trouble::Contradiction);
        }
    }
    Ok(())
}

/// What becomes of live calls in a batch: one call may be inserted, changed and deleted in it.
#[derive(Default)]
struct Calls(BTreeMap<(i64, i64), Net>);

enum Net {
    Insert(Vec<Value>),
    Update(Vec<Value>),
    Delete(Vec<Value>),
    /// Begun and over within the batch.
    Nothing,
}

impl Calls {
    fn fold(&mut self, write: Write, values: &[Value]) -> Result<(), Trouble> {
        let place = if write == Write::CallUpdate { CALL_UPDATED.len() } else { 0 };
        let [Value::Int(Some(account)), Value::Int(Some(no)), ..] = values[place..] else {
            return Err(Trouble::Contradiction);
        };
        let before = self.0.remove(&(account, no));
        let net = match (before, write) {
            (None, Write::CallInsert) => Net::Insert(values.to_vec()),
            (None, Write::CallUpdate) => Net::Update(values.to_vec()),
            (Some(Net::Update(mut row)), Write::CallUpdate) => {
                // From the step before the first to that after the last.
                let [changed @ .., _, _, before] = &mut row[..] else { return Err(Trouble::Contradiction) };
                if is_null(before) {
                    *before = values[place + 2].clone();
                } else {
                    follows(&changed[1], &values[place + 2])?;
                }
                overlay(changed, values);
                Net::Update(row)
            }
            (None | Some(Net::Update(_)), Write::CallDelete) => Net::Delete(values.to_vec()),
            (Some(Net::Insert(mut row)), Write::CallUpdate) => {
                // What changes stands behind `account_key, no, id`.
                follows(&row[4], &values[place + 2])?;
                overlay(&mut row[3..], values);
                Net::Insert(row)
            }
            (Some(Net::Insert(_)), Write::CallDelete) => Net::Nothing,
            _ => return Err(Trouble::Contradiction),
        };
        self.0.insert((account, no), net);
        Ok(())
    }

    fn unfold(self, by_kind: &mut BTreeMap<Write, Vec<Vec<Value>>>) {
        for net in self.0.into_values() {
            let (write, row) = match net {
                Net::Insert(row) => (Write::CallInsert, row),
                Net::Update(row) => (Write::CallUpdate, row),
                Net::Delete(row) => (Write::CallDelete, row),
                Net::Nothing => continue,
            };
            by_kind.entry(write).or_default().push(row);
        }
    }
}

/// A change begins at the step to which the one before it came; one of dialogs alone has no step.
fn follows(came_to: &Value, from: &Value) -> Result<(), Trouble> {
    match (came_to, from) {
        (Value::Int(came_to), Value::Int(from)) if came_to == from || from.is_none() => Ok(()),
        _ => Err(Trouble::Contradiction),
    }
}

/// What is not null replaces what is there.
fn overlay(row: &mut [Value], newer: &[Value]) {
    for (value, newer) in row.iter_mut().zip(newer).filter(|(_, newer)| !is_null(newer)) {
        *value = newer.clone();
    }
}

const fn is_null(value: &Value) -> bool {
    matches!(value, Value::Int(None) | Value::Id(None) | Value::Bytes(None))
}

fn text(write: Write, columns: &[Column]) -> String {
    let arrays: Vec<_> = (1..).zip(columns).map(|(n, column)| format!("${n}::{}", column.array())).collect();
    let unnest = format!("unnest({})", arrays.join(", "));
    match write.form() {
        Form::Insert(into, rest) => format!("insert into {into} select * from {unnest} where true{rest}"),
        Form::UpdateCall => {
            let set = CALL_UPDATED.map(|column| format!("{column} = coalesce(u.{column}, c.{column})")).join(", ");
            let columns = CALL_UPDATED.join(", ");
            format!(
                "update calls c set {set} from {unnest} as u({columns}, account_key, no, before) \
                 where c.account_key = u.account_key and c.no = u.no and c.hold_step = coalesce(u.before, c.hold_step)"
            )
        }
        Form::InsertEvent => format!(
            "insert into events (id, payload) select e.id, u.payload from {unnest} as u(account_key, seq, payload) \
             join entries e on e.account_key = u.account_key and e.seq = u.seq and e.position = 0"
        ),
        Form::DeleteCall => format!(
            "delete from calls c using {unnest} as u(account_key, no) where c.account_key = u.account_key and c.no = u.no"
        ),
    }
}

/// Finds out whether a batch whose commit was cut off was written. Nothing else of its lane is written meanwhile and new entries
/// wait, up to the queue's limit: the service refuses rather than guesses.
async fn resolve(link: &mut Link, entries: &[Encoded]) -> Vec<Outcome> {
    let mut pause = Duration::from_millis(50);
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
        match link.within_silence(async |session| Ok(written(session, entries).await?)).await {
            Ok(outcomes) => return outcomes,
            Err(Trouble::Contradiction) => {}
            Err(Trouble::NotDone(error) | Trouble::Unknown(error)) => {
                tracing::error!(error = %failed(error), "the database cannot be asked what it wrote")
            }
        }
    }
}

/// The lock waits for the old connection's transaction to end, one way or the other. An entry was written when its row is there:
/// this is the accounts' only writer, and `at` tells a successor's entry from ours.
async fn written(session: &mut Session, entries: &[Encoded]) -> Result<Vec<Outcome>, sqlx::Error> {
    let mut tx = session.connection.begin().await?;
    // A session that waits for a lock does not notice that its client is gone: it must not outlive [`SILENCE_MAX`].
    sqlx::query("set local lock_timeout = '15s'").execute(&mut *tx).await?;
    sqlx::query("select pg_advisory_xact_lock($1)").bind(session.writing).execute(&mut *tx).await?;
    let text = "select e.account_key, e.seq from entries e join unnest($1::bigint[], $2::bigint[], $3::bigint[]) \
                as u(account_key, seq, at) on e.account_key = u.account_key and e.seq = u.seq and e.at = u.at \
                where e.position = 0";
    let wanted = columns(entries.iter().map(|e| vec![e.account.0.into(), e.seq.0.into(), e.at.0.into()]).collect());
    let rows = query_with(text, arguments(wanted)?).fetch_all(&mut *tx).await?;
    let mut found = BTreeSet::new();
    for row in rows {
        found.insert((row.try_get::<i64, _>(0)?, row.try_get::<i64, _>(1)?));
    }
    // The lock goes now, not with whatever is said next.
    tx.rollback().await?;
    let outcome = |e: &Encoded| if found.contains(&(e.account.0, e.seq.0)) { Ok(()) } else { Err(Rejection::Failed) };
    Ok(entries.iter().map(outcome).collect())
}
