//! The mapping file: its types, and what can be checked of it without a database.
//!
//! A mapping is TOML: `[[event]]` blocks (rules), `[names.X]` tables that turn keys into names, `[labels.X]` tables that turn codes into labels. `deploy/mapping/merge-reference.toml` shows every form. Every fault is told with file, line and column, and with what was probably meant.

use super::value::{Name, RowsSpec, Scalar, ValueSpec};
use serde::Deserialize;
use std::{collections::BTreeMap, fmt, ops::Range, sync::Arc};
use toml::Spanned;

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

/// A mapping that was read and is sound in itself; tables and columns are checked when a rule is compiled against its relation.
#[derive(Debug, Clone)]
pub struct Mapping {
    source: Arc<SourceText>,
    pub names: Vec<(String, NamesSpec)>,
    pub labels: BTreeMap<String, BTreeMap<String, String>>,
    pub rules: Vec<RuleSpec>,
}

#[derive(Debug)]
struct SourceText {
    file: String,
    text: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    names: BTreeMap<String, NamesSpec>,
    #[serde(default)]
    labels: BTreeMap<String, BTreeMap<String, String>>,
    #[serde(default)]
    event: Vec<RuleSpec>,
}

/// A table whose rows give names to keys.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamesSpec {
    pub table: Name,
    pub key: Name,
    pub name: Name,
}

/// One `[[event]]` block.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSpec {
    /// The event type, `<subject>_<past participle>`; stable, never used again for something else.
    #[serde(rename = "type")]
    pub event_type: Name,
    /// `schema.table`.
    pub table: Name,
    /// Which operations; INSERT and UPDATE if not said.
    pub on: Option<Operations>,
    /// Conditions on columns, all of which must hold.
    #[serde(default)]
    pub when: BTreeMap<Name, ConditionSpec>,
    /// An UPDATE must have changed at least one of these columns.
    #[serde(default)]
    pub changed: Vec<Name>,
    pub subject: Spanned<ValueSpec>,
    pub subject_type: Name,
    pub target: Option<Spanned<ValueSpec>>,
    /// Conditions under which the event succeeded; without any it did.
    #[serde(default)]
    pub success: BTreeMap<Name, ConditionSpec>,
    pub error_message: Option<Spanned<ValueSpec>>,
    pub caller: Option<Spanned<ValueSpec>>,
    #[serde(default)]
    pub payload: BTreeMap<Name, Spanned<ValueSpec>>,
    /// The sentence for people, with `{placeholders}` that are filled when it is shown.
    pub describe: Name,
    /// Who may see it.
    #[serde(default)]
    pub visible_to: Vec<Name>,
    pub retention: Spanned<Retention>,
    /// The column with the row's creation time, for events of rows that are older than the slot.
    pub backfill: Option<Name>,
}

/// How long events of a type are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Retention {
    /// For ever.
    Project,
    /// For a limited time.
    User,
}

impl Retention {
    /// Its word in the mapping and in `portal_audit.event_types`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Project => "project",
            Self::User => "user",
        }
    }
}

/// One operation or a list.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Operations {
    One(OperationWord),
    Many(Vec<OperationWord>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OperationWord {
    Insert,
    Update,
    Delete,
}

/// One value or a list.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Scalars {
    One(Scalar),
    Many(Vec<Scalar>),
}

impl Scalars {
    /// The values in PostgreSQL's text form.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        match self {
            Self::One(scalar) => vec![scalar.text()],
            Self::Many(scalars) => scalars.iter().map(Scalar::text).collect(),
        }
    }
}

/// What must hold of one column; every key that is given counts.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConditionSpec {
    /// The value is this.
    pub is: Option<Scalar>,
    /// The value is not this (NULL is not it either).
    pub not: Option<Scalar>,
    /// The value is one of these.
    pub r#in: Option<Vec<Scalar>>,
    /// An INSERT with one of these values, or an UPDATE to it from another.
    pub becomes: Option<Scalars>,
    /// An UPDATE from one of these values to another.
    pub leaves: Option<Scalars>,
    /// An UPDATE of a row that had one of these values.
    pub was: Option<Scalars>,
    /// An UPDATE that changed the value, or did not.
    pub changes: Option<bool>,
    /// The value is NULL, or is not.
    pub null: Option<bool>,
}

