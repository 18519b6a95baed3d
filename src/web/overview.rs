//! The overview: numbers now or as of any past date, their history, and what happened last.

use super::{
    Fault, Visitor, Web, chart,
    events::{self, Line},
    find::Wanted,
    numbers::Counted,
    page::{self, Frame, filters},
    reader::Reader,
};
use crate::{
    filter::{Filter, Moment, Order},
    show,
};
use askama::Template;
use axum::{
    Extension,
    extract::{Query, State},
    http::StatusCode,
    response::Response,
};
use chrono::{DateTime, Days, NaiveDate, NaiveTime, Utc};
use serde::Deserialize;
use std::{collections::BTreeMap, sync::Arc};

const RECENT_EVENTS: i64 = 24;
/// Ranges that are offered, in days.
const RANGES: [u16; 4] = [30, 90, 365, 1_825];

/// A number that has a card: its key in `portal_audit.stats`, what it is called, and the search that lists its events.
const CARDS: [(&str, &str, &str); 8] = [
    ("users", "Users", "type:user_*"),
    ("projects", "Projects", "type:project_created type:project_deleted"),
    ("organizations", "Organizations", "type:org_created type:org_deleted"),
    ("experiments", "Experiments", "type:experiment_created type:experiment_deleted"),
    ("realizations", "Realizations", "type:realization_*"),
    ("materializations", "Materializations", "type:materialization_* type:dematerialized"),
    (
        "logins.within_30_days",
        "Logins in 30 days",
        "type:login_succeeded type:login_refreshed since:30d",
    ),
    ("logins.failed.within_30_days", "Failed logins in 30 days", "type:login_failed since:30d"),
];

/// Numbers that belong together: the beginning of their keys, and what they are called.
const TABLES: [(&str, &str); 8] = [
    ("users.active_within_", "Users active within"),
    ("projects.active_within_", "Projects active within"),
    ("projects.category.", "Projects by category"),
    ("organizations.category.", "Organizations by category"),
    ("users.state.", "Users by state"),
    ("projects.state.", "Projects by state"),
    ("logins.within_", "Logins within"),
    ("logins.failed.within_", "Failed logins within"),
];

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    /// A date whose end the numbers are of.
    at: Option<String>,
    days: Option<u16>,
}

/// Numbers that belong together.
struct Group {
    name: &'static str,
    rows: Vec<(String, String)>,
}

struct Card {
    name: &'static str,
    number: String,
    change: String,
    link: String,
}

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    frame: Frame,
    at: String,
    is_past: bool,
    latest: String,
    cards: Vec<Card>,
    groups: Vec<Group>,
    /// When the numbers were counted; `None`: there are none for who sees a part.
    counted: Option<String>,
    days: u16,
    ranges: [u16; 4],
    chart: String,
    months: Vec<(String, String, String)>,
    recent: Vec<Line>,
}

pub(super) async fn overview(
    State(web): State<Arc<Web>>,
    Extension(visitor): Extension<Visitor>,
    Query(asked): Query<Asked>,
) -> Result<Response, Fault> {
    let reader = web.sessions.read(&visitor).await?;
    let frame = Frame::read("Overview", &visitor, &reader).await?;
    let now = reader.row("SELECT now()", &[]).await?.ok_or(Fault::Away)?.get(0);
    let date = date(asked.at.as_deref())?;
    let at = date.map_or(now, |date| end_of(date).min(now));
    let days = asked.days.filter(|days| RANGES.contains(days)).unwrap_or(90);
    let until = Filter { until: date.map(|_| Moment::At(at)), ..Filter::default() };
    let wanted =
        Wanted { filter: &until, order: Order::NewestFirst, beyond: None, limit: RECENT_EVENTS };
    let recent = events::read_lines(&reader, &visitor, &wanted).await?.lines;
    // How many there are of all is for those who see all.
    let (counted, daily) = if visitor.sees_all {
        let counted = web.numbers.at(&reader, at, now).await?;
        (Some(counted), daily(&reader, at, days).await?)
    } else {
        (None, chart::Daily { first: at.date_naive(), counts: Vec::new() })
    };
    let page = OverviewPage {
        frame,
        at: date.map_or_else(String::new, |date| date.to_string()),
        is_past: date.is_some(),
        latest: now.date_naive().to_string(),
        cards: counted.as_deref().map_or_else(Vec::new, cards),
        groups: counted.as_deref().map_or_else(Vec::new, groups),
        counted: counted.map(|counted| page::time(counted.counted)),
        days,
        ranges: RANGES,
        chart: chart::bars(&daily),
        months: by_month(&daily),
        recent,
    };
    page::html(StatusCode::OK, &page)
}

