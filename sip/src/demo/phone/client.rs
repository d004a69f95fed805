//! The phone's requests: sent, repeated, challenged, given up (RFC 3261 §17.1, §22).

use super::super::{GIVE_UP, LINGER, RELIABLE, Repeat, address_in};
use super::early::ALLOW;
use super::{MAX_CHALLENGES, Out, Outgoing, Owner, Pending, Phone, PhoneEvent, Stage, Timer};
use crate::digest::Challenge;
use crate::message::{HeaderName, Message, Method, RequestBuilder, Transport, Uri, Via};
use crate::sdp;
use bytes::Bytes;
use schema::time::Mono;
use std::net::SocketAddr;

impl Phone {
    /// Sends a request of the owner's dialog.
    pub(super) fn send(&mut self, owner: Owner, outgoing: Outgoing, now: Mono, out: &mut Out) -> u64 {
        let number = self.next_pending;
        self.next_pending += 1;
        let branch = format!("z9hG4bK{}.{number}", self.entropy.hex::<8>()).into_boxed_str();
        let Some((to, bytes)) = self.build(owner, &branch, &outgoing) else { return number };
        let is_invite = outgoing.method == Method::Invite;
        let repeat = if is_invite { Repeat::of_invite(now) } else { Repeat::up_to_t2(now) };
        out.datagrams.push((to, bytes.clone()));
        let pending = Pending {
            owner,
            outgoing,
            branch,
            to,
            bytes: bytes.clone(),
            challenges: 0,
            provisional: false,
            repeat: Some((bytes, repeat)),
            due: None,
            ack: None,
        };
        self.pending.insert(number, pending);
        self.repeat_later(number, now);
        number
    }

    /// Writes the next request of a dialog; `None` when a value cannot be written.
    pub(super) fn build(&mut self, owner: Owner, branch: &str, outgoing: &Outgoing) -> Option<(SocketAddr, Bytes)> {
        let (server, own, contact) = (self.config.server, self.config.address, self.contact());
        let takes_reliable = self.config.takes_reliable;
        let dialog = self.dialog(owner)?;
        if outgoing.method != Method::Ack {
            dialog.cseq += 1;
        }
        let cseq = outgoing.cseq.unwrap_or(dialog.cseq);
        let host = Uri::of_address(None, own);
        let via = Via::new(Transport::Udp, host.host(), Some(own.port()), branch).ok()?;
        let mut builder = RequestBuilder::new(outgoing.method.clone(), dialog.target.clone())
            .via(&via)
            .from(&dialog.from)
            .to(&dialog.to)
            .call_id(&dialog.call_id)
            .cseq(cseq);
        for route in &dialog.routes {
            builder = builder.route(route);
        }
        if matches!(outgoing.method, Method::Invite | Method::Register) {
            builder = builder.contact(&contact);
        }
        if takes_reliable && outgoing.method == Method::Invite {
            builder = builder.header(HeaderName::Supported, &RELIABLE).header(HeaderName::Allow, &ALLOW);
        }
        if let Some(rack) = &outgoing.rack {
            builder = builder.header(HeaderName::RAck, rack);
        }
        if let Some(seconds) = outgoing.expires_s {
            builder = builder.expires(seconds);
        }
        if let Some((name, value)) = &outgoing.authorization {
            builder = builder.header(*name, value);
        }
        if let Some(body) = &outgoing.body {
            builder = builder.body(sdp::CONTENT_TYPE, body.clone());
        }
        let hop = dialog.routes.first().map_or(&dialog.target, |route| &route.uri);
        Some((address_in(hop).unwrap_or(server), builder.build().ok()?))
    }

    pub(super) fn repeat_later(&mut self, number: u64, now: Mono) {
        let Some(pending) = self.pending.get_mut(&number) else { return };
        let Some((_, repeat)) = &mut pending.repeat else { return };
        let at = repeat.next(now);
        pending.due = Some(at);
        self.timers.set(at, Timer::Pending(number));
    }

