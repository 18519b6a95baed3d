//! The publication is gone, made again, renamed or misspelt: PostgreSQL 14 to 17 stop the stream for good, 18 passes over the changes without a word.

use crate::{
    covered::{change, looked, told, user, watched},
    support::{Portal, Sidecar, Wishes, cluster, portal, run, value, wait_for},
};
use portal_audit::{config::Settings, sql};
use std::path::Path;

async fn version(portal: &Portal) -> i32 {
    value(&portal.source, "SELECT current_setting('server_version_num')::int").await
}

async fn free(portal: &Portal) {
    let slot = &portal.settings.sources[0].slot;
    let free = format!("SELECT NOT active FROM pg_replication_slots WHERE slot_name = '{slot}'");
    wait_for("the slot is free", async || value::<bool>(&portal.source, &free).await).await;
}

/// A sidecar that stops with the position and the way on, and that way, taken.
async fn pass_over(portal: &Portal, sidecar: Sidecar, find: &str) -> Sidecar {
    let faults = sidecar.ended().await;
    assert_eq!(faults.len(), 1, "{faults:?}");
    let fault = faults.join("");
    assert!(fault.contains("publication \"portal_audit\" did not exist"), "{fault}");
    let lsn: String = value(
        &portal.source,
        &format!("SELECT substring($${fault}$$ FROM 'change at ([0-9A-F]+/[0-9A-F]+) was')"),
    )
    .await;
    assert!(
        value::<bool>(
            &portal.source,
            &format!("SELECT '{lsn}'::pg_lsn <= pg_current_wal_insert_lsn()")
        )
        .await
    );
    run(&portal.source, find).await;
    free(portal).await;
    // To wait does not help: it is the past that cannot be read.
    let again = Sidecar::start(portal.settings.clone()).ended().await.join("");
    assert!(again.contains("SELECT pg_replication_slot_advance("), "{again}");
    free(portal).await;
    let slot = &portal.settings.sources[0].slot;
    run(
        &portal.source,
        &format!("SELECT pg_replication_slot_advance('{slot}', pg_current_wal_lsn())"),
    )
    .await;
    let refused = Sidecar::start(portal.settings.clone()).ended().await.join("");
    assert!(refused.contains("--accept-gap"), "{refused}");
    let sidecar = Sidecar::start_accepting(portal.settings.clone());
    let gap = "SELECT count(*) = 1 FROM public.events WHERE event_type = 'audit_gap'";
    wait_for("the gap", async || value::<bool>(&portal.audit, gap).await).await;
    sidecar
}

/// Follows a portal to a first event and a look, and loses its publication by `lose`, running or stopped; `find` brings it back. Between the two one change is lost.
async fn lost_and_found(portal: &Portal, is_running: bool, lose: &str, find: &str) {
    let sidecar = portal.start().await;
    portal.act(&user("before")).await;
    looked(portal).await;
    let sidecar = if is_running {
        change(portal, lose).await;
        assert!(
            told(portal).await.contains("not covered: publication \"portal_audit\" does not exist")
        );
        Some(sidecar)
    } else {
        sidecar.stop().await;
        free(portal).await;
        run(&portal.source, lose).await;
        None
    };
    run(&portal.source, &user("lost")).await;
    let sidecar = sidecar.unwrap_or_else(|| Sidecar::start(portal.settings.clone()));
    let sidecar = if version(portal).await < 180_000 {
        pass_over(portal, sidecar, find).await
    } else {
        let holes = "SELECT jsonb_array_length(holes) > 0 FROM portal_audit.coverage";
        wait_for("the hole", async || value::<bool>(&portal.audit, holes).await).await;
        portal.catch_up().await;
        run(&portal.source, find).await;
        sidecar
    };
    looked(portal).await;
    portal.act(&user("after")).await;
    let told = told(portal).await;
    assert!(told.contains("publication portal_audit"), "{told}");
    let hole = "SELECT holes = '[]' FROM portal_audit.coverage";
    assert!(value::<bool>(&portal.audit, hole).await);
    sidecar.stop().await;
    let proof = portal.proof().await;
    assert_eq!((proof.events, proof.lost, proof.doubled), (2, 1, 0), "{:#?}", proof.differences);
}

const DROP: &str = "DROP PUBLICATION portal_audit";

