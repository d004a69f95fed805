//! The machine's wall clock, which may be set at any moment; the monotonic one never is.

use schema::time::{Mono, Timestamp};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What the clock shows at the machine's boot.
const BOOT: i64 = 1_700_000_000_000_000;

/// The wall clock. Its copies are the same clock.
#[derive(Clone, Default)]
pub struct Wall(Arc<Mutex<Vec<Jump>>>);

/// Behind this moment the clock differs from an undisturbed one by so many microseconds.
#[derive(Clone, Copy)]
struct Jump {
    after: Mono,
    offset: i64,
}

impl Wall {
    fn jumps(&self) -> MutexGuard<'_, Vec<Jump>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it showed at a moment, or will show if nobody sets it.
    #[must_use]
    pub fn at(&self, at: Mono) -> Timestamp {
        let offset = self.jumps().iter().rev().find(|jump| jump.after < at).map_or(0, |jump| jump.offset);
        Timestamp((undisturbed(at).0 + offset).max(0))
    }

    /// Somebody sets it: forward, or back.
    pub fn jump(&self, now: Mono, by_us: i64) {
        let mut jumps = self.jumps();
        let before = jumps.last().map_or(0, |jump| jump.offset);
        // Not before 1970.
        let offset = (before + by_us).max(-BOOT);
        jumps.push(Jump { after: now, offset });
    }

    /// How far it was set forward and back, all together, between two moments.
    #[must_use]
    pub fn set_between(&self, from: Mono, to: Mono) -> (Duration, Duration) {
        let (mut forward, mut back, mut before) = (0, 0, 0);
        for Jump { after, offset } in self.jumps().iter() {
            let by = offset - before;
            before = *offset;
            if (from..=to).contains(after) {
                forward += by.max(0).unsigned_abs();
                back += by.min(0).unsigned_abs();
            }
        }
        (Duration::from_micros(forward), Duration::from_micros(back))
    }
}

/// What the clock would show if nobody set it.
#[must_use]
pub fn undisturbed(at: Mono) -> Timestamp {
    Timestamp(BOOT + i64::try_from(at.0).unwrap_or(0))
}
