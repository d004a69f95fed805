//! An account's entries, one after the other: the figures after each follow from those before by what it moves.

use super::{AuditReport, EntryRow, Invariant, Moved, TransferRow};
use schema::account::AccountFigures;
use schema::id::{AccountKey, CallNo, Seq};
use schema::ledger::{LedgerAccount, LedgerKind};
use std::collections::{BTreeMap, BTreeSet};

/// How far an account's entries were read.
pub(super) struct Chain {
    pub(super) account: AccountKey,
    /// After the entry before; `None` before the first.
    before: Option<AccountFigures>,
    /// The entry whose rows are being read.
    entry: Option<Reading>,
    /// The holds of calls that have not ended: as many as were ever live at once.
    open: BTreeMap<CallNo, Open>,
}

/// The holds of a call.
#[derive(Default)]
struct Open {
    sum: i128,
    steps: BTreeSet<(i64, i64)>,
}

/// An entry, and what its rows give so far, from the figures before.
struct Reading {
    figures: AccountFigures,
    next_position: i64,
    total: i128,
    held: i128,
    receivable: i128,
}

/// Whether money is moved from the first to the second of these ledger accounts for this.
const fn is_posted(kind: LedgerKind, ends: (LedgerAccount, LedgerAccount)) -> bool {
    use LedgerAccount::{Customer, PaymentClearing, Promotion, Receivable, Revenue};
    match kind {
        LedgerKind::TopUp => matches!(ends, (PaymentClearing, Customer | Receivable)),
        LedgerKind::Chargeback => matches!(ends, (Customer | Receivable, PaymentClearing)),
        LedgerKind::CallCharge => matches!(ends, (Customer, Revenue)),
        LedgerKind::Adjustment => matches!(ends, (Customer, Revenue) | (Revenue, Customer)),
        LedgerKind::Refund => matches!(ends, (Revenue, Customer)),
        LedgerKind::Promotion => matches!(ends, (Promotion, Customer)),
        // Nothing posts one.
        LedgerKind::Subscription => false,
    }
}

impl Chain {
    pub(super) const fn new(account: AccountKey) -> Self {
        Self { account, before: None, entry: None, open: BTreeMap::new() }
    }

    /// After the newest entry.
    pub(super) const fn figures(&self) -> Option<AccountFigures> {
        self.before
    }

