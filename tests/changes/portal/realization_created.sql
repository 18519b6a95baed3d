-- A realization that comes with its allocations, one that waits for its answer, and one that cannot be realized.
INSERT INTO portal.users (username, state, uid, gid) VALUES ('sedge', 'Active', 1, 1);
INSERT INTO portal.projects (name, gid, state) VALUES ('mesh', 1, 'Active');
INSERT INTO portal.experiments (project, name, creator) VALUES ('mesh', 'mesh8', 'sedge');
INSERT INTO portal.experiment_models (project, experiment, revision, model_file, in_progress, compiled) VALUES ('mesh', 'mesh8', 'c0ffee1', 'net = Network()', FALSE, TRUE);
-- when
BEGIN;
INSERT INTO portal.realizations (pid, eid, id, revision, creator, expires, complete, code, links) VALUES
    ('mesh', 'mesh8', 'one', 'c0ffee1', 'sedge', '2027-01-01 00:00+00', TRUE, 'Ok', '{"lan0": {"link": "lan0"}, "lan1": {"link": "lan1"}}');
INSERT INTO portal.allocations (pid, eid, rid, fid, resource, node, virt) VALUES
    ('mesh', 'mesh8', 'one', 'hill', 'm1', 'a', FALSE), ('mesh', 'mesh8', 'one', 'hill', 'm2', 'b', TRUE), ('mesh', 'mesh8', 'one', 'dale', 'm2', 'c', TRUE);
COMMIT;
BEGIN;
INSERT INTO portal.realizations (pid, eid, id, revision, creator) VALUES ('mesh', 'mesh8', 'two', 'c0ffee1', 'sedge');
INSERT INTO portal.allocations (pid, eid, rid, fid, resource, node, virt) VALUES ('mesh', 'mesh8', 'two', 'hill', 'm3', 'a', FALSE);
UPDATE portal.realizations SET code = 'Ok', complete = TRUE WHERE id = 'two';
COMMIT;
INSERT INTO portal.realizations (pid, eid, id, revision, creator, code, diagnostics) VALUES
    ('mesh', 'mesh8', 'three', 'c0ffee1', 'sedge', 'Unrealizable', '[{"level": "Error", "message": "no resource for node a"}, {"level": "Info", "message": "tried 3 facilities"}, {"level": "Error", "message": "no resource for node b"}]');
