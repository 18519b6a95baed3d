-- What the sidecar keeps beside ten million events; what it folds from them comes after this.
-- The leaves are no hashes of their events: pages read them, and nobody verifies.
-- Step: leaves
INSERT INTO portal_audit.progress (source, state, slot, system_identifier, timeline, database_oid, end_lsn, last_commit, complete_to, transactions, changes, events)
  SELECT 'portal', 'streaming', 'portal_audit', '1', 1, 1, 'FFFF/0', max(timestamp), now(), count(*), count(*), count(*) FROM public.events;
INSERT INTO portal_audit.trees (tree, size) SELECT 'portal', events FROM portal_audit.progress;
INSERT INTO portal_audit.seals (tree, first, events, uuids, salts, leaves)
  SELECT 'portal', min(place), count(*), string_agg(uuid_send(event_uuid), '' ORDER BY place), string_agg(uuid_send(event_uuid), '' ORDER BY place),
         string_agg(sha256(uuid_send(event_uuid)), '' ORDER BY place)
    FROM (SELECT event_uuid, row_number() OVER (ORDER BY event_uuid) - 1 AS place FROM public.events) AS numbered GROUP BY place / 500;

-- Step: places, probes, maintenance
INSERT INTO portal_audit.facility_places (facility, latitude, longitude, organization)
  SELECT bench.facility(n), 27 + 20 * bench.u(n, 40), -121 + 48 * bench.u(n, 41), 'organization-' || n FROM generate_series(0, 49) n;
-- Every twenty days or so an address does not answer for forty minutes.
INSERT INTO portal_audit.facility_probes (facility, at, last_at, reachable, error, rtt_ms)
  SELECT bench.facility(f), at + CASE WHEN up THEN INTERVAL '40 minutes' ELSE INTERVAL '0' END,
         CASE WHEN up THEN least(at + INTERVAL '1 hour' * (480 + f), now()) - INTERVAL '1 minute' ELSE at + INTERVAL '39 minutes' END, up, CASE WHEN NOT up THEN 'timeout' END, CASE WHEN up THEN 12 END
    FROM generate_series(0, 49) f, LATERAL generate_series(now() - INTERVAL '700 days', now() - INTERVAL '2 hours', INTERVAL '1 hour' * (480 + f)) at, (VALUES (true), (false)) AS answers (up);
INSERT INTO portal_audit.maintenance (facility, from_time, until, note, announced_by, announced_at, ended_by, ended_at)
  SELECT bench.facility(f), at, at + INTERVAL '8 hours', 'new switches', 'opsduty', at - INTERVAL '5 days', CASE WHEN at < now() - INTERVAL '1 day' THEN 'opsduty' END, CASE WHEN at < now() - INTERVAL '1 day' THEN at + INTERVAL '7 hours' END
    FROM generate_series(0, 49, 3) f, generate_series(now() - INTERVAL '30 months', now() + INTERVAL '2 days', INTERVAL '31 days') AS at;
