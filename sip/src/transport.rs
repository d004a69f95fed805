//! The shell that carries bytes between sockets and [`crate::core::Core`]: one OS thread (the "SIP thread") with a
//! current-thread runtime owns the core and the UDP socket; TCP and TLS connections are tasks with bounded queues both ways, so
//! that a slow or silent peer costs a bounded amount and delays nobody.

mod connection;
mod inbox;
mod incomplete;
mod outbox;
mod outgoing;
mod registry;
mod stun;
mod thread;
pub mod tls;
mod wire;

pub use thread::{Seam, SipThread};

use crate::guard::Network;
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// Connections waiting to be accepted.
const BACKLOG: i32 = 1_024;

/// Bytes of datagrams that wait in the kernel: some 2,000 messages, so that none is lost (and sent again after 500 ms) while the
/// SIP thread is busy for a tenth of a second. The kernel gives at most `net.core.rmem_max`.
const RECEIVE_BUFFER: usize = 4 << 20;

/// The same of what leaves; what finds no room there waits here. At most `net.core.wmem_max`.
const SEND_BUFFER: usize = 4 << 20;

/// Limits of the transports: what a peer that is silent, slow or greedy costs at most.
#[derive(Debug, Clone)]
pub struct TransportLimits {
    /// Most connections at a time that peers opened; we open 1,024 more at most.
    pub connections: usize,
    /// Most connections of one address without a right digest on them; one more ends the oldest of these.
    pub per_address: usize,
    /// Addresses that are free of `per_address`.
    pub exempt: Arc<[Network]>,
    /// Most TLS handshakes at a time that peers began; one more ends the oldest.
    pub handshakes: usize,
    /// Longest handshake.
    pub handshake: Duration,
    /// Longest connect and handshake of a connection we open.
    pub connect: Duration,
    /// Within which a peer completes its first message, and every message it began.
    pub first_message: Duration,
    /// Bytes kept of messages that strangers have begun, over all connections; beyond, whoever goes on with one of more than 8 KiB
    /// is closed.
    pub incomplete: usize,
    /// Longest silence; a keep-alive breaks it.
    pub idle: Duration,
    /// Longest time one message takes to be written.
    pub write: Duration,
    /// Bytes queued for the connection of a peer that is not known yet; more closes it.
    pub outbox_stranger: usize,
    /// The same where a digest was right, a dialog is carried on, or we opened it: a carrier's has hundreds of calls.
    pub outbox_known: usize,
}

impl Default for TransportLimits {
    fn default() -> Self {
        Self {
            connections: 5_000,
            per_address: 20,
            exempt: Arc::new([]),
            handshakes: 64,
            handshake: Duration::from_secs(5),
            connect: Duration::from_secs(5),
            first_message: Duration::from_secs(10),
            incomplete: 32 * 1024 * 1024,
            idle: Duration::from_secs(120),
            write: Duration::from_secs(10),
            outbox_stranger: 64 * 1024,
            outbox_known: 4 * 1024 * 1024,
        }
    }
}

/// Where to listen. All listeners are optional.
#[derive(Clone, Default)]
pub struct TransportConfig {
    /// UDP.
    pub udp: Option<SocketAddr>,
    /// TCP.
    pub tcp: Option<SocketAddr>,
    /// TLS with its certificate (see [`tls::server_config`]).
    pub tls: Option<(SocketAddr, Arc<rustls::ServerConfig>)>,
    /// The same on IPv6, beside the others; TLS with the same certificate.
    pub v6: ListenersV6,
    /// For TLS connections that we open (see [`tls::client_config`]).
    pub tls_client: Option<Arc<rustls::ClientConfig>>,
}

/// Listeners on IPv6 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ListenersV6 {
    /// UDP.
    pub udp: Option<SocketAddr>,
    /// TCP.
    pub tcp: Option<SocketAddr>,
    /// TLS.
    pub tls: Option<SocketAddr>,
}

/// A listener that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for SIP over {protocol} on {address}: {source}")]
pub struct BindError {
    /// `udp`, `tcp` or `tls`.
    pub protocol: &'static str,
    /// It is one of [`ListenersV6`].
    pub is_v6: bool,
    /// The address asked for, from the configuration.
    pub address: SocketAddr,
    /// Why.
    pub source: std::io::Error,
}

