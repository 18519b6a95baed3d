//! `events`, `history` and `stats`: what an admin reads, as it is typed and as it is printed.

mod follow;

use crate::support::{Portal, installation, open, program::command, run, sample, value, wait_for};
use expect_test::expect_file;
use portal_audit::{connect::Session, demo::cluster::Cluster, sql};
use std::process::Output;

/// A small testbed's year: an organization that is made, deleted and made again by somebody else.
const STORY: &[&str] = &[
    "INSERT INTO portal.users (username, state, uid, gid, institution, category) VALUES ('glawler', 'Active', 1001, 1001, 'Sample Institute', 'Faculty'), ('wrenn', 'Pending', 1002, 1002, 'Sample Institute', 'Graduate student')",
    "UPDATE portal.users SET state = 'Active' WHERE username = 'wrenn'",
    "INSERT INTO portal.organizations (name, state, oid, category) VALUES ('orgtest', 'Active', 2001, 'Research group'); INSERT INTO portal.organization_members (organization, kind, id, role, state) VALUES ('orgtest', 'UserMember', 'glawler', 'Creator', 'Active')",
    "CTX glawler; INSERT INTO portal.organization_members (organization, kind, id, role, state) VALUES ('orgtest', 'UserMember', 'wrenn', 'Member', 'Active')",
    "CTX glawler; UPDATE portal.organization_members SET role = 'Maintainer' WHERE id = 'wrenn'",
    "INSERT INTO portal.projects (name, state, gid, organization, category) VALUES ('mesh', 'Active', 3001, 'orgtest', 'Research'); INSERT INTO portal.project_members (project, username, role, state) VALUES ('mesh', 'wrenn', 'Creator', 'Active')",
    "CTX glawler; INSERT INTO portal.organization_members (organization, kind, id, role, state) VALUES ('orgtest', 'ProjectMember', 'mesh', 'Member', 'Active')",
    "INSERT INTO portal.experiments (project, name, creator) VALUES ('mesh', 'mesh8', 'wrenn')",
    "CTX wrenn; INSERT INTO portal.experiment_models (project, experiment, revision, branch, model_file, in_progress, compiled) VALUES ('mesh', 'mesh8', 'c0ffee1', 'main', 'net = Network()', FALSE, TRUE)",
    "INSERT INTO portal.realizations (pid, eid, id, revision, creator, code, diagnostics) VALUES ('mesh', 'mesh8', 'one', 'c0ffee1', 'wrenn', 'Unrealizable', '[{\"level\": \"Error\", \"message\": \"no resource for node a: every machine of its kind is taken until the end of the month\"}]')",
    "INSERT INTO portal.realizations (pid, eid, id, revision, creator, complete, code) VALUES ('mesh', 'mesh8', 'two', 'c0ffee1', 'wrenn', TRUE, 'Ok'); INSERT INTO portal.allocations (pid, eid, rid, fid, resource, node, virt) VALUES ('mesh', 'mesh8', 'two', 'hill', 'm1', 'a', FALSE)",
    "INSERT INTO portal.materializations (pid, eid, rid, metal) VALUES ('mesh', 'mesh8', 'two', '[{\"facility\": \"hill\", \"resource\": \"m1\"}]')",
    "UPDATE portal.materializations SET highest_status = 'Success'",
    "CTX glawler; DELETE FROM portal.organizations WHERE name = 'orgtest'",
    "INSERT INTO portal.organizations (name, state, oid, category) VALUES ('orgtest', 'Active', 2002, 'Classroom'); INSERT INTO portal.organization_members (organization, kind, id, role, state) VALUES ('orgtest', 'UserMember', 'wrenn', 'Creator', 'Active')",
    "CTX glawler; DELETE FROM portal.experiments WHERE name = 'mesh8'",
];

