//! The portal's server fails in every way that a server can: the sidecar waits, says what is in the way, and goes on where it was.

use crate::support::{
    Portal, Sidecar, Wishes, installation, open,
    program::{SettingsFile, command},
    run,
    servers::{Servers, Wanted},
    signal_server,
    tmpfs::{Tmpfs, does},
    value, wait_for,
};
use portal_audit::demo::cluster::{Cluster, Shutdown};
use std::path::Path;

const QUICK: &str = "audit_timeout_seconds = 2\nretry_max_seconds = 1";

fn user(name: &str) -> String {
    format!("INSERT INTO portal.users (username, uid, gid) VALUES ('{name}', 1, 1)")
}

async fn whole(portal: &Portal, least: u64) {
    let proof = portal.proof().await;
    assert_eq!((proof.lost, proof.doubled), (0, 0), "{:#?}", proof.differences);
    assert!(proof.events >= least, "{proof:?}");
}

/// Ends the source as a crash does, and starts it again.
async fn crash(servers: &mut Servers, kill: bool) {
    if kill {
        signal_server(&servers.source, "KILL");
        let exit = servers.source.socket_dir().join("exit");
        wait_for("its end", async || exit.exists()).await;
    } else {
        servers.source.stop_server(Shutdown::Immediate).unwrap();
    }
    // The orphans of a killed server hold its memory until they notice.
    wait_for("its start", || std::future::ready(servers.source.start_server().is_ok())).await;
}

/// Crashes right after a confirmation: the slot is saved seldom, so it steps back, and what was confirmed comes once more.
#[tokio::test(flavor = "multi_thread")]
async fn crashes_and_the_slot_steps_back() {
    let wanted = Wanted { limits: QUICK, ..Wanted::default() };
    let (mut servers, mut portal) = Servers::start("source_crash", wanted).await;
    let sidecar = portal.start().await;
    let mut stepped_back = 0;
    for round in 0..6 {
        for seed in round * 20..round * 20 + 20 {
            run(&portal.source, &format!("SELECT activity.act({seed})")).await;
        }
        portal.catch_up().await;
        let end: String =
            value(&portal.audit, "SELECT end_lsn::text FROM portal_audit.progress").await;
        let told = format!("SELECT confirmed_flush_lsn >= '{end}' FROM pg_replication_slots");
        wait_for("the confirmation", async || value::<bool>(&portal.source, &told).await).await;
        crash(&mut servers, round % 2 == 1).await;
        portal = servers.portal().await;
        let back = format!("SELECT confirmed_flush_lsn < '{end}' FROM pg_replication_slots");
        stepped_back += u32::from(value::<bool>(&portal.source, &back).await);
    }
    assert!(stepped_back > 0, "the fault did not happen");
    portal.act(&user("last")).await;
    sidecar.stop().await;
    whole(&portal, 40).await;
}

/// Crashes while the first snapshot is being read: it begins again, and no slot is left over.
#[tokio::test(flavor = "multi_thread")]
async fn crashes_during_the_snapshot() {
    let limits = "audit_timeout_seconds = 30\nretry_max_seconds = 1";
    let (mut servers, portal) =
        Servers::start("source_snapshot", Wanted { limits, ..Wanted::default() }).await;
    run(&portal.source, "INSERT INTO portal.users (username, uid, gid) SELECT 'user' || n, n, n FROM generate_series(1, 3000) n; TRUNCATE journal.change").await;
    let sidecar = Sidecar::start(portal.settings.clone());
    let reads = "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'portal-audit (source_snapshot)' AND xact_start IS NOT NULL AND backend_type = 'client backend'";
    let mut portal = portal;
    for kill in [true, false] {
        run(&portal.audit, "BEGIN; LOCK TABLE portal_audit.names").await;
        wait_for("the snapshot", async || value::<bool>(&portal.source, reads).await).await;
        crash(&mut servers, kill).await;
        run(&portal.audit, "COMMIT").await;
        portal = Portal { source: servers.in_source().await, ..portal };
    }
    portal.streaming().await;
    portal.act(&user("last")).await;
    sidecar.stop().await;
    assert_eq!(value::<i64>(&portal.source, "SELECT count(*) FROM pg_replication_slots").await, 1);
    whole(&portal, 1).await;
}

