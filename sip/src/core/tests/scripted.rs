//! Hand-written messages to the core, one at a time, where the test phone and the test carrier are too well-behaved.

mod calls;
mod carriers;
mod datagrams;
mod disconnected;
mod edge;
mod flows;
mod identity;
mod large;
mod liveness;
mod names;
mod offerless;
mod offers;
mod overload;
mod reconnect;
mod registering;
mod reliable;
mod restart;
mod rules;
mod session_timer;
mod strangers;
mod take_back;
mod ways;

use super::*;
use crate::digest::Challenge;
use crate::flow::{ConnectionId, Protocol, Unreached};
use crate::message::{HeaderName, Method, NameAddr, ResponseBuilder};
use schema::carrier::{TrunkDown, TrunkLogin, TrunkState};
use schema::edge::{Binding, Ticket};
use schema::leg::{CallerIdWish, Invited};
use schema::target::GatewayName;

const OFFER: &str =
    "v=0\r\no=phone 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
const ANSWER: &str =
    "v=0\r\no=carrier 9 9 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 9000 RTP/AVP 0\r\n";
const TARGET: &str = "sip:+447700900000@localhost";

fn udp() -> Flow {
    Flow::udp(PHONE.into())
}

fn tls(number: u64, last: u8) -> Flow {
    let peer = SocketAddr::from(([127, 0, 0, last], 5100));
    Flow { protocol: Protocol::Tls, peer, connection: Some(ConnectionId(number)) }
}

/// The core alone, and all that it said.
struct Desk {
    core: Core,
    now: Now,
    sent: Vec<(SocketAddr, String)>,
    /// By which flows.
    flows: Vec<Flow>,
    /// Whose peers are known.
    trusted: Vec<Flow>,
    legs: Vec<LegEvent>,
    wanted: Vec<Ticket>,
    /// What was told of trunks.
    states: Vec<TrunkState>,
    /// Whether and why they are down.
    probed: Vec<Option<TrunkDown>>,
    /// Bindings as they were told.
    bindings: Vec<Binding>,
    /// Names to be looked up.
    names: Vec<GatewayName>,
    /// Whether questions for credentials are answered at once.
    answers: bool,
    serial: u32,
    /// How the carrier is spoken to.
    carrier: GatewayTransport,
}

/// One side of a dialog, as the phone sees it.
#[derive(Clone)]
struct Talk {
    leg: LegId,
    call_id: String,
    to_tag: String,
    cseq: u32,
    flow: Flow,
}

impl Desk {
    fn new() -> Self {
        Self::with(config(), 3)
    }

    fn with(config: CoreConfig, seed: u64) -> Self {
        Self {
            core: Core::new(config, Entropy::from_number(seed)).expect("a realm"),
            now: Now { mono: Mono(1_000_000), wall: Timestamp(1_700_000_000_000_000) },
            sent: Vec::new(),
            flows: Vec::new(),
            trusted: Vec::new(),
            legs: Vec::new(),
            wanted: Vec::new(),
            states: Vec::new(),
            probed: Vec::new(),
            bindings: Vec::new(),
            names: Vec::new(),
            answers: true,
            serial: 0,
            carrier: GatewayTransport::Udp,
        }
    }

    fn handle(&mut self, input: Input) {
        self.core.handle(input, self.now);
        while let Some(output) = self.core.poll_output() {
            if let Output::Send(flow, _) = &output {
                self.flows.push(*flow);
            }
            match output {
                Output::Send(Flow { protocol, peer: to, .. }, bytes)
                | Output::SendTo(Destination { protocol, address: to, .. }, bytes) => {
                    let message = Message::parse_datagram(&bytes).expect("what we write can be read");
                    crate::message::tests::read_by_other_stacks(&bytes);
                    let via = message.text(crate::message::HeaderName::Via).unwrap_or_default();
                    let over = format!("SIP/2.0/{} ", protocol.via().as_str());
                    let is_right = message.status().is_some() || via.starts_with(&over);
                    assert!(is_right, "over {protocol:?}: {via}");
                    self.sent.push((to, String::from_utf8(bytes.to_vec()).expect("text")));
                }
                Output::Leg(LegEventAt { event, .. }) => self.legs.push(event),
                Output::Edge(EdgeEvent::CredentialWanted { ticket, username }) => {
                    assert_eq!(&*username, "demo");
                    self.wanted.push(ticket);
                    if self.answers {
                        self.answer(ticket);
                    }
                }
                Output::Edge(EdgeEvent::TrunkProbed { state, .. }) => {
                    self.probed.push(state.down);
                    self.states.push(state);
                }
                Output::Edge(EdgeEvent::NameWanted(name)) => self.names.push(name),
                Output::Edge(EdgeEvent::BindingChanged(change)) => self.bindings.push(change.binding),
                Output::Trust(flow) => self.trusted.push(flow),
            }
        }
    }

