//! What ops run: the printed SQL, the least privilege it gives, the verbs with their exit codes, the settings file that is shipped.

use crate::support::{Sidecar, cluster, installation, open, run, value, wait_for};
use expect_test::expect;
use portal_audit::{
    chain::chain,
    config::{Limits, Settings},
    connect::{self, Session},
    demo::portal::PORTAL_SQL,
    sql,
};
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tempfile::TempDir;

/// Reads old values of users, a key and a plain column of facilities, and of the table with a secret only what its identity index carries.
const MAPPING: &str = r#"
[[event]]
type         = "user_frozen"
table        = "portal.users"
on           = "update"
when         = { state = { becomes = "Frozen" } }
subject      = "username"
subject_type = "user"
describe     = "{caller} froze {subject}"
retention    = "user"

[[event]]
type         = "facility_registered"
table        = "portal.facilities"
on           = "insert"
subject      = "address"
subject_type = "facility"
describe     = "{caller} registered {subject}"
retention    = "project"

[[event]]
type         = "api_token_deleted"
table        = "portal.api_tokens"
on           = "delete"
subject      = "username"
subject_type = "user"
payload      = { revoked = "revoked" }
describe     = "{caller} deleted a token of {subject}"
retention    = "user"
"#;

/// A source and an audit database that nobody has set up, and settings that name roles of their own.
struct Place {
    name: String,
    folder: TempDir,
    source: Session,
    audit: Session,
    settings: Settings,
}

impl Place {
    /// `mapping` is the text of one, or the name of one that is built in.
    async fn new(name: &str, mapping: &str) -> Self {
        let postgres = open(cluster(), "postgres").await;
        run(&postgres, &format!("CREATE DATABASE {name}")).await;
        run(&postgres, &format!("CREATE DATABASE {name}_audit")).await;
        let source = open(cluster(), name).await;
        run(&source, PORTAL_SQL).await;
        let folder = tempfile::tempdir().unwrap();
        let mut named = mapping;
        if mapping.contains('\n') {
            std::fs::write(folder.path().join("mapping.toml"), mapping).unwrap();
            named = "mapping.toml";
        }
        let reader = cluster().dsn(name, &format!("{name}_reader"));
        let writer = cluster().dsn(&format!("{name}_audit"), &format!("{name}_writer"));
        let spool = cluster().socket_dir();
        let text = format!(
            "[audit]\ndsn = {:?}\n\n[[source]]\nname = {name:?}\ndsn = {:?}\nmapping = {named:?}\nbackfill = true\n\n\
             [limits]\nspool_folder = {spool:?}\ncomplete_interval_ms = 20\nconfirm_interval_ms = 10\n",
            format!("{writer} password={PASSWORD}"),
            format!("{reader} password={PASSWORD}")
        );
        let file = folder.path().join("portal-audit.toml");
        std::fs::write(&file, text).unwrap();
        let settings = Settings::load(&file).unwrap_or_else(|error| panic!("{}", chain(&error)));
        let audit = open(cluster(), &format!("{name}_audit")).await;
        Self { name: name.to_owned(), folder, source, audit, settings }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("portal-audit.toml")
    }

