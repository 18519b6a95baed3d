//! What people ask the log: the verbs `events`, `history` and `stats`. They read as the role that connects, so row-level security decides what they see; and that somebody read is itself recorded.
//!
//! All of one answer is read in one snapshot, and so is how far the record is complete: what is missing from it before that time did not happen.

mod events;
mod follow;
mod history;
mod paint;
mod read;
mod record;
mod row;
mod stats;
mod story;

pub use events::{EventsArguments, Page, page_text};
pub use history::{HistoryArguments, Kind};
pub use paint::Paint;
pub use read::{Abilities, CompleteTo};
pub use row::EventRow;
pub use stats::{StatsArguments, stats_text};
pub use story::{Lifetime, Story, Told, story_text};

use crate::{
    chain::chain,
    config::AuditError,
    connect::{self, ConnectError},
};
use std::{
    io::{self, Write as _},
    process::ExitCode,
};
use uuid::Uuid;

/// A definite fault.
const EXIT_FAULT: u8 = 1;
/// Usage or settings.
const EXIT_SETTINGS: u8 = 2;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// Exit code 2.
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error("cannot reach the audit database")]
    Connect(#[source] ConnectError),
    #[error("cannot read the audit database: {}{}", connect::describe(report), hint(report))]
    Query { report: tokio_postgres::Error },
    #[error("there is no event {event_uuid}, or this role may not see it")]
    NoEvent { event_uuid: Uuid },
    #[error("{function} is missing. Run what `portal-audit sql audit` prints on that database")]
    OldSchema { function: &'static str },
    #[error("cannot write the answer")]
    Output(#[source] io::Error),
    #[error("cannot write the answer as JSON")]
    Json(#[source] serde_json::Error),
}

impl AskError {
    fn query(report: tokio_postgres::Error) -> Self {
        Self::Query { report }
    }
}

/// The sidecar's own login may write events and not read them.
fn hint(error: &tokio_postgres::Error) -> &'static str {
    match connect::sqlstate_of(error) {
        Some("42501") => {
            ". Name a login that may read events: --audit \"host=… dbname=… user=…\" (GRANT portal_audit_reader TO it)"
        }
        Some("42P01" | "3F000") => ". Run what `portal-audit sql audit` prints on that database",
        Some("57014") => ". It took too long: narrow it with --since or another condition",
        _ => "",
    }
}

/// Runs `events` to its exit code.
pub async fn events(arguments: EventsArguments) -> ExitCode {
    finish(events::run(arguments).await)
}

/// Runs `history` to its exit code.
pub async fn history(arguments: HistoryArguments) -> ExitCode {
    finish(history::run(arguments).await)
}

/// Runs `stats` to its exit code.
pub async fn stats(arguments: StatsArguments) -> ExitCode {
    finish(stats::run(arguments).await)
}

fn finish(result: Result<(), AskError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // `| head` has read enough.
        Err(AskError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            tell(&format!("portal-audit: {}", chain(&error)));
            ExitCode::from(if matches!(error, AskError::Usage(_) | AskError::Audit(_)) {
                EXIT_SETTINGS
            } else {
                EXIT_FAULT
            })
        }
    }
}

/// Writes lines of the answer to stdout.
fn print(text: &str) -> Result<(), AskError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(AskError::Output)
}

/// Says on stderr what is beside the answer.
#[expect(clippy::print_stderr, reason = "what is beside the answer, or why there is none")]
fn tell(text: &str) {
    eprintln!("{text}");
}