impl RuleSpec {
    /// Whether the rule takes an operation.
    #[must_use]
    pub fn takes(&self, operation: OperationWord) -> bool {
        match &self.on {
            None => operation != OperationWord::Delete,
            Some(Operations::One(one)) => *one == operation,
            Some(Operations::Many(many)) => many.contains(&operation),
        }
    }
}

impl Mapping {
    /// Reads a mapping. `file` is only for error messages.
    ///
    /// # Errors
    /// Every fault that can be found without a database.
    pub fn parse(file: &str, text: &str) -> Result<Self, MappingErrors> {
        let source = Arc::new(SourceText { file: file.into(), text: text.into() });
        let parsed: File = toml::from_str(text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            let message = error.message().trim_end().to_owned();
            let hint = unknown_word_hint(&message);
            MappingErrors(vec![source.error(span, message, hint)])
        })?;
        let names = parsed.names.into_iter().collect();
        let mapping = Self { source, names, labels: parsed.labels, rules: parsed.event };
        let errors = super::check::check(&mapping);
        if errors.is_empty() { Ok(mapping) } else { Err(MappingErrors(errors)) }
    }

    /// A fault at a place of this file.
    #[must_use]
    pub fn error(&self, span: Range<usize>, message: String, hint: Option<String>) -> MappingError {
        self.source.error(span, message, hint)
    }

    /// Position of a names table.
    #[must_use]
    pub fn names_position(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|(candidate, _)| candidate == name)
    }

    /// Every list of rows that rules collect or look for in a transaction, in the order of the rules. Two rules that ask for the same rows have two places.
    pub fn rows_specs(&self) -> impl Iterator<Item = &RowsSpec> {
        self.rules.iter().flat_map(RuleSpec::values).filter_map(|value| match value.get_ref() {
            ValueSpec::Rows(rows) | ValueSpec::Row(rows) => Some(rows),
            _ => None,
        })
    }

    /// Every table that the mapping reads, once, in alphabetical order.
    #[must_use]
    pub fn tables(&self) -> Vec<&str> {
        let rules = self.rules.iter().map(|rule| rule.table.as_ref().as_str());
        let names = self.names.iter().map(|(_, names)| names.table.as_ref().as_str());
        let rows = self.rows_specs().map(|rows| rows.table.as_ref().as_str());
        let mut tables: Vec<&str> = rules.chain(names).chain(rows).collect();
        tables.sort_unstable();
        tables.dedup();
        tables
    }
}

impl RuleSpec {
    /// Every value of the rule, in a fixed order: subject, target, error message, caller, payload.
    pub fn values(&self) -> impl Iterator<Item = &Spanned<ValueSpec>> {
        std::iter::once(&self.subject)
            .chain(&self.target)
            .chain(&self.error_message)
            .chain(&self.caller)
            .chain(self.payload.values())
    }
}

impl SourceText {
    fn error(&self, span: Range<usize>, message: String, hint: Option<String>) -> MappingError {
        let before = self.text.get(..span.start).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |position| position + 1);
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        let line = before.matches('\n').count() + 1;
        MappingError { file: self.file.clone(), line, column, message, hint }
    }
}

/// What was probably meant by `word`.
#[must_use]
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(similarity, _)| *similarity > 0.7)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, candidate)| format!("did you mean {candidate:?}?"))
}

/// serde names the unknown word and those it knows, in backquotes; the nearest of them was probably meant.
fn unknown_word_hint(message: &str) -> Option<String> {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let word = quoted.next().filter(|_| message.starts_with("unknown "))?;
    did_you_mean(word, quoted)
}
