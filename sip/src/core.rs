//! The SIP edge as one pure machine: messages, commands and time in; messages and events out. No sockets, clock or randomness
//! of its own, so the simulator runs the same code as the SIP thread.
//!
//! What a request meets on its way in: transactions (`exchange.rs`), then dialogs (`in_dialog.rs`), then by its method an
//! INVITE (`authenticate.rs`, `incoming.rs`), REGISTER (`register.rs`) or OPTIONS. Outgoing legs are in `outgoing.rs`, reliable
//! provisional responses of both kinds in `reliable.rs`, changes of a session in `offer.rs`.

mod acknowledging;
mod authenticate;
mod challenge;
mod change;
mod config;
mod departure;
mod dialled;
mod dialogs;
mod dispatch;
mod early;
mod ending;
mod exchange;
mod flows;
mod in_dialog;
mod incoming;
mod keys;
mod leg;
mod liveness;
mod matching;
mod names;
mod offer;
mod offering;
mod outcome;
mod outgoing;
mod peers;
mod probe;
mod register;
mod registering;
mod reliable;
mod resume;
mod session_timer;
mod shedding;
mod timers;
mod told;
mod wish;

pub use config::{Advertised, AdvertisedV6, CoreConfig};

use crate::dialog::DialogKey;
use crate::digest::Challenger;
use crate::flow::{Destination, Flow, Unreached};
use crate::guard::{Guard, GuardCounts};
use crate::message::{Malformed, Message};
use crate::overload::{Overload, OverloadCounts};
use crate::registrar::Registrar;
use authenticate::Lookups;
use bytes::Bytes;
use departure::Refusals;
use dialogs::Dialogs;
use early::Early;
use ending::Parked;
use exchange::{ClientExchange, ServerExchange};
use leg::Legs;
use matching::{ClientKey, MergeKey, ServerKey};
use names::Names;
use peers::ByPeer;
use probe::Probes;
use register::Registering;
use registering::Registrations;
use ring::hmac;
use schema::edge::{EdgeCommand, EdgeEvent};
use schema::entropy::Entropy;
use schema::id::{CallId, CredentialId};
use schema::leg::{LegCommand, LegEvent, LegEventAt, LegId};
use schema::target::HostName;
use schema::time::{Mono, Now};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use timers::{Timer, Timers};

/// Room for outputs that stays.
const OUTPUTS_KEPT: usize = 64;

/// What comes in.
#[derive(Debug)]
pub enum Input {
    /// A message, its source noted.
    Message(Flow, Message),
    /// A request outside dialogs for which there is no room to wait: it is refused.
    Surplus(Flow, Message),
    /// How long the oldest request outside dialogs has waited since it came, where so many wait that it is a queue.
    Waited {
        /// Of INVITEs.
        calls: Duration,
        /// Of all others.
        others: Duration,
    },
    /// A connection is over.
    FlowClosed(Flow),
    /// The same of one that we opened to this destination, and that was up.
    Disconnected(Flow, Destination),
    /// A connection could not be opened, and why.
    Unreachable(Destination, Unreached),
    /// For a call leg.
    Leg(LegCommand),
    /// For the edge.
    Edge(EdgeCommand),
    /// Time passed.
    Timeout,
}

/// What goes out.
#[derive(Debug)]
pub enum Output {
    /// Send on a flow.
    Send(Flow, Bytes),
    /// Send to a destination, over its connection if there is one.
    SendTo(Destination, Bytes),
    /// The peer of this flow proved who it is.
    Trust(Flow),
    /// A call leg tells something.
    Leg(LegEventAt),
    /// The edge tells something.
    Edge(EdgeEvent),
}

/// Sizes of the tables. All but `registrations` and `carrier_registrations` are zero some time after the last call has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "counts of what each name says")]
pub struct Counts {
    pub server_transactions: usize,
    pub client_transactions: usize,
    pub legs: usize,
    pub dialogs: usize,
    pub ended_dialogs: usize,
    /// Calls about which nobody has decided yet.
    pub undecided: usize,
    /// INVITEs that are not answered finally.
    pub invites: usize,
    /// Answers to BYEs that wait for their commit, BYEs and legs that wait for their phone, legs that wait for a name.
    pub waiting: usize,
    pub lookups: usize,
    pub registrations: usize,
    pub carrier_registrations: usize,
}

/// What the edge can be asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Sizes of the tables now.
    pub tables: Counts,
    /// What strangers were refused, since the start.
    pub guard: GuardCounts,
    /// What was refused because it was too much, since the start.
    pub overload: OverloadCounts,
}

