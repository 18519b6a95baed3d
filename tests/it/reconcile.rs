//! After a gap: what rows before and after it tell is written under its own name, marked `inferred`.

use crate::support::{
    Portal, Sidecar, Wishes, cluster,
    kratos::{KRATOS_SQL, steps, with},
    open, portal,
    program::{Program, SettingsFile},
    run, sample, value, wait_for,
};
use portal_audit::demo::portal::PORTAL_SQL;

const GAPS: &str = "SELECT count(*) FROM public.events WHERE event_type = 'audit_gap'";
const INFERRED: &str = "SELECT coalesce(string_agg(event_type || ' ' || subject || ' ' || (payload - '_audit')::text, E'\n' ORDER BY event_type, subject), '') FROM public.events WHERE payload->'_audit' ? 'inferred'";

fn slot(portal: &Portal) -> String {
    format!("portal_audit_{}", portal.name)
}

async fn free(portal: &Portal) {
    let free =
        format!("SELECT NOT active FROM pg_replication_slots WHERE slot_name = '{}'", slot(portal));
    wait_for("the slot is free", async || value::<bool>(&portal.source, &free).await).await;
}

fn facility(name: &str) -> String {
    format!("INSERT INTO portal.facilities (name, address) VALUES ('{name}', 'old')")
}

/// Followed for some changes; then what a script does is lost with the slot.
async fn lost(portal: &Portal, before: &str, lost: &str) {
    let sidecar = portal.start().await;
    portal.act(before).await;
    sidecar.stop().await;
    free(portal).await;
    run(&portal.source, &format!("SELECT pg_drop_replication_slot('{}')", slot(portal))).await;
    for statement in lost.split(';').filter(|statement| !statement.trim().is_empty()) {
        run(&portal.source, statement).await;
    }
}

async fn accepted(portal: &Portal, gaps: i64) -> Sidecar {
    let sidecar = Sidecar::start_accepting(portal.settings.clone());
    wait_for("the gap", async || value::<i64>(&portal.audit, GAPS).await == gaps).await;
    sidecar
}

async fn gap(portal: &Portal) -> serde_json::Value {
    let payload = "SELECT payload::text FROM public.events WHERE event_type = 'audit_gap' ORDER BY event_uuid DESC LIMIT 1";
    serde_json::from_str(&value::<String>(&portal.audit, payload).await).unwrap()
}

const BEFORE: &str = "INSERT INTO portal.facilities (name, address) VALUES ('changed', 'old'), ('gone', 'old'), ('kept', 'old'); INSERT INTO portal.users (username, uid, gid) VALUES ('before', 1, 1)";
const LOST: &str = "UPDATE portal.facilities SET address = 'new' WHERE name = 'changed'; DELETE FROM portal.facilities WHERE name = 'gone'; INSERT INTO portal.facilities (name, address) VALUES ('appeared', 'new'); INSERT INTO portal.users (username, uid, gid) VALUES ('lost', 2, 2)";
const TOLD: &str = r#"facility_deleted gone {"address": "old", "description": ""}
facility_registered appeared {"address": "new", "access_mode": "public", "description": ""}
facility_updated changed {"address": "new", "changed": ["address"], "access_mode": "public", "description": ""}
user_created lost {"state": "notset", "category": "", "institution": ""}"#;

async fn told_once(portal: &Portal) {
    assert_eq!(value::<String>(&portal.audit, INFERRED).await, TOLD);
    let gap = gap(portal).await;
    let inside = format!(
        "SELECT bool_and(timestamp > '{}' AND timestamp <= '{}' AND caller = '') FROM public.events WHERE payload->'_audit' ? 'inferred'",
        gap["from_time"].as_str().unwrap(),
        gap["to_time"].as_str().unwrap()
    );
    assert!(value::<bool>(&portal.audit, &inside).await);
    let proof = portal.proof().await;
    assert_eq!((proof.lost, proof.doubled), (4, 0), "{:#?}", proof.differences);
    let counted = "SELECT events = (SELECT count(*) FROM public.events) FROM portal_audit.progress";
    assert!(value::<bool>(&portal.audit, counted).await, "progress must count each event once");
    let left = "SELECT count(*) FROM portal_audit.names WHERE entity LIKE 'gap.%'";
    assert_eq!(value::<i64>(&portal.audit, left).await, 0);
}

