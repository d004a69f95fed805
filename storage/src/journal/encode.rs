//! A journal entry as rows of the SQL stores: the same values for both engines.

use super::well_formed;
use crate::error::StoreError;
use crate::keyring::{Class, Keyring, Subject};
use crate::seal::word;
use crate::sql::{Value, values};
use schema::account::CallerId;
use schema::call::{AttemptRecord, Cdr, LegSide, LiveCall};
use schema::event::EventBody;
use schema::id::{AccountKey, Seq, TransferId};
use schema::journal::{Change, Entry};
use schema::ledger::{Hold, IdempotencyKey, Transfer};
use schema::time::Timestamp;

/// An entry ready to be written.
pub(crate) struct Encoded {
    pub(crate) account: AccountKey,
    pub(crate) seq: Seq,
    pub(crate) at: Timestamp,
    /// Idempotency keys that must be free, with the transfers that take them.
    pub(crate) keys: Vec<(IdempotencyKey, TransferId)>,
    /// The rows, or nothing when the entry cannot be written.
    pub(crate) rows: Result<Rows, &'static str>,
}

/// What an entry writes.
pub(crate) struct Rows {
    /// `seq, status, total, held, receivable, last_call, key` of the account.
    pub(crate) figures: Vec<Value>,
    pub(crate) writes: Vec<(Write, Vec<Value>)>,
}

/// One kind of row write, each of exactly one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Write {
    CallInsert,
    CallUpdate,
    CallDelete,
    Hold,
    Transfer,
    Attempt,
    Cdr,
    CallerId,
    CallerIdHistory,
    Event,
}

/// How a write is said in SQL.
pub(crate) enum Form {
    /// Table and columns; what follows the values.
    Insert(&'static str, &'static str),
    /// `held, state, account_key, no`.
    UpdateCall,
    /// `account_key, no`.
    DeleteCall,
}

impl Write {
    pub(crate) const ALL: [Self; 10] = [
        Self::CallInsert,
        Self::CallUpdate,
        Self::CallDelete,
        Self::Hold,
        Self::Transfer,
        Self::Attempt,
        Self::Cdr,
        Self::CallerId,
        Self::CallerIdHistory,
        Self::Event,
    ];

    pub(crate) const fn form(self) -> Form {
        match self {
            Self::CallInsert => Form::Insert("calls (account_key, no, id, held, state)", ""),
            Self::CallUpdate => Form::UpdateCall,
            Self::CallDelete => Form::DeleteCall,
            Self::Hold => Form::Insert("holds (account_key, call_no, leg, step, amount, seq)", ""),
            Self::Transfer => Form::Insert(
                "transfers (account_key, seq, position, id, at, kind, debit, credit, amount, call_no, cost_trunk, cost_micros, \
                 cost_currency, loss, key, request, balance_after, description)",
                "",
            ),
            Self::Attempt => {
                Form::Insert("attempts (account_key, call_no, number, trunk, started_at, ended_at, sip_code)", "")
            }
            Self::Cdr => Form::Insert(
                "cdrs (account_key, no, id, at, credential, mode, state, withheld, started_at, answered_at, ended_at, currency, \
                 talk_ms, billed_s, charged, loss, cost_trunk, cost_micros, cost_currency, attempts, destination_index, record)",
                "",
            ),
            Self::CallerId => Form::Insert(
                "caller_ids (id, account_key, number, number_index, label, status, evidence, is_default, verified_at, expires_at)",
                " on conflict (id) do update set number = excluded.number, number_index = excluded.number_index, \
                 label = excluded.label, status = excluded.status, evidence = excluded.evidence, \
                 is_default = excluded.is_default, verified_at = excluded.verified_at, expires_at = excluded.expires_at \
                 where caller_ids.account_key = excluded.account_key",
            ),
            Self::CallerIdHistory => {
                Form::Insert("caller_id_history (account_key, seq, caller_id, at, status, evidence)", "")
            }
            Self::Event => Form::Insert("events (account_key, seq, at, count, payload)", ""),
        }
    }

