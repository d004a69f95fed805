//! What we offer the far end of a leg: in a re-INVITE, before the call is answered in an UPDATE; what is said to it, and that it is
//! made again after it crossed another or a 422, brought back after it was agreed too late, or given up.

use super::Core;
use super::change::{Change, Ours, Purpose, Waiting, Word};
use super::exchange::{Owner, SentInvite};
use super::leg::Leg;
use super::offer::{ANSWER_WITHIN, usable_sdp};
use super::outgoing::ALLOW_IN_DIALOG;
use super::peers::Way;
use super::session_timer::SessionTimer;
use super::told::Told;
use crate::flow::Flow;
use crate::message::{HeaderName, Message, Method, RequestBuilder};
use crate::sdp::{self, Description};
use crate::transaction::GIVE_UP;
use schema::leg::{LegEvent, LegId, Sdp};
use schema::time::{Mono, Now};
use std::time::Duration;

impl Core {
    /// Offers the far end of a leg another session.
    pub(super) fn offer(&mut self, id: LegId, offer: &Sdp, now: Now) {
        self.offer_for(id, offer, Purpose::Asked, now.mono + ANSWER_WITHIN, now);
    }

    pub(super) fn offer_for(&mut self, id: LegId, offer: &Sdp, purpose: Purpose, until: Mono, now: Now) {
        if let Err(status) = self.try_offer(id, offer, purpose, until, now) {
            self.tell_refusal(id, purpose, status, now);
        }
    }

    /// # Errors
    /// The status that stands for why nothing was sent.
    fn try_offer(&mut self, id: LegId, offer: &Sdp, purpose: Purpose, until: Mono, now: Now) -> Result<(), u16> {
        let leg = self.legs.get(&id).ok_or(481_u16)?;
        let is_up = leg.is_up();
        if leg.change.is_some() || !(is_up || leg.may_update_early()) {
            return Err(491);
        }
        let way = self.early_way(leg);
        let origin = if purpose == Purpose::Refreshing { leg.origin } else { leg.origin.next() };
        if matches!(way, Way::Gone(_)) {
            return Err(480);
        }
        let description = Description::parse(offer.expose().as_bytes()).map_err(|_| 488_u16)?;
        let keys = self.media_keys(id.call, way.protocol());
        if description.passes_nothing(keys) {
            return Err(488);
        }
        let sdp = self.rewritten(&description, origin, keys);
        if is_up {
            self.legs.lead(&id, way);
        }
        let leg = self.legs.get_mut(&id).ok_or(481_u16)?;
        let method = if is_up { Method::Invite } else { Method::Update };
        let request = leg.dialog.request(method).contact(&leg.contact);
        let request = SessionTimer::in_request(leg.timer.as_ref().filter(|_| is_up), request);
        let cseq = leg.dialog.local_cseq;
        let request = request.header(HeaderName::Allow, &ALLOW_IN_DIALOG).body(sdp::CONTENT_TYPE, sdp);
        let departure = self.owned_departure(way, request, Owner::Offer(id));
        let invite = departure.and_then(|departure| self.begin_either(departure, now)).ok_or(503_u16)?;
        let until = Some(until);
        let ours = Ours { cseq, invite, offer: offer.clone(), keys, origin, purpose, provisional: false, until };
        if let Some(leg) = self.legs.get_mut(&id) {
            leg.change = Some(Change::Ours(Box::new(ours)));
        }
        self.arm_leg(id);
        Ok(())
    }

    /// Whether this is the request whose offer is under way on the leg.
    pub(super) fn is_its_offer(&self, id: LegId, request: Option<&Message>) -> bool {
        let change = self.legs.get(&id).and_then(|leg| leg.change.as_ref());
        matches!((change, request), (Some(Change::Ours(ours)), Some(request)) if ours.cseq == request.cseq().0)
    }

