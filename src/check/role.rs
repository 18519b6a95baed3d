//! The role by which the source is read: enough, and no more.

use super::{Check, Found, Verdict, listed, quoted, verdict};
use crate::{
    connect::{self, Session},
    translate::{mapping::Mapping, needs::needs},
};

/// What is asked of the role.
pub(super) const CHECKS: &[Check<Role>] = &[
    ("replication", replication),
    ("role_too_wide", role_too_wide),
    ("role_may_write", role_may_write),
    ("select", select),
    ("row_security", row_security),
];

/// Memberships that read or write more than the mapping needs.
const WIDE_ROLES: [&str; 5] = [
    "pg_read_all_data",
    "pg_write_all_data",
    "pg_read_server_files",
    "pg_write_server_files",
    "pg_execute_server_program",
];

/// What is known of the role.
#[derive(Debug, Default)]
pub(super) struct Role {
    name: String,
    is_superuser: bool,
    /// Attributes that let it do more: `CREATEROLE`.
    attributes: Vec<String>,
    memberships: Vec<String>,
    /// Tables of the database that it may change, or owns.
    writable: Vec<String>,
    /// Mapped tables and the columns that it may not read.
    unreadable: Vec<(String, Vec<String>)>,
    /// Mapped tables whose policies may hide rows.
    with_policies: Vec<String>,
    /// Why no replication connection can be opened: SQLSTATE if a server said so, and the text.
    pub(super) refused: Option<(Option<String>, String)>,
    /// Walsenders in use and at most.
    pub(super) walsenders: String,
}

impl Role {
    /// Asks.
    pub(super) async fn load(session: &Session, mapping: &Mapping) -> Result<Self, String> {
        let asked = Self::ask(session, mapping).await;
        asked.map_err(|error| connect::describe(&error))
    }

    async fn ask(session: &Session, mapping: &Mapping) -> Result<Self, tokio_postgres::Error> {
        const ROLE: &str = "SELECT rolname::text, rolsuper, array_remove(ARRAY[CASE WHEN rolcreaterole THEN 'CREATEROLE' END, CASE WHEN rolcreatedb THEN 'CREATEDB' END, CASE WHEN rolbypassrls THEN 'BYPASSRLS' END], NULL), ARRAY (SELECT w.rolname::text FROM pg_roles w WHERE w.rolname = ANY ($1) AND pg_has_role(r.oid, w.oid, 'MEMBER') ORDER BY 1), format('%s of %s walsenders in use', (SELECT count(*) FROM pg_stat_replication), current_setting('max_wal_senders')) FROM pg_roles r WHERE rolname = current_user";
        const WRITABLE: &str = "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'portal_audit') AND n.nspname NOT LIKE 'pg\\_%' AND has_schema_privilege(n.oid, 'USAGE') AND (has_table_privilege(c.oid, 'DELETE, TRUNCATE') OR has_any_column_privilege(c.oid, 'INSERT, UPDATE')) AND NOT c.oid IS NOT DISTINCT FROM to_regclass('public.events') ORDER BY 1 LIMIT 100";
        const MAPPED: &str = "SELECT n.nspname || '.' || c.relname, ARRAY (SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attname = ANY (w.columns) AND NOT (has_schema_privilege(n.oid, 'USAGE') AND has_column_privilege(c.oid, a.attnum, 'SELECT')) ORDER BY a.attnum), row_security_active(c.oid) AND (EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND NOT p.polpermissive) OR NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polpermissive AND p.polcmd IN ('r', '*') AND pg_get_expr(p.polqual, p.polrelid) = 'true' AND (0 = ANY (p.polroles) OR EXISTS (SELECT FROM unnest(p.polroles) AS g (oid) WHERE pg_has_role(g.oid, 'USAGE'))))) FROM unnest($1::text[], $2::text[]) AS u (name, list) JOIN LATERAL (SELECT string_to_array(u.list, E'\\n') AS columns) AS w ON true JOIN pg_class c ON c.relkind IN ('r', 'p') JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname || '.' || c.relname = u.name ORDER BY 1";
        let client = &session.client;
        let row = client.query_one(ROLE, &[&WIDE_ROLES.as_slice()]).await?;
        let is_superuser: bool = row.get(1);
        let writable = if is_superuser { Vec::new() } else { client.query(WRITABLE, &[]).await? };
        let needs = needs(mapping);
        let tables: Vec<&str> = needs.keys().map(String::as_str).collect();
        let columns = needs.values().map(|needs| {
            let all = needs.columns.iter().chain(&needs.old_columns).chain(&needs.optional_columns);
            all.map(String::as_str).collect::<Vec<_>>().join("\n")
        });
        let columns: Vec<String> = columns.collect();
        let mapped = client.query(MAPPED, &[&tables, &columns]).await?;
        let unreadable = mapped.iter().map(|row| (row.get(0), row.get::<_, Vec<String>>(1)));
        let with_policies = mapped.iter().filter(|row| row.get(2));
        Ok(Self {
            name: row.get(0),
            is_superuser,
            attributes: row.get(2),
            memberships: row.get(3),
            walsenders: row.get(4),
            writable: writable.iter().map(|row| row.get(0)).collect(),
            unreadable: unreadable.filter(|(_, columns)| !columns.is_empty()).collect(),
            with_policies: with_policies.map(|row| row.get(0)).collect(),
            refused: None,
        })
    }

