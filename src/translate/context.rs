//! Contexts: transactional logical messages that say who is at work in a transaction.
//!
//! Ours is `portal_audit.ctx` (`sql/context.sql`), which names the statement too. Other programs send their own, and two are known without a word in the mapping:
//! - `_bemi`, by the libraries of Bemi. Their row triggers take it from a comment of the statement: the application's own keys, and beside them `SQL`, the statement (source: `MIGRATION_CONTENT` of BemiHQ/bemi-prisma and `bemi/django` of BemiHQ/bemi-sqlalchemy). It comes once for each row.
//! - `sequin:transaction_annotations.set`, for Sequin: the application's own keys, for what follows in the transaction, until `sequin:transaction_annotations.clear` (source: `slot_processor_server.ex` of sequinstream/sequin, and its tests, whose example is `{"username": "…"}`).
//!
//! What stands in them is up to the application, so the mapping says where the caller is, in a `[[context]]` block. Without one a closed list of usual keys is looked for at the top, and exactly one of them must be there.
//!
//! # Who is believed
//! A context is evidence, not proof: any role may emit one. So it never outranks a row, and one that cannot be read counts for nothing. The messages of one prefix must agree, and so must the prefixes that name somebody; else nobody is named, unless ours names one for the very table and operation.

use super::{
    caller::key_text,
    document::{is_safe_json, number_text},
    mapping::{Mapping, MappingError, NamesSpec, meant_or_known},
    names::{NameKey, Names},
    value::{Name, parse_path},
};
use crate::tuple::Row;
use serde::{Deserialize, Deserializer, de};
use serde_json_path::JsonPath;

/// The prefix of our own context trigger.
const OURS: &[u8] = b"portal_audit.ctx";
/// Prefixes that begin so are ours.
const OURS_BEGIN: &str = "portal_audit.";
/// What names nobody from there on. Where in the transaction it stands cannot be relied on, so it takes the word from all of Sequin's.
const SEQUIN_CLEAR: &[u8] = b"sequin:transaction_annotations.clear";
const SEQUIN_SET: &str = "sequin:transaction_annotations.set";
/// Prefixes that are read without a word in the mapping.
const BUILT_IN: [&str; 2] = ["_bemi", SEQUIN_SET];
/// Keys of a caller that are usual. Exactly one of them must be there, a string or a number.
const USUAL_KEYS: &[&str] =
    &["caller", "username", "user", "user_id", "userId", "userID", "actor", "actor_id", "actorId"];
/// Larger contexts are not read. Those of others may hold the text of a statement.
const OURS_BYTES_MAX: usize = 16 * 1024;
const OTHERS_BYTES_MAX: usize = 64 * 1024;
/// With more different ones in a transaction none is believed.
const CONTEXTS_MAX: usize = 1_000;

/// One `[[context]]` block.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContextSpec {
    /// Of the logical messages.
    pub prefix: Name,
    /// Where in their JSON the caller is; if not said, the usual keys.
    #[serde(default, deserialize_with = "path")]
    pub caller: Option<JsonPath>,
    /// The `[names.X]` table that gives the caller's name, if what is there is a key.
    pub lookup: Option<Name>,
}

fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<JsonPath>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_path(&text).map(Some).map_err(de::Error::custom)
}

