//! The values of a mapping: what may stand for a subject, a target, a caller or a key of the payload.

use super::mapping::{ConditionSpec, OperationWord};
use super::path::DocumentPath;
use serde::{
    Deserialize, Deserializer,
    de::{
        self, IntoDeserializer as _, MapAccess, SeqAccess, Visitor,
        value::{MapAccessDeserializer, SeqAccessDeserializer},
    },
};
use serde_json_path::JsonPath;
use std::{collections::BTreeMap, fmt, marker::PhantomData};
use toml::Spanned;

/// A word of the mapping with its place in the file.
pub type Name = Spanned<String>;

/// A JSONPath is refused beyond these, before it is parsed: the parser recurses, and several descendant segments multiply.
const PATH_BYTES_MAX: usize = 256;
const PATH_BRACKETS_MAX: usize = 16;

/// A constant of a condition.
#[derive(Debug, Clone)]
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

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScalarVisitor;
        impl Visitor<'_> for ScalarVisitor {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, an integer, true or false")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(text.to_owned()))
            }
            fn visit_i64<E: de::Error>(self, integer: i64) -> Result<Scalar, E> {
                Ok(Scalar::Integer(integer))
            }
            fn visit_bool<E: de::Error>(self, boolean: bool) -> Result<Scalar, E> {
                Ok(Scalar::Boolean(boolean))
            }
        }
        deserializer.deserialize_any(ScalarVisitor)
    }
}

/// One value or a list of them.
///
/// # Why
/// By hand, because an untagged enum forgets what did not fit: the admin would read "data did not match any variant" and no word of what may stand there.
#[derive(Debug, Clone)]
pub struct OneOrMore<T>(pub Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMore<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMoreVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrMoreVisitor<T> {
            type Value = Vec<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one value or a list of them")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<T>, E> {
                Ok(vec![T::deserialize(text.into_deserializer())?])
            }
            fn visit_i64<E: de::Error>(self, integer: i64) -> Result<Vec<T>, E> {
                Ok(vec![T::deserialize(integer.into_deserializer())?])
            }
            fn visit_bool<E: de::Error>(self, boolean: bool) -> Result<Vec<T>, E> {
                Ok(vec![T::deserialize(boolean.into_deserializer())?])
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Vec<T>, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list))
            }
        }
        deserializer.deserialize_any(OneOrMoreVisitor(PhantomData)).map(Self)
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
    Path { column: Name, path: DocumentPath, list: bool, old: bool },
    /// `{ join = ["id", "project"] }`: several columns as one text, with a dot between them or what `with` says.
    Join { columns: Vec<Name>, with: String, old: bool },
    /// `{ sha256 = "column" }`: the hash of the value, in hexadecimal digits.
    Sha256 { column: Name, old: bool },
    /// `{ lookup = "names", key = "column" }`: the name of a key, as it was at that point of the log.
    Lookup { lookup: LookupSpec, old: bool },
    /// `{ rows = "table", … }`: the distinct values of a column of the rows of another table that the same transaction changed in the same way, or as `on` says.
    Rows(RowsSpec),
    /// `{ row = "table", … }`: that of the one such row that the transaction inserted.
    Row(RowsSpec),
    /// `{ changed = […] }`: those of the named columns that the UPDATE changed.
    Changed(Vec<Name>),
    /// `{ value = "…" }`.
    Constant(String),
}

/// A key of a names table, made of columns and of names that are looked up themselves.
#[derive(Debug, Clone)]
pub struct LookupSpec {
    pub names: Name,
    pub key: Vec<KeyPart>,
}

/// One part of a key.
#[derive(Debug, Clone)]
pub enum KeyPart {
    Column(Name),
    Lookup(LookupSpec),
}

impl LookupSpec {
    /// Every column of the row that the key is made of, and every names table that is asked.
    pub fn visit<'a>(&'a self, names: &mut dyn FnMut(&'a Name), column: &mut dyn FnMut(&'a Name)) {
        names(&self.names);
        for part in &self.key {
            match part {
                KeyPart::Column(name) => column(name),
                KeyPart::Lookup(lookup) => lookup.visit(names, column),
            }
        }
    }
}

/// Rows of another table in the same transaction, found by columns that equal columns of this row.
#[derive(Debug, Clone)]
pub struct RowsSpec {
    pub table: Name,
    /// What was done to them; nothing: the same as to this row.
    pub on: Vec<OperationWord>,
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
    path: Option<Path>,
    #[serde(default)]
    list: bool,
    #[serde(default)]
    old: bool,
    sha256: Option<Name>,
    lookup: Option<Name>,
    key: Option<KeySpec>,
    on: Option<OneOrMore<OperationWord>>,
    join: Option<Vec<Name>>,
    with: Option<String>,
    rows: Option<Name>,
    row: Option<Name>,
    #[serde(default)]
    when: BTreeMap<Name, ConditionSpec>,
    changed: Option<Vec<Name>>,
    value: Option<String>,
}