    fn object(&self) -> String {
        format!("role {}", quoted(&self.name))
    }
}

fn replication(role: &Role) -> Verdict {
    let Some((sqlstate, why)) = &role.refused else {
        return Ok(format!("a replication connection opens; {}", role.walsenders));
    };
    let name = quoted(&role.name);
    let fix = match sqlstate.as_deref() {
        Some("42501") => format!("ALTER ROLE {name} REPLICATION;"),
        Some("53300") => "ALTER SYSTEM SET max_wal_senders = 10;\n-- then restart the server; or end walsenders that nobody needs: SELECT pid, application_name FROM pg_stat_replication;".to_owned(),
        Some("28000" | "28P01") => format!(
            "# the ordinary connection is let in and this one is not: see pg_hba.conf for a line that refuses role {name}\n# (database `replication` there means physical replication only), then SELECT pg_reload_conf();"
        ),
        _ => "# name the server itself in the dsn: a pooler does not pass replication on".to_owned(),
    };
    let finding = format!("no replication connection: {why} ({})", role.walsenders);
    Err(vec![Found::critical(&role.object(), finding, fix)])
}

fn role_too_wide(role: &Role) -> Verdict {
    let name = quoted(&role.name);
    if role.is_superuser {
        let finding = "it is a superuser: whoever has its password has the whole server. LOGIN and REPLICATION are enough";
        let fix = format!(
            "-- name another role in the dsn, then `portal-audit sql source` makes it with what it needs; or, if {name} is nobody else's:\nALTER ROLE {name} NOSUPERUSER LOGIN REPLICATION;"
        );
        return Err(vec![Found::warning(&role.object(), finding, fix)]);
    }
    let attributes = role.attributes.iter().map(|attribute| {
        let finding = format!("it has {attribute}, which the sidecar does not need");
        Found::warning(&role.object(), finding, format!("ALTER ROLE {name} NO{attribute};"))
    });
    let memberships = role.memberships.iter().map(|membership| {
        let finding = format!(
            "it is a member of {membership}, which covers far more than the mapped columns, secrets among them"
        );
        Found::warning(&role.object(), finding, format!("REVOKE {membership} FROM {name};"))
    });
    verdict(attributes.chain(memberships).collect(), "it may no more than it needs")
}

fn role_may_write(role: &Role) -> Verdict {
    let tables = &role.writable;
    if tables.is_empty() {
        return Ok("it cannot change a row of the portal".to_owned());
    }
    let name = quoted(&role.name);
    let finding =
        format!("it may change or owns {}: reading is all that the sidecar does", listed(tables));
    let on: Vec<String> = tables.iter().map(|table| qualified(table)).collect();
    let fix = format!(
        "REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON {} FROM {name};\n-- if it owns them, or is a member of a role that may: give the sidecar a role of its own",
        on.join(", ")
    );
    Err(vec![Found::warning(&role.object(), finding, fix)])
}

fn select(role: &Role) -> Verdict {
    let name = quoted(&role.name);
    let found = role.unreadable.iter().map(|(table, columns)| {
        let listed_columns: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
        let finding = format!(
            "{name} may not read {}: the first snapshot, and the comparison after a gap, would fail",
            listed(columns)
        );
        let schema = table.split_once('.').map_or("public", |(schema, _)| schema);
        let fix = format!(
            "GRANT USAGE ON SCHEMA {} TO {name};\nGRANT SELECT ({}) ON {} TO {name};",
            quoted(schema),
            listed_columns.join(", "),
            qualified(table)
        );
        Found::critical(table, finding, fix)
    });
    verdict(found.collect(), "every mapped column can be read")
}

fn row_security(role: &Role) -> Verdict {
    let name = quoted(&role.name);
    let found = role.with_policies.iter().map(|table| {
        let finding = format!("row security holds for {name}: the first snapshot sees only what policies let it, and misses the rest without a word");
        let fix = format!(
            "CREATE POLICY portal_audit_reads ON {} FOR SELECT TO {name} USING (true);\n-- if other policies are RESTRICTIVE: ALTER ROLE {name} BYPASSRLS;",
            qualified(table)
        );
        Found::warning(table, finding, fix)
    });
    verdict(found.collect(), "no policy hides a row from it")
}

/// `schema.table` as SQL wants it.
pub(super) fn qualified(table: &str) -> String {
    let (schema, name) = table.split_once('.').unwrap_or(("public", table));
    format!("{}.{}", quoted(schema), quoted(name))
}
