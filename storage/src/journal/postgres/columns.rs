//! Rows as columns: one array for each, for `unnest`.

use crate::sql::Value;
use sqlx::Arguments;
use sqlx::postgres::PgArguments;
use uuid::Uuid;

/// One column of many rows.
pub(super) enum Column {
    Ints(Vec<Option<i64>>),
    Texts(Vec<Option<String>>),
    Bytes(Vec<Option<Vec<u8>>>),
    Ids(Vec<Option<Uuid>>),
    Bools(Vec<Option<bool>>),
}

impl Column {
    fn starting_with(value: Value, rows: usize) -> Self {
        let mut column = match value {
            Value::Int(_) => Self::Ints(Vec::with_capacity(rows)),
            Value::Text(_) | Value::Word(_) => Self::Texts(Vec::with_capacity(rows)),
            Value::Bytes(_) => Self::Bytes(Vec::with_capacity(rows)),
            Value::Id(_) => Self::Ids(Vec::with_capacity(rows)),
            Value::Bool(_) => Self::Bools(Vec::with_capacity(rows)),
        };
        column.push(value);
        column
    }

    fn push(&mut self, value: Value) {
        match (self, value) {
            (Self::Ints(column), Value::Int(v)) => column.push(v),
            (Self::Texts(column), Value::Text(v)) => column.push(v),
            (Self::Texts(column), Value::Word(v)) => column.push(Some(v.to_owned())),
            (Self::Bytes(column), Value::Bytes(v)) => column.push(v),
            (Self::Ids(column), Value::Id(v)) => column.push(v),
            (Self::Bools(column), Value::Bool(v)) => column.push(Some(v)),
            _ => unreachable!("a column has one type"),
        }
    }

    pub(super) const fn array(&self) -> &'static str {
        match self {
            Self::Ints(_) => "bigint[]",
            Self::Texts(_) => "text[]",
            Self::Bytes(_) => "bytea[]",
            Self::Ids(_) => "uuid[]",
            Self::Bools(_) => "boolean[]",
        }
    }
}

pub(super) fn columns(rows: Vec<Vec<Value>>) -> Vec<Column> {
    let count = rows.len();
    let mut rows = rows.into_iter();
    let first = rows.next().unwrap_or_default();
    let mut columns: Vec<_> = first.into_iter().map(|value| Column::starting_with(value, count)).collect();
    for row in rows {
        for (column, value) in columns.iter_mut().zip(row) {
            column.push(value);
        }
    }
    columns
}

pub(super) fn arguments(columns: impl IntoIterator<Item = Column>) -> Result<PgArguments, sqlx::Error> {
    let mut arguments = PgArguments::default();
    for column in columns {
        let added = match column {
            Column::Ints(column) => arguments.add(column),
            Column::Texts(column) => arguments.add(column),
            Column::Bytes(column) => arguments.add(column),
            Column::Ids(column) => arguments.add(column),
            Column::Bools(column) => arguments.add(column),
        };
        added.map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}
