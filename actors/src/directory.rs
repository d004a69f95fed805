//! Who is where: account key to account actor, call to call actor. An account is loaded on demand and goes away when idle; at
//! any time at most one actor of it exists, and a successor loads only when the journal has acknowledged everything of its
//! predecessor, also after a panic.

use crate::account::core::AccountCore;
use crate::account::{AccountActor, AccountMsg, Reply};
use crate::call::CallMsg;
use crate::context::Context;
use crate::failures::{Handling, REST_WAITED_FOR, Whose};
use crate::gate::{CommitGate, NotDone};
use crate::poison::{About, Work};
use crate::progress::ProgressCell;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use ractor::{Actor, ActorId, ActorRef, ActorStatus};
use schema::call::Call;
use schema::id::{AccountKey, CallId};
use schema::journal::Rejection;
use schema::leg::LegEvent;
use schema::time::Mono;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::SetOnce;

/// How often an account that comes and goes is asked for at most. A message that kills it is set aside before.
const TRIES: usize = 8;
/// How often an account is started while its supervisor is being replaced, and the pause between.
const SUPERVISOR_TRIES: usize = 20;
const SUPERVISOR_PAUSE: Duration = Duration::from_millis(5);
/// Why an account gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// There is no such account.
    #[error("no such account")]
    NotFound,
    /// The account could not be loaded, or has too much to do. Nothing was done.
    #[error("the account cannot be reached now")]
    Unavailable,
    /// No answer came in time: it may have been done or not.
    #[error("no answer in time, the outcome is unknown")]
    Unknown,
    /// The journal did not write it. Nothing was done.
    #[error("it could not be stored")]
    NotStored,
    /// The account failed again and again and rests for some seconds. Nothing was done.
    #[error("the account failed again and again and rests for a moment")]
    Resting,
    /// This very request made the account fail three times and is not tried any more: it may have been done or not.
    #[error("the request made the account fail three times and is set aside")]
    SetAside,
    /// The idempotency key belongs to a transfer posted before.
    #[error("the idempotency key is taken")]
    DuplicateKey,
}

/// An account actor that can be talked to.
#[derive(Clone)]
pub(crate) struct AccountEntry {
    generation: u64,
    actor: ActorRef<AccountMsg>,
    gate: Arc<CommitGate>,
    /// When it was last asked for, by the monotonic clock.
    used: Arc<AtomicU64>,
}

/// How loading ended. Those who wait go on in the order in which they asked (a `watch` has a random one, which would show in a
/// simulated trace).
type Loaded = Arc<SetOnce<Result<(), AskError>>>;

/// Whoever has it loads the account and says how that ended; a loader that panics says so by dropping it.
struct Loader(Loaded);

impl Loader {
    fn done(self, result: Result<(), AskError>) {
        let _ = self.0.set(result);
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        let _ = self.0.set(Err(AskError::Unavailable));
    }
}

enum Slot {
    /// Being loaded.
    Loading(Loaded),
    Live(AccountEntry),
    /// Its actor is gone; what it submitted may not be acknowledged yet.
    Draining(Arc<CommitGate>),
}

enum Claim {
    Live(AccountEntry),
    Wait(Loaded),
    /// Whoever gets this loads the account, after the predecessor's gate is quiet.
    Load(Loader, Option<Arc<CommitGate>>),
}

/// A live call's actor.
#[derive(Clone)]
pub(crate) struct CallEntry {
    pub(crate) account: AccountKey,
    pub(crate) actor: ActorRef<CallMsg>,
    pub(crate) progress: Arc<ProgressCell>,
}

impl CallEntry {
    /// What whoever settles the call has to know of its legs, whether or not its actor still listens.
    pub(crate) fn note(&self, event: &LegEvent) {
        if let LegEvent::Ended { leg, .. } | LegEvent::Failed { leg, .. } = event {
            self.progress.note_ended(*leg);
        }
    }
}

/// The registries.
#[derive(Default)]
pub(crate) struct Directory {
    accounts: DashMap<AccountKey, Slot>,
    calls: DashMap<CallId, CallEntry>,
    generations: AtomicU64,
}

impl Directory {
    fn claim(&self, key: AccountKey, at: Mono) -> Claim {
        let mut predecessor = None;
        match self.accounts.entry(key) {
            Entry::Occupied(mut slot) => {
                match slot.get() {
                    Slot::Live(entry) => {
                        entry.used.store(at.0, Ordering::Relaxed);
                        return Claim::Live(entry.clone());
                    }
                    // A loader that panicked leaves its slot behind: somebody else loads.
                    Slot::Loading(loaded) if !loaded.initialized() => return Claim::Wait(loaded.clone()),
                    Slot::Loading(_) => {}
                    Slot::Draining(gate) => predecessor = Some(gate.clone()),
                }
                let loaded = Loaded::default();
                slot.insert(Slot::Loading(loaded.clone()));
                Claim::Load(Loader(loaded), predecessor)
            }
            Entry::Vacant(slot) => {
                let loaded = Loaded::default();
                slot.insert(Slot::Loading(loaded.clone()));
                Claim::Load(Loader(loaded), None)
            }
        }
    }

