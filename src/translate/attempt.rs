//! Failed attempts: what the optional attempt trigger (`sql/attempt.sql`) said of a transaction that was rolled back → one event.
//!
//! The trigger's messages stand outside transactions, so a committed one sends them too. How a transaction ended only the source knows; the pipeline asks it. Until then an attempt waits in `portal_audit.attempts`. Here is what can be done without asking: messages are read, and an attempt that was decided becomes an event.
//!
//! A message is evidence, not proof: any role may emit one. One that cannot be read is counted, and nothing else comes of it.

use super::{
    check::{is_table_form, is_word},
    emit::{close_payload, push_audit},
    mapping::{Mapping, MappingError, Retention},
};
use crate::{
    event::{
        ChangeKey, Commit, EventRow, Events, Flags, INDEXED_TEXT_BYTES_MAX, Origin, event_id,
        push_formatted, push_json_string, push_text,
    },
    lsn::Lsn,
    timestamp::Timestamp,
};
use serde::Deserialize;
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

/// What the error message of each such event says; nothing more is known.
const ROLLED_BACK: &str = "transaction rolled back";
/// The entity of a table that `[attempts]` does not name.
const ENTITY_DEFAULT: &str = "row";
/// Operations of a statement, as the trigger says them and as events do, and their sentence.
const OPERATIONS: &[(&str, &str, &str)] = &[
    ("INSERT", "insert", "{caller} tried to insert into {subject}: {error_message}"),
    ("UPDATE", "update", "{caller} tried to update {subject}: {error_message}"),
    ("DELETE", "delete", "{caller} tried to delete from {subject}: {error_message}"),
    ("TRUNCATE", "truncate", "{caller} tried to truncate {subject}: {error_message}"),
];
/// Longest name of a schema or a table that is believed, in bytes. A server built with other limits than 63 is rare.
const IDENTIFIER_BYTES_MAX: usize = 256;
/// A time is believed from 2000 to 2200, in microseconds since 2000: no server's clock is farther off, and `events` holds it.
const AT_MAX: Timestamp = Timestamp(6_311_433_600_000_000);

/// The message as the trigger writes it; what else is in it is not read.
#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow)]
    xid: Cow<'a, str>,
    /// Microseconds since 1970.
    at: i64,
    caller: Option<String>,
    #[serde(rename = "s")]
    schema: String,
    #[serde(rename = "t")]
    table: String,
    #[serde(borrow)]
    op: Cow<'a, str>,
    #[serde(default)]
    depth: i64,
}

/// A statement of a transaction whose end is not known yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Where its message stands.
    pub lsn: Lsn,
    /// The whole transaction's, with its epoch.
    pub xid: i64,
    pub at: Timestamp,
    /// Qualified.
    pub relation: String,
    pub operation: &'static str,
    /// Empty: not said.
    pub caller: String,
    /// What was done to the caller: words with commas.
    pub flags: String,
    /// Whether a foreign key or another trigger did it on behalf of a statement.
    pub nested: bool,
}

impl Attempt {
    /// Reads a message; `None` if it is not one that the trigger writes.
    #[must_use]
    pub fn read(lsn: Lsn, content: &[u8]) -> Option<Self> {
        let content: Content<'_> = serde_json::from_slice(content).ok()?;
        let is_name = |name: &str| {
            !name.is_empty() && name.len() <= IDENTIFIER_BYTES_MAX && !name.contains('\0')
        };
        if !is_name(&content.schema) || !is_name(&content.table) {
            return None;
        }
        let xid = content.xid.parse().ok().filter(|xid| *xid > 0)?;
        let at = Timestamp::from_unix_micros(content.at);
        if !(Timestamp(0)..=AT_MAX).contains(&at) {
            return None;
        }
        let (_, operation, _) = OPERATIONS.iter().find(|(op, ..)| *op == content.op)?;
        let mut caller = String::new();
        let given = content.caller.unwrap_or_default();
        let flags = push_text(&mut caller, given.as_bytes(), INDEXED_TEXT_BYTES_MAX);
        let relation = format!("{}.{}", content.schema, content.table);
        let (flags, nested) = (words(flags), content.depth > 1);
        Some(Self { lsn, xid, at, relation, operation, caller, flags, nested })
    }
}

