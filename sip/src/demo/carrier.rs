//! The test carrier: answers calls as the last two digits of the number say.
//!
//! | last two digits | behaviour |
//! |---|---|
//! | 00–19 | 180 and 200 at once |
//! | 20–39 | 180, 200 after 2 s |
//! | 40–49 | 183 with early media, 200 after 5 s |
//! | 50–59 | 180, then 486 Busy Here |
//! | 60–69 | 180, no answer; 480 after 3 minutes |
//! | 70–79 | 503 Service Unavailable |
//! | 80–89 | 200 at once, hangs up after (n − 80) · 5 + 5 s |
//! | 90–94 | 604 Does Not Exist Anywhere |
//! | 95–99 | 603 Decline |
//!
//! A number that does not end in two digits is answered 484. A 183 is reliable where the caller takes that (RFC 3262), and a
//! 180 of a carrier that rings reliably: it is repeated until its PRACK, which a later 200 waits for. It may be made to ask for
//! credentials (`gate.rs`).

mod behaviour;
mod gate;
mod hanging_up;
mod reliable;

pub use behaviour::{BEHAVIOURS, Behaviour};
pub use gate::CarrierLogin;

use super::{Actions, Endpoint, LINGER, RELIABLE, Repeat, Timers};
use crate::message::{HeaderName, Message, Method, NameAddr, ResponseBuilder, Uri};
use crate::sdp::{self, Origin};
use bytes::Bytes;
use hanging_up::target_of;
use reliable::{RSEQ, takes_reliable};
use schema::entropy::Entropy;
use schema::time::Mono;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// What the carrier counted since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CarrierCounts {
    /// New calls.
    pub invites: u64,
    /// Calls answered 200.
    pub answered: u64,
    /// 200s acknowledged.
    pub confirmed: u64,
    /// Answered calls ended by BYE from either side.
    pub ended: u64,
    /// Calls cancelled before the answer.
    pub cancelled: u64,
    /// Calls refused because the table is full.
    pub shed: u64,
    /// 200s never acknowledged, and BYEs never answered.
    pub lost: u64,
    /// Requests that were asked for credentials.
    pub challenged: u64,
}

/// What the carrier reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CarrierEvent {
    /// A call was answered and acknowledged.
    Confirmed,
    /// An answered call ended; true when the carrier hung up.
    Ended {
        /// Who.
        by_carrier: bool,
    },
    /// A call was cancelled before its answer.
    Cancelled,
    /// Somebody registered or refreshed.
    Registered,
    /// Somebody is not registered any more.
    Unregistered,
    /// A request was asked for credentials.
    Challenged,
}

/// What the carrier can be told. Its channel being closed ends it.
#[derive(Debug)]
pub enum CarrierCommand {
    /// Who is registered is forgotten, as in a restart without its storage.
    ForgetRegistration,
    /// The nonces given out so far are too old.
    AgeNonces,
}

/// Where a call stands.
///
/// ```text
/// Ringing ──▶ Answered ──(ACK)──▶ Up ──(BYE)──▶ Over
///    │                            └──▶ HangingUp ──(200)──▶ Over
///    └──(CANCEL, refusal)──▶ Refused ──(ACK)──▶ Over
/// ```
enum State {
    Ringing { answer_at: Mono },
    Answered { response: Bytes, repeat: Repeat },
    Up,
    HangingUp { bye: Bytes, repeat: Repeat },
    Refused { response: Bytes, repeat: Repeat },
    Over,
}

struct Call {
    invite: Message,
    to_tag: String,
    behaviour: Behaviour,
    state: State,
    /// Last response to the INVITE, for its repetitions.
    last: Bytes,
    /// The one timer this call waits for.
    due: Option<Mono>,
    hang_up_at: Option<Mono>,
    /// The reliable 183 that is not acknowledged: when it is sent again, and until when.
    early: Option<(Mono, Repeat)>,
    /// Branch of the PRACK that acknowledged it.
    prack: Option<Box<str>>,
    /// Branch of the BYE that ended it.
    bye: Option<Box<str>>,
    origin: Origin,
    /// CSeq number of the newest INVITE in the dialog.
    cseq: u32,
}

/// Many calls in one machine.
pub struct Carrier {
    address: SocketAddr,
    entropy: Entropy,
    most: usize,
    calls: BTreeMap<u64, Call>,
    /// Call-ID and From-tag of each call.
    keys: BTreeMap<Box<str>, u64>,
    next_call: u64,
    timers: Timers<u64>,
    counts: CarrierCounts,
    gate: Option<gate::Gate>,
    rings_reliably: bool,
}

