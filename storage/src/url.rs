//! Where the data lives: configuration key `database.url`.

use std::fmt;
use std::path::{Path, PathBuf};

/// A checked `database.url`. `Debug` shows no password.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// `sqlite://PATH`: a file, created when it is missing.
    Sqlite(PathBuf),
    /// `postgres://…`: as libpq understands it.
    Postgres(String),
}

/// Why a text is no database URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseUrlError {
    /// Neither of the known schemes.
    #[error("a database url begins with sqlite:// or postgres://")]
    Scheme,
    /// Nothing follows the scheme.
    #[error("a sqlite:// url names a file")]
    NoFile,
}

impl DatabaseUrl {
    /// Reads `sqlite://PATH` or `postgres://…` (`postgresql://…`).
    ///
    /// # Errors
    /// What is wrong with it, without the text itself (it may hold a password).
    pub fn parse(text: &str) -> Result<Self, DatabaseUrlError> {
        if let Some(path) = text.strip_prefix("sqlite://") {
            return if path.is_empty() { Err(DatabaseUrlError::NoFile) } else { Ok(Self::Sqlite(PathBuf::from(path))) };
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(text.to_owned()));
        }
        Err(DatabaseUrlError::Scheme)
    }

    /// A SQLite file.
    #[must_use]
    pub fn sqlite(path: impl AsRef<Path>) -> Self {
        Self::Sqlite(path.as_ref().to_owned())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            Self::Postgres(_) => f.write_str("postgres://…"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_two_schemes_are_read() {
        assert_eq!(DatabaseUrl::parse("sqlite:///a/b.db"), Ok(DatabaseUrl::sqlite("/a/b.db")));
        assert_eq!(DatabaseUrl::parse("sqlite://b.db"), Ok(DatabaseUrl::sqlite("b.db")));
        assert_eq!(DatabaseUrl::parse("sqlite://"), Err(DatabaseUrlError::NoFile));
        assert_eq!(DatabaseUrl::parse("mysql://x"), Err(DatabaseUrlError::Scheme));
    }

    #[test]
    fn p3_debug_of_a_url_shows_no_password() {
        let url = DatabaseUrl::parse("postgres://me:secret@db/x").expect("valid");
        assert!(!format!("{url:?}").contains("secret"));
    }
}
