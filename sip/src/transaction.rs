//! The four transaction machines of RFC 3261 §17 with the Accepted state of RFC 6026. Each is pure: an event and the time in,
//! [`Step`]s out. Who sends what where is not known here.

mod invite_client;
mod invite_server;
mod other_client;
mod other_server;
mod reliable;

pub(crate) use invite_client::InviteClient;
pub(crate) use invite_server::InviteServer;
pub(crate) use other_client::OtherClient;
pub(crate) use other_server::OtherServer;
pub(crate) use reliable::{Acknowledged, Due, ReliableClient, ReliableServer};

use schema::time::Mono;
use std::time::Duration;

/// Round-trip estimate (RFC 3261 §17.1.1.1).
pub(crate) const T1: Duration = Duration::from_millis(500);
/// Longest interval between repetitions of all but INVITE.
pub(crate) const T2: Duration = Duration::from_secs(4);
/// How long a message may stay in the network.
pub(crate) const T4: Duration = Duration::from_secs(5);
/// 64·T1: how long anything is repeated or waited for.
pub(crate) const GIVE_UP: Duration = Duration::from_secs(32);
/// T1 + 2·T1 + 4·T1: when timer E of a client that hears nothing is set to T2 (RFC 4320 §4.1).
const TRY_AFTER: Duration = Duration::from_millis(3_500);

// Timers of RFC 3261 table 4 and RFC 6026. A, E and G are repetitions: from T1, doubling; A without end, E and G up to T2.
// Over a reliable transport D, I, J and K are zero.

/// INVITE client: gives up.
const TIMER_B: Duration = GIVE_UP;
/// INVITE client: acknowledges repeated failures; at least 32 s.
const TIMER_D: Duration = Duration::from_secs(32);
/// Other client: gives up.
const TIMER_F: Duration = GIVE_UP;
/// INVITE server: waits for the ACK of a failure.
const TIMER_H: Duration = GIVE_UP;
/// INVITE server: absorbs repeated ACKs.
const TIMER_I: Duration = T4;
/// Other server: answers repeated requests.
const TIMER_J: Duration = GIVE_UP;
/// Other client: absorbs repeated responses.
const TIMER_K: Duration = T4;
/// INVITE server: absorbs repeated INVITEs behind a 2xx.
const TIMER_L: Duration = GIVE_UP;
/// INVITE client: takes further 2xx.
const TIMER_M: Duration = GIVE_UP;

/// What a transaction wants done, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send the request, or the last response, again.
    Repeat,
    /// Send a 100 to a request other than INVITE, whose answer takes long.
    Try,
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
    // Milliseconds: thousands of these are kept.
    interval_ms: u16,
    most_ms: u16,
    at: Mono,
}

impl Repetition {
    /// First after T1, then doubling up to `most`.
    pub(crate) fn from(now: Mono, most: Duration) -> Self {
        Self { interval_ms: ms(T1), most_ms: ms(most), at: now + T1 }
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
        self.interval_ms = self.interval_ms.saturating_mul(2).min(self.most_ms);
        self.at = now + Duration::from_millis(self.interval_ms.into());
        true
    }

    /// [`Step::Repeat`] when it is due.
    pub(crate) fn steps(repeat: &mut Option<Self>, now: Mono) -> &'static [Step] {
        if repeat.as_mut().is_some_and(|repeat| repeat.take(now)) { &[Step::Repeat] } else { &[] }
    }

    /// From now on at the longest interval (a provisional response came).
    pub(crate) fn slow_down(&mut self, now: Mono) {
        self.interval_ms = self.most_ms;
        self.at = now + Duration::from_millis(self.most_ms.into());
    }
}

/// Up to 65 s; the longest interval is [`GIVE_UP`].
fn ms(interval: Duration) -> u16 {
    u16::try_from(interval.as_millis()).unwrap_or(u16::MAX)
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
