//! What a portal user asks by `portal_audit.my_page` and `my_events` is what the policy shows of `events`, and is found without reading all of it.

use super::{login, world};
use crate::support::{run, value};
use portal_audit::{
    connect::Session,
    filter::{Filter, Key, Order, Where},
    own,
};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

/// Sixty-six thousand events of three months, three at a time. Of the project mesh there is nothing after the middle of February; carol does a third of all.
const LIFE: &str = "INSERT INTO public.events
  SELECT gen_random_uuid(), '2026-01-01 00:30'::timestamptz + i / 3 * interval '6 minutes', l.event_type,
         CASE WHEN i % 3 = 0 THEN 'carol' WHEN i % 4 = 1 THEN '' ELSE 'u' || i % 97 END, l.subject, l.subject_type, l.target, i % 11 <> 0, NULL, l.payload
    FROM generate_series(1, 66000) AS i
   CROSS JOIN LATERAL (
     SELECT 'experiment_updated' AS event_type, 'e' || i % 50 AS subject, 'experiment' AS subject_type, NULL AS target, jsonb_build_object('project', 'p' || i % 10) AS payload WHERE i % 5 IN (0, 1)
     UNION ALL SELECT 'login_succeeded', 'u' || i % 97, 'user', NULL, '{\"ip\": \"192.0.2.1\"}' WHERE i % 5 = 2
     UNION ALL SELECT 'realization_created', 'r' || i / 40 || '.e.p', 'realization', NULL, jsonb_build_object('project', 'p' || i % 10, 'resources', jsonb_build_array('m' || i % 7)) WHERE i % 5 = 3
     UNION ALL SELECT 'experiment_updated', CASE i % 3 WHEN 0 THEN 'a' WHEN 1 THEN 'b' ELSE repeat('long', 200) END, 'experiment', NULL, '{\"project\": \"mesh\"}' WHERE i % 5 = 4 AND i % 8 < 3 AND i < 30000
     UNION ALL SELECT 'realization_created', 'r' || i / 80 || '.a.mesh', 'realization', NULL, jsonb_build_object('project', 'mesh', 'resources', '[\"m1\", \"m2\"]'::jsonb) WHERE i % 5 = 4 AND i % 8 = 3 AND i < 30000
     UNION ALL SELECT 'project_updated', 'mesh', 'project', NULL, '{\"role\": \"maintainer\"}' WHERE i % 5 = 4 AND i % 8 = 4 AND i < 30000
     UNION ALL SELECT 'org_updated', 'acme', 'organization', NULL, '{}' WHERE i % 5 = 4 AND i % 8 = 5 AND i % 9 = 0
     UNION ALL SELECT 'facility_updated', 'hill', 'facility', NULL, '{}' WHERE i % 5 = 4 AND i % 8 = 6 AND i % 9 = 0
     UNION ALL SELECT 'login_failed', 'ursula', 'user', NULL, '{\"ip\": \"192.0.2.7\"}' WHERE i % 5 = 4 AND i % 8 = 7 AND i % 9 = 0
     UNION ALL SELECT 'user_updated', 'u' || i % 97, 'user', NULL, '{\"project\": \"mesh\"}' WHERE i % 5 = 4 AND i % 8 = 7 AND i % 9 = 1) AS l";
/// A membership that begins amid it, and one that does so late: of who is let in then.
const LATER: &str = "INSERT INTO public.events VALUES
  (gen_random_uuid(), '2026-02-01', 'project_member_added', 'petra', 'mesh', 'project', 'sven', true, NULL, '{\"kind\": \"usermember\", \"role\": \"member\", \"state\": \"active\"}'),
  (gen_random_uuid(), '2026-03-20', 'pool_project_added', 'petra', 'shared', 'pool', 'mesh', true, NULL, '{}')";
/// Of things only that is known which is older than some time in January.
const BEHIND: &str = "TRUNCATE portal_audit.project_things, portal_audit.thing_types, portal_audit.things_folded; SELECT portal_audit.fold_things(15000)";
const PEOPLE: [&str; 8] = ["oona", "petra", "paul", "fern", "fay", "ursula", "carol", "sven"];

