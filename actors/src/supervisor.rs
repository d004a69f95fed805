//! The supervision tree (see the crate's documentation for the picture and for what each actor loses).

use crate::context::Context;
use crate::trunk::{TrunkActor, TrunkMsg, Trunks};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};
use schema::carrier::Trunk;
use schema::id::{AccountKey, TrunkId};
use schema::time::Mono;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

/// Accounts are spread over so many supervisors: ractor's links of one supervisor are one lock.
const ACCOUNT_SUPERVISORS: usize = 64;
/// Accounts of one supervisor that are loaded again at once after a panic, within [`RESTART_WINDOW`]. Beyond, an account is
/// loaded again only when somebody asks for it, so that one that panics at each start cannot keep the node busy.
const RESTARTS_MAX: usize = 5;
const RESTART_WINDOW: Duration = Duration::from_secs(10);

/// The supervisors, reachable without asking anybody.
#[derive(Default)]
pub(crate) struct Supervisors {
    root: OnceLock<ActorRef<()>>,
    cells: RwLock<Cells>,
}

#[derive(Default)]
struct Cells {
    accounts: Vec<ActorCell>,
    calls: Option<ActorCell>,
    trunks: Option<ActorRef<TrunksMsg>>,
}

impl Supervisors {
    /// Starts the tree.
    pub(crate) async fn start(ctx: &Arc<Context>) -> Result<(), ractor::SpawnErr> {
        let (root, _) = RootSupervisor::spawn(None, RootSupervisor { ctx: Arc::downgrade(ctx) }, ()).await?;
        let _ = ctx.supervisors.root.set(root);
        Ok(())
    }

    pub(crate) fn stop(&self) {
        if let Some(root) = self.root.get() {
            root.stop(None);
        }
    }

    pub(crate) fn of_account(&self, key: AccountKey) -> ActorCell {
        let cells = self.cells.read().unwrap_or_else(PoisonError::into_inner);
        let shard = usize::try_from(key.0.rem_euclid(ACCOUNT_SUPERVISORS as i64)).unwrap_or(0);
        cells.accounts.get(shard).cloned().expect("the tree starts before any account")
    }

    pub(crate) fn of_calls(&self) -> ActorCell {
        let cells = self.cells.read().unwrap_or_else(PoisonError::into_inner);
        cells.calls.clone().expect("the tree starts before any call")
    }

    fn trunks(&self) -> Option<ActorRef<TrunksMsg>> {
        self.cells.read().unwrap_or_else(PoisonError::into_inner).trunks.clone()
    }

    pub(crate) fn tell_trunks(&self, message: TrunksMsg) {
        if let Some(trunks) = self.trunks() {
            let _ = trunks.send_message(message);
        }
    }
}

/// Starts the other supervisors and starts one again when it dies. Its own end is the end of the node.
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
        cells.calls = Some(start_calls(&ctx, me.get_cell()).await?);
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
        tracing::error!(%error, "a supervisor failed and is started again");
        let shard = {
            let cells = ctx.supervisors.cells.read().unwrap_or_else(PoisonError::into_inner);
            cells.accounts.iter().position(|cell| cell.get_id() == dead.get_id())
        };
        let is_calls = ctx.supervisors.of_calls().get_id() == dead.get_id();
        match (shard, is_calls) {
            (Some(shard), _) => {
                let cell = start_accounts(&ctx, shard, me.get_cell()).await?;
                ctx.supervisors.cells.write().unwrap_or_else(PoisonError::into_inner).accounts[shard] = cell;
            }
            (None, true) => {
                let cell = start_calls(&ctx, me.get_cell()).await?;
                ctx.supervisors.cells.write().unwrap_or_else(PoisonError::into_inner).calls = Some(cell);
                // Its call actors ended with it.
                for (call, account) in ctx.directory.all_calls() {
                    tokio::spawn(ctx.clone().abandon_call(account, call));
                }
            }
            (None, false) => {
                let trunks = start_trunks(&ctx, me.get_cell()).await?;
                ctx.supervisors.cells.write().unwrap_or_else(PoisonError::into_inner).trunks = Some(trunks);
                ctx.supervisors.tell_trunks(TrunksMsg::Replaced(ctx.tariffs.load().trunks.clone()));
            }
        }
        Ok(())
    }
}

async fn start_accounts(ctx: &Arc<Context>, shard: usize, root: ActorCell) -> Result<ActorCell, ActorProcessingErr> {
    let actor = AccountsSupervisor { ctx: Arc::downgrade(ctx), shard };
    Ok(AccountsSupervisor::spawn_linked(None, actor, (), root).await?.0.get_cell())
}

async fn start_calls(ctx: &Arc<Context>, root: ActorCell) -> Result<ActorCell, ActorProcessingErr> {
    let actor = CallsSupervisor { ctx: Arc::downgrade(ctx) };
    Ok(CallsSupervisor::spawn_linked(None, actor, (), root).await?.0.get_cell())
}

