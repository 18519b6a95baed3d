INSERT INTO portal.organizations (name, state, oid, category, subcategory, description) VALUES
    ('quillnet', 'Active', 2001, 'Research group', 'Networking', 'Group 1'),
    ('norrinsec', 'Frozen', 2002, 'Research group', 'Networking', 'Group 2');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"wrenn","s":"portal","t":"organizations","op":"DELETE"}');
DELETE FROM portal.organizations WHERE name = 'quillnet';
COMMIT;
BEGIN;
DELETE FROM portal.organizations WHERE name = 'norrinsec';
COMMIT;
