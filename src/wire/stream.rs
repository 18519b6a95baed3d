//! The stream that `START_REPLICATION` opens: frames in, status updates out (manual, 55.4).

use super::{
    COPY_DATA_TAG, COPY_DONE_TAG, Connection, ERROR_RESPONSE_TAG, Frame, HEADER_BYTES, WireError,
    first_message, frame::read_frame, message_length, server_error, startup::Stream,
    unknown_message,
};
use crate::{lsn::Lsn, timestamp::Timestamp};
use bytes::{BufMut, BytesMut};
use postgres_protocol::message::{backend, frontend};
use std::{io, time::Duration};
use tokio::{
    io::AsyncWriteExt,
    net::{tcp, unix},
    time,
};

/// What one read takes at most, and what the buffer keeps; twice `RECEIVE_BUFFER_BYTES`, since
/// Linux doubles that.
const BUFFER_BYTES_KEPT: usize = 256 << 10;

/// How long bytes may gather while we are behind: until the next tick of tokio's timer, which with
/// the rounding of `epoll_wait` is 1 to 1.2 ms. Asked for 500 µs it takes 2 ms, in which the receive
/// buffer runs full, and draining takes longer than without any wait. See [`FrameReader::fill`].
const GATHERING_TIME: Duration = Duration::from_micros(1);

#[derive(Debug)]
enum ReadHalf {
    Tcp(tcp::OwnedReadHalf),
    Unix(unix::OwnedReadHalf),
}

#[derive(Debug)]
enum WriteHalf {
    Tcp(tcp::OwnedWriteHalf),
    Unix(unix::OwnedWriteHalf),
}

pub(super) fn split(connection: Connection, during: String) -> (FrameReader, StatusWriter) {
    let (read, write) = match connection.stream {
        Stream::Tcp(stream) => {
            let (read, write) = stream.into_split();
            (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
        }
        Stream::Unix(stream) => {
            let (read, write) = stream.into_split();
            (ReadHalf::Unix(read), WriteHalf::Unix(write))
        }
    };
    let buffer = FrameBuffer::starting_with(&connection.buffer);
    let reader = FrameReader { half: read, buffer, during, gather: false, reads: 0 };
    (reader, StatusWriter { half: write, unsent: BytesMut::new() })
}

/// Bytes that were read, from `start` to `end`; what lies beyond is room.
#[derive(Debug)]
struct FrameBuffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl FrameBuffer {
    fn starting_with(unread: &[u8]) -> Self {
        let mut bytes = unread.to_vec();
        bytes.resize(unread.len().max(BUFFER_BYTES_KEPT), 0);
        Self { bytes, start: 0, end: unread.len() }
    }

    fn unread(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// The room behind what was read: at least one byte. Grows only as bytes of a message too long
    /// come in, so that a false length takes no memory, and shrinks once that message is gone.
    fn room(&mut self) -> Result<&mut [u8], WireError> {
        let unread = self.end - self.start;
        let awaited = message_length(self.unread())?.unwrap_or(0);
        if self.start > 0 && (unread == 0 || self.start + awaited > self.bytes.len()) {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, unread);
        }
        if self.bytes.len() > BUFFER_BYTES_KEPT && awaited.max(unread) < BUFFER_BYTES_KEPT {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, unread);
            self.bytes.truncate(BUFFER_BYTES_KEPT);
            self.bytes.shrink_to_fit();
        }
        if self.end == self.bytes.len() {
            self.bytes.resize(self.bytes.len() * 2, 0);
        }
        Ok(self.bytes.get_mut(self.end..).unwrap_or_default())
    }

    /// The next whole frame, past notices and parameters; `None`: read more.
    fn next(&mut self, during: &str) -> Result<Option<Frame<'_>>, WireError> {
        let body = loop {
            let Some((tag, body)) = first_message(self.unread())? else { return Ok(None) };
            let end = self.start + HEADER_BYTES + body.len();
            match tag {
                COPY_DATA_TAG => {
                    let body = end - body.len()..end;
                    self.start = end;
                    break body;
                }
                COPY_DONE_TAG => return Err(WireError::Ended),
                ERROR_RESPONSE_TAG => return Err(server_error(during, body)),
                backend::NOTICE_RESPONSE_TAG | backend::PARAMETER_STATUS_TAG => {
                    self.start = end;
                }
                tag => return Err(unknown_message(tag)),
            }
        };
        read_frame(self.bytes.get(body).unwrap_or_default()).map(Some)
    }
}

