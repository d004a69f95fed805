//! The sockets of the SIP thread: datagrams and connections in, bytes out. Nothing here waits for a peer.

use super::connection::{Arrived, Line};
use super::incomplete::Incomplete;
use super::outgoing::{self, Outgoing};
use super::registry::{Full, Registry};
use super::{Bound, Sockets, TransportCounts, TransportLimits, stun, tls};
use crate::flow::{ConnectionId, Destination, Flow, Protocol, Standing, Unreached};
use crate::message::limits::MAX_DATAGRAM;
use crate::message::{Message, ParseError, Problem};
use bytes::Bytes;
use rustls::pki_types::ServerName;
use schema::entropy::Entropy;
use schema::target::HostName;
use schema::time::Mono;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Datagrams and connection events handled before commands and timers are looked at again.
const BATCH: usize = 128;
/// Events of connections waiting for the SIP thread.
const ARRIVALS: usize = 1024;
/// Rest after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What reaches the core.
#[derive(Debug)]
pub(super) enum Arrival {
    /// A message, its source noted.
    Message(Flow, Message),
    /// A message that breaks a rule and may be answered by [`Wire::refuse`].
    Refused(Flow, Box<ParseError>),
    /// A connection is over; what was queued on it may be lost.
    Closed(Flow),
    /// The same of one that we opened to this destination.
    Disconnected(Flow, Destination),
    /// A connection could not be opened.
    Unreachable(Destination, Unreached),
}

pub(super) struct Wire {
    udp: Sockets<UdpSocket>,
    tcp: Sockets<TcpListener>,
    tls: Sockets<TcpListener>,
    acceptor: Option<TlsAcceptor>,
    connector: Option<TlsConnector>,
    limits: TransportLimits,
    registry: Registry,
    accept_again: Instant,
    arrivals: mpsc::Sender<Arrived>,
    arrived: mpsc::Receiver<Arrived>,
    /// Found while sending or taking connections; told with the next arrivals.
    lost: Vec<Arrival>,
    outgoing: Outgoing,
    incomplete: Incomplete,
    buffer: Vec<u8>,
    entropy: Entropy,
    counts: Arc<TransportCounts>,
}

/// What a moment of waiting brought.
enum Woken {
    Datagrams,
    /// What was held may leave, at the end of this turn.
    Writable,
    Connection(Option<Arrived>),
    Tcp(io::Result<(TcpStream, SocketAddr)>),
    Tls(io::Result<(TcpStream, SocketAddr)>),
    AcceptAgain,
}

impl Wire {
    /// Registers the sockets with the runtime it is called in.
    pub(super) fn new(
        bound: Bound,
        limits: TransportLimits,
        entropy: Entropy,
        counts: Arc<TransportCounts>,
    ) -> io::Result<Self> {
        let (arrivals, arrived) = mpsc::channel(ARRIVALS);
        Ok(Self {
            udp: bound.udp.registered(UdpSocket::from_std)?,
            tcp: bound.tcp.registered(TcpListener::from_std)?,
            tls: bound.tls.registered(TcpListener::from_std)?,
            acceptor: bound.tls_server.map(TlsAcceptor::from),
            connector: bound.tls_client.map(TlsConnector::from),
            incomplete: Incomplete::new(limits.incomplete, Arc::clone(&counts)),
            registry: Registry::new(limits.clone()),
            limits,
            accept_again: Instant::now(),
            arrivals,
            arrived,
            lost: Vec::new(),
            outgoing: Outgoing::default(),
            buffer: vec![0; MAX_DATAGRAM + 1],
            entropy,
            counts,
        })
    }

