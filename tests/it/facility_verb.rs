//! Facilities from outside: the verb, who may do what, the sidecar's probe, and the portal's own tables as the judge.

use crate::{
    facility::{TELL, hill},
    support::{Portal, cluster, open, program::command, run, sample, value, wait_for},
};
use expect_test::expect_file;
use portal_audit::{chain::chain, config::Settings, facility, map};
use std::path::Path;
use tokio::{net::TcpListener, task::JoinSet};

/// What `portal-audit facility …` prints on this database, and its exit code.
fn say(portal: &Portal, arguments: &[&str]) -> (String, i32) {
    let dsn = cluster().dsn(&format!("{}_audit", portal.name), "postgres");
    let output =
        command(&[&["facility"], arguments, &["--audit", &dsn]].concat()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8(text).unwrap(), output.status.code().unwrap())
}

/// Facilities in every state on the tenth of January 2026.
const EVERY_STATE: &str = "
CREATE FUNCTION public.told(p_at TIMESTAMPTZ, p_type TEXT, p_facility TEXT, p_payload JSONB DEFAULT '{}') RETURNS VOID
LANGUAGE sql AS $$ SELECT tell(now() - p_at, p_type, 'facility', p_facility, p_payload) $$;
SELECT told('2025-11-01 08:00Z', 'facility_registered', f), told('2025-11-01 08:00Z', 'facility_resources_added', f, resources('m1', 'm2', 'm3', 'm4'))
  FROM unnest(ARRAY['coast', 'dale', 'hill', 'moor', 'quay', 'shed']) AS f;
SELECT told('2026-01-05 09:30Z', 'facility_updated', f) FROM unnest(ARRAY['coast', 'hill', 'moor', 'quay']) AS f;
SELECT told('2026-01-09 23:59Z', 'facility_resources_deactivated', 'coast', resources('m1', 'm2', 'm3', 'm4'));
SELECT told('2026-01-09 12:00Z', 'facility_resources_deactivated', 'dale', resources('m2', 'm4'));
INSERT INTO portal_audit.maintenance (facility, from_time, until, note, announced_by, announced_at) VALUES
  ('moor', '2026-01-09 06:00Z', '2026-01-10 18:00Z', 'new switches', 'opsduty', '2026-01-01 00:00Z'),
  ('quay', '2026-01-12 06:00Z', '2026-01-12 18:00Z', E'power \x1b[2J is off', 'opsduty', '2026-01-08 00:00Z'),
  ('dale', '2026-01-13 06:00Z', '2026-01-13 18:00Z', 'power is off', 'opsduty', '2026-01-08 00:00Z');
INSERT INTO portal_audit.facility_places (facility, latitude, longitude) VALUES
  ('coast', 33.98, -118.44), ('dale', 40.76, -111.85), ('hill', 42.34, -71.09), ('moor', 47.6, -122.3), ('quay', 29.95, -90.07), ('shed', 41.88, -87.63);";

