//! Random journals against a simple model: what each entry's outcome must be, and what the rows must say afterwards.

use crate::postgres::Cluster;
use crate::samples::*;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use schema::call::LiveCall;
use schema::id::*;
use schema::journal::{Change, Entry, Outcome, Rejection};
use schema::money::Micros;
use std::collections::BTreeMap;
use std::sync::Arc;
use storage::*;

/// What an account actor, right or wrong, submits.
#[derive(Debug, Clone)]
enum Step {
    Start {
        hold: i64,
    },
    Renew {
        pick: usize,
        hold: i64,
    },
    Settle {
        pick: usize,
        charge: i64,
    },
    Refuse,
    Credit {
        key: u8,
        request: u8,
        amount: i64,
    },
    /// Everything that can be wrong.
    Wrong(Fault),
    /// Whoever submitted waits for all outcomes, and reloads what was rejected.
    Wait,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    SeqBehind,
    SeqAhead,
    EndsUnknownCall,
    ChangesUnknownCall,
    StartsLiveCall,
    HoldsTwice,
    HeldAboveTotal,
    NegativeHold,
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let fault = prop_oneof![
        Just(Fault::SeqBehind),
        Just(Fault::SeqAhead),
        Just(Fault::EndsUnknownCall),
        Just(Fault::ChangesUnknownCall),
        Just(Fault::StartsLiveCall),
        Just(Fault::HoldsTwice),
        Just(Fault::HeldAboveTotal),
        Just(Fault::NegativeHold),
    ];
    let step = prop_oneof![
        5 => (0..400_i64).prop_map(|hold| Step::Start { hold }),
        3 => (0..8_usize, 0..100_i64).prop_map(|(pick, hold)| Step::Renew { pick, hold }),
        5 => (0..8_usize, 0..100_i64).prop_map(|(pick, charge)| Step::Settle { pick, charge }),
        1 => Just(Step::Refuse),
        3 => (0..6_u8, 0..2_u8, 0..300_i64).prop_map(|(key, request, amount)| Step::Credit { key, request, amount }),
        2 => fault.prop_map(Step::Wrong),
        4 => Just(Step::Wait),
    ];
    (0..3_usize, step)
}

/// One account: what its actor believes, and what must be stored.
#[derive(Clone)]
struct Believed {
    actor: Actor,
    live: BTreeMap<CallNo, LiveCall>,
    keys: BTreeMap<u8, (TransferId, u8)>,
    ended: Vec<CallNo>,
    entries: i64,
}

struct Side {
    believed: Believed,
    stored: Believed,
    /// Nothing more of it is written until it reloads.
    broken: bool,
}

/// Plays steps against a store and compares.
async fn play(store: Store, steps: Vec<(usize, Step)>) {
    let mut world = World::new(store.clone(), 77).await;
    let mut sides = Vec::new();
    for name in ["ann", "bob", "carol"] {
        let key = world.account(name, 1_000).await;
        let actor = world.actor(key).await;
        let believed = Believed { actor, live: BTreeMap::new(), keys: BTreeMap::new(), ended: Vec::new(), entries: 1 };
        sides.push(Side { stored: believed.clone(), believed, broken: false });
    }
    // Told first of each group, in either lane, and only when the group is handed over: no rejection in it is told before.
    let (dora, erin) = (world.account("dora", 1_000).await, world.account("erin", 1_000).await);
    assert_ne!(dora.0 % 2, erin.0 % 2);
    let (mut dora, mut erin) = (world.actor(dora).await, world.actor(erin).await);
    let mut guards = |world: &mut World| vec![dora.refuse(world), erin.refuse(world)];
    let journal = Journal::start(&store, JournalOptions { queue: 1_000, batch: 7, ..Default::default() });
    let (mut entries, mut expected) = (guards(&mut world), vec![Ok(()); 2]);
    for (who, step) in steps.into_iter().chain([(0, Step::Wait)]) {
        if matches!(step, Step::Wait) {
            let group = std::mem::replace(&mut entries, guards(&mut world));
            let outcomes = submit(&journal, group).await;
            assert_eq!(outcomes, std::mem::replace(&mut expected, vec![Ok(()); 2]));
            for side in &mut sides {
                side.believed = side.stored.clone();
                side.broken = false;
            }
            continue;
        }
        let side = &mut sides[who];
        if let Some((entry, outcome)) = make(&mut world, side, step) {
            expected.push(side.settle_outcome(outcome));
            entries.push(entry);
        }
    }
    for side in &sides {
        compare(&store, &side.stored).await;
    }
    crate::audited(&store).await;
}

