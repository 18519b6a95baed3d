INSERT INTO portal.users (username, state, uid, gid, institution, category) VALUES
    ('wrenn', 'Frozen', 1001, 1001, 'Sample Institute', 'Graduate student');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"opsduty","s":"portal","t":"users","op":"UPDATE"}');
UPDATE portal.users SET state = 'Active', ver = ver + 1 WHERE username = 'wrenn';
COMMIT;
