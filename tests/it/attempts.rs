//! Failed attempts: each transaction that was rolled back is one event, and no other is, whatever happens to the sidecar meanwhile.

use crate::support::{Portal, Wishes, cluster, open, portal, run, value, wait_for};
use expect_test::expect;
use portal_audit::{connect::Session, sql};

/// The sample portal with the attempt trigger on its users and organizations.
async fn attempted(name: &str) -> Portal {
    let wishes = Wishes { name, limits: "attempt_interval_ms = 20", ..Wishes::default() };
    let portal = portal(cluster(), wishes).await;
    run(&portal.source, sql::attempt()).await;
    run(&portal.source, "CALL portal_audit.attach_attempt('portal.users'); CALL portal_audit.attach_attempt('portal.organizations')").await;
    portal
}

/// Runs a script that the server must refuse.
async fn refused(session: &Session, script: &str) {
    assert!(session.client.batch_execute(script).await.is_err(), "it was not refused: {script}");
    run(session, "ROLLBACK").await;
}

/// Waits until every attempt so far has been decided.
async fn decided(portal: &Portal) {
    portal.catch_up().await;
    let none = "SELECT count(*) = 0 FROM portal_audit.attempts";
    wait_for("the decision of all attempts", async || value::<bool>(&portal.audit, none).await)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolled_back_insert_is_one_event() {
    let portal = attempted("attempt_thread").await;
    let sidecar = portal.start().await;
    run(&portal.source, "BEGIN; SET LOCAL portal.caller = 'wrenn'; INSERT INTO portal.users (username, uid, gid) VALUES ('ada', 1, 1); ROLLBACK").await;
    decided(&portal).await;
    sidecar.stop().await;
    expect![[r#"
        user_insert_failed  caller=wrenn (context)  subject=table/portal.users  FAILED transaction rolled back
            {"operation": "insert", "statements": [{"table": "portal.users", "operation": "insert"}]}
    "#]].assert_eq(&portal.events().await);
}
