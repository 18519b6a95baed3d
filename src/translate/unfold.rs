//! Entries of a map or list in one column, as if each were a row.
//!
//! Some portals keep the members of a project as a JSON map on the project. What changed is the difference of two maps, so each entry that was added, changed or removed becomes a change of its own, on which the rules of `each` blocks work as they do on rows: the row's columns are there, and `members.key`, `members.role` are the entry's.

use super::{Table, document::DOCUMENT_BYTES_MAX, row_change, rule::Rule};
use crate::{
    decode::{ReplicaIdentity, decode},
    tuple::{Operation, Relation, RelationColumn, Row, RowSpans, Value},
};
use std::collections::HashMap;

/// Entries of one column, compiled.
#[derive(Debug)]
pub struct Unfold {
    pub column: usize,
    /// `None` only in a mapping that is refused.
    pub kind: Option<Kind>,
    /// For a list of objects: the member by which an entry is known again.
    pub key: Option<String>,
    pub fields: Vec<String>,
    /// The table's columns, then `column.key`, then those of the fields.
    pub relation: Relation,
    pub rules: Vec<Rule>,
}

/// How a column holds entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Json,
    Array,
}

/// By the oid of a built-in type: `json`, `jsonb`, and lists of texts, numbers or uuids.
#[must_use]
pub fn kind(type_oid: u32) -> Option<Kind> {
    match type_oid {
        114 | 3802 => Some(Kind::Json),
        1009 | 1015 | 1002 | 1003 | 1005 | 1007 | 1016 | 2951 => Some(Kind::Array),
        _ => None,
    }
}

/// The relation of the entries.
#[must_use]
pub fn relation(parent: &Relation, column: &str, fields: &[&str]) -> Relation {
    let own = std::iter::once(&"key").chain(fields).map(|field| RelationColumn {
        name: format!("{column}.{field}"),
        type_oid: 25,
        key: true,
    });
    let columns = parent.columns.iter().cloned().chain(own).collect();
    Relation { replica_identity: ReplicaIdentity::Full, columns, ..parent.clone() }
}

/// One entry's change, as a message of pgoutput with the columns of the entry alone.
#[derive(Debug)]
pub struct EntryChange {
    pub key: String,
    pub message: Vec<u8>,
}

impl Unfold {
    /// The entries that a row's change added, changed or removed; `None` if either side cannot be read.
    #[must_use]
    pub fn changes(&self, row: &Row<'_>) -> Option<Vec<EntryChange>> {
        let kind = self.kind?;
        let side =
            |is_there, value| if is_there { self.entries(kind, value) } else { Some(Vec::new()) };
        let old = side(row.operation != Operation::Insert, row.old_value(self.column))?;
        let new = side(row.operation != Operation::Delete, row.value(self.column))?;
        let find = |entries: &[(String, serde_json::Value)]| -> HashMap<String, usize> {
            entries.iter().enumerate().map(|(place, (key, _))| (key.clone(), place)).collect()
        };
        let (old_places, new_places) = (find(&old), find(&new));
        let mut changes = Vec::new();
        for (key, entry) in old.iter().filter(|(key, _)| !new_places.contains_key(key)) {
            let message = self.message(Some((key, entry)), None);
            changes.push(EntryChange { key: key.clone(), message });
        }
        for (key, entry) in &new {
            let before = old_places.get(key).and_then(|place| old.get(*place));
            if before.is_some_and(|(_, before)| before == entry) {
                continue;
            }
            let before = before.map(|(key, entry)| (key, entry));
            let message = self.message(before, Some((key, entry)));
            changes.push(EntryChange { key: key.clone(), message });
        }
        Some(changes)
    }

    /// Keys and what stands under them; of a key that stands twice, the last.
    fn entries(&self, kind: Kind, value: Value<'_>) -> Option<Vec<(String, serde_json::Value)>> {
        let text = match value {
            Value::Null => return Some(Vec::new()),
            Value::Absent => return None,
            // Of a larger one, each entry would be an event of one change, and all of them must fit into memory.
            Value::Text(text) if text.len() > DOCUMENT_BYTES_MAX => return None,
            Value::Text(text) => text,
        };
        let mut entries = serde_json::Map::new();
        match kind {
            Kind::Array => {
                let items = array_items(std::str::from_utf8(text).ok()?)?;
                entries.extend(items.into_iter().map(|item| (item, serde_json::Value::Null)));
            }
            Kind::Json => match serde_json::from_slice(text).ok()? {
                serde_json::Value::Object(members) => entries = members,
                serde_json::Value::Array(items) => {
                    for item in items.into_iter().filter(|item| !item.is_null()) {
                        // One that cannot be told from the others would be lost.
                        let (key, entry) = self.item(item)?;
                        entries.insert(key, entry);
                    }
                }
                serde_json::Value::Null => {}
                _ => return None,
            },
        }
        Some(entries.into_iter().collect())
    }

