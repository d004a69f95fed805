//! An account: the rules in pure files, its actor here. The actor only carries: it hands each message to [`core::AccountCore`],
//! submits the entry that results and takes the next message. It never waits for the journal; replies and events run from
//! the account's gate after the commit. An entry that is rejected ends the actor: its successor loads what is true.

pub mod authorize;
pub mod caller_id;
pub mod core;
pub mod failover;
pub mod holds;
pub mod ledger;
pub mod limits;
pub mod meter;
pub mod projection;
pub mod settle;
pub mod view;

#[cfg(test)]
mod tests;

use self::core::{AccountCore, Credited, Draft, Market, last_cursor};
use crate::call::protocol::TakenUp;
use crate::context::Context;
use crate::failures::{Handling, Whose};
use crate::faults::FaultPoint;
use crate::gate::{CommitGate, Effect, NotDone};
use crate::poison::{About, Subject, Work};
use crate::trunk::Channel;
use authorize::{Authorized, CallRequest, Funding, Quote, QuoteRequest};
use failover::{AttemptFailed, NextAttempt};
use ledger::{Credit, CreditRefused};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use schema::call::LegSide;
use schema::id::{AccountKey, CallId, TransferId, TrunkId};
use schema::journal::Outcome;
use schema::leg::{AttemptIds, Checkpoint};
use schema::time::Now;
use schema::wrong::{self, Wrong};
use settle::{AnswerRequest, CallEnd, Renewed, Settled};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::oneshot;
use view::{AccountView, LiveView};

/// Where an answer goes. Dropped without an answer when the actor panics: the outcome is unknown then.
pub(crate) struct Reply<T>(oneshot::Sender<Result<T, NotDone>>);

impl<T: Send + 'static> Reply<T> {
    pub(crate) fn new() -> (Self, oneshot::Receiver<Result<T, NotDone>>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    /// The message is set aside.
    fn refuse(self) {
        let _ = self.0.send(Err(NotDone::SetAside));
    }

    /// Answers once the entry it depends on is committed.
    fn with(self, value: T) -> Effect {
        Box::new(move |outcome| {
            let _ = self.0.send(outcome.map(|()| value));
        })
    }
}

/// An authorization with the carrier's channel it took; the channel is free again when this is dropped.
pub(crate) struct Routed<T> {
    pub(crate) decision: T,
    pub(crate) channel: Option<Channel>,
}

/// What an account's actor is told. Answers come after the commit of what they depend on.
pub(crate) enum AccountMsg {
    /// May this call proceed? Sent by its call actor; answered with a grant or a refusal.
    Authorize(Arc<CallRequest>, Reply<Routed<Authorized>>),
    /// An attempt failed; is there another route? Sent by the call actor; answered with a grant or not.
    NextAttempt(CallId, AttemptFailed, Reply<Routed<NextAttempt>>),
    /// The B-leg answered. Sent by the call actor; answered with the paid time, or that there is no such call.
    Answer(Arc<AnswerRequest>, Reply<Option<Funding>>),
    /// Pay a further slice, as hold number `step`, of a call that was up at the moment given. Sent by the call actor; answered
    /// with the paid time or why not.
    Renew(CallId, u32, Option<Now>, Reply<Renewed>),
    /// Keep a dialog's newest state. Sent for the call actor; answered when it is kept, or the call is not live.
    Keep(CallId, LegSide, Box<Checkpoint>, Reply<()>),
    /// The call is over. Sent by the call actor, its supervisor or recovery; answered with the call as it is in the history.
    Settle(CallId, Arc<CallEnd>, Reply<Settled>),
    /// The call is over and cannot be settled for now: keep its end. Sent by whoever settles it; answered when it is kept.
    KeepEnd(CallId, Arc<CallEnd>, Reply<()>),
    /// What is needed to go on with a call. Sent by recovery; answered with nothing when it is not live.
    TakeUp(CallId, Reply<Option<TakenUp>>),
    /// Post money. Sent through [`crate::Actors::credit`]; answered with the transfer or why not.
    Credit(Box<Credit>, Reply<Result<Credited, CreditRefused>>),
    /// A snapshot. Sent through [`crate::Actors::view`]; answered with it.
    View(Reply<AccountView>),
    /// The live figures. Sent by the watch of the account; answered with them.
    Live(Reply<LiveView>),
    /// What would this call cost? Sent through [`crate::Actors::quote`]; answered with the quote.
    Quote(Box<QuoteRequest>, Reply<Quote>),
    /// A warning may be due. Sent by the actor's own timer; not answered.
    Warn,
    /// Go away if there is nothing to do. Sent by the sweep over idle accounts; not answered.
    Passivate,
    /// Load the account again: something outside changed its rows. Sent through [`crate::Actors::reload`]; not answered.
    Reload,
    /// An entry was rejected. Sent by the gate; not answered.
    Rejected,
    /// Panic. Sent by tests only.
    #[cfg(any(test, feature = "faults"))]
    Panic,
}

