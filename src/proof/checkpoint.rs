//! Makes a checkpoint: from the last one it signed, it reads only the leaves that came since.

use super::{
    ProofError,
    live::{Kept, Raw},
};
use crate::{
    connect::Session,
    merkle::Frontier,
    note::{Checkpoint, SigningKey, is_signed},
};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use tokio_postgres::{IsolationLevel, Transaction};

/// One at a time in a database: `pg_advisory_lock` of the letters `pa-proof`.
const LOCK: i64 = 0x7061_2d70_726f_6f66;

/// A checkpoint that was made.
#[derive(Debug, Clone)]
pub struct Made {
    pub number: u64,
    pub note: String,
    /// Leaves of all trees.
    pub leaves: u64,
    /// Leaves that the one before did not have.
    pub added: u64,
}

/// What became of a checkpoint.
#[derive(Debug, Clone)]
pub enum Outcome {
    Made(Made),
    /// Nothing was added since the last one.
    Same,
    /// Somebody else is making one at this moment.
    Busy,
}

/// Signs the trees as they are. `at_least`: sizes that were seen before.
///
/// # Errors
/// The database refuses, or the trees are smaller than the last checkpoint or `at_least` says: that is not signed.
pub async fn make(
    session: &mut Session,
    key: &SigningKey,
    at_least: Option<&Checkpoint>,
) -> Result<Outcome, ProofError> {
    // The lock is taken before the snapshot, or the snapshot would not show what the one before wrote.
    let row = session.client.query_one("SELECT pg_try_advisory_lock($1)", &[&LOCK]).await;
    if !row.map_err(ProofError::query)?.get::<_, bool>(0) {
        return Ok(Outcome::Busy);
    }
    let made = make_alone(session, key, at_least).await;
    // A session that is lost has given the lock back.
    let unlocked = session.client.execute("SELECT pg_advisory_unlock($1)", &[&LOCK]).await;
    let made = made?;
    unlocked.map_err(ProofError::query)?;
    Ok(made)
}

async fn make_alone(
    session: &mut Session,
    key: &SigningKey,
    at_least: Option<&Checkpoint>,
) -> Result<Outcome, ProofError> {
    let build = session.client.build_transaction().isolation_level(IsolationLevel::RepeatableRead);
    let transaction = build.start().await.map_err(ProofError::query)?;
    let last = last(&transaction).await?;
    let before = last.as_ref().and_then(|last| Checkpoint::parse(&last.note).ok());
    let keys = [key.public().clone()];
    let signed = last.as_ref().filter(|last| is_signed(&last.note, &keys)).zip(before.as_ref());
    // What this key did not sign may be anybody's: then all leaves are read again.
    let mut frontiers =
        signed.map(|(last, checkpoint)| last.frontiers(checkpoint)).unwrap_or_default();
    let sizes = sizes(&transaction).await?;
    for known in [signed.map(|(_, checkpoint)| checkpoint), at_least].into_iter().flatten() {
        for (tree, (size, _)) in &known.trees {
            let now = sizes.get(tree).copied().unwrap_or(0);
            if now < *size {
                return Err(ProofError::Shrunk { tree: tree.clone(), size: *size, now });
            }
        }
    }
    let old: u64 = before.iter().flat_map(|before| before.trees.values()).map(|tree| tree.0).sum();
    let leaves: u64 = sizes.values().sum();
    let is_same = signed.is_some_and(|(_, checkpoint)| {
        sizes.iter().all(|(tree, size)| checkpoint.trees.get(tree).map_or(0, |own| own.0) == *size)
    });
    if is_same || leaves == 0 {
        return Ok(Outcome::Same);
    }
    frontiers.retain(|tree, _| sizes.contains_key(tree));
    for (tree, size) in &sizes {
        let frontier = frontiers.entry(tree.clone()).or_default();
        read(&transaction, tree, *size, frontier).await?;
    }
    let number = last.map_or(0, |last| last.number) + 1;
    let note = write(&transaction, key, number, &frontiers).await?;
    transaction.commit().await.map_err(ProofError::query)?;
    Ok(Outcome::Made(Made { number, note, leaves, added: leaves.saturating_sub(old) }))
}