fn words(flags: Flags) -> String {
    let Flags { escaped, truncated, redacted, unchanged: _, unresolved: _, inferred: _ } = flags;
    let named = [(escaped, "escaped"), (redacted, "redacted"), (truncated, "truncated")];
    let set = named.iter().filter(|(is_set, _)| *is_set).map(|(_, name)| *name);
    set.collect::<Vec<_>>().join(",")
}

fn flags(words: &str) -> Flags {
    let has = |word: &str| words.split(',').any(|candidate| candidate == word);
    Flags {
        escaped: has("escaped"),
        redacted: has("redacted"),
        truncated: has("truncated"),
        ..Flags::default()
    }
}

/// The attempts of a piece of the log.
#[derive(Debug, Default)]
pub struct Attempts {
    /// By the lower half of the transaction's id, which is what a commit is known by.
    waiting: HashMap<u32, Vec<Attempt>>,
    count: usize,
    /// Messages with the trigger's prefix that it did not write.
    pub unreadable: u64,
}

impl Attempts {
    /// Takes a message with the trigger's prefix.
    pub fn add(&mut self, lsn: Lsn, content: &[u8]) {
        match Attempt::read(lsn, content) {
            Some(attempt) => {
                self.waiting.entry(low_half(attempt.xid)).or_default().push(attempt);
                self.count += 1;
            }
            None => self.unreadable += 1,
        }
    }

    /// Forgets what was said of a transaction that was committed. Most are, soon after, so that few attempts ever have to be stored; the others' end is asked for.
    pub fn settle(&mut self, xid: u32) {
        let settled = self.waiting.remove(&xid);
        self.count = self.count.saturating_sub(settled.map_or(0, |attempts| attempts.len()));
    }

    /// Number of attempts.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0 && self.unreadable == 0
    }

    /// In the order of the log.
    #[must_use]
    pub fn in_order(&self) -> Vec<&Attempt> {
        let mut attempts: Vec<&Attempt> = self.waiting.values().flatten().collect();
        attempts.sort_by_key(|attempt| attempt.lsn);
        attempts
    }
}

/// The id as BEGIN and `_audit` have it.
fn low_half(xid: i64) -> u32 {
    u32::try_from(xid & i64::from(u32::MAX)).unwrap_or_default()
}

/// A row of `portal_audit.attempts` whose transaction was rolled back.
#[derive(Debug)]
pub struct Failed {
    pub xid: i64,
    pub lsn: Lsn,
    pub at: Timestamp,
    pub relation: String,
    pub operation: String,
    pub caller: String,
    pub flags: String,
    /// Table and operation of each statement, as `jsonb` prints them.
    pub statements: String,
    pub left_out: i64,
}

/// Makes events of one source's failed attempts.
#[derive(Debug)]
pub struct Teller {
    origin: Origin,
    source: String,
    timeline: u32,
    entities: BTreeMap<String, String>,
}

impl Teller {
    /// For the source named `source` in `_audit`, on its first timeline.
    #[must_use]
    pub fn new(origin: Origin, source: &str, mapping: &Mapping) -> Self {
        let entities = mapping.attempts.iter();
        let entities =
            entities.map(|(table, entity)| (table.get_ref().clone(), entity.get_ref().clone()));
        Self { origin, source: source.to_owned(), timeline: 1, entities: entities.collect() }
    }

    /// The same, on another timeline.
    #[must_use]
    pub fn on_timeline(self, timeline: u32) -> Self {
        Self { timeline, ..self }
    }

    /// The event type of a failed statement.
    #[must_use]
    pub fn event_type(&self, failed: &Failed) -> String {
        let entity = self.entities.get(&failed.relation).map_or(ENTITY_DEFAULT, String::as_str);
        format!("{entity}_{}_failed", failed.operation)
    }

