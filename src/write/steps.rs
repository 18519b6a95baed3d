//! A large batch in two steps: its events are copied while the batch before it is finished.
//!
//! # Why
//! COPY is two thirds of what a large batch takes; the rest are names, leaves, and the wait for the disk at COMMIT. A backlog is as fast as the audit database's session is, and the audit database has more than one core.
//!
//! # Why each event is written once all the same
//! The first step does nothing but insert events that no other transaction has. Whatever has an order is touched in the second: the tree, names and progress, by one batch after the other, each when the one before it is committed, and progress by compare-and-set as ever. A COPY that is refused is rolled back, and the batch is written as any other; where anything else fails, both transactions are, and the log is read again from where progress stands.

use super::{End, Hand, Leaves, WriteError, Writer, answered, prepare::pin, sign_in};
use crate::{connect::Session, event::Events, translate::Batch};
use futures_util::future;

/// From so many events on a batch is written in two steps: a round trip more is little beside them.
const STEPS_EVENTS_MIN: usize = 500;

/// What became of the first step: the events are in a transaction that is open, or it is good for nothing.
#[derive(Debug)]
pub struct Copied {
    leaves: Leaves,
    /// How many there are.
    events: Result<u64, WriteError>,
}

impl Writer {
    /// Whether a batch that ends an audit transaction, and begins it, is written in two steps.
    #[must_use]
    pub fn takes_steps(&self, batch: &Batch) -> bool {
        batch.events.len() >= STEPS_EVENTS_MIN && self.fits_whole(batch)
    }

    /// Takes a second session of the same login, in which [`Writer::copy_aside`] copies; `false` if it leads to another server: where several are named, the first may not be the one any more that all are to write to.
    ///
    /// # Errors
    /// The audit database does not answer or refuses.
    pub async fn take_spare(&mut self, session: Session) -> Result<bool, WriteError> {
        const SERVER: &str = "SELECT pg_postmaster_start_time()::text";
        let server = async |session: &Session| {
            let asked = session.client.query_one(SERVER, &[]);
            let row = answered(self.timeout, "tell which server it is", asked).await;
            row.map(|row| row.get::<_, String>(0))
        };
        if server(&session).await? != server(&self.hand.session).await? {
            return Ok(false);
        }
        pin(&session, self.timeout).await?;
        sign_in(&session, &self.source, false, self.timeout).await?;
        self.spare = Some(Hand::new(session, self.timeout).await?);
        Ok(true)
    }

    /// The second session, if there is one and nobody has ended it.
    fn spare(&self) -> Option<&Hand> {
        self.spare.as_ref().filter(|spare| !spare.session.client.is_closed())
    }

    /// Whether there is a second session.
    #[must_use]
    pub fn has_spare(&self) -> bool {
        self.spare().is_some()
    }

    /// The first step, where nothing is under way.
    pub async fn copy(&self, batch: &Batch) -> Copied {
        self.copy_in(&self.hand, &batch.events).await
    }

    /// The first step in the second session, while the first one finishes the batch before; `None` without a second session.
    pub async fn copy_aside(&self, batch: &Batch) -> Option<Copied> {
        let spare = self.spare()?;
        Some(self.copy_in(spare, &batch.events).await)
    }

    /// The sessions change places: what was copied aside is to be finished.
    pub fn change_hands(&mut self) {
        if let Some(spare) = &mut self.spare {
            std::mem::swap(&mut self.hand, spare);
        }
    }

    async fn copy_in(&self, hand: &Hand, events: &Events) -> Copied {
        let mut leaves = Leaves::default();
        let copied = async {
            // Awaited: what is sent behind a BEGIN that fails would be committed by itself.
            answered(self.timeout, "begin", hand.session.client.batch_execute("BEGIN")).await?;
            let sink = self.send_copy(hand, events, &mut leaves).await?;
            self.finish_copy(sink).await
        };
        let events = copied.await;
        Copied { leaves, events }
    }

    /// Takes over what was copied; `false` if an event was refused or exists: then it is rolled back, and [`Writer::write`] is to write the batch.
    ///
    /// # Errors
    /// The audit database does not answer, or refuses all. The writer is of no use then.
    pub async fn take_over(&mut self, copied: Copied, batch: &Batch) -> Result<bool, WriteError> {
        let is_whole = match copied.events {
            Ok(events) => events == batch.events.len() as u64,
            Err(error) => self.not_new(error).map(|()| false)?,
        };
        if is_whole {
            self.leaves = copied.leaves;
            self.pending.add(batch);
            return Ok(true);
        }
        let back = self.hand.session.client.batch_execute("ROLLBACK");
        answered(self.timeout, "go back", back).await?;
        Ok(false)
    }

    /// The second step of what was taken over: all that its transaction writes beside the events, progress, and COMMIT. [`Writer::settle`] comes next.
    ///
    /// # Errors
    /// The audit database does not answer or refuses, or somebody else has moved progress: then nothing is written, and the writer is of no use.
    pub async fn finish(&self, batch: &Batch, end: End) -> Result<(), WriteError> {
        let (sealed, named) =
            future::join(self.seal(&self.leaves), self.write_names(batch, Some(end))).await;
        sealed.and(named)?;
        self.advance_and_commit(end).await
    }

    /// Notes that the second step was done.
    pub fn settle(&mut self, end: End) {
        self.count_leaves();
        self.committed(end);
    }
}
