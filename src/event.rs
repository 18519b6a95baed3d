//! What stage 4 gives: [`Events`], rows for the table `events`, exactly its columns.
//!
//! All text of a batch lies in one buffer that grows once and is used again, so that an event costs no allocation of its own.

use crate::{lsn::Lsn, timestamp::Timestamp};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use uuid::Uuid;

/// Longest text of a column that an index of `events` holds, in bytes. A B-tree refuses entries over a third of a page, about 2,700 bytes, and one index holds two such columns.
pub const INDEXED_TEXT_BYTES_MAX: usize = 1_000;

/// What was cut to one of these limits shows so many bytes of its hash: the columns by which events are found, not long messages.
const HASHED_LIMITS: std::ops::RangeInclusive<usize> = 64..=INDEXED_TEXT_BYTES_MAX;
const HASH_BYTES: usize = 8;

/// One audit event: the columns of `events`, in the table's order. `payload` is a JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    pub event_uuid: Uuid,
    pub timestamp: Timestamp,
    pub event_type: &'a str,
    /// Empty: not known.
    pub caller: &'a str,
    pub subject: &'a str,
    pub subject_type: &'a str,
    pub target: Option<&'a str>,
    pub success: bool,
    pub error_message: Option<&'a str>,
    pub payload: &'a str,
}

/// Where a text lies in the batch's buffer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Text {
    start: usize,
    end: usize,
}

/// An event whose texts lie in the buffer of [`Events`].
#[derive(Debug, Clone, Copy)]
pub struct EventRow {
    /// The oid of the table whose change it tells; 0 if there is none.
    pub relation: u32,
    pub event_uuid: Uuid,
    pub timestamp: Timestamp,
    pub event_type: Text,
    pub caller: Text,
    pub subject: Text,
    pub subject_type: Text,
    pub target: Option<Text>,
    pub success: bool,
    pub error_message: Option<Text>,
    pub payload: Text,
}

/// A batch of events in commit order.
#[derive(Debug, Default)]
pub struct Events {
    text: String,
    rows: Vec<EventRow>,
    /// Names of the tables of the rows, by their oids.
    relations: Vec<(u32, String)>,
}

impl Events {
    /// Number of events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes of text held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// Writes a text into the buffer with `write`; gives its place and what `write` gave.
    pub fn write<T>(&mut self, write: impl FnOnce(&mut String) -> T) -> (Text, T) {
        let start = self.text.len();
        let result = write(&mut self.text);
        (Text { start, end: self.text.len() }, result)
    }

    /// Adds an event whose texts were written before.
    pub fn push(&mut self, row: EventRow) {
        self.rows.push(row);
    }

    /// Says what a table is called, for those who speak of its events; gives its oid back.
    pub fn relation(&mut self, oid: u32, name: impl FnOnce() -> String) -> u32 {
        // Rows of one table mostly follow each other.
        let is_known = self.relations.last().is_some_and(|(last, _)| *last == oid);
        if !is_known && !self.relations.iter().any(|(known, _)| *known == oid) {
            self.relations.push((oid, name()));
        }
        oid
    }

    /// The table whose change the event at `position` tells, `schema.table`.
    #[must_use]
    pub fn relation_of(&self, position: usize) -> Option<&str> {
        let oid = self.rows.get(position)?.relation;
        self.relations.iter().find(|(known, _)| *known == oid).map(|(_, name)| name.as_str())
    }

    /// The text at a place that [`Events::write`] gave.
    #[must_use]
    pub fn text(&self, text: Text) -> &str {
        self.text.get(text.start..text.end).unwrap_or_default()
    }

    /// The events in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Event<'_>> {
        self.rows.iter().map(|row| Event {
            event_uuid: row.event_uuid,
            timestamp: row.timestamp,
            event_type: self.text(row.event_type),
            caller: self.text(row.caller),
            subject: self.text(row.subject),
            subject_type: self.text(row.subject_type),
            target: row.target.map(|text| self.text(text)),
            success: row.success,
            error_message: row.error_message.map(|text| self.text(text)),
            payload: self.text(row.payload),
        })
    }
}

/// Where the rows of a source come from, for ids: the cluster and the database in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    pub system_identifier: u64,
    pub database_oid: u32,
}

/// The commit that a change belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    pub xid: u32,
    pub commit_lsn: Lsn,
    pub commit_time: Timestamp,
}

