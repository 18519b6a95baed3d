//! Transactions of any size in bounded memory, and of two phases: all of their events or none, at their commit.

use crate::support::{
    Portal, Wishes, audit_database, cluster, open, portal,
    program::{Program, SettingsFile},
    run, sample, value, wait_for,
};
use portal_audit::{config::Settings, connect::Session};
use std::{path::Path, time::Duration};

/// Far less than the transactions here hold.
const SMALL: &str = "transaction_memory_bytes = 65536\nbatch_events = 500";
const PARENTS: &str =
    "INSERT INTO portal.users (username, state, uid, gid) VALUES ('alice', 'Active', 1, 1);
    INSERT INTO portal.projects (name, gid, state) VALUES ('p', 1, 'Active')";

/// A portal whose sidecar has little memory, with the parents of many experiments, and its own spool folder.
async fn with_little_memory(name: &str, limits: &str) -> (Portal, tempfile::TempDir) {
    let limits = format!("{SMALL}\n{limits}");
    let wishes = Wishes { name, limits: &limits, ..Wishes::default() };
    let mut portal = portal(cluster(), wishes).await;
    let spool = tempfile::tempdir().unwrap();
    portal.settings.limits.spool_folder = spool.path().to_owned();
    run(&portal.source, PARENTS).await;
    run(&portal.source, "TRUNCATE journal.change").await;
    (portal, spool)
}

/// Inserts experiments `first` to `last`.
fn experiments(first: u32, last: u32) -> String {
    format!(
        "INSERT INTO portal.experiments (project, name, creator, description)
         SELECT 'p', 'e' || g, 'alice', md5(g::text) || md5((g + 1)::text) FROM generate_series({first}, {last}) AS g;"
    )
}

/// Rows of the one transaction of a plain run; `PORTAL_AUDIT_ROWS` is another number of them.
const ROWS: u32 = 60_000;
/// Its savepoints, every third of which is rolled back.
const SAVEPOINTS: u32 = 1_000;
/// Bytes of memory that the program may hold, whatever it reads.
const MEMORY_MAX: u64 = 64 << 20;

fn rows() -> u32 {
    let given = std::env::var_os("PORTAL_AUDIT_ROWS");
    given.map_or(ROWS, |text| text.into_string().unwrap().parse().unwrap())
}

/// With the settings as they are shipped: each row that was kept is one event, and the program stays small. The journal's own triggers would take longer than all the rest, so the table itself is the oracle.
#[tokio::test(flavor = "multi_thread")]
async fn one_transaction_of_many_rows_needs_little_memory() {
    const NAMES: &str = "SELECT count(*)::text || ' ' || md5(string_agg(name, ' ' ORDER BY name COLLATE \"C\")) FROM ";
    let portal = sample("large_rows").await;
    run(&portal.source, PARENTS).await;
    run(&portal.source, "ALTER TABLE portal.experiments DISABLE TRIGGER ALL").await;
    let settings = SettingsFile::new(&portal);
    let program = Program::run(&settings.path);
    portal.streaming().await;
    let each = rows() / SAVEPOINTS;
    let act = async |verb: &str, statement: &dyn Fn(u32, u32) -> String| {
        let mut script = "BEGIN;".to_owned();
        for savepoint in 0..SAVEPOINTS {
            let first = savepoint * each;
            script += &format!("SAVEPOINT s; {};", statement(first, first + each - 1));
            script += if savepoint % 3 == 1 { "ROLLBACK TO s;" } else { "RELEASE s;" };
        }
        run(&portal.source, &(script + "COMMIT")).await;
        portal.catch_up_within(Duration::from_secs(1_800)).await;
        println!("{verb}: {} KiB held", program.memory_peak() / 1024);
    };
    act("inserted", &experiments).await;
    let kept: String = value(&portal.source, &format!("{NAMES} portal.experiments")).await;
    let created = format!(
        "{NAMES} (SELECT subject AS name FROM public.events WHERE event_type = 'experiment_created') e"
    );
    assert_eq!(value::<String>(&portal.audit, &created).await, kept);
    // Half of those that are there go, in savepoints of which a third are rolled back.
    let delete = |first: u32, last: u32| {
        format!(
            "DELETE FROM portal.experiments WHERE project = 'p' AND name = ANY (SELECT 'e' || g FROM generate_series({first}, {last}, 2) AS g)"
        )
    };
    act("deleted", &delete).await;
    let left: String = value(&portal.source, &format!("{NAMES} portal.experiments")).await;
    let not_deleted = format!(
        "{NAMES} (SELECT subject AS name FROM public.events GROUP BY 1 HAVING bool_or(event_type = 'experiment_created') AND NOT bool_or(event_type = 'experiment_deleted')) e"
    );
    assert_eq!(value::<String>(&portal.audit, &not_deleted).await, left);
    let peak = program.memory_peak();
    assert!(program.terminate().success());
    assert!(peak < MEMORY_MAX, "{peak} bytes were held");
}

async fn assert_proven(portal: &Portal, events: u64) {
    let proof = portal.proof().await;
    assert_eq!((proof.lost, proof.doubled), (0, 0), "{:#?}", proof.differences);
    assert_eq!(proof.events, events);
}

fn assert_empty(folder: &Path) {
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0, "the spool folder is empty");
}

