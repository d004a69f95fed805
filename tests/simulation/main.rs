//! Simulated worlds: see `src/sim.rs`.

use schema::money::Micros;
use std::time::Duration;
use storage::memory::Unsynced;
use tests::sim::plan::{Act, Crash, Plan};
use tests::sim::{self, Report};

fn assert_well(reports: &[Report]) {
    let bad: Vec<_> = reports.iter().filter(|report| !report.violations.is_empty()).collect();
    assert!(bad.is_empty(), "cargo run -p tests --bin sim -- --seeds SEED --trace\n{bad:#?}");
}

#[test]
fn twenty_worlds_hold_every_invariant() {
    let reports: Vec<_> = (0..20).map(|seed| sim::run(seed, false)).collect();
    assert_well(&reports);
    // What they are worth: everything that matters happened in them.
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    let happened = [
        ("charged", sum(|r| r.tally.charged)),
        ("refused", sum(|r| r.tally.refused)),
        ("rerouted", sum(|r| r.tally.rerouted)),
        ("cut", sum(|r| r.tally.cut)),
        ("resumed", sum(|r| r.tally.resumed)),
        ("crashes", sum(|r| r.crashes)),
        ("panics", sum(|r| r.panics)),
    ];
    assert!(happened.iter().all(|(_, count)| *count > 0), "{happened:?}");
}

#[test]
fn worlds_that_found_bugs_stay_well() {
    let seeds = [
        11, 28, 59, 68, 110, 123, 219, 224, 282, 293, 321, 653, 726, 1_219, 1_463, 1_488, 1_677, 1_924, 1_941, 2_668,
        2_910, 3_260, 3_360,
    ];
    assert_well(&seeds.map(|seed| sim::run(seed, false)));
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [3, 28, 110, 293] {
        let (one, other) = (sim::run(seed, false), sim::run(seed, false));
        assert_eq!(one, other, "seed {seed}");
    }
    assert_ne!(sim::run(1, false).trace, sim::run(2, false).trace);
}

/// A call that is answered and hung up after 3 seconds; the process dies after so many datagrams and commands.
fn call_with_crash(number: &str, hang_up: bool, crash: Crash) -> Plan {
    let call = Act::Call { phone: 0, call: 0, number: number.into() };
    let mut acts = vec![(Duration::from_millis(900), Act::Crash(crash)), (Duration::from_secs(1), call)];
    if hang_up {
        acts.push((Duration::from_secs(4), Act::HangUp { phone: 0, call: 0 }));
    }
    Plan::of_acts(Micros(100_000), Duration::from_millis(4), &acts)
}

#[test]
fn a_crash_at_any_point_of_a_call_breaks_nothing() {
    let mut reports = Vec::new();
    // Answered and hung up by the caller; hung up by the callee after 5 s; cut when 0.10 are used up after 10 s.
    for (number, hang_up) in [("+447700000000", true), ("+447700000080", false), ("+447700000001", false)] {
        for after in 0..22 {
            for unsynced in [Unsynced::Lost, Unsynced::Kept] {
                // Each number orders the tasks another way.
                for order in 0..3 {
                    let (within, down) = (Duration::from_secs(20), Duration::from_millis([20, 3_000][order % 2]));
                    let crash = Crash { after, within, down, unsynced, reboot: order == 2, failing_reads: 0 };
                    reports.push(sim::run_plan(order as u64, call_with_crash(number, hang_up, crash), false));
                }
            }
        }
    }
    // In each millisecond of its beginning.
    for ms in 100..150 {
        for unsynced in [Unsynced::Lost, Unsynced::Kept] {
            let (within, down) = (Duration::from_millis(ms), Duration::from_millis(20));
            let crash = Crash { after: u64::MAX, within, down, unsynced, reboot: false, failing_reads: 0 };
            reports.push(sim::run_plan(ms, call_with_crash("+447700000001", false, crash), false));
        }
    }
    assert_well(&reports);
}

#[test]
fn a_disk_that_lies_is_caught() {
    let caught = (0..30).map(Plan::of_seed).enumerate().filter(|(seed, _)| {
        let plan = Plan { lies: true, ..Plan::of_seed(*seed as u64) };
        !sim::run_plan(*seed as u64, plan, false).violations.is_empty()
    });
    assert!(caught.count() >= 5, "what was acknowledged was lost, and nobody noticed");
}
