//! Everything outside the server: phones, carriers, the network between them and the server, and the time that passes for
//! all of them. It goes on while there is no server.

use super::manner::Manners;
use super::mischief::{Mischiefs, Out};
use super::needless::GaveUp;
use super::network::{Cut, Datagram, Network};
use super::plan::{BEGIN, Plan};
use super::provision::carrier_login;
use super::redial::{Redial, retry_after_s};
use super::streams::{Piece, Streams, with_tcp};
use super::tally::Tally;
use super::trace::Trace;
use bytes::Bytes;
use schema::entropy::Entropy;
use schema::pii::Pii;
use schema::time::Mono;
use sip::demo::carrier::{Carrier, CarrierEvent};
use sip::demo::phone::{Phone, PhoneCall, PhoneCommand, PhoneConfig, PhoneEvent};
use sip::demo::{Actions, Endpoint};
use sip::flow::ConnectionId;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// Domain and digest realm.
pub const DOMAIN: &str = "sim.example";
/// Where the server is.
#[must_use]
pub fn server() -> SocketAddr {
    ([192, 0, 2, 1], 5060).into()
}

/// Where a carrier is.
///
/// # Panics
/// When there are not so many.
#[must_use]
pub fn carrier(number: usize) -> SocketAddr {
    ([203, 0, 113, u8::try_from(number + 1).expect("two carriers")], 5060).into()
}

fn phone(number: usize) -> SocketAddr {
    ([198, 51, 100, u8::try_from(number + 1).expect("few phones")], 5060).into()
}

/// Digest username and password of an account's phone.
#[must_use]
pub fn credentials(account: usize) -> (String, String) {
    (format!("u{account}"), format!("pw{account}"))
}

/// A phone whose connection went comes back within this time, in milliseconds.
const RECONNECTS_MS: u64 = 4_000;

/// All that is outside the server.
pub struct World {
    /// What happened.
    pub trace: Trace,
    /// The same in numbers.
    pub tally: Tally,
    /// Whether there is a server to connect to.
    pub server_is_up: bool,
    entropy: Entropy,
    network: Network,
    streams: Streams,
    mischiefs: Mischiefs,
    manners: Manners,
    redial: Redial,
    phones: Vec<Phone>,
    carriers: [Carrier; 2],
    /// What is sent later by those who misbehave.
    later: BTreeMap<(Mono, u64), (SocketAddr, Bytes)>,
    delayed: u64,
    /// Those who speak TCP.
    over_tcp: BTreeSet<SocketAddr>,
    /// Phones over TCP that register, and when they do it again because their connection went.
    registering: BTreeMap<usize, Option<Mono>>,
    /// Calls of phones that are not over.
    calling: BTreeSet<(usize, PhoneCall)>,
    answered: BTreeSet<(usize, PhoneCall)>,
    /// Legs that one of them gave up.
    pub gave_up: GaveUp,
}

/// What arrives at the server.
#[derive(Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is what its name says")]
pub enum Arrival {
    /// A datagram.
    Datagram { from: SocketAddr, bytes: Bytes },
    /// Bytes of a connection.
    Bytes { connection: ConnectionId, peer: SocketAddr, bytes: Bytes },
    /// A connection is over.
    Closed { connection: ConnectionId, peer: SocketAddr },
    /// A connection cannot be opened.
    Unreachable { peer: SocketAddr },
}

