//! The part of the call machine from the INVITE to the answer, or to the end without one.

use super::endings::{end, service_hangup};
use super::machine::{
    ATTEMPTS_MAX, Answer, CallCore, FinalAnswer, PROGRESS_MAX, RING_TIMEOUT, State, Trying, WITHDRAW_TIMEOUT,
    Withdrawal, hang_up,
};
use super::protocol::{Action, Ask, Progress};
use super::reasons;
use super::talking::{Doubt, Talking};
use super::timers::Timer;
use crate::account::authorize::Funding;
use crate::account::failover::AttemptFailed;
use crate::account::settle::{AnswerRequest, CallEnd};
use schema::call::{Attempt, Hangup, HangupSide, Refusal, RefusalCode};
use schema::leg::{Checkpoint, HangupCause, LegCommand, LegEvent, LegId, Sdp};
use schema::time::{Mono, Now};
use std::sync::Arc;
use std::time::Duration;

/// What is remembered until the answer.
#[derive(Default)]
pub(super) struct Setup {
    /// The caller's offer, for each attempt.
    pub(super) offer: Option<Sdp>,
    /// The attempts made, at most [`ATTEMPTS_MAX`].
    pub(super) granted: Vec<Arc<Attempt>>,
    /// How many 18x the caller was passed.
    pub(super) forwarded: u8,
    /// When the first INVITE left.
    pub(super) first_invite: Option<Mono>,
    /// Seconds for Retry-After, jittered by whoever made the machine.
    pub(super) retry_after_s: u32,
}

impl Setup {
    /// How long it has rung, over all attempts.
    pub(super) fn rung(&self, now: Now) -> Duration {
        self.first_invite.map_or(Duration::ZERO, |first| now.mono.since(first))
    }
}

impl CallCore {
    pub(super) fn progress(
        &mut self,
        trying: Trying,
        (status, sdp): (u16, Option<Sdp>),
        rings: bool,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        self.timers.clear(Timer::FirstRinging);
        // A 183 alone and a forwarding say only that the carrier is at work: it is not overtaken, and another one may follow it.
        if rings {
            let post_dial_delay_ms = self.note_post_dial_delay(now);
            if !trying.rang {
                actions.push(Action::Show(Progress::Ringing { post_dial_delay_ms }));
            }
        }
        if self.setup().forwarded < PROGRESS_MAX {
            self.setup().forwarded += 1;
            actions.push(Action::Leg(LegCommand::Progress { leg: LegId::a(self.call), status, sdp }));
        }
        self.state = State::Trying(Trying { rang: trying.rang || rings, ..trying });
    }

    pub(super) fn note_post_dial_delay(&mut self, now: Now) -> u32 {
        let waited = self.setup().rung(now);
        *self.post_dial_delay_ms.get_or_insert(u32::try_from(waited.as_millis()).unwrap_or(u32::MAX))
    }

    pub(super) fn answered(&mut self, trying: Trying, answer: Answer, b_leg: Checkpoint, actions: &mut Vec<Action>) {
        self.timers.clear_all();
        let attempt = self.setup().granted.iter().find(|attempt| attempt.number == trying.leg.attempt).cloned();
        let request = AnswerRequest {
            call: self.call,
            attempt,
            at: answer.at,
            b_leg,
            answer_sdp: answer.sdp.clone(),
            post_dial_delay_ms: self.note_post_dial_delay(answer.at),
        };
        actions.push(Action::Ask(Ask::Answer(Arc::new(request))));
        self.state = State::Answering(trying, answer);
    }

    pub(super) fn connect(&mut self, trying: Trying, answer: Answer, funding: Funding, actions: &mut Vec<Action>) {
        if !answer.offers {
            actions.push(Action::Leg(LegCommand::Confirm { leg: trying.leg, answer: None }));
        }
        actions.push(Action::Leg(LegCommand::Accept { leg: LegId::a(self.call), sdp: answer.sdp }));
        self.end_setup();
        let since = answer.at.mono;
        let talking = Talking {
            b_leg: trying.leg,
            base: Duration::ZERO,
            since,
            funding,
            short: false,
            overdue: false,
            doubt: Doubt::default(),
            seen: Some(answer.at),
            is_probed: false,
            is_unheard: false,
        };
        self.state = State::Talking(talking);
        self.arm_talking();
    }

    /// The answer could not be stored, so it must not be charged: the caller never hears it.
    pub(super) fn answer_not_stored(&mut self, trying: Trying, at: Now, actions: &mut Vec<Action>) {
        actions.push(hang_up(trying.leg, HangupCause::ServiceFailure));
        actions.push(hang_up(LegId::a(self.call), HangupCause::ServiceFailure));
        let hangup = service_hangup(HangupCause::ServiceFailure, None);
        self.settle(CallEnd { at: Some(at), late_answer: true, ..end(hangup) }, actions);
    }

