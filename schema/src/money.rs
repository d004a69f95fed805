//! Money as integers: micro-units (10⁻⁶) of one ISO 4217 currency. Never a float.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use std::str::FromStr;

/// An ISO 4217 currency code: three upper-case letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

/// Why a text is no amount or currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not a decimal number: digits, at most one point, an optional leading minus.
    #[error("an amount is a decimal number such as 12.34")]
    NotDecimal,
    /// More decimals than the unit can hold.
    #[error("too many decimals")]
    TooPrecise,
    /// Outside what a signed 64-bit count of the unit can hold.
    #[error("amount too large")]
    TooLarge,
    /// Not three letters A to Z.
    #[error("a currency is three letters such as EUR (ISO 4217)")]
    Currency,
}

impl Currency {
    /// Reads three upper-case letters.
    ///
    /// # Errors
    /// [`MoneyError::Currency`].
    pub fn parse(text: &str) -> Result<Self, MoneyError> {
        match text.as_bytes() {
            &[a, b, c] if [a, b, c].iter().all(u8::is_ascii_uppercase) => Ok(Self([a, b, c])),
            _ => Err(MoneyError::Currency),
        }
    }

    /// The three letters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("XXX")
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Currency {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

/// An amount in micro-units of a currency known from its context (the account's, a deck's). Overflow panics, in release too
/// (`overflow-checks`); amounts from outside are bounded when they are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Micros(pub i64);

/// An amount with its currency, for the edges of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Money {
    /// How much.
    pub amount: Micros,
    /// Of what.
    pub currency: Currency,
}

impl Micros {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The largest amount accepted from outside: 10⁹ units.
    pub const MAX_INPUT: Self = Self(1_000_000_000_000_000);

    /// Reads a decimal number of units with at most 6 decimals, e.g. `10`, `-0.5`, `12.345678`; at most 10⁹ units.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, MoneyError> {
        let amount = parse_decimal::<6>(text)?;
        if amount.abs() > Self::MAX_INPUT.0 { Err(MoneyError::TooLarge) } else { Ok(Self(amount)) }
    }

    /// True above zero.
    #[must_use]
    pub const fn is_positive(self) -> bool {
        self.0 > 0
    }

    /// True below zero.
    #[must_use]
    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }

    /// This amount, or zero when it is below.
    #[must_use]
    pub fn max_zero(self) -> Self {
        self.max(Self::ZERO)
    }

    /// With its currency.
    #[must_use]
    pub const fn of(self, currency: Currency) -> Money {
        Money { amount: self, currency }
    }
}

/// Decimal text with at least two and at most six decimals: `10.00`, `0.125`, `-3.000001`.
impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_decimal::<6>(self.0, f)
    }
}

impl Add for Micros {
    type Output = Self;
    fn add(self, rhs: Self) -> Self {
        Self(self.0 + rhs.0)
    }
}

impl Sub for Micros {
    type Output = Self;
    fn sub(self, rhs: Self) -> Self {
        Self(self.0 - rhs.0)
    }
}

impl Neg for Micros {
    type Output = Self;
    fn neg(self) -> Self {
        Self(-self.0)
    }
}

impl AddAssign for Micros {
    fn add_assign(&mut self, rhs: Self) {
        *self = *self + rhs;
    }
}

impl SubAssign for Micros {
    fn sub_assign(&mut self, rhs: Self) {
        *self = *self - rhs;
    }
}

impl Sum for Micros {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Add::add)
    }
}

/// A price per minute in nano-units (10⁻⁹) of a currency known from its context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NanosPerMinute(pub i64);

impl NanosPerMinute {
    /// Reads a decimal number of units with at most 9 decimals, not negative, at most 10⁶ units a minute.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, MoneyError> {
        let nanos = parse_decimal::<9>(text)?;
        if nanos < 0 {
            return Err(MoneyError::NotDecimal);
        }
        if nanos > 1_000_000_000_000_000 { Err(MoneyError::TooLarge) } else { Ok(Self(nanos)) }
    }
}

impl fmt::Display for NanosPerMinute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_decimal::<9>(self.0, f)
    }
}

impl FromStr for Micros {
    type Err = MoneyError;
    fn from_str(s: &str) -> Result<Self, MoneyError> {
        Self::parse(s)
    }
}

/// Units with `DECIMALS` decimals as a whole number of the smallest.
fn parse_decimal<const DECIMALS: usize>(text: &str) -> Result<i64, MoneyError> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    if whole.is_empty() || fraction.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return Err(MoneyError::NotDecimal);
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > DECIMALS {
        return Err(MoneyError::TooPrecise);
    }
    let scaled = format!("{whole}{fraction:0<DECIMALS$}").parse::<i64>().map_err(|_| MoneyError::TooLarge)?;
    Ok(if negative { -scaled } else { scaled })
}

fn write_decimal<const DECIMALS: usize>(value: i64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let scale = 10_u64.pow(u32::try_from(DECIMALS).unwrap_or(0));
    let (whole, rest) = (value.unsigned_abs() / scale, value.unsigned_abs() % scale);
    let digits = format!("{rest:0DECIMALS$}");
    let kept = digits.trim_end_matches('0').len().max(2);
    f.pad(&format!("{}{whole}.{}", if value < 0 { "-" } else { "" }, &digits[..kept]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amounts_are_read_exactly() {
        for (text, micros) in [
            ("10", 10_000_000),
            ("-0.5", -500_000),
            ("12.345678", 12_345_678),
            ("0.10000000", 100_000),
            ("007", 7_000_000),
        ] {
            assert_eq!(Micros::parse(text), Ok(Micros(micros)), "{text}");
        }
        for (text, why) in [
            ("", MoneyError::NotDecimal),
            ("1,5", MoneyError::NotDecimal),
            (".5", MoneyError::NotDecimal),
            ("5.", MoneyError::NotDecimal),
            ("1e3", MoneyError::NotDecimal),
            ("+1", MoneyError::NotDecimal),
            ("0.1234567", MoneyError::TooPrecise),
            ("1000000001", MoneyError::TooLarge),
            ("99999999999999999999", MoneyError::TooLarge),
        ] {
            assert_eq!(Micros::parse(text), Err(why), "{text}");
        }
    }

    #[test]
    fn currencies_are_three_capitals() {
        assert_eq!(Currency::parse("EUR").map(|c| c.to_string()), Ok("EUR".to_owned()));
        for bad in ["eur", "EURO", "E1R", ""] {
            assert_eq!(Currency::parse(bad), Err(MoneyError::Currency), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn an_amount_written_is_read_back(micros in -Micros::MAX_INPUT.0..=Micros::MAX_INPUT.0, nanos in 0..=1_000_000_000_000_000_i64) {
            prop_assert_eq!(Micros::parse(&Micros(micros).to_string()), Ok(Micros(micros)));
            prop_assert_eq!(NanosPerMinute::parse(&NanosPerMinute(nanos).to_string()), Ok(NanosPerMinute(nanos)));
        }

        #[test]
        fn arbitrary_text_never_panics(text in "[-0-9.]{0,24}") {
            let _ = Micros::parse(&text);
            let _ = NanosPerMinute::parse(&text);
        }
    }
}
