//! What phones and carriers may do, and the test ones do not by themselves: session timers (RFC 4028), an INVITE without an offer,
//! an offer that makes it large. It stands between them and the network and rewrites what they send; in which calls, the plan says.

use super::mischief::Out;
use super::tally::Tally;
use bytes::Bytes;
use schema::entropy::Entropy;
use sip::message::{HeaderName, Message, Method, NameAddr, RequestBuilder, ResponseBuilder, Transport, Uri, Via};
use sip::sdp::{self, Origin};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// The session interval that is asked for, the shortest that is allowed.
pub const INTERVAL: Duration = Duration::from_secs(90);
/// And the shortest that those take who take a longer one only, seconds.
const RAISED_S: u64 = 300;
/// A carrier refreshes its session so often.
const REFRESHES_EACH_MS: u64 = 40_000;
/// So many times.
const REFRESHES: u64 = 4;
/// When a refresh is sent, as far as that takes.
const REPEATS_MS: [u64; 5] = [0, 500, 1_500, 3_500, 7_500];
/// Far above the CSeq numbers of its refreshes.
const CSEQ_OF_BYE: &str = "CSeq: 900 BYE";

/// Who does what in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// The phone's INVITE has no offer; its ACK has the answer.
    Offerless,
    /// The phone's offers are large.
    Large,
    /// The phone has a session timer and refreshes by itself, as the plan says: each re-INVITE does it.
    PhoneRefreshes,
    /// It never does.
    PhoneStops,
    /// The phone has one that the server refreshes.
    PhoneIsRefreshed,
    /// The carrier has a session timer and refreshes by itself,
    CarrierRefreshes,
    /// does so once and never again,
    CarrierStops,
    /// or has one that the server refreshes, by UPDATE or by re-INVITE.
    CarrierIsUpdated,
    /// See [`Self::CarrierIsUpdated`].
    CarrierIsReinvited,
    /// The carrier takes the server's refreshes, by UPDATE or by re-INVITE, with a longer interval only.
    CarrierRaises,
    /// See [`Self::CarrierRaises`].
    CarrierRaisesReinvited,
    /// So does the phone.
    PhoneRaises,
    /// The carrier says so of the INVITE, which asks for no interval at all.
    CarrierRefusesInterval,
}

impl Manner {
    /// With timers. Those that end calls are there twice.
    pub const TIMED: [Self; 9] = [
        Self::PhoneRefreshes,
        Self::PhoneStops,
        Self::PhoneStops,
        Self::PhoneIsRefreshed,
        Self::CarrierRefreshes,
        Self::CarrierStops,
        Self::CarrierStops,
        Self::CarrierIsUpdated,
        Self::CarrierIsReinvited,
    ];

    /// With intervals that are too small (RFC 4028 §7.3).
    pub const RAISING: [Self; 4] =
        [Self::CarrierRaises, Self::CarrierRaisesReinvited, Self::PhoneRaises, Self::CarrierRefusesInterval];

    /// Whether a call ends by it that nobody wants to end.
    #[must_use]
    pub const fn ends_call(self) -> bool {
        matches!(self, Self::PhoneStops | Self::CarrierStops)
    }

    /// Whether its session has a timer.
    #[must_use]
    pub const fn is_timed(self) -> bool {
        self.of_phone().is_some() || self.of_carrier().is_some()
    }

    /// Who refreshes, as the phone's INVITE says; nobody: the phone has no timer.
    const fn of_phone(self) -> Option<&'static str> {
        match self {
            Self::PhoneRefreshes | Self::PhoneStops => Some("uac"),
            Self::PhoneIsRefreshed | Self::PhoneRaises => Some("uas"),
            _ => None,
        }
    }

    /// Who refreshes, as the carrier's answer says.
    const fn of_carrier(self) -> Option<&'static str> {
        match self {
            Self::CarrierRefreshes | Self::CarrierStops => Some("uas"),
            Self::CarrierIsUpdated | Self::CarrierIsReinvited | Self::CarrierRaises | Self::CarrierRaisesReinvited => {
                Some("uac")
            }
            _ => None,
        }
    }
}

/// A leg of such a call.
struct Leg {
    manner: Manner,
    invite: Message,
    /// Body of the ACK of an INVITE without an offer.
    answer: Option<String>,
    /// The carrier's tag in its 200.
    tag: Option<Box<str>>,
    /// Its refreshes are on their way.
    refreshes: bool,
    /// What the far end says of its interval, in seconds.
    interval_s: u64,
    /// Branches of what was too small an interval.
    too_small: BTreeSet<Box<str>>,
}

/// Who behaves how.
pub struct Manners {
    entropy: Entropy,
    by_number: BTreeMap<Box<str>, Manner>,
    legs: BTreeMap<Box<str>, Leg>,
}

