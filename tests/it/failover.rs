//! A standby takes over: what is common goes on, what the old primary alone had is told, and what the new one has is not missed.

use crate::support::{
    Portal, Sidecar, Wishes, cluster, open,
    program::{Program, SettingsFile},
    run,
    sealed::take_out,
    standby::{Pair, SYNCHRONISED_SLOTS_SINCE, copy, major, moved},
    value, wait_for,
};
use portal_audit::demo::cluster::{Cluster, Shutdown};

const DIVERGED: &str = "SELECT count(*) FROM public.events WHERE event_type = 'audit_diverged'";
const GAPS: &str = "SELECT count(*) FROM public.events WHERE event_type = 'audit_gap'";
/// The events that a divergence calls no more, as the README finds them.
const PHANTOMS: &str = "FROM public.events p WHERE EXISTS (SELECT FROM public.events d WHERE d.event_type = 'audit_diverged' AND d.subject = p.payload #>> '{_audit,source}' AND (p.payload #>> '{_audit,lsn}')::pg_lsn >= (d.payload ->> 'from_lsn')::pg_lsn AND (p.payload #>> '{_audit,lsn}')::pg_lsn < (d.payload ->> 'to_lsn')::pg_lsn AND coalesce((p.payload #>> '{_audit,timeline}')::int, 1) = (d.payload ->> 'old_timeline')::int) AND p.event_type NOT IN ('audit_gap', 'audit_diverged')";

fn user(name: &str) -> String {
    format!("INSERT INTO portal.users (username, uid, gid) VALUES ('{name}', 1, 1)")
}

fn wishes(name: &str) -> Wishes<'_> {
    Wishes { name, ..Wishes::default() }
}

/// Whether the servers under test carry slots on to a standby; says so if not.
fn synchronises() -> bool {
    let synchronises = major() >= SYNCHRONISED_SLOTS_SINCE;
    if !synchronises {
        println!("not run: PostgreSQL {SYNCHRONISED_SLOTS_SINCE} and later");
    }
    synchronises
}

async fn timeline(portal: &Portal) -> i64 {
    value(&portal.audit, "SELECT timeline FROM portal_audit.progress").await
}

async fn proven(portal: &Portal) -> u64 {
    let proof = portal.proof().await;
    assert_eq!((proof.lost, proof.doubled), (0, 0), "{:#?}", proof.differences);
    assert!(proof.events > 0);
    proof.events
}

/// The standby has everything, and the slot: nothing is lost, doubled or told.
#[tokio::test(flavor = "multi_thread")]
async fn goes_on_with_a_standby_that_had_caught_up() {
    if !synchronises() {
        return;
    }
    let (mut pair, portal) = Pair::start(wishes("failover_caught_up")).await;
    let sidecar = portal.start().await;
    for seed in 0..20 {
        run(&portal.source, &format!("SELECT activity.act({seed})")).await;
    }
    portal.catch_up().await;
    pair.slot_synchronised(&portal).await;
    sidecar.stop().await;
    // Written before the failover and not yet read.
    run(&portal.source, &user("unread")).await;
    pair.caught_up().await;
    pair.primary.stop_server(Shutdown::Immediate).unwrap();
    pair.promote().await;
    let portal = moved(portal, &pair.primary, &pair.standby).await;
    let sidecar = portal.start().await;
    for seed in 20..40 {
        run(&portal.source, &format!("SELECT activity.act({seed})")).await;
    }
    portal.catch_up().await;
    sidecar.stop().await;
    assert_eq!(timeline(&portal).await, 2);
    proven(&portal).await;
    for told in [DIVERGED, GAPS] {
        assert_eq!(value::<i64>(&portal.audit, told).await, 0);
    }
}

