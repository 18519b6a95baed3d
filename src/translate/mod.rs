//! Stage 4: [`Transaction`] → [`Events`], by the mapping.
//!
//! Pure: no IO, no clock, no random number. Names that are not in memory are asked for ([`Step::Names`]) and given back by the pipeline. A transaction is read twice, first for what it says as a whole (contexts, the rows of lists), then change by change; so it can be of any size, and its events come in pieces.

pub mod caller;
pub mod check;
pub mod compile;
pub mod deny;
pub mod document;
pub mod emit;
pub mod example;
pub mod json;
pub mod mapping;
pub mod names;
pub mod needs;
pub mod origin;
pub mod rule;
pub mod table;
pub mod value;

use crate::{
    decode::{Message, OldTuple, RelationMessage, TupleData},
    event::{ChangeKey, Commit, Events, Origin},
    lsn::Lsn,
    spool::Cursor,
    transaction::{Transaction, TransactionError},
    tuple::{Operation, Relation, Row, RowSpans, Value},
};
use caller::{Gathered, key_text, name_text};
use mapping::{Mapping, MappingErrors};
use names::{NameKey, NameRow, Names};
use rule::Source;
use std::{collections::HashMap, num::NonZeroUsize, sync::Arc};
pub use table::Table;
use table::Tables;

/// How many changes are looked at for names that are missing, so that one question asks for many.
const NAMES_WINDOW_CHANGES: usize = 500;

/// Why a transaction cannot be translated.
#[derive(Debug, thiserror::Error)]
pub enum TranslateError {
    #[error("cannot read transaction {xid}")]
    Transaction {
        xid: u32,
        #[source]
        source: TransactionError,
    },
    #[error("the mapping does not fit the table as it was at {lsn}")]
    Mapping {
        lsn: Lsn,
        #[source]
        source: MappingErrors,
    },
    #[error("a change names the relation with oid {oid}, which the stream did not describe")]
    UnknownRelation { oid: u32 },
}

/// Limits of a translator.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Keys of each names table that are kept in memory.
    pub names: NonZeroUsize,
    /// Longest value of a payload's key, in bytes.
    pub value_bytes: usize,
    /// A piece of events ends at the first change that reaches either.
    pub batch_events: usize,
    pub batch_bytes: usize,
}

/// What a piece of the log became: events, names, and what no rule took.
#[derive(Debug, Default)]
pub struct Batch {
    pub events: Events,
    pub names: Vec<NameRow>,
    /// Changes without an event, by table and operation.
    pub unmapped: HashMap<(Arc<str>, Operation), u64>,
    pub transactions: u64,
    pub changes: u64,
}

/// What [`Translator::advance`] came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The transaction is translated.
    Done,
    /// The batch is full; call again with another one.
    Full,
    /// Names are missing; give them with [`Translator::put_name`] and call again.
    Names(Vec<NameKey>),
}

/// A transaction that is being translated.
#[derive(Debug)]
pub struct Translation {
    cursor: Cursor,
    gathered: Gathered,
    last: ChangeKey,
    /// Events so far.
    events: u64,
    /// The part of `_audit` that is the same for all its events.
    audit: String,
}

/// One source's translator.
#[derive(Debug)]
pub struct Translator {
    origin: Origin,
    source: String,
    mapping: Arc<Mapping>,
    collects: bool,
    tables: Tables,
    names: Names,
    limits: Limits,
    spans: RowSpans,
    /// Memory of the last [`Translation::audit`].
    audit: String,
}

impl Translator {
    /// A translator for the source named `source` in `_audit`.
    #[must_use]
    pub fn new(origin: Origin, source: &str, mapping: Arc<Mapping>, limits: Limits) -> Self {
        let collects = mapping.rows_specs().next().is_some();
        let names = Names::new(mapping.names.len(), limits.names);
        Self {
            origin,
            source: source.to_owned(),
            mapping,
            collects,
            tables: Tables::default(),
            names,
            limits,
            spans: RowSpans::default(),
            audit: String::new(),
        }
    }

    /// What the audit database knows of a key.
    pub fn put_name(&mut self, key: &NameKey, name: Option<&str>) {
        self.names.put(key.names, &key.key, name);
    }

    /// Begins a transaction: reads what it says as a whole.
    ///
    /// # Errors
    /// It cannot be read, or a relation in it does not fit the mapping.
    pub fn begin(&mut self, transaction: &Transaction) -> Result<Translation, TranslateError> {
        let mut gathered = Gathered::default();
        if self.collects || transaction.has_logical_messages {
            self.gather(transaction, &mut gathered)?;
        }
        let mut audit = std::mem::take(&mut self.audit);
        audit.clear();
        emit::push_audit(&mut audit, &self.source, transaction.commit_lsn, Some(transaction.xid));
        let last = ChangeKey { wal_start: Lsn::ZERO, relation: 0, index: 0 };
        Ok(Translation { cursor: Cursor::default(), gathered, last, events: 0, audit })
    }

