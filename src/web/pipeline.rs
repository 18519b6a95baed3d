//! Each source: how far it is, what is missing, what it does not cover, and whether the record is signed. From the audit database, and from what the process that follows the sources saw of their slots; no source is asked.

use super::{
    Fault, Visitor, Web,
    page::{self, Frame, filters},
    reader::Reader,
};
use crate::{
    config::CHECKPOINT_INTERVALS_MAX,
    metrics::{KeptLog, Metrics, State as Following},
    note::Checkpoint,
    show,
};
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
    log: Option<Log>,
    transactions: String,
    changes: String,
    events: String,
}

/// What a slot keeps on its source's disk.
struct Log {
    told: String,
    bytes: u64,
    budget: u64,
    is_well: bool,
}

impl Log {
    fn new(kept: KeptLog) -> Option<Self> {
        let KeptLog { budget, bytes, safe, .. } = kept;
        if !kept.is_seen {
            return None;
        }
        let Some(bytes) = bytes else {
            let told = "there is no slot: what the portal does now is lost".to_owned();
            return Some(Self { told, bytes: 0, budget, is_well: false });
        };
        let percent = u128::from(bytes) * 100 / u128::from(budget.max(1));
        let mut told =
            format!("{} of the {} allowed ({percent} %)", show::bytes(bytes), show::bytes(budget));
        if let Some(safe) = safe {
            told.push_str(&format!("; the server gives it up {} later", show::bytes(safe)));
        }
        Some(Self { told, bytes, budget, is_well: percent < 50 })
    }
}

/// Whether and how far the record is signed.
struct Proof {
    /// The last checkpoint.
    last: String,
    /// Where checkpoints are held, and how long ago they covered every event there.
    places: Vec<(&'static str, String, bool)>,
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
    proof: Proof,
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
        sources: sources(&reader, &web.metrics).await?,
        proof: proof(&reader, &web.metrics).await?,
        gaps: gaps(&reader).await?,
        holes: holes(&reader).await?,
        unmapped: unmapped(&reader).await?,
    };
    page::html(StatusCode::OK, &page)
}

fn time_or(at: Option<DateTime<Utc>>, otherwise: &str) -> String {
    at.map_or(otherwise.to_owned(), page::time)
}

/// The state of a source, and whether that is well: as this process knows it, else as its progress tells.
fn state(following: Option<Following>, stored: &str, is_quiet: bool) -> (&'static str, bool) {
    match (following, stored, is_quiet) {
        (Some(Following::Stopped), ..) => ("stopped: the sidecar's log says why", false),
        (Some(Following::Waiting), ..) => ("cannot be followed now: it is tried again", false),
        (_, "creating", _) => ("making its slot and first snapshot", true),
        (Some(Following::Starting), ..) => ("starting", true),
        (_, _, true) => ("not being followed", false),
        (_, _, false) => ("following", true),
    }
}

async fn sources(reader: &Reader, metrics: &Metrics) -> Result<Vec<SourceState>, Fault> {
    const QUERY: &str = "SELECT source, state, complete_to, last_commit, end_lsn::text, slot, transactions, changes, events, extract(epoch FROM now() - complete_to)::float8, extract(epoch FROM now() - updated_at)::float8 FROM portal_audit.progress ORDER BY source";
    let rows = reader.rows(QUERY, &[]).await?;
    let following = metrics.states().borrow().clone();
    let read = |row: &Row| {
        let count = |column: usize| show::count(row.get::<_, i64>(column).unsigned_abs());
        let is_quiet = row.get::<_, f64>(10) > QUIET_SECONDS;
        let name: String = row.get(0);
        let following = following.get(&name).copied();
        let (state, is_well) = state(following, row.get(1), is_quiet);
        let log = metrics.kept_log(&name).and_then(Log::new);
        SourceState {
            name,
            state,
            is_well: is_well && log.as_ref().is_none_or(|log| log.is_well),
            log,
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

async fn proof(reader: &Reader, metrics: &Metrics) -> Result<Proof, Fault> {
    const LAST: &str = "SELECT note, at FROM portal_audit.checkpoints ORDER BY number DESC LIMIT 1";
    const TREES: &str = "SELECT tree, size FROM portal_audit.trees";
    let interval = metrics.checkpoint_interval();
    let last = reader.rows(LAST, &[]).await?;
    let last = match last.first().map(|row| (Checkpoint::parse(row.get(0)), row.get(1))) {
        None if interval > 0.0 => "No checkpoint is made yet.".to_owned(),
        None => "Nobody signs the record: the settings have no [proof]. Who may write to the audit database can change it, and nobody could tell.".to_owned(),
        Some((Err(fault), _)) => format!("The last checkpoint cannot be read: {fault}."),
        Some((Ok(last), at)) => {
            let trees = reader.rows(TREES, &[]).await?;
            let behind = |row: &Row| {
                row.get::<_, i64>(1).unsigned_abs().saturating_sub(last.size_of(row.get(0)))
            };
            let since = match trees.iter().map(behind).sum() {
                0 => "every event".to_owned(),
                since => format!("all but the last {}", show::count(since)),
            };
            format!("Checkpoint {}, of {}, covers {since}.", last.number, page::time(at))
        }
    };
    let place = |(place, age): (&str, f64)| {
        let place = match place {
            "file" => "Copies in the file",
            "command" => "Copies by the program",
            _ => "The audit database",
        };
        (place, show::seconds(age), age <= f64::from(CHECKPOINT_INTERVALS_MAX) * interval)
    };
    Ok(Proof { last, places: metrics.checkpoint_ages().into_iter().map(place).collect() })
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
