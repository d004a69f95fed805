//! Reliable provisional responses (RFC 3262): one is repeated until its PRACK. Offers in UPDATE (RFC 3311) are answered.

use super::super::RELIABLE;
use super::{Carrier, Out, State, media_port, refuse, reply};
use crate::message::{Message, ResponseBuilder};
use crate::sdp;
use schema::time::Mono;
use std::net::SocketAddr;

/// RSeq of the one that a call has.
pub(super) const RSEQ: u32 = 1;

pub(super) fn takes_reliable(invite: &Message) -> bool {
    invite.supported().any(|tag| tag.eq_ignore_ascii_case(RELIABLE))
}

impl Carrier {
    /// Waits for whatever comes first: the time to answer, or to repeat a 183 that is not acknowledged.
    pub(super) fn ring_on(&mut self, number: u64, now: Mono, out: &mut Out) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        let State::Ringing { answer_at } = call.state else { return };
        let Some((again_at, repeat)) = &mut call.early else {
            return if answer_at <= now { self.decide(number, now, out) } else { self.wait(number, answer_at) };
        };
        if now >= repeat.give_up {
            return self.finish(number, 504, now, out);
        }
        if *again_at <= now {
            *again_at = repeat.next(now);
            reply(&call.invite, call.last.clone(), out);
        }
        let at = *again_at;
        self.wait(number, at);
    }

    /// An offer is accepted as it is.
    pub(super) fn answer_update(&mut self, number: u64, update: &Message, out: &mut Out) {
        let (contact, media) = (self.contact(), SocketAddr::new(self.address.ip(), media_port(number)));
        let Some(call) = self.calls.get_mut(&number) else { return };
        call.origin = call.origin.next();
        let body = sdp::audio(call.origin, media).into();
        let response = ResponseBuilder::to_request(update, 200, Some(&call.to_tag)).contact(&contact);
        if let Ok(response) = response.body(sdp::CONTENT_TYPE, body).build() {
            reply(update, response, out);
        }
    }

    pub(super) fn on_prack(&mut self, number: u64, prack: &Message, now: Mono, out: &mut Out) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        let is_its = prack.rack().is_some_and(|rack| rack.rseq == RSEQ && rack.cseq == call.cseq);
        // Repeated: it is not known any more, unless by its transaction.
        let status = if is_its && (prack.branch() == call.prack.as_deref() || call.early.take().is_some()) {
            call.prack = prack.branch().map(Box::from);
            200
        } else {
            481
        };
        refuse(prack, status, &call.to_tag.clone(), out);
        self.ring_on(number, now, out);
    }
}
