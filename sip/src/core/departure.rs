//! How a request of ours leaves. One that is large for UDP goes over TCP, where the trunk has that, while its dialog stays on UDP
//! (RFC 3261 §18.1.1); when TCP is refused it leaves once more over UDP, as another transaction. Never towards a phone: its own
//! flow is the only way to it.

use super::Core;
use super::challenge::{Asked, Carrier};
use super::exchange::{ClientExchange, Owner, SentInvite};
use super::flows::WhichPhone;
use super::matching::ClientKey;
use super::peers::{Bound, Way};
use crate::flow::{Destination, Flow, Protocol};
use crate::message::{Message, Method, RequestBuilder, Via};
use bytes::Bytes;
use schema::id::TrunkId;
use schema::leg::LegId;
use schema::time::{Mono, Now};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Whoever has refused TCP is not asked again for so long.
const REFUSED_FOR: Duration = Duration::from_secs(300);
/// Most of them that are remembered.
const REFUSALS_MAX: usize = 1_024;

/// Who takes no TCP, and when it was refused.
#[derive(Default)]
pub(super) struct Refusals {
    since: BTreeMap<SocketAddr, Mono>,
    /// None is older.
    oldest: Mono,
}

impl Refusals {
    fn note(&mut self, address: SocketAddr, now: Mono) {
        if self.since.is_empty() {
            self.oldest = now;
        }
        if self.since.len() < REFUSALS_MAX {
            self.since.insert(address, now);
        }
    }

    /// Costs next to nothing when there is nothing to forget.
    pub(super) fn forget_old(&mut self, now: Mono) {
        if !self.since.is_empty() && now.since(self.oldest) >= REFUSED_FOR {
            self.since.retain(|_, since| now.since(*since) < REFUSED_FOR);
            self.oldest = self.since.values().min().copied().unwrap_or(now);
        }
    }

    #[cfg(test)]
    pub(super) fn forget_all(&mut self) {
        self.since.clear();
    }
}

/// A request that is about to leave, and what its transaction has to know.
pub(super) struct Departure {
    pub(super) way: Way,
    /// It goes over TCP because it is large.
    pub(super) is_large: bool,
    pub(super) branch: Box<str>,
    pub(super) method: Method,
    pub(super) bytes: Bytes,
    pub(super) owner: Owner,
    pub(super) asked: Asked,
    /// Of a request whose leg is gone.
    pub(super) carrier: Option<Box<Carrier>>,
    pub(super) phone: Option<Box<WhichPhone>>,
    pub(super) moves: u8,
}

impl Departure {
    /// Of a request that has its Via. `None`: it cannot be written.
    fn of(way: Way, branch: &str, request: RequestBuilder, owner: Owner) -> Option<Self> {
        let method = request.method().clone();
        let bytes =
            request.build().inspect_err(|error| tracing::warn!(%error, "a request could not be written")).ok()?;
        let (is_large, asked, carrier, phone, moves) = (false, Asked::default(), None, None, 0);
        Some(Self { way, is_large, branch: branch.into(), method, bytes, owner, asked, carrier, phone, moves })
    }

    pub(super) fn key(&self) -> ClientKey {
        ClientKey::of(&self.branch, &self.method)
    }
}

impl Core {
    /// Sends a request and begins its client transaction; it has all but its Via. False when its outcome will not be told.
    pub(super) fn request(&mut self, way: Way, request: RequestBuilder, owner: Owner, now: Now) -> bool {
        self.owned_departure(way, request, owner).is_some_and(|departure| self.begin(departure, now))
    }

    /// How a request leaves whose owner is there: with what that one's carrier has asked for, by its phone's Path.
    pub(super) fn owned_departure(&mut self, way: Way, request: RequestBuilder, owner: Owner) -> Option<Departure> {
        let request = self.signed(owner, way, request);
        let request = self.by_path(owner, way, request);
        let trunk = self.trunk_of(owner);
        self.departure(trunk, way, None, request, owner)
    }

