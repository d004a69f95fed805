//! Gateways that are named: the name as it is written, and the targets that DNS gave for it (RFC 3263) in ranks and weights
//! (RFC 2782).

use crate::carrier::{Gateway, GatewayTransport};
use crate::entropy::Entropy;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// A host's name in DNS: 1 to 253 bytes of letters, digits, `-`, `_` and dots between them, in lower case, without the dot at
/// the end. Never an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(Box<str>);

/// Not a name that DNS could know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a host name")]
pub struct NotAHostName;

impl HostName {
    /// Reads a name; a dot at its end is left off.
    ///
    /// # Errors
    /// It is an address, or breaks a rule of DNS names.
    pub fn parse(text: &str) -> Result<Self, NotAHostName> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        // A last label of digits would be (part of) an address.
        let last_is_number = text.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
        if text.len() > 253 || last_is_number || !text.split('.').all(is_label) {
            return Err(NotAHostName);
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HostName {
    type Error = NotAHostName;

    fn try_from(text: String) -> Result<Self, NotAHostName> {
        Self::parse(&text)
    }
}

impl From<HostName> for String {
    fn from(name: HostName) -> Self {
        name.0.into()
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A gateway by name, as RFC 3263 §4 begins with it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GatewayName {
    /// The transport, where it is fixed; else DNS says (NAPTR, or which SRV there is).
    pub transport: Option<GatewayTransport>,
    /// The name.
    pub host: HostName,
    /// The port, where it is fixed: then the name has addresses only, no SRV.
    pub port: Option<u16>,
}

/// Where a trunk's calls go: an address, or a name to look up.
///
/// As text: `udp:192.0.2.1:5060`, `tls:sip.example.com`, `sip.example.com`, `tcp:sip.example.com:5080`. An address without a
/// transport is UDP; a name without one is looked up by NAPTR.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TrunkGateway {
    /// One address.
    At(Gateway),
    /// A name.
    Named(GatewayName),
}

impl TrunkGateway {
    /// Whether calls leave to it over TLS, wherever its name leads.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        let transport = match self {
            Self::At(gateway) => Some(gateway.transport),
            Self::Named(name) => name.transport,
        };
        transport == Some(GatewayTransport::Tls)
    }
}

impl From<Gateway> for TrunkGateway {
    fn from(gateway: Gateway) -> Self {
        Self::At(gateway)
    }
}

/// A text that names no gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an address or a name, such as 192.0.2.1:5060, tls:192.0.2.1:5061 or tls:sip.example.com")]
pub struct NotAGateway;

impl FromStr for TrunkGateway {
    type Err = NotAGateway;

    fn from_str(text: &str) -> Result<Self, NotAGateway> {
        let transports = [GatewayTransport::Udp, GatewayTransport::Tcp, GatewayTransport::Tls];
        let cut = |transport: GatewayTransport| {
            let rest = text.strip_prefix(transport.as_str())?.strip_prefix(':')?;
            Some((Some(transport), rest))
        };
        let (transport, rest) = transports.into_iter().find_map(cut).unwrap_or((None, text));
        if let Ok(address) = rest.parse::<SocketAddr>() {
            let transport = transport.unwrap_or(GatewayTransport::Udp);
            return if address.port() == 0 { Err(NotAGateway) } else { Ok(Self::At(Gateway { transport, address })) };
        }
        let (host, port) = match rest.rsplit_once(':') {
            None => (rest, None),
            Some((host, port)) => (host, Some(port.parse::<u16>().ok().filter(|p| *p != 0).ok_or(NotAGateway)?)),
        };
        let host = HostName::parse(host).map_err(|_| NotAGateway)?;
        Ok(Self::Named(GatewayName { transport, host, port }))
    }
}

impl TryFrom<String> for TrunkGateway {
    type Error = NotAGateway;

    fn try_from(text: String) -> Result<Self, NotAGateway> {
        text.parse()
    }
}

impl From<TrunkGateway> for String {
    fn from(gateway: TrunkGateway) -> Self {
        gateway.to_string()
    }
}

impl fmt::Display for TrunkGateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(Gateway { transport, address }) => write!(f, "{}:{address}", transport.as_str()),
            Self::Named(GatewayName { transport, host, port }) => {
                if let Some(transport) = transport {
                    write!(f, "{}:", transport.as_str())?;
                }
                write!(f, "{host}")?;
                port.map_or(Ok(()), |port| write!(f, ":{port}"))
            }
        }
    }
}

/// One server of a name: an SRV record with the addresses of its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Lower is tried first: NAPTR order and preference, then SRV priority.
    pub rank: u16,
    /// Share among the servers of one rank (RFC 2782).
    pub weight: u16,
    /// Its addresses, in the order to try.
    pub gateways: Vec<Gateway>,
}

/// Where a name leads now: at most [`Targets::MAX`] gateways.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Targets(Vec<Server>);

impl Targets {
    /// Most gateways of one name; what is ranked behind them is left out.
    pub const MAX: usize = 32;

    /// By rank. Servers without an address are left out, and no gateway is kept twice.
    #[must_use]
    pub fn new(mut servers: Vec<Server>) -> Self {
        servers.sort_by_key(|server| server.rank);
        let mut seen = Vec::new();
        for server in &mut servers {
            server.gateways.retain(|gateway| {
                let is_new = seen.len() < Self::MAX && !seen.contains(gateway);
                seen.extend(is_new.then_some(*gateway));
                is_new
            });
        }
        servers.retain(|server| !server.gateways.is_empty());
        Self(servers)
    }

