//! Keys of names: made of columns of a row, and of names that are looked up themselves.

use super::{
    caller::key_text,
    names::{NameKey, Names},
};
use crate::{
    event::{looks_secret, push_json_string},
    tuple::{Row, Value},
};
use std::borrow::Cow;

/// A key of a names table, compiled.
#[derive(Debug)]
pub struct Lookup {
    /// Place among the mapping's names tables.
    pub names: usize,
    pub key: Vec<KeySource>,
}

/// One part of a key, compiled.
#[derive(Debug)]
pub enum KeySource {
    Column(usize),
    Lookup(Lookup),
}

/// What a key came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Key {
    Is(String),
    /// A part of it is not there.
    Nothing,
    /// A part of it is a name that is not in memory.
    Missing(NameKey),
}

impl Lookup {
    /// The key's text.
    #[must_use]
    pub fn key(&self, row: &Row<'_>, old: bool, names: &Names) -> Key {
        let mut parts = Vec::with_capacity(self.key.len());
        for part in &self.key {
            match part {
                KeySource::Column(position) => match value(row, *position, old) {
                    Value::Text(text) => parts.push(text),
                    Value::Null | Value::Absent => return Key::Nothing,
                },
                KeySource::Lookup(lookup) => {
                    let key = match lookup.key(row, old, names) {
                        Key::Is(key) => key,
                        other => return other,
                    };
                    match names.peek(lookup.names, &key) {
                        None => return Key::Missing(NameKey { names: lookup.names, key }),
                        Some(None) => return Key::Nothing,
                        Some(Some(name)) => parts.push(name.as_bytes()),
                    }
                }
            }
        }
        Key::Is(joined(&parts))
    }

    /// The name that is not in memory and is needed first, if any.
    #[must_use]
    pub fn missing(&self, row: &Row<'_>, old: bool, names: &Names) -> Option<NameKey> {
        match self.key(row, old, names) {
            Key::Is(key) if names.peek(self.names, &key).is_none() => {
                Some(NameKey { names: self.names, key })
            }
            Key::Missing(key) => Some(key),
            Key::Is(_) | Key::Nothing => None,
        }
    }
}

fn value<'a>(row: &Row<'a>, position: usize, old: bool) -> Value<'a> {
    if old { row.old_value(position) } else { row.value(position) }
}

/// The key of a row in columns of it; `None` if one is not there.
#[must_use]
pub fn columns_key(row: &Row<'_>, columns: &[usize], old: bool) -> Option<String> {
    let parts: Option<Vec<&[u8]>> = columns
        .iter()
        .map(|&position| match value(row, position, old) {
            Value::Text(text) => Some(text),
            Value::Null | Value::Absent => None,
        })
        .collect();
    parts.map(|parts| joined(&parts))
}

/// A key of one part is its text, one of several a JSON list; too long a one stands as its hash.
fn joined(parts: &[&[u8]]) -> String {
    if let [only] = parts {
        return key_text(only).into_owned();
    }
    let room = parts.iter().map(|part| part.len() + "'',".len()).sum::<usize>() + "[]".len();
    let mut text = String::with_capacity(room);
    text.push('[');
    for (index, part) in parts.iter().enumerate() {
        text.push_str(if index > 0 { "," } else { "" });
        // Redacted, two keys would fall together.
        let secret = looks_secret(part).then(|| key_text(part));
        let part = secret.as_ref().map_or(*part, |hash| hash.as_bytes());
        push_json_string(&mut text, part, usize::MAX);
    }
    text.push(']');
    let other = match key_text(text.as_bytes()) {
        Cow::Borrowed(_) => None,
        Cow::Owned(other) => Some(other),
    };
    other.unwrap_or(text)
}
