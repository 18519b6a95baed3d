//! Tuples with names and types: what a [`Row`] can say of its columns, before and after a change.

use crate::decode::{Column, ColumnSpan, OldTuple, RelationMessage, ReplicaIdentity, TupleData};

/// A table as the stream or the catalog describes it. Columns are published ones only, in the order of its tuples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    pub oid: u32,
    pub namespace: String,
    pub name: String,
    pub replica_identity: ReplicaIdentity,
    pub columns: Vec<RelationColumn>,
}

/// A column of a [`Relation`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelationColumn {
    pub name: String,
    pub type_oid: u32,
    /// Whether it belongs to the replica identity.
    pub key: bool,
}

impl Relation {
    /// From the message of the stream.
    #[must_use]
    pub fn from_message(message: &RelationMessage<'_>) -> Self {
        let text = identifier;
        let namespace = text(message.namespace);
        Self {
            oid: message.oid,
            namespace: if namespace.is_empty() { "pg_catalog".into() } else { namespace },
            name: text(message.name),
            replica_identity: message.replica_identity,
            columns: message
                .columns
                .iter()
                .map(|column| RelationColumn {
                    name: text(column.name),
                    type_oid: column.type_oid,
                    key: column.key,
                })
                .collect(),
        }
    }

    /// `schema.table`, as mappings name it.
    #[must_use]
    pub fn qualified_name(&self) -> String {
        format!("{}.{}", self.namespace, self.name)
    }

    /// Position of a column by its name.
    #[must_use]
    pub fn position(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|candidate| candidate.name == column)
    }

    /// Whether an UPDATE or DELETE carries the old value of the column at `position`.
    #[must_use]
    pub fn carries_old(&self, position: usize) -> bool {
        match self.replica_identity {
            ReplicaIdentity::Full => true,
            ReplicaIdentity::Nothing => false,
            ReplicaIdentity::Default | ReplicaIdentity::Index => {
                self.columns.get(position).is_some_and(|column| column.key)
            }
        }
    }
}

/// A name of a table or column as text. Bytes that are not UTF-8, as an SQL_ASCII database may have, stand as visible escapes, so that two names never fall together.
#[must_use]
pub fn identifier(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02X}"));
        }
    }
    text
}

/// What was done to a row. (A truncation has no rows.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    Insert,
    Update,
    Delete,
}

impl Operation {
    /// The SQL command's name in lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// A column's value at one side of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// Not sent: an unchanged TOASTed value, or outside the replica identity. Never the same as NULL.
    Absent,
    Null,
    /// PostgreSQL's text form.
    Text(&'a [u8]),
}

impl<'a> From<Column<'a>> for Value<'a> {
    fn from(column: Column<'a>) -> Self {
        match column {
            Column::Null => Self::Null,
            Column::Text(bytes) => Self::Text(bytes),
            // The stream is asked for text; a binary value would be one that we cannot read.
            Column::Unchanged | Column::Binary(_) => Self::Absent,
        }
    }
}

/// A tuple and where its columns stand.
#[derive(Debug, Clone, Copy)]
pub struct Tuple<'a> {
    data: TupleData<'a>,
    spans: &'a [ColumnSpan],
}

impl<'a> Tuple<'a> {
    fn value(&self, position: usize) -> Value<'a> {
        let column = self.spans.get(position).and_then(|&span| self.data.column(span));
        column.map_or(Value::Absent, Value::from)
    }
}

/// The row before the change, as far as the replica identity carries it.
#[derive(Debug, Clone, Copy)]
enum Old<'a> {
    /// An INSERT, or an UPDATE that left every column of the replica identity as it was.
    None,
    Key(Tuple<'a>),
    Full(Tuple<'a>),
}

/// What is remembered of a column: its text, or that it was NULL.
pub type RememberedValue = Option<Vec<u8>>;

/// Memory for the spans of one row, used again for each.
#[derive(Debug, Default)]
pub struct RowSpans {
    old: Vec<ColumnSpan>,
    new: Vec<ColumnSpan>,
}

/// One changed row: its relation, and its columns before and after.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    pub operation: Operation,
    pub relation: &'a Relation,
    new: Option<Tuple<'a>>,
    old: Old<'a>,
    /// Columns before the change that the replica identity does not carry, and that are known all the same.
    remembered: &'a [(usize, RememberedValue)],
    /// The row that this one is an entry of: its columns come first, and the tuples here begin behind them.
    around: Option<&'a Row<'a>>,
}

