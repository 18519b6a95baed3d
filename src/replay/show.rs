//! A comparison as people read it.

use super::{Comparison, Counts, DIFFERENCES_MAX, Difference, Kind};
use crate::show::{count, fit, visible};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

/// Differences that a terminal shows one by one; all of those that are kept stand in the JSON form.
const SHOWN_MAX: usize = 50;
/// Longest value shown, in characters.
const VALUE_CHARACTERS: usize = 80;

/// The whole of it, for a terminal.
#[must_use]
pub fn text(comparison: &Comparison) -> String {
    let Comparison { before, after, transactions, changes, .. } = comparison;
    let mut out = format!(
        "{} changes in {} transactions, by {before} and by {after}\n\n",
        count(*changes),
        count(*transactions)
    );
    out.push_str(&table("EVENT TYPE", &comparison.types));
    if !comparison.unmapped.is_empty() {
        out.push('\n');
        out.push_str(&table("WITHOUT AN EVENT", &comparison.unmapped));
    }
    for difference in comparison.differences.iter().take(SHOWN_MAX) {
        out.push('\n');
        out.push_str(&shown(difference));
    }
    let total =
        comparison.only_before + comparison.only_after + comparison.changed + comparison.other_id;
    if total > SHOWN_MAX as u64 {
        let kept = DIFFERENCES_MAX;
        out.push_str(&format!(
            "\n… {} events differ in all; --format json has the first {kept}.\n",
            count(total)
        ));
    }
    for described in &comparison.described {
        out.push_str(&format!("\nanother sentence, audience or retention: {described}\n"));
    }
    for silent in &comparison.silent {
        out.push_str(&format!("\nnot compared: the recording has no change of {silent}\n"));
    }
    if comparison.is_cut {
        out.push_str("\nleft out: the last transaction, whose end was not recorded\n");
    }
    out.push_str(&verdict(comparison));
    out
}

fn verdict(comparison: &Comparison) -> String {
    if comparison.is_same() {
        return "\nnothing differs\n".to_owned();
    }
    let Comparison { only_before, only_after, changed, other_id, .. } = comparison;
    format!(
        "\n{} only before, {} only after, {} changed, {} under another id\n",
        count(*only_before),
        count(*only_after),
        count(*changed),
        count(*other_id)
    )
}

fn table(header: &str, counts: &Counts) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([header, "BEFORE", "AFTER", ""]);
    for (key, [before, after]) in counts {
        let mark = if before == after { "" } else { "differs" };
        table.add_row([visible(key).into_owned(), count(*before), count(*after), mark.to_owned()]);
    }
    for column in [1, 2] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines: Vec<String> =
        table.to_string().lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n") + "\n"
}

fn shown(difference: &Difference) -> String {
    let Difference { kind, xid, lsn, event_type, subject, fields } = difference;
    let word = match kind {
        Kind::OnlyBefore => "only before",
        Kind::OnlyAfter => "only after",
        Kind::Changed => "changed",
        Kind::OtherId => "another id",
    };
    let mut out = format!("{word}: {event_type} {} (xid {xid}, {lsn})\n", visible(subject));
    for (field, [before, after]) in fields {
        let line = match kind {
            Kind::OnlyBefore => value(before),
            Kind::OnlyAfter => value(after),
            Kind::Changed | Kind::OtherId => format!("{} → {}", value(before), value(after)),
        };
        // What is the same for every event of a transaction says nothing of one that stands alone.
        if *kind == Kind::Changed || !field.starts_with("payload._audit.") {
            out.push_str(&format!("  {field:<24} {line}\n"));
        }
    }
    out
}

fn value(value: &Value) -> String {
    let text = match value {
        Value::Null => "nothing".to_owned(),
        other => visible(&other.to_string()).into_owned(),
    };
    fit(&text, VALUE_CHARACTERS).into_owned()
}
