//! Connections between the server and those that speak TCP: bytes in order, cut and glued anywhere, late when the network is
//! bad, gone when it is reset or a side dies.

use super::network::Weather;
use super::tally::Tally;
use bytes::{Bytes, BytesMut};
use schema::entropy::Entropy;
use schema::time::Mono;
use sip::flow::ConnectionId;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// Pieces on the way at a time; more break their connection, as a full buffer does in the end.
const ON_THE_WAY_MAX: usize = 20_000;
/// A connection that cannot be opened fails after this time.
const CONNECT: Duration = Duration::from_secs(3);
/// And one that is refused after this time.
const REFUSED: Duration = Duration::from_millis(20);

/// Something that arrives.
#[derive(Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is what its name says")]
pub enum Piece {
    /// Bytes at the server.
    AtServer { connection: ConnectionId, peer: SocketAddr, bytes: Bytes },
    /// Whole messages at a peer.
    AtPeer { peer: SocketAddr, messages: Vec<Bytes> },
    /// The server learns that a connection is over.
    Closed { connection: ConnectionId, peer: SocketAddr },
    /// The server learns that a connection cannot be opened.
    Unreachable { peer: SocketAddr },
}

enum OnTheWay {
    ToServer(ConnectionId, Bytes),
    ToPeer(ConnectionId, Bytes),
    Closed(ConnectionId, SocketAddr),
    Unreachable(SocketAddr),
}

struct Stream {
    peer: SocketAddr,
    /// When the last piece in each direction arrives.
    at_server: Mono,
    at_peer: Mono,
    /// What the peer has received of a message.
    buffer: BytesMut,
}

/// All connections.
pub struct Streams {
    entropy: Entropy,
    weather: Weather,
    open: BTreeMap<ConnectionId, Stream>,
    opened: u64,
    on_the_way: BTreeMap<(Mono, u64), OnTheWay>,
    sent: u64,
    /// Peers that were connected once.
    known: BTreeSet<SocketAddr>,
    cut_off: BTreeMap<SocketAddr, Mono>,
    /// Peers that nobody can connect to.
    refusing: BTreeSet<SocketAddr>,
}

impl Streams {
    /// No connections. `refusing`: peers that nobody can connect to.
    #[must_use]
    pub const fn new(weather: Weather, entropy: Entropy, refusing: BTreeSet<SocketAddr>) -> Self {
        Self {
            entropy,
            weather,
            open: BTreeMap::new(),
            opened: 0,
            on_the_way: BTreeMap::new(),
            sent: 0,
            known: BTreeSet::new(),
            cut_off: BTreeMap::new(),
            refusing,
        }
    }

    fn of(&self, peer: SocketAddr) -> Option<ConnectionId> {
        self.open.iter().find(|(_, stream)| stream.peer == peer).map(|(id, _)| *id)
    }

    fn connect(&mut self, now: Mono, peer: SocketAddr, tally: &mut Tally) -> ConnectionId {
        self.opened += 1;
        let id = ConnectionId(self.opened);
        self.open.insert(id, Stream { peer, at_server: now, at_peer: now, buffer: BytesMut::new() });
        tally.add(if self.known.insert(peer) { "connections" } else { "reconnections" });
        id
    }

    /// A peer sends a message, over a new connection if it has none; lost when there is no server.
    pub fn from_peer(&mut self, now: Mono, peer: SocketAddr, message: Bytes, server_is_up: bool, tally: &mut Tally) {
        if !server_is_up || (self.of(peer).is_none() && self.is_cut_off(peer, now)) {
            return;
        }
        let id = self.of(peer).unwrap_or_else(|| self.connect(now, peer, tally));
        self.send(now, id, message, true, tally);
    }

    /// The server sends on a connection; lost when it is gone.
    pub fn from_server(&mut self, now: Mono, id: ConnectionId, message: Bytes, tally: &mut Tally) {
        if self.open.contains_key(&id) {
            self.send(now, id, message, false, tally);
        }
    }

