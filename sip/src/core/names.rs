//! Names under which carriers are found: what DNS said, for as long as it holds. The shell asks DNS and tells; until then a trunk
//! is down with that reason and what a dialog sends waits a short time.

use super::leg::{Leg, Stage};
use super::peers::{Bound, Way};
use super::timers::Timer;
use super::{Core, Output};
use crate::dialog::Dialog;
use crate::flow::{Destination, PeerName, Protocol};
use crate::message::{Message, Scheme, Uri};
use bytes::Bytes;
use schema::carrier::{Gateway, GatewayTransport, TrunkDown};
use schema::edge::{EdgeEvent, Located};
use schema::leg::LegId;
use schema::target::{GatewayName, HostName, Targets};
use schema::time::{Mono, Now};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Names of Contacts and Routes kept at a time; those of trunks come on top.
const NAMES_MAX: usize = 1_000;
/// Names that certificates have to be for, or twice as many as are in use, until those that are not are forgotten. Few in tests,
/// which are to come to that.
const PEERS: usize = if cfg!(test) { 8 } else { 10_000 };
/// An answer holds at least and at most so long, whatever its TTL says: a TTL of 0 would be a query for each call.
const HOLDS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3_600));
/// Between two attempts to look up a name that led nowhere.
const AGAIN: Duration = Duration::from_secs(30);
/// While no DNS server answers, what was known last is used for so long (RFC 8767).
const STALE: Duration = Duration::from_secs(3_600);
/// What a dialog has to send waits for a name no longer than this; then it goes where the call went.
const WAIT: Duration = Duration::from_secs(2);
/// A question that the shell does not answer is asked again.
const UNANSWERED: Duration = Duration::from_secs(60);

/// A name that is looked up.
struct Name {
    targets: Arc<Targets>,
    /// Why there are none.
    down: TrunkDown,
    /// When it is asked again, or forgotten.
    until: Mono,
    /// Until when targets that could not be refreshed are used.
    stale: Mono,
    /// Legs whose next request waits for it, until when.
    waiting: BTreeMap<LegId, Mono>,
    is_asked: bool,
}

/// All names.
#[derive(Default)]
pub(super) struct Names {
    known: BTreeMap<GatewayName, Name>,
    /// Names that certificates have to be for, by their numbers. A number is another name's only when all others were given.
    peers: BTreeMap<PeerName, HostName>,
    numbers: BTreeMap<HostName, PeerName>,
    /// The number given last, and how many names were kept then when some were forgotten.
    last: u32,
    kept: usize,
}

impl Names {
    /// Legs whose next request waits for a name.
    pub(super) fn waiting(&self) -> usize {
        self.known.values().map(|name| name.waiting.len()).sum()
    }

    /// The name with this number.
    pub(super) fn peer(&self, number: PeerName) -> Option<&HostName> {
        self.peers.get(&number)
    }

    /// Gives a name a number: not one that a connection may still have which was opened to another name.
    fn add_peer(&mut self, host: &HostName) -> PeerName {
        loop {
            self.last = self.last.wrapping_add(1);
            if let Entry::Vacant(free) = self.peers.entry(PeerName(self.last)) {
                free.insert(host.clone());
                self.numbers.insert(host.clone(), PeerName(self.last));
                return PeerName(self.last);
            }
        }
    }

    /// Forgets the names with other numbers than these, unless they are of trunks or have just been looked up.
    fn keep_peers(&mut self, used: &BTreeSet<PeerName>) {
        let asked: BTreeSet<&HostName> = self.known.keys().map(|name| &name.host).collect();
        self.peers.retain(|number, host| used.contains(number) || asked.contains(host));
        self.numbers.retain(|_, number| self.peers.contains_key(number));
        self.kept = self.peers.len();
    }

    #[cfg(test)]
    pub(super) fn peers(&self) -> usize {
        self.peers.len()
    }

    /// Where a name leads, or why nowhere.
    pub(super) fn find(&self, name: &GatewayName) -> Result<Arc<Targets>, TrunkDown> {
        match self.known.get(name) {
            Some(known) if !known.targets.is_empty() => Ok(known.targets.clone()),
            Some(known) => Err(known.down),
            None => Err(TrunkDown::Searching),
        }
    }
}

impl Core {
    /// Where a request to this gateway goes, found under this name.
    pub(super) fn destination(&mut self, gateway: Gateway, host: Option<&HostName>) -> Destination {
        host.map_or_else(|| gateway.into(), |host| self.named(gateway.into(), host))
    }

    /// A destination that was found under this name; over TLS its certificate has to be for it.
    pub(super) fn named(&mut self, destination: Destination, host: &HostName) -> Destination {
        let name = (destination.protocol == Protocol::Tls).then(|| self.number_of(host));
        Destination { name, ..destination }
    }

