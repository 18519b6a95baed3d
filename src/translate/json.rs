//! A rule's values, written: as text for the columns of `events`, as JSON for its payload.

use super::{
    caller::{Gathered, LIST_MAX},
    document::{Document, is_deep, is_safe_json, redact},
    lookup::{Key, KeySource, Lookup},
    names::Names,
    path::{DocumentPath, Found},
    rule::{JsonKind, Source},
    written::{Place, Written},
};
use crate::{
    event::{Flags, push_formatted, push_json_string, push_text},
    tuple::{Row, Value},
};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

/// A label of ASCII up to this length is put in lower case without an allocation.
const LABEL_BYTES_INLINE: usize = 64;

/// All that a value may be made of.
#[derive(Debug)]
pub struct Scope<'a> {
    pub row: Row<'a>,
    pub names: &'a mut Names,
    pub gathered: &'a Gathered,
    /// Longest value of a payload's key, in bytes; a longer one is replaced by its hash.
    pub value_limit: usize,
    pub written: &'a mut Written,
}

impl<'a> Scope<'a> {
    fn value(&self, position: usize, old: bool) -> Value<'a> {
        if old { self.row.old_value(position) } else { self.row.value(position) }
    }

    /// Appends a value as text; `None` if there is none, and then nothing is appended.
    pub fn push_text(&mut self, source: &Source, out: &mut String, limit: usize) -> Option<Flags> {
        match source {
            Source::Column { position, old, .. } => match self.value(*position, *old) {
                Value::Text(value) => Some(push_text(out, value, limit)),
                Value::Null | Value::Absent => None,
            },
            Source::Label { position, old, labels } => match self.value(*position, *old) {
                Value::Text(value) => {
                    Some(push_label(value, labels, out, |out, label| push_text(out, label, limit)))
                }
                Value::Null | Value::Absent => None,
            },
            Source::Path { position, old, path, list } => {
                let Value::Text(value) = self.value(*position, *old) else { return None };
                let Some(document) = Document::search(value, path) else {
                    return Some(push_unread(out, value, limit));
                };
                if *list {
                    return push_joined(out, document.found.iter(), limit);
                }
                let [found] = document.found.as_slice() else { return None };
                match found {
                    Found::Text(text) => Some(push_text(out, text.as_bytes(), limit)),
                    Found::Other(serde_json::Value::Null) => None,
                    Found::Other(serde_json::Value::Number(number)) => {
                        let (text, is_exact) = document.number(number);
                        let mut flags = push_text(out, text.as_bytes(), limit);
                        flags.truncated |= !is_exact;
                        Some(flags)
                    }
                    Found::Other(other) => {
                        let mut text = String::new();
                        let mut flags = push_document(&mut text, other, &document, usize::MAX);
                        flags |= push_text(out, text.as_bytes(), limit);
                        Some(flags)
                    }
                }
            }
            Source::Join { columns, with, old } => {
                let mut text = Vec::new();
                for (index, &position) in columns.iter().enumerate() {
                    let Value::Text(value) = self.value(position, *old) else { return None };
                    text.extend_from_slice(if index > 0 { with.as_bytes() } else { b"" });
                    text.extend_from_slice(value);
                }
                Some(push_text(out, &text, limit))
            }
            Source::Sha256 { position, old } => match self.value(*position, *old) {
                Value::Text(value) => {
                    out.push_str(&sha256_text(value));
                    Some(Flags::default())
                }
                Value::Null | Value::Absent => None,
            },
            Source::Lookup { lookup, old, .. } => {
                let (name, mut flags) = self.look_up(lookup, *old)?;
                flags |= push_text(out, name.bytes(), limit);
                Some(flags)
            }
            Source::Rows { rows, .. } => match self.gathered.rows(rows, &self.row) {
                // Two rows that could be the one are no answer, nor is one of which there may be another.
                [only] if !self.gathered.is_cut() => Some(push_text(out, only, limit)),
                _ => None,
            },
            Source::Constant(value) => Some(push_text(out, value.as_bytes(), limit)),
            Source::Changed { .. } => None,
        }
    }

    /// Appends a value as JSON; `None` if there is none, and then nothing is appended.
    pub fn push_json(&mut self, source: &Source, out: &mut String) -> Option<Flags> {
        let limit = self.value_limit;
        match source {
            Source::Column { position, old, kind } => match self.value(*position, *old) {
                Value::Text(value) if value.len() > limit => {
                    Some(self.written.push_long(out, value, limit))
                }
                Value::Text(value) => Some(push_typed(out, value, *kind, limit)),
                Value::Null | Value::Absent => None,
            },
            Source::Label { position, old, labels } => match self.value(*position, *old) {
                Value::Text(value) => Some(push_label(value, labels, out, |out, label| {
                    push_json_string(out, label, limit)
                })),
                Value::Null | Value::Absent => None,
            },
            Source::Path { position, old, path, list } => match self.value(*position, *old) {
                Value::Text(value) => match self.written.find(&Place::new(value, Some(path))) {
                    // So none of its items is longer.
                    Some((text, flags)) if *list && text.len() <= limit => {
                        out.push_str(text);
                        Some(flags)
                    }
                    _ => push_path(out, value, path, *list, limit),
                },
                Value::Null | Value::Absent => None,
            },
            Source::Rows { rows, list: true } => {
                let rows = self.gathered.rows(rows, &self.row);
                let shown = rows.iter().take(LIST_MAX).map(Vec::as_slice);
                let mut flags = push_list(out, shown, limit);
                flags.truncated |= rows.len() > LIST_MAX || self.gathered.is_cut();
                Some(flags)
            }
            Source::Changed { columns } => {
                out.push('[');
                let changed = columns.iter().filter(|(position, _)| self.row.is_changed(*position));
                for (index, (_, name)) in changed.enumerate() {
                    out.push_str(if index > 0 { "," } else { "" });
                    out.push_str(name);
                }
                out.push(']');
                Some(Flags::default())
            }
            Source::Constant(value) => Some(push_json_string(out, value.as_bytes(), limit)),
            Source::Lookup { lookup, old, list } => {
                let (name, mut flags) = self.look_up(lookup, *old)?;
                // A list was written as JSON by ourselves.
                match &name {
                    Looked::Name(text) if *list => {
                        out.push_str(text);
                        flags.truncated |= text.ends_with(LIST_CUT);
                    }
                    _ => flags |= push_json_string(out, name.bytes(), limit),
                }
                Some(flags)
            }
            Source::Join { .. } | Source::Sha256 { .. } | Source::Rows { list: false, .. } => {
                let mut text = String::new();
                let mut flags = self.push_text(source, &mut text, usize::MAX)?;
                flags |= push_json_string(out, text.as_bytes(), limit);
                Some(flags)
            }
        }
    }

    /// The name of a key, or the key itself if it has none that we know.
    fn look_up(&mut self, lookup: &Lookup, old: bool) -> Option<(Looked<'a>, Flags)> {
        let found = match lookup.key(&self.row, old, self.names) {
            Key::Is(key) => self.names.get(lookup.names, &key).map(Arc::clone),
            Key::Nothing | Key::Missing(_) => None,
        };
        if let Some(name) = found {
            return Some((Looked::Name(name), Flags::default()));
        }
        // Only a key of one column can stand for itself.
        let [KeySource::Column(position)] = lookup.key.as_slice() else { return None };
        let Value::Text(value) = self.value(*position, old) else { return None };
        Some((Looked::Key(value), Flags { unresolved: true, ..Flags::default() }))
    }

    /// Whether a value is missing only because it did not change and was not sent.
    #[must_use]
    pub fn is_unchanged(&self, source: &Source) -> bool {
        match source {
            Source::Column { position, old: false, .. }
            | Source::Label { position, old: false, .. }
            | Source::Path { position, old: false, .. }
            | Source::Sha256 { position, old: false } => {
                self.row.operation != crate::tuple::Operation::Insert
                    && self.row.value(*position) == Value::Absent
            }
            _ => false,
        }
    }
}

