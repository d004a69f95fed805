//! The words between the call machine and whoever runs it: what it is told, what it wants done.

use crate::account::authorize::{Authorized, CallRequest, Funding, Grant};
use crate::account::failover::{AttemptFailed, NextAttempt};
use crate::account::settle::{AnswerRequest, CallEnd, Renewed, Settled};
use schema::call::{Call, LegSide, LiveCall};
use schema::leg::{Checkpoint, Dialogs, HangupCause, LegCommand, LegEvent, LegId, Sdp};
use schema::time::{Mono, Now};
use std::sync::Arc;
use std::time::Duration;

/// What the machine has to know of the caller's leg.
#[derive(Debug)]
pub struct CallersSide {
    /// The caller's offer.
    pub offer: Option<Sdp>,
    /// Whether its phone is asked from time to time whether it is there.
    pub is_watched: bool,
}

/// What comes to the machine.
#[derive(Debug)]
pub enum Input {
    /// A leg tells something.
    Leg(LegEvent),
    /// The account's answer to the last [`Action::Ask`].
    Reply(Reply),
    /// A timer may be due.
    TimeOut,
    /// Somebody outside wants the call to end.
    HangUp(HangupCause),
    /// Money came free: a renewal that was refused may be tried again.
    FundsChanged,
}

/// The account's answers.
#[derive(Debug)]
pub enum Reply {
    /// To [`Ask::Authorize`].
    Authorized(Authorized),
    /// To [`Ask::NextAttempt`].
    NextAttempt(NextAttempt),
    /// To [`Ask::Answer`]; `None`: no such call.
    Answered(Option<Funding>),
    /// To [`Ask::Renew`].
    Renewed(Renewed),
    /// To [`Ask::Settle`].
    Settled(Settled),
    /// No answer in time, or it was lost: the outcome is unknown, not failed.
    Unknown,
}

/// What the account is asked. One question at a time.
#[derive(Debug)]
pub enum Ask {
    /// May it proceed?
    Authorize(Arc<CallRequest>),
    /// Which way now?
    NextAttempt(AttemptFailed),
    /// Store the answer.
    Answer(Arc<AnswerRequest>),
    /// Pay a further slice, as hold number `step`.
    Renew {
        /// The hold's number.
        step: u32,
        /// The newest moment at which the call is known to have been up; `None`: none since it was taken up again.
        proof: Option<Now>,
        /// Time for the answer.
        limit: Duration,
    },
    /// End it.
    Settle(Arc<CallEnd>),
}

/// What the machine wants done, in this order.
#[derive(Debug)]
pub enum Action {
    /// Tell a leg.
    Leg(LegCommand),
    /// Ask the account and come back with [`Input::Reply`].
    Ask(Ask),
    /// Have the account keep a dialog's newest state; no answer.
    Keep(LegSide, Checkpoint),
    /// Settle it so should its actor fail.
    Note(Arc<CallEnd>),
    /// Show where the call is between its durable states.
    Show(Progress),
    /// The machine is done; the call as it stands in the history, unless it was refused or is unknown.
    Finish(Option<Box<Call>>),
}

/// Where a call is between its durable states; shown live, never stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The destination rings.
    Ringing {
        /// From our first INVITE to the first 180 or early media, in milliseconds.
        post_dial_delay_ms: u32,
    },
    /// A leg has ended, the other is being ended.
    Ending,
}

/// A call taken up again after a restart.
#[derive(Debug, Clone)]
pub struct TakenUp {
    /// As it is stored.
    pub live: LiveCall,
    /// Until where it is paid.
    pub funding: Funding,
    /// How long it had been talking at `at`; `None`: it was not answered.
    pub talk: Option<Duration>,
    /// When that was measured. Taking a call up may take a while.
    pub at: Mono,
    /// Of a call that was not answered: the permission of its running attempt.
    pub grant: Option<Grant>,
}

/// The dialogs of an answered call as they are stored; none of another call.
pub fn answered_dialogs(live: &LiveCall, dialogs: &Dialogs) -> impl Iterator<Item = (LegId, Checkpoint)> {
    let call = live.call.id;
    let attempt = live.attempt.as_ref().map_or(1, |attempt| attempt.number);
    let legs = [(LegId::a(call), &dialogs.a_leg), (LegId::b(call, attempt), &dialogs.b_leg)];
    let is_answered = live.answered.is_some();
    legs.into_iter().filter_map(move |(leg, checkpoint)| Some((leg, checkpoint.clone().filter(|_| is_answered)?)))
}