/// The walsender is ended whenever it appears, under load: the waits between grow, no slot is left over.
#[tokio::test(flavor = "multi_thread")]
async fn walsender_ended_in_a_loop() {
    let cluster = Cluster::start(&installation(), &[]).unwrap();
    let wishes = Wishes { name: "source_loop", limits: QUICK, ..Wishes::default() };
    let portal = crate::support::portal(&cluster, wishes).await;
    let sidecar = portal.start().await;
    let cut =
        "SELECT count(pg_terminate_backend(active_pid)) FROM pg_replication_slots WHERE active";
    let mut cuts = 0;
    let mut seed = 0;
    while cuts < 6 {
        cuts += value::<i64>(&portal.source, cut).await;
        run(&portal.source, &format!("SELECT activity.act({seed})")).await;
        seed += 1;
    }
    portal.catch_up().await;
    sidecar.stop().await;
    assert_eq!(value::<i64>(&portal.source, "SELECT count(*) FROM pg_replication_slots").await, 1);
    whole(&portal, 1).await;
}

/// A sidecar whose log is kept, to see what it says of a fault that it waits out.
struct Logged {
    child: std::process::Child,
    log: std::path::PathBuf,
    _settings: SettingsFile,
    _folder: tempfile::TempDir,
}

impl Logged {
    fn start(portal: &Portal) -> Self {
        let settings = SettingsFile::new(portal);
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut command = command(&["run", "--config", settings.path.to_str().unwrap()]);
        let child = command
            .stdout(std::process::Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, log, _settings: settings, _folder: folder }
    }

    async fn says(&self, words: &str) {
        let log = async || std::fs::read_to_string(&self.log).unwrap().replace(['"', '\\'], "");
        let found = wait_for(words, async || log().await.contains(words));
        let found = tokio::time::timeout(std::time::Duration::from_secs(30), found).await;
        assert!(found.is_ok(), "{words:?} is not in the log:\n{}", log().await);
    }

    fn end(mut self) -> String {
        crate::support::program::signal(self.child.id(), "TERM");
        assert!(self.child.wait().unwrap().success());
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        // A test that failed must leave no program behind.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// No place for a slot, a walsender or a session: waited for, with the numbers, and gone on by itself.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_left_for_us() {
    let settings = [("max_replication_slots", "2"), ("max_wal_senders", "1")];
    let cluster = Cluster::start(&installation(), &settings).unwrap();
    let wishes = Wishes { name: "source_full", limits: QUICK, ..Wishes::default() };
    let portal = crate::support::portal(&cluster, wishes).await;
    for name in ["one", "two"] {
        let make = format!("SELECT pg_create_physical_replication_slot('{name}')");
        run(&portal.source, &make).await;
    }
    let sidecar = Logged::start(&portal);
    sidecar.says("2 of 2 replication slots are in use").await;
    let conninfo = portal_audit::config::conninfo(&cluster.dsn("source_full", "postgres")).unwrap();
    let taken = loop {
        match portal_audit::wire::Connection::connect(&conninfo, "UTF8").await {
            Ok(taken) => break taken,
            Err(error) => assert_eq!(error.sqlstate(), Some("53300"), "{error}"),
        }
    };
    sidecar.says("max_wal_senders (currently 1)").await;
    drop(taken);
    run(&portal.source, "SELECT pg_drop_replication_slot('one')").await;
    portal.streaming().await;
    portal.act(&user("first")).await;
    // And no session: the stream goes on without the clock, and a start waits.
    run(
        &portal.source,
        "CREATE ROLE other LOGIN SUPERUSER; ALTER DATABASE source_full CONNECTION LIMIT 1",
    )
    .await;
    portal.act(&user("second")).await;
    sidecar.end();
    whole(&portal, 2).await;
}

/// A transaction that was open before the slot: bounded, its process named, gone on when it ends. A prepared one has no process and is named by its own name.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_stays_open() {
    let cluster = Cluster::start(&installation(), &[]).unwrap();
    let limits = "slot_timeout_seconds = 1\nretry_max_seconds = 1";
    let wishes = Wishes { name: "source_open", limits, ..Wishes::default() };
    let portal = crate::support::portal(&cluster, wishes).await;
    let open_for_long = open(&cluster, "source_open").await;
    let pid: i32 = value(&open_for_long, "SELECT pg_backend_pid()").await;
    run(&open_for_long, &format!("BEGIN; {}", user("long"))).await;
    let sidecar = Logged::start(&portal);
    sidecar.says(&format!("process {pid} of database source_open, role postgres")).await;
    run(&open_for_long, "PREPARE TRANSACTION 'left over'").await;
    sidecar.says("the prepared transaction 'left over'").await;
    let slots = "SELECT count(*) FROM pg_replication_slots";
    assert!(value::<i64>(&portal.source, slots).await <= 1);
    run(&open_for_long, "COMMIT PREPARED 'left over'").await;
    portal.streaming().await;
    run(&portal.source, "TRUNCATE journal.change").await;
    // One that stays open while it streams holds nothing up but its own events, which come when it commits.
    run(&open_for_long, &format!("BEGIN; {}", user("later"))).await;
    portal.act(&user("first")).await;
    assert_eq!(portal.count().await, 1);
    run(&open_for_long, "COMMIT").await;
    portal.catch_up().await;
    sidecar.end();
    whole(&portal, 2).await;
}

