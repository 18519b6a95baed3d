//! The audit database: whether it can be written, by whom, and whether `events` is as it is given.

use super::{
    Check, Finding, Found, Status, Verdict, finding, judge,
    line::Line,
    open, place,
    proof::{self, Checkpoints},
    quoted, server, unanswered, verdict, within,
};
use crate::{
    chain::chain,
    config::{Settings, Source},
    connect::{self, Session},
    write::{self, KeptType, Looked, WriteError},
};
use std::{collections::HashMap, time::Duration};

/// What is asked of the audit database.
pub(super) const CHECKS: &[Check<Facts>] = &[
    ("audit_version", version),
    ("audit_writable", writable),
    ("audit_tls", tls),
    ("audit_schema", schema),
    ("events_shape", shape),
    ("events_indexes", indexes),
    ("events_triggers", triggers),
    ("events_row_security", row_security),
    ("writer_may_insert", writer_may_insert),
    ("writer_too_wide", writer_too_wide),
    ("event_types", event_types),
    ("events_public", public),
    ("events_published", published),
    ("audit_durability", durability),
    ("audit_is_source", is_source),
    ("one_sidecar", one_sidecar),
    ("checkpoints", |facts| proof::checkpoints(&facts.checkpoints)),
];

/// The oldest major that is tested as an audit database.
const VERSION_NUM_MIN: u32 = 140_000;
/// The columns that each given index begins with, and how it is made.
const INDEXES: [(&str, &str, &str); 5] = [
    ("timestamp", "idx_events_timestamp", "timestamp DESC"),
    ("event_type", "idx_events_event_type", "event_type"),
    ("caller", "idx_events_caller", "caller"),
    ("subject_type", "idx_events_subject", "subject_type, subject"),
    ("target", "idx_events_target", "target"),
];
const SQL_AUDIT: &str = "portal-audit sql audit | psql -d";

/// What is known of the audit database.
#[derive(Debug, Default)]
pub(super) struct Facts {
    database: String,
    role: String,
    version_num: u32,
    is_in_recovery: bool,
    is_read_only: bool,
    is_superuser: bool,
    line: Line,
    settings: HashMap<String, String>,
    looked: Looked,
    /// The schema `portal_audit` cannot even be looked at.
    is_schema_closed: bool,
    /// Columns that no given index begins with.
    unindexed: Vec<String>,
    /// Triggers that run before a row goes in.
    triggers: Vec<String>,
    refuses_by_policy: bool,
    has_policies: bool,
    /// Policies of `events` do not hold: who may read it reads all of it.
    is_open: bool,
    /// Policies hold the writer too.
    is_held: bool,
    /// What the writer may do beside INSERT.
    writer_may: Vec<String>,
    /// What everybody may do.
    public_may: Vec<String>,
    publications: Vec<String>,
    /// Sources whose database this is.
    sources_here: Vec<String>,
    /// Sources that more than one sidecar writes, with who they are.
    contested: Vec<(String, Vec<String>)>,
    /// Event types that are kept or seen otherwise than a mapping says.
    kept_types: Vec<KeptType>,
    checkpoints: Checkpoints,
}

/// What was found, and the session for the questions of the sources.
pub(super) struct Asked {
    pub(super) findings: Vec<Finding>,
    pub(super) session: Option<Session>,
}

/// Checks the audit database.
pub(super) async fn check(settings: &Settings) -> Asked {
    let object = place(&settings.audit);
    match within(&object, ask(settings)).await {
        Err(found) => {
            let findings = vec![finding("audit_reachable", None, found)];
            Asked { findings, session: None }
        }
        Ok((session, facts)) => {
            let reached = Found::new(Status::Ok, &object, "it answers", "");
            let mut findings = vec![finding("audit_reachable", None, reached)];
            findings.extend(judge(CHECKS, &facts, None, "audit database"));
            Asked { findings, session: Some(session) }
        }
    }
}

async fn ask(settings: &Settings) -> Result<(Session, Facts), Found> {
    let object = place(&settings.audit);
    let session = open(&settings.audit).await?;
    let facts = Facts::load(&session, settings).await;
    match facts {
        Ok(facts) => Ok((session, facts)),
        Err(why) => Err(unanswered(&object, &why)),
    }
}

