//! `stats`: the numbers of the testbed, now or at any time, with what changed in the 30 days before.

use super::{
    AskError,
    paint::{self, Paint},
    print,
    read::{CompleteTo, Reader, complete_text},
    record::record,
    tell,
};
use crate::{
    config::AuditArguments,
    filter::Moment,
    show::{OutputFormat, count, instant, visible},
};
use chrono::{DateTime, TimeDelta, Utc};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Map, Value, json};

/// What the numbers are compared with.
const BEFORE: TimeDelta = TimeDelta::days(30);

#[derive(Debug, clap::Args)]
pub struct StatsArguments {
    /// The numbers as they were then; a date means its end
    #[arg(long, value_name = "TIME")]
    at: Option<Moment>,
    #[command(flatten)]
    audit: AuditArguments,
    /// A table for people, or one JSON document
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    format: OutputFormat,
}

/// A number, and what it was 30 days before, which is counted of things themselves and of logins alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number {
    pub key: String,
    pub number: i64,
    pub before: Option<i64>,
}

pub(super) async fn run(arguments: StatsArguments) -> Result<(), AskError> {
    let reader = Reader::open(&arguments.audit, "stats").await?;
    if !reader.abilities.counts {
        return Err(AskError::OldSchema {
            function: "portal_audit.stats or totals, or the right to execute them,",
        });
    }
    let at = instant_of(arguments.at, reader.now);
    let now = numbers(&reader, "stats", at).await?;
    // What is counted of each thing takes as long as all the rest, and is not compared.
    let before = numbers(&reader, "totals", at - BEFORE).await?;
    let complete_to = reader.complete_to().await?;
    reader.close().await?;
    record(&reader, "stats", &json!({"at": instant(at)}), now.len()).await?;
    let numbers: Vec<Number> = now
        .into_iter()
        .map(|(key, number)| {
            let before = before.iter().find(|(other, _)| *other == key).map(|(_, number)| *number);
            Number { key, number, before }
        })
        .collect();
    match arguments.format {
        OutputFormat::Json => {
            let text = json(&numbers, at, &complete_to);
            print(&(serde_json::to_string_pretty(&text).map_err(AskError::Json)? + "\n"))
        }
        OutputFormat::Text => {
            print(&stats_text(&numbers, at, Paint::of_stdout()))?;
            tell(&complete_text(&complete_to));
            Ok(())
        }
    }
}

/// The instant that is meant: of a day its end, as in `--until`, but not beyond now.
fn instant_of(at: Option<Moment>, now: DateTime<Utc>) -> DateTime<Utc> {
    match at.map(Moment::end) {
        None => now,
        Some(Ok(at)) => at.min(now),
        Some(Err(ago)) => now - ago,
    }
}

