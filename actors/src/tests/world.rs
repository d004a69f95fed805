//! One account, two carriers and a SIP side that does what a test says.

use super::words;
use crate::rating::tests::{deck, line};
use crate::routing::tests::trunk;
use crate::{AccountView, Actors, ActorsConfig, Credit, CreditError, Credited};
use schema::account::{AccountStatus, CallerId, CallerIdStatus, Evidence, Limits};
use schema::call::Cdr;
use schema::carrier::{Trunk, TrunkDown, TrunkState};
use schema::edge::{EdgeCommand, EdgeEvent};
use schema::entropy::Entropy;
use schema::event::{EventBody, EventCursor};
use schema::id::{AccountId, AccountKey, BrandId, CallId, CallerIdId, CredentialId, DeckId, TransferId, TrunkId};
use schema::ledger::{IdempotencyKey, LedgerAccount, LedgerKind, Transfer};
use schema::leg::{Checkpoint, EndCause, Invited, LegCommand, LegEvent, LegEventAt, LegId};
use schema::money::{Currency, Micros, NanosPerMinute};
use schema::number::E164;
use schema::pii::Pii;
use schema::time::{BootId, Clock, Mono, Now, Timestamp};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use storage::memory::MemDisk;
use storage::{Brand, Journal, JournalOptions, NewAccount, NewCredential, Store};
use tokio::sync::mpsc;
use uuid::Uuid;

/// What the simulated carriers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    Answers,
    Rings,
    FirstFails,
    /// Every fourth call is refused by the first carrier; all others are answered.
    Varied,
    /// Answers, and knows nothing of calls from before a restart.
    Forgets,
    /// Says nothing.
    Silent,
}

pub(super) struct World {
    pub(super) actors: Actors,
    pub(super) store: Store,
    pub(super) journal: Journal,
    pub(super) disk: MemDisk,
    pub(super) account: AccountKey,
    pub(super) accounts: Vec<AccountKey>,
    carrier: Carrier,
    clock: Clock,
    said: Arc<Mutex<Vec<LegCommand>>>,
    edge_told: Arc<Mutex<Vec<EdgeCommand>>>,
    sip: tokio::task::AbortHandle,
}

pub(super) const fn call_id(n: u32) -> CallId {
    CallId(Uuid::from_u128(n as u128))
}

/// Both clocks follow tokio's, which the test moves.
fn clock(since: Duration) -> Clock {
    let begun = tokio::time::Instant::now();
    Arc::new(move || {
        let us = u64::try_from((since + begun.elapsed()).as_micros()).expect("a test is short");
        Now { mono: Mono(us), wall: Timestamp(1_700_000_000_000_000 + us as i64) }
    })
}

pub(super) fn checkpoint() -> Checkpoint {
    Checkpoint { state: Pii::new("dialog".into()) }
}

async fn fill(store: &Store, opening: i64, count: u128) -> Vec<AccountKey> {
    let euro = Currency::parse("EUR").expect("a currency");
    let at = Timestamp(1_700_000_000_000_000);
    let decks = [
        deck(1, vec![line("44", 600_000_000)]),
        deck(2, vec![line("44", 300_000_000)]),
        deck(3, vec![line("44", 400_000_000)]),
    ];
    for deck in &decks {
        store.put_deck(deck, at).await.expect("a deck");
    }
    for trunk in [trunk(1, 2), trunk(2, 3)] {
        store.put_trunk(&Trunk { max_channels: 1_000, max_cps: 1_000, ..trunk }).await.expect("a trunk");
    }
    let brand = BrandId(Uuid::from_u128(1));
    let realm = "example.net".to_owned();
    let new_brand = Brand { id: brand, domain: realm.clone(), realm };
    store.put_brand(&new_brand).await.expect("a brand");
    let opening = |n| {
        (opening > 0).then(|| Transfer {
            id: TransferId(Uuid::from_u128(n)),
            kind: LedgerKind::TopUp,
            debit: LedgerAccount::PaymentClearing,
            credit: LedgerAccount::Customer,
            amount: Micros(opening),
            call: None,
            carrier_cost: None,
            loss: Micros(0),
            key: Some(IdempotencyKey { key: "opening".into(), request: [0; 32] }),
            balance_after: Micros(opening),
            description: "opening credit".into(),
        })
    };
    let account = |n| NewAccount {
        id: AccountId(Uuid::from_u128(n)),
        brand,
        parent: None,
        country: "GB".into(),
        time_zone: "Europe/London".into(),
        currency: euro,
        deck: DeckId(Uuid::from_u128(1)),
        limits: Limits {
            live_calls: 1_000,
            calls_per_minute: 10_000,
            call_seconds: 7_200,
            rate_per_minute: Some(NanosPerMinute(1_000_000_000)),
        },
        status: AccountStatus::Active,
        created_at: at,
        opening: opening(n),
        credentials: vec![NewCredential {
            id: CredentialId(Uuid::from_u128(n)),
            username: format!("alice{n}").into(),
            label: Pii::new("desk".into()),
            secret: Pii::new(schema::account::Ha1 { md5: [0; 16], sha256: [0; 32] }),
        }],
        caller_ids: vec![CallerId {
            id: CallerIdId(Uuid::from_u128(n)),
            number: E164::parse("+447700900001").expect("valid"),
            label: None,
            status: CallerIdStatus::Verified,
            evidence: Some(Evidence::Operator),
            is_default: true,
            verified_at: Some(at),
            expires_at: None,
        }],
        callback_phones: Vec::new(),
    };
    let accounts: Vec<_> = (1..=count).map(account).collect();
    store.create_accounts(&accounts, |_| {}).await.expect("accounts").iter().map(|created| created.key).collect()
}

