//! Stage 4: [`Transaction`] → [`Batch`] of events, by the mapping.
//!
//! Pure: no IO, no clock, no random number. Names that are not in memory are asked for ([`Step::Names`]) and given back by the pipeline. A transaction is read twice, first for what it says as a whole (contexts, the rows of lists), then change by change; so it can be of any size, and its events come in pieces.

pub mod attempt;
pub mod batch;
pub mod caller;
pub mod cascade;
pub mod check;
pub mod compile;
pub mod context;
pub mod deny;
pub mod diverged;
pub mod document;
pub mod emit;
pub mod example;
mod feed;
pub mod gap;
mod gather;
pub mod infer;
pub mod json;
pub mod kratos;
pub mod lookup;
pub mod mapping;
mod moved;
pub mod names;
pub mod needs;
pub mod origin;
pub mod path;
pub mod picture;
pub mod remember;
pub mod rule;
pub mod stopped;
pub mod table;
pub mod undeliverable;
pub mod unfold;
pub mod value;
pub mod written;

use crate::{
    decode::{Message, OldTuple, TupleData},
    event::{ChangeKey, Commit, Origin},
    lsn::Lsn,
    spool::Cursor,
    transaction::{Transaction, TransactionError},
    tuple::{Operation, Row, RowSpans},
};
pub use batch::Batch;
use batch::Held;
use caller::{Gathered, short_key};
use gather::{Gathering, Window, needs_names, remembered};
use kratos::Kratos;
use mapping::{Mapping, MappingErrors};
use names::{NameKey, Names};
use rule::Rule;
use std::{
    collections::{BTreeMap, HashSet},
    num::NonZeroUsize,
    sync::Arc,
};
pub use table::Table;
use table::Tables;
use unfold::for_each_entry;
use uuid::Uuid;

/// How many changes are looked at for names that are missing, so that one question asks for many.
const NAMES_WINDOW_CHANGES: usize = 2_500;

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
    /// A piece of a transaction ends at the first change that reaches either.
    pub batch_events: usize,
    pub batch_bytes: usize,
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
    /// The first reading, until it is done.
    gathering: Option<Gathering>,
    gathered: Gathered,
    /// Groups of rows that were told, of rules with `once_per`.
    once: HashSet<(Operation, [u8; 16])>,
    last: ChangeKey,
    /// Events so far.
    events: u64,
    /// What the batch held of earlier transactions when this one came to it.
    before: Option<Held>,
    /// The part of `_audit` that is the same for all its events.
    audit: String,
}

impl Translation {
    /// Whether this transaction alone is a batch. What came before it is a batch as it is: a piece for its sake would keep the audit transaction open for nothing.
    fn fills(&mut self, batch: &Batch, limits: Limits) -> bool {
        let held = batch.held();
        let before = *self.before.get_or_insert(held);
        let is_full = held.since(before).is_full(limits.batch_events, limits.batch_bytes);
        if is_full {
            self.before = Some(Held::default());
        }
        is_full
    }
}

/// One source's translator.
#[derive(Debug)]
pub struct Translator {
    origin: Origin,
    source: String,
    timeline: u32,
    mapping: Arc<Mapping>,
    collects: bool,
    tables: Tables,
    /// Tables of the mapping by the oid that they had last, so that one is known again by another name.
    known: BTreeMap<u32, String>,
    /// A table came that is not as it was.
    has_changed: bool,
    /// A mapping that does not fit is an error.
    is_strict: bool,
    contexts: context::Readers,
    names: Names,
    kratos: Option<Kratos>,
    limits: Limits,
    spans: RowSpans,
    written: written::Written,
    /// Memory of the last [`Translation::audit`].
    audit: String,
}

impl Translator {
    /// A translator for the source named `source` in `_audit`.
    #[must_use]
    pub fn new(origin: Origin, source: &str, mapping: Arc<Mapping>, limits: Limits) -> Self {
        let collects = mapping.rows_specs().next().is_some() || !mapping.cascades.is_empty();
        let names = Names::new(mapping.entities().len(), limits.names);
        let contexts = context::Readers::new(&mapping);
        let kratos = Kratos::new(origin, source, &mapping, limits.value_bytes);
        Self {
            origin,
            source: source.to_owned(),
            timeline: 1,
            mapping,
            collects,
            tables: Tables::default(),
            known: BTreeMap::new(),
            has_changed: false,
            is_strict: false,
            contexts,
            names,
            kratos,
            limits,
            spans: RowSpans::default(),
            written: written::Written::default(),
            audit: String::new(),
        }
    }

