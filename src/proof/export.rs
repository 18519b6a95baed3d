//! Writes what proves the record into a file of JSON lines, in one snapshot and constant memory.
//!
//! Each line has a `kind`. In this order: `proof` (the version of this format); each `checkpoint`; then for each tree, in the bytewise order of names, `tree`, and in the order of leaves `removed` (rows of `portal_audit.removed`, each in front of the leaves that it speaks of) and `leaves`; `names` (every event_uuid of `events`); `end`. Bytes are in hexadecimal digits. A row is the list of its columns in the table's order, its timestamp in microseconds since 2000-01-01 00:00 UTC, its payload as text; `null`: there is no such row.

use super::{
    ProofError, hex,
    judge::Removal,
    live::{Seal, Seals, Snapshot},
    row::Row,
};
use crate::connect::Session;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    fs::File,
    io::{BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};
use uuid::Uuid;

/// Leaves of a line.
const LINE_LEAVES: usize = 1_024;

struct Lines<'p> {
    path: &'p Path,
    file: BufWriter<File>,
}

impl Lines<'_> {
    fn put(&mut self, line: &Value) -> Result<(), ProofError> {
        let write = |source| ProofError::Write { path: self.path.to_owned(), source };
        writeln!(self.file, "{line}").map_err(write)
    }
}

/// Writes a new file, and gives the number of leaves in it.
///
/// # Errors
/// The database refuses, or the file cannot be written.
pub async fn export(
    session: &mut Session,
    path: &Path,
    progress: &ProgressBar,
) -> Result<u64, ProofError> {
    let snapshot = Snapshot::begin(session).await?;
    let write = |source| ProofError::Write { path: path.to_owned(), source };
    let mut options = File::options();
    let file = options.write(true).create_new(true).mode(0o600).open(path).map_err(write)?;
    let mut lines = Lines { path, file: BufWriter::new(file) };
    lines.put(&json!({"kind": "proof", "version": 1}))?;
    for kept in snapshot.checkpoints().await? {
        lines.put(&json!({"kind": "checkpoint", "number": kept.number, "note": kept.note}))?;
    }
    let trees = snapshot.trees().await?;
    progress.set_length(trees.values().flatten().sum());
    let mut leaves = 0;
    for (tree, size) in trees {
        lines.put(&json!({"kind": "tree", "tree": tree, "size": size}))?;
        let mut seals = Seals::open(&snapshot, &tree, 0).await?;
        loop {
            let next = seals.next().await?;
            if next.is_empty() {
                break;
            }
            for seal in next {
                let count = put_seal(&snapshot, &mut lines, &seal).await?;
                leaves += count;
                progress.inc(count);
            }
        }
        put_removals(&mut lines, &seals.rest().await?)?;
    }
    let mut names = Vec::new();
    let mut put = Ok(());
    let take = |event_uuid: Uuid| {
        names.extend(event_uuid.as_bytes());
        if names.len() == 16 * LINE_LEAVES && put.is_ok() {
            put = lines.put(&json!({"kind": "names", "uuids": hex(&names)}));
            names.clear();
        }
    };
    snapshot.names(take).await?;
    put?;
    lines.put(&json!({"kind": "names", "uuids": hex(&names)}))?;
    lines.put(&json!({"kind": "end"}))?;
    let file = lines.file.into_inner().map_err(|error| write(error.into_error()))?;
    file.sync_all().map_err(write)?;
    Ok(leaves)
}

fn put_removals(lines: &mut Lines<'_>, removals: &[Removal]) -> Result<(), ProofError> {
    for Removal { event_uuid, first, places, leaves } in removals {
        let (event_uuid, leaves) =
            (event_uuid.to_string(), leaves.as_ref().map(|leaves| hex(leaves)));
        lines.put(&json!({"kind": "removed", "event_uuid": event_uuid, "first": first, "places": places, "leaves": leaves}))?;
    }
    Ok(())
}

async fn put_seal(
    snapshot: &Snapshot<'_>,
    lines: &mut Lines<'_>,
    seal: &Seal,
) -> Result<u64, ProofError> {
    put_removals(lines, &seal.removals)?;
    let mut entries = seal.entries().peekable();
    let mut count = 0;
    while let Some((first, ..)) = entries.peek() {
        let first = *first;
        let part: Vec<_> = entries.by_ref().take(LINE_LEAVES).collect();
        let event_uuids: Vec<Uuid> = part.iter().map(|entry| entry.1).collect();
        let mut rows = HashMap::new();
        let take = |event_uuid, columns: &[Option<&[u8]>]| {
            rows.insert(event_uuid, Row::to_json(columns));
        };
        snapshot.rows(&event_uuids, take).await?;
        let told = event_uuids.iter().map(|event_uuid| match rows.get(event_uuid) {
            None => Ok(Value::Null),
            Some(row) => row.clone().ok_or(ProofError::Encoding),
        });
        let told: Vec<Value> = told.collect::<Result<_, _>>()?;
        let mut columns = [String::new(), String::new(), String::new()];
        let [uuids, salts, leaves] = &mut columns;
        for (_, event_uuid, salt, leaf) in &part {
            uuids.push_str(&hex(event_uuid.as_bytes()));
            salts.push_str(&hex(salt));
            leaves.push_str(&hex(leaf));
        }
        lines.put(&json!({"kind": "leaves", "seal": seal.first, "first": first, "uuids": uuids, "salts": salts, "leaves": leaves, "rows": told}))?;
        count += u64::try_from(part.len()).unwrap_or(0);
    }
    Ok(count)
}
