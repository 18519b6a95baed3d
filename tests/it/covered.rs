//! What is covered: each change of it that the stream does not tell is seen, told once with its bounds, and shown.

use crate::support::{
    Portal, Wishes, cluster, open, portal,
    program::{Program, SettingsFile, command},
    run, value, wait_for,
};
use expect_test::{Expect, expect};

/// Each look follows the one before at once.
const LIMITS: &str = "coverage_interval_ms = 1\nretry_max_seconds = 1";

pub async fn watched(name: &str) -> Portal {
    portal(cluster(), Wishes { name, limits: LIMITS, ..Wishes::default() }).await
}

pub fn user(name: &str) -> String {
    format!("INSERT INTO portal.users (username, uid, gid) VALUES ('{name}', 1, 1)")
}

/// Waits until a look that began after now is stored.
pub async fn looked(portal: &Portal) {
    let now: String = value(&portal.source, "SELECT clock_timestamp()::text").await;
    let query = format!(
        "SELECT count(*) = 1 FROM portal_audit.coverage WHERE source = '{}' AND at > '{now}'",
        portal.name
    );
    wait_for("a look", async || value::<bool>(&portal.audit, &query).await).await;
}

/// Changes something and waits until it was looked at.
pub async fn change(portal: &Portal, script: &str) {
    run(&portal.source, script).await;
    looked(portal).await;
}

/// The events of what is covered: type, subject, differences without their numbers, and what they say of missing changes. Forgets nothing: each is given once, those since the last call.
pub async fn told(portal: &Portal) -> String {
    const QUERY: &str = "SELECT event_type || ' ' || subject_type || ' ' || subject || E'\\n' || (SELECT coalesce(string_agg('    ' || concat_ws(' ', c->>'what', CASE c->>'what' WHEN 'row filter' THEN left(c->>'old', 0) || 'some' ELSE c->>'old' END, '->', CASE c->>'what' WHEN 'row filter' THEN left(c->>'new', 0) || 'another' ELSE c->>'new' END) || E'\\n', ''), '') FROM jsonb_array_elements(payload->'changes') c) || concat(CASE WHEN (payload->>'changes_may_be_missing')::boolean THEN '    missing: ' || (payload->>'because') || E'\\n' END, '    not covered: ' || (payload->>'not_covered') || E'\\n', '    stopped: ' || (payload->>'rules_stopped') || E'\\n', CASE WHEN payload ? 'covered_again' THEN E'    covered again\\n' END) FROM public.events e WHERE event_type IN ('coverage_changed', 'schema_changed') AND NOT EXISTS (SELECT FROM told t WHERE t.event_uuid = e.event_uuid) ORDER BY payload->>'from_time', event_type, subject";
    const KEEP: &str =
        "INSERT INTO told SELECT event_uuid FROM public.events ON CONFLICT DO NOTHING";
    run(&portal.audit, "CREATE TABLE IF NOT EXISTS told (event_uuid UUID PRIMARY KEY)").await;
    let rows = portal.audit.client.query(QUERY, &[]).await.unwrap();
    run(&portal.audit, KEEP).await;
    let text: String = rows.iter().map(|row| row.get::<_, String>(0)).collect();
    // Oids and files differ from run to run.
    let mut out = String::new();
    let mut digits = 0;
    for letter in text.chars() {
        digits = if letter.is_ascii_digit() { digits + 1 } else { 0 };
        match digits {
            0..3 => out.push(letter),
            3 => {
                out.truncate(out.len() - 2);
                out.push('N');
            }
            _ => {}
        }
    }
    out
}

async fn expect_told(portal: &Portal, script: &str, expected: Expect) {
    change(portal, script).await;
    expected.assert_eq(&told(portal).await);
}

/// Every missing event lies between the bounds of a hole that is told.
async fn assert_lost_inside(portal: &Portal, lost: u64) {
    let proof = portal.proof().await;
    assert!(proof.events > 0);
    assert_eq!((proof.lost, proof.doubled), (lost, 0), "{:#?}", proof.differences);
}

