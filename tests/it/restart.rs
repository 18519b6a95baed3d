//! Killed at any moment, nothing is lost and nothing doubled: the events are compared with the journal that the portal's own transactions wrote.

use crate::support::{
    Portal, cluster,
    invariants::Watch,
    life::{Dice, Life},
    open,
    order::Second,
    program::{Program, SettingsFile},
    run, sample, value, wait_for,
};
use portal_audit::config::Settings;
use std::path::Path;

/// Kills of a plain run; `PORTAL_AUDIT_KILLS` is another number of them.
const KILLS: u64 = 20;
const CLIENTS: i64 = 3;

fn kills() -> u64 {
    let given = std::env::var_os("PORTAL_AUDIT_KILLS");
    given.map_or(KILLS, |text| text.into_string().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kills_lose_and_double_nothing() {
    let mut dice = Dice::new();
    let kills = kills();
    let portal = sample("kills").await;
    let second = Second::begin(&portal).await;
    let settings = SettingsFile::new(&portal);
    let mut program = Program::run(&settings.path);
    portal.streaming().await;

    let workload = Life::start(&cluster().dsn(&portal.name, "postgres"), CLIENTS);
    let watch = Watch::all(&portal);
    let streams = "SELECT active FROM pg_replication_slots WHERE slot_name = 'portal_audit_kills'";
    for kill in 0..kills {
        // Every other one is killed in the midst of its stream, the others wherever they are.
        if kill % 2 == 0 {
            wait_for("the stream", async || value::<bool>(&portal.source, streams).await).await;
        }
        workload.wait(dice.below(120)).await;
        // Some are asked to stop first, and killed while they do.
        if dice.below(4) == 0 {
            program.ask_to_stop();
        }
        program.kill();
        workload.wait(dice.below(30)).await;
        program = Program::run(&settings.path);
    }
    workload.wait(50).await;
    workload.stop().await;
    portal.catch_up().await;
    assert!(program.terminate().success());
    let looks = watch.stop().await;

    let proof = portal.proof().await;
    let types = "SELECT count(DISTINCT event_type) FROM public.events";
    let types: i64 = value(&portal.audit, types).await;
    println!(
        "{kills} kills, {looks} looks at what must hold, {} changes, {} events of {types} types",
        proof.changes, proof.events
    );
    assert!(types > 50, "all of the portal must live: {types} event types");
    assert!(proof.events > 500, "the workload must do something: {proof:?}");
    assert_eq!((proof.lost, proof.doubled), (0, 0), "{:#?}", proof.differences);
    let counted: i64 = value(&portal.audit, "SELECT events FROM portal_audit.progress").await;
    assert_eq!(counted, portal.count().await, "progress must count each event once");
    second.compare().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_the_source_is_being_created() {
    let mut dice = Dice::new();
    let portal = sample("kills_at_creation").await;
    run(&portal.source, "INSERT INTO portal.users (username, uid, gid) SELECT 'user' || n, n, n FROM generate_series(1, 3000) n").await;
    let settings = SettingsFile::new(&portal);
    let made = "SELECT count(*) > 0 FROM portal_audit.progress";
    for _ in 0..6 {
        let program = Program::run(&settings.path);
        wait_for("a progress row", async || value::<bool>(&portal.audit, made).await).await;
        // A random little while, measured in round trips.
        for _ in 0..dice.below(30) {
            value::<bool>(&portal.audit, made).await;
        }
        program.kill();
    }
    run(&portal.source, "TRUNCATE journal.change").await;
    let program = Program::run(&settings.path);
    portal.streaming().await;
    run(&portal.source, "TRUNCATE journal.change").await;
    portal.act("INSERT INTO portal.users (username, uid, gid) VALUES ('wrenn', 1, 1)").await;
    assert!(program.terminate().success());
    assert_eq!(portal.events().await.matches("subject=user/wrenn").count(), 1);
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE database = 'kills_at_creation'";
    assert_eq!(value::<i64>(&portal.source, slots).await, 1, "no slot may be left over");
}

/// Killed when it has connected and done nothing, and when its snapshot is written: the first leaves nothing behind, and after the second no table is read again.
#[tokio::test(flavor = "multi_thread")]
async fn killed_before_and_after_the_snapshot() {
    let portal = sample("kills_at_snapshot").await;
    run(&portal.source, "INSERT INTO portal.users (username, uid, gid) SELECT 'user' || n, n, n FROM generate_series(1, 2000) n").await;
    run(&portal.source, "TRUNCATE journal.change").await;
    let dsn = |user: &str| format!("{:?}", cluster().dsn("kills_at_snapshot", user));
    let text = portal.settings_text.replace(&dsn("postgres"), &dsn("kills_reader"));
    let portal = Portal { settings_text: text, ..portal };
    let reader = Settings::parse(Path::new("test.toml"), &portal.settings_text).unwrap();
    run(&portal.source, &portal_audit::sql::source(&reader.sources[0])).await;
    let settings = SettingsFile::new(&portal);

    let other = open(cluster(), "kills_at_snapshot_audit").await;
    run(&other, "BEGIN; LOCK TABLE portal_audit.event_types").await;
    let program = Program::run(&settings.path);
    let waits = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = 'kills_at_snapshot_audit' AND wait_event_type = 'Lock'";
    wait_for("the lock", async || value::<bool>(&portal.source, waits).await).await;
    program.kill();
    run(&other, "COMMIT").await;
    let left = "SELECT count(*) FROM pg_replication_slots WHERE database = 'kills_at_snapshot'";
    assert_eq!(value::<i64>(&portal.source, left).await, 0);
    assert_eq!(value::<i64>(&other, "SELECT count(*) FROM portal_audit.progress").await, 0);

    let program = Program::run(&settings.path);
    portal.streaming().await;
    program.kill();
    run(&portal.source, "REVOKE ALL ON SCHEMA portal FROM kills_reader").await;
    let program = Program::run(&settings.path);
    portal.act("INSERT INTO portal.users (username, uid, gid) VALUES ('wren', 1, 1)").await;
    assert!(program.terminate().success());
    let proof = portal.proof().await;
    assert_eq!((proof.events, proof.lost, proof.doubled), (1, 0, 0), "{:#?}", proof.differences);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_and_started_goes_on_where_it_was() {
    let portal = sample("stop_start").await;
    let user = |name: &str| {
        format!("INSERT INTO portal.users (username, uid, gid) VALUES ('{name}', 1, 1)")
    };
    for name in ["first", "second", "third"] {
        let sidecar = portal.start().await;
        portal.act(&user(name)).await;
        sidecar.stop().await;
        // Confirmed before it ended: a source that shuts down need not wait for us.
        let end: String =
            value(&portal.audit, "SELECT end_lsn::text FROM portal_audit.progress").await;
        let confirmed = format!(
            "SELECT confirmed_flush_lsn = '{end}' FROM pg_replication_slots WHERE database = 'stop_start'"
        );
        // The walsender has read our last word before we go, unless the machine is too busy.
        wait_for("the confirmation", async || value::<bool>(&portal.source, &confirmed).await)
            .await;
        run(&portal.source, &user(&format!("{name}_while_away"))).await;
    }
    let sidecar = portal.start().await;
    portal.catch_up().await;
    sidecar.stop().await;
    let proof = portal.proof().await;
    assert_eq!((proof.events, proof.lost, proof.doubled), (6, 0, 0), "{:#?}", proof.differences);
}
