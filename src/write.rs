//! Stage 5: a [`Batch`] → rows of `events`, durable. The only writer of `events`.
//!
//! Events, their leaves, names and progress commit in one transaction of the audit database. Progress is moved by compare-and-set ([`Progress::end_lsn`]), so whatever is written is written once: the statement fails as a whole if somebody else moved it.
//!
//! # Which way is fast
//! A small batch is one prepared statement, one round trip. A large one is a binary COPY, which costs the audit database about two thirds of an INSERT. Neither passes over a row that exists: where one is refused for that, the batch, and the next as long as there are others, are inserted with `ON CONFLICT DO NOTHING`: ids are deterministic, and a row that is there is the same row, with its leaf.
//!
//! Where large batches follow each other, the events of one are copied while the one before it is finished, in a second session (`steps`).

use crate::{
    connect::{self, Session},
    lsn::Lsn,
    timestamp::Timestamp,
    translate::{Batch, mapping::Mapping},
    tuple::Operation,
};
use std::{future::Future, pin::pin, time::Duration};
use tokio_postgres::types::{PgLsn, ToSql};

/// The DDL of the audit database: tables, proof, what admins query, retention, who sees what, facilities, and its version.
pub const AUDIT_SQL: &str = concat!(
    include_str!("../sql/audit.sql"),
    include_str!("../sql/proof.sql"),
    include_str!("../sql/fold.sql"),
    include_str!("../sql/views.sql"),
    include_str!("../sql/leaf_places.sql"),
    include_str!("../sql/retention.sql"),
    include_str!("../sql/types.sql"),
    include_str!("../sql/access.sql"),
    include_str!("../sql/mine.sql"),
    include_str!("../sql/facilities.sql"),
    include_str!("../sql/facility_states.sql"),
    include_str!("../sql/version.sql"),
);

/// Up to this many events a single statement is cheaper than a COPY.
const STATEMENT_EVENTS_MAX: usize = 100;
/// Rows of one INSERT where a large batch must be inserted.
const INSERT_EVENTS_MAX: usize = 1_000;
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
    #[error("the system has no random bytes for the salts of leaves: {report}")]
    NoSalt { report: getrandom::Error },
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
            Self::Silent { .. }
            | Self::Moved { .. }
            | Self::TooLarge
            | Self::NoSalt { .. }
            | Self::Shape { .. } => None,
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
    hand: Hand,
    /// In it the events of the next batch are copied while one is finished.
    spare: Option<Hand>,
    source: String,
    entities: Vec<String>,
    timeout: Duration,
    /// Where progress stands.
    end_lsn: Lsn,
    /// An audit transaction is open and holds the first pieces of a large source transaction.
    is_open: bool,
    /// It has a savepoint before the events of its last piece.
    has_savepoint: bool,
    /// The last large batch had events that are there already: the log is read again.
    met_existing: bool,
    /// Up to here rows may exist: the source went back, and gives some of it again.
    known_to: Lsn,
    pending: Totals,
    /// A trigger stands before each row of `events`, which may leave it out.
    is_guarded: bool,
    /// Row-level security holds this login, and COPY does not go with that.
    is_copy_refused: bool,
    /// Leaves in the source's tree, those of the open audit transaction among them.
    tree_size: i64,
    /// What is inserted and not sealed yet.
    leaves: Leaves,
}

/// What the pieces of an open audit transaction add up to.
#[derive(Debug, Default, Clone, Copy)]
struct Totals {
    transactions: u64,
    changes: u64,
    events: u64,
}

impl Totals {
    fn add(&mut self, batch: &Batch) {
        self.transactions += batch.transactions;
        self.changes += batch.changes;
        self.events += batch.events.len() as u64;
    }
}