    /// Table and columns of an insert.
    pub(crate) const fn into(self) -> &'static str {
        match self.form() {
            Form::Insert(into, _) => into,
            Form::UpdateCall | Form::DeleteCall => "calls",
        }
    }
}

/// Encodes an entry. Its account's keys must be loaded.
pub(crate) fn encode(entry: &Entry, keys: &Keyring) -> Encoded {
    let taken = entry.changes.iter().filter_map(|change| match change {
        Change::Posted(transfer) => transfer.key.clone().map(|key| (key, transfer.id)),
        _ => None,
    });
    let rows = well_formed(entry).and_then(|()| {
        encode_rows(entry, keys).map_err(|error| {
            tracing::error!(account = entry.account.0, %error, "an entry cannot be sealed");
            "it cannot be sealed"
        })
    });
    Encoded { account: entry.account, seq: entry.seq(), at: entry.at, keys: taken.collect(), rows }
}

fn encode_rows(entry: &Entry, keys: &Keyring) -> Result<Rows, StoreError> {
    let (account, f) = (entry.account, &entry.figures);
    let figures = values![f.seq.0, f.status.as_str(), f.total.0, f.held.0, f.receivable.0, f.last_call.0, account.0];
    let mut writes = Vec::with_capacity(entry.changes.len() + 2);
    let mut position = 0_u32;
    for change in &entry.changes {
        match change {
            Change::CallStarted(call) => writes.push((Write::CallInsert, live_call(account, call, keys)?)),
            Change::CallUpdated(call) => {
                let values = values![call.held.0, sealed_call(account, call, keys)?, account.0, call.no.0];
                writes.push((Write::CallUpdate, values));
            }
            Change::HoldPlaced(hold) => writes.push((Write::Hold, hold_row(account, hold, entry.seq()))),
            Change::AttemptEnded(attempt) => writes.push((Write::Attempt, attempt_row(account, attempt))),
            Change::CallEnded(cdr) => {
                writes.push((Write::CallDelete, values![account.0, cdr.no.0]));
                writes.push((Write::Cdr, cdr_row(account, entry.at, cdr, keys)?));
            }
            Change::CallRefused(cdr) => writes.push((Write::Cdr, cdr_row(account, entry.at, cdr, keys)?)),
            Change::Posted(transfer) => {
                writes.push((Write::Transfer, transfer_row(account, entry.seq(), position, entry.at, transfer)));
                position += 1;
            }
            Change::CallerIdChanged(caller_id) => {
                writes.push((Write::CallerId, caller_id_row(account, caller_id, keys)?));
                writes.push((Write::CallerIdHistory, caller_id_history_row(account, entry.seq(), entry.at, caller_id)));
            }
        }
    }
    writes.push((Write::Event, event_row(account, entry.seq(), entry.at, &entry.events, keys)?));
    Ok(Rows { figures, writes })
}

fn sealed_call(account: AccountKey, call: &LiveCall, keys: &Keyring) -> Result<Vec<u8>, StoreError> {
    keys.seal_json(Subject::Account(account), Class::Calls, "calls.state", call)
}

fn live_call(account: AccountKey, call: &LiveCall, keys: &Keyring) -> Result<Vec<Value>, StoreError> {
    Ok(values![account.0, call.no.0, call.call.id.0, call.held.0, sealed_call(account, call, keys)?])
}

fn hold_row(account: AccountKey, hold: &Hold, seq: Seq) -> Vec<Value> {
    values![account.0, hold.call.0, leg_number(hold.leg), hold.step, hold.amount.0, seq.0]
}

/// A leg as stored.
pub(crate) const fn leg_number(leg: LegSide) -> i64 {
    match leg {
        LegSide::A => 0,
        LegSide::B => 1,
    }
}

fn attempt_row(account: AccountKey, attempt: &AttemptRecord) -> Vec<Value> {
    values![
        account.0,
        attempt.call.0,
        u32::from(attempt.number),
        attempt.trunk.0,
        attempt.started_at.0,
        attempt.ended_at.0,
        u32::from(attempt.sip_code),
    ]
}

