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

/// One message of pgoutput. Strings are bytes: their encoding is the connection's, and a name may be invalid UTF-8 in an SQL_ASCII database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    Begin {
        final_lsn: Lsn,
        commit_time: Timestamp,
        xid: u32,
    },
    Commit {
        commit_lsn: Lsn,
        end_lsn: Lsn,
        commit_time: Timestamp,
    },
    Origin {
        commit_lsn: Lsn,
        name: &'a [u8],
    },
    LogicalMessage {
        transactional: bool,
        lsn: Lsn,
        prefix: &'a [u8],
        content: &'a [u8],
    },
    Relation(RelationMessage<'a>),
    Type {
        oid: u32,
        namespace: &'a [u8],
        name: &'a [u8],
    },
    Insert {
        relation: u32,
        new: TupleData<'a>,
    },
    Update {
        relation: u32,
        old: Option<OldTuple<'a>>,
        new: TupleData<'a>,
    },
    Delete {
        relation: u32,
        old: OldTuple<'a>,
    },
    Truncate {
        cascade: bool,
        restart_identity: bool,
        relations: Vec<u32>,
    },
    StreamStart {
        xid: u32,
        first_segment: bool,
    },
    StreamStop,
    StreamCommit {
        xid: u32,
        commit_lsn: Lsn,
        end_lsn: Lsn,
        commit_time: Timestamp,
    },
    /// `abort` is sent by protocol 4 with `streaming = parallel` only.
    StreamAbort {
        xid: u32,
        subxid: u32,
        abort: Option<(Lsn, Timestamp)>,
    },
    BeginPrepare(Prepared<'a>),
    Prepare(Prepared<'a>),
    StreamPrepare(Prepared<'a>),
    CommitPrepared {
        commit_lsn: Lsn,
        end_lsn: Lsn,
        commit_time: Timestamp,
        xid: u32,
        gid: &'a [u8],
    },
    RollbackPrepared {
        prepare_end_lsn: Lsn,
        end_lsn: Lsn,
        prepare_time: Timestamp,
        rollback_time: Timestamp,
        xid: u32,
        gid: &'a [u8],
    },
}

/// What the messages of a two-phase transaction's first phase say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prepared<'a> {
    pub prepare_lsn: Lsn,
    pub end_lsn: Lsn,
    pub prepare_time: Timestamp,
    pub xid: u32,
    pub gid: &'a [u8],
}

/// A table as pgoutput describes it, once per session and again after each DDL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelationMessage<'a> {
    pub oid: u32,
    /// Empty means `pg_catalog`.
    pub namespace: &'a [u8],
    pub name: &'a [u8],
    pub replica_identity: ReplicaIdentity,
    pub columns: Vec<RelationColumn<'a>>,
}

/// One published column of a relation; `key` says that it belongs to the replica identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelationColumn<'a> {
    pub key: bool,
    pub name: &'a [u8],
    pub type_oid: u32,
    pub type_modifier: i32,
}

/// `pg_class.relreplident`: what an UPDATE or DELETE says of the row before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaIdentity {
    /// The primary key.
    Default,
    /// Nothing: the portal's own UPDATE and DELETE fail on a published table.
    Nothing,
    /// The whole row.
    Full,
    /// The columns of a chosen unique index.
    Index,
}

impl ReplicaIdentity {
    /// From the letter of the catalog and of the wire.
    #[must_use]
    pub fn from_letter(letter: u8) -> Option<Self> {
        match letter {
            b'd' => Some(Self::Default),
            b'n' => Some(Self::Nothing),
            b'f' => Some(Self::Full),
            b'i' => Some(Self::Index),
            _ => None,
        }
    }
}

/// The row before an UPDATE or DELETE: the whole of it, or its replica identity only.
///
/// In a key tuple every other column carries the NULL marker; it is absent, not NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldTuple<'a> {
    Full(TupleData<'a>),
    Key(TupleData<'a>),
}

/// The columns of a row by position, already checked: [`TupleData::columns`] cannot fail.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TupleData<'a> {
    count: u16,
    bytes: &'a [u8],
}

/// Where a column stands in its tuple.
#[derive(Debug, Clone, Copy)]
pub struct ColumnSpan(usize);

/// One column of a [`TupleData`]. An unchanged TOASTed value was not sent: it is not NULL.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Column<'a> {
    Null,
    Unchanged,
    Text(&'a [u8]),
    Binary(&'a [u8]),
}

impl<'a> TupleData<'a> {
    /// Number of columns.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether there are no columns at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Where each column's kind and value stand, for reading columns by position: see [`TupleData::column`].
    pub fn index_into(&self, spans: &mut Vec<ColumnSpan>) {
        spans.clear();
        let mut fields = Fields { message: 't', rest: self.bytes };
        for _ in 0..self.count {
            let start = self.bytes.len() - fields.rest.len();
            if fields.column().is_err() {
                return;
            }
            spans.push(ColumnSpan(start));
        }
    }

    /// The column at `span`, which came from this tuple's [`TupleData::index_into`].
    #[must_use]
    pub fn column(&self, span: ColumnSpan) -> Option<Column<'a>> {
        Fields { message: 't', rest: self.bytes.get(span.0..)? }.column().ok()
    }

    /// The columns in the relation's order.
    pub fn columns(&self) -> impl Iterator<Item = Column<'a>> + use<'a> {
        let mut fields = Fields { message: 't', rest: self.bytes };
        (0..self.count).map_while(move |_| fields.column().ok())
    }
}

impl std::fmt::Debug for TupleData<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TupleData({} columns)", self.count)
    }
}

impl std::fmt::Debug for Column<'_> {
    /// Values never print: a debug line must not become a leak.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("Null"),
            Self::Unchanged => f.write_str("Unchanged"),
            Self::Text(bytes) => write!(f, "Text({} bytes)", bytes.len()),
            Self::Binary(bytes) => write!(f, "Binary({} bytes)", bytes.len()),
        }
    }
}

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
