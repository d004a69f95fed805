//! How much is set aside for how long: slices and renewals, without state.

use schema::money::Micros;
use schema::rate::RateTerms;
use std::time::Duration;

/// The longest slice that is held at once, in seconds.
pub const SLICE_MAX_S: u64 = 60;
/// The BYE of a call that is cut leaves so long before the paid boundary.
pub const CUTOFF_LEAD: Duration = Duration::from_millis(500);
/// The earliest that a renewal is asked for before the end of what is paid.
pub const RENEWAL_LEAD_MAX: Duration = Duration::from_secs(20);

/// Money to set aside, and until where it pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// Seconds of the call that are paid with it, from the answer; the end of a billing step.
    pub paid_s: u64,
    /// What has to be held beside what is held already.
    pub amount: Micros,
}

/// Why there is no further slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSlice {
    /// Not even one billing step can be paid; `needed` could.
    NotAffordable {
        /// Money for one step.
        needed: Micros,
    },
    /// The longest duration of a call is paid already.
    LimitReached,
}

/// The next slice of a call of which `paid_s` seconds are paid by `held`; 0 and nothing for a new one. The slice is what a
/// fair share of the available money buys, `available / (others + 1)`, at least one billing step, at most 60 seconds.
///
/// # Errors
/// Why there is none.
pub fn next_slice(
    terms: &RateTerms,
    paid_s: u64,
    held: Micros,
    available: Micros,
    others: usize,
    limit_s: u64,
) -> Result<Slice, NoSlice> {
    let first = paid_s == 0;
    if !first && paid_s >= limit_s {
        return Err(NoSlice::LimitReached);
    }
    let step_end = if first { terms.first_step_s() } else { terms.round_up_to_step(paid_s + 1) };
    let needed = terms.price(step_end) - held;
    if needed > available {
        return Err(NoSlice::NotAffordable { needed });
    }
    // A minute that costs nothing needs no renewals.
    let longest = if terms.per_minute.0 == 0 { limit_s } else { (paid_s + SLICE_MAX_S).min(limit_s) };
    let sharers = i64::try_from(others).unwrap_or(i64::MAX).saturating_add(1);
    let share = Micros(available.0 / sharers);
    let end = terms.affordable_s(held + share, longest).unwrap_or(step_end).max(step_end);
    Ok(Slice { paid_s: end, amount: terms.price(end) - held })
}

/// How long before its end a slice of `slice_s` seconds is renewed.
#[must_use]
pub fn renewal_lead(slice_s: u64) -> Duration {
    (Duration::from_secs(slice_s) / 2).min(RENEWAL_LEAD_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use schema::money::NanosPerMinute;

    /// 0.01 a second.
    const fn terms(minimum_s: u32, increment_s: u32) -> RateTerms {
        RateTerms {
            per_minute: NanosPerMinute(600_000_000),
            connect_fee: Micros(0),
            minimum_s,
            increment_s,
            grace_s: 0,
        }
    }

    #[test]
    fn a_slice_is_a_fair_share_of_at_most_a_minute() {
        // (terms, paid, held, available, others, limit) -> (paid, amount)
        let cases = [
            (terms(0, 1), 0, 0, 10_000_000, 0, 7_200, Ok((60, 600_000))),
            (terms(0, 1), 0, 0, 900_000, 0, 7_200, Ok((60, 600_000))),
            (terms(0, 1), 0, 0, 300_000, 1, 7_200, Ok((15, 150_000))),
            (terms(0, 1), 0, 0, 10_000, 4, 7_200, Ok((1, 10_000))),
            (terms(60, 60), 0, 0, 600_000, 4, 7_200, Ok((60, 600_000))),
            (terms(60, 60), 0, 0, 599_999, 0, 7_200, Err(NoSlice::NotAffordable { needed: Micros(600_000) })),
            (terms(30, 6), 30, 300_000, 130_000, 1, 7_200, Ok((36, 60_000))),
            (terms(30, 6), 30, 300_000, 250_000, 0, 7_200, Ok((54, 240_000))),
            (terms(0, 1), 60, 600_000, 10_000_000, 0, 7_200, Ok((120, 600_000))),
            (terms(0, 1), 60, 600_000, 10_000_000, 0, 100, Ok((100, 400_000))),
            (terms(0, 1), 100, 1_000_000, 10_000_000, 0, 100, Err(NoSlice::LimitReached)),
            (terms(0, 1), 60, 600_000, 9_999, 0, 7_200, Err(NoSlice::NotAffordable { needed: Micros(10_000) })),
            (RateTerms::FREE, 0, 0, 0, 3, 7_200, Ok((7_200, 0))),
        ];
        for (terms, paid, held, available, others, limit, expected) in cases {
            let slice = next_slice(&terms, paid, Micros(held), Micros(available), others, limit);
            assert_eq!(slice.map(|s| (s.paid_s, s.amount.0)), expected, "{paid} {held} {available} {others} {limit}");
        }
    }

    #[test]
    fn renewals_are_asked_for_in_time() {
        for (slice_s, lead_ms) in [(60, 20_000), (40, 20_000), (30, 15_000), (2, 1_000), (1, 500)] {
            assert_eq!(renewal_lead(slice_s), Duration::from_millis(lead_ms), "{slice_s}");
        }
    }

    proptest! {
        #[test]
        fn l1_a_slice_never_needs_more_than_is_available(
            per_minute in 0..5_000_000_000_i64, fee in 0..1_000_000_i64, minimum in 0..90_u32, increment in 1..90_u32,
            available in 0..20_000_000_i64, others in 0..10_usize, limit in 1..10_000_u64,
        ) {
            let terms = RateTerms { per_minute: NanosPerMinute(per_minute), connect_fee: Micros(fee), minimum_s: minimum, increment_s: increment, grace_s: 0 };
            let (mut paid, mut held, mut left) = (0, Micros(0), Micros(available));
            for _ in 0..50 {
                let Ok(slice) = next_slice(&terms, paid, held, left, others, limit) else { break };
                prop_assert!(slice.amount <= left && !slice.amount.is_negative());
                prop_assert!(slice.paid_s > paid);
                (paid, held, left) = (slice.paid_s, held + slice.amount, left - slice.amount);
                prop_assert_eq!(held, terms.price(paid));
            }
        }
    }
}
