//! What a seed chooses of the time before the answer: who takes reliable provisional responses (RFC 3262), who sends them, what
//! goes wrong with them, and what is offered meanwhile (RFC 3311).

use super::{AccountPlan, Act, Draw, Mischief, Size};
use std::time::Duration;

/// The first of these calls; others of its phone have lower numbers.
const FIRST: u64 = 100;

/// Draws it; gives which carriers send all their 18x reliably.
pub(super) fn draw(draw: &mut Draw, accounts: &mut [AccountPlan], within_ms: u64) -> [bool; 2] {
    for (phone, account) in accounts.iter_mut().enumerate() {
        account.takes_reliable = !draw.one_in(4);
        let more = draw.below(if draw.size == Size::Small { 1 } else { 3 });
        for call in FIRST..=FIRST + more {
            ring(draw, phone, call, account.takes_reliable, within_ms);
        }
    }
    draw.pick(&[[false; 2], [true, false], [true; 2], [true; 2]])
}

fn ring(draw: &mut Draw, phone: usize, call: u64, takes_reliable: bool, within_ms: u64) {
    let all = if takes_reliable { &Mischief::EARLY[..] } else { &Mischief::EARLY_OF_CARRIERS[..] };
    let mischief = (!draw.one_in(3)).then(|| draw.pick(all));
    let cancelled = mischief == Some(Mischief::PracksCancelled);
    let digits = draw.pick(&[0, 20, 40, 40, 40, 60]);
    let number = super::number(phone, call, digits);
    draw.mischiefs.extend(mischief.map(|mischief| (number.clone(), mischief)));
    let at = draw.moment(within_ms);
    draw.act(at, Act::Call { phone, call, number });
    for _ in 0..draw.below(3) {
        let at = at + Duration::from_millis(200 + draw.below(4_000));
        draw.act(at, Act::Change { phone, call });
    }
    if cancelled || !draw.one_in(3) {
        let rings_ms = if cancelled { 1_800 } else { draw.pick(&[2_000, 8_000, 40_000]) };
        let at = at + Duration::from_millis(draw.below(rings_ms));
        draw.act(at, Act::HangUp { phone, call });
    }
}
