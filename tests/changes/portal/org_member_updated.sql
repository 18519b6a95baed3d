-- The last is confirmed in a new role: org_member_added tells both, and there is no update.
INSERT INTO portal.organizations (name, state, oid, category, subcategory, description) VALUES
    ('orgtest', 'Active', 2001, 'Research group', 'Networking', 'Group 1');
INSERT INTO portal.organization_members (organization, kind, id, role, state) VALUES
    ('orgtest', 'UserMember', 'wrenn', 'Member', 'Active'),
    ('orgtest', 'UserMember', 'okafor7', 'Member', 'MemberRequested'),
    ('orgtest', 'UserMember', 'maple', 'Member', 'MemberRequested');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"glawler","s":"portal","t":"organization_members","op":"UPDATE"}');
UPDATE portal.organization_members SET role = 'Maintainer' WHERE id = 'wrenn';
COMMIT;
BEGIN;
UPDATE portal.organization_members SET role = 'Maintainer' WHERE id = 'okafor7';
COMMIT;
BEGIN;
UPDATE portal.organization_members SET role = 'Maintainer', state = 'Active' WHERE id = 'maple';
COMMIT;
