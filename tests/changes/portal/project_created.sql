-- The caller is the Creator inserted with the project. The second has none, nor an organization.
-- The third has two: either may have acted, so nobody is named.
INSERT INTO portal.users (username, state, uid, gid, institution, category) VALUES
    ('wrenn', 'Active', 1001, 1001, 'Sample Institute', 'Graduate student'),
    ('okafor7', 'Active', 1002, 1002, 'Sample Institute', 'Graduate student');
INSERT INTO portal.organizations (name, state, oid, category, subcategory, description) VALUES
    ('quillnet', 'Active', 2001, 'Research group', 'Networking', 'Group 1');
-- when
BEGIN;
INSERT INTO portal.projects (name, state, gid, organization, category, subcategory, description) VALUES
    ('latencymap', 'Pending', 3001, 'quillnet', 'Research', 'Security', 'Project 1');
INSERT INTO portal.project_members (project, username, role, state) VALUES
    ('latencymap', 'wrenn', 'Creator', 'Active');
COMMIT;
BEGIN;
INSERT INTO portal.projects (name, state, gid, organization, category, subcategory, description) VALUES
    ('firmfuzz', 'Active', 3001, NULL, 'Research', 'Security', 'Project 1');
COMMIT;
BEGIN;
INSERT INTO portal.projects (name, state, gid, organization, category, subcategory, description) VALUES
    ('gridtwin', 'Pending', 3003, 'quillnet', 'Research', 'CPS', 'Project 3');
INSERT INTO portal.project_members (project, username, role, state) VALUES
    ('gridtwin', 'wrenn', 'Creator', 'Active'),
    ('gridtwin', 'okafor7', 'Creator', 'Active');
COMMIT;