type Out = Actions<CarrierEvent>;

/// Call-ID and From-tag: what a caller makes unique.
fn key_of(message: &Message) -> Box<str> {
    format!("{} {}", message.call_id(), message.from_tag().unwrap_or("")).into_boxed_str()
}

fn reply(message: &Message, response: Bytes, out: &mut Out) {
    if let Some(to) = message.response_address() {
        out.datagrams.push((to, response));
    }
}

/// Answers without keeping anything.
fn refuse(message: &Message, status: u16, tag: &str, out: &mut Out) {
    if let Ok(response) = ResponseBuilder::to_request(message, status, Some(tag)).build() {
        reply(message, response, out);
    }
}

impl Carrier {
    /// At this address, with at most `most` calls at a time; more are answered 503.
    #[must_use]
    pub fn new(entropy: Entropy, address: SocketAddr, most: usize) -> Self {
        Self {
            address,
            entropy,
            most,
            calls: BTreeMap::new(),
            keys: BTreeMap::new(),
            next_call: 0,
            timers: Timers::new(),
            counts: CarrierCounts::default(),
            gate: None,
            rings_reliably: false,
        }
    }

    /// Its 180s are reliable, too.
    #[must_use]
    pub fn ringing_reliably(self) -> Self {
        Self { rings_reliably: true, ..self }
    }

    /// Counters since the start.
    #[must_use]
    pub const fn counts(&self) -> CarrierCounts {
        self.counts
    }

    /// Calls in the table, those that only answer repetitions included.
    #[must_use]
    pub fn live_calls(&self) -> usize {
        self.calls.len()
    }

    fn contact(&self) -> NameAddr {
        NameAddr::new(Uri::of_address(Some("carrier"), self.address))
    }

    fn wait(&mut self, number: u64, at: Mono) {
        if let Some(call) = self.calls.get_mut(&number) {
            call.due = Some(at);
            self.timers.set(at, number);
        }
    }

    fn on_request(&mut self, request: &Message, source: SocketAddr, now: Mono, out: &mut Out) {
        if !self.is_let_in(request, source, now, out) {
            return;
        }
        let known = self.keys.get(&key_of(request)).copied();
        match (request.method(), known) {
            (Method::Invite, None) if request.to_tag().is_none() => self.on_new_call(request, now, out),
            (Method::Invite, Some(number)) => self.on_repeated_invite(number, request, now, out),
            (Method::Ack, Some(number)) => self.on_ack(number, request.cseq().0, now, out),
            (Method::Ack, None) => {}
            (Method::Cancel, Some(number)) => self.on_cancel(number, request, now, out),
            (Method::Bye, Some(number)) => self.on_bye(number, request, now, out),
            (Method::Prack, Some(number)) => self.on_prack(number, request, now, out),
            (Method::Options, None) if request.to_tag().is_none() => self.on_probe(request, out),
            (Method::Register, None) => self.on_register(request, now, out),
            (Method::Options | Method::Info | Method::Update | Method::Notify, Some(number)) => {
                let Some(call) = self.calls.get(&number) else { return };
                // A probe in the dialog of a call that is over (RFC 3261 §12.2.2).
                let is_over = matches!(call.state, State::Over | State::HangingUp { .. } | State::Refused { .. });
                if !is_over && *request.method() == Method::Update && request.has_sdp() {
                    return self.answer_update(number, request, out);
                }
                refuse(request, if is_over { 481 } else { 200 }, &call.to_tag, out);
            }
            (Method::Invite | Method::Cancel | Method::Bye | Method::Prack, None)
            | (Method::Update | Method::Info | Method::Options, None) => refuse(request, 481, "gone", out),
            _ => refuse(request, 405, "no", out),
        }
    }

    /// A trunk's health probe.
    fn on_probe(&mut self, request: &Message, out: &mut Out) {
        let tag = self.entropy.hex::<8>();
        refuse(request, 200, &tag, out);
    }

