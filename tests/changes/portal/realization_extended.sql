-- An end that moves, one that is set and one that is taken away. The row's old end is not in the log. A write of the same end is no event.
INSERT INTO portal.users (username, state, uid, gid) VALUES ('sedge', 'Active', 1, 1);
INSERT INTO portal.projects (name, gid, state) VALUES ('mesh', 1, 'Active');
INSERT INTO portal.experiments (project, name, creator) VALUES ('mesh', 'mesh8', 'sedge');
INSERT INTO portal.experiment_models (project, experiment, revision, model_file, in_progress, compiled) VALUES
    ('mesh', 'mesh8', 'c0ffee1', 'net = Network()', FALSE, TRUE);
INSERT INTO portal.realizations (pid, eid, id, revision, creator, expires, complete, code, links) VALUES
    ('mesh', 'mesh8', 'one', 'c0ffee1', 'sedge', '2099-01-01 00:00+00', TRUE, 'Ok', '{"lan0": {"link": "lan0"}, "lan1": {"link": "lan1"}}');
INSERT INTO portal.allocations (pid, eid, rid, fid, resource, node, virt) VALUES
    ('mesh', 'mesh8', 'one', 'hill', 'm1', 'a', FALSE), ('mesh', 'mesh8', 'one', 'hill', 'm2', 'b', TRUE), ('mesh', 'mesh8', 'one', 'dale', 'm2', 'c', TRUE);
-- when
BEGIN;
UPDATE portal.realizations SET expires = '2099-02-01 00:00+00', ver = ver + 1 WHERE id = 'one';
COMMIT;
BEGIN;
UPDATE portal.realizations SET expires = '2099-02-01 00:00+00', ver = ver + 1 WHERE id = 'one';
COMMIT;
BEGIN;
UPDATE portal.realizations SET expires = NULL WHERE id = 'one';
COMMIT;
BEGIN;
UPDATE portal.realizations SET expires = '2099-03-01 12:30+02' WHERE id = 'one';
COMMIT;
BEGIN;
-- Twice in one transaction: the second is from the first's.
UPDATE portal.realizations SET expires = '2099-04-01 00:00+00' WHERE id = 'one';
UPDATE portal.realizations SET expires = '2099-05-01 00:00+00' WHERE id = 'one';
COMMIT;
