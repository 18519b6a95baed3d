//! Events by filter, page by page, and one event with all that is known of it.

use super::{
    Fault, Visitor, Web,
    find::{self, Wanted},
    page::{self, Frame, escaped, filters},
    proof::{self, Proof},
    reader::Reader,
};
use crate::{
    filter::{Filter, Key, Order},
    show::ShownEvent,
};
use askama::Template;
use axum::{
    Extension,
    extract::{Path, Query, State},
    http::StatusCode,
    response::Response,
};
use chrono::{DateTime, SecondsFormat};
use serde::Deserialize;
use std::sync::Arc;
use tokio_postgres::Row;
use uuid::Uuid;

/// Events of a page.
const PAGE_EVENTS: i64 = 50;
/// Events of one answer of the API at most.
pub(super) const PAGE_EVENTS_MAX: i64 = 500;
/// Of one transaction, so many are shown beside an event.
const STORY_EVENTS: i64 = 200;
/// A longer search is refused unread.
pub(super) const SEARCH_BYTES_MAX: usize = 2_000;

/// Columns of a [`Line`]: those of a [`ShownEvent`] and the sentence's template. A large payload is not read for its sentence.
pub(super) const LINE: &str = "e.event_uuid, e.timestamp, e.event_type, e.caller, e.subject, e.subject_type, e.target, e.success, e.error_message, CASE WHEN pg_column_size(e.payload) < 16384 THEN e.payload ELSE '{}' END AS payload, t.describe";
pub(super) const FROM: &str =
    "public.events e LEFT JOIN portal_audit.event_types t ON t.event_type = e.event_type";

/// An event as one line.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) id: Uuid,
    pub(super) key: Key,
    pub(super) time: String,
    pub(super) event_type: String,
    pub(super) sentence: String,
    pub(super) success: bool,
    pub(super) reason: String,
    pub(super) caller: String,
    /// The page of its subject, if such subjects have one.
    pub(super) subject_path: Option<String>,
    pub(super) subject: String,
}

impl Line {
    pub(super) fn new(row: &Row) -> Self {
        let describe: Option<String> = row.get("describe");
        let event = ShownEvent::read(row);
        let sentence = event.sentence(describe.as_deref().unwrap_or(UNDESCRIBED));
        let subject_path = subject_path(&event);
        let ShownEvent {
            event_uuid,
            timestamp,
            event_type,
            caller,
            subject,
            success,
            error_message,
            ..
        } = event;
        Self {
            id: event_uuid,
            key: Key { timestamp, event_uuid },
            time: page::time(timestamp),
            event_type,
            sentence,
            success,
            reason: error_message.unwrap_or_default(),
            caller,
            subject_path,
            subject,
        }
    }
}

/// The sentence of a type that no mapping declares any more.
const UNDESCRIBED: &str = "{caller} · {subject_type} {subject}";

