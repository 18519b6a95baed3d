//! The values of a mapping: what may stand for a subject, a target, a caller or a key of the payload.

use super::mapping::ConditionSpec;
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json_path::JsonPath;
use std::{collections::BTreeMap, fmt};
use toml::Spanned;

/// A word of the mapping with its place in the file.
pub type Name = Spanned<String>;

/// A JSONPath is refused beyond these, before it is parsed: the parser recurses, and several descendant segments multiply.
const PATH_BYTES_MAX: usize = 256;
const PATH_BRACKETS_MAX: usize = 16;

/// A constant of a condition.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    Text(String),
    Integer(i64),
    Boolean(bool),
}

impl Scalar {
    /// PostgreSQL's text form, which is what the stream carries.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Integer(integer) => integer.to_string(),
            Self::Boolean(boolean) => if *boolean { "t" } else { "f" }.to_owned(),
        }
    }
}

/// Where a value comes from.
#[derive(Debug, Clone)]
pub enum ValueSpec {
    /// `"column"` or `{ column = "…" }`: the value with its type.
    Column { column: Name, old: bool },
    /// `{ label = "column" }`: a label in lower case, by a `[labels.X]` table if one is named.
    Label { column: Name, labels: Option<Name>, old: bool },
    /// `{ column = "…", path = "$…" }`: what a JSONPath (RFC 9535) finds in a JSON column; with `list = true` all of it.
    Path { column: Name, path: JsonPath, list: bool, old: bool },
    /// `{ lookup = "names", key = "column" }`: the name of a key, as it was at that point of the log.
    Lookup { names: Name, key: Name, old: bool },
    /// `{ rows = "table", … }`: a list of a column of the rows of another table that the same transaction changed in the same way.
    Rows(RowsSpec),
    /// `{ row = "table", … }`: that of the one such row that the transaction inserted.
    Row(RowsSpec),
    /// `{ changed = […] }`: those of the named columns that the UPDATE changed.
    Changed(Vec<Name>),
    /// `{ value = "…" }`.
    Constant(String),
}

/// Rows of another table in the same transaction, found by columns that equal columns of this row.
#[derive(Debug, Clone)]
pub struct RowsSpec {
    pub table: Name,
    /// Column of `table` → column of this row.
    pub key: BTreeMap<Name, Name>,
    pub when: BTreeMap<Name, ConditionSpec>,
    pub column: Name,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ValueTable {
    column: Option<Name>,
    label: Option<Name>,
    labels: Option<Name>,
    path: Option<Name>,
    #[serde(default)]
    list: bool,
    #[serde(default)]
    old: bool,
    lookup: Option<Name>,
    key: Option<KeySpec>,
    rows: Option<Name>,
    row: Option<Name>,
    #[serde(default)]
    when: BTreeMap<Name, ConditionSpec>,
    changed: Option<Vec<Name>>,
    value: Option<String>,
}

/// A key is one column of this row, or columns of another table beside columns of this row.
enum KeySpec {
    One(Name),
    Many(BTreeMap<Name, Name>),
}

impl<'de> Deserialize<'de> for KeySpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = KeySpec;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a column, or a table of columns")
            }
            fn visit_str<E: de::Error>(self, column: &str) -> Result<KeySpec, E> {
                Ok(KeySpec::One(Spanned::new(0..0, column.to_owned())))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<KeySpec, A::Error> {
                BTreeMap::deserialize(MapAccessDeserializer::new(map)).map(KeySpec::Many)
            }
        }
        deserializer.deserialize_any(KeyVisitor)
    }
}

impl<'de> Deserialize<'de> for ValueSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;
        impl<'de> Visitor<'de> for ValueVisitor {
            type Value = ValueSpec;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a column, or a table like { label = \"state\" }")
            }
            fn visit_str<E: de::Error>(self, column: &str) -> Result<ValueSpec, E> {
                // The place of the whole value, which its owner knows, is the column's place.
                Ok(ValueSpec::Column { column: Spanned::new(0..0, column.to_owned()), old: false })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ValueSpec, A::Error> {
                let table = ValueTable::deserialize(MapAccessDeserializer::new(map))?;
                table.into_spec().map_err(de::Error::custom)
            }
        }
        deserializer.deserialize_any(ValueVisitor)
    }
}

impl ValueTable {
    /// A value is one of its forms, and says nothing that its form does not know.
    fn into_spec(self) -> Result<ValueSpec, String> {
        let Self {
            column,
            label,
            labels,
            path,
            list,
            old,
            lookup,
            key,
            rows,
            row,
            when,
            changed,
            value,
        } = self;
        let has_rest =
            path.is_some() || list || labels.is_some() || key.is_some() || !when.is_empty();
        match (column, label, lookup, rows, row, changed, value) {
            (Some(column), None, None, None, None, None, None) if !has_rest => {
                Ok(ValueSpec::Column { column, old })
            }
            (Some(column), None, None, None, None, None, None)
                if labels.is_none() && key.is_none() && when.is_empty() =>
            {
                let text = path.ok_or("\"list\" needs a \"path\"")?;
                Ok(ValueSpec::Path { column, path: parse_path(text.get_ref())?, list, old })
            }
            (None, Some(column), None, None, None, None, None)
                if path.is_none() && !list && key.is_none() && when.is_empty() =>
            {
                Ok(ValueSpec::Label { column, labels, old })
            }
            (None, None, Some(names), None, None, None, None)
                if path.is_none() && !list && labels.is_none() && when.is_empty() =>
            {
                match key {
                    Some(KeySpec::One(key)) => Ok(ValueSpec::Lookup { names, key, old }),
                    _ => Err("\"lookup\" needs \"key\", a column of this row".into()),
                }
            }
            (Some(column), None, None, rows, row, None, None)
                if path.is_none() && !list && labels.is_none() && !old =>
            {
                let Some(KeySpec::Many(key)) = key else {
                    return Err("\"rows\" and \"row\" need \"key\", a table like { project = \"name\" }: its column = this row's column".into());
                };
                match (rows, row) {
                    (Some(table), None) => {
                        Ok(ValueSpec::Rows(RowsSpec { table, key, when, column }))
                    }
                    (None, Some(table)) => {
                        Ok(ValueSpec::Row(RowsSpec { table, key, when, column }))
                    }
                    _ => Err(AMBIGUOUS.into()),
                }
            }
            (None, None, None, None, None, Some(changed), None) if !has_rest && !old => {
                Ok(ValueSpec::Changed(changed))
            }
            (None, None, None, None, None, None, Some(value)) if !has_rest && !old => {
                Ok(ValueSpec::Constant(value))
            }
            _ => Err(AMBIGUOUS.into()),
        }
    }
}

const AMBIGUOUS: &str = "a value is one of: \"column\", { column, old }, { label, labels, old }, { column, path, list, old }, { lookup, key, old }, { rows, key, when, column }, { row, key, when, column }, { changed }, { value }";

fn parse_path(text: &str) -> Result<JsonPath, String> {
    let brackets = text.bytes().filter(|byte| matches!(byte, b'(' | b'[')).count();
    if text.len() > PATH_BYTES_MAX || brackets > PATH_BRACKETS_MAX {
        return Err(format!(
            "a path has at most {PATH_BYTES_MAX} bytes and {PATH_BRACKETS_MAX} brackets"
        ));
    }
    if text.matches("..").count() > 1 {
        return Err("a path has at most one \"..\"".into());
    }
    JsonPath::parse(text).map_err(|error| {
        format!("not a JSONPath (RFC 9535), at its character {}: {error}", error.position() + 1)
    })
}
