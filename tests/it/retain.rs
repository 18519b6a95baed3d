//! Retention, legal holds and erasure: what is due goes and nothing else, and the proof stays whole.

use crate::support::{
    Portal, Sidecar, cluster, open,
    program::{SettingsFile, command},
    run, sample,
    sealed::assert_sealed_beside,
    value, wait_for,
};
use portal_audit::retain;

/// A row of a stranger is in each log.
pub const STRANGERS: usize = 1;

/// Events of every kind: `days` back, two a day of a user and one of a project, all in a tree.
pub async fn fill(portal: &Portal, days: i64) {
    let script = format!(
        "INSERT INTO portal_audit.event_types VALUES ('login_succeeded', 'x', 'user', '{{self}}'), ('login_failed', 'x', 'user', '{{self}}'), ('project_created', 'x', 'project', '{{project}}');
         INSERT INTO public.events SELECT gen_random_uuid(), now() - d * interval '1 day', t, 'alice', CASE t WHEN 'project_created' THEN 'p' || d ELSE 'alice' END,
            CASE t WHEN 'project_created' THEN 'project' ELSE 'user' END, NULL, t <> 'login_failed', NULL, '{{\"ip\": \"192.0.2.1\"}}'
           FROM generate_series(1, {days}) AS d, unnest(ARRAY['login_succeeded', 'login_failed', 'project_created']) AS t;
         SELECT portal_audit.adopt()"
    );
    run(&portal.audit, &script).await;
}

/// The same in a log of its own, and an old row of a stranger that is in no tree.
pub async fn filled(name: &str, days: i64) -> Portal {
    let portal = sample(name).await;
    fill(&portal, days).await;
    run(&portal.audit, "INSERT INTO public.events VALUES (gen_random_uuid(), now() - interval '1000 days', 'login_failed', '', 'alice', 'user', NULL, false, NULL)").await;
    portal
}

/// Prunes until nothing is left to do; gives how many went, and in how many calls.
pub async fn prune_all(portal: &Portal, limit: i32) -> (i64, usize) {
    let mut gone = 0;
    let mut calls = 0;
    loop {
        let before: String = value(&portal.audit, "SELECT portal_audit.looked_to()").await;
        let query =
            format!("SELECT coalesce(sum(events), 0)::bigint FROM portal_audit.prune({limit})");
        let events: i64 = value(&portal.audit, &query).await;
        let after: String = value(&portal.audit, "SELECT portal_audit.looked_to()").await;
        (gone, calls) = (gone + events, calls + 1);
        if events == 0 && before == after {
            return (gone, calls);
        }
    }
}

#[tokio::test]
async fn what_is_older_than_its_class_is_kept_goes_and_nothing_else() {
    let portal = filled("retain_class", 400).await;
    let audit = &portal.audit;
    let dry = "SELECT sum(events)::bigint FROM portal_audit.prune(10, true)";
    // The row of a stranger is due, but in no tree.
    assert_eq!(value::<i64>(audit, dry).await, 2 * 221 + 1);
    assert_eq!(portal.count().await, 1201);
    let (gone, calls) = prune_all(&portal, 100).await;
    assert_eq!(gone, 2 * 221);
    assert!(calls > 4, "{calls} calls");
    let kept = "SELECT string_agg(event_type || ' ' || n, ', ' ORDER BY event_type) FROM (SELECT event_type, count(*) AS n FROM public.events GROUP BY 1) k";
    assert_eq!(
        value::<String>(audit, kept).await,
        "login_failed 180, login_succeeded 179, project_created 400, retention_applied 5"
    );
    assert_sealed_beside(audit, STRANGERS).await;
    assert_eq!(prune_all(&portal, 100).await.0, 0);
}

#[tokio::test]
async fn what_is_held_stays_until_it_is_released() {
    let portal = filled("retain_hold", 200).await;
    let audit = &portal.audit;
    let hold: i64 =
        value(audit, "SELECT portal_audit.hold('a court asks', p_event_type => 'login_failed')")
            .await;
    assert_eq!(prune_all(&portal, 1000).await.0, 21);
    let erase =
        audit.client.batch_execute("SELECT portal_audit.erase_user('alice')").await.unwrap_err();
    let message = erase.as_db_error().unwrap().message();
    assert!(message.contains(&format!("hold {hold} keeps events")), "{message}");
    run(audit, &format!("SELECT portal_audit.release({hold})")).await;
    // A hold on a person of whom there is no event yet counts as well.
    run(audit, "SELECT portal_audit.hold('a court asks', p_user => 'carol')").await;
    assert!(audit.client.batch_execute("SELECT portal_audit.erase_user('carol')").await.is_err());
    assert_eq!(prune_all(&portal, 1000).await.0, 21);
    let told = "SELECT string_agg(event_type, ', ' ORDER BY timestamp) FROM public.events WHERE subject_type = 'hold'";
    assert_eq!(value::<String>(audit, told).await, "hold_placed, hold_released, hold_placed");
    assert_sealed_beside(audit, STRANGERS).await;
}

