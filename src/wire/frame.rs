//! `Frame`: what the stream carries in `CopyData` (manual, section 55.4).

use super::WireError;
use crate::{lsn::Lsn, timestamp::Timestamp};

/// One message of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A piece of the WAL as the output plugin tells it.
    XLogData {
        /// The change's LSN; 0/0 where it has none.
        wal_start: Lsn,
        /// How far the server has sent.
        wal_end: Lsn,
        /// The server's clock when it sent this.
        server_time: Timestamp,
        /// One message of the output plugin.
        payload: &'a [u8],
    },
    /// The server is alive, and has nothing for us before `wal_end`.
    Keepalive {
        /// How far the server has sent.
        wal_end: Lsn,
        /// The server's clock when it sent this.
        server_time: Timestamp,
        /// Answer at once, or be cut off after `wal_sender_timeout`.
        reply_requested: bool,
    },
}

/// Reads the body of `CopyData`.
pub(super) fn read_frame(body: &[u8]) -> Result<Frame<'_>, WireError> {
    let frame = match body.split_first() {
        Some((b'w', rest)) => take_u64s(rest).map(|([wal_start, wal_end, time], payload)| {
            let (wal_start, wal_end) = (Lsn(wal_start), Lsn(wal_end));
            Frame::XLogData { wal_start, wal_end, server_time: timestamp(time), payload }
        }),
        Some((b'k', rest)) => match take_u64s(rest) {
            Some(([wal_end, time], [reply])) => Some(Frame::Keepalive {
                wal_end: Lsn(wal_end),
                server_time: timestamp(time),
                reply_requested: *reply != 0,
            }),
            _ => None,
        },
        _ => None,
    };
    frame.ok_or_else(|| {
        let kind = body.first().map_or_else(String::new, |kind| kind.escape_ascii().to_string());
        WireError::protocol(format!("CopyData \"{kind}\" of {} bytes", body.len()))
    })
}

fn timestamp(bits: u64) -> Timestamp {
    Timestamp(i64::from_be_bytes(bits.to_be_bytes()))
}

/// The first `N` numbers of `bytes`, and what follows them.
fn take_u64s<const N: usize>(mut bytes: &[u8]) -> Option<([u64; N], &[u8])> {
    let mut numbers = [0; N];
    for number in &mut numbers {
        let (chunk, rest) = bytes.split_first_chunk()?;
        (*number, bytes) = (u64::from_be_bytes(*chunk), rest);
    }
    Some((numbers, bytes))
}

#[cfg(test)]
mod tests {
    use super::{Frame, read_frame};
    use crate::{lsn::Lsn, timestamp::Timestamp};
    use proptest::prelude::*;

    #[test]
    fn reads_both_frames() {
        let numbers = [1u64, 2, 3].map(u64::to_be_bytes).concat();
        let body = [b"w", &numbers[..], b"data"].concat();
        assert_eq!(
            read_frame(&body).unwrap(),
            Frame::XLogData {
                wal_start: Lsn(1),
                wal_end: Lsn(2),
                server_time: Timestamp(3),
                payload: b"data"
            }
        );
        let body = [b"k", &numbers[8..], &[1]].concat();
        assert_eq!(
            read_frame(&body).unwrap(),
            Frame::Keepalive { wal_end: Lsn(2), server_time: Timestamp(3), reply_requested: true }
        );
        assert!(read_frame(&body[..17]).is_err() && read_frame(b"").is_err());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            drop(read_frame(&bytes));
        }
    }
}
