INSERT INTO portal.organizations (name, state, oid, category, subcategory, description) VALUES
    ('orgtest', 'Active', 2001, 'Research group', 'Networking', 'Group 1');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"wrenn","s":"portal","t":"organization_members","op":"INSERT"}');
INSERT INTO portal.organization_members (organization, kind, id, role, state) VALUES
    ('orgtest', 'UserMember', 'wrenn', 'Member', 'MemberRequested');
COMMIT;
BEGIN;
INSERT INTO portal.organization_members (organization, kind, id, role, state) VALUES
    ('orgtest', 'ProjectMember', 'latencymap', 'Member', 'EntityRequested'),
    ('orgtest', 'UserMember', 'okafor7', 'Maintainer', 'Pending');
COMMIT;
