//! A mapping and a relation → the rules of its table. What does not fit is told with its place in the mapping.

mod around;

use super::{
    lookup::{KeySource, Lookup},
    mapping::{ConditionSpec, Mapping, MappingError, OperationWord, RuleSpec, meant_or_known},
    rule::{Condition, JsonKind, RowsKey, Rule, Source, Takes, Test},
    stopped::Stopped,
    unfold::Unfold,
    value::{KeyPart, LookupSpec, Name, OneOrMore, Scalar, ValueSpec},
};
use crate::tuple::Relation;
use std::{borrow::Cow, collections::BTreeMap};

/// Compiles what a mapping says about one relation.
#[derive(Debug)]
pub struct Compiler<'a> {
    mapping: &'a Mapping,
    relation: Cow<'a, Relation>,
    /// Columns that the table has and the publication leaves out, where the catalog is known; the stream does not tell them.
    unpublished: Option<&'a [String]>,
    pub errors: Vec<MappingError>,
    /// What is left out because it does not fit.
    pub stopped: Stopped,
    /// Faults of old values that the replica identity does not carry, and those of them with which a rule works all the same.
    old_faults: usize,
    harmless: usize,
    /// What the mapping wants to be remembered of the relation's rows cannot be.
    forgets: bool,
}

impl<'a> Compiler<'a> {
    /// A compiler for one relation.
    #[must_use]
    pub fn new(mapping: &'a Mapping, relation: &'a Relation) -> Self {
        Self {
            mapping,
            relation: Cow::Borrowed(relation),
            unpublished: None,
            errors: Vec::new(),
            stopped: Stopped::default(),
            old_faults: 0,
            harmless: 0,
            forgets: false,
        }
    }

    /// How many faults stop something.
    fn faults(&self) -> usize {
        self.errors.len() - self.harmless
    }

    /// Every fault of what the mapping says about a table of the catalog.
    #[must_use]
    pub fn check(
        mapping: &'a Mapping,
        relation: &'a Relation,
        unpublished: &'a [String],
    ) -> Vec<MappingError> {
        let mut compiler = Self::new(mapping, relation);
        compiler.unpublished = Some(unpublished);
        compiler.remember();
        compiler.rules();
        compiler.unfolds();
        compiler.ignores();
        compiler.name_feeds();
        compiler.collected();
        compiler.moved();
        compiler.kin();
        let mut errors = compiler.errors;
        if let Some(kratos) = &mapping.kratos {
            errors.extend(kratos.check_relation(mapping, relation, Some(unpublished)));
        }
        errors
    }

    /// The rules of the relation's rows, in the file's order.
    pub fn rules(&mut self) -> Vec<Rule> {
        self.rules_of(|spec| spec.each.is_none())
    }

    fn rules_of(&mut self, wanted: impl Fn(&RuleSpec) -> bool) -> Vec<Rule> {
        let qualified = self.relation.qualified_name();
        let mapping = self.mapping;
        let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
        let mut rules: Vec<Rule> = Vec::new();
        let mut slot = 0;
        for (place, spec) in mapping.rules.iter().enumerate() {
            if *spec.table.get_ref() == qualified {
                let number = numbers.entry(spec.event_type.get_ref()).or_default();
                if wanted(spec) {
                    let before = self.faults();
                    let rule = self.rule(spec, (place, *number), slot);
                    if self.faults() == before {
                        rules.push(rule);
                    } else {
                        self.stopped.rule(spec);
                    }
                }
                *number += 1;
            }
            slot += spec.rows_specs().count();
        }
        rules
    }

