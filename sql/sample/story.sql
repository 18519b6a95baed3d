-- The story of `demo --once`: a testbed's first weeks in some eighty transactions, each introduced by a line `-- step:`.
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

-- step: opsdesk registers the facility hillside with the machines in it, and one more at the coast
BEGIN;
SET LOCAL portal.caller = 'opsdesk';
INSERT INTO portal.facilities (name, address, description, certificate, cacertificate) VALUES ('hillside', 'hillside.example', 'Forty machines and a few radios', 'a certificate', 'another');
INSERT INTO portal.facility_members (facility, username, role) VALUES ('hillside', 'opsdesk', 'Creator');
INSERT INTO portal.facility_resources (facility, resource, roles) SELECT 'hillside', 'm' || n, ARRAY['TbNode'] FROM generate_series(1, 8) AS n;
INSERT INTO portal.facilities (name, address) VALUES ('coast', 'coast.example');
COMMIT;

-- step: opsdesk makes glawler a member of hillside, then a maintainer
BEGIN;
SET LOCAL portal.caller = 'opsdesk';
INSERT INTO portal.facility_members (facility, username) VALUES ('hillside', 'glawler');
UPDATE portal.facility_members SET role = 'Maintainer' WHERE facility = 'hillside' AND username = 'glawler';
COMMIT;

-- step: glawler takes four machines of hillside out of service
BEGIN;
SET LOCAL portal.caller = 'glawler';
UPDATE portal.facility_resources SET active = FALSE WHERE facility = 'hillside' AND resource IN ('m5', 'm6', 'm7', 'm8');
COMMIT;

-- step: two of them are mended, one is given away, and its place is described anew
BEGIN;
SET LOCAL portal.caller = 'glawler';
UPDATE portal.facility_resources SET active = TRUE WHERE facility = 'hillside' AND resource IN ('m5', 'm6');
DELETE FROM portal.facility_resources WHERE facility = 'hillside' AND resource = 'm8';
UPDATE portal.facilities SET description = 'Thirty-nine machines and a few radios', ver = ver + 1 WHERE name = 'hillside';
COMMIT;

-- step: hillside renews its certificate, as it does each week: no event
BEGIN;
SET LOCAL portal.caller = '';
UPDATE portal.facilities SET certificate = 'a newer certificate', ver = ver + 1 WHERE name = 'hillside';
COMMIT;

-- step: opsdesk makes a pool of hillside for the class cs900 and lets testproject use it
BEGIN;
SET LOCAL portal.caller = 'opsdesk';
INSERT INTO portal.pools (name, description, creator, priority, projects, facilities) VALUES ('teaching', 'Machines for courses', 'opsdesk', 10, ARRAY['glawler'], '{"hillside": {"resources": ["m1", "m2", "m3"]}}');
UPDATE portal.pools SET projects = ARRAY['glawler', 'testproject'], organizations = ARRAY['cs900'], ver = ver + 1 WHERE name = 'teaching';
COMMIT;

-- step: sedge adds a public key and creates an API token for a nightly job
BEGIN;
SET LOCAL portal.caller = 'sedge';
INSERT INTO portal.public_keys (username, fingerprint, key) VALUES ('sedge', 'SHA256:4NqvV0', 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 sedge'), ('sedge', 'SHA256:9TrbK2', 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE6 sedge');
INSERT INTO portal.api_tokens (id, username, description, token_hash, expires) VALUES ('7d444840-9dc0-41e2-8a71-0e0a3f7a1c01', 'sedge', 'nightly job', 'not a real hash', now() + INTERVAL '90 days');
COMMIT;

-- step: the nightly job uses the token: no event
BEGIN;
SET LOCAL portal.caller = '';
UPDATE portal.api_tokens SET last_used = now() WHERE username = 'sedge';
COMMIT;

-- step: sedge pushes a first model of mesh8
BEGIN;
SET LOCAL portal.caller = 'sedge';
INSERT INTO portal.experiment_models (project, experiment, revision, branch, model_file) VALUES ('testproject', 'mesh8', '1f0c9a7', 'main', E'from mergexp import *\nnet = Netwrok("mesh8")\n');
COMMIT;

-- step: it does not compile
BEGIN;
SET LOCAL portal.caller = '';
UPDATE portal.experiment_models SET in_progress = FALSE, compiled = FALSE, msg = 'line 2: name ''Netwrok'' is not defined', compile_time = now() WHERE revision = '1f0c9a7';
COMMIT;

