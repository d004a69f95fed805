//! Simulated worlds: see `src/sim.rs`.

mod coverage;
mod crashes;
mod wrong;

use tests::sim::plan::Size;
use tests::sim::{self, Report};

/// Small worlds that every run of the tests looks at, besides the ones that are chosen.
const SMALL: u64 = 800;
/// Full ones.
const FULL: u64 = 150;

fn assert_well(reports: &[Report]) {
    assert_well_or(reports, "just sim SEED --trace (of a small world also --small)");
}

/// `again`: how a world is looked at again.
fn assert_well_or(reports: &[Report], again: &str) {
    let bad: Vec<_> = reports.iter().filter(|report| !report.violations.is_empty()).collect();
    assert!(bad.is_empty(), "{again}\n{bad:#?}");
}

/// On two threads: a world stays on its own.
fn worlds(seeds: impl IntoIterator<Item = u64>, size: Size) -> Vec<Report> {
    let (one, other): (Vec<_>, Vec<_>) = seeds.into_iter().partition(|seed| seed % 2 == 0);
    let run = |seeds: Vec<u64>| seeds.into_iter().map(|seed| sim::run(seed, size, false)).collect::<Vec<_>>();
    std::thread::scope(|scope| {
        let one = scope.spawn(move || run(one));
        let other = run(other);
        one.join().expect("no world panics").into_iter().chain(other).collect()
    })
}

#[test]
fn worlds_that_found_bugs_stay_well() {
    assert_well(&worlds([446, 831, 1_327, 1_872, 1_954, 2_427], Size::Full));
    assert_well(&worlds(
        [
            137, 253, 263, 713, 1_363, 1_810, 1_959, 2_289, 2_403, 2_736, 3_112, 4_406, 4_703, 4_798, 5_177, 5_825,
            6_271, 400_055, 403_455, 405_497, 405_693, 405_711, 408_955, 409_487, 410_034, 410_440, 412_512, 415_572,
            416_321, 418_805, 426_561, 428_522, 429_891, 431_337, 434_542, 435_010, 436_447, 442_110, 442_857, 444_192,
            450_842, 451_219, 452_831, 457_807, 462_031, 463_136, 464_303, 464_787, 465_013, 465_173, 467_562, 470_669,
            473_383, 443_074, 469_952, 482_846, 520_464, 300_095, 499_685, 550_544,
        ],
        Size::Small,
    ));
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let small = (0..200).map(|seed| (seed, Size::Small));
    let traces: Vec<_> = small
        .chain((0..10).map(|seed| (seed, Size::Full)))
        .map(|(seed, size)| {
            let (one, other) = (sim::run(seed, size, false), sim::run(seed, size, false));
            assert_eq!(one, other, "seed {seed}");
            one.trace
        })
        .collect();
    let different: std::collections::BTreeSet<_> = traces.iter().collect();
    assert_eq!(different.len(), traces.len(), "the trace says what happened");
}
