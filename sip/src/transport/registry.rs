//! The table of connections and its limits (D52). Pure.

mod pace;

use super::TransportLimits;
use super::outbox::{Outbox, Queued, outbox};
use crate::flow::{ConnectionId, Destination, Flow, Protocol};
use crate::guard::Source;
use bytes::Bytes;
use pace::Pace;
use schema::time::Mono;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Most connections that we opened.
const OUTGOING: usize = 1_024;
/// A stranger that connected no longer ago makes no room for others of its address: it may be about to show who it is, as may all the
/// phones of an office that connect anew at the same moment.
const GRACE: Duration = Duration::from_secs(2);

struct Connection {
    flow: Flow,
    outbox: Outbox,
    /// Where it goes, when we opened it.
    to: Option<Destination>,
    /// When its peer opened it.
    since: Mono,
    /// Its peer is known: it no longer counts against its address's limit, and makes room for no stranger.
    trusted: bool,
}

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// All connections together.
    Total,
    /// Strangers of this address, each of which may still show who it is.
    Address,
    /// TLS connections that this source began lately.
    Handshakes,
    /// Nothing of this source is taken for now.
    Banned,
}

/// All connections, by number, and the outgoing ones by where they go.
pub(super) struct Registry {
    limits: TransportLimits,
    connections: BTreeMap<ConnectionId, Connection>,
    outgoing: BTreeMap<Destination, ConnectionId>,
    /// Incoming connections whose peer is not known, by where they come from, the oldest first.
    untrusted: BTreeMap<Source, BTreeSet<ConnectionId>>,
    /// Incoming TLS handshakes under way, the oldest first.
    shaking: BTreeSet<ConnectionId>,
    /// Incoming connections whose peer is not known, the oldest first.
    strangers: BTreeSet<ConnectionId>,
    /// Incoming connections whose peer is known, by where they come from, the oldest first; not those that are exempt.
    known: BTreeMap<Source, BTreeSet<ConnectionId>>,
    /// How fast strangers begin handshakes.
    pace: Pace,
    /// Ended to make room, and not told yet.
    pushed_out: Vec<Flow>,
    next: u64,
}

