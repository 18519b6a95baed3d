//! A JSONPath into a document (RFC 9535), and what it finds there.
//!
//! # Why two ways
//! Most paths of a mapping name members and take all elements: `$[*].resource`. For these the document is read once and only what is found is kept; a whole document as a tree costs ten times as much. Any other path searches the tree.

use super::document::DOCUMENT_BYTES_MAX;
use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor,
        value::{MapAccessDeserializer, SeqAccessDeserializer},
    },
};
use serde_json::Value;
use serde_json_path::JsonPath;
use std::{borrow::Cow, fmt, sync::Arc};

/// A path, parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct DocumentPath {
    text: Arc<str>,
    path: JsonPath,
    /// The same path, if it has no other steps than these.
    steps: Option<Vec<Step>>,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    /// `.name`
    Member(String),
    /// `[*]` or `.*`
    All,
}

/// What a path found. Most are strings without escapes, which are not copied.
#[derive(Debug, Clone, PartialEq)]
pub enum Found<'a> {
    Text(Cow<'a, str>),
    /// No string.
    Other(Value),
}

impl Found<'_> {
    fn of_tree(value: &Value) -> Self {
        match value {
            Value::String(text) => Self::Text(text.clone().into()),
            other => Self::Other(other.clone()),
        }
    }
}

impl DocumentPath {
    /// A path that was parsed from `text`.
    #[must_use]
    pub fn new(text: &str, path: JsonPath) -> Self {
        Self { text: text.into(), path, steps: steps(text) }
    }

    /// As it is written in the mapping.
    #[must_use]
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// All that the path finds, in the order of the document; `None` if the text is no document, or too deep or too large to be taken apart.
    #[must_use]
    pub fn find<'a>(&self, text: &'a [u8]) -> Option<Vec<Found<'a>>> {
        if text.len() > DOCUMENT_BYTES_MAX {
            return None;
        }
        let Some(steps) = &self.steps else {
            let document: Value = serde_json::from_slice(text).ok()?;
            let found = self.path.query(&document);
            return Some(found.iter().map(|&found| Found::of_tree(found)).collect());
        };
        // Once for the whole is cheaper than for each string.
        match std::str::from_utf8(text) {
            Ok(text) => walk(steps, serde_json::Deserializer::from_str(text)),
            Err(_) => walk(steps, serde_json::Deserializer::from_slice(text)),
        }
    }
}

impl fmt::Display for DocumentPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}

/// What most searches find has room in this many places.
const FOUND_ROOM: usize = 64;

fn walk<'de, R: serde_json::de::Read<'de>>(
    steps: &[Step],
    mut reader: serde_json::Deserializer<R>,
) -> Option<Vec<Found<'de>>> {
    let mut found = Vec::with_capacity(FOUND_ROOM);
    Walk { steps, found: &mut found }.deserialize(&mut reader).ok()?;
    reader.end().ok()?;
    Some(found)
}

/// The steps of a path of the simple kind.
fn steps(text: &str) -> Option<Vec<Step>> {
    let mut rest = text.strip_prefix('$')?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("[*]").or_else(|| rest.strip_prefix(".*")) {
            steps.push(Step::All);
            rest = after;
            continue;
        }
        let after = rest.strip_prefix('.')?;
        let is_of_name = |letter: char| letter == '_' || letter.is_ascii_alphanumeric();
        let end = after.find(|letter| !is_of_name(letter)).unwrap_or(after.len());
        let (name, after) = after.split_at_checked(end)?;
        if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) {
            return None;
        }
        steps.push(Step::Member(name.to_owned()));
        rest = after;
    }
    Some(steps)
}

/// Reads a value of the document, and goes on with the steps that are left.
struct Walk<'a, 'de> {
    steps: &'a [Step],
    found: &'a mut Vec<Found<'de>>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.steps.is_empty() {
            self.found.push(deserializer.deserialize_any(Take)?);
            return Ok(());
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON document")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        match self.steps {
            [Step::All, steps @ ..] => {
                while items.next_element_seed(Walk { steps, found: self.found })?.is_some() {}
            }
            _ => while items.next_element::<IgnoredAny>()?.is_some() {},
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Some((step, steps)) = self.steps.split_first() else { return Ok(()) };
        let before = self.found.len();
        let name = match step {
            Step::All => None,
            Step::Member(name) => Some(name.as_str()),
        };
        while let Some(is_wanted) = members.next_key_seed(IsName(name))? {
            if !is_wanted {
                members.next_value::<IgnoredAny>()?;
                continue;
            }
            if name.is_some() {
                // Of a name that stands twice the last counts, as everywhere.
                self.found.truncate(before);
            }
            members.next_value_seed(Walk { steps, found: self.found })?;
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Takes a value as it is found.
struct Take;

impl<'de> Visitor<'de> for Take {
    type Value = Found<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Found<'de>, E> {
        Ok(Found::Text(text.into()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Found<'de>, E> {
        Ok(Found::Text(text.to_owned().into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Found<'de>, A::Error> {
        Value::deserialize(SeqAccessDeserializer::new(items)).map(Found::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Found<'de>, A::Error> {
        Value::deserialize(MapAccessDeserializer::new(members)).map(Found::Other)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Found<'de>, E> {
        Ok(Found::Other(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Found<'de>, E> {
        Ok(Found::Other(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Found<'de>, E> {
        Ok(Found::Other(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Found<'de>, E> {
        let number = serde_json::Number::from_f64(value);
        number.map(|number| Found::Other(number.into())).ok_or_else(|| E::custom("no number"))
    }

    fn visit_unit<E>(self) -> Result<Found<'de>, E> {
        Ok(Found::Other(Value::Null))
    }
}

/// Whether a key is this one; any, without a name.
struct IsName<'a>(Option<&'a str>);

impl<'de> DeserializeSeed<'de> for IsName<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for IsName<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(self.0.is_none_or(|name| name == key))
    }
}

#[cfg(test)]
mod tests {
    use super::{DocumentPath, Found, steps};
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use serde_json_path::JsonPath;

    fn path(text: &str) -> DocumentPath {
        DocumentPath::new(text, JsonPath::parse(text).unwrap())
    }

    #[test]
    fn other_paths_search_the_tree() {
        for text in ["$[0]", "$..a", "$['a']", "$[?@.a]", "$.a[1:2]", "$.é"] {
            assert_eq!(steps(text), None, "{text}");
        }
        let document = br#"[{"a": 1}, {"a": [2, 3]}]"#;
        assert_eq!(path("$[1].a[0]").find(document), Some(vec![Found::Other(json!(2))]));
    }

    #[test]
    fn no_document_is_found_out() {
        for text in ["$[*]", "$.a", "$[?@.a]"] {
            for broken in ["", "[1", "[1] 2", "{\"a\" 1}", "nul"] {
                assert_eq!(path(text).find(broken.as_bytes()), None, "{text} in {broken}");
            }
        }
    }

    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-c\"\\\\é]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map("[ab]", inner, 0..3)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn both_ways_find_the_same(
            document in document(),
            steps in prop::collection::vec(prop::sample::select(vec![".a", ".b", ".*", "[*]"]), 0..4),
        ) {
            let text = format!("${}", steps.concat());
            let simple = path(&text);
            prop_assert!(simple.steps.is_some());
            let tree = DocumentPath { steps: None, ..simple.clone() };
            let written = document.to_string();
            prop_assert_eq!(simple.find(written.as_bytes()), tree.find(written.as_bytes()));
        }
    }
}
