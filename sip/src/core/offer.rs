//! Changes of a session (RFC 3261 §14, RFC 3311): hold, another codec, another address. What the far end of one leg
//! offers is asked of the other leg by a re-INVITE, and its answer answers the offer. One offer at a time is under way in a
//! dialog (RFC 3264 §4); a second one is refused by 491, and one of ours that is refused so is tried again (RFC 3261 §14.1).
//! Before the call is answered both are UPDATEs, once the first offer was answered reliably (`reliable.rs`).

use super::change::{Change, Ours, Purpose, Theirs, Waiting};
use super::exchange::{Owner, reply_flow};
use super::incoming::{sdp_of, with_sdp};
use super::leg::{Answer, Leg, Pending200, Stage};
use super::matching::ServerKey;
use super::outgoing::ALLOW_IN_DIALOG;
use super::peers::Way;
use super::session_timer::SessionTimer;
use super::{Core, dispatch::ALLOW};
use crate::flow::Flow;
use crate::message::{HeaderName, Message, Method, RequestBuilder, ResponseBuilder};
use crate::sdp::{self, Description, Placement};
use crate::transaction::{GIVE_UP, Repetition, T2};
use bytes::Bytes;
use schema::leg::{LegEvent, LegId, Sdp};
use schema::time::{Mono, Now};
use std::time::Duration;

/// The far end of the other leg has this long to answer an offer. In an ACK, too: the carrier's own 200 waits for 64·T1.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Whoever offers is answered within this, whatever happens: sooner than it gives up an UPDATE by itself (64·T1).
const DECIDE_WITHIN: Duration = Duration::from_secs(25);
/// Whether an offer may be made now.
enum Welcome {
    Now,
    /// The far end has made another one before: 500 with a time to come back.
    Later,
    /// We have: 491.
    Glare,
}

impl Leg {
    /// What the state of the leg's INVITE says to a further offer of the far end (RFC 3261 §14.2, RFC 3311 §5.2).
    fn welcomes(&self, request: &Message) -> Welcome {
        let is_invite = *request.method() == Method::Invite;
        match &self.stage {
            _ if self.is_up() => Welcome::Now,
            Stage::Incoming { .. } | Stage::Outgoing(_) if !is_invite && self.is_answered_early() => Welcome::Now,
            // Its own INVITE is not answered yet.
            Stage::Incoming { .. } => Welcome::Later,
            _ => Welcome::Glare,
        }
    }
}

impl Core {
    /// A re-INVITE or UPDATE, or a PRACK with an offer. One that changes nothing refreshes the session; of one that changes something the other leg is
    /// asked, and until it has agreed the session goes on as it was.
    pub(super) fn on_offer(&mut self, flow: Flow, id: LegId, request: &Message, now: Now) {
        if !request.body().is_empty() && !request.has_sdp() {
            let response = self.unsupported_body(request);
            return self.answer(flow, request, response, now);
        }
        if let Some(response) = self.interval_too_small(request) {
            return self.answer(flow, request, response, now);
        }
        // Without an offer it crosses none (RFC 3311 §5.2).
        if *request.method() == Method::Update && request.body().is_empty() {
            return self.refresh(flow, id, request, now);
        }
        let Some(leg) = self.legs.get_mut(&id) else { return };
        match leg.change {
            // Both are the far end's: this one came too soon (RFC 3261 §14.2, RFC 3311 §5.2).
            Some(Change::Theirs(_)) => return self.answer_later(flow, request, now),
            Some(_) => return self.answer_in_dialog(flow, request, 491, now),
            None => {}
        }
        match leg.welcomes(request) {
            Welcome::Now => {}
            Welcome::Later => return self.answer_later(flow, request, now),
            Welcome::Glare => return self.answer_in_dialog(flow, request, 491, now),
        }
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let is_unchanged =
            request.body().is_empty() || leg.remote_sdp.as_ref().is_some_and(|known| same_media(known, request.body()));
        if is_unchanged {
            return self.refresh(flow, id, request, now);
        }
        let offer = usable_sdp(request);
        let admits = leg.pace.admits(now.mono);
        match offer {
            None => self.answer_in_dialog(flow, request, 488, now),
            Some(_) if !admits => self.answer_later(flow, request, now),
            Some(offer) => self.pass_on(flow, id, request, offer, now),
        }
    }

    /// 500 with a time to come back, 0 to 10 s.
    pub(super) fn answer_later(&mut self, flow: Flow, request: &Message, now: Now) {
        let wait = self.entropy.below(11);
        let response = ResponseBuilder::to_request(request, 500, None).header(HeaderName::RetryAfter, &wait);
        self.answer(flow, request, response, now);
    }

