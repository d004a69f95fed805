//! Forward-only migrations. A database knows what it is for and its version; one that is newer than this program is refused.

use super::{Db, values};
use crate::error::StoreError;

/// The versions of one kind of database, from 1.
pub(crate) struct Migrations {
    kind: &'static str,
    sqlite: &'static [&'static str],
    postgres: &'static [&'static str],
}

/// The data.
pub(crate) const DATA: Migrations = Migrations {
    kind: "data",
    sqlite: &[
        include_str!("../../../schema/migrations/sqlite/0001_initial.sql"),
        include_str!("../../../schema/migrations/sqlite/0002_key_store.sql"),
    ],
    postgres: &[
        include_str!("../../../schema/migrations/postgres/0001_initial.sql"),
        include_str!("../../../schema/migrations/postgres/0002_key_store.sql"),
        include_str!("../../../schema/migrations/postgres/0003_sealed_as_is.sql"),
    ],
};

/// The keys of the data's sealed columns, never in the same database.
pub(crate) const KEYS: Migrations = Migrations {
    kind: "keys",
    sqlite: &[include_str!("../../../schema/migrations/sqlite/keys/0001_initial.sql")],
    postgres: &[include_str!("../../../schema/migrations/postgres/keys/0001_initial.sql")],
};

/// Brings a database to this program's version, all steps in one transaction.
///
/// # Errors
/// [`StoreError::Newer`]; or it is a database of the other kind; or a step failed, then nothing is changed.
pub(crate) async fn migrate(db: &Db, migrations: &Migrations) -> Result<(), StoreError> {
    let steps = match db {
        Db::Sqlite(_) => migrations.sqlite,
        Db::Postgres(_) => migrations.postgres,
    };
    let known = i64::try_from(steps.len()).unwrap_or(i64::MAX);
    let mut tx = db.write().await?;
    if matches!(db, Db::Postgres(_)) {
        // Two programs that start at the same moment: one waits for the other.
        tx.script("select pg_advisory_xact_lock(7241)").await?;
    }
    tx.script("create table if not exists schema_version (kind text primary key, version bigint not null)").await?;
    let mut found = 0;
    for mut row in tx.fetch("select kind, version from schema_version", values![]).await? {
        let (kind, version) = (row.text()?, row.int()?);
        if kind != migrations.kind {
            return Err(StoreError::Refused("data and keys do not belong in one database"));
        }
        found = version;
    }
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    for step in steps.iter().skip(usize::try_from(found).unwrap_or(0)) {
        tx.script(step).await?;
    }
    if found < known {
        let text = "insert into schema_version (kind, version) values ($1, $2) on conflict (kind) do update set version = excluded.version";
        tx.execute(text, values![migrations.kind, known]).await?;
    }
    tx.commit().await
}
