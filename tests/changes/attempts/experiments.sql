-- Experiments: a creation whose name is taken, a push of a model that is there, a deletion that is taken back; realizing and materializing what is not there.
INSERT INTO portal.projects (name, gid) VALUES ('mesh', 1);
INSERT INTO portal.experiments (project, name, creator) VALUES ('mesh', 'mesh8', 'ada');
INSERT INTO portal.experiment_models (project, experiment, revision) VALUES ('mesh', 'mesh8', 'c0ffee1');
-- when
INSERT INTO portal.experiments (project, name, creator) VALUES ('mesh', 'mesh8', 'ada');
INSERT INTO portal.experiment_models (project, experiment, revision) VALUES ('mesh', 'mesh8', 'c0ffee1');
BEGIN; DELETE FROM portal.experiments; ROLLBACK;
INSERT INTO portal.realizations (pid, eid, id, creator) VALUES ('mesh', 'nowhere', 'one', 'ada');
INSERT INTO portal.materializations (pid, eid, rid) VALUES ('mesh', 'mesh8', 'nothing');
