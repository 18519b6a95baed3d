-- The projects in its list lose it with it.
INSERT INTO portal.pools (name, description, creator, priority, projects) VALUES ('course', 'For teaching', 'opsduty', 5, ARRAY['mesh', 'raftlab']);
INSERT INTO portal.pools (name, creator) VALUES ('spare', 'opsduty');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"opsduty","s":"portal","t":"pools","op":"DELETE"}');
DELETE FROM portal.pools WHERE name = 'course';
COMMIT;
BEGIN;
DELETE FROM portal.pools WHERE name = 'spare';
COMMIT;
