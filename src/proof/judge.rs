//! The judge: fed leaves, rows and removals in the order of the trees, it says what is broken. Pure.

use super::{
    finding::{Finding, Kind, Reach, Report},
    hex,
    row::Row,
    show::leaves,
};
use crate::{
    merkle::{Frontier, Hash},
    note::{Checkpoint, PublicKey, is_signed},
};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;

/// The salt of an event that was erased.
const ZEROS: [u8; 16] = [0; 16];
/// Edited rows of a part whose true place is looked for.
const STRAYS_TRIED_MAX: usize = 16;

/// A leaf as it is stored.
#[derive(Debug, Clone)]
pub struct Entry {
    pub seq: u64,
    pub event_uuid: Uuid,
    pub salt: [u8; 16],
    pub leaf: Hash,
    /// The recording event that says that this row is gone, or changed to one with that leaf.
    pub excuse: Option<(Uuid, Option<Hash>)>,
}

/// A row of `portal_audit.removed`.
#[derive(Debug, Clone)]
pub struct Removal {
    pub event_uuid: Uuid,
    pub first: u64,
    pub places: Vec<u32>,
    pub leaves: Option<Vec<u8>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Whole,
    Erased,
    Edited,
    /// It is what another place of this part was made of.
    At(u64),
}

/// Some leaves that follow each other, and what their rows are.
#[derive(Debug)]
pub struct Part {
    entries: Vec<Entry>,
    places: HashMap<Uuid, usize>,
    found: Vec<Option<Found>>,
    tried: usize,
}

impl Part {
    #[must_use]
    pub fn new(entries: Vec<Entry>) -> Self {
        let places = entries.iter().enumerate().map(|(place, entry)| (entry.event_uuid, place));
        Self { places: places.collect(), found: vec![None; entries.len()], entries, tried: 0 }
    }

    /// Their events.
    #[must_use]
    pub fn event_uuids(&self) -> Vec<Uuid> {
        self.entries.iter().map(|entry| entry.event_uuid).collect()
    }

    fn find(&mut self, event_uuid: Uuid, row: &Row) -> Option<(usize, Found)> {
        let place = *self.places.get(&event_uuid)?;
        let entry = self.entries.get(place)?;
        let found = if row.leaf(&entry.salt) == entry.leaf {
            Found::Whole
        } else if matches!(entry.excuse, Some((_, Some(leaf))) if row.leaf(&ZEROS) == leaf) {
            Found::Erased
        } else {
            self.tried += 1;
            let tried = self.entries.iter().filter(|_| self.tried <= STRAYS_TRIED_MAX);
            let mut fitting = tried.filter(|other| row.leaf(&other.salt) == other.leaf);
            fitting.next().map_or(Found::Edited, |other| Found::At(other.seq))
        };
        Some((place, found))
    }
}

/// A checkpoint that leaves are compared with.
#[derive(Debug, Clone)]
struct Witness {
    name: String,
    is_copy: bool,
    checkpoint: Checkpoint,
    is_broken: bool,
}

/// What one recording event excuses.
#[derive(Debug)]
struct Recorded {
    digest: Sha256,
    first: (String, u64),
    is_used: bool,
}

#[derive(Debug)]
struct Tree {
    name: String,
    stored: Option<u64>,
    frontier: Frontier,
    /// The last size at which a checkpoint agreed.
    agreed: u64,
    is_rewritten: bool,
    /// Size that a checkpoint signs, and which checkpoint; the smallest at the end.
    signed: Vec<(u64, usize)>,
    /// Leaves whose rows are not compared: `--since`.
    skipped: u64,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Judge {
    pub report: Report,
    keys: Vec<PublicKey>,
    witnesses: Vec<Witness>,
    recorded: BTreeMap<Uuid, Recorded>,
    /// Digest of each recording event whose leaf is whole.
    told: HashMap<Uuid, String>,
    tree: Option<Tree>,
    /// Sums over keyed hashes of event_uuid: of leaves whose row is there, and of rows.
    sums: [u128; 2],
    secret: [u8; 16],
    is_partial: bool,
}

fn place(tree: &str, seq: u64) -> Finding {
    Finding {
        kind: Kind::Edited,
        tree: Some(tree.to_owned()),
        seq: Some(seq),
        upto: None,
        event_uuid: None,
        what: String::new(),
    }
}

impl Judge {
    /// `secret`: random bytes, so that nobody can choose rows whose sum is that of others.
    #[must_use]
    pub fn new(keys: Vec<PublicKey>, secret: [u8; 16]) -> Self {
        let report = Report { is_key_given: !keys.is_empty(), ..Report::default() };
        Self {
            report,
            keys,
            witnesses: Vec::new(),
            recorded: BTreeMap::new(),
            told: HashMap::new(),
            tree: None,
            sums: [0; 2],
            secret,
            is_partial: false,
        }
    }

