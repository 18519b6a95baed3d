//! Changes that are gone: with `--accept-gap` the record goes on, and says exactly once what is missing from it.

use crate::support::{
    Portal, Sidecar, Wishes, cluster, installation, open, portal,
    program::{Program, SettingsFile, command},
    run, sample, value, wait_for,
};
use portal_audit::{config::Settings, demo::cluster::Cluster};
use std::path::Path;

const GAPS: &str = "SELECT count(*) FROM public.events WHERE event_type = 'audit_gap'";
const PROGRESS: &str = "SELECT end_lsn::text FROM portal_audit.progress";

fn user(name: &str) -> String {
    format!("INSERT INTO portal.users (username, uid, gid) VALUES ('{name}', 1, 1)")
}

fn slot(portal: &Portal) -> String {
    format!("portal_audit_{}", portal.name)
}

async fn free(portal: &Portal) {
    let free =
        format!("SELECT NOT active FROM pg_replication_slots WHERE slot_name = '{}'", slot(portal));
    wait_for("the slot is free", async || value::<bool>(&portal.source, &free).await).await;
}

fn parse(settings: &str) -> Settings {
    Settings::parse(Path::new("test.toml"), settings).unwrap()
}

/// A portal that was followed for one change, with no more privileges than it needs, and is not now; gives where progress stands.
async fn followed(mut portal: Portal) -> (Portal, String) {
    let writer = format!("{}_writer", portal.name);
    run(&portal.audit, &format!("CREATE ROLE {writer} LOGIN IN ROLE portal_audit_writer")).await;
    let as_owner = format!("user='postgres' dbname='{}_audit'", portal.name);
    let as_writer = format!("user='{writer}' dbname='{}_audit'", portal.name);
    portal.settings_text = portal.settings_text.replace(&as_owner, &as_writer);
    assert!(portal.settings_text.contains(&writer));
    portal.settings = parse(&portal.settings_text);
    let sidecar = portal.start().await;
    portal.act(&user("before")).await;
    sidecar.stop().await;
    free(&portal).await;
    let from = value(&portal.audit, PROGRESS).await;
    (portal, from)
}

async fn drop_slot(portal: &Portal) {
    run(&portal.source, &format!("SELECT pg_drop_replication_slot('{}')", slot(portal))).await;
}

/// Without the flag: refused, with the way on named, and nothing written.
async fn refused(portal: &Portal) {
    let everything = "SELECT md5(coalesce((SELECT string_agg(e::text, '' ORDER BY event_uuid) FROM public.events e), '') || coalesce((SELECT string_agg(p::text, '') FROM portal_audit.progress p), '') || coalesce((SELECT string_agg(g::text, '') FROM portal_audit.gaps g), ''))";
    let before: String = value(&portal.audit, everything).await;
    let faults = Sidecar::start(portal.settings.clone()).ended().await.join("");
    let way = format!("To go on and record the gap: portal-audit run --accept-gap {}", portal.name);
    assert!(faults.ends_with(&way), "{faults}");
    assert_eq!(value::<String>(&portal.audit, everything).await, before);
}

async fn waits_for_gap(portal: &Portal) {
    wait_for("the gap", async || value::<i64>(&portal.audit, GAPS).await == 1).await;
}

/// Accepts, lives on, stops; then starts once more, with the flag and nothing to accept.
async fn accepted(portal: &Portal) {
    let sidecar = Sidecar::start_accepting(portal.settings.clone());
    waits_for_gap(portal).await;
    portal.act(&user("after")).await;
    sidecar.stop().await;
    free(portal).await;
    let sidecar = Sidecar::start_accepting(portal.settings.clone());
    portal.act(&user("later")).await;
    sidecar.stop().await;
}

