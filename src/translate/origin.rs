//! Where the values of a rule come from, in words: for people who ask what an event rests on.

use super::{
    mapping::{Mapping, RuleSpec},
    value::{RowsSpec, ValueSpec},
};
use toml::Spanned;

/// What a value of `rule` rests on, such as `portal.users.state before the change`. What has no words of its own here stands as it does in the file.
#[must_use]
pub fn origin(mapping: &Mapping, rule: &RuleSpec, value: &Spanned<ValueSpec>) -> String {
    let table = rule.table.get_ref();
    let before = |old: &bool| if *old { " before the change" } else { "" };
    match value.get_ref() {
        ValueSpec::Column { column, old } => format!("{table}.{}{}", column.get_ref(), before(old)),
        ValueSpec::Label { column, old, .. } => {
            format!("{table}.{}{}", column.get_ref(), before(old))
        }
        ValueSpec::Path { column, path, old, .. } => {
            format!("{table}.{}{} at {path}", column.get_ref(), before(old))
        }
        ValueSpec::Rows(RowsSpec { table, column, .. }) => {
            format!(
                "{table}.{}, rows of the same transaction",
                column.get_ref(),
                table = table.get_ref()
            )
        }
        ValueSpec::Row(RowsSpec { table, column, .. }) => {
            format!(
                "{table}.{}, a row of the same transaction",
                column.get_ref(),
                table = table.get_ref()
            )
        }
        ValueSpec::Changed(columns) => {
            let columns: Vec<&str> =
                columns.iter().map(|column| column.get_ref().as_str()).collect();
            format!("which of {} changed", columns.join(", "))
        }
        // A name that is looked up, a constant: the file's own words say it best.
        _ => format!("{table}: {}", mapping.words_at(value.span())),
    }
}
