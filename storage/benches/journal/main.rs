//! How many reserve and settle pairs a second the journal makes durable, beside what the machine's disk and its peers do in the
//! same run. By hand: `tests/bench/journal`; `cargo bench -p storage --bench journal -- --help` names the arguments.

#![expect(unreachable_pub, reason = "the modules of one benchmark")]
#![expect(clippy::float_arithmetic, reason = "rates and times that were measured; no money")]

mod audits;
mod database;
mod load;
mod peers;
#[path = "../../tests/conformance/samples.rs"]
#[expect(dead_code, reason = "shared with the conformance suite, which uses all of it")]
mod samples;
mod table;

use load::{Ledger, Shape};
use peers::Peers;
use std::path::PathBuf;
use table::{Measured, Row};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "\
arguments: [--seconds N] [--repeats N] [--accounts N] [--folder DIR] [--only TEXT] [--ledger PROGRAM] [--fdatasync PROGRAM]
           [--postgres URL] [--pgbench SCRIPT]
       or: --audit N [--accounts N] [--folder DIR] [--seconds N]    audits a database of N transfers, alone and beside callers;
                                                                  with --accounts 1 all of them are of one account";

/// What was asked for.
struct Arguments {
    seconds: u64,
    repeats: usize,
    accounts: usize,
    folder: PathBuf,
    /// Only rows whose name has this text.
    only: String,
    postgres: Option<String>,
    audit: Option<u64>,
    /// The database of an audit is to be filled, with so many calls of each account.
    fill: Option<i64>,
    peers: Peers,
}

fn arguments() -> Result<Arguments, String> {
    let mut found = Arguments {
        seconds: 5,
        repeats: 3,
        accounts: 100_000,
        folder: PathBuf::from("bench-run"),
        only: String::new(),
        postgres: None,
        audit: None,
        fill: None,
        peers: Peers::default(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--bench" {
            continue; // cargo says so
        }
        let value = words.next().ok_or_else(|| format!("{word}: a value is missing"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{word} {value}: not a number"));
        match word.as_str() {
            "--seconds" => found.seconds = number()?.max(1),
            "--repeats" => found.repeats = usize::try_from(number()?).unwrap_or(1).max(1),
            "--accounts" => found.accounts = usize::try_from(number()?).unwrap_or(1).max(1),
            "--folder" => found.folder = value.into(),
            "--only" => found.only = value,
            "--postgres" => found.postgres = Some(value),
            "--audit" => found.audit = Some(number()?),
            "--fill" => found.fill = i64::try_from(number()?).ok(),
            "--ledger" => found.peers.ledger = Some(value.into()),
            "--fdatasync" => found.peers.fdatasync = Some(value.into()),
            "--pgbench" => found.peers.pgbench = Some(value.into()),
            _ => return Err(format!("{word}: no such argument")),
        }
    }
    Ok(found)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> std::process::ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(wrong) => {
            eprintln!("{wrong}\n{USAGE}");
            return 2.into();
        }
    };
    std::fs::create_dir_all(&arguments.folder).expect("the folder can be made");
    match (arguments.fill, arguments.audit) {
        (Some(calls), _) => database::fill(&arguments.folder, calls),
        (None, Some(transfers)) => {
            audits::measure(&arguments.folder, arguments.accounts, transfers, arguments.seconds).await
        }
        (None, None) => compare(&arguments).await,
    }
    0.into()
}

/// One line of the table: who is measured how.
enum Subject {
    Disk,
    Program { hot: bool },
    Pgbench,
    Journal { on: usize, callers: usize, hot: bool, shape: Shape },
}

async fn compare(arguments: &Arguments) {
    // Each of 1,024 callers has at least one of its own.
    let accounts = arguments.accounts.max(1_024);
    let sqlite = database::sqlite(&arguments.folder.join("journal")).await;
    let mut ledgers = vec![Ledger::new(sqlite, accounts).await];
    if let Some(url) = &arguments.postgres {
        let store = database::postgres(&arguments.folder.join("journal-postgres"), url).await;
        ledgers.push(Ledger::new(store, accounts).await);
    }
    let journal = |on, callers, hot, shape| Subject::Journal { on, callers, hot, shape };
    let subjects = [
        ("disk: fdatasync of 4 KB, a second", Subject::Disk),
        ("C and SQLite, 256 operations a commit", Subject::Program { hot: false }),
        ("C and SQLite, the same, one hot account", Subject::Program { hot: true }),
        ("SQLite, 256 callers, 100,000 accounts", journal(0, 256, false, Shape::Pair)),
        ("SQLite, 256 callers, one hot account", journal(0, 256, true, Shape::Pair)),
        ("SQLite, 1,024 callers", journal(0, 1_024, false, Shape::Pair)),
        ("SQLite, 256 callers, whole calls", journal(0, 256, false, Shape::Call)),
        ("pgbench, stored function, its best", Subject::Pgbench),
        ("PostgreSQL, 256 callers", journal(1, 256, false, Shape::Pair)),
        ("PostgreSQL, 256 callers, one hot account", journal(1, 256, true, Shape::Pair)),
        ("PostgreSQL, 1,024 callers", journal(1, 1_024, false, Shape::Pair)),
        ("PostgreSQL, 256 callers, whole calls", journal(1, 256, false, Shape::Call)),
    ];
    let mut rows: Vec<Row> = Vec::new();
    for repeat in 0..arguments.repeats {
        for (name, subject) in subjects.iter().filter(|(name, _)| name.contains(&arguments.only)) {
            eprintln!("{} of {}: {name}", repeat + 1, arguments.repeats);
            let measured = match subject {
                Subject::Disk => arguments.peers.disk(&arguments.folder, arguments.seconds),
                Subject::Program { hot } => arguments.peers.program(&arguments.folder, arguments.seconds, *hot),
                Subject::Pgbench => arguments.peers.pgbench(arguments.seconds),
                Subject::Journal { on, callers, hot, shape } => match ledgers.get(*on) {
                    Some(ledger) => Some(ledger.measure(*callers, *hot, *shape, arguments.seconds).await),
                    None => None,
                },
            };
            if let Some(measured) = measured {
                note(&mut rows, name, measured);
            }
        }
    }
    table::print(&rows);
    for ledger in ledgers {
        ledger.store.close().await;
    }
}

fn note(rows: &mut Vec<Row>, name: &'static str, measured: Measured) {
    match rows.iter_mut().find(|row| row.name == name) {
        Some(row) => row.measured.push(measured),
        None => rows.push(Row { name, measured: vec![measured] }),
    }
}
