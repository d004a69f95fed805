//! The rules of the audit: rows come in, in order, and breaches go out. No database here.

use super::{AuditReport, Invariant};
use schema::account::AccountFigures;
use schema::id::{AccountKey, CallNo, Seq};
use schema::ledger::{LedgerAccount, LedgerKind};
use std::collections::BTreeMap;
use std::fmt;

/// One transfer.
pub(super) struct TransferRow {
    pub(super) account: AccountKey,
    pub(super) seq: Seq,
    pub(super) position: i64,
    pub(super) kind: String,
    pub(super) debit: String,
    pub(super) credit: String,
    pub(super) amount: i64,
    pub(super) call: Option<CallNo>,
    pub(super) loss: i64,
    pub(super) balance_after: i64,
    pub(super) cost: i64,
    pub(super) cost_complete: bool,
}

/// Something about a call.
pub(super) enum CallRow {
    Holds { sum: i64, count: i64, least: i64 },
    Live { held: i64 },
    Cdr { cost: Cost, answered: bool, refused: bool },
    Charge(Cost),
    Attempts { count: i64 },
}

/// What a call cost, as its CDR or its settling transfer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) charged: i64,
    pub(super) loss: i64,
    pub(super) carrier: i64,
}

/// Checks the accounts of one range. First each account, then rows in the order of their keys.
pub(super) struct RangeCheck<'a> {
    report: &'a mut AuditReport,
    accounts: BTreeMap<AccountKey, Derived>,
    call: Option<(AccountKey, CallNo, Call)>,
}

/// An account's stored figures and what its rows give.
struct Derived {
    figures: AccountFigures,
    total: i128,
    receivable: i128,
    held: i128,
    /// What the next transfer's `balance_after` starts from.
    chain: i128,
}

/// What is known of one call.
#[derive(Default)]
struct Call {
    holds: i64,
    held: i128,
    live: Option<i64>,
    /// Its costs, whether it was answered and whether refused.
    cdr: Option<(Cost, bool, bool)>,
    /// The first charge, and how many there are.
    charge: Option<Cost>,
    charges: u64,
    attempts: i64,
}

impl<'a> RangeCheck<'a> {
    pub(super) const fn new(report: &'a mut AuditReport) -> Self {
        Self { report, accounts: BTreeMap::new(), call: None }
    }

    pub(super) fn account(&mut self, key: AccountKey, figures: AccountFigures) {
        self.report.accounts += 1;
        self.accounts.insert(key, Derived { figures, total: 0, receivable: 0, held: 0, chain: 0 });
        let f = figures;
        if f.total.0 < f.held.0 {
            self.report.tell(Invariant::L1, key, format!("total {} is below held {}", f.total, f.held));
        }
        if f.held.is_negative() || f.receivable.is_negative() || f.seq.0 < 0 || f.last_call.0 < 0 {
            self.report.tell(
                Invariant::Negative,
                key,
                format!("accounts: held {}, receivable {}", f.held, f.receivable),
            );
        }
    }

    pub(super) fn transfer(&mut self, row: &TransferRow) {
        self.report.transfers += 1;
        let key = row.account;
        let place = format!("transfers ({}, {}, {})", key.0, row.seq.0, row.position);
        let ends = (LedgerAccount::parse(&row.debit), LedgerAccount::parse(&row.credit));
        let balanced = matches!(ends, (Some(debit), Some(credit)) if debit != credit) && row.cost_complete;
        if !balanced || LedgerKind::parse(&row.kind).is_none() {
            let what = format!("{place}: {} from {} to {}, or half a carrier cost", row.kind, row.debit, row.credit);
            self.report.tell(Invariant::L2, key, what);
        }
        if row.amount < 0 || row.loss < 0 || row.cost < 0 {
            let what = format!("{place}: amount {}, loss {}, cost {}", row.amount, row.loss, row.cost);
            self.report.tell(Invariant::Negative, key, what);
        }
        if row.kind == LedgerKind::CallCharge.as_str() && row.call.is_none() {
            self.report.tell(Invariant::C3, key, format!("{place}: a charge without a call"));
        }
        let Some(account) = self.accounts.get_mut(&key) else {
            return self.report.tell(Invariant::Orphan, key, format!("{place}: no such account"));
        };
        let delta = match ends {
            (Some(LedgerAccount::Customer), _) => -i128::from(row.amount),
            (_, Some(LedgerAccount::Customer)) => i128::from(row.amount),
            _ => 0,
        };
        let owed = match ends {
            (Some(LedgerAccount::Receivable), _) => i128::from(row.amount),
            (_, Some(LedgerAccount::Receivable)) => -i128::from(row.amount),
            _ => 0,
        };
        account.total += delta;
        account.receivable += owed;
        account.chain += delta;
        if account.chain != i128::from(row.balance_after) {
            let what = format!("{place}: balance_after {}, the row before gives {}", row.balance_after, account.chain);
            self.report.tell(Invariant::Chain, key, what);
            // Each break is told once: the chain goes on from here.
            account.chain = i128::from(row.balance_after);
        }
        if row.seq > account.figures.seq {
            self.report.tell(
                Invariant::Orphan,
                key,
                format!("{place}: the account is at entry {}", account.figures.seq.0),
            );
        }
    }

    pub(super) fn key_used_twice(&mut self, key: AccountKey, first: Seq, last: Seq) {
        let what = format!("transfers: one idempotency key in entries {} and {}", first.0, last.0);
        self.report.tell(Invariant::L4, key, what);
    }