#[tokio::test(flavor = "multi_thread")]
async fn dropped_while_it_is_read() {
    let portal = watched("publication_dropped").await;
    let source = sql::source(&portal.settings.sources[0]);
    lost_and_found(&portal, true, DROP, &source).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_while_nobody_reads() {
    let portal = watched("publication_stopped").await;
    let source = sql::source(&portal.settings.sources[0]);
    lost_and_found(&portal, false, DROP, &source).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn renamed() {
    let portal = watched("publication_renamed").await;
    let (there, back) = (
        "ALTER PUBLICATION portal_audit RENAME TO other",
        "ALTER PUBLICATION other RENAME TO portal_audit",
    );
    lost_and_found(&portal, true, there, back).await;
}

/// Dropped and made again between two looks, with nothing changed meanwhile: all goes on, and it is told.
#[tokio::test(flavor = "multi_thread")]
async fn made_again_at_once() {
    let portal = watched("publication_again").await;
    let source = sql::source(&portal.settings.sources[0]);
    let sidecar = portal.start().await;
    portal.act(&user("before")).await;
    looked(&portal).await;
    change(&portal, &format!("BEGIN; {DROP}; {}", source.replace("\nBEGIN;", ""))).await;
    portal.act(&user("after")).await;
    looked(&portal).await;
    let told = told(&portal).await;
    assert!(told.contains("oid N -> N") && told.contains("missing: "), "{told}");
    sidecar.stop().await;
    let proof = portal.proof().await;
    assert_eq!((proof.events, proof.lost, proof.doubled), (2, 0, 0), "{:#?}", proof.differences);
}

/// At the first start nothing is followed yet, so nothing is lost by refusing.
#[tokio::test(flavor = "multi_thread")]
async fn refused_at_the_first_start() {
    let portal = watched("publication_first").await;
    let refusal = async || {
        let faults = Sidecar::start(portal.settings.clone()).ended().await;
        let slots =
            "SELECT count(*) FROM pg_replication_slots WHERE database = 'publication_first'";
        assert_eq!(value::<i64>(&portal.source, slots).await, 0, "and no slot is left");
        faults.join("")
    };
    run(&portal.source, DROP).await;
    let fault = refusal().await;
    assert!(fault.contains("publication \"portal_audit\" does not exist in database"), "{fault}");
    run(&portal.source, "CREATE PUBLICATION portal_audit FOR ALL TABLES").await;
    let fault = refusal().await;
    assert!(fault.contains("FOR ALL TABLES") && fault.contains("secrets"), "{fault}");
    run(&portal.source, "DROP PUBLICATION portal_audit; CREATE PUBLICATION portal_audit FOR TABLE portal.users WITH (publish = 'insert')").await;
    let fault = refusal().await;
    assert!(fault.contains("does not publish update, delete, truncate"), "{fault}");
}

/// Settings that are new are wrong themselves: the source waits for them to be set right.
#[tokio::test(flavor = "multi_thread")]
async fn misspelt_in_the_settings() {
    let portal = watched("publication_misspelt").await;
    let sidecar = portal.start().await;
    portal.act(&user("before")).await;
    looked(&portal).await;
    sidecar.stop().await;
    free(&portal).await;
    let text =
        portal.settings_text.replacen("mapping = ", "publication = \"portal_adit\"\nmapping = ", 1);
    let settings = Settings::parse(Path::new("test.toml"), &text).unwrap();
    let fault = Sidecar::start(settings).ended().await.join("");
    assert!(fault.contains("publication \"portal_adit\" does not exist"), "{fault}");
    run(&portal.source, &user("meanwhile")).await;
    let sidecar = portal.start().await;
    portal.act(&user("after")).await;
    sidecar.stop().await;
    let proof = portal.proof().await;
    assert_eq!((proof.events, proof.lost, proof.doubled), (3, 0, 0), "{:#?}", proof.differences);
}

/// What is no ordinary table is not in the log, or not for us.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_followed_is_refused() {
    for (name, sql, says) in [
        ("unlogged", "CREATE UNLOGGED TABLE portal.t (id INT PRIMARY KEY)", "is unlogged"),
        ("view", "CREATE VIEW portal.t AS SELECT 1 AS id", "portal.t is a view"),
        (
            "matview",
            "CREATE MATERIALIZED VIEW portal.t AS SELECT 1 AS id",
            "is a materialized view",
        ),
        (
            "foreign",
            "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE portal.t (id INT) SERVER s",
            "is a foreign table",
        ),
        ("sequence", "CREATE SEQUENCE portal.t", "not a table"),
        ("temporary", "CREATE TEMPORARY TABLE t (id INT PRIMARY KEY)", "has no table \"portal.t\""),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mapping = folder.path().join("mapping.toml");
        std::fs::write(&mapping, "[[event]]\ntype = \"t_created\"\ntable = \"portal.t\"\non = \"insert\"\nsubject = \"id\"\nsubject_type = \"t\"\ndescribe = \"x\"\nvisible_to = [\"admin\"]\nretention = \"user\"\n").unwrap();
        let database = format!("unfit_{name}");
        let schema = "CREATE SCHEMA portal; CREATE TABLE portal.t (id INT PRIMARY KEY)";
        let mapping = mapping.to_str().unwrap();
        let wishes = Wishes { name: &database, schema, mapping, ..Wishes::default() };
        let portal = portal(cluster(), wishes).await;
        run(&portal.source, &format!("DROP TABLE portal.t; {sql}")).await;
        let fault = Sidecar::start(portal.settings.clone()).ended().await.join("");
        assert!(fault.contains(says), "{name}: {fault}");
    }
}
