//! Key → name as of a position of the log.
//!
//! Rows carry ids, events carry names. The stream feeds the map in its own order, so a name is what it was when the change was made: asking the portal later would be a race. An entry outlives its row: a membership that goes with its organization still names it. The whole map lies in the audit database, written in the transaction of the events; here is a part of it with a bound.

use lru::LruCache;
use std::num::NonZeroUsize;

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
    pub name: Option<String>,
}

/// The part of the map that is in memory.
#[derive(Debug)]
pub struct Names {
    /// One per names table. `None`: the audit database has no such key either.
    tables: Vec<LruCache<Box<str>, Option<Box<str>>>>,
}

impl Names {
    /// Room for `limit` keys of each of `tables` names tables.
    #[must_use]
    pub fn new(tables: usize, limit: NonZeroUsize) -> Self {
        Self { tables: (0..tables).map(|_| LruCache::new(limit)).collect() }
    }

    /// Whether it is known here if the key has a name.
    #[must_use]
    pub fn holds(&self, names: usize, key: &str) -> bool {
        self.tables.get(names).is_some_and(|table| table.contains(key))
    }

    /// The name of a key.
    pub fn get(&mut self, names: usize, key: &str) -> Option<&str> {
        self.tables.get_mut(names)?.get(key)?.as_deref()
    }

    /// What a row of the stream or the audit database says: the key's name, or that it has none.
    pub fn put(&mut self, names: usize, key: &str, name: Option<&str>) {
        if let Some(table) = self.tables.get_mut(names) {
            table.put(key.into(), name.map(Into::into));
        }
    }
}
