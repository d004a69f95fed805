//! One call leg: its dialog, where it stands, and what it repeats.

use super::challenge::Carrier;
use super::change::{Change, Pace, Word};
use super::exchange::SentInvite;
use super::liveness::Pulse;
use super::matching::ServerKey;
use super::names::Search;
use super::offer::ANSWER_WITHIN;
use super::peers::{Bound, ByPeer, Way};
use super::reliable::{Fork, Reliable};
use super::session_timer::SessionTimer;
use super::told::Told;
use crate::dialog::{Dialog, Stored, StoredInvite, StoredPhone};
use crate::flow::{Destination, Flow, Protocol};
use crate::message::{AddressText, Malformed, Message, Written};
use crate::sdp::Origin;
use crate::transaction::{GIVE_UP, Repetition, T2, earliest};
use bytes::Bytes;
use schema::carrier::Gateway;
use schema::id::{CredentialId, TrunkId};
use schema::leg::{Checkpoint, HangupCause, LegId, Sdp};
use schema::target::HostName;
use schema::time::{Mono, Timestamp};
use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

/// Where a leg stands.
///
/// ```text
/// Incoming ─ Accept ─► Up (the 200 repeated until its ACK) ─► gone
///     └─ Reject, CANCEL ─► gone
/// Outgoing ─ 200 ─► Answered ─ Confirm ─► Up ─► gone
///     └─ failure, time-out, cancelled ─► gone
/// ```
pub(super) enum Stage {
    /// An INVITE to us, not answered finally.
    Incoming(Box<Incoming>),
    /// Our INVITE, not answered finally.
    Outgoing(Box<Outgoing>),
    /// Our INVITE was answered; the ACK waits for the commit, and for the caller's answer when the 200 holds an offer.
    Answered { cseq: u32, since: Mono },
    /// Both ends have the session.
    Up,
}

/// An INVITE to us under way.
pub(super) struct Incoming {
    pub(super) key: ServerKey,
    pub(super) invite: Message,
    /// When it came.
    pub(super) since: Mono,
}

/// Our INVITE under way.
pub(super) struct Outgoing {
    pub(super) invite: SentInvite,
    /// A provisional response came: it may be cancelled.
    pub(super) provisional: bool,
    /// A 180 or early media came.
    pub(super) rang: bool,
    /// It is not wanted any more.
    pub(super) unwanted: Option<HangupCause>,
    pub(super) cancelled: bool,
    /// It may ring at the carrier from before a restart, and is repeated to be withdrawn.
    pub(super) is_repeated: bool,
    /// Early dialogs with reliable responses, at most [`FORKS_MAX`](super::reliable::FORKS_MAX); the first is the leg's.
    pub(super) forks: Vec<Fork>,
    /// PRACKs not answered yet.
    pub(super) pracks: u8,
    pub(super) trunk: TrunkId,
    pub(super) gateway: Gateway,
    /// When it was sent.
    pub(super) since: Mono,
    /// Rings no longer than this; after a CANCEL: waits for its end no longer than this.
    pub(super) until: Mono,
}

/// A 200 to an INVITE, repeated until its ACK comes.
pub(super) struct Pending200 {
    pub(super) bytes: Bytes,
    pub(super) way: Way,
    pub(super) cseq: u32,
    pub(super) kind: Answer,
    /// It holds an offer, since the INVITE had none: its ACK holds the answer.
    pub(super) offers: bool,
    pub(super) repeat: Repetition,
    pub(super) give_up: Mono,
}

/// Of what a 200 is the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Of the INVITE that began the call.
    First,
    /// The same, sent again after a restart: that no ACK comes proves nothing.
    Again,
    /// Of a re-INVITE.
    Refresh,
}

impl Pending200 {
    /// Of the INVITE that began the call; it `offers` when that did not.
    pub(super) fn first(bytes: Bytes, flow: Flow, cseq: u32, offers: bool, now: Mono) -> Self {
        let way = Way::Flow(flow);
        let repeat = Repetition::from(now, T2);
        let give_up = now + if offers { ANSWER_WITHIN } else { GIVE_UP };
        Self { bytes, way, cseq, kind: Answer::First, offers, repeat, give_up }
    }
}

/// The customer's phone at the other end of a leg.
#[derive(Debug, Clone)]
pub(super) struct Phone {
    pub(super) credential: CredentialId,
    /// `+sip.instance` of its registration.
    pub(super) instance: Option<Box<str>>,
    /// Where its last trusted request came from; one from elsewhere is challenged.
    pub(super) ip: IpAddr,
}

