//! The supervision tree (see the crate's documentation for the picture and for what each actor loses). How long something
//! rests before it is started again is decided in [`crate::restarts`] and remembered in [`crate::failures`].

use crate::context::Context;
use crate::failures::{ACCOUNT_SUPERVISORS, Supervisor, shard};
use crate::trunk::{TrunkActor, TrunkMsg};
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use schema::carrier::{Trunk, TrunkState};
use schema::id::{AccountKey, TrunkId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};
use tokio::sync::SetOnce;

/// The supervisors, reachable without asking anybody.
#[derive(Default)]
pub(crate) struct Supervisors {
    root: OnceLock<ActorRef<()>>,
    cells: RwLock<Cells>,
    /// The end of the tree is wanted.
    stopping: AtomicBool,
    /// The tree ended though nobody wanted it.
    gave_up: SetOnce<()>,
}

#[derive(Default)]
struct Cells {
    accounts: Vec<ActorRef<SupervisorMsg>>,
    trunks: Option<ActorRef<TrunksMsg>>,
}

/// What a supervisor of accounts is told: nothing but by tests.
pub(crate) enum SupervisorMsg {
    /// Panic. Sent by tests only.
    #[cfg(any(test, feature = "faults"))]
    Panic,
}

impl Supervisors {
    /// Starts the tree.
    pub(crate) async fn start(ctx: &Arc<Context>) -> Result<(), ractor::SpawnErr> {
        let (root, ended) = RootSupervisor::spawn(None, RootSupervisor { ctx: Arc::downgrade(ctx) }, ()).await?;
        let _ = ctx.supervisors.root.set(root);
        let watched = Arc::downgrade(ctx);
        tokio::spawn(async move {
            let _ = ended.await;
            if let Some(ctx) = watched.upgrade().filter(|ctx| !ctx.supervisors.stopping.load(Ordering::Acquire)) {
                ctx.admission.close();
                let _ = ctx.supervisors.gave_up.set(());
            }
        });
        Ok(())
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        if let Some(root) = self.root.get() {
            root.stop(None);
        }
    }

    /// Returns when the tree ended though nobody wanted it.
    pub(crate) async fn gave_up(&self) {
        self.gave_up.wait().await;
    }

    pub(crate) fn of_account(&self, key: AccountKey) -> ActorCell {
        let cells = self.cells.read().unwrap_or_else(PoisonError::into_inner);
        cells.accounts.get(shard(key)).map(ActorRef::get_cell).expect("the tree starts before any account")
    }

    /// Calls hang on the root: a supervisor of their own would take all of them with it when it fails.
    pub(crate) fn of_calls(&self) -> ActorCell {
        self.root.get().map(ActorRef::get_cell).expect("the tree starts before any call")
    }

    fn trunks(&self) -> Option<ActorRef<TrunksMsg>> {
        self.cells.read().unwrap_or_else(PoisonError::into_inner).trunks.clone()
    }

    pub(crate) fn tell_trunks(&self, message: TrunksMsg) {
        if let Some(trunks) = self.trunks() {
            let _ = trunks.send_message(message);
        }
    }

    #[cfg(any(test, feature = "faults"))]
    pub(crate) fn panic_accounts(&self, shard: usize) {
        let supervisor = self.cells.read().unwrap_or_else(PoisonError::into_inner).accounts.get(shard).cloned();
        if let Some(supervisor) = supervisor {
            let _ = supervisor.send_message(SupervisorMsg::Panic);
        }
    }

    fn which(&self, dead: ActorId) -> Option<Supervisor> {
        let cells = self.cells.read().unwrap_or_else(PoisonError::into_inner);
        if cells.trunks.as_ref().is_some_and(|trunks| trunks.get_id() == dead) {
            return Some(Supervisor::Trunks);
        }
        cells.accounts.iter().position(|cell| cell.get_id() == dead).map(Supervisor::Accounts)
    }
}

/// Starts the other supervisors and starts one again when it dies; has a call settled whose actor dies. When supervisors die
/// more often than their intensity allows it gives up, and the node ends: the next process takes the live calls up.
struct RootSupervisor {
    ctx: Weak<Context>,
}

