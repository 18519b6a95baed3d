
-- 9. Facilities: where they are, when they are under maintenance, whether they answer, and from that and from events their state at any time.
--     No portal row says whether a facility is up. What is said here is concluded, by rules that stand in a table, and each state says why and since when.

-- Numbers that the states rest on. Change them with UPDATE; running this script again leaves them.
CREATE TABLE IF NOT EXISTS portal_audit.facility_rules (
  rule    TEXT PRIMARY KEY,
  value   NUMERIC NOT NULL CHECK (value >= 0),
  meaning TEXT NOT NULL
);
COMMENT ON TABLE  portal_audit.facility_rules IS 'Numbers that the states of facilities rest on; ops may change them';
COMMENT ON COLUMN portal_audit.facility_rules.rule IS 'Its name in portal_audit.facility_state';
COMMENT ON COLUMN portal_audit.facility_rules.value IS 'A share from 0 to 1, or a number in the unit that the name ends with';
COMMENT ON COLUMN portal_audit.facility_rules.meaning IS 'What it decides';
INSERT INTO portal_audit.facility_rules (rule, value, meaning) VALUES
  ('inactive_share',      0.25, 'Degraded: at least this share of its resources is not active'),
  ('failed_share',        0.5,  'Degraded: at least this share of the recent materializations on it failed'),
  ('failed_count',        3,    'Degraded: and at least so many of them failed'),
  ('recent_hours',        24,   'How long a materialization is recent'),
  ('planned_days',        7,    'Planned: maintenance begins within so many days'),
  ('overdue_days',        7,    'Maintenance that nobody ended counts until so many days after its expected end'),
  ('silent_days',         30,   'Unknown: neither an event nor a probe told of it for so many days'),
  ('probe_stale_minutes', 15,   'An answer to a probe tells nothing any more after so many minutes')
ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS portal_audit.facility_places (
  facility     TEXT PRIMARY KEY,
  latitude     DOUBLE PRECISION CHECK (latitude BETWEEN -90 AND 90),
  longitude    DOUBLE PRECISION CHECK (longitude BETWEEN -180 AND 180),
  label_dx     DOUBLE PRECISION NOT NULL DEFAULT 0,
  label_dy     DOUBLE PRECISION NOT NULL DEFAULT 0,
  organization TEXT,
  url          TEXT CHECK (url ~ '^https?://'),
  updated_at   TIMESTAMPTZ NOT NULL DEFAULT now(),
  CHECK ((latitude IS NULL) = (longitude IS NULL))
);
COMMENT ON TABLE  portal_audit.facility_places IS 'Where facilities are: from [[facility]] of the settings, or by ops with SQL. A facility without a row is in the table of facilities and not on the map';
COMMENT ON COLUMN portal_audit.facility_places.facility IS 'Name of the facility in the portal';
COMMENT ON COLUMN portal_audit.facility_places.latitude IS 'Degrees, north is positive; NULL: not on the map';
COMMENT ON COLUMN portal_audit.facility_places.longitude IS 'Degrees, east is positive';
COMMENT ON COLUMN portal_audit.facility_places.label_dx IS 'Moves the name on the map to the right, in units of its 960 units of width';
COMMENT ON COLUMN portal_audit.facility_places.label_dy IS 'Moves the name on the map down';
COMMENT ON COLUMN portal_audit.facility_places.organization IS 'Who runs it';
COMMENT ON COLUMN portal_audit.facility_places.url IS 'Its own page';
COMMENT ON COLUMN portal_audit.facility_places.updated_at IS 'When this row was last written';

