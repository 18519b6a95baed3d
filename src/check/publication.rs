//! The publication and the mapping: whether what the mapping reads is sent, and whether the portal's own writes survive it.

use super::{Check, Found, Verdict, listed, quoted, role::qualified, verdict};
use crate::{
    catalog::{Catalog, CatalogError, TableFault},
    connect::{self, Session},
    translate::{
        deny::is_denied,
        mapping::{Mapping, MappingError},
    },
};

/// What is asked of the publication.
pub(super) const CHECKS: &[Check<Facts>] = &[
    ("publication", publication),
    ("all_tables", all_tables),
    ("publication_operations", publication_operations),
    ("via_root", via_root),
    ("whole_schema", whole_schema),
    ("tables_published", tables_published),
    ("columns_published", columns_published),
    ("unmapped_tables", unmapped_tables),
    ("replica_identity", replica_identity),
    ("column_list", column_list),
    ("row_filter", row_filter),
    ("old_values", old_values),
    ("secrets_published", secrets_published),
    ("mapping", mapping),
    ("full_identity_cost", full_identity_cost),
];

/// So much more log a day by replica identity FULL is worth a word.
const FULL_BYTES_A_DAY: f64 = 1_073_741_824.0;
/// Statistics of a shorter time say nothing about a day.
const STATISTICS_SECONDS_MIN: f64 = 3_600.0;

/// What is known of the publication.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) name: String,
    pub(super) database: String,
    /// The shell line that runs `sql source`.
    pub(super) run_source_sql: String,
    pub(super) is_published: bool,
    is_all_tables: bool,
    missing_operations: Option<String>,
    version_num: u32,
    via_root: bool,
    schemas: Vec<String>,
    mapped: Vec<String>,
    /// Mapped tables that are partitioned.
    partitioned: Vec<String>,
    tables: Vec<Published>,
    /// Faults of the mapping against the catalog, by table fault.
    faults: Vec<(Option<TableFault>, MappingError)>,
    full: Full,
}

/// A published table, or one of the partitions that it stands for.
#[derive(Debug, Clone, Default)]
struct Published {
    /// As the stream names it.
    name: String,
    /// Whose rows are in the log: itself, or a partition.
    leaf: String,
    /// `d`, `n`, `f` or `i`.
    identity: String,
    identity_columns: Vec<String>,
    columns: Vec<String>,
    has_list: bool,
    has_filter: bool,
    /// Columns that an identity FULL has.
    whole: Vec<String>,
}

impl Published {
    fn has_identity(&self) -> bool {
        self.identity == "f" || !self.identity_columns.is_empty()
    }

    /// `portal.users`, or `portal.events_2026 of portal.events`.
    fn object(&self) -> String {
        if self.leaf == self.name {
            self.name.clone()
        } else {
            format!("{} of {}", self.leaf, self.name)
        }
    }
}

/// What replica identity FULL adds to the log, as far as statistics tell.
#[derive(Debug, Clone, Default)]
struct Full {
    tables: Vec<String>,
    bytes: f64,
    seconds: f64,
}

impl Facts {
    /// Asks.
    pub(super) async fn load(
        session: &Session,
        name: &str,
        mapping: &Mapping,
        run_source_sql: &str,
    ) -> Result<(Self, Catalog), String> {
        let catalog =
            Catalog::load_any(session, name, mapping).await.map_err(|error| match error {
                CatalogError::Query { report } => connect::describe(&report),
                other => other.to_string(),
            })?;
        let facts = Self::ask(session, name, mapping, run_source_sql, &catalog).await;
        Ok((facts.map_err(|error| connect::describe(&error))?, catalog))
    }