impl AccountMsg {
    /// As what it is known outside the actor when it kills it; `None`: it is no message's fault.
    fn work(&self) -> Option<Work> {
        let of_call = |kind, call: &CallId, n: u32| Work { kind, about: About::Call(*call, n) };
        let whole = |kind| Work { kind, about: About::Whole };
        Some(match self {
            Self::Authorize(request, _) => of_call("authorize", &request.call, 0),
            Self::NextAttempt(call, failed, ..) => of_call("next attempt", call, failed.number.into()),
            Self::Answer(request, _) => of_call("answer", &request.call, 0),
            Self::Renew(call, step, ..) => of_call("renew", call, *step),
            Self::Keep(call, side, ..) => of_call("keep", call, u32::from(*side == LegSide::B)),
            Self::Settle(call, ..) => of_call("settle", call, 0),
            Self::KeepEnd(call, ..) => of_call("keep end", call, 0),
            Self::TakeUp(call, _) => of_call("take up", call, 0),
            Self::Credit(credit, _) => Work { kind: "credit", about: About::Key(ledger::key_hash(&credit.key.key)) },
            Self::View(_) => whole("view"),
            Self::Live(_) => whole("live figures"),
            Self::Quote(..) => whole("quote"),
            Self::Warn => whole("warn"),
            Self::Passivate => whole("passivate"),
            Self::Reload => whole("reload"),
            Self::Rejected => return None,
            #[cfg(any(test, feature = "faults"))]
            Self::Panic => return None,
        })
    }

    /// Answers that it is set aside, when somebody waits for an answer.
    fn refuse(self) {
        match self {
            Self::Authorize(_, reply) => reply.refuse(),
            Self::NextAttempt(.., reply) => reply.refuse(),
            Self::Answer(_, reply) => reply.refuse(),
            Self::Renew(.., reply) => reply.refuse(),
            Self::Keep(.., reply) => reply.refuse(),
            Self::Settle(.., reply) => reply.refuse(),
            Self::KeepEnd(.., reply) => reply.refuse(),
            Self::TakeUp(_, reply) => reply.refuse(),
            Self::Credit(_, reply) => reply.refuse(),
            Self::View(reply) => reply.refuse(),
            Self::Live(reply) => reply.refuse(),
            Self::Quote(_, reply) => reply.refuse(),
            Self::Warn | Self::Passivate | Self::Reload | Self::Rejected => {}
            #[cfg(any(test, feature = "faults"))]
            Self::Panic => {}
        }
    }
}

/// The shortest pause between two looks for warnings.
const WARNING_PAUSE: Duration = Duration::from_millis(100);

/// The actor of one account.
pub(crate) struct AccountActor {
    pub(crate) ctx: Arc<Context>,
    pub(crate) key: AccountKey,
    pub(crate) generation: u64,
}

