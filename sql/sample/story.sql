-- The story of `demo --once`: a testbed's first weeks in a few dozen transactions, each introduced by a line `-- step:`.
-- It needs an empty sample portal, or one with the history loaded: it uses nobody from there. Every event type of
-- merge-reference.toml occurs. The caller is set as a portal would set it, once a request; it reaches the audit log through
-- the context trigger, where that is attached.

-- step: the installer creates the first operator, opsdesk
BEGIN;
SET LOCAL portal.caller = 'installer';
INSERT INTO portal.users (username, name, state, uid, gid, admin, category) VALUES ('opsdesk', 'Operator on duty', 'Active', 900, 900, TRUE, 'Staff');
COMMIT;

-- step: glawler registers an account
BEGIN;
SET LOCAL portal.caller = 'glawler';
INSERT INTO portal.users (username, name, email, uid, gid, institution, category, country, usstate)
VALUES ('glawler', 'G. Lawler', 'glawler@sample.example', 901, 901, 'Sample Institute', 'Research Programmer', 'United States', 'California');
COMMIT;

-- step: glawler logs in for the first time, and the account now waits for an operator
BEGIN;
SET LOCAL portal.caller = 'glawler';
UPDATE portal.users SET state = 'Pending', ver = ver + 1 WHERE username = 'glawler';
COMMIT;

-- step: opsdesk activates glawler; the portal makes the personal project in the same transaction
BEGIN;
SET LOCAL portal.caller = 'opsdesk';
UPDATE portal.users SET state = 'Active', ver = ver + 1 WHERE username = 'glawler';
INSERT INTO portal.projects (name, description, gid, state, category) VALUES ('glawler', 'Personal project of glawler', 901, 'Active', 'Personal');
INSERT INTO portal.project_members (project, username, role) VALUES ('glawler', 'glawler', 'Creator');
COMMIT;

-- step: glawler creates the organization orgtest and becomes its first member
BEGIN;
SET LOCAL portal.caller = 'glawler';
INSERT INTO portal.organizations (name, description, oid, category, subcategory) VALUES ('orgtest', 'Trying out organizations', 910, 'Research group', 'Networking');
INSERT INTO portal.organization_members (organization, kind, id, role, state) VALUES ('orgtest', 'UserMember', 'glawler', 'Creator', 'Active');
COMMIT;

-- step: opsdesk activates orgtest
BEGIN;
SET LOCAL portal.caller = 'opsdesk';
UPDATE portal.organizations SET state = 'Active', ver = ver + 1 WHERE name = 'orgtest';
COMMIT;

-- step: testuser registers
BEGIN;
SET LOCAL portal.caller = 'testuser';
INSERT INTO portal.users (username, email, uid, gid, institution, category) VALUES ('testuser', 'testuser@sample.example', 902, 902, 'Sample Institute', 'Graduate student');
COMMIT;

-- step: so does junkmail7, whom nobody knows
BEGIN;
SET LOCAL portal.caller = 'junkmail7';
INSERT INTO portal.users (username, email, uid, gid) VALUES ('junkmail7', 'win@junkmail.example', 903, 903);
COMMIT;

-- step: opsdesk declines junkmail7: Merge has no state for that, the row goes
BEGIN;
SET LOCAL portal.caller = 'opsdesk';
DELETE FROM portal.users WHERE username = 'junkmail7';
COMMIT;

-- step: glawler adds testuser to orgtest
BEGIN;
SET LOCAL portal.caller = 'glawler';
INSERT INTO portal.organization_members (organization, kind, id, role, state) VALUES ('orgtest', 'UserMember', 'testuser', 'Member', 'Active');
COMMIT;

-- step: glawler creates testproject in orgtest
BEGIN;
SET LOCAL portal.caller = 'glawler';
INSERT INTO portal.projects (name, description, organization, gid, category, subcategory) VALUES ('testproject', 'Trying out projects', 'orgtest', 920, 'Research', 'Networking');
INSERT INTO portal.project_members (project, username, role) VALUES ('testproject', 'glawler', 'Creator');
COMMIT;