impl<'a> Row<'a> {
    /// Lines the tuples of a change up with their relation.
    #[must_use]
    pub fn new(
        operation: Operation,
        relation: &'a Relation,
        old: Option<OldTuple<'a>>,
        new: Option<TupleData<'a>>,
        spans: &'a mut RowSpans,
    ) -> Self {
        if let Some(OldTuple::Full(tuple) | OldTuple::Key(tuple)) = old {
            tuple.index_into(&mut spans.old);
        }
        if let Some(tuple) = new {
            tuple.index_into(&mut spans.new);
        }
        let spans = &*spans;
        let old = match old {
            None => Old::None,
            Some(OldTuple::Full(data)) => Old::Full(Tuple { data, spans: &spans.old }),
            Some(OldTuple::Key(data)) => Old::Key(Tuple { data, spans: &spans.old }),
        };
        let new = new.map(|data| Tuple { data, spans: &spans.new });
        Self { operation, relation, new, old, remembered: &[], around: None }
    }

    /// The same row as an entry of `around`, whose columns stand before its own: they are looked at where they are, because a row may have very many entries.
    #[must_use]
    pub fn within(self, around: &'a Row<'a>) -> Self {
        Self { around: Some(around), ..self }
    }

    /// The same row, with what is remembered of it.
    #[must_use]
    pub fn with_remembered(self, remembered: &'a [(usize, RememberedValue)]) -> Self {
        Self { remembered, ..self }
    }

    /// The value after an INSERT or UPDATE, or the deleted row's. An unchanged TOASTed value is taken from the old tuple where that holds it: the server sends the key of a row whose key column is TOASTed even if it did not change.
    #[must_use]
    pub fn value(&self, position: usize) -> Value<'a> {
        match &self.new {
            None => self.carried(position),
            Some(new) => match self.sent(new, position) {
                Value::Absent => self.carried(position),
                value => value,
            },
        }
    }

    /// The row that holds the column, if it is not this one's own.
    fn around(&self, position: usize) -> Option<&'a Row<'a>> {
        self.around.filter(|around| position < around.relation.columns.len())
    }

    /// Where one of its own columns stands in its tuples.
    fn own(&self, position: usize) -> usize {
        position - self.around.map_or(0, |around| around.relation.columns.len().min(position))
    }

    /// The new tuple's word on a column.
    fn sent(&self, new: &Tuple<'a>, position: usize) -> Value<'a> {
        let around = self.around(position).map(|around| around.value(position));
        around.unwrap_or_else(|| new.value(self.own(position)))
    }

    /// The value before the change: absent for an INSERT, and where the replica identity does not carry it.
    #[must_use]
    pub fn old_value(&self, position: usize) -> Value<'a> {
        match (&self.old, self.operation) {
            (_, Operation::Insert) => Value::Absent,
            // No old tuple means that no column of the replica identity changed.
            (Old::None, _) if self.is_key(position) => self.value(position),
            _ => self.carried(position),
        }
    }

    /// Whether an UPDATE changed the column, as far as the tuples tell. An unchanged TOASTed value did not change.
    #[must_use]
    pub fn is_changed(&self, position: usize) -> bool {
        let sent = self.new.map_or(Value::Absent, |new| self.sent(&new, position));
        match (sent, self.old_value(position)) {
            (Value::Absent, _) | (_, Value::Absent) => false,
            (new, old) => new != old,
        }
    }

    /// Whether this is an UPDATE that is known to have changed nothing.
    #[must_use]
    pub fn is_no_op(&self) -> bool {
        let knows_all = matches!(self.old, Old::Full(_)) && self.operation == Operation::Update;
        knows_all && !(0..self.relation.columns.len()).any(|position| self.is_changed(position))
    }

    /// The old tuple's word on a column; in a key tuple only key columns are there.
    fn carried(&self, position: usize) -> Value<'a> {
        if let Some(around) = self.around(position) {
            // An entry that an UPDATE removed belongs to the row as it was.
            return around.old_value(position);
        }
        match &self.old {
            Old::Full(tuple) => tuple.value(self.own(position)),
            Old::Key(tuple) if self.is_key(position) => tuple.value(self.own(position)),
            Old::Key(_) | Old::None => {
                let known = self.remembered.iter().find(|(column, _)| *column == position);
                known.map_or(Value::Absent, |(_, value)| {
                    value.as_deref().map_or(Value::Null, Value::Text)
                })
            }
        }
    }

    fn is_key(&self, position: usize) -> bool {
        self.relation.columns.get(position).is_some_and(|column| column.key)
    }
}
