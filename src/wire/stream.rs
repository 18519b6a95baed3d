//! The stream that `START_REPLICATION` opens: frames in, status updates out (manual, 55.4).

use super::{
    COPY_DATA_TAG, COPY_DONE_TAG, Connection, ERROR_RESPONSE_TAG, Frame, HEADER_BYTES, WireError,
    first_message, frame::read_frame, message_length, server_error, unknown_message,
};
use crate::{
    connect::{Cipher, Stream},
    lsn::Lsn,
    timestamp::Timestamp,
};
use bytes::{Buf as _, BufMut, BytesMut};
use postgres_protocol::message::{backend, frontend};
use std::{
    io::{self, Read as _, Write as _},
    net, os,
    time::Duration,
};
use tokio::{
    io::Interest,
    net::{TcpStream, UnixStream},
    task, time,
};

/// What one read takes at most, and what the buffer keeps; twice `RECEIVE_BUFFER_BYTES`, since
/// Linux doubles that.
const BUFFER_BYTES_KEPT: usize = 256 << 10;

/// As short as bytes can gather: until the next tick of tokio's timer, which with the rounding of
/// `epoll_wait` is 1 to 1.2 ms. See [`FrameReader::fill`].
pub const TICK: Duration = Duration::from_micros(1);

/// So many messages in a row may come that say nothing: a server asked for a sign of life gives one in between.
pub(super) const SKIPPED_MAX: u32 = 10_000;

/// How long the server has to read our last words.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// A socket that never blocks, and that the runtime does not know.
#[derive(Debug)]
enum Socket {
    Tcp(net::TcpStream),
    Unix(os::unix::net::UnixStream),
}

impl Socket {
    fn new(stream: Stream) -> io::Result<(Self, Option<Cipher>)> {
        match stream {
            Stream::Tcp(stream) => Ok((Self::Tcp(stream.into_std()?), None)),
            Stream::Unix(stream) => Ok((Self::Unix(stream.into_std()?), None)),
            Stream::Tls(stream) => {
                let (socket, cipher) = Cipher::split(*stream);
                Ok((Self::Tcp(socket.into_std()?), Some(cipher)))
            }
        }
    }

    fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(stream) => stream.try_clone().map(Self::Tcp),
            Self::Unix(stream) => stream.try_clone().map(Self::Unix),
        }
    }

    fn read(&self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => (&*stream).read(room),
            Self::Unix(stream) => (&*stream).read(room),
        }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => (&*stream).write(bytes),
            Self::Unix(stream) => (&*stream).write(bytes),
        }
    }

    /// Has the runtime watch the socket until what this gives is dropped.
    fn watch(&self) -> io::Result<Watch> {
        match self {
            Self::Tcp(stream) => stream.try_clone().and_then(TcpStream::from_std).map(Watch::Tcp),
            Self::Unix(stream) => {
                stream.try_clone().and_then(UnixStream::from_std).map(Watch::Unix)
            }
        }
    }
}

/// The runtime's own handle of a [`Socket`], which wakes us when bytes or room come.
#[derive(Debug)]
enum Watch {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Watch {
    async fn ready(&self, interest: Interest) -> io::Result<()> {
        let ready = match self {
            Self::Tcp(stream) => stream.ready(interest).await,
            Self::Unix(stream) => stream.ready(interest).await,
        };
        ready.map(drop)
    }

    /// Writes what there is room for; where there is none, [`Watch::ready`] waits again.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }

    /// Reads; where there is nothing to read, [`Watch::ready`] waits again.
    fn try_read(&self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(room),
            Self::Unix(stream) => stream.try_read(room),
        }
    }
}

pub(super) fn split(
    connection: Connection,
    during: String,
) -> io::Result<(FrameReader, StatusWriter)> {
    let (socket, cipher) = Socket::new(connection.stream)?;
    let (own, unsent) = (socket.try_clone()?, BytesMut::new());
    let writer = StatusWriter { socket: own, cipher: cipher.clone(), unsent };
    let buffer = FrameBuffer::starting_with(&connection.buffer);
    let reader = FrameReader { socket, cipher, watch: None, buffer, during, reads: 0 };
    Ok((reader, writer))
}

/// Bytes that were read, from `start` to `end`; what lies beyond is room.
#[derive(Debug)]
struct FrameBuffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Notices and parameters since the last frame.
    skipped: u32,
}