fn transfer_row(account: AccountKey, seq: Seq, position: u32, at: Timestamp, transfer: &Transfer) -> Vec<Value> {
    let cost = transfer.carrier_cost;
    values![
        account.0,
        seq.0,
        position,
        transfer.id.0,
        at.0,
        transfer.kind.as_str(),
        transfer.debit.as_str(),
        transfer.credit.as_str(),
        transfer.amount.0,
        transfer.call.map(|no| no.0),
        cost.map(|c| c.trunk.0),
        cost.map(|c| c.amount.0),
        cost.as_ref().map(|c| c.currency.as_str()),
        transfer.loss.0,
        transfer.key.as_ref().map(|k| k.key.as_str()),
        transfer.key.as_ref().map(|k| k.request.to_vec()),
        transfer.balance_after.0,
        transfer.description.as_str(),
    ]
}

fn cdr_row(account: AccountKey, at: Timestamp, cdr: &Cdr, keys: &Keyring) -> Result<Vec<Value>, StoreError> {
    let (call, cost) = (&cdr.call, cdr.carrier_cost);
    let index = call.destination.as_ref().map(|n| keys.blind_index("cdrs.destination", n.as_str()));
    let record = keys.seal_json(Subject::Account(account), Class::Calls, "cdrs.record", cdr)?;
    Ok(values![
        account.0,
        cdr.no.0,
        call.id.0,
        at.0,
        cdr.credential.map(|c| c.0),
        word(&call.mode).as_str(),
        word(&call.state).as_str(),
        call.withheld,
        call.started_at.0,
        call.answered_at.map(|t| t.0),
        call.ended_at.map(|t| t.0),
        call.currency.as_str(),
        i64::try_from(cdr.talk_ms).unwrap_or(i64::MAX),
        i64::try_from(call.billed_seconds).unwrap_or(i64::MAX),
        cdr.charged.0,
        cdr.loss.0,
        cost.map(|c| c.trunk.0),
        cost.map(|c| c.amount.0),
        cost.as_ref().map(|c| c.currency.as_str()),
        u32::from(cdr.attempts),
        index,
        record,
    ])
}

/// Sealed and with its blind index, as it is stored.
pub(crate) fn caller_id_row(
    account: AccountKey,
    caller_id: &CallerId,
    keys: &Keyring,
) -> Result<Vec<Value>, StoreError> {
    let subject = Subject::Account(account);
    let label =
        caller_id.label.as_ref().map(|l| keys.seal_text(subject, Class::Identity, "caller_ids.label", l.expose()));
    Ok(values![
        caller_id.id.0,
        account.0,
        keys.seal_text(subject, Class::Identity, "caller_ids.number", caller_id.number.as_str())?,
        keys.blind_index("caller_ids.number", caller_id.number.as_str()),
        label.transpose()?,
        word(&caller_id.status).as_str(),
        caller_id.evidence.map(|e| word(&e)).as_deref(),
        caller_id.is_default,
        caller_id.verified_at.map(|t| t.0),
        caller_id.expires_at.map(|t| t.0),
    ])
}

/// Who presented what when: append-only, without the number.
pub(crate) fn caller_id_history_row(account: AccountKey, seq: Seq, at: Timestamp, caller_id: &CallerId) -> Vec<Value> {
    let evidence = caller_id.evidence.map(|e| word(&e));
    values![account.0, seq.0, caller_id.id.0, at.0, word(&caller_id.status).as_str(), evidence.as_deref()]
}

fn event_row(
    account: AccountKey,
    seq: Seq,
    at: Timestamp,
    events: &[EventBody],
    keys: &Keyring,
) -> Result<Vec<Value>, StoreError> {
    // A row without events only says that its entry was written.
    let payload = match events {
        [] => Vec::new(),
        events => keys.seal_json(Subject::Account(account), Class::Calls, "events.payload", &events)?,
    };
    let count = i64::try_from(events.len()).unwrap_or(i64::MAX);
    Ok(values![account.0, seq.0, at.0, count, payload])
}