/// Appeared, vanished and changed rows are told by the rules of the stream; the gap says which tables could be compared.
#[tokio::test(flavor = "multi_thread")]
async fn rows_before_and_after_a_gap() {
    let portal = sample("reconcile").await;
    lost(&portal, BEFORE, LOST).await;
    let sidecar = accepted(&portal, 1).await;
    told_once(&portal).await;
    let gap = gap(&portal).await;
    let has = |list: &str, table: &str| {
        gap[list].as_array().is_some_and(|tables| tables.contains(&table.into()))
    };
    assert!(
        has("compared", "portal.facilities") && has("compared_in_part", "portal.users"),
        "{gap}"
    );
    assert!(
        has("not_compared", "portal.public_keys") || !has("compared", "portal.public_keys"),
        "{gap}"
    );
    // What is remembered is how it is now.
    portal.act("UPDATE portal.facilities SET address = 'newer' WHERE name = 'changed'; DELETE FROM portal.facilities WHERE name = 'appeared'").await;
    sidecar.stop().await;
    let proof = portal.proof().await;
    assert_eq!((proof.lost, proof.doubled), (4, 0), "{:#?}", proof.differences);
}

/// With `backfill` the rows that know when they were created are told as such, and not twice, whether they are remembered or not.
#[tokio::test(flavor = "multi_thread")]
async fn backfilled_rows_are_not_told_twice() {
    let text = include_str!("../../deploy/mapping/merge-reference.toml");
    let registered = "type         = \"facility_registered\"\n";
    let dated = text.replace(registered, &format!("{registered}backfill = \"created\"\n"));
    assert_ne!(text, dated);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dated.toml");
    std::fs::write(&path, dated).unwrap();
    let mapping = path.to_str().unwrap();
    let schema = format!(
        "{PORTAL_SQL}; ALTER TABLE portal.facilities ADD COLUMN created TIMESTAMPTZ NOT NULL DEFAULT now()"
    );
    for (name, backfill) in [("reconcile_backfill", true), ("reconcile_dated", false)] {
        let wishes = Wishes { name, backfill, mapping, schema: &schema, ..Wishes::default() };
        let portal = portal(cluster(), wishes).await;
        lost(&portal, BEFORE, LOST).await;
        let sidecar = accepted(&portal, 1).await;
        sidecar.stop().await;
        let told: Vec<&str> = TOLD.lines().collect();
        // Those of the user and of the facility that appeared have dates.
        let inferred = if backfill { format!("{}\n{}", told[0], told[2]) } else { TOLD.to_owned() };
        assert_eq!(value::<String>(&portal.audit, INFERRED).await, inferred, "{name}");
        let dated = "SELECT count(*) FROM public.events WHERE subject IN ('lost', 'appeared')";
        assert_eq!(value::<i64>(&portal.audit, dated).await, 2, "{name}");
    }
}

/// What a TRUNCATE told is not told again, row by row.
#[tokio::test(flavor = "multi_thread")]
async fn truncated_rows_did_not_vanish_in_the_gap() {
    let portal = sample("reconcile_truncate").await;
    let sidecar = portal.start().await;
    portal.act(&facility("first")).await;
    sidecar.stop().await;
    free(&portal).await;
    let before = format!(
        "BEGIN; {}; TRUNCATE portal.facilities CASCADE; {}; COMMIT",
        facility("second"),
        facility("third")
    );
    lost(&portal, &before, "DELETE FROM portal.facilities").await;
    let sidecar = accepted(&portal, 1).await;
    sidecar.stop().await;
    let told = value::<String>(&portal.audit, INFERRED).await;
    assert_eq!(told, "facility_deleted third {\"address\": \"old\", \"description\": \"\"}");
}

/// After changes were passed over not every row is remembered: one that is not known may be old.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_rows_are_not_new_rows() {
    let portal = sample("reconcile_part").await;
    let sidecar = portal.start().await;
    portal.act(BEFORE).await;
    sidecar.stop().await;
    free(&portal).await;
    run(&portal.source, &facility("passed")).await;
    let advance =
        format!("SELECT pg_replication_slot_advance('{}', pg_current_wal_lsn())", slot(&portal));
    run(&portal.source, &advance).await;
    let sidecar = accepted(&portal, 1).await;
    portal.act(&facility("known")).await;
    sidecar.stop().await;
    free(&portal).await;
    lost(&portal, "SELECT 1", "DELETE FROM portal.facilities WHERE name IN ('known', 'gone')")
        .await;
    let sidecar = accepted(&portal, 2).await;
    sidecar.stop().await;
    let told = value::<String>(&portal.audit, INFERRED).await;
    assert_eq!(told, "facility_deleted known {\"address\": \"old\", \"description\": \"\"}");
    let gap = gap(&portal).await;
    let parts = gap["compared_in_part"].as_array().unwrap();
    assert!(parts.contains(&"portal.facilities".into()), "{gap}");
    // A third gap finds everything remembered again.
    let gone = "DELETE FROM portal.facilities WHERE name = 'kept'";
    lost(&portal, "SELECT 1", &format!("{gone}; {}", facility("late"))).await;
    let sidecar = accepted(&portal, 3).await;
    sidecar.stop().await;
    let told = value::<String>(&portal.audit, INFERRED).await;
    assert!(told.contains("facility_deleted kept") && told.contains("registered late"), "{told}");
    assert_eq!(told.lines().count(), 3, "{told}");
}