impl Actor for RootSupervisor {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, me: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        let ctx = self.ctx.upgrade().ok_or("the node is ending")?;
        let mut cells = Cells::default();
        for shard in 0..ACCOUNT_SUPERVISORS {
            cells.accounts.push(start_accounts(&ctx, shard, me.get_cell()).await?);
        }
        cells.trunks = Some(start_trunks(&ctx, me.get_cell()).await?);
        *ctx.supervisors.cells.write().unwrap_or_else(PoisonError::into_inner) = cells;
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        me: ActorRef<()>,
        event: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        let SupervisionEvent::ActorFailed(dead, error) = event else { return Ok(()) };
        let Some(ctx) = self.ctx.upgrade() else { return Ok(()) };
        ctx.tally.restarts.fetch_add(1, Ordering::Relaxed);
        match ctx.supervisors.which(dead.get_id()) {
            Some(supervisor) => start_again(&ctx, supervisor, me.get_cell(), &error).await,
            None => {
                tracing::error!(%error, "a call's actor failed");
                if let Some((call, entry)) = ctx.directory.call_died(dead.get_id()) {
                    tokio::spawn(ctx.abandon_call(entry.account, call, entry.progress));
                }
                Ok(())
            }
        }
    }
}

async fn start_again(
    ctx: &Arc<Context>,
    supervisor: Supervisor,
    root: ActorCell,
    error: &ActorProcessingErr,
) -> Result<(), ActorProcessingErr> {
    if ctx.failures.supervisor_failed(supervisor, ctx.now().mono) {
        tracing::error!(%error, "supervisors fail again and again: the node ends");
        return Err("supervisors fail again and again".into());
    }
    tracing::error!(%error, "a supervisor failed and is started again");
    match supervisor {
        Supervisor::Accounts(shard) => {
            let cell = start_accounts(ctx, shard, root).await?;
            ctx.supervisors.cells.write().unwrap_or_else(PoisonError::into_inner).accounts[shard] = cell;
        }
        Supervisor::Trunks => {
            let trunks = start_trunks(ctx, root).await?;
            ctx.supervisors.cells.write().unwrap_or_else(PoisonError::into_inner).trunks = Some(trunks);
            ctx.supervisors.tell_trunks(TrunksMsg::Replaced(ctx.tariffs.load().trunks.clone()));
        }
    }
    Ok(())
}

async fn start_accounts(
    ctx: &Arc<Context>,
    shard: usize,
    root: ActorCell,
) -> Result<ActorRef<SupervisorMsg>, ActorProcessingErr> {
    let actor = AccountsSupervisor { ctx: Arc::downgrade(ctx), shard };
    Ok(AccountsSupervisor::spawn_linked(None, actor, (), root).await?.0)
}

async fn start_trunks(ctx: &Arc<Context>, root: ActorCell) -> Result<ActorRef<TrunksMsg>, ActorProcessingErr> {
    let actor = TrunksSupervisor { ctx: Arc::downgrade(ctx) };
    Ok(TrunksSupervisor::spawn_linked(None, actor, (), root).await?.0)
}

/// Watches over a 64th of the account actors.
struct AccountsSupervisor {
    ctx: Weak<Context>,
    shard: usize,
}

impl Actor for AccountsSupervisor {
    type Msg = SupervisorMsg;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<SupervisorMsg>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _: ActorRef<SupervisorMsg>,
        message: SupervisorMsg,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        match message {
            #[cfg(any(test, feature = "faults"))]
            SupervisorMsg::Panic => panic!("a fault was injected into a supervisor"),
        }
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<SupervisorMsg>,
        event: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        let SupervisionEvent::ActorFailed(dead, error) = event else { return Ok(()) };
        let Some(ctx) = self.ctx.upgrade() else { return Ok(()) };
        tracing::error!(%error, shard = self.shard, "an account's actor failed");
        ctx.tally.restarts.fetch_add(1, Ordering::Relaxed);
        // Its calls go on; only warnings need the account before somebody asks for it.
        if let Some((key, true)) = ctx.directory.account_died(dead.get_id()) {
            tokio::spawn(async move {
                if let Err(error) = ctx.account(key).await {
                    tracing::error!(%error, "an account could not be loaded again");
                }
            });
        }
        Ok(())
    }
}

/// Watches over the trunk actors.
struct TrunksSupervisor {
    ctx: Weak<Context>,
}

