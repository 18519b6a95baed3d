-- One event for those of one transaction.
INSERT INTO portal.facilities (name, address, description, certificate) VALUES ('hill', 'hill.example', 'Forty machines', 'c1');
INSERT INTO portal.facility_members (facility, username, role) VALUES ('hill', 'opsduty', 'Creator'), ('hill', 'wrenn', 'Member');
INSERT INTO portal.facility_resources (facility, resource) SELECT 'hill', 'm' || n FROM generate_series(1, 6) AS n;
-- when
BEGIN;
DELETE FROM portal.facility_resources WHERE resource IN ('m1', 'm2');
DELETE FROM portal.facility_resources WHERE resource = 'm6';
COMMIT;
BEGIN;
DELETE FROM portal.facility_resources;
COMMIT;
