//! Thousands of panics while hundreds of calls are up: each costs at most one call, and no money.

use super::MOBILE;
use super::world::{Carrier, World, call_id};
use crate::faults::{Fault, FaultPoint};
use crate::poison::{SET_ASIDE_FOR, Subject};
use crate::routing::tests::trunk;
use schema::entropy::Entropy;
use schema::leg::{HangupCause, LegCommand};
use schema::money::Micros;
use schema::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const ACCOUNTS: u128 = 250;
const OPENING: i64 = 50_000_000;
const TICK_MS: u64 = 100;

/// A call that the storm placed.
struct Placed {
    account: usize,
    ends_at: u64,
    bye_at: Option<Timestamp>,
}

struct Storm {
    world: World,
    entropy: Entropy,
    calls: BTreeMap<u32, Placed>,
    up: BTreeSet<u32>,
    tick: u64,
    /// Calls that were refused for no reason of their account's, or that we ended.
    lost: BTreeSet<u32>,
    /// Real time from a panic of an account until it answers.
    answered_after: Vec<Duration>,
    supervisors_struck: u64,
    calls_struck: usize,
}

/// Whom the panics strike.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strikes {
    /// Everyone: accounts, calls, trunks, supervisors.
    All,
    /// Everyone but calls.
    NotCalls,
}

