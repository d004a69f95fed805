//! A running server: all parts, wired.

use crate::certificate::Certificate;
use crate::config::{Config, SipV6};
use crate::development::{self, Screen, Secrets};
use crate::names::Names;
use crate::provision::{self, Provisioning};
use crate::{admin_server, certificate, clock, data, listener, metrics};
use actors::{Actors, ActorsConfig};
use anyhow::Context as _;
use graphql::{Api, WebConfig};
use rustls::ServerConfig;
use schema::edge::EdgeEvent;
use schema::entropy::Entropy;
use schema::time::Clock;
use sip::core::{Advertised, AdvertisedV6, Core, CoreConfig};
use sip::demo::carrier::{BEHAVIOURS, Carrier};
use sip::guard::GuardLimits;
use sip::transport::{Bound, ListenersV6, Seam, SipThread, TransportConfig, TransportLimits};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use storage::{Brand, DatabaseUrl, Journal, JournalOptions, Store};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Commands waiting for the SIP thread.
const COMMANDS: usize = 65_536;
/// Calls the test carrier takes at a time.
const CARRIER_CALLS: usize = 50_000;
/// How long a drain may take. With what comes after it a server ends within 10 s: carriers 1, calls that end in the last moment 1
/// and 1 to be written, the store 2.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// How long calls that end in the last moment may take to be settled, and that to be written.
const FINISH_LIMIT: Duration = Duration::from_secs(1);
/// Between two looks at the files of certificates.
const CERTIFICATES: Duration = Duration::from_secs(10);
/// Debian's bundle of authorities, and others'.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// How long carriers may take to end our registrations with them, and how often that is looked at.
const LEAVE_LIMIT: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Between two rounds of removing what has run out.
const HOUSEKEEPING: Duration = Duration::from_secs(600);
/// Event rows are kept this long and this many an account: a client that was away for longer reads its state anew (D57).
const EVENTS_KEPT: (Duration, u32) = (Duration::from_secs(24 * 3600), 10_000);

/// Where a server listens; ports are those given, also when 0 was asked for.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "as named")]
pub struct Addresses {
    pub http: SocketAddr,
    pub metrics: SocketAddr,
    pub sip_udp: Option<SocketAddr>,
    pub sip_tcp: Option<SocketAddr>,
    pub sip_tls: Option<SocketAddr>,
    pub sip_v6: ListenersV6,
    pub test_carrier: Option<SocketAddr>,
}

/// A running server.
pub struct Server {
    /// Where it listens.
    pub addresses: Addresses,
    /// Its accounts and calls.
    pub actors: Actors,
    /// Its data.
    pub store: Store,
    screen: String,
    sip: SipThread,
    draining: watch::Sender<bool>,
    tasks: JoinSet<anyhow::Result<()>>,
    _lock: data::Lock,
}

/// What the parts share while they are put together.
struct Parts<'a> {
    config: &'a Config,
    clock: Clock,
    entropy: Entropy,
    store: Store,
    brand: Brand,
    /// Those of the listeners.
    certificates: Vec<Arc<Certificate>>,
}

