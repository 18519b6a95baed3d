-- For the audit database of the demo: where the facilities of history.sql are, one under maintenance, one about to be.
INSERT INTO portal_audit.facility_places (facility, latitude, longitude, organization) VALUES
  ('quillmark', 33.98, -118.44, 'Machines by the sea'),
  ('norrin',    40.76, -111.85, 'Controllers in the mountains'),
  ('tessaly',   42.34,  -71.09, 'Homes by the river')
ON CONFLICT DO NOTHING;
WITH planned AS (
  INSERT INTO portal_audit.maintenance (facility, from_time, until, note, announced_by, announced_at) VALUES
    ('norrin',  now() - INTERVAL '2 hours', now() + INTERVAL '4 hours', 'Controllers get new firmware', 'opsduty', now() - INTERVAL '1 day'),
    ('tessaly', now() + INTERVAL '2 days',  now() + INTERVAL '3 days',  'New switches in every home',   'opsnight', now())
  RETURNING *
)
SELECT portal_audit.record('facility_maintenance_planned', announced_by, facility, 'facility', NULL, true, NULL,
         jsonb_build_object('maintenance', maintenance_id, 'from', portal_audit.utc_text(from_time), 'until', portal_audit.utc_text(until), 'note', note))
  FROM planned;
