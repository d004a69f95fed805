//! SIP, SIPS, tel and other URIs (RFC 3261 §19.1, RFC 3966).

use super::limits::{MAX_PARAMS, MAX_URI};
use super::scan::{self, place_of, split_at};
use super::writer::digits;
use super::{Malformed, Written, params};
use std::borrow::Cow;
use std::fmt;

mod equivalence;

/// A URI's scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `sip:`
    Sip,
    /// `sips:`
    Sips,
    /// `tel:`
    Tel,
    /// Any other; answered 416.
    Other,
}

/// Byte range within a URI; `MAX_URI` fits `u16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span(u16, u16);

/// Where the parts of a URI are in its text.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Layout {
    scheme: Scheme,
    user: Option<Span>,
    password: Option<Span>,
    host: Span,
    port: Option<u16>,
    params: Span,
    headers: Option<Span>,
}

/// A URI: its text, checked, and where its parts are. One allocation.
#[derive(Clone)]
pub struct Uri {
    text: Box<str>,
    at: Layout,
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')')
}

const fn is_user_byte(byte: u8) -> bool {
    is_unreserved(byte) || matches!(byte, b'&' | b'=' | b'+' | b'$' | b',' | b';' | b'?' | b'/')
}

const fn is_password_byte(byte: u8) -> bool {
    is_unreserved(byte) || matches!(byte, b'&' | b'=' | b'+' | b'$' | b',')
}

const fn is_param_byte(byte: u8) -> bool {
    is_unreserved(byte) || matches!(byte, b'[' | b']' | b'/' | b':' | b'&' | b'+' | b'$')
}

const fn is_header_byte(byte: u8) -> bool {
    is_unreserved(byte) || matches!(byte, b'[' | b']' | b'/' | b'?' | b':' | b'+' | b'$')
}

/// What no URI holds anywhere.
const fn is_foreign(byte: u8) -> bool {
    !byte.is_ascii_graphic() || matches!(byte, b'<' | b'>' | b'"')
}

/// Every byte of the class, or a `%` and two hexadecimal digits.
fn is_escaped(text: &str, class: impl Fn(u8) -> bool) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let good = match byte {
            b'%' => {
                bytes.next().is_some_and(|b| b.is_ascii_hexdigit())
                    && bytes.next().is_some_and(|b| b.is_ascii_hexdigit())
            }
            other => class(other),
        };
        if !good {
            return false;
        }
    }
    true
}

fn escape(text: &str, class: fn(u8) -> bool) -> Cow<'_, str> {
    if text.bytes().all(class) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if class(byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    Cow::Owned(out)
}

impl Layout {
    fn read(text: &str) -> Result<Self, Malformed> {
        // All bytes whatever the first ones are: so the compiler takes many at a time.
        if text.len() > MAX_URI || text.bytes().fold(false, |found, byte| found | is_foreign(byte)) {
            return Err(Malformed);
        }
        let (scheme_text, _) = split_at(text, b':').ok_or(Malformed)?;
        let scheme = match scheme_text {
            s if s.eq_ignore_ascii_case("sip") => Scheme::Sip,
            s if s.eq_ignore_ascii_case("sips") => Scheme::Sips,
            s if s.eq_ignore_ascii_case("tel") => Scheme::Tel,
            s if s.starts_with(|c: char| c.is_ascii_alphabetic())
                && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')) =>
            {
                Scheme::Other
            }
            _ => return Err(Malformed),
        };
        let start = scheme_text.len() + 1;
        match scheme {
            Scheme::Sip | Scheme::Sips => Self::parse_sip(text, scheme, start),
            Scheme::Tel => Self::parse_tel(text, start),
            Scheme::Other => Self::parse_other(text, start),
        }
    }

    fn parse_sip(text: &str, scheme: Scheme, start: usize) -> Result<Self, Malformed> {
        let rest = &text[start..];
        let (user, password, host_at) = match place_of(rest, b'@') {
            None => (None, None, start),
            Some(at) => {
                let info = &rest[..at];
                let (user, password) = match split_at(info, b':') {
                    None => (info, None),
                    Some((user, password)) => (user, Some(password)),
                };
                if user.is_empty()
                    || !is_escaped(user, is_user_byte)
                    || !password.is_none_or(|p| is_escaped(p, is_password_byte))
                {
                    return Err(Malformed);
                }
                let user_end = start + user.len();
                let password = password.map(|p| span(user_end + 1, user_end + 1 + p.len()));
                (Some(span(start, user_end)), password, start + at + 1)
            }
        };
        let tail = &text[host_at..];
        let headers_at = place_of(tail, b'?').map_or(text.len(), |at| host_at + at);
        let params_at = place_of(&text[host_at..headers_at], b';').map_or(headers_at, |at| host_at + at);
        let host_text = &text[host_at..params_at];
        let (host, port) = scan::host_port(host_text)?;
        let layout = Self {
            scheme,
            user,
            password,
            host: span(host_at, host_at + host.len()),
            port,
            params: span(params_at, headers_at),
            headers: (headers_at < text.len()).then(|| span(headers_at + 1, text.len())),
        };
        check_params(layout.params.of(text))?;
        if let Some(headers) = layout.headers {
            for header in headers.of(text).split('&') {
                let (name, value) = header.split_once('=').ok_or(Malformed)?;
                if name.is_empty() || !is_escaped(name, is_header_byte) || !is_escaped(value, is_header_byte) {
                    return Err(Malformed);
                }
            }
        }
        Ok(layout)
    }

