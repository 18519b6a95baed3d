//! The mapping file: its types, and what can be checked of it without a database.
//!
//! A mapping is TOML: `[[event]]` blocks (rules), `[names.X]` tables that turn keys into names, `[labels.X]` tables that turn codes into labels, `[[context]]` blocks that say where other programs' messages name the caller, and `[attempts]`, the words for tables with the attempt trigger. `deploy/mapping/merge-reference.toml` shows every form. Every fault is told with file, line and column, and with what was probably meant.

mod fault;
mod text;

use super::{
    context::ContextSpec,
    example::Examples,
    kratos::{self, spec::KratosSpec},
    value::{Columns, Name, OneOrMore, RowsSpec, Scalar, TextOr, ValueSpec},
};
use crate::tuple::Operation;
pub use fault::{MappingError, MappingErrors, did_you_mean, meant_or_known};
use serde::{Deserialize, Deserializer, de};
use std::{collections::BTreeMap, ops::Range, sync::Arc};
use toml::Spanned;

/// A mapping that was read and is sound in itself; tables and columns are checked when a rule is compiled against its relation.
#[derive(Debug, Clone)]
pub struct Mapping {
    source: Arc<SourceText>,
    pub names: Vec<(String, NamesSpec)>,
    pub labels: BTreeMap<String, BTreeMap<String, String>>,
    pub rules: Vec<RuleSpec>,
    pub ignores: Vec<IgnoreSpec>,
    pub cascades: Vec<CascadeSpec>,
    pub remember: Vec<(Name, Vec<Name>)>,
    pub moved: Vec<(Name, Vec<Name>)>,
    /// `[[context]]` blocks.
    pub contexts: Vec<ContextSpec>,
    /// `[attempts]`: qualified table → the word for its rows in the event types of failed attempts.
    pub attempts: BTreeMap<Name, Name>,
    /// The tables of Ory Kratos, which are translated by hand.
    pub kratos: Option<KratosSpec>,
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
    #[serde(default)]
    ignore: Vec<IgnoreSpec>,
    #[serde(default)]
    cascade: Vec<CascadeSpec>,
    #[serde(default)]
    remember: BTreeMap<Name, Vec<Name>>,
    #[serde(default)]
    moved: BTreeMap<Name, Vec<Name>>,
    #[serde(default)]
    context: Vec<ContextSpec>,
    #[serde(default)]
    attempts: BTreeMap<Name, Name>,
    kratos: Option<KratosSpec>,
}

/// A table whose rows give names to keys.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamesSpec {
    pub table: Name,
    pub key: Columns,
    pub name: Spanned<ValueSpec>,
}

/// An `[[ignore]]` block: changes that are no event, and why.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IgnoreSpec {
    pub table: Name,
    pub on: Option<Spanned<OneOrMore<OperationWord>>>,
    #[serde(default)]
    pub when: BTreeMap<Name, ConditionSpec>,
    #[serde(default)]
    pub changed: Vec<Name>,
    pub because: Name,
}

/// A `[[cascade]]` block: rows of `child` belong to a row of `parent` and go with it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CascadeSpec {
    pub parent: Name,
    pub child: Name,
    /// Column of the child → column of the parent.
    pub key: BTreeMap<Name, Name>,
    /// Only such children, by conditions on columns of the child.
    #[serde(default)]
    pub when: BTreeMap<Name, ConditionSpec>,
}

/// Which rows of another table, if the transaction changed one, speak for this row too.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnlessSpec {
    row: Name,
    key: BTreeMap<Name, Name>,
    #[serde(default)]
    when: BTreeMap<Name, ConditionSpec>,
    on: Option<OneOrMore<OperationWord>>,
}

/// `each = "column"`, or `{ column = "…", key = "…" }`.
#[derive(Debug, Clone)]
pub struct EachSpec {
    pub column: Name,
    /// For a list of objects: the member by which an entry is known again.
    pub key: Option<String>,
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
    /// Which operations; if not said INSERT and UPDATE, or UPDATE alone beside `changed`.
    pub on: Option<Spanned<OneOrMore<OperationWord>>>,
    /// Conditions on columns, all of which must hold.
    #[serde(default)]
    pub when: BTreeMap<Name, ConditionSpec>,
    /// An UPDATE must have changed at least one of these columns.
    #[serde(default)]
    pub changed: Vec<Name>,
    /// The rule takes not rows but the entries of a JSON map or a list in this column, old against new.
    pub each: Option<EachSpec>,
    /// Of rows that agree in these columns, only the first of a transaction gives an event.
    pub once_per: Option<Columns>,
    /// No event if the transaction also changed such a row.
    #[serde(default, deserialize_with = "unless")]
    pub unless: Option<RowsSpec>,
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
    /// What it must make of rows by example.
    #[serde(default)]
    pub example: Examples,
}

