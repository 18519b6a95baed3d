//! What is covered: each change of it that the stream does not tell is seen, told once with its bounds, and shown.

use crate::support::{Portal, Wishes, cluster, portal, run, value, wait_for};

/// Looks every 20 ms.
const LIMITS: &str = "coverage_interval_ms = 1";
const USER: &str = "INSERT INTO portal.users (username, uid, gid) VALUES";

async fn watched(name: &str) -> Portal {
    portal(cluster(), Wishes { name, limits: LIMITS, ..Wishes::default() }).await
}

/// Waits until a look that began after now is stored.
pub async fn looked(portal: &Portal) {
    let end: String = value(&portal.source, "SELECT clock_timestamp()::text").await;
    let query = format!(
        "SELECT count(*) = 1 FROM portal_audit.coverage WHERE source = '{}' AND at > '{end}'",
        portal.name
    );
    wait_for("a look", async || value::<bool>(&portal.audit, &query).await).await;
}

/// The events of what is covered, in their order: type, subject, differences, whether changes may be missing.
async fn told(portal: &Portal) -> Vec<String> {
    const QUERY: &str = "SELECT event_type || ' ' || subject || ': ' || (SELECT coalesce(string_agg(concat_ws(' ', c->>'what', c->>'old', '->', c->>'new'), ', '), '') FROM jsonb_array_elements(payload->'changes') c) || CASE WHEN (payload->>'changes_may_be_missing')::boolean THEN ' (missing)' ELSE '' END || CASE WHEN payload ? 'not_covered' THEN ' HOLE' ELSE '' END || CASE WHEN payload ? 'covered_again' THEN ' AGAIN' ELSE '' END FROM public.events WHERE event_type IN ('coverage_changed', 'schema_changed') ORDER BY payload->>'from_time', event_type, subject";
    let rows = portal.audit.client.query(QUERY, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_leaves_the_publication_and_comes_back() {
    let portal = watched("covered_table").await;
    let sidecar = portal.start().await;
    portal.act(&format!("{USER} ('before', 1, 1)")).await;
    looked(&portal).await;
    run(&portal.source, "ALTER PUBLICATION portal_audit DROP TABLE portal.users").await;
    looked(&portal).await;
    println!("{:#?}", told(&portal).await);
    sidecar.stop().await;
}
