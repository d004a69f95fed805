//! The call machine: what happens to a call, as a function of (state, input, now). It speaks to the two legs and to the
//! account, keeps its timers as data and never touches money: it asks.
//!
//! ```text
//!              granted              200 of B               stored
//! Authorizing ────────► Trying ───────────────► Answering ────────► Talking ─┐ a leg ended, cut off,
//!      │                │  ▲ │                      │ not stored             │ hung up
//!      │ refused        │  │ └── 503 … ─► Rerouting │                        ▼
//!      │                │  └──── granted ──┘ │      └──────────────────► Settling ─► Over
//!      │                │ cancelled,         │ no route                     ▲
//!      │                │ no answer          └──────────────────────────────┤
//!      │                └─────► Withdrawing ── B's final answer, or 2 s ────┤
//!      └─► Over                                                             │
//!          486, 603, … in Trying ───────────────────────────────────────────┘
//! ```
//!
//! While an answer of the account is awaited (Authorizing, Rerouting, Answering, Settling, and Talking during a renewal),
//! every other input waits in line; so no state has to think of it.
//!
//! Invariants: **C1** the INVITE to a carrier is made from a grant, which is durable before it is told; **C2** the cut-off
//! timer ends a call before its paid boundary; **C4** the end of one leg always ends the other.

use super::endings::{end, ended_by, service_hangup};
use super::protocol::{Action, Ask, CallersSide, Input, Progress, Reply, TakenUp};
use super::setup::Setup;
use super::talking::{Doubt, Ending, Talking};
use super::timers::{Timer, Timers};
use crate::account::authorize::{Authorized, CallRequest, Grant};
use crate::account::failover::{AttemptFailed, NextAttempt};
use crate::account::settle::{CallEnd, Settled};
use schema::call::{Hangup, HangupSide, LegSide, RefusalCode};
use schema::id::CallId;
use schema::leg::{Checkpoint, Dialogs, EndCause, HangupCause, Invite, LegCommand, LegEvent, LegId, Sdp, TakeBack};
use schema::time::{Mono, Now};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// From the first INVITE until somebody must have answered, over all attempts.
pub const RING_TIMEOUT: Duration = Duration::from_secs(60);
/// An attempt of which nothing but 100 was heard for so long is overtaken by the next one.
pub const FIRST_RINGING_TIMEOUT: Duration = Duration::from_secs(8);
/// After a cancel the B-leg's final answer is awaited so long, since a 200 that crosses it costs us something.
pub const WITHDRAW_TIMEOUT: Duration = Duration::from_secs(2);
/// Most attempts of a call.
pub const ATTEMPTS_MAX: u8 = 4;
/// Time for an answer of the account.
pub const ASK_LIMIT: Duration = Duration::from_secs(5);
/// Time for a renewal; after it the paid time is used and the call cut.
pub const RENEWAL_LIMIT: Duration = Duration::from_secs(2);
/// A caller acknowledges its answer within this time, 64·T1 of RFC 3261, or is hung up.
const UNCONFIRMED_MAX: Duration = Duration::from_secs(32);
/// Longest pause between two tries to settle.
const SETTLE_AGAIN_MAX: Duration = Duration::from_secs(5);
/// Inputs that wait while the account is asked; more are dropped, which only a flood of 18x can reach.
const DEFERRED_MAX: usize = 64;
/// Most 18x passed to the caller.
pub(super) const PROGRESS_MAX: u8 = 16;

/// The machine of one call.
pub struct CallCore {
    pub(super) call: CallId,
    pub(super) state: State,
    pub(super) timers: Timers,
    asking: bool,
    /// Inputs in line, with the moment they came.
    pub(super) deferred: VecDeque<(Input, Now)>,
    /// None once both talk.
    setup: Option<Box<Setup>>,
    pub(super) post_dial_delay_ms: Option<u32>,
    settle_tries: u32,
    /// The caller's phone is asked whether it is there.
    pub(super) is_watched: bool,
}

pub(super) enum State {
    Authorizing,
    Trying(Trying),
    /// `status` is what the attempt ended with; `None`: it is still up and will be overtaken.
    Rerouting(Trying, Option<FinalAnswer>),
    Answering(Trying, Answer),
    Withdrawing(Trying, Box<Withdrawal>),
    Talking(Talking),
    Ending(Box<Ending>),
    Settling(Arc<CallEnd>),
    Over,
}

#[derive(Clone, Copy)]
pub(super) struct Trying {
    pub(super) leg: LegId,
    /// When its INVITE was told.
    pub(super) since: Mono,
    pub(super) rang: bool,
}

