-- Its members and resources go with it, and say because of what.
INSERT INTO portal.facilities (name, address, description, certificate) VALUES ('hill', 'hill.example', 'Forty machines', 'c1');
INSERT INTO portal.facility_members (facility, username, role) VALUES ('hill', 'opsduty', 'Creator'), ('hill', 'wrenn', 'Member');
INSERT INTO portal.facility_resources (facility, resource) SELECT 'hill', 'm' || n FROM generate_series(1, 6) AS n;
INSERT INTO portal.facilities (name, address) VALUES ('dale', 'dale.example');
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"opsduty","s":"portal","t":"facilities","op":"DELETE"}');
DELETE FROM portal.facilities WHERE name = 'hill';
COMMIT;
BEGIN;
DELETE FROM portal.facilities WHERE name = 'dale';
COMMIT;
