//! A range of addresses.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A range of addresses: `192.0.2.7`, `127.0.0.0/8`, `2001:db8::/32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    ip: IpAddr,
    prefix: u8,
}

/// A text that is no range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be an address or a network such as 192.0.2.7 or 2001:db8::/32")]
pub struct NetworkError;

impl Network {
    /// All of IPv4's loopback addresses.
    pub const LOOPBACK_V4: Self = Self { ip: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), prefix: 8 };
    /// IPv6's loopback address.
    pub const LOOPBACK_V6: Self = Self { ip: IpAddr::V6(std::net::Ipv6Addr::LOCALHOST), prefix: 128 };

    /// Whether an address is in it; an IPv4 address mapped into IPv6 counts as what it is.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.ip, ip.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => {
                (u32::from(own) ^ u32::from(ip)).checked_shr(32 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(ip)) => {
                (u128::from(own) ^ u128::from(ip)).checked_shr(128 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (ip, prefix) = text.split_once('/').map_or((text, None), |(ip, prefix)| (ip, Some(prefix)));
        let ip: IpAddr = ip.parse().map_err(|_| NetworkError)?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(most), str::parse).map_err(|_| NetworkError)?;
        if prefix > most { Err(NetworkError) } else { Ok(Self { ip, prefix }) }
    }
}

impl TryFrom<String> for Network {
    type Error = NetworkError;

    fn try_from(text: String) -> Result<Self, NetworkError> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_read_and_holds_its_addresses() {
        let holds = |network: &str, ip: &str| {
            network.parse::<Network>().expect("a network").contains(ip.parse().expect("an address"))
        };
        for (network, ip) in [
            ("127.0.0.0/8", "127.255.0.1"),
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7", "::ffff:192.0.2.7"),
            ("2001:db8::/32", "2001:db8:9::1"),
            ("0.0.0.0/0", "203.0.113.1"),
            ("::/0", "2001:db8::1"),
        ] {
            assert!(holds(network, ip), "{network} {ip}");
        }
        for (network, ip) in [
            ("127.0.0.0/8", "128.0.0.1"),
            ("192.0.2.7", "192.0.2.6"),
            ("0.0.0.0/0", "2001:db8::1"),
            ("::1", "::2"),
            ("2001:db8::/32", "2001:db9::1"),
        ] {
            assert!(!holds(network, ip), "{network} {ip}");
        }
        for wrong in ["", "127.0.0.1/33", "::1/129", "127.0.0.1/", "host", "127.0.0.1/-1", "127.0.0.1:5060"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }
}
