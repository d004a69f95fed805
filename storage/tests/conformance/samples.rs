//! Rows to store: a world with one brand and two decks, accounts, calls and their journal entries.

use schema::account::*;
use schema::call::*;
use schema::carrier::*;
use schema::entropy::Entropy;
use schema::event::EventBody;
use schema::id::*;
use schema::journal::{Change, Entry};
use schema::ledger::*;
use schema::leg::{AttemptIds, Checkpoint, Dialogs};
use schema::money::*;
use schema::number::{CallbackNumber, E164};
use schema::pii::Pii;
use schema::rate::{RateApplied, RateTerms};
use schema::time::*;
use std::sync::Arc;
use storage::*;

pub const START: Timestamp = Timestamp(1_800_000_000_000_000);

/// Words that must never be found in a database file.
pub const CANARIES: [&str; 12] = [
    "447700900123",
    "447700900999",
    "447700900777",
    "canary.label",
    "canary@example.org",
    "canary.name",
    "192.0.2.77",
    "canary-sdp",
    "canary-instance",
    "canary-hash",
    "canary-device",
    "canary-trunk",
];

pub fn number(text: &str) -> E164 {
    E164::parse(text).expect("a number")
}

pub fn eur() -> Currency {
    Currency::parse("EUR").expect("a currency")
}

/// A store with a brand and a deck, and what makes rows for it.
pub struct World {
    pub store: Store,
    pub brand: Brand,
    pub deck: Deck,
    pub entropy: Entropy,
    pub clock: i64,
}

impl World {
    pub async fn new(store: Store, seed: u64) -> Self {
        let mut entropy = Entropy::from_number(seed);
        let brand = Brand {
            id: BrandId::generate(&mut entropy, START),
            domain: "sip.example.org".to_owned(),
            realm: "example.org".to_owned(),
        };
        store.put_brand(&brand).await.expect("a brand is stored");
        let deck = Deck {
            id: DeckId::generate(&mut entropy, START),
            name: "retail".to_owned(),
            currency: eur(),
            tax_included: true,
            version: DeckVersionId::generate(&mut entropy, START),
            rates: vec![rate("44", 10_000_000), rate("447", 20_000_000)],
        };
        store.put_deck(&deck, START).await.expect("a deck is stored");
        Self { store, brand, deck, entropy, clock: 0 }
    }

    /// Each second passes once.
    pub fn now(&mut self) -> Timestamp {
        self.clock += 1;
        Timestamp(START.0 + self.clock * 1_000_000)
    }

    pub fn new_account(&mut self, username: &str, opening: i64) -> NewAccount {
        let at = self.now();
        let transfer = Transfer {
            id: TransferId::generate(&mut self.entropy, at),
            kind: LedgerKind::TopUp,
            debit: LedgerAccount::PaymentClearing,
            credit: LedgerAccount::Customer,
            amount: Micros(opening),
            call: None,
            carrier_cost: None,
            loss: Micros(0),
            key: Some(IdempotencyKey { key: "opening".to_owned(), request: [7; 32] }),
            balance_after: Micros(opening),
            description: "opening credit".to_owned(),
        };
        NewAccount {
            id: AccountId::generate(&mut self.entropy, at),
            brand: self.brand.id,
            parent: None,
            country: "GB".into(),
            time_zone: "Europe/London".into(),
            currency: eur(),
            deck: self.deck.id,
            limits: Limits::default(),
            status: AccountStatus::Active,
            created_at: at,
            opening: (opening > 0).then_some(transfer),
            credentials: vec![NewCredential {
                id: CredentialId::generate(&mut self.entropy, at),
                username: username.into(),
                label: Pii::new("canary.label desk".to_owned()),
                secret: Pii::new(Ha1 { md5: *b"canary-hash.md5.", sha256: *b"canary-hash.sha256.canary-hash.." }),
            }],
            caller_ids: vec![self.caller_id("+447700900123")],
            callback_phones: vec![CallbackPhone {
                id: CallbackNumberId::generate(&mut self.entropy, at),
                number: CallbackNumber::parse("+447700900777").expect("a number"),
                label: Some(Pii::new("canary.label mobile".to_owned())),
                status: CallerIdStatus::Verified,
            }],
        }
    }

