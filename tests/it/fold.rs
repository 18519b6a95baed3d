//! The fold against its definition: whatever the events, the trees, the seals and the pieces, the derived tables hold what a plain reading of all events gives.

use crate::{
    cookbook::audit,
    support::{run, value},
};
use portal_audit::connect::Session;

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
        let fold = format!(
            "SELECT portal_audit.fold({piece}) + portal_audit.fold_facilities({piece})"
        );
        while value::<i64>(&audit, &fold).await > 0 {}
        for table in TABLES {
            let rows = format!("SELECT count(*) FROM oracle.{table}");
            assert!(value::<i64>(&audit, &rows).await > 0, "way {seed}: {table} is empty");
            assert_eq!(differences(&audit, table).await, 0, "way {seed}: {table}");
        }
    }
}
