//! Rows remembered: old values that a replica identity does not carry.
//!
//! # Why
//! Whether an UPDATE moved an expiry, and what a deleted row held, is not in the log unless the identity carries it; FULL would put the whole old row into the WAL of each UPDATE and DELETE. A few small columns are remembered here instead, by the row's key, among the names of the source.

use super::{
    document::redact,
    lookup::columns_key,
    names::{NameKey, NameRow, Names},
};
use crate::{
    event::push_json_string,
    tuple::{Operation, RememberedValue, Row, Value},
};

/// A longer value is not remembered: then its old value is not known.
const VALUE_BYTES_MAX: usize = 4_096;

/// Who knows what is remembered.
pub trait Known {
    /// `None`: it is not in memory. `Some(None)`: there is nothing.
    fn name(&self, names: usize, key: &str) -> Option<Option<&str>>;
}

impl Known for Names {
    fn name(&self, names: usize, key: &str) -> Option<Option<&str>> {
        self.peek(names, key)
    }
}

/// What is remembered of a table's rows, compiled.
#[derive(Debug)]
pub struct Remember {
    /// Place among the kinds of names.
    pub names: usize,
    /// The columns of the replica identity.
    pub key: Vec<usize>,
    pub columns: Vec<usize>,
}

impl Remember {
    /// What is known of the row before the change; `Err` is the key to ask for.
    ///
    /// # Errors
    /// It is not in memory.
    pub fn before(
        &self,
        row: &Row<'_>,
        known: &impl Known,
    ) -> Result<Vec<(usize, RememberedValue)>, NameKey> {
        if row.operation == Operation::Insert {
            return Ok(Vec::new());
        }
        let Some(key) = columns_key(row, &self.key, true) else { return Ok(Vec::new()) };
        match known.name(self.names, &key) {
            None => Err(NameKey { names: self.names, key }),
            Some(None) => Ok(Vec::new()),
            Some(Some(text)) => Ok(self.read(text)),
        }
    }

    /// What to keep of the row after the change, and what to forget.
    pub fn after(&self, row: &Row<'_>, keep: &mut dyn FnMut(NameRow)) {
        let before = columns_key(row, &self.key, true);
        let before = before.filter(|_| row.operation != Operation::Insert);
        let after = columns_key(row, &self.key, false);
        let after = after.filter(|_| row.operation != Operation::Delete);
        if let Some(key) = before.filter(|before| after.as_ref() != Some(before)) {
            keep(NameRow { names: self.names, key, name: None });
        }
        if let Some(key) = after {
            keep(NameRow { names: self.names, key, name: Some(self.text(row).into()) });
        }
    }

    /// Keeps it, if it is not what is known already.
    pub fn keep(&self, row: &Row<'_>, names: &mut Names, rows: &mut Vec<NameRow>) {
        self.after(row, &mut |kept| {
            if names.peek(kept.names, &kept.key) != Some(kept.name.as_deref()) {
                names.put(kept.names, &kept.key, kept.name.clone());
                rows.push(kept);
            }
        });
    }

    /// A JSON list of the columns: a text, `null`, or 0 for what is not known.
    pub(super) fn text(&self, row: &Row<'_>) -> String {
        let mut text = String::from("[");
        for (index, &position) in self.columns.iter().enumerate() {
            text.push_str(if index > 0 { "," } else { "" });
            match row.value(position) {
                Value::Null => text.push_str("null"),
                Value::Text(value) if value.len() <= VALUE_BYTES_MAX => {
                    // What a JSON document holds is looked at string by string; in one that is none, nothing is found.
                    let (value, _) = redact(value);
                    push_json_string(&mut text, &value, usize::MAX);
                }
                Value::Text(_) | Value::Absent => text.push('0'),
            }
        }
        text.push(']');
        text
    }

    pub(super) fn read(&self, text: &str) -> Vec<(usize, RememberedValue)> {
        let values: Vec<serde_json::Value> = serde_json::from_str(text).unwrap_or_default();
        let pairs = self.columns.iter().copied().zip(values);
        let known = pairs.filter_map(|(position, value)| match value {
            serde_json::Value::Null => Some((position, None)),
            serde_json::Value::String(text) => Some((position, Some(text.into_bytes()))),
            _ => None,
        });
        known.collect()
    }
}