/// What its actor keeps beside the core; lost with a panic, and nothing of it is missed.
pub(crate) struct AccountState {
    core: AccountCore,
    gate: Arc<CommitGate>,
    warning: Option<Warning>,
    /// The kind of message in hand.
    kind: &'static str,
}

/// The timer of the next warning.
struct Warning {
    at: schema::time::Mono,
    task: tokio::task::AbortHandle,
}

impl Drop for Warning {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Actor for AccountActor {
    type Msg = AccountMsg;
    type State = AccountState;
    type Arguments = (AccountCore, Arc<CommitGate>);

    async fn pre_start(
        &self,
        me: ActorRef<AccountMsg>,
        (core, gate): Self::Arguments,
    ) -> Result<AccountState, ActorProcessingErr> {
        let mut state = AccountState { core, gate, warning: None, kind: "start" };
        self.arm_warning(&me, &mut state);
        Ok(state)
    }

    async fn handle(
        &self,
        me: ActorRef<AccountMsg>,
        message: AccountMsg,
        state: &mut AccountState,
    ) -> Result<(), ActorProcessingErr> {
        self.ctx.tally.account_messages.fetch_add(1, Ordering::Relaxed);
        let work = message.work();
        let _in_hand = state.gate.in_hand();
        let handling = Handling::begin(&self.ctx, Whose::Account(self.key), work);
        if handling.is_set_aside() {
            message.refuse();
            return Ok(());
        }
        state.kind = work.map_or("", |work| work.kind);
        self.strike(state, FaultPoint::Received);
        self.carry_out(&me, message, state)
    }
}

impl AccountActor {
    /// A place where a test may have it panic.
    fn strike(&self, state: &AccountState, point: FaultPoint) {
        self.ctx.strike(Subject::Account(self.key), state.kind, point);
    }

    fn carry_out(
        &self,
        me: &ActorRef<AccountMsg>,
        message: AccountMsg,
        state: &mut AccountState,
    ) -> Result<(), ActorProcessingErr> {
        let now = self.ctx.now();
        match message {
            AccountMsg::Authorize(request, reply) => self.authorize(me, state, &request, reply, now),
            AccountMsg::NextAttempt(call, failed, reply) => {
                self.next_attempt(me, state, call, &failed, reply, now);
            }
            AccountMsg::Answer(request, reply) => {
                let (answer, draft) = state.core.answer(&request, now);
                self.submit(me, state, draft, reply.with(answer), now);
                self.arm_warning(me, state);
            }
            AccountMsg::Renew(call, step, proof, reply) => {
                let (answer, draft) = state.core.renew(call, step, proof, now);
                self.submit(me, state, draft, reply.with(answer), now);
                self.arm_warning(me, state);
            }
            AccountMsg::Keep(call, side, checkpoint, reply) => {
                let draft = state.core.checkpoint(call, side, &checkpoint, now);
                self.submit(me, state, draft, reply.with(()), now);
            }
            AccountMsg::Settle(call, end, reply) => {
                let transfer = self.transfer_id(now);
                let (answer, draft) = state.core.settle(call, &end, transfer, now);
                self.submit(me, state, draft, reply.with(answer), now);
                self.tell_calls_short_of_money(state, now);
                self.arm_warning(me, state);
            }
            AccountMsg::KeepEnd(call, end, reply) => {
                let draft = state.core.keep_end(call, &end, now);
                self.submit(me, state, draft, reply.with(()), now);
            }
            AccountMsg::TakeUp(call, reply) => {
                let (tariffs, trunks) = (self.ctx.tariffs.load(), self.ctx.trunks.status(now.mono));
                let taken = state.core.take_up(call, &Market { tariffs: &tariffs, trunks: &trunks }, now);
                state.gate.after(state.core.seq(), reply.with(taken));
            }
            AccountMsg::Credit(credit, reply) => {
                let (answer, draft) = state.core.credit(&credit, self.transfer_id(now), now);
                self.submit(me, state, draft, reply.with(answer), now);
                self.tell_calls_short_of_money(state, now);
                self.arm_warning(me, state);
            }
            AccountMsg::View(reply) => state.gate.after(state.core.seq(), reply.with(state.core.view(now))),
            AccountMsg::Live(reply) => state.gate.after(state.core.seq(), reply.with(state.core.live_view(now))),
            AccountMsg::Quote(request, reply) => {
                let (tariffs, trunks) = (self.ctx.tariffs.load(), self.ctx.trunks.status(now.mono));
                let quote = state.core.quote(&request, &Market { tariffs: &tariffs, trunks: &trunks }, now);
                state.gate.after(state.core.seq(), reply.with(quote));
            }
            AccountMsg::Warn => {
                state.warning = None;
                let draft = state.core.warn(now);
                if draft.is_some() {
                    self.submit(me, state, draft, Box::new(|_| {}), now);
                }
                self.arm_warning(me, state);
            }
            AccountMsg::Passivate if state.core.is_idle() && state.gate.is_quiet() => self.retire(me),
            AccountMsg::Passivate => {}
            AccountMsg::Reload => {
                // What was submitted stays valid; the successor waits for it.
                self.retire(me);
            }
            AccountMsg::Rejected => return Err("a journal entry was rejected".into()),
            #[cfg(any(test, feature = "faults"))]
            AccountMsg::Panic => panic!("a fault was injected into an account"),
        }
        Ok(())
    }

