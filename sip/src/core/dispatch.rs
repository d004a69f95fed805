//! Where a request goes: its transaction, its dialog, or by its method.

use super::matching::ServerKey;
use super::register::{OUTBOUND, PATH};
use super::reliable::RELIABLE;
use super::session_timer::TIMER;
use super::wish::wants_session_privacy;
use super::{Core, Output};
use crate::flow::{Flow, Protocol, Standing};
use crate::guard::{Verdict, Why};
use crate::message::{HeaderName, Message, Method, ParseError, ResponseBuilder, Scheme};
use crate::overload::Reason;
use ring::hmac;
use schema::entropy::hex;
use schema::time::{Mono, Now};
use schema::wrong::{self, Wrong};
use std::net::SocketAddr;

/// What we do, for Allow.
pub(super) const ALLOW: &str = "INVITE, ACK, BYE, CANCEL, OPTIONS, REGISTER, PRACK, UPDATE, INFO";

/// The option tag of whoever provides privacy.
const PRIVACY: &str = "privacy";

impl Core {
    pub(super) fn on_request(&mut self, flow: Flow, request: Message, now: Now) {
        let as_method = if request.is_ack() { &Method::Invite } else { request.method() };
        let key = ServerKey::of(&request, as_method);
        if request.is_ack() {
            if !self.server_acked(&key, now) {
                self.on_ack(&request, now);
            }
            return;
        }
        let taken_again = wrong::chosen(Wrong::DoubleCapture) && *request.method() == Method::Bye;
        if self.servers.contains_key(&key) && !taken_again {
            return self.server_repeated(&key, now);
        }
        if !self.is_let_in(flow, &request, now) {
            return;
        }
        if self.is_full_for(&request) {
            return self.shed(flow, &request, Reason::Live, now);
        }
        if self.is_looped(&request) {
            return self.refuse(flow, &request, 482);
        }
        // A call alone goes on from here; of all else we are the destination (RFC 3261 §8.1.1.6).
        let goes_on = *request.method() == Method::Invite && request.to_tag().is_none();
        if goes_on && request.max_forwards() == Some(0) {
            return self.refuse(flow, &request, 483);
        }
        match (request.method(), request.to_tag().is_some()) {
            (Method::Cancel, _) => self.on_cancel(flow, &request, now),
            (_, true) => self.on_in_dialog_request(flow, request, key, now),
            (Method::Invite, false) => self.on_invite(flow, request, key, now),
            (Method::Register, false) => self.on_register(flow, request, key, now),
            (Method::Options, false) => self.on_options(flow, &request),
            (Method::Bye | Method::Update | Method::Prack | Method::Info, false) => self.refuse(flow, &request, 481),
            _ => {
                let response = self.unsupported_method(&request);
                self.reply(flow, &request, response);
            }
        }
    }

    /// False when a stranger asks too often, is banned or looks for open servers: it gets no answer. Dialogs go on, whatever
    /// their side did elsewhere.
    pub(super) fn is_let_in(&mut self, flow: Flow, request: &Message, now: Now) -> bool {
        let has_tag = request.to_tag().is_some();
        let is_of_a_dialog = has_tag && self.is_of_a_dialog(request);
        let is_trunk = !is_of_a_dialog && self.is_trunk(flow);
        if (is_of_a_dialog || is_trunk) && flow.connection.is_some() {
            self.output.push_back(Output::Trust(flow));
        }
        // Before recovery has told which dialogs there are, each may be one: kept, within limits, but trusted for nothing.
        if is_of_a_dialog || (has_tag && self.is_recovering()) {
            return true;
        }
        let agent = request.text(HeaderName::UserAgent);
        self.judges(flow, agent, is_trunk, now)
    }

    fn judges(&mut self, flow: Flow, agent: Option<&str>, is_trunk: bool, now: Now) -> bool {
        let verdict = self.guard.request(flow.ip(), agent, is_trunk, now.mono);
        if verdict == Verdict::Drop(Why::Scanner) && flow.protocol.is_reliable() && !is_trunk {
            self.guard.scanned(flow.ip(), now.mono);
        }
        verdict == Verdict::Pass
    }

    /// Whether a message that breaks a rule is answered: it counts like a request that breaks none.
    pub fn may_refuse(&mut self, flow: Flow, error: &ParseError, now: Now) -> bool {
        let is_trunk = self.is_trunk(flow);
        self.judges(flow, error.user_agent(), is_trunk, now)
    }