/// Exactly one gap, from where progress stood to where the slot went on.
async fn told(portal: &Portal, reason: &str, from: &str) -> serde_json::Value {
    let payload = "SELECT payload::text FROM public.events WHERE event_type = 'audit_gap'";
    assert_eq!(value::<i64>(&portal.audit, GAPS).await, 1);
    let payload: String = value(&portal.audit, payload).await;
    let payload: serde_json::Value = serde_json::from_str(&payload).unwrap();
    assert_eq!((&payload["reason"], &payload["from_lsn"]), (&reason.into(), &from.into()));
    assert_eq!(payload["slot"], slot(portal));
    assert_eq!(payload["_audit"]["source"], portal.name);
    let row = "SELECT count(*) FROM public.events e JOIN portal_audit.gaps g USING (event_uuid) JOIN portal_audit.event_types t USING (event_type) WHERE e.subject = g.source AND e.subject_type = 'source' AND e.success AND e.caller = '' AND e.timestamp = g.to_time AND (e.payload->>'from_lsn')::pg_lsn = g.from_lsn AND (e.payload->>'to_lsn')::pg_lsn = g.to_lsn AND (e.payload->>'from_time')::timestamptz = g.from_time AND g.reason = e.payload->>'reason'";
    assert_eq!(value::<i64>(&portal.audit, row).await, 1);
    payload
}

/// What the portal's journal has beyond the record is what was done while nobody followed, and lies in the gap; nothing is there twice.
async fn only_lost(portal: &Portal, lost: &[&str]) {
    let proof = portal.proof().await;
    assert_eq!((proof.lost, proof.doubled), (lost.len() as u64, 0), "{:#?}", proof.differences);
    for name in lost {
        let is_told = proof.differences.iter().any(|line| line.contains(&format!("\"{name}\"")));
        assert!(is_told, "{name}: {:#?}", proof.differences);
    }
    let names = "SELECT string_agg(subject, ' ' ORDER BY timestamp) FROM public.events WHERE event_type = 'user_created' AND NOT payload->'_audit' ?| ARRAY['backfill', 'inferred']";
    assert_eq!(value::<String>(&portal.audit, names).await, "before after later");
    let counted = "SELECT events = (SELECT count(*) FROM public.events) FROM portal_audit.progress";
    assert!(value::<bool>(&portal.audit, counted).await, "progress must count each event once");
}

fn bytes(payload: &serde_json::Value) -> u64 {
    let lsn = |name: &str| payload[name].as_str().unwrap().parse::<portal_audit::lsn::Lsn>();
    lsn("to_lsn").unwrap().bytes_since(lsn("from_lsn").unwrap())
}

