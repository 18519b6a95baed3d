-- Two callers in one transaction are told apart by table and statement. A project that no message speaks of has no caller, and where
-- two messages speak of the same table and statement the caller stays empty: a guess would be wrong half of the time. The deletion
-- is glawler's alone. In the last transaction both messages agree.
INSERT INTO portal.users (username, state, uid, gid, institution, category) VALUES
    ('wrenn', 'Pending', 1001, 1001, 'Sample Institute', 'Graduate student');
INSERT INTO portal.organizations (name, state, oid, category, subcategory, description) VALUES
    ('quillnet', 'Active', 2001, 'Research group', 'Networking', 'Group 1'),
    ('norrinsec', 'Active', 2002, 'Research group', 'Networking', 'Group 2');
INSERT INTO portal.projects (name, state, gid, organization, category, subcategory, description) VALUES
    ('latencymap', 'Active', 3001, NULL, 'Research', 'Security', 'Project 1');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"opsduty","s":"portal","t":"users","op":"UPDATE"}');
UPDATE portal.users SET state = 'Active', ver = ver + 1 WHERE username = 'wrenn';
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"glawler","s":"portal","t":"organizations","op":"UPDATE"}');
UPDATE portal.organizations SET description = 'By glawler' WHERE name = 'quillnet';
UPDATE portal.projects SET description = 'By nobody we know' WHERE name = 'latencymap';
COMMIT;
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"opsduty","s":"portal","t":"organizations","op":"UPDATE"}');
UPDATE portal.organizations SET description = 'By opsduty' WHERE name = 'quillnet';
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"glawler","s":"portal","t":"organizations","op":"UPDATE"}');
UPDATE portal.organizations SET description = 'By glawler' WHERE name = 'norrinsec';
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"glawler","s":"portal","t":"organizations","op":"DELETE"}');
DELETE FROM portal.organizations WHERE name = 'norrinsec';
COMMIT;
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"opsduty","s":"portal","t":"users","op":"UPDATE"}');
UPDATE portal.users SET state = 'Frozen', ver = ver + 1 WHERE username = 'wrenn';
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"opsduty","s":"portal","t":"projects","op":"UPDATE"}');
UPDATE portal.projects SET description = 'By opsduty' WHERE name = 'latencymap';
COMMIT;