    fn authorize(
        &self,
        me: &ActorRef<AccountMsg>,
        state: &mut AccountState,
        request: &CallRequest,
        reply: Reply<Routed<Authorized>>,
        now: Now,
    ) {
        let ids = self.attempt_ids();
        let (decision, draft, channel) = self.with_channel(now, |market| {
            let (decision, draft) = state.core.authorize(request, ids.clone(), market, now);
            let trunk = match &decision {
                Authorized::Granted(grant) => Some(grant.attempt.trunk),
                Authorized::Refused(_) => None,
            };
            (decision, draft, trunk)
        });
        self.submit(me, state, draft, reply.with(Routed { decision, channel }), now);
    }

    fn next_attempt(
        &self,
        me: &ActorRef<AccountMsg>,
        state: &mut AccountState,
        call: CallId,
        failed: &AttemptFailed,
        reply: Reply<Routed<NextAttempt>>,
        now: Now,
    ) {
        let ids = self.attempt_ids();
        let (decision, draft, channel) = self.with_channel(now, |market| {
            let (decision, draft) = state.core.next_attempt(call, failed, ids.clone(), market, now);
            let trunk = match &decision {
                NextAttempt::Granted(grant) => Some(grant.attempt.trunk),
                NextAttempt::NoRoute | NextAttempt::Refused(_) | NextAttempt::NotLive => None,
            };
            (decision, draft, trunk)
        });
        self.submit(me, state, draft, reply.with(Routed { decision, channel }), now);
    }

