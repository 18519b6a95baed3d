//! Judges what a server asks for in a login, and ends an ordinary session's before the password is given away.
//!
//! # Why
//! Anybody in between can ask for the password in clear or as MD5, which is as good as the password, and tokio-postgres answers. As libpq with `require_auth=scram-sha-256,none` we do not, unless that was allowed; and our own replication connection asks the same judge.

use super::tls::Encryption;
use crate::conninfo::{ChannelBinding, ConnInfo, Method, Methods};
use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding as EndPoint, TlsStream};

/// The mechanism of a login that is bound to the TLS connection.
const BOUND: &[u8] = b"SCRAM-SHA-256-PLUS";
/// A list of mechanisms is shorter.
const REQUEST_BYTES_MAX: usize = 4 << 10;

/// Why a login was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The server asks for the password in this form.
    GivesAway(&'static str),
    /// It asks for a password, and none is known.
    NoPassword,
    /// `channel_binding=require`, and the server does without.
    NotBound,
    /// `require_auth` does not name this.
    NotAllowed(&'static str),
    /// It lets us in before it has proved that it knows the password.
    Unproven,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GivesAway(method) => write!(f, "the server asks for the password as {method}"),
            Self::NoPassword => write!(f, "the server asks for a password and none was given"),
            Self::NotBound => write!(f, "the login is not bound to the TLS connection"),
            Self::NotAllowed(method) => write!(f, "the server wants a login by {method}"),
            Self::Unproven => write!(f, "the server did not prove that it knows the password"),
        }
    }
}

impl std::error::Error for Refusal {}

/// What a login may consist of towards one server. `Debug` shows no password.
#[derive(Clone)]
pub struct Terms {
    password: Option<String>,
    methods: Methods,
    channel_binding: ChannelBinding,
    /// To what the login is bound.
    end_point: Option<Vec<u8>>,
    /// Whether the line is encrypted and the server known by its certificate.
    is_verified: bool,
}

impl fmt::Debug for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terms").field("methods", &self.methods).finish_non_exhaustive()
    }
}

impl Terms {
    pub(super) fn new(
        conninfo: &ConnInfo,
        encryption: Option<&Encryption>,
        password: Option<String>,
    ) -> Self {
        let channel_binding = conninfo.channel_binding();
        let bound = encryption.filter(|_| channel_binding != ChannelBinding::Disable);
        Self {
            password,
            methods: conninfo.methods().clone(),
            channel_binding,
            end_point: bound.and_then(|encryption| encryption.end_point.clone()),
            is_verified: encryption.is_some_and(|encryption| encryption.is_verified),
        }
    }

    /// The password.
    #[must_use]
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// The hash that binds a login to the TLS connection (RFC 5929, `tls-server-end-point`), if it may be bound.
    #[must_use]
    pub fn end_point(&self) -> Option<&[u8]> {
        self.end_point.as_deref()
    }

    /// Judges the first request of a login: its code, and what comes with it (manual, section 55.7: messages `Authentication…`).
    ///
    /// # Errors
    /// Why nothing may be answered.
    pub fn judge(&self, code: u32, data: &[u8]) -> Result<(), Refusal> {
        let allow = |method, name| match self.methods.allow(method) {
            true => Ok(()),
            false => Err(Refusal::NotAllowed(name)),
        };
        let must_be_bound = self.channel_binding == ChannelBinding::Require;
        match code {
            3 if !self.methods.allow(Method::Password) => Err(Refusal::GivesAway("cleartext")),
            3 if !self.is_verified => Err(Refusal::GivesAway("cleartext outside verified TLS")),
            5 if !self.methods.allow(Method::Md5) => Err(Refusal::GivesAway("MD5")),
            0 => allow(Method::None, "nothing (none)"),
            10 => allow(Method::ScramSha256, "scram-sha-256"),
            3 | 5 => Ok(()),
            _ => Err(Refusal::GivesAway("a Kerberos, GSSAPI or SSPI credential")),
        }?;
        if must_be_bound {
            let mut mechanisms = data.split(|byte| *byte == 0);
            let is_bound = code == 10 && mechanisms.any(|name| name == BOUND);
            if !is_bound || self.end_point.is_none() {
                return Err(Refusal::NotBound);
            }
        }
        if code != 0 && self.password.is_none() {
            return Err(Refusal::NoPassword);
        }
        Ok(())
    }
}

/// Reads along what the server says until the login is over.
#[derive(Debug)]
struct Scan {
    terms: Terms,
    /// Tag, length and what matters of the message that is coming in.
    head: Vec<u8>,
    /// Bytes of its body that say nothing here.
    skip: usize,
    /// The first request of the login, once it was made.
    first: Option<u32>,
    is_over: bool,
}

impl Scan {
    fn new(terms: Terms) -> Self {
        Self { terms, head: Vec::new(), skip: 0, first: None, is_over: false }
    }

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
        let Some(&[a, b, c, d]) = self.head.get(5..).and_then(<[u8]>::first_chunk) else {
            return Ok(());
        };
        let code = u32::from_be_bytes([a, b, c, d]);
        // Of the list of mechanisms every word matters, of the rest none.
        let wanted = if code == 10 { length.min(REQUEST_BYTES_MAX) } else { 8 };
        if self.head.len() <= wanted {
            return Ok(());
        }
        let judged = self.judge(code);
        self.skip = length.saturating_sub(wanted);
        self.head.clear();
        judged
    }

    fn judge(&mut self, code: u32) -> Result<(), Refusal> {
        self.is_over = code == 0;
        match (self.first, code) {
            (None, 10..) if code != 10 => Err(Refusal::Unproven),
            // Steps of a login that was judged when it began; tokio-postgres takes no end of it before the server's proof.
            (Some(10), 0 | 11 | 12) | (Some(3 | 5), 0) => Ok(()),
            _ => {
                self.first = Some(code);
                self.terms.judge(code, self.head.get(9..).unwrap_or_default())
            }
        }
    }
}

