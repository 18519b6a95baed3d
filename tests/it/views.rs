//! What admins query: derived tables follow the seals in whatever order and pieces, and tell what was so at any time.

use crate::{
    cookbook::{PROGRESS, SAMPLE, audit},
    support::{Wishes, cluster, open, portal, run, sample, value, wait_for},
};
use portal_audit::{connect::Session, keep::keep, show::ShownEvent, sql};
use std::collections::BTreeMap;

const DERIVED: [&str; 8] = [
    "lifetime_points",
    "lifetimes",
    "membership_points",
    "resource_points",
    "hourly",
    "daily_sums",
    "active_days",
    "active",
];

/// Everything that is derived, as text.
async fn derived(audit: &Session) -> String {
    let mut text = String::new();
    for table in DERIVED {
        let query = format!(
            "SELECT coalesce(string_agg(t::text, E'\n' ORDER BY t::text), '') FROM portal_audit.{table} t"
        );
        text += &format!("{table}\n{}\n", value::<String>(audit, &query).await);
    }
    text
}

/// Seals the sample's events in the order of `by`, in seals of `piece` leaves.
async fn seal(audit: &Session, by: &str, piece: i64) {
    run(
        audit,
        &format!(
            "INSERT INTO portal_audit.trees (tree, size) SELECT 'shuffled', count(*) FROM public.events;
             INSERT INTO portal_audit.seals (tree, first, events, uuids, salts, leaves)
             SELECT 'shuffled', min(place), count(*), string_agg(uuid_send(event_uuid), '' ORDER BY place), '', ''
               FROM (SELECT event_uuid, row_number() OVER (ORDER BY {by}) - 1 AS place FROM public.events) AS e GROUP BY place / {piece}"
        ),
    )
    .await;
}

