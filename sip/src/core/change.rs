//! An offer under way in the dialog of a leg (`offer.rs`), and how many of them there may be.

use super::exchange::SentInvite;
use super::matching::ServerKey;
use crate::flow::Flow;
use crate::message::Message;
use crate::sdp::{Keys, Origin};
use schema::leg::Sdp;
use schema::time::Mono;
use std::time::Duration;

/// Changes of one leg that are passed on in [`PACE_TIME`]: each is written to storage, twice.
const PACE_MAX: u8 = 10;
const PACE_TIME: Duration = Duration::from_secs(10);

/// An offer under way in the dialog of a leg.
pub(super) enum Change {
    /// The far end's; the other leg is asked.
    Theirs(Box<Theirs>),
    /// Ours, in a re-INVITE or an early UPDATE.
    Ours(Box<Ours>),
    /// Ours, after it crossed one of theirs or asked for too short a session.
    Waiting(Box<Waiting>),
    /// The far end's, which has taken it back or heard 504: what the other leg is about to say to it, until then at the latest.
    TakenBack(Mono),
}

/// Our re-INVITE or UPDATE that is to be sent again at a time of our own.
pub(super) struct Waiting {
    pub(super) offer: Sdp,
    pub(super) purpose: Purpose,
    pub(super) at: Mono,
    pub(super) until: Mono,
}

/// Their re-INVITE or UPDATE under way.
pub(super) struct Theirs {
    pub(super) key: ServerKey,
    pub(super) request: Message,
    /// What it offers.
    pub(super) offer: Sdp,
    pub(super) flow: Flow,
    pub(super) until: Mono,
}

/// Our re-INVITE or UPDATE under way.
pub(super) struct Ours {
    pub(super) cseq: u32,
    /// The re-INVITE.
    pub(super) invite: Option<SentInvite>,
    pub(super) offer: Sdp,
    /// Whether the media's keys were in what was made of it for this leg, and of which origin that is; not agreed yet.
    pub(super) keys: Keys,
    pub(super) origin: Origin,
    pub(super) purpose: Purpose,
    /// A provisional response came: it may be cancelled.
    pub(super) provisional: bool,
    pub(super) until: Option<Mono>,
}

/// Why we offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The other leg waits for the answer.
    Asked,
    /// It did, but not any longer.
    GivenUp,
    /// An answer came too late: the far end is brought back to the session that the other leg has.
    Restoring,
    /// Nothing changes: the session timer wants it.
    Refreshing,
}

/// What the other leg says to what the far end has agreed to already, in an ACK or to an offer of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// Nothing against it, as yet.
    Agreed,
    /// It refused: the far end is asked to go back.
    Refused,
    /// It refused once more, as the far end did not go back: it is asked again whenever the far end says that again.
    RefusedAgain,
}

/// How many changes the far end has wanted of late.
#[derive(Debug, Default)]
pub(super) struct Pace {
    since: Mono,
    count: u8,
}

impl Pace {
    /// Counts one; false when it is one too many.
    pub(super) fn admits(&mut self, now: Mono) -> bool {
        if self.count == 0 || now.since(self.since) >= PACE_TIME {
            *self = Self { since: now, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count <= PACE_MAX
    }
}

impl Change {
    /// Whether anybody waits for what our offer leads to.
    pub(super) fn is_wanted(&self) -> bool {
        matches!(self, Self::Ours(ours) if ours.purpose != Purpose::GivenUp)
    }

    /// Whether the other leg waits for the answer.
    pub(super) fn is_asked(&self) -> bool {
        match self {
            Self::Theirs(_) | Self::TakenBack(_) => false,
            Self::Ours(ours) => ours.purpose == Purpose::Asked,
            Self::Waiting(waiting) => waiting.purpose == Purpose::Asked,
        }
    }

    /// Our re-INVITE has left once more, with credentials.
    pub(super) fn left_again(&mut self, invite: SentInvite) {
        if let Self::Ours(ours) = self {
            ours.cseq = invite.read().map_or(ours.cseq, |sent| sent.cseq().0);
            (ours.invite, ours.provisional) = (Some(invite), false);
        }
    }

    /// Our early UPDATE has left once more, with this CSeq.
    pub(super) fn update_left_again(&mut self, cseq: u32) {
        if let Self::Ours(ours) = self {
            ours.cseq = cseq;
        }
    }

    pub(super) fn next_time(&self) -> Option<Mono> {
        match self {
            Self::Theirs(theirs) => Some(theirs.until),
            Self::Ours(ours) => ours.until,
            Self::Waiting(waiting) => Some(waiting.at),
            Self::TakenBack(until) => Some(*until),
        }
    }
}
