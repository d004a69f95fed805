//! The invariants while a world runs, against what is stored and what was seen on the wire. What is only known at the end is
//! in `history.rs`.

use super::admission::Admission;
use super::needless::{Needless, Whom};
use super::ringing::Ringing;
use super::sessions::Sessions;
use super::tally::Tally;
use super::tap::{Notable, Observed, Tap};
use super::tariff::price;
use super::trace::Trace;
use super::wall::Wall;
use actors::account::holds::CUTOFF_LEAD;
use actors::poison::{About, SetAside, Subject, Work};
use actors::{AskError, CreditError};
use schema::account::AccountFigures;
use schema::call::{Call, CallState, LegSide, LiveCall};
use schema::event::AccountEvent;
use schema::id::{AccountKey, CallId, Seq};
use schema::money::Micros;
use schema::rate::RateTerms;
use schema::time::Mono;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use storage::memory::{MemDisk, MemFaults};
use storage::{Store, StoreError};

/// A call may be up so much longer than it is paid for (I9) when what says so came too late for the cut-off.
const GRACE: Duration = Duration::from_secs(2);
/// The other leg is ended so much later at most: an answer of the account may have to be awaited first.
const OTHER_LEG: Duration = Duration::from_secs(6);
/// Whoever may have had a BYE of the process before is asked twice, 64·T1 each.
const ASKED: Duration = Duration::from_secs(64);
/// A caller that does not acknowledge its answer is ended no later than this after it: 64·T1.
pub const NO_ACK: Duration = Duration::from_secs(32);
/// After the end of both its legs a call is settled within this time (I5), once the process is up and the disk works.
const SETTLED: Duration = Duration::from_secs(60);
/// A BYE whose call's end does not become durable is answered after this time all the same (D22).
const BYE_ANSWERED: Duration = Duration::from_secs(4);
/// Broken invariants told in full; a world with more is as broken as can be.
const TOLD: usize = 20;

/// A top-up as its caller knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payment {
    /// How much.
    pub amount: Micros,
    /// Whether it was acknowledged.
    pub acknowledged: bool,
    /// How often it was asked for,
    pub asked: u32,
    /// and refused: nothing was done. Of the others nothing is known.
    pub refused: u32,
}

/// What the checker remembers of a call.
#[derive(Debug, Clone)]
pub struct Known {
    /// Whose.
    pub account: AccountKey,
    /// Seconds paid, as of the last look.
    pub paid_s: u64,
    /// Something was stored that shows that its caller heard the answer.
    pub was_proved: bool,
    /// Since when, as far as is stored, its account could pay a further step of it.
    pub affords_since: Option<Mono>,
    /// When another process took it up.
    pub crashes: Vec<Mono>,
    /// When another process began that knew no more of it, since it was settled before: after the death of one,
    pub forgotten: Vec<Mono>,
    /// or of one that was told to end. Only a BYE that waits for an ACK is forgotten then.
    pub drained: Vec<Mono>,
    /// The machine had booted before one of them: the wall clock counts then.
    pub rebooted: bool,
}

impl Known {
    /// Whether nobody may know any more that one of its legs ended at `since`. `is_unheard`: the other one's BYE waits for an ACK.
    #[must_use]
    pub fn is_forgotten(&self, since: Mono, is_unheard: bool) -> bool {
        let drained = self.drained.iter().filter(|_| is_unheard);
        self.forgotten.iter().chain(drained).any(|at| *at >= since)
    }

    const fn of(account: AccountKey) -> Self {
        Self {
            account,
            paid_s: 0,
            was_proved: false,
            affords_since: None,
            crashes: Vec::new(),
            forgotten: Vec::new(),
            drained: Vec::new(),
            rebooted: false,
        }
    }
}