CREATE TABLE IF NOT EXISTS portal_audit.maintenance (
  maintenance_id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  facility       TEXT NOT NULL,
  from_time      TIMESTAMPTZ NOT NULL,
  until          TIMESTAMPTZ NOT NULL CHECK (until > from_time),
  note           TEXT NOT NULL CHECK (length(note) BETWEEN 1 AND 2000),
  announced_by   TEXT NOT NULL,
  announced_at   TIMESTAMPTZ NOT NULL DEFAULT now(),
  ended_by       TEXT,
  ended_at       TIMESTAMPTZ,
  CHECK ((ended_by IS NULL) = (ended_at IS NULL))
);
CREATE INDEX IF NOT EXISTS maintenance_facility ON portal_audit.maintenance (facility, from_time);
COMMENT ON TABLE  portal_audit.maintenance IS 'Maintenance of facilities as operators announced it. Written by facility_maintenance_plan and facility_maintenance_end, each of which also writes an event';
COMMENT ON COLUMN portal_audit.maintenance.maintenance_id IS 'Names it, in the payload of its events too';
COMMENT ON COLUMN portal_audit.maintenance.facility IS 'Name of the facility';
COMMENT ON COLUMN portal_audit.maintenance.from_time IS 'When it begins';
COMMENT ON COLUMN portal_audit.maintenance.until IS 'When it is expected to end. It lasts until somebody ends it';
COMMENT ON COLUMN portal_audit.maintenance.note IS 'What is done, for users to read';
COMMENT ON COLUMN portal_audit.maintenance.announced_by IS 'Who announced it';
COMMENT ON COLUMN portal_audit.maintenance.announced_at IS 'When';
COMMENT ON COLUMN portal_audit.maintenance.ended_by IS 'Who ended or cancelled it';
COMMENT ON COLUMN portal_audit.maintenance.ended_at IS 'When; before from_time: it was cancelled';

CREATE TABLE IF NOT EXISTS portal_audit.facility_probes (
  facility  TEXT NOT NULL,
  at        TIMESTAMPTZ NOT NULL,
  last_at   TIMESTAMPTZ NOT NULL CHECK (last_at >= at),
  reachable BOOLEAN NOT NULL,
  error     TEXT,
  rtt_ms    DOUBLE PRECISION,
  PRIMARY KEY (facility, at)
);
COMMENT ON TABLE  portal_audit.facility_probes IS 'Whether facilities answer, if the settings ask for it: one row as long as the answer stays the same';
COMMENT ON COLUMN portal_audit.facility_probes.facility IS 'Name of the facility';
COMMENT ON COLUMN portal_audit.facility_probes.at IS 'When this answer came first';
COMMENT ON COLUMN portal_audit.facility_probes.last_at IS 'When it came last';
COMMENT ON COLUMN portal_audit.facility_probes.reachable IS 'Whether its address took a TCP connection';
COMMENT ON COLUMN portal_audit.facility_probes.error IS 'refused, timeout, name or network; NULL if it was reachable';
COMMENT ON COLUMN portal_audit.facility_probes.rtt_ms IS 'Milliseconds until it was connected, at the last time';

-- What events say of facilities, made from events by portal_audit.fold_facilities and by nothing else: it can be thrown away and made anew.
CREATE TABLE IF NOT EXISTS portal_audit.facility_folded (
  tree TEXT PRIMARY KEY,
  upto BIGINT NOT NULL DEFAULT 0
);
COMMENT ON TABLE  portal_audit.facility_folded IS 'How far the tables of facilities follow the trees of events';
COMMENT ON COLUMN portal_audit.facility_folded.tree IS 'As in portal_audit.trees';
COMMENT ON COLUMN portal_audit.facility_folded.upto IS 'Leaves before this index are counted';

CREATE TABLE IF NOT EXISTS portal_audit.facility_resources (
  facility TEXT NOT NULL,
  resource TEXT NOT NULL,
  active   BOOLEAN NOT NULL,
  since    TIMESTAMPTZ NOT NULL,
  PRIMARY KEY (facility, resource)
);
CREATE INDEX IF NOT EXISTS facility_resources_resource ON portal_audit.facility_resources (resource);
COMMENT ON TABLE  portal_audit.facility_resources IS 'Resources of facilities now, as events tell them. One that is added counts as active unless its event lists it under inactive';
COMMENT ON COLUMN portal_audit.facility_resources.facility IS 'Name of the facility';
COMMENT ON COLUMN portal_audit.facility_resources.resource IS 'Name of the resource in it';
COMMENT ON COLUMN portal_audit.facility_resources.active IS 'Whether it can be had';
COMMENT ON COLUMN portal_audit.facility_resources.since IS 'Since when that is so';