/// The SIP edge.
pub struct Core {
    config: CoreConfig,
    entropy: Entropy,
    challenger: Challenger,
    output: VecDeque<Output>,
    timers: Timers,
    servers: BTreeMap<ServerKey, Box<ServerExchange>>,
    clients: ByPeer<ClientKey, ClientExchange>,
    legs: Legs,
    dialogs: Dialogs,
    /// Dialogs that ended a short time ago: a repeated BYE is still answered 200.
    ended: BTreeMap<DialogKey, CallId>,
    ended_order: VecDeque<(Mono, DialogKey)>,
    ended_armed: Option<Mono>,
    /// Answers to BYEs that wait until the end of their call is durable.
    byes: BTreeMap<CallId, Vec<(ServerKey, Bytes)>>,
    /// INVITEs not answered finally: the same request by another way is a loop (RFC 3261 §8.2.2.2).
    invites: BTreeSet<MergeKey>,
    refusals: Refusals,
    lookups: Lookups,
    guard: Guard,
    overload: Overload,
    registrar: Registrar,
    registering: Registering,
    bindings_armed: Option<Mono>,
    /// Requests of dialogs that may be resumed still; `None` once all are.
    early: Option<Early>,
    /// Legs that have something to send to a phone that is not connected.
    absent: BTreeMap<CredentialId, BTreeSet<LegId>>,
    /// Ended legs whose phone is not connected: it is sent its BYE when it comes back in time.
    parked: BTreeMap<LegId, Parked>,
    /// Whether the next look for legs that nobody cares about is set.
    sweeping: bool,
    probes: Probes,
    names: Names,
    registrations: Registrations,
    /// Makes the To-tags of answers.
    tags: hmac::Key,
}

impl Core {
    /// An edge without calls.
    ///
    /// # Errors
    /// When the domain cannot be a digest realm.
    pub fn new(config: CoreConfig, mut entropy: Entropy) -> Result<Self, Malformed> {
        let hosts: Vec<&str> = config.hosts().collect();
        let challenger = Challenger::new(&mut entropy, &config.domain, &hosts, &config.digest)?;
        Ok(Self {
            challenger,
            guard: Guard::new(config.guard.clone()),
            overload: Overload::new(config.calls_per_second, config.bounds_waiting),
            config,
            tags: hmac::Key::new(hmac::HMAC_SHA256, &entropy.bytes::<32>()),
            entropy,
            output: VecDeque::new(),
            timers: Timers::default(),
            servers: BTreeMap::new(),
            clients: ByPeer::default(),
            legs: Legs::default(),
            dialogs: Dialogs::default(),
            ended: BTreeMap::new(),
            ended_order: VecDeque::new(),
            ended_armed: None,
            byes: BTreeMap::new(),
            invites: BTreeSet::new(),
            refusals: Refusals::default(),
            lookups: Lookups::default(),
            registrar: Registrar::default(),
            registering: Registering::default(),
            bindings_armed: None,
            early: None,
            absent: BTreeMap::new(),
            parked: BTreeMap::new(),
            sweeping: false,
            probes: Probes::default(),
            names: Names::default(),
            registrations: Registrations::default(),
        })
    }

    /// An edge whose calls from before the restart come back: until [`EdgeCommand::Recovered`] requests of dialogs that it does
    /// not know wait.
    #[must_use]
    pub fn recovering(self) -> Self {
        Self { early: Some(Early::default()), ..self }
    }

    /// Takes one input. Then [`Self::poll_output`] until it is empty.
    pub fn handle(&mut self, input: Input, now: Now) {
        // What a burst has needed is given back.
        self.output.shrink_to(OUTPUTS_KEPT);
        self.refusals.forget_old(now.mono);
        match input {
            Input::Message(flow, message) if message.is_request() => self.on_request(flow, message, now),
            Input::Message(flow, message) if self.is_answer_to_us(&message) => self.on_response(flow, &message, now),
            Input::Message(..) => {}
            Input::Surplus(flow, message) => self.on_surplus(flow, &message, now),
            Input::Waited { calls, others } => self.overload.waited(calls, others, now.mono),
            Input::FlowClosed(flow) => self.on_flow_closed(flow, now),
            Input::Disconnected(flow, destination) => {
                self.doubt_registrations_at(flow, now);
                self.on_flow_closed(flow, now);
                self.on_disconnected(destination, now);
            }
            Input::Unreachable(destination, why) => self.on_unreachable(destination, why, now),
            Input::Leg(command) => self.on_leg_command(command, now),
            Input::Edge(command) => self.on_edge_command(command, now),
            Input::Timeout => {}
        }
        self.on_time(now);
    }

