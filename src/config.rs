//! Configuration: defaults, then a file, then the environment (`RINGFENCE_`, `__` between levels). A wrong key or value is
//! one line that names key, value and what is allowed.

use figment::Figment;
use figment::error::Kind;
use figment::providers::{Env, Format, Serialized, Toml};
use schema::target::HostName;
use serde::{Deserialize, Serialize};
use sip::guard::Network;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod public_url;

/// Environment variables with our prefix that are not configuration: the log filter and the build's dashboard switch.
const NOT_KEYS: [&str; 3] = ["log", "dashboard", "dashboard_dir"];

/// Keys below which a value is never shown.
const SECRET: [&str; 2] = ["database", "secrets"];

/// Most DNS servers.
const DNS_SERVERS_MAX: usize = 8;

/// Everything a server is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Folder of the database, keys, lock and admin socket.
    pub data_dir: PathBuf,
    /// Development mode: everything on loopback, test carrier, demo accounts.
    pub development: bool,
    /// Where the data is.
    pub database: Database,
    /// Dashboard and API.
    pub http: Http,
    /// Prometheus metrics.
    pub metrics: Metrics,
    /// SIP edge.
    pub sip: Sip,
    /// Development mode: where the built-in test carrier takes calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_carrier: Option<SocketAddr>,
    /// Secrets at rest.
    pub secrets: Secrets,
    /// Node-wide limits.
    pub limits: NodeLimits,
}

/// `database.…`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// `sqlite://PATH` or `postgres://…`; `None`: `ringfence.db` in `data_dir`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// `http.…`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Address of the dashboard and the API.
    pub listen: SocketAddr,
    /// The address customers type, whose pages alone may sign in; default `http(s)://` and `listen`, where that is an address of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_url: Option<String>,
    /// Certificate and key; without them the listener speaks plain HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsFiles>,
    /// Proxies whose `X-Forwarded-For` is believed and that speak HTTPS to the outside. They have no share of HTTP connections.
    pub trusted_proxies: Vec<IpAddr>,
    /// Outside development: allow plain HTTP without a trusted proxy.
    pub allow_plain: bool,
}

/// `metrics.…`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// Address of `/metrics`; loopback only.
    pub listen: SocketAddr,
}

/// `sip.…`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sip {
    /// Domain and digest realm of the customers' addresses.
    pub domain: String,
    /// UDP listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp: Option<SocketAddr>,
    /// TCP listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<SocketAddr>,
    /// TLS listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<SipTls>,
    /// Listeners on IPv6 beside those.
    pub v6: SipV6,
    /// Host name or address (IPv6 in brackets) written into Via and Contact; default: the listener's address, else `domain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertised: Option<String>,
    /// Digest algorithms offered, most preferred first (RFC 8760): `SHA-256`, `MD5`. Some older phones and SIPp give up when the
    /// first is one they do not know; development mode therefore begins with MD5.
    pub digest: Vec<String>,
    /// Outside development: customers may use UDP and TCP too, where everyone on the way can read them.
    pub allow_plain_customers: bool,
    /// A phone of which nothing was heard for so many seconds is asked whether it is still in the call (OPTIONS in the dialog):
    /// 0: never, 10 to 600. Phones that cannot answer, such as SIPp without `-aa`, need 0; a call that ended while the server
    /// was being started again is then found out only when the other side hangs up or the money ends.
    pub dialog_probe_s: u32,
    /// Authorities under which certificates of carriers (TLS) are accepted, PEM; default: those of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub carrier_ca: Option<PathBuf>,
    /// DNS servers for the names of carriers, each address and port; default: those of the system (`/etc/resolv.conf`).
    pub dns: Vec<SocketAddr>,
}

/// `sip.v6.…`: IPv6 addresses; `[::]` takes IPv6 alone.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SipV6 {
    /// UDP listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp: Option<SocketAddr>,
    /// TCP listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<SocketAddr>,
    /// TLS listener, with the certificate of `sip.tls`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<SocketAddr>,
    /// Host name or address (IPv6 in brackets) written into Via and Contact towards IPv6 peers; default: the listener's address,
    /// else `sip.domain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertised: Option<String>,
}

/// `sip.tls.…`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SipTls {
    /// TLS listener.
    pub listen: SocketAddr,
    /// Certificate chain, PEM; in development made when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// Its key, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