impl Server {
    /// Takes the data folder, opens every listener and starts all parts.
    ///
    /// # Errors
    /// One line that says what cannot be used.
    pub async fn start(config: &Config) -> anyhow::Result<Self> {
        let lock = data::take(&config.data_dir)?;
        // Every listener and certificate before anything is stored or taken up: a taken port is the commonest mistake.
        let http = bind("http.listen", config.http.listen).await?;
        let metrics_listener = bind("metrics.listen", config.metrics.listen).await?;
        let mut certificates = Vec::new();
        let web_tls = web_tls(config, &mut certificates)?;
        let bound = Bound::open(transports(config, &mut certificates)?).map_err(|error| {
            let key = match (error.protocol, error.is_v6) {
                (protocol, true) => format!("sip.v6.{protocol}"),
                ("tls", false) => String::from("sip.tls.listen"),
                (protocol, false) => format!("sip.{protocol}"),
            };
            anyhow::Error::from(error.source).context(format!("{key} = {}: cannot be used", error.address))
        })?;
        let carrier = match config.test_carrier {
            Some(address) => Some(
                UdpSocket::bind(address).await.with_context(|| format!("test_carrier = {address}: cannot be used"))?,
            ),
            None => None,
        };
        let addresses = Addresses {
            http: http.local_addr()?,
            metrics: metrics_listener.local_addr()?,
            sip_udp: bound.udp_address(),
            sip_tcp: bound.tcp_address(),
            sip_tls: bound.tls_address(),
            sip_v6: bound.v6_addresses(),
            test_carrier: carrier.as_ref().and_then(|socket| socket.local_addr().ok()),
        };
        let admin_socket = admin_server::bind(&crate::admin::socket_path(&config.data_dir))?;
        let mut parts = Parts::open(config, certificates).await?;
        let secrets = parts.provision_demo(&addresses).await?;
        let journal = Journal::start(&parts.store, JournalOptions::default());
        let (legs, legs_in) = mpsc::channel(COMMANDS);
        let (edge, edge_in) = mpsc::channel(COMMANDS);
        let ListenersV6 { udp, tcp, tls } = addresses.sip_v6;
        let listeners = [addresses.sip_udp, addresses.sip_tcp, addresses.sip_tls, udp, tcp, tls].into_iter().flatten();
        let names = Names::new(&config.sip.dns, listeners, edge.clone())?;
        let actors = parts.actors(journal, legs, edge).await?;
        let sip = parts.sip(bound, &addresses, &actors, names, legs_in, edge_in)?;
        let screen = parts.screen(&addresses, secrets.as_ref()).await?;
        let (draining, drain_seen) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(parts.web(http, web_tls, &addresses, &actors, drain_seen));
        let sip_counts = sip.transport_counts().clone();
        tasks.spawn(metrics::serve(
            metrics_listener,
            actors.clone(),
            parts.store.clone(),
            sip_counts,
            sip.core_figures(),
        ));
        let admin = admin_server::Admin {
            store: parts.store.clone(),
            actors: actors.clone(),
            brand: parts.brand.clone(),
            clock: parts.clock.clone(),
            entropy: std::sync::Mutex::new(parts.entropy.fork()),
            phone_server: config.development.then_some(addresses.sip_udp).flatten(),
        };
        tasks.spawn(admin_server::serve(admin_socket, Arc::new(admin)));
        tasks.spawn(housekeeping(parts.store.clone(), parts.clock.clone()));
        tasks.spawn(watch_certificates(std::mem::take(&mut parts.certificates)));
        if let Some(socket) = carrier {
            tasks.spawn(test_carrier(socket, parts.entropy.fork(), parts.clock.clone()));
        }
        Ok(Self { addresses, actors, store: parts.store, screen, sip, draining, tasks, _lock: lock })
    }

    /// What to show on the terminal.
    #[must_use]
    pub fn screen(&self) -> &str {
        &self.screen
    }

    /// Sizes of the SIP edge's tables.
    #[must_use]
    pub fn sip_counts(&self) -> sip::core::Counts {
        self.sip.core_counts()
    }

    /// Returns when a part has failed: the server cannot go on without it.
    ///
    /// # Errors
    /// Which part, and why.
    pub async fn failed(&mut self) -> anyhow::Error {
        tokio::select! {
            () = self.sip.ended() => anyhow::anyhow!("the SIP thread failed"),
            () = self.actors.failed() => anyhow::anyhow!("supervisors failed again and again"),
            ended = self.tasks.join_next() => match ended {
                Some(Ok(Err(error))) => error,
                Some(Err(error)) => error.into(),
                _ => anyhow::anyhow!("a part of the server ended"),
            },
        }
    }

    /// Lets no more calls in, has everything written, and ends. Live calls stay as they are stored: the next process carries
    /// them on.
    ///
    /// # Errors
    /// The SIP thread had panicked.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let _ = self.draining.send(true);
        self.actors.drain(DRAIN_LIMIT).await;
        self.leave_carriers().await;
        self.tasks.shutdown().await;
        // It waits for milliseconds only.
        let stopped = self.sip.stop();
        // No leg tells anything any more: what they told until now is decided and written.
        self.actors.finish(FINISH_LIMIT).await;
        self.actors.stop();
        self.store.close().await;
        stopped.map_err(|_| anyhow::anyhow!("the SIP thread failed"))
    }
}

