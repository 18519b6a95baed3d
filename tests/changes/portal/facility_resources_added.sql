-- Many rows in several statements, one event for each facility.
INSERT INTO portal.facilities (name, address, description, certificate) VALUES ('hill', 'hill.example', 'Forty machines', 'c1');
INSERT INTO portal.facility_members (facility, username, role) VALUES ('hill', 'opsduty', 'Creator'), ('hill', 'wrenn', 'Member');
INSERT INTO portal.facility_resources (facility, resource) SELECT 'hill', 'm' || n FROM generate_series(1, 6) AS n;
INSERT INTO portal.facilities (name, address) VALUES ('dale', 'dale.example');
-- when
BEGIN;
INSERT INTO portal.facility_resources (facility, resource) VALUES ('hill', 'm7'), ('dale', 'd1'), ('hill', 'm8');
INSERT INTO portal.facility_resources (facility, resource, active) VALUES ('hill', 'm9', FALSE);
COMMIT;
BEGIN;
INSERT INTO portal.facility_resources (facility, resource) SELECT 'dale', 'r' || n FROM generate_series(1, 1100) AS n;
COMMIT;
