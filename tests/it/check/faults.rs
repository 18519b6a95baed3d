//! Faults of a portal that is not followed yet, one after the other in one pair of databases: each is made, found, mended, and then nothing is found.

/// Where SQL is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Source,
    Audit,
}
use Place::{Audit, Source};

/// How it is mended.
#[derive(Clone, Copy, Debug)]
pub enum Heal {
    /// By the SQL that is printed, and then this, for what the fault leaves behind.
    Printed(&'static str),
    /// By the SQL that is printed and `sql source`, which it names or needs.
    PrintedThenSourceSql(&'static str),
    /// The fix names `sql source`, and that is run; this comes after.
    SourceSql(&'static str),
    /// The fix is words; this is what they mean.
    By(&'static str),
}
use Heal::{By, Printed, PrintedThenSourceSql, SourceSql};

/// Place, SQL that makes it, what is found and nothing else, and how it is mended.
pub type Fault = (Place, &'static str, &'static [&'static str], Heal);

/// `{p}` is the publication, `{s}` the slot, `{r}` and `{w}` the roles, `{d}` the source's database.
pub const FAULTS: &[(&str, Fault)] = &[
    ("no publication", (Source, "DROP PUBLICATION {p}", &["publication critical"], SourceSql(""))),
    (
        "publishes inserts alone",
        (
            Source,
            "ALTER PUBLICATION {p} SET (publish = 'insert')",
            &["publication_operations critical"],
            Printed(""),
        ),
    ),
    (
        "publishes everything but TRUNCATE",
        (
            Source,
            "ALTER PUBLICATION {p} SET (publish = 'insert, update, delete')",
            &["publication_operations critical"],
            Printed(""),
        ),
    ),
    (
        "a mapped table is not published",
        (
            Source,
            "ALTER PUBLICATION {p} DROP TABLE portal.pools",
            &["tables_published critical"],
            SourceSql(""),
        ),
    ),
    (
        "a column that a rule reads is not published",
        (
            Source,
            "ALTER PUBLICATION {p} DROP TABLE portal.experiment_models; ALTER PUBLICATION {p} ADD TABLE portal.experiment_models (project, experiment, revision)",
            &["columns_published critical"],
            SourceSql(""),
        ),
    ),
    (
        "a table that nobody maps",
        (
            Source,
            "CREATE TABLE portal.more (id INT PRIMARY KEY); ALTER PUBLICATION {p} ADD TABLE portal.more",
            &["unmapped_tables warning"],
            Printed("DROP TABLE portal.more"),
        ),
    ),
    (
        "no primary key",
        (
            Source,
            "CREATE TABLE portal.more (id INT); ALTER PUBLICATION {p} ADD TABLE portal.more",
            &["replica_identity critical", "unmapped_tables warning"],
            Printed("DROP TABLE portal.more"),
        ),
    ),
    (
        "replica identity NOTHING",
        (
            Source,
            "ALTER TABLE portal.users REPLICA IDENTITY NOTHING",
            &["replica_identity critical"],
            SourceSql(""),
        ),
    ),
    (
        "the column list leaves the key out",
        (
            Source,
            "CREATE TABLE portal.more (id INT PRIMARY KEY, word TEXT); ALTER PUBLICATION {p} ADD TABLE portal.more (word)",
            &["column_list critical", "unmapped_tables warning"],
            Printed("DROP TABLE portal.more"),
        ),
    ),
    (
        "FULL beside a column list",
        (
            Source,
            "CREATE TABLE portal.more (id INT PRIMARY KEY, word TEXT); ALTER TABLE portal.more REPLICA IDENTITY FULL; ALTER PUBLICATION {p} ADD TABLE portal.more (id)",
            &["column_list critical", "unmapped_tables warning"],
            Printed("DROP TABLE portal.more"),
        ),
    ),
    (
        "a row filter",
        (
            Source,
            "ALTER PUBLICATION {p} DROP TABLE portal.pools; ALTER PUBLICATION {p} ADD TABLE portal.pools WHERE (name <> 'x')",
            &["row_filter critical"],
            SourceSql(""),
        ),
    ),
    (
        "a denied column",
        (
            Source,
            "CREATE TABLE portal.more (id INT PRIMARY KEY, password_hash TEXT); ALTER PUBLICATION {p} ADD TABLE portal.more",
            &["secrets_published critical", "unmapped_tables warning"],
            Printed("DROP TABLE portal.more"),
        ),
    ),
    (
        "an identity without the old values that rules read",
        (
            Source,
            "ALTER TABLE portal.organizations REPLICA IDENTITY DEFAULT",
            &["old_values critical"],
            SourceSql(""),
        ),
    ),
    (
        "a whole schema",
        (
            Source,
            "DROP PUBLICATION {p}; CREATE PUBLICATION {p} FOR TABLES IN SCHEMA portal WITH (publish_via_partition_root = true)",
            &["whole_schema warning", "secrets_published critical"],
            SourceSql(""),
        ),
    ),
    (
        "FOR ALL TABLES",
        (
            Source,
            "DROP PUBLICATION {p}; CREATE PUBLICATION {p} FOR ALL TABLES",
            &["all_tables critical", "secrets_published critical"],
            By("DROP PUBLICATION {p}; {source_sql}"),
        ),
    ),
    (
        "a mapped table is gone",
        (
            Source,
            "ALTER TABLE portal.pools RENAME TO ponds",
            &["mapping critical", "unmapped_tables warning"],
            By("ALTER TABLE portal.ponds RENAME TO pools"),
        ),
    ),
    (
        "a mapped column is gone",
        (
            Source,
            "ALTER TABLE portal.pools RENAME COLUMN description TO words",
            &["mapping critical"],
            By("ALTER TABLE portal.pools RENAME COLUMN words TO description"),
        ),
    ),
    (
        "an unlogged table",
        (
            Source,
            "ALTER PUBLICATION {p} DROP TABLE portal.public_keys; ALTER TABLE portal.public_keys SET UNLOGGED",
            &["mapping critical"],
            PrintedThenSourceSql(""),
        ),
    ),
    (
        "the role may not replicate",
        (Source, "ALTER ROLE {r} NOREPLICATION", &["replication critical"], Printed("")),
    ),
    (
        "the role is a superuser",
        (Source, "ALTER ROLE {r} SUPERUSER", &["role_too_wide warning"], Printed("")),
    ),
    (
        "the role reads all data",
        (Source, "GRANT pg_read_all_data TO {r}", &["role_too_wide warning"], Printed("")),
    ),
    (
        "the role makes roles",
        (Source, "ALTER ROLE {r} CREATEROLE", &["role_too_wide warning"], Printed("")),
    ),
    (
        "the role may write",
        (Source, "GRANT UPDATE ON portal.users TO {r}", &["role_may_write warning"], Printed("")),
    ),
    (
        "the role may not read a table",
        (Source, "REVOKE SELECT ON portal.users FROM {r}", &["select critical"], Printed("")),
    ),
    (
        "policies hide rows",
        (
            Source,
            "ALTER TABLE portal.users ENABLE ROW LEVEL SECURITY",
            &["row_security warning"],
            Printed(
                "DROP POLICY portal_audit_reads ON portal.users; ALTER TABLE portal.users DISABLE ROW LEVEL SECURITY",
            ),
        ),
    ),
    (
        "few connections for the role",
        (Source, "ALTER ROLE {r} CONNECTION LIMIT 2", &["connections warning"], Printed("")),
    ),
    (
        "passwords as MD5",
        (
            Source,
            "ALTER DATABASE {d} SET password_encryption = 'md5'",
            &["password_encryption warning"],
            By("ALTER DATABASE {d} RESET password_encryption"),
        ),
    ),
    (
        "a short wal_sender_timeout",
        (
            Source,
            "ALTER DATABASE {d} SET wal_sender_timeout = '1s'",
            &["wal_sender_timeout warning"],
            By("ALTER DATABASE {d} RESET wal_sender_timeout"),
        ),
    ),
    (
        "no wal_sender_timeout",
        (
            Source,
            "ALTER DATABASE {d} SET wal_sender_timeout = 0",
            &["wal_sender_timeout warning"],
            By("ALTER DATABASE {d} RESET wal_sender_timeout"),
        ),
    ),
    (
        "a prepared transaction before the slot is made",
        (
            Source,
            "BEGIN; INSERT INTO portal.users (username, uid, gid) VALUES ('wren', 1, 1); PREPARE TRANSACTION 'check_p'",
            &["prepared_transactions warning"],
            Printed(""),
        ),
    ),
    (
        "a physical slot of that name",
        (
            Source,
            "SELECT pg_create_physical_replication_slot('{s}')",
            &["slot_kind critical"],
            Printed(""),
        ),
    ),
    (
        "a slot of another plugin",
        (
            Source,
            "SELECT pg_create_logical_replication_slot('{s}', 'test_decoding')",
            &["slot_kind critical"],
            Printed(""),
        ),
    ),
    (
        "a slot of which nothing is known",
        (
            Source,
            "SELECT pg_create_logical_replication_slot('{s}', 'pgoutput')",
            &["slot_position critical", "slot_failover warning"],
            Printed(""),
        ),
    ),
    (
        "events with another type",
        (
            Audit,
            "DROP POLICY portal_audit_sees_own ON public.events; ALTER TABLE public.events ALTER caller TYPE VARCHAR(10)",
            &["events_shape critical"],
            Printed(""),
        ),
    ),
    (
        "events without a column",
        (
            Audit,
            "ALTER TABLE public.events DROP error_message",
            &["events_shape critical"],
            Printed(""),
        ),
    ),
    (
        "events that demand more",
        (
            Audit,
            "ALTER TABLE public.events ADD more INT NOT NULL",
            &["events_shape critical"],
            Printed("ALTER TABLE public.events DROP more"),
        ),
    ),
    (
        "events without a key",
        (
            Audit,
            "ALTER TABLE public.events DROP CONSTRAINT events_pkey",
            &["events_shape critical"],
            Printed(""),
        ),
    ),
    (
        "events that are unique by more",
        (
            Audit,
            "CREATE UNIQUE INDEX more ON public.events (subject)",
            &["events_shape critical"],
            By("DROP INDEX more"),
        ),
    ),
    (
        "events without an index",
        (Audit, "DROP INDEX public.idx_events_caller", &["events_indexes warning"], Printed("")),
    ),
    (
        "a trigger before each event",
        (
            Audit,
            "CREATE TRIGGER more BEFORE INSERT ON public.events FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            &["events_triggers warning"],
            Printed(""),
        ),
    ),
    (
        "policies refuse events",
        (
            Audit,
            "ALTER ROLE {w} NOBYPASSRLS; DROP POLICY portal_audit_writes ON public.events",
            &["events_row_security critical"],
            Printed(
                "DROP POLICY portal_audit_inserts ON public.events; ALTER ROLE {w} BYPASSRLS; CREATE POLICY portal_audit_writes ON public.events FOR INSERT TO portal_audit_writer WITH CHECK (true)",
            ),
        ),
    ),
    (
        "everybody who may read events reads all of it",
        (
            Audit,
            "ALTER TABLE public.events DISABLE ROW LEVEL SECURITY",
            &["events_row_security warning"],
            Printed(""),
        ),
    ),
    (
        "the writer may not write",
        (
            Audit,
            "REVOKE portal_audit_writer FROM {w}",
            &["writer_may_insert critical"],
            Printed(""),
        ),
    ),
    (
        "the writer may not insert",
        (
            Audit,
            "REVOKE INSERT ON public.events FROM portal_audit_writer",
            &["writer_may_insert critical"],
            By("GRANT INSERT ON public.events TO portal_audit_writer"),
        ),
    ),
    (
        "the writer may not see which events are there",
        (
            Audit,
            "REVOKE SELECT (event_uuid) ON public.events FROM portal_audit_writer",
            &["writer_may_insert critical"],
            By("GRANT SELECT (event_uuid) ON public.events TO portal_audit_writer"),
        ),
    ),
    (
        "the writer may not seal",
        (
            Audit,
            "REVOKE EXECUTE ON FUNCTION portal_audit.seal FROM portal_audit_writer",
            &["writer_may_insert critical"],
            By("GRANT EXECUTE ON FUNCTION portal_audit.seal TO portal_audit_writer"),
        ),
    ),
    (
        "the writer may not add to a tree",
        (
            Audit,
            "REVOKE UPDATE ON portal_audit.trees FROM portal_audit_writer",
            &["writer_may_insert critical"],
            By("GRANT UPDATE ON portal_audit.trees TO portal_audit_writer"),
        ),
    ),
    (
        "the writer may not keep leaves",
        (
            Audit,
            "REVOKE INSERT ON portal_audit.seals FROM portal_audit_writer",
            &["writer_may_insert critical"],
            By("GRANT INSERT ON portal_audit.seals TO portal_audit_writer"),
        ),
    ),
    (
        "the writer may change events",
        (
            Audit,
            "GRANT UPDATE, DELETE ON public.events TO {w}",
            &["writer_too_wide warning"],
            Printed(""),
        ),
    ),
    (
        "the writer is a superuser",
        (
            Audit,
            "ALTER ROLE {w} SUPERUSER",
            &["writer_too_wide warning"],
            By("ALTER ROLE {w} NOSUPERUSER"),
        ),
    ),
    (
        "everybody reads events",
        (
            Audit,
            "GRANT SELECT ON public.events TO PUBLIC",
            &["events_public critical"],
            Printed(""),
        ),
    ),
    (
        "events are published",
        (
            Audit,
            "CREATE PUBLICATION more FOR TABLE public.events",
            &["events_published warning"],
            Printed("DROP PUBLICATION more"),
        ),
    ),
    (
        "a type that is kept otherwise",
        (
            Audit,
            "INSERT INTO portal_audit.event_types VALUES ('project_created', 'x', 'user', '{self}')",
            &["event_types warning"],
            Printed("DELETE FROM portal_audit.event_types WHERE event_type = 'project_created'"),
        ),
    ),
    (
        "the writer's sessions are read-only",
        (
            Audit,
            "ALTER ROLE {w} SET default_transaction_read_only = on",
            &["audit_writable critical"],
            Printed("ALTER ROLE {w} RESET ALL"),
        ),
    ),
    (
        "an older schema that the writer may not mend",
        (Audit, "DROP TABLE portal_audit.coverage", &["audit_schema critical"], By("{audit_sql}")),
    ),
    (
        "no schema at all",
        (Audit, "DROP SCHEMA portal_audit CASCADE", &["audit_schema critical"], By("{audit_sql}")),
    ),
];
