//! The audit database fails in every way that a server can: nothing is confirmed that is not durable there, and all of it is written once it answers again.

use crate::support::{
    Portal, Sidecar, Wishes, cluster, run,
    servers::{Servers, Wanted},
    signal_server,
    tmpfs::{Tmpfs, does},
    value, wait_for,
};
use portal_audit::{connect::Session, demo::cluster::Shutdown};

const QUICK: &str = "audit_timeout_seconds = 2\nretry_max_seconds = 1";

fn user(name: &str) -> String {
    format!("INSERT INTO portal.users (username, uid, gid) VALUES ('{name}', 1, 1)")
}

async fn whole(portal: &Portal, least: u64) {
    let proof = portal.proof().await;
    assert_eq!((proof.lost, proof.doubled), (0, 0), "{:#?}", proof.differences);
    assert!(proof.events >= least, "{proof:?}");
}

async fn acts(source: &Session, seeds: std::ops::Range<i64>) {
    for seed in seeds {
        run(source, &format!("SELECT activity.act({seed})")).await;
    }
}

/// What the slot was told must be written: read from the source first.
async fn confirmed_is_written(servers: &Servers, audit: &Session) {
    let confirmed: String = value(
        &servers.in_source().await,
        "SELECT coalesce(max(confirmed_flush_lsn), '0/0')::text FROM pg_replication_slots",
    )
    .await;
    let holds = format!("SELECT bool_and(end_lsn >= '{confirmed}') FROM portal_audit.progress");
    assert!(value::<bool>(audit, &holds).await, "{confirmed} is confirmed and not written");
}

/// Down when the sidecar starts, and then for long under load: the slot is free all the while, and waits where it was.
#[tokio::test(flavor = "multi_thread")]
async fn down_at_the_start_and_for_long() {
    let wanted = Wanted { limits: QUICK, ..Wanted::default() };
    let (mut servers, portal) = Servers::start("target_down", wanted).await;
    servers.audit.stop_server(Shutdown::Fast).unwrap();
    let sidecar = Sidecar::start(portal.settings.clone());
    run(&portal.source, &user("before")).await;
    assert_eq!(value::<i64>(&portal.source, "SELECT count(*) FROM pg_replication_slots").await, 0);
    servers.audit.start_server().unwrap();
    let portal = servers.portal().await;
    portal.streaming().await;
    run(&portal.source, "TRUNCATE journal.change").await;
    portal.act(&user("first")).await;
    servers.audit.stop_server(Shutdown::Immediate).unwrap();
    acts(&portal.source, 0..50).await;
    let free = "SELECT bool_and(NOT active) FROM pg_replication_slots";
    wait_for("the slot to be free", async || value::<bool>(&portal.source, free).await).await;
    let confirmed = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots";
    let before: String = value(&portal.source, confirmed).await;
    acts(&portal.source, 50..200).await;
    assert_eq!(value::<String>(&portal.source, confirmed).await, before);
    assert!(value::<bool>(&portal.source, free).await, "nobody may read while it is down");
    servers.audit.start_server().unwrap();
    let portal = servers.portal().await;
    portal.catch_up().await;
    sidecar.stop().await;
    whole(&portal, 100).await;
}

