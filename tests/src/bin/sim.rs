//! Runs simulated worlds: `just sim 0..1000`, or `just sim 0..1000 --small`. A world that breaks an invariant is named with
//! the command that runs it again.

use anyhow::{Context, bail};
use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use schema::wrong::Wrong;
use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use tests::sim::plan::Size;
use tests::sim::tally::Tally;
use tests::sim::{self, Report};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(about = "Runs simulated worlds and checks their invariants")]
struct Arguments {
    /// Which worlds, e.g. 0..200 or 17.
    #[arg(long, default_value = "0..200", value_parser = seeds)]
    seeds: Range<u64>,
    /// Shows all that happens, and what the actors log.
    #[arg(long)]
    trace: bool,
    /// Runs a wrong version, e.g. `LostRenewal`.
    #[arg(long, value_parser = wrong_version)]
    wrong: Option<Wrong>,
    /// Worlds in which less happens.
    #[arg(long)]
    small: bool,
    /// Runs each world twice and compares the traces.
    #[arg(long)]
    twice: bool,
}

fn seeds(text: &str) -> anyhow::Result<Range<u64>> {
    let (first, end) = match text.split_once("..") {
        Some((first, end)) => (first.parse().context("first seed")?, end.parse().context("last seed")?),
        None => text.parse().map(|seed: u64| (seed, seed.saturating_add(1))).context("seed")?,
    };
    if first >= end {
        bail!("there is no seed in {text}: write FIRST..END");
    }
    Ok(first..end)
}

fn wrong_version(name: &str) -> anyhow::Result<Wrong> {
    let found = Wrong::ALL.into_iter().find(|wrong| format!("{wrong:?}") == name);
    found.with_context(|| format!("no wrong version is called {name}: they are {:?}", Wrong::ALL))
}

impl Arguments {
    const fn size(&self) -> Size {
        if self.small { Size::Small } else { Size::Full }
    }

    /// What shows the same world.
    fn again(&self) -> String {
        let wrong = self.wrong.map(|wrong| format!(" --wrong {wrong:?}")).unwrap_or_default();
        format!("{wrong}{} --trace", if self.small { " --small" } else { "" })
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.trace {
        tracing_subscriber::fmt().without_time().with_target(false).with_max_level(tracing::Level::INFO).init();
    }
    let bar = ProgressBar::new(arguments.seeds.end - arguments.seeds.start);
    if !std::io::stderr().is_terminal() || arguments.trace {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar.set_style(
        ProgressStyle::with_template("{bar:40} {pos}/{len} worlds, {per_sec}, {eta} left").expect("a template"),
    );
    #[expect(clippy::disallowed_methods, reason = "how fast the simulator is, is measured by a real clock")]
    let begun = std::time::Instant::now();
    let reports = run(&arguments, &bar);
    bar.finish_and_clear();
    let worlds = reports.len() as u128;
    let per_second = worlds * 1_000 / begun.elapsed().as_millis().max(1);
    println!("{worlds} worlds, {per_second} a second");
    let mut tally = Tally::default();
    reports.iter().for_each(|report| tally.merge(&report.tally));
    println!("{tally}");
    let bad: Vec<_> = reports.iter().filter(|report| !report.violations.is_empty()).collect();
    for report in &bad {
        println!("seed {}: just sim {}{}", report.seed, report.seed, arguments.again());
        report.violations.iter().for_each(|violation| println!("    {violation}"));
    }
    println!("{} worlds broke an invariant{}", bad.len(), broken(&bad));
    if bad.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The invariants that were broken, each with the number of worlds.
fn broken(bad: &[&Report]) -> String {
    let mut worlds: BTreeMap<&str, u64> = BTreeMap::new();
    for report in bad {
        let names: BTreeSet<_> =
            report.violations.iter().map(|what| what.split(':').next().unwrap_or_default()).collect();
        names.into_iter().for_each(|name| *worlds.entry(name).or_default() += 1);
    }
    worlds.iter().map(|(name, count)| format!(", {name} in {count}")).collect()
}

/// Runs the worlds on all processors, or one after the other when they are shown.
fn run(arguments: &Arguments, bar: &ProgressBar) -> Vec<Report> {
    let (next, reports) = (AtomicU64::new(arguments.seeds.start), Mutex::new(Vec::new()));
    let threads = if arguments.trace { 1 } else { std::thread::available_parallelism().map_or(1, usize::from) };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= arguments.seeds.end {
                        return;
                    }
                    let report = world(seed, arguments);
                    reports.lock().expect("no world panics").push(report);
                    bar.inc(1);
                }
            });
        }
    });
    let mut reports = reports.into_inner().expect("no world panics");
    reports.sort_by_key(|report| report.seed);
    reports
}

fn world(seed: u64, arguments: &Arguments) -> Report {
    let size = arguments.size();
    let run = |print| match arguments.wrong {
        Some(wrong) => sim::run_wrong(wrong, seed, size, print),
        None => sim::run(seed, size, print),
    };
    let mut report = run(arguments.trace);
    if arguments.twice {
        let again = run(false);
        if again.trace != report.trace {
            report.violations.push(format!("traces differ: {:016x} and {:016x}", report.trace, again.trace));
        }
    }
    report
}
