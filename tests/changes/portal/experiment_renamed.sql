-- The key has two columns: a new name, and then another project.
INSERT INTO portal.projects (name, state, gid, organization, category, subcategory, description) VALUES
    ('glawler', 'Active', 3001, NULL, 'Research', 'Security', 'Project 1'),
    ('testproject', 'Active', 3002, NULL, 'Research', 'Security', 'Project 2');
INSERT INTO portal.experiments (project, name, creator) VALUES
    ('glawler', 'testexp', 'glawler');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"glawler","s":"portal","t":"experiments","op":"UPDATE"}');
UPDATE portal.experiments SET name = 'mesh8' WHERE name = 'testexp';
COMMIT;
BEGIN;
UPDATE portal.experiments SET project = 'testproject' WHERE name = 'mesh8';
COMMIT;
