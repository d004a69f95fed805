//! Asks DNS what [`sip::locate`] wants to know: the shell around it, with `hickory-resolver`. Runs in tasks beside the SIP thread,
//! a bounded number at a time, each for a bounded time.

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use schema::carrier::TrunkDown;
use schema::edge::Located;
use schema::target::{GatewayName, HostName};
use sip::locate::{Answer, Answers, Families, Naptr, Question, Records, Srv, Step, locate};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Names looked up at a time; others wait their turn.
const AT_A_TIME: usize = 32;
/// A server is asked again after this.
const ATTEMPT: Duration = Duration::from_secs(2);
/// How often.
const ATTEMPTS: usize = 2;
/// Longest look-up of one name, all questions together.
const LONGEST: Duration = Duration::from_secs(10);

/// Resolves names of carriers.
#[derive(Clone)]
pub(crate) struct Dns {
    resolver: TokioResolver,
    servers: Arc<[IpAddr]>,
    families: Families,
    places: Arc<Semaphore>,
}

/// DNS cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("DNS cannot be used: {0}")]
pub(crate) struct DnsError(#[from] NetError);

impl Dns {
    /// Asks these servers.
    ///
    /// # Errors
    /// They cannot be used.
    pub(crate) fn of_servers(servers: &[SocketAddr], families: Families) -> Result<Self, DnsError> {
        let servers = servers.iter().map(name_server).collect();
        Self::new(ResolverConfig::from_parts(None, Vec::new(), servers), ResolverOpts::default(), families)
    }

    /// Asks the servers that the content of a `resolv.conf` names.
    ///
    /// # Errors
    /// It names none.
    pub(crate) fn of_system(content: &[u8], families: Families) -> Result<Self, DnsError> {
        let (config, options) = parse_resolv_conf(content)?;
        Self::new(config, options, families)
    }

    fn new(config: ResolverConfig, given: ResolverOpts, families: Families) -> Result<Self, DnsError> {
        let servers = config.name_servers().iter().map(|server| server.ip).collect();
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        *options = given;
        options.timeout = ATTEMPT;
        options.attempts = ATTEMPTS;
        // What was found is kept by the core, for as long as its TTL says.
        options.cache_size = 0;
        Ok(Self { resolver: builder.build()?, servers, families, places: Arc::new(Semaphore::new(AT_A_TIME)) })
    }

    /// Whom it asks.
    pub(crate) fn servers(&self) -> &[IpAddr] {
        &self.servers
    }

    /// Where a name leads.
    ///
    /// # Errors
    /// Why nowhere.
    pub(crate) async fn locate(&self, name: &GatewayName) -> Result<Located, TrunkDown> {
        let _place = self.places.acquire().await;
        timeout(LONGEST, self.walk(name)).await.unwrap_or(Err(TrunkDown::DnsSilent))
    }

    async fn walk(&self, name: &GatewayName) -> Result<Located, TrunkDown> {
        let mut answers = Answers::new();
        loop {
            let questions = match locate(name, self.families, &answers) {
                Step::Done(found) => return found,
                Step::Ask(questions) => questions,
            };
            let mut asked = JoinSet::new();
            for question in questions {
                let resolver = self.resolver.clone();
                asked.spawn(async move {
                    let answer = ask(&resolver, &question).await;
                    (question, answer)
                });
            }
            answers.extend(asked.join_all().await);
        }
    }
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let at = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    NameServerConfig::new(address.ip(), true, vec![at(ConnectionConfig::udp()), at(ConnectionConfig::tcp())])
}

async fn ask(resolver: &TokioResolver, question: &Question) -> Answer {
    let kind = match question {
        Question::Naptr(_) => RecordType::NAPTR,
        Question::Srv(_) => RecordType::SRV,
        Question::V4(_) => RecordType::A,
        Question::V6(_) => RecordType::AAAA,
    };
    // With the dot at the end no search domain is tried.
    match resolver.lookup(format!("{}.", question.name()), kind).await {
        Ok(found) => answer_of(question, found.answers()),
        Err(error) if error.is_nx_domain() => Answer::NoSuchName,
        Err(error) if error.is_no_records_found() => Answer::Nothing,
        Err(_) => Answer::Failed,
    }
}

/// The records of the kind asked for, and the shortest TTL on the way to them; others (CNAME) only count for the TTL.
fn answer_of(question: &Question, found: &[Record]) -> Answer {
    let ttl_s = found.iter().map(|record| record.ttl).min().unwrap_or(0);
    let all = || found.iter().map(|record| &record.data);
    let records = match question {
        Question::Naptr(_) => Records::Naptr(all().filter_map(naptr).collect()),
        Question::Srv(_) => Records::Srv(all().filter_map(srv).collect()),
        Question::V4(_) | Question::V6(_) => Records::Addresses(all().filter_map(RData::ip_addr).collect()),
    };
    Answer::Found(records, ttl_s)
}

fn host(name: &Name) -> Option<HostName> {
    HostName::parse(&name.to_ascii()).ok()
}

fn naptr(data: &RData) -> Option<Naptr> {
    let RData::NAPTR(record) = data else { return None };
    Some(Naptr {
        order: record.order,
        preference: record.preference,
        flags: String::from_utf8(record.flags.to_vec()).ok()?,
        service: String::from_utf8(record.services.to_vec()).ok()?,
        replacement: host(&record.replacement)?,
    })
}

/// A target of `.` is none (RFC 2782).
fn srv(data: &RData) -> Option<Srv> {
    let RData::SRV(record) = data else { return None };
    let (priority, weight, port) = (record.priority, record.weight, record.port);
    Some(Srv { priority, weight, port, target: host(&record.target)? })
}

impl std::fmt::Debug for Dns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dns").field("families", &self.families).finish_non_exhaustive()
    }
}