async fn numbers(
    reader: &Reader,
    function: &str,
    at: DateTime<Utc>,
) -> Result<Vec<(String, i64)>, AskError> {
    let query = format!("SELECT key, number FROM portal_audit.{function}($1)");
    let rows = reader.session.client.query(&query, &[&at]).await.map_err(AskError::query)?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

fn json(numbers: &[Number], at: DateTime<Utc>, complete_to: &[CompleteTo]) -> Value {
    let map = |value: fn(&Number) -> Value| {
        numbers.iter().map(|number| (number.key.clone(), value(number))).collect::<Map<_, _>>()
    };
    json!({
        "at": instant(at),
        "numbers": map(|number| json!(number.number)),
        "before": map(|number| json!(number.before)),
        "before_at": instant(at - BEFORE),
        "complete_to": complete_to,
    })
}

/// Things in the order in which they are shown; what else there is comes behind.
const THINGS: [&str; 7] = [
    "users",
    "organizations",
    "projects",
    "experiments",
    "realizations",
    "materializations",
    "logins",
];
/// What is counted of a thing, in order; the spans that are not named stand before `failed`.
const ASPECTS: [&str; 5] = ["", "state", "category", SPANS, "failed"];
/// In the place of `within_24_hours` and the like.
const SPANS: &str = "within";

/// The numbers as a table: things, and under each what is counted of it.
#[must_use]
pub fn stats_text(numbers: &[Number], at: DateTime<Utc>, paint: Paint) -> String {
    let mut ordered: Vec<&Number> = numbers.iter().collect();
    ordered.sort_by_cached_key(|number| place(&number.key));
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let before = format!("30 days before ({})", (at - BEFORE).format("%Y-%m-%d"));
    table.set_header(["", "number", &before, "change"].map(str::to_owned));
    let mut heads = Vec::new();
    let (mut lines, mut was_group) = (1, false);
    for number in ordered {
        let (thing, aspect) = number.key.split_once('.').unwrap_or((&number.key, ""));
        if aspect.is_empty() {
            let is_group = has_aspects(numbers, thing);
            if lines > 1 && (is_group || was_group) {
                table.add_row(["", "", "", ""]);
                lines += 1;
            }
            was_group = is_group;
        }
        let label = if aspect.is_empty() {
            visible(thing).into_owned()
        } else {
            format!("  {}", words(aspect))
        };
        let (before, change) = compared(number);
        table.add_row([label, signed(number.number), before, change]);
        if aspect.is_empty() {
            heads.push(lines);
        }
        lines += 1;
    }
    for column in 1..4 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let text = table.to_string();
    let mut out = paint.bold(&format!("Numbers as of {}", paint::second(at))) + "\n\n";
    for (line, text) in text.lines().enumerate() {
        let text = text.trim_end();
        out.push_str(&if line == 0 {
            paint.dim(text)
        } else if heads.contains(&line) {
            paint.bold(text)
        } else {
            text.to_owned()
        });
        out.push('\n');
    }
    out
}

fn has_aspects(numbers: &[Number], thing: &str) -> bool {
    numbers
        .iter()
        .any(|number| number.key.strip_prefix(thing).is_some_and(|aspect| aspect.starts_with('.')))
}

/// What a key is sorted by: its thing, its aspect, the length of its span.
fn place(key: &str) -> (usize, usize, u32, &str) {
    let (thing, aspect) = key.split_once('.').unwrap_or((key, ""));
    let thing = THINGS.iter().position(|known| *known == thing).unwrap_or(THINGS.len());
    let rank = |word: &str| ASPECTS.iter().position(|known| *known == word);
    let first = aspect.split('.').next().unwrap_or_default();
    (thing, rank(first).or_else(|| rank(SPANS)).unwrap_or(0), hours(aspect), key)
}

/// Hours in `within_7_days`; a number over all time stands behind those.
fn hours(aspect: &str) -> u32 {
    let Some((_, span)) = aspect.rsplit_once("within_") else {
        return if aspect.ends_with("cumulative") { u32::MAX } else { 0 };
    };
    let (number, unit) = span.split_once('_').unwrap_or((span, ""));
    let number: u32 = number.parse().unwrap_or(0);
    if unit == "days" { number.saturating_mul(24) } else { number }
}

/// `active_within_7_days` as people say it.
fn words(aspect: &str) -> String {
    let said = match aspect {
        "active_cumulative" => "ever active".to_owned(),
        "non_active_cumulative" => "never active".to_owned(),
        other => match other.split_once('.') {
            // A category is the portal's own word.
            Some((kind @ ("state" | "category"), value)) => format!("{kind} {value}"),
            _ => other.replace(['_', '.'], " "),
        },
    };
    visible(&said).into_owned()
}

fn compared(number: &Number) -> (String, String) {
    let Some(before) = number.before else { return ("–".to_owned(), "–".to_owned()) };
    let change = number.number.saturating_sub(before);
    let change = match change {
        0 => "=".to_owned(),
        more if more > 0 => format!("+{}", signed(more)),
        less => signed(less),
    };
    (signed(before), change)
}

fn signed(number: i64) -> String {
    let sign = if number < 0 { "−" } else { "" };
    format!("{sign}{}", count(number.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn numbers_stand_in_groups_with_what_changed() {
        let number = |key: &str, number, before| Number { key: key.to_owned(), number, before };
        let numbers = [
            number("logins", 1_204_771, Some(1_190_002)),
            number("users.non_active_cumulative", 4, Some(4)),
            number("users.active_within_30_days", 90, Some(99)),
            number("users.active_within_24_hours", 12, Some(0)),
            number("logins.failed.within_24_hours", 3, None),
            number("logins.failed", 40, None),
            number("logins.within_7_days", 70, None),
            number("users.category.academia\u{1b}[2J", 80, None),
            number("users", 120, Some(110)),
            number("projects", 7, Some(7)),
            number("experiments", 7, Some(8)),
            number("surprises", 1, Some(1)),
        ];
        let paint = Paint { width: None, is_coloured: false };
        let at = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
        expect![[r#"
            Numbers as of 2024-10-04 00:00:00 UTC

                                              number  30 days before (2024-09-04)   change
             users                               120                          110      +10
               category academia\u{1b}[2J         80                            –        –
               active within 24 hours             12                            0      +12
               active within 30 days              90                           99       −9
               never active                        4                            4        =

             projects                              7                            7        =
             experiments                           7                            8       −1

             logins                        1,204,771                    1,190,002  +14,769
               within 7 days                      70                            –        –
               failed                             40                            –        –
               failed within 24 hours              3                            –        –

             surprises                             1                            1        =
        "#]]
        .assert_eq(&stats_text(&numbers, at, paint));
    }
}
