//! The writer on PostgreSQL: one statement for each batch (`unnest` arrays), which is its transaction. The accounts' newest entries,
//! where they are not known, are read first, so that who is fenced and which key is taken is known before anything is written.
//! What was read stays true: entries never go, and a second one with the same number is refused by their key.

use super::batch::{Fences, Hopper, Written};
use super::encode::{Encoded, Newest};
use super::known::Known;
use super::pace::{Commit, Pace, Patience};
use super::vital::start_task;
use super::{Rejected, all_failed, record_commit};
use crate::error::StoreError;
use crate::sql::failed;
use columns::{Column, arguments, columns};
use link::{Backend, Link, Session};
use schema::id::{AccountKey, CallNo, Seq, TransferId};
use schema::journal::{Outcome, Rejection};
use sqlx::postgres::{PgConnection, PgPool, PgRow};
use sqlx::{AssertSqlSafe, Row, query_with};
use statement::{Statement, statement};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use uuid::Uuid;

mod columns;
mod link;
mod statement;

/// Why a batch was not written.
enum Trouble {
    /// The server refused a row, or a row that must exist does not.
    Contradiction,
    /// Nothing was written.
    NotDone(StoreError),
}

/// Why a session did not do what was asked.
enum Failure {
    Known(Trouble),
    /// The connection broke, or nothing was heard: it may have been done, or may yet be.
    Unknown(Backend, StoreError),
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
            _ => Self::NotDone(failed(error)),
        }
    }
}

impl<E: Into<Trouble>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Known(error.into())
    }
}

/// Runs until the last handle of the journal is gone. `lane`: its number, below 10.
pub(super) async fn write(hopper: Arc<Hopper>, mut fences: Fences, pool: PgPool, lane: usize) {
    let mut link = Link::new((*pool.connect_options()).clone(), lane);
    let (mut pace, mut patience) = (Pace::of_a_server(), Patience::default());
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
            hopper.gather(Pace::PLENTY, pause).await;
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
        tracing::warn!(%error, "a journal batch is tried again on a new connection");
        written = transaction(link, entries).await;
    }
    match written {
        Ok(outcomes) => outcomes,
        // Some entry of the batch is at fault: only that one fails.
        Err(Trouble::Contradiction) if entries.len() > 1 => singly(link, entries, &BTreeSet::new()).await,
        Err(Trouble::Contradiction) if is_behind(link, &entries[0]).await => vec![Err(Rejection::Fenced)],
        Err(Trouble::Contradiction) => {
            tracing::error!(account = entries[0].account.0, seq = entries[0].seq.0, "an entry contradicts the rows");
            all_failed(1)
        }
        Err(Trouble::NotDone(error)) => {
            tracing::error!(%error, entries = entries.len(), "a journal batch failed");
            all_failed(entries.len())
        }
    }
}

/// Each on its own, but for those that are there already.
async fn singly(link: &mut Link, entries: &[Encoded], there: &There) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(entries.len());
    let mut rejected = Rejected::default();
    for entry in entries {
        if there.contains(&(entry.account, entry.seq)) {
            outcomes.push(Ok(()));
        } else if rejected.contains(entry.account) {
            outcomes.push(Err(Rejection::Fenced));
        } else {
            let outcome = Box::pin(write_batch(link, std::slice::from_ref(entry))).await;
            outcome.iter().for_each(|outcome| rejected.note(entry.account, outcome));
            outcomes.extend(outcome);
        }
    }
    outcomes
}

async fn transaction(link: &mut Link, entries: &[Encoded]) -> Result<Vec<Outcome>, Trouble> {
    match link.within_silence(async |session| write_all(session, entries).await).await {
        Ok(outcomes) => Ok(outcomes),
        Err(Failure::Known(trouble)) => Err(trouble),
        Err(Failure::Unknown(backend, error)) => {
            tracing::error!(%error, entries = entries.len(), "the outcome of a journal batch is unknown");
            let there = resolve(link, backend, entries).await;
            // What is not there was rejected: it is decided anew why.
            if there.is_empty() { Err(Trouble::NotDone(error)) } else { Ok(singly(link, entries, &there).await) }
        }
    }
}

