-- The row's creator comes before the context. An empty creator says nothing.
INSERT INTO portal.projects (name, state, gid, organization, category, subcategory, description) VALUES
    ('glawler', 'Active', 3001, NULL, 'Research', 'Security', 'Project 1'),
    ('testproject', 'Active', 3002, NULL, 'Research', 'Security', 'Project 2');
-- when
BEGIN;
INSERT INTO portal.experiments (project, name, creator) VALUES
    ('glawler', 'testexp', 'glawler');
COMMIT;
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"opsduty","s":"portal","t":"experiments","op":"INSERT"}');
INSERT INTO portal.experiments (project, name, creator) VALUES
    ('testproject', 'testexp', 'glawler');
COMMIT;
BEGIN;
INSERT INTO portal.experiments (project, name, creator) VALUES
    ('testproject', 'orphan', '');
COMMIT;
