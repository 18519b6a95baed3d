//! The portal always wins: its server stops when its operators say so, whatever the sidecar and the audit database do.

use crate::support::{
    Portal, Sidecar, run,
    servers::{Servers, Wanted},
    signal_server, value, wait_for,
};
use portal_audit::demo::cluster::Shutdown;

fn user(name: &str) -> String {
    format!("INSERT INTO portal.users (username, uid, gid) VALUES ('{name}', 1, 1)")
}

/// Everything that the portal committed is told once, after the source has come back.
async fn whole(servers: &mut Servers, sidecar: Sidecar, events: i64) {
    servers.audit.start_server().unwrap();
    servers.source.start_server().unwrap();
    let portal = servers.portal().await;
    portal.act(&user("last")).await;
    sidecar.stop().await;
    let proof = portal.proof().await;
    assert_eq!((proof.lost, proof.doubled), (0, 0), "{:#?}", proof.differences);
    assert_eq!(portal.count().await, events, "{proof:?}");
}

async fn starting(name: &'static str, limits: &str) -> (Servers, Portal) {
    Servers::start(name, Wanted { limits, ..Wanted::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn while_everything_is_well() {
    let (mut servers, portal) = starting("stop_well", "").await;
    let sidecar = portal.start().await;
    portal.act(&user("first")).await;
    run(&portal.source, &user("second")).await;
    drop(portal);
    servers.stop_source_fast();
    whole(&mut servers, sidecar, 3).await;
}

/// The audit database is gone: the sidecar has let go of the source and does not come back to it.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_audit_database_is_down() {
    let (mut servers, portal) = starting("stop_down", "retry_max_seconds = 1").await;
    let sidecar = portal.start().await;
    portal.act(&user("first")).await;
    servers.audit.stop_server(Shutdown::Immediate).unwrap();
    run(&portal.source, &user("second")).await;
    drop(portal);
    servers.stop_source_fast();
    servers.source.start_server().unwrap();
    let source = servers.in_source().await;
    run(&source, &user("third")).await;
    drop(source);
    // Now it is backing off, and must not be found on the source.
    servers.stop_source_fast();
    whole(&mut servers, sidecar, 4).await;
}

/// The audit database takes connections and answers nothing: let go after `audit_timeout_seconds`.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_audit_database_hangs() {
    let limits = "audit_timeout_seconds = 1\nretry_max_seconds = 1";
    let (mut servers, portal) = starting("stop_hangs", limits).await;
    let sidecar = portal.start().await;
    portal.act(&user("first")).await;
    run(&portal.audit, "BEGIN; LOCK TABLE public.events").await;
    run(&portal.source, &user("second")).await;
    servers.stop_source_fast();
    servers.source.start_server().unwrap();
    let free = "SELECT NOT active FROM pg_replication_slots";
    let source = servers.in_source().await;
    wait_for("the source to be let go", async || value::<bool>(&source, free).await).await;
    run(&source, &user("third")).await;
    servers.stop_source_fast();
    drop(portal);
    whole(&mut servers, sidecar, 4).await;
}

/// The audit database writes, but so slowly that what is left would take minutes. The source is told that it is being stopped by nobody but the refusal of a new session.
#[tokio::test(flavor = "multi_thread")]
async fn while_a_backlog_is_written_slowly() {
    const USERS: i64 = 400;
    let limits = "audit_timeout_seconds = 60\nbatch_events = 10";
    let (mut servers, portal) = starting("stop_slow", limits).await;
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.2); RETURN NEW; END $$; CREATE TRIGGER slow BEFORE INSERT ON public.events FOR EACH ROW EXECUTE FUNCTION slow()";
    run(&portal.audit, slow).await;
    let sidecar = portal.start().await;
    let each = format!(
        "DO $$ BEGIN FOR n IN 1..{USERS} LOOP INSERT INTO portal.users (username, uid, gid) VALUES ('user' || n, n, n); COMMIT; END LOOP; END $$"
    );
    run(&portal.source, &each).await;
    wait_for("the first events", async || portal.count().await > 0).await;
    drop(portal);
    servers.stop_source_fast();
    run(&servers.in_audit().await, "DROP TRIGGER slow ON public.events").await;
    whole(&mut servers, sidecar, USERS + 1).await;
}

