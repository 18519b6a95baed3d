//! Which leaf is whose: asked only if rows and leaves do not match.

use super::judge::Judge;
use std::collections::BTreeMap;
use uuid::Uuid;

/// How many leaves each event has, and where the first of them is: for a record whose rows and leaves do not match. It takes memory for the name of every event, which the sound case does not.
#[derive(Debug, Default)]
pub struct Names {
    trees: Vec<String>,
    leaves: BTreeMap<Uuid, (u64, usize, u64)>,
    stray: Vec<Uuid>,
}

impl Names {
    /// Leaves of a tree from one on, as the names of their events.
    pub fn leaves(&mut self, tree: &str, first: u64, uuids: &[u8]) {
        if self.trees.last().is_none_or(|last| last != tree) {
            self.trees.push(tree.to_owned());
        }
        let tree = self.trees.len() - 1;
        for (uuid, seq) in uuids.as_chunks::<16>().0.iter().zip(first..) {
            self.leaves.entry(Uuid::from_bytes(*uuid)).or_insert((0, tree, seq)).0 += 1;
        }
    }

    /// A row of `events`, once all leaves are known.
    pub fn row(&mut self, event_uuid: Uuid) {
        if !self.leaves.contains_key(&event_uuid) {
            self.stray.push(event_uuid);
        }
    }

    /// Tells the judge.
    pub fn tell(self, judge: &mut Judge) {
        for (event_uuid, (count, tree, seq)) in self.leaves.iter().filter(|(_, own)| own.0 > 1) {
            let tree = self.trees.get(*tree).map_or("", String::as_str);
            judge.several(*event_uuid, *count, tree, *seq);
        }
        self.stray.iter().for_each(|event_uuid| judge.stray(*event_uuid));
    }
}
