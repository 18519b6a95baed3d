-- When a condition on a facility's resources began that holds at a time: the first point after the last one for which it did not hold.
-- `lost`: none is active; `short`: so many are not active that it is degraded; `whole`: neither.
CREATE OR REPLACE FUNCTION portal_audit.facility_since(p_facility TEXT, p_at TIMESTAMPTZ, p_condition TEXT, p_share NUMERIC) RETURNS TIMESTAMPTZ
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  share CONSTANT FLOAT8 := p_share;
  last_at    TIMESTAMPTZ;
  last_point BIGINT;
BEGIN
  SELECT at, point INTO last_at, last_point FROM portal_audit.facility_points
   WHERE facility = p_facility AND at <= p_at
     AND NOT (registered AND resources > 0 AND CASE p_condition
           WHEN 'lost'  THEN active = 0
           WHEN 'short' THEN active > 0 AND resources - active >= share * resources
           ELSE active > 0 AND resources - active < share * resources END)
   ORDER BY at DESC, point DESC LIMIT 1;
  RETURN (SELECT at FROM portal_audit.facility_points
           WHERE facility = p_facility AND (at, point) > (coalesce(last_at, '-infinity'), coalesce(last_point, 0)) AND at <= p_at
           ORDER BY at, point LIMIT 1);
END $$;
COMMENT ON FUNCTION portal_audit.facility_since IS 'Since when the resources of a facility are as they are; for portal_audit.facility_state';

-- The state of one facility at a time: the first of these that holds.
--   (no row)     the portal does not have it, not yet or no more
--   maintenance  an operator announced it, it has begun, and nobody ended it
--   unknown      nothing told of it for silent_days. Unknown is never down
--   down         its address does not answer, by a probe that is not stale; or it has resources and none is active
--   unknown      no active resource of it is known, nor an answer of its address, nor a recent materialization: it has none, or it was
--                registered before the record began, which then tells of some of its resources and not of all
--   degraded     inactive_share of its resources are not active (where all of them are known), or failed_share of the recent materializations on it failed (and failed_count of them)
--   planned      it is up, and maintenance begins within planned_days; a facility in another state keeps that state, and planned_from tells of it
--   up           none of these
DROP FUNCTION IF EXISTS portal_audit.facility_state(TEXT, TIMESTAMPTZ);
CREATE OR REPLACE FUNCTION portal_audit.facility_state(
  p_facility TEXT, p_at TIMESTAMPTZ, p_counts BOOLEAN DEFAULT true,
  OUT facility TEXT, OUT state TEXT, OUT since TIMESTAMPTZ, OUT why TEXT,
  OUT resources_active INT, OUT resources_total INT, OUT allocated BIGINT, OUT succeeded BIGINT, OUT failed BIGINT,
  OUT maintenance_from TIMESTAMPTZ, OUT expected_end TIMESTAMPTZ, OUT is_overdue BOOLEAN, OUT planned_from TIMESTAMPTZ, OUT planned_until TIMESTAMPTZ,
  OUT note TEXT, OUT reachable BOOLEAN, OUT rtt_ms DOUBLE PRECISION, OUT last_seen TIMESTAMPTZ
) LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  r CONSTANT JSONB := (SELECT jsonb_object_agg(rule, value) FROM portal_audit.facility_rules);
  midnight CONSTANT TIMESTAMPTZ := date_trunc('day', p_at, 'UTC');
  recent   CONSTANT TIMESTAMPTZ := p_at - (r->>'recent_hours')::float8 * INTERVAL '1 hour';
  overdue  CONSTANT INTERVAL := (r->>'overdue_days')::float8 * INTERVAL '1 day';
  share    CONSTANT NUMERIC := (r->>'inactive_share')::numeric;
  p   portal_audit.facility_points;
  m   RECORD;
  n   RECORD;
  q   portal_audit.facility_probes;
  u   RECORD;
  before_today BIGINT;
  seen_use TIMESTAMPTZ;
