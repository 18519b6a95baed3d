//! The picture of what is covered. Only the catalog's own rows are read: no table of the portal is opened, so that no lock of a release is waited for.

use super::{Catalog, CatalogError, RUN_SOURCE_SQL};
use crate::{
    connect::Session,
    lsn::Lsn,
    timestamp::Timestamp,
    translate::{
        Table,
        compile::Compiler,
        mapping::Mapping,
        picture::{
            ABSENT, ColumnPicture, Facts, Hole, Object, Picture, RENAMED, STATE, THERE,
            TablePicture,
        },
        stopped::rules_of,
    },
};
use std::collections::BTreeMap;

/// Tables that are published and not mapped: of more, these are named.
const ALSO_MAX: &str = "100";

/// A publication's row. `xmin` is the transaction that wrote it last, and stays readable when the row is frozen.
const PUBLICATION: &str = "SELECT p.oid, p.pubname::text, p.xmin::text, p.pubviaroot, p.puballtables,
    concat_ws(', ', CASE WHEN pubinsert THEN 'insert' END, CASE WHEN pubupdate THEN 'update' END, CASE WHEN pubdelete THEN 'delete' END, CASE WHEN pubtruncate THEN 'truncate' END),
    {schemas},
    (SELECT array_agg(named.oid::text || ' ' || named.name ORDER BY named.name) FROM (
       SELECT c.oid, n.nspname || '.' || c.relname AS name FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE r.prpubid = p.oid AND n.nspname || '.' || c.relname <> ALL ($3) ORDER BY 2 LIMIT {also}) AS named)
  FROM pg_publication p WHERE p.pubname = $1 OR p.oid = $2 ORDER BY p.pubname = $1 DESC";

/// Mapped tables, by name or by an oid that is known; with the publication's entries for them or a table that they are partitions of.
const TABLES: &str = "WITH RECURSIVE t AS (
    SELECT c.oid, n.nspname || '.' || c.relname AS name, n.oid AS nspoid, c.relkind::text AS kind, c.relreplident::text AS ident
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname || '.' || c.relname = ANY ($2) OR c.oid = ANY ($3)),
  up AS (SELECT oid, oid AS of FROM t UNION
         SELECT up.oid, i.inhparent FROM up JOIN pg_inherits i ON i.inhrelid = up.of JOIN pg_class c ON c.oid = i.inhparent AND c.relkind = 'p'),
  down AS (SELECT oid AS root, oid FROM t WHERE kind = 'p' UNION
           SELECT down.root, i.inhrelid FROM down JOIN pg_inherits i ON i.inhparent = down.oid)
SELECT t.oid, t.name, t.kind, t.ident,
   (SELECT string_agg('#' || a.attnum, ', ' ORDER BY a.attnum) FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid
       AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
     WHERE i.indrelid = t.oid AND CASE t.ident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END),
   (SELECT string_agg('entry ' || r.oid, ', ' ORDER BY r.oid) FROM pg_publication_rel r JOIN up ON up.of = r.prrelid WHERE up.oid = t.oid AND r.prpubid = $1),
   {filter}, {columns}, {schema},
   (SELECT array_agg(n.nspname || '.' || c.relname || E'\\n' || c.oid || E'\\n' || c.relfilenode || E'\\n' || c.relreplident::text ORDER BY c.oid)
      FROM down JOIN pg_class c ON c.oid = down.oid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE down.root = t.oid AND c.oid <> t.oid)
  FROM t";

const COLUMNS: &str = "SELECT attrelid, attnum, attname::text, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = ANY ($1) AND attnum > 0 AND NOT attisdropped";

