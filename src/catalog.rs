//! What a source's catalog says: its tables, its publication and its slot. Reads only.

use crate::{
    connect::{self, Session},
    decode::ReplicaIdentity,
    lsn::Lsn,
    translate::{
        compile::Compiler,
        mapping::{Mapping, MappingError, MappingErrors, meant_or_known},
    },
    tuple::{Relation, RelationColumn, identifier},
};
use tokio_postgres::types::PgLsn;

mod picture;
mod sessions;
mod transactions;
pub use picture::{holes, picture};
pub use sessions::{oldest_writer, reader, slots_used};
pub use transactions::{Outcome, clock_and_log_end, is_server, log_end, outcomes};

/// Why a source cannot be followed as it is. A server's report is not a source of the error: its DETAIL is not for the log.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error("cannot read the catalog: {}", connect::describe(report))]
    Query { report: tokio_postgres::Error },
    #[error(
        "publication \"{publication}\" does not exist in database \"{database}\". Run what `portal-audit sql source` prints there."
    )]
    NoPublication { publication: String, database: String },
    #[error(
        "publication \"{publication}\" is FOR ALL TABLES: it publishes every table that there will ever be, secrets included. Drop it and run what `portal-audit sql source` prints in database \"{database}\"."
    )]
    AllTables { publication: String, database: String },
    #[error(
        "publication \"{publication}\" does not publish {operations}. Run: ALTER PUBLICATION {publication} SET (publish = 'insert, update, delete, truncate')"
    )]
    NotPublishing { publication: String, operations: String },
    #[error("the mapping does not fit the database")]
    Mapping(#[source] MappingErrors),
}

impl CatalogError {
    /// The server's code, if it was the server.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Query { report } => connect::sqlstate_of(report),
            _ => None,
        }
    }
}

/// A table of the mapping as it is in the source.
#[derive(Debug, Clone)]
pub struct SourceTable {
    /// With the published columns only.
    pub relation: Relation,
    /// Positions of the primary key's columns.
    pub primary_key: Vec<usize>,
    /// The others, which a column list leaves out or which are generated.
    unpublished: Vec<String>,
    /// Whether a column list leaves out what the replica identity needs, so that the portal's own updates fail.
    is_identity_unpublished: bool,
    /// Partitions with another replica identity than the table: the log has their old values, not the table's.
    partitions_apart: Option<String>,
    kind: String,
    is_unlogged: bool,
    is_published: bool,
    has_row_filter: bool,
}

/// What can be wrong with a table of the mapping as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableFault {
    NotATable,
    Unlogged,
    NotPublished,
    RowFilter,
    /// Partitions have another replica identity.
    Partitions,
    /// A column list leaves out what the replica identity needs.
    ColumnList,
    NoIdentity,
}

/// A replication slot (manual, `pg_replication_slots`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    pub plugin: Option<String>,
    pub database: Option<String>,
    pub temporary: bool,
    pub two_phase: bool,
    pub active_pid: Option<i32>,
    pub confirmed_flush_lsn: Option<Lsn>,
    pub restart_lsn: Option<Lsn>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// From 17 on.
    pub invalidation_reason: Option<String>,
}

/// What was read.
#[derive(Debug, Clone)]
pub struct Catalog {
    pub version_num: u32,
    pub database: String,
    pub database_oid: u32,
    pub server_encoding: String,
    pub is_in_recovery: bool,
    pub tables: Vec<SourceTable>,
    all_tables: Vec<String>,
    publication: String,
    /// Whether there is one of that name, and whether it publishes all tables.
    is_published: bool,
    is_all_tables: bool,
    missing_operations: Option<String>,
}

impl Catalog {
    /// Reads what concerns a publication and a mapping.
    ///
    /// # Errors
    /// The source does not answer, or the publication does not exist.
    pub async fn load(
        session: &Session,
        publication: &str,
        mapping: &Mapping,
    ) -> Result<Self, CatalogError> {
        let catalog = Self::load_any(session, publication, mapping).await?;
        if catalog.is_published { Ok(catalog) } else { Err(catalog.no_publication()) }
    }

