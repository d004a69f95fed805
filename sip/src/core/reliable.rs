//! Reliable provisional responses (RFC 3262) of both legs: what a caller who takes them is sent, and the PRACKs that carriers
//! get. Numbers and repetitions are `transaction/reliable.rs`; offers in UPDATE, which need an answer that came reliably, are in
//! `offer.rs`.

use super::Core;
use super::exchange::Owner;
use super::incoming::text_of;
use super::leg::{Incoming, Leg, Outgoing, Stage};
use super::names::next_way;
use super::offer::{same_media, usable_sdp};
use super::peers::{Bound, Way};
use crate::flow::Flow;
use crate::message::{HeaderName, Message, Method, RAck, ResponseBuilder};
use crate::sdp::Description;
use crate::transaction::{Acknowledged, Due, ReliableClient, ReliableServer};
use bytes::Bytes;
use schema::leg::{EndCause, LegEvent, LegId, Sdp};
use schema::time::Now;

/// The option tag.
pub(super) const RELIABLE: &str = "100rel";
/// Early dialogs of one INVITE whose responses are acknowledged; further forks give up by themselves.
pub(super) const FORKS_MAX: usize = 8;

/// A caller's leg whose provisional responses are reliable.
pub(super) struct Reliable {
    pub(super) server: ReliableServer,
    /// CSeq of the INVITE.
    cseq: u32,
    /// The far end takes UPDATE.
    updates: bool,
    /// The call is answered, its 200 waits for a PRACK.
    accepted: Option<Option<Sdp>>,
}

/// An early dialog of our INVITE whose responses are reliable.
pub(super) struct Fork {
    tag: Box<str>,
    client: ReliableClient,
    /// The answer to our offer, as it came reliably.
    pub(super) answer: Option<Bytes>,
    /// The far end takes UPDATE.
    updates: bool,
}

impl Reliable {
    /// For an INVITE whose caller takes reliable responses. Without an offer it gets none: the first would have to hold ours
    /// (RFC 3262 §5), which is not known before the carrier's 200.
    pub(super) fn wanted_by(invite: &Message, first: u32) -> Option<Box<Self>> {
        let is_meant = |tag: &str| tag.eq_ignore_ascii_case(RELIABLE);
        let wanted = invite.has_sdp() && invite.supported().chain(invite.require()).any(is_meant);
        wanted.then(|| {
            let updates = invite.takes_updates();
            let (server, cseq) = (ReliableServer::new(first), invite.cseq().0);
            Box::new(Self { server, cseq, updates, accepted: None })
        })
    }
}

pub(super) fn requires_reliable(message: &Message) -> bool {
    message.require().any(|tag| tag.eq_ignore_ascii_case(RELIABLE))
}

impl Outgoing {
    /// The early dialog with this tag.
    pub(super) fn fork(&self, tag: Option<&str>) -> Option<&Fork> {
        self.forks.iter().find(|fork| Some(&*fork.tag) == tag)
    }
}

impl Leg {
    /// Before the final response to its INVITE: the offer in that is answered reliably, so that the far end may make another one
    /// by UPDATE or PRACK (RFC 3311 §5.1).
    pub(super) fn is_answered_early(&self) -> bool {
        match &self.stage {
            Stage::Incoming(_) => self.reliable.as_ref().is_some_and(|reliable| reliable.server.is_answered()),
            // The first one is the dialog of the leg.
            Stage::Outgoing(outgoing) => outgoing.forks.first().is_some_and(|fork| fork.answer.is_some()),
            Stage::Answered { .. } | Stage::Up => false,
        }
    }

    /// The 200 to our INVITE came: what its early dialog has agreed reliably stands, whatever description the 200 has (RFC 3261
    /// §13.2.1). False when there is nothing of that kind.
    pub(super) fn take_early_answer(&mut self, response: &Message) -> bool {
        let Stage::Outgoing(outgoing) = &self.stage else { return false };
        let Some(answer) = outgoing.fork(response.to_tag()).and_then(|fork| fork.answer.clone()) else { return false };
        // Of the leg's own dialog an UPDATE may have changed it since.
        if self.dialog.remote.tag() != response.to_tag() {
            self.remote_sdp = text_of(&answer);
        }
        true
    }

    /// Whether we may offer by UPDATE before the final response: nothing waits for a PRACK either.
    pub(super) fn may_update_early(&self) -> bool {
        self.is_answered_early()
            && match &self.stage {
                Stage::Outgoing(outgoing) => {
                    outgoing.pracks == 0 && outgoing.forks.first().is_some_and(|fork| fork.updates)
                }
                _ => self.reliable.as_ref().is_some_and(|reliable| reliable.updates && reliable.server.is_settled()),
            }
    }
}