async fn last(transaction: &Transaction<'_>) -> Result<Option<Kept>, ProofError> {
    let query =
        "SELECT number, note, frontiers FROM portal_audit.checkpoints ORDER BY number DESC LIMIT 1";
    let row = transaction.query_opt(query, &[]).await.map_err(ProofError::query)?;
    Ok(row.map(|row| Kept {
        number: u64::try_from(row.get::<_, i64>(0)).unwrap_or(0),
        note: row.get(1),
        frontiers: row.get(2),
    }))
}

async fn sizes(transaction: &Transaction<'_>) -> Result<BTreeMap<String, u64>, ProofError> {
    let rows = transaction.query("SELECT tree, size FROM portal_audit.trees", &[]).await;
    let rows = rows.map_err(ProofError::query)?;
    let sizes =
        rows.iter().map(|row| (row.get(0), u64::try_from(row.get::<_, i64>(1)).unwrap_or(0)));
    Ok(sizes.collect())
}

/// Adds the leaves of a tree from where its frontier is.
async fn read(
    transaction: &Transaction<'_>,
    tree: &str,
    size: u64,
    frontier: &mut Frontier,
) -> Result<(), ProofError> {
    let from = i64::try_from(frontier.size()).unwrap_or(i64::MAX);
    let query = "SELECT first, leaves FROM portal_audit.seals WHERE tree = $1 AND first >= $2 ORDER BY first";
    let portal = transaction.bind(query, &[&tree, &from]).await.map_err(ProofError::query)?;
    loop {
        let rows = transaction.query_portal(&portal, 64).await.map_err(ProofError::query)?;
        if rows.is_empty() {
            break;
        }
        for row in &rows {
            let first = u64::try_from(row.get::<_, i64>(0)).unwrap_or(0);
            if first != frontier.size() {
                return Err(ProofError::Gap { tree: tree.to_owned(), seq: frontier.size() });
            }
            let leaves = row.get::<_, Raw<'_>>(1).0.as_chunks::<32>().0;
            leaves.iter().for_each(|leaf| frontier.push(*leaf));
        }
    }
    let is_whole = frontier.size() == size;
    let gap = || ProofError::Gap { tree: tree.to_owned(), seq: frontier.size() };
    is_whole.then_some(()).ok_or_else(gap)
}

async fn write(
    transaction: &Transaction<'_>,
    key: &SigningKey,
    number: u64,
    frontiers: &BTreeMap<String, Frontier>,
) -> Result<String, ProofError> {
    let now = "SELECT now()";
    let row = transaction.query_one(now, &[]).await.map_err(ProofError::query)?;
    let at: chrono::DateTime<chrono::Utc> = row.get(0);
    let trees = frontiers.iter().map(|(tree, own)| (tree.clone(), (own.size(), own.root())));
    let checkpoint = Checkpoint {
        log: key.public().name.clone(),
        number,
        at: at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
        trees: trees.collect(),
    };
    let note = key.sign(&checkpoint.body());
    let peaks: Map<String, Value> = frontiers
        .iter()
        .map(|(tree, own)| {
            (tree.clone(), own.peaks().iter().map(|peak| super::hex(peak)).collect())
        })
        .collect();
    let number = i64::try_from(number).unwrap_or(i64::MAX);
    let insert = "INSERT INTO portal_audit.checkpoints (number, at, note, frontiers) VALUES ($1, $2, $3, $4)";
    let written = transaction.execute(insert, &[&number, &at, &note, &Value::Object(peaks)]).await;
    written.map_err(ProofError::query)?;
    Ok(note)
}
