//! The test phone calls the test carrier, in virtual time, over a network that loses what it is told to lose; a gate between
//! them challenges like our server.

use super::carrier::{Behaviour, Carrier, CarrierCounts, CarrierEvent};
use super::phone::{Phone, PhoneCall, PhoneCommand, PhoneConfig, PhoneEvent};
use super::*;
use crate::digest::{Algorithm, Challenger, Origin, Scheme, ha1};
use crate::message::{Message, Method, ResponseBuilder};
use schema::entropy::Entropy;
use schema::pii::Pii;
use std::collections::BTreeMap;

const PHONE: &str = "127.0.0.1:5080";
const CARRIER: &str = "127.0.0.1:5090";
const LATENCY: Duration = Duration::from_millis(10);

struct Gate {
    challenger: Challenger,
    password: &'static str,
    /// By branch, what was answered; `None` when the request passed. A server has transactions.
    verdicts: BTreeMap<String, Option<Bytes>>,
}

struct World {
    phone: Phone,
    carrier: Carrier,
    gate: Option<Gate>,
    entropy: Entropy,
    now: Mono,
    wire: BTreeMap<(Mono, u64), (SocketAddr, SocketAddr, Bytes)>,
    sent: u64,
    /// Datagrams lost, by their number from 0.
    loses: Box<dyn Fn(u64) -> bool>,
    events: Vec<PhoneEvent>,
    carrier_events: Vec<CarrierEvent>,
    log: Vec<String>,
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

impl World {
    fn new() -> Self {
        Self::of(false)
    }

    /// Both take and send reliable provisional responses.
    fn reliable() -> Self {
        let world = Self::of(true);
        Self { carrier: Carrier::new(Entropy::from_number(2), address(CARRIER), 50).ringing_reliably(), ..world }
    }

    fn of(takes_reliable: bool) -> Self {
        let config = PhoneConfig {
            server: address(CARRIER),
            domain: "ringfence.example".into(),
            address: address(PHONE),
            username: "alice".into(),
            password: Pii::new("secret".into()),
            expires_s: 300,
            most_calls: 100,
            takes_reliable,
        };
        Self {
            phone: Phone::new(config, Entropy::from_number(1)).expect("a domain"),
            carrier: Carrier::new(Entropy::from_number(2), address(CARRIER), 50),
            gate: None,
            entropy: Entropy::from_number(3),
            now: Mono(1_000_000),
            wire: BTreeMap::new(),
            sent: 0,
            loses: Box::new(|_| false),
            events: Vec::new(),
            carrier_events: Vec::new(),
            log: Vec::new(),
        }
    }

    fn with_gate(password: &'static str) -> Self {
        let mut world = Self::new();
        let challenger =
            Challenger::new(&mut world.entropy, "ringfence.example", &[], &[Algorithm::Sha256, Algorithm::Md5])
                .expect("a realm");
        world.gate = Some(Gate { challenger, password, verdicts: BTreeMap::new() });
        world
    }

    fn post(&mut self, from: SocketAddr, list: Vec<(SocketAddr, Bytes)>) {
        for (to, bytes) in list {
            let message = Message::parse_datagram(&bytes).expect("we write what we can read");
            let what = message.status().map_or_else(|| message.method().to_string(), |status| status.to_string());
            self.log.push(what);
            if !(self.loses)(self.sent) {
                self.wire.insert((self.now + LATENCY, self.sent), (from, to, bytes));
            }
            self.sent += 1;
        }
    }

    fn command(&mut self, command: PhoneCommand) {
        let mut actions = Actions::default();
        self.phone.on_command(command, self.now, &mut actions);
        self.take_phone(actions);
    }

    fn call(&mut self, number: &str) {
        self.command(PhoneCommand::Call { call: PhoneCall(1), number: Pii::new(number.into()) });
    }

    fn take_phone(&mut self, actions: Actions<PhoneEvent>) {
        self.events.extend(actions.events);
        self.post(address(PHONE), actions.datagrams);
    }

    fn take_carrier(&mut self, actions: Actions<CarrierEvent>) {
        self.carrier_events.extend(actions.events);
        self.post(address(CARRIER), actions.datagrams);
    }

