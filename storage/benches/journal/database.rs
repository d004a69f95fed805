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

/// Gives each account so many settled calls, all as their journal entries would have left them but for the events, of which
/// only the last is kept, as after a purge.
pub fn fill(folder: &Path, calls: i64) {
    let database = rusqlite::Connection::open(folder.join("ringfence.db")).expect("the database opens");
    let last: i64 = database.query_row("select max(key) from accounts", [], |row| row.get(0)).expect("accounts");
    database.execute_batch("pragma synchronous = off; pragma cache_size = -1000000;").expect("a pragma");
    let each = "with recursive n(c) as (select 1 union all select c + 1 from n where c < ?3), \
                s as (select a.key k, c, a.created_at at from accounts a, n where a.key > ?1 and a.key <= ?2) ";
    let texts = [
        format!(
            "{each} insert into transfers select k, 2 * c + 1, 0, cast(printf('%016x', k * 1000000 + c) as blob), at, 'CALL_CHARGE', \
             'customer', 'revenue', 60, c, null, null, null, 0, null, null, 1000000000000 - 60 * c, 'call' from s order by k, c"
        ),
        format!("{each} insert into holds select k, c, 1, 0, 100, 2 * c from s order by k, c"),
        format!(
            "{each} insert into cdrs select k, c, cast(printf('%016x', k * 1000000 + c) as blob), at, null, 'SOFTPHONE', 'ENDED', 0, at, \
             at, at, 'EUR', 6000, 6, 60, 0, null, null, null, 0, null, x'00' from s order by k, c"
        ),
        "delete from events where account_key > ?1 and account_key <= ?2 and ?3 > 0".to_owned(),
        "insert into events select key, 2 * ?3 + 1, created_at, 0, x'' from accounts where key > ?1 and key <= ?2"
            .to_owned(),
        "update accounts set seq = 2 * ?3 + 1, total = total - 60 * ?3, last_call = ?3 where key > ?1 and key <= ?2"
            .to_owned(),
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
