//! `export`: events as CSV, JSON Lines, CloudEvents, OCSF or Parquet, streamed in constant memory, with a manifest beside the file.
//!
//! Events come in the order (timestamp, event_uuid), from one snapshot. The range ends where the record of all sources is complete, unless
//! `--open` says otherwise; so two exports of one range have the same bytes, and an export that was stopped goes on where it ended.

mod encode;
mod lines;
mod manifest;
pub mod ocsf;
mod output;
#[cfg(feature = "parquet")]
mod parquet;
mod part;
mod progress;
mod read;
mod row;
mod run;
mod stream;

pub use encode::EncodeError;
pub use lines::is_formula;
pub use manifest::{CheckError, Manifest, Place, Range, beside, check};
pub use row::EventRow;
pub use run::{Exported, export};
pub use stream::Stream;

use crate::{
    chain::chain,
    config::AuditArguments,
    connect::{self, ConnectError},
    filter::Filter,
    show,
};
use serde::{Deserialize, Serialize};
use std::{fmt, io, path::PathBuf, process::ExitCode};
use uuid::Uuid;

/// What a file of events looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// RFC 4180; cells that a spreadsheet would compute begin with an apostrophe
    Csv,
    /// One row a line, byte for byte
    Jsonl,
    /// CloudEvents 1.0, one event a line
    Cloudevents,
    /// OCSF 1.5.0, one event a line
    Ocsf,
    /// Parquet, one column for each of the table's
    #[cfg(feature = "parquet")]
    Parquet,
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Csv => "CSV",
            Self::Jsonl => "JSON Lines",
            Self::Cloudevents => "CloudEvents",
            Self::Ocsf => "OCSF",
            #[cfg(feature = "parquet")]
            Self::Parquet => "Parquet",
        })
    }
}

/// The verb's flags.
#[derive(Debug, clap::Args)]
pub struct ExportArguments {
    /// What the file looks like
    #[arg(long, value_enum, required_unless_present = "check")]
    format: Option<Format>,
    /// The file; FILE.manifest.json is written beside it. Until it is whole it is called FILE.part. Without this the events go to stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Go on with FILE.part, which an export of the same flags left behind
    #[arg(long, requires = "out", conflicts_with = "after")]
    resume: bool,
    /// Replace FILE, and forget FILE.part
    #[arg(long, requires = "out", conflicts_with = "resume")]
    force: bool,
    /// Begin behind this event
    #[arg(long, value_name = "EVENT_UUID")]
    after: Option<Uuid>,
    /// CSV: leave cells as they are, also those that a spreadsheet takes for formulas
    #[arg(long)]
    raw: bool,
    /// Also events later than the record is complete to. A later export of the same range may then have more of them
    #[arg(long)]
    open: bool,
    /// Compare a file with its manifest, and do nothing else
    #[arg(long, value_name = "FILE", conflicts_with_all = ["format", "out", "resume", "force", "after", "raw", "open", "config", "audit"])]
    check: Option<PathBuf>,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    audit: AuditArguments,
}

/// What is asked of an export.
#[derive(Debug, Clone)]
pub struct Request {
    pub format: Format,
    /// `None`: stdout, without a manifest.
    pub out: Option<PathBuf>,
    pub resume: bool,
    pub force: bool,
    pub after: Option<Uuid>,
    pub raw: bool,
    pub open: bool,
    pub filter: Filter,
}

