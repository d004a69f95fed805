//! A call: its machine in pure files, its actor here. The actor carries out the machine's actions in order; when the account
//! is asked it waits for the answer, with a time limit, before it takes the next message.

mod endings;
pub mod machine;
pub mod protocol;
pub mod reasons;
mod setup;
mod talking;
pub mod timers;

#[cfg(test)]
mod tests;

use crate::account::authorize::{Authorized, CallRequest};
use crate::account::failover::NextAttempt;
use crate::account::settle::Settled;
use crate::account::{AccountMsg, Routed};
use crate::admission::Live;
use crate::alarm::{Alarm, Number, Sleeper};
use crate::context::Context;
use crate::directory::{AskError, CallEntry};
use crate::failures::{Handling, Whose};
use crate::faults::FaultPoint;
use crate::keeping::Keeping;
use crate::poison::{About, Subject, Work};
use crate::progress::{ProgressCell, bit_of};
use crate::settling::Until;
use crate::trunk::Channel;
use machine::{ASK_LIMIT, CallCore, RENEWAL_LIMIT};
use protocol::{Action, Ask, CallersSide, Input, Reply, TakenUp, answered_dialogs};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use schema::call::{Call, Hangup, HangupSide, Refusal, RefusalCode};
use schema::id::{AccountKey, CallId};
use schema::leg::{Dialogs, EndCause, HangupCause, LegCommand, LegEvent, LegEventAt};
use schema::time::Now;
use schema::wrong::{self, Wrong};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::oneshot;

/// What a call's actor is told.
pub(crate) enum CallMsg {
    /// A leg tells something. Sent by the SIP edge; not answered.
    Leg(Box<LegEventAt>),
    /// Of the actor's own timer, with its number: of one that was set anew since nothing follows. Not answered.
    TimeOut(Number),
    /// Money that came free, of the account. Not answered.
    FundsChanged,
    /// Hang up. Sent through [`crate::Actors::hang_up`]; answered with the call when it is settled.
    HangUp(HangupCause, oneshot::Sender<Option<Box<Call>>>),
    /// Panic. Sent by tests only.
    #[cfg(any(test, feature = "faults"))]
    Panic,
}

/// How a call's actor begins.
pub(crate) enum Start {
    /// Somebody wants to call.
    New(Box<CallRequest>, CallersSide),
    /// An answered call goes on after a restart, with its dialogs as they are stored; told when its legs know.
    Resume(Box<TakenUp>, Box<Dialogs>, oneshot::Sender<()>),
}

/// The actor of one live call.
pub(crate) struct CallActor {
    pub(crate) ctx: Arc<Context>,
    pub(crate) account: AccountKey,
    pub(crate) call: CallId,
    pub(crate) progress: Arc<ProgressCell>,
}

/// What its actor keeps; lost with a panic, after which the call is ended and settled.
pub(crate) struct CallActorState {
    start: Option<Box<(Start, oneshot::Receiver<()>)>>,
    core: Option<Box<CallCore>>,
    /// The carrier's channel that the attempt uses.
    channel: Option<Channel>,
    alarm: Alarm<ActorRef<CallMsg>>,
    waiting: Vec<oneshot::Sender<Option<Box<Call>>>>,
    keeping: Keeping,
}

/// A new call waits no longer than this for the first look-up of a trunk's name, when no other trunk is up.
const SEARCH_LIMIT: Duration = Duration::from_secs(2);
/// The SIP side tells within this that a BYE has left.
pub(crate) const PART_LIMIT: Duration = Duration::from_millis(500);
/// Most that wait for one call to end.
const WAITING_MAX: usize = 64;

impl Actor for CallActor {
    type Msg = CallMsg;
    type State = CallActorState;
    /// The receiver says when the call is in the directory; when it never is, nothing happens.
    type Arguments = (Start, oneshot::Receiver<()>);

    async fn pre_start(
        &self,
        _: ActorRef<CallMsg>,
        start: Self::Arguments,
    ) -> Result<CallActorState, ActorProcessingErr> {
        Ok(CallActorState {
            start: Some(Box::new(start)),
            core: None,
            channel: None,
            alarm: self.ctx.alarms.alarm(),
            waiting: Vec::new(),
            keeping: Keeping::default(),
        })
    }

