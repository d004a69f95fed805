//! The rig's programs, run beside us.

use crate::table::Measured;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the rig's programs are; a row without its program is left out.
#[derive(Default)]
pub struct Peers {
    pub ledger: Option<PathBuf>,
    pub fdatasync: Option<PathBuf>,
    pub pgbench: Option<PathBuf>,
}

impl Peers {
    pub fn disk(&self, folder: &Path, seconds: u64) -> Option<Measured> {
        let mut command = Command::new(self.fdatasync.as_ref()?);
        command.arg(folder.join("fdatasync.file")).args(["4096", &seconds.to_string(), "1"]);
        lines(&mut command).pop().map(|line| measured(&line, "fdatasync_s", "p50_ms", "p99_ms", 1_000.0))
    }

    pub fn program(&self, folder: &Path, seconds: u64, hot: bool) -> Option<Measured> {
        let mut command = Command::new(self.ledger.as_ref()?);
        command.arg(folder.join("sqlite_ledger.db")).args(["256", &seconds.to_string(), if hot { "1" } else { "0" }]);
        lines(&mut command).pop().map(|line| measured(&line, "calls_s", "commit_p50_ms", "commit_p99_ms", 1_000.0))
    }

    /// Its best of 32 and 64 clients over 100,000 accounts.
    pub fn pgbench(&self, seconds: u64) -> Option<Measured> {
        let mut command = Command::new(self.pgbench.as_ref()?);
        command
            .arg(seconds.to_string())
            .env("SCRIPTS", "reserve_settle_fn")
            .env("NA", "100000")
            .env("CLIENTS", "32 64");
        let all = lines(&mut command).into_iter();
        let all = all.map(|line| measured(&line, "calls_s", "call_p50_us", "call_p99_us", 1.0));
        all.max_by(|a, b| a.rate.total_cmp(&b.rate))
    }
}

/// The JSON lines that a program prints.
fn lines(command: &mut Command) -> Vec<serde_json::Value> {
    let output = command.stderr(Stdio::inherit()).output().expect("the rig's program runs");
    assert!(output.status.success(), "{command:?} failed");
    String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn measured(line: &serde_json::Value, rate: &str, p50: &str, p99: &str, to_us: f64) -> Measured {
    let figure = |name: &str| line.get(name).and_then(serde_json::Value::as_f64).unwrap_or(0.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time in microseconds")]
    let us = |name: &str| (figure(name) * to_us) as u32;
    Measured { rate: figure(rate), p50_us: us(p50), p99_us: us(p99), note: String::new() }
}
