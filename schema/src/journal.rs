//! Journal entries: every durable change of an account is one of these. Its actor makes them; the journal writes them in
//! order, many in one transaction; after the commit their effects run: commit, publish, reply (invariant A2).

use crate::account::{AccountFigures, CallerId};
use crate::call::{AttemptRecord, Cdr, LiveCall};
use crate::event::EventBody;
use crate::id::{AccountKey, CallNo, Seq, TransferId};
use crate::ledger::{Hold, Transfer};
use crate::leg::Dialogs;
use crate::time::Timestamp;
use std::sync::Arc;

/// One durable change of one account. The store writes it only when the account's newest entry is `figures.seq - 1`.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Whose.
    pub account: AccountKey,
    /// When it was decided.
    pub at: Timestamp,
    /// The account's figures afterwards, `seq` of this entry among them.
    pub figures: AccountFigures,
    /// What else changes.
    pub changes: Vec<Change>,
    /// What subscribers are told: at most 16 events, in one row.
    pub events: Vec<EventBody>,
}

impl Entry {
    /// Its place in the account's journal.
    #[must_use]
    pub const fn seq(&self) -> Seq {
        self.figures.seq
    }

    /// What changes of a call's dialogs.
    #[must_use]
    pub fn dialogs_of(&self, call: CallNo) -> Option<&Dialogs> {
        self.changes.iter().find_map(|change| match change {
            Change::DialogsChanged(no, dialogs) if *no == call => Some(&**dialogs),
            _ => None,
        })
    }

    /// Whether a call's row is written, and with it what changes of its dialogs.
    #[must_use]
    pub fn writes_row_of(&self, call: CallNo) -> bool {
        self.changes.iter().any(|change| change.live().is_some_and(|live| live.no == call))
    }

    /// Rows written by it: its own, one for each hold and transfer and at least one; that of its events; those of its calls and
    /// caller IDs.
    #[must_use]
    pub fn row_writes(&self) -> usize {
        let moved = self.changes.iter().filter(|c| matches!(c, Change::HoldPlaced(_) | Change::Posted(_))).count();
        let others = self.changes.iter().map(|change| match change {
            Change::HoldPlaced(_) | Change::Posted(_) => 0,
            Change::DialogsChanged(call, _) => usize::from(!self.writes_row_of(*call)),
            Change::CallEnded(_) | Change::CallerIdChanged(_) => 2,
            _ => 1,
        });
        moved.max(1) + usize::from(!self.events.is_empty()) + others.sum::<usize>()
    }
}

/// A change of the rows beside the account's own.
#[derive(Debug, Clone)]
pub enum Change {
    /// A call was granted: insert it.
    CallStarted(Arc<LiveCall>),
    /// Its stored state is replaced: answered, next attempt.
    CallUpdated(Arc<LiveCall>),
    /// Its holds pay for more: nothing but what [`LiveCall::renew`] takes over is written.
    CallRenewed(Arc<LiveCall>),
    /// What is there replaces what is stored of a live call's dialogs; in the row of the call, where that is written too. At most
    /// one of a call in an entry.
    DialogsChanged(CallNo, Box<Dialogs>),
    /// Money was set aside.
    HoldPlaced(Hold),
    /// An attempt ended without an answer.
    AttemptEnded(AttemptRecord),
    /// The call is over: its live row goes, its CDR stays. Together with its settling [`Change::Posted`] it ends its holds.
    CallEnded(Box<Cdr>),
    /// The call was never granted: a CDR only.
    CallRefused(Box<Cdr>),
    /// Money moved.
    Posted(Box<Transfer>),
    /// A caller ID was added or changed.
    CallerIdChanged(Box<CallerId>),
}

impl Change {
    /// The live call whose row it writes.
    #[must_use]
    pub fn live(&self) -> Option<&LiveCall> {
        match self {
            Self::CallStarted(live) | Self::CallUpdated(live) | Self::CallRenewed(live) => Some(live),
            _ => None,
        }
    }
}

/// Why an entry was not written. The account's later entries are not written either; its actor reloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// The stored seq is not the expected one: another owner wrote, or an earlier entry was rejected.
    Fenced,
    /// The transfer's idempotency key is taken. `same_request`: by the same request, whose transfer this is.
    DuplicateKey {
        /// What was posted under the key.
        transfer: TransferId,
        /// False: the key was used for another request.
        same_request: bool,
    },
    /// The batch failed; nothing of it was written. The outcome is known: not done.
    Failed,
}

/// What became of an entry.
pub type Outcome = Result<(), Rejection>;