    /// Decides and takes the channel of the trunk decided for. When another account took the last one meanwhile, it decides
    /// again with that trunk full.
    fn with_channel<T>(
        &self,
        now: Now,
        decide: impl Fn(&Market<'_>) -> (T, Option<Draft>, Option<TrunkId>),
    ) -> (T, Option<Draft>, Option<Channel>) {
        let tariffs = self.ctx.tariffs.load();
        let mut trunks = self.ctx.trunks.status(now.mono);
        loop {
            let (decision, draft, trunk) = decide(&Market { tariffs: &tariffs, trunks: &trunks });
            let Some(trunk) = trunk else { return (decision, draft, None) };
            if draft.is_none() {
                // Asked twice: the first answer, and the channel in it, was lost.
                return (decision, None, self.ctx.trunks.take_anyway(trunk));
            }
            if let Some(channel) = self.ctx.trunks.take(trunk, now.mono) {
                return (decision, draft, Some(channel));
            }
            // A full trunk is not decided for again, so this ends.
            if let Some(status) = trunks.get_mut(&trunk) {
                (status.free_channels, status.half_open) = (0, false);
            }
        }
    }

    /// Submits what was decided and applies it. `effect` runs after the commit, after the publication of the events.
    fn submit(
        &self,
        me: &ActorRef<AccountMsg>,
        state: &mut AccountState,
        draft: Option<Draft>,
        effect: Effect,
        now: Now,
    ) {
        self.strike(state, FaultPoint::Decided);
        let Some(Draft { entry, patch }) = draft else {
            return state.gate.after(state.core.seq(), effect);
        };
        let (seq, key, ctx) = (entry.seq(), self.key, self.ctx.clone());
        let heard = ctx.hubs.is_heard(key);
        let published = heard.then(|| entry.events.clone());
        let last = last_cursor(seq, entry.events.len());
        let (at, has_events) = (now.wall, !entry.events.is_empty());
        let told: Effect = Box::new(move |outcome| {
            if outcome.is_ok() && has_events {
                ctx.hubs.publish(key, at, last, published);
                ctx.watches.changed(key);
            }
            effect(outcome);
        });
        let told: Effect = if wrong::chosen(Wrong::AckBeforeCommit) {
            told(Ok(()));
            Box::new(|_| {})
        } else {
            told
        };
        if !state.gate.expect(seq, told) {
            return;
        }
        let (gate, me) = (state.gate.clone(), me.clone());
        let done = Box::new(move |outcome: Outcome| {
            if gate.done(seq, &outcome) {
                // Already gone when it panicked meanwhile; then its successor waits for the gate.
                let _ = me.send_message(AccountMsg::Rejected);
            }
        });
        if self.ctx.journal.submit(entry, done).is_ok() {
            state.core.apply(patch);
        } else if let Some(effect) = state.gate.withdraw(seq) {
            self.ctx.tally.journal_full.fetch_add(1, Ordering::Relaxed);
            effect(Err(NotDone::Overloaded));
        }
        self.strike(state, FaultPoint::Done);
    }

    fn retire(&self, me: &ActorRef<AccountMsg>) {
        self.ctx.directory.leave(self.key, self.generation);
        me.stop(None);
    }

    fn tell_calls_short_of_money(&self, state: &AccountState, now: Now) {
        for call in state.core.calls_short_of_money(now) {
            self.ctx.directory.tell_funds_changed(call);
        }
    }

    /// Keeps one timer, of the earliest warning. A timer that fires too early only asks again.
    fn arm_warning(&self, me: &ActorRef<AccountMsg>, state: &mut AccountState) {
        let now = self.ctx.now();
        let Some(at) = state.core.next_warning(now) else {
            state.warning = None;
            return;
        };
        if state.warning.as_ref().is_some_and(|warning| warning.at <= at) {
            return;
        }
        let me = me.clone();
        // A warning that could not be stored is due at once again: not in a circle.
        let wait = at.since(now.mono).max(WARNING_PAUSE);
        let task = tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let _ = me.send_message(AccountMsg::Warn);
        });
        state.warning = Some(Warning { at, task: task.abort_handle() });
    }

    fn transfer_id(&self, now: Now) -> TransferId {
        TransferId::generate(&mut self.ctx.entropy(), now.wall)
    }

    /// Fresh identifiers of an INVITE, never derived from the A-leg's: the carrier learns nothing of it.
    fn attempt_ids(&self) -> AttemptIds {
        let mut entropy = self.ctx.entropy();
        AttemptIds {
            call_id: entropy.hex::<16>().into(),
            from_tag: entropy.hex::<8>().into(),
            branch: format!("z9hG4bK{}", entropy.hex::<12>()).into(),
            cseq: u32::try_from(1 + entropy.below(1 << 20)).unwrap_or(1),
        }
    }
}
