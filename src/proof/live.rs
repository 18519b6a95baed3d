//! Reads trees, rows, removals and checkpoints from the audit database, in one snapshot and in the order of the trees, a few thousand leaves at a time.

use super::{
    ProofError,
    finding::Report,
    judge::{Entry, Judge, Part, Removal},
    names::Names,
    row::{COLUMNS, COLUMNS_COUNT, Row},
};
use crate::{
    connect::Session,
    merkle::{Frontier, Hash},
    note::{Checkpoint, PublicKey, is_signed},
};
use futures_util::{TryStreamExt as _, pin_mut};
use std::{
    collections::{BTreeMap, VecDeque},
    error::Error,
};
use tokio_postgres::{
    IsolationLevel, Portal, Statement, Transaction,
    types::{FromSql, ToSql, Type},
};
use uuid::Uuid;

/// Leaves whose rows are asked for at once.
pub const PART_LEAVES: usize = 8_192;
/// Rows of `portal_audit.seals` and `.removed` that are fetched at once.
const SEALS_MAX: usize = 2_048;
const REMOVED_MAX: i32 = 256;
/// Names of rows that are fetched at once where they are looked for one by one.
const NAMES_MAX: i32 = 16_384;

/// A column as the server sends it.
pub(super) struct Raw<'a>(pub(super) &'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// A row of `portal_audit.seals`, with what was removed of it.
#[derive(Debug)]
pub struct Seal {
    pub first: u64,
    pub uuids: Vec<u8>,
    pub salts: Vec<u8>,
    pub leaves: Vec<u8>,
    pub removals: Vec<Removal>,
}

fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

impl Seal {
    /// Number, event, salt and leaf of each; as far as the three fit together.
    pub fn entries(&self) -> impl Iterator<Item = (u64, Uuid, [u8; 16], Hash)> + '_ {
        let uuids = self.uuids.as_chunks::<16>().0;
        let salts = self.salts.as_chunks::<16>().0;
        let leaves = self.leaves.as_chunks::<32>().0;
        let entries = uuids.iter().zip(salts).zip(leaves).zip(self.first..);
        entries.map(|(((uuid, salt), leaf), seq)| (seq, Uuid::from_bytes(*uuid), *salt, *leaf))
    }

    /// The leaves for the judge.
    pub fn judged(&self, judge: &mut Judge) -> Vec<Entry> {
        let excuses = judge.removals(self.first, &self.removals);
        let entries = self.entries().zip(0_u32..);
        let entries = entries.map(|((seq, event_uuid, salt, leaf), place)| Entry {
            seq,
            event_uuid,
            salt,
            leaf,
            excuse: excuses.get(&place).copied(),
        });
        entries.collect()
    }
}

/// One snapshot of the audit database.
pub(super) struct Snapshot<'a> {
    pub(super) transaction: Transaction<'a>,
    rows: Statement,
}

impl<'a> Snapshot<'a> {
    /// # Errors
    /// The database refuses, or the login sees only a part of the rows.
    pub(super) async fn begin(session: &'a mut Session) -> Result<Self, ProofError> {
        let build = session.client.build_transaction();
        let build = build.isolation_level(IsolationLevel::RepeatableRead).read_only(true);
        let transaction = build.start().await.map_err(ProofError::query)?;
        // Thousands of rows are asked for by their key: statistics that are missing yet must not make that a scan of the table.
        let pinned = "SET LOCAL enable_seqscan = off; SET LOCAL jit = off";
        transaction.batch_execute(pinned).await.map_err(ProofError::query)?;
        let policy = "SELECT to_regprocedure('portal_audit.sees_all()') IS NOT NULL";
        let row = transaction.query_one(policy, &[]).await.map_err(ProofError::query)?;
        if row.get(0) {
            let row = transaction.query_one("SELECT portal_audit.sees_all()", &[]).await;
            if !row.map_err(ProofError::query)?.get::<_, bool>(0) {
                return Err(ProofError::SeesPart);
            }
        }
        let query = format!("SELECT {COLUMNS} FROM public.events WHERE event_uuid = ANY($1)");
        let rows = transaction.prepare(&query).await.map_err(ProofError::query)?;
        Ok(Self { transaction, rows })
    }

