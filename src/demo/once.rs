//! `demo --once`: a fixed story, and whether every event of it arrived exactly once.

use super::{
    DemoError, IS_STREAMING, POLL_INTERVAL, Sidecar,
    cluster::Cluster,
    portal::{self, AUDIT_DATABASE, OWNER, PORTAL_DATABASE, SampleError},
    print, proof,
};
use crate::{connect::Session, show::OutputFormat};
use chrono::{DateTime, Utc};
use serde::Serialize;
use std::{collections::BTreeMap, process::ExitCode};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

/// What came of the story. `lost` and `doubled` are counted, not assumed.
#[derive(Debug, Serialize)]
struct Outcome {
    /// Row changes of the story, by the portal's own journal.
    changes: u64,
    /// Events of them.
    events: u64,
    by_type: BTreeMap<String, u64>,
    lost: u64,
    doubled: u64,
    /// Events of rows that are older than the slot.
    backfilled: u64,
    /// From the program's start to the first event of the story in the table, in milliseconds.
    first_event_ms: u64,
    complete_to: Option<DateTime<Utc>>,
    server_version: String,
}

pub(super) async fn run(
    cluster: &Cluster,
    format: OutputFormat,
    started: Instant,
) -> Result<ExitCode, DemoError> {
    let settings = portal::create(cluster, true).await.map_err(DemoError::Sample)?;
    let mut sidecar = Sidecar::start(settings);
    let portal = open(cluster, PORTAL_DATABASE).await?;
    let audit = open(cluster, AUDIT_DATABASE).await?;
    sidecar.wait_for(&audit, IS_STREAMING).await?;

    let mut first = JoinSet::new();
    let watcher = open(cluster, AUDIT_DATABASE).await?;
    first.spawn(first_event(watcher, started));
    for (_, sql) in portal::story() {
        portal::script(&portal, "play the story", sql).await.map_err(DemoError::Sample)?;
    }
    let end = end_of_log(&portal).await?;
    let reached = format!("SELECT bool_and(end_lsn >= '{end}') FROM portal_audit.progress");
    sidecar.wait_for(&audit, &reached).await?;
    let first_event_ms = match first.join_next().await {
        Some(Ok(millis)) => millis?,
        _ => return Err(DemoError::Behind),
    };
    sidecar.stop().await?;

    let proof = proof::compare(&portal, &audit, "portal").await.map_err(DemoError::Sample)?;
    let outcome = outcome(cluster, &audit, &proof, first_event_ms).await?;
    match format {
        OutputFormat::Json => {
            let text = serde_json::to_string(&outcome);
            print(&text.map_err(|error| DemoError::Sidecar(error.to_string()))?);
        }
        OutputFormat::Text => print_text(&outcome),
    }
    let is_exact = outcome.lost == 0 && outcome.doubled == 0 && outcome.events > 0;
    Ok(if is_exact { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn open(cluster: &Cluster, database: &str) -> Result<Session, DemoError> {
    portal::open(cluster, database, OWNER).await.map_err(DemoError::Sample)
}

async fn query_one(session: &Session, query: &str) -> Result<tokio_postgres::Row, DemoError> {
    let row = session.client.query_one(query, &[]).await;
    let action = "read the result";
    row.map_err(|report| DemoError::Sample(SampleError::Sql { action, report }))
}

/// Where the portal's log ends now.
async fn end_of_log(portal: &Session) -> Result<String, DemoError> {
    Ok(query_one(portal, "SELECT pg_current_wal_insert_lsn()::text").await?.get(0))
}

/// Milliseconds from the program's start until the first event of the stream is in the table.
async fn first_event(audit: Session, started: Instant) -> Result<u64, DemoError> {
    const QUERY: &str =
        "SELECT EXISTS (SELECT FROM public.events WHERE NOT payload->'_audit' ? 'backfill')";
    loop {
        if query_one(&audit, QUERY).await?.get(0) {
            return Ok(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX));
        }
        sleep(POLL_INTERVAL / 10).await;
    }
}

async fn outcome(
    cluster: &Cluster,
    audit: &Session,
    proof: &proof::Proof,
    first_event_ms: u64,
) -> Result<Outcome, DemoError> {
    const BY_TYPE: &str = "SELECT event_type, count(*) FROM public.events WHERE NOT payload->'_audit' ? 'backfill' GROUP BY 1";
    const REST: &str = "SELECT (SELECT count(*) FROM public.events WHERE payload->'_audit' ? 'backfill'), (SELECT min(complete_to) FROM portal_audit.progress)";
    let by_type = audit.client.query(BY_TYPE, &[]).await;
    let action = "read the result";
    let by_type =
        by_type.map_err(|report| DemoError::Sample(SampleError::Sql { action, report }))?;
    let rest = query_one(audit, REST).await?;
    Ok(Outcome {
        changes: proof.changes,
        events: proof.events,
        by_type: by_type
            .iter()
            .map(|row| (row.get(0), row.get::<_, i64>(1).unsigned_abs()))
            .collect(),
        lost: proof.lost,
        doubled: proof.doubled,
        backfilled: rest.get::<_, i64>(0).unsigned_abs(),
        first_event_ms,
        complete_to: rest.get(1),
        server_version: cluster.installation().version.clone(),
    })
}

fn print_text(outcome: &Outcome) {
    for (event_type, count) in &outcome.by_type {
        print(&format!("{count:>6}  {event_type}"));
    }
    print(&format!(
        "\n{} row changes became {} events on PostgreSQL {}: {} lost, {} doubled. The first was there after {} ms.",
        outcome.changes,
        outcome.events,
        outcome.server_version,
        outcome.lost,
        outcome.doubled,
        outcome.first_event_ms
    ));
}
