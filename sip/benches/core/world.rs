//! Whole calls through the core with the test phone and the test carrier, all at one moment of virtual time.

use bytes::Bytes;
use schema::account::{CallerId, CallerIdStatus, Evidence, SipCredential};
use schema::carrier::{Gateway, GatewayTransport};
use schema::edge::{CredentialLookup, EdgeCommand, EdgeEvent};
use schema::entropy::Entropy;
use schema::id::{AccountKey, CallId, CallerIdId, CredentialId, TrunkId};
use schema::leg::{AttemptIds, HangupCause, Invite, LegCommand, LegEvent, LegId};
use schema::number::{E164, Presentation, PresentedNumber};
use schema::pii::Pii;
use schema::time::{Mono, Now, Timestamp};
use sip::core::{Advertised, AdvertisedV6, Core, CoreConfig, Input, Output};
use sip::demo::carrier::{Carrier, CarrierEvent};
use sip::demo::phone::{Phone, PhoneCall, PhoneCommand, PhoneConfig, PhoneEvent};
use sip::demo::{Actions, Endpoint};
use sip::digest::{Algorithm, ha1};
use sip::flow::{Destination, Flow};
use sip::guard::{GuardLimits, Network};
use sip::message::Message;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const SERVER: ([u8; 4], u16) = ([127, 0, 0, 1], 5060);
const PHONE: ([u8; 4], u16) = ([127, 0, 0, 1], 5100);
const CARRIER: ([u8; 4], u16) = ([127, 0, 0, 1], 5090);

/// The core, a phone, a carrier, and a stand-in for the calls' actors that connects at once.
pub(crate) struct World {
    pub(crate) core: Core,
    phone: Phone,
    carrier: Carrier,
    pub(crate) now: Now,
    on_the_way: VecDeque<(SocketAddr, SocketAddr, Bytes)>,
    said: Vec<LegCommand>,
    presented: PresentedNumber,
    entropy: Entropy,
    /// Spent in the core and in reading what it is given.
    pub(crate) spent: Duration,
    /// Messages that arrived anywhere.
    pub(crate) messages: u64,
    /// Legs that ended behind their answer.
    pub(crate) ended: u64,
    /// Whether the phone hangs up as soon as it is answered.
    pub(crate) hangs_up: bool,
    /// Whether every call is refused before anybody is asked.
    pub(crate) refuses: bool,
}

fn phone() -> Phone {
    let config = PhoneConfig {
        server: SERVER.into(),
        domain: "localhost".into(),
        address: PHONE.into(),
        username: "demo".into(),
        password: Pii::new("secret".into()),
        expires_s: 120,
        most_calls: 100_000,
        takes_reliable: false,
    };
    Phone::new(config, Entropy::from_number(4)).expect("a domain")
}

fn carrier() -> Carrier {
    Carrier::new(Entropy::from_number(5), CARRIER.into(), 100_000)
}