    fn item(&self, item: serde_json::Value) -> Option<(String, serde_json::Value)> {
        match (&item, &self.key) {
            (serde_json::Value::Object(members), Some(key)) => {
                let key = members.get(key).and_then(plain)?;
                Some((key, item))
            }
            (serde_json::Value::Object(_), None) => None,
            _ => plain(&item).map(|key| (key, serde_json::Value::Null)),
        }
    }

    fn message(
        &self,
        old: Option<(&String, &serde_json::Value)>,
        new: Option<(&String, &serde_json::Value)>,
    ) -> Vec<u8> {
        let tag = match (old.is_some(), new.is_some()) {
            (false, _) => b'I',
            (true, true) => b'U',
            (true, false) => b'D',
        };
        let mut message = vec![tag];
        message.extend_from_slice(&self.relation.oid.to_be_bytes());
        for (tag, side) in [(b'O', old), (b'N', new)] {
            if let Some((key, entry)) = side {
                message.push(tag);
                self.push_tuple(&mut message, (key, entry));
            }
        }
        message
    }

    fn push_tuple(&self, message: &mut Vec<u8>, (key, entry): (&str, &serde_json::Value)) {
        let columns = u16::try_from(self.fields.len() + 1).unwrap_or(u16::MAX);
        message.extend_from_slice(&columns.to_be_bytes());
        push_text(message, key.as_bytes());
        for field in &self.fields {
            let found = match entry {
                serde_json::Value::Object(members) => members.get(field).and_then(plain),
                other if field == "value" => plain(other),
                _ => None,
            };
            match found {
                Some(text) => push_text(message, text.as_bytes()),
                None => message.push(b'n'),
            }
        }
    }
}

/// Each entry that the change of a row added, changed or removed, as a row of its own; says whether all columns of entries could be read.
pub(super) fn for_each_entry(
    table: &Table,
    row: &Row<'_>,
    tell: &mut dyn FnMut(&Unfold, &str, Row<'_>),
) -> bool {
    let mut is_read = true;
    // All stay until the last is told: what is written of a value is known again by its address.
    let all: Vec<_> = table.unfolds.iter().map(|unfold| (unfold, unfold.changes(row))).collect();
    for (unfold, changes) in &all {
        let mut spans = RowSpans::default();
        let Some(changes) = changes else {
            is_read = false;
            continue;
        };
        for change in changes {
            let message = decode(&change.message, false).ok();
            let Some((_, operation, old, new)) = message.and_then(|(_, it)| row_change(it)) else {
                is_read = false;
                continue;
            };
            let entry = Row::new(operation, &unfold.relation, old, new, &mut spans);
            let row = entry.within(row);
            tell(unfold, &change.key, row);
        }
    }
    is_read
}

fn push_text(message: &mut Vec<u8>, text: &[u8]) {
    message.push(b't');
    message.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    message.extend_from_slice(text);
}

/// A JSON value as a column would hold it: `true` is `t`, and null is nothing.
fn plain(value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::Null => None,
        serde_json::Value::Bool(value) => Some(if *value { "t" } else { "f" }.to_owned()),
        serde_json::Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// The elements of an array of one dimension in its text form (manual, section 8.15.6); NULLs are passed over.
fn array_items(text: &str) -> Option<Vec<String>> {
    let inside = text.strip_prefix('{')?.strip_suffix('}')?;
    let (mut items, mut item, mut is_quoted, mut was_quoted) =
        (Vec::new(), String::new(), false, false);
    let mut letters = inside.chars();
    let mut take = |item: &mut String, was_quoted: &mut bool| {
        let is_null = !*was_quoted && (item.is_empty() || item.eq_ignore_ascii_case("null"));
        let item = std::mem::take(item);
        if !is_null {
            items.push(item);
        }
        *was_quoted = false;
    };
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => item.push(letters.next()?),
            '"' => {
                is_quoted = !is_quoted;
                was_quoted = true;
            }
            ',' if !is_quoted => take(&mut item, &mut was_quoted),
            '{' | '}' if !is_quoted => return None,
            letter => item.push(letter),
        }
    }
    take(&mut item, &mut was_quoted);
    (!is_quoted).then_some(items)
}

