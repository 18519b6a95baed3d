//! Facilities: each rule of their state with its evidence, maintenance, probes, and their history.

use crate::support::{Portal, run, sample, value};

/// Writes an event as a sidecar would, `p_ago` before now, and seals it in a tree of its own.
pub const TELL: &str = "CREATE FUNCTION public.tell(p_ago INTERVAL, p_type TEXT, p_subject_type TEXT, p_subject TEXT, p_payload JSONB DEFAULT '{}', p_success BOOLEAN DEFAULT true)
RETURNS VOID LANGUAGE plpgsql AS $$
DECLARE
  e    public.events;
  salt BYTEA := uuid_send(gen_random_uuid());
  size BIGINT := coalesce((SELECT t.size FROM portal_audit.trees t WHERE tree = 'test'), 0);
BEGIN
  INSERT INTO public.events VALUES (gen_random_uuid(), now() - p_ago, p_type, 'opsduty', p_subject, p_subject_type, NULL, p_success, NULL, p_payload) RETURNING * INTO e;
  PERFORM portal_audit.seal('test', size, uuid_send(e.event_uuid), salt, portal_audit.leaf(salt, e));
END $$;
CREATE FUNCTION public.resources(VARIADIC p_names TEXT[]) RETURNS JSONB LANGUAGE sql AS $$ SELECT jsonb_build_object('resources', p_names) $$;";

/// An audit database in which a facility `hill` with four resources was registered two days ago.
pub async fn hill(name: &str) -> Portal {
    let portal = sample(name).await;
    run(&portal.audit, TELL).await;
    tell(
        &portal,
        "SELECT tell('2 days', 'facility_registered', 'facility', 'hill');
         SELECT tell('2 days', 'facility_resources_added', 'facility', 'hill', resources('m1', 'm2', 'm3', 'm4'));",
    )
    .await;
    portal
}

pub async fn tell(portal: &Portal, script: &str) {
    run(&portal.audit, &format!("{script}; SELECT portal_audit.fold_facilities()")).await;
}

/// `state | why` of a facility now; empty if the portal does not have it.
async fn state(portal: &Portal, facility: &str) -> String {
    let query = format!(
        "SELECT coalesce((SELECT state || ' | ' || why FROM portal_audit.facility_states() WHERE facility = '{facility}'), '')"
    );
    value(&portal.audit, &query).await
}

/// How many hours ago its state began.
async fn hours(portal: &Portal) -> i64 {
    value(&portal.audit, "SELECT round(extract(epoch FROM now() - since) / 3600)::bigint FROM portal_audit.facility_states() WHERE facility = 'hill'").await
}

/// The states of the last three days, oldest first.
async fn history(portal: &Portal) -> String {
    value(&portal.audit, "SELECT coalesce(string_agg(state || ' ' || round(extract(epoch FROM until - from_time) / 3600), ', ' ORDER BY from_time), '') FROM portal_audit.facility_history('hill', now() - INTERVAL '3 days')").await
}

async fn allocated(portal: &Portal) -> i64 {
    value(
        &portal.audit,
        "SELECT allocated FROM portal_audit.facility_states() WHERE facility = 'hill'",
    )
    .await
}

#[tokio::test]
async fn a_facility_is_listed_from_its_registration_to_its_deletion() {
    let portal = hill("facility_listed").await;
    assert_eq!(state(&portal, "hill").await, "up | 4 of its 4 resources are active");
    assert_eq!(hours(&portal).await, 48);
    assert_eq!(state(&portal, "dale").await, "");
    let early = "SELECT count(*) FROM portal_audit.facility_states(now() - INTERVAL '3 days')";
    assert_eq!(value::<i64>(&portal.audit, early).await, 0);
    tell(
        &portal,
        "SELECT tell('3 hours', 'facility_deleted', 'facility', 'hill');
         SELECT tell('3 hours', 'facility_resources_removed', 'facility', 'hill', resources('m1', 'm2', 'm3', 'm4'));
         SELECT tell('3 hours', 'facility_member_deleted', 'facility', 'hill');",
    )
    .await;
    assert_eq!(state(&portal, "hill").await, "");
    assert_eq!(history(&portal).await, "up 45");
    // Another of the same name begins anew.
    tell(&portal, "SELECT tell('1 hour', 'facility_registered', 'facility', 'hill')").await;
    let said = state(&portal, "hill").await;
    assert_eq!(said, "unknown | no resource of it is known, and no probe tells of it");
}