    /// The server sends to an address, over a new connection if there is none.
    pub fn to_address(&mut self, now: Mono, peer: SocketAddr, message: Bytes, tally: &mut Tally) {
        if self.refusing.contains(&peer) {
            tally.add("connections refused");
            return self.post(now + REFUSED, OnTheWay::Unreachable(peer));
        }
        if self.of(peer).is_none() && self.is_cut_off(peer, now) {
            tally.add("connections that failed");
            return self.post(now + CONNECT, OnTheWay::Unreachable(peer));
        }
        let id = self.of(peer).unwrap_or_else(|| self.connect(now, peer, tally));
        self.send(now, id, message, false, tally);
    }

    /// Cuts a message anywhere and sends the pieces.
    fn send(&mut self, now: Mono, id: ConnectionId, mut message: Bytes, to_server: bool, tally: &mut Tally) {
        if self.on_the_way.len() >= ON_THE_WAY_MAX {
            return self.break_off(now, id);
        }
        let pieces = self.entropy.below(4);
        for _ in 0..pieces {
            let at = usize::try_from(self.entropy.below(message.len() as u64 + 1)).unwrap_or(0);
            let piece = message.split_to(at);
            self.send_piece(now, id, piece, to_server, tally);
        }
        tally.add_if("messages cut into pieces", pieces > 0);
        self.send_piece(now, id, message, to_server, tally);
    }

    fn send_piece(&mut self, now: Mono, id: ConnectionId, piece: Bytes, to_server: bool, tally: &mut Tally) {
        let Weather { lost, least_ms, spread_ms, .. } = self.weather;
        let mut ms = least_ms.max(1) + self.entropy.below(spread_ms + 1);
        while lost > 0 && self.entropy.below(1_000) < lost {
            // Sent again by TCP.
            ms += 200 + self.entropy.below(800);
        }
        let Some(stream) = self.open.get_mut(&id) else { return };
        let held_until = self.cut_off.get(&stream.peer).copied().unwrap_or_default();
        let last = if to_server { &mut stream.at_server } else { &mut stream.at_peer };
        // What comes at the same moment as the piece before it is read together with it.
        let glued = *last > now && self.entropy.below(3) == 0;
        tally.add_if("pieces glued", glued);
        let at = if glued { *last } else { (now.max(held_until) + Duration::from_millis(ms)).max(*last) };
        *last = at;
        let piece = if to_server { OnTheWay::ToServer(id, piece) } else { OnTheWay::ToPeer(id, piece) };
        self.post(at, piece);
    }

    fn post(&mut self, at: Mono, what: OnTheWay) {
        self.sent += 1;
        self.on_the_way.insert((at, self.sent), what);
    }

    /// When the next piece arrives.
    #[must_use]
    pub fn next(&self) -> Option<Mono> {
        self.on_the_way.keys().next().map(|(at, _)| *at)
    }

    /// The next piece that has arrived.
    pub fn arrived(&mut self, now: Mono) -> Option<Piece> {
        loop {
            let first = self.on_the_way.first_entry().filter(|first| first.key().0 <= now)?;
            let at = first.key().0;
            match first.remove() {
                OnTheWay::ToServer(connection, bytes) => {
                    let Some(peer) = self.open.get(&connection).map(|stream| stream.peer) else { continue };
                    let mut bytes = BytesMut::from(bytes);
                    while let Some(more) = self.glued_to(at, connection) {
                        bytes.extend_from_slice(&more);
                    }
                    return Some(Piece::AtServer { connection, peer, bytes: bytes.freeze() });
                }
                OnTheWay::ToPeer(connection, bytes) => {
                    let Some(stream) = self.open.get_mut(&connection) else { continue };
                    stream.buffer.extend_from_slice(&bytes);
                    let messages = std::iter::from_fn(|| frame(&mut stream.buffer)).collect();
                    return Some(Piece::AtPeer { peer: stream.peer, messages });
                }
                OnTheWay::Closed(connection, peer) => return Some(Piece::Closed { connection, peer }),
                OnTheWay::Unreachable(peer) => return Some(Piece::Unreachable { peer }),
            }
        }
    }

