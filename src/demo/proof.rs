//! The proof: the events table against a journal that row triggers wrote inside the portal's own transactions.
//!
//! The journal says in plain SQL, written apart from the mapping, which events each change must give (`journal.expected`). A rollback takes change and journal line together, so the journal holds exactly what committed. When it committed, the server itself remembers (`track_commit_timestamp`).

use super::portal::SampleError;
use crate::connect::Session;
use chrono::{DateTime, Utc};
use serde::Serialize;
use std::collections::{HashMap, HashSet};

/// How the two compare.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// Row changes in the journal.
    pub changes: u64,
    /// Events that they must give.
    pub expected: u64,
    /// Events of the stream that are there.
    pub events: u64,
    /// Expected and not there.
    pub lost: u64,
    /// There and not expected, or more often than expected.
    pub doubled: u64,
    /// The first few differences, for a failing test: transaction, event type and which of the two.
    #[serde(skip)]
    pub differences: Vec<String>,
}

/// An event as both sides tell it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Line {
    xid: i64,
    event_type: String,
    subject: String,
    subject_type: String,
    target: Option<String>,
    success: bool,
    error_message: Option<String>,
    /// Without `_audit`.
    payload: String,
    /// Where a row names one.
    caller: Option<String>,
    /// Event type and subject of the event that is the cause of this one.
    cause: Option<String>,
    /// When its transaction was committed, where the portal's server keeps that.
    committed: Option<DateTime<Utc>>,
}

const EXPECTED: &str = "SELECT xid::bigint, event_type, subject, subject_type, target, success, error_message, payload::text, NULLIF(row_caller, ''), cause, CASE WHEN current_setting('track_commit_timestamp')::boolean THEN pg_xact_commit_timestamp(xid::text::xid) END FROM journal.expected";
const WRITTEN: &str = "SELECT (e.payload->'_audit'->>'xid')::bigint, e.event_type, e.subject, e.subject_type, e.target, e.success, e.error_message, (e.payload - '_audit')::text, CASE WHEN e.payload->'_audit'->>'caller_from' IN ('row', 'transaction') THEN e.caller END, CASE WHEN e.payload->'_audit' ? 'cause' THEN coalesce(c.event_type || ' ' || c.subject, 'an event that is not there') END, e.timestamp FROM public.events e LEFT JOIN public.events c ON c.event_uuid = (e.payload->'_audit'->>'cause')::uuid WHERE e.payload->'_audit'->>'source' = $1 AND NOT e.payload->'_audit' ?| ARRAY['backfill', 'inferred'] AND e.event_type NOT IN ('table_truncated', 'audit_gap', 'audit_diverged', 'undeliverable', 'coverage_changed', 'schema_changed', 'change_unmapped')";

/// Compares the events of a source with its portal's journal.
///
/// # Errors
/// One of the databases does not answer.
pub async fn compare(
    portal: &Session,
    audit: &Session,
    source: &str,
) -> Result<Proof, SampleError> {
    let failed = |report| SampleError::Sql { action: "compare events and journal", report };
    let changes = portal.client.query_one("SELECT count(*) FROM journal.change", &[]).await;
    let changes = changes.map_err(failed)?.get::<_, i64>(0).unsigned_abs();
    let expected = portal.client.query(EXPECTED, &[]).await.map_err(failed)?;
    let written = audit.client.query(WRITTEN, &[&source]).await.map_err(failed)?;
    let mut balance: HashMap<Line, i64> = HashMap::new();
    let mut is_dated = HashSet::new();
    for line in expected.iter().map(line) {
        if line.committed.is_some() {
            is_dated.insert(line.xid);
        }
        *balance.entry(line).or_default() += 1;
    }
    for mut line in written.iter().map(line) {
        line.committed = line.committed.filter(|_| is_dated.contains(&line.xid));
        *balance.entry(line).or_default() -= 1;
    }
    let mut proof = Proof {
        changes,
        expected: expected.len() as u64,
        events: written.len() as u64,
        ..Proof::default()
    };
    for (line, difference) in &balance {
        if *difference > 0 {
            proof.lost += difference.unsigned_abs();
        } else {
            proof.doubled += difference.unsigned_abs();
        }
        if *difference != 0 && proof.differences.len() < 20 {
            let what = if *difference > 0 { "lost" } else { "doubled" };
            proof.differences.push(format!("{what}: {line:?}"));
        }
    }
    Ok(proof)
}

fn line(row: &tokio_postgres::Row) -> Line {
    Line {
        xid: row.get(0),
        event_type: row.get(1),
        subject: row.get(2),
        subject_type: row.get(3),
        target: row.get(4),
        success: row.get(5),
        error_message: row.get(6),
        payload: row.get(7),
        caller: row.get(8),
        cause: row.get(9),
        committed: row.get(10),
    }
}
