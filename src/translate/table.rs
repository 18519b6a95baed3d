//! The tables of a source as the mapping sees them.

use super::{
    compile::Compiler,
    kratos::spec::Kind,
    mapping::{Mapping, MappingErrors},
    rule::{Collected, NameFeed, Rule, Source},
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
    pub(super) feeds: Vec<NameFeed>,
    pub(super) collected: Vec<Collected>,
    pub(super) has_lookups: bool,
    /// Which of Kratos' tables it is.
    pub(super) kratos: Option<Kind>,
}

impl Table {
    /// Compiles the mapping against a relation of the stream or the catalog.
    ///
    /// # Errors
    /// Columns that the relation does not have, or whose old values it does not carry.
    pub fn compile(mapping: &Mapping, relation: Relation) -> Result<Self, MappingErrors> {
        let mut compiler = Compiler::new(mapping, &relation);
        let (rules, feeds) = (compiler.rules(), compiler.name_feeds());
        let (collected, mut errors) = (compiler.collected(), compiler.errors);
        let kratos = mapping.kratos.as_ref();
        errors.extend(kratos.iter().flat_map(|spec| spec.check_relation(mapping, &relation, None)));
        let kratos = kratos.and_then(|spec| spec.table(&relation)).map(|table| table.kind);
        if !errors.is_empty() {
            return Err(MappingErrors(errors));
        }
        let has_lookups = rules
            .iter()
            .flat_map(Rule::sources)
            .any(|source| matches!(source, Source::Lookup { .. }));
        let name = relation.qualified_name().into();
        Ok(Self { relation, name, rules, feeds, collected, has_lookups, kratos })
    }

    /// Whether the mapping uses the table at all.
    pub(super) fn is_used(&self) -> bool {
        !(self.rules.is_empty() && self.feeds.is_empty() && self.collected.is_empty())
            || self.kratos.is_some()
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
