-- Tokens, keys and facilities: a token of nobody, a key that is there, a facility whose name is taken, resources of none.
INSERT INTO portal.users (username, uid, gid) VALUES ('ada', 1, 1);
INSERT INTO portal.public_keys (username, fingerprint, key) VALUES ('ada', 'f1', 'k');
INSERT INTO portal.facilities (name, address) VALUES ('hill', '::1');
-- when
INSERT INTO portal.api_tokens (username, token_hash) VALUES ('nobody', 'h');
INSERT INTO portal.public_keys (username, fingerprint, key) VALUES ('ada', 'f1', 'k');
INSERT INTO portal.facilities (name, address) VALUES ('hill', '::2');
INSERT INTO portal.facility_resources (facility, resource) VALUES ('dale', 'm1');