/// The disk of the source is full: it writes nothing, and we do nothing there that would.
#[tokio::test(flavor = "multi_thread")]
async fn its_disk_is_full() {
    let settings =
        [("max_wal_size", "32MB"), ("min_wal_size", "32MB"), ("logical_decoding_work_mem", "64kB")];
    let wanted = Wanted { limits: QUICK, source: &settings, ..Wanted::default() };
    let (mut servers, portal) = Servers::start("source_disk", wanted).await;
    drop(portal);
    servers.source.stop_server(Shutdown::Fast).unwrap();
    let data = servers.source.data_dir();
    let aside = servers.source.socket_dir().join("aside");
    std::fs::rename(&data, &aside).unwrap();
    let Some(disk) = Tmpfs::mount(&data, 160, &aside) else { return };
    assert!(does("cp", &["-a", &format!("{}/.", aside.display()), data.to_str().unwrap()]));
    servers.source.start_server().unwrap();
    let portal = servers.portal().await;
    let sidecar = portal.start().await;
    portal.act(&user("first")).await;
    run(&portal.source, "BEGIN").await;
    run(&portal.source, "INSERT INTO portal.users (username, uid, gid) SELECT 'user' || n, n, n FROM generate_series(1, 8000) n").await;
    disk.fill();
    // Its commit may fail, and crash the server.
    drop(portal.source.client.batch_execute("COMMIT").await);
    drop(portal.source.client.batch_execute(&user("maybe")).await);
    disk.empty();
    servers.source.stop_server(Shutdown::Immediate).unwrap();
    servers.source.start_server().unwrap();
    let portal = servers.portal().await;
    portal.act(&user("last")).await;
    sidecar.stop().await;
    whole(&portal, 2).await;
    drop((portal, disk));
}

/// Each slot of that name that is not ours is refused by its own words, and left alone.
#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_slot() {
    let cluster = Cluster::start(&installation(), &[]).unwrap();
    let wishes = Wishes { name: "source_slots", limits: QUICK, ..Wishes::default() };
    let portal = crate::support::portal(&cluster, wishes).await;
    let sidecar = portal.start().await;
    portal.act(&user("first")).await;
    sidecar.stop().await;
    let free = "SELECT bool_and(NOT active) FROM pg_replication_slots";
    wait_for("the slot is free", async || value::<bool>(&portal.source, free).await).await;
    let elsewhere = open(&cluster, "postgres").await;
    let slot = "portal_audit_source_slots";
    run(&portal.source, &format!("SELECT pg_copy_logical_replication_slot('{slot}', 'kept')"))
        .await;
    run(&portal.source, &format!("SELECT pg_drop_replication_slot('{slot}')")).await;
    let wrong = [
        (
            &portal.source,
            format!("pg_create_physical_replication_slot('{slot}')"),
            "is a physical one",
        ),
        (
            &elsewhere,
            format!("pg_create_logical_replication_slot('{slot}', 'pgoutput')"),
            "belongs to database \"postgres\"",
        ),
        (
            &portal.source,
            format!("pg_create_logical_replication_slot('{slot}', 'pgoutput', true)"),
            "is temporary",
        ),
        (
            &portal.source,
            format!("pg_create_logical_replication_slot('{slot}', 'pgoutput', false, true)"),
            "was made with two_phase",
        ),
        (
            &portal.source,
            format!("pg_create_logical_replication_slot('{slot}', 'test_decoding')"),
            "uses the plugin \"test_decoding\"",
        ),
    ];
    for (session, make, words) in wrong {
        if session.client.query(&format!("SELECT {make}"), &[]).await.is_err() {
            // Some builds come without the plugin.
            assert!(words.contains("test_decoding"), "{make}");
            continue;
        }
        let faults = Sidecar::start(portal.settings.clone()).ended().await.join("");
        assert!(faults.contains(words), "{make}: {faults}");
        run(session, &format!("SELECT pg_drop_replication_slot('{slot}')")).await;
    }
    // The one that was ours, under its name again, is taken up where it was.
    run(&portal.source, &format!("SELECT pg_copy_logical_replication_slot('kept', '{slot}')"))
        .await;
    let first = Sidecar::start(portal.settings.clone());
    portal.act(&user("second")).await;
    // Another sidecar waits, and says for whom.
    let second = Logged::start(&portal);
    second.says("is read by process ").await;
    first.stop().await;
    portal.act(&user("third")).await;
    let log = second.end();
    assert!(log.contains("it is waited for"), "{log}");
    whole(&portal, 3).await;
}

