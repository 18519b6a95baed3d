-- A realization that waits for its answer. One without a revision has no model, not even that of a former realization of the same name.
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
INSERT INTO portal.realizations (pid, eid, id, revision, creator, expires) VALUES ('mesh', 'mesh8', 'two', 'c0ffee1', 'sedge', '2099-01-02 03:04:05.678+02');
COMMIT;
BEGIN;
INSERT INTO portal.realizations (pid, eid, id, tag, creator) VALUES ('mesh', 'mesh8', 'three', 'v1', '');
COMMIT;
BEGIN;
UPDATE portal.realizations SET ver = ver + 1, xhash = 'x' WHERE id = 'two';
COMMIT;
BEGIN;
DELETE FROM portal.realizations WHERE id = 'one';
COMMIT;
BEGIN;
INSERT INTO portal.realizations (pid, eid, id, branch, creator) VALUES ('mesh', 'mesh8', 'one', 'main', 'sedge');
INSERT INTO portal.materializations (pid, eid, rid) VALUES ('mesh', 'mesh8', 'one');
COMMIT;
