//! Merkle trees as in RFC 6962, section 2.1 (the same in RFC 9162, section 2.1): a tree that grows by leaves, its root, and proofs that a leaf is in it and that one tree begins with another. No IO, no clock, no random number.

use sha2::{Digest as _, Sha256};

/// SHA-256 of a leaf, of a node or of a whole tree.
pub type Hash = [u8; 32];

/// The hash of a leaf: a zero byte in front, so that no leaf can be taken for a node.
#[must_use]
pub fn leaf_hash(parts: &[&[u8]]) -> Hash {
    let mut hash = Sha256::new_with_prefix([0]);
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

/// The hash of a node over its two children.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new_with_prefix([1]).chain_update(left).chain_update(right).finalize().into()
}

/// A tree as its full subtrees, largest first: all that it takes to add leaves and to give the root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// As [`Self::peaks`] gave it; `None` if so many peaks do not make a tree of that size.
    #[must_use]
    pub fn from_peaks(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        (usize::try_from(size.count_ones()) == Ok(peaks.len())).then_some(Self { size, peaks })
    }

    /// Adds a leaf, given as its hash.
    pub fn push(&mut self, leaf: Hash) {
        let mut node = leaf;
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                node = node_hash(&left, &node);
            }
        }
        self.peaks.push(node);
        self.size += 1;
    }

    /// The number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// One hash for each one bit of the size, the highest first.
    #[must_use]
    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// MTH of RFC 6962.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else {
            return Sha256::digest([]).into();
        };
        peaks.fold(*last, |right, left| node_hash(left, &right))
    }
}

/// The largest power of two below a size of at least two.
fn split(size: u64) -> u64 {
    1 << (63 - (size - 1).leading_zeros())
}

/// A subtree: its first leaf and how many it has.
type Range = (u64, u64);

/// `PATH(m, D[n])` of RFC 6962, section 2.1.1, as the subtrees whose roots it holds.
fn inclusion_ranges(leaf: u64, first: u64, size: u64, ranges: &mut Vec<Range>) {
    if size < 2 {
        return;
    }
    let left = split(size);
    if leaf < left {
        inclusion_ranges(leaf, first, left, ranges);
        ranges.push((first + left, size - left));
    } else {
        inclusion_ranges(leaf - left, first + left, size - left, ranges);
        ranges.push((first, left));
    }
}

/// `SUBPROOF(m, D[n], b)` of RFC 6962, section 2.1.2, the same way.
fn consistency_ranges(old: u64, first: u64, size: u64, is_whole: bool, ranges: &mut Vec<Range>) {
    if old == size {
        if !is_whole {
            ranges.push((first, size));
        }
        return;
    }
    let left = split(size);
    if old <= left {
        consistency_ranges(old, first, left, is_whole, ranges);
        ranges.push((first + left, size - left));
    } else {
        consistency_ranges(old - left, first + left, size - left, false, ranges);
        ranges.push((first, left));
    }
}

/// Makes a proof from the leaves of a tree, which pass once and in order.
#[derive(Debug)]
pub struct Prover {
    next: u64,
    size: u64,
    parts: Vec<(Range, Frontier)>,
}

impl Prover {
    /// That leaf `leaf` is in the tree of `size` leaves; `None` if it cannot be.
    #[must_use]
    pub fn inclusion(leaf: u64, size: u64) -> Option<Self> {
        let mut ranges = Vec::new();
        (leaf < size).then(|| inclusion_ranges(leaf, 0, size, &mut ranges))?;
        Some(Self::new(size, ranges))
    }

    /// That the tree of `size` leaves begins with the one of `old`; `None` if it cannot, or if `old` is empty.
    #[must_use]
    pub fn consistency(old: u64, size: u64) -> Option<Self> {
        let mut ranges = Vec::new();
        (0 < old && old <= size).then(|| consistency_ranges(old, 0, size, true, &mut ranges))?;
        Some(Self::new(size, ranges))
    }

    fn new(size: u64, ranges: Vec<Range>) -> Self {
        let parts = ranges.into_iter().map(|range| (range, Frontier::default())).collect();
        Self { next: 0, size, parts }
    }

    /// The next leaf of the tree, given as its hash.
    pub fn push(&mut self, leaf: Hash) {
        let at = self.next;
        let covers = |(first, size): Range| first <= at && at - first < size;
        if let Some((_, part)) = self.parts.iter_mut().find(|(range, _)| covers(*range)) {
            part.push(leaf);
        }
        self.next += 1;
    }

    /// The proof, once all leaves have passed.
    #[must_use]
    pub fn finish(self) -> Option<Vec<Hash>> {
        (self.next >= self.size).then(|| self.parts.iter().map(|(_, part)| part.root()).collect())
    }
}

/// Whether `path` proves that `hash` is leaf `leaf` of the tree of `size` leaves with that root. RFC 9162, section 2.1.3.2.
#[must_use]
pub fn is_included(hash: &Hash, leaf: u64, size: u64, path: &[Hash], root: &Hash) -> bool {
    if leaf >= size {
        return false;
    }
    let (mut node, mut last, mut own) = (leaf, size - 1, *hash);
    for beside in path {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            own = node_hash(beside, &own);
            while node & 1 == 0 && node != 0 {
                (node, last) = (node >> 1, last >> 1);
            }
        } else {
            own = node_hash(&own, beside);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    last == 0 && own == *root
}

/// Whether `path` proves that the second tree, of `(size, root)`, begins with the first. RFC 9162, section 2.1.4.2.
#[must_use]
pub fn is_consistent(first: (u64, Hash), second: (u64, Hash), path: &[Hash]) -> bool {
    if first.0 == second.0 {
        return first.1 == second.1 && path.is_empty();
    }
    if first.0 == 0 || first.0 > second.0 {
        return false;
    }
    let mut path = path.iter();
    let start = if first.0.is_power_of_two() { Some(&first.1) } else { path.next() };
    let Some(start) = start else { return false };
    let (mut node, mut last) = (first.0 - 1, second.0 - 1);
    while node & 1 == 1 {
        (node, last) = (node >> 1, last >> 1);
    }
    let (mut old, mut new) = (*start, *start);
    for beside in path {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            (old, new) = (node_hash(beside, &old), node_hash(beside, &new));
            while node & 1 == 0 && node != 0 {
                (node, last) = (node >> 1, last >> 1);
            }
        } else {
            new = node_hash(&new, beside);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    last == 0 && old == first.1 && new == second.1
}

#[cfg(test)]
mod tests;