/// What can be checked of `[[context]]` blocks without a database.
#[must_use]
pub fn check(mapping: &Mapping) -> Vec<MappingError> {
    let mut errors = Vec::new();
    for (place, spec) in mapping.contexts.iter().enumerate() {
        let prefix = spec.prefix.get_ref();
        let before = mapping.contexts.iter().take(place);
        let fault = if prefix.is_empty() {
            Some(("a context without a prefix is nobody's", "Name the prefix of the messages."))
        } else if prefix.starts_with(OURS_BEGIN) {
            Some((
                "this prefix is ours",
                "Its messages are read as `portal-audit sql context` writes them. Take the block out.",
            ))
        } else if before.into_iter().any(|other| other.prefix.get_ref() == prefix) {
            Some(("this prefix has a block already", "One block says where its caller is."))
        } else {
            None
        };
        if let Some((message, hint)) = fault {
            let error = mapping.error(spec.prefix.span(), message.into(), Some(hint.into()));
            errors.push(error);
        }
        if let Some(lookup) = &spec.lookup
            && mapping.names_position(lookup.get_ref()).is_none()
        {
            let known: Vec<&str> = mapping.names.iter().map(|(name, _)| name.as_str()).collect();
            let hint = meant_or_known(lookup.get_ref(), "There are", &known)
                .unwrap_or_else(|| format!("Add a table [names.{}].", lookup.get_ref()));
            let message = format!("there is no [names.{}] in this mapping", lookup.get_ref());
            errors.push(mapping.error(lookup.span(), message, Some(hint)));
        }
        let several = |(name, names): &(String, NamesSpec)| {
            spec.lookup.as_ref().is_some_and(|lookup| lookup.get_ref() == name)
                && names.key.0.len() > 1
        };
        if let (true, Some(lookup)) = (mapping.names.iter().any(several), &spec.lookup) {
            let message = format!("[names.{}] has a key of several columns", lookup.get_ref());
            let hint = "A context names a caller by one value. Take a table with one key column.";
            errors.push(mapping.error(lookup.span(), message, Some(hint.into())));
        }
    }
    errors
}

/// How the messages of one prefix are read.
#[derive(Debug)]
struct Reader {
    prefix: Vec<u8>,
    caller: Option<JsonPath>,
    lookup: Option<usize>,
}

/// The prefixes of others that a source's translator reads.
#[derive(Debug)]
pub struct Readers(Vec<Reader>);

impl Readers {
    /// Those of the mapping, and the built-in ones that it does not mention.
    #[must_use]
    pub fn new(mapping: &Mapping) -> Self {
        let mut readers: Vec<Reader> = mapping
            .contexts
            .iter()
            .map(|spec| Reader {
                prefix: spec.prefix.get_ref().clone().into_bytes(),
                caller: spec.caller.clone(),
                lookup: spec
                    .lookup
                    .as_ref()
                    .and_then(|name| mapping.names_position(name.get_ref())),
            })
            .collect();
        for prefix in BUILT_IN {
            if !readers.iter().any(|reader| reader.prefix == prefix.as_bytes()) {
                readers.push(Reader { prefix: prefix.into(), caller: None, lookup: None });
            }
        }
        Self(readers)
    }
}

impl Reader {
    /// The caller that a message names; `None` if it cannot be read, `Some(None)` if it names nobody.
    fn caller(&self, content: &[u8]) -> Option<Option<String>> {
        let text = std::str::from_utf8(content).ok()?;
        // A key that comes twice, or a NUL: two readers would see two things.
        if !is_safe_json(text) {
            return None;
        }
        let document: serde_json::Value = serde_json::from_str(text).ok()?;
        let found = match &self.caller {
            Some(path) => path.query(&document).exactly_one().ok(),
            None => {
                let mut found = USUAL_KEYS.iter().filter_map(|key| document.get(key));
                found.next().filter(|_| found.next().is_none())
            }
        };
        let caller = match found {
            Some(serde_json::Value::String(text)) => Some(text.clone()),
            Some(serde_json::Value::Number(number)) => Some(number_text(number, content)),
            _ => None,
        };
        Some(caller.filter(|caller| !caller.is_empty()))
    }
}

/// A message of ours. The statement that it belongs to is optional.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Statement {
    caller: Option<String>,
    #[serde(rename = "s")]
    schema: Option<String>,
    #[serde(rename = "t")]
    table: Option<String>,
    op: Option<String>,
}

impl Statement {
    fn is_about(&self, row: &Row<'_>) -> bool {
        self.schema.as_ref().is_some_and(|schema| *schema == row.relation.namespace)
            && self.table.as_ref().is_some_and(|table| *table == row.relation.name)
            && self.op.as_ref().is_some_and(|op| op.eq_ignore_ascii_case(row.operation.name()))
    }

