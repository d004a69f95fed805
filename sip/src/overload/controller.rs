//! How many calls a second are let in when more are wanted than can be carried: a controller that looks at delay alone, in the
//! manner of CoDel (RFC 8289). Pure.
//!
//! A burst makes a queue that is gone again soon; only a queue that stands is a sign of overload. So what counts of a way is the
//! shortest delay within an interval: when even that is long, the queue was never empty. But it tells of calls that came long
//! ago; one that comes now would wait as long as it takes to complete those that wait. While both are long, fewer calls are let
//! in than were completed in a second lately, and the queue drains; when it is short again the limit grows by a twentieth an
//! interval, by a fifth where next to nobody waits, and faster still where it is far below what was completed before. When
//! nobody is refused by it for a while, it is lifted.
//!
//! While many times too many come there is room as well: no more calls wait for what is decided about them than are completed
//! within the bearable delay. That holds the delay at once, where the rate learns of it an interval later. It is for quick disks,
//! where whoever waits does so for processor time.
//!
//! A delay that does not fall although fewer are let in is not a queue: each commit of a slow disk takes that long. It is
//! learnt, within limits, and only what comes on top of it counts.

use super::QUEUE_MIN;
use super::bucket::MilliRate;
use std::collections::VecDeque;
use std::time::Duration;

/// A delay that stands above this is overload.
pub(super) const TARGET: Duration = Duration::from_millis(50);
/// One below this says that there is room.
const SLIGHT: Duration = Duration::from_millis(10);
/// With one above this nobody is let in.
pub(super) const MOST: Duration = Duration::from_millis(500);
/// How long a delay has to stand.
pub(super) const INTERVAL: Duration = Duration::from_millis(100);
/// From one such time to the next a queue becomes shorter by more than [`TARGET`] when fewer are let in than are completed.
const PROOF: Duration = Duration::from_millis(600);
/// The longest delay that is taken for no queue.
const BASE_MAX: Duration = Duration::from_millis(400);
/// Where calls take longer than this of themselves, the disk is slow.
const QUICK: Duration = Duration::from_millis(20);
/// Where so many times what is completed comes, it is a flood.
const FLOOD: u64 = 3;
/// Over so many intervals completions are counted: a slow disk completes many at once and then none for a while.
const INTERVALS: usize = 10;
/// However few were completed, so many are let in while the delay is bearable, else nobody would find out that it is over.
const LEAST: MilliRate = 50_000;
/// So long after it last refused somebody the limit is lifted.
const IDLE_MAX: Duration = Duration::from_secs(1);

/// What is known of an interval when it ends.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Interval {
    pub(super) length: Duration,
    /// The shortest delay of new calls until they were handled.
    pub(super) input: Duration,
    /// The shortest delay of their set-up; `None`: too few to tell.
    pub(super) set_up: Option<Duration>,
    /// The shortest time in which a call's set-up went through.
    pub(super) decided: Option<Duration>,
    /// Calls that were decided about, those turned down included: they took their share of what was let in.
    pub(super) completed: u32,
    /// Calls whose set-up waits.
    pub(super) waiting: u32,
    /// Whether the limit refused somebody.
    pub(super) refused: bool,
    /// Whether as many waited as may.
    pub(super) filled: bool,
    /// Calls that wanted to be let in.
    pub(super) came: u32,
}

#[derive(Debug, Clone, Copy)]
struct Limit {
    rate: MilliRate,
    /// How long it has refused nobody.
    idle: Duration,
}

/// What was seen while fewer are let in than are completed.
#[derive(Debug, Clone, Copy)]
struct Thinned {
    lasts: Duration,
    /// The shortest delay in the first [`PROOF`] of it, and in the second.
    early: Duration,
    late: Duration,
    /// The longest in both.
    longest: Duration,
}

/// See the file.
#[derive(Debug, Default)]
pub(super) struct Controller {
    limit: Option<Limit>,
    /// Completions of the last intervals.
    window: VecDeque<u32>,
    /// The delay without any queue.
    base: Duration,
    /// The shortest time that calls take of themselves; see [`Self::note`].
    unhurried: Option<Duration>,
    /// Whether the room is bounded in a flood, and whether there is one.
    has_room: bool,
    is_flooded: bool,
    /// Since fewer are let in than are completed.
    thinned: Option<Thinned>,
    /// The best rate of completions, which fades by a tenth a second. Not the last one: where the delay is no queue, fewer that
    /// are let in are fewer completed, and so on down.
    best: MilliRate,
}

impl Controller {
    /// `has_room`: the room is bounded in a flood.
    pub(super) fn new(has_room: bool) -> Self {
        Self { has_room, ..Self::default() }
    }

    /// Calls let in a second now, in thousandths; `None`: all. `is_probe`: one call would tell whether it goes again.
    pub(super) fn rate(&self, is_probe: bool) -> Option<MilliRate> {
        self.limit.map(|limit| if is_probe { limit.rate.max(LEAST) } else { limit.rate })
    }

