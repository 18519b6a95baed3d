-- A request that is denied is a row deleted like any other.
INSERT INTO portal.organizations (name, state, oid, category, subcategory, description) VALUES
    ('orgtest', 'Active', 2001, 'Research group', 'Networking', 'Group 1');
INSERT INTO portal.organization_members (organization, kind, id, role, state) VALUES
    ('orgtest', 'UserMember', 'wrenn', 'Member', 'Active'),
    ('orgtest', 'ProjectMember', 'latencymap', 'Member', 'Active'),
    ('orgtest', 'UserMember', 'okafor7', 'Member', 'MemberRequested');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"glawler","s":"portal","t":"organization_members","op":"DELETE"}');
DELETE FROM portal.organization_members WHERE id = 'latencymap';
COMMIT;
BEGIN;
DELETE FROM portal.organization_members WHERE id = 'wrenn';
COMMIT;
BEGIN;
DELETE FROM portal.organization_members WHERE id = 'okafor7';
COMMIT;
