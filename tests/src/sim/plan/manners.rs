//! What a seed chooses of calls with session timers, without an offer, and with a large one.

use super::{Act, Draw, Manner};
use schema::money::Micros;
use std::collections::BTreeMap;
use std::time::Duration;

/// A call with a session timer.
const TIMED_CALL: u64 = 820;
/// A call without an offer, or with a large one; the next number has another one.
const OFFERING_CALL: u64 = 830;

/// A call whose session interval is too small for one side.
const RAISED_CALL: u64 = 840;

/// Who does what in the call to a number.
pub(super) type ByNumber = BTreeMap<Box<str>, Manner>;

/// Draws a call that lasts as long as its session is refreshed.
pub(super) fn timed(draw: &mut Draw, count: usize, within_ms: u64) -> ByNumber {
    let phone = usize::try_from(draw.below(count as u64)).unwrap_or(0);
    let (before, manner) = (draw.moment(within_ms), draw.pick(&Manner::TIMED));
    let digits = draw.pick(&[0, 0, 20, 40]);
    let number = super::number(phone, TIMED_CALL, digits);
    draw.act(before, Act::TopUp { account: phone, amount: Micros(3_000_000), key: "before it is timed".to_owned() });
    let at = before + Duration::from_secs(1);
    draw.act(at, Act::Call { phone, call: TIMED_CALL, number: number.clone() });
    if manner == Manner::PhoneRefreshes {
        // One of them may be refused, or is lost with all its repetitions.
        for refresh in 1..=8 {
            let at = at + Duration::from_millis(refresh * 18_000 + draw.below(2_000));
            draw.act(at, Act::Change { phone, call: TIMED_CALL });
        }
    }
    // Longer than a session that nobody refreshes, or refreshes once.
    let talks_ms = if manner.ends_call() { 120_000 } else { draw.pick(&[70_000, 100_000, 150_000]) };
    let until = at + Duration::from_millis(talks_ms + draw.below(10_000));
    draw.act(until, Act::HangUp { phone, call: TIMED_CALL });
    [(number, manner)].into()
}

/// Draws a call whose refreshes, or whose INVITE, meet a 422.
pub(super) fn raised(draw: &mut Draw, count: usize, within_ms: u64) -> ByNumber {
    let phone = usize::try_from(draw.below(count as u64)).unwrap_or(0);
    let (before, manner) = (draw.moment(within_ms), draw.pick(&Manner::RAISING));
    let number = super::number(phone, RAISED_CALL, 0);
    draw.act(before, Act::TopUp { account: phone, amount: Micros(3_000_000), key: "before it is raised".to_owned() });
    let at = before + Duration::from_secs(1);
    draw.act(at, Act::Call { phone, call: RAISED_CALL, number: number.clone() });
    // Longer than a session of the interval that is too small.
    let until = at + Duration::from_millis(draw.pick(&[60_000, 110_000]) + draw.below(10_000));
    draw.act(until, Act::HangUp { phone, call: RAISED_CALL });
    [(number, manner)].into()
}

/// Draws calls whose offers are not as usual, and the way other calls offer that nobody disturbs.
pub(super) fn offers(draw: &mut Draw, count: usize, within_ms: u64) -> ByNumber {
    let mut manners = ByNumber::new();
    let calls = draw.acts.values().filter_map(|act| match act {
        Act::Call { number, .. } if !draw.mischiefs.contains_key(number) => Some(number.clone()),
        _ => None,
    });
    for number in calls.collect::<Vec<_>>() {
        if draw.one_in(2) {
            manners.insert(number, draw.pick(&[Manner::Offerless, Manner::Large]));
        }
    }
    for (call, manner) in (OFFERING_CALL..).zip([Manner::Offerless, Manner::Large]) {
        let phone = usize::try_from(draw.below(count as u64)).unwrap_or(0);
        let (at, digits) = (draw.moment(within_ms), draw.pick(&[0, 0, 0, 20, 40, 80]));
        let number = super::number(phone, call, digits);
        draw.act(at, Act::Call { phone, call, number: number.clone() });
        for _ in 0..draw.below(3) {
            let change = at + Duration::from_millis(draw.below(8_000));
            draw.act(change, Act::Change { phone, call });
        }
        let until = at + Duration::from_millis(draw.below(12_000));
        draw.act(until, Act::HangUp { phone, call });
        manners.insert(number, manner);
    }
    manners
}