/// The sidecar was ahead of the standby. What only it and the old primary know is told; what the new primary wrote at the same positions is not missed.
#[tokio::test(flavor = "multi_thread")]
async fn tells_of_a_standby_that_was_behind() {
    if !synchronises() {
        return;
    }
    let (mut pair, portal) = Pair::start(wishes("failover_behind")).await;
    let sidecar = portal.start().await;
    run(
        &portal.source,
        "INSERT INTO portal.facilities (name, address) VALUES ('kept', 'old'), ('changed', 'old')",
    )
    .await;
    portal.act(&user("common")).await;
    pair.slot_synchronised(&portal).await;
    pair.caught_up().await;
    pair.cut_off().await;
    // So much that what the new primary logs after its promotion stays below.
    run(&portal.source, "CREATE TABLE noise AS SELECT repeat('x', 900) FROM generate_series(1, 5000); DROP TABLE noise").await;
    for name in ["phantom1", "phantom2", "phantom3"] {
        run(&portal.source, &user(name)).await;
    }
    run(&portal.source, "UPDATE portal.facilities SET address = 'phantom' WHERE name = 'changed'")
        .await;
    portal.catch_up().await;
    sidecar.stop().await;
    pair.primary.stop_server(Shutdown::Immediate).unwrap();
    pair.promote().await;
    let from: String =
        value(&portal.audit, "SELECT end_lsn::text FROM portal_audit.progress").await;
    let portal = moved(portal, &pair.primary, &pair.standby).await;
    run(&portal.source, &user("new1")).await;
    run(&portal.source, "UPDATE portal.facilities SET address = 'new' WHERE name = 'kept'").await;
    let below = format!("SELECT pg_current_wal_lsn() < '{from}'");
    assert!(value::<bool>(&portal.source, &below).await, "the positions must be used again");
    let sidecar = portal.start().await;
    // Until then progress says more than was read.
    wait_for("the divergence", async || value::<i64>(&portal.audit, DIVERGED).await == 1).await;
    portal.act(&user("new2")).await;
    sidecar.stop().await;
    told(&portal, &from, 4).await;
    let names = "SELECT string_agg(name, ',') FROM portal_audit.names WHERE entity = 'row.portal.facilities'";
    let names: String = value(&portal.audit, names).await;
    assert!(!names.contains("phantom") && names.contains("new"), "{names}");
    take_out(&portal.audit, &format!("event_uuid IN (SELECT event_uuid {PHANTOMS})")).await;
    let events = proven(&portal).await;
    assert_eq!(events, 6, "two facilities, one user, two new ones, one update");
}

/// One event, with its bounds, and progress on the new timeline.
async fn told(portal: &Portal, from: &str, phantoms: i64) {
    assert_eq!(value::<i64>(&portal.audit, DIVERGED).await, 1);
    assert_eq!(value::<i64>(&portal.audit, GAPS).await, 0);
    assert_eq!(timeline(portal).await, 2);
    let payload = "SELECT payload::text FROM public.events WHERE event_type = 'audit_diverged'";
    let payload: String = value(&portal.audit, payload).await;
    let payload: serde_json::Value = serde_json::from_str(&payload).unwrap();
    assert_eq!((&payload["old_timeline"], &payload["new_timeline"]), (&1.into(), &2.into()));
    assert_eq!((&payload["to_lsn"], &payload["events"]), (&from.into(), &phantoms.into()));
    let history = "SELECT count(*) FROM portal_audit.gaps g JOIN public.events e USING (event_uuid) WHERE g.reason = 'diverged' AND g.timeline = 1 AND g.from_lsn = (e.payload->>'to_lsn')::pg_lsn AND g.to_lsn = (e.payload->>'from_lsn')::pg_lsn AND g.to_time < (e.payload->>'from_time')::timestamptz";
    assert_eq!(value::<i64>(&portal.audit, history).await, 1);
    let found = format!("SELECT count(*) {PHANTOMS}");
    assert_eq!(
        value::<i64>(&portal.audit, &found).await,
        phantoms,
        "the README's query finds them"
    );
    let times = format!(
        "SELECT min(timestamp) = '{}' AND max(timestamp) = '{}' {PHANTOMS}",
        payload["from_time"].as_str().unwrap(),
        payload["to_time"].as_str().unwrap()
    );
    assert!(value::<bool>(&portal.audit, &times).await, "{payload}");
}

fn accept(portal: &Portal) -> String {
    format!("To go on and record the gap: portal-audit run --accept-gap {}", portal.name)
}