#[tokio::test]
async fn an_attempt_that_was_rolled_back_changes_nothing() {
    let portal = hill("facility_attempt").await;
    tell(&portal, "SELECT tell('1 hour', 'facility_deleted', 'facility', 'hill', '{}', false)")
        .await;
    assert_eq!(state(&portal, "hill").await, "up | 4 of its 4 resources are active");
}

#[tokio::test]
async fn resources_that_are_not_active_degrade_a_facility_and_none_is_down() {
    let portal = hill("facility_resources").await;
    let tell_of = async |hours: u32, verb: &str, names: &str| {
        let script = format!(
            "SELECT tell('{hours} hours', 'facility_resources_{verb}', 'facility', 'hill', resources({names}))"
        );
        tell(&portal, &script).await;
        state(&portal, "hill").await
    };
    let said = tell_of(20, "deactivated", "'m1'").await;
    assert_eq!(said, "degraded | 1 of its 4 resources are not active");
    let said = tell_of(16, "deactivated", "'m2', 'm3'").await;
    assert_eq!(said, "degraded | 3 of its 4 resources are not active");
    assert_eq!(hours(&portal).await, 20, "it was degraded before");
    let said = tell_of(12, "deactivated", "'m4'").await;
    assert_eq!(said, "down | none of its 4 resources is active");
    assert_eq!(hours(&portal).await, 12);
    let said = tell_of(8, "activated", "'m1', 'm2', 'm3', 'm4'").await;
    assert_eq!(said, "up | 4 of its 4 resources are active");
    assert_eq!(hours(&portal).await, 8);
    assert_eq!(history(&portal).await, "up 28, degraded 8, down 4, up 8");
    // Ops may move the limit.
    tell_of(4, "deactivated", "'m1'").await;
    run(
        &portal.audit,
        "UPDATE portal_audit.facility_rules SET value = 0.5 WHERE rule = 'inactive_share'",
    )
    .await;
    assert_eq!(state(&portal, "hill").await, "up | 3 of its 4 resources are active");
}

#[tokio::test]
async fn a_facility_that_is_older_than_the_record_is_not_said_to_be_down() {
    let portal = hill("facility_older").await;
    let older = async |hours: u32, verb: &str, names: &str| {
        let script = format!(
            "SELECT tell('{hours} hours', 'facility_resources_{verb}', 'facility', 'dale', resources({names}))"
        );
        tell(&portal, &script).await;
        state(&portal, "dale").await
    };
    let said = older(9, "deactivated", "'d1', 'd2'").await;
    assert_eq!(
        said,
        "unknown | it is older than the record, which tells of its resources only that 2 are not active"
    );
    let said = older(8, "activated", "'d1'").await;
    assert_eq!(said, "up | 1 of the 2 of its resources that the record tells of are active");
    let said = older(7, "deactivated", "'d1'").await;
    assert!(said.starts_with("unknown | "), "{said}");
    run(&portal.audit, "SELECT portal_audit.facility_probed('dale', true, NULL, 3)").await;
    let said = state(&portal, "dale").await;
    assert!(
        said.starts_with("up | 0 of the 2 of its resources")
            && said.ends_with(", and its address answers"),
        "{said}"
    );
}

