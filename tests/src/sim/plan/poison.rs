//! What a seed chooses of messages that kill their actor three times (D20): a call, and the message of it that does.

use super::{Act, Draw};
use actors::faults::FaultPoint;
use schema::money::Micros;
use std::time::Duration;

/// The call of which a message kills.
const POISONED_CALL: u64 = 860;
/// What is set aside is tried again after 15 minutes; a settlement may wait for that.
pub(super) const TRIED_AGAIN: Duration = Duration::from_secs(16 * 60);
/// What has not killed until so much later kills nobody.
pub(super) const STRUCK: Duration = Duration::from_secs(20);
/// Kinds of messages. Settlements, which keep a hold meanwhile, are there twice.
const KINDS: [&str; 7] = ["settle", "settle", "renew", "credit", "authorize", "answer", "keep"];

/// Draws a call of an account that can pay for it, and what kills.
pub(super) fn draw(draw: &mut Draw, count: usize, within_ms: u64) {
    let account = usize::try_from(draw.below(count as u64)).unwrap_or(0);
    let (before, kind) = (draw.moment(within_ms), draw.pick(&KINDS));
    let point = draw.pick(&[FaultPoint::Received, FaultPoint::Decided, FaultPoint::Done]);
    draw.act(before, Act::TopUp { account, amount: Micros(2_000_000), key: "before it is poisoned".to_owned() });
    let at = before + Duration::from_secs(1);
    // Answered after 2 s, and acknowledged soon.
    let number = super::number(account, POISONED_CALL, 20);
    let is_of_setup = matches!(kind, "credit" | "authorize" | "answer");
    let after = Duration::from_millis(if is_of_setup { 0 } else { 4_000 });
    draw.act(at + after, Act::Poison { account, kind, point });
    draw.act(at + Duration::from_millis(1), Act::Call { phone: account, call: POISONED_CALL, number });
    if kind == "credit" {
        let at = at + Duration::from_secs(1);
        draw.act(at, Act::TopUp { account, amount: Micros(10_000), key: "poisoned".to_owned() });
    }
    draw.act(at + Duration::from_secs(5), Act::Change { phone: account, call: POISONED_CALL });
    let talks = Duration::from_secs(if kind == "renew" { 80 } else { 8 });
    draw.act(at + talks, Act::HangUp { phone: account, call: POISONED_CALL });
    let over = at + talks + STRUCK;
    draw.act(over, Act::Disarm);
    if kind == "settle" {
        draw.until = draw.until.max(over + TRIED_AGAIN);
    }
}
