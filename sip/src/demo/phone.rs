//! The test phone: registers, calls with digest, answers what a phone must answer, and reports what it sees.

use super::{Actions, Endpoint, LINGER, Repeat, Timers, address_in};
use crate::digest::Challenge;
use crate::message::{
    HeaderName, Message, Method, NameAddr, RequestBuilder, ResponseBuilder, Transport, Uri, Via,
};
use crate::sdp::{self, Origin};
use bytes::Bytes;
use schema::entropy::Entropy;
use schema::pii::Pii;
use schema::time::Mono;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Times a request is sent again with credentials.
const MAX_CHALLENGES: u8 = 2;

/// Whose phone it is and where.
#[derive(Debug, Clone)]
pub struct PhoneConfig {
    /// The server, also the first hop of every request whose target is a name.
    pub server: SocketAddr,
    /// The domain of its addresses.
    pub domain: Box<str>,
    /// Where the phone itself is.
    pub address: SocketAddr,
    /// Digest username, also the user of its address.
    pub username: Box<str>,
    /// Its password.
    pub password: Pii<Box<str>>,
    /// Seconds a registration is asked for.
    pub expires_s: u32,
    /// Most calls at a time; more fail with 503.
    pub most_calls: usize,
}

/// A call of this phone; chosen by whoever commands it, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhoneCall(pub u64);

/// What the phone is told.
#[derive(Debug, Clone)]
pub enum PhoneCommand {
    /// Register, and again before it ends.
    Register,
    /// Remove the registration.
    Unregister,
    /// Call a number.
    Call {
        /// The new call.
        call: PhoneCall,
        /// User part of the Request-URI.
        number: Pii<Box<str>>,
    },
    /// End a call: CANCEL before the answer, BYE behind it.
    HangUp {
        /// Which.
        call: PhoneCall,
    },
}

/// What the phone reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PhoneEvent {
    /// The server accepted the registration.
    Registered {
        /// Seconds granted; 0 when removed.
        expires_s: u32,
    },
    /// It did not; 408 when nothing came.
    RegistrationFailed {
        /// Final status.
        status: u16,
    },
    /// A provisional response above 100.
    Progress {
        /// Which.
        call: PhoneCall,
        /// 180, 183 …
        status: u16,
        /// Whether it has a session description.
        early_media: bool,
    },
    /// Answered, and acknowledged by us.
    Answered {
        /// Which.
        call: PhoneCall,
    },
    /// Not answered.
    Failed {
        /// Which.
        call: PhoneCall,
        /// Final status; 408 when nothing came, 487 after our CANCEL.
        status: u16,
    },
    /// An answered call is over.
    Ended {
        /// Which.
        call: PhoneCall,
        /// Whether the phone hung up.
        by_phone: bool,
        /// Q.850 cause of the server's BYE.
        q850: Option<u16>,
    },
}

/// Where a call stands.
///
/// ```text
/// Calling ──(1xx)──▶ Ringing ──(2xx)──▶ Up ──(BYE from them)──▶ Over
///    └──────(final)─────┴─▶ Over         └──▶ Ending ──(200)──▶ Over
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Calling,
    Ringing,
    Up,
    Ending,
    Over,
}

struct Call {
    dialog: Dialog,
    stage: Stage,
    /// Hung up before the answer.
    unwanted: bool,
    invite: u64,
    /// The ACK of the 2xx and where it went, for repetitions of the 2xx.
    ack: Option<(SocketAddr, Bytes)>,
    origin: Origin,
}

/// What requests of one dialog, or of the registration, have in common.
#[derive(Clone)]
struct Dialog {
    call_id: Box<str>,
    from: NameAddr,
    to: NameAddr,
    target: Uri,
    routes: Vec<NameAddr>,
    cseq: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Call(PhoneCall),
    Registration,
}