    fn find(&mut self, kind: Kind, at: Finding, what: String) {
        self.report.find(Finding { kind, what, ..at });
    }

    fn find_nowhere(&mut self, kind: Kind, what: String) {
        let nowhere = Finding { tree: None, seq: None, ..place("", 0) };
        self.find(kind, nowhere, what);
    }

    /// A checkpoint: of the database, in the order of numbers, or of a copy. `name`: how people find it.
    pub fn witness(&mut self, name: &str, is_copy: bool, note: &str) {
        let count = if is_copy { &mut self.report.copies } else { &mut self.report.checkpoints };
        *count += 1;
        let expected = self.report.checkpoints;
        let checkpoint = match Checkpoint::parse(note) {
            Ok(checkpoint) => checkpoint,
            Err(error) => return self.find_nowhere(Kind::Forged, format!("{name}: {error}")),
        };
        if !self.keys.is_empty() && !is_signed(note, &self.keys) {
            let what = format!("{name} is not signed by the given key");
            return self.find_nowhere(Kind::Forged, what);
        }
        if !is_copy && checkpoint.number != expected {
            let (number, what) = (checkpoint.number, "is not there: the numbers have no gaps");
            self.find_nowhere(Kind::Forged, format!("checkpoint {expected} {what}"));
            self.report.checkpoints = number;
        }
        self.witnesses.push(Witness {
            name: name.to_owned(),
            is_copy,
            checkpoint,
            is_broken: false,
        });
    }

    /// The trees that checkpoints tell of.
    #[must_use]
    pub fn witnessed_trees(&self) -> Vec<String> {
        let trees = self.witnesses.iter().flat_map(|witness| witness.checkpoint.trees.keys());
        trees.cloned().collect()
    }

    /// Begins a tree; trees come in the bytewise order of their names. `stored`: its size in `portal_audit.trees`. `start`: leaves that are taken as they are, since a checkpoint.
    pub fn begin_tree(&mut self, name: &str, stored: Option<u64>, start: Frontier) {
        let skipped = start.size();
        self.is_partial |= skipped > 0;
        let signed = self.witnesses.iter().enumerate().filter_map(|(place, witness)| {
            let (size, _) = witness.checkpoint.trees.get(name)?;
            (*size >= skipped).then_some((*size, place))
        });
        let mut signed: Vec<(u64, usize)> = signed.collect();
        signed.sort_unstable_by(|one, other| other.cmp(one));
        self.tree = Some(Tree {
            name: name.to_owned(),
            stored,
            frontier: start,
            agreed: skipped,
            is_rewritten: false,
            signed,
            skipped,
        });
        self.compare();
    }

    /// What is removed of the row of `portal_audit.seals` that begins at `seal`: the excuse of each place. Removals come ordered by `first`, then by recording event; those of other seals only count for the digest of their event.
    pub fn removals(
        &mut self,
        seal: u64,
        removals: &[Removal],
    ) -> HashMap<u32, (Uuid, Option<Hash>)> {
        let tree = self.tree.as_ref().map(|tree| tree.name.clone()).unwrap_or_default();
        let mut excuses = HashMap::new();
        for Removal { event_uuid, first, places, leaves } in removals {
            let recorded = self.recorded.entry(*event_uuid).or_insert_with(|| Recorded {
                digest: Sha256::new(),
                first: (tree.clone(), first + u64::from(places.first().copied().unwrap_or(0))),
                is_used: false,
            });
            let listed: Vec<String> = places.iter().map(u32::to_string).collect();
            let leaf_text = leaves.as_ref().map(|leaves| hex(leaves)).unwrap_or_default();
            recorded.digest.update(format!("{tree} {first} {} {leaf_text}\n", listed.join(",")));
            for (at, place) in places.iter().enumerate().filter(|_| *first == seal) {
                let leaf = leaves
                    .as_ref()
                    .map(|leaves| leaves.as_chunks::<32>().0.get(at).copied().unwrap_or_default());
                excuses.insert(*place, (*event_uuid, leaf));
            }
        }
        excuses
    }

