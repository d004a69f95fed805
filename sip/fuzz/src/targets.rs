//! What each fuzz target feeds to the code, and what must hold whatever it is fed. `sip/tests/corpus.rs` runs the same targets
//! over the corpora, so that what fuzzing found once is tried by every test run.

use bytes::Bytes;
use schema::account::Ha1;
use schema::edge::{CredentialLookup, EdgeCommand, EdgeEvent};
use schema::entropy::Entropy;
use schema::leg::{LegCommand, LegEvent, LegEventAt};
use schema::time::{Mono, Now, Timestamp};
use sip::core::{Advertised, Core, CoreConfig, Input, Output};
use sip::digest::{Algorithm, Challenge, Challenger, Origin, Scheme};
use sip::flow::{ConnectionId, Flow, Protocol};
use sip::guard::GuardLimits;
use sip::message::{
    Frame, Framer, Glance, HeaderName, Message, Method, NameAddr, Params, ParseError, ResponseBuilder, Uri, Via,
    acknowledged,
};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Name and function.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// All of them.
pub(crate) const ALL: &[Target] = &[
    ("message", message),
    ("uri", uri),
    ("sdp", sdp),
    ("authorization", authorization),
    ("framing", framing),
    ("core", core),
];

fn source() -> SocketAddr {
    ([192, 0, 2, 9], 4321).into()
}

fn now() -> Now {
    Now { mono: Mono(1_000_000_000), wall: Timestamp(1_700_000_000_000_000) }
}

/// A message read can be looked at from all sides and answered, and what we write can be read; a refused one is answered by
/// one message at most.
fn message(data: &[u8]) {
    match Message::parse_datagram(&Bytes::copy_from_slice(data)) {
        Ok(message) => {
            let message = message.with_source(source());
            look_at(&message);
            glance_at(data, &message);
        }
        Err(error) => check_refusal(&error),
    }
}

/// What is refused at first sight, and the ACK of that, is as it would be if it had been read.
fn glance_at(data: &[u8], message: &Message) {
    if let Some(tag) = acknowledged(data) {
        assert!(message.is_ack() && message.to_tag() == Some(tag));
    }
    if let Some(glance) = Glance::of(data) {
        assert!(*message.method() == Method::Invite && message.to_tag().is_none());
        let whole = ResponseBuilder::to_request(message, 503, Some("t")).header(HeaderName::RetryAfter, &9_u64);
        assert_eq!(glance.refusal(source(), "t", 9), whole.build().ok());
    }
}

fn look_at(message: &Message) {
    let _ = (message.contacts(), message.routes(), message.record_routes(), message.reasons().count());
    let _ = (message.allow().count(), message.require().count(), message.proxy_require().count());
    let _ = (message.supported().count(), message.expires(), message.min_expires(), message.retry_after());
    let _ = (message.max_forwards(), message.response_address(), message.sent_by());
    let _ = format!("{message:?}");
    assert!(message.cseq().0 < 1 << 31 && !message.call_id().is_empty());
    assert!(message.body().len() <= 64 * 1024);
    assert_eq!(message.from().tag(), message.from_tag());
    assert_eq!(message.to().tag(), message.to_tag());
    if message.is_request() {
        let built = ResponseBuilder::to_request(message, 200, Some("t")).record_route().build();
        let response = Message::parse_datagram(&built.expect("a message read can be answered"));
        let response = response.expect("our answer is readable");
        assert_eq!(response.vias(), message.vias());
        assert_eq!((response.call_id(), response.cseq()), (message.call_id(), message.cseq()));
        assert_eq!(response.from(), message.from());
    }
}

fn check_refusal(error: &ParseError) {
    let answer = error.answer(source(), "t");
    assert_eq!(answer.is_some(), error.can_answer());
    if let Some(answer) = answer {
        let ends = answer.windows(4).filter(|bytes| *bytes == b"\r\n\r\n").count();
        assert!(ends == 1 && answer.ends_with(b"\r\n\r\n"), "one message");
        let bare = answer.iter().enumerate().any(|(at, byte)| *byte == b'\n' && (at == 0 || answer[at - 1] != b'\r'));
        assert!(!bare, "a line end that is none of ours");
    }
}

/// What is read is written the same, and parts of it can be taken and put together again.
fn uri(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(uri) = Uri::parse(text) {
        assert_eq!(uri.as_str(), text);
        assert_eq!(Uri::parse(&uri.to_string()).as_ref(), Ok(&uri));
        let _ = (uri.user_decoded(), uri.host(), uri.port(), uri.has_headers(), format!("{uri:?}"));
        let _: Vec<_> = uri.params().collect();
        if let Ok(more) = uri.with_param("lr", None) {
            assert_eq!(more.param("lr"), Some(""));
        }
    }
    if let Ok(address) = NameAddr::parse(text) {
        assert_eq!(NameAddr::parse(&address.to_string()).as_ref(), Ok(&address));
        check_params(&address.params);
    }
    if let Ok(via) = Via::parse(text) {
        let stamped = via.stamped(source());
        assert_eq!(Via::parse(&stamped.to_string()).map(|via| via.to_string()), Ok(stamped.to_string()));
        check_params(&stamped.params);
    }
}

