//! What a call must cost, computed here once more and differently from the program under test, which is checked against it.

use schema::money::Micros;
use schema::rate::RateTerms;
use std::time::Duration;

/// The price of a talk time, computed apart from `schema/src/rate.rs`: begun seconds, in billing steps, rounded up once to the micro-unit.
#[must_use]
pub fn price(terms: &RateTerms, talk: Duration) -> Micros {
    let seconds = talk.as_millis().div_ceil(1_000);
    if seconds < u128::from(terms.grace_s) {
        return Micros::ZERO;
    }
    let (minimum, increment) = (u128::from(terms.minimum_s), u128::from(terms.increment_s.max(1)));
    let steps = seconds.saturating_sub(minimum).div_ceil(increment);
    let billed = minimum + steps * increment;
    let per_minute = u128::try_from(terms.per_minute.0).unwrap_or(0);
    // Nano-units a minute times seconds, over 60 seconds and 1,000 nano-units.
    let micros = (per_minute * billed).div_ceil(60 * 1_000);
    Micros(terms.connect_fee.0 + i64::try_from(micros).unwrap_or(i64::MAX / 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use schema::money::NanosPerMinute;

    #[test]
    fn prices_of_known_calls() {
        // (per minute, fee, minimum, increment, grace, milliseconds, micro-units), by hand.
        for (per_minute, fee, minimum_s, increment_s, grace_s, ms, micros) in [
            (600_000_000, 0, 0, 1, 0, 1_001, 20_000),
            (10_000_000, 0, 0, 1, 0, 1_000, 167),
            (10_000_000, 50_000, 60, 60, 0, 60_001, 70_000),
            (10_000_000, 50_000, 0, 1, 3, 2_000, 0),
            (10_000_000, 50_000, 0, 1, 3, 2_001, 50_500),
        ] {
            let (per_minute, connect_fee) = (NanosPerMinute(per_minute), Micros(fee));
            let terms = RateTerms { per_minute, connect_fee, minimum_s, increment_s, grace_s };
            assert_eq!(price(&terms, Duration::from_millis(ms)), Micros(micros));
        }
    }
}