    /// Every gateway, by rank.
    pub fn gateways(&self) -> impl Iterator<Item = Gateway> {
        self.0.iter().flat_map(|server| server.gateways.iter().copied())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that pass.
    #[must_use]
    pub fn only(&self, passes: impl Fn(Gateway) -> bool) -> Self {
        let mut servers = self.0.clone();
        servers.iter_mut().for_each(|server| server.gateways.retain(|gateway| passes(*gateway)));
        Self::new(servers)
    }

    /// The order in which to try them this time: by rank, within a rank drawn by weight (RFC 2782), each server's addresses
    /// together.
    #[must_use]
    pub fn ordered(&self, entropy: &mut Entropy) -> Vec<Gateway> {
        let mut order = Vec::new();
        let mut left: Vec<&Server> = self.0.iter().collect();
        while let Some(rank) = left.first().map(|server| server.rank) {
            let same = left.iter().take_while(|server| server.rank == rank).count();
            let drawn = draw(&left[..same], entropy);
            order.extend_from_slice(&left.remove(drawn).gateways);
        }
        order
    }
}

/// One of these servers, each with a chance in proportion to its weight; those of weight 0 are drawn when nothing else is
/// left.
fn draw(servers: &[&Server], entropy: &mut Entropy) -> usize {
    let sum: u64 = servers.iter().map(|server| u64::from(server.weight)).sum();
    if sum == 0 {
        let count = u64::try_from(servers.len()).unwrap_or(1);
        return usize::try_from(entropy.below(count)).unwrap_or(0);
    }
    let mut at = entropy.below(sum);
    for (number, server) in servers.iter().enumerate() {
        match at.checked_sub(u64::from(server.weight)) {
            Some(rest) => at = rest,
            None => return number,
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn gateway(last: u8) -> Gateway {
        Gateway { transport: GatewayTransport::Udp, address: SocketAddr::from(([192, 0, 2, last], 5060)) }
    }

    fn server(rank: u16, weight: u16, last: &[u8]) -> Server {
        Server { rank, weight, gateways: last.iter().copied().map(gateway).collect() }
    }

    #[test]
    fn gateways_are_read_and_written_alike() {
        for text in
            ["udp:192.0.2.1:5060", "tls:[2001:db8::1]:5061", "tls:sip.example.com", "example.com", "tcp:a-b.c:99"]
        {
            assert_eq!(text.parse::<TrunkGateway>().expect(text).to_string(), text);
        }
        let named = |text: &str| match text.parse() {
            Ok(TrunkGateway::Named(name)) => name,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(named("SIP.Example.com.").host.as_str(), "sip.example.com");
        assert_eq!(named("tcp:a.b:99"), GatewayName { transport: Some(GatewayTransport::Tcp), ..named("a.b:99") });
        assert_eq!(
            "192.0.2.1:5".parse(),
            Ok(TrunkGateway::At(Gateway { address: ([192, 0, 2, 1], 5).into(), ..gateway(1) }))
        );
        let long = "a.".repeat(126) + "ab";
        assert!(HostName::parse(&long[1..]).is_err() && HostName::parse(&long[2..]).is_ok(), "253 bytes at most");
        for bad in
            ["", "nowhere:x", "192.0.2.1", "192.0.2.1:0", "a..b", "-a.b", "a b", "a.b:0", "a.b:65536", "udp:", "1.2.3"]
        {
            assert_eq!(bad.parse::<TrunkGateway>(), Err(NotAGateway), "{bad}");
        }
    }

    #[test]
    fn lower_ranks_come_first_and_weights_share_a_rank() {
        let targets =
            Targets::new(vec![server(20, 0, &[9]), server(10, 30, &[1, 2]), server(10, 10, &[3]), server(10, 0, &[4])]);
        let mut entropy = Entropy::from_number(1);
        let mut first = [0_u32; 5];
        for _ in 0..4_000 {
            let order: Vec<u8> = targets
                .ordered(&mut entropy)
                .iter()
                .map(|g| match g.address.ip() {
                    IpAddr::V4(ip) => ip.octets()[3],
                    IpAddr::V6(_) => 0,
                })
                .collect();
            assert_eq!((order.len(), order[4]), (5, 9), "the higher number last");
            assert!(order.windows(2).any(|pair| pair == [1, 2]), "a server's addresses stay together");
            first[usize::from(order[0])] += 1;
        }
        assert_eq!((first[2], first[4]), (0, 0), "weight 0 comes behind the others");
        assert!((2_850..3_150).contains(&first[1]) && first[1] + first[3] == 4_000, "{first:?}");
    }

    #[test]
    fn no_more_targets_are_kept_than_allowed_and_none_twice() {
        let many = (1..=40).map(|last| server(u16::from(last), 1, &[last, last, 1])).collect();
        let targets = Targets::new(many);
        let kept: Vec<Gateway> = targets.gateways().collect();
        assert_eq!(kept, (1..=32).map(gateway).collect::<Vec<_>>());
        assert_eq!(targets.only(|g| g == gateway(7)).gateways().collect::<Vec<_>>(), [gateway(7)]);
        assert!(targets.only(|_| false).is_empty());
    }
}
