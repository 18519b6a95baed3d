//! No secret comes through. Each secret that is planted in the portal bears the word `canary`, which stands nowhere else; what may be told bears `harmless`, so that the test knows that it would see it.
//!
//! Two kinds are planted: any text in columns that no mapping names, and texts with the shape of a secret in columns that are told.

use crate::support::{
    Portal, Wishes, cluster, portal,
    program::{Program, SettingsFile, command},
    run, value, wait_for,
};
use std::path::Path;

/// Rows that are older than the slot; `$` stands for what tells them apart from those that come later.
const ROWS: &str = r#"
    INSERT INTO portal.users (username, name, email, state, uid, gid, category, institution, country, usstate) VALUES
        ('u$', 'canary name', 'canary@portal.example', 'Active', 1, 1, 'ghp_canary$', 'harmless institute', 'canary country', 'canary state'),
        ('ghp_canaryuser$', '', '', 'Active', 2, 2, 'harmless', '-----BEGIN canary', '', '');
    INSERT INTO portal.organizations (name, description, oid, category, subcategory) VALUES ('o$', 'eyJcanary.payload.signature', 1, 'harmless category', '$2b$12$canary');
    INSERT INTO portal.organization_members (organization, kind, id, role, state) VALUES ('o$', 'UserMember', 'u$', 'Creator', 'Active'), ('o$', 'UserMember', 'ory_st_canary', 'Member', 'MemberRequested');
    INSERT INTO portal.projects (name, description, organization, gid, state, category) VALUES ('p$', 'glpat-canary', 'o$', 1, 'Active', 'harmless'), ('xoxb-canary$', '', NULL, 2, 'Pending', '');
    INSERT INTO portal.project_members (project, username, role) VALUES ('p$', 'u$', 'Creator'), ('p$', 'ghp_canaryuser$', 'Member');
    INSERT INTO portal.experiments (project, name, description, repository, creator, maintainers) VALUES ('p$', 'e$', 'canary description', 'https://canary:canary@git.example', 'eyJcanary', ARRAY['canary']), ('p$', 'github_pat_canary$', '', '', 'u$', '{}');
    INSERT INTO portal.experiment_models (project, experiment, revision, branch, tag, model_file, msg) VALUES
        ('p$', 'e$', 'r1', 'gho_canary', 'AKIAcanary', '-----BEGIN OPENSSH PRIVATE KEY----- canary', 'harmless'), ('p$', 'e$', 'eyJcanary$', 'main', NULL, 'harmless model', '');
    INSERT INTO portal.realizations (pid, eid, id, revision, xhash, creator, diagnostics, nodes, links) VALUES
        ('p$', 'e$', 'z1', 'r1', 'canary hash', 'u$', '[]', '{"canary": {}}', '{"l": {"link": "ory_at_canary", "segments": "canary"}, "h": {"link": "harmless"}}'),
        ('p$', 'e$', 'ghs_canary', 'eyJcanary$', '', 'xoxp-canary', '[]', '{}', '{}');
    INSERT INTO portal.allocations (pid, eid, rid, fid, resource, node, virt) VALUES ('p$', 'e$', 'z1', 'harmless', 'ghp_canary', '$argon2id$canary', TRUE);
    INSERT INTO portal.materializations (pid, eid, rid, metal, vms, links, messages, embed_version) VALUES
        ('p$', 'e$', 'z1', '[{"resource": "harmless", "inframac": "canary"}, {"resource": "eyJcanary"}]', '[{"vm_alloc": {"node": "ory_rt_canary", "image": "canary"}}]', '[{"link": "$6$canary"}]', '[{"level": "Info", "message": "canary"}]', 'canary');
    INSERT INTO portal.facilities (name, address, description, certificate, cacertificate, properties, model) VALUES
        ('f$', 'harmless.example', '$pbkdf2$canary', 'canary certificate', 'canary authority', '{"canary": "canary"}', 'canary model'), ('ghp_canaryfacility$', 'ory_ac_canary', '', '', '', '{}', NULL);
    INSERT INTO portal.facility_members (facility, username, role) VALUES ('f$', 'ghp_canarymember', 'Creator');
    INSERT INTO portal.facility_resources (facility, resource, alloc, roles) VALUES ('f$', 'eyJcanary', ARRAY['canary'], ARRAY['canary']), ('f$', 'harmless', '{}', '{}');
    INSERT INTO portal.pools (name, description, creator, projects, organizations, facilities) VALUES ('pool$', '$scrypt$canary', '$2a$canary', ARRAY['glpat-canary', 'harmless'], ARRAY['canary'], '{"canary": {}}');
    INSERT INTO portal.public_keys (username, fingerprint, key) VALUES ('u$', '$2y$canary', 'ssh-ed25519 canary'), ('u$', 'harmless', 'canary');
    INSERT INTO portal.api_tokens (username, description, token_hash) VALUES ('u$', 'ory_st_canary', 'canary'), ('u$', 'harmless token', 'another canary');
    INSERT INTO portal.xdcs (project, name, creator, image, materialization, realization_project) VALUES ('p$', 'd$', 'eyJcanary', 'glpat-canary', 'xoxb-canary', 'canary'), ('p$', 'ghp_canary', 'u$', '', NULL, NULL);
