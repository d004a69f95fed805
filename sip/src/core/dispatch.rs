//! Where a request goes: its transaction, its dialog, or by its method.

use super::Core;
use super::exchange::ServerKey;
use crate::flow::{Flow, Protocol};
use crate::message::{HeaderName, Message, Method, Scheme};
use schema::time::Now;

/// What we do, for Allow.
pub(super) const ALLOW: &str = "INVITE, ACK, BYE, CANCEL, OPTIONS, REGISTER, UPDATE";

impl Core {
    pub(super) fn on_request(&mut self, flow: Flow, request: Message, now: Now) {
        let as_method = if request.is_ack() { &Method::Invite } else { request.method() };
        let Some(key) = ServerKey::of(&request, as_method) else {
            // No magic cookie: a client of RFC 2543, or garbage.
            if !request.is_ack() {
                let response = self.response(&request, 400);
                self.reply(flow, &request, response);
            }
            return;
        };
        if request.is_ack() {
            if !self.server_acked(&key, now) {
                self.on_ack(&request, now);
            }
            return;
        }
        if self.servers.contains_key(&key) {
            return self.server_repeated(&key, now);
        }
        if self.servers.len() >= self.config.transactions_max {
            return self.refuse_overloaded(flow, &request);
        }
        if request.max_forwards() == Some(0) && *request.method() != Method::Register {
            return self.refuse(flow, &request, 483, now);
        }
        match (request.method(), request.to_tag().is_some()) {
            (Method::Cancel, _) => self.on_cancel(flow, &request, now),
            (_, true) => self.on_in_dialog_request(flow, &request, now),
            (Method::Invite, false) => self.on_invite(flow, request, key, now),
            (Method::Register, false) => self.on_register(flow, request, now),
            (Method::Options, false) => self.on_options(flow, &request, now),
            (Method::Bye | Method::Update | Method::Prack, false) => self.refuse(flow, &request, 481, now),
            (Method::Other(_), false) => self.refuse_method(flow, &request, 501, now),
            _ => self.refuse_method(flow, &request, 405, now),
        }
    }

    /// A final answer without state for an INVITE, with its transaction for all else.
    pub(super) fn refuse(&mut self, flow: Flow, request: &Message, status: u16, now: Now) {
        if *request.method() == Method::Invite {
            let response = self.response(request, status);
            self.reply(flow, request, response);
        } else {
            self.answer_status(flow, request, status, now);
        }
    }

    pub(super) fn refuse_method(&mut self, flow: Flow, request: &Message, status: u16, now: Now) {
        let response = self.response(request, status).header(HeaderName::Allow, &ALLOW);
        self.answer(flow, request, response, now);
    }

    pub(super) fn refuse_overloaded(&mut self, flow: Flow, request: &Message) {
        // Spread over 5 to 14 s, so that they do not all come back at once.
        let wait = 5 + self.entropy.below(10);
        let response = self.response(request, 503).header(HeaderName::RetryAfter, &wait);
        self.reply(flow, request, response);
    }

    /// True for a customer's message over a transport that only trunks may use.
    pub(super) fn is_barred(&self, flow: Flow) -> bool {
        !self.config.plain_customers && flow.protocol != Protocol::Tls
    }

    /// Checks that hold for every request that begins something: its URI, and what it requires.
    ///
    /// # Errors
    /// The status to answer with.
    pub(super) fn check_target(&self, request: &Message) -> Result<(), u16> {
        let uri = request.request_uri().ok_or(400_u16)?;
        match uri.scheme() {
            Scheme::Sip | Scheme::Sips if self.config.is_ours(uri.host()) => Ok(()),
            Scheme::Tel if *request.method() == Method::Invite => Ok(()),
            Scheme::Sip | Scheme::Sips => Err(404),
            _ => Err(416),
        }
    }

    /// Answers 420 with what is not supported; true when it did.
    pub(super) fn refuse_extensions(&mut self, flow: Flow, request: &Message, now: Now) -> bool {
        let required: Vec<_> = request.require().chain(request.proxy_require()).collect();
        if required.is_empty() {
            return false;
        }
        let response = self.response(request, 420).header(HeaderName::Unsupported, &required.join(", "));
        if *request.method() == Method::Invite {
            self.reply(flow, request, response);
        } else {
            self.answer(flow, request, response, now);
        }
        true
    }

    /// A keep-alive, or a look at what we can do; says nothing about us (RFC 3261 §11).
    fn on_options(&mut self, flow: Flow, request: &Message, now: Now) {
        match self.check_target(request) {
            Ok(()) => {
                let response = self.response(request, 200).header(HeaderName::Allow, &ALLOW);
                self.answer(flow, request, response.header(HeaderName::Accept, &"application/sdp"), now);
            }
            Err(status) => self.answer_status(flow, request, status, now),
        }
    }
}
