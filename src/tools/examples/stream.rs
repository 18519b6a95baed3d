//! An example as the bytes of the stream: one transaction, as pgoutput would have sent it (manual, section 55.9).

use crate::{
    lsn::Lsn,
    translate::{
        example::{Cells, ExampleSpec},
        mapping::{Mapping, RuleSpec},
        needs::needs,
        value::ValueSpec,
    },
};
use serde_json::Value;
use std::collections::BTreeMap;

/// Oids of built-in types (`src/include/catalog/pg_type.dat`).
const BOOL_OID: u32 = 16;
const INT8_OID: u32 = 20;
const TEXT_OID: u32 = 25;
const FLOAT8_OID: u32 = 701;
const JSONB_OID: u32 = 3802;

/// Where and when the transaction of an example commits: at a place and a time that are no one's.
const COMMIT_LSN: u64 = 0x200;
const END_LSN: u64 = 0x300;
const XID: u32 = 1;
/// The prefix of the context trigger, `sql/context.sql`.
const CONTEXT_PREFIX: &[u8] = b"portal_audit.ctx\0";

/// A table as far as an example shows it: its columns with the oids of their types.
type Columns = BTreeMap<String, u32>;

/// The messages of an example's transaction.
pub(super) fn messages(
    mapping: &Mapping,
    rule: &RuleSpec,
    example: &ExampleSpec,
) -> Result<Vec<(Lsn, Vec<u8>)>, String> {
    let tables = tables(mapping, rule, example);
    let oid = |table: &str| {
        let position = tables.keys().position(|name| name == table).unwrap_or_default();
        16_384 + u32::try_from(position).unwrap_or_default()
    };
    let no_columns = Columns::new();
    let columns = |table: &str| tables.get(table).unwrap_or(&no_columns);
    let mut out = Out::default();
    out.begin();
    for (table, columns) in &tables {
        out.relation(oid(table), table, columns)?;
    }
    for row in &example.beside {
        let table = row.table.get_ref();
        out.change(b'I', oid(table), None, Some(tuple(columns(table), &row.new)?));
    }
    let table = rule.table.get_ref();
    if let Some(caller) = &example.context {
        out.context(caller);
    }
    let (tag, old, new) = match (&example.old, &example.new) {
        (None, Some(new)) => (b'I', None, Some(new.clone())),
        (Some(old), None) => (b'D', Some(old.clone()), None),
        (old, new) => {
            let new = new.clone().unwrap_or_default();
            let mut before = new.clone();
            // A key is a name with its place, and equal names are equal wherever they stand.
            for (column, value) in old.iter().flatten() {
                before.insert(column.clone(), value.clone());
            }
            before.retain(|column, _| !example.null.contains(column));
            (b'U', Some(before), Some(new))
        }
    };
    let as_tuple =
        |cells: Option<Cells>| cells.map(|cells| tuple(columns(table), &cells)).transpose();
    out.change(tag, oid(table), as_tuple(old)?, as_tuple(new)?);
    out.commit();
    Ok(out.0)
}

/// Every table of the transaction with the columns that the mapping reads and those that the example names.
fn tables(mapping: &Mapping, rule: &RuleSpec, example: &ExampleSpec) -> BTreeMap<String, Columns> {
    let mut tables: BTreeMap<String, Columns> = BTreeMap::new();
    let beside = example.beside.iter().map(|row| (row.table.get_ref(), &row.new));
    let own = example.old.iter().chain(&example.new).map(|cells| (rule.table.get_ref(), cells));
    for (table, cells) in beside.chain(own) {
        let columns = tables.entry(table.clone()).or_default();
        for (column, value) in cells {
            columns.insert(column.get_ref().clone(), type_of(value));
        }
    }
    for column in &example.null {
        let columns = tables.entry(rule.table.get_ref().clone()).or_default();
        columns.entry(column.get_ref().clone()).or_insert(TEXT_OID);
    }
    let needed = needs(mapping);
    for (table, columns) in &mut tables {
        for column in needed.get(table).into_iter().flat_map(|needs| &needs.columns) {
            let is_json = rule.values().any(|value| {
                matches!(value.get_ref(), ValueSpec::Path { column: named, .. } if named.get_ref() == column)
            });
            let is_each = rule.each.as_ref().is_some_and(|each| each.column.get_ref() == column);
            let oid = if is_json || is_each { JSONB_OID } else { TEXT_OID };
            columns.entry(column.clone()).or_insert(oid);
        }
    }
    tables
}

