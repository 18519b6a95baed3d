//! Facilities on a map and as a table, and one facility with all that is known of it, now or at a past time.

mod feed;
mod strip;

pub(super) use feed::{atom, json_feed};

use super::{
    Fault, Visitor, Web, api,
    events::{self, Line},
    page::{self, Frame, escaped, filters},
    reader::Reader,
    subject,
};
use crate::{
    facility::{self, Facility, Span},
    map::{self, Marker, State as Condition},
};
use askama::Template;
use axum::{
    Extension,
    extract::{Path, Query, State},
    http::StatusCode,
    response::Response,
};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio_postgres::Row;

/// Spans of a history that can be asked for.
const RANGES: [u16; 4] = [7, 30, 90, 365];
const DAYS: u16 = 90;
/// Realizations that are shown with what they hold.
const HOLDERS: i64 = 100;
/// Resources that are named for each.
const HELD: usize = 8;
/// Lines of a list on a facility's page.
const LINES: i64 = 15;
/// Uses of a facility that are looked through for those that the visitor may see.
const USES: i64 = 1_000;
/// Windows of maintenance that are shown.
const WINDOWS: i64 = 20;

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    at: Option<String>,
    days: Option<u16>,
}

/// All facilities at a time.
#[derive(Debug, Serialize)]
pub(super) struct All {
    pub(super) at: DateTime<Utc>,
    pub(super) facilities: Vec<Facility>,
    /// Events that are written and not counted in the states yet.
    pub(super) events_behind: i64,
}

/// The time that is asked for, and whether it is a past one.
pub(super) async fn time_of(
    reader: &Reader,
    at: Option<&str>,
) -> Result<(DateTime<Utc>, bool), Fault> {
    let now = reader.row("SELECT now()", &[]).await?.ok_or(Fault::Away)?.get(0);
    match at.filter(|at| !at.is_empty()) {
        None => Ok((now, false)),
        Some(at) => {
            let at = api::moment(at)?;
            Ok((at.min(now), at < now))
        }
    }
}

pub(super) async fn read_all(reader: &Reader, at: DateTime<Utc>) -> Result<All, Fault> {
    let rows = reader.rows("SELECT * FROM portal_audit.facility_states($1)", &[&at]).await?;
    let mut facilities: Vec<Facility> = rows.iter().map(Facility::of_row).collect();
    facilities.sort_by_key(|own| facility::rank(own.state));
    let behind = reader.row("SELECT portal_audit.facilities_behind()", &[]).await?;
    Ok(All { at, facilities, events_behind: behind.map_or(0, |row| row.get(0)) })
}

/// One of them, with its last spans.
#[derive(Debug, Serialize)]
pub(super) struct One {
    pub(super) at: DateTime<Utc>,
    #[serde(flatten)]
    pub(super) facility: Facility,
    pub(super) history: Vec<Span>,
}

pub(super) async fn read_one(
    reader: &Reader,
    name: &str,
    at: DateTime<Utc>,
    days: u16,
) -> Result<One, Fault> {
    const QUERY: &str = "SELECT s.*, l.latitude, l.longitude, coalesce(l.label_dx, 0) AS label_dx, coalesce(l.label_dy, 0) AS label_dy, l.organization, l.url FROM portal_audit.facility_state($1, $2) s LEFT JOIN portal_audit.facility_places l ON l.facility = s.facility WHERE s.state IS NOT NULL";
    const HISTORY: &str =
        "SELECT state, from_time, until, why FROM portal_audit.facility_history($1, $2, $3)";
    let row = reader.row(QUERY, &[&name, &at]).await?.ok_or(Fault::Missing)?;
    let from = at - TimeDelta::days(days.into());
    let history = reader.rows(HISTORY, &[&name, &from, &at]).await?;
    let history = history.iter().map(Span::of_row).collect();
    Ok(One { at, facility: Facility::of_row(&row), history })
}

/// A state as it is shown everywhere: shape, word and colour.
struct Sign {
    word: &'static str,
    shape: &'static str,
}

impl Sign {
    fn of(state: Condition) -> Self {
        Self { word: state.word(), shape: map::shape(state) }
    }
}

