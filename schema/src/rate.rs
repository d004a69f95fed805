//! Rates and what a duration costs under them. The rate of a call is fixed at authorization and kept.

use crate::id::DeckVersionId;
use crate::money::{Micros, NanosPerMinute};
#[cfg(feature = "wrong-versions")]
use crate::wrong;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How one prefix of a rate deck is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateTerms {
    /// Price of a minute.
    pub per_minute: NanosPerMinute,
    /// Charged once when the call is answered.
    pub connect_fee: Micros,
    /// The first billing step, in seconds (0: none).
    pub minimum_s: u32,
    /// Each further billing step, in seconds, at least 1.
    pub increment_s: u32,
    /// An answered call shorter than this, in seconds, costs nothing.
    pub grace_s: u32,
}

/// One line of a rate deck as it was applied to a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateApplied {
    /// The deck's name.
    pub deck: Box<str>,
    /// The version of the deck.
    pub deck_version: DeckVersionId,
    /// The longest matching prefix, digits without plus.
    pub prefix: Box<str>,
    /// The destination's name in the deck.
    pub destination: Box<str>,
    /// How it is charged.
    pub terms: RateTerms,
    /// Whether the prices include tax.
    pub tax_included: bool,
}

impl RateTerms {
    /// Free of charge with one-second steps.
    pub const FREE: Self =
        Self { per_minute: NanosPerMinute(0), connect_fee: Micros(0), minimum_s: 0, increment_s: 1, grace_s: 0 };

    /// Whole seconds begun, the unit all steps count in.
    #[must_use]
    pub fn seconds(talk: Duration) -> u64 {
        u64::try_from(talk.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX)
    }

    /// `seconds` rounded up to the end of its billing step.
    #[must_use]
    pub fn round_up_to_step(&self, seconds: u64) -> u64 {
        let (minimum, increment) = (u64::from(self.minimum_s), u64::from(self.increment_s.max(1)));
        minimum + seconds.saturating_sub(minimum).div_ceil(increment) * increment
    }

    /// Seconds billed for a talk time: the minimum, then whole increments; 0 under the grace time.
    #[must_use]
    pub fn billed_seconds(&self, talk: Duration) -> u64 {
        let seconds = Self::seconds(talk);
        if seconds < u64::from(self.grace_s) { 0 } else { self.round_up_to_step(seconds) }
    }

    /// What a talk time costs; nothing under the grace time.
    #[must_use]
    pub fn charge(&self, talk: Duration) -> Micros {
        if Self::seconds(talk) < u64::from(self.grace_s) {
            return Micros::ZERO;
        }
        self.price(self.billed_seconds(talk))
    }

    /// Connect fee and `billed` seconds, rounded up once to the micro-unit.
    #[must_use]
    pub fn price(&self, billed: u64) -> Micros {
        #[cfg(feature = "wrong-versions")]
        if wrong::chosen(wrong::Wrong::FloatRounding) {
            return self.price_in_floats(billed);
        }
        let nanos = i128::from(self.per_minute.0) * i128::from(billed);
        let micros = nanos.div_euclid(60_000) + i128::from(nanos.rem_euclid(60_000) != 0);
        Micros(self.connect_fee.0.saturating_add(i64::try_from(micros).unwrap_or(i64::MAX)))
    }

    /// As [`Self::price`], in the wrong version that counts the currency in floats: it rounds up, too, and 0.07 of it is a little
    /// more than 70,000 micro-units.
    #[cfg(feature = "wrong-versions")]
    #[expect(clippy::float_arithmetic, clippy::cast_precision_loss, reason = "the mistake is on purpose")]
    fn price_in_floats(&self, billed: u64) -> Micros {
        let price = self.per_minute.0 as f64 / 1e9 / 60.0 * billed as f64;
        Micros(self.connect_fee.0.saturating_add((price * 1e6).ceil() as i64))
    }

    /// The first billing step in seconds: the minimum, or one increment where there is none.
    #[must_use]
    pub fn first_step_s(&self) -> u64 {
        u64::from(if self.minimum_s > 0 { self.minimum_s } else { self.increment_s.max(1) })
    }

