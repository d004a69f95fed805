//! Requests within a dialog, from either side, and the end of a leg.

use super::exchange::{Owner, ServerKey, Way, reply_flow};
use super::incoming::with_sdp;
use super::leg::{Leg, Pending200, Stage, peer_way};
use super::outgoing::q850_of;
use super::timers::Timer;
use super::{Core, dispatch::ALLOW};
use crate::dialog::{DialogKey, Stored};
use crate::flow::Flow;
use crate::message::{HeaderName, Malformed, Message, Method, NameAddr, Reason, ResponseBuilder};
use crate::sdp::Origin;
use crate::transaction::{GIVE_UP, Repetition, T2};
use bytes::Bytes;
use schema::call::LegSide;
use schema::leg::{Checkpoint, EndCause, HangupCause, LegEvent, LegId};
use schema::time::Now;

/// An ended dialog answers a repeated BYE for 64·T1; this many are remembered at most.
const ENDED_MAX: usize = 100_000;

impl Core {
    /// The leg whose dialog a request with a To-tag belongs to.
    pub(super) fn leg_of(&self, request: &Message) -> Option<LegId> {
        self.dialogs.get(&key_of(request)).copied()
    }

    pub(super) fn on_in_dialog_request(&mut self, flow: Flow, request: &Message, now: Now) {
        let Some(id) = self.leg_of(request) else {
            let is_repeated_bye = *request.method() == Method::Bye && self.ended.contains_key(&key_of(request));
            return self.answer_status(flow, request, if is_repeated_bye { 200 } else { 481 }, now);
        };
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if let Err(status) = leg.dialog.take_request(request) {
            return self.answer_in_dialog(flow, request, status, now);
        }
        if leg.is_customer {
            // The newest way to the phone: behind a NAT its port may have changed.
            leg.way = Way::Flow(reply_flow(flow, request));
        }
        if self.refuse_extensions(flow, request, now) {
            return;
        }
        match request.method() {
            Method::Bye => self.on_bye(flow, id, request, now),
            Method::Options => self.answer_in_dialog(flow, request, 200, now),
            Method::Invite | Method::Update => self.on_offer(flow, id, request, now),
            _ => self.refuse_method(flow, request, 405, now),
        }
    }

    /// An answer without a new To-tag: the request has ours.
    fn answer_in_dialog(&mut self, flow: Flow, request: &Message, status: u16, now: Now) {
        let response = ResponseBuilder::to_request(request, status, None).header(HeaderName::Allow, &ALLOW);
        self.answer(flow, request, response, now);
    }

    fn on_bye(&mut self, flow: Flow, id: LegId, request: &Message, now: Now) {
        self.answer_in_dialog(flow, request, 200, now);
        let Some(leg) = self.legs.get(&id) else { return };
        let q850 = q850_of(request);
        match &leg.stage {
            // A BYE instead of a CANCEL (RFC 3261 §15.1.2).
            Stage::Incoming { key, invite } => {
                let (key, response) = (key.clone(), ResponseBuilder::to_request(invite, 487, leg.dialog.local.tag()));
                self.respond(&key, response, now);
                self.forget_leg(id, now);
                self.tell(LegEvent::Cancelled { leg: id }, now);
            }
            Stage::Outgoing(_) => {}
            Stage::Answered { cseq } => {
                let cseq = *cseq;
                self.acknowledge(id, cseq);
                self.forget_leg(id, now);
                self.tell(LegEvent::Ended { leg: id, cause: EndCause::Bye { q850 } }, now);
            }
            Stage::Up => {
                self.forget_leg(id, now);
                self.tell(LegEvent::Ended { leg: id, cause: EndCause::Bye { q850 } }, now);
            }
        }
    }

