-- The key of the row says whose it was. One goes by hand, one with its user.
INSERT INTO portal.users (username, state, uid, gid) VALUES ('sedge', 'Active', 1, 1), ('wrenn', 'Active', 2, 2);
INSERT INTO portal.api_tokens (id, username, description, token_hash) VALUES
    ('11111111-1111-4111-8111-111111111111', 'sedge', 'nightly job', 'h1'), ('22222222-2222-4222-8222-222222222222', 'sedge', 'laptop', 'h2');
-- when
BEGIN;
DELETE FROM portal.api_tokens WHERE description = 'laptop';
COMMIT;
BEGIN;
DELETE FROM portal.users WHERE username = 'sedge';
COMMIT;
