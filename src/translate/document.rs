//! A JSON document as it is written: what `jsonb` would refuse of it or change, and secrets in it.

use super::path::{DocumentPath, Found};
use crate::event::{REDACTED, looks_secret};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use std::{
    borrow::Cow,
    cell::OnceCell,
    collections::{HashMap, HashSet},
    fmt,
};

/// Largest document that is taken apart, in bytes: parsed, it may take thirty times as much. One that is larger stands as its hash.
pub const DOCUMENT_BYTES_MAX: usize = 16 << 20;
/// Deepest nesting that `jsonb` is trusted with: by `max_stack_depth`, the default of 2 MB ends it somewhere above 5,000.
const DEPTH_MAX: usize = 1_000;
/// Longest number of a `json` document that `jsonb` is trusted with, in bytes. Its own limits are 131,072 digits before the point and 16,383 behind it.
const NUMBER_BYTES_MAX: usize = 300;
/// Longest exponent, with its sign.
const EXPONENT_BYTES_MAX: usize = 4;

/// The strings of a JSON text, each with its quotes, and what stands between them.
struct Pieces<'a>(&'a [u8]);

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let mut bytes = self.0.iter().enumerate();
        let (_, first) = bytes.next()?;
        let mut end = self.0.len();
        while let Some((position, byte)) = bytes.next() {
            match (first, byte) {
                (b'"', b'\\') => drop(bytes.next()),
                (b'"', b'"') => {
                    end = position + 1;
                    break;
                }
                (_, b'"') => {
                    end = position;
                    break;
                }
                _ => {}
            }
        }
        let (piece, rest) = self.0.split_at_checked(end)?;
        self.0 = rest;
        Some(piece)
    }
}

/// A JSON text without the strings in it that look like secrets; says whether there were any.
#[must_use]
pub fn redact(document: &[u8]) -> (Cow<'_, [u8]>, bool) {
    let is_secret = |piece: &[u8]| piece.strip_prefix(b"\"").is_some_and(looks_secret);
    if !Pieces(document).any(is_secret) {
        return (document.into(), false);
    }
    let mut redacted = Vec::with_capacity(document.len());
    for piece in Pieces(document) {
        if is_secret(piece) {
            redacted.extend_from_slice(format!("\"{REDACTED}\"").as_bytes());
        } else {
            redacted.extend_from_slice(piece);
        }
    }
    (redacted.into(), true)
}

/// The numbers of a JSON text, as they are written.
fn numbers(document: &str) -> impl Iterator<Item = &str> {
    let pieces = Pieces(document.as_bytes()).filter(|piece| !piece.starts_with(b"\""));
    pieces.filter_map(|piece| std::str::from_utf8(piece).ok()).flat_map(|piece| {
        let words =
            piece.split(|letter: char| !matches!(letter, '0'..='9' | '+' | '-' | '.' | 'e' | 'E'));
        words.filter(|word| word.starts_with(|first: char| first == '-' || first.is_ascii_digit()))
    })
}

/// Whether `jsonb` holds a number as it is: it knows no negative zero, and limits.
fn is_safe_number(text: &str) -> bool {
    let exponent = text.split(['e', 'E']).nth(1).unwrap_or_default();
    let is_negative_zero =
        text.starts_with('-') && text.parse::<f64>().is_ok_and(|number| number == 0.0);
    text.len() <= NUMBER_BYTES_MAX && exponent.len() <= EXPONENT_BYTES_MAX && !is_negative_zero
}

/// What a path finds in a document, and the document as it is written.
pub struct Document<'a> {
    pub found: Vec<Found<'a>>,
    text: &'a [u8],
    /// By the bits of the parsed number, how it is written; `None` if numbers are written that fall together when they are parsed. Made when it is first asked for.
    written: OnceCell<HashMap<u64, Option<&'a str>>>,
}

impl fmt::Debug for Document<'_> {
    /// Values never print.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Document({} bytes)", self.text.len())
    }
}

impl<'a> Document<'a> {
    /// Searches a document; `None` if it is none, too deep or too large.
    #[must_use]
    pub fn search(text: &'a [u8], path: &DocumentPath) -> Option<Self> {
        Some(Self { found: path.find(text)?, text, written: OnceCell::new() })
    }

