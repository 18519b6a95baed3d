-- Taken from the list, all at once, and with the pool itself, which is then the cause.
INSERT INTO portal.pools (name, description, creator, priority, projects) VALUES ('course', 'For teaching', 'opsduty', 5, ARRAY['mesh', 'raftlab']);
-- when
BEGIN;
UPDATE portal.pools SET projects = ARRAY['raftlab', 'gossip'];
COMMIT;
BEGIN;
UPDATE portal.pools SET projects = '{}';
COMMIT;
BEGIN;
UPDATE portal.pools SET projects = ARRAY['mesh'];
COMMIT;
BEGIN;
DELETE FROM portal.pools;
COMMIT;