/// The date that was asked for, if one was.
pub(super) fn date(text: Option<&str>) -> Result<Option<NaiveDate>, Fault> {
    let date = text.filter(|text| !text.is_empty()).map(str::parse).transpose();
    date.map_err(|_no_date| Fault::Asked("A date is written 2026-04-23.".into()))
}

/// The first instant after a day.
pub(super) fn end_of(date: NaiveDate) -> DateTime<Utc> {
    date.checked_add_days(Days::new(1)).unwrap_or(date).and_time(NaiveTime::MIN).and_utc()
}

fn cards(counted: &Counted) -> Vec<Card> {
    let cards = CARDS.iter().filter_map(|(key, name, search)| {
        let number = *counted.numbers.get(*key)?;
        let before = counted.before.get(*key).copied().unwrap_or(0);
        let change = format!("30 days before: {}", show::count(before.unsigned_abs()));
        let link = format!("/events?q={}", page::escaped(search));
        Some(Card { name, number: show::count(number.unsigned_abs()), change, link })
    });
    cards.collect()
}

/// What else is counted.
fn groups(counted: &Counted) -> Vec<Group> {
    let groups = TABLES
        .iter()
        .map(|(beginning, name)| Group { name, rows: rows_of(&counted.numbers, beginning) });
    groups.filter(|group| !group.rows.is_empty()).collect()
}

/// The numbers whose keys begin so, spans of time from the shortest on.
fn rows_of(numbers: &BTreeMap<String, i64>, beginning: &str) -> Vec<(String, String)> {
    let found = numbers.iter().filter_map(|(key, number)| {
        Some((key.strip_prefix(beginning)?.replace('_', " "), *number))
    });
    let mut found: Vec<(String, i64)> = found.collect();
    found.sort_by_key(|(name, _)| {
        let count: i64 = name.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0);
        if name.ends_with("days") { count * 24 } else { count }
    });
    let shown = found.into_iter();
    shown.map(|(name, number)| (name, show::count(number.unsigned_abs()))).collect()
}

async fn daily(reader: &Reader, at: DateTime<Utc>, days: u16) -> Result<chart::Daily, Fault> {
    // As the view `daily` counts, by the index on days.
    const QUERY: &str = "SELECT day, coalesce(sum(events) FILTER (WHERE success), 0)::bigint, coalesce(sum(events) FILTER (WHERE NOT success), 0)::bigint FROM portal_audit.daily_sums WHERE day BETWEEN $1 AND $2 GROUP BY 1";
    let last = (at - chrono::TimeDelta::microseconds(1)).date_naive();
    let first = last.checked_sub_days(Days::new(u64::from(days - 1))).unwrap_or(last);
    let rows = reader.rows(QUERY, &[&first, &last]).await?;
    let found: BTreeMap<NaiveDate, (u64, u64)> = rows
        .iter()
        .map(|row| {
            let count = |column| row.get::<_, i64>(column).unsigned_abs();
            (row.get(0), (count(1), count(2)))
        })
        .collect();
    let counts = first.iter_days().take(usize::from(days));
    let counts = counts.map(|day| found.get(&day).copied().unwrap_or_default()).collect();
    Ok(chart::Daily { first, counts })
}

/// The chart's numbers, as a table for who cannot see it.
fn by_month(daily: &chart::Daily) -> Vec<(String, String, String)> {
    let mut months: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (day, (well, failed)) in daily.first.iter_days().zip(&daily.counts) {
        let month = months.entry(day.format("%Y-%m").to_string()).or_default();
        *month = (month.0 + well, month.1 + failed);
    }
    let shown = months
        .into_iter()
        .map(|(month, (well, failed))| (month, show::count(well), show::count(failed)));
    shown.collect()
}
