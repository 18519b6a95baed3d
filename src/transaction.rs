//! Stage 3: pgoutput messages → [`Transaction`], the changes of one commit.
//!
//! With protocol 1 a transaction arrives whole, after its commit, between Begin and Commit. With `streaming` (protocol 2 and later) a large one arrives in segments before its commit, segments of several transactions interleave, and what a savepoint rolled back is taken out by Stream Abort. Both ways end in the same [`Transaction`], so no later stage knows the difference.
//!
//! Relation messages stay where they came, among the changes: the server counts on their being applied when the transaction is, which is what the manual's own subscriber does.

use crate::{
    decode::{DecodeError, Message, decode},
    lsn::Lsn,
    spool::{Cursor, Record, Spool},
    timestamp::Timestamp,
};
use std::{collections::HashMap, io, path::PathBuf};

/// The memory of so many transactions is kept for others.
const SPARE_MAX: usize = 1_024;
/// Each keeps at most this much; the first, which a large transaction gets too, `KEEP_BYTES`.
const SPARE_BYTES: usize = 4 * 1024;
/// A recycled spool keeps at most this much memory.
const KEEP_BYTES: usize = 1024 * 1024;

/// From so many changes on a transaction is large.
const LARGE_CHANGES: u64 = 1_000;

/// Prefix of the attempt trigger's messages, `sql/attempt.sql`, which come outside transactions.
const ATTEMPT_PREFIX: &[u8] = b"portal_audit.attempt";
/// A message of the attempt trigger has at most this many bytes. Of a larger one nothing is kept, so that it cannot be read.
const ATTEMPT_BYTES_MAX: usize = 4096;

/// Why messages do not make a transaction.
#[derive(Debug, thiserror::Error)]
pub enum TransactionError {
    #[error("cannot read the message of the replication stream at {lsn}")]
    Decode {
        lsn: Lsn,
        #[source]
        source: DecodeError,
    },
    #[error("pgoutput message {message} came {place}, where the protocol does not allow it")]
    OutOfOrder { message: &'static str, place: &'static str },
    #[error("commit {commit_lsn} does not belong to the transaction that began for {final_lsn}")]
    OtherCommit { final_lsn: Lsn, commit_lsn: Lsn },
    #[error(
        "pgoutput sent a two-phase message; make the slot without two_phase, so that a prepared transaction arrives when it is committed"
    )]
    TwoPhase,
    #[error("cannot read a large transaction back from its spool file")]
    SpoolRead(#[source] io::Error),
    #[error("cannot keep a large transaction in the spool folder {}", folder.display())]
    Spool {
        folder: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A committed transaction: when and where it committed, and its messages in order.
#[derive(Debug)]
pub struct Transaction {
    pub xid: u32,
    pub commit_lsn: Lsn,
    /// What to confirm once the transaction is written.
    pub end_lsn: Lsn,
    pub commit_time: Timestamp,
    /// Number of inserts, updates, deletes and truncates.
    pub changes: u64,
    /// Whether it holds a logical message, which may name the caller of any of its changes.
    pub has_logical_messages: bool,
    streamed: bool,
    spool: Spool,
}

impl Transaction {
    /// Bytes of its messages in memory.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.spool.memory_bytes()
    }

    /// The message at the cursor, which then points behind it; `None` at the end.
    ///
    /// # Errors
    /// The message cannot be read, or the spool's file cannot.
    pub fn next<'a>(
        &'a self,
        cursor: &'a mut Cursor,
    ) -> Result<Option<(Lsn, Message<'a>)>, TransactionError> {
        let record = self.spool.next(cursor).map_err(TransactionError::SpoolRead)?;
        let Some(Record { wal_start, payload }) = record else { return Ok(None) };
        let (_, message) = decode(payload, self.streamed).map_err(unreadable_at(wal_start))?;
        Ok(Some((wal_start, message)))
    }

    /// Like [`Transaction::next`], but passes over rows that are not `wanted`, by the oid of their relation and whether they are deleted.
    ///
    /// # Errors
    /// As [`Transaction::next`].
    pub fn next_wanted<'a>(
        &'a self,
        cursor: &'a mut Cursor,
        wanted: impl Fn(u32, bool) -> bool,
    ) -> Result<Option<(Lsn, Message<'a>)>, TransactionError> {
        let oid_start = if self.streamed { 5 } else { 1 };
        loop {
            let offset = cursor.offset();
            let record = self.spool.next(cursor).map_err(TransactionError::SpoolRead)?;
            let Some(Record { payload, .. }) = record else { return Ok(None) };
            let is_row = matches!(payload.first(), Some(b'I' | b'U' | b'D'));
            let oid = payload.get(oid_start..).and_then(<[u8]>::first_chunk::<4>);
            let is_wanted = match payload.first() {
                Some(b'R' | b'M') => true,
                tag => {
                    let is_deleted = tag == Some(&b'D');
                    is_row && oid.is_some_and(|oid| wanted(u32::from_be_bytes(*oid), is_deleted))
                }
            };
            if is_wanted {
                cursor.rewind(offset);
                return self.next(cursor);
            }
        }
    }
}

