//! The events of an export, streamed from one snapshot of the audit database in the order (timestamp, event_uuid).
//!
//! That order is one that the given index on `timestamp` serves, and nearly that of writing. The server sends its answer as it makes it and
//! waits while we write, so memory does not grow with the number of events.

use super::{ExportError, Filter};
use crate::{
    connect::Session,
    filter::{Key, Order},
    own::{self, Events as OwnEvents},
    show::COLUMNS,
};
use chrono::{DateTime, Utc};
use futures_util::TryStreamExt as _;
use std::{collections::BTreeMap, pin::Pin};
use tokio_postgres::{Row, RowStream, types::Json};
use uuid::Uuid;

/// What the audit database says of itself when an export begins.
#[derive(Debug)]
pub(super) struct Now {
    /// Its clock.
    pub(super) at: DateTime<Utc>,
    /// The comment of the schema, which holds its number.
    pub(super) schema: Option<String>,
    /// Per source; empty also for a role that may not read it.
    pub(super) complete_to: BTreeMap<String, Option<DateTime<Utc>>>,
    /// The role may read `portal_audit.progress`.
    pub(super) knows_progress: bool,
}

/// Begins the snapshot, and reads what [`Now`] holds.
pub(super) async fn begin(session: &Session) -> Result<Now, ExportError> {
    // Names are written in full, but for operators; nobody's search_path shall change those.
    const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL search_path = pg_catalog, pg_temp";
    session.client.batch_execute(BEGIN).await.map_err(ExportError::query)?;
    now(session).await
}

/// What [`Now`] holds, in the session's transaction.
pub(super) async fn now(session: &Session) -> Result<Now, ExportError> {
    const ABOUT: &str = "SELECT now(), obj_description(to_regnamespace('portal_audit'), 'pg_namespace'), coalesce(has_any_column_privilege(to_regclass('portal_audit.progress'), 'SELECT'), false)";
    const PROGRESS: &str = "SELECT source, complete_to FROM portal_audit.progress";
    let row = session.client.query_one(ABOUT, &[]).await.map_err(ExportError::query)?;
    let knows_progress = row.get(2);
    let mut complete_to = BTreeMap::new();
    if knows_progress {
        let rows = session.client.query(PROGRESS, &[]).await.map_err(ExportError::query)?;
        complete_to.extend(rows.iter().map(|row| (row.get(0), row.get(1))));
    }
    Ok(Now { at: row.get(0), schema: row.get(1), complete_to, knows_progress })
}

impl Now {
    /// Up to which time the record of all sources is complete. `None`: that is not known.
    pub(super) fn complete(&self) -> Option<DateTime<Utc>> {
        if !self.knows_progress {
            return None;
        }
        // Where no source is followed, nothing older than now is still to come.
        if self.complete_to.is_empty() {
            return Some(self.at);
        }
        let times: Option<Vec<DateTime<Utc>>> = self.complete_to.values().copied().collect();
        times?.into_iter().min()
    }
}

/// The place of an event.
pub(super) async fn key_of(session: &Session, event_uuid: Uuid) -> Result<Key, ExportError> {
    const QUERY: &str = "SELECT timestamp FROM public.events WHERE event_uuid = $1";
    let row = session.client.query_opt(QUERY, &[&event_uuid]).await.map_err(ExportError::query)?;
    let row = row.ok_or(ExportError::UnknownEvent { event_uuid })?;
    let timestamp = row.try_get(0).map_err(ExportError::query)?;
    Ok(Key { timestamp, event_uuid })
}

/// When the first event of the range was, to tell how far an export is.
pub(super) async fn first(session: &Session) -> Result<Option<DateTime<Utc>>, ExportError> {
    const QUERY: &str = "SELECT min(timestamp) FROM public.events WHERE isfinite(timestamp)";
    let row = session.client.query_one(QUERY, &[]).await.map_err(ExportError::query)?;
    Ok(row.get(0))
}

/// The events of a range, on their way.
pub(super) enum Events {
    /// Of all that there are, as the index on `timestamp` gives them.
    Any(Pin<Box<RowStream>>),
    /// Of a portal user.
    Own(Box<OwnEvents>),
}

impl Events {
    /// The next one; `None`: that was the last.
    pub(super) async fn next(&mut self, session: &Session) -> Result<Option<Row>, ExportError> {
        let next = match self {
            Self::Any(rows) => rows.try_next().await,
            Self::Own(events) => events.next(&session.client).await,
        };
        next.map_err(ExportError::query)
    }
}

/// Asks for the events of a range behind an event.
pub(super) async fn events(
    session: &Session,
    filter: &Filter,
    after: Option<Key>,
    before: Option<DateTime<Utc>>,
) -> Result<Events, ExportError> {
    let select = format!("SELECT {COLUMNS} FROM public.events e");
    if own::is_viewer(&session.client).await.map_err(ExportError::query)? {
        return Ok(Events::Own(Box::new(OwnEvents::new(filter, &select, after, before))));
    }
    let mut condition = filter.condition();
    if let Some(key) = after {
        condition.beyond(Order::OldestFirst, key);
    }
    if let Some(before) = before {
        let before = condition.bind(before);
        condition.and(&format!("e.timestamp < {before}::timestamptz"));
    }
    let query = format!("{select} WHERE {} ORDER BY {}", condition.sql(), Order::OldestFirst.sql());
    let rows = session.client.query_raw(&query, condition.values()).await;
    Ok(Events::Any(Box::pin(rows.map_err(ExportError::query)?)))
}

/// Ends the snapshot.
pub(super) async fn end(session: &Session) -> Result<(), ExportError> {
    session.client.batch_execute("COMMIT").await.map_err(ExportError::query)
}

/// Has the export recorded as an event of its own. `None`: this audit database records no reads, or not for this role.
pub(super) async fn record(
    session: &Session,
    filter: &serde_json::Value,
    rows: u64,
) -> Result<Option<Uuid>, ExportError> {
    /// Most bytes of a filter that `record_read` takes.
    const FILTER_BYTES_MAX: usize = 8192;
    const MAY: &str = "SELECT coalesce(has_function_privilege(to_regprocedure('portal_audit.record_read(text,jsonb,bigint)'), 'EXECUTE'), false)";
    const RECORD: &str = "SELECT portal_audit.record_read('log_exported', $1, $2)";
    let may = session.client.query_one(MAY, &[]).await.map_err(ExportError::query)?;
    if !may.get::<_, bool>(0) {
        return Ok(None);
    }
    let is_long = filter.to_string().len() > FILTER_BYTES_MAX;
    let filter = if is_long { serde_json::json!({"too_long": true}) } else { filter.clone() };
    let rows = i64::try_from(rows).unwrap_or(i64::MAX);
    let row = session.client.query_one(RECORD, &[&Json(filter), &rows]).await;
    Ok(row.map_err(ExportError::query)?.get(0))
}
