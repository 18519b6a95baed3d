//! What keeps pages quick where there is much: how many rows are looked at, and no time is measured.

use crate::{
    cookbook::audit,
    support::{run, sample, value},
    web::Site,
};
use portal_audit::{
    config::Access,
    connect::Session,
    filter::{Filter, Where},
};

/// Three years of a testbed in the tables that are folded, and no event: three types an hour; two hundred users and two thousand updates of each; as many realizations, each of an hour.
const YEARS: &str = "
    INSERT INTO portal_audit.hourly SELECT type, at, true, 2 FROM generate_series(timestamptz '2024-01-01Z', '2026-12-31 23:00Z', interval '1 hour') at, unnest('{login_succeeded,login_failed,user_updated}'::text[]) type;
    INSERT INTO portal_audit.lifetimes (subject_type, within, subject, began, began_lsn, began_n, began_uuid)
      SELECT 'user', '', 'u' || u, '2024-01-01Z', '0/1', 0, gen_random_uuid() FROM generate_series(1, 200) u;
    INSERT INTO portal_audit.lifetimes (subject_type, within, subject, began, began_lsn, began_n, ended, began_uuid)
      SELECT 'realization', '', 'r' || r, at, '0/1', 0, at + interval '1 hour', gen_random_uuid()
        FROM (SELECT r, timestamptz '2024-01-01Z' + r * interval '30 minutes' AS at FROM generate_series(1, 50000) r) runs;
    INSERT INTO portal_audit.lifetime_points (subject_type, within, subject, at, lsn, n, event_uuid, change, ends, state, facts)
      SELECT 'user', '', 'u' || u, timestamptz '2024-01-01Z' + n * interval '9 hours', '0/1', n, gen_random_uuid(), 'updated', false, CASE n WHEN 0 THEN 'active' END, '{\"category\": \"Staff\"}'
        FROM generate_series(1, 200) u, generate_series(0, 999) n;
    VACUUM ANALYZE portal_audit.hourly, portal_audit.daily_sums, portal_audit.lifetimes, portal_audit.lifetime_points";