impl Server {
    /// Ends our registrations with carriers; one that does not answer soon is left to its own timer.
    async fn leave_carriers(&self) {
        self.actors.leave_carriers();
        let left = async {
            while self.sip.core_counts().carrier_registrations > 0 {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        if tokio::time::timeout(LEAVE_LIMIT, left).await.is_err() {
            tracing::warn!("a carrier did not confirm that its registration of us has ended");
        }
    }
}

impl<'a> Parts<'a> {
    async fn open(config: &'a Config, certificates: Vec<Arc<Certificate>>) -> anyhow::Result<Self> {
        let clock = clock::system();
        let mut entropy = system_entropy()?;
        let store = data::open(config).await?;
        let brand = provision::brand(&store, &config.sip.domain, &mut entropy, clock().wall).await?;
        Ok(Self { config, clock, entropy, store, brand, certificates })
    }

    /// The demo world of development mode; secrets at the first start only.
    async fn provision_demo(&mut self, addresses: &Addresses) -> anyhow::Result<Option<Secrets>> {
        let Some(carrier) = addresses.test_carrier else { return Ok(None) };
        let is_first = self.store.user_by_email(development::CUSTOMER_EMAIL).await?.is_none();
        let secrets = is_first.then(|| Secrets::generate(&mut self.entropy));
        let world = development::world(carrier, secrets.as_ref())?;
        let entropy = self.entropy.fork();
        let mut provisioning = Provisioning { store: &self.store, brand: &self.brand, clock: &self.clock, entropy };
        provisioning.apply(&world, &mut |_, _| ()).await?;
        Ok(secrets)
    }

    async fn actors(
        &mut self,
        journal: Journal,
        legs: mpsc::Sender<schema::leg::LegCommand>,
        edge: mpsc::Sender<schema::edge::EdgeCommand>,
    ) -> anyhow::Result<Actors> {
        let config = ActorsConfig {
            boot: clock::boot_id(),
            max_live_calls: self.config.limits.live_calls,
            max_calls_per_second: self.config.limits.calls_per_second,
            ..ActorsConfig::default()
        };
        let (store, clock, entropy) = (self.store.clone(), self.clock.clone(), self.entropy.fork());
        Ok(Actors::start(config, store, journal, clock, entropy, legs, edge).await?)
    }

    fn sip(
        &mut self,
        bound: Bound,
        addresses: &Addresses,
        actors: &Actors,
        names: Names,
        legs: mpsc::Receiver<schema::leg::LegCommand>,
        edge: mpsc::Receiver<schema::edge::EdgeCommand>,
    ) -> anyhow::Result<SipThread> {
        let core =
            Core::new(core_config(self.config, addresses), self.entropy.fork()).context("sip.domain")?.recovering();
        let (leg_actors, edge_actors) = (actors.clone(), actors.clone());
        // What they spawn does not run on the SIP thread, which has the sockets to serve.
        let runtime = tokio::runtime::Handle::current();
        let edge_runtime = runtime.clone();
        let seam = Seam {
            legs,
            edge,
            on_leg: Box::new(move |event| {
                let _spawns_there = runtime.enter();
                leg_actors.on_leg_event(event);
            }),
            on_edge: Box::new(move |event| {
                let _spawns_there = edge_runtime.enter();
                match event {
                    EdgeEvent::NameWanted(name) => names.look_up(name),
                    other => edge_actors.on_edge_event(other),
                }
            }),
        };
        let limits = TransportLimits {
            connections: usize::try_from(self.config.limits.connections)?,
            per_address: usize::try_from(self.config.limits.connections_per_ip)?,
            exempt: self.config.exempt_ips(),
            ..TransportLimits::default()
        };
        Ok(SipThread::start(bound, limits, core, self.entropy.fork(), self.clock.clone(), seam)?)
    }

    fn web(
        &mut self,
        listener: TcpListener,
        tls: Option<Arc<ServerConfig>>,
        addresses: &Addresses,
        actors: &Actors,
        draining: watch::Receiver<bool>,
    ) -> impl Future<Output = anyhow::Result<()>> + Send + 'static {
        let config = WebConfig {
            public_url: public_url(self.config, addresses),
            origins: Vec::new(),
            trusted_proxies: self.config.http.trusted_proxies.clone(),
            sip_domain: self.config.sip.domain.clone(),
            development: self.config.development,
        };
        let router = graphql::router(Api {
            actors: actors.clone(),
            store: self.store.clone(),
            clock: self.clock.clone(),
            entropy: self.entropy.fork(),
            config,
            draining,
        });
        let (proxies, exempt) = (self.config.http.trusted_proxies.clone(), self.config.exempt_ips());
        let exempt = move |ip| proxies.contains(&ip) || exempt.iter().any(|network| network.contains(ip));
        let limits = listener::Limits { exempt: Arc::new(exempt), ..listener::Limits::default() };
        async move {
            listener::serve(listener, tls, limits, router).await;
            Ok(())
        }
    }

    async fn screen(&self, addresses: &Addresses, secrets: Option<&Secrets>) -> anyhow::Result<String> {
        if !self.config.development {
            return Ok(format!("ringfence serves {}", public_url(self.config, addresses)));
        }
        let calls = self.store.live_calls(None, 1_000).await?.len() as u64;
        let accounts = self.store.accounts_page(None, 1_000).await?.len() as u64;
        let sip = [("UDP", addresses.sip_udp), ("TCP", addresses.sip_tcp), ("TLS", addresses.sip_tls)];
        let numbers = BEHAVIOURS.iter().map(|(digits, what)| (format!("+447700900{digits}"), (*what).to_owned()));
        let screen = Screen {
            url: public_url(self.config, addresses),
            data_dir: self.config.data_dir.display().to_string(),
            sip: sip.into_iter().filter_map(|(name, address)| Some((name, address?))).collect(),
            domain: self.config.sip.domain.clone(),
            secrets,
            found: (accounts, calls),
            numbers: numbers.collect(),
        };
        Ok(screen.to_string())
    }
}

async fn bind(key: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{key} = {address}: cannot be used"))
}

/// `None`: HTTP is plain.
fn web_tls(config: &Config, certificates: &mut Vec<Arc<Certificate>>) -> anyhow::Result<Option<Arc<ServerConfig>>> {
    let Some(files) = &config.http.tls else { return Ok(None) };
    let certificate = Certificate::read(&files.cert, &files.key).context("http.tls")?;
    certificates.push(certificate.clone());
    certificate.server_config().map(Some)
}

fn transports(config: &Config, certificates: &mut Vec<Arc<Certificate>>) -> anyhow::Result<TransportConfig> {
    let tls = match &config.sip.tls {
        None => None,
        Some(tls) => {
            let (cert, key) = match (&tls.cert, &tls.key) {
                (Some(cert), Some(key)) => (cert.clone(), key.clone()),
                _ => certificate::self_signed(&config.data_dir, &config.sip.domain)?,
            };
            let certificate = Certificate::read(&cert, &key)?;
            certificates.push(certificate.clone());
            Some((tls.listen, certificate.server_config()?))
        }
    };
    let system = Path::new(SYSTEM_AUTHORITIES);
    let roots = match &config.sip.carrier_ca {
        Some(file) => certificate::authorities(file).context("sip.carrier_ca")?,
        None if system.exists() => certificate::authorities(system)?,
        None => Vec::new(),
    };
    let tls_client = sip::transport::tls::client_config(roots).context("TLS")?;
    let SipV6 { udp, tcp, tls: tls_v6, .. } = config.sip.v6;
    let v6 = ListenersV6 { udp, tcp, tls: tls_v6 };
    Ok(TransportConfig { udp: config.sip.udp, tcp: config.sip.tcp, tls, v6, tls_client: Some(tls_client) })
}

fn core_config(config: &Config, addresses: &Addresses) -> CoreConfig {
    let named = |name: &Option<String>, address: Option<SocketAddr>| {
        let host = |ip| advertised_host(name.as_deref(), &config.sip.domain, ip).into();
        address.map(|address| Advertised { host: host(address.ip()), port: address.port() })
    };
    let advertised = |address| named(&config.sip.advertised, address);
    let advertised_v6 = |address| named(&config.sip.v6.advertised, address);
    let first = [addresses.sip_udp, addresses.sip_tcp, addresses.sip_tls].into_iter().flatten().next();
    let listened = first.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip());
    CoreConfig {
        domain: config.sip.domain.as_str().into(),
        other_hosts: if config.development { vec!["127.0.0.1".into(), "localhost".into()] } else { Vec::new() },
        digest: config.digest_algorithms(),
        udp: advertised(addresses.sip_udp),
        tcp: advertised(addresses.sip_tcp),
        tls: advertised(addresses.sip_tls),
        v6: AdvertisedV6 {
            udp: advertised_v6(addresses.sip_v6.udp),
            tcp: advertised_v6(addresses.sip_v6.tcp),
            tls: advertised_v6(addresses.sip_v6.tls),
        },
        sdp_address: config
            .sip
            .advertised
            .as_ref()
            .and_then(|host| host.trim_matches(['[', ']']).parse().ok())
            .unwrap_or(listened),
        plain_customers: config.sip.allow_plain_customers,
        dialog_probe: Duration::from_secs(u64::from(config.sip.dialog_probe_s)),
        legs_max: 2 * config.limits.live_calls as usize,
        calls_per_second: config.limits.calls_per_second,
        bounds_waiting: matches!(DatabaseUrl::parse(&config.database_url()), Ok(DatabaseUrl::Sqlite(_))),
        transactions_max: 1_000_000,
        lookups_max: 10_000,
        guard: GuardLimits { requests_per_second: config.limits.requests_per_ip, exempt: config.exempt_ips() },
    }
}