/// Without the flag nothing is written, whatever was found.
async fn refused(portal: &Portal, because: &str) {
    let everything = "SELECT md5(coalesce((SELECT string_agg(e::text, '' ORDER BY event_uuid) FROM public.events e), '') || coalesce((SELECT string_agg(p::text, '') FROM portal_audit.progress p), '') || coalesce((SELECT string_agg(g::text, '') FROM portal_audit.gaps g), ''))";
    let before: String = value(&portal.audit, everything).await;
    let faults = Sidecar::start(portal.settings.clone()).ended().await.join("");
    assert!(faults.contains(because), "{faults}");
    assert_eq!(value::<String>(&portal.audit, everything).await, before);
}

async fn payload(portal: &Portal, event_type: &str) -> serde_json::Value {
    let query =
        format!("SELECT payload::text FROM public.events WHERE event_type = '{event_type}'");
    serde_json::from_str(&value::<String>(&portal.audit, &query).await).unwrap()
}

async fn progress(portal: &Portal) -> String {
    value(&portal.audit, "SELECT end_lsn::text FROM portal_audit.progress").await
}

/// No slot on the new primary, as on every one before 17: what was committed meanwhile is a gap, and the record goes on.
#[tokio::test(flavor = "multi_thread")]
async fn goes_on_without_the_slot_only_if_accepted() {
    let (mut pair, portal) = Pair::start_unsynchronised(wishes("failover_no_slot")).await;
    let sidecar = portal.start().await;
    portal.act(&user("common")).await;
    pair.caught_up().await;
    sidecar.stop().await;
    let from = progress(&portal).await;
    run(&portal.source, &user("lost")).await;
    pair.caught_up().await;
    pair.primary.stop_server(Shutdown::Immediate).unwrap();
    pair.promote().await;
    let portal = moved(portal, &pair.primary, &pair.standby).await;
    refused(&portal, &format!("is gone, and with it the changes since {from}")).await;
    refused(&portal, &accept(&portal)).await;
    let sidecar = Sidecar::start_accepting(portal.settings.clone());
    wait_for("the gap", async || value::<i64>(&portal.audit, GAPS).await == 1).await;
    portal.act(&user("after")).await;
    sidecar.stop().await;
    let gap = payload(&portal, "audit_gap").await;
    assert_eq!((&gap["reason"], &gap["from_lsn"]), (&"slot_lost".into(), &from.as_str().into()));
    assert!(gap["bytes"].as_u64().is_some_and(|bytes| bytes > 0), "one log: {gap}");
    assert_eq!((timeline(&portal).await, value::<i64>(&portal.audit, DIVERGED).await), (2, 0));
    let inside = format!(
        "SELECT created > '{}' AND created < '{}' FROM portal.users WHERE username = 'lost'",
        gap["from_time"].as_str().unwrap(),
        gap["to_time"].as_str().unwrap()
    );
    assert!(value::<bool>(&portal.source, &inside).await, "{gap}");
    let inferred = "SELECT string_agg(event_type || ' ' || subject, '') FROM public.events WHERE payload->'_audit' ? 'inferred'";
    assert_eq!(value::<String>(&portal.audit, inferred).await, "user_created lost");
    let proof = portal.proof().await;
    assert_eq!((proof.lost, proof.doubled), (1, 0), "{:#?}", proof.differences);
}

/// No slot, and the standby was behind: first the record goes back to where the logs part, and the gap begins there.
#[tokio::test(flavor = "multi_thread")]
async fn goes_on_without_the_slot_of_a_standby_that_was_behind() {
    let (mut pair, portal) = Pair::start_unsynchronised(wishes("failover_no_slot_behind")).await;
    let sidecar = portal.start().await;
    portal.act(&user("common")).await;
    pair.caught_up().await;
    pair.cut_off().await;
    portal.act(&user("phantom")).await;
    sidecar.stop().await;
    let from = progress(&portal).await;
    pair.primary.stop_server(Shutdown::Immediate).unwrap();
    pair.promote().await;
    let portal = moved(portal, &pair.primary, &pair.standby).await;
    run(&portal.source, &user("lost")).await;
    refused(&portal, &accept(&portal)).await;
    let sidecar = Sidecar::start_accepting(portal.settings.clone());
    wait_for("the gap", async || value::<i64>(&portal.audit, GAPS).await == 1).await;
    portal.act(&user("after")).await;
    sidecar.stop().await;
    let (diverged, gap) =
        (payload(&portal, "audit_diverged").await, payload(&portal, "audit_gap").await);
    assert_eq!((&diverged["to_lsn"], &diverged["events"]), (&from.into(), &1.into()));
    assert_eq!(gap["from_lsn"], diverged["from_lsn"]);
    let (common, times) = (
        "SELECT (extract(epoch FROM timestamp) * 1000000)::bigint FROM public.events WHERE subject = 'common'",
        format!(
            "SELECT (extract(epoch FROM '{}'::timestamptz) * 1000000)::bigint",
            gap["from_time"].as_str().unwrap()
        ),
    );
    assert_eq!(
        value::<i64>(&portal.audit, common).await,
        value::<i64>(&portal.audit, &times).await,
        "the gap begins where the common log ends, not with what is no more"
    );
    take_out(&portal.audit, &format!("event_uuid IN (SELECT event_uuid {PHANTOMS})")).await;
    let proof = portal.proof().await;
    assert_eq!((proof.lost, proof.doubled), (1, 0), "{:#?}", proof.differences);
}

