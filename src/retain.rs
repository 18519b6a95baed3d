//! Retention, legal hold and erasure: asks the functions of `sql/retention.sql` for it, which hold the rules. Nothing is decided here.
//!
//! # Why the sidecar's own role may prune
//! It may delete no row of `events`. It may call `portal_audit.prune`, which belongs to the owner of the table and takes no rule from its caller: what is due stands in `portal_audit.retention` and in the class of each event type, and neither is the sidecar's to change (`sql/types.sql`). A second login would have to be made and kept by ops, and where it is forgotten, what should be gone stays for ever. Each removal is an event and stands in the proof.

mod verbs;

pub use verbs::{EraseVerb, HoldVerb, PruneArguments, erase, hold, prune};

use crate::{
    chain::chain,
    config::Settings,
    connect::{self, ConnectError, Session},
    conninfo::ConnInfo,
};
use std::{convert::Infallible, time::Duration};
use tokio::time::sleep;

/// Between two batches, so that what others do is not held up.
const PAUSE: Duration = Duration::from_millis(200);
/// Before the first time.
const FIRST_WAIT: Duration = Duration::from_secs(60);
/// Before it is tried again where the audit database did not answer, or is not prepared yet.
const RETRY: Duration = Duration::from_secs(60);
/// Leaves whose times are taken at once before a search for them.
const LEAVES_AT_ONCE: i64 = 100_000;

/// Why nothing was removed or held.
#[derive(Debug, thiserror::Error)]
pub enum RetainError {
    #[error("cannot reach the audit database")]
    Connect(#[source] ConnectError),
    #[error("the audit database refuses to {what}: {}{}", connect::describe(report), hint(report))]
    Query { what: &'static str, report: tokio_postgres::Error },
}

impl RetainError {
    /// Whether those who write events meet it too, and say so.
    fn is_of_others(&self) -> bool {
        match self {
            Self::Connect(_) => true,
            Self::Query { report, .. } => {
                report.is_closed()
                    || matches!(connect::sqlstate_of(report), Some("42883" | "42P01" | "3F000"))
            }
        }
    }
}

fn hint(error: &tokio_postgres::Error) -> &'static str {
    match connect::sqlstate_of(error) {
        Some("42501") => {
            ". Name a login that may: --audit \"host=… dbname=… user=…\" (GRANT portal_audit_admin TO it)"
        }
        Some("42883" | "42P01" | "3F000") => {
            ". Run what `portal-audit sql audit` prints on that database"
        }
        Some("PA003") => ". See portal-audit hold list",
        _ => "",
    }
}

/// Events of one type that are gone, or would go.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Pruned {
    pub event_type: String,
    pub events: i64,
    /// Time of the oldest, UTC.
    pub oldest: String,
    /// Time of the newest, UTC.
    pub newest: String,
}

const TIME: &str = "'YYYY-MM-DD HH24:MI:SS'";

async fn open(audit: &ConnInfo, purpose: &str) -> Result<Session, RetainError> {
    connect::connect(audit, purpose).await.map_err(RetainError::Connect)
}

async fn pruned(
    session: &Session,
    limit: i32,
    is_dry_run: bool,
) -> Result<Vec<Pruned>, RetainError> {
    let query = format!(
        "SELECT event_type, events, to_char(oldest AT TIME ZONE 'UTC', {TIME}), to_char(newest AT TIME ZONE 'UTC', {TIME}) FROM portal_audit.prune($1, $2)"
    );
    let rows = session.client.query(&query, &[&limit, &is_dry_run]).await;
    let rows = rows.map_err(|report| RetainError::Query { what: "apply retention", report })?;
    let pruned = rows.iter().map(|row| Pruned {
        event_type: row.get(0),
        events: row.get(1),
        oldest: row.get(2),
        newest: row.get(3),
    });
    Ok(pruned.collect())
}

async fn looked_to(session: &Session) -> Result<Option<String>, RetainError> {
    let row = session.client.query_one("SELECT portal_audit.looked_to()", &[]).await;
    let row = row.map_err(|report| RetainError::Query { what: "apply retention", report })?;
    Ok(row.get(0))
}

/// Prunes in batches of `limit` events until nothing is due, with a pause after each; tells `seen` of each batch.
///
/// # Errors
/// The audit database refuses. What was removed until then is removed.
pub async fn prune_all(
    session: &Session,
    limit: i32,
    mut seen: impl FnMut(&[Pruned]),
) -> Result<(), RetainError> {
    const TAKE: &str = "SELECT portal_audit.take_leaf_times($1)";
    loop {
        let row = session.client.query_one(TAKE, &[&LEAVES_AT_ONCE]).await;
        let row = row.map_err(|report| RetainError::Query { what: "apply retention", report })?;
        if row.get::<_, i64>(0) == 0 {
            break;
        }
        sleep(PAUSE).await;
    }
    let mut before = looked_to(session).await?;
    loop {
        let batch = pruned(session, limit, false).await?;
        seen(&batch);
        let after = looked_to(session).await?;
        if batch.is_empty() && before == after {
            return Ok(());
        }
        before = after;
        sleep(PAUSE).await;
    }
}

/// Prunes a minute after the start and at every `limits.prune_interval_seconds`, for as long as it is polled. It never fails: what cannot be removed now is removed next time.
pub async fn keep(settings: Settings) -> Infallible {
    let limits = &settings.limits;
    if limits.prune_interval_seconds == 0 {
        std::future::pending::<()>().await;
    }
    // A start may have a backlog to write, which is urgent.
    sleep(FIRST_WAIT.min(Duration::from_secs(limits.prune_interval_seconds))).await;
    loop {
        let mut gone = 0;
        let result = async {
            let session = open(&settings.audit, "retention").await?;
            prune_all(&session, limits.prune_events, |batch| {
                gone += batch.iter().map(|pruned| pruned.events).sum::<i64>();
            })
            .await
        };
        let result = result.await;
        if gone > 0 {
            tracing::info!(events = gone, "retention applied");
        }
        let Err(error) = result else {
            sleep(Duration::from_secs(limits.prune_interval_seconds)).await;
            continue;
        };
        let error_text = chain(&error);
        if error.is_of_others() {
            tracing::debug!(error = error_text, "retention waits for the audit database");
        } else {
            tracing::warn!(error = error_text, "retention was not applied, and is tried again");
        }
        sleep(RETRY.min(Duration::from_secs(limits.prune_interval_seconds))).await;
    }
}
