//! Sockets on loopback against a server that answers every request 200.

use super::wire::{Arrival, Wire};
use super::*;
use crate::flow::{Destination, Flow, PeerName, Protocol, Standing, Unreached};
use crate::message::{Method, NameAddr, RequestBuilder, ResponseBuilder, Transport, Uri, Via};
use bytes::Bytes;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use schema::entropy::Entropy;
use schema::target::HostName;
use schema::time::Mono;
use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn request(number: u32, body: usize) -> Bytes {
    let uri = Uri::sip(None, "127.0.0.1", None).expect("a URI");
    let via = Via::new(Transport::Tcp, "127.0.0.1", None, &format!("z9hG4bK{number}")).expect("a Via");
    let from = NameAddr::new(uri.clone()).with_tag("f").expect("a tag");
    RequestBuilder::new(Method::Message, uri.clone())
        .via(&via)
        .from(&from)
        .to(&NameAddr::new(uri))
        .call_id("c")
        .cseq(number)
        .body("text/plain", vec![b'x'; body].into())
        .build()
        .expect("built")
}

/// Nothing is taken from there.
const BANNED: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 9));

/// Whoever comes from 127.1 is a stranger.
const STRANGE: u8 = 1;

/// A request with this number is not answered.
const NEVER: u32 = 7_777;

struct Server {
    udp: SocketAddr,
    tcp: SocketAddr,
    tls: SocketAddr,
    v6: ListenersV6,
    counts: Arc<TransportCounts>,
    orders: mpsc::Sender<(Destination, Bytes)>,
    unreachable: mpsc::Receiver<(Destination, Unreached)>,
    disconnected: mpsc::Receiver<Destination>,
    closed: mpsc::Receiver<Flow>,
    /// Flows and CSeq numbers of answers to what it has sent.
    heard: mpsc::Receiver<(Flow, u32)>,
    certificate: CertificateDer<'static>,
    _task: tokio::task::JoinHandle<()>,
}

/// Names by their numbers; the certificate is for the first one.
const NAMES: [&str; 2] = ["sip.example.com", "other.example.com"];

fn name_of(to: Destination) -> Option<HostName> {
    let text = NAMES.get(usize::try_from(to.name?.0).ok()?)?;
    HostName::parse(text).ok()
}

fn settings() -> (CertificateDer<'static>, Arc<rustls::ServerConfig>) {
    let made =
        rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned(), NAMES[0].to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let certificate = made.cert.der().clone();
    (certificate.clone(), tls::server_config(vec![certificate], key).expect("they fit"))
}

impl Server {
    /// `size` is that of the answers' bodies.
    fn start(limits: TransportLimits, size: usize) -> Self {
        Self::start_at(any_port(), limits, size)
    }

    fn start_at(address: SocketAddr, limits: TransportLimits, size: usize) -> Self {
        let (certificate, server) = settings();
        let local = Some((std::net::Ipv6Addr::LOCALHOST, 0).into());
        let config = TransportConfig {
            udp: Some(address),
            tcp: Some(address),
            tls: Some((address, server)),
            v6: ListenersV6 { udp: local, tcp: local, tls: local },
            tls_client: Some(tls::client_config(vec![certificate.clone()]).expect("a root")),
        };
        let bound = Bound::open(config).expect("free ports");
        let (udp, tcp, tls, v6) = (bound.udp_address(), bound.tcp_address(), bound.tls_address(), bound.v6_addresses());
        let counts = Arc::new(TransportCounts::default());
        let (orders, mut ordered) = mpsc::channel(8);
        let (lost, unreachable) = mpsc::channel(8);
        let (over, disconnected) = mpsc::channel(8);
        let (ends, closed) = mpsc::channel(8);
        let (hears, heard) = mpsc::channel(8);
        let mut wire = Wire::new(bound, limits, Entropy::from_number(1), Arc::clone(&counts)).expect("registered");
        let task = tokio::spawn(async move {
            let (mut arrivals, began) = (Vec::new(), Instant::now());
            let standing = |_, peer: SocketAddr| {
                let now = u64::try_from(began.elapsed().as_micros()).unwrap_or(0);
                let stands = match peer.ip() {
                    BANNED => Standing::Banned,
                    std::net::IpAddr::V4(ip) if ip.octets()[1] == STRANGE => Standing::Stranger,
                    _ => Standing::Known,
                };
                (stands, Mono(now))
            };
            loop {
                tokio::select! {
                    () = wire.arrivals(&mut arrivals, &standing) => drop(wire.datagrams(&mut arrivals, &mut |_, _| false)),
                    order = ordered.recv() => match order {
                        Some((to, bytes)) => wire.send_to(to, name_of(to).as_ref(), bytes),
                        None => return,
                    },
                }
                for arrival in arrivals.drain(..) {
                    match arrival {
                        Arrival::Message(flow, message) if message.is_request() && message.cseq().0 != NEVER => {
                            let answer = ResponseBuilder::to_request(&message, 200, Some("t"));
                            let answer = answer.body("text/plain", vec![b'y'; size].into()).build().expect("built");
                            wire.send(flow, answer);
                        }
                        Arrival::Message(flow, message) if !message.is_request() => {
                            let _ = hears.try_send((flow, message.cseq().0));
                        }
                        Arrival::Message(..) => {}
                        Arrival::Refused(flow, error) => wire.refuse(flow, &error),
                        Arrival::Closed(flow) => drop(ends.try_send(flow)),
                        Arrival::Disconnected(_, destination) => drop(over.try_send(destination)),
                        Arrival::Unreachable(destination, why) => drop(lost.try_send((destination, why))),
                    }
                }
                wire.leave();
            }
        });
        let bound = |address: Option<SocketAddr>| address.expect("bound");
        let (udp, tcp, tls) = (bound(udp), bound(tcp), bound(tls));
        Self { udp, tcp, tls, v6, counts, orders, unreachable, disconnected, closed, heard, certificate, _task: task }
    }

    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.tcp).await.expect("connected")
    }
}

