//! Requests of the other side within a dialog.

use super::leg::Stage;
use super::matching::ServerKey;
use super::outgoing::q850_of;
use super::timers::Timer;
use super::{Core, dispatch::ALLOW};
use crate::dialog::DialogKey;
use crate::flow::Flow;
use crate::message::{HeaderName, Message, Method, ResponseBuilder};
use schema::id::{CallId, CredentialId};
use schema::leg::{EndCause, LegEvent, LegId};
use schema::time::Now;
use schema::wrong::{self, Wrong};
use std::time::Duration;

/// BYEs of one call whose answer waits: both sides', repeated by each in new transactions.
const BYES_MAX: usize = 8;
/// How long the answer to a BYE waits for the end of its call being durable.
const SETTLED_WITHIN: Duration = Duration::from_secs(4);

impl Core {
    /// The leg whose dialog a request with a To-tag belongs to.
    pub(super) fn leg_of(&self, request: &Message) -> Option<LegId> {
        self.leg_with(request.call_id(), request.to_tag().unwrap_or_default())
    }

    /// Whether there is the dialog of a request with a To-tag.
    pub(super) fn is_of_a_dialog(&self, request: &Message) -> bool {
        self.leg_of(request).is_some() || self.ended.contains_key(&key_of(request))
    }

    pub(super) fn on_in_dialog_request(&mut self, flow: Flow, request: Message, key: ServerKey, now: Now) {
        let Some(id) = self.leg_of(&request) else {
            if *request.method() == Method::Bye
                && let Some(call) = self.ended.get(&key_of(&request)).copied()
            {
                if wrong::chosen(Wrong::DoubleCapture) {
                    self.tell(LegEvent::Ended { leg: LegId::a(call), cause: EndCause::Bye { q850: None } }, now);
                }
                return self.on_repeated_bye(flow, call, &request, now);
            }
            if let Some(request) = self.wait_for_dialog(flow, request, now) {
                self.refuse(flow, &request, 481);
            }
            return;
        };
        let Some(leg) = self.legs.get(&id) else { return };
        if !leg.dialog.is_from_peer(&request) {
            return self.on_early_request(flow, id, &request, now);
        }
        if leg.phone.is_some() && self.is_barred(flow) {
            return self.refuse(flow, &request, 403);
        }
        if leg.is_known_source(flow) {
            self.in_dialog(flow, id, &request, now);
        } else {
            self.authenticate(flow, request, key, now);
        }
    }

    /// A request from where its phone was not before: who sends it has shown a credential. It must be the call's own.
    pub(super) fn authenticated_in_dialog(
        &mut self,
        flow: Flow,
        request: &Message,
        credential: CredentialId,
        now: Now,
    ) {
        let found = self.leg_of(request).and_then(|id| Some((id, self.legs.get(&id)?.phone.as_ref()?.credential)));
        match found {
            Some((id, owner)) if owner == credential => {
                self.in_dialog(flow, id, request, now);
                self.tell_checkpoint(id, now);
            }
            Some(_) => self.answer_in_dialog(flow, request, 403, now),
            None => self.answer_in_dialog(flow, request, 481, now),
        }
    }