    /// Prints SQL by the program itself, as ops do.
    fn sql(&self, what: &str) -> String {
        let output = program(&["sql", what, "--config", self.file().to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(0), "{}", text_of(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    async fn set_up(&self) {
        run(&self.source, &self.sql("source")).await;
        run(&self.audit, sql::audit()).await;
        let writer = format!(
            "CREATE ROLE {0}_writer LOGIN; GRANT portal_audit_writer TO {0}_writer",
            self.name
        );
        run(&self.audit, &writer).await;
    }

    fn status(&self, format: &str) -> Output {
        program(&["status", "--config", self.file().to_str().unwrap(), "--format", format])
    }

    /// Waits until the stream has begun: a slot is active while it is created too.
    async fn streaming(&self) {
        let written = "SELECT count(*) = 1 FROM portal_audit.progress WHERE state = 'streaming'";
        wait_for("streaming", async || value::<bool>(&self.audit, written).await).await;
        self.is_slot("active").await;
    }

    async fn is_slot(&self, state: &str) {
        let query = format!(
            "SELECT count(*) = 1 FROM pg_replication_slots WHERE slot_name = '{}' AND {state}",
            self.settings.sources[0].slot
        );
        wait_for(state, async || value::<bool>(&self.source, &query).await).await;
    }
}

/// In every connection string here, and in nothing that is printed.
const PASSWORD: &str = "hunter2canary";

#[expect(clippy::disallowed_methods, reason = "the program itself is what is tested")]
fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_portal-audit")).args(arguments).output().unwrap()
}

fn text_of(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8(text).unwrap();
    assert!(!text.contains(PASSWORD), "{text}");
    text
}

async fn refusal(session: &Session, script: &str) -> String {
    let error = session.client.batch_execute(script).await.expect_err("must be refused");
    run(session, "ROLLBACK").await;
    let hint = error.as_db_error().and_then(|report| report.hint()).unwrap_or_default();
    format!("{}\n{hint}", connect::describe(&error))
}

/// What is published, with the columns if there is a list, and the replica identity of every table.
async fn published(session: &Session) -> String {
    let list = if installation().major >= 15 { "r.prattrs::int2[]" } else { "NULL::int2[]" };
    let query = format!(
        "SELECT coalesce(string_agg(rtrim(format('%s %s %s', c.oid::regclass, c.relreplident,
            (SELECT string_agg(attname, ',' ORDER BY attname) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY ({list})))), E'\\n' ORDER BY c.relname), '')
           FROM pg_class c LEFT JOIN pg_publication_rel r ON r.prrelid = c.oid
          WHERE c.relnamespace = 'portal'::regnamespace AND c.relkind = 'r' AND (r.oid IS NOT NULL OR c.relreplident = 'f')"
    );
    value(session, &query).await
}

async fn has_role(session: &Session, role: &str) -> bool {
    value(session, &format!("SELECT count(*) = 1 FROM pg_roles WHERE rolname = '{role}'")).await
}

const DEFAULT_IDENTITIES: &str = "ALTER TABLE portal.users REPLICA IDENTITY DEFAULT; ALTER TABLE portal.organizations REPLICA IDENTITY DEFAULT;
    ALTER TABLE portal.projects REPLICA IDENTITY DEFAULT; ALTER TABLE portal.organization_members REPLICA IDENTITY DEFAULT;
    ALTER TABLE portal.project_members REPLICA IDENTITY DEFAULT; ALTER TABLE portal.experiments REPLICA IDENTITY DEFAULT;";
const WRITES: &str = "INSERT INTO portal.users (username, uid, gid, state) VALUES ('ada', 1, 1, 'Active'), ('bob', 2, 2, 'Active');
    INSERT INTO portal.facilities (name, address) VALUES ('lighthouse', 'pier');
    INSERT INTO portal.api_tokens (username, token_hash) VALUES ('ada', 'hunter2canary'), ('bob', 'hunter2canary');
    INSERT INTO portal.users (username, uid, gid) VALUES ('ada', 1, 1) ON CONFLICT (username) DO UPDATE SET email = 'a@b';
    UPDATE portal.users SET state = 'Frozen' WHERE username = 'ada';
    UPDATE portal.facilities SET description = 'by the sea';
    UPDATE portal.facilities SET name = 'beacon';
    UPDATE portal.api_tokens SET revoked = TRUE;
    DELETE FROM portal.api_tokens WHERE username = 'ada';
    DELETE FROM portal.facilities;
    DELETE FROM portal.users WHERE username = 'bob';";