    pub(super) fn number_of(&mut self, host: &HostName) -> PeerName {
        if let Some(known) = self.names.numbers.get(host) {
            return *known;
        }
        if self.names.peers.len() >= PEERS.max(2 * self.names.kept) {
            self.forget_peers();
        }
        self.names.add_peer(host)
    }

    /// Forgets the names of certificates that nothing goes to any more. That looks at all there is, but once for as many new
    /// names as were kept before.
    fn forget_peers(&mut self) {
        let of_leg = |leg: &Leg| [Some(leg.way()), leg.ok.as_ref().map(|ok| ok.way)];
        let legs = self.legs.iter().flat_map(|(_, leg)| of_leg(leg)).flatten();
        let requests = self.clients.iter().map(|(_, exchange)| exchange.way());
        let leaving = self.output.iter().filter_map(|output| match output {
            Output::SendTo(destination, _) => Some(Way::To(*destination)),
            _ => None,
        });
        let used = legs.chain(requests).chain(leaving).filter_map(|way| match way {
            Way::To(destination) => destination.name,
            Way::Flow(_) | Way::Gone(_) => None,
        });
        let used = used.collect();
        self.names.keep_peers(&used);
    }

    /// Looks a name up, unless that is done or under way.
    pub(super) fn want_name(&mut self, name: &GatewayName, now: Now) {
        if self.names.known.contains_key(name) {
            return;
        }
        let new = Name {
            targets: Arc::default(),
            down: TrunkDown::Searching,
            until: now.mono,
            stale: now.mono,
            waiting: BTreeMap::new(),
            is_asked: false,
        };
        self.names.known.insert(name.clone(), new);
        self.ask_name(name, now);
    }

    fn ask_name(&mut self, name: &GatewayName, now: Now) {
        let Some(known) = self.names.known.get_mut(name) else { return };
        known.is_asked = true;
        known.until = now.mono + UNANSWERED;
        self.timers.set(known.until, Timer::Name(Box::new(name.clone())));
        self.output.push_back(Output::Edge(EdgeEvent::NameWanted(name.clone())));
    }

    /// DNS answered.
    pub(super) fn on_located(&mut self, name: &GatewayName, found: Result<Located, TrunkDown>, now: Now) {
        let Some(known) = self.names.known.get_mut(name) else { return };
        known.is_asked = false;
        match found {
            Ok(Located { targets, ttl_s }) => {
                known.until = now.mono + Duration::from_secs(ttl_s.into()).clamp(HOLDS.0, HOLDS.1);
                known.stale = known.until + STALE;
                if *known.targets != targets {
                    known.targets = Arc::new(targets);
                }
            }
            Err(why) => {
                known.until = now.mono + AGAIN;
                known.down = why;
                if why != TrunkDown::DnsSilent || known.stale <= now.mono {
                    known.targets = Arc::default();
                }
            }
        }
        let waiting = std::mem::take(&mut known.waiting);
        self.timers.set(known.until, Timer::Name(Box::new(name.clone())));
        for leg in waiting.into_keys() {
            self.way_found(leg, name, now);
        }
        self.trunks_located(name, now);
    }

    /// Its answer has run out, or somebody has waited long enough.
    pub(super) fn name_time(&mut self, name: &GatewayName, now: Now) {
        let Some(known) = self.names.known.get_mut(name) else { return };
        let tired: Vec<LegId> =
            known.waiting.extract_if(.., |_, until| *until <= now.mono).map(|(leg, _)| leg).collect();
        let is_due = known.until <= now.mono;
        for leg in tired {
            self.way_found(leg, name, now);
        }
        if !is_due {
            return;
        }
        if self.is_trunk_name(name) {
            self.ask_name(name, now);
        } else {
            self.names.known.remove(name);
        }
    }

    /// Where the requests of a leg that a carrier has answered go: by the dialog's own word (RFC 3261 §12.2.1.1). A name is
    /// looked up, and the ACK waits for it a short time; until it is known, and when it leads nowhere, they go where the call
    /// went.
    pub(super) fn find_way(&mut self, id: LegId, now: Now) {
        let Some(leg) = self.legs.get(&id) else { return };
        let way = next_way(&leg.dialog, leg.way());
        let name = name_of(leg.dialog.next_hop(), way.protocol());
        self.legs.lead(&id, way);
        let Some(name) = name else { return };
        if self.names.known.len() >= NAMES_MAX && !self.names.known.contains_key(&name) {
            return;
        }
        self.want_name(&name, now);
        let Some(known) = self.names.known.get_mut(&name) else { return };
        if known.is_asked && known.targets.is_empty() {
            known.waiting.insert(id, now.mono + WAIT);
            if let Some(leg) = self.legs.get_mut(&id) {
                leg.search = Some(Box::default());
            }
            self.timers.set(now.mono + WAIT, Timer::Name(Box::new(name)));
        } else {
            self.way_found(id, &name, now);
        }
    }

