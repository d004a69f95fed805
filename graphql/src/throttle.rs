//! How often somebody may try to sign in. A function of (table, key, now). `governor` does not fit: it cannot take back an
//! attempt that succeeded, so people who sign in often would be refused like those who guess.

use schema::time::Mono;
use std::collections::BTreeMap;
use std::time::Duration;

/// The window in which attempts count.
pub(crate) const WINDOW: Duration = Duration::from_secs(15 * 60);
/// Most keys held at once; beyond, the oldest go.
const KEYS: usize = 100_000;

/// Attempts by key, where a key is a hash: the table holds nothing personal.
#[derive(Debug)]
pub(crate) struct Throttle {
    limit: usize,
    attempts: BTreeMap<[u8; 16], Vec<Mono>>,
}

impl Throttle {
    /// `limit` attempts in [`WINDOW`].
    pub(crate) const fn new(limit: usize) -> Self {
        Self { limit, attempts: BTreeMap::new() }
    }

    /// Counts an attempt, or says in how many seconds the next is allowed.
    pub(crate) fn attempt(&mut self, key: [u8; 16], now: Mono) -> Result<(), u64> {
        if self.attempts.len() >= KEYS && !self.attempts.contains_key(&key) {
            self.make_room(now);
        }
        let attempts = self.attempts.entry(key).or_default();
        attempts.retain(|at| now.since(*at) < WINDOW);
        if let Some(first) = attempts.first().filter(|_| attempts.len() >= self.limit) {
            return Err((WINDOW - now.since(*first)).as_secs() + 1);
        }
        attempts.push(now);
        Ok(())
    }

    /// Takes back an attempt made at `at`, which turned out to be right.
    pub(crate) fn forgive(&mut self, key: [u8; 16], at: Mono) {
        let Some(attempts) = self.attempts.get_mut(&key) else { return };
        if let Some(index) = attempts.iter().position(|a| *a == at) {
            attempts.remove(index);
        }
        if attempts.is_empty() {
            self.attempts.remove(&key);
        }
    }

    /// Drops what no longer counts, or else the half that was idle for longest.
    fn make_room(&mut self, now: Mono) {
        self.attempts.retain(|_, attempts| attempts.last().is_some_and(|at| now.since(*at) < WINDOW));
        if self.attempts.len() >= KEYS {
            let mut last: Vec<Mono> = self.attempts.values().filter_map(|attempts| attempts.last().copied()).collect();
            last.sort_unstable();
            let middle = last[last.len() / 2];
            self.attempts.retain(|_, attempts| attempts.last().is_some_and(|at| *at > middle));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn second(n: u64) -> Mono {
        Mono(n * 1_000_000)
    }

    #[test]
    fn the_sixth_attempt_waits_until_the_first_is_old() {
        let mut table = Throttle::new(5);
        for n in 0..5 {
            assert_eq!(table.attempt([1; 16], second(n)), Ok(()));
        }
        assert_eq!(table.attempt([1; 16], second(10)), Err(891));
        assert_eq!(table.attempt([2; 16], second(10)), Ok(()), "another key is not concerned");
        assert_eq!(table.attempt([1; 16], second(900)), Ok(()));
        assert!(table.attempt([1; 16], second(900)).is_err());
    }

    #[test]
    fn a_right_attempt_does_not_count() {
        let mut table = Throttle::new(1);
        for n in 0..10 {
            assert_eq!(table.attempt([1; 16], second(n)), Ok(()));
            table.forgive([1; 16], second(n));
        }
        assert!(table.attempts.is_empty());
    }

    #[test]
    fn the_table_is_bounded() {
        let mut table = Throttle::new(5);
        for n in 0..150_000_u64 {
            let mut key = [0; 16];
            key[..8].copy_from_slice(&n.to_be_bytes());
            assert_eq!(table.attempt(key, Mono(n)), Ok(()));
            assert!(table.attempts.len() <= KEYS);
        }
    }

    proptest! {
        #[test]
        fn never_more_than_the_limit_in_any_window(gaps in proptest::collection::vec(0..400_u64, 1..60)) {
            let (mut table, mut now, mut allowed) = (Throttle::new(5), 0, Vec::new());
            for gap in gaps {
                now += gap;
                if table.attempt([0; 16], second(now)).is_ok() {
                    allowed.push(now);
                }
            }
            for window in allowed.windows(6) {
                prop_assert!(window[5] - window[0] >= WINDOW.as_secs());
            }
        }
    }
}