/// The page of an event's subject. An experiment is named within its project.
fn subject_path(event: &ShownEvent) -> Option<String> {
    let name = escaped(&event.subject);
    match event.subject_type.as_str() {
        _ if event.subject.is_empty() => None,
        "user" => Some(format!("/users/{name}")),
        "organization" => Some(format!("/organizations/{name}")),
        "project" => Some(format!("/projects/{name}")),
        "facility" => Some(format!("/facilities/{name}")),
        "experiment" => {
            let project = event.payload.get("project")?.as_str()?;
            Some(format!("/experiments/{}/{name}", escaped(project)))
        }
        _ => None,
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    q: String,
    /// Older than this one.
    before: Option<String>,
    /// Newer than this one.
    after: Option<String>,
}

#[derive(Template)]
#[template(path = "events.html")]
struct EventsPage {
    frame: Frame,
    q: String,
    /// Why the search is not understood.
    misread: Option<String>,
    lines: Vec<Line>,
    newer: Option<String>,
    older: Option<String>,
    /// How far was looked, where the page is not full for lack of time, and the link that looks on.
    looked_to: Option<(String, &'static str)>,
    presets: [(&'static str, &'static str); 6],
    formats: &'static [(&'static str, &'static str)],
}

const PRESETS: [(&str, &str); 6] = [
    ("Failures", "success:false since:7d"),
    ("Logins", "type:login_*"),
    ("Memberships", "type:org_member_* type:project_member_*"),
    ("Experiments", "subject_type:experiment"),
    ("Facilities", "subject_type:facility"),
    ("Gaps", "type:audit_gap type:audit_diverged type:coverage_changed"),
];

/// What an export may be called and is.
const FORMATS: &[(&str, &str)] = &[
    ("CSV", "csv"),
    ("JSON Lines", "jsonl"),
    ("CloudEvents", "cloudevents"),
    ("OCSF", "ocsf"),
    #[cfg(feature = "parquet")]
    ("Parquet", "parquet"),
];

pub(super) async fn list(
    State(web): State<Arc<Web>>,
    Extension(visitor): Extension<Visitor>,
    Query(asked): Query<Asked>,
) -> Result<Response, Fault> {
    if asked.q.len() > SEARCH_BYTES_MAX {
        return Err(Fault::Asked(format!("A search has {SEARCH_BYTES_MAX} letters at most.")));
    }
    let (filter, misread) = match Filter::from_words(&asked.q) {
        Ok(filter) => (filter, None),
        Err(error) => (Filter::default(), Some(crate::chain::chain(&error))),
    };
    let reader = web.sessions.read(&visitor).await?;
    let frame = Frame::read("Events", &visitor, &reader).await?;
    let (Lines { lines, looked_to }, newer, older) = match &misread {
        Some(_) => (Lines::default(), None, None),
        None => read_page(&reader, &visitor, &filter, &asked).await?,
    };
    drop(reader);
    if misread.is_none() {
        web.looked(&visitor, "/events", &asked.q, lines.len()).await;
    }
    let status = if misread.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    let on = if asked.after.is_some() { "Newer" } else { "Older" };
    let link = |name: &str, key: Key| {
        format!("/events?q={}&{name}={}", escaped(&asked.q), escaped(&said(key)))
    };
    let newer = newer.map(|key| link("after", key));
    let older = older.map(|key| link("before", key));
    let page = EventsPage {
        frame,
        q: asked.q,
        misread,
        lines,
        newer,
        older,
        looked_to: looked_to.map(|key| (page::time(key.timestamp), on)),
        presets: PRESETS,
        formats: FORMATS,
    };
    page::html(status, &page)
}

type Page = (Lines, Option<Key>, Option<Key>);

/// A page of events, newest first, and where the next ones on both sides begin.
async fn read_page(
    reader: &Reader,
    visitor: &Visitor,
    filter: &Filter,
    asked: &Asked,
) -> Result<Page, Fault> {
    let key =
        |text: &str| heard(text).ok_or(Fault::Asked("There is no such page of events.".into()));
    let (order, beyond) = match (&asked.before, &asked.after) {
        (_, Some(after)) => (Order::OldestFirst, Some(key(after)?)),
        (Some(before), None) => (Order::NewestFirst, Some(key(before)?)),
        (None, None) => (Order::NewestFirst, None),
    };
    // One more tells whether there is another page.
    let wanted = Wanted { filter, order, beyond, limit: PAGE_EVENTS + 1 };
    let Lines { mut lines, looked_to } = read_lines(reader, visitor, &wanted).await?;
    let page = usize::try_from(PAGE_EVENTS).unwrap_or(usize::MAX);
    let has_more = lines.len() > page;
    lines.truncate(page);
    let is_forward = order == Order::OldestFirst;
    if is_forward {
        lines.reverse();
    }
    // A page without events still lies somewhere.
    let newest = lines.first().map(|line| line.key).or(beyond);
    let oldest = lines.last().map(|line| line.key).or(beyond);
    let newer = newest.filter(|_| if is_forward { has_more } else { beyond.is_some() });
    let older = oldest.filter(|_| is_forward || has_more);
    let (newer, older) =
        if is_forward { (looked_to.or(newer), older) } else { (newer, looked_to.or(older)) };
    Ok((Lines { lines, looked_to }, newer, older))
}

/// Events of a page, and how far was looked for them.
#[derive(Default)]
pub(super) struct Lines {
    pub(super) lines: Vec<Line>,
    pub(super) looked_to: Option<Key>,
}

pub(super) async fn read_lines(
    reader: &Reader,
    visitor: &Visitor,
    wanted: &Wanted<'_>,
) -> Result<Lines, Fault> {
    let found = find::rows(reader, visitor, wanted).await?;
    let lines = found.rows.iter().map(Line::new).collect();
    Ok(Lines { lines, looked_to: found.looked_to })
}

pub(super) fn said(key: Key) -> String {
    let at = key.timestamp.to_rfc3339_opts(SecondsFormat::Micros, true);
    format!("{at}_{}", key.event_uuid)
}

pub(super) fn heard(text: &str) -> Option<Key> {
    let (at, id) = text.split_once('_')?;
    let timestamp = DateTime::parse_from_rfc3339(at).ok()?.to_utc();
    Some(Key { timestamp, event_uuid: id.parse().ok()? })
}

#[derive(Template)]
#[template(path = "event.html")]
struct EventPage {
    frame: Frame,
    line: Line,
    exact: String,
    target: String,
    subject_type: String,
    payload: String,
    source: String,
    lsn: String,
    xid: String,
    how_known: &'static str,
    rule: String,
    flags: Vec<String>,
    proof: Option<Proof>,
    /// What this was done because of.
    because: Option<Line>,
    story: Vec<Line>,
}

pub(super) async fn detail(
    State(web): State<Arc<Web>>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    let id: Uuid = id.parse().map_err(|_not_one| Fault::Missing)?;
    let reader = web.sessions.read(&visitor).await?;
    let query = format!(
        "SELECT {LINE}, jsonb_pretty(e.payload - '_audit') AS pretty, e.payload -> '_audit' AS audit FROM {FROM} WHERE e.event_uuid = $1"
    );
    let row = reader.row(&query, &[&id]).await?.ok_or(Fault::Missing)?;
    let frame = Frame::read("Events", &visitor, &reader).await?;
    let audit: serde_json::Value = row.get::<_, Option<_>>("audit").unwrap_or_default();
    let text = |key: &str| match audit.get(key) {
        None => String::new(),
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let line = Line::new(&row);
    let known = ["source", "lsn", "xid", "n", "caller_from", "rule", "cause"];
    let flags = audit.as_object().into_iter().flatten();
    let flags = flags.filter(|(key, _)| !known.contains(&key.as_str()));
    let page = EventPage {
        exact: line.key.timestamp.to_rfc3339_opts(SecondsFormat::Micros, true),
        target: row.get::<_, Option<String>>("target").unwrap_or_default(),
        subject_type: row.get("subject_type"),
        payload: row.get::<_, Option<String>>("pretty").unwrap_or_default(),
        source: text("source"),
        lsn: text("lsn"),
        xid: text("xid"),
        how_known: how_known(&text("caller_from")),
        flags: flags.map(|(key, value)| format!("{key}: {value}")).collect(),
        rule: text("rule"),
        proof: if visitor.sees_all { proof::of(&reader, id).await? } else { None },
        because: because(&reader, &text("cause")).await?,
        story: story(&reader, &line, &text("source"), &text("xid")).await?,
        frame,
        line,
    };
    drop(reader);
    web.looked(&visitor, "/events/ID", &id.to_string(), 1).await;
    page::html(StatusCode::OK, &page)
}

/// The event that caused another one, such as the deletion of a project that took its members along.
async fn because(reader: &Reader, cause: &str) -> Result<Option<Line>, Fault> {
    let Ok(cause) = cause.parse::<Uuid>() else { return Ok(None) };
    let query = format!("SELECT {LINE} FROM {FROM} WHERE e.event_uuid = $1");
    Ok(reader.row(&query, &[&cause]).await?.as_ref().map(Line::new))
}

/// The other events of its transaction, which all have its commit's time.
async fn story(reader: &Reader, line: &Line, source: &str, xid: &str) -> Result<Vec<Line>, Fault> {
    if xid.is_empty() {
        return Ok(Vec::new());
    }
    let query = format!(
        "SELECT {LINE} FROM {FROM} WHERE e.timestamp = $1 AND e.payload #>> '{{_audit,source}}' = $2 AND e.payload #>> '{{_audit,xid}}' = $3 AND e.event_uuid <> $4 ORDER BY e.event_uuid LIMIT {STORY_EVENTS}"
    );
    let rows = reader.rows(&query, &[&line.key.timestamp, &source, &xid, &line.id]).await?;
    Ok(rows.iter().map(Line::new).collect())
}

/// What `caller_from` means, in words.
fn how_known(caller_from: &str) -> &'static str {
    match caller_from {
        "row" => "a column of the changed row names the caller",
        "transaction" => "another row of the same transaction names the caller",
        "context" => {
            "a message in the transaction named the caller: evidence, for any database role can send one"
        }
        "session" => "the session of this database that did it",
        "none" => "nothing in the log names the caller",
        _ => "not recorded",
    }
}
