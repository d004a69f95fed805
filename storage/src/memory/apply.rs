//! Writing one journal entry: checked against the rows first, so that it is written whole or not at all.

use super::tables::{Account, EntryRow, StoredEntry, Tables};
use crate::event::EventRow;
use crate::journal::{Movement, Rejected, begins, holds_of, movements, well_formed};
use crate::keyring::{Class, Subject};
use crate::ledger::{LedgerCursor, PostedTransfer};
use schema::account::CallerId;
use schema::call::{CallState, Cdr};
use schema::id::{AccountKey, CallNo};
use schema::journal::{Change, Entry, Outcome, Rejection};
use schema::wrong::{self, Wrong};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;

impl Tables {
    /// Writes a batch, as every store does (see [`crate::journal`]).
    pub(crate) fn apply_all(&mut self, entries: Vec<Entry>) -> Vec<Outcome> {
        let mut rejected = Rejected::default();
        let mut write = |entry: Entry| {
            let outcome: Result<_, Infallible> = rejected.attempt(entry.account, || Ok(self.apply(entry)));
            outcome.unwrap_or_else(|never| match never {})
        };
        entries.into_iter().map(&mut write).collect()
    }

    /// What [`Self::apply_all`] would give.
    pub(crate) fn outcomes(&self, entries: &[Entry]) -> Vec<Outcome> {
        match entries {
            [entry] => vec![self.check(entry)],
            entries => self.clone().apply_all(entries.to_vec()),
        }
    }

    /// Writes an entry.
    pub(crate) fn apply(&mut self, entry: Entry) -> Outcome {
        self.check(&entry)?;
        self.write(entry);
        Ok(())
    }

    fn check(&self, entry: &Entry) -> Outcome {
        let account = self.accounts.get(&entry.account).ok_or(Rejection::Fenced)?;
        taken_key(account, entry)?;
        if account.figures.seq.next() != entry.seq() {
            return Err(Rejection::Fenced);
        }
        // These versions forget what the stores would not let them forget.
        let unchecked = [Wrong::DoubleCapture, Wrong::CdrTwice].into_iter().any(wrong::chosen);
        if well_formed(entry).is_err() || !(unchecked || self.fits(account, entry)) {
            return Err(Rejection::Failed);
        }
        Ok(())
    }

    /// Whether the rows allow the entry.
    fn fits(&self, account: &Account, entry: &Entry) -> bool {
        if self.destroyed.contains(&(Subject::Account(entry.account), Class::Calls)) {
            return false;
        }
        if begins(entry) && account.figures.last_call.next() != entry.figures.last_call {
            return false;
        }
        let mut draft = Draft::default();
        entry.changes.iter().all(|change| match change {
            Change::CallStarted(call) => {
                !draft.is_live(account, call.no)
                    && !self.call_ids.contains_key(&call.call.id)
                    && draft.live.insert(call.no, true) != Some(false)
            }
            Change::CallUpdated(call) | Change::CallRenewed(call) => {
                let before = account.calls.get(&call.no).map(|stored| u64::from(stored.hold_step));
                draft.is_live(account, call.no)
                    && before.is_none_or(|step| step + holds_of(entry, call.no) == u64::from(call.hold_step))
            }
            Change::DialogsChanged(call, _) => draft.is_live(account, *call),
            Change::CallEnded(cdr) => {
                draft.is_live(account, cdr.no)
                    && draft.live.insert(cdr.no, false).is_none_or(|live| live)
                    && draft.records(account, cdr)
            }
            Change::CallRefused(cdr) => {
                !draft.is_live(account, cdr.no)
                    && !self.call_ids.contains_key(&cdr.call.id)
                    && draft.records(account, cdr)
            }
            Change::HoldPlaced(hold) => !account.holds.contains_key(&(hold.call, hold.leg, hold.step)),
            Change::AttemptEnded(attempt) => {
                let key = (attempt.call, attempt.number);
                !account.attempts.contains_key(&key) && draft.attempts.insert(key)
            }
            Change::Posted(transfer) => !self.transfer_ids.contains_key(&transfer.id),
            Change::CallerIdChanged(caller_id) => number_is_free(account, caller_id),
        })
    }

