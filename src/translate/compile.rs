//! A mapping and a relation → the rules of its table. What does not fit is told with its place in the mapping.

use super::{
    mapping::{
        ConditionSpec, Mapping, MappingError, NamesSpec, OperationWord, RuleSpec, meant_or_known,
    },
    rule::{Collected, Condition, JsonKind, NameFeed, Rule, Source, Test},
    value::{Name, OneOrMore, RowsSpec, Scalar, ValueSpec},
};
use crate::tuple::Relation;
use std::collections::BTreeMap;

/// Compiles what a mapping says about one relation.
#[derive(Debug)]
pub struct Compiler<'a> {
    mapping: &'a Mapping,
    relation: &'a Relation,
    /// Columns that the table has and the publication leaves out, where the catalog is known; the stream does not tell them.
    unpublished: Option<&'a [String]>,
    pub errors: Vec<MappingError>,
}

impl<'a> Compiler<'a> {
    /// A compiler for one relation.
    #[must_use]
    pub fn new(mapping: &'a Mapping, relation: &'a Relation) -> Self {
        Self { mapping, relation, unpublished: None, errors: Vec::new() }
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
        compiler.rules();
        compiler.name_feeds();
        compiler.collected();
        compiler.errors
    }

    /// The rules of the relation, in the file's order.
    pub fn rules(&mut self) -> Vec<Rule> {
        let qualified = self.relation.qualified_name();
        let mut rules: Vec<Rule> = Vec::new();
        let mut slot = 0;
        for spec in &self.mapping.rules {
            if *spec.table.get_ref() == qualified {
                let same =
                    rules.iter().filter(|rule| rule.event_type == *spec.event_type.get_ref());
                let number = same.count();
                rules.push(self.rule(spec, number, slot));
            }
            let lists = spec
                .values()
                .filter(|value| matches!(value.get_ref(), ValueSpec::Rows(_) | ValueSpec::Row(_)));
            slot += lists.count();
        }
        rules
    }

    /// The names that rows of the relation give.
    pub fn name_feeds(&mut self) -> Vec<NameFeed> {
        let qualified = self.relation.qualified_name();
        let mapping = self.mapping;
        let specs = mapping.names.iter().map(|(_, spec)| spec).enumerate();
        let mut feeds = Vec::new();
        for (names, NamesSpec { table, key, name }) in specs {
            if *table.get_ref() == qualified {
                let (key, name) = (self.column(key), self.column(name));
                feeds.push(NameFeed { names, key, name });
            }
        }
        feeds
    }

    /// The lists to which rows of the relation belong.
    pub fn collected(&mut self) -> Vec<Collected> {
        let qualified = self.relation.qualified_name();
        let mapping = self.mapping;
        let values = mapping.rules.iter().flat_map(RuleSpec::values);
        let specs = values.filter_map(|value| match value.get_ref() {
            ValueSpec::Rows(rows) => Some((rows, false)),
            ValueSpec::Row(rows) => Some((rows, true)),
            _ => None,
        });
        let mut collected = Vec::new();
        for (slot, (RowsSpec { table, key, when, column }, inserts_only)) in specs.enumerate() {
            if *table.get_ref() == qualified {
                collected.push(Collected {
                    slot,
                    key: key.keys().map(|column| self.column(column)).collect(),
                    column: self.column(column),
                    when: self.conditions(when, false),
                    inserts_only,
                });
            }
        }
        collected
    }

    fn rule(&mut self, spec: &RuleSpec, number: usize, mut slot: usize) -> Rule {
        let on_delete = spec.takes(OperationWord::Delete);
        let event_type = spec.event_type.get_ref().clone();
        let id = if number == 0 { event_type.clone() } else { format!("{event_type}#{number}") };
        let mut value = |compiler: &mut Self, spec: &toml::Spanned<ValueSpec>| {
            compiler.source(spec.get_ref(), on_delete, &mut slot)
        };
        // In the order of RuleSpec::values, which numbers the lists.
        let subject = value(self, &spec.subject);
        let target = spec.target.as_ref().map(|spec| value(self, spec));
        let error_message = spec.error_message.as_ref().map(|spec| value(self, spec));
        let caller = spec.caller.as_ref().map(|spec| value(self, spec));
        let payload = spec
            .payload
            .iter()
            .map(|(key, spec)| (json_key(key.get_ref()), value(self, spec)))
            .collect();
        let changed = spec.changed.iter().map(|column| self.compared(column)).collect();
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
            insert: spec.takes(OperationWord::Insert),
            update: spec.takes(OperationWord::Update),
            delete: on_delete,
            when: self.conditions(&spec.when, on_delete),
            changed,
            success: self.conditions(&spec.success, on_delete),
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
            ValueSpec::Lookup { names, key, old } => {
                let position = read(key, *old);
                let names = self.mapping.names_position(names.get_ref()).unwrap_or(usize::MAX);
                Source::Lookup { names, position, old: *old }
            }
            ValueSpec::Rows(rows) | ValueSpec::Row(rows) => {
                let key = rows.key.values().map(|column| read(column, false)).collect();
                *slot += 1;
                let list = matches!(spec, ValueSpec::Rows(_));
                Source::Rows { slot: *slot - 1, key, list }
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
            let ConditionSpec { is, not, r#in, becomes, leaves, was, changes, null } = spec;
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
        if position != usize::MAX && !self.relation.carries_old(position) {
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
