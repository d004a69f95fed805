//! Which key store a database was sealed with. Beside another one, such as a new one after a data folder was lost, a start would find
//! nobody and open nothing, and seal what is new under keys that are in no backup.

use super::{DATA, Db, Tx, migrate, values};
use crate::error::StoreError;
use crate::keyring::{Keyring, Subject};
use crate::url::DatabaseUrl;
use schema::id::{AccountKey, UserId};

/// Marks a database that has no mark, and compares the mark of one that has.
///
/// # Errors
/// [`StoreError::OtherKeys`]; or one of the two failed.
pub(super) async fn compare(db: &Db, keys: &Keyring) -> Result<(), StoreError> {
    let mut tx = db.write().await?;
    if let Some(mark) = stored(&mut tx).await? {
        return if mark == keys.mark() { Ok(()) } else { Err(StoreError::OtherKeys) };
    }
    // New, or of a version without marks: whoever is in it has keys.
    for subject in anybody(&mut tx).await? {
        if !keys.knows(subject).await? {
            return Err(StoreError::OtherKeys);
        }
    }
    tx.execute("insert into key_store (id, mark) values (1, $1)", values![keys.mark()]).await?;
    tx.commit().await
}

/// Whether there is something in a database that only its keys open.
///
/// # Errors
/// It cannot be opened, or is newer than this program.
pub(crate) async fn is_sealed(url: &DatabaseUrl) -> Result<bool, StoreError> {
    if matches!(url, DatabaseUrl::Sqlite(path) if !path.exists()) {
        return Ok(false);
    }
    let db = Db::open(url).await?;
    let found = async {
        migrate(&db, &DATA).await?;
        db.in_snapshot(async |tx| Ok(stored(tx).await?.is_some() || !anybody(tx).await?.is_empty())).await
    };
    let found = found.await;
    db.close().await;
    found
}

async fn stored(tx: &mut Tx) -> Result<Option<Vec<u8>>, StoreError> {
    let row = tx.fetch_one("select mark from key_store", values![]).await?;
    row.map(|mut row| row.bytes()).transpose()
}

/// An account and a person, if there are any: two whose keys must be there.
async fn anybody(tx: &mut Tx) -> Result<Vec<Subject>, StoreError> {
    let mut found = Vec::new();
    if let Some(mut row) = tx.fetch_one("select key from accounts order by key limit 1", values![]).await? {
        found.push(Subject::Account(AccountKey(row.int()?)));
    }
    if let Some(mut row) = tx.fetch_one("select id from users order by id limit 1", values![]).await? {
        found.push(Subject::User(UserId(row.id()?)));
    }
    Ok(found)
}
