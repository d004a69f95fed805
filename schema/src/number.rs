//! Telephone numbers: a strict E.164 type and the roles a number can have. The roles are different types, so that a
//! number of one role cannot slip into another (invariants P1 and P2).

use crate::account::{Attestation, CallerId, CallerIdStatus, Evidence};
use crate::time::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

/// An E.164 number (ITU-T E.164): `+`, a digit 1 to 9, at most 15 digits in all, at least 7 here.
/// `Debug` is masked; [`E164::as_str`] gives the number.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct E164(Box<str>);

/// Why a text is no E.164 number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    /// It does not begin with a plus.
    #[error("a number begins with +")]
    NoPlus,
    /// A character other than a digit follows the plus, or the first digit is 0.
    #[error("a number has only digits after the +, the first of them not 0")]
    NotDigits,
    /// Fewer than 7 or more than 15 digits.
    #[error("a number has 7 to 15 digits")]
    Length,
}

impl E164 {
    /// The fewest digits a number has here.
    pub const DIGITS_MIN: usize = 7;
    /// The most digits (ITU-T E.164).
    pub const DIGITS_MAX: usize = 15;

    /// Reads `+` and 7 to 15 digits, nothing else: no spaces, no separators.
    ///
    /// # Errors
    /// What is wrong, without the text itself.
    pub fn parse(text: &str) -> Result<Self, NumberError> {
        let digits = text.strip_prefix('+').ok_or(NumberError::NoPlus)?;
        if digits.starts_with('0') || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NumberError::NotDigits);
        }
        if !(Self::DIGITS_MIN..=Self::DIGITS_MAX).contains(&digits.len()) {
            return Err(NumberError::Length);
        }
        Ok(Self(text.into()))
    }

    /// With the plus.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Without the plus.
    #[must_use]
    pub fn digits(&self) -> &str {
        &self.0[1..]
    }

    /// All but the first three and the last two digits hidden: `+447•••••••23`. For logs and support screens.
    #[must_use]
    pub fn masked(&self) -> String {
        let digits = self.digits();
        let hidden = digits.len().saturating_sub(5);
        format!("+{}{}{}", &digits[..3], "•".repeat(hidden), &digits[digits.len() - 2..])
    }
}

impl fmt::Debug for E164 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

impl<'de> Deserialize<'de> for E164 {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// A number that may be sent to the person called. It can be made in two ways only (invariant P2): from a caller ID of the
/// account that is verified now, or as the operator's service number on A-legs and verification calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresentedNumber {
    number: E164,
    attestation: Attestation,
}

/// Why a caller ID may not be presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotPresentable {
    /// It is not in state verified.
    NotVerified,
    /// Its verification ended.
    Expired,
}

impl PresentedNumber {
    /// The number of a caller ID whose proof holds at `at`.
    ///
    /// # Errors
    /// Why it may not be shown. A caller must then refuse the call, never present another number instead.
    pub fn of(caller_id: &CallerId, at: Timestamp) -> Result<Self, NotPresentable> {
        match (caller_id.status_at(at), caller_id.evidence) {
            (CallerIdStatus::Verified, Some(evidence)) => {
                Ok(Self { number: caller_id.number.clone(), attestation: evidence.attestation() })
            }
            (CallerIdStatus::Expired, _) => Err(NotPresentable::Expired),
            _ => Err(NotPresentable::NotVerified),
        }
    }

    /// The operator's own number, shown on A-legs of callbacks and on verification calls.
    #[must_use]
    pub fn service(number: &ServiceNumber) -> Self {
        Self { number: number.0.clone(), attestation: Evidence::Assigned.attestation() }
    }

    /// The digits to send.
    #[must_use]
    pub const fn number(&self) -> &E164 {
        &self.number
    }

    /// How far the proof allows a call that shows it to be attested. Nothing is signed yet.
    #[must_use]
    pub const fn attestation(&self) -> Attestation {
        self.attestation
    }
}

/// The operator's own number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceNumber(pub E164);

/// What a B-leg shows of the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presentation {
    /// The number is shown.
    Shown(PresentedNumber),
    /// The number is withheld (RFC 3323): anonymous From, `Privacy: id`, the number only in P-Asserted-Identity and only
    /// over a trusted trunk.
    Withheld(PresentedNumber),
}

impl Presentation {
    /// A number, withheld or not.
    #[must_use]
    pub const fn of(number: PresentedNumber, is_withheld: bool) -> Self {
        if is_withheld { Self::Withheld(number) } else { Self::Shown(number) }
    }

    /// The verified number behind it, shown or not.
    #[must_use]
    pub const fn number(&self) -> &PresentedNumber {
        match self {
            Self::Shown(number) | Self::Withheld(number) => number,
        }
    }

    /// Whether the person called is not shown the number.
    #[must_use]
    pub const fn is_withheld(&self) -> bool {
        matches!(self, Self::Withheld(_))
    }
}

/// The subscriber's own phone, rung first in a callback. It has no `Debug`, `Display` or `Serialize`, and nothing turns it
/// into a [`PresentedNumber`] or an [`E164`] (invariant P1).
#[derive(Clone, PartialEq, Eq)]
pub struct CallbackNumber(E164);

impl CallbackNumber {
    /// Reads an E.164 number.
    ///
    /// # Errors
    /// As [`E164::parse`].
    pub fn parse(text: &str) -> Result<Self, NumberError> {
        E164::parse(text).map(Self)
    }

    /// For its owner's screen: all but the last two digits hidden.
    #[must_use]
    pub fn masked(&self) -> String {
        let digits = self.0.digits();
        format!("+{}{}", "•".repeat(digits.len() - 2), &digits[digits.len() - 2..])
    }

    /// For the sealed column that keeps it; the storage layer only.
    #[must_use]
    pub fn sealed_form(&self) -> &str {
        self.0.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_strict_e164_is_a_number() {
        for good in ["+447700900123", "+15551234567", "+1234567", "+123456789012345"] {
            assert_eq!(E164::parse(good).map(|n| n.as_str().to_owned()), Ok(good.to_owned()));
        }
        for (bad, why) in [
            ("447700900123", NumberError::NoPlus),
            ("+0447700900", NumberError::NotDigits),
            ("+44 7700 900123", NumberError::NotDigits),
            ("+44770090012x", NumberError::NotDigits),
            ("+123456", NumberError::Length),
            ("+1234567890123456", NumberError::Length),
        ] {
            assert_eq!(E164::parse(bad), Err(why), "{bad}");
        }
    }

    #[test]
    fn p3_debug_of_a_number_is_masked() {
        let number = E164::parse("+447700900123").expect("valid");
        assert_eq!(format!("{number:?}"), "+447•••••••23");
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_keeps_the_text(text in "\\PC{0,20}") {
            if let Ok(number) = E164::parse(&text) {
                prop_assert_eq!(number.as_str(), text);
                prop_assert!(!number.masked().contains(&number.digits()[2..]));
            }
        }
    }
}