/// A facility as a row of the table.
struct Shown {
    sign: Sign,
    name: String,
    since: String,
    why: String,
    active: String,
    allocated: i64,
    /// `until` or `from`, and when; empty: none.
    next: (&'static str, String),
    is_overdue: bool,
    is_placed: bool,
}

impl Shown {
    fn of(own: &Facility) -> Self {
        let next = match (own.maintenance_from, own.planned_from) {
            (Some(_), _) => ("until", own.expected_end.map_or_else(String::new, minute)),
            (None, Some(from)) => ("from", minute(from)),
            (None, None) => ("", String::new()),
        };
        Self {
            sign: Sign::of(own.state),
            name: own.name.clone(),
            since: own.since.map_or_else(|| "–".to_owned(), minute),
            why: own.why.clone(),
            active: format!("{}/{}", own.resources_active, own.resources_total),
            allocated: own.allocated,
            next,
            is_overdue: own.is_overdue,
            is_placed: own.place.is_some(),
        }
    }
}

/// A time in a table.
fn minute(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M").to_string()
}

fn maybe(at: Option<DateTime<Utc>>) -> String {
    at.map_or_else(|| "–".to_owned(), page::time)
}

#[derive(Template)]
#[template(path = "facilities.html")]
struct FacilitiesPage {
    frame: Frame,
    at: String,
    asked: String,
    is_past: bool,
    /// How many there are of each state that there is.
    tally: Vec<(Sign, usize)>,
    rows: Vec<Shown>,
    map: String,
    legend: String,
    behind: i64,
    explains: bool,
}

pub(super) async fn list(
    State(web): State<Arc<Web>>,
    Extension(visitor): Extension<Visitor>,
    Query(asked): Query<Asked>,
) -> Result<Response, Fault> {
    let reader = web.sessions.read(&visitor).await?;
    let frame = Frame::read("Facilities", &visitor, &reader).await?;
    let (at, is_past) = time_of(&reader, asked.at.as_deref()).await?;
    let all = read_all(&reader, at).await?;
    let markers: Vec<Marker<'_>> = all.facilities.iter().filter_map(Facility::marker).collect();
    let mut tally: Vec<(Sign, usize)> = Vec::new();
    for own in &all.facilities {
        match tally.last_mut().filter(|(sign, _)| sign.word == own.state.word()) {
            Some((_, count)) => *count += 1,
            None => tally.push((Sign::of(own.state), 1)),
        }
    }
    let page = FacilitiesPage {
        frame,
        at: page::time(at),
        asked: asked.at.unwrap_or_default(),
        is_past,
        tally,
        rows: all.facilities.iter().map(Shown::of).collect(),
        map: if markers.is_empty() { String::new() } else { map::svg(&markers) },
        legend: map::legend(),
        behind: all.events_behind,
        explains: visitor.sees_all,
    };
    page::html(StatusCode::OK, &page)
}

/// Who holds what now.
struct Holder {
    realization: String,
    /// The page of its experiment.
    path: Option<String>,
    caller: String,
    since: String,
    count: i64,
    resources: String,
}

/// Maintenance that was, is or will be.
struct Window {
    from: String,
    until: String,
    note: String,
    by: String,
    end: String,
    is_overdue: bool,
}

struct Stretch {
    sign: Sign,
    from: String,
    length: String,
    why: String,
}

#[derive(Template)]
#[template(path = "facility.html")]
struct FacilityPage {
    frame: Frame,
    sees_all: bool,
    sign: Sign,
    name: String,
    why: String,
    since: String,
    at: String,
    /// Of a link that stays at that time.
    asked: Option<String>,
    is_overdue: bool,
    planned: Option<String>,
    facts: Vec<(&'static str, String)>,
    organization: String,
    url: Option<String>,
    days: u16,
    ranges: [u16; 4],
    strip: String,
    shares: String,
    history: Vec<Stretch>,
    windows: Vec<Window>,
    commands: Vec<(&'static str, String)>,
    inactive: Vec<(String, String)>,
    holders: Vec<Holder>,
    uses: Vec<Line>,
    failures: Vec<Line>,
    own: Vec<Line>,
    /// Its events, as the search box takes it.
    search: String,
}

pub(super) async fn detail(
    State(web): State<Arc<Web>>,
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, Fault> {
    let reader = web.sessions.read(&visitor).await?;
    let frame = Frame::read("Facilities", &visitor, &reader).await?;
    let (at, is_past) = time_of(&reader, asked.at.as_deref()).await?;
    let days = asked.days.filter(|days| RANGES.contains(days)).unwrap_or(DAYS);
    let one = read_one(&reader, &name, at, days).await?;
    let own = &one.facility;
    let place = own.place.as_ref();
    let page = FacilityPage {
        frame,
        sees_all: visitor.sees_all,
        sign: Sign::of(own.state),
        why: own.why.clone(),
        since: maybe(own.since),
        at: page::time(at),
        asked: asked.at.filter(|_| is_past),
        is_overdue: own.is_overdue,
        planned: planned(own),
        facts: facts(own),
        organization: place.and_then(|place| place.organization.clone()).unwrap_or_default(),
        url: place.and_then(|place| place.url.clone()),
        days,
        ranges: RANGES,
        strip: strip::strip(&one.history, at),
        shares: facility::shares(&one.history),
        history: one.history.iter().rev().map(stretch).collect(),
        windows: windows(&reader, &name, at).await?,
        commands: if visitor.sees_all { commands(own) } else { Vec::new() },
        // The two tables hold what is now.
        inactive: if is_past { Vec::new() } else { inactive(&reader, &name).await? },
        holders: if is_past { Vec::new() } else { holders(&reader, &name).await? },
        uses: uses(&reader, &name, at, "true").await?,
        failures: uses(&reader, &name, at, "u.failed > 0").await?,
        own: lines_of(&reader, &name, at).await?,
        search: format!("subject_type:facility subject:{}", subject::quoted(&name)),
        name,
    };
    page::html(StatusCode::OK, &page)
}

/// Maintenance to come of a facility whose state is another.
fn planned(own: &Facility) -> Option<String> {
    let from = own.planned_from.filter(|_| own.state != Condition::Planned)?;
    Some(format!("from {} until {}", page::time(from), maybe(own.planned_until)))
}

fn stretch(span: &Span) -> Stretch {
    Stretch {
        sign: Sign::of(span.state),
        from: page::time(span.from),
        length: facility::span(span.until - span.from),
        why: span.why.clone(),
    }
}

fn facts(own: &Facility) -> Vec<(&'static str, String)> {
    let answers = match (own.reachable, own.rtt_ms) {
        (Some(true), Some(rtt)) => format!("answers in {rtt:.0} ms"),
        (Some(true), None) => "answers".to_owned(),
        (Some(false), _) => "does not answer".to_owned(),
        (None, _) => "not tried lately".to_owned(),
    };
    let mut facts = vec![
        ("Resources", format!("{} active of {}", own.resources_active, own.resources_total)),
        ("Allocated", format!("{} of them", own.allocated)),
        (
            "Materializations",
            format!("{} succeeded and {} failed lately", own.succeeded, own.failed),
        ),
        ("Address", answers),
        ("Last heard of", maybe(own.last_seen)),
    ];
    if let Some(place) = &own.place {
        let (north, east) = (place.latitude, place.longitude);
        facts.push((
            "Place",
            format!(
                "{:.2}° {}, {:.2}° {}",
                north.abs(),
                if north < 0.0 { "S" } else { "N" },
                east.abs(),
                if east < 0.0 { "W" } else { "E" }
            ),
        ));
    }
    facts
}

/// What an operator types. The pages themselves change nothing.
fn commands(own: &Facility) -> Vec<(&'static str, String)> {
    let line = |options: &str| {
        let name = quoted(&own.name);
        format!("portal-audit facility maintenance {options} --audit 'dbname=…' {name}")
    };
    let mut commands = Vec::new();
    if own.maintenance_from.is_some() {
        commands.push(("End what is now", line("--end")));
    }
    if own.planned_from.is_some() {
        commands.push(("Cancel what is planned", line("--cancel")));
    }
    commands.push(("Announce", line("--from now --until +4h --note 'what is done'")));
    commands
}

/// As a POSIX shell takes it at the end of a line, whatever it holds.
fn quoted(name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let text = if !name.is_empty() && name.bytes().all(is_plain) {
        name.to_owned()
    } else {
        format!("'{}'", name.replace('\'', r"'\''"))
    };
    // Not an option.
    if name.starts_with('-') { format!("-- {text}") } else { text }
}

async fn windows(reader: &Reader, name: &str, at: DateTime<Utc>) -> Result<Vec<Window>, Fault> {
    let query = format!(
        "SELECT from_time, until, note, announced_by, announced_at, ended_by, ended_at, ended_at < from_time AS is_cancelled FROM portal_audit.maintenance WHERE facility = $1 AND announced_at <= $2 ORDER BY from_time DESC LIMIT {WINDOWS}"
    );
    let rows = reader.rows(&query, &[&name, &at]).await?;
    let window = |row: &Row| {
        let (from, until): (DateTime<Utc>, DateTime<Utc>) = (row.get(0), row.get(1));
        let ended: Option<DateTime<Utc>> = row.get::<_, Option<_>>(6).filter(|ended| *ended <= at);
        let is_cancelled: Option<bool> = row.get(7);
        let by: Option<String> = row.get(5);
        let is_overdue = ended.is_none() && until <= at;
        let end = match ended {
            Some(ended) => format!(
                "{} {} by {}",
                if is_cancelled == Some(true) { "cancelled" } else { "ended" },
                page::time(ended),
                by.unwrap_or_default()
            ),
            None if from > at => "planned".to_owned(),
            None if is_overdue => "expected end has passed, nobody ended it".to_owned(),
            None => "under way".to_owned(),
        };
        Window {
            from: page::time(from),
            until: page::time(until),
            note: row.get(2),
            by: row.get(3),
            end,
            is_overdue,
        }
    };
    Ok(rows.iter().map(window).collect())
}

async fn inactive(reader: &Reader, name: &str) -> Result<Vec<(String, String)>, Fault> {
    const QUERY: &str = "SELECT resource, since FROM portal_audit.facility_resources WHERE facility = $1 AND NOT active ORDER BY since DESC, resource LIMIT 200";
    let rows = reader.rows(QUERY, &[&name]).await?;
    Ok(rows.iter().map(|row| (row.get(0), page::time(row.get(1)))).collect())
}

async fn holders(reader: &Reader, name: &str) -> Result<Vec<Holder>, Fault> {
    let query = format!(
        "SELECT a.realization, min(a.since) AS since, count(*), (array_agg(a.resource ORDER BY length(a.resource), a.resource))[1:{HELD}], min(e.caller) FROM portal_audit.facility_allocations a JOIN public.events e ON e.event_uuid = a.event_uuid WHERE a.facility = $1 GROUP BY a.realization ORDER BY 2 DESC LIMIT {HOLDERS}"
    );
    let rows = reader.rows(&query, &[&name]).await?;
    let holder = |row: &Row| {
        let (realization, count): (String, i64) = (row.get(0), row.get(2));
        let resources: Vec<String> = row.get(3);
        let more = usize::try_from(count).unwrap_or(usize::MAX).saturating_sub(resources.len());
        let mut text = resources.join(", ");
        if more > 0 {
            text.push_str(&format!(" and {more} more"));
        }
        // realization.experiment.project, as the portal names them.
        let parts: Vec<&str> = realization.split('.').collect();
        let path = match parts.as_slice() {
            [_, experiment, project] => {
                Some(format!("/experiments/{}/{}", escaped(project), escaped(experiment)))
            }
            _ => None,
        };
        let since = page::time(row.get(1));
        Holder { path, caller: row.get(4), since, count, resources: text, realization }
    };
    Ok(rows.iter().map(holder).collect())
}

/// The last events that used a facility and that the visitor may see.
async fn uses(
    reader: &Reader,
    name: &str,
    at: DateTime<Utc>,
    condition: &str,
) -> Result<Vec<Line>, Fault> {
    let query = format!(
        "SELECT {} FROM {} JOIN (SELECT event_uuid, at FROM portal_audit.facility_uses u WHERE facility = $1 AND at <= $2 AND {condition} ORDER BY at DESC LIMIT {USES}) used ON used.event_uuid = e.event_uuid ORDER BY used.at DESC, e.event_uuid LIMIT {LINES}",
        events::LINE,
        events::FROM
    );
    let rows = reader.rows(&query, &[&name, &at]).await?;
    Ok(rows.iter().map(Line::new).collect())
}

/// The last events of the facility itself.
async fn lines_of(reader: &Reader, name: &str, at: DateTime<Utc>) -> Result<Vec<Line>, Fault> {
    let query = format!(
        "SELECT {} FROM {} WHERE e.subject_type = 'facility' AND e.subject = $1 AND e.timestamp <= $2 ORDER BY e.timestamp DESC, e.event_uuid DESC LIMIT {LINES}",
        events::LINE,
        events::FROM
    );
    let rows = reader.rows(&query, &[&name, &at]).await?;
    Ok(rows.iter().map(Line::new).collect())
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_name_is_one_word_of_a_shell() {
        for (name, word) in [
            ("hill-1.example", "hill-1.example"),
            ("", "''"),
            ("a b", "'a b'"),
            ("$(reboot)", "'$(reboot)'"),
            ("it's", r"'it'\''s'"),
            ("--end", "-- --end"),
        ] {
            assert_eq!(quoted(name), word);
        }
    }
}