    /// The same, whether there is such a publication or not: [`Catalog::check`] tells then.
    ///
    /// # Errors
    /// The source does not answer.
    pub async fn load_any(
        session: &Session,
        publication: &str,
        mapping: &Mapping,
    ) -> Result<Self, CatalogError> {
        const SERVER: &str = "SELECT current_setting('server_version_num')::int, current_database()::text, (SELECT oid FROM pg_database WHERE datname = current_database()), current_setting('server_encoding'), pg_is_in_recovery()";
        const PUBLICATION: &str = "SELECT concat_ws(', ', CASE WHEN NOT pubinsert THEN 'insert' END, CASE WHEN NOT pubupdate THEN 'update' END, CASE WHEN NOT pubdelete THEN 'delete' END, CASE WHEN NOT pubtruncate THEN 'truncate' END), puballtables FROM pg_publication WHERE pubname = $1";
        // A name of bytes without encoding is not one that a mapping could have meant.
        const ALL_TABLES: &str = "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg_toast%' AND (getdatabaseencoding() <> 'SQL_ASCII' OR octet_length(n.nspname || c.relname) = length(regexp_replace(n.nspname || c.relname, '[^ -~]', '', 'g'))) LIMIT 10000";
        let failed = |report| CatalogError::Query { report };
        let server = session.client.query_one(SERVER, &[]).await.map_err(failed)?;
        let version_num = u32::try_from(server.get::<_, i32>(0)).unwrap_or(0);
        let database: String = server.get(1);
        let row = session.client.query_opt(PUBLICATION, &[&publication]).await.map_err(failed)?;
        let missing: Option<String> = row.as_ref().map(|row| row.get(0));
        let all = session.client.query(ALL_TABLES, &[]).await.map_err(failed)?;
        Ok(Self {
            version_num,
            database,
            database_oid: server.get(2),
            server_encoding: server.get(3),
            is_in_recovery: server.get(4),
            tables: load_tables(session, version_num, publication, mapping).await?,
            all_tables: all.iter().map(|row| row.get(0)).collect(),
            publication: publication.to_owned(),
            is_published: row.is_some(),
            is_all_tables: row.is_some_and(|row| row.get(1)),
            missing_operations: missing.filter(|missing| !missing.is_empty()),
        })
    }

    /// Checks a mapping against what is published.
    ///
    /// # Errors
    /// Everything that would lose a change or stop the stream, each at its place in the mapping.
    pub fn check(&self, mapping: &Mapping) -> Result<(), CatalogError> {
        if let Some(fault) = self.publication_fault() {
            return Err(fault);
        }
        let errors: Vec<_> = self.all_faults(mapping).into_iter().map(|(_, error)| error).collect();
        if errors.is_empty() { Ok(()) } else { Err(CatalogError::Mapping(MappingErrors(errors))) }
    }

    /// What is wrong with the tables of a mapping, in the order of its file; with the fault of the table, where it is one of a table as a whole.
    #[must_use]
    pub fn all_faults(&self, mapping: &Mapping) -> Vec<(Option<TableFault>, MappingError)> {
        let mut errors = Vec::new();
        for named in mapping.tables() {
            let of_table = self.table(&named).and_then(|table| self.table_fault(table));
            let fault = of_table.map(|(fault, ..)| fault);
            errors.extend(self.faults(mapping, &named).into_iter().map(|error| (fault, error)));
        }
        // Nothing is read of these, so that they need not be published.
        let attempts = mapping.attempts.keys().map(toml::Spanned::get_ref);
        let read = mapping.tables();
        let unknown =
            attempts.filter(|table| !self.all_tables.contains(table) && !read.contains(table));
        errors.extend(unknown.map(|table| (None, self.no_table(mapping, table))));
        errors.sort_by_key(|(_, error)| (error.line, error.column));
        errors
    }

    /// Whether there is a publication of that name.
    #[must_use]
    pub fn is_published(&self) -> bool {
        self.is_published
    }

    /// Whether it publishes all tables.
    #[must_use]
    pub fn is_all_tables(&self) -> bool {
        self.is_all_tables
    }

    /// Operations that it leaves out, as `update, delete`.
    #[must_use]
    pub fn missing_operations(&self) -> Option<&str> {
        self.missing_operations.as_deref()
    }

    fn no_publication(&self) -> CatalogError {
        let (publication, database) = (self.publication.clone(), self.database.clone());
        CatalogError::NoPublication { publication, database }
    }

    /// What is wrong with the publication as a whole.
    fn publication_fault(&self) -> Option<CatalogError> {
        if !self.is_published {
            return Some(self.no_publication());
        }
        let (publication, database) = (self.publication.clone(), self.database.clone());
        if self.is_all_tables {
            return Some(CatalogError::AllTables { publication, database });
        }
        let operations = self.missing_operations.clone()?;
        Some(CatalogError::NotPublishing { publication, operations })
    }

    /// What is wrong with one table of the mapping, and with what the mapping says of it; not sorted.
    #[must_use]
    pub fn faults(&self, mapping: &Mapping, named: &str) -> Vec<MappingError> {
        let Some(table) = self.table(named) else {
            let is_optional =
                mapping.kratos.as_ref().is_some_and(|kratos| kratos.is_optional(named));
            return if is_optional { Vec::new() } else { vec![self.no_table(mapping, named)] };
        };
        match self.table_fault(table) {
            Some((_, message, hint)) => {
                vec![mapping.error(place_of(mapping, named), message, Some(hint))]
            }
            None => Compiler::check(mapping, &table.relation, &table.unpublished),
        }
    }

