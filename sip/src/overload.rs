//! Which calls the node lets in when more are wanted than it can carry, decided before anything is spent on them. Reasons are of
//! the whole node only: how many calls are live, how many come a second, and how long they wait. Pure.
//!
//! The wait is measured on two ways: from the socket to being handled, and from being handled over to the call's actor to what
//! it decides (its account, the journal and the way back lie between). A call that came and was challenged is let in when it
//! comes back with the answer: it is counted once.

mod bucket;
mod controller;

use bucket::{Bucket, MilliRate};
use controller::{Controller, INTERVAL, Interval, TARGET};
use schema::id::CallId;
use schema::time::Mono;
use std::collections::BTreeSet;
use std::time::Duration;

/// Fewer that wait are no queue: one slow account is not the node's concern.
pub(crate) const QUEUE_MIN: usize = 8;
/// Whose successors of so much later went on is not in line. Some disorder is usual.
const OVERTAKEN: Duration = Duration::from_secs(1);
/// So long after the last call was let in another one is, whatever the delay.
const PROBED_AFTER: Duration = Duration::from_secs(2);
/// What comes within this at once passes the limit of calls a second.
const BURST: Duration = Duration::from_secs(1);
/// Refusals are shown in the log no more often.
const SAID_EVERY: Duration = Duration::from_secs(1);

/// Why something new is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Too many calls or transactions are live.
    Live,
    /// Too many calls a second.
    Rate,
    /// New calls wait too long.
    Delay,
    /// There is no room to wait.
    Queue,
    /// Too many phones register at once.
    Registrations,
}

/// What was refused since the start, by reason, each with 503 and Retry-After; and how it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OverloadCounts {
    /// Too many calls or transactions were live.
    pub live: u64,
    /// Too many calls a second.
    pub rate: u64,
    /// New calls waited too long.
    pub delay: u64,
    /// There was no room to wait.
    pub queue: u64,
    /// Too many phones registered at once.
    pub registrations: u64,
    /// The delay that new calls had at least, in the last interval of 100 ms.
    pub standing: Duration,
    /// Calls let in a second because of it, in thousandths; `None`: all.
    pub limit: Option<u64>,
}

/// The shortest of the delays seen in an interval.
#[derive(Debug, Clone, Copy, Default)]
struct Shortest {
    delay: Option<Duration>,
    seen: usize,
}

impl Shortest {
    fn note(&mut self, delay: Duration) {
        self.delay = Some(self.delay.map_or(delay, |shortest| shortest.min(delay)));
        self.seen += 1;
    }
}

/// Calls let in a second, in thousandths.
#[derive(Clone, Copy)]
struct Rates {
    /// `None` while they do not wait too long.
    by_delay: Option<MilliRate>,
    per_second: MilliRate,
    /// Whether as many wait as may.
    is_filled: bool,
}

/// Counts what passes.
#[derive(Default)]
struct Gate {
    delay: Bucket,
    rate: Bucket,
}

impl Gate {
    fn pass(&mut self, rates: Rates, is_known: bool, now: Mono) -> Result<(), Reason> {
        let share = if is_known { 1 } else { 2 };
        if rates.is_filled {
            return Err(Reason::Delay);
        }
        let by_delay = |rate: &MilliRate| self.delay.has_room(*rate, INTERVAL / share, now);
        if !rates.by_delay.as_ref().is_none_or(by_delay) {
            return Err(Reason::Delay);
        }
        if !self.rate.take(rates.per_second, BURST / share, now) {
            return Err(Reason::Rate);
        }
        if let Some(rate) = rates.by_delay {
            self.delay.take(rate, INTERVAL / share, now);
        }
        Ok(())
    }
}