    async fn post_start(&self, me: ActorRef<CallMsg>, state: &mut CallActorState) -> Result<(), ActorProcessingErr> {
        let Some(start) = state.start.take() else { return Err("a call begins once".into()) };
        let (start, registered) = *start;
        if registered.await.is_err() {
            me.stop(None);
            return Ok(());
        }
        if let Start::Resume(taken, dialogs, _) = &start {
            // Before anything can fail: whoever hangs up for this actor hangs up legs that are known.
            for (leg, checkpoint) in answered_dialogs(&taken.live, dialogs) {
                let _ = self.ctx.legs.send(LegCommand::Resume { leg, checkpoint }).await;
            }
        }
        if matches!(start, Start::New(..)) {
            self.ctx.trunks.searched(SEARCH_LIMIT).await;
        }
        let now = self.ctx.now();
        let begin = Work { kind: "begin", about: About::Call(self.call, 0) };
        let _handling = Handling::begin(&self.ctx, self.whose(), Some(begin));
        self.strike(begin.kind, FaultPoint::Received);
        let (core, actions, resumed) = match start {
            Start::New(request, caller) => {
                let (core, actions) = CallCore::begin(*request, caller, self.ctx.retry_after_s());
                (core, actions, None)
            }
            Start::Resume(taken, dialogs, resumed) => {
                state.channel = taken.live.attempt.as_ref().and_then(|a| self.ctx.trunks.take_anyway(a.trunk));
                let (core, actions) = CallCore::resume(*taken, *dialogs, self.ctx.retry_after_s(), now);
                (core, actions, Some(resumed))
            }
        };
        state.core = Some(Box::new(core));
        self.strike(begin.kind, FaultPoint::Decided);
        self.carry_out(&me, state, actions).await;
        self.strike(begin.kind, FaultPoint::Done);
        if let Some(resumed) = resumed {
            let _ = resumed.send(());
        }
        Ok(())
    }

    /// An actor's task has room for its largest future as long as it lives: this one is made when it is needed.
    fn handle(
        &self,
        me: ActorRef<CallMsg>,
        message: CallMsg,
        state: &mut CallActorState,
    ) -> impl Future<Output = Result<(), ActorProcessingErr>> + Send {
        Box::pin(self.take(me, message, state))
    }

    /// It supervises nobody. What ractor has here by itself takes 200 bytes of its task, and so would what holds the arguments.
    #[expect(clippy::manual_async_fn, reason = "above")]
    fn handle_supervisor_evt(
        &self,
        _: ActorRef<CallMsg>,
        _: SupervisionEvent,
        _: &mut CallActorState,
    ) -> impl Future<Output = Result<(), ActorProcessingErr>> + Send {
        async { Ok(()) }
    }
}

impl Sleeper for ActorRef<CallMsg> {
    fn wake(self, number: Number) {
        let _ = self.send_message(CallMsg::TimeOut(number));
    }
}

impl CallMsg {
    /// As what it is known outside the actor, for the count of panics.
    const fn work(&self, call: CallId) -> Option<Work> {
        let kind = match self {
            Self::Leg(_) => "leg event",
            Self::TimeOut(_) => "time-out",
            Self::FundsChanged => "input",
            Self::HangUp(..) => "hang up",
            #[cfg(any(test, feature = "faults"))]
            Self::Panic => return None,
        };
        Some(Work { kind, about: About::Call(call, 0) })
    }

    /// Whether it was counted when it was sent ([`ProgressCell::queue`]).
    const fn is_queued(&self) -> bool {
        matches!(self, Self::Leg(_) | Self::FundsChanged | Self::HangUp(..))
    }
}

impl CallActor {
    const fn whose(&self) -> Whose {
        Whose::Call(self.account, self.call)
    }

    /// A place where a test may have it panic.
    fn strike(&self, kind: &'static str, point: FaultPoint) {
        self.ctx.strike(Subject::Call(self.call), kind, point);
    }

