-- Memberships: of an organization and a project that are not there, a role that does not exist, a removal that is taken back.
INSERT INTO portal.users (username, uid, gid) VALUES ('ada', 1, 1);
INSERT INTO portal.organizations (name, oid) VALUES ('atoms', 1);
INSERT INTO portal.organization_members (organization, kind, id, state) VALUES ('atoms', 'UserMember', 'ada', 'Active');
-- when
SET portal.caller = 'glawler'; INSERT INTO portal.organization_members (organization, kind, id) VALUES ('nowhere', 'UserMember', 'ada');
UPDATE portal.organization_members SET role = 'King';
BEGIN; DELETE FROM portal.organization_members; ROLLBACK;
INSERT INTO portal.project_members (project, username) VALUES ('nowhere', 'ada');
