-- Which columns changed, against what is remembered of the row. A new certificate or model is the machines' own business.
INSERT INTO portal.facilities (name, address, description, certificate) VALUES ('hill', 'hill.example', 'Forty machines', 'c1');
INSERT INTO portal.facility_members (facility, username, role) VALUES ('hill', 'opsduty', 'Creator'), ('hill', 'wrenn', 'Member');
INSERT INTO portal.facility_resources (facility, resource) SELECT 'hill', 'm' || n FROM generate_series(1, 6) AS n;
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"opsduty","s":"portal","t":"facilities","op":"UPDATE"}');
UPDATE portal.facilities SET address = 'hill2.example', access_mode = 'Private', ver = ver + 1;
COMMIT;
BEGIN;
UPDATE portal.facilities SET description = 'Sixty machines', certificate = 'c2';
COMMIT;
BEGIN;
UPDATE portal.facilities SET certificate = 'c3', cacertificate = 'ca3', model = '\x03', properties = '{"a": 1}', ver = ver + 1;
COMMIT;
BEGIN;
UPDATE portal.facilities SET description = 'Sixty machines';
COMMIT;
