//! Stage 5: a [`Batch`] → rows of `events`, durable. The only writer of `events`.
//!
//! Events, names and progress commit in one transaction of the audit database. Progress is moved by compare-and-set ([`Progress::end_lsn`]), so whatever is written is written once: the statement fails as a whole if somebody else moved it.
//!
//! # Which way is fast
//! A small batch is one prepared statement, one round trip. A large one is a binary COPY, which costs the audit database about two thirds of an INSERT. COPY cannot pass over a row that exists, so the first batch after a start is inserted with `ON CONFLICT DO NOTHING`: ids are deterministic, and a row that is there is the same row.

use crate::{
    connect::{self, Session},
    event::Events,
    lsn::Lsn,
    timestamp::Timestamp,
    translate::{Batch, attempt, mapping::Mapping, names::NameKey},
    tuple::Operation,
};
use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    pin::pin,
    time::Duration,
};
use tokio_postgres::{
    Statement,
    types::{PgLsn, ToSql},
};

/// The DDL of the audit database.
pub const AUDIT_SQL: &str = include_str!("../sql/audit.sql");

/// Up to this many events a single statement is cheaper than a COPY.
const STATEMENT_EVENTS_MAX: usize = 100;
/// Rows of one INSERT where a large batch must be inserted.
const INSERT_EVENTS_MAX: usize = 1_000;
/// Keys of one question for names, so that each is answered in time.
const LOOK_UP_KEYS_MAX: usize = 50_000;
/// Bytes of COPY data sent at a time.
const COPY_CHUNK_BYTES: usize = 128 * 1024;
/// SQLSTATE of `portal_audit.advance` when progress is not where we left it.
const PROGRESS_MOVED: &str = "PA001";

/// Why a batch was not written. The server's report is not a source, because printing that prints DETAIL too, and DETAIL quotes the row.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error(
        "the audit database refused to {action}: {}{}",
        connect::describe(report),
        hint(report)
    )]
    Database { action: &'static str, report: tokio_postgres::Error },
    #[error("the audit database did not answer within {seconds} s")]
    Silent { seconds: u64 },
    #[error("another sidecar has written source {source_name:?} meanwhile")]
    Moved { source_name: String },
    #[error("a batch is too large for one statement of the protocol")]
    TooLarge,
    /// Found before anything is written.
    #[error("the table public.events is not as it is given: {}", .faults.join("; "))]
    Shape { faults: Vec<String> },
}

/// The fix, where the SQLSTATE names one, as a sentence with a full stop and a space before it.
fn hint(report: &tokio_postgres::Error) -> &'static str {
    match connect::sqlstate_of(report) {
        Some("53100") => ". Its disk is full: make room. Nothing is lost, it is tried again.",
        Some("53300") => {
            ". It has no session left for us: raise max_connections, or the role's CONNECTION LIMIT."
        }
        Some("25006") => {
            ". It is a standby, or default_transaction_read_only is on: it is tried again."
        }
        Some("42501") => {
            ". GRANT portal_audit_writer to the sidecar's role, then start it again: nothing is lost."
        }
        Some("42P01" | "42703" | "42883") => ". Run `portal-audit sql audit` there.",
        _ => "",
    }
}

impl WriteError {
    /// The server's code, if it was the server.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Database { report, .. } => connect::sqlstate_of(report),
            Self::Silent { .. } | Self::Moved { .. } | Self::TooLarge | Self::Shape { .. } => None,
        }
    }
}

/// The row of `portal_audit.progress` that a source starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Whether the slot and the first snapshot are still being made.
    pub creating: bool,
    pub slot: String,
    pub system_identifier: u64,
    pub timeline: u32,
    pub database_oid: u32,
    pub end_lsn: Lsn,
}

/// Where a batch ends: what becomes of progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    pub end_lsn: Lsn,
    /// Commit time of the last transaction of the batch, if it has one.
    pub last_commit: Option<Timestamp>,
    /// `None`: nothing new is known of it.
    pub complete_to: Option<Timestamp>,
}

