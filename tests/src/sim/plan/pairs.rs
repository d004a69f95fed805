//! What a seed chooses of crashes with two batches in flight: money that comes in while one is being synced, and what of both
//! becomes durable.

use super::{Act, Crash, Draw};
use schema::money::Micros;
use std::time::Duration;
use storage::memory::{Halt, Unsynced};

/// Changes some of the crashes that are drawn.
pub(super) fn draw(draw: &mut Draw, accounts: usize) {
    let crashes: Vec<_> = draw.acts.iter().filter_map(|(key, act)| Some((*key, crash_of(act)?))).collect();
    for (number, (key, crash)) in crashes.into_iter().enumerate() {
        if draw.one_in(2) {
            continue;
        }
        let unsynced = draw.pick(&[Unsynced::Lost, Unsynced::Kept, Unsynced::First, Unsynced::First, Unsynced::Torn]);
        let mut crash = Crash { unsynced, ..crash };
        if draw.one_in(2) {
            let batches = u32::try_from(draw.below(2)).unwrap_or(0);
            let halt = Some(Halt { batches, acknowledged: false, behind: true });
            crash = Crash { after: u64::MAX, within: Duration::from_secs(10), halt, ..crash };
        }
        draw.acts.insert(key, Act::Crash(crash));
        for payment in 0..2 + draw.below(4) {
            let account = usize::try_from(draw.below(accounts as u64)).unwrap_or(0);
            let at = key.0 + Duration::from_millis(draw.below(40));
            let amount = Micros(1_000 * (1 + payment.cast_signed()));
            draw.act(at, Act::TopUp { account, amount, key: format!("at crash {number}.{payment}") });
        }
    }
}

const fn crash_of(act: &Act) -> Option<Crash> {
    match act {
        Act::Crash(crash) => Some(*crash),
        _ => None,
    }
}
