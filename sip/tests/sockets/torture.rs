//! The same 49 messages over the real transports: a SIP thread on loopback, and a socket of our own for each message.

use super::{Answers, MESSAGES, NOW, config, read};
use bytes::Bytes;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use schema::entropy::Entropy;
use schema::time::{Clock, Mono, Now, Timestamp};
use sip::core::Core;
use sip::guard::{GuardLimits, Network};
use sip::message::Message;
use sip::transport::{Bound, Seam, SipThread, TransportConfig, TransportLimits, tls};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// Behind these nothing more can be found in a stream, so it is closed: their Content-Length cannot be believed, there is none, the
/// start line is none, or, behind the two requests of `dblreq`, there is a byte more than the second one says.
const CLOSED: [&str; 5] = ["ncl", "mcl01", "inv2543", "bigcode", "dblreq"];
/// Its body is shorter than it says: a stream waits for the rest.
const WAITS: &str = "clerr";
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// So long nothing comes where nothing is to come.
const SILENCE: Duration = Duration::from_millis(200);
/// The Call-ID of the request that is sent behind each message.
const LAST: &str = "last";

fn any_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn clock() -> Clock {
    let start = Instant::now();
    Arc::new(move || {
        let micros = u64::try_from(start.elapsed().as_micros()).expect("a short test");
        let wall = NOW.wall.0 + i64::try_from(micros).expect("a short test");
        Now { mono: Mono(NOW.mono.0 + micros), wall: Timestamp(wall) }
    })
}

/// The SIP thread as the server runs it; nobody is told anything, since no message gets past its challenge.
struct Server {
    thread: SipThread,
    udp: SocketAddr,
    tcp: SocketAddr,
    tls: SocketAddr,
    certificate: CertificateDer<'static>,
    _commands: (mpsc::Sender<schema::leg::LegCommand>, mpsc::Sender<schema::edge::EdgeCommand>),
}

impl Server {
    fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let certificate = made.cert.der().clone();
        let settings = tls::server_config(vec![certificate.clone()], key).expect("they fit");
        let bound = Bound::open(TransportConfig {
            udp: Some(any_port()),
            tcp: Some(any_port()),
            tls: Some((any_port(), settings)),
            ..TransportConfig::default()
        })
        .expect("free ports");
        let at = |address: Option<SocketAddr>| address.expect("bound");
        let (udp, tcp, tls) = (at(bound.udp_address()), at(bound.tcp_address()), at(bound.tls_address()));
        let exempt: Arc<[Network]> = [Network::LOOPBACK_V4].into();
        let limits = TransportLimits { exempt: Arc::clone(&exempt), ..TransportLimits::default() };
        let config = sip::core::CoreConfig { guard: GuardLimits { exempt, ..GuardLimits::default() }, ..config() };
        let core = Core::new(config, Entropy::from_number(1)).expect("a realm");
        let ((leg_commands, legs), (edge_commands, edge)) = (mpsc::channel(1), mpsc::channel(1));
        let seam = Seam {
            legs,
            edge,
            on_leg: Box::new(|told| panic!("{told:?}")),
            on_edge: Box::new(|told| panic!("{told:?}")),
        };
        let thread =
            SipThread::start(bound, limits, core, Entropy::from_number(2), clock(), seam).expect("a SIP thread");
        Self { thread, udp, tcp, tls, certificate, _commands: (leg_commands, edge_commands) }
    }

    /// The thread lives, and keeps nothing of what it answered.
    fn ended_clean(self) {
        let counts = self.thread.core_counts();
        assert_eq!((counts.server_transactions, counts.legs, counts.dialogs, counts.lookups), (0, 0, 0, 0));
        self.thread.stop().expect("no message made it panic");
    }
}

