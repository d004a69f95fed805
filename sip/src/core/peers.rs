//! Tables that are asked both by a key and for all that goes to one peer: when a connection ends, a phone moves or a carrier
//! cannot be reached, nothing is looked at but what that concerns, however much there is beside it.

use crate::flow::{Destination, Flow, Protocol};
use crate::message::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeBounds;

/// Where a request of ours goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Back the way the peer's messages come.
    Flow(Flow),
    /// To an address.
    To(Destination),
    /// Nowhere: the peer's connection over this protocol is gone.
    Gone(Protocol),
}

impl Way {
    pub(super) const fn protocol(self) -> Protocol {
        match self {
            Self::Flow(flow) => flow.protocol,
            Self::To(destination) => destination.protocol,
            Self::Gone(protocol) => protocol,
        }
    }

    /// Where it leads.
    pub(super) const fn peer(self) -> Option<SocketAddr> {
        match self {
            Self::Flow(flow) => Some(flow.peer),
            Self::To(destination) => Some(destination.address),
            Self::Gone(_) => None,
        }
    }

    /// Whether it leads to an IPv6 address.
    pub(super) const fn is_ipv6(self) -> bool {
        match self {
            Self::Flow(flow) => flow.peer.is_ipv6(),
            Self::To(destination) => destination.address.is_ipv6(),
            Self::Gone(_) => false,
        }
    }
}

/// What has a way to its peer.
pub(super) trait Bound {
    fn way(&self) -> Way;
    /// Of one that is in a table by [`ByPeer::lead`] alone, which finds it there afterwards.
    fn set_way(&mut self, way: Way);
}

/// A table. All that was put in goes to a peer until it rests. What is in it is large: it stays where it is while others come
/// and go.
pub(super) struct ByPeer<K, V> {
    all: BTreeMap<K, Box<V>>,
    /// A peer, and who goes to it; `None` is no entry, but before all of that peer.
    peers: BTreeSet<(Peer, Option<K>)>,
}

impl<K, V> Default for ByPeer<K, V> {
    fn default() -> Self {
        Self { all: BTreeMap::new(), peers: BTreeSet::new() }
    }
}

impl<K: Ord + Clone, V: Bound> ByPeer<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.all.get(key).map(|of| &**of)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.all.get_mut(key).map(|of| &mut **of)
    }

    pub(super) fn contains_key(&self, key: &K) -> bool {
        self.all.contains_key(key)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.all.iter().map(|(key, of)| (key, &**of))
    }

    pub(super) fn range(&self, keys: impl RangeBounds<K>) -> impl Iterator<Item = (&K, &V)> {
        self.all.range(keys).map(|(key, of)| (key, &**of))
    }

    /// Puts it in, in place of one that has the same key.
    pub(super) fn insert(&mut self, key: K, of: V) {
        self.remove(&key);
        self.note(&key, of.way());
        self.all.insert(key, Box::new(of));
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let of = self.all.remove(key)?;
        self.forget(key, of.way());
        Some(*of)
    }

    /// It waits for nothing from its peer any more: from now on it is found by its key alone.
    pub(super) fn rest(&mut self, key: &K) {
        if let Some(way) = self.get(key).map(V::way) {
            self.forget(key, way);
        }
    }

    /// Has it go another way from now on.
    pub(super) fn lead(&mut self, key: &K, way: Way) {
        let Some(of) = self.all.get_mut(key) else { return };
        let before = of.way();
        of.set_way(way);
        if before.peer() != way.peer() {
            self.forget(key, before);
            self.note(key, way);
        }
    }

    /// All that goes this way, in the order of keys.
    pub(super) fn over(&self, way: Way) -> impl Iterator<Item = (&K, &V)> {
        self.at_peer_of(way).filter(move |(_, of)| of.way() == way)
    }

    /// All that goes to the peer to which this way leads, by whichever way.
    pub(super) fn at_peer_of(&self, way: Way) -> impl Iterator<Item = (&K, &V)> {
        let peer = way.peer().map(bytes_of);
        let from = peer.map(|peer| self.peers.range((peer, None)..)).into_iter().flatten();
        let of_peer = from.take_while(move |(of, _)| Some(*of) == peer).filter_map(|(_, key)| key.as_ref());
        of_peer.filter_map(|key| Some((key, self.get(key)?)))
    }

    fn note(&mut self, key: &K, way: Way) {
        if let Some(peer) = way.peer() {
            self.peers.insert((bytes_of(peer), Some(key.clone())));
        }
    }

    fn forget(&mut self, key: &K, way: Way) {
        if let Some(peer) = way.peer() {
            self.peers.remove(&(bytes_of(peer), Some(key.clone())));
        }
    }
}

