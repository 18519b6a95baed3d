//! What pgoutput says: its messages, and the tuples in them.

use super::Fields;
use crate::{lsn::Lsn, timestamp::Timestamp};

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
    pub(super) count: u16,
    pub(super) bytes: &'a [u8],
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
