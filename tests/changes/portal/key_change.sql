-- A member row with another key is another member: one is removed, one is added, or requested while it is not Active.
-- One of them is confirmed in a new role at the same time, which is no event beside these.
INSERT INTO portal.users (username, state, uid, gid, institution, category) VALUES
    ('wrenn', 'Active', 1001, 1001, 'Sample Institute', 'Graduate student'),
    ('okafor7', 'Active', 1002, 1002, 'Sample Institute', 'Graduate student');
INSERT INTO portal.organizations (name, state, oid, category, subcategory, description) VALUES
    ('orgtest', 'Active', 2001, 'Research group', 'Networking', 'Group 1'),
    ('quillnet', 'Active', 2002, 'Research group', 'Networking', 'Group 2');
INSERT INTO portal.projects (name, state, gid, organization, category, subcategory, description) VALUES
    ('testproject', 'Active', 3001, NULL, 'Research', 'Security', 'Project 1');
INSERT INTO portal.organization_members (organization, kind, id, role, state) VALUES
    ('orgtest', 'UserMember', 'wrenn', 'Maintainer', 'Active'),
    ('orgtest', 'UserMember', 'maple', 'Member', 'MemberRequested');
INSERT INTO portal.project_members (project, username, role, state) VALUES
    ('testproject', 'wrenn', 'Member', 'Active');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"opsduty","s":"portal","t":"organization_members","op":"UPDATE"}');
UPDATE portal.organization_members SET id = 'okafor7' WHERE id = 'wrenn';
COMMIT;
BEGIN;
UPDATE portal.organization_members SET organization = 'quillnet' WHERE id = 'okafor7';
COMMIT;
BEGIN;
UPDATE portal.organization_members SET id = 'corvin' WHERE id = 'maple';
COMMIT;
BEGIN;
UPDATE portal.organization_members SET id = 'delmar3', role = 'Maintainer', state = 'Active' WHERE id = 'corvin';
COMMIT;
BEGIN;
UPDATE portal.project_members SET username = 'okafor7' WHERE username = 'wrenn';
COMMIT;
