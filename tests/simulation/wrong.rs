//! The simulator would notice: each wrong version of the program breaks the invariant that it must break.

use schema::wrong::Wrong;
use tests::sim;
use tests::sim::plan::Size;

/// Small worlds in which a wrong version must be caught.
const WITHIN: u64 = 300;

/// What is said of a wrong version: a part of each of these must be, in one world or another.
const fn breaks(wrong: Wrong) -> &'static [&'static str] {
    match wrong {
        Wrong::AckBeforeCommit => &[
            "C1: an INVITE of",
            "A2: the caller of",
            "A2: a BYE of",
            "A2: payment-",
            "is told of EventCursor",
            "is told to be Ended, and its end is not stored",
        ],
        Wrong::SkippedSync => &["went back from entry"],
        Wrong::OneSyncForTwo => &["C1: Invite", "is told of EventCursor", " was acknowledged and is not stored"],
        Wrong::SyncedOutOfOrder => &["events: account", "total: account"],
        Wrong::DoubleCapture => &["): 2 charges"],
        Wrong::HoldKeptOnCancel => &["L3: account"],
        Wrong::ReserveBlind => &["L1: account"],
        Wrong::FloatRounding => &[" charged for "],
        Wrong::LostRenewal => &["C2: "],
        Wrong::LateCutOff => &["C2: "],
        Wrong::EarlyCutOff => &["it was cut after"],
        Wrong::CdrTwice => &["has 2 records"],
        Wrong::IdempotencyIgnored => &["was posted 2 times"],
        Wrong::EventOrderBroken => &["I12: account"],
        Wrong::RecoveryForgets => &["no actor was made for it"],
        Wrong::LegForgotten => &["C4: one leg of"],
        Wrong::TimerIgnored => &["RFC 4028: the session of"],
        Wrong::RecoveryHangsUp | Wrong::EndedByRepetition => &["and nobody wanted that"],
    }
}

/// The worlds in which each of its sentences is said first, and what is not said.
fn caught(wrong: Wrong) -> Result<Vec<(u64, String)>, Vec<&'static str>> {
    let (mut missing, mut found) = (breaks(wrong).to_vec(), Vec::new());
    for seed in 0..WITHIN {
        let said = sim::run_wrong(wrong, seed, Size::Small, false).violations;
        missing.retain(|part| {
            let first = said.iter().find(|what| what.contains(part));
            found.extend(first.map(|what| (seed, what.clone())));
            first.is_none()
        });
        if missing.is_empty() {
            return Ok(found);
        }
    }
    Err(missing)
}

#[test]
fn nineteen_of_nineteen_wrong_versions_are_caught_for_what_they_do() {
    let mut missed = Vec::new();
    for wrong in Wrong::ALL {
        match caught(wrong) {
            Ok(found) => {
                for (seed, what) in found {
                    println!("{wrong:?}: seed {seed}: {what}");
                    // It is not the world's fault.
                    super::assert_well(&[sim::run(seed, Size::Small, false)]);
                }
            }
            Err(missing) => missed.push((wrong, missing)),
        }
    }
    assert!(missed.is_empty(), "not noticed within {WITHIN} worlds: {missed:?}");
}