    pub(super) fn tell_refusal(&mut self, id: LegId, purpose: Purpose, status: u16, now: Now) {
        if purpose == Purpose::Asked {
            self.tell(LegEvent::OfferAnswered { leg: id, answer: Err(status) }, now);
        }
    }

    /// A response to our re-INVITE or early UPDATE.
    pub(super) fn on_offer_answer(&mut self, flow: Flow, id: LegId, response: &Message, now: Now) {
        let status = response.status().unwrap_or(0);
        let is_invite = *response.method() == Method::Invite;
        match (self.legs.get_mut(&id), status) {
            // A 200 that crossed the end of the call is acknowledged nevertheless.
            (None, 200..=299) if is_invite => self.end_stray(flow, response, now),
            (None, _) => {}
            (Some(leg), 100..=199) => {
                if let Some(Change::Ours(ours)) = leg.change.as_mut().filter(|_| is_invite) {
                    ours.provisional = true;
                    if ours.purpose == Purpose::GivenUp && ours.until.take().is_some() {
                        self.cancel_offer(id, now);
                    }
                }
            }
            (Some(leg), _) => {
                let cseq = response.cseq().0;
                let is_its = |change: &mut Change| matches!(change, Change::Ours(ours) if ours.cseq == cseq);
                match (leg.change.take_if(is_its), status) {
                    (Some(Change::Ours(ours)), 200..=299) => self.on_offer_accepted(id, *ours, response, now),
                    (Some(Change::Ours(ours)), _) => self.on_offer_refused(id, *ours, response, now),
                    // It is repeated: our ACK was lost.
                    (_, 200..=299) if is_invite => {
                        let _ = self.send_ack(id, cseq, None);
                    }
                    _ => {}
                }
            }
        }
    }

    fn on_offer_accepted(&mut self, id: LegId, ours: Ours, response: &Message, now: Now) {
        self.take_target(id, response, now);
        if ours.invite.is_some() {
            let _ = self.send_ack(id, response.cseq().0, None);
            self.refreshed(id, response, now);
        }
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let Some(answer) = usable_sdp(response) else {
            return self.on_offer_misunderstood(id, &ours, now);
        };
        (leg.origin, leg.local_sdp) = (ours.origin, Some(Told::Of(ours.offer, ours.keys)));
        if ours.purpose == Purpose::GivenUp {
            // The other leg never hears of it: it has what was sent before.
            self.restore(id, now);
            return self.tell_checkpoint(id, now);
        }
        let is_news = !leg.has_agreed(response.body());
        let is_asked = ours.purpose == Purpose::Asked;
        // An answer may be another one each time (RFC 3264 §8): then the other leg is offered it, now or at the next refresh.
        if is_asked || !is_news || leg.pace.admits(now.mono) {
            leg.remote_sdp = Some(answer.clone());
            if is_asked {
                leg.word = Word::Agreed;
                self.tell(LegEvent::OfferAnswered { leg: id, answer: Ok(answer) }, now);
            } else if is_news {
                self.tell(LegEvent::Offered { leg: id, offer: answer }, now);
            }
        }
        self.tell_checkpoint(id, now);
    }

    /// The far end agreed, and how cannot be understood: it gets back what stands, in a newer version (RFC 3264 §8), once.
    fn on_offer_misunderstood(&mut self, id: LegId, ours: &Ours, now: Now) {
        let address = self.config.sdp_address;
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if ours.purpose != Purpose::Refreshing {
            // What stands keeps its version: the far end knows another session by the one of the offer.
            leg.local_sdp = leg.told(address).map(|text| Told::Text(text.into()));
        }
        leg.origin = ours.origin;
        self.tell_refusal(id, ours.purpose, 488, now);
        match ours.purpose {
            Purpose::Refreshing | Purpose::Restoring => {}
            Purpose::Asked | Purpose::GivenUp => {
                self.restore(id, now);
                self.tell_checkpoint(id, now);
            }
        }
    }