    /// Waits until something arrives and takes it, up to a batch; datagrams stay for [`Self::datagrams`]. May be dropped while it
    /// waits. Before a connection is taken, `standing` is asked who opens it, and when.
    pub(super) async fn arrivals(
        &mut self,
        into: &mut Vec<Arrival>,
        standing: &impl Fn(Protocol, SocketAddr) -> (Standing, Mono),
    ) {
        if !self.lost.is_empty() {
            return into.append(&mut self.lost);
        }
        let held = self.outgoing.held();
        let paused = self.accept_again > Instant::now();
        let woken = tokio::select! {
            () = readable(&self.udp) => Woken::Datagrams,
            () = writable(&self.udp, held), if held != [false; 2] => Woken::Writable,
            arrived = self.arrived.recv() => Woken::Connection(arrived),
            () = sleep_until(self.accept_again), if paused => Woken::AcceptAgain,
            accepted = accept(&self.tcp), if !paused => Woken::Tcp(accepted),
            accepted = accept(&self.tls), if !paused => Woken::Tls(accepted),
        };
        match woken {
            Woken::Datagrams | Woken::Writable | Woken::AcceptAgain => {}
            Woken::Connection(first) => {
                let mut next = first;
                for _ in 0..BATCH {
                    let Some(arrived) = next else { return };
                    self.take(arrived, into);
                    next = self.arrived.try_recv().ok();
                }
                if let Some(arrived) = next {
                    self.take(arrived, into);
                }
            }
            Woken::Tcp(accepted) => self.on_accept(Protocol::Tcp, accepted, standing),
            Woken::Tls(accepted) => self.on_accept(Protocol::Tls, accepted, standing),
        }
    }

    /// Takes datagrams that are there, up to a batch of each socket; false when there are no more. Whoever reads on sees how much
    /// waits, and can choose what is handled first. What `turned_away` is true for is not read.
    pub(super) fn datagrams(
        &mut self,
        into: &mut Vec<Arrival>,
        turned_away: &mut impl FnMut(SocketAddr, &[u8]) -> bool,
    ) -> bool {
        let first = self.receive(false, into, turned_away);
        self.receive(true, into, turned_away) || first
    }

