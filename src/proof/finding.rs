//! What `verify` finds, and what it counted.

use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use uuid::Uuid;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A row is not what its leaf was made of. Which column was changed cannot be known.
    Edited,
    /// A row or leaves are gone.
    Missing,
    /// A row is in no tree.
    Inserted,
    /// An event is there twice.
    Duplicated,
    /// A row stands at another's place.
    Reordered,
    /// Leaves at the end of a tree are gone: the database itself knows of more.
    Truncated,
    /// A copy of a checkpoint knows more than the database.
    RolledBack,
    /// The leaves are not those that a checkpoint signed.
    Rewritten,
    /// A checkpoint that no key signed, or that is gone.
    Forged,
    /// The list of what retention and erasure took is not the one that was recorded.
    RemovedEdited,
}

/// One broken thing, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub kind: Kind,
    /// Of `portal_audit.trees`.
    pub tree: Option<String>,
    /// Index of the first bad leaf, from 0.
    pub seq: Option<u64>,
    /// Index of the last leaf that may be meant, where one cannot be told from others.
    pub upto: Option<u64>,
    #[serde(serialize_with = "as_text")]
    pub event_uuid: Option<Uuid>,
    /// A sentence.
    pub what: String,
}

fn as_text<S: Serializer>(event_uuid: &Option<Uuid>, serializer: S) -> Result<S::Ok, S::Error> {
    match event_uuid {
        Some(event_uuid) => serializer.collect_str(event_uuid),
        None => serializer.serialize_none(),
    }
}

/// A checkpoint that everything was compared with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reach {
    pub number: u64,
    pub at: String,
    /// Leaves that came after it.
    pub events_behind: u64,
}

/// The outcome.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    pub findings: Vec<Finding>,
    /// Findings beyond those that are listed.
    pub findings_left_out: u64,
    /// Leaves of each tree.
    pub trees: BTreeMap<String, u64>,
    /// Rows that are what their leaves say.
    pub rows: u64,
    /// Rows that retention took.
    pub rows_removed: u64,
    /// Rows that erasure changed, and are what it recorded.
    pub rows_erased: u64,
    /// Checkpoints of the database, and of copies.
    pub checkpoints: u64,
    pub copies: u64,
    /// Whether signatures were looked at.
    pub is_key_given: bool,
    /// The last checkpoint that holds; `None`: nothing is signed.
    pub reach: Option<Reach>,
    /// What was not looked at, and why.
    pub notes: Vec<String>,
}

/// Most findings that are listed.
const FINDINGS_MAX: usize = 1_000;

impl Report {
    pub fn find(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.findings_left_out += 1;
        }
    }

    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    #[must_use]
    pub fn leaves(&self) -> u64 {
        self.trees.values().sum()
    }
}
