//! Who may not do what: the sidecar's own roles can neither change what is written nor harm the portal.

use crate::support::{Sidecar, cluster, installation, open, run, sample, value, wait_for};
use portal_audit::{
    connect::{self, Session},
    demo::cluster::Cluster,
    sql,
};

const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// Each of these must be refused for lack of a privilege, and for nothing else.
async fn refused(session: &Session, statements: &[&str]) {
    for statement in statements {
        let refusal = session.client.batch_execute(statement).await;
        let refusal = refusal.expect_err(statement);
        run(session, "ROLLBACK").await;
        assert_eq!(
            connect::sqlstate_of(&refusal),
            Some(INSUFFICIENT_PRIVILEGE),
            "{statement}: {}",
            connect::describe(&refusal)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_writer_cannot_change_what_is_written() {
    let portal = sample("privileges_writer").await;
    run(&portal.audit, "CREATE ROLE privileges_other; CREATE TRIGGER others BEFORE UPDATE ON public.events FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()").await;
    let mut settings = portal.settings.clone();
    let dsn = cluster().dsn("privileges_writer_audit", "privileges_writer");
    settings.audit = portal_audit::config::conninfo(&dsn).unwrap();
    // What `sql audit --config` prints makes the login, and a second time changes nothing.
    const ROLES: &str = "SELECT string_agg(r::text || coalesce(m.roleid::regrole::text, ''), ' ' ORDER BY r.oid) FROM pg_authid r LEFT JOIN pg_auth_members m ON m.member = r.oid WHERE rolname LIKE 'privileges%'";
    run(&portal.audit, &sql::audit_for(&settings)).await;
    let before: String = value(&portal.audit, ROLES).await;
    run(&portal.audit, &sql::audit_for(&settings)).await;
    assert_eq!(value::<String>(&portal.audit, ROLES).await, before);
    let sidecar = Sidecar::start(settings);
    portal.streaming().await;
    portal.act("INSERT INTO portal.users (username, uid, gid) VALUES ('wren', 1, 1)").await;
    sidecar.stop().await;
    assert_eq!(portal.count().await, 1);
    let writer = open_as(&dsn).await;
    refused(
        &writer,
        &[
            "UPDATE public.events SET caller = 'nobody'",
            "DELETE FROM public.events",
            "TRUNCATE public.events",
            "INSERT INTO public.events SELECT * FROM public.events ON CONFLICT (event_uuid) DO UPDATE SET caller = 'nobody'",
            "ALTER TABLE public.events DISABLE TRIGGER others",
            "ALTER TABLE public.events DISABLE TRIGGER ALL",
            "ALTER TABLE public.events ADD COLUMN more TEXT",
            "ALTER TABLE public.events OWNER TO privileges_writer",
            "DROP TABLE public.events",
            "DROP SCHEMA portal_audit CASCADE",
            "CREATE RULE nothing AS ON INSERT TO public.events DO INSTEAD NOTHING",
            "CREATE TRIGGER mine BEFORE INSERT ON public.events FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "CREATE TABLE portal_audit.mine ()",
            "DROP TABLE portal_audit.progress",
            "TRUNCATE portal_audit.progress",
            "DELETE FROM portal_audit.progress",
            "DELETE FROM portal_audit.gaps",
            "SET ROLE postgres",
            "SET ROLE privileges_other",
            "SET SESSION AUTHORIZATION postgres",
            "SET session_replication_role = replica",
            "ALTER ROLE privileges_writer SUPERUSER",
            "COPY public.events TO PROGRAM 'true'",
        ],
    )
    .await;
    assert_eq!(portal.count().await, 1);
}

/// The role that reads the source can do nothing there but read, so it can neither change a row nor hold one.
#[tokio::test(flavor = "multi_thread")]
async fn the_reader_cannot_harm_the_portal() {
    let portal = sample("privileges_reader").await;
    run(&portal.source, "INSERT INTO portal.users (username, uid, gid) VALUES ('wren', 1, 1)")
        .await;
    let dsn = cluster().dsn("privileges_reader", "privileges_reader");
    let mut settings = portal.settings.clone();
    settings.sources[0].conninfo = portal_audit::config::conninfo(&dsn).unwrap();
    run(&portal.source, &portal_audit::sql::source(&settings.sources[0])).await;
    let sidecar = Sidecar::start(settings);
    portal.streaming().await;
    portal.act("INSERT INTO portal.users (username, uid, gid) VALUES ('robin', 2, 2)").await;
    sidecar.stop().await;
    assert_eq!(portal.count().await, 1);
    let reader = open_as(&dsn).await;
    refused(
        &reader,
        &[
            "INSERT INTO portal.users (username, uid, gid) VALUES ('finch', 3, 3)",
            "UPDATE portal.users SET admin = TRUE",
            "DELETE FROM portal.users",
            "TRUNCATE portal.users",
            "SELECT * FROM portal.users FOR UPDATE",
            "SELECT token_hash FROM portal.api_tokens",
            "BEGIN; LOCK TABLE portal.users",
            "CREATE TABLE portal.mine ()",
            "ALTER PUBLICATION portal_audit DROP TABLE portal.users",
            "DROP PUBLICATION portal_audit",
            "ALTER TABLE portal.users REPLICA IDENTITY NOTHING",
            "SET ROLE postgres",
        ],
    )
    .await;
}

async fn open_as(dsn: &str) -> Session {
    connect::connect(&portal_audit::config::conninfo(dsn).unwrap(), "test").await.unwrap()
}

/// The roles belong to the whole cluster. Who makes them second has just learned that they are missing, and must learn that they are not.
#[tokio::test(flavor = "multi_thread")]
async fn two_audit_databases_are_set_up_at_once() {
    let cluster = Cluster::start(&installation(), &[]).unwrap();
    let first = open(&cluster, "postgres").await;
    run(&first, "CREATE DATABASE second").await;
    let second = open(&cluster, "second").await;
    run(&first, "BEGIN").await;
    run(&first, sql::audit()).await;
    let watch = open(&cluster, "postgres").await;
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'second' AND wait_event_type = 'Lock'";
    let committing = async {
        wait_for("the second", async || value::<i64>(&watch, waits).await == 1).await;
        run(&first, "COMMIT").await;
    };
    tokio::join!(run(&second, sql::audit()), committing);
    let may = "SELECT has_table_privilege('portal_audit_writer', 'public.events', 'INSERT')";
    assert!(value::<bool>(&second, may).await);
}