    /// The gate's answer (nothing to an ACK of it), or `None` when the request may pass.
    fn judge(&mut self, bytes: &Bytes, source: SocketAddr) -> Option<Option<Bytes>> {
        let request = Message::parse_datagram(bytes).expect("readable");
        let branch = request.branch()?.to_owned();
        let known = self.gate.as_ref()?.verdicts.get(&branch).cloned();
        if request.is_ack() {
            return known.flatten().map(|_| None);
        }
        let verdict = known.unwrap_or_else(|| self.challenge(bytes, source));
        self.gate.as_mut()?.verdicts.insert(branch, verdict.clone());
        verdict.map(Some)
    }

    fn challenge(&mut self, bytes: &Bytes, source: SocketAddr) -> Option<Bytes> {
        let gate = self.gate.as_mut()?;
        let request = Message::parse_datagram(bytes).expect("readable").with_source(source);
        let scheme = match request.method() {
            Method::Register => Scheme::Www,
            Method::Invite => Scheme::Proxy,
            _ => return None,
        };
        let origin = Origin::Address(source.ip());
        let secret = ha1("alice", "ringfence.example", gate.password);
        let checked = gate
            .challenger
            .claim(&request, scheme, origin, self.now)
            .and_then(|claim| gate.challenger.verify(&claim, Some(&secret), self.now));
        let status = match checked {
            Ok(()) if *request.method() == Method::Register => 200,
            Ok(()) => return None,
            Err(refusal) => refusal.status().unwrap_or(scheme.status()),
        };
        let mut builder = ResponseBuilder::to_request(&request, status, Some("gate"));
        if status == 200 {
            let seconds = request.expires().expect("Expires");
            let contact =
                request.contacts().remove(0).with_param("expires", Some(&seconds.to_string())).expect("a number");
            builder = if seconds > 0 { builder.contact(&contact) } else { builder };
        } else {
            for value in gate.challenger.challenge(&mut self.entropy, self.now, origin, false) {
                builder = builder.header(scheme.challenge_header(), &value);
            }
        }
        Some(builder.build().expect("built"))
    }

    /// Runs everything that happens within `duration`.
    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let next_datagram = self.wire.first_key_value().map(|((at, _), _)| *at);
            let times = [next_datagram, self.phone.next_time(), self.carrier.next_time()];
            let Some(next) = times.into_iter().flatten().min().filter(|at| *at <= end) else { break };
            self.now = self.now.max(next);
            if next_datagram == Some(next) {
                let (_, (from, to, bytes)) = self.wire.pop_first().expect("one is due");
                self.deliver(from, to, &bytes);
            }
            let (mut phone, mut carrier) = (Actions::default(), Actions::default());
            self.phone.on_time(self.now, &mut phone);
            self.carrier.on_time(self.now, &mut carrier);
            self.take_phone(phone);
            self.take_carrier(carrier);
        }
        self.now = end;
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, bytes: &Bytes) {
        if to == address(PHONE) {
            let mut actions = Actions::default();
            self.phone.on_datagram(bytes, from, self.now, &mut actions);
            self.take_phone(actions);
        } else if let Some(answer) = self.judge(bytes, from) {
            self.post(to, answer.map(|answer| (from, answer)).into_iter().collect());
        } else {
            let mut actions = Actions::default();
            self.carrier.on_datagram(bytes, from, self.now, &mut actions);
            self.take_carrier(actions);
        }
    }

    fn counts(&self) -> CarrierCounts {
        self.carrier.counts()
    }

    fn assert_empty(&mut self) {
        self.run(Duration::from_secs(240));
        assert_eq!((self.phone.live_calls(), self.carrier.live_calls()), (0, 0));
    }
}

const CALL: PhoneCall = PhoneCall(1);

fn progress(status: u16) -> PhoneEvent {
    PhoneEvent::Progress { call: CALL, status, early_media: status == 183 }
}

fn failed(status: u16) -> PhoneEvent {
    PhoneEvent::Failed { call: CALL, status }
}

fn answered() -> PhoneEvent {
    PhoneEvent::Answered { call: CALL }
}

