-- A short model stands in the event, one over 64 KiB as its hash. A model that lives in git alone has no file here. One that comes compiled is told twice, as what it is.
INSERT INTO portal.users (username, state, uid, gid) VALUES ('sedge', 'Active', 1, 1);
INSERT INTO portal.projects (name, gid, state) VALUES ('mesh', 1, 'Active');
INSERT INTO portal.experiments (project, name, creator) VALUES ('mesh', 'mesh8', 'sedge');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"sedge","s":"portal","t":"experiment_models","op":"INSERT"}');
INSERT INTO portal.experiment_models (project, experiment, revision, branch, tag, model_file) VALUES ('mesh', 'mesh8', 'c0ffee1', 'main', 'v1', E'from mergexp import *\nnet = Network("größer")');
COMMIT;
BEGIN;
INSERT INTO portal.experiment_models (project, experiment, revision, branch, model_file) VALUES ('mesh', 'mesh8', 'c0ffee2', 'main', repeat('net.connect() # ', 5000));
COMMIT;
BEGIN;
INSERT INTO portal.experiment_models (project, experiment, revision, tag) VALUES ('mesh', 'mesh8', 'c0ffee3', 'v3');
COMMIT;
BEGIN;
INSERT INTO portal.experiment_models (project, experiment, revision, model_file, in_progress, compiled) VALUES ('mesh', 'mesh8', 'c0ffee4', 'net = Network()', FALSE, TRUE);
COMMIT;
