//! The names that rows give.

use super::{
    Batch, Table, Translator,
    caller::name_text,
    json::{name_list, plain_text},
    lookup::columns_key,
    names::NameRow,
    rule::Source,
    written::Written,
};
use crate::tuple::{Operation, Row, Value};
use std::sync::Arc;

/// Longest list that is kept as a name, in bytes of JSON. No index holds it.
const NAME_LIST_BYTES_MAX: usize = 16_384;

impl Translator {
    /// The names that a row gives: first of all that is done with it.
    pub(super) fn feed_names(&mut self, table: &Table, row: &Row<'_>, batch: &mut Batch) {
        self.written.clear();
        for feed in table.feeds.iter().filter(|_| row.operation != Operation::Delete) {
            let key = columns_key(row, &feed.key, false);
            let (Some(key), Some(name)) = (key, feed_name(&feed.name, row, &mut self.written))
            else {
                continue;
            };
            if self.names.peek(feed.names, &key) != Some(name.as_deref()) {
                self.names.put(feed.names, &key, name.clone());
                batch.names.push(NameRow { names: feed.names, key, name });
            }
        }
    }
}

/// The name that a row gives, cut to what a names table holds. `Some(None)`: it says that there is none, so that a key that comes back does not bear the name of its forerunner.
fn feed_name(source: &Source, row: &Row<'_>, written: &mut Written) -> Option<Option<Arc<str>>> {
    if let Source::Column { position, .. }
    | Source::Label { position, .. }
    | Source::Path { position, .. }
    | Source::Sha256 { position, .. } = source
    {
        match row.value(*position) {
            Value::Absent => return None,
            Value::Null => return Some(None),
            Value::Text(_) => {}
        }
    }
    if let Source::Path { position, path, list: true, .. } = source {
        let Value::Text(value) = row.value(*position) else { return None };
        return name_list(value, path, NAME_LIST_BYTES_MAX, written).map(Some);
    }
    let mut name = String::new();
    plain_text(source, row, &mut name)?;
    Some(Some(name_text(name.as_bytes()).into()))
}
