//! A request with a session description that is large for UDP leaves over TCP, where the trunk has that, while its dialog stays on
//! UDP (RFC 3261 §18.1.1). When TCP is refused it leaves once more over UDP, as another transaction. Never towards a phone: its own
//! flow is the only way to it.

use super::Core;
use super::acknowledging::with_credentials;
use super::challenge::Asked;
use super::change::Change;
use super::exchange::{Owner, SentInvite};
use super::leg::{Leg, Stage};
use super::peers::{Bound, Way};
use crate::flow::{Destination, Flow, Protocol};
use crate::message::{Message, Method, RequestBuilder, Via};
use bytes::Bytes;
use schema::id::TrunkId;
use schema::leg::LegId;
use schema::time::Now;

/// How an INVITE or an early UPDATE of ours left.
pub(super) struct Carriage {
    /// Where it went: over TCP, when it is large, although its dialog goes over UDP. Its CANCEL goes there, too.
    pub(super) over: Way,
    /// To be sent over UDP when TCP is refused: the branch it left with, and the rest without Via.
    smaller: Option<Box<(Box<str>, RequestBuilder)>>,
    /// TCP was refused.
    is_udp_only: bool,
}

impl Carriage {
    /// As its dialog goes.
    pub(super) const fn usual(way: Way) -> Self {
        Self { over: way, smaller: None, is_udp_only: false }
    }
}

impl Core {
    /// Sends an INVITE or an early UPDATE; it has all but its Via. Gives the INVITE and how it left. `None`: no transaction began.
    pub(super) fn send_sized(
        &mut self,
        owner: Owner,
        trunk: Option<TrunkId>,
        way: Way,
        branch: &str,
        request: RequestBuilder,
        now: Now,
    ) -> Option<(Option<SentInvite>, Carriage)> {
        let request = self.signed(owner, request);
        let (over, via) = self.way_and_via(trunk, way, Some(branch), &request)?;
        let smaller = (over != way).then(|| Box::new((branch.into(), request.clone())));
        let sent = self.begin_either(over, branch, request.via(&via), owner, Asked::default(), now)?;
        Some((sent, Carriage { over, smaller, is_udp_only: false }))
    }

    /// Begins the transaction of an INVITE or of another request. `None`: there is none.
    fn begin_either(
        &mut self,
        way: Way,
        branch: &str,
        request: RequestBuilder,
        owner: Owner,
        asked: Asked,
        now: Now,
    ) -> Option<Option<SentInvite>> {
        if *request.method() == Method::Invite {
            return self.begin_invite(way, branch, request, owner, asked, now).map(Some);
        }
        let method = request.method().clone();
        self.begin(way, branch, method, request, owner, asked, now).then_some(None)
    }

    fn way_and_via(
        &mut self,
        trunk: Option<TrunkId>,
        way: Way,
        branch: Option<&str>,
        request: &RequestBuilder,
    ) -> Option<(Way, Via)> {
        let usual = self.via(way, branch)?;
        let over = self.way_of_size(trunk, way, &usual, request);
        let via = if over == way { usual } else { self.via(over, branch)? };
        Some((over, via))
    }

    /// Which way a request goes that has this Via when it goes the usual way.
    fn way_of_size(&self, trunk: Option<TrunkId>, usual: Way, via: &Via, request: &RequestBuilder) -> Way {
        let (Some(over), Some(trunk)) = (over_tcp(usual), trunk) else { return usual };
        if self.is_too_large(trunk, request.length_with(via)) { over } else { usual }
    }

    /// Where a request goes that leaves again with credentials: over TCP when it is large for UDP now.
    pub(super) fn grown(&mut self, owner: Owner, way: Way, branch: &str, again: &RequestBuilder) -> Way {
        let Some((carriage, trunk, usual)) = self.carriage(owner) else { return way };
        let is_udp_only = carriage.is_udp_only;
        let via = self.via(usual, Some(branch)).filter(|_| !is_udp_only);
        let over = via.map_or(usual, |via| self.way_of_size(trunk, usual, &via, again));
        if let Some((carriage, ..)) = self.carriage(owner) {
            carriage.over = over;
            carriage.smaller = (over != usual).then(|| Box::new((branch.into(), again.clone())));
        }
        over
    }

