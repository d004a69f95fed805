//! Whole calls through the actors and SQLite, with a stand-in for the SIP side that answers at once.

use actors::{Actors, ActorsConfig};
use schema::account::{AccountStatus, CallerId, CallerIdStatus, Evidence, Limits};
use schema::carrier::{Gateway, GatewayTransport, Trunk};
use schema::entropy::Entropy;
use schema::id::{AccountId, AccountKey, BrandId, CallId, CallerIdId, CredentialId, DeckId, DeckVersionId};
use schema::id::{TransferId, TrunkId};
use schema::ledger::{IdempotencyKey, LedgerAccount, LedgerKind, Transfer};
use schema::leg::{CallerIdWish, Checkpoint, EndCause, Invited, LegCommand, LegEvent, LegEventAt, LegId};
use schema::money::{Currency, Micros, NanosPerMinute};
use schema::number::E164;
use schema::pii::Pii;
use schema::rate::RateTerms;
use schema::target::TrunkGateway;
use schema::time::{BootId, Clock, Mono, Now, Timestamp};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use storage::{Brand, DatabaseUrl, Deck, Journal, JournalOptions, Keyring, MasterKey, NewAccount, Rate, Store};
use tokio::sync::mpsc;
use uuid::Uuid;

/// What a phone offers and a carrier answers in a call of audio.
const SDP: &str = "v=0\r\no=- 3917284556 3917284556 IN IP4 192.0.2.17\r\ns=-\r\nc=IN IP4 192.0.2.17\r\nt=0 0\r\n\
    m=audio 49170 RTP/AVP 8 0 9 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:9 G722/8000\r\n\
    a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n";
/// Bytes of the dialogs as the SIP side stores them: the caller's with one session description, the carrier's with two.
const A_LEG: usize = 1_000;
const B_LEG: usize = 1_400;
const AT: Timestamp = Timestamp(1_700_000_000_000_000);

/// The actors, their accounts and what stands in for the SIP side.
pub(crate) struct World {
    pub(crate) actors: Actors,
    pub(crate) journal: Journal,
    accounts: Vec<AccountKey>,
    clock: Clock,
    commands: mpsc::Receiver<LegCommand>,
}

impl World {
    /// So many accounts, loaded, with money for a day of calls each. Their database is a new one in the folder.
    pub(crate) async fn start(folder: &Path, accounts: u32) -> Self {
        let keys = DatabaseUrl::sqlite(folder.join("keys.db"));
        let keys = Keyring::open(&keys, &MasterKey::from_bytes([9; 32])).await.expect("the keys open");
        let store = Store::open(&DatabaseUrl::sqlite(folder.join("data.db")), keys).await.expect("the database opens");
        let accounts = fill(&store, accounts).await;
        let journal = Journal::start(&store, JournalOptions::default());
        let clock = clock();
        let (legs, commands) = mpsc::channel(4_096);
        let (edge, mut told) = mpsc::channel(16);
        tokio::spawn(async move { while told.recv().await.is_some() {} });
        let config = ActorsConfig { boot: BootId(1), ..ActorsConfig::default() };
        let entropy = Entropy::from_number(1);
        let actors = Actors::start(config, store, journal.clone(), clock.clone(), entropy, legs, edge);
        let actors = actors.await.expect("the actors start");
        for account in &accounts {
            actors.view(*account).await.expect("an answer");
        }
        Self { actors, journal, accounts, clock, commands }
    }

    fn tell(&self, event: LegEvent) {
        self.actors.on_leg_event(LegEventAt { event, at: (self.clock)() });
    }

    /// Places these calls, one after the other over all accounts, and waits until all of them talk.
    pub(crate) async fn connect(&mut self, calls: std::ops::Range<u32>) {
        let count = calls.len();
        for call in calls {
            let account = self.accounts[call as usize % self.accounts.len()];
            self.tell(LegEvent::Invited(Box::new(invited(call, account))));
        }
        let mut connected = 0;
        while connected < count {
            match self.commands.recv().await.expect("the actors live") {
                LegCommand::Invite(invite) => {
                    self.tell(LegEvent::Progress { leg: invite.leg, status: 180, sdp: None, rings: true });
                    let (sdp, checkpoint) = (Some(Pii::new(SDP.into())), checkpoint(B_LEG));
                    self.tell(LegEvent::Answered { leg: invite.leg, sdp, offers: false, checkpoint });
                }
                LegCommand::Accept { leg, .. } => {
                    self.tell(LegEvent::Confirmed { leg, answer: None });
                    connected += 1;
                }
                LegCommand::Reject { status, .. } => panic!("a call was refused with {status}"),
                _ => {}
            }
        }
        self.journal.flush().await;
    }

    /// The callers of these calls hang up; all are settled afterwards.
    pub(crate) async fn hang_up(&mut self, calls: std::ops::Range<u32>) {
        let count = calls.len();
        for call in calls {
            let cause = EndCause::Bye { q850: Some(16) };
            self.tell(LegEvent::Ended { leg: LegId::a(call_id(call)), cause });
        }
        let mut settled = 0;
        while settled < count {
            match self.commands.recv().await.expect("the actors live") {
                LegCommand::HangUp { leg, .. } => self.tell(LegEvent::Ended { leg, cause: EndCause::HungUp }),
                LegCommand::Settled { .. } => settled += 1,
                _ => {}
            }
        }
        self.journal.flush().await;
    }
}

