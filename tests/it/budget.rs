//! The slot may keep only so much of the source's log. Beyond, it is given up, the gap is recorded once, and the sidecar goes on by itself; but no slot goes that somebody reads, or that is not ours.

use crate::support::{
    Portal, Sidecar, Wishes, installation, open,
    program::{Program, SettingsFile},
    run,
    servers::{Servers, Wanted},
    value, wait_for,
};
use portal_audit::{
    config,
    demo::cluster::{Cluster, Shutdown},
    lsn::Lsn,
    status::{self, SourceStatus},
    wire::{Connection, FrameReader, StatusWriter},
};

/// 40 MB: three segments of the log and a half.
const LIMITS: &str = "wal_budget_bytes = 40_000_000\nwal_check_interval_ms = 20\nretry_max_seconds = 1\naudit_timeout_seconds = 2";
const SLOTS: &str =
    "SELECT coalesce(string_agg(slot_name, ' ' ORDER BY slot_name), '') FROM pg_replication_slots";
const GAPS: &str = "SELECT count(*) FROM public.events WHERE event_type = 'audit_gap'";

fn user(name: &str) -> String {
    format!("INSERT INTO portal.users (username, uid, gid) VALUES ('{name}', 1, 1)")
}

/// Lets the source's log grow by about so many segments of 16 MB.
async fn grow(source: &portal_audit::connect::Session, segments: u32) {
    for _ in 0..segments {
        run(source, "CREATE TABLE noise (n INT)").await;
        run(source, "DROP TABLE noise").await;
        run(source, "SELECT pg_switch_wal()").await;
    }
}

async fn own(name: &str, limits: &str) -> (Cluster, Portal) {
    let cluster = Cluster::start(&installation(), &[]).unwrap();
    let wishes = Wishes { name, limits, ..Wishes::default() };
    let portal = crate::support::portal(&cluster, wishes).await;
    (cluster, portal)
}

async fn slots_are(portal: &Portal, expected: &str) {
    wait_for(&format!("slots {expected:?}"), async || {
        value::<String>(&portal.source, SLOTS).await == expected
    })
    .await;
}

async fn status_of(portal: &Portal) -> SourceStatus {
    status::status(&portal.settings).await.unwrap().remove(0)
}

/// One gap, with the reason, and nothing is missing but what lies in it.
async fn one_gap(portal: &Portal, lost: &[&str]) {
    let reasons = "SELECT string_agg(payload->>'reason', ' ') FROM public.events WHERE event_type = 'audit_gap'";
    assert_eq!(
        value::<Option<String>>(&portal.audit, reasons).await.as_deref(),
        Some("wal_budget")
    );
    let proof = portal.proof().await;
    assert_eq!((proof.lost, proof.doubled), (lost.len() as u64, 0), "{:#?}", proof.differences);
    for name in lost {
        let inside = format!(
            "SELECT count(*) FROM portal.users, (VALUES ('{}'::timestamptz, '{}'::timestamptz)) AS gap (begins, ends) WHERE username = '{name}' AND created BETWEEN begins AND ends",
            value::<String>(&portal.audit, "SELECT from_time::text FROM portal_audit.gaps").await,
            value::<String>(&portal.audit, "SELECT to_time::text FROM portal_audit.gaps").await,
        );
        assert_eq!(value::<i64>(&portal.source, &inside).await, 1, "{name} is not in the gap");
        let told = proof.differences.iter().any(|line| line.contains(&format!("\"{name}\"")));
        assert!(told, "{name}: {:#?}", proof.differences);
    }
    assert!(proof.events > 0, "{proof:?}");
}

/// The audit database is away for hours; the program is killed and started anew meanwhile, so that it knows nothing but what stands on the source.
#[tokio::test(flavor = "multi_thread")]
async fn given_up_while_the_audit_database_is_away() {
    // Its role may do no more than it must.
    let wanted = Wanted { limits: LIMITS, roles: ("follower", ""), ..Wanted::default() };
    let (mut servers, portal) = Servers::start("budget_away", wanted).await;
    let settings = SettingsFile::new(&portal);
    let program = Program::run(&settings.path);
    portal.streaming().await;
    portal.act(&user("before")).await;
    servers.audit.stop_server(Shutdown::Immediate).unwrap();
    run(&portal.source, &user("lost")).await;
    grow(&portal.source, 1).await;
    slots_are(&portal, "portal_audit_budget_away").await;
    program.kill();
    let program = Program::run(&settings.path);
    grow(&portal.source, 3).await;
    slots_are(&portal, "portal_audit_budget_away_released").await;
    // Nothing is kept any more, and nothing is forgotten by a server that crashes now.
    let keeps = "SELECT count(restart_lsn) FROM pg_replication_slots";
    assert_eq!(value::<i64>(&portal.source, keeps).await, 0);
    program.kill();
    servers.source.stop_server(Shutdown::Immediate).unwrap();
    servers.source.start_server().unwrap();
    servers.audit.start_server().unwrap();
    let portal = servers.portal().await;
    assert_eq!(status_of(&portal).await.state, "released");
    let program = Program::run(&settings.path);
    wait_for("the gap", async || value::<i64>(&portal.audit, GAPS).await == 1).await;
    portal.act(&user("after")).await;
    assert!(program.terminate().success());
    slots_are(&portal, "portal_audit_budget_away").await;
    let program = Program::run(&settings.path);
    portal.act(&user("later")).await;
    assert!(program.terminate().success());
    one_gap(&portal, &["lost"]).await;
}

