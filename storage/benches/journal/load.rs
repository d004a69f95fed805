//! Callers that wait for every answer: each hands an entry over, waits until it is durable, and hands the next one over.

use crate::samples::{Actor, START, World};
use crate::table::Measured;
use schema::account::AccountFigures;
use schema::call::LegSide;
use schema::entropy::Entropy;
use schema::id::{AccountKey, TransferId};
use schema::journal::{Change, Entry, Outcome};
use schema::ledger::{Hold, LedgerAccount, LedgerKind, Transfer};
use schema::money::Micros;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use storage::{Journal, JournalOptions, Store};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// What a caller does again and again.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// The ledger alone: a hold is placed, a transfer ends it. Without a call's row there is no charge of one.
    Pair,
    /// A whole call: granted, answered, settled; with its state, record and events.
    Call,
}

/// A store with accounts, each as its actor would hold it.
pub struct Ledger {
    pub store: Store,
    world: World,
    seeds: AtomicU64,
    accounts: Arc<Vec<Mutex<Actor>>>,
}

impl Ledger {
    /// Makes the accounts, each with a million.
    pub async fn new(store: Store, accounts: usize) -> Self {
        let mut world = World::new(store.clone(), 1).await;
        let mut actors = Vec::with_capacity(accounts);
        while actors.len() < accounts {
            let part = (actors.len()..accounts.min(actors.len() + 10_000)).map(|n| {
                let mut new = world.new_account(&format!("bench{n}"), 1_000_000_000_000);
                new.caller_ids.clear();
                new.callback_phones.clear();
                new
            });
            let part: Vec<_> = part.collect();
            for made in store.create_accounts(&part, |_| {}).await.expect("accounts are created") {
                actors.push(Mutex::new(world.actor(made.key).await));
            }
        }
        Self { store, world, seeds: AtomicU64::new(2), accounts: Arc::new(actors) }
    }

    /// After the rows were changed behind the actors' back.
    pub async fn reload(&mut self) {
        let keys: Vec<_> = self.accounts.iter().map(|a| a.lock().expect("not poisoned").key).collect();
        let mut actors = Vec::with_capacity(keys.len());
        for key in keys {
            actors.push(Mutex::new(self.world.actor(key).await));
        }
        self.accounts = Arc::new(actors);
    }

    /// Each caller of each run draws other identities.
    fn world_of(&self) -> World {
        let seed = self.seeds.fetch_add(1, Ordering::Relaxed);
        let World { store, brand, deck, .. } = &self.world;
        let (store, brand, deck) = (store.clone(), brand.clone(), deck.clone());
        World { store, brand, deck, entropy: Entropy::from_number(seed), clock: 0 }
    }

    /// Pairs or calls a second, and how long a caller waits for an answer.
    pub async fn measure(&self, callers: usize, hot: bool, shape: Shape, seconds: u64) -> Measured {
        let journal = Journal::start(&self.store, JournalOptions::default());
        let cpu = cpu_us();
        let warm = Instant::now() + Duration::from_millis(500);
        let end = warm + Duration::from_secs(seconds);
        let tasks: Vec<_> = (0..callers)
            .map(|caller| {
                let world = self.world_of();
                let accounts = self.accounts.clone();
                let caller = Caller { journal: journal.clone(), accounts, world, turn: (caller, callers), hot };
                tokio::spawn(caller.run(shape, warm, end))
            })
            .collect();
        let (mut done, mut waits) = (0, Vec::new());
        for task in tasks {
            let (count, waited) = task.await.expect("no panic");
            done += count;
            waits.extend(waited);
        }
        // Callers included; of the warm-up too, which `done` does not count.
        let used = (cpu_us() - cpu) * seconds as f64 / (seconds as f64 + 0.5);
        journal.flush().await;
        let (batches, entries) = journal.written();
        waits.sort_unstable();
        let rank = |part: usize| waits.get(waits.len() * part / 100).copied().unwrap_or(0);
        let note =
            format!("{} entries a batch, {:.0} CPU-us a pair", entries / batches.max(1), used / f64::from(done.max(1)));
        Measured {
            rate: f64::from(done) / Duration::from_secs(seconds).as_secs_f64(),
            p50_us: rank(50),
            p99_us: rank(99),
            note,
        }
    }
}

