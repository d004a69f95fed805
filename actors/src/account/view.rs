//! An account as its owner sees it: one snapshot, with the place of the last event in it.

use super::core::AccountCore;
use schema::account::{AccountProfile, AccountStatus, CallbackPhone, CallerId};
use schema::call::Call;
use schema::event::EventCursor;
use schema::ledger::Balance;
use schema::time::Now;
use std::sync::Arc;

/// Everything shown of an account, as of one moment.
#[derive(Debug, Clone)]
pub struct AccountView {
    /// What does not change with every call.
    pub profile: Arc<AccountProfile>,
    /// Standing.
    pub status: AccountStatus,
    /// The balance now.
    pub balance: Balance,
    /// Its live calls, oldest first.
    pub live_calls: Vec<Call>,
    /// Its caller IDs.
    pub caller_ids: Vec<CallerId>,
    /// Its own phones.
    pub callback_phones: Vec<CallbackPhone>,
    /// The last event that this snapshot contains.
    pub cursor: EventCursor,
}

/// What changes every second while calls last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveView {
    /// The balance now.
    pub balance: Balance,
    /// Its live calls, oldest first.
    pub live_calls: Vec<Call>,
}

impl AccountCore {
    /// The account now.
    #[must_use]
    pub fn view(&self, now: Now) -> AccountView {
        AccountView {
            profile: self.profile.clone(),
            status: self.figures.status,
            balance: self.balance(now),
            live_calls: self.calls_now(now),
            caller_ids: self.caller_ids.clone(),
            callback_phones: self.callback_phones.clone(),
            cursor: self.cursor,
        }
    }

    /// Its live figures now.
    #[must_use]
    pub fn live_view(&self, now: Now) -> LiveView {
        LiveView { balance: self.balance(now), live_calls: self.calls_now(now) }
    }
}