    async fn query(
        &self,
        query: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<tokio_postgres::Row>, ProofError> {
        self.transaction.query(query, parameters).await.map_err(ProofError::query)
    }

    /// The trees and their sizes; `None` for one that has leaves and is not listed.
    ///
    /// # Errors
    /// The database refuses.
    pub(super) async fn trees(&self) -> Result<BTreeMap<String, Option<u64>>, ProofError> {
        let query = "SELECT tree, size FROM portal_audit.trees UNION ALL SELECT DISTINCT tree, NULL::bigint FROM (SELECT tree FROM portal_audit.seals UNION ALL SELECT tree FROM portal_audit.removed) AS leaves WHERE tree NOT IN (SELECT tree FROM portal_audit.trees)";
        let rows = self.query(query, &[]).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get::<_, Option<i64>>(1).map(count))).collect())
    }

    /// Number, note and frontiers of each checkpoint, in order.
    ///
    /// # Errors
    /// The database refuses.
    pub(super) async fn checkpoints(&self) -> Result<Vec<Kept>, ProofError> {
        let query = "SELECT number, note, frontiers FROM portal_audit.checkpoints ORDER BY number";
        let rows = self.query(query, &[]).await?;
        let kept = rows.iter().map(|row| Kept {
            number: count(row.get(0)),
            note: row.get(1),
            frontiers: row.get(2),
        });
        Ok(kept.collect())
    }

    /// Gives the rows of some events to `take`, in any order, each as its columns.
    ///
    /// # Errors
    /// The database refuses.
    pub(super) async fn rows(
        &self,
        event_uuids: &Vec<Uuid>,
        mut take: impl FnMut(Uuid, &[Option<&[u8]>]),
    ) -> Result<(), ProofError> {
        let rows = self.transaction.query_raw(&self.rows, [event_uuids]).await;
        let rows = rows.map_err(ProofError::query)?;
        pin_mut!(rows);
        while let Some(row) = rows.try_next().await.map_err(ProofError::query)? {
            let mut columns = [None; COLUMNS_COUNT];
            for (place, column) in columns.iter_mut().enumerate() {
                *column = row.get::<_, Option<Raw<'_>>>(place).map(|raw| raw.0);
            }
            take(row.get(0), &columns);
        }
        Ok(())
    }

    /// Gives the name of every row of `events` to `take`.
    ///
    /// # Errors
    /// The database refuses.
    pub(super) async fn names(&self, mut take: impl FnMut(Uuid)) -> Result<(), ProofError> {
        let query = "SELECT event_uuid FROM public.events";
        let portal = self.transaction.bind(query, &[]).await.map_err(ProofError::query)?;
        loop {
            let rows = self.transaction.query_portal(&portal, NAMES_MAX).await;
            let rows = rows.map_err(ProofError::query)?;
            if rows.is_empty() {
                return Ok(());
            }
            rows.iter().for_each(|row| take(row.get(0)));
        }
    }
}

/// A row of `portal_audit.checkpoints`.
#[derive(Debug)]
pub struct Kept {
    pub number: u64,
    pub note: String,
    pub frontiers: serde_json::Value,
}

impl Kept {
    /// The frontier of each tree, as far as it is the one that the note signs: whoever can write the table cannot choose it.
    #[must_use]
    pub fn frontiers(&self, checkpoint: &Checkpoint) -> BTreeMap<String, Frontier> {
        let frontiers = checkpoint.trees.iter().filter_map(|(tree, (size, root))| {
            let peaks = self.frontiers.get(tree)?.as_array()?;
            let peaks: Option<Vec<Hash>> =
                peaks.iter().map(|peak| super::unhex(peak.as_str()?)).collect();
            let frontier = Frontier::from_peaks(*size, peaks?)?;
            (frontier.root() == *root).then(|| (tree.clone(), frontier))
        });
        frontiers.collect()
    }
}

/// The rows of one tree's seals from a leaf on, with their removals.
pub(super) struct Seals<'s, 'a> {
    snapshot: &'s Snapshot<'a>,
    seals: Portal,
    removed: Portal,
    removals: VecDeque<Removal>,
    is_removed_read: bool,
    fetch: usize,
}

