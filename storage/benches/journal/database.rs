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

pub async fn generate(_folder: &Path, _transfers: u64) {}
