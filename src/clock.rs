//! The machine's clocks: `CLOCK_BOOTTIME` for durations, which goes on while the machine sleeps and over restarts of the
//! process, and the wall clock for dates.

use rustix::time::{ClockId, clock_gettime};
use schema::time::{BootId, Clock, Mono, Now, Timestamp};
use std::sync::{Arc, OnceLock};

/// Reads both clocks.
#[must_use]
pub fn system() -> Clock {
    Arc::new(now)
}

fn now() -> Now {
    let micros = |id| {
        let t = clock_gettime(id);
        t.tv_sec.saturating_mul(1_000_000).saturating_add(t.tv_nsec / 1_000)
    };
    Now {
        mono: Mono(u64::try_from(micros(ClockId::Boottime)).unwrap_or(0)),
        wall: Timestamp(micros(ClockId::Realtime)),
    }
}

/// The kernel's identity of this boot. Where it cannot be read, one of this process: two processes measure by the wall clock then.
#[must_use]
pub fn boot_id() -> BootId {
    static BOOT: OnceLock<BootId> = OnceLock::new();
    *BOOT.get_or_init(|| of_kernel("/proc/sys/kernel/random/boot_id").unwrap_or_else(of_process))
}

fn of_kernel(path: &str) -> Option<BootId> {
    let text = std::fs::read_to_string(path).ok()?;
    u128::from_str_radix(&text.trim().replace('-', ""), 16).ok().filter(|id| *id != 0).map(BootId)
}

/// By when it began, to the microsecond by both clocks.
fn of_process() -> BootId {
    let Now { mono, wall } = now();
    BootId(u128::from(mono.0) << 64 | u128::from(wall.0.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_move_forward() {
        let (first, second) = (now(), now());
        assert!(second.mono >= first.mono && first.mono.0 > 0);
        assert!(first.wall.0 > 1_700_000_000_000_000);
        assert_eq!(boot_id(), boot_id());
        assert_eq!((of_kernel("/proc/sys/kernel/random/boot_id"), of_kernel("/proc/none")), (Some(boot_id()), None));
        assert_ne!(of_process(), boot_id());
    }
}
