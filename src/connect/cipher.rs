//! `Cipher`: TLS over a socket that is read and written past the runtime, from two sides.

use rustls::ClientConnection;
use std::{
    io::{self, Read as _, Write as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// What one read of the socket takes at most: several records of TLS, which have up to 16 KiB.
const BUFFER_BYTES: usize = 64 << 10;

/// Encrypts and decrypts the bytes of one connection. A clone is the other side of the same.
///
/// # Why
/// Reading decrypts and writes nothing; all that goes out comes from [`encrypt`](Self::encrypt), so that records leave in the order of their making, which TLS counts.
#[derive(Clone, Debug)]
pub struct Cipher(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    session: ClientConnection,
    /// Bytes as they came in, from `start` to `end`.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Cipher {
    /// Takes TLS off its socket.
    #[must_use]
    pub fn split(stream: TlsStream<TcpStream>) -> (TcpStream, Self) {
        let (socket, mut session) = stream.into_inner();
        session.set_buffer_limit(None);
        let state = State { session, bytes: vec![0; BUFFER_BYTES], start: 0, end: 0 };
        (socket, Self(Arc::new(Mutex::new(state))))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decrypts into `room` what came in, if that gives anything; else calls `read`, which fills a buffer from the socket, until it does. 0: the server ended the connection.
    ///
    /// # Errors
    /// What `read` gives, [`io::ErrorKind::WouldBlock`] too, and what is no TLS.
    pub fn decrypt(
        &self,
        room: &mut [u8],
        mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let state = &mut *self.lock();
        let mut filled = 0;
        loop {
            // The server sends a record for each message, so one read gives many.
            let left = room.get_mut(filled..).unwrap_or_default();
            match state.session.reader().read(left) {
                Ok(0) => return Ok(filled),
                Ok(read) => {
                    filled += read;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if state.start == state.end {
                if filled > 0 {
                    return Ok(filled);
                }
                (state.start, state.end) = (0, 0);
                state.end = read(&mut state.bytes)?;
                if state.end == 0 {
                    return Ok(0);
                }
            }
            let mut unread = state.bytes.get(state.start..state.end).unwrap_or_default();
            state.start += state.session.read_tls(&mut unread)?;
            state.session.process_new_packets().map_err(io::Error::other)?;
        }
    }

    /// Encrypts `plain` and puts it, behind what the session itself has to say, into `out`.
    ///
    /// # Errors
    /// None that is known.
    pub fn encrypt(&self, plain: &[u8], out: &mut impl io::Write) -> io::Result<()> {
        let state = &mut *self.lock();
        state.session.writer().write_all(plain)?;
        while state.session.wants_write() {
            state.session.write_tls(out)?;
        }
        Ok(())
    }
}
