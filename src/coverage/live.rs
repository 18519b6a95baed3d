//! What the live databases say: published tables, replica identities, triggers. Reads only.

use super::View;
use crate::{
    catalog::{Catalog, CatalogError},
    chain::chain,
    config::{Settings, Source},
    connect,
    translate::mapping::{Mapping, MappingError, RuleSpec},
};
use std::collections::BTreeSet;

/// A source's database.
#[derive(Debug)]
pub struct Live {
    pub catalog: Catalog,
    /// Whether the context trigger could be attached at once.
    pub has_context_function: bool,
    /// Qualified table and function of each of our triggers that fires.
    triggers: BTreeSet<(String, String)>,
}

/// The functions of `sql/context.sql` that triggers call, and whether the first is there at all. A disabled trigger, and one for replicas only, does not count.
const TRIGGERS: &str = "SELECT n.nspname || '.' || c.relname, f.proname::text FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_proc f ON f.oid = t.tgfoid JOIN pg_namespace o ON o.oid = f.pronamespace WHERE o.nspname = 'portal_audit' AND t.tgenabled IN ('O', 'A')";
const FUNCTION: &str = "SELECT to_regprocedure('portal_audit.ctx()') IS NOT NULL";

impl Live {
    /// Whether the context trigger is on a table.
    #[must_use]
    pub fn has_context(&self, table: &str) -> bool {
        self.triggers.contains(&(table.to_owned(), "ctx".to_owned()))
    }

    /// Whether the attempt trigger is on a table.
    #[must_use]
    pub fn has_attempt(&self, table: &str) -> bool {
        self.triggers.contains(&(table.to_owned(), "attempt".to_owned()))
    }

    /// The faults of the database that concern a rule: those of its tables as a whole, and those within its block.
    pub(super) fn faults_of(&self, mapping: &Mapping, rule: &RuleSpec) -> Vec<MappingError> {
        let span = mapping.block_span(rule);
        let lines = mapping.line(span.start..span.start)..=mapping.line(span.end..span.end);
        let alone = mapping.only(rule);
        let mut faults = Vec::new();
        for table in alone.tables() {
            let is_own = *rule.table.get_ref() == table;
            // What the rest of the mapping says of another table is no concern of the rule.
            let concerns = |fault: &MappingError| is_own || lines.contains(&fault.line);
            faults.extend(self.catalog.faults(&alone, &table).into_iter().filter(concerns));
        }
        faults
    }
}

/// A qualified name within an SQL literal of type `regclass`: `portal.users`, `"Portal"."Users"`.
#[must_use]
pub fn literal(table: &str) -> String {
    let is_plain = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let part = |part: &str| {
        if is_plain(part) { part.to_owned() } else { format!("\"{}\"", part.replace('"', "\"\"")) }
    };
    table.split('.').map(part).collect::<Vec<_>>().join(".").replace('\'', "''")
}

/// Asks every source's database; one that does not answer is told in its view.
pub async fn load(settings: &Settings) -> Vec<View<'_>> {
    let mut views = Vec::new();
    for source in &settings.sources {
        let live = load_source(source).await;
        let Source { name, mapping, publication, .. } = source;
        views.push(View { name, mapping, publication, live });
    }
    views
}

async fn load_source(source: &Source) -> Result<Live, String> {
    let session = connect::connect(&source.conninfo, "coverage").await;
    let session = session.map_err(|error| chain(&error))?;
    let catalog = Catalog::load(&session, &source.publication, &source.mapping).await;
    let catalog = catalog.map_err(|error| chain(&error))?;
    // Faults of single tables are judged rule by rule.
    if let Err(error) = catalog.check(&source.mapping)
        && !matches!(error, CatalogError::Mapping(_))
    {
        return Err(chain(&error));
    }
    let triggers = session.client.query(TRIGGERS, &[]).await;
    let triggers = triggers.map_err(|error| connect::describe(&error))?;
    let function = session.client.query_one(FUNCTION, &[]).await;
    let function = function.map_err(|error| connect::describe(&error))?;
    Ok(Live {
        catalog,
        has_context_function: function.get(0),
        triggers: triggers.iter().map(|row| (row.get(0), row.get(1))).collect(),
    })
}
