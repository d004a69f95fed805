//! Whole calls through the core in a small world: the test phone, the test carrier, a network that loses and repeats, and a
//! stand-in for the calls' actors that connects legs at once. Time is a number.

mod arbitrary;
mod calls;
mod requests;
mod scripted;

use super::*;
use crate::demo::carrier::Carrier;
use crate::demo::phone::{Phone, PhoneCall, PhoneCommand, PhoneConfig, PhoneEvent};
use crate::demo::{Actions, Endpoint};
use crate::digest::{Algorithm, ha1};
use crate::guard::{GuardLimits, Network};
use schema::account::{Attestation, CallerId, CallerIdStatus, Evidence, SipCredential};
use schema::carrier::{Gateway, GatewayTransport};
use schema::edge::{CredentialLookup, TrunkAddress};
use schema::id::{AccountKey, CallerIdId, CredentialId, TrunkId};
use schema::leg::{AttemptIds, EndCause, HangupCause, Invite};
use schema::number::{E164, Presentation, PresentedNumber};
use schema::pii::Pii;
use schema::time::Timestamp;
use std::net::SocketAddr;
use std::time::Duration;

const SERVER: ([u8; 4], u16) = ([127, 0, 0, 1], 5060);
const PHONE: ([u8; 4], u16) = ([127, 0, 0, 1], 5100);
const CARRIER: ([u8; 4], u16) = ([127, 0, 0, 1], 5090);
const CALL: PhoneCall = PhoneCall(1);

/// What the network does with the n-th datagram: how often it arrives, and how late.
type Weather = fn(u64) -> &'static [u64];

const FAIR: Weather = |_| &[1];

/// Whose phone it is, where, and what it says of itself.
#[derive(Clone, Copy)]
struct Caller {
    username: &'static str,
    at: ([u8; 4], u16),
    /// Of its Call-IDs, tags and sessions.
    seed: u64,
    /// Of its From.
    name: &'static str,
}

const DEMO: Caller = Caller { username: "demo", at: PHONE, seed: 4, name: "" };

struct World {
    core: Core,
    caller: Caller,
    /// The username that has an account.
    known: &'static str,
    phone: Phone,
    carrier: Carrier,
    now: Now,
    on_the_way: BTreeMap<(u64, u64), (SocketAddr, SocketAddr, Bytes)>,
    sent: u64,
    weather: Weather,
    phone_events: Vec<PhoneEvent>,
    leg_events: Vec<LegEvent>,
    to_carrier: Vec<Bytes>,
    from_phone: Vec<Bytes>,
    to_phone: Vec<Bytes>,
    /// The phone hears nothing and is not heard.
    is_cut_off: bool,
    withhold: bool,
    /// The stand-in answers the caller only after so long: the commit.
    pending: Vec<(Mono, LegCommand)>,
    registered: usize,
}

fn credential() -> SipCredential {
    credential_of("demo")
}

fn credential_of(username: &str) -> SipCredential {
    SipCredential {
        id: CredentialId::generate(&mut Entropy::from_number(1), Timestamp(0)),
        account: AccountKey(1),
        username: username.into(),
        label: Pii::new(String::new()),
        secret: Pii::new(ha1(username, "localhost", "secret")),
        created_at: Timestamp(0),
    }
}

fn presented() -> PresentedNumber {
    let caller_id = CallerId {
        id: CallerIdId::generate(&mut Entropy::from_number(2), Timestamp(0)),
        number: E164::parse("+442079460123").expect("valid"),
        label: None,
        status: CallerIdStatus::Verified,
        evidence: Some(Evidence::Assigned),
        is_default: true,
        verified_at: None,
        expires_at: None,
    };
    let presented = PresentedNumber::of(&caller_id, Timestamp(1)).expect("verified");
    assert_eq!(presented.attestation(), Attestation::A);
    presented
}

fn config() -> CoreConfig {
    CoreConfig {
        domain: "localhost".into(),
        other_hosts: vec!["127.0.0.1".into()],
        digest: vec![Algorithm::Sha256, Algorithm::Md5],
        udp: Some(Advertised { host: "127.0.0.1".into(), port: 5060 }),
        tcp: None,
        tls: None,
        v6: Default::default(),
        sdp_address: std::net::IpAddr::from([127, 0, 0, 1]),
        plain_customers: true,
        dialog_probe: Duration::from_secs(30),
        legs_max: 1_000,
        calls_per_second: 10_000,
        bounds_waiting: true,
        transactions_max: 10_000,
        lookups_max: 100,
        guard: GuardLimits { exempt: [Network::LOOPBACK_V4].into(), ..GuardLimits::default() },
    }
}

