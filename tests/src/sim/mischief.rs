//! Phones and carriers that do what they must not, or do not what they must. It stands between them and the network and
//! changes what passes; who misbehaves in which call, the plan says.

mod early;

use super::tally::Tally;
use bytes::Bytes;
use schema::entropy::Entropy;
use sip::message::{Message, Method, NameAddr, RequestBuilder, ResponseBuilder, Transport, Uri, Via};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// What goes wrong in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mischief {
    /// The carrier answers 200 after it has received the CANCEL.
    AnswersCancelled,
    /// The carrier's INVITE was forked: a second 200 comes from somebody else.
    Forks,
    /// The carrier hangs up in the moment in which it is hung up.
    Glares,
    /// The carrier neither sends nor answers a BYE.
    IgnoresBye,
    /// The carrier is gone from its answer on.
    Vanishes,
    /// The carrier does not answer the INVITE at all.
    Silent,
    /// The carrier says 100, and nothing else ever.
    OnlyTrying,
    /// The carrier's final response comes late.
    Late,
    /// The carrier says 200 again when all is long settled.
    AnswersAgain,
    /// The phone never acknowledges its answer.
    NeverAcks,
    /// The phone is gone from its ACK on.
    PhoneVanishes,
    /// The carrier offers another session once it talks.
    OffersTalking,
    /// The carrier hears no PRACK: it repeats its 18x, and refuses the call in the end.
    IgnoresPracks,
    /// So does one that says nothing in the end.
    GivesUpSilently,
    /// The carrier sends a second reliable 183, with another session.
    SecondSession,
    /// Somebody else rings reliably, too, with a session of its own, and may be the one who answers.
    RingsForked,
    /// The carrier offers another session while it rings.
    OffersEarly,
    /// The phone's PRACKs come late.
    PracksLate,
    /// They come twice, in another transaction.
    PracksTwice,
    /// They never come.
    NeverPracks,
    /// They come after its CANCEL.
    PracksCancelled,
}

impl Mischief {
    /// Of calls whoever rings how.
    pub const ALL: [Self; 10] = [
        Self::AnswersCancelled,
        Self::Forks,
        Self::Glares,
        Self::IgnoresBye,
        Self::Vanishes,
        Self::Silent,
        Self::OnlyTrying,
        Self::Late,
        Self::AnswersAgain,
        Self::NeverAcks,
    ];
    /// Of carriers that ring reliably.
    pub const EARLY_OF_CARRIERS: [Self; 5] =
        [Self::IgnoresPracks, Self::GivesUpSilently, Self::SecondSession, Self::RingsForked, Self::OffersEarly];
    /// Of these and of phones that take that.
    pub const EARLY: [Self; 9] = [
        Self::IgnoresPracks,
        Self::GivesUpSilently,
        Self::SecondSession,
        Self::RingsForked,
        Self::OffersEarly,
        Self::PracksLate,
        Self::PracksTwice,
        Self::NeverPracks,
        Self::PracksCancelled,
    ];

    /// As it is counted.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AnswersCancelled => "answers after CANCEL",
            Self::Forks => "forked answers",
            Self::Glares => "glaring BYEs",
            Self::IgnoresBye => "BYEs ignored",
            Self::Vanishes => "carriers vanished",
            Self::Silent => "INVITEs ignored",
            Self::OnlyTrying => "INVITEs only tried",
            Self::Late => "late answers",
            Self::AnswersAgain => "late repeated answers",
            Self::NeverAcks => "answers never acknowledged",
            Self::PhoneVanishes => "phones vanished",
            Self::OffersTalking => "offers of carriers that talk",
            Self::IgnoresPracks => "PRACKs ignored",
            Self::GivesUpSilently => "early dialogs given up in silence",
            Self::SecondSession => "second early sessions",
            Self::RingsForked => "forks that ring reliably",
            Self::OffersEarly => "early offers of carriers",
            Self::PracksLate => "late PRACKs",
            Self::PracksTwice => "PRACKs sent twice",
            Self::NeverPracks => "PRACKs never sent",
            Self::PracksCancelled => "PRACKs after CANCEL",
        }
    }

    /// Whether the other side may be left with a call that we have ended.
    #[must_use]
    pub const fn leaves_calls_behind(self) -> bool {
        matches!(self, Self::IgnoresBye | Self::Vanishes)
    }
}

