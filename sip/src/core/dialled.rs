//! Which number an INVITE is for: the user of a SIP URI or a tel URI, both of which may carry parameters (RFC 3966; RFC 3261
//! §19.1.6). What cannot be dialled as it is written is refused rather than dialled as something else: a call costs money.

use crate::message::{Scheme, Uri};
use schema::leg::{DIALLED_MAX, DIALLED_TOO_LONG};

/// The number without its parameters, as it is written otherwise: separators and national forms are the dial plan's business.
/// `is_ours` tells our own domains. Parameters of no consequence here (`rn`, `cic`, `tgrp`, `user` …) are passed over, as is a
/// context of a number that is global already.
///
/// # Errors
/// Why it cannot be dialled, in words for the caller.
pub(super) fn dialled(uri: &Uri, is_ours: impl Fn(&str) -> bool) -> Result<String, &'static str> {
    let user = uri.user_decoded().unwrap_or_default();
    let (number, params) = user.split_once(';').unwrap_or((&user, ""));
    let of_user = params.split(';').filter(|param| !param.is_empty());
    let of_user = of_user.map(|param| param.split_once('=').map_or((param, None), |(name, value)| (name, Some(value))));
    let is_tel = uri.scheme() == Scheme::Tel;
    let mut context = None;
    for (name, value) in of_user.chain(uri.params().filter(|_| is_tel)) {
        match name.to_ascii_lowercase().as_str() {
            "ext" => return Err("an extension (ext) cannot be dialled"),
            "isub" => return Err("an ISDN subaddress (isub) cannot be dialled"),
            "phone-context" => context = value,
            mandatory if mandatory.starts_with("m-") => return Err("a mandatory parameter of the number is not known"),
            _ => {}
        }
    }
    let is_local = !number.starts_with('+');
    match context {
        Some(context) if is_local && !is_ours(context) => Err("a number of another dial plan (phone-context)"),
        None if is_local && is_tel => Err("a local number needs its phone-context"),
        _ if number.chars().count() > DIALLED_MAX => Err(DIALLED_TOO_LONG),
        _ => Ok(number.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(uri: &str) -> Result<String, &'static str> {
        dialled(&Uri::parse(uri).expect("a URI"), |host| host.eq_ignore_ascii_case("localhost"))
    }

    #[test]
    fn a_number_is_read_without_its_parameters_or_refused_by_name() {
        for (uri, number) in [
            ("sip:+447700900123@localhost", "+447700900123"),
            ("sip:07700900123@localhost", "07700900123"),
            ("sip:%2B447700900123;rn=+44@localhost;user=phone", "+447700900123"),
            ("sip:07700900123;phone-context=LOCALHOST@localhost;user=phone", "07700900123"),
            ("tel:+44-7700-900123", "+44-7700-900123"),
            ("TEL:+447700900123;npdi;phone-context=elsewhere.example", "+447700900123"),
            ("tel:07700900123;phone-context=localhost", "07700900123"),
            ("sip:localhost", ""),
        ] {
            assert_eq!(read(uri).as_deref(), Ok(number), "{uri}");
        }
        for (uri, word) in [
            ("tel:+447700900123;ext=12", "(ext)"),
            ("sip:+447700900123;EXT=12@localhost;user=phone", "(ext)"),
            ("tel:+447700900123;isub=1", "(isub)"),
            ("tel:+447700900123;m-new=1", "mandatory"),
            ("tel:900123;phone-context=+447700", "another dial plan"),
            ("tel:900123;phone-context=elsewhere.example", "another dial plan"),
            ("sip:900123;phone-context=elsewhere.example@localhost", "another dial plan"),
            ("tel:07700900123", "needs its phone-context"),
        ] {
            let refused = read(uri).expect_err(uri);
            assert!(refused.contains(word), "{uri}: {refused}");
        }
        // Cut to what is read it would be another number.
        let of_length = |length: usize| read(&format!("sip:{}@localhost", "4".repeat(length)));
        assert_eq!(of_length(DIALLED_MAX).map(|number| number.len()), Ok(DIALLED_MAX));
        assert_eq!(of_length(DIALLED_MAX + 1), Err(DIALLED_TOO_LONG));
    }
}