/// The time of the lost change lies between the gap's times.
async fn encloses(portal: &Portal, payload: &serde_json::Value) {
    let time = |name: &str| payload[name].as_str().unwrap().to_owned();
    let inside = format!(
        "SELECT created > '{}' AND created < '{}' FROM portal.users WHERE username = 'lost'",
        time("from_time"),
        time("to_time")
    );
    assert!(value::<bool>(&portal.source, &inside).await, "{payload}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slot_lost() {
    let (portal, from) = followed(sample("gap_lost").await).await;
    drop_slot(&portal).await;
    run(&portal.source, &user("lost")).await;
    refused(&portal).await;
    accepted(&portal).await;
    let payload = told(&portal, "slot_lost", &from).await;
    assert_eq!(payload["bytes"], bytes(&payload));
    assert!(bytes(&payload) > 0);
    encloses(&portal, &payload).await;
    only_lost(&portal, &["lost"]).await;
    let gaps = portal_audit::status::status(&portal.settings).await.unwrap()[0].gaps;
    assert_eq!(gaps, 1);
}

/// What is remembered of rows is how they are after the gap, and what a row that is gone held is not remembered.
#[tokio::test(flavor = "multi_thread")]
async fn slot_lost_leaves_no_stale_values() {
    let facility = "INSERT INTO portal.facilities (name, address, description) VALUES ('f', 'stale', ''), ('g', 'gone', '')";
    let portal = sample("gap_stale").await;
    run(&portal.source, facility).await;
    let (portal, from) = followed(portal).await;
    drop_slot(&portal).await;
    run(&portal.source, "UPDATE portal.facilities SET address = 'lost' WHERE name = 'f'; DELETE FROM portal.facilities WHERE name = 'g'").await;
    let sidecar = Sidecar::start_accepting(portal.settings.clone());
    waits_for_gap(&portal).await;
    let remembered = "SELECT string_agg(key || name, ' ') FROM portal_audit.names WHERE entity = 'row.portal.facilities'";
    let remembered: String = value(&portal.audit, remembered).await;
    assert!(remembered.contains("lost") && !remembered.contains("gone"), "{remembered}");
    portal.act("DELETE FROM portal.facilities").await;
    sidecar.stop().await;
    told(&portal, "slot_lost", &from).await;
    let proof = portal.proof().await;
    assert_eq!((proof.lost, proof.doubled), (4, 0), "{:#?}", proof.differences);
}

/// A slot that stands beyond progress goes on from there; what was remembered may be wrong by then and is forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn slot_ahead() {
    let portal = sample("gap_ahead").await;
    run(&portal.source, "INSERT INTO portal.facilities (name, address) VALUES ('f', 'stale')")
        .await;
    let (portal, from) = followed(portal).await;
    let move_on =
        format!("SELECT pg_replication_slot_advance('{}', pg_current_wal_lsn())", slot(&portal));
    run(&portal.source, &user("lost")).await;
    run(&portal.source, "UPDATE portal.facilities SET address = 'lost'").await;
    run(&portal.source, &move_on).await;
    let confirmed: String = value(
        &portal.source,
        &format!(
            "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = '{}'",
            slot(&portal)
        ),
    )
    .await;
    refused(&portal).await;
    accepted(&portal).await;
    let payload = told(&portal, "slot_ahead", &from).await;
    assert_eq!(
        (&payload["to_lsn"], &payload["bytes"]),
        (&confirmed.into(), &bytes(&payload).into())
    );
    encloses(&portal, &payload).await;
    let proof = portal.proof().await;
    assert_eq!((proof.lost, proof.doubled), (3, 0), "{:#?}", proof.differences);
    let remembered = "SELECT count(*) FROM portal_audit.names WHERE entity LIKE 'row.%'";
    assert_eq!(value::<i64>(&portal.audit, remembered).await, 0);
}

/// The server let the log go that the slot needed.
#[tokio::test(flavor = "multi_thread")]
async fn slot_invalid() {
    let cluster = Cluster::start(&installation(), &[("max_slot_wal_keep_size", "1MB")]).unwrap();
    let wishes = Wishes { name: "gap_invalid", ..Wishes::default() };
    let (portal, from) = followed(crate::support::portal(&cluster, wishes).await).await;
    run(&portal.source, &user("lost")).await;
    let invalid = format!(
        "SELECT coalesce(wal_status = 'lost', false) FROM pg_replication_slots WHERE slot_name = '{}'",
        slot(&portal)
    );
    wait_for("the slot to be given up", async || {
        run(&portal.source, "SELECT pg_switch_wal()").await;
        run(&portal.source, "CREATE TABLE noise (n INT)").await;
        run(&portal.source, "DROP TABLE noise").await;
        run(&portal.source, "CHECKPOINT").await;
        value::<bool>(&portal.source, &invalid).await
    })
    .await;
    refused(&portal).await;
    accepted(&portal).await;
    let payload = told(&portal, "slot_invalid", &from).await;
    // How much it is depends on how far behind the slot had to keep the log.
    assert!(bytes(&payload) > 0, "{payload}");
    encloses(&portal, &payload).await;
    only_lost(&portal, &["lost"]).await;
}

