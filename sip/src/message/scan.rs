//! The lexer's smallest parts: character classes, a cursor, parameter lists (RFC 3261 §25.1).

use super::Malformed;
use super::limits::MAX_PARAMS;

/// RFC 3261 `token` characters.
pub(crate) const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~')
}

pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

pub(crate) const fn is_lws(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Characters of an unquoted parameter value: `token` and what hosts and addresses need.
const fn is_value_byte(byte: u8) -> bool {
    is_token_byte(byte) || matches!(byte, b'[' | b']' | b':' | b'/' | b'@' | b'&' | b'$' | b'(' | b')')
}

/// `word` characters of a Call-ID, `@` included.
pub(crate) fn is_call_id(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 256
        && text.bytes().filter(|b| *b == b'@').count() <= 1
        && text.bytes().all(|b| {
            is_token_byte(b)
                || matches!(
                    b,
                    b'(' | b')' | b'<' | b'>' | b':' | b'\\' | b'"' | b'/' | b'[' | b']' | b'?' | b'{' | b'}' | b'@'
                )
        })
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
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
        && !text.starts_with(['-', '.'])
        && !text.contains("..")
}

/// Splits `host[:port]`, spaces around the colon allowed.
pub(crate) fn host_port(text: &str) -> Result<(&str, Option<u16>), Malformed> {
    let split = if text.starts_with('[') {
        let end = text.find(']').ok_or(Malformed)? + 1;
        let rest = text[end..].trim_matches([' ', '\t']);
        if rest.is_empty() { None } else { Some((&text[..end], rest.strip_prefix(':').ok_or(Malformed)?)) }
    } else {
        text.split_once(':')
    };
    let (host, port_text) = match split {
        None => (text, None),
        Some((host, port_text)) => (host, Some(port_text)),
    };
    let host = host.trim_matches([' ', '\t']);
    if !is_host(host) {
        return Err(Malformed);
    }
    let port = port_text.map(|p| port(p.trim_matches([' ', '\t']))).transpose()?;
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
        let start = self.at;
        while self.peek().is_some_and(&keep) {
            self.at += 1;
        }
        &self.text[start..self.at]
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

    /// `*(SEMI param)` up to the end of the value.
    pub(crate) fn params(&mut self) -> Result<Vec<(&'a str, Option<&'a str>)>, Malformed> {
        let mut params = Vec::new();
        while self.eat(b';') {
            if params.len() == MAX_PARAMS {
                return Err(Malformed);
            }
            let param = self.param()?;
            if params.iter().any(|(name, _): &(&str, _)| name.eq_ignore_ascii_case(param.0)) {
                return Err(Malformed);
            }
            params.push(param);
        }
        self.skip_lws();
        if self.is_end() { Ok(params) } else { Err(Malformed) }
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
                let entry = text[..end].trim_matches([' ', '\t']);
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

/// Text of a quoted string without quotes, escapes and control characters; text without quotes as it is.
pub(crate) fn unquote(text: &str) -> String {
    let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return text.to_owned();
    };
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next().filter(|c| !c.is_control())),
            _ => out.push(c),
        }
    }
    out
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

/// No CR, LF, NUL or other control character.
pub(crate) fn is_clean(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// Parameters of a header value, in order, names unique, values as written (quotes kept).
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Params {
    // `;name=value;flag`, normalised: no white space outside quotes.
    text: Box<str>,
}

impl Params {
    pub(crate) fn from_list(list: &[(&str, Option<&str>)]) -> Self {
        let mut text = String::with_capacity(list.iter().map(|(n, v)| n.len() + v.map_or(0, str::len) + 2).sum());
        for (name, value) in list {
            text.push(';');
            text.push_str(name);
            if let Some(value) = value {
                text.push('=');
                text.push_str(value);
            }
        }
        Self { text: text.into_boxed_str() }
    }

    /// All parameters in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let mut cursor = Cursor::new(&self.text);
        std::iter::from_fn(move || if cursor.eat(b';') { cursor.param().ok() } else { None })
    }

    /// Value of `name` (case-insensitive); `Some("")` for a flag without value.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.unwrap_or(""))
    }

    /// Value of `name` without quotes and escapes.
    #[must_use]
    pub fn unquoted(&self, name: &str) -> Option<String> {
        self.value(name).map(unquote)
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Sets `name`; a value that is not a token or host is quoted. `None` sets a flag.
    ///
    /// # Errors
    /// A name that is no token, a control character in the value, or an empty value.
    pub fn with(self, name: &str, value: Option<&str>) -> Result<Self, Malformed> {
        if !is_token(name) || value.is_some_and(|v| v.is_empty() || !is_clean(v)) {
            return Err(Malformed);
        }
        let quoted = value.map(|v| {
            let plain = v.bytes().all(is_value_byte);
            let already = v.starts_with('"') && Cursor::new(v).quoted().is_ok_and(|q| q.len() == v.len());
            if plain || already { v.to_owned() } else { quote(v) }
        });
        let mut list: Vec<(&str, Option<&str>)> = self.iter().filter(|(n, _)| !n.eq_ignore_ascii_case(name)).collect();
        if list.len() == MAX_PARAMS {
            return Err(Malformed);
        }
        list.push((name, quoted.as_deref()));
        Ok(Self::from_list(&list))
    }

    /// Without `name`.
    #[must_use]
    pub fn without(self, name: &str) -> Self {
        let list: Vec<_> = self.iter().filter(|(n, _)| !n.eq_ignore_ascii_case(name)).collect();
        Self::from_list(&list)
    }
}

impl std::fmt::Display for Params {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// Only the names: values may be personal.
impl std::fmt::Debug for Params {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter().map(|(name, _)| name)).finish()
    }
}