    fn caller(&self) -> Option<&str> {
        self.caller.as_deref().filter(|caller| !caller.is_empty())
    }
}

/// A message of others: whose, and whom it names.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Other {
    reader: usize,
    caller: Option<String>,
    /// The caller is a key whose name is not known.
    unresolved: bool,
}

/// The contexts of one transaction.
#[derive(Debug, Default)]
pub struct Contexts {
    ours: Vec<Statement>,
    others: Vec<Other>,
    /// Keys of callers are still to be turned into names, from this place on.
    resolved: usize,
    /// There were more than are read.
    too_many: bool,
    /// The message before, because triggers for each row send the same one again and again.
    last: (usize, Vec<u8>),
}

/// Whom the contexts of a transaction name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named<'a> {
    pub caller: &'a str,
    /// It is a key whose name is not known.
    pub unresolved: bool,
}

impl Contexts {
    /// Takes a transactional logical message; those of prefixes that nobody reads are none of our business.
    pub fn add(&mut self, readers: &Readers, prefix: &[u8], content: &[u8]) {
        let bytes_max = if prefix == OURS { OURS_BYTES_MAX } else { OTHERS_BYTES_MAX };
        if self.too_many || content.len() > bytes_max {
            return;
        }
        if prefix == OURS {
            let Ok(statement) = serde_json::from_slice::<Statement>(content) else { return };
            if self.ours.contains(&statement) {
                return;
            }
            self.too_many |= self.ours.len() >= CONTEXTS_MAX;
            if !self.too_many {
                self.ours.push(statement);
            }
            return;
        }
        let is_clear = prefix == SEQUIN_CLEAR;
        let meant = if is_clear { SEQUIN_SET.as_bytes() } else { prefix };
        let reader = readers.0.iter().enumerate().find(|(_, reader)| reader.prefix == meant);
        let Some((place, reader)) = reader else { return };
        if is_clear {
            self.push(Other { reader: place, caller: None, unresolved: false });
        } else if self.last.0 != place || self.last.1 != content {
            self.last.0 = place;
            self.last.1.clear();
            self.last.1.extend_from_slice(content);
            let Some(caller) = reader.caller(content) else { return };
            self.push(Other { reader: place, caller, unresolved: false });
        }
    }

    fn push(&mut self, other: Other) {
        if self.others.contains(&other) {
            return;
        }
        self.too_many |= self.others.len() >= CONTEXTS_MAX;
        if !self.too_many {
            self.others.push(other);
        }
    }

    /// Turns keys of callers into names, as they were before the transaction. Gives up to `limit` keys whose names are not in memory; put them there and call again.
    pub fn resolve(&mut self, readers: &Readers, names: &mut Names, limit: usize) -> Vec<NameKey> {
        let mut missing = Vec::new();
        for other in self.others.iter_mut().skip(self.resolved) {
            let lookup = readers.0.get(other.reader).and_then(|reader| reader.lookup);
            if let (Some(place), Some(caller)) = (lookup, &other.caller) {
                let key = key_text(caller.as_bytes());
                if names.peek(place, &key).is_none() {
                    missing.push(NameKey { names: place, key: key.into_owned() });
                } else if missing.is_empty() {
                    match names.get(place, &key) {
                        Some(name) => other.caller = Some(name.as_ref().to_owned()),
                        None => other.unresolved = true,
                    }
                }
            }
            if missing.is_empty() {
                self.resolved += 1;
            }
            if missing.len() >= limit.max(1) {
                break;
            }
        }
        missing
    }