/// The disk under `events` is full for a while: 53100, again and again.
#[tokio::test(flavor = "multi_thread")]
async fn full_disk_under_the_table() {
    let wanted = Wanted { limits: QUICK, ..Wanted::default() };
    let (servers, portal) = Servers::start("target_full", wanted).await;
    let place = servers.audit.socket_dir().join("small");
    let Some(disk) = Tmpfs::mount(&place, 24, &servers.audit.data_dir()) else { return };
    let path = place.join("space");
    std::fs::create_dir(&path).unwrap();
    let owner = std::fs::metadata(servers.audit.data_dir()).unwrap();
    use std::os::unix::fs::MetadataExt as _;
    std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    run(&portal.audit, &format!("CREATE TABLESPACE small LOCATION '{}'", path.display())).await;
    run(&portal.audit, "ALTER TABLE public.events SET TABLESPACE small; ALTER INDEX public.events_pkey SET TABLESPACE small").await;
    let sidecar = portal.start().await;
    portal.act(&user("first")).await;
    disk.fill();
    let before: String =
        value(&portal.source, "SELECT confirmed_flush_lsn::text FROM pg_replication_slots").await;
    run(&portal.source, "INSERT INTO portal.users (username, uid, gid) SELECT 'user' || n, n, n FROM generate_series(1, 3000) n").await;
    let errors = "SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()";
    let refused: i64 = value(&portal.audit, errors).await;
    wait_for("refusals", async || value::<i64>(&portal.audit, errors).await >= refused + 3).await;
    assert!(server_log(&servers).contains("No space left on device"));
    let now = format!(
        "SELECT confirmed_flush_lsn >= '{before}' AND confirmed_flush_lsn < pg_current_wal_lsn() FROM pg_replication_slots"
    );
    assert!(value::<bool>(&portal.source, &now).await);
    assert_eq!(portal.count().await, 1, "all of a transaction or nothing");
    disk.empty();
    portal.catch_up().await;
    sidecar.stop().await;
    whole(&portal, 3_001).await;
    drop(portal);
}

fn server_log(servers: &Servers) -> String {
    std::fs::read_to_string(servers.audit.socket_dir().join("log")).unwrap()
}

/// The disk under the whole server is full: it cannot write its log, and crashes.
#[tokio::test(flavor = "multi_thread")]
async fn full_disk_under_the_server() {
    let settings =
        [("max_wal_size", "32MB"), ("min_wal_size", "32MB"), ("log_min_messages", "warning")];
    let wanted = Wanted { limits: QUICK, audit: &settings, ..Wanted::default() };
    let (mut servers, portal) = Servers::start("target_crash", wanted).await;
    servers.audit.stop_server(Shutdown::Fast).unwrap();
    let data = servers.audit.data_dir();
    let aside = servers.audit.socket_dir().join("aside");
    std::fs::rename(&data, &aside).unwrap();
    let Some(disk) = Tmpfs::mount(&data, 160, &aside) else { return };
    assert!(does("cp", &["-a", &format!("{}/.", aside.display()), data.to_str().unwrap()]));
    servers.audit.start_server().unwrap();
    let portal = Portal { audit: servers.in_audit().await, ..portal };
    let sidecar = portal.start().await;
    portal.act(&user("first")).await;
    disk.fill();
    run(&portal.source, "INSERT INTO portal.users (username, uid, gid) SELECT 'user' || n, n, n FROM generate_series(1, 30000) n").await;
    wait_for("the disk to be missed", async || server_log(&servers).contains("No space left"))
        .await;
    disk.empty();
    // It may have crashed, or not.
    servers.audit.stop_server(Shutdown::Immediate).unwrap();
    servers.audit.start_server().unwrap();
    let portal = servers.portal().await;
    confirmed_is_written(&servers, &portal.audit).await;
    portal.catch_up().await;
    sidecar.stop().await;
    whole(&portal, 30_001).await;
    drop((portal, disk));
}

/// A server that crashes while it commits, and whose role and database would rather not wait for the disk. What was confirmed must be there afterwards; without `synchronous_commit` of our own it is not, and the slot is ahead.
#[tokio::test(flavor = "multi_thread")]
async fn crashes_in_a_storm_of_commits() {
    let settings = [("wal_writer_delay", "10s"), ("wal_writer_flush_after", "1GB")];
    let wanted = Wanted { limits: QUICK, audit: &settings, ..Wanted::default() };
    let (mut servers, portal) = Servers::start("target_storm", wanted).await;
    run(&portal.audit, "ALTER ROLE postgres SET synchronous_commit = off; ALTER DATABASE target_storm_audit SET synchronous_commit = off").await;
    drop(portal);
    let portal = servers.portal().await;
    let sidecar = portal.start().await;
    let events = portal_audit::demo::proof::compare(&portal.source, &portal.audit, "x").await;
    assert_eq!(events.unwrap().events, 0);
    let mut portal = portal;
    for round in 0..4 {
        acts(&portal.source, round * 40..round * 40 + 40).await;
        let moved = "SELECT transactions FROM portal_audit.progress";
        let before: i64 = value(&portal.audit, moved).await;
        acts(&portal.source, 1_000 + round * 10..1_010 + round * 10).await;
        wait_for("commits", async || value::<i64>(&portal.audit, moved).await > before).await;
        if round % 2 == 0 {
            servers.audit.stop_server(Shutdown::Immediate).unwrap();
        } else {
            signal_server(&servers.audit, "KILL");
            let exit = servers.audit.socket_dir().join("exit");
            wait_for("its end", async || exit.exists()).await;
        }
        wait_for("its start", || std::future::ready(servers.audit.start_server().is_ok())).await;
        portal = servers.portal().await;
        confirmed_is_written(&servers, &portal.audit).await;
    }
    portal.catch_up().await;
    sidecar.stop().await;
    whole(&portal, 100).await;
}

