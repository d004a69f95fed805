//! Mischief before the answer: reliable provisional responses that nobody acknowledges, sessions that change, forks.

use super::{Leg, Mischief, Out, respond};
use crate::sim::tally::Tally;
use bytes::Bytes;
use schema::entropy::Entropy;
use sip::message::{HeaderName, Message, Method, NameAddr, RequestBuilder, ResponseBuilder, Transport, Uri, Via};
use sip::sdp::{self, Origin};
use std::time::Duration;

/// Tag of a fork that rings with a session of its own.
const FORK: &str = "otherfork";
/// RSeq of what is added to the carrier's own, which has 1.
const SECOND: u32 = 2;
const OF_FORK: u32 = 50;
/// When something is sent that is repeated until it is answered, as far as that takes (RFC 3261 §17.1.2).
const REPEATS_MS: [u64; 3] = [0, 500, 1_500];

/// What the early dialogs of a carrier's leg have come to.
#[derive(Default)]
pub(super) struct Early {
    /// The carrier's own tag, once its fork answers in its place.
    replaced: Option<Box<str>>,
    will_replace: bool,
    /// The phone's PRACK that waits for its CANCEL.
    held: Option<Bytes>,
}

/// A message reaches a carrier: as [`super::Mischiefs::at_carrier`].
pub(super) fn at_carrier(
    leg: &mut Leg,
    message: &Message,
    entropy: &mut Entropy,
    out: &mut Out,
    tally: &mut Tally,
) -> bool {
    let is_prack = message.is_request() && *message.method() == Method::Prack;
    match leg.mischief {
        Mischief::IgnoresPracks | Mischief::GivesUpSilently if is_prack => {
            tally.add_if(leg.mischief.name(), leg.mischief == Mischief::IgnoresPracks);
            false
        }
        // What is said to its own UPDATE.
        Mischief::OffersEarly if !message.is_request() && *message.method() == Method::Update => false,
        Mischief::SecondSession | Mischief::RingsForked | Mischief::OffersEarly if is_prack => {
            if message.rack().is_some_and(|rack| rack.rseq > 1) {
                out.extend(respond(message, 200, None));
                return false;
            }
            if !std::mem::replace(&mut leg.done, true) {
                tally.add(leg.mischief.name());
                leg.go_on(message, entropy, out);
            }
            true
        }
        _ => true,
    }
}

/// A carrier sends a message: as [`super::Mischiefs::of_carrier`]. `status`: of a response to the INVITE.
pub(super) fn of_carrier(leg: &mut Leg, bytes: Bytes, message: &Message, status: u16, tally: &mut Tally) -> Out {
    if leg.mischief == Mischief::GivesUpSilently && status == 504 {
        tally.add_if(leg.mischief.name(), !std::mem::replace(&mut leg.done, true));
        return Out::new();
    }
    if leg.early.will_replace && status == 200 && leg.early.replaced.is_none() {
        tally.add("answers of another fork than rang first");
        leg.early.replaced = message.to_tag().map(Into::into);
    }
    let mut text = match (&leg.early.replaced, leg.mischief) {
        (Some(tag), _) => String::from_utf8_lossy(&bytes).replace(&**tag, FORK),
        // Behind its UPDATE.
        (None, Mischief::OffersEarly | Mischief::OffersTalking) if message.is_request() => {
            String::from_utf8_lossy(&bytes).into_owned()
        }
        _ => return vec![(Duration::ZERO, bytes)],
    };
    if message.is_request() {
        text = text.replace("CSeq: 1 BYE", "CSeq: 9 BYE");
    }
    vec![(Duration::ZERO, text.into())]
}

/// A phone sends a message: what is sent instead.
pub(super) fn of_phone(
    leg: &mut Leg,
    bytes: Bytes,
    message: &Message,
    entropy: &mut Entropy,
    tally: &mut Tally,
) -> Out {
    let name = leg.mischief.name();
    let is_request = |method| message.is_request() && *message.method() == method;
    match leg.mischief {
        Mischief::PracksLate if is_request(Method::Prack) => {
            tally.add(name);
            vec![(Duration::from_millis(200 + entropy.below(12_000)), bytes)]
        }
        Mischief::PracksTwice if is_request(Method::Prack) => {
            tally.add(name);
            let branch = message.branch().unwrap_or_default();
            let again = String::from_utf8_lossy(&bytes).replacen(branch, &format!("{branch}again"), 1);
            vec![(Duration::ZERO, bytes), (Duration::from_millis(entropy.below(3_000)), again.into())]
        }
        Mischief::NeverPracks if is_request(Method::Prack) => {
            tally.add(name);
            Out::new()
        }
        Mischief::PracksCancelled if is_request(Method::Prack) => {
            leg.early.held = Some(bytes);
            Out::new()
        }
        Mischief::PracksCancelled if is_request(Method::Cancel) => {
            let held = leg.early.held.take();
            tally.add_if(name, held.is_some());
            let later = Duration::from_millis(entropy.below(300));
            std::iter::once((Duration::ZERO, bytes)).chain(held.map(|prack| (later, prack))).collect()
        }
        _ => vec![(Duration::ZERO, bytes)],
    }
}