pub(super) struct Answer {
    pub(super) sdp: Option<Sdp>,
    /// It is an offer, since the caller made none: the B-leg is confirmed with the caller's answer.
    pub(super) offers: bool,
    pub(super) at: Now,
}

pub(super) struct Withdrawal {
    pub(super) hangup: Hangup,
    pub(super) at: Now,
}

pub(super) struct FinalAnswer {
    pub(super) status: u16,
    pub(super) q850: Option<u8>,
    pub(super) redress: Option<String>,
    /// It was a 200 that nobody could use, which the carrier charges for.
    pub(super) answered: bool,
}

impl CallCore {
    /// A call that somebody wants to make. The actions ask the account.
    #[must_use]
    pub fn begin(request: CallRequest, caller: CallersSide, retry_after_s: u32) -> (Self, Vec<Action>) {
        let mut core = Self::new(request.call, State::Authorizing);
        *core.setup() = Setup { offer: caller.offer, retry_after_s, ..Setup::default() };
        core.is_watched = caller.is_watched;
        core.asking = true;
        (core, vec![Action::Ask(Ask::Authorize(Arc::new(request)))])
    }

    /// A call after a restart. An answered one, whose dialogs are resumed ([`answered_dialogs`]), goes on: the actions ask both
    /// sides whether they are still there. Another one ends.
    ///
    /// [`answered_dialogs`]: super::protocol::answered_dialogs
    #[must_use]
    pub fn resume(taken: TakenUp, dialogs: Dialogs, retry_after_s: u32, now: Now) -> (Self, Vec<Action>) {
        let Some(talk) = taken.talk else { return Self::take_back(taken, dialogs.a_leg, retry_after_s, now) };
        let call = taken.live.call.id;
        let attempt = taken.live.attempt.as_ref().map_or(1, |a| a.number);
        let mut talking = Talking {
            b_leg: LegId::b(call, attempt),
            base: talk,
            since: taken.at,
            funding: taken.funding,
            short: false,
            overdue: false,
            doubt: Doubt { a: true, b: true },
            seen: None,
            is_probed: false,
        };
        talking.overdue = talk > talking.boundary();
        let (a_leg, b_leg) = (LegId::a(call), talking.b_leg);
        let mut core = Self::new(call, State::Talking(talking));
        core.arm_talking();
        // Shortly after an answer nobody knows whether the caller has heard of it: it is told again, and asked when
        // it has acknowledged that.
        let ask_caller = if talk < UNCONFIRMED_MAX {
            LegCommand::Accept { leg: a_leg, sdp: dialogs.answer_sdp }
        } else {
            LegCommand::Probe { leg: a_leg }
        };
        (core, vec![Action::Leg(ask_caller), Action::Leg(LegCommand::Probe { leg: b_leg })])
    }

    /// A call that was not answered when the process before ended: its caller is refused, its attempt cancelled, and what the
    /// carrier says to that is awaited as after any cancel.
    fn take_back(taken: TakenUp, a_leg: Option<Checkpoint>, retry_after_s: u32, now: Now) -> (Self, Vec<Action>) {
        let (call, mut actions) = (taken.live.call.id, Vec::new());
        let mut core = Self::new(call, State::Over);
        let hangup = service_hangup(HangupCause::ServiceFailure, Some(RefusalCode::Unavailable.sip_status()));
        let invite = taken.grant.map(|grant| {
            let mut invite = Self::invite_of(LegId::b(call, grant.attempt.number), &grant);
            invite.ring_timeout_s = u32::try_from(WITHDRAW_TIMEOUT.as_secs()).unwrap_or(u32::MAX);
            Box::new(invite)
        });
        let number = taken.live.attempt.as_ref().map_or(1, |attempt| attempt.number);
        let trying = Trying { leg: LegId::b(call, number), since: now.mono, rang: false };
        actions.extend(a_leg.map(|checkpoint| {
            let leg = LegId::a(call);
            Action::Leg(LegCommand::TakeBack(Box::new(TakeBack { leg, checkpoint, invite, retry_after_s })))
        }));
        actions.push(Action::Show(Progress::Ending));
        core.timers.set(Timer::Withdraw, now.mono + WITHDRAW_TIMEOUT);
        core.state = State::Withdrawing(trying, Box::new(Withdrawal { hangup, at: now }));
        (core, actions)
    }

