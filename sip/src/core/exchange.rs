//! Transactions in use: which machine belongs to which message, and the bytes it repeats.

use super::challenge::{Asked, Carrier};
use super::departure::{Departure, over_udp};
use super::flows::WhichPhone;
use super::matching::{ClientKey, MergeKey, ServerKey};
use super::peers::{Bound, Way, reply_flow};
use super::timers::{Timer, Timers};
use super::{Core, Output};
use crate::flow::Flow;
use crate::message::{Message, Method, RequestBuilder, ResponseBuilder, Via, limits};
use crate::transaction::{InviteClient, InviteServer, OtherClient, OtherServer, Step};
use bytes::Bytes;
use schema::carrier::Gateway;
use schema::id::TrunkId;
use schema::leg::LegId;
use schema::time::{Mono, Now};

enum ServerMachine {
    Invite(InviteServer),
    Other(OtherServer),
}

/// A request under way from a peer. After its final response it keeps the key and what it repeats only.
pub(super) struct ServerExchange {
    machine: ServerMachine,
    reply: Flow,
    last: Bytes,
    /// A request other than INVITE until it is answered, for its 100.
    open: Option<Box<Message>>,
    armed: Option<Mono>,
    /// The leg an INVITE outside a dialog belongs to.
    pub(super) leg: Option<LegId>,
    /// Until an INVITE is answered finally.
    merged: Option<MergeKey>,
}

enum ClientMachine {
    Invite(InviteClient),
    Other(OtherClient),
}

/// On whose behalf a request was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// The INVITE of this leg.
    Leg(LegId),
    Probe(TrunkId, Gateway),
    /// A REGISTER to a carrier, by its registration's number.
    Register(u64),
    /// A probe in the dialog of this leg.
    Pulse(LegId),
    /// A re-INVITE in the dialog of this leg, or an early UPDATE.
    Offer(LegId),
    /// A PRACK in an early dialog of this leg.
    Prack(LegId),
    /// An INFO in the dialog of this leg, of which nobody waits for the outcome.
    Key(LegId),
    /// An UPDATE that refreshes the session of this leg.
    Refresh(LegId),
    /// The BYE of a leg that was not known to be there: it shows when the leg ended.
    Bye(LegId),
    /// Nobody waits for its outcome: CANCEL, the BYE of a leg that is gone.
    Nobody,
}

/// A request under way to a peer. After its final response it keeps the key and what it repeats only.
pub(super) struct ClientExchange {
    machine: ClientMachine,
    way: Way,
    /// What is repeated: the request; behind the failure of an INVITE its ACK.
    bytes: Bytes,
    /// It went over TCP because it is large.
    pub(super) is_large: bool,
    pub(super) owner: Owner,
    /// How often it was answered for, until this transaction.
    pub(super) asked: Asked,
    /// Of a request whose leg is gone: the carrier that it is for.
    pub(super) carrier: Option<Box<Carrier>>,
    /// Of a request whose leg is gone: the phone that it is for.
    pub(super) phone: Option<Box<WhichPhone>>,
    /// Something was heard of it, be it that it has arrived.
    pub(super) is_heard: bool,
    /// How often it has left by another flow of its phone, or by another connection to its destination.
    pub(super) moves: u8,
    /// An INVITE without an offer: its 200 has one.
    pub(super) is_offerless: bool,
    armed: Option<Mono>,
}

impl Bound for ClientExchange {
    fn way(&self) -> Way {
        self.way
    }

    fn set_way(&mut self, way: Way) {
        self.way = way;
    }
}

impl ClientExchange {
    /// A request that is about to be sent.
    fn new(machine: ClientMachine, departure: Departure) -> Self {
        let Departure { way, is_large, bytes, owner, asked, carrier, phone, moves, .. } = departure;
        let is_offerless = matches!(machine, ClientMachine::Invite(_)) && bytes.ends_with(b"\r\n\r\n");
        let (is_heard, armed) = (false, None);
        Self { machine, way, bytes, is_large, owner, asked, carrier, phone, is_heard, moves, is_offerless, armed }
    }

