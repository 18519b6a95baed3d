-- Members and experiments go with their project.
INSERT INTO portal.users (username, state, uid, gid, institution, category) VALUES
    ('wrenn', 'Active', 1001, 1001, 'Sample Institute', 'Graduate student');
INSERT INTO portal.projects (name, state, gid, organization, category, subcategory, description) VALUES
    ('latencymap', 'Active', 3001, NULL, 'Research', 'Security', 'Project 1'),
    ('firmfuzz', 'Frozen', 3002, NULL, 'Research', 'Security', 'Project 2');
INSERT INTO portal.project_members (project, username, role, state) VALUES
    ('latencymap', 'wrenn', 'Creator', 'Active');
INSERT INTO portal.experiments (project, name, creator) VALUES
    ('latencymap', 'twosite', 'wrenn');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"wrenn","s":"portal","t":"projects","op":"DELETE"}');
DELETE FROM portal.projects WHERE name = 'latencymap';
COMMIT;
BEGIN;
DELETE FROM portal.projects WHERE name = 'firmfuzz';
COMMIT;