impl Registry {
    pub(super) fn new(limits: TransportLimits) -> Self {
        Self {
            limits,
            connections: BTreeMap::new(),
            outgoing: BTreeMap::new(),
            untrusted: BTreeMap::new(),
            shaking: BTreeSet::new(),
            strangers: BTreeSet::new(),
            known: BTreeMap::new(),
            pace: Pace::default(),
            pushed_out: Vec::new(),
            next: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }

    fn is_exempt(&self, ip: IpAddr) -> bool {
        self.limits.exempt.iter().any(|network| network.contains(ip))
    }

    /// Whether a stranger may begin a handshake: it costs far more than a request, before anything is known of who asks.
    pub(super) fn paced(&mut self, ip: IpAddr, now: Mono) -> Result<(), Full> {
        if self.is_exempt(ip) || self.pace.take(Source::of(ip), now) { Ok(()) } else { Err(Full::Handshakes) }
    }

    /// Takes a connection that a peer opened. The outbox's other end goes to its task. Where all handshakes are taken the
    /// oldest one makes room: a phone is through with its own long before, a peer that says nothing is not waited for. So does the
    /// oldest stranger where all connections are taken, or all that one address may have without a right digest: a phone has shown
    /// who it is long before. Where there is none, the source with the most gives its oldest: one customer cannot take them all.
    /// Who made room is in [`Self::pushed_out`].
    pub(super) fn accept(
        &mut self,
        protocol: Protocol,
        peer: SocketAddr,
        now: Mono,
    ) -> Result<(ConnectionId, Flow, Queued), Full> {
        let source = Source::of(peer.ip());
        let oldest_here = self.untrusted.get(&source).filter(|all| all.len() >= self.limits.per_address);
        if let Some(oldest) = oldest_here.and_then(BTreeSet::first).copied()
            && !self.is_exempt(peer.ip())
        {
            if self.connections.get(&oldest).is_some_and(|oldest| oldest.since + GRACE > now) {
                return Err(Full::Address);
            }
            self.push_out(oldest);
        }
        if protocol == Protocol::Tls
            && self.shaking.len() >= self.limits.handshakes
            && let Some(oldest) = self.shaking.first().copied()
        {
            self.push_out(oldest);
        }
        if self.connections.len() - self.outgoing.len() >= self.limits.connections {
            let oldest = self.strangers.first().copied().or_else(|| self.oldest_of_most()).ok_or(Full::Total)?;
            self.push_out(oldest);
        }
        let added = self.add(protocol, peer, None, now);
        self.untrusted.entry(source).or_default().insert(added.0);
        self.strangers.insert(added.0);
        if protocol == Protocol::Tls {
            self.shaking.insert(added.0);
        }
        Ok(added)
    }

    fn push_out(&mut self, id: ConnectionId) {
        if let Some((flow, _)) = self.remove(id) {
            self.pushed_out.push(flow);
        }
    }

    /// Connections that made room for others, each once.
    pub(super) fn pushed_out(&mut self) -> impl Iterator<Item = Flow> {
        self.pushed_out.drain(..)
    }

    /// The oldest known connection of the source that has the most, when that is more than a stranger may have.
    fn oldest_of_most(&self) -> Option<ConnectionId> {
        let most = self.known.values().max_by_key(|connections| connections.len())?;
        if most.len() > self.limits.per_address { most.first().copied() } else { None }
    }

    /// Notes a connection that we open. Those have a limit of their own, so that no peer takes the carriers' room.
    pub(super) fn open(&mut self, to: Destination) -> Result<(ConnectionId, Flow, Queued), Full> {
        if self.outgoing.len() >= OUTGOING {
            return Err(Full::Total);
        }
        let added = self.add(to.protocol, to.address, Some(to), Mono(0));
        self.outgoing.insert(to, added.0);
        Ok(added)
    }

    fn add(
        &mut self,
        protocol: Protocol,
        peer: SocketAddr,
        to: Option<Destination>,
        since: Mono,
    ) -> (ConnectionId, Flow, Queued) {
        let id = ConnectionId(self.next);
        self.next += 1;
        let (outbox, receiver) = outbox();
        let flow = Flow { protocol, peer, connection: Some(id) };
        self.connections.insert(id, Connection { flow, outbox, to, since, trusted: false });
        (id, flow, receiver)
    }

    /// The open or opening connection to a destination.
    pub(super) fn to(&self, destination: Destination) -> Option<ConnectionId> {
        self.outgoing.get(&destination).copied()
    }

    pub(super) fn flow(&self, id: ConnectionId) -> Option<Flow> {
        self.connections.get(&id).map(|connection| connection.flow)
    }

    pub(super) fn opened(&mut self, id: ConnectionId) {
        self.shaking.remove(&id);
    }

    /// It comes from a carrier's address, and is still to show who it is.
    pub(super) fn know(&self, id: ConnectionId) {
        if let Some(connection) = self.connections.get(&id) {
            connection.outbox.know();
        }
    }

    pub(super) fn trust(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id)
            && connection.to.is_none()
            && !std::mem::replace(&mut connection.trusted, true)
        {
            connection.outbox.know();
            let ip = connection.flow.ip();
            self.strangers.remove(&id);
            take(&mut self.untrusted, Source::of(ip), id);
            if !self.is_exempt(ip) {
                self.known.entry(Source::of(ip)).or_default().insert(id);
            }
        }
    }

    /// Queues bytes. False when the connection is gone, or its queue full: then it is closed, its reader being too slow.
    pub(super) fn send(&mut self, id: ConnectionId, bytes: Bytes) -> bool {
        let Some(connection) = self.connections.get(&id) else { return false };
        let is_known = connection.trusted || connection.to.is_some();
        let most = if is_known { self.limits.outbox_known } else { self.limits.outbox_stranger };
        if connection.outbox.put(bytes, most) {
            return true;
        }
        self.remove(id);
        false
    }