    async fn ask(
        session: &Session,
        name: &str,
        mapping: &Mapping,
        run_source_sql: &str,
        catalog: &Catalog,
    ) -> Result<Self, tokio_postgres::Error> {
        const PARTITIONED: &str = "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'p' AND n.nspname || '.' || c.relname = ANY ($1)";
        let client = &session.client;
        let is_15 = catalog.version_num >= 150_000;
        let schemas = if is_15 {
            "ARRAY (SELECT n.nspname::text FROM pg_publication_namespace s JOIN pg_namespace n ON n.oid = s.pnnspid WHERE s.pnpubid = p.oid ORDER BY 1)"
        } else {
            "ARRAY[]::text[]"
        };
        let options =
            format!("SELECT p.pubviaroot, {schemas} FROM pg_publication p WHERE pubname = $1");
        let options = client.query_opt(&options, &[&name]).await?;
        let mapped = mapping.tables();
        let partitioned = client.query(PARTITIONED, &[&mapped]).await?;
        Ok(Self {
            name: name.to_owned(),
            database: catalog.database.clone(),
            run_source_sql: run_source_sql.to_owned(),
            is_published: catalog.is_published(),
            is_all_tables: catalog.is_all_tables(),
            missing_operations: catalog.missing_operations().map(str::to_owned),
            version_num: catalog.version_num,
            via_root: options.as_ref().is_some_and(|row| row.get(0)),
            schemas: options.map_or_else(Vec::new, |row| row.get(1)),
            partitioned: partitioned.iter().map(|row| row.get(0)).collect(),
            tables: published(session, catalog.version_num, name).await?,
            faults: catalog.all_faults(mapping),
            full: full(session, name).await?,
            mapped,
        })
    }

    /// Of a mapped table, run the SQL again; of another one, take it out.
    fn fix(&self, table: &Published) -> String {
        if self.mapped.contains(&table.name) {
            self.run_source_sql.clone()
        } else {
            self.take_out(&table.name)
        }
    }

    fn take_out(&self, table: &str) -> String {
        format!("ALTER PUBLICATION {} DROP TABLE {};", quoted(&self.name), qualified(table))
    }

    fn object(&self) -> String {
        format!("publication {}", quoted(&self.name))
    }

    /// Faults of the mapping of one kind that no finding of ours names yet.
    fn told_by_catalog(&self, kind: TableFault, known: &[Found]) -> Vec<Found> {
        let of_kind = self.faults.iter().filter(|(fault, _)| *fault == Some(kind));
        let found = of_kind.map(|(_, error)| {
            let object = place(error);
            Found::critical(&object, &error.message, &self.run_source_sql)
        });
        let is_known =
            |found: &Found| known.iter().any(|known| found.finding.contains(known.object.as_str()));
        found.filter(|found| !is_known(found)).collect()
    }

    /// Faults of the mapping's lines by what their message says.
    fn lines(&self, wanted: impl Fn(&str) -> bool) -> impl Iterator<Item = &MappingError> {
        let of_lines = self.faults.iter();
        let of_lines = of_lines.filter(|(fault, _)| {
            matches!(fault, None | Some(TableFault::NotATable | TableFault::Unlogged))
        });
        of_lines.map(|(_, error)| error).filter(move |error| wanted(&error.message))
    }
}

fn place(error: &MappingError) -> String {
    format!("{}:{}:{}", error.file, error.line, error.column)
}

/// What the publication sends, with partitions beside the tables that stand for them.
async fn published(
    session: &Session,
    version_num: u32,
    publication: &str,
) -> Result<Vec<Published>, tokio_postgres::Error> {
    // Column lists and row filters came with 15; an identity FULL has generated columns from 18 on.
    let (columns, list, filter) = if version_num >= 150_000 {
        (
            "p.attnames::text[]",
            "EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication o ON o.oid = r.prpubid WHERE o.pubname = $1 AND r.prattrs IS NOT NULL AND r.prrelid IN (c.oid, l.oid))",
            "p.rowfilter IS NOT NULL",
        )
    } else {
        (
            "ARRAY (SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '')",
            "false",
            "false",
        )
    };
    let generated = if version_num >= 180_000 { "true" } else { "a.attgenerated = ''" };
    let query = format!(
        "SELECT n.nspname || '.' || c.relname, ln.nspname || '.' || l.relname, l.relreplident::text,
                ARRAY (SELECT a.attname::text FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
                        WHERE i.indrelid = l.oid AND CASE l.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END),
                {columns}, {list}, {filter},
                ARRAY (SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND ({generated}))
           FROM pg_publication_tables p JOIN pg_namespace n ON n.nspname = p.schemaname JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
           JOIN LATERAL (SELECT c.oid AS relid WHERE c.relkind <> 'p' UNION ALL SELECT relid FROM pg_partition_tree(c.oid) WHERE isleaf AND relid <> c.oid AND c.relkind = 'p') AS t ON true
           JOIN pg_class l ON l.oid = t.relid JOIN pg_namespace ln ON ln.oid = l.relnamespace
          WHERE p.pubname = $1 ORDER BY 1, 2 LIMIT 5000"
    );
    let rows = session.client.query(&query, &[&publication]).await?;
    let table = |row: &tokio_postgres::Row| Published {
        name: row.get(0),
        leaf: row.get(1),
        identity: row.get(2),
        identity_columns: row.get(3),
        columns: row.get::<_, Option<Vec<String>>>(4).unwrap_or_default(),
        has_list: row.get(5),
        has_filter: row.get(6),
        whole: row.get(7),
    };
    Ok(rows.iter().map(table).collect())
}