    fn answer(&mut self, ticket: Ticket) {
        let found = CredentialLookup::Found(Box::new(credential()));
        self.core.handle(Input::Edge(EdgeCommand::Credential { ticket, found }), self.now);
    }

    fn leg(&mut self, command: LegCommand) {
        self.handle(Input::Leg(command));
    }

    fn take(&mut self, flow: Flow, text: &str) {
        let message = Message::parse_datagram(&Bytes::from(text.to_owned())).expect("well-formed");
        self.handle(Input::Message(flow, message.with_source(flow.peer)));
    }

    /// Time passes, each timer at its moment.
    fn wait(&mut self, duration: Duration) {
        let end = self.now.mono + duration;
        while let Some(next) = self.core.next_timeout().filter(|at| *at <= end) {
            self.now = self.now.after(next.since(self.now.mono));
            self.handle(Input::Timeout);
        }
        self.now = self.now.after(end.since(self.now.mono));
    }

    /// Start lines of what was sent since the last look.
    fn lines(&mut self) -> Vec<String> {
        self.take_sent().iter().map(|text| text.lines().next().unwrap_or_default().to_owned()).collect()
    }

    /// First words of requests, statuses of responses.
    fn kinds(&mut self) -> Vec<String> {
        let kind = |line: String| {
            let mut words = line.split(' ');
            let first = words.next().unwrap_or_default();
            if first == "SIP/2.0" { words.next().unwrap_or_default().to_owned() } else { first.to_owned() }
        };
        self.lines().into_iter().map(kind).collect()
    }

    fn take_sent(&mut self) -> Vec<String> {
        std::mem::take(&mut self.sent).into_iter().map(|(_, text)| text).collect()
    }

    fn take_legs(&mut self) -> Vec<LegEvent> {
        std::mem::take(&mut self.legs)
    }

    fn last_sent(&self) -> Message {
        let (_, text) = self.sent.last().expect("something was sent");
        Message::parse_datagram(&Bytes::from(text.clone())).expect("readable")
    }

    /// A request of the phone.
    #[expect(clippy::too_many_arguments, reason = "each is a part of the message")]
    fn text(
        &mut self,
        method: &str,
        flow: Flow,
        call_id: &str,
        to_tag: &str,
        cseq: u32,
        more: &str,
        body: &str,
    ) -> String {
        self.serial += 1;
        let (serial, peer, transport) = (self.serial, flow.peer, flow.protocol.via().as_str());
        let to_tag = if to_tag.is_empty() { String::new() } else { format!(";tag={to_tag}") };
        let kind =
            if body.is_empty() || more.contains("Content-Type") { "" } else { "Content-Type: application/sdp\r\n" };
        let length = body.len();
        format!(
            "{method} {TARGET} SIP/2.0\r\nVia: SIP/2.0/{transport} {peer};branch=z9hG4bKp{serial}\r\nMax-Forwards: 70\r\nFrom: <sip:demo@localhost>;tag=a\r\nTo: <{TARGET}>{to_tag}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\nContact: <sip:demo@{peer}>\r\n{more}{kind}Content-Length: {length}\r\n\r\n{body}"
        )
    }

    /// Credentials for the challenge sent last.
    fn credentials(&self, method: &str) -> String {
        let challenge = Challenge::best_of(&self.last_sent()).expect("a challenge");
        let uri = if method == "REGISTER" { "sip:localhost" } else { TARGET };
        let name = if method == "REGISTER" { "Authorization" } else { "Proxy-Authorization" };
        format!("{name}: {}\r\n", challenge.answer("demo", "secret", method, uri, "c", 1))
    }