    pub(super) const fn is_invite(&self) -> bool {
        matches!(self.machine, ClientMachine::Invite(_))
    }

    /// What leaves by a new connection when the one it left by has ended; nothing when that has happened before.
    pub(super) fn once_more(&mut self) -> Option<Bytes> {
        (std::mem::replace(&mut self.moves, 1) == 0).then(|| self.bytes.clone())
    }

    /// The way it would have gone but for its size.
    pub(super) const fn usual_way(&self) -> Way {
        if self.is_large { over_udp(self.way) } else { self.way }
    }

    /// The request as sent, while it is here.
    pub(super) fn request(&self) -> Option<Message> {
        Message::parse_datagram(&self.bytes).ok()
    }

    /// The ACK of this failure of an INVITE; for a repetition the same again.
    fn acknowledge(&mut self, failure: Option<&Message>) -> Bytes {
        let invite = self.request().filter(|sent| *sent.method() == Method::Invite);
        if let Some((invite, failure)) = invite.zip(failure) {
            self.bytes = RequestBuilder::ack_of_failure(&invite, failure).build().unwrap_or_default();
        }
        self.bytes.clone()
    }

    /// Lets go of what is not repeated any more. True when it has its final response.
    fn shed(&mut self) -> bool {
        match self.machine {
            ClientMachine::Invite(InviteClient::Accepted { .. }) => self.bytes = Bytes::new(),
            ClientMachine::Invite(InviteClient::Completed { .. }) => {}
            ClientMachine::Other(OtherClient::Completed { .. }) => {
                (self.bytes, self.carrier, self.phone) = (Bytes::new(), None, None);
            }
            _ => return false,
        }
        true
    }
}

/// A message up to this length is within all limits of reading but the counts of [`limits`](crate::message::limits), which nothing
/// of ours reaches.
const LARGE: usize = limits::MAX_START_LINE;

/// An INVITE of ours as it left. It is read only when its CANCEL is made, or when it leaves once more.
pub(super) struct SentInvite {
    pub(super) branch: Box<str>,
    /// The way of its CANCEL, too.
    pub(super) way: Way,
    bytes: Bytes,
}

impl SentInvite {
    pub(super) fn read(&self) -> Option<Message> {
        Message::parse_datagram(&self.bytes).ok()
    }
}

impl Core {
    pub(super) fn send(&mut self, way: Way, bytes: Bytes) {
        match way {
            Way::Flow(flow) => self.output.push_back(Output::Send(flow, bytes)),
            Way::To(destination) => self.output.push_back(Output::SendTo(destination, bytes)),
            Way::Gone(_) => {}
        }
    }

    /// Our Via for a request that goes this way.
    pub(super) fn via(&mut self, way: Way, branch: Option<&str>) -> Option<Via> {
        let protocol = way.protocol();
        let advertised = self.config.advertised(protocol, way.is_ipv6())?;
        let fresh;
        let branch = match branch {
            Some(branch) => branch,
            None => {
                fresh = ["z9hG4bK", &self.entropy.hex::<12>()].concat();
                &fresh
            }
        };
        Via::new(protocol.via(), &advertised.host, Some(advertised.port), branch).ok()
    }

    /// Answers a request without keeping anything.
    pub(super) fn reply(&mut self, flow: Flow, request: &Message, response: ResponseBuilder) {
        match response.build() {
            Ok(bytes) => self.send(Way::Flow(reply_flow(flow, request)), bytes),
            Err(error) => tracing::warn!(%error, "a response could not be written"),
        }
    }

    /// A response with a To-tag of its own.
    pub(super) fn response(&self, request: &Message, status: u16) -> ResponseBuilder {
        ResponseBuilder::to_request(request, status, Some(&self.tag_of(request)))
    }

    /// Answers a request other than INVITE; over UDP its repetitions get the same answer.
    pub(super) fn answer(&mut self, flow: Flow, request: &Message, response: ResponseBuilder, now: Now) {
        let key = ServerKey::of(request, request.method());
        if !self.servers.contains_key(&key) {
            self.insert_server(&key, flow, request, now);
        }
        self.respond(&key, response, now);
    }