async fn fold(audit: &Session, limit: i32) -> i64 {
    value(audit, &format!("SELECT portal_audit.fold({limit})")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn derived_tables_are_the_same_in_any_order_and_any_pieces() {
    let mut seen = Vec::new();
    let orders = [
        ("timestamp, event_uuid", 4096, 1000),
        ("event_uuid DESC", 7, 3),
        ("md5(event_uuid::text)", 1, 1),
        ("md5('2' || event_uuid::text)", 10, 4),
        ("md5('3' || event_uuid::text)", 3, 11),
    ];
    for (number, (by, piece, limit)) in orders.into_iter().enumerate() {
        let audit = audit(&format!("views_order_{number}")).await;
        run(&audit, SAMPLE).await;
        seal(&audit, by, piece).await;
        let mut taken = 0;
        loop {
            let now = fold(&audit, limit).await;
            assert!(now <= i64::from(limit));
            taken += now;
            if now == 0 {
                break;
            }
        }
        assert_eq!(taken, 33);
        seen.push(derived(&audit).await);
    }
    assert!(seen[0].contains("one.mesh8.mesh"));
    for other in &seen[1..] {
        assert_eq!(*other, seen[0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_of_a_past_time_are_the_numbers_that_were_seen_then() {
    const STATS: &str = "SELECT key, number FROM portal_audit.stats($1)";
    let whole = audit("views_stats_whole").await;
    run(&whole, SAMPLE).await;
    let audit = audit("views_stats").await;
    // The same events come one transaction after another, and each time the numbers are written down.
    let times = whole
        .client
        .query("SELECT DISTINCT timestamp FROM public.events ORDER BY 1", &[])
        .await
        .unwrap();
    run(&whole, "SELECT portal_audit.adopt(); SELECT portal_audit.fold(1000)").await;
    run(&audit, &format!("CREATE TEMP TABLE all_events AS SELECT * FROM public.events; {SAMPLE}"))
        .await;
    run(&audit, "INSERT INTO all_events SELECT * FROM public.events; DELETE FROM public.events")
        .await;
    let numbers = async |session: &Session, at: chrono::DateTime<chrono::Utc>| {
        let rows = session.client.query(STATS, &[&at]).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect::<BTreeMap<String, i64>>()
    };
    let mut size: i64 = 0;
    for time in &times {
        let at: chrono::DateTime<chrono::Utc> = time.get(0);
        let insert = "INSERT INTO public.events SELECT * FROM all_events WHERE timestamp = $1";
        let more = audit.client.execute(insert, &[&at]).await.unwrap();
        let seal = "SELECT portal_audit.seal('portal', $2, string_agg(uuid_send(event_uuid), '' ORDER BY event_uuid), string_agg(uuid_send(event_uuid), ''), string_agg(uuid_send(event_uuid) || uuid_send(event_uuid), '')) FROM public.events WHERE timestamp = $1";
        audit.client.execute(seal, &[&at, &size]).await.unwrap();
        size += i64::try_from(more).unwrap();
        assert!(fold(&audit, 100).await > 0);
        let then = numbers(&audit, at).await;
        assert_eq!(then, numbers(&whole, at).await, "at {at}");
        assert_eq!(then, numbers(&audit, at + chrono::TimeDelta::zero()).await);
    }
    let last = numbers(&whole, "2026-05-01T00:00:00Z".parse().unwrap()).await;
    for (key, number) in [
        ("users", 4),
        ("users.state.frozen", 1),
        ("users.active_cumulative", 4),
        ("users.active_within_7_days", 1),
        ("users.non_active_cumulative", 1),
        ("projects", 1),
        ("projects.category.Teaching", 1),
        ("experiments", 0),
        ("logins", 1),
        ("logins.failed", 2),
        ("logins.within_30_days", 0),
        ("realizations", 0),
    ] {
        assert_eq!(last.get(key), Some(&number), "{key} of {last:?}");
    }
    let march = numbers(&whole, "2026-03-05T08:00:10Z".parse().unwrap()).await;
    assert_eq!((march["logins.failed"], march["logins"], march["realizations"]), (1, 0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_fold_at_once_take_nothing_twice() {
    let audit = audit("views_twice").await;
    run(&audit, SAMPLE).await;
    run(&audit, "SELECT portal_audit.adopt()").await;
    run(&audit, "BEGIN").await;
    assert_eq!(fold(&audit, 20).await, 20);
    let other = open(cluster(), "views_twice").await;
    assert_eq!(fold(&other, 20).await, 0, "the first has not committed");
    run(&audit, "ROLLBACK").await;
    assert_eq!(fold(&other, 20).await, 20);
    assert_eq!(fold(&audit, 20).await, 13);
    assert_eq!(fold(&audit, 20).await, 0);
    let counted = "SELECT sum(events)::bigint FROM portal_audit.hourly";
    assert_eq!(value::<i64>(&audit, counted).await, 33);
    // Days follow their hours, whatever is done to those.
    let apart = "WITH sums AS (SELECT event_type, (hour AT TIME ZONE 'UTC')::date AS day, success, sum(events)::bigint AS events FROM portal_audit.hourly GROUP BY 1, 2, 3)
        SELECT count(*) FROM sums FULL JOIN portal_audit.daily_sums d USING (event_type, day, success) WHERE sums.events IS DISTINCT FROM d.events";
    for change in [
        "SELECT 1",
        "UPDATE portal_audit.hourly SET events = events + 2 WHERE success",
        "INSERT INTO portal_audit.hourly SELECT event_type, hour + interval '1 hour', success, 5 FROM portal_audit.hourly ON CONFLICT (event_type, hour, success) DO UPDATE SET events = hourly.events + 1",
        "TRUNCATE portal_audit.hourly",
    ] {
        run(&audit, &format!("BEGIN; {change}")).await;
        assert_eq!(value::<i64>(&audit, apart).await, 0, "{change}");
        run(&audit, "ROLLBACK").await;
    }
    // An older schema has hours alone: the script sums them.
    run(&audit, "DROP TABLE portal_audit.daily_sums; DROP TRIGGER sum_days_added ON portal_audit.hourly; DROP TRIGGER sum_days_changed ON portal_audit.hourly; DROP TRIGGER sum_days_emptied ON portal_audit.hourly").await;
    run(&audit, sql::audit()).await;
    assert_eq!(value::<i64>(&audit, apart).await, 0);
    assert_eq!(
        value::<i64>(&audit, "SELECT sum(events)::bigint FROM portal_audit.daily").await,
        33
    );
    // Nor does it tell when each was active last.
    let last = "SELECT count(*) FROM portal_audit.active a WHERE a.last = (SELECT max(d.last) FROM portal_audit.active_days d WHERE d.kind = a.kind AND d.name = a.name)";
    let actives: i64 = value(&audit, "SELECT count(*) FROM portal_audit.active").await;
    assert!(actives > 0);
    run(&audit, "ALTER TABLE portal_audit.active DROP COLUMN last").await;
    run(&audit, sql::audit()).await;
    assert_eq!(value::<i64>(&audit, last).await, actives);
    // What retention took away before it was folded is passed over.
    run(&audit, "SELECT portal_audit.record('user_created', '', 'late', 'user', NULL, true, NULL, '{}'); DELETE FROM public.events WHERE subject = 'late'").await;
    assert_eq!(fold(&audit, 20).await, 1);
    assert_eq!(value::<i64>(&audit, counted).await, 33);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_there_at_any_time_is_what_the_portal_had_then() {
    let portal = sample("views_truth").await;
    let sidecar = portal.start().await;
    let life = |from: u32, to: u32| {
        format!(
            "DO $$ BEGIN FOR i IN {from} .. {to} LOOP PERFORM activity.act(i); COMMIT; END LOOP; END $$"
        )
    };
    portal.act(&life(1, 500)).await;
    let half: chrono::DateTime<chrono::Utc> =
        value(&portal.source, "SELECT clock_timestamp()").await;
    let then = truth(&portal.source).await;
    portal.act(&life(501, 1000)).await;
    let now = truth(&portal.source).await;
    sidecar.stop().await;
    // A sidecar that seals has done so; otherwise the rows are adopted.
    run(
        &portal.audit,
        "SELECT portal_audit.adopt() FROM portal_audit.trees HAVING bool_and(size = 0)",
    )
    .await;
    while fold(&portal.audit, 300).await > 0 {}
    assert!(!then.is_empty() && then != now);
    similar_asserts(&told(&portal.audit, half).await, &then);
    similar_asserts(&told(&portal.audit, half + chrono::TimeDelta::days(1)).await, &now);
}

fn similar_asserts(told: &[String], truth: &[String]) {
    let missing: Vec<_> = truth.iter().filter(|line| !told.contains(line)).collect();
    let beyond: Vec<_> = told.iter().filter(|line| !truth.contains(line)).collect();
    assert!(missing.is_empty() && beyond.is_empty(), "missing {missing:#?}, beyond {beyond:#?}");
}

async fn lines(session: &Session, query: &str) -> Vec<String> {
    let rows = session.client.query(query, &[]).await.unwrap();
    let mut lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    lines.sort();
    lines
}

/// What the portal's own tables say.
async fn truth(source: &Session) -> Vec<String> {
    lines(
        source,
        "SELECT format('user %s %s %s', username, lower(state), category) FROM portal.users UNION ALL
         SELECT format('organization %s %s %s', name, lower(state), category) FROM portal.organizations UNION ALL
         SELECT format('project %s %s %s in %s', name, lower(state), category, organization) FROM portal.projects UNION ALL
         SELECT format('experiment %s of %s', name, project) FROM portal.experiments UNION ALL
         SELECT format('%s of project %s: %s %s', username, project, lower(role), lower(state)) FROM portal.project_members UNION ALL
         SELECT format('%s %s of organization %s: %s %s', lower(replace(kind, 'Member', '')), id, organization, lower(role), lower(state)) FROM portal.organization_members UNION ALL
         SELECT format('realization %s.%s.%s', id, eid, pid) FROM portal.realizations WHERE code = 'Ok' UNION ALL
         SELECT format('materialization %s.%s.%s', rid, eid, pid) FROM portal.materializations UNION ALL
         SELECT DISTINCT format('%s is held by %s.%s.%s', resource, rid, eid, pid) FROM portal.allocations
           JOIN portal.realizations r USING (pid, eid) WHERE r.id = rid AND r.code = 'Ok'",
    )
    .await
}

/// What the audit database says of a time.
async fn told(audit: &Session, at: chrono::DateTime<chrono::Utc>) -> Vec<String> {
    let query = "SELECT format('user %s %s %s', username, state, category) FROM portal_audit.users($1) UNION ALL
         SELECT format('organization %s %s %s', organization, state, category) FROM portal_audit.organizations($1) UNION ALL
         SELECT format('project %s %s %s in %s', project, state, category, organization) FROM portal_audit.projects($1) UNION ALL
         SELECT format('experiment %s of %s', experiment, project) FROM portal_audit.experiments($1) UNION ALL
         SELECT format('%s of project %s: %s %s', m.member, s.subject, m.role, m.state)
           FROM (SELECT DISTINCT subject FROM portal_audit.membership_points WHERE kind = 'project') s, portal_audit.members('project', s.subject, $1) m UNION ALL
         SELECT format('%s %s of organization %s: %s %s', m.member_kind, m.member, s.subject, m.role, m.state)
           FROM (SELECT DISTINCT subject FROM portal_audit.membership_points WHERE kind = 'organization') s, portal_audit.members('organization', s.subject, $1) m UNION ALL
         SELECT format('realization %s', realization) FROM portal_audit.realizations($1) UNION ALL
         SELECT format('materialization %s', materialization) FROM portal_audit.materializations($1) UNION ALL
         SELECT format('%s is held by %s', resource, subject) FROM portal_audit.resources_held($1) WHERE subject_type = 'realization'";
    lines(audit, &query.replace("$1", &format!("'{}'", at.to_rfc3339()))).await
}

const RENAMES: &str = r#"
    SELECT portal_audit.record('user_created', 'a', 'one', 'user', NULL, true, NULL, '{"state": "active", "category": "C"}');
    SELECT portal_audit.record('user_frozen', 'a', 'one', 'user', NULL, true, NULL, '{"category": "D"}');
    SELECT portal_audit.record('user_renamed', 'a', 'two', 'user', NULL, true, NULL, '{"old_name": "one"}');
    SELECT portal_audit.record('user_renamed', 'a', 'three', 'user', NULL, true, NULL, '{"old_name": "two"}');
    SELECT portal_audit.record('user_created', 'a', 'one', 'user', NULL, true, NULL, '{"state": "pending", "category": "E"}');
    SELECT portal_audit.record('user_created', 'a', 'gone', 'user', NULL, true, NULL, '{"state": "pending"}');
    SELECT portal_audit.record('user_declined', 'a', 'gone', 'user', NULL, true, NULL, '{"old_state": "pending"}');
    SELECT portal_audit.record('user_insert_failed', 'a', 'never', 'user', NULL, false, 'x', '{}');
    SELECT portal_audit.record('token_created', 'a', 'x', 'user', 't', true, NULL, '{}');
    SELECT portal_audit.record('user_deleted', 'a', 'unheard', 'user', NULL, true, NULL, '{}');
    SELECT portal_audit.record('experiment_created', 'a', 'e', 'experiment', NULL, true, NULL, '{"project": "p"}');
    SELECT portal_audit.record('experiment_created', 'a', 'e', 'experiment', NULL, true, NULL, '{"project": "q"}');
    SELECT portal_audit.record('experiment_renamed', 'a', 'f', 'experiment', NULL, true, NULL, '{"project": "p", "old_name": "e", "old_project": "p"}');
    SELECT portal_audit.record('project_created', 'a', 'p', 'project', NULL, true, NULL, '{}');
    SELECT portal_audit.record('project_member_added', 'a', 'p', 'project', 'one', true, NULL, '{"kind": "UserMember", "role": "Member"}');
    SELECT portal_audit.record('project_member_requested', 'a', 'q', 'project', 'one', true, NULL, '{}');
    SELECT portal_audit.record('project_deleted', 'a', 'p', 'project', NULL, true, NULL, '{}');
    SELECT portal_audit.record('project_created', 'a', 'p', 'project', NULL, true, NULL, '{}');
    SELECT portal_audit.record('gadget_registered', 'a', 'g', 'gadget', NULL, true, NULL, '"not an object"');
    SELECT portal_audit.record('user_created', '', repeat('n', 5000), 'user', NULL, true, NULL, '{}')"#;

#[tokio::test(flavor = "multi_thread")]
async fn names_that_change_or_come_back_keep_what_they_were() {
    let audit = audit("views_renames").await;
    let script = RENAMES.replace("'\"not an object\"'", "'{}'");
    run(&audit, &script).await;
    while fold(&audit, 4).await > 0 {}
    let users = lines(
        &audit,
        "SELECT format('%s %s %s', left(username, 5), state, category) FROM portal_audit.users_now",
    )
    .await;
    assert_eq!(users, ["nnnnn  ", "one pending E", "three frozen D"]);
    let experiments = lines(
        &audit,
        "SELECT format('%s of %s', experiment, project) FROM portal_audit.experiments_now",
    )
    .await;
    assert_eq!(experiments, ["e of q", "f of p"]);
    let gadgets = lines(&audit, "SELECT name FROM portal_audit.there('gadget', now())").await;
    assert_eq!(gadgets, ["g"]);
    // The first project p went, and with it its member, though no event says so.
    let memberships = lines(
        &audit,
        "SELECT format('%s %s %s', subject, role, state) FROM portal_audit.memberships_of('one')",
    )
    .await;
    assert_eq!(memberships, ["q member pending"]);
    let before = "SELECT format('%s %s %s', member, role, state) FROM portal_audit.lifetimes l, portal_audit.members('project', 'p', l.ended - interval '1 microsecond') WHERE l.subject = 'p' AND l.ended IS NOT NULL";
    assert_eq!(lines(&audit, before).await, ["one member active"]);
    assert_eq!(
        lines(&audit, "SELECT member FROM portal_audit.members('project', 'p')").await,
        [""; 0]
    );
    let between = "SELECT format('%s %s', member, ended IS NULL) FROM portal_audit.members_between('project', 'p', '-infinity', 'infinity')";
    assert_eq!(lines(&audit, between).await, ["one f"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sentence_in_the_database_is_the_sentence_of_the_program() {
    let audit = audit("views_describe").await;
    run(&audit, "INSERT INTO portal_audit.event_types (event_type, describe, retention, visible_to) VALUES ('t', $q$ $q$, 'user', '{}')").await;
    let templates = [
        "{caller} added {target} to {subject} as {payload.role}, {payload.changed} {payload.none}",
        "{subject_type} {payload.number} {payload.flag} {payload.nothing} {payload.list} {error_message}",
        "no placeholder",
        "{caller}{caller} {} {unknown} {payload.} ende",
    ];
    let names =
        ["", "glawler", "{caller}", "a\u{1b}[2Jb", "\u{202E}turned", "Zoë 🦉", "' \" \\ %s $1"];
    let payload = serde_json::json!({"role": "member", "changed": ["a", "{subject}", 3], "number": 1.5, "flag": true, "list": [], "nothing": null});
    for template in templates {
        audit
            .client
            .execute("UPDATE portal_audit.event_types SET describe = $1", &[&template])
            .await
            .unwrap();
        for name in names {
            let event = ShownEvent {
                event_uuid: uuid::Uuid::nil(),
                timestamp: chrono::DateTime::UNIX_EPOCH,
                event_type: "t".into(),
                caller: name.into(),
                subject: format!("s{name}"),
                subject_type: "thing".into(),
                target: Some(name.into()),
                success: true,
                error_message: Some(name.into()),
                payload: payload.clone(),
            };
            let query = "SELECT portal_audit.describe('t', $1, $2, 'thing', $1, true, $1, $3)";
            let row =
                audit.client.query_one(query, &[&name, &event.subject, &payload]).await.unwrap();
            let expected = event.sentence(template).replace(" null ", " (unknown) ");
            assert_eq!(row.get::<_, String>(0), expected, "{template} of {name:?}");
        }
    }
    // What the program has no word for: retired types, failures, and what is too long.
    let unknown = "SELECT portal_audit.describe('org_member_vetted', '', 'o', 'organization', 'someone', false, 'no quorum', '{}')";
    assert_eq!(
        value::<String>(&audit, unknown).await,
        "org member vetted: organization o, someone, by (unknown); it failed: no quorum"
    );
    let long = "SELECT length(portal_audit.describe('x', repeat('c', 9000), repeat('s', 9000), 'thing', repeat('t', 9000), false, repeat('e', 9000), '{}'))";
    assert!(value::<i32>(&audit, long).await <= 1000);
    let list = "SELECT portal_audit.describe('y', '', '', '', '', true, NULL, jsonb_build_object('l', (SELECT jsonb_agg(i) FROM generate_series(1, 40) AS i)))";
    run(&audit, "INSERT INTO portal_audit.event_types VALUES ('y', '{payload.l}', 'user', '{}')")
        .await;
    assert_eq!(
        value::<String>(&audit, list).await,
        "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 and 28 more"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn described_events_obey_the_row_policies_of_who_asks() {
    let audit = audit("views_policies").await;
    run(&audit, SAMPLE).await;
    run(
        &audit,
        "DROP POLICY portal_audit_sees_all ON public.events;
         CREATE POLICY views_test ON public.events FOR SELECT USING (caller = 'testuser');
         SET ROLE portal_audit_reader",
    )
    .await;
    let of = "FROM portal_audit.events_described";
    assert_eq!(value::<i64>(&audit, &format!("SELECT count(*) {of}")).await, 4);
    let others = format!("SELECT count(*) {of} WHERE caller <> 'testuser'");
    assert_eq!(value::<i64>(&audit, &others).await, 0);
    // And the view is no wall between a question and the indexes.
    run(&audit, "RESET ROLE; SET enable_seqscan = off").await;
    let plan = lines(
        &audit,
        &format!(
            "EXPLAIN SELECT description {of} WHERE subject_type = 'user' AND subject = 'wrenn'"
        ),
    )
    .await;
    assert!(plan.iter().any(|line| line.contains("idx_events_subject")), "{plan:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sidecar_folds_what_is_sealed_and_outlives_a_refusal() {
    let wishes =
        Wishes { name: "views_keep", limits: "keep_interval_ms = 10", ..Wishes::default() };
    let portal = portal(cluster(), wishes).await;
    let record =
        "SELECT portal_audit.record('user_created', '', 'u', 'user', NULL, true, NULL, '{}')";
    let folded = "SELECT coalesce((SELECT upto FROM portal_audit.folded WHERE tree = '.own'), 0)";
    run(&portal.audit, "ALTER FUNCTION portal_audit.fold RENAME TO fold_away").await;
    run(&portal.audit, record).await;
    let watch = async {
        let asked = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = 'views_keep_audit' AND application_name LIKE '%keep%'";
        wait_for("a session", async || value::<bool>(&portal.audit, asked).await).await;
        run(&portal.audit, "ALTER FUNCTION portal_audit.fold_away RENAME TO fold").await;
        wait_for("the fold", async || value::<i64>(&portal.audit, folded).await == 1).await;
        run(&portal.audit, record).await;
        wait_for("the next", async || value::<i64>(&portal.audit, folded).await == 2).await;
    };
    tokio::select! {
        () = watch => {}
        never = keep(&portal.settings) => match never {},
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn complete_to_of_derived_tables_never_runs_ahead() {
    let audit = audit("views_folded_to").await;
    let to = "SELECT coalesce(portal_audit.folded_to()::text, 'not known')";
    run(&audit, SAMPLE).await;
    assert_eq!(value::<String>(&audit, to).await, "not known", "no source");
    run(&audit, PROGRESS).await;
    assert_eq!(value::<String>(&audit, to).await, "2026-04-30 12:00:00+00");
    run(&audit, "SELECT portal_audit.adopt()").await;
    assert_eq!(value::<String>(&audit, to).await, "-infinity", "old rows wait");
    while fold(&audit, 10).await > 0 {}
    assert_eq!(value::<String>(&audit, to).await, "2026-04-30 12:00:00+00");
    run(&audit, "SELECT portal_audit.seal('portal', 0, uuid_send(event_uuid), uuid_send(event_uuid), uuid_send(event_uuid) || uuid_send(event_uuid)) FROM public.events LIMIT 1").await;
    assert_eq!(value::<String>(&audit, to).await, "-infinity", "an event of the source waits");
    run(&audit, "INSERT INTO portal_audit.progress (source, state, slot, system_identifier, timeline, database_oid, end_lsn) VALUES ('new', 'creating', 's', '1', 1, 1, '0/0')").await;
    assert_eq!(value::<String>(&audit, to).await, "not known", "a source has not begun");
}

/// Columns, constraints, indexes, triggers and inheritance of the given table, as the catalog has them.
const SHAPE: &str = "SELECT string_agg(line, E'\n' ORDER BY line) FROM (
    SELECT format('column %s %s %s %s %s', attnum, attname, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid)) AS line
      FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum WHERE attrelid = 'public.events'::regclass AND attnum > 0 UNION ALL
    SELECT format('constraint %s', pg_get_constraintdef(oid)) FROM pg_constraint WHERE conrelid = 'public.events'::regclass AND contype <> 'n' UNION ALL
    SELECT format('referenced %s', conname) FROM pg_constraint WHERE confrelid = 'public.events'::regclass UNION ALL
    SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = 'public.events'::regclass UNION ALL
    SELECT format('trigger %s', tgname) FROM pg_trigger WHERE tgrelid = 'public.events'::regclass UNION ALL
    SELECT format('rule %s', rulename) FROM pg_rewrite WHERE ev_class = 'public.events'::regclass) AS s";

#[tokio::test(flavor = "multi_thread")]
async fn the_given_table_stays_exactly_as_it_was_given() {
    let given = "CREATE TABLE public.events (
          event_uuid UUID PRIMARY KEY, timestamp TIMESTAMPTZ NOT NULL, event_type TEXT NOT NULL, caller TEXT NOT NULL,
          subject TEXT NOT NULL, subject_type TEXT NOT NULL, target TEXT, success BOOLEAN NOT NULL, error_message TEXT,
          payload JSONB NOT NULL DEFAULT '{}'::jsonb );
        CREATE INDEX idx_events_timestamp  ON events (timestamp DESC);
        CREATE INDEX idx_events_event_type ON events (event_type);
        CREATE INDEX idx_events_caller     ON events (caller);
        CREATE INDEX idx_events_subject    ON events (subject_type, subject);
        CREATE INDEX idx_events_target     ON events (target)";
    run(&open(cluster(), "postgres").await, "CREATE DATABASE views_given").await;
    let session = open(cluster(), "views_given").await;
    run(&session, given).await;
    // It belongs to others, who have said what it is.
    run(&session, "COMMENT ON TABLE public.events IS 'theirs'").await;
    let before: String = value(&session, SHAPE).await;
    assert_eq!(before.lines().count(), 10 + 1 + 6, "{before}");
    run(&session, sql::audit()).await;
    run(&session, sql::audit()).await;
    assert_eq!(value::<String>(&session, SHAPE).await, before);
    let made = audit("views_made").await;
    assert_eq!(value::<String>(&made, SHAPE).await, before);
    // Everything of ours says what it is.
    let silent = "SELECT coalesce(string_agg(name, ', '), '') FROM (
        SELECT c.relname || '.' || a.attname AS name FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
         WHERE (c.relnamespace = 'portal_audit'::regnamespace AND c.relkind = 'r' OR c.oid = 'public.events'::regclass) AND col_description(c.oid, a.attnum) IS NULL
        UNION ALL SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'portal_audit'::regnamespace AND c.relkind IN ('r', 'v') AND obj_description(c.oid, 'pg_class') IS NULL
        UNION ALL SELECT p.proname FROM pg_proc p WHERE p.pronamespace = 'portal_audit'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL) AS s";
    assert_eq!(value::<String>(&made, silent).await, "");
}