/// Certificate chain and key, PEM.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// Certificate chain.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// `secrets.…`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    /// 32 bytes as hexadecimal text; wraps every data key. `None`: `master.key` in `data_dir`, made at the first start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

/// `limits.…`: of the whole node; an account's own limits are in the world file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeLimits {
    /// Calls at the same time, 1 to 1,000,000.
    pub live_calls: u32,
    /// New calls a second, 1 to 100,000.
    pub calls_per_second: u32,
    /// SIP connections over TCP and TLS that peers opened, together, 10 to 1,000,000. Beyond it one that has not signed in makes room.
    pub connections: u32,
    /// Stream connections of one address (IPv6: /64) that have not signed in, 1 to 10,000. One more ends the oldest of them.
    pub connections_per_ip: u32,
    /// SIP requests a second, twice as many at once, of one address (IPv6: /64) from which nobody has signed in: 1 to 100,000.
    pub requests_per_ip: u32,
    /// Addresses and networks free of these limits, of bans and of a share of HTTP connections, such as test machines: `["192.0.2.7", "2001:db8::/32"]`. In
    /// development mode without a file: loopback.
    pub exempt_ips: Vec<Network>,
}

/// One clear line about a wrong key or value.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl Default for Config {
    fn default() -> Self {
        let loopback = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            data_dir: PathBuf::from("data"),
            development: false,
            database: Database { url: None },
            http: Http {
                listen: loopback(8080),
                public_url: None,
                tls: None,
                trusted_proxies: Vec::new(),
                allow_plain: false,
            },
            metrics: Metrics { listen: loopback(9090) },
            sip: Sip {
                domain: String::from("localhost"),
                udp: None,
                tcp: None,
                tls: None,
                v6: SipV6::default(),
                advertised: None,
                digest: vec![String::from("SHA-256"), String::from("MD5")],
                allow_plain_customers: false,
                dialog_probe_s: 30,
                carrier_ca: None,
                dns: Vec::new(),
            },
            test_carrier: None,
            secrets: Secrets { key_file: None },
            limits: NodeLimits {
                live_calls: 20_000,
                calls_per_second: 5_000,
                connections: 5_000,
                connections_per_ip: 20,
                requests_per_ip: 20,
                exempt_ips: Vec::new(),
            },
        }
    }
}

impl Config {
    /// What `ringfence` without arguments serves: everything on loopback.
    #[must_use]
    pub fn for_development() -> Self {
        let loopback = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let base = Self::default();
        Self {
            development: true,
            sip: Sip {
                udp: Some(loopback(5060)),
                tcp: Some(loopback(5060)),
                tls: Some(SipTls { listen: loopback(5061), cert: None, key: None }),
                digest: vec![String::from("MD5"), String::from("SHA-256")],
                allow_plain_customers: true,
                ..base.sip
            },
            test_carrier: Some(loopback(5090)),
            limits: NodeLimits { exempt_ips: vec![Network::LOOPBACK_V4, Network::LOOPBACK_V6], ..base.limits },
            ..base
        }
    }

