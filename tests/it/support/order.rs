//! A second oracle, which knows nothing of the first: what PostgreSQL's own `test_decoding` says of the same log.

use super::{Portal, run, value};
use portal_audit::connect::Session;
use std::collections::HashSet;

/// What another slot on the same log says.
pub struct Second<'a> {
    portal: &'a Portal,
}

impl<'a> Second<'a> {
    /// From now on. Must come before the first change.
    pub async fn begin(portal: &'a Portal) -> Self {
        let create = format!(
            "SELECT pg_create_logical_replication_slot('second_{}', 'test_decoding')",
            portal.name
        );
        run(&portal.source, &create).await;
        Self { portal }
    }

    /// Compares order, commit times and numbers of changes. Gives the number of transactions.
    pub async fn compare(self) -> usize {
        let Self { portal } = self;
        let read = format!(
            "CREATE TEMP TABLE second AS SELECT row_number() OVER () AS place, xid::text::bigint, data
               FROM pg_logical_slot_get_changes('second_{0}', NULL, NULL, 'include-timestamp', 'on', 'skip-empty-xacts', 'on');
             SELECT pg_drop_replication_slot('second_{0}')",
            portal.name
        );
        run(&portal.source, &read).await;
        let theirs = "SELECT xid, substring(data FROM 'at (.*)\\)$')::timestamptz::text FROM second WHERE data LIKE 'COMMIT%' ORDER BY place";
        let ours = "SELECT (payload->'_audit'->>'xid')::bigint, min(timestamp)::text, count(DISTINCT timestamp) FROM public.events GROUP BY 1, payload->'_audit'->>'lsn' ORDER BY (payload->'_audit'->>'lsn')::pg_lsn";
        let theirs: Vec<(i64, String)> = rows(&portal.source, theirs).await;
        let ours: Vec<(i64, String)> = rows(&portal.audit, ours).await;
        // Those that gave an event; some give none.
        let told: HashSet<i64> = ours.iter().map(|(xid, _)| *xid).collect();
        let theirs: Vec<_> = theirs.into_iter().filter(|(xid, _)| told.contains(xid)).collect();
        assert_eq!(ours, theirs);
        let changes = "SELECT count(*) FROM second WHERE data LIKE 'table portal.%'";
        let changes: i64 = value(&portal.source, changes).await;
        let counted: i64 = value(&portal.audit, "SELECT changes FROM portal_audit.progress").await;
        assert_eq!(counted, changes);
        ours.len()
    }
}

async fn rows(session: &Session, query: &str) -> Vec<(i64, String)> {
    let rows = session.client.query(query, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}
