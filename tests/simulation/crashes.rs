//! A crash at each point of one call.

use super::assert_well_or;
use schema::money::Micros;
use std::time::Duration;
use storage::memory::{Halt, Unsynced};
use tests::sim;
use tests::sim::plan::{Act, Crash, Plan};

/// These plans are written here: no seed makes them.
const AGAIN: &str = "cargo nextest run -p tests crashes";

/// Never, as it stands.
const CRASH: Crash = Crash {
    after: u64::MAX,
    within: Duration::from_secs(20),
    halt: None,
    down: Duration::from_millis(20),
    unsynced: Unsynced::Lost,
    reboot: false,
    failing_reads: 0,
};

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
                    let crash = Crash { after, within, down, unsynced, reboot: order == 2, ..CRASH };
                    reports.push(sim::run_plan(order as u64, call_with_crash(number, hang_up, crash), false));
                }
            }
        }
    }
    // In each millisecond of its beginning.
    for ms in 100..150 {
        for unsynced in [Unsynced::Lost, Unsynced::Kept] {
            let (within, down) = (Duration::from_millis(ms), Duration::from_millis(20));
            let crash = Crash { within, down, unsynced, ..CRASH };
            reports.push(sim::run_plan(ms, call_with_crash("+447700000001", false, crash), false));
        }
    }
    assert_well_or(&reports, AGAIN);
}

#[test]
fn a_crash_before_and_behind_each_durable_step_breaks_nothing() {
    let mut reports = Vec::new();
    for (number, hang_up) in [("+447700000000", true), ("+447700000080", false), ("+447700000001", false)] {
        for batches in 0..7 {
            // Not written, written and nobody told, told.
            for (acknowledged, unsynced) in [(false, Unsynced::Lost), (false, Unsynced::Kept), (true, Unsynced::Lost)] {
                let crash = Crash { halt: Some(Halt { batches, acknowledged, behind: false }), unsynced, ..CRASH };
                reports.push(sim::run_plan(u64::from(batches), call_with_crash(number, hang_up, crash), false));
            }
        }
    }
    assert_well_or(&reports, AGAIN);
    let crashes = |what| reports.iter().map(|report| report.tally.of(what)).sum::<u64>();
    assert!(crashes("crashes in a step of the journal") >= 12 && crashes("crashes behind a step of the journal") >= 6);
}

/// Calls that go other ways: given up while it rings, refused by both carriers, paid further out of a top-up, all over TCP.
fn other_calls(crash: Crash) -> [Plan; 4] {
    let call = |number: &str| (Duration::from_secs(1), Act::Call { phone: 0, call: 0, number: number.into() });
    let hang_up = |ms| (Duration::from_millis(ms), Act::HangUp { phone: 0, call: 0 });
    let money = Act::TopUp { account: 0, amount: Micros(60_000), key: "while it lasts".to_owned() };
    let dies = (Duration::from_millis(900), Act::Crash(crash));
    let plan = |acts: &[_]| Plan::of_acts(Micros(100_000), Duration::from_millis(4), acts);
    let mut over_tcp = plan(&[dies.clone(), call("+447700000000"), hang_up(4_000)]);
    over_tcp.accounts[0].over_tcp = true;
    over_tcp.carriers_over_tcp = [true; 2];
    [
        plan(&[dies.clone(), call("+447700000060"), hang_up(2_500)]),
        plan(&[dies.clone(), call("+447700000070")]),
        plan(&[dies, call("+447700000001"), (Duration::from_secs(5), money)]),
        over_tcp,
    ]
}

#[test]
fn a_crash_at_any_point_of_other_calls_breaks_nothing() {
    let mut reports = Vec::new();
    for unsynced in [Unsynced::Lost, Unsynced::Kept] {
        for after in 0..26 {
            let crash = Crash { after, unsynced, ..CRASH };
            reports.extend(other_calls(crash).map(|plan| sim::run_plan(after, plan, false)));
        }
        for batches in 0..8 {
            let acknowledged = unsynced == Unsynced::Lost && batches % 2 == 0;
            let halt = Some(Halt { batches, acknowledged, behind: false });
            let crash = Crash { halt, unsynced, ..CRASH };
            reports.extend(other_calls(crash).map(|plan| sim::run_plan(u64::from(batches), plan, false)));
        }
    }
    assert_well_or(&reports, AGAIN);
    let happened = |what| reports.iter().map(|report| report.tally.of(what)).sum::<u64>();
    assert!(happened("rerouted") > 0 && happened("cut") > 0 && happened("reconnections") > 0);
}