    fn parse_tel(text: &str, start: usize) -> Result<Self, Malformed> {
        let params_at = place_of(&text[start..], b';').map_or(text.len(), |at| start + at);
        let number = &text[start..params_at];
        let digits = number.strip_prefix('+').unwrap_or(number);
        let allowed = |b: u8| b.is_ascii_hexdigit() || matches!(b, b'*' | b'#' | b'-' | b'.' | b'(' | b')');
        if digits.is_empty() || !digits.bytes().all(allowed) {
            return Err(Malformed);
        }
        let layout = Self {
            scheme: Scheme::Tel,
            user: Some(span(start, params_at)),
            password: None,
            host: span(params_at, params_at),
            port: None,
            params: span(params_at, text.len()),
            headers: None,
        };
        check_params(layout.params.of(text))?;
        Ok(layout)
    }

    fn parse_other(text: &str, start: usize) -> Result<Self, Malformed> {
        if start == text.len() {
            return Err(Malformed);
        }
        let end = span(text.len(), text.len());
        let scheme = Scheme::Other;
        Ok(Self { scheme, user: None, password: None, host: end, port: None, params: end, headers: None })
    }
}

impl Span {
    fn of(self, text: &str) -> &str {
        &text[usize::from(self.0)..usize::from(self.1)]
    }
}

fn check_params(params: &str) -> Result<(), Malformed> {
    let Some(list) = params.strip_prefix(';') else { return Ok(()) };
    let mut seen = [""; MAX_PARAMS];
    for (count, param) in list.split(';').enumerate() {
        let (name, value) = param.split_once('=').map_or((param, None), |(n, v)| (n, Some(v)));
        let place = seen.get_mut(count).ok_or(Malformed)?;
        *place = name;
        let is_repeated = seen[..count].iter().any(|known| known.eq_ignore_ascii_case(name));
        if name.is_empty()
            || is_repeated
            || !is_escaped(name, is_param_byte)
            || value.is_some_and(|v| v.is_empty() || !is_escaped(v, is_param_byte))
        {
            return Err(Malformed);
        }
    }
    Ok(())
}

