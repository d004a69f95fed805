//! Values to bind and rows to read, the same for both engines.

use super::failed;
use crate::error::StoreError;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments, Row as _};
use uuid::Uuid;

/// A value to bind. The engines need the type of a null.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Int(Option<i64>),
    Text(Option<String>),
    /// A text that is one of a few.
    Word(&'static str),
    Bytes(Option<Vec<u8>>),
    Id(Option<Uuid>),
    Bool(bool),
}

/// A row, read from its first column to its last.
pub(crate) struct Row {
    row: EngineRow,
    column: usize,
}

enum EngineRow {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

pub(super) fn sqlite(values: Vec<Value>) -> Result<SqliteArguments, StoreError> {
    let mut arguments = SqliteArguments::default();
    for value in values {
        let added = match value {
            Value::Int(v) => Arguments::add(&mut arguments, v),
            Value::Text(v) => Arguments::add(&mut arguments, v),
            Value::Word(v) => Arguments::add(&mut arguments, v),
            Value::Bytes(v) => Arguments::add(&mut arguments, v),
            Value::Id(v) => Arguments::add(&mut arguments, v),
            Value::Bool(v) => Arguments::add(&mut arguments, v),
        };
        added.map_err(sqlx::Error::Encode).map_err(failed)?;
    }
    Ok(arguments)
}

pub(super) fn postgres(values: Vec<Value>) -> Result<PgArguments, StoreError> {
    let mut arguments = PgArguments::default();
    for value in values {
        let added = match value {
            Value::Int(v) => Arguments::add(&mut arguments, v),
            Value::Text(v) => Arguments::add(&mut arguments, v),
            Value::Word(v) => Arguments::add(&mut arguments, v),
            Value::Bytes(v) => Arguments::add(&mut arguments, v),
            Value::Id(v) => Arguments::add(&mut arguments, v),
            Value::Bool(v) => Arguments::add(&mut arguments, v),
        };
        added.map_err(sqlx::Error::Encode).map_err(failed)?;
    }
    Ok(arguments)
}

impl Row {
    pub(super) const fn sqlite(row: SqliteRow) -> Self {
        Self { row: EngineRow::Sqlite(row), column: 0 }
    }

    pub(super) const fn postgres(row: PgRow) -> Self {
        Self { row: EngineRow::Postgres(row), column: 0 }
    }
}

macro_rules! next_column {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {$(
        $(#[$doc])*
        pub(crate) fn $name(&mut self) -> Result<$type, StoreError> {
            let column = self.column;
            self.column += 1;
            match &self.row {
                EngineRow::Sqlite(row) => row.try_get(column).map_err(failed),
                EngineRow::Postgres(row) => row.try_get(column).map_err(failed),
            }
        }
    )*};
}

impl Row {
    next_column! {
        int: i64;
        opt_int: Option<i64>;
        text: String;
        opt_text: Option<String>;
        bytes: Vec<u8>;
        opt_bytes: Option<Vec<u8>>;
        id: Uuid;
        opt_id: Option<Uuid>;
        bool: bool;
    }

    /// A column that holds one of a type's words.
    pub(crate) fn word<T>(&mut self, table: &'static str, parse: impl Fn(&str) -> Option<T>) -> Result<T, StoreError> {
        parse(&self.text()?).ok_or(StoreError::unreadable(table, "an unknown word"))
    }

    /// A count that fits its type.
    pub(crate) fn small<T: TryFrom<i64>>(&mut self, table: &'static str) -> Result<T, StoreError> {
        T::try_from(self.int()?).map_err(|_| StoreError::unreadable(table, "a number out of range"))
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}
impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Int(Some(i64::from(value)))
    }
}
impl From<Option<i64>> for Value {
    fn from(value: Option<i64>) -> Self {
        Self::Int(value)
    }
}
impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}
impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.to_owned()))
    }
}
impl From<Option<&str>> for Value {
    fn from(value: Option<&str>) -> Self {
        Self::Text(value.map(str::to_owned))
    }
}
impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Self::Bytes(Some(value))
    }
}
impl From<[u8; 32]> for Value {
    fn from(value: [u8; 32]) -> Self {
        Self::Bytes(Some(value.to_vec()))
    }
}
impl From<Option<Vec<u8>>> for Value {
    fn from(value: Option<Vec<u8>>) -> Self {
        Self::Bytes(value)
    }
}
impl From<Uuid> for Value {
    fn from(value: Uuid) -> Self {
        Self::Id(Some(value))
    }
}
impl From<Option<Uuid>> for Value {
    fn from(value: Option<Uuid>) -> Self {
        Self::Id(value)
    }
}
