-- Given up before its end, and one that never ends: what they held and which links they had is told although neither row is in the log whole.
INSERT INTO portal.users (username, state, uid, gid) VALUES ('sedge', 'Active', 1, 1);
INSERT INTO portal.projects (name, gid, state) VALUES ('mesh', 1, 'Active');
INSERT INTO portal.experiments (project, name, creator) VALUES ('mesh', 'mesh8', 'sedge');
INSERT INTO portal.experiment_models (project, experiment, revision, model_file, in_progress, compiled) VALUES
    ('mesh', 'mesh8', 'c0ffee1', 'net = Network()', FALSE, TRUE);
INSERT INTO portal.realizations (pid, eid, id, revision, creator, expires, complete, code, links) VALUES
    ('mesh', 'mesh8', 'one', 'c0ffee1', 'sedge', '2099-01-01 00:00+00', TRUE, 'Ok', '{"lan0": {"link": "lan0"}, "lan1": {"link": "lan1"}}');
INSERT INTO portal.allocations (pid, eid, rid, fid, resource, node, virt) VALUES
    ('mesh', 'mesh8', 'one', 'hill', 'm1', 'a', FALSE), ('mesh', 'mesh8', 'one', 'hill', 'm2', 'b', TRUE), ('mesh', 'mesh8', 'one', 'dale', 'm2', 'c', TRUE);
INSERT INTO portal.realizations (pid, eid, id, creator, code, links) VALUES
    ('mesh', 'mesh8', 'two', 'sedge', 'Ok', (SELECT jsonb_object_agg('link' || n, jsonb_build_object('link', 'link' || n)) FROM generate_series(1, 2000) AS n));
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"sedge","s":"portal","t":"realizations","op":"DELETE"}');
DELETE FROM portal.realizations WHERE id = 'one';
COMMIT;
BEGIN;
DELETE FROM portal.realizations WHERE id = 'two';
COMMIT;
BEGIN;
-- Made and given up at once.
INSERT INTO portal.realizations (pid, eid, id, creator, code, links) VALUES ('mesh', 'mesh8', 'three', 'sedge', 'Ok', '{"x": {"link": "x"}}');
INSERT INTO portal.allocations (pid, eid, rid, fid, resource, node, virt) VALUES ('mesh', 'mesh8', 'three', 'hill', 'm9', 'z', FALSE);
DELETE FROM portal.realizations WHERE id = 'three';
COMMIT;