impl World {
    pub(super) async fn start(opening: i64, carrier: Carrier) -> Self {
        Self::start_with(opening, carrier, |_| {}).await
    }

    /// Many accounts, each with the same money.
    pub(super) async fn with_accounts(count: u128, opening: i64, carrier: Carrier) -> Self {
        let disk = MemDisk::new();
        let accounts = fill(&Store::memory(&disk), opening, count).await;
        let config = ActorsConfig { boot: BootId(1), ..ActorsConfig::default() };
        Self::on(disk, accounts, carrier, config, Duration::from_secs(1_000), |_| {}).await
    }

    pub(super) async fn start_with(opening: i64, carrier: Carrier, change: impl FnOnce(&mut ActorsConfig)) -> Self {
        let disk = MemDisk::new();
        let accounts = fill(&Store::memory(&disk), opening, 1).await;
        let mut config = ActorsConfig { boot: BootId(1), ..ActorsConfig::default() };
        change(&mut config);
        Self::on(disk, accounts, carrier, config, Duration::from_secs(1_000), |_| {}).await
    }

    async fn on(
        disk: MemDisk,
        accounts: Vec<AccountKey>,
        carrier: Carrier,
        config: ActorsConfig,
        since: Duration,
        arm: impl FnOnce(&Actors),
    ) -> Self {
        let store = Store::memory(&disk);
        let journal = Journal::start(&store, JournalOptions::default());
        let (legs, mut commands) = mpsc::channel::<LegCommand>(1_024);
        let (edge, mut edge_commands) = mpsc::channel(1_024);
        let clock = clock(since);
        let entropy = Entropy::from_number(1);
        let actors = Actors::start(config, store.clone(), journal.clone(), clock.clone(), entropy, legs, edge)
            .await
            .expect("the actors start");
        // Before anything is taken up.
        arm(&actors);
        let said = Arc::new(Mutex::new(Vec::new()));
        let edge_told = Arc::new(Mutex::new(Vec::new()));
        let edge_log = edge_told.clone();
        tokio::spawn(async move {
            while let Some(command) = edge_commands.recv().await {
                edge_log.lock().expect("no panic").push(command);
            }
        });
        let (sip, log, at) = (actors.clone(), said.clone(), clock.clone());
        let sip = tokio::spawn(async move {
            while let Some(command) = commands.recv().await {
                log.lock().expect("no panic").push(command.clone());
                for event in carry(carrier, &command) {
                    sip.on_leg_event(LegEventAt { event, at: at() });
                }
            }
        })
        .abort_handle();
        actors.recovered().await;
        Self { actors, store, journal, disk, account: accounts[0], accounts, carrier, clock, said, edge_told, sip }
    }

    /// The SIP side ends before all else.
    pub(super) async fn end_sip(&self) {
        self.sip.abort();
        self.pass(1).await;
    }

    /// The process ends as if killed, another begins on the same disk.
    pub(super) async fn restart(self) -> Self {
        let carrier = self.carrier;
        self.restart_with(carrier).await
    }

    /// As [`Self::restart`], with another carrier behind it.
    pub(super) async fn restart_with(self, carrier: Carrier) -> Self {
        self.restart_armed(carrier, |_| {}).await
    }

    /// As [`Self::restart_with`], with faults that are there from the first moment on.
    pub(super) async fn restart_armed(self, carrier: Carrier, arm: impl FnOnce(&Actors)) -> Self {
        self.restart_on(carrier, ActorsConfig::default(), arm).await
    }

    /// As [`Self::restart`], but what begins is a command that runs without a server.
    pub(super) async fn restart_as_a_command(self) -> Self {
        let carrier = self.carrier;
        let config = ActorsConfig { takes_up_what_was_live: false, ..ActorsConfig::default() };
        self.restart_on(carrier, config, |_| {}).await
    }