#[tokio::test]
async fn what_is_allocated_follows_realizations_by_the_facility_that_they_name() {
    let portal = hill("facility_allocated").await;
    tell(
        &portal,
        "SELECT tell('2 days', 'facility_resources_added', 'facility', 'dale', resources('m1', 'd1'));
         SELECT tell('9 hours', 'realization_created', 'realization', 'one.e.p', '{\"resources\": [\"m1\", \"m2\"], \"facilities\": [\"hill\"]}');
         SELECT tell('8 hours', 'realization_created', 'realization', 'two.e.p', '{\"resources\": [\"m2\", \"d1\"], \"facilities\": [\"dale\", \"hill\"]}');
         SELECT tell('8 hours', 'realization_created', 'realization', 'no.e.p', '{\"resources\": [], \"facilities\": []}', false);",
    )
    .await;
    assert_eq!(allocated(&portal).await, 2, "m2 is used twice, and is one");
    let dale = "SELECT allocated FROM portal_audit.facility_states() WHERE facility = 'dale'";
    assert_eq!(value::<i64>(&portal.audit, dale).await, 1, "d1, and not hill's m1");
    tell(&portal, "SELECT tell('5 hours', 'realization_relinquished', 'realization', 'one.e.p', resources('m1', 'm2'))").await;
    assert_eq!(allocated(&portal).await, 1);
    tell(&portal, "SELECT tell('4 hours', 'resources_deallocated', 'realization', 'two.e.p', resources('m2'))").await;
    assert_eq!(allocated(&portal).await, 0);
    let then = "SELECT allocated FROM portal_audit.facility_states(now() - INTERVAL '6 hours') WHERE facility = 'hill'";
    assert_eq!(value::<i64>(&portal.audit, then).await, 2, "six hours ago");
    tell(&portal, "SELECT tell('2 hours', 'facility_deleted', 'facility', 'dale')").await;
    let left = "SELECT count(*) FROM portal_audit.facility_allocations";
    assert_eq!(value::<i64>(&portal.audit, left).await, 0);
}

#[tokio::test]
async fn materializations_that_fail_degrade_a_facility_for_a_day() {
    let portal = hill("facility_failures").await;
    let materialized = |hours: u32, count: u32, success: bool| {
        format!(
            "SELECT tell('{hours} hours', 'materialization_completed', 'materialization', 'one.e.p', resources('m1'), {success}) FROM generate_series(1, {count})"
        )
    };
    tell(&portal, "SELECT tell('40 hours', 'realization_created', 'realization', 'one.e.p', '{\"resources\": [\"m1\"], \"facilities\": [\"hill\"]}')").await;
    tell(&portal, &materialized(30, 2, false)).await;
    tell(&portal, &materialized(10, 2, false)).await;
    assert_eq!(state(&portal, "hill").await, "up | 4 of its 4 resources are active", "two are few");
    tell(&portal, &materialized(9, 1, false)).await;
    let said = state(&portal, "hill").await;
    assert_eq!(said, "degraded | 3 of the 3 materializations on it in the last 24 hours failed");
    assert_eq!(hours(&portal).await, 10);
    tell(&portal, &materialized(8, 4, true)).await;
    assert_eq!(
        state(&portal, "hill").await,
        "up | 4 of its 4 resources are active",
        "most succeed"
    );
}

