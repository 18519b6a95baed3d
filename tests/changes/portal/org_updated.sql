INSERT INTO portal.organizations (name, state, oid, category, subcategory, description) VALUES
    ('quillnet', 'Active', 2001, 'Research group', 'Networking', 'Group 1');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"wrenn","s":"portal","t":"organizations","op":"UPDATE"}');
UPDATE portal.organizations SET category = 'Class', description = 'A course now', ver = ver + 1 WHERE name = 'quillnet';
COMMIT;
BEGIN;
UPDATE portal.organizations SET access_mode = 'Private', ver = ver + 1 WHERE name = 'quillnet';
COMMIT;
