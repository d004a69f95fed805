//! An INVITE that is large for UDP leaves over TCP, where the trunk has that, while its dialog stays on UDP (RFC 3261 §18.1.1). When
//! TCP is refused it leaves once more over UDP, as another transaction. Never towards a phone: its own flow is the only way to it.

use super::Core;
use super::challenge::Asked;
use super::change::Change;
use super::exchange::{Owner, SentInvite, Way};
use super::leg::{Leg, Stage};
use crate::flow::{Destination, Protocol};
use crate::message::{RequestBuilder, Via};
use schema::id::TrunkId;
use schema::time::Now;

/// How an INVITE of ours left.
pub(super) struct Carriage {
    /// Where it went: over TCP, when it is large, although its dialog goes over UDP. Its CANCEL goes there, too.
    pub(super) over: Way,
    /// To be sent over UDP when TCP is refused: without Via.
    smaller: Option<Box<RequestBuilder>>,
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
    /// Sends an INVITE to a carrier; it has all but its Via. `None`: nothing was sent.
    pub(super) fn send_sized(
        &mut self,
        owner: Owner,
        trunk: Option<TrunkId>,
        way: Way,
        branch: &str,
        request: RequestBuilder,
        now: Now,
    ) -> Option<(SentInvite, Carriage)> {
        let request = self.signed(owner, request);
        let usual = self.via(way, Some(branch))?;
        let over = self.way_of_size(trunk, way, &usual, &request);
        let smaller = (over != way).then(|| Box::new(request.clone()));
        let via = if over == way { usual } else { self.via(over, Some(branch))? };
        let sent = self.begin_invite(over, branch, request.via(&via), owner, Asked::default(), now)?;
        Some((sent, Carriage { over, smaller, is_udp_only: false }))
    }

    /// Which way a request goes that has this Via when it goes the usual way.
    fn way_of_size(&self, trunk: Option<TrunkId>, usual: Way, via: &Via, request: &RequestBuilder) -> Way {
        let (Way::To(destination @ Destination { protocol: Protocol::Udp, .. }), Some(trunk)) = (usual, trunk) else {
            return usual;
        };
        let is_large = self.is_too_large(trunk, request.length_with(via));
        if is_large { Way::To(Destination { protocol: Protocol::Tcp, ..destination }) } else { usual }
    }

    /// Where a request goes that leaves again with credentials: an INVITE over TCP when it is large for UDP now.
    pub(super) fn grown(&mut self, owner: Owner, way: Way, branch: &str, again: &RequestBuilder) -> Way {
        let Some((carriage, trunk, usual)) = self.carriage(owner) else { return way };
        let is_udp_only = carriage.is_udp_only;
        let via = self.via(usual, Some(branch)).filter(|_| !is_udp_only);
        let over = via.map_or(usual, |via| self.way_of_size(trunk, usual, &via, again));
        if let Some((carriage, ..)) = self.carriage(owner) {
            carriage.over = over;
            carriage.smaller = (over != usual).then(|| Box::new(again.clone()));
        }
        over
    }

    /// The gateway takes no TCP. False when this is no INVITE that went over TCP for its size alone, or it is not wanted any more.
    pub(super) fn send_over_udp(&mut self, owner: Owner, asked: Asked, now: Now) -> bool {
        let Some((carriage, _, way)) = self.carriage(owner) else { return false };
        let Some(request) = carriage.smaller.take() else { return false };
        let Some(branch) = self.branch_of_wanted(owner).map(|branch| format!("{branch}u")) else { return false };
        let Some(via) = self.via(way, Some(&branch)) else { return false };
        let Some(sent) = self.begin_invite(way, &branch, request.via(&via), owner, asked, now) else { return false };
        self.invite_left_again(owner, sent);
        if let Some((carriage, ..)) = self.carriage(owner) {
            *carriage = Carriage { is_udp_only: true, ..Carriage::usual(way) };
        }
        true
    }

    /// Of the INVITE under way: how it left, to which trunk, and the way of its dialog.
    fn carriage(&mut self, owner: Owner) -> Option<(&mut Carriage, Option<TrunkId>, Way)> {
        let Leg { stage, change, carrier, way, .. } = self.legs.get_mut(&owner.leg()?)?;
        match (owner, stage, change) {
            (Owner::Leg(_), Stage::Outgoing(outgoing), _) => Some((&mut outgoing.carriage, Some(outgoing.trunk), *way)),
            (Owner::Offer(_), _, Some(Change::Ours(ours))) if ours.invite.is_some() => {
                Some((&mut ours.carriage, carrier.as_ref().map(|carrier| carrier.trunk), *way))
            }
            _ => None,
        }
    }

    fn branch_of_wanted(&self, owner: Owner) -> Option<&str> {
        let leg = self.legs.get(&owner.leg()?)?;
        match (owner, &leg.stage, &leg.change) {
            (Owner::Leg(_), Stage::Outgoing(outgoing), _) => {
                outgoing.unwanted.is_none().then_some(&*outgoing.invite.branch)
            }
            (Owner::Offer(_), _, Some(change @ Change::Ours(ours))) if change.is_wanted() => {
                ours.invite.as_ref().map(|invite| &*invite.branch)
            }
            _ => None,
        }
    }
}
