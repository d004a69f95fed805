//! What a batch writes, as one statement: the server is asked once, and commits with its answer. Each kind of row is a part of it, so
//! there is one text for each set of kinds that occur together.

use super::Trouble;
use super::columns::{Column, arguments, columns};
use crate::journal::encode::{CALL_UPDATED, ENTRY_COLUMNS, Form, Rows, Write};
use crate::sql::{Value, values};
use sqlx::Arguments as _;
use sqlx::postgres::PgArguments;
use std::collections::BTreeMap;

/// A statement with its values. It writes all of its rows or, with a division by zero, none.
pub(super) struct Statement {
    pub(super) text: String,
    pub(super) arguments: PgArguments,
}

/// `None` when there is nothing to write.
pub(super) fn statement<'e>(rows: impl Iterator<Item = &'e Rows>) -> Result<Option<Statement>, Trouble> {
    let (mut entries, mut calls) = (Vec::new(), Calls::default());
    let mut by_kind: BTreeMap<Write, Vec<Vec<Value>>> = BTreeMap::new();
    for (write, values) in rows.flatten() {
        match (write, values.as_slice()) {
            (Write::Entry | Write::Hold | Write::Transfer, _) => entries.push(entry_row(*write, values)?),
            // It stands behind its entry's first row.
            (Write::Event, [.., payload]) => *last_of(entries.last_mut())? = payload.clone(),
            (Write::CallInsert | Write::CallUpdate | Write::CallDelete, _) => calls.fold(*write, values)?,
            _ => by_kind.entry(*write).or_default().push(values.clone()),
        }
    }
    if entries.is_empty() {
        return Ok(None);
    }
    calls.unfold(&mut by_kind);
    let mut parts = Parts::default();
    parts.add_entries(entries);
    for (write, rows) in by_kind {
        parts.add(write, rows);
    }
    parts.finish().map(Some)
}

fn last_of(row: Option<&mut Vec<Value>>) -> Result<&mut Value, Trouble> {
    row.and_then(|row| row.last_mut()).ok_or(Trouble::Contradiction)
}

/// Values of [`ENTRY_COLUMNS`], null what this kind of row does not say, and room for the event's payload.
fn entry_row(write: Write, values: &[Value]) -> Result<Vec<Value>, Trouble> {
    const COMMON: usize = 11;
    let (common, own) = values.split_at_checked(COMMON).ok_or(Trouble::Contradiction)?;
    let mut row = common.to_vec();
    match (write, own) {
        (Write::Transfer, own) => {
            row.extend_from_slice(own);
            row.extend(values![None::<i64>, None::<i64>]);
        }
        (Write::Hold, [amount, leg, step]) => {
            row.push(amount.clone());
            row.extend(no_transfer());
            row.extend([leg.clone(), step.clone()]);
        }
        _ => {
            row.push(Value::Int(None));
            row.extend(no_transfer());
            row.extend(values![None::<i64>, None::<i64>]);
        }
    }
    row.push(Value::Bytes(None));
    Ok(row)
}

/// From `transfer` to `description`.
fn no_transfer() -> [Value; 12] {
    use Value::{Bytes, Id, Int, Text};
    [
        Id(None),
        Text(None),
        Text(None),
        Text(None),
        Id(None),
        Int(None),
        Text(None),
        Int(None),
        Text(None),
        Bytes(None),
        Int(None),
        Text(None),
    ]
}

/// The statement as far as it is made. Each part returns a row for each that it wrote.
#[derive(Default)]
struct Parts {
    texts: Vec<String>,
    counted: Vec<String>,
    arguments: Vec<Column>,
    rows: i64,
}

impl Parts {
    /// `unnest` of further arguments.
    fn unnest(&mut self, rows: Vec<Vec<Value>>) -> String {
        let columns = columns(rows);
        let from = self.arguments.len() + 1;
        let arrays: Vec<_> = (from..).zip(&columns).map(|(n, column)| format!("${n}::{}", column.array())).collect();
        self.arguments.extend(columns);
        format!("unnest({})", arrays.join(", "))
    }

    fn counted(&mut self, name: &str, text: &str) {
        self.texts.push(format!("{name} as ({text} returning 1)"));
        self.counted.push(format!("(select count(*) from {name})"));
    }

    /// Entries take their numbers here, since those of their events are the same.
    fn add_entries(&mut self, rows: Vec<Vec<Value>>) {
        self.rows += rows.len() as i64;
        let told = rows.iter().filter(|row| !matches!(row.last(), Some(Value::Bytes(None)))).count() as i64;
        let unnest = self.unnest(rows);
        self.texts.push(format!(
            "numbered as materialized (select nextval('entries_id_seq') as id, u.* from {unnest} as u({ENTRY_COLUMNS}, payload))"
        ));
        let into = format!(
            "insert into entries (id, {ENTRY_COLUMNS}) overriding system value select id, {ENTRY_COLUMNS} from numbered"
        );
        self.counted("entries_written", &into);
        if told > 0 {
            self.rows += told;
            let into = "insert into events (id, payload) select id, payload from numbered where payload is not null";
            self.counted("events_written", into);
        }
    }