    /// The actor goes away of its own will. What is sent to it from now on is lost, and sent again by the senders.
    pub(crate) fn leave(&self, key: AccountKey, generation: u64) {
        self.take_out(key, generation, CommitGate::is_quiet);
    }

    /// The actor is gone or going: whoever asked it has heard so.
    pub(crate) fn retire(&self, key: AccountKey, generation: u64) {
        self.take_out(key, generation, CommitGate::is_over);
    }

    fn take_out(&self, key: AccountKey, generation: u64, is_over: impl Fn(&CommitGate) -> bool) {
        if let Entry::Occupied(mut slot) = self.accounts.entry(key) {
            let Slot::Live(entry) = slot.get() else { return };
            if entry.generation != generation {
                return;
            }
            let gate = entry.gate.clone();
            if is_over(&gate) {
                slot.remove();
            } else {
                slot.insert(Slot::Draining(gate));
            }
        }
    }

    /// An account's actor died. Gives the account when it was the one in charge, and whether calls of it are up.
    pub(crate) fn account_died(&self, actor: ActorId) -> Option<(AccountKey, bool)> {
        let found = self.accounts.iter().find_map(|slot| match slot.value() {
            Slot::Live(entry) if entry.actor.get_id() == actor => Some((*slot.key(), entry.generation)),
            _ => None,
        });
        let (key, generation) = found?;
        self.retire(key, generation);
        Some((key, self.calls.iter().any(|call| call.account == key)))
    }

    /// Tells accounts that nobody asked for since `before` to go, in the order of their keys, and forgets those that went away
    /// or failed: nobody has asked for them since, either.
    pub(crate) fn passivate_since(&self, before: Mono) {
        self.accounts.retain(|_, slot| !matches!(slot, Slot::Draining(gate) if gate.is_over()));
        for (key, entry) in self.idle_since(before) {
            if entry.actor.send_message(AccountMsg::Passivate).is_err() {
                self.retire(key, entry.generation);
            }
        }
    }

    fn idle_since(&self, before: Mono) -> Vec<(AccountKey, AccountEntry)> {
        let mut idle: Vec<_> = self
            .accounts
            .iter()
            .filter_map(|slot| match slot.value() {
                Slot::Live(entry) if entry.used.load(Ordering::Relaxed) < before.0 => {
                    Some((*slot.key(), entry.clone()))
                }
                _ => None,
            })
            .collect();
        idle.sort_by_key(|(key, _)| *key);
        idle
    }

    /// The actor of an account that is loaded.
    pub(crate) fn loaded(&self, key: AccountKey) -> Option<ActorRef<AccountMsg>> {
        match self.accounts.get(&key)?.value() {
            Slot::Live(entry) => Some(entry.actor.clone()),
            _ => None,
        }
    }

    pub(crate) fn accounts_len(&self) -> usize {
        self.accounts.len()
    }

    /// Registers a call's actor; false when the call is known already.
    pub(crate) fn add_call(&self, call: CallId, entry: CallEntry) -> bool {
        match self.calls.entry(call) {
            Entry::Occupied(_) => false,
            Entry::Vacant(slot) => {
                slot.insert(entry);
                true
            }
        }
    }

    pub(crate) fn knows_call(&self, call: CallId) -> bool {
        self.calls.contains_key(&call)
    }

    pub(crate) fn call(&self, call: CallId) -> Option<CallEntry> {
        self.calls.get(&call).map(|entry| entry.value().clone())
    }

    pub(crate) fn remove_call(&self, call: CallId) {
        self.calls.remove(&call);
    }

    /// A call's actor died: which call.
    pub(crate) fn call_died(&self, actor: ActorId) -> Option<(CallId, CallEntry)> {
        let found = self.calls.iter().find(|entry| entry.actor.get_id() == actor);
        found.map(|entry| (*entry.key(), entry.value().clone()))
    }

    /// Whether a call has ended and is not settled, or has something to decide that may be its end.
    pub(crate) fn is_settling(&self) -> bool {
        self.calls.iter().any(|call| call.progress.end().is_some() || call.progress.has_work())
    }

    pub(crate) fn calls_len(&self) -> usize {
        self.calls.len()
    }

    pub(crate) fn tell_funds_changed(&self, call: CallId) {
        if let Some(entry) = self.call(call).filter(|entry| entry.progress.queue(true)) {
            let _ = entry.actor.send_message(CallMsg::FundsChanged);
        }
    }

    /// Shows live calls as they are between their durable states.
    pub(crate) fn show_progress(&self, calls: &mut [Call]) {
        for call in calls {
            if let Some(entry) = self.call(call.id) {
                entry.progress.show(call);
            }
        }
    }
}

/// Sends idle accounts away, until the node ends.
pub(crate) async fn passivate(ctx: std::sync::Weak<Context>) {
    loop {
        let Some(after) = ctx.upgrade().map(|ctx| ctx.config.passivate_after) else { return };
        tokio::time::sleep(after / 4).await;
        let Some(ctx) = ctx.upgrade() else { return };
        let before = Mono(ctx.now().mono.0.saturating_sub(u64::try_from(after.as_micros()).unwrap_or(u64::MAX)));
        ctx.directory.passivate_since(before);
    }
}

