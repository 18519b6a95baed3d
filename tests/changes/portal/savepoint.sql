-- What a savepoint takes back never was: the first membership, the update released into b, the deletion with its cascade, and the
-- context that named nobody. The last membership is released and stays.
INSERT INTO portal.users (username, state, uid, gid, institution, category) VALUES
    ('wrenn', 'Pending', 1001, 1001, 'Sample Institute', 'Graduate student');
INSERT INTO portal.projects (name, state, gid, organization, category, subcategory, description) VALUES
    ('testproject', 'Active', 3001, NULL, 'Research', 'Security', 'Project 1');
-- when
BEGIN;
UPDATE portal.users SET state = 'Active', ver = ver + 1 WHERE username = 'wrenn';
SAVEPOINT a;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"nobody","s":"portal","t":"project_members","op":"INSERT"}');
INSERT INTO portal.project_members (project, username, role, state) VALUES
    ('testproject', 'wrenn', 'Creator', 'Active');
INSERT INTO portal.experiments (project, name, creator) VALUES
    ('testproject', 'never', 'wrenn');
ROLLBACK TO SAVEPOINT a;
INSERT INTO portal.experiments (project, name, creator) VALUES
    ('testproject', 'kept', 'wrenn');
SAVEPOINT b;
SAVEPOINT c;
UPDATE portal.experiments SET description = 'Never seen' WHERE name = 'kept';
RELEASE SAVEPOINT c;
DELETE FROM portal.projects WHERE name = 'testproject';
ROLLBACK TO SAVEPOINT b;
SAVEPOINT d;
INSERT INTO portal.project_members (project, username, role, state) VALUES
    ('testproject', 'wrenn', 'Member', 'Active');
RELEASE SAVEPOINT d;
COMMIT;
