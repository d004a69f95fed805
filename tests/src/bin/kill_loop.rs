//! Kills the real server again and again under load and checks what is left: `cargo run -p tests --bin kill-loop -- 2000`.

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use std::process::ExitCode;
use std::time::Duration;
use tests::kill::{Moment, Summary, round};
use tests::postgres::Cluster;

/// Kills the real server under load and compares what was acknowledged with what it has written.
#[derive(Parser)]
struct Arguments {
    /// How many kills.
    #[arg(default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    kills: u32,
    /// Of the first round; each round has the next one.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Kills in one data folder.
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=100))]
    per_round: u32,
    /// Kill at the n-th `fdatasync` of a thread, n = 1, 2 …, instead of at random times.
    #[arg(long, conflicts_with = "sends")]
    syncs: bool,
    /// Kill at the n-th sending of datagrams of a thread, n = 1, 2 …, instead of at random times.
    #[arg(long)]
    sends: bool,
    /// On a PostgreSQL of its own instead of SQLite.
    #[arg(long, conflicts_with = "syncs")]
    postgres: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let bar = ProgressBar::new(arguments.kills.into());
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} {msg} {eta} left").expect("a template"));
    bar.enable_steady_tick(Duration::from_millis(200));
    let cluster = if arguments.postgres { Some(Cluster::start().await) } else { None };
    let (mut summary, mut seed) = (Summary::default(), arguments.seed);
    while summary.kills < arguments.kills {
        let kills = summary.kills + 1..=arguments.kills.min(summary.kills + arguments.per_round);
        let moment = |n| match (arguments.syncs, arguments.sends) {
            (true, _) => Moment::Sync(n),
            (_, true) => Moment::Send(n),
            _ => Moment::Random,
        };
        let moments: Vec<_> = kills.map(moment).collect();
        let mut progress = |summary: &Summary| {
            bar.set_position(summary.kills.into());
            bar.set_message(format!("{} with calls up, {} calls checked,", summary.with_calls_up, summary.calls));
        };
        let database = match &cluster {
            Some(cluster) => {
                let name = format!("round{seed}");
                cluster.create_database(&name).await;
                format!("database.url = \"{}\"", cluster.url(&name))
            }
            None => String::new(),
        };
        if let Err(findings) = round(seed, &moments, &database, &mut summary, &mut progress).await {
            bar.abandon();
            println!("seed {seed}, kill {} of this run: {findings}", summary.kills);
            return ExitCode::FAILURE;
        }
        seed += 1;
    }
    bar.finish_and_clear();
    println!("{summary}; {} s", bar.elapsed().as_secs());
    ExitCode::SUCCESS
}
