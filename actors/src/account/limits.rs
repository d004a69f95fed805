//! How many calls an account began in the last minute.

use schema::time::Mono;
use std::collections::VecDeque;

/// Counts by whole seconds: at most 61 counters. The window is 60 to 61 seconds long, so never more than the limit begin in
/// any 60 seconds.
#[derive(Debug, Default)]
pub struct RecentCalls(VecDeque<(u64, u32)>);

impl RecentCalls {
    /// One more call began.
    pub fn count(&mut self, at: Mono) {
        let second = at.0 / 1_000_000;
        while self.0.front().is_some_and(|(first, _)| first + 60 < second) {
            self.0.pop_front();
        }
        match self.0.back_mut() {
            Some((last, count)) if *last >= second => *count = count.saturating_add(1),
            _ => self.0.push_back((second, 1)),
        }
    }

    /// How many began in the last 60 seconds, and after how many seconds one fewer will count.
    #[must_use]
    pub fn within_a_minute(&self, at: Mono) -> (u32, u64) {
        let second = at.0 / 1_000_000;
        let recent = self.0.iter().filter(|(begun, _)| begun + 60 >= second);
        let count = recent.clone().map(|(_, count)| *count).fold(0, u32::saturating_add);
        let wait = recent.clone().next().map_or(0, |(oldest, _)| (oldest + 61).saturating_sub(second));
        (count, wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(second: u64) -> Mono {
        Mono(second * 1_000_000)
    }

    #[test]
    fn calls_count_for_a_minute() {
        let mut recent = RecentCalls::default();
        for second in [0, 0, 30, 59] {
            recent.count(at(second));
        }
        assert_eq!(recent.within_a_minute(at(59)), (4, 2));
        assert_eq!(recent.within_a_minute(at(61)), (2, 30));
        assert_eq!(recent.within_a_minute(at(200)), (0, 0));
        (61..1_000).for_each(|second| recent.count(at(second)));
        assert!(recent.0.len() <= 61);
    }
}
