//! The read task: frames → transactions → batches for the write task.

use super::{Fault, Work, horizon::Horizon};
use crate::{
    config::{Limits, Settings},
    lsn::Lsn,
    timestamp::Timestamp,
    transaction::{Assembler, Transaction},
    translate::{Batch, Step, Translator, names::NameKey},
    wire::{Frame, FrameReader},
    write::End,
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

/// A commit that is older than this on the server's own clock: we are behind, and bytes may gather in the socket.
const BEHIND_MICROS: i64 = 20_000;
/// A quiet stretch of the log is written as progress after this many bytes, however short it was.
const QUIET_BYTES_MAX: u64 = 16 << 20;

/// Which way a keepalive went.
#[derive(Debug, Clone, Copy)]
struct Mark {
    wal_end: Lsn,
    is_urgent: bool,
}

/// The state of the read task.
#[derive(Debug)]
pub(super) struct Reader {
    limits: Limits,
    assembler: Assembler,
    translator: Translator,
    work: mpsc::Sender<Work>,
    /// One permit: the write task's idleness.
    idle: Arc<Semaphore>,
    replies: Arc<Notify>,
    batch: Batch,
    end: Option<End>,
    mark: Option<Mark>,
    horizon: Horizon,
    is_behind: bool,
    /// What was given to the write task last, and when.
    handed: Lsn,
    handed_at: Instant,
}

impl Reader {
    pub(super) fn new(
        settings: &Settings,
        translator: Translator,
        horizon: Horizon,
        work: mpsc::Sender<Work>,
        replies: Arc<Notify>,
        end_lsn: Lsn,
    ) -> Self {
        let limits = settings.limits.clone();
        let assembler =
            Assembler::new(limits.transaction_memory_bytes, limits.spool_folder.clone());
        Self {
            limits,
            assembler,
            translator,
            work,
            idle: Arc::new(Semaphore::new(1)),
            replies,
            batch: Batch::default(),
            end: None,
            mark: None,
            horizon,
            is_behind: true,
            handed: end_lsn,
            handed_at: Instant::now(),
        }
    }

    /// Reads until asked to stop; then gives the write task what it has.
    pub(super) async fn run(
        mut self,
        mut frames: FrameReader,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), Fault> {
        loop {
            while !self.is_full() {
                let Some(frame) = frames.next_buffered().map_err(Fault::Wire)? else { break };
                if let Some(transaction) = self.take(frame)? {
                    self.batch.attempts.settle(transaction.xid);
                    self.translate(&transaction).await?;
                    self.assembler.recycle(transaction);
                    if let Ok(permit) = Arc::clone(&self.idle).try_acquire_owned() {
                        self.hand_over(permit).await?;
                    }
                }
            }
            self.decide_due();
            let quiet = self.handed_at + Duration::from_millis(self.limits.complete_interval_ms);
            let is_due = self.is_due(quiet);
            tokio::select! {
                biased;
                () = stopped(&mut stop) => return self.finish().await,
                permit = Arc::clone(&self.idle).acquire_owned(), if is_due => {
                    self.hand_over(permit.map_err(|_closed| Fault::Task)?).await?;
                }
                filled = frames.fill(self.is_behind), if !self.is_full() => {
                    filled.map_err(Fault::Wire)?;
                }
                // What is due waits for the permit; `quiet` may lie in the past then.
                () = sleep_until(quiet), if self.mark.is_some() && !is_due => {}
            }
        }
    }

    fn is_full(&self) -> bool {
        let Batch { events, transactions, .. } = &self.batch;
        events.len() >= self.limits.batch_events
            || events.bytes() >= self.limits.batch_bytes
            || self.batch.names.len() >= self.limits.batch_events
            || self.is_full_of_attempts()
            || *transactions >= self.limits.batch_events as u64
    }

    /// They come between transactions, so there may be many before anything ends a batch.
    fn is_full_of_attempts(&self) -> bool {
        self.batch.attempts.count() >= self.limits.batch_events
    }

    /// Whether there is something that the write task should have now.
    fn is_due(&self, quiet: Instant) -> bool {
        self.end.is_some()
            || self.is_full_of_attempts()
            || self.mark.is_some_and(|mark| {
                mark.is_urgent
                    || Instant::now() >= quiet
                    || mark.wal_end.bytes_since(self.handed) >= QUIET_BYTES_MAX
            })
    }

    fn take(&mut self, frame: Frame<'_>) -> Result<Option<Transaction>, Fault> {
        match frame {
            Frame::XLogData { wal_start, server_time, payload, .. } => {
                let completed = self.assembler.push(wal_start, payload);
                let completed = completed.map_err(Fault::Transaction)?;
                if let Some(transaction) = &completed {
                    self.horizon.pass(transaction.end_lsn);
                    let age = server_time.0.saturating_sub(transaction.commit_time.0);
                    self.is_behind = age > BEHIND_MICROS;
                }
                if let Some(attempt) = self.assembler.take_attempt() {
                    self.batch.attempts.add(attempt.lsn, &attempt.content);
                }
                Ok(completed)
            }
            Frame::Keepalive { wal_end, reply_requested, .. } => {
                if reply_requested {
                    self.replies.notify_one();
                }
                if !self.assembler.is_inside() {
                    self.is_behind = false;
                    let was_urgent = self.mark.is_some_and(|mark| mark.is_urgent);
                    let is_urgent = reply_requested || was_urgent;
                    self.horizon.pass(wal_end);
                    self.mark = Some(Mark { wal_end, is_urgent });
                }
                Ok(None)
            }
        }
    }

    /// What has waited for a row that did not come is decided, once the log is certainly past its time.
    fn decide_due(&mut self) {
        let deadline = self.translator.next_deadline();
        if let (Some(deadline), Some(time)) = (deadline, self.horizon.passed())
            && time > deadline
        {
            self.translator.tick(time, &mut self.batch);
        }
    }

    async fn translate(&mut self, transaction: &Transaction) -> Result<(), Fault> {
        let mut translation = self.translator.begin(transaction);
        loop {
            let step = self.translator.advance(transaction, &mut translation, &mut self.batch);
            match step.map_err(Fault::Translate)? {
                Step::Done => break,
                Step::Full => {
                    // The batch holds a part of this transaction, so it must not be committed yet: no reader may see a part.
                    self.end = None;
                    let permit = Arc::clone(&self.idle).acquire_owned().await;
                    self.send(permit.map_err(|_closed| Fault::Task)?, None).await?;
                }
                Step::Names(keys) => self.look_up(keys).await?,
            }
        }
        self.batch.transactions += 1;
        self.end = Some(End {
            end_lsn: transaction.end_lsn,
            last_commit: Some(transaction.commit_time),
            complete_to: Some(transaction.commit_time),
        });
        Ok(())
    }

    /// Asks for names. Those that this very batch gives must be written first; the batch may end inside a transaction then.
    async fn look_up(&mut self, keys: Vec<NameKey>) -> Result<(), Fault> {
        if !self.batch.names.is_empty() || !self.batch.emptied.is_empty() {
            let permit = Arc::clone(&self.idle).acquire_owned().await;
            self.send(permit.map_err(|_closed| Fault::Task)?, None).await?;
        }
        let (answer, answered) = oneshot::channel();
        let work = Work::LookUp { keys: keys.clone(), answer };
        self.work.send(work).await.map_err(|_closed| Fault::Task)?;
        let names = answered.await.map_err(|_closed| Fault::Task)?;
        for (key, name) in keys.iter().zip(names) {
            self.translator.put_name(key, name.as_deref());
        }
        Ok(())
    }

    /// Gives the write task the batch with its end, and the last keepalive's.
    async fn hand_over(&mut self, permit: OwnedSemaphorePermit) -> Result<(), Fault> {
        // It came between transactions, so it holds even if one has begun since.
        let mark = self.mark.take();
        let end = match (self.end.take(), mark) {
            (end, None) => end,
            (None, Some(mark)) => Some(End {
                end_lsn: mark.wal_end.max(self.handed),
                last_commit: None,
                complete_to: None,
            }),
            (Some(end), Some(mark)) => Some(End {
                end_lsn: end.end_lsn.max(mark.wal_end),
                last_commit: end.last_commit,
                complete_to: end.complete_to,
            }),
        };
        match end {
            Some(_) => self.send(permit, end).await,
            None if self.is_full_of_attempts() => self.send(permit, None).await,
            None => Ok(()),
        }
    }

    async fn send(
        &mut self,
        idle: OwnedSemaphorePermit,
        mut end: Option<End>,
    ) -> Result<(), Fault> {
        if let Some(end) = &mut end {
            end.complete_to = end.complete_to.max(self.horizon.passed());
            if let Some(Timestamp(since)) = self.translator.waits_since() {
                // An event of that time may yet come.
                end.complete_to = end.complete_to.min(Some(Timestamp(since.saturating_sub(1))));
            }
        }
        let batch = Box::new(std::mem::take(&mut self.batch));
        if let Some(end) = end {
            self.handed = end.end_lsn;
            self.handed_at = Instant::now();
        }
        let work = Work::Write { batch, end, idle };
        self.work.send(work).await.map_err(|_closed| Fault::Task)
    }

    async fn finish(&mut self) -> Result<(), Fault> {
        let permit = Arc::clone(&self.idle).acquire_owned().await;
        self.hand_over(permit.map_err(|_closed| Fault::Task)?).await
    }
}

/// Returns when the program is asked to stop, or nobody is left to ask.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}