    fn add(&mut self, write: Write, rows: Vec<Vec<Value>>) {
        self.rows += rows.len() as i64;
        let unnest = self.unnest(rows);
        let name = format!("part_{}", self.texts.len());
        let text = match write.form() {
            Form::Insert(into, rest) => format!("insert into {into} select * from {unnest} where true{rest}"),
            Form::UpdateCall => update_calls(&unnest),
            Form::DeleteCall => delete_calls(&unnest),
            Form::InsertEvent => unreachable!("an event goes with its entry"),
        };
        self.counted(&name, &text);
    }

    fn finish(self) -> Result<Statement, Trouble> {
        let (texts, counted, n) = (self.texts.join(", "), self.counted.join(" + "), self.arguments.len() + 1);
        let text = format!("with {texts} select 1 / (case when {counted} = ${n} then 1 else 0 end)");
        let mut arguments = arguments(self.arguments)?;
        arguments.add(self.rows).map_err(sqlx::Error::Encode)?;
        Ok(Statement { text, arguments })
    }
}

/// Each row is looked for by its key, whatever the server has counted of the table: it is emptied as fast as it is filled.
fn placed(unnest: &str, columns: &str) -> String {
    format!(
        "(select u.*, (select l.ctid from calls l where l.account_key = u.account_key and l.no = u.no) as place \
         from {unnest} as u({columns}) offset 0) u"
    )
}

fn update_calls(unnest: &str) -> String {
    let set = CALL_UPDATED.map(|column| format!("{column} = coalesce(u.{column}, c.{column})")).join(", ");
    let from = placed(unnest, &format!("{}, account_key, no, before", CALL_UPDATED.join(", ")));
    format!(
        "update calls c set {set} from {from} where c.ctid = u.place and c.hold_step = coalesce(u.before, c.hold_step)"
    )
}

fn delete_calls(unnest: &str) -> String {
    let using = placed(unnest, "account_key, no");
    format!("delete from calls c using {using} where c.ctid = u.place")
}

/// What becomes of live calls in a batch: one call may be inserted, changed and deleted in it.
#[derive(Default)]
struct Calls(BTreeMap<(i64, i64), Net>);

enum Net {
    Insert(Vec<Value>),
    Update(Vec<Value>),
    Delete(Vec<Value>),
    /// Begun and over within the batch.
    Nothing,
}

impl Calls {
    fn fold(&mut self, write: Write, values: &[Value]) -> Result<(), Trouble> {
        let place = if write == Write::CallUpdate { CALL_UPDATED.len() } else { 0 };
        let [Value::Int(Some(account)), Value::Int(Some(no)), ..] = values[place..] else {
            return Err(Trouble::Contradiction);
        };
        let before = self.0.remove(&(account, no));
        let net = match (before, write) {
            (None, Write::CallInsert) => Net::Insert(values.to_vec()),
            (None, Write::CallUpdate) => Net::Update(values.to_vec()),
            (Some(Net::Update(mut row)), Write::CallUpdate) => {
                // From the step before the first to that after the last.
                let [changed @ .., _, _, before] = &mut row[..] else { return Err(Trouble::Contradiction) };
                if is_null(before) {
                    *before = values[place + 2].clone();
                } else {
                    follows(&changed[1], &values[place + 2])?;
                }
                overlay(changed, values);
                Net::Update(row)
            }
            (None | Some(Net::Update(_)), Write::CallDelete) => Net::Delete(values.to_vec()),
            (Some(Net::Insert(mut row)), Write::CallUpdate) => {
                // What changes stands behind `account_key, no, id`.
                follows(&row[4], &values[place + 2])?;
                overlay(&mut row[3..], values);
                Net::Insert(row)
            }
            (Some(Net::Insert(_)), Write::CallDelete) => Net::Nothing,
            _ => return Err(Trouble::Contradiction),
        };
        self.0.insert((account, no), net);
        Ok(())
    }

    fn unfold(self, by_kind: &mut BTreeMap<Write, Vec<Vec<Value>>>) {
        for net in self.0.into_values() {
            let (write, row) = match net {
                Net::Insert(row) => (Write::CallInsert, row),
                Net::Update(row) => (Write::CallUpdate, row),
                Net::Delete(row) => (Write::CallDelete, row),
                Net::Nothing => continue,
            };
            by_kind.entry(write).or_default().push(row);
        }
    }
}

/// A change begins at the step to which the one before it came; one of dialogs alone has no step.
fn follows(came_to: &Value, from: &Value) -> Result<(), Trouble> {
    match (came_to, from) {
        (Value::Int(came_to), Value::Int(from)) if came_to == from || from.is_none() => Ok(()),
        _ => Err(Trouble::Contradiction),
    }
}

/// What is not null replaces what is there.
fn overlay(row: &mut [Value], newer: &[Value]) {
    for (value, newer) in row.iter_mut().zip(newer).filter(|(_, newer)| !is_null(newer)) {
        *value = newer.clone();
    }
}

const fn is_null(value: &Value) -> bool {
    matches!(value, Value::Int(None) | Value::Id(None) | Value::Bytes(None))
}