/// What we call ourselves in Via and Contact.
fn advertised_host(name: Option<&str>, domain: &str, listened: IpAddr) -> String {
    match (name, listened) {
        (Some(host), _) => host.to_owned(),
        (None, ip) if ip.is_unspecified() => domain.to_owned(),
        (None, IpAddr::V4(ip)) => ip.to_string(),
        (None, IpAddr::V6(ip)) => format!("[{ip}]"),
    }
}

fn public_url(config: &Config, addresses: &Addresses) -> String {
    let scheme = if config.http.tls.is_some() { "https" } else { "http" };
    config.http.public_url.clone().unwrap_or_else(|| format!("{scheme}://{}", addresses.http))
}

/// From the operating system.
pub(crate) fn system_entropy() -> anyhow::Result<Entropy> {
    let mut seed = [0; 32];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut seed)
        .map_err(|_| anyhow::anyhow!("the system gave no random bytes"))?;
    Ok(Entropy::from_seed(seed))
}

async fn test_carrier(socket: UdpSocket, entropy: Entropy, clock: Clock) -> anyhow::Result<()> {
    let mut carrier = Carrier::new(entropy, socket.local_addr()?, CARRIER_CALLS);
    // Nobody commands it and nobody listens: it runs until the task is dropped.
    let (_commands, commands) = mpsc::channel(1);
    let (events, _events) = mpsc::channel(1);
    sip::demo::run(&socket, &mut carrier, &clock, commands, &events).await?;
    Ok(())
}

