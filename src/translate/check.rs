//! What can be checked of a mapping without a database.

use super::{
    deny::{in_words, is_denied},
    mapping::{
        ConditionSpec, Mapping, MappingError, NamesSpec, OperationWord, RuleSpec, meant_or_known,
    },
    value::{LookupSpec, Name, RowsSpec, ValueSpec},
};
use std::{collections::HashMap, ops::Range};
use toml::Spanned;

/// The one key of a payload that is ours: how we know.
const RESERVED_KEY: &str = "_audit";

/// All faults, in the file's order.
pub fn check(mapping: &Mapping) -> Vec<MappingError> {
    let mut checker = Checker { mapping, errors: Vec::new() };
    for (_, names) in &mapping.names {
        checker.names(names);
    }
    let mut first: HashMap<&str, &RuleSpec> = HashMap::new();
    for rule in &mapping.rules {
        checker.rule(rule);
        let same = first.entry(rule.event_type.get_ref()).or_insert(rule);
        checker.described_alike(same, rule);
    }
    checker.around();
    checker.errors.extend(super::attempt::check(mapping));
    checker.errors.extend(super::gap::check(mapping));
    checker.errors.extend(super::undeliverable::check(mapping));
    checker.errors.extend(super::picture::check(mapping));
    checker.errors.extend(super::context::check(mapping));
    checker.errors.extend(mapping.kratos.iter().flat_map(|kratos| kratos.check(mapping)));
    checker.errors.sort_by_key(|error| (error.line, error.column));
    checker.errors
}

/// Lower-case words with underscores.
pub(super) fn is_word(text: &str) -> bool {
    let is_letter =
        |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
    text.starts_with(|first: char| first.is_ascii_lowercase()) && text.chars().all(is_letter)
}

/// `schema.table`.
pub(super) fn is_table_form(text: &str) -> bool {
    let mut parts = text.split('.');
    let both = parts.next().zip(parts.next());
    both.is_some_and(|(schema, table)| !schema.is_empty() && !table.is_empty())
        && parts.next().is_none()
}

struct Checker<'a> {
    mapping: &'a Mapping,
    errors: Vec<MappingError>,
}