impl Uri {
    /// Reads a URI that is the whole text (no angle brackets, no white space).
    ///
    /// # Errors
    /// When the text is not a URI or longer than [`MAX_URI`].
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        Layout::read(text).map(|at| Self { text: text.into(), at })
    }

    /// Whether [`Uri::parse`] would read it.
    pub(super) fn check(text: &str) -> Result<(), Malformed> {
        Layout::read(text).map(drop)
    }

    /// `sip:[user@]host[:port]`; the user is escaped as needed.
    ///
    /// # Errors
    /// When the host is no host, or the whole longer than [`MAX_URI`].
    pub fn sip(user: Option<&str>, host: &str, port: Option<u16>) -> Result<Self, Malformed> {
        Self::build(Scheme::Sip, user, host, port)
    }

    /// `sips:[user@]host[:port]`, as [`Uri::sip`].
    ///
    /// # Errors
    /// As [`Uri::sip`].
    pub fn sips(user: Option<&str>, host: &str, port: Option<u16>) -> Result<Self, Malformed> {
        Self::build(Scheme::Sips, user, host, port)
    }

    fn build(scheme: Scheme, user: Option<&str>, host: &str, port: Option<u16>) -> Result<Self, Malformed> {
        if !scan::is_host(host) || port == Some(0) || user == Some("") {
            return Err(Malformed);
        }
        let user = user.map(|user| escape(user, is_user_byte));
        let start = if scheme == Scheme::Sips { "sips:" } else { "sip:" };
        let room = user.as_ref().map_or(0, |user| user.len() + 1) + port.map_or(0, |port| 1 + digits(port.into()));
        let mut text = String::with_capacity(start.len() + room + host.len());
        text.push_str(start);
        if let Some(user) = &user {
            text.extend([user, "@"]);
        }
        text.push_str(host);
        let host_end = text.len();
        if let Some(port) = port {
            text.push(':');
            port.write_to(&mut text);
        }
        if text.len() > MAX_URI {
            return Err(Malformed);
        }
        let user = user.map(|user| span(start.len(), start.len() + user.len()));
        let (host, end) = (span(host_end - host.len(), host_end), span(text.len(), text.len()));
        let at = Layout { scheme, user, password: None, host, port, params: end, headers: None };
        debug_assert!(Layout::read(&text) == Ok(at), "what is built is read back");
        Ok(Self { text: text.into_boxed_str(), at })
    }

    /// `sip:` URI of a socket address, without user.
    #[must_use]
    pub fn of_address(user: Option<&str>, address: std::net::SocketAddr) -> Self {
        let host = match address.ip() {
            ip @ std::net::IpAddr::V4(_) => ip.written(),
            std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let port = (address.port() != 0).then_some(address.port());
        Self::sip(user, &host, port)
            .or_else(|_| Self::sip(None, &host, port))
            .expect("an IP address and a port are always a valid URI")
    }

    /// Adds a URI parameter, escaped as needed, replacing one of the same name.
    ///
    /// # Errors
    /// When the name is empty or the result longer than [`MAX_URI`].
    pub fn with_param(&self, name: &str, value: Option<&str>) -> Result<Self, Malformed> {
        if self.at.scheme == Scheme::Other || name.is_empty() || value.is_some_and(str::is_empty) {
            return Err(Malformed);
        }
        let head = &self.text[..usize::from(self.at.params.0)];
        let mut text = head.to_owned();
        for (n, v) in self.params().filter(|(n, _)| !n.eq_ignore_ascii_case(name)) {
            params::write(&mut text, n, v);
        }
        let escaped = value.map(|v| escape(v, is_param_byte));
        params::write(&mut text, &escape(name, is_param_byte), escaped.as_deref());
        text.push_str(&self.text[usize::from(self.at.params.1)..]);
        Self::parse(&text)
    }

    fn slice(&self, span: Span) -> &str {
        span.of(&self.text)
    }

    /// The scheme.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.at.scheme
    }

    /// User part as written (escaped); for `tel:` the number.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.at.user.map(|s| self.slice(s))
    }

    /// User part with escapes decoded; `None` if absent or not UTF-8.
    #[must_use]
    pub fn user_decoded(&self) -> Option<String> {
        let user = self.user()?;
        if place_of(user, b'%').is_none() {
            return Some(user.to_owned());
        }
        let bytes = user.as_bytes();
        let mut out = Vec::with_capacity(bytes.len());
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            let value = (byte == b'%').then(|| user.get(at + 1..at + 3)).flatten();
            match value.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                Some(decoded) => {
                    out.push(decoded);
                    at += 3;
                }
                None => {
                    out.push(byte);
                    at += 1;
                }
            }
        }
        String::from_utf8(out).ok()
    }

    /// Password as written; deprecated by RFC 3261 and never used by us.
    #[must_use]
    pub fn password(&self) -> Option<&str> {
        self.at.password.map(|s| self.slice(s))
    }

    /// Host name or address (IPv6 in brackets); empty for `tel:` and other schemes.
    #[must_use]
    pub fn host(&self) -> &str {
        self.slice(self.at.host)
    }

    /// Port, if written.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        self.at.port
    }

    /// URI parameters in order, as written.
    pub fn params(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let list = self.slice(self.at.params).strip_prefix(';');
        list.into_iter().flat_map(|l| l.split(';')).map(|p| p.split_once('=').map_or((p, None), |(n, v)| (n, Some(v))))
    }

    /// Value of a parameter (case-insensitive name); `Some("")` for a flag.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.unwrap_or(""))
    }

    /// URI headers (`?name=value&…`) as written.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let list = self.at.headers.map(|s| self.slice(s));
        list.into_iter().flat_map(|l| l.split('&')).filter_map(|h| h.split_once('='))
    }

    /// True when the URI carries headers; such a Request-URI is refused.
    #[must_use]
    pub const fn has_headers(&self) -> bool {
        self.at.headers.is_some()
    }

    /// Without its headers, which no Request-URI has, nor the Contact of a dialog (RFC 3261 §19.1.1).
    #[must_use]
    pub fn without_headers(self) -> Self {
        let Some(Span(begin, _)) = self.at.headers else { return self };
        let text = self.text.get(..usize::from(begin) - 1).unwrap_or_default();
        Self { text: text.into(), at: Layout { headers: None, ..self.at } }
    }

    /// The text as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn span(start: usize, end: usize) -> Span {
    let narrow = |at: usize| u16::try_from(at).expect("a URI is at most MAX_URI bytes");
    Span(narrow(start), narrow(end))
}

