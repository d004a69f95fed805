//! What kind of destination an E.164 number is, as far as its first digits tell: those that cost far more than a call, or
//! share the price with the called party, are refused whatever the rate deck says: they are what stolen accounts are used for.

/// The kind of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DestinationClass {
    /// Nothing special is known of it.
    Ordinary,
    /// Premium rate: part of the price goes to the called party.
    Premium,
    /// Shared cost and national service numbers.
    SharedCost,
    /// Satellite phones and international networks.
    Satellite,
}

impl DestinationClass {
    /// In words, for the refusal; `None` when calls are allowed.
    #[must_use]
    pub const fn refused_as(self) -> Option<&'static str> {
        match self {
            Self::Ordinary => None,
            Self::Premium => Some("premium-rate numbers are not served"),
            Self::SharedCost => Some("shared-cost numbers are not served"),
            Self::Satellite => Some("satellite and international-network numbers are not served"),
        }
    }
}

/// The class of a number given by its digits without plus: the longest prefix of the table decides.
#[must_use]
pub fn class(digits: &str) -> DestinationClass {
    let longest = (1..=digits.len().min(LONGEST)).rev().find_map(|length| {
        let prefix = &digits[..length];
        PREFIXES.binary_search_by(|(known, _)| (*known).cmp(prefix)).ok().map(|at| PREFIXES[at].1)
    });
    longest.unwrap_or(DestinationClass::Ordinary)
}

const LONGEST: usize = 6;

use DestinationClass::{Premium, Satellite, SharedCost};

/// From the national numbering plans and ITU-T's list of assigned codes; sorted.
const PREFIXES: &[(&str, DestinationClass)] = &[
    ("1900", Premium),
    ("2786", SharedCost),
    ("30901", Premium),
    ("30909", Premium),
    ("31900", Premium),
    ("31906", Premium),
    ("31909", Premium),
    ("3278", SharedCost),
    ("3290", Premium),
    ("3381", SharedCost),
    ("3382", SharedCost),
    ("3389", Premium),
    ("34803", Premium),
    ("34806", Premium),
    ("34807", Premium),
    ("34901", SharedCost),
    ("34902", SharedCost),
    ("34905", Premium),
    ("34907", Premium),
    ("351601", Premium),
    ("351607", Premium),
    ("351646", Premium),
    ("351707", SharedCost),
    ("351708", SharedCost),
    ("351761", Premium),
    ("358600", Premium),
    ("358700", Premium),
    ("3690", Premium),
    ("3691", Premium),
    ("39144", Premium),
    ("39166", Premium),
    ("39840", SharedCost),
    ("39848", SharedCost),
    ("39892", Premium),
    ("39895", Premium),
    ("39899", Premium),
    ("40900", Premium),
    ("40903", Premium),
    ("40906", Premium),
    ("41840", SharedCost),
    ("41842", SharedCost),
    ("41844", SharedCost),
    ("41848", SharedCost),
    ("41900", Premium),
    ("41901", Premium),
    ("41906", Premium),
    ("42090", Premium),
    ("43810", SharedCost),
    ("43820", SharedCost),
    ("43821", SharedCost),
    ("43900", Premium),
    ("43901", Premium),
    ("43930", Premium),
    ("43931", Premium),
    ("43939", Premium),
    ("44118", Premium),
    ("4470", Premium),
    ("4484", SharedCost),
    ("4487", SharedCost),
    ("449", Premium),
    ("4590", Premium),
    ("46900", Premium),
    ("46939", Premium),
    ("46944", Premium),
    ("47820", Premium),
    ("47829", Premium),
    ("48400", Premium),
    ("4870", Premium),
    ("49118", Premium),
    ("49137", SharedCost),
    ("49180", SharedCost),
    ("49900", Premium),
    ("55900", Premium),
    ("611300", SharedCost),
    ("61190", Premium),
    ("64900", Premium),
    ("7809", Premium),
    ("808", SharedCost),
    ("81990", Premium),
    ("852900", Premium),
    ("870", Satellite),
    ("881", Satellite),
    ("882", Satellite),
    ("883", Satellite),
    ("90900", Premium),
    ("972190", Premium),
    ("979", Premium),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_no_prefix_is_too_long() {
        let mut sorted = PREFIXES.to_vec();
        sorted.sort_unstable_by_key(|(prefix, _)| *prefix);
        assert_eq!(PREFIXES, sorted);
        assert!(PREFIXES.iter().all(|(prefix, _)| prefix.len() <= LONGEST));
    }

    #[test]
    fn dear_destinations_are_known_by_their_prefix() {
        for (digits, expected) in [
            ("447700900123", DestinationClass::Ordinary),
            ("447000900123", Premium),
            ("449098790123", Premium),
            ("448712345678", SharedCost),
            ("881612345678", Satellite),
            ("870773111632", Satellite),
            ("979123456789", Premium),
            ("19005550123", Premium),
            ("12125550123", DestinationClass::Ordinary),
            ("4930123456", DestinationClass::Ordinary),
            ("49900123456", Premium),
        ] {
            assert_eq!(class(digits), expected, "{digits}");
        }
    }
}