impl Context {
    /// Asks an account's actor, loading it if need be. When the actor goes away before it answers, its successor is asked
    /// again: every question may be asked more than once.
    pub(crate) async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        key: AccountKey,
        limit: Duration,
        message: impl Fn(Reply<T>) -> AccountMsg + Send,
    ) -> Result<T, AskError> {
        let asked = async {
            for _ in 0..TRIES {
                let entry = self.account(key).await?;
                let (reply, answer) = Reply::new();
                if entry.actor.send_message(message(reply)).is_err() {
                    // It is gone and its supervisor has not said so yet.
                    self.directory.retire(key, entry.generation);
                    continue;
                }
                match answer.await {
                    Ok(Ok(answer)) => return Ok(answer),
                    Ok(Err(NotDone::Overloaded)) => return Err(AskError::Unavailable),
                    Ok(Err(NotDone::SetAside)) => return Err(AskError::SetAside),
                    Ok(Err(NotDone::Rejected(Rejection::DuplicateKey { .. }))) => return Err(AskError::DuplicateKey),
                    Ok(Err(NotDone::Rejected(Rejection::Failed))) => return Err(AskError::NotStored),
                    // Nothing was done, and nothing this actor knows is true any more: its successor is asked.
                    Ok(Err(NotDone::Rejected(Rejection::Fenced))) => self.directory.retire(key, entry.generation),
                    // It panicked, or went away with the question in its mailbox.
                    Err(_) => self.directory.retire(key, entry.generation),
                }
            }
            Err(AskError::Unknown)
        };
        tokio::time::timeout(limit, asked).await.unwrap_or(Err(AskError::Unknown))
    }

    /// The actor of an account, loading it if need be.
    pub(crate) async fn account(self: &Arc<Self>, key: AccountKey) -> Result<AccountEntry, AskError> {
        loop {
            let loaded = match self.directory.claim(key, self.now().mono) {
                Claim::Live(entry) => return Ok(entry),
                Claim::Wait(loaded) => loaded,
                Claim::Load(loader, predecessor) => {
                    let loaded = loader.0.clone();
                    // On its own: who asked may stop waiting, the others must not wait for ever then.
                    tokio::spawn(self.clone().load(key, loader, predecessor));
                    loaded
                }
            };
            if let Err(error) = loaded.wait().await {
                return Err(*error);
            }
        }
    }

    async fn load(self: Arc<Self>, key: AccountKey, loader: Loader, predecessor: Option<Arc<CommitGate>>) {
        if let Some(gate) = predecessor {
            gate.over().await;
        }
        let rest = self.failures.account_rests(key, self.now().mono);
        let result = if rest > REST_WAITED_FOR {
            Err(AskError::Resting)
        } else {
            if !rest.is_zero() {
                tokio::time::sleep(rest).await;
            }
            self.start_account(key).await
        };
        match &result {
            Ok(entry) => {
                self.directory.accounts.insert(key, Slot::Live(entry.clone()));
            }
            Err(_) => {
                self.directory.accounts.remove(&key);
            }
        }
        loader.done(result.map(|_| ()));
    }

    async fn start_account(self: &Arc<Self>, key: AccountKey) -> Result<AccountEntry, AskError> {
        let loaded = match self.store.account(key).await {
            Ok(loaded) => loaded.ok_or(AskError::NotFound)?,
            Err(error) => {
                tracing::error!(%error, "an account could not be loaded");
                return Err(AskError::Unavailable);
            }
        };
        // Rows that contradict the rules stop it here, in a panic.
        let loading = Handling::begin(self, Whose::Account(key), Some(Work { kind: "load", about: About::Whole }));
        let core = AccountCore::load(loaded, self.config.boot);
        drop(loading);
        let gate = Arc::new(CommitGate::new(core.seq()));
        let generation = self.directory.generations.fetch_add(1, Ordering::Relaxed);
        let actor = AccountActor { ctx: self.clone(), key, generation };
        let supervisor = self.supervisor_of(key).await;
        match AccountActor::spawn_linked(None, actor, (core, gate.clone()), supervisor).await {
            Ok((actor, _)) => {
                let used = Arc::new(AtomicU64::new(self.now().mono.0));
                Ok(AccountEntry { generation, actor, gate, used })
            }
            Err(error) => {
                tracing::error!(%error, "an account's actor could not be started");
                Err(AskError::Unavailable)
            }
        }
    }

    /// The supervisor of an account; one that failed is replaced in a moment.
    async fn supervisor_of(&self, key: AccountKey) -> ractor::ActorCell {
        for _ in 0..SUPERVISOR_TRIES {
            let supervisor = self.supervisors.of_account(key);
            if supervisor.get_status() < ActorStatus::Stopping {
                return supervisor;
            }
            tokio::time::sleep(SUPERVISOR_PAUSE).await;
        }
        self.supervisors.of_account(key)
    }
}