    /// The rules of entries of columns of the relation.
    pub fn unfolds(&mut self) -> Vec<Unfold> {
        let qualified = self.relation.qualified_name();
        let mapping = self.mapping;
        let mut seen: Vec<(&str, Option<&str>)> = Vec::new();
        let mut unfolds = Vec::new();
        let specs = mapping.rules.iter().filter(|spec| *spec.table.get_ref() == qualified);
        for each in specs.filter_map(|spec| spec.each.as_ref()) {
            let which = (each.column.get_ref().as_str(), each.key.as_deref());
            if seen.contains(&which) {
                continue;
            }
            seen.push(which);
            let before = self.faults();
            let column = self.compared(&each.column);
            let (column_name, key) = which;
            let fields = super::needs::entry_fields(mapping, &qualified, column_name);
            let kind = super::unfold::kind(self.type_oid(column));
            if column != usize::MAX && kind.is_none() {
                let message = format!(
                    "column {column_name:?} of {qualified} holds neither JSON nor a list of texts"
                );
                let hint = "\"each\" takes the entries of a json or jsonb column, or of a text[].";
                self.error(&each.column, message, Some(hint.to_owned()));
            }
            let is_mine = |spec: &RuleSpec| {
                spec.each.as_ref().is_some_and(|each| {
                    (each.column.get_ref().as_str(), each.key.as_deref()) == which
                })
            };
            let is_readable = self.faults() == before;
            let relation = super::unfold::relation(&self.relation, column_name, &fields);
            let relation = std::mem::replace(&mut self.relation, Cow::Owned(relation));
            let rules = self.rules_of(is_mine);
            let relation = std::mem::replace(&mut self.relation, relation).into_owned();
            let (fields, key) =
                (fields.into_iter().map(str::to_owned).collect(), key.map(str::to_owned));
            if is_readable {
                unfolds.push(Unfold { column, kind, key, fields, relation, rules });
            } else {
                rules.iter().for_each(|rule| self.stopped.compiled(rule));
            }
        }
        unfolds
    }

    fn rule(&mut self, spec: &RuleSpec, (place, number): (usize, usize), mut slot: usize) -> Rule {
        let on_delete = spec.takes(OperationWord::Delete);
        let event_type = spec.event_type.get_ref().clone();
        let id = if number == 0 { event_type.clone() } else { format!("{event_type}#{number}") };
        let mut value = |compiler: &mut Self, spec: &toml::Spanned<ValueSpec>| {
            compiler.source(spec.get_ref(), on_delete, &mut slot)
        };
        // In the order of RuleSpec::rows_specs, which numbers the sets of rows.
        let subject = value(self, &spec.subject);
        let target = spec.target.as_ref().map(|spec| value(self, spec));
        let error_message = spec.error_message.as_ref().map(|spec| value(self, spec));
        let caller = spec.caller.as_ref().map(|spec| value(self, spec));
        let old_faults = self.old_faults;
        let payload = spec
            .payload
            .iter()
            .map(|(key, spec)| (json_key(key.get_ref()), value(self, spec)))
            .collect();
        // An old value that is not there is left out of a payload; whatever else reads it would be wrong.
        self.harmless += self.old_faults - old_faults;
        let changed = spec.changed.iter().map(|column| self.compared(column)).collect();
        let once_per = spec.once_per.as_ref().map(|columns| columns.0.as_slice());
        let once_per = once_per.unwrap_or_default().iter();
        let mut read =
            |column: &Name| if on_delete { self.compared(column) } else { self.column(column) };
        let once_per = once_per.map(&mut read).collect();
        let unless = spec.unless.as_ref().map(|rows| RowsKey {
            slot,
            key: rows.key.values().map(&mut read).collect(),
            on: rows.on.iter().copied().map(Into::into).collect(),
        });
        Rule {
            event_type,
            id,
            number,
            subject_type: spec.subject_type.get_ref().clone(),
            subject,
            target,
            error_message,
            caller,
            payload,
            backfill: spec.backfill.as_ref().map(|column| self.column(column)),
            takes: Takes {
                insert: spec.takes(OperationWord::Insert),
                update: spec.takes(OperationWord::Update),
                delete: on_delete,
                when: self.conditions(&spec.when, on_delete),
                changed,
            },
            success: self.conditions(&spec.success, on_delete),
            place,
            once_per,
            unless,
        }
    }

