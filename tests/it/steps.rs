//! A backlog is written in two steps: the events of a batch are copied while the one before it is finished. Whatever happens between the two, each is written once, and in its order.

use crate::support::{
    Portal, Wishes, cluster, portal,
    program::{Program, SettingsFile},
    run,
    sealed::assert_sealed,
    servers::{Servers, Wanted},
    value, wait_for,
};
use portal_audit::connect::Session;
use std::time::Duration;
use tokio::time::timeout;

const LIMITS: &str = "batch_events = 1000\nretry_max_seconds = 1";
const USERS: i64 = 16_000;
/// So long it is waited for both batches before one is let through.
const ROUND: Duration = Duration::from_secs(3);
/// There are at least four batches more.
const ROUNDS: usize = 12;

/// Who moves progress waits at the gate until it is open, and says who it is.
const GATE: &str = "CREATE TABLE public.passed (pid INT, is_pinned BOOLEAN, UNIQUE (pid, is_pinned));
    CREATE FUNCTION public.gate() RETURNS TRIGGER LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN PERFORM pg_advisory_xact_lock_shared(4711);
      INSERT INTO public.passed SELECT pg_backend_pid(), current_setting(''synchronous_commit'') = ''on'' AND current_setting(''lock_timeout'') = ''0'' ON CONFLICT DO NOTHING; RETURN NEW; END';
    CREATE TRIGGER gate BEFORE UPDATE ON portal_audit.progress FOR EACH ROW EXECUTE FUNCTION public.gate()";
const CLOSE: &str = "SELECT pg_advisory_lock(4711)";
const OPEN: &str = "SELECT pg_advisory_unlock(4711)";
const WAITS: &str = "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
/// The events of a batch are there, and nothing else of it.
const ASIDE: &str = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle%' AND query LIKE 'COPY public.events%'";

/// In transactions that are large enough each, so that no batch is too small for two steps, and two make a full one.
async fn backlog(source: &Session) {
    for first in (1..USERS).step_by(500) {
        run(source, &format!("INSERT INTO portal.users (username, uid, gid) SELECT 'user' || n, n, n FROM generate_series({first}, {first} + 499) AS n")).await;
    }
}

/// Lets one who waits at the gate through, and closes it behind.
async fn let_one_through(audit: &Session) {
    wait_for("somebody at the gate", async || value::<bool>(audit, WAITS).await).await;
    run(audit, OPEN).await;
    run(audit, CLOSE).await;
}

/// The sidecar stands at the gate with a batch, and has copied the next one. It has not where something else came in between, as a look at the catalog does, or where it has no second session yet: then one is let through.
async fn stand_in_the_midst(audit: &Session) {
    let is_midst = async || value::<bool>(audit, WAITS).await && value::<bool>(audit, ASIDE).await;
    let is_there = async || timeout(ROUND, wait_for("both", is_midst)).await.is_ok();
    for _ in 0..ROUNDS {
        if is_there().await {
            return;
        }
        let_one_through(audit).await;
    }
    panic!("no batch was copied aside");
}

/// Each user once, as many as progress tells, all sealed, and in the order of the log.
async fn whole(portal: &Portal) {
    portal.catch_up().await;
    let events = "SELECT count(*) || ' ' || count(DISTINCT subject) FROM public.events WHERE event_type = 'user_created'";
    assert_eq!(value::<String>(&portal.audit, events).await, format!("{USERS} {USERS}"));
    let told = "SELECT sum(events)::bigint = (SELECT count(*) FROM public.events) FROM portal_audit.progress";
    assert!(value::<bool>(&portal.audit, told).await);
    let turned = "SELECT count(*) FROM (SELECT lsn < lag(lsn) OVER (ORDER BY place) AS turns FROM (
          SELECT s.first + n AS place, (e.payload -> '_audit' ->> 'lsn')::pg_lsn AS lsn FROM portal_audit.seals s CROSS JOIN generate_series(0, s.events - 1) AS n
            JOIN public.events e ON e.event_uuid = encode(substr(s.uuids, n::int * 16 + 1, 16), 'hex')::uuid WHERE s.tree NOT LIKE '.%') AS leaves) AS steps WHERE turns";
    assert_eq!(value::<i64>(&portal.audit, turned).await, 0);
    assert_sealed(&portal.audit).await;
}