    fn in_dialog(&mut self, flow: Flow, id: LegId, request: &Message, now: Now) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if let Err(status) = leg.dialog.take_request(request) {
            return self.answer_in_dialog(flow, request, status, now);
        }
        let is_bye = *request.method() == Method::Bye;
        // A BYE over UDP may be repeated from before a restart; over a connection it comes once, and now.
        let shows_life = !is_bye || (leg.pulse.in_doubt && flow.protocol.is_reliable());
        if let Some(credential) = leg.phone.as_ref().map(|phone| phone.credential) {
            let way = self.phone_heard(credential, flow, request);
            self.legs.moved_to(&id, flow, way);
        }
        if shows_life {
            self.heard(id, now);
        }
        if !is_bye {
            self.phone_is_there(id, now);
        }
        if let Some(response) = self.unsupported_extensions(request) {
            return self.answer(flow, request, response, now);
        }
        match request.method() {
            Method::Bye => self.on_bye(flow, id, request, now),
            Method::Options => self.answer_in_dialog(flow, request, 200, now),
            Method::Invite | Method::Update => self.on_offer(flow, id, request, now),
            Method::Prack => self.on_prack(flow, id, request, now),
            Method::Info => self.on_info(flow, id, request, now),
            _ => {
                let response = self.unsupported_method(request);
                self.answer(flow, request, response, now);
            }
        }
    }

    /// An answer without a new To-tag: the request has ours.
    pub(super) fn answer_in_dialog(&mut self, flow: Flow, request: &Message, status: u16, now: Now) {
        let response = ResponseBuilder::to_request(request, status, None).header(HeaderName::Allow, &ALLOW);
        self.answer(flow, request, response, now);
    }

    fn on_bye(&mut self, flow: Flow, id: LegId, request: &Message, now: Now) {
        if self.legs.get(&id).is_some_and(|leg| matches!(leg.stage, Stage::Up | Stage::Answered { .. })) {
            self.answer_when_settled(flow, id.call, request, now);
        } else {
            self.answer_in_dialog(flow, request, 200, now);
        }
        let Some(leg) = self.legs.get(&id) else { return };
        let event = match &leg.stage {
            // A BYE instead of a CANCEL (RFC 3261 §15.1.2).
            Stage::Incoming(incoming) => {
                let key = incoming.key.clone();
                let response = ResponseBuilder::to_request(&incoming.invite, 487, leg.dialog.local.tag());
                self.respond(&key, response, now);
                LegEvent::Cancelled { leg: id }
            }
            Stage::Outgoing(_) => return,
            Stage::Answered { cseq, .. } => {
                let cseq = *cseq;
                self.acknowledge_unwanted(id, cseq);
                LegEvent::Ended { leg: id, cause: EndCause::Bye { q850: q850_of(request) } }
            }
            Stage::Up => LegEvent::Ended { leg: id, cause: EndCause::Bye { q850: q850_of(request) } },
        };
        self.forget_leg(id, now);
        self.tell(event, now);
    }

    /// The 200 to a BYE says that the call is over: it must not be forgotten by a crash, or the call would go on and be charged
    /// for (invariant A2). What is not durable soon is answered nevertheless: the other side waits for 64·T1 at most.
    fn answer_when_settled(&mut self, flow: Flow, call: CallId, request: &Message, now: Now) {
        let response = ResponseBuilder::to_request(request, 200, None).header(HeaderName::Allow, &ALLOW).build();
        let (key, Ok(response)) = (ServerKey::of(request, request.method()), response) else { return };
        if !self.servers.contains_key(&key) {
            self.open_server(&key, flow, request, now);
        }
        self.byes.entry(call).or_default().push((key, response));
        self.timers.set(now.mono + SETTLED_WITHIN, Timer::Bye(call));
    }

    /// In a transaction of its own.
    fn on_repeated_bye(&mut self, flow: Flow, call: CallId, request: &Message, now: Now) {
        match self.byes.get(&call) {
            Some(waiting) if waiting.len() < BYES_MAX => self.answer_when_settled(flow, call, request, now),
            Some(_) => {}
            None => self.refuse(flow, request, 200),
        }
    }

    /// Sends what has waited for the end of a call.
    pub(super) fn answer_byes(&mut self, call: CallId, now: Now) {
        for (key, response) in self.byes.remove(&call).unwrap_or_default() {
            self.respond_bytes(&key, response, now);
        }
    }

    /// Target, address or session have changed: what is stored of the leg is renewed, now or as soon as the call is up.
    pub(super) fn tell_checkpoint(&mut self, id: LegId, now: Now) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        leg.is_unsaved = !matches!(leg.stage, Stage::Up);
        if !leg.is_unsaved {
            let checkpoint = leg.checkpoint(self.config.sdp_address, now.wall);
            self.tell(LegEvent::Checkpointed { leg: id, checkpoint }, now);
        }
    }

    /// The call is up: what changed before is stored.
    pub(super) fn save_early_changes(&mut self, id: LegId, now: Now) {
        if self.legs.get(&id).is_some_and(|leg| leg.is_unsaved) {
            self.tell_checkpoint(id, now);
        }
    }
}

/// Call-ID and our tag, as a peer's request names them.
fn key_of(request: &Message) -> DialogKey {
    DialogKey::new(request.call_id(), request.to_tag().unwrap_or_default())
}