    fn source(&mut self, spec: &ValueSpec, on_delete: bool, slot: &mut usize) -> Source {
        let mut read = |name: &Name, old: bool| {
            if old || on_delete { self.compared(name) } else { self.column(name) }
        };
        match spec {
            ValueSpec::Column { column, old } => {
                let position = read(column, *old);
                Source::Column { position, old: *old, kind: self.kind(position) }
            }
            ValueSpec::Label { column, labels, old } => {
                let position = read(column, *old);
                let labels =
                    labels.as_ref().and_then(|name| self.mapping.labels.get(name.get_ref()));
                let labels = labels.into_iter().flatten();
                let labels = labels.map(|(code, label)| (code.clone(), label.clone())).collect();
                Source::Label { position, old: *old, labels }
            }
            ValueSpec::Path { column, path, list, old } => {
                let position = read(column, *old);
                self.is_json(column, position);
                Source::Path { position, old: *old, path: Box::new(path.clone()), list: *list }
            }
            ValueSpec::Join { columns, with, old } => {
                let columns = columns.iter().map(|column| read(column, *old)).collect();
                Source::Join { columns, with: with.clone(), old: *old }
            }
            ValueSpec::Sha256 { column, old } => {
                Source::Sha256 { position: read(column, *old), old: *old }
            }
            ValueSpec::Lookup { lookup, old } => {
                let names = self.mapping.names_position(lookup.names.get_ref());
                let named = names.and_then(|position| self.mapping.names.get(position));
                let list = named.is_some_and(|(_, names)| names.is_list());
                let lookup = self.lookup(lookup, *old || on_delete);
                Source::Lookup { lookup, old: *old, list }
            }
            ValueSpec::Rows(rows) | ValueSpec::Row(rows) => {
                let key = rows.key.values().map(|column| read(column, false)).collect();
                *slot += 1;
                let list = matches!(spec, ValueSpec::Rows(_));
                let rows = RowsKey {
                    slot: *slot - 1,
                    key,
                    on: rows.on.iter().copied().map(Into::into).collect(),
                };
                Source::Rows { rows, list }
            }
            ValueSpec::Changed(columns) => Source::Changed {
                columns: columns
                    .iter()
                    .map(|column| (self.compared(column), json_string(column.get_ref())))
                    .collect(),
            },
            ValueSpec::Constant(value) => Source::Constant(value.clone()),
        }
    }

    fn lookup(&mut self, spec: &LookupSpec, compared: bool) -> Lookup {
        let names = self.mapping.names_position(spec.names.get_ref()).unwrap_or(usize::MAX);
        let mut key = Vec::new();
        for part in &spec.key {
            key.push(match part {
                KeyPart::Column(name) if compared => KeySource::Column(self.compared(name)),
                KeyPart::Column(name) => KeySource::Column(self.column(name)),
                KeyPart::Lookup(lookup) => KeySource::Lookup(self.lookup(lookup, compared)),
            });
        }
        Lookup { names, key }
    }

