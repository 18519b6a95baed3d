//! A model of a session with savepoints says what a streamed transaction must hold; the assembler must agree, however the segments fall and wherever it spills.

use super::{Assembler, Transaction, TransactionError};
use crate::{decode::Message, lsn::Lsn, spool::Cursor};
use proptest::prelude::*;

fn begin(xid: u32) -> Vec<u8> {
    [&b"B"[..], &100_u64.to_be_bytes(), &7_i64.to_be_bytes(), &xid.to_be_bytes()].concat()
}

fn commit(lsn: u64) -> Vec<u8> {
    [&b"C\0"[..], &lsn.to_be_bytes(), &(lsn + 1).to_be_bytes(), &7_i64.to_be_bytes()].concat()
}

/// An insert of one text column that holds `value`.
fn insert(subxid: Option<u32>, value: u32) -> Vec<u8> {
    let text = value.to_string();
    let length = u32::try_from(text.len()).unwrap().to_be_bytes();
    let xid: Vec<u8> = subxid.into_iter().flat_map(u32::to_be_bytes).collect();
    let oid = 9_u32.to_be_bytes();
    [&b"I"[..], &xid, &oid, b"N\0\x01t", &length, text.as_bytes()].concat()
}

fn stream_start(xid: u32, first: bool) -> Vec<u8> {
    [&b"S"[..], &xid.to_be_bytes(), &[u8::from(first)]].concat()
}

fn stream_abort(xid: u32, subxid: u32) -> Vec<u8> {
    [&b"A"[..], &xid.to_be_bytes(), &subxid.to_be_bytes()].concat()
}

fn stream_commit(xid: u32) -> Vec<u8> {
    let commit = commit(100);
    [&b"c"[..], &xid.to_be_bytes(), &commit[1..]].concat()
}

/// The values of its rows, and those of its logical messages.
fn content(transaction: &Transaction) -> (Vec<u32>, Vec<u32>) {
    let number = |text: &[u8]| std::str::from_utf8(text).unwrap().parse::<u32>().unwrap();
    let mut cursor = Cursor::default();
    let (mut rows, mut messages) = (Vec::new(), Vec::new());
    while let Some((_, message)) = transaction.next(&mut cursor).unwrap() {
        match message {
            Message::Insert { new, .. } => match new.columns().next() {
                Some(crate::decode::Column::Text(text)) => rows.push(number(text)),
                other => panic!("only text was sent: {other:?}"),
            },
            Message::LogicalMessage { content, .. } => messages.push(number(content)),
            _ => panic!("only inserts and logical messages were sent"),
        }
    }
    (rows, messages)
}

fn values(transaction: &Transaction) -> Vec<u32> {
    content(transaction).0
}

/// What a session does inside its transaction.
#[derive(Debug, Clone)]
enum Act {
    Insert,
    Message,
    Savepoint,
    Release,
    RollBack,
    NewSegment,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => Just(Act::Insert),
        2 => Just(Act::Message),
        2 => Just(Act::Savepoint),
        1 => Just(Act::Release),
        2 => Just(Act::RollBack),
        2 => Just(Act::NewSegment),
    ]
}

/// Plays a session as its walsender would; gives the messages, and what commits in its order: whether it is a row, and its value.
fn stream(xid: u32, acts: &[Act]) -> (Vec<Vec<u8>>, Vec<(bool, u32)>) {
    let mut messages = vec![stream_start(xid, true)];
    let mut kept = Vec::new();
    // Each open savepoint: its xid, how many values stood before it, and the released ones inside it, which are rolled back with it: the server then sends an abort for each of them, and its own last.
    let mut savepoints: Vec<(u32, usize, Vec<u32>)> = Vec::new();
    let mut next_xid = xid + 1;
    for (act, value) in acts.iter().zip(0..) {
        match act {
            Act::Insert => {
                let subxid = savepoints.last().map_or(xid, |(subxid, _, _)| *subxid);
                messages.push(insert(Some(subxid), value));
                kept.push((true, value));
            }
            // Whatever subtransaction it is of, it carries the xid of the whole.
            Act::Message => {
                messages.push(message(Some(xid), "app", value.to_string().as_bytes()));
                kept.push((false, value));
            }
            Act::Savepoint => {
                savepoints.push((next_xid, kept.len(), vec![]));
                next_xid += 1;
            }
            Act::Release => {
                let released = savepoints.pop();
                if let (Some((subxid, _, inside)), Some(parent)) = (released, savepoints.last_mut())
                {
                    parent.2.extend(inside.into_iter().chain([subxid]));
                }
            }
            Act::RollBack => {
                if let Some((subxid, before, inside)) = savepoints.pop() {
                    kept.truncate(before);
                    messages.push(b"E".to_vec());
                    messages.extend(inside.iter().map(|&inside| stream_abort(xid, inside)));
                    messages.push(stream_abort(xid, subxid));
                    messages.push(stream_start(xid, false));
                }
            }
            Act::NewSegment => {
                messages.push(b"E".to_vec());
                messages.push(stream_start(xid, false));
            }
        }
    }
    messages.push(b"E".to_vec());
    messages.push(stream_commit(xid));
    (messages, kept)
}