/// The old row is in the log of each UPDATE and DELETE: rows times their mean width, since statistics began.
async fn full(session: &Session, publication: &str) -> Result<Full, tokio_postgres::Error> {
    const QUERY: &str = "SELECT s.schemaname || '.' || s.relname, ((s.n_tup_upd + s.n_tup_del) * c.relpages::float8 * current_setting('block_size')::float8 / greatest(c.reltuples, 1))::float8, extract(epoch FROM now() - coalesce(d.stats_reset, pg_postmaster_start_time()))::float8 FROM pg_publication_tables p JOIN pg_stat_user_tables s ON s.schemaname = p.schemaname AND s.relname = p.tablename JOIN pg_class c ON c.oid = s.relid JOIN pg_stat_database d ON d.datname = current_database() WHERE p.pubname = $1 AND c.relreplident = 'f' ORDER BY 2 DESC, 1";
    let rows = session.client.query(QUERY, &[&publication]).await?;
    Ok(Full {
        tables: rows.iter().map(|row| row.get(0)).collect(),
        bytes: rows.iter().map(|row| row.get::<_, f64>(1)).sum(),
        seconds: rows.first().map_or(0.0, |row| row.get(2)),
    })
}

fn publication(facts: &Facts) -> Verdict {
    if facts.is_published {
        return Ok(format!("\"{}\" exists", facts.name));
    }
    let finding =
        format!("it does not exist in database {}: no change would be sent", facts.database);
    Err(vec![Found::critical(&facts.object(), finding, &facts.run_source_sql)])
}

fn all_tables(facts: &Facts) -> Verdict {
    let found = facts.is_all_tables.then(|| {
        let finding = "it is FOR ALL TABLES: it publishes every table that there will ever be, secrets included, and breaks the writes of each that has no primary key";
        let (print, _) = facts.run_source_sql.split_once(" | ").unwrap_or_default();
        let fix = format!(
            "# in one transaction: while a slot lives, a publication that is missing for a moment stops it\n{{ echo 'BEGIN; DROP PUBLICATION {};'; {print} | grep -v '^BEGIN;'; }} | psql -d {}",
            quoted(&facts.name),
            quoted(&facts.database)
        );
        Found::critical(&facts.object(), finding, fix)
    });
    verdict(found.into_iter().collect(), "it lists its tables")
}

fn publication_operations(facts: &Facts) -> Verdict {
    let found = facts.missing_operations.as_ref().map(|operations| {
        let finding = format!(
            "it does not publish {operations}: those changes would be missing without a word"
        );
        let fix = format!(
            "ALTER PUBLICATION {} SET (publish = 'insert, update, delete, truncate');",
            quoted(&facts.name)
        );
        Found::critical(&facts.object(), finding, fix)
    });
    verdict(found.into_iter().collect(), "insert, update, delete, truncate")
}

fn via_root(facts: &Facts) -> Verdict {
    let is_missed = facts.is_published && !facts.via_root && !facts.partitioned.is_empty();
    let found = is_missed.then(|| {
        let finding = format!(
            "publish_via_partition_root is off, and the mapping names {}: its changes would bear the partitions' names",
            listed(&facts.partitioned)
        );
        let fix = format!(
            "ALTER PUBLICATION {} SET (publish_via_partition_root = true);",
            quoted(&facts.name)
        );
        Found::critical(&facts.object(), finding, fix)
    });
    verdict(found.into_iter().collect(), "partitions are told as their table")
}

fn whole_schema(facts: &Facts) -> Verdict {
    let found = facts.schemas.iter().map(|schema| {
        let finding = format!("it publishes all tables of schema {schema}, also those that are yet to come, whole: no column list can leave a secret out");
        let fix = format!(
            "ALTER PUBLICATION {} DROP TABLES IN SCHEMA {};\n{}",
            quoted(&facts.name),
            quoted(schema),
            facts.run_source_sql.replace("portal-audit sql", "-- then, if tables are missing: portal-audit sql")
        );
        Found::warning(&facts.object(), finding, fix)
    });
    verdict(found.collect(), "no whole schema")
}