    /// As [`Self::restart_with`], after so many milliseconds without a process.
    pub(super) async fn restart_after(self, down_ms: u64, carrier: Carrier) -> Self {
        self.actors.stop();
        self.pass(down_ms).await;
        self.restart_with(carrier).await
    }

    async fn restart_on(self, carrier: Carrier, config: ActorsConfig, arm: impl FnOnce(&Actors)) -> Self {
        let since = Duration::from_micros(self.now().mono.0);
        self.actors.stop();
        self.pass(10).await;
        let config = ActorsConfig { boot: BootId(1), ..config };
        Self::on(self.disk.clone(), self.accounts, carrier, config, since + Duration::from_millis(10), arm).await
    }

    pub(super) fn now(&self) -> Now {
        (self.clock)()
    }

    pub(super) async fn pass(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    fn tell(&self, event: LegEvent) {
        self.actors.on_leg_event(LegEventAt { event, at: self.now() });
    }

    pub(super) fn invite(&self, call: u32, dialled: &str) {
        self.invite_of(self.account, call, dialled);
    }

    pub(super) fn invite_of(&self, account: AccountKey, call: u32, dialled: &str) {
        self.tell(LegEvent::Invited(Box::new(Invited {
            leg: LegId::a(call_id(call)),
            account,
            credential: CredentialId(Uuid::from_u128(1)),
            dialled: Pii::new(dialled.to_owned()),
            wanted_caller_id: None,
            withhold: false,
            needs_tls: false,
            offer: Some(Pii::new("v=0".into())),
            is_watched: true,
            checkpoint: checkpoint(),
        })));
    }

    pub(super) fn answer(&self, call: u32) {
        let leg = LegId::b(call_id(call), 1);
        self.tell(LegEvent::Answered {
            leg,
            sdp: Some(Pii::new("v=0".into())),
            offers: false,
            checkpoint: checkpoint(),
        });
    }

    /// A side's dialog changed.
    pub(super) fn changed(&self, leg: LegId, state: &str) {
        let checkpoint = Checkpoint { state: Pii::new(state.into()) };
        self.tell(LegEvent::Checkpointed { leg, checkpoint });
    }

    /// What is stored of the dialogs of the only live call, the A-leg's first.
    pub(super) async fn stored_dialogs(&self) -> [Option<String>; 2] {
        let calls = self.store.live_calls_with_dialogs(None, 2).await.expect("stored");
        let [stored] = &calls[..] else { panic!("{} calls", calls.len()) };
        let dialogs = stored.dialogs.as_ref().expect("readable");
        [&dialogs.a_leg, &dialogs.b_leg].map(|leg| leg.as_ref().map(|leg| leg.state.expose().to_string()))
    }

    pub(super) fn cancel(&self, call: u32) {
        self.tell(LegEvent::Cancelled { leg: LegId::a(call_id(call)) });
    }

    pub(super) fn caller_is_there(&self, call: u32) {
        self.tell(LegEvent::Alive { leg: LegId::a(call_id(call)) });
    }

    pub(super) fn bye_from_caller(&self, call: u32) {
        self.tell(LegEvent::Ended { leg: LegId::a(call_id(call)), cause: EndCause::Bye { q850: Some(16) } });
    }

    pub(super) fn bye_to_callee(&self, call: u32) {
        self.tell(LegEvent::Ended { leg: LegId::b(call_id(call), 1), cause: EndCause::HungUp });
    }

    pub(super) fn bye_from_callee(&self, call: u32) {
        self.tell(LegEvent::Ended { leg: LegId::b(call_id(call), 1), cause: EndCause::Bye { q850: None } });
    }

    pub(super) fn probe(&self, trunk: u128, up: bool) {
        let state = if up { TrunkState::UP } else { TrunkState::down(TrunkDown::Silent) };
        self.actors.on_edge_event(EdgeEvent::TrunkProbed { trunk: TrunkId(Uuid::from_u128(trunk)), state });
    }

    pub(super) fn channels(&self, trunk: u128) -> u32 {
        self.actors.trunk(TrunkId(Uuid::from_u128(trunk))).map_or(0, |(used, _)| used)
    }

    /// What the legs were told since this was asked last.
    pub(super) fn said(&self) -> Vec<String> {
        std::mem::take(&mut *self.said.lock().expect("no panic")).iter().filter_map(words).collect()
    }

    /// Whether the edge knows all dialogs, and how many phones it was told of.
    pub(super) fn edge_knows(&self) -> (bool, usize) {
        let told = self.edge_told.lock().expect("no panic");
        let phones = told.iter().filter(|command| matches!(command, EdgeCommand::BindingRestored { .. })).count();
        (told.iter().any(|command| matches!(command, EdgeCommand::Recovered)), phones)
    }

    /// As they are, for tests that look at more than words.
    pub(super) fn commands(&self) -> Vec<LegCommand> {
        std::mem::take(&mut *self.said.lock().expect("no panic"))
    }

    pub(super) fn rings(&self, call: u32) {
        self.tell(LegEvent::Progress { leg: LegId::b(call_id(call), 1), status: 180, sdp: None, rings: true });
    }

    pub(super) async fn view(&self) -> Arc<AccountView> {
        self.actors.view(self.account).await.expect("a view")
    }

    pub(super) async fn cdr(&self, call: u32) -> Cdr {
        self.store.call(call_id(call)).await.expect("read").expect("the call is in the history").1
    }

    pub(super) async fn credit(&self, amount: i64, key: &str) -> Result<Credited, CreditError> {
        let request = [u8::try_from(amount % 251).expect("small"); 32];
        let credit = Credit {
            kind: LedgerKind::TopUp,
            amount: Micros(amount),
            key: IdempotencyKey { key: key.to_owned(), request },
            reason: "test".to_owned(),
        };
        self.actors.credit(self.account, credit).await
    }

    /// The rows say the same as the rules, whatever the actors remember.
    pub(super) async fn audit(&self) {
        self.journal.flush().await;
        let report = storage::audit::audit(&self.store, |_| {}).await.expect("audited");
        assert!(report.is_clean(), "{report}");
    }

    async fn stored_events(&self) -> Vec<schema::event::AccountEvent> {
        let (mut after, mut all) = (EventCursor::default(), Vec::new());
        loop {
            let page = self.store.events_after(self.account, after, 500).await.expect("read");
            let Some(last) = page.last() else { return all };
            after = last.cursor;
            all.extend(page);
        }
    }

    pub(super) async fn all_events(&self) -> Vec<EventCursor> {
        self.stored_events().await.iter().map(|event| event.cursor).collect()
    }

    pub(super) async fn events_of_call_warnings(&self) -> Vec<Option<u32>> {
        let events = self.stored_events().await;
        let warning = |body: &EventBody| match body {
            EventBody::CallWarning { seconds_left, .. } => Some(*seconds_left),
            _ => None,
        };
        events.iter().filter_map(|event| warning(&event.body)).collect()
    }

    /// Rows written for the only call of the account, which is over: its own, one for each of its entries, in which its holds and
    /// its charge stand, and one for each that told of something.
    pub(super) async fn row_writes(&self) -> usize {
        let entries = usize::try_from(self.view().await.cursor.seq.0 - 1).expect("few");
        let events: std::collections::BTreeSet<_> =
            self.stored_events().await.iter().map(|e| e.cursor.seq).filter(|seq| seq.0 > 1).collect();
        // The call's row: inserted, updated once at the answer, deleted; its CDR.
        entries + events.len() + 3 + 1
    }
}

fn carry(carrier: Carrier, command: &LegCommand) -> Vec<LegEvent> {
    let LegCommand::Invite(invite) = command else {
        return match command {
            LegCommand::Accept { leg, .. } => vec![LegEvent::Confirmed { leg: *leg, answer: None }],
            _ if carrier == Carrier::Silent => Vec::new(),
            LegCommand::Probe { leg } if carrier == Carrier::Forgets => {
                vec![LegEvent::Ended { leg: *leg, cause: EndCause::Lost }]
            }
            LegCommand::Probe { leg } => vec![LegEvent::Alive { leg: *leg }],
            // Where it rings the test says when a BYE has left.
            LegCommand::HangUp { leg, .. } if carrier != Carrier::Rings => {
                vec![LegEvent::Ended { leg: *leg, cause: EndCause::HungUp }]
            }
            LegCommand::TakeBack(call) => {
                let failed = |leg| LegEvent::Failed {
                    leg,
                    status: 487,
                    q850: None,
                    rang: false,
                    redress: None,
                    answered: false,
                };
                call.invite.iter().map(|invite| failed(invite.leg)).collect()
            }
            _ => Vec::new(),
        };
    };
    let leg = invite.leg;
    match carrier {
        Carrier::FirstFails | Carrier::Varied
            if leg.attempt == 1 && (carrier == Carrier::FirstFails || leg.call.0.as_u128() % 4 == 0) =>
        {
            vec![LegEvent::Failed { leg, status: 503, q850: None, rang: false, redress: None, answered: false }]
        }
        Carrier::Answers | Carrier::Forgets | Carrier::FirstFails | Carrier::Varied => {
            vec![LegEvent::Answered { leg, sdp: Some(Pii::new("v=0".into())), offers: false, checkpoint: checkpoint() }]
        }
        Carrier::Silent => Vec::new(),
        Carrier::Rings => vec![LegEvent::Progress { leg, status: 180, sdp: None, rings: true }],
    }
}