    /// INVITE, 407, INVITE again; the text of the second one.
    fn invite(&mut self, flow: Flow, call_id: &str) -> String {
        let first = self.text("INVITE", flow, call_id, "", 1, "", OFFER);
        self.take(flow, &first);
        let credentials = self.credentials("INVITE");
        let second = self.text("INVITE", flow, call_id, "", 2, &credentials, OFFER);
        self.take(flow, &second);
        second
    }

    /// A call that rings at us.
    fn invited(&mut self, flow: Flow, call_id: &str) -> Box<Invited> {
        self.invite(flow, call_id);
        match self.take_legs().pop() {
            Some(LegEvent::Invited(invited)) => invited,
            other => panic!("no INVITE: {other:?}"),
        }
    }

    /// A call that is answered and acknowledged.
    fn talk(&mut self, flow: Flow, call_id: &str) -> Talk {
        let leg = self.invited(flow, call_id).leg;
        self.leg(LegCommand::Accept { leg, sdp: Some(Pii::new(ANSWER.into())) });
        let to_tag = self.last_sent().to_tag().expect("a tag").to_owned();
        let ack = self.text("ACK", flow, call_id, &to_tag, 2, "", "");
        self.take(flow, &ack);
        assert!(matches!(self.take_legs()[..], [LegEvent::Confirmed { .. }, ..]));
        self.take_sent();
        Talk { leg, call_id: call_id.to_owned(), to_tag, cseq: 2, flow }
    }

    /// A request in a dialog.
    fn in_dialog(&mut self, talk: &mut Talk, method: &str, more: &str, body: &str) {
        talk.cseq += 1;
        let text = self.text(method, talk.flow, &talk.call_id.clone(), &talk.to_tag.clone(), talk.cseq, more, body);
        self.take(talk.flow, &text);
    }

    /// Begins a B-leg and gives its INVITE.
    fn dial(&mut self, leg: LegId) -> Message {
        self.dial_with(leg, OFFER);
        self.last_sent()
    }

    fn dial_with(&mut self, leg: LegId, offer: &str) {
        let gateway = Gateway { transport: self.carrier, ..gateway() };
        let offer = Some(Pii::new(offer.into()));
        self.leg(LegCommand::Invite(Box::new(Invite { gateway, offer, ..outgoing(leg) })));
    }

    /// Where the carrier's messages come from.
    fn of_carrier(&self) -> Flow {
        let protocol = Protocol::from(self.carrier);
        Flow { protocol, peer: CARRIER.into(), connection: None }
    }

    /// The carrier answers a request of ours.
    fn carrier(&mut self, request: &Message, status: u16, tag: &str, sdp: &str) {
        let contact = NameAddr::parse("<sip:c@127.0.0.1:5090>").expect("valid");
        let mut response = ResponseBuilder::to_request(request, status, Some(tag)).contact(&contact);
        if !sdp.is_empty() {
            response = response.body("application/sdp", Bytes::from(sdp.to_owned()));
        }
        let text = String::from_utf8(response.build().expect("complete").to_vec()).expect("text");
        self.take(self.of_carrier(), &text);
    }

    /// The carrier asks who we are, as its last challenge says.
    fn challenge(&mut self, request: &Message, status: u16, challenges: &[&str]) {
        let name = if status == 401 { HeaderName::WwwAuthenticate } else { HeaderName::ProxyAuthenticate };
        let response = ResponseBuilder::to_request(request, status, Some("asks"));
        let response = challenges.iter().fold(response, |response, value| response.header(name, value));
        let text = String::from_utf8(response.build().expect("complete").to_vec()).expect("text");
        self.take(Flow::udp(CARRIER.into()), &text);
    }

    /// A phone, or whoever is there, answers a request of ours.
    fn phone(&mut self, flow: Flow, request: &Message, status: u16) {
        let response = ResponseBuilder::to_request(request, status, None).build().expect("complete");
        self.take(flow, std::str::from_utf8(&response).expect("text"));
    }

