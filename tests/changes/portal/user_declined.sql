INSERT INTO portal.users (username, state, uid, gid, institution, category) VALUES
    ('wrenn', 'NotSet', 1001, 1001, 'Sample Institute', 'Graduate student'),
    ('okafor7', 'Pending', 1002, 1002, 'Sample Institute', 'Graduate student');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"opsduty","s":"portal","t":"users","op":"DELETE"}');
DELETE FROM portal.users WHERE username = 'wrenn';
COMMIT;
BEGIN;
DELETE FROM portal.users WHERE username = 'okafor7';
COMMIT;
