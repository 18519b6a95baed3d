-- From Active, and from one kind of request to another; the last changes the role as well, which
-- is no event of its own.
INSERT INTO portal.users (username, state, uid, gid, institution, category) VALUES
    ('wrenn', 'Active', 1001, 1001, 'Sample Institute', 'Graduate student'),
    ('okafor7', 'Active', 1002, 1002, 'Sample Institute', 'Graduate student'),
    ('maple', 'Active', 1003, 1003, 'Sample Institute', 'Graduate student');
INSERT INTO portal.projects (name, state, gid, organization, category, subcategory, description) VALUES
    ('testproject', 'Active', 3001, NULL, 'Research', 'Security', 'Project 1');
INSERT INTO portal.project_members (project, username, role, state) VALUES
    ('testproject', 'wrenn', 'Maintainer', 'Active'),
    ('testproject', 'okafor7', 'Member', 'Pending');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"glawler","s":"portal","t":"project_members","op":"UPDATE"}');
UPDATE portal.project_members SET state = 'Pending' WHERE username = 'wrenn';
COMMIT;
BEGIN;
UPDATE portal.project_members SET state = 'EntityRequested' WHERE username = 'okafor7';
COMMIT;
BEGIN;
UPDATE portal.project_members SET state = 'MemberRequested', role = 'Member' WHERE username = 'wrenn';
COMMIT;
