//! A fault of a mapping file: its place, what it is, and what was probably meant.

use std::fmt;

/// A fault of a mapping file, at its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}{}", Hint(.hint))]
pub struct MappingError {
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    pub message: String,
    /// What to do, or what was probably meant.
    pub hint: Option<String>,
}

struct Hint<'a>(&'a Option<String>);

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |hint| write!(f, "\n  {hint}"))
    }
}

/// All faults that were found, in the file's order; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappingErrors(pub Vec<MappingError>);

impl fmt::Display for MappingErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for MappingErrors {}

/// Below this likeness a word is not offered: a wrong offer is worse than none.
const LIKENESS_MIN: f64 = 0.8;
/// A list of more words than this is not a help.
const WORDS_MAX: usize = 24;

/// What was probably meant by `word`.
#[must_use]
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(likeness, _)| *likeness > LIKENESS_MIN)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, candidate)| format!("Did you mean {candidate:?}?"))
}

/// What was probably meant, else all that may stand there: `these` begins the sentence.
#[must_use]
pub fn meant_or_known(word: &str, these: &str, known: &[&str]) -> Option<String> {
    did_you_mean(word, known.iter().copied()).or_else(|| {
        (!known.is_empty() && known.len() <= WORDS_MAX)
            .then(|| format!("{these} {}.", known.join(", ")))
    })
}

/// serde's and toml's words as a message and a hint. They put words in backquotes, the wrong one first and then those that they know.
#[must_use]
pub(super) fn in_plain_words(message: &str) -> (String, Option<String>) {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let known = quoted.get(1..).unwrap_or_default();
    let word = quoted.first().copied().unwrap_or_default();
    if message.starts_with("unknown field") {
        return (format!("unknown key {word:?}"), meant_or_known(word, "The keys here are", known));
    }
    if message.starts_with("unknown variant") {
        let mut hint = did_you_mean(word, known.iter().copied()).unwrap_or_default();
        hint.push_str(if hint.is_empty() { "" } else { " " });
        hint.push_str(&format!("It is one of {}.", known.join(", ")));
        return (format!("unknown word {word:?}"), Some(hint));
    }
    if message.starts_with("missing field") {
        return (format!("the key {word:?} is missing"), None);
    }
    if let Some((found, expected)) =
        message.strip_prefix("invalid type: ").and_then(|rest| rest.split_once(", expected "))
    {
        let hint = (expected == "struct ConditionSpec").then(|| {
            format!(
                "Write {{ is = {} }}.",
                found.rsplit(' ').next().unwrap_or(found).replace('`', "")
            )
        });
        let expected = match expected {
            "a sequence" => "a list in brackets",
            "a map" => "a table in braces",
            other if other.starts_with("struct ") => "a table in braces",
            other => other,
        };
        return (format!("expected {expected}, and found {}", found.replace('`', "")), hint);
    }
    match message.split_once('\n') {
        Some((message, hint)) => {
            // A hint of ours is a sentence; toml says what it expected, in the middle of one.
            let hint = hint.trim().replace('`', "");
            let mut letters = hint.chars();
            let hint = letters.next().map(|first| first.to_uppercase().chain(letters).collect());
            (
                message.to_owned(),
                hint.map(|hint: String| hint.trim_end_matches('.').to_owned() + "."),
            )
        }
        None => (message.trim_end().to_owned(), None),
    }
}
