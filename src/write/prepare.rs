//! Before the first write of a session: its settings pinned, schema `portal_audit` there, and `events` as it is given.
//!
//! # Why the shape is checked
//! `ON CONFLICT DO NOTHING` passes over a row that any unique index refuses, so one beside the key would swallow events without a word, and without a key nothing absorbs a replay. A rule may swallow them, an unlogged table loses them in a crash, and `timestamptz(0)` cuts their times. Each is found here, with the object's name, and not when an event is missing.

use super::{AUDIT_SQL, WriteError, answered};
use crate::connect::Session;
use std::time::Duration;
use tokio_postgres::types::ToSql;

/// The columns as they are given: name, type, and whether NULL must fit.
const COLUMNS: [(&str, &str, bool); 10] = [
    ("event_uuid", "uuid", false),
    ("timestamp", "timestamp with time zone", false),
    ("event_type", "text", false),
    ("caller", "text", false),
    ("subject", "text", false),
    ("subject_type", "text", false),
    ("target", "text", true),
    ("success", "boolean", false),
    ("error_message", "text", true),
    ("payload", "jsonb", false),
];

/// What a session of ours has, whatever the role, the database or a pooler in between say: the waits are ours to limit (`audit_timeout_seconds`), a commit that is told is on the disk, and sources that write at once do not fail each other. A setting that this server does not know is left out. And where our host is gone or cut off, the server notices within a minute, not after two hours: until then the transaction of such a session would be in our own way.
const PIN: &str = "SELECT set_config(name, value, false) FROM (VALUES ('synchronous_commit', 'on'), ('statement_timeout', '0'), ('lock_timeout', '0'), ('idle_in_transaction_session_timeout', '0'), ('idle_session_timeout', '0'), ('transaction_timeout', '0'), ('default_transaction_isolation', 'read committed'), ('default_transaction_deferrable', 'off'), ('tcp_keepalives_idle', '15'), ('tcp_keepalives_interval', '5'), ('tcp_keepalives_count', '6')) AS pinned (name, value) WHERE EXISTS (SELECT FROM pg_catalog.pg_settings s WHERE s.name = pinned.name AND s.setting <> pinned.value AND NOT (s.name = 'synchronous_commit' AND s.setting = 'remote_apply'))";

/// A session that waits for a lock ends soon after we have given it up, so that they do not pile up. A server on a system that cannot see that refuses the setting.
const NOTICE_OUR_END: &str = "SELECT set_config('client_connection_check_interval', '5s', false)";
const INVALID_VALUE: &str = "22023";

/// Whether the schema is there, and of this version (the number that the script leaves at its end), and the tables that are written here.
const PROBE: &str = "SELECT coalesce(obj_description(to_regnamespace('portal_audit'), 'pg_namespace') = 'portal-audit, schema 4', false) AND NOT EXISTS (SELECT FROM unnest(ARRAY['public.events', 'portal_audit.progress', 'portal_audit.names', 'portal_audit.event_types', 'portal_audit.unmapped', 'portal_audit.attempts', 'portal_audit.gaps', 'portal_audit.coverage', 'portal_audit.trees', 'portal_audit.seals']) AS wanted WHERE to_regclass(wanted) IS NULL)";

/// Gives a session the settings without which nothing may be written in it.
pub(super) async fn pin(session: &Session, timeout: Duration) -> Result<(), WriteError> {
    let client = &session.client;
    answered(timeout, "take its settings", client.execute(PIN, &[])).await?;
    match answered(timeout, "take its settings", client.execute(NOTICE_OUR_END, &[])).await {
        Err(error) if error.sqlstate() == Some(INVALID_VALUE) => Ok(()),
        taken => taken.map(drop),
    }
}

/// Creates the schema `portal_audit` where it is missing or older.
///
/// # Errors
/// The role may not create it; then `portal-audit sql audit` is for ops to run. [`WriteError::Shape`]: `events` is not as it is given.
pub async fn prepare(session: &Session, timeout: Duration) -> Result<(), WriteError> {
    let client = &session.client;
    pin(session, timeout).await?;
    let row = answered(timeout, "look for its schema", client.query_one(PROBE, &[])).await?;
    if !row.get::<_, bool>(0) {
        refuse_lost_events(session, timeout).await?;
        // Several sources start at once, and CREATE … IF NOT EXISTS is not safe against itself.
        let script =
            format!("BEGIN; SELECT pg_advisory_xact_lock(7021660001); {AUDIT_SQL}; COMMIT");
        let created = client.batch_execute(&script);
        answered(timeout, "create the schema portal_audit", created).await?;
    }
    let mut faults = column_faults(session, timeout).await?;
    faults.extend(table_faults(session, timeout).await?);
    faults.extend(missing_privileges(session, timeout).await?);
    if faults.is_empty() { Ok(()) } else { Err(WriteError::Shape { faults }) }
}

