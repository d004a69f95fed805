//! The fuzzing program: which target it feeds stands in the environment variable `FUZZ_TARGET`.
#![no_main]

mod targets;

use std::sync::OnceLock;

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
        targets::ALL.iter().find(|(known, _)| *known == name).expect("a target of that name").1
    });
    target(data);
});
