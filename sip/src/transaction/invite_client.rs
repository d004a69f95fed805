//! INVITE client transaction (RFC 3261 §17.1.1, RFC 6026 §7.2).

use super::{GIVE_UP, Repetition, Step, TIMER_B, TIMER_D, TIMER_M, earliest};
use schema::time::Mono;

/// ```text
///            ┌─────────┐ 1xx  ┌────────────┐
///  INVITE ──►│ Calling ├─────►│ Proceeding ├──┐
///            └─┬───┬───┘      └──┬──────┬──┘  │ 1xx
///   B: timeout │   │ 2xx         │ 2xx  │◄────┘
///              ▼   ▼             ▼      │ 300–699
///        Terminated│       ┌──────────┐ │    ┌───────────┐
///              ▲   └──────►│ Accepted │ └───►│ Completed │ (A: repeat until 1xx; D: ACK repeated failures)
///              │           └────┬─────┘      └─────┬─────┘
///              └──── M ─────────┴────────── D ─────┘
/// ```
/// The ACK of a 2xx is its user's, not the transaction's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum InviteClient {
    /// Sent; nothing heard. Timer A repeats over UDP, timer B gives up.
    Calling {
        /// Timer A; none over a reliable transport.
        repeat: Option<Repetition>,
        /// Timer B.
        give_up: Mono,
    },
    /// A provisional response came.
    Proceeding {
        /// Gives up then, when its user set a limit.
        until: Option<Mono>,
    },
    /// A failure came and was acknowledged; repetitions of it are acknowledged until timer D.
    Completed {
        /// Timer D.
        until: Mono,
    },
    /// A 2xx came; further ones (repeated, forked) are delivered until timer M.
    Accepted {
        /// Timer M.
        until: Mono,
    },
}

impl InviteClient {
    /// The INVITE was just sent.
    pub(crate) fn new(now: Mono, reliable: bool) -> Self {
        let repeat = (!reliable).then(|| Repetition::from(now, GIVE_UP));
        Self::Calling { repeat, give_up: now + TIMER_B }
    }

    /// A response of this status came.
    pub(crate) fn on_response(&mut self, status: u16, reliable: bool, now: Mono) -> &'static [Step] {
        match (&*self, status) {
            (Self::Calling { .. }, 100..=199) => {
                *self = Self::Proceeding { until: None };
                &[Step::Deliver]
            }
            (Self::Proceeding { .. }, 100..=199) => &[Step::Deliver],
            (Self::Calling { .. } | Self::Proceeding { .. }, 200..=299) => {
                *self = Self::Accepted { until: now + TIMER_M };
                &[Step::Deliver]
            }
            (Self::Calling { .. } | Self::Proceeding { .. }, _) => {
                let wait = if reliable { std::time::Duration::ZERO } else { TIMER_D };
                *self = Self::Completed { until: now + wait };
                &[Step::Ack, Step::Deliver]
            }
            (Self::Accepted { .. }, 200..=299) => &[Step::Deliver],
            (Self::Completed { .. }, 300..=699) => &[Step::Ack],
            _ => &[],
        }
    }

    /// Its user does not want it any more: a final response is waited for as long as for that to a CANCEL (RFC 3261 §9.1).
    pub(crate) fn limit(&mut self, now: Mono) {
        if matches!(self, Self::Calling { .. } | Self::Proceeding { until: None }) {
            *self = Self::Proceeding { until: Some(now + GIVE_UP) };
        }
    }

    /// Time passed.
    pub(crate) fn on_time(&mut self, now: Mono) -> &'static [Step] {
        match self {
            Self::Calling { give_up, .. } if *give_up <= now => &[Step::TimedOut, Step::Terminate],
            Self::Proceeding { until: Some(until) } if *until <= now => &[Step::TimedOut, Step::Terminate],
            Self::Completed { until } | Self::Accepted { until } if *until <= now => &[Step::Terminate],
            Self::Calling { repeat, .. } => Repetition::steps(repeat, now),
            _ => &[],
        }
    }

    /// When [`Self::on_time`] has something to do.
    pub(crate) fn next_time(&self) -> Option<Mono> {
        match self {
            Self::Calling { repeat, give_up } => earliest(repeat.map(|r| r.at()), Some(*give_up)),
            Self::Proceeding { until } => *until,
            Self::Completed { until } | Self::Accepted { until } => Some(*until),
        }
    }
}
