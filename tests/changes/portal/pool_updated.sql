-- Lists of projects are not part of it: they have events of their own. Nor is the counter of writes.
INSERT INTO portal.pools (name, description, creator, priority, projects) VALUES ('course', 'For teaching', 'opsduty', 5, ARRAY['mesh', 'raftlab']);
-- when
BEGIN;
UPDATE portal.pools SET description = 'For courses', priority = 9, ver = ver + 1;
COMMIT;
BEGIN;
UPDATE portal.pools SET facilities = '{"hill": {"resources": ["m1"]}}', organizations = ARRAY['cs900'], projects = projects || 'gossip'::text;
COMMIT;
BEGIN;
UPDATE portal.pools SET priority = priority;
COMMIT;