    async fn take(
        &self,
        me: ActorRef<CallMsg>,
        message: CallMsg,
        state: &mut CallActorState,
    ) -> Result<(), ActorProcessingErr> {
        self.ctx.tally.call_messages.fetch_add(1, Ordering::Relaxed);
        let was_queued = message.is_queued();
        let work = message.work(self.call);
        let _handling = Handling::begin(&self.ctx, self.whose(), work);
        let kind = work.map_or("", |work| work.kind);
        self.strike(kind, FaultPoint::Received);
        let actions = self.decide(message, state);
        self.strike(kind, FaultPoint::Decided);
        self.carry_out(&me, state, actions).await;
        self.strike(kind, FaultPoint::Done);
        if was_queued {
            self.progress.unqueue();
        }
        Ok(())
    }

    /// What the machine wants done after a message.
    fn decide(&self, message: CallMsg, state: &mut CallActorState) -> Vec<Action> {
        let now = self.ctx.now();
        let (input, at) = match message {
            CallMsg::Leg(told) => (Input::Leg(told.event), told.at),
            CallMsg::TimeOut(number) if !state.alarm.rang(number) => return Vec::new(),
            CallMsg::TimeOut(_) => (Input::TimeOut, now),
            CallMsg::FundsChanged => (Input::FundsChanged, now),
            CallMsg::HangUp(cause, reply) => {
                if state.waiting.len() < WAITING_MAX {
                    state.waiting.push(reply);
                }
                (Input::HangUp(cause), now)
            }
            #[cfg(any(test, feature = "faults"))]
            CallMsg::Panic => panic!("a fault was injected into a call"),
        };
        state.core.as_mut().map(|core| core.on(input, at)).unwrap_or_default()
    }

    async fn carry_out(&self, me: &ActorRef<CallMsg>, state: &mut CallActorState, actions: Vec<Action>) {
        let mut queue = VecDeque::from(actions);
        let mut hung_up = 0;
        while let Some(action) = queue.pop_front() {
            match action {
                Action::Leg(command) => {
                    if let LegCommand::HangUp { leg, .. } = &command {
                        hung_up |= bit_of(*leg);
                    }
                    if self.ctx.legs.send(command).await.is_err() {
                        // The SIP side has ended, the process does: a call whose legs cannot be told is not settled (C4). It stays
                        // as it is stored, and the next process ends it.
                        return;
                    }
                }
                Action::Ask(ask) => {
                    if let Ask::Settle(end) = &ask {
                        // It outlives this actor: a panic from here on does not change what is billed.
                        self.progress.set_end(end);
                        self.parted(hung_up).await;
                    }
                    // What comes while the account is asked comes before a time-out that is due then.
                    state.alarm.clear();
                    let reply = self.ask(state, ask).await;
                    let now = self.ctx.now();
                    queue.extend(state.core.as_mut().map(|core| core.on(Input::Reply(reply), now)).unwrap_or_default());
                }
                Action::Keep(side, checkpoint) => {
                    state.keeping.keep(&self.ctx, self.account, self.call, side, checkpoint);
                }
                Action::Note(end) => self.progress.set_doubt(end),
                Action::Show(progress) => {
                    self.progress.set(progress);
                    self.ctx.watches.changed(self.account);
                }
                Action::Finish(call) => return self.finish(me, state, call),
            }
        }
        self.arm_timer(me, state);
    }

    /// C4: a call is settled when its legs were told. Who settles it first and is killed then leaves a leg behind that nobody
    /// knows any more.
    async fn parted(&self, legs: u32) {
        let _ = tokio::time::timeout(PART_LIMIT, self.progress.ended(legs)).await;
    }