    /// As [`Core::request`], for a request whose leg is gone: the carrier, or the phone, that it is for comes along.
    pub(super) fn request_alone(
        &mut self,
        way: Way,
        branch: Option<&str>,
        mut request: RequestBuilder,
        owner: Owner,
        (mut carrier, phone): (Option<Box<Carrier>>, Option<Box<WhichPhone>>),
        now: Now,
    ) -> bool {
        if let Some(carrier) = &mut carrier {
            request = self.signed_by(carrier, owner, way, request);
        }
        let trunk = carrier.as_ref().map(|carrier| carrier.trunk);
        let departure = self.departure(trunk, way, branch, request, owner);
        departure.is_some_and(|departure| self.begin(Departure { carrier, phone, ..departure }, now))
    }

    /// Sends the CANCEL of an INVITE, whose way and Via it has. Nobody waits for its outcome.
    pub(super) fn request_cancel(&mut self, way: Way, branch: &str, cancel: RequestBuilder, now: Now) {
        if let Some(departure) = Departure::of(way, branch, cancel, Owner::Nobody) {
            let _ = self.begin(departure, now);
        }
    }

    /// How a request leaves that has all but its Via. `None`: it cannot be written.
    pub(super) fn departure(
        &mut self,
        trunk: Option<TrunkId>,
        way: Way,
        branch: Option<&str>,
        request: RequestBuilder,
        owner: Owner,
    ) -> Option<Departure> {
        let (over, via) = self.way_and_via(trunk, way, branch, &request)?;
        let departure = Departure::of(over, via.branch().unwrap_or_default(), request.via(&via), owner)?;
        Some(Departure { is_large: over != way, ..departure })
    }

    /// Begins the transaction of an INVITE, which is given, or of another request. `None`: there is none.
    pub(super) fn begin_either(&mut self, departure: Departure, now: Now) -> Option<Option<SentInvite>> {
        if departure.method == Method::Invite {
            return self.begin_invite(departure, now).map(Some);
        }
        self.begin(departure, now).then_some(None)
    }

    /// As [`Core::begin_either`], for a request that leaves once more, with another CSeq when there is one: its leg knows it by that
    /// from now on. False: it has not left.
    pub(super) fn begin_again(&mut self, departure: Departure, cseq: Option<u32>, now: Now) -> bool {
        let owner = departure.owner;
        let sent = self.begin_either(departure, now);
        let has_left = sent.is_some();
        if let Some(cseq) = cseq.filter(|_| has_left) {
            self.update_left_again(owner, cseq);
        }
        if let Some(invite) = sent.flatten() {
            self.invite_left_again(owner, invite);
        }
        has_left
    }

    fn way_and_via(
        &mut self,
        trunk: Option<TrunkId>,
        way: Way,
        branch: Option<&str>,
        request: &RequestBuilder,
    ) -> Option<(Way, Via)> {
        let usual = self.via(way, branch)?;
        let (Some(over), Some(trunk)) = (over_tcp(way), trunk) else { return Some((way, usual)) };
        if !self.is_too_large(trunk, request.length_with(&usual)) {
            return Some((way, usual));
        }
        if over.peer().is_some_and(|peer| self.refusals.since.contains_key(&peer)) {
            // As if it had been refused now: whoever has forgotten, after a crash, comes to the same branch.
            return Some((way, self.via(way, usual.branch().map(over_udp_again).as_deref())?));
        }
        Some((over, self.via(over, usual.branch())?))
    }

    /// The trunk at whose gateway, or on whose leg, something is asked.
    pub(super) fn trunk_of(&mut self, owner: Owner) -> Option<TrunkId> {
        match owner {
            Owner::Probe(trunk, _) => Some(trunk),
            _ => self.carrier_of(owner).map(|carrier| carrier.trunk),
        }
    }

    /// No connection to this destination comes up, which was tried for what is large.
    pub(super) fn note_refusal(&mut self, destination: Destination, now: Now) {
        self.refusals.note(destination.address, now.mono);
    }

    /// Whether a request that did not get through over TCP is worth sending over UDP.
    fn is_worth_udp(&self, gone: &ClientExchange) -> bool {
        let is_there = gone.owner.leg().is_none_or(|leg| self.legs.contains_key(&leg));
        // One that has left twice may have arrived: a key would be pressed twice.
        let is_new = gone.moves == 0 || !matches!(gone.owner, Owner::Key(_));
        gone.is_large && is_there && is_new && self.is_wanted_still(gone.owner)
    }

