//! The invariants while a world runs, against what is stored and what was seen on the wire. What is only known at the end is
//! in `history.rs`.

use super::admission::Admission;
use super::ringing::Ringing;
use super::tap::{Notable, Observed, Tap};
use super::trace::Trace;
use super::wall::Wall;
use schema::account::AccountFigures;
use schema::call::LiveCall;
use schema::event::AccountEvent;
use schema::id::{AccountKey, CallId};
use schema::money::Micros;
use schema::time::Mono;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use storage::memory::{MemDisk, MemFaults};
use storage::{Store, StoreError};

/// A call may be up so much longer than it is paid for (I9).
const GRACE: Duration = Duration::from_secs(2);
/// The other leg is ended so much later at most: an answer of the account may have to be awaited first.
const OTHER_LEG: Duration = Duration::from_secs(6);
/// A caller that does not acknowledge its answer is ended no later than this after it: 64·T1.
pub const NO_ACK: Duration = Duration::from_secs(32);
/// After the end of both its legs a call is settled within this time (I5), once the process is up and the disk works.
const SETTLED: Duration = Duration::from_secs(60);
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
    /// The machine had booted before one of them: the wall clock counts then.
    pub rebooted: bool,
}

/// A call that is live as the store says.
type Row = (AccountKey, LiveCall);

/// Looks at a world after each event.
#[derive(Default)]
pub struct Checker {
    /// The wire.
    pub tap: Tap,
    /// What is seen of reliable provisional responses.
    pub ringing: Ringing,
    /// And of admission.
    pub admission: Admission,
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
    /// When connections were reset.
    pub resets: Vec<Mono>,
    /// What the server takes for the time of day.
    pub wall: Wall,
    /// Calls whose actor was made to panic.
    pub panicked: BTreeSet<CallId>,
    /// Reads have failed: a subscriber may be sent to a snapshot.
    pub reads_failed: bool,
    /// Accounts whose subscriber was sent to a snapshot.
    pub skipped: BTreeSet<AccountKey>,
    /// The events that subscribers were told, in order.
    pub told: BTreeMap<AccountKey, Vec<AccountEvent>>,
    /// The number that each account may show.
    pub numbers: BTreeMap<AccountKey, String>,
    /// Which state of the disk was looked at last.
    looked_at: Option<u64>,
    /// As stored: the figures of each account, and the calls that are live.
    figures: BTreeMap<AccountKey, AccountFigures>,
    rows: BTreeMap<CallId, Row>,
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

    /// Another process begins at `now`, after a boot of the machine or not.
    pub fn restarted(&mut self, now: Mono, rebooted: bool) {
        self.crashes.push(now);
        self.legs_left_behind = true;
        self.ringing.restarted();
        self.admission.restarted();
        for call in &self.live {
            if let Some(known) = self.known.get_mut(call) {
                known.crashes.push(now);
                known.rebooted |= rebooted;
            }
        }
    }

    /// The actors are asked about a call to this number; `dialog` is what is known of its caller's.
    pub fn invited(&mut self, call: CallId, number: &str, dialog: &str) {
        let call_id = self.tap.invited(call, number, dialog);
        if let Err(what) = self.admission.let_in(call, call_id) {
            self.broken(what);
        }
    }

    /// Something leaves the server that must not leave too early.
    pub async fn leaves(&mut self, notable: Notable, disk: &MemDisk) {
        let (Notable::Invite { call, .. } | Notable::Accept { call }) = notable;
        let found = reliably(disk, async |store| match store.live_call(call).await? {
            Some((account, live)) => {
                let holds = store.holds(account, live.no).await?;
                Ok(Some((account, live, holds.iter().map(|hold| hold.amount).sum::<Micros>(), holds.len())))
            }
            None => Ok(None),
        });
        let Some((account, live, held, holds)) = found.await else {
            return self.broken(format!("C1: {notable:?} leaves, and the call is not stored"));
        };
        match notable {
            Notable::Invite { call_id, shown, .. } => {
                let same = live.attempt.as_ref().is_some_and(|attempt| attempt.ids.call_id == call_id);
                if !same || holds == 0 || held != live.held {
                    self.broken(format!("C1: an INVITE of {call} leaves without its durable hold ({holds}, {held})"));
                }
                if self.numbers.get(&account).is_none_or(|number| **number != *shown) {
                    self.broken(format!("P2: an INVITE of {call} shows a number that its account did not verify"));
                }
            }
            Notable::Accept { .. } if live.answered.is_none() => {
                self.broken(format!("A2: the caller of {call} hears an answer that is not stored"));
            }
            Notable::Accept { .. } => {}
        }
    }