    async fn ask(&self, state: &mut CallActorState, ask: Ask) -> Reply {
        let (call, ctx, account) = (self.call, &self.ctx, self.account);
        match ask {
            Ask::Authorize(request) => {
                let Some(_place) = ctx.authorizations.enter(account) else {
                    return self.authorized(Authorized::Refused(busy()));
                };
                let ask = |reply| AccountMsg::Authorize(request.clone(), reply);
                let answer: Result<Routed<Authorized>, _> = ctx.ask(account, ASK_LIMIT, ask).await;
                match answer {
                    Ok(Routed { decision, channel }) => {
                        state.channel = channel;
                        self.authorized(decision)
                    }
                    Err(error) => not_authorized(error)
                        .map_or(Reply::Unknown, |refusal| self.authorized(Authorized::Refused(refusal))),
                }
            }
            Ask::NextAttempt(failed) => {
                let ask = |reply| AccountMsg::NextAttempt(call, failed.clone(), reply);
                let answer: Result<Routed<NextAttempt>, _> = ctx.ask(account, ASK_LIMIT, ask).await;
                answer.map_or(Reply::Unknown, |Routed { decision, channel }| {
                    if channel.is_some() {
                        state.channel = channel;
                    }
                    Reply::NextAttempt(decision)
                })
            }
            Ask::Answer(request) => {
                let ask = |reply| AccountMsg::Answer(request.clone(), reply);
                ctx.ask(account, ASK_LIMIT, ask).await.map_or(Reply::Unknown, Reply::Answered)
            }
            Ask::Renew { step, proof, limit } => {
                let ask = |reply| AccountMsg::Renew(call, step, proof, reply);
                ctx.ask(account, limit.min(RENEWAL_LIMIT), ask).await.map_or(Reply::Unknown, Reply::Renewed)
            }
            Ask::Settle(end) => {
                // The carrier's channel is free as soon as the legs are told to end.
                state.channel = None;
                let ask = |reply| AccountMsg::Settle(call, end.clone(), reply);
                match ctx.ask(account, ASK_LIMIT, ask).await {
                    Err(AskError::SetAside) => {
                        let (ctx, progress) = (ctx.clone(), self.progress.clone());
                        let (kept, is_kept) = oneshot::channel::<()>();
                        tokio::spawn(async move {
                            ctx.settle_until_done(account, call, end, Until::EndKept, kept).await;
                            // Until here it counts among the live calls.
                            drop(progress);
                        });
                        // Its BYE is answered when its end is kept; should that take long, whoever asks waits no longer.
                        let _ = tokio::time::timeout(ASK_LIMIT, is_kept).await;
                        Reply::Settled(Settled::NotLive)
                    }
                    answer => answer.map_or(Reply::Unknown, Reply::Settled),
                }
            }
        }
    }

    /// A refused call leaves its one line in the log here, others when they end.
    fn authorized(&self, decision: Authorized) -> Reply {
        if let Authorized::Refused(refusal) = &decision {
            let code = refusal.code.as_str();
            metrics::counter!("ringfence_calls_refused_total", "code" => code).increment(1);
            tracing::info!(call_id = %self.call, code, "call refused");
        }
        Reply::Authorized(decision)
    }

    fn finish(&self, me: &ActorRef<CallMsg>, state: &mut CallActorState, call: Option<Box<Call>>) {
        state.alarm.clear();
        // Before whoever waits for the end hears of it: their phone's BYE is answered.
        self.ctx.tell_leg(LegCommand::Settled { call: self.call });
        if let Some(call) = &call {
            log_end(call);
        }
        self.ctx.directory.remove_call(self.call);
        for waiting in state.waiting.drain(..) {
            let _ = waiting.send(call.clone());
        }
        me.stop(None);
    }

    fn arm_timer(&self, me: &ActorRef<CallMsg>, state: &mut CallActorState) {
        let at = state.core.as_ref().and_then(|core| core.next_timer());
        state.alarm.set(at, me);
    }
}

/// What an authorization without an answer means: when it is certain that nothing was done, a refusal like others.
fn not_authorized(error: AskError) -> Option<Refusal> {
    let (code, message) = match error {
        AskError::Unavailable => return Some(busy()),
        AskError::Resting => (RefusalCode::Unavailable, "the account failed and rests: try again in a moment"),
        AskError::NotFound => (RefusalCode::AccountNotActive, "the account does not exist"),
        AskError::NotStored | AskError::DuplicateKey | AskError::SetAside | AskError::Unknown => return None,
    };
    Some(Refusal { code, message: message.to_owned() })
}