    pub fn caller_id(&mut self, digits: &str) -> CallerId {
        let at = self.now();
        CallerId {
            id: CallerIdId::generate(&mut self.entropy, at),
            number: number(digits),
            label: Some(Pii::new("canary.label office".to_owned())),
            status: CallerIdStatus::Verified,
            evidence: Some(Evidence::Operator),
            is_default: true,
            verified_at: Some(at),
            expires_at: None,
        }
    }

    /// One account with so much money, and its key.
    pub async fn account(&mut self, username: &str, opening: i64) -> AccountKey {
        let new = self.new_account(username, opening);
        let created = self.store.create_accounts(&[new], |_| {}).await.expect("an account is created");
        created[0].key
    }

    /// An account as its actor would hold it.
    pub async fn actor(&mut self, key: AccountKey) -> Actor {
        let loaded = self.store.account(key).await.expect("readable").expect("there");
        Actor { key, figures: loaded.figures }
    }

    pub fn call(&mut self, no: CallNo, held: i64) -> LiveCall {
        let at = self.now();
        let applied = RateApplied {
            deck: "retail".into(),
            deck_version: self.deck.version,
            prefix: "447".into(),
            destination: "UK mobile".into(),
            terms: RateTerms::FREE,
            tax_included: true,
        };
        let call = Call {
            id: CallId::generate(&mut self.entropy, at),
            state: CallState::Routing,
            mode: CallMode::Softphone,
            dialled: Some(Pii::new("00447700900999".to_owned())),
            destination: Some(number("+447700900999")),
            presented_number: None,
            withheld: true,
            attestation: Some(Attestation::B),
            started_at: at,
            answered_at: None,
            ended_at: None,
            currency: eur(),
            cost: Micros(0),
            billed_seconds: 0,
            legs: vec![CallLeg { side: LegSide::B, rate: Some(applied), billed_seconds: 0, cost: Micros(0) }],
            funded_until: None,
            route: Some("test".to_owned()),
            post_dial_delay_ms: None,
            hangup: None,
            explanation: Explanation::default(),
        };
        LiveCall {
            no,
            credential: None,
            call,
            held: Micros(held),
            hold_step: 0,
            paid_s: 30,
            attempt: Some(Attempt {
                number: 1,
                trunk: TrunkId::generate(&mut self.entropy, at),
                carrier: "test".to_owned(),
                gateway: gateway(),
                name: None,
                tried: Vec::new(),
                ids: AttemptIds { call_id: "x".into(), from_tag: "y".into(), branch: "z9hG4bKz".into(), cseq: 1 },
                cost: RateTerms::FREE,
                cost_currency: eur(),
                started_at: at,
            }),
            caller_id: None,
            needs_tls: false,
            answered: None,
            late_answer: false,
            proof_of_life: None,
        }
    }
}

pub fn rate(prefix: &str, nanos: i64) -> Rate {
    Rate {
        prefix: prefix.to_owned(),
        destination: format!("zone {prefix}"),
        terms: RateTerms { per_minute: NanosPerMinute(nanos), ..RateTerms::FREE },
        effective_from: None,
        effective_until: Some(Timestamp(i64::MAX)),
    }
}

/// The dialogs of a call that was answered.
pub fn dialogs() -> Dialogs {
    let leg = |side: &str| Checkpoint { state: Pii::new(format!("192.0.2.77 canary-sdp {side}").into()) };
    let answer_sdp = Some(Pii::new("c=IN IP4 192.0.2.77 canary-sdp".into()));
    Dialogs { a_leg: Some(leg("a")), b_leg: Some(leg("b")), answer_sdp }
}

