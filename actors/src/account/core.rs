//! The account: what its money, numbers and limits allow, as a function of (state, command, now). Each command returns its
//! reply and, when something durable changes, a [`Draft`]: the journal entry and what it does to the state. The shell
//! submits the entry and then applies the draft, so the state runs ahead of the journal (it is *provisional*); replies and
//! reads wait for the entries they depend on.
//!
//! Invariants kept here: **L1** available is never negative, **L2** each transfer balances, **L3** each hold ends once,
//! **C1** a route is granted only together with a hold, **C3** an answered call leaves one CDR and one charge,
//! **A1** nothing but a command changes the account, **A3** [`AccountCore::load`] rebuilds it from its rows.
//! What is not in the rows and starts anew with each load: calls begun in the last minute, warnings given.

use super::limits::RecentCalls;
use crate::rating::Tariffs;
use crate::routing::TrunkStatus;
use schema::account::{AccountFigures, AccountProfile, CallbackPhone, CallerId};
use schema::call::{CallState, LiveCall};
use schema::event::{EventBody, EventCursor};
use schema::id::{CallId, CallNo, Seq, TransferId, TrunkId};
use schema::journal::{Change, Entry};
use schema::ledger::IdempotencyKey;
use schema::money::Micros;
use schema::rate::RateTerms;
use schema::time::{BootId, ClockReading, Now};
use schema::wrong::{self, Wrong};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Calls remembered as voided before they were authorized, and credits remembered by their keys.
const REMEMBERED: usize = 256;

/// The account's state, provisional: as of the last entry submitted, committed or not.
pub struct AccountCore {
    pub(super) profile: Arc<AccountProfile>,
    pub(super) figures: AccountFigures,
    pub(super) caller_ids: Vec<CallerId>,
    pub(super) callback_phones: Vec<CallbackPhone>,
    pub(super) live: BTreeMap<CallId, Arc<LiveCall>>,
    /// The last warning given of a call that will be cut, in seconds left.
    pub(super) warned: BTreeMap<CallId, u32>,
    pub(super) recent: RecentCalls,
    /// Refused calls that went on record.
    pub(super) refused: RecentCalls,
    pub(super) voided: VecDeque<CallId>,
    pub(super) credited: VecDeque<(IdempotencyKey, Credited)>,
    pub(super) cursor: EventCursor,
    pub(super) boot: BootId,
}

/// Prices, carriers and their state, as they stand when a call is decided.
#[derive(Clone, Copy)]
pub struct Market<'a> {
    /// Decks and trunks.
    pub tariffs: &'a Tariffs,
    /// The trunks' state.
    pub trunks: &'a BTreeMap<TrunkId, TrunkStatus>,
}

/// What was posted for a credit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credited {
    /// The transfer.
    pub transfer: TransferId,
    /// How much.
    pub amount: Micros,
    /// Posted money afterwards.
    pub balance_after: Micros,
    /// The same request had been posted before; nothing moved now.
    pub replayed: bool,
}

/// A durable change that was decided: submit [`Draft::entry`], then apply [`Draft::patch`].
#[derive(Debug, Clone)]
pub struct Draft {
    /// For the journal.
    pub entry: Entry,
    /// For [`AccountCore::apply`].
    pub patch: Patch,
}

/// What an entry does to the state beside its figures.
#[derive(Debug, Clone, Default)]
pub struct Patch {
    pub(super) figures: Option<AccountFigures>,
    pub(super) cursor: Option<EventCursor>,
    pub(super) live: Option<LiveChange>,
    pub(super) begun_at: Option<Now>,
    /// When a call was refused.
    pub(super) refused_at: Option<Now>,
    pub(super) credited: Option<(IdempotencyKey, Credited)>,
    pub(super) warned: Vec<(CallId, Option<u32>)>,
}

impl Patch {
    /// The call's state is replaced by what the entry stores.
    pub(super) fn put(live: Arc<LiveCall>) -> Self {
        Self { live: Some(LiveChange::Put(live)), ..Self::default() }
    }
}

/// What happens to a live call.
#[derive(Debug, Clone)]
pub(super) enum LiveChange {
    Put(Arc<LiveCall>),
    Remove(CallId),
}

impl AccountCore {
    /// The account as its rows say (A3).
    #[must_use]
    pub fn load(loaded: storage::LoadedAccount, boot: BootId) -> Self {
        let core = Self {
            profile: Arc::new(loaded.profile),
            figures: loaded.figures,
            caller_ids: loaded.caller_ids,
            callback_phones: loaded.callback_phones,
            live: loaded.live_calls.into_iter().map(|live| (live.call.id, Arc::new(live))).collect(),
            warned: BTreeMap::new(),
            recent: RecentCalls::default(),
            refused: RecentCalls::default(),
            voided: VecDeque::new(),
            credited: VecDeque::new(),
            cursor: loaded.last_event,
            boot,
        };
        core.check(&core.figures);
        core
    }