-- step: opsdesk activates testproject
BEGIN;
SET LOCAL portal.caller = 'opsdesk';
UPDATE portal.projects SET state = 'Active', ver = ver + 1 WHERE name = 'testproject';
COMMIT;

-- step: glawler adds testproject to orgtest
BEGIN;
SET LOCAL portal.caller = 'glawler';
INSERT INTO portal.organization_members (organization, kind, id, role, state) VALUES ('orgtest', 'ProjectMember', 'testproject', 'Member', 'Active');
COMMIT;

-- step: sedge registers and asks to join orgtest
BEGIN;
SET LOCAL portal.caller = 'sedge';
INSERT INTO portal.users (username, email, uid, gid, institution, category) VALUES ('sedge', 'sedge@sample.example', 904, 904, 'Sample Institute', 'Undergraduate student');
INSERT INTO portal.organization_members (organization, kind, id, role, state) VALUES ('orgtest', 'UserMember', 'sedge', 'Member', 'MemberRequested');
COMMIT;

-- step: glawler confirms sedge, which also activates the account: three tables, one transaction
BEGIN;
SET LOCAL portal.caller = 'glawler';
UPDATE portal.organization_members SET state = 'Active' WHERE organization = 'orgtest' AND kind = 'UserMember' AND id = 'sedge';
UPDATE portal.users SET state = 'Active', ver = ver + 1 WHERE username = 'sedge';
INSERT INTO portal.projects (name, description, gid, state, category) VALUES ('sedge', 'Personal project of sedge', 904, 'Active', 'Personal');
INSERT INTO portal.project_members (project, username, role) VALUES ('sedge', 'sedge', 'Creator');
COMMIT;

-- step: glawler makes sedge a maintainer of orgtest
BEGIN;
SET LOCAL portal.caller = 'glawler';
UPDATE portal.organization_members SET role = 'Maintainer' WHERE organization = 'orgtest' AND kind = 'UserMember' AND id = 'sedge';
COMMIT;

-- step: glawler describes orgtest better
BEGIN;
SET LOCAL portal.caller = 'glawler';
UPDATE portal.organizations SET description = 'Measurements of campus networks', subcategory = 'Measurement', ver = ver + 1 WHERE name = 'orgtest';
COMMIT;

-- step: glawler removes testproject from orgtest
BEGIN;
SET LOCAL portal.caller = 'glawler';
DELETE FROM portal.organization_members WHERE organization = 'orgtest' AND kind = 'ProjectMember' AND id = 'testproject';
COMMIT;

-- step: glawler removes testuser from orgtest
BEGIN;
SET LOCAL portal.caller = 'glawler';
DELETE FROM portal.organization_members WHERE organization = 'orgtest' AND kind = 'UserMember' AND id = 'testuser';
COMMIT;

-- step: a service creates testexp in glawler's project and says neither who asked nor who made it
BEGIN;
SET LOCAL portal.caller = '';
INSERT INTO portal.experiments (project, name, creator) VALUES ('glawler', 'testexp', '');
COMMIT;

-- step: glawler deletes testexp
BEGIN;
SET LOCAL portal.caller = 'glawler';
DELETE FROM portal.experiments WHERE project = 'glawler' AND name = 'testexp';
COMMIT;

-- step: glawler creates testexp again
BEGIN;
SET LOCAL portal.caller = 'glawler';
INSERT INTO portal.experiments (project, name, creator) VALUES ('glawler', 'testexp', 'glawler');
COMMIT;

-- step: glawler deletes testexp again
BEGIN;
SET LOCAL portal.caller = 'glawler';
DELETE FROM portal.experiments WHERE project = 'glawler' AND name = 'testexp';
COMMIT;

