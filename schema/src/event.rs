//! Durable events of an account: what subscribers read, in order, without a gap.

use crate::account::{AccountStatus, CallerId};
use crate::call::Call;
use crate::id::Seq;
use crate::ledger::Balance;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Where an event stands: entry, then position within it. Ordered within one account. A cursor (0, 0) is before all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct EventCursor {
    /// The journal entry.
    pub seq: Seq,
    /// Position within the entry, from 0.
    pub index: u16,
}

/// One event, with values as of the event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventBody {
    /// The balance changed.
    BalanceChanged(Balance),
    /// A call began, was answered, ended or was refused.
    CallChanged(Box<Call>),
    /// A call will be cut in so many seconds; `None`: withdrawn.
    CallWarning {
        /// Which.
        call: Box<Call>,
        /// Seconds until it is cut: 60, 30 or 10.
        seconds_left: Option<u32>,
    },
    /// A caller ID changed.
    CallerIdChanged(CallerId),
    /// Standing or settings changed.
    AccountChanged(AccountStatus),
}

/// An event of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountEvent {
    /// Its place.
    pub cursor: EventCursor,
    /// When.
    pub at: Timestamp,
    /// What.
    pub body: EventBody,
}