/// Only whether there is such a row counts, so any column of it will do.
fn unless<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<RowsSpec>, D::Error> {
    let UnlessSpec { row, key, when, on } = UnlessSpec::deserialize(deserializer)?;
    let column = key.keys().next().cloned().ok_or_else(|| {
        de::Error::custom(
            "\"unless\" needs \"key\"\nWrite key = { its_column = \"column of this row\" }.",
        )
    })?;
    let on = on.map(|on| on.0).unwrap_or_default();
    Ok(Some(RowsSpec { table: row, on, key, when, column }))
}

/// How long events of a type are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

impl<'de> Deserialize<'de> for Retention {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        let all = [Self::Project, Self::User];
        let found = all.into_iter().find(|retention| retention.name() == word);
        found.ok_or_else(|| de::Error::unknown_variant(&word, &["project", "user"]))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationWord {
    Insert,
    Update,
    Delete,
}

impl From<OperationWord> for Operation {
    fn from(word: OperationWord) -> Self {
        match word {
            OperationWord::Insert => Self::Insert,
            OperationWord::Update => Self::Update,
            OperationWord::Delete => Self::Delete,
        }
    }
}

impl<'de> Deserialize<'de> for EachSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            column: Name,
            key: Option<String>,
        }
        let each = Spanned::<TextOr<Table>>::deserialize(deserializer)?;
        let span = each.span();
        Ok(match each.into_inner() {
            TextOr::Text(column) => Self { column: Spanned::new(span, column), key: None },
            TextOr::Table(Table { column, key }) => Self { column, key },
        })
    }
}

impl<'de> Deserialize<'de> for OperationWord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "insert" => Ok(Self::Insert),
            "update" => Ok(Self::Update),
            "delete" => Ok(Self::Delete),
            other => Err(de::Error::unknown_variant(other, &["insert", "update", "delete"])),
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
    pub r#in: Option<OneOrMore<Scalar>>,
    /// An INSERT with one of these values, or an UPDATE to it from another.
    pub becomes: Option<OneOrMore<Scalar>>,
    /// An UPDATE from one of these values to another.
    pub leaves: Option<OneOrMore<Scalar>>,
    /// An UPDATE of a row that had one of these values.
    pub was: Option<OneOrMore<Scalar>>,
    /// An UPDATE that changed the value, or did not.
    pub changes: Option<bool>,
    /// The value is NULL, or is not.
    pub null: Option<bool>,
    /// The value is a time up to the commit, or is not.
    pub past: Option<bool>,
}

/// Which operations a block takes: if it does not say, INSERT and UPDATE, or UPDATE alone beside `changed`.
fn takes(
    on: Option<&Spanned<OneOrMore<OperationWord>>>,
    changed: &[Name],
    operation: OperationWord,
) -> bool {
    match on {
        None if !changed.is_empty() => operation == OperationWord::Update,
        None => operation != OperationWord::Delete,
        Some(operations) => operations.get_ref().0.contains(&operation),
    }
}

impl NamesSpec {
    /// Whether its names are lists.
    #[must_use]
    pub fn is_list(&self) -> bool {
        matches!(self.name.get_ref(), ValueSpec::Path { list: true, .. })
    }
}

impl IgnoreSpec {
    /// Whether the block takes an operation.
    #[must_use]
    pub fn takes(&self, operation: OperationWord) -> bool {
        takes(self.on.as_ref(), &self.changed, operation)
    }
}

impl RuleSpec {
    /// Whether the rule takes an operation.
    #[must_use]
    pub fn takes(&self, operation: OperationWord) -> bool {
        takes(self.on.as_ref(), &self.changed, operation)
    }