/// A change within its commit. One LSN is not enough: the rows of one COPY share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangeKey {
    pub wal_start: Lsn,
    pub relation: u32,
    /// Counts the changes of `relation` that share `wal_start`.
    pub index: u32,
}

/// The id of the event that `rule` makes of a change.
///
/// # Why
/// The same bytes of WAL must always give the same id, so that a replay writes the same row. It is a UUID version 8 (RFC 9562, section 5.8): 48 bits of commit time in milliseconds since 1970 in front, so that the primary key's index grows at its end, then 74 bits of SHA-256 over all that makes the event that event. A place in the transaction is not part of it: it shifts when a table joins the publication.
#[must_use]
pub fn event_id(origin: Origin, commit: Commit, change: ChangeKey, rule: &str) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(b"portal-audit event\0");
    hash.update(origin.system_identifier.to_be_bytes());
    hash.update(origin.database_oid.to_be_bytes());
    hash.update(commit.xid.to_be_bytes());
    hash.update(commit.commit_lsn.0.to_be_bytes());
    hash.update(commit.commit_time.0.to_be_bytes());
    hash.update(change.wal_start.0.to_be_bytes());
    hash.update(change.relation.to_be_bytes());
    hash.update(change.index.to_be_bytes());
    hash.update(rule.as_bytes());
    time_ordered(commit.commit_time, &hash.finalize())
}

/// The id of an event that was back-filled from a row: from the table and the row's key, so that a second snapshot gives the same one.
#[must_use]
pub fn backfill_id(
    origin: Origin,
    created: Timestamp,
    relation: u32,
    key: &[u8],
    rule: &str,
) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(b"portal-audit backfill\0");
    hash.update(origin.system_identifier.to_be_bytes());
    hash.update(origin.database_oid.to_be_bytes());
    hash.update(created.0.to_be_bytes());
    hash.update(relation.to_be_bytes());
    hash.update((key.len() as u64).to_be_bytes());
    hash.update(key);
    hash.update(rule.as_bytes());
    time_ordered(created, &hash.finalize())
}

/// The id of a gap's event: from where to where, and why. `time` is the gap's beginning, which is known from before the gap was accepted.
#[must_use]
pub fn gap_id(origin: Origin, time: Timestamp, (from, to): (Lsn, Lsn), reason: &str) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(b"portal-audit gap\0");
    hash.update(origin.system_identifier.to_be_bytes());
    hash.update(origin.database_oid.to_be_bytes());
    hash.update(from.0.to_be_bytes());
    hash.update(to.0.to_be_bytes());
    hash.update(reason.as_bytes());
    time_ordered(time, &hash.finalize())
}

/// The id of an event that is inferred from a row's difference before and after a gap: from the gap's beginning, the table and the row's key.
#[must_use]
pub fn inferred_id(
    origin: Origin,
    (from, time): (Lsn, Timestamp),
    relation: u32,
    key: &str,
    rule: &str,
) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(b"portal-audit inferred\0");
    hash.update(origin.system_identifier.to_be_bytes());
    hash.update(origin.database_oid.to_be_bytes());
    hash.update(from.0.to_be_bytes());
    hash.update(relation.to_be_bytes());
    hash.update((key.len() as u64).to_be_bytes());
    hash.update(key);
    hash.update(rule.as_bytes());
    time_ordered(time, &hash.finalize())
}

fn time_ordered(time: Timestamp, hash: &[u8]) -> Uuid {
    // Bits 16 to 63 of the shifted number are the 48 bits of the time.
    let millis = time.unix_micros().div_euclid(1_000).max(0).unsigned_abs();
    let mut bytes = [0; 16];
    for (byte, from) in
        bytes.iter_mut().zip((millis << 16).to_be_bytes().iter().take(6).chain(hash))
    {
        *byte = *from;
    }
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// What had to be done to a text so that the table can hold it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags {
    /// A NUL or a byte that is not UTF-8 stands as a visible escape, `\u0000` or `\xE9`.
    pub escaped: bool,
    /// It was longer than the limit: cut, or replaced by its hash.
    pub truncated: bool,
    /// It looked like a secret and was replaced.
    pub redacted: bool,
    /// A value was not sent, because it is TOASTed and did not change or belongs to a deleted row; it is left out.
    pub unchanged: bool,
    /// An id without a name that we know stands for itself.
    pub unresolved: bool,
    /// No change says it; it follows from what did not come, or from rows before and after a gap.
    pub inferred: bool,
}