CREATE TABLE IF NOT EXISTS portal_audit.facility_allocations (
  facility    TEXT NOT NULL,
  resource    TEXT NOT NULL,
  realization TEXT NOT NULL,
  since       TIMESTAMPTZ NOT NULL,
  event_uuid  UUID NOT NULL,
  PRIMARY KEY (facility, resource, realization)
);
CREATE INDEX IF NOT EXISTS facility_allocations_realization ON portal_audit.facility_allocations (realization);
ALTER TABLE portal_audit.facility_allocations ENABLE ROW LEVEL SECURITY;
COMMENT ON TABLE  portal_audit.facility_allocations IS 'Resources that are allocated now, and to which realization. Whoever may see the event that allocated it sees the row';
COMMENT ON COLUMN portal_audit.facility_allocations.facility IS 'Name of the facility';
COMMENT ON COLUMN portal_audit.facility_allocations.resource IS 'Name of the resource';
COMMENT ON COLUMN portal_audit.facility_allocations.realization IS 'Subject of its event: realization.experiment.project';
COMMENT ON COLUMN portal_audit.facility_allocations.since IS 'Time of that event';
COMMENT ON COLUMN portal_audit.facility_allocations.event_uuid IS 'That event';

CREATE TABLE IF NOT EXISTS portal_audit.facility_points (
  facility   TEXT NOT NULL,
  point      BIGINT GENERATED ALWAYS AS IDENTITY,
  at         TIMESTAMPTZ NOT NULL,
  registered BOOLEAN NOT NULL,
  resources  INT NOT NULL,
  active     INT NOT NULL,
  is_whole   BOOLEAN NOT NULL,
  event_uuid UUID NOT NULL,
  PRIMARY KEY (facility, at, point)
);
COMMENT ON TABLE  portal_audit.facility_points IS 'Each event of a facility, with the numbers of its resources after it';
COMMENT ON COLUMN portal_audit.facility_points.facility IS 'Name of the facility';
COMMENT ON COLUMN portal_audit.facility_points.point IS 'Order of points of one time';
COMMENT ON COLUMN portal_audit.facility_points.at IS 'Time of the event, and never before that of the point before';
COMMENT ON COLUMN portal_audit.facility_points.registered IS 'Whether the portal had it then';
COMMENT ON COLUMN portal_audit.facility_points.resources IS 'Its resources';
COMMENT ON COLUMN portal_audit.facility_points.active IS 'How many of them were active';
COMMENT ON COLUMN portal_audit.facility_points.is_whole IS 'Whether its registration is in the record, so that these are all of its resources';
COMMENT ON COLUMN portal_audit.facility_points.event_uuid IS 'The event';

-- Differences rather than numbers, because rows that are older than the audit come in no order.
CREATE TABLE IF NOT EXISTS portal_audit.facility_uses (
  facility   TEXT NOT NULL,
  at         TIMESTAMPTZ NOT NULL,
  event_uuid UUID NOT NULL,
  allocated  INT NOT NULL,
  succeeded  INT NOT NULL,
  failed     INT NOT NULL,
  PRIMARY KEY (facility, at, event_uuid)
);
COMMENT ON TABLE  portal_audit.facility_uses IS 'Each event that used a facility: realizations and materializations on it';
COMMENT ON COLUMN portal_audit.facility_uses.facility IS 'Name of the facility';
COMMENT ON COLUMN portal_audit.facility_uses.at IS 'Time of the event';
COMMENT ON COLUMN portal_audit.facility_uses.event_uuid IS 'The event';
COMMENT ON COLUMN portal_audit.facility_uses.allocated IS 'How many more of its resources are allocated after it; negative: fewer';
COMMENT ON COLUMN portal_audit.facility_uses.succeeded IS '1: a materialization on it succeeded';
COMMENT ON COLUMN portal_audit.facility_uses.failed IS '1: a materialization on it failed';

