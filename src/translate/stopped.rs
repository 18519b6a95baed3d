//! What the mapping says of a table that no longer fits it: the rules that stand still, and the event that tells a change all the same.
//!
//! # Why
//! A portal's release renames a column while we follow it. To stop the source would keep its log until somebody comes, and mend nothing: the log says what it says. To match by position would tell something wrong. So only what does not fit stands still, and each change that it might have taken is an event `change_unmapped`, with what the mapping copies anyway and the row's key.

use super::{
    Batch, Place, Table, TranslateError, Translator,
    deny::is_denied,
    emit::{close_payload, push_context_caller},
    json::Scope,
    mapping::{Mapping, OperationWord, RuleSpec},
    needs::needs,
    rule::{JsonKind, Rule, Source},
    value::ValueSpec,
};
use crate::{
    decode::{RelationMessage, ReplicaIdentity},
    event::{
        EventRow, Flags, INDEXED_TEXT_BYTES_MAX, event_id, push_formatted, push_json_string,
        push_text,
    },
    lsn::Lsn,
    tuple::{Operation, Relation, Row, Value},
};
use std::collections::BTreeMap;

/// The event type of a change that rules would have taken that stand still.
pub const CHANGE_UNMAPPED: &str = "change_unmapped";

/// What stands still of one table.
#[derive(Debug, Clone, Default)]
pub struct Stopped {
    /// Event types, and `names.X`; each once.
    pub rules: Vec<String>,
    insert: bool,
    update: bool,
    delete: bool,
    /// The name that the mapping knows the table by, where it has another now.
    mapped: Option<String>,
    /// Nothing of the table can be told.
    pub(super) all: bool,
    /// Positions of columns that the event may show.
    columns: Vec<usize>,
    /// Of its key; none where the key is the whole row.
    key: Vec<usize>,
}

/// All that the mapping makes of a table: event types, and `names.X`.
#[must_use]
pub fn rules_of(mapping: &Mapping, table: &str) -> Vec<String> {
    let mut stopped = Stopped::default();
    stopped.table(mapping, table);
    stopped.rules
}

impl Stopped {
    fn add(&mut self, name: &str, (insert, update, delete): (bool, bool, bool)) {
        if !self.rules.iter().any(|known| known == name) {
            self.rules.push(name.to_owned());
        }
        self.insert |= insert;
        self.update |= update;
        self.delete |= delete;
    }

    pub(super) fn rule(&mut self, spec: &RuleSpec) {
        let takes = |operation| spec.takes(operation);
        let all = [OperationWord::Insert, OperationWord::Update, OperationWord::Delete].map(takes);
        self.add(spec.event_type.get_ref(), all.into());
    }

    /// A rule of entries, which an update adds to and takes from.
    pub(super) fn compiled(&mut self, rule: &Rule) {
        self.add(&rule.event_type, (true, true, true));
    }

    pub(super) fn names(&mut self, entity: &str) {
        self.add(&format!("names.{entity}"), (true, true, false));
    }

    pub(super) fn kratos(&mut self) {
        self.add("kratos", (true, true, true));
    }

    /// All that the mapping says of a table.
    pub(super) fn table(&mut self, mapping: &Mapping, table: &str) {
        for spec in mapping.rules.iter().filter(|spec| spec.table.get_ref() == table) {
            self.rule(spec);
            if spec.each.is_some() {
                self.add(spec.event_type.get_ref(), (true, true, true));
            }
        }
        for (entity, _) in mapping.names.iter().filter(|(_, names)| names.table.get_ref() == table)
        {
            self.names(entity);
        }
        let kratos = mapping.kratos.iter().flat_map(super::kratos::spec::KratosSpec::tables);
        if kratos.into_iter().any(|(name, _)| name == table) {
            self.kratos();
        }
    }

