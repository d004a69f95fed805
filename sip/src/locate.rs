//! Locating SIP servers (RFC 3263 §4): which questions DNS is to be asked for a name, and which targets follow from the answers.
//! A function of the name and the answers so far: the shell asks and calls again until nothing is missing.

use schema::carrier::{Gateway, GatewayTransport, TrunkDown};
use schema::edge::Located;
use schema::target::{GatewayName, HostName, Server, Targets};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Most NAPTR records used of one answer.
const NAPTR_MAX: usize = 8;
/// Most SRV records used of one answer.
const SRV_MAX: usize = 16;
/// Most addresses used of one host and family.
const ADDRESSES_MAX: usize = 8;

/// What DNS is asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// NAPTR records of a name.
    Naptr(HostName),
    /// SRV records of a name.
    Srv(HostName),
    /// IPv4 addresses.
    V4(HostName),
    /// IPv6 addresses.
    V6(HostName),
}

impl Question {
    /// Of which name.
    #[must_use]
    pub const fn name(&self) -> &HostName {
        match self {
            Self::Naptr(name) | Self::Srv(name) | Self::V4(name) | Self::V6(name) => name,
        }
    }
}

/// A NAPTR record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of RFC 3403")]
pub struct Naptr {
    pub order: u16,
    pub preference: u16,
    pub flags: String,
    pub service: String,
    pub replacement: HostName,
}

/// An SRV record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of RFC 2782")]
pub struct Srv {
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
    pub target: HostName,
}

/// The records of an answer: of the kind that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Records {
    /// Of [`Question::Naptr`].
    Naptr(Vec<Naptr>),
    /// Of [`Question::Srv`]; empty when the only record says that there is no such service (a target of `.`).
    Srv(Vec<Srv>),
    /// Of [`Question::V4`] and [`Question::V6`].
    Addresses(Vec<IpAddr>),
}

/// What DNS said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// These, for so many seconds.
    Found(Records, u32),
    /// The name has no records of this kind.
    Nothing,
    /// There is no such name.
    NoSuchName,
    /// No server answered, or none with sense.
    Failed,
}

/// Which addresses can be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Families {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask these.
    Ask(Vec<Question>),
    /// It is known.
    Done(Result<Located, TrunkDown>),
}

/// The answers so far.
pub type Answers = BTreeMap<Question, Answer>;

/// Where a name leads by these answers, or what has to be asked to know it. No more than three rounds are needed.
#[must_use]
pub fn locate(name: &GatewayName, families: Families, answers: &Answers) -> Step {
    let mut search = Search { families, answers, missing: Vec::new(), ttl_s: u32::MAX, failed: false, unknown: false };
    let servers = search.servers(name);
    if !search.missing.is_empty() {
        return Step::Ask(search.missing);
    }
    let targets = Targets::new(servers);
    Step::Done(match targets.is_empty() {
        false => Ok(Located { targets, ttl_s: search.ttl_s }),
        true if search.failed => Err(TrunkDown::DnsSilent),
        true if search.unknown => Err(TrunkDown::NoSuchName),
        true => Err(TrunkDown::NoTarget),
    })
}

/// An SRV name to look at, and how its servers are spoken to.
struct Service {
    name: HostName,
    transport: GatewayTransport,
}

struct Search<'a> {
    families: Families,
    answers: &'a Answers,
    missing: Vec<Question>,
    /// The shortest of what was used.
    ttl_s: u32,
    /// An answer is missing for good.
    failed: bool,
    /// The name itself does not exist.
    unknown: bool,
}