impl Core {
    /// A 18x for a caller that takes reliable ones.
    pub(super) fn progress_reliably(&mut self, id: LegId, status: u16, sdp: Option<&Sdp>, now: Now) {
        let takes_answer = |leg: &Leg| leg.reliable.as_ref().is_some_and(|reliable| reliable.server.takes_answer());
        let sdp = sdp.filter(|_| self.legs.get(&id).is_some_and(takes_answer));
        let body = self.describe(id, sdp);
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let (Stage::Incoming(incoming), Some(reliable)) = (&leg.stage, &mut leg.reliable) else { return };
        let Incoming { key, invite, .. } = &**incoming;
        let response = super::incoming::provisional(invite, status, &leg.dialog, &leg.contact)
            .header(HeaderName::Allow, &super::dispatch::ALLOW)
            .header(HeaderName::Require, &RELIABLE)
            .header(HeaderName::RSeq, &reliable.server.next_rseq());
        let has_sdp = body.is_some();
        let Ok(bytes) = super::incoming::with_sdp(response, body).build() else { return };
        let key = key.clone();
        if let Some(bytes) = reliable.server.push(bytes, has_sdp, now.mono) {
            self.respond_bytes(&key, bytes, now);
        }
        self.arm_leg(id);
    }

    /// A reliable response is due again, or the caller never acknowledged it: its INVITE is refused (§3).
    pub(super) fn reliable_time(&mut self, id: LegId, now: Now) {
        let Some(Leg { stage: Stage::Incoming(incoming), reliable: Some(reliable), .. }) = self.legs.get_mut(&id)
        else {
            return;
        };
        match reliable.server.on_time(now.mono) {
            Due::Nothing => {}
            Due::Repeat(bytes) => {
                let key = incoming.key.clone();
                self.respond_bytes(&key, bytes, now);
            }
            Due::GiveUp => {
                self.reject(id, 504, Some("provisional responses are not acknowledged"), None, now);
                self.tell(LegEvent::Ended { leg: id, cause: EndCause::NoPrack }, now);
            }
        }
    }

    /// PRACK: the next response may leave, or the 200 that waited. An offer in it is answered as that of an UPDATE is (§5).
    pub(super) fn on_prack(&mut self, flow: Flow, id: LegId, request: &Message, now: Now) {
        let Some(rack) = request.rack() else { return self.answer_in_dialog(flow, request, 400, now) };
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let of_invite =
            leg.reliable.as_mut().filter(|reliable| rack.cseq == reliable.cseq && rack.method == Method::Invite);
        let known =
            of_invite.map_or(Acknowledged::Unknown, |reliable| reliable.server.acknowledge(rack.rseq, now.mono));
        let Acknowledged::Known(next) = known else { return self.answer_in_dialog(flow, request, 481, now) };
        if request.body().is_empty() {
            self.answer_in_dialog(flow, request, 200, now);
        } else {
            self.on_offer(flow, id, request, now);
        }
        if let (Some(bytes), Some(Stage::Incoming(incoming))) = (next, self.legs.get(&id).map(|leg| &leg.stage)) {
            let key = incoming.key.clone();
            self.respond_bytes(&key, bytes, now);
        }
        let reliable = self.legs.get_mut(&id).and_then(|leg| leg.reliable.as_mut());
        let accepted = reliable.filter(|reliable| reliable.server.may_accept()).and_then(|held| held.accepted.take());
        if let Some(sdp) = accepted {
            self.accept(id, sdp.as_ref(), now);
        }
        self.arm_leg(id);
    }

    /// Whether the 200 of a leg may leave now; else it does when its PRACK comes (§3).
    pub(super) fn may_accept(&mut self, id: LegId, sdp: Option<&Sdp>) -> bool {
        let Some(reliable) = self.legs.get_mut(&id).and_then(|leg| leg.reliable.as_mut()) else { return true };
        if !reliable.server.may_accept() {
            reliable.accepted = Some(sdp.cloned());
            return false;
        }
        reliable.server.finish();
        true
    }

    /// The session description of the 200; none when a reliable response had the answer (RFC 6337 §3.1.1).
    pub(super) fn describe_answer(&mut self, id: LegId, sdp: Option<&Sdp>) -> Option<Bytes> {
        let answered = |leg: &&Leg| leg.reliable.as_ref().is_some_and(|reliable| reliable.server.is_answered());
        let Some(leg) = self.legs.get(&id).filter(answered) else { return self.describe_again(id, sdp) };
        let description = Description::parse(sdp?.expose().as_bytes()).ok()?;
        let stands = self.written(&description, id, leg).0;
        let leg = self.legs.get_mut(&id)?;
        leg.is_stale = !leg.told(self.config.sdp_address).is_some_and(|told| same_media(&told, &stands));
        None
    }

    /// The session description of a response to an INVITE. Where responses are not reliable the caller may have heard another one
    /// before, of another fork of the carrier's, and have kept that for the answer (RFC 3261 §13.2.1).
    pub(super) fn describe_again(&mut self, id: LegId, sdp: Option<&Sdp>) -> Option<Bytes> {
        let leg = self.legs.get(&id)?;
        let told = leg.local_sdp.clone().filter(|_| leg.reliable.is_none());
        let body = self.describe(id, sdp)?;
        let leg = self.legs.get_mut(&id)?;
        // Mostly of the same fork, which says the same.
        if let Some(told) = told.filter(|told| leg.local_sdp.as_ref() != Some(told)) {
            let told = told.text(leg.origin, self.config.sdp_address);
            leg.is_stale |= !told.is_some_and(|told| same_media(&told, &body));
        }
        Some(body)
    }

