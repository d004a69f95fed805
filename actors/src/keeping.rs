//! States of dialogs on their way to the store. The account's actor may have to be loaded first, from a database that is away, and
//! an entry may be rejected: a state is brought again until it is stored or a newer one is. The call goes on meanwhile: its cut-off
//! and its BYE do not wait for them.

use crate::account::{AccountMsg, Reply};
use crate::call::machine::ASK_LIMIT;
use crate::context::Context;
use crate::directory::AskError;
use schema::call::LegSide;
use schema::id::{AccountKey, CallId};
use schema::leg::Checkpoint;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// Between two tries.
const AGAIN: Duration = Duration::from_secs(1);

/// The newest state of each dialog that is not stored yet, at most one a side; nothing before the first. Dropped with the call.
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

impl Waiting {
    /// The next one to be brought; when there is none nobody carries any more.
    fn next(&mut self) -> Option<(LegSide, Checkpoint)> {
        let next = self.newest.pop();
        self.is_carried = next.is_some();
        next
    }

    /// Was not stored: it waits on, unless there is a newer one of its side.
    fn take_back(&mut self, side: LegSide, checkpoint: Checkpoint) {
        if self.newest.iter().all(|(of, _)| *of != side) {
            self.newest.push((side, checkpoint));
        }
    }
}

impl Keeping {
    /// Has a state stored as soon as that is possible; an older one of that side which waits is not.
    pub(crate) fn keep(
        &mut self,
        ctx: &Arc<Context>,
        key: AccountKey,
        call: CallId,
        side: LegSide,
        newest: Checkpoint,
    ) {
        let shared = self.0.get_or_insert_default();
        let mut waiting = lock(shared);
        waiting.newest.retain(|(of, _)| *of != side);
        waiting.newest.push((side, newest));
        if !std::mem::replace(&mut waiting.is_carried, true) {
            tokio::spawn(carry(Arc::downgrade(shared), ctx.clone(), key, call));
        }
    }
}

/// Until all are stored, or the call is over. One after the other: a newer state never comes before an older one.
async fn carry(waiting: Weak<Mutex<Waiting>>, ctx: Arc<Context>, account: AccountKey, call: CallId) {
    while let Some((side, newest)) = waiting.upgrade().and_then(|waiting| lock(&waiting).next()) {
        let keep = |reply: Reply<()>| AccountMsg::Keep(call, side, Box::new(newest.clone()), reply);
        let kept = Box::pin(ctx.ask(account, ASK_LIMIT, keep)).await;
        if let Ok(()) | Err(AskError::NotFound | AskError::SetAside) = kept {
            continue;
        }
        let Some(waiting) = waiting.upgrade() else { return };
        lock(&waiting).take_back(side, newest);
        drop(waiting);
        tokio::time::sleep(AGAIN).await;
    }
}
