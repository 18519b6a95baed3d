-- What the derived tables have to hold, in schema oracle, said as plainly as it can be: of all events at once, and of facilities one event at a time.
CREATE SCHEMA oracle;
DO $$ DECLARE t TEXT; BEGIN
  FOREACH t IN ARRAY ARRAY['lifetime_points', 'lifetimes', 'membership_points', 'resource_points', 'hourly', 'active_days', 'active',
                           'facility_resources', 'facility_allocations', 'facility_points', 'facility_uses', 'facility_days'] LOOP
    EXECUTE format('CREATE TABLE oracle.%I (LIKE portal_audit.%1$I INCLUDING INDEXES INCLUDING IDENTITY INCLUDING DEFAULTS)', t);
  END LOOP;
END $$;
CREATE VIEW oracle.e AS
  SELECT e.*, e.timestamp AS at, portal_audit.short(e.subject) AS name, portal_audit.change_of(e.event_type, e.subject_type) AS change,
         CASE WHEN jsonb_typeof(e.payload) = 'object' THEN e.payload ELSE '{}' END AS facts,
         CASE WHEN e.payload #>> '{_audit,lsn}' ~ '^[0-9A-F]+/[0-9A-F]+$' THEN (e.payload #>> '{_audit,lsn}')::pg_lsn ELSE '0/0' END AS lsn,
         CASE WHEN e.payload #>> '{_audit,n}' ~ '^[0-9]+$' THEN (e.payload #>> '{_audit,n}')::bigint ELSE 0 END AS n FROM public.events e;

CREATE PROCEDURE oracle.whole() LANGUAGE sql AS $$
  INSERT INTO oracle.hourly SELECT event_type, date_trunc('hour', at, 'UTC'), success, count(*) FROM oracle.e GROUP BY 1, 2, 3;
  INSERT INTO oracle.active_days SELECT kind, portal_audit.short(name), (at AT TIME ZONE 'UTC')::date, min(at), max(at) FROM (
    SELECT 'user' AS kind, caller AS name, at FROM oracle.e WHERE caller <> '' AND payload #>> '{_audit,source}' IS DISTINCT FROM '.own' UNION ALL
    SELECT 'user', subject, at FROM oracle.e WHERE event_type IN ('login_succeeded', 'login_refreshed') AND success UNION ALL
    SELECT 'project', facts ->> 'project', at FROM oracle.e WHERE facts ->> 'project' <> '' AND subject_type IN ('experiment', 'realization', 'materialization', 'xdc')) AS a
   GROUP BY 1, 2, 3;
  INSERT INTO oracle.active SELECT kind, name, min(first), max(last) FROM oracle.active_days GROUP BY 1, 2;
  INSERT INTO oracle.membership_points SELECT subject_type, name, target, CASE lower(facts ->> 'kind') WHEN 'projectmember' THEN 'project' ELSE 'user' END, at, lsn, n, event_uuid,
         CASE WHEN event_type !~ 'deleted$' THEN lower(coalesce(facts ->> 'role', 'member')) END,
         CASE WHEN event_type !~ 'deleted$' THEN lower(coalesce(facts ->> 'state', CASE WHEN event_type ~ 'requested$' THEN 'pending' ELSE 'active' END)) END
    FROM oracle.e WHERE success AND target IS NOT NULL AND (event_type ~ '^project_member' AND subject_type = 'project' OR event_type ~ '^facility_member' AND subject_type = 'facility'
      OR event_type ~ '^org_member' AND subject_type = 'organization');
  INSERT INTO oracle.resource_points SELECT DISTINCT r.name, subject_type, e.name, at, lsn, n, event_uuid, facts ->> 'action' = 'allocate', facts ->> 'project', facts ->> 'experiment'
    FROM oracle.e e CROSS JOIN LATERAL jsonb_array_elements_text(CASE WHEN facts ? 'resources' THEN facts -> 'resources' ELSE '[]' END) AS r (name)
   WHERE facts ? 'action' AND subject_type IN ('realization', 'materialization') AND (success OR subject_type = 'materialization');
  INSERT INTO oracle.lifetime_points SELECT subject_type, CASE subject_type WHEN 'experiment' THEN coalesce(facts ->> 'project', '') ELSE '' END, name, at, lsn, n, event_uuid,
         change, change IN ('deleted', 'declined', 'relinquished', 'expired', 'ended'),
         CASE change WHEN 'activated' THEN 'active' WHEN 'unfrozen' THEN 'active' WHEN 'frozen' THEN 'frozen' ELSE coalesce(facts ->> 'state', facts ->> 'status') END,
         (SELECT jsonb_object_agg(key, value) FROM jsonb_each(facts) WHERE key IN ('category', 'subcategory', 'organization', 'project', 'experiment')),
         CASE change WHEN 'renamed' THEN CASE subject_type WHEN 'experiment' THEN coalesce(facts ->> 'old_project', facts ->> 'project', '') ELSE '' END END,
         CASE change WHEN 'renamed' THEN coalesce(facts ->> 'old_name', name) END
    FROM oracle.e WHERE change IS NOT NULL AND (success OR change = 'completed');
  INSERT INTO oracle.lifetime_points SELECT subject_type, old_within, old_name, at, lsn, n, event_uuid, 'renamed_away', true
    FROM oracle.lifetime_points WHERE change = 'renamed' AND (old_within, old_name) <> (within, subject);
  INSERT INTO oracle.lifetimes
    SELECT DISTINCT ON (subject_type, within, subject, at, lsn, n) subject_type, within, subject, at, lsn, n, next_at, event_uuid, next_uuid, old_within, old_name FROM (
      SELECT *, lead(at) OVER w AS next_at, lead(event_uuid) OVER w AS next_uuid FROM (
        SELECT *, lag(ends, 1, true) OVER (PARTITION BY subject_type, within, subject ORDER BY at, lsn, n, event_uuid) AS was FROM oracle.lifetime_points) AS p
       WHERE ends <> was WINDOW w AS (PARTITION BY subject_type, within, subject ORDER BY at, lsn, n, event_uuid)) AS edges
     WHERE NOT ends ORDER BY subject_type, within, subject, at, lsn, n, event_uuid DESC
