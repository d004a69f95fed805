//! What happens to a call's money after its grant: answer, renewals, checkpoints, and the settlement that ends its holds,
//! charges it and writes its CDR in one entry.

use super::authorize::{Funding, Grant, is_trusted};
use super::core::{AccountCore, Draft, LiveChange, Market, Patch, terms};
use super::failover::{AttemptFailed, attempt_record, note_outcome};
use super::holds::{self, NoSlice};
use super::ledger;
use super::meter::{self, Bill};
use crate::call::machine::RING_TIMEOUT;
use crate::call::protocol::TakenUp;
use schema::call::{Attempt, Call, CallState, Cdr, Hangup, LegSide, LiveCall};
use schema::event::EventBody;
use schema::id::{CallId, TransferId};
use schema::journal::Change;
use schema::ledger::{CarrierCost, Hold};
use schema::leg::{Checkpoint, Dialogs, Sdp};
use schema::money::Micros;
use schema::time::{ClockReading, Now};
use schema::wrong::{self, Wrong};
use std::sync::Arc;
use std::time::Duration;

/// How long a carrier knows an INVITE that it heard: it rings no longer than we want, and remembers what it said for 64·T1
/// (RFC 3261 §17.2.1).
const KNOWN_FOR: Duration = RING_TIMEOUT.saturating_add(Duration::from_secs(32));

/// The B-leg answered.
#[derive(Debug, Clone)]
pub struct AnswerRequest {
    /// Which call.
    pub call: CallId,
    /// Which attempt, as it was granted. Not always the stored one: the answer to a question for the next attempt may have
    /// been lost, and the slow one before it went on.
    pub attempt: Option<Arc<Attempt>>,
    /// When its 200 arrived.
    pub at: Now,
    /// The B-leg's dialog.
    pub b_leg: Checkpoint,
    /// The answer, for the A-leg's 200.
    pub answer_sdp: Option<Sdp>,
    /// From our INVITE to the first 180, early media or the 200.
    pub post_dial_delay_ms: u32,
}

/// The answer to [`AccountCore::renew`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    /// Paid until further.
    Paid(Funding),
    /// Not even one billing step can be paid now.
    NotAffordable,
    /// The longest duration is paid already.
    LimitReached,
    /// The account has no such live call.
    NotLive,
}

/// How a call ended, as its machine saw it.
#[derive(Debug, Clone)]
pub struct CallEnd {
    /// The first BYE sent or received; `None`: unknown, then the last proof of life counts.
    pub at: Option<Now>,
    /// Who, and why.
    pub hangup: Hangup,
    /// The last attempt, when it ended without an answer.
    pub failed: Option<AttemptFailed>,
    /// The B-leg answered after the caller had gone: nothing is charged, the carrier charges us.
    pub late_answer: bool,
    /// We cut it in time: billed at most its grant.
    pub cut: bool,
    /// From our INVITE to the first 180, early media or final answer.
    pub post_dial_delay_ms: Option<u32>,
}

/// The answer to [`AccountCore::settle`].
#[derive(Debug, Clone)]
pub enum Settled {
    /// The call as it stands in the history now.
    Done(Box<Call>),
    /// The account has no such live call: it was settled before, or never began.
    NotLive,
}

impl AccountCore {
    /// Stores an answer: from now on the call is charged. `None`: there is no such live call.
    #[must_use]
    pub fn answer(&self, request: &AnswerRequest, now: Now) -> (Option<Funding>, Option<Draft>) {
        let Some(live) = self.live.get(&request.call) else { return (None, None) };
        let funding = self.funding(live, live.paid_s);
        if live.answered.is_some() {
            return (Some(funding), None);
        }
        let mut next = LiveCall::clone(live);
        next.answered = Some(self.reading(request.at));
        next.proof_of_life = next.answered;
        next.call.state = CallState::Answered;
        next.call.answered_at = Some(request.at.wall);
        next.call.post_dial_delay_ms = Some(request.post_dial_delay_ms);
        if let Some(answered) = request.attempt.as_deref() {
            note_answer(&mut next, answered);
        }
        let next = Arc::new(next);
        let events = vec![EventBody::CallChanged(Box::new(self.call_now(&next, now)))];
        let dialogs =
            Dialogs { a_leg: None, b_leg: Some(request.b_leg.clone()), answer_sdp: request.answer_sdp.clone() };
        let changes = vec![Change::CallUpdated(next.clone()), Change::DialogsChanged(next.no, Box::new(dialogs))];
        let patch = Patch::put(next);
        (Some(funding), Some(self.draft(now, self.figures, changes, events, patch)))
    }

