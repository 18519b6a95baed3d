//! Stage 2: the payload of an XLogData frame → [`Message`], one message of pgoutput.
//!
//! Field order and names are those of the manual, section 55.9 "Logical Replication Message Formats", protocol versions 1 to 4. Nothing is copied: a message borrows the payload. No input makes this module panic; what it cannot read is a [`DecodeError`] that names the message and the field, never a value.

use crate::{lsn::Lsn, timestamp::Timestamp};

/// Why a payload is not a message of pgoutput. Holds no byte of the payload beyond its tag.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    #[error("pgoutput message is empty")]
    Empty,
    #[error("pgoutput message has the unknown tag 0x{tag:02X}")]
    UnknownTag { tag: u8 },
    #[error("pgoutput message {message:?} ends inside its field {field}")]
    Short { message: char, field: &'static str },
    #[error("pgoutput message {message:?} has {bytes} bytes after its last field")]
    Long { message: char, bytes: usize },
    #[error("pgoutput message {message:?} has an invalid field {field}")]
    Invalid { message: char, field: &'static str },
}

mod message;

pub use message::{
    Column, ColumnSpan, Message, OldTuple, Prepared, RelationColumn, RelationMessage,
    ReplicaIdentity, TupleData,
};

/// Reads one message.
///
/// `in_stream` says whether it stands between Stream Start and Stream Stop, where the messages of a transaction carry the xid of their (sub)transaction after the tag; that xid is the first of the pair.
///
/// # Errors
/// Whatever is not exactly one message of the manual.
pub fn decode(payload: &[u8], in_stream: bool) -> Result<(Option<u32>, Message<'_>), DecodeError> {
    let (&tag, rest) = payload.split_first().ok_or(DecodeError::Empty)?;
    let mut fields = Fields { message: char::from(tag), rest };
    let subxid = match tag {
        b'R' | b'Y' | b'I' | b'U' | b'D' | b'T' | b'M' if in_stream => Some(fields.u32("xid")?),
        _ => None,
    };
    let message = match tag {
        b'B' => Message::Begin {
            final_lsn: fields.lsn("final LSN")?,
            commit_time: fields.time("commit time")?,
            xid: fields.u32("xid")?,
        },
        b'C' => {
            fields.flags()?;
            let (commit_lsn, end_lsn, commit_time) = fields.commit()?;
            Message::Commit { commit_lsn, end_lsn, commit_time }
        }
        b'O' => Message::Origin { commit_lsn: fields.lsn("LSN")?, name: fields.string("name")? },
        b'M' => fields.logical_message()?,
        b'R' => Message::Relation(fields.relation()?),
        b'Y' => Message::Type {
            oid: fields.u32("oid")?,
            namespace: fields.string("namespace")?,
            name: fields.string("name")?,
        },
        b'I' => fields.insert()?,
        b'U' => fields.update()?,
        b'D' => fields.delete()?,
        b'T' => fields.truncate()?,
        _ => fields.stream_or_prepared(tag)?,
    };
    match fields.rest.len() {
        0 => Ok((subxid, message)),
        bytes => Err(DecodeError::Long { message: fields.message, bytes }),
    }
}

/// The rest of a message, read from the front.
struct Fields<'a> {
    message: char,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(DecodeError::Short { message: self.message, field })?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(DecodeError::Short { message: self.message, field })?;
        self.rest = rest;
        Ok(*taken)
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_be_bytes)
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_be_bytes)
    }

    fn lsn(&mut self, field: &'static str) -> Result<Lsn, DecodeError> {
        self.array(field).map(u64::from_be_bytes).map(Lsn)
    }

    fn time(&mut self, field: &'static str) -> Result<Timestamp, DecodeError> {
        self.array(field).map(i64::from_be_bytes).map(Timestamp)
    }

    /// A length that the wire gives as a signed number and that must not be negative.
    fn length(&mut self, field: &'static str) -> Result<usize, DecodeError> {
        let signed = i32::from_be_bytes(self.array(field)?);
        usize::try_from(signed).map_err(|_negative| self.invalid(field))
    }

    fn string(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let end = self
            .rest
            .iter()
            .position(|&byte| byte == 0)
            .ok_or(DecodeError::Short { message: self.message, field })?;
        let text = self.take(end, field)?;
        self.take(1, field)?;
        Ok(text)
    }

    fn invalid(&self, field: &'static str) -> DecodeError {
        DecodeError::Invalid { message: self.message, field }
    }

    /// Flags that the manual calls unused; a bit that is set would be a message we do not know.
    fn flags(&mut self) -> Result<(), DecodeError> {
        match self.u8("flags")? {
            0 => Ok(()),
            _ => Err(self.invalid("flags")),
        }
    }

    fn commit(&mut self) -> Result<(Lsn, Lsn, Timestamp), DecodeError> {
        Ok((self.lsn("commit LSN")?, self.lsn("end LSN")?, self.time("commit time")?))
    }

    fn prepared(&mut self) -> Result<Prepared<'a>, DecodeError> {
        Ok(Prepared {
            prepare_lsn: self.lsn("prepare LSN")?,
            end_lsn: self.lsn("end LSN")?,
            prepare_time: self.time("prepare time")?,
            xid: self.u32("xid")?,
            gid: self.string("gid")?,
        })
    }

    fn logical_message(&mut self) -> Result<Message<'a>, DecodeError> {
        let transactional = match self.u8("flags")? {
            0 => false,
            1 => true,
            _ => return Err(self.invalid("flags")),
        };
        let lsn = self.lsn("LSN")?;
        let prefix = self.string("prefix")?;
        let length = self.length("length")?;
        let content = self.take(length, "content")?;
        Ok(Message::LogicalMessage { transactional, lsn, prefix, content })
    }

    fn relation(&mut self) -> Result<RelationMessage<'a>, DecodeError> {
        let oid = self.u32("oid")?;
        let namespace = self.string("namespace")?;
        let name = self.string("name")?;
        let letter = self.u8("replica identity")?;
        let replica_identity =
            ReplicaIdentity::from_letter(letter).ok_or_else(|| self.invalid("replica identity"))?;
        let count = self.u16("number of columns")?;
        let mut columns = Vec::with_capacity(usize::from(count.min(1600)));
        for _ in 0..count {
            let key = match self.u8("column flags")? {
                0 => false,
                1 => true,
                _ => return Err(self.invalid("column flags")),
            };
            columns.push(RelationColumn {
                key,
                name: self.string("column name")?,
                type_oid: self.u32("column type")?,
                type_modifier: i32::from_be_bytes(self.array("column type modifier")?),
            });
        }
        Ok(RelationMessage { oid, namespace, name, replica_identity, columns })
    }

    fn insert(&mut self) -> Result<Message<'a>, DecodeError> {
        let relation = self.u32("relation")?;
        match self.u8("tuple kind")? {
            b'N' => Ok(Message::Insert { relation, new: self.tuple()? }),
            _ => Err(self.invalid("tuple kind")),
        }
    }

    fn update(&mut self) -> Result<Message<'a>, DecodeError> {
        let relation = self.u32("relation")?;
        let old = match self.u8("tuple kind")? {
            b'N' => return Ok(Message::Update { relation, old: None, new: self.tuple()? }),
            b'K' => OldTuple::Key(self.tuple()?),
            b'O' => OldTuple::Full(self.tuple()?),
            _ => return Err(self.invalid("tuple kind")),
        };
        match self.u8("tuple kind")? {
            b'N' => Ok(Message::Update { relation, old: Some(old), new: self.tuple()? }),
            _ => Err(self.invalid("tuple kind")),
        }
    }

    fn delete(&mut self) -> Result<Message<'a>, DecodeError> {
        let relation = self.u32("relation")?;
        let old = match self.u8("tuple kind")? {
            b'K' => OldTuple::Key(self.tuple()?),
            b'O' => OldTuple::Full(self.tuple()?),
            _ => return Err(self.invalid("tuple kind")),
        };
        Ok(Message::Delete { relation, old })
    }

    fn truncate(&mut self) -> Result<Message<'a>, DecodeError> {
        let count = self.length("number of relations")?;
        let options = self.u8("options")?;
        if options > 3 {
            return Err(self.invalid("options"));
        }
        let bytes = count.checked_mul(4).ok_or_else(|| self.invalid("number of relations"))?;
        let (oids, _) = self.take(bytes, "relations")?.as_chunks::<4>();
        Ok(Message::Truncate {
            cascade: options & 1 != 0,
            restart_identity: options & 2 != 0,
            relations: oids.iter().map(|oid| u32::from_be_bytes(*oid)).collect(),
        })
    }

    /// Walks a tuple once, so that its columns can be read later without a failure.
    fn tuple(&mut self) -> Result<TupleData<'a>, DecodeError> {
        let count = self.u16("number of columns")?;
        let start = self.rest;
        for _ in 0..count {
            self.column()?;
        }
        let bytes = start.get(..start.len() - self.rest.len()).unwrap_or_default();
        Ok(TupleData { count, bytes })
    }

    fn column(&mut self) -> Result<Column<'a>, DecodeError> {
        let kind = self.u8("column kind")?;
        match kind {
            b'n' => return Ok(Column::Null),
            b'u' => return Ok(Column::Unchanged),
            b't' | b'b' => {}
            _ => return Err(self.invalid("column kind")),
        }
        let length = self.length("column length")?;
        let value = self.take(length, "column value")?;
        Ok(if kind == b't' { Column::Text(value) } else { Column::Binary(value) })
    }

    fn stream_or_prepared(&mut self, tag: u8) -> Result<Message<'a>, DecodeError> {
        Ok(match tag {
            b'S' => Message::StreamStart {
                xid: self.u32("xid")?,
                first_segment: match self.u8("first segment")? {
                    0 => false,
                    1 => true,
                    _ => return Err(self.invalid("first segment")),
                },
            },
            b'E' => Message::StreamStop,
            b'c' => {
                let xid = self.u32("xid")?;
                self.flags()?;
                let (commit_lsn, end_lsn, commit_time) = self.commit()?;
                Message::StreamCommit { xid, commit_lsn, end_lsn, commit_time }
            }
            b'A' => {
                let (xid, subxid) = (self.u32("xid")?, self.u32("subxid")?);
                let parallel = !self.rest.is_empty();
                let abort = if parallel {
                    Some((self.lsn("abort LSN")?, self.time("abort time")?))
                } else {
                    None
                };
                Message::StreamAbort { xid, subxid, abort }
            }
            b'b' => Message::BeginPrepare(self.prepared()?),
            b'P' => {
                self.flags()?;
                Message::Prepare(self.prepared()?)
            }
            b'p' => {
                self.flags()?;
                Message::StreamPrepare(self.prepared()?)
            }
            b'K' => {
                self.flags()?;
                let (commit_lsn, end_lsn, commit_time) = self.commit()?;
                let (xid, gid) = (self.u32("xid")?, self.string("gid")?);
                Message::CommitPrepared { commit_lsn, end_lsn, commit_time, xid, gid }
            }
            b'r' => {
                self.flags()?;
                Message::RollbackPrepared {
                    prepare_end_lsn: self.lsn("prepare end LSN")?,
                    end_lsn: self.lsn("rollback end LSN")?,
                    prepare_time: self.time("prepare time")?,
                    rollback_time: self.time("rollback time")?,
                    xid: self.u32("xid")?,
                    gid: self.string("gid")?,
                }
            }
            _ => return Err(DecodeError::UnknownTag { tag }),
        })
    }
}

#[cfg(test)]
mod tests;
