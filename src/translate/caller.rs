//! Who did it, as far as a transaction tells.
//!
//! The ladder, each rung recorded in `_audit.caller_from`: a column of the row (`row`), a row of the same transaction (`transaction`), a transactional logical message (`context`), nobody (`none`, caller `''`). A context is evidence, not proof: any role may emit one. So it never outranks a row, and one that cannot be read counts for nothing.

use super::{
    cascade::Deletions,
    rule::{Collected, RowsKey},
};
use crate::{
    event::{INDEXED_TEXT_BYTES_MAX, push_json_string, push_text},
    timestamp::Timestamp,
    tuple::{Operation, Row, Value},
};
use serde::Deserialize;
use std::{borrow::Cow, collections::HashMap};

/// The prefix of our own context trigger, `sql/context.sql`.
const CONTEXT_PREFIX: &[u8] = b"portal_audit.ctx";
/// Larger contexts, and more than this many different ones in a transaction, are not read.
const CONTEXT_BYTES_MAX: usize = 16 * 1024;
const CONTEXTS_MAX: usize = 1_000;
/// A transaction's lists hold this many values in all, and this many bytes with their keys.
const COLLECTED_MAX: usize = 100_000;
const COLLECTED_BYTES_MAX: usize = 16 << 20;
/// Longest list in one payload.
pub const LIST_MAX: usize = 1_000;

/// What a context says. The statement it belongs to is optional.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Context {
    caller: Option<String>,
    #[serde(rename = "s")]
    schema: Option<String>,
    #[serde(rename = "t")]
    table: Option<String>,
    op: Option<String>,
}

/// What a whole transaction says of its changes; collected before any of them is translated, because a caller may come after the row.
#[derive(Debug, Default)]
pub struct Gathered {
    contexts: Vec<Context>,
    /// There were more contexts than are read: then none of them is believed.
    too_many: bool,
    rows: HashMap<(usize, Operation, Vec<u8>), Vec<Vec<u8>>>,
    values: usize,
    bytes: usize,
    /// There were more rows than are kept, so that any list may lack some.
    is_cut: bool,
    pub deletions: Deletions,
}

impl Gathered {
    /// Takes a transactional logical message; those of others are none of our business.
    pub fn add_message(&mut self, prefix: &[u8], content: &[u8]) {
        if prefix != CONTEXT_PREFIX || content.len() > CONTEXT_BYTES_MAX {
            return;
        }
        let Ok(context) = serde_json::from_slice::<Context>(content) else { return };
        if self.contexts.len() >= CONTEXTS_MAX {
            self.too_many = true;
        } else if !self.contexts.contains(&context) {
            self.contexts.push(context);
        }
    }

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

    /// The caller that the contexts of the transaction name for a change.
    ///
    /// If all name one, it is that one. Otherwise those of the statement's own table and operation decide, if they agree.
    #[must_use]
    pub fn context_caller(&self, row: &Row<'_>) -> Option<&str> {
        if self.too_many {
            return None;
        }
        let caller = match agreed(self.contexts.iter())? {
            Some(caller) => caller,
            None => agreed(self.contexts.iter().filter(|context| context.is_about(row)))??,
        };
        caller.as_deref().filter(|caller| !caller.is_empty())
    }
}

/// The caller on whom contexts agree: none without contexts, `Some(None)` if they differ. One that names nobody differs from one that does.
fn agreed<'a>(contexts: impl Iterator<Item = &'a Context>) -> Option<Option<&'a Option<String>>> {
    let mut callers = contexts.map(|context| &context.caller);
    let first = callers.next()?;
    Some(callers.all(|caller| caller == first).then_some(first))
}

impl Context {
    fn is_about(&self, row: &Row<'_>) -> bool {
        self.schema.as_ref().is_some_and(|schema| *schema == row.relation.namespace)
            && self.table.as_ref().is_some_and(|table| *table == row.relation.name)
            && self.op.as_ref().is_some_and(|op| op.eq_ignore_ascii_case(row.operation.name()))
    }
}

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
    Some(joined)
}

/// A key's text for the names map: what is not UTF-8 is escaped, so that two keys never fall together, and one too long for an index stands as its hash.
#[must_use]
pub fn key_text(value: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(value) {
        Ok(text) if text.len() <= INDEXED_TEXT_BYTES_MAX => text.into(),
        _ => {
            let mut text = String::new();
            push_json_string(&mut text, value, INDEXED_TEXT_BYTES_MAX);
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
