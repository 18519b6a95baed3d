-- Ten million events of three years of a testbed: 50 organizations, 2,000 users, 1,000 projects, 5,000 experiments, 50 facilities.
-- Counted from hashes, so it is the same on every machine but for the time at which it ends: now. Few users and projects do much, many do little.
CREATE SCHEMA bench;
CREATE FUNCTION bench.u(n BIGINT, seed BIGINT) RETURNS FLOAT8 IMMUTABLE PARALLEL SAFE LANGUAGE sql AS $$ SELECT (hashint8extended(n, seed) & 2147483647) / 2147483648.0::float8 $$;
-- One of `many`, the first ones more often.
CREATE FUNCTION bench.one(n BIGINT, seed BIGINT, many INT) RETURNS INT IMMUTABLE PARALLEL SAFE LANGUAGE sql AS $$ SELECT (many * bench.u(n, seed) ^ 1.6)::int % many $$;
CREATE FUNCTION bench.username(n INT) RETURNS TEXT IMMUTABLE PARALLEL SAFE LANGUAGE sql AS $$ SELECT 'user-' || lpad(n::text, 4, '0') $$;
CREATE FUNCTION bench.project(n INT) RETURNS TEXT IMMUTABLE PARALLEL SAFE LANGUAGE sql AS $$ SELECT 'project-' || lpad(n::text, 4, '0') $$;
CREATE FUNCTION bench.facility(n INT) RETURNS TEXT IMMUTABLE PARALLEL SAFE LANGUAGE sql AS $$ SELECT 'facility-' || lpad(n::text, 2, '0') $$;

-- In hours, of which a part is as long as it should be: months have no length.
CREATE TABLE bench.span AS SELECT now() - INTERVAL '26280 hours' AS began, INTERVAL '26280 hours' AS long;

-- Step: a plan of what happens when
-- `what` is the type of event, `n` counts within it.
CREATE UNLOGGED TABLE bench.plan AS
WITH runs AS (
  -- Realizations: most last hours, some weeks. Every 33rd fails.
  SELECT n, began + long * (0.05 + 0.95 * bench.u(n, 1) ^ 0.8) AS at, n % 33 <> 0 AS success,
         CASE WHEN bench.u(n, 2) < 0.95 THEN INTERVAL '11 hours' * bench.u(n, 3) ELSE INTERVAL '20 days' * bench.u(n, 3) END + INTERVAL '20 minutes' AS lasts
    FROM bench.span, generate_series(0, 409999) n)
