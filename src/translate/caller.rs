//! Who did it, as far as a transaction tells.
//!
//! The ladder, each rung recorded in `_audit.caller_from`: a column of the row (`row`), a row of the same transaction (`transaction`), a transactional logical message (`context`), nobody (`none`, caller `''`). A context is evidence, not proof: any role may emit one. So it never outranks a row, and one that cannot be read counts for nothing.

use super::rule::Collected;
use crate::tuple::{Operation, Row, Value};
use serde::Deserialize;
use std::{borrow::Cow, collections::HashMap};

/// The prefix of our own context trigger, `sql/context.sql`.
const CONTEXT_PREFIX: &[u8] = b"portal_audit.ctx";
/// Larger contexts, and more than this many different ones in a transaction, are not read.
const CONTEXT_BYTES_MAX: usize = 16 * 1024;
const CONTEXTS_MAX: usize = 1_000;
/// A transaction's lists hold this many values in all, and each of them this many.
const COLLECTED_MAX: usize = 100_000;
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
    rows: HashMap<(usize, Operation, Vec<u8>), Vec<String>>,
    values: usize,
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
    pub fn add_row(&mut self, collected: &Collected, row: &Row<'_>) {
        let wanted = !collected.inserts_only || row.operation == Operation::Insert;
        if !wanted || !collected.when.iter().all(|condition| condition.holds(row)) {
            return;
        }
        let Value::Text(value) = row.value(collected.column) else { return };
        let Some(key) = joined_key(row, &collected.key) else { return };
        let list = self.rows.entry((collected.slot, row.operation, key)).or_default();
        // One more than is shown says that there are more.
        if list.len() <= LIST_MAX && self.values < COLLECTED_MAX {
            list.push(String::from_utf8_lossy(value).into_owned());
            self.values += 1;
        }
    }

    /// The list that belongs to a row.
    #[must_use]
    pub fn rows(&self, slot: usize, key: &[usize], row: &Row<'_>) -> &[String] {
        let list = joined_key(row, key).and_then(|key| self.rows.get(&(slot, row.operation, key)));
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
fn joined_key(row: &Row<'_>, positions: &[usize]) -> Option<Vec<u8>> {
    let mut joined = Vec::new();
    for &position in positions {
        let Value::Text(value) = row.value(position) else { return None };
        joined.extend_from_slice(&value.len().to_ne_bytes());
        joined.extend_from_slice(value);
    }
    Some(joined)
}

/// A key's text for the names map.
#[must_use]
pub fn key_text(value: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(value)
}
