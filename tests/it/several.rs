//! Several sidecars, slots and sources beside each other: an event is one row, whoever tells it, and two sources are never taken for one.

use crate::support::{
    Sidecar, Wishes, installation,
    program::{SettingsFile, limited},
    run,
    servers::{Servers, Wanted},
    value, wait_for,
};
use portal_audit::{config::Settings, demo::cluster::Cluster};
use std::path::Path;

fn user(name: &str) -> String {
    format!("INSERT INTO portal.users (username, uid, gid) VALUES ('{name}', 1, 1)")
}

fn parse(text: &str) -> Settings {
    Settings::parse(Path::new("test.toml"), text).unwrap()
}

/// Two sidecars with a slot each follow one database into one table: the same events have the same ids, also where they come by COPY.
#[tokio::test(flavor = "multi_thread")]
async fn two_slots_and_one_table() {
    const USERS: i64 = 600;
    let cluster = Cluster::start(&installation(), &[]).unwrap();
    let limits = "batch_events = 150\nretry_max_seconds = 1";
    let wishes = Wishes { name: "two_slots", limits, ..Wishes::default() };
    let portal = crate::support::portal(&cluster, wishes).await;
    let other = parse(&portal.settings_text.replace("name = \"two_slots\"", "name = \"second\""));
    assert_eq!(other.sources[0].slot, "portal_audit_second");
    let first = portal.start().await;
    let second = Sidecar::start(other);
    let both = "SELECT count(*) = 2 AND bool_and(state = 'streaming') FROM portal_audit.progress";
    wait_for("both", async || value::<bool>(&portal.audit, both).await).await;
    for round in 0..3 {
        let many = format!(
            "INSERT INTO portal.users (username, uid, gid) SELECT 'user{round}_' || n, n, n FROM generate_series(1, {USERS}) n"
        );
        run(&portal.source, &many).await;
        for seed in round * 20..round * 20 + 20 {
            run(&portal.source, &format!("SELECT activity.act({seed})")).await;
        }
    }
    portal.catch_up().await;
    first.stop().await;
    second.stop().await;
    let expected: i64 = value(&portal.source, "SELECT count(*) FROM journal.expected").await;
    assert!(expected > 3 * USERS, "{expected}");
    assert_eq!(portal.count().await, expected);
    crate::support::sealed::assert_sealed(&portal.audit).await;
    let differ = "SELECT count(*) FROM (SELECT FROM public.events GROUP BY payload->'_audit'->>'xid', event_type, subject, target, payload - '_audit', payload->'_audit'->'n' HAVING count(*) > 1) AS twice";
    assert_eq!(value::<i64>(&portal.audit, differ).await, 0);
}

/// Two clusters, made alike, with a database of the same name: under one name the second is refused; under two, each event of both is there.
#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_alike() {
    let (servers, portal) = Servers::start("alike", Wanted::default()).await;
    let twin = Cluster::start(&installation(), &[]).unwrap();
    let text = portal.settings_text.replace(
        servers.source.socket_dir().to_str().unwrap(),
        twin.socket_dir().to_str().unwrap(),
    );
    crate::support::run(&crate::support::open(&twin, "postgres").await, "CREATE DATABASE alike")
        .await;
    let source = crate::support::open(&twin, "alike").await;
    for script in [
        portal_audit::demo::portal::PORTAL_SQL,
        portal_audit::demo::portal::ACTIVITY_SQL,
        portal_audit::demo::portal::JOURNAL_SQL,
        portal_audit::sql::context(),
    ] {
        run(&source, script).await;
    }
    run(&source, &portal_audit::sql::source(&parse(&text).sources[0])).await;
    let first = portal.start().await;
    portal.act(&user("one")).await;
    let fault = Sidecar::start(parse(&text)).ended().await.join("");
    assert!(fault.contains("the source is another cluster (system identifier"), "{fault}");
    let second = Sidecar::start(parse(&text.replace("name = \"alike\"", "name = \"twin\"")));
    let both = "SELECT count(*) = 2 AND bool_and(state = 'streaming') FROM portal_audit.progress";
    wait_for("both", async || value::<bool>(&portal.audit, both).await).await;
    for seed in 0..30 {
        for source in [&portal.source, &source] {
            run(source, &format!("SELECT activity.act({seed})")).await;
        }
    }
    let expected = "SELECT count(*) FROM journal.expected";
    let expected =
        value::<i64>(&portal.source, expected).await + value::<i64>(&source, expected).await;
    wait_for("all events", async || portal.count().await == expected).await;
    first.stop().await;
    second.stop().await;
    assert_eq!(portal.count().await, expected);
    let proof = portal.proof().await;
    assert_eq!((proof.lost, proof.doubled), (0, 0), "{:#?}", proof.differences);
}

/// Little memory: a transaction of any length passes. A row that does not fit ends the program, harms nobody, and passes once there is room for it.
#[tokio::test(flavor = "multi_thread")]
async fn little_memory() {
    const MEGABYTE: u64 = 1 << 20;
    let cluster = Cluster::start(&installation(), &[]).unwrap();
    let limits = "transaction_memory_bytes = 1048576";
    let wishes = Wishes { name: "little", limits, ..Wishes::default() };
    let portal = crate::support::portal(&cluster, wishes).await;
    // The journal would take its time over such rows.
    run(&portal.source, "DROP SCHEMA journal CASCADE").await;
    let settings = SettingsFile::new(&portal);
    let arguments = ["run", "--config", settings.path.to_str().unwrap()];
    let start = |megabytes: u64| {
        let command = limited(megabytes * MEGABYTE, &arguments);
        command.map(|mut command| command.stderr(std::process::Stdio::null()).spawn().unwrap())
    };
    let Some(mut program) = start(256) else { return };
    portal.streaming().await;
    run(&portal.source, "INSERT INTO portal.users (username, name, uid, gid) SELECT 'user' || n, repeat('x', 1000), n, n FROM generate_series(1, 20000) n").await;
    portal.catch_up().await;
    assert!(program.try_wait().unwrap().is_none(), "it has ended");
    run(&portal.source, "INSERT INTO portal.users (username, category, uid, gid) VALUES ('large', repeat('x', 100000000), 1, 1)").await;
    assert!(!program.wait().unwrap().success());
    // The portal is none the worse, and whoever gives it more room loses nothing.
    run(&portal.source, &user("small")).await;
    let Some(mut program) = start(1_024) else { return };
    portal.catch_up().await;
    crate::support::program::signal(program.id(), "TERM");
    assert!(program.wait().unwrap().success());
    let told = "SELECT string_agg(subject, ' ' ORDER BY subject) FROM public.events WHERE subject IN ('large', 'small')";
    assert_eq!(value::<String>(&portal.audit, told).await, "large small");
    assert_eq!(portal.count().await, 20_002);
}