/// Behind the same name is another cluster, with a database of its own.
#[tokio::test(flavor = "multi_thread")]
async fn other_system() {
    let (portal, from) = followed(sample("gap_system").await).await;
    let other = Cluster::start(&installation(), &[]).unwrap();
    let wishes = Wishes { name: "gap_system", ..Wishes::default() };
    let there = crate::support::portal(&other, wishes).await;
    let Portal { source, settings, settings_text, .. } = there;
    let audit_dsn = format!("{:?}", cluster().dsn("gap_system_audit", "postgres"));
    let other_audit_dsn = format!("{:?}", other.dsn("gap_system_audit", "postgres"));
    drop(settings);
    let settings_text = settings_text.replace(&other_audit_dsn, &audit_dsn);
    let Portal { name, audit, .. } = portal;
    let settings = parse(&settings_text);
    let portal = Portal { name, source, audit, settings, settings_text };
    run(&portal.source, &user("lost")).await;
    run(&portal.audit, "INSERT INTO portal_audit.names VALUES ('gap_system', 'x', 'k', 'n')").await;
    refused(&portal).await;
    accepted(&portal).await;
    let payload = told(&portal, "other_system", &from).await;
    assert_eq!(payload.get("bytes"), None, "positions of two clusters cannot be compared");
    let system = "SELECT system_identifier::text FROM pg_control_system()";
    assert_eq!(payload["new_system_identifier"], value::<String>(&portal.source, system).await);
    assert_ne!(payload["old_system_identifier"], payload["new_system_identifier"]);
    let stale = "SELECT count(*) FROM portal_audit.names WHERE entity = 'x'";
    assert_eq!(value::<i64>(&portal.audit, stale).await, 0, "keys of another database");
    let proof = portal.proof().await;
    assert_eq!((proof.lost, proof.doubled), (1, 1), "`lost`; and `before` of the other cluster");
}

/// The same rows in another cluster, as after a dump and restore or an upgrade: refused, and with the flag nothing that was told is told again.
#[tokio::test(flavor = "multi_thread")]
async fn dumped_and_restored() {
    let (portal, from) = followed(sample("gap_restored").await).await;
    let row = "SELECT format('INSERT INTO portal.users (username, uid, gid, created) VALUES (%L, %s, %s, %L)', username, uid, gid, created) FROM portal.users";
    let row: String = value(&portal.source, row).await;
    let other = Cluster::start(&installation(), &[]).unwrap();
    let there = crate::support::standby::portal(
        &other,
        Wishes { name: "gap_restored2", ..Wishes::default() },
    )
    .await;
    let rename = "SET session_replication_role = replica; ";
    run(&there.source, &format!("{rename}{row}")).await;
    let dsn = |cluster: &Cluster, name: &str| format!("{:?}", cluster.dsn(name, "postgres"));
    let settings_text = portal
        .settings_text
        .replace(&dsn(cluster(), "gap_restored"), &dsn(&other, "gap_restored2"));
    let settings = parse(&settings_text);
    let Portal { name, audit, .. } = portal;
    let portal = Portal { name, source: there.source, audit, settings, settings_text };
    run(&portal.source, "RESET session_replication_role").await;
    refused(&portal).await;
    let sidecar = Sidecar::start_accepting(portal.settings.clone());
    waits_for_gap(&portal).await;
    portal.act(&user("after")).await;
    sidecar.stop().await;
    let payload = told(&portal, "other_system", &from).await;
    assert_ne!(payload["old_system_identifier"], payload["new_system_identifier"]);
    let users = "SELECT string_agg(subject, ' ' ORDER BY timestamp) FROM public.events WHERE event_type = 'user_created'";
    assert_eq!(value::<String>(&portal.audit, users).await, "before after");
}

