//! Retention, erasure and exports that are killed: at each of their steps, and at any moment. Either the program is (SIGKILL), or the session that does its work (`pg_terminate_backend`). What is there afterwards is whole, and goes on.

use crate::{
    retain::{STRANGERS, fill, filled, prune_all},
    support::{
        Portal, Wishes, cluster,
        life::{Dice, Life},
        open, portal,
        program::{Program, SettingsFile, command},
        run,
        sealed::{assert_sealed, assert_sealed_beside},
        value, wait_for,
    },
};
use std::{
    cell::RefCell,
    fs,
    io::Read as _,
    path::Path,
    process::{Child, Stdio},
};

/// Kills of a plain run at moments that nobody chose; `PORTAL_AUDIT_KILLS` is another number of them.
const KILLS: u64 = 8;

fn kills() -> u64 {
    let given = std::env::var_os("PORTAL_AUDIT_KILLS");
    given.map_or(KILLS, |text| text.into_string().unwrap().parse().unwrap())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Program,
    Session,
}

const VICTIMS: [Victim; 2] = [Victim::Program, Victim::Session];

fn start(arguments: &[&str]) -> Child {
    command(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What it said, once it has ended by itself with the exit code of a fault.
fn fault(mut child: Child) -> String {
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{said}");
    said
}

/// Runs a verb up to where it writes to a table, and kills there. The server may go on with what a killed program has sent; then that is waited for.
async fn kill_at(portal: &Portal, verb: &[&str], table: &str, victim: Victim) {
    let database = format!("{}_audit", portal.name);
    let other = open(cluster(), &database).await;
    run(&other, &format!("BEGIN; LOCK TABLE {table} IN EXCLUSIVE MODE")).await;
    let mut child = start(verb);
    let waits = format!(
        "SELECT coalesce((SELECT pid FROM pg_locks WHERE relation = '{table}'::regclass AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())), 0)"
    );
    let is_there = async || value::<i32>(&portal.audit, &waits).await != 0;
    wait_for(&format!("{verb:?} at {table}"), is_there).await;
    let pid: i32 = value(&portal.audit, &waits).await;
    match victim {
        Victim::Program => child.kill().unwrap(),
        Victim::Session => run(&portal.audit, &format!("SELECT pg_terminate_backend({pid})")).await,
    }
    run(&other, "COMMIT").await;
    let gone = format!("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = {pid}");
    wait_for("its session has ended", async || value::<bool>(&portal.audit, &gone).await).await;
    match victim {
        Victim::Program => drop(child.wait().unwrap()),
        Victim::Session => {
            let said = fault(child);
            assert!(said.contains("terminating connection"), "{said}");
        }
    }
}

/// Rows, salts, and lists: three numbers that one removal changes together.
const REMOVED: &str = "SELECT format('%s rows, %s zeros, %s in lists', (SELECT count(*) FROM public.events WHERE event_type <> 'retention_applied'), (SELECT count(*) FROM portal_audit.seals, generate_series(0, events - 1) AS n WHERE substr(salts, n * 16 + 1, 16) = decode(repeat('00', 16), 'hex')), (SELECT coalesce(sum(cardinality(places)), 0) FROM portal_audit.removed))";

#[tokio::test(flavor = "multi_thread")]
async fn pruning_that_is_killed_at_any_step_removes_a_batch_or_nothing() {
    const BATCH: usize = 10;
    let portal = filled("killed_prune", 260).await;
    let settings = SettingsFile::new(&portal);
    let config = settings.path.to_str().unwrap();
    let verb = ["prune", "--batch", &BATCH.to_string(), "--config", config];
    let before = usize::try_from(portal.count().await).unwrap();
    let mut removed = 0;
    for table in [
        "portal_audit.retention",
        "portal_audit.leaf_times",
        "public.events",
        "portal_audit.removed",
        "portal_audit.seals",
        "portal_audit.trees",
    ] {
        for victim in VICTIMS {
            kill_at(&portal, &verb, table, victim).await;
            assert_sealed_beside(&portal.audit, STRANGERS).await;
            // What a killed program has sent is done, and nothing of what it had not; a session that ends takes all back.
            let is_sent = victim == Victim::Program
                && !["portal_audit.retention", "portal_audit.leaf_times"].contains(&table);
            // The verb begins with the oldest again, which is of a stranger, due, and stays.
            removed += if is_sent { BATCH - STRANGERS } else { 0 };
            let (rows, zeros) = (before - removed, removed);
            let found: String = value(&portal.audit, REMOVED).await;
            let expected = format!("{rows} rows, {zeros} zeros, {zeros} in lists");
            assert_eq!(found, expected, "{table}, {victim:?}");
        }
    }
    let (gone, _) = prune_all(&portal, 1000).await;
    assert_eq!(usize::try_from(gone).unwrap() + removed, 2 * 81);
    assert_sealed_beside(&portal.audit, STRANGERS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_is_killed_at_any_step_changes_all_or_nothing() {
    let portal = filled("killed_erase", 10).await;
    let audit = &portal.audit;
    let settings = SettingsFile::new(&portal);
    let config = settings.path.to_str().unwrap();
    let tables = [
        "portal_audit.leaf_times",
        "public.events",
        "portal_audit.names",
        "portal_audit.removed",
        "portal_audit.seals",
        "portal_audit.trees",
    ];
    for (number, table) in tables.into_iter().enumerate() {
        for victim in VICTIMS {
            let name = format!("zoe{number}{victim:?}x");
            run(
                audit,
                &format!(
                    "SELECT portal_audit.record('login_failed', '{name}', '{name}', 'user', NULL, false, '{name} may not', '{{\"who\": \"{name}\"}}') FROM generate_series(1, 5);
                     INSERT INTO portal_audit.names VALUES ('portal', 'user', '{name}', '{name}')"
                ),
            )
            .await;
            let verb = ["erase", "user", &name, "--yes", "--config", config];
            kill_at(&portal, &verb, table, victim).await;
            assert_sealed_beside(audit, STRANGERS).await;
            let left = format!(
                "SELECT (SELECT count(*) FROM public.events WHERE '{name}' IN (caller, subject) AND payload ->> 'who' = '{name}' AND error_message <> '') + (SELECT count(*) FROM portal_audit.names WHERE '{name}' IN (name, key))"
            );
            let traces = format!(
                "SELECT (SELECT count(*) FROM public.events e WHERE e::text LIKE '%{name}%') + (SELECT count(*) FROM portal_audit.names n WHERE n::text LIKE '%{name}%')"
            );
            // The first step of all is where nothing has been done yet, and the server goes on with it.
            let expected = if victim == Victim::Program { 0 } else { 6 };
            assert_eq!(value::<i64>(audit, &left).await, expected, "{table}, {victim:?}");
            assert_eq!(value::<i64>(audit, &traces).await, expected, "{table}, {victim:?}");
            run(audit, &format!("SELECT portal_audit.erase_user('{name}')")).await;
            assert_eq!(value::<i64>(audit, &traces).await, 0, "{table}, {victim:?}");
        }
    }
    assert_sealed_beside(audit, STRANGERS).await;
}

/// The sidecar prunes and writes at once, and it or its session that prunes is killed wherever they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_sidecar_that_is_killed_while_it_prunes_leaves_nothing_half_done() {
    // Enough to be removed meanwhile.
    let days = 200 + 40 * i64::try_from(kills()).unwrap();
    let mut dice = Dice::new();
    let limits = "prune_interval_seconds = 1\nprune_events = 20\n";
    let wishes = Wishes { name: "killed_keeper", limits, ..Wishes::default() };
    let portal = portal(cluster(), wishes).await;
    fill(&portal, days).await;
    let settings = SettingsFile::new(&portal);
    let mut program = Program::run(&settings.path);
    portal.streaming().await;
    let life = Life::start(&cluster().dsn(&portal.name, "postgres"), 2);
    let applied = "SELECT count(*) FROM public.events WHERE event_type = 'retention_applied'";
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'killed_keeper_audit' AND application_name LIKE '%retention%'";
    let due = "SELECT coalesce(sum(events), 0)::bigint FROM portal_audit.prune(10, true)";
    for kill in 0..kills() {
        let before: i64 = value(&portal.audit, applied).await;
        if kill % 4 < 2 {
            wait_for("a batch, or the last one", async || {
                value::<i64>(&portal.audit, applied).await > before
                    || value::<i64>(&portal.audit, due).await == 0
            })
            .await;
        }
        life.wait(dice.below(30)).await;
        if kill % 2 == 0 {
            program.kill();
            program = Program::run(&settings.path);
        } else {
            run(&portal.audit, end).await;
        }
        run(&portal.audit, "SELECT portal_audit.record('login_failed', 'alice', 'alice', 'user', NULL, true, NULL, '{}')").await;
        assert_sealed(&portal.audit).await;
    }
    // The rest at once: where there were many kills, there is much of it.
    prune_all(&portal, 10_000).await;
    wait_for("pruning", async || value::<i64>(&portal.audit, due).await == 0).await;
    life.stop().await;
    portal.catch_up().await;
    assert!(program.terminate().success());
    let told = "SELECT sum((payload ->> 'removed')::bigint)::bigint FROM public.events WHERE event_type = 'retention_applied'";
    assert_eq!(value::<i64>(&portal.audit, told).await, 2 * (days - 179));
    let proof = portal.proof().await;
    assert_eq!((proof.lost, proof.doubled), (0, 0), "{:#?}", proof.differences);
    assert!(proof.events > 50, "the portal must live: {proof:?}");
}

/// Exports of one range, killed again and again, beside a log that grows.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_is_killed_goes_on_to_the_same_bytes() {
    const FILL: &str = "INSERT INTO public.events SELECT gen_random_uuid(), '2026-01-01 00:00+00'::timestamptz + n / 5 * interval '1 second', 'login_failed', 'alice', 'alice', 'user', NULL, false, 'reason ' || n, jsonb_build_object('n', n, 'text', repeat('x', 300)) FROM generate_series(1, 60000) AS n";
    let mut dice = Dice::new();
    let portal = crate::support::sample("killed_export").await;
    run(&portal.audit, FILL).await;
    let settings = SettingsFile::new(&portal);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for format in ["csv", "jsonl"] {
        let (whole, out) = (path(&format!("whole.{format}")), path(&format!("killed.{format}")));
        let verb = |out: &str, more: &[&str]| {
            let config = settings.path.to_str().unwrap();
            let all = ["export", "--format", format, "--until", "2026-02-01", "--out", out];
            start(&[&all[..], &["--config", config], more].concat())
        };
        assert!(verb(&whole, &[]).wait().unwrap().success());
        let bytes = fs::metadata(&whole).unwrap().len();
        let part = format!("{out}.part");
        let length = |path: &str| fs::metadata(path).map_or(0, |metadata| metadata.len());
        let mut killed = 0;
        for kill in 0..kills().min(20) {
            let begun = Path::new(&part).exists();
            let mut child = verb(&out, if begun { &["--resume"] } else { &[] });
            // The last whole event is gone on behind, so what was begun of the next is not counted twice.
            let upto = length(&part) + 1 + dice.below(bytes / 12);
            let ended = RefCell::new(&mut child);
            let is_ended = || ended.borrow_mut().try_wait().unwrap().is_some();
            wait_for("a part", async || is_ended() || length(&part) >= upto).await;
            let has_ended = is_ended();
            if has_ended {
                break;
            }
            killed += 1;
            if kill % 2 == 0 {
                child.kill().unwrap();
                child.wait().unwrap();
            } else {
                run(&portal.audit, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'killed_export_audit' AND application_name LIKE '%export%'").await;
                let status = child.wait().unwrap();
                assert!(matches!(status.code(), Some(0 | 1)), "{status}");
            }
            run(&portal.audit, "SELECT portal_audit.record('login_failed', 'alice', 'alice', 'user', NULL, true, NULL, '{}')").await;
        }
        assert!(killed > 1, "{killed} kills of {format}");
        if !Path::new(&out).exists() {
            assert!(verb(&out, &["--resume"]).wait().unwrap().success());
        }
        println!("{format}: {killed} kills in {bytes} bytes");
        assert!(fs::read(&whole).unwrap() == fs::read(&out).unwrap(), "{format}");
        assert!(command(&["export", "--check", &out]).output().unwrap().status.success());
        assert!(!Path::new(&part).exists());
    }
}
