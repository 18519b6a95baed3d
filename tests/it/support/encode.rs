//! Messages of pgoutput, written by the manual's layout (section 55.9): what the decoder reads, the other way.

use portal_audit::{
    decode::{Column, Message, OldTuple, Prepared, RelationMessage, ReplicaIdentity, TupleData},
    lsn::Lsn,
    timestamp::Timestamp,
};

fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    out.extend(parts.concat());
}

fn put_tuple(out: &mut Vec<u8>, kind: u8, tuple: TupleData<'_>) {
    put(out, &[&[kind], &u16::try_from(tuple.len()).unwrap().to_be_bytes()]);
    for column in tuple.columns() {
        let (kind, value) = match column {
            Column::Null => (b'n', None),
            Column::Unchanged => (b'u', None),
            Column::Text(value) => (b't', Some(value)),
            Column::Binary(value) => (b'b', Some(value)),
        };
        out.push(kind);
        if let Some(value) = value {
            put(out, &[&u32::try_from(value.len()).unwrap().to_be_bytes(), value]);
        }
    }
}

fn put_old(out: &mut Vec<u8>, old: OldTuple<'_>) {
    match old {
        OldTuple::Full(tuple) => put_tuple(out, b'O', tuple),
        OldTuple::Key(tuple) => put_tuple(out, b'K', tuple),
    }
}

fn put_relation(out: &mut Vec<u8>, message: &RelationMessage<'_>) {
    let identity = match message.replica_identity {
        ReplicaIdentity::Default => b'd',
        ReplicaIdentity::Nothing => b'n',
        ReplicaIdentity::Full => b'f',
        ReplicaIdentity::Index => b'i',
    };
    let columns = u16::try_from(message.columns.len()).unwrap().to_be_bytes();
    put(
        out,
        &[
            &message.oid.to_be_bytes(),
            message.namespace,
            b"\0",
            message.name,
            &[0, identity],
            &columns,
        ],
    );
    for column in &message.columns {
        let (oid, modifier) = (column.type_oid.to_be_bytes(), column.type_modifier.to_be_bytes());
        put(out, &[&[u8::from(column.key)], column.name, b"\0", &oid, &modifier]);
    }
}

fn lsn(Lsn(lsn): Lsn) -> [u8; 8] {
    lsn.to_be_bytes()
}

fn time(Timestamp(time): Timestamp) -> [u8; 8] {
    time.to_be_bytes()
}

fn put_prepared(out: &mut Vec<u8>, it: &Prepared<'_>) {
    put(
        out,
        &[
            &lsn(it.prepare_lsn),
            &lsn(it.end_lsn),
            &time(it.prepare_time),
            &it.xid.to_be_bytes(),
            it.gid,
            b"\0",
        ],
    );
}

/// The bytes of a message, by the manual: what the decoder reads, written.
pub fn encode(subxid: Option<u32>, message: &Message<'_>) -> Vec<u8> {
    let (mut body, out) = (Vec::new(), &mut Vec::new());
    let tag = match message {
        Message::Begin { final_lsn, commit_time, xid } => {
            put(out, &[&lsn(*final_lsn), &time(*commit_time), &xid.to_be_bytes()]);
            b'B'
        }
        Message::Commit { commit_lsn, end_lsn, commit_time } => {
            put(out, &[&[0], &lsn(*commit_lsn), &lsn(*end_lsn), &time(*commit_time)]);
            b'C'
        }
        Message::Origin { commit_lsn, name } => {
            put(out, &[&lsn(*commit_lsn), name, b"\0"]);
            b'O'
        }
        Message::LogicalMessage { transactional, lsn: at, prefix, content } => {
            let length = u32::try_from(content.len()).unwrap().to_be_bytes();
            put(out, &[&[u8::from(*transactional)], &lsn(*at), prefix, b"\0", &length, content]);
            b'M'
        }
        Message::Relation(relation) => {
            put_relation(out, relation);
            b'R'
        }
        Message::Type { oid, namespace, name } => {
            put(out, &[&oid.to_be_bytes(), namespace, b"\0", name, b"\0"]);
            b'Y'
        }
        Message::Insert { relation, new } => {
            put(out, &[&relation.to_be_bytes()]);
            put_tuple(out, b'N', *new);
            b'I'
        }
        Message::Update { relation, old, new } => {
            put(out, &[&relation.to_be_bytes()]);
            old.iter().for_each(|old| put_old(out, *old));
            put_tuple(out, b'N', *new);
            b'U'
        }
        Message::Delete { relation, old } => {
            put(out, &[&relation.to_be_bytes()]);
            put_old(out, *old);
            b'D'
        }
        Message::Truncate { cascade, restart_identity, relations } => {
            let options = u8::from(*cascade) | (u8::from(*restart_identity) << 1);
            put(out, &[&u32::try_from(relations.len()).unwrap().to_be_bytes(), &[options]]);
            relations.iter().for_each(|oid| put(out, &[&oid.to_be_bytes()]));
            b'T'
        }
        message => encode_stream(out, message),
    };
    body.push(tag);
    body.extend(subxid.into_iter().flat_map(u32::to_be_bytes));
    body.append(out);
    body
}

fn encode_stream(out: &mut Vec<u8>, message: &Message<'_>) -> u8 {
    match message {
        Message::StreamStart { xid, first_segment } => {
            put(out, &[&xid.to_be_bytes(), &[u8::from(*first_segment)]]);
            b'S'
        }
        Message::StreamStop => b'E',
        Message::StreamCommit { xid, commit_lsn, end_lsn, commit_time } => {
            put(
                out,
                &[&xid.to_be_bytes(), &[0], &lsn(*commit_lsn), &lsn(*end_lsn), &time(*commit_time)],
            );
            b'c'
        }
        Message::StreamAbort { xid, subxid, abort } => {
            put(out, &[&xid.to_be_bytes(), &subxid.to_be_bytes()]);
            abort.iter().for_each(|(at, when)| put(out, &[&lsn(*at), &time(*when)]));
            b'A'
        }
        Message::BeginPrepare(prepared) => {
            put_prepared(out, prepared);
            b'b'
        }
        Message::Prepare(prepared) | Message::StreamPrepare(prepared) => {
            out.push(0);
            put_prepared(out, prepared);
            if matches!(message, Message::Prepare(_)) { b'P' } else { b'p' }
        }
        Message::CommitPrepared { commit_lsn, end_lsn, commit_time, xid, gid } => {
            put(
                out,
                &[
                    &[0],
                    &lsn(*commit_lsn),
                    &lsn(*end_lsn),
                    &time(*commit_time),
                    &xid.to_be_bytes(),
                    gid,
                    b"\0",
                ],
            );
            b'K'
        }
        Message::RollbackPrepared {
            prepare_end_lsn,
            end_lsn,
            prepare_time,
            rollback_time,
            xid,
            gid,
        } => {
            put(
                out,
                &[
                    &[0],
                    &lsn(*prepare_end_lsn),
                    &lsn(*end_lsn),
                    &time(*prepare_time),
                    &time(*rollback_time),
                    &xid.to_be_bytes(),
                    gid,
                    b"\0",
                ],
            );
            b'r'
        }
        _ => panic!("a message that only a transaction has"),
    }
}
