-- Creations: an organization with its first members, a project in it, an experiment; then the organization is activated.
-- The map of members is longer than a page, so that an UPDATE of the state does not send it again.
INSERT INTO people.account (id, login) VALUES ('00000000-0000-0000-0000-000000000001', 'glawler');
INSERT INTO lab.organization (title, members) SELECT 'crowd', jsonb_object_agg('user' || n, jsonb_build_object('role', 'Member', 'state', 'Active', 'note', md5(n::text))) FROM generate_series(1, 300) AS n;
-- when
BEGIN; INSERT INTO lab.organization (title, category, members, updated_by) VALUES ('orgtest', 'Class', '{"glawler": {"role": "Creator", "state": "Active"}}', '00000000-0000-0000-0000-000000000001'); COMMIT;
BEGIN; INSERT INTO lab.project (organization_id, title, category) SELECT id, 'mesh', 'Research' FROM lab.organization WHERE title = 'orgtest'; COMMIT;
BEGIN; INSERT INTO lab.experiment (project_id, title, owner_id) VALUES (1, 'mesh8', '00000000-0000-0000-0000-000000000001'); COMMIT;
BEGIN; UPDATE lab.organization SET state = 3; COMMIT;
BEGIN; UPDATE lab.organization SET members = members - 'user150' WHERE title = 'crowd'; COMMIT;
BEGIN; DELETE FROM lab.experiment; COMMIT;
