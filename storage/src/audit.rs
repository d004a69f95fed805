//! `ringfence audit`: derives every stored figure again from the rows and names each broken invariant. It only reads, by ranges
//! of accounts, each range in one short snapshot, so it can run beside a server that writes. Memory is bounded by the range and by
//! calls that are live at once, not by an account's entries: what there is to sort lies in temporary files of the database. An account is
//! one range at least, so the snapshot of one with millions of calls takes its time.

use crate::error::StoreError;
use crate::ledger::LedgerCursor;
use crate::memory::{self, StoredEntry, Tables};
use crate::sql::{Row, SqlStore, Tx, values};
use crate::store::{Backend, Store};
use check::{Call, Cost, EntryRow, Moved, RangeCheck, Recorded, TransferRow};
use schema::account::{AccountFigures, AccountStatus};
use schema::id::{AccountKey, CallNo, Seq};
use schema::ledger::{CarrierCost, LedgerKind, Transfer};
use schema::money::Micros;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;

mod check;
#[cfg(test)]
mod tests;

/// Most accounts in one snapshot.
const RANGE_MAX: i64 = 2_000;

/// Most events in one snapshot, when those without an entry are looked for.
const EVENTS_MAX: i64 = 20_000;

/// How long a snapshot is to last: so many accounts are in it. While one is open, a server on SQLite cannot begin its
/// write-ahead log anew; its checkpointer waits a little longer than this.
const SNAPSHOT: Duration = Duration::from_millis(25);

/// Breaches told in full; more are only counted.
const TOLD: usize = 1_000;

/// What a breach breaks: the invariants of ARCHITECTURE.md, and what follows from them for stored figures.
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
    /// No call without a hold.
    C1,
    /// Each answered call has one CDR and one charge.
    C3,
    /// `total` follows from the entry before by the transfers of the entry.
    Total,
    /// `receivable` follows by what left the account's receivable and came back to it.
    Receivable,
    /// `held` follows by the holds that the entry places and the calls that it ends; it is the sum of the holds of live calls.
    Held,
    /// `balance_after` follows from transfer to transfer.
    Chain,
    /// An account's entries, and the events of those that keep them, follow without a gap.
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
            Self::C1 => "C1",
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
        let mut check = RangeCheck::new(report);
        let last = sql.db.in_snapshot(async |tx| read_range(tx, above, range, &mut check).await).await?;
        check.finish();
        let Some(last) = last else { return stray_events(sql, report).await };
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
    let text = "select key, events_from from accounts where key > $1 order by key limit $2";
    let mut last = None;
    let accounts = tx.fetch(text, values![above, range]).await?;
    let more = i64::try_from(accounts.len()) == Ok(range);
    for mut row in accounts {
        let key = row.int()?;
        last = Some(key);
        check.account(AccountKey(key), Seq(row.int()?));
    }
    let last = last.filter(|_| more);
    let keys = || values![above, last.unwrap_or(i64::MAX)];
    tx.each(ENTRIES, keys(), |mut row| {
        check.entry(read_entry(&mut row)?);
        Ok(())
    })
    .await?;
    tx.each(CALLS, keys(), |mut row| {
        check.call(AccountKey(row.int()?), CallNo(row.int()?), &read_call(&mut row)?);
        Ok(())
    })
    .await?;
    let text = "select account_key, min(seq), max(seq) from entries where key is not null and account_key > $1 \
                and account_key <= $2 group by account_key, key having count(*) > 1 order by account_key";
    tx.each(text, keys(), |mut row| {
        check.key_used_twice(AccountKey(row.int()?), Seq(row.int()?), Seq(row.int()?));
        Ok(())
    })
    .await?;
    Ok(last)
}

/// Looks for events whose entry does not exist, by ranges of their numbers.
async fn stray_events(sql: &SqlStore, report: &mut AuditReport) -> Result<(), StoreError> {
    let mut above = Some(0);
    while let Some(from) = above {
        above = sql.db.in_snapshot(async |tx| read_events(tx, from, report).await).await?;
    }
    Ok(())
}

