//! Where an event is in the trees of the record, and which signed checkpoint covers it. Whether all holds, `verify` tells, which has the key.

use super::{Fault, reader::Reader};
use crate::note::Checkpoint;
use uuid::Uuid;

/// The place of an event in its tree.
#[derive(Debug)]
pub(super) struct Proof {
    pub(super) tree: String,
    /// Index of its leaf, from 0.
    pub(super) leaf: i64,
    /// In hexadecimal digits.
    pub(super) hash: String,
    /// Number and time of the first checkpoint that covers it.
    pub(super) checkpoint: Option<(i64, String)>,
}

pub(super) async fn of(reader: &Reader, event: Uuid) -> Result<Option<Proof>, Fault> {
    const QUERY: &str =
        "SELECT tree, leaf, encode(hash, 'hex') FROM portal_audit.place_of($1) LIMIT 1";
    let Some(row) = reader.row(QUERY, &[&event]).await? else { return Ok(None) };
    let (tree, leaf): (String, i64) = (row.get(0), row.get(1));
    let checkpoint = checkpoint(reader, &tree, leaf).await?;
    Ok(Some(Proof { tree, leaf, hash: row.get(2), checkpoint }))
}

/// Trees only grow, and checkpoints are numbered without gaps: the first that covers a leaf is found by halves.
async fn checkpoint(
    reader: &Reader,
    tree: &str,
    leaf: i64,
) -> Result<Option<(i64, String)>, Fault> {
    const LAST: &str = "SELECT coalesce(max(number), 0) FROM portal_audit.checkpoints";
    const NOTE: &str = "SELECT note FROM portal_audit.checkpoints WHERE number = $1";
    let last: i64 = reader.row(LAST, &[]).await?.map_or(0, |row| row.get(0));
    let (mut low, mut high, mut found) = (1, last, None);
    while low <= high {
        let middle = low + (high - low) / 2;
        let note = reader.row(NOTE, &[&middle]).await?;
        let note = note.and_then(|row| Checkpoint::parse(row.get(0)).ok());
        let Some(note) = note else { return Ok(None) };
        let size = note.trees.get(tree).map_or(0, |(size, _)| *size);
        if i64::try_from(size).is_ok_and(|size| size > leaf) {
            (high, found) = (middle - 1, Some((middle, note.at)));
        } else {
            low = middle + 1;
        }
    }
    Ok(found)
}