pub(super) struct Leg {
    pub(super) stage: Stage,
    pub(super) dialog: Dialog,
    /// Our Contact.
    pub(super) contact: AddressText,
    /// Where its requests go.
    way: Way,
    /// That was another way before: what the dialog says of its proxies may be over.
    pub(super) has_moved: bool,
    /// The phone of a customer's leg; none of a carrier's.
    pub(super) phone: Option<Box<Phone>>,
    /// The carrier of a carrier's leg; none of a customer's, whose challenges are not answered.
    pub(super) carrier: Option<Box<Carrier>>,
    /// The INVITE that began it has no offer: its 200 has one, and the ACK of that the answer.
    pub(super) offerless: bool,
    /// Origin of our session descriptions.
    pub(super) origin: Origin,
    pub(super) local_sdp: Option<Told>,
    pub(super) remote_sdp: Option<Sdp>,
    /// What the other leg says to that.
    pub(super) word: Word,
    /// Of a caller that takes reliable provisional responses.
    pub(super) reliable: Option<Box<Reliable>>,
    /// The session that the caller was told before the answer may not be the one that stands: it is offered that after its ACK.
    pub(super) is_stale: bool,
    pub(super) ok: Option<Box<Pending200>>,
    /// The change of the session that is under way.
    pub(super) change: Option<Change>,
    pub(super) pace: Pace,
    pub(super) timer: Option<SessionTimer>,
    /// The name under which its peer was found: over TLS its certificate has to be for it.
    pub(super) server: Option<HostName>,
    /// The name of its next hop is being looked up.
    pub(super) search: Option<Box<Search>>,
    /// The ACK of their 200, for its repetitions as long as its transaction takes them.
    pub(super) ack: Option<Box<Bytes>>,
    /// After a restart, of an A-leg: its INVITE, when nothing shows that our 200 was acknowledged.
    pub(super) unconfirmed: Option<Box<StoredInvite>>,
    /// Whether the far end is known to be there.
    pub(super) pulse: Pulse,
    /// Something of it changed before the call was up: it is stored as soon as that is.
    pub(super) is_unsaved: bool,
    /// To be hung up as soon as the ACK of our 200 has come.
    pub(super) hang_up: Option<HangupCause>,
    pub(super) armed: Option<Mono>,
}

/// All legs.
pub(super) type Legs = ByPeer<LegId, Leg>;

impl Bound for Leg {
    fn way(&self) -> Way {
        self.way
    }

    fn set_way(&mut self, way: Way) {
        self.has_moved |= way != self.way;
        self.way = way;
    }
}

impl Legs {
    /// Notes the newest way to a phone: behind a NAT its port may change, and its connection may be a new one.
    pub(super) fn moved_to(&mut self, id: &LegId, source: Flow, reply: Flow) {
        if let Some(phone) = self.get_mut(id).and_then(|leg| leg.phone.as_mut()) {
            phone.ip = source.ip();
            self.lead(id, Way::Flow(reply));
        }
    }
}

impl Leg {
    /// A leg of which only this is known.
    pub(super) fn new(stage: Stage, dialog: Dialog, contact: AddressText, way: Way, origin: Origin) -> Self {
        Self {
            stage,
            dialog,
            contact,
            way,
            has_moved: false,
            phone: None,
            carrier: None,
            offerless: false,
            origin,
            local_sdp: None,
            remote_sdp: None,
            word: Word::Agreed,
            reliable: None,
            is_stale: false,
            ok: None,
            change: None,
            pace: Pace::default(),
            timer: None,
            server: None,
            search: None,
            ack: None,
            unconfirmed: None,
            pulse: Pulse::default(),
            is_unsaved: false,
            hang_up: None,
            armed: None,
        }
    }

    pub(super) fn next_time(&self) -> Option<Mono> {
        let ok = self.ok.as_ref().map(|ok| ok.repeat.at().min(ok.give_up));
        let change = self.change.as_ref().and_then(Change::next_time);
        let pulse = || ok.or_else(|| self.pulse.next_time());
        let other = match &self.stage {
            Stage::Outgoing(outgoing) => Some(outgoing.until),
            Stage::Incoming(_) => {
                earliest(self.reliable.as_ref().and_then(|reliable| reliable.server.next_time()), pulse())
            }
            Stage::Answered { .. } => pulse(),
            Stage::Up => earliest(self.timer.as_ref().map(SessionTimer::next_time), pulse()),
        };
        earliest(change, other)
    }

    /// Whether its session timer has something to do.
    pub(super) fn is_session_due(&self, now: Mono) -> bool {
        matches!(self.stage, Stage::Up) && self.timer.as_ref().is_some_and(|timer| timer.next_time() <= now)
    }

    /// Confirmed by both ends: nothing of its INVITE is under way.
    pub(super) const fn is_up(&self) -> bool {
        matches!(self.stage, Stage::Up) && self.ok.is_none()
    }

