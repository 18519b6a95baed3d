//! A rule of the mapping, compiled against its relation: columns are positions, labels and constants are bytes.

use super::lookup::Lookup;
use super::path::DocumentPath;
use crate::{
    timestamp::Timestamp,
    tuple::{Operation, Row, Value},
};

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
    pub takes: Takes,
    pub success: Vec<Condition>,
    /// Its place among the blocks of the mapping.
    pub place: usize,
    /// Only the first row of a transaction with the same values here gives an event.
    pub once_per: Vec<usize>,
    /// No event if the transaction has such a row.
    pub unless: Option<RowsKey>,
}

/// Which changes a block takes.
#[derive(Debug)]
pub struct Takes {
    pub insert: bool,
    pub update: bool,
    pub delete: bool,
    pub when: Vec<Condition>,
    pub changed: Vec<usize>,
}

/// Which rows of a transaction are asked for: `slot` is the place among the mapping's sets of rows, `key` are positions in this row, `on` says what was done to them; nothing: the same as to this row.
#[derive(Debug)]
pub struct RowsKey {
    pub slot: usize,
    pub key: Vec<usize>,
    pub on: Vec<Operation>,
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
        path: Box<DocumentPath>,
        list: bool,
    },
    Join {
        columns: Vec<usize>,
        with: String,
        old: bool,
    },
    Sha256 {
        position: usize,
        old: bool,
    },
    Lookup {
        lookup: Lookup,
        old: bool,
        /// The name is a list, as JSON.
        list: bool,
    },
    Rows {
        rows: RowsKey,
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
    Past(bool),
}

fn is_one_of(value: Value<'_>, texts: &[Vec<u8>]) -> bool {
    matches!(value, Value::Text(value) if texts.iter().any(|text| text == value))
}

impl Condition {
    /// Whether the row satisfies it, at the time of its commit. What is not there satisfies nothing, but that it is not past.
    #[must_use]
    pub fn holds(&self, row: &Row<'_>, at: Timestamp) -> bool {
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
            Test::Past(past) => parse_time(new).is_some_and(|time| time <= at) == *past,
        }
    }
}

/// A `timestamptz` as the pinned settings print it, or a `timestamp`, which is taken as UTC.
#[must_use]
pub fn parse_time(value: Value<'_>) -> Option<Timestamp> {
    let Value::Text(bytes) = value else { return None };
    let text = std::str::from_utf8(bytes).ok()?;
    let zoned = chrono::DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%#z").ok();
    let local = || chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").ok();
    let time = zoned.map(|time| time.to_utc()).or_else(|| local().map(|time| time.and_utc()));
    time.map(Timestamp::from)
}

impl Takes {
    /// Whether the block takes this change, committed at a time.
    #[must_use]
    pub fn matches(&self, row: &Row<'_>, at: Timestamp) -> bool {
        let takes = match row.operation {
            Operation::Insert => self.insert,
            Operation::Update => self.update,
            Operation::Delete => self.delete,
        };
        takes
            && self.when.iter().all(|condition| condition.holds(row, at))
            && (self.changed.is_empty()
                || self.changed.iter().any(|&position| row.is_changed(position)))
    }
}

impl Rule {
    /// Whether the event succeeded.
    #[must_use]
    pub fn succeeded(&self, row: &Row<'_>, at: Timestamp) -> bool {
        self.success.iter().all(|condition| condition.holds(row, at))
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
    pub key: Vec<usize>,
    pub name: Source,
}

/// A list of rows that rules of other tables ask for, compiled against the table of those rows.
#[derive(Debug)]
pub struct Collected {
    /// Place among the mapping's `Mapping::rows_specs`.
    pub slot: usize,
    pub key: Vec<usize>,
    pub column: usize,
    pub when: Vec<Condition>,
    /// Only rows to which one of these was done; nothing: any.
    pub on: Vec<Operation>,
}