    /// Reads the file, if one is given, and the environment over the defaults: those of development mode without a file,
    /// else those of a server.
    ///
    /// # Errors
    /// One line naming key, value and what is allowed.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let defaults = if file.is_some() { Self::default() } else { Self::for_development() };
        let mut figment = Figment::from(Serialized::defaults(defaults));
        if let Some(path) = file {
            let text = std::fs::read_to_string(path)
                .map_err(|error| ConfigError(format!("--config {}: {error}", path.display())))?;
            figment = figment.merge(Toml::string(&text));
        }
        let environment = Env::prefixed("RINGFENCE_").ignore(&NOT_KEYS).split("__");
        let figment = figment.merge(environment);
        let mut config: Self = figment.extract().map_err(|error| describe(error, &figment, file))?;
        config.read_public_url()?;
        config.check()?;
        Ok(config)
    }

    /// The database's URL.
    #[must_use]
    pub fn database_url(&self) -> String {
        self.database
            .url
            .clone()
            .unwrap_or_else(|| format!("sqlite://{}", self.data_dir.join("ringfence.db").display()))
    }

    /// The master key's file.
    #[must_use]
    pub fn key_file(&self) -> PathBuf {
        self.secrets.key_file.clone().unwrap_or_else(|| self.data_dir.join("master.key"))
    }

    /// Addresses free of the limits per address.
    #[must_use]
    pub fn exempt_ips(&self) -> Arc<[Network]> {
        self.limits.exempt_ips.as_slice().into()
    }

    /// Digest algorithms offered.
    #[must_use]
    pub fn digest_algorithms(&self) -> Vec<sip::digest::Algorithm> {
        self.sip.digest.iter().filter_map(|name| sip::digest::Algorithm::parse(name)).collect()
    }

    /// Every listener with the key that names it.
    fn listeners(&self) -> Vec<(&'static str, SocketAddr)> {
        let mut all = vec![("http.listen", self.http.listen), ("metrics.listen", self.metrics.listen)];
        all.extend(self.test_carrier.map(|a| ("test_carrier", a)));
        all.extend(self.sip.udp.map(|a| ("sip.udp", a)));
        all.extend(self.sip.tcp.map(|a| ("sip.tcp", a)));
        all.extend(self.sip.tls.as_ref().map(|t| ("sip.tls.listen", t.listen)));
        let SipV6 { udp, tcp, tls, .. } = &self.sip.v6;
        let v6 = [("sip.v6.udp", udp), ("sip.v6.tcp", tcp), ("sip.v6.tls", tls)];
        all.extend(v6.into_iter().filter_map(|(key, address)| Some((key, (*address)?))));
        all
    }

    fn check(&self) -> Result<(), ConfigError> {
        for (key, address) in self.listeners() {
            if self.development && !address.ip().is_loopback() {
                return wrong(key, address, "development mode binds loopback addresses only, e.g. 127.0.0.1:5060");
            }
        }
        let firsts = [self.sip.udp, self.sip.tcp, self.sip.tls.as_ref().map(|tls| tls.listen)];
        let v6 = [("sip.v6.udp", self.sip.v6.udp), ("sip.v6.tcp", self.sip.v6.tcp), ("sip.v6.tls", self.sip.v6.tls)];
        for ((key, address), first) in v6.into_iter().zip(firsts).filter_map(|((k, a), first)| Some(((k, a?), first))) {
            if !address.is_ipv6() || !first.is_some_and(|first| first.is_ipv4()) {
                return wrong(key, address, "must be an IPv6 address beside an IPv4 listener of the same transport");
            }
        }
        if !self.metrics.listen.ip().is_loopback() {
            return wrong("metrics.listen", self.metrics.listen, "must be a loopback address");
        }
        if self.sip.udp.is_none() && self.sip.tcp.is_none() && self.sip.tls.is_none() {
            return wrong("sip", "(no listener)", "set sip.udp, sip.tcp or sip.tls.listen");
        }
        let (first, v6) = (&self.sip.advertised, &self.sip.v6.advertised);
        let hosts = [
            ("sip.domain", Some(&self.sip.domain)),
            ("sip.advertised", first.as_ref()),
            ("sip.v6.advertised", v6.as_ref()),
        ];
        for (key, host) in hosts.into_iter().filter_map(|(key, host)| Some((key, host?))) {
            if !is_host(host) {
                return wrong(
                    key,
                    host,
                    "must be a host name or address, such as sip.example.com, 192.0.2.1 or [2001:db8::1]",
                );
            }
        }
        if self.sip.digest.is_empty() || self.digest_algorithms().len() != self.sip.digest.len() {
            return wrong("sip.digest", format!("{:?}", self.sip.digest), "must list SHA-256, MD5 or both");
        }
        if self.sip.dialog_probe_s != 0 && !(10..=600).contains(&self.sip.dialog_probe_s) {
            return wrong("sip.dialog_probe_s", self.sip.dialog_probe_s, "must be 0 (never) or 10 to 600");
        }
        if self.sip.dns.len() > DNS_SERVERS_MAX {
            return wrong("sip.dns", format!("({} servers)", self.sip.dns.len()), "must name at most 8");
        }
        if !(1..=1_000_000).contains(&self.limits.live_calls) {
            return wrong("limits.live_calls", self.limits.live_calls, "must be 1 to 1000000");
        }
        if !(1..=100_000).contains(&self.limits.calls_per_second) {
            return wrong("limits.calls_per_second", self.limits.calls_per_second, "must be 1 to 100000");
        }
        if !(10..=1_000_000).contains(&self.limits.connections) {
            return wrong("limits.connections", self.limits.connections, "must be 10 to 1000000");
        }
        if !(1..=10_000).contains(&self.limits.connections_per_ip) {
            return wrong("limits.connections_per_ip", self.limits.connections_per_ip, "must be 1 to 10000");
        }
        if !(1..=100_000).contains(&self.limits.requests_per_ip) {
            return wrong("limits.requests_per_ip", self.limits.requests_per_ip, "must be 1 to 100000");
        }
        self.check_public_url()?;
        if self.development { Ok(()) } else { self.check_encryption() }
    }

    /// Outside development customers' legs and the API are encrypted, or a key says that they are not.
    fn check_encryption(&self) -> Result<(), ConfigError> {
        if let Some(address) = self.test_carrier {
            return wrong("test_carrier", address, "exists in development mode only");
        }
        if self.http.tls.is_none() && self.http.trusted_proxies.is_empty() && !self.http.allow_plain {
            return wrong(
                "http.tls",
                "(none)",
                "set http.tls.cert and http.tls.key, or http.trusted_proxies, or http.allow_plain = true",
            );
        }
        match &self.sip.tls {
            Some(tls) if tls.cert.is_none() || tls.key.is_none() => {
                wrong("sip.tls.cert", "(none)", "outside development sip.tls.cert and sip.tls.key must name files")
            }
            None if !self.sip.allow_plain_customers => wrong(
                "sip.tls",
                "(none)",
                "customers need TLS: set sip.tls.listen, cert and key, or sip.allow_plain_customers = true",
            ),
            _ => Ok(()),
        }
    }

    /// What an operator should be warned of at start.
    #[must_use]
    pub fn warnings(&self) -> Vec<&'static str> {
        let mut all = Vec::new();
        if !self.development {
            all.push("media is not anchored: the phones' media addresses reach the carriers");
            if self.sip.allow_plain_customers {
                all.push("sip.allow_plain_customers: customers' calls can be read on the way");
            }
            if self.http.allow_plain {
                all.push("http.allow_plain: passwords can be read on the way");
            }
        }
        all
    }
}

