-- One DELETE by a person, and all that the experiment had goes by foreign keys, the realization with what it holds.
INSERT INTO portal.users (username, state, uid, gid) VALUES ('sedge', 'Active', 1, 1), ('wrenn', 'Active', 2, 2);
INSERT INTO portal.organizations (name, state, oid) VALUES ('orgtest', 'Active', 1);
INSERT INTO portal.organization_members (organization, kind, id, role, state) VALUES ('orgtest', 'UserMember', 'sedge', 'Creator', 'Active'), ('orgtest', 'ProjectMember', 'mesh', 'Member', 'Active');
INSERT INTO portal.projects (name, gid, state, organization) VALUES ('mesh', 1, 'Active', 'orgtest');
INSERT INTO portal.project_members (project, username, role) VALUES ('mesh', 'sedge', 'Creator'), ('mesh', 'wrenn', 'Member');
INSERT INTO portal.experiments (project, name, creator) VALUES ('mesh', 'mesh8', 'sedge');
INSERT INTO portal.experiment_models (project, experiment, revision, model_file, in_progress, compiled) VALUES
    ('mesh', 'mesh8', 'c0ffee1', 'net = Network()', FALSE, TRUE);
INSERT INTO portal.realizations (pid, eid, id, revision, creator, expires, complete, code, links) VALUES
    ('mesh', 'mesh8', 'one', 'c0ffee1', 'sedge', '2099-01-01 00:00+00', TRUE, 'Ok', '{"lan0": {"link": "lan0"}, "lan1": {"link": "lan1"}}');
INSERT INTO portal.allocations (pid, eid, rid, fid, resource, node, virt) VALUES
    ('mesh', 'mesh8', 'one', 'hill', 'm1', 'a', FALSE), ('mesh', 'mesh8', 'one', 'hill', 'm2', 'b', TRUE), ('mesh', 'mesh8', 'one', 'dale', 'm2', 'c', TRUE);
INSERT INTO portal.materializations (pid, eid, rid, metal, vms, links) VALUES
    ('mesh', 'mesh8', 'one', '[{"facility": "hill", "resource": "m1"}]', '[{"vm_alloc": {"node": "b", "resource": "m2"}}, {"vm_alloc": {"node": "c", "resource": "m2"}}]', '[{"link": "lan0"}, {"link": "lan1"}]');
INSERT INTO portal.xdcs (project, name, creator, materialization) VALUES ('mesh', 'desk', 'sedge', 'one.mesh8.mesh');
INSERT INTO portal.facilities (name, address) VALUES ('hill', 'hill.example');
INSERT INTO portal.facility_members (facility, username) VALUES ('hill', 'sedge');
INSERT INTO portal.public_keys (username, fingerprint, key) VALUES ('sedge', 'SHA256:aaaa', 'ssh-ed25519 AAAA');
INSERT INTO portal.api_tokens (id, username, token_hash) VALUES ('11111111-1111-4111-8111-111111111111', 'sedge', 'h1');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"sedge","s":"portal","t":"experiments","op":"DELETE"}');
DELETE FROM portal.experiments;
COMMIT;
