//! Sessions of the audit database for the pages: a few, each used for one request at a time, read-only, and for one viewer.

use super::{Fault, Visitor};
use crate::{
    connect::{self, ConnectError, Session},
    conninfo::ConnInfo,
};
use deadpool::{
    Runtime,
    managed::{Manager, Metrics, Object, Pool, PoolError, RecycleError, RecycleResult},
};
use std::time::Duration;
use tokio_postgres::{Row, types::ToSql};

const SESSIONS_MAX: usize = 4;
/// How long a page may wait for a session.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// How long one statement of a page may take.
pub(super) const STATEMENT_SECONDS_MAX: u32 = 10;
const CANCELED: &str = "57014";

/// Opens sessions.
#[derive(Debug)]
pub(super) struct Opener {
    conninfo: ConnInfo,
}

impl Manager for Opener {
    type Type = Session;
    type Error = ConnectError;

    async fn create(&self) -> Result<Session, ConnectError> {
        Box::pin(connect::connect(&self.conninfo, "pages")).await
    }

    /// A request that ended early leaves its transaction open, and with it whom it was for.
    async fn recycle(&self, session: &mut Session, _: &Metrics) -> RecycleResult<ConnectError> {
        let rolled_back = session.client.batch_execute("ROLLBACK").await;
        rolled_back.map_err(|error| RecycleError::message(connect::describe(&error)))
    }
}

/// The sessions that there are.
#[derive(Debug)]
pub(super) struct Sessions {
    pool: Option<Pool<Opener>>,
}

impl Sessions {
    pub(super) fn new(conninfo: ConnInfo) -> Self {
        let pool = Pool::builder(Opener { conninfo })
            .max_size(SESSIONS_MAX)
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
        const FOR: &str = "SELECT set_config('portal_audit.viewer', $1, true)";
        let pool = self.pool.as_ref().ok_or(Fault::Away)?;
        let session = Box::pin(pool.get()).await.map_err(|error| {
            if let PoolError::Backend(error) = &error {
                let error = crate::chain::chain(error);
                tracing::warn!(error, "the pages cannot reach the audit database");
            }
            Fault::Away
        })?;
        let reader = Reader { session };
        let role = if visitor.sees_all { "portal_audit_reader" } else { "portal_audit_web" };
        let begin = format!(
            "BEGIN READ ONLY; SET LOCAL ROLE {role}; SET LOCAL statement_timeout = '{STATEMENT_SECONDS_MAX}s'"
        );
        let begun = reader.session.client.batch_execute(&begin).await;
        begun.map_err(|error| fault(&error))?;
        reader.rows(FOR, &[&visitor.name]).await?;
        Ok(reader)
    }
}

/// One request's transaction. Dropped, it is rolled back before the session is used again.
#[derive(Debug)]
pub(super) struct Reader {
    session: Object<Opener>,
}

impl Reader {
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
fn fault(error: &tokio_postgres::Error) -> Fault {
    match connect::sqlstate_of(error) {
        None => Fault::Away,
        Some(CANCELED) => Fault::Long,
        Some(code) => {
            tracing::warn!(error = connect::describe(error), "a page could not be read");
            Fault::Refused(code.to_owned())
        }
    }
}
