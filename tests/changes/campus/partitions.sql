-- Runs lie in partitions: one that moves to another site is the same run; one that is deleted beside a new one is not.
INSERT INTO people.account (id, login) VALUES ('00000000-0000-0000-0000-000000000002', 'sedge');
INSERT INTO lab.project (title) VALUES ('mesh');
INSERT INTO lab.experiment (project_id, title, owner_id) VALUES (1, 'mesh8', '00000000-0000-0000-0000-000000000002');
-- when
BEGIN; INSERT INTO lab.run (id, site, experiment_id) VALUES (1, 'east', 1), (2, 'west', 1); COMMIT;
BEGIN; UPDATE lab.run SET status = 2 WHERE id = 1; COMMIT;
BEGIN; UPDATE lab.run SET status = 3, reason = 'node a did not boot' WHERE id = 2; COMMIT;
BEGIN; UPDATE lab.run SET site = CASE site WHEN 'east' THEN 'west' ELSE 'east' END; COMMIT;
BEGIN; DELETE FROM lab.run WHERE id = 1; INSERT INTO lab.run (id, site, experiment_id) VALUES (3, 'east', 1); COMMIT;