fn ended(by_phone: bool) -> PhoneEvent {
    PhoneEvent::Ended { call: CALL, by_phone, q850: (!by_phone).then_some(16) }
}

#[test]
fn a_call_is_challenged_answered_and_hung_up() {
    let mut world = World::with_gate("secret");
    world.call("+447700900100");
    world.run(Duration::from_secs(60));
    assert_eq!(world.events, [progress(180), answered()]);
    world.command(PhoneCommand::HangUp { call: CALL });
    world.run(Duration::from_secs(1));
    assert_eq!(world.events.last(), Some(&ended(true)));
    assert_eq!(world.log.join(" "), "INVITE 407 ACK INVITE 180 200 ACK BYE 200");
    assert_eq!(world.carrier_events, [CarrierEvent::Confirmed, CarrierEvent::Ended { by_carrier: false }]);
    world.assert_empty();
}

#[test]
fn a_wrong_password_is_tried_once() {
    let mut world = World::with_gate("another");
    world.call("+447700900100");
    world.command(PhoneCommand::Register);
    world.run(Duration::from_secs(1));
    assert_eq!(world.events, [failed(407), PhoneEvent::RegistrationFailed { status: 401 }]);
    assert_eq!(world.counts().invites, 0);
    world.assert_empty();
}

#[test]
fn a_registration_is_renewed_until_removed() {
    let mut world = World::with_gate("secret");
    world.command(PhoneCommand::Register);
    world.run(Duration::from_secs(400));
    let registered = PhoneEvent::Registered { expires_s: 300 };
    assert_eq!(world.events, [registered.clone(), registered.clone(), registered]);
    world.command(PhoneCommand::Unregister);
    world.run(Duration::from_secs(1_000));
    assert_eq!(world.events[3..], [PhoneEvent::Registered { expires_s: 0 }]);
}

#[test]
fn the_last_two_digits_choose_what_the_carrier_does() {
    let cases: [(&str, u64, Vec<PhoneEvent>); 12] = [
        ("+447700900119", 1, vec![progress(180), answered()]),
        ("+447700900120", 1, vec![progress(180)]),
        ("+447700900139", 3, vec![progress(180), answered()]),
        ("+447700900140", 4, vec![progress(183)]),
        ("+447700900149", 6, vec![progress(183), answered()]),
        ("+447700900150", 1, vec![progress(180), failed(486)]),
        ("+447700900169", 170, vec![progress(180)]),
        ("+447700900169", 190, vec![progress(180), failed(480)]),
        ("+447700900170", 1, vec![failed(503)]),
        ("+447700900182", 20, vec![answered(), ended(false)]),
        ("+447700900194", 1, vec![failed(604)]),
        ("+447700900195", 1, vec![failed(603)]),
    ];
    for (number, seconds, expected) in cases {
        let mut world = World::new();
        world.call(number);
        world.run(Duration::from_secs(seconds));
        assert_eq!(world.events, expected, "{number}");
    }
    for number in ["", "1", "+44770090010x", "é"] {
        assert_eq!(Behaviour::of_number(number).status, 484, "{number}");
    }
    assert_eq!(Behaviour::of_number("85").hang_up_after, Some(Duration::from_secs(30)));
}

#[test]
fn a_call_is_cancelled_while_it_rings_and_before() {
    let mut world = World::new();
    world.call("+447700900160");
    world.run(Duration::from_secs(3));
    world.command(PhoneCommand::HangUp { call: CALL });
    world.run(Duration::from_secs(1));
    assert_eq!(world.events, [progress(180), failed(487)]);
    assert_eq!(world.log.join(" "), "INVITE 180 CANCEL 200 487 ACK");
    world.assert_empty();
    let mut early = World::new();
    early.call("+447700900160");
    early.command(PhoneCommand::HangUp { call: CALL });
    early.run(Duration::from_secs(1));
    assert_eq!(early.events, [progress(180), failed(487)]);
    let mut crossing = World::new();
    crossing.call("+447700900100");
    crossing.command(PhoneCommand::HangUp { call: CALL });
    crossing.run(Duration::from_secs(1));
    assert_eq!(crossing.events, [progress(180), answered(), ended(true)]);
    crossing.assert_empty();
}