/// The audit database answers and is too slow. Our own stream is ended first.
#[tokio::test(flavor = "multi_thread")]
async fn given_up_under_a_stream_of_ours() {
    let limits = LIMITS.replace("audit_timeout_seconds = 2", "audit_timeout_seconds = 60");
    let (_cluster, portal) = own("budget_slow", &limits).await;
    let sidecar = portal.start().await;
    portal.act(&user("before")).await;
    run(&portal.audit, "BEGIN; LOCK TABLE public.events IN SHARE MODE").await;
    run(&portal.source, &user("lost")).await;
    let hangs = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    wait_for("the write to hang", async || value::<bool>(&portal.source, hangs).await).await;
    grow(&portal.source, 4).await;
    slots_are(&portal, "portal_audit_budget_slow_released").await;
    // What was being written must not come after all, beside a gap that says that it is missing.
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    value::<i64>(&portal.source, cut).await;
    run(&portal.audit, "COMMIT").await;
    wait_for("the gap", async || value::<i64>(&portal.audit, GAPS).await == 1).await;
    portal.act(&user("after")).await;
    sidecar.stop().await;
    one_gap(&portal, &["lost"]).await;
}

/// Without room for a marker the slot goes all the same, and the program that runs knows.
#[tokio::test(flavor = "multi_thread")]
async fn given_up_without_room_for_a_marker() {
    let settings = [("max_replication_slots", "1")];
    let wanted = Wanted { limits: LIMITS, source: &settings, ..Wanted::default() };
    let (mut servers, portal) = Servers::start("budget_full", wanted).await;
    let sidecar = portal.start().await;
    portal.act(&user("before")).await;
    servers.audit.stop_server(Shutdown::Immediate).unwrap();
    run(&portal.source, &user("lost")).await;
    grow(&portal.source, 4).await;
    // The place that the slot had is the marker's.
    slots_are(&portal, "portal_audit_budget_full_released").await;
    servers.audit.start_server().unwrap();
    let portal = servers.portal().await;
    wait_for("the gap", async || value::<i64>(&portal.audit, GAPS).await == 1).await;
    portal.act(&user("after")).await;
    sidecar.stop().await;
    one_gap(&portal, &["lost"]).await;
}

