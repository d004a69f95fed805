//! How long an audit of many transfers takes, in how much memory, and what it does to a server that writes.

use crate::database;
use crate::load::{Ledger, Shape};
use std::path::Path;
use std::process::Command;
use storage::audit::audit;
use tokio::time::Instant;

/// Who call beside the audit.
const CALLERS: usize = 64;

pub async fn measure(folder: &Path, accounts: usize, transfers: u64, seconds: u64) {
    let folder = folder.join("audit");
    let mut ledger = Ledger::new(database::sqlite(&folder).await, accounts).await;
    let begun = Instant::now();
    // In a process of its own: memory that it freed here would hide what the audit takes.
    let mut fill = Command::new(std::env::current_exe().expect("this program"));
    fill.args(["--fill", &(transfers / accounts as u64).to_string(), "--folder"]).arg(&folder);
    assert!(fill.status().expect("it runs again").success(), "filled");
    ledger.reload().await;
    println!("{transfers} transfers of {accounts} accounts made in {:.0?}", begun.elapsed());
    // What making the accounts took is not the audit's.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let before = status("VmRSS:");
    audited(&ledger, "alone").await;
    println!("resident memory: {before} before, at most {} in the audit", status("VmHWM:"));
    let size = || std::fs::metadata(folder.join("ringfence.db-wal")).map_or(0, |wal| wal.len() / 1_048_576);
    // Fewer accounts than callers: all of them call from the first one.
    let hot = accounts < CALLERS;
    let idle = ledger.measure(CALLERS, hot, Shape::Call, seconds).await;
    println!(
        "{CALLERS} callers alone: {:.0} calls/s, p99 {:.2} ms; the log has {} MB",
        idle.rate,
        ms(idle.p99_us),
        size()
    );
    let load = async {
        let busy = ledger.measure(CALLERS, hot, Shape::Call, seconds).await;
        println!(
            "{CALLERS} callers beside it: {:.0} calls/s, p99 {:.2} ms; the log has {} MB",
            busy.rate,
            ms(busy.p99_us),
            size()
        );
    };
    tokio::join!(load, audited(&ledger, "beside callers for the first seconds"));
    println!("the log has {} MB", size());
    ledger.store.close().await;
}

async fn audited(ledger: &Ledger, how: &str) {
    let begun = Instant::now();
    let report = audit(&ledger.store, |_| {}).await.expect("the audit can read");
    let took = begun.elapsed();
    // The counts, and the first breach if there is one.
    let told = report.to_string();
    let lines: Vec<_> = told.lines().take(2).collect();
    println!("audit {how}: {took:.1?}: {}", lines.join("; "));
}

fn ms(us: u32) -> f64 {
    f64::from(us) / 1_000.0
}

fn status(name: &str) -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix(name)).map_or_else(String::new, |line| line.trim().to_owned())
}
