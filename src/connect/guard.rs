//! Watches the login of an ordinary session, and ends it before the password is given away.
//!
//! # Why
//! Without TLS anybody in between can ask for the password in clear or as MD5, which is as good as the password, and tokio-postgres answers. As libpq with `require_auth=scram-sha-256,none`, and as our own replication connection, we do not.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Why a login was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The server asks for the password in this form.
    GivesAway(&'static str),
    /// It asks for a password, and none is known.
    NoPassword,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GivesAway(method) => write!(f, "the server asks for the password as {method}"),
            Self::NoPassword => write!(f, "the server asks for a password and none was given"),
        }
    }
}

impl std::error::Error for Refusal {}

/// Reads along what the server says until the login is over (manual, section 55.7: messages `Authentication…`).
#[derive(Debug)]
struct Scan {
    has_password: bool,
    /// Tag, length and code of the message that is coming in.
    head: Vec<u8>,
    /// Bytes of its body that say nothing here.
    skip: usize,
    is_over: bool,
}

impl Scan {
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), Refusal> {
        while !self.is_over && !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            let Some((byte, rest)) = bytes.get(skipped..).and_then(<[u8]>::split_first) else {
                return Ok(());
            };
            bytes = rest;
            self.head.push(*byte);
            self.look()?;
        }
        Ok(())
    }

    fn look(&mut self) -> Result<(), Refusal> {
        let Some(&[tag, a, b, c, d]) = self.head.first_chunk::<5>() else { return Ok(()) };
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if tag != b'R' {
            self.is_over = tag == b'Z';
            self.skip = length.saturating_sub(4);
            self.head.clear();
            return Ok(());
        }
        let Some(code) = self.head.get(5..9) else { return Ok(()) };
        let refused = match code {
            [0, 0, 0, 0] => {
                self.is_over = true;
                None
            }
            [0, 0, 0, 3] => Some(Refusal::GivesAway("cleartext")),
            [0, 0, 0, 5] => Some(Refusal::GivesAway("MD5")),
            [0, 0, 0, 10] if !self.has_password => Some(Refusal::NoPassword),
            [0, 0, 0, 10..=12] => None,
            _ => Some(Refusal::GivesAway("a Kerberos, GSSAPI or SSPI credential")),
        };
        self.skip = length.saturating_sub(8);
        self.head.clear();
        refused.map_or(Ok(()), Err)
    }
}

/// A stream whose login is watched.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    stream: S,
    scan: Scan,
}

impl<S> Guarded<S> {
    pub(super) fn new(stream: S, has_password: bool) -> Self {
        let scan = Scan { has_password, head: Vec::new(), skip: 0, is_over: false };
        Self { stream, scan }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        let read = buffer.filled().get(before..).unwrap_or_default();
        Poll::Ready(this.scan.take(read).map_err(io::Error::other))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::{Refusal, Scan};
    use proptest::prelude::*;

    fn request(code: u32, data: &[u8]) -> Vec<u8> {
        let length = u32::try_from(data.len() + 8).unwrap();
        [b"R", &length.to_be_bytes()[..], &code.to_be_bytes(), data].concat()
    }

    /// What comes of these bytes, cut at one place.
    fn scan(bytes: &[u8], at: usize, has_password: bool) -> Option<Refusal> {
        let mut scan = Scan { has_password, head: Vec::new(), skip: 0, is_over: false };
        let (one, two) = bytes.split_at(at);
        scan.take(one).and_then(|()| scan.take(two)).err()
    }

    #[test]
    fn ends_what_gives_the_password_away_however_it_is_split() {
        let notice = b"N\0\0\0\x0bSNOTE\0\0".to_vec();
        let sasl = request(10, b"SCRAM-SHA-256\0\0");
        for (bytes, has_password, expected) in [
            (request(0, b""), true, None),
            (request(3, b""), true, Some(Refusal::GivesAway("cleartext"))),
            ([notice, request(3, b"")].concat(), true, Some(Refusal::GivesAway("cleartext"))),
            (request(5, b"salt"), true, Some(Refusal::GivesAway("MD5"))),
            (sasl.clone(), true, None),
            (sasl.clone(), false, Some(Refusal::NoPassword)),
            (
                [sasl, request(11, b"r=x"), request(5, b"salt")].concat(),
                true,
                Some(Refusal::GivesAway("MD5")),
            ),
            // After the login a row may hold any bytes.
            ([request(0, b""), request(3, b"")].concat(), true, None),
        ] {
            for at in 0..=bytes.len() {
                assert_eq!(scan(&bytes, at, has_password), expected, "{bytes:?} split at {at}");
            }
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            scan(&bytes, 0, true);
        }
    }
}
