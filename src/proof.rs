//! Proof that nobody edited the record: checkpoints of the trees of leaves in `portal_audit.seals`, and `verify`, which compares leaves, rows and checkpoints.
//!
//! # What is proved, and what is not
//! A leaf stands for a row as it was written. A checkpoint signs all leaves before it. So a row, a leaf or the order of leaves that was changed behind a signed checkpoint is found, by whomever it was changed; what came after the last checkpoint is compared with its own leaves alone, which whoever owns the database can write anew. A copy of the checkpoints outside the database is the witness that nobody took the whole database back.
//! Nobody can know which column of a row was edited: a leaf is one hash over all of them.
//!
//! # Shape
//! [`judge`] is pure: it is fed leaves, rows and what was removed, in the order of the trees, and holds no more than a few thousand at a time. [`live`] feeds it from the audit database, [`file`](mod@file) from a file that [`export`] wrote. [`single`] proves one event. [`keep`] is the sidecar's part: it makes a checkpoint at every interval.

pub mod checkpoint;
pub mod export;
pub mod file;
pub mod finding;
pub mod judge;
pub mod keep;
pub mod live;
pub mod names;
pub mod row;
pub mod show;
pub mod single;
pub mod verbs;

use crate::{
    config::ConfigError,
    connect::{self, ConnectError},
    merkle::Hash,
    note::NoteError,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use std::{fmt::Write as _, io, path::PathBuf};
use uuid::Uuid;

/// Why there is no checkpoint, or nothing can be said of the record.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    #[error("cannot reach the audit database")]
    Connect(#[source] ConnectError),
    #[error("cannot read the audit database: {}{}", connect::describe(report), hint(report))]
    Query { report: tokio_postgres::Error },
    #[error(
        "this login sees only a part of the events, and would take the others for missing. Name one that sees all: --audit \"host=… dbname=… user=…\" (GRANT portal_audit_admin TO it)"
    )]
    SeesPart,
    #[error(
        "tree {tree:?} has {now} leaves and had {size}: the audit database was taken back or cut off. Nothing is signed; run `portal-audit verify`"
    )]
    Shrunk { tree: String, size: u64, now: u64 },
    #[error(
        "tree {tree:?} has no leaf {seq}, and should: nothing is signed; run `portal-audit verify`"
    )]
    Gap { tree: String, seq: u64 },
    #[error("there is no checkpoint {number} in the audit database")]
    NoCheckpoint { number: u64 },
    #[error(
        "checkpoint {number} of the audit database is not the one that was given, or not signed by the given key. Leave --since out to verify the whole"
    )]
    OtherCheckpoint { number: u64 },
    #[error("event {event_uuid} is in no tree")]
    NotSealed { event_uuid: Uuid },
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the key that signs checkpoints cannot be used")]
    Key(#[source] ConfigError),
    #[error("{program} did not take a copy of the checkpoint: {problem}")]
    Command { program: String, problem: String },
    #[error("a row of events cannot be told in UTF-8")]
    Encoding,
    #[error("{}: line {line} is not what `portal-audit proof export` writes", path.display())]
    Line { path: PathBuf, line: u64 },
    #[error(transparent)]
    Note(#[from] NoteError),
}

impl ProofError {
    fn query(report: tokio_postgres::Error) -> Self {
        Self::Query { report }
    }
}

/// The sidecar's own login may write events and not read them.
fn hint(error: &tokio_postgres::Error) -> &'static str {
    match connect::sqlstate_of(error) {
        Some("42501") => {
            ". Name a login that may read all: --audit \"host=… dbname=… user=…\" (GRANT portal_audit_reader TO it)"
        }
        Some("42P01") => ". Run what `portal-audit sql audit` prints on that database",
        _ => "",
    }
}

fn random() -> Result<[u8; 16], ProofError> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_none| NoteError::Random)?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a String takes all");
    }
    text
}

fn unhex_all(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let (pairs, rest) = digits.as_ref()?.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

fn unhex(text: &str) -> Option<Hash> {
    unhex_all(text)?.try_into().ok()
}