    /// A number as it is written, and whether that is certain: a parsed one may have lost digits.
    #[must_use]
    pub fn number(&self, number: &serde_json::Number) -> (String, bool) {
        let Some(bits) = number.as_f64().filter(|_| number.is_f64()).map(f64::to_bits) else {
            return (number.to_string(), true);
        };
        let written = self.written.get_or_init(|| {
            let mut written: HashMap<u64, Option<&'a str>> = HashMap::new();
            let text = std::str::from_utf8(self.text).unwrap_or_default();
            for text in numbers(text) {
                let Ok(parsed) = text.parse::<f64>() else { continue };
                let known = written.entry(parsed.to_bits()).or_insert(Some(text));
                *known = known.filter(|known| *known == text);
            }
            written
        });
        match written.get(&bits) {
            Some(Some(text)) => ((*text).to_owned(), true),
            _ => (number.to_string(), false),
        }
    }
}

/// A number as the document writes it: a parsed one may have lost digits.
#[must_use]
pub fn number_text(number: &serde_json::Number, document: &[u8]) -> String {
    let text = std::str::from_utf8(document).unwrap_or_default();
    let mut written = numbers(text).filter(|text| text.parse().ok() == number.as_f64());
    match written.next() {
        Some(text) if number.is_f64() => text.to_owned(),
        _ => number.to_string(),
    }
}

/// Whether a document is nested too deep for a server whose stack is smaller than that of the source.
#[must_use]
pub fn is_deep(text: &str) -> bool {
    if text.len() <= DEPTH_MAX {
        return false;
    }
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in Pieces(text.as_bytes()).filter(|piece| !piece.starts_with(b"\"")).flatten() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest > DEPTH_MAX
}

/// Whether `jsonb` takes a `json` value and keeps all of it: no escape that could be a NUL or half a surrogate pair, no number beyond its limits, no key twice, not too deep. Else it is kept as a string.
#[must_use]
pub fn is_safe_json(text: &str) -> bool {
    !text.contains("\\u")
        && numbers(text).all(is_safe_number)
        && serde_json::from_str::<UniqueKeys>(text).is_ok()
}

/// A document in which no object has a key twice.
struct UniqueKeys;

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueKeys)
    }
}

impl<'de> Visitor<'de> for UniqueKeys {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a document in which no object has a key twice")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            map.next_value::<Self>()?;
            if !keys.insert(key) {
                return Err(de::Error::custom("a key stands twice"));
            }
        }
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::{is_safe_json, number_text, redact};
    use proptest::prelude::*;

    #[test]
    fn what_jsonb_refuses_or_changes_is_not_safe() {
        for safe in [
            "null",
            r#"{"a": {"a": 1}, "b\n": [1.50, -1e300, "\"a\": 1e999", true]}"#,
            r#"[{"a": 1}, {"a": 2}]"#,
            " 0.1 ",
        ] {
            assert!(is_safe_json(safe), "{safe}");
        }
        let deep = "[".repeat(200) + &"]".repeat(200);
        let long = format!("0.{}1", "0".repeat(20_000));
        for unsafe_json in [
            r#"{"a": 1, "a": 2}"#,
            r#"[{"b": {"a": 1, "c": 2, "a": 1}}]"#,
            r#""\u0000""#,
            "1e400",
            "[1e-20000]",
            "-0",
            "{\"a\":-0.0}",
            "",
            "[1,]",
            &deep,
            &long,
        ] {
            assert!(!is_safe_json(unsafe_json), "{unsafe_json:.40}");
        }
    }

    #[test]
    fn strings_like_secrets_are_replaced_wherever_they_stand() {
        let document = br#"{"key": ["ghp_x\"y", "not ghp_x"], "eyJa": "\\"}"#;
        let (redacted, found) = redact(document);
        let expected = br#"{"key": ["[redacted]", "not ghp_x"], "[redacted]": "\\"}"#;
        assert_eq!((&*redacted, found), (&expected[..], true));
    }

    #[test]
    fn a_number_keeps_its_digits() {
        let document = br#"{"1.0": "2.0", "a": 12345678901234567890.125}"#;
        let value: serde_json::Value = serde_json::from_slice(document).unwrap();
        let serde_json::Value::Number(number) = &value["a"] else { panic!("not a number") };
        assert_eq!(number_text(number, document), "12345678901234567890.125");
    }

    proptest! {
        #[test]
        fn garbage_stays_as_it_is(bytes in proptest::collection::vec(prop::sample::select(b"\"\\a1e-{}:,".to_vec()), 0..40)) {
            let (redacted, found) = redact(&bytes);
            prop_assert!(!found && *redacted == bytes);
            if let Ok(text) = std::str::from_utf8(&bytes) {
                let is_json = serde_json::from_str::<serde_json::Value>(text).is_ok();
                prop_assert!(is_json || !is_safe_json(text));
            }
        }
    }
}
