//! What every request can reach: the handles, and who asks.

use crate::config::WebConfig;
use crate::origin::Origins;
use crate::password::Verifier;
use crate::policy::Access;
use crate::session::Sessions;
use crate::sign_in::Attempts;
use actors::Actors;
use async_graphql::Context;
use schema::time::Clock;
use std::sync::{Arc, Mutex, PoisonError};
use storage::Store;
use tokio::sync::watch;

/// Of the whole process.
pub(crate) struct App {
    pub(crate) actors: Actors,
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) verifier: Verifier,
    pub(crate) attempts: Attempts,
    pub(crate) origins: Origins,
    pub(crate) config: WebConfig,
    /// True once this process takes no more work.
    pub(crate) draining: watch::Receiver<bool>,
}

impl App {
    /// The process's handles, as a resolver reaches them.
    pub(crate) fn of<'a>(ctx: &Context<'a>) -> &'a Arc<Self> {
        ctx.data_unchecked()
    }
}

/// Who makes a request. Signing in changes it for the rest of the answer.
pub(crate) struct Identity(Mutex<Arc<Access>>);

impl Identity {
    pub(crate) fn new(access: Access) -> Self {
        Self(Mutex::new(Arc::new(access)))
    }

    /// Who asks, as a resolver sees it.
    pub(crate) fn of(ctx: &Context<'_>) -> Arc<Access> {
        ctx.data_unchecked::<Self>().0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From here on somebody else asks.
    pub(crate) fn replace(ctx: &Context<'_>, access: Access) {
        *ctx.data_unchecked::<Self>().0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(access);
    }
}
