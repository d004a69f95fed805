//! A journal entry as rows of the SQL stores: the same values for both engines.

use super::{Movement, begins, holds_of, movements, well_formed};
use crate::error::StoreError;
use crate::event::Payload;
use crate::keyring::{Class, Keyring, Sealer, Subject};
use crate::seal::word;
use crate::sql::{Value, values};
use schema::account::CallerId;
use schema::call::{AttemptRecord, Cdr, LegSide, LiveCall};
use schema::id::{AccountKey, CallNo, Seq, TransferId};
use schema::journal::{Change, Entry};
use schema::ledger::{Hold, IdempotencyKey, Transfer};
use schema::leg::Dialogs;
use schema::pii::Pii;
use schema::time::Timestamp;
use std::cell::OnceCell;
use std::sync::Arc;
use uuid::Uuid;

/// An entry ready to be written.
pub(crate) struct Encoded {
    pub(crate) account: AccountKey,
    pub(crate) seq: Seq,
    pub(crate) at: Timestamp,
    /// Idempotency keys that must be free, with the transfers that take them.
    pub(crate) keys: Vec<(IdempotencyKey, TransferId)>,
    /// Whether it begins a call: then the entry before it has a lower `last_call`, by one.
    pub(crate) begins: bool,
    /// The number of the account's last call afterwards.
    pub(crate) last_call: CallNo,
    /// The rows, or nothing when the entry cannot be written.
    pub(crate) rows: Result<Rows, &'static str>,
}

/// The newest entry of an account.
#[derive(Clone, Copy)]
pub(crate) struct Newest {
    pub(crate) seq: Seq,
    /// Known where it is asked for.
    pub(crate) last_call: CallNo,
}

impl Newest {
    pub(crate) const fn after(entry: &Encoded) -> Self {
        Self { seq: entry.seq, last_call: entry.last_call }
    }

    /// Whether the entry is the account's next one.
    pub(crate) fn precedes(self, entry: &Encoded) -> bool {
        self.seq.next() == entry.seq
    }

    /// The number of a call is used once.
    pub(crate) fn allows(self, entry: &Encoded) -> bool {
        !entry.begins || self.last_call.next() == entry.last_call
    }
}

/// What an entry writes, in order. Its events follow its first row.
pub(crate) type Rows = Vec<(Write, Vec<Value>)>;

/// One kind of row write, each of exactly one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Write {
    /// An entry's row that moves nothing; perhaps it ends a call.
    Entry,
    /// One that sets money aside.
    Hold,
    /// One that moves money.
    Transfer,
    Event,
    CallInsert,
    CallUpdate,
    CallDelete,
    Attempt,
    Cdr,
    CallerId,
    CallerIdHistory,
}

/// How a write is said in SQL.
pub(crate) enum Form {
    /// Table and columns; what follows the values.
    Insert(&'static str, &'static str),
    /// [`CALL_UPDATED`], null what stays as it is; `account_key, no` and the step before.
    UpdateCall,
    /// `account_key, no`.
    DeleteCall,
    /// `account_key, seq, payload`.
    InsertEvent,
}

/// What may change of a live call's row.
pub(crate) const CALL_UPDATED: [&str; 10] =
    ["held", "hold_step", "paid_s", "proof_at", "proof_mono", "proof_boot", "state", "a_leg", "b_leg", "answer_sdp"];

/// What every row of an entry says.
macro_rules! common {
    () => {
        "account_key, seq, position, at, status, total, held, receivable, last_call, event_count, call_no"
    };
}
/// What one that moves money says beyond that.
macro_rules! transfer {
    () => {
        "amount, transfer, kind, debit, credit, cost_trunk, cost_micros, cost_currency, loss, key, request, balance_after, \
         description"
    };
}

/// All that a row of `entries` may say.
pub(crate) const ENTRY_COLUMNS: &str = concat!(common!(), ", ", transfer!(), ", leg, step");

impl Write {
    pub(crate) const ALL: [Self; 11] = [
        Self::Entry,
        Self::Hold,
        Self::Transfer,
        Self::Event,
        Self::CallInsert,
        Self::CallUpdate,
        Self::CallDelete,
        Self::Attempt,
        Self::Cdr,
        Self::CallerId,
        Self::CallerIdHistory,
    ];

    pub(crate) const fn form(self) -> Form {
        match self {
            Self::Entry => Form::Insert(concat!("entries (", common!(), ")"), ""),
            Self::Hold => Form::Insert(concat!("entries (", common!(), ", amount, leg, step)"), ""),
            Self::Transfer => Form::Insert(concat!("entries (", common!(), ", ", transfer!(), ")"), ""),
            Self::Event => Form::InsertEvent,
            Self::CallInsert => Form::Insert(
                "calls (account_key, no, id, held, hold_step, paid_s, proof_at, proof_mono, proof_boot, state, a_leg, b_leg, \
                     answer_sdp)",
                "",
            ),
            Self::CallUpdate => Form::UpdateCall,
            Self::CallDelete => Form::DeleteCall,
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
        }
    }

