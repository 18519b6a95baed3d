-- Who made it stands in the row; its first projects are told one by one.
-- when
BEGIN;
INSERT INTO portal.pools (name, description, creator, priority, projects, organizations, facilities) VALUES ('course', 'For teaching', 'opsduty', 5, ARRAY['mesh', 'raftlab'], ARRAY['cs900'], '{"hill": {}}');
COMMIT;
BEGIN;
INSERT INTO portal.pools (name, creator) VALUES ('spare', '');
COMMIT;
