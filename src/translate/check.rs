//! What can be checked of a mapping without a database.

use super::{
    mapping::{ConditionSpec, Mapping, MappingError, OperationWord, RuleSpec, did_you_mean},
    value::{Name, ValueSpec},
};
use std::{collections::HashMap, ops::Range};
use toml::Spanned;

/// The one key of a payload that is ours: how we know.
const RESERVED_KEY: &str = "_audit";

/// Words of a column's name that no mapping may copy into an event, whatever its owner thinks of it.
const DENIED_WORDS: &[&str] = &[
    "apikey",
    "cookie",
    "credential",
    "credentials",
    "csrf",
    "hash",
    "hmac",
    "key_material",
    "otp",
    "passwd",
    "password",
    "passphrase",
    "pwd",
    "salt",
    "secret",
    "secrets",
    "signature",
    "token",
    "totp",
    "webauthn",
];
/// The same for words that are harmless alone.
const DENIED_PAIRS: &[(&str, &str)] = &[("api", "key"), ("private", "key"), ("recovery", "code")];

/// Whether a column's name smells of a secret.
#[must_use]
pub fn is_denied(column: &str) -> bool {
    let lower = column.to_lowercase();
    let words: Vec<&str> = lower.split(|letter: char| !letter.is_ascii_alphanumeric()).collect();
    let pairs = words.iter().zip(words.iter().skip(1));
    words.iter().any(|word| DENIED_WORDS.contains(word))
        || pairs.into_iter().any(|(one, two)| DENIED_PAIRS.contains(&(one, two)))
}

/// All faults, in the file's order.
pub fn check(mapping: &Mapping) -> Vec<MappingError> {
    let mut checker = Checker { mapping, errors: Vec::new() };
    for (_, names) in &mapping.names {
        checker.table(&names.table);
        checker.denied(&names.name, names.name.span());
    }
    let mut first: HashMap<&str, &RuleSpec> = HashMap::new();
    for rule in &mapping.rules {
        checker.rule(rule);
        let same = first.entry(rule.event_type.get_ref()).or_insert(rule);
        if same.describe.get_ref() != rule.describe.get_ref()
            || same.retention.get_ref() != rule.retention.get_ref()
        {
            checker.error(
                rule.event_type.span(),
                format!("event type {:?} is described in two ways", rule.event_type.get_ref()),
                "Give all blocks of a type the same describe and retention.",
            );
        }
    }
    checker.errors
}

struct Checker<'a> {
    mapping: &'a Mapping,
    errors: Vec<MappingError>,
}