BEGIN
  SELECT * INTO p FROM portal_audit.facility_points k WHERE k.facility = p_facility AND k.at <= p_at ORDER BY k.at DESC, k.point DESC LIMIT 1;
  IF p.registered IS NOT TRUE THEN
    RETURN;
  END IF;
  facility := p_facility;
  resources_active := p.active;
  resources_total := p.resources;
  -- A history does not tell how many are allocated, for which all days are summed, nor since when, which it tells by itself.
  IF p_counts THEN
    SELECT coalesce(sum(d.allocated), 0) INTO before_today FROM portal_audit.facility_days d WHERE d.facility = p_facility AND d.day < (midnight AT TIME ZONE 'UTC')::date;
  END IF;
  SELECT before_today + coalesce(sum(k.allocated) FILTER (WHERE k.at >= midnight), 0) AS allocated,
         coalesce(sum(k.succeeded) FILTER (WHERE k.at > recent), 0) AS succeeded, coalesce(sum(k.failed) FILTER (WHERE k.at > recent), 0) AS failed,
         min(k.at) FILTER (WHERE k.at > recent AND k.failed > 0) AS since
    INTO u FROM portal_audit.facility_uses k WHERE k.facility = p_facility AND k.at >= least(midnight, recent) AND k.at <= p_at;
  allocated := u.allocated;
  succeeded := u.succeeded;
  failed := u.failed;
  SELECT k.at INTO seen_use FROM portal_audit.facility_uses k WHERE k.facility = p_facility AND k.at <= p_at ORDER BY k.at DESC LIMIT 1;
  SELECT * INTO q FROM portal_audit.facility_probes k WHERE k.facility = p_facility AND k.at <= p_at ORDER BY k.at DESC LIMIT 1;
  -- least() passes over NULL, which here is: never.
  last_seen := greatest(p.at, seen_use, CASE WHEN q.last_at IS NOT NULL THEN least(q.last_at, p_at) END);
  IF q.last_at >= p_at - (r->>'probe_stale_minutes')::float8 * INTERVAL '1 minute' THEN
    reachable := q.reachable;
    rtt_ms := q.rtt_ms;
  END IF;
  SELECT min(k.from_time) AS from_time, max(k.until) AS until, (array_agg(k.note ORDER BY k.until DESC))[1] AS note
    INTO m FROM portal_audit.maintenance k
   WHERE k.facility = p_facility AND k.from_time <= p_at AND coalesce(k.ended_at, 'infinity') > p_at AND k.until + overdue > p_at;
  SELECT k.from_time, k.until, k.note INTO n FROM portal_audit.maintenance k
   WHERE k.facility = p_facility AND k.from_time > p_at AND k.announced_at <= p_at AND coalesce(k.ended_at, 'infinity') > p_at
     AND k.from_time <= p_at + (r->>'planned_days')::float8 * INTERVAL '1 day' ORDER BY k.from_time LIMIT 1;
  maintenance_from := m.from_time;
  expected_end := m.until;
  is_overdue := coalesce(m.until <= p_at, false);
  planned_from := n.from_time;
  planned_until := n.until;
  note := coalesce(m.note, n.note);
  IF m.from_time IS NOT NULL THEN
    state := 'maintenance';
    since := m.from_time;
    why := format(CASE WHEN is_overdue THEN 'maintenance was expected to end %s, and nobody has ended it: %s' ELSE 'maintenance, expected to end %s: %s' END,
                  to_char(m.until AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI "UTC"'), m.note);
  ELSIF last_seen <= p_at - (r->>'silent_days')::float8 * INTERVAL '1 day' THEN
    state := 'unknown';
    since := last_seen;
    why := format('neither an event nor a probe told of it for %s days', floor(extract(epoch FROM p_at - last_seen) / 86400));
  ELSIF reachable IS FALSE THEN
    state := 'down';
    -- Another reason not to answer is the same outage.
    since := (SELECT min(k.at) FROM portal_audit.facility_probes k WHERE k.facility = p_facility AND k.at <= p_at
                 AND k.at > coalesce((SELECT max(o.at) FROM portal_audit.facility_probes o WHERE o.facility = p_facility AND o.reachable AND o.at <= p_at), '-infinity'));
    why := format('its address does not answer: %s', CASE q.error WHEN 'refused' THEN 'the connection is refused' WHEN 'timeout' THEN 'nothing comes back in time'
                  WHEN 'name' THEN 'its name does not resolve' ELSE 'no way leads there' END);
  ELSIF p.is_whole AND p.resources > 0 AND p.active = 0 THEN
    state := 'down';
    since := portal_audit.facility_since(p_facility, p_at, 'lost', share);
    why := format(CASE p.resources WHEN 1 THEN 'its only resource is not active' ELSE 'none of its %s resources is active' END, p.resources);
  ELSIF p.active = 0 AND reachable IS NULL AND succeeded = 0 THEN
    state := 'unknown';
    since := p.at;
    why := CASE WHEN p.is_whole THEN 'no resource of it is known, and no probe tells of it'
                WHEN p.resources = 0 THEN 'it is older than the record, which tells nothing of its resources'
                ELSE format('it is older than the record, which tells of its resources only that %s are not active', p.resources) END;
  ELSIF p.is_whole AND p.resources > 0 AND p.resources - p.active >= share * p.resources THEN
    state := 'degraded';
    since := portal_audit.facility_since(p_facility, p_at, 'short', share);
    why := format('%s of its %s resources are not active', p.resources - p.active, p.resources);
  ELSIF failed >= (r->>'failed_count')::numeric AND failed >= (r->>'failed_share')::numeric * (failed + succeeded) THEN
    state := 'degraded';
    since := u.since;
    why := format('%s of the %s materializations on it in the last %s hours failed', failed, failed + succeeded, r->>'recent_hours');
  ELSIF n.from_time IS NOT NULL THEN
    state := 'planned';
    since := greatest((SELECT max(k.announced_at) FROM portal_audit.maintenance k WHERE k.facility = p_facility AND k.from_time = n.from_time),
                                              n.from_time - (r->>'planned_days')::float8 * INTERVAL '1 day');
    why := format('up; maintenance from %s until %s: %s', to_char(n.from_time AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'),
                  to_char(n.until AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI "UTC"'), n.note);
  ELSE
    state := 'up';
    IF p_counts THEN
      since := greatest(
        CASE WHEN p.is_whole AND p.resources > 0 THEN portal_audit.facility_since(p_facility, p_at, 'whole', share) ELSE p.at END,
        (SELECT max(least(coalesce(k.ended_at, k.until + overdue), k.until + overdue)) FROM portal_audit.maintenance k
          WHERE k.facility = p_facility AND k.from_time <= p_at AND coalesce(k.ended_at, 'infinity') > k.from_time),
        CASE WHEN reachable THEN (SELECT min(k.at) FROM portal_audit.facility_probes k WHERE k.facility = p_facility AND k.at <= p_at
               AND k.at > (SELECT max(o.at) FROM portal_audit.facility_probes o WHERE o.facility = p_facility AND NOT o.reachable AND o.at <= p_at)) END);
    END IF;
    why := concat_ws(', and ',
      CASE WHEN p.resources > 0 THEN format(CASE WHEN p.is_whole THEN '%s of its %s resources are active' ELSE '%s of the %s of its resources that the record tells of are active' END, p.active, p.resources) END,
      CASE WHEN reachable THEN 'its address answers' END,
      CASE WHEN p.active = 0 AND succeeded > 0 THEN format('materializations on it succeeded in the last %s hours', r->>'recent_hours') END);
  END IF;
END $$;
COMMENT ON FUNCTION portal_audit.facility_state IS 'State of one facility at a time, since when and why; state is NULL if the portal did not have it. Without p_counts neither how many are allocated nor since when it is up. The rules stand above it and in portal_audit.facility_rules';

-- By a loose index scan: one step for each facility, however many points it has.
CREATE OR REPLACE FUNCTION portal_audit.facility_names() RETURNS TABLE (facility TEXT)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  WITH RECURSIVE known AS (
    (SELECT k.facility FROM portal_audit.facility_points k ORDER BY k.facility LIMIT 1)
    UNION ALL
    SELECT (SELECT k.facility FROM portal_audit.facility_points k WHERE k.facility > known.facility ORDER BY k.facility LIMIT 1)
      FROM known WHERE known.facility IS NOT NULL
  )
  SELECT known.facility FROM known WHERE known.facility IS NOT NULL
$$;
COMMENT ON FUNCTION portal_audit.facility_names IS 'Names of all facilities that events ever told of';

CREATE OR REPLACE FUNCTION portal_audit.facility_states(p_at TIMESTAMPTZ DEFAULT now()) RETURNS TABLE (
  facility TEXT, state TEXT, since TIMESTAMPTZ, why TEXT, resources_active INT, resources_total INT, allocated BIGINT, succeeded BIGINT, failed BIGINT,
  maintenance_from TIMESTAMPTZ, expected_end TIMESTAMPTZ, is_overdue BOOLEAN, planned_from TIMESTAMPTZ, planned_until TIMESTAMPTZ, note TEXT,
  reachable BOOLEAN, rtt_ms DOUBLE PRECISION, last_seen TIMESTAMPTZ,
  latitude DOUBLE PRECISION, longitude DOUBLE PRECISION, label_dx DOUBLE PRECISION, label_dy DOUBLE PRECISION, organization TEXT, url TEXT
) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT s.*, l.latitude, l.longitude, coalesce(l.label_dx, 0), coalesce(l.label_dy, 0), l.organization, l.url
    FROM portal_audit.facility_names() AS known CROSS JOIN LATERAL portal_audit.facility_state(known.facility, p_at) AS s
    LEFT JOIN portal_audit.facility_places l ON l.facility = known.facility
   WHERE s.state IS NOT NULL ORDER BY s.facility
$$;
COMMENT ON FUNCTION portal_audit.facility_states IS 'Every facility that the portal had at a time: its state, since when, why, its numbers and its place. Call portal_audit.fold_facilities() before, or see portal_audit.facilities_behind()';

-- The states of a facility over a range. It is asked at every time at which anything changed, so the states are those of facility_state;
-- where failed materializations decide, to the hour.
CREATE OR REPLACE FUNCTION portal_audit.facility_history(p_facility TEXT, p_from TIMESTAMPTZ, p_to TIMESTAMPTZ DEFAULT now())
RETURNS TABLE (state TEXT, from_time TIMESTAMPTZ, until TIMESTAMPTZ, why TEXT)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  WITH r AS (
    SELECT INTERVAL '1 day' * max(value) FILTER (WHERE rule = 'silent_days')::float8 AS silent,
           INTERVAL '1 day' * max(value) FILTER (WHERE rule = 'overdue_days')::float8 AS overdue,
           INTERVAL '1 day' * max(value) FILTER (WHERE rule = 'planned_days')::float8 AS planned,
           INTERVAL '1 minute' * max(value) FILTER (WHERE rule = 'probe_stale_minutes')::float8 AS stale,
           INTERVAL '1 hour' * max(value) FILTER (WHERE rule = 'recent_hours')::float8 AS recent,
           max(value) FILTER (WHERE rule = 'failed_share') AS failed_share, max(value) FILTER (WHERE rule = 'failed_count') AS failed_count,
           max(value) FILTER (WHERE rule = 'inactive_share')::float8 AS share FROM portal_audit.facility_rules
  ), failing AS (
    SELECT hours.at, many.many
      FROM r, (SELECT DISTINCT unnest(ARRAY[date_trunc('hour', at) + INTERVAL '1 hour', date_trunc('hour', at) + INTERVAL '1 hour' + recent]) AS at
                 FROM portal_audit.facility_uses, r
                WHERE facility = p_facility AND failed > 0 AND at BETWEEN p_from - recent - INTERVAL '1 hour' AND p_to) AS hours
     CROSS JOIN LATERAL (
       SELECT coalesce(sum(u.failed) >= r.failed_count AND sum(u.failed) >= r.failed_share * (sum(u.failed) + sum(u.succeeded)), false) AS many
         FROM portal_audit.facility_uses u WHERE u.facility = p_facility AND u.at > hours.at - r.recent AND u.at <= hours.at) AS many
  ), marks (at) AS (
    SELECT p_from
    UNION SELECT unnest(ARRAY[CASE WHEN class IS DISTINCT FROM before OR at > last + silent THEN at END, CASE WHEN next > at + silent THEN at + silent END])
            FROM r, (SELECT at, class, lag(class) OVER w AS before, lead(at, 1, 'infinity') OVER w AS next, lag(at, 1, '-infinity') OVER w AS last
                       FROM (SELECT at, point, CASE WHEN NOT registered THEN 'gone' WHEN NOT is_whole THEN 'older ' || (active = 0) || resources WHEN resources = 0 THEN 'bare' WHEN active = 0 THEN 'lost'
                                                    WHEN resources - active >= share * resources THEN 'short' ELSE 'whole' END AS class
                               FROM portal_audit.facility_points, r WHERE facility = p_facility AND at BETWEEN p_from - silent AND p_to) AS points
                     WINDOW w AS (ORDER BY at, point)) AS points
    UNION SELECT unnest(ARRAY[from_time, ended_at, until + overdue, greatest(announced_at, from_time - planned)]) FROM portal_audit.maintenance, r WHERE facility = p_facility
    UNION SELECT unnest(ARRAY[CASE WHEN reachable IS DISTINCT FROM before OR at > last + stale THEN at END,
                              CASE WHEN next > last_at + stale THEN last_at + stale + INTERVAL '1 microsecond' END, CASE WHEN next > last_at + silent THEN last_at + silent END])
            FROM r, (SELECT at, last_at, reachable, lag(reachable) OVER w AS before, lag(last_at, 1, '-infinity') OVER w AS last, lead(at, 1, 'infinity') OVER w AS next
                       FROM portal_audit.facility_probes, r WHERE facility = p_facility AND last_at >= p_from - silent AND at <= p_to WINDOW w AS (ORDER BY at)) AS answers
    -- Failures are looked at by the hour, and only where they begin or cease to be many the state is asked.
    UNION SELECT at FROM (SELECT at, many, lag(many) OVER (ORDER BY at) AS before FROM failing) AS turning WHERE many IS DISTINCT FROM before
    -- Silence lasts for days: between which of them, the sums by day tell.
    UNION SELECT unnest(ARRAY[CASE WHEN before IS NULL OR day > before + silent - INTERVAL '1 day' THEN
                                (SELECT min(u.at) FROM portal_audit.facility_uses u WHERE u.facility = p_facility AND u.at >= day::timestamp AT TIME ZONE 'UTC') END,
                              CASE WHEN next IS NULL OR next > day + silent - INTERVAL '1 day' THEN silent +
                                (SELECT max(u.at) FROM portal_audit.facility_uses u WHERE u.facility = p_facility AND u.at < (day + 1)::timestamp AT TIME ZONE 'UTC') END])
            FROM r, (SELECT day, lag(day) OVER w AS before, lead(day) OVER w AS next
                       FROM portal_audit.facility_days, r
                      WHERE facility = p_facility AND day BETWEEN ((p_from - silent) AT TIME ZONE 'UTC')::date AND (p_to AT TIME ZONE 'UTC')::date WINDOW w AS (ORDER BY day)) AS days
  ), told AS (
    SELECT m.at, s.state, s.why FROM (SELECT DISTINCT at FROM marks WHERE at >= p_from AND at <= p_to) AS m
      CROSS JOIN LATERAL portal_audit.facility_state(p_facility, m.at, false) AS s
  ), turns AS (
    SELECT t.*, t.state IS DISTINCT FROM lag(t.state) OVER (ORDER BY t.at) OR row_number() OVER (ORDER BY t.at) = 1 AS turns FROM told t
  ), kept AS (
    SELECT k.state, k.at, lead(k.at, 1, p_to) OVER (ORDER BY k.at) AS until, k.why FROM turns k WHERE k.turns
  )
  SELECT kept.state, kept.at, kept.until, kept.why FROM kept WHERE kept.state IS NOT NULL AND kept.at < kept.until ORDER BY kept.at
$$;
COMMENT ON FUNCTION portal_audit.facility_history IS 'States of a facility over a range, one row as long as the state stays; why is that of its beginning';

-- Whom an event of an operator names: the portal user behind the session if the audit database knows one, else its login.
CREATE OR REPLACE FUNCTION portal_audit.facility_operator() RETURNS TEXT
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  named TEXT;
BEGIN
  IF to_regprocedure('portal_audit.viewer()') IS NOT NULL THEN
    EXECUTE 'SELECT portal_audit.viewer()' INTO named;
  END IF;
  RETURN coalesce(nullif(named, ''), session_user);
END $$;
COMMENT ON FUNCTION portal_audit.facility_operator IS 'Who plans or ends maintenance: the caller of its event';

CREATE OR REPLACE FUNCTION portal_audit.utc_text(p_at TIMESTAMPTZ) RETURNS TEXT
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$ SELECT to_char(p_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') $$;
COMMENT ON FUNCTION portal_audit.utc_text IS 'A time as payloads have it';

CREATE OR REPLACE FUNCTION portal_audit.facility_maintenance_plan(p_facility TEXT, p_from TIMESTAMPTZ, p_until TIMESTAMPTZ, p_note TEXT) RETURNS UUID
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  id UUID;
BEGIN
  PERFORM portal_audit.fold_facilities();
  IF (portal_audit.facility_state(p_facility, now())).state IS NULL THEN
    RAISE EXCEPTION 'the portal has no such facility' USING ERRCODE = 'PA002', HINT = 'See portal_audit.facility_states().';
  ELSIF p_until <= p_from OR p_until <= now() THEN
    RAISE EXCEPTION 'maintenance must end after it begins, and not in the past' USING ERRCODE = 'PA002';
  ELSIF coalesce(btrim(p_note), '') = '' OR length(p_note) > 2000 THEN
    RAISE EXCEPTION 'maintenance needs a note of up to 2000 characters that tells users what is done' USING ERRCODE = 'PA002';
  END IF;
  INSERT INTO portal_audit.maintenance (facility, from_time, until, note, announced_by) VALUES (p_facility, p_from, p_until, p_note, portal_audit.facility_operator())
  RETURNING maintenance_id INTO id;
  PERFORM portal_audit.record('facility_maintenance_planned', portal_audit.facility_operator(), p_facility, 'facility', NULL, true, NULL,
    jsonb_build_object('maintenance', id, 'from', portal_audit.utc_text(p_from), 'until', portal_audit.utc_text(p_until), 'note', p_note));
  RETURN id;
END $$;
COMMENT ON FUNCTION portal_audit.facility_maintenance_plan IS 'Announces maintenance of a facility, and records that as an event';

-- Ends maintenance that has begun, or cancels what has not: the nearest of its kind, or the one that is named.
CREATE OR REPLACE FUNCTION portal_audit.facility_maintenance_end(p_facility TEXT, p_cancel BOOLEAN DEFAULT false, p_id UUID DEFAULT NULL) RETURNS UUID
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  m portal_audit.maintenance;
BEGIN
  SELECT * INTO m FROM portal_audit.maintenance
   WHERE facility = p_facility AND ended_at IS NULL AND (from_time > now()) = p_cancel AND (p_id IS NULL OR maintenance_id = p_id)
   ORDER BY from_time LIMIT 1 FOR UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION '%', CASE WHEN p_cancel THEN 'no maintenance of this facility is planned' ELSE 'this facility is not under maintenance' END USING ERRCODE = 'PA002';
  END IF;
  UPDATE portal_audit.maintenance SET ended_by = portal_audit.facility_operator(), ended_at = now() WHERE maintenance_id = m.maintenance_id;
  PERFORM portal_audit.record(CASE WHEN p_cancel THEN 'facility_maintenance_cancelled' ELSE 'facility_maintenance_ended' END,
    portal_audit.facility_operator(), p_facility, 'facility', NULL, true, NULL,
    jsonb_build_object('maintenance', m.maintenance_id, 'from', portal_audit.utc_text(m.from_time), 'until', portal_audit.utc_text(m.until), 'note', m.note));
  RETURN m.maintenance_id;
END $$;
COMMENT ON FUNCTION portal_audit.facility_maintenance_end IS 'Ends maintenance that has begun, or cancels maintenance that has not, and records that as an event';

-- What a probe found, by the database's clock. Many answers alike are one row.
CREATE OR REPLACE FUNCTION portal_audit.facility_probed(p_facility TEXT, p_reachable BOOLEAN, p_error TEXT, p_rtt_ms DOUBLE PRECISION) RETURNS VOID
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  stale CONSTANT INTERVAL := (SELECT value::float8 * INTERVAL '1 minute' FROM portal_audit.facility_rules WHERE rule = 'probe_stale_minutes');
  last  portal_audit.facility_probes;
BEGIN
  SELECT * INTO last FROM portal_audit.facility_probes WHERE facility = p_facility ORDER BY at DESC LIMIT 1 FOR UPDATE;
  -- A pause in which nobody asked is no part of a row.
  IF last.reachable = p_reachable AND last.error IS NOT DISTINCT FROM p_error AND last.last_at >= clock_timestamp() - stale THEN
    UPDATE portal_audit.facility_probes SET last_at = greatest(last_at, clock_timestamp()), rtt_ms = p_rtt_ms WHERE facility = p_facility AND at = last.at;
  ELSE
    INSERT INTO portal_audit.facility_probes AS k (facility, at, last_at, reachable, error, rtt_ms)
    VALUES (p_facility, clock_timestamp(), clock_timestamp(), p_reachable, p_error, p_rtt_ms);
  END IF;
END $$;
COMMENT ON FUNCTION portal_audit.facility_probed IS 'Keeps what a probe of a facility found; for the sidecar';

-- A place of the settings. What ops wrote with SQL for other facilities stays.
CREATE OR REPLACE FUNCTION portal_audit.facility_placed(
  p_facility TEXT, p_latitude DOUBLE PRECISION, p_longitude DOUBLE PRECISION, p_label_dx DOUBLE PRECISION, p_label_dy DOUBLE PRECISION, p_organization TEXT, p_url TEXT
) RETURNS VOID LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO portal_audit.facility_places AS k (facility, latitude, longitude, label_dx, label_dy, organization, url)
  VALUES (p_facility, p_latitude, p_longitude, p_label_dx, p_label_dy, p_organization, p_url)
  ON CONFLICT (facility) DO UPDATE SET latitude = excluded.latitude, longitude = excluded.longitude, label_dx = excluded.label_dx,
    label_dy = excluded.label_dy, organization = excluded.organization, url = excluded.url, updated_at = now()
  WHERE (k.latitude, k.longitude, k.label_dx, k.label_dy, k.organization, k.url)
        IS DISTINCT FROM (excluded.latitude, excluded.longitude, excluded.label_dx, excluded.label_dy, excluded.organization, excluded.url)
$$;
COMMENT ON FUNCTION portal_audit.facility_placed IS 'Keeps the place of a facility as the settings have it; for the sidecar';

INSERT INTO portal_audit.event_types (event_type, describe, retention, visible_to) VALUES
  ('facility_maintenance_planned', '{caller} planned maintenance of facility {subject} from {payload.from} until {payload.until}: {payload.note}', 'project', ARRAY['admin', 'facility']),
  ('facility_maintenance_ended', '{caller} ended the maintenance of facility {subject}: {payload.note}', 'project', ARRAY['admin', 'facility']),
  ('facility_maintenance_cancelled', '{caller} cancelled the maintenance of facility {subject} that was to begin {payload.from}: {payload.note}', 'project', ARRAY['admin', 'facility'])
ON CONFLICT (event_type) DO UPDATE SET describe = excluded.describe, retention = excluded.retention, visible_to = excluded.visible_to;

-- Who sees an event of the realization sees what it holds: the policy asks `events`, whose own policies answer for the one who asks.
DROP POLICY IF EXISTS facility_allocations_seen ON portal_audit.facility_allocations;
CREATE POLICY facility_allocations_seen ON portal_audit.facility_allocations FOR SELECT
  USING (EXISTS (SELECT FROM public.events e WHERE e.event_uuid = facility_allocations.event_uuid));

REVOKE ALL ON FUNCTION portal_audit.facility_names, portal_audit.facility_state, portal_audit.facility_states, portal_audit.facility_history, portal_audit.facilities_behind, portal_audit.fold_facilities,
  portal_audit.fold_uses, portal_audit.fold_facility_itself, portal_audit.facility_maintenance_plan,
  portal_audit.facility_maintenance_end, portal_audit.facility_probed, portal_audit.facility_placed FROM PUBLIC;
DO $$
DECLARE
  r TEXT;
BEGIN
  -- Operators of facilities: they may announce and end maintenance, and say where facilities are.
  BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'portal_audit_operator') THEN
      CREATE ROLE portal_audit_operator NOLOGIN;
    END IF;
  EXCEPTION
    WHEN insufficient_privilege THEN
      RAISE WARNING 'role portal_audit_operator is missing and could not be created';
    WHEN duplicate_object OR unique_violation THEN
      NULL;  -- Another database of the cluster was set up at the same moment.
  END;
  -- Reading a relation that is not locked yet makes the session take notice of a role that another has made a moment ago.
  PERFORM FROM pg_catalog.pg_shseclabel LIMIT 1;
  FOR r IN SELECT rolname FROM pg_roles WHERE rolname IN ('portal_audit_reader', 'portal_audit_viewer', 'portal_audit_operator', 'portal_audit_admin') LOOP
    EXECUTE format('GRANT USAGE ON SCHEMA portal_audit TO %I', r);
    EXECUTE format('GRANT EXECUTE ON FUNCTION portal_audit.facility_names, portal_audit.facility_state, portal_audit.facility_states, portal_audit.facility_history, portal_audit.facilities_behind,
      portal_audit.fold_facilities TO %I', r);
    EXECUTE format('GRANT SELECT ON portal_audit.facility_rules, portal_audit.facility_places, portal_audit.maintenance, portal_audit.facility_probes, portal_audit.facility_points,
      portal_audit.facility_resources, portal_audit.facility_uses, portal_audit.facility_days, portal_audit.facility_folded TO %I', r);
  END LOOP;
  FOR r IN SELECT rolname FROM pg_roles WHERE rolname IN ('portal_audit_reader', 'portal_audit_viewer', 'portal_audit_admin') LOOP
    EXECUTE format('GRANT SELECT ON portal_audit.facility_allocations TO %I', r);
  END LOOP;
  FOR r IN SELECT rolname FROM pg_roles WHERE rolname IN ('portal_audit_operator', 'portal_audit_admin') LOOP
    EXECUTE format('GRANT EXECUTE ON FUNCTION portal_audit.facility_maintenance_plan, portal_audit.facility_maintenance_end TO %I', r);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON portal_audit.facility_places TO %I', r);
  END LOOP;
  FOR r IN SELECT rolname FROM pg_roles WHERE rolname = 'portal_audit_writer' LOOP
    EXECUTE format('GRANT EXECUTE ON FUNCTION portal_audit.fold_facilities, portal_audit.facility_probed, portal_audit.facility_placed TO %I', r);
  END LOOP;
END $$;
