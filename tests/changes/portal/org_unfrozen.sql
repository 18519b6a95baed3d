INSERT INTO portal.organizations (name, state, oid, category, subcategory, description) VALUES
    ('quillnet', 'Frozen', 2001, 'Research group', 'Networking', 'Group 1');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"opsduty","s":"portal","t":"organizations","op":"UPDATE"}');
UPDATE portal.organizations SET state = 'Active', ver = ver + 1 WHERE name = 'quillnet';
COMMIT;
