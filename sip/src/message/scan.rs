//! The lexer's smallest parts: character classes, a cursor, lists (RFC 3261 §25.1).

use super::Malformed;
use std::borrow::Cow;

/// Kinds of characters, a bit each; a character may be of several.
mod kind {
    /// RFC 3261 `token`.
    pub(super) const TOKEN: u8 = 1;
    /// Of an unquoted parameter value: `token` and what hosts and addresses need.
    pub(super) const VALUE: u8 = 2;
    /// `word` of a Call-ID, without `@`.
    pub(super) const WORD: u8 = 4;
    /// Of a host name or IPv4 address.
    pub(super) const HOST: u8 = 8;

    pub(super) const TABLE: [u8; 256] = {
        let mut table = [0; 256];
        let mut byte = 0_u8;
        loop {
            table[byte as usize] = of(byte);
            if byte == u8::MAX {
                break table;
            }
            byte += 1;
        }
    };

    const fn of(byte: u8) -> u8 {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => TOKEN | VALUE | WORD | HOST,
            b'!' | b'%' | b'*' | b'+' | b'`' | b'\'' | b'~' => TOKEN | VALUE | WORD,
            b'[' | b']' | b':' | b'/' | b'(' | b')' => VALUE | WORD,
            b'@' | b'&' | b'$' => VALUE,
            b'<' | b'>' | b'\\' | b'"' | b'?' | b'{' | b'}' => WORD,
            _ => 0,
        }
    }
}

const fn is_of(byte: u8, kinds: u8) -> bool {
    kind::TABLE[byte as usize] & kinds != 0
}

/// RFC 3261 `token` characters.
pub(crate) const fn is_token_byte(byte: u8) -> bool {
    is_of(byte, kind::TOKEN)
}

pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

pub(crate) const fn is_lws(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Characters of an unquoted parameter value.
pub(super) const fn is_value_byte(byte: u8) -> bool {
    is_of(byte, kind::VALUE)
}

/// `word` characters of a Call-ID, one `@` included.
pub(crate) fn is_call_id(text: &str) -> bool {
    let (word, host) = split_at(text, b'@').unwrap_or((text, ""));
    let is_word = |text: &str| text.bytes().all(|byte| is_of(byte, kind::WORD));
    !text.is_empty() && text.len() <= 256 && is_word(word) && is_word(host)
}

/// Digits only, at most 10 of them, fitting `u32`; leading zeros allowed.
pub(crate) fn decimal(text: &str) -> Result<u32, Malformed> {
    if text.is_empty() || text.len() > 10 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Malformed);
    }
    text.parse().map_err(|_| Malformed)
}

/// A port, 1 to 65,535.
pub(crate) fn port(text: &str) -> Result<u16, Malformed> {
    match u16::try_from(decimal(text)?) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Malformed),
    }
}

/// Host name, IPv4 address or bracketed IPv6 address.
pub(crate) fn is_host(text: &str) -> bool {
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<std::net::Ipv6Addr>().is_ok();
    }
    !text.is_empty()
        && text.len() <= 255
        && text.bytes().all(|byte| is_of(byte, kind::HOST))
        && !text.starts_with(['-', '.'])
        && !text.as_bytes().windows(2).any(|pair| pair == b"..")
}

/// Without white space at both ends.
pub(crate) fn trim(text: &str) -> &str {
    let bytes = text.as_bytes();
    let start = bytes.iter().position(|byte| !is_lws(*byte)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|byte| !is_lws(*byte)).map_or(start, |last| last + 1);
    &text[start..end]
}

/// Place of an ASCII character: of texts as short as ours sooner than by the general search.
pub(crate) fn place_of(text: &str, byte: u8) -> Option<usize> {
    text.bytes().position(|other| other == byte)
}

/// What stands before and behind an ASCII character.
pub(crate) fn split_at(text: &str, byte: u8) -> Option<(&str, &str)> {
    place_of(text, byte).map(|at| (&text[..at], &text[at + 1..]))
}

/// All between this ASCII character, as [`str::split`] gives it.
pub(crate) fn split(text: &str, byte: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || match split_at(rest?, byte) {
        Some((part, behind)) => {
            rest = Some(behind);
            Some(part)
        }
        None => rest.take(),
    })
}

/// Splits `host[:port]`, spaces around the colon allowed.
pub(crate) fn host_port(text: &str) -> Result<(&str, Option<u16>), Malformed> {
    let split = if text.starts_with('[') {
        let end = text.find(']').ok_or(Malformed)? + 1;
        let rest = trim(&text[end..]);
        if rest.is_empty() { None } else { Some((&text[..end], rest.strip_prefix(':').ok_or(Malformed)?)) }
    } else {
        split_at(text, b':')
    };
    let (host, port_text) = match split {
        None => (text, None),
        Some((host, port_text)) => (host, Some(port_text)),
    };
    let host = trim(host);
    if !is_host(host) {
        return Err(Malformed);
    }
    let port = port_text.map(|p| port(trim(p))).transpose()?;
    Ok((host, port))
}

