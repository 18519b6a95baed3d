-- From Active, and from one kind of request to another; the last changes the role as well, which
-- is no event of its own.
INSERT INTO portal.organizations (name, state, oid, category, subcategory, description) VALUES
    ('orgtest', 'Active', 2001, 'Research group', 'Networking', 'Group 1');
INSERT INTO portal.organization_members (organization, kind, id, role, state) VALUES
    ('orgtest', 'UserMember', 'wrenn', 'Maintainer', 'Active'),
    ('orgtest', 'UserMember', 'okafor7', 'Member', 'Pending');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"glawler","s":"portal","t":"organization_members","op":"UPDATE"}');
UPDATE portal.organization_members SET state = 'Pending' WHERE id = 'wrenn';
COMMIT;
BEGIN;
UPDATE portal.organization_members SET state = 'EntityRequested' WHERE id = 'okafor7';
COMMIT;
BEGIN;
UPDATE portal.organization_members SET state = 'MemberRequested', role = 'Member' WHERE id = 'wrenn';
COMMIT;
