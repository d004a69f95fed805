//! Time as data: what the shells read from the clocks and hand to the cores.

use serde::{Deserialize, Serialize};
use std::ops::{Add, Sub};
use std::time::Duration;

/// Monotonic microseconds since the machine's boot (`CLOCK_BOOTTIME`); never goes back; comparable between processes of the
/// same boot only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mono(pub u64);

/// Wall-clock microseconds since 1970-01-01T00:00:00Z. All stored times have this form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

/// Where a shell reads the clocks: the machine's own, or the simulator's. Cores never hold one; they are given [`Now`].
pub type Clock = std::sync::Arc<dyn Fn() -> Now + Send + Sync>;

/// One reading of both clocks. Durations come from `mono`, dates from `wall`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Monotonic clock.
    pub mono: Mono,
    /// Wall clock, UTC.
    pub wall: Timestamp,
}

/// Identity of the machine's boot, from the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(pub u128);

/// A moment by all clocks, as stored: after a restart in the same boot durations come from `mono`, else from `wall`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockReading {
    /// Wall clock.
    pub wall: Timestamp,
    /// Monotonic clock of `boot`.
    pub mono: Mono,
    /// Which boot `mono` belongs to.
    pub boot: BootId,
}

impl ClockReading {
    /// Time passed until `now` in boot `boot`; zero when the clocks say that it lies ahead.
    #[must_use]
    pub fn until(&self, now: Now, boot: BootId) -> Duration {
        if boot == self.boot { now.mono.since(self.mono) } else { now.wall.since(self.wall) }
    }
}

impl Mono {
    /// Time passed since `earlier`; zero when `earlier` lies ahead.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Mono {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(micros(rhs)))
    }
}

impl Timestamp {
    /// Milliseconds since the epoch, rounded down.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// Time passed since `earlier`; zero when `earlier` lies ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// RFC 3339 in UTC with microseconds, e.g. `2026-11-24T05:00:00.000001Z`.
    #[must_use]
    pub fn to_rfc3339(self) -> String {
        jiff::Timestamp::from_microsecond(self.0).map_or_else(|_| String::from("out of range"), |t| t.to_string())
    }

    /// Reads an RFC 3339 time; `None` when it is not one.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        text.parse::<jiff::Timestamp>().ok().map(|t| Self(t.as_microsecond()))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(rhs.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(rhs.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl Now {
    /// Both clocks moved forward by `by`. For tests and projections.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self { mono: self.mono + by, wall: self.wall + by }
    }
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}
