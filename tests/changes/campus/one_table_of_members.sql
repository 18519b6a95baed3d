-- A table of members for projects and experiments, of accounts and projects: the types choose what the keys mean.
INSERT INTO people.account (id, login) VALUES ('00000000-0000-0000-0000-000000000001', 'glawler'), ('00000000-0000-0000-0000-000000000002', 'sedge');
INSERT INTO lab.project (title) VALUES ('mesh'), ('guests');
INSERT INTO lab.experiment (project_id, title, owner_id) VALUES (1, 'mesh8', '00000000-0000-0000-0000-000000000002');
-- when
BEGIN; INSERT INTO lab.membership (entity_type, entity_id, member_type, member, role_id, granted_by) VALUES ('project', 1, 'account', '00000000-0000-0000-0000-000000000002', 0, '00000000-0000-0000-0000-000000000001'); COMMIT;
BEGIN; UPDATE lab.membership SET role_id = 1; COMMIT;
BEGIN; INSERT INTO lab.membership (entity_type, entity_id, member_type, member, role_id) VALUES ('experiment', 1, 'project', '2', 0); COMMIT;
BEGIN; UPDATE lab.project SET title = 'visitors' WHERE title = 'guests'; COMMIT;
BEGIN; DELETE FROM lab.membership WHERE entity_type = 'experiment'; COMMIT;
BEGIN; DELETE FROM lab.membership; COMMIT;
