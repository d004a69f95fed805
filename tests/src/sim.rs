//! The simulator: a whole world on one thread in virtual time, out of one number. Phones and carriers talk over a bad network
//! with the real SIP core and the real actors on a simulated disk; the process dies and comes back; and after each event the
//! invariants are checked against what is stored and what was seen on the wire. The same seed gives the same trace.
//!
//! What it replaces: sockets, the database, the clocks, randomness. What it runs: `sip::core`, the actors with their
//! supervisors, the journal's rules, recovery. What a seed chooses stands in `plan.rs`.

pub mod admission;
pub mod checker;
pub mod history;
pub mod manner;
pub mod mischief;
pub mod needless;
pub mod network;
pub mod plan;
pub mod process;
pub mod provision;
pub mod redial;
pub mod ringing;
pub mod sessions;
pub mod streams;
pub mod tally;
pub mod tap;
pub mod tariff;
pub mod trace;
pub mod wall;
pub mod world;

use actors::ActorsConfig;
use checker::{Checker, NO_ACK, Restart};
use futures_util::FutureExt;
use needless::Whom;
use plan::{Act, BEGIN, Crash, Limits, Plan, Size};
use process::{End, Log};
use schema::entropy::Entropy;
use schema::id::{AccountKey, TrunkId};
use schema::pii::Pii;
use schema::time::{BootId, Mono};
use schema::wrong::{self, Wrong};
use sip::demo::phone::{PhoneCall, PhoneCommand};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Once;
use std::time::Duration;
use storage::memory::{MemFaults, Unsynced};
use storage::{JournalOptions, MemDisk};
use tally::Tally;
use trace::Trace;
use world::World;

/// What became of a world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The number it was made from.
    pub seed: u64,
    /// The hash of all that happened, in order.
    pub trace: u64,
    /// Broken invariants; none of a good program.
    pub violations: Vec<String>,
    /// What happened in it.
    pub tally: Tally,
}

/// A world under way.
struct Simulation {
    /// The world's time; within a process its clock says the same.
    now: Mono,
    end: Mono,
    acts: VecDeque<(Mono, Act)>,
    world: World,
    disk: MemDisk,
    sync: Duration,
    limits: Limits,
    /// Reads of the next process that fail.
    failing_reads: u32,
    accounts: Vec<AccountKey>,
    trunks: Vec<TrunkId>,
    checker: Checker,
    log: Log,
    actors: ActorsConfig,
    journal: JournalOptions,
    /// For each process.
    entropy: Entropy,
    /// For the order of its tasks.
    schedule: Entropy,
    /// The machine's boot, and when it was.
    boot: (BootId, Mono),
}

/// Runs the world of a seed. `print`: what happens is shown on standard output.
#[must_use]
pub fn run(seed: u64, size: Size, print: bool) -> Report {
    run_plan(seed, Plan::of_seed(seed, size), print)
}

/// Runs the world of a seed with a wrong version of the program.
#[must_use]
pub fn run_wrong(wrong: Wrong, seed: u64, size: Size, print: bool) -> Report {
    wrong::choose(Some(wrong));
    let report = run(seed, size, print);
    wrong::choose(None);
    report
}

/// Runs a plan; the seed chooses what the plan does not say.
///
/// # Panics
/// When the system has no runtime for it.
#[must_use]
pub fn run_plan(seed: u64, plan: Plan, print: bool) -> Report {
    note_panics();
    PANICS.take();
    let mut sim = Simulation::new(seed, plan, print);
    loop {
        match runtime().block_on(process::live(&mut sim)) {
            End::Over => break,
            End::Crashed(crash) => sim.die(crash),
            End::Drained => sim.restart(),
        }
    }
    for text in PANICS.take() {
        let injected = text.contains(INJECTED);
        for (what, kind) in PANICKED {
            sim.world.tally.add_if(what, injected && text.contains(kind));
        }
        if !injected {
            sim.checker.broken(format!("panic: {text}"));
        }
    }
    let violations = sim.checker.violations().to_vec();
    Report { seed, trace: sim.world.trace.hash(), violations, tally: sim.world.tally }
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().expect("a runtime without threads and sockets")
}

