//! Events that the audit database refuses, each for a reason of its own: a stand-in takes the place of each, and the others go on. What is refused for all waits or stops, and nothing is lost.

use crate::support::{
    Portal, Sidecar, Wishes, cluster, open, portal,
    program::{Program, SettingsFile},
    run, sample, value, wait_for,
};
use portal_audit::sql;

const STAND_INS: &str = "SELECT count(*) FROM public.events WHERE event_type = 'undeliverable'";
/// What a stand-in says, in the order of the log.
const TOLD: &str = "SELECT coalesce(string_agg(concat_ws(' ', subject_type, payload->>'event_type', payload->>'table', payload->>'sqlstate', payload->>'constraint', error_message, success), E'\\n' ORDER BY payload->'_audit'->>'lsn', payload->'_audit'->>'n'), '') FROM public.events WHERE event_type = 'undeliverable'";
/// Everything that is kept of an event that cannot be written: as much as there was before.
const HASHES: &str = "SELECT string_agg(payload->>'subject_sha256', ' ' ORDER BY payload->>'subject_sha256') FROM public.events WHERE event_type = 'undeliverable'";

/// A trigger of somebody else, who does not want some events.
async fn refuse(portal: &Portal, condition: &str, raise: &str) {
    let script = format!(
        "CREATE FUNCTION public.theirs() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF {condition} THEN {raise}; END IF; RETURN NEW; END $$;
         CREATE TRIGGER theirs BEFORE INSERT ON public.events FOR EACH ROW EXECUTE FUNCTION public.theirs()"
    );
    run(&portal.audit, &script).await;
}

async fn allow(portal: &Portal) {
    run(&portal.audit, "DROP TRIGGER theirs ON public.events").await;
}

fn users(from: u32, to: u32) -> String {
    format!(
        "INSERT INTO portal.users (username, uid, gid) SELECT 'user' || n, n, n FROM generate_series({from}, {to}) AS n;"
    )
}

/// The proof, in which those events are missing that have stand-ins.
async fn prove(portal: &Portal, refused: u64) {
    let proof = portal.proof().await;
    assert!(proof.events > 0);
    assert_eq!((proof.lost, proof.doubled), (refused, 0), "{:#?}", proof.differences);
    assert_eq!(value::<i64>(&portal.audit, STAND_INS).await.unsigned_abs(), refused);
    let counted = "SELECT events = (SELECT count(*) FROM public.events) FROM portal_audit.progress";
    assert!(value::<bool>(&portal.audit, counted).await, "each stand-in counts as an event");
}

/// One row at a time: the events go in statements of their own, refused in each way there is.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_a_few() {
    let portal = sample("undeliverable_few").await;
    refuse(
        &portal,
        "NEW.subject LIKE 'user%'",
        "IF NEW.subject = 'user7' THEN RAISE EXCEPTION 'not %', NEW.subject; END IF;
         IF NEW.subject = 'user8' THEN RAISE EXCEPTION USING ERRCODE = 'AB123'; END IF;
         IF NEW.subject = 'user9' THEN RAISE EXCEPTION USING ERRCODE = 'ZZ123'; END IF;
         IF NEW.subject = 'user6' THEN NEW.target := 1 / 0; END IF",
    )
    .await;
    run(
        &portal.audit,
        "ALTER TABLE public.events ADD CONSTRAINT short CHECK (subject <> 'user10')",
    )
    .await;
    let sidecar = portal.start().await;
    for n in [5, 6, 7, 9, 10, 4] {
        portal.act(&users(n, n)).await;
    }
    sidecar.stop().await;
    let expected = [
        "source user_created portal.users 22012 refused by the audit database: SQLSTATE 22012 f",
        "source user_created portal.users P0001 refused by the audit database: SQLSTATE P0001 f",
        "source user_created portal.users ZZ123 refused by the audit database: SQLSTATE ZZ123 f",
        "source user_created portal.users 23514 short refused by the audit database: SQLSTATE 23514 f",
    ];
    assert_eq!(value::<String>(&portal.audit, TOLD).await, expected.join("\n"));
    prove(&portal, 4).await;
    let hashes = "SELECT string_agg(h, ' ' ORDER BY h) FROM (SELECT encode(sha256(('user' || n)::bytea), 'hex') AS h FROM unnest(ARRAY[6, 7, 9, 10]) AS n) AS t";
    let hashes: String = value(&portal.source, hashes).await;
    assert_eq!(value::<String>(&portal.audit, HASHES).await, hashes);
    let kind = "SELECT concat_ws(' ', retention, visible_to) FROM portal_audit.event_types WHERE event_type = 'undeliverable'";
    assert_eq!(value::<String>(&portal.audit, kind).await, "project {admin}");
}