    /// The qualified names of all tables of the database, whether the mapping uses them or not; at most 10,000.
    #[must_use]
    pub fn all_tables(&self) -> &[String] {
        &self.all_tables
    }

    /// A table by its qualified name.
    #[must_use]
    pub fn table(&self, qualified_name: &str) -> Option<&SourceTable> {
        self.tables.iter().find(|table| table.relation.qualified_name() == qualified_name)
    }

    fn no_table(&self, mapping: &Mapping, named: &str) -> MappingError {
        let message = format!("database \"{}\" has no table \"{named}\"", self.database);
        let known: Vec<&str> = self.all_tables.iter().map(String::as_str).collect();
        let name = named.rsplit('.').next().unwrap_or(named);
        let elsewhere = known.iter().find(|table| table.rsplit('.').next() == Some(name));
        let hint = elsewhere
            .map(|table| format!("Did you mean {table:?}?"))
            .or_else(|| meant_or_known(named, "Its tables are", &known));
        mapping.error(place_of(mapping, named), message, hint)
    }

    /// What is wrong with a table as a whole, and its fix.
    fn table_fault(&self, table: &SourceTable) -> Option<(TableFault, String, String)> {
        let name = table.relation.qualified_name();
        let publication = &self.publication;
        let kind = match table.kind.as_str() {
            "r" | "p" => None,
            "v" => Some("a view"),
            "m" => Some("a materialized view"),
            "f" => Some("a foreign table"),
            _ => Some("not a table"),
        };
        if let Some(kind) = kind {
            let hint = "Only ordinary and partitioned tables are in the log. Name the table that the portal writes.".to_owned();
            return Some((TableFault::NotATable, format!("{name} is {kind}"), hint));
        }
        if table.is_unlogged {
            let hint = format!("Run: ALTER TABLE {name} SET LOGGED;");
            return Some((
                TableFault::Unlogged,
                format!("{name} is unlogged, so its changes are not in the log"),
                hint,
            ));
        }
        if !table.is_published {
            return Some((
                TableFault::NotPublished,
                format!("publication \"{publication}\" does not publish {name}"),
                RUN_SOURCE_SQL.to_owned(),
            ));
        }
        if table.has_row_filter {
            let hint = format!(
                "A row that leaves the filter looks deleted. {RUN_SOURCE_SQL} It publishes {name} without the filter."
            );
            return Some((
                TableFault::RowFilter,
                format!("publication \"{publication}\" filters the rows of {name}"),
                hint,
            ));
        }
        if let Some(partitions) = &table.partitions_apart {
            return Some((
                TableFault::Partitions,
                format!(
                    "{partitions} of {name} has another replica identity, so old values are missing there"
                ),
                RUN_SOURCE_SQL.to_owned(),
            ));
        }
        if table.is_identity_unpublished {
            return Some((
                TableFault::ColumnList,
                format!(
                    "publication \"{publication}\" leaves out columns of {name} that its replica identity needs, so the portal's own updates of it fail"
                ),
                RUN_SOURCE_SQL.to_owned(),
            ));
        }
        if table.relation.replica_identity == ReplicaIdentity::Nothing
            || !table.relation.columns.iter().any(|column| column.key)
        {
            return Some((
                TableFault::NoIdentity,
                format!("{name} has no replica identity, so the portal's own updates of it fail"),
                format!("Give it a primary key, or: {RUN_SOURCE_SQL}"),
            ));
        }
        None
    }
}

const RUN_SOURCE_SQL: &str = "Run what `portal-audit sql source` prints on that database.";

impl SourceTable {
    /// Whether the table has a column, published or not.
    #[must_use]
    pub fn has_column(&self, column: &str) -> bool {
        self.relation.position(column).is_some()
            || self.unpublished.iter().any(|name| name == column)
    }

    /// From a row of [`load_tables`].
    fn without_columns(row: &tokio_postgres::Row) -> Self {
        let letter = row.get::<_, &str>(4).bytes().next().unwrap_or(b'n');
        Self {
            relation: Relation {
                oid: row.get(0),
                namespace: row.get(1),
                name: row.get(2),
                replica_identity: ReplicaIdentity::from_letter(letter)
                    .unwrap_or(ReplicaIdentity::Nothing),
                columns: Vec::new(),
            },
            primary_key: Vec::new(),
            unpublished: Vec::new(),
            is_identity_unpublished: false,
            partitions_apart: row.get(14),
            kind: row.get(3),
            is_unlogged: row.get::<_, &str>(5) != "p",
            is_published: row.get(10),
            has_row_filter: row.get(11),
        }
    }
}

