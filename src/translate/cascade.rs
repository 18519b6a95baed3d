//! What went with what: the deletion that explains the other changes of its transaction.
//!
//! The mapping says which rows belong to which (`[[cascade]]`). Of the parents that a transaction deletes, the highest is the cause of all that it took, in whatever order the rows come: a foreign key deletes the parent first, many an object mapper the children.

use super::{caller::short_key, rule::Condition};
use crate::{
    timestamp::Timestamp,
    tuple::{Operation, Row},
};
use std::{collections::HashMap, ops::Range};
use uuid::Uuid;

/// Deleted parents of one transaction that are kept; of more, the children have no cause.
const DELETED_MAX: usize = 100_000;
/// Generations that are climbed.
const GENERATIONS_MAX: usize = 16;

/// Of which rows a table's rows are children and parents.
#[derive(Debug, Default)]
pub struct Kin {
    pub parents: Vec<Link>,
    pub children: Vec<Link>,
}

/// One end of a `[[cascade]]` block.
#[derive(Debug)]
pub struct Link {
    /// The parent's table and its columns of the common key, as the first `[[cascade]]` block that names both.
    pub slot: usize,
    pub key: Vec<usize>,
    /// Of the child's end: which rows it is about.
    pub when: Vec<Condition>,
}

/// The deleted parents of a transaction: some 100 bytes of each.
#[derive(Debug, Default)]
pub struct Deletions {
    rows: Vec<Deleted>,
    by_key: HashMap<[u8; 16], usize>,
    /// Keys of the parents of `rows`.
    parents: Vec<[u8; 16]>,
}

#[derive(Debug)]
struct Deleted {
    event: Option<Uuid>,
    /// Of [`Deletions::parents`].
    parents: Range<usize>,
}

fn keys(row: &Row<'_>, links: &[Link]) -> impl Iterator<Item = [u8; 16]> {
    // No condition here can ask for a time that is past.
    let holds =
        |link: &&Link| link.when.iter().all(|condition| condition.holds(row, Timestamp::default()));
    let links = links.iter().filter(holds);
    links.filter_map(|link| short_key(link.slot, row, &link.key, true))
}

impl Deletions {
    /// Takes the deletion of a parent before anything is told; `event` is what it will be told as.
    pub fn add(&mut self, kin: &Kin, row: &Row<'_>, event: Option<Uuid>) {
        if self.rows.len() >= DELETED_MAX {
            return;
        }
        let place = self.rows.len();
        let first = self.parents.len();
        self.parents.extend(keys(row, &kin.parents));
        self.rows.push(Deleted { event, parents: first..self.parents.len() });
        self.by_key.extend(keys(row, &kin.children).map(|key| (key, place)));
    }

    /// The deletion of a parent was told.
    pub fn told(&mut self, kin: &Kin, row: &Row<'_>, event: Uuid) {
        for key in keys(row, &kin.children) {
            let place = self.by_key.get(&key).copied();
            if let Some(deleted) = place.and_then(|place| self.rows.get_mut(place)) {
                deleted.event = Some(event);
            }
        }
    }

    /// The event of the highest deleted ancestor of a changed or deleted row.
    #[must_use]
    pub fn cause(&self, kin: &Kin, row: &Row<'_>) -> Option<Uuid> {
        if self.rows.is_empty() || row.operation == Operation::Insert {
            return None;
        }
        let mut found = keys(row, &kin.parents).find_map(|key| self.by_key.get(&key));
        let mut cause = None;
        for _ in 0..GENERATIONS_MAX {
            let Some(deleted) = found.and_then(|place| self.rows.get(*place)) else { break };
            cause = deleted.event.or(cause);
            let parents = self.parents.get(deleted.parents.clone()).unwrap_or_default();
            found = parents.iter().find_map(|key| self.by_key.get(key));
        }
        cause
    }
}
