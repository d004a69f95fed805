//! `ringfence audit`: derives every stored figure again from the rows and names each broken invariant. It only reads, by ranges
//! of accounts in bounded memory, each range in one short snapshot, so it can run beside a server that writes.

use crate::error::StoreError;
use crate::memory::Tables;
use crate::sql::{Row, SqlStore, Tx, values};
use crate::store::{Backend, Store};
use check::{CallRow, Cost, RangeCheck, TransferRow};
use schema::account::AccountFigures;
use schema::id::{AccountKey, CallNo, Seq};
use schema::ledger::{LedgerKind, Transfer};
use schema::money::Micros;
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;

mod check;

/// Most accounts in one snapshot.
const RANGE_MAX: i64 = 2_000;

/// How long a snapshot is to last: so many accounts are in it. While one is open, a server on SQLite cannot begin its
/// write-ahead log anew; its checkpointer waits a little longer than this.
const SNAPSHOT: Duration = Duration::from_millis(25);

/// Breaches told in full; more are only counted.
const TOLD: usize = 1_000;

/// What a breach breaks: the invariants of DESIGN §5, and what follows from them for stored figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// Available money is never negative.
    L1,
    /// Each transfer balances.
    L2,
    /// Each hold ends exactly once.
    L3,
    /// A key, and so a payment, credits once.
    L4,
    /// Each answered call has one CDR and one charge.
    C3,
    /// `total` is the sum of the account's transfers.
    Total,
    /// `receivable` is what left the account's receivable and did not come back.
    Receivable,
    /// `held` is the sum of the holds of live calls.
    Held,
    /// `balance_after` follows from row to row.
    Chain,
    /// Events follow without a gap.
    Events,
    /// A row whose owner does not exist, or whose number its owner never reached.
    Orphan,
    /// An amount below zero.
    Negative,
}

impl Invariant {
    /// Its name in ARCHITECTURE.md.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::L1 => "L1",
            Self::L2 => "L2",
            Self::L3 => "L3",
            Self::L4 => "L4",
            Self::C3 => "C3",
            Self::Total => "total",
            Self::Receivable => "receivable",
            Self::Held => "held",
            Self::Chain => "balance chain",
            Self::Events => "events",
            Self::Orphan => "orphan",
            Self::Negative => "negative amount",
        }
    }
}

/// One broken invariant, with its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// What is broken.
    pub invariant: Invariant,
    /// Of which account.
    pub account: AccountKey,
    /// Table, row and the figures that differ; nothing personal.
    pub what: String,
}

/// What an audit found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditReport {
    /// Accounts looked at.
    pub accounts: u64,
    /// Transfers read.
    pub transfers: u64,
    /// Holds summed.
    pub holds: u64,
    /// Live calls.
    pub live_calls: u64,
    /// CDRs read.
    pub cdrs: u64,
    /// Events counted.
    pub events: u64,
    /// How many breaches there are.
    pub breaches: u64,
    /// The first 1,000 of them.
    pub told: Vec<Breach>,
}

/// How far an audit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditProgress {
    /// Accounts done.
    pub done: u64,
    /// Of so many when it began.
    pub of: u64,
}

impl AuditReport {
    /// Whether every invariant holds.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.breaches == 0
    }

    fn tell(&mut self, invariant: Invariant, account: AccountKey, what: String) {
        self.breaches += 1;
        if self.told.len() < TOLD {
            self.told.push(Breach { invariant, account, what });
        }
    }
}

/// Counts, then one line for each breach.
impl fmt::Display for AuditReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} accounts, {} transfers, {} holds, {} live calls, {} CDRs, {} events: {} broken",
            self.accounts, self.transfers, self.holds, self.live_calls, self.cdrs, self.events, self.breaches
        )?;
        for Breach { invariant, account, what } in &self.told {
            write!(f, "\n{}: account {}: {what}", invariant.as_str(), account.0)?;
        }
        if self.breaches > self.told.len() as u64 {
            write!(f, "\nand {} more", self.breaches - self.told.len() as u64)?;
        }
        Ok(())
    }
}

/// Audits a store; `progress` is told after each range.
///
/// # Errors
/// The store cannot be read. What is wrong in it is in the report, not an error.
pub async fn audit(store: &Store, mut progress: impl FnMut(AuditProgress) + Send) -> Result<AuditReport, StoreError> {
    let mut report = AuditReport::default();
    match &store.backend {
        Backend::Memory(disk) => disk.read(|tables| audit_memory(tables, &mut report))?,
        Backend::Sql(sql) => audit_sql(sql, &mut report, &mut progress).await?,
    }
    progress(AuditProgress { done: report.accounts, of: report.accounts });
    Ok(report)
}

