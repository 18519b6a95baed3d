//! bytes ⇄ [`Frame`]: our own replication connection (manual, chapter 55: "Frontend/Backend
//! Protocol", section "Streaming Replication Protocol"). Does not know pgoutput.
//!
//! ```text
//! startup::Connection ──start_replication──▶ (FrameReader, StatusWriter)
//! ```
//!
//! # Why
//! tokio-postgres has no replication mode, and how a client reads decides what the walsender costs
//! the source: see [`FrameReader::fill`].

mod frame;
mod login;
mod startup;
mod stream;
mod walsender;

pub use frame::Frame;
pub use startup::{Connection, RECEIVE_BUFFER_BYTES};
pub use stream::{FrameReader, StatusWriter, TICK};
pub use walsender::{CreatedSlot, System, quote_identifier};

use crate::{connect::ConnectError, lsn::Lsn};
use std::io;

/// The longest message we take, with its tag: PostgreSQL's own limit for an allocation, 1 GiB,
/// and room for the headers around a value of that length.
pub const MESSAGE_BYTES_MAX: usize = (1 << 30) + (64 << 10);

/// Tag and length, which stand before every message.
const HEADER_BYTES: usize = 5;

const COPY_DATA_TAG: u8 = b'd';
const COPY_DONE_TAG: u8 = b'c';
const ERROR_RESPONSE_TAG: u8 = b'E';

/// Why a replication connection failed. Texts hold no DETAIL, HINT or CONTEXT of the server, since
/// those carry values of rows, and no password.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// There is no connection, or no login.
    #[error(transparent)]
    Connect(ConnectError),
    /// The server reported an error.
    #[error("{during}: {message} (SQLSTATE {sqlstate}){}{}", hint(.sqlstate), way_on(.sqlstate, *.associated_lsn))]
    Server {
        /// What we asked for, with the object's name.
        during: String,
        /// Five characters (manual, appendix A).
        sqlstate: String,
        /// The primary message.
        message: String,
        /// Where decoding stopped, if the server's CONTEXT says so.
        associated_lsn: Option<Lsn>,
    },
    /// The server cannot do what was asked for.
    #[error("{what} needs PostgreSQL {since} or later")]
    Unsupported {
        /// The feature.
        what: &'static str,
        /// The first major version that has it.
        since: u32,
    },
    /// The connection broke.
    #[error("{during}: connection lost")]
    Io {
        /// What we were doing.
        during: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The server ended the stream, as it does when it stops. Reconnect.
    #[error("the source ended the stream")]
    Ended,
    /// The server broke the protocol, or is no PostgreSQL.
    #[error("protocol violation: {0}")]
    Protocol(String),
}

impl WireError {
    /// The server's SQLSTATE, if the server reported the error.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Server { sqlstate, .. } => Some(sqlstate),
            Self::Connect(error) => error.sqlstate(),
            _ => None,
        }
    }

    /// Whether the source itself cannot decode its log: a value without a text form (54), or a fault of the output plugin (XX). It would fail again at the same place.
    #[must_use]
    pub fn is_undecodable(&self) -> bool {
        match self {
            Self::Server { sqlstate, associated_lsn: Some(_), .. } => {
                sqlstate.starts_with("54") || sqlstate.starts_with("XX")
            }
            _ => false,
        }
    }

    fn protocol(what: impl Into<String>) -> Self {
        Self::Protocol(what.into())
    }
}

/// What can be done where decoding stopped, as sentences with a space before them.
fn way_on(sqlstate: &str, associated_lsn: Option<Lsn>) -> String {
    // A server that stops, is short of something or was asked to cancel says where it was, too.
    let is_passing =
        ["08", "25", "40", "53", "57", "58"].iter().any(|class| sqlstate.starts_with(class));
    associated_lsn.filter(|_| !is_passing).map_or_else(String::new, |lsn| {
        format!(
            " The source stopped decoding at {lsn}. If that cannot be mended, give up what lies between: run `SELECT pg_replication_slot_advance('<slot>', pg_current_wal_lsn())` on the source, which decodes nothing, then start once with --accept-gap <source>, which records the gap."
        )
    })
}