/// What a lookup found.
enum Looked<'a> {
    Name(Arc<str>),
    /// The key itself.
    Key(&'a [u8]),
}

impl Looked<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Name(name) => name.as_bytes(),
            Self::Key(key) => key,
        }
    }
}

/// A value of a row alone, as text: no name, no other row.
pub fn plain_text(source: &Source, row: &Row<'_>, out: &mut String) -> Option<Flags> {
    let (gathered, mut names) = (Gathered::default(), Names::new(0, std::num::NonZeroUsize::MIN));
    let mut scope = Scope {
        row: *row,
        names: &mut names,
        gathered: &gathered,
        value_limit: usize::MAX,
        written: &mut Written::default(),
    };
    scope.push_text(source, out, usize::MAX)
}

/// A document that cannot be taken apart, as text.
fn push_unread(out: &mut String, value: &[u8], limit: usize) -> Flags {
    let (shown, redacted) = redact(value);
    let mut flags = push_text(out, &shown, limit);
    flags.escaped = true;
    flags.redacted |= redacted;
    flags
}

/// The end of a list that is longer than a name may be.
const LIST_CUT: &str = "\"…\"]";

/// A name that is a list: JSON, of as many items as a name may be long.
#[must_use]
pub fn name_list(
    value: &[u8],
    path: &DocumentPath,
    limit: usize,
    written: &mut Written,
) -> Option<Arc<str>> {
    let document = Document::search(value, path)?;
    // What is found is a part of the value; escapes make it longer, rarely.
    let mut out = String::with_capacity(value.len().min(limit));
    let mut flags = Flags::default();
    out.push('[');
    for (index, item) in document.found.iter().enumerate() {
        let end = out.len();
        out.push_str(if index > 0 { "," } else { "" });
        flags |= push_item(&mut out, item, &document, limit);
        if out.len() + LIST_CUT.len() > limit {
            out.truncate(end);
            out.push_str(if index > 0 { "," } else { "" });
            out.push_str(LIST_CUT);
            return Some(out.into());
        }
    }
    out.push(']');
    let list: Arc<str> = out.into();
    if document.found.len() <= LIST_MAX && !flags.truncated {
        written.keep(Place::new(value, Some(path)), Arc::clone(&list), flags);
    }
    Some(list)
}

