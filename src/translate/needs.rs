//! What a mapping needs of the source: columns, and old values. `portal-audit sql source` prints it as SQL.

use super::{
    mapping::{ConditionSpec, Mapping, OperationWord, RuleSpec},
    value::{Name, RowsSpec, ValueSpec},
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
    let mut needs = Needs { mapping, tables: BTreeMap::new() };
    for (_, names) in &mapping.names {
        let table = names.table.get_ref();
        for column in &names.key.0 {
            needs.read(table, column, false);
        }
        value_columns(names.name.get_ref(), false, &mut |column, old| {
            needs.read(table, column, old);
        });
    }
    for rule in &mapping.rules {
        rule_columns(rule, &mut |column, old| needs.read(rule.table.get_ref(), column, old));
        for rows in rule.rows_specs() {
            needs.rows(rows, rule.takes(OperationWord::Delete));
        }
    }
    for ignore in &mapping.ignores {
        let on_delete = ignore.takes(OperationWord::Delete);
        for (column, condition) in &ignore.when {
            needs.read(ignore.table.get_ref(), column, on_delete || reads_old(condition));
        }
        for column in &ignore.changed {
            needs.read(ignore.table.get_ref(), column, true);
        }
    }
    for cascade in &mapping.cascades {
        for (child, parent) in &cascade.key {
            needs.read(cascade.child.get_ref(), child, true);
            needs.read(cascade.parent.get_ref(), parent, true);
        }
        for column in cascade.when.keys() {
            needs.read(cascade.child.get_ref(), column, true);
        }
    }
    for (table, columns) in &mapping.remember {
        for column in columns {
            needs.read(table.get_ref(), column, false);
        }
    }
    for (table, columns) in &mapping.moved {
        for column in columns {
            needs.read(table.get_ref(), column, true);
        }
    }
    if let Some(kratos) = &mapping.kratos {
        kratos.needs(&mut needs.tables);
    }
    needs.tables
}

/// Members of the entries of a column that rules read, `members.role` as `role`; the key is always there.
#[must_use]
pub fn entry_fields<'a>(mapping: &'a Mapping, table: &str, column: &str) -> Vec<&'a str> {
    let mut fields: Vec<&str> = Vec::new();
    for rule in mapping.rules.iter().filter(|rule| rule.table.get_ref() == table) {
        if rule.each.as_ref().is_none_or(|each| each.column.get_ref() != column) {
            continue;
        }
        rule_columns(rule, &mut |name, _| {
            let field = name.get_ref().strip_prefix(column).and_then(|rest| rest.strip_prefix('.'));
            if let Some(field) = field.filter(|field| *field != "key" && !fields.contains(field)) {
                fields.push(field);
            }
        });
    }
    fields
}

struct Needs<'a> {
    mapping: &'a Mapping,
    tables: BTreeMap<String, TableNeeds>,
}

impl Needs<'_> {
    fn read(&mut self, table: &str, column: &Name, old: bool) {
        let mut column = column.get_ref().as_str();
        // A column of an entry is read of the column that holds the entries, on both sides of a change.
        let each = self.mapping.rules.iter().filter(|rule| rule.table.get_ref() == table);
        let each = each.filter_map(|rule| rule.each.as_ref());
        let mut of_entry = false;
        for each in each.map(|each| each.column.get_ref()) {
            if column.strip_prefix(each.as_str()).is_some_and(|rest| rest.starts_with('.')) {
                (column, of_entry) = (each, true);
            }
        }
        let remembered = self.mapping.remembered(table);
        let is_remembered = remembered
            .is_some_and(|(_, columns)| columns.iter().any(|name| name.get_ref() == column));
        let needs = self.tables.entry(table.to_owned()).or_default();
        needs.columns.insert(column.to_owned());
        if of_entry || (old && !is_remembered) {
            needs.old_columns.insert(column.to_owned());
        }
    }

    fn rows(&mut self, rows: &RowsSpec, on_delete: bool) {
        let on_delete =
            if rows.on.is_empty() { on_delete } else { rows.on.contains(&OperationWord::Delete) };
        for column in rows.key.keys().chain([&rows.column]) {
            self.read(rows.table.get_ref(), column, on_delete);
        }
        for (column, condition) in &rows.when {
            self.read(rows.table.get_ref(), column, on_delete || reads_old(condition));
        }
    }
}

/// Every column of its own table that a rule reads, and whether its old value is.
pub fn rule_columns<'a>(rule: &'a RuleSpec, tell: &mut dyn FnMut(&'a Name, bool)) {
    let on_delete = rule.takes(OperationWord::Delete);
    for (column, condition) in rule.when.iter().chain(&rule.success) {
        tell(column, on_delete || reads_old(condition));
    }
    for column in &rule.changed {
        tell(column, true);
    }
    if let Some(each) = &rule.each {
        tell(&each.column, true);
    }
    for column in rule.once_per.iter().flat_map(|columns| &columns.0).chain(&rule.backfill) {
        tell(column, on_delete);
    }
    for value in rule.values() {
        value_columns(value.get_ref(), on_delete, tell);
    }
    for column in rule.unless.iter().flat_map(|rows| rows.key.values()) {
        tell(column, on_delete);
    }
}

/// Every column of its own table that a value is made of, and whether its old value is.
fn value_columns<'a>(value: &'a ValueSpec, on_delete: bool, tell: &mut dyn FnMut(&'a Name, bool)) {
    match value {
        ValueSpec::Column { column, old }
        | ValueSpec::Label { column, old, .. }
        | ValueSpec::Sha256 { column, old }
        | ValueSpec::Path { column, old, .. } => tell(column, *old || on_delete),
        ValueSpec::Join { columns, old, .. } => {
            for column in columns {
                tell(column, *old || on_delete);
            }
        }
        ValueSpec::Lookup { lookup, old } => {
            lookup.visit(&mut |_| {}, &mut |column| tell(column, *old || on_delete));
        }
        ValueSpec::Rows(rows) | ValueSpec::Row(rows) => {
            for column in rows.key.values() {
                tell(column, on_delete);
            }
        }
        ValueSpec::Changed(columns) => {
            for column in columns {
                tell(column, true);
            }
        }
        ValueSpec::Constant(_) => {}
    }
}

fn reads_old(condition: &ConditionSpec) -> bool {
    let ConditionSpec { is: _, not: _, r#in: _, null: _, past: _, becomes, leaves, was, changes } =
        condition;
    becomes.is_some() || leaves.is_some() || was.is_some() || changes.is_some()
}
