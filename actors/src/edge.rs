//! The SIP edge's questions beside calls: credentials are looked up without any mailbox, a bounded number at a time;
//! bindings are written in order, many at once.

use crate::context::Context;
use schema::edge::{BindingChange, CredentialLookup, EdgeCommand, Ticket};
use std::sync::Arc;
use storage::BindingWrite;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Credentials looked up at the same time.
const LOOKUPS: usize = 64;
/// Lookups that may wait; more are told that the lookup is unavailable.
const LOOKUPS_WAITING: usize = 4_096;
/// Bindings waiting to be written; more are dropped, and come again with the phone's next refresh.
const BINDINGS_WAITING: usize = 16_384;
/// Bindings written in one transaction.
const BINDINGS_BATCH: usize = 512;

#[derive(Clone)]
pub(crate) struct Edge {
    /// Lookups that run or wait.
    places: Arc<Semaphore>,
    running: Arc<Semaphore>,
    bindings: mpsc::Sender<Item>,
}

enum Item {
    Changed(Box<BindingChange>),
    Flush(oneshot::Sender<()>),
}

impl Edge {
    pub(crate) fn start(ctx: &Arc<Context>) -> Self {
        let (bindings, waiting) = mpsc::channel(BINDINGS_WAITING);
        tokio::spawn(write_bindings(ctx.clone(), waiting));
        Self {
            places: Arc::new(Semaphore::new(LOOKUPS + LOOKUPS_WAITING)),
            running: Arc::new(Semaphore::new(LOOKUPS)),
            bindings,
        }
    }

    /// Tells the edge something, from where nothing may be awaited.
    pub(crate) fn tell(&self, ctx: &Arc<Context>, command: EdgeCommand) {
        if let Err(mpsc::error::TrySendError::Full(command)) = ctx.edge.try_send(command) {
            let ctx = ctx.clone();
            tokio::spawn(async move { ctx.edge.send(command).await });
        }
    }

    /// Looks up a digest username and answers with the ticket.
    pub(crate) fn look_up(&self, ctx: &Arc<Context>, ticket: Ticket, username: Box<str>) {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            return self.tell(ctx, EdgeCommand::Credential { ticket, found: CredentialLookup::Unavailable });
        };
        let (ctx, running) = (ctx.clone(), self.running.clone());
        tokio::spawn(async move {
            let _place = place;
            let _running = running.acquire().await;
            let found = match ctx.store.credential(&username).await {
                Ok(Some(credential)) => CredentialLookup::Found(Box::new(credential)),
                Ok(None) => CredentialLookup::Unknown,
                Err(error) => {
                    tracing::warn!(%error, "a credential could not be looked up");
                    CredentialLookup::Unavailable
                }
            };
            let _ = ctx.edge.send(EdgeCommand::Credential { ticket, found }).await;
        });
    }

    pub(crate) fn store_binding(&self, change: Box<BindingChange>) {
        if self.bindings.try_send(Item::Changed(change)).is_err() {
            tracing::warn!("a binding was not stored: too many wait");
        }
    }

    /// Waits until the bindings told before are written.
    pub(crate) async fn flush(&self) {
        let (reached, wait) = oneshot::channel();
        if self.bindings.send(Item::Flush(reached)).await.is_ok() {
            let _ = wait.await;
        }
    }
}

async fn write_bindings(ctx: Arc<Context>, mut waiting: mpsc::Receiver<Item>) {
    let mut items = Vec::with_capacity(BINDINGS_BATCH);
    while waiting.recv_many(&mut items, BINDINGS_BATCH).await > 0 {
        let at = ctx.now().wall;
        let (mut writes, mut flushes) = (Vec::new(), Vec::new());
        for item in items.drain(..) {
            match item {
                Item::Changed(change) if change.binding.expires_at > at => {
                    writes.push(BindingWrite::Put(change.binding))
                }
                Item::Changed(change) => writes.push(BindingWrite::Remove(change.binding)),
                Item::Flush(reached) => flushes.push(reached),
            }
        }
        if !writes.is_empty()
            && let Err(error) = ctx.store.write_bindings(&writes, at).await
        {
            tracing::warn!(%error, count = writes.len(), "bindings were not stored");
        }
        for reached in flushes {
            let _ = reached.send(());
        }
    }
}
