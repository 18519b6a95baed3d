//! One process follows many sources, and one that fails never ends another.

use crate::support::{Sidecar, Wishes, cluster, portal, run, sample, value, wait_for};
use portal_audit::config::Settings;
use std::path::Path;

const USER: &str = "INSERT INTO portal.users (username, uid, gid) VALUES ('wrenn', 1, 1)";

#[tokio::test(flavor = "multi_thread")]
async fn one_down_never_stops_another() {
    let (one, other) = (sample("source_one").await, sample("source_other").await);
    let source = |name: &str, database: &str| {
        let dsn = cluster().dsn(database, "postgres");
        format!(
            "[[source]]\nname = {name:?}\ndsn = {dsn:?}\nslot = \"portal_audit_{database}\"\nmapping = \"merge-reference\"\n"
        )
    };
    // One without a publication, which needs a human, and one without a server, which may come back.
    let nowhere = "[[source]]\nname = \"nowhere\"\ndsn = \"host=/nowhere dbname=x user=y\"\nmapping = \"merge-reference\"\n";
    run(&other.source, "CREATE DATABASE source_bare").await;
    let others =
        [source("source_bare", "source_bare"), source("other", "source_other"), nowhere.to_owned()];
    let (audit_and_one, limits) = one.settings_text.split_once("[limits]").unwrap();
    let text = format!("{audit_and_one}{}[limits]{limits}", others.concat());
    let settings = Settings::parse(Path::new("test.toml"), &text).unwrap();
    let names: Vec<&str> = settings.sources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(names, ["source_one", "source_bare", "other", "nowhere"]);

    let sidecar = Sidecar::start(settings);
    let streaming = "SELECT count(*) = 2 FROM portal_audit.progress WHERE state = 'streaming'";
    wait_for("two streams", async || value::<bool>(&one.audit, streaming).await).await;
    run(&one.source, USER).await;
    run(&other.source, USER).await;
    let both = "SELECT count(DISTINCT payload->'_audit'->>'source') = 2 FROM public.events WHERE subject = 'wrenn'";
    wait_for("an event of each", async || value::<bool>(&one.audit, both).await).await;
    let ids = "SELECT count(DISTINCT event_uuid) FROM public.events";
    assert_eq!(
        value::<i64>(&one.audit, ids).await,
        2,
        "equal rows of two databases are two events"
    );
    let faults = sidecar.stop_with_faults().await;
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(
        faults[0]
            .contains("publication \"portal_audit\" does not exist in database \"source_bare\""),
        "{faults:?}"
    );
}

/// A server that works through a backlog answers with its clock of now: that must not be taken for how far we have read.
#[tokio::test(flavor = "multi_thread")]
async fn complete_to_does_not_run_ahead_of_a_backlog() {
    let limits = "batch_events = 20\nbatch_bytes = 20000";
    let portal = portal(cluster(), Wishes { name: "backlog", limits, ..Wishes::default() }).await;
    run(&portal.source, "INSERT INTO portal.users (username, uid, gid) VALUES ('wren', 1, 1)")
        .await;
    let sidecar = portal.start().await;
    sidecar.stop().await;
    let backlog = "DO $$ BEGIN FOR n IN 1..5000 LOOP UPDATE portal.users SET name = n::text; COMMIT; END LOOP; END $$";
    run(&portal.source, backlog).await;
    let before: String = value(&portal.source, "SELECT clock_timestamp()::text").await;
    run(&portal.source, "UPDATE portal.users SET name = 'the last'").await;
    let end: String = value(&portal.source, "SELECT pg_current_wal_insert_lsn()::text").await;

    let honest = format!(
        "SELECT complete_to <= '{before}' OR end_lsn >= '{end}' FROM portal_audit.progress"
    );
    let all = "SELECT count(*) = 5001 FROM public.events WHERE event_type = 'user_updated'";
    let sidecar = portal.start().await;
    wait_for("the backlog is read", async || {
        assert!(value::<bool>(&portal.audit, &honest).await, "complete_to says more than was read");
        value::<bool>(&portal.audit, all).await
    })
    .await;
    let complete = format!("SELECT complete_to > '{before}' FROM portal_audit.progress");
    wait_for("complete", async || value::<bool>(&portal.audit, &complete).await).await;
    sidecar.stop().await;
}
