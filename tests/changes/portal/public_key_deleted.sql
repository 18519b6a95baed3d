-- By hand, and with its user.
INSERT INTO portal.users (username, state, uid, gid) VALUES ('sedge', 'Active', 1, 1), ('wrenn', 'Active', 2, 2);
INSERT INTO portal.public_keys (username, fingerprint, key) VALUES ('sedge', 'SHA256:aaaa', 'ssh-ed25519 AAAA'), ('wrenn', 'SHA256:bbbb', 'ssh-ed25519 BBBB');
-- when
BEGIN;
DELETE FROM portal.public_keys WHERE username = 'sedge';
COMMIT;
BEGIN;
DELETE FROM portal.users WHERE username = 'wrenn';
COMMIT;
