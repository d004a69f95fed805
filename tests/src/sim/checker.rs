//! The invariants while a world runs, against what is stored and what was seen on the wire. What is only known at the end is
//! in `history.rs`.

use super::tap::{Notable, Observed, Tap};
use super::trace::Trace;
use schema::call::LiveCall;
use schema::event::EventCursor;
use schema::id::{AccountKey, CallId, Seq};
use schema::money::Micros;
use schema::time::Mono;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use storage::memory::{MemDisk, MemFaults};
use storage::{Store, StoreError};

/// A call may be up so much longer than it is paid for (`security.md` I9).
const GRACE: Duration = Duration::from_secs(2);
/// The other leg is ended so much later at most: an answer of the account may have to be awaited first.
const OTHER_LEG: Duration = Duration::from_secs(6);
/// A caller that does not acknowledge its answer is ended no later than this after it: 64·T1.
pub const NO_ACK: Duration = Duration::from_secs(32);
/// Broken invariants told in full; a world with more is as broken as can be.
const TOLD: usize = 20;

/// A top-up as its caller knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payment {
    /// How much.
    pub amount: Micros,
    /// Whether it was acknowledged; else it is unknown.
    pub acknowledged: bool,
}

/// What the checker remembers of a call.
#[derive(Debug, Clone)]
pub struct Known {
    /// Whose.
    pub account: AccountKey,
    /// Seconds paid, as of the last look.
    pub paid_s: u64,
    /// When another process took it up.
    pub crashes: Vec<Mono>,
}

/// Looks at a world after each event.
#[derive(Default)]
pub struct Checker {
    /// The wire.
    pub tap: Tap,
    /// Calls that were live at some time.
    pub known: BTreeMap<CallId, Known>,
    /// Calls that are live now.
    pub live: BTreeSet<CallId>,
    /// Top-ups by account and key.
    pub payments: BTreeMap<(AccountKey, String), Payment>,
    /// When other processes began.
    pub crashes: Vec<Mono>,
    /// A BYE may never have reached its receiver, which does not know then that the call is over.
    pub legs_left_behind: bool,
    /// Calls whose actor was made to panic.
    pub panicked: BTreeSet<CallId>,
    /// Reads have failed: a subscriber may be sent to a snapshot.
    pub reads_failed: bool,
    /// Accounts whose subscriber was sent to a snapshot.
    pub skipped: BTreeSet<AccountKey>,
    /// Places of the events that subscribers were told, in order.
    pub told: BTreeMap<AccountKey, Vec<EventCursor>>,
    /// The last entry of each account.
    stored: BTreeMap<AccountKey, Seq>,
    /// Calls that were live and are not any more.
    settled: BTreeSet<CallId>,
    /// Since when a call is up on the wire and not in the store.
    lost_since: BTreeMap<CallId, Mono>,
    violations: Vec<String>,
}

impl Checker {
    /// Notes a broken invariant.
    pub fn broken(&mut self, what: String) {
        if self.violations.len() < TOLD && !self.violations.contains(&what) {
            self.violations.push(what);
        }
    }

    /// What was broken.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// Another process begins at `now`.
    pub fn crashed(&mut self, now: Mono) {
        self.crashes.push(now);
        self.legs_left_behind = true;
        for call in &self.live {
            if let Some(known) = self.known.get_mut(call) {
                known.crashes.push(now);
            }
        }
    }

    /// Something leaves the server that must not leave too early.
    pub async fn leaves(&mut self, notable: Notable, disk: &MemDisk) {
        let (Notable::Invite { call, .. } | Notable::Accept { call }) = notable;
        let found = reliably(disk, async |store| match store.live_call(call).await? {
            Some((account, live)) => {
                let holds = store.holds(account, live.no).await?;
                Ok(Some((live, holds.iter().map(|hold| hold.amount).sum::<Micros>(), holds.len())))
            }
            None => Ok(None),
        });
        let Some((live, held, holds)) = found.await else {
            return self.broken(format!("C1: {notable:?} leaves, and the call is not stored"));
        };
        match notable {
            Notable::Invite { call_id, .. } => {
                let same = live.attempt.as_ref().is_some_and(|attempt| attempt.ids.call_id == call_id);
                if !same || holds == 0 || held != live.held {
                    self.broken(format!("C1: an INVITE of {call} leaves without its durable hold ({holds}, {held})"));
                }
            }
            Notable::Accept { .. } if live.answered.is_none() => {
                self.broken(format!("A2: the caller of {call} hears an answer that is not stored"));
            }
            Notable::Accept { .. } => {}
        }
    }

