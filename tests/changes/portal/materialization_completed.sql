-- Steps are no events, the end of the tasks is one: with the errors if it failed, and again if it was tried again.
INSERT INTO portal.users (username, state, uid, gid) VALUES ('sedge', 'Active', 1, 1);
INSERT INTO portal.projects (name, gid, state) VALUES ('mesh', 1, 'Active');
INSERT INTO portal.experiments (project, name, creator) VALUES ('mesh', 'mesh8', 'sedge');
INSERT INTO portal.experiment_models (project, experiment, revision, model_file, in_progress, compiled) VALUES
    ('mesh', 'mesh8', 'c0ffee1', 'net = Network()', FALSE, TRUE);
INSERT INTO portal.realizations (pid, eid, id, revision, creator, expires, complete, code, links) VALUES
    ('mesh', 'mesh8', 'one', 'c0ffee1', 'sedge', '2099-01-01 00:00+00', TRUE, 'Ok', '{"lan0": {"link": "lan0"}, "lan1": {"link": "lan1"}}');
INSERT INTO portal.allocations (pid, eid, rid, fid, resource, node, virt) VALUES
    ('mesh', 'mesh8', 'one', 'hill', 'm1', 'a', FALSE), ('mesh', 'mesh8', 'one', 'hill', 'm2', 'b', TRUE), ('mesh', 'mesh8', 'one', 'dale', 'm2', 'c', TRUE);
INSERT INTO portal.materializations (pid, eid, rid, metal, vms, links) VALUES
    ('mesh', 'mesh8', 'one', '[{"facility": "hill", "resource": "m1"}]', '[{"vm_alloc": {"node": "b", "resource": "m2"}}, {"vm_alloc": {"node": "c", "resource": "m2"}}]', '[{"link": "lan0"}, {"link": "lan1"}]');
-- when
BEGIN;
UPDATE portal.materializations SET highest_status = 'Processing', last_updated = now();
COMMIT;
BEGIN;
UPDATE portal.materializations SET highest_status = 'Error', messages = '[{"level": "Info", "message": "imaging m1"}, {"level": "Error", "message": "m1 does not boot"}, {"level": "Error", "message": "m2: no route"}]', last_updated = now();
COMMIT;
BEGIN;
UPDATE portal.materializations SET last_updated = now();
COMMIT;
BEGIN;
UPDATE portal.materializations SET highest_status = 'Processing', messages = '[]';
COMMIT;
BEGIN;
UPDATE portal.materializations SET highest_status = 'Success';
COMMIT;
BEGIN;
UPDATE portal.materializations SET highest_status = 'Success', messages = '[{"level": "Error", "message": "late"}]';
COMMIT;
BEGIN;
UPDATE portal.materializations SET highest_status = 'Error';
COMMIT;
