//! All timers. Entries are never taken out early: their owner ignores what it no longer waits for.
//!
//! Most are set for now and one of a few durations, so they come in order: they stand in lanes, where neither setting nor taking one
//! looks at others. Under load a heap would be some hundred thousand entries deep, and each step through it a cache miss.

use super::matching::{ClientKey, ServerKey};
use schema::edge::Ticket;
use schema::id::{CallId, TrunkId};
use schema::leg::LegId;
use schema::target::GatewayName;
use schema::time::Mono;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

/// Whose timer it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Server(ServerKey),
    Client(ClientKey),
    Leg(LegId),
    Lookup(Ticket),
    Bindings,
    Sweep,
    Probe(TrunkId),
    // Rare, and twice as large as the others.
    Name(Box<GatewayName>),
    Register(u64),
    Ended,
    Bye(CallId),
}

/// When it is due, and its number: timers due at the same moment fire in the order they were set.
type Entry = (Mono, u64, Timer);

/// 500 ms, 4, 5, 8, 32 and 60 s and what is between.
const LANES: usize = 8;
const FAR: Duration = Duration::from_secs(64);

#[derive(Default)]
pub(super) struct Timers {
    /// Each in order.
    lanes: [VecDeque<Entry>; LANES],
    /// What fits in no lane, and what is far ahead: in a lane nothing earlier would stand behind it.
    heap: BinaryHeap<Reverse<Entry>>,
    set: u64,
    /// When somebody last asked which are due.
    seen: Mono,
}

/// Where the first one stands.
enum First {
    Lane(usize),
    Heap,
}

impl Timers {
    pub(super) fn set(&mut self, at: Mono, timer: Timer) {
        self.set += 1;
        let entry = (at, self.set, timer);
        if at.since(self.seen) > FAR {
            return self.heap.push(Reverse(entry));
        }
        // The one that is nearest behind: the others keep room for earlier ones.
        let last = |lane: &VecDeque<Entry>| lane.back().map(|(last, ..)| *last);
        let fits = self.lanes.iter_mut().filter(|lane| last(lane).is_none_or(|last| last <= at));
        match fits.max_by_key(|lane| last(lane)) {
            Some(lane) => lane.push_back(entry),
            None => self.heap.push(Reverse(entry)),
        }
    }

    /// Sets a timer unless one that is no later is set already; `armed` is its owner's note of the earliest one set.
    pub(super) fn arm(&mut self, armed: &mut Option<Mono>, at: Option<Mono>, timer: impl FnOnce() -> Timer) {
        let Some(at) = at else { return };
        if armed.is_none_or(|set| at < set) {
            *armed = Some(at);
            self.set(at, timer());
        }
    }

    /// One fires: whether it is the one that its owner's note is of, which then is of none. Any other one was set for later before
    /// an earlier one was wanted; an owner that took it for its own would set the one it waits for twice, for ever.
    pub(super) fn fires(armed: &mut Option<Mono>, now: Mono) -> bool {
        armed.is_none_or(|at| at <= now) && {
            *armed = None;
            true
        }
    }

    fn first(&self) -> Option<(Mono, First)> {
        let lanes = self.lanes.iter().enumerate();
        let lanes = lanes.filter_map(|(n, lane)| lane.front().map(|(at, set, _)| (*at, *set, First::Lane(n))));
        let heap = self.heap.peek().map(|Reverse((at, set, _))| (*at, *set, First::Heap));
        lanes.chain(heap).min_by_key(|(at, set, _)| (*at, *set)).map(|(at, _, first)| (at, first))
    }

    pub(super) fn next(&self) -> Option<Mono> {
        self.first().map(|(at, _)| at)
    }

    pub(super) fn pop(&mut self, now: Mono) -> Option<Timer> {
        self.seen = now;
        let (_, first) = self.first().filter(|(at, _)| *at <= now)?;
        let (_, _, timer) = match first {
            First::Lane(lane) => take(&mut self.lanes[lane])?,
            First::Heap => self.heap.pop()?.0,
        };
        Some(timer)
    }

    /// How many entries of a timer are set.
    #[cfg(test)]
    pub(super) fn count(&self, timer: &Timer) -> usize {
        let set = self.lanes.iter().flatten().chain(self.heap.iter().map(|Reverse(entry)| entry));
        set.filter(|(_, _, set)| set == timer).count()
    }
}

/// The first of a lane, which gives room back that a burst has needed.
fn take(lane: &mut VecDeque<Entry>) -> Option<Entry> {
    let first = lane.pop_front();
    if lane.capacity() > 64 && lane.len() * 4 < lane.capacity() {
        lane.shrink_to(lane.len() * 2);
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// As if all stood in one ordered map, whatever durations they are set for.
        #[test]
        fn timers_fire_in_order_and_none_is_lost(
            steps in proptest::collection::vec((0_u64..3, prop::sample::select(vec![1, 5, 40, 50, 80, 320, 600, 70_000_000]), 0_u64..40), 0..400)
        ) {
            let (mut timers, mut model, mut now) = (Timers::default(), BTreeMap::new(), 0_u64);
            for (number, (step, fixed, loose)) in (0_u64..).zip(steps) {
                if step == 0 {
                    now += loose;
                    let due = model.first_key_value().is_some_and(|((at, _), _)| *at <= now);
                    let fired = due.then(|| model.pop_first().expect("due").1);
                    prop_assert_eq!(timers.pop(Mono(now)), fired);
                } else {
                    // Many with one of a few durations, some with any.
                    let at = now + if step == 1 { fixed } else { loose };
                    timers.set(Mono(at), Timer::Register(number));
                    model.insert((at, number), Timer::Register(number));
                }
                prop_assert_eq!(timers.next(), model.first_key_value().map(|((at, _), _)| Mono(*at)));
            }
            for (_, timer) in model {
                prop_assert_eq!(timers.pop(Mono(u64::MAX)), Some(timer));
            }
            prop_assert_eq!(timers.pop(Mono(u64::MAX)), None);
        }
    }
}