impl std::ops::BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Self) {
        self.escaped |= other.escaped;
        self.truncated |= other.truncated;
        self.redacted |= other.redacted;
        self.unchanged |= other.unchanged;
        self.unresolved |= other.unresolved;
        self.inferred |= other.inferred;
    }
}

/// Appends a text for a column of `events`, cut to `limit` bytes at a character's border. In a column that an index holds, what was cut ends with the hash of the whole, so that two texts that only differ behind the limit stay two.
pub fn push_text(out: &mut String, bytes: &[u8], limit: usize) -> Flags {
    let mut flags = Flags::default();
    if looks_secret(bytes) {
        out.push_str(REDACTED);
        flags.redacted = true;
        return flags;
    }
    if let Some(text) = whole(bytes, limit) {
        out.push_str(text);
        return flags;
    }
    let start = out.len();
    for chunk in bytes.utf8_chunks() {
        for (index, piece) in chunk.valid().split('\0').enumerate() {
            if index > 0 {
                out.push_str("\\u0000");
                flags.escaped = true;
            }
            out.push_str(piece);
        }
        for byte in chunk.invalid() {
            flags.escaped = true;
            push_formatted(out, format_args!("\\x{byte:02X}"));
        }
        if out.len() - start > limit {
            break;
        }
    }
    if out.len() - start > limit {
        let mut ending = "…".to_owned();
        if HASHED_LIMITS.contains(&limit) {
            ending.push_str(" sha256:");
            for byte in Sha256::digest(bytes).iter().take(HASH_BYTES) {
                push_formatted(&mut ending, format_args!("{byte:02x}"));
            }
        }
        let mut end = start + limit.saturating_sub(ending.len());
        while !out.is_char_boundary(end) {
            end -= 1;
        }
        out.truncate(end);
        out.push_str(&ending);
        flags.truncated = true;
    }
    flags
}

/// A text that a column of `events` holds as it is.
fn whole(bytes: &[u8], limit: usize) -> Option<&str> {
    let is_plain = bytes.len() <= limit && !bytes.contains(&0);
    std::str::from_utf8(bytes).ok().filter(|_| is_plain)
}

/// Appends a text as a JSON string that `jsonb` accepts; a text over `limit` bytes is replaced by its length and hash.
pub fn push_json_string(out: &mut String, bytes: &[u8], limit: usize) -> Flags {
    let mut flags = Flags::default();
    out.push('"');
    if looks_secret(bytes) {
        out.push_str(REDACTED);
        flags.redacted = true;
    } else if bytes.len() > limit {
        let hash: [u8; 32] = Sha256::digest(bytes).into();
        out.push_str("sha256:");
        for byte in hash {
            push_formatted(out, format_args!("{byte:02x}"));
        }
        push_formatted(out, format_args!(" of {} bytes", bytes.len()));
        flags.truncated = true;
    } else if let Ok(text) = std::str::from_utf8(bytes) {
        flags.escaped = push_json_characters(out, text);
    } else {
        for chunk in bytes.utf8_chunks() {
            flags.escaped |= push_json_characters(out, chunk.valid());
            for byte in chunk.invalid() {
                flags.escaped = true;
                push_formatted(out, format_args!("\\\\x{byte:02X}"));
            }
        }
    }
    out.push('"');
    flags
}

/// Characters of a JSON string (RFC 8259, section 7). NUL, which `jsonb` cannot hold, becomes the six characters `\u0000`; says whether there was one.
fn push_json_characters(out: &mut String, text: &str) -> bool {
    let mut has_nul = false;
    let mut plain = 0;
    for (position, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(text.get(plain..position).unwrap_or_default());
        plain = position + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\t' => out.push_str("\\t"),
            b'\r' => out.push_str("\\r"),
            0 => {
                out.push_str("\\\\u0000");
                has_nul = true;
            }
            _ => push_formatted(out, format_args!("\\u{byte:04x}")),
        }
    }
    out.push_str(text.get(plain..).unwrap_or_default());
    has_nul
}

/// Appends formatted text; writing to a `String` cannot fail.
pub fn push_formatted(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    let written = out.write_fmt(arguments);
    debug_assert!(written.is_ok(), "a String takes every text");
}

/// What stands for a value that looks like a secret.
pub const REDACTED: &str = "[redacted]";

