//! Names as of the log, and what a first snapshot gives: on a portal with surrogate keys, whose rows carry ids.

use crate::support::{Portal, Wishes, cluster, portal, run, value};
use expect_test::expect;

const SCHEMA: &str = include_str!("../portals/surrogate.sql");
const MAPPING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/portals/surrogate.toml");

/// Accounts by number, so that a test can name them.
const ACCOUNTS: &str = "INSERT INTO people.account (id, login, made_at) SELECT ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, 'user' || n, TIMESTAMP '2026-01-01' + n * interval '1 hour' FROM generate_series(1, 5) n;";

async fn surrogate(name: &str, backfill: bool, limits: &str) -> Portal {
    let wishes = Wishes { name, schema: SCHEMA, mapping: MAPPING, backfill, limits };
    portal(cluster(), wishes).await
}

fn account(number: u32) -> String {
    format!("'00000000-0000-0000-0000-{number:012}'")
}

/// Keys whose names stand in rows that are older than the slot, a rename, and a cascade that takes the parent first.
#[tokio::test(flavor = "multi_thread")]
async fn names_are_as_of_the_change() {
    let portal = surrogate("names", false, "names_in_memory = 64").await;
    run(&portal.source, ACCOUNTS).await;
    run(
        &portal.source,
        &format!("INSERT INTO work.team (title, owner_id) VALUES ('atoms', {})", account(1)),
    )
    .await;
    let sidecar = portal.start().await;
    for (member, role) in [(2, 1), (3, 0), (4, 7)] {
        portal
            .act(&format!("INSERT INTO work.team_member VALUES (1, {}, {role})", account(member)))
            .await;
    }
    portal.act("UPDATE work.team SET title = 'molecules'").await;
    portal.act(&format!("DELETE FROM work.team_member WHERE account_id = {}", account(3))).await;
    // In one transaction: a rename, a use of the new name, a second rename.
    portal.act(&format!("BEGIN; UPDATE people.account SET login = 'five' WHERE id = {0}; INSERT INTO work.team_member VALUES (1, {0}, 0); UPDATE people.account SET login = 'cinq' WHERE id = {0}; COMMIT", account(5))).await;
    portal.act("DELETE FROM work.team").await;
    sidecar.stop().await;
    expect![[r#"
        team_member_added  caller= (none)  subject=team/atoms  target=user2  ok
            {"role": "maintainer"}
        team_member_added  caller= (none)  subject=team/atoms  target=user3  ok
            {"role": "member"}
        team_member_added  caller= (none)  subject=team/atoms  target=user4  ok
            {"role": "7"}
        team_renamed  caller= (none)  subject=team/molecules  ok
            {"old_title": "atoms"}
        team_member_deleted  caller= (none)  subject=team/molecules  target=user3  ok
            {}
        team_member_added  caller= (none)  subject=team/molecules  target=five  ok
            {"role": "member"}
        team_member_deleted  caller= (none)  subject=team/molecules  target=user2  ok
            {}
        team_member_deleted  caller= (none)  subject=team/molecules  target=user4  ok
            {}
        team_member_deleted  caller= (none)  subject=team/molecules  target=cinq  ok
            {}
    "#]]
    .assert_eq(&portal.events().await);
}

/// A new session knows what the old one learned, also what it learned in pieces of a large transaction.
#[tokio::test(flavor = "multi_thread")]
async fn names_outlive_the_session_and_their_rows() {
    let limits = "batch_events = 50\nnames_in_memory = 64";
    let portal = surrogate("names_restart", false, limits).await;
    let sidecar = portal.start().await;
    portal.act("BEGIN; INSERT INTO people.account (login) SELECT 'a' || n FROM generate_series(1, 400) n; INSERT INTO work.team (title, owner_id) SELECT 'atoms', id FROM people.account WHERE login = 'a1'; INSERT INTO work.team_member SELECT 1, id, 2 FROM people.account; COMMIT").await;
    sidecar.stop().await;
    let sidecar = portal.start().await;
    portal.act("DELETE FROM work.team").await;
    portal.act("DELETE FROM people.account").await;
    sidecar.stop().await;
    let named = "SELECT count(DISTINCT target) FROM public.events WHERE event_type = 'team_member_deleted' AND subject = 'atoms' AND target LIKE 'a%'";
    assert_eq!(value::<i64>(&portal.audit, named).await, 400);
    let unresolved = "SELECT count(*) FROM public.events WHERE payload->'_audit' ? 'unresolved'";
    assert_eq!(value::<i64>(&portal.audit, unresolved).await, 0);
}

/// Rows that exist become events on request, dated by their own columns, and a second snapshot gives the same ones.
#[tokio::test(flavor = "multi_thread")]
async fn backfill_is_dated_flagged_and_idempotent() {
    let portal = surrogate("backfill", true, "").await;
    run(&portal.source, ACCOUNTS).await;
    run(&portal.source, &format!("INSERT INTO work.team (title, owner_id, created_at) VALUES ('atoms', {0}, '2026-02-03 04:05:06.789+01'), ('undated', {0}, NULL)", account(1))).await;
    run(&portal.audit, "INSERT INTO public.events VALUES (gen_random_uuid(), now(), 'by_hand', '', 's', 't', NULL, true, NULL, '{}'); SELECT portal_audit.adopt()").await;
    let sidecar = portal.start().await;
    portal
        .act(&format!("INSERT INTO work.team (title, owner_id) VALUES ('live', {})", account(2)))
        .await;
    sidecar.stop().await;
    let first = portal.events().await;
    expect![[r#"
        by_hand  caller= ()  subject=t/s  ok  
            {}
        account_created  caller= (none)  subject=user/user1  ok  {"backfill": true}
            {}
        account_created  caller= (none)  subject=user/user2  ok  {"backfill": true}
            {}
        account_created  caller= (none)  subject=user/user3  ok  {"backfill": true}
            {}
        account_created  caller= (none)  subject=user/user4  ok  {"backfill": true}
            {}
        account_created  caller= (none)  subject=user/user5  ok  {"backfill": true}
            {}
        team_created  caller=user1 (row)  subject=team/atoms  ok  {"backfill": true}
            {"owner": "user1"}
        team_created  caller=user1 (row)  subject=team/undated  ok  {"backfill": true}
            {"owner": "user1"}
        team_created  caller=user2 (row)  subject=team/live  ok
            {"owner": "user2"}
    "#]]
    .assert_eq(&first);
    let dated =
        "SELECT timestamp = '2026-02-03 03:05:06.789Z' FROM public.events WHERE subject = 'atoms'";
    assert!(value::<bool>(&portal.audit, dated).await);
    let dated = "SELECT min(timestamp) = '2026-01-01 01:00Z' FROM public.events WHERE event_type = 'account_created'";
    assert!(value::<bool>(&portal.audit, dated).await);

    // Ops begin anew: the slot and progress go, the events stay.
    let free = "SELECT bool_and(NOT active) FROM pg_replication_slots WHERE slot_name = 'portal_audit_backfill'";
    crate::support::wait_for("the slot is free", async || {
        value::<bool>(&portal.source, free).await
    })
    .await;
    run(&portal.source, "SELECT pg_drop_replication_slot('portal_audit_backfill')").await;
    run(&portal.audit, "DELETE FROM portal_audit.progress").await;
    let sidecar = portal.start().await;
    sidecar.stop().await;
    let twice = "SELECT count(*) FROM public.events WHERE subject IN ('atoms', 'undated')";
    assert_eq!(value::<i64>(&portal.audit, twice).await, 2);
    let accounts = "SELECT count(*) FROM public.events WHERE event_type = 'account_created'";
    assert_eq!(value::<i64>(&portal.audit, accounts).await, 5);
}

/// A policy would hide rows from the snapshot without a word; then there is no snapshot.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_policy_is_an_error_and_not_a_smaller_snapshot() {
    let portal = surrogate("policy", true, "").await;
    run(&portal.source, ACCOUNTS).await;
    run(&portal.source, "CREATE ROLE reader_policy LOGIN REPLICATION; GRANT USAGE ON SCHEMA people, work TO reader_policy; GRANT SELECT ON ALL TABLES IN SCHEMA people, work TO reader_policy; ALTER TABLE people.account ENABLE ROW LEVEL SECURITY").await;
    let text = portal.settings_text.replacen(
        "user='postgres' dbname='policy'",
        "user='reader_policy' dbname='policy'",
        1,
    );
    assert_ne!(text, portal.settings_text);
    let settings =
        portal_audit::config::Settings::parse(std::path::Path::new("test.toml"), &text).unwrap();
    let faults = crate::support::Sidecar::start(settings).ended().await;
    assert!(faults[0].contains("row-level security policy"), "{faults:?}");
    assert_eq!(portal.count().await, 0);
}