fn tables_published(facts: &Facts) -> Verdict {
    if !facts.is_published {
        return Ok("not judged without a publication".to_owned());
    }
    let of_partitioned = |error: &MappingError| {
        !facts.via_root
            && facts.partitioned.iter().any(|table| error.message.ends_with(table.as_str()))
    };
    let found = facts.told_by_catalog(TableFault::NotPublished, &[]);
    let errors = facts.faults.iter().filter(|(_, error)| of_partitioned(error));
    let told: Vec<&str> = errors.map(|(_, error)| error.message.as_str()).collect();
    let found = found.into_iter().filter(|found| !told.contains(&found.finding.as_str()));
    verdict(found.collect(), format!("all {} mapped tables", facts.mapped.len()))
}

fn is_about_unpublished(message: &str) -> bool {
    message.starts_with("column ") && message.ends_with(" is not published")
}

fn is_about_old_values(message: &str) -> bool {
    message.contains("which the replica identity of")
}

fn columns_published(facts: &Facts) -> Verdict {
    let lines = facts.lines(is_about_unpublished);
    let found =
        lines.map(|error| Found::critical(&place(error), &error.message, &facts.run_source_sql));
    verdict(found.collect(), "all mapped columns")
}

fn unmapped_tables(facts: &Facts) -> Verdict {
    if facts.is_all_tables || !facts.schemas.is_empty() {
        return Ok("told by all_tables, whole_schema".to_owned());
    }
    let mut names: Vec<&str> = facts.tables.iter().map(|table| table.name.as_str()).collect();
    names.dedup();
    let is_known = |name: &str| facts.mapped.iter().any(|mapped| mapped == name);
    let is_partition = !facts.via_root && !facts.partitioned.is_empty();
    let found = names.iter().filter(|name| !is_known(name) && !is_partition).map(|name| {
        let finding = "it is published and no rule reads it: its changes cross the wire and are counted as unmapped";
        Found::warning(name, finding, facts.take_out(name))
    });
    verdict(found.collect(), "none")
}

fn replica_identity(facts: &Facts) -> Verdict {
    let without = facts.tables.iter().filter(|table| !table.has_identity());
    let mut found: Vec<Found> = without
        .map(|table| {
            let finding =
                "it has no replica identity: the portal's own UPDATE and DELETE of it fail (55000)";
            Found::critical(&table.object(), finding, facts.fix(table))
        })
        .collect();
    found.extend(facts.told_by_catalog(TableFault::NoIdentity, &found));
    verdict(found, "each published table has one")
}

fn column_list(facts: &Facts) -> Verdict {
    let mut found = Vec::new();
    for table in &facts.tables {
        let left_out = |columns: &[String]| -> Vec<String> {
            let kept = columns.iter().filter(|column| !table.columns.contains(column));
            kept.cloned().collect()
        };
        let finding = if table.identity == "f" {
            let missing = left_out(&table.whole);
            if table.has_list {
                "replica identity FULL and a column list exclude each other".to_owned()
            } else if missing.is_empty() {
                continue;
            } else {
                format!("replica identity FULL has {}, which is not published", listed(&missing))
            }
        } else {
            let missing = left_out(&table.identity_columns);
            if missing.is_empty() {
                continue;
            }
            format!(
                "the column list leaves out {}, which the replica identity has",
                listed(&missing)
            )
        };
        let finding = format!("{finding}: the portal's own UPDATE and DELETE of it fail (42P10)");
        found.push(Found::critical(&table.object(), finding, facts.fix(table)));
    }
    found.extend(facts.told_by_catalog(TableFault::ColumnList, &found));
    verdict(found, "each covers its replica identity")
}

fn row_filter(facts: &Facts) -> Verdict {
    let filtered = facts.tables.iter().filter(|table| table.has_filter);
    let mut found: Vec<Found> = filtered
        .map(|table| {
            let finding = "rows are filtered: one that leaves the filter looks deleted, and a filter on other columns than the replica identity's makes the portal's own writes fail (42P10)";
            Found::critical(&table.object(), finding, facts.fix(table))
        })
        .collect();
    found.extend(facts.told_by_catalog(TableFault::RowFilter, &found));
    verdict(found, "none")
}

