-- Values stored out of line that an UPDATE does not touch are not sent. The lists of names are known all the same; the messages are not, which is flagged.
-- unproven: the journal has the whole rows, and cannot know which values the server sent.
INSERT INTO portal.users (username, state, uid, gid) VALUES ('sedge', 'Active', 1, 1);
INSERT INTO portal.projects (name, gid, state) VALUES ('mesh', 1, 'Active');
INSERT INTO portal.experiments (project, name, creator) VALUES ('mesh', 'mesh8', 'sedge');
INSERT INTO portal.experiment_models (project, experiment, revision, model_file, in_progress, compiled) VALUES
    ('mesh', 'mesh8', 'c0ffee1', 'net = Network()', FALSE, TRUE);
INSERT INTO portal.realizations (pid, eid, id, revision, creator, links, diagnostics)
SELECT 'mesh', 'mesh8', 'one', 'c0ffee1', 'sedge', jsonb_object_agg('l' || n, jsonb_build_object('link', 'l' || n, 'segments', md5(n::text) || md5((n + 1)::text))), jsonb_agg(jsonb_build_object('level', 'Error', 'message', md5(n::text) || md5((n + 1)::text)))
FROM generate_series(1, 100) AS n;
INSERT INTO portal.materializations (pid, eid, rid, metal, vms)
SELECT 'mesh', 'mesh8', 'one', jsonb_agg(jsonb_build_object('resource', 'm' || n, 'inframac', md5(n::text) || md5((n + 1)::text))) FILTER (WHERE n <= 30), jsonb_agg(jsonb_build_object('vm_alloc', jsonb_build_object('node', 'n' || n, 'uuid', md5(n::text) || md5((n + 1)::text))))
FROM generate_series(1, 100) AS n;
-- when
BEGIN;
UPDATE portal.realizations SET code = 'Ok';
COMMIT;
BEGIN;
UPDATE portal.realizations SET code = 'Unrealizable';
COMMIT;
BEGIN;
UPDATE portal.materializations SET highest_status = 'Success';
COMMIT;
BEGIN;
DELETE FROM portal.materializations;
COMMIT;
BEGIN;
DELETE FROM portal.realizations;
COMMIT;