/// A message of the attempt trigger: what was tried, whatever becomes of its transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptMessage {
    pub lsn: Lsn,
    pub content: Vec<u8>,
}

/// A transaction whose commit has not arrived.
#[derive(Debug, Default)]
struct Open {
    spool: Spool,
    changes: u64,
    has_logical_messages: bool,
    /// The subtransactions in the order of their first messages, each with where it may have begun. Rolling one back takes everything from there on: until it ends, only it and its own children write.
    subtransactions: Vec<(u32, Mark)>,
    /// The places of each among them: there may be a million, and each may be rolled back.
    places: HashMap<u32, usize>,
    /// Where the logical messages begin that stand last: the end, if none does.
    tail: Mark,
}

/// A place among the messages of a transaction: the bytes and the changes before it.
#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    bytes: u64,
    changes: u64,
}

/// Where the stream stands.
#[derive(Debug)]
enum Place {
    Between,
    Transaction { xid: u32, final_lsn: Lsn },
    Stream { xid: u32 },
}

/// Puts messages together to transactions, in bounded memory.
#[derive(Debug)]
pub struct Assembler {
    place: Place,
    /// The transaction of [`Place::Transaction`].
    current: Open,
    streams: HashMap<u32, Open>,
    memory_bytes: usize,
    memory_limit: usize,
    spool_folder: PathBuf,
    spare: Vec<Spool>,
    attempt: Option<AttemptMessage>,
}

impl Assembler {
    /// An assembler that keeps up to `memory_limit` bytes of unfinished transactions in memory and the rest in `spool_folder`.
    #[must_use]
    pub fn new(memory_limit: usize, spool_folder: PathBuf) -> Self {
        Self {
            place: Place::Between,
            current: Open::default(),
            streams: HashMap::new(),
            memory_bytes: 0,
            memory_limit,
            spool_folder,
            spare: Vec::new(),
            attempt: None,
        }
    }

    /// Whether the stream stands inside a transaction or a stream segment: then a keepalive says nothing of what is complete.
    #[must_use]
    pub fn is_inside(&self) -> bool {
        !matches!(self.place, Place::Between)
    }

    /// Whether it stands in one of so many changes that those to come may wait for each other: none is written before the last is there.
    #[must_use]
    pub fn is_inside_large(&self) -> bool {
        match self.place {
            Place::Between => false,
            Place::Transaction { .. } => self.current.changes >= LARGE_CHANGES,
            // The server streams those that are beyond its own memory.
            Place::Stream { .. } => true,
        }
    }

    /// Takes the next message; gives the transaction that it completes.
    ///
    /// # Errors
    /// The message cannot be read, comes out of order, or does not fit on the disk.
    pub fn push(
        &mut self,
        wal_start: Lsn,
        payload: &[u8],
    ) -> Result<Option<Transaction>, TransactionError> {
        let content =
            matches!(payload.first(), Some(b'I' | b'U' | b'D' | b'T' | b'R' | b'Y' | b'O' | b'M'));
        match self.place {
            Place::Transaction { .. } | Place::Stream { .. } if content => {
                self.append(wal_start, payload)?;
                Ok(None)
            }
            Place::Between if payload.first() == Some(&b'M') => {
                self.outside(wal_start, payload)?;
                Ok(None)
            }
            _ => self.border(wal_start, payload),
        }
    }

