//! One change and one rule → one event in the batch.

use super::{
    Batch, NameKey, Place, Table, Told, TranslateError, Translator,
    context::Named,
    gather::needs_names,
    json::Scope,
    rule::{Rule, Source, parse_time},
};
use crate::{
    decode::TupleData,
    event::{
        EventRow, Flags, INDEXED_TEXT_BYTES_MAX, Origin, Text, backfill_id, event_id,
        push_formatted, push_json_string, push_text,
    },
    lsn::Lsn,
    timestamp::Timestamp,
    tuple::{Operation, Row, RowSpans, Value},
};
use uuid::Uuid;

/// The event type of a TRUNCATE, which has no rows and so no rule.
pub const TABLE_TRUNCATED: &str = "table_truncated";

/// A row that is older than the slot, as a snapshot read it.
#[derive(Debug, Clone, Copy)]
pub struct OldRow<'a> {
    pub tuple: TupleData<'a>,
    /// The columns of its primary key.
    pub key: &'a [usize],
    /// Where the snapshot was taken.
    pub consistent_point: Lsn,
    /// When; the event's time if the row does not know when it was created.
    pub snapshot_time: Timestamp,
    /// Only rows that were created after this become events.
    pub after: Option<Timestamp>,
    pub mark: Mark,
}

/// What an event is that no change of the stream gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    None,
    /// Its row is older than the audit.
    Backfill,
    /// It follows from rows before and after a gap.
    Inferred,
}

impl Translator {
    /// The event that `rule` makes of a change, and its id.
    pub(super) fn emit(
        &mut self,
        rule: &Rule,
        row: Row<'_>,
        told: Told<'_>,
        place: &mut Place<'_>,
        batch: &mut Batch,
    ) -> Uuid {
        let id = match told.entry {
            None => event_id(self.origin, place.commit(), *place.last, &rule.id),
            // Entries of one row share its place in the log.
            Some(entry) => {
                let rule = format!("{}\0{entry}", rule.id);
                event_id(self.origin, place.commit(), *place.last, &rule)
            }
        };
        let timestamp = place.transaction.commit_time;
        let head = Head { id, timestamp, audit: place.audit, cause: told.cause };
        let scope = Scope {
            row,
            names: &mut self.names,
            gathered: place.gathered,
            value_limit: self.limits.value_bytes,
            written: &mut self.written,
        };
        write_event(rule, scope, &head, *place.events, Mark::None, batch);
        *place.events += 1;
        id
    }

    /// The event of a TRUNCATE, for each table that it names.
    pub(super) fn truncation(
        &mut self,
        oid: u32,
        (cascade, restart_identity): (bool, bool),
        place: &mut Place<'_>,
        batch: &mut Batch,
    ) -> Result<(), TranslateError> {
        let table = self.tables.get(oid).ok_or(TranslateError::UnknownRelation { oid })?;
        if let Some(remember) = &table.remember {
            self.names.clear(remember.names);
            batch.names.retain(|row| row.names != remember.names);
            batch.emptied.push(remember.names);
        }
        let row = Row::new(Operation::Delete, &table.relation, None, None, &mut self.spans);
        place.last.advance(place.wal_start, oid);
        let event_uuid = event_id(self.origin, place.commit(), *place.last, TABLE_TRUNCATED);
        let named = place.gathered.contexts.caller(&row);
        let events = &mut batch.events;
        let name = table.relation.qualified_name();
        let (event_type, ()) = events.write(|out| out.push_str(TABLE_TRUNCATED));
        let mut flags = Flags::default();
        let (caller, caller_from) = push_context_caller(named, events, &mut flags);
        let (subject, written) =
            events.write(|out| push_text(out, name.as_bytes(), INDEXED_TEXT_BYTES_MAX));
        flags |= written;
        let (subject_type, ()) = events.write(|out| out.push_str("table"));
        let ordinal = *place.events;
        let relation = events.relation(oid, || name);
        let (payload, ()) = events.write(|out| {
            push_formatted(
                out,
                format_args!("{{\"cascade\":{cascade},\"restart_identity\":{restart_identity},"),
            );
            close_payload(out, (place.audit, None), (caller_from, ordinal, 0), &mut flags, false);
        });
        events.push(EventRow {
            relation,
            event_uuid,
            timestamp: place.transaction.commit_time,
            event_type,
            caller,
            subject,
            subject_type,
            target: None,
            success: true,
            error_message: None,
            payload,
        });
        *place.events += 1;
        batch.changes += 1;
        Ok(())
    }