    fn on_new_call(&mut self, invite: &Message, now: Mono, out: &mut Out) {
        let tag = self.entropy.hex::<8>();
        if self.calls.len() >= self.most {
            self.counts.shed += 1;
            return refuse(invite, 503, &tag, out);
        }
        self.counts.invites += 1;
        let user = invite.request_uri().and_then(Uri::user_decoded).unwrap_or_default();
        let behaviour = Behaviour::of_number(&user);
        let number = self.next_call;
        self.next_call += 1;
        self.keys.insert(key_of(invite), number);
        let call = Call {
            invite: invite.clone(),
            to_tag: tag,
            behaviour,
            state: State::Ringing { answer_at: now + behaviour.after },
            last: Bytes::new(),
            due: None,
            hang_up_at: None,
            early: None,
            prack: None,
            bye: None,
            origin: Origin::fresh(&mut self.entropy),
            cseq: invite.cseq().0,
        };
        self.calls.insert(number, call);
        if let Some(status) = behaviour.progress {
            let is_reliable = (status == 183 || self.rings_reliably) && takes_reliable(invite);
            if let Some(call) = self.calls.get_mut(&number).filter(|_| is_reliable) {
                let mut repeat = Repeat::of_invite(now);
                call.early = Some((repeat.next(now), repeat));
            }
            self.respond(number, status, out);
        }
        if behaviour.after.is_zero() {
            self.decide(number, now, out);
        } else {
            self.ring_on(number, now, out);
        }
    }

    /// Sends a response to the call's INVITE and keeps it for repetitions.
    fn respond(&mut self, number: u64, status: u16, out: &mut Out) -> Bytes {
        let contact = self.contact();
        let media = SocketAddr::new(self.address.ip(), media_port(number));
        let Some(call) = self.calls.get_mut(&number) else { return Bytes::new() };
        let mut builder = ResponseBuilder::to_request(&call.invite, status, Some(&call.to_tag));
        if status < 300 {
            builder = builder.record_route().contact(&contact);
        }
        if call.early.is_some() && status < 200 {
            builder = builder.header(HeaderName::Require, &RELIABLE).header(HeaderName::RSeq, &RSEQ);
        }
        if matches!(status, 183 | 200) {
            builder = builder.body(sdp::CONTENT_TYPE, sdp::audio(call.origin, media).into());
        }
        // The INVITE was read, so it can be answered.
        call.last = builder.build().unwrap_or_default();
        reply(&call.invite, call.last.clone(), out);
        call.last.clone()
    }

    /// Sends the final response.
    fn decide(&mut self, number: u64, now: Mono, out: &mut Out) {
        let Some(behaviour) = self.calls.get(&number).map(|call| call.behaviour) else { return };
        self.finish(number, behaviour.status, now, out);
    }

    fn finish(&mut self, number: u64, status: u16, now: Mono, out: &mut Out) {
        let response = self.respond(number, status, out);
        let mut repeat = Repeat::up_to_t2(now);
        let at = repeat.next(now);
        let Some(call) = self.calls.get_mut(&number) else { return };
        if status == 200 {
            self.counts.answered += 1;
            call.hang_up_at = call.behaviour.hang_up_after.map(|after| now + after);
            call.state = State::Answered { response, repeat };
        } else {
            call.state = State::Refused { response, repeat };
        }
        self.wait(number, at);
    }