    /// The message of the attempt trigger that was pushed last, once.
    pub fn take_attempt(&mut self) -> Option<AttemptMessage> {
        self.attempt.take()
    }

    /// A logical message outside transactions: it belongs to no change, and all but the attempt trigger's are none of our business.
    fn outside(&mut self, wal_start: Lsn, payload: &[u8]) -> Result<(), TransactionError> {
        let (_, message) = decode(payload, false).map_err(unreadable_at(wal_start))?;
        if let Message::LogicalMessage { prefix: ATTEMPT_PREFIX, lsn, content, .. } = message {
            let content = if content.len() > ATTEMPT_BYTES_MAX { &[] } else { content };
            self.attempt = Some(AttemptMessage { lsn, content: content.to_vec() });
        }
        Ok(())
    }

    /// The messages that open and close transactions and stream segments.
    fn border(
        &mut self,
        wal_start: Lsn,
        payload: &[u8],
    ) -> Result<Option<Transaction>, TransactionError> {
        let (_, message) = decode(payload, false).map_err(unreadable_at(wal_start))?;
        match (&self.place, message) {
            (Place::Between, Message::Begin { final_lsn, xid, .. }) => {
                self.place = Place::Transaction { xid, final_lsn };
                self.current.spool = self.spare.pop().unwrap_or_default();
                Ok(None)
            }
            (
                &Place::Transaction { xid, final_lsn },
                Message::Commit { commit_lsn, end_lsn, commit_time },
            ) => {
                if commit_lsn != final_lsn {
                    return Err(TransactionError::OtherCommit { final_lsn, commit_lsn });
                }
                self.place = Place::Between;
                let open = std::mem::take(&mut self.current);
                Ok(Some(self.finish(open, xid, (commit_lsn, end_lsn, commit_time), false)))
            }
            (Place::Between, Message::StreamStart { xid, first_segment }) => {
                if first_segment == self.streams.contains_key(&xid) {
                    let place =
                        if first_segment { "a second time" } else { "before its first segment" };
                    return Err(TransactionError::OutOfOrder { message: "Stream Start", place });
                }
                self.streams.entry(xid).or_default();
                self.place = Place::Stream { xid };
                Ok(None)
            }
            (Place::Stream { .. }, Message::StreamStop) => {
                self.place = Place::Between;
                Ok(None)
            }
            (Place::Between, Message::StreamAbort { xid, subxid, .. }) => {
                self.abort(xid, subxid)?;
                Ok(None)
            }
            (Place::Between, Message::StreamCommit { xid, commit_lsn, end_lsn, commit_time }) => {
                let open = self.streams.remove(&xid).ok_or(TransactionError::OutOfOrder {
                    message: "Stream Commit",
                    place: "for a transaction that was not streamed",
                })?;
                Ok(Some(self.finish(open, xid, (commit_lsn, end_lsn, commit_time), true)))
            }
            (_, message) => Err(out_of_order(&self.place, &message)),
        }
    }

    fn append(&mut self, wal_start: Lsn, payload: &[u8]) -> Result<(), TransactionError> {
        let open = match self.place {
            Place::Stream { xid } => {
                let open = self.streams.entry(xid).or_default();
                let subxid = payload.get(1..).and_then(<[u8]>::first_chunk::<4>);
                let subxid = subxid.map_or(xid, |bytes| u32::from_be_bytes(*bytes));
                // Origin messages carry no xid; they stand first in a segment.
                // A logical message carries the xid of the whole transaction, `pgoutput_message` in `pgoutput.c`: those that stand before a subtransaction's first row may be its own, and are rolled back with it.
                if payload.first() != Some(&b'O') && subxid != xid {
                    open.places.entry(subxid).or_insert_with(|| {
                        open.subtransactions.push((subxid, open.tail));
                        open.subtransactions.len() - 1
                    });
                }
                open
            }
            _ => &mut self.current,
        };
        match payload.first() {
            Some(b'I' | b'U' | b'D' | b'T') => open.changes += 1,
            Some(b'M') => open.has_logical_messages = true,
            _ => {}
        }
        let before = open.spool.memory_bytes();
        let spool_error =
            |source| TransactionError::Spool { folder: self.spool_folder.clone(), source };
        open.spool.append(wal_start, payload).map_err(spool_error)?;
        if payload.first() != Some(&b'M') {
            open.tail = Mark { bytes: open.spool.bytes(), changes: open.changes };
        }
        let memory_bytes = self.memory_bytes + open.spool.memory_bytes();
        if memory_bytes.saturating_sub(before) > self.memory_limit {
            open.spool.spill(&self.spool_folder).map_err(spool_error)?;
        }
        self.memory_bytes = (self.memory_bytes + open.spool.memory_bytes()).saturating_sub(before);
        Ok(())
    }

