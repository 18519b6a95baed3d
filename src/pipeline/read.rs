//! The read task: frames → transactions → batches for the write task.

use super::{
    Fault, Work,
    horizon::Horizon,
    lookup::{self, Lookup},
    pace::{Gathering, Pace},
};
use crate::{
    config::{Limits, Settings, Source},
    lsn::Lsn,
    timestamp::Timestamp,
    transaction::{Assembler, AttemptMessage, Transaction},
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
/// A message may be so long that it is under way for minutes; as long as so many bytes of it come in time, the source is there.
const HEARD_BYTES: usize = 64 << 10;
/// A quiet stretch of the log is written as progress after this many bytes, however short it was.
const QUIET_BYTES_MAX: u64 = 16 << 20;

/// So many events are a batch though more transactions might gather.
const GATHERED_EVENTS: usize = 1_000;

/// So many transactions are translated together at most.
const QUEUE_MAX: usize = 1_024;
/// And so many bytes of them, unless a single one has more.
const QUEUE_BYTES_MAX: usize = 1 << 20;

/// What was taken from the stream at once.
#[derive(Debug)]
struct Taken {
    frames: usize,
    last: Last,
}

/// What ended the taking.
#[derive(Debug)]
enum Last {
    /// More must be read.
    None,
    /// Enough transactions are there.
    Transaction,
    Keepalive {
        wal_end: Lsn,
        reply_requested: bool,
    },
    Attempt(AttemptMessage),
}

/// Which way a keepalive went.
#[derive(Debug, Clone, Copy)]
struct Mark {
    wal_end: Lsn,
    is_urgent: bool,
}

/// Whom the read task tells of what it sees.
#[derive(Debug)]
pub(super) struct Signals {
    /// The server wants an answer.
    pub(super) replies: Arc<Notify>,
    /// A table is not as it was.
    pub(super) described: Arc<Notify>,
}

/// The state of the read task.
#[derive(Debug)]
pub(super) struct Reader {
    limits: Limits,
    assembler: Assembler,
    translator: Translator,
    lookup: Lookup,
    work: mpsc::Sender<Work>,
    /// One permit: the write task's idleness.
    idle: Arc<Semaphore>,
    signals: Signals,
    /// Complete, and not translated yet.
    queue: Vec<Transaction>,
    queue_bytes: usize,
    /// When the first of them came.
    queued_at: Instant,
    batch: Batch,
    end: Option<End>,
    mark: Option<Mark>,
    horizon: Horizon,
    is_behind: bool,
    pace: Pace,
    /// What was given to the write task last, and when.
    handed: Lsn,
    handed_at: Instant,
}

impl Reader {
    pub(super) fn new(
        (settings, source): (&Settings, &Source),
        translator: Translator,
        horizon: Horizon,
        work: mpsc::Sender<Work>,
        signals: Signals,
        end_lsn: Lsn,
    ) -> Self {
        let limits = settings.limits.clone();
        let assembler =
            Assembler::new(limits.transaction_memory_bytes, limits.spool_folder.clone());
        Self {
            limits,
            assembler,
            translator,
            lookup: Lookup::new(settings, source),
            work,
            idle: Arc::new(Semaphore::new(1)),
            signals,
            queue: Vec::new(),
            queue_bytes: 0,
            queued_at: Instant::now(),
            batch: Batch::default(),
            end: None,
            mark: None,
            horizon,
            is_behind: true,
            pace: Pace::new(Instant::now()),
            handed: end_lsn,
            handed_at: Instant::now(),
        }
    }

    /// Reads until asked to stop; then gives the write task what it has.
    ///
    /// # Silence
    /// The confirm task asks for a keepalive each second. A source that sends nothing all the same is gone, though nobody has closed the connection: packets are lost, somebody in between keeps it open, or the length of a message was garbled and we wait for its end. Only the time that we listen counts.
    ///
    /// # Whose fault it is
    /// When the write task has ended, the confirm task takes its leave of the source, which ends the stream then: that is not why.
    pub(super) async fn run(
        mut self,
        frames: FrameReader,
        stop: watch::Receiver<bool>,
    ) -> Result<(), Fault> {
        let ended = self.read(frames, stop).await;
        if matches!(ended, Err(Fault::Wire(_))) && self.work.is_closed() {
            return Err(Fault::Task);
        }
        ended
    }

    async fn read(
        &mut self,
        mut frames: FrameReader,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), Fault> {
        let silence = self.limits.source_timeout();
        let (mut heard_at, mut heard) = (Instant::now(), 0);
        loop {
            while !self.is_full() {
                let taken = self.take(&mut frames)?;
                let was_heard = taken.frames > 0 || !self.queue.is_empty();
                if !matches!(taken.last, Last::None) || self.is_queue_due() {
                    self.translate_queue().await?;
                }
                if was_heard {
                    (heard_at, heard) = (Instant::now(), 0);
                }
                match taken.last {
                    Last::None => break,
                    Last::Transaction => {}
                    Last::Keepalive { wal_end, reply_requested } => {
                        self.keep_alive(wal_end, reply_requested);
                    }
                    Last::Attempt(attempt) => {
                        self.batch.attempts.add(attempt.lsn, &attempt.content);
                    }
                }
            }
            self.decide_due();
            let quiet = self.handed_at + Duration::from_millis(self.limits.complete_interval_ms);
            let (is_due, gathers) = (self.is_due(quiet), self.gathers());
            let (gathering, gathered) = (self.gathering(), self.gathered_at());
            tokio::select! {
                biased;
                () = stopped(&mut stop) => return self.finish().await,
                permit = Arc::clone(&self.idle).acquire_owned(), if is_due => {
                    self.hand_over(permit.map_err(|_closed| Fault::Task)?).await?;
                    heard_at = Instant::now();
                }
                filled = frames.fill(gathering.bytes), if !self.is_full() => {
                    filled.map_err(Fault::Wire)?;
                    if frames.awaited() >= heard + HEARD_BYTES {
                        (heard_at, heard) = (Instant::now(), frames.awaited());
                    }
                }
                () = sleep_until(self.queued_at + gathering.transactions), if !self.queue.is_empty() && !self.is_full() => {}
                () = sleep_until(heard_at + silence), if !self.is_full() => {
                    return Err(Fault::Silent { seconds: silence.as_secs() });
                }
                // What is due waits for the permit; `quiet` may lie in the past then.
                () = sleep_until(quiet), if self.mark.is_some() && !is_due => {}
                () = sleep_until(gathered), if gathers && self.end.is_some() && !is_due => {}
            }
        }
    }

    fn is_full(&self) -> bool {
        let (events, bytes) = (self.limits.batch_events, self.limits.batch_bytes);
        self.batch.held().is_full(events, bytes)
            || self.is_full_of_attempts()
            || self.batch.transactions >= events as u64
    }

    /// They come between transactions, so there may be many before anything ends a batch.
    fn is_full_of_attempts(&self) -> bool {
        self.batch.attempts.count() >= self.limits.batch_events
    }

    /// Whether there is something that the write task should have now.
    fn is_due(&self, quiet: Instant) -> bool {
        (self.end.is_some() && !self.gathers())
            || self.is_full_of_attempts()
            || self.mark.is_some_and(|mark| {
                mark.is_urgent
                    || Instant::now() >= quiet
                    || mark.wal_end.bytes_since(self.handed) >= QUIET_BYTES_MAX
            })
    }

    /// Whether more are to come before the batch is written.
    fn gathers(&self) -> bool {
        !self.is_full()
            && self.batch.events.len() < GATHERED_EVENTS
            && Instant::now() < self.gathered_at()
    }

    fn gathered_at(&self) -> Instant {
        self.handed_at + self.gathering().events
    }

    /// Where there is more to do than at a portal's usual pace, less is done for each transaction, and for more of them at once.
    fn gathering(&self) -> Gathering {
        let gathering = self.pace.gathering(Instant::now());
        if self.is_behind {
            gathering.behind()
        } else if self.assembler.is_inside_large() {
            gathering.inside_large()
        } else {
            gathering
        }
    }

    /// Takes frames that have come, up to one that says something of all before it. Transactions that come in quick succession are translated together: one question asks for the names that they need.
    fn take(&mut self, frames: &mut FrameReader) -> Result<Taken, Fault> {
        let mut taken = Taken { frames: 0, last: Last::None };
        while let Some(frame) = frames.next_buffered().map_err(Fault::Wire)? {
            taken.frames += 1;
            match frame {
                Frame::Keepalive { wal_end, reply_requested, .. } => {
                    taken.last = Last::Keepalive { wal_end, reply_requested };
                    break;
                }
                Frame::XLogData { wal_start, server_time, payload, .. } => {
                    let completed = self.assembler.push(wal_start, payload);
                    if let Some(transaction) = completed.map_err(Fault::Transaction)? {
                        let age = server_time.0.saturating_sub(transaction.commit_time.0);
                        self.is_behind = age > BEHIND_MICROS;
                        self.pace.count(Instant::now());
                        if self.queue.is_empty() {
                            self.queued_at = Instant::now();
                        }
                        self.queue_bytes += transaction.memory_bytes();
                        self.queue.push(transaction);
                        if self.queue.len() >= QUEUE_MAX || self.queue_bytes >= QUEUE_BYTES_MAX {
                            taken.last = Last::Transaction;
                            break;
                        }
                    } else if let Some(attempt) = self.assembler.take_attempt() {
                        taken.last = Last::Attempt(attempt);
                        break;
                    }
                }
            }
        }
        Ok(taken)
    }

    /// Whether what was taken is to be translated though more may come.
    fn is_queue_due(&self) -> bool {
        self.queued_at.elapsed() >= self.gathering().transactions
    }

    fn keep_alive(&mut self, wal_end: Lsn, reply_requested: bool) {
        if reply_requested {
            self.signals.replies.notify_one();
        }
        if !self.assembler.is_inside() {
            self.is_behind = false;
            let was_urgent = self.mark.is_some_and(|mark| mark.is_urgent);
            self.horizon.pass(wal_end);
            self.mark = Some(Mark { wal_end, is_urgent: reply_requested || was_urgent });
        }
    }

    /// Translates all that was taken, in order. The write task gets what there is as soon as it is idle, or when the batch is full; while we are behind it waits for all, and at a fast pace for more.
    async fn translate_queue(&mut self) -> Result<(), Fault> {
        let mut queue = std::mem::take(&mut self.queue);
        self.queue_bytes = 0;
        for (place, transaction) in queue.iter().enumerate() {
            if self.is_full() {
                let permit = Arc::clone(&self.idle).acquire_owned().await;
                self.hand_over(permit.map_err(|_closed| Fault::Task)?).await?;
            }
            self.horizon.pass(transaction.end_lsn);
            self.batch.attempts.settle(transaction.xid);
            self.translate(transaction, queue.get(place + 1..).unwrap_or_default()).await?;
            let is_last = place + 1 == queue.len();
            if (is_last || !self.is_behind)
                && !self.gathers()
                && let Ok(permit) = Arc::clone(&self.idle).try_acquire_owned()
            {
                self.hand_over(permit).await?;
            }
        }
        for transaction in queue.drain(..) {
            self.assembler.recycle(transaction);
        }
        self.queue = queue;
        Ok(())
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

    /// Translates a transaction; `next` are those that come after it.
    async fn translate(
        &mut self,
        transaction: &Transaction,
        next: &[Transaction],
    ) -> Result<(), Fault> {
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
                Step::Names(mut keys) => {
                    let foreseen = self.translator.foresee(next, &mut keys);
                    foreseen.map_err(Fault::Translate)?;
                    self.look_up(keys).await?;
                }
            }
        }
        if self.translator.take_changed() {
            self.signals.described.notify_one();
        }
        self.batch.transactions += 1;
        self.end = Some(End {
            end_lsn: transaction.end_lsn,
            last_commit: Some(transaction.commit_time),
            complete_to: Some(transaction.commit_time),
        });
        Ok(())
    }

    /// Asks for names. One that this very batch gives and that is not in memory any more must be written first; the batch may end inside a transaction then.
    async fn look_up(&mut self, keys: Vec<NameKey>) -> Result<(), Fault> {
        if let Some(names) = self.lookup.ask(&keys, &self.batch).await {
            self.put_names(&keys, &names);
            return Ok(());
        }
        if lookup::gives(&self.batch, &lookup::wanted(&keys)) {
            let permit = Arc::clone(&self.idle).acquire_owned().await;
            self.send(permit.map_err(|_closed| Fault::Task)?, None).await?;
        }
        let (answer, answered) = oneshot::channel();
        let work = Work::LookUp { keys: keys.clone(), answer };
        self.work.send(work).await.map_err(|_closed| Fault::Task)?;
        let names = answered.await.map_err(|_closed| Fault::Task)?;
        self.put_names(&keys, &names);
        Ok(())
    }

    fn put_names(&mut self, keys: &[NameKey], names: &[Option<String>]) {
        // Those that are needed last are the first to be forgotten.
        for (key, name) in keys.iter().zip(names).rev() {
            self.translator.put_name(key, name.as_deref());
        }
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
        let batch = Arc::new(std::mem::take(&mut self.batch));
        self.lookup.hand(&batch, end.is_some());
        if let Some(end) = end {
            self.handed = end.end_lsn;
            self.handed_at = Instant::now();
        }
        let work = Work::Write { batch, end, idle };
        self.work.send(work).await.map_err(|_closed| Fault::Task)
    }

    async fn finish(&mut self) -> Result<(), Fault> {
        self.translate_queue().await?;
        let permit = Arc::clone(&self.idle).acquire_owned().await;
        self.hand_over(permit.map_err(|_closed| Fault::Task)?).await
    }
}

/// Returns when the program is asked to stop, or nobody is left to ask.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}