    /// Sends the CANCEL of an INVITE that has a provisional response.
    pub(super) fn cancel(&mut self, number: u64, now: Mono, out: &mut Out) {
        let Some(pending) = self.pending.get_mut(&number) else { return };
        let Ok(invite) = Message::parse_datagram(&pending.bytes) else { return };
        let Ok(cancel) = RequestBuilder::cancel(&invite).build() else { return };
        out.datagrams.push((pending.to, cancel.clone()));
        pending.repeat = Some((cancel, Repeat::up_to_t2(now)));
        self.repeat_later(number, now);
    }

    pub(super) fn on_response(&mut self, response: &Message, now: Mono, out: &mut Out) {
        let status = response.status().unwrap_or(0);
        let number = response.branch().and_then(|branch| {
            let number = branch.rsplit('.').next()?.parse().ok()?;
            let pending = self.pending.get(&number)?;
            (*pending.branch == *branch).then_some(number)
        });
        let Some(number) = number else { return self.on_late_answer(response, out) };
        let Some(pending) = self.pending.get_mut(&number) else { return };
        if *response.method() == Method::Cancel {
            // The INVITE's own final response is to come; wait for it without repeating the CANCEL.
            if let Some((_, repeat)) = &mut pending.repeat
                && pending.provisional
            {
                repeat.interval = GIVE_UP;
                pending.due = Some(repeat.give_up);
                self.timers.set(repeat.give_up, Timer::Pending(number));
            }
            return;
        }
        if *response.method() != pending.outgoing.method {
            return;
        }
        if let Some(ack) = &pending.ack {
            return out.datagrams.push((pending.to, ack.clone()));
        }
        if status < 200 {
            return self.on_provisional(number, response, now, out);
        }
        self.on_final(number, response, now, out);
    }

    fn on_provisional(&mut self, number: u64, response: &Message, now: Mono, out: &mut Out) {
        let Some(pending) = self.pending.get_mut(&number) else { return };
        let Owner::Call(call) = pending.owner else { return };
        if pending.outgoing.method != Method::Invite {
            return;
        }
        if !pending.provisional {
            pending.provisional = true;
            pending.repeat = None;
            pending.due = None;
        }
        if pending.outgoing.is_change {
            return;
        }
        if !self.take_reliable(call, response, now, out) {
            return;
        }
        let status = response.status().unwrap_or(0);
        let Some(state) = self.calls.get_mut(&call) else { return };
        let first = state.stage == Stage::Calling;
        state.stage = Stage::Ringing;
        if status > 100 {
            out.events.push(PhoneEvent::Progress { call, status, early_media: response.has_sdp() });
        }
        if first && state.unwanted {
            self.cancel(number, now, out);
        }
    }

    fn on_final(&mut self, number: u64, response: &Message, now: Mono, out: &mut Out) {
        let status = response.status().unwrap_or(0);
        let Some(pending) = self.pending.get_mut(&number) else { return };
        pending.repeat = None;
        let (owner, method, is_change) = (pending.owner, pending.outgoing.method.clone(), pending.outgoing.is_change);
        if method == Method::Invite && status >= 300 {
            let ack = Message::parse_datagram(&pending.bytes)
                .ok()
                .and_then(|invite| RequestBuilder::ack_of_failure(&invite, response).build().ok());
            out.datagrams.extend(ack.iter().map(|ack| (pending.to, ack.clone())));
            pending.ack = ack;
            pending.due = Some(now + LINGER);
            self.timers.set(now + LINGER, Timer::Pending(number));
        }
        if matches!(status, 401 | 407) && self.answer_challenge(number, response, now, out) {
            return;
        }
        if method != Method::Invite || status < 300 {
            self.pending.remove(&number);
        }
        match (owner, method) {
            (Owner::Registration, _) => self.on_registered(response, status, now, out),
            (Owner::Call(call), _) if is_change => self.on_changed(call, response, out),
            (Owner::Call(call), Method::Prack) => self.on_prack_answered(call, status),
            (Owner::Call(call), Method::Invite) if status < 300 => self.on_answer(call, response, now, out),
            (Owner::Call(call), Method::Invite) => {
                // Hung up before the challenge was answered.
                let unwanted = self.calls.get(&call).is_some_and(|state| state.unwanted);
                let status = if unwanted && matches!(status, 401 | 407) { 487 } else { status };
                self.over(call, now);
                out.events.push(PhoneEvent::Failed { call, status });
            }
            (Owner::Call(call), _) => self.on_hung_up(call, now, out),
        }
    }