/// What the trunks' supervisor is told.
pub(crate) enum TrunksMsg {
    /// These are the trunks now. Sent when tariffs change; not answered.
    Replaced(Vec<Trunk>),
    /// A trunk can be used, or not any more. Sent by the SIP edge; passed to the trunk's actor.
    Probed(TrunkId, TrunkState),
    /// A trunk that failed has rested. Sent by the supervisor's own timer; not answered.
    Rested(TrunkId),
    /// Panic: the supervisor, or a trunk's actor. Sent by tests only.
    #[cfg(any(test, feature = "faults"))]
    Panic(Option<TrunkId>),
}

/// The trunks that have an actor, and those that rest before they have one again.
#[derive(Default)]
struct TrunkActors {
    running: BTreeMap<TrunkId, ActorRef<TrunkMsg>>,
    resting: BTreeSet<TrunkId>,
}

impl Actor for TrunksSupervisor {
    type Msg = TrunksMsg;
    type State = TrunkActors;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<TrunksMsg>, (): ()) -> Result<TrunkActors, ActorProcessingErr> {
        Ok(TrunkActors::default())
    }

    async fn handle(
        &self,
        me: ActorRef<TrunksMsg>,
        message: TrunksMsg,
        actors: &mut TrunkActors,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            TrunksMsg::Replaced(trunks) => {
                let stays = |id: &TrunkId| trunks.iter().any(|trunk| trunk.id == *id);
                actors.resting.retain(stays);
                actors.running.retain(|id, actor| {
                    if !stays(id) {
                        actor.stop(None);
                    }
                    stays(id)
                });
                for trunk in &trunks {
                    if !actors.running.contains_key(&trunk.id) && !actors.resting.contains(&trunk.id) {
                        actors.running.insert(trunk.id, self.start(trunk.id, me.get_cell()).await?);
                    }
                }
            }
            TrunksMsg::Probed(trunk, state) => {
                if let Some(actor) = actors.running.get(&trunk) {
                    let _ = actor.send_message(TrunkMsg::Probed(state));
                } else if let Some(ctx) = self.ctx.upgrade().filter(|_| actors.resting.contains(&trunk)) {
                    // The edge tells changes only: this one will not come again.
                    ctx.trunks.set_state(trunk, state);
                }
            }
            TrunksMsg::Rested(trunk) => {
                if actors.resting.remove(&trunk) {
                    actors.running.insert(trunk, self.start(trunk, me.get_cell()).await?);
                }
            }
            #[cfg(any(test, feature = "faults"))]
            TrunksMsg::Panic(None) => panic!("a fault was injected into a supervisor"),
            #[cfg(any(test, feature = "faults"))]
            TrunksMsg::Panic(Some(trunk)) => {
                if let Some(actor) = actors.running.get(&trunk) {
                    let _ = actor.send_message(TrunkMsg::Panic);
                }
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        me: ActorRef<TrunksMsg>,
        event: SupervisionEvent,
        actors: &mut TrunkActors,
    ) -> Result<(), ActorProcessingErr> {
        let SupervisionEvent::ActorFailed(dead, error) = event else { return Ok(()) };
        let Some(ctx) = self.ctx.upgrade() else { return Ok(()) };
        tracing::error!(%error, "a trunk's actor failed");
        ctx.tally.restarts.fetch_add(1, Ordering::Relaxed);
        let found = actors.running.iter().find(|(_, actor)| actor.get_id() == dead.get_id()).map(|(id, _)| *id);
        let Some(trunk) = found else { return Ok(()) };
        actors.running.remove(&trunk);
        let rest = ctx.failures.trunk_failed(trunk, ctx.now().mono);
        if rest.is_zero() {
            actors.running.insert(trunk, self.start(trunk, me.get_cell()).await?);
        } else {
            actors.resting.insert(trunk);
            tokio::spawn(async move {
                tokio::time::sleep(rest).await;
                let _ = me.send_message(TrunksMsg::Rested(trunk));
            });
        }
        Ok(())
    }
}

impl TrunksSupervisor {
    async fn start(&self, trunk: TrunkId, me: ActorCell) -> Result<ActorRef<TrunkMsg>, ActorProcessingErr> {
        let actor = TrunkActor { trunk, ctx: self.ctx.clone() };
        Ok(TrunkActor::spawn_linked(None, actor, (), me).await?.0)
    }
}
