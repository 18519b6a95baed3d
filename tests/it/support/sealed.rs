//! What must hold of the trees at every instant, as a reader sees them: each event is in one tree, and once; and what is gone or no longer as it was is recorded.

use super::{run, value};
use portal_audit::connect::Session;

/// Each fault as a line. The size of a tree is what its rows add up to, and they follow each other without a gap. A leaf that nobody removed has its row and its salt, and is the hash of the row as it is read back. One that is recorded as removed has a salt of zeros and, as the last of its records says, no row or one of the hash that stands there. Each record is what its event's digest says, and each such event has its record.
const FAULTS: &str = "WITH leaf AS MATERIALIZED (
       SELECT tree, first, n, first + n AS place, encode(substr(uuids, n * 16 + 1, 16), 'hex')::uuid AS event_uuid,
              substr(salts, n * 16 + 1, 16) AS salt, substr(leaves, n * 32 + 1, 32) AS leaf
         FROM portal_audit.seals, generate_series(0, events - 1) AS n),
     taken AS MATERIALIZED (
       SELECT DISTINCT ON (r.tree, r.first, u.n) r.tree, r.first, u.n, r.leaves IS NULL AS is_gone, substr(r.leaves, 32 * (u.place::int - 1) + 1, 32) AS now
         FROM portal_audit.removed r CROSS JOIN unnest(r.places) WITH ORDINALITY AS u (n, place) LEFT JOIN public.events e USING (event_uuid)
        ORDER BY r.tree, r.first, u.n, e.timestamp DESC, r.event_uuid DESC),
     record AS MATERIALIZED (
       SELECT event_uuid, encode(portal_audit.removed_digest(event_uuid), 'hex') AS digest, sum(cardinality(places)) AS places
         FROM portal_audit.removed GROUP BY event_uuid),
     fault AS (
       SELECT format('tree %s of %s leaves has %s', t.tree, t.size, coalesce(sum(s.events), 0)) AS told
         FROM portal_audit.trees t LEFT JOIN portal_audit.seals s USING (tree)
        GROUP BY t.tree, t.size HAVING t.size <> coalesce(sum(s.events), 0)
       UNION ALL
       SELECT format('tree %s has a gap before %s', tree, first)
         FROM (SELECT tree, first, sum(events) OVER (PARTITION BY tree ORDER BY first) - events AS before FROM portal_audit.seals) AS s
        WHERE first <> before
       UNION ALL
       SELECT format('%s is in %s trees', event_uuid, count(*)) FROM leaf GROUP BY event_uuid HAVING count(*) > 1
       UNION ALL
       SELECT format('%s, %s, is in no tree', event_uuid, event_type) FROM public.events e LEFT JOIN leaf USING (event_uuid) WHERE leaf.event_uuid IS NULL
       UNION ALL
       SELECT format('%s %s %s', tree, place, what)
         FROM (SELECT tree, place, CASE
                 WHEN e.event_uuid IS NULL AND t.is_gone IS NOT TRUE THEN 'has no row'
                 WHEN e.event_uuid IS NOT NULL AND t.is_gone THEN 'is recorded as gone, and its row is there'
                 WHEN t.n IS NULL AND salt = decode(repeat('00', 16), 'hex') THEN 'has lost its salt'
                 WHEN t.n IS NOT NULL AND salt <> decode(repeat('00', 16), 'hex') THEN 'is recorded as removed, and has its salt'
                 WHEN portal_audit.leaf(salt, e) <> coalesce(t.now, leaf) THEN 'is not the leaf of its row, ' || e.event_type END AS what
                 FROM leaf LEFT JOIN public.events e USING (event_uuid) LEFT JOIN taken t USING (tree, first, n)) AS looked
        WHERE what IS NOT NULL
       UNION ALL
       SELECT format('%s %s is recorded as removed and is no leaf', tree, first + n) FROM taken LEFT JOIN leaf USING (tree, first, n) WHERE leaf.tree IS NULL
       UNION ALL
       SELECT format('the record of %s is not what its event says', event_uuid)
         FROM record r FULL JOIN (SELECT * FROM public.events WHERE event_type IN ('retention_applied', 'user_erased')) e USING (event_uuid)
        WHERE coalesce(r.digest, encode(sha256(''), 'hex')) IS DISTINCT FROM e.payload ->> 'digest' OR coalesce(e.payload ->> 'removed', r.places::text) <> r.places::text)
SELECT coalesce(string_agg(told, E'\\n'), '') FROM (SELECT told FROM fault LIMIT 20) AS first";

/// All events are sealed.
pub async fn assert_sealed(audit: &Session) {
    assert_sealed_beside(audit, 0).await;
}

/// All events are sealed but so many, which somebody else wrote.
pub async fn assert_sealed_beside(audit: &Session, strangers: usize) {
    let text: String = value(audit, FAULTS).await;
    let (beside, faults): (Vec<_>, Vec<_>) =
        text.lines().partition(|fault| fault.ends_with(", is in no tree"));
    assert!(faults.is_empty() && beside.len() == strangers, "events and leaves: {text}");
}

/// Takes rows out of events that are no concern of a test any more, as retention does: that is an event too.
pub async fn take_out(audit: &Session, condition: &str) {
    assert_sealed(audit).await;
    let removal: uuid::Uuid = value(audit, "SELECT gen_random_uuid()").await;
    let script = format!(
        "BEGIN;
         WITH gone AS (DELETE FROM public.events WHERE {condition} RETURNING event_uuid)
         INSERT INTO portal_audit.removed (event_uuid, tree, first, places)
         SELECT '{removal}', tree, first, array_agg(n ORDER BY n) FROM portal_audit.seals, generate_series(0, events - 1) AS n
          WHERE encode(substr(uuids, n * 16 + 1, 16), 'hex')::uuid IN (SELECT event_uuid FROM gone) GROUP BY tree, first;
         SELECT portal_audit.record_removed('{removal}', 'retention_applied', 'test', 'retention', '{{}}');
         COMMIT"
    );
    run(audit, &script).await;
    assert_sealed(audit).await;
}
