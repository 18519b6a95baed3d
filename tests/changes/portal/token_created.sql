-- Its id and what its holder wrote, never its hash.
INSERT INTO portal.users (username, state, uid, gid) VALUES ('sedge', 'Active', 1, 1), ('wrenn', 'Active', 2, 2);
-- when
BEGIN;
INSERT INTO portal.api_tokens (id, username, description, token_hash, expires) VALUES ('11111111-1111-4111-8111-111111111111', 'sedge', 'nightly job', 'h1', '2099-01-01 00:00+00');
COMMIT;
BEGIN;
INSERT INTO portal.api_tokens (id, username, token_hash) VALUES ('22222222-2222-4222-8222-222222222222', 'wrenn', 'h2');
COMMIT;