/// A portal with a backlog, whose sidecar is away.
async fn waiting(name: &str) -> Portal {
    let portal = portal(cluster(), Wishes { name, limits: LIMITS, ..Wishes::default() }).await;
    portal.start().await.stop().await;
    backlog(&portal.source).await;
    run(&portal.audit, GATE).await;
    portal
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_copied_aside_is_seen_by_nobody_and_goes_with_its_sidecar() {
    let portal = waiting("steps_killed").await;
    // Whatever the database says: what is told is on the disk, and the waits are ours to limit.
    run(&portal.audit, "ALTER DATABASE steps_killed_audit SET synchronous_commit = off; ALTER DATABASE steps_killed_audit SET lock_timeout = '1h'").await;
    let settings = SettingsFile::new(&portal);
    run(&portal.audit, CLOSE).await;
    let program = Program::run(&settings.path);
    stand_in_the_midst(&portal.audit).await;
    let seen = "SELECT count(*) || ' ' || (SELECT sum(events) FROM portal_audit.progress) FROM public.events";
    let seen: String = value(&portal.audit, seen).await;
    let (events, told) = seen.split_once(' ').unwrap();
    assert_eq!(events, told);
    // The one in front, and the one that was copied: in both sessions.
    let_one_through(&portal.audit).await;
    let_one_through(&portal.audit).await;
    let passed = "SELECT count(DISTINCT pid) > 1 AND bool_and(is_pinned) FROM public.passed";
    assert!(value::<bool>(&portal.audit, passed).await);
    stand_in_the_midst(&portal.audit).await;
    program.kill();
    wait_for("the end of what was copied", async || !value::<bool>(&portal.audit, ASIDE).await)
        .await;
    run(&portal.audit, OPEN).await;
    let program = Program::run(&settings.path);
    whole(&portal).await;
    assert!(program.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_copy_is_refused_is_written_as_any_other() {
    let portal = waiting("steps_refused").await;
    // One event is refused, so COPY is.
    run(&portal.audit, "ALTER TABLE public.events ADD CHECK (subject <> 'user15600') NOT VALID")
        .await;
    run(&portal.audit, CLOSE).await;
    let sidecar = portal.start().await;
    stand_in_the_midst(&portal.audit).await;
    run(&portal.audit, OPEN).await;
    portal.catch_up().await;
    sidecar.stop().await;
    let told = "SELECT string_agg(event_type || ' ' || n, ', ' ORDER BY event_type) FROM (SELECT event_type, count(*) AS n FROM public.events GROUP BY 1) AS e";
    let told: String = value(&portal.audit, told).await;
    assert_eq!(told, format!("undeliverable 1, user_created {}", USERS - 1));
    assert_sealed(&portal.audit).await;
}

/// Where no second session is to be had, one is enough.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_second_session_all_is_written_in_one() {
    let wanted = Wanted { limits: LIMITS, roles: ("", "writer"), ..Wanted::default() };
    let (_servers, portal) = Servers::start("steps_alone", wanted).await;
    run(&portal.audit, "CREATE ROLE writer LOGIN; GRANT portal_audit_writer TO writer").await;
    portal.start().await.stop().await;
    backlog(&portal.source).await;
    run(&portal.audit, GATE).await;
    run(&portal.audit, CLOSE).await;
    let sidecar = portal.start().await;
    wait_for("somebody at the gate", async || value::<bool>(&portal.audit, WAITS).await).await;
    run(&portal.audit, "ALTER ROLE writer CONNECTION LIMIT 0").await;
    for _ in 0..3 {
        let_one_through(&portal.audit).await;
        assert!(!value::<bool>(&portal.audit, ASIDE).await);
    }
    run(&portal.audit, OPEN).await;
    whole(&portal).await;
    sidecar.stop().await;
}
