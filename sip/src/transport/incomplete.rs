//! What peers have begun to say and not finished, over all connections: bounded, so that thousands of them in the middle of a large
//! message take no more memory than some.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// A connection may keep so many bytes whatever others keep: more than what phones say.
const FREE: usize = 8 * 1024;

/// Bytes kept for the incomplete messages of all connections that peers opened.
#[derive(Debug, Clone, Default)]
pub(super) struct Incomplete(Arc<AtomicUsize>);

impl Incomplete {
    /// For one more connection.
    pub(super) fn share(&self, most: usize) -> Share {
        Share { all: self.clone(), own: 0, most }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.0.load(Relaxed)
    }
}

/// One connection's part; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    all: Incomplete,
    own: usize,
    most: usize,
}

impl Share {
    /// The connection keeps so many bytes now. False: that is more than it may, with what the others keep.
    pub(super) fn keep(&mut self, own: usize) -> bool {
        let is_more = own > self.own;
        self.all.0.fetch_add(own, Relaxed);
        let all = self.all.0.fetch_sub(self.own, Relaxed) - self.own;
        self.own = own;
        !is_more || own <= FREE || all <= self.most
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.0.fetch_sub(self.own, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_bound_a_connection_keeps_what_it_has_and_a_little() {
        let all = Incomplete::default();
        let (mut one, mut other, mut late) = (all.share(100_000), all.share(100_000), all.share(100_000));
        assert!(one.keep(60_000) && other.keep(40_000));
        assert!(late.keep(FREE), "a phone is not in the way of anybody");
        assert!(!late.keep(FREE + 1) && late.keep(100), "it may finish");
        assert!(!other.keep(40_001) && other.keep(40_001), "it has grown no further");
        drop(one);
        assert!(late.keep(59_999) && !late.keep(60_000));
        drop((other, late));
        assert_eq!(all.bytes(), 0);
    }
}