    /// Answers a request other than INVITE with a status and nothing else.
    pub(super) fn answer_status(&mut self, flow: Flow, request: &Message, status: u16, now: Now) {
        let response = self.response(request, status);
        self.answer(flow, request, response, now);
    }

    /// Begins a server transaction whose answer may take a while.
    pub(super) fn open_server(&mut self, key: &ServerKey, flow: Flow, request: &Message, now: Now) {
        self.insert_server(key, flow, request, now);
        self.after_server(key, &[], now);
    }

    fn insert_server(&mut self, key: &ServerKey, flow: Flow, request: &Message, now: Now) {
        let is_invite = *request.method() == Method::Invite;
        let machine = if is_invite {
            ServerMachine::Invite(InviteServer::Proceeding)
        } else {
            ServerMachine::Other(OtherServer::new(now.mono))
        };
        let open = (!is_invite).then(|| Box::new(request.clone()));
        let merged = (is_invite && request.to_tag().is_none()).then(|| MergeKey::of(request));
        self.invites.extend(merged.clone());
        let reply = reply_flow(flow, request);
        let exchange = ServerExchange { machine, reply, last: Bytes::new(), open, armed: None, leg: None, merged };
        self.servers.insert(key.clone(), Box::new(exchange));
    }

    /// Sends a response within its transaction; nothing when that is gone.
    pub(super) fn respond(&mut self, key: &ServerKey, response: ResponseBuilder, now: Now) {
        match response.build() {
            Ok(bytes) => self.respond_bytes(key, bytes, now),
            Err(error) => tracing::warn!(%error, "a response could not be written"),
        }
    }

    pub(super) fn respond_bytes(&mut self, key: &ServerKey, bytes: Bytes, now: Now) {
        let Some(exchange) = self.servers.get_mut(key) else { return };
        let reliable = exchange.reply.protocol.is_reliable();
        let status = status_of(&bytes);
        match &mut exchange.machine {
            ServerMachine::Invite(machine) => machine.sent(status, reliable, now.mono),
            ServerMachine::Other(machine) => machine.sent(status, reliable, now.mono),
        }
        let is_final = status >= 200;
        if let Some(merged) = exchange.merged.take_if(|_| is_final) {
            self.invites.remove(&merged);
        }
        if is_final {
            exchange.open = None;
        }
        // A 2xx to an INVITE is repeated by its leg.
        let is_repeated = !matches!(exchange.machine, ServerMachine::Invite(InviteServer::Accepted { .. }));
        exchange.last = if is_repeated { bytes.clone() } else { Bytes::new() };
        let flow = exchange.reply;
        self.send(Way::Flow(flow), bytes);
        self.after_server(key, &[], now);
    }

    /// The request came again.
    pub(super) fn server_repeated(&mut self, key: &ServerKey, now: Now) {
        let Some(exchange) = self.servers.get(key) else { return };
        let steps = match &exchange.machine {
            ServerMachine::Invite(machine) => machine.on_repeated(),
            ServerMachine::Other(machine) => machine.on_repeated(),
        };
        self.after_server(key, steps, now);
    }

    /// An ACK for this INVITE transaction came; true when it was the transaction's own (of a failure).
    pub(super) fn server_acked(&mut self, key: &ServerKey, now: Now) -> bool {
        let Some(exchange) = self.servers.get_mut(key) else { return false };
        let reliable = exchange.reply.protocol.is_reliable();
        let ServerMachine::Invite(machine) = &mut exchange.machine else { return false };
        if !matches!(machine, InviteServer::Completed { .. } | InviteServer::Confirmed { .. }) {
            return false;
        }
        let steps = machine.on_ack(reliable, now.mono);
        // It is not repeated any more.
        exchange.last = Bytes::new();
        self.after_server(key, steps, now);
        true
    }

    pub(super) fn server_time(&mut self, key: &ServerKey, now: Now) {
        let Some(exchange) = self.servers.get_mut(key) else { return };
        if !Timers::fires(&mut exchange.armed, now.mono) {
            return;
        }
        let steps = match &mut exchange.machine {
            ServerMachine::Invite(machine) => machine.on_time(now.mono),
            ServerMachine::Other(machine) => machine.on_time(now.mono),
        };
        self.after_server(key, steps, now);
    }