    fn gather(
        &mut self,
        transaction: &Transaction,
        gathered: &mut Gathered,
    ) -> Result<(), TranslateError> {
        // Relations that change inside the transaction must not change yet for the second reading.
        let mut changed: Option<Tables> = None;
        let mut cursor = Cursor::default();
        loop {
            let tables = changed.as_ref().unwrap_or(&self.tables);
            let wanted = |oid| tables.get(oid).is_none_or(|table| !table.collected.is_empty());
            let message = transaction.next_wanted(&mut cursor, wanted);
            let Some(message) = message.map_err(|source| unreadable(transaction, source))? else {
                return Ok(());
            };
            match message {
                Message::Relation(message) => {
                    let table = self.compile(&message, transaction.commit_lsn)?;
                    changed.get_or_insert_with(|| self.tables.clone()).put(table);
                }
                Message::LogicalMessage { transactional: true, prefix, content, .. } => {
                    gathered.add_message(prefix, content);
                }
                message => {
                    let Some((oid, operation, old, new)) = row_change(message) else { continue };
                    let table = tables.get(oid).ok_or(TranslateError::UnknownRelation { oid })?;
                    let row = Row::new(operation, &table.relation, old, new, &mut self.spans);
                    for collected in &table.collected {
                        gathered.add_row(collected, &row);
                    }
                }
            }
        }
    }

    fn compile(&self, message: &RelationMessage<'_>, lsn: Lsn) -> Result<Table, TranslateError> {
        Table::compile(&self.mapping, Relation::from_message(message))
            .map_err(|source| TranslateError::Mapping { lsn, source })
    }

    /// Translates on into `batch`, until the transaction ends, the batch is full or names are missing.
    ///
    /// # Errors
    /// As [`Translator::begin`].
    pub fn advance(
        &mut self,
        transaction: &Transaction,
        translation: &mut Translation,
        batch: &mut Batch,
    ) -> Result<Step, TranslateError> {
        loop {
            if batch.events.len() >= self.limits.batch_events
                || batch.events.bytes() >= self.limits.batch_bytes
                || batch.names.len() >= self.limits.batch_events
            {
                return Ok(Step::Full);
            }
            let offset = translation.cursor.offset();
            let Translation { cursor, gathered, last, events, audit } = translation;
            let message = transaction.next(cursor);
            let Some((wal_start, message)) =
                message.map_err(|source| unreadable(transaction, source))?
            else {
                self.audit = std::mem::take(audit);
                return Ok(Step::Done);
            };
            let mut place = Place { transaction, gathered, last, events, audit, wal_start };
            let missing = match message {
                Message::Relation(message) => {
                    self.tables.put(self.compile(&message, transaction.commit_lsn)?);
                    false
                }
                Message::Truncate { cascade, restart_identity, relations } => {
                    for oid in relations {
                        let flags = (cascade, restart_identity);
                        self.truncation(oid, flags, &mut place, batch)?;
                    }
                    false
                }
                message => match row_change(message) {
                    None => false,
                    Some(change) => !self.change(change, &mut place, batch)?,
                },
            };
            if missing {
                translation.cursor.rewind(offset);
                return self.missing_names(transaction, &translation.cursor).map(Step::Names);
            }
        }
    }

    /// Translates one row's change; `false`, and nothing done, if names are missing.
    fn change(
        &mut self,
        (oid, operation, old, new): RowChange<'_>,
        place: &mut Place<'_>,
        batch: &mut Batch,
    ) -> Result<bool, TranslateError> {
        let table = self.tables.get(oid).ok_or(TranslateError::UnknownRelation { oid })?;
        let table = Arc::clone(table);
        let mut spans = std::mem::take(&mut self.spans);
        let row = Row::new(operation, &table.relation, old, new, &mut spans);
        let ready = !table.has_lookups || !needs_names(&table, &row, &self.names, &mut |_| {});
        if ready {
            self.feed_names(&table, &row, batch);
            place.last.advance(place.wal_start, oid);
            batch.changes += 1;
            let mut taken = false;
            for rule in table.rules.iter().filter(|rule| rule.matches(&row)) {
                taken = true;
                self.emit(rule, row, place, batch);
            }
            if !taken && !row.is_no_op() && (!table.rules.is_empty() || !table.is_used()) {
                let key = (Arc::clone(&table.name), operation);
                *batch.unmapped.entry(key).or_default() += 1;
            }
        }
        self.spans = spans;
        Ok(ready)
    }