/// A key is made of columns of this row, or of columns of another table beside columns of this row.
enum KeySpec {
    Parts(Vec<KeyPart>),
    Pairs(BTreeMap<Name, Name>),
}

/// A key as it is written.
enum KeyText {
    One(String),
    List(Vec<KeyPart>),
    Pairs(BTreeMap<Name, Name>),
}

impl<'de> Deserialize<'de> for KeyText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = KeyText;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a column, a list of them, or a table in braces")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<KeyText, E> {
                Ok(KeyText::One(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<KeyText, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(KeyText::List)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<KeyText, A::Error> {
                BTreeMap::deserialize(MapAccessDeserializer::new(map)).map(KeyText::Pairs)
            }
        }
        deserializer.deserialize_any(KeyVisitor)
    }
}

impl<'de> Deserialize<'de> for KeyPart {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Nested {
            lookup: Name,
            key: KeySpec,
        }
        let part = Spanned::<TextOr<Nested>>::deserialize(deserializer)?;
        let span = part.span();
        match part.into_inner() {
            TextOr::Text(column) => Ok(Self::Column(Spanned::new(span, column))),
            TextOr::Table(Nested { lookup: names, key: KeySpec::Parts(key) }) => {
                Ok(Self::Lookup(LookupSpec { names, key }))
            }
            TextOr::Table(_) => Err(de::Error::custom(
                "\"lookup\" needs \"key\"\nWrite key = \"the column of this row that holds the key\".",
            )),
        }
    }
}

/// One column or several.
#[derive(Debug, Clone, Default)]
pub struct Columns(pub Vec<Name>);

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parts = match KeySpec::deserialize(deserializer)? {
            KeySpec::Parts(parts) => parts,
            KeySpec::Pairs(_) => Vec::new(),
        };
        let columns: Option<Vec<Name>> = parts
            .into_iter()
            .map(|part| match part {
                KeyPart::Column(column) => Some(column),
                KeyPart::Lookup(_) => None,
            })
            .collect();
        let columns = columns.filter(|columns| !columns.is_empty());
        columns.map(Self).ok_or_else(|| {
            de::Error::custom("here stands a column\nWrite its name, or a list of names.")
        })
    }
}

/// A text or a table, whichever stands there.
pub(super) enum TextOr<T> {
    Text(String),
    Table(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for TextOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for TextOrVisitor<T> {
            type Value = TextOr<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a column, or a table in braces")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<TextOr<T>, E> {
                Ok(TextOr::Text(text.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TextOr<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(TextOr::Table)
            }
        }
        deserializer.deserialize_any(TextOrVisitor(PhantomData))
    }
}

impl<'de> Deserialize<'de> for KeySpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let key = Spanned::<KeyText>::deserialize(deserializer)?;
        let span = key.span();
        Ok(match key.into_inner() {
            KeyText::One(column) => Self::Parts(vec![KeyPart::Column(Spanned::new(span, column))]),
            KeyText::List(parts) => Self::Parts(parts),
            KeyText::Pairs(columns) => Self::Pairs(columns),
        })
    }
}

impl<'de> Deserialize<'de> for ValueSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Spanned::<TextOr<ValueTable>>::deserialize(deserializer)?;
        let span = value.span();
        match value.into_inner() {
            TextOr::Text(column) => {
                Ok(Self::Column { column: Spanned::new(span, column), old: false })
            }
            TextOr::Table(table) => table.into_spec().map_err(de::Error::custom),
        }
    }
}

/// The forms of a value, each with what may stand in it. `column` comes last, because the rows of another table have a column too.
const FORMS: &[(&str, &[&str])] = &[
    ("rows", &["rows", "key", "when", "column", "on"]),
    ("row", &["row", "key", "when", "column", "on"]),
    ("label", &["label", "labels", "old"]),
    ("lookup", &["lookup", "key", "old"]),
    ("join", &["join", "with", "old"]),
    ("sha256", &["sha256", "old"]),
    ("changed", &["changed"]),
    ("value", &["value"]),
    ("column", &["column", "path", "list", "old"]),
];