fn old_values(facts: &Facts) -> Verdict {
    let lines = facts.lines(is_about_old_values);
    let found =
        lines.map(|error| Found::critical(&place(error), &error.message, &facts.run_source_sql));
    let found = found.chain(facts.told_by_catalog(TableFault::Partitions, &[]));
    verdict(found.collect(), "the replica identities carry what rules read")
}

fn secrets_published(facts: &Facts) -> Verdict {
    let mut found = Vec::new();
    for table in facts.tables.iter().filter(|table| table.leaf == table.name || facts.via_root) {
        let secrets = table.columns.iter().filter(|column| is_denied(column));
        let secrets: Vec<&String> = secrets.collect();
        if secrets.is_empty() || found.iter().any(|found: &Found| found.object == table.name) {
            continue;
        }
        let columns = format!("column {}", listed(&secrets));
        found.push(if facts.version_num < 150_000 {
            let finding = format!("{columns} looks like a secret and crosses the wire, because PostgreSQL 14 has no column lists; it reaches no event");
            Found::warning(&table.name, finding, "-- upgrade the server to 15 or later, then run portal-audit sql source again; and see that the connection is encrypted")
        } else {
            let finding = format!("{columns} looks like a secret and is published");
            Found::critical(&table.name, finding, facts.fix(table))
        });
    }
    verdict(found, "no column that looks like a secret")
}

fn mapping(facts: &Facts) -> Verdict {
    let lines =
        facts.lines(|message| !is_about_unpublished(message) && !is_about_old_values(message));
    let found = lines.map(|error| {
        let hint = error.hint.as_deref().unwrap_or("Change the mapping, or the table.");
        let is_sql = hint.strip_prefix("Run: ");
        let fix = is_sql.map_or_else(
            || format!("# {}, line {}: {hint}", error.file, error.line),
            str::to_owned,
        );
        Found::critical(&place(error), &error.message, fix)
    });
    verdict(found.collect(), format!("fits the {} tables that it names", facts.mapped.len()))
}

fn full_identity_cost(facts: &Facts) -> Verdict {
    let Full { tables, bytes, seconds } = &facts.full;
    let a_day = bytes / seconds.max(STATISTICS_SECONDS_MIN) * 86_400.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate, never negative"
    )]
    let size = |bytes: f64| crate::show::bytes(bytes as u64);
    let holds = format!("{} tables with FULL: about {} more log a day", tables.len(), size(a_day));
    if a_day < FULL_BYTES_A_DAY {
        return Ok(holds);
    }
    let finding = format!(
        "replica identity FULL of {} adds about {} of log a day, the most of it by the first",
        listed(tables),
        size(a_day)
    );
    let table = tables.first().map_or("", String::as_str);
    let fix = format!(
        "-- if its rules need few old values: a unique index of NOT NULL columns with those, in place of FULL\nCREATE UNIQUE INDEX CONCURRENTLY … ON {0} (…);\nALTER TABLE {0} REPLICA IDENTITY USING INDEX …;",
        qualified(table)
    );
    Err(vec![Found::warning(table, finding, fix)])
}

#[cfg(test)]
mod tests {
    use super::{Facts, Full, full_identity_cost};

    #[test]
    fn the_cost_of_full_is_told_by_the_day() {
        let facts = |bytes, seconds| Facts {
            full: Full { tables: vec!["portal.users".into()], bytes, seconds },
            name: "p".into(),
            database: "d".into(),
            run_source_sql: String::new(),
            is_published: true,
            is_all_tables: false,
            missing_operations: None,
            version_num: 180_000,
            via_root: true,
            schemas: Vec::new(),
            mapped: Vec::new(),
            partitioned: Vec::new(),
            tables: Vec::new(),
            faults: Vec::new(),
        };
        let found = full_identity_cost(&facts(2e9, 86_400.0)).unwrap_err();
        assert!(found[0].finding.contains("1.8 GiB") && !found[0].fix.is_empty(), "{found:?}");
        assert!(full_identity_cost(&facts(2e9, 86_400.0 * 7.0)).is_ok());
        // The first minutes after a reset are no day.
        assert!(full_identity_cost(&facts(4e7, 1.0)).is_ok());
    }
}