/// See the file.
pub(crate) struct Overload {
    /// Calls let in a second at most, in thousandths.
    per_second: MilliRate,
    controller: Controller,
    /// What calls pass at first sight, and then when they are read: their rates are the same.
    first_sight: Gate,
    gate: Gate,
    /// Calls whose actors have not decided yet, the oldest first.
    undecided: BTreeSet<(Mono, CallId)>,
    /// When the newest one that went on came.
    newest_decided: Mono,
    /// Those that came so long before it ([`OVERTAKEN`]) wait for something else than their turn.
    overtaken: usize,
    /// When the interval began.
    since: Mono,
    waited: Shortest,
    decided: Shortest,
    others_waited: Shortest,
    refused: bool,
    /// Whether as many waited as may.
    filled: bool,
    /// How often a call wanted to be let in.
    came: u32,
    /// Whether requests other than INVITE wait too long.
    others_stand: bool,
    counts: OverloadCounts,
    said: Said,
}

/// What was last shown in the log.
#[derive(Default)]
struct Said {
    at: Option<Mono>,
    counts: OverloadCounts,
}

impl Overload {
    /// With at most so many calls a second; `bounds_waiting`: see [`crate::core::CoreConfig::bounds_waiting`].
    pub(crate) fn new(per_second: u32, bounds_waiting: bool) -> Self {
        Self {
            per_second: u64::from(per_second) * 1_000,
            controller: Controller::new(bounds_waiting),
            first_sight: Gate::default(),
            gate: Gate::default(),
            undecided: BTreeSet::new(),
            newest_decided: Mono(0),
            overtaken: 0,
            since: Mono(0),
            waited: Shortest::default(),
            decided: Shortest::default(),
            others_waited: Shortest::default(),
            refused: false,
            filled: false,
            came: 0,
            others_stand: false,
            counts: OverloadCounts::default(),
            said: Said::default(),
        }
    }

    pub(crate) const fn counts(&self) -> OverloadCounts {
        self.counts
    }

    /// Calls about which nobody has decided.
    pub(crate) fn undecided(&self) -> usize {
        self.undecided.len()
    }

    /// Lets a call in. `is_known`: from a source that has customers; what others take leaves it half of the burst.
    ///
    /// # Errors
    /// Why not. Whoever answers says so with [`Self::refuse`].
    pub(crate) fn admit(&mut self, is_known: bool, now: Mono) -> Result<(), Reason> {
        let rates = self.rates(now);
        let passed = self.gate.pass(rates, is_known, now);
        self.refused |= passed == Err(Reason::Delay);
        self.came = self.came.saturating_add(1);
        passed
    }

    /// Whether fewer calls are let in than may come: then it is worth looking at one before it is read.
    pub(crate) fn is_thinning(&self, now: Mono) -> bool {
        self.controller.limit().is_some() || !self.gate.rate.has_room(self.per_second, BURST / 2, now)
    }

