//! Verifies a file that [`export`](super::export) wrote: the same judge, no database.

use super::{
    ProofError,
    finding::Report,
    judge::{Entry, Judge, Part, Removal},
    live::{Seal, Wishes},
    names::Names,
    row::Row,
    unhex_all,
};
use crate::merkle::Frontier;
use indicatif::ProgressBar;
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io::{BufRead as _, BufReader},
    path::Path,
};
use uuid::Uuid;

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Line {
    Proof {
        version: u64,
    },
    Checkpoint {
        number: u64,
        note: String,
    },
    Tree {
        tree: String,
        size: Option<u64>,
    },
    Removed {
        event_uuid: String,
        first: u64,
        places: Vec<u32>,
        leaves: Option<String>,
    },
    Leaves {
        seal: u64,
        first: u64,
        uuids: String,
        salts: String,
        leaves: String,
        rows: Vec<Option<Vec<Value>>>,
    },
    Names {
        uuids: String,
    },
    End,
}

/// Gives every line to `take`, which says whether it understood.
fn each(path: &Path, mut take: impl FnMut(Line) -> Option<()>) -> Result<(), ProofError> {
    let read = |source| ProofError::Read { path: path.to_owned(), source };
    let file = BufReader::new(File::open(path).map_err(read)?);
    let (mut number, mut is_ended) = (0, false);
    let fault = |line| ProofError::Line { path: path.to_owned(), line };
    for line in file.lines() {
        number += 1;
        let line: Line =
            serde_json::from_str(&line.map_err(read)?).map_err(|_json| fault(number))?;
        is_ended = matches!(line, Line::End);
        take(line).ok_or_else(|| fault(number))?;
    }
    // A file that was cut off is not a whole one that says less.
    is_ended.then_some(()).ok_or_else(|| fault(number + 1))
}

#[derive(Default)]
struct Reader {
    is_in_tree: bool,
    trees: BTreeSet<String>,
    removals: Vec<Removal>,
    /// Of the seal whose leaves come.
    excuses: HashMap<u32, (Uuid, Option<crate::merkle::Hash>)>,
    seal: Option<u64>,
}

impl Reader {
    fn end_tree(&mut self, judge: &mut Judge) {
        if std::mem::take(&mut self.is_in_tree) {
            judge.removals(u64::MAX, &std::mem::take(&mut self.removals));
            judge.end_tree();
        }
    }

    fn take(&mut self, judge: &mut Judge, line: Line, progress: &ProgressBar) -> Option<()> {
        match line {
            Line::Proof { version } => return (version == 1).then_some(()),
            Line::Checkpoint { number, note } => {
                judge.witness(&format!("checkpoint {number}"), false, &note);
            }
            Line::Tree { tree, size } => {
                self.end_tree(judge);
                (self.is_in_tree, self.seal) = (true, None);
                judge.begin_tree(&tree, size, Frontier::default());
                progress.inc_length(size.unwrap_or(0));
                self.trees.insert(tree);
            }
            Line::Removed { event_uuid, first, places, leaves } => {
                let leaves = match leaves {
                    Some(leaves) => Some(unhex_all(&leaves)?),
                    None => None,
                };
                let event_uuid = event_uuid.parse().ok()?;
                self.removals.push(Removal { event_uuid, first, places, leaves });
            }
            Line::Leaves { seal, first, uuids, salts, leaves, rows } => {
                if self.seal.replace(seal) != Some(seal) {
                    self.excuses = judge.removals(seal, &std::mem::take(&mut self.removals));
                }
                let [uuids, salts, leaves] = [uuids, salts, leaves].map(|text| unhex_all(&text));
                let removals = Vec::new();
                let part = Seal { first, uuids: uuids?, salts: salts?, leaves: leaves?, removals };
                self.judge(judge, &part, first.checked_sub(seal)?, &rows)?;
                progress.inc(u64::try_from(rows.len()).unwrap_or(0));
            }
            Line::Names { uuids } => {
                self.end_tree(judge);
                let uuids = unhex_all(&uuids)?;
                let uuids = uuids.as_chunks::<16>().0.iter();
                uuids.for_each(|uuid| judge.present(Uuid::from_bytes(*uuid)));
            }
            Line::End => {}
        }
        Some(())
    }

    /// `offset`: of the first of these leaves in its seal.
    fn judge(
        &self,
        judge: &mut Judge,
        part: &Seal,
        offset: u64,
        rows: &[Option<Vec<Value>>],
    ) -> Option<()> {
        let offset = u32::try_from(offset).ok()?;
        let entries = part.entries().zip(offset..);
        let entries = entries.map(|((seq, event_uuid, salt, leaf), place)| Entry {
            seq,
            event_uuid,
            salt,
            leaf,
            excuse: self.excuses.get(&place).copied(),
        });
        let mut part = Part::new(entries.collect());
        let mut seen = BTreeSet::new();
        for row in rows.iter().flatten() {
            let (event_uuid, row) = Row::from_json(row)?;
            // The row of an event that has two leaves stands at both.
            if seen.insert(event_uuid) {
                judge.row(&mut part, event_uuid, &row);
            }
        }
        judge.settle(part);
        Some(())
    }
}

/// Compares everything that is in the file.
///
/// # Errors
/// The file cannot be read or is not such a file; what is broken is no error, but in the report.
pub fn verify(path: &Path, wishes: &Wishes, progress: &ProgressBar) -> Result<Report, ProofError> {
    let mut judge = Judge::new(wishes.keys.clone(), super::random()?);
    let mut copies = Some(&wishes.copies);
    let mut reader = Reader::default();
    each(path, |line| {
        if !matches!(line, Line::Proof { .. } | Line::Checkpoint { .. }) {
            for (name, note) in copies.take().into_iter().flatten() {
                judge.witness(name, true, note);
            }
        }
        reader.take(&mut judge, line, progress)
    })?;
    for tree in judge.witnessed_trees() {
        if reader.trees.insert(tree.clone()) {
            judge.begin_tree(&tree, None, Frontier::default());
            judge.end_tree();
        }
    }
    if !judge.is_matched() {
        unmatched(path, &mut judge)?;
    }
    Ok(judge.finish())
}

/// As in [`live`](super::live).
fn unmatched(path: &Path, judge: &mut Judge) -> Result<(), ProofError> {
    let (mut names, mut in_tree) = (Names::default(), String::new());
    each(path, |line| {
        match line {
            Line::Tree { tree, .. } => in_tree = tree,
            Line::Leaves { first, uuids, .. } => {
                names.leaves(&in_tree, first, &unhex_all(&uuids)?);
            }
            Line::Names { uuids } => {
                let uuids = unhex_all(&uuids)?;
                let uuids = uuids.as_chunks::<16>().0.iter();
                uuids.for_each(|uuid| names.row(Uuid::from_bytes(*uuid)));
            }
            _ => {}
        }
        Some(())
    })?;
    names.tell(judge);
    Ok(())
}
