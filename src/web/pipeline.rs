//! Each source: how far it is, what is missing, what it does not cover. From the audit database; the source itself is not asked.

use super::{
    Fault, Visitor, Web,
    page::{self, Frame, filters},
    reader::Reader,
};
use crate::show;
use askama::Template;
use axum::{Extension, extract::State, http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use std::sync::Arc;
use tokio_postgres::Row;

/// A source whose progress is older than this is not being followed.
const QUIET_SECONDS: f64 = 30.0;

struct SourceState {
    name: String,
    state: &'static str,
    is_well: bool,
    complete_to: String,
    lag: String,
    last_commit: String,
    lsn: String,
    slot: String,
    transactions: String,
    changes: String,
    events: String,
}

struct Gap {
    source: String,
    reason: String,
    from: String,
    to: String,
    event: Option<String>,
}

struct Hole {
    source: String,
    object: String,
    reason: String,
    fix: String,
}

#[derive(Template)]
#[template(path = "pipeline.html")]
struct PipelinePage {
    frame: Frame,
    sources: Vec<SourceState>,
    gaps: Vec<Gap>,
    holes: Vec<Hole>,
    unmapped: Vec<(String, String, String, String)>,
}

pub(super) async fn pipeline(
    State(web): State<Arc<Web>>,
    Extension(visitor): Extension<Visitor>,
) -> Result<Response, Fault> {
    if !visitor.sees_all {
        return Err(Fault::NotYours);
    }
    let reader = web.sessions.read(&visitor).await?;
    let page = PipelinePage {
        frame: Frame::read("Pipeline", &visitor, &reader).await?,
        sources: sources(&reader).await?,
        gaps: gaps(&reader).await?,
        holes: holes(&reader).await?,
        unmapped: unmapped(&reader).await?,
    };
    page::html(StatusCode::OK, &page)
}

fn time_or(at: Option<DateTime<Utc>>, otherwise: &str) -> String {
    at.map_or(otherwise.to_owned(), page::time)
}

async fn sources(reader: &Reader) -> Result<Vec<SourceState>, Fault> {
    const QUERY: &str = "SELECT source, state, complete_to, last_commit, end_lsn::text, slot, transactions, changes, events, extract(epoch FROM now() - complete_to)::float8, extract(epoch FROM now() - updated_at)::float8 FROM portal_audit.progress ORDER BY source";
    let rows = reader.rows(QUERY, &[]).await?;
    let read = |row: &Row| {
        let count = |column: usize| show::count(row.get::<_, i64>(column).unsigned_abs());
        let is_quiet = row.get::<_, f64>(10) > QUIET_SECONDS;
        let (state, is_well) = match (row.get::<_, &str>(1), is_quiet) {
            ("creating", _) => ("making its slot and first snapshot", true),
            (_, true) => ("not being followed", false),
            (_, false) => ("following", true),
        };
        SourceState {
            name: row.get(0),
            state,
            is_well,
            complete_to: time_or(row.get(2), "nothing yet"),
            lag: row
                .get::<_, Option<f64>>(9)
                .map_or(String::new(), |lag| show::seconds(lag.max(0.0))),
            last_commit: time_or(row.get(3), "none yet"),
            lsn: row.get(4),
            slot: row.get(5),
            transactions: count(6),
            changes: count(7),
            events: count(8),
        }
    };
    Ok(rows.iter().map(read).collect())
}

async fn gaps(reader: &Reader) -> Result<Vec<Gap>, Fault> {
    const QUERY: &str = "SELECT source, reason, from_time, to_time, event_uuid::text FROM portal_audit.gaps ORDER BY gap DESC LIMIT 100";
    let rows = reader.rows(QUERY, &[]).await?;
    let read = |row: &Row| Gap {
        source: row.get(0),
        reason: row.get::<_, String>(1).replace('_', " "),
        from: time_or(row.get(2), "?"),
        to: time_or(row.get(3), "still open"),
        event: row.get(4),
    };
    Ok(rows.iter().map(read).collect())
}

async fn holes(reader: &Reader) -> Result<Vec<Hole>, Fault> {
    const QUERY: &str = "SELECT c.source, coalesce(h -> 'object' #>> '{}', h ->> 'object'), h ->> 'reason', h ->> 'fix' FROM portal_audit.coverage c, jsonb_array_elements(c.holes) h ORDER BY 1, 2 LIMIT 500";
    let rows = reader.rows(QUERY, &[]).await?;
    let text = |row: &Row, column| row.get::<_, Option<String>>(column).unwrap_or_default();
    let read = |row: &Row| Hole {
        source: text(row, 0),
        object: text(row, 1),
        reason: text(row, 2),
        fix: text(row, 3),
    };
    Ok(rows.iter().map(read).collect())
}

async fn unmapped(reader: &Reader) -> Result<Vec<(String, String, String, String)>, Fault> {
    const QUERY: &str = "SELECT source, relation, operation, changes FROM portal_audit.unmapped ORDER BY changes DESC LIMIT 500";
    let rows = reader.rows(QUERY, &[]).await?;
    let read = |row: &Row| {
        let changes = show::count(row.get::<_, i64>(3).unsigned_abs());
        (row.get(0), row.get(1), row.get(2), changes)
    };
    Ok(rows.iter().map(read).collect())
}
