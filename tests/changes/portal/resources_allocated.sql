-- Resources that come after their realization, in a transaction of their own; each once, several realizations apart.
INSERT INTO portal.users (username, state, uid, gid) VALUES ('sedge', 'Active', 1, 1);
INSERT INTO portal.projects (name, gid, state) VALUES ('mesh', 1, 'Active');
INSERT INTO portal.experiments (project, name, creator) VALUES ('mesh', 'mesh8', 'sedge');
INSERT INTO portal.experiment_models (project, experiment, revision, model_file, in_progress, compiled) VALUES
    ('mesh', 'mesh8', 'c0ffee1', 'net = Network()', FALSE, TRUE);
INSERT INTO portal.realizations (pid, eid, id, revision, creator, expires, complete, code, links) VALUES
    ('mesh', 'mesh8', 'one', 'c0ffee1', 'sedge', '2099-01-01 00:00+00', TRUE, 'Ok', '{"lan0": {"link": "lan0"}, "lan1": {"link": "lan1"}}');
INSERT INTO portal.allocations (pid, eid, rid, fid, resource, node, virt) VALUES
    ('mesh', 'mesh8', 'one', 'hill', 'm1', 'a', FALSE), ('mesh', 'mesh8', 'one', 'hill', 'm2', 'b', TRUE), ('mesh', 'mesh8', 'one', 'dale', 'm2', 'c', TRUE);
INSERT INTO portal.realizations (pid, eid, id, creator) VALUES ('mesh', 'mesh8', 'two', 'sedge');
-- when
BEGIN;
INSERT INTO portal.allocations (pid, eid, rid, fid, resource, node, virt) VALUES
    ('mesh', 'mesh8', 'one', 'hill', 'm7', 'd', FALSE), ('mesh', 'mesh8', 'two', 'dale', 'm8', 'a', TRUE), ('mesh', 'mesh8', 'one', 'dale', 'm7', 'e', TRUE);
COMMIT;
BEGIN;
UPDATE portal.allocations SET cores_used = 4, memory_used = 1024;
COMMIT;
BEGIN;
-- Of a realization that is answered in the same transaction: told by that.
INSERT INTO portal.allocations (pid, eid, rid, fid, resource, node, virt) VALUES ('mesh', 'mesh8', 'two', 'hill', 'm5', 'f', FALSE);
UPDATE portal.realizations SET code = 'Ok' WHERE id = 'two';
COMMIT;
