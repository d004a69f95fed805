//! The rules a message must keep before anyone acts on it (RFC 3261 §8.1.1, §8.2, §18.3).

use super::address::AddressParts;
use super::lexer::{Head, Start};
use super::limits::{MAX_CONTACTS, MAX_ROUTES, MAX_TOKENS, MAX_VIAS};
use super::scan::{self, split_at, split_list};
use super::via::ViaParts;
use super::{HeaderName, Malformed, Method, Problem, Uri};

/// Checks the whole head and fills in what CSeq says.
pub(super) fn check(head: &mut Head, has_body: bool) -> Result<(), Problem> {
    check_singles(head)?;
    check_vias(head)?;
    for name in [HeaderName::From, HeaderName::To] {
        required(head, name)?;
        party(head, name).map_err(|_| Problem::Malformed(name))?;
    }
    if !scan::is_call_id(required(head, HeaderName::CallId)?) {
        return Err(Problem::Malformed(HeaderName::CallId));
    }
    check_cseq(head)?;
    list(head, HeaderName::Route, MAX_ROUTES, route)?;
    list(head, HeaderName::RecordRoute, MAX_ROUTES, route)?;
    check_contact(head)?;
    check_numbers(head)?;
    for name in [HeaderName::Require, HeaderName::ProxyRequire, HeaderName::Supported, HeaderName::Unsupported] {
        check_tokens(head, name)?;
    }
    check_content_type(head, has_body)
}

/// One pass: a header that may stand once must not stand twice.
fn check_singles(head: &Head) -> Result<(), Problem> {
    let mut seen = 0_u64;
    for field in head.fields.iter().filter(|field| field.name.is_single()) {
        let bit = field.name.bit();
        if seen & bit != 0 {
            return Err(Problem::Duplicate(field.name));
        }
        seen |= bit;
    }
    Ok(())
}

/// The top one was read with the head.
fn check_vias(head: &mut Head) -> Result<(), Problem> {
    let is_top_read = head.top_via().is_some();
    let mut count = 0;
    list(head, HeaderName::Via, MAX_VIAS, |via| {
        count += 1;
        if count == 1 && is_top_read { Ok(()) } else { ViaParts::parse(via).map(drop) }
    })?;
    head.is_of_one_hop = count == 1;
    required(head, HeaderName::Via).map(drop)
}

fn required(head: &Head, name: HeaderName) -> Result<&str, Problem> {
    head.texts(name).next().ok_or(Problem::Missing(name))
}

/// From or To, which was read with the head.
fn party(head: &Head, name: HeaderName) -> Result<(), Malformed> {
    let (uri, tag) = head.party(name).ok_or(Malformed)?;
    if tag.is_some_and(|tag| !scan::is_token(tag)) {
        return Err(Malformed);
    }
    Uri::check(uri)
}

fn address(text: &str) -> Result<(), Malformed> {
    let parts = AddressParts::parse(text)?;
    if parts.params.value("tag").is_some_and(|tag| !scan::is_token(tag)) {
        return Err(Malformed);
    }
    Uri::check(parts.uri)
}

/// A route stands in angle brackets always (RFC 3261 §25.1).
fn route(text: &str) -> Result<(), Malformed> {
    if !text.contains('<') {
        return Err(Malformed);
    }
    address(text)
}

fn list(
    head: &Head,
    name: HeaderName,
    most: usize,
    mut check: impl FnMut(&str) -> Result<(), Malformed>,
) -> Result<usize, Problem> {
    let mut count = 0;
    for value in head.texts(name).flat_map(split_list) {
        count += 1;
        if count > most {
            return Err(Problem::TooMany(name));
        }
        value.and_then(&mut check).map_err(|_| Problem::Malformed(name))?;
    }
    Ok(count)
}

fn check_cseq(head: &mut Head) -> Result<(), Problem> {
    const MALFORMED: Problem = Problem::Malformed(HeaderName::CSeq);
    let (number, method) = cseq(required(head, HeaderName::CSeq)?).map_err(|_| MALFORMED)?;
    let method = Method::parse(method).map_err(|_| MALFORMED)?;
    if matches!(head.start, Start::Request { .. }) && head.method != method {
        return Err(Problem::MethodMismatch);
    }
    head.cseq = number;
    head.method = method;
    Ok(())
}

/// Number and method; the number is below 2³¹ (RFC 3261 §8.1.1.5).
pub(super) fn cseq(text: &str) -> Result<(u32, &str), Malformed> {
    let (number, method) = text.split_once([' ', '\t']).ok_or(Malformed)?;
    let number = scan::decimal(number)?;
    if number < 1 << 31 { Ok((number, scan::trim(method))) } else { Err(Malformed) }
}

fn check_contact(head: &Head) -> Result<(), Problem> {
    const NAME: HeaderName = HeaderName::Contact;
    if head.texts(NAME).any(|text| text == "*") {
        let alone = head.texts(NAME).count() == 1;
        return if alone && head.method == Method::Register { Ok(()) } else { Err(Problem::Malformed(NAME)) };
    }
    // A redirection may name any number of them, which nobody follows.
    let most = if matches!(head.start, Start::Request { .. }) { MAX_CONTACTS } else { usize::MAX };
    let count = list(head, NAME, most, address)?;
    // An INVITE says where its dialog's requests go (RFC 3261 §8.1.1.8).
    match (&head.start, &head.method, count) {
        (Start::Request { .. }, Method::Invite, 0) => Err(Problem::Missing(NAME)),
        (Start::Request { .. }, Method::Invite, 2..) => Err(Problem::Duplicate(NAME)),
        _ => Ok(()),
    }
}

fn check_numbers(head: &Head) -> Result<(), Problem> {
    for name in [HeaderName::Expires, HeaderName::MinExpires, HeaderName::RSeq] {
        if head.texts(name).any(|text| scan::decimal(text).is_err()) {
            return Err(Problem::Malformed(name));
        }
    }
    let hops = |text: &str| scan::decimal(text).is_ok_and(|hops| hops <= 255);
    if !head.texts(HeaderName::MaxForwards).all(hops) {
        return Err(Problem::Malformed(HeaderName::MaxForwards));
    }
    Ok(())
}

/// A list of option tags; an empty field is an empty list.
fn check_tokens(head: &Head, name: HeaderName) -> Result<(), Problem> {
    let mut count = 0;
    for value in head.texts(name).filter(|text| !text.is_empty()).flat_map(split_list) {
        count += 1;
        if count > MAX_TOKENS {
            return Err(Problem::TooMany(name));
        }
        if !value.is_ok_and(scan::is_token) {
            return Err(Problem::Malformed(name));
        }
    }
    Ok(())
}

fn check_content_type(head: &mut Head, has_body: bool) -> Result<(), Problem> {
    const NAME: HeaderName = HeaderName::ContentType;
    let Some(text) = head.texts(NAME).next() else {
        return if has_body { Err(Problem::Missing(NAME)) } else { Ok(()) };
    };
    let (main, sub) = media_type(text).ok_or(Problem::Malformed(NAME))?;
    head.is_of_sdp = main.eq_ignore_ascii_case("application") && sub.eq_ignore_ascii_case("sdp");
    Ok(())
}

/// `type/subtype` without parameters, white space around the slash allowed.
fn media_type(text: &str) -> Option<(&str, &str)> {
    let full = split_at(text, b';').map_or(text, |(full, _)| full);
    let (main, sub) = split_at(full, b'/')?;
    let (main, sub) = (scan::trim(main), scan::trim(sub));
    (scan::is_token(main) && scan::is_token(sub)).then_some((main, sub))
}