/// Reads a slot as somebody else would, and confirms nothing.
async fn read_slot(cluster: &Cluster, portal: &Portal) -> (FrameReader, StatusWriter) {
    let conninfo = config::conninfo(&cluster.dsn(&portal.name, "postgres")).unwrap();
    let connection = Connection::connect(&conninfo, "UTF8").await.unwrap();
    let options = [("proto_version", "1".to_owned()), ("publication_names", "portal_audit".into())];
    let slot = format!("portal_audit_{}", portal.name);
    connection.start_replication(&slot, Lsn::ZERO, &options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_somebody_else_reads_stays() {
    let (cluster, portal) = own("budget_read", LIMITS).await;
    let sidecar = portal.start().await;
    portal.act(&user("before")).await;
    sidecar.stop().await;
    wait_for("the slot to be free", async || {
        value::<bool>(&portal.source, "SELECT NOT active FROM pg_replication_slots").await
    })
    .await;
    let reader = read_slot(&cluster, &portal).await;
    grow(&portal.source, 4).await;
    let sidecar = Sidecar::start(portal.settings.clone());
    looked(&portal, 5).await;
    assert_eq!(value::<String>(&portal.source, SLOTS).await, "portal_audit_budget_read");
    drop(reader);
    sidecar.stop().await;
}

/// Waits until the keeper has looked at the slot this often: each time in a session of its own.
async fn looked(portal: &Portal, times: i64) {
    let sessions = "SELECT sessions FROM pg_stat_database WHERE datname = current_database()";
    let before: i64 = value(&portal.source, sessions).await;
    wait_for("the keeper's looks", async || {
        value::<i64>(&portal.source, sessions).await >= before + times
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_not_ours_stays() {
    let (_cluster, portal) = own("budget_foreign", LIMITS).await;
    let make =
        "SELECT pg_create_logical_replication_slot('portal_audit_budget_foreign', 'pgoutput')";
    run(&portal.source, make).await;
    grow(&portal.source, 4).await;
    let faults = Sidecar::start(portal.settings.clone()).ended().await;
    assert!(faults.join("").contains("the audit database knows nothing of this source"));
    assert_eq!(value::<String>(&portal.source, SLOTS).await, "portal_audit_budget_foreign");
}

/// With `warn` the slot stays, and all of it is told: at 50 %, at 80 % and beyond. Then nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn warned_of_and_kept() {
    let limits = format!("{LIMITS}\nwal_budget_action = \"warn\"");
    let (_cluster, portal) = own("budget_warn", &limits).await;
    let sidecar = portal.start().await;
    portal.act(&user("before")).await;
    sidecar.stop().await;
    assert_eq!(status_of(&portal).await.warnings, Vec::<String>::new());
    run(&portal.source, &user("kept")).await;
    let mut told = Vec::new();
    for _ in 0..4 {
        grow(&portal.source, 1).await;
        let status = status_of(&portal).await;
        let percent = status.retained_bytes.unwrap() * 100 / status.budget_bytes;
        assert_eq!(status.warnings.len(), usize::from(percent >= 50), "{status:?}");
        assert!(status.warnings.iter().all(|told| told.contains(&format!("{percent} %"))));
        told.extend(status.warnings);
    }
    assert!(told.len() >= 2, "{told:?}");
    let sidecar = portal.start().await;
    portal.act(&user("after")).await;
    sidecar.stop().await;
    let proof = portal.proof().await;
    assert_eq!((proof.events, proof.lost, proof.doubled), (3, 0, 0), "{:#?}", proof.differences);
}

/// The server's own limit comes near, and is passed: told before the slot is gone.
#[tokio::test(flavor = "multi_thread")]
async fn the_servers_own_limit_is_told() {
    let cluster = Cluster::start(&installation(), &[("max_slot_wal_keep_size", "64MB")]).unwrap();
    let wishes = Wishes { name: "budget_server", ..Wishes::default() };
    let portal = crate::support::portal(&cluster, wishes).await;
    let sidecar = portal.start().await;
    portal.act(&user("before")).await;
    sidecar.stop().await;
    run(&portal.source, &user("kept")).await;
    let mut told = Vec::new();
    for _ in 0..12 {
        let status = status_of(&portal).await;
        told.extend(status.warnings);
        if status.wal_status.as_deref() == Some("unreserved") {
            break;
        }
        grow(&portal.source, 1).await;
    }
    let told = told.join("\n");
    assert!(told.contains("more bytes (max_slot_wal_keep_size)"), "{told}");
    assert!(told.contains("Raise max_slot_wal_keep_size"), "{told}");
    let sidecar = portal.start().await;
    portal.act(&user("after")).await;
    sidecar.stop().await;
    let proof = portal.proof().await;
    assert_eq!((proof.events, proof.lost, proof.doubled), (3, 0, 0), "{:#?}", proof.differences);
}

/// Killed between the marker and the slot's end: the slot is still there, so nothing is lost, and the marker goes. A slot that is dropped by hand later is refused as ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_marker_beside_its_slot_means_nothing() {
    let (cluster, portal) = own("budget_half", "").await;
    let sidecar = portal.start().await;
    portal.act(&user("before")).await;
    sidecar.stop().await;
    run(
        &portal.source,
        "SELECT pg_create_physical_replication_slot('portal_audit_budget_half_released')",
    )
    .await;
    run(&portal.source, &user("kept")).await;
    let sidecar = portal.start().await;
    portal.act(&user("after")).await;
    slots_are(&portal, "portal_audit_budget_half").await;
    sidecar.stop().await;
    let free = "SELECT bool_and(NOT active) FROM pg_replication_slots";
    wait_for("the slot is free", async || value::<bool>(&portal.source, free).await).await;
    let session = open(&cluster, "postgres").await;
    run(&session, "SELECT pg_drop_replication_slot('portal_audit_budget_half')").await;
    let faults = Sidecar::start(portal.settings.clone()).ended().await;
    assert!(faults.join("").contains("is gone, and with it the changes since"), "{faults:?}");
    let proof = portal.proof().await;
    assert_eq!((proof.events, proof.lost, proof.doubled), (3, 0, 0), "{:#?}", proof.differences);
}
