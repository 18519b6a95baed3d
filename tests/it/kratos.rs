//! The identity server: what its translator remembers over restarts and windows, what it never tells, and the versions it reads. What each action gives is in `tests/changes/kratos`.

use crate::support::{
    Portal, Sidecar,
    kratos::{KRATOS_SQL, decided, identity_server, steps, with},
    program::{Program, SettingsFile, command},
    run, value, wait_for,
};
use expect_test::expect;
use portal_audit::{chain::chain, config::Settings, sql, translate::mapping::Mapping};
use std::{os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

/// Longer than any test: what waits is decided by a row or not at all.
const ENDLESS_SECONDS: u32 = 3_600;
const WREN: &str = "CALL registered(1, 'wrenn');\nCALL registered(2, 'okafor7');\n";
/// Most candidates that wait at one time.
const PENDING_MAX: i64 = 10_000;

async fn pending(portal: &Portal) -> i64 {
    let query = "SELECT count(*) FROM portal_audit.names WHERE entity = 'kratos.pending'";
    value(&portal.audit, query).await
}

async fn restart(portal: &Portal, sidecar: Sidecar) -> Sidecar {
    sidecar.stop().await;
    portal.start().await
}

/// Every step in a session of its own: what a flow, a session and a candidate were before is known after.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_between_any_two_steps_changes_nothing() {
    let portal = with("kratos_restart", KRATOS_SQL, ENDLESS_SECONDS).await;
    steps(&portal, WREN).await;
    let mut sidecar = portal.start().await;
    for step in [
        "CALL open_login(10);",
        "CALL refuse(10, 4000006, 'wrenn');",
        "CALL accept(10, 'password');",
        "CALL open_session(20, 1);",
        "CALL prove_again(20, 'totp', 'aal2');",
        "CALL open_settings(30, 1);",
        "CALL replace_credential(1, 'password');",
        "CALL settled(30);",
        "CALL log_out(20);",
        "CALL refuse(10, 4000006, 'okafor7');",
    ] {
        steps(&portal, step).await;
        portal.catch_up().await;
        sidecar = restart(&portal, sidecar).await;
    }
    assert_eq!(pending(&portal).await, 1, "the last failure could be a success");
    // A session of its owner says that it was.
    steps(&portal, "CALL open_session(21, 2);").await;
    portal.catch_up().await;
    sidecar.stop().await;
    assert_eq!(pending(&portal).await, 0);
    expect![[r#"
        login_failed  caller= (none)  subject=user/wrenn  FAILED username or password is wrong
            {"aal": "aal1", "type": "browser", "method": "password", "reason": 4000006}
        login_succeeded  caller=wrenn (row)  subject=user/wrenn  ok
            {"ip": "192.0.2.20", "aal": "aal1", "type": "browser", "method": "password", "user_agent": "Mozilla/5.0 (X11)"}
        login_refreshed  caller=wrenn (row)  subject=user/wrenn  ok
            {"aal": "aal2", "method": "totp", "old_aal": "aal1"}
        password_changed  caller=wrenn (row)  subject=user/wrenn  ok
            {"by": "settings"}
        logout  caller= (none)  subject=user/wrenn  ok
            {}
        login_succeeded  caller=okafor7 (row)  subject=user/okafor7  ok
            {"ip": "192.0.2.21", "aal": "aal1", "type": "browser", "method": "password", "user_agent": "Mozilla/5.0 (X11)"}
    "#]]
    .assert_eq(&portal.events().await);
}

/// While a candidate waits, "complete to" stays before it, also over a restart; then it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn complete_to_waits_for_what_is_not_decided() {
    const COMPLETE_TO: &str = "SELECT complete_to::text FROM portal_audit.progress";
    let portal = with("kratos_complete", KRATOS_SQL, ENDLESS_SECONDS).await;
    steps(&portal, WREN).await;
    let sidecar = portal.start().await;
    steps(&portal, "CALL open_login(10);\nCALL accept(10, 'password');").await;
    portal.catch_up().await;
    let complete_to: String = value(&portal.audit, COMPLETE_TO).await;
    steps(&portal, "CALL open_login(11);").await;
    portal.catch_up().await;
    let sidecar = restart(&portal, sidecar).await;
    steps(&portal, "CALL open_login(12);").await;
    portal.catch_up().await;
    let now: String = value(&portal.audit, COMPLETE_TO).await;
    assert_eq!(now, complete_to, "it may yet become an event");
    assert_eq!(portal.count().await, 0);
    steps(&portal, "CALL open_session(20, 1);").await;
    let moved = format!("SELECT complete_to > '{now}' FROM portal_audit.progress");
    wait_for("the record to go on", async || value::<bool>(&portal.audit, &moved).await).await;
    portal.catch_up().await;
    sidecar.stop().await;
    let types = "SELECT string_agg(event_type, ' ') FROM public.events";
    assert_eq!(value::<String>(&portal.audit, types).await, "login_succeeded");
}

/// The log is read late: the sidecar was away for longer than the window, there is much to read between a flow's last word and its session, and meanwhile the server answers with its clock of now.
#[tokio::test(flavor = "multi_thread")]
async fn being_late_makes_no_failure() {
    let mut portal = with("kratos_late", KRATOS_SQL, 10).await;
    steps(&portal, WREN).await;
    portal.start().await.stop().await;
    steps(&portal, "CALL open_login(10);\nCALL accept(10, 'password');").await;
    let accepted: String = value(&portal.source, "SELECT clock_timestamp()::text").await;
    // More than the socket holds, and slow to read.
    let busy = "DO $$ BEGIN FOR n IN 1..1000 LOOP INSERT INTO selfservice_login_flows (id, request_url, active_method, csrf_token, internal_context, ui) VALUES (id(n << 12), '', '', '', '{}', jsonb_build_object('x', repeat('x', 20000))); COMMIT; END LOOP; END $$;";
    steps(&portal, &format!("{busy}\nCALL open_session(20, 1);")).await;
    portal.settings.limits.batch_events = 1;
    let since = format!("SELECT clock_timestamp() - '{accepted}'::timestamptz");
    let in_time = format!("{since} < '9.5 s'");
    assert!(value::<bool>(&portal.source, &in_time).await, "the session must be in the window");
    let past = format!("{since} > '10.5 s'");
    wait_for("the window to pass", async || value::<bool>(&portal.source, &past).await).await;
    let sidecar = portal.start().await;
    decided(&portal).await;
    sidecar.stop().await;
    let types = "SELECT string_agg(event_type, ' ') FROM public.events";
    assert_eq!(value::<String>(&portal.audit, types).await, "login_succeeded");
}

/// A failure after the password was right, a second like it, and the success, all in one flow: the rows of the last two attempts are the same.
#[tokio::test(flavor = "multi_thread")]
async fn attempts_of_one_flow_are_told_apart() {
    let portal = identity_server("kratos_attempts").await;
    steps(&portal, WREN).await;
    let sidecar = portal.start().await;
    let attempt = "CALL accept(10, 'password');\nCALL refuse(10, 4000010, 'wrenn');";
    steps(&portal, "CALL open_login(10);").await;
    for _ in 0..2 {
        steps(&portal, attempt).await;
        let now: String = value(&portal.source, "SELECT clock_timestamp()::text").await;
        let later = format!("SELECT clock_timestamp() > '{now}'::timestamptz + interval '1.1 s'");
        wait_for("a moment", async || value::<bool>(&portal.source, &later).await).await;
    }
    steps(&portal, "CALL accept(10, 'password');\nCALL open_session(20, 1);").await;
    decided(&portal).await;
    sidecar.stop().await;
    expect![[r#"
        login_failed  caller= (none)  subject=user/wrenn  FAILED the address is not verified
            {"aal": "aal1", "type": "browser", "method": "password", "reason": 4000010}
        login_failed  caller= (none)  subject=user/wrenn  FAILED the address is not verified
            {"aal": "aal1", "type": "browser", "method": "password", "reason": 4000010}
        login_succeeded  caller=wrenn (row)  subject=user/wrenn  ok
            {"ip": "192.0.2.20", "aal": "aal1", "type": "browser", "method": "password", "user_agent": "Mozilla/5.0 (X11)"}
    "#]]
    .assert_eq(&portal.events().await);
}

/// More candidates than may wait: the oldest are decided at once, and none is lost.
#[tokio::test(flavor = "multi_thread")]
async fn candidates_are_bounded() {
    let portal = with("kratos_bound", KRATOS_SQL, ENDLESS_SECONDS).await;
    let sidecar = portal.start().await;
    let flows = PENDING_MAX + 20;
    steps(&portal, &format!("DO $$ BEGIN FOR n IN 1..{flows} LOOP CALL open_login(n << 4); END LOOP; END $$;\nUPDATE selfservice_login_flows SET active_method = 'password';")).await;
    portal.catch_up().await;
    sidecar.stop().await;
    assert_eq!(pending(&portal).await, PENDING_MAX);
    assert_eq!(portal.count().await, 20);
}

/// The word that each secret of the sample holds.
const CANARY: &str = "canary";

/// Everything in the audit database as text.
async fn everything(portal: &Portal) -> String {
    let tables = "SELECT string_agg(format('(SELECT coalesce(string_agg(t::text, E''\\n''), '''') FROM %I.%I t)', schemaname, tablename), ' || ') FROM pg_tables WHERE schemaname IN ('public', 'portal_audit')";
    let all: String = value(&portal.audit, tables).await;
    value(&portal.audit, &format!("SELECT {all}")).await
}

/// A secret in every column that holds one, a password in the wrong box; then every place where it could have come to.
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_leaves_the_identity_server() {
    let portal = identity_server("kratos_secrets").await;
    steps(&portal, WREN).await;
    let script =
        "CALL open_session(20, 1);\nCALL open_login(9);\nCALL refuse(9, 4000006, 'canary-before');";
    steps(&portal, script).await;
    let mut settings = SettingsFile::new(&portal);
    let folder = settings.path.parent().unwrap().to_owned();
    let key = folder.join("identifier.key");
    std::fs::write(&key, "canary-of-the-key-file\n").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let named = "backfill = true\nidentifier_key_file = \"identifier.key\"";
    let text = portal.settings_text.replace("backfill = false", named);
    std::fs::write(&settings.path, &text).unwrap();
    settings.path = folder.join("portal-audit.toml");

    let log = folder.join("log");
    let program = Program::run_with_log(&settings.path, &log);
    portal.streaming().await;
    steps(&portal, "CALL open_login(10);\nCALL refuse(10, 4000006, 'canary-typed-password');\nCALL accept(10, 'password');\nCALL refuse(10, 4000010, 'Canary typed again');\nCALL open_session(21, 1);\nCALL open_settings(30, 1);\nCALL replace_credential(1, 'password');\nCALL settled(30);\nCALL log_out(21);\nUPDATE sessions SET token = secret('other');\nDELETE FROM identities WHERE id = id(1);").await;
    // A form that cannot be read is counted, not shown.
    let broken =
        "UPDATE selfservice_login_flows SET ui = '{\"messages\": \"canary\"}' WHERE id = id(10);";
    steps(&portal, broken).await;
    decided(&portal).await;
    let status =
        command(&["status", "--config", settings.path.to_str().unwrap(), "--format", "json"]);
    let status = { status }.output().unwrap();
    assert!(program.terminate().success());

    let everything = everything(&portal).await;
    let log = std::fs::read_to_string(&log).unwrap();
    let shown = [status.stdout, status.stderr].concat();
    let shown = String::from_utf8(shown).unwrap();
    for (place, text) in [("audit database", &everything), ("log", &log), ("status", &shown)] {
        assert!(!text.to_lowercase().contains(CANARY), "in the {place}");
    }
    assert!(everything.contains("hmac:") && everything.contains("wrenn"), "{everything}");
    assert!(log.contains("streaming") && shown.contains("streaming"), "{log}{shown}");
    let unread = "SELECT changes FROM portal_audit.unmapped WHERE relation = 'public.selfservice_login_flows'";
    assert_eq!(value::<i64>(&portal.audit, unread).await, 1);
    let secrets: String =
        value(&portal.source, "SELECT string_agg(f::text, '') FROM selfservice_login_flows f")
            .await;
    assert!(secrets.to_lowercase().contains(CANARY), "the test must plant what it looks for");
}

/// The server itself does not send them, where it can hold columns back.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_is_the_least() {
    let portal = identity_server("kratos_published").await;
    let lists = "SELECT string_agg(tablename || ' (' || array_to_string(attnames, ', ') || ')', E'\\n' ORDER BY tablename) FROM pg_publication_tables WHERE pubname = 'portal_audit'";
    if value::<bool>(&portal.source, "SELECT current_setting('server_version_num')::int >= 150000")
        .await
    {
        expect![[r#"
            identities (id, schema_id, traits, created_at, updated_at, nid, state, state_changed_at, metadata_public, metadata_admin, available_aal)
            identity_credential_identifiers (id, identifier, identity_credential_id, created_at, updated_at, nid, identity_credential_type_id, identity_id)
            identity_credential_types (id, name)
            identity_credentials (id, identity_credential_type_id, identity_id, created_at)
            selfservice_login_flows (id, issued_at, active_method, forced, type, ui, requested_aal, state, submit_count)
            selfservice_settings_flows (id, identity_id, state, type)
            session_devices (id, ip_address, user_agent, session_id)
            sessions (id, issued_at, expires_at, authenticated_at, identity_id, created_at, active, aal, authentication_methods)"#]].assert_eq(&value::<String>(&portal.source, lists).await);
    }
    // The role that the script makes may read what the snapshot needs, and no more.
    let text = portal.settings_text.replacen("user='postgres'", "user='kratos_reader'", 2);
    let text = text.replacen("user='kratos_reader'", "user='postgres'", 1);
    let settings = Settings::parse(Path::new("test.toml"), &text).unwrap();
    assert_eq!(settings.sources[0].conninfo.user(), "kratos_reader");
    run(&portal.source, &sql::source(&settings.sources[0])).await;
    steps(&portal, WREN).await;
    steps(&portal, "CALL open_session(20, 1);\nCALL open_login(10);").await;
    let denied =
        "SELECT has_any_column_privilege('kratos_reader', 'identity_recovery_codes', 'SELECT')";
    run(&portal.source, "CREATE TABLE identity_recovery_codes (code TEXT)").await;
    assert!(!value::<bool>(&portal.source, denied).await);
    for (table, column) in [
        ("sessions", "token"),
        ("sessions", "logout_token"),
        ("identity_credentials", "config"),
        ("selfservice_login_flows", "csrf_token"),
        ("selfservice_login_flows", "request_url"),
        ("selfservice_login_flows", "internal_context"),
        ("selfservice_settings_flows", "ui"),
    ] {
        let may = format!(
            "SELECT has_column_privilege('kratos_reader', '{table}', '{column}', 'SELECT')"
        );
        assert!(!value::<bool>(&portal.source, &may).await, "{table}.{column}");
    }
    let sidecar = Sidecar::start(settings);
    portal.streaming().await;
    steps(&portal, "CALL log_out(20);\nCALL accept(10, 'password');").await;
    decided(&portal).await;
    sidecar.stop().await;
    let types = "SELECT string_agg(event_type, ' ' ORDER BY timestamp) FROM public.events";
    assert_eq!(value::<String>(&portal.audit, types).await, "logout login_failed");
}

/// Tables as an old version has them: what is missing is left out, and the rest is told.
#[tokio::test(flavor = "multi_thread")]
async fn old_versions_lack_columns_and_tables() {
    let schema = format!(
        "{KRATOS_SQL}
        DROP TABLE session_devices;
        ALTER TABLE sessions DROP aal, DROP authentication_methods;
        ALTER TABLE selfservice_login_flows DROP state, DROP submit_count, DROP forced, DROP requested_aal;
        ALTER TABLE identity_credential_identifiers DROP identity_id;
        ALTER TABLE identities DROP available_aal, DROP state_changed_at;"
    );
    let portal = with("kratos_old", &schema, 3).await;
    let registered = "WITH i AS (INSERT INTO identities (id, traits, created_at) VALUES (id(1), '{\"username\": \"wrenn\"}', '2026-01-01') RETURNING id), c AS (INSERT INTO identity_credentials (id, config, identity_credential_type_id, identity_id) SELECT id(2), '{}', t.id, id(1) FROM identity_credential_types t WHERE name = 'password' RETURNING id) SELECT 1;
        INSERT INTO identity_credential_identifiers (identifier, identity_credential_id, identity_credential_type_id) SELECT 'wrenn', id(2), t.id FROM identity_credential_types t WHERE name = 'password';";
    run(&portal.source, registered).await;
    let sidecar = portal.start().await;
    steps(&portal, "INSERT INTO selfservice_login_flows (id, request_url, active_method, csrf_token, ui, internal_context) VALUES (id(10), '', '', '', '{}', '{}');\nUPDATE selfservice_login_flows SET ui = form(4000006, 'wrenn', 'password_identifier');\nUPDATE selfservice_login_flows SET active_method = 'password';\nINSERT INTO sessions (id, expires_at, authenticated_at, identity_id, active) VALUES (id(20), utc() + interval '1 day', utc(), id(1), true);\nUPDATE sessions SET active = false;").await;
    // A second account, whose rows the stream brings.
    steps(
        &portal,
        &format!(
            "BEGIN; {} COMMIT;",
            registered
                .replace("id(1)", "id(3)")
                .replace("id(2)", "id(4)")
                .replace("wrenn", "okafor7")
                .replace('\n', " ")
        ),
    )
    .await;
    steps(&portal, "UPDATE selfservice_login_flows SET active_method = '';\nUPDATE selfservice_login_flows SET ui = form(4000006, 'okafor7');").await;
    decided(&portal).await;
    sidecar.stop().await;
    expect![[r#"
        login_failed  caller= (none)  subject=user/wrenn  FAILED username or password is wrong
            {"type": "browser", "method": "password", "reason": 4000006}
        login_succeeded  caller=wrenn (row)  subject=user/wrenn  ok
            {"type": "browser"}
        logout  caller= (none)  subject=user/wrenn  ok
            {}
        identity_registered  caller= (none)  subject=user/okafor7  ok
            {}
        login_failed  caller= (none)  subject=user/okafor7  FAILED username or password is wrong
            {"type": "browser", "method": "password", "reason": 4000006}
    "#]]
    .assert_eq(&portal.events().await);
}

/// A fault of the mapping or of the tables names its place and its fix.
#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_told() {
    let shipped = include_str!("../../deploy/mapping/kratos.toml");
    let told = |from: &str, to: &str| {
        assert!(shipped.contains(from), "{from}");
        let text = shipped.replacen(from, to, 1);
        Mapping::parse("kratos.toml", &text).map_err(|errors| errors.to_string()).unwrap_err()
    };
    let faults = [
        told("\"$.email\"", "\"email\""),
        told("soft_failure_seconds = 30", "soft_failure_seconds = 0"),
        told("\"logout\"", "\"log_out\""),
        told("{payload.ip}", "{payload.address}"),
        told("[\"$.username\", \"$.email\"]", "[]"),
    ];
    expect![[r#"
        kratos.toml:10:27: not a JSONPath: it goes wrong at its character 1
          Write it like $.address.city or $[0].message (RFC 9535).
        --
        kratos.toml:13:24: soft_failure_seconds must be between 1 and 3600
        --
        kratos.toml:8:10: event types are not declared: logout
          Give each a block [[kratos.event]] with type, describe and retention.
        kratos.toml:64:14: the Kratos translator makes no event "log_out"
          Did you mean "logout"?
        --
        kratos.toml:47:60: the event has no "payload.address" for its sentence
          Did you mean "payload.aal"?
        --
        kratos.toml:8:10: no path says what a username is
          Write username = ["$.username"]: where the traits have it."#]]
    .assert_eq(&faults.join("\n--\n"));

    let mut portal = identity_server("kratos_faults").await;
    let parse = |text: &str| Arc::new(Mapping::parse("kratos.toml", text).unwrap());
    portal.settings.sources[0].mapping = parse(shipped);
    let mut faults = Vec::new();
    for (wrong, right) in [
        ("ALTER PUBLICATION portal_audit DROP TABLE session_devices", ""),
        (
            "ALTER TABLE sessions RENAME expires_at TO ends_at",
            "ALTER TABLE sessions RENAME ends_at TO expires_at",
        ),
        ("ALTER TABLE identities REPLICA IDENTITY DEFAULT", ""),
    ] {
        run(&portal.source, wrong).await;
        faults.extend(Sidecar::start(portal.settings.clone()).ended().await);
        run(&portal.source, right).await;
        run(&portal.source, &sql::source(&portal.settings.sources[0])).await;
    }
    let elsewhere = shipped.replace("schema = \"public\"", "schema = \"kratos\"");
    portal.settings.sources[0].mapping = parse(&elsewhere);
    let fault = Sidecar::start(portal.settings.clone()).ended().await.concat();
    faults.push(fault.lines().take(2).collect::<Vec<_>>().join("\n"));
    expect![[r#"
        the source does not fit: the mapping does not fit the database: kratos.toml:8:10: publication "portal_audit" does not publish public.session_devices
          Run what `portal-audit sql source` prints on that database.
        --
        the source does not fit: the mapping does not fit the database: kratos.toml:8:10: table public.sessions has no column "expires_at"
          Kratos from 0.6 to 26 has it. Does "schema" name the schema of Kratos' tables?
        --
        the source does not fit: the mapping does not fit the database: kratos.toml:8:10: the replica identity of public.identities does not carry the old "traits"
          Run what `portal-audit sql source` prints on that database.
        --
        the source does not fit: the mapping does not fit the database: kratos.toml:8:10: database "kratos_faults" has no table "kratos.identities"
          Did you mean "public.identities"?"#]].assert_eq(&faults.join("\n--\n"));
}

/// A key that others may read, or that can be tried out, is refused.
#[test]
fn a_key_file_must_be_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    let text = "[audit]\ndsn = \"host=/tmp dbname=a user=u\"\n[[source]]\nname = \"k\"\ndsn = \"host=/tmp dbname=k user=u\"\nmapping = \"kratos\"\nidentifier_key_file = \"key\"\n";
    let parse = || {
        let parsed = Settings::parse(&folder.path().join("p.toml"), text);
        parsed
            .map(|settings| settings.sources[0].identifier_key.is_some())
            .map_err(|error| chain(&error))
    };
    assert!(parse().unwrap_err().contains("cannot read"));
    std::fs::write(&file, "only-fifteen-by\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(parse().unwrap_err().contains("others may read the key file"));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let short = parse().unwrap_err();
    assert!(short.contains("has less than 16 bytes") && !short.contains("fifteen"), "{short}");
    std::fs::write(&file, "more than sixteen bytes\n").unwrap();
    assert_eq!(parse(), Ok(true));
}