    pub(super) fn events(&mut self, key: AccountKey, first: Seq, last: Seq, count: i64) {
        self.report.events += count.unsigned_abs();
        let Some(account) = self.accounts.get(&key) else {
            return self.report.tell(Invariant::Orphan, key, format!("events from {}: no such account", first.0));
        };
        let stored = account.figures.seq;
        if last != stored || last.0 - first.0 + 1 != count {
            let what = format!("events {} to {}: {count} rows, the account is at entry {}", first.0, last.0, stored.0);
            self.report.tell(Invariant::Events, key, what);
        }
    }

    pub(super) fn call(&mut self, key: AccountKey, no: CallNo, row: CallRow) {
        if self.call.as_ref().is_none_or(|(k, n, _)| (*k, *n) != (key, no)) {
            self.end_call();
            self.call = Some((key, no, Call::default()));
        }
        let Some((_, _, call)) = &mut self.call else { return };
        match row {
            CallRow::Holds { sum, count, least } => {
                self.report.holds += count.unsigned_abs();
                call.holds += count;
                call.held += i128::from(sum);
                if least < 0 {
                    self.report.tell(Invariant::Negative, key, format!("holds ({}, {}): {least}", key.0, no.0));
                }
            }
            CallRow::Live { held } => {
                self.report.live_calls += 1;
                call.live = Some(held);
            }
            CallRow::Cdr { cost, answered, refused } => {
                self.report.cdrs += 1;
                call.cdr = Some((cost, answered, refused));
                if cost.charged < 0 || cost.loss < 0 || cost.carrier < 0 {
                    self.report.tell(Invariant::Negative, key, format!("cdrs ({}, {}): {cost}", key.0, no.0));
                }
            }
            CallRow::Charge(cost) => {
                call.charge = call.charge.or(Some(cost));
                call.charges += 1;
            }
            CallRow::Attempts { count } => call.attempts += count,
        }
    }

    fn end_call(&mut self) {
        let Some((key, no, call)) = self.call.take() else { return };
        for (invariant, what) in call.breaches() {
            self.report.tell(invariant, key, format!("call ({}, {}): {what}", key.0, no.0));
        }
        let Some(account) = self.accounts.get_mut(&key) else {
            return self.report.tell(Invariant::Orphan, key, format!("call ({}, {}): no such account", key.0, no.0));
        };
        if no > account.figures.last_call {
            let what =
                format!("call ({}, {}): the account's last call is {}", key.0, no.0, account.figures.last_call.0);
            self.report.tell(Invariant::Orphan, key, what);
        }
        if call.live.is_some() {
            account.held += call.held;
        }
    }

    /// After the last row of the range.
    pub(super) fn finish(mut self) {
        self.end_call();
        for (key, account) in &self.accounts {
            let f = &account.figures;
            if account.total != i128::from(f.total.0) {
                let what = format!("accounts: total {}, the transfers give {} micro-units", f.total.0, account.total);
                self.report.tell(Invariant::Total, *key, what);
            }
            if account.receivable != i128::from(f.receivable.0) {
                let what = format!(
                    "accounts: receivable {}, the transfers give {} micro-units",
                    f.receivable.0, account.receivable
                );
                self.report.tell(Invariant::Receivable, *key, what);
            }
            if account.held != i128::from(f.held.0) {
                let what =
                    format!("accounts: held {}, the live calls' holds give {} micro-units", f.held.0, account.held);
                self.report.tell(Invariant::Held, *key, what);
            }
        }
    }
}

impl Call {
    fn breaches(&self) -> Vec<(Invariant, String)> {
        let mut found = Vec::new();
        match (self.live, self.cdr) {
            (Some(_), Some(_)) => found.push((Invariant::L3, "live and ended at once".to_owned())),
            (None, None) if self.holds > 0 => {
                found.push((Invariant::L3, format!("{} holds, and neither live nor ended", self.holds)));
            }
            (None, None) if self.attempts > 0 => {
                found.push((Invariant::Orphan, format!("{} attempts, and neither live nor ended", self.attempts)));
            }
            (None, Some((_, _, true))) if self.holds > 0 => {
                found.push((Invariant::L3, format!("{} holds of a call that was refused", self.holds)));
            }
            _ => {}
        }
        if let Some(held) = self.live
            && self.held != i128::from(held)
        {
            found.push((Invariant::Held, format!("its row says {held} held, its holds give {}", self.held)));
        }
        found.extend(self.charge_breach().map(|what| (Invariant::C3, what)));
        found
    }

    /// An answered call is charged once, what its CDR says; one that was not answered at most once.
    fn charge_breach(&self) -> Option<String> {
        let Some((cost, answered, _)) = self.cdr else {
            return (self.charges > 0).then(|| format!("{} charges without a CDR", self.charges));
        };
        match (self.charge, self.charges) {
            (None, _) if answered || cost.charged != 0 || cost.loss != 0 || cost.carrier != 0 => {
                Some(format!("its CDR says {cost}, no transfer does"))
            }
            (Some(charge), 1) if charge != cost => Some(format!("its CDR says {cost}, its transfer {charge}")),
            (_, 0 | 1) => None,
            (_, many) => Some(format!("{many} charges")),
        }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} charged, {} lost, {} to the carrier", self.charged, self.loss, self.carrier)
    }
}