/// Writes one source's events.
#[derive(Debug)]
pub struct Writer {
    session: Session,
    source: String,
    entities: Vec<String>,
    timeout: Duration,
    insert: Statement,
    insert_and_advance: Statement,
    advance: Statement,
    /// Where progress stands.
    end_lsn: Lsn,
    /// An audit transaction is open and holds the first pieces of a large source transaction.
    is_open: bool,
    /// It has a savepoint before the events of its last piece.
    has_savepoint: bool,
    /// Nothing was written since the start, so rows may exist.
    is_first: bool,
    /// Up to here rows may exist: the source went back, and gives some of it again.
    known_to: Lsn,
    pending: Totals,
}

/// What the pieces of an open audit transaction add up to.
#[derive(Debug, Default, Clone, Copy)]
struct Totals {
    transactions: u64,
    changes: u64,
    events: u64,
}

const EVENT_COLUMNS: &str = "event_uuid, timestamp, event_type, caller, subject, subject_type, target, success, error_message, payload";
const EVENTS_OF_ARRAYS: &str = "unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::boolean[], $9::text[], $10::text[]) AS e (event_uuid, timestamp, event_type, caller, subject, subject_type, target, success, error_message, payload)";
const EVENT_VALUES: &str = "e.event_uuid, e.timestamp, e.event_type, e.caller, e.subject, e.subject_type, e.target, e.success, e.error_message, e.payload::jsonb";

