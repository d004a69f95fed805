//! Calls: live ones for recovery, CDRs for the history.

use crate::error::StoreError;
use crate::memory;
use crate::store::{Backend, Store, page};
use schema::call::{AttemptRecord, Call, CallState, Cdr, Explanation, LiveCall};
use schema::id::{AccountKey, CallId, CallNo};
use schema::ledger::Hold;
use schema::leg::Dialogs;
use schema::pii::Pii;
use schema::time::Timestamp;
use std::ops::Bound;

/// Which calls of a history are wanted. The time range is half-open: `from <= started_at < to`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallFilter {
    /// Earliest start.
    pub from: Option<Timestamp>,
    /// Start before this.
    pub to: Option<Timestamp>,
    /// `Ended` or `Refused`.
    pub state: Option<CallState>,
    /// First characters of the destination, with the plus.
    pub destination_prefix: Option<Pii<String>>,
}

impl CallFilter {
    /// Whether the filter lets a record through.
    #[must_use]
    pub fn admits(&self, cdr: &Cdr) -> bool {
        let call = &cdr.call;
        self.from.is_none_or(|from| from <= call.started_at)
            && self.to.is_none_or(|to| call.started_at < to)
            && self.state.is_none_or(|state| state == call.state)
            && self.admits_destination(cdr)
    }

    /// Whether the destination begins as wanted. The stores cannot ask their database that: the number is sealed.
    pub(crate) fn admits_destination(&self, cdr: &Cdr) -> bool {
        self.destination_prefix.as_ref().is_none_or(|prefix| {
            cdr.call.destination.as_ref().is_some_and(|n| n.as_str().starts_with(prefix.expose().as_str()))
        })
    }
}

/// What is left of a CDR when the key of its account's call data is destroyed: what billing needs.
pub(crate) fn without_call_data(cdr: &Cdr) -> Cdr {
    let call = &cdr.call;
    Cdr {
        call: Call {
            dialled: None,
            destination: None,
            presented_number: None,
            attestation: None,
            cost: cdr.charged,
            legs: Vec::new(),
            funded_until: None,
            route: None,
            post_dial_delay_ms: None,
            hangup: None,
            explanation: Explanation::default(),
            ..call.clone()
        },
        withheld_number: None,
        ..cdr.clone()
    }
}

/// The row of a call that has not ended, for recovery. Where it stands can be read whatever became of the rest.
#[derive(Debug)]
pub struct StoredCall {
    /// Whose.
    pub account: AccountKey,
    /// Which of the account's.
    pub no: CallNo,
    /// Its identity.
    pub id: CallId,
    /// Its state; or why it cannot be read, now and by any later try with this program.
    pub call: Result<LiveCall, StoreError>,
    /// Its dialogs; or why they cannot be read.
    pub dialogs: Result<Dialogs, StoreError>,
}

impl Store {
    /// Live calls of all accounts after `after`, by (account, number), at most `limit` (1,000). Those whose row cannot be read are
    /// left out and logged.
    ///
    /// # Errors
    /// The store failed.
    pub async fn live_calls(
        &self,
        after: Option<(AccountKey, CallNo)>,
        limit: u32,
    ) -> Result<Vec<(AccountKey, LiveCall)>, StoreError> {
        let (after, limit) = (after.unwrap_or((AccountKey(0), CallNo(0))), page(limit));
        match &self.backend {
            Backend::Sql(sql) => sql.live_calls(after, limit).await,
            Backend::Memory(disk) => disk
                .read(|t| t.readable_calls_after(after).take(limit).map(|(key, call)| (key, call.clone())).collect()),
        }
    }

    /// The rows of live calls in the order of [`Self::live_calls`], with their dialogs: for recovery. None is left out.
    ///
    /// # Errors
    /// The store failed; what cannot be read of a single row is in its result.
    pub async fn live_calls_with_dialogs(
        &self,
        after: Option<(AccountKey, CallNo)>,
        limit: u32,
    ) -> Result<Vec<StoredCall>, StoreError> {
        let (after, limit) = (after.unwrap_or((AccountKey(0), CallNo(0))), page(limit));
        match &self.backend {
            Backend::Sql(sql) => sql.live_calls_with_dialogs(after, limit).await,
            Backend::Memory(disk) => disk.read(|t| t.stored_calls_after(after).take(limit).collect()),
        }
    }

