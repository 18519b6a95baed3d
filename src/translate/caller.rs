//! Who did it, as far as a transaction tells.
//!
//! The ladder, each rung recorded in `_audit.caller_from`: a column of the row (`row`), a row of the same transaction (`transaction`), a transactional logical message (`context`), nobody (`none`, caller `''`). Of the third [`super::context`] says more.

use super::{
    cascade::Deletions,
    context::Contexts,
    json::sha256_text,
    rule::{Collected, RowsKey},
};
use crate::{
    event::{INDEXED_TEXT_BYTES_MAX, looks_secret, push_json_string, push_text},
    timestamp::Timestamp,
    tuple::{Operation, Row, Value},
};
use sha2::{Digest as _, Sha256};
use std::{borrow::Cow, collections::HashMap};

/// A transaction's lists hold this many values in all, and this many bytes with their keys.
const COLLECTED_MAX: usize = 100_000;
const COLLECTED_BYTES_MAX: usize = 16 << 20;
/// Longest list in one payload.
pub const LIST_MAX: usize = 1_000;

/// What a whole transaction says of its changes; collected before any of them is translated, because a caller may come after the row.
#[derive(Debug, Default)]
pub struct Gathered {
    /// Who its contexts say is at work.
    pub contexts: Contexts,
    rows: HashMap<(usize, Operation, Vec<u8>), Vec<Vec<u8>>>,
    values: usize,
    bytes: usize,
    /// There were more rows than are kept, so that any list may lack some.
    is_cut: bool,
    pub deletions: Deletions,
}

impl Gathered {
    /// Takes a row that belongs to a list of another table's rule.
    pub fn add_row(&mut self, collected: &Collected, row: &Row<'_>, at: Timestamp) {
        let wanted = collected.on.is_empty() || collected.on.contains(&row.operation);
        if !wanted || !collected.when.iter().all(|condition| condition.holds(row, at)) {
            return;
        }
        let Value::Text(value) = row.value(collected.column) else { return };
        let Some(key) = joined_key(row, &collected.key, false) else { return };
        let bytes = key.len() + value.len();
        if self.values >= COLLECTED_MAX || self.bytes + bytes > COLLECTED_BYTES_MAX {
            self.is_cut = true;
            return;
        }
        // Rows of several operations are one list.
        let operation = collected.on.first().copied().unwrap_or(row.operation);
        let list = self.rows.entry((collected.slot, operation, key)).or_default();
        // One more than is shown says that there are more.
        if list.len() <= LIST_MAX && !list.iter().any(|item| item == value) {
            list.push(value.to_vec());
            self.values += 1;
            self.bytes += bytes;
        }
    }

    /// Whether rows of the transaction were left out, of whichever list.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The list that belongs to a row.
    #[must_use]
    pub fn rows(&self, rows: &RowsKey, row: &Row<'_>) -> &[Vec<u8>] {
        let operation = rows.on.first().copied().unwrap_or(row.operation);
        let list = joined_key(row, &rows.key, false)
            .and_then(|key| self.rows.get(&(rows.slot, operation, key)));
        list.map_or(&[], Vec::as_slice)
    }
}

/// A key longer than this stands as its hash, so that many of them fit into memory.
const JOINED_BYTES_MAX: usize = 256;

/// The values of a row's key columns as one, each behind its length; none if one of them is not there.
#[must_use]
pub fn joined_key(row: &Row<'_>, positions: &[usize], old: bool) -> Option<Vec<u8>> {
    let mut joined = Vec::new();
    for &position in positions {
        let value = if old { row.old_value(position) } else { row.value(position) };
        let Value::Text(value) = value else { return None };
        joined.extend_from_slice(&value.len().to_ne_bytes());
        joined.extend_from_slice(value);
    }
    if joined.len() > JOINED_BYTES_MAX {
        let hash = Sha256::digest(&joined);
        // No value has this length.
        joined = [&[u8::MAX; size_of::<usize>()][..], &hash].concat();
    }
    Some(joined)
}

/// The values of a row's key columns as 16 bytes: what a large transaction keeps of very many rows. Two different keys are the same with a chance of 2^-64 among four billion of them. `kind` tells keys of different kinds apart.
#[must_use]
pub fn short_key(kind: usize, row: &Row<'_>, positions: &[usize], old: bool) -> Option<[u8; 16]> {
    let joined = joined_key(row, positions, old)?;
    let hash = Sha256::new().chain_update(kind.to_ne_bytes()).chain_update(joined).finalize();
    hash.first_chunk().copied()
}

/// A key's text for the names map: what is not UTF-8 is escaped, so that two keys never fall together, and one too long for an index stands as its hash. So does one that looks like a secret, for keys are stored.
#[must_use]
pub fn key_text(value: &[u8]) -> Cow<'_, str> {
    if looks_secret(value) {
        return format!("sha256:{}", sha256_text(value)).into();
    }
    match std::str::from_utf8(value) {
        Ok(text) if text.len() <= INDEXED_TEXT_BYTES_MAX => text.into(),
        _ => {
            let mut text = String::new();
            push_json_string(&mut text, value, INDEXED_TEXT_BYTES_MAX);
            if text.len() > INDEXED_TEXT_BYTES_MAX {
                // The escapes made it longer.
                text.clear();
                push_json_string(&mut text, value, 0);
            }
            text.into()
        }
    }
}

/// A name for the names map, cut as `subject` and `target` are.
#[must_use]
pub fn name_text(value: &[u8]) -> Cow<'_, str> {
    let mut text = String::new();
    push_text(&mut text, value, INDEXED_TEXT_BYTES_MAX);
    text.into()
}

#[cfg(test)]
mod tests {
    use super::key_text;

    #[test]
    fn keys_that_look_secret_are_not_stored_and_stay_apart() {
        let (one, two) = (key_text(b"ghp_one"), key_text(b"ghp_two"));
        assert!(one.starts_with("sha256:") && !one.contains("ghp") && one != two);
        assert_eq!(key_text(b"plain"), "plain");
    }
}