impl Simulation {
    fn new(seed: u64, plan: Plan, print: bool) -> Self {
        // Another stream than the plan's.
        let mut entropy = Entropy::from_number(seed ^ 0x5eed_0000_0000_0000);
        let disk = MemDisk::new();
        let provisioned = runtime().block_on(provision::provision(&disk, &plan, &mut entropy));
        let world = World::new(&plan, &mut entropy, Trace::new(print));
        let mut schedule = entropy.fork();
        let small = schedule.below(6) == 0;
        let journal = JournalOptions {
            queue: if small { 2 } else { 1_024 },
            batch: if small { 1 } else { 64 },
            ..JournalOptions::default()
        };
        let numbers = provisioned.0.iter().enumerate().map(|(n, key)| (*key, provision::caller_id(n))).collect();
        let mut checker = Checker::default();
        checker.numbers = numbers;
        checker.legs_left_behind = plan.mischiefs.values().any(|mischief| mischief.leaves_calls_behind());
        let ending = plan.manners.iter().filter(|(_, manner)| manner.ends_call()).map(|(number, _)| number);
        checker.misbehaving = plan.mischiefs.keys().chain(ending).cloned().collect();
        checker.sessions.large_over_tcp = plan.large_over_tcp;
        checker.needless.has_room = !small && plan.has_room();
        checker.needless.timed = plan.manners.iter().filter(|(_, m)| m.is_timed()).map(|(n, _)| n.clone()).collect();
        let customers = provisioned.0.iter().zip(&plan.accounts);
        checker.needless.customers = customers.map(|(key, account)| (*key, account.into())).collect();
        let sim = Self {
            now: BEGIN,
            end: plan.end,
            acts: plan.acts,
            world,
            disk,
            sync: plan.sync,
            limits: plan.limits,
            failing_reads: 0,
            accounts: provisioned.0,
            trunks: provisioned.1,
            checker,
            log: Log::default(),
            actors: ActorsConfig { max_live_calls: if small { 3 } else { 100 }, ..ActorsConfig::default() },
            journal,
            entropy,
            schedule,
            boot: (BootId(1), Mono(0)),
        };
        sim.set_usual_faults();
        sim
    }

    fn set_usual_faults(&self) {
        self.disk.set_faults(MemFaults { sync: self.sync, ..MemFaults::default() });
    }

    fn next_act(&self) -> Option<Mono> {
        self.acts.front().map(|(at, _)| *at)
    }

    fn due(&mut self, now: Mono) -> Option<Act> {
        self.next_act().filter(|at| *at <= now)?;
        self.acts.pop_front().map(|(_, act)| act)
    }

    /// What an act may do to calls that nobody wants to end.
    fn note_trouble(&mut self, act: &Act) {
        let (now, needless) = (self.now, &mut self.checker.needless);
        let far_end = |phone: Option<usize>, number| match phone {
            Some(phone) => Whom::Account(self.accounts[phone]),
            None => Whom::Carrier(number),
        };
        match *act {
            Act::PanicAccount { account, .. } | Act::Poison { account, .. } => {
                needless.arm(Whom::Account(self.accounts[account]))
            }
            Act::PanicTrunk(_) | Act::PanicSupervisor { .. } => needless.arm(Whom::All),
            Act::CutOff { phone, carrier, lasts, .. } => needless.unreachable(far_end(phone, carrier), now, lasts),
            Act::Reset { phone, carrier } => needless.unreachable(far_end(phone, carrier), now, Duration::ZERO),
            Act::Request { account, .. } => needless.requested(now, self.accounts[account]),
            Act::HangUpAll => self.accounts.iter().for_each(|account| needless.requested(now, *account)),
            Act::Drain | Act::Crash(_) => needless.ends(now),
            _ => {}
        }
    }