/// Same text. For RFC 3261 equality use [`Uri::is_equivalent`].
impl PartialEq for Uri {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Uri {}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The scheme only: user and host may be personal.
impl fmt::Debug for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uri({:?}, …)", self.at.scheme)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_of_section_19_1_4_compare_as_written_there() {
        let same = [
            ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
            ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;newparam=5"),
            (
                "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
                "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
            ),
            (
                "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
                "sip:alice@atlanta.com?priority=urgent&subject=project%20x",
            ),
        ];
        let different = [
            ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"),
            ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"),
            ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off"),
            ("sip:a%3Bb@h", "sip:a;b@h"),
            ("sip:a@h", "sips:a@h"),
        ];
        for (a, b) in same {
            let (a, b) = (Uri::parse(a).unwrap(), Uri::parse(b).unwrap());
            assert!(a.is_equivalent(&b) && b.is_equivalent(&a), "{} {}", a.as_str(), b.as_str());
        }
        for (a, b) in different {
            let (a, b) = (Uri::parse(a).unwrap(), Uri::parse(b).unwrap());
            assert!(!a.is_equivalent(&b) && !b.is_equivalent(&a), "{} {}", a.as_str(), b.as_str());
        }
    }

    #[test]
    fn a_uri_is_cut_into_its_parts() {
        let uri = Uri::parse("sips:al%20ice;day=tue:pa+ss@[2001:db8::1]:5061;transport=tls;lr?a=b").unwrap();
        assert_eq!(uri.scheme(), Scheme::Sips);
        assert_eq!(uri.user(), Some("al%20ice;day=tue"));
        assert_eq!(uri.user_decoded().as_deref(), Some("al ice;day=tue"));
        assert_eq!(uri.password(), Some("pa+ss"));
        assert_eq!((uri.host(), uri.port()), ("[2001:db8::1]", Some(5061)));
        assert_eq!((uri.param("Transport"), uri.param("LR"), uri.param("x")), (Some("tls"), Some(""), None));
        assert_eq!(uri.headers().collect::<Vec<_>>(), [("a", "b")]);
        let tel = Uri::parse("tel:+1-201-555-0123;phone-context=example.com").unwrap();
        assert_eq!((tel.scheme(), tel.user(), tel.host()), (Scheme::Tel, Some("+1-201-555-0123"), ""));
    }

    #[test]
    fn bad_uris_are_refused() {
        let long = format!("sip:{}@h", "a".repeat(MAX_URI));
        let bad = [
            "",
            "sip:",
            "sip:@h",
            "sip:a@",
            "sip:a@h:",
            "sip:a@h:0",
            "sip:a@h:65536",
            "sip:a@h:5x",
            "sip:a b@h",
            "sip:a@h\r\nX: y",
            "sip:a%4@h",
            "sip:a@b@c",
            "sip:a@[::1",
            "sip:a@[zz]",
            "sip:a@h;",
            "sip:a@h;x=",
            "sip:a@h;x;x",
            "sip:a@h?x",
            "<sip:a@h>",
            "a@h",
            "1x:y",
            "tel:",
            "tel:+",
            "tel:hello",
            "sip:a@h?a=b@c",
            "sip:\u{e9}@h",
            "http:",
            &long,
        ];
        for text in bad {
            assert!(Uri::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn debug_shows_no_user_and_no_host() {
        let uri = Uri::parse("sip:+447700900123@10.1.2.3").unwrap();
        let text = format!("{uri:?}");
        assert!(!text.contains("4477") && !text.contains("10.1"));
    }

    proptest::proptest! {
        #[test]
        fn any_user_written_is_read_back(user in "\\PC{1,40}", port in proptest::option::of(1_u16..), value in "\\PC{1,20}") {
            let uri = Uri::sip(Some(&user), "example.com", port).unwrap().with_param("x", Some(&value)).unwrap();
            let again = Uri::parse(uri.as_str()).unwrap();
            proptest::prop_assert_eq!(again.user_decoded(), Some(user));
            proptest::prop_assert_eq!(again.port(), port);
            proptest::prop_assert!(again.is_equivalent(&uri));
        }

        #[test]
        fn arbitrary_text_never_panics(text in "\\PC*", tail in "[ -~]{0,60}") {
            let _ = Uri::parse(&text);
            if let Ok(uri) = Uri::parse(&format!("sip:{tail}")) {
                proptest::prop_assert!(uri.is_equivalent(&Uri::parse(&uri.to_string()).unwrap()));
            }
        }
    }
}