    /// Takes over the Contact of a message that refreshes the target of its dialog; true when it is another one. Without a route
    /// set a carrier's leg goes there from now on (RFC 3261 §12.2.1.1). Until its INVITE is answered only requests of its early
    /// dialog do, each by itself.
    pub(super) fn take_target(&mut self, id: LegId, message: &Message, now: Now) -> bool {
        let Some(leg) = self.legs.get_mut(&id) else { return false };
        let has_moved = leg.dialog.refresh_target(message);
        let follows = leg.carrier.is_some() && leg.dialog.routes.is_empty();
        if has_moved && follows && matches!(leg.stage, Stage::Answered { .. } | Stage::Up) {
            // What waits for the name before it has waited long enough.
            self.end_search(id);
            if let Some(leg) = self.legs.get_mut(&id) {
                // It says over what it went: should it be asked for again, it is written anew.
                leg.ack = None;
            }
            self.find_way(id, now);
        }
        has_moved
    }

    /// A leg's name is known, or is not waited for any longer. Where it leads is stored: after a restart nobody could wait for it.
    fn way_found(&mut self, id: LegId, name: &GatewayName, now: Now) {
        let is_its = |leg: &Leg| name_of(leg.dialog.next_hop(), leg.way().protocol()).as_ref() == Some(name);
        // Its target may have moved meanwhile.
        if !self.legs.get(&id).is_some_and(is_its) {
            return;
        }
        let found = self.names.find(name).ok();
        let next = found.and_then(|targets| targets.ordered(&mut self.entropy).first().copied());
        if let Some(gateway) = next {
            let destination = self.destination(gateway, Some(&name.host));
            let before = self.legs.get(&id).map(Bound::way);
            self.legs.lead(&id, Way::To(destination));
            if let Some(leg) = self.legs.get_mut(&id) {
                leg.server = Some(name.host.clone());
            }
            if before != Some(Way::To(destination)) {
                self.tell_checkpoint(id, now);
            }
        }
        self.end_search(id);
    }

    /// Nothing waits for the name of a leg's next hop any longer.
    pub(super) fn end_search(&mut self, id: LegId) {
        let search = self.legs.get_mut(&id).and_then(|leg| leg.search.take());
        if let Some((cseq, answer)) = search.and_then(|search| search.ack) {
            self.acknowledge(id, cseq, answer);
        }
    }
}

/// The name of a leg's next hop is being looked up.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// The ACK that waits for it: its CSeq, and its answer to an offer in the 200.
    pub(super) ack: Option<(u32, Option<Bytes>)>,
}

/// The name in a URI, and how it is spoken to.
fn name_of(uri: &Uri, protocol: Protocol) -> Option<GatewayName> {
    let host = HostName::parse(uri.host()).ok()?;
    let transport = match protocol_of(uri, protocol) {
        Protocol::Udp => GatewayTransport::Udp,
        Protocol::Tcp => GatewayTransport::Tcp,
        Protocol::Tls => GatewayTransport::Tls,
    };
    Some(GatewayName { transport: Some(transport), host, port: uri.port() })
}

/// What a URI is spoken to over: the call's transport, unless it has one of its own that we speak (RFC 3263 §4.1); never less
/// protected than the call.
fn protocol_of(uri: &Uri, call: Protocol) -> Protocol {
    let transport = uri.param("transport").map(str::to_ascii_lowercase);
    match (call, uri.scheme(), transport.as_deref()) {
        (Protocol::Tls, ..) | (_, Scheme::Sips, _) | (_, _, Some("tls")) => Protocol::Tls,
        (_, _, Some("tcp")) => Protocol::Tcp,
        (_, _, Some("udp")) => Protocol::Udp,
        _ => call,
    }
}

/// Requests of the dialog go where it says, when that is an address; else where the call went. Over TLS whoever is there
/// shows the certificate of whoever took the call.
pub(super) fn next_way(dialog: &Dialog, way: Way) -> Way {
    let hop = dialog.next_hop();
    let Ok(ip) = hop.host().trim_matches(['[', ']']).parse() else { return way };
    let protocol = protocol_of(hop, way.protocol());
    let port = hop.port().unwrap_or(if protocol == Protocol::Tls { 5061 } else { 5060 });
    let name = match way {
        Way::To(destination) => destination.name,
        Way::Flow(_) | Way::Gone(_) => None,
    };
    Way::To(Destination { protocol, address: SocketAddr::new(ip, port), name })
}
