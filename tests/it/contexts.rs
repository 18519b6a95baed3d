//! Contexts of other programs: a logical message of theirs names the caller, and whatever stands in one, it never does harm.

use crate::support::{Portal, Wishes, cluster, portal, run};
use expect_test::expect;

const MAPPING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/portals/contexts.toml");

async fn contexts(name: &str) -> Portal {
    let wishes = Wishes { name, mapping: MAPPING, ..Wishes::default() };
    let portal = portal(cluster(), wishes).await;
    run(
        &portal.source,
        "INSERT INTO portal.users (username, uid, gid) VALUES ('ada', 7, 7), ('wrenn', 8, 8);
        INSERT INTO portal.organizations (name, oid) VALUES ('atoms', 1);
        INSERT INTO portal.projects (name, gid, organization) VALUES ('glow', 1, 'atoms')",
    )
    .await;
    portal
}

/// An update of the organization, told apart by its category, with messages beside it in one transaction.
async fn act(portal: &Portal, category: &str, before: &[(&str, &str)], after: &[(&str, &str)]) {
    let message = |(prefix, content): &(&str, &str)| {
        format!("SELECT pg_logical_emit_message(true, '{prefix}', '{content}');")
    };
    let before: String = before.iter().map(message).collect();
    let after: String = after.iter().map(message).collect();
    run(&portal.source, &format!("BEGIN; {before} UPDATE portal.organizations SET category = '{category}'; {after} COMMIT")).await;
}