/// Takes frames from the socket. Take all that [`next_buffered`](Self::next_buffered) has before
/// calling [`fill`](Self::fill).
#[derive(Debug)]
pub struct FrameReader {
    half: ReadHalf,
    buffer: FrameBuffer,
    /// Names the slot in an error of the server.
    during: String,
    /// The last read emptied the socket: the next may wait until more has gathered.
    gather: bool,
    reads: u64,
}

impl FrameReader {
    /// The next frame that is in whole already; `None`: [`fill`](Self::fill) first.
    ///
    /// # Errors
    /// [`WireError::Ended`] when the server ends the stream, [`WireError::Server`] when it reports
    /// an error, [`WireError::Protocol`] for what is no frame. Each is final.
    pub fn next_buffered(&mut self) -> Result<Option<Frame<'_>>, WireError> {
        self.buffer.next(&self.during)
    }

    /// Reads at least one byte more. Cancel-safe: dropped before its end it has read nothing.
    ///
    /// # Why
    /// The walsender sends each message by itself. A reader that takes the first byte at once is
    /// woken for each, and the waking costs the walsender, so the source, two thirds of its time.
    /// While we are `behind`, a read that emptied the socket is therefore followed by a short wait
    /// in which bytes gather. The wait must end before the receive buffer is full, or the walsender
    /// blocks and all is lost; a unix socket's is so small that there we never wait. Not `behind`,
    /// the first byte is taken at once.
    ///
    /// On some runs the kernel narrows the TCP window anyway, and the drain then costs as much as
    /// without the wait, whatever its length from 0.1 to 1 ms and with 128 KiB to 1 MiB of buffer.
    ///
    /// # Errors
    /// [`WireError::Ended`] when the server closed the socket, [`WireError::Io`].
    pub async fn fill(&mut self, behind: bool) -> Result<(), WireError> {
        if behind && self.gather {
            time::sleep(GATHERING_TIME).await;
            self.gather = false;
        }
        loop {
            let ready = match &self.half {
                ReadHalf::Tcp(half) => half.readable().await,
                ReadHalf::Unix(half) => half.readable().await,
            };
            let room = self.buffer.room()?;
            let read = ready.and_then(|()| match &self.half {
                ReadHalf::Tcp(half) => half.try_read(room),
                ReadHalf::Unix(half) => half.try_read(room),
            });
            match read {
                Ok(0) => return Err(WireError::Ended),
                Ok(read) => {
                    self.gather = read < room.len() && matches!(self.half, ReadHalf::Tcp(_));
                    self.buffer.end += read;
                    self.reads += 1;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(source) => return Err(WireError::Io { during: "reading the stream", source }),
            }
        }
    }

    /// How often the socket was read: the measure of how well bytes gather.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.reads
    }
}

/// Tells the walsender what is written. Needs no reading, so that it works whatever the reader does.
#[derive(Debug)]
pub struct StatusWriter {
    half: WriteHalf,
    /// Kept here and not in a future, so that a send cut short is finished by the next.
    unsent: BytesMut,
}

impl StatusWriter {
    /// Confirms `flushed`: the server may forget the WAL before it and never sends it again.
    /// `written` is what was received. With `request_reply` the server answers with a keepalive.
    /// Cancel-safe: what was begun goes out with the next call.
    ///
    /// # Errors
    /// [`WireError::Io`].
    pub async fn send(
        &mut self,
        written: Lsn,
        flushed: Lsn,
        request_reply: bool,
    ) -> Result<(), WireError> {
        put_status(&mut self.unsent, written, flushed, now(), request_reply);
        self.flush().await
    }

    /// Ends the stream from our side. The reader then reads on to [`WireError::Ended`].
    ///
    /// # Errors
    /// [`WireError::Io`].
    pub async fn copy_done(&mut self) -> Result<(), WireError> {
        frontend::copy_done(&mut self.unsent);
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), WireError> {
        let sent = match &mut self.half {
            WriteHalf::Tcp(half) => half.write_all_buf(&mut self.unsent).await,
            WriteHalf::Unix(half) => half.write_all_buf(&mut self.unsent).await,
        };
        sent.map_err(|source| WireError::Io { during: "sending the status", source })
    }
}