/// A phone's connection over TLS, to the server that its certificate names.
async fn secured(server: &Server, to: SocketAddr) -> tokio_rustls::client::TlsStream<TcpStream> {
    let config = tls::client_config(vec![server.certificate.clone()]).expect("a root");
    let stream = TcpStream::connect(to).await.expect("connected");
    let name = rustls::pki_types::ServerName::try_from(NAMES[0]).expect("a name");
    tokio_rustls::TlsConnector::from(config).connect(name, stream).await.expect("a handshake")
}

/// Reads until so many answers with an empty body have come.
async fn answers<S: AsyncReadExt + Unpin>(stream: &mut S, wanted: usize) -> String {
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    while text.matches("\r\n\r\n").count() < wanted {
        let read = timeout(Duration::from_secs(5), stream.read(&mut buffer)).await.expect("in time").expect("open");
        assert_ne!(read, 0, "closed after {text}");
        text.push_str(std::str::from_utf8(&buffer[..read]).expect("text"));
    }
    text
}

/// How long until the server closes.
async fn closed_after(stream: &mut TcpStream) -> Duration {
    let (start, mut buffer) = (Instant::now(), [0; 4096]);
    loop {
        match timeout(Duration::from_secs(10), stream.read(&mut buffer)).await.expect("in time") {
            Ok(0) | Err(_) => return start.elapsed(),
            Ok(_) => {}
        }
    }
}

#[tokio::test]
async fn a_datagram_is_answered_and_garbage_is_not() {
    let server = Server::start(TransportLimits::default(), 0);
    let socket = tokio::net::UdpSocket::bind(any_port()).await.expect("a port");
    for datagram in [&b"\r\n\r\n"[..], b"garbage", &[0; 100], &request(1, 0)] {
        socket.send_to(datagram, server.udp).await.expect("sent");
    }
    let mut buffer = [0; 2048];
    let (length, _) =
        timeout(Duration::from_secs(5), socket.recv_from(&mut buffer)).await.expect("in time").expect("open");
    assert!(buffer[..length].starts_with(b"SIP/2.0 200 OK\r\n"));
    let broken = String::from_utf8(request(2, 0).to_vec()).expect("text").replace("CSeq: 2 MESSAGE", "CSeq: 2 BYE");
    socket.send_to(broken.as_bytes(), server.udp).await.expect("sent");
    let (length, _) =
        timeout(Duration::from_secs(5), socket.recv_from(&mut buffer)).await.expect("in time").expect("open");
    assert!(buffer[..length].starts_with(b"SIP/2.0 400 Bad Request\r\n"));
    assert_eq!((server.counts.datagrams.load(Relaxed), server.counts.refused.load(Relaxed)), (5, 3));
}

/// RFC 5626 §4.4.2: over the port, and between the messages, of SIP.
#[tokio::test]
async fn a_phone_over_udp_is_told_by_stun_that_its_flow_is_open() {
    let server = Server::start(TransportLimits::default(), 0);
    let socket = tokio::net::UdpSocket::bind(any_port()).await.expect("a port");
    let ping = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], b"transaction1"].concat();
    let indication = [&[0, 0x11, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], b"transaction2"].concat();
    let mut buffer = [0; 2048];
    for datagram in [&indication, &ping, &request(1, 0).to_vec()] {
        socket.send_to(datagram, server.udp).await.expect("sent");
    }
    let mut heard = Vec::new();
    for _ in 0..2 {
        let (length, from) =
            timeout(Duration::from_secs(5), socket.recv_from(&mut buffer)).await.expect("in time").expect("open");
        assert_eq!(from, server.udp);
        heard.push(buffer[..length].to_vec());
    }
    let port = socket.local_addr().expect("bound").port() ^ 0x2112;
    let mapped = [&[0, 0x20, 0, 8, 0, 1][..], &port.to_be_bytes(), &[127 ^ 0x21, 0x12, 0xa4, 1 ^ 0x42]].concat();
    let pong = [&[1, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42][..], b"transaction1", &mapped].concat();
    assert!(heard.contains(&pong) && heard.iter().any(|answer| answer.starts_with(b"SIP/2.0 200")), "{heard:?}");
    assert_eq!((server.counts.datagrams.load(Relaxed), server.counts.refused.load(Relaxed)), (3, 0));
}

