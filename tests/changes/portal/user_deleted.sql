-- The membership in a project goes with its user.
INSERT INTO portal.users (username, state, uid, gid, institution, category) VALUES
    ('wrenn', 'Active', 1001, 1001, 'Sample Institute', 'Graduate student'),
    ('okafor7', 'Frozen', 1002, 1002, 'Sample Institute', 'Graduate student');
INSERT INTO portal.projects (name, state, gid, organization, category, subcategory, description) VALUES
    ('latencymap', 'Active', 3001, NULL, 'Research', 'Security', 'Project 1');
INSERT INTO portal.project_members (project, username, role, state) VALUES
    ('latencymap', 'wrenn', 'Creator', 'Active');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"opsduty","s":"portal","t":"users","op":"DELETE"}');
DELETE FROM portal.users WHERE username = 'wrenn';
COMMIT;
BEGIN;
DELETE FROM portal.users WHERE username = 'okafor7';
COMMIT;