/// The fix, where the SQLSTATE names one, as a sentence with a space before it.
fn hint(sqlstate: &str) -> &'static str {
    match sqlstate {
        "22021" | "22P05" => ". A text of the source has bytes that its encoding does not know.",
        "28P01" => ". Check the role's password.",
        "28000" => ". Check the role, and that pg_hba.conf has a line for this database and role.",
        "3D000" => ". Check dbname.",
        "42501" => ". Run `ALTER ROLE … REPLICATION` for this role.",
        "42704" => ". Check that the slot and the publication exist in this database.",
        "42710" => ". Choose another slot name, or drop the slot if nobody uses it.",
        "53300" => ". Raise max_wal_senders, or the role's CONNECTION LIMIT.",
        "53400" => ". Raise max_replication_slots, or drop a slot that nobody uses.",
        "55000" => {
            ". The server or the slot is not in the state for this: look at wal_level and at pg_replication_slots."
        }
        "55006" => ". Another process reads this slot; stop it, or wait until it ends.",
        "55P03" => ". An open transaction is in the way; try again once it has ended.",
        "0A000" => ". This server cannot do that: check its version, and that it is no standby.",
        _ => "",
    }
}

/// The length, tag included, of the message that begins `bytes`; `None` before its header is in.
fn message_length(bytes: &[u8]) -> Result<Option<usize>, WireError> {
    let Some(&[tag, a, b, c, d]) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if !(4..MESSAGE_BYTES_MAX).contains(&length) {
        let tag = tag.escape_ascii();
        return Err(WireError::protocol(format!("message \"{tag}\" of {length} bytes")));
    }
    Ok(Some(length + 1))
}

/// The message that begins `bytes`, if it is in whole: its tag and its body.
fn first_message(bytes: &[u8]) -> Result<Option<(u8, &[u8])>, WireError> {
    let Some(length) = message_length(bytes)? else { return Ok(None) };
    let whole = bytes.get(..length).and_then(<[u8]>::split_first);
    Ok(whole.and_then(|(tag, rest)| Some((*tag, rest.get(4..)?))))
}

fn unknown_message(tag: u8) -> WireError {
    WireError::protocol(format!("unexpected message \"{}\"", tag.escape_ascii()))
}

/// Reads the body of `ErrorResponse`: fields of a code byte and a text that ends with a NUL.
fn server_error(during: impl Into<String>, body: &[u8]) -> WireError {
    let field = |code: u8| {
        let mut fields = body.split(|byte| *byte == 0);
        let found = fields.find_map(|field| field.split_first().filter(|(c, _)| **c == code));
        found.map(|(_, text)| String::from_utf8_lossy(text).into_owned())
    };
    let associated_lsn = field(b'W').and_then(|context| {
        let (_, after) = context.split_once("associated LSN ")?;
        after.split(|c: char| c != '/' && !c.is_ascii_hexdigit()).next()?.parse().ok()
    });
    WireError::Server {
        during: during.into(),
        sqlstate: field(b'C').unwrap_or_else(|| "XX000".to_owned()),
        message: field(b'M').unwrap_or_default(),
        associated_lsn,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{WireError, first_message, server_error};
    use crate::lsn::Lsn;
    use proptest::prelude::*;

    pub(crate) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[tag], &length.to_be_bytes()[..], body].concat()
    }

    #[test]
    fn keeps_of_a_report_only_what_holds_no_value() {
        let body = b"SERROR\0C42704\0Mpublication \"p\" does not exist\0DFailing row (secret)\0\
            Wslot \"s\", output plugin \"pgoutput\", in the change callback, associated LSN 0/25F6D20\0\0";
        let error = server_error("reading slot \"s\"", body);
        assert_eq!(
            error.to_string(),
            "reading slot \"s\": publication \"p\" does not exist (SQLSTATE 42704). \
             Check that the slot and the publication exist in this database. \
             The source stopped decoding at 0/25F6D20. If that cannot be mended, give up what lies \
             between: run `SELECT pg_replication_slot_advance('<slot>', pg_current_wal_lsn())` on \
             the source, which decodes nothing, then start once with --accept-gap <source>, which \
             records the gap."
        );
        assert_eq!(error.sqlstate(), Some("42704"));
        let WireError::Server { associated_lsn, .. } = &error else { panic!("{error}") };
        assert_eq!(*associated_lsn, Some(Lsn(0x25F_6D20)));
        assert!(!format!("{error:?}").contains("secret"));
    }

    #[test]
    fn refuses_a_length_beyond_the_limit() {
        for length in [0, 3, 0x7FFF_FFFF, u32::MAX] {
            assert!(first_message(&[&b"d"[..], &length.to_be_bytes()].concat()).is_err());
        }
        assert!(first_message(b"d\0\0").unwrap().is_none());
        assert!(first_message(&message(b'd', b"")).unwrap().is_some());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            drop(first_message(&bytes));
            drop(server_error("", &bytes));
        }
    }
}
