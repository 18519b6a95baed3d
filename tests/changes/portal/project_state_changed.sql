-- Every way into NotSet and Pending, from the other of the two as well.
INSERT INTO portal.projects (name, state, gid, organization, category, subcategory, description) VALUES
    ('latencymap', 'NotSet', 3001, NULL, 'Research', 'Security', 'Project 1'),
    ('firmfuzz', 'Active', 3002, NULL, 'Research', 'Security', 'Project 2'),
    ('gridtwin', 'Frozen', 3003, NULL, 'Research', 'Security', 'Project 3');
-- when
BEGIN;
UPDATE portal.projects SET state = 'Pending', ver = ver + 1 WHERE name = 'latencymap';
COMMIT;
BEGIN;
UPDATE portal.projects SET state = 'NotSet', ver = ver + 1 WHERE name = 'latencymap';
COMMIT;
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"opsduty","s":"portal","t":"projects","op":"UPDATE"}');
UPDATE portal.projects SET state = 'Pending', ver = ver + 1 WHERE name = 'firmfuzz';
COMMIT;
BEGIN;
UPDATE portal.projects SET state = 'NotSet', ver = ver + 1 WHERE name = 'gridtwin';
COMMIT;
