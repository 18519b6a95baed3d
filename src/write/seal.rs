//! Every event that is written gets its leaf in the source's tree, in the audit transaction that writes it: `portal_audit.seal`.
//!
//! # Why exactly one
//! Leaves are made of the events that were inserted, never of those that were passed over because they are there: those were sealed when they were written. Where it cannot be told beforehand which that are, the INSERT gives back the ids of what it inserted. The tree grows by compare-and-set, as progress does, so nobody else's leaves come in between.

use super::{WriteError, Writer, answered, parameters::storable};
use crate::{
    connect::Session,
    event::Event,
    leaf::{LEAF_BYTES, Payloads, SALT_BYTES, leaf},
};
use std::time::Duration;
use tokio_postgres::types::ToSql;

pub(super) const SEAL: &str = "portal_audit.seal";

/// What is to be sealed, in the order in which it was inserted. Its buffers are used again.
#[derive(Debug, Default)]
pub(super) struct Leaves {
    uuids: Vec<u8>,
    salts: Vec<u8>,
    leaves: Vec<u8>,
    payloads: Payloads,
    payload: String,
}

impl Leaves {
    pub(super) fn len(&self) -> usize {
        self.leaves.len() / LEAF_BYTES
    }

    /// Keeps the first ones.
    pub(super) fn truncate(&mut self, count: usize) {
        self.uuids.truncate(count * 16);
        self.salts.truncate(count * SALT_BYTES);
        self.leaves.truncate(count * LEAF_BYTES);
    }

    /// Adds events, each with a salt that nobody can guess: without it a leaf that outlives its row would tell what the row said to whoever tries all it could have said.
    pub(super) fn add<'a>(
        &mut self,
        events: impl ExactSizeIterator<Item = Event<'a>>,
    ) -> Result<(), WriteError> {
        let before = self.salts.len();
        self.salts.resize(before + events.len() * SALT_BYTES, 0);
        let salts = self.salts.get_mut(before..).unwrap_or_default();
        getrandom::fill(salts).map_err(|report| WriteError::NoSalt { report })?;
        let (salts, _) = salts.as_chunks::<SALT_BYTES>();
        for (event, salt) in events.zip(salts) {
            self.payload.clear();
            self.payloads.push(event.payload, &mut self.payload);
            let timestamp = storable(event.timestamp);
            let stored = Event { timestamp, payload: &self.payload, ..event };
            self.uuids.extend_from_slice(stored.event_uuid.as_bytes());
            self.leaves.extend_from_slice(&leaf(salt, &stored));
        }
        Ok(())
    }

    /// The last three arguments of `portal_audit.seal`.
    pub(super) fn parameters(&self) -> [&(dyn ToSql + Sync); 3] {
        [&self.uuids, &self.salts, &self.leaves]
    }
}

/// The size of a source's tree, and whether a trigger stands before each row, which may leave it out without a word.
pub(super) async fn load_tree(
    session: &Session,
    source: &str,
    timeout: Duration,
) -> Result<(i64, bool), WriteError> {
    // Type of a trigger: 1 each row, 2 before, 4 INSERT (pg_trigger.h).
    const QUERY: &str = "SELECT coalesce((SELECT size FROM portal_audit.trees WHERE tree = $1), 0), EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgtype & 7 = 7 AND tgenabled <> 'D' AND (tgrelid = 'public.events'::regclass OR tgrelid IN (SELECT relid FROM pg_catalog.pg_partition_tree('public.events'))))";
    let parameters: [&(dyn ToSql + Sync); 1] = [&source];
    let query = session.client.query_one(QUERY, &parameters);
    let row = answered(timeout, "read the size of its tree", query).await?;
    Ok((row.get(0), row.get(1)))
}

impl Writer {
    /// Adds the leaves to the tree in the audit transaction that is open, which must be the one that wrote their events. The caller counts them where that is committed, or goes on.
    pub(super) async fn seal(&self, leaves: &Leaves) -> Result<(), WriteError> {
        if leaves.len() == 0 {
            return Ok(());
        }
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&self.source, &self.tree_size];
        parameters.extend(leaves.parameters());
        let query = self.hand.session.client.execute(&self.hand.seal, &parameters);
        let sealed = answered(self.timeout, "seal events", query).await;
        sealed.map(drop).map_err(|error| self.told(error))
    }

    /// The tree has grown by the leaves, which are spent.
    pub(super) fn count_leaves(&mut self) {
        self.tree_size += i64::try_from(self.leaves.len()).unwrap_or(0);
        self.leaves.truncate(0);
    }
}