    /// Looks at everything. The process has been there since `up_since`.
    pub async fn look(&mut self, now: Mono, up_since: Mono, disk: &MemDisk, trace: &mut Trace) {
        let (accounts, live) = reliably(disk, async |store| {
            Ok((store.accounts_page(None, 1_000).await?, store.live_calls(None, 1_000).await?))
        })
        .await;
        for account in &accounts {
            let (key, figures) = (account.profile.key, account.figures);
            if figures.available().is_negative() || figures.held.is_negative() {
                self.broken(format!("L1: account {} has total {} and held {}", key.0, figures.total, figures.held));
            }
            if self.stored.insert(key, figures.seq) != Some(figures.seq) {
                let (seq, total, held) = (figures.seq.0, figures.total, figures.held);
                trace.note(now, &format!("account {} committed {seq}: total {total} held {held}", key.0));
            }
        }
        let live: BTreeMap<_, _> = live.into_iter().map(|(account, live)| (live.call.id, (account, live))).collect();
        self.follow(&live, disk).await;
        let calls: Vec<_> =
            self.tap.calls().iter().filter(|(_, seen)| seen.accepted.is_some()).map(|(c, _)| *c).collect();
        for call in calls {
            self.look_at_call(call, live.get(&call).map(|(_, live)| live), now, up_since);
        }
    }

    /// Which calls are live, and that a call that is no longer so has its CDR.
    async fn follow(&mut self, live: &BTreeMap<CallId, (AccountKey, LiveCall)>, disk: &MemDisk) {
        for (call, (account, row)) in live {
            let known = Known { account: *account, paid_s: row.paid_s, crashes: Vec::new() };
            self.known.entry(*call).or_insert(known).paid_s = row.paid_s;
        }
        let now: BTreeSet<_> = live.keys().copied().collect();
        let gone: Vec<_> = self.live.difference(&now).copied().collect();
        for call in gone {
            if reliably(disk, async |store| store.call(call).await).await.is_none() {
                self.broken(format!("C3: {call} is neither live nor in the history"));
            }
            self.settled.insert(call);
        }
        if let Some(call) = now.intersection(&self.settled).next() {
            self.broken(format!("L3: {call} is live again after it was settled"));
        }
        self.live = now;
    }

    fn look_at_call(&mut self, call: CallId, row: Option<&LiveCall>, now: Mono, up_since: Mono) {
        let Some(seen) = self.tap.calls().get(&call) else { return };
        let stored = row.and_then(|row| row.attempt.as_ref()).and_then(|attempt| seen.b_leg(&attempt.ids.call_id));
        let heard = || seen.b_legs.iter().find(|leg| leg.answered.is_some() && leg.answered <= seen.accepted);
        let b_leg = stored.filter(|leg| leg.answered.is_some()).or_else(heard);
        let ends = (seen.a_end(), b_leg.and_then(|leg| leg.bye));
        let answered = b_leg.and_then(|leg| leg.answered);
        match ends {
            (Some(_), Some(_)) => {}
            (Some(one), None) | (None, Some(one)) => {
                let unheard = seen.told.filter(|_| seen.acknowledged.is_none()).map(|told| told + NO_ACK);
                if up_since <= one && now > unheard.unwrap_or(one).max(one) + OTHER_LEG {
                    self.broken(format!("C4: one leg of {call} ended at {one:?}, the other goes on"));
                }
            }
            (None, None) => self.look_at_grant(call, row, answered, now, up_since),
        }
    }

    fn look_at_grant(
        &mut self,
        call: CallId,
        row: Option<&LiveCall>,
        answered: Option<Mono>,
        now: Mono,
        up_since: Mono,
    ) {
        let (Some(row), Some(answered)) = (row, answered) else {
            let since = *self.lost_since.entry(call).or_insert(now);
            if now > since.max(up_since) + GRACE {
                self.broken(format!("C2: {call} is up, and nobody pays: it is not live"));
            }
            return;
        };
        let paid = answered + Duration::from_secs(row.paid_s);
        if now > paid.max(up_since) + GRACE {
            self.broken(format!("C2: {call} is paid for {} s and still up at {now:?}", row.paid_s));
        }
    }

    /// A subscriber is told of an event.
    pub async fn told(&mut self, account: AccountKey, cursor: EventCursor, disk: &MemDisk) {
        let stored = reliably(disk, async |store| store.account(account).await).await;
        if stored.is_none_or(|stored| stored.figures.seq < cursor.seq) {
            self.broken(format!("A2: account {} is told of {cursor:?}, which is not stored", account.0));
        }
        self.told.entry(account).or_default().push(cursor);
    }

    /// A subscriber is sent to a snapshot: only right when the events could not be read, since all are kept.
    pub fn not_told(&mut self, account: AccountKey) {
        self.skipped.insert(account);
        if !self.reads_failed {
            self.broken(format!("A2: a subscriber of account {} is sent to a snapshot", account.0));
        }
    }

    /// What was seen of a call.
    #[must_use]
    pub fn seen(&self, call: CallId) -> Option<&Observed> {
        self.tap.calls().get(&call)
    }
}

/// Reads the disk as it is, whatever reads of the program under test fail.
pub async fn reliably<T>(disk: &MemDisk, read: impl AsyncFnOnce(&Store) -> Result<T, StoreError>) -> T {
    let faults = disk.faults();
    disk.set_faults(MemFaults { failing_calls: 0, ..faults });
    let found = read(&Store::memory(disk)).await;
    disk.set_faults(faults);
    found.expect("a disk without faults can be read")
}
