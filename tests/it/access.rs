//! Who sees what: the matrix of people and event types, the edges of membership, and ways around it.

mod beside;
mod own;

use crate::support::{Portal, cluster, run, sample, value};
use expect_test::expect_file;
use portal_audit::{
    config,
    connect::{self, Session},
    translate::mapping::Mapping,
    write,
};
use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

const MAPPINGS: [&str; 2] = [
    include_str!("../../deploy/mapping/merge-reference.toml"),
    include_str!("../../deploy/mapping/kratos.toml"),
];

/// Everybody is a login of the test's own, `<test>_<name>`, and a user of the portal of that name.
const PEOPLE: [(&str, &str); 14] = [
    ("admin", "sees all"),
    ("oona", "organization's creator"),
    ("omar", "organization's maintainer"),
    ("olga", "organization's member"),
    ("petra", "project's creator"),
    ("pavel", "project's maintainer"),
    ("paul", "project's member"),
    ("fern", "project's member until the day before"),
    ("asta", "asked to join project and organization"),
    ("fay", "facility's creator"),
    ("finn", "facility's member"),
    ("ursula", "the user whom it is about"),
    ("carol", "who did it"),
    ("sven", "a stranger"),
];

/// Organization acme with project mesh, facility hill, and their members, made on the first of January.
const WORLD: &str = "INSERT INTO public.events
  SELECT gen_random_uuid(), at::timestamptz, event_type, '', subject, subject_type, target, true, NULL,
         jsonb_strip_nulls(jsonb_build_object('kind', kind, 'role', role, 'state', state))
    FROM (VALUES
      ('2026-01-01', 'org_created',                'acme', 'organization', NULL,    NULL,            NULL,         NULL),
      ('2026-01-01', 'org_member_added',           'acme', 'organization', 'oona',  'usermember',    'creator',    'active'),
      ('2026-01-01', 'org_member_added',           'acme', 'organization', 'omar',  'usermember',    'maintainer', 'active'),
      ('2026-01-01', 'org_member_added',           'acme', 'organization', 'olga',  'usermember',    'member',     'active'),
      ('2026-01-01', 'org_member_requested',       'acme', 'organization', 'asta',  'usermember',    'maintainer', 'pending'),
      ('2026-01-01', 'org_member_added',           'acme', 'organization', 'mesh',  'projectmember', 'member',     'active'),
      ('2026-01-01', 'project_created',            'mesh', 'project',      NULL,    NULL,            NULL,         NULL),
      ('2026-01-01', 'project_member_added',       'mesh', 'project',      'petra', 'usermember',    'creator',    'active'),
      ('2026-01-01', 'project_member_added',       'mesh', 'project',      'pavel', 'usermember',    'maintainer', 'active'),
      ('2026-01-01', 'project_member_added',       'mesh', 'project',      'paul',  'usermember',    'member',     'active'),
      ('2026-01-01', 'project_member_added',       'mesh', 'project',      'fern',  'usermember',    'maintainer', 'active'),
      ('2026-01-31', 'project_member_deleted',     'mesh', 'project',      'fern',  'usermember',    NULL,         NULL),
      ('2026-01-01', 'project_member_requested',   'mesh', 'project',      'asta',  'usermember',    'maintainer', 'pending'),
      ('2026-01-01', 'facility_member_added',      'hill', 'facility',     'fay',   'usermember',    'creator',    'active'),
      ('2026-01-01', 'facility_member_added',      'hill', 'facility',     'finn',  'usermember',    'member',     'active')
    ) AS w (at, event_type, subject, subject_type, target, kind, role, state)";

/// A portal's audit database with the types of both mappings, the world, and logins for these people.
async fn world(name: &str, people: &[&str]) -> Portal {
    let portal = sample(name).await;
    for mapping in MAPPINGS {
        let mapping = Mapping::parse("mapping.toml", mapping).unwrap();
        write::store_event_types(&portal.audit, &mapping, Duration::from_secs(10)).await.unwrap();
    }
    run(&portal.audit, WORLD).await;
    for person in people {
        let group = if *person == "admin" { "portal_audit_admin" } else { "portal_audit_viewer" };
        run(&portal.audit, &format!("CREATE ROLE {name}_{person} LOGIN; GRANT {group} TO {name}_{person}; INSERT INTO portal_audit.viewers VALUES ('{name}_{person}', '{person}')")).await;
    }
    portal
}

