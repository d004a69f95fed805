//! The phone's calls and registration: what its requests' outcomes and the server's requests mean.

use super::super::LINGER;
use super::early::Early;
use super::{Call, Dialog, Out, Outgoing, Owner, Phone, PhoneCall, PhoneEvent, Stage, Timer};
use crate::message::{Message, Method, NameAddr, ResponseBuilder, Uri};
use crate::sdp::{self, Origin};
use bytes::Bytes;
use schema::time::Mono;
use std::collections::BTreeMap;
use std::time::Duration;

impl Phone {
    pub(super) fn place_call(&mut self, call: PhoneCall, number: &str, now: Mono, out: &mut Out) {
        let uri = Uri::sip(Some(number), &self.config.domain, None);
        let (Ok(target), Ok(from)) = (uri, NameAddr::new(self.aor.clone()).with_tag(&self.entropy.hex::<8>())) else {
            return out.events.push(PhoneEvent::Failed { call, status: 484 });
        };
        if self.calls.len() >= self.config.most_calls || self.calls.contains_key(&call) {
            return out.events.push(PhoneEvent::Failed { call, status: 503 });
        }
        let call_id: Box<str> = self.entropy.hex::<16>().into();
        let to = NameAddr::new(target.clone());
        let dialog = Dialog { call_id: call_id.clone(), from, to, target, routes: Vec::new(), cseq: 0 };
        let origin = Origin::fresh(&mut self.entropy);
        self.by_call_id.insert(call_id, call);
        let stage = Stage::Calling;
        let (acks, early) = (BTreeMap::new(), Early::default());
        let state =
            Call { dialog, stage, unwanted: false, invite: 0, acks, origin, early, held: false, ended_by: None };
        self.calls.insert(call, state);
        let body = Bytes::from(sdp::audio(origin, self.media_address(call)));
        let outgoing = Outgoing { body: Some(body), ..Outgoing::new(Method::Invite) };
        let invite = self.send(Owner::Call(call), outgoing, now, out);
        if let Some(state) = self.calls.get_mut(&call) {
            state.invite = invite;
        }
    }

    pub(super) fn hang_up(&mut self, call: PhoneCall, now: Mono, out: &mut Out) {
        let Some(state) = self.calls.get_mut(&call) else { return };
        match state.stage {
            Stage::Calling => state.unwanted = true,
            Stage::Ringing => {
                state.unwanted = true;
                let invite = state.invite;
                self.cancel(invite, now, out);
            }
            Stage::Up => {
                state.stage = Stage::Ending;
                self.send(Owner::Call(call), Outgoing::new(Method::Bye), now, out);
            }
            Stage::Ending | Stage::Over => {}
        }
    }

    pub(super) fn on_registered(&mut self, response: &Message, status: u16, now: Mono, out: &mut Out) {
        if status >= 300 {
            self.refresh_at = None;
            return out.events.push(PhoneEvent::RegistrationFailed { status });
        }
        let own = self.contact().uri;
        let granted =
            response.contacts().iter().find(|contact| contact.uri.is_equivalent(&own)).and_then(NameAddr::expires_s);
        let present = response.contacts().iter().any(|contact| contact.uri.is_equivalent(&own));
        let expires_s = if present { granted.or(response.expires()).unwrap_or(self.config.expires_s) } else { 0 };
        self.refresh_at = (expires_s > 0).then(|| now + Duration::from_secs(u64::from(expires_s / 2).max(5)));
        if let Some(at) = self.refresh_at {
            self.timers.set(at, Timer::Refresh);
        }
        out.events.push(PhoneEvent::Registered { expires_s });
    }

    pub(super) fn on_answer(&mut self, call: PhoneCall, response: &Message, now: Mono, out: &mut Out) {
        let Some(state) = self.calls.get_mut(&call) else { return };
        state.dialog.begin(response);
        state.stage = Stage::Up;
        let unwanted = state.unwanted;
        self.acknowledge(call, response, out);
        out.events.push(PhoneEvent::Answered { call });
        if unwanted {
            self.hang_up(call, now, out);
        }
    }

    /// A repeated 2xx: its ACK was lost.
    pub(super) fn on_late_answer(&self, response: &Message, out: &mut Out) {
        let is_answer = *response.method() == Method::Invite && matches!(response.status(), Some(200..=299));
        let call = self.by_call_id.get(response.call_id()).and_then(|call| self.calls.get(call));
        if let Some(call) = call.filter(|_| is_answer) {
            out.datagrams.extend(call.acks.get(&response.cseq().0).cloned());
        }
    }

