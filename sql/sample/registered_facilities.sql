-- For the demo, once the sidecar follows the portal: three facilities with their machines, each looked after by the two operators, and a few
-- machines out of service. A facility has no time of creation, so one from before the audit would not be in the record.
INSERT INTO portal.facilities (name, address, description, access_mode, certificate, cacertificate, properties, model, ver)
SELECT f.name, f.name || '.example', f.description, 'Public', 'certificate of ' || f.name, 'authority of ' || f.name,
       jsonb_build_object('xir_version', '0.3'), decode(md5(f.name), 'hex'), 3
FROM (VALUES ('quillmark', 'Machines of general use'), ('norrin', 'Embedded systems and controllers'), ('tessaly', 'Households and their devices'))
     AS f (name, description)
ON CONFLICT DO NOTHING;
INSERT INTO portal.facility_members (facility, username, role)
SELECT f.name, o.username, o.role
FROM portal.facilities AS f CROSS JOIN (VALUES ('opsduty', 'Creator'), ('opsnight', 'Maintainer')) AS o (username, role)
ON CONFLICT DO NOTHING;
INSERT INTO portal.facility_resources (facility, resource, alloc, roles, active)
SELECT f.name, left(f.name, 1) || n, ARRAY['Physical', 'Virtual'], ARRAY['TbNode'], hashtext(f.name || n) % 12 <> 0
FROM portal.facilities AS f CROSS JOIN generate_series(1, 20) AS n
ON CONFLICT DO NOTHING;
