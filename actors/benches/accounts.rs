//! What an account's actor costs: memory when idle, CPU of a question, time from a panic until it answers again. By hand:
//! `cargo bench -p actors --features faults --bench accounts -- [ACCOUNTS]`; everything is in memory, in one process.

use actors::{Actors, ActorsConfig};
use schema::account::{AccountStatus, Limits};
use schema::entropy::Entropy;
use schema::id::{AccountId, AccountKey, BrandId, DeckId, DeckVersionId};
use schema::money::Currency;
use schema::time::{BootId, Clock, Mono, Now, Timestamp};
use std::sync::Arc;
use std::time::{Duration, Instant};
use storage::memory::MemDisk;
use storage::{Brand, Deck, Journal, JournalOptions, NewAccount, Store};
use tokio::sync::mpsc;
use uuid::Uuid;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ACCOUNTS: u32 = 100_000;
/// Who asks one account at the same time.
const ASKERS: usize = 64;
const QUESTIONS: usize = 5_000;
const PANICS: usize = 1_000;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let count = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(ACCOUNTS);
    // What is expected is not worth a line each.
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.payload_as_str().is_some_and(|text| text.contains("a fault was injected")) {
            usual(info);
        }
    }));
    let disk = MemDisk::new();
    let accounts = fill(&Store::memory(&disk), count).await;
    let actors = start(&disk).await;

    let before = resident_bytes();
    for account in &accounts {
        actors.view(*account).await.expect("an answer");
    }
    let loaded = actors.counts().loaded_accounts;
    println!("memory: {} bytes for each of {loaded} idle accounts", (resident_bytes() - before) / u64::from(count));

    let (cpu, begun) = (cpu_time(), now());
    let askers: Vec<_> = (0..ASKERS).map(|_| tokio::spawn(ask(actors.clone(), accounts[0]))).collect();
    for asker in askers {
        asker.await.expect("no panic");
    }
    let asked = u32::try_from(ASKERS * QUESTIONS).expect("few");
    println!(
        "one hot account: {:?} CPU and {:?} a question, {ASKERS} asking",
        (cpu_time() - cpu) / asked,
        begun.elapsed() / asked
    );

    let mut answered: Vec<Duration> = Vec::with_capacity(PANICS);
    for account in accounts.iter().cycle().take(PANICS) {
        let struck = now();
        actors.panic_account(*account);
        actors.view(*account).await.expect("an answer");
        answered.push(struck.elapsed());
    }
    answered.sort_unstable();
    let (median, late) = (answered[PANICS / 2], answered[PANICS * 99 / 100]);
    println!("restart: {PANICS} panics, it answers after {median:?} (p50), {late:?} (p99)");
    actors.stop();
}

async fn ask(actors: Actors, account: AccountKey) {
    for _ in 0..QUESTIONS {
        actors.view(account).await.expect("an answer");
    }
}

async fn start(disk: &MemDisk) -> Actors {
    let store = Store::memory(disk);
    let journal = Journal::start(&store, JournalOptions::default());
    let begun = now();
    let clock: Clock = Arc::new(move || {
        let us = begun.elapsed().as_micros();
        Now {
            mono: Mono(u64::try_from(us).unwrap_or(u64::MAX)),
            wall: Timestamp(1_700_000_000_000_000 + i64::try_from(us).unwrap_or(0)),
        }
    });
    let (legs, _) = mpsc::channel(1);
    let (edge, mut told) = mpsc::channel(16);
    tokio::spawn(async move { while told.recv().await.is_some() {} });
    let config = ActorsConfig { boot: BootId(1), ..ActorsConfig::default() };
    Actors::start(config, store, journal, clock, Entropy::from_number(1), legs, edge).await.expect("the actors start")
}

async fn fill(store: &Store, count: u32) -> Vec<AccountKey> {
    let (brand, realm) = (BrandId(Uuid::from_u128(1)), "example.net".to_owned());
    let named = Brand { id: brand, domain: realm.clone(), realm };
    store.put_brand(&named).await.expect("a brand");
    let (deck, currency) = (DeckId(Uuid::from_u128(1)), Currency::parse("EUR").expect("a currency"));
    let version = DeckVersionId(Uuid::from_u128(1));
    let rates = Deck { id: deck, name: "deck".into(), currency, tax_included: true, version, rates: Vec::new() };
    store.put_deck(&rates, Timestamp(1_700_000_000_000_000)).await.expect("a deck");
    let account = |n: u32| NewAccount {
        id: AccountId(Uuid::from_u128(n.into())),
        brand,
        parent: None,
        country: "GB".into(),
        time_zone: "Europe/London".into(),
        currency,
        deck,
        limits: Limits { live_calls: 2, calls_per_minute: 10, call_seconds: 7_200, rate_per_minute: None },
        status: AccountStatus::Active,
        created_at: Timestamp(1_700_000_000_000_000),
        opening: None,
        credentials: Vec::new(),
        caller_ids: Vec::new(),
        callback_phones: Vec::new(),
    };
    let accounts: Vec<_> = (1..=count).map(account).collect();
    store.create_accounts(&accounts, |_| {}).await.expect("accounts").iter().map(|created| created.key).collect()
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

/// The n-th word of a file about this process.
fn word(file: &str, n: usize) -> u64 {
    let text = std::fs::read_to_string(file).expect("Linux tells about this process");
    text.split_whitespace().nth(n).and_then(|word| word.parse().ok()).expect("a number")
}

fn resident_bytes() -> u64 {
    word("/proc/self/statm", 1) * 4_096
}

/// User and system time, in the kernel's ticks of 10 ms.
fn cpu_time() -> Duration {
    Duration::from_millis(10 * (word("/proc/self/stat", 13) + word("/proc/self/stat", 14)))
}
