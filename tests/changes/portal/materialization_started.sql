-- What it is made of, and the model behind it, by way of its realization. No row says who asked.
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
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"sedge","s":"portal","t":"materializations","op":"INSERT"}');
INSERT INTO portal.materializations (pid, eid, rid, metal, vms, links) VALUES
    ('mesh', 'mesh8', 'one', '[{"facility": "hill", "resource": "m1"}]', '[{"vm_alloc": {"node": "b", "resource": "m2"}}, {"vm_alloc": {"node": "c", "resource": "m2"}}]', '[{"link": "lan0"}, {"link": "lan1"}]');
COMMIT;
BEGIN;
DELETE FROM portal.materializations;
COMMIT;
BEGIN;
INSERT INTO portal.materializations (pid, eid, rid, highest_status) VALUES ('mesh', 'mesh8', 'one', 'Success');
COMMIT;