/// Looks at the publication and the mapped tables. `known` is the picture before, which tells what was dropped from what was renamed.
///
/// # Errors
/// The source does not answer.
pub async fn picture(
    session: &Session,
    version_num: u32,
    publication: &str,
    mapping: &Mapping,
    known: Option<&Picture>,
) -> Result<Picture, CatalogError> {
    // One snapshot: between two statements a release may have renamed something.
    const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    let failed = |report| CatalogError::Query { report };
    let names = mapping.tables();
    let oid_of =
        |name: &String| known.and_then(|known| known.tables.get(name)).map_or(0, |table| table.oid);
    let oids: Vec<u32> = names.iter().map(oid_of).filter(|oid| *oid != 0).collect();
    let known_oid = known.map_or(0, |known| known.publication_oid);
    // Row filters, column lists and whole schemas came with 15.
    let is_15 = version_num >= 150_000;
    let schemas = if is_15 {
        "(SELECT string_agg(n.nspname || ' (entry ' || s.oid || ')', ', ' ORDER BY n.nspname) FROM pg_publication_namespace s JOIN pg_namespace n ON n.oid = s.pnnspid WHERE s.pnpubid = p.oid)"
    } else {
        "NULL::text"
    };
    session.client.batch_execute(BEGIN).await.map_err(failed)?;
    let query = PUBLICATION.replace("{schemas}", schemas).replace("{also}", ALSO_MAX);
    let rows = session.client.query(&query, &[&publication, &known_oid, &names]).await;
    let rows = rows.map_err(failed)?;
    let here = rows.iter().find(|row| row.get::<_, &str>(1) == publication);
    let mut picture = Picture {
        publication_oid: here.map_or(known_oid, |row| row.get(0)),
        publication: publication_facts(here, rows.first()),
        tables: BTreeMap::new(),
    };
    let all = here.is_some_and(|row| row.get(4));
    let oid: u32 = here.map_or(0, |row| row.get(0));
    let query = tables_query(is_15);
    let rows = session.client.query(&query, &[&oid, &names, &oids]).await.map_err(failed)?;
    let seen: Vec<u32> = rows.iter().map(|row| row.get(0)).collect();
    let columns = session.client.query(COLUMNS, &[&seen]).await.map_err(failed)?;
    session.client.batch_execute("COMMIT").await.map_err(failed)?;
    let mut renamed: Vec<u32> = Vec::new();
    for name in &names {
        let known_oid = oid_of(name);
        let named = rows.iter().find(|row| row.get::<_, &str>(1) == name);
        let elsewhere = rows.iter().find(|row| row.get::<_, u32>(0) == known_oid);
        let facts = match (named, elsewhere) {
            (Some(row), _) => table_facts(row, all),
            (None, Some(row)) => {
                Facts::from([(STATE.to_owned(), format!("{RENAMED}{}", row.get::<_, &str>(1)))])
            }
            (None, None) => Facts::from([(STATE.to_owned(), ABSENT.to_owned())]),
        };
        let oid = named.map_or(known_oid, |row| row.get(0));
        if named.is_none() && elsewhere.is_some() {
            renamed.push(oid);
        }
        let own = columns.iter().filter(|row| row.get::<_, u32>(0) == oid);
        let columns =
            own.map(|row| (row.get(1), ColumnPicture { name: row.get(2), type_name: row.get(3) }));
        picture
            .tables
            .insert(name.clone(), TablePicture { oid, facts, columns: columns.collect() });
    }
    if let Some(also) = here.and_then(|row| also_published(row, &renamed)) {
        picture.publication.insert("also publishes".to_owned(), also);
    }
    Ok(picture)
}

/// Row filters, column lists and whole schemas came with 15.
fn tables_query(is_15: bool) -> String {
    let entry = "FROM pg_publication_rel r JOIN up ON up.of = r.prrelid WHERE up.oid = t.oid AND r.prpubid = $1)";
    let (filter, columns, schema) = if is_15 {
        (
            format!(
                "(SELECT string_agg(left(md5(r.prqual::text), 8), ', ' ORDER BY r.oid) {entry}"
            ),
            format!(
                "(SELECT string_agg((SELECT string_agg('#' || n, ', ' ORDER BY n) FROM unnest(r.prattrs::int2[]) AS n), '; ' ORDER BY r.oid) {entry}"
            ),
            "EXISTS (SELECT FROM pg_publication_namespace s WHERE s.pnpubid = $1 AND s.pnnspid = t.nspoid)",
        )
    } else {
        ("NULL::text".to_owned(), "NULL::text".to_owned(), "false")
    };
    let query = TABLES.replace("{filter}", &filter).replace("{columns}", &columns);
    query.replace("{schema}", schema)
}

/// Tables that are published and not mapped, but for those that are mapped by another name.
fn also_published(row: &tokio_postgres::Row, renamed: &[u32]) -> Option<String> {
    let all: Vec<&str> = row.get::<_, Option<Vec<&str>>>(7)?;
    let others = all.iter().filter_map(|named| {
        let (oid, name) = named.split_once(' ')?;
        let is_ours = oid.parse().is_ok_and(|oid: u32| renamed.contains(&oid));
        (!is_ours).then_some(name)
    });
    let others: Vec<&str> = others.collect();
    (!others.is_empty()).then(|| others.join(", "))
}

fn publication_facts(
    here: Option<&tokio_postgres::Row>,
    elsewhere: Option<&tokio_postgres::Row>,
) -> Facts {
    let Some(row) = here else {
        let state = elsewhere
            .map_or(ABSENT.to_owned(), |row| format!("{RENAMED}{}", row.get::<_, &str>(1)));
        return Facts::from([(STATE.to_owned(), state)]);
    };
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let mut facts = Facts::from([
        (STATE.to_owned(), THERE.to_owned()),
        ("oid".to_owned(), row.get::<_, u32>(0).to_string()),
        ("altered".to_owned(), format!("by transaction {}", row.get::<_, &str>(2))),
        ("via root".to_owned(), yes(row.get(3))),
        ("tables".to_owned(), if row.get(4) { "all" } else { "listed" }.to_owned()),
        ("operations".to_owned(), row.get(5)),
    ]);
    if let Some(schemas) = row.get::<_, Option<String>>(6) {
        facts.insert("schemas".to_owned(), schemas);
    }
    facts
}

