//! `/api/v1`: what the pages show, as JSON, for the portal's own front end. The same roles and row policies; `openapi.json` describes it.

use super::{
    Fault, Visitor, Web,
    events::{self, PAGE_EVENTS_MAX},
    facilities,
    find::{self, Found, Wanted},
    overview,
    reader::Reader,
    unchanged::Text,
};
use crate::filter::{Filter, Order};
use axum::{
    Extension, Router,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use tokio_postgres::Row;
use uuid::Uuid;

const OPENAPI: &str = include_str!("openapi.json");
const OPENAPI_KEPT: Duration = Duration::from_secs(3_600);
const PAGE_EVENTS: i64 = 50;

pub(super) fn routes() -> Router<Arc<Web>> {
    Router::new()
        .route("/openapi.json", get(openapi))
        .route("/stats", get(stats))
        .route("/events", get(list))
        .route("/events/{id}", get(one))
        .route("/facilities", get(all_facilities))
        .route("/facilities/{name}", get(one_facility))
        .route("/sources", get(sources))
        .fallback(async || failure(&Fault::Missing))
}

/// The description changes with the program alone.
async fn openapi(headers: HeaderMap) -> Response {
    Text::new("application/json", OPENAPI.to_owned()).answer(&headers, OPENAPI_KEPT)
}

fn json_text(text: String) -> Response {
    let kind = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// A fault as RFC 9457 has it.
fn failure(fault: &Fault) -> Response {
    let status = fault.status();
    let problem = serde_json::json!({ "status": status.as_u16(), "title": status.canonical_reason(), "detail": fault.to_string() });
    let mut response = (status, problem.to_string()).into_response();
    let kind = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn answer<T: Serialize>(found: Result<T, Fault>) -> Response {
    match found.map(|found| serde_json::to_string(&found)) {
        Ok(Ok(text)) => json_text(text),
        Ok(Err(_unwritten)) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Err(fault) => failure(&fault),
    }
}

/// A row of `events`, with its sentence.
#[derive(Serialize)]
struct Event {
    event_uuid: String,
    timestamp: String,
    event_type: String,
    caller: String,
    subject: String,
    subject_type: String,
    target: Option<String>,
    success: bool,
    error_message: Option<String>,
    payload: serde_json::Value,
    description: String,
}

impl Event {
    fn new(row: &Row) -> Self {
        let at: DateTime<Utc> = row.get("timestamp");
        let line = events::Line::new(row);
        Self {
            event_uuid: line.id.to_string(),
            timestamp: at.to_rfc3339_opts(SecondsFormat::Micros, true),
            event_type: line.event_type,
            caller: line.caller,
            subject: line.subject,
            subject_type: row.get("subject_type"),
            target: row.get("target"),
            success: line.success,
            error_message: row.get("error_message"),
            payload: row.get("whole"),
            description: line.sentence,
        }
    }
}

/// Up to when each source's record is complete.
#[derive(Serialize)]
struct Complete {
    source: String,
    state: String,
    complete_to: Option<String>,
}

async fn complete(reader: &Reader) -> Result<Vec<Complete>, Fault> {
    const QUERY: &str =
        "SELECT source, state, complete_to FROM portal_audit.progress ORDER BY source";
    let rows = reader.rows(QUERY, &[]).await?;
    let read = |row: &Row| Complete {
        source: row.get(0),
        state: row.get(1),
        complete_to: row
            .get::<_, Option<DateTime<Utc>>>(2)
            .map(|at| at.to_rfc3339_opts(SecondsFormat::Micros, true)),
    };
    Ok(rows.iter().map(read).collect())
}

#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    q: String,
    before: Option<String>,
    limit: Option<i64>,
}

#[derive(Serialize)]
struct Events {
    events: Vec<Event>,
    /// The `before` of the next page; null: there is none. A page that is not full may have one: then nothing behind it was looked at yet.
    next: Option<String>,
    complete: Vec<Complete>,
}

async fn list(
    State(web): State<Arc<Web>>,
    Extension(visitor): Extension<Visitor>,
    Query(listed): Query<Listed>,
) -> Response {
    answer(list_of(&web, &visitor, listed).await)
}

async fn list_of(web: &Web, visitor: &Visitor, listed: Listed) -> Result<Events, Fault> {
    let limit = listed.limit.unwrap_or(PAGE_EVENTS);
    if !(1..=PAGE_EVENTS_MAX).contains(&limit) {
        return Err(Fault::Asked(format!("limit is 1 to {PAGE_EVENTS_MAX}.")));
    }
    let filter = Filter::from_words(&listed.q);
    let filter = filter.map_err(|error| Fault::Asked(crate::chain::chain(&error)))?;
    let beyond = listed.before.as_deref().map(|before| {
        events::heard(before).ok_or(Fault::Asked("before is what next said.".into()))
    });
    let order = Order::NewestFirst;
    let wanted = Wanted { filter: &filter, order, beyond: beyond.transpose()?, limit: limit + 1 };
    let reader = web.sessions.read(visitor).await?;
    let Found { mut rows, looked_to } = find::rows(&reader, visitor, &wanted).await?;
    let page = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = rows.len() > page;
    rows.truncate(page);
    let last = rows.last().filter(|_| has_more);
    let next = last.map(|row| events::Line::new(row).key).or(looked_to).map(events::said);
    let complete = complete(&reader).await?;
    drop(reader);
    web.looked(visitor, "/events", &listed.q, rows.len()).await;
    Ok(Events { events: rows.iter().map(Event::new).collect(), next, complete })
}

async fn one(
    State(web): State<Arc<Web>>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
) -> Response {
    let found = async {
        let id: Uuid = id.parse().map_err(|_not_one| Fault::Missing)?;
        let reader = web.sessions.read(&visitor).await?;
        let query = format!(
            "SELECT {}, e.payload AS whole FROM {} WHERE e.event_uuid = $1",
            events::LINE,
            events::FROM
        );
        let row = reader.row(&query, &[&id]).await?.ok_or(Fault::Missing)?;
        drop(reader);
        web.looked(&visitor, "/events/ID", &id.to_string(), 1).await;
        Ok(Event::new(&row))
    };
    answer(found.await)
}

async fn sources(State(web): State<Arc<Web>>, Extension(visitor): Extension<Visitor>) -> Response {
    let found = async { complete(&web.sessions.read(&visitor).await?).await };
    answer(found.await)
}

/// What was found, and how far the record is complete.
#[derive(Serialize)]
struct Told<T> {
    #[serde(flatten)]
    found: T,
    complete: Vec<Complete>,
}

/// Days of a facility's history.
const HISTORY_DAYS: u16 = 90;

async fn all_facilities(
    State(web): State<Arc<Web>>,
    Extension(visitor): Extension<Visitor>,
    Query(At { at }): Query<At>,
) -> Response {
    let found = async {
        let reader = web.sessions.read(&visitor).await?;
        let (at, _) = facilities::time_of(&reader, at.as_deref()).await?;
        let found = facilities::read_all(&reader, at).await?;
        Ok(Told { found, complete: complete(&reader).await? })
    };
    answer(found.await)
}

async fn one_facility(
    State(web): State<Arc<Web>>,
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
    Query(At { at }): Query<At>,
) -> Response {
    let found = async {
        let reader = web.sessions.read(&visitor).await?;
        let (at, _) = facilities::time_of(&reader, at.as_deref()).await?;
        let found = facilities::read_one(&reader, &name, at, HISTORY_DAYS).await?;
        Ok(Told { found, complete: complete(&reader).await? })
    };
    answer(found.await)
}

#[derive(Deserialize)]
struct At {
    at: Option<String>,
}

async fn stats(
    State(web): State<Arc<Web>>,
    Extension(visitor): Extension<Visitor>,
    Query(At { at }): Query<At>,
) -> Response {
    let found = async {
        if !visitor.sees_all {
            return Err(Fault::NotYours);
        }
        let reader = web.sessions.read(&visitor).await?;
        let now = reader.row("SELECT now()", &[]).await?.ok_or(Fault::Away)?.get(0);
        let at = match at.as_deref() {
            None => now,
            Some(text) => moment(text)?.min(now),
        };
        let counted = web.numbers.at(&reader, at, now).await?;
        let said = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Micros, true);
        Ok(serde_json::json!({
            // Of the present they are kept for a while.
            "at": said(if at == now { counted.counted } else { at }),
            "counted": said(counted.counted),
            "numbers": counted.numbers,
            "complete": complete(&reader).await?,
        }))
    };
    answer(found.await)
}

/// An instant, or the end of a date.
pub(super) fn moment(text: &str) -> Result<DateTime<Utc>, Fault> {
    let instant = DateTime::parse_from_rfc3339(text).ok().map(|at| at.to_utc());
    let date = || text.parse::<NaiveDate>().ok().map(overview::end_of);
    instant.or_else(date).ok_or(Fault::Asked("at is 2026-04-23 or 2026-04-23T20:50:00Z.".into()))
}