fn type_of(value: &Value) -> u32 {
    match value {
        Value::Bool(_) => BOOL_OID,
        Value::Number(number) if number.is_f64() => FLOAT8_OID,
        Value::Number(_) => INT8_OID,
        Value::Array(_) | Value::Object(_) => JSONB_OID,
        Value::String(_) | Value::Null => TEXT_OID,
    }
}

/// PostgreSQL's text form of a value.
fn text_of(value: &Value) -> String {
    match value {
        Value::Bool(value) => if *value { "t" } else { "f" }.to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn tuple(columns: &Columns, cells: &Cells) -> Result<Vec<u8>, String> {
    let mut bytes = count(columns.len())?.to_be_bytes().to_vec();
    for column in columns.keys() {
        let cell = cells.iter().find(|(name, _)| name.get_ref() == column);
        match cell {
            None => bytes.push(b'n'),
            Some((_, value)) => {
                let text = text_of(value);
                bytes.push(b't');
                bytes.extend(length(text.len())?.to_be_bytes());
                bytes.extend(text.as_bytes());
            }
        }
    }
    Ok(bytes)
}

fn count(count: usize) -> Result<u16, String> {
    u16::try_from(count).map_err(|_more| "an example has more columns than a table may have".into())
}

fn length(length: usize) -> Result<u32, String> {
    u32::try_from(length)
        .map_err(|_more| "an example has a value longer than a table may hold".into())
}

/// Messages with their LSNs.
#[derive(Default)]
struct Out(Vec<(Lsn, Vec<u8>)>);

impl Out {
    /// LSNs rise from change to change, as in a log.
    fn push(&mut self, message: Vec<u8>) {
        let lsn = Lsn(0x100 + self.0.len() as u64);
        self.0.push((lsn, message));
    }

    fn begin(&mut self) {
        let time = 0_i64.to_be_bytes();
        self.push([&b"B"[..], &COMMIT_LSN.to_be_bytes(), &time, &XID.to_be_bytes()].concat());
    }

    fn commit(&mut self) {
        let (commit, end) = (COMMIT_LSN.to_be_bytes(), END_LSN.to_be_bytes());
        self.push([&b"C\0"[..], &commit, &end, &0_i64.to_be_bytes()].concat());
    }

    /// With replica identity FULL, so that an example may name any old value.
    fn relation(&mut self, oid: u32, table: &str, columns: &Columns) -> Result<(), String> {
        let (schema, name) = table.split_once('.').unwrap_or(("public", table));
        let mut bytes =
            [&b"R"[..], &oid.to_be_bytes(), schema.as_bytes(), b"\0", name.as_bytes(), b"\0f"]
                .concat();
        bytes.extend(count(columns.len())?.to_be_bytes());
        for (column, type_oid) in columns {
            let no_modifier = (-1_i32).to_be_bytes();
            bytes.extend(
                [&[1][..], column.as_bytes(), b"\0", &type_oid.to_be_bytes(), &no_modifier]
                    .concat(),
            );
        }
        self.push(bytes);
        Ok(())
    }

    fn change(&mut self, tag: u8, oid: u32, old: Option<Vec<u8>>, new: Option<Vec<u8>>) {
        let mut bytes = [&[tag][..], &oid.to_be_bytes()].concat();
        for (mark, tuple) in [(b'O', old), (b'N', new)] {
            if let Some(tuple) = tuple {
                bytes.push(mark);
                bytes.extend(tuple);
            }
        }
        self.push(bytes);
    }

    fn context(&mut self, caller: &str) {
        let content = serde_json::json!({ "caller": caller }).to_string();
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX).to_be_bytes();
        let lsn = COMMIT_LSN.to_be_bytes();
        self.push([&b"M\x01"[..], &lsn, CONTEXT_PREFIX, &length, content.as_bytes()].concat());
    }
}