/// What a SIP URI may have for its host (RFC 3261 §25.1): a name, an IPv4 address, or an IPv6 address in brackets.
fn is_host(text: &str) -> bool {
    match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => text.parse::<Ipv4Addr>().is_ok() || HostName::parse(text).is_ok(),
    }
}

fn wrong(key: &str, value: impl std::fmt::Display, allowed: &str) -> Result<(), ConfigError> {
    Err(ConfigError(format!("{key} = {value}: {allowed}")))
}

/// One line out of figment's error: which key, which value, what is allowed, and where it came from.
fn describe(error: figment::Error, figment: &Figment, file: Option<&Path>) -> ConfigError {
    // The last error is the first found.
    let Some(first) = error.into_iter().next() else { return ConfigError(String::from("unreadable")) };
    let key = first.path.join(".");
    // A password may have come to stand where another kind of value is wanted: `database = "postgres://…"`.
    let is_secret = first.path.first().is_some_and(|part| SECRET.contains(&part.as_str()));
    let text = match &first.kind {
        Kind::UnknownField(name, allowed) => {
            let at = match key.as_str() {
                "" => name.clone(),
                path if path.ends_with(name.as_str()) => path.to_owned(),
                path => format!("{path}.{name}"),
            };
            format!("unknown key {at}: allowed are {}", allowed.join(", "))
        }
        Kind::InvalidType(found, wanted) | Kind::InvalidValue(found, wanted) => {
            let found = found.to_string();
            format!("{key} = {}: must be {wanted}", if is_secret { hidden(&found) } else { found })
        }
        Kind::MissingField(name) => format!("{key}.{name} is missing"),
        other => match figment.find_value(&key).ok().and_then(|value| value.into_string()) {
            _ if key.is_empty() => one_line(&other.to_string()),
            Some(value) if !is_secret => format!("{key} = {value}: {}", one_line(&other.to_string())),
            _ if is_secret => format!("{key} = (hidden): cannot be used"),
            _ => format!("{key}: {}", one_line(&other.to_string())),
        },
    };
    let source =
        first.metadata.as_ref().filter(|m| m.name.contains("environment")).map(|_| String::from("environment"));
    let source = source.or_else(|| file.map(|f| f.display().to_string()));
    ConfigError(source.map_or_else(|| text.clone(), |source| format!("{source}: {text}")))
}

