//! The handle of all actors: how the rest of the program asks and tells them, and how many calls they let in.

use crate::account::AccountMsg;
use crate::account::authorize::{CallRequest, Quote, QuoteRequest};
use crate::account::caller_id::CallerChoice;
use crate::account::core::Credited;
use crate::account::ledger::{Credit, CreditRefused};
use crate::account::view::{AccountView, LiveView};
use crate::admission::{Admission, Places};
use crate::alarm::AlarmClock;
use crate::call::machine::ASK_LIMIT;
use crate::call::protocol::CallersSide;
use crate::call::{self, CallMsg, Start};
use crate::context::{Context, Tally};
use crate::directory::{AskError, Directory};
use crate::edge::Edge;
use crate::failures::Failures;
use crate::hub::{self, EventItem, Hubs};
use crate::poison::SetAside;
use crate::rating::Tariffs;
use crate::settling::{SETTLED_AT_ONCE, Unsettled};
use crate::supervisor::{Supervisors, TrunksMsg};
use crate::trunk::Trunks;
use crate::watches::Watches;
use arc_swap::ArcSwap;
use futures_util::Stream;
use schema::call::{Call, CallMode, RefusalCode};
use schema::carrier::{Trunk, TrunkDown};
use schema::edge::{EdgeCommand, EdgeEvent, TrunkAddress};
use schema::entropy::Entropy;
use schema::event::EventCursor;
use schema::id::{AccountKey, CallId, CredentialId, TrunkId};
use schema::leg::{HangupCause, Invited, LegCommand, LegEvent, LegEventAt};
use schema::time::{BootId, Clock};
use schema::wrong::{self, Wrong};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use storage::{Journal, Store, StoreError};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

/// How long a hang-up may take, both legs and settlement: less than a request of the API, so that its answer is heard.
const HANG_UP_LIMIT: Duration = Duration::from_secs(4);

/// Between two looks at the calls that are being settled.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What the actors are told once.
#[derive(Debug, Clone)]
pub struct ActorsConfig {
    /// The machine's boot, which durations are measured in.
    pub boot: BootId,
    /// Most live calls of the node; above it new ones get 503.
    pub max_live_calls: u32,
    /// Most new calls a second of the node; above it they get 503.
    pub max_calls_per_second: u32,
    /// An account without calls that nobody asks for leaves memory after this time; at least 61 s, the memory of its
    /// calls-per-minute limit.
    pub passivate_after: Duration,
    /// Whether the calls and bindings found in the store are taken up. A command without a SIP edge leaves them to the next
    /// server: a call taken up holds money, and one that rings is ended.
    pub takes_up_what_was_live: bool,
}

impl Default for ActorsConfig {
    fn default() -> Self {
        Self {
            boot: BootId(0),
            max_live_calls: 20_000,
            max_calls_per_second: 5_000,
            passivate_after: Duration::from_secs(300),
            takes_up_what_was_live: true,
        }
    }
}

/// Why the actors did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Decks, trunks or calls could not be read.
    #[error("the store cannot be read: {0}")]
    Store(#[from] StoreError),
    /// A supervisor did not start.
    #[error("a supervisor did not start: {0}")]
    Supervisor(#[from] ractor::SpawnErr),
}

/// Why a call was not hung up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HangUpError {
    /// The account has no such call.
    #[error("no such call")]
    NotFound,
    /// It was not told: it has not been taken up since the start, or has too much to do, or the store failed. It goes on.
    #[error("the call cannot be ended at this moment")]
    NotTold,
    /// It is ending, but no end came in time, or the history could not be read.
    #[error("the call's end is not known yet")]
    Unknown,
}

/// Why money was not posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CreditError {
    /// The request itself.
    #[error("nothing was posted: {0}")]
    Refused(CreditRefused),
    /// The account.
    #[error(transparent)]
    Ask(#[from] AskError),
}

/// All actors of this process. A cheap handle.
#[derive(Clone)]
pub struct Actors {
    pub(crate) ctx: Arc<Context>,
    edge: Edge,
    recovered: watch::Receiver<bool>,
}