    /// Whom they name for a change.
    #[must_use]
    pub fn caller(&self, row: &Row<'_>) -> Option<Named<'_>> {
        if self.too_many {
            return None;
        }
        match self.of_all() {
            Ok(named) => named,
            Err(Disagreement) => {
                let about = self.ours.iter().filter(|statement| statement.is_about(row));
                let ours = agreed(about.map(Statement::caller)).ok().flatten();
                ours.map(|caller| Named { caller, unresolved: false })
            }
        }
    }

    /// Whom all of them name. Within a prefix one that names nobody differs from one that does; a prefix that names nobody at all has no opinion.
    fn of_all(&self) -> Result<Option<Named<'_>>, Disagreement> {
        let ours = agreed(self.ours.iter().map(Statement::caller))?;
        let mut named = ours.map(|caller| Named { caller, unresolved: false });
        for (place, first) in self.others.iter().enumerate() {
            let is_first =
                !self.others.iter().take(place).any(|other| other.reader == first.reader);
            if !is_first {
                continue;
            }
            let same = self.others.iter().filter(|other| other.reader == first.reader);
            let Some(caller) = agreed(same.map(|other| other.caller.as_deref()))? else { continue };
            match named {
                Some(before) if before.caller != caller => return Err(Disagreement),
                Some(_) => {}
                None => named = Some(Named { caller, unresolved: first.unresolved }),
            }
        }
        Ok(named)
    }
}

struct Disagreement;