impl World {
    /// A node that lets so many calls a second in.
    pub(crate) fn new(calls_per_second: u32) -> Self {
        let host = Advertised { host: "127.0.0.1".into(), port: 5060 };
        let config = CoreConfig {
            domain: "localhost".into(),
            other_hosts: vec!["127.0.0.1".into()],
            digest: vec![Algorithm::Md5],
            udp: Some(host),
            tcp: None,
            tls: None,
            v6: AdvertisedV6::default(),
            sdp_address: std::net::IpAddr::from([127, 0, 0, 1]),
            plain_customers: true,
            dialog_probe: Duration::from_secs(30),
            legs_max: 100_000,
            calls_per_second,
            bounds_waiting: true,
            transactions_max: 10_000_000,
            lookups_max: 10_000,
            guard: GuardLimits { exempt: [Network::LOOPBACK_V4].into(), ..GuardLimits::default() },
        };
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
        Self {
            core: Core::new(config, Entropy::from_number(3)).expect("a realm"),
            phone: phone(),
            carrier: carrier(),
            now: Now { mono: Mono(1_000_000), wall: Timestamp(1_700_000_000_000_000) },
            on_the_way: VecDeque::new(),
            said: Vec::new(),
            presented: PresentedNumber::of(&caller_id, Timestamp(1)).expect("verified"),
            entropy: Entropy::from_number(7),
            spent: Duration::ZERO,
            messages: 0,
            ended: 0,
            hangs_up: true,
            refuses: false,
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    fn give(&mut self, input: impl FnOnce(&mut Core, Now) -> Option<Input>) {
        let begun = Instant::now();
        if let Some(input) = input(&mut self.core, self.now) {
            self.core.handle(input, self.now);
        }
        let outputs: Vec<_> = std::iter::from_fn(|| self.core.poll_output()).collect();
        self.spent += begun.elapsed();
        for output in outputs {
            self.take(output);
        }
    }

    fn take(&mut self, output: Output) {
        match output {
            Output::Send(Flow { peer: to, .. }, bytes) | Output::SendTo(Destination { address: to, .. }, bytes) => {
                self.on_the_way.push_back((SERVER.into(), to, bytes));
            }
            Output::Leg(told) => self.on_leg(told.event),
            Output::Edge(EdgeEvent::CredentialWanted { ticket, username }) => {
                let credential = SipCredential {
                    id: CredentialId::generate(&mut Entropy::from_number(1), Timestamp(0)),
                    account: AccountKey(1),
                    secret: Pii::new(ha1(&username, "localhost", "secret")),
                    username,
                    label: Pii::new(String::new()),
                    created_at: Timestamp(0),
                };
                let found = CredentialLookup::Found(Box::new(credential));
                self.give(|_, _| Some(Input::Edge(EdgeCommand::Credential { ticket, found })));
            }
            Output::Edge(_) | Output::Trust(_) => {}
        }
    }

    /// What the call's actor would say.
    fn on_leg(&mut self, event: LegEvent) {
        let call = event.leg().call;
        let (a, b) = (LegId::a(call), LegId::b(call, 1));
        match event {
            LegEvent::Invited(_) if self.refuses => {
                self.said.push(LegCommand::Reject { leg: a, status: 486, reason: None, retry_after_s: None });
            }
            LegEvent::Invited(invited) => {
                let invite = self.invite(b, call, invited.dialled.expose(), invited.offer.clone());
                self.said.push(LegCommand::Invite(Box::new(invite)));
            }
            LegEvent::Progress { status, sdp, .. } => self.said.push(LegCommand::Progress { leg: a, status, sdp }),
            LegEvent::Answered { leg, sdp, .. } => {
                self.said.extend([LegCommand::Confirm { leg, answer: None }, LegCommand::Accept { leg: a, sdp }]);
            }
            LegEvent::Ended { leg, .. } => {
                let other = if leg == a { b } else { a };
                self.said.push(LegCommand::HangUp { leg: other, cause: HangupCause::OtherLeg });
                self.said.push(LegCommand::Settled { call });
                self.ended += 1;
            }
            _ => {}
        }
    }

    /// The phone and the carrier lose what they remember: only the core's memory is left.
    #[allow(dead_code, reason = "for the test that counts memory")]
    pub(crate) fn forget_the_far_ends(&mut self) {
        (self.phone, self.carrier) = (phone(), carrier());
        self.on_the_way.shrink_to_fit();
        self.said.shrink_to_fit();
    }

    fn invite(&mut self, leg: LegId, call: CallId, dialled: &str, offer: Option<schema::leg::Sdp>) -> Invite {
        let hex = call.to_string();
        Invite {
            leg,
            trunk: TrunkId::generate(&mut Entropy::from_number(6), Timestamp(0)),
            gateway: Gateway { transport: GatewayTransport::Udp, address: CARRIER.into() },
            name: None,
            trusted: false,
            ids: AttemptIds {
                call_id: hex.as_str().into(),
                from_tag: self.entropy.hex::<8>().as_str().into(),
                branch: format!("z9hG4bK{}", self.entropy.hex::<12>()).as_str().into(),
                cseq: 1,
            },
            destination: E164::parse(dialled).expect("a number"),
            presentation: Presentation::Shown(self.presented.clone()),
            offer,
            ring_timeout_s: 60,
        }
    }

    /// Until nothing is on its way.
    fn settle(&mut self) {
        loop {
            if !self.said.is_empty() {
                for command in std::mem::take(&mut self.said) {
                    self.give(|_, _| Some(Input::Leg(command)));
                }
            } else if let Some((from, to, bytes)) = self.on_the_way.pop_front() {
                self.arrive(from, to, &bytes);
            } else {
                return;
            }
        }
    }

    fn arrive(&mut self, from: SocketAddr, to: SocketAddr, bytes: &Bytes) {
        self.messages += 1;
        if to == SERVER.into() {
            return self.give(|core, now| {
                if core.turn_away(from, bytes, now) {
                    return None;
                }
                let message = Message::parse_datagram(bytes).ok()?;
                Some(Input::Message(Flow::udp(from), message.with_source(from)))
            });
        }
        let (mut phone, mut carrier) = (Actions::default(), Actions::<CarrierEvent>::default());
        if to == PHONE.into() {
            self.phone.on_datagram(bytes, from, self.now.mono, &mut phone);
        } else {
            self.carrier.on_datagram(bytes, from, self.now.mono, &mut carrier);
        }
        self.carry_out(phone, carrier);
    }

    fn carry_out(&mut self, phone: Actions<PhoneEvent>, carrier: Actions<CarrierEvent>) {
        self.on_the_way.extend(phone.datagrams.into_iter().map(|(to, bytes)| (PHONE.into(), to, bytes)));
        self.on_the_way.extend(carrier.datagrams.into_iter().map(|(to, bytes)| (CARRIER.into(), to, bytes)));
        for event in phone.events {
            match event {
                PhoneEvent::Answered { call } if self.hangs_up => self.command(PhoneCommand::HangUp { call }),
                PhoneEvent::Failed { status, .. } if !self.refuses => panic!("a call failed with {status}"),
                _ => {}
            }
        }
    }

    fn command(&mut self, command: PhoneCommand) {
        let mut actions = Actions::default();
        self.phone.on_command(command, self.now.mono, &mut actions);
        self.carry_out(actions, Actions::default());
    }

    /// Lets so much time pass.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
        self.give(|_, _| Some(Input::Timeout));
        self.settle();
    }

    /// A call that is answered and, as a rule, hung up at once, so long after the one before.
    pub(crate) fn call(&mut self, number: u64, pause: Duration) {
        self.pass(pause);
        let (mut phone, mut carrier) = (Actions::default(), Actions::default());
        self.phone.on_time(self.now.mono, &mut phone);
        self.carrier.on_time(self.now.mono, &mut carrier);
        self.carry_out(phone, carrier);
        self.command(PhoneCommand::Call { call: PhoneCall(number), number: Pii::new("+447700900001".into()) });
        self.settle();
    }

    #[allow(dead_code, reason = "the test that counts memory refuses nobody")]
    /// An INVITE from somebody who is refused, and the ACK of that. Gives the status.
    pub(crate) fn stranger(&mut self, number: u64) -> u16 {
        let request = |method: &str, to_tag: &str, body: &str| {
            Bytes::from(format!(
                "{method} sip:447700900001@127.0.0.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5100;branch=z9hG4bK-{number}-1-0\r\nFrom: u1 <sip:u1@127.0.0.1:5100>;tag={number}\r\nTo: 447700900001 <sip:447700900001@127.0.0.1:5060>{to_tag}\r\nCall-ID: {number}-1234@127.0.0.1\r\nCSeq: 1 {method}\r\nContact: sip:u1@127.0.0.1:5100\r\nMax-Forwards: 70\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ))
        };
        let sdp = "v=0\r\no=user1 53655765 2353687637 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 6000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n";
        self.now = self.now.after(Duration::from_micros(10));
        self.arrive(PHONE.into(), SERVER.into(), &request("INVITE", "", sdp));
        let (_, _, answer) = self.on_the_way.pop_front().expect("an answer");
        let answer = Message::parse_datagram(&answer).expect("valid");
        let tag = format!(";tag={}", answer.to_tag().expect("a tag"));
        self.arrive(PHONE.into(), SERVER.into(), &request("ACK", &tag, ""));
        answer.status().expect("a response")
    }
}
