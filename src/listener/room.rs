//! How many connections there may be, whose, and who makes room. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// A connection, in the order of their coming.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Number(u64);

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// All connections together.
    Total,
    /// Those of this network.
    Share,
}

/// A connection that was taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// It.
    pub(super) number: Number,
    /// Which one is to end for it.
    pub(super) instead_of: Option<Number>,
}

/// All connections of a listener.
pub(super) struct Room {
    total: usize,
    share: usize,
    /// Each with the network whose share it is of.
    connections: BTreeMap<Number, Option<IpAddr>>,
    networks: BTreeMap<IpAddr, usize>,
    /// Those without a request yet, the oldest first.
    strangers: BTreeSet<Number>,
    next: u64,
}

impl Room {
    /// `total` connections, `share` of them of one network.
    pub(super) fn new(total: usize, share: usize) -> Self {
        let (connections, networks) = (BTreeMap::new(), BTreeMap::new());
        Self { total, share, connections, networks, strangers: BTreeSet::new(), next: 0 }
    }

    /// Takes a connection of a network, or of nobody's share. Where all are taken the oldest stranger makes room: a client
    /// has sent its first request long before.
    pub(super) fn accept(&mut self, network: Option<IpAddr>) -> Result<Taken, Full> {
        let count = network.and_then(|network| self.networks.get(&network)).copied().unwrap_or(0);
        if count >= self.share {
            return Err(Full::Share);
        }
        let mut instead_of = None;
        if self.connections.len() >= self.total {
            let oldest = self.strangers.first().copied().ok_or(Full::Total)?;
            self.remove(oldest);
            instead_of = Some(oldest);
        }
        let number = Number(self.next);
        self.next += 1;
        self.connections.insert(number, network);
        self.strangers.insert(number);
        if let Some(network) = network {
            *self.networks.entry(network).or_default() += 1;
        }
        Ok(Taken { number, instead_of })
    }

    /// A request came over it: it makes room for nobody.
    pub(super) fn served(&mut self, number: Number) {
        self.strangers.remove(&number);
    }

    /// Whether no request came over it yet.
    pub(super) fn is_stranger(&self, number: Number) -> bool {
        self.strangers.contains(&number)
    }

    /// It has ended.
    pub(super) fn remove(&mut self, number: Number) {
        let Some(network) = self.connections.remove(&number) else { return };
        self.strangers.remove(&number);
        if let Some(network) = network
            && let Some(count) = self.networks.get_mut(&network)
        {
            *count -= 1;
            if *count == 0 {
                self.networks.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn network(last: u8) -> Option<IpAddr> {
        Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, last)))
    }

    fn number(taken: Result<Taken, Full>) -> Number {
        taken.expect("room").number
    }

    #[test]
    fn a_network_has_a_share_that_is_given_back() {
        let mut room = Room::new(10, 2);
        let first = number(room.accept(network(1)));
        let second = number(room.accept(network(1)));
        room.served(first);
        assert_eq!(room.accept(network(1)), Err(Full::Share), "also of those that were served");
        let others = [number(room.accept(network(2))), number(room.accept(None)), number(room.accept(None))];
        room.remove(first);
        room.remove(first);
        let third = number(room.accept(network(1)));
        assert_eq!(room.accept(network(1)), Err(Full::Share));
        [second, third].into_iter().chain(others).for_each(|n| room.remove(n));
        assert_eq!((room.connections.len(), room.networks.len(), room.strangers.len()), (0, 0, 0));
    }

    #[test]
    fn where_all_are_taken_the_oldest_without_a_request_makes_room() {
        let mut room = Room::new(3, 3);
        let numbers = [1, 2, 3].map(|last| number(room.accept(network(last))));
        room.served(numbers[0]);
        let taken = room.accept(network(4)).expect("a stranger's place");
        assert_eq!(taken.instead_of, Some(numbers[1]));
        assert!(room.is_stranger(numbers[2]) && !room.is_stranger(numbers[1]) && !room.is_stranger(numbers[0]));
        room.served(numbers[1]); // too late
        room.served(numbers[2]);
        room.served(taken.number);
        assert_eq!((room.accept(network(5)), room.connections.len()), (Err(Full::Total), 3));
        room.remove(numbers[1]);
        assert_eq!(room.connections.len(), 3, "whoever made room is not counted twice");
        room.remove(numbers[0]);
        assert_eq!(room.accept(network(5)).expect("room").instead_of, None);
    }

    #[test]
    fn a_full_share_costs_nobody_a_connection() {
        let mut room = Room::new(2, 1);
        let first = number(room.accept(network(1)));
        number(room.accept(network(2)));
        assert_eq!(room.accept(network(1)), Err(Full::Share));
        assert!(room.is_stranger(first));
    }
}