#[test]
fn nobody_there_is_a_timeout() {
    let mut world = World::new();
    world.loses = Box::new(|_| true);
    world.call("+447700900100");
    world.command(PhoneCommand::Register);
    world.run(Duration::from_secs(40));
    assert_eq!(world.events, [failed(408), PhoneEvent::RegistrationFailed { status: 408 }]);
    let invites = world.log.iter().filter(|what| *what == "INVITE").count();
    let registers = world.log.iter().filter(|what| *what == "REGISTER").count();
    assert_eq!((invites, registers), (7, 11));
    world.assert_empty();
}

#[test]
fn calls_survive_the_loss_of_any_one_datagram() {
    for lost in 0..12 {
        let mut world = World::with_gate("secret");
        world.loses = Box::new(move |number| number == lost);
        world.call("+447700900100");
        world.run(Duration::from_secs(20));
        world.command(PhoneCommand::HangUp { call: CALL });
        world.run(Duration::from_secs(20));
        assert_eq!(world.events.last(), Some(&ended(true)), "datagram {lost}: {}", world.log.join(" "));
        assert_eq!((world.counts().answered, world.counts().ended, world.counts().lost), (1, 1, 0));
        world.assert_empty();
    }
}

#[test]
fn full_tables_refuse_and_recover() {
    let mut world = World::new();
    for number in 0..120 {
        world.command(PhoneCommand::Call { call: PhoneCall(number), number: Pii::new("+447700900100".into()) });
    }
    world.run(Duration::from_secs(1));
    let refused = world.events.iter().filter(|event| matches!(event, PhoneEvent::Failed { status: 503, .. })).count();
    assert_eq!((refused, world.counts().answered, world.counts().shed), (70, 50, 50));
    for number in 0..120 {
        world.command(PhoneCommand::HangUp { call: PhoneCall(number) });
    }
    world.assert_empty();
}

#[test]
fn the_carrier_answers_probes_and_re_invites() {
    use crate::message::{NameAddr, RequestBuilder, Transport, Uri, Via};
    let mut carrier = Carrier::new(Entropy::from_number(2), address(CARRIER), 5);
    let uri = Uri::of_address(Some("+447700900100"), address(CARRIER));
    let from = NameAddr::new(Uri::of_address(Some("x"), address(PHONE))).with_tag("f").expect("a tag");
    let mut tag: Option<String> = None;
    for (cseq, method, expected) in [
        (1, Method::Options, "200"),
        (2, Method::Invite, "180 200"),
        (2, Method::Ack, ""),
        (3, Method::Invite, "200"),
        (3, Method::Invite, "200"),
        (3, Method::Ack, ""),
        (4, Method::Update, "200"),
        (5, Method::Subscribe, "405"),
        (6, Method::Bye, "200"),
        (6, Method::Bye, "200"),
        (7, Method::Bye, "481"),
    ] {
        let via = Via::new(Transport::Udp, "127.0.0.1", Some(5080), &format!("z9hG4bK{cseq}")).expect("a Via");
        let mut to = NameAddr::new(uri.clone());
        if let Some(tag) = &tag {
            to = to.with_tag(tag).expect("a tag");
        }
        let request = RequestBuilder::new(method, uri.clone()).via(&via).from(&from).to(&to).call_id("c").cseq(cseq);
        let bytes = request.contact(&from).build().expect("built");
        let mut actions = Actions::default();
        carrier.on_datagram(&bytes, address(PHONE), Mono(0), &mut actions);
        let responses: Vec<_> =
            actions.datagrams.iter().map(|(_, bytes)| Message::parse_datagram(bytes).expect("readable")).collect();
        let statuses: Vec<_> = responses.iter().filter_map(Message::status).map(|s| s.to_string()).collect();
        assert_eq!(statuses.join(" "), expected, "CSeq {cseq}");
        if cseq == 2
            && let Some(response) = responses.last()
        {
            tag = response.to_tag().map(str::to_owned);
        }
    }
}