    /// The most seconds, at the end of a billing step, whose price is at most `amount`; `None` when not even the first
    /// step is affordable; at most `limit_s` rounded up to a step.
    #[must_use]
    pub fn affordable_s(&self, amount: Micros, limit_s: u64) -> Option<u64> {
        let first = self.first_step_s();
        if self.price(first) > amount {
            return None;
        }
        let top = self.round_up_to_step(limit_s.max(first));
        if self.price(top) <= amount {
            return Some(top);
        }
        // price() grows with its argument: search the last affordable step between the two.
        let increment = u64::from(self.increment_s.max(1));
        let (mut low, mut high) = (0, (top - first) / increment);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.price(first + middle * increment) <= amount { low = middle } else { high = middle }
        }
        Some(first + low * increment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn terms(per_minute: i64, connect_fee: i64, minimum_s: u32, increment_s: u32, grace_s: u32) -> RateTerms {
        RateTerms {
            per_minute: NanosPerMinute(per_minute),
            connect_fee: Micros(connect_fee),
            minimum_s,
            increment_s,
            grace_s,
        }
    }

    #[test]
    fn durations_are_billed_in_steps() {
        let cases = [
            // (minimum, increment, grace, milliseconds, billed)
            (0, 1, 0, 0, 0),
            (0, 1, 0, 1, 1),
            (0, 1, 0, 1_000, 1),
            (0, 1, 0, 1_001, 2),
            (30, 6, 0, 1, 30),
            (30, 6, 0, 30_001, 36),
            (60, 60, 0, 60_000, 60),
            (60, 60, 0, 60_001, 120),
            (60, 60, 5, 4_000, 0),
            (60, 60, 5, 4_001, 60),
        ];
        for (minimum, increment, grace, ms, billed) in cases {
            let terms = terms(1, 0, minimum, increment, grace);
            assert_eq!(terms.billed_seconds(Duration::from_millis(ms)), billed, "{minimum}/{increment} {ms} ms");
        }
    }

    #[test]
    fn a_charge_is_rounded_up_once() {
        // 0.01 per minute for 1 s is 166.67 micro-units.
        assert_eq!(terms(10_000_000, 0, 0, 1, 0).charge(Duration::from_secs(1)), Micros(167));
        assert_eq!(terms(10_000_000, 50_000, 60, 60, 0).charge(Duration::from_secs(61)), Micros(70_000));
        assert_eq!(terms(10_000_000, 50_000, 0, 1, 3).charge(Duration::from_secs(2)), Micros::ZERO);
    }

    proptest! {
        #[test]
        fn what_is_affordable_is_the_last_step_that_fits(
            per_minute in 0..5_000_000_000_i64, fee in 0..1_000_000_i64, minimum in 0..120_u32, increment in 1..90_u32,
            amount in 0..20_000_000_i64, limit in 1..10_000_u64,
        ) {
            let terms = terms(per_minute, fee, minimum, increment, 0);
            match terms.affordable_s(Micros(amount), limit) {
                None => prop_assert!(terms.price(terms.first_step_s()) > Micros(amount)),
                Some(seconds) => {
                    prop_assert!(terms.price(seconds) <= Micros(amount));
                    prop_assert_eq!(terms.round_up_to_step(seconds), seconds);
                    let more = terms.price(seconds + u64::from(increment)) > Micros(amount);
                    prop_assert!(more || seconds >= limit);
                }
            }
        }

        #[test]
        fn longer_never_costs_less(per_minute in 0..5_000_000_000_i64, minimum in 0..120_u32, increment in 1..90_u32, a in 0..100_000_u64, b in 0..100_000_u64) {
            let terms = terms(per_minute, 7, minimum, increment, 0);
            let (short, long) = (Duration::from_millis(a.min(b)), Duration::from_millis(a.max(b)));
            prop_assert!(terms.charge(short) <= terms.charge(long));
            prop_assert!(terms.billed_seconds(long) * 1_000 >= u64::try_from(long.as_millis()).unwrap());
        }
    }
}
