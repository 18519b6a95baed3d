-- Merge renames nothing. Who does it by hand changes a key, and the old name is in the old row alone.
INSERT INTO portal.projects (name, state, gid, organization, category, subcategory, description) VALUES
    ('latencymap', 'Active', 3001, NULL, 'Research', 'Security', 'Project 1');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"opsduty","s":"portal","t":"projects","op":"UPDATE"}');
UPDATE portal.projects SET name = 'latencymap2' WHERE name = 'latencymap';
COMMIT;