/// Several texts as one, `a; b`; `None` if there are none.
fn push_joined<'a>(
    out: &mut String,
    items: impl Iterator<Item = &'a Found<'a>>,
    limit: usize,
) -> Option<Flags> {
    let (mut text, mut flags) = (String::new(), Flags::default());
    let is_null = |item: &&Found<'_>| **item == Found::Other(serde_json::Value::Null);
    for item in items.filter(|item| !is_null(item)).take(LIST_MAX) {
        text.push_str(if text.is_empty() { "" } else { "; " });
        flags |= match item {
            Found::Text(found) => push_text(&mut text, found.as_bytes(), limit),
            Found::Other(other) => push_text(&mut text, other.to_string().as_bytes(), limit),
        };
    }
    flags |= push_text(out, text.as_bytes(), limit);
    (!text.is_empty()).then_some(flags)
}

/// SHA-256 in hexadecimal digits.
#[must_use]
pub fn sha256_text(value: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(value) {
        push_formatted(&mut text, format_args!("{byte:02x}"));
    }
    text
}

/// Appends, by `push`, a code's label by its table, else the text itself in lower case.
fn push_label(
    value: &[u8],
    labels: &[(String, String)],
    out: &mut String,
    push: impl FnOnce(&mut String, &[u8]) -> Flags,
) -> Flags {
    let label = labels.iter().find(|(code, _)| code.as_bytes() == value);
    if let Some((_, label)) = label {
        return push(out, label.as_bytes());
    }
    let mut short = [0; LABEL_BYTES_INLINE];
    if let (true, Some(short)) = (value.is_ascii(), short.get_mut(..value.len())) {
        short.copy_from_slice(value);
        short.make_ascii_lowercase();
        return push(out, short);
    }
    match std::str::from_utf8(value) {
        Ok(text) => push(out, text.to_lowercase().as_bytes()),
        Err(_) => push(out, value),
    }
}

fn push_typed(out: &mut String, value: &[u8], kind: JsonKind, limit: usize) -> Flags {
    let is_short = value.len() <= limit;
    let (value, redacted) = match kind {
        JsonKind::Json | JsonKind::Jsonb if is_short => redact(value),
        _ => (value.into(), false),
    };
    let text = std::str::from_utf8(&value).ok();
    let plain = match kind {
        JsonKind::Boolean => match &*value {
            b"t" => Some("true"),
            b"f" => Some("false"),
            _ => None,
        },
        JsonKind::Integer => text,
        JsonKind::Number => text.filter(|text| is_exact_number(text)),
        // What one jsonb holds, another takes, unless its server has less stack.
        JsonKind::Jsonb => text.filter(|text| is_short && !is_deep(text)),
        JsonKind::Json => text.filter(|text| is_short && is_safe_json(text)),
        JsonKind::Text => None,
    };
    let mut flags = Flags::default();
    match plain {
        Some(text) => out.push_str(text),
        None => {
            flags = push_json_string(out, &value, limit);
            flags.escaped |= matches!(kind, JsonKind::Json | JsonKind::Jsonb) && is_short;
        }
    }
    flags.redacted |= redacted;
    flags
}

