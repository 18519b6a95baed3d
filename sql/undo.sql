-- Takes portal-audit off the source database {{database}}: the publication, the role, the slot, and the optional triggers. Stop the sidecar first.
-- The changes since its last confirmation are lost to the audit, so this fails, and changes nothing, while the slot is read.
-- Replica identities stay as they are: ALTER TABLE … REPLICA IDENTITY DEFAULT where nobody else needs them.

BEGIN;
-- A trigger is taken off under a lock that stops reads of its table for a moment: rather try again than wait for it.
SET LOCAL lock_timeout = '5s';
-- The context and attempt triggers go with their functions. Each is named, because this may be the audit database too, whose schema has the same name.
DROP ROUTINE IF EXISTS portal_audit.ctx(), portal_audit.attach(REGCLASS), portal_audit.detach(REGCLASS),
  portal_audit.attempt(), portal_audit.attach_attempt(REGCLASS), portal_audit.detach_attempt(REGCLASS) CASCADE;
DO $portal_audit$
BEGIN
  IF to_regnamespace('portal_audit') IS NOT NULL THEN
    DROP SCHEMA portal_audit;
  END IF;
EXCEPTION WHEN dependent_objects_still_exist THEN
  RAISE NOTICE 'schema portal_audit stays: it holds more than the triggers';
END $portal_audit$;
DROP PUBLICATION IF EXISTS {{publication_name}};
DO $portal_audit$
DECLARE
  unwanted CONSTANT TEXT := {{role}};
  kept_because TEXT;
BEGIN
  -- Only a role that was made for this goes. DROP OWNED takes away what a role owns, and the settings may name the portal's own.
  SELECT CASE
           WHEN rolsuper THEN 'it is a superuser'
           WHEN rolname IN (current_user, session_user) THEN 'it is the one that runs this'
           WHEN EXISTS (SELECT FROM pg_shdepend WHERE refclassid = 'pg_authid'::REGCLASS AND refobjid = r.oid AND deptype = 'o')
             THEN 'it owns objects'
           WHEN EXISTS (SELECT FROM pg_shdepend d, pg_database here
                         WHERE here.datname = current_database() AND d.refclassid = 'pg_authid'::REGCLASS AND d.refobjid = r.oid
                           AND (d.dbid NOT IN (0, here.oid) OR d.classid = 'pg_database'::REGCLASS AND d.objid <> here.oid))
             THEN 'another database knows it too'
           ELSE ''
         END
    INTO kept_because FROM pg_roles r WHERE rolname = unwanted;
  IF kept_because = '' THEN
    EXECUTE format('DROP OWNED BY %I', unwanted);
    EXECUTE format('DROP ROLE %I', unwanted);
  ELSIF kept_because IS NOT NULL THEN
    RAISE NOTICE 'role % stays: %', unwanted, kept_because;
  END IF;
END $portal_audit$;
-- The slot last, with the marker that it leaves where it was given up: nothing brings it back, and if somebody reads it this fails and the rest stays too.
SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name IN ({{slot}}, {{marker}});
COMMIT;