/// 60,000 rows in 300 savepoints, a third of them rolled back. One sidecar gets them before the commit, another whole after it; both tell the same, and a reader sees all of it or nothing.
#[tokio::test(flavor = "multi_thread")]
async fn savepoints_of_a_large_transaction() {
    const ALL: &str =
        "SELECT md5(string_agg(e::text, ' ' ORDER BY event_uuid)) FROM public.events e";
    let (portal, spool) = with_little_memory("large", "").await;
    let text = portal.settings_text.replace("large_audit", "large_whole_audit");
    let mut settings = Settings::parse(Path::new("test.toml"), &text).unwrap();
    settings.sources[0].slot = "large_whole".to_owned();
    settings.limits.streaming = false;
    let whole = Portal {
        name: portal.name.clone(),
        source: open(cluster(), &portal.name).await,
        audit: audit_database(cluster(), "large_whole_audit").await,
        settings,
        settings_text: text,
    };
    let sidecars = [portal.start().await, whole.start().await];
    // Foreign keys are not what is tested; the journal's triggers fire all the same.
    let mut script = "BEGIN; SET LOCAL session_replication_role = replica;".to_owned();
    for savepoint in 0..300 {
        let first = savepoint * 200;
        script += &format!("SAVEPOINT s; {}", experiments(first, first + 199));
        script += if savepoint % 3 == 1 { "ROLLBACK TO s;" } else { "RELEASE s;" };
    }
    script += "COMMIT";
    let reader = open(cluster(), "large_audit").await;
    let (counts, ()) = tokio::join!(counts_until(&reader, 40_000), portal.act(&script));
    assert_eq!(counts, [0, 40_000], "a reader saw a part of a transaction");
    whole.catch_up().await;
    for sidecar in sidecars {
        sidecar.stop().await;
    }
    assert_proven(&portal, 40_000).await;
    assert_eq!(value::<String>(&portal.audit, ALL).await, value::<String>(&whole.audit, ALL).await);
    assert_empty(spool.path());
}

/// The different numbers of events that a reader sees until there are `last`.
async fn counts_until(reader: &Session, last: i64) -> Vec<i64> {
    let counts = std::sync::Mutex::new(Vec::new());
    wait_for("all events", async || {
        let count = value(reader, "SELECT count(*) FROM public.events").await;
        let mut counts = counts.lock().unwrap();
        if counts.last() != Some(&count) {
            counts.push(count);
        }
        count >= last
    })
    .await;
    counts.into_inner().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn large_transactions_interleave_and_one_rolls_back() {
    let (portal, spool) = with_little_memory("large_interleaved", "").await;
    let sidecar = portal.start().await;
    let other = open(cluster(), &portal.name).await;
    let streamed = "SELECT stream_count >= $1 FROM pg_stat_replication_slots WHERE slot_name = 'portal_audit_large_interleaved'";
    run(&portal.source, "BEGIN").await;
    run(&other, "BEGIN").await;
    for round in 0..5 {
        let first = round * 400;
        run(&portal.source, &experiments(first, first + 199)).await;
        run(&other, &experiments(first + 200, first + 399)).await;
        // A session that keeps the statistics of its transaction would wait for ever.
        let postgres = open(cluster(), "postgres").await;
        let segments = i64::from(round) * 2;
        wait_for("a segment of each", async || {
            let row = postgres.client.query_one(streamed, &[&segments]).await.unwrap();
            row.get::<_, bool>(0)
        })
        .await;
    }
    run(&other, "ROLLBACK").await;
    portal.act("COMMIT").await;
    sidecar.stop().await;
    assert_proven(&portal, 1_000).await;
    assert_empty(spool.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_context_of_a_large_transaction_may_come_last() {
    let (portal, spool) = with_little_memory("large_context", "").await;
    let sidecar = portal.start().await;
    let members = "BEGIN; INSERT INTO portal.organizations (name, oid) VALUES ('o', 1);
        INSERT INTO portal.organization_members (organization, kind, id) SELECT 'o', 'UserMember', 'u' || g FROM generate_series(1, 3000) AS g;
        SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{\"caller\": \"opsduty\"}'); COMMIT";
    portal.act(members).await;
    sidecar.stop().await;
    assert_proven(&portal, 3_001).await;
    let callers = "SELECT string_agg(DISTINCT caller || ' by ' || (payload->'_audit'->>'caller_from'), ', ') FROM public.events";
    assert_eq!(value::<String>(&portal.audit, callers).await, "opsduty by context");
    assert_empty(spool.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_transaction_is_told_when_it_is_committed() {
    let (portal, spool) = with_little_memory("large_prepared", "").await;
    let sidecar = portal.start().await;
    let prepare = |name: &str, first: u32, last: u32| {
        format!("BEGIN; {} PREPARE TRANSACTION '{name}'", experiments(first, last))
    };
    portal.act(&prepare("small_kept", 1, 2)).await;
    portal.act(&prepare("small_lost", 3, 4)).await;
    portal.act(&prepare("large_kept", 1_000, 2_999)).await;
    portal.act(&prepare("large_lost", 3_000, 4_999)).await;
    assert_eq!(portal.count().await, 0);
    portal.act("ROLLBACK PREPARED 'small_lost'").await;
    portal.act("ROLLBACK PREPARED 'large_lost'").await;
    assert_eq!(portal.count().await, 0);
    portal.act("COMMIT PREPARED 'large_kept'").await;
    assert_eq!(portal.count().await, 2_000);
    portal.act("COMMIT PREPARED 'small_kept'").await;
    sidecar.stop().await;
    assert_proven(&portal, 2_002).await;
    assert_empty(spool.path());
}
