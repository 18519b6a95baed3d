-- The verdict comes in an UPDATE that does not carry the file, which is stored out of line here; the hash says which model it was. A note on the way is no verdict.
INSERT INTO portal.users (username, state, uid, gid) VALUES ('sedge', 'Active', 1, 1);
INSERT INTO portal.projects (name, gid, state) VALUES ('mesh', 1, 'Active');
INSERT INTO portal.experiments (project, name, creator) VALUES ('mesh', 'mesh8', 'sedge');
INSERT INTO portal.experiment_models (project, experiment, revision, model_file) VALUES
    ('mesh', 'mesh8', 'c0ffee1', (SELECT string_agg(md5(n::text), '') FROM generate_series(1, 500) AS n)),
    ('mesh', 'mesh8', 'c0ffee2', 'net = Netwrok()'), ('mesh', 'mesh8', 'c0ffee3', NULL);
-- when
BEGIN;
UPDATE portal.experiment_models SET msg = 'reading' WHERE revision = 'c0ffee1';
COMMIT;
BEGIN;
UPDATE portal.experiment_models SET in_progress = FALSE, compiled = TRUE, msg = '', compile_time = '2026-11-22 00:00+00' WHERE revision = 'c0ffee1';
COMMIT;
BEGIN;
UPDATE portal.experiment_models SET in_progress = FALSE, msg = E'line 1: name ''Netwrok'' is not defined\nline 2: did you mean "Network"?' WHERE revision = 'c0ffee2';
COMMIT;
BEGIN;
UPDATE portal.experiment_models SET in_progress = FALSE WHERE revision = 'c0ffee3';
COMMIT;
BEGIN;
UPDATE portal.experiment_models SET in_progress = TRUE, msg = '' WHERE revision = 'c0ffee2';
COMMIT;
BEGIN;
UPDATE portal.experiment_models SET in_progress = FALSE, model_file = 'net = Network()', compiled = TRUE WHERE revision = 'c0ffee2';
COMMIT;