proptest! {
    #[test]
    fn a_streamed_transaction_holds_what_its_session_committed(
        acts in proptest::collection::vec(act(), 0..80),
        memory_limit in 0_usize..2_000,
    ) {
        let (messages, kept) = stream(1_000, &acts);
        let mut assembler = Assembler::new(memory_limit, std::env::temp_dir());
        let mut committed = Vec::new();
        for message in &messages {
            committed.extend(assembler.push(Lsn(5), message).unwrap());
        }
        prop_assert_eq!(committed.len(), 1);
        let transaction = &committed[0];
        let (rows, logical) = content(transaction);
        let kept_rows: Vec<u32> = kept.iter().filter(|(row, _)| *row).map(|kept| kept.1).collect();
        prop_assert_eq!(transaction.changes, kept_rows.len() as u64);
        prop_assert_eq!(rows, kept_rows);
        // No logical message that was rolled back; and every one that a row stands behind, before anything else happened.
        prop_assert!(logical.iter().all(|value| kept.contains(&(false, *value))));
        let missing = kept.iter().filter(|(row, value)| !row && !logical.contains(value));
        for (_, value) in missing {
            let next = acts.iter().zip(0_u32..).skip(*value as usize + 1);
            let next = next.take_while(|(act, _)| !matches!(act, Act::RollBack));
            let row = next.filter(|(act, _)| matches!(act, Act::Insert)).map(|(_, row)| row).next();
            prop_assert!(row.is_none_or(|row| !kept.contains(&(true, row))), "lost message {value}");
        }
        prop_assert_eq!((transaction.xid, transaction.end_lsn), (1_000, Lsn(101)));
        prop_assert_eq!(assembler.memory_bytes, 0);
    }

    #[test]
    fn no_sequence_of_messages_makes_it_panic(
        sequence in proptest::collection::vec(
            prop_oneof![
                Just(begin(1)), Just(commit(100)), Just(insert(None, 3)), Just(insert(Some(8), 3)),
                Just(stream_start(1, true)), Just(stream_start(1, false)), Just(b"E".to_vec()),
                Just(stream_abort(1, 8)), Just(stream_abort(1, 1)), Just(stream_commit(1)),
                proptest::collection::vec(any::<u8>(), 0..12),
            ],
            0..40,
        ),
    ) {
        let mut assembler = Assembler::new(50, std::env::temp_dir());
        for message in &sequence {
            let Ok(transaction) = assembler.push(Lsn(1), message) else { break };
            if let Some(transaction) = transaction {
                assembler.recycle(transaction);
            }
        }
    }
}

#[test]
fn a_plain_transaction_between_two_stream_segments() {
    let mut assembler = Assembler::new(1 << 20, std::env::temp_dir());
    let mut push = |message: Vec<u8>| assembler.push(Lsn(5), &message).unwrap();
    assert!(push(stream_start(1, true)).is_none());
    assert!(push(insert(Some(1), 10)).is_none());
    assert!(push(b"E".to_vec()).is_none());
    assert!(push(begin(2)).is_none());
    assert!(push(insert(None, 20)).is_none());
    let plain = push(commit(100)).unwrap();
    assert_eq!((plain.xid, values(&plain)), (2, vec![20]));
    let streamed = push(stream_commit(1)).unwrap();
    assert_eq!((streamed.xid, values(&streamed)), (1, vec![10]));
}

#[test]
fn a_commit_must_be_the_one_that_begin_announced() {
    let mut assembler = Assembler::new(1 << 20, std::env::temp_dir());
    assembler.push(Lsn(5), &begin(1)).unwrap();
    let error = assembler.push(Lsn(5), &commit(101)).unwrap_err();
    assert!(matches!(error, TransactionError::OtherCommit { .. }));
}

/// A logical message: with the xid of a streamed transaction, or of none.
fn message(xid: Option<u32>, prefix: &str, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    let lsn = 77_u64.to_be_bytes();
    let flags = [u8::from(xid.is_some())];
    let xid: Vec<u8> = xid.into_iter().flat_map(u32::to_be_bytes).collect();
    [b"M", &xid[..], &flags, &lsn, prefix.as_bytes(), b"\0", &length, content].concat()
}

/// Attempts come between transactions and between the segments of streamed ones; what is too large to be read is not kept.
#[test]
fn attempts_are_given_once_and_bounded() {
    let mut assembler = Assembler::new(1_000, std::env::temp_dir());
    let attempt = |assembler: &mut Assembler, prefix: &str, content: &[u8]| {
        assert!(assembler.push(Lsn(1), &message(None, prefix, content)).unwrap().is_none());
        let taken = assembler.take_attempt().map(|attempt| (attempt.lsn.0, attempt.content.len()));
        assert_eq!(assembler.take_attempt(), None);
        taken
    };
    assert_eq!(attempt(&mut assembler, "portal_audit.attempt", b"{}"), Some((77, 2)));
    assert_eq!(attempt(&mut assembler, "portal_audit.attempt", &[b'x'; 4_097]), Some((77, 0)));
    assert_eq!(attempt(&mut assembler, "portal_audit.attempts", b"{}"), None);
    for message in [stream_start(5, true), insert(Some(5), 1), b"E".to_vec()] {
        assembler.push(Lsn(1), &message).unwrap();
    }
    assert_eq!(attempt(&mut assembler, "portal_audit.attempt", b"{}"), Some((77, 2)));
    let transaction = assembler.push(Lsn(1), &stream_commit(5)).unwrap().unwrap();
    assert_eq!((values(&transaction), transaction.has_logical_messages), (vec![1], false));
}

#[test]
fn a_transaction_is_large_from_a_thousand_changes_on_or_streamed() {
    let mut assembler = Assembler::new(1 << 20, std::env::temp_dir());
    let mut push = |message: &[u8]| {
        assembler.push(Lsn(1), message).unwrap();
        assembler.is_inside_large()
    };
    assert!(!push(&begin(7)));
    assert!((1..1_000).all(|value| !push(&insert(None, value))));
    assert!(push(&insert(None, 1_000)));
    assert!(!push(&commit(100)));
    assert!(!push(&begin(8)) && !push(&insert(None, 1)) && !push(&commit(100)));
    assert!(push(&stream_start(9, true)) && push(&insert(Some(9), 1)) && !push(b"E"));
}
