//! `mapping scaffold TABLE`: the first blocks for a table of the live database, to be edited.
//!
//! What it prints is a sound mapping as it stands: it passes `mapping check` behind the one it is appended to. What a person must decide stands in a comment.

mod blocks;

use super::{Failure, Output, ScaffoldArguments, chosen, settings};
use crate::{
    chain::chain,
    connect::{self, Session},
    translate::{deny::is_denied, mapping::meant_or_known},
};

/// A table as the catalog describes it.
#[derive(Debug)]
pub(super) struct LiveTable {
    /// `schema.table`.
    pub(super) name: String,
    pub(super) is_full: bool,
    pub(super) columns: Vec<LiveColumn>,
}

#[derive(Debug)]
pub(super) struct LiveColumn {
    pub(super) name: String,
    /// `pg_type.typname`.
    pub(super) type_name: String,
    /// `pg_type.typcategory`.
    pub(super) category: char,
    pub(super) is_generated: bool,
    /// Place in the primary key.
    pub(super) key: Option<i32>,
    /// Whether the replica identity has it.
    pub(super) is_identity: bool,
    /// The values that an enum type or a CHECK allows.
    pub(super) labels: Option<String>,
    pub(super) foreign: Option<Foreign>,
}

/// Where a foreign key of one column points to.
#[derive(Debug)]
pub(super) struct Foreign {
    pub(super) table: String,
    pub(super) key: String,
    /// Whether the key is itself a text, and so a name.
    pub(super) is_text: bool,
    /// The column of that table that looks like a name.
    pub(super) name: Option<String>,
}

impl LiveColumn {
    pub(super) fn is_denied(&self) -> bool {
        is_denied(&self.name)
    }

    pub(super) fn is_text(&self) -> bool {
        self.category == 'S'
    }
}

/// Columns that name a row to people, the best first.
pub(super) const NAME_COLUMNS: [&str; 8] =
    ["name", "username", "login", "handle", "slug", "title", "label", "display_name"];

const TABLES: &str = "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg_toast%' ORDER BY 1 LIMIT 10000";

const COLUMNS: &str = "SELECT c.relreplident = 'f', a.attname::text, t.typname::text, t.typcategory::text, a.attgenerated <> '',
        array_position((k.indkey::int2[])[0:k.indnkeyatts - 1], a.attnum)::int4,
        coalesce(a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]), false),
        coalesce((SELECT string_agg(e.enumlabel, ', ' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = a.atttypid),
                 (SELECT (SELECT string_agg(m[1], ', ') FROM regexp_matches(d.def, CASE WHEN d.def LIKE '%''%' THEN '''([^'']*)''' ELSE '(-?\\d+)' END, 'g') AS m)
                    FROM pg_constraint x CROSS JOIN LATERAL (SELECT pg_get_constraintdef(x.oid) AS def) d
                   WHERE x.conrelid = c.oid AND x.contype = 'c' AND x.conkey = ARRAY[a.attnum] AND d.def LIKE '% = ANY %' LIMIT 1)),
        f.table_name, f.key, f.is_text, f.name
   FROM pg_class c
   JOIN pg_namespace n ON n.oid = c.relnamespace
   JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
   JOIN pg_type t ON t.oid = a.atttypid
   LEFT JOIN pg_index k ON k.indrelid = c.oid AND k.indisprimary
   LEFT JOIN pg_index i ON i.indrelid = c.oid
        AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END
   LEFT JOIN LATERAL (
        SELECT rn.nspname || '.' || rc.relname AS table_name, ra.attname::text AS key, rt.typcategory = 'S' AS is_text,
               (SELECT m.attname::text FROM pg_attribute m JOIN pg_type mt ON mt.oid = m.atttypid
                 WHERE m.attrelid = rc.oid AND NOT m.attisdropped AND mt.typcategory = 'S' AND m.attname::text = ANY ($2)
                 ORDER BY array_position($2, m.attname::text) LIMIT 1) AS name
          FROM pg_constraint x
          JOIN pg_class rc ON rc.oid = x.confrelid
          JOIN pg_namespace rn ON rn.oid = rc.relnamespace
          JOIN pg_attribute ra ON ra.attrelid = rc.oid AND ra.attnum = x.confkey[1]
          JOIN pg_type rt ON rt.oid = ra.atttypid
         WHERE x.conrelid = c.oid AND x.contype = 'f' AND x.conkey = ARRAY[a.attnum] LIMIT 1) f ON true
  WHERE n.nspname || '.' || c.relname = $1 AND c.relkind IN ('r', 'p')
  ORDER BY a.attnum";

pub(super) async fn run(arguments: ScaffoldArguments) -> Result<Output, Failure> {
    let ScaffoldArguments { table, config, source } = arguments;
    let settings = settings(&config)?;
    let source = chosen(&settings, source.as_deref())?;
    let failed = |text: String| Failure::Fault(format!("source {}: {text}", source.name));
    let session = connect::connect(&source.conninfo, "mapping scaffold").await;
    let session = session.map_err(|error| failed(chain(&error)))?;
    let table = load(&session, &table).await.map_err(failed)?;
    let text = blocks::render(&table, &source.mapping).map_err(failed)?;
    Ok(Output { text, is_well: true })
}

async fn load(session: &Session, named: &str) -> Result<LiveTable, String> {
    let failed = |error| connect::describe(&error);
    let rows = session.client.query(COLUMNS, &[&named, &NAME_COLUMNS.as_slice()]).await;
    let rows = rows.map_err(failed)?;
    if rows.is_empty() {
        let tables = session.client.query(TABLES, &[]).await.map_err(failed)?;
        let tables: Vec<&str> = tables.iter().map(|row| row.get(0)).collect();
        let elsewhere = tables.iter().find(|table| table.rsplit('.').next() == Some(named));
        let hint = elsewhere
            .map(|table| format!("Did you mean {table:?}?"))
            .or_else(|| meant_or_known(named, "Its tables are", &tables));
        return Err(format!("the database has no table {named:?}. {}", hint.unwrap_or_default()));
    }
    if named.matches('.').count() != 1 {
        return Err(format!(
            "{named:?} holds a second dot: a mapping names a table schema.table, so it cannot name this one"
        ));
    }
    let column = |row: &tokio_postgres::Row| LiveColumn {
        name: row.get(1),
        type_name: row.get(2),
        category: row.get::<_, &str>(3).chars().next().unwrap_or('X'),
        is_generated: row.get(4),
        key: row.get(5),
        is_identity: row.get(6),
        labels: row.get(7),
        foreign: row.get::<_, Option<String>>(8).map(|table| Foreign {
            table,
            key: row.get(9),
            is_text: row.get(10),
            name: row.get(11),
        }),
    };
    Ok(LiveTable {
        name: named.to_owned(),
        is_full: rows.first().is_some_and(|row| row.get(0)),
        columns: rows.iter().map(column).collect(),
    })
}
