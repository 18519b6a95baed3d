-- The creator must not be taken for the caller of the deletion.
INSERT INTO portal.projects (name, state, gid, organization, category, subcategory, description) VALUES
    ('glawler', 'Active', 3001, NULL, 'Research', 'Security', 'Project 1'),
    ('testproject', 'Active', 3002, NULL, 'Research', 'Security', 'Project 2');
INSERT INTO portal.experiments (project, name, creator) VALUES
    ('glawler', 'testexp', 'glawler'),
    ('testproject', 'mesh8', 'wrenn');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"opsduty","s":"portal","t":"experiments","op":"DELETE"}');
DELETE FROM portal.experiments WHERE name = 'testexp';
COMMIT;
BEGIN;
DELETE FROM portal.experiments WHERE name = 'mesh8';
COMMIT;
