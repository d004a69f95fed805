//! What a seed chooses of worlds in which more is wanted than there is room for: the limits, the crowd that meets them, and what
//! phones do that are refused.

use super::{AccountPlan, Act, Draw, Size};
use schema::money::Micros;
use schema::time::Mono;
use std::time::Duration;

/// The first of a crowd's calls; others of its phone have lower numbers.
const FIRST: u64 = 200;
/// So many calls that wait are a queue for certain, though some of them are lost or taken back.
const QUEUE: u64 = 12;
/// And so many more than are let in then at once.
const WAVE: u64 = 10;
/// What the phones of a crowd have to spend.
const OPENING: Micros = Micros(5_000_000);

/// What a phone does when a call of its own is refused by 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Temper {
    /// It does not try again.
    GivesUp,
    /// It tries again when it is told to (Retry-After).
    Waits,
    /// It tries again at once, a few times.
    Hurries,
    /// It never stops.
    Insists,
}

/// Most that the SIP core lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// New calls a second.
    pub calls_per_second: u32,
    /// Legs at a time.
    pub legs: usize,
}

impl Limits {
    /// More than any world wants.
    pub const WIDE: Self = Self { calls_per_second: 10_000, legs: 1_000 };
}

/// Draws them; a slow disk is one of the limits.
pub(super) fn draw(draw: &mut Draw, accounts: &mut [AccountPlan], within_ms: u64, sync: &mut Duration) -> Limits {
    let before = draw.moment(within_ms);
    let at = before + Duration::from_millis(500);
    let (mut limits, mut within_ms) = (Limits::WIDE, draw.pick(&[50, 400, 2_000]));
    let mut crowd = draw.below(if draw.size == Size::Small { 4 } else { 8 }) + 4;
    match draw.below(3) {
        0 => limits.calls_per_second = draw.pick(&[1, 2, 5]),
        1 => limits.legs = draw.pick(&[2, 4, 8]),
        _ => {
            (crowd, within_ms) = (QUEUE + WAVE, 400);
            *sync = Duration::from_millis(draw.pick(&[20, 60, 100]));
            let stalled = at + Duration::from_millis(draw.below(200));
            let lasts = Duration::from_millis(draw.pick(&[4_000, 7_000]));
            draw.act(stalled, Act::Stall(lasts));
        }
    }
    for account in &mut *accounts {
        account.opening = OPENING;
        account.live_calls = 20;
        account.temper = draw.pick(&[Temper::GivesUp, Temper::Waits, Temper::Hurries, Temper::Insists]);
    }
    for number in 0..crowd {
        let phone = usize::try_from(draw.below(accounts.len() as u64)).unwrap_or(0);
        // However long they wait, a few a second are let in: what finds the queue comes all at once.
        let from_ms = if number < QUEUE { draw.below(within_ms) } else { 1_000 + draw.below(20) };
        let at = at + Duration::from_millis(from_ms);
        one_of_crowd(draw, phone, FIRST + 1 + number, at);
    }
    standing(draw, before, at);
    limits
}

fn one_of_crowd(draw: &mut Draw, phone: usize, call: u64, at: Mono) {
    let digits = draw.pick(&[0, 0, 20, 50, 80]);
    let number = super::number(phone, call, digits);
    draw.act(at, Act::Call { phone, call, number });
    if !draw.one_in(4) {
        let talks_ms = draw.pick(&[600, 4_000, 12_000]);
        let at = at + Duration::from_millis(draw.below(talks_ms));
        draw.act(at, Act::HangUp { phone, call });
    }
}

/// A call from before the crowd, in which something is wanted while it is there.
fn standing(draw: &mut Draw, before: Mono, at: Mono) {
    let (phone, call) = (0, FIRST);
    let number = super::number(phone, call, 0);
    draw.act(before, Act::Call { phone, call, number });
    for ms in [100, 700, 1_500] {
        let at = at + Duration::from_millis(ms + draw.below(300));
        draw.act(at, Act::Change { phone, call });
    }
    let at = at + Duration::from_millis(draw.below(4_000));
    draw.act(at, Act::HangUp { phone, call });
}
