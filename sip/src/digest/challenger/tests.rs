//! A phone answers our challenges, well and badly.

use super::super::{Challenge, ha1};
use super::*;
use crate::message::{Method, NameAddr, RequestBuilder, ResponseBuilder, Transport, Via};

const S: u64 = 1_000_000;

fn origin() -> Origin {
    Origin::Address(IpAddr::from([192, 0, 2, 9]))
}

fn request(authorization: Option<&str>) -> Message {
    let uri = Uri::parse("sip:+447700900123@ringfence.example").expect("a URI");
    let via = Via::new(Transport::Udp, "192.0.2.9", None, "z9hG4bKa").expect("a Via");
    let to = NameAddr::new(uri.clone());
    let mut builder = RequestBuilder::new(Method::Message, uri).via(&via).from(&to).to(&to).call_id("c").cseq(1);
    if let Some(text) = authorization {
        builder = builder.header(Scheme::Proxy.credentials_header(), &text);
    }
    Message::parse_datagram(&builder.build().expect("built")).expect("readable")
}

struct World {
    entropy: Entropy,
    challenger: Challenger,
    ha1: Ha1,
}

impl World {
    fn new() -> Self {
        let mut entropy = Entropy::from_number(5);
        let challenger =
            Challenger::new(&mut entropy, "ringfence.example", &["127.0.0.1"], &[Algorithm::Sha256, Algorithm::Md5])
                .expect("a realm");
        Self { entropy, challenger, ha1: ha1("alice", "ringfence.example", "secret") }
    }

    fn challenges(&mut self, now: Mono, stale: bool, skip: usize) -> Message {
        let values = self.challenger.challenge(&mut self.entropy, now, origin(), stale);
        let mut builder = ResponseBuilder::to_request(&request(None), 407, Some("t"));
        for value in values.iter().skip(skip) {
            builder = builder.header(Scheme::Proxy.challenge_header(), value);
        }
        Message::parse_datagram(&builder.build().expect("built")).expect("readable")
    }

    fn challenge(&mut self, now: Mono) -> Challenge {
        Challenge::best_of(&self.challenges(now, false, 0)).expect("a challenge")
    }

    fn check(&mut self, authorization: &str, now: Mono) -> Result<(), Refusal> {
        let claim = self.challenger.claim(&request(Some(authorization)), Scheme::Proxy, origin(), now)?;
        let known = (claim.username() == "alice").then_some(self.ha1);
        self.challenger.verify(&claim, known.as_ref(), now)
    }
}

const URI: &str = "sip:ringfence.example";

fn answer(challenge: &Challenge, nc: u32) -> String {
    challenge.answer("alice", "secret", "MESSAGE", URI, "cn", nc)
}

#[test]
fn a_right_answer_passes_once_with_either_algorithm() {
    let mut world = World::new();
    let best = world.challenge(Mono(S));
    assert_eq!((best.algorithm(), best.scheme(), best.realm()), ("SHA-256", Scheme::Proxy, "ringfence.example"));
    assert_eq!(world.check(&answer(&best, 1), Mono(2 * S)), Ok(()));
    assert_eq!(world.check(&answer(&best, 1), Mono(2 * S)), Err(Refusal::Replayed));
    assert_eq!(world.check(&answer(&best, 2), Mono(2 * S)), Ok(()));
    let md5 = Challenge::best_of(&world.challenges(Mono(3 * S), false, 1)).expect("the second challenge");
    let text = answer(&md5, 1);
    assert_eq!(world.check(&text.replace(", algorithm=MD5", ""), Mono(3 * S)), Ok(()));
    assert_eq!(world.challenger.counted_nonces(), 2);
}

#[test]
fn a_wrong_secret_and_an_unknown_user_look_the_same() {
    let mut world = World::new();
    let challenge = world.challenge(Mono(S));
    for (user, password) in [("alice", "wrong"), ("bob", "secret"), ("bob", "wrong")] {
        let text = challenge.answer(user, password, "MESSAGE", URI, "cn", 1);
        assert_eq!(world.check(&text, Mono(S)), Err(Refusal::Wrong));
    }
    assert_eq!(world.challenger.counted_nonces(), 0);
}

#[test]
fn a_nonce_dies_after_its_life_with_its_key_and_elsewhere() {
    let mut world = World::new();
    let challenge = world.challenge(Mono(10 * S));
    assert_eq!(world.check(&answer(&challenge, 1), Mono(70 * S)), Ok(()));
    assert_eq!(world.check(&answer(&challenge, 2), Mono(71 * S)), Err(Refusal::Stale));
    let fresh = world.challenge(Mono(71 * S));
    let elsewhere = Origin::Connection(7);
    let message = request(Some(&answer(&fresh, 1)));
    assert_eq!(world.challenger.claim(&message, Scheme::Proxy, elsewhere, Mono(71 * S)).err(), Some(Refusal::Stale));
    world.challenger.rotate(&mut world.entropy);
    assert_eq!(world.check(&answer(&fresh, 1), Mono(71 * S)), Err(Refusal::Stale));
    assert!(Refusal::Stale.is_stale());
    assert!(Challenge::best_of(&world.challenges(Mono(S), true, 0)).expect("a challenge").is_stale());
}

