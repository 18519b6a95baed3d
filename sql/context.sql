-- The context trigger: optional help on the source, for who wants to know the caller of a change.
--
-- Rows seldom say who changed them. With this trigger on a table, each statement that writes it adds a logical message to the
-- transaction: the end user as far as the portal tells it, the login role, the client. The portal's code need not change, but
-- this is DDL on its database and needs the consent of its owner. Run the file as that owner, then attach table by table:
--
--   CALL portal_audit.attach('portal.users');
--   CALL portal_audit.detach('portal.users');
--   DROP SCHEMA portal_audit CASCADE;             -- takes the triggers away too
--
-- The end user is known only if something says it, once a request: SET LOCAL portal.caller = 'alice'. It must be SET LOCAL; a
-- plain SET goes on to the next request of a pooled connection. Without it the message still tells services apart, provided
-- that each has its own role or application_name. Behind a pooler the address is the pooler's.
--
-- What it costs: one WAL record and one function call a statement. A one-row UPDATE by one client took 1.2 to 1.3 times as
-- long with it (0.22 ms for 0.18 ms), 1.4 times where commits do not wait for the disk, and wrote 413 bytes of log for 164:
-- medians of four runs of `cargo run --example trigger_cost` on PostgreSQL 15.18 and 18.4. CREATE TRIGGER takes a SHARE ROW EXCLUSIVE lock, which stops writes to the table for a moment: run
-- SET lock_timeout = '2s' before attach, and try again if it fails.
--
-- What it proves: nothing. Any client can set portal.caller, and any role that may log in can emit a message with our prefix.
-- The second can be closed; the triggers go on working as long as the owner of portal_audit.ctx() keeps the privilege:
--
--   REVOKE EXECUTE ON FUNCTION pg_logical_emit_message (boolean, text, text), pg_logical_emit_message (boolean, text, bytea)
--       FROM PUBLIC;                              -- since PostgreSQL 17 both have a fourth argument, boolean
--
-- If the owner loses it as well, every write to an attached table fails. The owner is whoever ran this file.
--
-- What it does not see: writes under session_replication_role = replica fire no trigger, so their rows come without context.
-- A statement that changes no row emits a message all the same: an attempt without effect, and no event. What was rolled back
-- is not told either; the attempt trigger (`portal-audit sql attempt`) is for that.
CREATE SCHEMA IF NOT EXISTS portal_audit;
COMMENT ON SCHEMA portal_audit IS 'Optional context trigger for portal-audit: tells who made a change. DROP SCHEMA .. CASCADE removes all of it.';

-- There is no exception block, and that is deliberate. With one the message would be written in a subtransaction: one more
-- transaction id a statement, and a message that may be decoded after the row it belongs to. So an error in here fails the
-- portal's own statement, which is why so little stands in here.
CREATE OR REPLACE FUNCTION portal_audit.ctx() RETURNS trigger
LANGUAGE plpgsql
-- Roles that write the table need no privilege on this schema, and nothing in their search_path can stand in for a name here.
-- session_user remains the login role in such a function, and the setting "role" remains what SET ROLE made it.
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- The first argument makes the message part of the transaction: after a rollback, also to a savepoint, nothing arrives.
    PERFORM pg_logical_emit_message(TRUE, 'portal_audit.ctx', json_build_object(
        'caller', nullif(current_setting('portal.caller', TRUE), ''),
        'app',    current_setting('application_name', TRUE),
        'su',     session_user,
        'role',   current_setting('role', TRUE),
        'addr',   inet_client_addr(),
        'pid',    pg_backend_pid(),
        -- Table and statement tell two callers of one transaction apart. The order of messages and rows cannot: the message of a
        -- released savepoint may follow the next row of its parent.
        's',      TG_TABLE_SCHEMA,
        't',      TG_TABLE_NAME,
        -- The statement, not its effect: INSERT .. ON CONFLICT DO UPDATE fires as both, COPY as INSERT.
        'op',     TG_OP)::text);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION portal_audit.ctx() IS 'Emits a transactional logical message, prefix portal_audit.ctx: who writes, from where, which table, which statement.';
REVOKE ALL ON FUNCTION portal_audit.ctx() FROM PUBLIC;

-- zz_: triggers fire in the order of their names, and the portal's own BEFORE triggers may still refuse the statement.
CREATE OR REPLACE PROCEDURE portal_audit.attach(tbl regclass)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('CREATE OR REPLACE TRIGGER zz_portal_audit_ctx BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s
                    FOR EACH STATEMENT EXECUTE FUNCTION portal_audit.ctx()', tbl);
END $$;
COMMENT ON PROCEDURE portal_audit.attach(regclass) IS 'Puts the context trigger on a table. Safe to call again.';
REVOKE ALL ON PROCEDURE portal_audit.attach(regclass) FROM PUBLIC;

CREATE OR REPLACE PROCEDURE portal_audit.detach(tbl regclass)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('DROP TRIGGER IF EXISTS zz_portal_audit_ctx ON %s', tbl);
END $$;
COMMENT ON PROCEDURE portal_audit.detach(regclass) IS 'Takes the context trigger off a table. Safe to call again.';
REVOKE ALL ON PROCEDURE portal_audit.detach(regclass) FROM PUBLIC;
