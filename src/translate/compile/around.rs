//! What a mapping says of a relation beside its rules.

use super::Compiler;
use crate::{
    decode::ReplicaIdentity,
    translate::{
        cascade::{Kin, Link},
        mapping::{CascadeSpec, NamesSpec, OperationWord},
        remember::Remember,
        rule::{Collected, NameFeed, Takes},
        value::RowsSpec,
    },
};

/// The parent's table and its columns of the common key.
fn parent_end(spec: &CascadeSpec) -> (&str, Vec<&str>) {
    let columns = spec.key.values().map(|column| column.get_ref().as_str());
    (spec.parent.get_ref(), columns.collect())
}

impl Compiler<'_> {
    /// The changes of the relation that are no event.
    pub fn ignores(&mut self) -> Vec<Takes> {
        let qualified = self.relation.qualified_name();
        let mapping = self.mapping;
        let specs = mapping.ignores.iter().filter(|spec| *spec.table.get_ref() == qualified);
        let mut ignores = Vec::new();
        for spec in specs {
            let delete = spec.takes(OperationWord::Delete);
            let before = self.faults();
            let takes = Takes {
                insert: spec.takes(OperationWord::Insert),
                update: spec.takes(OperationWord::Update),
                delete,
                when: self.conditions(&spec.when, delete),
                changed: spec.changed.iter().map(|column| self.compared(column)).collect(),
            };
            // Without it a change is counted as one that no rule takes.
            if self.faults() == before {
                ignores.push(takes);
            }
        }
        ignores
    }

    /// What is remembered of the relation's rows, because its replica identity does not carry it.
    pub fn remember(&mut self) -> Option<Remember> {
        let qualified = self.relation.qualified_name();
        let (names, columns) = self.mapping.remembered(&qualified)?;
        let before = self.faults();
        let columns = columns.iter().map(|column| self.column(column)).collect();
        if self.relation.replica_identity == ReplicaIdentity::Full {
            return None;
        }
        let keys = self.relation.columns.iter().enumerate().filter(|(_, column)| column.key);
        let key: Vec<usize> = keys.map(|(position, _)| position).collect();
        // Rows that cannot be told apart are not remembered.
        self.forgets = self.faults() != before || key.is_empty();
        (!self.forgets).then_some(Remember { names, key, columns })
    }

    /// The columns by which a row is known again when it moves to another partition.
    pub fn moved(&mut self) -> Vec<usize> {
        let qualified = self.relation.qualified_name();
        let mapping = self.mapping;
        let columns = mapping.moved.iter().find(|(table, _)| *table.get_ref() == qualified);
        let columns = columns.map(|(_, columns)| columns.as_slice()).unwrap_or_default();
        let before = self.faults();
        let columns = columns.iter().map(|column| self.compared(column)).collect();
        // Half of a move would be told as a deletion.
        self.stopped.all |= self.faults() != before;
        columns
    }

    /// Of which rows the relation's rows are parents or children.
    pub fn kin(&mut self) -> Kin {
        let qualified = self.relation.qualified_name();
        let mapping = self.mapping;
        let mut kin = Kin::default();
        for spec in &mapping.cascades {
            // Blocks that name the same columns of the same parent share its key.
            let end = parent_end(spec);
            let slot = mapping.cascades.iter().position(|other| parent_end(other) == end);
            let slot = slot.unwrap_or_default();
            if *spec.child.get_ref() == qualified {
                let before = self.faults();
                let key = spec.key.keys().map(|column| self.compared(column)).collect();
                let when = self.conditions(&spec.when, true);
                if self.faults() == before {
                    kin.parents.push(Link { slot, key, when });
                }
            }
            if *spec.parent.get_ref() == qualified {
                let before = self.faults();
                let key = spec.key.values().map(|column| self.compared(column)).collect();
                let is_new = kin.children.iter().all(|link| link.slot != slot);
                if is_new && self.faults() == before {
                    kin.children.push(Link { slot, key, when: Vec::new() });
                }
            }
        }
        kin
    }

    /// The names that rows of the relation give.
    pub fn name_feeds(&mut self) -> Vec<NameFeed> {
        let qualified = self.relation.qualified_name();
        let mapping = self.mapping;
        let mut feeds = Vec::new();
        for (names, (entity, NamesSpec { table, key, name })) in mapping.names.iter().enumerate() {
            if *table.get_ref() == qualified {
                let before = self.faults();
                let key = key.0.iter().map(|column| self.column(column)).collect();
                let name = self.source(name.get_ref(), false, &mut 0);
                if self.faults() == before {
                    feeds.push(NameFeed { names, key, name });
                } else {
                    self.stopped.names(entity);
                }
            }
        }
        feeds
    }

    /// The lists to which rows of the relation belong.
    pub fn collected(&mut self) -> Vec<Collected> {
        let qualified = self.relation.qualified_name();
        let mapping = self.mapping;
        let mut collected = Vec::new();
        for (slot, RowsSpec { table, on, key, when, column }) in mapping.rows_specs().enumerate() {
            if *table.get_ref() == qualified {
                let before = self.faults();
                let rows = Collected {
                    slot,
                    key: key.keys().map(|column| self.column(column)).collect(),
                    column: self.column(column),
                    when: self.conditions(when, false),
                    on: on.iter().copied().map(Into::into).collect(),
                };
                if self.faults() == before {
                    collected.push(rows);
                }
            }
        }
        collected
    }
}