impl Manners {
    /// `by_number`: in the call to a number.
    #[must_use]
    pub const fn new(by_number: BTreeMap<Box<str>, Manner>, entropy: Entropy) -> Self {
        Self { entropy, by_number, legs: BTreeMap::new() }
    }

    fn begin(&mut self, message: &Message) {
        if *message.method() == Method::Invite && message.is_request() && message.to_tag().is_none() {
            let number = message.request_uri().and_then(Uri::user_decoded).unwrap_or_default();
            if let Some(manner) = self.by_number.get(&*number).copied() {
                let leg = self.legs.entry(message.call_id().into());
                let leg = leg.or_insert_with(|| Leg {
                    manner,
                    invite: message.clone(),
                    answer: None,
                    tag: None,
                    refreshes: false,
                    interval_s: INTERVAL.as_secs(),
                    too_small: BTreeSet::new(),
                });
                leg.invite = message.clone();
            }
        }
    }

    /// What a phone sends instead.
    pub fn of_phone(&mut self, bytes: Bytes, from: SocketAddr, tally: &mut Tally) -> Bytes {
        if self.by_number.is_empty() {
            return bytes;
        }
        let Ok(message) = Message::parse_datagram(&bytes) else { return bytes };
        self.begin(&message);
        let Some(leg) = self.legs.get_mut(message.call_id()) else { return bytes };
        let is_invite = *message.method() == Method::Invite && message.is_request();
        match leg.manner {
            Manner::Offerless if is_invite && message.to_tag().is_none() => {
                tally.add("INVITEs without an offer");
                with_body(&bytes, None)
            }
            Manner::Offerless if *message.method() == Method::Ack => {
                // That of a failure goes where the INVITE went; that of another INVITE has another number.
                let is_its = message.cseq().0 == leg.invite.cseq().0;
                if !is_its || message.request_uri() == leg.invite.request_uri() {
                    return bytes;
                }
                let entropy = &mut self.entropy;
                let media = SocketAddr::new(from.ip(), 41_000);
                let answer = leg.answer.get_or_insert_with(|| sdp::audio(Origin::fresh(entropy), media));
                with_body(&bytes, Some(answer))
            }
            Manner::Large if is_invite && message.has_sdp() => {
                let offer = String::from_utf8_lossy(message.body()).into_owned();
                with_body(&bytes, Some(&format!("{offer}a=fmtp:8 {}\r\n", "x".repeat(900))))
            }
            manner => match manner.of_phone() {
                Some(refresher) if is_invite => with_timer(&bytes, leg.interval_s, refresher, "Supported: timer\r\n"),
                Some("uas") if is_success(&message) => with_timer(&bytes, leg.interval_s, "uac", "Require: timer\r\n"),
                _ => bytes,
            },
        }
    }

    /// What a carrier sends instead.
    pub fn of_carrier(&mut self, bytes: Bytes) -> Bytes {
        if self.legs.is_empty() {
            return bytes;
        }
        let Ok(message) = Message::parse_datagram(&bytes) else { return bytes };
        let Some(leg) = self.legs.get_mut(message.call_id()) else { return bytes };
        if is_success(&message) && leg.tag.is_none() {
            leg.tag = message.to_tag().map(Into::into);
        }
        match leg.manner.of_carrier() {
            // Behind its refreshes.
            Some("uas") if message.is_request() && *message.method() == Method::Bye => {
                String::from_utf8_lossy(&bytes).replacen("CSeq: 1 BYE", CSEQ_OF_BYE, 1).into()
            }
            Some(refresher) if is_success(&message) => {
                let updates = matches!(leg.manner, Manner::CarrierIsUpdated | Manner::CarrierRaises);
                let allow = if updates { "Require: timer\r\nAllow: INVITE, ACK, BYE, UPDATE\r\n" } else { "" };
                with_timer(&bytes, leg.interval_s, refresher, allow)
            }
            _ => bytes,
        }
    }

    /// A message reaches a phone; `out`: what it sends by itself. False: it is done with.
    pub fn at_phone(&mut self, bytes: &Bytes, out: &mut Out, tally: &mut Tally) -> bool {
        if self.legs.is_empty() {
            return true;
        }
        let Ok(message) = Message::parse_datagram(bytes) else { return true };
        let leg = self.legs.get_mut(message.call_id());
        !leg.is_some_and(|leg| leg.refuses_interval(&message, out, tally))
    }

