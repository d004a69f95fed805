//! Whatever comes in whatever order, over whatever connection: no panic, bounded tables, and nothing left in the end.

use super::*;
use crate::digest::Challenge;
use crate::flow::{ConnectionId, Protocol, Unreached};
use proptest::prelude::*;
use schema::id::CallId;
use schema::leg::{Checkpoint, TakeBack};

/// Limits low enough to be reached.
const LEGS_MAX: usize = 5;
const TRANSACTIONS_MAX: usize = 12;
const LOOKUPS_MAX: usize = 2;

const METHODS: [&str; 9] = ["INVITE", "ACK", "BYE", "CANCEL", "REGISTER", "OPTIONS", "UPDATE", "INFO", "REFER"];
const SDP: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";

#[derive(Debug, Clone)]
enum Act {
    /// Any request; `to` and `again` choose a tag and credentials that the core gave out before.
    Request {
        flow: u8,
        method: usize,
        branch: u8,
        call: u8,
        from: u8,
        to: u8,
        cseq: u8,
        body: bool,
        again: bool,
    },
    /// A request within a dialog that the core knows.
    InDialog {
        flow: u8,
        dialog: u8,
        method: usize,
        cseq: u8,
        body: bool,
    },
    /// Any response; to an INVITE of ours, when the branch is right.
    Response {
        flow: u8,
        status: u16,
        method: usize,
        leg: u8,
        to: u8,
        body: bool,
    },
    Command {
        kind: u8,
        leg: u8,
    },
    Credential {
        ticket: u8,
        known: bool,
    },
    Revoked,
    Closed(u8),
    Unreachable,
    Disconnected,
    Trunks(bool),
    Wait(u32),
}

fn act() -> impl Strategy<Value = Act> {
    let method = || 0..METHODS.len();
    prop_oneof![
        5 => (0..4_u8, method(), (0..6_u8, 0..3_u8, 0..2_u8, 0..3_u8), 0..4_u8, any::<bool>(), any::<bool>()).prop_map(
            |(flow, method, (branch, call, from, to), cseq, body, again)| Act::Request { flow, method, branch, call, from, to, cseq, body, again }
        ),
        3 => (0..4_u8, 0..3_u8, method(), 0..8_u8, any::<bool>()).prop_map(|(flow, dialog, method, cseq, body)| Act::InDialog { flow, dialog, method, cseq, body }),
        3 => (0..4_u8, prop_oneof![Just(100_u16), Just(180), Just(200), Just(486), 100..700_u16], method(), 0..4_u8, 0..3_u8, any::<bool>())
            .prop_map(|(flow, status, method, leg, to, body)| Act::Response { flow, status, method, leg, to, body }),
        4 => (0..13_u8, 0..5_u8).prop_map(|(kind, leg)| Act::Command { kind, leg }),
        2 => (0..4_u8, prop_oneof![3 => Just(true), 1 => Just(false)]).prop_map(|(ticket, known)| Act::Credential { ticket, known }),
        1 => Just(Act::Revoked),
        1 => (0..4_u8).prop_map(Act::Closed),
        1 => Just(Act::Unreachable),
        1 => Just(Act::Disconnected),
        1 => any::<bool>().prop_map(Act::Trunks),
        2 => (1..40_000_u32).prop_map(Act::Wait),
    ]
}

/// The core, and what it has given out, so that many acts hit.
struct Fuzzed {
    core: Core,
    now: Now,
    tags: Vec<String>,
    challenge: Option<Challenge>,
    legs: Vec<LegId>,
    tickets: Vec<schema::edge::Ticket>,
    checkpoints: Vec<Checkpoint>,
    /// Call-ID, our tag and their tag of dialogs, as the core named them.
    dialogs: Vec<(String, String, String)>,
    /// Our newest request.
    newest: Option<Message>,
    serial: u32,
}

fn flow(n: u8) -> Flow {
    let over = |protocol, last, number| Flow {
        protocol,
        peer: SocketAddr::from(([127, 0, 0, last], 5100)),
        connection: Some(ConnectionId(number)),
    };
    match n {
        0 => Flow::udp(PHONE.into()),
        1 => Flow::udp(CARRIER.into()),
        2 => over(Protocol::Tls, 1, 1),
        _ => over(Protocol::Tcp, 2, 2),
    }
}

