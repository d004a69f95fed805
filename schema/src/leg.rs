//! What call legs tell and are told: the only language between `sip` and `actors`. Plain data.
//!
//! ```text
//! A-leg of a softphone call            B-leg
//!   Invited  ─────────────────────►
//!                                 ◄──── Invite (after the hold is durable, invariant C1)
//!                                       Progress ─►  ◄─ Progress (to A)
//!                                       Answered ─►  (both legs' checkpoints are committed)
//!   Accept  ◄──────────────────── ►     Confirm  (ACK)
//!   Confirmed ─►                         (without an offer of A's: B's is in its 200, A's answer in Confirmed, then Confirm)
//!   Offered ─►                     ◄──── Offer (hold, another codec; either leg may begin)
//!   AnswerOffer  ◄────────────────      OfferAnswered ─►
//!   Ended ─► / ◄─ HangUp                Ended ─► / ◄─ HangUp
//! ```

use crate::call::LegSide;
use crate::carrier::Gateway;
use crate::id::{AccountKey, CallId, CredentialId, TrunkId};
use crate::number::{E164, Presentation};
use crate::pii::Pii;
use crate::target::GatewayName;
use crate::time::Now;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Longest number that is dialled, in characters with their separators, and what a caller is told of a longer one: cut, it would
/// be another number.
pub const DIALLED_MAX: usize = 64;
#[expect(missing_docs, reason = "above")]
pub const DIALLED_TOO_LONG: &str = "the number is too long";

/// One leg of a call. Attempts of the B-leg differ in their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LegId {
    /// The call.
    pub call: CallId,
    /// Its side.
    pub side: LegSide,
    /// 0 for an A-leg; from 1 for the attempts of a B-leg.
    pub attempt: u8,
}

impl LegId {
    /// The A-leg of a call.
    #[must_use]
    pub const fn a(call: CallId) -> Self {
        Self { call, side: LegSide::A, attempt: 0 }
    }

    /// An attempt of the B-leg, from 1.
    #[must_use]
    pub const fn b(call: CallId, attempt: u8) -> Self {
        Self { call, side: LegSide::B, attempt }
    }
}

/// A session description as it stood in a message body. Personal (addresses), so never printed; shared by those who keep it.
pub type Sdp = Pii<Arc<str>>;

/// A dialog's durable state. `sip` owns its encoding and the version of that; everyone else sees a text.
#[derive(Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The state, as text of `sip`'s own encoding.
    pub state: Pii<Arc<str>>,
}

/// Only its size: the state holds addresses.
impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Checkpoint({} bytes)", self.state.expose().len())
    }
}

/// What is stored of a live call's dialogs, apart from its state: written when it changes, read by nobody but recovery.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dialogs {
    /// The A-leg's, as of the INVITE, then of the newest session.
    pub a_leg: Option<Checkpoint>,
    /// The B-leg's, as of its 200, then of the newest session.
    pub b_leg: Option<Checkpoint>,
    /// The session description of the 200 for the A-leg, which is sent again when nobody knows whether its ACK came.
    pub answer_sdp: Option<Sdp>,
}

impl Dialogs {
    /// A change of one of them.
    #[must_use]
    pub fn of(side: LegSide, checkpoint: Checkpoint) -> Self {
        match side {
            LegSide::A => Self { a_leg: Some(checkpoint), ..Self::default() },
            LegSide::B => Self { b_leg: Some(checkpoint), ..Self::default() },
        }
    }

    /// Takes over what is in a change; the rest stays.
    pub fn take(&mut self, change: Self) {
        self.a_leg = change.a_leg.or(self.a_leg.take());
        self.b_leg = change.b_leg.or(self.b_leg.take());
        self.answer_sdp = change.answer_sdp.or(self.answer_sdp.take());
    }
}

/// The identifiers of an attempt's INVITE. Made by `actors` from fresh entropy, never from the A-leg.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptIds {
    /// At least 128 random bits, no host part: a carrier learns nothing of who called, nor of us.
    pub call_id: Box<str>,
    /// From-tag.
    pub from_tag: Box<str>,
    /// Via branch, with `z9hG4bK`.
    pub branch: Box<str>,
    /// CSeq number, 1 to 2³¹ - 1.
    pub cseq: u32,
}

/// Which number a phone asks to show, as it wrote it, without visual separators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallerIdWish {
    /// In P-Preferred-Identity, which is there for nothing else (RFC 3325 §9.2).
    Preferred(Pii<String>),
    /// In From, where many phones have a name or an extension of their own.
    From(Pii<String>),
    /// In From, the phone's own username, which it writes there by itself: meant when it is one of the account's numbers.
    Username(Pii<String>),
}

