-- The fingerprint, never the key.
INSERT INTO portal.users (username, state, uid, gid) VALUES ('sedge', 'Active', 1, 1), ('wrenn', 'Active', 2, 2);
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"sedge","s":"portal","t":"public_keys","op":"INSERT"}');
INSERT INTO portal.public_keys (username, fingerprint, key) VALUES ('sedge', 'SHA256:aaaa', 'ssh-ed25519 AAAA'), ('wrenn', 'SHA256:bbbb', 'ssh-ed25519 BBBB');
COMMIT;