$$;

CREATE FUNCTION oracle.used(p_facility TEXT, p_at TIMESTAMPTZ, p_event UUID, p_allocated INT, p_succeeded INT, p_failed INT) RETURNS VOID LANGUAGE sql AS $$
  INSERT INTO oracle.facility_uses AS u VALUES (p_facility, p_at, p_event, p_allocated, p_succeeded, p_failed)
  ON CONFLICT (facility, at, event_uuid) DO UPDATE SET allocated = u.allocated + excluded.allocated;
  INSERT INTO oracle.facility_days AS d VALUES (p_facility, (p_at AT TIME ZONE 'UTC')::date, p_allocated, p_succeeded, p_failed)
  ON CONFLICT (facility, day) DO UPDATE SET allocated = d.allocated + excluded.allocated, succeeded = d.succeeded + excluded.succeeded, failed = d.failed + excluded.failed
$$;
CREATE FUNCTION oracle.facility(e public.events) RETURNS VOID LANGUAGE plpgsql AS $$
DECLARE
  list  TEXT[] := ARRAY(SELECT DISTINCT jsonb_array_elements_text(e.payload -> 'resources') WHERE jsonb_typeof(e.payload -> 'resources') = 'array');
  named TEXT[] := ARRAY(SELECT jsonb_array_elements_text(e.payload -> 'facilities') WHERE jsonb_typeof(e.payload -> 'facilities') = 'array');
  pairs TEXT[] := '{}';
  is_there BOOLEAN := e.event_type <> 'facility_deleted';
  last  oracle.facility_points;
  u     RECORD;