"#;
/// Each column that holds a secret changes, and what is told beside it.
const UPDATES: &str = r#"
    UPDATE portal.users SET email = 'newcanary@portal.example', name = 'canary', state = 'Frozen', institution = '$2b$12$newcanary';
    UPDATE portal.organizations SET description = 'ghp_newcanary', state = 'Active';
    UPDATE portal.organization_members SET role = 'Maintainer', state = 'Active';
    UPDATE portal.projects SET description = 'eyJnewcanary', state = 'Frozen';
    UPDATE portal.experiments SET repository = 'canary', maintainers = ARRAY['canary', 'harmless'];
    UPDATE portal.experiment_models SET in_progress = FALSE, msg = '-----BEGIN canary in a message', model_file = 'eyJnewcanary' WHERE tag IS NOT NULL;
    UPDATE portal.experiment_models SET in_progress = FALSE, msg = 'harmless message' WHERE tag IS NULL;
    UPDATE portal.realizations SET code = 'BadXir', expires = '2099-01-01', links = '{"x": {"link": "glpat-canary"}}', diagnostics = '[{"level": "Error", "message": "harmless"}, {"level": "Error", "message": "eyJcanary.in.diagnostics", "data": "canary"}, {"level": "Debug", "message": "canary"}]';
    UPDATE portal.materializations SET highest_status = 'Error', messages = '[{"level": "Error", "message": "ory_st_canary"}, {"level": "Trace", "message": "canary"}]';
    UPDATE portal.facilities SET address = 'ory_at_newcanary', certificate = 'newcanary', model = 'newcanary';
    UPDATE portal.facility_members SET role = 'Member';
    UPDATE portal.facility_resources SET active = FALSE, roles = ARRAY['newcanary'];
    UPDATE portal.pools SET description = '-----BEGIN canary', projects = ARRAY['ghp_newcanary', 'harmless'], facilities = '{"new": "canary"}';
    UPDATE portal.public_keys SET key = 'newcanary';
    UPDATE portal.api_tokens SET token_hash = 'newcanary', last_used = now();
    UPDATE portal.api_tokens SET revoked = TRUE;
    UPDATE portal.xdcs SET materialization = 'AKIAnewcanary', realization_project = 'newcanary';
    UPDATE portal.xdcs SET materialization = NULL;
"#;
/// From below, so that what is remembered of each row is told; then all that is left.
const DELETES: &str = "
    DELETE FROM portal.allocations WHERE virt AND pid = 'p1';
    DELETE FROM portal.materializations WHERE pid = 'p1';
    DELETE FROM portal.realizations WHERE pid = 'p1';
    DELETE FROM portal.experiments WHERE project = 'p1';
    DELETE FROM portal.facilities WHERE name = 'f1' OR name LIKE '%canaryfacility1';
    DELETE FROM portal.pools WHERE name = 'pool1';
    DELETE FROM portal.xdcs WHERE project = 'p1';
    DELETE FROM portal.users WHERE username = 'u1';
    DELETE FROM portal.organizations WHERE name = 'o1';
    TRUNCATE portal.users, portal.organizations, portal.projects, portal.facilities, portal.pools, portal.xdcs CASCADE";

/// Everything that the sidecar has written, as text.
async fn written(portal: &Portal) -> String {
    let tables = "SELECT string_agg(format('SELECT %L AS what, t::text AS row FROM %s AS t', c.oid::regclass, c.oid::regclass), ' UNION ALL ') FROM pg_class c WHERE relkind = 'r' AND (relnamespace = 'portal_audit'::regnamespace OR oid = 'public.events'::regclass)";
    let all: String = value(&portal.audit, tables).await;
    assert!(all.matches("UNION ALL").count() >= 4, "{all}");
    let all =
        format!("SELECT coalesce(string_agg(what || ': ' || row, E'\\n'), '') FROM ({all}) AS a");
    value(&portal.audit, &all).await
}

fn lines_with<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    text.lines().filter(|line| line.to_lowercase().contains(word)).collect()
}

fn assert_silent(what: &str, text: &str, words: &[&str]) {
    assert!(!text.is_empty(), "{what} says nothing at all");
    for word in words {
        let lines = lines_with(text, word);
        assert!(lines.is_empty(), "{what} tells {word}:\n{}", lines.join("\n"));
    }
}