const fn call_id(call: u32) -> CallId {
    CallId(Uuid::from_u128(call as u128))
}

fn checkpoint(length: usize) -> Checkpoint {
    Checkpoint { state: Pii::new("d".repeat(length).into()) }
}

fn invited(call: u32, account: AccountKey) -> Invited {
    Invited {
        leg: LegId::a(call_id(call)),
        account,
        credential: CredentialId(Uuid::from_u128(1)),
        dialled: Pii::new("+447700900123".to_owned()),
        wanted_caller_id: Some(CallerIdWish::From(Pii::new("+447700900001".to_owned()))),
        withhold: false,
        needs_tls: false,
        offer: Some(Pii::new(SDP.into())),

        is_watched: true,
        checkpoint: checkpoint(A_LEG),
    }
}

#[expect(clippy::disallowed_methods, reason = "the actors' time is real here")]
fn clock() -> Clock {
    let begun = Instant::now();
    Arc::new(move || {
        let us = begun.elapsed().as_micros();
        Now {
            mono: Mono(u64::try_from(us).unwrap_or(u64::MAX)),
            wall: Timestamp(AT.0 + i64::try_from(us).unwrap_or(0)),
        }
    })
}

async fn fill(store: &Store, count: u32) -> Vec<AccountKey> {
    let currency = Currency::parse("EUR").expect("a currency");
    for (id, per_minute) in [(1, 600_000_000), (2, 300_000_000)] {
        store.put_deck(&deck(id, currency, per_minute), AT).await.expect("a deck");
    }
    store.put_trunk(&trunk(currency)).await.expect("a trunk");
    let (brand, realm) = (BrandId(Uuid::from_u128(1)), "example.net".to_owned());
    let named = Brand { id: brand, domain: realm.clone(), realm };
    store.put_brand(&named).await.expect("a brand");
    let accounts: Vec<_> = (1..=count).map(|n| account(n.into(), brand, currency)).collect();
    store.create_accounts(&accounts, |_| {}).await.expect("accounts").iter().map(|created| created.key).collect()
}

fn deck(id: u128, currency: Currency, per_minute: i64) -> Deck {
    let (per_minute, connect_fee) = (NanosPerMinute(per_minute), Micros(0));
    let rate = Rate {
        prefix: "44".into(),
        destination: "United Kingdom".into(),
        terms: RateTerms { per_minute, connect_fee, minimum_s: 0, increment_s: 1, grace_s: 0 },
        effective_from: None,
        effective_until: None,
    };
    Deck {
        id: DeckId(Uuid::from_u128(id)),
        name: format!("deck {id}"),
        currency,
        tax_included: true,
        version: DeckVersionId(Uuid::from_u128(id)),
        rates: vec![rate],
    }
}

fn trunk(currency: Currency) -> Trunk {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 5070));
    Trunk {
        id: TrunkId(Uuid::from_u128(1)),
        name: "Northern Carrier".into(),
        gateway: TrunkGateway::At(Gateway { transport: GatewayTransport::Udp, address }),
        currency,
        deck: DeckId(Uuid::from_u128(2)),
        max_channels: 100_000,
        max_cps: 100_000,
        priority: 0,
        large_over_tcp: false,
        trusted: false,
    }
}

fn account(n: u128, brand: BrandId, currency: Currency) -> NewAccount {
    let amount = Micros(1_000_000_000);
    let opening = Transfer {
        id: TransferId(Uuid::from_u128(n)),
        kind: LedgerKind::TopUp,
        debit: LedgerAccount::PaymentClearing,
        credit: LedgerAccount::Customer,
        amount,
        call: None,
        carrier_cost: None,
        loss: Micros(0),
        key: Some(IdempotencyKey { key: "opening".into(), request: [0; 32] }),
        balance_after: amount,
        description: "opening credit".into(),
    };
    let caller_id = CallerId {
        id: CallerIdId(Uuid::from_u128(n)),
        number: E164::parse("+447700900001").expect("valid"),
        label: None,
        status: CallerIdStatus::Verified,
        evidence: Some(Evidence::Operator),
        is_default: true,
        verified_at: Some(AT),
        expires_at: None,
    };
    NewAccount {
        id: AccountId(Uuid::from_u128(n)),
        brand,
        parent: None,
        country: "GB".into(),
        time_zone: "Europe/London".into(),
        currency,
        deck: DeckId(Uuid::from_u128(1)),
        limits: Limits { live_calls: 1_000, calls_per_minute: 100_000, call_seconds: 7_200, rate_per_minute: None },
        status: AccountStatus::Active,
        created_at: AT,
        opening: Some(opening),
        credentials: Vec::new(),
        caller_ids: vec![caller_id],
        callback_phones: Vec::new(),
    }
}
