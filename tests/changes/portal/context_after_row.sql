-- A context belongs to its transaction, wherever in it the message comes. The last names neither table nor statement.
INSERT INTO portal.users (username, state, uid, gid, institution, category) VALUES
    ('wrenn', 'Pending', 1001, 1001, 'Sample Institute', 'Graduate student');
-- when
BEGIN;
UPDATE portal.users SET state = 'Active', ver = ver + 1 WHERE username = 'wrenn';
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"opsduty","s":"portal","t":"users","op":"UPDATE"}');
COMMIT;
BEGIN;
SAVEPOINT a;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"opsnight","s":"portal","t":"users","op":"UPDATE"}');
RELEASE SAVEPOINT a;
UPDATE portal.users SET state = 'Frozen', ver = ver + 1 WHERE username = 'wrenn';
COMMIT;
BEGIN;
UPDATE portal.users SET state = 'Active', ver = ver + 1 WHERE username = 'wrenn';
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"opsduty"}');
COMMIT;
