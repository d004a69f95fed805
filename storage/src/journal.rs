//! The journal: the one writer of everything that account actors decide. Whatever waits, up to a limit, is written in one
//! transaction (group commit), while the next batch gathers, sealed and encoded by those who submit; behind it entries wait in a
//! bounded queue. Two batches are in flight: on SQLite one is written while the one before is made durable, on PostgreSQL each half
//! of the accounts has a lane of its own, and in each the next batch gathers meanwhile. After the commit each entry's `done` is
//! called, of one account in the order of submission.
//!
//! Every store writes an entry only when the account's newest one is the one before it: it is remembered or looked for before, and
//! a key refuses a second entry with its number. What is true on every store:
//!
//! 1. after a rejected entry every later one of its account, in the batch or handed over before the rejection was told, is
//!    [`Rejection::Fenced`]: it was decided on a state that never was;
//! 2. an entry whose idempotency key is taken is rejected with [`Rejection::DuplicateKey`];
//! 3. an entry whose `seq` does not follow the stored one is [`Rejection::Fenced`];
//! 4. an entry that contradicts the rows (a call ended twice, a hold placed twice, money below zero) is [`Rejection::Failed`]
//!    alone; when the database fails, so is the whole batch;
//! 5. an entry is written whole or not at all.

use crate::sql::Db;
use crate::store::{Backend, Store};
use batch::{Desk, Fences, Hopper, collect};
use schema::id::{AccountKey, CallNo};
use schema::journal::{Change, Entry, Outcome, Rejection};
use schema::ledger::{Hold, LedgerKind, Transfer};
use schema::wrong::{self, Wrong};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
pub(crate) use vital::end_process;
use vital::{start_task, start_thread};

mod batch;
mod checkpoint;
pub(crate) mod encode;
mod known;
mod memory;
mod pace;
mod postgres;
mod sqlite;
mod vital;

/// Told what became of an entry, exactly once, on the writer: it must be quick and must not block.
pub type Done = Box<dyn FnOnce(Outcome) + Send>;

/// The queue is full: nothing was written, nothing will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the journal's queue is full")]
pub struct JournalFull;

/// Limits of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalOptions {
    /// Most entries waiting in each lane.
    pub queue: usize,
    /// Most entries in one transaction.
    pub batch: usize,
    /// Pages (4 KB) in SQLite's write-ahead log at which it is carried into the database. More than the 32,768 of the default would
    /// make recovery read longer: 128 MB are read within 0.2 s.
    pub log: u32,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self { queue: 16_384, batch: 512, log: 32_768 }
    }
}

/// A cheap handle of the writer, which ends when the last handle is dropped and the queues are empty.
#[derive(Clone)]
pub struct Journal {
    /// At least one.
    lanes: Arc<[Lane]>,
    counts: Arc<Counts>,
}

/// The way of an account's entries to the store, with all that may stand still on it.
struct Lane {
    queue: mpsc::Sender<Item>,
    /// Of a database: the next batch, to which whoever submits adds by itself.
    desk: Option<Desk>,
}

/// On PostgreSQL, each with a connection: while one waits for the disk or for its callers, the server works for the other. More
/// would share two processors with it.
const POSTGRES_LANES: usize = 2;

#[derive(Default)]
struct Counts {
    /// Entries handed over; the n-th has ticket n.
    tickets: AtomicU64,
    batches: AtomicU64,
    entries: AtomicU64,
}

/// What waits in the queue.
enum Item {
    Entry(u64, Box<Entry>, Done),
    Flush(oneshot::Sender<()>),
}

/// Accounts of which an entry was rejected in the batch at hand.
#[derive(Default)]
pub(crate) struct Rejected(BTreeSet<AccountKey>);

impl Rejected {
    pub(crate) fn contains(&self, account: AccountKey) -> bool {
        self.0.contains(&account)
    }

    pub(crate) fn note(&mut self, account: AccountKey, outcome: &Outcome) {
        if outcome.is_err() {
            self.0.insert(account);
        }
    }

    /// Tries the next entry of an account, unless an earlier one was rejected.
    pub(crate) fn attempt<E>(
        &mut self,
        account: AccountKey,
        attempt: impl FnOnce() -> Result<Outcome, E>,
    ) -> Result<Outcome, E> {
        if self.contains(account) {
            return Ok(Err(Rejection::Fenced));
        }
        let outcome = attempt()?;
        self.note(account, &outcome);
        Ok(outcome)
    }
}