SELECT what, n::int, at FROM bench.span, LATERAL (
  SELECT 'org_created' AS what, n, began + long * 0.01 * n / 50 AS at FROM generate_series(0, 49) n
  UNION ALL SELECT 'user_created', n, began + long * 0.3 * n / 2000 FROM generate_series(0, 1999) n
  UNION ALL SELECT 'user_activated', n, began + long * (0.3 * n / 2000 + 0.001) FROM generate_series(0, 1979) n
  UNION ALL SELECT 'user_frozen', n, began + long * (0.5 + 0.4 * bench.u(n, 4)) FROM generate_series(1900, 1949) n
  UNION ALL SELECT 'org_member_added', n, began + long * (0.3 * n / 2000 + 0.002) FROM generate_series(0, 1999) n
  UNION ALL SELECT 'org_project_added', n, began + long * (0.02 + 0.3 * n / 1000) FROM generate_series(0, 999) n
  UNION ALL SELECT 'project_created', n, began + long * (0.02 + 0.3 * n / 1000) FROM generate_series(0, 999) n
  UNION ALL SELECT 'project_deleted', n, began + long * (0.6 + 0.3 * bench.u(n, 5)) FROM generate_series(950, 979) n
  UNION ALL SELECT 'experiment_created', n, began + long * (0.33 + 0.3 * n / 5000) FROM generate_series(0, 4999) n
  UNION ALL SELECT 'experiment_deleted', n, began + long * (0.7 + 0.3 * bench.u(n, 6)) FROM generate_series(4500, 4799) n
  UNION ALL SELECT 'project_member_added', n, began + long * (0.33 + 0.3 * bench.u(n, 7)) FROM generate_series(0, 299999) n
  UNION ALL SELECT 'project_member_deleted', n, began + long * (0.65 + 0.2 * bench.u(n, 8)) FROM generate_series(0, 99999) n
  UNION ALL SELECT 'project_member_added', n, began + long * (0.86 + 0.1 * bench.u(n, 9)) FROM generate_series(0, 79999) n
  UNION ALL SELECT 'project_member_updated', n, began + long * (0.64 + 0.36 * bench.u(n, 10)) FROM generate_series(100000, 399999) n
  UNION ALL SELECT CASE WHEN n % 100 < 62 THEN 'login_succeeded' WHEN n % 100 < 70 THEN 'login_refreshed' WHEN n % 100 < 74 THEN 'login_failed' ELSE 'logout' END,
                   n, began + long * bench.u(n, 11) ^ 0.8 FROM generate_series(0, 3406537) n
  UNION ALL SELECT 'experiment_model_pushed', n, began + long * (0.4 + 0.6 * bench.u(n, 12)) FROM generate_series(0, 1199999) n
  UNION ALL SELECT 'experiment_model_compiled', n, began + long * (0.4 + 0.6 * bench.u(n, 12)) + INTERVAL '20 seconds' FROM generate_series(0, 1199999) n
  UNION ALL SELECT 'realization_created', n, at FROM runs
  UNION ALL SELECT 'materialization_started', n, at + INTERVAL '2 minutes' FROM runs WHERE success
  UNION ALL SELECT 'materialization_completed', n, at + INTERVAL '9 minutes' FROM runs WHERE success
  UNION ALL SELECT 'dematerialized', n, at + lasts FROM runs WHERE success
  UNION ALL SELECT 'realization_relinquished', n, at + lasts + INTERVAL '5 minutes' FROM runs WHERE success
  UNION ALL SELECT 'user_updated', n, began + long * (0.31 + 0.69 * bench.u(n, 14)) FROM generate_series(0, 199999) n
  UNION ALL SELECT 'project_updated', n, began + long * (0.33 + 0.67 * bench.u(n, 15)) FROM generate_series(0, 299999) n
  UNION ALL SELECT 'experiment_updated', n, began + long * (0.64 + 0.36 * bench.u(n, 16)) FROM generate_series(0, 699999) n
  UNION ALL SELECT 'org_updated', n, began + long * (0.1 + 0.9 * bench.u(n, 17)) FROM generate_series(0, 49999) n
  UNION ALL SELECT 'public_key_added', n, began + long * (0.31 + 0.69 * bench.u(n, 18)) FROM generate_series(0, 129999) n
  UNION ALL SELECT 'facility_registered', n, began + long * 0.005 FROM generate_series(0, 49) n
  UNION ALL SELECT 'facility_resources_added', n, began + long * 0.006 FROM generate_series(0, 49) n
  UNION ALL SELECT 'facility_member_added', n, began + long * (0.3 + 0.001 * n) FROM generate_series(0, 99) n
  UNION ALL SELECT 'facility_resources_deactivated', n, began + long * (0.1 + 0.9 * bench.u(n, 19)) FROM generate_series(0, 9999) n
  UNION ALL SELECT 'facility_resources_activated', n, began + long * (0.1 + 0.9 * bench.u(n, 19)) + INTERVAL '2 days' * bench.u(n, 20) FROM generate_series(0, 9999) n
) AS happened WHERE at <= began + long ORDER BY at;
CREATE INDEX ON bench.plan (at);
ANALYZE bench.plan;

DROP INDEX public.idx_events_timestamp, public.idx_events_event_type, public.idx_events_caller, public.idx_events_subject, public.idx_events_target;
ALTER TABLE public.events DROP CONSTRAINT events_pkey;
-- The events of one of 36 parts of that time; how many.
CREATE FUNCTION bench.fill(p_part INT) RETURNS BIGINT LANGUAGE plpgsql
-- Its cache would be emptied for each event, which takes longer than all else.
SET enable_memoize = off SET jit = off AS $fill$
DECLARE
  low   TIMESTAMPTZ := (SELECT began + long * ((p_part - 1) / 36.0) FROM bench.span);
  high  TIMESTAMPTZ := (SELECT began + long * (p_part / 36.0) FROM bench.span);
  added BIGINT;
