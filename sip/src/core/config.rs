//! What the SIP edge is told at its start.

use crate::digest::Algorithm;
use crate::flow::Protocol;
use crate::guard::GuardLimits;
use std::net::IpAddr;
use std::time::Duration;

/// How we name ourselves in Via and Contact over one transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertised {
    /// Host name or address; IPv6 in brackets.
    pub host: Box<str>,
    /// Port.
    pub port: u16,
}

/// How we name ourselves to peers at IPv6 addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AdvertisedV6 {
    /// Over UDP.
    pub udp: Option<Advertised>,
    /// Over TCP.
    pub tcp: Option<Advertised>,
    /// Over TLS.
    pub tls: Option<Advertised>,
}

/// What the SIP edge is told at its start.
#[derive(Debug, Clone)]
pub struct CoreConfig {
    /// Domain of the customers' addresses and digest realm.
    pub domain: Box<str>,
    /// Further hosts that requests may be addressed to.
    pub other_hosts: Vec<Box<str>>,
    /// Digest algorithms offered, most preferred first.
    pub digest: Vec<Algorithm>,
    /// Over UDP.
    pub udp: Option<Advertised>,
    /// Over TCP.
    pub tcp: Option<Advertised>,
    /// Over TLS.
    pub tls: Option<Advertised>,
    /// The same for IPv6, where it has listeners of its own.
    pub v6: AdvertisedV6,
    /// Written as origin of session descriptions.
    pub sdp_address: IpAddr,
    /// Whether customers may use UDP and TCP; else those serve trunks only.
    pub plain_customers: bool,
    /// Between two questions to a customer's phone whether it is still in the call, and how long a call that was taken up
    /// again is in doubt before it is asked again; zero: nobody is asked.
    pub dialog_probe: Duration,
    /// Most legs at a time; more INVITEs are answered 503.
    pub legs_max: usize,
    /// Most new calls a second, a second's worth at once; more INVITEs are answered 503.
    pub calls_per_second: u32,
    /// Whether no more calls wait for their actors than are completed within a bearable delay, while many times more come than are
    /// carried: where a commit is quick however few share it. One of PostgreSQL costs the less the more do.
    pub bounds_waiting: bool,
    /// Most transactions at a time; more requests are dropped or answered 503. The last eighth is for requests in dialogs.
    pub transactions_max: usize,
    /// Most credential look-ups under way.
    pub lookups_max: usize,
    /// What strangers may ask for.
    pub guard: GuardLimits,
}

impl CoreConfig {
    /// How we name ourselves over this transport; for one without a listener, as over another.
    pub(super) fn advertised(&self, protocol: Protocol, is_ipv6: bool) -> Option<&Advertised> {
        let AdvertisedV6 { udp, tcp, tls } = &self.v6;
        let own = match protocol {
            Protocol::Udp => udp,
            Protocol::Tcp => tcp,
            Protocol::Tls => tls,
        };
        let v6 = own.as_ref().or(tcp.as_ref()).or(tls.as_ref()).or(udp.as_ref());
        if let Some(v6) = v6.filter(|_| is_ipv6) {
            return Some(v6);
        }
        let own = match protocol {
            Protocol::Udp => &self.udp,
            Protocol::Tcp => &self.tcp,
            Protocol::Tls => &self.tls,
        };
        own.as_ref().or(self.tcp.as_ref()).or(self.tls.as_ref()).or(self.udp.as_ref())
    }

    /// Every host that is ours.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &str> {
        let AdvertisedV6 { udp, tcp, tls } = &self.v6;
        let listeners = [&self.udp, &self.tcp, &self.tls, udp, tcp, tls].into_iter().flatten().map(|a| &*a.host);
        std::iter::once(&*self.domain).chain(self.other_hosts.iter().map(|h| &**h)).chain(listeners)
    }

    /// Whether a request addressed to this host is for us.
    pub(super) fn is_ours(&self, host: &str) -> bool {
        self.hosts().any(|ours| ours.eq_ignore_ascii_case(host))
    }
}