/// A leg in which something goes wrong.
struct Leg {
    mischief: Mischief,
    invite: Message,
    /// Whom it was sent to; nobody: it is a phone's.
    carrier: Option<SocketAddr>,
    /// It was answered 200, or acknowledged.
    answered: bool,
    acknowledged: bool,
    /// Once is enough.
    done: bool,
    early: early::Early,
}

/// Who misbehaves.
pub struct Mischiefs {
    entropy: Entropy,
    by_number: BTreeMap<Box<str>, Mischief>,
    legs: BTreeMap<Box<str>, Leg>,
}

/// To be sent by a misbehaving side, so much later.
pub type Out = Vec<(Duration, Bytes)>;

/// Tag of the other side of a fork.
pub const FORK: &str = "forked";

impl Mischiefs {
    /// `by_number`: what goes wrong in the call to a number.
    #[must_use]
    pub const fn new(by_number: BTreeMap<Box<str>, Mischief>, entropy: Entropy) -> Self {
        Self { entropy, by_number, legs: BTreeMap::new() }
    }

    fn begin(&mut self, carrier: Option<SocketAddr>, message: &Message) {
        if *message.method() == Method::Invite && message.is_request() && message.to_tag().is_none() {
            let number = message.request_uri().and_then(Uri::user_decoded).unwrap_or_default();
            if let Some(mischief) = self.by_number.get(&*number).copied() {
                let invite = message.clone();
                let leg = Leg {
                    mischief,
                    invite,
                    carrier,
                    answered: false,
                    acknowledged: false,
                    done: false,
                    early: early::Early::default(),
                };
                self.legs.entry(message.call_id().into()).or_insert(leg);
            }
        }
    }

    /// A message reaches a carrier. False: it is as if it did not.
    pub fn at_carrier(&mut self, carrier: SocketAddr, bytes: &Bytes, out: &mut Out, tally: &mut Tally) -> bool {
        if self.by_number.is_empty() {
            return true;
        }
        let Ok(message) = Message::parse_datagram(bytes) else { return true };
        self.begin(Some(carrier), &message);
        let Some(leg) = self.legs.get_mut(message.call_id()) else { return true };
        let (is_request, method, name) = (message.is_request(), message.method(), leg.mischief.name());
        let is_bye = is_request && *method == Method::Bye;
        leg.acknowledged |= leg.answered && *method == Method::Ack;
        if leg.mischief == Mischief::OffersTalking && *method == Method::Invite && !is_request {
            leg.hears_answer(&message, &mut self.entropy, out, tally);
            return false;
        }
        match leg.mischief {
            Mischief::Silent | Mischief::OnlyTrying if is_request => {
                if *method == Method::Invite && leg.mischief == Mischief::OnlyTrying {
                    out.extend(respond(&message, 100, None));
                }
                tally.add_if(name, *method == Method::Invite);
                false
            }
            Mischief::IgnoresBye if is_bye => {
                tally.add(name);
                false
            }
            Mischief::Vanishes if leg.acknowledged && *method != Method::Ack => {
                tally.add(name);
                false
            }
            Mischief::Forks if is_request && message.to_tag() == Some(FORK) => {
                if is_bye {
                    out.extend(respond(&message, 200, None));
                }
                false
            }
            Mischief::Glares if is_bye => {
                let branch = format!("z9hG4bKglare{}", self.entropy.hex::<4>());
                if let Some(bye) = bye_against(&message, carrier, &branch) {
                    tally.add(name);
                    out.push((Duration::ZERO, bye));
                }
                true
            }
            Mischief::OffersTalking if leg.acknowledged && !std::mem::replace(&mut leg.done, true) => {
                leg.offers_talking(&message, &mut self.entropy, out);
                true
            }
            _ => early::at_carrier(leg, &message, &mut self.entropy, out, tally),
        }
    }

    /// A message reaches a phone. False: it is as if it did not.
    pub fn at_phone(&mut self, bytes: &Bytes, tally: &mut Tally) -> bool {
        if self.by_number.is_empty() {
            return true;
        }
        let Ok(message) = Message::parse_datagram(bytes) else { return true };
        let Some(leg) = self.legs.get(message.call_id()) else { return true };
        let dropped = leg.mischief == Mischief::PhoneVanishes && leg.done;
        tally.add_if(leg.mischief.name(), dropped);
        !dropped
    }