impl Fuzzed {
    fn new() -> Self {
        let call = CallId::generate(&mut Entropy::from_number(9), Timestamp(0));
        let limits =
            CoreConfig { legs_max: LEGS_MAX, transactions_max: TRANSACTIONS_MAX, lookups_max: LOOKUPS_MAX, ..config() };
        Self {
            core: Core::new(limits, Entropy::from_number(3)).expect("a realm"),
            now: Now { mono: Mono(1_000_000), wall: Timestamp(1_700_000_000_000_000) },
            tags: Vec::new(),
            challenge: None,
            legs: (1..4).map(|n| LegId::b(call, n)).collect(),
            tickets: Vec::new(),
            checkpoints: vec![Checkpoint { state: Pii::new("{}".into()) }],
            dialogs: Vec::new(),
            newest: None,
            serial: 0,
        }
    }

    fn handle(&mut self, input: Input) {
        self.core.handle(input, self.now);
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Send(_, bytes) | Output::SendTo(_, bytes) => self.note_sent(&bytes),
                Output::Leg(LegEventAt { event, .. }) => match event {
                    LegEvent::Invited(invited) => {
                        self.legs.push(invited.leg);
                        self.checkpoints.push(invited.checkpoint);
                    }
                    LegEvent::Answered { checkpoint, .. } | LegEvent::Checkpointed { checkpoint, .. } => {
                        self.checkpoints.push(checkpoint);
                    }
                    _ => {}
                },
                Output::Edge(EdgeEvent::CredentialWanted { ticket, .. }) => self.tickets.push(ticket),
                Output::Edge(_) | Output::Trust(_) => {}
            }
        }
    }

    fn note_sent(&mut self, bytes: &Bytes) {
        let message = Message::parse_datagram(bytes).expect("what we write can be read");
        self.tags.extend(message.to_tag().map(str::to_owned));
        self.challenge = Challenge::best_of(&message).or(self.challenge.take());
        let (from, to) = (message.from_tag().unwrap_or_default(), message.to_tag().unwrap_or_default());
        let (ours, theirs) = if message.is_request() { (from, to) } else { (to, from) };
        if !ours.is_empty() && !theirs.is_empty() {
            self.dialogs.push((message.call_id().to_owned(), ours.to_owned(), theirs.to_owned()));
        }
        if message.is_request() && !message.is_ack() {
            self.newest = Some(message);
        }
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Request { flow: n, method, branch, call, from, to, cseq, body, again } => {
                let tag = self.tags.len().checked_sub(usize::from(*to)).and_then(|at| self.tags.get(at)).cloned();
                let branch = branch.to_string();
                self.request(
                    *n,
                    METHODS[*method],
                    &branch,
                    [&call.to_string(), &from.to_string(), &tag.unwrap_or_default()],
                    (*cseq).into(),
                    *body,
                    *again,
                );
            }
            Act::InDialog { flow: n, dialog, method, cseq, body } => {
                let at = self.dialogs.len().checked_sub(1 + usize::from(*dialog));
                let Some((call_id, ours, theirs)) = at.and_then(|at| self.dialogs.get(at)).cloned() else { return };
                self.serial += 1;
                let branch = format!("d{}", self.serial);
                self.request(*n, METHODS[*method], &branch, [&call_id, &theirs, &ours], (*cseq).into(), *body, true);
            }
            Act::Response { flow: n, status, method, leg, to, body } => {
                self.response(*n, *status, METHODS[*method], *leg, *to, *body)
            }
            Act::Command { kind, leg } => self.command(*kind, *leg),
            Act::Credential { ticket, known } => {
                let at = self.tickets.len().checked_sub(1 + usize::from(*ticket));
                let Some(ticket) = at.and_then(|at| self.tickets.get(at)).copied() else { return };
                let found = match known {
                    true => CredentialLookup::Found(Box::new(credential())),
                    false => CredentialLookup::Unavailable,
                };
                self.handle(Input::Edge(EdgeCommand::Credential { ticket, found }));
            }
            Act::Revoked => self.handle(Input::Edge(EdgeCommand::CredentialRevoked { credential: credential().id })),
            Act::Closed(n) => self.handle(Input::FlowClosed(flow(*n))),
            Act::Unreachable => {
                let to = Destination::new(Protocol::Udp, CARRIER.into());
                self.handle(Input::Unreachable(to, Unreached::NoConnection));
            }
            Act::Disconnected => {
                let to = Destination::new(Protocol::Udp, CARRIER.into());
                self.handle(Input::Disconnected(flow(3), to));
            }
            Act::Trunks(any) => {
                let trunk = TrunkId::generate(&mut Entropy::from_number(6), Timestamp(0));
                let gateway = Gateway { transport: GatewayTransport::Udp, address: CARRIER.into() }.into();
                let address = TrunkAddress { trunk, gateway, large_over_tcp: false, login: None };
                let trunks = if *any { vec![address] } else { Vec::new() };
                self.handle(Input::Edge(EdgeCommand::Trunks(trunks)));
            }
            Act::Wait(ms) => {
                self.now = self.now.after(Duration::from_millis(u64::from(*ms)));
                self.handle(Input::Timeout);
            }
        }
    }

    /// A response to a request that the core has sent.
    fn response_to(&mut self, n: u8, request: &Message, status: u16, body: bool) {
        let contact = crate::message::NameAddr::parse("<sip:c@127.0.0.1:5090>").expect("valid");
        let mut response = crate::message::ResponseBuilder::to_request(request, status, None).contact(&contact);
        if body {
            response = response.body("application/sdp", Bytes::from_static(SDP.as_bytes()));
        }
        if let Ok(text) = response.build() {
            self.take(flow(n), std::str::from_utf8(&text).expect("text"));
        }
    }

    /// `ids` are Call-ID, From-tag and To-tag.
    #[expect(clippy::too_many_arguments, reason = "each is a part of the message")]
    fn request(&mut self, n: u8, method: &str, branch: &str, ids: [&str; 3], cseq: u32, body: bool, again: bool) {
        let [call_id, from, to] = ids;
        let uri = if method == "REGISTER" { "sip:localhost" } else { "sip:+447700900000@localhost" };
        self.serial += 1;
        let credentials = self.challenge.as_ref().filter(|_| again).map_or_else(String::new, |challenge| {
            let name = if method == "REGISTER" { "Authorization" } else { "Proxy-Authorization" };
            format!("{name}: {}\r\n", challenge.answer("demo", "secret", method, uri, "c", self.serial))
        });
        // Each description is another one, so that it changes a session that is up.
        let sdp = SDP.replace("4000", &format!("{}", 4_000 + 2 * (self.serial % 3)));
        let (flow, sdp) = (flow(n), if body { sdp.as_str() } else { "" });
        let timer = if self.serial.is_multiple_of(2) { "Supported: timer\r\nSession-Expires: 90\r\n" } else { "" };
        let text = format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{} {};branch=z9hG4bK{branch}\r\nMax-Forwards: 70\r\nFrom: <sip:demo@localhost>;tag={from}\r\nTo: <sip:demo@localhost>{}{to}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\nContact: <sip:demo@{}>\r\n{timer}{credentials}{}Content-Length: {}\r\n\r\n{sdp}",
            flow.protocol.via().as_str(),
            flow.peer,
            if to.is_empty() { "" } else { ";tag=" },
            flow.peer,
            if body { "Content-Type: application/sdp\r\n" } else { "" },
            sdp.len(),
        );
        self.take(flow, &text);
    }

    fn response(&mut self, n: u8, status: u16, method: &str, leg: u8, to: u8, body: bool) {
        if leg == 3
            && let Some(request) = self.newest.clone()
        {
            return self.response_to(n, &request, status, body);
        }
        let (call_id, sdp) = (if leg == 0 { "other" } else { "0123456789abcdef" }, if body { SDP } else { "" });
        self.take(flow(n), &format!(
            "SIP/2.0 {status} x\r\nVia: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bKb{leg}\r\nFrom: <sip:a@localhost>;tag=tag\r\nTo: <sip:b@localhost>;tag=c{to}\r\nCall-ID: {call_id}\r\nCSeq: 1 {method}\r\nContact: <sip:c@127.0.0.1:5090>\r\n{}Content-Length: {}\r\n\r\n{sdp}",
            if body { "Content-Type: application/sdp\r\n" } else { "" },
            sdp.len(),
        ));
    }

    fn command(&mut self, kind: u8, leg: u8) {
        let newest = self.legs.len() - 1 - usize::from(leg) % self.legs.len();
        let leg = self.legs[newest];
        let sdp = Some(Pii::new(SDP.into()));
        let command = match kind {
            0 => LegCommand::Progress { leg, status: 180, sdp },
            1 => LegCommand::Accept { leg, sdp },
            2 => LegCommand::Reject { leg, status: 486, reason: None, retry_after_s: None },
            3 => LegCommand::Confirm { leg, answer: None },
            4 => LegCommand::HangUp { leg, cause: HangupCause::Requested },
            5 => {
                let checkpoint = self.checkpoints[self.checkpoints.len() - 1].clone();
                LegCommand::Resume { leg, checkpoint }
            }
            6 => LegCommand::Probe { leg },
            7 => {
                let checkpoint = self.checkpoints[self.checkpoints.len() - 1].clone();
                let invite = Some(Box::new(outgoing(leg)));
                LegCommand::TakeBack(Box::new(TakeBack { leg, checkpoint, invite, retry_after_s: 5 }))
            }
            8 => LegCommand::Offer { leg, offer: Pii::new(SDP.into()) },
            9 => LegCommand::AnswerOffer { leg, answer: sdp.ok_or(488) },
            10 => LegCommand::PressKey { leg, key: schema::leg::Key { signal: Pii::new('5'), duration_ms: None } },
            _ => LegCommand::Invite(Box::new(outgoing(leg))),
        };
        self.handle(Input::Leg(command));
    }

    fn take(&mut self, flow: Flow, text: &str) {
        if let Ok(message) = Message::parse_datagram(&Bytes::from(text.to_owned())) {
            self.handle(Input::Message(flow, message.with_source(flow.peer)));
        }
    }
}