    /// Pays a further slice of a call, as its hold number `step`. Asked again for the same step it changes nothing. `proof` is
    /// the newest moment at which the call is known to have been up; `None`: none since it was taken up again.
    #[must_use]
    pub fn renew(&self, call: CallId, step: u32, proof: Option<Now>, now: Now) -> (Renewed, Option<Draft>) {
        let Some(live) = self.live.get(&call) else { return (Renewed::NotLive, None) };
        if live.hold_step >= step {
            return (Renewed::Paid(self.funding(live, live.paid_s)), None);
        }
        let (available, others) = (self.reservable(), self.live.len().saturating_sub(1));
        let limit_s = u64::from(self.profile.limits.call_seconds);
        let slice = match holds::next_slice(&terms(live), live.paid_s, live.held, available, others, limit_s) {
            Ok(slice) => slice,
            Err(NoSlice::NotAffordable { .. }) => return (Renewed::NotAffordable, None),
            Err(NoSlice::LimitReached) => return (Renewed::LimitReached, None),
        };
        let mut next = LiveCall::clone(live);
        next.held += slice.amount;
        next.paid_s = slice.paid_s;
        next.hold_step = live.hold_step + 1;
        next.proof_of_life = proof.map(|proof| self.reading(proof)).or(live.proof_of_life);
        let mut figures = self.figures;
        figures.held += slice.amount;
        let hold = Hold { call: live.no, leg: LegSide::B, step: next.hold_step, amount: slice.amount };
        let next = Arc::new(next);
        let funding = self.funding(&next, slice.paid_s - live.paid_s);
        if wrong::chosen(Wrong::LostRenewal) {
            return (Renewed::Paid(funding), None);
        }
        let changes = vec![Change::CallRenewed(next.clone()), Change::HoldPlaced(hold)];
        let events = vec![EventBody::BalanceChanged(self.balance_of(&figures, now))];
        let patch = Patch::put(next);
        (Renewed::Paid(funding), Some(self.draft(now, figures, changes, events, patch)))
    }

    /// Keeps the newest state of a dialog. One side's word does not prove that the other is there.
    #[must_use]
    pub fn checkpoint(&self, call: CallId, side: LegSide, checkpoint: &Checkpoint, now: Now) -> Option<Draft> {
        let live = self.live.get(&call)?;
        let changes = vec![Change::DialogsChanged(live.no, Box::new(Dialogs::of(side, checkpoint.clone())))];
        Some(self.draft(now, self.figures, changes, Vec::new(), Patch::default()))
    }

    /// What is needed to go on with a call after a restart, or to end it when it was not answered.
    #[must_use]
    pub fn take_up(&self, call: CallId, market: &Market<'_>, now: Now) -> Option<TakenUp> {
        let live = self.live.get(&call)?;
        let talk = self.talk(live, now);
        let grant = if talk.is_none() { self.grant_once_more(live, market, now) } else { None };
        Some(TakenUp {
            live: LiveCall::clone(live),
            funding: self.funding(live, live.paid_s),
            talk,
            at: now.mono,
            grant,
        })
    }

    /// The running attempt's grant as it was given, when its number may still be presented (P2), and the carrier still knows it:
    /// after [`KNOWN_FOR`] its INVITE would be a new call.
    fn grant_once_more(&self, live: &LiveCall, market: &Market<'_>, now: Now) -> Option<Grant> {
        let attempt = live.attempt.as_ref().filter(|attempt| now.wall.since(attempt.started_at) <= KNOWN_FOR)?;
        let presentation = self.presentation_of(live, now).ok()?;
        self.grant_of(live, presentation, is_trusted(market, attempt.trunk), live.paid_s)
    }

