INSERT INTO portal.organizations (name, state, oid, category, subcategory, description) VALUES
    ('quillnet', 'Active', 2001, 'Research group', 'Networking', 'Group 1'),
    ('norrinsec', 'Pending', 2002, 'Research group', 'Networking', 'Group 2');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"opsduty","s":"portal","t":"organizations","op":"UPDATE"}');
UPDATE portal.organizations SET state = 'Frozen', ver = ver + 1 WHERE name = 'quillnet';
COMMIT;
BEGIN;
UPDATE portal.organizations SET state = 'Frozen', ver = ver + 1 WHERE name = 'norrinsec';
COMMIT;
