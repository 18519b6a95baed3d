//! What must have happened to a row in a gap: it was known before, and is read again after.
//!
//! Only tables whose rows are remembered can be compared. The rules are those of the stream, so an admin finds `facility_deleted` under its own name, with `_audit.inferred`; of several changes the sum is told, and nobody knows who did it or when.

use super::{
    Batch, Gathered, Table, Translator,
    emit::{Head, Mark, push_audit, write_event},
    gather::needs_names,
    json::Scope,
    lookup::columns_key,
    names::NameKey,
    rule::parse_time,
};
use crate::{
    decode::{OldTuple, TupleData},
    event::inferred_id,
    lsn::Lsn,
    timestamp::Timestamp,
    tuple::{Operation, Row, RowSpans},
};

/// In `portal_audit.names`: the kinds of rows that are remembered one and all, as a snapshot left them and the stream kept them.
pub const WHOLE: &str = "portal_audit.whole";

/// The gap that is looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Within {
    pub from_lsn: Lsn,
    pub from_time: Timestamp,
    /// See [`Gap::told_to`](super::gap::Gap::told_to).
    pub told_to: Timestamp,
    /// Where the snapshot stands that is compared.
    pub to_lsn: Lsn,
    pub to_time: Timestamp,
}

/// A row after the gap, or what a row was called that is not there any more.
#[derive(Debug, Clone, Copy)]
pub enum Found<'a> {
    Row(TupleData<'a>),
    Gone(TupleData<'a>),
}

impl Translator {
    /// The key by which a row of a table is remembered; `None` if none is.
    pub fn remembered_key(
        table: &Table,
        tuple: TupleData<'_>,
        spans: &mut RowSpans,
    ) -> Option<String> {
        let row = Row::new(Operation::Insert, &table.relation, None, Some(tuple), spans);
        columns_key(&row, &table.remember.as_ref()?.key, false)
    }

    /// Events of what happened to one row within a gap; or the names that are missing for them, and then nothing is done. `known` is what was remembered of it before.
    pub fn infer(
        &mut self,
        table: &Table,
        (found, known): (Found<'_>, Option<&str>),
        within: &Within,
        spans: &mut RowSpans,
        batch: &mut Batch,
    ) -> Vec<NameKey> {
        let Some(remember) = &table.remember else { return Vec::new() };
        let row = match (found, known) {
            (Found::Gone(key), _) => {
                let old = Some(OldTuple::Key(key));
                Row::new(Operation::Delete, &table.relation, old, None, spans)
            }
            (Found::Row(new), None) => {
                Row::new(Operation::Insert, &table.relation, None, Some(new), spans)
            }
            (Found::Row(new), Some(_)) => {
                Row::new(Operation::Update, &table.relation, None, Some(new), spans)
            }
        };
        if row.operation == Operation::Update && known == Some(remember.text(&row).as_str()) {
            return Vec::new();
        }
        let remembered = known.map(|text| remember.read(text)).unwrap_or_default();
        let row = row.with_remembered(&remembered);
        let mut missing = Vec::new();
        let at = within.to_time;
        if needs_names(table, &row, at, &self.names, &mut |key| missing.push(key)) {
            return missing;
        }
        let is_gone = row.operation == Operation::Delete;
        let Some(key) = columns_key(&row, &remember.key, is_gone) else { return missing };
        let mut audit = String::new();
        push_audit(&mut audit, &self.source, (within.to_lsn, self.timeline), None);
        // Each row is a transaction of its own: which of them went together is not known.
        let mut gathered = Gathered::default();
        for collected in &table.collected {
            gathered.add_row(collected, &row, at);
        }
        for rule in table.rules.iter().filter(|rule| rule.takes.matches(&row, at)) {
            let created = rule.backfill.and_then(|position| parse_time(row.value(position)));
            // The row itself tells when: such rows are told by that.
            let is_dated = created.is_some_and(|created| created > within.told_to);
            if row.operation == Operation::Insert && is_dated {
                continue;
            }
            let from = (within.from_lsn, within.from_time);
            let id = inferred_id(self.origin, from, table.relation.oid, &key, &rule.id);
            let head = Head { id, timestamp: at, audit: &audit, cause: None };
            let value_limit = self.limits.value_bytes;
            self.written.clear();
            let scope = Scope {
                row,
                names: &mut self.names,
                gathered: &gathered,
                value_limit,
                written: &mut self.written,
            };
            write_event(rule, scope, &head, 0, Mark::Inferred, batch);
        }
        missing
    }
}