impl Storm {
    async fn start(seed: u64) -> Self {
        // What is expected is not worth a backtrace each; what is not stays visible.
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !info.payload_as_str().is_some_and(|text| text.contains("a fault was injected")) {
                usual(info);
            }
        }));
        Self {
            world: World::with_accounts(ACCOUNTS, OPENING, Carrier::Varied).await,
            entropy: Entropy::from_number(seed),
            calls: BTreeMap::new(),
            up: BTreeSet::new(),
            tick: 0,
            lost: BTreeSet::new(),
            answered_after: Vec::new(),
            supervisors_struck: 0,
            calls_struck: 0,
        }
    }

    fn below(&mut self, n: u64) -> usize {
        usize::try_from(self.entropy.below(n)).expect("small")
    }

    fn place(&mut self) {
        let call = u32::try_from(self.calls.len() + 1).expect("few");
        let (account, lasts) = (self.below(ACCOUNTS as u64), 100 + self.entropy.below(500));
        self.world.invite_of(self.world.accounts[account], call, MOBILE);
        self.calls.insert(call, Placed { account, ends_at: self.tick + lasts, bye_at: None });
        self.up.insert(call);
    }

    fn end(&mut self, due: impl Fn(&Placed) -> bool) {
        let over: Vec<u32> = self.up.iter().filter(|call| due(&self.calls[call])).copied().collect();
        for call in over {
            self.world.bye_from_caller(call);
            let at = self.world.now().wall;
            self.up.remove(&call);
            self.calls.get_mut(&call).expect("placed").bye_at = Some(at);
        }
    }

    fn fault(&mut self) -> Fault {
        let point = [FaultPoint::Received, FaultPoint::Decided, FaultPoint::Done][self.below(3)];
        Fault { point, kind: None, times: 1 }
    }

    async fn strike(&mut self, strikes: Strikes) {
        let account = self.below(ACCOUNTS as u64);
        let key = self.world.accounts[account];
        let actors = self.world.actors.clone();
        let call = (!self.up.is_empty()).then(|| self.below(self.up.len() as u64));
        let call = call.and_then(|at| self.up.iter().nth(at)).map(|call| call_id(*call));
        match (self.below(100), call) {
            (0..2, _) => {
                self.supervisors_struck += 1;
                if self.below(4) == 0 { actors.panic_trunks_supervisor() } else { actors.panic_supervisor_of(key) }
            }
            (2..7, _) => actors.panic_trunk(trunk(1, 1).id),
            (7..32, Some(call)) if strikes == Strikes::All => {
                self.calls_struck += 1;
                let fault = self.fault();
                actors.arm(Subject::Call(call), fault);
                self.world.actors.on_leg_event(schema::leg::LegEventAt {
                    event: schema::leg::LegEvent::Checkpointed {
                        leg: schema::leg::LegId::a(call),
                        checkpoint: super::world::checkpoint(),
                    },
                    at: self.world.now(),
                });
            }
            (32..52, Some(call)) if strikes == Strikes::All => {
                self.calls_struck += 1;
                actors.panic_call(call);
            }
            (52..65, _) => {
                self.world.actors.view(key).await.expect("every account answers");
                #[expect(clippy::disallowed_methods, reason = "how long it takes, for whoever reads the output")]
                let struck = std::time::Instant::now();
                actors.panic_account(key);
                self.world.actors.view(key).await.expect("every account answers");
                self.answered_after.push(struck.elapsed());
            }
            _ => {
                let fault = self.fault();
                actors.arm(Subject::Account(key), fault);
                // Whatever comes next strikes; so that something does, a question.
                tokio::spawn(async move { actors.view(key).await });
            }
        }
    }

    fn note_losses(&mut self) {
        for command in self.world.commands() {
            let (LegCommand::Reject { leg, status: 500.., .. }
            | LegCommand::HangUp { leg, cause: HangupCause::ServiceFailure }) = command
            else {
                continue;
            };
            self.lost.insert(u32::try_from(leg.call.0.as_u128()).expect("placed here"));
        }
    }

    async fn blow(&mut self, panics: u64, strikes: Strikes) {
        while self.panics() < panics {
            self.tick += 1;
            self.place();
            let tick = self.tick;
            self.end(|call| call.ends_at <= tick);
            self.strike(strikes).await;
            self.world.pass(TICK_MS).await;
            self.note_losses();
        }
    }

    fn panics(&self) -> u64 {
        self.world.actors.counts().panics + self.supervisors_struck
    }

    /// After it: everybody hangs up, and all that was set aside is tried again.
    async fn calm(&mut self) {
        self.world.actors.disarm();
        self.end(|_| true);
        self.world.pass(60_000).await;
        self.world.pass(u64::try_from(SET_ASIDE_FOR.as_millis()).expect("short") + 60_000).await;
        self.note_losses();
    }

    /// Gives the calls that were lost: refused, or ended by us. Every other was billed to its BYE, and no account lost or
    /// kept money.
    async fn count_the_dead(&self) -> usize {
        let (lost, mut charged) = (&self.lost, BTreeMap::<usize, Micros>::new());
        for (call, placed) in &self.calls {
            let Some((_, cdr)) = self.world.store.call(call_id(*call)).await.expect("read") else {
                assert!(lost.contains(call), "call {call} is in no history and was not lost");
                continue;
            };
            *charged.entry(placed.account).or_insert(Micros::ZERO) += cdr.charged;
            assert_eq!(cdr.charged, Micros(10_000 * i64::try_from(cdr.call.billed_seconds).expect("short")));
            if !lost.contains(call) {
                assert_eq!(cdr.call.ended_at, placed.bye_at, "call {call}: {cdr:?}");
            }
        }
        for (at, key) in self.world.accounts.iter().enumerate() {
            let view = self.world.actors.view(*key).await.expect("every account answers");
            assert_eq!((view.balance.reserved, view.live_calls.len()), (Micros(0), 0), "no hold is left");
            let spent = charged.get(&at).copied().unwrap_or(Micros::ZERO);
            assert_eq!(view.balance.total, Micros(OPENING) - spent, "what was charged, and nothing else");
        }
        let counts = self.world.actors.counts();
        assert_eq!((counts.live_calls, counts.unsettled_calls, counts.set_aside), (0, 0, 0));
        assert_eq!((self.world.channels(1), self.world.channels(2)), (0, 0));
        self.world.audit().await;
        lost.len()
    }

    fn report(&mut self, lost: usize) {
        self.answered_after.sort_unstable();
        let part =
            |of: usize| self.answered_after.get(self.answered_after.len() * of / 100).copied().unwrap_or_default();
        println!(
            "{} panics, {} of them supervisors; {} calls, {} struck, {lost} lost; an account answers after a panic: \
             p50 {:?}, p99 {:?}",
            self.panics(),
            self.supervisors_struck,
            self.calls.len(),
            self.calls_struck,
            part(50),
            part(99),
        );
    }
}

#[tokio::test(start_paused = true)]
async fn five_thousand_panics_under_load_cost_at_most_a_call_each_and_no_money() {
    let mut storm = Storm::start(1).await;
    storm.blow(5_000, Strikes::All).await;
    assert!(storm.up.len() > 200, "{} calls are up", storm.up.len());
    storm.calm().await;
    let lost = storm.count_the_dead().await;
    storm.report(lost);
    assert!(lost > 500 && lost <= storm.calls_struck, "{lost} calls lost, {} struck", storm.calls_struck);
}

#[tokio::test(start_paused = true)]
async fn panics_of_accounts_trunks_and_supervisors_cost_no_call() {
    let mut storm = Storm::start(2).await;
    storm.blow(1_000, Strikes::NotCalls).await;
    storm.calm().await;
    let lost = storm.count_the_dead().await;
    storm.report(lost);
    assert_eq!(lost, 0);
}