/// How a process ended that another one follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// It was told to end.
    Drained,
    /// It died,
    Crashed,
    /// and the machine with it.
    Booted,
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
    /// Of sessions.
    pub sessions: Sessions,
    /// And of admission.
    pub admission: Admission,
    /// What may end a call although nobody wants that.
    pub needless: Needless,
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
    /// Carriers of which nothing arrives, from when until when.
    silent: Vec<(usize, Mono, Mono)>,
    /// Something went wrong inside the server, or between it and others, that may end a call.
    pub disturbed: bool,
    /// The numbers in whose calls a phone or a carrier misbehaves.
    pub misbehaving: BTreeSet<Box<str>>,
    /// What the server takes for the time of day.
    pub wall: Wall,
    /// Calls whose actor was made to panic.
    pub panicked: BTreeSet<CallId>,
    /// Messages that were set aside (D20).
    set_aside: BTreeSet<(Subject, Work)>,
    /// Calls whose settlement is set aside, since when and until when.
    unsettled: BTreeMap<CallId, (Mono, Mono)>,
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

    /// The process ends.
    pub fn ended(&mut self, now: Mono) {
        self.disturbed = true;
        self.needless.ended(now);
        self.legs_left_behind |= self.tap.ends_under_way(now);
    }

    /// Another process begins at `now` with what is on the disk.
    pub async fn restarted(&mut self, now: Mono, how: Restart, disk: &MemDisk, trace: &mut Trace) {
        self.look_at_disk(now, disk, trace).await;
        self.crashes.push(now);
        self.tap.restarted();
        self.ringing.restarted();
        self.admission.restarted();
        let (tap, live) = (&self.tap, &self.live);
        self.sessions.restarted(|call_id| tap.call_of(call_id).is_some_and(|call| live.contains(&call)));
        for (call, known) in &mut self.known {
            if self.live.contains(call) {
                known.crashes.push(now);
                known.rebooted |= how == Restart::Booted;
            } else if how == Restart::Drained {
                known.drained.push(now);
            } else {
                known.forgotten.push(now);
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
    pub async fn leaves(&mut self, notable: Notable, disk: &MemDisk, now: Mono, up_since: Mono) {
        let (Notable::Invite { call, .. } | Notable::Accept { call } | Notable::ByeAnswered { call, .. }) = notable
        else {
            return self.broken("C1: an INVITE leaves that nobody has ordered".to_owned());
        };
        let found = reliably(disk, async |store| match store.live_call(call).await? {
            Some((account, live)) => {
                let holds = store.holds(account, live.no).await?;
                Ok(Some((account, live, holds.iter().map(|hold| hold.amount).sum::<Micros>(), holds.len())))
            }
            None => Ok(None),
        });
        let Some((account, live, held, holds)) = found.await else {
            if matches!(notable, Notable::ByeAnswered { .. }) {
                return;
            }
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
            Notable::ByeAnswered { call_id, from_carrier, came, .. } => {
                let is_its = !from_carrier || live.attempt.is_some_and(|attempt| attempt.ids.call_id == call_id);
                let is_kept = live.call.state == CallState::Ending;
                if is_its && live.answered.is_some() && !is_kept && now < came.max(up_since) + BYE_ANSWERED {
                    self.broken(format!("A2: a BYE of {call} is answered, and its end is not stored"));
                }
            }
            Notable::Accept { .. } | Notable::Unordered => {}
        }
    }

    /// Looks at everything that has changed. The process has known of all calls since `up_since`; `has_actor` tells of a call, once all
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
        let waits = [self.ringing.look(now), self.sessions.look(now, up_since)];
        waits.into_iter().flatten().chain(self.admission.unanswered(now)).for_each(|what| self.broken(what));
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
        self.follow(now, live.into_iter().map(|(account, live)| (live.call.id, (account, live))).collect(), disk).await;
        self.look_at_means(now);
        for (key, figures) in self.figures.clone() {
            let held = self.rows.values().filter(|(owner, _)| *owner == key).map(|(_, live)| live.held);
            let live = held.clone().count();
            let held: Micros = held.sum();
            self.needless.has(now, key, figures.available(), live);
            if held != figures.held {
                self.broken(format!("L3: account {} holds {}, its live calls {held}", key.0, figures.held));
            }
        }
    }

    /// Which calls are live, and that a call that is no longer so has its CDR.
    async fn follow(&mut self, at: Mono, rows: BTreeMap<CallId, Row>, disk: &MemDisk) {
        for (call, (account, row)) in &rows {
            let known = self.known.entry(*call).or_insert_with(|| Known::of(*account));
            known.paid_s = row.paid_s;
            known.was_proved |= row.answered.is_some() && !row.is_unheard();
            self.has_row(*call);
        }
        let now: BTreeSet<_> = rows.keys().copied().collect();
        let gone: Vec<_> = self.live.difference(&now).copied().collect();
        for call in gone {
            if reliably(disk, async |store| store.call(call).await).await.is_none() {
                self.broken(format!("C3: {call} is neither live nor in the history"));
            }
            self.needless.over(at, call);
            self.settled.insert(call);
        }
        if let Some(call) = now.intersection(&self.settled).next() {
            self.broken(format!("L3: {call} is live again after it was settled"));
        }
        self.live = now;
        self.rows = rows;
    }

    /// Which live calls have money for a further step.
    fn look_at_means(&mut self, now: Mono) {
        for (call, (account, row)) in &self.rows {
            let (Some(terms), Some(known)) = (terms(&row.call), self.known.get_mut(call)) else { continue };
            let Some(figures) = self.figures.get(account) else { continue };
            let further = price(&RateTerms { grace_s: 0, ..terms }, Duration::from_millis(row.paid_s * 1_000 + 1));
            if further - row.held <= figures.available() {
                known.affords_since.get_or_insert(now);
            } else {
                known.affords_since = None;
            }
        }
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
                } else if now > one.max(other).max(up_since).max(self.set_aside_until(call)) + SETTLED {
                    self.broken(format!("I5: both legs of {call} have ended, and it still holds money"));
                }
            }
            // The BYE to a phone that has lost its connection waits until it comes back.
            (None, Some(_)) if seen.over_tcp && self.has_lost_connection(answered) => {}
            (Some(one), None) | (None, Some(one)) => {
                let unheard = seen.told.filter(|_| seen.acknowledged.is_none()).map(|told| told + NO_ACK);
                let is_unheard = unheard.is_some() && seen.a_end().is_none();
                let forgotten = self.known.get(&call).is_some_and(|known| known.is_forgotten(one, is_unheard));
                // A BYE of ours that went with its process may have reached nobody: whoever may have had it is asked, a caller when it
                // has acknowledged its answer again, or did not. So is one whose CANCEL went with a process, and which the next one
                // told its answer.
                let is_ours = match ends.0 {
                    Some(_) => seen.a_own_bye.is_some() || seen.cancelled.is_some(),
                    None => b_leg.is_some_and(|leg| leg.own_bye.is_some() && !leg.bye_answered),
                };
                let restarted = self.crashes.iter().any(|began| *began >= one);
                let in_doubt = (is_ours || seen.goes_on) && restarted;
                // What a caller said over a connection that went with its process is unknown: its phone is waited for, unless its BYE
                // comes to this one, too.
                let is_awaited = ends.0.is_some() && seen.over_tcp && restarted;
                let known_since = unheard.unwrap_or(one).max(one).max(up_since);
                let latest = match (in_doubt, is_awaited) {
                    (true, _) => known_since.max(seen.acknowledged.unwrap_or_default()) + ASKED,
                    (false, true) => seen.a_bye_came.map_or(known_since + NO_ACK, |came| known_since.max(came)),
                    (false, false) => known_since,
                };
                if !forgotten && now > latest + OTHER_LEG {
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

    /// A message that killed its actor three times is refused for a while (D20): its account's calls may suffer. A call whose settlement
    /// it is keeps its hold, and its end, once that may be kept: no batch of the disk's fails.
    pub fn is_set_aside(&mut self, now: Mono, aside: &SetAside, may_be_kept: bool, tally: &mut Tally) {
        if let Subject::Account(account) = aside.subject {
            self.needless.fails(Whom::Account(account), now);
        }
        let SetAside { subject, work, .. } = *aside;
        let (is_new, is_settlement) = (self.set_aside.insert((subject, work)), work.kind == "settle");
        tally.add_if("messages set aside", is_new);
        tally.add_if("settlements set aside", is_new && is_settlement);
        let About::Call(call, _) = work.about else { return };
        if !is_settlement {
            return;
        }
        let (since, until) = self.unsettled.entry(call).or_insert((now, now));
        *until = now;
        *since = if may_be_kept { *since } else { now };
        let is_late = now > *since + SETTLED;
        if is_late && self.rows.get(&call).is_some_and(|(_, live)| live.call.state != CallState::Ending) {
            self.broken(format!("D20: the settlement of {call} is set aside, and its end is not kept"));
        }
    }

    fn set_aside_until(&self, call: CallId) -> Mono {
        self.unsettled.get(&call).map_or(Mono::default(), |(_, until)| *until)
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
        let latest = if begun + CUTOFF_LEAD > paid { paid.max(begun) + GRACE } else { paid };
        if now > latest {
            self.broken(format!("C2: {call} is paid for {paid_s} s and goes on"));
        }
    }

    /// Whether the connection of a call that was answered then may be gone: reset, or ended with a process.
    #[must_use]
    pub fn has_lost_connection(&self, answered: Option<Mono>) -> bool {
        self.resets.iter().chain(&self.crashes).any(|at| answered.is_none_or(|answered| *at >= answered))
    }

    /// A carrier is cut off until then, in place of how it was; `is_silent`: nothing that it sends arrives.
    pub fn cuts_off(&mut self, carrier: usize, now: Mono, until: Mono, is_silent: bool) {
        let before = self.silent.iter_mut().filter(|(number, ..)| *number == carrier);
        before.for_each(|(.., until)| *until = (*until).min(now));
        if is_silent {
            self.silent.push((carrier, now, until));
        }
    }

    /// Whether nothing of a carrier arrived then.
    #[must_use]
    pub fn was_silent(&self, carrier: usize, at: Mono) -> bool {
        self.silent.iter().any(|(number, from, until)| *number == carrier && (*from..*until).contains(&at))
    }

    /// A subscriber was told of an event, while the account's newest entry was `stored`.
    pub fn told(&mut self, account: AccountKey, event: AccountEvent, stored: Option<Seq>) {
        let cursor = event.cursor;
        if stored.is_none_or(|stored| stored < cursor.seq) {
            self.broken(format!("A2: account {} is told of {cursor:?}, which is not stored", account.0));
        }
        let told = self.told.entry(account).or_default();
        let last = told.last().map(|event| event.cursor);
        told.push(event);
        if last.is_some_and(|last| last >= cursor) {
            self.broken(format!("I12: account {} is told of {cursor:?} after {last:?}", account.0));
        }
    }

    /// A top-up is asked for, perhaps again.
    pub fn asks_for(&mut self, account: AccountKey, key: &str, amount: Micros) {
        let first = Payment { amount, acknowledged: false, asked: 0, refused: 0 };
        self.payments.entry((account, key.to_owned())).or_insert(first).asked += 1;
    }

    /// A top-up was answered, while so much was stored under its key.
    pub fn credited(
        &mut self,
        account: AccountKey,
        key: String,
        answer: Result<Micros, CreditError>,
        stored: Option<Micros>,
    ) {
        if answer.is_ok() && stored != answer.ok() {
            self.broken(format!("A2: {key} of account {} was acknowledged and is not stored", account.0));
        }
        let Some(payment) = self.payments.get_mut(&(account, key)) else { return };
        match answer {
            Ok(amount) => payment.acknowledged = amount == payment.amount,
            Err(error) => payment.refused += u32::from(is_refused(error)),
        }
    }

    /// A hang-up was answered, while the call was in the history or not.
    pub fn hung_up(&mut self, call: CallId, ended: Result<CallState, String>, stored: bool) {
        let Ok(state) = ended else { return };
        if !state.is_over() {
            self.broken(format!("{call} was hung up and is {state:?}"));
        } else if !stored {
            self.broken(format!("A2: {call} is told to be {state:?}, and its end is not stored"));
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

/// What a call costs.
#[must_use]
pub fn terms(call: &Call) -> Option<RateTerms> {
    let leg = call.legs.iter().find(|leg| leg.side == LegSide::B)?;
    leg.rate.as_ref().map(|rate| rate.terms)
}

/// Whether an error says that nothing was done.
const fn is_refused(error: CreditError) -> bool {
    use AskError::{NotFound, NotStored, Resting, Unavailable};
    matches!(error, CreditError::Refused(_) | CreditError::Ask(NotFound | NotStored | Resting | Unavailable))
}

/// Reads the disk as it is, whatever reads of the program under test fail.
pub async fn reliably<T>(disk: &MemDisk, read: impl AsyncFnOnce(&Store) -> Result<T, StoreError>) -> T {
    let faults = disk.faults();
    disk.set_faults(MemFaults { failing_calls: 0, ..faults });
    let found = read(&Store::memory(disk)).await;
    disk.set_faults(faults);
    found.expect("a disk without faults can be read")
}