/// The story, written by a sidecar. Its transactions then stand 7 hours from each other, so that what is printed is always the same.
async fn story(name: &str) -> Portal {
    const STAND_IN: &str = "DROP FUNCTION IF EXISTS portal_audit.describe CASCADE; DROP FUNCTION IF EXISTS portal_audit.record_read CASCADE;
        CREATE TABLE public.reads (asked jsonb, rows bigint);
        CREATE FUNCTION portal_audit.record_read(p_what text, p_filter jsonb, p_rows bigint) RETURNS uuid LANGUAGE sql AS $$ INSERT INTO public.reads VALUES (p_filter, p_rows); SELECT gen_random_uuid() $$";
    const SPREAD: &str = "UPDATE public.events e SET timestamp = t.at FROM (SELECT event_uuid, timestamptz '2026-04-23 13:50:23Z' + dense_rank() OVER (ORDER BY timestamp) * interval '7 hours' AS at FROM public.events) t WHERE t.event_uuid = e.event_uuid;
        UPDATE portal_audit.progress SET complete_to = '2026-05-01 00:00:00Z'";
    let portal = sample(name).await;
    let sidecar = portal.start().await;
    for script in STORY {
        let context =
            "SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{\"caller\":\"WHO\"}');";
        let script = match script.strip_prefix("CTX ").and_then(|rest| rest.split_once(';')) {
            Some((who, rest)) => format!("{}{rest}", context.replace("WHO", who)),
            None => (*script).to_owned(),
        };
        run(&portal.source, &format!("BEGIN; {script}; COMMIT")).await;
    }
    portal.catch_up().await;
    sidecar.stop().await;
    run(&portal.audit, STAND_IN).await;
    run(&portal.audit, SPREAD).await;
    // Its times are not those that the sidecar has folded.
    run(&portal.audit, "SELECT portal_audit.fold_things(10000)").await;
    portal
}

fn audit(portal: &Portal) -> String {
    crate::support::cluster().dsn(&format!("{}_audit", portal.name), "postgres")
}

/// Runs the program as behind a pipe, or as wide as a terminal would be.
fn ask(portal: &Portal, width: Option<usize>, arguments: &[&str]) -> Output {
    let mut command = command(arguments);
    command.args(["--audit", &audit(portal)]).env_remove("COLUMNS");
    if let Some(width) = width {
        command.env("COLUMNS", width.to_string());
    }
    command.output().unwrap()
}

fn out(portal: &Portal, width: Option<usize>, arguments: &[&str]) -> String {
    let output = ask(portal, width, arguments);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{error}");
    format!("{}--- stderr\n{error}", String::from_utf8(output.stdout).unwrap())
}