impl World {
    /// A phone for each account.
    ///
    /// # Panics
    /// Never: the domain is one.
    #[must_use]
    pub fn new(plan: &Plan, entropy: &mut Entropy, trace: Trace) -> Self {
        let mut phone_of = |number: usize| {
            let (username, password) = credentials(number);
            let config = PhoneConfig {
                server: server(),
                domain: DOMAIN.into(),
                address: phone(number),
                username: username.into(),
                password: Pii::new(password.into()),
                expires_s: 120,
                most_calls: 100,
                takes_reliable: plan.accounts[number].takes_reliable,
            };
            Phone::new(config, entropy.fork()).expect("a domain")
        };
        let phones: Vec<_> = (0..plan.accounts.len()).map(&mut phone_of).collect();
        let carriers = [0, 1].map(|number| {
            let carrier = Carrier::new(entropy.fork(), carrier(number), 1_000);
            let carrier = if plan.carriers_ring_reliably[number] { carrier.ringing_reliably() } else { carrier };
            match plan.carriers_asking[number] {
                true => carrier.asking(&carrier_login()).expect("a login"),
                false => carrier,
            }
        });
        let accounts = || plan.accounts.iter().enumerate();
        let phones_over_tcp = accounts().filter(|(_, account)| account.over_tcp).map(|(number, _)| phone(number));
        let carriers_over_tcp = (0..2).filter(|number| plan.carriers_over_tcp[*number]).map(carrier);
        let refusing = (0..2).filter(|number| plan.refuses_tcp[*number]).map(carrier);
        let registering = accounts().filter(|(_, account)| account.registers && account.over_tcp);
        let mut world = Self {
            trace,
            tally: Tally::default(),
            server_is_up: true,
            network: Network::new(plan.weather, entropy.fork()),
            streams: Streams::new(plan.weather, entropy.fork(), refusing.collect()),
            mischiefs: Mischiefs::new(plan.mischiefs.clone(), entropy.fork()),
            manners: Manners::new(plan.manners.clone(), Entropy::from_number(plan.manners.len() as u64)),
            entropy: entropy.fork(),
            redial: Redial::new(
                accounts().map(|(_, account)| account.temper).collect(),
                Entropy::from_number(plan.limits.legs as u64),
            ),
            phones,
            carriers,
            later: BTreeMap::new(),
            delayed: 0,
            over_tcp: phones_over_tcp.chain(carriers_over_tcp).collect(),
            registering: registering.map(|(number, _)| (number, None)).collect(),
            calling: BTreeSet::new(),
            answered: BTreeSet::new(),
            gave_up: GaveUp::default(),
        };
        for (number, _) in accounts().filter(|(_, account)| account.registers) {
            world.command(BEGIN, number, PhoneCommand::Register);
        }
        world
    }

    /// A phone is told something.
    pub fn command(&mut self, now: Mono, number: usize, command: PhoneCommand) {
        let command = self.as_under_way(number, command);
        let mut actions = Actions::default();
        self.phones[number].on_command(command, now, &mut actions);
        self.of_phone(now, number, actions, None);
    }

    /// A plan's call may have been refused, and made again.
    fn as_under_way(&mut self, number: usize, command: PhoneCommand) -> PhoneCommand {
        match command {
            PhoneCommand::Call { call, number: dialled } => {
                self.redial.calls(number, call, dialled.expose());
                self.calling.insert((number, call));
                PhoneCommand::Call { call, number: dialled }
            }
            PhoneCommand::HangUp { call } => {
                self.redial.gives_up(number, call);
                PhoneCommand::HangUp { call: self.redial.newest(number, call) }
            }
            PhoneCommand::Change { call } => PhoneCommand::Change { call: self.redial.newest(number, call) },
            other => other,
        }
    }

    /// The server sends a datagram.
    pub fn send(&mut self, now: Mono, to: SocketAddr, bytes: Bytes) {
        self.network.send(now, Datagram { from: server(), to, bytes }, &mut self.tally);
    }

    /// The server sends on a connection.
    pub fn send_on(&mut self, now: Mono, connection: ConnectionId, bytes: Bytes) {
        self.streams.from_server(now, connection, bytes, &mut self.tally);
    }

    /// The server sends over TCP to an address.
    pub fn send_to(&mut self, now: Mono, to: SocketAddr, bytes: Bytes) {
        self.streams.to_address(now, to, bytes, &mut self.tally);
    }

    /// When something happens next.
    #[must_use]
    pub fn next(&self) -> Option<Mono> {
        let phones = self.phones.iter().filter_map(Endpoint::next_time);
        let carriers = self.carriers.iter().filter_map(Endpoint::next_time);
        let again = self.registering.values().flatten().copied();
        let later = self.later.keys().next().map(|(at, _)| *at);
        let redial = self.redial.next();
        phones
            .chain(carriers)
            .chain(again)
            .chain(redial)
            .chain(later)
            .chain(self.network.next())
            .chain(self.streams.next())
            .min()
    }

