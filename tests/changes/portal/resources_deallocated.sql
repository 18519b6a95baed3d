-- A part that is given back alone, and all of it while the realization stays.
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
DELETE FROM portal.allocations WHERE resource = 'm2';
COMMIT;
BEGIN;
DELETE FROM portal.allocations;
COMMIT;
BEGIN;
-- Swapped: given back and taken anew in one transaction.
INSERT INTO portal.allocations (pid, eid, rid, fid, resource, node, virt) VALUES ('mesh', 'mesh8', 'one', 'hill', 'm1', 'a', FALSE);
DELETE FROM portal.allocations WHERE resource = 'm1';
INSERT INTO portal.allocations (pid, eid, rid, fid, resource, node, virt) VALUES ('mesh', 'mesh8', 'one', 'hill', 'm3', 'a', FALSE);
COMMIT;