/// The caller on whom messages agree, which may be nobody.
fn agreed<'a>(
    mut callers: impl Iterator<Item = Option<&'a str>>,
) -> Result<Option<&'a str>, Disagreement> {
    let Some(first) = callers.next() else { return Ok(None) };
    if callers.all(|caller| caller == first) { Ok(first) } else { Err(Disagreement) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        decode::ReplicaIdentity,
        tuple::{Operation, Relation, RowSpans},
    };
    use proptest::prelude::*;

    const MAPPING: &str = "[[context]]\nprefix = \"app\"\ncaller = \"$.who[0].name\"\n[[context]]\nprefix = \"bare\"\n";
    const PREFIXES: [&str; 6] = [
        "portal_audit.ctx",
        "_bemi",
        SEQUIN_SET,
        "sequin:transaction_annotations.clear",
        "app",
        "bare",
    ];

    /// Whom messages name for an UPDATE of portal.users.
    fn caller(messages: &[(&str, &[u8])]) -> Option<String> {
        let readers = Readers::new(&Mapping::parse("m.toml", MAPPING).unwrap());
        let mut contexts = Contexts::default();
        for (prefix, content) in messages {
            contexts.add(&readers, prefix.as_bytes(), content);
        }
        let relation = Relation {
            oid: 1,
            namespace: "portal".into(),
            name: "users".into(),
            replica_identity: ReplicaIdentity::Full,
            columns: Vec::new(),
        };
        let mut spans = RowSpans::default();
        let row = Row::new(Operation::Update, &relation, None, None, &mut spans);
        contexts.caller(&row).map(|named| named.caller.to_owned())
    }

    fn one(prefix: &str, content: &str) -> Option<String> {
        caller(&[(prefix, content.as_bytes())])
    }

    #[test]
    fn the_caller_is_where_the_mapping_says_or_under_one_usual_key() {
        for prefix in ["_bemi", SEQUIN_SET, "bare"] {
            for (content, expected) in [
                (r#"{"username": "ada", "SQL": "UPDATE"}"#, Some("ada")),
                (r#"{"user_id": 7}"#, Some("7")),
                (r#"{"userId": 12345678901234567890}"#, Some("12345678901234567890")),
                (r#"{"user_id": 7, "username": "ada"}"#, None),
                (r#"{"user": {"id": 7}}"#, None),
                (r#"{"user": ""}"#, None),
                (r#"{"user": null}"#, None),
                (r#"{"endpoint": "/users"}"#, None),
                (r#"{"user": "ada", "user": "eve"}"#, None),
                (r#"{"user": "ada\u0000"}"#, None),
                (r#"["user", "ada"]"#, None),
                (r#""ada""#, None),
            ] {
                assert_eq!(one(prefix, content).as_deref(), expected, "{prefix} {content}");
            }
        }
        assert_eq!(one("app", r#"{"who": [{"name": "ada"}], "user": "eve"}"#).unwrap(), "ada");
        assert_eq!(one("app", r#"{"user": "eve"}"#), None);
        assert_eq!(one("other", r#"{"user": "eve"}"#), None);
    }

    #[test]
    fn who_disagree_name_nobody() {
        let ada = ("_bemi", &br#"{"user": "ada"}"#[..]);
        let eve = ("bare", &br#"{"user": "eve"}"#[..]);
        let nobody = ("_bemi", &br#"{"path": "/"}"#[..]);
        let same = ("bare", &br#"{"user_id": "ada"}"#[..]);
        let empty = (
            "portal_audit.ctx",
            &br#"{"caller": null, "s": "portal", "t": "users", "op": "UPDATE"}"#[..],
        );
        let ours = (
            "portal_audit.ctx",
            &br#"{"caller": "wrenn", "s": "portal", "t": "users", "op": "UPDATE"}"#[..],
        );
        let elsewhere = (
            "portal_audit.ctx",
            &br#"{"caller": "wrenn", "s": "portal", "t": "teams", "op": "UPDATE"}"#[..],
        );
        let clear = ("sequin:transaction_annotations.clear", &b""[..]);
        let sequin = (SEQUIN_SET, &br#"{"user": "ada"}"#[..]);
        for (messages, expected) in [
            (vec![ada, ada], Some("ada")),
            (vec![ada, same], Some("ada")),
            (vec![ada, empty], Some("ada")),
            (vec![eve, ("_bemi", b"{")], Some("eve")),
            (vec![ada, eve], None),
            (vec![ada, nobody], None),
            (vec![ada, elsewhere], None),
            (vec![elsewhere, ours], Some("wrenn")),
            (vec![ada, eve, ours], Some("wrenn")),
            (vec![ada, elsewhere, ours], Some("wrenn")),
            (vec![sequin], Some("ada")),
            (vec![sequin, clear], None),
        ] {
            assert_eq!(caller(&messages).as_deref(), expected, "{messages:?}");
            let turned: Vec<_> = messages.iter().rev().copied().collect();
            assert_eq!(caller(&turned).as_deref(), expected, "{turned:?}");
        }
    }

    #[test]
    fn too_many_and_too_much_are_not_believed() {
        let huge = format!("{{\"user\": \"ada\", \"SQL\": \"{}\"}}", "x".repeat(OTHERS_BYTES_MAX));
        assert_eq!(one("_bemi", &huge), None);
        let deep =
            format!("{{\"user\": \"ada\", \"x\": {}1{}}}", "[".repeat(9_999), "]".repeat(9_999));
        assert_eq!(one("_bemi", &deep), None);
        let many: Vec<String> = (0..=CONTEXTS_MAX).map(|n| format!("{{\"user\": {n}}}")).collect();
        let mut many: Vec<(&str, &[u8])> =
            many.iter().map(|content| ("_bemi", content.as_bytes())).collect();
        let ours = br#"{"caller": "wrenn", "s": "portal", "t": "users", "op": "UPDATE"}"#;
        many.push(("portal_audit.ctx", ours));
        assert_eq!(caller(&many), None);
    }

    proptest! {
        #[test]
        fn no_bytes_bring_it_down(
            place in 0..PREFIXES.len(),
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let named = caller(&[(PREFIXES[place], &bytes)]);
            prop_assert!(named.is_none() || serde_json::from_slice::<serde_json::Value>(&bytes).is_ok());
        }

        #[test]
        fn no_json_brings_it_down(
            place in 0..PREFIXES.len(),
            text in "[{}\\[\\]\",:a-e0-9u\\\\ ]{0,60}",
            key in prop::sample::select(USUAL_KEYS),
        ) {
            caller(&[(PREFIXES[place], text.as_bytes())]);
            let around = format!("{{\"{key}\": {text}}}");
            let named = caller(&[(PREFIXES[place], around.as_bytes())]);
            prop_assert!(named.is_none() || serde_json::from_str::<serde_json::Value>(&around).is_ok());
        }
    }
}