    pub(super) fn on_hung_up(&mut self, call: PhoneCall, now: Mono, out: &mut Out) {
        if self.calls.get(&call).is_some_and(|state| state.stage == Stage::Ending) {
            self.over(call, now);
            out.events.push(PhoneEvent::Ended { call, by_phone: true, q850: None });
        }
    }

    pub(super) fn over(&mut self, call: PhoneCall, now: Mono) {
        if let Some(state) = self.calls.get_mut(&call) {
            state.stage = Stage::Over;
            self.timers.set(now + LINGER, Timer::Linger(call));
        }
        self.pending.retain(|_, pending| !pending.is_change_of(call) || pending.ack.is_some());
    }

    pub(super) fn on_request(&mut self, request: &Message, now: Mono, out: &mut Out) {
        let call = self.by_call_id.get(request.call_id()).copied();
        let status = match (request.method(), call) {
            (Method::Ack, _) => return,
            (Method::Bye, Some(call)) if self.takes_bye(call, request) => {
                self.on_bye(call, request, now, out);
                200
            }
            // A probe in the dialog of a call that is over, or that there never was (RFC 3261 §12.2.2).
            (Method::Options, _) if request.to_tag().is_some() && !call.is_some_and(|call| self.is_up(call)) => 481,
            // An offer of ours is under way (RFC 3261 §14.2, RFC 3311 §5.2).
            (Method::Invite | Method::Update, Some(call)) if request.has_sdp() && self.is_changing(call) => 491,
            (Method::Invite | Method::Update | Method::Info | Method::Notify, Some(_)) | (Method::Options, _) => 200,
            (Method::Invite, None) => 486,
            (Method::Bye, _) | (Method::Cancel | Method::Update | Method::Info, None) => 481,
            (Method::Cancel, Some(_)) => 200,
            _ => 405,
        };
        self.reply(request, status, call, out);
    }

    /// Whether there is a dialog, or this is the BYE that ended it, repeated (RFC 3261 §15.1.2).
    fn takes_bye(&self, call: PhoneCall, bye: &Message) -> bool {
        let is_its = |state: &Call| {
            matches!(state.stage, Stage::Up | Stage::Ending) || state.ended_by.as_deref() == bye.branch()
        };
        self.calls.get(&call).is_some_and(is_its)
    }

    fn is_up(&self, call: PhoneCall) -> bool {
        self.calls.get(&call).is_some_and(|state| state.stage == Stage::Up)
    }

    fn on_bye(&mut self, call: PhoneCall, bye: &Message, now: Mono, out: &mut Out) {
        let up = |state: &Call| matches!(state.stage, Stage::Up | Stage::Ending);
        if !self.calls.get(&call).is_some_and(up) {
            return;
        }
        let q850 = bye.reasons().find(|reason| &*reason.protocol == "Q.850").and_then(|reason| reason.cause);
        if let Some(state) = self.calls.get_mut(&call) {
            state.ended_by = Some(bye.branch().unwrap_or_default().into());
        }
        self.over(call, now);
        self.pending.retain(|_, pending| pending.owner != Owner::Call(call));
        out.events.push(PhoneEvent::Ended { call, by_phone: false, q850 });
    }

    fn reply(&mut self, request: &Message, status: u16, call: Option<PhoneCall>, out: &mut Out) {
        let tag = self.entropy.hex::<8>();
        let mut builder = ResponseBuilder::to_request(request, status, Some(&tag));
        let describes = matches!(request.method(), Method::Invite | Method::Update) && request.has_sdp();
        if let Some(call) = call.filter(|_| status == 200 && (describes || *request.method() == Method::Invite)) {
            let media = self.media_address(call);
            if let Some(state) = self.calls.get_mut(&call) {
                state.origin = state.origin.next();
                builder = builder
                    .contact(&NameAddr::new(Uri::of_address(Some(&self.config.username), self.config.address)))
                    .body(sdp::CONTENT_TYPE, sdp::audio(state.origin, media).into());
            }
        }
        if let (Some(to), Ok(bytes)) = (request.response_address(), builder.build()) {
            out.datagrams.push((to, bytes));
        }
    }

    pub(super) fn on_linger_end(&mut self, call: PhoneCall) {
        if self.calls.get(&call).is_some_and(|state| state.stage == Stage::Over)
            && let Some(state) = self.calls.remove(&call)
        {
            self.by_call_id.remove(&state.dialog.call_id);
        }
    }
}
