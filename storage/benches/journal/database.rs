//! The databases that are measured.

use std::path::Path;
use storage::{DatabaseUrl, Keyring, MasterKey, Store};

/// A new SQLite database in a folder.
pub async fn sqlite(folder: &Path) -> Store {
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder).expect("the folder can be made");
    open(folder, &DatabaseUrl::sqlite(folder.join("ringfence.db"))).await
}

/// A new PostgreSQL database; its keys lie in the folder.
pub async fn postgres(folder: &Path, url: &str) -> Store {
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder).expect("the folder can be made");
    open(folder, &DatabaseUrl::parse(url).expect("a postgres url")).await
}

async fn open(folder: &Path, url: &DatabaseUrl) -> Store {
    let keys = DatabaseUrl::sqlite(folder.join("keys.db"));
    let keys = Keyring::open(&keys, &MasterKey::from_bytes([9; 32])).await.expect("the keys open");
    Store::open(url, keys).await.expect("the database opens")
}

/// Gives each account so many settled calls, all as their journal entries would have left them but for the events, which are as
/// after a purge. Of each thousand accounts the calls are mixed, as they would have come.
pub fn fill(folder: &Path, calls: i64) {
    let database = rusqlite::Connection::open(folder.join("ringfence.db")).expect("the database opens");
    let last: i64 = database.query_row("select max(key) from accounts", [], |row| row.get(0)).expect("accounts");
    database.execute_batch("pragma synchronous = off; pragma cache_size = -1000000;").expect("a pragma");
    let each = "with recursive n(c) as (select 1 union all select c + 1 from n where c < ?3), \
                s as (select a.key k, c, a.created_at at from accounts a, n where a.key > ?1 and a.key <= ?2) ";
    let into = "insert into entries (account_key, seq, position, at, status, total, held, receivable, last_call, event_count, call_no, \
                amount, leg, step, transfer, kind, debit, credit, loss, description)";
    let texts = [
        format!(
            "{each} {into} select k, 2 * c + n, 0, at, 'ACTIVE', 1000000000000 - 60 * (c - 1 + n), 100 * (1 - n), 0, c, 0, c, \
             100 - 40 * n, iif(n, null, 1), iif(n, null, 0), iif(n, cast(printf('%016x', k * 1000000000 + c) as blob), null), \
             iif(n, 'CALL_CHARGE', null), iif(n, 'customer', null), iif(n, 'revenue', null), iif(n, 0, null), iif(n, 'call', null) \
             from s, (select 0 n union all select 1) order by c, k, n"
        ),
        format!(
            "{each} insert into cdrs select k, c, cast(printf('%016x', k * 1000000000 + c) as blob), at, null, 'SOFTPHONE', 'ENDED', 0, at, \
             at, at, 'EUR', 6000, 6, 60, 0, null, null, null, 0, null, x'00' from s order by c, k"
        ),
        "delete from events where id in (select id from entries where account_key > ?1 and account_key <= ?2 and ?3 > 0)".to_owned(),
        "update accounts set events_from = 2 * ?3 + 2 where key > ?1 and key <= ?2".to_owned(),
    ];
    for above in (0..last).step_by(1_000) {
        eprintln!("filled {above} of {last} accounts");
        database.execute_batch("begin immediate").expect("a transaction");
        for text in &texts {
            let mut statement = database.prepare_cached(text).expect("a statement");
            statement.execute(rusqlite::params![above, (above + 1_000).min(last), calls]).expect("rows");
        }
        database.execute_batch("commit").expect("committed");
    }
}