    /// Whether a call that is looked at may be read, and then [`Self::admit`] be asked. As many may as that lets in.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn look_at(&mut self, is_known: bool, now: Mono) -> Result<(), Reason> {
        let rates = self.rates(now);
        let passed = self.first_sight.pass(rates, is_known, now);
        self.refused |= passed == Err(Reason::Delay);
        // Who passes asks to be admitted.
        self.came = self.came.saturating_add(u32::from(passed.is_err()));
        passed
    }

    fn rates(&mut self, now: Mono) -> Rates {
        self.pass(now);
        let waiting = self.waiting();
        // Perhaps those that wait are not in line at all: the next one shows it.
        let is_late = |(since, _): &(Mono, CallId)| now.since(*since) >= PROBED_AFTER;
        let is_probe = waiting == 0 || self.undecided.last().is_some_and(is_late);
        let is_filled = !is_probe && self.controller.room().is_some_and(|room| waiting >= room);
        self.filled |= is_filled;
        let by_delay = self.controller.rate(is_probe);
        Rates { by_delay, per_second: self.per_second, is_filled }
    }

    /// Whether a phone may begin to register.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn admit_registration(&mut self, now: Mono) -> Result<(), Reason> {
        self.pass(now);
        if self.others_stand { Err(Reason::Registrations) } else { Ok(()) }
    }

    /// Something is refused. Gives what to show in the log, at most once a second: how many were refused since the last time.
    pub(crate) fn refuse(&mut self, reason: Reason, now: Mono) -> Option<OverloadCounts> {
        let count = match reason {
            Reason::Live => &mut self.counts.live,
            Reason::Rate => &mut self.counts.rate,
            Reason::Delay => &mut self.counts.delay,
            Reason::Queue => &mut self.counts.queue,
            Reason::Registrations => &mut self.counts.registrations,
        };
        *count += 1;
        if self.said.at.is_some_and(|at| now.since(at) < SAID_EVERY) {
            return None;
        }
        let (now_is, before) = (self.counts, self.said.counts);
        self.said = Said { at: Some(now), counts: now_is };
        Some(OverloadCounts {
            live: now_is.live - before.live,
            rate: now_is.rate - before.rate,
            delay: now_is.delay - before.delay,
            queue: now_is.queue - before.queue,
            registrations: now_is.registrations - before.registrations,
            ..now_is
        })
    }

    /// How long the oldest request has waited to be handled, of INVITEs and of others; zero where fewer than [`QUEUE_MIN`] wait.
    pub(crate) fn waited(&mut self, calls: Duration, others: Duration, now: Mono) {
        self.pass(now);
        self.waited.note(calls);
        self.others_waited.note(others);
    }

    /// A call's actor is asked.
    pub(crate) fn asked(&mut self, call: CallId, now: Mono) {
        self.pass(now);
        self.undecided.insert((now, call));
    }

    /// It goes on with a call that it was asked about `since` then.
    pub(crate) fn decided(&mut self, call: CallId, since: Mono, now: Mono) {
        self.pass(now);
        if self.undecided.remove(&(since, call)) {
            self.decided.note(now.since(since));
            self.newest_decided = self.newest_decided.max(since);
        }
    }

    /// It refuses one. That may be without a commit, so it does not tell how long they take.
    pub(crate) fn turned_down(&mut self, call: CallId, since: Mono, now: Mono) {
        self.pass(now);
        self.decided.seen += usize::from(self.undecided.remove(&(since, call)));
    }

    /// The call is over before, or was refused unseen: that says nothing of how long it takes.
    pub(crate) fn withdrawn(&mut self, call: CallId, since: Mono) {
        self.undecided.remove(&(since, call));
    }

    /// Ends the interval when it is over.
    fn pass(&mut self, now: Mono) {
        let length = now.since(self.since);
        if length < INTERVAL {
            return;
        }
        let is_overtaken = |(since, _): &&(Mono, CallId)| *since + OVERTAKEN < self.newest_decided;
        self.overtaken = self.undecided.iter().take_while(is_overtaken).count();
        let count = |number| u32::try_from(number).unwrap_or(u32::MAX);
        let standing = self.controller.conclude(Interval {
            length,
            input: self.waited.delay.unwrap_or_default(),
            set_up: self.set_up_delay(now),
            decided: self.decided.delay,
            completed: count(self.decided.seen),
            waiting: count(self.waiting()),
            refused: self.refused,
            filled: self.filled,
            came: self.came,
        });
        self.others_stand = self.others_waited.delay.is_some_and(|delay| delay > TARGET);
        (self.counts.standing, self.counts.limit) = (standing, self.controller.limit());
        (self.waited, self.decided, self.others_waited) = <_>::default();
        (self.refused, self.filled, self.came, self.since) = (false, false, 0, now);
    }

    /// How many wait in line.
    fn waiting(&self) -> usize {
        self.undecided.len() - self.overtaken.min(self.undecided.len())
    }

    /// The shortest time in which a call was decided about; while none is, half of what the oldest has waited: when many are
    /// committed together, whoever just missed a commit waits for two. `None`: too few calls.
    fn set_up_delay(&self, now: Mono) -> Option<Duration> {
        if self.decided.seen + self.waiting() < QUEUE_MIN {
            return None;
        }
        let oldest = || self.undecided.iter().nth(self.overtaken).map(|(since, _)| now.since(*since) / 2);
        self.decided.delay.or_else(oldest)
    }
}

#[cfg(test)]
mod tests;
