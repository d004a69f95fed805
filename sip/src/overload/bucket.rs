//! A limit of calls a second that lets a burst through. Pure.

use schema::time::Mono;
use std::time::Duration;

/// Calls a second, in thousandths.
pub(super) type MilliRate = u64;

/// As a leaky bucket: it remembers only when it is empty again.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bucket {
    empty_at: Mono,
}

impl Bucket {
    /// When one more call would have drained away; `None` when there is no room for it. A bucket takes what drains within
    /// `burst`, at least one call.
    fn with_one_more(self, rate: MilliRate, burst: Duration, now: Mono) -> Option<Mono> {
        let step = Duration::from_micros(1_000_000_000_u64.checked_div(rate)?);
        let empty_at = self.empty_at.max(now) + step;
        (empty_at <= now + burst.max(step)).then_some(empty_at)
    }

    pub(super) fn has_room(self, rate: MilliRate, burst: Duration, now: Mono) -> bool {
        self.with_one_more(rate, burst, now).is_some()
    }

    /// Lets one call through, or not.
    pub(super) fn take(&mut self, rate: MilliRate, burst: Duration, now: Mono) -> bool {
        let taken = self.with_one_more(rate, burst, now);
        self.empty_at = taken.unwrap_or(self.empty_at);
        taken.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let second = Duration::from_secs(1);
        let mut bucket = Bucket::default();
        let mut taken = |at_ms: u64| (0..100).filter(|_| bucket.take(10_000, second, Mono(at_ms * 1_000))).count();
        assert_eq!((taken(5_000), taken(5_099), taken(5_100), taken(5_450), taken(60_000)), (10, 0, 1, 3, 10));
        assert!(!Bucket::default().has_room(0, second, Mono(9_000_000)), "no rate lets nobody through");
        let mut slow = Bucket::default();
        let mut taken = |at_ms: u64| slow.take(1_000, Duration::from_millis(100), Mono(at_ms * 1_000));
        assert!(taken(1_000) && !taken(1_500) && taken(2_000), "one, however short the burst");
    }
}
