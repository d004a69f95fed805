//! Reads a description line by line (RFC 8866 §5, §9).

use super::{Attribute, Description, MAX_ATTRIBUTES, MAX_FORMATS, MAX_LINE, MAX_MEDIA, MAX_SDP, Media, SdpError};
use crate::message::scan::{is_token, next_control, split, split_at};
use std::net::IpAddr;

/// Lines of the session part in the order of RFC 8866 §5; `r` repeats with `t`.
const SESSION_ORDER: &[u8] = b"vosiuepcbtrzka";
/// Lines of a media part.
const MEDIA_ORDER: &[u8] = b"micbka";

/// Lines that must be there.
const REQUIRED: &[u8; 4] = b"vost";

/// Where in the order the reader stands.
struct Place {
    order: &'static [u8],
    rank: usize,
    last: u8,
}

impl Place {
    /// Whether a line of this type may follow.
    fn accept(&mut self, kind: u8) -> bool {
        let Some(mut rank) = self.order.iter().position(|known| *known == kind) else { return false };
        if kind == b't' && self.last == b'r' {
            rank = self.rank;
        }
        // Types that may repeat; the others once.
        let repeats =
            matches!(kind, b'e' | b'p' | b'b' | b't' | b'r' | b'a') || (kind == b'c' && self.order == MEDIA_ORDER);
        let good = rank > self.rank || (rank == self.rank && (repeats || self.last == 0));
        self.rank = rank.max(self.rank);
        self.last = kind;
        good
    }
}

pub(super) fn parse(bytes: &[u8]) -> Result<Description<'_>, SdpError> {
    if bytes.len() > MAX_SDP {
        return Err(SdpError::TooLarge);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| SdpError::IllegalCharacter)?;
    let mut session = Description { connection: None, attributes: Vec::new(), media: Vec::new() };
    let mut place = Place { order: SESSION_ORDER, rank: 0, last: 0 };
    let mut seen = [false; 4];
    for (at, text) in Lines::of(text).enumerate() {
        let line = at + 1;
        let (kind, value) = typed(text?, line)?;
        if kind == b'm' {
            check_required(seen)?;
            place = Place { order: MEDIA_ORDER, rank: 0, last: 0 };
        }
        if !place.accept(kind) {
            return Err(SdpError::Order { line, kind: kind.into() });
        }
        if let Some(required) = REQUIRED.iter().position(|known| *known == kind) {
            seen[required] = true;
        }
        read(&mut session, kind, value).map_err(|fault| match fault {
            Fault::Value => SdpError::Value { line, kind: kind.into() },
            Fault::TooMany(what) => SdpError::TooMany { what },
        })?;
    }
    check_required(seen)?;
    check_connections(session)
}

fn check_required(seen: [bool; 4]) -> Result<(), SdpError> {
    match REQUIRED.iter().zip(seen).find(|(_, seen)| !seen) {
        Some((kind, _)) => Err(SdpError::Missing { kind: char::from(*kind) }),
        None => Ok(()),
    }
}

/// Lines without their ends. They may end in LF alone (RFC 8866 §5), the last one in CR alone or not at all. Empty ones at the end are
/// no part of it: some write them, and others read over them.
struct Lines<'a> {
    rest: Option<&'a str>,
    is_ascii: bool,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        Self { rest: Some(text.trim_end_matches(['\r', '\n'])), is_ascii: text.is_ascii() }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Result<&'a str, SdpError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.take()?;
        let bytes = rest.as_bytes();
        let mut end = next_control(bytes, 0);
        while bytes.get(end) == Some(&b'\t') {
            end = next_control(bytes, end + 1);
        }
        self.rest = match bytes[end..] {
            [] | [b'\r'] => None,
            [b'\r', b'\n', ..] => Some(&rest[end + 2..]),
            [b'\n', ..] => Some(&rest[end + 1..]),
            _ => return Some(Err(SdpError::IllegalCharacter)),
        };
        let line = &rest[..end];
        // Beyond ASCII there are further control characters.
        let is_clean = self.is_ascii || !line.chars().any(|c| c.is_control() && c != '\t');
        Some(if is_clean { Ok(line) } else { Err(SdpError::IllegalCharacter) })
    }
}

fn typed(line: &str, number: usize) -> Result<(u8, &str), SdpError> {
    match line.as_bytes() {
        [kind @ b'a'..=b'z', b'=', ..] if line.len() <= MAX_LINE => Ok((*kind, &line[2..])),
        _ => Err(SdpError::Line { line: number }),
    }
}