/// A standby is waited for until it is promoted; an old primary that goes on by itself is refused for good.
#[tokio::test(flavor = "multi_thread")]
async fn follows_neither_a_standby_nor_the_old_primary() {
    let (pair, portal) = Pair::start_unsynchronised(wishes("failover_split")).await;
    let sidecar = portal.start().await;
    portal.act(&user("common")).await;
    sidecar.stop().await;
    pair.caught_up().await;
    let portal = moved(portal, &pair.primary, &pair.standby).await;
    let folder = tempfile::tempdir().unwrap();
    let (settings, log) = (SettingsFile::new(&portal), folder.path().join("log"));
    let program = Program::run_with_log(&settings.path, &log);
    let text = || std::fs::read_to_string(&log).unwrap_or_default();
    let said = async || text().matches("the source is a standby").count() > 1;
    wait_for("the standby to be told of, again and again", said).await;
    assert_eq!(portal.count().await, 1);
    pair.promote().await;
    // Its slot was not carried on, which is found as soon as it is a primary.
    let found = async || text().contains("is gone, and with it the changes since");
    wait_for("the promotion to be seen", found).await;
    program.kill();
    let sidecar = Sidecar::start_accepting(portal.settings.clone());
    wait_for("the gap", async || value::<i64>(&portal.audit, GAPS).await == 1).await;
    portal.act(&user("new")).await;
    sidecar.stop().await;
    proven(&portal).await;
    // Nobody stopped the old one.
    let portal = moved(portal, &pair.standby, &pair.primary).await;
    run(&portal.source, &user("split")).await;
    let branch = "the source is on timeline 1, and 2 was followed, which is not in its history: it is another branch of that cluster, such as an old primary after a failover.";
    refused(&portal, branch).await;
}

/// The log of a copy ends before what was written: without a look, its server would wait in silence until it had come that far.
#[tokio::test(flavor = "multi_thread")]
async fn finds_a_source_that_was_put_back() {
    let mut source =
        Cluster::start_with(&crate::support::installation(), &Default::default()).unwrap();
    let portal = crate::support::standby::portal(&source, wishes("failover_put_back")).await;
    let sidecar = portal.start().await;
    portal.act(&user("common")).await;
    sidecar.stop().await;
    let Portal { name, audit, settings, settings_text, source: session } = portal;
    drop(session);
    let older = copy(&mut source, &[], "true");
    let session = open(&source, &name).await;
    let portal = Portal { name, audit, settings, settings_text, source: session };
    let sidecar = portal.start().await;
    run(&portal.source, "CREATE TABLE noise AS SELECT repeat('x', 900) FROM generate_series(1, 5000); DROP TABLE noise").await;
    portal.act(&user("phantom")).await;
    sidecar.stop().await;
    let from = progress(&portal).await;
    let portal = moved(portal, &source, &older).await;
    run(&portal.source, &user("new1")).await;
    let found = format!("before what is written ({from}): it was put back to an older copy");
    refused(&portal, &found).await;
    refused(&portal, &accept(&portal)).await;
    let sidecar = Sidecar::start_accepting(portal.settings.clone());
    wait_for("the divergence", async || value::<i64>(&portal.audit, DIVERGED).await == 1).await;
    portal.act(&user("new2")).await;
    sidecar.stop().await;
    let diverged = payload(&portal, "audit_diverged").await;
    assert_eq!((&diverged["reason"], &diverged["to_lsn"]), (&"log_behind".into(), &from.into()));
    assert_eq!(value::<i64>(&portal.audit, GAPS).await, 0);
    take_out(&portal.audit, "subject = 'phantom'").await;
    assert_eq!(proven(&portal).await, 3);
}

