//! HTTPS: a listener whose handshakes run beside each other, so that a silent peer delays nobody.

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request};
use axum::serve::IncomingStream;
use rustls::ServerConfig;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Longest handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Most handshakes at a time.
const HANDSHAKES: usize = 256;
/// Rest after a failed accept (out of file descriptors).
const PAUSE: Duration = Duration::from_millis(50);

/// Serves a router over TLS; its handlers see the peer's address as over plain TCP.
pub(crate) async fn serve(listener: TcpListener, config: Arc<ServerConfig>, router: Router) -> io::Result<()> {
    let router = router.layer(axum::middleware::map_request(|mut request: Request| async move {
        if let Some(ConnectInfo(Peer(address))) = request.extensions().get::<ConnectInfo<Peer>>().copied() {
            request.extensions_mut().insert(ConnectInfo(address));
        }
        request
    }));
    axum::serve(Tls::new(listener, config), router.into_make_service_with_connect_info::<Peer>()).await
}

#[derive(Clone, Copy)]
struct Peer(SocketAddr);

impl Connected<IncomingStream<'_, Tls>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Tls>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// TLS connections, their handshake done.
struct Tls {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: io::Result<SocketAddr>,
}

impl Tls {
    /// Accepts on this listener with this certificate.
    fn new(listener: TcpListener, config: Arc<ServerConfig>) -> Self {
        let (sender, ready) = mpsc::channel(HANDSHAKES);
        let address = listener.local_addr();
        tokio::spawn(accept(listener, TlsAcceptor::from(config), sender));
        Self { ready, address }
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, ready: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    while !ready.is_closed() {
        let Ok(permit) = handshakes.clone().acquire_owned().await else { return };
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (acceptor, ready) = (acceptor.clone(), ready.clone());
        tokio::spawn(async move {
            let _permit = permit;
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                let _ = ready.send((stream, peer)).await;
            }
        });
    }
}

impl axum::serve::Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.address {
            Ok(address) => Ok(*address),
            Err(error) => Err(error.kind().into()),
        }
    }
}
