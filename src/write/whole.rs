//! A whole batch in two round trips: what it holds, then progress and COMMIT.
//!
//! # Why
//! One statement after the other leaves the audit database idle while the next one is put together, and costs a round trip each. Here they are sent together, and the server answers them in turn: where one fails, it refuses those behind it. Progress is only asked for when all before it has succeeded.

use super::{End, Moved, STATEMENT_EVENTS_MAX, WriteError, Writer, answered, deliver::EXISTS};
use crate::{event::Events, translate::Batch};
use futures_util::future;

impl Writer {
    /// Writes a batch that nothing came before in the audit transaction; `false` if an event was refused or exists, and then nothing is written.
    pub(super) async fn write_whole(
        &mut self,
        batch: &Batch,
        end: End,
    ) -> Result<bool, WriteError> {
        let client = &self.session.client;
        let begin = answered(self.timeout, "begin", client.batch_execute("BEGIN"));
        let events = self.give(&batch.events);
        let names = self.write_names(batch, Some(end));
        // Each is sent when it is looked at first, so in this order.
        let (begin, events, names) = future::join3(begin, events, names).await;
        begin?;
        if let Err(error) = events {
            if error.refusal().is_none() && error.sqlstate() != Some(EXISTS) {
                return Err(error);
            }
            answered(self.timeout, "go back", client.batch_execute("ROLLBACK")).await?;
            self.met_existing = error.sqlstate() == Some(EXISTS);
            return Ok(false);
        }
        names?;
        self.advance_and_commit(end).await?;
        Ok(true)
    }

    /// Moves progress and commits: where progress is not as we left it, COMMIT is a rollback.
    pub(super) async fn advance_and_commit(&self, end: End) -> Result<(), WriteError> {
        let client = &self.session.client;
        let moved = Moved::new(self, end);
        let parameters = moved.parameters();
        let advance = client.execute(&self.advance, &parameters);
        let advance = answered(self.timeout, "move progress", advance);
        let commit = answered(self.timeout, "commit", client.batch_execute("COMMIT"));
        let (advanced, committed) = future::join(advance, commit).await;
        advanced.map_err(|error| self.told(error))?;
        committed
    }

    async fn give(&self, events: &Events) -> Result<(), WriteError> {
        match events.len() {
            0 => Ok(()),
            count if count <= STATEMENT_EVENTS_MAX => self.insert(events, 0..count).await.map(drop),
            _ => self.copy(events).await,
        }
    }
}
