//! A network of datagrams that are late, lost, repeated and overtaken, as a seed chooses; bounded.

use super::tally::Tally;
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
    /// Addresses that nothing reaches, or nothing leaves, until then.
    cut_off: BTreeMap<SocketAddr, (Cut, Mono)>,
    /// The last moment at which something arrives at each.
    newest: BTreeMap<SocketAddr, Mono>,
}

/// How somebody is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Nothing passes.
    Whole,
    /// Nothing reaches it; what it sends arrives.
    Deaf,
    /// Nothing that it sends arrives.
    Mute,
}

impl Network {
    /// An empty one.
    #[must_use]
    pub const fn new(weather: Weather, entropy: Entropy) -> Self {
        Self {
            weather,
            entropy,
            on_the_way: BTreeMap::new(),
            sent: 0,
            cut_off: BTreeMap::new(),
            newest: BTreeMap::new(),
        }
    }

    /// Sends a datagram, or loses it.
    pub fn send(&mut self, now: Mono, datagram: Datagram, tally: &mut Tally) {
        let cut =
            |address, spared| self.cut_off.get(address).is_some_and(|(cut, until)| *until > now && *cut != spared);
        if cut(&datagram.from, Cut::Deaf) || cut(&datagram.to, Cut::Mute) {
            return tally.add("datagrams of those cut off");
        }
        if self.chance(self.weather.lost) {
            return tally.add("datagrams lost");
        }
        if self.chance(self.weather.twice) {
            let again = Datagram { bytes: datagram.bytes.clone(), ..datagram };
            tally.add("datagrams repeated");
            self.dispatch(now, again, tally);
        }
        self.dispatch(now, datagram, tally);
    }

    fn dispatch(&mut self, now: Mono, datagram: Datagram, tally: &mut Tally) {
        let Weather { late, least_ms, spread_ms, late_ms, .. } = self.weather;
        let more_ms = if self.chance(late) { late_ms } else { spread_ms };
        let ms = least_ms.max(1) + self.entropy.below(more_ms + 1);
        let at = now + Duration::from_millis(ms);
        let newest = self.newest.entry(datagram.to).or_default();
        tally.add_if("datagrams overtaken", at < *newest);
        *newest = at.max(*newest);
        self.sent += 1;
        if self.on_the_way.len() < ON_THE_WAY_MAX {
            self.on_the_way.insert((at, self.sent), datagram);
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
    pub fn cut_off(&mut self, address: SocketAddr, cut: Cut, until: Mono) {
        self.cut_off.insert(address, (cut, until));
    }

    /// From now on the weather is fair and everyone can be reached.
    pub fn calm(&mut self) {
        self.weather = Weather::FAIR;
        self.cut_off.clear();
    }
}