async fn audit_sql(
    sql: &SqlStore,
    report: &mut AuditReport,
    progress: &mut (impl FnMut(AuditProgress) + Send),
) -> Result<(), StoreError> {
    let count = sql.db.fetch_one("select count(*) from accounts", values![]).await?;
    let of = count.map(|mut row| row.int()).transpose()?.unwrap_or(0).unsigned_abs();
    let (mut above, mut range) = (i64::MIN, 16);
    loop {
        let begun = Instant::now();
        let mut tx = sql.db.snapshot().await?;
        let mut check = RangeCheck::new(report);
        let last = read_range(&mut tx, above, range, &mut check).await?;
        drop(tx);
        check.finish();
        let Some(last) = last else { return Ok(()) };
        above = last;
        let took = begun.elapsed();
        if took > SNAPSHOT {
            range = (range / 2).max(1);
        } else if took < SNAPSHOT / 2 {
            range = (range * 2).min(RANGE_MAX);
        }
        progress(AuditProgress { done: report.accounts, of });
    }
}

/// Reads the next accounts above a key with all their rows, from one snapshot. Returns where the next range begins; `None`
/// after the last, which reaches to the end so that rows of unknown accounts are seen.
async fn read_range(
    tx: &mut Tx,
    above: i64,
    range: i64,
    check: &mut RangeCheck<'_>,
) -> Result<Option<i64>, StoreError> {
    let text = "select key, seq, total, held, receivable, last_call from accounts where key > $1 order by key limit $2";
    let mut last = None;
    let accounts = tx.fetch(text, values![above, range]).await?;
    let more = i64::try_from(accounts.len()) == Ok(range);
    for mut row in accounts {
        let key = row.int()?;
        last = Some(key);
        check.account(AccountKey(key), read_figures(&mut row)?);
    }
    let last = last.filter(|_| more);
    let keys = || values![above, last.unwrap_or(i64::MAX)];
    let text = "select account_key, seq, position, kind, debit, credit, amount, call_no, loss, balance_after, \
                coalesce(cost_micros, 0), (cost_trunk is null) = (cost_micros is null) and \
                (cost_trunk is null) = (cost_currency is null) from transfers \
                where account_key > $1 and account_key <= $2 order by account_key, seq, position";
    tx.each(text, keys(), |mut row| {
        check.transfer(&read_transfer(&mut row)?);
        Ok(())
    })
    .await?;
    tx.each(CALLS, keys(), |mut row| {
        check.call(AccountKey(row.int()?), CallNo(row.int()?), read_call(&mut row)?);
        Ok(())
    })
    .await?;
    let text = "select account_key, min(seq), max(seq) from transfers where key is not null and account_key > $1 \
                and account_key <= $2 group by account_key, key having count(*) > 1 order by account_key";
    tx.each(text, keys(), |mut row| {
        check.key_used_twice(AccountKey(row.int()?), Seq(row.int()?), Seq(row.int()?));
        Ok(())
    })
    .await?;
    let text = "select account_key, min(seq), max(seq), count(*) from events where account_key > $1 and account_key <= $2 \
                group by account_key order by account_key";
    tx.each(text, keys(), |mut row| {
        check.events(AccountKey(row.int()?), Seq(row.int()?), Seq(row.int()?), row.int()?);
        Ok(())
    })
    .await?;
    Ok(last)
}

/// Everything about a call in one ordered stream: the holds' sum, number and least; the live row's held; the CDR's charge, its
/// state (1: answered, 2: refused, 0: neither), loss and carrier cost; the settling transfers' amount, loss and carrier cost;
/// the number of attempts.
const CALLS: &str = "\
    select account_key, call_no, cast(0 as bigint), cast(sum(amount) as bigint), count(*), min(amount), cast(0 as bigint) from holds \
        where account_key > $1 and account_key <= $2 group by account_key, call_no \
    union all select account_key, no, cast(1 as bigint), held, 0, 0, 0 from calls where account_key > $1 and account_key <= $2 \
    union all select account_key, no, cast(2 as bigint), charged, \
        case when state = 'REFUSED' then 2 when answered_at is null then 0 else 1 end, loss, coalesce(cost_micros, 0) from cdrs \
        where account_key > $1 and account_key <= $2 \
    union all select account_key, call_no, cast(3 as bigint), amount, 0, loss, coalesce(cost_micros, 0) from transfers \
        where kind = 'CALL_CHARGE' and call_no is not null and account_key > $1 and account_key <= $2 \
    union all select account_key, call_no, cast(4 as bigint), count(*), 0, 0, 0 from attempts \
        where account_key > $1 and account_key <= $2 group by account_key, call_no \
    order by 1, 2, 3";