/// A large transaction is on its way, in pieces, while the audit database hangs.
#[tokio::test(flavor = "multi_thread")]
async fn while_a_large_transaction_is_streamed() {
    let limits = "audit_timeout_seconds = 2\nbatch_events = 100\nretry_max_seconds = 1";
    let settings = [("logical_decoding_work_mem", "64kB")];
    let wanted = Wanted { source: &settings, limits, ..Wanted::default() };
    let (mut servers, portal) = Servers::start("stop_large", wanted).await;
    let sidecar = portal.start().await;
    portal.act(&user("first")).await;
    run(&portal.audit, "BEGIN; LOCK TABLE public.events").await;
    run(&portal.source, "INSERT INTO portal.users (username, uid, gid) SELECT 'user' || n, n, n FROM generate_series(1, 5000) n").await;
    // And one that never commits, of which the server streams what there is.
    let open = servers.in_source().await;
    run(&open, "BEGIN; INSERT INTO portal.users (username, uid, gid) SELECT 'gone' || n, n, n FROM generate_series(1, 5000) n").await;
    servers.stop_source_fast();
    drop((portal, open));
    whole(&mut servers, sidecar, 5_002).await;
}

/// The slot is being made, which waits for an open transaction.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_slot_is_made() {
    let (mut servers, portal) = starting("stop_slot", "retry_max_seconds = 1").await;
    let open = servers.in_source().await;
    run(&open, &format!("BEGIN; {}", user("open"))).await;
    let sidecar = Sidecar::start(portal.settings.clone());
    let waits = "SELECT count(*) > 0 FROM pg_replication_slots";
    wait_for("the slot", async || value::<bool>(&portal.source, waits).await).await;
    drop(portal);
    servers.stop_source_fast();
    drop(open);
    servers.source.start_server().unwrap();
    servers.portal().await.streaming().await;
    whole(&mut servers, sidecar, 1).await;
}

/// The snapshot is read, and the audit database hangs in the midst of it.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_snapshot_is_read() {
    let limits = "audit_timeout_seconds = 2\nretry_max_seconds = 1";
    let (mut servers, portal) = starting("stop_snapshot", limits).await;
    run(&portal.source, "INSERT INTO portal.users (username, uid, gid) SELECT 'user' || n, n, n FROM generate_series(1, 3000) n; TRUNCATE journal.change").await;
    run(&portal.audit, "BEGIN; LOCK TABLE portal_audit.names").await;
    let sidecar = Sidecar::start(portal.settings.clone());
    let reads = "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'portal-audit (stop_snapshot)' AND xact_start IS NOT NULL";
    wait_for("the snapshot", async || value::<bool>(&portal.source, reads).await).await;
    servers.stop_source_fast();
    run(&portal.audit, "COMMIT").await;
    servers.source.start_server().unwrap();
    servers.portal().await.streaming().await;
    drop(portal);
    whole(&mut servers, sidecar, 1).await;
}

/// A smart shutdown waits for each plain session to end by itself, so ours must not stay.
#[tokio::test(flavor = "multi_thread")]
async fn smart() {
    let (mut servers, portal) = starting("stop_smart", "retry_max_seconds = 1").await;
    let sidecar = portal.start().await;
    portal.act(&user("first")).await;
    drop(portal);
    signal_server(&servers.source, "TERM");
    let exit = servers.source.socket_dir().join("exit");
    wait_for("the server's end", async || exit.exists()).await;
    let log = servers.source_log();
    assert!(log.contains("received smart shutdown request"), "{log}");
    whole(&mut servers, sidecar, 2).await;
}