CREATE TABLE IF NOT EXISTS portal_audit.facility_days (
  facility  TEXT NOT NULL,
  day       DATE NOT NULL,
  allocated INT NOT NULL,
  succeeded INT NOT NULL,
  failed    INT NOT NULL,
  PRIMARY KEY (facility, day)
);
COMMENT ON TABLE  portal_audit.facility_days IS 'Sums of portal_audit.facility_uses by day (UTC)';
COMMENT ON COLUMN portal_audit.facility_days.facility IS 'Name of the facility';
COMMENT ON COLUMN portal_audit.facility_days.day IS 'The day, UTC';
COMMENT ON COLUMN portal_audit.facility_days.allocated IS 'As in facility_uses';
COMMENT ON COLUMN portal_audit.facility_days.succeeded IS 'As in facility_uses';
COMMENT ON COLUMN portal_audit.facility_days.failed IS 'As in facility_uses';

-- They folded one event at a time once.
DROP FUNCTION IF EXISTS portal_audit.fold_facility(public.events), portal_audit.facility_resources_of(public.events),
  portal_audit.facility_used(TEXT, TIMESTAMPTZ, UUID, INT, INT, INT);

-- What uses facilities: realizations that are given resources and give them back, and materializations on them. Some events that follow each
-- other, as columns; between them no facility gets or loses a resource. All at once: who has what is told by the last event before.
--
-- An event names facilities and resources in two lists; a resource belongs to those facilities of the list that have one of that name, or to the
-- only one. An event without a list of facilities is taken to those of its realization, else to those that have the resource.
CREATE OR REPLACE FUNCTION portal_audit.fold_uses(
  p_events UUID[], p_times TIMESTAMPTZ[], p_whats TEXT[], p_subjects TEXT[], p_successes BOOLEAN[], p_resources JSONB[], p_facilities JSONB[]
) RETURNS VOID LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  WITH u AS MATERIALIZED (
    SELECT e.place, e.at, e.event_uuid, e.what, e.subject, e.success,
           ARRAY(SELECT DISTINCT i.item FROM jsonb_array_elements_text(e.resources) AS i (item) WHERE i.item IS NOT NULL) AS resources,
           CASE WHEN e.what = 'gives' AND e.facilities = '[]'
                THEN ARRAY(SELECT DISTINCT a.facility FROM portal_audit.facility_allocations a WHERE a.realization = e.subject)
                ELSE ARRAY(SELECT i.item FROM jsonb_array_elements_text(e.facilities) AS i (item) WHERE i.item IS NOT NULL) END AS named
      FROM unnest(p_events, p_times, p_whats, p_subjects, p_successes, p_resources, p_facilities) WITH ORDINALITY
           AS e (event_uuid, at, what, subject, success, resources, facilities, place)
     WHERE e.what <> ''
  ), given AS MATERIALIZED (
    SELECT DISTINCT u.place, u.at, u.event_uuid, u.subject, f.facility, r.resource
      FROM u CROSS JOIN LATERAL unnest(u.resources) AS r (resource)
     CROSS JOIN LATERAL (SELECT k.facility FROM portal_audit.facility_resources k WHERE k.resource = r.resource AND (u.named = '{}' OR k.facility = ANY (u.named))
                         UNION SELECT u.named[1] WHERE cardinality(u.named) = 1) AS f
     WHERE u.what = 'gives'
  ), pairs AS MATERIALIZED (
    SELECT subject, facility, resource, bool_or(was) AS was
      FROM (SELECT a.realization AS subject, a.facility, a.resource, true AS was
              FROM (SELECT DISTINCT subject FROM u) AS s
             CROSS JOIN LATERAL (SELECT * FROM portal_audit.facility_allocations a WHERE a.realization = s.subject OFFSET 0) AS a
            UNION ALL SELECT subject, facility, resource, false FROM given) AS p GROUP BY 1, 2, 3
  ), steps AS MATERIALIZED (
    SELECT * FROM (
      SELECT o.*, lag(o.has, 1, p.was) OVER (PARTITION BY subject, facility, resource ORDER BY o.place) AS had
        FROM (SELECT place, at, event_uuid, subject, facility, resource, true AS has FROM given
              UNION ALL
              SELECT u.place, u.at, u.event_uuid, subject, p.facility, p.resource, false FROM u JOIN pairs p USING (subject)
               WHERE u.what = 'ends' OR u.what = 'takes' AND p.resource = ANY (u.resources)) AS o
        JOIN pairs p USING (subject, facility, resource)) AS o
     WHERE has <> had
  ), turns AS (
    SELECT s.*, b.holders + sum(CASE WHEN has THEN 1 ELSE -1 END) OVER (PARTITION BY facility, resource ORDER BY place) AS holders
      FROM steps s JOIN (
        SELECT d.facility, d.resource, n.holders FROM (SELECT DISTINCT facility, resource FROM steps) AS d
         CROSS JOIN LATERAL (SELECT count(*) AS holders FROM portal_audit.facility_allocations a WHERE a.facility = d.facility AND a.resource = d.resource OFFSET 0) AS n) AS b
        USING (facility, resource)
  ), there AS (
    -- Materializations that name no facility, and those that their realization had at that moment.
    SELECT place, array_agg(DISTINCT facility) AS named
      FROM (SELECT DISTINCT ON (u.place, p.facility, p.resource) u.place, p.facility, coalesce(s.has, p.was) AS has
              FROM u JOIN pairs p USING (subject)
              LEFT JOIN steps s ON s.subject = p.subject AND s.facility = p.facility AND s.resource = p.resource AND s.place < u.place
             WHERE u.what = 'completes' AND u.named = '{}' ORDER BY u.place, p.facility, p.resource, s.place DESC NULLS LAST) AS t
     WHERE has GROUP BY 1
  ), completed AS (
    SELECT DISTINCT f.facility, c.at, c.event_uuid, c.success
      FROM (SELECT u.at, u.event_uuid, u.success, u.resources, coalesce(t.named, u.named) AS named FROM u LEFT JOIN there t USING (place) WHERE u.what = 'completes') AS c
     CROSS JOIN LATERAL unnest(c.resources) AS r (resource)
     CROSS JOIN LATERAL (SELECT k.facility FROM portal_audit.facility_resources k WHERE k.resource = r.resource AND (c.named = '{}' OR k.facility = ANY (c.named))
                         UNION SELECT c.named[1] WHERE cardinality(c.named) = 1) AS f
  ), uses AS MATERIALIZED (
    -- A resource that several have is one.
    SELECT facility, at, event_uuid, sum(CASE WHEN has THEN 1 ELSE -1 END)::int AS allocated, 0 AS succeeded, 0 AS failed
      FROM turns WHERE holders = CASE WHEN has THEN 1 ELSE 0 END GROUP BY 1, 2, 3
    UNION ALL
    SELECT facility, at, event_uuid, 0, success::int, (NOT success)::int FROM completed
  ), lasts AS MATERIALIZED (
    SELECT DISTINCT ON (facility, resource, subject) * FROM steps ORDER BY facility, resource, subject, place DESC
  ), gone AS (
    DELETE FROM portal_audit.facility_allocations WHERE ctid = ANY (ARRAY(
      SELECT a.ctid FROM lasts l CROSS JOIN LATERAL (
        SELECT a.ctid FROM portal_audit.facility_allocations a WHERE a.facility = l.facility AND a.resource = l.resource AND a.realization = l.subject OFFSET 0) AS a
       WHERE NOT l.has))
  ), come AS (
    INSERT INTO portal_audit.facility_allocations (facility, resource, realization, since, event_uuid)
    SELECT facility, resource, subject, at, event_uuid FROM lasts WHERE has
    ON CONFLICT (facility, resource, realization) DO UPDATE SET since = excluded.since, event_uuid = excluded.event_uuid
  ), days AS (
    INSERT INTO portal_audit.facility_days AS d (facility, day, allocated, succeeded, failed)
    SELECT facility, (at AT TIME ZONE 'UTC')::date, sum(allocated), sum(succeeded), sum(failed) FROM uses GROUP BY 1, 2
    ON CONFLICT (facility, day) DO UPDATE SET allocated = d.allocated + excluded.allocated,
      succeeded = d.succeeded + excluded.succeeded, failed = d.failed + excluded.failed
  )
  INSERT INTO portal_audit.facility_uses AS k (facility, at, event_uuid, allocated, succeeded, failed) SELECT * FROM uses
  ON CONFLICT (facility, at, event_uuid) DO UPDATE SET allocated = k.allocated + excluded.allocated;
