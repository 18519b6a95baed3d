//! The cookbook's queries: each answers on the sample as the page says, and none reads the whole table where there are a million events.

use crate::support::{audit_database, cluster, run, value};
use portal_audit::connect::Session;
use tokio_postgres::SimpleQueryMessage;

const COOKBOOK: &str = include_str!("../../sql/COOKBOOK.md");
/// A spring of a testbed, in 33 events.
pub const SAMPLE: &str = include_str!("cookbook/sample.sql");
const LIFE: &str = include_str!("cookbook/life.sql");
/// As in sql/audit.sql. A million rows are indexed faster after they are there.
const INDEXES: &str = "CREATE INDEX idx_events_timestamp  ON public.events (timestamp DESC);
    CREATE INDEX idx_events_event_type ON public.events (event_type);
    CREATE INDEX idx_events_caller     ON public.events (caller);
    CREATE INDEX idx_events_subject    ON public.events (subject_type, subject);
    CREATE INDEX idx_events_target     ON public.events (target)";
/// A source that is complete to the end of the sample.
pub const PROGRESS: &str = "INSERT INTO portal_audit.progress (source, state, slot, system_identifier, timeline, database_oid, end_lsn, complete_to)
    VALUES ('portal', 'streaming', 's', '1', 1, 1, '0/2000', '2026-04-30 12:00+00')";

/// An audit database of its own, with the schema.
pub async fn audit(name: &str) -> Session {
    let audit = audit_database(cluster(), name).await;
    run(&audit, "SET timezone = 'UTC'").await;
    audit
}

struct Recipe {
    title: &'static str,
    query: &'static str,
    answer: &'static str,
}

fn recipes() -> Vec<Recipe> {
    let between = |text: &'static str, from: &str, to: &str| -> &'static str {
        text.split_once(from).and_then(|(_, rest)| rest.split_once(to)).unwrap_or_default().0
    };
    let sections = COOKBOOK.split("\n## ").skip(1);
    sections
        .map(|section| Recipe {
            title: section.lines().next().unwrap(),
            query: between(section, "```sql\n", "```"),
            answer: between(section, "```text\n", "```"),
        })
        .collect()
}

/// Rows as the page shows them: columns between bars, times without their zone.
async fn answer(session: &Session, query: &str) -> String {
    let messages = session.client.simple_query(query).await.unwrap();
    let mut text = String::new();
    for message in messages {
        if let SimpleQueryMessage::Row(row) = message {
            let columns: Vec<&str> =
                (0..row.len()).map(|column| row.get(column).unwrap_or_default()).collect();
            text.push_str(columns.join(" | ").replace("+00", "").trim_end());
            text.push('\n');
        }
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_the_cookbook_answers_as_it_says() {
    let audit = audit("cookbook_sample").await;
    run(&audit, SAMPLE).await;
    run(&audit, PROGRESS).await;
    run(
        &audit,
        "SELECT portal_audit.adopt(); SELECT portal_audit.fold(10), portal_audit.fold(100)",
    )
    .await;
    let recipes = recipes();
    assert!(recipes.len() >= 20, "{}", recipes.len());
    // A reader may run them all.
    run(&audit, "SET ROLE portal_audit_reader").await;
    for Recipe { title, query, answer: expected } in recipes {
        let given = answer(&audit, query).await;
        assert!(!given.is_empty(), "{title}: no rows");
        assert_eq!(given, expected, "{title}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_query_of_the_cookbook_reads_a_table_of_a_million_events_whole() {
    let audit = audit("cookbook_life").await;
    let names = "idx_events_timestamp, idx_events_event_type, idx_events_caller, idx_events_subject, idx_events_target";
    run(&audit, &format!("DROP INDEX {names}")).await;
    run(&audit, LIFE).await;
    run(&audit, INDEXES).await;
    // Leaves without hashes: only the order of events matters here.
    run(
        &audit,
        "INSERT INTO portal_audit.trees (tree, size) VALUES ('portal', 40960);
         INSERT INTO portal_audit.seals (tree, first, events, uuids, salts, leaves)
         SELECT 'portal', 4096 * part, 4096, (SELECT string_agg(uuid_send(lpad(to_hex(i), 32, '0')::uuid), '' ORDER BY i)
                                                FROM generate_series(4096 * part, 4096 * part + 4095) AS i), '', ''
           FROM generate_series(0, 9) AS part;
         SELECT portal_audit.fold(40960); ANALYZE",
    )
    .await;
    assert_eq!(value::<i64>(&audit, "SELECT count(*) FROM public.events").await, 1_000_000);
    let seen =
        "SELECT seq_scan FROM pg_stat_xact_user_tables WHERE relid = 'public.events'::regclass";
    for Recipe { title, query, .. } in recipes() {
        run(&audit, "BEGIN").await;
        let before: i64 = value(&audit, seen).await;
        audit.client.simple_query(query).await.unwrap_or_else(|error| panic!("{title}: {error:?}"));
        let scans: i64 = value(&audit, seen).await;
        run(&audit, "ROLLBACK").await;
        assert_eq!(scans, before, "{title}: a sequential scan of events");
    }
}