#[tokio::test]
async fn maintenance_is_planned_begins_is_overdue_and_ends_and_each_is_an_event() {
    let portal = hill("facility_maintenance").await;
    run(&portal.audit, "SELECT portal_audit.facility_maintenance_plan('hill', now() + INTERVAL '2 days', now() + INTERVAL '3 days', 'new switches')").await;
    let said = state(&portal, "hill").await;
    assert!(said.starts_with("planned | up; maintenance from "), "{said}");
    assert!(said.ends_with(" UTC: new switches"), "{said}");
    // Another state stays, and the window stands beside it.
    tell(&portal, "SELECT tell('1 hour', 'facility_resources_deactivated', 'facility', 'hill', resources('m1', 'm2', 'm3', 'm4'))").await;
    assert!(state(&portal, "hill").await.starts_with("down | "));
    let beside =
        "SELECT planned_from > now() AND note = 'new switches' FROM portal_audit.facility_states()";
    assert!(value::<bool>(&portal.audit, beside).await);
    // It begins.
    run(&portal.audit, "UPDATE portal_audit.maintenance SET from_time = now() - INTERVAL '5 hours', until = now() + INTERVAL '1 hour'").await;
    let said = state(&portal, "hill").await;
    assert!(said.starts_with("maintenance | maintenance, expected to end "), "{said}");
    assert_eq!(hours(&portal).await, 5);
    run(&portal.audit, "UPDATE portal_audit.maintenance SET until = now() - INTERVAL '1 hour'")
        .await;
    let said = state(&portal, "hill").await;
    assert!(said.contains(" nobody has ended it: new switches"), "{said}");
    assert!(
        value::<bool>(&portal.audit, "SELECT is_overdue FROM portal_audit.facility_states()").await
    );
    // Nobody ends it for a week and more.
    run(&portal.audit, "UPDATE portal_audit.maintenance SET from_time = now() - INTERVAL '10 days', until = now() - INTERVAL '8 days'").await;
    assert!(state(&portal, "hill").await.starts_with("down | "));
    run(&portal.audit, "UPDATE portal_audit.maintenance SET from_time = now() - INTERVAL '5 hours', until = now() + INTERVAL '1 hour'").await;
    run(&portal.audit, "SELECT portal_audit.facility_maintenance_end('hill')").await;
    tell(&portal, "SELECT tell('0', 'facility_resources_activated', 'facility', 'hill', resources('m1', 'm2', 'm3', 'm4'))").await;
    assert_eq!(state(&portal, "hill").await, "up | 4 of its 4 resources are active");
    assert!(
        history(&portal).await.starts_with("up 43, maintenance 5"),
        "{}",
        history(&portal).await
    );
    run(&portal.audit, "SELECT portal_audit.facility_maintenance_plan('hill', now() + INTERVAL '2 days', now() + INTERVAL '3 days', 'more')").await;
    run(&portal.audit, "SELECT portal_audit.facility_maintenance_end('hill', true)").await;
    assert_eq!(state(&portal, "hill").await, "up | 4 of its 4 resources are active");
    let told = "SELECT string_agg(e.event_type || ' ' || subject || ' ' || (payload->>'note'), ', ' ORDER BY timestamp) FROM public.events e JOIN portal_audit.event_types t USING (event_type) WHERE payload->'_audit'->>'source' = '.own'";
    assert_eq!(
        value::<String>(&portal.audit, told).await,
        "facility_maintenance_planned hill new switches, facility_maintenance_ended hill new switches, facility_maintenance_planned hill more, facility_maintenance_cancelled hill more"
    );
}

#[tokio::test]
async fn maintenance_that_makes_no_sense_is_refused() {
    let portal = hill("facility_refused").await;
    for (call, said) in [
        ("plan('dale', now(), now() + INTERVAL '1 day', 'x')", "the portal has no such facility"),
        (
            "plan('hill', now() + INTERVAL '1 day', now(), 'x')",
            "maintenance must end after it begins",
        ),
        ("plan('hill', now(), now() + INTERVAL '1 day', ' ')", "maintenance needs a note"),
        ("end('hill')", "this facility is not under maintenance"),
        ("end('hill', true)", "no maintenance of this facility is planned"),
    ] {
        let query = format!("SELECT portal_audit.facility_maintenance_{call}");
        let error = portal.audit.client.batch_execute(&query).await.unwrap_err();
        let message = error.as_db_error().unwrap().message();
        assert!(message.contains(said), "{call}: {message}");
    }
    assert_eq!(
        value::<i64>(&portal.audit, "SELECT count(*) FROM portal_audit.maintenance").await,
        0
    );
}