END $$;
COMMENT ON FUNCTION portal_audit.fold_uses IS 'Events of realizations and materializations into the tables of facilities; for portal_audit.fold_facilities';

CREATE OR REPLACE FUNCTION portal_audit.fold_facility_itself(e public.events, p_resources TEXT[]) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  is_there BOOLEAN := e.event_type <> 'facility_deleted';
  last     portal_audit.facility_points;
BEGIN
  SELECT * INTO last FROM portal_audit.facility_points WHERE facility = e.subject ORDER BY at DESC, point DESC LIMIT 1;
  -- What goes with its facility is told behind it, and does not bring it back.
  IF e.event_type IN ('facility_resources_removed', 'facility_member_deleted') AND NOT coalesce(last.registered, true) THEN
    is_there := FALSE;
  END IF;
  IF e.event_type = 'facility_deleted' THEN
    WITH used AS (
      INSERT INTO portal_audit.facility_uses AS u (facility, at, event_uuid, allocated, succeeded, failed)
      SELECT e.subject, e.timestamp, e.event_uuid, -count(DISTINCT resource), 0, 0 FROM portal_audit.facility_allocations WHERE facility = e.subject HAVING count(*) > 0
      ON CONFLICT (facility, at, event_uuid) DO UPDATE SET allocated = u.allocated + excluded.allocated RETURNING allocated
    )
    INSERT INTO portal_audit.facility_days AS d (facility, day, allocated, succeeded, failed)
    SELECT e.subject, (e.timestamp AT TIME ZONE 'UTC')::date, allocated, 0, 0 FROM used
    ON CONFLICT (facility, day) DO UPDATE SET allocated = d.allocated + excluded.allocated;
    DELETE FROM portal_audit.facility_allocations WHERE facility = e.subject;
    DELETE FROM portal_audit.facility_resources WHERE facility = e.subject;
  ELSIF e.event_type = 'facility_resources_removed' THEN
    DELETE FROM portal_audit.facility_resources WHERE facility = e.subject AND resource = ANY (p_resources);
  ELSIF e.event_type IN ('facility_resources_added', 'facility_resources_activated', 'facility_resources_deactivated') THEN
    INSERT INTO portal_audit.facility_resources AS r (facility, resource, active, since)
    SELECT e.subject, resource, e.event_type <> 'facility_resources_deactivated' AND NOT coalesce(e.payload->'inactive' ? resource, false), e.timestamp FROM unnest(p_resources) AS l (resource)
    ON CONFLICT (facility, resource) DO UPDATE SET active = excluded.active, since = excluded.since WHERE r.active <> excluded.active;
  END IF;
  INSERT INTO portal_audit.facility_points (facility, at, registered, resources, active, is_whole, event_uuid)
  SELECT e.subject, greatest(e.timestamp, last.at), is_there, count(*), count(*) FILTER (WHERE active),
         is_there AND (e.event_type = 'facility_registered' OR coalesce(last.is_whole, false)), e.event_uuid
    FROM portal_audit.facility_resources WHERE facility = e.subject;
