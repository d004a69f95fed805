//! A call's timers as data.

use schema::time::Mono;

/// The timers of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// When nobody answered in all attempts together.
    Ring,
    /// When nothing but 100 was heard of an attempt.
    FirstRinging,
    /// When the B-leg did not say how it ended after a cancel, or a leg in doubt what became of its BYE.
    Withdraw,
    /// When a further slice should be paid. Before [`Timer::CutOff`] when both are due.
    Renew,
    /// When the paid time ends.
    CutOff,
    /// When settling should be tried again.
    SettleAgain,
}

const COUNT: usize = 6;

/// Of a timer that is not set.
const NEVER: Mono = Mono(u64::MAX);

/// When each timer is due.
#[derive(Debug)]
pub struct Timers([Mono; COUNT]);

impl Default for Timers {
    fn default() -> Self {
        Self([NEVER; COUNT])
    }
}

const ALL: [Timer; COUNT] =
    [Timer::Ring, Timer::FirstRinging, Timer::Withdraw, Timer::Renew, Timer::CutOff, Timer::SettleAgain];

impl Timers {
    /// Sets a timer, or moves it.
    pub const fn set(&mut self, timer: Timer, at: Mono) {
        self.0[timer as usize] = at;
    }

    /// Stops a timer.
    pub const fn clear(&mut self, timer: Timer) {
        self.0[timer as usize] = NEVER;
    }

    /// Stops all of them.
    pub const fn clear_all(&mut self) {
        self.0 = [NEVER; COUNT];
    }

    /// When the first is due.
    #[must_use]
    pub fn next(&self) -> Option<Mono> {
        self.0.into_iter().min().filter(|at| *at < NEVER)
    }

    /// Takes the first that is due at `now`.
    pub fn pop_due(&mut self, now: Mono) -> Option<Timer> {
        let at = |timer: &Timer| self.0[*timer as usize];
        let is_due = |timer: &Timer| at(timer) < NEVER && at(timer) <= now;
        let first = ALL.into_iter().filter(is_due).min_by_key(|timer| (at(timer), *timer))?;
        self.clear(first);
        Some(first)
    }
}