    /// An attempt's INVITE, without offer and time.
    fn invite_of(leg: LegId, grant: &Grant) -> Invite {
        Invite {
            leg,
            trunk: grant.attempt.trunk,
            gateway: grant.attempt.gateway,
            name: grant.attempt.name.clone(),
            trusted: grant.trusted,
            ids: grant.attempt.ids.clone(),
            destination: grant.destination.clone(),
            presentation: grant.presentation.clone(),
            offer: None,
            ring_timeout_s: 0,
        }
    }

    fn new(call: CallId, state: State) -> Self {
        Self {
            call,
            state,
            timers: Timers::default(),
            asking: false,
            deferred: VecDeque::new(),
            setup: None,
            post_dial_delay_ms: None,
            settle_tries: 0,
            is_watched: true,
        }
    }

    /// What is remembered until the answer.
    pub(super) fn setup(&mut self) -> &mut Setup {
        self.setup.get_or_insert_default()
    }

    /// Both talk.
    pub(super) fn end_setup(&mut self) {
        self.setup = None;
    }

    /// Takes an input. Inputs that have to wait for the account are taken after its reply, in order.
    pub fn on(&mut self, input: Input, now: Now) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::Reply(reply) => {
                self.asking = false;
                self.on_reply(reply, now, &mut actions);
            }
            other if self.asking => self.defer(other, now),
            other => self.step(other, now, &mut actions),
        }
        while !self.asking {
            let Some((next, at)) = self.deferred.pop_front() else {
                self.deferred.shrink_to_fit();
                break;
            };
            self.step(next, at, &mut actions);
        }
        self.asking = self.asking || actions.iter().any(|a| matches!(a, Action::Ask(_)));
        actions
    }

    /// When [`Input::TimeOut`] is due; `None`: never, as things stand.
    #[must_use]
    pub fn next_timer(&self) -> Option<Mono> {
        if self.asking { None } else { self.timers.next() }
    }

    /// Whether it is done.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Whether it is being settled: its money is decided, nothing its legs say changes anything.
    #[cfg(test)]
    pub(super) const fn is_ending(&self) -> bool {
        matches!(self.state, State::Settling(_) | State::Over)
    }

    fn defer(&mut self, input: Input, now: Now) {
        if self.deferred.len() < DEFERRED_MAX {
            self.deferred.push_back((input, now));
        }
    }

    fn step(&mut self, input: Input, now: Now, actions: &mut Vec<Action>) {
        match input {
            Input::Leg(event) => self.on_leg(event, now, actions),
            Input::TimeOut => self.on_time_out(now, actions),
            Input::HangUp(cause) => self.on_hang_up(cause, now, actions),
            Input::FundsChanged => self.on_funds_changed(now, actions),
            Input::Reply(reply) => self.on_reply(reply, now, actions),
        }
        self.asking = self.asking || actions.iter().any(|a| matches!(a, Action::Ask(_)));
    }

    fn on_reply(&mut self, reply: Reply, now: Now, actions: &mut Vec<Action>) {
        let state = std::mem::replace(&mut self.state, State::Over);
        match (state, reply) {
            (State::Authorizing, Reply::Authorized(authorized)) => self.authorized(authorized, now, actions),
            (State::Authorizing, _) => self.give_up_unauthorized(now, actions),
            (State::Rerouting(old, ended), Reply::NextAttempt(NextAttempt::Granted(grant))) => {
                if ended.is_none() {
                    actions.push(hang_up(old.leg, HangupCause::NotWanted));
                }
                self.invite(*grant, now, actions);
            }
            (State::Rerouting(old, Some(ended)), Reply::NextAttempt(NextAttempt::Refused(refusal))) => {
                self.fail_refused(old, &ended, &refusal, now, actions);
            }
            (State::Rerouting(old, Some(ended)), _) => self.fail(old, &ended, now, actions),
            // Nobody else can take the call: the attempt that was slow goes on.
            (State::Rerouting(old, None), _) => self.state = State::Trying(old),
            (State::Answering(trying, answer), Reply::Answered(Some(funding))) => {
                self.connect(trying, answer, funding, actions);
            }
            (State::Answering(trying, answer), _) => self.answer_not_stored(trying, answer.at, actions),
            (State::Talking(talking), Reply::Renewed(renewed)) => self.renewed(talking, renewed),
            (State::Talking(talking), _) => self.renewal_unknown(talking, now),
            (State::Settling(_), Reply::Settled(settled)) => {
                let call = match settled {
                    Settled::Done(call) => Some(call),
                    Settled::NotLive => None,
                };
                actions.push(Action::Finish(call));
            }
            (State::Settling(end), _) => self.settle_again_later(end, now),
            (other, _) => self.state = other,
        }
    }

    fn authorized(&mut self, authorized: Authorized, now: Now, actions: &mut Vec<Action>) {
        match authorized {
            Authorized::Granted(grant) => {
                self.setup().first_invite = Some(now.mono);
                self.timers.set(Timer::Ring, now.mono + RING_TIMEOUT);
                self.invite(*grant, now, actions);
            }
            Authorized::Refused(refusal) => {
                self.reject(refusal.code, actions);
                actions.push(Action::Finish(None));
            }
        }
    }

    /// The account did not answer: whether it set money aside is unknown, so what it may have set aside is voided.
    fn give_up_unauthorized(&mut self, now: Now, actions: &mut Vec<Action>) {
        let code = RefusalCode::Unavailable;
        actions.push(Action::Leg(LegCommand::Reject {
            leg: LegId::a(self.call),
            status: code.sip_status(),
            reason: Some("the account could not be asked in time".into()),
            retry_after_s: Some(self.setup().retry_after_s),
        }));
        let hangup = service_hangup(HangupCause::ServiceFailure, Some(code.sip_status()));
        self.settle(CallEnd { at: Some(now), ..end(hangup) }, actions);
    }

    fn invite(&mut self, grant: Grant, now: Now, actions: &mut Vec<Action>) {
        let leg = LegId::b(self.call, grant.attempt.number);
        let setup = self.setup();
        let left = RING_TIMEOUT.saturating_sub(setup.rung(now)).as_secs().max(1);
        let ring_timeout_s = u32::try_from(left).unwrap_or(u32::MAX);
        let invite = Invite { offer: setup.offer.clone(), ring_timeout_s, ..Self::invite_of(leg, &grant) };
        setup.granted.push(Arc::new(grant.attempt));
        actions.push(Action::Leg(LegCommand::Invite(Box::new(invite))));
        self.timers.set(Timer::FirstRinging, now.mono + FIRST_RINGING_TIMEOUT);
        self.state = State::Trying(Trying { leg, since: now.mono, rang: false });
    }

    fn on_leg(&mut self, event: LegEvent, now: Now, actions: &mut Vec<Action>) {
        let state = std::mem::replace(&mut self.state, State::Over);
        match (state, event) {
            (State::Trying(trying), LegEvent::Progress { leg, status, sdp, rings }) if leg == trying.leg => {
                self.progress(trying, (status, sdp), rings, now, actions);
            }
            (State::Trying(trying), LegEvent::Answered { leg, sdp, offers, checkpoint }) if leg == trying.leg => {
                self.answered(trying, Answer { sdp, offers, at: now }, checkpoint, actions);
            }
            (State::Trying(trying), LegEvent::Failed { leg, status, q850, rang, redress, answered })
                if leg == trying.leg =>
            {
                let trying = Trying { rang: rang || trying.rang, ..trying };
                self.failed(trying, FinalAnswer { status, q850, redress, answered }, now, actions);
            }
            (State::Trying(trying), LegEvent::Ended { leg, cause: cause @ EndCause::NoPrack })
                if leg.side == LegSide::A =>
            {
                self.withdraw(trying, HangupCause::NotWanted, ended_by(LegSide::A, cause), now, actions);
            }
            (State::Trying(trying), LegEvent::Cancelled { leg } | LegEvent::Ended { leg, .. })
                if leg.side == LegSide::A =>
            {
                let hangup = Hangup {
                    side: HangupSide::Caller,
                    sip_code: Some(487),
                    q850: Some(HangupCause::Cancelled.q850()),
                    reason: HangupCause::Cancelled.as_str().to_owned(),
                    redress: None,
                };
                self.withdraw(trying, HangupCause::Cancelled, hangup, now, actions);
            }
            // What one side wants before the answer the other is asked, as during the call.
            (State::Trying(trying), LegEvent::Offered { leg, offer })
                if leg.side == LegSide::A || leg == trying.leg =>
            {
                actions.push(Action::Leg(LegCommand::Offer { leg: other_leg(leg, trying.leg), offer }));
                self.state = State::Trying(trying);
            }
            (State::Trying(trying), LegEvent::OfferAnswered { leg, answer })
                if leg.side == LegSide::A || leg == trying.leg =>
            {
                actions.push(Action::Leg(LegCommand::AnswerOffer { leg: other_leg(leg, trying.leg), answer }));
                self.state = State::Trying(trying);
            }
            (State::Withdrawing(trying, wait), event) => self.withdrawing(trying, wait, event, actions),
            (State::Talking(talking), event) => self.talking(talking, event, now, actions),
            (State::Ending(ending), event) => self.ending(ending, &event, now, actions),
            (state, LegEvent::Answered { leg, .. }) => {
                // A 200 of an attempt that is no longer wanted, or after the end: nobody is there to talk to.
                self.state = state;
                actions.push(hang_up(leg, HangupCause::NotWanted));
            }
            (state, _) => self.state = state,
        }
    }

    fn on_hang_up(&mut self, cause: HangupCause, now: Now, actions: &mut Vec<Action>) {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Trying(trying) => {
                actions.push(hang_up(LegId::a(self.call), cause));
                self.withdraw(trying, cause, service_hangup(cause, None), now, actions);
            }
            // Not cut off: billed to now.
            State::Talking(talking) => self.hang_up_both(&talking, cause, false, now, actions),
            other => self.state = other,
        }
    }

    pub(super) fn settle(&mut self, mut end: CallEnd, actions: &mut Vec<Action>) {
        self.timers.clear_all();
        end.post_dial_delay_ms = self.post_dial_delay_ms;
        actions.push(Action::Show(Progress::Ending));
        let end = Arc::new(end);
        actions.push(Action::Ask(Ask::Settle(end.clone())));
        self.state = State::Settling(end);
    }

    /// Settling is asked again until it is answered; the same question never charges twice.
    fn settle_again_later(&mut self, end: Arc<CallEnd>, now: Now) {
        let pause = Duration::from_secs(1 << self.settle_tries.min(3)).min(SETTLE_AGAIN_MAX);
        self.settle_tries += 1;
        self.timers.set(Timer::SettleAgain, now.mono + pause);
        self.state = State::Settling(end);
    }

    fn on_time_out(&mut self, now: Now, actions: &mut Vec<Action>) {
        while let Some(timer) = self.timers.pop_due(now.mono) {
            self.time_out(timer, now, actions);
            if actions.iter().any(|a| matches!(a, Action::Ask(_))) {
                break;
            }
        }
    }

    fn time_out(&mut self, timer: Timer, now: Now, actions: &mut Vec<Action>) {
        match (timer, std::mem::replace(&mut self.state, State::Over)) {
            (Timer::Ring, State::Trying(trying)) => {
                let status = 480;
                actions.push(Action::Leg(LegCommand::Reject {
                    leg: LegId::a(self.call),
                    status,
                    reason: Some(HangupCause::NoAnswer.as_str().into()),
                    retry_after_s: None,
                }));
                let side = if trying.rang { HangupSide::Callee } else { HangupSide::Carrier };
                let hangup = Hangup { side, ..service_hangup(HangupCause::NoAnswer, Some(status)) };
                self.withdraw(trying, HangupCause::NoAnswer, hangup, now, actions);
            }
            (Timer::FirstRinging, State::Trying(trying)) if trying.leg.attempt < ATTEMPTS_MAX => {
                self.reroute(trying, None, actions);
            }
            (Timer::Withdraw, State::Withdrawing(trying, wait)) => {
                let failed = AttemptFailed { number: trying.leg.attempt, sip_code: 487 };
                self.settle(CallEnd { at: Some(wait.at), failed: Some(failed), ..end(wait.hangup) }, actions);
            }
            (Timer::Withdraw, State::Ending(ending)) => self.end_unknown(&ending, actions),
            (Timer::Renew, State::Talking(talking)) => self.renew(talking, now, actions),
            (Timer::CutOff, State::Talking(talking)) => {
                // C2: the grant ends, and the call with it.
                let at_limit = talking.is_at_limit();
                let cause = if at_limit { HangupCause::DurationLimit } else { HangupCause::FundsExhausted };
                self.hang_up_both(&talking, cause, !talking.overdue, now, actions);
            }
            (Timer::SettleAgain, State::Settling(end)) => {
                actions.push(Action::Ask(Ask::Settle(end.clone())));
                self.state = State::Settling(end);
            }
            (_, state) => self.state = state,
        }
    }
}

/// The leg at the other side of this one.
pub(super) const fn other_leg(leg: LegId, b_leg: LegId) -> LegId {
    match leg.side {
        LegSide::A => b_leg,
        LegSide::B => LegId::a(leg.call),
    }
}

pub(super) const fn hang_up(leg: LegId, cause: HangupCause) -> Action {
    Action::Leg(LegCommand::HangUp { leg, cause })
}
