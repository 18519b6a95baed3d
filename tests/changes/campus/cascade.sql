-- An organization is deleted, and by foreign keys all that belongs to it; then a project marked, and one deleted child by child.
INSERT INTO people.account (id, login) VALUES ('00000000-0000-0000-0000-000000000002', 'sedge');
INSERT INTO lab.organization (title, members) VALUES ('orgtest', '{"sedge": {"role": "Creator", "state": "Active"}}');
INSERT INTO lab.project (title, organization_id) VALUES ('mesh', 1), ('alone', NULL), ('marked', NULL);
INSERT INTO lab.experiment (project_id, title, owner_id) VALUES (1, 'mesh8', '00000000-0000-0000-0000-000000000002'), (2, 'solo', '00000000-0000-0000-0000-000000000002');
INSERT INTO lab.run (id, site, experiment_id) VALUES (1, 'east', 1), (2, 'west', 2);
-- when
BEGIN; DELETE FROM lab.organization; COMMIT;
BEGIN; UPDATE lab.project SET is_deleted = TRUE WHERE title = 'marked'; COMMIT;
BEGIN; DELETE FROM lab.project WHERE is_deleted; COMMIT;
BEGIN; DELETE FROM lab.run; DELETE FROM lab.experiment; DELETE FROM lab.project; COMMIT;
