//! Via (RFC 3261 §20.42, RFC 3581).

use super::limits::MAX_PARAMS;
use super::params::{self, ParamList};
use super::scan::{Cursor, host_port};
use super::{Malformed, Params, Written, scan};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// The transport named by a Via.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is the transport of that name")]
pub enum Transport {
    Udp,
    Tcp,
    Tls,
    Ws,
    Wss,
    Sctp,
    /// One we do not know.
    Other,
}

impl Transport {
    fn parse(token: &str) -> Self {
        let known = [Self::Udp, Self::Tcp, Self::Tls, Self::Ws, Self::Wss, Self::Sctp];
        known.into_iter().find(|t| t.as_str().eq_ignore_ascii_case(token)).unwrap_or(Self::Other)
    }

    /// Token as written in a Via.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Ws => "WS",
            Self::Wss => "WSS",
            Self::Sctp => "SCTP",
            Self::Other => "OTHER",
        }
    }

    /// True when the transport itself retransmits (everything but UDP).
    #[must_use]
    pub const fn is_reliable(self) -> bool {
        !matches!(self, Self::Udp)
    }
}

/// One Via value.
#[derive(Clone, PartialEq, Eq)]
pub struct Via {
    /// Transport named.
    pub transport: Transport,
    /// Sent-by host, IPv6 in brackets.
    pub host: Box<str>,
    /// Sent-by port, if written.
    pub port: Option<u16>,
    /// Parameters, `branch` among them.
    pub params: Params,
}

/// The parts of a Via where they stand in the text.
#[derive(Clone, Copy)]
pub(crate) struct ViaParts<'a> {
    pub(crate) transport: Transport,
    pub(crate) host: &'a str,
    pub(crate) port: Option<u16>,
    pub(crate) params: ParamList<'a>,
}

impl<'a> ViaParts<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(text);
        let name = cursor.token()?;
        let version = if cursor.eat(b'/') { cursor.token()? } else { return Err(Malformed) };
        if !name.eq_ignore_ascii_case("SIP") || version != "2.0" || !cursor.eat(b'/') {
            return Err(Malformed);
        }
        let transport = Transport::parse(cursor.token()?);
        if !cursor.peek().is_some_and(scan::is_lws) {
            return Err(Malformed);
        }
        cursor.skip_lws();
        let sent_by = cursor.take_while(|b| !matches!(b, b';' | b','));
        let (host, port) = host_port(scan::trim(sent_by))?;
        Ok(Self { transport, host, port, params: ParamList::read(&mut cursor)? })
    }

    /// As it reads for a server that saw the message come from `source`.
    pub(super) fn seen_from(self, source: Option<SocketAddr>) -> Via {
        let params = match source {
            Some(source) => stamped(self.host, self.params, source),
            None => Params::of(self.params),
        };
        Via { transport: self.transport, host: self.host.into(), port: self.port, params }
    }

    /// Writes [`Self::seen_from`].
    pub(super) fn write_seen_from(self, source: Option<SocketAddr>, out: &mut String) {
        self.write_sent_by(out);
        match source {
            Some(source) => write_stamped(self.host, self.params, source, out),
            None => out.push_str(Params::of(self.params).list().as_str()),
        }
    }

    fn write_sent_by(self, out: &mut String) {
        for part in ["SIP/2.0/", self.transport.as_str(), " ", self.host] {
            out.push_str(part);
        }
        if let Some(port) = self.port {
            out.push(':');
            port.write_to(out);
        }
    }

    /// Where the response goes (RFC 3261 §18.2.2, RFC 3581 §4): to the address the request was seen to come from, whatever its
    /// sender wrote; without one, to what is written.
    pub(super) fn response_address(self, source: Option<SocketAddr>) -> Option<SocketAddr> {
        let rport = self.params.value("rport");
        let (ip, port) = match source {
            Some(source) => (source.ip(), rport.is_some().then(|| source.port())),
            None => {
                let received = self.params.value("received").and_then(address);
                (received.or_else(|| address(self.host))?, rport.and_then(|port| scan::port(port).ok()))
            }
        };
        Some((ip, port.or(self.port).unwrap_or(5060)).into())
    }
}

/// An IP address, IPv6 with or without brackets.
fn address(text: &str) -> Option<IpAddr> {
    text.trim_matches(['[', ']']).parse().ok()
}

/// What a server adds to a Via (RFC 3261 §18.2.1, RFC 3581 §4).
struct Stamp {
    rport: bool,
    received: bool,
}

impl Stamp {
    /// `keep` is given each parameter that stays as it is.
    fn of<'a>(
        host: &str,
        params: ParamList<'a>,
        source: SocketAddr,
        mut keep: impl FnMut(&'a str, Option<&'a str>),
    ) -> Self {
        let (mut rport, mut others) = (false, 0);
        for (name, value) in params.iter() {
            if name.eq_ignore_ascii_case("rport") {
                rport = true;
            } else if !name.eq_ignore_ascii_case("received") {
                others += 1;
                keep(name, value);
            }
        }
        // A sender that leaves no room does without: what is written can be read again. The response takes the request's way.
        let has_room = others + usize::from(rport) < MAX_PARAMS;
        Self { rport, received: has_room && (rport || address(host) != Some(source.ip())) }
    }
}

/// Parameters with `received` and, if asked for, `rport` filled in.
fn stamped(host: &str, list: ParamList<'_>, source: SocketAddr) -> Params {
    let mut text = String::with_capacity(list.as_str().len() + 40);
    write_stamped(host, list, source, &mut text);
    Params::written(text)
}

