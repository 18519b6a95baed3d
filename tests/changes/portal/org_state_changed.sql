-- Every way into NotSet and Pending, from the other of the two as well.
INSERT INTO portal.organizations (name, state, oid, category, subcategory, description) VALUES
    ('quillnet', 'NotSet', 2001, 'Research group', 'Networking', 'Group 1'),
    ('norrinsec', 'Active', 2002, 'Research group', 'Networking', 'Group 2'),
    ('arden5g', 'Frozen', 2003, 'Research group', 'Networking', 'Group 3');
-- when
BEGIN;
UPDATE portal.organizations SET state = 'Pending', ver = ver + 1 WHERE name = 'quillnet';
COMMIT;
BEGIN;
UPDATE portal.organizations SET state = 'NotSet', ver = ver + 1 WHERE name = 'quillnet';
COMMIT;
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"opsduty","s":"portal","t":"organizations","op":"UPDATE"}');
UPDATE portal.organizations SET state = 'Pending', ver = ver + 1 WHERE name = 'norrinsec';
COMMIT;
BEGIN;
UPDATE portal.organizations SET state = 'NotSet', ver = ver + 1 WHERE name = 'arden5g';
COMMIT;
