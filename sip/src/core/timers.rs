//! One heap for all timers. Entries are never taken out early: their owner ignores what it no longer waits for.

use super::matching::{ClientKey, ServerKey};
use schema::edge::Ticket;
use schema::id::{CallId, TrunkId};
use schema::leg::LegId;
use schema::target::GatewayName;
use schema::time::Mono;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

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

#[derive(Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Mono, u64, Timer)>>,
    /// Timers due at the same moment fire in the order they were set.
    set: u64,
}

impl Timers {
    pub(super) fn set(&mut self, at: Mono, timer: Timer) {
        self.set += 1;
        self.heap.push(Reverse((at, self.set, timer)));
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

    pub(super) fn next(&self) -> Option<Mono> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    pub(super) fn pop(&mut self, now: Mono) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, _, timer))| timer)
    }

    /// How many entries of a timer are set.
    #[cfg(test)]
    pub(super) fn count(&self, timer: &Timer) -> usize {
        self.heap.iter().filter(|Reverse((_, _, set))| set == timer).count()
    }
}
