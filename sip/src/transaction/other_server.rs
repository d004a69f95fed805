//! Server transaction of every method but INVITE (RFC 3261 §17.2.2).

use super::{Step, TIMER_J};
use schema::time::Mono;

/// ```text
/// request ──► Trying ── final ──► Completed ── J ──► Terminated
/// ```
/// We answer such requests at once, or after a look-up; never with a provisional response (RFC 4320).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OtherServer {
    /// No response yet; repetitions are absorbed.
    Trying,
    /// Answered; repetitions get the answer again until timer J.
    Completed {
        /// Timer J.
        until: Mono,
    },
}

impl OtherServer {
    /// The final response was just sent.
    pub(crate) fn sent(&mut self, reliable: bool, now: Mono) {
        let wait = if reliable { std::time::Duration::ZERO } else { TIMER_J };
        *self = Self::Completed { until: now + wait };
    }

    /// The request came again.
    pub(crate) const fn on_repeated(&self) -> &'static [Step] {
        match self {
            Self::Trying => &[],
            Self::Completed { .. } => &[Step::Repeat],
        }
    }

    /// Time passed.
    pub(crate) fn on_time(&self, now: Mono) -> &'static [Step] {
        match self {
            Self::Completed { until } if *until <= now => &[Step::Terminate],
            _ => &[],
        }
    }

    /// When [`Self::on_time`] has something to do.
    pub(crate) const fn next_time(&self) -> Option<Mono> {
        match self {
            Self::Trying => None,
            Self::Completed { until } => Some(*until),
        }
    }
}