/// The kind of a value that is wrong, without the value: `string "…"` is a `string (hidden)`.
pub(crate) fn hidden(found: &str) -> String {
    match found.split_once(['"', '`', '\'']) {
        Some((kind, _)) => format!("{} (hidden)", kind.trim_end()),
        None => found.to_owned(),
    }
}

/// Without the drawing of a TOML error's place, and with what is allowed where a library does not say it.
fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let text = match lines[..] {
        [first, .., last] => format!("{first}: {last}"),
        _ => lines.concat(),
    };
    text.replace("invalid socket address syntax", "must be an address and a port such as 127.0.0.1:5060")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("ringfence.toml");
        std::fs::write(&path, text).expect("written");
        Config::load(Some(&path)).map_err(|error| error.to_string().replace(&path.display().to_string(), "FILE"))
    }

    #[test]
    fn a_wrong_key_or_value_is_one_line() {
        let cases = [
            ("htp.listen = \"127.0.0.1:1\"", "FILE: unknown key htp: allowed are data_dir, development,"),
            ("[http]\nlisten = \"nonsense\"", "FILE: http.listen = nonsense: must be an address and a port such as"),
            ("[[", "FILE: TOML parse error at line 1, column 3: "),
            (
                "[sip]\nport = 5060",
                "FILE: unknown key sip.port: allowed are domain, udp, tcp, tls, v6, advertised, digest",
            ),
            ("development = \"maybe\"", "FILE: development = string \"maybe\": must be a boolean"),
            ("service_number = \"+442079460000\"", "FILE: unknown key service_number: allowed are data_dir"),
            (
                "development = true\n[sip]\nudp = \"0.0.0.0:5060\"",
                "sip.udp = 0.0.0.0:5060: development mode binds loopback",
            ),
            ("development = true", "sip = (no listener): set sip.udp"),
            ("[sip]\nudp = \"127.0.0.1:5060\"", "http.tls = (none): set http.tls.cert"),
            ("[http]\nallow_plain = true\n[sip]\nudp = \"127.0.0.1:5060\"", "sip.tls = (none): customers need TLS"),
            (
                "[limits]\nlive_calls = 0\n[sip]\nudp = \"127.0.0.1:5060\"",
                "limits.live_calls = 0: must be 1 to 1000000",
            ),
            (
                "[limits]\nconnections = 9\n[sip]\nudp = \"127.0.0.1:5060\"",
                "limits.connections = 9: must be 10 to 1000000",
            ),
            (
                "[limits]\nrequests_per_ip = 0\n[sip]\nudp = \"127.0.0.1:5060\"",
                "limits.requests_per_ip = 0: must be 1 to 100000",
            ),
            (
                "[limits]\nconnections_per_ip = 0\n[sip]\nudp = \"127.0.0.1:5060\"",
                "limits.connections_per_ip = 0: must be 1 to 10000",
            ),
            (
                "[limits]\nconnections_per_ip = 10001\n[sip]\nudp = \"127.0.0.1:5060\"",
                "limits.connections_per_ip = 10001: must be 1 to 10000",
            ),
            (
                "[sip]\nudp = \"127.0.0.1:5060\"\nadvertised = \"https://calls.example\"",
                "sip.advertised = https://calls.example: must be a host name or address",
            ),
            (
                "[sip]\nudp = \"127.0.0.1:5060\"\nadvertised = \"calls.example:5060\"",
                "sip.advertised = calls.example:5060: must be",
            ),
            ("[sip]\nudp = \"127.0.0.1:5060\"\nadvertised = \"2001:db8::1\"", "sip.advertised = 2001:db8::1: must be"),
            ("[sip]\nudp = \"127.0.0.1:5060\"\nv6 = { advertised = \"\" }", "sip.v6.advertised = : must be"),
            ("[sip]\nudp = \"127.0.0.1:5060\"\ndomain = \"a:b\"", "sip.domain = a:b: must be a host name or address"),
            (
                "[sip]\nudp = \"127.0.0.1:5060\"\nv6 = { tcp = \"[::1]:5060\" }",
                "sip.v6.tcp = [::1]:5060: must be an IPv6 address beside",
            ),
            (
                "[sip]\nudp = \"127.0.0.1:5060\"\nallow_plain_customers = true\ndns = [\"ns.example.com\"]\n[http]\nallow_plain = true",
                "FILE: sip.dns",
            ),
            ("[http]\npublic_url = \"calls.example\"", "http.public_url = calls.example: must be http:// or https://"),
            (
                "[http]\nlisten = \"0.0.0.0:80\"\nallow_plain = true\n[sip]\nudp = \"127.0.0.1:5060\"",
                "http.public_url = (none): must say what customers type",
            ),
            ("[limits]\nexempt_ips = [\"localhost\"]", "FILE: limits.exempt_ips"),
        ];
        for (text, begins) in cases {
            let error = load(text).expect_err(text);
            assert!(error.starts_with(begins) && !error.contains('\n'), "{text:?} gave {error:?}");
        }
    }

    /// What is accepted here can be written: as long as it cannot, every call would be answered 500.
    #[test]
    fn what_is_advertised_fits_a_sip_uri() {
        for host in ["calls.example", "CALLS-1.example", "192.0.2.1", "[2001:db8::1]", "localhost"] {
            let text = format!("development = true\n[sip]\nudp = \"127.0.0.1:5060\"\nadvertised = \"{host}\"");
            let advertised = load(&text).expect(host).sip.advertised.expect("kept");
            assert!(sip::message::Uri::sip(Some("u"), &advertised, Some(5060)).is_ok(), "{host}");
            assert!(
                sip::message::Via::new(sip::message::Transport::Udp, &advertised, Some(5060), "z9hG4bK1").is_ok(),
                "{host}"
            );
        }
    }

    #[test]
    fn p3_no_message_shows_a_secret() {
        for (text, begins) in [
            ("database = \"postgres://u:hunter2@h/db\"", "FILE: database = string (hidden): must be struct Database"),
            ("[database]\nurl = 20251129", "FILE: database.url = signed int (hidden): must be a string"),
            ("[database]\nurl = 2.5", "FILE: database.url = float (hidden): must be a string"),
            ("[database]\nurl = [\"postgres://u:hunter2@h/db\"]", "FILE: database.url = sequence: must be a string"),
            ("secrets = \"hunter2\"", "FILE: secrets = string (hidden): must be struct Secrets"),
            ("database = postgres://u:hunter2@h/db", "FILE: TOML parse error at line 1, column 12: "),
            ("database.url = \"postgres://u:hunter2@h/db", "FILE: TOML parse error at line 1, column "),
        ] {
            let error = load(text).expect_err(text);
            assert!(error.starts_with(begins) && !error.contains('\n'), "{text:?} gave {error:?}");
            assert!(["hunter2", "20251129", "2.5"].iter().all(|secret| !error.contains(secret)), "{error}");
        }
        // As the environment gives it.
        let given = Figment::from(Serialized::defaults(Config::default()));
        let given = given.merge(Serialized::default("database", "postgres://u:hunter2@h/db"));
        let error = given.extract::<Config>().expect_err("no table");
        assert_eq!(describe(error, &given, None).to_string(), "database = string (hidden): must be struct Database");
    }

    /// The parts are built with the configured limits only; what they would take by themselves says the same.
    #[test]
    fn the_limits_of_the_parts_are_those_configured() {
        let NodeLimits { live_calls, calls_per_second, connections, connections_per_ip, requests_per_ip, .. } =
            Config::default().limits;
        let actors = actors::ActorsConfig::default();
        assert_eq!((actors.max_live_calls, actors.max_calls_per_second), (live_calls, calls_per_second));
        let transport = sip::transport::TransportLimits::default();
        let configured = (connections as usize, connections_per_ip as usize);
        assert_eq!((transport.connections, transport.per_address), configured);
        assert_eq!(sip::guard::GuardLimits::default().requests_per_second, requests_per_ip);
    }

    #[test]
    fn development_needs_no_file() {
        let config = Config::for_development();
        assert!(config.check().is_ok() && config.warnings().is_empty());
        assert!(config.listeners().iter().all(|(_, address)| address.ip().is_loopback()));
    }

    #[test]
    fn a_public_url_is_kept_as_browsers_write_it() {
        let text =
            "development = true\n[sip]\nudp = \"127.0.0.1:5060\"\n[http]\npublic_url = \"HTTPS://Calls.example\"";
        assert_eq!(load(text).expect("allowed").http.public_url.as_deref(), Some("https://calls.example"));
    }

    #[test]
    fn an_exception_to_encryption_warns() {
        let text = "[http]\nallow_plain = true\n[sip]\nudp = \"127.0.0.1:5060\"\nallow_plain_customers = true";
        assert_eq!(load(text).expect("allowed").warnings().len(), 3);
    }
}
