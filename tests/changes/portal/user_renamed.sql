-- Merge renames nothing. Who does it by hand changes a key, and the old name is in the old row alone.
INSERT INTO portal.users (username, state, uid, gid, institution, category) VALUES
    ('wrenn', 'Active', 1001, 1001, 'Sample Institute', 'Graduate student');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"opsduty","s":"portal","t":"users","op":"UPDATE"}');
UPDATE portal.users SET username = 'wrenn2' WHERE username = 'wrenn';
COMMIT;
