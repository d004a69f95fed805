//! How a message came, and how the answer goes back: plain values that the core holds and the transports give meaning.

use schema::carrier::{Gateway, GatewayTransport};
use std::net::{IpAddr, SocketAddr};

/// A transport protocol we speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is the protocol of that name")]
pub enum Protocol {
    Udp,
    Tcp,
    Tls,
}

impl Protocol {
    /// True when the transport itself retransmits.
    #[must_use]
    pub const fn is_reliable(self) -> bool {
        !matches!(self, Self::Udp)
    }

    /// As named in a Via.
    #[must_use]
    pub const fn via(self) -> crate::message::Transport {
        match self {
            Self::Udp => crate::message::Transport::Udp,
            Self::Tcp => crate::message::Transport::Tcp,
            Self::Tls => crate::message::Transport::Tls,
        }
    }
}

impl From<GatewayTransport> for Protocol {
    fn from(transport: GatewayTransport) -> Self {
        match transport {
            GatewayTransport::Udp => Self::Udp,
            GatewayTransport::Tcp => Self::Tcp,
            GatewayTransport::Tls => Self::Tls,
        }
    }
}

/// Number of a connection; never used again within a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// The way to one peer (RFC 5626 §2): its address over UDP, or one connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// The protocol.
    pub protocol: Protocol,
    /// The peer's address and port.
    pub peer: SocketAddr,
    /// The connection, of TCP and TLS.
    pub connection: Option<ConnectionId>,
}

impl Flow {
    /// Over UDP.
    #[must_use]
    pub const fn udp(peer: SocketAddr) -> Self {
        Self { protocol: Protocol::Udp, peer, connection: None }
    }

    /// The address a flow over UDP has, out of what [`Self::source`] wrote. `None` for a connection: it ends with the process.
    pub(crate) fn of_source(source: &str) -> Option<Self> {
        source.strip_prefix("UDP ").and_then(|address| address.parse().ok()).map(Self::udp)
    }

    /// Protocol and address, as they are stored of a binding: `UDP 192.0.2.1:5060`.
    pub(crate) fn source(&self) -> String {
        format!("{} {}", self.protocol.via().as_str(), self.peer)
    }

    /// What a digest nonce is bound to.
    #[must_use]
    pub const fn origin(&self) -> crate::digest::Origin {
        match self.connection {
            None => crate::digest::Origin::Address(self.peer.ip()),
            Some(ConnectionId(number)) => crate::digest::Origin::Connection(number),
        }
    }

    /// The peer's address.
    #[must_use]
    pub const fn ip(&self) -> IpAddr {
        self.peer.ip()
    }
}

/// No address: it is personal.
impl std::fmt::Debug for Flow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Flow({:?}, {:?})", self.protocol, self.connection)
    }
}

/// What is known of whoever opens a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// A right answer came from there not long ago, or it is a trunk or exempt.
    Known,
    /// Nothing.
    Stranger,
    /// Too many answers from there were wrong: nothing is taken from it for now.
    Banned,
}

/// Number of a name that a TLS peer's certificate has to be for; the core knows the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerName(pub u32);

/// Where a request of ours goes when there is no flow to use: a datagram, or a connection that is opened if there is none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    /// The protocol.
    pub protocol: Protocol,
    /// Address and port.
    pub address: SocketAddr,
    /// The name its certificate has to be for, over TLS; none: for the address. Two names never share a connection.
    pub name: Option<PeerName>,
}

impl Destination {
    /// Without a name.
    #[must_use]
    pub const fn new(protocol: Protocol, address: SocketAddr) -> Self {
        Self { protocol, address, name: None }
    }
}

impl From<Gateway> for Destination {
    fn from(gateway: Gateway) -> Self {
        Self::new(gateway.transport.into(), gateway.address)
    }
}

/// Why a connection could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unreached {
    /// It was refused, or nobody answered in time.
    NoConnection,
    /// It was not tried: we have no room for it or for more to be sent there, or its name is not known any more.
    NotTried,
    /// The peer's certificate is for another name.
    WrongName,
    /// The peer's certificate is expired, or of no authority that we know.
    Untrusted,
}

/// No address: it may be a customer's.
impl std::fmt::Debug for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Destination({:?})", self.protocol)
    }
}