    /// Table and columns of an insert.
    pub(crate) const fn into(self) -> &'static str {
        match self.form() {
            Form::Insert(into, _) => into,
            Form::UpdateCall | Form::DeleteCall => "calls",
            Form::InsertEvent => "events",
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
    Encoded {
        account: entry.account,
        seq: entry.seq(),
        at: entry.at,
        keys: taken.collect(),
        begins: begins(entry),
        last_call: entry.figures.last_call,
        rows,
    }
}

/// Seals what an entry says of calls. Its key is prepared once, when it is first needed.
struct Calls<'k> {
    keys: &'k Keyring,
    account: AccountKey,
    sealer: OnceCell<Sealer<'k>>,
}

impl<'k> Calls<'k> {
    fn sealer(&self) -> Result<&Sealer<'k>, StoreError> {
        if let Some(sealer) = self.sealer.get() {
            return Ok(sealer);
        }
        let sealer = self.keys.sealer(Subject::Account(self.account), Class::Calls)?;
        Ok(self.sealer.get_or_init(|| sealer))
    }
}

fn encode_rows(entry: &Entry, keys: &Keyring) -> Result<Rows, StoreError> {
    let account = entry.account;
    let calls = &Calls { keys, account, sealer: OnceCell::new() };
    let mut rows = entry_rows(entry, calls)?;
    for change in &entry.changes {
        match change {
            Change::HoldPlaced(_) | Change::Posted(_) => {}
            Change::CallStarted(call) => {
                let mut row = values![account.0, call.no.0, call.call.id.0];
                row.extend(call_values(entry, call, Some(sealed_state(call, calls)?), calls)?);
                rows.push((Write::CallInsert, row));
            }
            Change::CallUpdated(call) => {
                let state = sealed_state(call, calls)?;
                rows.push((Write::CallUpdate, call_update(entry, call, Some(state), calls)?));
            }
            Change::CallRenewed(call) => rows.push((Write::CallUpdate, call_update(entry, call, None, calls)?)),
            Change::DialogsChanged(call, _) if entry.writes_row_of(*call) => {}
            Change::DialogsChanged(call, dialogs) => {
                let mut row = vec![Value::Int(None); 5];
                row.extend([Value::Id(None), Value::Bytes(None)]);
                row.extend(dialog_values(Some(dialogs), calls)?);
                row.extend(values![account.0, call.0, None::<i64>]);
                rows.push((Write::CallUpdate, row));
            }
            Change::AttemptEnded(attempt) => rows.push((Write::Attempt, attempt_row(account, attempt))),
            Change::CallEnded(cdr) => {
                rows.push((Write::CallDelete, values![account.0, cdr.no.0]));
                rows.push((Write::Cdr, cdr_row(account, entry.at, cdr, calls)?));
            }
            Change::CallRefused(cdr) => rows.push((Write::Cdr, cdr_row(account, entry.at, cdr, calls)?)),
            Change::CallerIdChanged(caller_id) => {
                rows.push((Write::CallerId, caller_id_row(account, caller_id, keys)?));
                rows.push((Write::CallerIdHistory, caller_id_history_row(account, entry.seq(), entry.at, caller_id)));
            }
        }
    }
    Ok(rows)
}

/// The rows of the entry itself: one for each movement, at least one, and its events after the first.
fn entry_rows(entry: &Entry, calls: &Calls<'_>) -> Result<Rows, StoreError> {
    let mut rows = Vec::with_capacity(entry.changes.len() + 2);
    for (position, movement) in (0_u32..).zip(movements(entry)) {
        rows.push(match movement {
            Movement::Hold(hold) => (Write::Hold, hold_row(entry, position, hold)),
            Movement::Transfer(transfer) => (Write::Transfer, transfer_row(entry, position, transfer)),
            Movement::Ended(call) => (Write::Entry, entry_row(entry, position, Some(call), 0)),
        });
    }
    if rows.is_empty() {
        rows.push((Write::Entry, entry_row(entry, 0, None, 0)));
    }
    if !entry.events.is_empty() {
        let payload = calls.sealer()?.seal_json("events.payload", &Payload::of(entry))?;
        rows.insert(1, (Write::Event, values![entry.account.0, entry.seq().0, payload]));
    }
    Ok(rows)
}

