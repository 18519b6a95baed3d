-- The attempt trigger: optional help on the source, for who wants to know what was tried and rolled back.
--
-- The log holds what was committed. With this trigger on a table, each statement that writes it also emits a logical message
-- outside the transaction, which stays in the log when the transaction is rolled back. The sidecar then asks the source how
-- the transaction ended (pg_xact_status) and tells each one that was rolled back as one event with success = false:
-- a duplicate key, a CHECK or a foreign key that was violated, a deferred constraint at COMMIT, an explicit ROLLBACK,
-- a client that went away. This is DDL on the portal's database, heavier than the context trigger, and needs the consent of
-- its owner. Run the file as that owner, then attach table by table, to few tables:
--
--   CALL portal_audit.attach_attempt('portal.users');
--   CALL portal_audit.detach_attempt('portal.users');
--   DROP FUNCTION portal_audit.attempt() CASCADE;   -- takes the triggers away too; `portal-audit sql undo` does it as well
--
-- The caller is known if something says it once a request: SET LOCAL portal.caller = 'alice', as for the context trigger.
--
-- What it does not see. Errors that come before triggers fire: a permission that is missing, an unknown table or column,
-- a value that cannot be read, a lock on the table that is not granted in time, a transaction that is read only. Policies and
-- checks of the portal's own code, which never reach the database. A statement that ROLLBACK TO SAVEPOINT undid in
-- a transaction that was committed. Writes under session_replication_role = replica. It does not say which statement failed,
-- nor why, nor whether there was an error at all: a client that changed its mind and one whose retry after a serialization
-- failure succeeded look the same. Row values and the statement's text are not in the message. The message is not flushed by
-- itself: it reaches the sidecar with the next flush (up to three wal_writer_delay later), when the record may have been told
-- complete to a moment beyond it, and a server that crashes right after a rollback may lose it.
--
-- What it costs: a function call, a WAL record and a transaction id for each statement, also for one that changes no row.
-- A one-row UPDATE by one client took 1.2 to 1.35 times as long with it (0.22 ms for 0.18 ms), 1.4 to 1.6 times where commits do
-- not wait for the disk, and wrote 429 bytes of log for 164; with the context trigger too 1.3 to 1.5 times, 1.6 to 1.8 times and
-- 670 bytes: medians of four runs of `cargo run --example trigger_cost` on PostgreSQL 15.18 and 18.4. CREATE TRIGGER takes a SHARE ROW EXCLUSIVE lock, which stops writes to the table for a moment: run
-- SET lock_timeout = '2s' before attach_attempt, and try again if it fails.
--
-- While a transaction with attempts is open the record is complete only up to its last attempt, however long that is:
-- portal_audit.attempts in the audit database lists them.
--
-- What it proves: nothing. Any client can set portal.caller, and any role that may log in can emit a message with our prefix
-- and the id of any transaction that was rolled back. The second can be closed; the trigger goes on working as long as the
-- owner of portal_audit.attempt() keeps the privilege, and if the owner loses it every write to an attached table fails:
--
--   REVOKE EXECUTE ON FUNCTION pg_logical_emit_message (boolean, text, text), pg_logical_emit_message (boolean, text, bytea)
--       FROM PUBLIC;                              -- since PostgreSQL 17 both have a fourth argument, boolean
CREATE SCHEMA IF NOT EXISTS portal_audit;

-- No exception block, as in the context trigger: it would run in a subtransaction. So an error in here fails the portal's own
-- statement, which is why so little stands in here.
CREATE OR REPLACE FUNCTION portal_audit.attempt() RETURNS trigger
LANGUAGE plpgsql
-- Roles that write the table need no privilege on this schema, and nothing in their search_path can stand in for a name here.
SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- The first argument makes the message one of its own: it is delivered whatever becomes of the transaction.
    PERFORM pg_logical_emit_message(FALSE, 'portal_audit.attempt', json_build_object(
        -- Of the whole transaction, also inside a savepoint, with its epoch: 64 bits, which JSON's numbers do not hold.
        'xid',    pg_current_xact_id()::text,
        -- When it was tried, in microseconds since 1970: there is no commit whose time it could be.
        'at',     (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
        -- Cut, so that no client can make the message so large that it is not read.
        'caller', nullif(left(current_setting('portal.caller', TRUE), 200), ''),
        'app',    left(current_setting('application_name', TRUE), 200),
        'su',     session_user,
        's',      TG_TABLE_SCHEMA,
        't',      TG_TABLE_NAME,
        'op',     TG_OP,
        -- Above 1 for what a foreign key or another trigger does on behalf of a statement.
        'depth',  pg_trigger_depth())::text);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION portal_audit.attempt() IS 'Emits a logical message outside the transaction, prefix portal_audit.attempt: who tries to write which table, in which transaction.';
REVOKE ALL ON FUNCTION portal_audit.attempt() FROM PUBLIC;

-- aa_: triggers fire in the order of their names, and this one must have fired before one of the portal's own refuses the statement.
CREATE OR REPLACE PROCEDURE portal_audit.attach_attempt(tbl regclass)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('CREATE OR REPLACE TRIGGER aa_portal_audit_attempt BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s
                    FOR EACH STATEMENT EXECUTE FUNCTION portal_audit.attempt()', tbl);
END $$;
COMMENT ON PROCEDURE portal_audit.attach_attempt(regclass) IS 'Puts the attempt trigger on a table. Safe to call again.';
REVOKE ALL ON PROCEDURE portal_audit.attach_attempt(regclass) FROM PUBLIC;

CREATE OR REPLACE PROCEDURE portal_audit.detach_attempt(tbl regclass)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('DROP TRIGGER IF EXISTS aa_portal_audit_attempt ON %s', tbl);
END $$;
COMMENT ON PROCEDURE portal_audit.detach_attempt(regclass) IS 'Takes the attempt trigger off a table. Safe to call again.';
REVOKE ALL ON PROCEDURE portal_audit.detach_attempt(regclass) FROM PUBLIC;