    /// A re-INVITE or UPDATE. One that changes nothing refreshes the session; one that changes something is refused, and the
    /// session goes on as it was.
    fn on_offer(&mut self, flow: Flow, id: LegId, request: &Message, now: Now) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if !leg.is_up() {
            return self.answer_in_dialog(flow, request, 491, now);
        }
        let unchanged =
            request.body().is_empty() || leg.remote_sdp.as_ref().is_some_and(|known| same_media(known, request.body()));
        if !unchanged {
            return self.answer_in_dialog(flow, request, 488, now);
        }
        let body = leg.local_sdp.clone().filter(|_| *request.method() == Method::Invite || request.has_sdp());
        let response = ResponseBuilder::to_request(request, 200, None)
            .record_route()
            .contact(&leg.contact)
            .header(HeaderName::Allow, &ALLOW);
        let response = with_sdp(response, body);
        if *request.method() == Method::Update {
            return self.answer(flow, request, response, now);
        }
        let (Some(key), Ok(bytes)) = (ServerKey::of(request, request.method()), response.build()) else { return };
        leg.ok = Some(Pending200 {
            bytes: bytes.clone(),
            flow: reply_flow(flow, request),
            cseq: request.cseq().0,
            is_first: false,
            repeat: Repetition::from(now.mono, T2),
            give_up: now.mono + GIVE_UP,
        });
        self.open_server(&key, flow, request);
        self.respond_bytes(&key, bytes, now);
        self.arm_leg(id);
    }

    /// Ends a leg in whatever state it is.
    pub(super) fn hang_up(&mut self, id: LegId, cause: HangupCause, now: Now) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        match &leg.stage {
            Stage::Incoming { .. } => {
                let status = if cause == HangupCause::ServiceFailure { 500 } else { 480 };
                self.reject(id, status, Some(cause.as_str()), None, now);
            }
            Stage::Outgoing(_) => self.withdraw(id, cause, now),
            Stage::Answered { cseq } => {
                let cseq = *cseq;
                self.acknowledge(id, cseq);
                self.bye(id, Some(cause), now);
                self.tell(LegEvent::Ended { leg: id, cause: EndCause::HungUp }, now);
            }
            // A BYE must wait for the ACK (RFC 3261 §15).
            Stage::Up if leg.ok.as_ref().is_some_and(|ok| ok.is_first) => {
                leg.hang_up.get_or_insert(cause);
            }
            Stage::Up => {
                self.bye(id, Some(cause), now);
                self.tell(LegEvent::Ended { leg: id, cause: EndCause::HungUp }, now);
            }
        }
    }

    /// Sends BYE and forgets the leg.
    pub(super) fn bye(&mut self, id: LegId, cause: Option<HangupCause>, now: Now) {
        let Some(way) = self.legs.get(&id).map(|leg| leg.way) else { return };
        let Some(via) = self.via(way.protocol(), None) else { return };
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let mut bye = leg.dialog.request(Method::Bye, &via);
        if let Some(cause) = cause {
            bye = bye.header(HeaderName::Reason, &Reason::q850(u16::from(cause.q850()), cause.as_str()));
        }
        let branch = via.branch().unwrap_or_default().to_owned();
        self.request(way, &branch, bye, Owner::Nobody, now);
        self.forget_leg(id, now);
    }

    /// The leg is over; its dialog answers repeated BYEs for a while.
    pub(super) fn forget_leg(&mut self, id: LegId, now: Now) {
        let Some(leg) = self.legs.remove(&id) else { return };
        let key = leg.dialog.key();
        self.dialogs.remove(&key);
        if matches!(leg.stage, Stage::Up | Stage::Answered { .. }) && self.ended.len() < ENDED_MAX {
            let until = now.mono + GIVE_UP;
            self.ended.insert(key.clone(), until);
            self.ended_order.push_back((until, key));
            self.timers.set(until, Timer::Ended);
        }
    }

    /// A response to a request of ours within the dialog other than INVITE.
    pub(super) fn on_in_dialog_answer(&mut self, id: LegId, response: &Message, now: Now) {
        if matches!(response.status(), Some(408 | 481)) {
            self.on_in_dialog_unanswered(id, now);
        }
    }

    /// The other side does not know the dialog any more.
    pub(super) fn on_in_dialog_unanswered(&mut self, id: LegId, now: Now) {
        if self.legs.contains_key(&id) {
            self.forget_leg(id, now);
            self.tell(LegEvent::Ended { leg: id, cause: EndCause::Lost }, now);
        }
    }

    /// Takes up an answered dialog again after a restart.
    pub(super) fn resume(&mut self, id: LegId, checkpoint: &Checkpoint, now: Now) {
        match resumed(checkpoint, id, &mut self.entropy) {
            Ok(leg) => {
                self.dialogs.insert(leg.dialog.key(), id);
                self.legs.insert(id, leg);
            }
            Err(Malformed) => self.tell(LegEvent::Ended { leg: id, cause: EndCause::Lost }, now),
        }
    }
}

fn resumed(checkpoint: &Checkpoint, id: LegId, entropy: &mut schema::entropy::Entropy) -> Result<Leg, Malformed> {
    let stored = Stored::read(checkpoint)?;
    let sdp = |text: &Option<String>| text.as_ref().map(|text| Bytes::from(text.clone()));
    Ok(Leg {
        stage: Stage::Up,
        dialog: stored.dialog()?,
        contact: NameAddr::parse(&stored.contact)?,
        way: peer_way(&stored.peer).ok_or(Malformed)?,
        is_customer: id.side == LegSide::A,
        origin: Origin::fresh(entropy),
        local_sdp: sdp(&stored.local_sdp),
        remote_sdp: sdp(&stored.remote_sdp),
        ok: None,
        ack: None,
        hang_up: None,
        armed: None,
    })
}

/// Call-ID and our tag, as a peer's request names them.
fn key_of(request: &Message) -> DialogKey {
    (request.call_id().into(), request.to_tag().unwrap_or_default().into())
}

/// Whether two session descriptions differ in nothing but their version.
fn same_media(one: &[u8], other: &[u8]) -> bool {
    let lines = |text: &[u8]| -> Vec<Vec<u8>> {
        let all = text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        all.filter(|line| !line.is_empty() && !line.starts_with(b"o=")).map(<[u8]>::to_vec).collect()
    };
    lines(one) == lines(other)
}
