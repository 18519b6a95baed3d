-- Merge renames nothing. Who does it by hand changes a key, and the old name is in the old row alone.
INSERT INTO portal.organizations (name, state, oid, category, subcategory, description) VALUES
    ('quillnet', 'Active', 2001, 'Research group', 'Networking', 'Group 1');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"opsduty","s":"portal","t":"organizations","op":"UPDATE"}');
UPDATE portal.organizations SET name = 'quillnet2' WHERE name = 'quillnet';
COMMIT;