/// Why there is no export.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("cannot reach the audit database")]
    Connect(#[source] ConnectError),
    #[error("cannot read the audit database: {message}{hint}")]
    Query { message: String, hint: &'static str },
    #[error("there is no event {event_uuid}, or this role may not see it")]
    UnknownEvent { event_uuid: Uuid },
    #[error("{} is there. --force replaces it", path.display())]
    FileIsThere { path: PathBuf },
    #[error("{} is there: an export was stopped. --resume goes on with it, --force begins anew", path.display())]
    PartIsThere { path: PathBuf },
    #[error("--resume cannot go on with {}", path.display())]
    NoPart { path: PathBuf, source: CheckError },
    #[error(
        "--resume: the part was begun with another {what}. Say the same flags, or --force to begin anew"
    )]
    OtherPart { what: &'static str },
    #[error("a part of a Parquet file cannot be gone on with. --force begins anew")]
    NotResumable,
    #[error("cannot write {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("cannot write events")]
    Encode(#[source] EncodeError),
}

impl ExportError {
    fn query(error: tokio_postgres::Error) -> Self {
        let hint = match connect::sqlstate_of(&error) {
            Some("42501") => {
                ". Name a login that may read events: --audit \"host=… dbname=… user=…\" (GRANT portal_audit_reader TO it)"
            }
            Some("42P01") => ". Run what `portal-audit sql audit` prints on that database",
            _ => "",
        };
        Self::Query { message: connect::describe(&error), hint }
    }
}

/// A definite fault.
const EXIT_FAULT: u8 = 1;
/// Usage or settings.
const EXIT_SETTINGS: u8 = 2;
/// Stopped by Ctrl-C, as shells say it.
const EXIT_STOPPED: u8 = 130;

/// Runs `export` to its exit code: 0 exported, or the file is what its manifest says; 1 not; 2 usage or settings; 130 stopped by Ctrl-C.
pub async fn run(arguments: ExportArguments) -> ExitCode {
    if let Some(path) = &arguments.check {
        return match check(path) {
            Ok(manifest) => {
                complain(&format!("{}: {}", path.display(), told(&manifest)));
                ExitCode::SUCCESS
            }
            Err(error) => fault(&chain(&error), EXIT_FAULT),
        };
    }
    let audit = match arguments.audit.conninfo() {
        Ok(audit) => audit,
        Err(error) => return fault(&chain(&error), EXIT_SETTINGS),
    };
    let request = Request {
        format: arguments.format.unwrap_or(Format::Jsonl),
        out: arguments.out,
        resume: arguments.resume,
        force: arguments.force,
        after: arguments.after,
        raw: arguments.raw,
        open: arguments.open,
        filter: arguments.filter,
    };
    match Box::pin(export(&audit, request.clone())).await {
        Ok(exported) => finish(&request, &exported),
        Err(error) if is_reader_gone(&error) => ExitCode::SUCCESS,
        Err(error) => fault(&chain(&error), EXIT_FAULT),
    }
}

fn finish(request: &Request, exported: &Exported) -> ExitCode {
    let manifest = &exported.manifest;
    let name = request.out.as_deref().map_or("stdout".into(), |path| path.display().to_string());
    if manifest.truncated {
        complain(&match request.out {
            Some(_) => format!(
                "stopped: {name}.part has {} events. Say --resume to go on",
                show::count(manifest.rows)
            ),
            None => format!("stopped after {} events", show::count(manifest.rows)),
        });
        return ExitCode::from(EXIT_STOPPED);
    }
    complain(&format!("{name}: {}", told(manifest)));
    if let Some(note) = &exported.note {
        complain(note);
    }
    ExitCode::SUCCESS
}

/// A manifest in a line.
fn told(manifest: &Manifest) -> String {
    let rows = show::count(manifest.rows);
    let complete = match (manifest.range.before, manifest.range.closed) {
        (Some(before), true) => {
            format!("complete up to {}", before.format("%Y-%m-%d %H:%M:%SZ"))
        }
        _ => "not known to be complete to its end".to_owned(),
    };
    let bytes = show::bytes(manifest.bytes);
    format!(
        "{rows} events, {bytes} of {}, {complete}, SHA-256 {}",
        manifest.format, manifest.sha256
    )
}

/// `head` and its like close the pipe when they have enough.
fn is_reader_gone(error: &ExportError) -> bool {
    matches!(error, ExportError::Encode(EncodeError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe)
}

fn fault(message: &str, code: u8) -> ExitCode {
    complain(message);
    ExitCode::from(code)
}

#[expect(clippy::print_stderr, reason = "stdout may hold the export")]
fn complain(text: &str) {
    eprintln!("portal-audit: {text}");
}