/// The bounds of an event hold what came to pass between two positions, and reach no further than the looks that stand around it. Others write to the same log meanwhile: no position but these is the change's own. The first may stand behind a page's header, which the sidecar does not count.
async fn assert_bounds(portal: &Portal, place: &str, [looked, from, to, end]: [&str; 4]) {
    let query = format!(
        "SELECT count(*) = 1 FROM public.events WHERE {place} AND (payload->>'from_lsn')::pg_lsn BETWEEN '{looked}'::pg_lsn - 40 AND '{to}' AND (payload->>'to_lsn')::pg_lsn BETWEEN '{from}' AND '{end}' AND (payload->>'from_lsn')::pg_lsn <= (payload->>'to_lsn')::pg_lsn AND (payload->>'from_time')::timestamptz <= (payload->>'to_time')::timestamptz"
    );
    let bounds = format!(
        "SELECT string_agg(concat_ws(' to ', payload->>'from_lsn', payload->>'to_lsn'), ', ') FROM public.events WHERE {place}"
    );
    let bounds: Option<String> = value(&portal.audit, &bounds).await;
    assert!(
        value::<bool>(&portal.audit, &query).await,
        "{place} has {from} to {to} inside and lies between {looked} and {end}: {bounds:?}"
    );
}

async fn position(portal: &Portal) -> String {
    value(&portal.source, "SELECT pg_current_wal_insert_lsn()::text").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_leaves_the_publication_and_comes_back() {
    let portal = watched("covered_table").await;
    let sidecar = portal.start().await;
    portal.act(&user("before")).await;
    let covered = position(&portal).await;
    looked(&portal).await;
    let list: String = value(&portal.source, "SELECT string_agg('portal.' || relname, ', ') FROM pg_publication_rel JOIN pg_class c ON c.oid = prrelid WHERE relname = 'users'").await;
    let from = position(&portal).await;
    run(&portal.source, "ALTER PUBLICATION portal_audit DROP TABLE portal.users").await;
    let to = position(&portal).await;
    looked(&portal).await;
    expect![[r#"
            coverage_changed table portal.users
                published as entry N -> not published
                missing: changes while the table was not published are not in the log that we read
                not covered: publication "portal_audit" does not publish portal.users
        "#]]
    .assert_eq(&told(&portal).await);
    let gone = "event_type = 'coverage_changed' AND payload ? 'not_covered'";
    let end = position(&portal).await;
    assert_bounds(&portal, gone, [&covered, &from, &to, &end]).await;
    portal.act(&user("lost")).await;
    let settings = SettingsFile::new(&portal);
    let path = settings.path.to_str().unwrap();
    let status = command(&["status", "--config", path, "--format", "json"]).output().unwrap();
    assert_eq!(status.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(json[0]["state"], "streaming", "it goes on for everything else");
    assert_eq!(json[0]["not_covered"][0]["name"], "portal.users");
    assert!(json[0]["not_covered"][0]["fix"].as_str().unwrap().contains("sql source"), "{json}");
    let text = command(&["status", "--config", path]).output().unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("not covered since"), "{text}");

    expect_told(
        &portal,
        &format!("ALTER PUBLICATION portal_audit ADD TABLE {list}"),
        expect![[r#"
            coverage_changed table portal.users
                published as not published -> entry N
                missing: changes while the table was not published are not in the log that we read
                covered again
        "#]],
    )
    .await;
    portal.act(&user("after")).await;
    let status = command(&["status", "--config", path]).output().unwrap();
    assert_eq!(status.status.code(), Some(0));
    // Both between two looks: nothing looks different but the entry.
    let both = format!(
        "ALTER PUBLICATION portal_audit DROP TABLE portal.users; {}; ALTER PUBLICATION portal_audit ADD TABLE {list}",
        user("lost too")
    );
    expect_told(
        &portal,
        &both,
        expect![[r#"
        coverage_changed table portal.users
            published as entry N -> entry N
            missing: changes while the table was not published are not in the log that we read
    "#]],
    )
    .await;
    sidecar.stop().await;
    assert_lost_inside(&portal, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_is_narrowed() {
    let portal = watched("covered_options").await;
    let sidecar = portal.start().await;
    portal.act(&user("before")).await;
    looked(&portal).await;
    expect_told(
        &portal,
        "ALTER PUBLICATION portal_audit SET (publish = 'update, delete')",
        expect![[r#"
            coverage_changed publication portal_audit
                operations insert, update, delete, truncate -> update, delete
                missing: operations that the publication left out are not in the log that we read
                not covered: publication "portal_audit" does not publish insert, truncate
        "#]],
    )
    .await;
    portal.act(&user("lost")).await;
    let all = "ALTER PUBLICATION portal_audit SET (publish = 'insert, update, delete, truncate')";
    expect_told(
        &portal,
        all,
        expect![[r#"
        coverage_changed publication portal_audit
            operations update, delete -> insert, update, delete, truncate
            missing: operations that the publication left out are not in the log that we read
            covered again
    "#]],
    )
    .await;
    // There and back between two looks.
    let both = format!("ALTER PUBLICATION portal_audit SET (publish = 'update'); {all}");
    expect_told(&portal, &both, expect![[r#"
        coverage_changed publication portal_audit
            altered by transaction N -> by transaction N
            missing: somebody altered the publication, and it looks as before: what it left out meanwhile is not in the log that we read
    "#]]).await;
    expect_told(
        &portal,
        "ALTER PUBLICATION portal_audit SET (publish_via_partition_root = false)",
        expect![[r#"
            coverage_changed publication portal_audit
                via root yes -> no
                missing: changes of partitions came under other names, which no rule takes
        "#]],
    )
    .await;
    sidecar.stop().await;
    assert_lost_inside(&portal, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_loses_nothing() {
    let portal = watched("covered_harmless").await;
    let sidecar = portal.start().await;
    portal.act(&user("before")).await;
    looked(&portal).await;
    expect_told(
        &portal,
        "CREATE TABLE portal.extra (id INT PRIMARY KEY); ALTER PUBLICATION portal_audit ADD TABLE portal.extra",
        expect![[r#"
            coverage_changed publication portal_audit
                also publishes -> portal.extra
        "#]],
    )
    .await;
    portal.act("INSERT INTO portal.extra VALUES (1)").await;
    let extra = "SELECT changes FROM portal_audit.unmapped WHERE relation = 'portal.extra'";
    assert_eq!(value::<i64>(&portal.audit, extra).await, 1, "counted, not told");
    // Nothing is told that did not happen.
    for script in ["VACUUM FULL pg_publication", "VACUUM FREEZE pg_publication_rel", "ANALYZE"] {
        run(&portal.source, script).await;
    }
    expect_told(&portal, "VACUUM FREEZE pg_publication", expect![[r#""#]]).await;
    change(&portal, "ALTER PUBLICATION portal_audit DROP TABLE portal.extra").await;
    told(&portal).await;
    // What ops run again changes nothing.
    let again = portal_audit::sql::source(&portal.settings.sources[0]);
    expect_told(&portal, &again, expect![[r#""#]]).await;
    sidecar.stop().await;
    assert_lost_inside(&portal, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_filter_and_a_column_list() {
    let portal = watched("covered_lists").await;
    let version: i32 =
        value(&portal.source, "SELECT current_setting('server_version_num')::int").await;
    if version < 150_000 {
        println!("not run: PostgreSQL 15 and later");
        return;
    }
    let sidecar = portal.start().await;
    portal.act(&user("before")).await;
    looked(&portal).await;
    let tables = |users: &str| {
        format!(
            "ALTER PUBLICATION portal_audit DROP TABLE portal.api_tokens; ALTER PUBLICATION portal_audit ADD TABLE portal.api_tokens {users}"
        )
    };
    expect_told(
        &portal,
        &tables("(username, id) WHERE (username <> 'secret')"),
        expect![[r#"
            coverage_changed table portal.api_tokens
                columns published id, username, description, expires, revoked -> id, username
                published as entry N -> entry N
                row filter -> another
                missing: changes while the table was not published are not in the log that we read; columns that the list left out are missing from the events; rows that the filter left out are not in the log that we read
                not covered: publication "portal_audit" filters the rows of portal.api_tokens
            schema_changed table portal.api_tokens
                missing: rules that do not fit the table tell nothing; changes that they might have taken are events of type change_unmapped
                not covered: column "description" of portal.api_tokens is not published; column "expires" of portal.api_tokens is not published; column "revoked" of portal.api_tokens is not published
                stopped: ["token_created", "token_revoked"]
        "#]],
    )
    .await;
    expect_told(&portal, &tables("(username, id)"), expect![[r#"
        coverage_changed table portal.api_tokens
            published as entry N -> entry N
            row filter some ->
            missing: changes while the table was not published are not in the log that we read; rows that the filter left out are not in the log that we read
            not covered: publication "portal_audit" leaves out columns of portal.api_tokens that its replica identity needs, so the portal's own updates of it fail
    "#]]).await;
    sidecar.stop().await;
    assert_lost_inside(&portal, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_dropped_and_made_again() {
    let portal = watched("covered_dropped").await;
    run(&portal.source, "CREATE TABLE portal.copy (LIKE portal.public_keys INCLUDING ALL)").await;
    let sidecar = portal.start().await;
    portal.act(&user("before")).await;
    looked(&portal).await;
    expect_told(
        &portal,
        "DROP TABLE portal.public_keys",
        expect![[r#"
        coverage_changed table portal.public_keys
            state there -> absent
            missing: the rows of a table that is dropped go without a change of their own
            not covered: database "covered_dropped" has no table "portal.public_keys"
            stopped: ["public_key_added", "public_key_deleted"]
    "#]],
    )
    .await;
    expect_told(
        &portal,
        "ALTER TABLE portal.copy RENAME TO public_keys",
        expect![[r#"
        coverage_changed table portal.public_keys
            state absent -> there
            oid N -> N
            missing: the rows of a table that is dropped go without a change of their own
            not covered: publication "portal_audit" does not publish portal.public_keys
    "#]],
    )
    .await;
    expect_told(
        &portal,
        "ALTER PUBLICATION portal_audit ADD TABLE portal.public_keys",
        expect![[r#"
            coverage_changed table portal.public_keys
                published as not published -> entry N
                missing: changes while the table was not published are not in the log that we read
                covered again
        "#]],
    )
    .await;
    portal.act(&user("after")).await;
    sidecar.stop().await;
    assert_lost_inside(&portal, 0).await;
}

/// Killed in the midst of a look's audit transaction, again and again: each change is told once.
#[tokio::test(flavor = "multi_thread")]
async fn killed_while_a_change_is_told() {
    let portal = watched("covered_killed").await;
    let settings = SettingsFile::new(&portal);
    let program = Program::run(&settings.path);
    portal.streaming().await;
    portal.act(&user("before")).await;
    looked(&portal).await;
    // The next look's event waits for the lock, inside its transaction.
    let lock = open(cluster(), "covered_killed_audit").await;
    run(&lock, "BEGIN; LOCK TABLE public.events IN SHARE MODE").await;
    run(&portal.source, "ALTER PUBLICATION portal_audit DROP TABLE portal.users").await;
    let waits = "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = 'covered_killed_audit' AND wait_event_type = 'Lock'";
    wait_for("the lock", async || value::<bool>(&portal.source, waits).await).await;
    program.kill();
    run(&lock, "COMMIT").await;
    assert_eq!(told(&portal).await, "", "not committed");
    let changed = "SELECT count(*) FROM public.events WHERE event_type = 'coverage_changed'";
    for _ in 0..3 {
        let program = Program::run(&settings.path);
        wait_for("the event", async || value::<i64>(&portal.audit, changed).await > 0).await;
        looked(&portal).await;
        program.kill();
    }
    assert_eq!(value::<i64>(&portal.audit, changed).await, 1, "told once");
    // The first look that was stored before the death is the lower bound.
    let since = "SELECT (holes->0->>'from_lsn')::pg_lsn = (payload->>'from_lsn')::pg_lsn FROM portal_audit.coverage, public.events WHERE event_type = 'coverage_changed'";
    assert!(value::<bool>(&portal.audit, since).await);
    assert_lost_inside(&portal, 0).await;
}