impl Search<'_> {
    fn answer(&mut self, question: Question) -> Option<Records> {
        match self.answers.get(&question) {
            None if self.missing.contains(&question) => {}
            None => self.missing.push(question),
            Some(Answer::Failed) => self.failed = true,
            Some(Answer::Nothing) => {}
            Some(Answer::NoSuchName) => self.unknown |= matches!(question, Question::V4(_) | Question::V6(_)),
            Some(Answer::Found(records, ttl_s)) => {
                self.ttl_s = self.ttl_s.min(*ttl_s);
                return Some(records.clone());
            }
        }
        None
    }

    fn servers(&mut self, name: &GatewayName) -> Vec<Server> {
        if let Some(port) = name.port {
            // A port says that there is nothing to choose (RFC 3263 §4.2).
            return self.addresses(&name.host, name.transport.unwrap_or(GatewayTransport::Udp), port);
        }
        let services = match name.transport {
            Some(transport) => service(&name.host, transport).into_iter().collect(),
            None => self.services(&name.host),
        };
        let (servers, is_service) = self.of_services(&services);
        // Without SRV the name is a host with the default port (§4.2); whoever offers SRV means it.
        if is_service || !self.missing.is_empty() || self.failed {
            return servers;
        }
        let transport = name.transport.unwrap_or(GatewayTransport::Udp);
        self.addresses(&name.host, transport, default_port(transport))
    }

    /// Which services the name offers, the preferred one first (§4.1).
    fn services(&mut self, host: &HostName) -> Vec<Service> {
        let Some(Records::Naptr(mut records)) = self.answer(Question::Naptr(host.clone())) else {
            // Without NAPTR each transport is tried; what protects calls is preferred.
            let every = [GatewayTransport::Tls, GatewayTransport::Tcp, GatewayTransport::Udp];
            let is_asked = self.missing.is_empty();
            return every.into_iter().filter(|_| is_asked).filter_map(|transport| service(host, transport)).collect();
        };
        records.sort_by_key(|record| (record.order, record.preference));
        let usable = records.into_iter().filter(|record| record.flags.eq_ignore_ascii_case("s")).filter_map(|record| {
            let transport = match record.service.to_ascii_uppercase().as_str() {
                "SIP+D2U" => GatewayTransport::Udp,
                "SIP+D2T" => GatewayTransport::Tcp,
                "SIPS+D2T" => GatewayTransport::Tls,
                _ => return None,
            };
            Some(Service { name: record.replacement, transport })
        });
        usable.take(NAPTR_MAX).collect()
    }

    /// The servers of these services, and whether there is an SRV record at all.
    fn of_services(&mut self, services: &[Service]) -> (Vec<Server>, bool) {
        let (mut servers, mut is_service, mut rank) = (Vec::new(), false, 0);
        for Service { name, transport } in services {
            let Some(Records::Srv(mut records)) = self.answer(Question::Srv(name.clone())) else { continue };
            is_service = true;
            records.sort_by_key(|record| record.priority);
            records.truncate(SRV_MAX);
            let mut before = None;
            for record in records {
                rank += u16::from(before.is_some_and(|priority| priority != record.priority));
                before = Some(record.priority);
                let of_host = self.addresses(&record.target, *transport, record.port);
                servers.extend(of_host.into_iter().map(|server| Server { rank, weight: record.weight, ..server }));
            }
            rank += 1;
        }
        (servers, is_service)
    }

    /// A host as one server, IPv6 first where both can be reached (RFC 6724).
    fn addresses(&mut self, host: &HostName, transport: GatewayTransport, port: u16) -> Vec<Server> {
        let mut gateways = Vec::new();
        let families = [(self.families.v6, Question::V6(host.clone())), (self.families.v4, Question::V4(host.clone()))];
        for (_, question) in families.into_iter().filter(|(usable, _)| *usable) {
            if let Some(Records::Addresses(found)) = self.answer(question) {
                let address = |ip| Gateway { transport, address: SocketAddr::new(ip, port) };
                gateways.extend(found.into_iter().take(ADDRESSES_MAX).map(address));
            }
        }
        vec![Server { rank: 0, weight: 0, gateways }]
    }
}

/// The SRV name of a transport (§4.1).
fn service(host: &HostName, transport: GatewayTransport) -> Option<Service> {
    let prefix = match transport {
        GatewayTransport::Udp => "_sip._udp",
        GatewayTransport::Tcp => "_sip._tcp",
        GatewayTransport::Tls => "_sips._tcp",
    };
    let name = HostName::parse(&format!("{prefix}.{host}")).ok()?;
    Some(Service { name, transport })
}

pub(crate) const fn default_port(transport: GatewayTransport) -> u16 {
    match transport {
        GatewayTransport::Udp | GatewayTransport::Tcp => 5060,
        GatewayTransport::Tls => 5061,
    }
}

#[cfg(test)]
mod tests;
