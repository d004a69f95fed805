//! Which number was meant: reads what a customer dialled as the phones of their country would, and says what kind of
//! destination it is. It knows nothing of accounts, prices or routes. A number that begins with `+` always means the same.

pub mod countries;
pub mod special;

use countries::{Country, NANP};
use schema::leg::{DIALLED_MAX, DIALLED_TOO_LONG};
use schema::number::E164;
use special::DestinationClass;

/// What a dialled text means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dialled {
    /// An E.164 number and its class.
    Number {
        /// The number.
        number: E164,
        /// What kind it is.
        class: DestinationClass,
        /// How it was written.
        form: Form,
    },
    /// An emergency number of the country, exactly.
    Emergency,
    /// Neither; the text says what would be understood.
    Invalid(&'static str),
}

/// How a number was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `+` and the number, or the country's international prefix.
    International,
    /// With the country's national prefix.
    National,
    /// National digits without any prefix, in countries that dial so.
    Bare,
}

const HELP: &str = "dial + and the country code, or as at home in the account's country";
const TOO_SHORT: &str = "the number is too short";

/// Reads `text` as dialled in `country` (ISO 3166-1 alpha-2). Spaces and the visual separators of RFC 3966 §5.1.1 are
/// skipped. Emergency numbers match exactly, also behind a `+` that a phone put there: a longer number that begins with one is none.
#[must_use]
pub fn read(text: &str, country: &str) -> Dialled {
    if text.chars().count() > DIALLED_MAX {
        return Dialled::Invalid(DIALLED_TOO_LONG);
    }
    let dialled: String = text.chars().filter(|c| !matches!(c, ' ' | '-' | '.' | '(' | ')')).collect();
    let country = countries::of(country);
    let (plus, digits) = dialled.strip_prefix('+').map_or((false, dialled.as_str()), |rest| (true, rest));
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Dialled::Invalid(HELP);
    }
    if country.emergency.contains(&digits) || countries::EMERGENCY_EVERYWHERE.contains(&digits) {
        return Dialled::Emergency;
    }
    if plus {
        return number(digits, Form::International);
    }
    match country.international_prefix {
        prefix if !prefix.is_empty() && digits.starts_with(prefix) => {
            number(&digits[prefix.len()..], Form::International)
        }
        _ => national(digits, country),
    }
}

fn national(digits: &str, country: &Country) -> Dialled {
    let Country { calling_code, national_prefix, .. } = *country;
    if calling_code == NANP {
        // North America: 10 digits, with or without the leading 1.
        return match (digits.len(), digits.starts_with('1')) {
            (11, true) => number(digits, Form::National),
            (10, false) => number(&format!("1{digits}"), Form::Bare),
            _ => Dialled::Invalid(HELP),
        };
    }
    if calling_code.is_empty() {
        return Dialled::Invalid("dial + and the country code");
    }
    if national_prefix.is_empty() {
        // Closed numbering: the national number is dialled as it is, a leading 0 (Italy) belongs to it.
        return match digits.len() {
            0..=6 => Dialled::Invalid(TOO_SHORT),
            _ => number(&format!("{calling_code}{digits}"), Form::Bare),
        };
    }
    match digits.strip_prefix(national_prefix) {
        Some(rest) if rest.len() >= 5 => number(&format!("{calling_code}{rest}"), Form::National),
        Some(_) => Dialled::Invalid(TOO_SHORT),
        // Without a prefix it would be a local or a short number; guessing a country here would call somebody else.
        None => Dialled::Invalid(HELP),
    }
}

fn number(digits: &str, form: Form) -> Dialled {
    match E164::parse(&format!("+{digits}")) {
        Ok(number) => Dialled::Number { class: special::class(number.digits()), number, form },
        Err(_) if digits.len() < 7 => Dialled::Invalid(TOO_SHORT),
        Err(_) if digits.len() > 15 => Dialled::Invalid(DIALLED_TOO_LONG),
        Err(_) => Dialled::Invalid(HELP),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn meant(text: &str, country: &str) -> String {
        match read(text, country) {
            Dialled::Number { number, .. } => number.as_str().to_owned(),
            Dialled::Emergency => "emergency".to_owned(),
            Dialled::Invalid(_) => "invalid".to_owned(),
        }
    }

    #[test]
    fn numbers_are_read_as_at_home() {
        for (text, country, number) in [
            ("+447700900123", "DE", "+447700900123"),
            ("+44 (7700) 900-123", "US", "+447700900123"),
            ("07700900123", "GB", "+447700900123"),
            ("00447700900123", "GB", "+447700900123"),
            ("011447700900123", "US", "+447700900123"),
            ("447700900123", "GB", "invalid"),
            ("2125550123", "US", "+12125550123"),
            ("12125550123", "CA", "+12125550123"),
            ("5550123", "US", "invalid"),
            ("0612345678", "IT", "+390612345678"),
            ("612345678", "ES", "+34612345678"),
            ("030123456", "DE", "+4930123456"),
            ("0011441632960001", "AU", "+441632960001"),
            ("89261234567", "RU", "+79261234567"),
            ("810447700900123", "RU", "+447700900123"),
            ("07700900123", "ZZ", "invalid"),
            ("00447700900123", "ZZ", "+447700900123"),
            ("*100#", "GB", "invalid"),
            ("alice", "GB", "invalid"),
            ("", "GB", "invalid"),
            ("+", "GB", "invalid"),
            ("+04477009001", "GB", "invalid"),
            ("+4477009001234567", "GB", "invalid"),
            ("+123", "GB", "invalid"),
        ] {
            assert_eq!(meant(text, country), number, "{text} in {country}");
        }
    }

    #[test]
    fn emergency_numbers_match_exactly_and_by_country() {
        for (text, country, number) in [
            ("999", "GB", "emergency"),
            ("112", "GB", "emergency"),
            ("9-9-9", "GB", "emergency"),
            ("911", "US", "emergency"),
            ("110", "DE", "emergency"),
            ("000", "AU", "emergency"),
            ("999", "DE", "invalid"),
            ("9112125550", "US", "+19112125550"),
            ("+1911", "US", "invalid"),
            ("112", "ZZ", "emergency"),
            ("+112", "GB", "emergency"),
            ("+999", "GB", "emergency"),
            ("+999", "DE", "invalid"),
        ] {
            assert_eq!(meant(text, country), number, "{text} in {country}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "\\PC{0,80}", country in "[A-Z]{2}") {
            let _ = read(&text, &country);
        }

        #[test]
        fn a_plus_means_the_same_everywhere(number in "\\+[1-9][0-9]{6,14}", country in "[A-Z]{2}") {
            prop_assert_eq!(meant(&number, &country), number);
        }
    }
}
