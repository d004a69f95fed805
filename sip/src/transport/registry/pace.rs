//! How many TLS handshakes strangers begin, per source.

use crate::guard::Source;
use schema::time::Mono;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Five a second.
const STEP: Duration = Duration::from_millis(200);
/// Twenty at once.
const BURST: Duration = Duration::from_secs(4);
/// Most sources that are remembered; each for 4 s at most.
const SOURCES_MAX: usize = 65_536;

/// Leaky buckets: of each source, when its own is empty again.
#[derive(Debug, Default)]
pub(super) struct Pace {
    empty_at: BTreeMap<Source, Mono>,
    /// The same by time, soonest first.
    order: BTreeSet<(Mono, Source)>,
}

impl Pace {
    /// Lets one through, or not.
    pub(super) fn take(&mut self, source: Source, now: Mono) -> bool {
        while self.order.first().is_some_and(|(at, _)| *at <= now || self.order.len() > SOURCES_MAX) {
            if let Some((_, empty)) = self.order.pop_first() {
                self.empty_at.remove(&empty);
            }
        }
        let before = self.empty_at.get(&source).copied();
        let after = before.unwrap_or(now) + STEP;
        if after > now + BURST {
            return false;
        }
        self.empty_at.insert(source, after);
        if let Some(before) = before {
            self.order.remove(&(before, source));
        }
        self.order.insert((after, source));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_remembered_of_whoever_has_not_come_for_a_while() {
        let mut pace = Pace::default();
        let source = |n: u32| Source::of(std::net::IpAddr::V4(n.into()));
        for n in 0..100 {
            assert!(pace.take(source(n), Mono(0)) && pace.take(source(n), Mono(0)));
        }
        assert_eq!((pace.empty_at.len(), pace.order.len()), (100, 100));
        assert!(pace.take(source(7), Mono(400_000)));
        assert_eq!((pace.empty_at.len(), pace.order.len()), (1, 1));
    }
}