/// What [`prepare`] would find.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Looked {
    /// The schema `portal_audit` and the table `events` are there, as this version needs them.
    pub is_prepared: bool,
    /// What is missing could be made by this role.
    pub may_create: bool,
    /// How `events` differs from what is given, each as `what: fix`.
    pub shape: Vec<String>,
    /// What the role may not do, each as `what: fix`.
    pub privileges: Vec<String>,
}

/// Looks as [`prepare`] does, and changes nothing.
///
/// # Errors
/// The audit database does not answer.
pub async fn look(session: &Session, timeout: Duration) -> Result<Looked, WriteError> {
    const MAY: &str = "SELECT has_database_privilege(current_database(), 'CREATE') AND (to_regclass('public.events') IS NOT NULL OR has_schema_privilege('public', 'CREATE')) AND (to_regnamespace('portal_audit') IS NULL OR pg_has_role((SELECT nspowner FROM pg_namespace WHERE nspname = 'portal_audit'), 'USAGE')), to_regclass('public.events') IS NOT NULL";
    let client = &session.client;
    let row = answered(timeout, "look for its schema", client.query_one(PROBE, &[])).await?;
    let is_prepared = row.get(0);
    let row = answered(timeout, "look at its privileges", client.query_one(MAY, &[])).await?;
    let mut looked = Looked { is_prepared, may_create: row.get(0), ..Looked::default() };
    match refuse_lost_events(session, timeout).await {
        Err(WriteError::Shape { faults }) => looked.shape = faults,
        other => other?,
    }
    if row.get(1) {
        looked.shape.extend(column_faults(session, timeout).await?);
        looked.shape.extend(table_faults(session, timeout).await?);
    }
    if is_prepared {
        looked.privileges = missing_privileges(session, timeout).await?;
    }
    Ok(looked)
}

/// A table that had events and is gone is not made anew in silence.
async fn refuse_lost_events(session: &Session, timeout: Duration) -> Result<(), WriteError> {
    const GONE: &str = "SELECT to_regclass('public.events') IS NULL AND to_regclass('portal_audit.progress') IS NOT NULL";
    const WRITTEN: &str = "SELECT coalesce(sum(events), 0)::bigint FROM portal_audit.progress";
    let client = &session.client;
    let row = answered(timeout, "look for events", client.query_one(GONE, &[])).await?;
    if !row.get::<_, bool>(0) {
        return Ok(());
    }
    let row = answered(timeout, "read progress", client.query_one(WRITTEN, &[])).await?;
    match row.get::<_, i64>(0) {
        0 => Ok(()),
        written => Err(WriteError::Shape {
            faults: vec![format!(
                "the table is gone, and {written} events were written to it. Restore it, or begin with an empty one: portal-audit sql audit"
            )],
        }),
    }
}

async fn column_faults(session: &Session, timeout: Duration) -> Result<Vec<String>, WriteError> {
    const QUERY: &str = "SELECT attname::text, atttypid::regtype::text, atttypmod = -1, attnotnull, atthasdef OR attidentity <> '', attgenerated <> '' OR attidentity = 'a' FROM pg_catalog.pg_attribute WHERE attrelid = to_regclass('public.events') AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
    let rows = session.client.query(QUERY, &[]);
    let rows = answered(timeout, "look at events", rows).await?;
    let mut missing: Vec<&str> = COLUMNS.iter().map(|(name, ..)| *name).collect();
    let mut faults = Vec::new();
    for row in &rows {
        let (name, type_name): (&str, &str) = (row.get(0), row.get(1));
        let (is_whole, not_null, has_default, is_made): (bool, bool, bool, bool) =
            (row.get(2), row.get(3), row.get(4), row.get(5));
        let Some((_, given, null)) = COLUMNS.iter().find(|(given, ..)| *given == name) else {
            if not_null && !has_default {
                faults.push(format!(
                    "column {name} is none of the given ones and must have a value: ALTER TABLE public.events ALTER {name} DROP NOT NULL, or give it a default"
                ));
            }
            continue;
        };
        missing.retain(|missing| *missing != name);
        if type_name != *given {
            faults.push(format!("column {name} is of type {type_name}, not {given}: ALTER TABLE public.events ALTER {name} TYPE {given}"));
        } else if !is_whole {
            faults.push(format!("column {name} cuts its values, its type is not just {given}: ALTER TABLE public.events ALTER {name} TYPE {given}"));
        }
        if not_null && *null {
            faults.push(format!(
                "column {name} must be able to hold NULL: ALTER TABLE public.events ALTER {name} DROP NOT NULL"
            ));
        }
        if is_made {
            faults.push(format!("column {name} is generated, so it cannot be written"));
        }
    }
    for (name, given, _) in COLUMNS.iter().filter(|(name, ..)| missing.contains(name)) {
        faults.push(format!(
            "column {name} is missing: ALTER TABLE public.events ADD {name} {given}"
        ));
    }
    Ok(faults)
}

