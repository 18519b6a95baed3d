//! Changes of facilities as feeds: Atom (RFC 4287) and JSON Feed 1.1, newest first. An entry keeps its id, so a reader shows it once.

use super::super::{
    Fault, Visitor, Web,
    reader::Reader,
    unchanged::{FEED_KEPT, Text},
};
use crate::{facility::Span, map, show::visible};
use askama::Template;
use axum::{Extension, extract::State, http::HeaderMap, response::Response};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use tokio_postgres::Row;

/// How far back a feed goes.
const DAYS: i64 = 14;
const ENTRIES_MAX: usize = 200;

/// One change.
struct Entry {
    id: String,
    at: DateTime<Utc>,
    time: String,
    title: String,
    text: String,
    path: String,
    /// A state, or `planned`, `cancelled` or `ended` for what an operator did.
    kind: &'static str,
}

impl Entry {
    fn new(name: &str, at: DateTime<Utc>, kind: &'static str, title: &str, text: &str) -> Self {
        let time = at.to_rfc3339_opts(SecondsFormat::Micros, true);
        Self {
            id: urn(&[name, &time, kind, title]),
            title: format!("{}: {title}", visible(name)),
            text: visible(text).into_owned(),
            path: map::href(name),
            at,
            time,
            kind,
        }
    }
}

/// A name for ever (RFC 4122's URN): a UUID of version 8 made from a hash over the parts.
fn urn(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut bytes = [0; 16];
    for (byte, from) in bytes.iter_mut().zip(hash.finalize()) {
        *byte = from;
    }
    uuid::Builder::from_custom_bytes(bytes).into_uuid().urn().to_string()
}

/// A change of state; the first span of a range is no change, unless it begins within.
fn change(name: &str, span: &Span, from: DateTime<Utc>) -> Option<Entry> {
    let word = span.state.word();
    (span.from > from).then(|| Entry::new(name, span.from, word, word, &span.why))
}

async fn announced(reader: &Reader, from: DateTime<Utc>) -> Result<Vec<Entry>, Fault> {
    const QUERY: &str = "SELECT facility, announced_at, from_time, until, note, announced_by, ended_at, ended_by FROM portal_audit.maintenance WHERE announced_at > $1 OR ended_at > $1";
    let mut entries = Vec::new();
    for row in reader.rows(QUERY, &[&from]).await? {
        announce(&row, from, &mut entries);
    }
    Ok(entries)
}

fn announce(row: &Row, since: DateTime<Utc>, entries: &mut Vec<Entry>) {
    let (name, note): (String, String) = (row.get(0), row.get(4));
    let (announced, from, until): (DateTime<Utc>, DateTime<Utc>, DateTime<Utc>) =
        (row.get(1), row.get(2), row.get(3));
    let span =
        format!("{} until {}", from.format("%Y-%m-%d %H:%M"), until.format("%Y-%m-%d %H:%M"));
    if announced > since {
        let title = format!("maintenance from {span} UTC");
        let by: String = row.get(5);
        let text = format!("{note} (announced by {by})");
        entries.push(Entry::new(&name, announced, "announced", &title, &text));
    }
    let ended: Option<DateTime<Utc>> = row.get(6);
    if let Some(ended) = ended.filter(|ended| *ended > since) {
        let kind = if ended < from { "cancelled" } else { "ended" };
        let by: String = row.get::<_, Option<String>>(7).unwrap_or_default();
        let text = format!("{note} (planned from {span} UTC; {kind} by {by})");
        entries.push(Entry::new(&name, ended, kind, &format!("maintenance {kind}"), &text));
    }
}

/// The newest changes first, and which audit database told of them.
async fn entries(web: &Web, visitor: &Visitor) -> Result<(String, Vec<Entry>), Fault> {
    const HISTORIES: &str = "SELECT h.state, h.from_time, h.until, h.why, f.facility FROM portal_audit.facility_names() f CROSS JOIN LATERAL portal_audit.facility_history(f.facility, $1, $2) h";
    const ORIGIN: &str = "SELECT now(), current_database() || ' ' || (SELECT oid FROM pg_database WHERE datname = current_database()) || ' ' || coalesce((SELECT min(at) FROM portal_audit.facility_points)::text, '')";
    let reader = web.sessions.read(visitor).await?;
    let row = reader.row(ORIGIN, &[]).await?.ok_or(Fault::Away)?;
    let (now, origin): (DateTime<Utc>, String) = (row.get(0), row.get(1));
    let from = now - TimeDelta::days(DAYS);
    let mut entries = announced(&reader, from).await?;
    let rows = reader.rows(HISTORIES, &[&from, &now]).await?;
    entries.extend(
        rows.iter().filter_map(|row| change(row.get("facility"), &Span::of_row(row), from)),
    );
    entries.sort_by(|one, other| other.at.cmp(&one.at).then_with(|| one.id.cmp(&other.id)));
    entries.truncate(ENTRIES_MAX);
    Ok((urn(&["facilities", &origin]), entries))
}

#[derive(Template)]
#[template(path = "facilities.xml")]
struct Atom {
    id: String,
    updated: String,
    entries: Vec<Entry>,
}

pub(in crate::web) async fn atom(
    State(web): State<Arc<Web>>,
    Extension(visitor): Extension<Visitor>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let feed = web.feeds.of(&visitor, "atom", atom_text(&web, &visitor)).await?;
    Ok(feed.answer(&headers, FEED_KEPT))
}

async fn atom_text(web: &Web, visitor: &Visitor) -> Result<Text, Fault> {
    let (id, entries) = entries(web, visitor).await?;
    // Before the first change, a time that stays.
    let updated = entries
        .first()
        .map_or_else(|| "1970-01-01T00:00:00Z".to_owned(), |entry| entry.time.clone());
    let text = Atom { id, updated, entries }.render()?;
    Ok(Text::new("application/atom+xml; charset=utf-8", text))
}

pub(in crate::web) async fn json_feed(
    State(web): State<Arc<Web>>,
    Extension(visitor): Extension<Visitor>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let feed = web.feeds.of(&visitor, "json", json_text(&web, &visitor)).await?;
    Ok(feed.answer(&headers, FEED_KEPT))
}

async fn json_text(web: &Web, visitor: &Visitor) -> Result<Text, Fault> {
    let (_, entries) = entries(web, visitor).await?;
    let items = entries.iter().map(|entry| {
        json!({
            "id": entry.id, "url": entry.path, "title": entry.title, "content_text": entry.text,
            "date_published": entry.time, "tags": [entry.kind],
        })
    });
    let feed = json!({
        "version": "https://jsonfeed.org/version/1.1",
        "title": "Facilities: changes of state and maintenance",
        "home_page_url": "/facilities",
        "feed_url": "/facilities.json",
        "items": items.collect::<Vec<_>>(),
    });
    Ok(Text::new("application/feed+json; charset=utf-8", feed.to_string()))
}