    fn glued_to(&mut self, at: Mono, connection: ConnectionId) -> Option<Bytes> {
        let next = self.on_the_way.first_entry()?;
        let same = matches!(next.get(), OnTheWay::ToServer(id, _) if *id == connection);
        if next.key().0 != at || !same {
            return None;
        }
        match next.remove() {
            OnTheWay::ToServer(_, bytes) => Some(bytes),
            _ => None,
        }
    }

    /// A peer's connection is reset: what was on the way is lost, and the server learns of it. False when it had none.
    pub fn reset(&mut self, now: Mono, peer: SocketAddr) -> bool {
        let Some(id) = self.of(peer) else { return false };
        self.break_off(now, id);
        true
    }

    fn break_off(&mut self, now: Mono, id: ConnectionId) {
        if let Some(stream) = self.open.remove(&id) {
            self.post(now + Duration::from_millis(1), OnTheWay::Closed(id, stream.peer));
        }
    }

    /// The server is gone, and all connections with it. Gives the peers that lost theirs.
    pub fn server_gone(&mut self) -> Vec<SocketAddr> {
        self.on_the_way.clear();
        std::mem::take(&mut self.open).into_values().map(|stream| stream.peer).collect()
    }

    fn is_cut_off(&self, peer: SocketAddr, now: Mono) -> bool {
        self.cut_off.get(&peer).is_some_and(|until| *until > now)
    }

    /// Nothing passes to or from a peer until then; what was sent comes afterwards.
    pub fn cut_off(&mut self, peer: SocketAddr, until: Mono) {
        self.cut_off.insert(peer, until);
    }

    /// From now on the weather is fair and everyone can be reached.
    pub fn calm(&mut self) {
        self.weather = Weather::FAIR;
        self.cut_off.clear();
    }
}

/// The simulator's phones and carriers write as if over UDP.
pub fn with_tcp(message: &Bytes) -> Bytes {
    let text = String::from_utf8_lossy(message).replace("SIP/2.0/UDP", "SIP/2.0/TCP");
    let lines =
        text.split_inclusive('\n').map(|line| match line.strip_prefix("Contact: <").and_then(|l| l.split_once('>')) {
            Some((uri, rest)) => format!("Contact: <{uri};transport=tcp>{rest}"),
            None => line.to_owned(),
        });
    Bytes::from(lines.collect::<String>())
}

/// Takes the first whole message out of what a peer received.
fn frame(buffer: &mut BytesMut) -> Option<Bytes> {
    while buffer.starts_with(b"\r\n") {
        let _ = buffer.split_to(2);
    }
    let end = buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
    if buffer.len() < end + length {
        return None;
    }
    let message = buffer.split_to(end + length).freeze();
    Some(Bytes::from(String::from_utf8_lossy(&message).replace(";transport=tcp", "")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_whole_and_in_order_however_they_are_cut() {
        let weather = Weather { lost: 200, spread_ms: 30, ..Weather::FAIR };
        let (mut streams, mut tally) =
            (Streams::new(weather, Entropy::from_number(7), BTreeSet::new()), Tally::default());
        let peer: SocketAddr = ([198, 51, 100, 1], 5060).into();
        let message =
            |n: usize| Bytes::from(format!("INFO {n}\r\nContent-Length: {}\r\n\r\n{}", n % 7, "x".repeat(n % 7)));
        for n in 0..200 {
            streams.to_address(Mono(n * 1_000), peer, message(n as usize), &mut tally);
        }
        let mut received = Vec::new();
        while let Some(at) = streams.next() {
            while let Some(piece) = streams.arrived(at) {
                let Piece::AtPeer { messages, .. } = piece else { panic!("{piece:?}") };
                received.extend(messages);
            }
        }
        assert_eq!(received, (0..200).map(message).collect::<Vec<_>>());
        assert!(tally.of("pieces glued") > 10 && tally.of("messages cut into pieces") > 100, "{tally}");
    }
}
