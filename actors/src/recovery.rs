//! What happens at the start to the calls that were live when the process before ended: each gets an actor again. Answered ones
//! go on, others are ended and settled for nothing. Each is looked after by itself: what fails for one, or takes its time,
//! holds up no other.

use crate::account::AccountMsg;
use crate::account::settle::CallEnd;
use crate::call::machine::{ASK_LIMIT, RING_TIMEOUT};
use crate::call::protocol::{TakenUp, answered_dialogs};
use crate::call::{Start, service_failure};
use crate::context::Context;
use crate::directory::AskError;
use crate::settling::Until;
use schema::call::{CallState, LiveCall};
use schema::edge::EdgeCommand;
use schema::id::{AccountKey, CallNo};
use schema::leg::{Dialogs, HangupCause, LegCommand, LegId, TakeBack};
use schema::wrong::{self, Wrong};
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use storage::StoredCall;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

/// Calls read at once.
const PAGE: u32 = 500;
/// Calls whose accounts are asked at the same time.
const AT_ONCE: usize = 32;
/// Pauses between two tries to read or to ask.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(8);

/// A call from before the start.
struct Found {
    account: AccountKey,
    live: LiveCall,
    dialogs: Dialogs,
}

/// What the tasks of all calls share.
struct Recovery {
    ctx: Arc<Context>,
    line: Semaphore,
    /// Whether the edge knows all dialogs.
    told: watch::Sender<bool>,
    /// Dropped by each call that is taken up, or whose settlement was tried.
    pending: mpsc::Sender<()>,
}

