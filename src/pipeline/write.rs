//! The write task: one batch after the other, and after each commit the new position.
//!
//! # Two steps
//! A large batch is written in two steps ([`crate::write`]). While one is finished, the events of the next are copied, if it is there already: so at most two batches are not written, and the read task, which gets its permit back after the first step, knows of both.

use super::{Fault, Work};
use crate::{
    config::{Settings, Source},
    connect,
    conninfo::ConnInfo,
    lsn::Lsn,
    metrics::SourceMetrics,
    translate::{Batch, attempt::Teller},
    write::{Copied, End, Writer},
};
use futures_util::future;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, watch};

/// A second session of the writer, if there can be one.
#[derive(Debug)]
pub(super) struct Opener {
    audit: ConnInfo,
    source: String,
    timeout: Duration,
    is_refused: bool,
}

impl Opener {
    pub(super) fn new(settings: &Settings, source: &Source) -> Self {
        let (audit, source) = (settings.audit.clone(), source.name.clone());
        Self { audit, source, timeout: settings.limits.audit_timeout(), is_refused: false }
    }

    async fn open(&mut self, writer: &mut Writer) {
        if self.is_refused || writer.has_spare() {
            return;
        }
        let opened = async {
            let session = connect::connect(&self.audit, &self.source).await.ok()?;
            writer.take_spare(session).await.ok()
        };
        let opened = tokio::time::timeout(self.timeout, opened).await;
        // The first session says what is the matter, if anything is; it does without, as before.
        self.is_refused = !matches!(opened, Ok(Some(true)));
    }
}

/// The state of the write task.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) writer: Writer,
    pub(super) opener: Opener,
    pub(super) teller: Teller,
    pub(super) fingerprint: String,
    pub(super) metrics: SourceMetrics,
    /// Attempts wait for the end of their transaction.
    pub(super) stored: Arc<Notify>,
    pub(super) written: watch::Sender<Lsn>,
}

/// A batch that is written in two steps.
struct Large {
    batch: Arc<Batch>,
    end: End,
    idle: OwnedSemaphorePermit,
    began: Instant,
}

/// What comes next.
enum Next {
    /// Its events are copied.
    Copied(Large, Box<Copied>),
    /// It came in time, but there is no second session to copy it in.
    Large(Large),
    Other(Option<Work>),
}

impl Task {
    // What it is asked is dropped before all else, so that whoever sees the other end sees this one's too.
    pub(super) async fn run(mut self, mut work: mpsc::Receiver<Work>) -> Result<(), Fault> {
        let mut next = work.recv().await;
        while let Some(asked) = next {
            next = match large(asked, &self.writer) {
                Ok(large) => Box::pin(self.write_on(large, &mut work)).await?,
                Err(asked) => {
                    Box::pin(self.answer(asked)).await?;
                    work.recv().await
                }
            };
        }
        Ok(())
    }

    async fn answer(&mut self, asked: Work) -> Result<(), Fault> {
        let writer = &mut self.writer;
        match asked {
            Work::Write { batch, end, idle } => {
                let began = Instant::now();
                writer.write(&batch, end).await.map_err(Fault::Write)?;
                drop(idle);
                self.tell(&batch, end, began);
                if !batch.attempts.is_empty() {
                    self.stored.notify_one();
                }
            }
            Work::LookUp { keys, answer } => {
                let names = writer.look_up(&keys).await.map_err(Fault::Write)?;
                // The read task may have been stopped meanwhile.
                drop(answer.send(names));
            }
            Work::WaitingAttempts { answer } => {
                let waiting = writer.waiting_attempts().await.map_err(Fault::Write)?;
                drop(answer.send(waiting));
            }
            Work::EndAttempts { ends } => {
                writer.end_attempts(&ends, &self.teller).await.map_err(Fault::Write)?;
            }
            Work::Look { look, answer } => {
                let changes = writer.look(&look, &self.fingerprint).await.map_err(Fault::Write)?;
                drop(answer.send(changes));
            }
        }
        Ok(())
    }

    /// A batch is written; with an end, up to there.
    fn tell(&self, batch: &Batch, end: Option<End>, began: Instant) {
        if let Some(end) = end {
            self.written.send_replace(end.end_lsn);
        }
        self.metrics.wrote(batch, end, began.elapsed());
    }

    /// Writes a batch in two steps, and those that are there by then. Gives what it is asked next.
    async fn write_on(
        &mut self,
        mut large: Large,
        work: &mut mpsc::Receiver<Work>,
    ) -> Result<Option<Work>, Fault> {
        let mut copied = self.writer.copy(&large.batch).await;
        loop {
            let taken = self.writer.take_over(copied, &large.batch).await;
            let Large { batch, end, idle, began } = large;
            if !taken.map_err(Fault::Write)? {
                let whole = Work::Write { batch, end: Some(end), idle };
                self.answer(whole).await?;
                return Ok(work.recv().await);
            }
            drop(idle);
            let finish = async {
                self.writer.finish(&batch, end).await.map_err(Fault::Write)?;
                self.tell(&batch, Some(end), began);
                Ok(())
            };
            let (finished, next) = future::join(finish, self.begin_next(work, end)).await;
            finished?;
            self.writer.settle(end);
            (large, copied) = match next {
                Next::Other(asked) => return Ok(asked),
                Next::Copied(large, copied) => {
                    self.writer.change_hands();
                    (large, *copied)
                }
                Next::Large(large) => {
                    self.opener.open(&mut self.writer).await;
                    let copied = self.writer.copy(&large.batch).await;
                    (large, copied)
                }
            };
        }
    }

    /// What comes next; if it is a large batch, and comes before the one that ends at `end` is finished, its events are copied meanwhile.
    async fn begin_next(&self, work: &mut mpsc::Receiver<Work>, end: End) -> Next {
        let Some(asked) = work.recv().await else { return Next::Other(None) };
        if *self.written.borrow() >= end.end_lsn {
            return Next::Other(Some(asked));
        }
        match large(asked, &self.writer) {
            Err(asked) => Next::Other(Some(asked)),
            Ok(large) => match self.writer.copy_aside(&large.batch).await {
                Some(copied) => Next::Copied(large, Box::new(copied)),
                None => Next::Large(large),
            },
        }
    }
}

/// The batch, if it is one to be written in two steps.
fn large(asked: Work, writer: &Writer) -> Result<Large, Work> {
    match asked {
        Work::Write { batch, end: Some(end), idle } if writer.takes_steps(&batch) => {
            Ok(Large { batch, end, idle, began: Instant::now() })
        }
        asked => Err(asked),
    }
}
