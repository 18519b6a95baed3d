-- Only those that were off and are on now; the others say nothing.
INSERT INTO portal.facilities (name, address, description, certificate) VALUES ('hill', 'hill.example', 'Forty machines', 'c1');
INSERT INTO portal.facility_members (facility, username, role) VALUES ('hill', 'opsduty', 'Creator'), ('hill', 'wrenn', 'Member');
INSERT INTO portal.facility_resources (facility, resource) SELECT 'hill', 'm' || n FROM generate_series(1, 6) AS n;
UPDATE portal.facility_resources SET active = FALSE WHERE resource <> 'm1';
-- when
BEGIN;
SELECT pg_logical_emit_message(true, 'portal_audit.ctx', '{"caller":"opsduty","s":"portal","t":"facility_resources","op":"UPDATE"}');
UPDATE portal.facility_resources SET active = TRUE WHERE resource <= 'm4';
COMMIT;
BEGIN;
UPDATE portal.facility_resources SET active = TRUE;
COMMIT;
BEGIN;
UPDATE portal.facility_resources SET active = TRUE, roles = ARRAY['TbNode'];
COMMIT;