#[tokio::test]
async fn segments_do_not_matter_on_a_stream() {
    let server = Server::start(TransportLimits::default(), 0);
    let mut stream = server.tcp().await;
    let all = [request(1, 30), Bytes::from_static(b"\r\n\r\n"), request(2, 0), request(3, 3)].concat();
    stream.write_all(&all).await.expect("sent");
    let text = answers(&mut stream, 3).await;
    assert!(text.find("CSeq: 1").zip(text.find("CSeq: 2")).is_some_and(|(one, two)| one < two));
    let is_pong = |before: &str| before == "\r\n" || before.ends_with("\r\n\r\n\r\n");
    assert!(text.split("SIP/2.0 200").any(is_pong) || text.ends_with("\r\n\r\n\r\n"), "a ping is answered: {text:?}");
    stream.set_nodelay(true).expect("set");
    for piece in all.chunks(7) {
        stream.write_all(piece).await.expect("sent");
    }
    assert_eq!(answers(&mut stream, 3).await.matches("200 OK").count(), 3);
}

#[tokio::test]
async fn a_stream_that_cannot_be_cut_is_answered_and_closed() {
    let server = Server::start(TransportLimits::default(), 0);
    let mut stream = server.tcp().await;
    let text =
        String::from_utf8(request(1, 0).to_vec()).expect("text").replace("Content-Length: 0", "Content-Length: -1");
    stream.write_all(text.as_bytes()).await.expect("sent");
    assert!(answers(&mut stream, 1).await.starts_with("SIP/2.0 400"));
    assert!(closed_after(&mut stream).await < Duration::from_secs(2));
    let mut garbage = server.tcp().await;
    garbage.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
    assert!(closed_after(&mut garbage).await < Duration::from_secs(2));
}