#[test]
fn a_phone_that_takes_reliable_responses_acknowledges_them_and_offers_before_and_after_the_answer() {
    let mut world = World::reliable();
    let changed = PhoneEvent::Changed { call: CALL, status: 200 };
    world.call("+447700900140");
    world.command(PhoneCommand::Change { call: CALL });
    world.run(Duration::from_secs(1));
    assert_eq!(world.log, ["INVITE", "183", "PRACK", "200"], "nothing is answered yet that could be changed");
    world.command(PhoneCommand::Change { call: CALL });
    world.command(PhoneCommand::Change { call: CALL });
    world.run(Duration::from_secs(1));
    assert_eq!(world.log.split_off(4), ["UPDATE", "200"], "one offer at a time");
    world.run(Duration::from_secs(5));
    assert_eq!(world.log.split_off(4), ["200", "ACK"]);
    world.command(PhoneCommand::Change { call: CALL });
    world.run(Duration::from_secs(1));
    assert_eq!(world.log.split_off(4), ["INVITE", "200", "ACK"]);
    world.command(PhoneCommand::HangUp { call: CALL });
    world.run(Duration::from_secs(60));
    assert_eq!(world.log.split_off(4), ["BYE", "200"]);
    assert_eq!(world.events[1..], [changed.clone(), answered(), changed, ended(true)]);
    world.assert_empty();
}

#[test]
fn a_reliable_180_that_is_lost_comes_again_and_is_acknowledged_once() {
    let mut world = World::reliable();
    // The 180, and then the 200 to its PRACK.
    world.loses = Box::new(|number| [1, 6].contains(&number));
    world.call("+447700900120");
    world.run(Duration::from_secs(5));
    assert_eq!(
        world.log,
        ["INVITE", "180", "INVITE", "180", "180", "PRACK", "200", "PRACK", "200", "200", "ACK"],
        "of the two 180s that come one is acknowledged"
    );
    world.command(PhoneCommand::HangUp { call: CALL });
    world.assert_empty();
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_lost_every_call_ends_on_both_sides(lost in proptest::collection::btree_set(0_u64..30, 0..10), digits in 0_u8..100, after_s in 0_u64..8, reliable in proptest::bool::ANY) {
        let mut world = if reliable { World::reliable() } else { World::with_gate("secret") };
        world.loses = Box::new(move |number| lost.contains(&number));
        world.call(&format!("+4477009001{digits:02}"));
        world.run(Duration::from_secs(after_s));
        world.command(PhoneCommand::Change { call: CALL });
        world.run(Duration::from_millis(300));
        world.command(PhoneCommand::HangUp { call: CALL });
        world.run(Duration::from_secs(120));
        let last = world.events.last();
        let over = matches!(last, Some(PhoneEvent::Failed { .. } | PhoneEvent::Ended { .. }));
        proptest::prop_assert!(over, "{:?} {}", world.events, world.log.join(" "));
        world.assert_empty();
    }
}

#[tokio::test]
async fn both_speak_over_real_sockets() {
    let clock: Clock = {
        let start = tokio::time::Instant::now();
        std::sync::Arc::new(move || schema::time::Now {
            mono: Mono(u64::try_from(start.elapsed().as_micros()).expect("a short test")),
            wall: schema::time::Timestamp(0),
        })
    };
    let carrier_socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let phone_socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let server = carrier_socket.local_addr().expect("bound");
    let config = PhoneConfig {
        server,
        domain: "ringfence.example".into(),
        address: phone_socket.local_addr().expect("bound"),
        username: "alice".into(),
        password: Pii::new("secret".into()),
        expires_s: 300,
        most_calls: 100,
        takes_reliable: false,
    };
    let mut phone = Phone::new(config, Entropy::from_number(1)).expect("a domain");
    let mut carrier = Carrier::new(Entropy::from_number(2), server, 50);
    let (commands, phone_commands) = mpsc::channel(8);
    let (_stop, carrier_commands) = mpsc::channel(1);
    let (events, mut heard) = mpsc::channel(8);
    let (carrier_events, _ignored) = mpsc::channel(8);
    let script = async {
        let number = Pii::new("+447700900100".into());
        commands.send(PhoneCommand::Call { call: CALL, number }).await.expect("listening");
        let mut seen = Vec::new();
        while let Some(event) = heard.recv().await {
            if event == answered() {
                commands.send(PhoneCommand::HangUp { call: CALL }).await.expect("listening");
            }
            seen.push(event);
            if seen.last() == Some(&ended(true)) {
                return seen;
            }
        }
        seen
    };
    let seen = tokio::select! {
        seen = script => seen,
        _ = run(&phone_socket, &mut phone, &clock, phone_commands, &events) => panic!("the phone stopped"),
        _ = run(&carrier_socket, &mut carrier, &clock, carrier_commands, &carrier_events) => panic!("the carrier stopped"),
        () = tokio::time::sleep(Duration::from_secs(20)) => panic!("no answer in time"),
    };
    assert_eq!(seen, [progress(180), answered(), ended(true)]);
}