#[tokio::test(flavor = "multi_thread")]
async fn the_source_script_makes_what_the_mapping_needs_and_nothing_else() {
    let place = Place::new("ops_source", MAPPING).await;
    run(&place.source, DEFAULT_IDENTITIES).await;
    let script = place.sql("source");
    let mut made = String::new();
    for _ in 0..2 {
        run(&place.source, &script).await;
        made = published(&place.source).await;
        // The portal goes on writing, whatever was made.
        run(&place.source, &format!("BEGIN; {WRITES} ROLLBACK")).await;
    }
    if installation().major >= 15 {
        expect![[r#"
            portal.api_tokens i id,revoked,username
            portal.facilities d address,name
            portal.users f"#]]
        .assert_eq(&made);
    } else {
        expect![[r#"
            portal.api_tokens i
            portal.facilities d
            portal.users f"#]]
        .assert_eq(&made);
    }
    let may =
        |what: &str| format!("SELECT has_column_privilege('ops_source_reader', {what}, 'SELECT')");
    let can_read: bool = value(&place.source, &may("'portal.users', 'username'")).await;
    let can_read_secret: bool =
        value(&place.source, &may("'portal.api_tokens', 'token_hash'")).await;
    let can_read_other: bool = value(&place.source, &may("'portal.projects', 'name'")).await;
    assert_eq!((can_read, can_read_secret, can_read_other), (true, false, false));
    let role: String = value(&place.source, "SELECT format('%s %s %s %s', rolsuper, rolinherit, rolcanlogin, rolreplication) FROM pg_roles WHERE rolname = 'ops_source_reader'").await;
    assert_eq!(role, "f f t t");
    run(&place.source, &place.sql("undo")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_a_secret_is_never_published_whole() {
    let mapping = MAPPING.replace("revoked = \"revoked\"", "description = \"description\"");
    let place = Place::new("ops_secret", &mapping).await;
    run(&place.source, DEFAULT_IDENTITIES).await;
    let before = published(&place.source).await;
    let refused = refusal(&place.source, &place.sql("source")).await;
    expect![[r#"
        P0001 table portal.api_tokens needs old values ({description,username}) and holds what looks secret ({token_hash})
        CREATE UNIQUE INDEX ON portal.api_tokens (<its key>, description, username); ALTER TABLE portal.api_tokens REPLICA IDENTITY USING INDEX <that index>; all columns NOT NULL."#]].assert_eq(&refused);
    assert_eq!(published(&place.source).await, before);
    assert!(!has_role(&place.source, "ops_secret_reader").await);
    let publications = value::<i64>(&place.source, "SELECT count(*) FROM pg_publication").await;
    assert_eq!(publications, 0);
    run(&place.source, &format!("BEGIN; {WRITES} ROLLBACK")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_gets_the_identity_that_its_table_needs() {
    let mapping = "\n[[event]]\ntype = \"login_failed\"\ntable = \"portal.logins\"\non = \"update\"\nwhen = { state = { becomes = \"failed\" } }\nsubject = \"username\"\nsubject_type = \"user\"\ndescribe = \"{subject} failed to log in\"\nretention = \"user\"\n";
    let place = Place::new("ops_partition", mapping).await;
    let table = "CREATE TABLE portal.logins (id INT PRIMARY KEY, username TEXT, state TEXT) PARTITION BY RANGE (id);
        CREATE TABLE portal.logins_1 PARTITION OF portal.logins FOR VALUES FROM (0) TO (10)";
    run(&place.source, table).await;
    place.set_up().await;
    // A later partition has the default identity again, until the script is run again.
    run(
        &place.source,
        "CREATE TABLE portal.logins_2 PARTITION OF portal.logins FOR VALUES FROM (10) TO (20)",
    )
    .await;
    run(&place.source, &place.sql("source")).await;
    let sidecar = Sidecar::start(place.settings.clone());
    place.streaming().await;
    run(&place.source, "INSERT INTO portal.logins VALUES (11, 'ada', 'new'); UPDATE portal.logins SET state = 'failed'").await;
    let failed = "SELECT count(*) = 1 FROM public.events WHERE event_type = 'login_failed' AND subject = 'ada'";
    wait_for("the event", async || value::<bool>(&place.audit, failed).await).await;
    sidecar.stop().await;
    place.is_slot("NOT active").await;
    run(&place.source, &place.sql("undo")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_privilege_suffices_and_undo_leaves_nothing() {
    let place = Place::new("ops_run", "merge-reference").await;
    run(
        &place.source,
        "INSERT INTO portal.users (username, uid, gid, state) VALUES ('old', 9, 9, 'Active')",
    )
    .await;
    let new = place.status("text");
    assert_eq!(new.status.code(), Some(1), "nothing is set up: {}", text_of(&new));
    place.set_up().await;

    let sidecar = Sidecar::start(place.settings.clone());
    place.streaming().await;
    run(&place.source, "INSERT INTO portal.users (username, uid, gid) VALUES ('ada', 1, 1)").await;
    let created = "SELECT count(*) = 2 FROM public.events WHERE event_type = 'user_created' AND subject IN ('old', 'ada')";
    wait_for("both events", async || value::<bool>(&place.audit, created).await).await;

    // While it runs it is told to be well, and cannot be taken off.
    let streaming = place.status("json");
    assert_eq!(streaming.status.code(), Some(0), "{}", text_of(&streaming));
    let json: serde_json::Value = serde_json::from_slice(&streaming.stdout).unwrap();
    assert_eq!((&json[0]["source"], &json[0]["state"]), (&"ops_run".into(), &"streaming".into()));
    assert!(text_of(&place.status("text")).contains("streaming"));
    assert!(refusal(&place.source, &place.sql("undo")).await.contains("is active for PID"));
    assert_eq!(value::<i64>(&place.source, "SELECT count(*) FROM pg_publication").await, 1);

    sidecar.stop().await;
    place.is_slot("NOT active").await;
    let stopped = place.status("text");
    assert_eq!(stopped.status.code(), Some(1));
    let text = text_of(&stopped);
    assert!(text.contains("stopped") && !text.contains("ada"), "{text}");

    run(&place.source, &place.sql("undo").repeat(2)).await;
    let left = "SELECT (SELECT count(*) FROM pg_replication_slots WHERE database = current_database()) + (SELECT count(*) FROM pg_publication)";
    assert_eq!(value::<i64>(&place.source, left).await, 0);
    assert!(!has_role(&place.source, "ops_run_reader").await);
    run(&place.source, "UPDATE portal.users SET state = 'Frozen'; DELETE FROM portal.users").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn undo_keeps_a_role_that_was_not_made_for_this() {
    let place = Place::new("ops_owner", MAPPING).await;
    run(&place.source, "CREATE ROLE ops_owner_reader LOGIN REPLICATION; ALTER TABLE portal.facilities OWNER TO ops_owner_reader").await;
    run(&place.source, &place.sql("source")).await;
    run(&place.source, &place.sql("undo")).await;
    assert!(has_role(&place.source, "ops_owner_reader").await);
    assert!(
        value::<bool>(&place.source, "SELECT to_regclass('portal.facilities') IS NOT NULL").await
    );

    // Nor does it take from a second source what that one needs.
    let other = Place::new("ops_shared", MAPPING).await;
    run(&other.source, &other.sql("source")).await;
    run(&place.audit, "GRANT CONNECT ON DATABASE ops_owner_audit TO ops_shared_reader").await;
    run(&other.source, &other.sql("undo")).await;
    assert!(has_role(&place.source, "ops_shared_reader").await);
    run(&place.audit, "REVOKE CONNECT ON DATABASE ops_owner_audit FROM ops_shared_reader").await;
    run(&other.source, &other.sql("undo")).await;
    assert!(!has_role(&place.source, "ops_shared_reader").await);
}

/// `events` as others made it: without three of the five indexes, with one of theirs, and with a row.
const EVENTS_OF_OTHERS: &str = "CREATE TABLE public.events (event_uuid UUID PRIMARY KEY, timestamp TIMESTAMPTZ NOT NULL, event_type TEXT NOT NULL, caller TEXT NOT NULL,
      subject TEXT NOT NULL, subject_type TEXT NOT NULL, target TEXT, success BOOLEAN NOT NULL, error_message TEXT, payload JSONB NOT NULL DEFAULT '{}'::jsonb);
    CREATE INDEX idx_events_timestamp ON public.events (timestamp DESC);
    CREATE INDEX idx_events_caller ON public.events (caller);
    CREATE INDEX theirs ON public.events USING gin (payload);
    INSERT INTO public.events VALUES ('6ba7b810-9dad-11d1-80b4-00c04fd430c8', '2026-04-23 20:50:23+00', 'org_member_added', 'glawler', 'orgtest', 'organization', 'testuser', TRUE, NULL, '{\"kind\": \"usermember\"}');";
const EVENTS_AS_THEY_ARE: &str = "SELECT concat_ws(E'\\n',
    (SELECT string_agg(format('%s %s %s %s', attname, format_type(atttypid, atttypmod), attnotnull, atthasdef), ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'public.events'::regclass AND attnum > 0),
    (SELECT string_agg(pg_get_indexdef(indexrelid), ', ' ORDER BY indexrelid) FROM pg_index WHERE indrelid = 'public.events'::regclass),
    (SELECT string_agg(pg_get_constraintdef(oid), ', ' ORDER BY oid) FROM pg_constraint WHERE conrelid = 'public.events'::regclass),
    (SELECT string_agg(e::text, ', ') FROM public.events e WHERE caller = 'glawler'))";

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_events_that_is_there_stays_as_it_is() {
    let place = Place::new("ops_events", "merge-reference").await;
    run(&place.audit, EVENTS_OF_OTHERS).await;
    let before: String = value(&place.audit, EVENTS_AS_THEY_ARE).await;
    place.set_up().await;
    run(&place.audit, sql::audit()).await;
    let sidecar = Sidecar::start(place.settings.clone());
    place.streaming().await;
    run(&place.source, "INSERT INTO portal.users (username, uid, gid) VALUES ('ada', 1, 1)").await;
    let both = "SELECT count(*) = 2 FROM public.events";
    wait_for("an event beside theirs", async || value::<bool>(&place.audit, both).await).await;
    sidecar.stop().await;
    assert_eq!(value::<String>(&place.audit, EVENTS_AS_THEY_ARE).await, before);
    place.is_slot("NOT active").await;
    run(&place.source, &place.sql("undo")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_context_script_can_be_run_again_and_taken_off() {
    let place = Place::new("ops_context", "merge-reference").await;
    let output = program(&["sql", "context"]);
    assert_eq!(output.status.code(), Some(0));
    let script = String::from_utf8(output.stdout).unwrap();
    for _ in 0..2 {
        run(&place.source, &script).await;
        run(&place.source, "CALL portal_audit.attach('portal.users')").await;
    }
    run(&place.source, "INSERT INTO portal.users (username, uid, gid) VALUES ('ada', 1, 1)").await;
    run(&place.source, "DROP SCHEMA portal_audit CASCADE; DELETE FROM portal.users").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_what_does_not_answer() {
    let place = Place::new("ops_away", "merge-reference").await;
    place.set_up().await;
    let text = std::fs::read_to_string(place.file()).unwrap();
    let nowhere = place.folder.path().join("no-socket");
    let socket = cluster().socket_dir().display().to_string();
    let (audit, source) = text.split_once("[[source]]").unwrap();

    let away =
        format!("{audit}[[source]]{}", source.replacen(&socket, nowhere.to_str().unwrap(), 1));
    std::fs::write(place.file(), away).unwrap();
    for format in ["text", "json"] {
        let output = place.status(format);
        assert_eq!(output.status.code(), Some(1));
        assert!(text_of(&output).contains("unreachable"), "{}", text_of(&output));
    }
    std::fs::write(place.file(), text.replace(&socket, nowhere.to_str().unwrap())).unwrap();
    let output = place.status("text");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text_of(&output).contains("portal-audit: audit database: could not connect to"),
        "{}",
        text_of(&output)
    );
    std::fs::write(place.file(), &text).unwrap();
    run(&place.source, &place.sql("undo")).await;
}

#[test]
fn exit_codes_tell_usage_from_faults() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let dsn = format!("host=/tmp user=u password={PASSWORD}");
    let source = |name: &str, mapping: &str| {
        format!(
            "[[source]]\nname = \"{name}\"\ndsn = \"{dsn} dbname={name}\"\nmapping = \"{mapping}\"\n"
        )
    };
    let audit = format!("[audit]\ndsn = \"{dsn} dbname=a\"\n");
    let two = write(
        "two.toml",
        &format!("{audit}{}{}", source("one", "merge-reference"), source("two", "merge-reference")),
    );
    write("mapping.toml", "[[event]]\ntipe = \"x\"\n");
    let broken = write("broken.toml", &format!("{audit}{}", source("one", "mapping.toml")));
    let unknown = write(
        "unknown.toml",
        &format!("[audit]\ndsn = \"{dsn} dbnmae=a\"\n{}", source("one", "merge-reference")),
    );
    let syntax = write("syntax.toml", &format!("[audit]\ndsn = \"{dsn}\n"));
    for (arguments, code, says) in [
        (vec!["--help"], 0, "Usage: portal-audit"),
        (vec!["sql", "--help"], 0, "source"),
        (vec!["status", "--help"], 0, "--config"),
        (vec!["--version"], 0, "portal-audit 0"),
        (vec![], 2, "Usage"),
        (vec!["frobnicate"], 2, "unrecognized subcommand"),
        (vec!["run"], 2, "--config"),
        (vec!["run", "--config", "/nowhere.toml"], 2, "cannot read /nowhere.toml"),
        (
            vec!["run", "--config", &broken],
            2,
            "mapping.toml:2:1: unknown key \"tipe\"\n  Did you mean \"type\"?",
        ),
        (vec!["run", "--config", &unknown], 2, "dbnmae"),
        (vec!["status", "--config", &syntax], 2, "syntax.toml:2:"),
        (vec!["sql", "source", "--config", &two], 2, "say which source with --source: one, two"),
        (vec!["sql", "source", "--config", &two, "--source", "three"], 2, "one, two"),
        (vec!["sql", "undo", "--config", &two, "--source", "two"], 0, "portal_audit_two"),
        (vec!["sql", "audit"], 0, "portal_audit.progress"),
    ] {
        let output = program(&arguments);
        let text = text_of(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(says), "{arguments:?}: {text}");
    }
}

const SETTINGS_FILE: &str = include_str!("../../deploy/portal-audit.toml");

/// The doc comments of the fields of [`Limits`], as one line each.
fn documented_limits() -> Vec<(String, String)> {
    let (_, limits) =
        include_str!("../../src/config.rs").split_once("pub struct Limits {").unwrap();
    let mut comment = Vec::new();
    let mut documented = Vec::new();
    for line in limits.split_once("\n}").unwrap().0.lines().map(str::trim) {
        if let Some(words) = line.strip_prefix("/// ") {
            comment.push(words);
        } else if let Some(field) = line.strip_prefix("pub ") {
            let name = field.split_once(':').unwrap().0;
            documented.push((name.to_owned(), std::mem::take(&mut comment).join(" ")));
        }
    }
    documented
}

#[test]
fn the_shipped_settings_are_the_defaults() {
    let settings = Settings::parse(Path::new("deploy/portal-audit.toml"), SETTINGS_FILE);
    let settings = settings.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(settings.limits, Limits::default());
    assert!(!settings.sources[0].backfill);

    let file: toml::Table = SETTINGS_FILE.parse().unwrap();
    let words = SETTINGS_FILE.replace('#', " ");
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    let limits = documented_limits();
    assert_eq!(file["limits"].as_table().unwrap().len(), limits.len());
    for (field, comment) in limits {
        assert!(file["limits"].get(&field).is_some(), "{field} is missing");
        assert!(
            !comment.is_empty() && words.contains(&comment),
            "{field}: {comment:?} is not its comment"
        );
    }
    // The second source is there to be uncommented.
    let example: String = SETTINGS_FILE
        .lines()
        .map(|line| line.strip_prefix("#:").unwrap_or(line))
        .map(|line| format!("{line}\n"))
        .collect();
    let both = Settings::parse(Path::new("deploy/portal-audit.toml"), &example);
    let both = both.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(both.sources.len(), 2);
}