    fn on_repeated_invite(&mut self, number: u64, invite: &Message, now: Mono, out: &mut Out) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        if invite.cseq().0 <= call.cseq {
            return reply(invite, call.last.clone(), out);
        }
        // A re-INVITE: a new session description or a refresh.
        if !matches!(call.state, State::Up) {
            let tag = call.to_tag.clone();
            return refuse(invite, 491, &tag, out);
        }
        call.cseq = invite.cseq().0;
        call.invite = invite.clone();
        call.origin = call.origin.next();
        let hang_up_at = call.hang_up_at;
        let response = self.respond(number, 200, out);
        let mut repeat = Repeat::up_to_t2(now);
        let at = repeat.next(now);
        if let Some(call) = self.calls.get_mut(&number) {
            call.state = State::Answered { response, repeat };
            call.hang_up_at = hang_up_at;
        }
        self.wait(number, at);
    }

    fn on_ack(&mut self, number: u64, cseq: u32, now: Mono, out: &mut Out) {
        // That of an INVITE before, which was asked for credentials, may come late.
        let Some(call) = self.calls.get_mut(&number).filter(|call| call.cseq == cseq) else { return };
        match call.state {
            State::Answered { .. } => {
                call.state = State::Up;
                call.due = None;
                self.counts.confirmed += 1;
                out.events.push(CarrierEvent::Confirmed);
                if let Some(at) = call.hang_up_at {
                    self.wait(number, at);
                }
            }
            State::Refused { .. } => self.over(number, now),
            _ => {}
        }
    }

    fn on_cancel(&mut self, number: u64, cancel: &Message, now: Mono, out: &mut Out) {
        let Some(call) = self.calls.get(&number) else { return };
        let tag = call.to_tag.clone();
        let ringing = matches!(call.state, State::Ringing { .. });
        refuse(cancel, 200, &tag, out);
        if ringing {
            self.counts.cancelled += 1;
            out.events.push(CarrierEvent::Cancelled);
            self.finish(number, 487, now, out);
        }
    }

    fn on_bye(&mut self, number: u64, bye: &Message, now: Mono, out: &mut Out) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        let was_up = matches!(call.state, State::Answered { .. } | State::Up | State::HangingUp { .. });
        // Its repetition has the same answer; for another one there is no dialog any more (RFC 3261 §15.1.2).
        let is_late = matches!(call.state, State::Over) && call.bye.as_deref() != bye.branch();
        refuse(bye, if is_late { 481 } else { 200 }, &call.to_tag, out);
        if was_up {
            call.bye = bye.branch().map(Into::into);
            self.counts.ended += 1;
            out.events.push(CarrierEvent::Ended { by_carrier: false });
            self.over(number, now);
        }
    }

    /// From here on the call only answers repetitions, for a while.
    fn over(&mut self, number: u64, now: Mono) {
        if let Some(call) = self.calls.get_mut(&number) {
            call.state = State::Over;
        }
        self.wait(number, now + LINGER);
    }

    fn remove(&mut self, number: u64) {
        if let Some(call) = self.calls.remove(&number) {
            self.keys.remove(&key_of(&call.invite));
        }
    }

    fn on_due(&mut self, number: u64, now: Mono, out: &mut Out) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        if call.due.is_none_or(|due| due > now) {
            return;
        }
        call.due = None;
        let is_invite_answer = matches!(call.state, State::Answered { .. } | State::Refused { .. });
        match &mut call.state {
            State::Ringing { .. } => self.ring_on(number, now, out),
            State::Up => self.hang_up(number, now, out),
            State::Answered { response: bytes, repeat }
            | State::Refused { response: bytes, repeat }
            | State::HangingUp { bye: bytes, repeat } => {
                if now >= repeat.give_up {
                    self.counts.lost += 1;
                    return self.remove(number);
                }
                let (bytes, at) = (bytes.clone(), repeat.next(now));
                let to =
                    if is_invite_answer { call.invite.response_address() } else { target_of(call).map(|(to, _)| to) };
                out.datagrams.extend(to.map(|to| (to, bytes)));
                self.wait(number, at);
            }
            State::Over => self.remove(number),
        }
    }
}

/// A port for the SDP; no media flow.
fn media_port(number: u64) -> u16 {
    20_000 + 2 * u16::try_from(number % 10_000).unwrap_or(0)
}

impl Endpoint for Carrier {
    type Command = CarrierCommand;
    type Event = CarrierEvent;

    fn on_command(&mut self, command: CarrierCommand, _now: Mono, _actions: &mut Out) {
        let Some(gate) = &mut self.gate else { return };
        match command {
            CarrierCommand::ForgetRegistration => gate.forget(),
            CarrierCommand::AgeNonces => gate.rotate(&mut self.entropy),
        }
    }

    fn on_datagram(&mut self, datagram: &Bytes, source: SocketAddr, now: Mono, actions: &mut Out) {
        match Message::parse_datagram(datagram) {
            Ok(message) if message.is_request() => self.on_request(&message.with_source(source), source, now, actions),
            Ok(message) => self.on_response(&message, now, actions),
            Err(error) => {
                let tag = self.entropy.hex::<8>();
                actions.datagrams.extend(error.answer(source, &tag).map(|answer| (source, answer)));
            }
        }
    }

    fn on_time(&mut self, now: Mono, actions: &mut Out) {
        while let Some(number) = self.timers.pop(now) {
            self.on_due(number, now, actions);
        }
    }

    fn next_time(&self) -> Option<Mono> {
        self.timers.next()
    }
}

/// Counters only.
impl std::fmt::Debug for Carrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Carrier").field("live", &self.calls.len()).field("counts", &self.counts).finish_non_exhaustive()
    }
}