async fn login(name: &str, person: &str) -> Session {
    let dsn = cluster().dsn(&format!("{name}_audit"), &format!("{name}_{person}"));
    connect::connect(&config::conninfo(&dsn).unwrap(), "test").await.unwrap()
}

/// `at`, type, caller, subject type, subject, target, payload.
async fn tell(portal: &Portal, events: &[[&str; 7]]) {
    for [at, event_type, caller, subject_type, subject, target, payload] in events {
        run(&portal.audit, &format!("INSERT INTO public.events VALUES (gen_random_uuid(), '{at}', '{event_type}', '{caller}', '{subject}', '{subject_type}', nullif('{target}', ''), true, NULL, '{payload}')")).await;
    }
}

async fn sees(session: &Session, condition: &str) -> i64 {
    value(session, &format!("SELECT count(*) FROM public.events WHERE {condition}")).await
}

/// Subject type of each declared event type, and whether it has a target.
fn declared() -> BTreeMap<String, (String, bool)> {
    let mut declared = BTreeMap::new();
    for mapping in MAPPINGS {
        let mapping: toml::Table = toml::from_str(mapping).unwrap();
        let kratos = mapping.get("kratos").and_then(|kratos| kratos.get("event"));
        let blocks = mapping.get("event").into_iter().chain(kratos);
        for block in blocks.flat_map(|blocks| blocks.as_array().unwrap()) {
            // What Kratos' translator tells is about users.
            let of = block.get("subject_type").map_or("user", |of| of.as_str().unwrap());
            let event_type = block["type"].as_str().unwrap().to_owned();
            declared.insert(event_type, (of.to_owned(), block.get("target").is_some()));
        }
    }
    declared
}

