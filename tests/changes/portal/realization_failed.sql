-- Every way not to succeed, with the messages of level Error: some, none, and more than a message may be long. Links and diagnostics are large, and are sent because the answer writes them.
INSERT INTO portal.users (username, state, uid, gid) VALUES ('sedge', 'Active', 1, 1);
INSERT INTO portal.projects (name, gid, state) VALUES ('mesh', 1, 'Active');
INSERT INTO portal.experiments (project, name, creator) VALUES ('mesh', 'mesh8', 'sedge');
INSERT INTO portal.experiment_models (project, experiment, revision, model_file, in_progress, compiled) VALUES
    ('mesh', 'mesh8', 'c0ffee1', 'net = Network()', FALSE, TRUE);
INSERT INTO portal.realizations (pid, eid, id, revision, creator) VALUES ('mesh', 'mesh8', 'one', 'c0ffee1', 'sedge'), ('mesh', 'mesh8', 'big', 'c0ffee1', 'sedge');
-- when
BEGIN;
UPDATE portal.realizations SET code = 'BadXir', complete = TRUE, diagnostics = '[{"level": "Warning", "message": "deprecated"}, {"level": "Error", "message": "node a has no image"}, {"level": "Error", "message": "node b: \"x\"\nsecond line", "guest": "b"}, {"level": "Error"}]' WHERE id = 'one';
COMMIT;
BEGIN;
UPDATE portal.realizations SET code = 'InternalError', diagnostics = '[]' WHERE id = 'one';
COMMIT;
BEGIN;
-- Tried again, and well.
UPDATE portal.realizations SET code = 'Ok', diagnostics = '[{"level": "Error", "message": "of no weight"}]' WHERE id = 'one';
COMMIT;
BEGIN;
UPDATE portal.realizations SET code = 'Unrealizable',
    diagnostics = (SELECT jsonb_agg(jsonb_build_object('level', 'Error', 'message', md5(n::text) || md5((n + 1)::text))) FROM generate_series(1, 900) AS n) || (SELECT jsonb_agg(jsonb_build_object('level', 'Error', 'message', repeat(n::text, 2000))) FROM generate_series(1, 9) AS n),
    links = (SELECT jsonb_object_agg('l' || n, jsonb_build_object('link', 'l' || n, 'segments', md5(n::text))) FROM generate_series(1, 30) AS n)
WHERE id = 'big';
COMMIT;
BEGIN;
INSERT INTO portal.realizations (pid, eid, id, creator, code) VALUES ('mesh', 'mesh8', 'two', 'sedge', 'InternalError');
COMMIT;