#[tokio::test]
async fn a_shorter_time_takes_more_and_a_batch_that_is_rolled_back_takes_nothing() {
    let portal = filled("retain_keep", 100).await;
    let audit = &portal.audit;
    assert_eq!(prune_all(&portal, 1000).await.0, 0);
    run(audit, "UPDATE portal_audit.retention SET keep = '90 days' WHERE class = 'user'").await;
    let before = portal.count().await;
    run(audit, "BEGIN; SELECT portal_audit.prune(5); ROLLBACK").await;
    assert_eq!(portal.count().await, before);
    assert_eq!(value::<i64>(audit, "SELECT count(*) FROM portal_audit.removed").await, 0);
    assert_eq!(prune_all(&portal, 5).await.0, 22);
    assert_sealed_beside(audit, STRANGERS).await;
}

/// Every text of every row of the audit database.
const DUMP: &str = "SELECT string_agg(query_to_xml(format('SELECT t::text FROM %s t', oid::regclass), true, false, '')::text, '') FROM pg_class WHERE relkind = 'r' AND relnamespace IN ('public'::regnamespace, 'portal_audit'::regnamespace)";

#[tokio::test]
async fn an_erased_name_is_nowhere_and_the_proof_is_whole() {
    let portal = filled("retain_erase", 30).await;
    let audit = &portal.audit;
    run(
        audit,
        r#"INSERT INTO public.events VALUES
             (gen_random_uuid(), now(), 'login_failed', 'bob', 'p', 'project', 'alice', false, 'user alice may not', '{"members": [{"alice": ["exp/alice"]}, "alice-b"]}');
           INSERT INTO portal_audit.names VALUES ('portal', 'user', '7', 'alice');
           SELECT portal_audit.hold('x', p_user => 'alice'); SELECT portal_audit.release(1)"#,
    )
    .await;
    let counts = "SELECT string_agg(event_type || ' ' || n, ', ' ORDER BY event_type) FROM (SELECT event_type, count(*) AS n FROM public.events WHERE event_type <> 'user_erased' GROUP BY 1) k";
    let before: String = value(audit, counts).await;
    let dry: i64 =
        value(audit, "SELECT sum(number)::bigint FROM portal_audit.erase_user('alice', true)")
            .await;
    let changed = "SELECT sum(number)::bigint FROM portal_audit.erase_user('alice') WHERE object <> 'pseudonym'";
    assert_eq!(value::<i64>(audit, changed).await, dry);
    let dump: String = value(audit, DUMP).await;
    // Another person's name that begins with it stays.
    let left: Vec<_> = dump.match_indices("alice").map(|(at, _)| &dump[at..at + 7]).collect();
    assert_eq!(left, ["alice-b"]);
    assert!(!dump.contains("192.0.2.1"));
    assert_eq!(value::<String>(audit, counts).await, before);
    assert_sealed_beside(audit, STRANGERS + 1).await;
    assert_eq!(
        value::<i64>(audit, "SELECT count(*) FROM portal_audit.erase_user('alice')").await,
        0
    );
    // What was pseudonymised may go later: the proof still stands.
    run(audit, "UPDATE portal_audit.retention SET keep = '1 day' WHERE class = 'user'").await;
    assert!(prune_all(&portal, 7).await.0 > 50);
    assert_sealed_beside(audit, STRANGERS + 1).await;
}

#[tokio::test]
async fn the_sidecars_role_prunes_and_deletes_nothing_else() {
    let portal = filled("retain_role", 190).await;
    let audit = &portal.audit;
    run(audit, "SET ROLE portal_audit_writer").await;
    for forbidden in [
        "DELETE FROM public.events",
        "UPDATE portal_audit.retention SET keep = '1 day'",
        "SELECT portal_audit.erase_user('alice')",
        "SELECT portal_audit.hold('x')",
        "SELECT portal_audit.look_again()",
    ] {
        let error = audit.client.batch_execute(forbidden).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "42501", "{forbidden}");
    }
    assert_eq!(prune_all(&portal, 1000).await.0, 22);
}

