//! A running server's registrar from outside, over UDP, from an address that is exempt from its limits. By hand:
//! `tests/bench/registrations` and `tests/bench/strangers` start the server and this.

#![expect(clippy::float_arithmetic, reason = "times that were measured; no money")]

mod figures;
mod phone;
mod process;
mod refreshes;
mod strangers;

use clap::{Parser, Subcommand};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Phones that register at a server whose accounts are `u0`, `u1` … with the passwords `pw0`, `pw1` ….
#[derive(Parser)]
struct Arguments {
    /// Where the server takes SIP over UDP.
    #[arg(long)]
    server: SocketAddr,
    /// The server's domain.
    #[arg(long, default_value = "localhost")]
    domain: String,
    /// Accounts that it has.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    users: u32,
    #[command(subcommand)]
    what: What,
    /// Given by `cargo bench`.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum What {
    /// Registers everybody, refreshes at a steady rate, and un-registers everybody.
    Refreshes(refreshes::Arguments),
    /// Compares how soon a wrong password and an unknown user are refused.
    Strangers(strangers::Arguments),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let domain = Arc::new(phone::Domain { server: arguments.server, name: arguments.domain });
    let as_wanted = match arguments.what {
        What::Refreshes(asked) => refreshes::run(&domain, arguments.users, &asked).await,
        What::Strangers(asked) => strangers::run(&domain, arguments.users, &asked).await,
    };
    if as_wanted { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