struct Caller {
    journal: Journal,
    accounts: Arc<Vec<Mutex<Actor>>>,
    world: World,
    /// Its number, of so many: it is the only one that uses each so-many-th account.
    turn: (usize, usize),
    hot: bool,
}

impl Caller {
    async fn run(mut self, shape: Shape, warm: Instant, end: Instant) -> (u32, Vec<u32>) {
        let (mut done, mut waits) = (0, Vec::new());
        while Instant::now() < end {
            let begun = Instant::now();
            let account = self.pick();
            match shape {
                Shape::Pair => self.pair(account, &mut waits).await,
                Shape::Call => self.call(account, &mut waits).await,
            }
            if begun < warm {
                waits.clear();
            } else {
                done += 1;
            }
        }
        (done, waits)
    }

    fn pick(&mut self) -> usize {
        let (number, of) = self.turn;
        let each = (self.accounts.len() / of) as u64;
        if self.hot { 0 } else { number + of * usize::try_from(self.world.entropy.below(each)).unwrap_or(0) }
    }

    async fn pair(&mut self, account: usize, waits: &mut Vec<u32>) {
        self.submit(account, waits, |actor, _| {
            let f = &mut actor.figures;
            f.last_call = f.last_call.next();
            f.held += Micros(100);
            let hold = Hold { call: f.last_call, leg: LegSide::B, step: 0, amount: Micros(100) };
            bare(actor.key, f, Change::HoldPlaced(hold))
        })
        .await;
        self.submit(account, waits, |actor, world| {
            let f = &mut actor.figures;
            f.held -= Micros(100);
            f.total -= Micros(60);
            let transfer = Transfer {
                id: {
                    let at = world.now();
                    TransferId::generate(&mut world.entropy, at)
                },
                kind: LedgerKind::Adjustment,
                debit: LedgerAccount::Customer,
                credit: LedgerAccount::Revenue,
                amount: Micros(60),
                call: None,
                carrier_cost: None,
                loss: Micros(0),
                key: None,
                balance_after: f.total,
                description: "call".to_owned(),
            };
            bare(actor.key, f, Change::Posted(Box::new(transfer)))
        })
        .await;
    }

    async fn call(&mut self, account: usize, waits: &mut Vec<u32>) {
        let mut call = None;
        self.submit(account, waits, |actor, world| {
            let (started, entry) = actor.start(world, 100);
            call = Some(started);
            entry
        })
        .await;
        let mut call = call.expect("it was started");
        self.submit(account, waits, |actor, world| actor.renew(world, &mut call, 1)).await;
        self.submit(account, waits, |actor, world| actor.settle(world, &call, 60)).await;
    }

    /// Decides as an actor does, hands over, waits.
    async fn submit(
        &mut self,
        account: usize,
        waits: &mut Vec<u32>,
        decide: impl FnOnce(&mut Actor, &mut World) -> Entry,
    ) {
        let (done, answer) = oneshot::channel::<Outcome>();
        let begun = Instant::now();
        {
            let mut actor = self.accounts[account].lock().expect("not poisoned");
            let entry = decide(&mut actor, &mut self.world);
            self.journal.submit(entry, Box::new(move |outcome| drop(done.send(outcome)))).expect("the queue has room");
        }
        answer.await.expect("an answer").expect("it is written");
        waits.push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
}

/// An entry of the ledger alone: nobody is told of it.
fn bare(account: AccountKey, figures: &mut AccountFigures, change: Change) -> Entry {
    figures.seq = figures.seq.next();
    Entry { account, at: START, figures: *figures, changes: vec![change], events: Vec::new() }
}

/// Processor time of this process so far, in microseconds; clock ticks are 10 ms.
fn cpu_us() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or("");
    let ticks = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() * 10_000.0
}
