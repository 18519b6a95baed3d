-- Without an organization the payload has no such key.
INSERT INTO portal.organizations (name, state, oid, category, subcategory, description) VALUES
    ('quillnet', 'Active', 2001, 'Research group', 'Networking', 'Group 1'),
    ('norrinsec', 'Active', 2002, 'Research group', 'Networking', 'Group 2');
INSERT INTO portal.projects (name, state, gid, organization, category, subcategory, description) VALUES
    ('latencymap', 'Active', 3001, 'quillnet', 'Research', 'Security', 'Project 1');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"wrenn","s":"portal","t":"projects","op":"UPDATE"}');
UPDATE portal.projects SET description = 'Latency between campuses', ver = ver + 1 WHERE name = 'latencymap';
COMMIT;
BEGIN;
UPDATE portal.projects SET organization = 'norrinsec', ver = ver + 1 WHERE name = 'latencymap';
COMMIT;
BEGIN;
UPDATE portal.projects SET organization = NULL, ver = ver + 1 WHERE name = 'latencymap';
COMMIT;
