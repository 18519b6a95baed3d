//! Beside the policies: reads that are recorded, and roles from before.

use super::{login, sees, world};
use crate::support::{Sidecar, cluster, run, sample, value};
use portal_audit::{config, connect};

#[tokio::test(flavor = "multi_thread")]
async fn reads_by_people_are_recorded_and_admins_see_it() {
    const NAME: &str = "access_reads";
    let portal = world(NAME, &["paul", "admin"]).await;
    let paul = login(NAME, "paul").await;
    let read = |what: &str, filter: &str| {
        format!("SELECT portal_audit.record_read('{what}', '{filter}', 7) IS NOT NULL")
    };
    assert!(value::<bool>(&paul, &read("log_read", r#"{"caller": "petra"}"#)).await);
    let admin = login(NAME, "admin").await;
    assert!(value::<bool>(&admin, &read("log_exported", "{}")).await);
    const TOLD: &str = "SELECT string_agg(format('%s %s %s %s', event_type, caller, payload ->> 'login', payload - 'login' - '_audit'), E'\n' ORDER BY timestamp) FROM public.events WHERE subject_type = 'audit'";
    assert_eq!(
        value::<String>(&admin, TOLD).await,
        "log_read paul access_reads_paul {\"rows\": 7, \"filter\": {\"caller\": \"petra\"}}\nlog_exported admin access_reads_admin {\"rows\": 7, \"filter\": {}}"
    );
    assert_eq!(sees(&paul, "subject_type = 'audit'").await, 0);
    assert_eq!(
        value::<i64>(&portal.audit, "SELECT size FROM portal_audit.trees WHERE tree = '.own'")
            .await,
        2
    );
    let long = format!(r#"{{"x": "{}"}}"#, "x".repeat(9_000));
    for (what, filter) in [("user_deleted", "{}"), ("log_read", long.as_str())] {
        let refused = paul.client.batch_execute(&read(what, filter)).await.unwrap_err();
        assert_eq!(connect::sqlstate_of(&refused), Some("22023"));
    }
}

/// COPY is refused where policies hold, so the sidecar inserts there; and what others could do with the table before, they still can.
#[tokio::test(flavor = "multi_thread")]
async fn policies_are_in_nobodys_way_who_had_a_privilege_before() {
    const NAME: &str = "access_before";
    let portal = sample(NAME).await;
    run(&portal.audit, &format!("DROP POLICY portal_audit_writes ON public.events; DROP POLICY portal_audit_counts ON public.events; DROP POLICY portal_audit_sees_all ON public.events; DROP POLICY portal_audit_sees_own ON public.events; ALTER TABLE public.events DISABLE ROW LEVEL SECURITY; CREATE ROLE {NAME}_board LOGIN; GRANT SELECT, INSERT, DELETE ON public.events TO {NAME}_board; CREATE ROLE {NAME}_later LOGIN; CREATE ROLE {NAME}_plain LOGIN; GRANT portal_audit_writer TO {NAME}_plain")).await;
    run(&portal.audit, portal_audit::sql::audit()).await;
    run(&portal.audit, portal_audit::sql::audit()).await;
    run(&portal.audit, &format!("GRANT SELECT ON public.events TO {NAME}_later")).await;
    let mut settings = portal.settings.clone();
    settings.audit =
        config::conninfo(&cluster().dsn(&format!("{NAME}_audit"), &format!("{NAME}_plain")))
            .unwrap();
    let sidecar = Sidecar::start(settings);
    portal.streaming().await;
    portal.act("INSERT INTO portal.users (username, uid, gid) SELECT 'user' || i, i, i FROM generate_series(1, 3000) AS i").await;
    portal.act("INSERT INTO portal.users (username, uid, gid) VALUES ('wren', 9001, 9001)").await;
    sidecar.stop().await;
    assert_eq!(sees(&login(NAME, "board").await, "true").await, 3001);
    let removed = login(NAME, "board")
        .await
        .client
        .execute("DELETE FROM public.events WHERE subject = 'wren'", &[])
        .await;
    assert_eq!(removed.unwrap(), 1);
    assert_eq!(sees(&login(NAME, "later").await, "true").await, 0);
}