    /// The row of an event. A part takes each once.
    pub fn row(&mut self, part: &mut Part, event_uuid: Uuid, row: &Row) {
        let Some((place, found)) = part.find(event_uuid, row) else { return };
        let Some(slot) = part.found.get_mut(place) else { return };
        let is_again = slot.replace(found).is_some();
        let seq = part.entries.get(place).map_or(0, |entry| entry.seq);
        if is_again {
            let at = Finding { event_uuid: Some(event_uuid), ..self.here(seq) };
            self.find(Kind::Duplicated, at, "events has more than one row of it".into());
        }
        let is_own = self.tree.as_ref().is_some_and(|tree| tree.name == crate::note::OWN_TREE);
        if let (Found::Whole, true, Some(digest)) = (found, is_own, &row.digest) {
            self.told.insert(event_uuid, digest.clone());
        }
    }

    fn here(&self, seq: u64) -> Finding {
        place(self.tree.as_ref().map_or("", |tree| &tree.name), seq)
    }

    /// Ends a part, all rows of which were given.
    pub fn settle(&mut self, part: Part) {
        let Part { entries, places, found, .. } = part;
        for (at, entry) in entries.into_iter().enumerate() {
            self.push(entry.seq, entry.leaf);
            let place = places.get(&entry.event_uuid).copied().unwrap_or(at);
            let found = found.get(place).copied().flatten();
            if found.is_some() {
                self.add(0, entry.event_uuid);
            }
            // An event with a second leaf is told by `several`, wherever that leaf is.
            if place == at {
                self.settle_entry(&entry, found);
            }
        }
    }

    fn settle_entry(&mut self, entry: &Entry, found: Option<Found>) {
        let at = Finding { event_uuid: Some(entry.event_uuid), ..self.here(entry.seq) };
        let excuse = entry.excuse.filter(|_| !matches!(found, Some(Found::Whole)));
        if let Some(recorded) = excuse.and_then(|(event, _)| self.recorded.get_mut(&event)) {
            recorded.is_used = true;
        }
        match (found, entry.excuse) {
            (Some(Found::Whole), _) => self.report.rows += 1,
            (Some(Found::Erased), _) => self.report.rows_erased += 1,
            (Some(Found::Edited), _) => {
                let what = "the row is not the one that was written; which column was changed cannot be known";
                self.find(Kind::Edited, at, what.into());
            }
            (Some(Found::At(seq)), _) => {
                let what = format!("the row was written at leaf {seq}, and its name stands here");
                self.find(Kind::Reordered, at, what);
            }
            (None, Some((_, None))) => self.report.rows_removed += 1,
            (None, _) => {
                self.find(Kind::Missing, at, "the row is gone, and nothing records why".into());
            }
        }
    }

    /// Leaves that are taken as they are, to get to where comparing begins.
    pub fn push(&mut self, seq: u64, leaf: Hash) {
        let Some(tree) = &mut self.tree else { return };
        let size = tree.frontier.size();
        if seq != size {
            let (kind, from, upto) = if seq > size {
                (Kind::Missing, size, seq - 1)
            } else {
                (Kind::Duplicated, seq, size - 1)
            };
            let at = Finding { upto: Some(upto), ..place(&tree.name, from) };
            let is_told = std::mem::replace(&mut tree.is_rewritten, true);
            if !is_told {
                self.find(kind, at, format!("leaf {seq} follows where leaf {size} should"));
            }
        }
        let Some(tree) = &mut self.tree else { return };
        tree.frontier.push(leaf);
        self.compare();
    }

    /// Compares the tree with the checkpoints of just its size.
    fn compare(&mut self) {
        let Some(tree) = &mut self.tree else { return };
        let size = tree.frontier.size();
        let mut root = None;
        while let Some((_, at)) = tree.signed.pop_if(|(signed, _)| *signed <= size) {
            let Some(witness) = self.witnesses.get_mut(at) else { continue };
            let root = root.get_or_insert_with(|| tree.frontier.root());
            let signed = witness.checkpoint.trees.get(&tree.name).map(|(_, root)| root);
            if signed == Some(&*root) {
                tree.agreed = size;
                continue;
            }
            witness.is_broken = true;
            if !std::mem::replace(&mut tree.is_rewritten, true) {
                self.report.find(Finding {
                    kind: Kind::Rewritten,
                    upto: Some(size.saturating_sub(1)),
                    what: format!("these leaves are not those of {}: changed, swapped or written anew together with their rows", witness.name),
                    ..place(&tree.name, tree.agreed)
                });
            }
        }
    }

