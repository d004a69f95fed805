//! HTTP and HTTPS: one loop that takes connections, each with a share for its network and a time in which it must ask for
//! something. A peer that is silent or slow delays nobody.

mod room;
mod stream;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use metrics::counter;
use room::{Full, Number, Room};
use rustls::ServerConfig;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use stream::Kept;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// Rest after a failed accept (out of file descriptors).
const PAUSE: Duration = Duration::from_millis(50);
/// Between two questions over HTTP/2 whether the client is there, while it waits for something; and for its answer.
const PING: Duration = Duration::from_secs(20);
/// Requests under way on one HTTP/2 connection.
const STREAMS: u32 = 100;
/// What an HTTP/2 client may send ahead for one request, and for all of a connection, in bytes; a request has 64 KB at most.
const WINDOWS: (u32, u32) = (64 * 1024, 128 * 1024);
/// Longest head of a request over HTTP/1, in bytes.
const HEAD_BYTES: usize = 32 * 1024;

/// What peers may take.
#[derive(Clone)]
pub(crate) struct Limits {
    /// Connections together. Beyond it the oldest one that has not asked for anything makes room.
    pub(crate) total: usize,
    /// Connections of one network: an IPv4 address or an IPv6 /64. Customers may share one (CGNAT).
    pub(crate) share: usize,
    /// For the TLS handshake and the first request's head, and for the head of each further one. It ends idle connections
    /// over HTTP/1.
    pub(crate) head: Duration,
    /// Nothing passes for so long: the connection ends. Longer than proxies keep their idle ones (60 s), which otherwise send
    /// a request over one that is just being closed.
    pub(crate) idle: Duration,
    /// Who has no share and, being a proxy, idle connections over HTTP/1 for `idle`.
    pub(crate) exempt: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
}

impl Default for Limits {
    fn default() -> Self {
        let (head, idle) = (Duration::from_secs(10), Duration::from_secs(75));
        Self { total: 8_192, share: 256, head, idle, exempt: Arc::new(|_| false) }
    }
}

/// Serves a router, over TLS where there is a certificate, until it is dropped; connections go on then. Handlers find the peer's
/// address as `ConnectInfo<SocketAddr>`.
pub(crate) async fn serve(listener: TcpListener, tls: Option<Arc<ServerConfig>>, limits: Limits, router: Router) {
    let places = Arc::new(Places::new(&limits));
    let (tls, router) = (tls.map(TlsAcceptor::from), TowerToHyperService::new(router));
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            counter!("ringfence_http_failed_accepts_total").increment(1);
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let address = peer.ip().to_canonical();
        let is_exempt = (limits.exempt)(address);
        let Some(place) = places.take((!is_exempt).then(|| graphql::network(address))) else { continue };
        let head = if is_exempt { limits.idle } else { limits.head };
        let connection = Connection { peer, router: router.clone(), place: Arc::new(place), head, idle: limits.idle };
        tokio::spawn(connection.run(stream, tls.clone()));
    }
}

/// Who holds which place; beside the pure table, how to tell a connection that it makes room.
struct Places(Mutex<(Room, BTreeMap<Number, Arc<Notify>>)>);

impl Places {
    fn new(limits: &Limits) -> Self {
        Self(Mutex::new((Room::new(limits.total, limits.share), BTreeMap::new())))
    }

    fn lock(&self) -> MutexGuard<'_, (Room, BTreeMap<Number, Arc<Notify>>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(self: &Arc<Self>, network: Option<IpAddr>) -> Option<Place> {
        let count = |why: &'static str| counter!("ringfence_http_connections_shed_total", "reason" => why).increment(1);
        let (room, ends) = &mut *self.lock();
        let taken = match room.accept(network) {
            Ok(taken) => taken,
            Err(Full::Share) => {
                count("share");
                return None;
            }
            Err(Full::Total) => {
                count("total");
                return None;
            }
        };
        if let Some(end) = taken.instead_of.and_then(|number| ends.remove(&number)) {
            count("stranger");
            end.notify_one();
        }
        let end = Arc::new(Notify::new());
        ends.insert(taken.number, end.clone());
        Some(Place { places: self.clone(), number: taken.number, end })
    }
}

/// A connection's place, until it is dropped.
struct Place {
    places: Arc<Places>,
    number: Number,
    end: Arc<Notify>,
}

impl Place {
    fn served(&self) {
        self.places.lock().0.served(self.number);
    }