/// Many rows of one transaction go by COPY, by pieces if they are too many; refused ones stand at the ends, side by side, and alone.
#[tokio::test(flavor = "multi_thread")]
async fn some_of_many() {
    const PART: &str = "SELECT count(*) FROM public.events";
    let limits = "batch_events = 200\ntransaction_memory_bytes = 65536";
    let wishes = Wishes { name: "undeliverable_many", limits, ..Wishes::default() };
    let portal = portal(cluster(), wishes).await;
    let numbers = "1, 2, 150, 200, 201, 333, 334, 335, 777, 999, 1000";
    let condition =
        format!("NEW.subject = ANY (SELECT 'user' || n FROM unnest(ARRAY[{numbers}]) AS n)");
    refuse(&portal, &condition, "RAISE EXCEPTION 'no'").await;
    let sidecar = portal.start().await;
    portal.act(&users(2001, 2002)).await;
    run(&portal.source, &users(1, 1000)).await;
    // Whoever looks meanwhile sees all of a transaction or nothing.
    wait_for("the transaction", async || {
        let seen = value::<i64>(&portal.audit, PART).await;
        assert!(seen == 2 || seen == 1002, "{seen}");
        seen == 1002
    })
    .await;
    portal.act(&users(2003, 2003)).await;
    sidecar.stop().await;
    prove(&portal, 11).await;
    let order = "SELECT bool_and(n = g) FROM (SELECT (payload->'_audit'->>'n')::int AS n, row_number() OVER (PARTITION BY payload->'_audit'->>'xid' ORDER BY (payload->'_audit'->>'n')::int) AS g FROM public.events WHERE payload->'_audit' ? 'n') AS t";
    assert!(value::<bool>(&portal.audit, order).await);
}

