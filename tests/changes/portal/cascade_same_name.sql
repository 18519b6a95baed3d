-- A user and the personal project of the same name, both members of an organization: each row goes with its own.
INSERT INTO portal.users (username, state, uid, gid) VALUES ('sedge', 'Active', 1, 1);
INSERT INTO portal.projects (name, gid, state) VALUES ('sedge', 1, 'Active');
INSERT INTO portal.organizations (name, oid, state) VALUES ('orgtest', 1, 'Active');
INSERT INTO portal.organization_members (organization, kind, id, state) VALUES ('orgtest', 'UserMember', 'sedge', 'Active'), ('orgtest', 'ProjectMember', 'sedge', 'Active');
-- when
BEGIN;
DELETE FROM portal.organization_members;
DELETE FROM portal.users;
COMMIT;
BEGIN;
INSERT INTO portal.organization_members (organization, kind, id, state) VALUES ('orgtest', 'ProjectMember', 'sedge', 'Active');
DELETE FROM portal.projects;
DELETE FROM portal.organization_members;
COMMIT;