    /// Ends a call: one charge, the rest of its holds voided, one CDR (C3, L3). Valid in any state of the call and before
    /// its authorization, which is then refused; asked again it changes nothing.
    pub fn settle(&mut self, call: CallId, end: &CallEnd, transfer: TransferId, now: Now) -> (Settled, Option<Draft>) {
        let Some(live) = self.live.get(&call) else {
            self.remember_void(call);
            return (Settled::NotLive, None);
        };
        let talk = self.talk_until(live, end);
        let bill = self.bill(live, end, talk);
        let cost = carrier_cost(live, end, talk);
        let mut figures = self.figures;
        figures.total -= bill.charge;
        if !(wrong::chosen(Wrong::HoldKeptOnCancel) && end.hangup.sip_code == Some(487)) {
            figures.held -= live.held;
        }
        let ended = self.ended(live, end, talk, &bill, now);
        let cdr = Cdr {
            no: live.no,
            credential: live.credential,
            call: ended.clone(),
            withheld_number: live.caller_id.clone().filter(|_| live.call.withheld),
            talk_ms: talk.map_or(0, |t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX)),
            charged: bill.charge,
            loss: bill.loss,
            carrier_cost: cost,
            attempts: live.attempt.as_ref().map_or(0, |a| a.number),
        };
        let mut changes = Vec::with_capacity(3);
        if let (Some(failed), Some(attempt)) = (&end.failed, &live.attempt) {
            changes.push(Change::AttemptEnded(attempt_record(
                live.no,
                attempt,
                failed.sip_code,
                end.at.unwrap_or(now),
            )));
        }
        if wrong::chosen(Wrong::CdrTwice) {
            figures.last_call = self.next_call_no();
            changes.push(Change::CallEnded(Box::new(Cdr { no: figures.last_call, ..cdr.clone() })));
        }
        changes.push(Change::CallEnded(Box::new(cdr)));
        if talk.is_some() || cost.is_some() {
            changes.push(Change::Posted(Box::new(ledger::call_charge(transfer, live, &bill, cost, figures.total))));
        }
        let mut balance = self.balance_without(call, now);
        balance.set_figures(&figures);
        let events =
            vec![EventBody::CallChanged(Box::new(ended.clone())), EventBody::BalanceChanged(balance.into_balance())];
        let settled = if wrong::chosen(Wrong::DoubleCapture) {
            LiveChange::Put(Arc::new(LiveCall { held: Micros::ZERO, ..LiveCall::clone(live) }))
        } else {
            LiveChange::Remove(call)
        };
        let patch = Patch { live: Some(settled), ..Patch::default() };
        (Settled::Done(Box::new(ended)), Some(self.draft(now, figures, changes, events, patch)))
    }

    /// Keeps the end of a call that cannot be settled for now: its time is the last proof of life, so that whoever settles
    /// it later, also after a restart, bills no more. `None` when there is nothing to keep, or it is kept.
    #[must_use]
    pub fn keep_end(&self, call: CallId, end: &CallEnd, now: Now) -> Option<Draft> {
        let live = self.live.get(&call).filter(|live| live.call.state != CallState::Ending)?;
        let mut next = LiveCall::clone(live);
        next.call.state = CallState::Ending;
        next.call.hangup = Some(Box::new(end.hangup.clone()));
        match end.at {
            Some(at) if !end.late_answer => next.proof_of_life = Some(self.last_paid(live, end, at)),
            Some(_) => (next.answered, next.late_answer) = (None, true),
            None => {}
        }
        let next = Arc::new(next);
        let changes = vec![Change::CallUpdated(next.clone())];
        let events = vec![EventBody::CallChanged(Box::new(self.call_now(&next, now)))];
        let patch = Patch::put(next);
        Some(self.draft(now, self.figures, changes, events, patch))
    }

    /// Then only the wall clock tells how long a call has lasted, and it may have been wrong before the network set it right: what
    /// was paid in advance is the most that is charged.
    fn is_of_another_boot(&self, answered: &ClockReading) -> bool {
        answered.boot != self.boot
    }

    /// When a call ended, as far as it is billed: one that was cut at most until the end of its grant.
    fn last_paid(&self, live: &LiveCall, end: &CallEnd, at: Now) -> ClockReading {
        let paid = Duration::from_secs(live.paid_s);
        match live.answered {
            Some(answered)
                if (end.cut || self.is_of_another_boot(&answered)) && answered.until(at, self.boot) > paid =>
            {
                ClockReading { wall: answered.wall + paid, mono: answered.mono + paid, boot: answered.boot }
            }
            _ => self.reading(at),
        }
    }

    /// `None` when the call was not answered.
    fn talk_until(&self, live: &LiveCall, end: &CallEnd) -> Option<Duration> {
        // An answer that came too late, or that the caller never heard, is not talk time even when it was stored.
        let answered = live.answered.as_ref().filter(|_| !end.late_answer)?;
        let talk = match end.at {
            Some(at) => meter::talk(answered, live.proof_of_life.as_ref(), at, self.boot),
            None => meter::proved(answered, live.proof_of_life.as_ref()),
        };
        Some(if self.is_of_another_boot(answered) { talk.min(Duration::from_secs(live.paid_s)) } else { talk })
    }

    fn bill(&self, live: &LiveCall, end: &CallEnd, talk: Option<Duration>) -> Bill {
        let Some(talk) = talk else { return Bill { billed_s: 0, charge: Micros::ZERO, loss: Micros::ZERO } };
        let funds = live.held + self.figures.available();
        meter::bill(&terms(live), talk, funds, end.cut.then_some(live.paid_s))
    }

    fn ended(&self, live: &LiveCall, end: &CallEnd, talk: Option<Duration>, bill: &Bill, now: Now) -> Call {
        let mut call = live.call.clone();
        call.state = CallState::Ended;
        call.ended_at = Some(match (end.at, talk.zip(live.answered)) {
            (Some(at), _) => at.wall,
            (None, Some((talk, answered))) => answered.wall + talk,
            (None, None) => now.wall,
        });
        call.cost = bill.charge;
        call.billed_seconds = bill.billed_s;
        call.funded_until = None;
        call.post_dial_delay_ms = call.post_dial_delay_ms.or(end.post_dial_delay_ms);
        for leg in call.legs.iter_mut().filter(|leg| leg.side == LegSide::B) {
            leg.billed_seconds = bill.billed_s;
            leg.cost = bill.charge;
        }
        if let (Some(failed), Some(attempt)) = (&end.failed, &live.attempt) {
            note_outcome(&mut call.explanation.candidates, &attempt.carrier, failed.outcome());
        }
        call.hangup = Some(Box::new(end.hangup.clone()));
        call
    }
}

/// The attempt that was answered carries the call, whichever was stored last.
fn note_answer(live: &mut LiveCall, answered: &Attempt) {
    let candidates = &mut live.call.explanation.candidates;
    if live.attempt.as_ref().is_some_and(|stored| stored.number == answered.number) {
        return note_outcome(candidates, &answered.carrier, "answered".to_owned());
    }
    if let Some(candidate) = candidates.iter_mut().find(|candidate| candidate.carrier == answered.carrier) {
        "answered".clone_into(&mut candidate.outcome);
    }
    live.call.route = Some(answered.carrier.clone());
    live.attempt = Some(answered.clone());
}

/// What the carrier charges: for the talk time, or for an answer that came too late.
fn carrier_cost(live: &LiveCall, end: &CallEnd, talk: Option<Duration>) -> Option<CarrierCost> {
    let attempt = live.attempt.as_ref()?;
    let talk = talk.or_else(|| end.late_answer.then_some(Duration::ZERO))?;
    let amount = attempt.cost.charge(talk);
    Some(CarrierCost { trunk: attempt.trunk, amount, currency: attempt.cost_currency })
}