    /// The same with what the event may show: columns that the mapping copies as they are, and that still exist.
    pub(super) fn with_columns(
        mut self,
        mapping: &Mapping,
        mapped: &str,
        relation: &Relation,
    ) -> Self {
        if self.rules.is_empty() {
            return self;
        }
        let mut hidden: Vec<&str> = Vec::new();
        for spec in mapping.rules.iter().filter(|spec| spec.table.get_ref() == mapped) {
            for value in spec.values() {
                if let ValueSpec::Sha256 { column, .. } = value.get_ref() {
                    hidden.push(column.get_ref());
                }
            }
        }
        let of_kratos = mapping.kratos.iter().flat_map(super::kratos::spec::KratosSpec::tables);
        let is_kratos = of_kratos.into_iter().any(|(name, _)| name == mapped);
        let needs = needs(mapping);
        let named = needs.get(mapped).filter(|_| !is_kratos).map(|needs| &needs.columns);
        let may_show = |position: usize| {
            relation.columns.get(position).is_some_and(|column| {
                // Of a document the mapping copies parts, and this would be the whole.
                let kind = JsonKind::of_type(column.type_oid);
                let is_document = matches!(kind, JsonKind::Json | JsonKind::Jsonb);
                !is_denied(&column.name) && !hidden.contains(&column.name.as_str()) && !is_document
            })
        };
        let positions = || (0..relation.columns.len()).filter(|position| may_show(*position));
        let is_key =
            |position: &usize| relation.columns.get(*position).is_some_and(|column| column.key);
        let is_named = |position: &usize| {
            let name = relation.columns.get(*position).map(|column| &column.name);
            name.is_some_and(|name| named.is_some_and(|named| named.contains(name)))
        };
        // A primary key says which row it is; an index or the whole row holds more than that.
        let identity = relation.replica_identity;
        let is_primary = identity == ReplicaIdentity::Default;
        let is_shown = |position: &usize| is_key(position) && (is_primary || is_named(position));
        let is_whole = identity == ReplicaIdentity::Full;
        self.key = positions().filter(is_shown).filter(|_| !is_whole).collect();
        self.columns = positions().filter(is_named).collect();
        self.mapped = (mapped != relation.qualified_name()).then(|| mapped.to_owned());
        self
    }

    /// Whether something stands still that might have taken such a change.
    pub(super) fn takes(&self, operation: Operation) -> bool {
        match operation {
            Operation::Insert => self.insert,
            Operation::Update => self.update,
            Operation::Delete => self.delete,
        }
    }
}

impl Translator {
    /// Tables of the mapping by the oid that they had when the source was last looked at.
    pub fn restore_known(&mut self, known: BTreeMap<u32, String>) {
        self.known = known;
    }

