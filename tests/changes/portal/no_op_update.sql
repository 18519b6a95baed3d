-- Rows written back as they were, and rows in which only ver has moved, give no event. The last transaction gives one.
INSERT INTO portal.users (username, state, uid, gid, institution, category) VALUES
    ('wrenn', 'Active', 1001, 1001, 'Sample Institute', 'Graduate student');
INSERT INTO portal.organizations (name, state, oid, category, subcategory, description) VALUES
    ('orgtest', 'Active', 2001, 'Research group', 'Networking', 'Group 1');
INSERT INTO portal.projects (name, state, gid, organization, category, subcategory, description) VALUES
    ('testproject', 'Active', 3001, 'orgtest', 'Research', 'Security', 'Project 1');
INSERT INTO portal.organization_members (organization, kind, id, role, state) VALUES
    ('orgtest', 'UserMember', 'wrenn', 'Member', 'Active');
INSERT INTO portal.project_members (project, username, role, state) VALUES
    ('testproject', 'wrenn', 'Member', 'Active');
INSERT INTO portal.experiments (project, name, creator) VALUES
    ('testproject', 'testexp', 'wrenn');
-- when
BEGIN;
UPDATE portal.users SET username = username, email = email, state = state, admin = admin;
UPDATE portal.organizations SET state = state, description = description;
UPDATE portal.projects SET state = state, organization = organization;
UPDATE portal.organization_members SET role = role, state = state;
UPDATE portal.project_members SET role = role, state = state;
UPDATE portal.experiments SET description = description, maintainers = maintainers;
COMMIT;
BEGIN;
UPDATE portal.users SET ver = ver + 1;
UPDATE portal.experiments SET ver = ver + 1;
COMMIT;
BEGIN;
UPDATE portal.users SET state = 'Frozen', ver = ver + 1 WHERE username = 'wrenn';
COMMIT;