/// Killed at any moment of it: the divergence is told once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_while_it_goes_back() {
    let (mut pair, portal) = Pair::start_unsynchronised(wishes("failover_kills")).await;
    let sidecar = portal.start().await;
    portal.act(&user("common")).await;
    pair.caught_up().await;
    pair.cut_off().await;
    for name in ["phantom1", "phantom2"] {
        portal.act(&user(name)).await;
    }
    sidecar.stop().await;
    pair.primary.stop_server(Shutdown::Immediate).unwrap();
    pair.promote().await;
    let portal = moved(portal, &pair.primary, &pair.standby).await;
    // As a slot that was synchronised stands: before where the logs part.
    let parting = pair.parting().await;
    run(&portal.source, &user("new1")).await;
    let slot = format!("portal_audit_{}", portal.name);
    let made = format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')");
    run(&portal.source, &made).await;
    let settings = SettingsFile::new(&portal);
    let locks = [
        "SELECT FROM portal_audit.progress FOR UPDATE",
        "LOCK TABLE portal_audit.gaps IN SHARE MODE",
        "LOCK TABLE portal_audit.names IN SHARE MODE",
        "LOCK TABLE public.events IN SHARE MODE",
    ];
    for lock in locks {
        let other = open(cluster(), &format!("{}_audit", portal.name)).await;
        run(&other, &format!("BEGIN; {lock}")).await;
        let program = Program::run_accepting(&settings.path, &portal.name);
        let waits = format!(
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = '{}_audit' AND wait_event_type = 'Lock'",
            portal.name
        );
        wait_for("the lock", async || value::<bool>(&portal.audit, &waits).await).await;
        program.kill();
        run(&other, "COMMIT").await;
        assert_eq!(value::<i64>(&portal.audit, DIVERGED).await, 0, "not yet committed: {lock}");
    }
    let program = Program::run_accepting(&settings.path, &portal.name);
    wait_for("the divergence", async || value::<i64>(&portal.audit, DIVERGED).await > 0).await;
    program.kill();
    let program = Program::run_accepting(&settings.path, &portal.name);
    wait_for("the gap", async || value::<i64>(&portal.audit, GAPS).await == 1).await;
    portal.act(&user("new2")).await;
    assert!(program.terminate().success());
    let diverged = payload(&portal, "audit_diverged").await;
    assert_eq!((&diverged["from_lsn"], &diverged["events"]), (&parting.into(), &2.into()));
    assert_eq!(value::<i64>(&portal.audit, DIVERGED).await, 1);
    let gap = payload(&portal, "audit_gap").await;
    assert_eq!((&gap["reason"], &gap["from_lsn"]), (&"slot_ahead".into(), &diverged["from_lsn"]));
    let proof = portal.proof().await;
    assert_eq!((proof.lost, proof.doubled), (1, 2), "{:#?}", proof.differences);
}

/// The audit database is an older copy of itself: what the slot gave away meanwhile is named by its bytes, and recorded once.
#[tokio::test(flavor = "multi_thread")]
async fn audit_database_put_back() {
    let portal = crate::support::sample("audit_put_back").await;
    let sidecar = portal.start().await;
    portal.act(&user("before")).await;
    sidecar.stop().await;
    let from = progress(&portal).await;
    let Portal { name, source, settings, settings_text, audit } = portal;
    drop(audit);
    let postgres = open(cluster(), "postgres").await;
    let database = format!("{name}_audit");
    let copy_database = async |from: &str, to: &str| {
        let alone = format!("SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = '{from}'");
        wait_for("its sessions to end", async || value::<bool>(&postgres, &alone).await).await;
        run(&postgres, &format!("CREATE DATABASE {to} TEMPLATE {from}")).await;
    };
    copy_database(&database, &format!("{name}_backup")).await;
    let audit = open(cluster(), &database).await;
    let portal = Portal { name, source, settings, settings_text, audit };
    let sidecar = portal.start().await;
    portal.act(&user("forgotten")).await;
    sidecar.stop().await;
    let Portal { name, source, settings, settings_text, audit } = portal;
    drop(audit);
    run(&postgres, &format!("DROP DATABASE {database} WITH (FORCE)")).await;
    copy_database(&format!("{name}_backup"), &database).await;
    let audit = open(cluster(), &database).await;
    let portal = Portal { name, source, settings, settings_text, audit };
    ahead(&portal, &from).await;
}