    /// Every set of rows that the rule asks the transaction for, in a fixed order.
    pub fn rows_specs(&self) -> impl Iterator<Item = &RowsSpec> {
        let values = self.values().filter_map(|value| match value.get_ref() {
            ValueSpec::Rows(rows) | ValueSpec::Row(rows) => Some(rows),
            _ => None,
        });
        values.chain(&self.unless)
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
            let (message, hint) = fault::in_plain_words(error.message());
            let hint = hint.or_else(|| missing_key_hint(&source.text, &span, &message));
            MappingErrors(vec![source.error(span, message, hint)])
        })?;
        let names = parsed.names.into_iter().collect();
        let mapping = Self {
            source,
            names,
            labels: parsed.labels,
            rules: parsed.event,
            ignores: parsed.ignore,
            cascades: parsed.cascade,
            remember: parsed.remember.into_iter().collect(),
            kratos: parsed.kratos,
            contexts: parsed.context,
            attempts: parsed.attempts,
            moved: parsed.moved.into_iter().collect(),
        };
        let errors = super::check::check(&mapping);
        if errors.is_empty() { Ok(mapping) } else { Err(MappingErrors(errors)) }
    }

    /// A fault at a place of this file.
    #[must_use]
    pub fn error(&self, span: Range<usize>, message: String, hint: Option<String>) -> MappingError {
        self.source.error(span, message, hint)
    }

    /// The first place of a word within a part of the file; the whole part if it is spelled otherwise there.
    #[must_use]
    pub fn place_within(&self, part: Range<usize>, word: &str) -> Range<usize> {
        let found = self.source.text.get(part.clone()).and_then(|text| text.find(word));
        found.map_or(part.clone(), |at| part.start + at..part.start + at + word.len())
    }

    /// The line of a place, from 1.
    #[must_use]
    pub fn line(&self, span: Range<usize>) -> usize {
        self.source.error(span, String::new(), None).line
    }

    /// Position of a names table.
    #[must_use]
    pub fn names_position(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|(candidate, _)| candidate == name)
    }

    /// What is kept of a source in `portal_audit.names`, as the audit database calls it: the names tables, then the remembered rows, then what Kratos' translator knows. A place in it is a [`NameKey::names`](super::names::NameKey::names).
    #[must_use]
    pub fn entities(&self) -> Vec<String> {
        let names = self.names.iter().map(|(name, _)| name.clone());
        let rows = self.remember.iter().map(|(table, _)| format!("row.{}", table.get_ref()));
        let kratos = self.kratos.iter().flat_map(|_| kratos::ENTITIES).map(str::to_owned);
        names.chain(rows).chain(kratos).collect()
    }

    /// Those of [`Mapping::entities`] that say how a row is, not what it was called: they mislead after changes were lost.
    #[must_use]
    pub fn states(&self) -> Vec<String> {
        let rows = self.remember.iter().map(|(table, _)| format!("row.{}", table.get_ref()));
        let kratos = self.kratos.iter().flat_map(|_| kratos::VOLATILE).copied();
        rows.chain(kratos.map(str::to_owned)).chain([super::infer::WHOLE.to_owned()]).collect()
    }

    /// Where the kinds of Kratos' translator begin among them.
    #[must_use]
    pub fn kratos_base(&self) -> usize {
        self.names.len() + self.remember.len()
    }

    /// Every event type with its sentence, who may see it and how long it is kept.
    pub fn declared(&self) -> impl Iterator<Item = (&Name, &Name, &[Name], Retention)> {
        let rules = self.rules.iter().map(|rule| {
            (
                &rule.event_type,
                &rule.describe,
                rule.visible_to.as_slice(),
                *rule.retention.get_ref(),
            )
        });
        let kratos = self.kratos.iter().flat_map(|kratos| &kratos.event).map(|declared| {
            let visible_to = declared.visible_to.as_slice();
            (&declared.event_type, &declared.describe, visible_to, *declared.retention.get_ref())
        });
        rules.chain(kratos)
    }

    /// The columns of a table that are remembered of each row, because its replica identity does not carry their old values, and the number of their kind.
    #[must_use]
    pub fn remembered(&self, table: &str) -> Option<(usize, &[Name])> {
        let position = self.remember.iter().position(|(name, _)| name.get_ref() == table)?;
        let (_, columns) = self.remember.get(position)?;
        Some((self.names.len() + position, columns))
    }

    /// Every set of rows that rules collect or look for in a transaction, in the order of the rules. Two rules that ask for the same rows have two places.
    pub fn rows_specs(&self) -> impl Iterator<Item = &RowsSpec> {
        self.rules.iter().flat_map(RuleSpec::rows_specs)
    }

    /// Every name of a table in the mapping.
    pub fn table_names(&self) -> impl Iterator<Item = &Name> {
        let rules = self.rules.iter().map(|rule| &rule.table);
        let names = self.names.iter().map(|(_, names)| &names.table);
        let rows = self.rows_specs().map(|rows| &rows.table);
        let cascades = self.cascades.iter().flat_map(|cascade| [&cascade.parent, &cascade.child]);
        let ignores = self.ignores.iter().map(|ignore| &ignore.table);
        let remembered = self.remember.iter().chain(&self.moved).map(|(table, _)| table);
        rules.chain(names).chain(rows).chain(cascades).chain(ignores).chain(remembered)
    }

    /// Every table that the mapping reads, once, in alphabetical order.
    #[must_use]
    pub fn tables(&self) -> Vec<String> {
        let given = self.table_names().map(|name| name.get_ref().clone());
        let kratos = self.kratos.iter().flat_map(|kratos| kratos.tables().map(|(name, _)| name));
        let mut tables: Vec<String> = given.chain(kratos).collect();
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

/// What a block must hold, for who left a part of it out. The place of such a fault is the block's header.
fn missing_key_hint(text: &str, span: &Range<usize>, message: &str) -> Option<String> {
    let block = text.get(span.clone()).filter(|_| message.ends_with("is missing"))?;
    let hint = if block.starts_with("[[event]]") {
        "An [[event]] block has at least type, table, subject, subject_type, describe and retention."
    } else if block.starts_with("[[ignore]]") {
        "An [[ignore]] block says which table, and because of what its changes are no event."
    } else if block.starts_with("[[cascade]]") {
        "A [[cascade]] block has parent, child and key."
    } else if block.starts_with("[[context]]") {
        "A [[context]] block has at least prefix."
    } else {
        "A [names.X] table has table, key and name."
    };
    Some(hint.to_owned())
}
