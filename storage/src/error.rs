//! What can go wrong with a store. No variant carries a row's content.

use crate::keyring::KeyringError;

/// Why a store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused or failed.
    #[error("database: {message}{}", code.as_ref().map(|c| format!(" (code {c})")).unwrap_or_default())]
    Database {
        /// The engine's own code.
        code: Option<String>,
        /// The engine's message, without its detail (which could quote a row).
        message: String,
    },
    /// It could not be reached; nothing is known to have happened.
    #[error("the database cannot be reached: {0}")]
    Unavailable(String),
    /// It was written by a newer program.
    #[error("database is at version {found}, this program knows {known}")]
    Newer {
        /// The version found.
        found: i64,
        /// The newest one this program knows.
        known: i64,
    },
    /// Its data was sealed with the keys of another key store.
    #[error("the data was sealed with other keys")]
    OtherKeys,
    /// A unique value is in use.
    #[error("this {0} is already taken")]
    Taken(&'static str),
    /// A rule forbids it.
    #[error("{0}")]
    Refused(&'static str),
    /// What was to be changed does not exist.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// A stored value is not what this program writes.
    #[error("unreadable value in {table}: {what}")]
    Unreadable {
        /// In which table.
        table: &'static str,
        /// Which value.
        what: &'static str,
    },
    /// A key is missing, destroyed or could not be stored.
    #[error(transparent)]
    Keys(#[from] KeyringError),
}

impl StoreError {
    /// A stored value is not what this program writes.
    pub(crate) const fn unreadable(table: &'static str, what: &'static str) -> Self {
        Self::Unreadable { table, what }
    }
}