fn place_of(mapping: &Mapping, table: &str) -> std::ops::Range<usize> {
    let mut all = mapping.table_names().chain(mapping.attempts.keys());
    let of_kratos = mapping.kratos.as_ref().map_or(0..0, |kratos| kratos.schema.span());
    all.find(|name| name.get_ref() == table).map_or(of_kratos, toml::Spanned::span)
}

async fn load_tables(
    session: &Session,
    version_num: u32,
    publication: &str,
    mapping: &Mapping,
) -> Result<Vec<SourceTable>, CatalogError> {
    // Column lists and row filters came with 15.
    let (listed, filtered) = if version_num >= 150_000 {
        ("coalesce(a.attname = ANY (p.attnames), true)", "p.rowfilter IS NOT NULL")
    } else {
        ("true", "false")
    };
    // Stored generated columns can be published from 18 on.
    let generated = if version_num >= 180_000 {
        "a.attgenerated = '' OR coalesce(a.attname = ANY (p.attnames), false)"
    } else {
        "a.attgenerated = ''"
    };
    let query = format!(
        "SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relreplident::text, c.relpersistence::text,
                convert_to(a.attname::text, CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END), a.atttypid,
                c.relreplident = 'f' OR coalesce(a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]), false),
                coalesce(a.attnum = ANY ((k.indkey::int2[])[0:k.indnkeyatts - 1]), false),
                p.tablename IS NOT NULL, {filtered}, {listed} AND ({generated}), a.attgenerated <> '',
                (SELECT string_agg(l.oid::regclass::text, ', ') FROM pg_class l
                  WHERE c.relkind = 'p' AND l.relreplident <> c.relreplident AND l.oid IN (SELECT relid FROM pg_partition_tree(c.oid)))
           FROM pg_class c
           JOIN pg_namespace n ON n.oid = c.relnamespace
           JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
           LEFT JOIN pg_index k ON k.indrelid = c.oid AND k.indisprimary
           LEFT JOIN pg_index i ON i.indrelid = c.oid
                AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END
           LEFT JOIN pg_publication_tables p ON p.pubname = $1 AND p.schemaname = n.nspname AND p.tablename = c.relname
          WHERE n.nspname || '.' || c.relname = ANY ($2)
          ORDER BY c.oid, a.attnum"
    );
    let tables = mapping.tables();
    let rows = session.client.query(&query, &[&publication, &tables]).await;
    let rows = rows.map_err(|report| CatalogError::Query { report })?;
    let mut tables: Vec<SourceTable> = Vec::new();
    for row in rows {
        let oid: u32 = row.get(0);
        if tables.last().is_none_or(|table| table.relation.oid != oid) {
            tables.push(SourceTable::without_columns(&row));
        }
        let Some(table) = tables.last_mut() else { continue };
        // A database without an encoding may have names of any bytes.
        let (name, type_oid, key) = (identifier(row.get(6)), row.get(7), row.get(8));
        if row.get(12) {
            if row.get(9) {
                table.primary_key.push(table.relation.columns.len());
            }
            table.relation.columns.push(RelationColumn { name, type_oid, key });
        } else {
            let is_generated: bool = row.get(13);
            table.is_identity_unpublished |= key && !is_generated && table.is_published;
            table.unpublished.push(name);
        }
    }
    Ok(tables)
}

/// Reads a slot; `None` if there is none of that name.
///
/// # Errors
/// The source does not answer.
pub async fn load_slot(
    session: &Session,
    version_num: u32,
    slot: &str,
) -> Result<Option<Slot>, CatalogError> {
    let reason = if version_num >= 170_000 { "invalidation_reason" } else { "NULL" };
    let query = format!(
        "SELECT plugin::text, database::text, temporary, two_phase, active_pid, confirmed_flush_lsn, restart_lsn, wal_status, {reason}::text FROM pg_replication_slots WHERE slot_name = $1"
    );
    let row = session.client.query_opt(&query, &[&slot]).await;
    let row = row.map_err(|report| CatalogError::Query { report })?;
    let lsn = |lsn: Option<PgLsn>| lsn.map(|lsn| Lsn(lsn.into()));
    Ok(row.map(|row| Slot {
        plugin: row.get(0),
        database: row.get(1),
        temporary: row.get(2),
        two_phase: row.get(3),
        active_pid: row.get(4),
        confirmed_flush_lsn: lsn(row.get(5)),
        restart_lsn: lsn(row.get(6)),
        wal_status: row.get(7),
        invalidation_reason: row.get(8),
    }))
}