    /// Writes an entry that was checked.
    pub(crate) fn write(&mut self, entry: Entry) {
        let (key, seq, at) = (entry.account, entry.seq(), entry.at);
        let mut rows = Vec::new();
        for (position, movement) in (0_u16..).zip(movements(&entry)) {
            rows.push(match movement {
                Movement::Hold(hold) => {
                    self.of(key).holds.insert((hold.call, hold.leg, hold.step), *hold);
                    EntryRow::Hold(*hold)
                }
                Movement::Transfer(transfer) => {
                    let cursor = LedgerCursor { seq, position };
                    self.post(key, PostedTransfer { cursor, at, transfer: transfer.clone() });
                    EntryRow::Transfer
                }
                Movement::Ended(call) => EntryRow::Ended(call),
            });
        }
        for change in entry.changes {
            match change {
                Change::CallStarted(call) => {
                    self.call_ids.insert(call.call.id, (key, call.no));
                    self.of(key).calls.insert(call.no, Arc::unwrap_or_clone(call));
                }
                Change::CallUpdated(call) => {
                    self.of(key).calls.insert(call.no, Arc::unwrap_or_clone(call));
                }
                Change::DialogsChanged(call, dialogs) => self.of(key).dialogs.entry(call).or_default().take(*dialogs),
                Change::CallRenewed(call) => {
                    if let Some(stored) = self.of(key).calls.get_mut(&call.no) {
                        stored.renew(&call);
                    }
                }
                Change::HoldPlaced(_) | Change::Posted(_) => {}
                Change::AttemptEnded(attempt) => {
                    self.of(key).attempts.insert((attempt.call, attempt.number), attempt);
                }
                Change::CallEnded(cdr) | Change::CallRefused(cdr) => {
                    self.call_ids.insert(cdr.call.id, (key, cdr.no));
                    let account = self.of(key);
                    account.calls.remove(&cdr.no);
                    account.dialogs.remove(&cdr.no);
                    account.cdrs.insert(cdr.no, (at, *cdr));
                }
                Change::CallerIdChanged(caller_id) => put_caller_id(self.of(key), *caller_id),
            }
        }
        let account = self.of(key);
        account.figures = entry.figures;
        let event_count = entry.events.len();
        account.entries.insert(seq, StoredEntry { figures: entry.figures, rows, event_count });
        account.events.insert(seq, EventRow { seq, at, bodies: entry.events });
    }

    fn post(&mut self, key: AccountKey, posted: PostedTransfer) {
        self.transfer_ids.insert(posted.transfer.id, (key, posted.cursor));
        let account = self.of(key);
        if let Some(idempotency) = &posted.transfer.key {
            account.keys.insert(idempotency.key.clone(), posted.cursor);
        }
        account.transfers.insert(posted.cursor, posted);
    }

    fn of(&mut self, key: AccountKey) -> &mut Account {
        self.accounts.get_mut(&key).expect("checked before the entry is written")
    }
}

/// What earlier changes of the same entry did.
#[derive(Default)]
struct Draft {
    live: BTreeMap<CallNo, bool>,
    recorded: BTreeSet<CallNo>,
    attempts: BTreeSet<(CallNo, u8)>,
}

impl Draft {
    fn is_live(&self, account: &Account, no: CallNo) -> bool {
        self.live.get(&no).copied().unwrap_or_else(|| account.calls.contains_key(&no))
    }

    fn records(&mut self, account: &Account, cdr: &Cdr) -> bool {
        let over = matches!(cdr.call.state, CallState::Ended | CallState::Refused);
        over && !account.cdrs.contains_key(&cdr.no) && self.recorded.insert(cdr.no)
    }
}

fn taken_key(account: &Account, entry: &Entry) -> Outcome {
    if wrong::chosen(Wrong::IdempotencyIgnored) {
        return Ok(());
    }
    for change in &entry.changes {
        let Change::Posted(transfer) = change else { continue };
        let Some(key) = &transfer.key else { continue };
        if let Some(cursor) = account.keys.get(&key.key) {
            let stored = &account.transfers[cursor].transfer;
            let same_request = stored.key.as_ref().is_some_and(|k| k.request == key.request);
            return Err(Rejection::DuplicateKey { transfer: stored.id, same_request });
        }
    }
    Ok(())
}

fn number_is_free(account: &Account, caller_id: &CallerId) -> bool {
    !account.caller_ids.iter().any(|c| c.number == caller_id.number && c.id != caller_id.id)
}

fn put_caller_id(account: &mut Account, caller_id: CallerId) {
    match account.caller_ids.iter_mut().find(|c| c.id == caller_id.id) {
        Some(stored) => *stored = caller_id,
        None => account.caller_ids.push(caller_id),
    }
}