/// Runs a query of the audit database within the time that it has to answer.
async fn answered<T>(
    timeout: Duration,
    action: &'static str,
    query: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, WriteError> {
    match tokio::time::timeout(timeout, pin!(query)).await {
        Err(_elapsed) => Err(WriteError::Silent { seconds: timeout.as_secs() }),
        Ok(Err(report)) => Err(WriteError::Database { action, report }),
        Ok(Ok(value)) => Ok(value),
    }
}

/// Reads the progress of a source.
///
/// # Errors
/// The audit database does not answer or refuses.
pub async fn load_progress(
    session: &Session,
    source: &str,
    timeout: Duration,
) -> Result<Option<Progress>, WriteError> {
    const QUERY: &str = "SELECT state, slot, system_identifier, timeline, database_oid, end_lsn FROM portal_audit.progress WHERE source = $1";
    let row =
        answered(timeout, "read progress", session.client.query_opt(QUERY, &[&source])).await?;
    Ok(row.map(|row| Progress {
        creating: row.get::<_, &str>(0) == "creating",
        slot: row.get(1),
        system_identifier: row.get::<_, &str>(2).parse().unwrap_or(0),
        timeline: u32::try_from(row.get::<_, i64>(3)).unwrap_or(0),
        database_oid: u32::try_from(row.get::<_, i64>(4)).unwrap_or(0),
        end_lsn: Lsn(row.get::<_, PgLsn>(5).into()),
    }))
}

/// Records that a source is being created, or (by its state) that it is.
///
/// # Errors
/// The audit database does not answer or refuses.
pub async fn store_progress(
    session: &Session,
    source: &str,
    progress: &Progress,
    timeout: Duration,
) -> Result<(), WriteError> {
    const QUERY: &str = "INSERT INTO portal_audit.progress AS p (source, state, slot, system_identifier, timeline, database_oid, end_lsn) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (source) DO UPDATE SET state = excluded.state, slot = excluded.slot, system_identifier = excluded.system_identifier, timeline = excluded.timeline, database_oid = excluded.database_oid, end_lsn = excluded.end_lsn, updated_at = now() WHERE p.state = 'creating'";
    let state = if progress.creating { "creating" } else { "streaming" };
    let (timeline, oid) = (i64::from(progress.timeline), i64::from(progress.database_oid));
    let system_identifier = progress.system_identifier.to_string();
    let lsn = PgLsn::from(progress.end_lsn.0);
    let parameters: [&(dyn ToSql + Sync); 7] =
        [&source, &state, &progress.slot, &system_identifier, &timeline, &oid, &lsn];
    let query = session.client.execute(QUERY, &parameters);
    match answered(timeout, "store progress", query).await? {
        0 => Err(WriteError::Moved { source_name: source.to_owned() }),
        _ => Ok(()),
    }
}

/// Records the event types of a mapping, all in one round trip: a session should begin fast, also over a slow line.
///
/// # Errors
/// The audit database does not answer or refuses.
pub async fn store_event_types(
    session: &Session,
    mapping: &Mapping,
    timeout: Duration,
) -> Result<(), WriteError> {
    const QUERY: &str = "INSERT INTO portal_audit.event_types SELECT t, d, r, string_to_array(v, ',') FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS u (t, d, r, v) ON CONFLICT (event_type) DO UPDATE SET describe = excluded.describe, retention = excluded.retention, visible_to = excluded.visible_to WHERE (event_types.describe, event_types.retention, event_types.visible_to) IS DISTINCT FROM (excluded.describe, excluded.retention, excluded.visible_to)";
    // Several blocks may declare one type: the last counts, and one statement may not write a row twice.
    let mut types = BTreeMap::new();
    for (event_type, describe, visible_to, retention) in mapping.declared() {
        let visible_to: Vec<&str> = visible_to.iter().map(|name| name.get_ref().as_str()).collect();
        let told = (describe.get_ref().as_str(), retention.name(), visible_to.join(","));
        types.insert(event_type.get_ref().clone(), told);
    }
    for found in attempt::event_types(mapping) {
        let told = (found.describe, found.retention.name(), found.visible_to.join(","));
        types.insert(found.name, told);
    }
    let names: Vec<&str> = types.keys().map(String::as_str).collect();
    let describe: Vec<&str> = types.values().map(|(describe, ..)| *describe).collect();
    let retention: Vec<&str> = types.values().map(|(_, retention, _)| *retention).collect();
    let visible_to: Vec<&str> = types.values().map(|(.., visible)| visible.as_str()).collect();
    let parameters: [&(dyn ToSql + Sync); 4] = [&names, &describe, &retention, &visible_to];
    let query = session.client.execute(QUERY, &parameters);
    answered(timeout, "store event types", query).await?;
    coverage::store_types(session, timeout).await
}

/// The names of keys in the names tables of a source, whose kinds are `entities`, as a session sees them.
///
/// # Errors
/// The audit database does not answer or refuses.
pub async fn look_up(
    session: &Session,
    source: &str,
    entities: &[String],
    keys: &[NameKey],
    timeout: Duration,
) -> Result<Vec<Option<String>>, WriteError> {
    const QUERY: &str = "SELECT n.name FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS u (entity, key, place) LEFT JOIN portal_audit.names n ON n.source = $1 AND n.entity = u.entity AND n.key = u.key ORDER BY u.place";
    let entity = |key: &NameKey| entities.get(key.names).map_or("", String::as_str);
    let mut names = Vec::with_capacity(keys.len());
    for keys in keys.chunks(LOOK_UP_KEYS_MAX) {
        let entities: Vec<&str> = keys.iter().map(entity).collect();
        let texts: Vec<&str> = keys.iter().map(|key| key.key.as_str()).collect();
        let parameters: [&(dyn ToSql + Sync); 3] = [&source, &entities, &texts];
        let rows = answered(timeout, "look up names", session.client.query(QUERY, &parameters));
        names.extend(rows.await?.iter().map(|row| row.get::<_, Option<String>>(0)));
    }
    Ok(names)
}

impl Writer {
    /// A writer for a source whose progress stands at `end_lsn`.
    ///
    /// # Errors
    /// The audit database does not answer, or lacks `events` as it is given.
    pub async fn new(
        session: Session,
        source: &str,
        mapping: &Mapping,
        end_lsn: Lsn,
        timeout: Duration,
    ) -> Result<Self, WriteError> {
        const ADVANCE: &str = "portal_audit.advance";
        let prepare = async |sql: String| {
            answered(timeout, "prepare its statements", session.client.prepare(&sql)).await
        };
        let into =
            format!("INSERT INTO public.events ({EVENT_COLUMNS}) SELECT {EVENT_VALUES} FROM");
        let insert = prepare(format!("{into} {EVENTS_OF_ARRAYS} ON CONFLICT DO NOTHING")).await?;
        let insert_and_advance = prepare(format!(
            "{into} {ADVANCE}($11, $12, $13, $14, $15, $16, $17, $18) AS moved, {EVENTS_OF_ARRAYS} ON CONFLICT DO NOTHING"
        ))
        .await?;
        let advance = prepare(format!("SELECT {ADVANCE}($1, $2, $3, $4, $5, $6, $7, $8)")).await?;
        Ok(Self {
            session,
            source: source.to_owned(),
            entities: mapping.entities(),
            timeout,
            insert,
            insert_and_advance,
            advance,
            end_lsn,
            is_open: false,
            has_savepoint: false,
            is_first: true,
            known_to: Lsn::ZERO,
            pending: Totals::default(),
        })
    }

    /// Where progress stands: what may be confirmed.
    #[must_use]
    pub fn end_lsn(&self) -> Lsn {
        self.end_lsn
    }

    /// Writes a batch. With an `end` it is committed and progress moves there; without, it is the next piece of a large transaction, and the audit transaction stays open.
    ///
    /// # Errors
    /// Nothing of an audit transaction that fails is written; the writer is of no use then.
    pub async fn write(&mut self, batch: &Batch, end: Option<End>) -> Result<(), WriteError> {
        self.pending.transactions += batch.transactions;
        self.pending.changes += batch.changes;
        self.pending.events += batch.events.len() as u64;
        let plain = batch.names.is_empty()
            && batch.emptied.is_empty()
            && batch.unmapped.is_empty()
            && batch.attempts.is_empty()
            && !self.is_open;
        match end {
            Some(end) if plain && batch.events.len() <= STATEMENT_EVENTS_MAX => {
                let written = self.write_statement(&batch.events, end).await;
                match written {
                    Err(error) if error.refusal().is_some() => {
                        self.write_pieces(batch, Some(end)).await?;
                    }
                    written => written?,
                }
            }
            _ => self.write_pieces(batch, end).await?,
        }
        if let Some(end) = end {
            self.end_lsn = end.end_lsn;
            self.pending = Totals::default();
            (self.is_open, self.has_savepoint) = (false, false);
            self.is_first = false;
        }
        Ok(())
    }

    /// Everything in one statement and one round trip.
    async fn write_statement(&mut self, events: &Events, end: End) -> Result<(), WriteError> {
        let moved = Moved::new(self, end);
        if events.is_empty() {
            let parameters = moved.parameters();
            let query = self.session.client.execute(&self.advance, &parameters);
            let written = answered(self.timeout, "move progress", query).await;
            return written.map(drop).map_err(|error| self.told(error));
        }
        let arrays = Arrays::new(events.iter());
        let mut parameters = arrays.parameters();
        parameters.extend(moved.parameters());
        let query = self.session.client.execute(&self.insert_and_advance, &parameters);
        let written = answered(self.timeout, "write events", query).await;
        written.map(drop).map_err(|error| self.told(error))
    }

    /// A piece of an audit transaction, and its end if this is the last one.
    async fn write_pieces(&mut self, batch: &Batch, end: Option<End>) -> Result<(), WriteError> {
        let may_exist = self.is_first || self.end_lsn < self.known_to;
        self.deliver(&batch.events, may_exist).await?;
        let client = &self.session.client;
        self.empty_names(batch).await?;
        self.write_names(batch, end).await?;
        self.write_unmapped(batch).await?;
        self.write_attempts(batch).await?;
        if let Some(end) = end {
            let moved = Moved::new(self, end);
            let parameters = moved.parameters();
            let query = client.execute(&self.advance, &parameters);
            let written = answered(self.timeout, "move progress", query).await;
            written.map_err(|error| self.told(error))?;
            answered(self.timeout, "commit", client.batch_execute("COMMIT")).await?;
        }
        Ok(())
    }

    /// What a TRUNCATE left nothing of.
    async fn empty_names(&self, batch: &Batch) -> Result<(), WriteError> {
        let emptied = batch.emptied.iter().filter_map(|place| self.entities.get(*place));
        let emptied: Vec<&str> = emptied.map(String::as_str).collect();
        if emptied.is_empty() { Ok(()) } else { self.forget_in_open(&emptied).await }
    }

    /// Each with a position that no change behind it needs: what is told of a failover depends on it.
    async fn write_names(&self, batch: &Batch, end: Option<End>) -> Result<(), WriteError> {
        const QUERY: &str = "WITH given AS (SELECT * FROM unnest($2::text[], $3::text[], $4::text[]) AS u (e, k, n)), forgotten AS (DELETE FROM portal_audit.names USING given WHERE source = $1 AND entity = e AND key = k AND n IS NULL) INSERT INTO portal_audit.names (source, entity, key, name, upto) SELECT $1, e, k, n, $5 FROM given WHERE n IS NOT NULL ON CONFLICT (source, entity, key) DO UPDATE SET name = excluded.name, upto = excluded.upto";
        if batch.names.is_empty() {
            return Ok(());
        }
        // One statement may not write a row twice: the last name of a key counts.
        let last: HashMap<(usize, &str), Option<&str>> = batch
            .names
            .iter()
            .map(|row| ((row.names, row.key.as_str()), row.name.as_deref()))
            .collect();
        let entity = |place: usize| self.entities.get(place).map_or("", String::as_str);
        let entities: Vec<&str> = last.keys().map(|(place, _)| entity(*place)).collect();
        let keys: Vec<&str> = last.keys().map(|(_, key)| *key).collect();
        let names: Vec<Option<&str>> = last.values().copied().collect();
        let upto = end.map_or(self.end_lsn, |end| end.end_lsn).max(batch.upto);
        let upto = PgLsn::from(upto.0);
        let parameters: [&(dyn ToSql + Sync); 5] = [&self.source, &entities, &keys, &names, &upto];
        let query = self.session.client.execute(QUERY, &parameters);
        answered(self.timeout, "write names", query).await.map(drop)
    }

    async fn write_unmapped(&self, batch: &Batch) -> Result<(), WriteError> {
        const QUERY: &str = "INSERT INTO portal_audit.unmapped AS u (source, relation, operation, changes) VALUES ($1, $2, $3, $4) ON CONFLICT (source, relation, operation) DO UPDATE SET changes = u.changes + excluded.changes";
        for ((relation, operation), changes) in &batch.unmapped {
            let operation = Operation::name(*operation);
            let changes = i64::try_from(*changes).unwrap_or(i64::MAX);
            let parameters: [&(dyn ToSql + Sync); 4] =
                [&self.source, &&**relation, &operation, &changes];
            let query = self.session.client.execute(QUERY, &parameters);
            answered(self.timeout, "count unmapped changes", query).await?;
        }
        Ok(())
    }

    /// The names of keys, as of all that was given to this writer, committed or not.
    ///
    /// # Errors
    /// As [`look_up`].
    pub async fn look_up(&self, keys: &[NameKey]) -> Result<Vec<Option<String>>, WriteError> {
        look_up(&self.session, &self.source, &self.entities, keys, self.timeout).await
    }

    /// Everything that is kept of one of the mapping's names tables, by key.
    ///
    /// # Errors
    /// The audit database does not answer or refuses.
    pub async fn kept(&self, entity: &str) -> Result<Vec<(String, String)>, WriteError> {
        const QUERY: &str = "SELECT key, name FROM portal_audit.names WHERE source = $1 AND entity = $2 ORDER BY key";
        let parameters: [&(dyn ToSql + Sync); 2] = [&self.source, &entity];
        let query = self.session.client.query(QUERY, &parameters);
        let rows = answered(self.timeout, "read names", query).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// Forgets names tables of the source, as a piece of the audit transaction that the next [`Writer::write`] goes on with.
    ///
    /// # Errors
    /// The audit database does not answer or refuses.
    pub async fn forget(&mut self, entities: &[&str]) -> Result<(), WriteError> {
        self.open().await?;
        self.forget_in_open(entities).await
    }

    async fn forget_in_open(&self, entities: &[&str]) -> Result<(), WriteError> {
        const QUERY: &str =
            "DELETE FROM portal_audit.names WHERE source = $1 AND entity = ANY ($2)";
        let parameters: [&(dyn ToSql + Sync); 2] = [&self.source, &entities];
        let query = self.session.client.execute(QUERY, &parameters);
        answered(self.timeout, "forget names", query).await.map(drop)
    }

    async fn open(&mut self) -> Result<(), WriteError> {
        if !self.is_open {
            let begin = self.session.client.batch_execute("BEGIN");
            answered(self.timeout, "begin", begin).await?;
            self.is_open = true;
        }
        Ok(())
    }

    fn told(&self, error: WriteError) -> WriteError {
        if error.sqlstate() == Some(PROGRESS_MOVED) {
            return WriteError::Moved { source_name: self.source.clone() };
        }
        error
    }
}

mod attempts;
mod coverage;
mod deliver;
mod diverged;
mod gap;
mod parameters;
mod prepare;
mod reconcile;
mod stale;
pub use attempts::Ends;
pub use coverage::load_covered;
pub use diverged::store_timeline;
pub use gap::{begin_anew, open_gap};
use parameters::{Arrays, Moved};
pub use prepare::prepare;
pub use stale::sign_in;
