//! The simulator would notice: each wrong version of the program breaks the invariant that it must break.

use schema::wrong::Wrong;
use tests::sim;
use tests::sim::plan::Size;

/// Small worlds in which a wrong version must be caught.
const WITHIN: u64 = 300;

/// The invariants that a wrong version breaks: one of them must be named.
const fn breaks(wrong: Wrong) -> &'static [&'static str] {
    match wrong {
        Wrong::AckBeforeCommit => &["A2", "C1"],
        Wrong::SkippedSync => &["I3"],
        Wrong::DoubleCapture => &["C3"],
        Wrong::HoldKeptOnCancel => &["L3"],
        Wrong::ReserveBlind => &["L1"],
        Wrong::FloatRounding => &["C3"],
        Wrong::LostRenewal => &["C2"],
        Wrong::LateCutOff => &["C2"],
        Wrong::CdrTwice => &["C3"],
        Wrong::IdempotencyIgnored => &["L4"],
        Wrong::EventOrderBroken => &["I12"],
        Wrong::RecoveryForgets => &["A3"],
    }
}

/// The first world in which it breaks one of its invariants, and what was found there.
fn caught(wrong: Wrong) -> Option<(u64, String)> {
    (0..WITHIN).find_map(|seed| {
        let report = sim::run_wrong(wrong, seed, Size::Small, false);
        let named = |what: &String| breaks(wrong).iter().any(|name| what.starts_with(&format!("{name}:")));
        report.violations.into_iter().find(named).map(|what| (seed, what))
    })
}

#[test]
fn twelve_of_twelve_wrong_versions_are_caught() {
    let mut missed = Vec::new();
    for wrong in Wrong::ALL {
        match caught(wrong) {
            Some((seed, what)) => {
                println!("{wrong:?}: seed {seed}: {what}");
                // It is not the world's fault.
                super::assert_well(&[sim::run(seed, Size::Small, false)]);
            }
            None => missed.push(wrong),
        }
    }
    assert!(missed.is_empty(), "not noticed within {WITHIN} worlds: {missed:?}");
}