impl Actors {
    /// Reads decks and trunks, starts the supervision tree and takes up the calls found in the store if it is told to, which
    /// goes on in the background: see [`Actors::recovered`]. Within a tokio runtime.
    ///
    /// # Errors
    /// The store cannot be read, or the tree did not start.
    pub async fn start(
        config: ActorsConfig,
        store: Store,
        journal: Journal,
        clock: Clock,
        entropy: Entropy,
        legs: mpsc::Sender<LegCommand>,
        edge: mpsc::Sender<EdgeCommand>,
    ) -> Result<Self, StartError> {
        let at = clock().mono;
        let admission = Admission::new(config.max_calls_per_second, at);
        let config = ActorsConfig { passivate_after: config.passivate_after.max(Duration::from_secs(61)), ..config };
        let ctx = Arc::new(Context {
            config,
            store,
            journal,
            alarms: AlarmClock::start(clock.clone()),
            clock,
            entropy: Mutex::new(entropy),
            legs,
            edge,
            tariffs: ArcSwap::default(),
            changing_tariffs: tokio::sync::Mutex::default(),
            trunks: Arc::new(Trunks::default()),
            directory: Directory::default(),
            hubs: Arc::new(Hubs::default()),
            watches: Watches::default(),
            supervisors: Supervisors::default(),
            admission,
            questions: Places::default(),
            authorizations: Places::default(),
            failures: Failures::default(),
            unsettled: Unsettled::default(),
            settling: Semaphore::new(SETTLED_AT_ONCE),
            #[cfg(any(test, feature = "faults"))]
            faults: crate::faults::Faults::default(),
            tally: Tally::default(),
        });
        Supervisors::start(&ctx).await?;
        let (done, recovered) = watch::channel(false);
        let actors = Self { edge: Edge::start(&ctx), ctx: ctx.clone(), recovered };
        actors.change_tariffs().await?;
        if ctx.config.takes_up_what_was_live {
            tokio::spawn(crate::recovery::take_up_calls(ctx.clone(), done));
            tokio::spawn(crate::recovery::restore_bindings(ctx.clone()));
        } else {
            done.send_replace(true);
        }
        tokio::spawn(crate::directory::passivate(Arc::downgrade(&ctx)));
        Ok(actors)
    }

    /// Waits until the calls found at the start are taken up or settled; what cannot be settled at the first try goes on being
    /// tried, and is not waited for: of what is set aside once its end is kept.
    pub async fn recovered(&self) {
        let _ = self.recovered.clone().wait_for(|done| *done).await;
    }

    /// A leg tells something. Never blocks.
    pub fn on_leg_event(&self, event: LegEventAt) {
        let call = event.event.leg().call;
        match event.event {
            LegEvent::Invited(invited) => self.invited(*invited, event.at),
            _ if call::is_silent(&event) => {}
            _ => match self.ctx.directory.call(call).inspect(|entry| entry.note(&event.event)) {
                Some(entry) if entry.progress.end().is_none() => {
                    if entry.progress.queue(call::can_be_dropped(&event)) {
                        let _ = entry.actor.send_message(CallMsg::Leg(Box::new(event)));
                    } else {
                        self.ctx.tally.messages_dropped.fetch_add(1, Ordering::Relaxed);
                    }
                }
                _ => self.ctx.stray(&event),
            },
        }
    }