    /// What is done to the world outside the server.
    fn act_outside(&mut self, act: Act) {
        let now = self.now;
        match act {
            Act::Call { phone, call, number } => {
                self.world.command(now, phone, PhoneCommand::Call { call: PhoneCall(call), number: Pii::new(number) });
            }
            Act::Change { phone, call } => {
                self.world.command(now, phone, PhoneCommand::Change { call: PhoneCall(call) });
            }
            Act::HangUp { phone, call } => {
                self.world.command(now, phone, PhoneCommand::HangUp { call: PhoneCall(call) });
            }
            Act::CutOff { phone, carrier, cut, lasts } => {
                self.world.tally.add("cut off");
                self.checker.legs_left_behind |= lasts >= NO_ACK;
                let is_silent = self.world.cut_off(phone, carrier, cut, now + lasts);
                if phone.is_none() {
                    self.checker.cuts_off(carrier, now, now + lasts, is_silent);
                }
            }
            Act::Reset { phone, carrier } => {
                let reset = self.world.reset(now, phone, carrier);
                self.world.tally.add_if("connections reset", reset);
                if reset {
                    self.checker.legs_left_behind = true;
                    self.checker.resets.push(now);
                }
            }
            Act::SetClock(by_us) => {
                self.world.tally.add("settings of the clock");
                self.checker.wall.jump(now, by_us);
            }
            Act::Heal => {
                self.set_usual_faults();
                self.world.heal(now);
            }
            _ => {}
        }
    }

    /// The process is gone; the world goes on until another one starts.
    fn die(&mut self, crash: Crash) {
        self.disk.crash(crash.unsynced);
        self.set_usual_faults();
        self.world.server_gone(self.now);
        self.checker.ended(self.now);
        self.world.tally.add("crashes");
        // What was told is told, whoever died since.
        let until = self.now + crash.down;
        self.pass(until);
        self.world.tally.add_if("boots", crash.reboot);
        self.begin_again(until, if crash.reboot { Restart::Booted } else { Restart::Crashed });
        self.checker.reads_failed |= crash.failing_reads > 0;
        self.failing_reads = crash.failing_reads;
        if crash.reboot {
            self.boot = (BootId(self.boot.0.0 + 1), until);
        }
    }

    /// The process has ended as it was told to; another one starts at once.
    fn restart(&mut self) {
        self.disk.crash(Unsynced::Lost);
        self.set_usual_faults();
        self.world.server_gone(self.now);
        self.checker.ended(self.now);
        self.world.tally.add("drains");
        self.pass(self.now + Duration::from_millis(20));
        self.begin_again(self.now, Restart::Drained);
        self.failing_reads = 0;
    }

    fn begin_again(&mut self, now: Mono, how: Restart) {
        let restarted = self.checker.restarted(now, how, &self.disk, &mut self.world.trace);
        restarted.now_or_never().expect("memory is read without waiting");
    }

    /// The world without a server, until then.
    fn pass(&mut self, until: Mono) {
        loop {
            let next = self.world.next().into_iter().chain(self.next_act()).min().filter(|at| *at <= until);
            let Some(next) = next else { break };
            self.now = self.now.max(next);
            // Nobody is there to receive.
            drop(self.world.advance(self.now));
            while let Some(act) = self.due(self.now) {
                self.world.trace.note(self.now, &format!("act {act:?}"));
                self.note_trouble(&act);
                self.act_outside(act);
            }
        }
        self.now = until;
    }
}

/// How panics are counted, by what they say.
const PANICKED: [(&str, &str); 5] = [
    ("panics", INJECTED),
    ("panics before a decision", "Received"),
    ("panics behind a decision", "Decided"),
    ("panics behind all", "Done"),
    ("panics of supervisors and trunks", "into"),
];

/// What a test's fault says.
const INJECTED: &str = "a fault was injected";

/// Panics of this world so far.
fn panics() -> usize {
    PANICS.with_borrow(Vec::len)
}

thread_local! {
    /// Panics on this thread: a world has one.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Has panics of worlds noted; those that a plan injects are not shown.
fn note_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let payload = panic.payload();
            let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            let injected = text.contains(INJECTED);
            PANICS.with_borrow_mut(|panics| panics.push(format!("{text} at {place}")));
            if !injected {
                before(panic);
            }
        }));
    });
}
