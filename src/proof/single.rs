//! Proves that one event is in its tree: an inclusion proof (RFC 6962, section 2.1.1) towards the first signed checkpoint that covers it.

use super::{
    ProofError, hex,
    live::{Seals, Snapshot},
    row::Row,
};
use crate::{
    connect::Session,
    merkle::{Hash, Prover, is_included},
    note::{Checkpoint, PublicKey, is_signed},
};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

/// All that it takes to check one event without the database, but for the public key.
#[derive(Debug, Serialize)]
pub struct Single {
    pub event_uuid: String,
    pub tree: String,
    /// Index of the leaf.
    pub seq: u64,
    /// The row, as [`export`](super::export) writes rows; absent if it is gone.
    pub row: Option<Value>,
    pub salt: String,
    pub leaf: String,
    /// Leaves of the tree as of the checkpoint.
    pub size: u64,
    /// From the leaf up to the root.
    pub path: Vec<String>,
    /// The note; absent if none covers the event yet.
    pub checkpoint: Option<String>,
    /// What does not hold, if anything.
    pub fault: Option<String>,
    #[serde(skip)]
    number: u64,
}

impl Single {
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.fault.is_none()
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { event_uuid, tree, seq, size, .. } = self;
        let place = format!("Event {event_uuid} is leaf {seq} of tree {tree:?}");
        match &self.fault {
            None => format!(
                "{place}, as it was written, and checkpoint {} signs it: {} hashes lead to the root over {size} leaves.",
                self.number,
                self.path.len()
            ),
            Some(fault) => format!("{place}. NOT PROVED: {fault}."),
        }
    }
}

struct Place {
    tree: String,
    seq: u64,
    salt: [u8; 16],
    leaf: Hash,
}

async fn find(snapshot: &Snapshot<'_>, event_uuid: Uuid) -> Result<Place, ProofError> {
    let query = "SELECT tree, first, uuids, salts, leaves FROM portal_audit.seals WHERE position($1 IN uuids) > 0";
    let bytes: &[u8] = event_uuid.as_bytes();
    let rows = snapshot.transaction.query(query, &[&bytes]).await.map_err(ProofError::query)?;
    for row in &rows {
        let seal = super::live::Seal {
            first: u64::try_from(row.get::<_, i64>(1)).unwrap_or(0),
            uuids: row.get(2),
            salts: row.get(3),
            leaves: row.get(4),
            removals: Vec::new(),
        };
        // The bytes may also be the end of one name and the begin of the next.
        let entry = seal.entries().find(|entry| entry.1 == event_uuid);
        if let Some((seq, _, salt, leaf)) = entry {
            return Ok(Place { tree: row.get(0), seq, salt, leaf });
        }
    }
    Err(ProofError::NotSealed { event_uuid })
}

/// Makes the proof, and checks it.
///
/// # Errors
/// The event is in no tree, or the database refuses.
pub async fn prove(
    session: &mut Session,
    event_uuid: Uuid,
    keys: &[PublicKey],
) -> Result<Single, ProofError> {
    let snapshot = Snapshot::begin(session).await?;
    let Place { tree, seq, salt, leaf } = find(&snapshot, event_uuid).await?;
    let (mut row, mut hash) = (None, None);
    let take = |_, columns: &[Option<&[u8]>]| {
        let mut own = Row::default();
        columns.iter().for_each(|column| own.column(*column));
        (row, hash) = (Row::to_json(columns), Some(own.leaf(&salt)));
    };
    snapshot.rows(&vec![event_uuid], take).await?;
    let covering = snapshot.checkpoints().await?.into_iter().find_map(|kept| {
        let is_sound = keys.is_empty() || is_signed(&kept.note, keys);
        let checkpoint = Checkpoint::parse(&kept.note).ok().filter(|_| is_sound)?;
        let (size, root) = *checkpoint.trees.get(&tree).filter(|(size, _)| *size > seq)?;
        Some((checkpoint.number, kept.note, size, root))
    });
    let mut single = Single {
        event_uuid: event_uuid.to_string(),
        seq,
        salt: hex(&salt),
        leaf: hex(&leaf),
        size: 0,
        path: Vec::new(),
        checkpoint: None,
        fault: None,
        number: 0,
        row,
        tree,
    };
    if hash != Some(leaf) {
        let is_there = hash.is_some();
        let what =
            if is_there { "the row is not the one that was written" } else { "the row is gone" };
        single.fault =
            Some(format!("{what}; `portal-audit verify` says whether retention or erasure did it"));
    }
    let Some((number, note, size, root)) = covering else {
        let none = "no checkpoint signs it yet".to_owned();
        single.fault.get_or_insert(none);
        return Ok(single);
    };
    let path = path(&snapshot, &single.tree, seq, size).await?;
    if !is_included(&leaf, seq, size, &path, &root) {
        single.fault = Some(format!("the leaves are not those of checkpoint {number}"));
    }
    single.path = path.iter().map(|hash| hex(hash)).collect();
    (single.size, single.checkpoint, single.number) = (size, Some(note), number);
    Ok(single)
}

async fn path(
    snapshot: &Snapshot<'_>,
    tree: &str,
    seq: u64,
    size: u64,
) -> Result<Vec<Hash>, ProofError> {
    let Some(mut prover) = Prover::inclusion(seq, size) else { return Ok(Vec::new()) };
    let mut seals = Seals::open(snapshot, tree, 0).await?;
    loop {
        let next = seals.next().await?;
        if next.is_empty() {
            break;
        }
        for seal in &next {
            seal.entries().for_each(|(.., leaf)| prover.push(leaf));
        }
    }
    Ok(prover.finish().unwrap_or_default())
}