    /// Takes back a whole streamed transaction, or one of its subtransactions. Of one that sent no row, only the logical messages that stand last may be.
    fn abort(&mut self, xid: u32, subxid: u32) -> Result<(), TransactionError> {
        let Some(open) = self.streams.get_mut(&xid) else { return Ok(()) };
        let before = open.spool.memory_bytes();
        if xid == subxid {
            self.streams.remove(&xid);
            self.memory_bytes = self.memory_bytes.saturating_sub(before);
            return Ok(());
        }
        let first = open.places.get(&subxid).copied().unwrap_or(open.subtransactions.len());
        open.tail = open.subtransactions.get(first).map_or(open.tail, |&(_, began)| began);
        open.spool.truncate(open.tail.bytes).map_err(|source| TransactionError::Spool {
            folder: self.spool_folder.clone(),
            source,
        })?;
        open.changes = open.tail.changes;
        for (gone, _) in open.subtransactions.drain(first..) {
            open.places.remove(&gone);
        }
        let after = open.spool.memory_bytes();
        self.memory_bytes = (self.memory_bytes + after).saturating_sub(before);
        Ok(())
    }

    fn finish(
        &mut self,
        open: Open,
        xid: u32,
        (commit_lsn, end_lsn, commit_time): (Lsn, Lsn, Timestamp),
        streamed: bool,
    ) -> Transaction {
        self.memory_bytes = self.memory_bytes.saturating_sub(open.spool.memory_bytes());
        let Open { spool, changes, has_logical_messages, .. } = open;
        Transaction {
            xid,
            commit_lsn,
            end_lsn,
            commit_time,
            changes,
            has_logical_messages,
            streamed,
            spool,
        }
    }

    /// Gives the memory of a translated transaction to the next one.
    pub fn recycle(&mut self, transaction: Transaction) {
        let mut spool = transaction.spool;
        spool.reset(if self.spare.is_empty() { KEEP_BYTES } else { SPARE_BYTES });
        if self.spare.len() < SPARE_MAX {
            self.spare.push(spool);
        }
    }
}

fn unreadable_at(lsn: Lsn) -> impl FnOnce(DecodeError) -> TransactionError {
    move |source| TransactionError::Decode { lsn, source }
}

fn out_of_order(place: &Place, message: &Message<'_>) -> TransactionError {
    let message = match message {
        Message::Begin { .. } => "Begin",
        Message::Commit { .. } => "Commit",
        Message::StreamStart { .. } => "Stream Start",
        Message::StreamStop => "Stream Stop",
        Message::StreamCommit { .. } => "Stream Commit",
        Message::StreamAbort { .. } => "Stream Abort",
        Message::BeginPrepare(_)
        | Message::Prepare(_)
        | Message::StreamPrepare(_)
        | Message::CommitPrepared { .. }
        | Message::RollbackPrepared { .. } => return TransactionError::TwoPhase,
        Message::Origin { .. }
        | Message::LogicalMessage { .. }
        | Message::Relation(_)
        | Message::Type { .. }
        | Message::Insert { .. }
        | Message::Update { .. }
        | Message::Delete { .. }
        | Message::Truncate { .. } => "of a row change",
    };
    let place = match place {
        Place::Between => "outside a transaction",
        Place::Transaction { .. } => "inside a transaction",
        Place::Stream { .. } => "inside a stream segment",
    };
    TransactionError::OutOfOrder { message, place }
}

#[cfg(test)]
mod tests;