impl Journal {
    /// Starts the one writer of a store; within a tokio runtime. On SQLite it is threads, otherwise tasks of that runtime. When
    /// one of a database's panics the process ends (SIGABRT): nobody waits for an answer that cannot come.
    ///
    /// # Panics
    /// When the system has no thread for it.
    #[must_use]
    pub fn start(store: &Store, options: JournalOptions) -> Self {
        let counts = Arc::new(Counts::default());
        let limit = options.batch.max(1);
        let lanes = match &store.backend {
            Backend::Sql(sql) if matches!(sql.db, Db::Postgres(_)) => POSTGRES_LANES,
            _ => 1,
        };
        let lane = |number| {
            let (queue, waiting) = mpsc::channel(options.queue.max(1));
            let fences = Fences::new(counts.clone());
            let desk = match &store.backend {
                Backend::Memory(disk) => {
                    drop(tokio::spawn(memory::write(waiting, limit, fences, disk.clone())));
                    None
                }
                Backend::Sql(sql) => {
                    let hopper = Arc::new(Hopper::new(limit));
                    let desk = Desk::new(hopper.clone(), sql.keys.clone());
                    let collect = collect(waiting, desk.clone());
                    match &sql.db {
                        Db::Postgres(pool) => {
                            drop(start_task("journal", collect));
                            let write = postgres::write(hopper, fences, pool.clone(), number);
                            drop(start_task("journal-write", write));
                        }
                        Db::Sqlite(db) => {
                            let (db, runtime) = (db.clone(), Handle::current());
                            let collecting = runtime.clone();
                            let handle = runtime.clone();
                            start_thread("journal", &handle, move || collecting.block_on(collect));
                            start_thread("journal-write", &handle, move || {
                                sqlite::write(&hopper, fences, &db, options.log, &runtime);
                            });
                        }
                    }
                    Some(desk)
                }
            };
            Lane { queue, desk }
        };
        Self { lanes: (0..lanes).map(lane).collect(), counts }
    }

    fn lane(&self, account: AccountKey) -> &Lane {
        let number = account.0.unsigned_abs() % self.lanes.len() as u64;
        &self.lanes[number as usize]
    }

    /// Hands an entry over, sealed and encoded here when its keys are at hand. Never blocks. `done` is called exactly once, after
    /// the commit or its failure; of one account in the order of submission.
    ///
    /// # Errors
    /// [`JournalFull`]: nothing happens then, and `done` is dropped.
    pub fn submit(&self, entry: Entry, done: Done) -> Result<(), JournalFull> {
        let ticket = self.counts.tickets.fetch_add(1, Ordering::AcqRel);
        let Lane { queue, desk } = self.lane(entry.account);
        let Some(desk) = desk else {
            return queue.try_send(Item::Entry(ticket, Box::new(entry), done)).map_err(|_| JournalFull);
        };
        let Some((entry, done)) = desk.put(ticket, entry, done) else { return Ok(()) };
        desk.in_line(|| queue.try_send(Item::Entry(ticket, Box::new(entry), done)).map_err(|_| JournalFull))
    }

    /// Returns when all that was submitted before is acknowledged.
    pub async fn flush(&self) {
        let mut reached = Vec::with_capacity(self.lanes.len());
        for Lane { queue, .. } in self.lanes.iter() {
            let (told, wait) = oneshot::channel();
            let _ = queue.send(Item::Flush(told)).await;
            reached.push(wait);
        }
        for wait in reached {
            let _ = wait.await;
        }
    }

    /// Entries waiting now.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.lanes.iter().map(|lane| lane.queue.max_capacity() - lane.queue.capacity()).sum()
    }

    /// Transactions tried and entries in them, since the start.
    #[must_use]
    pub fn written(&self) -> (u64, u64) {
        (self.counts.batches.load(Ordering::Relaxed), self.counts.entries.load(Ordering::Relaxed))
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("depth", &self.depth()).finish_non_exhaustive()
    }
}