    /// Returns when the connection makes room, or has asked for nothing in this time.
    async fn lost(&self, head: Duration) {
        let is_in_time = timeout(head, self.end.notified()).await.is_err();
        if is_in_time && !self.places.lock().0.is_stranger(self.number) {
            std::future::pending().await
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (room, ends) = &mut *self.places.lock();
        room.remove(self.number);
        ends.remove(&self.number);
    }
}

/// One connection.
struct Connection {
    peer: SocketAddr,
    router: TowerToHyperService<Router>,
    place: Arc<Place>,
    head: Duration,
    idle: Duration,
}

impl Connection {
    async fn run(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        let (place, head) = (self.place.clone(), self.head);
        let served = async {
            match tls {
                None => self.serve(stream).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        self.serve(stream).await;
                    }
                }
            }
        };
        tokio::select! {
            () = served => {}
            () = place.lost(head) => {}
        }
    }

    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let Self { peer, router, place, head, idle } = self;
        let stream = Kept::new(stream, idle, place.clone());
        let service = service_fn(move |mut request: Request<hyper::body::Incoming>| {
            place.served();
            request.extensions_mut().insert(ConnectInfo(peer));
            router.call(request)
        });
        let mut http = Builder::new(TokioExecutor::new());
        http.http1().timer(TokioTimer::new()).header_read_timeout(head).max_buf_size(HEAD_BYTES);
        http.http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .enable_connect_protocol(); // WebSockets over HTTP/2 (RFC 8441)
        // What ends it is the peer's affair.
        let _ = http.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::{Certificate, self_signed};
    use axum::extract::ws::{WebSocket, WebSocketUpgrade};
    use axum::routing::get;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, ServerName};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::{Instant, sleep};
    use tokio_rustls::TlsConnector;

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    const UPGRADE: &[u8] = b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    async fn echo(mut socket: WebSocket) {
        while let Some(Ok(message)) = socket.recv().await {
            if socket.send(message).await.is_err() {
                return;
            }
        }
    }

    /// Serves; a request for `/` is told its address.
    async fn start(limits: Limits, tls: Option<Arc<ServerConfig>>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new()
            .route("/", get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() }))
            .route("/ws", get(|upgrade: WebSocketUpgrade| async { upgrade.on_upgrade(echo) }));
        tokio::spawn(serve(listener, tls, limits, router));
        address
    }

    async fn connect(address: SocketAddr) -> TcpStream {
        TcpStream::connect(address).await.expect("a connection")
    }

    /// What is read until these bytes have come; an error when the connection ends or nothing comes for 5 s.
    async fn until(stream: &mut (impl AsyncRead + Unpin), wanted: &[u8]) -> Result<(), Vec<u8>> {
        let mut read = Vec::new();
        while !read.windows(wanted.len()).any(|w| w == wanted) {
            let more = timeout(Duration::from_secs(5), stream.read_buf(&mut read)).await;
            if !more.is_ok_and(|more| more.is_ok_and(|n| n > 0)) {
                return Err(read);
            }
        }
        Ok(())
    }

    /// Asks for `/` and is told `told`.
    async fn is_served(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), told: SocketAddr) -> bool {
        let _ = stream.write_all(GET).await;
        until(stream, told.to_string().as_bytes()).await.is_ok()
    }

    /// A place that was taken is given back: one connection after the other is tried.
    async fn is_soon_served(address: SocketAddr) {
        let served = async {
            loop {
                let mut stream = connect(address).await;
                let own = stream.local_addr().expect("an address");
                if is_served(&mut stream, own).await {
                    return;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(5), served).await.expect("given back");
    }

    /// How long the server leaves a connection open on which nothing more is sent; at most 5 s.
    async fn stays_open(stream: &mut TcpStream) -> Duration {
        let (begun, mut bytes) = (Instant::now(), Vec::new());
        let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut bytes)).await;
        begun.elapsed()
    }

    fn free() -> Limits {
        Limits { total: 20, exempt: Arc::new(|_| true), ..Limits::default() }
    }

    fn strict() -> Limits {
        Limits { head: Duration::from_millis(400), ..Limits::default() }
    }

    #[tokio::test]
    async fn silent_peers_keep_nobody_out() {
        let address = start(free(), None).await;
        let mut known = connect(address).await;
        let own = known.local_addr().expect("an address");
        assert!(is_served(&mut known, own).await);
        let mut silent = Vec::new();
        for _ in 0..60 {
            silent.push(connect(address).await);
        }
        let mut late = connect(address).await;
        let own_late = late.local_addr().expect("an address");
        assert!(is_served(&mut late, own_late).await, "the oldest of them make room");
        assert!(stays_open(&mut silent[0]).await < Duration::from_secs(1));
        assert!(is_served(&mut known, own).await, "whoever asked for something stays");
    }

    #[tokio::test]
    async fn silent_peers_keep_nobody_out_of_tls() {
        let folder = tempfile::tempdir().expect("a folder");
        let (cert, key) = self_signed(folder.path(), "localhost").expect("a certificate");
        let config = Certificate::read(&cert, &key).expect("usable").server_config().expect("usable");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&cert).expect("readable")).expect("usable");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let client = client.expect("versions").with_root_certificates(roots).with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(client));
        let address = start(free(), Some(config)).await;
        let mut silent = Vec::new();
        for _ in 0..60 {
            silent.push(connect(address).await);
        }
        for _ in 0..3 {
            let stream = connect(address).await;
            let own = stream.local_addr().expect("an address");
            let name = ServerName::try_from("localhost").expect("a name");
            let mut stream = connector.connect(name, stream).await.expect("a handshake");
            assert!(is_served(&mut stream, own).await);
        }
        assert!(stays_open(&mut silent[0]).await < Duration::from_secs(1));
    }

    #[tokio::test]
    async fn whoever_asks_for_nothing_in_time_is_cut() {
        let address = start(strict(), None).await;
        let allowed = Duration::from_millis(300)..Duration::from_secs(3);
        let (mut silent, mut slow, mut idle) = (connect(address).await, connect(address).await, connect(address).await);
        let own = idle.local_addr().expect("an address");
        assert!(is_served(&mut idle, own).await);
        let begun = Instant::now();
        for byte in GET.iter().take(GET.len() - 2).cycle() {
            if slow.write_all(&[*byte]).await.is_err() || begun.elapsed() > Duration::from_secs(5) {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        assert!(allowed.contains(&begun.elapsed()), "a slow head: {:?}", begun.elapsed());
        assert!(stays_open(&mut silent).await < Duration::from_secs(1), "cut meanwhile");
        assert!(stays_open(&mut idle).await < Duration::from_secs(1), "cut meanwhile");
        let mut preface = connect(address).await;
        preface.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("sent");
        let open = stays_open(&mut preface).await;
        assert!(allowed.contains(&open), "HTTP/2 without a request: {open:?}");
    }

    #[tokio::test]
    async fn one_address_has_a_share() {
        let address = start(Limits { share: 2, ..Limits::default() }, None).await;
        let (first, mut second, mut third) = (connect(address).await, connect(address).await, connect(address).await);
        let own = second.local_addr().expect("an address");
        assert!(is_served(&mut second, own).await);
        assert!(stays_open(&mut third).await < Duration::from_secs(1), "one too many");
        drop(first);
        is_soon_served(address).await;
    }

    #[tokio::test]
    async fn a_websocket_stays_and_keeps_its_place_until_nothing_passes() {
        let address = start(Limits { share: 1, idle: Duration::from_millis(1_500), ..strict() }, None).await;
        let mut socket = connect(address).await;
        socket.write_all(UPGRADE).await.expect("sent");
        until(&mut socket, b"101 Switching Protocols").await.expect("upgraded");
        for _ in 0..4 {
            sleep(Duration::from_millis(500)).await;
            // A text of two bytes under the mask 0.
            socket.write_all(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']).await.expect("sent");
            until(&mut socket, b"\x81\x02hi").await.expect("it lasts longer than a head may take, and than silence");
        }
        assert!(stays_open(&mut connect(address).await).await < Duration::from_secs(1), "its place is taken");
        let open = stays_open(&mut socket).await;
        assert!((Duration::from_secs(1)..Duration::from_secs(4)).contains(&open), "silence: {open:?}");
        is_soon_served(address).await;
    }

    #[tokio::test]
    async fn http_2_is_served() {
        let address = start(strict(), None).await;
        let mut stream = connect(address).await;
        let own = stream.local_addr().expect("an address");
        // The preface, no settings, and on stream 1 the head `GET http://localhost/` (RFC 7541 indexes, no Huffman codes).
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        bytes.extend(b"\0\0\x0e\x01\x05\0\0\0\x01\x82\x86\x84\x41\x09localhost");
        stream.write_all(&bytes).await.expect("sent");
        until(&mut stream, own.to_string().as_bytes()).await.expect("the body tells its address");
        sleep(Duration::from_millis(800)).await;
        // Later, on stream 3.
        stream.write_all(b"\0\0\x03\x01\x05\0\0\0\x03\x82\x86\x84").await.expect("sent");
        until(&mut stream, own.to_string().as_bytes())
            .await
            .expect("a connection with requests outlives the head's time");
    }
}