    /// Looks at everything that has changed. The process has been there since `up_since`; `has_actor` tells of a call, once all
    /// calls are taken up, whether one is there, or whoever settles it.
    pub async fn look(
        &mut self,
        now: Mono,
        up_since: Mono,
        disk: &MemDisk,
        trace: &mut Trace,
        has_actor: Option<&dyn Fn(CallId) -> bool>,
    ) {
        if self.looked_at.replace(disk.version()) != Some(disk.version()) {
            self.look_at_disk(now, disk, trace).await;
        }
        if let Some(has_actor) = has_actor
            && let Some(call) = self.live.iter().find(|call| !has_actor(**call))
        {
            self.broken(format!("A3: {call} is live, and no actor was made for it out of the store"));
        }
        self.ringing.look(now).into_iter().chain(self.admission.unanswered(now)).for_each(|what| self.broken(what));
        let mut calls = self.tap.open();
        while let Some(call) = calls.next(&self.tap) {
            self.look_at_call(call, now, up_since);
        }
    }

    async fn look_at_disk(&mut self, now: Mono, disk: &MemDisk, trace: &mut Trace) {
        let (accounts, live) = reliably(disk, async |store| {
            Ok((store.accounts_page(None, 1_000).await?, store.live_calls(None, 1_000).await?))
        })
        .await;
        for account in &accounts {
            let (key, figures) = (account.profile.key, account.figures);
            let before = self.figures.insert(key, figures);
            if before == Some(figures) {
                continue;
            }
            let (seq, total, held) = (figures.seq.0, figures.total, figures.held);
            if figures.available().is_negative() || held.is_negative() {
                self.broken(format!("L1: account {} has total {total} and held {held}", key.0));
            }
            match before {
                Some(before) if before.seq > figures.seq => {
                    self.broken(format!("I3: account {} went back from entry {} to {seq}", key.0, before.seq.0));
                }
                Some(before) if before.seq == figures.seq => {
                    self.broken(format!("A1: account {} changed without an entry of its actor", key.0));
                }
                _ => {}
            }
            trace.note(now, &format!("account {} committed {seq}: total {total} held {held}", key.0));
        }
        self.follow(live.into_iter().map(|(account, live)| (live.call.id, (account, live))).collect(), disk).await;
        for (key, figures) in self.figures.clone() {
            let held: Micros = self.rows.values().filter(|(owner, _)| *owner == key).map(|(_, live)| live.held).sum();
            if held != figures.held {
                self.broken(format!("L3: account {} holds {}, its live calls {held}", key.0, figures.held));
            }
        }
    }

    /// Which calls are live, and that a call that is no longer so has its CDR.
    async fn follow(&mut self, rows: BTreeMap<CallId, Row>, disk: &MemDisk) {
        for (call, (account, row)) in &rows {
            let known = Known { account: *account, paid_s: row.paid_s, crashes: Vec::new(), rebooted: false };
            self.known.entry(*call).or_insert(known).paid_s = row.paid_s;
            self.has_row(*call);
        }
        let now: BTreeSet<_> = rows.keys().copied().collect();
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
        self.rows = rows;
    }

    /// Of a call that was refused before anybody was asked there is nothing.
    pub fn has_row(&mut self, call: CallId) {
        if !self.admission.was_let_in(call) {
            self.broken(format!("D44: {call} was not let in, and is stored"));
        }
    }