impl Side {
    /// What the store must say: after a rejection everything else of the account is fenced.
    fn settle_outcome(&mut self, outcome: Outcome) -> Outcome {
        let outcome = if self.broken { Err(Rejection::Fenced) } else { outcome };
        match outcome {
            Ok(()) => {
                self.believed.entries += 1;
                self.stored = self.believed.clone();
            }
            Err(_) => self.broken = true,
        }
        outcome
    }
}

/// The entry of a step, with the outcome it must have on its own; `None` when the step makes no sense now.
fn make(world: &mut World, side: &mut Side, step: Step) -> Option<(Entry, Outcome)> {
    let taken = side.stored.keys.clone();
    let me = &mut side.believed;
    let pick = |me: &Believed, pick: usize| me.live.keys().copied().nth(pick % me.live.len().max(1));
    match step {
        Step::Start { hold } => {
            let fits = me.actor.figures.available() >= Micros(hold);
            let (call, entry) = me.actor.start(world, hold);
            me.live.insert(call.no, call);
            Some((entry, if fits { Ok(()) } else { Err(Rejection::Failed) }))
        }
        Step::Renew { pick: n, hold } => {
            let no = pick(me, n)?;
            let fits = me.actor.figures.available() >= Micros(hold);
            let mut call = me.live[&no].clone();
            let entry = me.actor.renew(world, &mut call, hold);
            me.live.insert(no, call);
            Some((entry, if fits { Ok(()) } else { Err(Rejection::Failed) }))
        }
        Step::Settle { pick: n, charge } => {
            let no = pick(me, n)?;
            let call = me.live.remove(&no)?;
            let charge = charge.min(call.held.0);
            let entry = me.actor.settle(world, &call, charge);
            me.ended.push(no);
            Some((entry, Ok(())))
        }
        Step::Refuse => {
            let entry = me.actor.refuse(world);
            me.ended.push(me.actor.figures.last_call);
            Some((entry, Ok(())))
        }
        Step::Credit { key, request, amount } => {
            let (id, entry) = me.actor.credit(world, amount, &format!("key-{key}"), [request; 32]);
            if let Some(&(transfer, stored)) = taken.get(&key) {
                let same_request = stored == request;
                return Some((entry, Err(Rejection::DuplicateKey { transfer, same_request })));
            }
            me.keys.insert(key, (id, request));
            Some((entry, Ok(())))
        }
        Step::Wrong(fault) => wrong(world, me, fault),
        Step::Wait => None,
    }
}