    /// Asks the other leg.
    fn pass_on(&mut self, flow: Flow, id: LegId, request: &Message, offer: Sdp, now: Now) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let key = ServerKey::of(request, request.method());
        let (until, reply) = (now.mono + DECIDE_WITHIN, reply_flow(flow, request));
        let theirs = Theirs { key: key.clone(), request: request.clone(), flow: reply, until };
        leg.change = Some(Change::Theirs(Box::new(theirs)));
        self.open_server(&key, flow, request, now);
        if *request.method() == Method::Invite {
            self.respond(&key, ResponseBuilder::to_request(request, 100, None), now);
        }
        self.arm_leg(id);
        self.tell(LegEvent::Offered { leg: id, offer }, now);
    }

    fn refresh(&mut self, flow: Flow, id: LegId, request: &Message, now: Now) {
        let body = match request.has_sdp() {
            true => self.session(id),
            false if *request.method() == Method::Invite => self.whole_offer(id),
            false => None,
        };
        let key = ServerKey::of(request, request.method());
        self.open_server(&key, flow, request, now);
        if self.agree(id, &key, request, reply_flow(flow, request), body, now) {
            self.tell_checkpoint(id, now);
        }
    }

    /// The 200 of a re-INVITE or UPDATE. True when it has moved the dialog's target or its timer's terms.
    fn agree(
        &mut self,
        id: LegId,
        key: &ServerKey,
        request: &Message,
        flow: Flow,
        body: Option<Bytes>,
        now: Now,
    ) -> bool {
        let Some(leg) = self.legs.get_mut(&id) else { return false };
        let response = ResponseBuilder::to_request(request, 200, None)
            .record_route()
            .contact(&leg.contact)
            .header(HeaderName::Allow, &ALLOW);
        let terms = leg.timer.as_ref().map(SessionTimer::terms);
        // Before the call is answered the INVITE's own 200 says it.
        let is_up = leg.is_up();
        if is_up {
            leg.timer = SessionTimer::asked(request, leg.timer.as_ref(), now.mono);
        }
        let response = SessionTimer::in_response(leg.timer.as_ref().filter(|_| is_up), response);
        let Ok(bytes) = with_sdp(response, body).build() else { return false };
        let has_new_terms = leg.timer.as_ref().map(SessionTimer::terms) != terms;
        if *request.method() == Method::Invite {
            leg.ok = Some(Box::new(Pending200 {
                bytes: bytes.clone(),
                way: Way::Flow(flow),
                cseq: request.cseq().0,
                kind: Answer::Refresh,
                offers: request.body().is_empty(),
                repeat: Repetition::from(now.mono, T2),
                give_up: now.mono + GIVE_UP,
            }));
        }
        let has_moved = self.take_target(id, request, now);
        self.respond_bytes(key, bytes, now);
        self.arm_leg(id);
        has_moved || has_new_terms
    }

    /// Our session description on a leg as it stands. After a restart that of an A-leg is made again out of what the other
    /// side of the call sent.
    pub(super) fn session(&mut self, id: LegId) -> Option<Bytes> {
        if let Some(known) = &self.legs.get(&id)?.local_sdp {
            return Some(known.clone());
        }
        let theirs = self.other_session(id)?;
        let description = Description::parse(&theirs).ok()?;
        self.write_session(id, &description)
    }

    /// Our offer to a far end that makes none: all there is, as for a new call (RFC 3261 §14.2), whatever was held before.
    fn whole_offer(&mut self, id: LegId) -> Option<Bytes> {
        let known = self.session(id)?;
        let mut description = Description::parse(&known).ok()?;
        let before = description.clone();
        description.lift_holds();
        if description == before {
            return Some(known);
        }
        let leg = self.legs.get_mut(&id)?;
        leg.origin = leg.origin.next();
        self.write_session(id, &description)
    }

    /// What the far end of the other leg last sent.
    fn other_session(&self, id: LegId) -> Option<Bytes> {
        let of_the_call = self.legs.range(LegId::a(id.call)..=LegId::b(id.call, u8::MAX));
        of_the_call.filter(|(other, _)| **other != id).find_map(|(_, leg)| leg.remote_sdp.clone())
    }

    /// The other leg's word on what the far end of this one offered.
    pub(super) fn answer_offer(&mut self, id: LegId, answer: Result<Sdp, u16>, now: Now) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let theirs = leg.change.take_if(|change| matches!(change, Change::Theirs(_)));
        let Some(Change::Theirs(theirs)) = theirs else { return };
        let Theirs { key, request, flow, .. } = *theirs;
        let answer = answer.as_ref().map_err(|status| *status);
        let description = answer.and_then(|sdp| Description::parse(sdp.expose().as_bytes()).map_err(|_| 500));
        match description {
            Ok(description) => {
                leg.origin = leg.origin.next();
                leg.remote_sdp = Some(request.body_alone());
                let body = self.write_session(id, &description);
                self.agree(id, &key, &request, flow, body, now);
                self.tell_checkpoint(id, now);
            }
            Err(status) => self.refuse_offer(&key, &request, refusal(status), now),
        }
    }

    fn refuse_offer(&mut self, key: &ServerKey, request: &Message, status: u16, now: Now) {
        let response = ResponseBuilder::to_request(request, status, None).header(HeaderName::Allow, &ALLOW);
        self.respond(key, response, now);
    }

    /// The answer to an offer that our 200 made, since the re-INVITE had none. What is new in it the other leg is offered;
    /// nobody waits for what it says.
    pub(super) fn on_answer_in_ack(&mut self, id: LegId, ack: &Message, now: Now) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let Some(offer) = usable_sdp(ack) else { return };
        let is_unchanged = leg.remote_sdp.as_ref().is_some_and(|known| same_media(known, ack.body()));
        if is_unchanged || !leg.pace.admits(now.mono) {
            return;
        }
        leg.remote_sdp = Some(ack.body_alone());
        self.tell(LegEvent::Offered { leg: id, offer }, now);
        self.tell_checkpoint(id, now);
    }

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
        let sdp = Bytes::from(description.rewrite(origin, self.config.sdp_address, |_, _| Placement::AsGiven));
        let via = self.via(way, None).ok_or(500_u16)?;
        if is_up {
            self.legs.lead(&id, way);
        }
        let leg = self.legs.get_mut(&id).ok_or(481_u16)?;
        let method = if is_up { Method::Invite } else { Method::Update };
        let request = leg.dialog.request_without_via(method).contact(&leg.contact);
        let request = SessionTimer::in_request(leg.timer.as_ref().filter(|_| is_up), request);
        let (cseq, trunk) = (leg.dialog.local_cseq, leg.carrier.as_ref().map(|carrier| carrier.trunk));
        let request = request.header(HeaderName::Allow, &ALLOW_IN_DIALOG).body(sdp::CONTENT_TYPE, sdp.clone());
        let branch = via.branch().unwrap_or_default();
        let owner = Owner::Offer(id);
        let (invite, carriage) = self.send_sized(owner, trunk, way, branch, request, now).ok_or(503_u16)?;
        let until = Some(until);
        let ours =
            Ours { cseq, invite, carriage, offer: offer.clone(), sdp, origin, purpose, provisional: false, until };
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

    fn tell_refusal(&mut self, id: LegId, purpose: Purpose, status: u16, now: Now) {
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
            (None, 200..=299) if is_invite => self.end_stray(Way::Flow(flow), response, now),
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
                    (Some(Change::Ours(ours)), _) => self.on_offer_refused(id, *ours, status, now),
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
        let (Some(answer), Some(leg)) = (usable_sdp(response), self.legs.get_mut(&id)) else {
            return self.tell_refusal(id, ours.purpose, 488, now);
        };
        (leg.origin, leg.local_sdp) = (ours.origin, Some(ours.sdp));
        if ours.purpose == Purpose::GivenUp {
            // The other leg never hears of it: it has what was sent before.
            self.restore(id, now);
            return self.tell_checkpoint(id, now);
        }
        let known = leg.remote_sdp.replace(response.body_alone());
        let is_news = !known.is_some_and(|known| same_media(&known, response.body()));
        match ours.purpose {
            Purpose::Asked => self.tell(LegEvent::OfferAnswered { leg: id, answer: Ok(answer) }, now),
            // An answer may be another one each time (RFC 3264 §8): then the other leg is offered it.
            _ if is_news && leg.pace.admits(now.mono) => self.tell(LegEvent::Offered { leg: id, offer: answer }, now),
            _ => {}
        }
        self.tell_checkpoint(id, now);
    }

    /// The far end agreed to what its asker was refused in the meantime: it is offered what stands on the other leg.
    pub(super) fn restore(&mut self, id: LegId, now: Now) {
        let other = self.other_session(id).and_then(|sdp| Some(Sdp::new(std::str::from_utf8(&sdp).ok()?.into())));
        if let Some(offer) = other {
            self.offer_for(id, &offer, Purpose::Restoring, now.mono + ANSWER_WITHIN, now);
        }
    }

    fn on_offer_refused(&mut self, id: LegId, ours: Ours, status: u16, now: Now) {
        let Ours { offer, purpose, until, invite, .. } = ours;
        match (status, until) {
            // A call that is not answered ends by its INVITE.
            (408 | 481, _) if invite.is_none() => self.tell_refusal(id, purpose, status, now),
            // The dialog is gone there (RFC 3261 §12.2.1.2).
            (481, _) => self.lost(id, false, now),
            (408, _) => self.lost(id, true, now),
            (491, Some(until)) if purpose != Purpose::GivenUp => {
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

    /// How long an offer of ours waits that crossed one of theirs: whoever made the Call-ID the longer (RFC 3261 §14.1).
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

    /// A change has taken too long, or the pause after glare is over.
    pub(super) fn change_time(&mut self, id: LegId, now: Now) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        match leg.change.take() {
            Some(Change::Theirs(theirs)) => self.refuse_offer(&theirs.key, &theirs.request, 504, now),
            Some(Change::Waiting(again)) => self.offer_for(id, &again.offer, again.purpose, again.until, now),
            Some(Change::Ours(ours)) => self.give_up_offer(id, ours, now),
            None => {}
        }
    }

    /// Nobody waits any longer for what our offer leads to.
    fn give_up_offer(&mut self, id: LegId, mut ours: Box<Ours>, now: Now) {
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

    /// The far end takes its re-INVITE back (RFC 3261 §9.2): the session stays as it was, and the other leg is not asked any longer.
    pub(super) fn withdraw_offer(&mut self, cancel: &Message, invite: &ServerKey, now: Now) {
        let Some((id, leg)) = self.leg_of(cancel).and_then(|id| Some((id, self.legs.get_mut(&id)?))) else { return };
        let is_it = |change: &mut Change| matches!(change, Change::Theirs(theirs) if theirs.key == *invite);
        let Some(Change::Theirs(theirs)) = leg.change.take_if(is_it) else { return };
        self.refuse_offer(&theirs.key, &theirs.request, 487, now);
        let of_the_call = LegId::a(id.call)..=LegId::b(id.call, u8::MAX);
        let asked = self.legs.range(of_the_call).filter(|(_, leg)| leg.change.as_ref().is_some_and(Change::is_asked));
        for other in asked.map(|(other, _)| *other).collect::<Vec<_>>() {
            match self.legs.get_mut(&other).and_then(|leg| leg.change.take()) {
                Some(Change::Ours(ours)) => self.give_up_offer(other, ours, now),
                _ => self.tell_refusal(other, Purpose::Asked, 504, now),
            }
        }
    }

    fn cancel_offer(&mut self, id: LegId, now: Now) {
        let Some(Leg { change: Some(Change::Ours(ours)), .. }) = self.legs.get(&id) else { return };
        let Some(invite) = &ours.invite else { return };
        let Some(sent) = invite.read() else { return };
        let (branch, way) = (invite.branch.clone(), ours.carriage.over);
        let cancel = RequestBuilder::cancel(&sent);
        let _ = self.request(way, &branch, Method::Cancel, cancel, Owner::Nobody, now);
        self.limit_client(&branch, now);
    }

    /// The leg is over: what its far end asked is answered (RFC 3261 §15.1.2), what we asked is waited for no longer than
    /// needed to acknowledge it.
    pub(super) fn drop_change(&mut self, change: Change, now: Now) {
        match change {
            Change::Theirs(theirs) => self.refuse_offer(&theirs.key, &theirs.request, 487, now),
            Change::Ours(ours) => {
                if let Some(invite) = ours.invite {
                    self.limit_client(&invite.branch, now);
                }
            }
            Change::Waiting(_) => {}
        }
    }
}

/// What the asker is told when the other side refuses: its class, and no more of what happened there.
const fn refusal(status: u16) -> u16 {
    match status {
        491 => 491,
        408 | 480 | 487 | 504 => 504,
        500..=599 => 500,
        600..=699 => 606,
        _ => 488,
    }
}

/// A session description that can be read.
pub(super) fn usable_sdp(message: &Message) -> Option<Sdp> {
    sdp_of(message).filter(|text| Description::parse(text.expose().as_bytes()).is_ok())
}

/// Whether two session descriptions differ in nothing but their version.
pub(super) fn same_media(one: &[u8], other: &[u8]) -> bool {
    let lines = |text: &[u8]| -> Vec<Vec<u8>> {
        let all = text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        all.filter(|line| !line.is_empty() && !line.starts_with(b"o=")).map(<[u8]>::to_vec).collect()
    };
    lines(one) == lines(other)
}

#[cfg(test)]
mod tests {
    use super::refusal;

    #[test]
    fn no_refusal_of_the_other_side_becomes_a_408() {
        // Of a request other than INVITE it would say nothing (RFC 4320 §4.2).
        for status in 400..=699 {
            assert!(![401, 407, 408, 481, 503].contains(&refusal(status)), "{status}");
        }
    }
}
