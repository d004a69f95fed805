//! What happens at the start to the calls that were live when the process before ended: each gets an actor again. Answered ones
//! go on, others are ended and settled for nothing.

use crate::account::AccountMsg;
use crate::account::settle::CallEnd;
use crate::call::machine::ASK_LIMIT;
use crate::call::protocol::answered_dialogs;
use crate::call::{Start, service_failure};
use crate::context::Context;
use futures_util::StreamExt as _;
use schema::call::{CallState, LiveCall};
use schema::edge::EdgeCommand;
use schema::id::{AccountKey, CallId, CallNo};
use schema::leg::{Dialogs, HangupCause, LegCommand, LegId, TakeBack};
use schema::wrong::{self, Wrong};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// Calls read at once.
const PAGE: u32 = 500;
/// Calls whose accounts are loaded at the same time.
const AT_ONCE: usize = 32;

/// A call that could not be taken up.
struct Lost {
    account: AccountKey,
    call: CallId,
    end: Arc<CallEnd>,
}

/// Takes up all calls, begun in the order of their accounts; then settles those that do not go on.
pub(crate) async fn take_up_calls(ctx: Arc<Context>, done: watch::Sender<bool>) {
    let mut after: Option<(AccountKey, CallNo)> = None;
    let mut lost = Vec::new();
    loop {
        let page = match ctx.store.live_calls_with_dialogs(after, PAGE).await {
            Ok(page) => page,
            Err(error) => {
                tracing::error!(%error, "calls from before the start could not be read yet");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let mut resumed = Vec::with_capacity(page.len());
        // A call that began since the start has an actor already.
        let forgotten = usize::from(wrong::chosen(Wrong::RecoveryForgets));
        let found = page.iter().skip(forgotten).filter(|(_, live, _)| !ctx.directory.knows_call(live.call.id));
        let taking: Vec<_> = found.map(|(account, live, dialogs)| take_up(&ctx, *account, live, dialogs)).collect();
        let mut taking = futures_util::stream::iter(taking).buffered(AT_ONCE);
        while let Some(taken) = taking.next().await {
            match taken {
                Ok(told) => resumed.extend(told),
                Err(call) => lost.push(call),
            }
        }
        for told in resumed {
            // An actor that failed is looked after by its supervisor.
            let _ = told.await;
        }
        match page.last() {
            Some((account, live, _)) => after = Some((*account, live.no)),
            None => break,
        }
    }
    // The edge takes what waits for legs before what waits for it: it knows all dialogs by then.
    let _ = ctx.edge.send(EdgeCommand::Recovered).await;
    for Lost { account, call, end } in lost {
        ctx.settle_until_done(account, call, end).await;
    }
    let _ = done.send(true);
}

/// Gives what tells when the legs of a call that goes on know of it; nothing when it was settled meanwhile.
///
/// # Errors
/// The call does not go on: its legs are hung up.
async fn take_up(
    ctx: &Arc<Context>,
    account: AccountKey,
    live: &LiveCall,
    dialogs: &Dialogs,
) -> Result<Option<oneshot::Receiver<()>>, Lost> {
    let call = live.call.id;
    // One that is ending was over before: its settlement had been set aside.
    if live.call.state != CallState::Ending {
        match ctx.ask(account, ASK_LIMIT, |reply| AccountMsg::TakeUp(call, reply)).await {
            Ok(Some(taken)) => {
                let (told, resumed) = oneshot::channel();
                let start = Start::Resume(Box::new(taken), Box::new(dialogs.clone()), told);
                ctx.start_call(account, call, start, ctx.admission.admit_anyway());
                return Ok(Some(resumed));
            }
            Ok(None) => return Ok(None),
            Err(error) => tracing::error!(%error, call_id = %call, "a call could not be taken up: it ends"),
        }
    }
    if let Some(checkpoint) = dialogs.a_leg.clone().filter(|_| live.answered.is_none()) {
        // Its carrier's INVITE is not repeated: nobody can say whether its number may still be presented.
        let (leg, retry_after_s) = (LegId::a(call), ctx.retry_after_s());
        let call = TakeBack { leg, checkpoint, invite: None, retry_after_s };
        let _ = ctx.legs.send(LegCommand::TakeBack(Box::new(call))).await;
    }
    // An answered leg can only be hung up by whoever knows its dialog.
    for (leg, checkpoint) in answered_dialogs(live, dialogs) {
        let _ = ctx.legs.send(LegCommand::Resume { leg, checkpoint }).await;
    }
    let attempt = live.attempt.as_ref().map(|attempt| LegId::b(call, attempt.number));
    for leg in attempt.into_iter().chain([LegId::a(call)]) {
        let _ = ctx.legs.send(LegCommand::HangUp { leg, cause: HangupCause::ServiceFailure }).await;
    }
    // The end of a call that cannot be taken up is unknown: it is billed to its last proof of life.
    let end = CallEnd {
        at: live.answered.is_none().then(|| ctx.now()),
        hangup: live.call.hangup.clone().unwrap_or_else(service_failure),
        failed: None,
        late_answer: false,
        cut: false,
        post_dial_delay_ms: None,
    };
    Err(Lost { account, call, end: Arc::new(end) })
}

/// Tells the edge which phones were registered.
pub(crate) async fn restore_bindings(ctx: Arc<Context>) {
    match ctx.store.bindings(ctx.now().wall).await {
        Ok(bindings) => {
            for binding in bindings {
                if ctx.edge.send(EdgeCommand::BindingRestored(Box::new(binding))).await.is_err() {
                    return;
                }
            }
        }
        Err(error) => tracing::error!(%error, "bindings could not be read: phones have to register again"),
    }
}