/// A number that every reader of JSON reads exactly; others, like NaN or 130,000 digits, stand as strings.
fn is_exact_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    text != "-0"
        && digits.len() <= 15
        && digits.starts_with(|first: char| first.is_ascii_digit())
        && !digits.ends_with('.')
        && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

fn push_list<'a>(out: &mut String, values: impl Iterator<Item = &'a [u8]>, limit: usize) -> Flags {
    let mut flags = Flags::default();
    out.push('[');
    for (index, value) in values.enumerate() {
        out.push_str(if index > 0 { "," } else { "" });
        flags |= push_json_string(out, value, limit);
    }
    out.push(']');
    flags
}

/// What a path finds: nothing is absent, one is the value, several are a list if one was asked for. A document that cannot be read is kept as a string.
fn push_path(
    out: &mut String,
    value: &[u8],
    path: &DocumentPath,
    list: bool,
    limit: usize,
) -> Option<Flags> {
    let Some(document) = Document::search(value, path) else {
        let (shown, redacted) =
            if value.len() <= limit { redact(value) } else { (value.into(), false) };
        let mut flags = push_json_string(out, &shown, limit);
        flags.escaped = true;
        flags.redacted |= redacted;
        return Some(flags);
    };
    if list {
        let found = &document.found;
        let mut flags = Flags { truncated: found.len() > LIST_MAX, ..Flags::default() };
        out.push('[');
        for (index, item) in found.iter().take(LIST_MAX).enumerate() {
            out.push_str(if index > 0 { "," } else { "" });
            flags |= push_found(out, item, &document, limit);
        }
        out.push(']');
        return Some(flags);
    }
    match document.found.as_slice() {
        [] | [Found::Other(serde_json::Value::Null)] | [_, _, ..] => None,
        [found] => Some(push_found(out, found, &document, limit)),
    }
}

/// A parsed value; one that is too long as a whole stands as its hash.
fn push_found(out: &mut String, found: &Found<'_>, document: &Document<'_>, limit: usize) -> Flags {
    let start = out.len();
    let mut flags = push_item(out, found, document, limit);
    // A string was cut by itself, to no more than its hash or six times its bytes.
    if matches!(found, Found::Other(_)) && out.len() - start > limit {
        let text = out.split_off(start);
        flags |= push_json_string(out, text.as_bytes(), limit);
    }
    flags
}

fn push_item(out: &mut String, found: &Found<'_>, document: &Document<'_>, limit: usize) -> Flags {
    match found {
        Found::Text(text) => push_json_string(out, text.as_bytes(), limit),
        Found::Other(value) => push_document(out, value, document, limit),
    }
}

/// A parsed value of `document`, its strings as `jsonb` takes them and its numbers exact.
fn push_document(
    out: &mut String,
    value: &serde_json::Value,
    document: &Document<'_>,
    limit: usize,
) -> Flags {
    let mut flags = Flags::default();
    match value {
        serde_json::Value::String(text) => flags |= push_json_string(out, text.as_bytes(), limit),
        serde_json::Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                flags |= push_document(out, item, document, limit);
            }
            out.push(']');
        }
        serde_json::Value::Object(members) => {
            out.push('{');
            for (index, (key, item)) in members.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                flags |= push_json_string(out, key.as_bytes(), limit);
                out.push(':');
                flags |= push_document(out, item, document, limit);
            }
            out.push('}');
        }
        serde_json::Value::Number(number) => {
            let (text, is_exact) = document.number(number);
            flags.truncated |= !is_exact;
            if number.is_f64() && !is_exact_number(&text) {
                flags |= push_json_string(out, text.as_bytes(), limit);
            } else {
                out.push_str(&text);
            }
        }
        other => push_formatted(out, format_args!("{other}")),
    }
    flags
}
