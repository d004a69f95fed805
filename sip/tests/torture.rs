//! Are the 49 messages of RFC 4475 answered in the class the RFC asks for, by datagram and by stream, in the core and over
//! sockets?
//!
//! `torture/NAME.sip` holds each message byte for byte as the RFC gives it: `<allOneLine>` joined, `<repeat>` written out, `<hex>` as
//! those bytes, lines ended by CRLF. We are a registrar, a user agent server and the caller's side of a B2BUA that challenges every
//! INVITE and REGISTER, for the domains of the messages.

#[path = "sockets/torture.rs"]
mod over_sockets;

use bytes::Bytes;
use schema::account::SipCredential;
use schema::edge::{CredentialLookup, EdgeCommand, EdgeEvent};
use schema::entropy::Entropy;
use schema::id::{AccountKey, CredentialId};
use schema::leg::{LegEvent, LegEventAt};
use schema::pii::Pii;
use schema::time::{Mono, Now, Timestamp};
use sip::core::{Advertised, Core, CoreConfig, Input, Output};
use sip::digest::{Algorithm, Challenge, Scheme, ha1};
use sip::flow::{ConnectionId, Flow, Protocol};
use sip::guard::GuardLimits;
use sip::message::{Frame, Framer, HeaderName, Message, ParseError};
use std::net::SocketAddr;

/// What is sent back: status codes in order.
type Answers = &'static [u16];

/// Section, name, answers by datagram, answers by stream where they differ, why.
const MESSAGES: &[(&str, &str, Answers, Option<Answers>, &str)] = &[
    ("3.1.1.1", "wsinv", &[481], None, "valid; its To has a tag, and there is no such dialog"),
    ("3.1.1.2", "intmeth", &[501], None, "valid; a method that nobody knows"),
    ("3.1.1.3", "esc01", &[407], None, "valid"),
    ("3.1.1.4", "escnull", &[401], None, "valid"),
    ("3.1.1.5", "esc02", &[501], None, "valid; the escaped method is none of ours"),
    ("3.1.1.6", "lwsdisp", &[200], None, "valid"),
    ("3.1.1.7", "longreq", &[407], None, "valid; no branch, so matched as RFC 2543 does"),
    (
        "3.1.1.8",
        "dblreq",
        &[401],
        Some(&[401, 400]),
        "a datagram's surplus is ignored, a stream goes on with it: an INVITE without Contact",
    ),
    ("3.1.1.9", "semiuri", &[200], None, "valid"),
    ("3.1.1.10", "transports", &[200], None, "valid"),
    ("3.1.1.11", "mpart01", &[405], None, "valid; MESSAGE is not ours"),
    ("3.1.1.12", "unreason", &[], None, "valid; a response to nothing we sent is dropped"),
    ("3.1.1.13", "noreason", &[], None, "valid; a response to nothing we sent is dropped"),
    ("3.1.2.1", "badinv01", &[400], None, ""),
    ("3.1.2.2", "clerr", &[400], Some(&[]), "a stream waits for the rest of the body"),
    ("3.1.2.3", "ncl", &[400], None, "a stream is closed then"),
    ("3.1.2.4", "scalar02", &[400], None, ""),
    ("3.1.2.5", "scalarlg", &[], None, "a broken response is dropped"),
    ("3.1.2.6", "quotbal", &[400], None, ""),
    ("3.1.2.7", "ltgtruri", &[400], None, ""),
    ("3.1.2.8", "lwsruri", &[400], None, ""),
    ("3.1.2.9", "lwsstart", &[400], None, ""),
    ("3.1.2.10", "trws", &[400], None, ""),
    ("3.1.2.11", "escruri", &[400], None, ""),
    ("3.1.2.12", "baddate", &[407], None, "the RFC allows to ignore a Date that one does not use"),
    ("3.1.2.13", "regbadct", &[400], None, ""),
    ("3.1.2.14", "badaspec", &[400], None, "the RFC allows to mend it too"),
    ("3.1.2.15", "baddn", &[400], None, "the RFC allows to mend it too"),
    ("3.1.2.16", "badvers", &[505], None, ""),
    ("3.1.2.17", "mismatch01", &[400], None, ""),
    ("3.1.2.18", "mismatch02", &[400], None, "the RFC has 400 or 501; the syntax comes first"),
    ("3.1.2.19", "bigcode", &[], Some(&[]), "a broken response is dropped; a stream is closed then"),
    ("3.2.1", "badbranch", &[200], None, "an empty branch: matched as RFC 2543 does, as the RFC allows"),
    ("3.3.1", "insuf", &[400], None, "without Call-ID, From and To, as it came"),
    ("3.3.2", "unkscm", &[416], None, ""),
    ("3.3.3", "novelsc", &[416], None, ""),
    ("3.3.4", "unksm2", &[404], None, "no such address-of-record in any domain of ours"),
    ("3.3.5", "bext01", &[420], None, "Unsupported lists all four"),
    ("3.3.6", "invut", &[415], None, "with Accept"),
    ("3.3.7", "regaut01", &[401], None, "credentials of an unknown scheme are none"),
    ("3.3.8", "multi01", &[400], None, ""),
    ("3.3.9", "mcl01", &[400], None, "a stream is closed then"),
    ("3.3.10", "bcast", &[], None, "we are no proxy: nothing is sent to 255.255.255.255"),
    ("3.3.11", "zeromf", &[200], None, "we are its destination"),
    ("3.3.12", "cparam01", &[401], None, "valid; see the test of the bindings"),
    ("3.3.13", "cparam02", &[401], None, "valid; see the test of the bindings"),
    ("3.3.14", "regescrt", &[401], None, "valid"),
    ("3.3.15", "sdp01", &[406], None, "an answer could hold no session description"),
    ("3.4.1", "inv2543", &[400], None, "no Contact: our dialogs need one; the RFC leaves RFC 2543 to who wants it"),
];