-- step: sedge corrects it and pushes again
BEGIN;
SET LOCAL portal.caller = 'sedge';
INSERT INTO portal.experiment_models (project, experiment, revision, branch, tag, model_file) VALUES ('testproject', 'mesh8', '83be21d', 'main', 'v1', E'from mergexp import *\nnet = Network("mesh8")\nnodes = [net.node(f"n{i}") for i in range(8)]\nnet.connect(nodes)\nexperiment(net)\n');
COMMIT;

-- step: now it compiles
BEGIN;
SET LOCAL portal.caller = '';
UPDATE portal.experiment_models SET in_progress = FALSE, compiled = TRUE, compile_time = now() WHERE revision = '83be21d';
COMMIT;

-- step: sedge asks for a realization of all eight nodes; there are not so many machines
BEGIN;
SET LOCAL portal.caller = 'sedge';
INSERT INTO portal.realizations (pid, eid, id, revision, creator, code, complete, diagnostics) VALUES
    ('testproject', 'mesh8', 'full', '83be21d', 'sedge', 'Unrealizable', TRUE, '[{"level": "Info", "message": "1 facility tried"}, {"level": "Error", "message": "no resource for node n6"}, {"level": "Error", "message": "no resource for node n7"}]');
COMMIT;

-- step: sedge gives that one up and asks for one with virtual nodes
BEGIN;
SET LOCAL portal.caller = 'sedge';
DELETE FROM portal.realizations WHERE id = 'full';
INSERT INTO portal.realizations (pid, eid, id, revision, creator, expires) VALUES ('testproject', 'mesh8', 'small', '83be21d', 'sedge', now() + INTERVAL '7 days');
COMMIT;

-- step: it is answered: two machines, six virtual nodes on one of them, one LAN
BEGIN;
SET LOCAL portal.caller = '';
INSERT INTO portal.allocations (pid, eid, rid, fid, resource, node, virt)
SELECT 'testproject', 'mesh8', 'small', 'hillside', CASE WHEN n < 2 THEN 'm' || n + 1 ELSE 'm3' END, 'n' || n, n >= 2 FROM generate_series(0, 7) AS n;
UPDATE portal.realizations SET code = 'Ok', complete = TRUE, links = '{"mesh": {"link": "mesh", "segments": []}}', ver = ver + 1 WHERE id = 'small';
COMMIT;

-- step: one node is moved to another machine later
BEGIN;
SET LOCAL portal.caller = '';
DELETE FROM portal.allocations WHERE rid = 'small' AND node = 'n0';
INSERT INTO portal.allocations (pid, eid, rid, fid, resource, node, virt) VALUES ('testproject', 'mesh8', 'small', 'hillside', 'm4', 'n0', FALSE);
COMMIT;

-- step: sedge extends the realization by a week
BEGIN;
SET LOCAL portal.caller = 'sedge';
UPDATE portal.realizations SET expires = expires + INTERVAL '7 days', ver = ver + 1 WHERE id = 'small';
COMMIT;

-- step: sedge materializes it
BEGIN;
SET LOCAL portal.caller = 'sedge';
INSERT INTO portal.materializations (pid, eid, rid, metal, vms, links) VALUES
    ('testproject', 'mesh8', 'small', '[{"facility": "hillside", "resource": "m4"}, {"facility": "hillside", "resource": "m2"}]',
     '[{"vm_alloc": {"node": "n2", "resource": "m3"}}, {"vm_alloc": {"node": "n3", "resource": "m3"}}]', '[{"link": "mesh"}]');
COMMIT;

-- step: a machine does not come up
BEGIN;
SET LOCAL portal.caller = '';
UPDATE portal.materializations SET highest_status = 'Error', messages = '[{"level": "Info", "message": "imaging m2"}, {"level": "Error", "message": "m4 does not answer"}]', last_updated = now() WHERE rid = 'small';
COMMIT;

-- step: sedge tears it down and materializes again
BEGIN;
SET LOCAL portal.caller = 'sedge';
DELETE FROM portal.materializations WHERE rid = 'small';
INSERT INTO portal.materializations (pid, eid, rid, metal, vms, links) VALUES
    ('testproject', 'mesh8', 'small', '[{"facility": "hillside", "resource": "m4"}, {"facility": "hillside", "resource": "m2"}]',
     '[{"vm_alloc": {"node": "n2", "resource": "m3"}}, {"vm_alloc": {"node": "n3", "resource": "m3"}}]', '[{"link": "mesh"}]');
COMMIT;

