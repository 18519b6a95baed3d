//! The fold against its definition: whatever the events, the trees, the seals and the pieces, the derived tables hold what a plain reading of all events gives.

use crate::{
    cookbook::audit,
    facility::TELL,
    support::{Wishes, cluster, portal, run, value, wait_for},
};
use portal_audit::{connect::Session, keep::keep, sql};

const EVENTS: &str = include_str!("fold/events.sql");
const ORACLE: &str = include_str!("fold/oracle.sql");
const TABLES: [&str; 12] = [
    "lifetime_points",
    "lifetimes",
    "membership_points",
    "resource_points",
    "hourly",
    "active_days",
    "active",
    "facility_resources",
    "facility_allocations",
    "facility_points",
    "facility_uses",
    "facility_days",
];

/// How many trees the events are in, how many leaves a seal has, and how many events a piece.
struct Way {
    trees: i64,
    seal: i64,
    piece: i64,
}

/// Puts every event in a tree, in an order that `seed` gives.
async fn seal(audit: &Session, seed: u32, way: &Way) {
    let Way { trees, seal, .. } = way;
    run(
        audit,
        &format!(
            "CREATE TEMP TABLE leaf AS SELECT event_uuid, tree, row_number() OVER (PARTITION BY tree ORDER BY md5(event_uuid::text || {seed})) - 1 AS place
               FROM (SELECT event_uuid, (ARRAY['portal', '.adopted', 'z'])[1 + abs(hashtext(event_uuid::text)) % {trees}] AS tree FROM public.events) AS e;
             INSERT INTO portal_audit.trees (tree, size) SELECT tree, count(*) FROM leaf GROUP BY 1;
             INSERT INTO portal_audit.seals (tree, first, events, uuids, salts, leaves)
             SELECT tree, min(place), count(*), string_agg(uuid_send(event_uuid), '' ORDER BY place), '', '' FROM leaf GROUP BY tree, place / {seal}"
        ),
    )
    .await;
}

