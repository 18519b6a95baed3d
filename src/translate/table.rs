//! The tables of a source as the mapping sees them.

use super::{
    cascade::Kin,
    compile::Compiler,
    kratos::spec::Kind,
    mapping::{Mapping, MappingError, MappingErrors},
    remember::Remember,
    rule::{Collected, NameFeed, Rule, Source, Takes},
    stopped::Stopped,
    unfold::Unfold,
};
use crate::tuple::Relation;
use std::sync::Arc;

/// What the mapping says about one relation.
#[derive(Debug)]
pub struct Table {
    pub relation: Relation,
    /// The relation's qualified name.
    pub(super) name: Arc<str>,
    pub rules: Vec<Rule>,
    pub(super) unfolds: Vec<Unfold>,
    pub(super) ignores: Vec<Takes>,
    pub(super) remember: Option<Remember>,
    pub(super) kin: Kin,
    /// Columns by which a row that moves to another partition is known again.
    pub(super) moved: Vec<usize>,
    pub(super) feeds: Vec<NameFeed>,
    pub(super) collected: Vec<Collected>,
    pub(super) has_lookups: bool,
    /// Which of Kratos' tables it is.
    pub(super) kratos: Option<Kind>,
    /// What the mapping says of the table and does not fit it.
    pub stopped: Stopped,
}

impl Table {
    /// Compiles the mapping against a relation of the stream or the catalog.
    ///
    /// # Errors
    /// Columns that the relation does not have, or whose old values it does not carry.
    pub fn compile(mapping: &Mapping, relation: Relation) -> Result<Self, MappingErrors> {
        let (table, errors) = Self::fit(mapping, relation);
        if errors.is_empty() { Ok(table) } else { Err(MappingErrors(errors)) }
    }

    /// Compiles what fits of the mapping, and tells what does not. What does not stands still ([`Stopped`]).
    #[must_use]
    pub fn fit(mapping: &Mapping, relation: Relation) -> (Self, Vec<MappingError>) {
        let mut compiler = Compiler::new(mapping, &relation);
        // First: what rules may read of before a change depends on it.
        let remember = compiler.remember();
        let (rules, unfolds, ignores) = (compiler.rules(), compiler.unfolds(), compiler.ignores());
        let (feeds, kin) = (compiler.name_feeds(), compiler.kin());
        let (moved, collected) = (compiler.moved(), compiler.collected());
        let (mut errors, mut stopped) = (compiler.errors, compiler.stopped);
        let of_kratos = mapping.kratos.as_ref();
        let faults = of_kratos.map(|spec| spec.check_relation(mapping, &relation, None));
        let faults = faults.unwrap_or_default();
        let kratos = of_kratos.and_then(|spec| spec.table(&relation)).map(|table| table.kind);
        let kratos = kratos.filter(|_| faults.is_empty());
        if !faults.is_empty() {
            stopped.kratos();
        }
        errors.extend(faults);
        let name: Arc<str> = relation.qualified_name().into();
        let mut table = Self {
            rules,
            unfolds,
            ignores,
            remember,
            kin,
            moved,
            feeds,
            collected,
            kratos,
            ..Self::bare(relation, name)
        };
        if stopped.all {
            stopped.table(mapping, &table.name);
            (table.rules, table.unfolds, table.moved) = (Vec::new(), Vec::new(), Vec::new());
        }
        let all = table.rules.iter().chain(table.unfolds.iter().flat_map(|unfold| &unfold.rules));
        table.has_lookups =
            all.flat_map(Rule::sources).any(|source| matches!(source, Source::Lookup { .. }));
        table.stopped = stopped.with_columns(mapping, &table.name, &table.relation);
        (table, errors)
    }

    /// The table that the mapping calls `mapped` and that has another name now: all that the mapping says of it stands still.
    #[must_use]
    pub fn renamed(mapping: &Mapping, relation: Relation, mapped: &str) -> Self {
        let name: Arc<str> = relation.qualified_name().into();
        let mut stopped = Stopped::default();
        stopped.table(mapping, mapped);
        let mut table = Self::bare(relation, name);
        table.stopped = stopped.with_columns(mapping, mapped, &table.relation);
        table
    }

    fn bare(relation: Relation, name: Arc<str>) -> Self {
        Self {
            relation,
            name,
            rules: Vec::new(),
            unfolds: Vec::new(),
            ignores: Vec::new(),
            remember: None,
            kin: Kin::default(),
            moved: Vec::new(),
            feeds: Vec::new(),
            collected: Vec::new(),
            has_lookups: false,
            kratos: None,
            stopped: Stopped::default(),
        }
    }

    /// The columns by which its rows are remembered, if they are.
    #[must_use]
    pub fn remembered_by(&self) -> Option<&[usize]> {
        self.remember.as_ref().map(|remember| remember.key.as_slice())
    }

    /// Whether its rows are read before any of the transaction is told. Of parents only those that are deleted count, but what is remembered of them must be followed, and half of a move is not a deletion.
    pub(super) fn is_gathered(&self, is_deleted: bool) -> bool {
        let follows = is_deleted || self.remember.is_some();
        !self.collected.is_empty() || (follows && !self.kin.children.is_empty())
    }

    /// Whether its rows can ask for names that are not in memory.
    pub(super) fn asks_for_names(&self) -> bool {
        self.has_lookups || self.remember.is_some() || self.kratos.is_some()
    }

    /// Whether its rows can be events.
    pub(super) fn has_rules(&self) -> bool {
        !(self.rules.is_empty() && self.unfolds.is_empty() && self.ignores.is_empty())
            || self.kratos.is_some()
    }

    /// Whether the mapping uses the table at all.
    pub(super) fn is_used(&self) -> bool {
        self.has_rules()
            || self.is_gathered(true)
            || !self.feeds.is_empty()
            || self.remember.is_some()
    }
}

/// The relations that the stream described, by oid; never by position or name.
#[derive(Debug, Clone, Default)]
pub(super) struct Tables(Vec<(u32, Arc<Table>)>);

impl Tables {
    pub(super) fn get(&self, oid: u32) -> Option<&Arc<Table>> {
        let position = self.0.binary_search_by_key(&oid, |(oid, _)| *oid).ok()?;
        self.0.get(position).map(|(_, table)| table)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Table> {
        self.0.iter().map(|(_, table)| &**table)
    }

    pub(super) fn put(&mut self, table: Table) {
        let oid = table.relation.oid;
        match self.0.binary_search_by_key(&oid, |(oid, _)| *oid) {
            Ok(position) => {
                if let Some(entry) = self.0.get_mut(position) {
                    entry.1 = Arc::new(table);
                }
            }
            Err(position) => self.0.insert(position, (oid, Arc::new(table))),
        }
    }
}