/// An authenticated INVITE outside a dialog: somebody wants to call.
#[derive(Debug, Clone)]
pub struct Invited {
    /// The new A-leg.
    pub leg: LegId,
    /// Whose credential answered the challenge. It alone decides the account; From is never believed.
    pub account: AccountKey,
    /// The credential.
    pub credential: CredentialId,
    /// The user part of the Request-URI, decoded, at most [`DIALLED_MAX`] characters.
    pub dialled: Pii<String>,
    /// The caller ID the phone asks for, when it looks like a number: it chooses among the account's verified ones.
    pub wanted_caller_id: Option<CallerIdWish>,
    /// `Privacy: id` (RFC 3323), or an anonymous From.
    pub withhold: bool,
    /// Its media are encrypted with keys that leave over TLS only (SDES, RFC 4568).
    pub needs_tls: bool,
    /// Its offer; `None` for an offerless INVITE.
    pub offer: Option<Sdp>,
    /// Whether its phone will be asked from time to time whether it is there ([`LegEvent::Alive`]).
    pub is_watched: bool,
    /// The dialog as it will be once accepted: Via, tags, Contact, route set.
    pub checkpoint: Checkpoint,
}

/// A key pressed during a call. Personal (it may be part of a secret), so never printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// `0` to `9`, `*`, `#`, `A` to `D`.
    pub signal: Pii<char>,
    /// How long, 1 to 10,000 ms, if said.
    pub duration_ms: Option<u16>,
}

/// What a leg tells. `at` is when the message arrived.
#[derive(Debug, Clone)]
pub enum LegEvent {
    /// A new A-leg.
    Invited(Box<Invited>),
    /// A 18x of an outgoing leg. `sdp` is early media.
    Progress {
        /// Which.
        leg: LegId,
        /// 180 to 189.
        status: u16,
        /// Early media, if any.
        sdp: Option<Sdp>,
        /// The caller hears something, or the callee's phone rings: a 180, or early media, be they passed on or not.
        rings: bool,
    },
    /// The first 200 of an outgoing leg. It is acknowledged only by [`LegCommand::Confirm`].
    Answered {
        /// Which.
        leg: LegId,
        /// The answer; the offer, when our INVITE had none.
        sdp: Option<Sdp>,
        /// It is an offer: the caller's answer has to come with [`LegCommand::Confirm`] (RFC 3261 §13.2.1).
        offers: bool,
        /// The confirmed dialog.
        checkpoint: Checkpoint,
    },
    /// The caller's ACK to our 200 has come.
    Confirmed {
        /// Which.
        leg: LegId,
        /// The answer to the offer of our 200, when the caller's INVITE had none.
        answer: Option<Sdp>,
    },
    /// An outgoing leg ended without an answer that anybody could use.
    Failed {
        /// Which.
        leg: LegId,
        /// Final status; 408 when nothing came, 503 when the gateway could not be reached, 487 after our CANCEL.
        status: u16,
        /// Q.850 cause of its Reason header (RFC 3326).
        q850: Option<u8>,
        /// Whether a 180 or early media had come: then it is not tried elsewhere.
        rang: bool,
        /// Redress contact of a 603+, 607 or 608.
        redress: Option<String>,
        /// A 200 came all the same, across our CANCEL or with a session nobody can use, and was ended by BYE: the carrier charges.
        answered: bool,
    },
    /// The caller gave up before the answer; the 487 is sent.
    Cancelled {
        /// Which.
        leg: LegId,
    },
    /// An answered leg is over; of a caller's leg also one that was refused for its silence ([`EndCause::NoPrack`]).
    Ended {
        /// Which.
        leg: LegId,
        /// How.
        cause: EndCause,
    },
    /// The far end of an answered leg has shown that it is there: by an answer to a probe or a request in the dialog. Of a
    /// caller's leg told at each probe, of a carrier's once after a restart; no more than once a second.
    Alive {
        /// Which.
        leg: LegId,
    },
    /// Asked about by [`LegCommand::Probe`]: nobody is asked whether it is there, so it counts as there.
    Unwatched {
        /// Which.
        leg: LegId,
    },
    /// The far end of a leg wants another session: a re-INVITE, an UPDATE or, before the answer, a PRACK (RFC 3261 §14, RFC 3311,
    /// RFC 3262). It is answered by
    /// [`LegCommand::AnswerOffer`], or by 504 when that does not come in time.
    Offered {
        /// Which.
        leg: LegId,
        /// Its offer.
        offer: Sdp,
    },
    /// What became of a [`LegCommand::Offer`]; told once for each.
    OfferAnswered {
        /// Which.
        leg: LegId,
        /// The answer, or the status of the refusal, 400 to 699; 504 when nothing came in time. After a refusal the session is
        /// as it was.
        answer: Result<Sdp, u16>,
    },
    /// A key was pressed at the far end of an answered leg, told by INFO.
    KeyPressed {
        /// Which.
        leg: LegId,
        /// The key.
        key: Key,
    },
    /// The dialog's durable state changed (target, session description or session timer).
    Checkpointed {
        /// Which.
        leg: LegId,
        /// The new state.
        checkpoint: Checkpoint,
    },
}