const ADA: (&str, &str) = ("_bemi", r#"{"session": {"uid": 7}, "SQL": "UPDATE \"x\""}"#);
const SEQUIN: &str = "sequin:transaction_annotations.set";

#[tokio::test(flavor = "multi_thread")]
async fn contexts_of_others_name_the_caller() {
    let portal = contexts("contexts").await;
    let sidecar = portal.start().await;
    let wrenn = ("our.app", r#"{"who": "wrenn"}"#);
    let ours = (
        "portal_audit.ctx",
        r#"{"caller": "opsduty", "s": "portal", "t": "organizations", "op": "UPDATE"}"#,
    );
    let elsewhere = (
        "portal_audit.ctx",
        r#"{"caller": "opsduty", "s": "portal", "t": "users", "op": "UPDATE"}"#,
    );
    act(&portal, "a key becomes a name", &[ADA], &[]).await;
    act(&portal, "after its row", &[], &[ADA]).await;
    act(&portal, "a usual key", &[(SEQUIN, r#"{"username": "thistle"}"#)], &[]).await;
    act(&portal, "a number stands for itself", &[(SEQUIN, r#"{"user_id": 7}"#)], &[]).await;
    act(&portal, "by a block", &[wrenn], &[]).await;
    act(&portal, "of a name and a key of the same", &[("our.app", r#"{"who": "ada"}"#)], &[ADA])
        .await;
    act(&portal, "they disagree", &[wrenn], &[ADA]).await;
    act(&portal, "they disagree, and ours is about it", &[wrenn, elsewhere], &[ours, ADA]).await;
    act(
        &portal,
        "cleared",
        &[(SEQUIN, r#"{"user": "ada"}"#)],
        &[("sequin:transaction_annotations.clear", "")],
    )
    .await;
    act(&portal, "an unknown key", &[("_bemi", r#"{"session": {"uid": 99}}"#)], &[]).await;
    // The name as it was before the transaction, whose first change it is.
    run(&portal.source, "BEGIN; UPDATE portal.users SET username = 'lovelace' WHERE uid = 7; UPDATE portal.organizations SET category = 'as of then'; SAVEPOINT a; SELECT pg_logical_emit_message(true, '_bemi', '{\"session\": {\"uid\": 7}}'); RELEASE a; COMMIT").await;
    act(&portal, "as of now", &[], &[ADA]).await;
    // A row is never outranked, and what a savepoint rolled back was never said.
    run(&portal.source, "BEGIN; SELECT pg_logical_emit_message(true, 'our.app', '{\"who\": \"eve\"}'); INSERT INTO portal.experiments (project, name, creator) VALUES ('glow', 'e1', 'ada'); COMMIT").await;
    run(&portal.source, "BEGIN; SAVEPOINT a; SELECT pg_logical_emit_message(true, 'our.app', '{\"who\": \"eve\"}'); ROLLBACK TO a; UPDATE portal.organizations SET category = 'never said'; COMMIT").await;
    portal.catch_up().await;
    sidecar.stop().await;
    expect![[r#"
        org_updated  caller=ada (context)  subject=organization/atoms  ok
            {"category": "a key becomes a name"}
        org_updated  caller=ada (context)  subject=organization/atoms  ok
            {"category": "after its row"}
        org_updated  caller=thistle (context)  subject=organization/atoms  ok
            {"category": "a usual key"}
        org_updated  caller=7 (context)  subject=organization/atoms  ok
            {"category": "a number stands for itself"}
        org_updated  caller=wrenn (context)  subject=organization/atoms  ok
            {"category": "by a block"}
        org_updated  caller=ada (context)  subject=organization/atoms  ok
            {"category": "of a name and a key of the same"}
        org_updated  caller= (none)  subject=organization/atoms  ok
            {"category": "they disagree"}
        org_updated  caller=opsduty (context)  subject=organization/atoms  ok
            {"category": "they disagree, and ours is about it"}
        org_updated  caller= (none)  subject=organization/atoms  ok
            {"category": "cleared"}
        org_updated  caller=99 (context)  subject=organization/atoms  ok  {"unresolved": true}
            {"category": "an unknown key"}
        org_updated  caller=ada (context)  subject=organization/atoms  ok
            {"category": "as of then"}
        org_updated  caller=lovelace (context)  subject=organization/atoms  ok
            {"category": "as of now"}
        experiment_created  caller=ada (row)  subject=experiment/e1  ok
            {}
        org_updated  caller= (none)  subject=organization/atoms  ok
            {"category": "never said"}
    "#]]
    .assert_eq(&portal.events().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forged_or_broken_does_no_harm() {
    let portal = contexts("contexts_forged").await;
    let sidecar = portal.start().await;
    let deep = format!(r#"{{"who": "eve", "x": {}{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
    let huge = format!(r#"{{"who": "{}"}}"#, "e".repeat(3_000_000));
    for (category, content) in [
        ("empty", ""),
        ("half", "{"),
        ("deep", &deep),
        ("huge", &huge),
        ("twice", r#"{"who": "ada", "who": "eve"}"#),
        ("nul", r#"{"who": "eve\u0000"}"#),
        ("object", r#"{"who": {"who": "eve"}}"#),
        ("secret", r#"{"who": "ghp_0123456789"}"#),
        ("long", &format!(r#"{{"who": "{}"}}"#, "e".repeat(9_000))),
    ] {
        let messages = ["our.app", "_bemi", SEQUIN].map(|prefix| (prefix, content));
        act(&portal, category, &messages, &[]).await;
    }
    run(&portal.source, "BEGIN; SELECT pg_logical_emit_message(true, 'our.app', '\\xff00fe'::bytea), pg_logical_emit_message(true, '_bemi', '\\x00'::bytea), pg_logical_emit_message(true, 'portal_audit.ctx', '\\xff'::bytea); UPDATE portal.organizations SET category = 'bytes'; COMMIT").await;
    // Ours is read with its NUL, so it is shown; a table that is emptied has a caller too.
    act(&portal, "ours", &[("portal_audit.ctx", r#"{"caller": "e\u0000ve"}"#)], &[]).await;
    run(&portal.source, r#"BEGIN; SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller": "e\u0000ve"}'); TRUNCATE portal.experiments CASCADE; COMMIT"#).await;
    portal.catch_up().await;
    sidecar.stop().await;
    let long = "e".repeat(900);
    expect![[r#"
        org_updated  caller= (none)  subject=organization/atoms  ok
            {"category": "empty"}
        org_updated  caller= (none)  subject=organization/atoms  ok
            {"category": "half"}
        org_updated  caller= (none)  subject=organization/atoms  ok
            {"category": "deep"}
        org_updated  caller= (none)  subject=organization/atoms  ok
            {"category": "huge"}
        org_updated  caller= (none)  subject=organization/atoms  ok
            {"category": "twice"}
        org_updated  caller= (none)  subject=organization/atoms  ok
            {"category": "nul"}
        org_updated  caller= (none)  subject=organization/atoms  ok
            {"category": "object"}
        org_updated  caller=[redacted] (context)  subject=organization/atoms  ok  {"redacted": true}
            {"category": "secret"}
        org_updated  caller=e × 900 eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee… sha256:51b2c77745924a3e (context)  subject=organization/atoms  ok  {"truncated": true}
            {"category": "long"}
        org_updated  caller= (none)  subject=organization/atoms  ok
            {"category": "bytes"}
        org_updated  caller=e\u0000ve (context)  subject=organization/atoms  ok  {"escaped": true}
            {"category": "ours"}
        table_truncated  caller=e\u0000ve (context)  subject=table/portal.experiments  ok  {"escaped": true}
            {"cascade": true, "restart_identity": false}
    "#]].assert_eq(&portal.events().await.replace(&long, "e × 900 "));
}