    /// Forgets a connection; its task ends as its outbox closes. The destination when it was one of ours.
    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<(Flow, Option<Destination>)> {
        let connection = self.connections.remove(&id)?;
        let Connection { flow, to, trusted, .. } = connection;
        self.shaking.remove(&id);
        self.strangers.remove(&id);
        let of = if to.is_none() && !trusted { &mut self.untrusted } else { &mut self.known };
        take(of, Source::of(flow.ip()), id);
        if let Some(to) = to
            && self.outgoing.get(&to) == Some(&id)
        {
            self.outgoing.remove(&to);
        }
        Some((flow, to))
    }
}

/// Takes one out of those of a source.
fn take(of: &mut BTreeMap<Source, BTreeSet<ConnectionId>>, source: Source, id: ConnectionId) {
    if let Some(all) = of.get_mut(&source) {
        all.remove(&id);
        if all.is_empty() {
            of.remove(&source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::Network;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn next(outbox: &mut Queued) -> Poll<Option<Bytes>> {
        pin!(outbox.next()).poll(&mut Context::from_waker(Waker::noop()))
    }

    fn limits() -> TransportLimits {
        TransportLimits {
            connections: 5,
            per_address: 2,
            handshakes: 2,
            outbox_stranger: 3,
            outbox_known: 200,
            ..TransportLimits::default()
        }
    }

    const NOW: Mono = Mono(0);
    const LATER: Mono = Mono(2_000_000);

    fn peer(last: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], port))
    }

    #[test]
    fn each_limit_holds_and_is_given_back() {
        let mut registry = Registry::new(limits());
        let mut boxes = Vec::new();
        for port in 1..=2 {
            let (id, _, outbox) = registry.accept(Protocol::Tls, peer(1, port), NOW).expect("room");
            boxes.push((id, outbox));
        }
        registry.opened(boxes[0].0);
        registry.opened(boxes[0].0);
        assert_eq!(registry.shaking.len(), 1);
        registry.trust(boxes[0].0);
        registry.trust(boxes[0].0);
        boxes.extend(registry.accept(Protocol::Tcp, peer(1, 4), NOW).map(|(id, _, outbox)| (id, outbox)));
        assert_eq!((registry.pushed_out().count(), registry.untrusted[&Source::of(peer(1, 1).ip())].len()), (0, 2));
        boxes.extend(registry.accept(Protocol::Tcp, peer(2, 1), NOW).map(|(id, _, outbox)| (id, outbox)));
        let to = Destination::new(Protocol::Tcp, peer(9, 5060));
        boxes.extend(registry.open(to).map(|(id, _, outbox)| (id, outbox)));
        assert_eq!(registry.to(to), Some(boxes[4].0));
        for (id, _) in &boxes {
            assert!(registry.remove(*id).is_some() && registry.remove(*id).is_none());
        }
        assert_eq!(
            (
                registry.len(),
                registry.untrusted.len(),
                registry.shaking.len(),
                registry.strangers.len(),
                registry.to(to)
            ),
            (0, 0, 0, 0, None)
        );
    }

    #[test]
    fn where_all_connections_are_taken_the_oldest_stranger_makes_room_and_nobody_who_is_known() {
        let mut registry = Registry::new(limits());
        let mut kept = Vec::new();
        for last in 1..=5 {
            kept.push(registry.accept(Protocol::Tcp, peer(last, 1), NOW).expect("room"));
        }
        let ids: Vec<_> = kept.iter().map(|(id, ..)| *id).collect();
        registry.trust(ids[0]);
        kept.push(registry.accept(Protocol::Tcp, peer(6, 1), NOW).expect("a stranger's place"));
        assert_eq!((registry.flow(ids[1]), registry.len()), (None, 5));
        assert!(registry.flow(ids[0]).is_some() && registry.flow(ids[2]).is_some());
        // Carriers have room of their own.
        kept.push(registry.open(Destination::new(Protocol::Tls, peer(9, 5061))).expect("room"));
        kept.iter().for_each(|(id, ..)| registry.trust(*id));
        assert_eq!(registry.accept(Protocol::Tcp, peer(7, 1), NOW).map(|_| ()), Err(Full::Total));
        assert_eq!((registry.len(), registry.strangers.len()), (6, 0));
    }

    #[test]
    fn strangers_of_an_address_make_room_for_one_another_and_nobody_else_does() {
        let mut registry = Registry::new(limits());
        let mut kept: Vec<_> =
            (1..=2).map(|port| registry.accept(Protocol::Tcp, peer(1, port), NOW).expect("room")).collect();
        kept.push(registry.accept(Protocol::Tcp, peer(2, 1), NOW).expect("room"));
        registry.trust(kept[0].0);
        kept.push(registry.accept(Protocol::Tcp, peer(1, 3), NOW).expect("a phone that is known does not count"));
        assert_eq!(registry.pushed_out().count(), 0);
        assert_eq!(
            registry.accept(Protocol::Tcp, peer(1, 4), NOW).map(|_| ()),
            Err(Full::Address),
            "they may be signing in"
        );
        kept.push(registry.accept(Protocol::Tcp, peer(1, 4), LATER).expect("the oldest stranger of this address goes"));
        assert_eq!(registry.pushed_out().collect::<Vec<_>>(), [kept[1].1]);
        assert_eq!(registry.pushed_out().count(), 0, "told once");
        let open: Vec<_> = kept.iter().map(|(id, ..)| registry.flow(*id).is_some()).collect();
        assert_eq!(open, [true, false, true, true, true]);
        assert!(next(&mut kept[1].2).is_ready(), "its task ends");
    }

    #[test]
    fn a_source_begins_so_many_handshakes_a_second() {
        let mut registry = Registry::new(TransportLimits { exempt: [Network::LOOPBACK_V4].into(), ..limits() });
        let mut begun = |ip: IpAddr, at_ms: u64| {
            let tries = (0..100).map_while(|port| {
                registry.paced(ip, Mono(at_ms * 1_000)).ok()?;
                let (id, ..) = registry.accept(Protocol::Tls, SocketAddr::new(ip, port + 1), NOW).ok()?;
                registry.remove(id)
            });
            tries.count()
        };
        let (one, other) = (peer(1, 1).ip(), peer(2, 1).ip());
        assert_eq!([begun(one, 1_000), begun(one, 1_000), begun(other, 1_000)], [20, 0, 20]);
        assert_eq!([begun(one, 1_199), begun(one, 1_200), begun(one, 2_200)], [0, 1, 5]);
        assert_eq!((begun(one, 60_000), begun([127, 0, 0, 1].into(), 60_000)), (20, 100));
        assert_eq!(registry.paced(one, Mono(60_000_000)), Err(Full::Handshakes));
    }

    #[test]
    fn we_open_no_more_connections_than_have_room() {
        let mut registry = Registry::new(limits());
        let to = |port| Destination::new(Protocol::Tcp, peer(9, port));
        let kept: Vec<_> =
            (0..OUTGOING).map(|n| registry.open(to(u16::try_from(n).expect("small"))).expect("room")).collect();
        assert_eq!((kept.len(), registry.open(to(u16::MAX)).map(|_| ())), (OUTGOING, Err(Full::Total)));
        assert!(registry.accept(Protocol::Tcp, peer(1, 1), NOW).is_ok());
    }

    #[test]
    fn one_customer_cannot_take_all_connections() {
        let mut registry = Registry::new(limits());
        let mut kept = Vec::new();
        for (last, port) in [(1, 1), (1, 2), (2, 1), (1, 3), (3, 1)] {
            kept.push(registry.accept(Protocol::Tcp, peer(last, port), NOW).expect("room"));
            registry.trust(kept.last().expect("one").0);
        }
        let ids: Vec<_> = kept.iter().map(|(id, ..)| *id).collect();
        kept.push(registry.accept(Protocol::Tcp, peer(4, 1), NOW).expect("the oldest of who has three"));
        let open = |registry: &Registry| ids.iter().map(|id| registry.flow(*id).is_some()).collect::<Vec<_>>();
        assert_eq!(open(&registry), [false, true, true, true, true]);
        registry.trust(kept.last().expect("one").0);
        // Nobody has more than strangers may have.
        assert_eq!(registry.accept(Protocol::Tcp, peer(5, 1), NOW).map(|_| ()), Err(Full::Total));
        for id in ids {
            registry.remove(id);
        }
        assert_eq!(registry.known.len(), 1);
    }

    #[test]
    fn whoever_is_known_may_have_more_waiting() {
        let mut registry = Registry::new(limits());
        let (phone, _, _kept) = registry.accept(Protocol::Tcp, peer(1, 1), NOW).expect("room");
        let (carrier, _, _opened) = registry.open(Destination::new(Protocol::Tls, peer(9, 5061))).expect("room");
        registry.trust(phone);
        for id in [phone, carrier] {
            assert_eq!((0..300).filter(|_| registry.send(id, Bytes::from_static(b"x"))).count(), 200);
        }
    }

    #[test]
    fn one_message_alone_is_always_taken() {
        let mut registry = Registry::new(limits());
        let (id, ..) = registry.accept(Protocol::Tcp, peer(1, 1), NOW).expect("room");
        let (other, _, mut outbox) = registry.accept(Protocol::Tcp, peer(1, 2), NOW).expect("room");
        assert!(!registry.send(id, Bytes::from_static(b"nobody takes it")), "its connection is over");
        assert!(registry.send(other, Bytes::from_static(b"longer than is allowed")));
        assert!(next(&mut outbox).is_ready() && registry.send(other, Bytes::from_static(b"once more")));
    }

    #[test]
    fn the_oldest_handshake_makes_room_for_a_new_one() {
        let mut registry = Registry::new(limits());
        let accept = |registry: &mut Registry, last| registry.accept(Protocol::Tls, peer(last, 1), NOW).expect("room");
        let (first, _, mut first_box) = accept(&mut registry, 1);
        let (second, _, _second_box) = accept(&mut registry, 2);
        registry.opened(first);
        let (third, _, _third_box) = accept(&mut registry, 3);
        assert_eq!(registry.len(), 3, "who is through does not count");
        let (_, _, _fourth_box) = accept(&mut registry, 4);
        assert!(registry.flow(second).is_none() && registry.flow(first).is_some() && registry.flow(third).is_some());
        assert!(next(&mut first_box).is_pending(), "it stays open");
    }

    #[test]
    fn the_limit_per_address_counts_an_ipv6_64_as_one() {
        let mut registry = Registry::new(limits());
        let at = |text: &str| SocketAddr::new(text.parse().expect("an address"), 5060);
        let mut kept = Vec::new();
        for text in ["2001:db8:0:1::1", "2001:db8:0:1:ffff::2"] {
            kept.push(registry.accept(Protocol::Tcp, at(text), NOW).expect("room"));
        }
        kept.push(registry.accept(Protocol::Tcp, at("2001:db8:0:2::1"), NOW).expect("room"));
        assert_eq!(registry.pushed_out().count(), 0);
        kept.push(registry.accept(Protocol::Tcp, at("2001:db8:0:1::3"), LATER).expect("the oldest of three"));
        assert_eq!(registry.pushed_out().collect::<Vec<_>>(), [kept[0].1]);
    }

    #[test]
    fn a_reader_too_slow_loses_its_connection_only() {
        let mut registry = Registry::new(limits());
        let (slow, _, _kept) = registry.accept(Protocol::Tcp, peer(1, 1), NOW).expect("room");
        let (other, _, mut outbox) = registry.accept(Protocol::Tcp, peer(2, 1), NOW).expect("room");
        let sent: Vec<bool> = (0..5).map(|_| registry.send(slow, Bytes::from_static(b"x"))).collect();
        assert_eq!(sent, [true, true, true, false, false]);
        assert!(registry.send(other, Bytes::from_static(b"y")));
        assert_eq!(next(&mut outbox), Poll::Ready(Some(Bytes::from_static(b"y"))));
        assert_eq!(registry.len(), 1);
    }

    #[test]
    fn networks_may_be_exempt_from_the_limit_per_address() {
        let mut registry = Registry::new(TransportLimits { exempt: [Network::LOOPBACK_V4].into(), ..limits() });
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let kept: Vec<_> =
            (1..=5).map(|port| registry.accept(Protocol::Tcp, local(port), NOW).expect("exempt")).collect();
        assert_eq!((kept.len(), registry.len()), (5, 5));
    }
}