/// A request under way.
struct Pending {
    owner: Owner,
    method: Method,
    expires_s: Option<u32>,
    body: Option<Bytes>,
    branch: Box<str>,
    to: SocketAddr,
    bytes: Bytes,
    challenges: u8,
    provisional: bool,
    /// What is repeated now: the request, or its CANCEL.
    repeat: Option<(Bytes, Repeat)>,
    due: Option<Mono>,
    /// The ACK of a final response, for its repetitions.
    ack: Option<Bytes>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Pending(u64),
    Linger(PhoneCall),
    Refresh,
}

/// One address of record with many calls.
pub struct Phone {
    config: PhoneConfig,
    entropy: Entropy,
    aor: Uri,
    registration: Dialog,
    calls: BTreeMap<PhoneCall, Call>,
    by_call_id: BTreeMap<Box<str>, PhoneCall>,
    pending: BTreeMap<u64, Pending>,
    next_pending: u64,
    timers: Timers<Timer>,
    refresh_at: Option<Mono>,
}

type Out = Actions<PhoneEvent>;

impl Phone {
    /// A phone that does nothing yet.
    ///
    /// # Errors
    /// When the domain is no host.
    pub fn new(config: PhoneConfig, mut entropy: Entropy) -> Result<Self, crate::message::Malformed> {
        let aor = Uri::sip(Some(&config.username), &config.domain, None)?;
        let registration = Dialog {
            call_id: entropy.hex::<16>().into(),
            from: NameAddr::new(aor.clone()).with_tag(&entropy.hex::<8>())?,
            to: NameAddr::new(aor.clone()),
            target: Uri::sip(None, &config.domain, None)?,
            routes: Vec::new(),
            cseq: 0,
        };
        Ok(Self {
            config,
            entropy,
            aor,
            registration,
            calls: BTreeMap::new(),
            by_call_id: BTreeMap::new(),
            pending: BTreeMap::new(),
            next_pending: 0,
            timers: Timers::new(),
            refresh_at: None,
        })
    }

    /// Calls in the table, those that only answer repetitions included.
    #[must_use]
    pub fn live_calls(&self) -> usize {
        self.calls.len()
    }

    fn contact(&self) -> NameAddr {
        NameAddr::new(Uri::of_address(Some(&self.config.username), self.config.address))
    }

    fn dialog(&mut self, owner: Owner) -> Option<&mut Dialog> {
        match owner {
            Owner::Registration => Some(&mut self.registration),
            Owner::Call(call) => self.calls.get_mut(&call).map(|call| &mut call.dialog),
        }
    }

    fn place_call(&mut self, call: PhoneCall, number: &str, now: Mono, out: &mut Out) {
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
        self.calls.insert(call, Call { dialog, stage, unwanted: false, invite: 0, ack: None, origin });
        let body = Bytes::from(sdp::audio(origin, self.media_address(call)));
        let invite = self.send(Owner::Call(call), Method::Invite, None, Some(body), None, now, out);
        if let Some(state) = self.calls.get_mut(&call) {
            state.invite = invite;
        }
    }

    fn media_address(&self, call: PhoneCall) -> SocketAddr {
        let port = 40_000 + 2 * u16::try_from(call.0 % 10_000).unwrap_or(0);
        SocketAddr::new(self.config.address.ip(), port)
    }