    /// Whether a request in the dialog may be believed by its tags alone: a carrier's, or one from where the phone is known
    /// to be. Others have to prove that they are the phone.
    pub(super) fn is_known_source(&self, flow: Flow) -> bool {
        self.phone.as_ref().is_none_or(|phone| phone.ip == flow.ip() && self.way.protocol() == flow.protocol)
    }

    /// What its far end was told last.
    pub(super) fn told(&self, sdp_address: IpAddr) -> Option<Cow<'_, [u8]>> {
        self.local_sdp.as_ref()?.text(self.origin, sdp_address)
    }

    /// All that the leg needs after a restart, as it is `at`.
    pub(super) fn checkpoint(&self, sdp_address: IpAddr, at: Timestamp) -> Checkpoint {
        let told = self.told(sdp_address);
        let mut stored = Stored::of(&self.dialog, &self.contact, self.peer(), self.origin, at);
        stored.phone = self
            .phone
            .as_ref()
            .map(|phone| StoredPhone { credential: phone.credential, instance: phone.instance.clone() });
        if let Stage::Incoming(incoming) = &self.stage {
            let vias = incoming.invite.vias().iter().map(Written::written).collect();
            stored.invite = Some(StoredInvite { vias, cseq: incoming.invite.cseq().0 });
        }
        if let Stage::Answered { cseq, .. } = self.stage {
            stored.unanswered = self.offerless.then_some(cseq);
        }
        stored.offerless = self.offerless;
        stored.trunk = self.carrier.as_ref().map(|carrier| carrier.trunk);
        let at_peer = self.way.peer().map(|peer| peer.ip());
        stored.called = self.carrier.as_ref().and_then(|carrier| carrier.at()).filter(|at| Some(*at) != at_peer);
        stored.timer = self.timer.as_ref().map(SessionTimer::terms);
        stored.server = self.server.clone();
        stored.local_sdp = told.as_deref().and_then(|told| std::str::from_utf8(told).ok()).map(Cow::Borrowed);
        stored.remote_sdp = self.remote_sdp.as_ref().map(|sdp| Cow::Borrowed(&**sdp.expose()));
        stored.checkpoint()
    }

    /// Where the peer is, for a checkpoint: `UDP 192.0.2.1:5060`.
    fn peer(&self) -> String {
        let (protocol, address) = match (self.way, &self.phone) {
            (Way::Flow(flow), _) => (flow.protocol, flow.peer),
            (Way::To(destination), _) => (destination.protocol, destination.address),
            (Way::Gone(protocol), Some(phone)) => (protocol, SocketAddr::new(phone.ip, 0)),
            (Way::Gone(protocol), None) => (protocol, SocketAddr::from(([0, 0, 0, 0], 0))),
        };
        let mut peer = String::from(protocol.via().as_str());
        peer.push(' ');
        address.write_to(&mut peer);
        peer
    }

    /// An answered leg as it goes on after a restart. A connection is not the same then: a phone opens a new one.
    ///
    /// # Errors
    /// When the checkpoint is of another version or not ours.
    pub(super) fn resumed(checkpoint: &Checkpoint, now: Timestamp) -> Result<Self, Malformed> {
        let stored = Stored::read(checkpoint)?;
        let (protocol, address) = stored.peer.split_once(' ').ok_or(Malformed)?;
        let address: SocketAddr = address.parse().map_err(|_| Malformed)?;
        let all = [Protocol::Udp, Protocol::Tcp, Protocol::Tls];
        let protocol = all.into_iter().find(|known| known.via().as_str() == protocol).ok_or(Malformed)?;
        let way = match (protocol, &stored.phone) {
            (Protocol::Udp, _) => Way::Flow(Flow::udp(address)),
            (_, Some(_)) => Way::Gone(protocol),
            (_, None) => Way::To(Destination::new(protocol, address)),
        };
        // Without an offer of ours the carrier waits for more than the ACK of its 200.
        let stage = stored.unanswered.map_or(Stage::Up, |cseq| Stage::Answered { cseq, since: Mono::default() });
        let (dialog, contact) = (stored.dialog(now)?, AddressText::parse(&stored.contact)?);
        Ok(Self {
            offerless: stored.offerless,
            local_sdp: stored.local_sdp.as_ref().map(|text| Told::Text(text.as_bytes().into())),
            remote_sdp: stored.remote_sdp.as_ref().map(|text| Sdp::new((&**text).into())),
            phone: stored
                .phone
                .map(|StoredPhone { credential, instance }| Box::new(Phone { credential, instance, ip: address.ip() })),
            carrier: stored
                .trunk
                .map(|trunk| Box::new(Carrier::called(trunk, Some(stored.called.unwrap_or(address.ip()))))),
            timer: stored.timer.map(SessionTimer::stored),
            server: stored.server,
            unconfirmed: stored.invite.map(Box::new),
            ..Self::new(stage, dialog, contact, way, stored.origin)
        })
    }
}