/// What every row of an entry says, with room for so many columns more.
fn entry_row(entry: &Entry, position: u32, call: Option<CallNo>, more: usize) -> Vec<Value> {
    let f = &entry.figures;
    let mut row = Vec::with_capacity(11 + more);
    row.extend([
        entry.account.0.into(),
        f.seq.0.into(),
        position.into(),
        entry.at.0.into(),
        Value::Word(f.status.as_str()),
        f.total.0.into(),
        f.held.0.into(),
        f.receivable.0.into(),
        f.last_call.0.into(),
        i64::try_from(entry.events.len()).unwrap_or(i64::MAX).into(),
        call.map(|no| no.0).into(),
    ]);
    row
}

fn sealed_state(call: &LiveCall, calls: &Calls<'_>) -> Result<Vec<u8>, StoreError> {
    calls.sealer()?.seal_json("calls.state", call)
}

/// A change of a live call's row; its step must be the one before this entry's holds.
fn call_update(
    entry: &Entry,
    call: &LiveCall,
    state: Option<Vec<u8>>,
    calls: &Calls<'_>,
) -> Result<Vec<Value>, StoreError> {
    let holds = i64::try_from(holds_of(entry, call.no)).unwrap_or(i64::MAX);
    let mut row = call_values(entry, call, state, calls)?;
    row.extend(values![entry.account.0, call.no.0, i64::from(call.hold_step) - holds]);
    Ok(row)
}

/// The values of [`CALL_UPDATED`].
fn call_values(
    entry: &Entry,
    call: &LiveCall,
    state: Option<Vec<u8>>,
    calls: &Calls<'_>,
) -> Result<Vec<Value>, StoreError> {
    let proof = call.proof_of_life;
    let mut values = values![
        call.held.0,
        call.hold_step,
        i64::try_from(call.paid_s).unwrap_or(i64::MAX),
        proof.map(|at| at.wall.0),
        proof.map(|at| i64::try_from(at.mono.0).unwrap_or(i64::MAX)),
        proof.map(|at| Uuid::from_u128(at.boot.0)),
        state,
    ];
    values.extend(dialog_values(entry.dialogs_of(call.no), calls)?);
    Ok(values)
}

/// Null what is not there.
fn dialog_values(dialogs: Option<&Dialogs>, calls: &Calls<'_>) -> Result<Vec<Value>, StoreError> {
    let Some(dialogs) = dialogs else { return Ok(vec![Value::Bytes(None); 3]) };
    let text = |place, text: Option<&Pii<Arc<str>>>| {
        text.map(|text| calls.sealer()?.seal(place, text.expose().as_bytes())).transpose()
    };
    Ok(values![
        text("calls.a_leg", dialogs.a_leg.as_ref().map(|leg| &leg.state))?,
        text("calls.b_leg", dialogs.b_leg.as_ref().map(|leg| &leg.state))?,
        text("calls.answer_sdp", dialogs.answer_sdp.as_ref())?,
    ])
}

fn hold_row(entry: &Entry, position: u32, hold: &Hold) -> Vec<Value> {
    let mut row = entry_row(entry, position, Some(hold.call), 3);
    row.extend([hold.amount.0.into(), leg_number(hold.leg).into(), hold.step.into()]);
    row
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

fn transfer_row(entry: &Entry, position: u32, transfer: &Transfer) -> Vec<Value> {
    let (cost, key) = (&transfer.carrier_cost, &transfer.key);
    let mut row = entry_row(entry, position, transfer.call, 13);
    row.extend([
        transfer.amount.0.into(),
        transfer.id.0.into(),
        Value::Word(transfer.kind.as_str()),
        Value::Word(transfer.debit.as_str()),
        Value::Word(transfer.credit.as_str()),
        cost.map(|c| c.trunk.0).into(),
        cost.map(|c| c.amount.0).into(),
        cost.as_ref().map(|c| c.currency.as_str()).into(),
        transfer.loss.0.into(),
        key.as_ref().map(|k| k.key.as_str()).into(),
        key.as_ref().map(|k| k.request.to_vec()).into(),
        Some(transfer.balance_after.0).filter(|after| *after != entry.figures.total.0).into(),
        transfer.description.as_str().into(),
    ]);
    row
}

fn cdr_row(account: AccountKey, at: Timestamp, cdr: &Cdr, calls: &Calls<'_>) -> Result<Vec<Value>, StoreError> {
    let (call, cost) = (&cdr.call, cdr.carrier_cost);
    let index = call.destination.as_ref().map(|n| calls.keys.blind_index("cdrs.destination", n.as_str()));
    let record = calls.sealer()?.seal_json("cdrs.record", cdr)?;
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
