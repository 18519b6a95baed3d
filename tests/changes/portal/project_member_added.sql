-- The upsert at the end finds okafor7, who is a member already, and adds maple.
INSERT INTO portal.users (username, state, uid, gid, institution, category) VALUES
    ('wrenn', 'Active', 1001, 1001, 'Sample Institute', 'Graduate student'),
    ('okafor7', 'Active', 1002, 1002, 'Sample Institute', 'Graduate student'),
    ('maple', 'Active', 1003, 1003, 'Sample Institute', 'Graduate student');
INSERT INTO portal.projects (name, state, gid, organization, category, subcategory, description) VALUES
    ('testproject', 'Active', 3001, NULL, 'Research', 'Security', 'Project 1');
INSERT INTO portal.project_members (project, username, role, state) VALUES
    ('testproject', 'okafor7', 'Member', 'EntityRequested');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"glawler","s":"portal","t":"project_members","op":"INSERT"}');
INSERT INTO portal.project_members (project, username, role, state) VALUES
    ('testproject', 'wrenn', 'Maintainer', 'Active');
COMMIT;
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"okafor7","s":"portal","t":"project_members","op":"UPDATE"}');
UPDATE portal.project_members SET state = 'Active' WHERE username = 'okafor7';
COMMIT;
BEGIN;
INSERT INTO portal.project_members (project, username, role, state) VALUES
    ('testproject', 'okafor7', 'Member', 'Active')
ON CONFLICT (project, username) DO UPDATE SET state = 'Active';
INSERT INTO portal.project_members (project, username, role, state) VALUES
    ('testproject', 'maple', 'Member', 'Active')
ON CONFLICT (project, username) DO UPDATE SET state = 'Active';
COMMIT;