#[test]
fn early_media_is_reliable_where_the_caller_takes_that_and_waits_for_its_prack() {
    let mut carrier = Carrier::new(Entropy::from_number(2), address(CARRIER), 50);
    let send = |carrier: &mut Carrier, text: &str, now: Mono| {
        let mut actions = Actions::default();
        let bytes = Bytes::from(text.replace('\n', "\r\n"));
        carrier.on_datagram(&bytes, address(PHONE), now, &mut actions);
        actions.datagrams
    };
    let wait = |carrier: &mut Carrier, until: Mono| {
        let mut sent = Vec::new();
        while let Some(at) = carrier.next_time().filter(|at| *at <= until) {
            let mut actions = Actions::default();
            carrier.on_time(at, &mut actions);
            sent.extend(actions.datagrams.iter().map(|(_, bytes)| Message::parse_datagram(bytes).expect("readable")));
        }
        sent.iter().map(|sent| sent.status().unwrap_or(0)).collect::<Vec<_>>()
    };
    let start = Mono(1_000_000);
    let request = |method: &str, cseq: u32, more: &str| {
        format!(
            "{method} sip:+447700900140@127.0.0.1:5090 SIP/2.0\nVia: SIP/2.0/UDP {PHONE};branch=z9hG4bK{method}{cseq}\nMax-Forwards: 70\nFrom: <sip:a@localhost>;tag=a\nTo: <sip:b@localhost>\nCall-ID: c\nCSeq: {cseq} {method}\nContact: <sip:a@{PHONE}>\n{more}Content-Length: 0\n\n"
        )
    };
    let sent = send(&mut carrier, &request("INVITE", 7, "Supported: timer, 100rel\n"), start);
    let early = Message::parse_datagram(&sent[0].1).expect("readable");
    assert_eq!((early.status(), early.rseq(), early.require().collect()), (Some(183), Some(1), vec!["100rel"]));
    let until = start + Duration::from_secs(6);
    assert_eq!(wait(&mut carrier, until), [183; 3], "at 0.5, 1.5 and 3.5 s; no 200 at 5 s");
    let status = |sent: Vec<(SocketAddr, Bytes)>| -> Vec<Option<u16>> {
        sent.iter().map(|(_, bytes)| Message::parse_datagram(bytes).expect("readable").status()).collect()
    };
    assert_eq!(status(send(&mut carrier, &request("PRACK", 8, "RAck: 2 7 INVITE\n"), until)), [Some(481)]);
    let prack = request("PRACK", 9, "RAck: 1 7 INVITE\n");
    assert_eq!(status(send(&mut carrier, &prack, until)), [Some(200), Some(200)], "and the INVITE is answered");
    assert_eq!(status(send(&mut carrier, &prack, until)), [Some(200)], "repeated");
    assert_eq!(status(send(&mut carrier, &request("PRACK", 10, "RAck: 1 7 INVITE\n"), until)), [Some(481)]);

    let mut carrier = Carrier::new(Entropy::from_number(2), address(CARRIER), 50);
    send(&mut carrier, &request("INVITE", 7, "Supported: 100rel\n"), start);
    let told = wait(&mut carrier, start + Duration::from_secs(32));
    assert_eq!((told.len(), told.last()), (7, Some(&504)), "nobody acknowledges it");
}
