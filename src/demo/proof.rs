//! The proof: the events table against a journal that row triggers wrote inside the portal's own transactions.
//!
//! The journal says in plain SQL, written apart from the mapping, which events each change must give (`journal.expected`). A rollback takes change and journal line together, so the journal holds exactly what committed.

use super::portal::SampleError;
use crate::connect::Session;
use serde::Serialize;
use std::collections::HashMap;

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

/// An event as both sides tell it; the transaction, the columns, the payload without `_audit`, and the caller where a row names one.
type Line = (i64, String, String, String, Option<String>, bool, String, Option<String>);

const EXPECTED: &str = "SELECT xid::bigint, event_type, subject, subject_type, target, success, payload::text, NULLIF(row_caller, '') FROM journal.expected";
const WRITTEN: &str = "SELECT (payload->'_audit'->>'xid')::bigint, event_type, subject, subject_type, target, success, (payload - '_audit')::text, CASE WHEN payload->'_audit'->>'caller_from' IN ('row', 'transaction') THEN caller END FROM public.events WHERE payload->'_audit'->>'source' = $1 AND NOT payload->'_audit' ? 'backfill' AND event_type <> 'table_truncated'";

/// Compares the events of a source with its portal's journal.
///
/// # Errors
/// One of the databases does not answer.
pub async fn compare(
    portal: &Session,
    audit: &Session,
    source: &str,
) -> Result<Proof, SampleError> {
    let failed = |source| SampleError::Sql { action: "compare events and journal", source };
    let changes = portal.client.query_one("SELECT count(*) FROM journal.change", &[]).await;
    let changes = changes.map_err(failed)?.get::<_, i64>(0).unsigned_abs();
    let expected = portal.client.query(EXPECTED, &[]).await.map_err(failed)?;
    let written = audit.client.query(WRITTEN, &[&source]).await.map_err(failed)?;
    let mut balance: HashMap<Line, i64> = HashMap::new();
    for row in &expected {
        *balance.entry(line(row)).or_default() += 1;
    }
    for row in &written {
        *balance.entry(line(row)).or_default() -= 1;
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
    let text = |column: usize| row.get(column);
    (row.get(0), text(1), text(2), text(3), row.get(4), row.get(5), row.get(6), row.get(7))
}