BEGIN
  IF named = '{}' THEN
    named := ARRAY(SELECT DISTINCT a.facility FROM oracle.facility_allocations a WHERE a.realization = e.subject);
  END IF;
  CREATE TEMP TABLE pair ON COMMIT DROP AS SELECT DISTINCT f.facility, r.resource FROM unnest(list) AS r (resource)
    CROSS JOIN LATERAL (SELECT k.facility FROM oracle.facility_resources k WHERE k.resource = r.resource AND (named = '{}' OR k.facility = ANY (named))
                        UNION SELECT named[1] WHERE cardinality(named) = 1) AS f;
  IF e.event_type = 'materialization_completed' THEN
    PERFORM oracle.used(facility, e.timestamp, e.event_uuid, 0, e.success::int, (NOT e.success)::int) FROM (SELECT DISTINCT facility FROM pair) AS p;
  ELSIF NOT e.success THEN
    NULL;
  ELSIF e.event_type IN ('realization_created', 'resources_allocated') THEN
    FOR u IN INSERT INTO oracle.facility_allocations SELECT facility, resource, e.subject, e.timestamp, e.event_uuid FROM pair ON CONFLICT DO NOTHING RETURNING facility, resource LOOP
      PERFORM oracle.used(u.facility, e.timestamp, e.event_uuid, 1, 0, 0)
        WHERE NOT EXISTS (SELECT FROM oracle.facility_allocations a WHERE (a.facility, a.resource) = (u.facility, u.resource) AND a.realization <> e.subject);
    END LOOP;
  ELSIF e.event_type IN ('realization_relinquished', 'realization_expired', 'resources_deallocated') THEN
    FOR u IN DELETE FROM oracle.facility_allocations WHERE realization = e.subject AND (e.event_type <> 'resources_deallocated' OR resource = ANY (list)) RETURNING facility, resource LOOP
      PERFORM oracle.used(u.facility, e.timestamp, e.event_uuid, -1, 0, 0)
        WHERE NOT EXISTS (SELECT FROM oracle.facility_allocations a WHERE (a.facility, a.resource) = (u.facility, u.resource));
    END LOOP;
  ELSIF e.subject_type = 'facility' THEN
    SELECT * INTO last FROM oracle.facility_points WHERE facility = e.subject ORDER BY at DESC, point DESC LIMIT 1;
    IF e.event_type IN ('facility_resources_removed', 'facility_member_deleted') AND NOT coalesce(last.registered, true) THEN
      is_there := FALSE;
    END IF;
    IF e.event_type = 'facility_deleted' THEN
      PERFORM oracle.used(e.subject, e.timestamp, e.event_uuid, -k, 0, 0)
         FROM (SELECT count(DISTINCT resource)::int AS k FROM oracle.facility_allocations WHERE facility = e.subject) AS allocated WHERE k > 0;
      DELETE FROM oracle.facility_allocations WHERE facility = e.subject;
      DELETE FROM oracle.facility_resources WHERE facility = e.subject;
    ELSIF e.event_type = 'facility_resources_removed' THEN
      DELETE FROM oracle.facility_resources WHERE facility = e.subject AND resource = ANY (list);
    ELSIF e.event_type IN ('facility_resources_added', 'facility_resources_activated', 'facility_resources_deactivated') THEN
      INSERT INTO oracle.facility_resources AS r
      SELECT e.subject, resource, e.event_type <> 'facility_resources_deactivated' AND NOT coalesce(e.payload -> 'inactive' ? resource, false), e.timestamp FROM unnest(list) AS l (resource)
      ON CONFLICT (facility, resource) DO UPDATE SET active = excluded.active, since = excluded.since WHERE r.active <> excluded.active;
    END IF;
    INSERT INTO oracle.facility_points (facility, at, registered, resources, active, is_whole, event_uuid)
    SELECT e.subject, greatest(e.timestamp, last.at), is_there, count(*), count(*) FILTER (WHERE active),
           is_there AND (e.event_type = 'facility_registered' OR coalesce(last.is_whole, false)), e.event_uuid FROM oracle.facility_resources WHERE facility = e.subject;
  END IF;
  DROP TABLE pair;
END $$;
-- In the order of the seals; within one, facilities of before the audit first.
CREATE PROCEDURE oracle.facilities() LANGUAGE plpgsql AS $$
DECLARE
  e public.events;
BEGIN
  FOR e IN SELECT (v).* FROM portal_audit.seals s CROSS JOIN generate_series(0, s.events - 1) AS n
             CROSS JOIN LATERAL (SELECT v FROM public.events v WHERE v.event_uuid = encode(substr(s.uuids, 16 * n + 1, 16), 'hex')::uuid) AS v
            ORDER BY s.tree <> '.adopted', s.tree, s.first, (v).subject_type <> 'facility' OR NOT coalesce((v).payload -> '_audit' ? 'backfill', false), n LOOP
    PERFORM oracle.facility(e);
  END LOOP;
END $$;
