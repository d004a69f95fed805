//! INVITE server transaction (RFC 3261 §17.2.1, RFC 6026 §7.1).

use super::{Repetition, Step, T2, TIMER_H, TIMER_I, TIMER_L, earliest};
use schema::time::Mono;

/// ```text
///            ┌────────────┐ 300–699 ┌───────────┐ ACK ┌───────────┐
///  INVITE ──►│ Proceeding ├────────►│ Completed ├────►│ Confirmed │
///            └─────┬──────┘         └─────┬─────┘     └─────┬─────┘
///                  │ 2xx                  │ H               │ I
///                  ▼                      ▼                 ▼
///             ┌──────────┐ ──── L ──► Terminated ◄──────────┘      (G: repeat the failure until ACK)
///             │ Accepted │
///             └──────────┘
/// ```
/// Repetitions of a 2xx are its user's, not the transaction's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum InviteServer {
    /// No final response yet; repeated INVITEs get the last provisional one again.
    Proceeding,
    /// A failure was sent; it is repeated over UDP until its ACK.
    Completed {
        /// Timer G; none over a reliable transport.
        repeat: Option<Repetition>,
        /// Timer H.
        give_up: Mono,
    },
    /// The ACK came; repetitions of it are absorbed.
    Confirmed {
        /// Timer I.
        until: Mono,
    },
    /// A 2xx was sent; repeated INVITEs are absorbed.
    Accepted {
        /// Timer L.
        until: Mono,
    },
}

impl InviteServer {
    /// A response of this status was just sent.
    pub(crate) fn sent(&mut self, status: u16, reliable: bool, now: Mono) {
        match status {
            100..=199 => {}
            200..=299 => *self = Self::Accepted { until: now + TIMER_L },
            _ => {
                let repeat = (!reliable).then(|| Repetition::from(now, T2));
                *self = Self::Completed { repeat, give_up: now + TIMER_H };
            }
        }
    }

    /// The INVITE came again.
    pub(crate) const fn on_repeated(&self) -> &'static [Step] {
        match self {
            Self::Proceeding | Self::Completed { .. } => &[Step::Repeat],
            Self::Confirmed { .. } | Self::Accepted { .. } => &[],
        }
    }

    /// An ACK with the INVITE's branch came.
    pub(crate) fn on_ack(&mut self, reliable: bool, now: Mono) -> &'static [Step] {
        if !matches!(self, Self::Completed { .. }) {
            return &[];
        }
        if reliable {
            return &[Step::Terminate];
        }
        *self = Self::Confirmed { until: now + TIMER_I };
        &[]
    }

    /// Time passed.
    pub(crate) fn on_time(&mut self, now: Mono) -> &'static [Step] {
        match self {
            Self::Completed { give_up, .. } if *give_up <= now => &[Step::Terminate],
            Self::Confirmed { until } | Self::Accepted { until } if *until <= now => &[Step::Terminate],
            Self::Completed { repeat, .. } => Repetition::steps(repeat, now),
            _ => &[],
        }
    }

    /// When [`Self::on_time`] has something to do.
    pub(crate) fn next_time(&self) -> Option<Mono> {
        match self {
            Self::Proceeding => None,
            Self::Completed { repeat, give_up } => earliest(repeat.map(|r| r.at()), Some(*give_up)),
            Self::Confirmed { until } | Self::Accepted { until } => Some(*until),
        }
    }
}
