//! A rule of the mapping, compiled against its relation: columns are positions, labels and constants are bytes.

use crate::tuple::{Operation, Row, Value};
use serde_json_path::JsonPath;

/// One compiled `[[event]]` block.
#[derive(Debug)]
pub struct Rule {
    pub event_type: String,
    /// What the rule is called in event ids: the type, and a number where a table has several blocks of one type.
    pub id: String,
    /// That number: 0 for the first block of its type and table.
    pub number: usize,
    pub subject_type: String,
    pub subject: Source,
    pub target: Option<Source>,
    pub error_message: Option<Source>,
    pub caller: Option<Source>,
    /// Each with its key as it stands in the payload, `"role":`.
    pub payload: Vec<(String, Source)>,
    /// Position of the column with the row's creation time.
    pub backfill: Option<usize>,
    pub insert: bool,
    pub update: bool,
    pub delete: bool,
    pub when: Vec<Condition>,
    pub changed: Vec<usize>,
    pub success: Vec<Condition>,
}

/// A compiled value.
#[derive(Debug)]
pub enum Source {
    Column {
        position: usize,
        old: bool,
        kind: JsonKind,
    },
    Label {
        position: usize,
        old: bool,
        labels: Vec<(String, String)>,
    },
    Path {
        position: usize,
        old: bool,
        path: Box<JsonPath>,
        list: bool,
    },
    Lookup {
        names: usize,
        position: usize,
        old: bool,
    },
    /// `slot` is the place among the mapping's [`Mapping::rows_specs`]; `key` are positions in this row.
    Rows {
        slot: usize,
        key: Vec<usize>,
        list: bool,
    },
    Changed {
        columns: Vec<(usize, String)>,
    },
    Constant(String),
}

/// How a column's text becomes JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonKind {
    Boolean,
    Integer,
    Number,
    /// `json`: what it holds may be more than `jsonb` takes.
    Json,
    Jsonb,
    Text,
}

impl JsonKind {
    /// From `pg_type.oid` of the built-in types (`src/include/catalog/pg_type.dat`).
    #[must_use]
    pub fn of_type(oid: u32) -> Self {
        match oid {
            16 => Self::Boolean,
            20 | 21 | 23 | 26 => Self::Integer,
            700 | 701 | 1700 => Self::Number,
            114 => Self::Json,
            3802 => Self::Jsonb,
            _ => Self::Text,
        }
    }
}

/// A compiled condition on one column.
#[derive(Debug)]
pub struct Condition {
    pub position: usize,
    pub test: Test,
}

#[derive(Debug)]
pub enum Test {
    In(Vec<Vec<u8>>),
    Not(Vec<u8>),
    Becomes(Vec<Vec<u8>>),
    Leaves(Vec<Vec<u8>>),
    Was(Vec<Vec<u8>>),
    Changes(bool),
    Null(bool),
}

fn is_one_of(value: Value<'_>, texts: &[Vec<u8>]) -> bool {
    matches!(value, Value::Text(value) if texts.iter().any(|text| text == value))
}

impl Condition {
    /// Whether the row satisfies it. What is not there satisfies nothing.
    #[must_use]
    pub fn holds(&self, row: &Row<'_>) -> bool {
        let (new, old) = (row.value(self.position), row.old_value(self.position));
        let is_update = row.operation == Operation::Update;
        match &self.test {
            Test::In(texts) => is_one_of(new, texts),
            Test::Not(text) => matches!(new, Value::Text(value) if value != text),
            Test::Null(null) => new != Value::Absent && (new == Value::Null) == *null,
            Test::Becomes(texts) => match row.operation {
                Operation::Insert => is_one_of(new, texts),
                Operation::Update => is_one_of(new, texts) && old != Value::Absent && old != new,
                Operation::Delete => false,
            },
            Test::Leaves(texts) => is_update && is_one_of(old, texts) && old != new,
            Test::Was(texts) => is_update && is_one_of(old, texts),
            Test::Changes(changes) => is_update && row.is_changed(self.position) == *changes,
        }
    }
}

impl Rule {
    /// Whether the rule takes this change.
    #[must_use]
    pub fn matches(&self, row: &Row<'_>) -> bool {
        self.takes(row.operation)
            && self.when.iter().all(|condition| condition.holds(row))
            && (self.changed.is_empty()
                || self.changed.iter().any(|&position| row.is_changed(position)))
    }

    /// Whether the rule takes this operation at all.
    #[must_use]
    pub fn takes(&self, operation: Operation) -> bool {
        match operation {
            Operation::Insert => self.insert,
            Operation::Update => self.update,
            Operation::Delete => self.delete,
        }
    }

    /// Whether the event succeeded.
    #[must_use]
    pub fn succeeded(&self, row: &Row<'_>) -> bool {
        self.success.iter().all(|condition| condition.holds(row))
    }

    /// Every value of the rule.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        std::iter::once(&self.subject)
            .chain(&self.target)
            .chain(&self.error_message)
            .chain(&self.caller)
            .chain(self.payload.iter().map(|(_, source)| source))
    }
}

/// A table whose rows name keys, compiled.
#[derive(Debug)]
pub struct NameFeed {
    /// Place among the mapping's names tables.
    pub names: usize,
    pub key: usize,
    pub name: usize,
}

/// A list of rows that rules of other tables ask for, compiled against the table of those rows.
#[derive(Debug)]
pub struct Collected {
    /// Place among the mapping's [`Mapping::rows_specs`].
    pub slot: usize,
    pub key: Vec<usize>,
    pub column: usize,
    pub when: Vec<Condition>,
    /// Only rows that were inserted (a caller), or those of any operation (a list).
    pub inserts_only: bool,
}
