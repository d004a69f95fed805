//! How long an audit of many transfers takes, in how much memory, and what it does to a server that writes.

use crate::database;
use crate::load::{Ledger, Shape};
use std::path::Path;
use storage::audit::audit;
use tokio::time::Instant;

pub async fn measure(folder: &Path, accounts: usize, transfers: u64, seconds: u64) {
    let folder = folder.join("audit");
    let mut ledger = Ledger::new(database::sqlite(&folder).await, accounts).await;
    let begun = Instant::now();
    database::fill(&folder, i64::try_from(transfers / accounts as u64).unwrap_or(i64::MAX));
    ledger.reload().await;
    println!("{transfers} transfers of {accounts} accounts made in {:.0?}", begun.elapsed());
    // What making them took is not the audit's.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let before = status("VmRSS:");
    audited(&ledger, "alone").await;
    println!("resident memory: {before} before, at most {} in the audit", status("VmHWM:"));
    let size = || std::fs::metadata(folder.join("ringfence.db-wal")).map_or(0, |wal| wal.len() / 1_048_576);
    let idle = ledger.measure(64, false, Shape::Call, seconds).await;
    println!("64 callers alone: {:.0} calls/s, p99 {:.2} ms; the log has {} MB", idle.rate, ms(idle.p99_us), size());
    let load = async {
        let busy = ledger.measure(64, false, Shape::Call, seconds).await;
        println!(
            "64 callers beside it: {:.0} calls/s, p99 {:.2} ms; the log has {} MB",
            busy.rate,
            ms(busy.p99_us),
            size()
        );
    };
    tokio::join!(load, audited(&ledger, "beside 64 callers for the first seconds"));
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