BEGIN
INSERT INTO public.events
SELECT encode(set_byte(set_byte(substr(int8send((extract(epoch FROM at) * 1000)::bigint), 3) || substr(decode(md5(what || n), 'hex'), 7), 6, 128), 8, 128), 'hex')::uuid,
       at, CASE what WHEN 'org_project_added' THEN 'org_member_added' ELSE what END, caller, subject, subject_type, target,
       NOT failed, CASE WHEN failed THEN CASE what WHEN 'login_failed' THEN 'the password is wrong' WHEN 'realization_created' THEN 'no facility has the resources that were asked for' ELSE 'node a did not boot' END END,
       payload || jsonb_build_object('_audit', jsonb_build_object('n', 0, 'lsn', to_hex(us >> 32) || '/' || to_hex(us & 4294967295), 'xid', us / 100000,
         'source', 'portal', 'caller_from', CASE WHEN caller = '' THEN 'none' ELSE 'context' END))
  FROM (
    SELECT p.what, p.n, p.at, (extract(epoch FROM p.at) * 1000000)::bigint - 1600000000000000 AS us,
           what = 'login_failed' OR what = 'realization_created' AND n % 33 = 0 OR what = 'materialization_completed' AND n % 17 = 0 AS failed,
           who.caller, s.*
      FROM (SELECT p.* FROM bench.plan p WHERE p.at >= low AND (p.at < high OR p_part = 36) ORDER BY p.at OFFSET 0) AS p
     CROSS JOIN LATERAL (SELECT CASE WHEN what LIKE 'log%' OR what LIKE 'user%' AND n % 3 > 0 OR n % 7 = 0 AND what NOT LIKE 'experiment_model%' THEN ''
                                     ELSE bench.username(bench.one(n, 30, 2000)) END AS caller,
                                bench.one(n, 31, 5000) AS e, bench.one(n, 32, 50) AS f, bench.one(n, 33, 2000) AS w) AS who
     CROSS JOIN LATERAL (
       SELECT 'user' AS subject_type, bench.username(w) AS subject, NULL::text AS target,
              jsonb_build_object('ip', '192.0.2.' || n % 250, 'method', CASE n % 3 WHEN 0 THEN 'oidc' ELSE 'password' END) AS payload WHERE what LIKE 'log%'
       UNION ALL SELECT 'user', bench.username(n % 2000), CASE what WHEN 'public_key_added' THEN 'SHA256:' || md5(n::text) END,
              CASE what WHEN 'public_key_added' THEN '{}' ELSE jsonb_build_object('category', (ARRAY['Graduate student', 'Faculty', 'Staff'])[1 + n % 3])
              || CASE what WHEN 'user_created' THEN '{"state": "pending"}' WHEN 'user_updated' THEN '{"changed": ["institution"]}' ELSE '{}' END::jsonb END
              WHERE what LIKE 'user%' OR what = 'public_key_added'
       UNION ALL SELECT 'organization', 'organization-' || n % 50, CASE what WHEN 'org_member_added' THEN bench.username(n) WHEN 'org_project_added' THEN bench.project(n) END,
              CASE what WHEN 'org_member_added' THEN jsonb_build_object('kind', 'usermember', 'role', CASE WHEN n < 50 THEN 'creator' WHEN n % 40 = 0 THEN 'maintainer' ELSE 'member' END, 'state', 'active')
                        WHEN 'org_project_added' THEN '{"kind": "projectmember", "role": "member", "state": "active"}'
                        ELSE jsonb_build_object('state', 'active', 'category', (ARRAY['Academic', 'Industry', 'Government'])[1 + n % 50 % 3]) END WHERE what LIKE 'org%'
       UNION ALL SELECT 'project', bench.project(n % 1000), CASE WHEN what LIKE '%member%' THEN bench.username((n % 1000 + n / 1000 % 300) % 2000) END,
              CASE WHEN what = 'project_member_deleted' THEN '{"kind": "usermember"}'
                   WHEN what = 'project_member_updated' THEN jsonb_build_object('kind', 'usermember', 'old_role', 'member', 'role', CASE WHEN n % 5 = 0 THEN 'maintainer' ELSE 'member' END, 'state', 'active')
                   WHEN what = 'project_member_added' THEN jsonb_build_object('kind', 'usermember', 'role', CASE WHEN n < 1000 THEN 'creator' WHEN n % 29 = 0 THEN 'maintainer' ELSE 'member' END, 'state', 'active')
                   ELSE jsonb_build_object('state', 'active', 'organization', 'organization-' || n % 50, 'category', (ARRAY['Research', 'Teaching', 'Internal'])[1 + n % 1000 % 3]) END WHERE what LIKE 'project%'
       UNION ALL SELECT 'experiment', 'experiment-' || x.e, CASE WHEN what LIKE '%model%' THEN md5(n::text) END,
              jsonb_build_object('project', bench.project(x.e % 1000)) || CASE WHEN what LIKE '%pushed' THEN jsonb_build_object('branch', 'main', 'model_file', 'model-' || n % 40 || '.py')
                WHEN what = 'experiment_updated' THEN '{"changed": ["description"]}' ELSE '{}' END
              FROM (SELECT CASE WHEN what IN ('experiment_created', 'experiment_deleted') THEN n ELSE who.e END AS e) AS x WHERE what LIKE 'experiment%'
       UNION ALL SELECT CASE WHEN what LIKE 'real%' THEN 'realization' ELSE 'materialization' END, 'r' || n || '.experiment-' || e || '.' || bench.project(e % 1000), NULL,
              jsonb_build_object('realization', 'r' || n, 'experiment', 'experiment-' || e, 'project', bench.project(e % 1000))
              || CASE WHEN what IN ('materialization_started', 'dematerialized') OR what = 'realization_created' AND n % 33 = 0 THEN '{}'
                      ELSE jsonb_build_object('action', CASE what WHEN 'realization_relinquished' THEN 'deallocate' WHEN 'realization_created' THEN 'allocate' END,
                        'facilities', jsonb_build_array(bench.facility(f)),
                        'resources', jsonb_build_array(bench.facility(f) || '-' || n % 200, bench.facility(f) || '-' || (n + 1) % 200)) END
              WHERE what LIKE 'real%' OR what LIKE '%mater%'
       UNION ALL SELECT 'facility', bench.facility(n % 50), CASE what WHEN 'facility_member_added' THEN bench.username(n * 7 % 2000) END,
              CASE what WHEN 'facility_registered' THEN jsonb_build_object('address', 'f' || n || '.example.net')
                WHEN 'facility_member_added' THEN '{"kind": "usermember", "role": "maintainer", "state": "active"}'
                WHEN 'facility_resources_added' THEN jsonb_build_object('resources', (SELECT jsonb_agg(bench.facility(n % 50) || '-' || r) FROM generate_series(0, 199) r))
                ELSE jsonb_build_object('resources', (SELECT jsonb_agg(bench.facility(n % 50) || '-' || (n / 50 + r) % 200) FROM generate_series(0, 1 + n % 3) r)) END WHERE what LIKE 'facility%'
     ) AS s OFFSET 0) AS told;
GET DIAGNOSTICS added = ROW_COUNT;
RETURN added;
END $fill$;

-- Step: indexes
DROP TABLE bench.plan;
ALTER TABLE public.events ADD CONSTRAINT events_pkey PRIMARY KEY (event_uuid);
CREATE INDEX idx_events_timestamp  ON public.events (timestamp DESC);
CREATE INDEX idx_events_event_type ON public.events (event_type);
CREATE INDEX idx_events_caller     ON public.events (caller);
CREATE INDEX idx_events_subject    ON public.events (subject_type, subject);
CREATE INDEX idx_events_target     ON public.events (target);