#[tokio::test(flavor = "multi_thread")]
async fn the_list_tells_every_state_by_word_and_sign_the_worst_first() {
    let portal = sample("facility_list").await;
    run(&portal.audit, TELL).await;
    run(&portal.audit, EVERY_STATE).await;
    let (text, code) = say(&portal, &["list", "--at", "2026-01-10"]);
    assert_eq!(code, 0, "{text}");
    expect_file!["../facility/list.txt"].assert_eq(&text);
    let (text, code) = say(&portal, &["list", "--at", "2026-01-10", "--format", "json"]);
    assert_eq!(code, 0, "{text}");
    let told: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(told["facilities"][0]["state"], "down");
    assert_eq!(told["facilities"][0]["place"]["latitude"], 33.98);
    // The same facts as a map.
    let all = facility::facilities(&portal.audit, "2026-01-10").await.unwrap();
    let markers: Vec<map::Marker<'_>> =
        all.facilities.iter().filter_map(facility::Facility::marker).collect();
    let drawn = map::svg(&markers);
    assert_eq!(map::Base::of(&markers), map::Base::Usa);
    for state in map::State::ALL {
        assert!(drawn.contains(&format!("<a class=\"state-{}\"", state.word())), "{state:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_plans_cancels_begins_and_ends_maintenance_from_the_shell() {
    let portal = hill("facility_verb").await;
    let window = [
        "maintenance",
        "hill",
        "--from",
        "+2 days",
        "--until",
        "+3 days",
        "--note",
        "new switches",
    ];
    let (text, code) = say(&portal, &window);
    assert_eq!(code, 0, "{text}");
    assert!(text.starts_with("◆ hill  planned: up; maintenance from "), "{text}");
    let (text, code) = say(&portal, &["maintenance", "hill", "--end"]);
    assert_eq!(
        (text.as_str(), code),
        ("portal-audit: cannot end maintenance: PA002 this facility is not under maintenance\n", 1)
    );
    let (text, _) = say(&portal, &["maintenance", "hill", "--cancel"]);
    assert_eq!(text, "● hill  up: 4 of its 4 resources are active\n");
    let (text, _) = say(&portal, &["maintenance", "hill", "--until", "+3h", "--note", "now"]);
    assert!(text.starts_with("■ hill  maintenance: maintenance, expected to end "), "{text}");
    let (text, _) = say(&portal, &["show", "hill"]);
    for part in [
        "hill  ■ maintenance  since 20",
        "  resources      4 active of 4",
        "STATES OF THE LAST 30 DAYS",
        "● up ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (text, _) = say(&portal, &["maintenance", "hill", "--end"]);
    assert_eq!(text, "● hill  up: 4 of its 4 resources are active\n");
    for (arguments, code, said) in [
        (&["show", "dale"][..], 1, "the portal has no facility \"dale\""),
        (&["list", "--at", "tomorow"][..], 1, "A time is 2026-12-01T09:00Z"),
        (&["maintenance", "hill"][..], 2, "--until"),
        (&["maintenance", "hill", "--end", "--cancel"][..], 2, "cannot be used with"),
    ] {
        let (text, was) = say(&portal, arguments);
        assert!(was == code && text.contains(said), "{arguments:?}: {was} {text}");
    }
}

#[tokio::test]
async fn roles_may_do_what_is_theirs() {
    let portal = hill("facility_roles").await;
    let plan = "SELECT portal_audit.facility_maintenance_plan('hill', now(), now() + INTERVAL '1 hour', 'x')";
    let probed = "SELECT portal_audit.facility_probed('hill', true, NULL, 1)";
    let states = "SELECT * FROM portal_audit.facility_states()";
    let allocations = "SELECT * FROM portal_audit.facility_allocations";
    let fold = "SELECT portal_audit.fold_facility_itself(e, NULL) FROM public.events e";
    for (role, may, may_not) in [
        ("operator", vec![plan, states], vec![probed, allocations, fold]),
        ("reader", vec![states, allocations], vec![plan, probed, fold]),
        ("writer", vec![probed], vec![plan, allocations, fold]),
    ] {
        run(&portal.audit, &format!("SET ROLE portal_audit_{role}")).await;
        for script in may {
            run(&portal.audit, script).await;
        }
        for script in may_not {
            let error = portal.audit.client.batch_execute(script).await.unwrap_err();
            assert_eq!(
                error.code().map(tokio_postgres::error::SqlState::code),
                Some("42501"),
                "{role}: {script}"
            );
        }
        run(&portal.audit, "RESET ROLE").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sidecar_keeps_places_and_says_when_an_address_does_not_answer() {
    let portal = hill("facility_keep").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let text = format!(
        "{}\n[facilities]\nprobe_interval_seconds = 1\n[[facility]]\nname = \"hill\"\nlatitude = 40.76\nlongitude = -111.85\nprobe = \"{address}\"\n",
        portal.settings_text
    );
    let settings = Settings::parse(Path::new("test.toml"), &text)
        .unwrap_or_else(|error| panic!("{}", chain(&error)));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { match facility::keep(&settings).await {} });
    let is = async |word: &str| {
        let audit = open(cluster(), "facility_keep_audit").await;
        let query = format!(
            "SELECT coalesce(bool_and(state = '{word}' AND reachable IS NOT NULL AND latitude = 40.76), false) FROM portal_audit.facility_states()"
        );
        wait_for(word, async || value::<bool>(&audit, &query).await).await;
    };
    is("up").await;
    drop(listener);
    is("down").await;
    let listener = TcpListener::bind(address).await.unwrap();
    is("up").await;
    drop(listener);
    tasks.shutdown().await;
    let rows = "SELECT string_agg(CASE WHEN reachable THEN 'up' ELSE error END, ' ' ORDER BY at) FROM portal_audit.facility_probes";
    assert!(value::<String>(&portal.audit, rows).await.starts_with("up refused up"));
}

/// Seals what a sidecar wrote, in the order of the source's log.
const SEAL: &str = "DO $$ DECLARE e public.events; n BIGINT := 0; salt BYTEA := uuid_send(gen_random_uuid()); BEGIN
  FOR e IN SELECT * FROM public.events ORDER BY (payload->'_audit'->>'lsn')::pg_lsn, coalesce((payload->'_audit'->>'n')::bigint, 0) LOOP
    PERFORM portal_audit.seal('sealed', n, uuid_send(e.event_uuid), salt, portal_audit.leaf(salt, e));
    n := n + 1;
  END LOOP; END $$";

#[tokio::test(flavor = "multi_thread")]
async fn what_events_tell_of_resources_is_what_the_portal_has() {
    let portal = sample("facility_oracle").await;
    let sidecar = portal.start().await;
    // One transaction each, as a portal has them: a resource that one transaction switches there and back is told in two lists without an order.
    for seed in 1..=400_i64 {
        portal.source.client.execute("SELECT activity.act($1)", &[&seed]).await.unwrap();
    }
    portal.catch_up().await;
    sidecar.stop().await;
    // The audit database seals by itself once the write stage does.
    run(&portal.audit, "DO $$ BEGIN DELETE FROM portal_audit.seals WHERE tree NOT LIKE '.%'; DELETE FROM portal_audit.trees WHERE tree NOT LIKE '.%'; END $$").await;
    run(&portal.audit, SEAL).await;
    run(&portal.audit, "SELECT portal_audit.fold_facilities(1000000)").await;
    let has = "SELECT coalesce(string_agg(f.name || ' ' || (SELECT count(*) || ' ' || count(*) FILTER (WHERE active) FROM portal.facility_resources r WHERE r.facility = f.name), ', ' ORDER BY f.name COLLATE \"C\"), '') FROM portal.facilities f";
    let told = "SELECT coalesce(string_agg(facility || ' ' || resources_total || ' ' || resources_active, ', ' ORDER BY facility COLLATE \"C\"), '') FROM portal_audit.facility_states()";
    let has: String = value(&portal.source, has).await;
    assert!(has.contains(", "), "{has}");
    assert_eq!(value::<String>(&portal.audit, told).await, has);
}
