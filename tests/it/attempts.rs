//! Failed attempts: each transaction that was rolled back is one event, and no other is, whatever happens to the sidecar meanwhile.

use crate::support::{
    Portal, Sidecar, Wishes, cluster, installation, open, portal,
    program::{Program, SettingsFile, command},
    run, value, wait_for,
};
use expect_test::expect;
use portal_audit::{
    catalog::is_server, config::Settings, connect::Session, demo::cluster::Cluster, sql,
};
use std::{collections::BTreeMap, path::Path};
use tokio::{sync::watch, task::JoinSet};

/// Clients of the workload under kills, and kills.
const CLIENTS: u32 = 3;
const KILLS: u32 = 6;

/// The sample portal with the attempt trigger on four of its tables, and on one that no mapping knows.
async fn attempted(name: &str, limits: &str) -> Portal {
    let limits = format!("attempt_interval_ms = 20\n{limits}");
    let portal = portal(cluster(), Wishes { name, limits: &limits, ..Wishes::default() }).await;
    run(&portal.source, sql::attempt()).await;
    run(&portal.source, "CREATE TABLE portal.places (id INT PRIMARY KEY, near INT REFERENCES portal.places DEFERRABLE INITIALLY DEFERRED);
        CALL portal_audit.attach_attempt('portal.users');
        CALL portal_audit.attach_attempt('portal.organizations');
        CALL portal_audit.attach_attempt('portal.organization_members');
        CALL portal_audit.attach_attempt('portal.places');").await;
    portal
}

/// Runs a script that the server must refuse.
async fn refused(session: &Session, code: &str, script: &str) {
    let error = session.client.batch_execute(script).await.expect_err(script);
    assert_eq!(error.code().map(tokio_postgres::error::SqlState::code), Some(code), "{script}");
    run(session, "ROLLBACK").await;
}

/// Waits until everything so far is read and no attempt waits.
async fn decided(portal: &Portal) {
    portal.catch_up().await;
    let none = "SELECT count(*) = 0 FROM portal_audit.attempts";
    wait_for("the end of all attempts", async || value::<bool>(&portal.audit, none).await).await;
}

/// What is counted of attempts that are no event.
async fn counted(portal: &Portal) -> String {
    value(&portal.audit, "SELECT coalesce(string_agg(format('%s: %s %s', relation, changes, operation), ', ' ORDER BY relation, operation), '') FROM portal_audit.unmapped").await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_to_fail_is_one_event() {
    let portal = attempted("attempt_ways", "").await;
    run(&portal.source, "INSERT INTO portal.users (username, uid, gid) VALUES ('ada', 1, 1); INSERT INTO portal.organizations (name, oid) VALUES ('atoms', 1)").await;
    let sidecar = portal.start().await;
    let source = &portal.source;
    refused(source, "23505", "BEGIN; SET LOCAL portal.caller = 'wrenn'; INSERT INTO portal.users (username, uid, gid) VALUES ('ada', 2, 2); COMMIT").await;
    refused(source, "23514", "UPDATE portal.users SET state = 'Lost' WHERE username = 'ada'").await;
    refused(source, "23503", "INSERT INTO portal.organization_members (organization, kind, id) VALUES ('nowhere', 'UserMember', 'ada')").await;
    refused(source, "23503", "BEGIN; INSERT INTO portal.places VALUES (1, 2); COMMIT").await;
    run(source, "BEGIN; DELETE FROM portal.organizations; ROLLBACK").await;
    run(source, "BEGIN; TRUNCATE portal.users CASCADE; ROLLBACK").await;
    // Several statements, and savepoints of which one is released and one rolled back: one transaction, one event.
    run(source, "BEGIN; SET LOCAL portal.caller = 'thistle'; INSERT INTO portal.users (username, uid, gid) VALUES ('bob', 3, 3); SAVEPOINT a; UPDATE portal.users SET uid = 4 WHERE username = 'bob'; RELEASE a; SAVEPOINT b; DELETE FROM portal.users WHERE username = 'bob'; ROLLBACK TO b; UPDATE portal.organizations SET category = 'x'; ROLLBACK").await;
    // A client that goes away in the midst.
    let gone = open(cluster(), &portal.name).await;
    run(&gone, "BEGIN; SET LOCAL portal.caller = 'gone'; DELETE FROM portal.users").await;
    drop(gone);
    let left = "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'attempt_ways' AND state = 'idle in transaction'";
    wait_for("the client is gone", async || value::<bool>(source, left).await).await;
    decided(&portal).await;
    sidecar.stop().await;
    expect![[r#"
        user_insert_failed  caller=wrenn (context)  subject=table/portal.users  FAILED transaction rolled back
            {"operation": "insert", "statements": [{"table": "portal.users", "operation": "insert"}]}
        user_update_failed  caller= (none)  subject=table/portal.users  FAILED transaction rolled back
            {"operation": "update", "statements": [{"table": "portal.users", "operation": "update"}]}
        org_member_insert_failed  caller= (none)  subject=table/portal.organization_members  FAILED transaction rolled back
            {"operation": "insert", "statements": [{"table": "portal.organization_members", "operation": "insert"}]}
        row_insert_failed  caller= (none)  subject=table/portal.places  FAILED transaction rolled back
            {"operation": "insert", "statements": [{"table": "portal.places", "operation": "insert"}]}
        org_delete_failed  caller= (none)  subject=table/portal.organizations  FAILED transaction rolled back
            {"operation": "delete", "statements": [{"table": "portal.organizations", "operation": "delete"}, {"table": "portal.organization_members", "operation": "delete"}]}
        user_truncate_failed  caller= (none)  subject=table/portal.users  FAILED transaction rolled back
            {"operation": "truncate", "statements": [{"table": "portal.users", "operation": "truncate"}]}
        org_update_failed  caller=thistle (context)  subject=table/portal.organizations  FAILED transaction rolled back
            {"operation": "update", "statements": [{"table": "portal.users", "operation": "insert"}, {"table": "portal.users", "operation": "update"}, {"table": "portal.users", "operation": "delete"}, {"table": "portal.organizations", "operation": "update"}]}
        user_delete_failed  caller=gone (context)  subject=table/portal.users  FAILED transaction rolled back
            {"operation": "delete", "statements": [{"table": "portal.users", "operation": "delete"}]}
    "#]].assert_eq(&portal.events().await);
    // Each type has its sentence, and progress counts each event once.
    let bare = "SELECT count(*) FROM public.events LEFT JOIN portal_audit.event_types USING (event_type) WHERE describe IS NULL OR retention <> 'project' OR visible_to <> '{admin}'";
    assert_eq!(value::<i64>(&portal.audit, bare).await, 0);
    let events: i64 = value(&portal.audit, "SELECT events FROM portal_audit.progress").await;
    assert_eq!(events, portal.count().await);
    assert_eq!(counted(&portal).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_did_not_fail() {
    let portal = attempted("attempt_commits", "").await;
    let sidecar = portal.start().await;
    for script in [
        "INSERT INTO portal.users (username, uid, gid) VALUES ('ada', 1, 1)",
        // No row, so from PostgreSQL 15 on not even a BEGIN and COMMIT are sent.
        "UPDATE portal.users SET uid = 2 WHERE username = 'nobody'",
        "BEGIN; SAVEPOINT a; INSERT INTO portal.users (username, uid, gid) VALUES ('bob', 3, 3); ROLLBACK TO a; COMMIT",
        "INSERT INTO portal.users (username, uid, gid) VALUES ('ada', 2, 2) ON CONFLICT DO NOTHING",
        "BEGIN; DELETE FROM portal.users; INSERT INTO portal.users (username, uid, gid) VALUES ('eve', 5, 5); COMMIT",
    ] {
        run(&portal.source, script).await;
    }
    decided(&portal).await;
    // One whose attempt had to be stored, because it took its time.
    let slow = open(cluster(), &portal.name).await;
    run(&slow, "BEGIN; DELETE FROM portal.places").await;
    let stored = "SELECT count(*) = 1 FROM portal_audit.attempts";
    wait_for("the attempt is stored", async || value::<bool>(&portal.audit, stored).await).await;
    run(&slow, "COMMIT").await;
    decided(&portal).await;
    // Permissions and names are checked before any trigger fires: this is not seen.
    run(&portal.source, "CREATE ROLE attempt_nobody; SET ROLE attempt_nobody").await;
    refused(&portal.source, "42501", "DELETE FROM portal.users").await;
    run(&portal.source, "RESET ROLE").await;
    refused(&portal.source, "42703", "UPDATE portal.users SET nothing = 1").await;
    decided(&portal).await;
    sidecar.stop().await;
    expect![[r#"
        user_created  caller= (none)  subject=user/ada  ok
            {"state": "notset", "category": "", "institution": ""}
        user_declined  caller= (none)  subject=user/ada  ok
            {"category": "", "old_state": "notset", "institution": ""}
        user_created  caller= (none)  subject=user/eve  ok
            {"state": "notset", "category": "", "institution": ""}
    "#]]
    .assert_eq(&portal.events().await);
    assert_eq!(counted(&portal).await, "");
}

/// While it may still fail, the record is complete only up to there; another sidecar asks on, and tells it once.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_transaction_outlives_sidecars() {
    let portal = attempted("attempt_long", "").await;
    let sidecar = portal.start().await;
    let long = open(cluster(), &portal.name).await;
    run(
        &long,
        "BEGIN; SET LOCAL portal.caller = 'slow'; INSERT INTO portal.users (username, uid, gid) VALUES ('ada', 1, 1)",
    )
    .await;
    let stored = "SELECT count(*) = 1 FROM portal_audit.attempts";
    wait_for("the attempt is stored", async || value::<bool>(&portal.audit, stored).await).await;
    // What comes after goes on, and only "complete to" stays. It may have been a little beyond, because the message is not flushed by itself.
    let bound =
        "SELECT greatest(complete_to, at)::text FROM portal_audit.progress, portal_audit.attempts";
    let bound: String = value(&portal.audit, bound).await;
    let holds = format!("SELECT complete_to <= '{bound}' FROM portal_audit.progress");
    portal.act("INSERT INTO portal.organizations (name, oid) VALUES ('atoms', 1)").await;
    portal.act("SELECT pg_switch_wal()").await;
    assert!(value::<bool>(&portal.audit, &holds).await);
    assert_eq!(portal.count().await, 1);
    sidecar.stop().await;
    let sidecar = portal.start().await;
    portal.act("SELECT pg_switch_wal()").await;
    assert!(value::<bool>(&portal.audit, &holds).await);
    run(&long, "UPDATE portal.users SET uid = 2").await;
    portal.catch_up().await;
    let settings = SettingsFile::new(&portal);
    sidecar.stop().await;
    let program = Program::run(&settings.path);
    run(&long, "ROLLBACK").await;
    program.kill();
    let sidecar = portal.start().await;
    decided(&portal).await;
    let beyond = "SELECT complete_to > (SELECT max(timestamp) FROM public.events) FROM portal_audit.progress";
    wait_for("complete to goes on", async || value::<bool>(&portal.audit, beyond).await).await;
    sidecar.stop().await;
    expect![[r#"
        org_created  caller= (none)  subject=organization/atoms  ok
            {"state": "pending", "category": "", "description": "", "subcategory": ""}
        user_update_failed  caller=slow (context)  subject=table/portal.users  FAILED transaction rolled back
            {"operation": "update", "statements": [{"table": "portal.users", "operation": "insert"}, {"table": "portal.users", "operation": "update"}]}
    "#]].assert_eq(&portal.events().await);
    // The event is of its last statement, which came after the organization.
    let later = "SELECT bool_and(f.timestamp > o.timestamp) FROM public.events f, public.events o WHERE NOT f.success AND o.success";
    assert!(value::<bool>(&portal.audit, later).await);
}

/// Of every third transaction of a client the trigger's message stays: it is named by its caller.
async fn live(session: Session, client: u32, stopped: watch::Receiver<bool>) -> u32 {
    for act in 0.. {
        if *stopped.borrow() {
            return act;
        }
        let user = format!("user_{client}_{act}");
        let end = if act % 3 == 0 { "ROLLBACK" } else { "COMMIT" };
        run(&session, &format!("BEGIN; SET LOCAL portal.caller = '{user}'; INSERT INTO portal.users (username, uid, gid) VALUES ('{user}', 1, 1); UPDATE portal.users SET uid = 2 WHERE username = '{user}'; {end}")).await;
    }
    0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kills_lose_and_double_no_attempt() {
    let portal = attempted("attempt_kills", "").await;
    let settings = SettingsFile::new(&portal);
    let mut program = Program::run(&settings.path);
    portal.streaming().await;
    let (stop, stopped) = watch::channel(false);
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let session = open(cluster(), &portal.name).await;
        let stopped = stopped.clone();
        clients.spawn(async move { (client, live(session, client, stopped).await) });
    }
    for _ in 0..KILLS {
        let now = portal.count().await;
        let more = format!("SELECT count(*) > {} FROM public.events", now + 15);
        wait_for("more events", async || value::<bool>(&portal.audit, &more).await).await;
        program.kill();
        program = Program::run(&settings.path);
    }
    stop.send_replace(true);
    let mut failed = BTreeMap::new();
    let mut created = 0;
    while let Some(ended) = clients.join_next().await {
        let (client, acts) = ended.unwrap();
        for act in 0..acts {
            if act % 3 == 0 {
                failed.insert(format!("user_{client}_{act}"), 1);
            } else {
                created += 1;
            }
        }
    }
    decided(&portal).await;
    assert!(program.terminate().success());
    assert!(failed.len() > 50, "the workload must do something");
    let query = "SELECT caller, count(*)::int FROM public.events WHERE NOT success AND event_type = 'user_update_failed' AND jsonb_array_length(payload->'statements') = 2 GROUP BY 1";
    let rows = portal.audit.client.query(query, &[]).await.unwrap();
    let told: BTreeMap<String, i32> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let lost: Vec<_> = failed.keys().filter(|caller| !told.contains_key(*caller)).collect();
    let wrong: Vec<_> =
        told.iter().filter(|(caller, times)| failed.get(*caller) != Some(times)).collect();
    let (some_lost, some_wrong) = (lost.iter().take(5), wrong.iter().take(5));
    let some: (Vec<_>, Vec<_>) = (some_lost.collect(), some_wrong.collect());
    assert_eq!((lost.len(), wrong.len()), (0, 0), "of {}: {some:?}", failed.len());
    let others = "SELECT count(*) FROM public.events WHERE event_type = 'user_created'";
    assert_eq!(value::<i64>(&portal.audit, others).await, created);
    let counted: i64 = value(&portal.audit, "SELECT events FROM portal_audit.progress").await;
    assert_eq!(counted, portal.count().await);
    assert_eq!(self::counted(&portal).await, "");
}

/// After a kill the log is read again from where progress stands, and attempts may be stored beyond.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_comes_again_changes_nothing() {
    let portal = attempted("attempt_again", "").await;
    run(
        &portal.audit,
        "INSERT INTO portal_audit.progress VALUES ('s', 'streaming', '', '', 1, 1, '0/0')",
    )
    .await;
    let keep = |xids: &str, lsns: &str, room: u32| {
        format!(
            "SELECT portal_audit.keep_attempts('s', '{{{xids}}}', '{{{lsns}}}', array_fill(now(), '{{3}}'), '{{a.b,a.b,a.c}}', '{{insert,update,delete}}', '{{x,y,z}}', '{{\"\",\"\",\"\"}}', '{{f,f,t}}', {room}, 2)"
        )
    };
    let shown = "SELECT string_agg(format('%s %s %s %s %s +%s', xid, lsn, relation, operation, jsonb_array_length(statements), left_out), ', ' ORDER BY xid) FROM portal_audit.attempts";
    for _ in 0..2 {
        assert_eq!(value::<i64>(&portal.audit, &keep("7,7,7", "0/1,0/2,0/3", 9)).await, 0);
        // The last statement that is not nested is told; the list has room for two.
        assert_eq!(value::<String>(&portal.audit, shown).await, "7 0/3 a.b update 2 +1");
    }
    // What there is no room for is refused, and counted by statement; what is there already has its room.
    let refused: i64 = value(&portal.audit, &keep("7,8,9", "0/4,0/5,0/6", 1)).await;
    assert_eq!(refused, 2);
    assert_eq!(value::<String>(&portal.audit, shown).await, "7 0/4 a.b insert 2 +2");
}

/// Any role may emit a message with our prefix: nothing that stands in one stops the stream.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_forged_or_broken_is_counted() {
    let portal = attempted("attempt_forged", "").await;
    let sidecar = portal.start().await;
    let good = r#"{"xid":"%s","at":1790000000000000,"caller":"eve","s":"portal","t":"users","op":"DELETE"}"#;
    let emit = |content: &str| {
        format!(
            "SELECT pg_logical_emit_message(false, 'portal_audit.attempt', '{}')",
            content.replace('\'', "''")
        )
    };
    let deep = format!("{{\"xid\":{}1{}}}", "[".repeat(1_500), "]".repeat(1_500));
    let broken = [
        "",
        "{",
        "null",
        "[]",
        &deep,
        &good.replace("%s", "-5"),
        &good.replace("%s", "0"),
        &good.replace("%s", "99999999999999999999"),
        &good.replace("\"%s\"", "700"),
        &good.replace("%s", "7").replace("DELETE", "SELECT"),
        &good.replace("%s", "7").replace("1790000000000000", "9007199254740993000"),
        &good.replace("%s", "7").replace("users", "us\\u0000ers"),
        &good.replace("%s", "7").replace("\"t\"", "\"s\""),
        &good.replace("%s", "7").replace("users", &"u".repeat(300)),
        &good.replace("%s", "7").replace("eve", &"e".repeat(5_000)),
    ];
    for content in broken {
        run(&portal.source, &emit(content)).await;
    }
    run(&portal.source, "SELECT pg_logical_emit_message(false, 'portal_audit.attempt', '\\xff00fe'::bytea), pg_logical_emit_message(false, 'portal_audit.attempt', repeat('x', 3000000)), pg_logical_emit_message(false, 'portal_audit.attempts', 'other'), pg_logical_emit_message(true, 'portal_audit.attempt', 'in a transaction')").await;
    // Of transactions that are yet to come, one at a time and beside a real one.
    run(&portal.source, &emit(&good.replace("%s", "4611686018427387904"))).await;
    run(&portal.source, &emit(&good.replace("%s", "5000000000").replace("users", "no such"))).await;
    run(&portal.source, "BEGIN; DELETE FROM portal.users; ROLLBACK").await;
    decided(&portal).await;
    // Of one that was committed.
    let committed: String = value(&portal.source, "SELECT pg_current_xact_id()::text").await;
    run(&portal.source, &emit(&good.replace("%s", &committed))).await;
    // A secret in place of a caller, and one that no index of events takes.
    run(
        &portal.source,
        "BEGIN; SET LOCAL portal.caller = 'ghp_0123456789'; DELETE FROM portal.users; ROLLBACK",
    )
    .await;
    let long = "BEGIN; SELECT set_config('portal.caller', repeat('ä', 100000), true); DELETE FROM portal.users; ROLLBACK";
    run(&portal.source, long).await;
    decided(&portal).await;
    sidecar.stop().await;
    let long = "ä".repeat(200);
    expect![[r#"
        user_delete_failed  caller= (none)  subject=table/portal.users  FAILED transaction rolled back
            {"operation": "delete", "statements": [{"table": "portal.users", "operation": "delete"}]}
        user_delete_failed  caller=[redacted] (context)  subject=table/portal.users  FAILED transaction rolled back  {"redacted": true}
            {"operation": "delete", "statements": [{"table": "portal.users", "operation": "delete"}]}
        user_delete_failed  caller=ä × 200 (context)  subject=table/portal.users  FAILED transaction rolled back
            {"operation": "delete", "statements": [{"table": "portal.users", "operation": "delete"}]}
    "#]].assert_eq(&portal.events().await.replace(&long, "ä × 200"));
    let expected = "portal.no such: 1 attempt undecided, portal.users: 1 attempt undecided, portal_audit.attempt: 17 attempt unreadable";
    assert_eq!(counted(&portal).await, expected);
}

/// More statements than a batch or a list holds, with nothing between them that ends a batch.
#[tokio::test(flavor = "multi_thread")]
async fn many_statements_are_bounded() {
    let portal = attempted("attempt_many", "batch_events = 40").await;
    let sidecar = portal.start().await;
    // Large ones, which the server sends before their end.
    run(&portal.source, "BEGIN; SET LOCAL portal.caller = 'large'; INSERT INTO portal.organizations (name, oid) SELECT 'o' || n, n FROM generate_series(1, 3000) n; ROLLBACK").await;
    run(&portal.source, "BEGIN; INSERT INTO portal.organizations (name, oid) SELECT 'o' || n, n FROM generate_series(1, 3000) n; ROLLBACK AND CHAIN; INSERT INTO portal.users (username, uid, gid) SELECT 'u' || n, n, n FROM generate_series(1, 3000) n; COMMIT").await;
    decided(&portal).await;
    let told = "SELECT string_agg(format('%s %s', event_type, count), ', ' ORDER BY event_type) FROM (SELECT event_type, count(*) FROM public.events GROUP BY 1) AS t";
    assert_eq!(
        value::<String>(&portal.audit, told).await,
        "org_insert_failed 2, user_created 3000"
    );
    refused(&portal.source, "P0001", "DO $$ BEGIN FOR n IN 1..250 LOOP INSERT INTO portal.users (username, uid, gid) VALUES ('user' || n, n, n); END LOOP; UPDATE portal.organizations SET oid = 1; RAISE EXCEPTION 'no'; EXCEPTION WHEN division_by_zero THEN NULL; END $$").await;
    decided(&portal).await;
    sidecar.stop().await;
    let told = "SELECT event_type = 'org_update_failed' AND jsonb_array_length(payload->'statements') = 100 AND payload->'left_out' = '151' AND payload->'_audit'->'truncated' = 'true' FROM public.events WHERE event_type = 'org_update_failed'";
    assert!(value::<bool>(&portal.audit, told).await);
}

/// The source refuses every further session: the stream goes on, and only the attempt waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_cannot_be_asked_delays_nothing_else() {
    let portal = attempted("attempt_closed", "").await;
    let sidecar = portal.start().await;
    let postgres = open(cluster(), "postgres").await;
    run(&postgres, "ALTER DATABASE attempt_closed ALLOW_CONNECTIONS false").await;
    run(&portal.source, "BEGIN; DELETE FROM portal.users; ROLLBACK").await;
    portal.act("INSERT INTO portal.users (username, uid, gid) VALUES ('ada', 1, 1)").await;
    portal.act("UPDATE portal.users SET state = 'Active'").await;
    // Also a transaction that was committed waits, if its attempt came alone.
    let waits = "SELECT count(*) > 0 FROM portal_audit.attempts";
    assert!(value::<bool>(&portal.audit, waits).await);
    assert_eq!(portal.count().await, 2);
    run(&postgres, "ALTER DATABASE attempt_closed ALLOW_CONNECTIONS true").await;
    decided(&portal).await;
    sidecar.stop().await;
    assert_eq!(portal.count().await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn undo_takes_the_triggers_off() {
    let portal = attempted("attempt_undo", "").await;
    run(
        &portal.source,
        "CALL portal_audit.attach('portal.users'); SET SESSION AUTHORIZATION DEFAULT",
    )
    .await;
    let left = "SELECT (SELECT count(*) FROM pg_trigger WHERE tgname LIKE '%portal_audit%') + (SELECT count(*) FROM pg_namespace WHERE nspname = 'portal_audit')";
    assert_eq!(value::<i64>(&portal.source, left).await, 6);
    let undo = sql::undo(&portal.settings.sources[0]);
    run(&portal.source, &undo.repeat(2)).await;
    assert_eq!(value::<i64>(&portal.source, left).await, 0);
    run(&portal.source, "INSERT INTO portal.users (username, uid, gid) VALUES ('ada', 1, 1)").await;
    // The audit database may be the source itself: of its schema nothing goes.
    run(&portal.source, sql::audit()).await;
    run(&portal.source, sql::attempt()).await;
    run(&portal.source, &undo).await;
    let kept = "SELECT to_regclass('portal_audit.progress') IS NOT NULL AND to_regprocedure('portal_audit.attempt()') IS NULL";
    assert!(value::<bool>(&portal.source, kept).await);
}

/// A sidecar that is no longer the one that writes cannot tell an attempt a second time.
#[tokio::test(flavor = "multi_thread")]
async fn several_sidecars_tell_it_once() {
    let portal = attempted("attempt_several", "").await;
    let first = portal.start().await;
    let second = Sidecar::start(portal.settings.clone());
    for _ in 0..20 {
        run(&portal.source, "BEGIN; DELETE FROM portal.users; ROLLBACK").await;
    }
    decided(&portal).await;
    first.stop().await;
    run(&portal.source, "BEGIN; DELETE FROM portal.users; ROLLBACK").await;
    decided(&portal).await;
    second.stop().await;
    assert_eq!(portal.count().await, 21);
}

/// The roles that the scripts make are enough, on both sides.
#[tokio::test(flavor = "multi_thread")]
async fn the_least_privilege_suffices() {
    let mut portal = attempted("attempt_least", "").await;
    run(&portal.audit, "CREATE ROLE attempt_writer LOGIN IN ROLE portal_audit_writer").await;
    let least = portal
        .settings_text
        .replace(
            "user='postgres' dbname='attempt_least_audit'",
            "user='attempt_writer' dbname='attempt_least_audit'",
        )
        .replace(
            "user='postgres' dbname='attempt_least'",
            "user='attempt_reader' dbname='attempt_least'",
        );
    portal.settings = Settings::parse(Path::new("test.toml"), &least).unwrap();
    run(&portal.source, &sql::source(&portal.settings.sources[0])).await;
    let sidecar = portal.start().await;
    // Those who write the table need nothing either, and cannot call what stands beside the trigger.
    run(&portal.source, "CREATE ROLE attempt_client; GRANT USAGE ON SCHEMA portal TO attempt_client; GRANT DELETE ON portal.places TO attempt_client; SET ROLE attempt_client").await;
    run(&portal.source, "BEGIN; DELETE FROM portal.places; ROLLBACK").await;
    refused(&portal.source, "42501", "CALL portal_audit.attach_attempt('portal.users')").await;
    run(&portal.source, "RESET ROLE").await;
    let forged = r#"SELECT pg_logical_emit_message(false, 'portal_audit.attempt', '{"xid":"4611686018427387904","at":1790000000000000,"s":"portal","t":"users","op":"DELETE"}')"#;
    run(&portal.source, forged).await;
    decided(&portal).await;
    sidecar.stop().await;
    assert_eq!(portal.count().await, 1);
    assert_eq!(counted(&portal).await, "portal.users: 1 attempt undecided");
}

/// The source says that a transaction was rolled back before its last message has reached us: a server that flushes its log late.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_ahead_of_the_stream_waits() {
    let late = Cluster::start(&installation(), &[("wal_writer_delay", "10s")]).unwrap();
    let limits = "attempt_interval_ms = 20";
    let portal = portal(&late, Wishes { name: "late", limits, ..Wishes::default() }).await;
    run(&portal.source, sql::attempt()).await;
    run(&portal.source, "CALL portal_audit.attach_attempt('portal.users')").await;
    let sidecar = portal.start().await;
    let long = open(&late, "late").await;
    run(&long, "BEGIN; DELETE FROM portal.users").await;
    portal.act("INSERT INTO portal.organizations (name, oid) VALUES ('flushed', 1)").await;
    let asks = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = 'late' AND application_name = 'portal-audit (late)' AND (query LIKE '%pg_xact_status%' OR query LIKE 'SELECT pg_current_wal_insert_lsn()%')";
    wait_for("it asks", async || value::<bool>(&portal.source, asks).await).await;
    run(&long, "UPDATE portal.users SET uid = 1; ROLLBACK").await;
    wait_for("it knows", async || !value::<bool>(&portal.source, asks).await).await;
    portal.act("INSERT INTO portal.organizations (name, oid) VALUES ('flushed too', 2)").await;
    decided(&portal).await;
    sidecar.stop().await;
    let told = "SELECT string_agg(concat_ws(' ', event_type, jsonb_array_length(payload->'statements')), ', ' ORDER BY timestamp) FROM public.events WHERE NOT success";
    assert_eq!(value::<String>(&portal.audit, told).await, "user_update_failed 2");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_server_that_is_followed_is_asked() {
    let session = open(cluster(), "postgres").await;
    let here: String =
        value(&session, "SELECT system_identifier::text FROM pg_control_system()").await;
    let here: u64 = here.parse().unwrap();
    for (system_identifier, timeline, expected) in
        [(here, 1, true), (here + 1, 1, false), (here, 2, false)]
    {
        let is_server = is_server(&session, system_identifier, timeline).await.unwrap();
        assert_eq!(is_server, expected, "{system_identifier} {timeline}");
    }
}

#[test]
fn the_program_prints_the_trigger() {
    let output = command(&["sql", "attempt"]).output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim_end(), sql::attempt().trim_end());
}
