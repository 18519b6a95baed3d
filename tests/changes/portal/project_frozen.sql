INSERT INTO portal.projects (name, state, gid, organization, category, subcategory, description) VALUES
    ('latencymap', 'Active', 3001, NULL, 'Research', 'Security', 'Project 1'),
    ('firmfuzz', 'Pending', 3002, NULL, 'Research', 'Security', 'Project 2');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"opsduty","s":"portal","t":"projects","op":"UPDATE"}');
UPDATE portal.projects SET state = 'Frozen', ver = ver + 1 WHERE name = 'latencymap';
COMMIT;
BEGIN;
UPDATE portal.projects SET state = 'Frozen', ver = ver + 1 WHERE name = 'firmfuzz';
COMMIT;
