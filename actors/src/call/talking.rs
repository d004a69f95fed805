//! The part of the call machine while both talk: renewals, the cut-off, and the end of either leg (C2, C4).

use super::endings::{end, ended_by, service_hangup};
use super::machine::{CallCore, RENEWAL_LIMIT, State, hang_up};
use super::protocol::{Action, Ask, Input};
use super::timers::Timer;
use crate::account::authorize::Funding;
use crate::account::holds::{CUTOFF_LEAD, renewal_lead};
use crate::account::settle::{CallEnd, Renewed};
use schema::call::LegSide;
use schema::leg::{EndCause, HangupCause, LegEvent, LegId};
use schema::time::{Mono, Now};
use std::time::Duration;

/// Both talk.
pub(super) struct Talking {
    pub(super) b_leg: LegId,
    /// Talk time at `since`.
    pub(super) base: Duration,
    pub(super) since: Mono,
    pub(super) funding: Funding,
    /// The last renewal was refused for want of money.
    pub(super) short: bool,
    /// It was taken up again past its grant: what it really lasted is billed.
    pub(super) overdue: bool,
}

impl Talking {
    pub(super) fn boundary(&self) -> Duration {
        Duration::from_secs(self.funding.paid_s.min(self.funding.limit_s))
    }

    /// When the talk time reaches `talk`; now or in the past when it has.
    pub(super) fn at(&self, talk: Duration) -> Mono {
        self.since + talk.saturating_sub(self.base)
    }

    pub(super) const fn is_at_limit(&self) -> bool {
        self.funding.paid_s >= self.funding.limit_s
    }
}

impl CallCore {
    pub(super) fn talking(&mut self, talking: Talking, event: LegEvent, now: Now, actions: &mut Vec<Action>) {
        match event {
            LegEvent::Ended { leg, cause } if leg.side == LegSide::A || leg == talking.b_leg => {
                // C4: whichever leg ends, the other is ended.
                let other = if leg.side == LegSide::A { talking.b_leg } else { LegId::a(self.call) };
                actions.push(hang_up(other, HangupCause::OtherLeg));
                self.settle(CallEnd { at: Some(now), ..end(ended_by(leg.side, cause)) }, actions);
            }
            LegEvent::Cancelled { leg } if leg.side == LegSide::A => {
                // The answer was accepted before the cancel: it counts.
                actions.push(hang_up(talking.b_leg, HangupCause::OtherLeg));
                let hangup = ended_by(LegSide::A, EndCause::Bye { q850: None });
                self.settle(CallEnd { at: Some(now), ..end(hangup) }, actions);
            }
            LegEvent::Failed { leg, .. } if leg == talking.b_leg => {
                actions.push(hang_up(LegId::a(self.call), HangupCause::OtherLeg));
                self.settle(CallEnd { at: Some(now), ..end(ended_by(LegSide::B, EndCause::Lost)) }, actions);
            }
            LegEvent::Checkpointed { leg, checkpoint } if leg.side == LegSide::A || leg == talking.b_leg => {
                actions.push(Action::Keep(leg.side, checkpoint));
                self.state = State::Talking(talking);
            }
            LegEvent::Answered { leg, .. } if leg != talking.b_leg => {
                actions.push(hang_up(leg, HangupCause::NotWanted));
                self.state = State::Talking(talking);
            }
            _ => self.state = State::Talking(talking),
        }
    }

    pub(super) fn hang_up_both(
        &mut self,
        talking: &Talking,
        cause: HangupCause,
        cut: bool,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        actions.push(hang_up(LegId::a(self.call), cause));
        actions.push(hang_up(talking.b_leg, cause));
        self.settle(CallEnd { at: Some(now), cut, ..end(service_hangup(cause, None)) }, actions);
    }

    pub(super) fn arm_talking(&mut self) {
        let State::Talking(talking) = &self.state else { return };
        let boundary = talking.boundary();
        self.timers.set(Timer::CutOff, talking.at(boundary.saturating_sub(CUTOFF_LEAD)));
        if talking.is_at_limit() || talking.short {
            self.timers.clear(Timer::Renew);
        } else {
            let lead = renewal_lead(talking.funding.slice_s);
            let paid = Duration::from_secs(talking.funding.paid_s);
            self.timers.set(Timer::Renew, talking.at(paid.saturating_sub(lead)));
        }
    }

    /// Asks for a further slice, unless the paid boundary is too near to wait for the answer.
    pub(super) fn renew(&mut self, talking: Talking, now: Now, actions: &mut Vec<Action>) {
        // A BYE must still leave before the boundary when no answer comes.
        let margin = Duration::from_millis(50);
        let left = talking.at(talking.boundary()).since(now.mono).saturating_sub(margin);
        if !left.is_zero() {
            let (step, limit) = (talking.funding.step + 1, left.min(RENEWAL_LIMIT));
            actions.push(Action::Ask(Ask::Renew { step, limit }));
        }
        self.state = State::Talking(talking);
    }

    pub(super) fn renewed(&mut self, mut talking: Talking, renewed: Renewed, now: Now) {
        match renewed {
            Renewed::Paid(funding) => {
                talking.funding = funding;
                talking.short = false;
            }
            Renewed::NotAffordable => talking.short = true,
            Renewed::LimitReached => talking.funding.limit_s = talking.funding.limit_s.min(talking.funding.paid_s),
            // Somebody else settled it: what is paid is used up, then it ends.
            Renewed::NotLive => {
                talking.short = true;
                talking.funding.paid_s = 0;
            }
        }
        self.state = State::Talking(talking);
        self.arm_talking();
        self.cut_if_due(now);
    }

    /// Whether the money was set aside is unknown. The same step is asked for once more while there is time.
    pub(super) fn renewal_unknown(&mut self, talking: Talking, now: Now) {
        self.state = State::Talking(talking);
        self.arm_talking();
        self.timers.set(Timer::Renew, now.mono + Duration::from_secs(1));
        self.cut_if_due(now);
    }

    /// The cut-off may have come due while the account was asked: it is the next input then.
    pub(super) fn cut_if_due(&mut self, now: Now) {
        if self.timers.next().is_some_and(|at| at <= now.mono) {
            self.deferred.push_front((Input::TimeOut, now));
        }
    }

    pub(super) fn on_funds_changed(&mut self, now: Now, actions: &mut Vec<Action>) {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Talking(talking) if talking.short => self.renew(talking, now, actions),
            other => self.state = other,
        }
    }
}
