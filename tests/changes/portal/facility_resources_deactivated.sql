-- Many in one statement, then two apart and one switched back in a transaction of both kinds.
INSERT INTO portal.facilities (name, address, description, certificate) VALUES ('hill', 'hill.example', 'Forty machines', 'c1');
INSERT INTO portal.facility_members (facility, username, role) VALUES ('hill', 'opsduty', 'Creator'), ('hill', 'wrenn', 'Member');
INSERT INTO portal.facility_resources (facility, resource) SELECT 'hill', 'm' || n FROM generate_series(1, 6) AS n;
-- when
BEGIN;
UPDATE portal.facility_resources SET active = FALSE WHERE resource IN ('m1', 'm2', 'm3', 'm4');
COMMIT;
BEGIN;
UPDATE portal.facility_resources SET active = FALSE WHERE resource = 'm6';
UPDATE portal.facility_resources SET active = TRUE WHERE resource = 'm2';
UPDATE portal.facility_resources SET active = FALSE WHERE resource = 'm5';
COMMIT;