impl ValueTable {
    fn given(&self) -> Vec<&'static str> {
        let words = [
            ("column", self.column.is_some()),
            ("label", self.label.is_some()),
            ("labels", self.labels.is_some()),
            ("path", self.path.is_some()),
            ("list", self.list),
            ("old", self.old),
            ("lookup", self.lookup.is_some()),
            ("sha256", self.sha256.is_some()),
            ("key", self.key.is_some()),
            ("on", self.on.is_some()),
            ("join", self.join.is_some()),
            ("with", self.with.is_some()),
            ("rows", self.rows.is_some()),
            ("row", self.row.is_some()),
            ("when", !self.when.is_empty()),
            ("changed", self.changed.is_some()),
            ("value", self.value.is_some()),
        ];
        words.into_iter().filter(|(_, is_given)| *is_given).map(|(word, _)| word).collect()
    }

    /// A value is one of its forms, and says nothing that its form does not know. The hint of a fault follows in its second line.
    fn into_spec(self) -> Result<ValueSpec, String> {
        let given = self.given();
        let form = FORMS.iter().find(|(form, _)| given.contains(form));
        let Some((form, words)) = form else {
            let forms: Vec<String> =
                FORMS.iter().map(|(_, words)| format!("{{ {} }}", words.join(", "))).collect();
            return Err(format!(
                "the value does not say what it is\nIt is one of {}.",
                forms.join(", ")
            ));
        };
        if let Some(stranger) = given.iter().find(|word| !words.contains(word)) {
            return Err(format!(
                "{stranger:?} cannot stand beside {form:?} in one value\nBeside {form:?} may stand: {}.",
                words.iter().filter(|word| *word != form).copied().collect::<Vec<_>>().join(", ")
            )
            .replace("stand: .", "stand nothing else."));
        }
        let Self { column, label, labels, path, list, old, lookup, key, rows, row, when, .. } =
            self;
        if let (Some(table), is_list) = (rows.as_ref().or(row.as_ref()).cloned(), rows.is_some()) {
            let (Some(KeySpec::Pairs(key)), Some(column)) = (key, column) else {
                return Err(format!(
                    "{form:?} needs \"key\", a table, and \"column\"\nWrite key = {{ its_column = \"column of this row\" }} and the column that is taken of those rows."
                ));
            };
            let inserted = if is_list { Vec::new() } else { vec![OperationWord::Insert] };
            let on = self.on.map_or(inserted, |on| on.0);
            let rows = RowsSpec { table, on, key, when, column };
            return Ok(if is_list { ValueSpec::Rows(rows) } else { ValueSpec::Row(rows) });
        }
        if let Some(columns) = self.join {
            let with = self.with.unwrap_or_else(|| ".".to_owned());
            return Ok(ValueSpec::Join { columns, with, old });
        }
        if let Some(column) = self.sha256 {
            return Ok(ValueSpec::Sha256 { column, old });
        }
        match (column, label, lookup, self.changed, self.value) {
            (_, Some(column), ..) => Ok(ValueSpec::Label { column, labels, old }),
            (_, _, Some(names), ..) => match key {
                Some(KeySpec::Parts(key)) => {
                    Ok(ValueSpec::Lookup { lookup: LookupSpec { names, key }, old })
                }
                _ => Err("\"lookup\" needs \"key\"\nWrite key = \"the column of this row that holds the key\".".into()),
            },
            (.., Some(changed), _) => Ok(ValueSpec::Changed(changed)),
            (.., Some(value)) => Ok(ValueSpec::Constant(value)),
            (Some(column), ..) => match path {
                Some(Path(path)) => Ok(ValueSpec::Path { column, path, list, old }),
                None if list => Err("\"list\" needs \"path\"\nIt says that all that the path finds is taken, as a list.".into()),
                None => Ok(ValueSpec::Column { column, old }),
            },
            _ => Err("the value does not say what it is".into()),
        }
    }
}

/// A JSONPath, parsed where it stands so that a fault has its place.
struct Path(DocumentPath);

impl<'de> Deserialize<'de> for Path {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let path = parse_path(&text).map_err(de::Error::custom)?;
        Ok(Self(DocumentPath::new(&text, path)))
    }
}

pub(super) fn parse_path(text: &str) -> Result<JsonPath, String> {
    let brackets = text.bytes().filter(|byte| matches!(byte, b'(' | b'[')).count();
    if text.len() > PATH_BYTES_MAX || brackets > PATH_BRACKETS_MAX {
        return Err(format!(
            "the path is too long\nA path has at most {PATH_BYTES_MAX} bytes and {PATH_BRACKETS_MAX} brackets."
        ));
    }
    if let Some((at, _)) = text.match_indices("..").nth(1) {
        let character = text.get(..at).unwrap_or_default().chars().count() + 1;
        return Err(format!(
            "the path has a second \"..\" at its character {character}\nA path has at most one, because each multiplies what is searched."
        ));
    }
    JsonPath::parse(text).map_err(|error| {
        format!(
            "not a JSONPath: it goes wrong at its character {}\nWrite it like $.address.city or $[0].message (RFC 9535).",
            error.position() + 1
        )
    })
}