    /// Applies a draft whose entry was submitted.
    pub fn apply(&mut self, patch: Patch) {
        if let Some(figures) = patch.figures {
            debug_assert_eq!(figures.seq, self.figures.seq.next(), "entries follow each other");
            self.figures = figures;
        }
        self.cursor = patch.cursor.unwrap_or(self.cursor);
        match patch.live {
            Some(LiveChange::Put(live)) => {
                self.live.insert(live.call.id, live);
            }
            Some(LiveChange::Remove(id)) => {
                // L3: the holds of a call end with its row, and a call has one row.
                assert!(self.live.remove(&id).is_some(), "l3: a call is settled once");
                self.warned.remove(&id);
            }
            None => {}
        }
        if let Some(at) = patch.begun_at {
            self.recent.count(at.mono);
        }
        if let Some(at) = patch.refused_at {
            self.refused.count(at.mono);
        }
        if let Some(credited) = patch.credited {
            remember(&mut self.credited, credited);
        }
        for (call, level) in patch.warned {
            match level {
                Some(level) => self.warned.insert(call, level),
                None => self.warned.remove(&call),
            };
        }
    }

    /// Makes an entry of a decision. `figures` are the account's figures afterwards, `seq` not yet counted.
    pub(super) fn draft(
        &self,
        now: Now,
        mut figures: AccountFigures,
        changes: Vec<Change>,
        events: Vec<EventBody>,
        mut patch: Patch,
    ) -> Draft {
        figures.seq = self.figures.seq.next();
        self.check(&figures);
        patch.figures = Some(figures);
        patch.cursor = Some(last_cursor(figures.seq, events.len()));
        let entry = Entry { account: self.profile.key, at: now.wall, figures, changes, events };
        Draft { entry, patch }
    }

    /// L1, before each write and after each read. A violation stops the account rather than spend money that is not there.
    fn check(&self, figures: &AccountFigures) {
        assert!(!figures.held.is_negative(), "l1: held money is never negative");
        let blind = wrong::chosen(Wrong::ReserveBlind);
        assert!(blind || !figures.available().is_negative(), "l1: available money is never negative");
        debug_assert!(figures.last_call >= self.figures.last_call, "calls are numbered upwards");
    }

    /// What new holds may take.
    pub(super) fn reservable(&self) -> Micros {
        if wrong::chosen(Wrong::ReserveBlind) { self.figures.total } else { self.figures.available() }
    }

    /// The last entry the state depends on.
    #[must_use]
    pub const fn seq(&self) -> Seq {
        self.figures.seq
    }

    /// The profile.
    #[must_use]
    pub fn profile(&self) -> Arc<AccountProfile> {
        self.profile.clone()
    }

    /// Its figures, provisional.
    #[must_use]
    pub const fn figures(&self) -> &AccountFigures {
        &self.figures
    }

    /// Its live calls, by identity.
    pub fn live_calls(&self) -> impl Iterator<Item = &LiveCall> {
        self.live.values().map(Arc::as_ref)
    }

    /// A live call.
    #[must_use]
    pub fn live_call(&self, call: CallId) -> Option<&LiveCall> {
        self.live.get(&call).map(Arc::as_ref)
    }

    /// Whether nothing would be lost but the last minute's count of calls if the actor went away.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.live.is_empty()
    }

    /// Answered calls that may renew now that money came free: those within the longest renewal lead of their end.
    pub fn calls_short_of_money(&self, now: Now) -> impl Iterator<Item = CallId> {
        self.live.values().filter(move |live| self.near_end(live, now)).map(|live| live.call.id)
    }

    fn near_end(&self, live: &LiveCall, now: Now) -> bool {
        self.talk(live, now).is_some_and(|talk| talk.as_secs() + 20 >= live.paid_s)
    }

    /// How long the B-leg has been talking at `at`; `None` before its answer.
    pub(super) fn talk(&self, live: &LiveCall, at: Now) -> Option<std::time::Duration> {
        let answered = live.answered.as_ref()?;
        if live.call.state == CallState::Ending {
            return Some(super::meter::proved(answered, live.proof_of_life.as_ref()));
        }
        Some(super::meter::talk(answered, live.proof_of_life.as_ref(), at, self.boot))
    }

    pub(super) const fn reading(&self, at: Now) -> ClockReading {
        ClockReading { wall: at.wall, mono: at.mono, boot: self.boot }
    }

    pub(super) const fn next_call_no(&self) -> CallNo {
        self.figures.last_call.next()
    }

    /// Remembers that a call must not be authorized any more: its `Void` came first.
    pub(super) fn remember_void(&mut self, call: CallId) {
        remember(&mut self.voided, call);
    }
}

/// Appends, forgetting the oldest beyond [`REMEMBERED`].
fn remember<T>(list: &mut VecDeque<T>, item: T) {
    if list.len() == REMEMBERED {
        list.pop_front();
    }
    list.push_back(item);
}

/// The place of the last of an entry's `count` events.
pub(crate) fn last_cursor(seq: Seq, count: usize) -> EventCursor {
    EventCursor { seq, index: u16::try_from(count.saturating_sub(1)).unwrap_or(u16::MAX) }
}

/// The rate a live call is charged by, fixed at authorization.
pub(super) fn terms(live: &LiveCall) -> RateTerms {
    live.call.rate().map_or(RateTerms::FREE, |rate| rate.terms)
}
