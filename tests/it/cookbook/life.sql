-- A year of a testbed's life until June 2026, made by the server itself: a million events. Names and times follow from the number of each.
WITH shares (event_type, subject_type, share) AS (
  VALUES ('user_created', 'user', 10), ('org_created', 'organization', 1), ('project_created', 'project', 2),
         ('project_member_added', 'project', 27), ('project_member_deleted', 'project', 10), ('org_member_added', 'organization', 10),
         ('experiment_created', 'experiment', 20), ('experiment_model_pushed', 'experiment', 200), ('realization_created', 'realization', 20),
         ('materialization_started', 'materialization', 20), ('dematerialized', 'materialization', 20), ('realization_relinquished', 'realization', 20),
         ('experiment_deleted', 'experiment', 10), ('login_failed', 'user', 80), ('login_succeeded', 'user', 550)
), slots AS MATERIALIZED (
  SELECT (row_number() OVER () * 389) % 1000 AS slot, event_type, subject_type FROM shares CROSS JOIN generate_series(1, share)
), numbers AS (
  SELECT i, event_type, subject_type, ((hashint8(i) & 65535) * 5000) >> 16 AS u, (((hashint8(i) >> 8) & 65535) * 1000) >> 16 AS p, i / 1000 * 4 + i % 4 AS x,
         timestamptz '2025-06-01 00:00:00+00' + i * interval '31.536 seconds' AS at
    FROM generate_series(0, 999999) AS i JOIN slots ON slot = i % 1000
)
INSERT INTO public.events (event_uuid, timestamp, event_type, caller, subject, subject_type, target, success, error_message, payload)
SELECT lpad(to_hex(i), 32, '0')::uuid, at, event_type, CASE WHEN event_type LIKE 'login%' THEN '' ELSE 'user' || u END,
       CASE subject_type WHEN 'user' THEN 'user' || u WHEN 'organization' THEN 'org' || p % 100 WHEN 'project' THEN 'project' || p
                         WHEN 'experiment' THEN 'exp' || x ELSE 'r.exp' || x || '.project' || p END,
       subject_type, CASE WHEN event_type LIKE '%member%' THEN 'user' || (i * 7) % 5000 WHEN event_type LIKE '%pushed' THEN 'c0ffee' || i END,
       event_type <> 'login_failed', CASE WHEN event_type = 'login_failed' THEN 'the password is wrong' END,
       CASE WHEN event_type LIKE '%member%' THEN '{"kind": "usermember", "role": "member", "state": "active", "_audit": {"source": "portal", "caller_from": "context"}}'
            WHEN event_type LIKE '%_created' AND subject_type IN ('user', 'organization', 'project')
            THEN '{"state": "active", "category": "Research", "_audit": {"source": "portal", "caller_from": "row"}}'
            WHEN subject_type = 'user' THEN '{"method": "password", "_audit": {"source": "identity", "caller_from": "none"}}'
            ELSE '{"project": "project' || p || '", "experiment": "exp' || x || '", "action": "'
              || CASE WHEN event_type IN ('dematerialized', 'realization_relinquished') THEN 'deallocate' ELSE 'allocate' END
              || '", "resources": ["node' || i % 400 || '"], "_audit": {"source": "portal", "caller_from": "row"}}' END::jsonb
  FROM numbers ORDER BY i;
