//! How benchmarks show how far they are, and what they have measured.

use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

pub(crate) fn bar(what: &str, length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length);
    let look = format!("{what:<14} {{bar:40}} {{pos}}/{{len}} {{msg}} {{eta}} left");
    bar.set_style(ProgressStyle::with_template(&look).expect("a template"));
    bar
}

/// The value below which this share of sorted values lies.
pub(crate) fn at(sorted: &[Duration], permille: usize) -> Duration {
    let place = (sorted.len() * permille).div_ceil(1_000).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(place).copied().unwrap_or_default()
}
