-- The eight rows that the owners gave as a sample, in their order. The fifth has no caller there, so its row names no creator here.
-- Their two deletions marked as failed had been committed: those succeeded.
INSERT INTO portal.users (username, state, uid, gid, institution, category) VALUES
    ('glawler', 'Active', 1001, 1001, 'Sample Institute', 'Graduate student'),
    ('testuser', 'Active', 1002, 1002, 'Sample Institute', 'Graduate student');
INSERT INTO portal.organizations (name, state, oid, category, subcategory, description) VALUES
    ('orgtest', 'Active', 2001, 'Research group', 'Networking', 'Group 1');
INSERT INTO portal.projects (name, state, gid, organization, category, subcategory, description) VALUES
    ('glawler', 'Active', 3001, NULL, 'Research', 'Security', 'Project 1'),
    ('testproject', 'Active', 3002, NULL, 'Research', 'Security', 'Project 2');
INSERT INTO portal.organization_members (organization, kind, id, role, state) VALUES
    ('orgtest', 'UserMember', 'glawler', 'Creator', 'Active');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"glawler","s":"portal","t":"organization_members","op":"INSERT"}');
INSERT INTO portal.organization_members (organization, kind, id, role, state) VALUES
    ('orgtest', 'UserMember', 'testuser', 'Member', 'Active');
COMMIT;
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"glawler","s":"portal","t":"organization_members","op":"INSERT"}');
INSERT INTO portal.organization_members (organization, kind, id, role, state) VALUES
    ('orgtest', 'ProjectMember', 'testproject', 'Member', 'Active');
COMMIT;
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"glawler","s":"portal","t":"organization_members","op":"DELETE"}');
DELETE FROM portal.organization_members WHERE organization = 'orgtest' AND kind = 'ProjectMember' AND id = 'testproject';
COMMIT;
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"glawler","s":"portal","t":"organization_members","op":"DELETE"}');
DELETE FROM portal.organization_members WHERE organization = 'orgtest' AND kind = 'UserMember' AND id = 'testuser';
COMMIT;
BEGIN;
INSERT INTO portal.experiments (project, name, creator) VALUES
    ('glawler', 'testexp', '');
COMMIT;
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"glawler","s":"portal","t":"experiments","op":"DELETE"}');
DELETE FROM portal.experiments WHERE project = 'glawler' AND name = 'testexp';
COMMIT;
BEGIN;
INSERT INTO portal.experiments (project, name, creator) VALUES
    ('glawler', 'testexp', 'glawler');
COMMIT;
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"glawler","s":"portal","t":"experiments","op":"DELETE"}');
DELETE FROM portal.experiments WHERE project = 'glawler' AND name = 'testexp';
COMMIT;