/// `wal_level` is lowered: a server that has a logical slot does not start at all, and one without refuses a new slot.
#[tokio::test(flavor = "multi_thread")]
async fn wal_level_is_lowered() {
    let wanted = Wanted { limits: QUICK, ..Wanted::default() };
    let (mut servers, portal) = Servers::start("source_level", wanted).await;
    let sidecar = portal.start().await;
    portal.act(&user("first")).await;
    servers.source.stop_server(Shutdown::Fast).unwrap();
    let lowered = ("wal_level".to_owned(), "replica".to_owned());
    servers.source.options_mut().settings.push(lowered);
    let refused = servers.source.start_server();
    assert!(refused.unwrap_err().to_string().contains("wal_level"));
    servers.source.options_mut().settings.pop();
    servers.source.start_server().unwrap();
    let portal = servers.portal().await;
    portal.act(&user("second")).await;
    sidecar.stop().await;
    whole(&portal, 2).await;
}

/// 18: a slot that nobody reads for long is given up by the server; refused with that reason.
#[tokio::test(flavor = "multi_thread")]
async fn idle_for_too_long() {
    if installation().major < 18 {
        println!("not run: PostgreSQL 18 and later");
        return;
    }
    let settings = [("idle_replication_slot_timeout", "1s")];
    let cluster = Cluster::start(&installation(), &settings).unwrap();
    let wishes = Wishes { name: "source_idle", ..Wishes::default() };
    let portal = crate::support::portal(&cluster, wishes).await;
    let sidecar = portal.start().await;
    portal.act(&user("first")).await;
    sidecar.stop().await;
    let reason = "SELECT coalesce(max(invalidation_reason), '') FROM pg_replication_slots";
    wait_for("the slot to be given up", async || {
        run(&portal.source, "CHECKPOINT").await;
        value::<String>(&portal.source, reason).await == "idle_timeout"
    })
    .await;
    let faults = Sidecar::start(portal.settings.clone()).ended().await.join("");
    assert!(faults.contains("can no longer be read (idle_timeout)"), "{faults}");
    assert!(faults.contains("portal-audit run --accept-gap source_idle"), "{faults}");
    whole(&portal, 1).await;
}

/// The clock of the source goes back an hour and forward a day: events have the commit times of the source to the microsecond, in the order of its log.
#[tokio::test(flavor = "multi_thread")]
async fn its_clock_jumps() {
    const LIBRARIES: [&str; 2] = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    ];
    let Some(library) = LIBRARIES.into_iter().find(|path| Path::new(path).exists()) else {
        println!("not run: libfaketime is not installed");
        return;
    };
    let wanted = Wanted { limits: QUICK, ..Wanted::default() };
    let (mut servers, portal) = Servers::start("source_clock", wanted).await;
    let sidecar = portal.start().await;
    portal.act(&user("now")).await;
    let mut portal = portal;
    for (name, offset) in [("back", "-1h"), ("forward", "+1d"), ("now_again", "+0")] {
        drop(portal);
        servers.source.stop_server(Shutdown::Fast).unwrap();
        let environment = [("LD_PRELOAD", library), ("FAKETIME", offset)];
        let owned = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        servers.source.options_mut().environment = owned.to_vec();
        servers.source.start_server().unwrap();
        portal = servers.portal().await;
        portal.act(&user(name)).await;
    }
    sidecar.stop().await;
    let order = "SELECT string_agg(subject, ' ' ORDER BY (payload->'_audit'->>'lsn')::pg_lsn) FROM public.events";
    assert_eq!(value::<String>(&portal.audit, order).await, "now back forward now_again");
    let times = "SELECT string_agg(subject, ' ' ORDER BY timestamp) FROM public.events";
    assert_eq!(value::<String>(&portal.audit, times).await, "back now now_again forward");
    let rows = portal.audit.client.query(
        "SELECT (payload->'_audit'->>'xid')::bigint, timestamp::text FROM public.events",
        &[],
    );
    for row in rows.await.unwrap() {
        let exact = format!(
            "SELECT pg_xact_commit_timestamp('{}'::xid) = '{}'",
            row.get::<_, i64>(0),
            row.get::<_, &str>(1)
        );
        assert!(value::<bool>(&portal.source, &exact).await, "{exact}");
    }
    whole(&portal, 4).await;
}