fn status(settings: &Path, format: &str) -> String {
    let arguments = ["status", "--config", settings.to_str().unwrap(), "--format", format];
    let output = command(&arguments).output().unwrap();
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// One change for each kind of transaction: plain, undone, failing, undone in part, and too large for the memory.
async fn live(portal: &Portal) {
    let rows = |name: &str| ROWS.replace("$'", &format!("{name}'"));
    portal.act(&format!("BEGIN; {}; COMMIT", rows("1"))).await;
    run(&portal.source, &format!("BEGIN; {}; ROLLBACK", rows("2"))).await;
    let failing =
        format!("BEGIN; {}; INSERT INTO portal.users SELECT * FROM portal.users", rows("3"));
    portal.source.client.batch_execute(&failing).await.unwrap_err();
    run(&portal.source, "ROLLBACK").await;
    run(&portal.source, &format!("BEGIN; SAVEPOINT s; {}; ROLLBACK TO s; COMMIT", rows("4"))).await;
    portal.act(UPDATES).await;
    let large = "BEGIN;
        INSERT INTO portal.experiments (project, name, creator, description, repository) SELECT 'p1', 'n' || n, 'eyJcanary', 'canary', repeat('canary', 50) FROM generate_series(1, 2000) AS n;
        INSERT INTO portal.experiment_models (project, experiment, revision, model_file) SELECT 'p1', 'n' || n, 'r', '-----BEGIN canary' || repeat('canary', 12000) FROM generate_series(1, 20) AS n;
        COMMIT";
    portal.act(large).await;
    portal.act(DELETES).await;
}

/// The audit database refuses an event, then all of them, and its complaint holds the row.
async fn be_refused(portal: &Portal, condition: &str) {
    let refuse = format!(
        "CREATE OR REPLACE FUNCTION public.theirs() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not %', NEW USING DETAIL = NEW::text; END $$;
         DROP TRIGGER IF EXISTS theirs ON public.events;
         CREATE TRIGGER theirs BEFORE INSERT ON public.events FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION public.theirs()"
    );
    run(&portal.audit, &refuse).await;
    run(&portal.source, "INSERT INTO portal.organizations (name, oid, description) SELECT 'harmless' || count(*), 1, 'harmless' FROM portal.organizations").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_comes_through() {
    let limits = "transaction_memory_bytes = 65536";
    let wishes = Wishes { name: "planted", backfill: true, limits, ..Wishes::default() };
    let mut portal = portal(cluster(), wishes).await;
    let folder = tempfile::tempdir().unwrap();
    let (spool, log) = (folder.path().join("spool"), folder.path().join("log"));
    std::fs::create_dir(&spool).unwrap();
    let shared = format!("{:?}", cluster().socket_dir().display().to_string());
    let text = portal.settings_text.replace(
        &format!("spool_folder = {shared}"),
        &format!("spool_folder = {:?}", spool.to_str().unwrap()),
    );
    assert_ne!(text, portal.settings_text);
    portal.settings_text = text;
    let settings = SettingsFile::new(&portal);
    run(&portal.source, &ROWS.replace("$'", "0'")).await;

    let program = Program::run_with_log(&settings.path, &log);
    portal.streaming().await;
    live(&portal).await;
    let shown = format!("{}{}", status(&settings.path, "text"), status(&settings.path, "json"));
    be_refused(&portal, "NEW.event_type = 'org_created'").await;
    let said = async || std::fs::read_to_string(&log).unwrap();
    wait_for("the complaint", async || said().await.contains("undeliverable")).await;
    portal.catch_up().await;
    run(&portal.audit, "DROP TRIGGER theirs ON public.events; ALTER TABLE public.events ADD CONSTRAINT theirs CHECK (event_type = 'none') NOT VALID").await;
    run(&portal.source, "INSERT INTO portal.organizations (name, oid, description) VALUES ('harmless', 1, 'harmless')").await;
    wait_for("the complaint", async || said().await.contains("23514")).await;
    assert_eq!(program.terminate().code(), Some(1), "a definite fault");

    let written = written(&portal).await;
    assert_silent("the audit database", &written, &["canary"]);
    assert_silent("status", &shown, &["canary", "harmless"]);
    assert_silent("the log", &said().await, &["canary", "harmless"]);
    assert_eq!(std::fs::read_dir(&spool).unwrap().count(), 0, "the spool folder is empty");
    // It would have been seen.
    assert!(lines_with(&written, "harmless").len() > 30);
    let redacted = "SELECT count(*) FROM public.events WHERE payload->'_audit' ? 'redacted'";
    assert!(value::<i64>(&portal.audit, redacted).await > 60);
    let types = "SELECT count(DISTINCT event_type) FROM public.events";
    assert!(value::<i64>(&portal.audit, types).await > 40);
    assert!(shown.contains("planted"));
}
