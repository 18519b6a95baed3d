-- The caller is the Creator inserted with the organization. The second has none, and nobody is named.
INSERT INTO portal.users (username, state, uid, gid, institution, category) VALUES
    ('wrenn', 'Active', 1001, 1001, 'Sample Institute', 'Graduate student');
-- when
BEGIN;
INSERT INTO portal.organizations (name, state, oid, category, subcategory, description) VALUES
    ('quillnet', 'Pending', 2001, 'Research group', 'Networking', 'Group 1');
INSERT INTO portal.organization_members (organization, kind, id, role, state) VALUES
    ('quillnet', 'UserMember', 'wrenn', 'Creator', 'Active');
COMMIT;
BEGIN;
INSERT INTO portal.organizations (name, state, oid, category, subcategory, description) VALUES
    ('norrinsec', 'Active', 2001, 'Research group', 'Networking', 'Group 1');
COMMIT;