    /// Adds the event of a transaction that was rolled back. Its time is that of its last statement, because there is no commit.
    pub fn tell(&self, failed: &Failed, events: &mut Events) {
        let Failed { xid, lsn, at, relation, operation, caller, statements, .. } = failed;
        let xid = low_half(*xid);
        // Its message's position is its own, and no change has relation 0.
        let change = ChangeKey { wal_start: *lsn, relation: 0, index: 0 };
        let commit = Commit { xid, commit_lsn: *lsn, commit_time: *at };
        let event_uuid = event_id(self.origin, commit, change, "attempt");
        let mut flags = flags(&failed.flags);
        flags.truncated |= failed.left_out > 0;
        let (event_type, ()) = events.write(|out| out.push_str(&self.event_type(failed)));
        let (caller_text, ()) = events.write(|out| out.push_str(caller));
        let (subject, subject_flags) =
            events.write(|out| push_text(out, relation.as_bytes(), INDEXED_TEXT_BYTES_MAX));
        flags |= subject_flags;
        let (subject_type, ()) = events.write(|out| out.push_str("table"));
        let (error_message, ()) = events.write(|out| out.push_str(ROLLED_BACK));
        let (payload, ()) = events.write(|out| {
            out.push_str("{\"operation\":");
            push_json_string(out, operation.as_bytes(), usize::MAX);
            push_formatted(out, format_args!(",\"statements\":{statements},"));
            if failed.left_out > 0 {
                push_formatted(out, format_args!("\"left_out\":{},", failed.left_out));
            }
            push_audit(out, &self.source, (*lsn, self.timeline), Some(xid));
            let caller_from = if caller.is_empty() { "none" } else { "context" };
            close_payload(out, ("", None), (caller_from, 0, 0), &mut flags, false);
        });
        events.push(EventRow {
            relation: 0,
            event_uuid,
            timestamp: *at,
            event_type,
            caller: caller_text,
            subject,
            subject_type,
            target: None,
            success: false,
            error_message: Some(error_message),
            payload,
        });
    }
}

/// An event type as `portal_audit.event_types` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventType {
    pub name: String,
    pub describe: &'static str,
    pub retention: Retention,
    pub visible_to: &'static [&'static str],
}

/// The event types of failed attempts on the entities that a mapping names, and on those that it does not.
#[must_use]
pub fn event_types(mapping: &Mapping) -> Vec<EventType> {
    if mapping.attempts.is_empty() {
        return Vec::new();
    }
    let named = mapping.attempts.values().map(|entity| entity.get_ref().as_str());
    let mut entities: Vec<&str> = named.chain([ENTITY_DEFAULT]).collect();
    entities.sort_unstable();
    entities.dedup();
    let types = entities.iter().flat_map(|entity| {
        OPERATIONS.iter().map(move |(_, operation, _)| format!("{entity}_{operation}_failed"))
    });
    types.filter_map(|name| event_type(&name)).collect()
}

/// What is stored of an event type that [`Teller::event_type`] gave.
#[must_use]
pub fn event_type(name: &str) -> Option<EventType> {
    let begun = name.strip_suffix("_failed")?;
    let (.., describe) = OPERATIONS.iter().find(|(_, operation, _)| {
        begun.strip_suffix(operation).is_some_and(|entity| entity.ends_with('_'))
    })?;
    let (name, retention) = (name.to_owned(), Retention::Project);
    Some(EventType { name, describe, retention, visible_to: &["admin"] })
}