async fn table_faults(session: &Session, timeout: Duration) -> Result<Vec<String>, WriteError> {
    const QUERY: &str = "SELECT c.relkind NOT IN ('r', 'p'), c.relpersistence <> 'p', EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type = '3'), NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indnkeyatts = 1 AND i.indkey[0] = k.attnum), ARRAY (SELECT i.indexrelid::regclass::text FROM pg_index i WHERE i.indrelid = c.oid AND (i.indisunique OR i.indisexclusion) AND NOT k.attnum = ANY (i.indkey) ORDER BY 1) FROM pg_class c LEFT JOIN pg_attribute k ON k.attrelid = c.oid AND k.attname = 'event_uuid' WHERE c.oid = to_regclass('public.events')";
    let row = session.client.query_one(QUERY, &[]);
    let row = answered(timeout, "look at events", row).await?;
    let mut faults = Vec::new();
    if row.get(0) {
        faults.push("it is no table".to_owned());
    }
    if row.get(1) {
        faults.push("it is unlogged, so a crash of the server empties it: ALTER TABLE public.events SET LOGGED".to_owned());
    }
    if row.get(2) {
        faults.push("a rule stands before its INSERT: drop it, or events vanish".to_owned());
    }
    if row.get(3) {
        faults.push("no primary key or unique index on event_uuid alone: ALTER TABLE public.events ADD PRIMARY KEY (event_uuid)".to_owned());
    }
    for index in row.get::<_, Vec<String>>(4) {
        faults.push(format!(
            "index {index} lets only one of several events in: make it one that is not unique"
        ));
    }
    Ok(faults)
}

async fn missing_privileges(
    session: &Session,
    timeout: Duration,
) -> Result<Vec<String>, WriteError> {
    const QUERY: &str = "SELECT format('role %I may not %s into it: GRANT portal_audit_writer TO %I', current_user, 'INSERT', current_user) WHERE EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = to_regclass('public.events') AND a.attname = ANY ($1) AND NOT a.attisdropped AND NOT has_column_privilege(a.attrelid, a.attnum, 'INSERT')) UNION ALL SELECT format('role %I may not %s: GRANT portal_audit_writer TO %I', current_user, act, current_user) FROM (SELECT wanted || ' ' || name, has_table_privilege(name, wanted) FROM (VALUES ('portal_audit.progress', ARRAY['SELECT', 'INSERT', 'UPDATE']), ('portal_audit.trees', ARRAY['SELECT', 'INSERT', 'UPDATE']), ('portal_audit.seals', ARRAY['INSERT'])) AS t (name, acts), unnest(acts) AS wanted UNION ALL SELECT 'read the ids of events', coalesce(has_column_privilege(to_regclass('public.events'), 'event_uuid', 'SELECT'), true) WHERE EXISTS (SELECT FROM pg_catalog.pg_attribute WHERE attrelid = to_regclass('public.events') AND attname = 'event_uuid') UNION ALL SELECT 'EXECUTE portal_audit.' || proname, has_function_privilege(p.oid, 'EXECUTE') FROM pg_catalog.pg_proc p WHERE pronamespace = to_regnamespace('portal_audit') AND proname IN ('seal', 'declare_types')) AS needed (act, may) WHERE NOT may";
    let names = COLUMNS.map(|(name, ..)| name);
    let parameters: [&(dyn ToSql + Sync); 1] = [&names.as_slice()];
    let rows = session.client.query(QUERY, &parameters);
    let rows = answered(timeout, "look at its privileges", rows).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

#[cfg(test)]
mod tests {
    use super::{AUDIT_SQL, PROBE};

    /// Or each start would run the script anew.
    #[test]
    fn the_number_that_is_asked_for_is_the_one_that_the_script_leaves() {
        let (_, left) = AUDIT_SQL.rsplit_once("COMMENT ON SCHEMA portal_audit IS '").unwrap();
        assert!(PROBE.contains(&format!("= '{}'", left.split('\'').next().unwrap())));
    }
}