impl World {
    fn new(password: &str, weather: Weather) -> Self {
        Self::of(DEMO, password, weather)
    }

    fn of(caller: Caller, password: &str, weather: Weather) -> Self {
        let phone = PhoneConfig {
            server: SERVER.into(),
            domain: "localhost".into(),
            address: caller.at.into(),
            username: caller.username.into(),
            password: Pii::new(password.into()),
            expires_s: 120,
            most_calls: 10,
            takes_reliable: false,
        };
        Self {
            core: Core::new(config(), Entropy::from_number(3)).expect("a realm"),
            caller,
            known: caller.username,
            phone: Phone::new(phone, Entropy::from_number(caller.seed)).expect("a domain"),
            carrier: Carrier::new(Entropy::from_number(5), CARRIER.into(), 100),
            now: Now { mono: Mono(1_000_000), wall: Timestamp(1_700_000_000_000_000) },
            on_the_way: BTreeMap::new(),
            sent: 0,
            weather,
            phone_events: Vec::new(),
            leg_events: Vec::new(),
            to_carrier: Vec::new(),
            from_phone: Vec::new(),
            to_phone: Vec::new(),
            is_cut_off: false,
            withhold: false,
            pending: Vec::new(),
            registered: 0,
        }
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: Bytes) {
        if self.is_cut_off && [from, to].contains(&self.caller.at.into()) {
            return;
        }
        self.sent += 1;
        for late in (self.weather)(self.sent) {
            self.on_the_way
                .insert((self.now.mono.0 + late * 1_000, self.sent * 8 + late % 8), (from, to, bytes.clone()));
        }
    }