fn wrong(world: &mut World, me: &mut Believed, fault: Fault) -> Option<(Entry, Outcome)> {
    let at = world.now();
    let failed = Err(Rejection::Failed);
    let first = me.live.values().next().cloned();
    match fault {
        Fault::SeqBehind => {
            me.actor.figures.seq = Seq(me.actor.figures.seq.0 - 1);
            Some((me.actor.entry(at, Vec::new()), Err(Rejection::Fenced)))
        }
        Fault::SeqAhead => {
            me.actor.figures.seq = me.actor.figures.seq.next();
            Some((me.actor.entry(at, Vec::new()), Err(Rejection::Fenced)))
        }
        Fault::EndsUnknownCall => {
            let call = world.call(CallNo(900), 0);
            Some((me.actor.settle(world, &call, 0), failed))
        }
        Fault::ChangesUnknownCall => {
            let call = world.call(CallNo(900), 0);
            Some((me.actor.entry(at, vec![Change::CallUpdated(Arc::new(call))]), failed))
        }
        Fault::StartsLiveCall => {
            let call = first?;
            let hold = first_hold(&call);
            Some((me.actor.entry(at, vec![Change::CallStarted(Arc::new(call)), Change::HoldPlaced(hold)]), failed))
        }
        Fault::HoldsTwice => {
            let call = first?;
            let again =
                schema::ledger::Hold { call: call.no, leg: schema::call::LegSide::B, step: 0, amount: Micros(0) };
            Some((me.actor.entry(at, vec![Change::HoldPlaced(again)]), failed))
        }
        Fault::HeldAboveTotal => {
            me.actor.figures.held = me.actor.figures.total + Micros(1);
            Some((me.actor.entry(at, Vec::new()), failed))
        }
        Fault::NegativeHold => {
            let hold =
                schema::ledger::Hold { call: CallNo(901), leg: schema::call::LegSide::A, step: 0, amount: Micros(-1) };
            Some((me.actor.entry(at, vec![Change::HoldPlaced(hold)]), failed))
        }
    }
}

async fn compare(store: &Store, stored: &Believed) {
    let key = stored.actor.key;
    let loaded = store.account(key).await.expect("readable").expect("there");
    assert_eq!(loaded.figures, stored.actor.figures);
    assert_eq!(loaded.live_calls, stored.live.values().cloned().collect::<Vec<_>>());
    let history = store.calls_page(key, None, 1_000, &CallFilter::default()).await.expect("readable");
    let mut ended: Vec<_> = history.iter().map(|cdr| cdr.no).collect();
    ended.reverse();
    let mut expected = stored.ended.clone();
    expected.sort_unstable();
    assert_eq!(ended, expected);
    for (name, (id, request)) in &stored.keys {
        let found = store.transfer_by_key(key, &format!("key-{name}")).await.expect("readable").expect("there");
        assert_eq!((found.transfer.id, found.transfer.key.expect("a key").request), (*id, [*request; 32]));
    }
    let events = store.events_after(key, Default::default(), 1_000).await.expect("readable");
    let mut seqs: Vec<_> = events.iter().map(|e| e.cursor.seq.0).collect();
    seqs.dedup();
    assert_eq!(seqs, (1..=stored.entries).collect::<Vec<_>>());
}

/// Cases drawn one by one, for a store that is too slow to be opened hundreds of times.
fn steps(seed: u8, cases: u32) -> impl Iterator<Item = Vec<(usize, Step)>> {
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]));
    let strategy = prop::collection::vec(step(), 1..60);
    (0..cases).map(move |_| strategy.new_tree(&mut runner).expect("a case").current())
}

#[test]
fn random_journals_on_memory_do_what_the_model_says() {
    let config = Config { cases: 150, failure_persistence: None, ..Config::default() };
    proptest!(config, |(steps in prop::collection::vec(step(), 1..60))| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
        runtime.block_on(play(Store::memory(&MemDisk::new()), steps));
    });
}

#[test]
fn random_journals_on_sqlite_do_what_the_model_says() {
    let config = Config { cases: 12, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    proptest!(config, |(steps in prop::collection::vec(step(), 1..60))| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let folder = tempfile::tempdir().expect("a folder");
            let store = crate::sqlite(folder.path()).await;
            play(store.clone(), steps).await;
            store.close().await;
        });
    });
}

pub async fn on_postgres(cluster: &Cluster) {
    for (case, steps) in (0..).zip(steps(42, 8)) {
        println!("model {case}: {steps:?}");
        let store = crate::postgres(cluster, &format!("model_{case}")).await;
        play(store.clone(), steps).await;
        store.close().await;
    }
}