fn write_stamped(host: &str, list: ParamList<'_>, source: SocketAddr, out: &mut String) {
    let stamp = Stamp::of(host, list, source, |name, value| params::write(out, name, value));
    if stamp.rport {
        out.push_str(";rport=");
        source.port().write_to(out);
    }
    if stamp.received {
        out.push_str(";received=");
        source.ip().write_to(out);
    }
}

impl Via {
    /// Reads one Via value (no comma list).
    ///
    /// # Errors
    /// When the text does not follow the grammar.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        Ok(ViaParts::parse(text)?.seen_from(None))
    }

    /// A Via of our own: `branch` starts with `z9hG4bK`, `rport` is asked for (RFC 3581).
    ///
    /// # Errors
    /// When the host is no host or the branch no token.
    pub fn new(transport: Transport, host: &str, port: Option<u16>, branch: &str) -> Result<Self, Malformed> {
        if !scan::is_host(host) || !scan::is_token(branch) || port == Some(0) {
            return Err(Malformed);
        }
        let params = Params::written([";rport;branch=", branch].concat());
        Ok(Self { transport, host: host.into(), port, params })
    }

    /// The transaction's branch.
    #[must_use]
    pub fn branch(&self) -> Option<&str> {
        self.params.value("branch")
    }

    /// `received`: the source address a server saw.
    #[must_use]
    pub fn received(&self) -> Option<IpAddr> {
        self.params.value("received").and_then(address)
    }

    /// `rport`: `None` absent, `Some(None)` asked for, `Some(Some(port))` filled in.
    #[must_use]
    pub fn rport(&self) -> Option<Option<u16>> {
        self.params.value("rport").map(|v| scan::port(v).ok())
    }

    /// With `received` and, if asked for, `rport` filled in from the source (RFC 3261 §18.2.1, RFC 3581 §4).
    #[must_use]
    pub fn stamped(self, source: SocketAddr) -> Self {
        let params = stamped(&self.host, self.params.list(), source);
        Self { params, ..self }
    }
}

impl Written for Via {
    fn write_to(&self, text: &mut String) {
        let parts =
            ViaParts { transport: self.transport, host: &self.host, port: self.port, params: self.params.list() };
        parts.write_sent_by(text);
        text.push_str(parts.params.as_str());
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written())
    }
}

/// Transport and parameter names only: hosts may be a customer's address.
impl fmt::Debug for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Via({:?}, {:?})", self.transport, self.params)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_around_separators_is_allowed() {
        let via = Via::parse("SIP  / 2.0  / TCP     spindle.example.com : 5070   ;  branch  =   z9hG4bK9ikj8 ;rport")
            .unwrap();
        assert_eq!((via.transport, &*via.host, via.port), (Transport::Tcp, "spindle.example.com", Some(5070)));
        assert_eq!((via.branch(), via.rport(), via.received()), (Some("z9hG4bK9ikj8"), Some(None), None));
        assert_eq!(via.to_string(), "SIP/2.0/TCP spindle.example.com:5070;branch=z9hG4bK9ikj8;rport");
    }

    #[test]
    fn a_server_stamps_the_source_it_saw() {
        let source: SocketAddr = "192.0.2.9:4321".parse().unwrap();
        let cases = [
            ("SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKa", "SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKa;received=192.0.2.9"),
            ("SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKa", "SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKa"),
            (
                "SIP/2.0/UDP 192.0.2.9;rport;branch=z9hG4bKa",
                "SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKa;rport=4321;received=192.0.2.9",
            ),
            ("SIP/2.0/UDP h;received=1.1.1.1", "SIP/2.0/UDP h;received=192.0.2.9"),
        ];
        for (given, then) in cases {
            assert_eq!(Via::parse(given).unwrap().stamped(source).to_string(), then);
        }
        let crowded = |own: &str| {
            let text =
                (0..MAX_PARAMS - 1).fold(format!("SIP/2.0/UDP 198.51.100.7:7{own}"), |via, n| format!("{via};p{n}"));
            ViaParts::parse(&text).unwrap().response_address(Some(source)).unwrap().to_string()
        };
        assert_eq!((crowded(";x"), crowded(";rport")), ("192.0.2.9:7".to_owned(), "192.0.2.9:4321".to_owned()));
        let six =
            Via::parse("SIP/2.0/UDP [2001:db8::1]:5060;rport").unwrap().stamped("[2001:db8::9]:1".parse().unwrap());
        assert_eq!(Via::parse(&six.to_string()).unwrap().received(), "2001:db8::9".parse().ok());
    }

    #[test]
    fn bad_vias_are_refused() {
        let bad = [
            "",
            "SIP/2.0/UDP",
            "SIP/2.0/UDP;branch=x",
            "SIP/3.0/UDP h",
            "SIP/2.0 h",
            "HTTP/2.0/UDP h",
            "SIP/2.0/UDP h;",
            "SIP/2.0/UDP h;;branch=x",
            "SIP/2.0/UDP h;branch=",
            "SIP/2.0/UDP h:0",
            "SIP/2.0/UDP h h",
            "SIP/2.0/UDP h;branch=a;branch=b",
            "SIP/2.0/UDPh",
        ];
        for text in bad {
            assert!(Via::parse(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_via_written_is_read_back(host in "[a-z][a-z0-9.-]{0,20}[a-z]", port in proptest::option::of(1_u16..), branch in "z9hG4bK[A-Za-z0-9.!%*_+`'~-]{1,30}", extra in "\\PC{1,20}") {
            proptest::prop_assume!(!host.contains(".."));
            let mut via = Via::new(Transport::Tls, &host, port, &branch).unwrap();
            via.params = via.params.with("x", Some(&extra)).unwrap();
            let again = Via::parse(&via.to_string()).unwrap();
            proptest::prop_assert_eq!(again.params.unquoted("x"), via.params.unquoted("x"));
            proptest::prop_assert_eq!(again, via);
        }
    }
}