const WORDS: [&str; 24] = [
    "",
    "",
    "type:project_*",
    "type:experiment_updated",
    "type:realization_created type:org_*",
    "type:login_*",
    "type:facility_updated",
    "success:false",
    "success:true",
    "actor:carol",
    "subject:a",
    "subject:mesh subject_type:project",
    "subject_type:experiment",
    "subject_type:realization",
    "target:paul",
    "target:mesh",
    "user:petra",
    "user:u7",
    "payload.project:mesh",
    "payload.resources:m2",
    "payload.role:maintainer",
    "since:2026-02-10",
    "until:2026-03-01",
    "since:2026-02-21T10:00:00Z until:2026-05-01",
];

/// Numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

async fn life(name: &str) {
    let portal = world(name, &PEOPLE).await;
    for script in [LIFE, LATER, "SELECT portal_audit.adopt()", "VACUUM ANALYZE public.events"] {
        run(&portal.audit, script).await;
    }
    drop(portal);
}

/// Ids of what the policy shows, by a condition. `seen` holds it.
async fn shown(session: &Session, to: &Where, order: Order) -> Vec<Uuid> {
    let query = format!(
        "SELECT e.event_uuid FROM pg_temp.seen e WHERE {} ORDER BY {}",
        to.sql(),
        order.sql()
    );
    let rows = session.client.query(&query, &to.values()).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// All pages put together, however short some are.
async fn pages(session: &Session, filter: &Filter, order: Order, from: Option<Key>) -> Vec<Uuid> {
    let (mut ids, mut beyond) = (Vec::new(), from);
    for limit in [7, 60, 500].into_iter().chain(std::iter::repeat(10_000)) {
        let page = own::page(&session.client, filter, order, beyond, limit).await.unwrap();
        let is_full = page.ids.len() == usize::try_from(limit).unwrap();
        assert!(page.looked_to.is_none() || !is_full, "{filter:?}");
        ids.extend(page.ids);
        let next = page.looked_to.or(page.last.filter(|_| is_full));
        assert!(next.is_none() || next != beyond, "{filter:?}: it looked at nothing");
        beyond = next;
        if beyond.is_none() {
            break;
        }
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_viewer_asks_is_what_the_policy_shows_whatever_the_filter() {
    const NAME: &str = "access_own";
    life(NAME).await;
    let owner = crate::support::open(crate::support::cluster(), &format!("{NAME}_audit")).await;
    let mut dice = Dice(20_260_423);
    for is_behind in [false, true] {
        if is_behind {
            run(&owner, BEHIND).await;
        } else {
            while value::<i64>(&owner, "SELECT portal_audit.fold_things(7000)").await > 0 {}
        }
        for person in PEOPLE {
            let session = login(NAME, person).await;
            run(&session, "CREATE TEMP TABLE seen AS SELECT * FROM public.events").await;
            // Half of the words alone, the other half in the other state of things, and some together.
            let alone = WORDS.iter().skip(usize::from(is_behind)).step_by(2);
            let alone = alone.map(|word| (*word).to_owned());
            let pairs: Vec<String> = (0..2)
                .map(|_| format!("{} {}", WORDS[dice.roll(24)], WORDS[dice.roll(24)]))
                .collect();
            for words in alone.chain(pairs) {
                // Two beginnings in one search are refused.
                let Ok(filter) = Filter::from_words(&words) else { continue };
                let order = if dice.roll(3) == 0 { Order::OldestFirst } else { Order::NewestFirst };
                let mut to = Where::default();
                filter.matter(&mut to);
                filter.span(&mut to);
                let all = shown(&session, &to, order).await;
                let given = pages(&session, &filter, order, None).await;
                assert!(
                    given == all,
                    "{person}, {words:?}, {order:?}, behind: {is_behind}: {} for {}",
                    given.len(),
                    all.len()
                );
                // From amid it on, by my_events.
                if let Some(place) = all.get(all.len() / 3) {
                    const PAGE: &str = "SELECT array_agg(m.event_uuid) FROM public.events e, portal_audit.my_events(90, e.timestamp, e.event_uuid, $2, $3) m WHERE e.event_uuid = $1";
                    let json = tokio_postgres::types::Json(&filter);
                    let is_oldest_first = order == Order::OldestFirst;
                    let values: [&(dyn ToSql + Sync); 3] = [place, &json, &is_oldest_first];
                    let row = session.client.query_one(PAGE, &values).await.unwrap();
                    let page: Vec<Uuid> = row.get::<_, Option<_>>(0).unwrap_or_default();
                    let expected: Vec<Uuid> =
                        all.iter().skip(all.len() / 3 + 1).take(90).copied().collect();
                    assert!(
                        page == expected,
                        "{person}, {words:?}, {order:?}, behind: {is_behind}"
                    );
                }
            }
        }
    }
}