    /// Does what is due; gives what has arrived at the server.
    pub fn advance(&mut self, now: Mono) -> Vec<Arrival> {
        let mut for_server = Vec::new();
        while let Some(Datagram { from, to, bytes }) = self.network.arrived(now) {
            if to == server() {
                for_server.push(Arrival::Datagram { from, bytes });
            } else {
                self.deliver(now, to, &bytes);
            }
        }
        while let Some(piece) = self.streams.arrived(now) {
            for_server.extend(self.of_stream(now, piece));
        }
        while let Some(due) = self.later.first_entry().filter(|first| first.key().0 <= now) {
            let (from, bytes) = due.remove();
            self.transmit(now, from, bytes);
        }
        while let Some((number, call, dialled)) = self.redial.take(now, &mut self.tally) {
            self.calling.insert((number, call));
            let mut actions = Actions::default();
            let command = PhoneCommand::Call { call, number: Pii::new(dialled) };
            self.phones[number].on_command(command, now, &mut actions);
            self.of_phone(now, number, actions, None);
        }
        for number in 0..self.phones.len() {
            self.register_again(now, number);
            let mut actions = Actions::default();
            self.phones[number].on_time(now, &mut actions);
            self.of_phone(now, number, actions, None);
        }
        for number in 0..self.carriers.len() {
            let mut actions = Actions::default();
            self.carriers[number].on_time(now, &mut actions);
            self.of_carrier(now, number, actions.datagrams);
        }
        for_server
    }

    fn of_stream(&mut self, now: Mono, piece: Piece) -> Option<Arrival> {
        Some(match piece {
            Piece::AtPeer { peer, messages } => {
                messages.iter().for_each(|message| self.deliver(now, peer, message));
                return None;
            }
            Piece::AtServer { connection, peer, bytes } => Arrival::Bytes { connection, peer, bytes },
            Piece::Closed { connection, peer } => Arrival::Closed { connection, peer },
            Piece::Unreachable { peer } => Arrival::Unreachable { peer },
        })
    }

    /// A message of the server reaches a phone or a carrier.
    fn deliver(&mut self, now: Mono, to: SocketAddr, bytes: &Bytes) {
        let mut actions = Actions::default();
        if let Some(number) = (0..self.phones.len()).find(|number| phone(*number) == to) {
            let mut out = Out::new();
            if self.manners.at_phone(bytes, &mut out, &mut self.tally)
                && self.mischiefs.at_phone(bytes, &mut self.tally)
            {
                self.phones[number].on_datagram(bytes, server(), now, &mut actions);
            }
            self.of_phone(now, number, actions, retry_after_s(bytes));
            self.transmit_all(now, to, out);
        } else if let Some(number) = (0..self.carriers.len()).find(|number| carrier(*number) == to) {
            let mut actions = Actions::default();
            let mut out = Out::new();
            if self.manners.at_carrier(to, bytes, &mut out, &mut self.tally)
                && self.mischiefs.at_carrier(to, bytes, &mut out, &mut self.tally)
            {
                self.carriers[number].on_datagram(bytes, server(), now, &mut actions);
            }
            let is_challenge = |event: &CarrierEvent| *event == CarrierEvent::Challenged;
            self.tally.add_if("requests without credentials", actions.events.iter().any(is_challenge));
            self.of_carrier(now, number, actions.datagrams);
            self.transmit_all(now, to, out);
        }
    }

    fn of_phone(&mut self, now: Mono, number: usize, actions: Actions<PhoneEvent>, retry_after_s: Option<u32>) {
        for event in actions.events {
            self.trace.note(now, &format!("phone {number}: {event:?}"));
            match event {
                PhoneEvent::Answered { call } => drop(self.answered.insert((number, call))),
                PhoneEvent::Failed { call, status } => {
                    self.calling.remove(&(number, call));
                    if status == 503 {
                        self.redial.refused(now, number, call, retry_after_s);
                    }
                }
                PhoneEvent::Ended { call, .. } => {
                    self.calling.remove(&(number, call));
                }
                PhoneEvent::Changed { call, status } => self.tally.add(match status {
                    200..=299 if !self.answered.contains(&(number, call)) => {
                        "sessions changed by phones before the answer"
                    }
                    200..=299 => "sessions changed by phones",
                    _ => "changes of phones refused",
                }),
                _ => {}
            }
        }
        for (_, bytes) in actions.datagrams {
            let bytes = self.manners.of_phone(bytes, phone(number), &mut self.tally);
            let out = self.mischiefs.of_phone(bytes, &mut self.tally);
            self.transmit_all(now, phone(number), out);
        }
    }