/// Takes up all calls, begun in the order of their accounts, and settles those that do not go on.
pub(crate) async fn take_up_calls(ctx: Arc<Context>, done: watch::Sender<bool>) {
    let (pending, mut all_seen) = mpsc::channel(1);
    let line = Semaphore::new(AT_ONCE);
    let recovery = Arc::new(Recovery { ctx: ctx.clone(), line, told: watch::Sender::new(false), pending });
    let mut after: Option<(AccountKey, CallNo)> = None;
    loop {
        let page = match ctx.store.live_calls_with_dialogs(after, PAGE).await {
            Ok(page) => page,
            Err(error) => {
                tracing::error!(%error, "calls from before the start could not be read yet");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some(last) = page.last() else { break };
        after = Some((last.account, last.no));
        let forgotten = usize::from(wrong::chosen(Wrong::RecoveryForgets));
        let mut looked_at = Vec::with_capacity(page.len());
        for row in page.into_iter().skip(forgotten) {
            // A call that began since the start has an actor already.
            if ctx.directory.knows_call(row.id) {
                continue;
            }
            let (known, edge_knows) = oneshot::channel();
            let pending = recovery.pending.clone();
            tokio::spawn(recovery.clone().bring_back(row, known, pending));
            looked_at.push(edge_knows);
        }
        for edge_knows in looked_at {
            // An actor that failed is looked after by its supervisor.
            let _ = edge_knows.await;
        }
    }
    // The edge takes what waits for legs before what waits for it: it knows all dialogs by then.
    let _ = ctx.edge.send(EdgeCommand::Recovered).await;
    recovery.told.send_replace(true);
    drop(recovery);
    let _ = all_seen.recv().await;
    let _ = done.send(true);
}

impl Context {
    /// A row that cannot be opened stands in nobody's way.
    fn unreadable(&self, table: &'static str, account: AccountKey, row: &dyn Display, error: &dyn Display) {
        self.tally.unreadable_rows.fetch_add(1, Ordering::Relaxed);
        tracing::error!(%error, table, account = account.0, row = %row, "a row cannot be read: it is left out");
    }
}

impl Recovery {
    /// Has a call go on, or ends it. `known` hears when the edge knows its dialogs.
    async fn bring_back(self: Arc<Self>, row: StoredCall, known: oneshot::Sender<()>, pending: mpsc::Sender<()>) {
        let StoredCall { account, no, id, call, dialogs } = row;
        let live = match call {
            Ok(live) => live,
            Err(error) => return self.ctx.unreadable("calls", account, &format_args!("{} ({id})", no.0), &error),
        };
        let (dialogs, is_whole) = match dialogs {
            Ok(dialogs) => (dialogs, true),
            // Nobody can talk to its legs any more.
            Err(error) => {
                self.ctx.unreadable("calls", account, &format_args!("{} ({id})", no.0), &error);
                (Dialogs::default(), false)
            }
        };
        let found = Found { account, live, dialogs };
        let mut known = Some(known);
        // One that is ending was over before: its settlement had been set aside.
        let goes_on = !(wrong::chosen(Wrong::RecoveryHangsUp) && found.live.answered.is_some());
        if is_whole && goes_on && found.live.call.state != CallState::Ending {
            match self.take_up(&found, &mut known).await {
                Ok(Some(taken)) => {
                    // From here on it is as any other call.
                    let (told, resumed) = oneshot::channel();
                    let start = Start::Resume(Box::new(taken), Box::new(found.dialogs), told);
                    self.ctx.start_call(account, id, start, self.ctx.admission.admit_anyway());
                    let _ = resumed.await;
                    return;
                }
                Ok(None) => return,
                Err(error) => tracing::error!(%error, call_id = %id, "a call could not be taken up: it ends"),
            }
        }
        self.ctx.unsettled.insert(id, account);
        self.hang_up(&found).await;
        drop(known);
        if self.ctx.legs.is_closed() {
            // The process ends: the next one does it (C4).
            return;
        }
        // Its legs' ends left by then (C4).
        let _ = self.told.subscribe().wait_for(|told| *told).await;
        let ctx = self.ctx.clone();
        drop(self);
        ctx.settle_until_done(account, id, Arc::new(lost(&found.live, &ctx)), Until::FirstTry, pending).await;
    }

    /// Asks a call's account until it answers, as long as the call is paid, once at least. `None`: it was settled meanwhile.
    ///
    /// # Errors
    /// It does not go on.
    async fn take_up(
        &self,
        found: &Found,
        known: &mut Option<oneshot::Sender<()>>,
    ) -> Result<Option<TakenUp>, AskError> {
        let limit = self.paid(&found.live).max(ASK_LIMIT);
        let asked = async {
            let mut pause = PAUSE;
            loop {
                let error = match self.ask(found).await {
                    Err(error) if !matches!(error, AskError::SetAside | AskError::NotFound) => error,
                    answer => return answer,
                };
                if self.paid(&found.live).is_zero() {
                    return Err(error);
                }
                tracing::warn!(%error, call_id = %found.live.call.id, "a call could not be taken up yet");
                if let Some(known) = known.take() {
                    // What its legs tell until it is taken up is answered, not refused.
                    self.resume_legs(found).await;
                    drop(known);
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        };
        tokio::time::timeout(limit, asked).await.unwrap_or(Err(AskError::Unknown))
    }

    async fn ask(&self, found: &Found) -> Result<Option<TakenUp>, AskError> {
        let _place = self.line.acquire().await;
        let call = found.live.call.id;
        self.ctx.ask(found.account, ASK_LIMIT, |reply| AccountMsg::TakeUp(call, reply)).await
    }

    /// How long a call may go on without its account (C2); one that rings, as long as calls ring.
    fn paid(&self, live: &LiveCall) -> Duration {
        let now = self.ctx.now();
        match live.answered {
            Some(answered) => {
                Duration::from_secs(live.paid_s).saturating_sub(answered.until(now, self.ctx.config.boot))
            }
            None => RING_TIMEOUT.saturating_sub(now.wall.since(live.call.started_at)),
        }
    }

    /// An answered leg can only be hung up, or answer, by whoever knows its dialog.
    async fn resume_legs(&self, found: &Found) {
        for (leg, checkpoint) in answered_dialogs(&found.live, &found.dialogs) {
            let _ = self.ctx.legs.send(LegCommand::Resume { leg, checkpoint }).await;
        }
    }

    async fn hang_up(&self, Found { live, dialogs, .. }: &Found) {
        let (ctx, call) = (&self.ctx, live.call.id);
        if let Some(checkpoint) = dialogs.a_leg.clone().filter(|_| live.answered.is_none()) {
            // Its carrier's INVITE is not repeated: nobody can say whether its number may still be presented.
            let (leg, retry_after_s) = (LegId::a(call), ctx.retry_after_s());
            let call = TakeBack { leg, checkpoint, invite: None, retry_after_s };
            let _ = ctx.legs.send(LegCommand::TakeBack(Box::new(call))).await;
        }
        for (leg, checkpoint) in answered_dialogs(live, dialogs) {
            let _ = ctx.legs.send(LegCommand::Resume { leg, checkpoint }).await;
        }
        let attempt = live.attempt.as_ref().map(|attempt| LegId::b(call, attempt.number));
        for leg in attempt.into_iter().chain([LegId::a(call)]) {
            let _ = ctx.legs.send(LegCommand::HangUp { leg, cause: HangupCause::ServiceFailure }).await;
        }
    }
}

/// The end of a call that cannot be taken up is unknown: it is billed to its last proof of life, if there is one.
fn lost(live: &LiveCall, ctx: &Context) -> CallEnd {
    CallEnd {
        at: (live.answered.is_none() || live.is_unheard()).then(|| ctx.now()),
        hangup: live.call.hangup.as_deref().cloned().unwrap_or_else(service_failure),
        failed: None,
        late_answer: live.late_answer || live.is_unheard(),
        cut: false,
        post_dial_delay_ms: None,
    }
}

/// Tells the edge which phones were registered, as soon as that can be read.
pub(crate) async fn restore_bindings(ctx: Arc<Context>) {
    let mut pause = PAUSE;
    let bindings = loop {
        match ctx.store.bindings(ctx.now().wall).await {
            Ok(bindings) => break bindings,
            Err(error) => tracing::error!(%error, "bindings could not be read yet"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    };
    for row in bindings {
        match row.binding {
            Ok(binding) => {
                let (binding, username) = (Box::new(binding), row.username);
                if ctx.edge.send(EdgeCommand::BindingRestored { binding, username }).await.is_err() {
                    return;
                }
            }
            Err(error) => ctx.unreadable("bindings", row.account, &row.credential, &error),
        }
    }
}
