//! Client transaction of every method but INVITE (RFC 3261 §17.1.2).

use super::{Repetition, Step, T2, TIMER_F, TIMER_K, earliest};
use schema::time::Mono;

/// ```text
///             ┌────────┐ 1xx ┌────────────┐
/// request ───►│ Trying ├────►│ Proceeding ├─┐ 1xx
///             └─┬────┬─┘     └─┬───────┬──┘◄┘
///    F: timeout │    └─ final ─┤       │ F: timeout      (E: repeat)
///               ▼              ▼       ▼
///          Terminated ◄─ K ─ Completed Terminated
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OtherClient {
    /// Sent; nothing final yet.
    Trying {
        /// Timer E; none over a reliable transport.
        repeat: Option<Repetition>,
        /// Timer F.
        give_up: Mono,
    },
    /// A final response came; repetitions are absorbed until timer K.
    Completed {
        /// Timer K.
        until: Mono,
    },
}

impl OtherClient {
    /// The request was just sent.
    pub(crate) fn new(now: Mono, reliable: bool) -> Self {
        Self::Trying { repeat: (!reliable).then(|| Repetition::from(now, T2)), give_up: now + TIMER_F }
    }

    /// A response of this status came.
    pub(crate) fn on_response(&mut self, status: u16, reliable: bool, now: Mono) -> &'static [Step] {
        match self {
            Self::Trying { repeat, .. } if status < 200 => {
                if let Some(repeat) = repeat {
                    repeat.slow_down(now);
                }
                &[Step::Deliver]
            }
            Self::Trying { .. } => {
                let wait = if reliable { std::time::Duration::ZERO } else { TIMER_K };
                *self = Self::Completed { until: now + wait };
                &[Step::Deliver]
            }
            Self::Completed { .. } => &[],
        }
    }

    /// Time passed.
    pub(crate) fn on_time(&mut self, now: Mono) -> &'static [Step] {
        match self {
            Self::Trying { give_up, .. } if *give_up <= now => &[Step::TimedOut, Step::Terminate],
            Self::Completed { until } if *until <= now => &[Step::Terminate],
            Self::Trying { repeat, .. } => Repetition::steps(repeat, now),
            _ => &[],
        }
    }

    /// When [`Self::on_time`] has something to do.
    pub(crate) fn next_time(&self) -> Option<Mono> {
        match self {
            Self::Trying { repeat, give_up } => earliest(repeat.map(|r| r.at()), Some(*give_up)),
            Self::Completed { until } => Some(*until),
        }
    }
}
