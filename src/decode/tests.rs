//! Properties of the decoder: no bytes make it panic, and what is written by the manual's layout is read back.

use super::{Column, DecodeError, Message, OldTuple, TupleData, decode};
use crate::{lsn::Lsn, timestamp::Timestamp};
use proptest::prelude::*;

/// A column as the wire spells it: kind and, for values, the bytes.
type WireColumn = (u8, Vec<u8>);

fn column() -> impl Strategy<Value = WireColumn> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        Just((b'n', vec![])),
        Just((b'u', vec![])),
        bytes().prop_map(|bytes| (b't', bytes)),
        bytes().prop_map(|bytes| (b'b', bytes)),
    ]
}

fn write_tuple(out: &mut Vec<u8>, columns: &[WireColumn]) {
    out.extend(u16::try_from(columns.len()).unwrap().to_be_bytes());
    for (kind, bytes) in columns {
        out.push(*kind);
        if matches!(kind, b't' | b'b') {
            out.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
            out.extend(bytes);
        }
    }
}

fn read_back(tuple: TupleData<'_>) -> Vec<WireColumn> {
    tuple
        .columns()
        .map(|column| match column {
            Column::Null => (b'n', vec![]),
            Column::Unchanged => (b'u', vec![]),
            Column::Text(bytes) => (b't', bytes.to_vec()),
            Column::Binary(bytes) => (b'b', bytes.to_vec()),
        })
        .collect()
}

fn update(xid: Option<u32>, old: Option<(u8, &[WireColumn])>, new: &[WireColumn]) -> Vec<u8> {
    let mut payload = vec![b'U'];
    payload.extend(xid.into_iter().flat_map(u32::to_be_bytes));
    payload.extend(16_384_u32.to_be_bytes());
    if let Some((kind, columns)) = old {
        payload.push(kind);
        write_tuple(&mut payload, columns);
    }
    payload.push(b'N');
    write_tuple(&mut payload, new);
    payload
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn no_bytes_make_it_panic(
        tag in prop_oneof![Just(&b"BCOMRYIUDTSEcAbPKrp"[..])].prop_flat_map(proptest::sample::select),
        rest in proptest::collection::vec(any::<u8>(), 0..120),
        in_stream: bool,
    ) {
        let payload: Vec<u8> = std::iter::once(tag).chain(rest).collect();
        if let Ok((_, Message::Insert { new, .. } | Message::Update { new, .. })) =
            decode(&payload, in_stream)
        {
            prop_assert_eq!(new.columns().count(), new.len());
        }
    }
}

proptest! {
    #[test]
    fn an_update_is_read_as_it_was_written(
        old in proptest::option::of((prop_oneof![Just(b'K'), Just(b'O')], proptest::collection::vec(column(), 0..12))),
        new in proptest::collection::vec(column(), 0..12),
        xid: Option<u32>,
    ) {
        let payload = update(xid, old.as_ref().map(|(kind, columns)| (*kind, &columns[..])), &new);
        let (subxid, message) = decode(&payload, xid.is_some()).unwrap();
        prop_assert_eq!(subxid, xid);
        let Message::Update { relation, old: old_tuple, new: new_tuple } = message else {
            panic!("an update must decode as one")
        };
        prop_assert_eq!(relation, 16_384);
        prop_assert_eq!(read_back(new_tuple), new);
        let kind_and_columns = old_tuple.map(|tuple| match tuple {
            OldTuple::Key(tuple) => (b'K', read_back(tuple)),
            OldTuple::Full(tuple) => (b'O', read_back(tuple)),
        });
        prop_assert_eq!(kind_and_columns, old);
    }

    #[test]
    fn every_truncation_and_every_extension_is_an_error(
        new in proptest::collection::vec(column(), 0..6),
        extra in proptest::collection::vec(any::<u8>(), 1..9),
    ) {
        let payload = update(None, None, &new);
        for end in 0..payload.len() {
            prop_assert!(decode(&payload[..end], false).is_err());
        }
        let long: Vec<u8> = payload.iter().copied().chain(extra.iter().copied()).collect();
        prop_assert_eq!(
            decode(&long, false),
            Err(DecodeError::Long { message: 'U', bytes: extra.len() })
        );
    }
}

/// The fixed-size messages, field by field in the manual's order.
#[test]
fn transactions_streams_and_two_phase() {
    let mut begin = vec![b'B'];
    begin.extend(7_u64.to_be_bytes());
    begin.extend(9_i64.to_be_bytes());
    begin.extend(3_u32.to_be_bytes());
    let expected = Message::Begin { final_lsn: Lsn(7), commit_time: Timestamp(9), xid: 3 };
    assert_eq!(decode(&begin, false), Ok((None, expected)));

    let commit_fields = [7_u64, 8, 9].map(u64::to_be_bytes).concat();
    let commit = [&b"C\0"[..], &commit_fields].concat();
    let (commit_lsn, end_lsn, commit_time) = (Lsn(7), Lsn(8), Timestamp(9));
    let expected = Message::Commit { commit_lsn, end_lsn, commit_time };
    assert_eq!(decode(&commit, false), Ok((None, expected)));

    let xid = 5_u32.to_be_bytes();
    let stream_commit = [&b"c"[..], &xid, &[0], &commit_fields].concat();
    let expected = Message::StreamCommit { xid: 5, commit_lsn, end_lsn, commit_time };
    assert_eq!(decode(&stream_commit, false), Ok((None, expected)));

    let abort = [&b"A"[..], &xid, &xid].concat();
    let parallel = [&abort[..], &7_u64.to_be_bytes(), &9_u64.to_be_bytes()].concat();
    let expected = |abort| Message::StreamAbort { xid: 5, subxid: 5, abort };
    assert_eq!(decode(&abort, false), Ok((None, expected(None))));
    let with_time = Some((Lsn(7), Timestamp(9)));
    assert_eq!(decode(&parallel, false), Ok((None, expected(with_time))));

    let commit_prepared = [&b"K\0"[..], &commit_fields, &xid, b"gid\0"].concat();
    let expected =
        Message::CommitPrepared { commit_lsn, end_lsn, commit_time, xid: 5, gid: b"gid" };
    assert_eq!(decode(&commit_prepared, false), Ok((None, expected)));
}

#[test]
fn a_message_in_a_stream_names_its_subtransaction() {
    let truncate =
        [&b"T"[..], &6_u32.to_be_bytes(), &1_u32.to_be_bytes(), &[3], &8_u32.to_be_bytes()];
    let expected = Message::Truncate { cascade: true, restart_identity: true, relations: vec![8] };
    assert_eq!(decode(&truncate.concat(), true), Ok((Some(6), expected)));
}

#[test]
fn values_never_print() {
    let payload = update(None, None, &[(b't', b"hunter2".to_vec())]);
    let (_, message) = decode(&payload, false).unwrap();
    assert!(!format!("{message:?}").contains("hunter2"));
}