/// A forward-only reader over one header value.
#[derive(Clone)]
pub(crate) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) const fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub(crate) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    pub(crate) fn is_end(&self) -> bool {
        self.at == self.text.len()
    }

    pub(crate) fn skip_lws(&mut self) {
        while self.peek().is_some_and(is_lws) {
            self.at += 1;
        }
    }

    /// Takes `byte`, with white space around it.
    pub(crate) fn eat(&mut self, byte: u8) -> bool {
        let before = self.at;
        self.skip_lws();
        if self.peek() == Some(byte) {
            self.at += 1;
            self.skip_lws();
            true
        } else {
            self.at = before;
            false
        }
    }

    /// Takes `byte` and no white space: `< sip:…>` is refused (RFC 4475 §3.1.2.14).
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    pub(crate) fn take_while(&mut self, keep: impl Fn(u8) -> bool) -> &'a str {
        let rest = self.rest();
        let length = rest.bytes().position(|byte| !keep(byte)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    pub(crate) fn token(&mut self) -> Result<&'a str, Malformed> {
        let token = self.take_while(is_token_byte);
        if token.is_empty() { Err(Malformed) } else { Ok(token) }
    }

    /// A quoted string, quotes included.
    pub(crate) fn quoted(&mut self) -> Result<&'a str, Malformed> {
        let start = self.at;
        if self.peek() != Some(b'"') {
            return Err(Malformed);
        }
        self.at += 1;
        loop {
            match self.peek().ok_or(Malformed)? {
                b'"' => {
                    self.at += 1;
                    return Ok(&self.text[start..self.at]);
                }
                b'\\' => {
                    // A quoted pair holds one ASCII character.
                    if !self.text.as_bytes().get(self.at + 1).is_some_and(u8::is_ascii) {
                        return Err(Malformed);
                    }
                    self.at += 2;
                }
                _ => self.at += 1,
            }
        }
    }

    /// `name[=value]`; the value keeps its quotes.
    pub(crate) fn param(&mut self) -> Result<(&'a str, Option<&'a str>), Malformed> {
        let name = self.token()?;
        if !self.eat(b'=') {
            return Ok((name, None));
        }
        let value = if self.peek() == Some(b'"') { self.quoted()? } else { self.take_while(is_value_byte) };
        if value.is_empty() { Err(Malformed) } else { Ok((name, Some(value))) }
    }

    /// What is not taken yet.
    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }
}

/// Splits a comma list outside quotes and angle brackets; an empty entry is malformed.
pub(crate) fn split_list(value: &str) -> impl Iterator<Item = Result<&str, Malformed>> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        let text = rest?;
        match list_entry_end(text) {
            Err(error) => {
                rest = None;
                Some(Err(error))
            }
            Ok(end) => {
                let entry = trim(&text[..end]);
                rest = text.get(end + 1..);
                if entry.is_empty() {
                    rest = None;
                    return Some(Err(Malformed));
                }
                Some(Ok(entry))
            }
        }
    })
}

fn list_entry_end(text: &str) -> Result<usize, Malformed> {
    // Most values are no list and have nothing that could hide a comma.
    if !text.bytes().fold(false, |found, byte| found | matches!(byte, b',' | b'"' | b'<' | b'>')) {
        return Ok(text.len());
    }
    let (mut in_quotes, mut in_angle, mut skip) = (false, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if skip => skip = false,
            b'\\' if in_quotes => skip = true,
            b'"' if !in_angle => in_quotes = !in_quotes,
            b'<' if !in_quotes => in_angle = true,
            b'>' if !in_quotes => in_angle = false,
            b',' if !in_quotes && !in_angle => return Ok(at),
            _ => {}
        }
    }
    if in_quotes || in_angle { Err(Malformed) } else { Ok(text.len()) }
}

/// Text of a quoted string without quotes, escapes and the control characters in these; text without quotes as it is.
pub(crate) fn unquote(text: &str) -> Cow<'_, str> {
    let inner = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    if inner.len() == text.len() || place_of(inner, b'\\').is_none() {
        return Cow::Borrowed(inner);
    }
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next().filter(|c| !c.is_control())),
            _ => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Writes a quoted string; the caller has refused control characters.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

const fn is_control(byte: u8) -> bool {
    byte < b' ' || byte == 127
}

/// Place of the first ASCII control character from `from` on, the length when there is none. Sixteen bytes at a time.
pub(crate) fn next_control(bytes: &[u8], from: usize) -> usize {
    let mut at = from.min(bytes.len());
    for chunk in bytes[at..].chunks_exact(16) {
        if chunk.iter().fold(false, |found, byte| found | is_control(*byte)) {
            break;
        }
        at += 16;
    }
    at + bytes[at..].iter().position(|byte| is_control(*byte)).unwrap_or(bytes.len() - at)
}

/// No CR, LF, NUL or other control character.
pub(crate) fn is_clean(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_plain = bytes.is_ascii() && next_control(bytes, 0) == bytes.len();
    is_plain || !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn the_next_control_character_is_found_wherever_it_stands(bytes in "[\\x00-\\x22\\x7d-\\x81a-zé]{0,40}", from in 0_usize..50) {
            let bytes = bytes.as_bytes();
            let from = from.min(bytes.len());
            let expected = bytes[from..].iter().position(u8::is_ascii_control).map_or(bytes.len(), |at| from + at);
            proptest::prop_assert_eq!(next_control(bytes, from), expected);
        }
    }

    #[test]
    fn every_byte_is_told_apart_at_every_place() {
        for byte in 0..=u8::MAX {
            for place in 0..35 {
                for fill in [b'a', b' ', 0x80, 0xff] {
                    let mut bytes = [fill; 35];
                    bytes[place] = byte;
                    let expected = if byte.is_ascii_control() { place } else { bytes.len() };
                    assert_eq!(next_control(&bytes, 0), expected, "{byte} at {place} among {fill}");
                }
            }
        }
    }
}
