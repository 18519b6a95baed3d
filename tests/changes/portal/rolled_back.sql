-- Of the first transaction nothing is seen, not even its context. The second shows that the stream goes on.
INSERT INTO portal.users (username, state, uid, gid, institution, category) VALUES
    ('wrenn', 'Pending', 1001, 1001, 'Sample Institute', 'Graduate student');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"opsduty","s":"portal","t":"users","op":"UPDATE"}');
UPDATE portal.users SET state = 'Active', ver = ver + 1 WHERE username = 'wrenn';
INSERT INTO portal.projects (name, state, gid, organization, category, subcategory, description) VALUES
    ('wrenn', 'Active', 3001, NULL, 'Research', 'Security', 'Project 1');
ROLLBACK;
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"opsduty","s":"portal","t":"users","op":"UPDATE"}');
UPDATE portal.users SET state = 'Frozen', ver = ver + 1 WHERE username = 'wrenn';
COMMIT;