    fn after_server(&mut self, key: &ServerKey, steps: &'static [Step], now: Now) {
        for step in steps {
            let Some(exchange) = self.servers.get(key) else { return };
            match step {
                Step::Repeat if !exchange.last.is_empty() => {
                    let (flow, bytes) = (exchange.reply, exchange.last.clone());
                    self.send(Way::Flow(flow), bytes);
                }
                Step::Try => {
                    if let Some(request) = exchange.open.clone() {
                        self.respond(key, ResponseBuilder::to_request(&request, 100, None), now);
                    }
                }
                Step::Terminate => self.close_server(key),
                _ => {}
            }
        }
        let Some(exchange) = self.servers.get_mut(key) else { return };
        let next = match &exchange.machine {
            ServerMachine::Invite(machine) => machine.next_time(),
            ServerMachine::Other(machine) => machine.next_time(),
        };
        self.timers.arm(&mut exchange.armed, next, || Timer::Server(key.clone()));
    }

    /// Forgets a server transaction whose peer cannot be answered any more.
    pub(super) fn close_server(&mut self, key: &ServerKey) {
        if let Some(merged) = self.servers.remove(key).and_then(|gone| gone.merged) {
            self.invites.remove(&merged);
        }
    }

    /// Sends a request other than INVITE and begins its client transaction. Where the table is full it is sent once, and false is
    /// given: its outcome will not be told.
    pub(super) fn begin(&mut self, departure: Departure, now: Now) -> bool {
        let (way, bytes) = (departure.way, departure.bytes.clone());
        let is_kept = self.clients.len() < self.config.transactions_max;
        if is_kept {
            let machine = ClientMachine::Other(OtherClient::new(now.mono, way.protocol().is_reliable()));
            let key = departure.key();
            self.clients.insert(key.clone(), ClientExchange::new(machine, departure));
            self.after_client(&key, &[], None, now);
        }
        self.send(way, bytes);
        is_kept
    }

    /// Sends an INVITE and begins its client transaction. `None`: nothing was sent, the table is full or it could not be read.
    pub(super) fn begin_invite(&mut self, departure: Departure, now: Now) -> Option<SentInvite> {
        if self.clients.len() >= self.config.transactions_max {
            return None;
        }
        let (way, bytes) = (departure.way, departure.bytes.clone());
        let sent = SentInvite { branch: departure.branch.clone(), way, bytes: bytes.clone() };
        // Its ACK and CANCEL are made from what is read of it. Only a large one can be beyond the limits of reading: it repeats what
        // a far end sent.
        let is_readable = || sent.read().is_some();
        debug_assert!(bytes.len() > LARGE || is_readable(), "an INVITE of ours can be read");
        if bytes.len() > LARGE && !is_readable() {
            tracing::warn!(bytes = bytes.len(), "an INVITE would be beyond the limits of messages");
            return None;
        }
        let machine = ClientMachine::Invite(InviteClient::new(now.mono, way.protocol().is_reliable()));
        let key = departure.key();
        self.clients.insert(key.clone(), ClientExchange::new(machine, departure));
        self.send(way, bytes);
        self.after_client(&key, &[], None, now);
        Some(sent)
    }

    pub(super) fn on_response(&mut self, flow: Flow, response: &Message, now: Now) {
        let Some(branch) = response.branch() else { return };
        let key = ClientKey::of(branch, response.method());
        let Some(exchange) = self.clients.get_mut(&key) else { return self.on_orphan(flow, response, now) };
        exchange.is_heard = true;
        let reliable = exchange.way.protocol().is_reliable();
        let status = response.status().unwrap_or(0);
        // A fork that answers behind a failure (RFC 3261 §16.7 step 5): its transaction tells nobody, as if it were gone.
        let has_failed = matches!(exchange.machine, ClientMachine::Invite(InviteClient::Completed { .. }));
        if has_failed && matches!(exchange.owner, Owner::Leg(_)) && (200..=299).contains(&status) {
            return self.on_orphan(flow, response, now);
        }
        let steps = match &mut exchange.machine {
            ClientMachine::Invite(machine) => machine.on_response(status, reliable, now.mono),
            ClientMachine::Other(machine) => machine.on_response(status, reliable, now.mono),
        };
        self.after_client(&key, steps, Some((flow, response)), now);
    }

