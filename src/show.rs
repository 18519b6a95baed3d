//! Events and status as people read them.

use crate::status::{NotCovered, SourceStatus};
use chrono::{DateTime, SecondsFormat, Utc};
use comfy_table::{CellAlignment, Table, presets};
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use tokio_postgres::Row;
use uuid::Uuid;

/// How a result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    Text,
    Json,
}

/// The columns of a row of `events`, in the table's order; the table is called `e`.
pub const COLUMNS: &str = "e.event_uuid, e.timestamp, e.event_type, e.caller, e.subject, e.subject_type, e.target, e.success, e.error_message, e.payload";

/// A row of `events`, read to be shown; as JSON, its columns.
#[derive(Debug, Clone, Serialize)]
pub struct ShownEvent {
    #[serde(serialize_with = "as_text")]
    pub event_uuid: Uuid,
    #[serde(serialize_with = "as_instant")]
    pub timestamp: DateTime<Utc>,
    pub event_type: String,
    pub caller: String,
    pub subject: String,
    pub subject_type: String,
    pub target: Option<String>,
    pub success: bool,
    pub error_message: Option<String>,
    pub payload: serde_json::Value,
}

fn as_text<S: Serializer>(event_uuid: &Uuid, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(event_uuid)
}

fn as_instant<S: Serializer>(at: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&instant(*at))
}

/// With microseconds, which is what the table keeps.
#[must_use]
pub fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// What stands for a value that is not known.
const UNKNOWN: &str = "(unknown)";
/// What stands for a list without items.
const NONE: &str = "(none)";

impl ShownEvent {
    /// From a row that begins with [`COLUMNS`].
    #[must_use]
    pub fn read(row: &Row) -> Self {
        Self {
            event_uuid: row.get(0),
            timestamp: row.get(1),
            event_type: row.get(2),
            caller: row.get(3),
            subject: row.get(4),
            subject_type: row.get(5),
            target: row.get(6),
            success: row.get(7),
            error_message: row.get(8),
            payload: row.get(9),
        }
    }

    /// The sentence of an event type, its placeholders filled once: what they hold is never filled again.
    #[must_use]
    pub fn sentence(&self, describe: &str) -> String {
        let mut sentence = String::new();
        let mut rest = describe;
        while let Some((before, after)) = rest.split_once('{') {
            sentence.push_str(before);
            let Some((placeholder, after)) = after.split_once('}') else {
                rest = after;
                break;
            };
            sentence.push_str(&visible(&self.value(placeholder)));
            rest = after;
        }
        sentence + rest
    }

    fn value(&self, placeholder: &str) -> Cow<'_, str> {
        let text = match placeholder {
            "caller" => Some(Cow::from(self.caller.as_str())),
            "subject" => Some(Cow::from(self.subject.as_str())),
            "subject_type" => Some(Cow::from(self.subject_type.as_str())),
            "target" => self.target.as_deref().map(Cow::from),
            "error_message" => self.error_message.as_deref().map(Cow::from),
            "timestamp" => Some(Cow::from(self.timestamp.to_rfc3339())),
            other => other.strip_prefix("payload.").and_then(|key| self.payload_value(key)),
        };
        text.filter(|text| !text.is_empty()).unwrap_or(Cow::from(UNKNOWN))
    }

    fn payload_value(&self, key: &str) -> Option<Cow<'_, str>> {
        match self.payload.get(key)? {
            serde_json::Value::String(text) => Some(to_the_second(text)),
            serde_json::Value::Array(items) if items.is_empty() => Some(Cow::from(NONE)),
            serde_json::Value::Array(items) => {
                let items = items
                    .iter()
                    .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned));
                Some(Cow::from(items.collect::<Vec<_>>().join(", ")))
            }
            other => Some(Cow::from(other.to_string())),
        }
    }
}

/// A time as PostgreSQL writes one, to the second and in UTC, as all times are told; another text as it is.
fn to_the_second(text: &str) -> Cow<'_, str> {
    DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%#z").map_or(Cow::from(text), |at| {
        Cow::from(at.with_timezone(&Utc).format("%Y-%m-%d %H:%M:%S").to_string())
    })
}

/// A text in which control and direction characters are visible escapes, so that a name cannot move the cursor or turn the line around.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    let is_hidden = |letter: char| {
        letter.is_control()
            || matches!(letter, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
    };
    if !text.contains(is_hidden) {
        return Cow::from(text);
    }
    let escaped = text.chars().map(|letter| {
        if is_hidden(letter) { letter.escape_unicode().to_string() } else { letter.to_string() }
    });
    Cow::from(escaped.collect::<String>())
}