/// Open listeners, before the SIP thread takes them: so that a taken port is an error at start.
pub struct Bound {
    pub(super) udp: Sockets<UdpSocket>,
    pub(super) tcp: Sockets<TcpListener>,
    pub(super) tls: Sockets<TcpListener>,
    pub(super) tls_server: Option<Arc<rustls::ServerConfig>>,
    pub(super) tls_client: Option<Arc<rustls::ClientConfig>>,
}

impl Bound {
    /// Opens the listeners.
    ///
    /// # Errors
    /// Which listener could not be opened.
    pub fn open(config: TransportConfig) -> Result<Self, BindError> {
        let TransportConfig { udp, tcp, tls, v6, tls_client } = config;
        let (tls, tls_server) = tls.map_or((None, None), |(address, settings)| (Some(address), Some(settings)));
        Ok(Self {
            udp: open("udp", udp, v6.udp, datagrams)?,
            tcp: open("tcp", tcp, v6.tcp, listener)?,
            tls: open("tls", tls, v6.tls, listener)?,
            tls_server,
            tls_client,
        })
    }

    /// Address of the UDP socket, with the port it was given.
    #[must_use]
    pub fn udp_address(&self) -> Option<SocketAddr> {
        self.udp.first.as_ref()?.local_addr().ok()
    }

    /// Address of the TCP listener.
    #[must_use]
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp.first.as_ref()?.local_addr().ok()
    }

    /// Address of the TLS listener.
    #[must_use]
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls.first.as_ref()?.local_addr().ok()
    }

    /// Addresses of the listeners on IPv6 beside those.
    #[must_use]
    pub fn v6_addresses(&self) -> ListenersV6 {
        ListenersV6 {
            udp: self.udp.v6.as_ref().and_then(|socket| socket.local_addr().ok()),
            tcp: self.tcp.v6.as_ref().and_then(|socket| socket.local_addr().ok()),
            tls: self.tls.v6.as_ref().and_then(|socket| socket.local_addr().ok()),
        }
    }
}

/// The sockets of one transport: the first one, and one on IPv6 beside it.
pub(super) struct Sockets<T> {
    pub(super) first: Option<T>,
    pub(super) v6: Option<T>,
}

impl<T> Sockets<T> {
    /// In the runtime it is called in.
    pub(super) fn registered<U>(self, register: impl Fn(T) -> io::Result<U>) -> io::Result<Sockets<U>> {
        Ok(Sockets { first: self.first.map(&register).transpose()?, v6: self.v6.map(&register).transpose()? })
    }
}

fn open<T>(
    protocol: &'static str,
    first: Option<SocketAddr>,
    v6: Option<SocketAddr>,
    bind: fn(SocketAddr) -> io::Result<T>,
) -> Result<Sockets<T>, BindError> {
    let one = |is_v6, address: Option<SocketAddr>| {
        let opened = |address| bind(address).map_err(|source| BindError { protocol, is_v6, address, source });
        address.map(opened).transpose()
    };
    Ok(Sockets { first: one(false, first)?, v6: one(true, v6)? })
}

/// IPv6 sockets take IPv6 alone, also `[::]`: an IPv4 peer is known by one address only, whichever socket it comes to.
fn socket(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn datagrams(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(address, Type::DGRAM)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    // Linux counts its own overhead in, and says twice what it was asked for.
    let given = socket.recv_buffer_size()? / 2;
    if given < RECEIVE_BUFFER {
        tracing::warn!(
            given,
            wanted = RECEIVE_BUFFER,
            "datagrams may be lost in bursts: net.core.rmem_max is too small"
        );
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address, Type::STREAM)?;
    // As std has it: a restart need not wait for connections of the process before.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What the transports counted since their start; gauges where said.
#[derive(Debug, Default)]
pub struct TransportCounts {
    /// Datagrams received.
    pub datagrams: AtomicU64,
    /// Messages refused by the lexer.
    pub refused: AtomicU64,
    /// Datagrams that could not be sent.
    pub unsent: AtomicU64,
    /// Connections now (gauge).
    pub connections: AtomicU64,
    /// Connections turned away by a limit.
    pub shed_connections: AtomicU64,
    /// Connections closed because their peer read too slowly.
    pub slow_connections: AtomicU64,
}

#[cfg(test)]
mod tests;
