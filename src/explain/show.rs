//! An explanation as people read it.

use super::{Block, EventColumns, Explanation};
use crate::show::visible;
use serde_json::Value;
use std::fmt::Write as _;

/// Longest value that is shown whole, in characters.
const VALUE_CHARACTERS: usize = 120;

/// The whole of it, for a terminal.
#[must_use]
pub fn text(explanation: &Explanation) -> String {
    let Explanation { event, transaction, caller, rules, flags, cause, beside, note } = explanation;
    let mut out = String::new();
    let mut line = |text: &str| {
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(&format!("{}  {}", event.event_type, event.event_uuid));
    line(&format!("  {}", visible(&event.sentence)));
    line("");
    for (key, value) in values(event) {
        let mut origins: Vec<&str> =
            rules.iter().filter_map(|rule| rule.columns.get(&key).map(String::as_str)).collect();
        origins.dedup();
        let mut from = origins.join(", or ");
        if key == "caller" {
            from = if from.is_empty() { caller.clone() } else { format!("{from}: {caller}") };
        }
        let arrow = if from.is_empty() { "" } else { "  ← " };
        line(&format!("  {key:<22} {value}{arrow}{from}"));
    }
    line("\nTRANSACTION");
    line(&format!(
        "  source {}, committed {}",
        transaction.source,
        transaction.time.format("%Y-%m-%d %H:%M:%S%.6f UTC")
    ));
    match (transaction.xid, &transaction.lsn) {
        (Some(xid), Some(lsn)) => line(&format!("  xid {xid}, commit LSN {lsn}")),
        (_, Some(lsn)) => {
            line(&format!("  no transaction: a row that was there before, read at LSN {lsn}"));
        }
        _ => {}
    }
    if let Some(cause) = cause {
        line(&format!("  caused by {}: {}", cause.event_uuid, brief(cause)));
    }
    if !flags.is_empty() {
        line("\nFLAGS");
        for (flag, meaning) in flags {
            line(&format!("  {flag}: {meaning}"));
        }
    }
    for (number, Block { place, table, text, .. }) in rules.iter().enumerate() {
        line(if number == 0 { "\nMADE BY" } else { "\nOR BY" });
        line(&format!("  {place}, from {table}\n"));
        // The examples are for who edits the mapping.
        let lines = text.trim_end().lines();
        for words in lines.take_while(|words| !words.starts_with("[[event.example")) {
            line(&format!("    {words}"));
        }
    }
    if let Some(note) = note {
        line(&format!("\nMADE BY\n  {note}"));
    }
    if !beside.is_empty() {
        line("\nIN THE SAME TRANSACTION");
        for other in beside {
            line(&format!("  {}  {}", other.event_uuid, brief(other)));
        }
    }
    out
}

fn brief(event: &EventColumns) -> String {
    if event.sentence.is_empty() {
        return format!("{} {}", event.event_type, visible(&event.subject));
    }
    format!("{}: {}", event.event_type, visible(&event.sentence))
}

/// Each column and each key of the payload with its value.
fn values(event: &EventColumns) -> Vec<(String, String)> {
    let quoted = |text: &str| {
        let shown: String = visible(text).chars().take(VALUE_CHARACTERS + 1).collect();
        match shown.char_indices().nth(VALUE_CHARACTERS) {
            Some((end, _)) => format!("{}…", shown.get(..end).unwrap_or_default()),
            None => shown,
        }
    };
    let caller =
        if event.caller.is_empty() { "(unknown)".to_owned() } else { quoted(&event.caller) };
    let mut values = vec![
        ("subject".to_owned(), format!("{} ({})", quoted(&event.subject), event.subject_type)),
        ("caller".to_owned(), caller),
    ];
    values.extend(event.target.iter().map(|target| ("target".to_owned(), quoted(target))));
    values.push(("success".to_owned(), event.success.to_string()));
    values.extend(
        event.error_message.iter().map(|message| ("error_message".to_owned(), quoted(message))),
    );
    for (key, value) in event.payload.as_object().into_iter().flatten() {
        let mut shown = String::new();
        let _written = match value {
            Value::String(text) => write!(shown, "{text}"),
            other => write!(shown, "{other}"),
        };
        values.push((format!("payload.{key}"), quoted(&shown)));
    }
    values
}