/// Cuts a line to a width in characters.
#[must_use]
pub fn fit(line: &str, width: usize) -> Cow<'_, str> {
    match line.char_indices().nth(width) {
        None => Cow::from(line),
        Some(_) => {
            let kept: String = line.chars().take(width.saturating_sub(1)).collect();
            Cow::from(kept + "…")
        }
    }
}

/// Bytes in the unit that keeps the number short.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut tenths = u128::from(bytes) * 10;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1_024;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if unit == 0 {
        format!("{bytes} {name}")
    } else {
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    }
}

/// A number with its thousands set apart.
#[must_use]
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Seconds in the unit that a person would use.
#[must_use]
pub fn seconds(seconds: f64) -> String {
    if seconds < 120.0 {
        format!("{seconds:.1} s")
    } else if seconds < 7_200.0 {
        format!("{:.0} min", seconds / 60.0)
    } else {
        format!("{:.1} h", seconds / 3_600.0)
    }
}

/// The table of the verb `status`.
#[must_use]
pub fn status_table(sources: &[SourceStatus]) -> String {
    const RIGHT: [usize; 5] = [3, 4, 5, 6, 7];
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "SOURCE",
        "STATE",
        "COMPLETE TO",
        "LAG",
        "BEHIND",
        "EVENTS",
        "UNMAPPED",
        "GAPS",
        "SLOT KEEPS",
        "LAST COMMIT",
    ]);
    let time = |time: Option<DateTime<Utc>>| {
        time.map_or("–".to_owned(), |time| time.format("%Y-%m-%d %H:%M:%SZ").to_string())
    };
    let dash = || "–".to_owned();
    for source in sources {
        table.add_row([
            visible(&source.source).into_owned(),
            source.state.clone(),
            time(source.complete_to),
            source.lag_seconds.map_or_else(dash, seconds),
            source.lag_bytes.map_or_else(dash, bytes),
            count(source.events),
            count(source.unmapped),
            count(source.gaps),
            source.retained_bytes.map_or_else(dash, bytes),
            time(source.last_commit),
        ]);
    }
    for column in RIGHT {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = table.to_string();
    for source in sources {
        for NotCovered { kind, name, reason, fix, rules_stopped, since, .. } in &source.not_covered
        {
            let since = since.format("%Y-%m-%d %H:%M:%SZ");
            let line = format!("not covered since {since}: {kind} {name}: {reason}. {fix}");
            text.push_str(&format!("\n{}: {}", visible(&source.source), visible(&line)));
            if !rules_stopped.is_empty() {
                let rules = rules_stopped.join(", ");
                text.push_str(&format!(" Rules that stand still: {}", visible(&rules)));
            }
        }
        for note in source.note.iter().chain(&source.warnings) {
            text.push_str(&format!("\n{}: {}", visible(&source.source), visible(note)));
        }
    }
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> ShownEvent {
        ShownEvent {
            event_uuid: Uuid::nil(),
            timestamp: DateTime::UNIX_EPOCH,
            event_type: "org_member_added".into(),
            caller: String::new(),
            subject: "{caller}\u{1b}[2J".into(),
            subject_type: "organization".into(),
            target: Some("testuser".into()),
            success: true,
            error_message: None,
            payload: serde_json::json!({"role": "member", "changed": ["a", "b"]}),
        }
    }

    #[test]
    fn times_are_told_to_the_second() {
        for (text, told) in [
            ("2026-11-23 05:30:31.033146+00", "2026-11-23 05:30:31"),
            ("2026-11-23 05:30:31+05:30", "2026-11-23 00:00:31"),
            ("2026-11-23 05:30:31", "2026-11-23 05:30:31"),
            ("2026-11-23", "2026-11-23"),
            ("maple", "maple"),
        ] {
            assert_eq!(to_the_second(text), told);
        }
    }

    #[test]
    fn a_sentence_is_filled_once_and_cannot_move_the_cursor() {
        let sentence = event().sentence("{caller} added {target} to {subject} as {payload.role}, {payload.changed} {payload.none}");
        assert_eq!(
            sentence,
            "(unknown) added testuser to {caller}\\u{1b}[2J as member, a, b (unknown)"
        );
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(bytes(1_023), "1023 B");
        assert_eq!(bytes(1_536), "1.5 KiB");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(12), "12");
        assert_eq!(seconds(0.25), "0.2 s");
        assert_eq!(seconds(7_200.0), "2.0 h");
        assert_eq!(fit("abcdef", 4), "abc…");
        assert_eq!(fit("abc", 4), "abc");
    }
}