    /// The gateway takes no TCP. False when this is no request that went over TCP for its size alone, or it is not wanted any more.
    pub(super) fn send_over_udp(&mut self, gone: ClientExchange, now: Now) -> bool {
        let owner = gone.owner;
        let Some(request) = gone.request().filter(|_| self.is_worth_udp(&gone)) else { return false };
        // Within a dialog another request may have left meanwhile. The INVITE of a call is the same after a crash.
        let cseq = if matches!(owner, Owner::Leg(_)) { None } else { self.next_cseq(owner) };
        let again = RequestBuilder::again(&request, cseq.unwrap_or(request.cseq().0));
        let (usual, mut carrier) = (gone.usual_way(), gone.carrier);
        let again = match &mut carrier {
            Some(carrier) => self.signed_by(carrier, owner, usual, again),
            None => self.signed(owner, usual, again),
        };
        let branch = over_udp_again(request.branch().unwrap_or_default());
        // Of no trunk: whatever its size.
        let departure = self.departure(None, usual, Some(&branch), again, owner);
        let Some(departure) = departure else { return false };
        let departure = Departure { asked: gone.asked, carrier, ..departure };
        self.begin_again(departure, cseq, now)
    }

    /// Sends the ACK of a 200; it has all but its Via. `trunk`: where it may go over TCP.
    pub(super) fn send_ack_sized(&mut self, trunk: Option<TrunkId>, way: Way, ack: RequestBuilder) -> Option<Bytes> {
        let (over, via) = self.way_and_via(trunk, way, None, &ack)?;
        let ack = ack.via(&via).build().ok()?;
        self.send(over, ack.clone());
        Some(ack)
    }

    /// Nobody answers an ACK: those that went to a gateway which takes no TCP leave again. True when there were any.
    pub(super) fn acknowledge_over_udp(&mut self, refused: Destination) -> bool {
        if refused.protocol != Protocol::Tcp {
            return false;
        }
        let went_there = |way, ack| way_of_ack(way, ack) == Way::To(refused) && way != Way::To(refused);
        let legs = self.legs.at_peer_of(Way::To(refused));
        let legs = legs.filter(|(_, leg)| leg.ack.as_ref().is_some_and(|ack| went_there(leg.way(), ack)));
        let all: Vec<LegId> = legs.map(|(id, _)| *id).collect();
        for id in &all {
            let Some(leg) = self.legs.get(id) else { continue };
            let Some(sent) = leg.ack.as_ref().and_then(|ack| Message::parse_datagram(ack).ok()) else { continue };
            let way = leg.way();
            let ack = RequestBuilder::again(&sent, sent.cseq().0);
            let ack = self.signed_ack(leg.carrier.as_deref(), way, ack);
            let again = self.send_ack_sized(None, way, ack);
            if let Some(leg) = self.legs.get_mut(id) {
                leg.ack = again.map(Box::new);
            }
        }
        !all.is_empty()
    }
}

/// The same way over TCP; `None` when it is not over UDP. After a restart a carrier is answered where it spoke from.
const fn over_tcp(usual: Way) -> Option<Way> {
    match usual {
        Way::Flow(Flow { protocol: Protocol::Udp, peer, .. }) => Some(Way::To(Destination::new(Protocol::Tcp, peer))),
        Way::To(destination @ Destination { protocol: Protocol::Udp, .. }) => {
            Some(Way::To(Destination { protocol: Protocol::Tcp, ..destination }))
        }
        _ => None,
    }
}

/// The branch of a request that leaves over UDP because TCP was refused.
pub(super) fn over_udp_again(branch: &str) -> String {
    format!("{branch}u")
}

/// Back from [`over_tcp`].
pub(super) const fn over_udp(large: Way) -> Way {
    match large {
        Way::To(destination) => Way::To(Destination { protocol: Protocol::Udp, ..destination }),
        other => other,
    }
}

/// The way an ACK of ours went, as its Via says, which is its first line; its dialog goes the usual way.
pub(super) fn way_of_ack(usual: Way, ack: &[u8]) -> Way {
    let lines = ack.iter().position(|byte| *byte == b'\n').map_or(&[][..], |end| &ack[end + 1..]);
    match over_tcp(usual) {
        Some(over) if lines.starts_with(b"Via: SIP/2.0/TCP") => over,
        _ => usual,
    }
}
