//! Settling a call that no actor cares for: its actor died, or its account does not take the settlement. The end of a call
//! is known outside its actor from the moment on at which the account is asked to settle it, so that it is billed to its
//! end and not to a panic that came later.
//!
//! A settlement that kills its account's actor three times is set aside ([`crate::poison`]). Then the call's end is kept in
//! the call's row, its hold stays, the operator is told, and it is tried again each time the message may be tried again,
//! and by recovery at the next start. So nothing is billed twice, and nothing beyond the end.

use crate::account::settle::{CallEnd, Settled};
use crate::account::{AccountMsg, Reply as Answer};
use crate::call::machine::{ASK_LIMIT, ATTEMPTS_MAX};
use crate::call::{PART_LIMIT, log_end, service_failure};
use crate::context::Context;
use crate::directory::AskError;
use crate::progress::ProgressCell;
use dashmap::DashMap;
use schema::id::{AccountKey, CallId};
use schema::leg::{HangupCause, LegCommand, LegId};
use std::sync::Arc;
use std::time::Duration;

/// Longest pause between two tries: a hold is released soon after what was in the way is gone.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Calls without an actor that are settled at the same time: one whose account does not answer takes a place for some seconds only.
pub(crate) const SETTLED_AT_ONCE: usize = 32;

/// Calls that are over and not settled yet, and that no actor cares for.
pub(crate) type Unsettled = DashMap<CallId, AccountKey>;

/// Until when whoever waits for a settlement does so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// The first try, however that ends.
    FirstTry,
    /// It is settled, or its end is kept: it was set aside.
    EndKept,
}

impl Context {
    /// A call whose actor died: both legs are hung up, and it is settled: at its end when it had one, else now, at most what
    /// was paid.
    pub(crate) async fn abandon_call(self: Arc<Self>, account: AccountKey, call: CallId, progress: Arc<ProgressCell>) {
        let cause = HangupCause::ServiceFailure;
        let now = self.now();
        let legs = std::iter::once(LegId::a(call)).chain((1..=ATTEMPTS_MAX).map(|n| LegId::b(call, n)));
        for leg in legs {
            if self.legs.send(LegCommand::HangUp { leg, cause }).await.is_err() {
                // The process ends: the next one takes the call up, and ends it (C4).
                return;
            }
        }
        let lost = || CallEnd {
            at: Some(now),
            hangup: service_failure(),
            failed: None,
            late_answer: false,
            cut: true,
            post_dial_delay_ms: None,
        };
        let end = progress.known_end().cloned().unwrap_or_else(|| Arc::new(lost()));
        // C4: its legs' BYEs leave before; which attempt was up nobody knows any more.
        tokio::time::sleep(PART_LIMIT).await;
        self.settle_until_done(account, call, end, Until::FirstTry, ()).await;
        self.directory.remove_call(call);
    }

    /// Settles a call that no actor cares for, until the account has answered. `waits` is dropped when it need not wait any more;
    /// that of a settlement that is set aside meanwhile waits until the end is kept.
    pub(crate) async fn settle_until_done(
        self: &Arc<Self>,
        account: AccountKey,
        call: CallId,
        end: Arc<CallEnd>,
        mut until: Until,
        waits: impl Send,
    ) {
        self.unsettled.insert(call, account);
        let mut waits = Some(waits);
        let mut pause = Duration::from_secs(1);
        let mut kept = false;
        loop {
            let ask = |reply: Answer<_>| AccountMsg::Settle(call, end.clone(), reply);
            let place = self.settling.acquire().await;
            let settled = self.ask(account, ASK_LIMIT, ask).await;
            drop(place);
            match settled {
                Ok(Settled::Done(call)) => {
                    log_end(&call);
                    break;
                }
                Ok(Settled::NotLive) | Err(AskError::NotFound) => break,
                Err(AskError::SetAside) => {
                    until = Until::EndKept;
                    kept = kept || self.keep_end(account, call, &end).await;
                }
                Err(error) => tracing::warn!(%error, call_id = %call, "a call could not be settled yet"),
            }
            if until == Until::FirstTry || kept {
                waits = None;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        self.unsettled.remove(&call);
        drop(waits);
    }

    /// True when the end is kept.
    async fn keep_end(self: &Arc<Self>, account: AccountKey, call: CallId, end: &Arc<CallEnd>) -> bool {
        let ask = |reply: Answer<()>| AccountMsg::KeepEnd(call, end.clone(), reply);
        match self.ask(account, ASK_LIMIT, ask).await {
            Ok(()) => {
                tracing::error!(call_id = %call, "a call cannot be settled: its end is kept, its hold stays for now");
                true
            }
            Err(error) => {
                tracing::error!(%error, call_id = %call, "a call cannot be settled, and its end could not be kept");
                false
            }
        }
    }
}