/// A slot on another timeline, or of another database, may hold what is needed: it is not dropped by itself.
#[tokio::test(flavor = "multi_thread")]
async fn other_timeline_and_database() {
    for (name, reason, now) in [
        ("gap_timeline", "other_timeline", "timeline = 77"),
        ("gap_database", "other_database", "database_oid = 77"),
    ] {
        let (portal, from) = followed(sample(name).await).await;
        run(&portal.audit, &format!("UPDATE portal_audit.progress SET {now}")).await;
        refused(&portal).await;
        let faults = Sidecar::start_accepting(portal.settings.clone()).ended().await.join("");
        assert!(faults.contains("There is a slot of that name"), "{faults}");
        refused(&portal).await;
        drop_slot(&portal).await;
        run(&portal.source, &user("lost")).await;
        refused(&portal).await;
        accepted(&portal).await;
        let payload = told(&portal, reason, &from).await;
        let (column, _) = now.split_once(' ').unwrap();
        assert_eq!(payload[format!("old_{column}")], 77);
        assert!(payload[format!("new_{column}")].as_u64().is_some_and(|now| now > 0));
        only_lost(&portal, &["lost"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_lost_nothing_recorded() {
    let portal = sample("gap_none").await;
    for name in ["first", "second"] {
        let sidecar = Sidecar::start_accepting(portal.settings.clone());
        portal.streaming().await;
        portal.act(&user(name)).await;
        sidecar.stop().await;
        free(&portal).await;
    }
    assert_eq!(value::<i64>(&portal.audit, GAPS).await, 0);
    let rows = "SELECT count(*) FROM portal_audit.gaps";
    assert_eq!(value::<i64>(&portal.audit, rows).await, 0);
    let proof = portal.proof().await;
    assert_eq!((proof.events, proof.lost, proof.doubled), (2, 0, 0), "{:#?}", proof.differences);
}

/// What was accepted is the loss that was there at the start, if there was one, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn a_later_loss_is_refused() {
    for (name, gaps) in [("gap_second", 1), ("gap_later", 0)] {
        let (portal, from) = followed(sample(name).await).await;
        if gaps > 0 {
            drop_slot(&portal).await;
        }
        let sidecar = Sidecar::start_accepting(portal.settings.clone());
        wait_for("the gap", async || value::<i64>(&portal.audit, GAPS).await == gaps).await;
        portal.act(&user("after")).await;
        let cut = format!(
            "SELECT count(pg_terminate_backend(active_pid)) FROM pg_replication_slots WHERE slot_name = '{}'",
            slot(&portal)
        );
        let drop = format!("SELECT pg_drop_replication_slot('{}')", slot(&portal));
        // It comes back at once, and may be quicker than the drop.
        let is_dropped = async || {
            value::<i64>(&portal.source, &cut).await;
            portal.source.client.batch_execute(&drop).await.is_ok()
        };
        wait_for("the slot to be dropped", is_dropped).await;
        let faults = sidecar.ended().await.join("");
        assert!(faults.contains("is gone, and with it the changes since"), "{faults}");
        assert!(faults.ends_with(&format!("portal-audit run --accept-gap {name}")), "{faults}");
        if gaps > 0 {
            told(&portal, "slot_lost", &from).await;
        }
        assert_eq!(value::<i64>(&portal.audit, GAPS).await, gaps);
    }
}

/// Old rows become events if they are asked for, but not those that the stream gave.
#[tokio::test(flavor = "multi_thread")]
async fn backfill_fills_the_gap_and_nothing_else() {
    let wishes = Wishes { name: "gap_backfill", backfill: true, ..Wishes::default() };
    let portal = portal(cluster(), wishes).await;
    run(&portal.source, &user("old")).await;
    let (portal, from) = followed(portal).await;
    drop_slot(&portal).await;
    run(&portal.source, &user("lost")).await;
    accepted(&portal).await;
    told(&portal, "slot_lost", &from).await;
    let users = "SELECT string_agg(subject || CASE WHEN payload->'_audit' ? 'backfill' THEN ' old' ELSE '' END, ', ' ORDER BY subject) FROM public.events WHERE event_type = 'user_created'";
    let users: String = value(&portal.audit, users).await;
    assert_eq!(users, "after, before, later, lost old, old old");
}

/// Kills it while it waits for a lock that another session holds: in the midst of what it writes.
async fn kill_at(portal: &Portal, settings: &SettingsFile, lock: &str) {
    let other = open(cluster(), &format!("{}_audit", portal.name)).await;
    run(&other, &format!("BEGIN; {lock}")).await;
    let program = Program::run_accepting(&settings.path, &portal.name);
    let waits = format!(
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = '{}_audit' AND wait_event_type = 'Lock'",
        portal.name
    );
    wait_for("the lock", async || value::<bool>(&portal.source, &waits).await).await;
    program.kill();
    run(&other, "COMMIT").await;
}

/// Killed at any moment while a loss is accepted: one gap, whether a new slot or a moved one ends it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_while_it_is_accepted() {
    const PROGRESS_LOCK: &str = "SELECT FROM portal_audit.progress FOR UPDATE";
    const NAMES_LOCK: &str = "LOCK TABLE portal_audit.names IN SHARE MODE";
    let portal = sample("gap_kills").await;
    run(&portal.source, "INSERT INTO portal.facilities (name, address) SELECT 'facility' || n, 'x' FROM generate_series(1, 3000) n").await;
    let (portal, _) = followed(portal).await;
    let settings = SettingsFile::new(&portal);
    let begun = "SELECT count(*) FROM portal_audit.gaps";
    for round in 0..6_i64 {
        let from: String = value(&portal.audit, PROGRESS).await;
        if round % 2 == 0 {
            drop_slot(&portal).await;
        } else {
            run(&portal.source, &user(&format!("lost{round}"))).await;
            let advance = format!(
                "SELECT pg_replication_slot_advance('{}', pg_current_wal_lsn())",
                slot(&portal)
            );
            run(&portal.source, &advance).await;
        }
        // For a new slot: at the beginning, with its snapshot half written, and where it begins again. For a moved one: before its event, and after.
        let locks = [PROGRESS_LOCK, NAMES_LOCK, PROGRESS_LOCK];
        for lock in locks {
            kill_at(&portal, &settings, lock).await;
            assert_eq!(value::<i64>(&portal.audit, GAPS).await, round, "not yet committed");
        }
        let program = Program::run_accepting(&settings.path, &portal.name);
        wait_for("the gap", async || value::<i64>(&portal.audit, begun).await > round).await;
        // A little while, different each time, measured in round trips.
        for _ in 0..round * 20 {
            value::<i64>(&portal.audit, begun).await;
        }
        program.kill();
        // The acceptance is kept: from here on the flag is not needed.
        let program = Program::run(&settings.path);
        wait_for("the gap", async || value::<i64>(&portal.audit, GAPS).await > round).await;
        portal.act(&user(&format!("after{round}"))).await;
        assert!(program.terminate().success());
        free(&portal).await;
        let this = format!(
            "SELECT count(*) FROM public.events WHERE event_type = 'audit_gap' AND payload->>'from_lsn' = '{from}'"
        );
        assert_eq!(value::<i64>(&portal.audit, &this).await, 1, "one gap from there");
        assert_eq!(value::<i64>(&portal.audit, GAPS).await, round + 1, "and no other");
    }
    let rows = "SELECT count(*) FROM portal_audit.gaps g JOIN public.events e USING (event_uuid)";
    assert_eq!(value::<i64>(&portal.audit, rows).await, 6);
    let after = "SELECT count(*) FROM public.events WHERE event_type = 'user_created' AND subject LIKE 'after%'";
    assert_eq!(value::<i64>(&portal.audit, after).await, 6);
    let proof = portal.proof().await;
    // The facilities are older than the record.
    assert_eq!((proof.lost, proof.doubled), (3_003, 0), "{:#?}", proof.differences);
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE database = 'gap_kills'";
    assert_eq!(value::<i64>(&portal.source, slots).await, 1, "no slot may be left over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_not_there_cannot_be_accepted() {
    let portal = sample("gap_name").await;
    let settings = SettingsFile::new(&portal);
    let path = settings.path.to_str().unwrap();
    let output = command(&["run", "--config", path, "--accept-gap", "other"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("--accept-gap other: no such source"), "{text}");
}