async fn start_trunks(ctx: &Arc<Context>, root: ActorCell) -> Result<ActorRef<TrunksMsg>, ActorProcessingErr> {
    let actor = TrunksSupervisor { trunks: ctx.trunks.clone() };
    Ok(TrunksSupervisor::spawn_linked(None, actor, (), root).await?.0)
}

/// Watches over a 64th of the account actors.
struct AccountsSupervisor {
    ctx: Weak<Context>,
    shard: usize,
}

impl Actor for AccountsSupervisor {
    type Msg = ();
    type State = VecDeque<Mono>;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<VecDeque<Mono>, ActorProcessingErr> {
        Ok(VecDeque::new())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<()>,
        event: SupervisionEvent,
        restarts: &mut VecDeque<Mono>,
    ) -> Result<(), ActorProcessingErr> {
        let SupervisionEvent::ActorFailed(dead, error) = event else { return Ok(()) };
        let Some(ctx) = self.ctx.upgrade() else { return Ok(()) };
        tracing::error!(%error, shard = self.shard, "an account's actor failed");
        ctx.tally.restarts.fetch_add(1, Ordering::Relaxed);
        let Some((key, has_calls)) = ctx.directory.account_died(dead.get_id()) else { return Ok(()) };
        let now = ctx.now().mono;
        restarts.retain(|at| now.since(*at) < RESTART_WINDOW);
        // Its calls go on; only warnings need the account before somebody asks for it.
        if has_calls && restarts.len() < RESTARTS_MAX {
            restarts.push_back(now);
            tokio::spawn(async move {
                if let Err(error) = ctx.account(key).await {
                    tracing::error!(%error, "an account could not be loaded again");
                }
            });
        }
        Ok(())
    }
}

/// Watches over the call actors.
struct CallsSupervisor {
    ctx: Weak<Context>,
}

impl Actor for CallsSupervisor {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<()>,
        event: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        let SupervisionEvent::ActorFailed(dead, error) = event else { return Ok(()) };
        let Some(ctx) = self.ctx.upgrade() else { return Ok(()) };
        tracing::error!(%error, "a call's actor failed");
        ctx.tally.restarts.fetch_add(1, Ordering::Relaxed);
        if let Some((call, account)) = ctx.directory.call_died(dead.get_id()) {
            tokio::spawn(ctx.abandon_call(account, call));
        }
        Ok(())
    }
}

/// Watches over the trunk actors.
struct TrunksSupervisor {
    trunks: Arc<Trunks>,
}

/// What the trunks' supervisor is told.
pub(crate) enum TrunksMsg {
    /// These are the trunks now. Sent when tariffs change; not answered.
    Replaced(Vec<Trunk>),
    /// A probe of a trunk was answered, or not. Sent by the SIP edge; passed to the trunk's actor.
    Probed(TrunkId, bool),
}

impl Actor for TrunksSupervisor {
    type Msg = TrunksMsg;
    type State = BTreeMap<TrunkId, ActorRef<TrunkMsg>>;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<TrunksMsg>, (): ()) -> Result<Self::State, ActorProcessingErr> {
        Ok(BTreeMap::new())
    }

    async fn handle(
        &self,
        me: ActorRef<TrunksMsg>,
        message: TrunksMsg,
        actors: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            TrunksMsg::Replaced(trunks) => {
                actors.retain(|id, actor| {
                    let stays = trunks.iter().any(|trunk| trunk.id == *id);
                    if !stays {
                        actor.stop(None);
                    }
                    stays
                });
                for trunk in trunks {
                    if let std::collections::btree_map::Entry::Vacant(slot) = actors.entry(trunk.id) {
                        slot.insert(self.start(trunk.id, me.get_cell()).await?);
                    }
                }
            }
            TrunksMsg::Probed(trunk, up) => {
                if let Some(actor) = actors.get(&trunk) {
                    let _ = actor.send_message(TrunkMsg::Probed { up });
                }
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        me: ActorRef<TrunksMsg>,
        event: SupervisionEvent,
        actors: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let SupervisionEvent::ActorFailed(dead, error) = event else { return Ok(()) };
        tracing::error!(%error, "a trunk's actor failed");
        let found = actors.iter().find(|(_, actor)| actor.get_id() == dead.get_id()).map(|(id, _)| *id);
        if let Some(trunk) = found {
            actors.insert(trunk, self.start(trunk, me.get_cell()).await?);
        }
        Ok(())
    }
}

impl TrunksSupervisor {
    async fn start(&self, trunk: TrunkId, me: ActorCell) -> Result<ActorRef<TrunkMsg>, ActorProcessingErr> {
        let actor = TrunkActor { trunk, trunks: self.trunks.clone() };
        Ok(TrunkActor::spawn_linked(None, actor, (), me).await?.0)
    }
}
