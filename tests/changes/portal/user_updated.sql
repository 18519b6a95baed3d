-- The last UPDATE changes the state too: two events of one change. The address is named as changed and never printed.
INSERT INTO portal.users (username, state, uid, gid, institution, category) VALUES
    ('wrenn', 'Active', 1001, 1001, 'Sample Institute', 'Graduate student');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"wrenn","s":"portal","t":"users","op":"UPDATE"}');
UPDATE portal.users SET email = 'wrenn@sample.example', category = 'Faculty', ver = ver + 1 WHERE username = 'wrenn';
COMMIT;
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"opsduty","s":"portal","t":"users","op":"UPDATE"}');
UPDATE portal.users SET admin = TRUE, ver = ver + 1 WHERE username = 'wrenn';
COMMIT;
BEGIN;
UPDATE portal.users SET state = 'Frozen', admin = FALSE, ver = ver + 1 WHERE username = 'wrenn';
COMMIT;