/// Good requests, one that loses the stream, and more behind it than a socket may be closed with.
#[tokio::test]
async fn what_was_read_before_a_stream_is_lost_is_answered_before_it_ends() {
    let server = Server::start(TransportLimits::default(), 0);
    let lost =
        String::from_utf8(request(3, 0).to_vec()).expect("text").replace("Content-Length: 0", "Content-Length: -1");
    for behind in [0, 100_000] {
        let mut stream = server.tcp().await;
        let all = [request(1, 30), request(2, 0), lost.clone().into(), vec![b'x'; behind].into()].concat();
        stream.write_all(&all).await.expect("sent");
        let mut text = String::new();
        timeout(Duration::from_millis(1_800), stream.read_to_string(&mut text))
            .await
            .expect("in time")
            .expect("not reset");
        let told: Vec<_> = text.split("SIP/2.0 ").skip(1).map(|answer| &answer[..3]).collect();
        assert_eq!(told.iter().filter(|status| **status == "200").count(), 2, "{text}");
        assert_eq!(told.iter().filter(|status| **status == "400").count(), 1, "{text}");
        // What it still sends does not reset it: on some systems that would take away what is not read yet.
        for _ in 0..2 {
            stream.write_all(b"more").await.expect("taken");
            sleep(Duration::from_millis(50)).await;
        }
        // It ends on our side too, whether the peer closes or not.
        timeout(Duration::from_secs(5), async {
            while server.counts.connections.load(Relaxed) > 0 {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("closed");
    }
}

/// What nobody answers is not waited for longer than a moment.
#[tokio::test]
async fn a_lost_stream_ends_though_a_request_on_it_is_never_answered() {
    let server = Server::start(TransportLimits::default(), 0);
    let mut stream = server.tcp().await;
    stream.write_all(&[request(NEVER, 0), "\r\n\r\n:\r\n\r\n".into()].concat()).await.expect("sent");
    let after = closed_after(&mut stream).await;
    assert!(after >= Duration::from_secs(1) && after < Duration::from_secs(4), "{after:?}");
}

#[tokio::test]
async fn silent_slow_and_idle_peers_are_closed() {
    let limits = TransportLimits {
        first_message: Duration::from_millis(300),
        idle: Duration::from_millis(600),
        handshake: Duration::from_millis(300),
        ..TransportLimits::default()
    };
    let server = Server::start(limits.clone(), 0);
    let began = Instant::now();
    let mut silent = server.tcp().await;
    let mut half_open = TcpStream::connect(server.tls).await.expect("connected");
    let mut idle = server.tcp().await;
    idle.write_all(&request(1, 0)).await.expect("sent");
    let mut slow = server.tcp().await;
    slow.write_all(&request(1, 0)).await.expect("sent");
    answers(&mut slow, 1).await;
    let slow = async {
        // One byte now and then never completes a message in time.
        for byte in &request(2, 0)[..] {
            if slow.write_all(&[*byte]).await.is_err() {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
        panic!("a byte-slow sender was not cut");
    };
    // Since before they were there, so that what the test itself takes shortens none of it.
    let closed_at = async |stream: &mut TcpStream| {
        closed_after(stream).await;
        began.elapsed()
    };
    let (silent, half_open, idle, ()) =
        tokio::join!(closed_at(&mut silent), closed_at(&mut half_open), closed_at(&mut idle), slow);
    let (short, long) = (limits.first_message, limits.idle);
    assert!(silent >= short && half_open >= short && idle >= long, "{silent:?} {half_open:?} {idle:?}");
    assert!(idle < Duration::from_secs(5));
}

#[tokio::test]
async fn keep_alives_hold_an_idle_connection() {
    let limits = TransportLimits { idle: Duration::from_millis(1_000), ..TransportLimits::default() };
    let server = Server::start(limits, 0);
    let mut stream = server.tcp().await;
    stream.write_all(&request(1, 0)).await.expect("sent");
    answers(&mut stream, 1).await;
    for _ in 0..5 {
        sleep(Duration::from_millis(300)).await;
        stream.write_all(b"\r\n\r\n").await.expect("open");
        let mut pong = [0; 2];
        stream.read_exact(&mut pong).await.expect("open");
        assert_eq!(&pong, b"\r\n");
    }
}

/// What a connection is answered until it ends, or nothing more comes.
async fn all_heard(stream: &mut TcpStream) -> (Vec<u8>, bool) {
    let (mut heard, mut buffer) = (Vec::new(), [0; 4_096]);
    loop {
        match timeout(Duration::from_millis(500), stream.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => return (heard, true),
            Ok(Ok(length)) => heard.extend_from_slice(&buffer[..length]),
            Err(_) => return (heard, false),
        }
    }
}

#[tokio::test]
async fn pings_that_come_together_get_one_pong_and_a_flood_of_them_ends_the_connection() {
    let server = Server::start(TransportLimits::default(), 0);
    let mut phone = server.tcp().await;
    for _ in 0..2 {
        phone.write_all(&b"\r\n\r\n".repeat(40)).await.expect("sent");
        let (heard, has_ended) = all_heard(&mut phone).await;
        // The kernel may have cut it.
        assert!((2..=8).contains(&heard.len()) && !has_ended, "{heard:?}");
    }
    phone.write_all(&[&b"\r\n\r\n"[..], &request(1, 0)].concat()).await.expect("sent");
    assert!(answers(&mut phone, 1).await.contains("200 OK"));
    let mut flood = server.tcp().await;
    flood.write_all(&b"\r\n\r\n".repeat(4_096)).await.expect("sent");
    let (heard, has_ended) = all_heard(&mut flood).await;
    assert!(heard.len() <= 8 && has_ended, "{heard:?}");
}

#[tokio::test]
async fn a_line_end_too_many_costs_nobody_its_connection() {
    let first_message = Duration::from_millis(300);
    let server = Server::start(TransportLimits { first_message, ..TransportLimits::default() }, 0);
    let mut stream = server.tcp().await;
    for number in 1..=2 {
        stream.write_all(&request(number, 0)).await.expect("open");
        stream.write_all(b"\r\n").await.expect("open");
        answers(&mut stream, 1).await;
        sleep(first_message * 3).await;
    }
    stream.write_all(&request(3, 0)).await.expect("open");
    answers(&mut stream, 1).await;
}

/// The server has a thread of its own, as in the program: what holds it up does not hold up the test, which asks no runtime.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_reader_too_slow_delays_nobody() {
    // Room for all answers: what ends the connection is that nothing more of them can be written.
    let limits =
        TransportLimits { write: Duration::from_secs(1), outbox_stranger: usize::MAX, ..TransportLimits::default() };
    let patience = limits.write / 2;
    let server = Server::start(limits, 60_000);
    let mut stuck = server.tcp().await;
    let socket = UdpSocket::bind(any_port()).expect("a port");
    socket.set_nonblocking(true).expect("set");
    let mut buffer = vec![0; 65_536];
    let flood: Vec<u8> = (0..400).flat_map(|number| request(number, 0)).collect();
    let write = tokio::spawn(async move {
        let _ = stuck.write_all(&flood).await;
        // Its end stays open: it is the server that closes.
        std::future::pending::<()>().await;
        drop(stuck);
    });
    // Their answers are too large for UDP, which is not the point: each probe must be handled at once, also when the slow reader
    // is given up.
    let (began, mut number) = (Instant::now(), 0);
    while number < 20 || server.counts.connections.load(Relaxed) > 0 {
        number += 1;
        let (start, before) = (Instant::now(), server.counts.datagrams.load(Relaxed));
        socket.send_to(&request(number, 0), server.udp).expect("sent");
        while server.counts.datagrams.load(Relaxed) == before {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(start.elapsed() < patience, "the SIP thread waits for a slow reader: {:?}", start.elapsed());
        assert!(began.elapsed() < Duration::from_secs(6), "a slow reader keeps its connection");
        while socket.recv_from(&mut buffer).is_ok() {}
        std::thread::sleep(Duration::from_millis(50));
    }
    write.abort();
}

#[tokio::test]
async fn one_address_has_a_limit_of_connections() {
    let server = Server::start(TransportLimits { per_address: 3, ..TransportLimits::default() }, 0);
    let mut kept = Vec::new();
    for _ in 0..3 {
        let mut stream = server.tcp().await;
        stream.write_all(&request(1, 0)).await.expect("sent");
        answers(&mut stream, 1).await;
        kept.push(stream);
    }
    assert!(closed_after(&mut server.tcp().await).await < Duration::from_secs(2), "those before may be signing in");
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    let mut extra = server.tcp().await;
    extra.write_all(&request(1, 0)).await.expect("sent");
    answers(&mut extra, 1).await;
    assert!(closed_after(&mut kept[0]).await < Duration::from_secs(2), "the oldest makes room");
    assert_eq!(server.counts.shed_connections.load(Relaxed), 2);
    assert_eq!(server.counts.connections.load(Relaxed), 3);
}

/// Whoever rings over it is not waited for.
#[tokio::test]
async fn a_connection_that_makes_room_is_told_to_be_over_at_once() {
    let mut server = Server::start(TransportLimits { connections: 2, ..TransportLimits::default() }, 0);
    let (mut first, second, third) = (server.tcp().await, server.tcp().await, server.tcp().await);
    let over = timeout(Duration::from_secs(1), server.closed.recv()).await.expect("told").expect("it runs");
    assert_eq!(over.peer, first.local_addr().expect("bound"));
    assert!(closed_after(&mut first).await < Duration::from_secs(2));
    drop((second, third));
    for _ in 0..2 {
        timeout(Duration::from_secs(1), server.closed.recv()).await.expect("told").expect("it runs");
    }
    assert!(server.closed.try_recv().is_err(), "each once");
}

#[tokio::test]
async fn a_banned_source_opens_no_connection() {
    let server = Server::start(TransportLimits::default(), 0);
    for to in [server.tcp, server.tls] {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind((BANNED, 0).into()).expect("loopback has many addresses");
        let mut banned = socket.connect(to).await.expect("connected");
        assert!(closed_after(&mut banned).await < Duration::from_secs(1));
    }
    assert_eq!(server.counts.shed_connections.load(Relaxed), 2);
    assert_eq!(server.counts.connections.load(Relaxed), 0);
}

#[tokio::test]
async fn tls_carries_the_same_messages_both_ways() {
    let mut server = Server::start(TransportLimits::default(), 0);
    let mut stream = secured(&server, server.tls).await;
    stream.write_all(&request(1, 0)).await.expect("sent");
    assert!(answers(&mut stream, 1).await.starts_with("SIP/2.0 200"));
    // The server opens a connection to itself: the request arrives and its answer comes back on the same connection.
    let before = server.counts.connections.load(Relaxed);
    server.orders.send((Destination::new(Protocol::Tls, server.tls), request(9, 0))).await.expect("taken");
    let heard = timeout(Duration::from_secs(5), server.heard.recv()).await.expect("an answer in time");
    let (flow, cseq) = heard.expect("it runs");
    assert_eq!((flow.protocol, flow.peer, cseq), (Protocol::Tls, server.tls, 9));
    assert_eq!(server.counts.connections.load(Relaxed), before + 2, "both ends of one connection");
}

#[tokio::test]
async fn a_carrier_is_believed_by_the_certificate_of_its_name_only() {
    let (mut server, other) =
        (Server::start(TransportLimits::default(), 0), Server::start(TransportLimits::default(), 0));
    let to = |address, name: Option<u32>| Destination {
        name: name.map(PeerName),
        ..Destination::new(Protocol::Tls, address)
    };
    let (named, unnamed, wrong) = (to(server.tls, Some(0)), to(server.tls, None), to(server.tls, Some(1)));
    for good in [named, unnamed, named] {
        server.orders.send((good, request(1, 0))).await.expect("taken");
    }
    let start = Instant::now();
    // Each connection has two ends here; what goes to the name and to the address shares none.
    while server.counts.connections.load(Relaxed) < 4 {
        assert!(start.elapsed() < Duration::from_secs(5), "no connections");
        sleep(Duration::from_millis(10)).await;
    }
    server.orders.send((wrong, request(2, 0))).await.expect("taken");
    let told = timeout(Duration::from_secs(5), server.unreachable.recv()).await.expect("in time");
    assert_eq!(told, Some((wrong, Unreached::WrongName)));
    let stranger = to(other.tls, Some(0));
    server.orders.send((stranger, request(3, 0))).await.expect("taken");
    let told = timeout(Duration::from_secs(5), server.unreachable.recv()).await.expect("in time");
    assert_eq!(told, Some((stranger, Unreached::Untrusted)));
    // A name that is not known any more fits no certificate.
    let forgotten = to(server.tls, Some(9));
    server.orders.send((forgotten, request(4, 0))).await.expect("taken");
    let told = timeout(Duration::from_secs(5), server.unreachable.recv()).await.expect("in time");
    assert_eq!(told, Some((forgotten, Unreached::NotTried)));
}

#[tokio::test]
async fn a_destination_that_refuses_is_told() {
    let mut server = Server::start(TransportLimits::default(), 0);
    let closed = std::net::TcpListener::bind(any_port()).expect("a port").local_addr().expect("bound");
    for protocol in [Protocol::Tcp, Protocol::Tls] {
        let to = Destination::new(protocol, closed);
        server.orders.send((to, request(1, 0))).await.expect("taken");
        let told = timeout(Duration::from_secs(6), server.unreachable.recv()).await.expect("in time");
        assert_eq!(told, Some((to, Unreached::NoConnection)));
    }
    // A plain peer never finishes the handshake: 5 s at most.
    let limits = TransportLimits { connect: Duration::from_millis(200), ..TransportLimits::default() };
    let mut hasty = Server::start(limits, 0);
    let mute = tokio::net::TcpListener::bind(any_port()).await.expect("a port");
    let to = Destination::new(Protocol::Tls, mute.local_addr().expect("bound"));
    hasty.orders.send((to, request(1, 0))).await.expect("taken");
    let told = timeout(Duration::from_secs(3), hasty.unreachable.recv()).await.expect("in time");
    assert_eq!(told, Some((to, Unreached::NoConnection)));
}

#[tokio::test]
async fn a_connection_of_ours_that_its_peer_ends_is_told_with_where_it_went() {
    let mut server = Server::start(TransportLimits::default(), 0);
    let peer = tokio::net::TcpListener::bind(any_port()).await.expect("a port");
    let to = Destination::new(Protocol::Tcp, peer.local_addr().expect("bound"));
    for _ in 0..2 {
        server.orders.send((to, request(1, 0))).await.expect("taken");
        let (mut stream, _) = timeout(Duration::from_secs(5), peer.accept()).await.expect("in time").expect("accepted");
        stream.read_exact(&mut [0; 7]).await.expect("the request");
        drop(stream);
        let told = timeout(Duration::from_secs(5), server.disconnected.recv()).await.expect("in time");
        assert_eq!(told, Some(to), "and the next request opens another one");
    }
}

/// A carrier may know us by our address, and a host may have several.
#[tokio::test]
async fn a_connection_of_ours_comes_from_the_address_that_we_listen_on() {
    let peer = tokio::net::TcpListener::bind(any_port()).await.expect("a port");
    for (ours, seen) in [([127, 0, 0, 2], [127, 0, 0, 2]), ([0; 4], [127, 0, 0, 1])] {
        let server = Server::start_at((ours, 0).into(), TransportLimits::default(), 0);
        for protocol in [Protocol::Tcp, Protocol::Tls] {
            let to = Destination::new(protocol, peer.local_addr().expect("bound"));
            server.orders.send((to, request(1, 0))).await.expect("taken");
            let (_, from) = timeout(Duration::from_secs(5), peer.accept()).await.expect("in time").expect("accepted");
            assert_eq!(from.ip(), std::net::IpAddr::from(seen));
        }
    }
}

/// TLS with the certificate of the other listener.
#[tokio::test]
async fn phones_on_ipv6_are_answered_over_udp_tcp_and_tls() {
    let server = Server::start(TransportLimits::default(), 0);
    let at = |address: Option<SocketAddr>| {
        let address = address.expect("bound");
        assert!(address.is_ipv6());
        address
    };
    let socket = tokio::net::UdpSocket::bind((std::net::Ipv6Addr::LOCALHOST, 0)).await.expect("a port");
    socket.send_to(&request(1, 0), at(server.v6.udp)).await.expect("sent");
    let mut buffer = [0; 2_048];
    timeout(Duration::from_secs(5), socket.recv(&mut buffer)).await.expect("in time").expect("open");
    assert!(buffer.starts_with(b"SIP/2.0 200"));
    let mut plain = TcpStream::connect(at(server.v6.tcp)).await.expect("connected");
    plain.write_all(&request(2, 0)).await.expect("sent");
    assert!(answers(&mut plain, 1).await.starts_with("SIP/2.0 200"));
    let mut secure = secured(&server, at(server.v6.tls)).await;
    secure.write_all(&request(3, 0)).await.expect("sent");
    assert!(answers(&mut secure, 1).await.starts_with("SIP/2.0 200"));
}

#[test]
fn a_port_taken_is_named() {
    let taken = UdpSocket::bind(any_port()).expect("a port");
    let address = taken.local_addr().expect("bound");
    let config = TransportConfig { udp: Some(address), ..TransportConfig::default() };
    let error = Bound::open(config).map(|_| ()).expect_err("it is taken").to_string();
    assert!(error.starts_with(&format!("cannot listen for SIP over udp on {address}: ")), "{error}");
}

/// Longest of a phone's round trips over UDP, and over TCP with a new connection each: so many, and as many more as fit into the
/// time until `is_over`.
async fn slowest_of(server: &Server, tries: u32, is_over: &Cell<bool>) -> (Duration, Duration) {
    let socket = tokio::net::UdpSocket::bind(any_port()).await.expect("a port");
    let (mut buffer, mut slowest, mut number) = ([0; 2048], (Duration::ZERO, Duration::ZERO), 0);
    while number < tries || !is_over.get() {
        number += 1;
        let start = Instant::now();
        socket.send_to(&request(number, 0), server.udp).await.expect("sent");
        timeout(Duration::from_secs(5), socket.recv(&mut buffer)).await.expect("in time").expect("open");
        let connecting = Instant::now();
        let mut stream = server.tcp().await;
        stream.write_all(&request(number, 0)).await.expect("sent");
        answers(&mut stream, 1).await;
        slowest = (slowest.0.max(connecting - start), slowest.1.max(connecting.elapsed()));
    }
    slowest
}

/// Half-open handshakes: as many as fit into those under way and the listener's queue, where the others wait.
const HALF_OPEN: usize = 100;

/// A connection from one of many addresses, each of which has a few of so many.
async fn from_one_of_many(number: usize, to: SocketAddr) -> TcpStream {
    let [_, _, high, low] = u32::try_from(number / 15).expect("small").to_be_bytes();
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, STRANGE, high, low], 0).into()).expect("an address of loopback");
    socket.connect(to).await.expect("connected")
}

/// Opens so many silent connections and as many in the middle of a message, and half-open handshakes.
async fn disturb(server: &Server, each: usize) -> Vec<TcpStream> {
    let mut kept = Vec::new();
    for number in 0..HALF_OPEN {
        kept.push(from_one_of_many(number, server.tls).await);
    }
    for number in 0..each {
        let mut within = from_one_of_many(HALF_OPEN + 2 * number, server.tcp).await;
        within.write_all(&request(1, 0)[..40]).await.expect("sent");
        kept.extend([from_one_of_many(HALF_OPEN + 2 * number + 1, server.tcp).await, within]);
    }
    kept
}

/// Memory of this process, bytes: both ends of its connections.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux says so");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

/// Most of it for one connection, with its peer's end; a TLS handshake under way takes more than a silent peer.
const EACH: usize = 16 * 1024;

/// Connections beyond the limits are turned away, those within are cut in time and take little memory, and a phone is answered all
/// the while.
async fn flood(each: usize, limits: TransportLimits) {
    let (most, server) = (limits.connections as u64, Server::start(limits, 0));
    let before = slowest_of(&server, 50, &Cell::new(true)).await;
    let memory = resident();
    let is_over = Cell::new(false);
    let disturb = async {
        let kept = disturb(&server, each).await;
        is_over.set(true);
        kept
    };
    let (during, kept) = tokio::join!(slowest_of(&server, 50, &is_over), disturb);
    let open = server.counts.connections.load(Relaxed);
    let shed = server.counts.shed_connections.load(Relaxed);
    let each = resident().saturating_sub(memory) / open.max(1) as usize;
    println!(
        "{} peers: {open} open with {each} bytes each, {shed} turned away; slowest answers over UDP and TCP {before:?} before, {during:?} meanwhile",
        kept.len()
    );
    assert!(open > 0 && open <= most, "{open} of {most} connections");
    assert!(shed > 0, "the table is bounded");
    assert!(each <= EACH, "{each} bytes for each connection");
    // A generous bound: it tells a phone that waits for strangers from one that does not, and no more.
    for (during, before) in [(during.0, before.0), (during.1, before.1)] {
        assert!(during < Duration::from_millis(300).max(before * 20), "{during:?}, {before:?} before");
    }
    let start = Instant::now();
    while server.counts.connections.load(Relaxed) > 0 {
        assert!(start.elapsed() < Duration::from_secs(60), "silent peers keep their connections");
        sleep(Duration::from_millis(50)).await;
    }
    drop(kept);
    let mut stream = server.tcp().await;
    stream.write_all(&request(1, 0)).await.expect("sent");
    answers(&mut stream, 1).await;
}

/// In the middle of the largest messages there are.
#[tokio::test]
async fn what_peers_have_not_finished_takes_no_more_memory_than_it_may() {
    const MOST: usize = 4 << 20;
    let limits = TransportLimits { incomplete: MOST, ..TransportLimits::default() };
    let server = Server::start(limits, 0);
    let memory = resident();
    let (large, small) = (request(1, 60_000), request(2, 6_000));
    let mut phone = from_one_of_many(9_000, server.tcp).await;
    phone.write_all(&small[..5_000]).await.expect("sent");
    let mut kept = Vec::new();
    for number in 0..400 {
        let mut stream = from_one_of_many(number, server.tcp).await;
        let _ = stream.write_all(&large[..60_000]).await;
        kept.push(stream);
    }
    let start = Instant::now();
    while server.counts.connections.load(Relaxed) > 100 {
        assert!(start.elapsed() < Duration::from_secs(5), "400 connections keep 24 MB");
        sleep(Duration::from_millis(10)).await;
    }
    assert!(server.counts.connections.load(Relaxed) >= 30, "as many as there is room for");
    let taken = resident().saturating_sub(memory);
    assert!(taken < 2 * MOST + 400 * EACH, "{taken} bytes");
    phone.write_all(&small[5_000..]).await.expect("sent");
    assert!(answers(&mut phone, 1).await.starts_with("SIP/2.0 200"), "whoever says little is not in the way");
    for part in request(3, 6_000).chunks(1_400) {
        phone.write_all(part).await.expect("sent");
        sleep(Duration::from_millis(5)).await;
    }
    assert!(answers(&mut phone, 1).await.starts_with("SIP/2.0 200"), "nor while it goes on");
    // A carrier is free of it.
    let mut carrier = server.tcp().await;
    carrier.write_all(&large).await.expect("sent");
    assert!(answers(&mut carrier, 1).await.starts_with("SIP/2.0 200"));
    // What is finished makes room.
    drop(kept);
    while server.counts.connections.load(Relaxed) > 2 {
        assert!(start.elapsed() < Duration::from_secs(10), "they stay");
        sleep(Duration::from_millis(10)).await;
    }
    let mut late = from_one_of_many(9_000, server.tcp).await;
    late.write_all(&large).await.expect("sent");
    assert!(answers(&mut late, 1).await.starts_with("SIP/2.0 200"));
}

#[tokio::test]
async fn peers_that_come_say_something_and_go_leave_nothing_behind() {
    let limits = TransportLimits { exempt: [crate::guard::Network::LOOPBACK_V4].into(), ..TransportLimits::default() };
    let server = Server::start(limits, 0);
    let mut memory = Vec::new();
    for round in 0..3 {
        for number in 0..600 {
            let mut stream = server.tcp().await;
            stream.write_all(&request(number, 2_000)).await.expect("sent");
            if number % 20 == 0 {
                let mut secure = secured(&server, server.tls).await;
                secure.write_all(&request(number, 2_000)).await.expect("sent");
                answers(&mut secure, 1).await;
            }
            // Some do not wait for the answer.
            if number % 2 == 0 {
                answers(&mut stream, 1).await;
            }
        }
        let start = Instant::now();
        while server.counts.connections.load(Relaxed) > 0 {
            assert!(start.elapsed() < Duration::from_secs(10), "connections stay in round {round}");
            sleep(Duration::from_millis(10)).await;
        }
        memory.push(resident());
    }
    let grown = memory[2].saturating_sub(memory[0]);
    assert!(grown < 1 << 20, "{grown} bytes after 1,200 connections: {memory:?}");
}

#[tokio::test]
async fn half_open_handshakes_do_not_keep_a_phone_from_its_own() {
    let limits = TransportLimits {
        handshakes: 16,
        handshake: Duration::from_secs(30),
        per_address: usize::MAX,
        ..TransportLimits::default()
    };
    let server = Server::start(limits, 0);
    let mut kept = Vec::new();
    for _ in 0..HALF_OPEN {
        kept.push(TcpStream::connect(server.tls).await.expect("connected"));
    }
    let through = async {
        let mut stream = secured(&server, server.tls).await;
        stream.write_all(&request(1, 0)).await.expect("sent");
        answers(&mut stream, 1).await
    };
    let answer = timeout(Duration::from_secs(5), through).await.expect("nobody waits for the silent ones");
    assert!(answer.starts_with("SIP/2.0 200"));
    assert!(server.counts.connections.load(Relaxed) <= 17);
    assert!(server.counts.shed_connections.load(Relaxed) >= 80);
    // The oldest are closed, the newest may go on.
    assert!(closed_after(&mut kept[0]).await < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn hundreds_of_silent_half_open_and_slow_peers_disturb_nobody() {
    let limits = TransportLimits {
        connections: 225,
        handshakes: 16,
        first_message: Duration::from_secs(3),
        handshake: Duration::from_secs(1),
        ..TransportLimits::default()
    };
    flood(150, limits).await;
}

/// By hand: `cargo nextest run -p sip --run-ignored only thousands --no-capture`; needs 10,600 open files.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "5,000 connections need more open files than some machines allow"]
async fn thousands_of_silent_half_open_and_slow_peers_disturb_nobody() {
    // Those of a node, but that nobody is cut before all are there.
    flood(2_600, TransportLimits { first_message: Duration::from_secs(20), ..TransportLimits::default() }).await;
}

/// What the phones of a busy hour send in a tenth of a second waits in the kernel while the SIP thread is busy.
#[test]
fn a_burst_of_datagrams_that_nobody_reads_yet_is_kept() {
    let most = std::fs::read_to_string("/proc/sys/net/core/rmem_max").expect("Linux says so");
    let most: usize = most.trim().parse().expect("a number");
    let config = TransportConfig { udp: Some(any_port()), ..TransportConfig::default() };
    let bound = Bound::open(config).expect("it listens");
    let (to, socket) = (bound.udp_address().expect("bound"), bound.udp.first.expect("bound"));
    // The kernel counts 1.3 to 2.3 KB for one.
    let burst = 1_500 * most.min(RECEIVE_BUFFER) / RECEIVE_BUFFER;
    let from = UdpSocket::bind(any_port()).expect("a port");
    for _ in 0..burst {
        assert_eq!(from.send_to(&[b'x'; 700], to).expect("sent"), 700);
    }
    let kept = std::iter::repeat_with(|| socket.recv(&mut [0; 1_500])).take_while(Result::is_ok).count();
    assert_eq!(kept, burst);
}
