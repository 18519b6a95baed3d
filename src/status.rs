//! How far each source is: what the verb `status` shows, from progress and from the source's own slot.

use crate::{
    budget::{self, BudgetError},
    catalog::{self, Slot},
    chain::chain,
    config::{Settings, Source, WalBudgetAction},
    connect::{self, Session},
    lsn::Lsn,
    translate::picture::Hole,
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio_postgres::types::PgLsn;

/// One source. What cannot be known now, because a database does not answer, is absent.
#[derive(Debug, Default, Serialize)]
pub struct SourceStatus {
    pub source: String,
    /// `streaming`, `stopped` (nobody reads the slot), `creating`, `new`, `lost`, `released` (the slot was given up, see `wal_budget_action`) or `unreachable`.
    pub state: String,
    pub complete_to: Option<DateTime<Utc>>,
    /// Seconds from `complete_to` to now, both by the audit database's clock and the source's: two machines.
    pub lag_seconds: Option<f64>,
    /// From what is written to the end of the source's log.
    pub lag_bytes: Option<u64>,
    pub last_commit: Option<DateTime<Utc>>,
    pub transactions: u64,
    pub changes: u64,
    pub events: u64,
    /// Published changes that no rule took.
    pub unmapped: u64,
    /// Holes in the record and places where it went back, each an event of type `audit_gap` or `audit_diverged`.
    pub gaps: u64,
    /// What is not covered now, as of the last look at the source's catalog.
    pub not_covered: Vec<NotCovered>,
    pub slot: String,
    /// Bytes of log that the slot keeps on the source's disk.
    pub retained_bytes: Option<u64>,
    /// How many it may keep: `wal_budget_bytes`.
    pub budget_bytes: u64,
    /// Bytes that may yet be written before the server gives the slot up; absent where the server sets no limit.
    pub safe_bytes: Option<u64>,
    /// What `pg_replication_slots` says: `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// What a person should see to, a sentence each.
    pub warnings: Vec<String>,
    pub note: Option<String>,
}

/// An object of a source whose changes are not all recorded.
#[derive(Debug, Serialize)]
pub struct NotCovered {
    /// `publication` or `table`.
    pub kind: &'static str,
    pub name: String,
    pub reason: String,
    /// What to do.
    pub fix: String,
    /// Event types, and `names.X`, that stand still.
    pub rules_stopped: Vec<String>,
    /// It was covered up to this position and time of the source.
    pub since_lsn: String,
    pub since: DateTime<Utc>,
}

impl From<Hole> for NotCovered {
    fn from(hole: Hole) -> Self {
        let Hole { object, reason, fix, rules, is_schema: _, from_lsn, from_time } = hole;
        Self {
            kind: object.kind(),
            name: object.name().to_owned(),
            reason,
            fix,
            rules_stopped: rules,
            since_lsn: from_lsn.to_string(),
            since: from_time.to_utc(),
        }
    }
}

/// Asks the audit database and each source.
///
/// # Errors
/// The audit database cannot be asked; a source that cannot be is told in its status.
pub async fn status(settings: &Settings) -> Result<Vec<SourceStatus>, String> {
    let audit = connect::connect(&settings.audit, "status").await;
    let audit = audit.map_err(|error| format!("audit database: {}", chain(&error)))?;
    let mut all = Vec::new();
    for source in &settings.sources {
        let mut status = from_progress(&audit, source)
            .await
            .map_err(|error| format!("audit database: {}", connect::describe(&error)))?;
        if let Err(note) = from_source(settings, source, &mut status).await {
            status.state = "unreachable".to_owned();
            status.note = Some(note);
        }
        all.push(status);
    }
    Ok(all)
}

async fn from_progress(
    audit: &Session,
    source: &Source,
) -> Result<SourceStatus, tokio_postgres::Error> {
    const COVERAGE: &str = "SELECT to_regclass('portal_audit.coverage') IS NOT NULL";
    const HOLES: &str = "SELECT holes::text FROM portal_audit.coverage WHERE source = $1";
    const EXISTS: &str = "SELECT to_regclass('portal_audit.progress') IS NOT NULL";
    const QUERY: &str = "SELECT state, complete_to, extract(epoch FROM now() - complete_to)::float8, last_commit, transactions, changes, events, (SELECT coalesce(sum(u.changes), 0)::bigint FROM portal_audit.unmapped u WHERE u.source = p.source), (SELECT count(*) FROM public.events WHERE event_type IN ('audit_gap', 'audit_diverged') AND subject = p.source), end_lsn FROM portal_audit.progress p WHERE source = $1";
    let mut status = SourceStatus {
        source: source.name.clone(),
        slot: source.slot.clone(),
        state: "new".to_owned(),
        ..SourceStatus::default()
    };
    if !audit.client.query_one(EXISTS, &[]).await?.get::<_, bool>(0) {
        return Ok(status);
    }
    let Some(row) = audit.client.query_opt(QUERY, &[&source.name]).await? else {
        return Ok(status);
    };
    let count = |column: usize| row.get::<_, i64>(column).unsigned_abs();
    status.state = row.get(0);
    status.complete_to = row.get(1);
    status.lag_seconds = row.get::<_, Option<f64>>(2).map(|lag| lag.max(0.0));
    status.last_commit = row.get(3);
    status.transactions = count(4);
    status.changes = count(5);
    status.events = count(6);
    status.unmapped = count(7);
    status.gaps = count(8);
    // A version before this one did not look.
    if audit.client.query_one(COVERAGE, &[]).await?.get::<_, bool>(0) {
        let row = audit.client.query_opt(HOLES, &[&source.name]).await?;
        let holes: Vec<Hole> =
            row.and_then(|row| serde_json::from_str(row.get(0)).ok()).unwrap_or_default();
        status.not_covered = holes.into_iter().map(NotCovered::from).collect();
    }
    // Becomes the distance once the source has told where its log ends.
    status.lag_bytes = Some(u64::from(row.get::<_, PgLsn>(9)));
    Ok(status)
}

async fn from_source(
    settings: &Settings,
    source: &Source,
    status: &mut SourceStatus,
) -> Result<(), String> {
    const END: &str = "SELECT current_setting('server_version_num')::int, CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END";
    let written = status.lag_bytes.take().map(Lsn);
    let session = connect::connect(&source.conninfo, "status").await;
    let session = session.map_err(|error| chain(&error))?;
    let row = session.client.query_one(END, &[]).await;
    let row = row.map_err(|error| connect::describe(&error))?;
    let version_num = u32::try_from(row.get::<_, i32>(0)).unwrap_or(0);
    let end = Lsn(row.get::<_, PgLsn>(1).into());
    let slot = catalog::load_slot(&session, version_num, &source.slot).await;
    let slot = slot.map_err(|error| chain(&error))?;
    status.lag_bytes = written.map(|written| end.bytes_since(written));
    let is_released = slot.is_none() && told(budget::is_released(&session, &source.slot).await)?;
    if status.state == "streaming" {
        status.state = if is_released { "released" } else { slot_state(slot.as_ref()) }.to_owned();
    }
    status.budget_bytes = settings.limits.wal_budget_bytes;
    if let Some(kept) = told(budget::kept(&session, &source.slot).await)? {
        let releases = settings.limits.wal_budget_action == WalBudgetAction::Release;
        status.warnings = kept.warnings(status.budget_bytes, releases);
        status.retained_bytes = slot.and_then(|slot| slot.restart_lsn).map(|_| kept.bytes);
        (status.safe_bytes, status.wal_status) = (kept.safe_bytes, kept.wal_status);
    }
    Ok(())
}

fn told<T>(asked: Result<T, BudgetError>) -> Result<T, String> {
    asked.map_err(|error| chain(&error))
}

fn slot_state(slot: Option<&Slot>) -> &'static str {
    match slot {
        None => "lost",
        Some(slot) if slot.wal_status.as_deref() == Some("lost") => "lost",
        Some(slot) if slot.active_pid.is_none() => "stopped",
        Some(_) => "streaming",
    }
}
