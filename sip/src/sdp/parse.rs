//! Reads a description line by line (RFC 8866 §5, §9).

use super::{Attribute, Description, MAX_ATTRIBUTES, MAX_FORMATS, MAX_LINE, MAX_MEDIA, MAX_SDP, Media, SdpError};
use crate::message::scan::{is_clean, is_token};
use std::net::IpAddr;

/// Lines of the session part in the order of RFC 8866 §5; `r` repeats with `t`.
const SESSION_ORDER: &str = "vosiuepcbtrzka";
/// Lines of a media part.
const MEDIA_ORDER: &str = "micbka";

/// Where in the order the reader stands.
struct Place {
    order: &'static str,
    rank: usize,
    last: char,
}

impl Place {
    /// Whether a line of this type may follow.
    fn accept(&mut self, kind: char) -> bool {
        let Some(mut rank) = self.order.chars().position(|known| known == kind) else { return false };
        if kind == 't' && self.last == 'r' {
            rank = self.rank;
        }
        // Types that may repeat; the others once.
        let repeats = matches!(kind, 'e' | 'p' | 'b' | 't' | 'r' | 'a') || (kind == 'c' && self.order == MEDIA_ORDER);
        let good = rank > self.rank || (rank == self.rank && (repeats || self.last == '\0'));
        self.rank = rank.max(self.rank);
        self.last = kind;
        good
    }
}

pub(super) fn parse(bytes: &[u8]) -> Result<Description, SdpError> {
    if bytes.len() > MAX_SDP {
        return Err(SdpError::TooLarge);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| SdpError::IllegalCharacter)?;
    let mut session = Description { connection: None, attributes: Vec::new(), media: Vec::new() };
    let mut place = Place { order: SESSION_ORDER, rank: 0, last: '\0' };
    let mut seen = [false; 4];
    // Lines may end in LF alone (RFC 8866 §5); the last may lack its end.
    for (at, raw) in text.strip_suffix('\n').unwrap_or(text).split('\n').enumerate() {
        let line = at + 1;
        let (kind, value) = split(raw.strip_suffix('\r').unwrap_or(raw), line)?;
        if kind == 'm' {
            check_required(seen)?;
            place = Place { order: MEDIA_ORDER, rank: 0, last: '\0' };
        }
        if !place.accept(kind) {
            return Err(SdpError::Order { line, kind });
        }
        if let Some(required) = "vost".chars().position(|known| known == kind) {
            seen[required] = true;
        }
        read(&mut session, kind, value).map_err(|fault| match fault {
            Fault::Value => SdpError::Value { line, kind },
            Fault::TooMany(what) => SdpError::TooMany { what },
        })?;
    }
    check_required(seen)?;
    check_connections(session)
}

fn check_required(seen: [bool; 4]) -> Result<(), SdpError> {
    match "vost".chars().zip(seen).find(|(_, seen)| !seen) {
        Some((kind, _)) => Err(SdpError::Missing { kind }),
        None => Ok(()),
    }
}

fn split(line: &str, number: usize) -> Result<(char, &str), SdpError> {
    if !is_clean(line) && line.chars().any(|c| c.is_control() && c != '\t') {
        return Err(SdpError::IllegalCharacter);
    }
    let mut chars = line.chars();
    match (chars.next(), chars.next()) {
        (Some(kind), Some('=')) if kind.is_ascii_lowercase() && line.len() <= MAX_LINE => Ok((kind, chars.as_str())),
        _ => Err(SdpError::Line { line: number }),
    }
}

enum Fault {
    Value,
    TooMany(&'static str),
}

fn read(session: &mut Description, kind: char, value: &str) -> Result<(), Fault> {
    let check = |good: bool| if good { Ok(()) } else { Err(Fault::Value) };
    match kind {
        'v' => check(value == "0"),
        'o' => check(is_origin(value)),
        's' => check(!value.is_empty()),
        't' => check(is_time(value)),
        'c' => {
            let address = connection(value).ok_or(Fault::Value)?;
            let place = session.media.last_mut().map_or(&mut session.connection, |media| &mut media.connection);
            // Several c= of one medium are several multicast groups; only the first is kept.
            *place = place.or(Some(address));
            Ok(())
        }
        'a' => {
            let attribute = attribute(value).ok_or(Fault::Value)?;
            let list = session.media.last_mut().map_or(&mut session.attributes, |media| &mut media.attributes);
            if list.len() == MAX_ATTRIBUTES {
                return Err(Fault::TooMany("attributes"));
            }
            list.push(attribute);
            Ok(())
        }
        'm' => {
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
    let fields: Vec<&str> = value.split(' ').collect();
    let number = |text: &str| !text.is_empty() && text.len() <= 20 && text.bytes().all(|b| b.is_ascii_digit());
    match fields[..] {
        [user, id, version, net, family, address] => {
            !user.is_empty()
                && number(id)
                && number(version)
                && net == "IN"
                && matches!(family, "IP4" | "IP6")
                && !address.is_empty()
        }
        _ => false,
    }
}

fn is_time(value: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.len() <= 20 && text.bytes().all(|b| b.is_ascii_digit());
    value.split_once(' ').is_some_and(|(start, stop)| number(start) && number(stop.trim_end()))
}

/// `IN IP4 address` or `IN IP6 address`; host names and multicast are not used on calls.
fn connection(value: &str) -> Option<IpAddr> {
    let mut fields = value.trim_end().split(' ');
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

fn attribute(value: &str) -> Option<Attribute> {
    let (name, value) = value.split_once(':').map_or((value, None), |(name, value)| (name, Some(value)));
    let name = name.trim_end();
    is_token(name).then(|| Attribute { name: name.into(), value: value.map(Into::into) })
}

/// `kind port[/count] protocol format …`.
fn media(value: &str) -> Result<Media, Fault> {
    let mut fields = value.split(' ').filter(|field| !field.is_empty());
    let mut next = || fields.next().ok_or(Fault::Value);
    let (kind, port, protocol) = (next()?, next()?, next()?);
    // `port/count` is for layered multicast.
    let port = port.parse::<u16>().ok().filter(|_| port.bytes().all(|b| b.is_ascii_digit())).ok_or(Fault::Value)?;
    if !is_token(kind) || !protocol.split('/').all(is_token) {
        return Err(Fault::Value);
    }
    let formats: Vec<Box<str>> = fields.by_ref().take(MAX_FORMATS + 1).map(Into::into).collect();
    if formats.len() > MAX_FORMATS {
        return Err(Fault::TooMany("formats"));
    }
    if formats.is_empty() || !formats.iter().all(|format| is_token(format)) {
        return Err(Fault::Value);
    }
    Ok(Media { kind: kind.into(), port, protocol: protocol.into(), formats, connection: None, attributes: Vec::new() })
}

/// Each medium that is on needs an address (RFC 8866 §5.7).
fn check_connections(session: Description) -> Result<Description, SdpError> {
    let complete = session.media.iter().all(|media| media.port == 0 || session.address_of(media).is_some());
    if complete { Ok(session) } else { Err(SdpError::Missing { kind: 'c' }) }
}
