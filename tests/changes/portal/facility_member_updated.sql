-- A new role, against the remembered one. The same role written again is no event.
INSERT INTO portal.facilities (name, address, description, certificate) VALUES ('hill', 'hill.example', 'Forty machines', 'c1');
INSERT INTO portal.facility_members (facility, username, role) VALUES ('hill', 'opsduty', 'Creator'), ('hill', 'wrenn', 'Member');
INSERT INTO portal.facility_resources (facility, resource) SELECT 'hill', 'm' || n FROM generate_series(1, 6) AS n;
-- when
BEGIN;
UPDATE portal.facility_members SET role = 'Maintainer' WHERE username = 'wrenn';
COMMIT;
BEGIN;
UPDATE portal.facility_members SET role = 'Maintainer' WHERE username = 'wrenn';
COMMIT;
BEGIN;
UPDATE portal.facility_members SET role = 'Member' WHERE username = 'wrenn';
COMMIT;