/// Rows of a derived table as it is, and as it has to be, that the other does not have.
async fn differences(audit: &Session, table: &str) -> i64 {
    let columns: String = value(
        audit,
        &format!(
            "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'oracle.{table}'::regclass AND attnum > 0 AND attidentity = ''"
        ),
    )
    .await;
    let (told, truth) = (
        format!("SELECT {columns} FROM portal_audit.{table}"),
        format!("SELECT {columns} FROM oracle.{table}"),
    );
    value(
        audit,
        &format!(
            "SELECT count(*) FROM (({told} EXCEPT ALL {truth}) UNION ALL ({truth} EXCEPT ALL {told})) AS d"
        ),
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn folding_in_any_pieces_gives_what_a_plain_reading_of_all_events_gives() {
    let ways = [
        Way { trees: 1, seal: 500, piece: 100_000 },
        Way { trees: 1, seal: 7, piece: 40 },
        Way { trees: 2, seal: 1, piece: 1 },
        Way { trees: 3, seal: 60, piece: 33 },
        Way { trees: 2, seal: 300, piece: 250 },
    ];
    for (seed, way) in (1_u32..).zip(&ways) {
        let audit = audit(&format!("fold_way_{seed}")).await;
        run(&audit, "DELETE FROM portal_audit.trees").await;
        run(&audit, &EVENTS.replace("$1", &seed.to_string())).await;
        run(&audit, ORACLE).await;
        seal(&audit, seed, way).await;
        run(&audit, "CALL oracle.whole(); CALL oracle.facilities()").await;
        let Way { piece, .. } = way;
        let fold =
            format!("SELECT portal_audit.fold({piece}) + portal_audit.fold_facilities({piece})");
        while value::<i64>(&audit, &fold).await > 0 {}
        for table in TABLES {
            let rows = format!("SELECT count(*) FROM oracle.{table}");
            assert!(value::<i64>(&audit, &rows).await > 0, "way {seed}: {table} is empty");
            assert_eq!(differences(&audit, table).await, 0, "way {seed}: {table}");
        }
    }
}

/// Adds so many updates of one project and one use of its only facility each, sealed, the first with the number `from`.
async fn live(audit: &Session, from: u32, count: u32) {
    run(
        audit,
        &format!(
            "WITH e AS (
               INSERT INTO public.events (event_uuid, timestamp, event_type, caller, subject, subject_type, success, payload)
               SELECT lpad(to_hex(2 * i + k), 32, '0')::uuid, timestamptz '2026-01-01 00:00Z' + i * interval '1 minute',
                      (ARRAY['project_updated', 'materialization_completed'])[k], 'u', (ARRAY['p', 'r.e.p'])[k], (ARRAY['project', 'materialization'])[k], true,
                      (ARRAY['{{}}', '{{\"facilities\": [\"hill\"], \"resources\": [\"m1\"], \"action\": \"allocate\"}}'])[k]::jsonb
                 FROM generate_series({from}, {from} + {count} - 1) AS i, generate_series(1, 2) AS k RETURNING event_uuid),
             t AS (INSERT INTO portal_audit.trees (tree, size) VALUES ('portal', 2 * {count})
                   ON CONFLICT (tree) DO UPDATE SET size = trees.size + excluded.size)
             INSERT INTO portal_audit.seals (tree, first, events, uuids, salts, leaves)
             SELECT 'portal', 2 * {from}, count(*), string_agg(uuid_send(event_uuid), '' ORDER BY event_uuid), '', '' FROM e"
        ),
    )
    .await;
}

const FOLD: &str = "SELECT portal_audit.fold(100000) + portal_audit.fold_facilities(100000)";

#[tokio::test(flavor = "multi_thread")]
async fn a_piece_costs_the_same_however_much_is_folded_already() {
    let audit = audit("fold_cost").await;
    run(&audit, "DELETE FROM portal_audit.trees").await;
    // A session that has planned everything while the tables were empty.
    for number in 0..8 {
        live(&audit, 5 * number, 5).await;
        assert_eq!(value::<i64>(&audit, FOLD).await, 20);
    }
    const READ: &str = "SELECT coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::bigint FROM pg_stat_xact_user_tables WHERE relname NOT IN ('trees', 'folded', 'facility_folded')";
    let mut reads = Vec::new();
    for (from, upto) in [(40, 1_000), (1_000, 5_000)] {
        live(&audit, from, upto - from).await;
        run(&audit, FOLD).await;
        run(&audit, "BEGIN").await;
        live(&audit, upto, 10).await;
        let before: i64 = value(&audit, READ).await;
        assert_eq!(value::<i64>(&audit, FOLD).await, 40);
        let after: i64 = value(&audit, READ).await;
        run(&audit, "ROLLBACK").await;
        reads.push(after - before);
    }
    assert!(reads[0] > 0 && reads[1] <= reads[0] + 10, "{reads:?}");
}

/// At a portal's pace a row of seals has an event or two, after a large transaction thousands.
#[tokio::test(flavor = "multi_thread")]
async fn events_cost_no_statement_more_in_a_row_of_seals_each_than_all_in_one() {
    const ALL: &str = "SELECT portal_audit.fold(100000) + portal_audit.fold_things(100000) + portal_audit.fold_facilities(100000)";
    const SPLIT: &str = "WITH one AS (DELETE FROM portal_audit.seals WHERE tree = 'portal' RETURNING *)
        INSERT INTO portal_audit.seals (tree, first, events, uuids, salts, leaves)
        SELECT tree, first + n, 1, substr(uuids, 16 * n + 1, 16), '', '' FROM one, generate_series(0, events - 1) AS n";
    const SCANS: &str =
        "SELECT sum(seq_scan + coalesce(idx_scan, 0))::bigint FROM pg_stat_xact_user_tables";
    const CALLS: &str = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_xact_user_functions WHERE schemaname = 'portal_audit'";
    let audit = audit("fold_seals").await;
    run(&audit, "DELETE FROM portal_audit.trees; SET track_functions = 'all'").await;
    live(&audit, 0, 1_000).await;
    let mut costs = Vec::new();
    for (prepare, rows) in [("", 1), (SPLIT, 2_000)] {
        run(&audit, prepare).await;
        assert_eq!(value::<i64>(&audit, "SELECT count(*) FROM portal_audit.seals").await, rows);
        run(&audit, "BEGIN").await;
        let before = [value::<i64>(&audit, SCANS).await, value(&audit, CALLS).await];
        assert_eq!(value::<i64>(&audit, ALL).await, 6_000);
        let after = [value::<i64>(&audit, SCANS).await, value(&audit, CALLS).await];
        run(&audit, "ROLLBACK").await;
        costs.push([after[0] - before[0], after[1] - before[1]]);
    }
    println!("scans of tables and calls of functions: {costs:?}");
    assert!(costs[0].iter().all(|cost| *cost > 0), "{costs:?}");
    for (whole, split) in costs[0].iter().zip(&costs[1]) {
        assert!(*split <= whole + 10, "{costs:?}");
    }
}

/// With the rights that the sidecar has: it decides by this how large its pieces are.
#[tokio::test(flavor = "multi_thread")]
async fn who_writes_may_ask_how_far_behind_the_farthest_is() {
    const BEHIND: &str = "SELECT behind FROM portal_audit.folding()";
    let audit = audit("fold_behind").await;
    run(&audit, "DELETE FROM portal_audit.trees").await;
    live(&audit, 0, 1_000).await;
    run(&audit, "SET ROLE portal_audit_writer").await;
    assert_eq!(value::<i64>(&audit, "SELECT leaves FROM portal_audit.folding()").await, 2_000);
    for fold in ["fold", "fold_things", "fold_facilities"] {
        assert_eq!(value::<i64>(&audit, BEHIND).await, 2_000, "{fold}");
        let all = format!("SELECT portal_audit.{fold}(100000)::bigint");
        assert_eq!(value::<i64>(&audit, &all).await, 2_000, "{fold}");
    }
    assert_eq!(value::<i64>(&audit, BEHIND).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_to_fold_reads_next_to_nothing_and_takes_no_lock() {
    let audit = audit("fold_idle").await;
    live(&audit, 0, 50).await;
    while value::<i64>(&audit, FOLD).await > 0 {}
    let touched = "SELECT coalesce(sum(seq_scan + idx_scan + n_tup_ins + n_tup_upd), 0)::bigint FROM pg_stat_xact_user_tables WHERE relname NOT IN ('facility_folded', 'folded', 'trees')";
    run(&audit, "BEGIN").await;
    let before: i64 = value(&audit, touched).await;
    assert_eq!(value::<i64>(&audit, FOLD).await, 0);
    assert_eq!(value::<i64>(&audit, touched).await, before);
    let locks =
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
    assert_eq!(value::<i64>(&audit, locks).await, 0);
    run(&audit, "ROLLBACK").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sidecar_folds_facilities_too() {
    let wishes = Wishes { name: "fold_keep", limits: "keep_interval_ms = 10", ..Wishes::default() };
    let portal = portal(cluster(), wishes).await;
    run(&portal.audit, TELL).await;
    run(&portal.audit, "SELECT tell('1 hour', 'facility_registered', 'facility', 'hill')").await;
    let watch = async {
        let known = "SELECT count(*) = 1 FROM portal_audit.facility_states()";
        wait_for("the facility", async || value::<bool>(&portal.audit, known).await).await;
    };
    tokio::select! {
        () = watch => {}
        never = keep(&portal.settings) => match never {},
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_schema_is_brought_up_in_its_place() {
    let audit = audit("fold_upgrade").await;
    live(&audit, 0, 20).await;
    run(&audit, FOLD).await;
    let points = "SELECT count(*) FROM portal_audit.resource_points";
    let before: i64 = value(&audit, points).await;
    assert!(before > 0);
    // As the second schema had it.
    run(
        &audit,
        "ALTER TABLE portal_audit.resource_points DROP CONSTRAINT resource_points_pkey,
           ADD CONSTRAINT resource_points_pkey PRIMARY KEY (resource, subject_type, subject, at, lsn, n, event_uuid);
         CREATE FUNCTION portal_audit.lsn_of(p_payload JSONB) RETURNS PG_LSN LANGUAGE sql AS $$ SELECT '0/0'::pg_lsn $$;
         CREATE FUNCTION portal_audit.span(p_types TEXT[], p_withins TEXT[], p_subjects TEXT[]) RETURNS VOID LANGUAGE sql AS $$ SELECT $$;
         CREATE FUNCTION portal_audit.fold_facility(e public.events) RETURNS VOID LANGUAGE sql AS $$ SELECT $$",
    )
    .await;
    run(&audit, sql::audit()).await;
    run(&audit, sql::audit()).await;
    let key = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'resource_points_pkey'";
    assert_eq!(
        value::<String>(&audit, key).await,
        "PRIMARY KEY (resource, at, lsn, n, event_uuid)"
    );
    let twice = "SELECT coalesce(string_agg(DISTINCT proname, ' '), '') FROM pg_proc p WHERE pronamespace = 'portal_audit'::regnamespace
       AND (proname = 'fold_facility' OR EXISTS (SELECT FROM pg_proc o WHERE (o.proname, o.pronamespace) = (p.proname, p.pronamespace) AND o.oid <> p.oid AND o.proname IN ('lsn_of', 'n_of', 'span')))";
    assert_eq!(value::<String>(&audit, twice).await, "");
    assert_eq!(value::<i64>(&audit, points).await, before);
    live(&audit, 20, 5).await;
    assert_eq!(value::<i64>(&audit, FOLD).await, 20);
}