    /// Ends a tree, all leaves of which were given.
    pub fn end_tree(&mut self) {
        let Some(tree) = self.tree.take() else { return };
        let size = tree.frontier.size();
        self.report.trees.insert(tree.name.clone(), size);
        if tree.skipped > 0 {
            let what = format!(
                "rows of the first {} of tree {:?} were not looked at",
                leaves(tree.skipped),
                tree.name
            );
            self.report.notes.push(what);
        }
        let mut claims = Vec::new();
        if let Some(stored) = tree.stored.filter(|stored| *stored != size) {
            claims.push((stored, "portal_audit.trees".to_owned(), false));
        }
        for witness in &mut self.witnesses {
            let claim = witness.checkpoint.trees.get(&tree.name).map_or(0, |(size, _)| *size);
            if claim > size {
                witness.is_broken = true;
                claims.push((claim, witness.name.clone(), witness.is_copy));
            }
        }
        // What the database itself knows says most precisely what was done.
        let known = claims.iter().filter(|(.., is_copy)| !is_copy).max_by_key(|claim| claim.0);
        let claim = known.or_else(|| claims.iter().max_by_key(|claim| claim.0));
        let Some((claim, name, is_copy)) = claim else { return };
        let at = Finding { upto: claim.checked_sub(1), ..place(&tree.name, size.min(*claim)) };
        let what = format!("{name} says {claim} leaves, and there are {size}");
        match is_copy {
            true => self.find(
                Kind::RolledBack,
                at,
                what + ": an older state was restored, or the newest events were cut off",
            ),
            false if *claim > size => {
                self.find(Kind::Truncated, at, what + ": the newest were cut off");
            }
            false => self.find(Kind::Truncated, at, what),
        }
    }

    fn add(&mut self, sum: usize, event_uuid: Uuid) {
        let hash = Sha256::new_with_prefix(self.secret).chain_update(event_uuid).finalize();
        let part = hash.first_chunk().map_or(0, |bytes| u128::from_be_bytes(*bytes));
        if let Some(sum) = self.sums.get_mut(sum) {
            *sum = sum.wrapping_add(part);
        }
    }

    /// The name of every row of `events`, in any order.
    pub fn present(&mut self, event_uuid: Uuid) {
        self.add(1, event_uuid);
    }

    /// Whether all rows were looked at: not since a checkpoint only.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.is_partial
    }

    /// Whether every row has just one leaf.
    #[must_use]
    pub fn is_matched(&self) -> bool {
        self.sums[0] == self.sums[1]
    }

    /// A row that is in no tree.
    pub fn stray(&mut self, event_uuid: Uuid) {
        let nowhere = Finding { tree: None, seq: None, ..place("", 0) };
        let at = Finding { event_uuid: Some(event_uuid), ..nowhere };
        self.find(
            Kind::Inserted,
            at,
            "the row is in no tree: somebody wrote it into events beside the record".into(),
        );
    }

    /// An event with several leaves, and where the first of them is.
    pub fn several(&mut self, event_uuid: Uuid, leaves: u64, tree: &str, seq: u64) {
        let at = Finding { event_uuid: Some(event_uuid), ..place(tree, seq) };
        self.find(Kind::Duplicated, at, format!("the event has {leaves} leaves, this one first"));
    }

    /// The outcome.
    #[must_use]
    pub fn finish(mut self) -> Report {
        for (event_uuid, recorded) in std::mem::take(&mut self.recorded) {
            let digest = hex(&recorded.digest.finalize());
            let what = match self.told.get(&event_uuid) {
                Some(told) if *told == digest => continue,
                // The event may be one of those that were not looked at.
                _ if self.is_partial && !recorded.is_used => continue,
                Some(_) => "is not what the event recorded",
                None => "is recorded by no event that holds",
            };
            let (tree, seq) = recorded.first;
            let at = Finding { event_uuid: Some(event_uuid), ..place(&tree, seq) };
            let what = format!("the list of rows in portal_audit.removed {what}");
            self.find(Kind::RemovedEdited, at, what);
        }
        let holding = self.witnesses.iter().filter(|witness| !witness.is_broken);
        let last = holding.max_by_key(|witness| witness.checkpoint.number);
        self.report.reach = last.map(|Witness { checkpoint, .. }| {
            let signed: u64 = checkpoint.trees.values().map(|(size, _)| *size).sum();
            Reach {
                number: checkpoint.number,
                at: checkpoint.at.clone(),
                events_behind: self.report.leaves().saturating_sub(signed),
            }
        });
        if self.report.is_key_given && self.report.reach.is_none() && self.report.leaves() > 0 {
            let what = "no checkpoint that the given key signed holds";
            self.find_nowhere(Kind::Forged, what.into());
        }
        self.report
    }
}
