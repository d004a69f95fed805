//! The part of the call machine while both talk: renewals, the cut-off, and the end of either leg (C2, C4).

use super::endings::{end, ended_by, service_hangup};
use super::machine::{CallCore, RENEWAL_LIMIT, State, hang_up, other_leg};
use super::protocol::{Action, Ask, Progress};
use super::timers::Timer;
use crate::account::authorize::Funding;
use crate::account::holds::{CUTOFF_LEAD, renewal_lead};
use crate::account::settle::{CallEnd, Renewed};
use schema::call::LegSide;
use schema::leg::{EndCause, HangupCause, LegCommand, LegEvent, LegId};
use schema::time::{Mono, Now};
use schema::wrong::{self, Wrong};
use std::sync::Arc;
use std::time::Duration;

/// A leg's BYE waits for its phone for 64·T1 at most, then for its answer as long, after an ACK that took as long. What it takes by a
/// further flow of the phone is not waited for.
const OUTCOME_MAX: Duration = Duration::from_secs(100);

/// A BYE over UDP is repeated for so long: 64·T1 (RFC 3261 §17.1.2.2).
const REPEATED_MAX: Duration = Duration::from_secs(32);

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
    /// Which legs are not known to be there since the restart.
    pub(super) doubt: Doubt,
    /// The caller's last sign of life in this process: the answer, then what its leg tells.
    pub(super) seen: Option<Now>,
    /// The caller's leg has told of one.
    pub(super) is_probed: bool,
    /// Taken up again, and nothing shows that the caller heard the answer: the process before may have refused it.
    pub(super) is_unheard: bool,
}

/// Legs that may have ended while no process was there to hear of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Doubt {
    pub(super) a: bool,
    pub(super) b: bool,
}

impl Doubt {
    pub(super) const fn any(self) -> bool {
        self.a || self.b
    }

    const fn has(self, side: LegSide) -> bool {
        match side {
            LegSide::A => self.a,
            LegSide::B => self.b,
        }
    }

    /// A BYE that is a leg's first word since the restart may be repeated from before, for as long as one is: when the leg ended
    /// is unknown then.
    fn what_is_known(self, side: LegSide, cause: EndCause, since_restart: Duration) -> EndCause {
        match cause {
            EndCause::Bye { .. } if self.has(side) && since_restart < REPEATED_MAX => EndCause::Lost,
            _ => cause,
        }
    }

    pub(super) const fn clear(&mut self, side: LegSide) {
        match side {
            LegSide::A => self.a = false,
            LegSide::B => self.b = false,
        }
    }
}

/// Both legs were told to end, and what became of those in doubt decides until when the call is billed.
pub(super) struct Ending {
    pub(super) end: CallEnd,
    pub(super) waits_for: Doubt,
    pub(super) b_leg: LegId,
    /// When the call was taken up.
    pub(super) since: Mono,
    /// As [`Talking::is_unheard`].
    pub(super) is_unheard: bool,
}

/// The end of a call of which a leg had ended before, nobody knows when: it is billed to its last proof of life, and not at all when
/// nothing shows that the caller heard its answer.
fn unknown(ended: CallEnd, is_unheard: bool, now: Now) -> CallEnd {
    if is_unheard { CallEnd { at: Some(now), late_answer: true, ..ended } } else { CallEnd { at: None, ..ended } }
}

impl Talking {
    pub(super) fn boundary(&self) -> Duration {
        Duration::from_secs(self.funding.paid_s.min(self.funding.limit_s))
    }

    /// When the talk time reaches `talk`; now or in the past when it has.
    pub(super) fn at(&self, talk: Duration) -> Mono {
        self.since + talk.saturating_sub(self.base)
    }

    /// The newest moment at which both were there, as far as is known; `None`: none since the restart.
    pub(super) fn proof(&self) -> Option<Now> {
        self.seen.filter(|_| !self.doubt.any())
    }

