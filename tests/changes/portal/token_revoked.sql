-- Once, although it is used and written again.
INSERT INTO portal.users (username, state, uid, gid) VALUES ('sedge', 'Active', 1, 1), ('wrenn', 'Active', 2, 2);
INSERT INTO portal.api_tokens (id, username, description, token_hash) VALUES
    ('11111111-1111-4111-8111-111111111111', 'sedge', 'nightly job', 'h1'), ('22222222-2222-4222-8222-222222222222', 'sedge', 'laptop', 'h2');
-- when
BEGIN;
UPDATE portal.api_tokens SET last_used = now() WHERE description = 'laptop';
COMMIT;
BEGIN;
UPDATE portal.api_tokens SET revoked = TRUE WHERE description = 'laptop';
COMMIT;
BEGIN;
UPDATE portal.api_tokens SET last_used = now(), revoked = TRUE WHERE description = 'laptop';
COMMIT;