/// Whoever has the sidecar's password may have due events removed, and so may not say what is due.
#[tokio::test]
async fn the_sidecars_role_cannot_have_retention_take_what_should_stay() {
    const TYPES: &str = "SELECT string_agg(concat_ws(' ', event_type, describe, retention, visible_to), ', ' ORDER BY event_type) FROM portal_audit.event_types WHERE event_type IN ('invoice_paid', 'project_created', 'project_seen')";
    let portal = filled("retain_types", 190).await;
    let audit = &portal.audit;
    run(audit, "SELECT portal_audit.record('invoice_paid', '', 'i', 'invoice', NULL, true, NULL, '{}'); SET ROLE portal_audit_writer").await;
    for forbidden in [
        "UPDATE portal_audit.event_types SET retention = 'user'",
        "UPDATE portal_audit.event_types SET visible_to = '{self,project}'",
        "INSERT INTO portal_audit.event_types VALUES ('x', 'x', 'user', '{self}')",
        "DELETE FROM portal_audit.event_types",
        "INSERT INTO portal_audit.retention VALUES ('project', '1 day')",
        "SELECT portal_audit.change_type('project_created', 'user')",
    ] {
        let error = audit.client.batch_execute(forbidden).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "42501", "{forbidden}");
    }
    let declare = "SELECT string_agg(fix, E';\n') FROM portal_audit.declare_types('{project_created,invoice_paid,project_seen}', '{y,y,y}', '{user,user,user}', '{\"self,project\",admin,\"self,admin\"}')";
    let fix: String = value(audit, declare).await;
    assert_eq!(
        fix,
        "SELECT portal_audit.change_type('invoice_paid', p_retention => 'user');\nSELECT portal_audit.change_type('project_created', p_retention => 'user', p_visible_to => '{self,project}')"
    );
    // Of one there were events before it was declared; one is new.
    assert_eq!(
        value::<String>(audit, TYPES).await,
        "invoice_paid y project {admin}, project_created y project {project}, project_seen y user {self,admin}"
    );
    assert_eq!(prune_all(&portal, 1000).await.0, 2 * 11);

    // What the admins say is done, and recorded. Said twice it is recorded once.
    run(audit, &format!("SET ROLE portal_audit_admin; {fix}; {fix}; RESET ROLE")).await;
    assert_eq!(
        value::<String>(audit, TYPES).await,
        "invoice_paid y user {admin}, project_created y user {self,project}, project_seen y user {self,admin}"
    );
    let told = "SELECT string_agg(concat_ws(' ', subject, payload ->> 'retention', payload ->> 'retention_before', payload ->> 'visible_to_before'), ', ' ORDER BY timestamp) FROM public.events WHERE event_type = 'event_type_changed'";
    assert_eq!(
        value::<String>(audit, told).await,
        "invoice_paid user project, project_created user project [\"project\"]"
    );
    assert_eq!(prune_all(&portal, 1000).await.0, 11);
    assert_sealed_beside(audit, STRANGERS).await;
    for (wrong, message) in [("'x', 'user'", "no event type"), ("'invoice_paid', 'x'", "no class")]
    {
        let wrong = format!("SELECT portal_audit.change_type({wrong})");
        let error = audit.client.batch_execute(&wrong).await.unwrap_err();
        assert!(error.as_db_error().unwrap().message().contains(message), "{error:?}");
    }
}