fn read_figures(row: &mut Row) -> Result<AccountFigures, StoreError> {
    Ok(AccountFigures {
        seq: Seq(row.int()?),
        status: schema::account::AccountStatus::Active,
        total: Micros(row.int()?),
        held: Micros(row.int()?),
        receivable: Micros(row.int()?),
        last_call: CallNo(row.int()?),
    })
}

fn read_transfer(row: &mut Row) -> Result<TransferRow, StoreError> {
    Ok(TransferRow {
        account: AccountKey(row.int()?),
        seq: Seq(row.int()?),
        position: row.int()?,
        kind: row.text()?,
        debit: row.text()?,
        credit: row.text()?,
        amount: row.int()?,
        call: row.opt_int()?.map(CallNo),
        loss: row.int()?,
        balance_after: row.int()?,
        cost: row.int()?,
        cost_complete: row.bool()?,
    })
}

fn read_call(row: &mut Row) -> Result<CallRow, StoreError> {
    let (what, a, b, c, d) = (row.int()?, row.int()?, row.int()?, row.int()?, row.int()?);
    Ok(match what {
        0 => CallRow::Holds { sum: a, count: b, least: c },
        1 => CallRow::Live { held: a },
        2 => CallRow::Cdr { cost: Cost { charged: a, loss: c, carrier: d }, answered: b == 1, refused: b == 2 },
        3 => CallRow::Charge(Cost { charged: a, loss: c, carrier: d }),
        _ => CallRow::Attempts { count: a },
    })
}

fn audit_memory(tables: &Tables, report: &mut AuditReport) {
    let mut check = RangeCheck::new(report);
    for (&key, account) in &tables.accounts {
        check.account(key, account.figures);
        for posted in account.transfers.values() {
            check.transfer(&transfer_row(key, posted.cursor, &posted.transfer));
        }
        let mut rows = Vec::new();
        rows.extend(
            account.holds.values().map(|h| (h.call, CallRow::Holds { sum: h.amount.0, count: 1, least: h.amount.0 })),
        );
        rows.extend(account.calls.values().map(|c| (c.no, CallRow::Live { held: c.held.0 })));
        rows.extend(account.cdrs.values().map(|(_, cdr)| {
            let answered = cdr.call.answered_at.is_some();
            let refused = cdr.call.state == schema::call::CallState::Refused;
            let carrier = cdr.carrier_cost.map_or(0, |c| c.amount.0);
            (
                cdr.no,
                CallRow::Cdr { cost: Cost { charged: cdr.charged.0, loss: cdr.loss.0, carrier }, answered, refused },
            )
        }));
        let charges = account.transfers.values().filter(|p| p.transfer.kind == LedgerKind::CallCharge);
        rows.extend(charges.filter_map(|p| {
            let t = &p.transfer;
            let carrier = t.carrier_cost.map_or(0, |c| c.amount.0);
            Some((t.call?, CallRow::Charge(Cost { charged: t.amount.0, loss: t.loss.0, carrier })))
        }));
        rows.extend(account.attempts.values().map(|a| (a.call, CallRow::Attempts { count: 1 })));
        rows.sort_by_key(|(no, _)| *no);
        rows.into_iter().for_each(|(no, row)| check.call(key, no, row));
        if let (Some((first, _)), Some((last, _))) = (account.events.first_key_value(), account.events.last_key_value())
        {
            check.events(key, *first, *last, i64::try_from(account.events.len()).unwrap_or(i64::MAX));
        }
    }
    check.finish();
}

fn transfer_row(account: AccountKey, cursor: crate::ledger::LedgerCursor, transfer: &Transfer) -> TransferRow {
    TransferRow {
        account,
        seq: cursor.seq,
        position: i64::from(cursor.position),
        kind: transfer.kind.as_str().to_owned(),
        debit: transfer.debit.as_str().to_owned(),
        credit: transfer.credit.as_str().to_owned(),
        amount: transfer.amount.0,
        call: transfer.call,
        loss: transfer.loss.0,
        balance_after: transfer.balance_after.0,
        cost: transfer.carrier_cost.map_or(0, |c| c.amount.0),
        cost_complete: true,
    }
}