/// Rows of a table that a query takes from it.
async fn rows_of(audit: &Session, query: &str, table: &str) -> i64 {
    let seen = format!(
        "SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables WHERE relid = '{table}'::regclass"
    );
    run(audit, "BEGIN").await;
    let before: i64 = value(audit, &seen).await;
    audit.client.simple_query(query).await.unwrap();
    let after: i64 = value(audit, &seen).await;
    run(audit, "ROLLBACK").await;
    after - before
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_of_any_time_are_not_counted_from_all_of_it() {
    let audit = audit("pages_numbers").await;
    for part in YEARS.split_inclusive(';') {
        run(&audit, part).await;
    }
    for at in ["2026-12-31 20:30Z", "2025-03-01 12:30Z"] {
        let stats = format!("SELECT * FROM portal_audit.stats('{at}')");
        let number = format!("SELECT number FROM portal_audit.stats('{at}') WHERE key = 'logins'");
        let counted = format!(
            "SELECT sum(events)::bigint FROM portal_audit.hourly WHERE event_type = 'login_succeeded' AND hour < date_trunc('hour', timestamptz '{at}')"
        );
        let logins: i64 = value(&audit, &counted).await;
        assert_eq!(value::<i64>(&audit, &number).await, logins);
        // Fourteen counts, of the hours of one day each; older servers take some more.
        let hours = rows_of(&audit, &stats, "portal_audit.hourly").await;
        assert!(hours <= 14 * 3 * 24, "{at}: {hours} of 78,912 hours");
        // Of each user the last state and the last facts.
        let points = rows_of(&audit, &stats, "portal_audit.lifetime_points").await;
        assert!(points <= 3 * 200, "{at}: {points} of 200,000 points");
        let lifetimes = rows_of(&audit, &stats, "portal_audit.lifetimes").await;
        assert!(lifetimes <= 2_000, "{at}: {lifetimes} of 50,200 lifetimes");
    }
    let days = "SELECT sum(events) FROM portal_audit.daily WHERE day BETWEEN '2026-01-01' AND '2026-12-31'";
    assert_eq!(rows_of(&audit, days, "portal_audit.hourly").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_that_no_index_serves_says_how_far_it_looked_and_goes_on_from_there() {
    let portal = sample("pages_search").await;
    run(&portal.audit, "INSERT INTO events SELECT gen_random_uuid(), timestamptz '2020-01-01Z' + n * interval '1 s', 'user_updated', 'root', 'user-' || n % 100, 'user', NULL, true, NULL, CASE WHEN n % 70000 = 10 THEN '{\"rare\": \"yes\"}' ELSE '{}' END::jsonb FROM generate_series(1, 300000) n; ANALYZE events").await;
    let site = Site::of(&portal, Access::Loopback, &[]).await;
    let page = site.get("/events?q=payload.rare:yes").await;
    assert!(page.body.contains("id=\"looked\""), "{}", page.body);
    assert!(page.body.contains("rel=\"next\""), "{}", page.body);
    assert!(!page.body.contains("No event fits"), "{}", page.body);
    // Also where an index finds too many: all events have this type.
    for search in ["payload.rare:yes", "payload.rare:yes%20type:user_updated"] {
        let (mut path, mut seen, mut pages) = (format!("/events?q={search}"), Vec::new(), 0);
        loop {
            let page = site.json(&path, &[]).await;
            pages += 1;
            seen.extend(
                page["events"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|event| event["event_uuid"].to_string()),
            );
            let Some(next) = page["next"].as_str() else { break };
            path = format!("/events?q={search}&before={next}");
        }
        assert!(pages > 1, "{search}: 300,000 events in one page");
        assert_eq!(seen.len(), 5, "{search}");
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 5, "{search}: an event twice");
    }
}

/// Whether an index leads to few events is known before one of them is read.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_alone_says_how_many_events_have_a_name() {
    let audit = audit("pages_fewest").await;
    run(&audit, "INSERT INTO events SELECT gen_random_uuid(), timestamptz '2026-01-01Z' + n * interval '1 s', CASE WHEN n % 100 = 0 THEN 'user_frozen' ELSE 'user_updated' END, 'root', 'user-' || n % 50, 'user', 'user-' || n % 10, true, NULL, '{}' FROM generate_series(1, 20000) n").await;
    run(&audit, "VACUUM ANALYZE events").await;
    run(&audit, "SET enable_seqscan = off").await;
    for (words, expected) in [
        ("type:user_frozen", 200),
        ("type:user_f*", 200),
        ("type:user_*", 10_000),
        ("actor:root", 10_000),
        ("actor:root type:user_frozen", 200),
        ("subject_type:user", 10_000),
        ("subject_type:user subject:user-7", 400),
        ("subject:user-7", 400),
        ("target:user-7", 2_000),
        ("user:user-7", 2_400),
        ("user:user-7 payload.role:member success:true", 2_400),
    ] {
        let mut to = Where::default();
        let fewest = Filter::from_words(words).unwrap().fewest(&mut to, 10_000).unwrap();
        let count = audit.client.query_one(&format!("SELECT {fewest}"), &to.values()).await;
        assert_eq!(count.unwrap().get::<_, i64>(0), expected, "{words}");
        let plan = format!("EXPLAIN (COSTS OFF) SELECT {fewest}");
        let plan = audit.client.query(&plan, &to.values()).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
        let reads = |line: &&String| line.contains("Scan") && line.contains("events");
        let heap: Vec<_> =
            plan.iter().filter(reads).filter(|line| !line.contains("Index Only Scan")).collect();
        assert!(heap.is_empty(), "{words}: {plan:#?}");
    }
    let mut to = Where::default();
    assert!(Filter::from_words("success:false").unwrap().fewest(&mut to, 1).is_none());
}

/// One transaction of a hundred thousand changes has one time, and pages go through it.
#[tokio::test(flavor = "multi_thread")]
async fn a_search_gets_past_many_events_of_one_time() {
    let portal = sample("pages_one_time").await;
    run(&portal.audit, "INSERT INTO events SELECT gen_random_uuid(), timestamptz '2026-01-01Z', 'user_updated', 'root', 'user-' || n % 100, 'user', NULL, true, NULL, '{}' FROM generate_series(1, 100000) n;
        INSERT INTO events SELECT gen_random_uuid(), timestamptz '2025-01-01Z', 'user_updated', 'root', 'maple', 'user', NULL, true, NULL, '{\"rare\": \"yes\"}'").await;
    run(&portal.audit, "VACUUM ANALYZE events").await;
    let site = Site::of(&portal, Access::Loopback, &[]).await;
    for search in ["payload.rare:yes", "payload.rare:yes%20type:user_updated"] {
        let (mut path, mut found) = (format!("/events?q={search}"), 0);
        for _ in 0..20 {
            let page = site.json(&path, &[]).await;
            found += page["events"].as_array().unwrap().len();
            let Some(next) = page["next"].as_str() else { break };
            let next = format!("/events?q={search}&before={next}");
            assert_ne!(next, path, "{search}: it stays where it is");
            path = next;
        }
        assert_eq!(found, 1, "{search}");
    }
    let own = "SELECT count(*) FROM portal_audit.my_events(50, p_filter => '{\"payload\": [\"rare=yes\"]}')";
    run(&portal.audit, "CREATE ROLE pages_maple LOGIN; GRANT portal_audit_viewer TO pages_maple; INSERT INTO portal_audit.viewers VALUES ('pages_maple', 'maple');
        INSERT INTO portal_audit.event_types (event_type, describe, retention, visible_to) VALUES ('user_updated', '{subject}', 'user', '{self}') ON CONFLICT (event_type) DO UPDATE SET visible_to = excluded.visible_to").await;
    let dsn = crate::support::cluster().dsn("pages_one_time_audit", "pages_maple");
    let dsn = portal_audit::config::conninfo(&dsn).unwrap();
    let maple = portal_audit::connect::connect(&dsn, "test").await.unwrap();
    run(&maple, "SET statement_timeout = '60s'").await;
    assert_eq!(value::<i64>(&maple, own).await, 1);
}