/// Until schema 2 the sidecar's role could write the table.
#[tokio::test]
async fn an_older_schema_is_brought_to_where_only_admins_change_classes() {
    let portal = sample("retain_older").await;
    let audit = &portal.audit;
    run(audit, "DROP FUNCTION portal_audit.declare_types, portal_audit.types_kept, portal_audit.change_type; GRANT SELECT, INSERT, UPDATE ON portal_audit.event_types TO portal_audit_writer").await;
    run(audit, portal_audit::sql::audit()).await;
    run(audit, "SET ROLE portal_audit_writer").await;
    let may = "SELECT string_agg(may, ' ') FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS may WHERE has_table_privilege('portal_audit.event_types', may)";
    assert_eq!(value::<String>(audit, may).await, "SELECT");
    run(audit, "SELECT portal_audit.declare_types('{x}', '{x}', '{user}', '{self}')").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_that_says_another_class_waits_for_an_admin() {
    const TYPE: &str = "SELECT concat_ws(' ', retention, visible_to, describe <> 'x') FROM portal_audit.event_types WHERE event_type = 'project_created'";
    let portal = sample("retain_waits").await;
    let audit = &portal.audit;
    run(
        audit,
        "INSERT INTO portal_audit.event_types VALUES ('project_created', 'x', 'user', '{self}')",
    )
    .await;
    let mut settings = portal.settings.clone();
    let dsn = cluster().dsn("retain_waits_audit", "retain_waits_writer");
    settings.audit = portal_audit::config::conninfo(&dsn).unwrap();
    run(audit, &portal_audit::sql::audit_for(&settings)).await;
    let sidecar = Sidecar::start(settings);
    portal.streaming().await;
    sidecar.stop().await;
    assert_eq!(value::<String>(audit, TYPE).await, "user {self} t");
    // A sidecar whose login is an admin need not wait.
    let sidecar = portal.start().await;
    let is_taken = async || value::<String>(audit, TYPE).await.starts_with("project {admin,");
    wait_for("the mapping's class", is_taken).await;
    sidecar.stop().await;
    let told = "SELECT caller || ' ' || (payload ->> 'retention_before') FROM public.events WHERE event_type = 'event_type_changed'";
    assert_eq!(value::<String>(audit, told).await, "postgres user");
}

#[tokio::test]
async fn the_program_prunes_holds_and_erases() {
    let portal = filled("retain_verbs", 190).await;
    let settings = SettingsFile::new(&portal);
    let verb = |arguments: &[&str]| {
        let all = [arguments, &["--config", settings.path.to_str().unwrap()]].concat();
        let output = command(&all).output().unwrap();
        let text =
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), text)
    };
    let (code, text) = verb(&["prune", "--dry-run"]);
    assert!(code == 0 && text.contains("23 events are due"), "{text}");
    let (code, text) = verb(&["hold", "add", "--reason", "court", "--user", "alice"]);
    assert!(code == 0 && text.contains("Hold 1 is placed. It holds: user alice\n"), "{text}");
    let (_, text) = verb(&["hold", "list"]);
    assert!(text.contains("user alice"), "{text}");
    let (code, text) = verb(&["prune"]);
    assert!(code == 0 && text.contains("Nothing is due.\n1 hold keeps events"), "{text}");
    let (code, text) = verb(&["erase", "user", "alice", "--yes"]);
    assert!(code == 1 && text.matches("hold 1 keeps events").count() == 1, "{text}");
    verb(&["hold", "release", "1"]);
    let (code, text) = verb(&["prune", "--format", "json"]);
    assert!(code == 0 && text.contains("login_succeeded"), "{text}");
    let (code, text) = verb(&["erase", "user", "alice"]);
    assert!(code == 2 && text.contains("--yes"), "{text}");
    let (code, text) = verb(&["erase", "user", "alice", "--yes"]);
    assert!(code == 0 && text.contains("The person is erased-"), "{text}");
    assert_sealed_beside(&portal.audit, STRANGERS).await;
}

#[tokio::test]
async fn the_sidecar_prunes_by_itself_while_others_write() {
    let portal = filled("retain_keeper", 300).await;
    let mut settings = portal.settings.clone();
    settings.limits.prune_events = 50;
    settings.limits.prune_interval_seconds = 1;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        retain::keep(settings).await;
    });
    let other = open(cluster(), "retain_keeper_audit").await;
    let due = "SELECT coalesce(sum(events), 0)::bigint FROM portal_audit.prune(10, true)";
    let written = std::cell::Cell::new(0);
    // Only the row of a stranger is left.
    wait_for("pruning", async || {
        run(&other, "SELECT portal_audit.record('log_read', 'carol', 'events', 'audit', NULL, true, NULL, '{}')").await;
        written.set(written.get() + 1);
        value::<i64>(&portal.audit, due).await == 1
    })
    .await;
    tasks.shutdown().await;
    assert_sealed_beside(&portal.audit, STRANGERS).await;
    let told = "SELECT count(*) FROM public.events WHERE event_type = 'log_read'";
    assert_eq!(value::<i64>(&portal.audit, told).await, written.get());
}

/// The sidecar prunes by its clock, and an admin by hand.
#[tokio::test(flavor = "multi_thread")]
async fn two_who_prune_at_once_do_not_refuse_each_other() {
    let portal = sample("retain_two").await;
    let seal = "SELECT portal_audit.seal('.own', size, decode(repeat('018b0000000070008000000000000001', 4096), 'hex'), decode(repeat(md5('salt'), 4096), 'hex'), decode(repeat(md5('a') || md5('b'), 4096), 'hex')) FROM portal_audit.trees WHERE tree = '.own'";
    run(&portal.audit, seal).await;
    const TAKE: &str = "SELECT portal_audit.take_leaf_times(100000)";
    run(&portal.audit, &format!("BEGIN; {TAKE}")).await;
    let other = open(cluster(), "retain_two_audit").await;
    let mut taken = tokio::task::JoinSet::new();
    taken.spawn(async move { value::<i64>(&other, TAKE).await });
    let look = open(cluster(), "postgres").await;
    let waits = "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = 'retain_two_audit' AND wait_event_type = 'Lock'";
    wait_for("the other to wait", async || value::<bool>(&look, waits).await).await;
    run(&portal.audit, "COMMIT").await;
    assert_eq!(taken.join_next().await.unwrap().unwrap(), 0);
    let times = "SELECT count(*) FROM portal_audit.leaf_times WHERE tree = '.own'";
    assert_eq!(value::<i64>(&portal.audit, times).await, 4);
}