    /// Calls let in a second at most, in thousandths; `None` without a limit.
    pub(super) fn limit(&self) -> Option<MilliRate> {
        self.limit.map(|limit| limit.rate)
    }

    /// Calls that may wait for their set-up: what is completed in [`room_time`], at least sixteen. `None`: any number.
    pub(super) fn room(&self) -> Option<usize> {
        let took = self.unhurried.filter(|took| *took <= QUICK && self.has_room && self.is_flooded)?;
        let calls = self.best.saturating_mul(micros_of(room_time(took)));
        let calls = usize::try_from(calls / 1_000_000_000).unwrap_or(usize::MAX);
        self.limit.map(|_| calls.max(2 * QUEUE_MIN))
    }

    /// An interval is over. Gives the delay that stands.
    pub(super) fn conclude(&mut self, interval: Interval) -> Duration {
        // Whatever happens later than that ends it: of a longer one the rest was quiet.
        self.window.push_back(interval.completed);
        if self.window.len() > INTERVALS {
            self.window.pop_front();
        }
        let completed: u64 = self.window.iter().map(|completed| u64::from(*completed)).sum();
        let micros = micros_of(INTERVAL) * self.window.len() as u64;
        let rate = completed.saturating_mul(1_000_000_000) / micros;
        self.best = rate.max(self.best - self.best / 100);
        let wait = Duration::from_micros(u64::from(interval.waiting) * 1_000_000_000 / rate.max(LEAST));
        if let Some(delay) = interval.set_up {
            self.learn(delay, interval.length.min(2 * INTERVAL));
        }
        let set_up = interval.set_up.map(|set_up| set_up.min(wait));
        // Of a slow disk's delay only what comes on top counts.
        let delay = interval.input.max(set_up.unwrap_or_default().saturating_sub(self.base));
        interval.decided.into_iter().for_each(|took| self.note(took, interval.waiting));
        let most = (FLOOD * self.best.max(LEAST)).saturating_mul(micros_of(interval.length));
        self.is_flooded = u64::from(interval.came) * 1_000_000_000 > most;
        self.limit = self.next_limit(interval, delay, set_up);
        delay
    }

    /// The shortest time that calls take of themselves. It falls at once; it grows while nobody is refused, and where calls take long
    /// although no more wait than there is room for: then the disk has become slower.
    fn note(&mut self, took: Duration, waiting: u32) {
        let before = self.unhurried.unwrap_or(took);
        let is_held = self.room().is_some_and(|room| waiting as usize <= room + room / 4);
        let grows = self.limit.is_none() || (is_held && took > room_time(before) * 3 / 2);
        self.unhurried = Some(took.min(before + if grows { took / 300 } else { Duration::ZERO }));
    }

    fn learn(&mut self, delay: Duration, length: Duration) {
        // It fades, in case it was a queue after all.
        self.base = (self.base - self.base / 200).min(delay);
        if delay <= self.base + TARGET || delay > MOST {
            self.thinned = None;
            return;
        }
        let fresh =
            Thinned { lasts: Duration::ZERO, early: Duration::MAX, late: Duration::MAX, longest: Duration::ZERO };
        let thinned = self.thinned.get_or_insert(fresh);
        let shortest = if thinned.lasts < PROOF { &mut thinned.early } else { &mut thinned.late };
        *shortest = (*shortest).min(delay);
        thinned.longest = thinned.longest.max(delay);
        thinned.lasts += length;
        if thinned.lasts >= 2 * PROOF {
            let is_flat = thinned.longest - thinned.early.min(thinned.late) <= 2 * TARGET;
            if is_flat && thinned.early.abs_diff(thinned.late) < TARGET {
                self.base = thinned.late.min(BASE_MAX);
            }
            self.thinned = None;
        }
    }

    fn next_limit(&self, interval: Interval, delay: Duration, set_up: Option<Duration>) -> Option<Limit> {
        let limit = |rate| Some(Limit { rate, idle: Duration::ZERO });
        if interval.input.max(set_up.unwrap_or_default()) > MOST {
            return limit(0);
        }
        if delay > TARGET {
            let percent = if delay > 4 * TARGET { 50 } else { 85 };
            return limit((self.best * percent / 100).max(LEAST));
        }
        let now = self.limit?;
        if interval.filled {
            // Not the rate is what holds them back.
            return limit((self.best * 105 / 100).max(LEAST));
        }
        if interval.refused {
            let doubled = (now.rate * 2).min(self.best * 85 / 100);
            let more = if delay < SLIGHT { now.rate / 5 } else { now.rate / 20 };
            return limit((now.rate + more).max(doubled).max(LEAST));
        }
        let idle = now.idle + interval.length;
        (idle < IDLE_MAX).then_some(Limit { idle, ..now })
    }
}

/// How long those may wait for whom there is room: [`TARGET`] on top of two commits, since whoever just missed one waits for the next.
fn room_time(unhurried: Duration) -> Duration {
    TARGET + unhurried * 9 / 4
}

fn micros_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
