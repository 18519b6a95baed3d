-- Inserted as Active or confirmed. A request is not a membership yet.
INSERT INTO portal.facilities (name, address, description, certificate) VALUES ('hill', 'hill.example', 'Forty machines', 'c1');
INSERT INTO portal.facility_members (facility, username, role) VALUES ('hill', 'opsduty', 'Creator'), ('hill', 'wrenn', 'Member');
INSERT INTO portal.facility_resources (facility, resource) SELECT 'hill', 'm' || n FROM generate_series(1, 6) AS n;
-- when
BEGIN;
INSERT INTO portal.facility_members (facility, username, role) VALUES ('hill', 'kestrel', 'Maintainer');
COMMIT;
BEGIN;
INSERT INTO portal.facility_members (facility, username, state) VALUES ('hill', 'maple', 'MemberRequested');
COMMIT;
BEGIN;
UPDATE portal.facility_members SET state = 'Active', role = 'Maintainer' WHERE username = 'maple';
COMMIT;
