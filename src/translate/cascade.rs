//! What went with what: the deletion that explains the other changes of its transaction.
//!
//! The mapping says which rows belong to which (`[[cascade]]`). Of the parents that a transaction deletes, the highest is the cause of all that it took, in whatever order the rows come: a foreign key deletes the parent first, many an object mapper the children.

use super::{caller::joined_key, rule::Condition};
use crate::{
    timestamp::Timestamp,
    tuple::{Operation, Row},
};
use std::collections::HashMap;
use uuid::Uuid;

/// Deleted parents of one transaction that are kept; of more, the children have no cause.
const DELETED_MAX: usize = 100_000;
/// Generations that are climbed.
const GENERATIONS_MAX: usize = 16;

/// Of which rows a table's rows are children and parents: each with the number of its `[[cascade]]` block and the columns that hold the common key.
#[derive(Debug, Default)]
pub struct Kin {
    pub parents: Vec<Link>,
    pub children: Vec<Link>,
}

/// One end of a `[[cascade]]` block.
#[derive(Debug)]
pub struct Link {
    /// Its number in the mapping.
    pub slot: usize,
    pub key: Vec<usize>,
    /// Of the child's end: which rows it is about.
    pub when: Vec<Condition>,
}

/// The deleted parents of a transaction.
#[derive(Debug, Default)]
pub struct Deletions {
    rows: Vec<Deleted>,
    by_key: HashMap<(usize, Vec<u8>), usize>,
}

#[derive(Debug)]
struct Deleted {
    event: Option<Uuid>,
    parents: Vec<(usize, Vec<u8>)>,
}

fn keys(row: &Row<'_>, links: &[Link]) -> Vec<(usize, Vec<u8>)> {
    // No condition here can ask for a time that is past.
    let holds =
        |link: &&Link| link.when.iter().all(|condition| condition.holds(row, Timestamp::default()));
    let links = links.iter().filter(holds);
    links.filter_map(|link| Some((link.slot, joined_key(row, &link.key, true)?))).collect()
}

impl Deletions {
    /// Takes the deletion of a parent before anything is told; `event` is what it will be told as.
    pub fn add(&mut self, kin: &Kin, row: &Row<'_>, event: Option<Uuid>) {
        if self.rows.len() >= DELETED_MAX {
            return;
        }
        let place = self.rows.len();
        self.rows.push(Deleted { event, parents: keys(row, &kin.parents) });
        let children = keys(row, &kin.children);
        self.by_key.extend(children.into_iter().map(|key| (key, place)));
    }

    /// The deletion of a parent was told.
    pub fn told(&mut self, kin: &Kin, row: &Row<'_>, event: Uuid) {
        let places: Vec<usize> = keys(row, &kin.children)
            .iter()
            .filter_map(|key| self.by_key.get(key).copied())
            .collect();
        for place in places {
            if let Some(deleted) = self.rows.get_mut(place) {
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
        let mut parents = keys(row, &kin.parents);
        let mut cause = None;
        for _ in 0..GENERATIONS_MAX {
            let found = parents.iter().find_map(|key| self.by_key.get(key));
            let Some(deleted) = found.and_then(|place| self.rows.get(*place)) else { break };
            cause = deleted.event.or(cause);
            parents.clone_from(&deleted.parents);
        }
        cause
    }
}
