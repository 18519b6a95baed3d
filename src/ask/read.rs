//! A connection that reads, and what its role may use.

use super::{AskError, paint};
use crate::{
    config::AuditArguments,
    connect::{self, Session},
    own,
    show::visible,
};
use chrono::{DateTime, Utc};
use serde::Serialize;

/// What the role may use of the schema `portal_audit`; an older schema lacks some of it.
#[derive(Debug, Clone, Default)]
pub struct Abilities {
    pub role: String,
    /// `portal_audit.describe`.
    pub describes: bool,
    /// `portal_audit.event_types`.
    pub reads_types: bool,
    /// `portal_audit.progress`.
    pub reads_progress: bool,
    /// `portal_audit.seals` and `trees`: the order in which events were written.
    pub reads_seals: bool,
    /// `portal_audit.project_things`, and up to when it is whole.
    pub reads_things: bool,
    /// `portal_audit.stats` and `totals`.
    pub counts: bool,
    /// `portal_audit.record_read`.
    pub records: bool,
    /// Policies hide rows from it, and it may ask for its own: [`crate::own`].
    pub is_viewer: bool,
}

/// How far the record of a source is complete.
#[derive(Debug, Clone, Serialize)]
pub struct CompleteTo {
    pub source: String,
    pub complete_to: Option<DateTime<Utc>>,
}

/// A session of one verb.
#[derive(Debug)]
pub(super) struct Reader {
    pub session: Session,
    pub abilities: Abilities,
    /// The database's clock when it began.
    pub now: DateTime<Utc>,
}

const ABILITIES: &str = "
SELECT current_user::text,
       coalesce(has_function_privilege(to_regproc('portal_audit.describe'), 'EXECUTE'), false),
       coalesce(has_table_privilege(to_regclass('portal_audit.event_types'), 'SELECT'), false),
       coalesce(has_any_column_privilege(to_regclass('portal_audit.progress'), 'SELECT'), false),
       coalesce(has_table_privilege(to_regclass('portal_audit.seals'), 'SELECT')
                AND has_table_privilege(to_regclass('portal_audit.trees'), 'SELECT'), false),
       coalesce(has_table_privilege(to_regclass('portal_audit.project_things'), 'SELECT')
                AND has_table_privilege(to_regclass('portal_audit.things_folded'), 'SELECT')
                AND has_function_privilege(to_regproc('portal_audit.things_to'), 'EXECUTE'), false),
       coalesce(has_function_privilege(to_regproc('portal_audit.stats'), 'EXECUTE')
                AND has_function_privilege(to_regproc('portal_audit.totals'), 'EXECUTE'), false),
       coalesce(has_function_privilege(to_regproc('portal_audit.record_read'), 'EXECUTE'), false),
       now()";

impl Reader {
    /// Connects, and begins a snapshot that all reading shares.
    pub(super) async fn open(audit: &AuditArguments, purpose: &str) -> Result<Self, AskError> {
        let conninfo = audit.conninfo()?;
        let session = connect::connect(&conninfo, purpose).await.map_err(AskError::Connect)?;
        let client = &session.client;
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        client.batch_execute(begin).await.map_err(AskError::query)?;
        let row = client.query_one(ABILITIES, &[]).await.map_err(AskError::query)?;
        let abilities = Abilities {
            role: row.get(0),
            describes: row.get(1),
            reads_types: row.get(2),
            reads_progress: row.get(3),
            reads_seals: row.get(4),
            reads_things: row.get(5),
            counts: row.get(6),
            records: row.get(7),
            is_viewer: own::is_viewer(client).await.map_err(AskError::query)?,
        };
        let now = row.get(8);
        Ok(Self { session, abilities, now })
    }

    /// Ends the snapshot.
    pub(super) async fn close(&self) -> Result<(), AskError> {
        self.session.client.batch_execute("COMMIT").await.map_err(AskError::query)
    }

    /// How far each source's record is complete, as of the snapshot.
    pub(super) async fn complete_to(&self) -> Result<Vec<CompleteTo>, AskError> {
        const QUERY: &str = "SELECT source, complete_to FROM portal_audit.progress ORDER BY source";
        if !self.abilities.reads_progress {
            return Ok(Vec::new());
        }
        let rows = self.session.client.query(QUERY, &[]).await.map_err(AskError::query)?;
        let rows = rows.iter();
        Ok(rows.map(|row| CompleteTo { source: row.get(0), complete_to: row.get(1) }).collect())
    }
}

/// The same as a sentence; what it does not say is not known.
pub(super) fn complete_text(all: &[CompleteTo]) -> String {
    if all.is_empty() {
        return "complete to: not known, for no source is followed or this role may not see it"
            .to_owned();
    }
    let each = all.iter().map(|CompleteTo { source, complete_to }| {
        let to = complete_to.map_or_else(|| "not yet known".to_owned(), paint::second);
        format!("{to} ({})", visible(source))
    });
    format!("complete to {}", each.collect::<Vec<_>>().join(", "))
}