    fn of_carrier(&mut self, now: Mono, number: usize, datagrams: Vec<(SocketAddr, Bytes)>) {
        for (_, bytes) in datagrams {
            let bytes = self.manners.of_carrier(bytes);
            let out = self.mischiefs.of_carrier(bytes, &mut self.tally);
            self.transmit_all(now, carrier(number), out);
        }
    }

    fn transmit_all(&mut self, now: Mono, from: SocketAddr, out: Out) {
        for (later, bytes) in out {
            if later.is_zero() {
                self.transmit(now, from, bytes);
            } else {
                self.delayed += 1;
                self.later.insert((now + later, self.delayed), (from, bytes));
            }
        }
    }

    /// All that phones and carriers send goes to the server.
    fn transmit(&mut self, now: Mono, from: SocketAddr, bytes: Bytes) {
        self.gave_up.note(&bytes);
        if self.over_tcp.contains(&from) {
            self.streams.from_peer(now, from, with_tcp(&bytes), self.server_is_up, &mut self.tally);
        } else if is_answer_over_tcp(&bytes) {
            self.streams.from_peer(now, from, bytes, self.server_is_up, &mut self.tally);
        } else {
            self.network.send(now, Datagram { from, to: server(), bytes }, &mut self.tally);
        }
    }

    /// Nobody reaches a carrier, or a phone, until then. True when nothing that it sends arrives.
    pub fn cut_off(&mut self, number: Option<usize>, of_carrier: usize, cut: Cut, until: Mono) -> bool {
        let address = number.map_or_else(|| carrier(of_carrier), phone);
        // Whoever speaks UDP may be spoken to over TCP.
        self.streams.cut_off(address, until);
        let over_tcp = self.over_tcp.contains(&address);
        if !over_tcp {
            self.network.cut_off(address, cut, until);
        }
        over_tcp || cut != Cut::Deaf
    }

    /// The connection of a carrier, or a phone, is reset. False when it has none.
    pub fn reset(&mut self, now: Mono, number: Option<usize>, of_carrier: usize) -> bool {
        let address = number.map_or_else(|| carrier(of_carrier), phone);
        self.lost_connection(now, address);
        self.streams.reset(now, address)
    }

    /// The server died.
    pub fn server_gone(&mut self, now: Mono) {
        self.server_is_up = false;
        for peer in self.streams.server_gone() {
            self.lost_connection(now, peer);
        }
    }

    fn lost_connection(&mut self, now: Mono, peer: SocketAddr) {
        let again = now + Duration::from_millis(1 + self.entropy.below(RECONNECTS_MS));
        if let Some(at) = (0..self.phones.len())
            .find(|number| phone(*number) == peer)
            .and_then(|number| self.registering.get_mut(&number))
        {
            *at = Some(again);
        }
    }

    fn register_again(&mut self, now: Mono, number: usize) {
        let Some(at) = self.registering.get_mut(&number).filter(|at| at.is_some_and(|at| at <= now)) else { return };
        *at = (!self.server_is_up).then_some(now + Duration::from_secs(2));
        if self.server_is_up {
            self.command(now, number, PhoneCommand::Register);
        }
    }

    /// Fair weather; all phones hang up and leave.
    pub fn heal(&mut self, now: Mono) {
        self.network.calm();
        self.streams.calm();
        self.registering.clear();
        self.redial.calm();
        for (number, call) in self.calling.clone() {
            self.command(now, number, PhoneCommand::HangUp { call });
        }
        for number in 0..self.phones.len() {
            self.command(now, number, PhoneCommand::Unregister);
        }
    }

    /// Whether this call of a phone was answered.
    #[must_use]
    pub fn was_answered(&self, number: usize, call: PhoneCall) -> bool {
        self.answered.contains(&(number, call))
    }

    /// Calls that phones and carriers still know.
    #[must_use]
    pub fn live_calls(&self) -> (usize, usize) {
        let phones = self.phones.iter().map(Phone::live_calls).sum();
        (phones, self.carriers.iter().map(Carrier::live_calls).sum())
    }
}

/// A response goes the way its request came.
fn is_answer_over_tcp(bytes: &Bytes) -> bool {
    let via = b"\r\nVia: SIP/2.0/";
    let at = bytes.windows(via.len()).position(|window| window == via).map(|at| at + via.len());
    bytes.starts_with(b"SIP/2.0 ") && at.is_some_and(|at| bytes[at..].starts_with(b"TCP"))
}
