//! Facilities as people read them.

use super::{Detail, Facilities, Facility, Resource, Span};
use crate::{
    map::State,
    show::{count, visible},
};
use chrono::{DateTime, TimeDelta, Utc};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// The worst first: what somebody must look at stands on top.
#[must_use]
pub fn rank(state: State) -> u8 {
    match state {
        State::Down => 0,
        State::Degraded => 1,
        State::Unknown => 2,
        State::Maintenance => 3,
        State::Planned => 4,
        State::Up => 5,
    }
}

/// The escape sequence of a state's colour; sign and word tell it without.
fn colour(state: State) -> &'static str {
    match state {
        State::Up => "\x1b[32m",
        State::Planned => "\x1b[35m",
        State::Maintenance => "\x1b[34m",
        State::Degraded => "\x1b[33m",
        State::Down => "\x1b[1;31m",
        State::Unknown => "\x1b[2m",
    }
}

fn coloured(text: &str, state: State, is_coloured: bool) -> String {
    if is_coloured { format!("{}{text}\x1b[0m", colour(state)) } else { text.to_owned() }
}

fn time(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%MZ").to_string()
}

fn maybe(at: Option<DateTime<Utc>>) -> String {
    at.map_or("–".to_owned(), time)
}

/// A span in its two largest units.
#[must_use]
pub fn span(length: TimeDelta) -> String {
    let (days, hours, minutes) =
        (length.num_days(), length.num_hours() % 24, length.num_minutes() % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes} min"),
        (0, _) => format!("{hours} h {minutes:02} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// The table of `facility list`.
#[must_use]
pub fn list(all: &Facilities, width: Option<usize>, is_coloured: bool) -> String {
    if all.facilities.is_empty() {
        return format!(
            "The portal had no facility at {}, as far as events tell.{}",
            time(all.at),
            behind(all.events_behind)
        );
    }
    let mut sorted: Vec<&Facility> = all.facilities.iter().collect();
    sorted.sort_by_key(|facility| rank(facility.state));
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["STATE", "FACILITY", "SINCE", "ACTIVE", "ALLOCATED", "WHY"]);
    if let Some(width) = width.and_then(|width| u16::try_from(width).ok()) {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    for facility in &sorted {
        table.add_row([
            cell(facility.state),
            visible(&facility.name).into_owned(),
            maybe(facility.since),
            format!("{}/{}", facility.resources_active, facility.resources_total),
            facility.allocated.to_string(),
            visible(&why(facility)).into_owned(),
        ]);
    }
    for column in [3, 4] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut states = sorted.iter().map(|facility| facility.state);
    let paint = |line: &str| {
        let is_row = State::ALL.iter().any(|state| line.trim_start().starts_with(&cell(*state)));
        match states.next_if(is_row) {
            Some(state) => {
                line.replacen(&cell(state), &coloured(&cell(state), state, is_coloured), 1)
            }
            None => line.to_owned(),
        }
    };
    let text = table.to_string();
    let lines: Vec<String> = text.lines().map(str::trim_end).map(paint).collect();
    format!("{}\n\n{}{}", lines.join("\n"), tally(&sorted), behind(all.events_behind))
}

/// An iterator that is asked only for lines that begin a row.
trait NextIf: Iterator {
    fn next_if(&mut self, is_asked: bool) -> Option<Self::Item> {
        if is_asked { self.next() } else { None }
    }
}

impl<I: Iterator> NextIf for I {}

fn cell(state: State) -> String {
    format!("{} {}", state.sign(), state.word())
}

/// What stands beside the state, too.
fn why(facility: &Facility) -> String {
    let planned = facility.planned_from.filter(|_| facility.state != State::Planned);
    match planned {
        Some(from) => format!("{}; maintenance is planned from {}", facility.why, time(from)),
        None => facility.why.clone(),
    }
}

/// `6 facilities: 1 down, 5 up`.
fn tally(facilities: &[&Facility]) -> String {
    let mut states = State::ALL;
    states.sort_by_key(|state| rank(*state));
    let parts: Vec<String> = states
        .iter()
        .map(|state| (facilities.iter().filter(|own| own.state == *state).count(), state.word()))
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    let noun = if facilities.len() == 1 { "facility" } else { "facilities" };
    format!("{} {noun}: {}", facilities.len(), parts.join(", "))
}

fn behind(events: i64) -> String {
    match u64::try_from(events) {
        Ok(0) | Err(_) => String::new(),
        Ok(events) => format!("\n{} events are not counted yet: ask again", count(events)),
    }
}

/// One facility, for a terminal.
#[must_use]
pub fn detail(detail: &Detail, days: i32, is_coloured: bool) -> String {
    let Detail { facility, history, inactive, allocations } = detail;
    let mut lines = vec![
        format!(
            "{}  {}  since {}",
            visible(&facility.name),
            coloured(&cell(facility.state), facility.state, is_coloured),
            maybe(facility.since)
        ),
        format!("  {}", visible(&facility.why)),
        String::new(),
    ];
    lines.extend(
        facts(facility).into_iter().map(|(key, value)| format!("  {key:<14} {}", visible(&value))),
    );
    lines.push(format!("\nSTATES OF THE LAST {days} DAYS"));
    lines.extend(history.iter().rev().map(|own| span_line(own, is_coloured)));
    lines.push(format!("  {}", shares(history)));
    if !inactive.is_empty() {
        lines.push("\nNOT ACTIVE".to_owned());
        lines.extend(
            inactive
                .iter()
                .map(|own| format!("  {:<14} since {}", visible(&own.resource), time(own.since))),
        );
    }
    match allocations {
        Some(allocations) if !allocations.is_empty() => {
            lines.push("\nALLOCATED NOW".to_owned());
            lines.extend(allocations.iter().map(allocation));
        }
        Some(_) => {}
        None => lines.push(
            "\nThis login may not see who holds what: GRANT portal_audit_reader TO it".to_owned(),
        ),
    }
    lines.join("\n")
}

fn allocation(own: &Resource) -> String {
    let realization = own.realization.as_deref().unwrap_or_default();
    format!("  {:<14} {} since {}", visible(&own.resource), visible(realization), time(own.since))
}

fn span_line(own: &Span, is_coloured: bool) -> String {
    let word = format!("{:<13}", cell(own.state));
    format!(
        "  {}  {}  {:>12}  {}",
        coloured(&word, own.state, is_coloured),
        time(own.from),
        span(own.until - own.from),
        visible(&own.why)
    )
}

/// `up 97.2 %, maintenance 2.8 %` of the time that is told.
#[must_use]
pub fn shares(history: &[Span]) -> String {
    let length = |state: Option<State>| -> i64 {
        let own = history.iter().filter(|own| state.is_none_or(|state| own.state == state));
        own.map(|own| (own.until - own.from).num_seconds()).sum()
    };
    let all = length(None).max(1);
    let parts = State::ALL.iter().filter_map(|state| {
        let tenths = length(Some(*state)) * 1_000 / all;
        (length(Some(*state)) > 0)
            .then(|| format!("{} {}.{} %", state.word(), tenths / 10, tenths % 10))
    });
    parts.collect::<Vec<_>>().join(", ")
}

fn facts(facility: &Facility) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        (
            "resources",
            format!("{} active of {}", facility.resources_active, facility.resources_total),
        ),
        ("allocated", facility.allocated.to_string()),
        (
            "materialized",
            format!("{} succeeded, {} failed lately", facility.succeeded, facility.failed),
        ),
    ];
    let note = facility.note.as_deref().unwrap_or_default();
    if let Some(from) = facility.maintenance_from {
        let late = if facility.is_overdue { ", overdue" } else { "" };
        let end = maybe(facility.expected_end);
        facts.push(("maintenance", format!("{} to {end}{late}: {note}", time(from))));
    }
    if let Some(from) = facility.planned_from {
        facts.push((
            "planned",
            format!("{} to {}: {note}", time(from), maybe(facility.planned_until)),
        ));
    }
    facts.push((
        "address",
        match (facility.reachable, facility.rtt_ms) {
            (Some(true), Some(rtt)) => format!("answers in {rtt:.0} ms"),
            (Some(true), None) => "answers".to_owned(),
            (Some(false), _) => "does not answer".to_owned(),
            (None, _) => "not tried lately".to_owned(),
        },
    ));
    facts.push(("last seen", maybe(facility.last_seen)));
    if let Some(place) = &facility.place {
        let beside = [place.organization.as_deref(), place.url.as_deref()];
        let beside: Vec<&str> = beside.into_iter().flatten().collect();
        let at = format!("{:.2}, {:.2}", place.latitude, place.longitude);
        facts.push(("place", format!("{at}  {}", beside.join("  ")).trim_end().to_owned()));
    }
    facts
}
