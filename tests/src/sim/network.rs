//! A network of datagrams that are late, lost, repeated and overtaken, as a seed chooses; bounded.

use bytes::Bytes;
use schema::entropy::Entropy;
use schema::time::Mono;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Datagrams on the way at a time; more are lost.
const ON_THE_WAY_MAX: usize = 20_000;

/// What the network does to datagrams. Chances are per thousand, times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weather {
    /// Chance of being lost.
    pub lost: u64,
    /// Chance of arriving twice.
    pub twice: u64,
    /// Chance of being very late, so that others overtake it.
    pub late: u64,
    /// Least time on the way.
    pub least_ms: u64,
    /// Up to so much more.
    pub spread_ms: u64,
    /// Up to so much more for a very late one.
    pub late_ms: u64,
}

impl Weather {
    /// Nothing is lost and nothing overtakes.
    pub const FAIR: Self = Self { lost: 0, twice: 0, late: 0, least_ms: 5, spread_ms: 0, late_ms: 0 };
}

/// A datagram.
pub struct Datagram {
    /// Its sender.
    pub from: SocketAddr,
    /// Its receiver.
    pub to: SocketAddr,
    /// What it says.
    pub bytes: Bytes,
}

/// The network.
pub struct Network {
    weather: Weather,
    entropy: Entropy,
    on_the_way: BTreeMap<(Mono, u64), Datagram>,
    sent: u64,
    /// Addresses that nothing reaches and nothing leaves until then.
    cut_off: BTreeMap<SocketAddr, Mono>,
}

impl Network {
    /// An empty one.
    #[must_use]
    pub const fn new(weather: Weather, entropy: Entropy) -> Self {
        Self { weather, entropy, on_the_way: BTreeMap::new(), sent: 0, cut_off: BTreeMap::new() }
    }

    /// Sends a datagram, or loses it.
    pub fn send(&mut self, now: Mono, datagram: Datagram) {
        let is_cut = |address| self.cut_off.get(address).is_some_and(|until| *until > now);
        if is_cut(&datagram.from) || is_cut(&datagram.to) || self.chance(self.weather.lost) {
            return;
        }
        if self.chance(self.weather.twice) {
            let again = Datagram { bytes: datagram.bytes.clone(), ..datagram };
            self.dispatch(now, again);
        }
        self.dispatch(now, datagram);
    }

    fn dispatch(&mut self, now: Mono, datagram: Datagram) {
        let Weather { late, least_ms, spread_ms, late_ms, .. } = self.weather;
        let more_ms = if self.chance(late) { late_ms } else { spread_ms };
        let ms = least_ms.max(1) + self.entropy.below(more_ms + 1);
        self.sent += 1;
        if self.on_the_way.len() < ON_THE_WAY_MAX {
            self.on_the_way.insert((now + Duration::from_millis(ms), self.sent), datagram);
        }
    }

    fn chance(&mut self, per_thousand: u64) -> bool {
        per_thousand > 0 && self.entropy.below(1_000) < per_thousand
    }

    /// When the next one arrives.
    #[must_use]
    pub fn next(&self) -> Option<Mono> {
        self.on_the_way.keys().next().map(|(at, _)| *at)
    }

    /// The next one that has arrived.
    pub fn arrived(&mut self, now: Mono) -> Option<Datagram> {
        let first = self.on_the_way.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// Cuts an address off until then.
    pub fn cut_off(&mut self, address: SocketAddr, until: Mono) {
        self.cut_off.insert(address, until);
    }

    /// From now on the weather is fair and everyone can be reached.
    pub fn calm(&mut self) {
        self.weather = Weather::FAIR;
        self.cut_off.clear();
    }
}
