//! Live figures for whoever watches an account: now, at each change and each second while a call lasts, conflated to the
//! latest. Nothing is computed for an account that nobody watches.

use crate::account::AccountMsg;
use crate::account::view::LiveView;
use crate::call::machine::ASK_LIMIT;
use crate::context::Context;
use crate::directory::AskError;
use dashmap::DashMap;
use schema::id::AccountKey;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Pause between two figures of an account while a call of it lasts.
const PERIOD: Duration = Duration::from_secs(1);
/// Changes within this time are shown as one.
const CONFLATION: Duration = Duration::from_millis(50);

#[derive(Default)]
pub(crate) struct Watches(DashMap<AccountKey, Arc<Watch>>);

struct Watch {
    view: watch::Sender<Arc<LiveView>>,
    changed: Notify,
}

impl Watches {
    /// Something of the account changed.
    pub(crate) fn changed(&self, account: AccountKey) {
        if let Some(watch) = self.0.get(&account) {
            watch.changed.notify_one();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Context {
    /// The live figures of an account, and whatever they become.
    pub(crate) async fn watch(
        self: &Arc<Self>,
        account: AccountKey,
    ) -> Result<watch::Receiver<Arc<LiveView>>, AskError> {
        let view = self.live_view(account).await?;
        let mut begun = false;
        let watch = self.watches.0.entry(account).or_insert_with(|| {
            begun = true;
            Arc::new(Watch { view: watch::Sender::new(view.clone()), changed: Notify::new() })
        });
        let (receiver, watch) = (watch.view.subscribe(), watch.clone());
        if begun {
            tokio::spawn(self.clone().keep_watch(account, watch));
        } else {
            watch.view.send_replace(view);
        }
        Ok(receiver)
    }

    async fn live_view(self: &Arc<Self>, account: AccountKey) -> Result<Arc<LiveView>, AskError> {
        let _place = self.questions.enter(account).ok_or(AskError::Unavailable)?;
        let mut view = self.ask(account, ASK_LIMIT, AccountMsg::Live).await?;
        self.directory.show_progress(&mut view.live_calls);
        Ok(Arc::new(view))
    }

    async fn keep_watch(self: Arc<Self>, account: AccountKey, watch: Arc<Watch>) {
        let mut is_stale = false;
        loop {
            let again = is_stale || !watch.view.borrow().live_calls.is_empty();
            tokio::select! {
                // In this order always: a random one would show in a simulated trace.
                biased;
                () = watch.changed.notified() => tokio::time::sleep(CONFLATION).await,
                () = tokio::time::sleep(PERIOD), if again => {}
                () = watch.view.closed() => {}
            }
            // Under the map's lock, so that nobody subscribes in between.
            if self.watches.0.remove_if(&account, |_, _| watch.view.receiver_count() == 0).is_some() {
                return;
            }
            let view = self.live_view(account).await;
            // An account that rests or has too much to do is asked again: nothing else may tell of the change.
            is_stale = view.is_err();
            if let Ok(view) = view {
                watch.view.send_replace(view);
            }
        }
    }
}
