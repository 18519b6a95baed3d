//! The asks as they are written.

use crate::translate::{
    mapping::{Mapping, RuleSpec},
    origin::origin,
};
use serde::Deserialize;

/// Why a file of asks cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}: {message}")]
pub struct AsksError {
    pub file: String,
    /// From 1.
    pub line: usize,
    pub message: String,
}

/// A file of asks.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asks {
    pub ask: Vec<Ask>,
}

/// One ask; `deploy/asks.toml` says what its keys mean.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    pub about: String,
    pub ask: String,
    #[serde(default)]
    pub types: Vec<String>,
    #[serde(default)]
    pub facts: Vec<String>,
    pub limit: Option<String>,
    pub never: Option<String>,
    pub judge: Option<Judge>,
    pub help: Option<String>,
}

/// What is not judged by event types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Judge {
    /// By who is named by each block and trigger.
    Caller,
    /// By the attempt trigger on each table.
    Attempts,
}

/// What a fact may be, beside `payload.KEY`.
const FACTS: [&str; 4] = ["target", "caller", "failure", "error_message"];

impl Asks {
    /// Reads a file of asks. `file` is only for the error.
    ///
    /// # Errors
    /// What is not understood, or an ask that asks nothing.
    pub fn parse(file: &str, text: &str) -> Result<Self, AsksError> {
        let fault = |line, message: String| AsksError { file: file.to_owned(), line, message };
        let asks: Self = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let line = text.get(..start).unwrap_or_default().matches('\n').count() + 1;
            fault(line, error.message().to_owned())
        })?;
        for ask in &asks.ask {
            let line = text.lines().position(|line| line.contains(&ask.ask)).map_or(1, |at| at + 1);
            if ask.types.is_empty() && ask.never.is_none() && ask.judge.is_none() {
                let message = format!("{:?} says neither types, never nor judge", ask.ask);
                return Err(fault(line, message));
            }
            let mut facts = ask.facts.iter().flat_map(|fact| fact.split('|'));
            let stranger =
                facts.find(|fact| !FACTS.contains(fact) && !fact.starts_with("payload."));
            if let Some(stranger) = stranger {
                let message = format!(
                    "{stranger:?} is no fact of an event: write payload.KEY or one of {}",
                    FACTS.join(", ")
                );
                return Err(fault(line, message));
            }
        }
        Ok(asks)
    }
}

/// Which of the spellings of a fact a rule tells, and on what that rests.
pub(super) fn origin_of(
    fact: &str,
    mapping: &Mapping,
    rule: &RuleSpec,
) -> Option<(String, String)> {
    fact.split('|').find_map(|fact| {
        let value = match fact {
            "failure" => {
                let columns: Vec<&str> =
                    rule.success.keys().map(|column| column.get_ref().as_str()).collect();
                let table = rule.table.get_ref();
                return (!columns.is_empty())
                    .then(|| (fact.to_owned(), format!("{table}.{}", columns.join(", "))));
            }
            "target" => rule.target.as_ref(),
            "caller" => rule.caller.as_ref(),
            "error_message" => rule.error_message.as_ref(),
            key => {
                let key = key.trim_start_matches("payload.");
                rule.payload.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
            }
        };
        value.map(|value| (fact.to_owned(), origin(mapping, rule, value)))
    })
}
