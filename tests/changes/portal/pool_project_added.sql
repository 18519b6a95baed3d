-- The difference of two lists, whatever the names: quotes, commas, braces, backslashes, blanks, and the word NULL. Another order of the same list is no event, nor is a second mention.
INSERT INTO portal.pools (name, description, creator, priority, projects) VALUES ('course', 'For teaching', 'opsduty', 5, ARRAY['mesh', 'raftlab']);
-- when
BEGIN;
UPDATE portal.pools SET projects = ARRAY['mesh', 'raftlab', 'a "b"', 'c,d', '{e}', 'f\g', 'NULL', '', 'größer'];
COMMIT;
BEGIN;
UPDATE portal.pools SET projects = ARRAY['größer', 'NULL', '', 'f\g', '{e}', 'c,d', 'a "b"', 'raftlab', 'mesh', 'mesh', NULL];
COMMIT;
BEGIN;
UPDATE portal.pools SET projects = ARRAY['gossip', 'mesh'];
COMMIT;
