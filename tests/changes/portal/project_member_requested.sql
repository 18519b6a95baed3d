INSERT INTO portal.users (username, state, uid, gid, institution, category) VALUES
    ('wrenn', 'Active', 1001, 1001, 'Sample Institute', 'Graduate student'),
    ('okafor7', 'Active', 1002, 1002, 'Sample Institute', 'Graduate student'),
    ('maple', 'Active', 1003, 1003, 'Sample Institute', 'Graduate student');
INSERT INTO portal.projects (name, state, gid, organization, category, subcategory, description) VALUES
    ('testproject', 'Active', 3001, NULL, 'Research', 'Security', 'Project 1');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"wrenn","s":"portal","t":"project_members","op":"INSERT"}');
INSERT INTO portal.project_members (project, username, role, state) VALUES
    ('testproject', 'wrenn', 'Member', 'MemberRequested');
COMMIT;
BEGIN;
INSERT INTO portal.project_members (project, username, role, state) VALUES
    ('testproject', 'okafor7', 'Maintainer', 'EntityRequested'),
    ('testproject', 'maple', 'Member', 'Pending');
COMMIT;