    /// The names that a row of a snapshot gives; or those that are missing for them, and then nothing is lost by calling again.
    pub fn feed_old_row(
        &mut self,
        table: &Table,
        tuple: TupleData<'_>,
        spans: &mut RowSpans,
        batch: &mut Batch,
    ) -> Vec<NameKey> {
        let row = Row::new(Operation::Insert, &table.relation, None, Some(tuple), spans);
        self.feed_names(table, &row, batch);
        if let Some(remember) = &table.remember {
            remember.keep(&row, &mut self.names, &mut batch.names);
        }
        let missing = self.feed_kratos(table, &row, batch);
        if missing.is_empty() {
            self.names.trim();
        }
        missing
    }

    /// Events of a row that is older than the slot, for the rules that ask for them; or the names that are missing for them, and then nothing is done.
    pub fn backfill(
        &mut self,
        table: &Table,
        old_row: OldRow<'_>,
        spans: &mut RowSpans,
        batch: &mut Batch,
    ) -> Vec<NameKey> {
        let OldRow { tuple, key, consistent_point, snapshot_time, after, mark } = old_row;
        let row = Row::new(Operation::Insert, &table.relation, None, Some(tuple), spans);
        let mut missing = Vec::new();
        let needs = |missing: &mut Vec<NameKey>| {
            needs_names(table, &row, snapshot_time, &self.names, &mut |key| missing.push(key))
        };
        if needs(&mut missing) {
            return missing;
        }
        let mut audit = String::new();
        push_audit(&mut audit, &self.source, (consistent_point, self.timeline), None);
        let gathered = super::Gathered::default();
        for rule in table.rules.iter().filter(|rule| rule.takes.matches(&row, snapshot_time)) {
            let Some(created) = rule.backfill else { continue };
            let created = parse_time(row.value(created));
            // What the stream gave already must not come a second time, and a row without a date may have been in it.
            if after.is_some_and(|after| created.is_none_or(|created| created <= after)) {
                continue;
            }
            // The id of a row without a date must not depend on when it was read.
            let id = old_row_id(self.origin, &row, key, created.unwrap_or_default(), rule);
            let timestamp = created.unwrap_or(snapshot_time);
            let head = Head { id, timestamp, audit: &audit, cause: None };
            self.written.clear();
            let scope = Scope {
                row,
                names: &mut self.names,
                gathered: &gathered,
                value_limit: self.limits.value_bytes,
                written: &mut self.written,
            };
            write_event(rule, scope, &head, 0, mark, batch);
        }
        self.names.trim();
        missing
    }
}

fn old_row_id(
    origin: Origin,
    row: &Row<'_>,
    key: &[usize],
    created: Timestamp,
    rule: &Rule,
) -> Uuid {
    let mut key_bytes = Vec::new();
    for &position in key {
        if let Value::Text(value) = row.value(position) {
            key_bytes.extend_from_slice(&(value.len() as u64).to_be_bytes());
            key_bytes.extend_from_slice(value);
        }
    }
    backfill_id(origin, created, row.relation.oid, &key_bytes, &rule.id)
}

/// The columns of an event that come from its transaction.
pub(super) struct Head<'a> {
    pub(super) id: Uuid,
    pub(super) timestamp: Timestamp,
    pub(super) audit: &'a str,
    pub(super) cause: Option<Uuid>,
}

