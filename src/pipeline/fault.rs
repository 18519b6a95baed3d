//! Why a source's session ended, and whether waiting can help.

use crate::{
    budget::BudgetError, catalog::CatalogError, config::Source, connect::ConnectError,
    continuity::Refusal, lsn::Lsn, snapshot::SnapshotError, transaction::TransactionError,
    translate::TranslateError, wire::WireError, write::WriteError,
};

/// Why a source's session ended.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("cannot reach the source")]
    Source(#[source] ConnectError),
    #[error("cannot reach the audit database")]
    Audit(#[source] ConnectError),
    #[error("the replication connection failed")]
    Wire(#[source] WireError),
    #[error("the log cannot be read on")]
    NoPublication(#[source] Box<NoPublication>),
    #[error("the source does not fit")]
    Catalog(#[source] CatalogError),
    #[error("changes may be missing")]
    Continuity(#[source] Refusal),
    #[error("the first snapshot failed")]
    Snapshot(#[source] SnapshotError),
    #[error("the stream cannot be read")]
    Transaction(#[source] TransactionError),
    #[error("a transaction cannot be translated")]
    Translate(#[source] TranslateError),
    #[error("events cannot be written")]
    Write(#[source] WriteError),
    /// Not an error of ours or of the source's.
    #[error("the source is being stopped, and does not wait until its backlog is written")]
    SourceStops,
    #[error("{what}")]
    InTheWay {
        what: String,
        #[source]
        source: Box<WireError>,
    },
    #[error("the slot is being given up: it keeps more than limits.wal_budget_bytes")]
    OverBudget,
    #[error("the source refused to look at its slots")]
    Budget(#[source] BudgetError),
    #[error("the source did not answer within {seconds} s")]
    Silent { seconds: u64 },
    #[error("a task of the pipeline ended")]
    Task,
    #[error(
        "a task of the pipeline panicked, which is a fault of portal-audit: nothing behind what is written was confirmed; report what stands above this line"
    )]
    Panic,
}

/// A change was made while there was no publication, and the server cannot read past it: PostgreSQL 14 to 17. From 18 on such changes are passed over without a word.
#[derive(Debug, thiserror::Error)]
#[error(
    "publication \"{publication}\" did not exist, or not yet, when the change at {lsn} was made, and the server cannot read past that. First see that it exists (portal-audit sql source). Then pass over what was changed without it: in the source, SELECT pg_replication_slot_advance('{slot}', pg_current_wal_lsn()); and portal-audit run --accept-gap {source_name}, which records what is missing"
)]
pub struct NoPublication {
    source_name: String,
    publication: String,
    slot: String,
    lsn: Lsn,
    #[source]
    report: WireError,
}

impl Fault {
    /// Whether waiting cannot help, so that a human must. The server's code decides, never its text.
    #[must_use]
    pub fn is_definite(&self) -> bool {
        match self {
            Self::InTheWay { source, .. } => is_definite_code(source.sqlstate()),
            Self::Wire(error) => {
                is_definite_code(error.sqlstate())
                    || matches!(error, WireError::Connect(error) if error.is_definite())
                    || error.is_undecodable()
                    || matches!(error, WireError::Protocol(_) | WireError::Unsupported { .. })
            }
            Self::Source(error) | Self::Audit(error) => {
                is_definite_code(error.sqlstate()) || error.is_definite()
            }
            Self::Catalog(CatalogError::Query { report }) => {
                is_definite_code(crate::connect::sqlstate_of(report))
            }
            Self::Snapshot(error) => {
                is_definite_code(error.sqlstate())
                    || matches!(error, SnapshotError::Mapping(_) | SnapshotError::Row { .. })
            }
            Self::Write(error) => {
                is_definite_code(error.sqlstate())
                    || matches!(error, WriteError::TooLarge | WriteError::Shape { .. })
            }
            Self::Continuity(refusal) => !refusal.finding.may_pass(),
            Self::Transaction(error)
            | Self::Translate(TranslateError::Transaction { source: error, .. }) => {
                !matches!(error, TransactionError::Spool { .. } | TransactionError::SpoolRead(_))
            }
            Self::Catalog(_) | Self::Translate(_) => true,
            Self::SourceStops
            | Self::OverBudget
            | Self::Budget(_)
            | Self::Silent { .. }
            | Self::Task => false,
            Self::NoPublication(_) | Self::Panic => true,
        }
    }

    /// The stage or the database that found it: one of [`crate::metrics::STAGES`].
    pub(super) fn stage(&self) -> &'static str {
        match self {
            Self::Source(_) | Self::Budget(_) | Self::Silent { .. } | Self::SourceStops => "source",
            Self::Audit(_) => "audit",
            Self::Wire(_) | Self::NoPublication(_) | Self::InTheWay { .. } => "wire",
            Self::Catalog(_) => "catalog",
            Self::Continuity(_) | Self::OverBudget => "continuity",
            Self::Snapshot(_) => "snapshot",
            Self::Transaction(_) => "transaction",
            Self::Translate(_) => "translate",
            Self::Write(_) => "write",
            Self::Task | Self::Panic => "pipeline",
        }
    }

    /// Whether another process reads the slot (SQLSTATE 55006), as the one that we stand by for does.
    pub(super) fn is_slot_in_use(&self) -> bool {
        match self {
            Self::InTheWay { source, .. } => source.sqlstate() == Some("55006"),
            Self::Wire(error) => error.sqlstate() == Some("55006"),
            _ => false,
        }
    }

    /// What a broken stream says of a source.
    pub(super) fn of_stream(self, source: &Source) -> Self {
        match self {
            Self::Wire(WireError::Server { ref sqlstate, associated_lsn: Some(lsn), .. })
                if sqlstate == "42704" =>
            {
                let Self::Wire(report) = self else { return self };
                Self::NoPublication(Box::new(NoPublication {
                    source_name: source.name.clone(),
                    publication: source.publication.clone(),
                    slot: source.slot.clone(),
                    lsn,
                    report,
                }))
            }
            fault => fault,
        }
    }
}

/// SQLSTATE classes that no waiting mends (manual, appendix A): feature, data, constraint, authorization, database, syntax and access, object state. 55006 (slot in use) and 55P03 (lock not available) pass. So does 23505: an event is there already, and the first batch of the next session passes over it.
fn is_definite_code(code: Option<&str>) -> bool {
    let Some(code) = code.filter(|code| *code != "23505") else { return false };
    let class = code.get(..2).unwrap_or_default();
    matches!(class, "0A" | "22" | "23" | "28" | "3D" | "42") || code == "55000" || code == "42704"
}