/// Takes new certificates into use when their files have changed.
async fn watch_certificates(certificates: Vec<Arc<Certificate>>) -> anyhow::Result<()> {
    loop {
        tokio::time::sleep(CERTIFICATES).await;
        for certificate in &certificates {
            let (file, reader) = (certificate.file().display(), certificate.clone());
            #[expect(
                clippy::disallowed_methods,
                reason = "the root is not part of the simulator, and reading files blocks"
            )]
            let read = tokio::task::spawn_blocking(move || reader.refresh()).await?;
            match read {
                Ok(true) => tracing::info!(%file, "a new certificate is in use"),
                Ok(false) => {}
                Err(error) => tracing::warn!(error = format!("{error:#}"), "the certificate stays as it was"),
            }
        }
    }
}

/// Removes what has run out.
async fn housekeeping(store: Store, clock: Clock) -> anyhow::Result<()> {
    loop {
        tokio::time::sleep(HOUSEKEEPING).await;
        let at = clock().wall;
        let (kept, most) = EVENTS_KEPT;
        let removed = async {
            let sessions = store.purge_sessions(at).await?;
            let bindings = store.purge_bindings(at).await?;
            let events = store.purge_events(at - kept, at, most).await?;
            Ok::<_, storage::StoreError>(sessions + bindings + events)
        };
        match removed.await {
            Ok(rows) => tracing::debug!(rows, "removed what had run out"),
            Err(error) => tracing::warn!(%error, "housekeeping failed; it will be tried again"),
        }
    }
}