/// What can be checked of `[attempts]` without a database.
#[must_use]
pub fn check(mapping: &Mapping) -> Vec<MappingError> {
    let mut errors = Vec::new();
    for (table, entity) in &mapping.attempts {
        if !is_table_form(table.get_ref()) {
            let message = format!("table {:?} is not of the form schema.table", table.get_ref());
            let hint = "Write the schema too, in quotes: \"public.users\" = \"user\".";
            errors.push(mapping.error(table.span(), message, Some(hint.to_owned())));
        }
        if !is_word(entity.get_ref()) {
            let message =
                format!("{:?} is not lower-case words with underscores", entity.get_ref());
            let hint = "The events are called <word>_insert_failed and so on.".to_owned();
            errors.push(mapping.error(entity.span(), message, Some(hint)));
        }
    }
    let taken = event_types(mapping);
    for rule in &mapping.rules {
        if taken.iter().any(|taken| taken.name == *rule.event_type.get_ref()) {
            let message =
                format!("event type {:?} is one of failed attempts", rule.event_type.get_ref());
            let hint = "Choose another type, or another word in [attempts].".to_owned();
            errors.push(mapping.error(rule.event_type.span(), message, Some(hint)));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MESSAGE: &str = r#"{"xid":"4294967999","at":1776977423123456,"caller":"ada","app":"psql","su":"portal","s":"portal","t":"users","op":"INSERT","depth":1}"#;

    #[test]
    fn a_message_is_read() {
        let attempt = Attempt::read(Lsn(16), MESSAGE.as_bytes()).unwrap();
        let expected = Attempt {
            lsn: Lsn(16),
            xid: 4_294_967_999,
            at: Timestamp(830_292_623_123_456),
            relation: "portal.users".into(),
            operation: "insert",
            caller: "ada".into(),
            flags: String::new(),
            nested: false,
        };
        assert_eq!(attempt, expected);
        let nobody = MESSAGE.replace("\"ada\"", "null").replace("depth\":1", "depth\":2");
        let nobody = Attempt::read(Lsn(16), nobody.as_bytes()).unwrap();
        assert!(nobody.caller.is_empty() && nobody.nested);
    }

    #[test]
    fn a_commit_settles_its_attempts_and_no_others() {
        let mut attempts = Attempts::default();
        attempts.add(Lsn(2), MESSAGE.as_bytes());
        attempts.add(Lsn(1), MESSAGE.replace("4294967999", "5").as_bytes());
        attempts.add(Lsn(3), MESSAGE.replace("4294967999", "5").as_bytes());
        attempts.add(Lsn(4), b"?");
        attempts.settle(6);
        let order: Vec<u64> = attempts.in_order().iter().map(|attempt| attempt.lsn.0).collect();
        assert_eq!((order, attempts.count(), attempts.unreadable), (vec![1, 2, 3], 3, 1));
        attempts.settle(5);
        attempts.settle(703);
        assert!(attempts.count() == 0 && !attempts.is_empty());
    }

    /// The id is a promise to every row that was ever written, whatever the mapping calls the table now.
    #[test]
    fn ids_are_pinned_and_flags_come_back() {
        let failed = Failed {
            xid: 4_294_967_999,
            lsn: Lsn(16),
            at: Timestamp(830_292_623_123_456),
            relation: "portal.users".into(),
            operation: "insert".into(),
            caller: "[redacted]".into(),
            flags: words(Flags { redacted: true, escaped: true, ..Flags::default() }),
            statements: "[]".into(),
            left_out: 2,
        };
        let origin = Origin { system_identifier: 7, database_oid: 5 };
        for (mapping, event_type) in [
            ("[attempts]\n\"portal.users\" = \"user\"", "user_insert_failed"),
            ("", "row_insert_failed"),
        ] {
            let mapping = Mapping::parse("m.toml", mapping).unwrap();
            let mut events = Events::default();
            Teller::new(origin, "portal", &mapping).tell(&failed, &mut events);
            let event = events.iter().next().unwrap();
            assert_eq!(event.event_uuid.to_string(), "019dbc1b-ab13-8be3-b89f-31c6de2f4fad");
            assert_eq!((event.event_type, event.success), (event_type, false));
            let payload = r#"{"operation":"insert","statements":[],"left_out":2,"_audit":{"source":"portal","lsn":"0/10","xid":703,"caller_from":"context","escaped":true,"truncated":true,"redacted":true}}"#;
            assert_eq!(event.payload, payload);
            assert!(super::event_type(event.event_type).is_some());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_bring_it_down(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Attempt::read(Lsn(1), &bytes), None);
        }

        #[test]
        fn a_mutated_message_is_read_or_refused(
            place in 0..MESSAGE.len(),
            length in 0..20_usize,
            put in "[0-9a-z\\\\\":{},-]{0,8}",
        ) {
            let mut message = MESSAGE.as_bytes().to_vec();
            let end = (place + length).min(message.len());
            message.splice(place..end, put.into_bytes());
            if let Some(attempt) = Attempt::read(Lsn(1), &message) {
                prop_assert!(attempt.xid > 0 && attempt.at <= AT_MAX && !attempt.caller.contains('\0'));
            }
        }
    }
}