/// What a call begins with.
pub fn first_hold(call: &LiveCall) -> Hold {
    Hold { call: call.no, leg: LegSide::B, step: 0, amount: call.held }
}

pub fn gateway() -> Gateway {
    Gateway { transport: GatewayTransport::Udp, address: "127.0.0.1:5070".parse().expect("an address") }
}

/// What an account actor would know: enough to make well-formed entries.
#[derive(Debug, Clone)]
pub struct Actor {
    pub key: AccountKey,
    pub figures: AccountFigures,
}

impl Actor {
    /// The next entry, with the figures as they are set.
    pub fn entry(&mut self, at: Timestamp, changes: Vec<Change>) -> Entry {
        self.figures.seq = self.figures.seq.next();
        let balance = Balance {
            currency: eur(),
            total: self.figures.total,
            reserved: self.figures.held,
            available: self.figures.available(),
            accrued: Micros(0),
            remaining: self.figures.total,
            burn_per_minute: Micros(0),
            exhausts_at: None,
        };
        let events = vec![EventBody::BalanceChanged(balance), EventBody::AccountChanged(self.figures.status)];
        Entry { account: self.key, at, figures: self.figures, changes, events }
    }

    /// Reserve: 4 rows.
    pub fn start(&mut self, world: &mut World, hold: i64) -> (LiveCall, Entry) {
        self.figures.last_call = self.figures.last_call.next();
        self.figures.held += Micros(hold);
        let call = world.call(self.figures.last_call, hold);
        let placed = first_hold(&call);
        let kept = Change::DialogsChanged(call.no, Box::new(Dialogs { b_leg: None, answer_sdp: None, ..dialogs() }));
        let changes = vec![Change::CallStarted(Arc::new(call.clone())), Change::HoldPlaced(placed), kept];
        let entry = self.entry(call.call.started_at, changes);
        (call, entry)
    }

    /// A renewal.
    pub fn renew(&mut self, world: &mut World, call: &mut LiveCall, hold: i64) -> Entry {
        let at = world.now();
        self.figures.held += Micros(hold);
        call.held += Micros(hold);
        call.hold_step += 1;
        call.call.state = CallState::Answered;
        call.call.answered_at = call.call.answered_at.or(Some(at));
        let placed = Hold { call: call.no, leg: LegSide::B, step: call.hold_step, amount: Micros(hold) };
        self.entry(at, vec![Change::CallUpdated(Arc::new(call.clone())), Change::HoldPlaced(placed)])
    }

    /// The record of a call that cost so much.
    pub fn cdr(world: &mut World, call: &LiveCall, charge: i64) -> Cdr {
        let at = world.now();
        let cost = CarrierCost {
            trunk: TrunkId::generate(&mut world.entropy, at),
            amount: Micros(charge / 2),
            currency: eur(),
        };
        let mut shown = call.call.clone();
        shown.state = CallState::Ended;
        // Nothing is charged for a call that was not answered.
        shown.answered_at = shown.answered_at.or((charge > 0).then_some(at));
        shown.ended_at = Some(at);
        shown.cost = Micros(charge);
        shown.billed_seconds = 6;
        Cdr {
            no: call.no,
            credential: call.credential,
            talk_ms: if shown.answered_at.is_some() { 5_500 } else { 0 },
            call: shown,
            withheld_number: call.call.withheld.then(|| number("+447700900123")),
            charged: Micros(charge),
            loss: Micros(0),
            carrier_cost: Some(cost),
            attempts: 1,
        }
    }

    pub fn charge(&self, world: &mut World, cdr: &Cdr) -> Transfer {
        let at = world.now();
        Transfer {
            id: TransferId::generate(&mut world.entropy, at),
            kind: LedgerKind::CallCharge,
            debit: LedgerAccount::Customer,
            credit: LedgerAccount::Revenue,
            amount: cdr.charged,
            call: Some(cdr.no),
            carrier_cost: cdr.carrier_cost,
            loss: cdr.loss,
            key: None,
            balance_after: self.figures.total,
            description: "call".to_owned(),
        }
    }