/// Address and port of a peer: as short as they can be, and no two peers have the same.
type Peer = [u8; 18];

/// Where responses to a request go (RFC 3261 §18.2.2, RFC 3581).
pub(super) fn reply_flow(flow: Flow, request: &Message) -> Flow {
    match (flow.protocol, request.response_address()) {
        (Protocol::Udp, Some(address)) => Flow::udp(address),
        _ => flow,
    }
}

fn bytes_of(peer: SocketAddr) -> Peer {
    let address = match peer.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut bytes = [0; 18];
    bytes[..16].copy_from_slice(&address.octets());
    bytes[16..].copy_from_slice(&peer.port().to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::ConnectionId;
    use proptest::prelude::*;

    struct Thing(Way);

    impl Bound for Thing {
        fn way(&self) -> Way {
            self.0
        }

        fn set_way(&mut self, way: Way) {
            self.0 = way;
        }
    }

    /// Ways of which several lead to one peer.
    fn ways() -> Vec<Way> {
        let peers = ["192.0.2.1:5060", "192.0.2.1:5061", "192.0.2.2:5060", "[2001:db8::1]:5060", "[2001:db8::2]:5060"];
        let over = |peer: SocketAddr| {
            let connection = |id| Flow { protocol: Protocol::Tcp, peer, connection: Some(ConnectionId(id)) };
            [
                Way::Flow(Flow::udp(peer)),
                Way::Flow(connection(1)),
                Way::Flow(connection(2)),
                Way::To(Destination::new(Protocol::Udp, peer)),
                Way::To(Destination::new(Protocol::Tcp, peer)),
            ]
        };
        let to_peers = peers.iter().flat_map(|peer| over(peer.parse().expect("an address")));
        to_peers.chain([Way::Gone(Protocol::Tcp)]).collect()
    }

    proptest! {
        #[test]
        fn what_goes_a_way_is_what_a_look_at_everything_finds(
            steps in proptest::collection::vec((0_u8..4, 0_u8..12, 0_usize..26), 0..60),
        ) {
            let ways = ways();
            let mut table = ByPeer::default();
            let mut resting = BTreeSet::new();
            for (what, key, way) in steps {
                match what {
                    0 => {
                        table.insert(key, Thing(ways[way]));
                        resting.remove(&key);
                    }
                    // One that rests goes nowhere.
                    1 if !resting.contains(&key) => table.lead(&key, ways[way]),
                    2 => {
                        table.rest(&key);
                        resting.insert(key);
                    }
                    _ => drop(table.remove(&key)),
                }
                let bound = |key: &u8, of: &Thing| of.0.peer().is_some() && !resting.contains(key);
                for way in &ways {
                    let found: Vec<u8> = table.over(*way).map(|(key, _)| *key).collect();
                    let there = table.iter().filter(|(key, of)| of.0 == *way && bound(key, of));
                    prop_assert_eq!(&found, &there.map(|(key, _)| *key).collect::<Vec<_>>());
                    let at_peer: Vec<u8> = table.at_peer_of(*way).map(|(key, _)| *key).collect();
                    let there = table.iter().filter(|(key, of)| of.0.peer() == way.peer() && bound(key, of));
                    prop_assert_eq!(&at_peer, &there.map(|(key, _)| *key).collect::<Vec<_>>());
                }
                let count = table.iter().filter(|(key, of)| bound(key, of)).count();
                prop_assert_eq!(table.peers.len(), count, "nothing stays behind");
            }
        }
    }
}
