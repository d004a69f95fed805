//! How long something that failed rests before it is started again, and when its supervisor has seen too much: back-off and
//! restart intensity, as a function of (state, who failed, now). It starts nothing and tells nobody.

use schema::time::Mono;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Subjects remembered by one supervisor. Beyond, the one whose rest ends first is forgotten.
const SUBJECTS_MAX: usize = 4_096;

/// The rules of one supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Failures in a row that cost no rest.
    pub(crate) free: u32,
    /// The first rest; each further failure in a row doubles it.
    pub(crate) first: Duration,
    /// The longest rest.
    pub(crate) longest: Duration,
    /// After so long without a failure, counted from the end of its rest, a subject begins anew.
    pub(crate) quiet: Duration,
    /// More failures than this within `window`, over all subjects, are beyond the supervisor's intensity: whoever fails then
    /// takes the longest rest at once.
    pub(crate) intensity: usize,
    /// See `intensity`.
    pub(crate) window: Duration,
}

/// What a supervisor remembers of failures.
#[derive(Debug)]
pub(crate) struct Restarts<K> {
    policy: Policy,
    subjects: BTreeMap<K, Subject>,
    /// The last failures, one more than the intensity allows.
    recent: VecDeque<Mono>,
    /// What was last said of the intensity.
    said_beyond: bool,
}

#[derive(Debug, Clone, Copy)]
struct Subject {
    in_a_row: u32,
    rests_until: Mono,
}

impl<K: Ord + Copy> Restarts<K> {
    pub(crate) const fn new(policy: Policy) -> Self {
        Self { policy, subjects: BTreeMap::new(), recent: VecDeque::new(), said_beyond: false }
    }

    /// A subject failed. Gives how long it rests.
    pub(crate) fn failed(&mut self, subject: K, now: Mono) -> Duration {
        self.recent.push_back(now);
        while self.recent.len() > self.policy.intensity.saturating_add(1) {
            self.recent.pop_front();
        }
        let before = self.subjects.get(&subject).filter(|before| !self.is_quiet(before, now));
        let in_a_row = before.map_or(0, |before| before.in_a_row).saturating_add(1);
        let rest = if self.is_beyond(now) { self.policy.longest } else { self.rest_after(in_a_row) };
        if self.subjects.len() >= SUBJECTS_MAX && !self.subjects.contains_key(&subject) {
            self.forget_some(now);
        }
        self.subjects.insert(subject, Subject { in_a_row, rests_until: now + rest });
        rest
    }

    /// How long a subject still rests; zero: it may be started.
    pub(crate) fn rest(&self, subject: K, now: Mono) -> Duration {
        self.subjects.get(&subject).map_or(Duration::ZERO, |subject| subject.rests_until.since(now))
    }

    /// How many rest.
    pub(crate) fn resting(&self, now: Mono) -> usize {
        self.subjects.values().filter(|subject| subject.rests_until > now).count()
    }

    /// Whether there were more failures lately than the intensity allows.
    pub(crate) fn is_beyond(&self, now: Mono) -> bool {
        let oldest = self.recent.front().filter(|_| self.recent.len() > self.policy.intensity);
        oldest.is_some_and(|at| now.since(*at) < self.policy.window)
    }

    /// [`Self::is_beyond`], when it is not what was said last: each change is to be told once.
    pub(crate) fn news(&mut self, now: Mono) -> Option<bool> {
        let beyond = self.is_beyond(now);
        (std::mem::replace(&mut self.said_beyond, beyond) != beyond).then_some(beyond)
    }

    fn rest_after(&self, in_a_row: u32) -> Duration {
        let Some(doublings) = in_a_row.checked_sub(self.policy.free.saturating_add(1)) else { return Duration::ZERO };
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        self.policy.first.saturating_mul(factor).min(self.policy.longest)
    }

    fn is_quiet(&self, subject: &Subject, now: Mono) -> bool {
        now >= subject.rests_until + self.policy.quiet
    }