/// The message `Standby status update`. What is applied is what is flushed: we keep no third state.
fn put_status(out: &mut BytesMut, written: Lsn, flushed: Lsn, now: Timestamp, reply: bool) {
    out.put_slice(&[COPY_DATA_TAG, 0, 0, 0, 38, b'r']);
    for lsn in [written, flushed, flushed] {
        out.put_u64(lsn.0);
    }
    out.put_i64(now.0);
    out.put_u8(u8::from(reply));
}

#[expect(
    clippy::disallowed_methods,
    reason = "the status update carries our clock; the server only shows it as reply_time"
)]
fn now() -> Timestamp {
    Timestamp::from(chrono::DateTime::from(std::time::SystemTime::now()))
}

#[cfg(test)]
mod tests {
    use super::{super::tests::message, BUFFER_BYTES_KEPT, FrameBuffer, WireError, put_status};
    use crate::{lsn::Lsn, timestamp::Timestamp};
    use bytes::BytesMut;
    use proptest::prelude::*;

    fn xlog(payload: &[u8]) -> Vec<u8> {
        message(b'd', &[b"w", &[0; 24][..], payload].concat())
    }

    /// Gives the buffer `pieces` one by one; all frames, and how it ended.
    fn drain(buffer: &mut FrameBuffer, pieces: &[&[u8]]) -> (Vec<String>, Option<WireError>) {
        let mut frames = Vec::new();
        for mut piece in pieces.iter().copied() {
            while !piece.is_empty() {
                let Ok(room) = buffer.room() else { return (frames, None) };
                let taken = room.len().min(piece.len());
                room[..taken].copy_from_slice(&piece[..taken]);
                buffer.end += taken;
                piece = &piece[taken..];
                loop {
                    match buffer.next("") {
                        Ok(Some(frame)) => frames.push(format!("{frame:?}")),
                        Ok(None) => break,
                        Err(error) => return (frames, Some(error)),
                    }
                }
            }
        }
        (frames, None)
    }

    #[test]
    fn any_split_gives_the_same_frames() {
        let notice = message(b'N', b"SNOTICE\0\0");
        let keepalive = message(b'd', &[&b"k"[..], &[7; 17]].concat());
        let stream =
            [xlog(b"one"), notice, keepalive, xlog(b""), message(b'c', b""), xlog(b"late")]
                .concat();
        let (whole, end) = drain(&mut FrameBuffer::starting_with(&[]), &[&stream]);
        assert!(whole.len() == 3 && matches!(end, Some(WireError::Ended)));
        for at in 0..stream.len() {
            let (one, two) = stream.split_at(at);
            let (frames, end) = drain(&mut FrameBuffer::starting_with(&[]), &[one, two]);
            assert!(frames == whole && matches!(end, Some(WireError::Ended)), "split at {at}");
        }
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(drain(&mut FrameBuffer::starting_with(&[]), &single).0, whole);
    }

    #[test]
    fn grows_for_one_long_message_and_shrinks_again() {
        let mut buffer = FrameBuffer::starting_with(&[]);
        let (small, long) = (xlog(b"small"), xlog(&vec![1; 3 << 20]));
        let stream = [&small[..], &long, &small, &small].concat();
        let (frames, _) = drain(&mut buffer, &[&stream]);
        assert_eq!(frames.len(), 4);
        drain(&mut buffer, &[&small]);
        assert_eq!(buffer.bytes.len(), BUFFER_BYTES_KEPT);
        // A length alone takes no memory.
        drain(&mut buffer, &[b"d\x3f\xff\xff\xff"]);
        assert!(buffer.room().is_ok() && buffer.bytes.len() == BUFFER_BYTES_KEPT);
    }

    #[test]
    fn writes_the_status_as_the_manual_says() {
        let mut out = BytesMut::new();
        put_status(&mut out, Lsn(3), Lsn(2), Timestamp(-1), true);
        let numbers = [3u64, 2, 2, u64::MAX].map(u64::to_be_bytes).concat();
        assert_eq!(&out[..], message(b'd', &[b"r", &numbers[..], &[1]].concat()));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>, body: Vec<u8>) {
            drain(&mut FrameBuffer::starting_with(&[]), &[&bytes, &message(b'd', &body)]);
        }
    }
}