/// Whether a value has the shape of a secret: a PEM block, a JWT, a password hash, a well-known token. The last of three layers; the first two are the publication's column lists and the mapping's deny list.
#[must_use]
pub fn looks_secret(bytes: &[u8]) -> bool {
    let prefixes: &[&[u8]] = match bytes.first() {
        Some(b'-') => &[b"-----BEGIN "],
        Some(b'e') => &[b"eyJ"],
        Some(b'$') => &[b"$2a$", b"$2b$", b"$2y$", b"$argon2", b"$scrypt$", b"$pbkdf2", b"$6$"],
        Some(b'o') => &[b"ory_st_", b"ory_at_", b"ory_rt_", b"ory_ac_"],
        Some(b'g') => &[b"ghp_", b"gho_", b"ghs_", b"github_pat_", b"glpat-"],
        Some(b'A') => &[b"AKIA"],
        Some(b'x') => &[b"xoxb-", b"xoxp-"],
        _ => return false,
    };
    prefixes.iter().any(|prefix| bytes.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ORIGIN: Origin = Origin { system_identifier: 7, database_oid: 5 };

    fn commit(micros: i64) -> Commit {
        Commit { xid: 700, commit_lsn: Lsn(0x10), commit_time: Timestamp(micros) }
    }

    fn change(wal_start: u64, relation: u32, index: u32) -> ChangeKey {
        ChangeKey { wal_start: Lsn(wal_start), relation, index }
    }

    /// The recipe is a promise to every row that was ever written: this value must never change.
    #[test]
    fn ids_are_pinned() {
        let id = event_id(ORIGIN, commit(830_292_623_123_456), change(0x20, 9, 0), "user_created");
        assert_eq!(id.to_string(), "019dbc1b-ab13-88e3-9226-5c436ba8e393");
        assert_eq!((id.get_version_num(), id.get_variant()), (8, uuid::Variant::RFC4122));
    }

    #[test]
    fn ids_differ_by_each_part_and_sort_by_time() {
        let ids = [
            event_id(ORIGIN, commit(1), change(1, 1, 0), "a"),
            event_id(ORIGIN, commit(1), change(1, 1, 1), "a"),
            event_id(ORIGIN, commit(1), change(1, 2, 0), "a"),
            event_id(ORIGIN, commit(1), change(2, 1, 0), "a"),
            event_id(ORIGIN, commit(1), change(1, 1, 0), "b"),
            event_id(ORIGIN, commit(2), change(1, 1, 0), "a"),
            event_id(Origin { database_oid: 6, ..ORIGIN }, commit(1), change(1, 1, 0), "a"),
        ];
        let distinct: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
        let later = event_id(ORIGIN, commit(1_000_000), change(1, 1, 0), "a");
        assert!(ids.iter().all(|id| *id < later));
    }

    #[test]
    fn what_the_table_cannot_hold_is_shown_and_flagged() {
        let mut out = String::new();
        let flags = push_json_string(&mut out, b"a\0b\xE9\"\\\n\x01", 100);
        assert_eq!(out, r#""a\\u0000b\\xE9\"\\\n\u0001""#);
        assert!(flags.escaped);
        let mut out = String::new();
        assert!(push_text(&mut out, b"a\0b\xE9", 100).escaped);
        assert_eq!(out, r"a\u0000b\xE9");
    }

    #[test]
    fn shapes_of_secrets_are_redacted() {
        for secret in
            ["-----BEGIN RSA PRIVATE KEY-----", "eyJhbGciOi.x.y", "$argon2id$v=19", "ory_st_x"]
        {
            let mut out = String::new();
            assert!(push_json_string(&mut out, secret.as_bytes(), 100).redacted);
            assert!(push_text(&mut out, secret.as_bytes(), 100).redacted);
            assert_eq!(out, "\"[redacted]\"[redacted]");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_become_a_json_string_without_nul(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut out = String::new();
            push_json_string(&mut out, &bytes, 60);
            let read: String = serde_json::from_str(&out).unwrap();
            prop_assert!(!read.contains('\0'));
            let text = std::str::from_utf8(&bytes).unwrap_or("\0");
            if bytes.len() <= 60 && !text.contains('\0') && !looks_secret(&bytes) {
                prop_assert_eq!(read, text);
            }
        }

        #[test]
        fn a_text_is_cut_at_its_limit(text in "\\PC{0,80}", limit in 3_usize..60) {
            let mut out = String::new();
            let flags = push_text(&mut out, text.as_bytes(), limit);
            prop_assert!(out.len() <= limit || flags.redacted);
            prop_assert_eq!(flags.truncated, text.len() > limit && !flags.redacted);
        }
    }
}
