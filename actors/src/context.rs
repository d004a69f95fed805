//! What all actors share: the ways out (journal, legs, edge), the clocks and entropy, and the snapshots that are read
//! without asking anybody.

use crate::admission::{Admission, Places};
use crate::alarm::AlarmClock;
use crate::call::CallMsg;
use crate::directory::Directory;
use crate::failures::Failures;
use crate::hub::Hubs;
use crate::rating::Tariffs;
use crate::settling::Unsettled;
use crate::supervisor::Supervisors;
use crate::system::ActorsConfig;
use crate::trunk::Trunks;
use crate::watches::Watches;
use arc_swap::ArcSwap;
use ractor::ActorRef;
use schema::edge::EdgeCommand;
use schema::entropy::Entropy;
use schema::leg::LegCommand;
use schema::time::{Clock, Now};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use storage::{Journal, Store};
use tokio::sync::{Semaphore, mpsc};

pub(crate) struct Context {
    pub(crate) config: ActorsConfig,
    pub(crate) store: Store,
    pub(crate) journal: Journal,
    pub(crate) clock: Clock,
    /// Of all calls.
    pub(crate) alarms: AlarmClock<ActorRef<CallMsg>>,
    pub(crate) entropy: Mutex<Entropy>,
    pub(crate) legs: mpsc::Sender<LegCommand>,
    pub(crate) edge: mpsc::Sender<EdgeCommand>,
    pub(crate) tariffs: ArcSwap<Tariffs>,
    /// Held by whoever reads the store to replace them.
    pub(crate) changing_tariffs: tokio::sync::Mutex<()>,
    pub(crate) trunks: Arc<Trunks>,
    pub(crate) directory: Directory,
    pub(crate) hubs: Arc<Hubs>,
    pub(crate) watches: Watches,
    pub(crate) supervisors: Supervisors,
    pub(crate) admission: Admission,
    /// Questions of clients that wait for accounts.
    pub(crate) questions: Places,
    /// Calls that wait to be authorized.
    pub(crate) authorizations: Places,
    pub(crate) failures: Failures,
    pub(crate) unsettled: Unsettled,
    /// Places of those that settle such calls.
    pub(crate) settling: Semaphore,
    #[cfg(any(test, feature = "faults"))]
    pub(crate) faults: crate::faults::Faults,
    pub(crate) tally: Tally,
}

/// Counts since the start.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) account_messages: AtomicU64,
    pub(crate) call_messages: AtomicU64,
    pub(crate) calls_admitted: AtomicU64,
    pub(crate) calls_shed: AtomicU64,
    pub(crate) journal_full: AtomicU64,
    pub(crate) restarts: AtomicU64,
    pub(crate) messages_dropped: AtomicU64,
    pub(crate) unreadable_rows: AtomicU64,
}

impl Context {
    pub(crate) fn now(&self) -> Now {
        (self.clock)()
    }

    pub(crate) fn entropy(&self) -> MutexGuard<'_, Entropy> {
        self.entropy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells a leg, from where nothing may be awaited. A full channel is waited for elsewhere.
    pub(crate) fn tell_leg(self: &Arc<Self>, command: LegCommand) {
        if let Err(mpsc::error::TrySendError::Full(command)) = self.legs.try_send(command) {
            let ctx = self.clone();
            tokio::spawn(async move { ctx.legs.send(command).await });
        }
    }
}