    fn invited(&self, invited: Invited, at: schema::time::Now) {
        let ctx = &self.ctx;
        let leg = invited.leg;
        let admitted = if ctx.failures.allow_call(invited.account, at.mono) {
            ctx.admission.admit(ctx.config.max_live_calls, at.mono)
        } else {
            Err(RefusalCode::Unavailable)
        };
        let live = match admitted {
            Ok(live) => live,
            Err(code) => {
                ctx.tally.calls_shed.fetch_add(1, Ordering::Relaxed);
                let retry_after_s = Some(ctx.retry_after_s());
                let reason = Some(code.as_str().into());
                return ctx.tell_leg(LegCommand::Reject { leg, status: code.sip_status(), reason, retry_after_s });
            }
        };
        ctx.tally.calls_admitted.fetch_add(1, Ordering::Relaxed);
        let request = CallRequest {
            call: leg.call,
            mode: CallMode::Softphone,
            credential: Some(invited.credential),
            dialled: invited.dialled,
            caller_id: invited.wanted_caller_id.map_or(CallerChoice::Default, CallerChoice::Wanted),
            withhold: invited.withhold,
            needs_tls: invited.needs_tls,
            a_leg: Some(invited.checkpoint),
            at,
        };
        let caller = CallersSide { offer: invited.offer, is_watched: invited.is_watched };
        ctx.start_call(invited.account, leg.call, Start::New(Box::new(request), caller), live);
    }

    /// The SIP edge asks or tells something. Never blocks.
    pub fn on_edge_event(&self, event: EdgeEvent) {
        match event {
            EdgeEvent::CredentialWanted { ticket, username } => self.edge.look_up(&self.ctx, ticket, username),
            EdgeEvent::BindingChanged(change) => self.edge.store_binding(change),
            EdgeEvent::TrunkProbed { trunk, state } => {
                self.ctx.supervisors.tell_trunks(TrunksMsg::Probed(trunk, state));
            }
            // Answered by whoever asks DNS, before it comes here.
            EdgeEvent::NameWanted(_) => {}
        }
    }

    /// An account as of one moment.
    ///
    /// # Errors
    /// There is none, or it gave no answer.
    pub async fn view(&self, account: AccountKey) -> Result<Arc<AccountView>, AskError> {
        let _place = self.ctx.questions.enter(account).ok_or(AskError::Unavailable)?;
        let mut view = self.ctx.ask(account, ASK_LIMIT, AccountMsg::View).await?;
        self.ctx.directory.show_progress(&mut view.live_calls);
        Ok(Arc::new(view))
    }

    /// What a call would cost; decided as a live call is, without any effect.
    ///
    /// # Errors
    /// There is no such account, or it gave no answer. A call that would be refused is no error: see its explanation.
    pub async fn quote(&self, account: AccountKey, request: QuoteRequest) -> Result<Quote, AskError> {
        let _place = self.ctx.questions.enter(account).ok_or(AskError::Unavailable)?;
        let request = Box::new(request);
        self.ctx.ask(account, ASK_LIMIT, |reply| AccountMsg::Quote(request.clone(), reply)).await
    }

    /// Ends both legs of a call and gives it as it is in the history. A call that has ended succeeds too.
    ///
    /// # Errors
    /// The account has no such call, or it could not be told, or its end is not known in time.
    pub async fn hang_up(&self, account: AccountKey, call: CallId) -> Result<Call, HangUpError> {
        let entry = self.ctx.directory.call(call);
        // One without an actor that is to be settled ends without being told.
        let ends = entry.is_some() || self.ctx.unsettled.contains_key(&call);
        let not_known = if ends { HangUpError::Unknown } else { HangUpError::NotTold };
        if let Some(entry) = entry {
            if entry.account != account {
                return Err(HangUpError::NotFound);
            }
            let (reply, ended) = oneshot::channel();
            if !entry.progress.queue(true) {
                return Err(HangUpError::NotTold);
            }
            let told = entry.actor.send_message(CallMsg::HangUp(HangupCause::Requested, reply)).is_ok();
            let ended = if told { tokio::time::timeout(HANG_UP_LIMIT, ended).await } else { Ok(Ok(None)) };
            match ended {
                Ok(Ok(Some(call))) => return Ok(*call),
                // Refused, or its actor went away: what is stored tells.
                Ok(_) => {}
                Err(_) => return Err(HangUpError::Unknown),
            }
        }
        match self.ctx.store.call(call).await {
            Ok(Some((owner, cdr))) if owner == account => Ok(cdr.call),
            Ok(_) => match self.ctx.store.live_call(call).await {
                Ok(Some((owner, _))) if owner == account => Err(not_known),
                Ok(_) => Err(HangUpError::NotFound),
                Err(_) => Err(not_known),
            },
            Err(_) => Err(not_known),
        }
    }

