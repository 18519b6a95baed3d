//! What must hold of the trees at every instant, as a reader sees them: each event is in one tree, and once.

use super::{run, value};
use portal_audit::connect::Session;

/// Each fault as a line. The size of a tree is what its rows add up to, and they follow each other without a gap; each leaf has its row, unless it is recorded that the row went, and each row its leaf, and that is the hash of the row as it is read back.
const FAULTS: &str = "WITH leaf AS MATERIALIZED (
       SELECT tree, first, n, first + n AS place, encode(substr(uuids, n * 16 + 1, 16), 'hex')::uuid AS event_uuid,
              substr(salts, n * 16 + 1, 16) AS salt, substr(leaves, n * 32 + 1, 32) AS leaf
         FROM portal_audit.seals, generate_series(0, events - 1) AS n),
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
       SELECT format('%s %s has no row', tree, place) FROM leaf LEFT JOIN public.events e USING (event_uuid) 
        WHERE e.event_uuid IS NULL AND NOT EXISTS (SELECT FROM portal_audit.removed r WHERE r.tree = leaf.tree AND r.first = leaf.first AND leaf.n = ANY (r.places))
       UNION ALL
       SELECT format('%s, %s, is in no tree', event_uuid, event_type) FROM public.events e LEFT JOIN leaf USING (event_uuid) WHERE leaf.event_uuid IS NULL
       UNION ALL
       SELECT format('%s %s is not the leaf of its row, %s', tree, place, event_type) FROM leaf JOIN public.events e USING (event_uuid)
        WHERE portal_audit.leaf(salt, e) <> leaf)
SELECT coalesce(string_agg(told, E'\\n'), '') FROM (SELECT told FROM fault LIMIT 20) AS first";

/// All events are sealed.
pub async fn assert_sealed(audit: &Session) {
    let faults: String = value(audit, FAULTS).await;
    assert_eq!(faults, "", "events and leaves");
}

/// Takes rows out of events that are no concern of a test any more. Their leaves stay.
pub async fn take_out(audit: &Session, condition: &str) {
    assert_sealed(audit).await;
    let script = format!(
        "WITH gone AS (DELETE FROM public.events WHERE {condition} RETURNING event_uuid)
         INSERT INTO portal_audit.removed (event_uuid, tree, first, places)
         SELECT gen_random_uuid(), tree, first, array_agg(n ORDER BY n) FROM portal_audit.seals, generate_series(0, events - 1) AS n
          WHERE encode(substr(uuids, n * 16 + 1, 16), 'hex')::uuid IN (SELECT event_uuid FROM gone) GROUP BY tree, first"
    );
    run(audit, &script).await;
}