    /// True when there may be more.
    fn receive(
        &mut self,
        v6: bool,
        into: &mut Vec<Arrival>,
        turned_away: &mut impl FnMut(SocketAddr, &[u8]) -> bool,
    ) -> bool {
        for _ in 0..BATCH {
            let socket = if v6 { &self.udp.v6 } else { &self.udp.first };
            let Some(socket) = socket else { return false };
            match socket.try_recv_from(&mut self.buffer) {
                Ok((length, source)) => {
                    self.counts.datagrams.fetch_add(1, Relaxed);
                    // Port 0 cannot be answered.
                    if source.port() != 0 && !turned_away(source, &self.buffer[..length]) {
                        self.on_datagram(length, source, into);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // An ICMP error of an earlier datagram belongs to nobody here.
                Err(_) => {}
            }
        }
        true
    }

    fn on_datagram(&mut self, length: usize, source: SocketAddr, into: &mut Vec<Arrival>) {
        if stun::is_message(&self.buffer[..length]) {
            if let Some(answer) = stun::answer(&self.buffer[..length], source) {
                self.send_datagram(source, answer.into());
            }
            return;
        }
        let datagram = Bytes::copy_from_slice(&self.buffer[..length]);
        match Message::parse_datagram(&datagram) {
            Ok(message) => into.push(Arrival::Message(Flow::udp(source), message.with_source(source))),
            Err(error) if error.problem == Problem::Empty => {}
            Err(error) => self.refused(Flow::udp(source), error, into),
        }
    }

    fn refused(&self, flow: Flow, error: ParseError, into: &mut Vec<Arrival>) {
        self.counts.refused.fetch_add(1, Relaxed);
        tracing::debug!(problem = %error.problem, protocol = ?flow.protocol, "message refused");
        if error.can_answer() {
            into.push(Arrival::Refused(flow, Box::new(error)));
        }
    }

    /// Answers a message that breaks a rule. Keeps nothing.
    pub(super) fn refuse(&mut self, flow: Flow, error: &ParseError) {
        let tag = self.entropy.hex::<8>();
        if let Some(answer) = error.answer(flow.peer, &tag) {
            self.send(flow, answer);
        }
    }

    fn take(&mut self, arrived: Arrived, into: &mut Vec<Arrival>) {
        match arrived {
            Arrived::Opened(id) => self.registry.opened(id),
            Arrived::Message(flow, message) => into.push(Arrival::Message(flow, message)),
            Arrived::Refused(flow, error) => self.refused(flow, error, into),
            Arrived::Closed { id, unreached } => {
                if let Some((flow, outgoing)) = self.registry.remove(id) {
                    into.push(closed(flow, outgoing, unreached));
                }
                self.count_connections();
            }
        }
    }

    fn count_connections(&self) {
        self.counts.connections.store(self.registry.len() as u64, Relaxed);
    }

    fn on_accept(
        &mut self,
        protocol: Protocol,
        accepted: io::Result<(TcpStream, SocketAddr)>,
        standing: &impl Fn(Protocol, SocketAddr) -> (Standing, Mono),
    ) {
        let Ok((stream, peer)) = accepted else {
            // Out of file descriptors: without a pause this would spin.
            self.accept_again = Instant::now() + ACCEPT_PAUSE;
            return;
        };
        let (stands, now) = standing(protocol, peer);
        let taken = match stands {
            Standing::Banned => Err(Full::Banned),
            Standing::Stranger if protocol == Protocol::Tls => self.registry.paced(peer.ip(), now),
            Standing::Known | Standing::Stranger => Ok(()),
        };
        let (id, flow, outbox) = match taken.and_then(|()| self.registry.accept(protocol, peer, now)) {
            Ok(taken) => taken,
            Err(full) => {
                self.counts.shed_connections.fetch_add(1, Relaxed);
                tracing::debug!(?full, "connection refused");
                return;
            }
        };
        if stands == Standing::Known {
            self.registry.know(id);
        }
        let told = self.lost.len();
        self.lost.extend(self.registry.pushed_out().map(Arrival::Closed));
        self.counts.shed_connections.fetch_add((self.lost.len() - told) as u64, Relaxed);
        self.count_connections();
        let _ = stream.set_nodelay(true);
        let share = Some(self.incomplete.share());
        let mut line = Line {
            flow,
            id,
            incoming: true,
            arrivals: self.arrivals.clone(),
            outbox,
            share,
            limits: self.limits.clone(),
        };
        let acceptor = self.acceptor.clone().filter(|_| protocol == Protocol::Tls);
        spawn(async move {
            match acceptor {
                None => line.carry(stream).await,
                Some(acceptor) => {
                    let shaken = tokio::select! {
                        shaken = timeout(line.limits.handshake, acceptor.accept(stream)) => shaken.ok().and_then(Result::ok),
                        // A newer one took its place; nothing is sent before it is open.
                        _ = line.outbox.next() => None,
                    };
                    match shaken {
                        Some(stream) => line.carry(stream).await,
                        None => line.never_opened(Unreached::NoConnection).await,
                    }
                }
            }
        });
    }

    /// Sends on a flow. A flow that is gone is told with the next arrivals.
    pub(super) fn send(&mut self, flow: Flow, bytes: Bytes) {
        match flow.connection {
            None => self.send_datagram(flow.peer, bytes),
            Some(id) => {
                let known = self.registry.flow(id).is_some();
                if !self.registry.send(id, bytes) {
                    self.lost.push(Arrival::Closed(flow));
                    self.counts.slow_connections.fetch_add(u64::from(known), Relaxed);
                    self.count_connections();
                }
            }
        }
    }

    fn send_datagram(&mut self, to: SocketAddr, bytes: Bytes) {
        if self.outgoing.push(to, bytes) {
            self.leave();
        }
    }

    /// Sends datagrams whose order does not matter.
    pub(super) fn send_unordered(&mut self, mut datagrams: Vec<outgoing::Datagram>) {
        outgoing::group(&mut datagrams);
        for (to, bytes) in datagrams {
            self.send_datagram(to, bytes);
        }
    }

    /// Datagrams that wait leave: at the end of each turn.
    pub(super) fn leave(&mut self) {
        self.outgoing.leave(&self.udp, &self.counts);
    }

    /// Sends to a destination, over the connection to it if there is one, else over a new one. `name` is the one its number
    /// stands for.
    pub(super) fn send_to(&mut self, to: Destination, name: Option<&HostName>, bytes: Bytes) {
        if to.protocol == Protocol::Udp {
            return self.send_datagram(to.address, bytes);
        }
        let id = match self.registry.to(to) {
            Some(id) => id,
            None => match self.connect(to, name) {
                Some(id) => id,
                None => return self.lost.push(Arrival::Unreachable(to, Unreached::NotTried)),
            },
        };
        if !self.registry.send(id, bytes) {
            self.lost.push(Arrival::Unreachable(to, Unreached::NotTried));
        }
    }

    fn connect(&mut self, to: Destination, name: Option<&HostName>) -> Option<ConnectionId> {
        let tls = match to.protocol {
            Protocol::Tls => Some((self.connector.clone()?, certificate_name(to, name)?)),
            _ => None,
        };
        let from = self.source_for(to);
        let (id, flow, outbox) = self.registry.open(to).ok()?;
        self.count_connections();
        let line = Line {
            flow,
            id,
            incoming: false,
            arrivals: self.arrivals.clone(),
            outbox,
            share: None,
            limits: self.limits.clone(),
        };
        spawn(async move {
            let connect = async {
                let stream = connect_from(from, to.address).await?;
                let _ = stream.set_nodelay(true);
                Ok::<_, io::Error>(stream)
            };
            match tls {
                None => match timeout(line.limits.connect, connect).await {
                    Ok(Ok(stream)) => line.carry(stream).await,
                    _ => line.never_opened(Unreached::NoConnection).await,
                },
                Some((connector, name)) => {
                    let shake = async { connector.connect(name, connect.await?).await };
                    match timeout(line.limits.connect, shake).await {
                        Ok(Ok(stream)) => line.carry(stream).await,
                        Ok(Err(error)) => line.never_opened(tls::unreached(&error)).await,
                        Err(_) => line.never_opened(Unreached::NoConnection).await,
                    }
                }
            }
        });
        Some(id)
    }

    /// From which address a connection is opened: a carrier expects us at the one that we listen on, if it is one alone: by that
    /// protocol, else by another. On loopback nobody listens whom others know.
    fn source_for(&self, to: Destination) -> Option<IpAddr> {
        let (udp, tcp, tls) = (&self.udp, &self.tcp, &self.tls);
        let udp = [&udp.first, &udp.v6].map(|socket| socket.as_ref()?.local_addr().ok());
        let [tcp, tls] = [tcp, tls].map(|all| [&all.first, &all.v6].map(|socket| socket.as_ref()?.local_addr().ok()));
        let own = if to.protocol == Protocol::Tls { [tls, udp, tcp] } else { [tcp, udp, tls] };
        let to = to.address.ip();
        let mut ips = own.into_iter().flatten().flatten().map(|address| address.ip());
        let ip = ips.find(|ip| ip.is_ipv4() == to.is_ipv4() && (!ip.is_loopback() || to.is_loopback()));
        ip.filter(|ip| !ip.is_unspecified())
    }

    /// The peer of this flow proved who it is: its connection no longer counts against its address.
    pub(super) fn trust(&mut self, flow: Flow) {
        if let Some(id) = flow.connection {
            self.registry.trust(id);
        }
    }
}

const fn closed(flow: Flow, outgoing: Option<Destination>, unreached: Option<Unreached>) -> Arrival {
    match (outgoing, unreached) {
        (Some(destination), Some(why)) => Arrival::Unreachable(destination, why),
        (Some(destination), None) => Arrival::Disconnected(flow, destination),
        (None, _) => Arrival::Closed(flow),
    }
}

/// What the certificate of a TLS peer has to be for; `None`: its name is not known any more.
fn certificate_name(to: Destination, name: Option<&HostName>) -> Option<ServerName<'static>> {
    match (to.name, name) {
        (None, _) => Some(to.address.ip().into()),
        (Some(_), name) => ServerName::try_from(name?.as_str().to_owned()).ok(),
    }
}

async fn connect_from(from: Option<IpAddr>, to: SocketAddr) -> io::Result<TcpStream> {
    let Some(from) = from else { return TcpStream::connect(to).await };
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind((from, 0).into())?;
    socket.connect(to).await
}

/// On the SIP thread's own runtime: the task ends with it.
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

/// Returns when there is a datagram. An error shows again when receiving.
async fn readable(sockets: &Sockets<UdpSocket>) {
    match (&sockets.first, &sockets.v6) {
        (Some(first), Some(v6)) => tokio::select! {
            _ = first.readable() => {}
            _ = v6.readable() => {}
        },
        (Some(one), None) | (None, Some(one)) => drop(one.readable().await),
        (None, None) => std::future::pending().await,
    }
}

/// Returns when there may be room in the buffer of a socket that has something held.
async fn writable(sockets: &Sockets<UdpSocket>, held: [bool; 2]) {
    let room = async |socket: &Option<UdpSocket>, is_held| match socket {
        Some(socket) if is_held => drop(socket.writable().await),
        _ => std::future::pending().await,
    };
    tokio::select! {
        () = room(&sockets.first, held[0]) => {}
        () = room(&sockets.v6, held[1]) => {}
    }
}

async fn accept(listeners: &Sockets<TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match (&listeners.first, &listeners.v6) {
        (Some(first), Some(v6)) => tokio::select! {
            accepted = first.accept() => accepted,
            accepted = v6.accept() => accepted,
        },
        (Some(one), None) | (None, Some(one)) => one.accept().await,
        (None, None) => std::future::pending().await,
    }
}