    fn feed_names(&mut self, table: &Table, row: &Row<'_>, batch: &mut Batch) {
        for feed in table.feeds.iter().filter(|_| row.operation != Operation::Delete) {
            if let (Value::Text(key), Value::Text(name)) =
                (row.value(feed.key), row.value(feed.name))
            {
                let (key, name) = (key_text(key), name_text(name));
                if self.names.get(feed.names, &key) != Some(name.as_ref()) {
                    self.names.put(feed.names, &key, Some(&name));
                    let (key, name) = (key.into_owned(), Some(name.into_owned()));
                    batch.names.push(NameRow { names: feed.names, key, name });
                }
            }
        }
    }

    /// The keys from here on whose names are not in memory: up to a relation or a row that gives names, and not too far.
    fn missing_names(
        &mut self,
        transaction: &Transaction,
        cursor: &Cursor,
    ) -> Result<Vec<NameKey>, TranslateError> {
        let mut cursor = cursor.clone();
        let mut missing = Vec::new();
        for _ in 0..NAMES_WINDOW_CHANGES {
            // What is asked for must all fit, or the first answers would be gone before they are used.
            if missing.len() >= self.limits.names.get() / 2 {
                break;
            }
            let next = transaction.next(&mut cursor);
            let next = next.map_err(|source| unreadable(transaction, source))?;
            let Some((_, message)) = next else { break };
            if matches!(message, Message::Relation(_)) {
                break;
            }
            let Some((oid, operation, old, new)) = row_change(message) else { continue };
            let Some(table) =
                self.tables.get(oid).filter(|table| table.feeds.is_empty() || missing.is_empty())
            else {
                break;
            };
            let row = Row::new(operation, &table.relation, old, new, &mut self.spans);
            needs_names(table, &row, &self.names, &mut |key| {
                if !missing.contains(&key) {
                    missing.push(key);
                }
            });
        }
        Ok(missing)
    }
}

type RowChange<'a> = (u32, Operation, Option<OldTuple<'a>>, Option<TupleData<'a>>);

/// The row changes among the messages.
fn row_change(message: Message<'_>) -> Option<RowChange<'_>> {
    match message {
        Message::Insert { relation, new } => Some((relation, Operation::Insert, None, Some(new))),
        Message::Update { relation, old, new } => {
            Some((relation, Operation::Update, old, Some(new)))
        }
        Message::Delete { relation, old } => Some((relation, Operation::Delete, Some(old), None)),
        Message::Begin { .. }
        | Message::Commit { .. }
        | Message::Origin { .. }
        | Message::LogicalMessage { .. }
        | Message::Relation(_)
        | Message::Type { .. }
        | Message::Truncate { .. }
        | Message::StreamStart { .. }
        | Message::StreamStop
        | Message::StreamCommit { .. }
        | Message::StreamAbort { .. }
        | Message::BeginPrepare(_)
        | Message::Prepare(_)
        | Message::StreamPrepare(_)
        | Message::CommitPrepared { .. }
        | Message::RollbackPrepared { .. } => None,
    }
}

/// Whether a rule that takes the row looks up names that are not in memory; tells each.
fn needs_names(table: &Table, row: &Row<'_>, names: &Names, tell: &mut dyn FnMut(NameKey)) -> bool {
    let mut needs = false;
    for rule in table.rules.iter().filter(|rule| rule.matches(row)) {
        for source in rule.sources() {
            let Source::Lookup { names: place, position, old } = source else { continue };
            let value = if *old { row.old_value(*position) } else { row.value(*position) };
            let Value::Text(key) = value else { continue };
            let key = key_text(key);
            if !names.holds(*place, &key) {
                needs = true;
                tell(NameKey { names: *place, key: key.into_owned() });
            }
        }
    }
    needs
}

fn unreadable(transaction: &Transaction, source: TransactionError) -> TranslateError {
    TranslateError::Transaction { xid: transaction.xid, source }
}

/// Where in its transaction a change stands.
struct Place<'a> {
    transaction: &'a Transaction,
    gathered: &'a Gathered,
    last: &'a mut ChangeKey,
    events: &'a mut u64,
    audit: &'a str,
    wal_start: Lsn,
}

impl Place<'_> {
    fn commit(&self) -> Commit {
        let Transaction { xid, commit_lsn, commit_time, .. } = *self.transaction;
        Commit { xid, commit_lsn, commit_time }
    }
}

impl ChangeKey {
    /// The key of the next change. Those that share an LSN are rows of one record, so they follow each other.
    fn advance(&mut self, wal_start: Lsn, relation: u32) {
        let is_same = self.wal_start == wal_start && self.relation == relation;
        let index = if is_same { self.index + 1 } else { 0 };
        *self = Self { wal_start, relation, index };
    }
}