-- step: the tasks report, and this time they all succeed
BEGIN;
SET LOCAL portal.caller = '';
UPDATE portal.materializations SET highest_status = 'Processing', last_updated = now() WHERE rid = 'small';
UPDATE portal.materializations SET highest_status = 'Success', messages = '[{"level": "Info", "message": "all up"}]', last_updated = now() WHERE rid = 'small';
COMMIT;

-- step: sedge creates an XDC and attaches it
BEGIN;
SET LOCAL portal.caller = 'sedge';
INSERT INTO portal.xdcs (project, name, creator, image) VALUES ('testproject', 'desk', 'sedge', 'xdc-base');
UPDATE portal.xdcs SET materialization = 'small.mesh8.testproject' WHERE project = 'testproject' AND name = 'desk';
COMMIT;

-- step: sedge detaches the XDC, dematerializes and gives the realization up
BEGIN;
SET LOCAL portal.caller = 'sedge';
UPDATE portal.xdcs SET materialization = NULL WHERE project = 'testproject' AND name = 'desk';
DELETE FROM portal.xdcs WHERE project = 'testproject' AND name = 'desk';
DELETE FROM portal.materializations WHERE rid = 'small';
DELETE FROM portal.realizations WHERE id = 'small';
COMMIT;

-- step: sedge realizes once more for a moment, and the portal takes the resources back when its time is over
BEGIN;
SET LOCAL portal.caller = 'sedge';
INSERT INTO portal.realizations (pid, eid, id, revision, creator, code, complete, expires) VALUES ('testproject', 'mesh8', 'brief', '83be21d', 'sedge', 'Ok', TRUE, now());
INSERT INTO portal.allocations (pid, eid, rid, fid, resource, node, virt) VALUES ('testproject', 'mesh8', 'brief', 'hillside', 'm1', 'n0', FALSE);
COMMIT;

-- step: its time is over
BEGIN;
SET LOCAL portal.caller = '';
DELETE FROM portal.realizations WHERE expires < now();
COMMIT;

-- step: sedge deletes the model that never compiled, and realizes a last time
BEGIN;
SET LOCAL portal.caller = 'sedge';
DELETE FROM portal.experiment_models WHERE revision = '1f0c9a7';
INSERT INTO portal.realizations (pid, eid, id, revision, creator, code, complete, links) VALUES ('testproject', 'mesh8', 'last', '83be21d', 'sedge', 'Ok', TRUE, '{"mesh": {"link": "mesh"}}');
INSERT INTO portal.allocations (pid, eid, rid, fid, resource, node, virt) VALUES ('testproject', 'mesh8', 'last', 'hillside', 'm2', 'n0', FALSE), ('testproject', 'mesh8', 'last', 'hillside', 'm3', 'n1', TRUE);
INSERT INTO portal.materializations (pid, eid, rid, metal, links) VALUES ('testproject', 'mesh8', 'last', '[{"facility": "hillside", "resource": "m2"}]', '[{"link": "mesh"}]');
COMMIT;

-- step: the token has leaked: sedge revokes it, and deletes a key
BEGIN;
SET LOCAL portal.caller = 'sedge';
UPDATE portal.api_tokens SET revoked = TRUE WHERE username = 'sedge';
DELETE FROM portal.public_keys WHERE username = 'sedge' AND fingerprint = 'SHA256:9TrbK2';
COMMIT;

-- step: opsdesk takes the pool from testproject and dissolves it
BEGIN;
SET LOCAL portal.caller = 'opsdesk';
UPDATE portal.pools SET projects = ARRAY['glawler'], ver = ver + 1 WHERE name = 'teaching';
DELETE FROM portal.pools WHERE name = 'teaching';
COMMIT;

-- step: the coast facility never came to be; and glawler looks after hillside no more
BEGIN;
SET LOCAL portal.caller = 'opsdesk';
DELETE FROM portal.facilities WHERE name = 'coast';
DELETE FROM portal.facility_members WHERE facility = 'hillside' AND username = 'glawler';
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

-- step: glawler deletes testproject: its members and its experiment go with it, with model, realization, materialization and machines
BEGIN;
SET LOCAL portal.caller = 'glawler';
DELETE FROM portal.projects WHERE name = 'testproject';
COMMIT;

-- step: opsdesk deletes sedge: the personal project stays, the membership in it goes, and so do key and token
BEGIN;
SET LOCAL portal.caller = 'opsdesk';
DELETE FROM portal.users WHERE username = 'sedge';
COMMIT;

-- step: glawler deletes orgtest: the members that are left go with it, and the story ends
BEGIN;
SET LOCAL portal.caller = 'glawler';
DELETE FROM portal.organizations WHERE name = 'orgtest';
COMMIT;
