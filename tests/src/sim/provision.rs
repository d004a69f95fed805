//! The accounts, prices and trunks of a world, written to its disk.

use super::plan::{AccountPlan, Plan};
use super::wall::undisturbed as wall;
use super::world::{DOMAIN, carrier, credentials};
use schema::account::{AccountStatus, CallerId, CallerIdStatus, Evidence, Limits};
use schema::carrier::{Gateway, GatewayTransport, Trunk, TrunkLogin};
use schema::entropy::Entropy;
use schema::id::{
    AccountId, AccountKey, BrandId, CallerIdId, CredentialId, DeckId, DeckVersionId, TransferId, TrunkId,
};
use schema::ledger::{IdempotencyKey, LedgerAccount, LedgerKind, Transfer};
use schema::money::{Currency, Micros, NanosPerMinute};
use schema::number::E164;
use schema::pii::Pii;
use schema::rate::RateTerms;
use schema::time::{Mono, Timestamp};
use sip::demo::carrier::CarrierLogin;
use sip::digest::Algorithm;
use storage::{Brand, Deck, MemDisk, NewAccount, NewCredential, Rate, Store};

const AT: Mono = Mono(0);

/// Writes a plan's world and gives the keys of its accounts in order, and its trunks.
///
/// # Panics
/// When the disk refuses: the plan is wrong.
pub async fn provision(disk: &MemDisk, plan: &Plan, entropy: &mut Entropy) -> (Vec<AccountKey>, Vec<TrunkId>) {
    let store = Store::memory(disk);
    let at = wall(AT);
    let retail = put_deck(&store, "retail", plan.retail, entropy).await;
    let mut trunks = Vec::new();
    for (number, (max_channels, max_cps)) in plan.trunks.into_iter().enumerate() {
        let per_minute = NanosPerMinute(100_000_000 * (1 + number as i64));
        let deck =
            put_deck(&store, &format!("cost {number}"), RateTerms { per_minute, ..RateTerms::FREE }, entropy).await;
        let trunk = Trunk {
            id: TrunkId::generate(entropy, at),
            name: format!("carrier {number}"),
            gateway: Gateway { transport: transport_of(plan.carriers_over_tcp[number]), address: carrier(number) }
                .into(),
            currency: euro(),
            deck,
            max_channels,
            max_cps,
            priority: 0,
            large_over_tcp: plan.large_over_tcp[number],
            trusted: false,
        };
        store.put_trunk(&trunk).await.expect("a new trunk");
        if plan.carriers_asking[number] {
            let CarrierLogin { username, password, .. } = carrier_login();
            let login = TrunkLogin { username, password, realm: None, register_s: None };
            store.put_trunk_login(trunk.id, Some(&login)).await.expect("a login");
        }
        trunks.push(trunk.id);
    }
    let brand = BrandId::generate(entropy, at);
    let (domain, realm) = (DOMAIN.to_owned(), DOMAIN.to_owned());
    let brand_row = Brand { id: brand, domain, realm };
    store.put_brand(&brand_row).await.expect("a brand");
    let new: Vec<_> =
        plan.accounts.iter().enumerate().map(|(n, account)| new_account(n, account, brand, retail, entropy)).collect();
    let created = store.create_accounts(&new, |_| {}).await.expect("new accounts");
    (created.into_iter().map(|account| account.key).collect(), trunks)
}

/// What carriers ask for that ask for credentials.
#[must_use]
pub fn carrier_login() -> CarrierLogin {
    CarrierLogin {
        username: "ringfence".to_owned(),
        password: Pii::new("between us".to_owned()),
        realm: "carrier.example".to_owned(),
        algorithms: vec![Algorithm::Sha256, Algorithm::Md5],
        registers_s: None,
    }
}

const fn transport_of(over_tcp: bool) -> GatewayTransport {
    if over_tcp { GatewayTransport::Tcp } else { GatewayTransport::Udp }
}

fn euro() -> Currency {
    Currency::parse("EUR").expect("a currency")
}

async fn put_deck(store: &Store, name: &str, terms: RateTerms, entropy: &mut Entropy) -> DeckId {
    let at = wall(AT);
    let id = DeckId::generate(entropy, at);
    let line = Rate {
        prefix: "44".to_owned(),
        destination: "United Kingdom".to_owned(),
        terms,
        effective_from: None,
        effective_until: None,
    };
    let deck = Deck {
        id,
        name: name.to_owned(),
        currency: euro(),
        tax_included: false,
        version: DeckVersionId::generate(entropy, at),
        rates: vec![line],
    };
    store.put_deck(&deck, at).await.expect("a new deck");
    id
}

fn new_account(number: usize, plan: &AccountPlan, brand: BrandId, deck: DeckId, entropy: &mut Entropy) -> NewAccount {
    let at = wall(AT);
    let (username, password) = credentials(number);
    NewAccount {
        id: AccountId::generate(entropy, at),
        brand,
        parent: None,
        country: "GB".into(),
        time_zone: "Europe/London".into(),
        currency: euro(),
        deck,
        limits: Limits {
            live_calls: plan.live_calls,
            calls_per_minute: 30,
            call_seconds: plan.call_seconds,
            rate_per_minute: None,
        },
        status: AccountStatus::Active,
        created_at: at,
        opening: plan.opening.is_positive().then(|| opening(plan.opening, entropy, at)),
        credentials: vec![NewCredential {
            id: CredentialId::generate(entropy, at),
            username: username.as_str().into(),
            label: Pii::new(String::new()),
            secret: Pii::new(sip::digest::ha1(&username, DOMAIN, &password)),
        }],
        caller_ids: vec![CallerId {
            id: CallerIdId::generate(entropy, at),
            number: E164::parse(&caller_id(number)).expect("a number"),
            label: None,
            status: CallerIdStatus::Verified,
            evidence: Some(Evidence::Assigned),
            is_default: true,
            verified_at: Some(at),
            expires_at: None,
        }],
        callback_phones: Vec::new(),
    }
}

/// The number that an account may show; each has its own.
#[must_use]
pub fn caller_id(account: usize) -> String {
    format!("+4420794601{account:02}")
}

fn opening(amount: Micros, entropy: &mut Entropy, at: Timestamp) -> Transfer {
    Transfer {
        id: TransferId::generate(entropy, at),
        kind: LedgerKind::TopUp,
        debit: LedgerAccount::PaymentClearing,
        credit: LedgerAccount::Customer,
        amount,
        call: None,
        carrier_cost: None,
        loss: Micros::ZERO,
        key: Some(IdempotencyKey { key: "opening".to_owned(), request: [0; 32] }),
        balance_after: amount,
        description: "opening credit".to_owned(),
    }
}
