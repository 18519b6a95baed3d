-- The first Creator in the same transaction is who registered it. Certificates and the machine model stay where they are.
-- when
BEGIN;
INSERT INTO portal.facilities (name, address, description, access_mode, certificate, cacertificate, model) VALUES ('hill', 'hill.example', 'Forty machines', 'Protected', 'c', 'ca', '\x0102');
INSERT INTO portal.facility_members (facility, username, role) VALUES ('hill', 'opsduty', 'Creator'), ('hill', 'wrenn', 'Member');
INSERT INTO portal.facility_resources (facility, resource, active) VALUES ('hill', 'm1', TRUE), ('hill', 'm2', FALSE);
COMMIT;
BEGIN;
INSERT INTO portal.facilities (name, address) VALUES ('dale', 'dale.example');
COMMIT;
BEGIN;
INSERT INTO portal.facility_members (facility, username, role) VALUES ('dale', 'late', 'Creator');
COMMIT;