    fn forget_some(&mut self, now: Mono) {
        let quiet = self.policy.quiet;
        self.subjects.retain(|_, subject| now < subject.rests_until + quiet);
        if self.subjects.len() >= SUBJECTS_MAX {
            let first = self.subjects.iter().min_by_key(|(_, subject)| subject.rests_until).map(|(key, _)| *key);
            if let Some(first) = first {
                self.subjects.remove(&first);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICY: Policy = Policy {
        free: 1,
        first: Duration::from_millis(10),
        longest: Duration::from_secs(10),
        quiet: Duration::from_secs(10),
        intensity: 20,
        window: Duration::from_secs(10),
    };

    const fn at(ms: u64) -> Mono {
        Mono(ms * 1_000)
    }

    #[test]
    fn each_failure_in_a_row_doubles_the_rest_up_to_the_longest() {
        let mut restarts = Restarts::new(POLICY);
        let mut now = at(0);
        let mut rests = Vec::new();
        for _ in 0..14 {
            let rest = restarts.failed('a', now);
            assert_eq!(restarts.rest('a', now), rest);
            rests.push(rest.as_millis());
            // It fails as soon as it is started.
            now = now + rest;
        }
        assert_eq!(rests, [0, 10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 5_120, 10_000, 10_000, 10_000]);
        assert_eq!(restarts.rest('b', now), Duration::ZERO, "others do not rest with it");
    }

    #[test]
    fn after_a_quiet_time_it_begins_anew() {
        // (failures before, pause after the last rest in ms, rest of the next failure in ms)
        for (before, pause_ms, expected_ms) in [(3, 9_999, 40), (3, 10_000, 0), (1, 9_999, 10), (1, 10_000, 0)] {
            let mut restarts = Restarts::new(POLICY);
            let mut now = at(0);
            for _ in 0..before {
                now = now + restarts.failed('a', now);
            }
            let next = restarts.failed('a', now + Duration::from_millis(pause_ms));
            assert_eq!(next.as_millis(), expected_ms, "{before} failures, {pause_ms} ms");
        }
    }

    #[test]
    fn beyond_the_intensity_whoever_fails_takes_the_longest_rest_and_each_change_is_told_once() {
        let mut restarts = Restarts::new(POLICY);
        for n in 0..20 {
            assert_eq!(restarts.failed(n, at(n)), Duration::ZERO);
            assert_eq!(restarts.news(at(n)), None);
        }
        assert_eq!(restarts.failed(20, at(20)), POLICY.longest);
        assert_eq!((restarts.news(at(20)), restarts.news(at(21))), (Some(true), None));
        assert_eq!((restarts.resting(at(20)), restarts.rest(5, at(20))), (1, Duration::ZERO));
        assert!(restarts.is_beyond(at(9_999)) && !restarts.is_beyond(at(10_000)));
        assert_eq!((restarts.news(at(10_000)), restarts.news(at(10_001))), (Some(false), None));
        assert_eq!(restarts.failed(21, at(10_100)), Duration::ZERO, "the window is over");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut restarts = Restarts::new(Policy { intensity: usize::MAX, ..POLICY });
        for n in 0..3 * SUBJECTS_MAX {
            restarts.failed(n, at(1));
        }
        assert_eq!(restarts.subjects.len(), SUBJECTS_MAX);
    }

    proptest! {
        #[test]
        fn a_rest_is_never_longer_than_the_longest_and_within_the_intensity_nobody_rests_for_another(
            failures in proptest::collection::vec((0..6_u8, 0..3_000_u64), 1..200),
        ) {
            let mut restarts = Restarts::new(POLICY);
            let mut now = at(0);
            let mut times: Vec<Mono> = Vec::new();
            let mut failed = std::collections::BTreeMap::<u8, u32>::new();
            for (subject, pause_ms) in failures {
                now = now + Duration::from_millis(pause_ms);
                times.push(now);
                let rest = restarts.failed(subject, now);
                prop_assert!(rest <= POLICY.longest);
                let lately = times.iter().filter(|time| now.since(**time) < POLICY.window).count();
                prop_assert_eq!(restarts.is_beyond(now), lately > POLICY.intensity);
                let count = failed.entry(subject).or_default();
                *count += 1;
                if lately <= POLICY.intensity {
                    prop_assert!(*count > POLICY.free || rest.is_zero(), "the first failure is free");
                } else {
                    prop_assert_eq!(rest, POLICY.longest);
                }
                prop_assert!(restarts.recent.len() <= POLICY.intensity + 1);
                prop_assert!((0..6).filter(|s| !restarts.rest(*s, now).is_zero()).count() == restarts.resting(now));
            }
        }
    }
}