/// A stream whose login is watched.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    stream: S,
    scan: Scan,
}

impl<S> Guarded<S> {
    pub(super) fn new(stream: S, terms: Terms) -> Self {
        Self { stream, scan: Scan::new(terms) }
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

/// To tokio-postgres every line is one that is encrypted already, so that it asks for no TLS of its own.
impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Guarded<S> {
    fn channel_binding(&self) -> EndPoint {
        self.scan
            .terms
            .end_point()
            .map_or_else(EndPoint::none, |hash| EndPoint::tls_server_end_point(hash.to_vec()))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Refusal, Scan, Terms};
    use crate::conninfo::ConnInfo;
    use proptest::prelude::*;

    /// What these parameters allow on a line that is verified or not, with a password or without.
    pub(crate) fn terms(parameters: &str, is_verified: bool, has_password: bool) -> Terms {
        let text = format!("host=localhost user=u {parameters}");
        let conninfo = ConnInfo::parse(&text, &|_| None).unwrap();
        let password = has_password.then(|| "not to be sent".to_owned());
        let end_point = is_verified.then(|| vec![7; 32]);
        Terms { is_verified, end_point, ..Terms::new(&conninfo, None, password) }
    }

    fn request(code: u32, data: &[u8]) -> Vec<u8> {
        let length = u32::try_from(data.len() + 8).unwrap();
        [b"R", &length.to_be_bytes()[..], &code.to_be_bytes(), data].concat()
    }

    /// What comes of these bytes, cut at one place.
    fn scan(bytes: &[u8], at: usize, terms: &Terms) -> Option<Refusal> {
        let mut scan = Scan::new(terms.clone());
        let (one, two) = bytes.split_at(at);
        scan.take(one).and_then(|()| scan.take(two)).err()
    }

    const PLAIN: &[u8] = b"SCRAM-SHA-256\0\0";
    const PLUS: &[u8] = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";

    #[test]
    fn ends_what_gives_the_password_away_however_it_is_split() {
        let notice = b"N\0\0\0\x0bSNOTE\0\0".to_vec();
        let sasl = request(10, PLAIN);
        for (bytes, has_password, expected) in [
            (request(0, b""), true, None),
            (request(3, b""), true, Some(Refusal::GivesAway("cleartext"))),
            ([notice, request(3, b"")].concat(), true, Some(Refusal::GivesAway("cleartext"))),
            (request(5, b"salt"), true, Some(Refusal::GivesAway("MD5"))),
            (request(12, b"v=x"), true, Some(Refusal::Unproven)),
            (sasl.clone(), true, None),
            (sasl.clone(), false, Some(Refusal::NoPassword)),
            (
                [sasl.clone(), request(11, b"r=x"), request(5, b"salt")].concat(),
                true,
                Some(Refusal::GivesAway("MD5")),
            ),
            (
                [sasl, request(11, b"r=x"), request(12, b"v=x"), request(0, b"")].concat(),
                true,
                None,
            ),
            // After the login a row may hold any bytes.
            ([request(0, b""), request(3, b"")].concat(), true, None),
        ] {
            for at in 0..=bytes.len() {
                let terms = terms("", false, has_password);
                assert_eq!(scan(&bytes, at, &terms), expected, "{bytes:?} split at {at}");
            }
        }
    }

    #[test]
    fn keeps_to_what_was_asked_for() {
        let cleartext = Refusal::GivesAway("cleartext outside verified TLS");
        for (parameters, is_verified, code, data, expected) in [
            ("require_auth=password", false, 3, &b""[..], Some(cleartext)),
            ("require_auth=password", true, 3, b"", None),
            ("require_auth=md5", false, 5, b"salt", None),
            ("require_auth=md5", true, 10, PLUS, Some(Refusal::NotAllowed("scram-sha-256"))),
            (
                "require_auth=scram-sha-256",
                true,
                0,
                b"",
                Some(Refusal::NotAllowed("nothing (none)")),
            ),
            ("require_auth=!none", true, 0, b"", Some(Refusal::NotAllowed("nothing (none)"))),
            ("channel_binding=require", true, 10, PLUS, None),
            ("channel_binding=require", true, 10, PLAIN, Some(Refusal::NotBound)),
            ("channel_binding=require", false, 10, PLUS, Some(Refusal::NotBound)),
            ("channel_binding=require", true, 0, b"", Some(Refusal::NotBound)),
            ("channel_binding=require require_auth=md5", true, 5, b"", Some(Refusal::NotBound)),
        ] {
            let bytes = request(code, data);
            let terms = terms(parameters, is_verified, true);
            for at in 0..=bytes.len() {
                assert_eq!(scan(&bytes, at, &terms), expected, "{parameters} {code}");
            }
            assert!(!format!("{terms:?}").contains("not to be sent"));
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            scan(&bytes, 0, &terms("", true, true));
        }
    }
}