/// A role and a database with settings that would cut off, delay or abort what we do, and with a table of the same name first in the search path.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_settings() {
    let wanted = Wanted { roles: ("", "writer"), ..Wanted::default() };
    let (servers, portal) = Servers::start("target_settings", wanted).await;
    run(&portal.audit, "CREATE ROLE writer LOGIN; GRANT portal_audit_writer TO writer; CREATE SCHEMA evil; CREATE TABLE evil.events (LIKE public.events); CREATE TABLE evil.progress (); GRANT ALL ON SCHEMA evil TO PUBLIC; GRANT ALL ON ALL TABLES IN SCHEMA evil TO PUBLIC; ALTER ROLE writer SET search_path = evil, public").await;
    let timeouts = [
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
        "idle_session_timeout",
        "transaction_timeout",
    ];
    for setting in timeouts {
        let known = format!("SELECT count(*) FROM pg_settings WHERE name = '{setting}'");
        if value::<i64>(&portal.audit, &known).await == 1 {
            run(&portal.audit, &format!("ALTER ROLE writer SET {setting} = 100; ALTER DATABASE target_settings_audit SET {setting} = 100")).await;
        }
    }
    run(&portal.audit, "ALTER ROLE writer SET default_transaction_isolation = serializable; ALTER ROLE writer SET default_transaction_deferrable = on; ALTER ROLE writer SET synchronous_commit = off").await;
    run(&portal.audit, "SET statement_timeout = 0; CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.3); RETURN NULL; END $$; CREATE TRIGGER slow AFTER INSERT ON public.events FOR EACH STATEMENT EXECUTE FUNCTION slow()").await;
    drop(portal);
    let portal = servers.portal().await;
    // Ours must not be cut off by them either.
    run(&portal.audit, "SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout', 'transaction_timeout')").await;
    let sidecar = portal.start().await;
    let moved: String = value(
        &portal.audit,
        "SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE usename = 'writer'",
    )
    .await;
    portal.act(&user("first")).await;
    run(&portal.source, "INSERT INTO portal.users (username, uid, gid) SELECT 'user' || n, n, n FROM generate_series(1, 12000) n").await;
    portal.catch_up().await;
    let same = "SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE usename = 'writer'";
    assert_eq!(value::<String>(&portal.audit, same).await, moved, "its session was cut off");
    sidecar.stop().await;
    assert_eq!(value::<i64>(&portal.audit, "SELECT count(*) FROM evil.events").await, 0);
    whole(&portal, 12_001).await;
}

/// Privileges are taken away while it runs: it stops and says so, and nothing is lost once they are given back.
#[tokio::test(flavor = "multi_thread")]
async fn privileges_are_taken_away() {
    let wanted = Wanted { roles: ("", "writer"), ..Wanted::default() };
    let (_servers, portal) = Servers::start("target_revoked", wanted).await;
    run(&portal.audit, "CREATE ROLE writer LOGIN; GRANT portal_audit_writer TO writer").await;
    let sidecar = portal.start().await;
    portal.act(&user("first")).await;
    run(&portal.audit, "REVOKE INSERT ON public.events FROM portal_audit_writer").await;
    run(&portal.source, &user("second")).await;
    let fault = sidecar.ended().await.join("");
    assert!(fault.contains("42501 permission denied for table events"), "{fault}");
    assert!(fault.contains("GRANT portal_audit_writer"), "{fault}");
    // Refused at the start too, before anything is read.
    let fault = Sidecar::start(portal.settings.clone()).ended().await.join("");
    assert!(fault.contains("role writer may not INSERT into it"), "{fault}");
    run(&portal.audit, "GRANT INSERT ON public.events TO portal_audit_writer").await;
    let sidecar = Sidecar::start(portal.settings.clone());
    portal.act(&user("third")).await;
    sidecar.stop().await;
    whole(&portal, 3).await;
}