-- step: glawler invites sedge and testuser to testproject; they have yet to agree
BEGIN;
SET LOCAL portal.caller = 'glawler';
INSERT INTO portal.project_members (project, username, state) VALUES ('testproject', 'sedge', 'EntityRequested'), ('testproject', 'testuser', 'EntityRequested');
COMMIT;

-- step: sedge agrees
BEGIN;
SET LOCAL portal.caller = 'sedge';
UPDATE portal.project_members SET state = 'Active' WHERE project = 'testproject' AND username = 'sedge';
COMMIT;

-- step: glawler makes sedge a maintainer of testproject
BEGIN;
SET LOCAL portal.caller = 'glawler';
UPDATE portal.project_members SET role = 'Maintainer' WHERE project = 'testproject' AND username = 'sedge';
COMMIT;

-- step: testuser does not answer, and glawler withdraws the invitation
BEGIN;
SET LOCAL portal.caller = 'glawler';
DELETE FROM portal.project_members WHERE project = 'testproject' AND username = 'testuser';
COMMIT;

-- step: sedge creates the experiment meshrun in testproject
BEGIN;
SET LOCAL portal.caller = 'sedge';
INSERT INTO portal.experiments (project, name, description, creator) VALUES ('testproject', 'meshrun', 'Eight nodes, full mesh', 'sedge');
COMMIT;

-- step: sedge takes glawler on as maintainer of meshrun; a change to its creator does not survive the savepoint
BEGIN;
SET LOCAL portal.caller = 'sedge';
UPDATE portal.experiments SET maintainers = ARRAY['glawler'], ver = ver + 1 WHERE project = 'testproject' AND name = 'meshrun';
SAVEPOINT second_thoughts;
UPDATE portal.experiments SET creator = 'glawler', ver = ver + 1 WHERE project = 'testproject' AND name = 'meshrun';
ROLLBACK TO SAVEPOINT second_thoughts;
COMMIT;

-- step: opsdesk renames meshrun to mesh8 by hand, which the portal itself cannot do
BEGIN;
SET LOCAL portal.caller = 'opsdesk';
UPDATE portal.experiments SET name = 'mesh8' WHERE project = 'testproject' AND name = 'meshrun';
COMMIT;

-- step: sedge changes the description of testproject
BEGIN;
SET LOCAL portal.caller = 'sedge';
UPDATE portal.projects SET description = 'Latency of full meshes', ver = ver + 1 WHERE name = 'testproject';
COMMIT;

-- step: sedge is away for a while: glawler suspends both memberships
BEGIN;
SET LOCAL portal.caller = 'glawler';
UPDATE portal.organization_members SET state = 'Pending' WHERE organization = 'orgtest' AND kind = 'UserMember' AND id = 'sedge';
UPDATE portal.project_members SET state = 'Pending' WHERE project = 'testproject' AND username = 'sedge';
COMMIT;

-- step: an object mapper writes glawler's row back unchanged: no event
BEGIN;
SET LOCAL portal.caller = 'glawler';
UPDATE portal.users SET name = name, email = email, state = state WHERE username = 'glawler';
COMMIT;

-- step: glawler deletes orgtest, sees what would go with it, and rolls back: no event
BEGIN;
SET LOCAL portal.caller = 'glawler';
DELETE FROM portal.organizations WHERE name = 'orgtest';
ROLLBACK;

-- step: an abuse report comes in, and opsdesk freezes sedge, testproject and orgtest together
BEGIN;
SET LOCAL portal.caller = 'opsdesk';
UPDATE portal.users SET state = 'Frozen', ver = ver + 1 WHERE username = 'sedge';
UPDATE portal.projects SET state = 'Frozen', ver = ver + 1 WHERE name = 'testproject';
UPDATE portal.organizations SET state = 'Frozen', ver = ver + 1 WHERE name = 'orgtest';
COMMIT;

-- step: it was a false alarm, and opsdesk unfreezes all three
BEGIN;
SET LOCAL portal.caller = 'opsdesk';
UPDATE portal.users SET state = 'Active', ver = ver + 1 WHERE username = 'sedge';
UPDATE portal.projects SET state = 'Active', ver = ver + 1 WHERE name = 'testproject';
UPDATE portal.organizations SET state = 'Active', ver = ver + 1 WHERE name = 'orgtest';
COMMIT;