/// The first batch after a start, all of it; and again the same log from another slot, as if progress were lost: each event stays what it is, refused by now or not.
#[tokio::test(flavor = "multi_thread")]
async fn all_of_some_and_a_second_time() {
    const WRITTEN: &str = "SELECT md5(string_agg(e::text, ' ' ORDER BY event_uuid)) FROM public.events e WHERE event_type <> 'user_activated'";
    let mut portal = sample("undeliverable_all").await;
    portal.start().await.stop().await;
    run(&portal.source, "SELECT pg_copy_logical_replication_slot(slot_name, 'undeliverable_again') FROM pg_replication_slots WHERE database = current_database()").await;
    let begin = "SELECT format('UPDATE portal_audit.progress SET slot = ''undeliverable_again'', end_lsn = %L, events = 0', end_lsn) FROM portal_audit.progress";
    let begin: String = value(&portal.audit, begin).await;
    refuse(&portal, "NEW.event_type = 'user_created'", "RAISE EXCEPTION 'no'").await;
    run(&portal.source, &users(1, 150)).await;
    let sidecar = portal.start().await;
    portal.act("INSERT INTO portal.organizations (name, oid) VALUES ('kept', 1)").await;
    sidecar.stop().await;
    prove(&portal, 150).await;
    let before: String = value(&portal.audit, WRITTEN).await;

    portal.settings.sources[0].slot = "undeliverable_again".to_owned();
    for is_allowed in [false, true] {
        run(&portal.audit, &begin).await;
        if is_allowed {
            allow(&portal).await;
            run(&portal.source, "SELECT pg_drop_replication_slot('undeliverable_again'); SELECT pg_copy_logical_replication_slot(slot_name, 'undeliverable_again') FROM pg_replication_slots WHERE database = current_database()").await;
        } else {
            run(&portal.source, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database() AND slot_name <> 'undeliverable_again'; SELECT pg_copy_logical_replication_slot('undeliverable_again', 'undeliverable_third')").await;
        }
        let sidecar = portal.start().await;
        portal.act("UPDATE portal.users SET state = 'Active' WHERE username = 'user1'").await;
        sidecar.stop().await;
        assert_eq!(value::<String>(&portal.audit, WRITTEN).await, before, "{is_allowed}");
    }
    prove(&portal, 150).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn older_rows_and_failed_attempts() {
    let limits = "attempt_interval_ms = 20";
    let wishes = Wishes { name: "undeliverable_old", backfill: true, limits, ..Wishes::default() };
    let portal = portal(cluster(), wishes).await;
    run(&portal.source, sql::attempt()).await;
    run(&portal.source, "CALL portal_audit.attach_attempt('portal.users')").await;
    run(&portal.source, &users(1, 20)).await;
    refuse(&portal, "NEW.subject IN ('user7', 'portal.users')", "RAISE EXCEPTION 'no'").await;
    let sidecar = portal.start().await;
    run(&portal.source, &format!("BEGIN; {} ROLLBACK", users(21, 22))).await;
    let both = "SELECT count(*) = 2 FROM public.events WHERE event_type = 'undeliverable'";
    wait_for("stand-ins", async || value::<bool>(&portal.audit, both).await).await;
    portal.act(&users(30, 30)).await;
    sidecar.stop().await;
    let told = "SELECT string_agg(concat_ws(' ', payload->>'event_type', payload->>'table', payload->'_audit'->>'backfill'), ', ' ORDER BY payload->>'event_type') FROM public.events WHERE event_type = 'undeliverable'";
    assert_eq!(
        value::<String>(&portal.audit, told).await,
        "user_created portal.users true, user_insert_failed"
    );
    let kept = "SELECT count(*) FROM public.events WHERE event_type = 'user_created'";
    assert_eq!(value::<i64>(&portal.audit, kept).await, 20);
}

/// How a table is broken, how it is mended, and what the audit database says meanwhile.
const BROKEN: [(&str, &str, &str); 5] = [
    (
        "ALTER TABLE public.events RENAME TO gone",
        "ALTER TABLE public.gone RENAME TO events",
        "42P01",
    ),
    (
        "ALTER TABLE public.events RENAME COLUMN target TO aim",
        "ALTER TABLE public.events RENAME COLUMN aim TO target",
        "42703",
    ),
    (
        "ALTER TABLE public.events ADD theirs INT NOT NULL DEFAULT 0; ALTER TABLE public.events ALTER theirs DROP DEFAULT",
        "ALTER TABLE public.events DROP theirs",
        "23502",
    ),
    (
        "ALTER TABLE public.events ADD CONSTRAINT theirs CHECK (event_type = 'none') NOT VALID",
        "ALTER TABLE public.events DROP CONSTRAINT theirs",
        "23514",
    ),
    (
        "ALTER DATABASE undeliverable_general_audit SET default_transaction_read_only = on",
        "ALTER DATABASE undeliverable_general_audit SET default_transaction_read_only = off",
        "25006",
    ),
];

/// What is refused for all is no event's fault: nothing is confirmed, and everything comes once the cause is gone.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_for_all_has_no_stand_ins() {
    let portal = sample("undeliverable_general").await;
    let confirmed = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE database = 'undeliverable_general'";
    portal.start().await.stop().await;
    let mut expected = 0;
    for (break_it, mend, code) in BROKEN {
        let sidecar = Sidecar::start(portal.settings.clone());
        // It must meet the fault while it streams, not at its start.
        portal.act(&users(expected + 1, expected + 1)).await;
        let audit = open(cluster(), "undeliverable_general_audit").await;
        run(&audit, break_it).await;
        if code == "25006" {
            run(&audit, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'portal-audit (undeliverable_general)' AND datname = current_database()").await;
        }
        run(&portal.source, &users(expected + 2, expected + 2)).await;
        if code == "25006" {
            sidecar.stop_with_faults().await;
        } else {
            let faults = sidecar.ended().await.join("\n");
            assert!(faults.contains(code) && !faults.contains("user"), "{code}: {faults}");
        }
        let after: String = value(&portal.source, confirmed).await;
        let held = format!("SELECT '{after}' <= end_lsn FROM portal_audit.progress");
        assert!(value::<bool>(&audit, &held).await, "{code}");
        run(&audit, &format!("SET default_transaction_read_only = off; {mend}")).await;
        expected += 2;
    }
    let sidecar = portal.start().await;
    portal.catch_up().await;
    sidecar.stop().await;
    prove(&portal, 0).await;
    assert_eq!(portal.count().await, i64::from(expected));
}

/// The complaint of a trigger quotes the row; the log must not.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_names_the_refusal_and_no_value() {
    let portal = sample("undeliverable_log").await;
    refuse(&portal, "NEW.subject = 'user7'", "RAISE EXCEPTION 'canary %', NEW.subject USING DETAIL = 'canary', CONSTRAINT = 'their_rule'").await;
    let (settings, folder) = (SettingsFile::new(&portal), tempfile::tempdir().unwrap());
    let log = folder.path().join("log");
    let program = Program::run_with_log(&settings.path, &log);
    portal.streaming().await;
    portal.act(&users(6, 8)).await;
    assert!(program.terminate().success());
    prove(&portal, 1).await;
    let log = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("refused")).collect();
    let [line] = lines[..] else { panic!("one line, not {lines:?}") };
    for word in ["ERROR", "P0001", "their_rule", "portal.users", "user_created", "undeliverable"] {
        assert!(line.contains(word), "{word}: {line}");
    }
    assert!(!log.contains("canary") && !log.contains("user7"));
}
