//! What strangers have begun to say and not finished, over all connections: bounded, so that thousands of them in the middle of a
//! large message take no more memory than some.

use super::TransportCounts;
use crate::message::Unfinished;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// So much of a message may come whatever others keep: more than what phones say.
const FREE: usize = 8 * 1024;

/// Bytes kept for the unfinished messages of all strangers.
#[derive(Debug, Clone)]
pub(super) struct Incomplete {
    all: Arc<AtomicUsize>,
    most: usize,
    counts: Arc<TransportCounts>,
}

impl Incomplete {
    /// `most`: bytes of all of them.
    pub(super) fn new(most: usize, counts: Arc<TransportCounts>) -> Self {
        Self { all: Arc::default(), most, counts }
    }

    /// For one more connection.
    pub(super) fn share(&self) -> Share {
        Share { of: self.clone(), own: 0 }
    }
}

/// One connection's part; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    of: Incomplete,
    own: usize,
}

impl Share {
    /// Of the connection so much is unfinished now. False, and counted as turned away: that is more than it may, with what the others
    /// keep. Whoever is known keeps what it likes.
    pub(super) fn keep(&mut self, unfinished: Unfinished, is_known: bool) -> bool {
        let own = if is_known { 0 } else { unfinished.takes };
        let is_more = own > self.own;
        self.of.all.fetch_add(own, Relaxed);
        let all = self.of.all.fetch_sub(self.own, Relaxed) - self.own;
        self.own = own;
        let may = !is_more || unfinished.came <= FREE || all <= self.of.most;
        if !may {
            self.of.counts.shed_connections.fetch_add(1, Relaxed);
        }
        may
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.all.fetch_sub(self.own, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn unfinished(bytes: usize) -> Unfinished {
        Unfinished { came: bytes, takes: bytes }
    }

    #[test]
    fn beyond_the_bound_a_stranger_keeps_what_it_has_and_a_little() {
        let all = Incomplete::new(100_000, Arc::default());
        let (mut one, mut other, mut late) = (all.share(), all.share(), all.share());
        let keep = |share: &mut Share, bytes| share.keep(unfinished(bytes), false);
        assert!(keep(&mut one, 60_000) && keep(&mut other, 40_000));
        assert!(late.keep(Unfinished { came: FREE, takes: 2 * FREE }, false), "a phone is not in the way of anybody");
        assert!(!keep(&mut late, 2 * FREE + 1) && keep(&mut late, 100), "it may finish");
        assert!(!keep(&mut other, 40_001) && keep(&mut other, 40_001), "it has grown no further");
        assert_eq!(all.counts.shed_connections.load(Relaxed), 2);
        drop(one);
        assert!(keep(&mut late, 59_999) && !keep(&mut late, 60_000));
        assert!(late.keep(unfinished(60_001), true), "whoever is known is not counted");
        assert_eq!(all.all.load(Relaxed), 40_001);
        drop((other, late));
        assert_eq!(all.all.load(Relaxed), 0);
    }
}
