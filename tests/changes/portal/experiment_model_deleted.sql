-- The row is gone and was never whole in the log; the hash of its file is known all the same, and the file's last one. A revision that is pushed again without a file has none.
INSERT INTO portal.users (username, state, uid, gid) VALUES ('sedge', 'Active', 1, 1);
INSERT INTO portal.projects (name, gid, state) VALUES ('mesh', 1, 'Active');
INSERT INTO portal.experiments (project, name, creator) VALUES ('mesh', 'mesh8', 'sedge');
INSERT INTO portal.experiment_models (project, experiment, revision, model_file, in_progress, compiled) VALUES
    ('mesh', 'mesh8', 'c0ffee1', 'net = Network()', FALSE, TRUE);
-- when
BEGIN;
DELETE FROM portal.experiment_models WHERE revision = 'c0ffee1';
COMMIT;
BEGIN;
INSERT INTO portal.experiment_models (project, experiment, revision) VALUES ('mesh', 'mesh8', 'c0ffee1');
COMMIT;
BEGIN;
DELETE FROM portal.experiment_models WHERE revision = 'c0ffee1';
COMMIT;
