//! The rules of the audit: rows come in, in order, and breaches go out. No database here.

use super::{AuditReport, Invariant};
use crate::journal::encode::leg_number;
use chain::Chain;
use schema::account::AccountFigures;
use schema::id::{AccountKey, CallNo, Seq};
use schema::ledger::Hold;
use std::collections::BTreeMap;
use std::fmt;

mod chain;

/// One row of a journal entry.
pub(super) struct EntryRow {
    pub(super) account: AccountKey,
    pub(super) position: i64,
    /// After the entry.
    pub(super) figures: AccountFigures,
    /// What is written as its status is no status.
    pub(super) unknown_status: bool,
    /// Events that it told of.
    pub(super) event_count: i64,
    /// Whether they are here.
    pub(super) kept: bool,
    pub(super) moved: Moved,
}

/// What a row moves.
pub(super) enum Moved {
    Hold {
        call: CallNo,
        leg: i64,
        step: i64,
        amount: i64,
    },
    Transfer(TransferRow),
    /// A call ended without a charge.
    End(CallNo),
    Nothing,
}

impl Moved {
    pub(super) const fn hold(hold: &Hold) -> Self {
        Self::Hold { call: hold.call, leg: leg_number(hold.leg), step: hold.step as i64, amount: hold.amount.0 }
    }
}

/// A transfer.
pub(super) struct TransferRow {
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

/// What a call cost, as its CDR or its settling transfer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Cost {
    pub(super) charged: i64,
    pub(super) loss: i64,
    pub(super) carrier: i64,
}

/// Checks the accounts of one range. First each account, then rows in the order of their keys.
pub(super) struct RangeCheck<'a> {
    report: &'a mut AuditReport,
    accounts: BTreeMap<AccountKey, Known>,
    chain: Option<Chain>,
}

/// What is known of an account when its entries were read.
struct Known {
    /// The first entry whose events are kept.
    events_from: Seq,
    /// After its newest entry.
    figures: Option<AccountFigures>,
    /// By the holds of its live calls.
    held: i128,
    /// The number of the next call: each is live or in the history.
    next_call: CallNo,
}

/// What is known of one call.
#[derive(Default)]
pub(super) struct Call {
    pub(super) holds: i64,
    pub(super) held: i128,
    /// What its live row says is held, and the step of the newest hold.
    pub(super) live: Option<(i64, i64)>,
    pub(super) cdr: Option<Recorded>,
    /// What one of its charges says, and how many there are.
    pub(super) charge: Cost,
    pub(super) charges: i64,
    pub(super) attempts: i64,
    /// Its CDR and its charge name different carriers or currencies for what it costs us.
    pub(super) owed_apart: bool,
}

/// What a call's CDR says.
pub(super) struct Recorded {
    pub(super) cost: Cost,
    pub(super) answered: bool,
    pub(super) refused: bool,
}

impl<'a> RangeCheck<'a> {
    pub(super) const fn new(report: &'a mut AuditReport) -> Self {
        Self { report, accounts: BTreeMap::new(), chain: None }
    }

    pub(super) fn account(&mut self, key: AccountKey, events_from: Seq) {
        self.report.accounts += 1;
        self.accounts.insert(key, Known { events_from, figures: None, held: 0, next_call: CallNo(1) });
    }

    pub(super) fn entry(&mut self, row: EntryRow) {
        let key = row.account;
        if self.chain.as_ref().is_none_or(|chain| chain.account != key) {
            self.end_chain();
            self.chain = Some(Chain::new(key));
        }
        let events_from = self.accounts.get(&key).map(|account| account.events_from);
        if events_from.is_none() {
            let what = format!("entries ({}, {}, {}): no such account", key.0, row.figures.seq.0, row.position);
            self.report.tell(Invariant::Orphan, key, what);
        }
        if let Some(chain) = &mut self.chain {
            chain.add(row, events_from, self.report);
        }
    }