    /// What was sent to this address since the last look.
    fn sent_to(&mut self, to: SocketAddr) -> Vec<String> {
        std::mem::take(&mut self.sent).into_iter().filter(|(at, _)| *at == to).map(|(_, text)| text).collect()
    }

    fn trunks(&mut self, trunks: Vec<TrunkAddress>) {
        self.handle(Input::Edge(EdgeCommand::Trunks(trunks)));
    }

    fn assert_empty(&mut self) {
        self.wait(Duration::from_secs(200));
        let counts = self.core.counts();
        assert_eq!(counts, Counts { registrations: counts.registrations, ..Counts::default() });
    }
}

fn trunk() -> TrunkAddress {
    let trunk = TrunkId::generate(&mut Entropy::from_number(6), Timestamp(0));
    TrunkAddress { trunk, gateway: gateway().into(), large_over_tcp: false, login: None }
}

fn gateway() -> Gateway {
    Gateway { transport: GatewayTransport::Udp, address: CARRIER.into() }
}

/// The trunk, whose carrier does not know our address.
fn with_login(realm: Option<&str>, register_s: Option<u32>) -> TrunkAddress {
    let (username, password) = ("us".to_owned(), Pii::new("carrier-secret".to_owned()));
    let login = TrunkLogin { username, password, realm: realm.map(str::to_owned), register_s };
    TrunkAddress { login: Some(std::sync::Arc::new(login)), ..trunk() }
}

/// What a challenge is answered with: parameters of the credentials for this realm.
fn answer_in(request: &Message, name: HeaderName) -> BTreeMap<String, String> {
    let text = request.text(name).expect("credentials");
    let list = text.strip_prefix("Digest ").expect("a digest");
    let one = |pair: &str| {
        let (name, value) = pair.split_once('=').expect("a parameter");
        (name.trim().to_owned(), value.trim_matches('"').to_owned())
    };
    list.split(", ").map(one).collect()
}

/// Whether an answer is right, computed here from the password (RFC 7616 §3.4.1).
fn is_right(request: &Message, name: HeaderName, password: &str) -> bool {
    let answer = answer_in(request, name);
    let algorithm = answer["algorithm"].as_str();
    let session = algorithm.strip_suffix("-sess");
    let hash = |text: String| match session.unwrap_or(algorithm) {
        "MD5" => hex_of(&<md5::Md5 as md5::Digest>::digest(text.as_bytes())),
        "SHA-512-256" => hex_of(ring::digest::digest(&ring::digest::SHA512_256, text.as_bytes()).as_ref()),
        "SHA-256" => hex_of(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref()),
        other => panic!("{other} was not offered"),
    };
    let a1 = hash(format!("{}:{}:{password}", answer["username"], answer["realm"]));
    let a1 = match session {
        Some(_) => hash(format!("{a1}:{}:{}", answer["nonce"], answer["cnonce"])),
        None => a1,
    };
    let a2 = hash(format!("{}:{}", request.method(), answer["uri"]));
    let tail = format!("{}:{}:{}:{}:{a2}", answer["nonce"], answer["nc"], answer["cnonce"], answer["qop"]);
    let uri_is_its = request.request_uri().is_some_and(|uri| uri.as_str() == answer["uri"]);
    uri_is_its && answer["response"] == hash(format!("{a1}:{tail}"))
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn outgoing(leg: LegId) -> Invite {
    Invite {
        leg,
        trunk: trunk().trunk,
        gateway: gateway(),
        name: None,
        trusted: false,
        ids: AttemptIds {
            call_id: format!("attempt-{}", leg.attempt).into(),
            from_tag: "tag".into(),
            branch: format!("z9hG4bKb{}", leg.attempt).into(),
            cseq: 1,
        },
        destination: E164::parse("+447700900000").expect("valid"),
        presentation: Presentation::Shown(presented()),
        offer: Some(Pii::new(OFFER.into())),
        ring_timeout_s: 60,
    }
}

fn some_call() -> LegId {
    LegId::b(schema::id::CallId::generate(&mut Entropy::from_number(9), Timestamp(0)), 1)
}