/// Our sessions are ended by others, fail by a deadlock, and find no place for a while: each time the whole transaction is tried again.
#[tokio::test(flavor = "multi_thread")]
async fn ended_deadlocked_and_refused() {
    let wanted =
        Wanted { limits: "retry_max_seconds = 1", roles: ("", "writer"), ..Wanted::default() };
    let (servers, portal) = Servers::start("target_cut", wanted).await;
    run(&portal.audit, "CREATE ROLE writer LOGIN; GRANT portal_audit_writer TO writer").await;
    let sidecar = portal.start().await;
    let cut =
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'writer'";
    for round in 0..5 {
        acts(&portal.source, round * 10..round * 10 + 10).await;
        wait_for("a session to end", async || value::<i64>(&portal.audit, cut).await > 0).await;
    }
    portal.catch_up().await;
    // A deadlock: we hold events and want progress, and somebody the other way round. Ours looks for it first.
    let watcher = servers.in_audit().await;
    run(&portal.audit, "SET deadlock_timeout = '60s'").await;
    let waits = "SELECT count(*) > 0 FROM pg_stat_activity WHERE usename = 'writer' AND wait_event_type = 'Lock'";
    let holds = "SELECT count(*) > 0 FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.usename = 'writer' AND a.wait_event_type = 'Lock' AND l.relation = 'public.events'::regclass AND l.granted";
    for number in 0.. {
        run(&portal.audit, "BEGIN; SELECT FROM portal_audit.progress FOR UPDATE").await;
        run(&portal.source, &user(&format!("deadlocked{number}"))).await;
        wait_for("the wait", async || value::<bool>(&watcher, waits).await).await;
        // Or it wants to move progress alone, as it does while nothing happens.
        let is_it = value::<bool>(&watcher, holds).await;
        let lock = if is_it { "LOCK TABLE public.events IN EXCLUSIVE MODE; " } else { "" };
        run(&portal.audit, &format!("{lock}COMMIT")).await;
        portal.catch_up().await;
        if is_it {
            break;
        }
    }
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    wait_for("the deadlock", async || value::<i64>(&watcher, deadlocks).await == 1).await;
    // No place: 53300.
    run(&portal.audit, "ALTER ROLE writer CONNECTION LIMIT 0").await;
    value::<i64>(&portal.audit, cut).await;
    run(&portal.source, &user("refused")).await;
    wait_for("refusals", async || {
        server_log(&servers).matches("too many connections for role").count() >= 2
    })
    .await;
    run(&portal.audit, "ALTER ROLE writer CONNECTION LIMIT -1").await;
    portal.catch_up().await;
    // Read-only: 25006.
    run(&portal.audit, "ALTER ROLE writer SET default_transaction_read_only = on").await;
    value::<i64>(&portal.audit, cut).await;
    run(&portal.source, &user("read_only")).await;
    wait_for("refusals", async || {
        server_log(&servers).matches("in a read-only transaction").count() >= 2
    })
    .await;
    run(&portal.audit, "ALTER ROLE writer RESET default_transaction_read_only").await;
    portal.catch_up().await;
    sidecar.stop().await;
    whole(&portal, 20).await;
}

