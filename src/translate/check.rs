//! What can be checked of a mapping without a database.

use super::{
    deny::{in_words, is_denied},
    mapping::{ConditionSpec, Mapping, MappingError, OperationWord, RuleSpec, meant_or_known},
    value::{Name, ValueSpec},
};
use std::{collections::HashMap, ops::Range};
use toml::Spanned;

/// The one key of a payload that is ours: how we know.
const RESERVED_KEY: &str = "_audit";

/// All faults, in the file's order.
pub fn check(mapping: &Mapping) -> Vec<MappingError> {
    let mut checker = Checker { mapping, errors: Vec::new() };
    for (_, names) in &mapping.names {
        checker.table(&names.table);
        checker.denied(&names.key);
        checker.denied(&names.name);
    }
    let mut first: HashMap<&str, &RuleSpec> = HashMap::new();
    for rule in &mapping.rules {
        checker.rule(rule);
        let same = first.entry(rule.event_type.get_ref()).or_insert(rule);
        checker.described_alike(same, rule);
    }
    checker.errors.extend(mapping.kratos.iter().flat_map(|kratos| kratos.check(mapping)));
    checker.errors.sort_by_key(|error| (error.line, error.column));
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
        if let Some(on) = rule.on.as_ref().filter(|on| on.get_ref().0.is_empty()) {
            self.error(
                on.span(),
                "a rule that takes no operation gives no event".into(),
                "Say \"insert\", \"update\" or \"delete\".",
            );
        }
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
                    format!("the payload's key {RESERVED_KEY:?} is reserved"),
                    "There the event says how it is known. Choose another key.",
                );
            }
        }
        self.placeholders(rule);
        if let Some(backfill) = &rule.backfill {
            self.denied(backfill);
            if !rule.takes(OperationWord::Insert) {
                self.error(
                    backfill.span(),
                    "\"backfill\" makes events of rows that exist, but this rule takes no insert"
                        .into(),
                    "Remove it, or add \"insert\" to \"on\".",
                );
            }
        }
    }

    /// One sentence, one retention and one audience per type: they are stored per type, and the last block would win in silence.
    fn described_alike(&mut self, first: &RuleSpec, rule: &RuleSpec) {
        let differs = if first.describe.get_ref() != rule.describe.get_ref() {
            Some(("describe", rule.describe.span()))
        } else if first.retention.get_ref() != rule.retention.get_ref() {
            Some(("retention", rule.retention.span()))
        } else if first.visible_to != rule.visible_to {
            let place = rule.visible_to.first().unwrap_or(&rule.event_type);
            Some(("visible_to", place.span()))
        } else {
            None
        };
        if let Some((key, span)) = differs {
            let line = self.mapping.line(first.event_type.span());
            let event_type = rule.event_type.get_ref();
            self.error(
                span,
                format!("event type {event_type:?} is described in two ways: the block of line {line} has another {key:?}"),
                "All blocks of a type share describe, retention and visible_to.",
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
            let words = in_words(text).replace(|letter: char| !letter.is_ascii_alphanumeric(), "_");
            let meant = format!("Did you mean {:?}?", words.trim_matches('_'));
            self.error(
                word.span(),
                format!("{text:?} is not lower-case words with underscores"),
                meant.as_str(),
            );
        }
    }

    fn table(&mut self, table: &Name) {
        let parts: Vec<&str> = table.get_ref().split('.').collect();
        if parts.len() != 2 || parts.iter().any(|part| part.is_empty()) {
            let name = parts.last().copied().filter(|part| !part.is_empty()).unwrap_or("users");
            self.error(
                table.span(),
                format!("table {:?} is not of the form schema.table", table.get_ref()),
                format!("Write the schema too, for example \"public.{name}\".").as_str(),
            );
        }
    }

    fn conditions(&mut self, rule: &RuleSpec) {
        let takes_update = rule.takes(OperationWord::Update);
        for (column, condition) in rule.when.iter().chain(&rule.success) {
            self.denied(column);
            let ConditionSpec { is, not, r#in, becomes, leaves, was, changes, null } = condition;
            let lists = [r#in, becomes, leaves, was];
            let name = column.get_ref();
            if lists.iter().all(|list| list.is_none())
                && is.is_none()
                && not.is_none()
                && null.is_none()
                && changes.is_none()
            {
                self.error(
                    column.span(),
                    format!("the condition on {name:?} says nothing"),
                    "Say is, not, in, becomes, leaves, was, changes or null.",
                );
            }
            if lists.into_iter().flatten().any(|list| list.0.is_empty()) {
                self.error(
                    column.span(),
                    format!("the condition on {name:?} has an empty list, so it never holds"),
                    "Name at least one value.",
                );
            }
            let word = [
                ("leaves", leaves.is_some() && !takes_update),
                ("was", was.is_some() && !takes_update),
                ("changes", changes.is_some() && !takes_update),
                (
                    "becomes",
                    becomes.is_some() && !takes_update && !rule.takes(OperationWord::Insert),
                ),
            ];
            if let Some((word, _)) = word.iter().find(|(_, is_wrong)| *is_wrong) {
                self.error(
                    column.span(),
                    format!("{word:?} compares the two rows of an update, but the rule takes none"),
                    "Add \"update\" to \"on\", or ask for the row's own value with is, not, in or null.",
                );
            }
        }
        for column in &rule.changed {
            self.denied(column);
        }
        if let Some(column) = rule.changed.first().filter(|_| !takes_update) {
            self.error(
                column.span(),
                "\"changed\" is about an update, but the rule takes none".into(),
                "Add \"update\" to \"on\".",
            );
        }
    }

    fn value(&mut self, rule: &RuleSpec, value: &Spanned<ValueSpec>, place: Place) {
        match value.get_ref() {
            ValueSpec::Column { column, old } | ValueSpec::Path { column, old, .. } => {
                self.denied(column);
                self.old(rule, column, *old);
            }
            ValueSpec::Label { column, labels, old } => {
                self.denied(column);
                self.old(rule, column, *old);
                if let Some(labels) = labels.as_ref() {
                    let known = self.mapping.labels.keys().map(String::as_str);
                    self.known("labels", labels, &known.collect::<Vec<_>>());
                }
            }
            ValueSpec::Lookup { names, key, old } => {
                self.denied(key);
                self.old(rule, key, *old);
                let known = self.mapping.names.iter().map(|(name, _)| name.as_str());
                self.known("names", names, &known.collect::<Vec<_>>());
            }
            ValueSpec::Rows(rows) | ValueSpec::Row(rows) => {
                let keys = rows.key.iter().flat_map(|(theirs, ours)| [theirs, ours]);
                for column in keys.chain(rows.when.keys()).chain([&rows.column]) {
                    self.denied(column);
                }
                self.table(&rows.table);
            }
            ValueSpec::Changed(columns) => {
                for column in columns {
                    self.denied(column);
                }
            }
            ValueSpec::Constant(_) => {}
        }
        self.value_place(rule, value.get_ref(), value.span(), place);
    }

    fn old(&mut self, rule: &RuleSpec, column: &Name, old: bool) {
        if old && !rule.takes(OperationWord::Update) && !rule.takes(OperationWord::Delete) {
            self.error(
                column.span(),
                format!("an inserted row has no old {:?}", column.get_ref()),
                "Remove \"old\", or add \"update\" to \"on\".",
            );
        }
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
        if matches!(value, ValueSpec::Changed(_)) && !rule.takes(OperationWord::Update) {
            self.error(
                span,
                "{ changed = … } lists what an update changed, but the rule takes none".into(),
                "Add \"update\" to \"on\".",
            );
        } else if is_list && place != Place::Payload {
            self.error(
                span,
                "a list can stand in the payload only".into(),
                "Here stands one text: a column, a label, a name that is looked up, or a constant.",
            );
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

    fn known(&mut self, kind: &str, word: &Name, known: &[&str]) {
        if !known.contains(&word.get_ref().as_str()) {
            let hint = meant_or_known(word.get_ref(), "There are", known);
            let message = format!("there is no [{kind}.{}] in this mapping", word.get_ref());
            let hint = hint.unwrap_or_else(|| format!("Add a table [{kind}.{}].", word.get_ref()));
            self.error(word.span(), message, hint.as_str());
        }
    }

    fn denied(&mut self, column: &Name) {
        if is_denied(column.get_ref()) {
            self.error(
                column.span(),
                format!(
                    "column {:?} is on the deny list: its name is a secret's",
                    column.get_ref()
                ),
                "No mapping may read it. Leave it out here and of the publication.",
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
                let known: Vec<&str> = known.iter().map(String::as_str).collect();
                let hint = meant_or_known(placeholder, "It has", &known);
                let message = format!("the event has no {placeholder:?} for its sentence");
                let place =
                    self.mapping.place_within(rule.describe.span(), &format!("{{{placeholder}"));
                self.error(place, message, hint.as_deref());
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
