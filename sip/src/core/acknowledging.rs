//! The ACKs of 200s to our INVITEs: of the call that is taken, after its commit, and of those that nobody wants (RFC 3261 §13.2.2.4).

use super::Core;
use super::challenge::Carrier;
use super::departure::over_udp_again;
use super::exchange::Owner;
use super::leg::{Leg, Stage};
use super::matching::ClientKey;
use super::names::next_way;
use super::peers::{Bound, Way};
use crate::dialog::Dialog;
use crate::flow::Flow;
use crate::message::{AddressText, Message, Method, RequestBuilder};
use crate::sdp::{self, Origin};
use bytes::Bytes;
use schema::leg::{HangupCause, LegId, Sdp};
use schema::time::Now;

impl Core {
    /// The commit is done, and the caller has answered if it had to: acknowledge the 200.
    pub(super) fn confirm(&mut self, id: LegId, answer: Option<&Sdp>, now: Now) {
        let Some(Leg { stage: Stage::Answered { cseq, .. }, offerless, pulse, .. }) = self.legs.get(&id) else {
            return;
        };
        let (cseq, offerless, in_doubt) = (*cseq, *offerless, pulse.in_doubt);
        let body = self.describe(id, answer.filter(|_| offerless));
        if offerless && body.is_none() {
            return self.hang_up(id, HangupCause::ServiceFailure, now);
        }
        self.acknowledge(id, cseq, body);
        if let Some(leg) = self.legs.get_mut(&id) {
            leg.stage = Stage::Up;
            leg.is_unsaved |= offerless;
        }
        self.save_early_changes(id, now);
        if in_doubt {
            self.probe_leg(id, now);
        }
        self.arm_leg(id);
    }

    pub(super) fn acknowledge(&mut self, id: LegId, cseq: u32, answer: Option<Bytes>) {
        if let Some(search) = self.legs.get_mut(&id).and_then(|leg| leg.search.as_mut()) {
            search.ack = Some((cseq, answer));
            return;
        }
        let ack = self.send_ack(id, cseq, answer);
        if let Some(leg) = self.legs.get_mut(&id) {
            leg.ack = ack.map(Box::new);
        }
    }

    /// Acknowledges the 200 of a leg that is to end before anybody talks.
    pub(super) fn acknowledge_unwanted(&mut self, id: LegId, cseq: u32) {
        let Some(leg) = self.legs.get(&id) else { return };
        let offer = leg.remote_sdp.as_ref().filter(|_| leg.offerless);
        let answer =
            offer.and_then(|offer| sdp::refuse(offer.expose().as_bytes(), leg.origin, self.config.sdp_address));
        self.acknowledge(id, cseq, answer.map(Bytes::from));
    }

    /// Acknowledges the 200 to our INVITE of this CSeq; with the answer when the 200 holds an offer.
    pub(super) fn send_ack(&mut self, id: LegId, cseq: u32, answer: Option<Bytes>) -> Option<Bytes> {
        let leg = self.legs.get(&id)?;
        let ack = with_body(leg.dialog.ack_without_via(cseq), answer);
        let way = leg.way();
        let ack = self.signed_ack(leg.carrier.as_deref(), way, ack);
        let trunk = leg.carrier.as_ref().map(|carrier| carrier.trunk);
        self.send_ack_sized(trunk, way, ack)
    }

    /// Whether a request of ours with this branch and method is under way.
    pub(super) fn is_asking(&self, branch: &str, method: &Method) -> bool {
        self.clients.contains_key(&ClientKey::of(branch, method))
    }

    /// ACK and BYE, this way, for a 200 that nobody wants: of another fork, too late, or not to be understood (RFC 3261 §13.2.2.4).
    pub(super) fn end_answered(
        &mut self,
        mut dialog: Dialog,
        way: Way,
        carrier: Option<Box<Carrier>>,
        offerless: bool,
        response: &Message,
        now: Now,
    ) {
        // When the 200 is repeated, its BYE has the branch it had before.
        let branch = format!("z9hG4bK{}", self.tag_of(response));
        // An offer must be answered, also where nobody wants it (RFC 3261 §13.2.2.4).
        let offer = Some(response.body()).filter(|_| offerless && response.has_sdp());
        let answer = offer.and_then(|offer| {
            sdp::refuse(offer, Origin::fresh(&mut self.entropy), self.config.sdp_address).map(Bytes::from)
        });
        let ack = with_body(dialog.ack_without_via(response.cseq().0), answer);
        let trunk = carrier.as_ref().map(|carrier| carrier.trunk);
        let ack = self.signed_ack(carrier.as_deref(), way, ack);
        let _ = self.send_ack_sized(trunk, way, ack);
        let is_asking = |branch: &str| self.is_asking(branch, &Method::Bye);
        if !is_asking(&branch) && !is_asking(&over_udp_again(&branch)) {
            let bye = dialog.request(Method::Bye);
            let _ = self.request_alone(way, Some(&branch), bye, Owner::Nobody, (carrier, None), now);
        }
    }

    /// A 200 of a transaction that is gone: it crossed our giving up, or answers an INVITE from before a restart. Only a
    /// configured trunk is believed to have sent one: whoever else did would make us send to others.
    pub(super) fn on_orphan(&mut self, flow: Flow, response: &Message, now: Now) {
        let is_answer = *response.method() == Method::Invite && matches!(response.status(), Some(200..=299));
        if !is_answer || !self.is_trunk(flow) {
            return;
        }
        // The 200 of a call that was taken up after a restart is repeated, since its ACK was lost with the process before.
        match self.leg_with(response.call_id(), response.from_tag().unwrap_or_default()) {
            Some(id) => {
                // Of a transaction that is under way it is not: that is not answered any more.
                if let Some(Leg { stage: Stage::Outgoing(outgoing), .. }) = self.legs.get(&id) {
                    let branch = outgoing.invite.branch.clone();
                    self.limit_client(&branch, now);
                }
                self.on_success(flow, id, response, now);
            }
            // It comes again.
            None if self.is_recovering() => {}
            None => self.end_stray(flow, response, now),
        }
    }

    /// ACK and BYE for a 200 whose leg is gone.
    pub(super) fn end_stray(&mut self, flow: Flow, response: &Message, now: Now) {
        let Some(contact) = response.contact() else { return };
        let mut routes = response.record_routes();
        routes.reverse();
        let dialog = Dialog {
            call_id: response.call_id().into(),
            local: AddressText::from(&response.from()),
            remote: AddressText::from(&response.to()),
            local_cseq: response.cseq().0,
            remote_cseq: None,
            target: contact.uri,
            routes: routes.into(),
        };
        let carrier = self.trunk_at(flow).map(Carrier::of).map(Box::new);
        // A phone is spoken to where its message came from, never where its Contact says.
        let way = if self.is_trunk(flow) { next_way(&dialog, Way::Flow(flow)) } else { Way::Flow(flow) };
        // Its transaction still knows; of one from before a restart nobody does.
        let key = ClientKey::of(response.branch().unwrap_or_default(), &Method::Invite);
        let offerless = self.clients.get(&key).is_some_and(|exchange| exchange.is_offerless);
        self.end_answered(dialog, way, carrier, offerless, response, now);
    }
}

pub(super) fn with_body(request: RequestBuilder, sdp: Option<Bytes>) -> RequestBuilder {
    match sdp {
        Some(sdp) => request.body(sdp::CONTENT_TYPE, sdp),
        None => request,
    }
}