/// Runs a query that counts or names, as psql would.
async fn truth(portal: &Portal, condition: &str) -> Vec<String> {
    let query = format!(
        "SELECT event_uuid::text FROM public.events e WHERE {condition} ORDER BY timestamp, event_uuid"
    );
    let rows = portal.audit.client.query(&query, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

fn ids(rows: &[serde_json::Value]) -> Vec<String> {
    let mut ids: Vec<(String, String)> = rows
        .iter()
        .map(|row| {
            let text = |key: &str| row[key].as_str().unwrap().to_owned();
            (text("timestamp"), text("event_uuid"))
        })
        .collect();
    ids.sort();
    ids.into_iter().map(|(_, id)| id).collect()
}

/// Each event as JSON.
fn rows(portal: &Portal, arguments: &[&str]) -> Vec<serde_json::Value> {
    let all = [&["events", "--format", "json"], arguments].concat();
    let output = ask(portal, None, &all);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_and_its_stories_read_well_at_any_width() {
    let portal = story("ask_text").await;
    let wide = out(&portal, Some(140), &["events", "--limit", "12"]);
    expect_file!["../ask/events_140.txt"].assert_eq(&without_ids(&wide));
    let narrow = out(&portal, Some(60), &["events", "--limit", "12", "--reverse"]);
    expect_file!["../ask/events_60.txt"].assert_eq(&without_ids(&narrow));
    for (file, width, kind, name) in [
        ("organization", 100, "organization", "orgtest"),
        ("user", 80, "user", "wrenn"),
        ("project", 100, "project", "mesh"),
        ("experiment", 80, "experiment", "mesh/mesh8"),
    ] {
        let text = out(&portal, Some(width), &["history", kind, name]);
        expect_file![format!("../ask/history_{file}.txt")].assert_eq(&text);
    }
}

/// Ids come from positions in the log.
fn without_ids(text: &str) -> String {
    let is_id = |word: &str| word.len() == 36 && word.matches('-').count() == 4;
    let blank = |part: &str| {
        let (word, end) = part.split_at(part.trim_end_matches([';', '\n']).len());
        if is_id(word) { format!("EVENT_UUID{end}") } else { part.to_owned() }
    };
    text.split_inclusive(' ')
        .map(|part| {
            let trimmed = part.strip_suffix(' ');
            trimmed.map_or_else(|| blank(part), |word| blank(word) + " ")
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_means_what_its_sql_means() {
    let portal = story("ask_filter").await;
    let cases: &[(&[&str], &str)] = &[
        (&[], "true"),
        (&["--type", "org_member_added"], "event_type = 'org_member_added'"),
        (
            &["--type", "org_*", "--type", "experiment_created"],
            "event_type LIKE 'org\\_%' OR event_type = 'experiment_created'",
        ),
        (&["--type", "*"], "true"),
        (&["--type", "o'; DROP TABLE events*"], "false"),
        (&["--caller", ""], "caller = ''"),
        (&["--caller", "wrenn", "--caller", "glawler"], "caller IN ('wrenn', 'glawler')"),
        (&["--subject", "orgtest", "--success", "true"], "subject = 'orgtest'"),
        (
            &["--subject-type", "realization", "--success", "false"],
            "subject_type = 'realization' AND NOT success",
        ),
        (&["--target", "wrenn"], "target = 'wrenn'"),
        (&["--user", "wrenn"], "'wrenn' IN (caller, subject, target)"),
        (&["--payload", "role=maintainer"], "payload->>'role' = 'maintainer'"),
        (
            &["--payload", "resources=m1", "--payload", "project=mesh"],
            "payload->'resources' ? 'm1'",
        ),
        (&["--payload", "_audit.source=ask_filter"], "payload->'_audit'->>'source' = 'ask_filter'"),
        (
            &["--since", "2026-04-25", "--until", "2026-04-26"],
            "timestamp >= '2026-04-25Z' AND timestamp < '2026-04-27Z'",
        ),
        (&["--since", "2026-04-25 07:50:23", "--until", "2026-04-25T09:50:23+02:00"], "false"),
        (
            &["--since", "2026-04-25T07:50:23Z", "--until", "2026-04-25T09:50:24+02:00"],
            "timestamp = '2026-04-25 07:50:23Z'",
        ),
        (&["--since", "1h"], "timestamp >= now() - interval '1 hour'"),
    ];
    for (arguments, condition) in cases {
        let arguments = [&["--limit", "1000"], *arguments].concat();
        assert_eq!(
            ids(&rows(&portal, &arguments)),
            truth(&portal, condition).await,
            "{arguments:?}"
        );
    }
    assert!(!truth(&portal, "payload->'resources' ? 'm1'").await.is_empty());
    for faulty in [
        &["--since", "soon"][..],
        &["--limit", "-1"],
        &["--limit", "0"],
        &["--payload", "x"],
        &["--audit", "hots=x"],
    ] {
        let output = command(&[&["events"], faulty].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{faulty:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_hold_every_event_once_though_many_share_their_time() {
    let portal = story("ask_pages").await;
    let all = truth(&portal, "true").await;
    let mut seen = Vec::new();
    let mut before: Option<String> = None;
    loop {
        let mut arguments = vec!["events", "--format", "json", "--limit", "3"];
        if let Some(before) = &before {
            arguments.extend(["--before", before]);
        }
        let output = ask(&portal, None, &arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        let page: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        seen.splice(0..0, ids(&page));
        let trailer = String::from_utf8(output.stderr).unwrap();
        let trailer: serde_json::Value = serde_json::from_str(&trailer).unwrap();
        assert_eq!(trailer["complete_to"][0]["complete_to"], "2026-05-01T00:00:00Z");
        before = trailer["before"].as_str().map(str::to_owned);
        if before.is_none() {
            break;
        }
    }
    assert_eq!(seen, all);
    let unknown =
        ask(&portal, None, &["events", "--before", "00000000-0000-0000-0000-000000000000"]);
    assert_eq!(unknown.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connected_role_decides_what_is_seen_and_each_read_is_recorded() {
    let portal = story("ask_roles").await;
    run(&portal.audit, "CREATE ROLE ask_guest LOGIN; GRANT SELECT ON public.events TO ask_guest; GRANT USAGE ON SCHEMA portal_audit TO ask_guest;
        ALTER TABLE public.events ENABLE ROW LEVEL SECURITY; CREATE POLICY ask_own ON public.events TO ask_guest USING (caller = 'wrenn'); REVOKE EXECUTE ON FUNCTION portal_audit.record_read FROM PUBLIC").await;
    let guest = crate::support::cluster().dsn("ask_roles_audit", "ask_guest");
    let output = command(&["events", "--format", "json", "--audit", &guest]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        i64::try_from(text.lines().count()).unwrap(),
        value::<i64>(&portal.audit, "SELECT count(*) FROM public.events WHERE caller = 'wrenn'")
            .await
    );
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("this read is not recorded: there is no portal_audit.record_read that role ask_guest may execute"), "{error}");
    let story =
        command(&["history", "organization", "orgtest", "--audit", &guest]).output().unwrap();
    let story = String::from_utf8(story.stdout).unwrap();
    assert!(
        story.starts_with("organization orgtest, 1 of 2 of that name\nits creation is not told\n")
            && story.contains("wrenn: org created, organization orgtest")
            && !story.contains("glawler"),
        "{story}"
    );
    for arguments in
        [&["events", "--type", "org_*", "--limit", "2"][..], &["history", "user", "nobody"]]
    {
        assert!(ask(&portal, None, arguments).status.success());
    }
    let reads: String = value(&portal.audit, "SELECT string_agg(asked::text || ' ' || rows, E'\n' ORDER BY asked->>'verb') FROM public.reads").await;
    assert_eq!(
        reads,
        "{\"verb\": \"events\", \"asked\": {\"type\": [\"org_*\"]}} 2\n{\"verb\": \"history\", \"asked\": {\"kind\": \"user\", \"name\": \"nobody\", \"since\": null, \"until\": null, \"project\": null}} 0"
    );
    // The sidecar's own login.
    run(&portal.audit, "CREATE ROLE ask_writer LOGIN IN ROLE portal_audit_writer").await;
    let writer = crate::support::cluster().dsn("ask_roles_audit", "ask_writer");
    let refused = command(&["events", "--audit", &writer]).output().unwrap();
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(
        refused.status.code() == Some(1) && error.contains("GRANT portal_audit_reader TO it"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_cannot_move_the_cursor_and_a_failure_says_why() {
    let portal = sample("ask_hostile").await;
    run(&portal.audit, "INSERT INTO public.events VALUES (gen_random_uuid(), '2026-04-23Z', E'odd_{caller}_type', E'\u{1b}[2J\u{202e}mallory\n', E'a\tb', 'experiment', repeat('日本', 30), false, E'no\nroom \u{1b}[1m', '{}'), (gen_random_uuid(), '2026-04-24Z', 'experiment_deleted', 'glawler', 'testexp', 'experiment', NULL, true, NULL, '{\"project\": \"glawler\"}')".replace("\u{1b}", "\\x1b").replace("\u{202e}", "\\u202e").replace('\n', "\\n").replace('\t', "\\t").as_str()).await;
    run(&portal.audit, "DROP FUNCTION IF EXISTS portal_audit.describe CASCADE").await;
    let text = out(&portal, Some(80), &["events"]);
    assert!(text.chars().all(|letter| letter == '\n' || !letter.is_control()), "{text:?}");
    expect_file!["../ask/hostile.txt"].assert_eq(text.split("--- stderr").next().unwrap());
    let story = out(&portal, Some(80), &["history", "experiment", "testexp"]);
    assert!(
        story.starts_with(
            "experiment glawler/testexp\nits creation is not told, deleted 2026-04-24 00:00 UTC\n"
        ),
        "{story}"
    );
    let other = "INSERT INTO public.events VALUES (gen_random_uuid(), '2026-04-25Z', 'experiment_created', 'maple', 'testexp', 'experiment', NULL, true, NULL, '{\"project\": \"mesh\"}')";
    run(&portal.audit, other).await;
    let several = ask(&portal, None, &["history", "experiment", "testexp"]);
    let error = String::from_utf8(several.stderr).unwrap();
    assert!(
        several.status.code() == Some(2)
            && error.contains("Say which: glawler/testexp, mesh/testexp"),
        "{error}"
    );
    let one = out(&portal, None, &["history", "experiment", "mesh/testexp"]);
    assert!(one.contains("maple") && !one.contains("glawler"), "{one}");
    let none = out(&portal, None, &["history", "project", "mesh\u{1b}[2J"]);
    assert!(none.starts_with("nothing is told of project mesh\\u{1b}[2J\n"), "{none}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_experiments_story_is_whole_whatever_is_known_of_its_project() {
    let portal = story("ask_things").await;
    let tell = || out(&portal, None, &["history", "experiment", "mesh/mesh8", "--format", "json"]);
    let told = tell();
    for word in ["realization_created", "materialization_completed", "experiment_created"] {
        assert!(told.contains(word), "{word}: {told}");
    }
    // Nothing is folded yet; or the schema is an older one.
    for less in [
        "TRUNCATE portal_audit.project_things, portal_audit.things_folded",
        "ALTER TABLE portal_audit.project_things RENAME TO elsewhere",
    ] {
        run(&portal.audit, less).await;
        assert_eq!(tell(), told, "{less}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_of_any_time_and_stand_beside_those_before() {
    let portal = sample("ask_stats").await;
    for function in ["stats", "totals"] {
        run(&portal.audit, &format!("DROP FUNCTION IF EXISTS portal_audit.{function} CASCADE; CREATE FUNCTION portal_audit.{function}(p_at timestamptz DEFAULT now()) RETURNS TABLE (key text, number bigint) LANGUAGE sql STABLE AS $$ SELECT 'users', extract(epoch FROM p_at)::bigint / 86400 $$")).await;
    }
    let text = out(&portal, None, &["stats", "--at", "2026-04-23"]);
    assert!(text.starts_with("Numbers as of 2026-04-24 00:00:00 UTC\n"), "{text}");
    assert!(text.contains(" users  20,567                       20,537     +30\n"), "{text}");
    let output = ask(&portal, None, &["stats", "--at", "2026-04-23T12:00:00Z", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&json["numbers"]["users"], &json["before"]["users"]),
        (&20_566.into(), &20_536.into())
    );
    run(&portal.audit, "DROP FUNCTION portal_audit.stats").await;
    let missing = ask(&portal, None, &["stats"]);
    assert!(
        missing.status.code() == Some(1)
            && String::from_utf8_lossy(&missing.stderr).contains("portal-audit sql audit")
    );
}

/// Two years of a testbed in one go: users, projects, experiments and what becomes of them.
const MUCH: &str = "
ALTER TABLE public.events DROP CONSTRAINT events_pkey;
DROP INDEX idx_events_timestamp, idx_events_event_type, idx_events_caller, idx_events_subject, idx_events_target;
INSERT INTO public.events
SELECT encode(substr(sha256(int8send(i)), 1, 16), 'hex')::uuid, timestamptz '2024-05-01Z' + i * interval '1 minute',
       (ARRAY['login_succeeded', 'login_failed', 'org_member_added', 'project_member_added', 'experiment_created', 'experiment_model_pushed', 'realization_created', 'materialization_started', 'materialization_completed', 'login_succeeded'])[1 + i % 10],
       CASE WHEN i % 10 IN (0, 1, 9) THEN '' WHEN i % 20 = 8 THEN 'busy' ELSE 'user' || i % 7919 END,
       CASE i % 10 WHEN 2 THEN 'org' || i % 211 WHEN 3 THEN 'project' || i % 1009 WHEN 4 THEN 'exp' || i % 30011 WHEN 5 THEN 'exp' || i % 30011
                   WHEN 0 THEN 'user' || i % 7919 WHEN 1 THEN 'user' || i % 7919 WHEN 9 THEN 'user' || i % 7919
                   ELSE format('r%s.exp%s.project%s', i % 3, i % 30011, i % 30011 % 1009) END,
       (ARRAY['user', 'user', 'organization', 'project', 'experiment', 'experiment', 'realization', 'materialization', 'materialization', 'user'])[1 + i % 10],
       CASE WHEN i % 10 IN (2, 3) THEN 'user' || i % 7919 END, i % 10 <> 1, CASE WHEN i % 10 = 1 THEN 'wrong' END,
       jsonb_build_object('kind', 'usermember', 'project', 'project' || i % 30011 % 1009, '_audit', jsonb_build_object('source', 'portal', 'xid', i, 'lsn', '0/1'))
  FROM generate_series(1, 1000000) i;
ALTER TABLE public.events ADD PRIMARY KEY (event_uuid);
CREATE INDEX idx_events_timestamp  ON public.events (timestamp DESC);
CREATE INDEX idx_events_event_type ON public.events (event_type);
CREATE INDEX idx_events_caller     ON public.events (caller);
CREATE INDEX idx_events_subject    ON public.events (subject_type, subject);
CREATE INDEX idx_events_target     ON public.events (target)";

/// The statistics of the server say whether a table was ever read as a whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_million_events_are_never_read_as_a_whole() {
    // Its own server: one long transaction keeps every new slot waiting.
    let memory =
        [("max_wal_size", "4GB"), ("maintenance_work_mem", "128MB"), ("max_connections", "20")];
    let server = Cluster::start(&installation(), &memory).unwrap();
    let session = open(&server, "postgres").await;
    run(&session, sql::audit()).await;
    run(&session, MUCH).await;
    run(&session, "DROP FUNCTION IF EXISTS portal_audit.describe CASCADE").await;
    let dsn = server.dsn("postgres", "postgres");
    let scans = "SELECT seq_scan, coalesce(idx_scan, 0) FROM pg_stat_user_tables WHERE relid = 'public.events'::regclass";
    // As it is filled, and as autovacuum leaves it a minute later.
    for prepare in ["SELECT", "VACUUM ANALYZE public.events"] {
        run(&session, prepare).await;
        for arguments in [
            &["events"][..],
            &["events", "--caller", "user12", "--since", "2025-01-01"],
            &["events", "--user", "user12"],
            &["events", "--subject", "exp12", "--success", "true"],
            &["events", "--type", "org_*", "--limit", "200"],
            &["events", "--until", "2024-06-01", "--payload", "project=project12"],
            &["history", "user", "user12"],
            &["history", "organization", "org12"],
            &["history", "project", "project12"],
            &["history", "experiment", "project12/exp12"],
        ] {
            let before = session.client.query_one(scans, &[]).await.unwrap();
            let (whole, parts): (i64, i64) = (before.get(0), before.get(1));
            let output = command(arguments).args(["--audit", &dsn]).output().unwrap();
            assert!(output.status.success() && !output.stdout.is_empty(), "{arguments:?}");
            assert!(!output.stdout.starts_with(b"nothing is told"), "{arguments:?}");
            // A session's numbers are there once it has ended.
            wait_for("the scans are counted", async || {
                let after = session.client.query_one(scans, &[]).await.unwrap();
                after.get::<_, i64>(1) > parts
            })
            .await;
            let after = session.client.query_one(scans, &[]).await.unwrap();
            assert_eq!(after.get::<_, i64>(0), whole, "{arguments:?} read all of events");
        }
    }
    the_newest_of_many_are_told(&session, &dsn).await;
}

/// A thousand of fifty thousand of one user, which are looked for among the newest of all.
async fn the_newest_of_many_are_told(session: &Session, dsn: &str) {
    const NEWEST: &str = "SELECT array_agg(event_uuid::text ORDER BY event_uuid) FROM (SELECT event_uuid FROM public.events WHERE caller = 'busy' ORDER BY timestamp DESC, event_uuid DESC LIMIT 1000) e";
    let expected: Vec<String> = value(session, NEWEST).await;
    let story = ["history", "user", "busy", "--format", "json", "--audit", dsn];
    let output = command(&story).output().unwrap();
    let story: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let list = |value: &serde_json::Value| value.as_array().unwrap().clone();
    let lives = list(&story["lifetimes"]).into_iter();
    let told = lives.flat_map(|life| list(&life["transactions"]));
    let events = told.flat_map(|told| list(&told["events"]));
    let mut shown: Vec<String> =
        events.map(|event| event["event_uuid"].as_str().unwrap().to_owned()).collect();
    shown.sort();
    assert!(shown == expected, "{} events", shown.len());
}
