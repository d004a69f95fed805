//! The four transaction machines of RFC 3261 §17 with the Accepted state of RFC 6026. Each is pure: an event and the time in,
//! [`Step`]s out. Who sends what where is not known here.

mod invite_client;
mod invite_server;
mod other_client;
mod other_server;

pub(crate) use invite_client::InviteClient;
pub(crate) use invite_server::InviteServer;
pub(crate) use other_client::OtherClient;
pub(crate) use other_server::OtherServer;

use schema::time::Mono;
use std::time::Duration;

/// Round-trip estimate (RFC 3261 §17.1.1.1).
pub(crate) const T1: Duration = Duration::from_millis(500);
/// Longest interval between repetitions of all but INVITE.
pub(crate) const T2: Duration = Duration::from_secs(4);
/// How long a message may stay in the network.
pub(crate) const T4: Duration = Duration::from_secs(5);
/// Timers B, F, H, J, L and M: 64·T1.
pub(crate) const GIVE_UP: Duration = Duration::from_secs(32);
/// Timer D: at least 32 s over UDP.
pub(crate) const TIMER_D: Duration = Duration::from_secs(32);

/// What a transaction wants done, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send the request, or the last response, again.
    Repeat,
    /// Give the message that came to the user of the transaction.
    Deliver,
    /// Send the ACK of the failure response that came.
    Ack,
    /// Tell the user that nothing final came in time.
    TimedOut,
    /// Forget the transaction.
    Terminate,
}

/// Repetition at growing intervals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Repetition {
    interval: Duration,
    most: Duration,
    at: Mono,
}

impl Repetition {
    /// First after T1, then doubling up to `most`.
    pub(crate) fn from(now: Mono, most: Duration) -> Self {
        Self { interval: T1, most, at: now + T1 }
    }

    /// The next moment.
    pub(crate) const fn at(&self) -> Mono {
        self.at
    }

    /// True when it is due; then the next moment is set.
    pub(crate) fn take(&mut self, now: Mono) -> bool {
        if self.at > now {
            return false;
        }
        self.interval = (self.interval * 2).min(self.most);
        self.at = now + self.interval;
        true
    }

    /// [`Step::Repeat`] when it is due.
    pub(crate) fn steps(repeat: &mut Option<Self>, now: Mono) -> &'static [Step] {
        if repeat.as_mut().is_some_and(|repeat| repeat.take(now)) { &[Step::Repeat] } else { &[] }
    }

    /// From now on at the longest interval (a provisional response came).
    pub(crate) fn slow_down(&mut self, now: Mono) {
        self.interval = self.most;
        self.at = now + self.most;
    }
}

/// The earlier of two moments.
pub(crate) fn earliest(a: Option<Mono>, b: Option<Mono>) -> Option<Mono> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests;