#[tokio::test]
async fn an_address_that_does_not_answer_is_down_and_silence_is_unknown() {
    let portal = hill("facility_probed").await;
    run(&portal.audit, "SELECT portal_audit.facility_probed('hill', true, NULL, 12.5)").await;
    assert_eq!(
        state(&portal, "hill").await,
        "up | 4 of its 4 resources are active, and its address answers"
    );
    for _ in 0..3 {
        run(&portal.audit, "SELECT portal_audit.facility_probed('hill', false, 'timeout', NULL)")
            .await;
    }
    let said = state(&portal, "hill").await;
    assert_eq!(said, "down | its address does not answer: nothing comes back in time");
    let rows = "SELECT count(*) FROM portal_audit.facility_probes";
    assert_eq!(value::<i64>(&portal.audit, rows).await, 2, "one row for answers alike");
    // Another reason is the same outage.
    run(&portal.audit, "SELECT portal_audit.facility_probed('hill', false, 'refused', NULL)").await;
    let since = "SELECT (SELECT since FROM portal_audit.facility_states()) = (SELECT at FROM portal_audit.facility_probes WHERE error = 'timeout')";
    assert!(value::<bool>(&portal.audit, since).await);
    // An old answer tells nothing.
    run(&portal.audit, "UPDATE portal_audit.facility_probes SET at = at - INTERVAL '1 hour', last_at = last_at - INTERVAL '1 hour'").await;
    assert_eq!(state(&portal, "hill").await, "up | 4 of its 4 resources are active");
    // Nothing at all for a month: not even that every resource was switched off says that it is down.
    tell(&portal, "SELECT tell('0', 'facility_resources_deactivated', 'facility', 'hill', resources('m1', 'm2', 'm3', 'm4'))").await;
    let later = "SELECT state || ' | ' || why FROM portal_audit.facility_states(now() + INTERVAL '31 days')";
    assert_eq!(
        value::<String>(&portal.audit, later).await,
        "unknown | neither an event nor a probe told of it for 31 days"
    );
}

#[tokio::test]
async fn who_may_not_see_a_realization_does_not_see_what_it_holds() {
    let portal = hill("facility_seen").await;
    tell(&portal, "SELECT tell('9 hours', 'realization_created', 'realization', 'one.e.p', '{\"resources\": [\"m1\"], \"facilities\": [\"hill\"]}')").await;
    run(
        &portal.audit,
        "CREATE ROLE facility_stranger; GRANT USAGE ON SCHEMA portal_audit TO facility_stranger;
         GRANT SELECT ON public.events, portal_audit.facility_allocations TO facility_stranger;
         ALTER TABLE public.events ENABLE ROW LEVEL SECURITY;",
    )
    .await;
    let seen = async || {
        run(&portal.audit, "SET ROLE facility_stranger").await;
        let seen: i64 =
            value(&portal.audit, "SELECT count(*) FROM portal_audit.facility_allocations").await;
        run(&portal.audit, "RESET ROLE").await;
        seen
    };
    assert_eq!(seen().await, 0);
    run(&portal.audit, "CREATE POLICY stranger ON public.events FOR SELECT TO facility_stranger USING (subject = 'one.e.p')").await;
    assert_eq!(seen().await, 1);
}

#[tokio::test]
async fn folding_in_pieces_and_at_once_end_alike() {
    let portal = hill("facility_pieces").await;
    tell(
        &portal,
        "SELECT tell((n || ' minutes')::interval, 'realization_created', 'realization', n || '.e.p', jsonb_build_object('resources', ARRAY['m' || n % 4 + 1], 'facilities', ARRAY['hill'])) FROM generate_series(1, 30) n;
         SELECT tell((n || ' minutes')::interval, 'realization_expired', 'realization', n || '.e.p') FROM generate_series(1, 28) n;",
    )
    .await;
    const PICTURE: &str = "SELECT (SELECT string_agg(facility || resource || realization, ' ' ORDER BY realization) FROM portal_audit.facility_allocations) || ' ' || (SELECT sum(allocated) FROM portal_audit.facility_days) || ' ' || (SELECT count(*) FROM portal_audit.facility_points)";
    let at_once: String = value(&portal.audit, PICTURE).await;
    assert_eq!(allocated(&portal).await, 2);
    run(&portal.audit, "TRUNCATE portal_audit.facility_folded, portal_audit.facility_points, portal_audit.facility_uses, portal_audit.facility_days, portal_audit.facility_resources, portal_audit.facility_allocations").await;
    assert_eq!(value::<i64>(&portal.audit, "SELECT portal_audit.facilities_behind()").await, 60);
    let mut steps = 0;
    while value::<i64>(&portal.audit, "SELECT portal_audit.fold_facilities(7)").await > 0 {
        steps += 1;
    }
    assert_eq!(steps, 9);
    assert_eq!(value::<String>(&portal.audit, PICTURE).await, at_once);
    assert_eq!(value::<i64>(&portal.audit, "SELECT portal_audit.facilities_behind()").await, 0);
}