const EVENT_COLUMNS: &str = "event_uuid, timestamp, event_type, caller, subject, subject_type, target, success, error_message, payload";

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
        const HELD: &str = "SELECT row_security_active('public.events'::regclass)";
        let (tree_size, is_guarded) = seal::load_tree(&session, source, timeout).await?;
        let held = session.client.query_one(HELD, &[]);
        let is_held: bool = answered(timeout, "look at its policies", held).await?.get(0);
        Ok(Self {
            hand: Hand::new(session, timeout).await?,
            spare: None,
            source: source.to_owned(),
            entities: mapping.entities(),
            timeout,
            end_lsn,
            is_open: false,
            has_savepoint: false,
            met_existing: false,
            known_to: Lsn::ZERO,
            pending: Totals::default(),
            is_guarded,
            is_copy_refused: is_held,
            tree_size,
            leaves: Leaves::default(),
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
        self.pending.add(batch);
        let plain = batch.names.is_empty()
            && batch.emptied.is_empty()
            && batch.unmapped.is_empty()
            && batch.attempts.is_empty()
            && !self.is_open
            && (!self.may_exist() || batch.events.is_empty());
        match end {
            Some(end) if plain && batch.events.len() <= STATEMENT_EVENTS_MAX => {
                if !self.write_statement(&batch.events, end).await? {
                    self.write_pieces(batch, Some(end)).await?;
                }
            }
            Some(end) if self.fits_whole(batch) => {
                if !self.write_whole(batch, end).await? {
                    self.write_pieces(batch, Some(end)).await?;
                }
            }
            _ => self.write_pieces(batch, end).await?,
        }
        if let Some(end) = end {
            self.committed(end);
        }
        Ok(())
    }

    /// The audit transaction has ended, and progress is there.
    fn committed(&mut self, end: End) {
        self.end_lsn = end.end_lsn;
        self.pending = Totals::default();
        (self.is_open, self.has_savepoint) = (false, false);
    }

    /// A piece of an audit transaction, and its end if this is the last one.
    async fn write_pieces(&mut self, batch: &Batch, end: Option<End>) -> Result<(), WriteError> {
        self.deliver(&batch.events).await?;
        self.empty_names(batch).await?;
        self.write_names(batch, end).await?;
        self.write_unmapped(batch).await?;
        self.write_attempts(batch).await?;
        match end {
            Some(end) => self.advance_and_commit(end).await,
            None => Ok(()),
        }
    }

    /// Whether an INSERT may pass over events: they may be there already, or a trigger may leave them out.
    fn may_exist(&self) -> bool {
        self.met_existing || self.is_guarded || self.end_lsn < self.known_to
    }

    fn fits_whole(&self, batch: &Batch) -> bool {
        let Batch { emptied, unmapped, attempts, .. } = batch;
        let is_plain = emptied.is_empty() && unmapped.is_empty() && attempts.is_empty();
        let is_one_insert = batch.events.len() <= STATEMENT_EVENTS_MAX;
        is_plain && !self.is_open && !self.may_exist() && (is_one_insert || !self.is_copy_refused)
    }

    async fn write_unmapped(&self, batch: &Batch) -> Result<(), WriteError> {
        const QUERY: &str = "INSERT INTO portal_audit.unmapped AS u (source, relation, operation, changes) VALUES ($1, $2, $3, $4) ON CONFLICT (source, relation, operation) DO UPDATE SET changes = u.changes + excluded.changes";
        for ((relation, operation), changes) in &batch.unmapped {
            let operation = Operation::name(*operation);
            let changes = i64::try_from(*changes).unwrap_or(i64::MAX);
            let parameters: [&(dyn ToSql + Sync); 4] =
                [&self.source, &&**relation, &operation, &changes];
            let query = self.hand.session.client.execute(QUERY, &parameters);
            answered(self.timeout, "count unmapped changes", query).await?;
        }
        Ok(())
    }

    async fn open(&mut self) -> Result<(), WriteError> {
        if !self.is_open {
            let begin = self.hand.session.client.batch_execute("BEGIN");
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
mod hand;
mod names;
mod parameters;
mod prepare;
mod reconcile;
mod seal;
mod stale;
mod steps;
mod types;
mod whole;
pub use attempts::Ends;
pub use coverage::load_covered;
pub use diverged::store_timeline;
pub use gap::{begin_anew, count_gaps, open_gap};
use hand::Hand;
pub use names::look_up;
use parameters::{Arrays, Moved};
pub use prepare::{Looked, look, prepare};
use seal::Leaves;
pub use stale::sign_in;
pub use steps::Copied;
pub use types::{KeptType, kept_types, store_event_types};
