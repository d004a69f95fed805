//! What happens at the start to the calls that were live when the process before ended: answered ones go on, others are
//! ended and settled for nothing.

use crate::account::AccountMsg;
use crate::account::settle::CallEnd;
use crate::call::machine::ASK_LIMIT;
use crate::call::{Start, service_failure};
use crate::context::Context;
use schema::call::LiveCall;
use schema::edge::EdgeCommand;
use schema::id::{AccountKey, CallNo};
use schema::leg::{HangupCause, LegCommand, LegId};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Calls read at once.
const PAGE: u32 = 500;

/// Takes up all calls, account by account, in order.
pub(crate) async fn take_up_calls(ctx: Arc<Context>, done: watch::Sender<bool>) {
    let mut after: Option<(AccountKey, CallNo)> = None;
    loop {
        let page = match ctx.store.live_calls(after, PAGE).await {
            Ok(page) => page,
            Err(error) => {
                tracing::error!(%error, "calls from before the start could not be read yet");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        for (account, live) in &page {
            take_up(&ctx, *account, live).await;
        }
        match page.last() {
            Some((account, live)) => after = Some((*account, live.no)),
            None => break,
        }
    }
    let _ = done.send(true);
}

async fn take_up(ctx: &Arc<Context>, account: AccountKey, live: &LiveCall) {
    let call = live.call.id;
    // A call that began since the start has an actor already.
    if ctx.directory.knows_call(call) {
        return;
    }
    if live.answered.is_some() {
        match ctx.ask(account, ASK_LIMIT, |reply| AccountMsg::TakeUp(call, reply)).await {
            Ok(Some(taken)) => {
                ctx.start_call(account, call, Start::Resume(Box::new(taken)), ctx.admission.admit_anyway());
                return;
            }
            Ok(None) => return,
            Err(error) => tracing::error!(%error, call_id = %call, "an answered call could not be taken up: it ends"),
        }
    }
    let b_leg = live.attempt.as_ref().map(|attempt| (LegId::b(call, attempt.number), &live.b_leg));
    for (leg, checkpoint) in b_leg.into_iter().chain([(LegId::a(call), &live.a_leg)]) {
        // An answered leg can only be hung up by whoever knows its dialog.
        if let Some(checkpoint) = checkpoint.clone().filter(|_| live.answered.is_some()) {
            let _ = ctx.legs.send(LegCommand::Resume { leg, checkpoint }).await;
        }
        let _ = ctx.legs.send(LegCommand::HangUp { leg, cause: HangupCause::ServiceFailure }).await;
    }
    // The end of a call that cannot be taken up is unknown: it is billed to its last proof of life.
    let end = CallEnd {
        at: live.answered.is_none().then(|| ctx.now()),
        hangup: service_failure(),
        failed: None,
        late_answer: false,
        cut: false,
        post_dial_delay_ms: None,
    };
    ctx.settle_until_done(account, call, Box::new(end)).await;
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