    /// The timeline that is followed, if it is not the first: `_audit` names it.
    pub fn set_timeline(&mut self, timeline: u32) {
        self.timeline = timeline;
        if let Some(kratos) = &mut self.kratos {
            kratos.set_timeline(timeline);
        }
    }

    /// What the audit database knows of a key.
    pub fn put_name(&mut self, key: &NameKey, name: Option<&str>) {
        self.names.put(key.names, &key.key, name.map(Into::into));
    }

    /// Begins a transaction.
    pub fn begin(&mut self, transaction: &Transaction) -> Translation {
        self.begin_kratos();
        let gathers = self.collects || transaction.has_logical_messages;
        let mut audit = std::mem::take(&mut self.audit);
        audit.clear();
        let position = (transaction.commit_lsn, self.timeline);
        emit::push_audit(&mut audit, &self.source, position, Some(transaction.xid));
        Translation {
            cursor: Cursor::default(),
            gathering: gathers.then(Gathering::default),
            gathered: Gathered::default(),
            once: HashSet::new(),
            last: ChangeKey { wal_start: Lsn::ZERO, relation: 0, index: 0 },
            events: 0,
            before: None,
            audit,
        }
    }

    /// Translates on into `batch`, until the transaction ends, the batch is full or names are missing.
    ///
    /// # Errors
    /// The transaction cannot be read, or a relation in it does not fit the mapping and the translator is strict.
    pub fn advance(
        &mut self,
        transaction: &Transaction,
        translation: &mut Translation,
        batch: &mut Batch,
    ) -> Result<Step, TranslateError> {
        batch.upto = batch.upto.max(transaction.end_lsn);
        let missing = self.prepare(transaction, translation)?;
        if !missing.is_empty() {
            return Ok(Step::Names(missing));
        }
        loop {
            if translation.fills(batch, self.limits) {
                return Ok(Step::Full);
            }
            let offset = translation.cursor.offset();
            let Translation { cursor, gathered, once, last, events, audit, .. } = translation;
            let message = transaction.next(cursor);
            let Some((wal_start, message)) =
                message.map_err(|source| unreadable(transaction, source))?
            else {
                if !self.finish_kratos(transaction, events, batch) {
                    return Ok(Step::Names(self.missing_of_kratos()));
                }
                self.audit = std::mem::take(audit);
                return Ok(Step::Done);
            };
            let mut place = Place { transaction, gathered, once, last, events, audit, wal_start };
            let missing = match message {
                Message::Relation(message) => {
                    self.describe(&message, transaction.commit_lsn)?;
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
                    Some(change) if moved::may_move(&self.tables, &change) => {
                        let (oid, mut second) = (change.0, cursor.clone());
                        let is_missing =
                            !self.moved(oid, (offset, &mut second), &mut place, batch)?;
                        cursor.rewind(second.offset());
                        is_missing
                    }
                    Some(change) => !self.change(change, &mut place, batch)?,
                },
            };
            if missing {
                translation.cursor.rewind(offset);
                let mut keys = self.missing_of_kratos();
                let Self { tables, names, kratos, limits, .. } = self;
                let window = Window { tables, names, kratos: kratos.as_ref(), limits: *limits };
                let cursor = translation.cursor.clone();
                keys.extend(window.missing(transaction, cursor, &mut self.spans)?);
                return Ok(Step::Names(keys));
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
        let Ok(remembered) = remembered(&table, &row, &self.names) else {
            self.spans = spans;
            return Ok(false);
        };
        let row = row.with_remembered(&remembered);
        let at = place.transaction.commit_time;
        let ready = !table.has_lookups || !needs_names(&table, &row, at, &self.names, &mut |_| {});
        let mut here = *place.last;
        here.advance(place.wal_start, oid);
        let by_kratos =
            if ready { self.change_kratos(&table, &row, here, place, batch) } else { None };
        let ready = by_kratos.is_some();
        if ready {
            self.feed_names(&table, &row, batch);
            if let Some(remember) = &table.remember {
                remember.keep(&row, &mut self.names, &mut batch.names);
            }
            *place.last = here;
            batch.changes += 1;
            self.tell(&table, row, by_kratos == Some(true), place, batch);
            self.names.trim();
        }
        self.spans = spans;
        Ok(ready)
    }

    /// The events of one row's change, and of the entries in it.
    fn tell(
        &mut self,
        table: &Table,
        row: Row<'_>,
        by_kratos: bool,
        place: &mut Place<'_>,
        batch: &mut Batch,
    ) {
        let at = place.transaction.commit_time;
        let mut cause = place.gathered.deletions.cause(&table.kin, &row);
        let mut own = None;
        let mut taken = by_kratos || table.ignores.iter().any(|takes| takes.matches(&row, at));
        for rule in table.rules.iter().filter(|rule| rule.takes.matches(&row, at)) {
            taken = true;
            if place.is_wanted(rule, &row) {
                let event = self.emit(rule, row, Told { entry: None, cause }, place, batch);
                own = own.or(Some(event));
            }
        }
        if let Some(event) = own.filter(|_| row.operation == Operation::Delete) {
            place.gathered.deletions.told(&table.kin, &row, event);
            cause = cause.or(Some(event));
        }
        let is_read = for_each_entry(table, &row, &mut |unfold, entry, row| {
            for rule in unfold.rules.iter().filter(|rule| rule.takes.matches(&row, at)) {
                taken = true;
                let told = Told { entry: Some(entry), cause };
                self.emit(rule, row, told, place, batch);
            }
        });
        let is_stopped = table.stopped.takes(row.operation) && !row.is_no_op();
        if is_stopped {
            self.change_unmapped(table, row, place, batch);
        }
        let is_left = !taken && !row.is_no_op() && (table.has_rules() || !table.is_used());
        // Entries that cannot be read are counted, whatever else the row was told as.
        if is_left || is_stopped || !is_read {
            let key = (Arc::clone(&table.name), row.operation);
            *batch.unmapped.entry(key).or_default() += 1;
        }
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

fn unreadable(transaction: &Transaction, source: TransactionError) -> TranslateError {
    TranslateError::Transaction { xid: transaction.xid, source }
}

/// Where in its transaction a change stands.
struct Place<'a> {
    transaction: &'a Transaction,
    gathered: &'a mut Gathered,
    once: &'a mut HashSet<(Operation, [u8; 16])>,
    last: &'a mut ChangeKey,
    events: &'a mut u64,
    audit: &'a str,
    wal_start: Lsn,
}

/// Groups of one transaction that are told once; of more, each row is told.
const ONCE_MAX: usize = 100_000;

impl Place<'_> {
    fn commit(&self) -> Commit {
        commit_of(self.transaction)
    }

    /// Whether the rule's event is told for this row, or another row of the transaction speaks for it.
    fn is_wanted(&mut self, rule: &Rule, row: &Row<'_>) -> bool {
        if rule.unless.as_ref().is_some_and(|rows| !self.gathered.rows(rows, row).is_empty()) {
            return false;
        }
        if rule.once_per.is_empty() || self.once.len() >= ONCE_MAX {
            return true;
        }
        let key = short_key(rule.place, row, &rule.once_per, false);
        key.is_none_or(|key| self.once.insert((row.operation, key)))
    }
}

/// What an event is told with, beside its row: the entry in it, and what caused it.
#[derive(Debug, Clone, Copy)]
struct Told<'a> {
    entry: Option<&'a str>,
    cause: Option<Uuid>,
}

fn commit_of(transaction: &Transaction) -> Commit {
    let Transaction { xid, commit_lsn, commit_time, .. } = *transaction;
    Commit { xid, commit_lsn, commit_time }
}

impl ChangeKey {
    /// The key of the next change. Those that share an LSN are rows of one record, so they follow each other.
    fn advance(&mut self, wal_start: Lsn, relation: u32) {
        let is_same = self.wal_start == wal_start && self.relation == relation;
        let index = if is_same { self.index + 1 } else { 0 };
        *self = Self { wal_start, relation, index };
    }
}