/// Looks through the next events above a number. Returns where the next range begins; `None` after the last.
async fn read_events(tx: &mut Tx, above: i64, report: &mut AuditReport) -> Result<Option<i64>, StoreError> {
    let text = "select max(id) from (select id from events where id > $1 order by id limit $2) as part";
    let last = tx.fetch_one(text, values![above, EVENTS_MAX]).await?;
    let Some(last) = last.map(|mut row| row.opt_int()).transpose()?.flatten() else { return Ok(None) };
    let text = "select id from events where id > $1 and id <= $2 and not exists \
                (select 1 from entries where entries.id = events.id and entries.id > $1 and entries.id <= $2) \
                order by id";
    tx.each(text, values![above, last], |mut row| {
        let what = format!("events ({}): no such entry", row.int()?);
        report.tell(Invariant::Orphan, AccountKey(0), what);
        Ok(())
    })
    .await?;
    Ok(Some(last))
}

/// An account's entries in order, each row with whether it has events.
const ENTRIES: &str = "\
    select account_key, seq, position, status, total, held, receivable, last_call, event_count, events.id is not null, call_no, amount, leg, step, \
        kind, debit, credit, coalesce(loss, 0), balance_after, coalesce(cost_micros, 0), \
        (cost_trunk is null) = (cost_micros is null) and (cost_trunk is null) = (cost_currency is null) \
        from entries left join events on events.id = entries.id \
        where account_key > $1 and account_key <= $2 order by account_key, seq, position";

/// Each call in one row: the number and sum of its holds; the live row's held and step; the CDR's state (1: answered, 2: refused, 0: neither),
/// charge, loss and carrier cost; the number of charges, and one's amount, loss and carrier cost; the number of attempts; to how many
/// carriers and in how many currencies that cost is owed.
const CALLS: &str = "\
    select account_key, no, count(hold), cast(coalesce(sum(hold), 0) as bigint), max(live), max(live_step), max(state), coalesce(max(charged), 0), \
        coalesce(max(lost), 0), coalesce(max(cost), 0), count(charge), coalesce(max(charge), 0), coalesce(max(charge_lost), 0), \
        coalesce(max(charge_cost), 0), cast(coalesce(sum(attempts), 0) as bigint), \
        count(distinct owed_to), count(distinct owed_in) from (\
    select account_key, call_no as no, case when leg is not null then amount end as hold, cast(null as bigint) as live, cast(null as bigint) as live_step, \
        cast(null as bigint) as state, cast(null as bigint) as charged, cast(null as bigint) as lost, cast(null as bigint) as cost, \
        case when leg is null then amount end as charge, loss as charge_lost, cost_micros as charge_cost, \
        cast(null as bigint) as attempts, cost_trunk as owed_to, cost_currency as owed_in from entries \
        where (leg is not null or kind = 'CALL_CHARGE') and call_no is not null and account_key > $1 and account_key <= $2 \
    union all select account_key, no, null, held, hold_step, null, null, null, null, null, null, null, null, null, null from calls \
        where account_key > $1 and account_key <= $2 \
    union all select account_key, no, null, null, null, case when state = 'REFUSED' then 2 when answered_at is null then 0 else 1 end, \
        charged, loss, coalesce(cost_micros, 0), null, null, null, null, cost_trunk, cost_currency from cdrs where account_key > $1 and account_key <= $2 \
    union all select account_key, call_no, null, null, null, null, null, null, null, null, null, null, 1, null, null from attempts \
        where account_key > $1 and account_key <= $2) as rows_of group by account_key, no order by account_key, no";

fn read_entry(row: &mut Row) -> Result<EntryRow, StoreError> {
    let (account, seq, position) = (AccountKey(row.int()?), Seq(row.int()?), row.int()?);
    let status = AccountStatus::parse(&row.text()?);
    let figures = AccountFigures {
        seq,
        status: status.unwrap_or(AccountStatus::Active),
        total: Micros(row.int()?),
        held: Micros(row.int()?),
        receivable: Micros(row.int()?),
        last_call: CallNo(row.int()?),
    };
    let (event_count, kept) = (row.int()?, row.bool()?);
    let (call, amount) = (row.opt_int()?.map(CallNo), row.opt_int()?);
    let hold = row.opt_int()?.zip(row.opt_int()?);
    let kind = row.opt_text()?;
    let moved = match (hold, kind, call) {
        (Some((leg, step)), _, Some(call)) => Moved::Hold { call, leg, step, amount: amount.unwrap_or_default() },
        (_, Some(kind), _) => Moved::Transfer(TransferRow {
            kind,
            debit: row.opt_text()?.unwrap_or_default(),
            credit: row.opt_text()?.unwrap_or_default(),
            amount: amount.unwrap_or_default(),
            call,
            loss: row.int()?,
            balance_after: row.opt_int()?.unwrap_or(figures.total.0),
            cost: row.int()?,
            cost_complete: row.bool()?,
        }),
        (_, None, Some(call)) => Moved::End(call),
        (_, None, None) => Moved::Nothing,
    };
    Ok(EntryRow { account, position, figures, unknown_status: status.is_none(), event_count, kept, moved })
}