    /// Whether a table came since the last question that is not as it was, or does not fit the mapping.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.has_changed)
    }

    /// The same translator, for which a mapping that does not fit is an error.
    #[must_use]
    pub fn strict(self) -> Self {
        Self { is_strict: true, ..self }
    }

    /// What the mapping says of a relation. What does not fit stands still: see [`Stopped`].
    pub(super) fn compile(
        &self,
        message: &RelationMessage<'_>,
        lsn: Lsn,
    ) -> Result<Table, TranslateError> {
        let relation = Relation::from_message(message);
        let name = relation.qualified_name();
        // Unless another table has taken its name since.
        let is_taken = |mapped: &str| {
            let same = self.tables.iter().filter(|table| *table.name == *mapped);
            same.into_iter().any(|table| table.relation.oid != relation.oid)
        };
        let mapped = self.known.get(&relation.oid).filter(|mapped| !is_taken(mapped));
        match mapped {
            Some(mapped) if !self.mapping.tables().contains(&name) => {
                Ok(Table::renamed(&self.mapping, relation, mapped))
            }
            _ if self.is_strict => Table::compile(&self.mapping, relation)
                .map_err(|source| TranslateError::Mapping { lsn, source }),
            _ => Ok(Table::fit(&self.mapping, relation).0),
        }
    }

    /// Takes a relation of the stream.
    pub(super) fn describe(
        &mut self,
        message: &RelationMessage<'_>,
        lsn: Lsn,
    ) -> Result<(), TranslateError> {
        let table = self.compile(message, lsn)?;
        let before = self.tables.get(table.relation.oid);
        self.has_changed |= !table.stopped.rules.is_empty()
            || before.is_some_and(|before| before.relation != table.relation);
        if self.mapping.tables().iter().any(|name| **name == *table.name) {
            self.known.retain(|_, mapped| *mapped != *table.name);
            self.known.insert(table.relation.oid, table.name.to_string());
        }
        self.tables.put(table);
        Ok(())
    }

    /// The event of a change that no rule can tell any more.
    pub(super) fn change_unmapped(
        &mut self,
        table: &Table,
        row: Row<'_>,
        place: &mut Place<'_>,
        batch: &mut Batch,
    ) {
        let id = event_id(self.origin, place.commit(), *place.last, CHANGE_UNMAPPED);
        let events = &mut batch.events;
        let mut flags = Flags::default();
        let named = place.gathered.contexts.caller(&row);
        let (event_type, ()) = events.write(|out| out.push_str(CHANGE_UNMAPPED));
        let (caller, caller_from) = push_context_caller(named, events, &mut flags);
        let (subject, written) =
            events.write(|out| push_text(out, table.name.as_bytes(), INDEXED_TEXT_BYTES_MAX));
        flags |= written;
        let (subject_type, ()) = events.write(|out| out.push_str("table"));
        self.written.clear();
        let mut scope = Scope {
            written: &mut self.written,
            row,
            names: &mut self.names,
            gathered: place.gathered,
            value_limit: self.limits.value_bytes,
        };
        let ordinal = *place.events;
        let (payload, ()) = events.write(|out| {
            let Stopped { rules, mapped, columns, key, .. } = &table.stopped;
            push_formatted(out, format_args!("{{\"operation\":\"{}\"", row.operation.name()));
            push_values(out, "key", (table, key, false), &mut scope, &mut flags);
            let is_moved = row.operation == Operation::Update
                && key.iter().any(|position| row.is_changed(*position));
            if is_moved {
                push_values(out, "old_key", (table, key, true), &mut scope, &mut flags);
            }
            push_values(out, "columns", (table, columns, false), &mut scope, &mut flags);
            out.push_str(",\"rules_stopped\":[");
            for (index, rule) in rules.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                push_json_string(out, rule.as_bytes(), usize::MAX);
            }
            out.push(']');
            if let Some(mapped) = mapped {
                out.push_str(",\"mapped_as\":");
                push_json_string(out, mapped.as_bytes(), usize::MAX);
            }
            out.push(',');
            close_payload(out, (place.audit, None), (caller_from, ordinal, 0), &mut flags, false);
        });
        events.push(EventRow {
            relation: 0,
            event_uuid: id,
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
    }
}

/// Appends values of columns as a member of the payload; those that were not sent are left out.
fn push_values(
    out: &mut String,
    member: &str,
    (table, columns, old): (&Table, &[usize], bool),
    scope: &mut Scope<'_>,
    flags: &mut Flags,
) {
    push_formatted(out, format_args!(",\"{member}\":{{"));
    let mut separator = "";
    for &position in columns {
        let Some(column) = table.relation.columns.get(position) else { continue };
        let row = scope.row;
        let value = if old { row.old_value(position) } else { row.value(position) };
        if value == Value::Absent {
            flags.unchanged = true;
            continue;
        }
        out.push_str(std::mem::replace(&mut separator, ","));
        push_json_string(out, column.name.as_bytes(), usize::MAX);
        out.push(':');
        let kind = JsonKind::of_type(column.type_oid);
        match scope.push_json(&Source::Column { position, old, kind }, out) {
            Some(written) => *flags |= written,
            None => out.push_str("null"),
        }
    }
    out.push('}');
}