/// What may be done to `events`, and the words with which it is refused.
const SHAPES: [(&str, &str, &str); 14] = [
    (
        "ALTER TABLE events DROP COLUMN target",
        "ALTER TABLE events ADD target TEXT",
        "column target is missing",
    ),
    (
        "ALTER TABLE events RENAME caller TO who",
        "ALTER TABLE events RENAME who TO caller",
        "column caller is missing",
    ),
    (
        "ALTER TABLE events ADD ticket TEXT NOT NULL DEFAULT 'x'; ALTER TABLE events ALTER ticket DROP DEFAULT",
        "ALTER TABLE events DROP ticket",
        "column ticket is none of the given ones and must have a value",
    ),
    (
        "ALTER TABLE events ALTER payload DROP DEFAULT, ALTER payload TYPE JSON",
        "ALTER TABLE events ALTER payload TYPE JSONB, ALTER payload SET DEFAULT '{}'",
        "column payload is of type json, not jsonb",
    ),
    (
        "ALTER TABLE events ALTER caller TYPE VARCHAR(20)",
        "ALTER TABLE events ALTER caller TYPE TEXT",
        "column caller is of type character varying, not text",
    ),
    (
        "ALTER TABLE events ALTER timestamp TYPE TIMESTAMPTZ(6)",
        "ALTER TABLE events ALTER timestamp TYPE TIMESTAMPTZ",
        "column timestamp cuts its values",
    ),
    (
        "UPDATE events SET target = ''; ALTER TABLE events ALTER target SET NOT NULL",
        "ALTER TABLE events ALTER target DROP NOT NULL; UPDATE events SET target = NULL",
        "column target must be able to hold NULL",
    ),
    (
        "ALTER TABLE events DROP CONSTRAINT events_pkey",
        "ALTER TABLE events ADD PRIMARY KEY (event_uuid)",
        "no primary key or unique index on event_uuid alone",
    ),
    (
        "CREATE UNIQUE INDEX once ON events (timestamp, subject)",
        "DROP INDEX once",
        "index once lets only one of several events in",
    ),
    (
        "ALTER TABLE events ADD CONSTRAINT apart EXCLUDE USING btree (subject WITH =)",
        "ALTER TABLE events DROP CONSTRAINT apart",
        "index apart lets only one of several events in",
    ),
    (
        "CREATE RULE away AS ON INSERT TO events DO INSTEAD NOTHING",
        "DROP RULE away ON events",
        "a rule stands before its INSERT",
    ),
    ("ALTER TABLE events SET UNLOGGED", "ALTER TABLE events SET LOGGED", "it is unlogged"),
    (
        "ALTER TABLE events RENAME TO gone",
        "ALTER TABLE gone RENAME TO events",
        "the table is gone, and 1 events were written to it",
    ),
    (
        "ALTER TABLE events RENAME TO gone; CREATE VIEW events AS SELECT * FROM gone",
        "DROP VIEW events; ALTER TABLE gone RENAME TO events",
        "it is no table",
    ),
];

/// Another shape than the given one is refused before anything is read, naming the object; what does no harm is not.
#[tokio::test(flavor = "multi_thread")]
async fn another_shape_of_events() {
    let wishes = Wishes { name: "target_shape", ..Wishes::default() };
    let portal = crate::support::portal(cluster(), wishes).await;
    let sidecar = portal.start().await;
    portal.act(&user("first")).await;
    sidecar.stop().await;
    // The server refuses to change the type of a column that a policy reads.
    run(&portal.audit, "DROP POLICY portal_audit_sees_own ON public.events").await;
    for (spoil, mend, words) in SHAPES {
        run(&portal.audit, spoil).await;
        let faults = Sidecar::start(portal.settings.clone()).ended().await;
        assert!(faults.join("").contains(words), "{spoil}: {faults:?}");
        run(&portal.audit, mend).await;
    }
    // Neither a constraint's name nor more columns, indexes, keys or triggers matter.
    run(&portal.audit, "ALTER TABLE events RENAME CONSTRAINT events_pkey TO pk; ALTER TABLE events ADD seen BOOLEAN, ADD at TIMESTAMPTZ NOT NULL DEFAULT now(), ADD number BIGINT GENERATED ALWAYS AS IDENTITY, ALTER caller DROP NOT NULL; CREATE UNIQUE INDEX also ON events (event_uuid, timestamp); CREATE INDEX more ON events (timestamp); DROP INDEX idx_events_caller").await;
    let sidecar = portal.start().await;
    portal.act(&user("second")).await;
    sidecar.stop().await;
    whole(&portal, 2).await;
}
