//! The command line.

use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Prepaid outbound calling: money that never runs below zero, numbers that are proved.
///
/// Without a command it serves in development mode: everything on 127.0.0.1, data in ./data, a test carrier and demo
/// accounts. Exit codes: 0 done, 1 failed or audit found something, 2 wrong usage or configuration.
#[derive(Debug, Parser)]
#[command(name = "ringfence", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Configuration file. The environment (RINGFENCE_HTTP__LISTEN …) goes over it.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve until SIGTERM or Ctrl-C.
    Serve,
    /// Create what a world file describes and is not there yet; a running server is told.
    Provision {
        /// World file (TOML).
        world: PathBuf,
    },
    /// Credit an account; the same key credits once.
    Credit {
        /// Account id, or the SIP username of one of its phones.
        account: String,
        /// Decimal amount in the account's currency; negative to take back.
        #[arg(allow_hyphen_values = true)]
        amount: String,
        /// Idempotency key, 1 to 128 printable characters; unique within the account for ever.
        #[arg(long)]
        key: String,
        /// Shown on the customer's statement.
        #[arg(long)]
        reason: String,
    },
    /// Derive every balance again from the ledger; reads only, also beside a running server.
    Audit,
    /// What failed again and again in the running server: who rests, which messages are set aside.
    Failures,
    /// See it work.
    Demo {
        /// Which part.
        #[command(subcommand)]
        demo: Demo,
    },
}

/// `ringfence demo …`
#[derive(Debug, Subcommand)]
pub enum Demo {
    /// Place a SIP call with the built-in test phone to a running development server and watch the money.
    Call {
        /// Number to dial; its last two digits choose what the test carrier does.
        #[arg(long, default_value = "+447700900000")]
        to: String,
        /// Hang up after so many seconds.
        #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..=3600))]
        seconds: u64,
    },
}