#[test]
fn every_day_nonces_are_made_with_a_new_key() {
    let mut world = World::new();
    let (first, day) = (world.challenge(Mono(S)), 86_400);
    let last = world.challenge(Mono(day * S));
    assert_eq!(world.check(&answer(&last, 1), Mono((day + 1) * S)), Ok(()));
    // The next one is made with another.
    let _ = world.challenge(Mono((day + 1) * S));
    assert_eq!(world.check(&answer(&last, 2), Mono((day + 1) * S)), Err(Refusal::Stale));
    let next = world.challenge(Mono((day + 2) * S));
    assert_eq!(world.check(&answer(&next, 1), Mono((day + 2) * S)), Ok(()));
    assert_eq!(world.check(&answer(&first, 1), Mono((day + 2) * S)), Err(Refusal::Stale));
}

#[test]
fn the_digest_uri_may_differ_in_its_user_only() {
    let mut world = World::new();
    let challenge = world.challenge(Mono(S));
    for (nc, (uri, expected)) in [
        ("sip:anybody@RINGFENCE.example:5060", Ok(())),
        ("sip:127.0.0.1:5070", Ok(())),
        ("sip:+447700900123@evil.example", Err(Refusal::ForeignUri)),
        ("/dir/index.html", Err(Refusal::Malformed)),
        ("tel:+447700900123", Err(Refusal::ForeignUri)),
    ]
    .into_iter()
    .enumerate()
    {
        let nc = u32::try_from(nc).expect("small") + 1;
        assert_eq!(
            world.check(&challenge.answer("alice", "secret", "MESSAGE", uri, "cn", nc), Mono(S)),
            expected,
            "{uri}"
        );
    }
    // The digest is over the method of the request that carries it.
    assert_eq!(world.check(&challenge.answer("alice", "secret", "INVITE", URI, "cn", 9), Mono(S)), Err(Refusal::Wrong));
}

#[test]
fn credentials_are_read_strictly() {
    let mut world = World::new();
    let good = answer(&world.challenge(Mono(S)), 1);
    let cases = [
        (good.replace("Digest", "Basic"), Refusal::Absent),
        (good.replace("realm=\"ringfence", "realm=\"elsewhere"), Refusal::Absent),
        (good.replace("qop=auth", "qop=auth-int"), Refusal::Unsupported),
        (good.replace(", qop=auth", ""), Refusal::Unsupported),
        (good.replace("SHA-256", "SHA-256-sess"), Refusal::Unsupported),
        (good.replace("SHA-256", "SHA-512-256"), Refusal::Unsupported),
        (good.replace("qop=auth", "qop=auth, userhash=true"), Refusal::Unsupported),
        (good.replace("nc=00000001", "nc=1"), Refusal::Malformed),
        (good.replace("nc=00000001", "nc=0000000g"), Refusal::Malformed),
        (good.replace("nc=00000001", "nc=+0000001"), Refusal::Malformed),
        (good.replace("cnonce=\"cn\"", "cnonce=\"\""), Refusal::Malformed),
        (good.replace("username=\"alice\"", "username=\"\""), Refusal::Malformed),
        (good.replace("username=\"alice\"", &format!("username=\"{}\"", "a".repeat(65))), Refusal::Malformed),
        (good.replace("username=\"alice\", ", ""), Refusal::Malformed),
        (good.replace("username=\"alice\"", "username=\"alice\", username=\"bob\""), Refusal::Malformed),
        (good.replace("nonce=\"", "nonce=\"x"), Refusal::Stale),
        (good.replace("response=\"", "response=\"zz"), Refusal::Malformed),
        (good.replace("nc=00000001", "nc=00000002"), Refusal::Wrong),
    ];
    for (text, expected) in cases {
        assert_eq!(world.check(&text, Mono(S)), Err(expected), "{text}");
    }
    assert_eq!(world.check(&good.replace("qop=auth", "qop=\"auth\""), Mono(S)), Ok(()));
    let none = world.challenger.claim(&request(None), Scheme::Proxy, origin(), Mono(S)).err();
    assert_eq!((none, Refusal::Absent.status(), Refusal::Malformed.status()), (Some(Refusal::Absent), None, Some(400)));
}

#[test]
fn two_credentials_of_our_realm_are_refused() {
    let mut world = World::new();
    let good = answer(&world.challenge(Mono(S)), 1);
    let to = NameAddr::new(Uri::parse(URI).expect("a URI"));
    let via = Via::new(Transport::Udp, "192.0.2.9", None, "z9hG4bKa").expect("a Via");
    let name = Scheme::Proxy.credentials_header();
    let built = RequestBuilder::new(Method::Message, to.uri.clone()).via(&via).from(&to).to(&to).call_id("c").cseq(1);
    let built = built.header(name, &good).header(name, &good).build().expect("built");
    let message = Message::parse_datagram(&built).expect("readable");
    let refusal = world.challenger.claim(&message, Scheme::Proxy, origin(), Mono(S)).err();
    assert_eq!(refusal, Some(Refusal::Malformed));
}

#[test]
fn a_realm_cannot_break_out_of_its_quotes() {
    for realm in ["", "a\"b", "a\\b", "a\r\nb"] {
        assert!(
            Challenger::new(&mut Entropy::from_number(1), realm, &[], &[Algorithm::Sha256, Algorithm::Md5]).is_err()
        );
    }
}
