//! The shell that carries bytes between sockets and [`crate::core::Core`]: one OS thread (the "SIP thread") with a
//! current-thread runtime owns the core and the UDP socket; TCP and TLS connections are tasks with bounded queues both ways, so
//! that a slow or silent peer costs a bounded amount and delays nobody.

mod connection;
mod inbox;
mod registry;
mod thread;
pub mod tls;
mod wire;

pub use thread::{Seam, SipThread};

use crate::guard::Network;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// Limits of the transports (`security.md` §4.1).
#[derive(Debug, Clone)]
pub struct TransportLimits {
    /// Most connections at a time, both ways.
    pub connections: usize,
    /// Most connections of one address without a right digest on them.
    pub per_address: usize,
    /// Addresses that are free of `per_address`.
    pub exempt: Arc<[Network]>,
    /// Most TLS handshakes at a time.
    pub handshakes: usize,
    /// Longest handshake.
    pub handshake: Duration,
    /// Longest connect and handshake of a connection we open.
    pub connect: Duration,
    /// Within which a peer completes its first message, and every message it began.
    pub first_message: Duration,
    /// Longest silence; a keep-alive breaks it.
    pub idle: Duration,
    /// Longest time one message takes to be written.
    pub write: Duration,
    /// Messages queued for one connection; one more closes it.
    pub outbox: usize,
}

impl Default for TransportLimits {
    fn default() -> Self {
        Self {
            connections: 2_000,
            per_address: 20,
            exempt: Arc::new([]),
            handshakes: 64,
            handshake: Duration::from_secs(5),
            connect: Duration::from_secs(5),
            first_message: Duration::from_secs(10),
            idle: Duration::from_secs(120),
            write: Duration::from_secs(10),
            outbox: 64,
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
    /// For TLS connections that we open (see [`tls::client_config`]).
    pub tls_client: Option<Arc<rustls::ClientConfig>>,
}

/// A listener that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for SIP over {protocol} on {address}: {source}")]
pub struct BindError {
    /// `udp`, `tcp` or `tls`.
    pub protocol: &'static str,
    /// The address asked for, from the configuration.
    pub address: SocketAddr,
    /// Why.
    pub source: std::io::Error,
}

/// Open listeners, before the SIP thread takes them: so that a taken port is an error at start.
pub struct Bound {
    pub(super) udp: Option<UdpSocket>,
    pub(super) tcp: Option<TcpListener>,
    pub(super) tls: Option<(TcpListener, Arc<rustls::ServerConfig>)>,
    pub(super) tls_client: Option<Arc<rustls::ClientConfig>>,
}

impl Bound {
    /// Opens the listeners.
    ///
    /// # Errors
    /// Which listener could not be opened.
    pub fn open(config: TransportConfig) -> Result<Self, BindError> {
        let fail = |protocol, address| move |source| BindError { protocol, address, source };
        let listen = |address| {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let udp = config.udp.map(|address| {
            let open = || {
                let socket = UdpSocket::bind(address)?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            };
            open().map_err(fail("udp", address))
        });
        let tcp = config.tcp.map(|address| listen(address).map_err(fail("tcp", address)));
        let tls = config.tls.map(|(address, settings)| {
            listen(address).map(|listener| (listener, settings)).map_err(fail("tls", address))
        });
        Ok(Self { udp: udp.transpose()?, tcp: tcp.transpose()?, tls: tls.transpose()?, tls_client: config.tls_client })
    }

    /// Address of the UDP socket, with the port it was given.
    #[must_use]
    pub fn udp_address(&self) -> Option<SocketAddr> {
        self.udp.as_ref()?.local_addr().ok()
    }

    /// Address of the TCP listener.
    #[must_use]
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref()?.local_addr().ok()
    }

    /// Address of the TLS listener.
    #[must_use]
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls.as_ref()?.0.local_addr().ok()
    }
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