    /// Settle: 5 rows.
    pub fn settle(&mut self, world: &mut World, call: &LiveCall, charge: i64) -> Entry {
        let cdr = Self::cdr(world, call, charge);
        self.figures.held -= call.held;
        self.figures.total -= Micros(charge);
        let transfer = self.charge(world, &cdr);
        let at = world.now();
        self.entry(at, vec![Change::CallEnded(Box::new(cdr)), Change::Posted(Box::new(transfer))])
    }

    /// A call that was never granted.
    pub fn refuse(&mut self, world: &mut World) -> Entry {
        self.figures.last_call = self.figures.last_call.next();
        let mut call = world.call(self.figures.last_call, 0);
        call.call.state = CallState::Refused;
        let mut cdr = Self::cdr(world, &call, 0);
        cdr.call.state = CallState::Refused;
        cdr.carrier_cost = None;
        let at = world.now();
        self.entry(at, vec![Change::CallRefused(Box::new(cdr))])
    }

    pub fn credit(&mut self, world: &mut World, amount: i64, key: &str, request: [u8; 32]) -> (TransferId, Entry) {
        let at = world.now();
        self.figures.total += Micros(amount);
        let transfer = Transfer {
            id: TransferId::generate(&mut world.entropy, at),
            kind: LedgerKind::TopUp,
            debit: LedgerAccount::PaymentClearing,
            credit: LedgerAccount::Customer,
            amount: Micros(amount),
            call: None,
            carrier_cost: None,
            loss: Micros(0),
            key: Some(IdempotencyKey { key: key.to_owned(), request }),
            balance_after: self.figures.total,
            description: "top-up".to_owned(),
        };
        (transfer.id, self.entry(at, vec![Change::Posted(Box::new(transfer))]))
    }
}

/// Outcomes as they are told, each with the account and the place of its entry.
pub type Told = std::sync::Arc<std::sync::Mutex<Vec<(AccountKey, usize, schema::journal::Outcome)>>>;

/// Submits entries at once and gives their outcomes in order, with the order in which they were told.
pub async fn submit(journal: &Journal, entries: Vec<Entry>) -> Vec<schema::journal::Outcome> {
    let (count, told) = (entries.len(), hand_over(journal, entries));
    outcomes(journal, &told, count).await
}

/// Hands entries over at once: nothing is told before all are.
pub fn hand_over(journal: &Journal, entries: Vec<Entry>) -> Told {
    let all_told = Told::default();
    let _not_yet = all_told.lock().expect("not poisoned");
    for (index, entry) in entries.into_iter().enumerate() {
        let (told, account) = (all_told.clone(), entry.account);
        let done = Box::new(move |outcome| told.lock().expect("not poisoned").push((account, index, outcome)));
        journal.submit(entry, done).expect("the queue has room");
    }
    all_told.clone()
}

pub async fn outcomes(journal: &Journal, told: &Told, count: usize) -> Vec<schema::journal::Outcome> {
    journal.flush().await;
    let mut told = std::mem::take(&mut *told.lock().expect("not poisoned"));
    told.sort_by_key(|(account, ..)| *account);
    let in_order = |pair: &[(AccountKey, usize, _)]| pair[0].0 != pair[1].0 || pair[0].1 < pair[1].1;
    assert!(told.windows(2).all(in_order), "those of one account in order");
    told.sort_by_key(|(_, index, _)| *index);
    let places: Vec<_> = told.iter().map(|(_, index, _)| *index).collect();
    assert_eq!(places, (0..count).collect::<Vec<_>>(), "once each");
    told.into_iter().map(|(.., outcome)| outcome).collect()
}
