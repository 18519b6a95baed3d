//! What `portal-audit sql` prints can be run again, and leaves no trace when it is taken off.

use super::Ready;
use crate::support::{run, value};
use portal_audit::{connect::Session, sql};

/// Everything of a database that the scripts could touch, by its identity: publications, tables and their replica identities, privileges, triggers, functions, schemas, roles, slots.
const EVERYTHING: &str = "SELECT string_agg(line, E'\\n' ORDER BY line) FROM (
    SELECT 'publication ' || oid || ' ' || pubname || ' ' || xmin FROM pg_publication
    UNION ALL SELECT 'entry ' || oid || ' ' || prrelid::regclass || ' ' || coalesce(to_jsonb(r) ->> 'prattrs', '') FROM pg_publication_rel r
    UNION ALL SELECT 'table ' || c.oid || ' ' || c.relname || ' ' || relreplident::text FROM pg_class c WHERE c.relnamespace >= 16384 OR c.relnamespace = 'public'::regnamespace
    UNION ALL SELECT 'schema ' || oid || ' ' || nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%'
    UNION ALL SELECT 'function ' || oid || ' ' || md5(prosrc) FROM pg_proc WHERE oid >= 16384
    UNION ALL SELECT 'trigger ' || tgname || ' ' || tgrelid::regclass FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT 'role ' || rolname || ' ' || rolcanlogin || rolreplication || rolsuper || rolconnlimit FROM pg_roles
    UNION ALL SELECT 'slot ' || slot_name FROM pg_replication_slots
    UNION ALL SELECT 'comment ' || objoid || '.' || objsubid || ' ' || md5(description) FROM pg_description WHERE objoid >= 16384
    UNION ALL SELECT 'may ' || c.oid::regclass || ' ' || a.grantee::regrole || ' ' || a.privilege_type FROM pg_class c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p')
    UNION ALL SELECT 'may ' || attrelid::regclass || '.' || attname || ' ' || a.grantee::regrole || ' ' || a.privilege_type FROM pg_attribute, aclexplode(attacl) a WHERE attrelid >= 16384
    UNION ALL SELECT 'may ' || nspname || ' ' || a.grantee::regrole || ' ' || a.privilege_type FROM pg_namespace n, aclexplode(coalesce(nspacl, acldefault('n', nspowner))) a WHERE n.oid >= 16384
    UNION ALL SELECT 'may ' || datname || ' ' || a.grantee::regrole || ' ' || a.privilege_type FROM pg_database d, aclexplode(coalesce(datacl, acldefault('d', datdba))) a WHERE datname = current_database()
  ) AS all_of_it (line)";

async fn everything(session: &Session) -> Vec<String> {
    let all: String = value(session, EVERYTHING).await;
    all.lines().map(str::to_owned).collect()
}

/// What is in one list and not in the other.
fn difference(one: &[String], other: &[String]) -> Vec<String> {
    let without = |a: &[String], b: &[String]| -> Vec<String> {
        a.iter().filter(|line| !b.contains(line)).cloned().collect()
    };
    [without(one, other), without(other, one)].concat()
}

/// Roles and slots are the whole server's, and other tests make some.
fn own<'a>(lines: &'a [String], name: &'a str) -> Vec<String> {
    let is_own = |line: &&String| {
        let is_shared = line.starts_with("role ") || line.starts_with("slot ");
        !is_shared || line.contains(name)
    };
    lines.iter().filter(is_own).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_script_can_be_run_again() {
    let ready = Ready::new("check_again").await;
    let settings = ready.settings();
    let (source, audit) = (&ready.portal.source, &ready.portal.audit);
    let scripts = [
        (source, sql::source(&settings.sources[0])),
        (source, sql::context().to_owned()),
        (source, sql::attempt().to_owned()),
        (audit, sql::audit().to_owned()),
    ];
    for (session, script) in &scripts {
        run(session, script).await;
    }
    for (session, script) in &scripts {
        let before = own(&everything(session).await, "check_again");
        run(session, script).await;
        let after = own(&everything(session).await, "check_again");
        let differs = difference(&before, &after);
        assert!(differs.is_empty(), "{differs:#?} by\n{script}");
    }
}

/// Replica identities stay, for others may rely on them by now; the script says so.
#[tokio::test(flavor = "multi_thread")]
async fn undo_leaves_no_trace() {
    let ready = Ready::new("check_undone").await;
    let settings = ready.settings();
    let source = &ready.portal.source;
    // The sample comes with the context trigger's functions.
    run(source, &sql::undo(&settings.sources[0])).await;
    let before = own(&everything(source).await, "check_undone");
    assert!(!before.iter().any(|line| line.contains("portal_audit") || line.contains("_reader")));
    let sidecar = {
        run(source, &ready.source_sql()).await;
        run(source, sql::context()).await;
        run(source, sql::attempt()).await;
        run(source, "CALL portal_audit.attach('portal.users'); CALL portal_audit.attach_attempt('portal.users')").await;
        crate::support::Sidecar::start(ready.settings())
    };
    ready.portal.streaming().await;
    ready.stop(sidecar).await;
    let undo = sql::undo(&settings.sources[0]);
    run(source, &undo).await;
    let after = own(&everything(source).await, "check_undone");
    assert_eq!(difference(&before, &after), Vec::<String>::new());
    run(source, &undo).await;
    let again = own(&everything(source).await, "check_undone");
    assert_eq!(difference(&after, &again), Vec::<String>::new());
}