/// A request that is answered 200: what is answered before it was answered to what was sent before it.
fn last(number: u32) -> String {
    format!(
        "OPTIONS sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1;rport;branch=z9hG4bKlast{number}\r\n\
         From: <sip:a@example.com>;tag=1\r\nTo: <sip:example.com>\r\nCall-ID: {LAST}\r\nCSeq: {number} OPTIONS\r\n\
         Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    )
}

/// The status of an answer, and whether it is that of this last request. Answers to broken messages copy what came as it came
/// (D31), so they are no more messages to us than those were.
fn status(answer: &str, number: u32) -> (u16, bool) {
    let status = answer.strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let is_last = answer.contains(&format!("\r\nCall-ID: {LAST}\r\nCSeq: {number} OPTIONS\r\n"));
    (status.unwrap_or_else(|| panic!("no answer: {answer:?}")), is_last)
}

fn compare(over: &str, seen: Vec<(&'static str, Vec<u16>, bool)>, expected: impl Fn(usize) -> (Answers, bool)) {
    let mut wrong = Vec::new();
    for (at, (name, mut answers, closed)) in seen.into_iter().enumerate() {
        let (statuses, closes) = expected(at);
        let mut statuses = statuses.to_vec();
        statuses.sort_unstable();
        answers.sort_unstable();
        if answers != statuses || closed != closes {
            wrong.push(format!("{name} over {over}: {answers:?}, closed {closed}; expected {statuses:?}, {closes}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A socket where the answer will come: at the port that the top Via names (RFC 3261 §18.2.2), on an address of loopback that is
/// this test's own; wherever it comes from when there is no such port.
async fn socket_for(message: &Bytes) -> UdpSocket {
    let own = Ipv4Addr::from(0x7f40_0000 | std::process::id() & 0x003f_ffff);
    let port = match Message::parse_datagram(message) {
        Ok(request) if request.is_request() => request.sent_by().1.unwrap_or(5060),
        _ => 0,
    };
    UdpSocket::bind((own, port)).await.expect("a port")
}

#[tokio::test]
async fn all_49_messages_are_answered_over_udp_sockets() {
    let server = Server::start();
    let mut seen = Vec::new();
    for &(_, name, ..) in MESSAGES {
        let message = read(name);
        let socket = socket_for(&message).await;
        socket.connect(server.udp).await.expect("loopback");
        socket.send(&message).await.expect("sent");
        let (mut answers, mut buffer) = (Vec::new(), vec![0; 65_536]);
        // Datagrams read together are served by kinds: behind the second one nothing of the first can be left.
        for number in 1..=2 {
            socket.send(last(number).as_bytes()).await.expect("sent");
            loop {
                let length = timeout(PATIENCE, socket.recv(&mut buffer)).await.expect("in time").expect("open");
                match status(&String::from_utf8_lossy(&buffer[..length]), number) {
                    (200, true) => break,
                    (status, _) => answers.push(status),
                }
            }
        }
        seen.push((name, answers, false));
    }
    compare("UDP", seen, |at| (MESSAGES[at].2, false));
    server.ended_clean();
}

/// A stream and what it said that was not looked at yet.
struct Stream<S> {
    stream: S,
    said: String,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream<S> {
    const fn new(stream: S) -> Self {
        Self { stream, said: String::new() }
    }

    /// The next answer, none of which has a body; nothing when the stream ended.
    async fn next(&mut self) -> Option<String> {
        let mut buffer = [0; 4_096];
        loop {
            if let Some((answer, rest)) = self.said.split_once("\r\n\r\n") {
                let (answer, rest) = (format!("{answer}\r\n"), rest.to_owned());
                self.said = rest;
                return Some(answer);
            }
            match self.stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(length) => self.said += &String::from_utf8_lossy(&buffer[..length]),
            }
        }
    }

    async fn send(&mut self, bytes: &[u8], segment: usize) {
        for part in bytes.chunks(segment) {
            // The server may have closed already.
            if self.stream.write_all(part).await.is_err() || self.stream.flush().await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Sends a message and the last request; what is answered before that, and whether the stream ended instead.
    async fn to(mut self, name: &str, segment: usize, expected: usize) -> (Vec<u16>, bool) {
        let bytes = read(name);
        self.send(&bytes, segment).await;
        let mut answers = Vec::new();
        if name == WAITS {
            assert!(timeout(SILENCE, self.next()).await.is_err(), "{name}: it waits for the rest of the body");
            let head = bytes.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 4;
            self.send(&vec![b'x'; 9_999 - (bytes.len() - head)], 4_096).await;
            let whole = timeout(PATIENCE, self.next()).await.expect("in time").expect("an answer");
            assert_eq!(status(&whole, 1).0, 407, "{name} is valid with the rest of its body");
        }
        while answers.len() < expected
            && let Some(answer) = timeout(PATIENCE, self.next()).await.expect("an answer or the end")
        {
            answers.push(status(&answer, 0).0);
        }
        // Requests read together are served by kinds: behind the second last one nothing else can be left.
        for number in 1..=2 {
            self.send(last(number).as_bytes(), segment).await;
            loop {
                let Some(answer) = timeout(PATIENCE, self.next()).await.expect("an answer or the end") else {
                    return (answers, true);
                };
                match status(&answer, number) {
                    (200, true) => break,
                    (status, _) => answers.push(status),
                }
            }
        }
        (answers, false)
    }
}

fn expected(at: usize) -> (Answers, bool) {
    let (_, name, datagram, stream, _) = MESSAGES[at];
    (stream.unwrap_or(datagram), CLOSED.contains(&name))
}

#[tokio::test]
async fn all_49_messages_are_answered_over_tcp_sockets() {
    let server = Server::start();
    for segment in [usize::MAX, 7] {
        let mut seen = Vec::new();
        for (at, &(_, name, ..)) in MESSAGES.iter().enumerate() {
            let stream = TcpStream::connect(server.tcp).await.expect("connected");
            stream.set_nodelay(true).expect("set");
            let (answers, closed) = Stream::new(stream).to(name, segment, expected(at).0.len()).await;
            seen.push((name, answers, closed));
        }
        compare("TCP", seen, expected);
    }
    server.ended_clean();
}

#[tokio::test]
async fn all_49_messages_are_answered_over_tls_sockets() {
    let server = Server::start();
    let config = tls::client_config(vec![server.certificate.clone()]).expect("a root");
    let connector = tokio_rustls::TlsConnector::from(config);
    for segment in [usize::MAX, 7] {
        let mut seen = Vec::new();
        for (at, &(_, name, ..)) in MESSAGES.iter().enumerate() {
            let stream = TcpStream::connect(server.tls).await.expect("connected");
            stream.set_nodelay(true).expect("set");
            let stream = connector.connect(server.tls.ip().into(), stream).await.expect("a handshake");
            let (answers, closed) = Stream::new(stream).to(name, segment, expected(at).0.len()).await;
            seen.push((name, answers, closed));
        }
        compare("TLS", seen, expected);
    }
    server.ended_clean();
}
