//! Everything outside the server: phones, carriers, the network between them and the server, and the time that passes for
//! all of them. It goes on while there is no server.

use super::network::{Datagram, Network, Weather};
use super::plan::{AccountPlan, BEGIN};
use super::trace::Trace;
use schema::entropy::Entropy;
use schema::pii::Pii;
use schema::time::{Mono, Timestamp};
use sip::demo::carrier::Carrier;
use sip::demo::phone::{Phone, PhoneCall, PhoneCommand, PhoneConfig, PhoneEvent};
use sip::demo::{Actions, Endpoint};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// Domain and digest realm.
pub const DOMAIN: &str = "sim.example";
/// The wall clock at the machine's boot; it never jumps.
const WALL: i64 = 1_700_000_000_000_000;

/// The wall clock at a moment.
#[must_use]
pub fn wall(at: Mono) -> Timestamp {
    Timestamp(WALL + i64::try_from(at.0).unwrap_or(0))
}

/// The moment at which the wall clock showed this.
#[must_use]
pub fn moment(at: Timestamp) -> Mono {
    Mono(u64::try_from(at.0 - WALL).unwrap_or(0))
}

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

/// All that is outside the server.
pub struct World {
    /// What happened.
    pub trace: Trace,
    network: Network,
    phones: Vec<Phone>,
    carriers: [Carrier; 2],
    /// Calls of phones that are not over.
    calling: BTreeSet<(usize, PhoneCall)>,
    answered: BTreeSet<(usize, PhoneCall)>,
}

impl World {
    /// A phone for each account.
    ///
    /// # Panics
    /// Never: the domain is one.
    #[must_use]
    pub fn new(accounts: &[AccountPlan], weather: Weather, entropy: &mut Entropy, trace: Trace) -> Self {
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
            };
            Phone::new(config, entropy.fork()).expect("a domain")
        };
        let phones: Vec<_> = (0..accounts.len()).map(&mut phone_of).collect();
        let carriers = [0, 1].map(|number| Carrier::new(entropy.fork(), carrier(number), 1_000));
        let network = Network::new(weather, entropy.fork());
        let mut world = Self { trace, network, phones, carriers, calling: BTreeSet::new(), answered: BTreeSet::new() };
        for (number, _) in accounts.iter().enumerate().filter(|(_, account)| account.registers) {
            world.command(BEGIN, number, PhoneCommand::Register);
        }
        world
    }

    /// A phone is told something.
    pub fn command(&mut self, now: Mono, number: usize, command: PhoneCommand) {
        if let PhoneCommand::Call { call, .. } = &command {
            self.calling.insert((number, *call));
        }
        let mut actions = Actions::default();
        self.phones[number].on_command(command, now, &mut actions);
        self.of_phone(now, number, actions);
    }

    /// The server sends.
    pub fn send(&mut self, now: Mono, datagram: Datagram) {
        self.network.send(now, datagram);
    }

    /// When something happens next.
    #[must_use]
    pub fn next(&self) -> Option<Mono> {
        let phones = self.phones.iter().filter_map(Endpoint::next_time);
        let carriers = self.carriers.iter().filter_map(Endpoint::next_time);
        phones.chain(carriers).chain(self.network.next()).min()
    }

    /// Does what is due; gives what has arrived at the server.
    pub fn advance(&mut self, now: Mono) -> Vec<Datagram> {
        let mut for_server = Vec::new();
        while let Some(datagram) = self.network.arrived(now) {
            if datagram.to == server() {
                for_server.push(datagram);
            } else {
                self.deliver(now, &datagram);
            }
        }
        for number in 0..self.phones.len() {
            let mut actions = Actions::default();
            self.phones[number].on_time(now, &mut actions);
            self.of_phone(now, number, actions);
        }
        for number in 0..self.carriers.len() {
            let mut actions = Actions::default();
            self.carriers[number].on_time(now, &mut actions);
            self.post(now, carrier(number), actions.datagrams);
        }
        for_server
    }

    fn deliver(&mut self, now: Mono, datagram: &Datagram) {
        let Datagram { from, to, bytes } = datagram;
        if let Some(number) = (0..self.phones.len()).find(|number| phone(*number) == *to) {
            let mut actions = Actions::default();
            self.phones[number].on_datagram(bytes, *from, now, &mut actions);
            self.of_phone(now, number, actions);
        } else if let Some(number) = (0..self.carriers.len()).find(|number| carrier(*number) == *to) {
            let mut actions = Actions::default();
            self.carriers[number].on_datagram(bytes, *from, now, &mut actions);
            self.post(now, *to, actions.datagrams);
        }
    }

    fn of_phone(&mut self, now: Mono, number: usize, actions: Actions<PhoneEvent>) {
        for event in actions.events {
            self.trace.note(now, &format!("phone {number}: {event:?}"));
            match event {
                PhoneEvent::Answered { call } => drop(self.answered.insert((number, call))),
                PhoneEvent::Failed { call, .. } | PhoneEvent::Ended { call, .. } => {
                    self.calling.remove(&(number, call));
                }
                _ => {}
            }
        }
        self.post(now, phone(number), actions.datagrams);
    }

    fn post(&mut self, now: Mono, from: SocketAddr, datagrams: Vec<(SocketAddr, bytes::Bytes)>) {
        for (to, bytes) in datagrams {
            self.network.send(now, Datagram { from, to, bytes });
        }
    }

    /// Nobody reaches a carrier, or a phone, until then.
    pub fn cut_off(&mut self, number: Option<usize>, of_carrier: usize, until: Mono) {
        self.network.cut_off(number.map_or_else(|| carrier(of_carrier), phone), until);
    }

    /// Fair weather; all phones hang up and leave.
    pub fn heal(&mut self, now: Mono) {
        self.network.calm();
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
