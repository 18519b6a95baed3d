INSERT INTO portal.projects (name, state, gid, organization, category, subcategory, description) VALUES
    ('latencymap', 'NotSet', 3001, NULL, 'Research', 'Security', 'Project 1'),
    ('firmfuzz', 'Pending', 3002, NULL, 'Research', 'Security', 'Project 2');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"opsduty","s":"portal","t":"projects","op":"DELETE"}');
DELETE FROM portal.projects WHERE name = 'latencymap';
COMMIT;
BEGIN;
DELETE FROM portal.projects WHERE name = 'firmfuzz';
COMMIT;