fn read(name: &str) -> Bytes {
    let path = format!("{}/tests/torture/{name}.sip", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}")).into()
}

fn source() -> SocketAddr {
    ([192, 0, 2, 1], 5060).into()
}

fn credential(username: &str) -> SipCredential {
    SipCredential {
        id: CredentialId::generate(&mut Entropy::from_number(2), Timestamp(0)),
        account: AccountKey(1),
        username: username.into(),
        label: Pii::new(String::new()),
        secret: Pii::new(ha1(username, "example.com", "secret")),
        created_at: Timestamp(0),
    }
}

const NOW: Now = Now { mono: Mono(1_000_000), wall: Timestamp(1_700_000_000_000_000) };

fn config() -> CoreConfig {
    let ours = |port| Some(Advertised { host: "192.0.2.200".into(), port });
    let hosts = ["example.net", "example.org", "company.com", "chair-dnrc.example.com", "registrar.example.com"];
    CoreConfig {
        domain: "example.com".into(),
        other_hosts: hosts.map(Into::into).to_vec(),
        digest: vec![Algorithm::Sha256, Algorithm::Md5],
        udp: ours(5060),
        tcp: ours(5060),
        tls: ours(5061),
        v6: Default::default(),
        sdp_address: source().ip(),
        plain_customers: true,
        dialog_probe: std::time::Duration::from_secs(30),
        legs_max: 10,
        calls_per_second: 10_000,
        bounds_waiting: true,
        transactions_max: 10,
        lookups_max: 10,
        guard: GuardLimits::default(),
    }
}

/// An edge of one connection, and what it sent.
struct Edge {
    core: Core,
    flow: Flow,
    sent: Vec<Message>,
    dialled: Vec<String>,
}

impl Edge {
    fn new(protocol: Protocol) -> Self {
        let connection = protocol.is_reliable().then_some(ConnectionId(1));
        Self {
            core: Core::new(config(), Entropy::from_number(1)).expect("a realm"),
            flow: Flow { protocol, peer: source(), connection },
            sent: Vec::new(),
            dialled: Vec::new(),
        }
    }