/// More rows than one chunk; killed in the midst of it, again and again: each is told once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_while_rows_are_compared() {
    let portal = sample("reconcile_kills").await;
    let many = "INSERT INTO portal.facilities (name, address) SELECT 'f' || n, 'old' FROM generate_series(1, 1300) n";
    let gone = "DELETE FROM portal.facilities WHERE name LIKE '%7'; UPDATE portal.facilities SET address = 'new' WHERE name LIKE '%1'";
    lost(&portal, many, gone).await;
    let settings = SettingsFile::new(&portal);
    // Before anything is set aside; and with everything compared and not yet written.
    for table in ["portal_audit.names", "public.events"] {
        let other = open(cluster(), &format!("{}_audit", portal.name)).await;
        // No transaction id: the making of the slot would wait for it.
        run(&other, &format!("BEGIN; LOCK TABLE {table} IN SHARE MODE")).await;
        let program = Program::run_accepting(&settings.path, &portal.name);
        let waits = format!(
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = '{}_audit' AND wait_event_type = 'Lock'",
            portal.name
        );
        wait_for("the lock", async || value::<bool>(&portal.audit, &waits).await).await;
        program.kill();
        run(&other, "COMMIT").await;
        assert_eq!(value::<i64>(&portal.audit, GAPS).await, 0);
    }
    let sidecar = accepted(&portal, 1).await;
    sidecar.stop().await;
    let told = "SELECT count(*) FILTER (WHERE event_type = 'facility_deleted') || ' ' || count(*) FILTER (WHERE event_type = 'facility_updated') || ' ' || count(DISTINCT event_uuid) FROM public.events WHERE payload->'_audit' ? 'inferred'";
    assert_eq!(value::<String>(&portal.audit, told).await, "130 130 260");
    assert_eq!(value::<i64>(&portal.audit, GAPS).await, 1);
}

/// The identity server: logins of the gap are in no row any more, and the gap says so. What waited then is never decided, so the gap begins before it.
#[tokio::test(flavor = "multi_thread")]
async fn logins_of_a_gap_are_gone() {
    let portal = with("reconcile_kratos", KRATOS_SQL, 3_600).await;
    steps(
        &portal,
        "CALL registered(1, 'wrenn');\nCALL registered(2, 'okafor7');\nCALL open_login(10);",
    )
    .await;
    let sidecar = portal.start().await;
    steps(&portal, "CALL accept(10, 'password');\nCALL open_session(20, 1);\nCALL open_login(11);\nCALL accept(11, 'password');\nCALL log_out(20);").await;
    portal.catch_up().await;
    sidecar.stop().await;
    free(&portal).await;
    let waits = "SELECT count(*) FROM portal_audit.names WHERE entity = 'kratos.pending'";
    assert_eq!(value::<i64>(&portal.audit, waits).await, 1);
    run(&portal.source, &format!("SELECT pg_drop_replication_slot('{}')", slot(&portal))).await;
    steps(&portal, "CALL registered(3, 'newcomer');\nCALL open_login(12);\nCALL accept(12, 'password');\nCALL open_session(21, 2);").await;
    let sidecar = accepted(&portal, 1).await;
    steps(&portal, "CALL open_login(13);\nCALL accept(13, 'password');\nCALL open_session(22, 3);\nCALL log_out(21);").await;
    portal.catch_up().await;
    sidecar.stop().await;
    assert_eq!(value::<i64>(&portal.audit, waits).await, 0);
    let told = "SELECT string_agg(event_type || ' ' || subject, ', ' ORDER BY timestamp) FROM public.events WHERE timestamp > (SELECT to_time FROM portal_audit.gaps)";
    assert_eq!(
        value::<String>(&portal.audit, told).await,
        "login_succeeded newcomer, logout okafor7"
    );
    let gap = gap(&portal).await;
    assert!(gap["not_compared"].as_array().is_some_and(|tables| tables.len() > 3), "{gap}");
    let late = format!(
        "SELECT count(*) FROM public.events WHERE event_type = 'logout' AND subject = 'wrenn' AND timestamp > '{}'",
        gap["from_time"].as_str().unwrap()
    );
    assert_eq!(value::<i64>(&portal.audit, &late).await, 1, "the gap begins with what waited");
}