-- step: sedge has moved to another institution
BEGIN;
SET LOCAL portal.caller = 'sedge';
UPDATE portal.users SET institution = 'Example State University', email = 'sedge@state.example', ver = ver + 1 WHERE username = 'sedge';
COMMIT;

-- step: opsdesk imports a course: the organization, its twelve students and their memberships, in three statements
BEGIN;
SET LOCAL portal.caller = 'opsdesk';
INSERT INTO portal.organizations (name, description, oid, state, category, subcategory) VALUES ('cs900', 'Networks laboratory', 911, 'Active', 'Class', 'Undergraduate');
INSERT INTO portal.users (username, email, state, uid, gid, institution, category)
SELECT 'cs900s' || n, 'cs900s' || n || '@sample.example', 'Active', 950 + n, 950 + n, 'Sample Institute', 'Undergraduate student' FROM generate_series(1, 12) AS n;
INSERT INTO portal.organization_members (organization, kind, id, role, state)
SELECT 'cs900', 'UserMember', username, 'Member', 'Active' FROM portal.users WHERE username LIKE 'cs900s%';
COMMIT;

-- step: opsdesk sets orgtest and testproject back to pending, for their yearly review
BEGIN;
SET LOCAL portal.caller = 'opsdesk';
UPDATE portal.organizations SET state = 'Pending', ver = ver + 1 WHERE name = 'orgtest';
UPDATE portal.projects SET state = 'Pending', ver = ver + 1 WHERE name = 'testproject';
COMMIT;

-- step: both pass the review
BEGIN;
SET LOCAL portal.caller = 'opsdesk';
UPDATE portal.organizations SET state = 'Active', ver = ver + 1 WHERE name = 'orgtest';
UPDATE portal.projects SET state = 'Active', ver = ver + 1 WHERE name = 'testproject';
COMMIT;

-- step: opsdesk enters a user, a project and an organization by hand, and mistypes all three names
BEGIN;
SET LOCAL portal.caller = 'opsdesk';
INSERT INTO portal.users (username, uid, gid, category) VALUES ('gesut', 905, 905, 'Faculty');
INSERT INTO portal.projects (name, description, gid, category) VALUES ('porbe', 'Probes of guests', 921, 'Research');
INSERT INTO portal.organizations (name, description, oid, category) VALUES ('visotrs', 'Visitors of the testbed', 912, 'Research group');
COMMIT;

-- step: opsdesk corrects the names
BEGIN;
SET LOCAL portal.caller = 'opsdesk';
UPDATE portal.users SET username = 'guest' WHERE username = 'gesut';
UPDATE portal.projects SET name = 'probe' WHERE name = 'porbe';
UPDATE portal.organizations SET name = 'visitors' WHERE name = 'visotrs';
COMMIT;

-- step: the visit is off, and opsdesk declines project and organization, which were never active
BEGIN;
SET LOCAL portal.caller = 'opsdesk';
DELETE FROM portal.projects WHERE name = 'probe';
DELETE FROM portal.organizations WHERE name = 'visitors';
COMMIT;

-- step: glawler deletes testproject: its experiment and its members go with it
BEGIN;
SET LOCAL portal.caller = 'glawler';
DELETE FROM portal.projects WHERE name = 'testproject';
COMMIT;

-- step: opsdesk deletes sedge: the personal project stays, the membership in it goes
BEGIN;
SET LOCAL portal.caller = 'opsdesk';
DELETE FROM portal.users WHERE username = 'sedge';
COMMIT;

-- step: glawler deletes orgtest: the members that are left go with it, and the story ends
BEGIN;
SET LOCAL portal.caller = 'glawler';
DELETE FROM portal.organizations WHERE name = 'orgtest';
COMMIT;