impl Facts {
    async fn load(session: &Session, settings: &Settings) -> Result<Self, String> {
        let told = |error: tokio_postgres::Error| connect::describe(&error);
        // What the role has by itself: this session is read-only because we made it so.
        const SERVER: &str = "SELECT current_database()::text, current_user::text, current_setting('server_version_num')::int, pg_is_in_recovery(), (SELECT reset_val = 'on' FROM pg_settings WHERE name = 'default_transaction_read_only'), (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)";
        let row = session.client.query_one(SERVER, &[]).await.map_err(told)?;
        let line = Line::load(session).await.map_err(told)?;
        let (looked, is_schema_closed) =
            match write::look(session, settings.limits.audit_timeout()).await {
                Ok(looked) => (looked, false),
                Err(error) if error.sqlstate() == Some("42501") => (Looked::default(), true),
                Err(WriteError::Database { report, .. }) => return Err(connect::describe(&report)),
                Err(other) => return Err(chain(&other)),
            };
        let mut facts = Self {
            database: row.get(0),
            role: row.get(1),
            version_num: u32::try_from(row.get::<_, i32>(2)).unwrap_or(0),
            is_in_recovery: row.get(3),
            is_read_only: row.get::<_, Option<bool>>(4).unwrap_or(false),
            is_superuser: row.get(5),
            line,
            settings: server::settings(session).await.map_err(told)?,
            looked,
            is_schema_closed,
            ..Self::default()
        };
        facts.look_at_events(session).await.map_err(told)?;
        facts.sources_here = sources_here(settings);
        if facts.looked.is_prepared {
            let interval = settings.proof.as_ref().map(|proof| proof.interval_seconds);
            facts.checkpoints = Checkpoints::load(session, interval).await.map_err(told)?;
        }
        for source in &settings.sources {
            let sidecars = writers(session, &source.name).await.map_err(told)?;
            if sidecars.len() > 1 {
                facts.contested.push((source.name.clone(), sidecars));
            }
            if facts.looked.is_prepared && !facts.is_schema_closed {
                facts.look_at_types(session, source, settings.limits.audit_timeout()).await?;
            }
        }
        Ok(facts)
    }

    async fn look_at_events(&mut self, session: &Session) -> Result<(), tokio_postgres::Error> {
        const EVENTS: &str = "SELECT ARRAY (SELECT t.tgname::text FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgtype & 7 = 7 AND t.tgenabled <> 'D' ORDER BY 1),
            row_security_active(c.oid) AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polpermissive AND p.polcmd IN ('a', '*') AND (0 = ANY (p.polroles) OR EXISTS (SELECT FROM unnest(p.polroles) AS r (oid) WHERE pg_has_role(r.oid, 'USAGE')))),
            ARRAY (SELECT may FROM unnest(ARRAY['UPDATE', 'DELETE', 'TRUNCATE']) AS may WHERE has_table_privilege(c.oid, may) OR may = 'UPDATE' AND has_any_column_privilege(c.oid, may)),
            ARRAY (SELECT DISTINCT a.privilege_type FROM aclexplode(c.relacl) AS a WHERE a.grantee = 0 ORDER BY 1),
            ARRAY (SELECT DISTINCT p.pubname::text FROM pg_publication_tables p WHERE p.schemaname = 'public' AND p.tablename = 'events' ORDER BY 1),
            ARRAY (SELECT w.name FROM unnest($1::text[]) WITH ORDINALITY AS w (name, place) WHERE NOT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = (i.indkey::int2[])[0] WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL AND a.attname = w.name) ORDER BY w.place),
            NOT c.relrowsecurity, row_security_active(c.oid), EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'portal_audit_sees_all')
          FROM pg_class c WHERE c.oid = to_regclass('public.events')";
        let columns = INDEXES.map(|(column, ..)| column);
        let Some(row) = session.client.query_opt(EVENTS, &[&columns.as_slice()]).await? else {
            return Ok(());
        };
        self.triggers = row.get(0);
        self.refuses_by_policy = row.get(1);
        self.writer_may = row.get(2);
        self.public_may = row.get(3);
        self.publications = row.get(4);
        self.unindexed = row.get(5);
        (self.is_open, self.is_held, self.has_policies) = (row.get(6), row.get(7), row.get(8));
        Ok(())
    }

    /// A role that may not look is told so by `writer_may_insert`.
    async fn look_at_types(
        &mut self,
        session: &Session,
        source: &Source,
        timeout: Duration,
    ) -> Result<(), String> {
        let kept = match write::kept_types(session, &source.mapping, timeout).await {
            Err(error) if error.sqlstate() == Some("42501") => return Ok(()),
            kept => kept.map_err(|error| chain(&error))?,
        };
        self.kept_types.extend(kept);
        self.kept_types.dedup();
        Ok(())
    }

    fn role(&self) -> String {
        format!("role {}", quoted(&self.role))
    }
}