    /// A call that has not ended.
    ///
    /// # Errors
    /// The store failed.
    pub async fn live_call(&self, id: CallId) -> Result<Option<(AccountKey, LiveCall)>, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.live_call(id).await,
            Backend::Memory(disk) => disk.read(|t| {
                let Some(&(key, no)) = t.call_ids.get(&id) else { return Ok(None) };
                let Some(account) = t.accounts.get(&key) else { return Ok(None) };
                account.readable(no)?;
                Ok(account.calls.get(&no).map(|call| (key, call.clone())))
            })?,
        }
    }

    /// A call that has ended or was refused.
    ///
    /// # Errors
    /// The store failed.
    pub async fn call(&self, id: CallId) -> Result<Option<(AccountKey, Cdr)>, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.call(id).await,
            Backend::Memory(disk) => disk.read(|t| {
                let &(key, no) = t.call_ids.get(&id)?;
                Some((key, t.accounts.get(&key)?.cdrs.get(&no)?.1.clone()))
            }),
        }
    }

    /// The CDR of an account's n-th call.
    ///
    /// # Errors
    /// The store failed.
    pub async fn cdr(&self, account: AccountKey, no: CallNo) -> Result<Option<Cdr>, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.cdr(account, no).await,
            Backend::Memory(disk) => disk.read(|t| t.accounts.get(&account)?.cdrs.get(&no).map(|(_, cdr)| cdr.clone())),
        }
    }

    /// An account's calls that are over, newest first, with a number below `before`, at most `limit` (1,000).
    ///
    /// # Errors
    /// The store failed.
    pub async fn calls_page(
        &self,
        account: AccountKey,
        before: Option<CallNo>,
        limit: u32,
        filter: &CallFilter,
    ) -> Result<Vec<Cdr>, StoreError> {
        let (before, limit) = (before.unwrap_or(CallNo(i64::MAX)), page(limit));
        match &self.backend {
            Backend::Sql(sql) => sql.calls_page(account, before, limit, filter).await,
            Backend::Memory(disk) => disk.read(|t| {
                let Some(account) = t.accounts.get(&account) else { return Vec::new() };
                let older = account.cdrs.range(..before).rev().map(|(_, (_, cdr))| cdr);
                older.filter(|cdr| filter.admits(cdr)).take(limit).cloned().collect()
            }),
        }
    }

    /// The attempts of a call that ended without an answer, in order.
    ///
    /// # Errors
    /// The store failed.
    pub async fn attempts(&self, account: AccountKey, call: CallNo) -> Result<Vec<AttemptRecord>, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.attempts(account, call).await,
            Backend::Memory(disk) => disk.read(|t| {
                let Some(account) = t.accounts.get(&account) else { return Vec::new() };
                account.attempts.range((call, 0)..=(call, u8::MAX)).map(|(_, a)| a.clone()).collect()
            }),
        }
    }

    /// Open holds of all accounts: those whose call is live.
    ///
    /// # Errors
    /// The store failed.
    pub async fn open_holds(&self) -> Result<u64, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.open_holds().await,
            Backend::Memory(disk) => disk.read(|t| {
                let open =
                    |a: &memory::Account| a.holds.keys().filter(|(no, ..)| a.calls.contains_key(no)).count() as u64;
                t.accounts.values().map(open).sum()
            }),
        }
    }

    /// The holds of a call, by leg and step. They are open while the call is live. Reads all entries of the account: for checks.
    ///
    /// # Errors
    /// The store failed.
    pub async fn holds(&self, account: AccountKey, call: CallNo) -> Result<Vec<Hold>, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.holds(account, call).await,
            Backend::Memory(disk) => disk.read(|t| {
                let Some(account) = t.accounts.get(&account) else { return Vec::new() };
                let from = Bound::Included((call, schema::call::LegSide::A, 0));
                let to = Bound::Excluded((call.next(), schema::call::LegSide::A, 0));
                account.holds.range((from, to)).map(|(_, hold)| *hold).collect()
            }),
        }
    }
}
