-- Deleted after its end, by whatever cleans up; the end was moved before, and the last one counts.
INSERT INTO portal.users (username, state, uid, gid) VALUES ('sedge', 'Active', 1, 1);
INSERT INTO portal.projects (name, gid, state) VALUES ('mesh', 1, 'Active');
INSERT INTO portal.experiments (project, name, creator) VALUES ('mesh', 'mesh8', 'sedge');
INSERT INTO portal.experiment_models (project, experiment, revision, model_file, in_progress, compiled) VALUES
    ('mesh', 'mesh8', 'c0ffee1', 'net = Network()', FALSE, TRUE);
INSERT INTO portal.realizations (pid, eid, id, revision, creator, expires, complete, code, links) VALUES
    ('mesh', 'mesh8', 'one', 'c0ffee1', 'sedge', '2099-01-01 00:00+00', TRUE, 'Ok', '{"lan0": {"link": "lan0"}, "lan1": {"link": "lan1"}}');
INSERT INTO portal.allocations (pid, eid, rid, fid, resource, node, virt) VALUES
    ('mesh', 'mesh8', 'one', 'hill', 'm1', 'a', FALSE), ('mesh', 'mesh8', 'one', 'hill', 'm2', 'b', TRUE), ('mesh', 'mesh8', 'one', 'dale', 'm2', 'c', TRUE);
INSERT INTO portal.realizations (pid, eid, id, creator, expires) VALUES ('mesh', 'mesh8', 'two', 'sedge', '2020-01-01 00:00+00');
INSERT INTO portal.materializations (pid, eid, rid) VALUES ('mesh', 'mesh8', 'one');
-- when
BEGIN;
UPDATE portal.realizations SET expires = '2020-06-01 00:00+00' WHERE id = 'one';
COMMIT;
BEGIN;
UPDATE portal.realizations SET expires = '2099-06-01 00:00+00' WHERE id = 'two';
COMMIT;
BEGIN;
DELETE FROM portal.realizations WHERE expires < now();
COMMIT;
BEGIN;
DELETE FROM portal.realizations;
COMMIT;