    /// The far end agreed to what its asker was refused in the meantime: it is offered what stands on the other leg.
    pub(super) fn restore(&mut self, id: LegId, now: Now) {
        if let Some(offer) = self.other_session(id) {
            self.offer_for(id, &offer, Purpose::Restoring, now.mono + ANSWER_WITHIN, now);
        }
    }

    /// The leg at the other side of this one gets back what this one has.
    pub(super) fn restore_other(&mut self, id: LegId, now: Now) {
        let other = self.legs_of(id.call).map(|(other, _)| other).find(|other| *other != id);
        if let Some(other) = other {
            self.restore(other, now);
        }
    }

    fn on_offer_refused(&mut self, id: LegId, ours: Ours, refusal: &Message, now: Now) {
        let Ours { offer, purpose, until, invite, .. } = ours;
        let status = refusal.status().unwrap_or(0);
        // It crossed one of theirs, or what is asked for from now on is as long as they want.
        let refused = || invite.as_ref().and_then(SentInvite::read);
        let is_worth_another = match status {
            491 => true,
            422 => refused().is_some_and(|refused| self.lengthens(id, &refused, refusal)),
            _ => false,
        };
        match (status, until) {
            // A call that is not answered ends by its INVITE.
            (408 | 481, _) if invite.is_none() => self.tell_refusal(id, purpose, status, now),
            // The dialog is gone there (RFC 3261 §12.2.1.2).
            (481, _) => self.lost(id, false, now),
            (408, _) => self.lost(id, true, now),
            (_, Some(until)) if is_worth_another && purpose != Purpose::GivenUp => {
                let at = now.mono + self.glare_pause(id);
                let Some(leg) = self.legs.get_mut(&id).filter(|_| at < until) else {
                    return self.tell_refusal(id, purpose, status, now);
                };
                leg.change = Some(Change::Waiting(Box::new(Waiting { offer, purpose, at, until })));
                self.arm_leg(id);
            }
            _ => self.tell_refusal(id, purpose, status, now),
        }
    }

    /// How long a request of ours waits that is made again, as after a glare: whoever made the Call-ID the longer (RFC 3261 §14.1).
    pub(super) fn glare_pause(&mut self, id: LegId) -> Duration {
        let is_ours = self.legs.get(&id).is_some_and(|leg| leg.phone.is_none());
        let (least, steps) = if is_ours { (2_100, 191) } else { (0, 201) };
        Duration::from_millis(least + 10 * self.entropy.below(steps))
    }

    /// Nothing final came to our re-INVITE; 503 or 480: it could not be sent. Whether anybody is there the next probe shows.
    pub(super) fn on_offer_unanswered(&mut self, id: LegId, status: u16, now: Now) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let ours = leg.change.take_if(|change| matches!(change, Change::Ours(_)));
        if let Some(Change::Ours(ours)) = ours {
            self.tell_refusal(id, ours.purpose, status, now);
            self.probe_leg(id, now);
        }
    }

    /// Nobody waits any longer for what our offer leads to.
    pub(super) fn give_up_offer(&mut self, id: LegId, mut ours: Box<Ours>, now: Now) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let told = std::mem::replace(&mut ours.purpose, Purpose::GivenUp);
        let may_cancel = ours.provisional;
        // Until a provisional response it may not be cancelled; its transaction gives up by itself.
        ours.until = (!may_cancel).then_some(now.mono + GIVE_UP);
        leg.change = Some(Change::Ours(ours));
        self.arm_leg(id);
        if may_cancel {
            self.cancel_offer(id, now);
        }
        self.tell_refusal(id, told, 504, now);
    }

    fn cancel_offer(&mut self, id: LegId, now: Now) {
        let Some(Leg { change: Some(Change::Ours(ours)), .. }) = self.legs.get(&id) else { return };
        let Some(invite) = &ours.invite else { return };
        let Some(sent) = invite.read() else { return };
        let (branch, way) = (invite.branch.clone(), invite.way);
        self.request_cancel(way, &branch, RequestBuilder::cancel(&sent), now);
        self.limit_client(&branch, now);
    }
}
