//! Changes that are gone are never passed over in silence: what the source still has must join what is written.

use crate::support::{Portal, Sidecar, run, sample, value, wait_for};

const USER: &str = "INSERT INTO portal.users (username, uid, gid) VALUES ('wrenn', 1, 1)";

/// A portal that was followed for one change and is not now.
async fn followed(name: &str) -> Portal {
    let portal = sample(name).await;
    let sidecar = portal.start().await;
    portal.act(USER).await;
    sidecar.stop().await;
    // The walsender ends a moment after its client.
    let free = "SELECT bool_and(NOT active) FROM pg_replication_slots WHERE slot_name = ";
    let free = format!("{free}'{}'", slot(&portal));
    wait_for("the slot is free", async || value::<bool>(&portal.source, &free).await).await;
    portal
}

/// Starts it and gives the fault with which it must end.
async fn fault(portal: &Portal) -> String {
    let faults = Sidecar::start(portal.settings.clone()).ended().await;
    assert_eq!(faults.len(), 1, "{faults:?}");
    faults.join("")
}

fn slot(portal: &Portal) -> String {
    format!("portal_audit_{}", portal.name)
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped() {
    let portal = followed("slot_dropped").await;
    run(&portal.source, &format!("SELECT pg_drop_replication_slot('{}')", slot(&portal))).await;
    let fault = fault(&portal).await;
    assert!(fault.contains("slot \"portal_audit_slot_dropped\" is gone"), "{fault}");
    assert!(fault.ends_with("portal-audit run --accept-gap slot_dropped"), "{fault}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_and_made_again() {
    let portal = followed("slot_again").await;
    let slot = slot(&portal);
    run(&portal.source, &format!("SELECT pg_drop_replication_slot('{slot}')")).await;
    run(&portal.source, "UPDATE portal.users SET state = 'Active'").await;
    run(
        &portal.source,
        &format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"),
    )
    .await;
    let fault = fault(&portal).await;
    assert!(fault.contains("is ahead of the audit database by"), "{fault}");
}

#[tokio::test(flavor = "multi_thread")]
async fn advanced_by_hand() {
    let portal = followed("slot_advanced").await;
    run(&portal.source, "UPDATE portal.users SET state = 'Active'").await;
    let slot = slot(&portal);
    run(
        &portal.source,
        &format!("SELECT pg_replication_slot_advance('{slot}', pg_current_wal_lsn())"),
    )
    .await;
    let fault = fault(&portal).await;
    assert!(fault.contains("those changes are gone"), "{fault}");
    assert_eq!(portal.count().await, 1, "nothing may be written past a hole");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_somebody_else() {
    let portal = sample("slot_foreign").await;
    let slot = slot(&portal);
    run(
        &portal.source,
        &format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"),
    )
    .await;
    let fault = fault(&portal).await;
    assert!(fault.contains("the audit database knows nothing of this source"), "{fault}");
    let slots = format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{slot}'");
    assert_eq!(value::<i64>(&portal.source, &slots).await, 1, "it must not be touched");
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_database_restored_from_a_backup() {
    let portal = followed("audit_restored").await;
    run(&portal.audit, "CREATE TABLE backup AS SELECT * FROM portal_audit.progress").await;
    let sidecar = portal.start().await;
    portal.act("UPDATE portal.users SET state = 'Active'").await;
    sidecar.stop().await;
    let restore =
        "DELETE FROM portal_audit.progress; INSERT INTO portal_audit.progress SELECT * FROM backup";
    run(&portal.audit, restore).await;
    let fault = fault(&portal).await;
    assert!(fault.contains("is ahead of the audit database by"), "{fault}");
}

/// The slot is busy for the others, which wait, and one takes over when the first ends. None mistakes the first one's progress for a hole, and none writes a row twice.
#[tokio::test(flavor = "multi_thread")]
async fn several_sidecars() {
    let portal = sample("several_sidecars").await;
    let first = portal.start().await;
    for round in 0..8 {
        let waiting = Sidecar::start(portal.settings.clone());
        for act in 0..25 {
            let seed = round * 25 + act;
            run(&portal.source, &format!("SELECT activity.act({seed})")).await;
        }
        waiting.stop().await;
    }
    let second = Sidecar::start(portal.settings.clone());
    portal.act("SELECT activity.act(1000)").await;
    first.stop().await;
    portal.act("SELECT activity.act(1001)").await;
    second.stop().await;
    let proof = portal.proof().await;
    assert!(proof.events > 100, "{proof:?}");
    assert_eq!((proof.lost, proof.doubled), (0, 0), "{:#?}", proof.differences);
}

/// The walsender is cut off again and again; the sidecar comes back by itself.
#[tokio::test(flavor = "multi_thread")]
async fn cut_off() {
    let portal = sample("cut_off").await;
    let sidecar = portal.start().await;
    let cut = "SELECT count(pg_terminate_backend(active_pid)) FROM pg_replication_slots WHERE database = 'cut_off' AND active";
    for number in 0..4 {
        wait_for("a walsender to cut off", async || value::<i64>(&portal.source, cut).await == 1)
            .await;
        run(
            &portal.source,
            &format!("INSERT INTO portal.users (username, uid, gid) VALUES ('u{number}', 1, 1)"),
        )
        .await;
    }
    portal.catch_up().await;
    sidecar.stop().await;
    let proof = portal.proof().await;
    assert_eq!((proof.events, proof.lost, proof.doubled), (4, 0, 0), "{:#?}", proof.differences);
}

/// The audit database goes away and comes back. Nothing is confirmed meanwhile, nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn audit_database_refuses_for_a_while() {
    let portal = sample("audit_away").await;
    let sidecar = portal.start().await;
    run(&portal.audit, "ALTER DATABASE audit_away_audit SET default_transaction_read_only = on")
        .await;
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = 'audit_away_audit' AND pid <> pg_backend_pid()";
    assert!(value::<i64>(&portal.audit, cut).await > 0);
    run(&portal.source, USER).await;
    let refused = "SELECT count(*) FILTER (WHERE application_name LIKE 'portal-audit%') > 0 FROM pg_stat_activity WHERE datname = 'audit_away_audit'";
    wait_for("the sidecar to try again", async || value::<bool>(&portal.source, refused).await)
        .await;
    run(&portal.audit, "SET default_transaction_read_only = off; ALTER DATABASE audit_away_audit RESET default_transaction_read_only").await;
    portal.catch_up().await;
    sidecar.stop().await;
    let proof = portal.proof().await;
    assert_eq!((proof.events, proof.lost, proof.doubled), (1, 0, 0), "{:#?}", proof.differences);
}

/// The audit database hangs. The source is let go, so that it could be shut down; and whatever became of the statements that hung, each event is there once.
#[tokio::test(flavor = "multi_thread")]
async fn audit_database_hangs() {
    let wishes = crate::support::Wishes {
        name: "audit_hangs",
        limits: "audit_timeout_seconds = 1",
        ..Default::default()
    };
    let portal = crate::support::portal(crate::support::cluster(), wishes).await;
    let sidecar = portal.start().await;
    run(&portal.audit, "BEGIN; LOCK TABLE public.events").await;
    run(&portal.source, USER).await;
    let free =
        "SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'portal_audit_audit_hangs'";
    wait_for("the source to be let go", async || value::<bool>(&portal.source, free).await).await;
    run(&portal.source, "UPDATE portal.users SET state = 'Active'").await;
    run(&portal.audit, "COMMIT").await;
    portal.catch_up().await;
    sidecar.stop().await;
    let proof = portal.proof().await;
    assert_eq!((proof.events, proof.lost, proof.doubled), (2, 0, 0), "{:#?}", proof.differences);
}

/// A quiet source in a busy cluster: the slot follows, so no log piles up, without a heartbeat table.
#[tokio::test(flavor = "multi_thread")]
async fn quiet_source_beside_a_busy_one() {
    let portal = sample("quiet").await;
    let sidecar = portal.start().await;
    let other = crate::support::open(crate::support::cluster(), "postgres").await;
    let noise = "CREATE TABLE noise AS SELECT n, repeat('x', 500) FROM generate_series(1, 20000) n; DROP TABLE noise";
    run(&other, noise).await;
    let end: String = value(&other, "SELECT pg_current_wal_insert_lsn()::text").await;
    let follows = format!(
        "SELECT confirmed_flush_lsn >= '{end}' FROM pg_replication_slots WHERE database = 'quiet'"
    );
    wait_for("the slot to follow", async || value::<bool>(&portal.source, &follows).await).await;
    let complete = "SELECT complete_to > now() - interval '1 minute' FROM portal_audit.progress";
    assert!(value::<bool>(&portal.audit, complete).await, "a quiet source is complete to now");
    sidecar.stop().await;
}

/// The portal always wins: its shutdown does not wait for us while the audit database answers.
#[tokio::test(flavor = "multi_thread")]
async fn source_is_restarted() {
    use portal_audit::demo::cluster::{Cluster, Shutdown};
    let mut cluster = Cluster::start(&crate::support::installation(), &[]).unwrap();
    let wishes = crate::support::Wishes { name: "own", ..Default::default() };
    let portal = crate::support::portal(&cluster, wishes).await;
    let sidecar = portal.start().await;
    portal.act(USER).await;
    let Portal { settings, settings_text, name, source, audit } = portal;
    drop((source, audit));
    cluster.stop_server(Shutdown::Fast).unwrap();
    // A client that never confirms holds a fast shutdown for ever; the cluster then ends the server by an immediate one.
    let log = std::fs::read_to_string(cluster.socket_dir().join("log")).unwrap();
    assert!(log.contains("received fast shutdown request"), "{log}");
    assert!(!log.contains("received immediate shutdown request"), "{log}");
    cluster.start_server().unwrap();
    cluster.stop_server(Shutdown::Immediate).unwrap();
    cluster.start_server().unwrap();
    let source = crate::support::open(&cluster, "own").await;
    let audit = crate::support::open(&cluster, "own_audit").await;
    let portal = Portal { settings, settings_text, name, source, audit };
    portal.act("UPDATE portal.users SET state = 'Active'").await;
    sidecar.stop().await;
    let proof = portal.proof().await;
    assert_eq!((proof.events, proof.lost, proof.doubled), (2, 0, 0), "{:#?}", proof.differences);
}