    /// What is kept of the rows so far: accounts, and steps of calls that have not ended.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.accounts.len() + self.chain.as_ref().map_or(0, Chain::held)
    }

    fn end_chain(&mut self) {
        let Some(mut chain) = self.chain.take() else { return };
        chain.end_entry(self.report);
        if let Some(account) = self.accounts.get_mut(&chain.account) {
            account.figures = chain.figures();
        }
    }

    pub(super) fn key_used_twice(&mut self, key: AccountKey, first: Seq, last: Seq) {
        let what = format!("entries: one idempotency key in entries {} and {}", first.0, last.0);
        self.report.tell(Invariant::L4, key, what);
    }

    /// After the entries.
    pub(super) fn call(&mut self, key: AccountKey, no: CallNo, call: &Call) {
        self.end_chain();
        self.report.live_calls += u64::from(call.live.is_some());
        self.report.cdrs += u64::from(call.cdr.is_some());
        for (invariant, what) in call.breaches() {
            self.report.tell(invariant, key, format!("call ({}, {}): {what}", key.0, no.0));
        }
        let Some(account) = self.accounts.get_mut(&key) else {
            return self.report.tell(Invariant::Orphan, key, format!("call ({}, {}): no such account", key.0, no.0));
        };
        let last = account.figures.map_or(CallNo(0), |figures| figures.last_call);
        if no > last {
            let what = format!("call ({}, {}): the account's last call is {}", key.0, no.0, last.0);
            self.report.tell(Invariant::Orphan, key, what);
        }
        if call.live.is_some() {
            account.held += call.held;
        }
        if call.live.is_some() || call.cdr.is_some() {
            let missing = account.next_call;
            account.next_call = CallNo(no.0 + 1);
            if missing < no {
                self.report.tell(Invariant::C3, key, missing_calls(key, missing, no));
            }
        }
    }

    /// After the last row of the range.
    pub(super) fn finish(mut self) {
        self.end_chain();
        for (key, account) in &self.accounts {
            let Some(figures) = account.figures else {
                self.report.tell(Invariant::Events, *key, "entries: none".to_owned());
                continue;
            };
            if account.next_call <= figures.last_call {
                let after = CallNo(figures.last_call.0 + 1);
                self.report.tell(Invariant::C3, *key, missing_calls(*key, account.next_call, after));
            }
            if account.held != i128::from(figures.held.0) {
                let (held, given) = (figures.held, account.held);
                let what = format!(
                    "held {held} after entry {}, the live calls' holds give {given} micro-units",
                    figures.seq.0
                );
                self.report.tell(Invariant::Held, *key, what);
            }
        }
    }
}

/// Calls from one number up to, not with, another.
fn missing_calls(key: AccountKey, from: CallNo, to: CallNo) -> String {
    format!("calls ({}, {}) to ({}, {}): neither live nor ended", key.0, from.0, key.0, to.0 - 1)
}

impl Call {
    fn breaches(&self) -> Vec<(Invariant, String)> {
        let mut found = Vec::new();
        if let Some(cost) = self.cdr.as_ref().map(|cdr| cdr.cost)
            && (cost.charged < 0 || cost.loss < 0 || cost.carrier < 0)
        {
            found.push((Invariant::Negative, format!("its CDR says {cost}")));
        }
        match (self.live, &self.cdr) {
            (Some(_), Some(_)) => found.push((Invariant::L3, "live and ended at once".to_owned())),
            (None, None) if self.holds > 0 => {
                found.push((Invariant::L3, format!("{} holds, and neither live nor ended", self.holds)));
            }
            (None, None) if self.attempts > 0 => {
                found.push((Invariant::Orphan, format!("{} attempts, and neither live nor ended", self.attempts)));
            }
            (None, Some(cdr)) if cdr.refused && self.holds > 0 => {
                found.push((Invariant::L3, format!("{} holds of a call that was refused", self.holds)));
            }
            (None, Some(cdr)) if !cdr.refused && self.holds == 0 => {
                found.push((Invariant::C1, "it ended, and nothing was ever held for it".to_owned()));
            }
            _ => {}
        }
        if let Some((held, step)) = self.live {
            if self.held != i128::from(held) {
                found.push((Invariant::Held, format!("its row says {held} held, its holds give {}", self.held)));
            }
            if self.holds != step + 1 {
                found.push((
                    Invariant::L3,
                    format!("its row says its newest hold is step {step}, it has {}", self.holds),
                ));
            }
        }
        if self.owed_apart {
            found.push((Invariant::C3, "its CDR and its transfer owe its cost to different carriers".to_owned()));
        }
        found.extend(self.charge_breach().map(|what| (Invariant::C3, what)));
        found
    }

    /// An answered call is charged once, what its CDR says. One that was not answered costs the customer nothing; the carrier may
    /// charge us for an answer that came too late. One that was refused costs nobody anything.
    fn charge_breach(&self) -> Option<String> {
        let Some(Recorded { cost, answered, refused }) = self.cdr else {
            return (self.charges > 0).then(|| format!("{} charges without a CDR", self.charges));
        };
        if refused && (self.charges > 0 || cost != Cost::default()) {
            return Some(format!("it was refused, its CDR says {cost}, with {} transfers", self.charges));
        }
        if !answered && (cost.charged != 0 || cost.loss != 0) {
            return Some(format!("it was not answered, its CDR says {cost}"));
        }
        match self.charges {
            0 if answered || cost != Cost::default() => Some(format!("its CDR says {cost}, no transfer does")),
            1 if self.charge != cost => Some(format!("its CDR says {cost}, its transfer {}", self.charge)),
            0 | 1 => None,
            many => Some(format!("{many} charges")),
        }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} charged, {} lost, {} to the carrier", self.charged, self.loss, self.carrier)
    }
}
