//! Carriers' trunks, as calls are routed over them.

use crate::id::{DeckId, TrunkId};
use crate::money::Currency;
use crate::pii::Pii;
use crate::target::{Targets, TrunkGateway};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;

/// How long a registration with a carrier may be asked for, seconds.
pub const REGISTER_S: std::ops::RangeInclusive<u32> = 60..=86_400;

/// The transport to a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "each is the transport of that name")]
pub enum GatewayTransport {
    Udp,
    Tcp,
    Tls,
}

impl GatewayTransport {
    /// As written before a gateway: `udp`, `tcp`, `tls`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

/// Where a carrier takes calls: one next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Gateway {
    /// Transport.
    pub transport: GatewayTransport,
    /// Address and port.
    pub address: SocketAddr,
}

/// A trunk: the commercial relation with a carrier and its gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trunk {
    /// Identity.
    pub id: TrunkId,
    /// The carrier's name, shown as the call's route.
    pub name: String,
    /// Where its calls go.
    pub gateway: TrunkGateway,
    /// What it charges us in.
    pub currency: Currency,
    /// What it charges us by.
    pub deck: DeckId,
    /// Most calls at the same time.
    pub max_channels: u32,
    /// Most new calls a second.
    pub max_cps: u32,
    /// Lower is tried first among routes of equal cost.
    pub priority: i32,
    /// Requests over 1,300 bytes go over TCP where the gateway is spoken to over UDP (RFC 3261 §18.1.1).
    pub large_over_tcp: bool,
    /// Inside our trust domain (RFC 3325): may be told P-Asserted-Identity of a withheld number and honours Privacy.
    pub trusted: bool,
}

/// How we show a carrier who we are, where our address alone is not enough: digest, and registering if it wants that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrunkLogin {
    /// Digest username, and user part of our address at the carrier. 1 to 64 bytes.
    pub username: String,
    /// Its password, 1 to 128 bytes. Sealed at rest; sent to nobody, only digests of it are.
    pub password: Pii<String>,
    /// The only digest realm that is answered; `None`: whichever the carrier names.
    pub realm: Option<String>,
    /// How long a registration is asked for, in seconds (RFC 3261 §10.2); `None`: it is not registered.
    pub register_s: Option<u32>,
}

/// Whether calls can be sent over a trunk, as its probes, its registration and DNS say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrunkState {
    /// Why not; `None`: they can.
    pub down: Option<TrunkDown>,
    /// Where to, of a trunk whose gateway is a name: none of them is known to have failed, or all are silent.
    pub targets: Option<Arc<Targets>>,
}

impl TrunkState {
    /// Calls can be sent to its address.
    pub const UP: Self = Self { down: None, targets: None };

    /// They cannot.
    #[must_use]
    pub const fn down(why: TrunkDown) -> Self {
        Self { down: Some(why), targets: None }
    }

    /// What is known of a trunk before anything was asked: an address is used until a probe says otherwise; one that registers,
    /// from when it has.
    #[must_use]
    pub const fn first(gateway: &TrunkGateway, registers: bool) -> Self {
        match gateway {
            TrunkGateway::Named(_) => Self::down(TrunkDown::Searching),
            TrunkGateway::At(_) if registers => Self::down(TrunkDown::Unregistered),
            TrunkGateway::At(_) => Self::UP,
        }
    }
}

/// Why no calls can be sent over a trunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TrunkDown {
    /// It answers neither OPTIONS nor calls. Now and then a call that no other trunk takes finds out whether it still is so.
    Silent,
    /// Its name is being looked up for the first time.
    Searching,
    /// Its name does not exist (NXDOMAIN).
    NoSuchName,
    /// Its name exists, and offers no service or address that we can use.
    NoTarget,
    /// No DNS server answered.
    DnsSilent,
    /// Its TLS certificate is for another name (RFC 5922).
    WrongName,
    /// Its TLS certificate is expired, or of no authority that we know.
    Untrusted,
    /// Its carrier has not accepted our registration yet, or not again.
    Unregistered,
    /// Its carrier refuses to register us, for another reason than our credentials.
    RegistrationRefused,
    /// Its carrier does not accept our username and password.
    CredentialsRefused,
    /// Its carrier asks for credentials of another realm than is configured.
    OtherRealm,
    /// Its carrier asks for credentials and none are configured, or for a digest we do not know.
    NotAnswerable,
}

impl TrunkDown {
    /// In words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Silent => "down: it does not answer",
            Self::Searching => "down: its name is being looked up",
            Self::NoSuchName => "down: its name does not exist in DNS",
            Self::NoTarget => "down: its name leads to no address",
            Self::DnsSilent => "down: DNS does not answer",
            Self::WrongName => "down: its TLS certificate is for another name",
            Self::Untrusted => "down: its TLS certificate is not trusted",
            Self::Unregistered => "down: not registered",
            Self::RegistrationRefused => "down: it refuses the registration",
            Self::CredentialsRefused => "down: it refuses the credentials",
            Self::OtherRealm => "down: it asks for credentials of another realm",
            Self::NotAnswerable => "down: it asks for credentials that are not configured",
        }
    }
}
