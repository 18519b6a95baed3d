-- The creator is the caller of the creation alone, also when it is what changes.
INSERT INTO portal.projects (name, state, gid, organization, category, subcategory, description) VALUES
    ('glawler', 'Active', 3001, NULL, 'Research', 'Security', 'Project 1'),
    ('testproject', 'Active', 3002, NULL, 'Research', 'Security', 'Project 2');
INSERT INTO portal.experiments (project, name, creator) VALUES
    ('glawler', 'testexp', 'glawler');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"wrenn","s":"portal","t":"experiments","op":"UPDATE"}');
UPDATE portal.experiments SET description = 'Second try', maintainers = '{wrenn,okafor7}', ver = ver + 1 WHERE name = 'testexp';
COMMIT;
BEGIN;
UPDATE portal.experiments SET creator = 'wrenn', ver = ver + 1 WHERE name = 'testexp';
COMMIT;