#[cfg(test)]
mod tests {
    use super::{Kind, Unfold, array_items, relation};
    use crate::{
        decode::{Message, OldTuple, ReplicaIdentity, decode},
        tuple::{Operation, Relation, RelationColumn, Row, RowSpans, Value},
    };
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn arrays_are_read() {
        let items = |text| array_items(text).map(|items| items.join("|"));
        assert_eq!(items("{}").as_deref(), Some(""));
        let quoted = r#"{a,"b c",NULL,"NULL","x\"y\\",""}"#;
        assert_eq!(items(quoted).as_deref(), Some(r#"a|b c|NULL|x"y\|"#));
        assert_eq!(items("{{a},{b}}"), None);
        assert_eq!(items("a"), None);
    }

    /// Entries that cannot be told apart are no entries: the row is counted, not passed over.
    #[test]
    fn a_list_of_objects_needs_its_key() {
        let (_, mut unfold) = unfold();
        let list = br#"[{"name": "ada"}, null, {"name": "wren"}]"#;
        assert!(unfold.entries(Kind::Json, Value::Text(list)).is_none());
        unfold.key = Some("name".into());
        assert_eq!(unfold.entries(Kind::Json, Value::Text(list)).unwrap().len(), 2);
        assert!(unfold.entries(Kind::Json, Value::Text(br#"[{"name": "ada"}, {}]"#)).is_none());
    }

    type Members = BTreeMap<String, u8>;

    fn unfold() -> (Relation, Unfold) {
        let column = RelationColumn { name: "members".into(), type_oid: 3802, key: true };
        let parent = Relation {
            oid: 7,
            namespace: "lab".into(),
            name: "organization".into(),
            replica_identity: ReplicaIdentity::Full,
            columns: vec![column],
        };
        let fields = vec!["role".to_owned()];
        let relation = relation(&parent, "members", &["role"]);
        let kind = Some(Kind::Json);
        (parent, Unfold { column: 0, kind, key: None, fields, relation, rules: Vec::new() })
    }

    fn document(members: &Members) -> String {
        let members = members.iter().rev().map(|(key, role)| {
            (key.clone(), serde_json::json!({ "role": role.to_string(), "since": 1 }))
        });
        serde_json::Value::Object(members.collect()).to_string()
    }

    fn tuple(tag: u8, text: &str) -> Vec<u8> {
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        [&[tag, 0, 1, b't'][..], &length, text.as_bytes()].concat()
    }

    /// Applies to `old` what the entries of an UPDATE say.
    fn apply(old: &Members, new: &Members) -> Members {
        let (parent, unfold) = unfold();
        let message =
            [&[b'U', 0, 0, 0, 7][..], &tuple(b'O', &document(old)), &tuple(b'N', &document(new))]
                .concat();
        let (_, message) = decode(&message, false).unwrap();
        let Message::Update { old: Some(before @ OldTuple::Full(_)), new: after, .. } = message
        else {
            panic!("not an update")
        };
        let mut spans = RowSpans::default();
        let row = Row::new(Operation::Update, &parent, Some(before), Some(after), &mut spans);
        let mut members = old.clone();
        for change in unfold.changes(&row).unwrap() {
            let mut spans = RowSpans::default();
            let (_, message) = decode(&change.message, false).unwrap();
            let (_, operation, old, new) = super::super::row_change(message).unwrap();
            let entry = Row::new(operation, &unfold.relation, old, new, &mut spans);
            let row = entry.within(&row);
            assert_eq!(row.value(1), Value::Text(change.key.as_bytes()));
            let Value::Text(role) = row.value(2) else { panic!("an entry has its role") };
            let role = std::str::from_utf8(role).unwrap().parse().unwrap();
            match operation {
                Operation::Insert => assert!(members.insert(change.key, role).is_none()),
                Operation::Update => assert!(members.insert(change.key, role) != Some(role)),
                Operation::Delete => assert_eq!(members.remove(&change.key), Some(role)),
            }
        }
        members
    }

    proptest! {
        #[test]
        fn the_entries_of_an_update_lead_from_old_to_new(
            old in proptest::collection::btree_map("[a-e\"\\\\é]{1,2}", 0_u8..3, 0..6),
            new in proptest::collection::btree_map("[a-e\"\\\\é]{1,2}", 0_u8..3, 0..6),
        ) {
            prop_assert_eq!(apply(&old, &new), new);
        }

        #[test]
        fn any_text_is_read_as_an_array_or_refused(text in "[{},\"\\\\a N]{0,20}") {
            drop(array_items(&text));
        }
    }
}