    pub(super) fn failed(&mut self, trying: Trying, ended: FinalAnswer, now: Now, actions: &mut Vec<Action>) {
        self.timers.clear(Timer::FirstRinging);
        let again = reasons::may_reroute(ended.status)
            && !trying.rang
            && !ended.answered
            && trying.leg.attempt < ATTEMPTS_MAX
            && self.setup().rung(now) < RING_TIMEOUT;
        if !again {
            self.note_post_dial_delay(now);
            return self.fail(trying, &ended, now, actions);
        }
        self.reroute(trying, Some(ended), actions);
    }

    pub(super) fn reroute(&mut self, trying: Trying, ended: Option<FinalAnswer>, actions: &mut Vec<Action>) {
        let sip_code = ended.as_ref().map_or(408, |ended| ended.status);
        let failed = AttemptFailed { number: trying.leg.attempt, sip_code };
        actions.push(Action::Ask(Ask::NextAttempt(failed)));
        self.state = State::Rerouting(trying, ended);
    }

    /// The last attempt failed: the caller is told, the call settled.
    pub(super) fn fail(&mut self, trying: Trying, ended: &FinalAnswer, now: Now, actions: &mut Vec<Action>) {
        let callee = reasons::is_callee_decision(ended.status);
        actions.push(Action::Leg(LegCommand::Reject {
            leg: LegId::a(self.call),
            status: reasons::status_for_caller(ended.status),
            reason: Some(reasons::phrase(ended.status).into()),
            retry_after_s: None,
        }));
        let hangup = Hangup {
            side: if callee { HangupSide::Callee } else { HangupSide::Carrier },
            sip_code: Some(ended.status),
            q850: ended.q850.or(reasons::q850(ended.status)),
            reason: reasons::phrase(ended.status).to_owned(),
            redress: ended.redress.clone(),
        };
        let failed = AttemptFailed { number: trying.leg.attempt, sip_code: ended.status };
        let late_answer = ended.answered;
        self.settle(CallEnd { at: Some(now), failed: Some(failed), late_answer, ..end(hangup) }, actions);
    }

    /// The last attempt failed, and another may not be made: the caller is told why.
    pub(super) fn fail_refused(
        &mut self,
        trying: Trying,
        ended: &FinalAnswer,
        refusal: &Refusal,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        self.reject(refusal.code, actions);
        let hangup = Hangup {
            side: HangupSide::Service,
            sip_code: Some(refusal.code.sip_status()),
            q850: Some(21),
            reason: reasons::refusal(refusal.code).to_owned(),
            redress: None,
        };
        let failed = AttemptFailed { number: trying.leg.attempt, sip_code: ended.status };
        self.settle(CallEnd { at: Some(now), failed: Some(failed), ..end(hangup) }, actions);
    }

    /// The caller is refused by us.
    pub(super) fn reject(&mut self, code: RefusalCode, actions: &mut Vec<Action>) {
        let status = code.sip_status();
        actions.push(Action::Leg(LegCommand::Reject {
            leg: LegId::a(self.call),
            status,
            reason: Some(reasons::refusal(code).into()),
            retry_after_s: (status == 503).then_some(self.setup().retry_after_s),
        }));
    }

    /// The call is wanted no more before its answer: CANCEL, and a short wait for what the B-leg says to it.
    pub(super) fn withdraw(
        &mut self,
        trying: Trying,
        cause: HangupCause,
        hangup: Hangup,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        actions.push(hang_up(trying.leg, cause));
        actions.push(Action::Show(Progress::Ending));
        self.timers.clear_all();
        // What ended it may have waited in line while the account was asked: the INVITE may have left since.
        self.timers.set(Timer::Withdraw, now.mono.max(trying.since) + WITHDRAW_TIMEOUT);
        self.state = State::Withdrawing(trying, Box::new(Withdrawal { hangup, at: now }));
    }

    pub(super) fn withdrawing(
        &mut self,
        trying: Trying,
        wait: Box<Withdrawal>,
        event: LegEvent,
        actions: &mut Vec<Action>,
    ) {
        match event {
            // The 200 crossed the cancel, which was first: free for the customer, not for us.
            LegEvent::Failed { leg, answered: true, .. } if leg == trying.leg => {
                self.settle(CallEnd { at: Some(wait.at), late_answer: true, ..end(wait.hangup) }, actions);
            }
            LegEvent::Failed { leg, status, .. } if leg == trying.leg => {
                let failed = AttemptFailed { number: leg.attempt, sip_code: status };
                self.settle(CallEnd { at: Some(wait.at), failed: Some(failed), ..end(wait.hangup) }, actions);
            }
            LegEvent::Answered { leg, .. } => {
                actions.push(hang_up(leg, HangupCause::NotWanted));
                if leg == trying.leg {
                    self.settle(CallEnd { at: Some(wait.at), late_answer: true, ..end(wait.hangup) }, actions);
                } else {
                    self.state = State::Withdrawing(trying, wait);
                }
            }
            _ => self.state = State::Withdrawing(trying, wait),
        }
    }
}