impl LegEvent {
    /// The leg it is about.
    #[must_use]
    pub fn leg(&self) -> LegId {
        match self {
            Self::Invited(invited) => invited.leg,
            Self::Progress { leg, .. }
            | Self::Answered { leg, .. }
            | Self::Confirmed { leg, .. }
            | Self::Failed { leg, .. }
            | Self::Cancelled { leg }
            | Self::Ended { leg, .. }
            | Self::Alive { leg }
            | Self::Unwatched { leg }
            | Self::Offered { leg, .. }
            | Self::OfferAnswered { leg, .. }
            | Self::KeyPressed { leg, .. }
            | Self::Checkpointed { leg, .. } => *leg,
        }
    }
}

/// A leg's event with the moment its message arrived.
#[derive(Debug, Clone)]
pub struct LegEventAt {
    /// What happened.
    pub event: LegEvent,
    /// When.
    pub at: Now,
}

/// How an answered leg ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndCause {
    /// The other side sent BYE, with the Q.850 cause of its Reason header.
    Bye {
        /// Q.850 cause, if given.
        q850: Option<u8>,
    },
    /// Our own BYE was sent (the outcome of the BYE does not matter).
    HungUp,
    /// The caller never acknowledged our 200 (64·T1; 20 s when the other leg's ACK waits for its answer).
    NoAck,
    /// The caller's ACK had no usable answer to the offer of our 200.
    NoSession,
    /// The caller never acknowledged a reliable provisional response (64·T1, RFC 3262 §3): its INVITE was refused with 504, so
    /// it never heard of an answer.
    NoPrack,
    /// The other side does not know the dialog any more (481, 408 in the dialog), or two probes were not answered, or its
    /// connection is gone and it did not come back: when it left is unknown.
    Lost,
}

/// Why we end a leg. Gives SIP status, Q.850 cause and words by one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HangupCause {
    /// The other leg hung up.
    OtherLeg,
    /// The caller gave up.
    Cancelled,
    /// The money ended.
    FundsExhausted,
    /// The longest duration was reached.
    DurationLimit,
    /// Hung up from the dashboard or an app.
    Requested,
    /// The account was suspended.
    AccountSuspended,
    /// Something failed on our side.
    ServiceFailure,
    /// Another attempt won, or this answer came after a cancel.
    NotWanted,
    /// Nobody answered in time.
    NoAnswer,
}

impl HangupCause {
    /// Q.850 cause for the Reason header (RFC 3326), e.g. 16 normal clearing, 102 recovery on timer expiry.
    #[must_use]
    pub const fn q850(self) -> u8 {
        match self {
            Self::OtherLeg | Self::Cancelled | Self::Requested | Self::NotWanted => 16,
            Self::FundsExhausted | Self::AccountSuspended => 21,
            Self::DurationLimit => 102,
            Self::ServiceFailure => 41,
            Self::NoAnswer => 19,
        }
    }

    /// In words, for the CDR and the dashboard.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OtherLeg => "the other side hung up",
            Self::Cancelled => "cancelled by the caller",
            Self::FundsExhausted => "the balance ran out",
            Self::DurationLimit => "the longest duration was reached",
            Self::Requested => "hung up from the dashboard",
            Self::AccountSuspended => "the account was suspended",
            Self::ServiceFailure => "the service failed",
            Self::NotWanted => "no longer wanted",
            Self::NoAnswer => "no answer",
        }
    }
}

