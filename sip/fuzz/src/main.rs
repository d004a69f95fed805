//! The fuzzing program: which target it feeds stands in the environment variable `FUZZ_TARGET`.
#![no_main]

mod targets;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

/// No input takes longer, wherever it is read.
const MOST: Duration = Duration::from_millis(10);
/// How often one that did is tried again: the machine may have been busy with something else.
const TRIES: usize = 10;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
        targets::ALL.iter().find(|(known, _)| *known == name).expect("a target of that name").1
    });
    let takes = || {
        let begun = Instant::now();
        target(data);
        begun.elapsed()
    };
    if takes() > MOST {
        let best = (0..TRIES).map(|_| takes()).min();
        assert!(best.is_some_and(|best| best <= MOST), "{best:?} at best for {} bytes", data.len());
    }
});
