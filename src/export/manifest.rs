//! What stands beside an export, `FILE.manifest.json`: how many events, of which range, complete to when, and the file's hash.

use super::{ExportError, Format, output, part};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// Everything that is to be known of an export.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: Format,
    /// CSV only: cells are as they are, also those that a spreadsheet takes for formulas.
    pub raw: bool,
    /// Which events were asked for, as the flags of the verb; empty: all.
    pub filter: serde_json::Value,
    pub range: Range,
    /// Up to which commit time the record of each source was complete when the export began; null: nothing is known to be.
    pub complete_to: BTreeMap<String, Option<DateTime<Utc>>>,
    /// Events in the file.
    pub rows: u64,
    pub bytes: u64,
    /// Of the file, in hexadecimal.
    pub sha256: String,
    /// The file is a part: the export was stopped, and `--resume` goes on.
    pub truncated: bool,
    /// The audit database's clock when the export began.
    pub made_at: DateTime<Utc>,
    /// Program and version.
    pub tool: String,
    /// Of the schema portal_audit, as its comment says.
    pub schema: Option<String>,
    /// The event that records this export, if the audit database records them.
    pub recorded_as: Option<String>,
}

/// Which stretch of the record, in the order (timestamp, event_uuid).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// Begins behind this event, if `--after` said so.
    pub after: Option<String>,
    /// Ends before this time; null: with the last event that was there.
    pub before: Option<DateTime<Utc>>,
    /// The record was complete to its end: every later export of this range has the same bytes, unless retention or an erasure changed events.
    pub closed: bool,
    pub first: Option<Place>,
    pub last: Option<Place>,
}

/// An event's place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Place {
    pub timestamp: String,
    pub event_uuid: String,
}

/// Why a file is not what its manifest says.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is no manifest of an export", path.display())]
    NoManifest { path: PathBuf, source: serde_json::Error },
    #[error("{} is a part: its export was stopped after {rows} events", path.display())]
    Truncated { path: PathBuf, rows: u64 },
    #[error("{} has {found} bytes, and its manifest says {wanted}", path.display())]
    Bytes { path: PathBuf, found: u64, wanted: u64 },
    #[error("{} was changed: its SHA-256 is {found}, and its manifest says {wanted}", path.display())]
    Hash { path: PathBuf, found: String, wanted: String },
    #[error("{} has {found} events, and its manifest says {wanted}", path.display())]
    Rows { path: PathBuf, found: u64, wanted: u64 },
    #[error("{} is not {format} to its end", path.display())]
    Form { path: PathBuf, format: Format },
}

/// Where the manifest of a file is.
#[must_use]
pub fn beside(path: &Path) -> PathBuf {
    output::with_end(path, ".manifest.json")
}

impl Manifest {
    /// Reads one.
    pub(super) fn read(path: &Path) -> Result<Self, CheckError> {
        let text = fs::read_to_string(path);
        let text = text.map_err(|source| CheckError::Read { path: path.to_owned(), source })?;
        serde_json::from_str(&text)
            .map_err(|source| CheckError::NoManifest { path: path.to_owned(), source })
    }

    /// Writes it, whole or not at all. As the file, it is its owner's alone.
    pub(super) fn write(&self, path: &Path) -> Result<(), ExportError> {
        let fresh = output::with_end(path, ".new");
        let write = || -> io::Result<()> {
            let mut options = fs::OpenOptions::new();
            let mut file =
                options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            serde_json::to_writer_pretty(&mut file, self)?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&fresh, path)
        };
        write().map_err(|source| ExportError::File { path: path.to_owned(), source })
    }
}

/// Compares a file with its manifest: bytes, hash, and how many events are in it.
///
/// # Errors
/// The first thing that is not as the manifest says.
pub fn check(path: &Path) -> Result<Manifest, CheckError> {
    let manifest = Manifest::read(&beside(path))?;
    let here = || path.to_owned();
    let read = |source| CheckError::Read { path: path.to_owned(), source };
    if manifest.truncated {
        return Err(CheckError::Truncated { path: here(), rows: manifest.rows });
    }
    let (bytes, found) = output::digest(path).map_err(read)?;
    if bytes != manifest.bytes {
        return Err(CheckError::Bytes { path: here(), found: bytes, wanted: manifest.bytes });
    }
    if found != manifest.sha256 {
        let wanted = manifest.sha256;
        return Err(CheckError::Hash { path: here(), found, wanted });
    }
    let whole = part::whole(path, manifest.format).map_err(read)?;
    if whole.bytes != bytes {
        return Err(CheckError::Form { path: here(), format: manifest.format });
    }
    if whole.rows != manifest.rows {
        return Err(CheckError::Rows { path: here(), found: whole.rows, wanted: manifest.rows });
    }
    Ok(manifest)
}
