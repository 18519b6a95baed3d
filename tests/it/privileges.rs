//! Who may not do what: the sidecar's own roles can neither change what is written nor harm the portal.

use crate::support::{Sidecar, cluster, run, sample};
use portal_audit::connect::{self, Session};

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
    run(&portal.audit, "CREATE ROLE privileges_writer LOGIN; GRANT portal_audit_writer TO privileges_writer; CREATE ROLE privileges_other; CREATE TRIGGER others BEFORE UPDATE ON public.events FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()").await;
    let mut settings = portal.settings.clone();
    let dsn = cluster().dsn("privileges_writer_audit", "privileges_writer");
    settings.audit = portal_audit::config::conninfo(&dsn).unwrap();
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
