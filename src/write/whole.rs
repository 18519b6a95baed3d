//! A whole batch: a small one in one statement, a large one in two round trips: what it holds and its leaves, then progress and COMMIT.
//!
//! # Why
//! One statement after the other leaves the audit database idle while the next one is put together, and costs a round trip each. Here they are sent together, and the server answers them in turn: where one fails, it refuses those behind it. Progress is only asked for when all before it has succeeded.

use super::{Arrays, End, Leaves, Moved, STATEMENT_EVENTS_MAX, WriteError, Writer, answered};
use crate::{event::Events, translate::Batch};
use futures_util::future;

impl Writer {
    /// Everything in one statement and one round trip; `false` if an event was refused or exists, and then nothing is written.
    pub(super) async fn write_statement(
        &mut self,
        events: &Events,
        end: End,
    ) -> Result<bool, WriteError> {
        let moved = Moved::new(self, end);
        if events.is_empty() {
            let parameters = moved.parameters();
            let query = self.hand.session.client.execute(&self.hand.advance, &parameters);
            let written = answered(self.timeout, "move progress", query).await;
            return written.map(|_rows| true).map_err(|error| self.told(error));
        }
        self.leaves.truncate(0);
        self.leaves.add(events.iter())?;
        let arrays = Arrays::new(events.iter());
        let mut parameters = arrays.parameters();
        parameters.extend(moved.parameters());
        parameters.push(&self.tree_size);
        parameters.extend(self.leaves.parameters());
        let query = self.hand.session.client.execute(&self.hand.insert_and_advance, &parameters);
        match answered(self.timeout, "write events", query).await {
            Ok(rows) => {
                self.count_leaves();
                if rows < events.len() as u64 {
                    // They are in the tree, and verify will miss them.
                    let (source, events) = (&self.source, events.len() as u64 - rows);
                    tracing::error!(
                        source,
                        events,
                        "a trigger on public.events left events out: drop it"
                    );
                    self.is_guarded = true;
                }
                Ok(true)
            }
            Err(error) => self.not_new(error).map(|()| false),
        }
    }

    /// Writes a batch that nothing came before in the audit transaction; `false` if an event was refused or exists, and then nothing is written.
    pub(super) async fn write_whole(
        &mut self,
        batch: &Batch,
        end: End,
    ) -> Result<bool, WriteError> {
        let mut leaves = std::mem::take(&mut self.leaves);
        leaves.truncate(0);
        let client = &self.hand.session.client;
        let begin = answered(self.timeout, "begin", client.batch_execute("BEGIN"));
        let events = self.give(&batch.events, &mut leaves);
        let names = self.write_names(batch, Some(end));
        // Each is sent when it is looked at first, so in this order; the leaves behind their events.
        let (begin, (events, sealed), names) = future::join3(begin, events, names).await;
        self.leaves = leaves;
        begin?;
        let is_refused = match events {
            Ok(written) => {
                // A trigger has left some out.
                let has_left_out = written < batch.events.len() as u64;
                self.is_guarded |= has_left_out;
                has_left_out
            }
            Err(error) => self.not_new(error).map(|()| true)?,
        };
        if is_refused {
            let back = self.hand.session.client.batch_execute("ROLLBACK");
            answered(self.timeout, "go back", back).await?;
            return Ok(false);
        }
        names?;
        sealed?;
        self.advance_and_commit(end).await?;
        self.count_leaves();
        Ok(true)
    }

    /// Moves progress and commits: where progress is not as we left it, COMMIT is a rollback.
    pub(super) async fn advance_and_commit(&self, end: End) -> Result<(), WriteError> {
        let client = &self.hand.session.client;
        let moved = Moved::new(self, end);
        let parameters = moved.parameters();
        let advance = client.execute(&self.hand.advance, &parameters);
        let advance = answered(self.timeout, "move progress", advance);
        let commit = answered(self.timeout, "commit", client.batch_execute("COMMIT"));
        let (advanced, committed) = future::join(advance, commit).await;
        advanced.map_err(|error| self.told(error))?;
        committed
    }

    /// Adds events, none of which is there, and their leaves; tells how many events were added.
    async fn give(
        &self,
        events: &Events,
        leaves: &mut Leaves,
    ) -> (Result<u64, WriteError>, Result<(), WriteError>) {
        if events.len() > STATEMENT_EVENTS_MAX {
            return self.copy_and_seal(events, leaves).await;
        }
        match leaves.add(events.iter()) {
            Ok(()) => future::join(self.insert_new(events), self.seal(leaves)).await,
            Err(error) => (Err(error), Ok(())),
        }
    }

    async fn insert_new(&self, events: &Events) -> Result<u64, WriteError> {
        if events.is_empty() {
            return Ok(0);
        }
        let arrays = Arrays::new(events.iter());
        let parameters = arrays.parameters();
        let query = self.hand.session.client.execute(&self.hand.insert_new, &parameters);
        answered(self.timeout, "insert events", query).await
    }
}
