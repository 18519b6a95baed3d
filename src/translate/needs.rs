//! What a mapping needs of the source: columns, and old values. `portal-audit sql source` prints it as SQL.

use super::{
    mapping::{ConditionSpec, Mapping, OperationWord, RuleSpec},
    value::{RowsSpec, ValueSpec},
};
use std::collections::{BTreeMap, BTreeSet};

/// What is read of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableNeeds {
    pub columns: BTreeSet<String>,
    /// Those whose value before an UPDATE or of a deleted row is read, so that the replica identity must carry them.
    pub old_columns: BTreeSet<String>,
    /// Columns that are read where they exist.
    pub optional_columns: BTreeSet<String>,
    /// Whether the table may be missing.
    pub is_optional: bool,
}

/// By qualified table name.
#[must_use]
pub fn needs(mapping: &Mapping) -> BTreeMap<String, TableNeeds> {
    let mut needs = Needs::default();
    for (_, names) in &mapping.names {
        let table = names.table.get_ref();
        needs.read(table, names.key.get_ref(), false);
        needs.read(table, names.name.get_ref(), false);
    }
    for rule in &mapping.rules {
        needs.rule(rule);
    }
    if let Some(kratos) = &mapping.kratos {
        kratos.needs(&mut needs.0);
    }
    needs.0
}

#[derive(Default)]
struct Needs(BTreeMap<String, TableNeeds>);

impl Needs {
    fn read(&mut self, table: &str, column: &str, old: bool) {
        let needs = self.0.entry(table.to_owned()).or_default();
        needs.columns.insert(column.to_owned());
        if old {
            needs.old_columns.insert(column.to_owned());
        }
    }

    fn rule(&mut self, rule: &RuleSpec) {
        let table = rule.table.get_ref();
        let on_delete = rule.takes(OperationWord::Delete);
        for (column, condition) in rule.when.iter().chain(&rule.success) {
            self.read(table, column.get_ref(), on_delete || reads_old(condition));
        }
        for column in &rule.changed {
            self.read(table, column.get_ref(), true);
        }
        if let Some(column) = &rule.backfill {
            self.read(table, column.get_ref(), false);
        }
        for value in rule.values() {
            match value.get_ref() {
                ValueSpec::Column { column, old }
                | ValueSpec::Label { column, old, .. }
                | ValueSpec::Path { column, old, .. }
                | ValueSpec::Lookup { key: column, old, .. } => {
                    self.read(table, column.get_ref(), *old || on_delete);
                }
                ValueSpec::Rows(rows) | ValueSpec::Row(rows) => self.rows(table, rows, on_delete),
                ValueSpec::Changed(columns) => {
                    for column in columns {
                        self.read(table, column.get_ref(), true);
                    }
                }
                ValueSpec::Constant(_) => {}
            }
        }
    }

    fn rows(&mut self, table: &str, rows: &RowsSpec, on_delete: bool) {
        let other = rows.table.get_ref();
        for (theirs, ours) in &rows.key {
            self.read(other, theirs.get_ref(), on_delete);
            self.read(table, ours.get_ref(), on_delete);
        }
        for column in rows.when.keys().chain([&rows.column]) {
            self.read(other, column.get_ref(), on_delete);
        }
    }
}

fn reads_old(condition: &ConditionSpec) -> bool {
    let ConditionSpec { is: _, not: _, r#in: _, null: _, becomes, leaves, was, changes } =
        condition;
    becomes.is_some() || leaves.is_some() || was.is_some() || changes.is_some()
}
