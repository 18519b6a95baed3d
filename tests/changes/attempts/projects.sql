-- Projects: a creation in an organization that is not there, and a deletion that is taken back with all that would have gone.
INSERT INTO portal.users (username, uid, gid) VALUES ('ada', 1, 1);
INSERT INTO portal.projects (name, gid) VALUES ('mesh', 1);
INSERT INTO portal.project_members (project, username) VALUES ('mesh', 'ada');
-- when
INSERT INTO portal.projects (name, organization, gid) VALUES ('lost', 'nowhere', 2);
BEGIN; DELETE FROM portal.projects WHERE name = 'mesh'; ROLLBACK;