    fn hang_up(&mut self, call: PhoneCall, now: Mono, out: &mut Out) {
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
                self.send(Owner::Call(call), Method::Bye, None, None, None, now, out);
            }
            Stage::Ending | Stage::Over => {}
        }
    }

    /// Sends a request of the owner's dialog, with credentials when `authorization` has some.
    #[expect(clippy::too_many_arguments, reason = "each is another part of the request")]
    fn send(
        &mut self,
        owner: Owner,
        method: Method,
        expires_s: Option<u32>,
        body: Option<Bytes>,
        authorization: Option<(HeaderName, String)>,
        now: Mono,
        out: &mut Out,
    ) -> u64 {
        let number = self.next_pending;
        self.next_pending += 1;
        let branch = format!("z9hG4bK{}.{number}", self.entropy.hex::<8>()).into_boxed_str();
        let Some((to, bytes)) = self.build(owner, &method, &branch, expires_s, body.clone(), authorization.as_ref())
        else {
            return number;
        };
        let repeat =
            if method == Method::Invite { Repeat::of_invite(now) } else { Repeat::up_to_t2(now) };
        out.datagrams.push((to, bytes.clone()));
        let pending = Pending {
            owner,
            method,
            expires_s,
            body,
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
    fn build(
        &mut self,
        owner: Owner,
        method: &Method,
        branch: &str,
        expires_s: Option<u32>,
        body: Option<Bytes>,
        authorization: Option<&(HeaderName, String)>,
    ) -> Option<(SocketAddr, Bytes)> {
        let (server, own, contact) = (self.config.server, self.config.address, self.contact());
        let dialog = self.dialog(owner)?;
        if *method != Method::Ack {
            dialog.cseq += 1;
        }
        let host = Uri::of_address(None, own);
        let via = Via::new(Transport::Udp, host.host(), Some(own.port()), branch).ok()?;
        let mut builder = RequestBuilder::new(method.clone(), dialog.target.clone())
            .via(&via)
            .from(&dialog.from)
            .to(&dialog.to)
            .call_id(&dialog.call_id)
            .cseq(dialog.cseq);
        for route in &dialog.routes {
            builder = builder.route(route);
        }
        if matches!(method, Method::Invite | Method::Register) {
            builder = builder.contact(&contact);
        }
        if let Some(seconds) = expires_s {
            builder = builder.expires(seconds);
        }
        if let Some((name, value)) = authorization {
            builder = builder.header(*name, value);
        }
        if let Some(body) = body {
            builder = builder.body(sdp::CONTENT_TYPE, body);
        }
        let hop = dialog.routes.first().map_or(&dialog.target, |route| &route.uri);
        Some((address_in(hop).unwrap_or(server), builder.build().ok()?))
    }

    fn repeat_later(&mut self, number: u64, now: Mono) {
        let Some(pending) = self.pending.get_mut(&number) else { return };
        let Some((_, repeat)) = &mut pending.repeat else { return };
        let at = repeat.next(now);
        pending.due = Some(at);
        self.timers.set(at, Timer::Pending(number));
    }

    /// Sends the CANCEL of an INVITE that has a provisional response.
    fn cancel(&mut self, number: u64, now: Mono, out: &mut Out) {
        let Some(pending) = self.pending.get_mut(&number) else { return };
        let Ok(invite) = Message::parse_datagram(&pending.bytes) else { return };
        let Ok(cancel) = RequestBuilder::cancel(&invite).build() else { return };
        out.datagrams.push((pending.to, cancel.clone()));
        pending.repeat = Some((cancel, Repeat::up_to_t2(now)));
        self.repeat_later(number, now);
    }

    fn on_response(&mut self, response: &Message, now: Mono, out: &mut Out) {
        let status = response.status().unwrap_or(0);
        let number = response.branch().and_then(|branch| {
            let number = branch.rsplit('.').next()?.parse().ok()?;
            let pending = self.pending.get(&number)?;
            (*pending.branch == *branch).then_some(number)
        });
        let Some(number) = number else { return self.on_late_answer(response, out) };
        let Some(pending) = self.pending.get_mut(&number) else { return };
        if *response.method() == Method::Cancel {
            // The INVITE's own final response is to come; wait for it no longer than for the CANCEL.
            if let Some((bytes, repeat)) = pending.repeat.take().filter(|_| pending.provisional) {
                pending.due = Some(repeat.give_up);
                pending.repeat = Some((bytes, Repeat { interval: super::GIVE_UP, ..repeat }));
                self.timers.set(repeat.give_up, Timer::Pending(number));
            }
            return;
        }
        if *response.method() != pending.method {
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
        if pending.method != Method::Invite {
            return;
        }
        if !pending.provisional {
            pending.provisional = true;
            pending.repeat = None;
            pending.due = None;
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
        let (owner, method) = (pending.owner, pending.method.clone());
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
            (Owner::Call(call), Method::Invite) if status < 300 => self.on_answer(call, response, now, out),
            (Owner::Call(call), Method::Invite) => {
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
        let (owner, method, challenges) = (pending.owner, pending.method.clone(), pending.challenges + 1);
        let (expires_s, body) = (pending.expires_s, pending.body.clone());
        if let Owner::Call(call) = owner
            && method == Method::Invite
            && self.calls.get(&call).is_none_or(|state| state.unwanted)
        {
            return false;
        }
        let Some(uri) = self.dialog(owner).map(|dialog| dialog.target.to_string()) else { return false };
        let cnonce = self.entropy.hex::<8>();
        let (username, password) = (&self.config.username, self.config.password.expose());
        let value = challenge.answer(username, password, method.as_str(), &uri, &cnonce, 1);
        let authorization = Some((challenge.scheme().credentials_header(), value));
        if method != Method::Invite {
            self.pending.remove(&number);
        }
        let again = self.send(owner, method.clone(), expires_s, body, authorization, now, out);
        if let Some(pending) = self.pending.get_mut(&again) {
            pending.challenges = challenges;
        }
        if let (Owner::Call(call), Method::Invite) = (owner, method)
            && let Some(state) = self.calls.get_mut(&call)
        {
            state.invite = again;
            state.stage = Stage::Calling;
        }
        true
    }

    fn on_registered(&mut self, response: &Message, status: u16, now: Mono, out: &mut Out) {
        if status >= 300 {
            self.refresh_at = None;
            return out.events.push(PhoneEvent::RegistrationFailed { status });
        }
        let own = self.contact().uri;
        let granted = response.contacts().iter().find(|contact| contact.uri.is_equivalent(&own)).and_then(NameAddr::expires_s);
        let present = response.contacts().iter().any(|contact| contact.uri.is_equivalent(&own));
        let expires_s = if present { granted.or(response.expires()).unwrap_or(self.config.expires_s) } else { 0 };
        self.refresh_at = (expires_s > 0).then(|| now + Duration::from_secs(u64::from(expires_s / 2).max(5)));
        if let Some(at) = self.refresh_at {
            self.timers.set(at, Timer::Refresh);
        }
        out.events.push(PhoneEvent::Registered { expires_s });
    }

    fn on_answer(&mut self, call: PhoneCall, response: &Message, now: Mono, out: &mut Out) {
        let Some(state) = self.calls.get_mut(&call) else { return };
        state.dialog.to = response.to();
        if let Some(contact) = response.contacts().into_iter().next() {
            state.dialog.target = contact.uri;
        }
        state.dialog.routes = response.record_routes().into_iter().rev().collect();
        state.stage = Stage::Up;
        let unwanted = state.unwanted;
        let branch = format!("z9hG4bK{}", self.entropy.hex::<8>());
        let ack = self.build(Owner::Call(call), &Method::Ack, &branch, None, None, None);
        out.datagrams.extend(ack.clone());
        if let Some(state) = self.calls.get_mut(&call) {
            state.ack = ack;
        }
        out.events.push(PhoneEvent::Answered { call });
        if unwanted {
            self.hang_up(call, now, out);
        }
    }

    /// A repeated 2xx: its ACK was lost.
    fn on_late_answer(&self, response: &Message, out: &mut Out) {
        let is_answer = *response.method() == Method::Invite && matches!(response.status(), Some(200..=299));
        let call = self.by_call_id.get(response.call_id()).and_then(|call| self.calls.get(call));
        if let Some(call) = call.filter(|_| is_answer) {
            out.datagrams.extend(call.ack.clone());
        }
    }

    fn on_hung_up(&mut self, call: PhoneCall, now: Mono, out: &mut Out) {
        if self.calls.get(&call).is_some_and(|state| state.stage == Stage::Ending) {
            self.over(call, now);
            out.events.push(PhoneEvent::Ended { call, by_phone: true, q850: None });
        }
    }

    fn over(&mut self, call: PhoneCall, now: Mono) {
        if let Some(state) = self.calls.get_mut(&call) {
            state.stage = Stage::Over;
            self.timers.set(now + LINGER, Timer::Linger(call));
        }
    }

    fn on_request(&mut self, request: &Message, now: Mono, out: &mut Out) {
        let call = self.by_call_id.get(request.call_id()).copied();
        let status = match (request.method(), call) {
            (Method::Ack, _) => return,
            (Method::Bye, Some(call)) => {
                self.on_bye(call, request, now, out);
                200
            }
            (Method::Invite | Method::Update | Method::Info | Method::Notify | Method::Options, Some(_)) => 200,
            (Method::Options, None) => 200,
            (Method::Invite, None) => 486,
            (Method::Bye | Method::Cancel | Method::Update | Method::Info, None) => 481,
            (Method::Cancel, Some(_)) => 200,
            _ => 405,
        };
        self.reply(request, status, call, out);
    }

    fn on_bye(&mut self, call: PhoneCall, bye: &Message, now: Mono, out: &mut Out) {
        let up = |state: &Call| matches!(state.stage, Stage::Up | Stage::Ending);
        if !self.calls.get(&call).is_some_and(up) {
            return;
        }
        let q850 = bye.reasons().find(|reason| &*reason.protocol == "Q.850").and_then(|reason| reason.cause);
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

    fn on_pending_due(&mut self, number: u64, now: Mono, out: &mut Out) {
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
        match (pending.owner, pending.method) {
            (Owner::Registration, _) => {
                self.refresh_at = None;
                out.events.push(PhoneEvent::RegistrationFailed { status: 408 });
            }
            (Owner::Call(call), Method::Invite) => {
                let status = if pending.provisional { 487 } else { 408 };
                self.over(call, now);
                out.events.push(PhoneEvent::Failed { call, status });
            }
            (Owner::Call(call), _) => self.on_hung_up(call, now, out),
        }
    }

    fn on_linger_end(&mut self, call: PhoneCall) {
        if self.calls.get(&call).is_some_and(|state| state.stage == Stage::Over)
            && let Some(state) = self.calls.remove(&call)
        {
            self.by_call_id.remove(&state.dialog.call_id);
        }
    }
}

impl Endpoint for Phone {
    type Command = PhoneCommand;
    type Event = PhoneEvent;

    fn on_command(&mut self, command: PhoneCommand, now: Mono, actions: &mut Out) {
        match command {
            PhoneCommand::Register => {
                let expires_s = Some(self.config.expires_s);
                self.send(Owner::Registration, Method::Register, expires_s, None, None, now, actions);
            }
            PhoneCommand::Unregister => {
                self.refresh_at = None;
                self.send(Owner::Registration, Method::Register, Some(0), None, None, now, actions);
            }
            PhoneCommand::Call { call, number } => self.place_call(call, number.expose(), now, actions),
            PhoneCommand::HangUp { call } => self.hang_up(call, now, actions),
        }
    }

    fn on_datagram(&mut self, datagram: &Bytes, source: SocketAddr, now: Mono, actions: &mut Out) {
        let Ok(message) = Message::parse_datagram(datagram) else { return };
        if message.is_request() {
            self.on_request(&message.with_source(source), now, actions);
        } else {
            self.on_response(&message, now, actions);
        }
    }

    fn on_time(&mut self, now: Mono, actions: &mut Out) {
        while let Some(timer) = self.timers.pop(now) {
            match timer {
                Timer::Pending(number) => self.on_pending_due(number, now, actions),
                Timer::Linger(call) => self.on_linger_end(call),
                Timer::Refresh if self.refresh_at.is_some_and(|at| at <= now) => {
                    self.on_command(PhoneCommand::Register, now, actions);
                }
                Timer::Refresh => {}
            }
        }
    }

    fn next_time(&self) -> Option<Mono> {
        self.timers.next()
    }
}

/// Counts only.
impl std::fmt::Debug for Phone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Phone").field("calls", &self.calls.len()).field("pending", &self.pending.len()).finish_non_exhaustive()
    }
}