enum Fault {
    Value,
    TooMany(&'static str),
}

fn read<'a>(session: &mut Description<'a>, kind: u8, value: &'a str) -> Result<(), Fault> {
    let check = |good: bool| if good { Ok(()) } else { Err(Fault::Value) };
    match kind {
        b'v' => check(value == "0"),
        b'o' => check(is_origin(value)),
        b's' => check(!value.is_empty()),
        b't' => check(is_time(value)),
        b'c' => {
            let address = connection(value).ok_or(Fault::Value)?;
            let place = session.media.last_mut().map_or(&mut session.connection, |media| &mut media.connection);
            // Several c= of one medium are several multicast groups; only the first is kept.
            *place = place.or(Some(address));
            Ok(())
        }
        b'a' => {
            let attribute = attribute(value).ok_or(Fault::Value)?;
            let list = session.media.last_mut().map_or(&mut session.attributes, |media| &mut media.attributes);
            if list.len() == MAX_ATTRIBUTES {
                return Err(Fault::TooMany("attributes"));
            }
            list.push(attribute);
            Ok(())
        }
        b'm' => {
            if session.media.len() == MAX_MEDIA {
                return Err(Fault::TooMany("media"));
            }
            let media = media(value)?;
            session.media.push(media);
            Ok(())
        }
        _ => check(!value.is_empty()),
    }
}

/// `username sess-id sess-version IN IP4 address`.
fn is_origin(value: &str) -> bool {
    let mut fields = split(value, b' ');
    let mut next_is = |check: fn(&str) -> bool| fields.next().is_some_and(check);
    next_is(|user| !user.is_empty())
        && next_is(is_number)
        && next_is(is_number)
        && next_is(|net| net == "IN")
        && next_is(|family| matches!(family, "IP4" | "IP6"))
        && next_is(|address| !address.is_empty())
        && fields.next().is_none()
}

fn is_number(text: &str) -> bool {
    (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_time(value: &str) -> bool {
    split_at(value, b' ').is_some_and(|(start, stop)| is_number(start) && is_number(stop.trim_end()))
}

/// `IN IP4 address` or `IN IP6 address`; host names and multicast are not used on calls.
fn connection(value: &str) -> Option<IpAddr> {
    let mut fields = split(value.trim_end(), b' ');
    let (net, family, address) = (fields.next()?, fields.next()?, fields.next()?);
    if net != "IN" || fields.next().is_some() {
        return None;
    }
    match family {
        "IP4" => address.parse().ok().map(IpAddr::V4),
        "IP6" => address.parse().ok().map(IpAddr::V6),
        _ => None,
    }
}

fn attribute(value: &str) -> Option<Attribute<'_>> {
    let (name, value) = split_at(value, b':').map_or((value, None), |(name, value)| (name, Some(value)));
    let name = name.trim_end();
    is_token(name).then_some(Attribute { name, value })
}

/// `kind port[/count] protocol format …`.
fn media(value: &str) -> Result<Media<'_>, Fault> {
    let mut fields = split(value, b' ').filter(|field| !field.is_empty());
    let mut next = || fields.next().ok_or(Fault::Value);
    let (kind, port, protocol) = (next()?, next()?, next()?);
    // `port/count` is for layered multicast.
    let port = port.parse::<u16>().ok().filter(|_| port.bytes().all(|b| b.is_ascii_digit())).ok_or(Fault::Value)?;
    if !is_token(kind) || !protocol.split('/').all(is_token) {
        return Err(Fault::Value);
    }
    let formats: Vec<&str> = fields.by_ref().take(MAX_FORMATS + 1).collect();
    if formats.len() > MAX_FORMATS {
        return Err(Fault::TooMany("formats"));
    }
    if formats.is_empty() || !formats.iter().all(|format| is_token(format)) {
        return Err(Fault::Value);
    }
    Ok(Media { kind, port, protocol, formats, connection: None, attributes: Vec::new() })
}

/// Each medium that is on needs an address (RFC 8866 §5.7).
fn check_connections(session: Description<'_>) -> Result<Description<'_>, SdpError> {
    let complete = session.media.iter().all(|media| media.port == 0 || session.address_of(media).is_some());
    if complete { Ok(session) } else { Err(SdpError::Missing { kind: 'c' }) }
}
