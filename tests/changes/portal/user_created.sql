-- A row inserted as Active is created in that state, and not activated beside it.
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"wrenn","s":"portal","t":"users","op":"INSERT"}');
INSERT INTO portal.users (username, state, uid, gid, institution, category) VALUES
    ('wrenn', 'NotSet', 1001, 1001, 'Sample Institute', 'Graduate student');
COMMIT;
BEGIN;
INSERT INTO portal.users (username, state, uid, gid, institution, category) VALUES
    ('okafor7', 'Active', 1001, 1001, 'Sample Institute', 'Graduate student');
COMMIT;