async fn write_all(session: &mut Session, entries: &[Encoded]) -> Result<Vec<Outcome>, Failure> {
    let Session { connection, known, backend } = session;
    let mut newest = newest(connection, entries, known).await?;
    let outcomes = decide(connection, entries, &mut newest).await?;
    let accepted = entries.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_ok());
    if let Some(Statement { text, arguments }) = statement(accepted.filter_map(|(entry, _)| entry.rows.as_ref().ok()))?
    {
        match query_with(AssertSqlSafe(text), arguments).execute(connection).await {
            Ok(_) => {}
            Err(error @ sqlx::Error::Database(_)) => return Err(error.into()),
            Err(error) => return Err(Failure::Unknown(*backend, failed(error))),
        }
    }
    known.learn(newest);
    Ok(outcomes)
}

/// Who is fenced and whose key is taken, entry by entry.
async fn decide(
    connection: &mut PgConnection,
    entries: &[Encoded],
    newest: &mut BTreeMap<AccountKey, Newest>,
) -> Result<Vec<Outcome>, Trouble> {
    let mut taken = taken_keys(connection, entries).await?;
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
    connection: &mut PgConnection,
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
        newest.extend(look_up(connection, unknown).await?);
    }
    Ok(newest)
}

async fn look_up(
    connection: &mut PgConnection,
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

async fn taken_keys(connection: &mut PgConnection, entries: &[Encoded]) -> Result<TakenKeys, sqlx::Error> {
    let wanted: Vec<_> =
        entries.iter().flat_map(|e| e.keys.iter().map(|(key, _)| (e.account.0, key.key.clone()))).collect();
    if wanted.is_empty() {
        return Ok(TakenKeys::new());
    }
    let (accounts, keys) = wanted.into_iter().map(|(account, key)| (Some(account), Some(key))).unzip();
    let text = "select t.account_key, t.key, t.transfer, t.request from entries t \
                join unnest($1::bigint[], $2::text[]) as u(account_key, key) on t.account_key = u.account_key and t.key = u.key";
    let rows =
        query_with(text, arguments([Column::Ints(accounts), Column::Texts(keys)])?).fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
            let transfer = TransferId(row.try_get::<Uuid, _>(2)?);
            Ok(((row.try_get(0)?, row.try_get(1)?), (transfer, row.try_get(3)?)))
        })
        .collect()
}

/// The entries of a batch that were written.
type There = BTreeSet<(AccountKey, Seq)>;

/// Finds out what was written of a batch of which nothing was heard: all that it could, or nothing. Nothing else of its lane is
/// written meanwhile and new entries wait, up to the queue's limit: the service refuses rather than guesses.
async fn resolve(link: &mut Link, backend: Backend, entries: &[Encoded]) -> There {
    let mut pause = Duration::from_millis(50);
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
        let asked = link.within_silence(async |session| {
            let is_over = session.outlives(backend).await?;
            Ok(if is_over { Some(written(session, entries).await?) } else { None })
        });
        match asked.await {
            Ok(Some(there)) => return there,
            Ok(None) => tracing::warn!(pid = backend.pid, "the server still has the session of a journal batch"),
            Err(Failure::Known(Trouble::Contradiction)) => {
                tracing::error!("the database refuses to say what it wrote");
            }
            Err(Failure::Known(Trouble::NotDone(error)) | Failure::Unknown(_, error)) => {
                tracing::error!(%error, "the database cannot be asked what it wrote");
            }
        }
    }
}

/// This is the accounts' only writer, and `at` tells a successor's entry from ours.
async fn written(session: &mut Session, entries: &[Encoded]) -> Result<There, sqlx::Error> {
    let text = "select e.account_key, e.seq from entries e join unnest($1::bigint[], $2::bigint[], $3::bigint[]) \
                as u(account_key, seq, at) on e.account_key = u.account_key and e.seq = u.seq and e.at = u.at \
                where e.position = 0";
    let wanted = columns(entries.iter().map(|e| vec![e.account.0.into(), e.seq.0.into(), e.at.0.into()]).collect());
    let mut there = There::new();
    for row in query_with(text, arguments(wanted)?).fetch_all(&mut session.connection).await? {
        there.insert((AccountKey(row.try_get(0)?), Seq(row.try_get(1)?)));
    }
    if !there.is_empty() {
        session.reach_standbys().await?;
    }
    Ok(there)
}
