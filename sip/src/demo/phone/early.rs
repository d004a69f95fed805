//! The phone before its answer and in its changes: reliable provisional responses (RFC 3262), and offers of its own.

use super::super::RELIABLE;
use super::{Out, Outgoing, Owner, Phone, PhoneCall, PhoneEvent, Stage};
use crate::message::{Message, Method, RAck};
use crate::sdp;
use bytes::Bytes;
use schema::time::Mono;

/// What it takes.
pub(super) const ALLOW: &str = "INVITE, ACK, BYE, CANCEL, OPTIONS, INFO, PRACK, UPDATE";

/// What was acknowledged before the answer.
#[derive(Default)]
pub(super) struct Early {
    /// RSeq of the last one.
    rseq: Option<u32>,
    /// PRACKs under way.
    pracks: usize,
    /// One had the answer to the offer, and its PRACK was answered.
    is_answered: bool,
    has_session: bool,
}

impl Phone {
    /// A provisional response: acknowledged by PRACK when it is reliable. False when it is one that came before, or out of order:
    /// it is not processed (§4).
    pub(super) fn take_reliable(&mut self, call: PhoneCall, response: &Message, now: Mono, out: &mut Out) -> bool {
        let is_reliable = response.require().any(|tag| tag.eq_ignore_ascii_case(RELIABLE));
        let (Some(rseq), true) = (response.rseq(), is_reliable && self.config.takes_reliable) else { return true };
        let Some(state) = self.calls.get_mut(&call) else { return false };
        if state.early.rseq.is_some_and(|last| last.checked_add(1) != Some(rseq)) {
            return false;
        }
        state.early.rseq = Some(rseq);
        state.early.pracks += 1;
        state.early.has_session |= response.has_sdp();
        state.dialog.begin(response);
        let rack = Some(RAck { rseq, cseq: response.cseq().0, method: Method::Invite });
        self.send(Owner::Call(call), Outgoing { rack, ..Outgoing::new(Method::Prack) }, now, out);
        true
    }

    pub(super) fn on_prack_answered(&mut self, call: PhoneCall, status: u16) {
        if let Some(state) = self.calls.get_mut(&call) {
            state.early.pracks = state.early.pracks.saturating_sub(1);
            state.early.is_answered |= status < 300 && state.early.has_session;
        }
    }

    /// Acknowledges a 2xx to an INVITE.
    pub(super) fn acknowledge(&mut self, call: PhoneCall, response: &Message, out: &mut Out) {
        let branch = format!("z9hG4bK{}", self.entropy.hex::<8>());
        let cseq = response.cseq().0;
        let outgoing = Outgoing { cseq: Some(cseq), ..Outgoing::new(Method::Ack) };
        let Some(ack) = self.build(Owner::Call(call), &branch, &outgoing) else { return };
        out.datagrams.push(ack.clone());
        if let Some(state) = self.calls.get_mut(&call) {
            state.acks.insert(cseq, ack);
        }
    }

    /// Whether an offer of ours is under way.
    pub(super) fn is_changing(&self, call: PhoneCall) -> bool {
        self.pending.values().any(|pending| pending.is_change_of(call) && pending.ack.is_none())
    }

    pub(super) fn change(&mut self, call: PhoneCall, now: Mono, out: &mut Out) {
        let (is_changing, media) = (self.is_changing(call), self.media_address(call));
        let Some(state) = self.calls.get_mut(&call).filter(|_| !is_changing) else { return };
        let method = match state.stage {
            Stage::Up => Method::Invite,
            Stage::Ringing if state.early.is_answered && state.early.pracks == 0 => Method::Update,
            _ => return,
        };
        state.held = !state.held;
        state.origin = state.origin.next();
        let direction = if state.held { "a=sendonly" } else { "a=sendrecv" };
        let body = Some(Bytes::from(sdp::audio(state.origin, media).replace("a=sendrecv", direction)));
        self.send(Owner::Call(call), Outgoing { body, is_change: true, ..Outgoing::new(method) }, now, out);
    }

    pub(super) fn on_changed(&mut self, call: PhoneCall, response: &Message, out: &mut Out) {
        let status = response.status().unwrap_or(0);
        if *response.method() == Method::Invite && status < 300 {
            self.acknowledge(call, response, out);
        }
        out.events.push(PhoneEvent::Changed { call, status });
    }
}