/// A standby of the audit database that was behind took over.
#[tokio::test(flavor = "multi_thread")]
async fn audit_database_on_a_standby_that_was_behind() {
    let (mut pair, other) = Pair::start_unsynchronised(wishes("audit_standby")).await;
    drop(other.source);
    let portal = other_audit(&pair.primary).await;
    let sidecar = portal.start().await;
    portal.act(&user("before")).await;
    pair.caught_up().await;
    pair.cut_off().await;
    let from: String = value(
        &open(&pair.standby, "audit_stale_audit").await,
        "SELECT end_lsn::text FROM portal_audit.progress",
    )
    .await;
    portal.act(&user("forgotten")).await;
    sidecar.stop().await;
    let Portal { name, source, settings_text, audit, .. } = portal;
    drop(audit);
    pair.primary.stop_server(Shutdown::Immediate).unwrap();
    pair.promote().await;
    let dsn = |cluster: &Cluster| format!("{:?}", cluster.dsn("audit_stale_audit", "postgres"));
    let settings_text = settings_text.replace(&dsn(&pair.primary), &dsn(&pair.standby));
    let settings = crate::support::standby::parse(&settings_text);
    let audit = open(&pair.standby, "audit_stale_audit").await;
    let portal = Portal { name, source, settings, settings_text, audit };
    ahead(&portal, &from).await;
}

/// A portal on the shared server, with its audit database on this one.
async fn other_audit(audit_cluster: &Cluster) -> Portal {
    let Portal { name, source, settings_text, .. } = crate::support::sample("audit_stale").await;
    run(&open(audit_cluster, "postgres").await, "CREATE DATABASE audit_stale_audit").await;
    let dsn = |cluster: &Cluster| format!("{:?}", cluster.dsn("audit_stale_audit", "postgres"));
    let settings_text = settings_text.replace(&dsn(cluster()), &dsn(audit_cluster));
    let settings = crate::support::standby::parse(&settings_text);
    let audit = open(audit_cluster, "audit_stale_audit").await;
    run(&audit, portal_audit::sql::audit()).await;
    Portal { name, source, settings, settings_text, audit }
}

/// What the audit database has forgotten is refused with the distance, and with the flag recorded once.
async fn ahead(portal: &Portal, from: &str) {
    let slot = format!("portal_audit_{}", portal.name);
    let confirmed = format!("FROM pg_replication_slots WHERE slot_name = '{slot}'");
    let free = format!("SELECT NOT active {confirmed}");
    wait_for("the slot is free", async || value::<bool>(&portal.source, &free).await).await;
    let distance = format!("SELECT (confirmed_flush_lsn - '{from}')::bigint {confirmed}");
    let bytes = value::<i64>(&portal.source, &distance).await;
    assert_eq!(portal.count().await, 1);
    let named = format!("is ahead of the audit database by {bytes} bytes ({from} to");
    refused(portal, &named).await;
    refused(portal, &accept(portal)).await;
    let sidecar = Sidecar::start_accepting(portal.settings.clone());
    wait_for("the gap", async || value::<i64>(&portal.audit, GAPS).await == 1).await;
    portal.act(&user("after")).await;
    sidecar.stop().await;
    let gap = payload(portal, "audit_gap").await;
    assert_eq!((&gap["reason"], &gap["bytes"]), (&"slot_ahead".into(), &bytes.into()));
    let proof = portal.proof().await;
    assert_eq!((proof.events, proof.lost, proof.doubled), (2, 1, 0), "{:#?}", proof.differences);
    assert!(proof.differences.iter().all(|line| line.contains("forgotten")));
}