impl<'s, 'a> Seals<'s, 'a> {
    /// # Errors
    /// The database refuses.
    pub(super) async fn open(
        snapshot: &'s Snapshot<'a>,
        tree: &str,
        from: u64,
    ) -> Result<Self, ProofError> {
        let bind = async |query: &str, parameters: &[&(dyn ToSql + Sync)]| {
            snapshot.transaction.bind(query, parameters).await.map_err(ProofError::query)
        };
        let start = i64::try_from(from).unwrap_or(i64::MAX);
        let query = "SELECT first, uuids, salts, leaves FROM portal_audit.seals WHERE tree = $1 AND first >= $2 ORDER BY first";
        let seals = bind(query, &[&tree, &start]).await?;
        let query = "SELECT event_uuid, first, places, leaves FROM portal_audit.removed WHERE tree = $1 ORDER BY first, event_uuid";
        let removed = bind(query, &[&tree]).await?;
        let removals = VecDeque::new();
        Ok(Self { snapshot, seals, removed, removals, is_removed_read: false, fetch: 8 })
    }

    /// The next seals; none at the end.
    ///
    /// # Errors
    /// The database refuses.
    pub(super) async fn next(&mut self) -> Result<Vec<Seal>, ProofError> {
        let fetch = i32::try_from(self.fetch).unwrap_or(i32::MAX);
        let rows = self.snapshot.transaction.query_portal(&self.seals, fetch).await;
        let rows = rows.map_err(ProofError::query)?;
        let mut seals = Vec::with_capacity(rows.len());
        for row in &rows {
            let (first, uuids): (i64, Vec<u8>) = (row.get(0), row.get(1));
            let first = count(first);
            let removals = self.removals_upto(first).await?;
            seals.push(Seal { first, uuids, salts: row.get(2), leaves: row.get(3), removals });
        }
        let leaves: usize = seals.iter().map(|seal| seal.leaves.len() / 32).sum();
        let mean = leaves.checked_div(seals.len()).unwrap_or(0).max(1);
        self.fetch = (PART_LEAVES / mean).clamp(1, SEALS_MAX);
        Ok(seals)
    }

    /// Removals up to a seal; the judge counts them, and only those of that very seal excuse anything.
    async fn removals_upto(&mut self, first: u64) -> Result<Vec<Removal>, ProofError> {
        let mut removals = Vec::new();
        loop {
            if self.removals.is_empty() && !self.is_removed_read {
                self.fetch_removals().await?;
            }
            match self.removals.front() {
                Some(next) if next.first <= first => removals.extend(self.removals.pop_front()),
                _ => return Ok(removals),
            }
        }
    }

    /// Removals behind the last seal.
    ///
    /// # Errors
    /// The database refuses.
    pub(super) async fn rest(&mut self) -> Result<Vec<Removal>, ProofError> {
        self.removals_upto(u64::MAX).await
    }

    async fn fetch_removals(&mut self) -> Result<(), ProofError> {
        let rows = self.snapshot.transaction.query_portal(&self.removed, REMOVED_MAX).await;
        let rows = rows.map_err(ProofError::query)?;
        self.is_removed_read = rows.is_empty();
        self.removals.extend(rows.iter().map(|row| {
            let places: Vec<i32> = row.get(2);
            Removal {
                event_uuid: row.get(0),
                first: count(row.get(1)),
                places: places.iter().filter_map(|place| u32::try_from(*place).ok()).collect(),
                leaves: row.get(3),
            }
        }));
        Ok(())
    }
}

/// From where `verify` compares.
#[derive(Debug, Clone)]
pub enum Since {
    /// A checkpoint of the database.
    Number(u64),
    /// A copy of one.
    Note(String),
}

/// What `verify` is asked for.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    pub keys: Vec<PublicKey>,
    /// Name and text of each copy of a checkpoint.
    pub copies: Vec<(String, String)>,
    pub since: Option<Since>,
}