pub(super) fn write_event(
    rule: &Rule,
    mut scope: Scope<'_>,
    head: &Head<'_>,
    ordinal: u64,
    mark: Mark,
    batch: &mut Batch,
) {
    let events = &mut batch.events;
    let mut flags = Flags { inferred: mark == Mark::Inferred, ..Flags::default() };
    let mut text =
        |events: &mut crate::event::Events, source: &Source, scope: &mut Scope<'_>, limit| {
            let (text, written) = events.write(|out| scope.push_text(source, out, limit));
            flags |= written.unwrap_or_default();
            flags.unchanged |= written.is_none() && scope.is_unchanged(source);
            written.map(|_| text)
        };
    let subject = text(events, &rule.subject, &mut scope, INDEXED_TEXT_BYTES_MAX);
    let target = rule.target.as_ref();
    let target = target.and_then(|source| text(events, source, &mut scope, INDEXED_TEXT_BYTES_MAX));
    let (success, message_limit) = (rule.succeeded(&scope.row, head.timestamp), scope.value_limit);
    let message = rule.error_message.as_ref().filter(|_| !success);
    let error_message = message.and_then(|source| text(events, source, &mut scope, message_limit));
    let named = rule.caller.as_ref().and_then(|source| {
        let named = text(events, source, &mut scope, INDEXED_TEXT_BYTES_MAX);
        let from = if matches!(source, Source::Rows { .. }) { "transaction" } else { "row" };
        named.filter(|named| !events.text(*named).is_empty()).map(|named| (named, from))
    });
    let (caller, caller_from) = named.unwrap_or_else(|| {
        push_context_caller(scope.gathered.contexts.caller(&scope.row), events, &mut flags)
    });
    flags.unresolved |= subject.is_none();
    let (event_type, ()) = events.write(|out| out.push_str(&rule.event_type));
    let (subject_type, ()) = events.write(|out| out.push_str(&rule.subject_type));
    let (payload, ()) = events.write(|out| {
        out.push('{');
        for (key, source) in &rule.payload {
            let start = out.len();
            out.push_str(key);
            match scope.push_json(source, out) {
                Some(written) => {
                    flags |= written;
                    out.push(',');
                }
                None => {
                    flags.unchanged |= scope.is_unchanged(source);
                    out.truncate(start);
                }
            }
        }
        let audit = (head.audit, head.cause);
        let backfill = mark == Mark::Backfill;
        close_payload(out, audit, (caller_from, ordinal, rule.number), &mut flags, backfill);
    });
    let relation = events.relation(scope.row.relation.oid, || scope.row.relation.qualified_name());
    events.push(EventRow {
        relation,
        event_uuid: head.id,
        timestamp: head.timestamp,
        event_type,
        caller,
        subject: subject.unwrap_or_default(),
        subject_type,
        target,
        success,
        error_message,
        payload,
    });
}

/// The caller that contexts name, and the word for how it is known.
pub(super) fn push_context_caller(
    named: Option<Named<'_>>,
    events: &mut crate::event::Events,
    flags: &mut Flags,
) -> (Text, &'static str) {
    let Some(Named { caller, unresolved }) = named else { return (Text::default(), "none") };
    let (text, written) =
        events.write(|out| push_text(out, caller.as_bytes(), INDEXED_TEXT_BYTES_MAX));
    *flags |= written;
    flags.unresolved |= unresolved;
    (text, "context")
}

/// Begins `_audit`: what all events of a transaction share. Positions of two timelines may be the same, so every one but the first is named.
pub(super) fn push_audit(
    out: &mut String,
    source: &str,
    (lsn, timeline): (Lsn, u32),
    xid: Option<u32>,
) {
    out.push_str("\"_audit\":{\"source\":");
    push_json_string(out, source.as_bytes(), usize::MAX);
    push_formatted(out, format_args!(",\"lsn\":\"{lsn}\""));
    if timeline > 1 {
        push_formatted(out, format_args!(",\"timeline\":{timeline}"));
    }
    if let Some(xid) = xid {
        push_formatted(out, format_args!(",\"xid\":{xid}"));
    }
}

/// Ends a payload whose last key is `_audit`. `n` orders the events of one transaction; the first has none. `rule` tells the blocks of one type and table apart; the first has none.
pub(super) fn close_payload(
    out: &mut String,
    (audit, cause): (&str, Option<Uuid>),
    (caller_from, ordinal, rule): (&str, u64, usize),
    flags: &mut Flags,
    backfill: bool,
) {
    out.push_str(audit);
    if ordinal > 0 {
        push_formatted(out, format_args!(",\"n\":{ordinal}"));
    }
    push_formatted(out, format_args!(",\"caller_from\":\"{caller_from}\""));
    if rule > 0 {
        push_formatted(out, format_args!(",\"rule\":{rule}"));
    }
    if let Some(cause) = cause {
        push_formatted(out, format_args!(",\"cause\":\"{cause}\""));
    }
    let Flags { escaped, truncated, redacted, unchanged, unresolved, inferred } = *flags;
    let named = [
        (backfill, "backfill"),
        (escaped, "escaped"),
        (truncated, "truncated"),
        (redacted, "redacted"),
        (unchanged, "unchanged"),
        (unresolved, "unresolved"),
        (inferred, "inferred"),
    ];
    for (_, name) in named.iter().filter(|(is_set, _)| *is_set) {
        push_formatted(out, format_args!(",\"{name}\":true"));
    }
    out.push_str("}}");
}