impl FrameBuffer {
    fn starting_with(unread: &[u8]) -> Self {
        let mut bytes = unread.to_vec();
        bytes.resize(unread.len().max(BUFFER_BYTES_KEPT), 0);
        Self { bytes, start: 0, end: unread.len(), skipped: 0 }
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
                    (self.start, self.skipped) = (end, 0);
                    break body;
                }
                // A server that stops says "COPY 0", without CopyDone, once all that it sent is confirmed.
                COPY_DONE_TAG | backend::COMMAND_COMPLETE_TAG => return Err(WireError::Ended),
                ERROR_RESPONSE_TAG => return Err(server_error(during, body)),
                backend::NOTICE_RESPONSE_TAG | backend::PARAMETER_STATUS_TAG => {
                    (self.start, self.skipped) = (end, self.skipped + 1);
                    if self.skipped > SKIPPED_MAX {
                        return Err(WireError::protocol("notices without end"));
                    }
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
    socket: Socket,
    /// `None`: the bytes are not encrypted.
    cipher: Option<Cipher>,
    /// `None`: the runtime does not know the socket, so bytes that come in wake nobody.
    watch: Option<Watch>,
    buffer: FrameBuffer,
    /// Names the slot in an error of the server.
    during: String,
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
    /// An empty socket is therefore followed by a wait, `gathering`, in which bytes gather, and in
    /// which the runtime must not watch it: `epoll` would wake one of its threads for each message
    /// all the same. Where it is zero the first byte is taken at once.
    ///
    /// # Errors
    /// [`WireError::Ended`] when the server closed the socket, [`WireError::Io`].
    pub async fn fill(&mut self, gathering: Duration) -> Result<(), WireError> {
        let failed = |source| WireError::Io { during: "reading the stream", source };
        // Reading past the runtime, we would never give way to other tasks.
        task::consume_budget().await;
        let mut may_gather = !gathering.is_zero();
        if may_gather {
            self.watch = None;
        }
        loop {
            let read = match (&self.watch, &self.cipher) {
                (None, None) => self.socket.read(self.buffer.room()?),
                (Some(watch), None) => {
                    watch.ready(Interest::READABLE).await.map_err(failed)?;
                    watch.try_read(self.buffer.room()?)
                }
                (watch, Some(cipher)) => {
                    // What was decrypted, or can be, must not wait for bytes that may not come.
                    cipher.decrypt(self.buffer.room()?, |bytes| match watch {
                        None => self.socket.read(bytes),
                        Some(watch) => watch.try_read(bytes),
                    })
                }
            };
            match read {
                Ok(0) => return Err(WireError::Ended),
                Ok(read) => {
                    self.buffer.end += read;
                    self.reads += 1;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && may_gather => {
                    time::sleep(gathering).await;
                    may_gather = false;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match &self.watch {
                    None => self.watch = Some(self.socket.watch().map_err(failed)?),
                    Some(watch) if self.cipher.is_some() => {
                        watch.ready(Interest::READABLE).await.map_err(failed)?;
                    }
                    Some(_) => {}
                },
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(failed(source)),
            }
        }
    }

    /// Bytes of a message that is not in whole yet.
    #[must_use]
    pub fn awaited(&self) -> usize {
        self.buffer.end - self.buffer.start
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
    socket: Socket,
    cipher: Option<Cipher>,
    /// As it goes out. Kept here and not in a future, so that a send cut short is finished by the next.
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
        let mut status = BytesMut::new();
        put_status(&mut status, written, flushed, now(), request_reply);
        self.put(&status)
            .map_err(|source| WireError::Io { during: "sending the status", source })?;
        self.flush().await
    }

    /// Puts bytes behind what is not sent yet.
    fn put(&mut self, plain: &[u8]) -> io::Result<()> {
        match &self.cipher {
            None => self.unsent.put_slice(plain),
            Some(cipher) => cipher.encrypt(plain, &mut (&mut self.unsent).writer())?,
        }
        Ok(())
    }

    /// Confirms `flushed`, ends stream and connection, and waits until the server has read that, though not long.
    ///
    /// # Why
    /// A socket that is closed while bytes lie unread in it is reset, and the server never sees our last status: so the rest of the stream is read and dropped.
    pub async fn farewell(mut self, flushed: Lsn) {
        let mut last = BytesMut::new();
        put_status(&mut last, flushed, flushed, now(), false);
        frontend::copy_done(&mut last);
        frontend::terminate(&mut last);
        // Whatever fails now, progress is written: the next session confirms it.
        if self.put(&last).is_ok() {
            drop(time::timeout(FAREWELL_MAX, self.leave()).await);
        }
    }

    async fn leave(&mut self) -> io::Result<()> {
        let watch = self.socket.watch()?;
        let mut dropped = vec![0; 16 << 10];
        loop {
            let interest = match self.unsent.is_empty() {
                true => Interest::READABLE,
                // The server may be waiting for room too.
                false => Interest::READABLE | Interest::WRITABLE,
            };
            watch.ready(interest).await?;
            match watch.try_read(&mut dropped) {
                Ok(0) => return Ok(()),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
            if !self.unsent.is_empty() {
                match watch.try_write(&self.unsent) {
                    Ok(sent) => self.unsent.advance(sent),
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                    Err(_full) => {}
                }
            }
        }
    }

    async fn flush(&mut self) -> Result<(), WireError> {
        let failed = |source| WireError::Io { during: "sending the status", source };
        while !self.unsent.is_empty() {
            match self.socket.write(&self.unsent) {
                Ok(0) => return Err(failed(io::ErrorKind::WriteZero.into())),
                Ok(sent) => self.unsent.advance(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let watch = self.socket.watch().map_err(failed)?;
                    watch.ready(Interest::WRITABLE).await.map_err(failed)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(failed(source)),
            }
        }
        Ok(())
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