impl Checker<'_> {
    fn names(&mut self, names: &NamesSpec) {
        self.table(&names.table);
        for column in &names.key.0 {
            self.denied(column);
        }
        match names.name.get_ref() {
            ValueSpec::Column { column, old: false }
            | ValueSpec::Label { column, old: false, .. }
            | ValueSpec::Sha256 { column, old: false }
            | ValueSpec::Path { column, old: false, .. } => self.denied(column),
            ValueSpec::Join { columns, old: false, .. } => {
                for column in columns {
                    self.denied(column);
                }
            }
            _ => self.error(
                names.name.span(),
                "a name must be a value of the row itself".into(),
                "Write a column, a label, a path or a sha256, without \"old\".",
            ),
        }
    }

    /// Blocks beside the rules: what is ignored, what goes with what, what is remembered.
    fn around(&mut self) {
        let mapping = self.mapping;
        for ignore in &mapping.ignores {
            self.table(&ignore.table);
            for column in ignore.when.keys().chain(&ignore.changed) {
                self.denied(column);
            }
            if ignore.because.get_ref().trim().is_empty() {
                self.error(
                    ignore.because.span(),
                    "\"because\" is empty".into(),
                    "Say why these changes are no event: coverage shows it.",
                );
            }
        }
        for cascade in &mapping.cascades {
            self.table(&cascade.parent);
            self.table(&cascade.child);
            for column in cascade.key.iter().flat_map(|(child, parent)| [child, parent]) {
                self.denied(column);
            }
            for (column, condition) in &cascade.when {
                self.denied(column);
                let ConditionSpec { is, not, r#in, null, .. } = condition;
                if is.is_none() && not.is_none() && r#in.is_none() && null.is_none() {
                    self.error(
                        column.span(),
                        "a cascade asks for the value of a row that goes".into(),
                        "Say is, not, in or null.",
                    );
                }
            }
            if cascade.key.is_empty() {
                self.error(
                    cascade.child.span(),
                    "a cascade without a key joins nothing".into(),
                    "Write key = { column_of_the_child = \"column of the parent\" }.",
                );
            }
        }
        for (table, columns) in mapping.remember.iter().chain(&mapping.moved) {
            self.table(table);
            for column in columns {
                self.denied(column);
            }
        }
    }

    /// What concerns the group or the entries that a rule is about.
    fn groups(&mut self, rule: &RuleSpec) {
        for column in rule.once_per.iter().flat_map(|columns| &columns.0) {
            self.denied(column);
        }
        if let Some(rows) = &rule.unless {
            self.rows(rows);
        }
        let Some(each) = &rule.each else { return };
        self.denied(&each.column);
        let (once, backfill) = (rule.once_per.is_some() || rule.unless.is_some(), &rule.backfill);
        if once || backfill.is_some() {
            self.error(
                each.column.span(),
                "\"each\" cannot stand beside once_per, unless or backfill".into(),
                "Entries of a column have no rows of their own.",
            );
        }
    }

    fn rows(&mut self, rows: &RowsSpec) {
        let keys = rows.key.iter().flat_map(|(theirs, ours)| [theirs, ours]);
        for column in keys.chain(rows.when.keys()).chain([&rows.column]) {
            self.denied(column);
        }
        self.table(&rows.table);
    }

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
            self.value(rule, message, Place::Message);
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
        self.groups(rule);
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
        if !is_word(text) {
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
        if !is_table_form(table.get_ref()) {
            let name = table
                .get_ref()
                .rsplit('.')
                .next()
                .filter(|part| !part.is_empty())
                .unwrap_or("users");
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
            let ConditionSpec { is, not, r#in, becomes, leaves, was, changes, null, past } =
                condition;
            let lists = [r#in, becomes, leaves, was];
            let name = column.get_ref();
            if lists.iter().all(|list| list.is_none())
                && is.is_none()
                && not.is_none()
                && null.is_none()
                && changes.is_none()
                && past.is_none()
            {
                self.error(
                    column.span(),
                    format!("the condition on {name:?} says nothing"),
                    "Say is, not, in, becomes, leaves, was, changes, null or past.",
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
            ValueSpec::Column { column, old }
            | ValueSpec::Sha256 { column, old }
            | ValueSpec::Path { column, old, .. } => {
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
            ValueSpec::Join { columns, old, .. } => {
                for column in columns {
                    self.denied(column);
                    self.old(rule, column, *old);
                }
            }
            ValueSpec::Lookup { lookup, old } => {
                let (mut names, mut columns) = (Vec::new(), Vec::new());
                lookup.visit(&mut |name| names.push(name), &mut |column| columns.push(column));
                for column in columns {
                    self.denied(column);
                    self.old(rule, column, *old);
                }
                let known = self.mapping.names.iter().map(|(name, _)| name.as_str());
                let known: Vec<&str> = known.collect();
                for name in names {
                    self.known("names", name, &known);
                    self.key_of(name, lookup);
                }
            }
            ValueSpec::Rows(rows) | ValueSpec::Row(rows) => self.rows(rows),
            ValueSpec::Changed(columns) => {
                for column in columns {
                    self.denied(column);
                }
            }
            ValueSpec::Constant(_) => {}
        }
        self.value_place(rule, value.get_ref(), value.span(), place);
    }

    /// A key has as many parts as its names table.
    fn key_of(&mut self, name: &Name, lookup: &LookupSpec) {
        if name.span() != lookup.names.span() {
            return;
        }
        let position = self.mapping.names_position(name.get_ref());
        let names = position.and_then(|position| self.mapping.names.get(position));
        let Some((_, names)) = names else { return };
        let (given, wanted) = (lookup.key.len(), names.key.0.len());
        if given != wanted {
            self.error(
                name.span(),
                format!(
                    "[names.{}] needs a key of {wanted}, and here is one of {given}",
                    name.get_ref()
                ),
                "Give a value for each of its columns, in their order.",
            );
        }
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
        } else if is_list
            && place != Place::Payload
            && !(place == Place::Message && matches!(value, ValueSpec::Path { .. }))
        {
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
    /// Subject or target.
    Text,
    /// Error message.
    Message,
    Caller,
    Payload,
}