fn table_facts(row: &tokio_postgres::Row, all: bool) -> Facts {
    let text = |column: usize| row.get::<_, Option<String>>(column);
    let kind = match row.get::<_, &str>(2) {
        "r" => "table",
        "p" => "partitioned table",
        _ => "not a table",
    };
    let columns = text(4);
    let identity = match (row.get::<_, &str>(3), columns) {
        ("f", _) => "full".to_owned(),
        ("d", Some(columns)) => format!("primary key ({columns})"),
        ("i", Some(columns)) => format!("index ({columns})"),
        _ => "nothing".to_owned(),
    };
    let entry = text(5).or_else(|| row.get::<_, bool>(8).then(|| "its schema".to_owned()));
    let entry = entry.or_else(|| all.then(|| "one of all tables".to_owned()));
    let mut facts = Facts::from([
        (STATE.to_owned(), THERE.to_owned()),
        ("kind".to_owned(), kind.to_owned()),
        ("replica identity".to_owned(), identity),
        ("published as".to_owned(), entry.unwrap_or_else(|| "not published".to_owned())),
    ]);
    for (fact, column) in [("row filter", 6), ("columns published", 7)] {
        if let Some(text) = text(column) {
            facts.insert(fact.to_owned(), text);
        }
    }
    for partition in row.get::<_, Option<Vec<String>>>(9).unwrap_or_default() {
        let mut parts = partition.split('\n');
        let mut part = || parts.next().unwrap_or_default();
        let (name, oid, file, identity) = (part(), part(), part(), part());
        let told = format!("oid {oid}, file {file}, replica identity {identity}");
        facts.insert(format!("partition {name}"), told);
    }
    facts
}

/// What is not covered: the publication's fault, and those of each table. Their bounds are not known here.
#[must_use]
pub fn holes(catalog: &Catalog, mapping: &Mapping, picture: &Picture) -> Vec<Hole> {
    let hole = |object: Object, reason: String, fix: String| Hole {
        object,
        reason,
        fix,
        rules: Vec::new(),
        is_schema: false,
        from_lsn: Lsn::ZERO,
        from_time: Timestamp(0),
    };
    let mut holes = Vec::new();
    if let Some(fault) = catalog.publication_fault() {
        let object = Object::Publication(catalog.publication.clone());
        let text = fault.to_string();
        let (reason, fix) = text.split_once(". ").unwrap_or((&text, RUN_SOURCE_SQL));
        holes.push(hole(object, reason.to_owned(), fix.to_owned()));
    }
    for name in mapping.tables() {
        let object = || Object::Table(name.clone());
        let Some(table) = catalog.table(&name) else {
            if let Some(error) = catalog.faults(mapping, &name).into_iter().next() {
                let state = picture.tables.get(&name).and_then(|table| table.facts.get(STATE));
                let renamed = state.and_then(|state| state.strip_prefix(RENAMED));
                let fix = renamed.map_or(error.hint.unwrap_or_default(), |now| {
                    format!("It is called {now} now. Rename it back, or name {now} in the mapping.")
                });
                let (rules, is_schema) = (rules_of(mapping, &name), renamed.is_some());
                holes.push(Hole { rules, is_schema, ..hole(object(), error.message, fix) });
            }
            continue;
        };
        // Without a publication nothing is published, and that is said once.
        let is_told = !catalog.is_published && !table.is_published;
        if let Some((_, reason, fix)) = catalog.table_fault(table).filter(|_| !is_told) {
            holes.push(hole(object(), reason, fix));
        }
        let errors = Compiler::check(mapping, &table.relation, &table.unpublished);
        if !errors.is_empty() {
            let mut messages: Vec<&str> =
                errors.iter().map(|error| error.message.as_str()).collect();
            messages.sort_unstable();
            messages.dedup();
            let hint = errors.iter().find_map(|error| error.hint.as_deref()).unwrap_or_default();
            let fix = format!("Change the table back, or the mapping. {hint}");
            let fix = fix.trim_end().to_owned();
            let rules = Table::fit(mapping, table.relation.clone()).0.stopped.rules;
            let reason = messages.join("; ");
            holes.push(Hole { rules, is_schema: true, ..hole(object(), reason, fix) });
        }
    }
    holes
}