    /// Posts money once per key. The same key with the same request gives the stored transfer, with another one a conflict.
    ///
    /// # Errors
    /// Why nothing was posted; with [`AskError::Unknown`] it may have been.
    pub async fn credit(&self, account: AccountKey, credit: Credit) -> Result<Credited, CreditError> {
        if let Some(answer) = self.credited_before(account, &credit).await? {
            return answer;
        }
        let _place = self.ctx.questions.enter(account).ok_or(AskError::Unavailable)?;
        let credit = Box::new(credit);
        let asked = self.ctx.ask(account, ASK_LIMIT, |reply| AccountMsg::Credit(credit.clone(), reply)).await;
        match asked {
            Ok(posted) => posted.map_err(CreditError::Refused),
            // Somebody else posted under the key meanwhile.
            Err(AskError::DuplicateKey) => {
                let stored = self.credited_before(account, &credit).await?;
                stored.unwrap_or(Err(CreditError::Ask(AskError::Unknown)))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn credited_before(
        &self,
        account: AccountKey,
        credit: &Credit,
    ) -> Result<Option<Result<Credited, CreditError>>, CreditError> {
        let stored = self.ctx.store.transfer_by_key(account, &credit.key.key).await;
        let stored = stored.map(|posted| posted.filter(|_| !wrong::chosen(Wrong::IdempotencyIgnored)));
        let Some(stored) = stored.map_err(|_| AskError::Unavailable)?.map(|posted| posted.transfer) else {
            return Ok(None);
        };
        let same = stored.key.as_ref().is_some_and(|key| key.request == credit.key.request);
        Ok(Some(if same {
            let (amount, balance_after) = (stored.customer_delta(), stored.balance_after);
            Ok(Credited { transfer: stored.id, amount, balance_after, replayed: true })
        } else {
            Err(CreditError::Refused(CreditRefused::Conflict))
        }))
    }

    /// The live figures of an account: now, at each change and each second while a call lasts; conflated to the latest. They
    /// are computed only while somebody holds the receiver.
    ///
    /// # Errors
    /// There is no such account, or it gave no answer.
    pub async fn watch(&self, account: AccountKey) -> Result<watch::Receiver<Arc<LiveView>>, AskError> {
        self.ctx.watch(account).await
    }

    /// The durable events of an account after a cursor, or from now on; without end and without a gap.
    pub fn events(
        &self,
        account: AccountKey,
        after: Option<EventCursor>,
    ) -> impl Stream<Item = EventItem> + Send + use<> {
        let actors = self.clone();
        let present = async move {
            loop {
                match actors.view(account).await {
                    Ok(view) => return view.cursor,
                    Err(AskError::NotFound) => return EventCursor::default(),
                    Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
                }
            }
        };
        hub::events(&self.ctx.hubs, self.ctx.store.clone(), account, after, present)
    }

    /// Reads decks and trunks again. Calls keep the rate they began with.
    ///
    /// # Errors
    /// The store cannot be read; then nothing changes.
    pub async fn change_tariffs(&self) -> Result<(), StoreError> {
        // One after the other: who read the store first must not be the last to say what is in it.
        let _turn = self.ctx.changing_tariffs.lock().await;
        let (decks, trunks) = (self.ctx.store.decks().await?, self.ctx.store.trunks().await?);
        let logins = self.ctx.store.trunk_logins().await?;
        let logins: BTreeMap<_, _> = logins.into_iter().map(|(trunk, login)| (trunk, Arc::new(login))).collect();
        let registers = |trunk| logins.get(&trunk).is_some_and(|login| login.register_s.is_some());
        self.ctx.trunks.replace(&trunks, registers, self.ctx.now().mono);
        self.ctx.tariffs.store(Arc::new(Tariffs::build(&decks, trunks.clone())));
        let address = |trunk: &Trunk| TrunkAddress {
            trunk: trunk.id,
            gateway: trunk.gateway.clone(),
            large_over_tcp: trunk.large_over_tcp,
            login: logins.get(&trunk.id).cloned(),
        };
        let addresses = trunks.iter().map(address).collect();
        self.ctx.supervisors.tell_trunks(TrunksMsg::Replaced(trunks));
        self.edge.tell(&self.ctx, EdgeCommand::Trunks(addresses));
        Ok(())
    }

    /// Has an account loaded again before it is used next: its rows were changed from outside its actor (profile, caller
    /// IDs, callback numbers).
    pub fn reload(&self, account: AccountKey) {
        if let Some(actor) = self.ctx.directory.loaded(account) {
            let _ = actor.send_message(AccountMsg::Reload);
        }
    }

    /// A credential was rotated or revoked in the store: its bindings end at once.
    pub fn credential_revoked(&self, credential: CredentialId) {
        self.edge.tell(&self.ctx, EdgeCommand::CredentialRevoked { credential });
    }

    /// The server ends: carriers are told that we are not registered any more.
    pub fn leave_carriers(&self) {
        self.edge.tell(&self.ctx, EdgeCommand::Leaving);
    }

    /// Calls on a trunk now, and why no more can be sent there; `None` when there is no such trunk.
    #[must_use]
    pub fn trunk(&self, trunk: TrunkId) -> Option<(u32, Option<TrunkDown>)> {
        self.ctx.trunks.in_use(trunk)
    }

    /// Whether a call has an actor.
    #[must_use]
    pub fn is_live(&self, call: CallId) -> bool {
        self.ctx.directory.knows_call(call)
    }

    /// Whether it is being settled without an actor, again and again until its account can.
    #[cfg(any(test, feature = "faults"))]
    #[must_use]
    pub fn is_being_settled(&self, call: CallId) -> bool {
        self.ctx.unsettled.contains_key(&call)
    }

    /// Lets no more calls in and has everything written that was decided. Live calls stay as they are stored: the next
    /// process carries them on.
    pub async fn drain(&self, limit: Duration) {
        self.ctx.admission.close();
        if tokio::time::timeout(limit, self.flush()).await.is_err() {
            tracing::warn!("not everything was written before the drain ended");
        }
    }

    async fn flush(&self) {
        tokio::join!(self.edge.flush(), self.ctx.journal.flush());
    }

    /// After the last event of the SIP side: waits until the calls that end are settled, then until all that was told is written,
    /// `limit` for each. Otherwise calls would be billed by the next process, which does not know when they ended, and phones
    /// would be registered that nobody can call.
    pub async fn finish(&self, limit: Duration) {
        let settled = async {
            while self.ctx.directory.is_settling() {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        if tokio::time::timeout(limit, settled).await.is_err() {
            tracing::warn!("not every call that ended was settled: the next process does it");
        }
        if tokio::time::timeout(limit, self.flush()).await.is_err() {
            tracing::warn!("not everything was written at the end");
        }
    }

    /// Ends all actors. Live calls stay as they are stored.
    pub fn stop(&self) {
        self.ctx.admission.close();
        self.ctx.supervisors.stop();
    }

    /// Returns when the supervisors failed so often that the tree ended: no account and no call is served any more, what is
    /// stored is whole. End the process then: the next one takes the live calls up.
    pub async fn failed(&self) {
        self.ctx.supervisors.gave_up().await;
    }

    /// Whether new calls should be sent here: not while so many calls fail that none is let in.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.ctx.failures.calls_are_beyond(self.ctx.now().mono)
    }

    /// Messages that killed their actor three times: refused until they may be tried again, after 15 minutes. At most 1,024.
    #[must_use]
    pub fn set_aside(&self) -> Vec<SetAside> {
        self.ctx.failures.set_aside(self.ctx.now())
    }
}