    /// The caller has acknowledged its 200: a session that was answered early otherwise than it stands (another fork of the
    /// carrier's was the one) is offered anew. A PRACK may still be on its way.
    pub(super) fn end_early(&mut self, id: LegId, now: Now) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        leg.reliable.take_if(|reliable| reliable.server.is_settled());
        if std::mem::take(&mut leg.is_stale) {
            self.restore(id, now);
        }
    }

    /// A provisional response of the carrier that may be reliable. False when it is one that came before, or out of order: it is
    /// not processed (§4).
    pub(super) fn take_provisional(&mut self, id: LegId, response: &Message, now: Now) -> bool {
        let (Some(rseq), true) = (response.rseq(), requires_reliable(response)) else { return true };
        let Some(leg) = self.legs.get_mut(&id) else { return false };
        let (Stage::Outgoing(outgoing), Some(tag)) = (&mut leg.stage, response.to_tag()) else { return false };
        if outgoing.fork(Some(tag)).is_none() && outgoing.forks.len() < FORKS_MAX {
            let tag = tag.into();
            outgoing.forks.push(Fork { tag, client: ReliableClient::default(), answer: None, updates: false });
            if outgoing.forks.len() == 1 {
                leg.dialog = leg.dialog.confirmed_by(response);
            }
        }
        let Some(fork) = outgoing.forks.iter_mut().find(|fork| &*fork.tag == tag) else { return false };
        if !fork.client.take(rseq) {
            return false;
        }
        fork.updates |= response.takes_updates();
        if fork.answer.is_none() && !leg.offerless && usable_sdp(response).is_some() {
            fork.answer = Some(response.body().clone());
        }
        outgoing.pracks += 1;
        if !self.send_prack(id, rseq, response, now) {
            self.on_prack_outcome(id);
        }
        true
    }

    /// False when its outcome will not be told.
    fn send_prack(&mut self, id: LegId, rseq: u32, response: &Message, now: Now) -> bool {
        let Some(leg) = self.legs.get(&id) else { return false };
        let is_first = leg.dialog.remote.tag() == response.to_tag();
        let mut dialog = if is_first { leg.dialog.clone() } else { leg.dialog.confirmed_by(response) };
        let way = next_way(&dialog, leg.way());
        let rack = RAck { rseq, cseq: response.cseq().0, method: Method::Invite };
        let Some(leg) = self.legs.get_mut(&id) else { return false };
        let prack = dialog.request(Method::Prack).header(HeaderName::RAck, &rack);
        // One count for all early dialogs: gaps are legal, and the one that is answered goes on with it.
        leg.dialog.local_cseq = dialog.local_cseq;
        self.request(way, prack, Owner::Prack(id), now)
    }

    /// A PRACK was answered, or will not be. What the carrier says to it changes nothing: its INVITE goes on or ends by itself.
    pub(super) fn on_prack_outcome(&mut self, id: LegId) {
        if let Some(Leg { stage: Stage::Outgoing(outgoing), .. }) = self.legs.get_mut(&id) {
            outgoing.pracks = outgoing.pracks.saturating_sub(1);
        }
    }

    /// A request in an early dialog of the carrier that no leg has: of a fork other than the first, or made by a response that
    /// was not reliable. Its session is nobody's yet, but its dialog is not denied. An UPDATE without an offer may keep it alive;
    /// the target that it names the 200 of the INVITE has, too.
    pub(super) fn on_early_request(&mut self, flow: Flow, id: LegId, request: &Message, now: Now) {
        let Some(leg) = self.legs.get(&id) else { return };
        let is_early = matches!(leg.stage, Stage::Outgoing(_)) && request.from_tag().is_some();
        if !is_early {
            return self.refuse(flow, request, 481);
        }
        if *request.method() == Method::Update && request.body().is_empty() {
            let response = ResponseBuilder::to_request(request, 200, None).contact(&leg.contact);
            let response = response.header(HeaderName::Allow, &super::dispatch::ALLOW);
            return self.answer(flow, request, self.unsupported_extensions(request).unwrap_or(response), now);
        }
        match request.method() {
            Method::Invite | Method::Update | Method::Prack | Method::Info | Method::Options | Method::Bye => {
                self.answer_later(flow, request, now);
            }
            _ => self.answer(flow, request, self.unsupported_method(request), now),
        }
    }

    /// Where a request in an early dialog of the carrier goes; the leg's own way is that of its INVITE, and of the CANCEL.
    pub(super) fn early_way(&self, leg: &Leg) -> Way {
        match leg.stage {
            Stage::Outgoing(_) => next_way(&leg.dialog, leg.way()),
            _ => self.way_of(leg),
        }
    }
}
