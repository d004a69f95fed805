//! How many calls an account has up, began and was refused in the last minute, and how many it may.

use super::core::AccountCore;
use schema::call::{Refusal, RefusalCode};
use schema::time::{Mono, Now};
use std::collections::VecDeque;

/// So many refused calls of a minute go on record, or as many as the account may begin. Beyond that whoever asks is told, and
/// nothing is written: a phone that dials without end would fill the disk.
const REFUSALS_RECORDED: u32 = 10;

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

impl AccountCore {
    pub(super) fn check_limits(&self, now: Now) -> Result<(), Refusal> {
        let limits = &self.profile.limits;
        let (live, most) = (self.live.len(), limits.live_calls);
        if live >= most as usize {
            let message = format!("{live} calls are up and the account's limit is {most}: end one first");
            return Err(Refusal { code: RefusalCode::TooManyCalls, message });
        }
        let (begun, wait) = self.recent.within_a_minute(now.mono);
        if begun >= limits.calls_per_minute {
            let most = limits.calls_per_minute;
            let message =
                format!("{begun} calls began in the last minute and the account's limit is {most}: wait {wait} s");
            return Err(Refusal { code: RefusalCode::TooFast, message });
        }
        Ok(())
    }

    /// Whether a call that is refused now goes on record.
    pub(super) fn records_refusals(&self, now: Now) -> bool {
        let (refused, _) = self.refused.within_a_minute(now.mono);
        refused < self.profile.limits.calls_per_minute.max(REFUSALS_RECORDED)
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