    fn conditions(
        &mut self,
        specs: &BTreeMap<Name, ConditionSpec>,
        on_delete: bool,
    ) -> Vec<Condition> {
        let bytes = |scalars: &OneOrMore<Scalar>| -> Vec<Vec<u8>> {
            scalars.0.iter().map(|scalar| scalar.text().into_bytes()).collect()
        };
        let mut conditions = Vec::new();
        for (column, spec) in specs {
            let ConditionSpec { is, not, r#in, becomes, leaves, was, changes, null, past } = spec;
            let reads_old =
                becomes.is_some() || leaves.is_some() || was.is_some() || changes.is_some();
            let position =
                if reads_old || on_delete { self.compared(column) } else { self.column(column) };
            let tests = [
                is.as_ref().map(|scalar| Test::In(vec![scalar.text().into_bytes()])),
                r#in.as_ref().map(|scalars| Test::In(bytes(scalars))),
                not.as_ref().map(|scalar| Test::Not(scalar.text().into_bytes())),
                becomes.as_ref().map(|scalars| Test::Becomes(bytes(scalars))),
                leaves.as_ref().map(|scalars| Test::Leaves(bytes(scalars))),
                was.as_ref().map(|scalars| Test::Was(bytes(scalars))),
                changes.map(Test::Changes),
                null.map(Test::Null),
                past.map(Test::Past),
            ];
            conditions.extend(tests.into_iter().flatten().map(|test| Condition { position, test }));
        }
        conditions
    }

    /// Position of a column, or a fault.
    fn column(&mut self, name: &Name) -> usize {
        if let Some(position) = self.relation.position(name.get_ref()) {
            return position;
        }
        let (table, column) = (self.relation.qualified_name(), name.get_ref());
        let unpublished = self.unpublished.unwrap_or_default();
        let known: Vec<&str> =
            self.relation.columns.iter().map(|column| column.name.as_str()).collect();
        let (message, hint) = if unpublished.contains(column) {
            let message = format!("column {column:?} of {table} is not published");
            let hint = "Run what `portal-audit sql source` prints on that database. (A generated column is never in the log.)";
            (message, Some(hint.to_owned()))
        } else if self.unpublished.is_some() {
            let all: Vec<&str> =
                known.into_iter().chain(unpublished.iter().map(String::as_str)).collect();
            let hint = meant_or_known(column, "Its columns are", &all);
            (format!("table {table} has no column {column:?}"), hint)
        } else {
            let hint = meant_or_known(column, "Published are", &known);
            (format!("{table} publishes no column {column:?}"), hint)
        };
        self.error(name, message, hint);
        usize::MAX
    }

    /// Position of a column whose old value is read: the replica identity must carry it.
    fn compared(&mut self, name: &Name) -> usize {
        let position = self.column(name);
        let qualified = self.relation.qualified_name();
        let is_remembered = self.mapping.remembered(&qualified).is_some_and(|(_, columns)| {
            columns.iter().any(|column| column.get_ref() == name.get_ref())
        });
        let is_remembered = is_remembered && !self.forgets;
        if position != usize::MAX && !self.relation.carries_old(position) && !is_remembered {
            self.old_faults += 1;
            let (table, column) = (self.relation.qualified_name(), name.get_ref());
            // No bare ALTER TABLE … REPLICA IDENTITY FULL here: beside a column list it makes every update of the portal fail.
            self.error(
                name,
                format!("this rule reads the old value of {column:?}, which the replica identity of {table} does not carry"),
                Some("Run what `portal-audit sql source` prints on that database: it sets the identity and the publication together.".to_owned()),
            );
        }
        position
    }

    fn is_json(&mut self, name: &Name, position: usize) {
        let is_json = |oid: u32| matches!(JsonKind::of_type(oid), JsonKind::Json | JsonKind::Jsonb);
        if position == usize::MAX || is_json(self.type_oid(position)) {
            return;
        }
        let columns = self.relation.columns.iter().filter(|column| is_json(column.type_oid));
        let known: Vec<&str> = columns.map(|column| column.name.as_str()).collect();
        let (table, column) = (self.relation.qualified_name(), name.get_ref());
        let hint = meant_or_known(column, "Those are", &known);
        self.error(
            name,
            format!("column {column:?} of {table} is not of type json or jsonb, so it has no path"),
            Some(hint.unwrap_or_else(|| "The table has no such column. Remove \"path\".".into())),
        );
    }

    fn type_oid(&self, position: usize) -> u32 {
        self.relation.columns.get(position).map_or(0, |column| column.type_oid)
    }

    fn kind(&self, position: usize) -> JsonKind {
        JsonKind::of_type(self.type_oid(position))
    }

    fn error(&mut self, name: &Name, message: String, hint: Option<String>) {
        self.errors.push(self.mapping.error(name.span(), message, hint));
    }
}

fn json_string(text: &str) -> String {
    let mut out = String::new();
    crate::event::push_json_string(&mut out, text.as_bytes(), usize::MAX);
    out
}

fn json_key(key: &str) -> String {
    json_string(key) + ":"
}