END $$;
COMMENT ON FUNCTION portal_audit.fold_facility_itself IS 'An event of the facility itself; for portal_audit.fold_facilities';

-- Follows the trees, whole seals at a time. One session at a time; who comes second finds it done or leaves it to the first.
-- What was tried and rolled back changes nothing; of materializations the failures count. Plans are forced as in portal_audit.fold.
CREATE OR REPLACE FUNCTION portal_audit.fold_facilities(p_limit BIGINT DEFAULT 100000) RETURNS BIGINT
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_nestloop = off SET jit = off SET work_mem = '32MB' AS $$
DECLARE
  done       BIGINT := 0;
  t          RECORD;
  reached    BIGINT;
  ids        UUID[];
  seals      BIGINT[];
  times      TIMESTAMPTZ[];
  whats      TEXT[];
  subjects   TEXT[];
  successes  BOOLEAN[];
  resources  JSONB[];
  facilities JSONB[];
  -- The first of those that wait for the next one that changes what facilities have.
  waits      INT;
  e          public.events;
  list       TEXT[];
BEGIN
  -- Said here and not by facilities_behind(), which would be planned anew with each piece.
  IF NOT EXISTS (SELECT FROM portal_audit.trees r LEFT JOIN portal_audit.facility_folded f USING (tree) WHERE tree <> '.own' AND r.size > coalesce(f.upto, 0))
     OR NOT pg_try_advisory_xact_lock(hashtextextended('portal_audit.fold_facilities', 0)) THEN
    RETURN 0;
  END IF;
  INSERT INTO portal_audit.facility_folded (tree) SELECT tree FROM portal_audit.trees WHERE tree <> '.own' ON CONFLICT DO NOTHING;
  -- Rows from before there was a tree come first.
  FOR t IN SELECT f.tree, f.upto FROM portal_audit.facility_folded f JOIN portal_audit.trees USING (tree)
            WHERE size > f.upto ORDER BY tree <> '.adopted', tree LOOP
    EXIT WHEN done >= p_limit;
    SELECT array_agg(l.id ORDER BY l.first, l.n), array_agg(l.first ORDER BY l.first, l.n), max(l.next) INTO ids, seals, reached
      FROM (SELECT encode(substr(p.uuids, 16 * n + 1, 16), 'hex')::uuid AS id, p.first, n, p.first + p.events AS next
              -- Each row is read once.
              FROM (SELECT s.first, s.events, substr(s.uuids, 1) AS uuids FROM portal_audit.seals s
                     WHERE s.tree = t.tree AND s.first >= t.upto AND s.first < t.upto + p_limit - done OFFSET 0) AS p
             CROSS JOIN LATERAL generate_series(0, p.events - 1) AS n OFFSET 0) AS l;
    WITH found AS (
      SELECT l.first, l.n, v.event_uuid, v.timestamp, v.event_type, v.subject, v.subject_type, v.success, v.payload
        FROM public.events v JOIN unnest(ids, seals) WITH ORDINALITY AS l (id, first, n) ON l.id = v.event_uuid
       WHERE v.event_uuid = ANY (ids)
         AND (v.success AND v.subject_type = 'facility' OR v.event_type = 'materialization_completed'
           OR v.success AND v.event_type IN ('realization_created', 'resources_allocated', 'resources_deallocated', 'realization_relinquished', 'realization_expired'))
    ), ordered AS (
      SELECT f.*, CASE WHEN event_type = 'materialization_completed' THEN 'completes'
                       WHEN event_type IN ('realization_created', 'resources_allocated') THEN 'gives'
                       WHEN event_type = 'resources_deallocated' THEN 'takes'
                       WHEN event_type IN ('realization_relinquished', 'realization_expired') THEN 'ends' ELSE '' END AS what,
             -- What is older than the audit comes in no order: facilities before what uses them.
             row_number() OVER (ORDER BY first, subject_type <> 'facility' OR NOT coalesce(payload -> '_audit' ? 'backfill', false), n) AS place FROM found f
    )
    SELECT array_agg(event_uuid ORDER BY place), array_agg(timestamp ORDER BY place), array_agg(what ORDER BY place), array_agg(subject ORDER BY place), array_agg(success ORDER BY place),
           array_agg(CASE jsonb_typeof(payload -> 'resources') WHEN 'array' THEN payload -> 'resources' ELSE '[]' END ORDER BY place),
           array_agg(CASE jsonb_typeof(payload -> 'facilities') WHEN 'array' THEN payload -> 'facilities' ELSE '[]' END ORDER BY place)
      INTO ids, times, whats, subjects, successes, resources, facilities FROM ordered;
    waits := 1;
    FOR i IN 1 .. coalesce(cardinality(ids), 0) LOOP
      CONTINUE WHEN whats[i] <> '' AND (whats[i] <> 'gives' OR facilities[i] <> '[]');
      IF whats[i] = '' THEN
        SELECT * INTO STRICT e FROM public.events v WHERE v.event_uuid = ids[i];
        list := ARRAY(SELECT DISTINCT r.item FROM jsonb_array_elements_text(resources[i]) AS r (item) WHERE r.item IS NOT NULL);
      END IF;
      -- A realization that names no facility asks what it has. A facility asks nobody, but what it gets or loses counts for those behind it.
      IF array_to_string(whats[waits:i-1], '') <> '' AND (whats[i] <> '' OR e.event_type IN ('facility_deleted', 'facility_resources_removed')
                        OR e.event_type IN ('facility_resources_added', 'facility_resources_activated', 'facility_resources_deactivated')
                           AND cardinality(list) > (SELECT count(*) FROM portal_audit.facility_resources k WHERE k.facility = e.subject AND k.resource = ANY (list))) THEN
        PERFORM portal_audit.fold_uses(ids[waits:i-1], times[waits:i-1], whats[waits:i-1], subjects[waits:i-1], successes[waits:i-1], resources[waits:i-1], facilities[waits:i-1]);
        waits := i;
      END IF;
      IF whats[i] <> '' THEN
        PERFORM portal_audit.fold_uses(ids[i:i], times[i:i], whats[i:i], subjects[i:i], successes[i:i], resources[i:i], facilities[i:i]);
        waits := i + 1;
      ELSE
        PERFORM portal_audit.fold_facility_itself(e, list);
      END IF;
    END LOOP;
    IF waits <= cardinality(ids) THEN
      PERFORM portal_audit.fold_uses(ids[waits:], times[waits:], whats[waits:], subjects[waits:], successes[waits:], resources[waits:], facilities[waits:]);
    END IF;
    UPDATE portal_audit.facility_folded f SET upto = reached WHERE f.tree = t.tree;
    done := done + reached - t.upto;
  END LOOP;
  RETURN done;
END $$;
COMMENT ON FUNCTION portal_audit.fold_facilities IS 'Brings the tables of facilities up with the events, at most about so many of them; gives how many it looked at, 0 when there is none left';

CREATE OR REPLACE FUNCTION portal_audit.facilities_behind() RETURNS BIGINT
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(sum(t.size - coalesce(f.upto, 0)), 0)::bigint FROM portal_audit.trees t LEFT JOIN portal_audit.facility_folded f USING (tree) WHERE tree <> '.own'
$$;
COMMENT ON FUNCTION portal_audit.facilities_behind IS 'How many events the tables of facilities do not know yet';

