//! Server transaction of every method but INVITE (RFC 3261 §17.2.2, RFC 4320).

use super::{GIVE_UP, Step, TIMER_J, TRY_AFTER, earliest};
use schema::time::Mono;

/// ```text
/// request ──► Trying ── final ──► Completed ── J ──► Terminated
///              │  └─ 3.5 s: 100                          ▲
///              └─ 64·T1: nobody waits any more ──────────┘
/// ```
/// Almost all are answered at once. One that waits is told so by a 100, not before its client has slowed down as far as it
/// does by itself (RFC 4320 §4.1), and is not answered when its client has given up (§4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OtherServer {
    /// No final response yet; repetitions get the 100 again, once there was one.
    Trying {
        /// When the 100 is due; `None` once it was sent.
        try_at: Option<Mono>,
        /// When its client gives up.
        give_up: Mono,
    },
    /// Answered; repetitions get the answer again until timer J.
    Completed {
        /// Timer J.
        until: Mono,
    },
}

impl OtherServer {
    /// The request has just come.
    pub(crate) fn new(now: Mono) -> Self {
        Self::Trying { try_at: Some(now + TRY_AFTER), give_up: now + GIVE_UP }
    }

    /// A response of this status was just sent.
    pub(crate) fn sent(&mut self, status: u16, reliable: bool, now: Mono) {
        if status >= 200 {
            let wait = if reliable { std::time::Duration::ZERO } else { TIMER_J };
            *self = Self::Completed { until: now + wait };
        }
    }

    /// The request came again.
    pub(crate) const fn on_repeated(&self) -> &'static [Step] {
        match self {
            Self::Trying { try_at: Some(_), .. } => &[],
            Self::Trying { try_at: None, .. } | Self::Completed { .. } => &[Step::Repeat],
        }
    }

    /// Time passed.
    pub(crate) fn on_time(&mut self, now: Mono) -> &'static [Step] {
        match self {
            Self::Trying { give_up, .. } if *give_up <= now => &[Step::Terminate],
            Self::Trying { try_at, .. } if try_at.is_some_and(|at| at <= now) => {
                *try_at = None;
                &[Step::Try]
            }
            Self::Completed { until } if *until <= now => &[Step::Terminate],
            _ => &[],
        }
    }

    /// When [`Self::on_time`] has something to do.
    pub(crate) fn next_time(&self) -> Option<Mono> {
        match self {
            Self::Trying { try_at, give_up } => earliest(*try_at, Some(*give_up)),
            Self::Completed { until } => Some(*until),
        }
    }
}
