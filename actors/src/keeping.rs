//! States of dialogs on their way to the account's actor, which may have to be loaded first, from a database that is away. The call
//! goes on meanwhile: its cut-off and its BYE do not wait for them.

use crate::account::AccountMsg;
use crate::context::Context;
use schema::call::LegSide;
use schema::id::{AccountKey, CallId};
use schema::leg::Checkpoint;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// Between two tries.
const AGAIN: Duration = Duration::from_secs(1);

/// The newest state of each dialog that has not left yet, at most one a side; nothing while the account's actor is there. Dropped
/// with the call.
#[derive(Default)]
pub(crate) struct Keeping(Option<Arc<Mutex<Waiting>>>);

#[derive(Default)]
struct Waiting {
    newest: Vec<(LegSide, Checkpoint)>,
    /// A task takes them there.
    is_carried: bool,
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keeping {
    /// Has a state kept: at once when the account's actor is there, else when it is; then an older one of that side is not sent.
    pub(crate) fn keep(
        &mut self,
        ctx: &Arc<Context>,
        key: AccountKey,
        call: CallId,
        side: LegSide,
        newest: Checkpoint,
    ) {
        self.0.take_if(|waiting| !lock(waiting).is_carried);
        if self.0.is_none()
            && let Some(account) = ctx.directory.loaded(key)
        {
            // One that ends loses it, as a crash would: the dialog is taken up as it was stored before.
            return drop(account.send_message(AccountMsg::Keep(call, side, Box::new(newest))));
        }
        let shared = self.0.get_or_insert_default();
        let mut waiting = lock(shared);
        waiting.newest.retain(|(of, _)| *of != side);
        waiting.newest.push((side, newest));
        if !std::mem::replace(&mut waiting.is_carried, true) {
            tokio::spawn(carry(Arc::downgrade(shared), ctx.clone(), key, call));
        }
    }
}

/// Until all are told, or the call is over.
async fn carry(waiting: Weak<Mutex<Waiting>>, ctx: Arc<Context>, account: AccountKey, call: CallId) {
    loop {
        let loaded = ctx.account(account).await;
        let Some(waiting) = waiting.upgrade() else { return };
        match loaded {
            Ok(account) => {
                let mut waiting = lock(&waiting);
                for (side, newest) in std::mem::take(&mut waiting.newest) {
                    account.tell(AccountMsg::Keep(call, side, Box::new(newest)));
                }
                waiting.is_carried = false;
                return;
            }
            Err(_) => drop(waiting),
        }
        tokio::time::sleep(AGAIN).await;
    }
}
