//! Changes of a session (RFC 3261 §14, RFC 3311): hold, another codec, another address. What the far end of one leg
//! offers is asked of the other leg by a re-INVITE, and its answer answers the offer. One offer at a time is under way in a
//! dialog (RFC 3264 §4); a second one is refused by 491, and one of ours that is refused so is tried again (RFC 3261 §14.1).
//! Before the call is answered both are UPDATEs, once the first offer was answered reliably (`reliable.rs`). Here is what a far end
//! wants, in `offering.rs` what we offer it.

use super::change::{Change, Purpose, Theirs, Word};
use super::incoming::{sdp_of, with_sdp};
use super::leg::{Answer, Leg, Pending200, Stage};
use super::matching::ServerKey;
use super::peers::{Bound, Way, reply_flow};
use super::session_timer::SessionTimer;
use super::{Core, dispatch::ALLOW, told};
use crate::flow::{Flow, Protocol};
use crate::message::{HeaderName, Message, Method, ResponseBuilder};
use crate::sdp::{Description, Keys, Origin};
use crate::transaction::{GIVE_UP, Repetition, T2};
use bytes::Bytes;
use schema::id::CallId;
use schema::leg::{LegEvent, LegId, Sdp};
use schema::time::Now;
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
    /// Whether the far end has said this before.
    fn has_said(&self, sdp: &[u8]) -> bool {
        self.remote_sdp.as_ref().is_some_and(|known| same_media(known.expose().as_bytes(), sdp))
    }

    /// Whether it has, and the other leg nothing against it.
    pub(super) fn has_agreed(&self, sdp: &[u8]) -> bool {
        self.word == Word::Agreed && self.has_said(sdp)
    }

    /// What the state of the leg's INVITE says to a further offer of the far end (RFC 3261 §14.2, RFC 3311 §5.2).
    fn welcomes(&self, request: &Message) -> Welcome {
        let is_invite = *request.method() == Method::Invite;
        match &self.stage {
            _ if self.is_up() => Welcome::Now,
            Stage::Incoming(_) | Stage::Outgoing(_) if !is_invite && self.is_answered_early() => Welcome::Now,
            // Its own INVITE is not answered yet.
            Stage::Incoming(_) => Welcome::Later,
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
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let is_update = *request.method() == Method::Update;
        match &leg.change {
            // Without an offer it crosses none; but one UPDATE waits for another (RFC 3311 §5.2).
            Some(Change::Theirs(theirs)) if is_update && *theirs.request.method() == Method::Update => {
                return self.answer_later(flow, request, now);
            }
            _ if is_update && request.body().is_empty() => return self.refresh(flow, id, request, now),
            // Both are the far end's: this one came too soon (RFC 3261 §14.2, RFC 3311 §5.2).
            Some(Change::Theirs(_) | Change::TakenBack(_)) => return self.answer_later(flow, request, now),
            Some(_) => return self.answer_in_dialog(flow, request, 491, now),
            None => {}
        }
        match leg.welcomes(request) {
            Welcome::Now => {}
            Welcome::Later => return self.answer_later(flow, request, now),
            Welcome::Glare => return self.answer_in_dialog(flow, request, 491, now),
        }
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if request.body().is_empty() || leg.has_agreed(request.body()) {
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
        let theirs = Theirs { key: key.clone(), request: request.clone(), offer: offer.clone(), flow: reply, until };
        leg.change = Some(Change::Theirs(Box::new(theirs)));
        self.open_server(&key, flow, request, now);
        if *request.method() == Method::Invite {
            self.respond(&key, ResponseBuilder::to_request(request, 100, None), now);
        }
        self.arm_leg(id);
        self.tell(LegEvent::Offered { leg: id, offer }, now);
    }

    fn refresh(&mut self, flow: Flow, id: LegId, request: &Message, now: Now) {
        let version = self.legs.get(&id).map(|leg| leg.origin.version);
        let body = match request.has_sdp() {
            true => self.session_for(id, request.body()),
            false if *request.method() == Method::Invite => self.whole_offer(id),
            false => None,
        };
        let key = ServerKey::of(request, request.method());
        self.open_server(&key, flow, request, now);
        let has_moved = self.agree(id, &key, request, reply_flow(flow, request), body, now);
        if has_moved || self.legs.get(&id).map(|leg| leg.origin.version) != version {
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
        // Before the call is answered the INVITE's own 200 says it; what a later request says stands.
        let is_up = matches!(leg.stage, Stage::Up | Stage::Answered { .. });
        let is_newest = leg.dialog.remote_cseq == Some(request.cseq().0);
        if is_up && is_newest {
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
        let has_moved = is_newest && self.take_target(id, request, now);
        self.respond_bytes(key, bytes, now);
        self.arm_leg(id);
        has_moved || has_new_terms
    }

    /// Our session description on a leg as it stands. After a restart that of an A-leg is made again out of what the other
    /// side of the call sent.
    pub(super) fn session(&mut self, id: LegId) -> Option<Bytes> {
        if let Some(known) = self.legs.get(&id)?.told(self.config.sdp_address) {
            return Some(Bytes::copy_from_slice(&known));
        }
        let theirs = self.other_session(id)?;
        let description = Description::parse(theirs.expose().as_bytes()).ok()?;
        self.write_session(id, &description, Some(&theirs))
    }

    /// Our offer to a far end that makes none: all there is, as for a new call (RFC 3261 §14.2), whatever was held before.
    fn whole_offer(&mut self, id: LegId) -> Option<Bytes> {
        self.session_with(id, |ours| ours.lift_holds())
    }

    /// Our session description as the answer to this offer, which changes nothing: what we said last may have been an offer itself.
    fn session_for(&mut self, id: LegId, offer: &[u8]) -> Option<Bytes> {
        match Description::parse(offer) {
            Ok(offer) => self.session_with(id, |ours| ours.answer(&offer)),
            Err(_) => self.session(id),
        }
    }

    /// Our session description on a leg after this change; a newer one if it makes a difference.
    fn session_with(&mut self, id: LegId, change: impl FnOnce(&mut Description<'_>)) -> Option<Bytes> {
        let known = self.session(id)?;
        let mut description = Description::parse(&known).ok()?;
        let before = description.clone();
        change(&mut description);
        if description == before {
            return Some(known);
        }
        let leg = self.legs.get_mut(&id)?;
        leg.origin = leg.origin.next();
        self.write_session(id, &description, None)
    }

    /// The legs of a call, the caller's first.
    pub(super) fn legs_of(&self, call: CallId) -> impl Iterator<Item = (LegId, &Leg)> {
        self.legs.range(LegId::a(call)..=LegId::b(call, u8::MAX)).map(|(id, leg)| (*id, leg))
    }

    /// Whether keys of a call's media may leave over this protocol: it is TLS, and all legs of the call are. A key that is told
    /// to one side only would leave the other with what it cannot decrypt.
    pub(super) fn media_keys(&self, call: CallId, over: Protocol) -> Keys {
        let is_tls = |(_, leg): (LegId, &Leg)| leg.way().protocol() == Protocol::Tls;
        if over == Protocol::Tls && self.legs_of(call).all(is_tls) { Keys::Pass } else { Keys::Withheld }
    }

    /// A session description as it leaves.
    pub(super) fn rewritten(&self, description: &Description<'_>, origin: Origin, keys: Keys) -> Bytes {
        told::written(description, origin, self.config.sdp_address, keys).into()
    }

    /// As it leaves on a leg, and whether with the media's keys.
    pub(super) fn written(&self, description: &Description<'_>, id: LegId, leg: &Leg) -> (Bytes, Keys) {
        let keys = self.media_keys(id.call, leg.way().protocol());
        (self.rewritten(description, leg.origin, keys), keys)
    }

    /// What the far end of the other leg last sent.
    pub(super) fn other_session(&self, id: LegId) -> Option<Sdp> {
        self.legs_of(id.call).filter(|(other, _)| *other != id).find_map(|(_, leg)| leg.remote_sdp.clone())
    }

    /// The other leg's word on what the far end of this one offered.
    pub(super) fn answer_offer(&mut self, id: LegId, answer: Result<Sdp, u16>, now: Now) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let theirs = leg.change.take_if(|change| matches!(change, Change::Theirs(_) | Change::TakenBack(_)));
        let theirs = match theirs {
            Some(Change::Theirs(theirs)) => theirs,
            // The other side has agreed to what nobody wants any more.
            Some(Change::TakenBack(_)) if answer.is_ok() => return self.restore_other(id, now),
            None => return self.on_word(id, answer.is_ok(), now),
            _ => return,
        };
        let Theirs { key, request, offer, flow, .. } = *theirs;
        let answer = answer.as_ref().map_err(|status| *status);
        let described =
            answer.and_then(|sdp| Ok((sdp, Description::parse(sdp.expose().as_bytes()).map_err(|_| 500_u16)?)));
        match described {
            Ok((answer, description)) => {
                leg.origin = leg.origin.next();
                (leg.remote_sdp, leg.word) = (Some(offer), Word::Agreed);
                let body = self.write_session(id, &description, Some(answer));
                self.agree(id, &key, &request, flow, body, now);
                self.tell_checkpoint(id, now);
            }
            // It has said that before and did not go back: a refresh for its session timer, which no refusal may take away.
            Err(_) if leg.has_said(request.body()) => {
                leg.word = Word::RefusedAgain;
                let body = self.session_for(id, request.body());
                self.agree(id, &key, &request, flow, body, now);
                self.tell_checkpoint(id, now);
            }
            Err(status) => self.refuse_offer(&key, &request, refusal(status), now),
        }
    }

    /// The other leg's word on what the far end has agreed to already, in an ACK or to an offer of ours: refused, that is asked to
    /// go back; if it did not, there is nothing more to ask for at the moment.
    fn on_word(&mut self, id: LegId, is_agreed: bool, now: Now) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        match (is_agreed, leg.word) {
            (true, _) => leg.word = Word::Agreed,
            (false, Word::Agreed) => {
                leg.word = Word::Refused;
                self.restore(id, now);
            }
            (false, Word::Refused | Word::RefusedAgain) => leg.word = Word::RefusedAgain,
        }
    }

    fn refuse_offer(&mut self, key: &ServerKey, request: &Message, status: u16, now: Now) {
        let response = ResponseBuilder::to_request(request, status, None).header(HeaderName::Allow, &ALLOW);
        self.respond(key, response, now);
    }

    /// The answer to an offer that our 200 made, since the re-INVITE had none. What is new in it the other leg is offered;
    /// nobody waits for what it says. What cannot be passed on it is asked to take back.
    pub(super) fn on_answer_in_ack(&mut self, id: LegId, ack: &Message, now: Now) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if !ack.has_sdp() || leg.has_agreed(ack.body()) {
            return;
        }
        let admits = leg.pace.admits(now.mono);
        let Some(offer) = usable_sdp(ack).filter(|_| admits) else { return self.restore(id, now) };
        (leg.remote_sdp, leg.word) = (Some(offer.clone()), Word::Agreed);
        self.tell(LegEvent::Offered { leg: id, offer }, now);
        self.tell_checkpoint(id, now);
    }

    /// A change has taken too long, or the pause after glare is over.
    pub(super) fn change_time(&mut self, id: LegId, now: Now) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        match leg.change.take() {
            Some(Change::Theirs(theirs)) => {
                leg.change = Some(Change::TakenBack(now.mono + DECIDE_WITHIN));
                self.refuse_offer(&theirs.key, &theirs.request, 504, now);
            }
            Some(Change::Waiting(again)) => self.offer_for(id, &again.offer, again.purpose, again.until, now),
            Some(Change::Ours(ours)) => self.give_up_offer(id, ours, now),
            Some(Change::TakenBack(_)) | None => {}
        }
    }

    /// The far end takes its re-INVITE back (RFC 3261 §9.2): the session stays as it was, and the other leg is not asked any longer.
    pub(super) fn withdraw_offer(&mut self, cancel: &Message, invite: &ServerKey, now: Now) {
        let Some((id, leg)) = self.leg_of(cancel).and_then(|id| Some((id, self.legs.get_mut(&id)?))) else { return };
        let is_it = |change: &mut Change| matches!(change, Change::Theirs(theirs) if theirs.key == *invite);
        let Some(Change::Theirs(theirs)) = leg.change.take_if(is_it) else { return };
        leg.change = Some(Change::TakenBack(now.mono + DECIDE_WITHIN));
        self.refuse_offer(&theirs.key, &theirs.request, 487, now);
        self.arm_leg(id);
        let asked = self.legs_of(id.call).filter(|(_, leg)| leg.change.as_ref().is_some_and(Change::is_asked));
        for other in asked.map(|(other, _)| other).collect::<Vec<_>>() {
            match self.legs.get_mut(&other).and_then(|leg| leg.change.take()) {
                Some(Change::Ours(ours)) => self.give_up_offer(other, ours, now),
                _ => self.tell_refusal(other, Purpose::Asked, 504, now),
            }
        }
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
            Change::Waiting(_) | Change::TakenBack(_) => {}
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

/// A session description that can be read and would not leave the other leg with silence, as one of a fax alone would.
pub(super) fn usable_sdp(message: &Message) -> Option<Sdp> {
    sdp_of(message).filter(|text| is_usable(text.expose().as_bytes(), Keys::Pass))
}

/// Whether it can be passed on: what nothing passes of is refused by 488 (RFC 3261 §14.2).
pub(super) fn is_usable(sdp: &[u8], keys: Keys) -> bool {
    Description::parse(sdp).is_ok_and(|description| !description.passes_nothing(keys))
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