/// An event of this type about the world, on the first of February, done by carol.
fn example(event_type: &str, subject_type: &str, has_target: bool) -> [String; 4] {
    let subject = match subject_type {
        "user" => "ursula",
        "organization" => "acme",
        "project" => "mesh",
        "facility" => "hill",
        _ => "a.thing.mesh",
    };
    let target = match event_type {
        _ if !has_target => "",
        _ if event_type.contains("_member_") => "ursula",
        _ if event_type.contains("_project_") => "mesh",
        _ => "17",
    };
    let payload = match subject_type {
        _ if event_type.contains("_member_") => {
            r#"{"kind": "usermember", "role": "member", "state": "active"}"#
        }
        "experiment" | "realization" | "materialization" | "xdc" => r#"{"project": "mesh"}"#,
        _ => "{}",
    };
    [subject_type, subject, target, payload].map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_sees_what_the_matrix_says() {
    const NAME: &str = "access_matrix";
    let portal = world(NAME, &PEOPLE.map(|(person, _)| person)).await;
    // A type of which nothing is declared.
    let mut types: Vec<String> = vec!["of_an_older_mapping".to_owned()];
    let known = portal
        .audit
        .client
        .query("SELECT event_type FROM portal_audit.event_types", &[])
        .await
        .unwrap();
    types.extend(known.iter().map(|row| row.get::<_, String>(0)));
    types.sort();
    let declared = declared();
    let mut matrix = String::from(
        "# Who sees an event of each type: x sees it, . does not. Made by tests/it/access.rs; UPDATE_EXPECT=1 writes it anew.\n",
    );
    for (place, (person, who)) in PEOPLE.iter().enumerate() {
        writeln!(matrix, "# {}{person}: {who}", "| ".repeat(place)).unwrap();
    }
    for event_type in &types {
        let (of, has_target) =
            declared.get(event_type).cloned().unwrap_or(("source".to_owned(), false));
        let [of, subject, target, payload] = example(event_type, &of, has_target);
        run(&portal.audit, "BEGIN").await;
        tell(&portal, &[["2026-02-01", event_type, "carol", &of, &subject, &target, &payload]])
            .await;
        let mut row = String::new();
        for (person, _) in PEOPLE {
            run(&portal.audit, &format!("SET LOCAL SESSION AUTHORIZATION {NAME}_{person}")).await;
            let seen = sees(&portal.audit, "timestamp = '2026-02-01'").await;
            row.push_str(if seen == 1 { "x " } else { ". " });
            run(&portal.audit, "RESET SESSION AUTHORIZATION").await;
        }
        run(&portal.audit, "ROLLBACK").await;
        writeln!(matrix, "  {row} {event_type}").unwrap();
    }
    expect_file!["../access/matrix.txt"].assert_eq(&matrix);
}

/// What a login sees of these conditions, in order.
async fn seen<const N: usize>(session: &Session, conditions: [&str; N]) -> [i64; N] {
    let mut counts = [0; N];
    for (count, condition) in counts.iter_mut().zip(conditions) {
        *count = sees(session, condition).await;
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn membership_counts_as_of_the_event_from_its_first_moment_to_its_last() {
    const NAME: &str = "access_as_of";
    let portal = world(NAME, &["fern", "paul", "omar", "asta", "sven"]).await;
    let run_event =
        |at| [at, "experiment_created", "", "experiment", "x", "", r#"{"project": "mesh"}"#];
    tell(
        &portal,
        &["2025-12-31 23:59", "2026-01-01", "2026-01-15", "2026-01-31", "2026-01-31 00:01"]
            .map(run_event),
    )
    .await;
    const EXPERIMENTS: &str = "event_type = 'experiment_created'";
    // fern left on the 31st, and sees that moment and none after it.
    assert_eq!(sees(&login(NAME, "fern").await, EXPERIMENTS).await, 3);
    let paul = login(NAME, "paul").await;
    assert_eq!(sees(&paul, EXPERIMENTS).await, 4);
    let omar = login(NAME, "omar").await;
    assert_eq!(sees(&omar, EXPERIMENTS).await, 4);
    // Whoever asked sees nothing before being let in.
    let asta = login(NAME, "asta").await;
    assert_eq!(sees(&asta, EXPERIMENTS).await, 0);
    let member =
        |at, event_type, target, payload| [at, event_type, "", "project", "mesh", target, payload];
    let active = r#"{"kind": "usermember", "role": "member", "state": "active"}"#;
    let frozen = r#"{"kind": "usermember", "role": "member", "state": "frozen"}"#;
    tell(
        &portal,
        &[
            member("2026-01-10", "project_member_added", "asta", active),
            member("2026-01-20", "project_member_state_changed", "asta", frozen),
        ],
    )
    .await;
    assert_eq!(sees(&asta, EXPERIMENTS).await, 1);

    // The project goes, of its members only one by name, and another of that name is made by sven.
    tell(
        &portal,
        &[
            ["2026-03-01", "project_deleted", "", "project", "mesh", "", "{}"],
            member(
                "2026-03-02",
                "project_member_added",
                "sven",
                r#"{"kind": "usermember", "role": "creator", "state": "active"}"#,
            ),
            run_event("2026-03-03"),
        ],
    )
    .await;
    const LATER: &str = "timestamp >= '2026-03-02'";
    assert_eq!(seen(&paul, [LATER, EXPERIMENTS]).await, [0, 4]);
    assert_eq!(seen(&omar, [LATER, EXPERIMENTS]).await, [0, 4]);
    assert_eq!(seen(&login(NAME, "sven").await, [LATER, EXPERIMENTS]).await, [2, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_used_again_show_nothing_of_their_first_bearer() {
    const NAME: &str = "access_names";
    // A project may bear the name of a user, as personal ones do.
    let portal = world(NAME, &["paul", "mesh", "petra"]).await;
    let user = |at, event_type, payload| [at, event_type, "", "user", "paul", "", payload];
    tell(
        &portal,
        &[
            user("2026-02-01", "token_created", "{}"),
            user("2026-02-02", "user_deleted", "{}"),
            [
                "2026-02-03",
                "experiment_created",
                "",
                "experiment",
                "x",
                "",
                r#"{"project": "mesh"}"#,
            ],
        ],
    )
    .await;
    let paul = login(NAME, "paul").await;
    assert_eq!(
        seen(&paul, ["event_type = 'token_created'", "event_type = 'user_deleted'"]).await,
        [1, 1]
    );
    tell(
        &portal,
        &[user("2026-02-04", "user_created", "{}"), user("2026-02-05", "token_created", "{}")],
    )
    .await;
    assert_eq!(seen(&paul, ["true", "timestamp < '2026-02-04'"]).await, [2, 0]);
    // The first paul's membership, which no event ended, is not the second's.
    tell(
        &portal,
        &[[
            "2026-02-06",
            "experiment_created",
            "",
            "experiment",
            "x",
            "",
            r#"{"project": "mesh"}"#,
        ]],
    )
    .await;
    assert_eq!(sees(&paul, "event_type = 'experiment_created'").await, 0);
    // Who gives up a name leaves nothing to who takes it.
    tell(
        &portal,
        &[
            ["2026-02-07", "user_renamed", "", "user", "paula", "", r#"{"old_name": "paul"}"#],
            user("2026-02-08", "user_created", "{}"),
        ],
    )
    .await;
    assert_eq!(sees(&paul, "true").await, 1);
    // The project mesh is a member of acme; the user mesh is none.
    assert_eq!(sees(&login(NAME, "mesh").await, "true").await, 0);
    // A key of another user whose name looks like petra's is not petra's.
    tell(&portal, &[["2026-02-09", "token_created", "", "user", "paul", "petra", "{}"]]).await;
    assert_eq!(sees(&login(NAME, "petra").await, "event_type = 'token_created'").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_organizations_owner_creates_a_token_and_nobody_else_learns_of_it() {
    const NAME: &str = "access_token";
    let portal = world(NAME, &["oona", "omar", "pavel", "petra", "admin"]).await;
    for owner in ["oona", "petra"] {
        tell(&portal, &[["2026-02-01", "token_created", owner, "user", owner, "17", "{}"]]).await;
    }
    for (person, tokens) in [("oona", 1), ("petra", 1), ("omar", 0), ("pavel", 0), ("admin", 2)] {
        assert_eq!(
            sees(&login(NAME, person).await, "event_type = 'token_created'").await,
            tokens,
            "{person}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_cannot_make_itself_somebody_else() {
    const NAME: &str = "access_self";
    let portal = world(NAME, &["paul", "sven", "admin"]).await;
    // A login named like a user of the portal, but not said to be one; the pages' login; and one without any role of ours.
    run(&portal.audit, &format!("CREATE ROLE petra LOGIN; GRANT portal_audit_viewer TO petra; CREATE ROLE {NAME}_web LOGIN; GRANT portal_audit_web TO {NAME}_web; CREATE ROLE {NAME}_other LOGIN; GRANT SELECT ON public.events TO {NAME}_other; GRANT USAGE ON SCHEMA portal_audit TO {NAME}_other")).await;
    let petra = config::conninfo(&cluster().dsn(&format!("{NAME}_audit"), "petra")).unwrap();
    assert_eq!(sees(&connect::connect(&petra, "test").await.unwrap(), "true").await, 0);
    assert_eq!(sees(&login(NAME, "other").await, "true").await, 0);
    let sven = login(NAME, "sven").await;
    assert_eq!(sees(&sven, "true").await, 0);
    run(&sven, "SET portal_audit.viewer = 'paul'; SET ROLE portal_audit_viewer").await;
    assert_eq!(sees(&sven, "true").await, 0);
    for forbidden in [
        "SET ROLE portal_audit_web",
        "SET ROLE portal_audit_admin",
        "SET SESSION AUTHORIZATION access_self_paul",
        "INSERT INTO portal_audit.viewers VALUES ('access_self_sven', 'paul') ON CONFLICT (role_name) DO UPDATE SET portal_user = 'paul'",
        "SELECT * FROM portal_audit.viewers",
        "SELECT * FROM portal_audit.spans('user', 'paul', NULL, NULL)",
        "SELECT portal_audit.life_of('paul')",
        "SELECT portal_audit.record('x', 'x', 'x', 'x', NULL, true, NULL, '{}')",
        "ALTER TABLE public.events DISABLE ROW LEVEL SECURITY",
        "DROP POLICY portal_audit_sees_own ON public.events",
        "CREATE POLICY mine ON public.events USING (true)",
        "SET row_security = off; SELECT count(*) FROM public.events",
    ] {
        let refused = sven.client.batch_execute(forbidden).await.expect_err(forbidden);
        assert_eq!(connect::sqlstate_of(&refused), Some("42501"), "{forbidden}");
    }
    // The pages say whom they serve, for one transaction; without that they see nothing.
    let web = login(NAME, "web").await;
    assert_eq!(sees(&web, "true").await, 0);
    run(&web, "BEGIN; SET LOCAL portal_audit.viewer = 'paul'").await;
    let (of_web, of_paul) =
        (sees(&web, "true").await, sees(&login(NAME, "paul").await, "true").await);
    assert_eq!(of_web, of_paul);
    assert!(of_paul > 0);
    run(&web, "COMMIT").await;
    assert_eq!(sees(&web, "true").await, 0);
    // Who may see all, and says so.
    for (person, all) in [("admin", true), ("paul", false), ("web", false)] {
        let session = login(NAME, person).await;
        assert_eq!(
            value::<bool>(&session, "SELECT portal_audit.sees_all()").await,
            all,
            "{person}"
        );
    }
}

/// Nothing of a hidden row comes out by another way: functions in a filter, COPY, counts, errors, objects of the viewer's own.
#[tokio::test(flavor = "multi_thread")]
async fn hidden_rows_stay_hidden_from_whatever_asks() {
    const NAME: &str = "access_leaks";
    let portal = world(NAME, &["sven", "paul"]).await;
    tell(
        &portal,
        &[
            ["2026-02-01", "login_failed", "", "user", "sven", "", "{}"],
            [
                "2026-02-01",
                "login_failed",
                "",
                "user",
                "hidden-user",
                "",
                r#"{"n": "hidden-value"}"#,
            ],
        ],
    )
    .await;
    let sven = login(NAME, "sven").await;
    run(&sven, "CREATE FUNCTION pg_temp.leak(t text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$ BEGIN RAISE NOTICE '%', t; IF t LIKE 'hidden%' THEN RAISE EXCEPTION 'leaked'; END IF; RETURN true; END $$").await;
    for column in ["subject", "payload ->> 'n'", "caller"] {
        assert_eq!(
            sees(&sven, &format!("pg_temp.leak(coalesce({column}, ''))")).await,
            1,
            "{column}"
        );
    }
    // An error of an operator tells nothing of a hidden row either: its value is never looked at.
    assert_eq!(sees(&sven, "(payload ->> 'n')::int IS NULL").await, 1);
    // Operators and functions of the viewer's own do not stand in for those of the policy.
    run(&portal.audit, &format!("CREATE SCHEMA {NAME}_own AUTHORIZATION {NAME}_sven")).await;
    run(&sven, &format!("SET search_path = {NAME}_own, pg_catalog, public; CREATE FUNCTION yes(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true'; CREATE OPERATOR = (LEFTARG = text, RIGHTARG = text, FUNCTION = yes); CREATE FUNCTION keeps(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true'")).await;
    assert_eq!(sees(&sven, "true").await, 1);
    let copied = sven.client.copy_out("COPY public.events TO STDOUT").await;
    let copied: Vec<_> = futures_util::TryStreamExt::try_collect(copied.unwrap()).await.unwrap();
    let copied = String::from_utf8(copied.concat()).unwrap();
    assert_eq!(copied.lines().count(), 1);
    assert!(!copied.contains("hidden"));
    // A view or function of the viewer's own reads as the viewer, for whoever asks.
    run(&sven, &format!("CREATE VIEW {NAME}_own.mine AS SELECT * FROM public.events; GRANT USAGE ON SCHEMA {NAME}_own TO {NAME}_paul; GRANT SELECT ON {NAME}_own.mine TO {NAME}_paul")).await;
    let through: i64 = value(
        &login(NAME, "paul").await,
        &format!("SELECT count(*) FROM {NAME}_own.mine WHERE subject = 'hidden-user'"),
    )
    .await;
    assert_eq!(through, 0);
    for forbidden in [
        "SELECT count(*) FROM public.events FOR UPDATE",
        "UPDATE public.events SET caller = ''",
        "DELETE FROM public.events",
        "INSERT INTO public.events SELECT * FROM public.events",
        "SELECT * FROM pg_statistic WHERE starelid = 'public.events'::regclass",
    ] {
        let refused = sven.client.batch_execute(forbidden).await.expect_err(forbidden);
        assert!(
            ["42501", "0A000"].contains(&connect::sqlstate_of(&refused).unwrap()),
            "{forbidden}"
        );
    }
    const STATISTICS: &str = "SELECT count(*) FROM pg_stats WHERE tablename = 'events'";
    assert_eq!(value::<i64>(&sven, STATISTICS).await, 0);
    only_what_is_for_all(&sven).await;
}

async fn only_what_is_for_all(viewer: &Session) {
    // Of our own tables and views a viewer reads the types, what obeys the policy of events, up to when the record is complete, and the states of facilities, which are for all; who holds a resource obeys the policy of the event.
    const FOR_ALL: &str = "facility_allocations facility_days facility_folded facility_places facility_points facility_probes facility_resources facility_rules facility_uses maintenance progress";
    const READABLE: &str = "SELECT coalesce(string_agg(c.relname, ' ' ORDER BY 1), '') FROM pg_class c WHERE c.relnamespace = 'portal_audit'::regnamespace AND c.relkind IN ('r', 'v', 'm', 'p') AND has_any_column_privilege(c.oid, 'SELECT') AND c.relname NOT IN ('event_types', 'events_described')";
    assert_eq!(value::<String>(viewer, READABLE).await, FOR_ALL);
    const OF_PROGRESS: &str = "SELECT string_agg(attname, ' ' ORDER BY attname) FROM pg_attribute WHERE attrelid = 'portal_audit.progress'::regclass AND attnum > 0 AND has_column_privilege(attrelid, attnum, 'SELECT')";
    assert_eq!(value::<String>(viewer, OF_PROGRESS).await, "complete_to source state");
    // And calls nothing that reads with more rights, but what tells of the viewer alone, or of facilities.
    const CALLABLE: &str = "SELECT string_agg(proname, ' ' ORDER BY proname) FROM pg_proc WHERE pronamespace = 'portal_audit'::regnamespace AND prosecdef AND has_function_privilege(oid, 'EXECUTE')";
    assert_eq!(
        value::<String>(viewer, CALLABLE).await,
        "facilities_behind facility_history facility_names facility_state facility_states fold_facilities life my_page reach record_read subject_types types_for viewer"
    );
}

/// Pages by way of the indexes hold the same rows in the same order as the whole under the policy.
#[tokio::test(flavor = "multi_thread")]
async fn pages_of_a_viewer_put_together_are_all_that_the_viewer_sees() {
    const NAME: &str = "access_pages";
    const PEOPLE: [&str; 8] = ["oona", "olga", "petra", "paul", "fern", "fay", "ursula", "sven"];
    let portal = world(NAME, &PEOPLE).await;
    // Three of each at a time, so that pages end amid events of one time.
    run(&portal.audit, "INSERT INTO public.events SELECT gen_random_uuid(), '2026-01-25'::timestamptz + i * interval '1 hour', t, 'petra', s, o, NULL, true, NULL, p::jsonb FROM generate_series(1, 300) AS i, generate_series(1, 3), (VALUES ('experiment_created', 'a', 'experiment', '{\"project\": \"mesh\"}'), ('experiment_created', 'b', 'experiment', '{\"project\": \"other\"}'), ('login_succeeded', 'ursula', 'user', '{}'), ('facility_updated', 'hill', 'facility', '{}'), ('org_updated', 'acme', 'organization', '{}')) AS e (t, s, o, p)").await;
    run(&portal.audit, "SELECT portal_audit.adopt(), portal_audit.fold_things(10000)").await;
    // Adopted and folded: what is not, is looked through.
    assert!(
        value::<i64>(&portal.audit, "SELECT count(*) FROM portal_audit.project_things").await > 0
    );
    const ALL: &str = "SELECT coalesce(string_agg(event_uuid::text, ' ' ORDER BY timestamp DESC, event_uuid DESC), '') FROM public.events";
    for person in PEOPLE {
        let session = login(NAME, person).await;
        let mut pages: Vec<String> = Vec::new();
        let mut before = "NULL, NULL".to_owned();
        loop {
            let page = session.client.query(&format!("SELECT event_uuid::text, timestamp::text FROM portal_audit.my_events(500, {before})"), &[]).await.unwrap();
            let Some(last) = page.last() else { break };
            before = format!("'{}', '{}'", last.get::<_, &str>(1), last.get::<_, &str>(0));
            pages.extend(page.iter().map(|row| row.get::<_, String>(0)));
        }
        assert_eq!(pages.join(" "), value::<String>(&session, ALL).await, "{person}");
        assert_eq!(pages.is_empty(), person == "sven", "{person}");
    }
}
