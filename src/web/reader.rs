//! Sessions of the audit database for the pages: a few, each used for one request at a time, read-only, and for one viewer.

use super::{Fault, Visitor};
use crate::{
    connect::{self, ConnectError, Session},
    conninfo::ConnInfo,
};
use deadpool::{
    Runtime,
    managed::{
        Manager, Metrics, Object, Pool, PoolError, RecycleError, RecycleResult, TimeoutType,
    },
};
use futures_util::FutureExt as _;
use std::time::Duration;
use tokio_postgres::{
    Row,
    types::{Json, ToSql},
};

pub(super) const SESSIONS_MAX: usize = 4;
/// Exports at a time, on sessions of their own, so that pages are never without one.
pub(super) const EXPORTS_MAX: usize = 2;
/// How long a page may wait for a session.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// How long one statement of a page may take.
pub(super) const STATEMENT_SECONDS_MAX: u32 = 10;
/// An export takes as long as its reader takes; the connection's end ends it.
const EXPORT_SECONDS_MAX: u32 = 3_600;
const CANCELED: &str = "57014";
/// In place of an SQLSTATE that is not known.
pub(super) const UNSAID: &str = "not said";

/// Opens sessions.
#[derive(Debug)]
pub(super) struct Opener {
    conninfo: ConnInfo,
}

impl Manager for Opener {
    type Type = Session;
    type Error = ConnectError;

    async fn create(&self) -> Result<Session, ConnectError> {
        // In a box: a session that is opened takes much room in every page otherwise.
        Box::pin(connect::connect(&self.conninfo, "pages")).await
    }

    /// Its last reader has rolled back; what is asked next comes behind that.
    async fn recycle(&self, session: &mut Session, _: &Metrics) -> RecycleResult<ConnectError> {
        if session.client.is_closed() { Err(RecycleError::message("closed")) } else { Ok(()) }
    }
}

/// The sessions that there are.
#[derive(Debug)]
pub(super) struct Sessions {
    pool: Option<Pool<Opener>>,
}

impl Sessions {
    pub(super) fn new(conninfo: ConnInfo, max: usize) -> Self {
        let pool = Pool::builder(Opener { conninfo })
            .max_size(max)
            .wait_timeout(Some(WAIT_MAX))
            .create_timeout(Some(WAIT_MAX))
            .recycle_timeout(Some(WAIT_MAX))
            .runtime(Runtime::Tokio1)
            .build();
        // It fails for a pool without a runtime only.
        Self { pool: pool.ok() }
    }

    /// A read-only transaction that sees what `visitor` may see: the login itself has no right to read, and takes one of two roles for as long as the transaction lasts.
    pub(super) async fn read(&self, visitor: &Visitor) -> Result<Reader, Fault> {
        self.begin(visitor, "READ ONLY", STATEMENT_SECONDS_MAX).await
    }

    /// The same for an export: one answer, however long it is.
    pub(super) async fn read_long(&self, visitor: &Visitor) -> Result<Reader, Fault> {
        self.begin(visitor, "READ ONLY", EXPORT_SECONDS_MAX).await
    }

    /// Has a read recorded as an event: `what` is `log_read` or `log_exported`. `rows`: `None` where their number is not known yet.
    pub(super) async fn record(
        &self,
        visitor: &Visitor,
        what: &str,
        filter: &serde_json::Value,
        rows: Option<u64>,
    ) -> Result<(), Fault> {
        const RECORD: &str = "SELECT portal_audit.record_read($1, $2, $3)";
        let writer = self.begin(visitor, "READ WRITE", STATEMENT_SECONDS_MAX).await?;
        let rows = rows.and_then(|rows| i64::try_from(rows).ok());
        writer.rows(RECORD, &[&what, &Json(filter), &rows]).await?;
        writer.commit().await
    }

    async fn begin(&self, visitor: &Visitor, mode: &str, seconds: u32) -> Result<Reader, Fault> {
        const FOR: &str = "SELECT set_config('portal_audit.viewer', $1, true)";
        let pool = self.pool.as_ref().ok_or(Fault::Away)?;
        let session = Box::pin(pool.get()).await.map_err(|error| {
            if let PoolError::Backend(error) = &error {
                let error = crate::chain::chain(error);
                tracing::warn!(error, "the pages cannot reach the audit database");
            }
            if matches!(error, PoolError::Timeout(TimeoutType::Wait)) {
                Fault::Busy
            } else {
                Fault::Away
            }
        })?;
        let reader = Reader { session, is_open: true };
        let role = if visitor.sees_all { "portal_audit_reader" } else { "portal_audit_web" };
        // Compiling a plan takes longer than a page may.
        let begin = format!(
            "BEGIN {mode}; SET LOCAL ROLE {role}; SET LOCAL statement_timeout = '{seconds}s'; SET LOCAL jit = off"
        );
        let begun = reader.session.client.batch_execute(&begin).await;
        begun.map_err(|error| fault(&error))?;
        reader.rows(FOR, &[&visitor.name]).await?;
        Ok(reader)
    }
}

/// One request's transaction. Dropped, it is rolled back at once: a session that waits in a transaction holds locks, on which a new version of the schema would wait.
#[derive(Debug)]
pub(super) struct Reader {
    session: Object<Opener>,
    is_open: bool,
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.is_open {
            // Asked once, it is sent; nobody needs the answer.
            drop(self.session.client.batch_execute("ROLLBACK").now_or_never());
        }
    }
}

impl Reader {
    async fn commit(mut self) -> Result<(), Fault> {
        let committed = self.session.client.batch_execute("COMMIT").await;
        self.is_open = committed.is_err();
        committed.map_err(|error| fault(&error))
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// Sets something for the rest of the transaction.
    pub(super) async fn set(&self, setting: &'static str) -> Result<(), Fault> {
        let set = self.session.client.batch_execute(&format!("SET LOCAL {setting}")).await;
        set.map_err(|error| fault(&error))
    }

    pub(super) async fn rows(
        &self,
        query: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Fault> {
        self.session.client.query(query, parameters).await.map_err(|error| fault(&error))
    }

    pub(super) async fn row(
        &self,
        query: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, Fault> {
        self.session.client.query_opt(query, parameters).await.map_err(|error| fault(&error))
    }
}

/// Without the server's text, which may quote a row.
pub(super) fn fault(error: &tokio_postgres::Error) -> Fault {
    match connect::sqlstate_of(error) {
        None => Fault::Away,
        Some(CANCELED) => Fault::Long,
        Some(code) => {
            tracing::warn!(error = connect::describe(error), "a page could not be read");
            Fault::Refused(code.to_owned())
        }
    }
}