/// An attempt of this leg's call.
fn outgoing(leg: LegId) -> Invite {
    Invite {
        leg: LegId { attempt: leg.attempt.clamp(1, 3), side: schema::call::LegSide::B, ..leg },
        trunk: TrunkId::generate(&mut Entropy::from_number(6), Timestamp(0)),
        gateway: Gateway { transport: GatewayTransport::Udp, address: CARRIER.into() },
        name: None,
        trusted: true,
        ids: AttemptIds {
            call_id: "0123456789abcdef".into(),
            from_tag: "tag".into(),
            branch: format!("z9hG4bKb{}", leg.attempt.clamp(1, 3)).into(),
            cseq: 1,
        },
        destination: E164::parse("+447700900000").expect("valid"),
        presentation: Presentation::Withheld(presented()),
        offer: Some(Pii::new(SDP.into())),
        ring_timeout_s: 60,
    }
}

#[test]
fn an_invite_whose_200_names_another_branch_is_not_waited_for_for_ever() {
    let mut fuzzed = Fuzzed::new();
    for act in [
        Act::Trunks(true),
        Act::Command { kind: 7, leg: 0 },
        Act::Response { flow: 0, status: 100, method: 0, leg: 3, to: 0, body: false },
        Act::Response { flow: 1, status: 200, method: 0, leg: 1, to: 0, body: false },
        Act::Trunks(false),
    ] {
        fuzzed.act(&act);
    }
    for _ in 0..300 {
        fuzzed.act(&Act::Wait(1_000));
    }
    assert_eq!(fuzzed.core.counts(), Counts::default());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_sequence_leaves_nothing_behind(acts in proptest::collection::vec(act(), 1..80)) {
        let mut fuzzed = Fuzzed::new();
        for act in &acts {
            fuzzed.act(act);
            let counts = fuzzed.core.counts();
            prop_assert!(counts.server_transactions <= TRANSACTIONS_MAX && counts.client_transactions <= TRANSACTIONS_MAX);
            // Legs that we are told to begin or to resume are not refused; there is one for each that we know of.
            prop_assert!(counts.legs <= fuzzed.legs.len() + LEGS_MAX && counts.lookups <= LOOKUPS_MAX);
            prop_assert!(counts.dialogs <= counts.legs && counts.registrations <= 5);
        }
        // Hang everything up and let every timer run out.
        fuzzed.act(&Act::Trunks(false));
        for n in 0..u8::try_from(fuzzed.legs.len()).unwrap_or(u8::MAX) {
            fuzzed.command(4, n);
            for attempt in 1..4 {
                let leg = LegId { attempt, side: schema::call::LegSide::B, ..fuzzed.legs[usize::from(n)] };
                fuzzed.handle(Input::Leg(LegCommand::HangUp { leg, cause: HangupCause::Requested }));
            }
        }
        for _ in 0..400 {
            fuzzed.act(&Act::Wait(1_000));
        }
        let counts = fuzzed.core.counts();
        prop_assert_eq!(counts, Counts { registrations: counts.registrations, ..Counts::default() });
        prop_assert!(fuzzed.core.invites.is_empty() && fuzzed.core.parked.is_empty() && fuzzed.core.absent.is_empty() && fuzzed.core.ended_order.is_empty());
    }
}
