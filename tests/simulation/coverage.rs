//! Worlds of many seeds, in which everything that can go wrong does.

use super::{FULL, SMALL, assert_well, worlds};
use tests::sim::plan::Size;
use tests::sim::tally::Tally;

/// What must have happened, and how often at least, in the small and full worlds of one run.
const HAPPENED: &[(&str, u64)] = &[
    // What calls do.
    ("charged", 200),
    ("refused", 50),
    ("rerouted", 20),
    ("cut", 10),
    ("lost", 5),
    ("resumed", 20),
    ("with a loss", 1),
    ("answered calls that had to last", 500),
    ("answered calls that had to last across a restart", 20),
    ("calls that were not answered for a reason", 100),
    // The network.
    ("datagrams lost", 100),
    ("datagrams repeated", 100),
    ("datagrams overtaken", 100),
    ("cut off", 20),
    ("datagrams of those cut off", 50),
    ("messages cut into pieces", 500),
    ("pieces glued", 100),
    ("connections reset", 20),
    ("connections that failed", 1),
    ("reconnections", 20),
    // Phones and carriers.
    ("answers after CANCEL", 3),
    ("forked answers", 5),
    ("glaring BYEs", 3),
    ("BYEs ignored", 5),
    ("carriers vanished", 5),
    ("INVITEs ignored", 5),
    ("INVITEs only tried", 5),
    ("late answers", 5),
    ("late repeated answers", 3),
    ("answers never acknowledged", 3),
    ("phones vanished", 5),
    ("offers of carriers that talk", 5),
    ("requests without credentials", 20),
    // Before the answer.
    ("reliable 18x of carriers", 100),
    ("reliable 18x of carriers repeated", 50),
    ("reliable 18x to phones", 100),
    ("reliable 18x to phones repeated", 20),
    ("PRACKs ignored", 20),
    ("early dialogs given up in silence", 1),
    ("second early sessions", 3),
    ("forks that ring reliably", 3),
    ("answers of another fork than rang first", 1),
    ("early offers of carriers", 3),
    ("late PRACKs", 5),
    ("PRACKs sent twice", 3),
    ("PRACKs never sent", 10),
    ("PRACKs after CANCEL", 1),
    ("sessions changed by phones", 50),
    ("sessions changed by phones before the answer", 5),
    ("changes of phones refused", 5),
    // Sessions.
    ("session timers of phones", 10),
    ("session timers of carriers", 10),
    ("sessions refreshed by phones", 10),
    ("sessions refreshed by carriers", 5),
    ("sessions refreshed by us", 10),
    ("sessions that expired", 5),
    ("refreshes refused by 422", 10),
    ("refreshes taken after a 422", 5),
    ("INVITEs refused by 422", 3),
    ("INVITEs without an offer", 100),
    ("offers of carriers answered in the ACK", 20),
    ("large INVITEs over TCP", 10),
    ("large INVITEs over UDP in the end", 3),
    ("connections refused", 3),
    // More than there is room for.
    ("calls refused: too many a second", 100),
    ("calls refused: too many live", 100),
    ("calls refused: they wait too long", 20),
    ("datagrams turned away at first sight", 100),
    ("calls made again when told to", 20),
    ("calls made again at once", 20),
    ("calls made again and again", 100),
    ("BYEs served while calls are refused", 10),
    ("ACKs taken while calls are refused", 10),
    ("offers served while calls are refused", 10),
    // The machine and the process.
    ("crashes between two steps", 20),
    ("crashes in a step of the journal", 10),
    ("crashes behind a step of the journal", 10),
    ("crashes with two batches in flight", 5),
    ("boots", 10),
    ("drains", 5),
    ("panics", 50),
    ("panics before a decision", 5),
    ("panics behind a decision", 5),
    ("panics behind all", 5),
    ("panics of supervisors and trunks", 5),
    ("messages set aside", 15),
    ("settlements set aside", 3),
    ("batches failed", 10),
    ("reads failed", 10),
    ("journal stalled", 10),
    ("settings of the clock", 50),
    ("top-ups", 50),
    ("hang-ups by request", 20),
];

#[test]
fn many_worlds_hold_every_invariant_whatever_goes_wrong_in_them() {
    let mut reports = worlds(0..SMALL, Size::Small);
    reports.extend(worlds(0..FULL, Size::Full));
    assert_well(&reports);
    let mut tally = Tally::default();
    reports.iter().for_each(|report| tally.merge(&report.tally));
    let missing: Vec<_> = HAPPENED.iter().filter(|(what, least)| tally.of(what) < *least).collect();
    assert!(missing.is_empty(), "too seldom: {missing:?}\n{tally}");
}