/// An outgoing leg to build. Everything in it is typed; nothing is copied from another leg's messages.
#[derive(Debug, Clone)]
pub struct Invite {
    /// The new leg.
    pub leg: LegId,
    /// Over which trunk.
    pub trunk: TrunkId,
    /// The next hop.
    pub gateway: Gateway,
    /// The trunk's name, when its gateway is one: host of Request-URI and To.
    pub name: Option<GatewayName>,
    /// Whether the trunk may see P-Asserted-Identity of a withheld number.
    pub trusted: bool,
    /// Identifiers of the INVITE.
    pub ids: AttemptIds,
    /// The number to call.
    pub destination: E164,
    /// The caller ID (invariant P2).
    pub presentation: Presentation,
    /// The offer; rewritten by `sip` so that nothing but media addresses and codecs passes.
    pub offer: Option<Sdp>,
    /// Given up when nothing final came after this many seconds.
    pub ring_timeout_s: u32,
}

/// What a leg is told.
#[derive(Debug, Clone)]
pub enum LegCommand {
    /// Begin an outgoing leg.
    Invite(Box<Invite>),
    /// Send a 18x on an incoming leg.
    Progress {
        /// Which.
        leg: LegId,
        /// 180 to 189.
        status: u16,
        /// Early media, if any.
        sdp: Option<Sdp>,
    },
    /// Send the 200 on an incoming leg; it is repeated until acknowledged.
    Accept {
        /// Which.
        leg: LegId,
        /// The answer, or the offer when its INVITE had none; rewritten.
        sdp: Option<Sdp>,
    },
    /// Refuse an incoming leg.
    Reject {
        /// Which.
        leg: LegId,
        /// Final status, 400 to 699.
        status: u16,
        /// Words for the Reason header's text, from a fixed list; and Retry-After for a 503.
        reason: Option<Box<str>>,
        /// Seconds for Retry-After.
        retry_after_s: Option<u32>,
    },
    /// Acknowledge the 200 of an outgoing leg. Nothing happens when it is acknowledged already.
    Confirm {
        /// Which.
        leg: LegId,
        /// The answer, when the 200 holds an offer; rewritten as an offer is.
        answer: Option<Sdp>,
    },
    /// End a leg in whatever state it is: CANCEL, BYE, or a final answer. Never fails; an ended leg stays ended. Of a leg that
    /// was resumed and is not known to be there [`LegEvent::Ended`] is told when the BYE's outcome is known: `Lost` when
    /// the other side had no such call any more.
    HangUp {
        /// Which.
        leg: LegId,
        /// Why.
        cause: HangupCause,
    },
    /// Take up an answered dialog again after a restart. Nothing is sent.
    Resume {
        /// Which.
        leg: LegId,
        /// Its state.
        checkpoint: Checkpoint,
    },
    /// The call's end is durable: what waits for that on its legs, the answer to a BYE, may leave (invariant A2).
    Settled {
        /// Which call.
        call: CallId,
    },
    /// Ask the far end of an answered leg whether it is still there; [`LegEvent::Alive`], [`LegEvent::Ended`] or
    /// [`LegEvent::Unwatched`] tells.
    Probe {
        /// Which.
        leg: LegId,
    },
    /// Offer another session to the far end of a leg, also before the answer, when it may be refused by 491; [`LegEvent::OfferAnswered`] tells.
    Offer {
        /// Which.
        leg: LegId,
        /// The offer; rewritten as the first one is.
        offer: Sdp,
    },
    /// Answer what [`LegEvent::Offered`] told. Nothing happens when nobody waits for it any more.
    AnswerOffer {
        /// Which.
        leg: LegId,
        /// The answer, rewritten as the first one is, or the status with which the other leg refused.
        answer: Result<Sdp, u16>,
    },
    /// Tell the far end of an answered leg by INFO that a key was pressed.
    PressKey {
        /// Which.
        leg: LegId,
        /// The key.
        key: Key,
    },
    /// End a call that was not answered when the process before this one ended.
    TakeBack(Box<TakeBack>),
}

/// A call that rang when the process before this one ended: the caller gets a final answer, the carrier a CANCEL.
#[derive(Debug, Clone)]
pub struct TakeBack {
    /// The A-leg.
    pub leg: LegId,
    /// Its dialog, as of its INVITE.
    pub checkpoint: Checkpoint,
    /// The running attempt, without its offer, which is the A-leg's. Its INVITE is repeated byte for byte, since it may be
    /// cancelled only after a provisional answer (RFC 3261 §9.1).
    pub invite: Option<Box<Invite>>,
    /// Seconds for the caller's Retry-After.
    pub retry_after_s: u32,
}