    fn take_core(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Send(Flow { peer: to, .. }, bytes) | Output::SendTo(Destination { address: to, .. }, bytes) => {
                    if to == CARRIER.into() {
                        self.to_carrier.push(bytes.clone());
                    } else {
                        self.to_phone.push(bytes.clone());
                    }
                    self.send(SERVER.into(), to, bytes);
                }
                Output::Leg(LegEventAt { event, .. }) => self.connect(event),
                Output::Edge(EdgeEvent::CredentialWanted { ticket, username }) => {
                    let found = if &*username == self.known {
                        CredentialLookup::Found(Box::new(credential_of(&username)))
                    } else {
                        CredentialLookup::Unknown
                    };
                    self.core.handle(Input::Edge(EdgeCommand::Credential { ticket, found }), self.now);
                }
                Output::Edge(EdgeEvent::BindingChanged(change)) => self.registered = change.bindings as usize,
                Output::Edge(EdgeEvent::TrunkProbed { .. } | EdgeEvent::NameWanted(_)) | Output::Trust(_) => {}
            }
        }
    }

    /// What calls' actors would say, without money.
    fn connect(&mut self, event: LegEvent) {
        let call = event.leg().call;
        let (a, b) = (LegId::a(call), LegId::b(call, 1));
        let mut say = |command| self.pending.push((self.now.mono, command));
        match &event {
            LegEvent::Invited(invited) => {
                let number = presented();
                let presentation =
                    if self.withhold { Presentation::Withheld(number) } else { Presentation::Shown(number) };
                say(LegCommand::Invite(Box::new(Invite {
                    leg: b,
                    trunk: TrunkId::generate(&mut Entropy::from_number(6), Timestamp(0)),
                    gateway: Gateway { transport: GatewayTransport::Udp, address: CARRIER.into() },
                    name: None,
                    trusted: false,
                    ids: AttemptIds {
                        call_id: "0123456789abcdef".into(),
                        from_tag: "tag".into(),
                        branch: "z9hG4bKb1".into(),
                        cseq: 1,
                    },
                    destination: E164::parse(invited.dialled.expose()).expect("a number"),
                    presentation,
                    offer: invited.offer.clone(),
                    ring_timeout_s: 60,
                })));
            }
            LegEvent::Progress { status, sdp, .. } => {
                say(LegCommand::Progress { leg: a, status: *status, sdp: sdp.clone() })
            }
            LegEvent::Answered { leg, sdp, .. } => {
                say(LegCommand::Confirm { leg: *leg, answer: None });
                say(LegCommand::Accept { leg: a, sdp: sdp.clone() });
            }
            LegEvent::Failed { leg, status, .. } if leg.side == schema::call::LegSide::B => {
                say(LegCommand::Reject { leg: a, status: *status, reason: None, retry_after_s: None });
            }
            LegEvent::Cancelled { .. } => say(LegCommand::HangUp { leg: b, cause: HangupCause::Cancelled }),
            LegEvent::Ended { leg, .. } => {
                let other = if leg.side == schema::call::LegSide::A { b } else { a };
                say(LegCommand::HangUp { leg: other, cause: HangupCause::OtherLeg });
                say(LegCommand::Settled { call: a.call });
            }
            _ => {}
        }
        self.leg_events.push(event);
    }

    fn carry_out(&mut self, mut phone: Actions<PhoneEvent>, carrier: Actions<crate::demo::carrier::CarrierEvent>) {
        for (to, bytes) in phone.datagrams.drain(..) {
            let bytes = self.named(bytes);
            self.from_phone.push(bytes.clone());
            self.send(self.caller.at.into(), to, bytes);
        }
        self.phone_events.append(&mut phone.events);
        for (to, bytes) in carrier.datagrams {
            self.send(CARRIER.into(), to, bytes);
        }
    }

    /// What the phone sends, with the caller's name and the phone's make in it.
    fn named(&self, bytes: Bytes) -> Bytes {
        let name = self.caller.name;
        if name.is_empty() {
            return bytes;
        }
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        text.replace("From: <", &format!("User-Agent: {name}\r\nFrom: \"{name}\" <")).into()
    }

    fn command(&mut self, command: PhoneCommand) {
        let mut actions = Actions::default();
        self.phone.on_command(command, self.now.mono, &mut actions);
        self.carry_out(actions, Actions::default());
    }

    /// Lets time pass until nothing is left to do before `limit`.
    fn run(&mut self, limit: Duration) {
        let end = self.now.mono + limit;
        loop {
            let pending = std::mem::take(&mut self.pending);
            let idle = pending.is_empty();
            for (_, command) in pending {
                self.core.handle(Input::Leg(command), self.now);
            }
            self.take_core();
            if !idle {
                continue;
            }
            let network = self.on_the_way.keys().next().map(|(at, _)| Mono(*at));
            let moments = [network, self.core.next_timeout(), self.phone.next_time(), self.carrier.next_time()];
            let next = moments.into_iter().flatten().min().filter(|at| *at <= end);
            let Some(next) = next else { break };
            self.now = self.now.after(next.since(self.now.mono));
            self.step();
        }
        self.now = self.now.after(end.since(self.now.mono));
    }

    fn step(&mut self) {
        let (mut phone, mut carrier) = (Actions::default(), Actions::default());
        while let Some(entry) = self.on_the_way.first_entry().filter(|entry| entry.key().0 <= self.now.mono.0) {
            let (from, to, bytes) = entry.remove();
            if to == SERVER.into() {
                if let Ok(message) = Message::parse_datagram(&bytes) {
                    self.core.handle(Input::Message(Flow::udp(from), message.with_source(from)), self.now);
                }
            } else if to == self.caller.at.into() {
                self.phone.on_datagram(&bytes, from, self.now.mono, &mut phone);
            } else if to == CARRIER.into() {
                self.carrier.on_datagram(&bytes, from, self.now.mono, &mut carrier);
            }
        }
        self.core.handle(Input::Timeout, self.now);
        self.phone.on_time(self.now.mono, &mut phone);
        self.carrier.on_time(self.now.mono, &mut carrier);
        self.carry_out(phone, carrier);
    }

    fn call(&mut self, number: &str) {
        self.command(PhoneCommand::Call { call: CALL, number: Pii::new(number.into()) });
    }

    fn saw(&self, wanted: impl Fn(&LegEvent) -> bool) -> bool {
        self.leg_events.iter().any(wanted)
    }

    /// After everything has timed out nothing may be left.
    fn assert_empty(&mut self) {
        self.run(Duration::from_secs(200));
        let counts = self.core.counts();
        assert_eq!(counts, Counts { registrations: counts.registrations, ..Counts::default() });
        assert_eq!((self.phone.live_calls(), self.carrier.live_calls()), (0, 0));
    }
}

fn answered(world: &World) -> bool {
    world.phone_events.contains(&PhoneEvent::Answered { call: CALL })
}