    fn message(&mut self, message: Message) {
        self.core.handle(Input::Message(self.flow, message.with_source(source())), NOW);
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Send(_, bytes) => self.sent.push(Message::parse_datagram(&bytes).expect("our own")),
                Output::Edge(EdgeEvent::CredentialWanted { ticket, username }) => {
                    let found = CredentialLookup::Found(Box::new(credential(&username)));
                    self.core.handle(Input::Edge(EdgeCommand::Credential { ticket, found }), NOW);
                }
                Output::Leg(LegEventAt { event: LegEvent::Invited(invited), .. }) => {
                    self.dialled.push(invited.dialled.expose().clone());
                }
                Output::Leg(LegEventAt { event: LegEvent::Cancelled { .. }, .. })
                | Output::Edge(EdgeEvent::BindingChanged(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The message again, with credentials for the challenge that answered it.
    fn again_as(&mut self, bytes: &Bytes, username: &str) -> Message {
        let challenge = self.sent.pop().as_ref().and_then(Challenge::best_of).expect("a challenge");
        let text = std::str::from_utf8(bytes).expect("text");
        let (method, _) = text.split_once(' ').expect("a request");
        let answer = challenge.answer(username, "secret", method, "sip:example.com", "cnonce", 1);
        let name = if challenge.scheme() == Scheme::Www { "Authorization" } else { "Proxy-Authorization" };
        let text = text.replacen("\r\n\r\n", &format!("\r\n{name}: {answer}\r\n\r\n"), 1);
        self.message(Message::parse_datagram(&text.into()).expect("still valid"));
        self.sent.pop().expect("an answer")
    }

    /// What the transports do with it.
    fn refused(&mut self, error: &ParseError) -> Option<u16> {
        let answer = error.answer(source(), "tag")?;
        let status = std::str::from_utf8(&answer).expect("text").get(8..11).expect("a status");
        Some(status.parse().expect("a status"))
    }

    fn datagram(mut self, bytes: &Bytes) -> (Vec<u16>, Self) {
        let refused = match Message::parse_datagram(bytes) {
            Ok(message) => {
                self.message(message);
                None
            }
            Err(error) => self.refused(&error),
        };
        (self.statuses().into_iter().chain(refused).collect(), self)
    }

    /// In segments of this size.
    fn stream(mut self, bytes: &Bytes, segment: usize) -> Vec<u16> {
        let (mut framer, mut answers) = (Framer::new(), Vec::new());
        for part in bytes.chunks(segment) {
            framer.push(part);
            loop {
                match framer.next_frame() {
                    Ok(None) => break,
                    Ok(Some(Frame::Ping)) => {}
                    Ok(Some(Frame::Message(message))) => {
                        self.sent.clear();
                        self.message(message);
                        answers.extend(self.statuses());
                    }
                    Ok(Some(Frame::Refused(error))) => answers.extend(self.refused(&error)),
                    Err(error) => {
                        answers.extend(self.refused(&error));
                        return answers;
                    }
                }
            }
        }
        answers
    }

    fn statuses(&self) -> Vec<u16> {
        self.sent.iter().filter_map(Message::status).collect()
    }
}

#[test]
fn all_49_messages_are_answered_in_the_class_the_rfc_asks_for() {
    assert_eq!(MESSAGES.len(), 49);
    let mut wrong = Vec::new();
    for &(section, name, datagram, stream, why) in MESSAGES {
        let bytes = read(name);
        let (answers, edge) = Edge::new(Protocol::Udp).datagram(&bytes);
        let mut check = |over: &str, answers: &[u16], expected: Answers| {
            if answers != expected {
                wrong.push(format!("§{section} {name} over {over}: {answers:?}, expected {expected:?} ({why})"));
            }
        };
        check("UDP", &answers, datagram);
        for protocol in [Protocol::Tcp, Protocol::Tls] {
            for segment in [1, 7, bytes.len()] {
                let answers = Edge::new(protocol).stream(&bytes, segment);
                check(protocol.via().as_str(), &answers, stream.unwrap_or(datagram));
            }
        }
        let counts = edge.core.counts();
        assert_eq!((counts.server_transactions, counts.legs, counts.lookups), (0, 0, 0), "{name} left state behind");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn refusals_say_what_would_be_accepted() {
    let answer = |name| Edge::new(Protocol::Udp).datagram(&read(name)).1.sent.pop().expect("an answer");
    let unsupported = answer("bext01");
    let listed: Vec<_> = unsupported.values(HeaderName::Unsupported).map(|tag| tag.expect("a tag")).collect();
    let all =
        ["nothingSupportsThis", "nothingSupportsThisEither", "noProxiesSupportThis", "norDoAnyProxiesSupportThis"];
    assert_eq!(listed, all);
    assert_eq!(answer("invut").text(HeaderName::Accept), Some("application/sdp"));
    for name in ["intmeth", "esc02", "mpart01"] {
        assert!(answer(name).allow().any(|method| method == "INVITE"), "{name}");
    }
}

/// Behind the challenge: a valid INVITE is a call for what its Request-URI says, escapes decoded.
#[test]
fn a_valid_invite_with_credentials_is_a_call() {
    let cases = [("esc01", "sips:user@example.com"), ("longreq", "user"), ("baddate", "user")];
    for (name, dialled) in cases {
        let bytes = read(name);
        let (_, mut edge) = Edge::new(Protocol::Udp).datagram(&bytes);
        assert_eq!(edge.again_as(&bytes, "alice").status(), Some(100), "{name}");
        assert_eq!(edge.dialled, [dialled], "{name}");
        assert_eq!(edge.core.counts().legs, 1, "{name}");
    }
}

/// Behind the challenge: `unknownparam` is the Contact's in §3.3.12 and the URI's in §3.3.13.
#[test]
fn a_valid_register_with_credentials_binds_what_its_contact_says() {
    let cases = [
        ("escnull", "alice", 403, None),
        ("dblreq", "j.user", 200, Some("<sip:j.user@host.example.com>")),
        ("regaut01", "j.user", 200, None),
        ("cparam01", "watson", 200, Some("<sip:+19725552222@gw1.example.net>")),
        ("cparam02", "watson", 200, Some("<sip:+19725552222@gw1.example.net;unknownparam>")),
        ("regescrt", "user", 200, Some("<sip:user@example.com?Route=%3Csip:sip.example.com%3E>")),
    ];
    for (name, username, status, contact) in cases {
        let bytes = read(name);
        let whole = bytes.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 4;
        let (_, mut edge) = Edge::new(Protocol::Udp).datagram(&bytes);
        let answer = edge.again_as(&bytes.slice(..whole), username);
        assert_eq!(answer.status(), Some(status), "{name}");
        let bound: Vec<_> = answer.values(HeaderName::Contact).map(|value| value.expect("a value")).collect();
        match contact {
            Some(contact) => assert!(bound.len() == 1 && bound[0].starts_with(contact), "{name}: {bound:?}"),
            None => assert!(bound.is_empty(), "{name}: {bound:?}"),
        }
    }
}

/// The INVITE of §3.1.1.7 has no branch: what RFC 2543 matches by finds its repetition, its CANCEL and its ACK (RFC 3261 §17.2.3).
#[test]
fn a_client_of_rfc_2543_is_matched_without_a_branch() {
    let bytes = read("longreq");
    let (_, mut edge) = Edge::new(Protocol::Udp).datagram(&bytes);
    let challenge = Challenge::best_of(&edge.sent.pop().expect("an answer")).expect("a challenge");
    let answer = challenge.answer("alice", "secret", "INVITE", "sip:example.com", "cnonce", 1);
    let text = std::str::from_utf8(&bytes).expect("text");
    let invite = text.replacen("\r\n\r\n", &format!("\r\nProxy-Authorization: {answer}\r\n\r\n"), 1);
    let mut give = |text: &str| {
        edge.sent.clear();
        edge.message(Message::parse_datagram(&Bytes::copy_from_slice(text.as_bytes())).expect("valid"));
        (edge.statuses(), edge.dialled.len())
    };
    assert_eq!(give(&invite), (vec![100], 1));
    assert_eq!(give(&invite), (vec![100], 1), "the same call");
    let head = invite.split("Content-Type").next().expect("a head").to_owned() + "l: 0\r\n\r\n";
    let of_method = |method: &str| {
        head.replacen("INVITE sip", &format!("{method} sip"), 1).replace("3882340 INVITE", &format!("3882340 {method}"))
    };
    assert_eq!(give(&of_method("CANCEL").replace("3882340", "3882341")), (vec![481], 1), "of another INVITE");
    assert_eq!(give(&of_method("CANCEL")), (vec![200, 487], 1));
    assert_eq!(give(&invite), (vec![487], 1), "until its ACK");
    assert_eq!(give(&of_method("ACK")), (vec![], 1));
    assert_eq!(give(&invite), (vec![], 1), "the ACK ended it");
}