impl Leg {
    /// Its first reliable response is acknowledged.
    fn go_on(&mut self, prack: &Message, entropy: &mut Entropy, out: &mut Out) {
        let body = sdp::audio(Origin::fresh(entropy), ([203, 0, 113, 99], 9_000).into());
        let (own, later) = (prack.to_tag().unwrap_or_default(), entropy.below(1_500));
        let next = match self.mischief {
            Mischief::SecondSession => self.rings(own, SECOND, body),
            Mischief::RingsForked => {
                // Whoever has answered before goes on as who it is.
                self.early.will_replace = entropy.below(2) == 0 && !self.answered;
                self.rings(FORK, OF_FORK, body)
            }
            _ => self.offers(Method::Update, own, body, entropy),
        };
        let at = |ms| Duration::from_millis(later + ms);
        out.extend(next.iter().flat_map(|bytes| REPEATS_MS.map(|ms| (at(ms), bytes.clone()))));
    }

    fn contact(&self) -> Option<NameAddr> {
        Some(NameAddr::new(Uri::of_address(Some("carrier"), self.carrier?)))
    }

    /// A reliable 183.
    fn rings(&self, tag: &str, rseq: u32, body: String) -> Option<Bytes> {
        let response = ResponseBuilder::to_request(&self.invite, 183, Some(tag)).record_route();
        let response = response.contact(&self.contact()?).header(HeaderName::Allow, &"INVITE, ACK, PRACK, UPDATE");
        let response = response.header(HeaderName::Require, &"100rel").header(HeaderName::RSeq, &rseq);
        response.body(sdp::CONTENT_TYPE, body.into()).build().ok()
    }

    /// A re-INVITE soon after the ACK.
    pub(super) fn offers_talking(&self, ack: &Message, entropy: &mut Entropy, out: &mut Out) {
        let body = sdp::audio(Origin::fresh(entropy), ([203, 0, 113, 99], 9_000).into());
        let (own, later) = (ack.to_tag().unwrap_or_default(), entropy.below(3_000));
        let invite = self.offers(Method::Invite, own, body, entropy);
        let at = |ms| Duration::from_millis(later + ms);
        out.extend(invite.iter().flat_map(|bytes| REPEATS_MS.map(|ms| (at(ms), bytes.clone()))));
    }

    /// What is said to it: a final response is acknowledged, in the INVITE's transaction if it is a refusal.
    pub(super) fn hears_answer(&self, answer: &Message, entropy: &mut Entropy, out: &mut Out, tally: &mut Tally) {
        let (Some(status @ 200..), Some(own)) = (answer.status(), answer.from_tag()) else { return };
        tally.add_if(self.mischief.name(), status < 300);
        let ack = self.ack(own, answer.branch().filter(|_| status >= 300), entropy);
        out.extend(ack.map(|bytes| (Duration::ZERO, bytes)));
    }

    fn ack(&self, tag: &str, branch: Option<&str>, entropy: &mut Entropy) -> Option<Bytes> {
        let host = Uri::of_address(None, self.carrier?);
        let fresh = format!("z9hG4bKack{}", entropy.hex::<4>());
        let branch = branch.unwrap_or(&fresh);
        let via = Via::new(Transport::Udp, host.host(), host.port(), branch).ok()?;
        let ack = RequestBuilder::new(Method::Ack, self.invite.contact()?.uri).via(&via);
        let ack = ack.from(&self.invite.to().with_tag(tag).ok()?).to(&self.invite.from());
        ack.call_id(self.invite.call_id()).cseq(1).build().ok()
    }

    /// A request with an offer.
    fn offers(&self, method: Method, tag: &str, body: String, entropy: &mut Entropy) -> Option<Bytes> {
        let own = self.carrier?;
        let (host, branch) = (Uri::of_address(None, own), format!("z9hG4bKearly{}", entropy.hex::<4>()));
        let via = Via::new(Transport::Udp, host.host(), Some(own.port()), &branch).ok()?;
        let request = RequestBuilder::new(method, self.invite.contact()?.uri).via(&via);
        let request = request.from(&self.invite.to().with_tag(tag).ok()?).to(&self.invite.from());
        let request = request.call_id(self.invite.call_id()).cseq(1).contact(&self.contact()?);
        request.body(sdp::CONTENT_TYPE, body.into()).build().ok()
    }
}
