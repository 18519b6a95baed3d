//! Key → name as of a position of the log.
//!
//! Rows carry ids, events carry names. The stream feeds the map in its own order, so a name is what it was when the change was made: asking the portal later would be a race. An entry outlives its row: a membership that goes with its organization still names it. The whole map lies in the audit database, written in the transaction of the events; here is a part of it with a bound.

use lru::LruCache;
use std::{num::NonZeroUsize, sync::Arc};

/// A key of one of the mapping's names tables.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NameKey {
    /// Place among the mapping's names tables.
    pub names: usize,
    pub key: String,
}

/// A name that a row gave, or the word that the key is forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameRow {
    pub names: usize,
    pub key: String,
    pub name: Option<Arc<str>>,
}

/// Most bytes that are kept in memory from one change to the next.
const BYTES_MAX: usize = 16 << 20;
/// What an entry costs beside its texts: three allocations and its place in the index.
const ENTRY_BYTES: usize = 150;

/// The part of the map that is in memory.
#[derive(Debug)]
pub struct Names {
    tables: Vec<NamesTable>,
    limit: usize,
}

#[derive(Debug)]
struct NamesTable {
    /// `None`: the audit database has no such key either.
    names: LruCache<Box<str>, Option<Arc<str>>>,
    bytes: usize,
}

/// Bytes that an entry costs.
pub(super) fn entry_bytes(key: &str, name: Option<&str>) -> usize {
    key.len() + name.map_or(0, str::len) + ENTRY_BYTES
}

impl Names {
    /// Room for `limit` keys of `tables` names tables together.
    #[must_use]
    pub fn new(tables: usize, limit: NonZeroUsize) -> Self {
        let table = || NamesTable { names: LruCache::unbounded(), bytes: 0 };
        Self { tables: (0..tables).map(|_| table()).collect(), limit: limit.get() }
    }

    /// What is known here of a key: nothing, that it has no name, or its name. It is not counted as a use.
    #[must_use]
    pub fn peek(&self, names: usize, key: &str) -> Option<Option<&str>> {
        self.tables.get(names)?.names.peek(key).map(Option::as_deref)
    }

    /// Forgets one names table; what is written of it must go too, so nothing is known to be missing.
    pub fn clear(&mut self, names: usize) {
        if let Some(table) = self.tables.get_mut(names) {
            table.names.clear();
            table.bytes = 0;
        }
    }

    /// The name of a key.
    pub fn get(&mut self, names: usize, key: &str) -> Option<&Arc<str>> {
        self.tables.get_mut(names)?.names.get(key)?.as_ref()
    }

    /// What a row of the stream or the audit database says: the key's name, or that it has none.
    pub fn put(&mut self, names: usize, key: &str, name: Option<Arc<str>>) {
        let Some(table) = self.tables.get_mut(names) else { return };
        table.bytes += entry_bytes(key, name.as_deref());
        if let Some((key, name)) = table.names.push(key.into(), name) {
            table.bytes = table.bytes.saturating_sub(entry_bytes(&key, name.as_deref()));
        }
    }

    /// Forgets what was not used for longest, beyond the limits. Between two changes only: all that one change needs must be there at once, however much that is, or it would be asked for without end.
    pub fn trim(&mut self) {
        loop {
            let bytes: usize = self.tables.iter().map(|table| table.bytes).sum();
            let keys: usize = self.tables.iter().map(|table| table.names.len()).sum();
            if bytes <= BYTES_MAX && keys <= self.limit {
                return;
            }
            // The largest gives way, so that one with few keys keeps them.
            let largest = self.tables.iter_mut().max_by_key(|table| table.bytes);
            let oldest = largest.and_then(|table| Some((table.names.pop_lru()?, table)));
            let Some(((key, name), table)) = oldest else { return };
            table.bytes = table.bytes.saturating_sub(entry_bytes(&key, name.as_deref()));
        }
    }
}