/// What an entry must be on its own, before any row is looked at. Says what is wrong, for the log.
pub(crate) fn well_formed(entry: &Entry) -> Result<(), &'static str> {
    let figures = &entry.figures;
    let blind = wrong::chosen(Wrong::ReserveBlind);
    if figures.held.is_negative() || (figures.available().is_negative() && !blind) {
        return Err("l1: available money below zero");
    }
    if figures.receivable.is_negative() || figures.last_call.0 < 0 {
        return Err("a figure below zero");
    }
    if entry.events.len() > 16 {
        return Err("more than 16 events");
    }
    let (mut holds, mut keys, mut charges) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut dialogs = BTreeSet::new();
    for change in &entry.changes {
        let positive = match change {
            Change::HoldPlaced(hold) => {
                if !holds.insert((hold.call, hold.leg, hold.step)) {
                    return Err("a hold placed twice");
                }
                if !is_held_in_order(entry, hold) {
                    return Err("a hold without its call, or out of its order");
                }
                !hold.amount.is_negative()
            }
            Change::Posted(transfer) => {
                if let Some(key) = &transfer.key
                    && (!(1..=128).contains(&key.key.len()) || !keys.insert(&key.key))
                {
                    return Err("an idempotency key used twice, empty or too long");
                }
                if let Some(call) = charged_call(transfer)
                    && (!ends(entry, call) || !charges.insert(call))
                {
                    return Err("c3: a charge without the end of its call, or two");
                }
                let cost_negative = transfer.carrier_cost.is_some_and(|c| c.amount.is_negative());
                transfer.debit != transfer.credit
                    && !transfer.amount.is_negative()
                    && !transfer.loss.is_negative()
                    && !cost_negative
            }
            Change::CallEnded(cdr) | Change::CallRefused(cdr) => {
                cdr.call.state.is_over() && !cdr.charged.is_negative() && !cdr.loss.is_negative()
            }
            Change::CallStarted(call) if call.no != figures.last_call => {
                return Err("a call that begins is the last one");
            }
            Change::CallStarted(call) if !places_first_hold(entry, call.no) => {
                return Err("c1: a call that begins without a hold");
            }
            Change::DialogsChanged(call, _) if !dialogs.insert(*call) => return Err("a call's dialogs changed twice"),
            Change::CallStarted(call) | Change::CallUpdated(call) | Change::CallRenewed(call) => {
                !call.held.is_negative()
            }
            Change::AttemptEnded(_) | Change::CallerIdChanged(_) | Change::DialogsChanged(..) => true,
        };
        if !positive {
            return Err("an amount below zero, a transfer to itself or a record of a call that goes on");
        }
    }
    Ok(())
}

/// A hold goes with its call's row, which knows the step of its newest hold, so that no step is held for twice (L3). Alone it can
/// only begin a call.
fn is_held_in_order(entry: &Entry, hold: &Hold) -> bool {
    for change in &entry.changes {
        match change {
            Change::CallStarted(call) if call.no == hold.call => return hold.step <= call.hold_step,
            Change::CallUpdated(call) | Change::CallRenewed(call) if call.no == hold.call => {
                return hold.step <= call.hold_step
                    && u64::from(hold.step) + holds_of(entry, call.no) > call.hold_step.into();
            }
            _ => {}
        }
    }
    hold.step == 0 && hold.call == entry.figures.last_call
}

fn places_first_hold(entry: &Entry, call: CallNo) -> bool {
    entry.changes.iter().any(|change| matches!(change, Change::HoldPlaced(hold) if hold.call == call && hold.step == 0))
}

/// How many holds of a call an entry places.
pub(crate) fn holds_of(entry: &Entry, call: CallNo) -> u64 {
    entry.changes.iter().filter(|change| matches!(change, Change::HoldPlaced(hold) if hold.call == call)).count() as u64
}

/// Whether an entry begins a call: then the entry before it must not have come to that call's number.
pub(crate) fn begins(entry: &Entry) -> bool {
    entry.changes.iter().any(|change| match change {
        Change::CallStarted(_) => true,
        Change::HoldPlaced(hold) => !entry.writes_row_of(hold.call),
        _ => false,
    })
}

pub(crate) fn charged_call(transfer: &Transfer) -> Option<CallNo> {
    transfer.call.filter(|_| transfer.kind == LedgerKind::CallCharge)
}

fn ends(entry: &Entry, call: CallNo) -> bool {
    entry.changes.iter().any(|change| matches!(change, Change::CallEnded(cdr) if cdr.no == call))
}

/// What one row of an entry moves.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Movement<'a> {
    /// Money was set aside.
    Hold(&'a Hold),
    /// Money moved; a charge ends its call's holds.
    Transfer(&'a Transfer),
    /// A call ended without a charge, and with it its holds.
    Ended(CallNo),
}

/// What an entry moves, in the order of its rows.
pub(crate) fn movements(entry: &Entry) -> impl Iterator<Item = Movement<'_>> {
    let charged =
        |call| entry.changes.iter().any(|change| matches!(change, Change::Posted(t) if charged_call(t) == Some(call)));
    entry.changes.iter().filter_map(move |change| match change {
        Change::HoldPlaced(hold) => Some(Movement::Hold(hold)),
        Change::Posted(transfer) => Some(Movement::Transfer(transfer)),
        Change::CallEnded(cdr) if !charged(cdr.no) => Some(Movement::Ended(cdr.no)),
        _ => None,
    })
}

/// Name of the metric: seconds from when a batch is taken until it is durable, or has failed.
const COMMIT_SECONDS: &str = "ringfence_journal_commit_seconds";

fn record_commit(entries: usize, took: Duration) {
    if entries > 0 {
        metrics::histogram!(COMMIT_SECONDS).record(took);
    }
}

/// All of a batch failed.
fn all_failed(entries: usize) -> Vec<Outcome> {
    vec![Err(Rejection::Failed); entries]
}