impl Checker<'_> {
    fn error<'h>(&mut self, span: Range<usize>, message: String, hint: impl Into<Option<&'h str>>) {
        let hint = hint.into().map(str::to_owned);
        self.errors.push(self.mapping.error(span, message, hint));
    }

    fn rule(&mut self, rule: &RuleSpec) {
        self.word(&rule.event_type);
        self.word(&rule.subject_type);
        self.table(&rule.table);
        self.conditions(rule);
        self.value(rule, &rule.subject, Place::Text);
        if let Some(target) = &rule.target {
            self.value(rule, target, Place::Text);
        }
        if let Some(message) = &rule.error_message {
            self.value(rule, message, Place::Text);
        }
        if let Some(caller) = &rule.caller {
            self.value(rule, caller, Place::Caller);
        }
        for (key, value) in &rule.payload {
            self.value(rule, value, Place::Payload);
            if key.get_ref() == RESERVED_KEY {
                self.error(
                    key.span(),
                    format!("payload key {RESERVED_KEY:?} is ours"),
                    "Choose another key.",
                );
            }
        }
        self.placeholders(rule);
        if let Some(backfill) =
            rule.backfill.as_ref().filter(|_| !rule.takes(OperationWord::Insert))
        {
            self.error(
                backfill.span(),
                "\"backfill\" makes events of rows that exist, but this rule takes no insert"
                    .into(),
                "Remove it, or add \"insert\" to \"on\".",
            );
        }
    }

    /// Lower-case words with underscores, so that they can be typed in a query.
    fn word(&mut self, word: &Name) {
        let text = word.get_ref();
        let sound = text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.chars().all(|letter| {
                letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_'
            });
        if !sound {
            self.error(
                word.span(),
                format!("{text:?} is not lower-case words with underscores"),
                "Write it like org_member_added.",
            );
        }
    }

    fn table(&mut self, table: &Name) {
        let parts: Vec<&str> = table.get_ref().split('.').collect();
        if parts.len() != 2 || parts.iter().any(|part| part.is_empty()) {
            self.error(
                table.span(),
                format!("table {:?} is not of the form schema.table", table.get_ref()),
                "Write the schema too, for example public.users.",
            );
        }
    }

    fn conditions(&mut self, rule: &RuleSpec) {
        let takes_update = rule.takes(OperationWord::Update);
        let becomes_is_enough = rule.takes(OperationWord::Insert);
        for (column, condition) in rule.when.iter().chain(&rule.success) {
            let ConditionSpec { is, not, r#in, becomes, leaves, was, changes, null } = condition;
            let reads_old = leaves.is_some() || was.is_some() || changes.is_some();
            let becomes = becomes.is_some();
            if is.is_none()
                && not.is_none()
                && r#in.is_none()
                && null.is_none()
                && !reads_old
                && !becomes
            {
                self.error(
                    column.span(),
                    format!("the condition on {:?} says nothing", column.get_ref()),
                    "Say is, not, in, becomes, leaves, was, changes or null.",
                );
            }
            if (reads_old && !takes_update) || (becomes && !takes_update && !becomes_is_enough) {
                self.error(
                    column.span(),
                    format!("the condition on {:?} compares an UPDATE's two rows, but the rule takes no update", column.get_ref()),
                    "For a deleted row say is or in.",
                );
            }
        }
        if let Some(column) = rule.changed.first().filter(|_| !takes_update) {
            self.error(
                column.span(),
                "\"changed\" is about an UPDATE, but the rule takes no update".into(),
                "Add \"update\" to \"on\".",
            );
        }
    }

    fn value(&mut self, rule: &RuleSpec, value: &Spanned<ValueSpec>, place: Place) {
        let span = value.span();
        match value.get_ref() {
            ValueSpec::Column { column, .. } | ValueSpec::Path { column, .. } => {
                self.denied(column, span.clone());
            }
            ValueSpec::Label { column, labels, .. } => {
                self.denied(column, span.clone());
                if let Some(labels) = labels.as_ref() {
                    let known = self.mapping.labels.keys().map(String::as_str);
                    self.known("labels", labels, known.collect());
                }
            }
            ValueSpec::Lookup { names, .. } => {
                let known = self.mapping.names.iter().map(|(name, _)| name.as_str());
                self.known("names", names, known.collect());
            }
            ValueSpec::Rows(rows) | ValueSpec::Row(rows) => {
                self.denied(&rows.column, span.clone());
                self.table(&rows.table);
            }
            ValueSpec::Changed(_) | ValueSpec::Constant(_) => {}
        }
        self.value_place(rule, value.get_ref(), span, place);
    }

    fn value_place(
        &mut self,
        rule: &RuleSpec,
        value: &ValueSpec,
        span: Range<usize>,
        place: Place,
    ) {
        let is_list = match value {
            ValueSpec::Rows(_) | ValueSpec::Changed(_) => true,
            ValueSpec::Path { list, .. } => *list,
            _ => false,
        };
        if is_list && place != Place::Payload {
            self.error(span, "a list can stand in the payload only".into(), None);
        } else if matches!(value, ValueSpec::Row(_)) && place != Place::Caller {
            self.error(
                span,
                "{ row = … } can stand for the caller only".into(),
                "Use { rows = … }, a list, in the payload.",
            );
        } else if place == Place::Caller
            && rule.takes(OperationWord::Delete)
            && !matches!(value, ValueSpec::Row(_))
        {
            self.error(
                span,
                "a deleted row cannot say who deleted it".into(),
                "Remove \"caller\", or give the deletion a rule of its own.",
            );
        }
    }

    fn known(&mut self, kind: &str, word: &Name, known: Vec<&str>) {
        if !known.contains(&word.get_ref().as_str()) {
            let hint = did_you_mean(word.get_ref(), known);
            let message = format!("there is no [{kind}.{}] in this mapping", word.get_ref());
            self.error(word.span(), message, hint.as_deref());
        }
    }

    fn denied(&mut self, column: &Name, value: Range<usize>) {
        if is_denied(column.get_ref()) {
            let span = if column.span().is_empty() { value } else { column.span() };
            self.error(
                span,
                format!(
                    "column {:?} is on the deny list: its name is a secret's",
                    column.get_ref()
                ),
                "Leave it out of the mapping and of the publication.",
            );
        }
    }

    /// `{caller}` and its kin in the sentence must name something that the event has.
    fn placeholders(&mut self, rule: &RuleSpec) {
        let sentence = rule.describe.get_ref();
        for placeholder in sentence.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
            let payload = rule.payload.keys().map(|key| format!("payload.{}", key.get_ref()));
            let fixed =
                ["caller", "subject", "subject_type", "target", "error_message", "timestamp"];
            let known: Vec<String> = fixed.map(str::to_owned).into_iter().chain(payload).collect();
            if !known.iter().any(|candidate| candidate == placeholder) {
                let hint = did_you_mean(placeholder, known.iter().map(String::as_str));
                let message = format!("the event has no {placeholder:?} for its sentence");
                self.error(rule.describe.span(), message, hint.as_deref());
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Subject, target or error message.
    Text,
    Caller,
    Payload,
}