    /// Steps of calls that have not ended.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.open.values().map(|call| call.steps.len()).sum()
    }

    /// Takes the next row. `events_from`: the first entry whose events are kept; `None` when there is no such account.
    pub(super) fn add(&mut self, row: EntryRow, events_from: Option<Seq>, report: &mut AuditReport) {
        let seq = row.figures.seq;
        if self.entry.as_ref().is_none_or(|entry| entry.figures.seq != seq) {
            self.end_entry(report);
            self.begin_entry(&row, report);
        }
        let place = format!("entries ({}, {}, {})", self.account.0, seq.0, row.position);
        let Some(entry) = &mut self.entry else { return };
        if row.unknown_status {
            report.tell(Invariant::Events, self.account, format!("{place}: its status is none"));
        }
        if row.position != entry.next_position || row.figures != entry.figures {
            let what = format!("{place}: row {} is missing, or its figures differ", entry.next_position);
            report.tell(Invariant::Events, self.account, what);
        }
        entry.next_position = row.position + 1;
        if let Some(from) = events_from {
            let wanted = row.event_count > 0 && row.position == 0 && seq >= from;
            report.events += u64::from(row.kept);
            if row.kept != wanted {
                let what = format!(
                    "{place}: told of {} events, kept from entry {}, here: {}",
                    row.event_count, from.0, row.kept
                );
                report.tell(Invariant::Events, self.account, what);
            }
        }
        match row.moved {
            Moved::Hold { call, leg, step, amount } => self.hold(call, (leg, step), amount, &place, report),
            Moved::Transfer(transfer) => self.transfer(&transfer, &place, report),
            Moved::End(call) => self.end_call(call),
            Moved::Nothing => {}
        }
    }

    fn begin_entry(&mut self, row: &EntryRow, report: &mut AuditReport) {
        let (key, f) = (self.account, row.figures);
        let place = format!("entries ({}, {})", key.0, f.seq.0);
        if f.total.0 < f.held.0 {
            report.tell(Invariant::L1, key, format!("{place}: total {} is below held {}", f.total, f.held));
        }
        if f.held.is_negative() || f.receivable.is_negative() || f.last_call.0 < 0 {
            report.tell(Invariant::Negative, key, format!("{place}: held {}, receivable {}", f.held, f.receivable));
        }
        let expected = self.before.map_or(Seq(0), |before| before.seq.next());
        if f.seq != expected {
            report.tell(Invariant::Events, key, format!("{place}: entry {} is missing", expected.0));
        }
        if let Some(before) = self.before.filter(|before| f.last_call < before.last_call) {
            let what = format!("{place}: the last call is {}, it was {} before", f.last_call.0, before.last_call.0);
            report.tell(Invariant::Orphan, key, what);
        }
        let of =
            |figure: fn(&AccountFigures) -> i64| self.before.as_ref().map_or(0, |before| i128::from(figure(before)));
        self.entry = Some(Reading {
            figures: f,
            next_position: 0,
            total: of(|f| f.total.0),
            held: of(|f| f.held.0),
            receivable: of(|f| f.receivable.0),
        });
    }

    /// After its last row: what they give is what it says.
    pub(super) fn end_entry(&mut self, report: &mut AuditReport) {
        let Some(entry) = self.entry.take() else { return };
        let (key, f) = (self.account, entry.figures);
        for (invariant, name, said, given) in [
            (Invariant::Total, "total", f.total, entry.total),
            (Invariant::Held, "held", f.held, entry.held),
            (Invariant::Receivable, "receivable", f.receivable, entry.receivable),
        ] {
            if i128::from(said.0) != given {
                let what =
                    format!("entries ({}, {}): {name} {said}, what it moves gives {given} micro-units", key.0, f.seq.0);
                report.tell(invariant, key, what);
            }
        }
        self.before = Some(f);
    }

    fn hold(&mut self, call: CallNo, step: (i64, i64), amount: i64, place: &str, report: &mut AuditReport) {
        report.holds += 1;
        let open = self.open.entry(call).or_default();
        open.sum += i128::from(amount);
        if !open.steps.insert(step) {
            report.tell(
                Invariant::L3,
                self.account,
                format!("{place}: call {} has a hold of that step already", call.0),
            );
        }
        if amount < 0 {
            report.tell(Invariant::Negative, self.account, format!("{place}: a hold of {amount}"));
        }
        if let Some(entry) = &mut self.entry {
            entry.held += i128::from(amount);
        }
    }

    /// All holds of a call end at once.
    fn end_call(&mut self, call: CallNo) {
        let ended = self.open.remove(&call).unwrap_or_default();
        if let Some(entry) = &mut self.entry {
            entry.held -= ended.sum;
        }
    }

    fn transfer(&mut self, row: &TransferRow, place: &str, report: &mut AuditReport) {
        report.transfers += 1;
        let key = self.account;
        let ends = (LedgerAccount::parse(&row.debit), LedgerAccount::parse(&row.credit));
        let balanced = matches!(ends, (Some(debit), Some(credit)) if debit != credit) && row.cost_complete;
        let kind = LedgerKind::parse(&row.kind);
        let is_charge = kind == Some(LedgerKind::CallCharge);
        let fits = kind.zip(ends.0.zip(ends.1)).is_some_and(|(kind, ends)| is_posted(kind, ends));
        // Only what settles a call has a second pair, or a part that could not be charged.
        if !balanced || !fits || (!is_charge && (row.cost != 0 || row.loss != 0)) {
            let what = format!(
                "{place}: {} from {} to {}, or a carrier cost that does not belong there",
                row.kind, row.debit, row.credit
            );
            report.tell(Invariant::L2, key, what);
        }
        if row.amount < 0 || row.loss < 0 || row.cost < 0 {
            let what = format!("{place}: amount {}, loss {}, cost {}", row.amount, row.loss, row.cost);
            report.tell(Invariant::Negative, key, what);
        }
        match (is_charge, row.call) {
            (true, Some(call)) => self.end_call(call),
            (true, None) => report.tell(Invariant::C3, key, format!("{place}: a charge without a call")),
            (false, Some(call)) => {
                let what = format!("{place}: {} names call {}, which it does not settle", row.kind, call.0);
                report.tell(Invariant::C3, key, what);
            }
            (false, None) => {}
        }
        let Some(entry) = &mut self.entry else { return };
        let amount = i128::from(row.amount);
        match ends {
            (Some(LedgerAccount::Customer), _) => entry.total -= amount,
            (_, Some(LedgerAccount::Customer)) => entry.total += amount,
            _ => {}
        }
        match ends {
            (Some(LedgerAccount::Receivable), _) => entry.receivable += amount,
            (_, Some(LedgerAccount::Receivable)) => entry.receivable -= amount,
            _ => {}
        }
        if entry.total != i128::from(row.balance_after) {
            let what =
                format!("{place}: balance_after {}, the transfers before give {}", row.balance_after, entry.total);
            report.tell(Invariant::Chain, key, what);
        }
    }
}