    /// A carrier sends a message: what is sent instead.
    pub fn of_carrier(&mut self, bytes: Bytes, tally: &mut Tally) -> Out {
        let leg = match Message::parse_datagram(&bytes) {
            Ok(message) if !self.legs.is_empty() => self.legs.get_mut(message.call_id()).map(|leg| (leg, message)),
            _ => None,
        };
        let Some((leg, message)) = leg else { return vec![(Duration::ZERO, bytes)] };
        let of_invite = *message.method() == Method::Invite && !message.is_request();
        let status = message.status().filter(|_| of_invite).unwrap_or(0);
        let name = leg.mischief.name();
        leg.answered |= status == 200;
        match leg.mischief {
            Mischief::Vanishes if leg.acknowledged => Out::new(),
            Mischief::IgnoresBye if message.is_request() => Out::new(),
            Mischief::AnswersCancelled if status == 487 => {
                tally.add_if(name, !std::mem::replace(&mut leg.done, true));
                leg.accept(message.to_tag()).map(|bytes| (Duration::ZERO, bytes)).into_iter().collect()
            }
            Mischief::Forks if status == 200 && !std::mem::replace(&mut leg.done, true) => {
                tally.add(name);
                let later = Duration::from_millis(self.entropy.below(3_000));
                let fork = leg.accept(Some(FORK)).map(|bytes| (later, bytes));
                std::iter::once((Duration::ZERO, bytes)).chain(fork).collect()
            }
            Mischief::Late if status >= 200 && !std::mem::replace(&mut leg.done, true) => {
                tally.add(name);
                vec![(Duration::from_millis(self.entropy.below(40_000)), bytes)]
            }
            Mischief::AnswersAgain if status == 200 && !std::mem::replace(&mut leg.done, true) => {
                tally.add(name);
                let later = Duration::from_millis(5_000 + self.entropy.below(60_000));
                vec![(Duration::ZERO, bytes.clone()), (later, bytes)]
            }
            _ => early::of_carrier(leg, bytes, &message, status, tally),
        }
    }

    /// A phone sends a message: what is sent instead.
    pub fn of_phone(&mut self, bytes: Bytes, tally: &mut Tally) -> Out {
        if self.by_number.is_empty() {
            return vec![(Duration::ZERO, bytes)];
        }
        let Ok(message) = Message::parse_datagram(&bytes) else { return vec![(Duration::ZERO, bytes)] };
        self.begin(None, &message);
        let Some(leg) = self.legs.get_mut(message.call_id()) else { return vec![(Duration::ZERO, bytes)] };
        // The ACK of a failure goes where the INVITE went.
        let of_success = *message.method() == Method::Ack && message.request_uri() != leg.invite.request_uri();
        let dropped = match leg.mischief {
            Mischief::NeverAcks => of_success,
            Mischief::PhoneVanishes => {
                let gone = leg.done;
                leg.done |= of_success;
                gone
            }
            _ => false,
        };
        tally.add_if(leg.mischief.name(), dropped);
        if dropped { Out::new() } else { early::of_phone(leg, bytes, &message, &mut self.entropy, tally) }
    }
}

fn respond(request: &Message, status: u16, tag: Option<&str>) -> Option<(Duration, Bytes)> {
    Some((Duration::ZERO, ResponseBuilder::to_request(request, status, tag).build().ok()?))
}

impl Leg {
    /// An answer, with the offer for its session.
    fn accept(&self, tag: Option<&str>) -> Option<Bytes> {
        let contact = NameAddr::new(Uri::of_address(Some("carrier"), self.carrier?));
        let response = ResponseBuilder::to_request(&self.invite, 200, tag).record_route().contact(&contact);
        response.body(sip::sdp::CONTENT_TYPE, self.invite.body().clone()).build().ok()
    }
}

/// The carrier's own BYE, in the dialog in which it has received one.
fn bye_against(bye: &Message, carrier: SocketAddr, branch: &str) -> Option<Bytes> {
    let host = Uri::of_address(None, carrier);
    let via = Via::new(Transport::Udp, host.host(), Some(carrier.port()), branch).ok()?;
    let to = bye.from();
    let request = RequestBuilder::new(Method::Bye, to.uri.clone()).via(&via).from(&bye.to()).to(&to);
    request.call_id(bye.call_id()).cseq(7_000).build().ok()
}
