-- One DELETE by a person. The members go by cascade and the projects lose their organization; the other organization is untouched.
INSERT INTO portal.users (username, state, uid, gid, institution, category) VALUES
    ('glawler', 'Active', 1001, 1001, 'Sample Institute', 'Graduate student'),
    ('wrenn', 'Active', 1002, 1002, 'Sample Institute', 'Graduate student');
INSERT INTO portal.organizations (name, state, oid, category, subcategory, description) VALUES
    ('orgtest', 'Active', 2001, 'Research group', 'Networking', 'Group 1'),
    ('quillnet', 'Active', 2002, 'Research group', 'Networking', 'Group 2');
INSERT INTO portal.projects (name, state, gid, organization, category, subcategory, description) VALUES
    ('testproject', 'Active', 3001, 'orgtest', 'Research', 'Security', 'Project 1'),
    ('latencymap', 'Pending', 3002, 'orgtest', 'Research', 'Security', 'Project 2'),
    ('firmfuzz', 'Active', 3003, 'quillnet', 'Research', 'Security', 'Project 3');
INSERT INTO portal.organization_members (organization, kind, id, role, state) VALUES
    ('orgtest', 'UserMember', 'glawler', 'Creator', 'Active'),
    ('orgtest', 'UserMember', 'wrenn', 'Member', 'MemberRequested'),
    ('orgtest', 'ProjectMember', 'testproject', 'Member', 'Active'),
    ('quillnet', 'UserMember', 'wrenn', 'Creator', 'Active');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"glawler","s":"portal","t":"organizations","op":"DELETE"}');
DELETE FROM portal.organizations WHERE name = 'orgtest';
COMMIT;