    /// The gateway takes no TCP. False when this is no request that went over TCP for its size alone, or it is not wanted any more.
    pub(super) fn send_over_udp(&mut self, owner: Owner, asked: Asked, now: Now) -> bool {
        let is_wanted = self.is_wanted_still(owner);
        let Some((carriage, _, way)) = self.carriage(owner) else { return false };
        let Some((branch, request)) = carriage.smaller.take().filter(|_| is_wanted).map(|smaller| *smaller) else {
            return false;
        };
        let branch = format!("{branch}u");
        let Some(via) = self.via(way, Some(&branch)) else { return false };
        // Within a dialog another request may have left meanwhile. The INVITE of a call is the same after a crash.
        let cseq = if matches!(owner, Owner::Offer(_)) { self.next_cseq(owner) } else { None };
        let request = cseq.into_iter().fold(request, RequestBuilder::cseq).via(&via);
        if let Some(cseq) = cseq {
            self.update_left_again(owner, cseq);
        }
        let sent = self.begin_either(way, &branch, request, owner, asked, now);
        let has_left = sent.is_some();
        if let Some(invite) = sent.flatten() {
            self.invite_left_again(owner, invite);
        }
        if let Some((carriage, ..)) = self.carriage(owner) {
            *carriage = Carriage { is_udp_only: true, ..Carriage::usual(way) };
        }
        has_left
    }

    /// It goes this way now, and its CANCEL with it.
    pub(super) fn goes_over(&mut self, owner: Owner, way: Way) {
        if let Some((carriage, ..)) = self.carriage(owner) {
            *carriage = Carriage::usual(way);
        }
    }

    /// Of the INVITE or early UPDATE under way: how it left, to which trunk, and the way of its dialog.
    fn carriage(&mut self, owner: Owner) -> Option<(&mut Carriage, Option<TrunkId>, Way)> {
        let way = match owner {
            Owner::Offer(id) => self.legs.get(&id).map(|leg| self.early_way(leg))?,
            _ => self.legs.get(&owner.leg()?)?.way(),
        };
        let Leg { stage, change, carrier, .. } = self.legs.get_mut(&owner.leg()?)?;
        match (owner, stage, change) {
            (Owner::Leg(_), Stage::Outgoing(outgoing), _) => Some((&mut outgoing.carriage, Some(outgoing.trunk), way)),
            (Owner::Offer(_), _, Some(Change::Ours(ours))) => {
                Some((&mut ours.carriage, carrier.as_ref().map(|carrier| carrier.trunk), way))
            }
            _ => None,
        }
    }

    /// Sends the ACK of a 200; it has all but its Via, and an answer when it may be large.
    pub(super) fn send_ack_sized(&mut self, id: LegId, ack: RequestBuilder, has_answer: bool) -> Option<Bytes> {
        let leg = self.legs.get(&id)?;
        let trunk = leg.carrier.as_ref().map(|carrier| carrier.trunk).filter(|_| has_answer);
        let (over, via) = self.way_and_via(trunk, leg.way(), None, &ack)?;
        let ack = ack.via(&via).build().ok()?;
        self.send(over, ack.clone());
        Some(ack)
    }

    /// Nobody answers an ACK: those that went to a gateway which takes no TCP leave again.
    pub(super) fn acknowledge_over_udp(&mut self, refused: Destination) {
        if refused.protocol != Protocol::Tcp {
            return;
        }
        let went_there = |way, ack| way_of_ack(way, ack) == Way::To(refused) && way != Way::To(refused);
        let legs = self.legs.at_peer_of(Way::To(refused));
        let legs = legs.filter(|(_, leg)| leg.ack.as_ref().is_some_and(|ack| went_there(leg.way(), ack)));
        for id in legs.map(|(id, _)| *id).collect::<Vec<_>>() {
            let Some(leg) = self.legs.get(&id) else { continue };
            let Some(sent) = leg.ack.as_ref().and_then(|ack| Message::parse_datagram(ack).ok()) else { continue };
            let ack = with_credentials(RequestBuilder::again(&sent, sent.cseq().0), leg.carrier.as_deref());
            let again = self.send_ack_sized(id, ack, false);
            if let Some(leg) = self.legs.get_mut(&id) {
                leg.ack = again.map(Box::new);
            }
        }
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

/// The way an ACK of ours went, as its Via says, which is its first line; its dialog goes the usual way.
pub(super) fn way_of_ack(usual: Way, ack: &[u8]) -> Way {
    let lines = ack.iter().position(|byte| *byte == b'\n').map_or(&[][..], |end| &ack[end + 1..]);
    match over_tcp(usual) {
        Some(over) if lines.starts_with(b"Via: SIP/2.0/TCP") => over,
        _ => usual,
    }
}