fn check_params(params: &Params) {
    for (name, value) in params.iter() {
        assert!(!name.is_empty() && value != Some(""));
        assert!(params.value(name).is_some() && params.unquoted(name).is_some());
    }
}

/// What we write of a description can be read, has as many media, and written again is the same.
fn sdp(data: &[u8]) {
    let ours = IpAddr::from([198, 51, 100, 1]);
    let Ok(read) = sip::sdp::Description::parse(data) else { return };
    let write = |description: &sip::sdp::Description| {
        let origin = sip::sdp::Origin { id: 1, version: 1 };
        description.rewrite(origin, ours, sip::sdp::Keys::Pass, |_, _| sip::sdp::Placement::AsGiven)
    };
    let once = write(&read);
    let again = sip::sdp::Description::parse(once.as_bytes()).expect("what we write can be read");
    assert_eq!(again.media.len(), read.media.len());
    assert_eq!(write(&again), once);
}

/// Credentials and challenges of any form are refused or read, never more.
fn authorization(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut entropy = Entropy::from_number(1);
    let algorithms = [Algorithm::Sha256, Algorithm::Md5];
    let Ok(mut challenger) = Challenger::new(&mut entropy, "example.com", &["example.com"], &algorithms) else {
        return;
    };
    let origin = Origin::Address(source().ip());
    let offered = challenger.challenge(&mut entropy, now().mono, origin, false);
    // A nonce of ours in the place of `@`, so that what stands behind it is reached.
    let nonce = offered[0].split("nonce=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
    let text = text.replace('@', nonce);
    let request = format!(
        "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKa\r\nFrom: <sip:a@example.com>;tag=1\r\n\
         To: <sip:a@example.com>\r\nCall-ID: c\r\nCSeq: 1 REGISTER\r\nAuthorization: {text}\r\nContent-Length: 0\r\n\r\n"
    );
    if let Ok(request) = Message::parse_datagram(&Bytes::from(request))
        && let Ok(claim) = challenger.claim(&request, Scheme::Www, origin, now().mono)
    {
        assert!(challenger.verify(&claim, Some(&Ha1 { md5: [0; 16], sha256: [0; 32] }), now().mono).is_err());
        assert!(challenger.verify(&claim, None, now().mono).is_err());
    }
    let response = format!(
        "SIP/2.0 401 Unauthorized\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKa\r\nFrom: <sip:a@example.com>;tag=1\r\n\
         To: <sip:a@example.com>;tag=2\r\nCall-ID: c\r\nCSeq: 1 REGISTER\r\nWWW-Authenticate: {text}\r\nContent-Length: 0\r\n\r\n"
    );
    if let Ok(response) = Message::parse_datagram(&Bytes::from(response))
        && let Some(challenge) = Challenge::best_of(&response)
    {
        let answer = challenge.answer("alice", "secret", "REGISTER", "sip:example.com", "c", 1);
        assert!(!answer.contains(['\r', '\n']));
    }
}

/// What a stream holds does not depend on where its segments end. The first byte is the seed of the cuts.
fn framing(data: &[u8]) {
    let Some((&seed, stream)) = data.split_first() else { return };
    let mut whole = Framer::new();
    whole.push(stream);
    let expected = frames(&mut whole);
    let mut entropy = Entropy::from_number(u64::from(seed));
    let (mut framer, mut seen, mut rest) = (Framer::new(), Vec::new(), stream);
    while !rest.is_empty() {
        let most = if seed % 2 == 0 { 3 } else { 64 };
        let (segment, behind) = rest.split_at(rest.len().min(1 + entropy.below(most) as usize));
        rest = behind;
        framer.push(segment);
        seen.extend(frames(&mut framer));
        if seen.last().is_some_and(|last| last.starts_with("lost")) {
            break;
        }
    }
    assert_eq!(seen, expected);
}

fn frames(framer: &mut Framer) -> Vec<String> {
    let mut out = Vec::new();
    loop {
        match framer.next_frame() {
            Ok(None) => return out,
            Ok(Some(Frame::Message(message))) => {
                out.push(format!("{} {} {:?}", message.method(), message.call_id(), message.body()));
            }
            Ok(Some(Frame::Refused(error))) => {
                check_refusal(&error);
                out.push(format!("refused {}", error.problem));
            }
            Ok(Some(Frame::Ping)) => out.push("ping".to_owned()),
            Err(error) => {
                check_refusal(&error);
                out.push(format!("lost {}", error.problem));
                return out;
            }
        }
    }
}

fn config() -> CoreConfig {
    let ours = |port| Some(Advertised { host: "127.0.0.1".into(), port });
    CoreConfig {
        domain: "example.com".into(),
        other_hosts: Vec::new(),
        digest: vec![Algorithm::Sha256, Algorithm::Md5],
        udp: ours(5060),
        tcp: ours(5060),
        tls: ours(5061),
        v6: Default::default(),
        sdp_address: IpAddr::from([127, 0, 0, 1]),
        plain_customers: true,
        dialog_probe: std::time::Duration::from_secs(30),
        legs_max: 4,
        calls_per_second: 10_000,
        bounds_waiting: true,
        transactions_max: 16,
        lookups_max: 2,
        guard: GuardLimits::default(),
    }
}

/// Messages into the whole edge, between NUL bytes, from a phone that knows its password: `@auth` in a message becomes good
/// credentials, `@tag` the To-tag of the last answer. Every message written can be read, and the tables stay in their limits.
fn core(data: &[u8]) {
    let Ok(core) = Core::new(config(), Entropy::from_number(7)) else { return };
    let mut phone = PhoneSide { core, now: now(), challenge: None, tag: String::new(), nc: 0 };
    for (number, text) in data.split(|byte| *byte == 0).take(8).enumerate() {
        let flow = match number % 4 {
            0 | 1 => Flow::udp(source()),
            2 => Flow { protocol: Protocol::Tcp, peer: source(), connection: Some(ConnectionId(1)) },
            _ => Flow { protocol: Protocol::Tls, peer: source(), connection: Some(ConnectionId(2)) },
        };
        match Message::parse_datagram(&phone.completed(text)) {
            Ok(message) => phone.give(Input::Message(flow, message.with_source(source()))),
            Err(error) => check_refusal(&error),
        }
        phone.pass(Duration::from_millis(100));
    }
    phone.pass(Duration::from_secs(40));
    let counts = phone.core.counts();
    assert!(counts.server_transactions <= 16 && counts.legs <= 4 && counts.lookups <= 2);
}

/// The edge, and what its phone knows.
struct PhoneSide {
    core: Core,
    now: Now,
    challenge: Option<Challenge>,
    tag: String,
    nc: u32,
}

impl PhoneSide {
    fn completed(&mut self, text: &[u8]) -> Bytes {
        let (Ok(text), Some(challenge)) = (std::str::from_utf8(text), &self.challenge) else {
            return Bytes::copy_from_slice(text);
        };
        self.nc += 1;
        let method = text.split(' ').next().unwrap_or_default();
        let header = if challenge.scheme() == Scheme::Www { "Authorization" } else { "Proxy-Authorization" };
        let answer = challenge.answer("alice", "secret", method, "sip:example.com", "c", self.nc);
        Bytes::from(text.replacen("@auth", &format!("{header}: {answer}"), 1).replacen("@tag", &self.tag, 1))
    }

    fn give(&mut self, input: Input) {
        self.core.handle(input, self.now);
        for _ in 0..256 {
            let Some(output) = self.core.poll_output() else { return };
            self.take(output);
        }
        panic!("one input has no more than 256 outputs");
    }

    fn take(&mut self, output: Output) {
        match output {
            Output::Send(_, bytes) | Output::SendTo(_, bytes) => {
                let message = Message::parse_datagram(&bytes).expect("what we send can be read");
                self.challenge = Challenge::best_of(&message).or(self.challenge.take());
                if let Some(tag) = message.to_tag() {
                    self.tag = tag.to_owned();
                }
            }
            Output::Edge(EdgeEvent::CredentialWanted { ticket, .. }) => {
                let found = CredentialLookup::Found(Box::new(credential()));
                self.core.handle(Input::Edge(EdgeCommand::Credential { ticket, found }), self.now);
            }
            Output::Leg(LegEventAt { event: LegEvent::Invited(invited), .. }) => {
                let accept = LegCommand::Accept { leg: invited.leg, sdp: invited.offer };
                self.core.handle(Input::Leg(accept), self.now);
            }
            _ => {}
        }
    }

    fn pass(&mut self, by: Duration) {
        let end = self.now.mono + by;
        for _ in 0..64 {
            let Some(next) = self.core.next_timeout().filter(|next| *next <= end) else { break };
            let at = next.max(self.now.mono);
            self.now = self.now.after(at.since(self.now.mono));
            self.give(Input::Timeout);
        }
        self.now = self.now.after(end.since(self.now.mono));
    }
}

fn credential() -> schema::account::SipCredential {
    schema::account::SipCredential {
        id: schema::id::CredentialId::generate(&mut Entropy::from_number(1), Timestamp(0)),
        account: schema::id::AccountKey(1),
        username: "alice".into(),
        label: schema::pii::Pii::new(String::new()),
        secret: schema::pii::Pii::new(sip::digest::ha1("alice", "example.com", "secret")),
        created_at: Timestamp(0),
    }
}
