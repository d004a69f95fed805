//! How long a call lasted and what it costs: the arithmetic, without state.

use schema::money::Micros;
use schema::rate::RateTerms;
use schema::time::{BootId, ClockReading, Now};
use std::time::Duration;

/// Talk time from the answer until `at`. In the boot of the answer the monotonic clock counts; after another one the wall
/// clock does, but never less than was proved before (a wall clock may have been set back meanwhile).
#[must_use]
pub fn talk(answered: &ClockReading, proof_of_life: Option<&ClockReading>, at: Now, boot: BootId) -> Duration {
    let elapsed = answered.until(at, boot);
    if boot == answered.boot { elapsed } else { elapsed.max(proved(answered, proof_of_life)) }
}

/// Talk time until the last proof that the call was up; all that is charged when its end is unknown.
#[must_use]
pub fn proved(answered: &ClockReading, proof_of_life: Option<&ClockReading>) -> Duration {
    proof_of_life.map_or(Duration::ZERO, |proof| answered.until(Now { mono: proof.mono, wall: proof.wall }, proof.boot))
}

/// What the end of a call costs the customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bill {
    /// Seconds billed.
    pub billed_s: u64,
    /// What is charged.
    pub charge: Micros,
    /// The part of the price that could not be charged.
    pub loss: Micros,
}

/// The bill of an answered call: what its duration costs, at most `funds` (its holds and what is available). A call that we
/// cut is billed at most its grant, however late its BYE left: `granted_s` is given then.
#[must_use]
pub fn bill(terms: &RateTerms, talk: Duration, funds: Micros, granted_s: Option<u64>) -> Bill {
    let talk = granted_s.map_or(talk, |granted| talk.min(Duration::from_secs(granted)));
    let price = terms.charge(talk);
    let charge = price.min(funds.max_zero());
    let billed_s = if charge == price {
        terms.billed_seconds(talk)
    } else {
        terms.affordable_s(charge, terms.billed_seconds(talk)).unwrap_or(0)
    };
    Bill { billed_s, charge, loss: price - charge }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use schema::money::NanosPerMinute;
    use schema::time::{Mono, Timestamp};

    const PER_SECOND: RateTerms = RateTerms {
        per_minute: NanosPerMinute(600_000_000),
        connect_fee: Micros(0),
        minimum_s: 0,
        increment_s: 1,
        grace_s: 0,
    };

    const fn now(second: u64) -> Now {
        Now { mono: Mono(second * 1_000_000), wall: Timestamp(second as i64 * 1_000_000) }
    }

    const fn reading(second: u64, boot: u128) -> ClockReading {
        ClockReading { wall: now(second).wall, mono: now(second).mono, boot: BootId(boot) }
    }

    #[test]
    fn durations_survive_a_restart() {
        let answered = reading(100, 1);
        assert_eq!(talk(&answered, None, now(130), BootId(1)), Duration::from_secs(30));
        // Another boot: its monotonic clock means nothing, the wall clock counts.
        let after = Now { mono: Mono(5), wall: Timestamp(190_000_000) };
        assert_eq!(talk(&answered, None, after, BootId(2)), Duration::from_secs(90));
        // The wall clock was set back: what was proved before still counts.
        let back = Now { mono: Mono(5), wall: Timestamp(0) };
        assert_eq!(talk(&answered, Some(&reading(160, 1)), back, BootId(2)), Duration::from_secs(60));
        assert_eq!(proved(&answered, None), Duration::ZERO);
    }

    #[test]
    fn a_bill_never_exceeds_the_funds_and_says_what_was_lost() {
        for (talk_ms, funds, granted, expected) in [
            (60_000, 1_000_000, None, (60, 600_000, 0)),
            (60_000, 300_000, None, (30, 300_000, 300_000)),
            (60_400, 600_000, Some(60), (60, 600_000, 0)),
            (59_500, 600_000, Some(60), (60, 600_000, 0)),
            (60_000, 0, None, (0, 0, 600_000)),
        ] {
            let bill = bill(&PER_SECOND, Duration::from_millis(talk_ms), Micros(funds), granted);
            assert_eq!((bill.billed_s, bill.charge.0, bill.loss.0), expected, "{talk_ms} {funds} {granted:?}");
        }
    }

    proptest! {
        #[test]
        fn charge_and_loss_make_the_price(
            per_minute in 0..5_000_000_000_i64, fee in 0..1_000_000_i64, minimum in 0..90_u32, increment in 1..90_u32,
            grace in 0..10_u32, ms in 0..4_000_000_u64, funds in 0..10_000_000_i64,
        ) {
            let terms = RateTerms { per_minute: NanosPerMinute(per_minute), connect_fee: Micros(fee), minimum_s: minimum, increment_s: increment, grace_s: grace };
            let talk = Duration::from_millis(ms);
            let bill = bill(&terms, talk, Micros(funds), None);
            prop_assert_eq!(bill.charge + bill.loss, terms.charge(talk));
            prop_assert!(bill.charge <= Micros(funds) && !bill.charge.is_negative());
            prop_assert!(bill.billed_s <= terms.billed_seconds(talk));
        }
    }
}
