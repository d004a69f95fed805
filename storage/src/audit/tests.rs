//! One account with many calls: what the audit holds of it does not grow with it.

use super::check::RangeCheck;
use super::{AuditReport, CALLS, ENTRIES, audit, read_call, read_entry};
use crate::samples::World;
use crate::sql::values;
use crate::store::Backend;
use schema::id::{AccountKey, CallNo, Seq};

#[path = "../../benches/journal/database.rs"]
#[expect(dead_code, unreachable_pub, clippy::print_stderr, reason = "shared with the benchmark")]
mod database;

/// Their rows are more than a megabyte.
const MANY: i64 = 30_000;

/// Files of SQLite's that hold what does not fit in memory; deleted already.
fn files_of_sorting() -> usize {
    let open = std::fs::read_dir("/proc/self/fd").expect("listed").flatten();
    let names = open.filter_map(|file| std::fs::read_link(file.path()).ok());
    names.filter(|name| name.to_string_lossy().contains("etilqs_")).count()
}

#[tokio::test]
async fn an_account_of_many_calls_is_audited_holding_few_rows_and_sorted_in_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = database::sqlite(folder.path()).await;
    let key = World::new(store.clone(), 1).await.account("ann", 1_000_000_000_000).await;
    database::fill(folder.path(), MANY);
    let Backend::Sql(sql) = &store.backend else { unreachable!("it is SQLite") };
    let mut report = AuditReport::default();
    let mut check = RangeCheck::new(&mut report);
    check.account(key, Seq(2 * MANY + 2));
    let (mut held, mut files) = (0, 0);
    let keys = || values![key.0 - 1, key.0];
    let read = sql.db.in_snapshot(async |tx| {
        // SQLite sorts as much in memory as it caches pages, and a megabyte at least.
        let mut cached = tx.fetch_one("pragma cache_size", values![]).await?.expect("a size");
        assert_eq!(cached.int()?, -16_384, "16 MB");
        tx.fetch("pragma cache_size = -64", values![]).await?;
        tx.each(ENTRIES, keys(), |mut row| {
            check.entry(read_entry(&mut row)?);
            held = held.max(check.held());
            Ok(())
        })
        .await?;
        tx.each(CALLS, keys(), |mut row| {
            let (account, no) = (AccountKey(row.int()?), CallNo(row.int()?));
            check.call(account, no, &read_call(&mut row)?);
            held = held.max(check.held());
            if no.0 == MANY / 2 {
                files = files_of_sorting();
            }
            Ok(())
        })
        .await
    });
    read.await.expect("readable");
    check.finish();
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.holds, report.cdrs), (MANY.unsigned_abs(), MANY.unsigned_abs()));
    assert_eq!(held, 2, "the account, and one step of the call that is open");
    assert!(files > 0, "its calls are sorted in a file");
    assert!(audit(&store, |_| {}).await.expect("readable").is_clean());
    store.close().await;
}