    /// A message reaches a carrier; `out`: what it sends by itself. False: it is done with.
    pub fn at_carrier(&mut self, carrier: SocketAddr, bytes: &Bytes, out: &mut Out, tally: &mut Tally) -> bool {
        if self.by_number.is_empty() {
            return true;
        }
        let Ok(message) = Message::parse_datagram(bytes) else { return true };
        self.begin(&message);
        let Some(leg) = self.legs.get_mut(message.call_id()) else { return true };
        if leg.refuses_interval(&message, out, tally) {
            return false;
        }
        if leg.manner.of_carrier() != Some("uas") {
            return true;
        }
        // Not that of a challenge.
        let is_ack = *message.method() == Method::Ack && leg.tag.as_deref() == message.to_tag();
        if is_ack && !std::mem::replace(&mut leg.refreshes, true) {
            let count = if leg.manner == Manner::CarrierStops { 1 } else { REFRESHES };
            for number in 1..=count {
                let refresh = leg.refresh(number, message.to_tag().unwrap_or_default(), carrier, &mut self.entropy);
                let at = |ms| Duration::from_millis(number * REFRESHES_EACH_MS + ms);
                out.extend(refresh.iter().flat_map(|bytes| REPEATS_MS.map(|ms| (at(ms), bytes.clone()))));
            }
        }
        // What is said to its own UPDATE.
        message.is_request() || *message.method() != Method::Update
    }
}

impl Leg {
    /// Answers a request that asks for too short an interval, and knows the ACK of that.
    fn refuses_interval(&mut self, message: &Message, out: &mut Out, tally: &mut Tally) -> bool {
        let branch = message.branch().unwrap_or_default();
        if !message.is_request() {
            return false;
        }
        if message.is_ack() {
            return self.too_small.contains(branch);
        }
        let in_dialog = message.to_tag().is_some();
        let (asked, is_refused) = match self.manner {
            Manner::CarrierRefusesInterval => (0, *message.method() == Method::Invite && !in_dialog),
            Manner::CarrierRaises | Manner::CarrierRaisesReinvited | Manner::PhoneRaises if in_dialog => {
                let asked = session_expires_s(message);
                (asked.unwrap_or(0), asked.is_some_and(|asked| asked < RAISED_S))
            }
            _ => (0, false),
        };
        if !is_refused {
            if in_dialog && session_expires_s(message).is_some() {
                self.interval_s = self.interval_s.max(session_expires_s(message).unwrap_or(0));
            }
            return false;
        }
        let is_new = self.too_small.insert(branch.into());
        tally.add_if("INVITEs refused by 422", is_new && !in_dialog);
        tally.add_if("refreshes refused by 422", is_new && in_dialog && asked > 0);
        let tag = (!in_dialog).then_some("raised");
        let refusal = ResponseBuilder::to_request(message, 422, tag).header(HeaderName::MinSe, &RAISED_S);
        out.extend(refusal.build().ok().map(|bytes| (Duration::ZERO, bytes)));
        true
    }

    /// An UPDATE without an offer.
    fn refresh(&self, number: u64, tag: &str, carrier: SocketAddr, entropy: &mut Entropy) -> Option<Bytes> {
        let (host, branch) = (Uri::of_address(None, carrier), format!("z9hG4bKrefresh{}", entropy.hex::<4>()));
        let via = Via::new(Transport::Udp, host.host(), Some(carrier.port()), &branch).ok()?;
        let request = RequestBuilder::new(Method::Update, self.invite.contact()?.uri).via(&via);
        let request = request.from(&self.invite.to().with_tag(tag).ok()?).to(&self.invite.from());
        let request = request.call_id(self.invite.call_id()).cseq(u32::try_from(number).ok()?);
        let request = request.contact(&NameAddr::new(Uri::of_address(Some("carrier"), carrier)));
        let interval = INTERVAL.as_secs();
        let request = request.header(HeaderName::Supported, &"timer");
        request.header(HeaderName::SessionExpires, &format_args!("{interval};refresher=uac")).build().ok()
    }
}

fn session_expires_s(message: &Message) -> Option<u64> {
    message.text(HeaderName::SessionExpires)?.split(';').next()?.trim().parse().ok()
}

/// A 2xx that may have a session timer.
fn is_success(message: &Message) -> bool {
    matches!(message.method(), Method::Invite | Method::Update) && matches!(message.status(), Some(200..=299))
}

fn with_timer(bytes: &Bytes, interval_s: u64, refresher: &str, more: &str) -> Bytes {
    let timer = format!("\r\nSession-Expires: {interval_s};refresher={refresher}\r\n{more}CSeq:");
    String::from_utf8_lossy(bytes).replacen("\r\nCSeq:", &timer, 1).into()
}

fn with_body(bytes: &Bytes, sdp: Option<&str>) -> Bytes {
    let text = String::from_utf8_lossy(bytes);
    let head = text.split("\r\n\r\n").next().unwrap_or_default();
    let is_of_body = |line: &&str| line.starts_with("Content-");
    let mut head: String =
        head.split("\r\n").filter(|line| !is_of_body(line)).flat_map(|line| [line, "\r\n"]).collect();
    if sdp.is_some() {
        head += &format!("Content-Type: {}\r\n", sdp::CONTENT_TYPE);
    }
    let body = sdp.unwrap_or_default();
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into()
}