fn read_call(row: &mut Row) -> Result<Call, StoreError> {
    let (holds, held, live) = (row.int()?, i128::from(row.int()?), row.opt_int()?.zip(row.opt_int()?));
    let state = row.opt_int()?;
    let recorded = Cost { charged: row.int()?, loss: row.int()?, carrier: row.int()? };
    let cdr = state.map(|state| Recorded { cost: recorded, answered: state == 1, refused: state == 2 });
    let charges = row.int()?;
    let charge = Cost { charged: row.int()?, loss: row.int()?, carrier: row.int()? };
    let attempts = row.int()?;
    Ok(Call { holds, held, live, cdr, charge, charges, attempts, owed_apart: row.int()? > 1 || row.int()? > 1 })
}

fn audit_memory(tables: &Tables, report: &mut AuditReport) {
    let mut check = RangeCheck::new(report);
    for (&key, account) in &tables.accounts {
        let first = account.events.first_key_value().map_or(account.figures.seq.next(), |(seq, _)| *seq);
        check.account(key, first);
        for (&seq, StoredEntry { figures, rows, event_count }) in &account.entries {
            let event_count = i64::try_from(*event_count).unwrap_or(i64::MAX);
            let here = account.events.get(&seq).is_some_and(|row| !row.bodies.is_empty());
            let row = |position, moved| {
                let kept = position == 0 && here;
                EntryRow { account: key, position, figures: *figures, unknown_status: false, event_count, kept, moved }
            };
            if rows.is_empty() {
                check.entry(row(0, Moved::Nothing));
            }
            for (position, moved) in (0_u16..).zip(rows) {
                let moved = match moved {
                    memory::EntryRow::Hold(h) => Moved::hold(h),
                    memory::EntryRow::Ended(call) => Moved::End(*call),
                    memory::EntryRow::Transfer => match account.transfers.get(&LedgerCursor { seq, position }) {
                        Some(posted) => Moved::Transfer(transfer_row(&posted.transfer)),
                        None => Moved::Nothing,
                    },
                };
                check.entry(row(i64::from(position), moved));
            }
        }
        for (no, call) in calls(account) {
            check.call(key, no, &call);
        }
    }
    check.finish();
}

/// The calls of an account, each with all that is said of it.
fn calls(account: &memory::Account) -> BTreeMap<CallNo, Call> {
    let mut calls: BTreeMap<CallNo, Call> = BTreeMap::new();
    for hold in account.holds.values() {
        let call = calls.entry(hold.call).or_default();
        call.holds += 1;
        call.held += i128::from(hold.amount.0);
    }
    for live in account.calls.values() {
        calls.entry(live.no).or_default().live = Some((live.held.0, i64::from(live.hold_step)));
    }
    for (_, cdr) in account.cdrs.values() {
        let carrier = cdr.carrier_cost.map_or(0, |c| c.amount.0);
        calls.entry(cdr.no).or_default().cdr = Some(Recorded {
            cost: Cost { charged: cdr.charged.0, loss: cdr.loss.0, carrier },
            answered: cdr.call.answered_at.is_some(),
            refused: cdr.call.state == schema::call::CallState::Refused,
        });
    }
    for posted in account.transfers.values().filter(|p| p.transfer.kind == LedgerKind::CallCharge) {
        let t = &posted.transfer;
        let Some(no) = t.call else { continue };
        let call = calls.entry(no).or_default();
        call.charges += 1;
        call.charge = Cost { charged: t.amount.0, loss: t.loss.0, carrier: t.carrier_cost.map_or(0, |c| c.amount.0) };
        let owed = |cost: Option<CarrierCost>| cost.map(|cost| (cost.trunk, cost.currency));
        let recorded = account.cdrs.get(&no).and_then(|(_, cdr)| owed(cdr.carrier_cost));
        call.owed_apart |= recorded.zip(owed(t.carrier_cost)).is_some_and(|(one, other)| one != other);
    }
    for attempt in account.attempts.values() {
        calls.entry(attempt.call).or_default().attempts += 1;
    }
    calls
}

fn transfer_row(transfer: &Transfer) -> TransferRow {
    TransferRow {
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