/// Sources with the audit database's address and name.
fn sources_here(settings: &Settings) -> Vec<String> {
    let audit: Vec<_> = settings.audit.addresses().collect();
    let here = settings.sources.iter().filter(|source| {
        source.conninfo.dbname() == settings.audit.dbname()
            && source.conninfo.addresses().any(|address| audit.contains(&address))
    });
    here.map(|source| source.name.clone()).collect()
}

/// Sessions that write a source: each sidecar's writer has left its sign there ([`write::sign_in`]).
async fn writers(session: &Session, source: &str) -> Result<Vec<String>, tokio_postgres::Error> {
    const QUERY: &str = "SELECT format('process %s%s%s', l.pid, ' at ' || host(a.client_addr), ' since ' || to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS\"Z\"')) FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND (l.classid::bigint << 32) | l.objid::bigint = hashtextextended('portal-audit writes ' || $1, 0) ORDER BY l.pid";
    let rows = session.client.query(QUERY, &[&source]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

fn version(facts: &Facts) -> Verdict {
    let (major, minor) = (facts.version_num / 10_000, facts.version_num % 10_000);
    let found = (facts.version_num < VERSION_NUM_MIN).then(|| {
        let finding = format!("PostgreSQL {major} is not supported: 14 and later are");
        Found::critical("server_version", finding, "-- upgrade the audit database's server")
    });
    verdict(found.into_iter().collect(), format!("PostgreSQL {major}.{minor}"))
}

fn writable(facts: &Facts) -> Verdict {
    if facts.is_in_recovery {
        let finding = "it is a standby: no event can be written";
        return Err(vec![Found::critical("server", finding, "# name the primary in [audit] dsn")]);
    }
    let found = facts.is_read_only.then(|| {
        let finding = "default_transaction_read_only is on: no event can be written";
        let fix = format!(
            "ALTER ROLE {0} SET default_transaction_read_only = off;\nALTER ROLE {0} IN DATABASE {1} SET default_transaction_read_only = off;",
            quoted(&facts.role),
            quoted(&facts.database)
        );
        Found::critical("default_transaction_read_only", finding, fix)
    });
    verdict(found.into_iter().collect(), "a primary, and not read-only")
}

fn tls(facts: &Facts) -> Verdict {
    facts.line.judge("events cross the network in plaintext")
}

fn schema(facts: &Facts) -> Verdict {
    if facts.looked.is_prepared || facts.is_schema_closed {
        return Ok("as this version needs it".to_owned());
    }
    if facts.looked.may_create && !facts.is_in_recovery {
        return Ok("made or brought up to date at the next start".to_owned());
    }
    let finding = format!(
        "events or portal_audit are missing or older than this version, and {} may not make them",
        quoted(&facts.role)
    );
    let fix = format!("{SQL_AUDIT} {}", quoted(&facts.database));
    Err(vec![Found::critical("schema portal_audit", finding, fix)])
}

/// A fault as [`write::look`] tells it, `what: SQL, or words`.
fn told(fault: &str, object: &str, otherwise: &str) -> Found {
    const VERBS: [&str; 4] = ["ALTER ", "GRANT ", "DROP ", "CREATE "];
    let Some((finding, fix)) = fault.rsplit_once(": ") else {
        return Found::critical(object, fault, otherwise);
    };
    if !VERBS.iter().any(|verb| fix.starts_with(verb)) {
        return Found::critical(object, fault, otherwise);
    }
    let (statement, words) = fix.split_once(", ").unwrap_or((fix, ""));
    let words = if words.is_empty() { String::new() } else { format!("\n-- {words}") };
    Found::critical(object, finding, format!("{statement};{words}"))
}

fn shape(facts: &Facts) -> Verdict {
    let otherwise = format!(
        "-- make public.events as this prints it, or give the sidecar a database of its own: {SQL_AUDIT} {}",
        quoted(&facts.database)
    );
    let found = facts.looked.shape.iter().map(|fault| told(fault, "public.events", &otherwise));
    verdict(found.collect(), "as it is given")
}

fn indexes(facts: &Facts) -> Verdict {
    let missing = INDEXES.iter().filter(|(column, ..)| facts.unindexed.iter().any(|c| c == column));
    let found = missing.map(|(column, name, columns)| {
        let finding = format!("no index begins with {column}: queries by it read the whole table");
        let fix =
            format!("CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON public.events ({columns});");
        Found::warning("public.events", finding, fix)
    });
    verdict(found.collect(), "the given ones")
}

fn triggers(facts: &Facts) -> Verdict {
    let found = facts.triggers.iter().map(|trigger| {
        let finding = format!("trigger {trigger} runs before each event goes in: it may change it, or drop it without a word");
        let fix = format!("DROP TRIGGER {} ON public.events;", quoted(trigger));
        Found::warning("public.events", finding, fix)
    });
    verdict(found.collect(), "none stands before an INSERT")
}

fn row_security(facts: &Facts) -> Verdict {
    let role = quoted(&facts.role);
    let mut found = Vec::new();
    if facts.refuses_by_policy {
        let finding = format!(
            "row security is on, and no policy lets {role} insert: every event would be refused"
        );
        let fix = format!(
            "CREATE POLICY portal_audit_inserts ON public.events FOR INSERT TO {role} WITH CHECK (true);\nCREATE POLICY portal_audit_learns ON public.events FOR SELECT TO {role} USING (true);"
        );
        found.push(Found::critical("public.events", finding, fix));
    }
    // What an older version has left is brought up to date with its schema.
    if facts.looked.is_prepared && facts.is_open {
        let finding = "row security is off: whoever may read events sees those of everybody";
        let fix = if facts.has_policies {
            "ALTER TABLE public.events ENABLE ROW LEVEL SECURITY;".to_owned()
        } else {
            format!("# as the owner of public.events: {SQL_AUDIT} {}", quoted(&facts.database))
        };
        found.push(Found::warning("public.events", finding, fix));
    }
    let good = if facts.is_held {
        format!(
            "no policy refuses an event; large batches are copied, not inserted, after ALTER ROLE {role} BYPASSRLS"
        )
    } else {
        "no policy refuses an event".to_owned()
    };
    verdict(found, good)
}

fn writer_may_insert(facts: &Facts) -> Verdict {
    let grant = format!("GRANT portal_audit_writer TO {}", quoted(&facts.role));
    if facts.is_schema_closed {
        let finding = "it may not use the schema portal_audit";
        return Err(vec![Found::critical(&facts.role(), finding, format!("{grant};"))]);
    }
    let found = facts.looked.privileges.iter().map(|fault| told(fault, &facts.role(), &grant));
    verdict(found.collect(), "it may add events")
}

fn writer_too_wide(facts: &Facts) -> Verdict {
    let role = quoted(&facts.role);
    if facts.is_superuser {
        let finding = "it is a superuser: whoever has its password can change what is written";
        let fix = format!(
            "-- a login for the sidecar alone, to name in [audit] dsn:\nCREATE ROLE portal_audit_sidecar LOGIN;\nGRANT portal_audit_writer TO portal_audit_sidecar;\n-- or, if {role} is nobody else's: ALTER ROLE {role} NOSUPERUSER;"
        );
        return Err(vec![Found::warning(&facts.role(), finding, fix)]);
    }
    let found = (!facts.writer_may.is_empty()).then(|| {
        let may = facts.writer_may.join(", ");
        let finding = format!("it may {may} events: what is written could be changed with its password");
        let fix = format!(
            "REVOKE {may} ON public.events FROM {role};\n-- if it owns the table: ALTER TABLE public.events OWNER TO <an owner without a login>;"
        );
        Found::warning(&facts.role(), finding, fix)
    });
    verdict(found.into_iter().collect(), "it may add events and change none")
}

fn event_types(facts: &Facts) -> Verdict {
    let found = facts.kept_types.iter().map(|KeptType { event_type, fix }| {
        let finding = "it is kept or shown otherwise than the mapping says: class and readers are taken from its first declaration, or from what an admin said later";
        let fix = format!("-- as a login with the role portal_audit_admin:\n{fix};");
        Found::warning(&format!("event type {event_type}"), finding, fix)
    });
    verdict(found.collect(), "kept and shown as the mappings say")
}

fn public(facts: &Facts) -> Verdict {
    let found = (!facts.public_may.is_empty()).then(|| {
        let may = facts.public_may.join(", ");
        let finding = format!("every role of the server may {may} it: events name people");
        Found::critical("public.events", finding, "REVOKE ALL ON public.events FROM PUBLIC;")
    });
    verdict(found.into_iter().collect(), "PUBLIC may do nothing")
}

fn published(facts: &Facts) -> Verdict {
    let found = facts.publications.iter().map(|publication| {
        let finding = format!("publication {publication} sends every event on; if it is one that a source here reads, each event makes another change");
        let fix = format!("ALTER PUBLICATION {} DROP TABLE public.events;", quoted(publication));
        Found::warning("public.events", finding, fix)
    });
    verdict(found.collect(), "in no publication")
}

fn durability(facts: &Facts) -> Verdict {
    let off = ["fsync", "full_page_writes"].into_iter();
    let off = off.filter(|name| facts.settings.get(*name).is_some_and(|value| value == "off"));
    let found = off.map(|name| {
        let finding =
            "it is off: a crash of that server loses events whose changes the source no longer has";
        let fix = format!("ALTER SYSTEM SET {name} = on;\nSELECT pg_reload_conf();");
        Found::critical(name, finding, fix)
    });
    verdict(found.collect(), "an event that is told as written is on the disk")
}

fn is_source(facts: &Facts) -> Verdict {
    let found = facts.sources_here.iter().map(|source| {
        let finding = format!("it is the database of source {source} too: whoever owns the portal can change the record, and they fill and fail together");
        let fix = format!("CREATE DATABASE \"portal-audit\";\n# then name it in [audit] dsn, and: {SQL_AUDIT} portal-audit");
        Found::warning(&format!("database {}", facts.database), finding, fix)
    });
    verdict(found.collect(), "a database of its own")
}

fn one_sidecar(facts: &Facts) -> Verdict {
    let found = facts.contested.iter().map(|(source, sidecars)| {
        let finding = format!("{} sidecars write it: {}. They wait for each other, and nothing is written twice", sidecars.len(), sidecars.join("; "));
        let fix = "-- stop all but one; if one's host is gone, its session ends by itself within a minute, or:\nSELECT pg_terminate_backend(<process>);";
        Found::warning(&format!("source {source}"), finding, fix)
    });
    verdict(found.collect(), "no two sidecars write one source")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audit_databases_that_are_too_old() {
        let of = |version_num| version(&Facts { version_num, ..Facts::default() });
        assert!(!of(130_022).unwrap_err()[0].fix.is_empty());
        assert_eq!(of(180_004).unwrap(), "PostgreSQL 18.4");
    }

    #[test]
    fn a_fault_is_told_with_a_statement_to_paste() {
        let found = told("column x must go: ALTER TABLE t DROP x, or fill it", "t", "-- no");
        assert_eq!(found.finding, "column x must go");
        assert_eq!(found.fix, "ALTER TABLE t DROP x;\n-- or fill it");
        assert_eq!(told("it is no table", "t", "-- no").fix, "-- no");
        assert_eq!(told("a rule: drop it", "t", "-- no").fix, "-- no");
    }
}