    /// What is known of whoever opens a connection.
    pub fn standing(&self, protocol: Protocol, peer: SocketAddr, now: Mono) -> Standing {
        let is_trunk = self.is_trunk(Flow { protocol, peer, connection: None });
        if is_trunk { Standing::Known } else { self.guard.standing(peer.ip(), now) }
    }

    /// Whether a response has one Via, and that is ours: others are discarded, having lost their way (RFC 3261 §8.1.3.3, §18.1.2).
    pub(super) fn is_answer_to_us(&self, response: &Message) -> bool {
        self.config.is_ours(response.sent_by().0) && response.hops().nth(1).is_none()
    }

    /// Whether it is a request of our own that came back (RFC 5393): one of its Vias names us and a transaction of ours that is
    /// under way, whose branch nobody can guess. We pass no request on, so there is no way on which one may come by twice.
    fn is_looped(&self, request: &Message) -> bool {
        request.hops().any(|(host, branch)| self.config.is_ours(host) && self.is_asking(branch, request.method()))
    }

    /// A final answer that leaves no state here: until somebody has shown who it is, nothing is kept of what it sends.
    /// Repetitions are answered anew, in the same way.
    pub(super) fn refuse(&mut self, flow: Flow, request: &Message, status: u16) {
        let response = self.response(request, status);
        self.reply(flow, request, response);
    }

    /// 405 for a method of another kind of server, 501 for one that nobody knows (RFC 3261 §8.2.1, §21.5.2).
    pub(super) fn unsupported_method(&self, request: &Message) -> ResponseBuilder {
        let status = if matches!(request.method(), Method::Other(_)) { 501 } else { 405 };
        self.response(request, status).header(HeaderName::Allow, &ALLOW)
    }

    /// 415 with what we read (RFC 3261 §21.4.13).
    pub(super) fn unsupported_body(&self, request: &Message) -> ResponseBuilder {
        self.response(request, 415).header(HeaderName::Accept, &"application/sdp")
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

    /// The 420 with what is not supported, when something of that is required (RFC 3261 §8.2.2.3).
    pub(super) fn unsupported_extensions(&self, request: &Message) -> Option<ResponseBuilder> {
        let of_method: &[&str] = match request.method() {
            Method::Invite => &[RELIABLE],
            Method::Register => &[PATH, OUTBOUND],
            _ => &[],
        };
        let known = |tag: &&str| ![TIMER].iter().chain(of_method).any(|known| tag.eq_ignore_ascii_case(known));
        // Nothing of a caller's signalling passes to another leg; the addresses of its media do (RFC 3323 §4.2, §5.2).
        let is_private = !wants_session_privacy(request);
        let unprovided = |tag: &&str| !(is_private && tag.eq_ignore_ascii_case(PRIVACY));
        let required: Vec<_> =
            request.require().filter(known).chain(request.proxy_require().filter(unprovided)).collect();
        (!required.is_empty())
            .then(|| self.response(request, 420).header(HeaderName::Unsupported, &required.join(", ")))
    }

    /// A keep-alive, or a look at what we can do; says nothing about us (RFC 3261 §11).
    fn on_options(&mut self, flow: Flow, request: &Message) {
        let response = match self.check_target(request) {
            Ok(()) => self.unsupported_extensions(request).unwrap_or_else(|| {
                let response = self.response(request, 200).header(HeaderName::Allow, &ALLOW);
                let response = response.header(HeaderName::Accept, &"application/sdp");
                response.header(HeaderName::Supported, &[TIMER, RELIABLE, PATH, OUTBOUND].join(", "))
            }),
            Err(status) => self.response(request, status),
        };
        self.reply(flow, request, response);
    }

    /// A tag that is the same for repetitions of a message, so that answering needs no state (RFC 3261 §8.2.7), and that
    /// nobody else can foretell (§19.3).
    pub(super) fn tag_of(&self, message: &Message) -> String {
        self.tag_for(
            [message.call_id(), message.from_tag().unwrap_or_default(), message.to_tag().unwrap_or_default()],
            message.branch(),
        )
    }

    /// As [`Self::tag_of`]; of Call-ID and the tags of From and To.
    pub(super) fn tag_for(&self, of_dialog: [&str; 3], branch: Option<&str>) -> String {
        let mut context = hmac::Context::with_key(&self.tags);
        for part in of_dialog.into_iter().chain([branch.unwrap_or_default()]) {
            context.update(part.as_bytes());
            context.update(b"\0");
        }
        hex(&context.sign().as_ref()[..8])
    }
}