    /// Sends the request again with credentials; false when that is of no use.
    fn answer_challenge(&mut self, number: u64, response: &Message, now: Mono, out: &mut Out) -> bool {
        let Some(challenge) = Challenge::best_of(response) else { return false };
        let Some(pending) = self.pending.get(&number) else { return false };
        let limit = if challenge.is_stale() { MAX_CHALLENGES } else { 1 };
        if pending.challenges >= limit {
            return false;
        }
        let (owner, challenges) = (pending.owner, pending.challenges + 1);
        let mut outgoing = pending.outgoing.clone();
        let method = outgoing.method.clone();
        if let Owner::Call(call) = owner
            && method == Method::Invite
            && !outgoing.is_change
            && self.calls.get(&call).is_none_or(|state| state.unwanted)
        {
            return false;
        }
        let Some(uri) = self.dialog(owner).map(|dialog| dialog.target.to_string()) else { return false };
        let cnonce = self.entropy.hex::<8>();
        let (username, password) = (&self.config.username, self.config.password.expose());
        let value = challenge.answer(username, password, method.as_str(), &uri, &cnonce, 1);
        outgoing.authorization = Some((challenge.scheme().credentials_header(), value));
        if method != Method::Invite {
            self.pending.remove(&number);
        }
        let is_change = outgoing.is_change;
        let again = self.send(owner, outgoing, now, out);
        if let Some(pending) = self.pending.get_mut(&again) {
            pending.challenges = challenges;
        }
        if let (Owner::Call(call), Method::Invite) = (owner, method)
            && let Some(state) = self.calls.get_mut(&call).filter(|_| !is_change)
        {
            state.invite = again;
            state.stage = Stage::Calling;
        }
        true
    }

    pub(super) fn on_pending_due(&mut self, number: u64, now: Mono, out: &mut Out) {
        let Some(pending) = self.pending.get_mut(&number) else { return };
        if pending.due.is_none_or(|due| due > now) {
            return;
        }
        match &pending.repeat {
            Some((bytes, repeat)) if now < repeat.give_up => {
                out.datagrams.push((pending.to, bytes.clone()));
                self.repeat_later(number, now);
            }
            Some(_) => self.give_up(number, now, out),
            None => drop(self.pending.remove(&number)),
        }
    }

    fn give_up(&mut self, number: u64, now: Mono, out: &mut Out) {
        let Some(pending) = self.pending.remove(&number) else { return };
        match (pending.owner, pending.outgoing.method) {
            (Owner::Registration, _) => {
                self.refresh_at = None;
                out.events.push(PhoneEvent::RegistrationFailed { status: 408 });
            }
            (Owner::Call(call), Method::Prack) => self.on_prack_answered(call, 408),
            (Owner::Call(call), _) if pending.outgoing.is_change => {
                out.events.push(PhoneEvent::Changed { call, status: 408 });
            }
            (Owner::Call(call), Method::Invite) => {
                let status = if pending.provisional { 487 } else { 408 };
                self.over(call, now);
                out.events.push(PhoneEvent::Failed { call, status });
            }
            (Owner::Call(call), _) => self.on_hung_up(call, now, out),
        }
    }
}
