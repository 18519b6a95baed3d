-- The rows of one COPY share their LSN, a page at a time, and nothing else puts rows into the WAL that way. A script cannot send a
-- COPY its data, so a program of the server does. An INSERT .. SELECT of as many rows has an LSN for each.
INSERT INTO portal.organizations (name, state, oid, category, subcategory, description) VALUES
    ('cs900', 'Active', 2001, 'Research group', 'Networking', 'Group 1');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"opsduty","s":"portal","t":"users","op":"INSERT"}');
COPY portal.users (username, uid, gid, email) FROM PROGRAM 'seq 1 120 | sed "s/.*/student&,&,&,student&@sample.example/"' WITH (FORMAT csv);
COMMIT;
BEGIN;
INSERT INTO portal.organization_members (organization, kind, id, role, state)
SELECT 'cs900', 'UserMember', username, 'Member', 'Active' FROM portal.users ORDER BY uid;
COMMIT;