    /// The next thing to send or tell, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    /// When [`Input::Timeout`] is due at the latest.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Mono> {
        self.timers.next()
    }

    /// The name that the certificate of this destination has to be for; `None`: for its address.
    #[must_use]
    pub fn peer_name(&self, destination: Destination) -> Option<&HostName> {
        self.names.peer(destination.name?)
    }

    /// Sizes of the tables.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            server_transactions: self.servers.len(),
            client_transactions: self.clients.len(),
            legs: self.legs.len(),
            dialogs: self.dialogs.len(),
            ended_dialogs: self.ended.len(),
            undecided: self.overload.undecided(),
            invites: self.invites.len(),
            waiting: self.byes.len() + self.parked.len() + self.absent.len() + self.names.waiting(),
            lookups: self.lookups.len(),
            registrations: self.registrar.len(),
            carrier_registrations: self.registrations.len(),
        }
    }

    /// Sizes of the tables, and what was refused.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures { tables: self.counts(), guard: self.guard.counts(), overload: self.overload.counts() }
    }

    fn tell(&mut self, event: LegEvent, now: Now) {
        self.output.push_back(Output::Leg(LegEventAt { event, at: now }));
    }

    fn on_leg_command(&mut self, command: LegCommand, now: Now) {
        self.note_decision(&command, now);
        match command {
            LegCommand::Invite(invite) => self.invite(*invite, None, now),
            LegCommand::Progress { leg, status, sdp } => self.progress(leg, status, sdp.as_ref(), now),
            LegCommand::Accept { leg, sdp } => self.accept(leg, sdp.as_ref(), now),
            LegCommand::Reject { leg, status, reason, retry_after_s } => {
                self.reject(leg, status, reason.as_deref(), retry_after_s, now);
            }
            LegCommand::Confirm { leg, answer } => self.confirm(leg, answer.as_ref(), now),
            LegCommand::HangUp { leg, cause } => self.hang_up(leg, cause, now),
            LegCommand::Resume { leg, checkpoint } => self.resume(leg, &checkpoint, now),
            LegCommand::Settled { call } => self.answer_byes(call, now),
            LegCommand::Probe { leg } => self.probe_leg(leg, now),
            LegCommand::Offer { leg, offer } => self.offer(leg, &offer, now),
            LegCommand::AnswerOffer { leg, answer } => self.answer_offer(leg, answer, now),
            LegCommand::PressKey { leg, key } => self.press_key(leg, &key, now),
            LegCommand::TakeBack(call) => self.take_back(*call, now),
        }
    }

    fn on_edge_command(&mut self, command: EdgeCommand, now: Now) {
        match command {
            EdgeCommand::Credential { ticket, found } => self.on_credential(ticket, found, now),
            EdgeCommand::CredentialRevoked { credential } => {
                self.lookups.forget(credential);
                let changes = self.registrar.revoke(credential, now.wall);
                self.tell_bindings(changes);
            }
            EdgeCommand::Trunks(trunks) => self.set_trunks(trunks, now),
            EdgeCommand::Located { name, found } => self.on_located(&name, found, now),
            EdgeCommand::Leaving => self.leave_registrars(now),
            EdgeCommand::Recovered => self.recovered(),
            EdgeCommand::BindingRestored { binding, username } => {
                self.guard.restored(&binding, &username, now.mono);
                let credential = binding.credential;
                let is_there = self.registrar.restore(*binding, now);
                self.arm_bindings();
                // A leg that was resumed before may wait for it.
                if is_there {
                    self.phone_came_back(credential, now);
                }
            }
        }
    }

    fn on_time(&mut self, now: Now) {
        while let Some(timer) = self.timers.pop(now.mono) {
            match timer {
                Timer::Server(key) => self.server_time(&key, now),
                Timer::Client(branch) => self.client_time(&branch, now),
                Timer::Leg(leg) => self.leg_time(leg, now),
                Timer::Lookup(ticket) => self.lookup_time(ticket, now),
                Timer::Bindings => self.bindings_time(now),
                Timer::Sweep => self.sweep_time(now),
                Timer::Probe(trunk) => self.probe_time(trunk, now),
                Timer::Name(name) => self.name_time(&name, now),
                Timer::Register(number) => self.registering_time(number, now),
                Timer::Ended => self.ended_time(now),
                Timer::Bye(call) => self.answer_byes(call, now),
            }
        }
    }
}

#[cfg(test)]
mod tests;