fn busy() -> Refusal {
    Refusal { code: RefusalCode::Overloaded, message: "the service is busy: try again in a moment".to_owned() }
}

/// The one line a call leaves in the log.
pub(crate) fn log_end(call: &Call) {
    let hangup = call.hangup.as_ref();
    tracing::info!(
        call_id = %call.id,
        destination = call.destination.as_ref().map(schema::number::E164::masked).unwrap_or_default(),
        route = call.route.as_deref().unwrap_or(""),
        answered = call.answered_at.is_some(),
        billed_s = call.billed_seconds,
        cost = %call.cost,
        currency = %call.currency,
        sip_code = hangup.and_then(|h| h.sip_code).map(tracing::field::display),
        ended_by = hangup.map(|h| tracing::field::debug(h.side)),
        reason = hangup.map_or("", |h| h.reason.as_str()),
        "call over"
    );
}

impl Context {
    /// Starts the actor of a call within the limits of admission. False when the call is known already.
    pub(crate) fn start_call(self: &Arc<Self>, account: AccountKey, call: CallId, start: Start, live: Live) -> bool {
        if self.directory.knows_call(call) {
            return false;
        }
        let progress = Arc::new(ProgressCell::new(live));
        let (registered, wait) = oneshot::channel();
        let runs = CallActor { ctx: self.clone(), account, call, progress: progress.clone() };
        let supervisor = self.supervisors.of_calls();
        let started = ractor::ActorRuntime::spawn_linked_instant(None, runs, (start, wait), supervisor);
        let actor = match started {
            Ok((actor, _)) => actor,
            Err(error) => {
                tracing::error!(%error, "a call's actor could not be started");
                return false;
            }
        };
        // Only now may it tell a leg anything: what the leg answers must find it.
        self.directory.add_call(call, CallEntry { account, actor, progress }) && registered.send(()).is_ok()
    }

    /// An event of a call that no actor cares for, or not any more.
    pub(crate) fn stray(self: &Arc<Self>, told: &LegEventAt) {
        if let LegEvent::Answered { leg, .. } = told.event {
            self.tell_leg(LegCommand::HangUp { leg, cause: HangupCause::NotWanted });
        }
        if wrong::chosen(Wrong::DoubleCapture)
            && let LegEvent::Ended { leg, cause: EndCause::Bye { .. } } = told.event
        {
            tokio::spawn(self.clone().settle_again(leg.call, told.at));
        }
    }

    /// What a second BYE does in the wrong version that captures twice.
    async fn settle_again(self: Arc<Self>, call: CallId, at: Now) {
        if let Ok(Some((account, _))) = self.store.call(call).await {
            let end = crate::account::settle::CallEnd { at: Some(at), ..endings::end(service_failure()) };
            self.settle_until_done(account, call, Arc::new(end), Until::FirstTry, ()).await;
        }
    }

    /// Seconds for Retry-After, jittered so that phones do not come back all at once.
    pub(crate) fn retry_after_s(&self) -> u32 {
        u32::try_from(5 + self.entropy().below(11)).unwrap_or(5)
    }
}

/// How a call ends that our side lost.
pub(crate) fn service_failure() -> Hangup {
    let cause = HangupCause::ServiceFailure;
    Hangup {
        side: HangupSide::Service,
        sip_code: None,
        q850: Some(cause.q850()),
        reason: cause.as_str().to_owned(),
        redress: None,
    }
}

/// Whether a call can do without an event when too many wait. What answers or ends a leg comes once for each leg.
pub(crate) const fn can_be_dropped(told: &LegEventAt) -> bool {
    use schema::leg::LegEvent::{Checkpointed, KeyPressed, Offered, Progress};
    matches!(told.event, Progress { .. } | Checkpointed { .. } | Offered { .. } | KeyPressed { .. })
}

/// Whether an event changes nothing, so that it is not worth a message. The caller's ACK is waited for by the SIP side, unless
/// the other leg's ACK needs what is in it.
pub(crate) const fn is_silent(told: &LegEventAt) -> bool {
    matches!(told.event, LegEvent::Confirmed { answer: None, .. })
}