    /// The leg at the other side of this one.
    const fn other(&self, leg: LegId) -> LegId {
        other_leg(leg, self.b_leg)
    }

    pub(super) const fn is_at_limit(&self) -> bool {
        self.funding.paid_s >= self.funding.limit_s
    }
}

impl CallCore {
    pub(super) fn talking(&mut self, mut talking: Talking, event: LegEvent, now: Now, actions: &mut Vec<Action>) {
        match event {
            LegEvent::Ended { leg, cause } if leg.side == LegSide::A || leg == talking.b_leg => {
                // C4: whichever leg ends, the other is ended.
                if !(wrong::chosen(Wrong::LegForgotten) && leg.side == LegSide::A && talking.doubt.a) {
                    actions.push(hang_up(talking.other(leg), HangupCause::OtherLeg));
                }
                // Who hangs up has heard.
                talking.is_unheard &= leg.side == LegSide::B || !matches!(cause, EndCause::Bye { .. });
                let cause = talking.doubt.what_is_known(leg.side, cause, now.mono.since(talking.since));
                let is_lost = cause == EndCause::Lost;
                let ended = end(ended_by(leg.side, cause));
                // When a leg was lost is unknown: the call is billed to the last moment at which it was there. Where nobody is
                // asked, what the last renewal has stored is better.
                let ended = match talking.proof().filter(|_| self.is_watched) {
                    _ if !is_lost => CallEnd { at: Some(now), ..ended },
                    Some(proof) => CallEnd { at: Some(proof), ..ended },
                    None => unknown(ended, talking.is_unheard, now),
                };
                let mut waits_for = if is_lost { Doubt::default() } else { talking.doubt };
                waits_for.clear(leg.side);
                self.end_when_known(&talking, waits_for, ended, now, actions);
            }
            LegEvent::Alive { leg } if leg.side == LegSide::A || leg == talking.b_leg => {
                talking.doubt.clear(leg.side);
                if leg.side == LegSide::A {
                    (talking.is_probed, talking.is_unheard) = (true, false);
                    talking.seen = Some(now);
                }
                self.state = State::Talking(talking);
            }
            LegEvent::Unwatched { leg } if leg.side == LegSide::A || leg == talking.b_leg => {
                talking.doubt.clear(leg.side);
                self.is_watched &= leg.side == LegSide::B;
                self.state = State::Talking(talking);
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
            // Sessions are the legs' business: what one wants and the other says to it pass by.
            LegEvent::Offered { leg, offer } if leg.side == LegSide::A || leg == talking.b_leg => {
                actions.push(Action::Leg(LegCommand::Offer { leg: talking.other(leg), offer }));
                self.state = State::Talking(talking);
            }
            LegEvent::OfferAnswered { leg, answer } if leg.side == LegSide::A || leg == talking.b_leg => {
                actions.push(Action::Leg(LegCommand::AnswerOffer { leg: talking.other(leg), answer }));
                self.state = State::Talking(talking);
            }
            // The caller's answer to the carrier's offer.
            LegEvent::Confirmed { leg, answer: Some(answer) } if leg.side == LegSide::A => {
                talking.is_unheard = false;
                actions.push(Action::Leg(LegCommand::Confirm { leg: talking.b_leg, answer: Some(answer) }));
                self.state = State::Talking(talking);
            }
            LegEvent::KeyPressed { leg, key } if leg.side == LegSide::A || leg == talking.b_leg => {
                actions.push(Action::Leg(LegCommand::PressKey { leg: talking.other(leg), key }));
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
        let ended = CallEnd { at: Some(now), cut, ..end(service_hangup(cause, None)) };
        self.end_when_known(talking, talking.doubt, ended, now, actions);
    }

    /// Settles, or waits for what becomes of the legs that may have ended before: their BYEs are out.
    fn end_when_known(
        &mut self,
        talking: &Talking,
        waits_for: Doubt,
        ended: CallEnd,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        if !waits_for.any() {
            return self.settle(ended, actions);
        }
        // Should nobody be left to hear of them.
        actions.push(Action::Note(Arc::new(unknown(ended.clone(), talking.is_unheard, now))));
        actions.push(Action::Show(Progress::Ending));
        self.timers.clear_all();
        self.timers.set(Timer::Withdraw, now.mono + OUTCOME_MAX);
        let Talking { b_leg, since, is_unheard, .. } = *talking;
        self.state = State::Ending(Box::new(Ending { end: ended, waits_for, b_leg, since, is_unheard }));
    }

    pub(super) fn ending(&mut self, mut ending: Box<Ending>, event: &LegEvent, now: Now, actions: &mut Vec<Action>) {
        let is_its = |leg: LegId| leg.side == LegSide::A || leg == ending.b_leg;
        match event {
            LegEvent::Answered { leg, .. } => actions.push(hang_up(*leg, HangupCause::NotWanted)),
            LegEvent::Alive { leg } if is_its(*leg) => {
                ending.is_unheard &= leg.side == LegSide::B;
                ending.waits_for.clear(leg.side);
            }
            LegEvent::Unwatched { leg } if is_its(*leg) => ending.waits_for.clear(leg.side),
            LegEvent::Ended { leg, cause } if is_its(*leg) => {
                let since_restart = now.mono.since(ending.since);
                ending.is_unheard &= leg.side == LegSide::B || *cause == EndCause::Lost;
                if ending.waits_for.what_is_known(leg.side, *cause, since_restart) == EndCause::Lost {
                    return self.end_unknown(&ending, now, actions);
                }
                ending.waits_for.clear(leg.side);
            }
            _ => {}
        }
        if ending.waits_for.any() {
            self.state = State::Ending(ending);
        } else {
            self.settle(ending.end, actions);
        }
    }

    /// A leg had ended before, nobody knows when.
    pub(super) fn end_unknown(&mut self, ending: &Ending, now: Now, actions: &mut Vec<Action>) {
        let side = if ending.waits_for.a { LegSide::A } else { LegSide::B };
        self.settle(unknown(end(ended_by(side, EndCause::Lost)), ending.is_unheard, now), actions);
    }

    pub(super) fn arm_talking(&mut self) {
        let State::Talking(talking) = &self.state else { return };
        let boundary = talking.boundary();
        let late = if wrong::chosen(Wrong::LateCutOff) { Duration::from_millis(600) } else { Duration::ZERO };
        let early = if wrong::chosen(Wrong::EarlyCutOff) { Duration::from_secs(10) } else { Duration::ZERO };
        self.timers.set(Timer::CutOff, talking.at(boundary.saturating_sub(CUTOFF_LEAD + early) + late));
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
            // Of a phone that is not asked whether it is there nothing better is known than that its leg has not ended.
            let proof = if talking.is_probed || talking.doubt.any() { talking.proof() } else { Some(now) };
            actions.push(Action::Ask(Ask::Renew { step, proof, limit }));
        }
        self.state = State::Talking(talking);
    }

    /// When the cut-off came due meanwhile it comes by its timer, behind what waits: a BYE among it ends the call, and is billed.
    pub(super) fn renewed(&mut self, mut talking: Talking, renewed: Renewed) {
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
    }

    /// Whether the money was set aside is unknown. The same step is asked for once more while there is time.
    pub(super) fn renewal_unknown(&mut self, talking: Talking, now: Now) {
        self.state = State::Talking(talking);
        self.arm_talking();
        self.timers.set(Timer::Renew, now.mono + Duration::from_secs(1));
    }

    pub(super) fn on_funds_changed(&mut self, now: Now, actions: &mut Vec<Action>) {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Talking(talking) if talking.short => self.renew(talking, now, actions),
            other => self.state = other,
        }
    }
}