/// Compares everything.
///
/// # Errors
/// The database refuses; what is broken is no error, but in the report.
pub async fn verify(
    session: &mut Session,
    wishes: &Wishes,
    progress: &indicatif::ProgressBar,
) -> Result<Report, ProofError> {
    let snapshot = Snapshot::begin(session).await?;
    let mut judge = Judge::new(wishes.keys.clone(), super::random()?);
    let kept = snapshot.checkpoints().await?;
    let starts = match &wishes.since {
        Some(since) => starts(since, &kept, &wishes.keys)?,
        None => BTreeMap::new(),
    };
    for Kept { number, note, .. } in &kept {
        judge.witness(&format!("checkpoint {number}"), false, note);
    }
    for (name, note) in &wishes.copies {
        judge.witness(name, true, note);
    }
    let mut trees = snapshot.trees().await?;
    progress.set_length(trees.values().flatten().sum());
    for tree in judge.witnessed_trees() {
        trees.entry(tree).or_default();
    }
    for (tree, stored) in trees {
        let start = starts.get(&tree).cloned().unwrap_or_default();
        verify_tree(&snapshot, &mut judge, &tree, stored, start, progress).await?;
    }
    if judge.is_whole() {
        snapshot.names(|event_uuid| judge.present(event_uuid)).await?;
        if !judge.is_matched() {
            unmatched(&snapshot, &mut judge).await?;
        }
    } else {
        judge.report.notes.push("rows that are in no tree were not looked for".to_owned());
    }
    Ok(judge.finish())
}

/// The frontiers as of a checkpoint.
fn starts(
    since: &Since,
    kept: &[Kept],
    keys: &[PublicKey],
) -> Result<BTreeMap<String, Frontier>, ProofError> {
    let of = |note: &str| Checkpoint::parse(note).map_err(ProofError::Note);
    let (number, given) = match since {
        Since::Number(number) => (*number, None),
        Since::Note(note) => (of(note)?.number, Some(of(note)?)),
    };
    let row = kept.iter().find(|row| row.number == number);
    let row = row.ok_or(ProofError::NoCheckpoint { number })?;
    let checkpoint = of(&row.note)?;
    let is_sound = keys.is_empty() || is_signed(&row.note, keys);
    if !is_sound || given.is_some_and(|given| given != checkpoint) {
        return Err(ProofError::OtherCheckpoint { number });
    }
    Ok(row.frontiers(&checkpoint))
}

async fn verify_tree(
    snapshot: &Snapshot<'_>,
    judge: &mut Judge,
    tree: &str,
    stored: Option<u64>,
    start: Frontier,
    progress: &indicatif::ProgressBar,
) -> Result<(), ProofError> {
    progress.inc(start.size());
    let mut seals = Seals::open(snapshot, tree, start.size()).await?;
    judge.begin_tree(tree, stored, start);
    loop {
        let next = seals.next().await?;
        if next.is_empty() {
            break;
        }
        let mut entries = Vec::new();
        for seal in &next {
            entries.extend(seal.judged(judge));
        }
        let mut entries = entries.into_iter().peekable();
        while entries.peek().is_some() {
            let mut part = Part::new(entries.by_ref().take(PART_LEAVES).collect());
            let event_uuids = part.event_uuids();
            let take = |event_uuid, columns: &[Option<&[u8]>]| {
                let mut row = Row::default();
                columns.iter().for_each(|column| row.column(*column));
                judge.row(&mut part, event_uuid, &row);
            };
            snapshot.rows(&event_uuids, take).await?;
            progress.inc(u64::try_from(event_uuids.len()).unwrap_or(0));
            judge.settle(part);
        }
    }
    judge.removals(u64::MAX, &seals.rest().await?);
    judge.end_tree();
    Ok(())
}

/// Looks for rows without a leaf and events with several.
async fn unmatched(snapshot: &Snapshot<'_>, judge: &mut Judge) -> Result<(), ProofError> {
    let mut names = Names::default();
    let query =
        "SELECT tree, first, uuids FROM portal_audit.seals ORDER BY tree COLLATE \"C\", first";
    let portal = snapshot.transaction.bind(query, &[]).await.map_err(ProofError::query)?;
    loop {
        let rows = snapshot.transaction.query_portal(&portal, 64).await;
        let rows = rows.map_err(ProofError::query)?;
        if rows.is_empty() {
            break;
        }
        for row in &rows {
            names.leaves(row.get(0), count(row.get(1)), row.get::<_, Raw<'_>>(2).0);
        }
    }
    snapshot.names(|event_uuid| names.row(event_uuid)).await?;
    names.tell(judge);
    Ok(())
}