    pub(super) fn client_time(&mut self, key: &ClientKey, now: Now) {
        let Some(exchange) = self.clients.get_mut(key) else { return };
        if !Timers::fires(&mut exchange.armed, now.mono) {
            return;
        }
        let steps = match &mut exchange.machine {
            ClientMachine::Invite(machine) => machine.on_time(now.mono),
            ClientMachine::Other(machine) => machine.on_time(now.mono),
        };
        self.after_client(key, steps, None, now);
    }

    fn after_client(&mut self, key: &ClientKey, steps: &'static [Step], response: Option<(Flow, &Message)>, now: Now) {
        // Read before its ACK takes its place.
        let may_leave_again = |message: &Message| matches!(message.status(), Some(401 | 407 | 422 | 430));
        let refused = response.map(|(_, response)| response).filter(|response| may_leave_again(response));
        let refused = refused.and_then(|response| Some((self.clients.get(key)?.request()?, response)));
        for step in steps {
            let Some(exchange) = self.clients.get_mut(key) else { return };
            let (way, owner) = (exchange.way, exchange.owner);
            match step {
                Step::Repeat => {
                    let bytes = exchange.bytes.clone();
                    self.send(way, bytes);
                }
                Step::Ack => {
                    let ack = exchange.acknowledge(response.map(|(_, response)| response));
                    self.send(way, ack);
                }
                Step::Deliver => {
                    let has_left = match &refused {
                        Some((request, refusal)) => self.leaves_again(key, request, refusal, now),
                        None => false,
                    };
                    match response.filter(|_| !has_left) {
                        // Whoever is behind the proxy did not hear of it.
                        Some((_, response)) if response.status() == Some(430) => self.on_no_answer(owner, 503, now),
                        Some((flow, response)) => self.on_answer(flow, owner, response, now),
                        None => {}
                    }
                }
                Step::TimedOut => self.on_silence(key, owner, now),
                // A server's.
                Step::Try => {}
                Step::Terminate => {
                    let gone = self.clients.remove(key);
                    self.forget_ack(gone.as_ref());
                }
            }
        }
        let Some(exchange) = self.clients.get_mut(key) else { return };
        let has_end = exchange.shed();
        let next = match &exchange.machine {
            ClientMachine::Invite(machine) => machine.next_time(),
            ClientMachine::Other(machine) => machine.next_time(),
        };
        self.timers.arm(&mut exchange.armed, next, || Timer::Client(key.clone()));
        if has_end {
            self.clients.rest(key);
        }
    }

    /// Behind this a 200 that is repeated is acknowledged anew: it comes late, if ever.
    fn forget_ack(&mut self, gone: Option<&ClientExchange>) {
        if let Some(ClientExchange { machine: ClientMachine::Invite(InviteClient::Accepted { .. }), owner, .. }) = gone
            && let Owner::Leg(id) = *owner
            && let Some(leg) = self.legs.get_mut(&id)
        {
            leg.ack = None;
        }
    }

    /// Nobody wants the answer to this INVITE any more: it is waited for no longer than 64·T1.
    pub(super) fn limit_client(&mut self, branch: &str, now: Now) {
        let key = ClientKey::of(branch, &Method::Invite);
        if let Some(exchange) = self.clients.get_mut(&key)
            && let ClientMachine::Invite(machine) = &mut exchange.machine
        {
            machine.limit(now.mono);
            self.after_client(&key, &[], None, now);
        }
    }
}

/// The status of a response we wrote.
fn status_of(bytes: &Bytes) -> u16 {
    bytes.get(8..11).and_then(|text| std::str::from_utf8(text).ok()).and_then(|text| text.parse().ok()).unwrap_or(500)
}