    fn look_at_call(&mut self, call: CallId, now: Mono, up_since: Mono) {
        let Some(seen) = self.tap.calls().get(&call) else { return };
        let row = self.rows.get(&call).map(|(_, live)| live);
        let stored = row.and_then(|row| row.attempt.as_ref()).and_then(|attempt| seen.b_leg(&attempt.ids.call_id));
        let heard = || seen.b_legs.iter().find(|leg| leg.answered.is_some() && leg.answered <= seen.accepted);
        let b_leg = stored.filter(|leg| leg.answered.is_some()).or_else(heard);
        let ends = (seen.a_end(), b_leg.and_then(|leg| leg.bye));
        let answered = b_leg.and_then(|leg| leg.answered);
        match ends {
            (Some(one), Some(other)) => {
                if row.is_none() {
                    self.tap.close(call);
                } else if up_since <= one.max(other) && now > one.max(other) + SETTLED {
                    self.broken(format!("I5: both legs of {call} have ended, and it still holds money"));
                }
            }
            // The BYE to a phone that has lost its connection waits until it comes back.
            (None, Some(_)) if seen.over_tcp && self.has_lost_connection(answered) => {}
            (Some(one), None) | (None, Some(one)) => {
                let unheard = seen.told.filter(|_| seen.acknowledged.is_none()).map(|told| told + NO_ACK);
                if up_since <= one && now > unheard.unwrap_or(one).max(one) + OTHER_LEG {
                    self.broken(format!("C4: one leg of {call} ended at {one:?}, the other goes on"));
                }
            }
            (None, None) => {
                let paid_s = row.map(|row| row.paid_s);
                // It begins when it is durable, however long that takes.
                let begun = seen.accepted.unwrap_or_default().max(up_since);
                self.look_at_grant(call, paid_s, answered, now, begun);
            }
        }
    }

    /// `begun`: when the caller heard its answer, or this process began.
    fn look_at_grant(&mut self, call: CallId, paid_s: Option<u64>, answered: Option<Mono>, now: Mono, begun: Mono) {
        let (Some(paid_s), Some(answered)) = (paid_s, answered) else {
            let since = *self.lost_since.entry(call).or_insert(now);
            if now > since.max(begun) + GRACE {
                self.broken(format!("C2: {call} is up, and nobody pays: it is not live"));
            }
            return;
        };
        // After a boot only the wall clock tells how long it has lasted, and somebody may have set it back.
        let rebooted = self.known.get(&call).is_some_and(|known| known.rebooted);
        let (_, back) = if rebooted { self.wall.set_between(answered, now) } else { Default::default() };
        let paid = answered + Duration::from_secs(paid_s) + back;
        if now > paid.max(begun) + GRACE {
            self.broken(format!("C2: {call} is paid for {paid_s} s and goes on"));
        }
    }

    /// Whether the connection of a call that was answered then may be gone: reset, or ended with a process.
    #[must_use]
    pub fn has_lost_connection(&self, answered: Option<Mono>) -> bool {
        self.resets.iter().chain(&self.crashes).any(|at| answered.is_none_or(|answered| *at >= answered))
    }

    /// A subscriber is told of an event.
    pub async fn told(&mut self, account: AccountKey, event: AccountEvent, disk: &MemDisk) {
        let cursor = event.cursor;
        let stored = reliably(disk, async |store| store.account(account).await).await;
        if stored.is_none_or(|stored| stored.figures.seq < cursor.seq) {
            self.broken(format!("A2: account {} is told of {cursor:?}, which is not stored", account.0));
        }
        let told = self.told.entry(account).or_default();
        let last = told.last().map(|event| event.cursor);
        told.push(event);
        if last.is_some_and(|last| last >= cursor) {
            self.broken(format!("I12: account {} is told of {cursor:?} after {last:?}", account.0));
        }
    }

    /// A top-up was acknowledged.
    pub async fn credited(&mut self, account: AccountKey, key: String, amount: Micros, disk: &MemDisk) {
        let stored = reliably(disk, async |store| store.transfer_by_key(account, &key).await).await;
        if stored.is_none_or(|posted| posted.transfer.amount != amount) {
            self.broken(format!("I3: {key} of account {} was acknowledged and is not stored", account.0));
        }
        if let Some(payment) = self.payments.get_mut(&(account, key)) {
            payment.acknowledged = amount == payment.amount;
        }
    }

    /// Derives every stored figure again.
    pub async fn audit(&mut self, disk: &MemDisk) {
        let report = reliably(disk, async |store| storage::audit::audit(store, |_| {}).await).await;
        for breach in &report.told {
            self.broken(format!("{}: account {}: {}", breach.invariant.as_str(), breach.account.0, breach.what));
        }
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
