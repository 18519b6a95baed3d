-- Takes portal-audit off the source database {{database}}: the slot, the publication and the role. Stop the sidecar first.
-- The changes since its last confirmation are lost to the audit, so this asks for a slot that nobody reads.
-- Replica identities stay as they are: ALTER TABLE … REPLICA IDENTITY DEFAULT where nobody else needs them.

SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = {{slot}};
DROP PUBLICATION IF EXISTS {{publication_name}};
DO $portal_audit$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = {{role}}) THEN
    EXECUTE format('DROP OWNED BY %I', {{role}});
    EXECUTE format('DROP ROLE %I', {{role}});
  END IF;
END $portal_audit$;
