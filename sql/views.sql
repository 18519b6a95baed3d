
-- 6. What admins query: sentences, people and projects as of any time, numbers. Made from events alone.
-- Its order: derived tables, how an event becomes points, fold; sentences; as of any time; numbers.

-- A point says what was so from a time on. Points are added in any order and what was so at a time is looked up among them, so that rows of
-- old times, which come late, find their place. Within one time the position in the source's log decides, then the number in the transaction.
CREATE TABLE IF NOT EXISTS portal_audit.folded (
  tree TEXT PRIMARY KEY,
  upto BIGINT NOT NULL,
  at   TIMESTAMPTZ
);
COMMENT ON TABLE  portal_audit.folded IS 'How far the derived tables have come in each tree';
COMMENT ON COLUMN portal_audit.folded.tree IS 'As in portal_audit.trees';
COMMENT ON COLUMN portal_audit.folded.upto IS 'Leaves that are taken: index of the next one';
COMMENT ON COLUMN portal_audit.folded.at IS 'Latest time of the events among them';

CREATE TABLE IF NOT EXISTS portal_audit.lifetime_points (
  subject_type TEXT NOT NULL,
  within       TEXT NOT NULL,
  subject      TEXT NOT NULL,
  at           TIMESTAMPTZ NOT NULL,
  lsn          PG_LSN NOT NULL,
  n            BIGINT NOT NULL,
  event_uuid   UUID NOT NULL,
  change       TEXT NOT NULL,
  ends         BOOLEAN NOT NULL,
  state        TEXT,
  facts        JSONB,
  old_within   TEXT,
  old_name     TEXT,
  PRIMARY KEY (subject_type, within, subject, at, lsn, n, event_uuid)
);
COMMENT ON TABLE  portal_audit.lifetime_points IS 'What became of each user, organization, project, experiment, realization and so on, one row per event and name; folded from events';
COMMENT ON COLUMN portal_audit.lifetime_points.subject_type IS 'As in events.subject_type';
COMMENT ON COLUMN portal_audit.lifetime_points.within IS 'Project of an experiment, whose name is its own only there; otherwise empty';
COMMENT ON COLUMN portal_audit.lifetime_points.subject IS 'Its name then. Longer names than 600 bytes stand as a hash, here and in the tables beside this one';
COMMENT ON COLUMN portal_audit.lifetime_points.at IS 'Time of the event';
COMMENT ON COLUMN portal_audit.lifetime_points.lsn IS 'Position in the source''s log: order within one time';
COMMENT ON COLUMN portal_audit.lifetime_points.n IS 'Number within its transaction: order within one position';
COMMENT ON COLUMN portal_audit.lifetime_points.event_uuid IS 'The event';
COMMENT ON COLUMN portal_audit.lifetime_points.change IS 'Last word of the event''s type: created, activated, frozen, deleted, …; renamed_away for the old name of a rename';
COMMENT ON COLUMN portal_audit.lifetime_points.ends IS 'Whether nothing of that name is there from then on';
COMMENT ON COLUMN portal_audit.lifetime_points.state IS 'State from then on; NULL: as before';
COMMENT ON COLUMN portal_audit.lifetime_points.facts IS 'Category, subcategory, organization, project and experiment, as far as the event says; NULL: as before';
COMMENT ON COLUMN portal_audit.lifetime_points.old_within IS 'With old_name: its project then';
COMMENT ON COLUMN portal_audit.lifetime_points.old_name IS 'Name before, of something that was renamed';

CREATE TABLE IF NOT EXISTS portal_audit.lifetimes (
  subject_type TEXT NOT NULL,
  within       TEXT NOT NULL,
  subject      TEXT NOT NULL,
  began        TIMESTAMPTZ NOT NULL,
  began_lsn    PG_LSN NOT NULL,
  began_n      BIGINT NOT NULL,
  ended        TIMESTAMPTZ,
  began_uuid   UUID NOT NULL,
  ended_uuid   UUID,
  old_within   TEXT,
  old_name     TEXT,
  PRIMARY KEY (subject_type, within, subject, began, began_lsn, began_n)
);
CREATE INDEX IF NOT EXISTS lifetimes_span ON portal_audit.lifetimes (subject_type, began) INCLUDE (ended);
CREATE INDEX IF NOT EXISTS lifetimes_ended ON portal_audit.lifetimes (subject_type, ended) INCLUDE (began);
COMMENT ON TABLE  portal_audit.lifetimes IS 'From when to when each of them was there, by portal_audit.lifetime_points; a name that is used again has a row for each time';
COMMENT ON COLUMN portal_audit.lifetimes.subject_type IS 'As in events.subject_type';
COMMENT ON COLUMN portal_audit.lifetimes.within IS 'Project of an experiment; otherwise empty';
COMMENT ON COLUMN portal_audit.lifetimes.subject IS 'Its name';
COMMENT ON COLUMN portal_audit.lifetimes.began IS 'From when on it is known to be there under that name';
COMMENT ON COLUMN portal_audit.lifetimes.began_lsn IS 'Order within one time, as in portal_audit.lifetime_points';
COMMENT ON COLUMN portal_audit.lifetimes.began_n IS 'As began_lsn';
COMMENT ON COLUMN portal_audit.lifetimes.ended IS 'From when on it is not; NULL: it is there';
COMMENT ON COLUMN portal_audit.lifetimes.began_uuid IS 'Event of the beginning';
COMMENT ON COLUMN portal_audit.lifetimes.ended_uuid IS 'Event of the end';
COMMENT ON COLUMN portal_audit.lifetimes.old_within IS 'With old_name: its project then';
COMMENT ON COLUMN portal_audit.lifetimes.old_name IS 'Name before, if it began by being renamed';

CREATE TABLE IF NOT EXISTS portal_audit.membership_points (
  kind        TEXT NOT NULL,
  subject     TEXT NOT NULL,
  member      TEXT NOT NULL,
  member_kind TEXT NOT NULL,
  at          TIMESTAMPTZ NOT NULL,
  lsn         PG_LSN NOT NULL,
  n           BIGINT NOT NULL,
  event_uuid  UUID NOT NULL,
  role        TEXT,
  state       TEXT,
  PRIMARY KEY (kind, subject, member, member_kind, at, lsn, n, event_uuid)
);
CREATE INDEX IF NOT EXISTS membership_points_member ON portal_audit.membership_points (member, member_kind, kind, subject, at);
COMMENT ON TABLE  portal_audit.membership_points IS 'What became of each membership, one row per event; folded from events. A member at a time: the last point until then has a role, and the state active';
COMMENT ON COLUMN portal_audit.membership_points.kind IS 'Of what: organization, project or facility';
COMMENT ON COLUMN portal_audit.membership_points.subject IS 'Its name';
COMMENT ON COLUMN portal_audit.membership_points.member IS 'Name of the member';
COMMENT ON COLUMN portal_audit.membership_points.member_kind IS 'user or project';
COMMENT ON COLUMN portal_audit.membership_points.at IS 'Time of the event';
COMMENT ON COLUMN portal_audit.membership_points.lsn IS 'Order within one time, as in portal_audit.lifetime_points';
COMMENT ON COLUMN portal_audit.membership_points.n IS 'As lsn';
COMMENT ON COLUMN portal_audit.membership_points.event_uuid IS 'The event';
COMMENT ON COLUMN portal_audit.membership_points.role IS 'Role from then on: member, maintainer, creator, …; NULL: the membership ended';
COMMENT ON COLUMN portal_audit.membership_points.state IS 'State from then on: active, pending, …; NULL: the membership ended';

CREATE TABLE IF NOT EXISTS portal_audit.resource_points (
  resource     TEXT NOT NULL,
  subject_type TEXT NOT NULL,
  subject      TEXT NOT NULL,
  at           TIMESTAMPTZ NOT NULL,
  lsn          PG_LSN NOT NULL,
  n            BIGINT NOT NULL,
  event_uuid   UUID NOT NULL,
  held         BOOLEAN NOT NULL,
  project      TEXT,
  experiment   TEXT,
  PRIMARY KEY (resource, at, lsn, n, event_uuid)
);
-- A resource has most points of all: its key once held the subject too, which the event decides.
DO $$
BEGIN
  IF (SELECT cardinality(conkey) FROM pg_constraint WHERE conrelid = 'portal_audit.resource_points'::regclass AND contype = 'p') > 5 THEN
    ALTER TABLE portal_audit.resource_points DROP CONSTRAINT resource_points_pkey, ADD PRIMARY KEY (resource, at, lsn, n, event_uuid);
  END IF;
END $$;
CREATE INDEX IF NOT EXISTS resource_points_subject ON portal_audit.resource_points (subject_type, subject, at);
CREATE INDEX IF NOT EXISTS resource_points_project ON portal_audit.resource_points (project, at);
COMMENT ON TABLE  portal_audit.resource_points IS 'Which physical resources realizations and materializations were given and gave back, one row per event and resource; folded from events';
COMMENT ON COLUMN portal_audit.resource_points.resource IS 'Name of the resource';
COMMENT ON COLUMN portal_audit.resource_points.subject_type IS 'realization or materialization';
COMMENT ON COLUMN portal_audit.resource_points.subject IS 'Its name';
COMMENT ON COLUMN portal_audit.resource_points.at IS 'Time of the event';
COMMENT ON COLUMN portal_audit.resource_points.lsn IS 'Order within one time, as in portal_audit.lifetime_points';
COMMENT ON COLUMN portal_audit.resource_points.n IS 'As lsn';
COMMENT ON COLUMN portal_audit.resource_points.event_uuid IS 'The event';
COMMENT ON COLUMN portal_audit.resource_points.held IS 'Whether it holds the resource from then on';
COMMENT ON COLUMN portal_audit.resource_points.project IS 'Project of the realization';
COMMENT ON COLUMN portal_audit.resource_points.experiment IS 'Its experiment';

CREATE TABLE IF NOT EXISTS portal_audit.hourly (
  event_type TEXT NOT NULL,
  hour       TIMESTAMPTZ NOT NULL,
  success    BOOLEAN NOT NULL,
  events     BIGINT NOT NULL,
  PRIMARY KEY (event_type, hour, success)
);
CREATE INDEX IF NOT EXISTS hourly_hour ON portal_audit.hourly (hour);
COMMENT ON TABLE  portal_audit.hourly IS 'Events per hour and type, also of events that retention has taken away; folded from events';
COMMENT ON COLUMN portal_audit.hourly.event_type IS 'As in events.event_type';
COMMENT ON COLUMN portal_audit.hourly.hour IS 'Beginning of the hour (UTC)';
COMMENT ON COLUMN portal_audit.hourly.success IS 'As in events.success';
COMMENT ON COLUMN portal_audit.hourly.events IS 'How many';

CREATE TABLE IF NOT EXISTS portal_audit.active_days (
  kind  TEXT NOT NULL,
  name  TEXT NOT NULL,
  day   DATE NOT NULL,
  first TIMESTAMPTZ NOT NULL,
  last  TIMESTAMPTZ NOT NULL,
  PRIMARY KEY (kind, name, day)
);
CREATE INDEX IF NOT EXISTS active_days_day ON portal_audit.active_days (day, kind);
COMMENT ON TABLE  portal_audit.active_days IS 'On which days users did something and projects were worked in; folded from events';
COMMENT ON COLUMN portal_audit.active_days.kind IS 'user: caller of an event, or logged in; project: an experiment, realization, materialization or XDC of it was the subject of an event';
COMMENT ON COLUMN portal_audit.active_days.name IS 'Name of the user or project';
COMMENT ON COLUMN portal_audit.active_days.day IS 'Day (UTC)';
COMMENT ON COLUMN portal_audit.active_days.first IS 'First event of that day';
COMMENT ON COLUMN portal_audit.active_days.last IS 'Last event of that day';

CREATE TABLE IF NOT EXISTS portal_audit.active (
  kind  TEXT NOT NULL,
  name  TEXT NOT NULL,
  first TIMESTAMPTZ NOT NULL,
  PRIMARY KEY (kind, name)
);
COMMENT ON TABLE  portal_audit.active IS 'Since when users and projects are active; folded from events';
COMMENT ON COLUMN portal_audit.active.kind IS 'As in portal_audit.active_days';
COMMENT ON COLUMN portal_audit.active.name IS 'As in portal_audit.active_days';
COMMENT ON COLUMN portal_audit.active.first IS 'First event of all';

-- How an event becomes points: by the convention of its type's name, so that a type that a mapping adds is understood without a change here.
CREATE OR REPLACE FUNCTION portal_audit.shortened(p_name TEXT) RETURNS TEXT
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT left(p_name, 64) || '… sha256:' || encode(sha256(convert_to(p_name, 'UTF8')), 'hex')
$$;
COMMENT ON FUNCTION portal_audit.shortened IS 'What stands for a name that an index cannot hold; for portal_audit.short';

-- Apart from the function above, which changes with the settings in the eyes of PostgreSQL, this one becomes part of each query that calls it.
CREATE OR REPLACE FUNCTION portal_audit.short(p_name TEXT) RETURNS TEXT
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN octet_length(p_name) <= 600 THEN p_name ELSE portal_audit.shortened(p_name) END
$$;
COMMENT ON FUNCTION portal_audit.short IS 'A name that an index can hold: one of more than 600 bytes is its first 64 characters and its hash';

CREATE OR REPLACE FUNCTION portal_audit.change_of(p_event_type TEXT, p_subject_type TEXT) RETURNS TEXT
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE
    WHEN p_event_type = 'de' || regexp_replace(p_subject_type, 'ation$', 'ed') THEN 'ended'
    -- user_frozen of a user, org_frozen of an organization; but not token_created of a user.
    WHEN length(m[1]) >= 3 AND starts_with(p_subject_type, m[1]) THEN m[2]
  END
  FROM (SELECT regexp_match(p_event_type,
    '^(.+?)_(created|registered|started|activated|frozen|unfrozen|state_changed|updated|extended|completed|renamed|deleted|declined|relinquished|expired)$')) AS r (m)
$$;
COMMENT ON FUNCTION portal_audit.change_of IS 'What an event type says of its subject''s own life: created, frozen, deleted, …; NULL: nothing';

-- They took other arguments once.
DROP FUNCTION IF EXISTS portal_audit.span(TEXT[], TEXT[], TEXT[]), portal_audit.lsn_of(JSONB), portal_audit.n_of(JSONB);
CREATE OR REPLACE FUNCTION portal_audit.lsn_of(p_text TEXT) RETURNS PG_LSN
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN p_text ~ '^[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}$' THEN p_text::pg_lsn ELSE '0/0' END
$$;
COMMENT ON FUNCTION portal_audit.lsn_of IS 'Position in the source''s log, as an event''s payload names it; 0/0 if it is none';

CREATE OR REPLACE FUNCTION portal_audit.n_of(p_text TEXT) RETURNS BIGINT
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN p_text ~ '^[0-9]{1,18}$' THEN p_text::bigint ELSE 0 END
$$;
COMMENT ON FUNCTION portal_audit.n_of IS 'Number within its transaction, as an event''s payload names it, else 0';

-- The lifetimes of some subjects from a time on, made anew from their points. What was before stays, so that a subject with a long life costs no
-- more than a short one: its points are read from there on, and the one before them.
CREATE OR REPLACE FUNCTION portal_audit.span(p_from portal_audit.lifetimes[], p_added BIGINT[]) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  born portal_audit.lifetimes[];
  late portal_audit.lifetimes[];
BEGIN
  WITH keys AS MATERIALIZED (
    SELECT k.key, k.subject_type, k.within, k.subject, k.began, k.began_lsn, k.began_n, k.added, coalesce(before.ends, true) AS was
      FROM ROWS FROM (unnest(p_from), unnest(p_added)) WITH ORDINALITY
           AS k (subject_type, within, subject, began, began_lsn, began_n, ended, began_uuid, ended_uuid, old_within, old_name, added, key)
      LEFT JOIN LATERAL (
        SELECT p.ends FROM portal_audit.lifetime_points p
         WHERE p.subject_type = k.subject_type AND p.within = k.within AND p.subject = k.subject AND (p.at, p.lsn, p.n) < (k.began, k.began_lsn, k.began_n)
         ORDER BY p.at DESC, p.lsn DESC, p.n DESC, p.event_uuid DESC LIMIT 1) AS before ON true
  ), points AS (
    SELECT k.key, k.subject_type, k.within, k.subject, p.*, lag(p.ends, 1, k.was) OVER w AS was, count(*) OVER (PARTITION BY k.key) > k.added AS is_late
      FROM keys k
     CROSS JOIN LATERAL (
       SELECT p.at, p.lsn, p.n, p.event_uuid, p.ends, p.old_within, p.old_name FROM portal_audit.lifetime_points p
        WHERE p.subject_type = k.subject_type AND p.within = k.within AND p.subject = k.subject AND (p.at, p.lsn, p.n) >= (k.began, k.began_lsn, k.began_n)
       OFFSET 0) AS p
    WINDOW w AS (PARTITION BY k.key ORDER BY p.at, p.lsn, p.n, p.event_uuid)
  ), edges AS MATERIALIZED (
    SELECT p.*, lead(at) OVER w AS next_at, lead(event_uuid) OVER w AS next_uuid, row_number() OVER w AS number
      FROM points p WHERE ends <> was WINDOW w AS (PARTITION BY key ORDER BY at, lsn, n, event_uuid)
  ), lates AS MATERIALIZED (
    SELECT DISTINCT key FROM points WHERE is_late
  ), spans AS (
    SELECT subject_type, within, subject, at, lsn, n, next_at, event_uuid, next_uuid, old_within, old_name, key FROM edges WHERE NOT ends
    UNION ALL
    -- The one that was there at that time ends with the first edge.
    SELECT l.subject_type, l.within, l.subject, l.began, l.began_lsn, l.began_n, e.at, l.began_uuid, e.event_uuid, l.old_within, l.old_name, k.key
      FROM keys k JOIN edges e ON e.key = k.key AND e.number = 1
     CROSS JOIN LATERAL (
       SELECT * FROM portal_audit.lifetimes l
        WHERE l.subject_type = k.subject_type AND l.within = k.within AND l.subject = k.subject AND (l.began, l.began_lsn, l.began_n) < (k.began, k.began_lsn, k.began_n)
        ORDER BY l.began DESC, l.began_lsn DESC, l.began_n DESC LIMIT 1) AS l
     WHERE NOT k.was
  )
  SELECT (SELECT array_agg(ROW(subject_type, within, subject, at, lsn, n, next_at, event_uuid, next_uuid, old_within, old_name)::portal_audit.lifetimes)
            -- Two that events of others put at one time and place: the later one wins, as in the points.
            FROM (SELECT DISTINCT ON (key, at, lsn, n) * FROM spans ORDER BY key, at, lsn, n, event_uuid DESC) AS s),
         (SELECT array_agg(ROW(k.subject_type, k.within, k.subject, k.began, k.began_lsn, k.began_n, NULL, NULL, NULL, NULL, NULL)::portal_audit.lifetimes)
            FROM keys k JOIN lates USING (key))
    INTO born, late;
  IF late IS NOT NULL THEN
    DELETE FROM portal_audit.lifetimes WHERE ctid = ANY (ARRAY(
      SELECT l.ctid FROM unnest(late) AS k CROSS JOIN LATERAL (
        SELECT l.ctid FROM portal_audit.lifetimes l
         WHERE l.subject_type = k.subject_type AND l.within = k.within AND l.subject = k.subject AND (l.began, l.began_lsn, l.began_n) >= (k.began, k.began_lsn, k.began_n)
        OFFSET 0) AS l));
  END IF;
  IF born IS NOT NULL THEN
    INSERT INTO portal_audit.lifetimes SELECT * FROM unnest(born)
    ON CONFLICT (subject_type, within, subject, began, began_lsn, began_n) DO UPDATE
      SET ended = excluded.ended, began_uuid = excluded.began_uuid, ended_uuid = excluded.ended_uuid, old_within = excluded.old_within, old_name = excluded.old_name;
  END IF;
END $$;
COMMENT ON FUNCTION portal_audit.span IS 'Makes the lifetimes of some subjects anew from a time on; added: how many of their points from there on are new';
REVOKE ALL ON FUNCTION portal_audit.span FROM PUBLIC;

-- The points and counts of some events. Called by fold alone, once per event. One statement: each event is looked up and taken apart once.
CREATE OR REPLACE FUNCTION portal_audit.take(p_events UUID[]) RETURNS TIMESTAMPTZ
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  latest TIMESTAMPTZ;
  firsts portal_audit.lifetimes[];
  counts BIGINT[];
BEGIN
  WITH raw AS MATERIALIZED (
    SELECT e.event_uuid, e.timestamp AS at, e.event_type, e.subject_type, e.caller, e.subject, e.target, e.success, e.payload, e.payload -> '_audit' AS audit
      FROM public.events e WHERE e.event_uuid = ANY (p_events)
  ), kinds AS MATERIALIZED (
    SELECT t.event_type, t.subject_type, portal_audit.change_of(t.event_type, t.subject_type) AS change,
           t.event_type ~ '^[^_]+_member_(added|requested|updated|state_changed|deleted)$' AND starts_with(t.subject_type, split_part(t.event_type, '_', 1)) AS is_member,
           t.subject_type IN ('experiment', 'realization', 'materialization', 'xdc') AS is_work,
           t.subject_type IN ('realization', 'materialization') AS is_holder,
           t.subject_type = 'user' AND t.event_type IN ('login_succeeded', 'login_refreshed') AS is_login
      FROM (SELECT DISTINCT event_type, subject_type FROM raw OFFSET 0) AS t
  ), e AS MATERIALIZED (
    SELECT r.*, k.change, k.is_member, k.is_login, k.is_holder,
           CASE WHEN k.is_work THEN r.payload ->> 'project' END AS project,
           portal_audit.lsn_of(r.audit ->> 'lsn') AS lsn, portal_audit.n_of(r.audit ->> 'n') AS n
      FROM raw r JOIN kinds k USING (event_type, subject_type)
  ), hours AS (
    INSERT INTO portal_audit.hourly AS h (event_type, hour, success, events)
    SELECT portal_audit.short(event_type), date_trunc('hour', at, 'UTC'), success, count(*) FROM raw GROUP BY 1, 2, 3
    ON CONFLICT (event_type, hour, success) DO UPDATE SET events = h.events + excluded.events
  ), activity AS (
    SELECT 'user' AS kind, caller AS name, at FROM e WHERE caller <> '' AND audit ->> 'source' IS DISTINCT FROM '.own'
    UNION ALL
    SELECT 'user', subject, at FROM e WHERE is_login AND success
    UNION ALL
    SELECT 'project', project, at FROM e WHERE project <> ''
  ), days AS MATERIALIZED (
    SELECT kind, portal_audit.short(name) AS name, (at AT TIME ZONE 'UTC')::date AS day, min(at) AS first, max(at) AS last
      FROM activity GROUP BY 1, 2, 3
  ), actives AS (
    INSERT INTO portal_audit.active AS a (kind, name, first) SELECT kind, name, min(first) FROM days GROUP BY 1, 2
    ON CONFLICT (kind, name) DO UPDATE SET first = excluded.first WHERE a.first > excluded.first
  ), active_days AS (
    INSERT INTO portal_audit.active_days AS a (kind, name, day, first, last) SELECT * FROM days
    ON CONFLICT (kind, name, day) DO UPDATE SET first = LEAST(a.first, excluded.first), last = GREATEST(a.last, excluded.last)
     WHERE a.first > excluded.first OR a.last < excluded.last
  ), members AS (
    INSERT INTO portal_audit.membership_points (kind, subject, member, member_kind, at, lsn, n, event_uuid, role, state)
    SELECT portal_audit.short(subject_type), portal_audit.short(subject), portal_audit.short(target),
           CASE lower(payload ->> 'kind') WHEN 'projectmember' THEN 'project' ELSE 'user' END, at, lsn, n, event_uuid,
           CASE WHEN event_type NOT LIKE '%\_deleted' THEN lower(coalesce(payload ->> 'role', 'member')) END,
           CASE WHEN event_type NOT LIKE '%\_deleted'
                THEN lower(coalesce(payload ->> 'state', CASE WHEN event_type LIKE '%\_requested' THEN 'pending' ELSE 'active' END)) END
      FROM e WHERE is_member AND success AND target IS NOT NULL
    ON CONFLICT DO NOTHING
  ), resources AS (
    -- What ends gives back what it names; what it does not name ends with its lifetime.
    INSERT INTO portal_audit.resource_points (resource, subject_type, subject, at, lsn, n, event_uuid, held, project, experiment)
    SELECT r.resource, h.subject_type, h.subject, h.at, h.lsn, h.n, h.event_uuid, h.action = 'allocate', h.project, h.experiment
      FROM (SELECT subject_type, portal_audit.short(subject) AS subject, at, lsn, n, event_uuid, payload ->> 'action' AS action, payload -> 'resources' AS resources,
                   portal_audit.short(project) AS project, portal_audit.short(payload ->> 'experiment') AS experiment
              -- A materialization that failed holds what it was given until it is ended; a realization that failed holds nothing.
              FROM e WHERE is_holder AND (success OR subject_type = 'materialization') OFFSET 0) AS h
      -- An event that is taken already is passed over as a whole: that is asked once, and not of each of its resources.
      LEFT JOIN LATERAL (SELECT true AS is_taken FROM portal_audit.resource_points p
                          WHERE p.subject_type = h.subject_type AND p.subject = h.subject AND p.at = h.at AND p.event_uuid = h.event_uuid LIMIT 1) AS taken ON true
     CROSS JOIN LATERAL (
       SELECT DISTINCT portal_audit.short(i.item) AS resource
         FROM jsonb_array_elements_text(CASE WHEN h.action IN ('allocate', 'deallocate') AND jsonb_typeof(h.resources) = 'array' THEN h.resources ELSE '[]' END) AS i (item)
        WHERE i.item IS NOT NULL) AS r
     WHERE is_taken IS NULL
  ), points AS MATERIALIZED (
    SELECT portal_audit.short(subject_type) AS subject_type,
           CASE subject_type WHEN 'experiment' THEN portal_audit.short(coalesce(project, '')) ELSE '' END AS within,
           portal_audit.short(subject) AS subject, at, lsn, n, event_uuid, change,
           change IN ('deleted', 'declined', 'relinquished', 'expired', 'ended') AS ends,
           CASE change WHEN 'activated' THEN 'active' WHEN 'unfrozen' THEN 'active' WHEN 'frozen' THEN 'frozen'
                       ELSE coalesce(payload ->> 'state', payload ->> 'status') END AS state,
           (SELECT jsonb_object_agg(f.key, payload -> f.key) FROM unnest(ARRAY['category', 'subcategory', 'organization', 'project', 'experiment']) AS f (key)
             WHERE payload ? f.key AND jsonb_typeof(payload) = 'object') AS facts,
           CASE change WHEN 'renamed' THEN portal_audit.short(coalesce(payload ->> 'old_name', subject)) END AS old_name,
           CASE WHEN change = 'renamed' THEN CASE subject_type WHEN 'experiment' THEN portal_audit.short(coalesce(payload ->> 'old_project', project, '')) ELSE '' END END AS old_within
      FROM e
       -- What failed changed nothing, but for a materialization, which is there as a failed one.
     WHERE change IS NOT NULL AND (success OR change = 'completed')
  ), added AS (
    INSERT INTO portal_audit.lifetime_points
           (subject_type, within, subject, at, lsn, n, event_uuid, change, ends, state, facts, old_within, old_name)
    SELECT subject_type, within, subject, at, lsn, n, event_uuid, change, ends, state, facts, old_within, old_name FROM points
    UNION ALL
    SELECT subject_type, old_within, old_name, at, lsn, n, event_uuid, 'renamed_away', true, NULL, NULL, NULL, NULL FROM points
     WHERE old_name IS NOT NULL AND (old_within, old_name) <> (within, subject)
    ON CONFLICT DO NOTHING
    RETURNING subject_type, within, subject, at, lsn, n
  ), touched AS (
    -- By bytes, as what is sought is no order for people.
    SELECT DISTINCT ON (subject_type COLLATE "C", within COLLATE "C", subject COLLATE "C") subject_type, within, subject, at, lsn, n,
           count(*) OVER (PARTITION BY subject_type COLLATE "C", within COLLATE "C", subject COLLATE "C") AS added
      FROM added ORDER BY subject_type COLLATE "C", within COLLATE "C", subject COLLATE "C", at, lsn, n
  )
  SELECT (SELECT max(at) FROM raw), array_agg(added),
         array_agg(ROW(subject_type, within, subject, at, lsn, n, NULL, NULL, NULL, NULL, NULL)::portal_audit.lifetimes)
    INTO latest, counts, firsts FROM touched;
  IF firsts IS NOT NULL THEN
    PERFORM portal_audit.span(firsts, counts);
  END IF;
  RETURN latest;
END $$;
COMMENT ON FUNCTION portal_audit.take IS 'Adds the points and counts of some events; portal_audit.fold calls it once for each';
REVOKE ALL ON FUNCTION portal_audit.take FROM PUBLIC;

-- The next events of a tree, at most so many of them, from an index on.
CREATE OR REPLACE FUNCTION portal_audit.next_leaves(p_tree TEXT, p_from BIGINT, p_limit INT) RETURNS UUID[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT array_agg(encode(substr(s.uuids, 16 * i + 1, 16), 'hex')::uuid)
    -- The part that is wanted of each row is read once.
    FROM (SELECT substr(uuids, 16 * skip + 1, 16 * length) AS uuids, length
            FROM (SELECT uuids, greatest(p_from - first, 0)::int AS skip,
                         (least(first + events, p_from + p_limit) - greatest(first, p_from))::int AS length
                    FROM portal_audit.seals
                   WHERE tree = p_tree AND first < p_from + p_limit
                     AND first >= (SELECT max(b.first) FROM portal_audit.seals b WHERE b.tree = p_tree AND b.first <= p_from)) AS pieces
          OFFSET 0) AS s
   CROSS JOIN LATERAL generate_series(0, s.length - 1) AS i
$$;
COMMENT ON FUNCTION portal_audit.next_leaves IS 'Ids of at most so many events of a tree from an index on, for what is folded';
REVOKE ALL ON FUNCTION portal_audit.next_leaves FROM PUBLIC;

-- Takes the next leaves of all trees. The record goes before: what is written is folded in small pieces, by one session at a time, and each
-- piece commits with the place that it came to, so that no event is taken twice.
--
-- Plans are forced, here and in what it calls: rows of tables are found by an index, and what is made on the way is hashed or sorted. The tables
-- may never have been analysed, and a session keeps its plans from when they were empty.
CREATE OR REPLACE FUNCTION portal_audit.fold(p_limit INT) RETURNS BIGINT
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_nestloop = off SET jit = off SET work_mem = '32MB' AS $$
DECLARE
  before BIGINT;
  taken  BIGINT := 0;
  share  INT;
  t      RECORD;
  ids    UUID[];
  latest TIMESTAMPTZ;
BEGIN
  IF NOT EXISTS (SELECT FROM portal_audit.trees s LEFT JOIN portal_audit.folded f USING (tree) WHERE s.size > coalesce(f.upto, 0))
     OR NOT pg_try_advisory_xact_lock(hashtext('portal_audit.fold'), 0) THEN
    RETURN 0;
  END IF;
  INSERT INTO portal_audit.folded (tree, upto) SELECT tree, 0 FROM portal_audit.trees ON CONFLICT DO NOTHING;
  SELECT greatest(1, p_limit / greatest(1, count(*) FILTER (WHERE s.size > f.upto))), sum(f.upto) INTO share, before
    FROM portal_audit.trees s JOIN portal_audit.folded f USING (tree);
  FOR t IN SELECT f.tree, f.upto FROM portal_audit.trees s JOIN portal_audit.folded f USING (tree) WHERE s.size > f.upto ORDER BY f.tree LOOP
    ids := portal_audit.next_leaves(t.tree, t.upto, share);
    latest := portal_audit.take(ids);
    UPDATE portal_audit.folded f SET upto = f.upto + cardinality(ids), at = greatest(f.at, latest) WHERE f.tree = t.tree;
    taken := taken + cardinality(ids);
  END LOOP;
  -- Those who read them plan by what is known of them, and autovacuum comes a minute late: so at a thousand events, at ten thousand and so on.
  IF floor(log(greatest(before + taken, 999))) > floor(log(greatest(before, 999))) THEN
    ANALYZE (SKIP_LOCKED) portal_audit.lifetime_points, portal_audit.lifetimes, portal_audit.membership_points, portal_audit.resource_points,
      portal_audit.hourly, portal_audit.active_days, portal_audit.active, portal_audit.facility_uses;
  END IF;
  RETURN taken;
END $$;
COMMENT ON FUNCTION portal_audit.fold IS 'Takes at most so many leaves into the derived tables and says how many it took; 0: nothing is left, or another session is at it';
REVOKE ALL ON FUNCTION portal_audit.fold FROM PUBLIC;

CREATE OR REPLACE FUNCTION portal_audit.folded_to() RETURNS TIMESTAMPTZ
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  -- A source that has not said how far it is complete leaves the answer open; what waits of the database's own trees are old rows.
  SELECT CASE WHEN bool_and(at IS NOT NULL) THEN min(at) END
    FROM (SELECT CASE WHEN coalesce(f.upto, 0) >= coalesce(t.size, 0) THEN p.complete_to ELSE least(p.complete_to, coalesce(f.at, '-infinity')) END
            FROM portal_audit.progress p
            LEFT JOIN portal_audit.trees t ON t.tree = p.source
            LEFT JOIN portal_audit.folded f ON f.tree = p.source
          UNION ALL
          SELECT '-infinity'::timestamptz FROM portal_audit.trees t LEFT JOIN portal_audit.folded f USING (tree)
           WHERE t.tree = '.adopted' AND coalesce(f.upto, 0) < t.size) AS sources (at)
$$;
COMMENT ON FUNCTION portal_audit.folded_to IS 'Up to which commit time the derived tables, and so users(), members(), stats() and the like, are complete; NULL: not known';
REVOKE ALL ON FUNCTION portal_audit.folded_to FROM PUBLIC;

-- Sentences.
CREATE OR REPLACE FUNCTION portal_audit.visible(p_text TEXT) RETURNS TEXT
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
  -- Control and direction characters, as `portal-audit` shows them: they could move the cursor or turn the line around.
  hidden CONSTANT TEXT := '[\u0001-\u001F\u007F-\u009F\u200B-\u200F\u2028-\u202E\u2066-\u2069\uFEFF]';
BEGIN
  IF p_text !~ hidden THEN
    RETURN p_text;
  END IF;
  RETURN (SELECT string_agg(CASE WHEN letter ~ hidden THEN '\u{' || to_hex(ascii(letter)) || '}' ELSE letter END, '' ORDER BY place)
            FROM regexp_split_to_table(p_text, '') WITH ORDINALITY AS t (letter, place));
END $$;
COMMENT ON FUNCTION portal_audit.visible IS 'A text whose control and direction characters are visible escapes';

CREATE OR REPLACE FUNCTION portal_audit.describe(
  event_type TEXT, caller TEXT, subject TEXT, subject_type TEXT, target TEXT, success BOOLEAN, error_message TEXT, payload JSONB,
  at TIMESTAMPTZ DEFAULT NULL
) RETURNS TEXT LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
  template TEXT;
  sentence TEXT;
  part     TEXT;
  name     TEXT;
  value    TEXT;
  items    JSONB;
BEGIN
  SELECT t.describe INTO template FROM portal_audit.event_types t WHERE t.event_type = describe.event_type;
  IF template IS NULL THEN
    -- A type that nobody declares any more, or one of others.
    template := portal_audit.visible(left(replace(replace(event_type, '_', ' '), '{', ' '), 200)) || ': {subject_type} {subject}'
      || CASE WHEN target <> '' THEN ', {target}' ELSE '' END || ', by {caller}';
  END IF;
  -- Behind each opening brace stands a name, the closing one and plain text. A value is filled in once and cut: what it holds is never taken for
  -- a placeholder, and a page of sentences stays a page.
  FOREACH part IN ARRAY string_to_array(template, '{') LOOP
    IF sentence IS NULL THEN
      sentence := part;
      CONTINUE;
    END IF;
    name := split_part(part, '}', 1);
    IF length(name) = length(part) THEN
      sentence := sentence || '{' || part;
      CONTINUE;
    END IF;
    value := CASE name WHEN 'caller' THEN caller WHEN 'subject' THEN subject WHEN 'subject_type' THEN subject_type
                       WHEN 'target' THEN target WHEN 'error_message' THEN error_message
                       WHEN 'timestamp' THEN to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
                       ELSE payload ->> substr(name, 9) END;
    IF starts_with(value, '[') AND jsonb_typeof(payload -> substr(name, 9)) = 'array' THEN
      items := payload -> substr(name, 9);
      value := coalesce((SELECT string_agg(i.item, ', ' ORDER BY i.place) FROM (
                  SELECT item, o.place FROM jsonb_array_elements_text(items) WITH ORDINALITY AS o (item, place) LIMIT 12) AS i), '(none)')
               || CASE WHEN jsonb_array_length(items) > 12 THEN format(' and %s more', jsonb_array_length(items) - 12) ELSE '' END;
    END IF;
    sentence := sentence || coalesce(nullif(portal_audit.visible(CASE WHEN length(value) > 300 THEN left(value, 300) || '…' ELSE value END), ''), '(unknown)')
      || substr(part, length(name) + 2);
  END LOOP;
  IF NOT success AND template NOT LIKE '%{error\_message}%' THEN
    sentence := sentence || '; it failed'
      || CASE WHEN error_message <> '' THEN ': ' || portal_audit.visible(left(error_message, 300)) || CASE WHEN length(error_message) > 300 THEN '…' ELSE '' END
              ELSE '' END;
  END IF;
  RETURN CASE WHEN length(sentence) > 1000 THEN left(sentence, 999) || '…' ELSE coalesce(sentence, '') END;
END $$;
COMMENT ON FUNCTION portal_audit.describe IS 'The sentence of an event: the template of its type with its placeholders filled; at most 1,000 characters';

-- A view asks its tables as its owner, past the row policies of who asks, unless it says security_invoker, which PostgreSQL 14 does not know.
-- A function asks as its caller on every version, and a plain one like this becomes part of the query that calls it, indexes and all.
CREATE OR REPLACE FUNCTION portal_audit.described() RETURNS TABLE (
  event_uuid UUID, "timestamp" TIMESTAMPTZ, event_type TEXT, caller TEXT, subject TEXT, subject_type TEXT, target TEXT,
  success BOOLEAN, error_message TEXT, payload JSONB, description TEXT
) LANGUAGE sql STABLE AS $$
  SELECT e.event_uuid, e.timestamp, e.event_type, e.caller, e.subject, e.subject_type, e.target, e.success, e.error_message, e.payload,
         portal_audit.describe(e.event_type, e.caller, e.subject, e.subject_type, e.target, e.success, e.error_message, e.payload, e.timestamp)
    FROM public.events e
$$;
COMMENT ON FUNCTION portal_audit.described IS 'What the view events_described shows';
CREATE OR REPLACE VIEW portal_audit.events_described AS SELECT * FROM portal_audit.described();
COMMENT ON VIEW   portal_audit.events_described IS 'Events, each with its sentence; the same rows that you may see in public.events';

-- As of any time. What began at that time is there, what ended at it is not.
-- Most points say nothing of the state: behind the last one that does, there may be thousands.
CREATE INDEX IF NOT EXISTS lifetime_points_states ON portal_audit.lifetime_points (subject_type, within, subject, at, lsn, n, event_uuid)
  INCLUDE (state) WHERE state IS NOT NULL;
CREATE OR REPLACE FUNCTION portal_audit.inherited(p_type TEXT, p_within TEXT, p_name TEXT, p_began_uuid UUID, OUT state TEXT, OUT facts JSONB)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  life portal_audit.lifetimes;
BEGIN
  -- Names change seldom; sixteen times is enough for anybody, and a circle ends.
  FOR i IN 1 .. 16 LOOP
    SELECT l.* INTO life FROM portal_audit.lifetimes l
     WHERE (l.subject_type, l.within, l.subject) = (p_type, p_within, p_name) AND l.ended_uuid = p_began_uuid;
    EXIT WHEN NOT FOUND;
    state := coalesce(state, (SELECT p.state FROM portal_audit.lifetime_points p
      WHERE (p.subject_type, p.within, p.subject) = (p_type, p_within, p_name) AND p.state IS NOT NULL AND p.at BETWEEN life.began AND life.ended
      ORDER BY p.at DESC, p.lsn DESC, p.n DESC, p.event_uuid DESC LIMIT 1));
    facts := coalesce(facts, (SELECT p.facts FROM portal_audit.lifetime_points p
      WHERE (p.subject_type, p.within, p.subject) = (p_type, p_within, p_name) AND p.facts IS NOT NULL AND p.at BETWEEN life.began AND life.ended
      ORDER BY p.at DESC, p.lsn DESC, p.n DESC, p.event_uuid DESC LIMIT 1));
    EXIT WHEN life.old_name IS NULL OR state IS NOT NULL AND facts IS NOT NULL;
    p_within := life.old_within;
    p_name := life.old_name;
    p_began_uuid := life.began_uuid;
  END LOOP;
END $$;
COMMENT ON FUNCTION portal_audit.inherited IS 'State and facts of something under the names it had before';

-- What was there at a time lasts still, began lately or lasted long; of most things, such as realizations, few did.
CREATE INDEX IF NOT EXISTS lifetimes_long ON portal_audit.lifetimes (subject_type, ended) WHERE ended - began > interval '7 days';
CREATE OR REPLACE FUNCTION portal_audit.alive(p_type TEXT, p_at TIMESTAMPTZ) RETURNS SETOF portal_audit.lifetimes LANGUAGE sql STABLE AS $$
  SELECT l.* FROM portal_audit.lifetimes l WHERE l.subject_type = p_type AND l.ended IS NULL AND l.began <= p_at
  UNION ALL
  SELECT l.* FROM portal_audit.lifetimes l
   WHERE l.subject_type = p_type AND l.ended > p_at AND l.began BETWEEN p_at - interval '7 days' AND p_at AND l.ended - l.began <= interval '7 days'
  UNION ALL
  SELECT l.* FROM portal_audit.lifetimes l
   WHERE l.subject_type = p_type AND l.ended > p_at AND l.began <= p_at AND l.ended - l.began > interval '7 days'
$$;
COMMENT ON FUNCTION portal_audit.alive IS 'Lifetimes of one subject type that a time lies in';

CREATE OR REPLACE FUNCTION portal_audit.there(p_type TEXT, p_at TIMESTAMPTZ)
RETURNS TABLE (name TEXT, within TEXT, since TIMESTAMPTZ, state TEXT, facts JSONB) LANGUAGE sql STABLE AS $$
  SELECT l.subject, l.within, l.began,
         coalesce(s.state, CASE WHEN l.old_name IS NOT NULL THEN (portal_audit.inherited(l.subject_type, l.old_within, l.old_name, l.began_uuid)).state END),
         coalesce(f.facts, CASE WHEN l.old_name IS NOT NULL THEN (portal_audit.inherited(l.subject_type, l.old_within, l.old_name, l.began_uuid)).facts END)
    FROM portal_audit.alive(p_type, p_at) l
    LEFT JOIN LATERAL (SELECT p.state FROM portal_audit.lifetime_points p
           WHERE p.subject_type = l.subject_type AND p.within = l.within AND p.subject = l.subject AND p.state IS NOT NULL AND p.at <= p_at
             AND (p.at, p.lsn, p.n) >= (l.began, l.began_lsn, l.began_n)
           ORDER BY p.at DESC, p.lsn DESC, p.n DESC, p.event_uuid DESC LIMIT 1) AS s ON true
    LEFT JOIN LATERAL (SELECT p.facts FROM portal_audit.lifetime_points p
           WHERE p.subject_type = l.subject_type AND p.within = l.within AND p.subject = l.subject AND p.facts IS NOT NULL AND p.at <= p_at
             AND (p.at, p.lsn, p.n) >= (l.began, l.began_lsn, l.began_n)
           ORDER BY p.at DESC, p.lsn DESC, p.n DESC, p.event_uuid DESC LIMIT 1) AS f ON true
$$;
COMMENT ON FUNCTION portal_audit.there IS 'What of one subject type was there at a time, with its state and facts then; since: from when on under that name';

CREATE OR REPLACE FUNCTION portal_audit.users(p_at TIMESTAMPTZ DEFAULT now())
RETURNS TABLE (username TEXT, since TIMESTAMPTZ, state TEXT, category TEXT) LANGUAGE sql STABLE AS $$
  SELECT t.name, t.since, t.state, t.facts ->> 'category' FROM portal_audit.there('user', p_at) t
$$;
COMMENT ON FUNCTION portal_audit.users IS 'Users at a time, in whatever state: pending, active, frozen';

CREATE OR REPLACE FUNCTION portal_audit.organizations(p_at TIMESTAMPTZ DEFAULT now())
RETURNS TABLE (organization TEXT, since TIMESTAMPTZ, state TEXT, category TEXT, subcategory TEXT) LANGUAGE sql STABLE AS $$
  SELECT t.name, t.since, t.state, t.facts ->> 'category', t.facts ->> 'subcategory' FROM portal_audit.there('organization', p_at) t
$$;
COMMENT ON FUNCTION portal_audit.organizations IS 'Organizations at a time, in whatever state';

CREATE OR REPLACE FUNCTION portal_audit.projects(p_at TIMESTAMPTZ DEFAULT now())
RETURNS TABLE (project TEXT, since TIMESTAMPTZ, state TEXT, organization TEXT, category TEXT, subcategory TEXT) LANGUAGE sql STABLE AS $$
  SELECT t.name, t.since, t.state, t.facts ->> 'organization', t.facts ->> 'category', t.facts ->> 'subcategory'
    FROM portal_audit.there('project', p_at) t
$$;
COMMENT ON FUNCTION portal_audit.projects IS 'Projects at a time, in whatever state, and the organization they belonged to';

CREATE OR REPLACE FUNCTION portal_audit.experiments(p_at TIMESTAMPTZ DEFAULT now())
RETURNS TABLE (experiment TEXT, project TEXT, since TIMESTAMPTZ) LANGUAGE sql STABLE AS $$
  SELECT l.subject, l.within, l.began FROM portal_audit.alive('experiment', p_at) l
$$;
COMMENT ON FUNCTION portal_audit.experiments IS 'Experiments at a time';

-- What a membership is in, and the member, may go without a word about the membership.
CREATE OR REPLACE FUNCTION portal_audit.went(p_kind TEXT, p_subject TEXT, p_member_kind TEXT, p_member TEXT, p_since TIMESTAMPTZ) RETURNS TIMESTAMPTZ
LANGUAGE sql STABLE AS $$
  SELECT min(l.ended) FROM portal_audit.lifetimes l
   WHERE l.within = '' AND (l.subject_type, l.subject) IN ((p_kind, p_subject), (p_member_kind, p_member)) AND l.ended > p_since
$$;
COMMENT ON FUNCTION portal_audit.went IS 'When the first of the two ends of a membership went after a time; NULL: not yet';

-- The last point of each membership until a time, of one subject and of one member.
CREATE OR REPLACE FUNCTION portal_audit.members(p_kind TEXT, p_subject TEXT, p_at TIMESTAMPTZ DEFAULT now())
RETURNS TABLE (member TEXT, member_kind TEXT, role TEXT, state TEXT, since TIMESTAMPTZ) LANGUAGE sql STABLE AS $$
  SELECT l.member, l.member_kind, l.role, l.state, l.at
    FROM (SELECT DISTINCT ON (p.member, p.member_kind) p.*
            -- By itself: with the time or the order, the planner takes the index of members and reads all of it.
            FROM (SELECT m.* FROM portal_audit.membership_points m WHERE m.kind = p_kind AND m.subject = portal_audit.short(p_subject) OFFSET 0) AS p
           WHERE p.at <= p_at
           ORDER BY p.member, p.member_kind, p.at DESC, p.lsn DESC, p.n DESC, p.event_uuid DESC) AS l
   WHERE l.role IS NOT NULL AND coalesce(portal_audit.went(l.kind, l.subject, l.member_kind, l.member, l.at) > p_at, true)
$$;
COMMENT ON FUNCTION portal_audit.members IS 'Members of an organization, project or facility at a time; since: when role or state became so';

CREATE OR REPLACE FUNCTION portal_audit.memberships_of(p_user TEXT, p_at TIMESTAMPTZ DEFAULT now())
RETURNS TABLE (kind TEXT, subject TEXT, role TEXT, state TEXT, since TIMESTAMPTZ) LANGUAGE sql STABLE AS $$
  SELECT l.kind, l.subject, l.role, l.state, l.at
    FROM (SELECT DISTINCT ON (p.kind, p.subject) p.* FROM portal_audit.membership_points p
           WHERE p.member = portal_audit.short(p_user) AND p.member_kind = 'user' AND p.at <= p_at
           ORDER BY p.kind, p.subject, p.at DESC, p.lsn DESC, p.n DESC, p.event_uuid DESC) AS l
   WHERE l.role IS NOT NULL AND coalesce(portal_audit.went(l.kind, l.subject, l.member_kind, l.member, l.at) > p_at, true)
$$;
COMMENT ON FUNCTION portal_audit.memberships_of IS 'What a user was a member of at a time';

CREATE OR REPLACE FUNCTION portal_audit.members_between(p_kind TEXT, p_subject TEXT, p_from TIMESTAMPTZ, p_to TIMESTAMPTZ)
RETURNS TABLE (member TEXT, member_kind TEXT, role TEXT, state TEXT, began TIMESTAMPTZ, ended TIMESTAMPTZ) LANGUAGE sql STABLE AS $$
  SELECT t.member, t.member_kind, t.role, t.state, t.at, t.ended
    FROM (SELECT s.*, least(s.next_at, portal_audit.went(s.kind, s.subject, s.member_kind, s.member, s.at)) AS ended
            FROM (SELECT p.*, lead(p.at) OVER (PARTITION BY p.member, p.member_kind ORDER BY p.at, p.lsn, p.n, p.event_uuid) AS next_at
                    FROM portal_audit.membership_points p
                   WHERE p.kind = p_kind AND p.subject = portal_audit.short(p_subject)) AS s
           WHERE s.role IS NOT NULL AND s.at < p_to OFFSET 0) AS t
   WHERE t.ended IS NULL OR t.ended > p_from AND t.ended > t.at
$$;
COMMENT ON FUNCTION portal_audit.members_between IS 'Memberships that held at some moment of a span, each role from when to when; ended NULL: it still holds';

CREATE OR REPLACE FUNCTION portal_audit.resources_held(p_at TIMESTAMPTZ DEFAULT now())
RETURNS TABLE (resource TEXT, subject_type TEXT, subject TEXT, project TEXT, experiment TEXT, since TIMESTAMPTZ) LANGUAGE sql STABLE AS $$
  SELECT p.resource, l.subject_type, l.subject, p.project, p.experiment, p.at
    FROM (SELECT * FROM portal_audit.alive('realization', p_at) UNION ALL SELECT * FROM portal_audit.alive('materialization', p_at)) AS l
   CROSS JOIN LATERAL (
     -- The last turn of each resource: given or given back.
     SELECT DISTINCT ON (t.resource) t.* FROM (
       SELECT r.*, lag(r.held) OVER (PARTITION BY r.resource ORDER BY r.at, r.lsn, r.n, r.event_uuid) AS was FROM portal_audit.resource_points r
        WHERE r.subject_type = l.subject_type AND r.subject = l.subject AND r.at BETWEEN l.began AND p_at) AS t
      WHERE t.held IS DISTINCT FROM t.was ORDER BY t.resource, t.at DESC, t.lsn DESC, t.n DESC, t.event_uuid DESC) AS p
   WHERE p.held
$$;
COMMENT ON FUNCTION portal_audit.resources_held IS 'Physical resources that realizations and materializations held at a time; since: given when';

CREATE OR REPLACE FUNCTION portal_audit.resource_history(p_resource TEXT)
RETURNS TABLE (subject_type TEXT, subject TEXT, project TEXT, experiment TEXT, began TIMESTAMPTZ, ended TIMESTAMPTZ) LANGUAGE sql STABLE AS $$
  SELECT t.subject_type, t.subject, t.project, t.experiment, t.at, least(t.next_at, t.ended)
    FROM (SELECT s.*, lead(s.at) OVER w AS next_at
            FROM (SELECT r.*, l.began, l.ended,
                         lag(r.held) OVER (PARTITION BY r.subject_type, r.subject, l.began ORDER BY r.at, r.lsn, r.n, r.event_uuid) AS was
                    FROM portal_audit.resource_points r
                    LEFT JOIN portal_audit.lifetimes l ON l.subject_type = r.subject_type AND l.within = '' AND l.subject = r.subject
                      AND l.began <= r.at AND (l.ended IS NULL OR l.ended >= r.at)
                   WHERE r.resource = portal_audit.short(p_resource)) AS s
           WHERE s.held IS DISTINCT FROM s.was
          WINDOW w AS (PARTITION BY s.subject_type, s.subject, s.began ORDER BY s.at, s.lsn, s.n, s.event_uuid)) AS t
   WHERE t.held
$$;
COMMENT ON FUNCTION portal_audit.resource_history IS 'Who held a physical resource from when to when; ended NULL: still';

CREATE OR REPLACE FUNCTION portal_audit.realizations(p_at TIMESTAMPTZ DEFAULT now())
RETURNS TABLE (realization TEXT, project TEXT, experiment TEXT, since TIMESTAMPTZ) LANGUAGE sql STABLE AS $$
  SELECT t.name, t.facts ->> 'project', t.facts ->> 'experiment', t.since FROM portal_audit.there('realization', p_at) t
$$;
COMMENT ON FUNCTION portal_audit.realizations IS 'Realizations that stood at a time';

CREATE OR REPLACE FUNCTION portal_audit.materializations(p_at TIMESTAMPTZ DEFAULT now())
RETURNS TABLE (materialization TEXT, project TEXT, experiment TEXT, status TEXT, since TIMESTAMPTZ) LANGUAGE sql STABLE AS $$
  SELECT t.name, t.facts ->> 'project', t.facts ->> 'experiment', t.state, t.since FROM portal_audit.there('materialization', p_at) t
$$;
COMMENT ON FUNCTION portal_audit.materializations IS 'Materializations at a time; status NULL: still being made';

CREATE OR REPLACE FUNCTION portal_audit.login_failures(p_from TIMESTAMPTZ DEFAULT now() - interval '7 days', p_to TIMESTAMPTZ DEFAULT now())
RETURNS TABLE (username TEXT, failures BIGINT, first TIMESTAMPTZ, last TIMESTAMPTZ, last_reason TEXT) LANGUAGE sql STABLE AS $$
  SELECT e.subject, count(*), min(e.timestamp), max(e.timestamp), (array_agg(e.error_message ORDER BY e.timestamp DESC))[1]
    FROM public.events e WHERE e.event_type = 'login_failed' AND e.timestamp >= p_from AND e.timestamp < p_to GROUP BY 1
$$;
COMMENT ON FUNCTION portal_audit.login_failures IS 'Failed logins per user in a span, by default of the last seven days';

CREATE OR REPLACE VIEW portal_audit.users_now AS SELECT * FROM portal_audit.users(now());
CREATE OR REPLACE VIEW portal_audit.organizations_now AS SELECT * FROM portal_audit.organizations(now());
CREATE OR REPLACE VIEW portal_audit.projects_now AS SELECT * FROM portal_audit.projects(now());
CREATE OR REPLACE VIEW portal_audit.experiments_now AS SELECT * FROM portal_audit.experiments(now());
CREATE OR REPLACE VIEW portal_audit.resources_now AS SELECT * FROM portal_audit.resources_held(now());
COMMENT ON VIEW portal_audit.users_now IS 'Users that are there';
COMMENT ON VIEW portal_audit.organizations_now IS 'Organizations that are there';
COMMENT ON VIEW portal_audit.projects_now IS 'Projects that are there';
COMMENT ON VIEW portal_audit.experiments_now IS 'Experiments that are there';
COMMENT ON VIEW portal_audit.resources_now IS 'Physical resources that are held';

-- Numbers. Functions below the views, so that the row policies of who asks hold here too.
-- Years are summed by days: of hours there are 24 times as many.
CREATE TABLE IF NOT EXISTS portal_audit.daily_sums (
  event_type TEXT NOT NULL,
  day        DATE NOT NULL,
  success    BOOLEAN NOT NULL,
  events     BIGINT NOT NULL,
  PRIMARY KEY (event_type, day, success)
);
CREATE INDEX IF NOT EXISTS daily_sums_day ON portal_audit.daily_sums (day) INCLUDE (success, events);
COMMENT ON TABLE  portal_audit.daily_sums IS 'Sums of portal_audit.hourly by day; kept by a trigger there';
COMMENT ON COLUMN portal_audit.daily_sums.event_type IS 'As in events.event_type';
COMMENT ON COLUMN portal_audit.daily_sums.day IS 'The day, UTC';
COMMENT ON COLUMN portal_audit.daily_sums.success IS 'As in events.success';
COMMENT ON COLUMN portal_audit.daily_sums.events IS 'How many';

CREATE OR REPLACE FUNCTION portal_audit.sum_days() RETURNS TRIGGER
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO portal_audit.daily_sums AS d (event_type, day, success, events)
    SELECT a.event_type, (a.hour AT TIME ZONE 'UTC')::date, a.success, sum(a.events) FROM added a GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    ON CONFLICT (event_type, day, success) DO UPDATE SET events = d.events + excluded.events;
  ELSIF TG_OP = 'UPDATE' THEN
    UPDATE portal_audit.daily_sums d SET events = d.events + c.more
      FROM (SELECT t.event_type, t.day, t.success, sum(t.more) AS more
              FROM (SELECT a.event_type, (a.hour AT TIME ZONE 'UTC')::date AS day, a.success, a.events AS more FROM added a
                    UNION ALL SELECT g.event_type, (g.hour AT TIME ZONE 'UTC')::date, g.success, -g.events FROM gone g) AS t GROUP BY 1, 2, 3) AS c
     WHERE (d.event_type, d.day, d.success) = (c.event_type, c.day, c.success);
  ELSE
    -- Hours go only to be made anew, all of them.
    DELETE FROM portal_audit.daily_sums;
  END IF;
  RETURN NULL;
END $$;
COMMENT ON FUNCTION portal_audit.sum_days IS 'Keeps portal_audit.daily_sums with portal_audit.hourly';
REVOKE ALL ON FUNCTION portal_audit.sum_days FROM PUBLIC;
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = 'portal_audit.hourly'::regclass AND tgname = 'sum_days_added') THEN
    -- Nobody adds hours between the trigger and the sums of those that are there.
    LOCK TABLE portal_audit.hourly IN SHARE ROW EXCLUSIVE MODE;
    CREATE TRIGGER sum_days_added AFTER INSERT ON portal_audit.hourly
      REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION portal_audit.sum_days();
    CREATE TRIGGER sum_days_changed AFTER UPDATE ON portal_audit.hourly
      REFERENCING OLD TABLE AS gone NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION portal_audit.sum_days();
    CREATE TRIGGER sum_days_emptied AFTER TRUNCATE ON portal_audit.hourly FOR EACH STATEMENT EXECUTE FUNCTION portal_audit.sum_days();
    DELETE FROM portal_audit.daily_sums;
    INSERT INTO portal_audit.daily_sums (event_type, day, success, events)
    SELECT h.event_type, (h.hour AT TIME ZONE 'UTC')::date, h.success, sum(h.events) FROM portal_audit.hourly h GROUP BY 1, 2, 3;
  END IF;
END $$;

CREATE OR REPLACE FUNCTION portal_audit.days() RETURNS TABLE (day DATE, event_type TEXT, success BOOLEAN, events BIGINT) LANGUAGE sql STABLE AS $$
  SELECT d.day, d.event_type, d.success, d.events FROM portal_audit.daily_sums d
$$;
COMMENT ON FUNCTION portal_audit.days IS 'What the view daily shows';
CREATE OR REPLACE VIEW portal_audit.daily AS SELECT * FROM portal_audit.days();
COMMENT ON VIEW portal_audit.daily IS 'Events per day (UTC) and type, also of events that retention has taken away';

CREATE OR REPLACE FUNCTION portal_audit.activity(p_from DATE, p_to DATE) RETURNS TABLE (day DATE, users BIGINT, projects BIGINT) LANGUAGE sql STABLE AS $$
  SELECT d.day, count(*) FILTER (WHERE d.kind = 'user'), count(*) FILTER (WHERE d.kind = 'project')
    FROM portal_audit.active_days d WHERE d.day BETWEEN p_from AND p_to GROUP BY 1
$$;
COMMENT ON FUNCTION portal_audit.activity IS 'How many users did something and how many projects were worked in, per day of a span';

-- Whole days are counted, then whole hours; of the last one the events themselves are looked at.
CREATE OR REPLACE FUNCTION portal_audit.counted(p_types TEXT[], p_at TIMESTAMPTZ) RETURNS BIGINT LANGUAGE sql STABLE AS $$
  SELECT (SELECT coalesce(sum(d.events), 0)::bigint FROM portal_audit.daily_sums d
           WHERE d.event_type = ANY (p_types) AND d.day < (p_at AT TIME ZONE 'UTC')::date)
       + (SELECT coalesce(sum(h.events), 0)::bigint FROM portal_audit.hourly h
           WHERE h.event_type = ANY (p_types) AND h.hour >= date_trunc('day', p_at, 'UTC') AND h.hour < date_trunc('hour', p_at, 'UTC'))
       + (SELECT count(*) FROM public.events e
           WHERE e.timestamp >= date_trunc('hour', p_at, 'UTC') AND e.timestamp <= p_at AND e.event_type = ANY (p_types))
$$;
COMMENT ON FUNCTION portal_audit.counted IS 'How many events of some types there were until a time';
REVOKE ALL ON FUNCTION portal_audit.counted FROM PUBLIC;

-- Last sign of activity until a time of all that were active by then.
CREATE OR REPLACE FUNCTION portal_audit.last_active(p_kind TEXT, p_at TIMESTAMPTZ) RETURNS TABLE (name TEXT, last TIMESTAMPTZ) LANGUAGE sql STABLE AS $$
  SELECT a.name, least(d.last, p_at) FROM portal_audit.active a
   CROSS JOIN LATERAL (SELECT d.last FROM portal_audit.active_days d
                        WHERE d.kind = a.kind AND d.name = a.name AND d.day <= (p_at AT TIME ZONE 'UTC')::date AND d.first <= p_at
                        ORDER BY d.day DESC LIMIT 1) AS d
   WHERE a.kind = p_kind AND a.first <= p_at
$$;
COMMENT ON FUNCTION portal_audit.last_active IS 'Users or projects that were active until a time, and when last: exact to a day, and exact for any span that ends at that time and is a day or longer';

-- The numbers that need no look at each of what there is. To compile their plans takes longer than to run them.
CREATE OR REPLACE FUNCTION portal_audit.totals(p_at TIMESTAMPTZ DEFAULT now()) RETURNS TABLE (key TEXT, number BIGINT)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
  SELECT 'users', count(*) FROM portal_audit.alive('user', p_at)
  UNION ALL SELECT 'organizations', count(*) FROM portal_audit.alive('organization', p_at)
  UNION ALL SELECT 'projects', count(*) FROM portal_audit.alive('project', p_at)
  UNION ALL SELECT 'experiments', count(*) FROM portal_audit.alive('experiment', p_at)
  UNION ALL SELECT 'realizations', count(*) FROM portal_audit.alive('realization', p_at)
  UNION ALL SELECT 'materializations', count(*) FROM portal_audit.alive('materialization', p_at)
  UNION ALL
  SELECT n.name, portal_audit.counted(n.types, p_at)
    FROM (VALUES ('logins', ARRAY['login_succeeded', 'login_refreshed']), ('logins.failed', ARRAY['login_failed'])) AS n (name, types)
  UNION ALL
  SELECT n.name || '.within_' || s.name, portal_audit.counted(n.types, p_at) - portal_audit.counted(n.types, p_at - s.length)
    FROM (VALUES ('logins', ARRAY['login_succeeded', 'login_refreshed']), ('logins.failed', ARRAY['login_failed'])) AS n (name, types)
   CROSS JOIN (VALUES ('24_hours', interval '24 hours'), ('7_days', interval '168 hours'), ('30_days', interval '720 hours')) AS s (name, length)
$$;
COMMENT ON FUNCTION portal_audit.totals IS 'The quick ones among portal_audit.stats: how many of each thing there were at a time, and logins';
REVOKE ALL ON FUNCTION portal_audit.totals FROM PUBLIC;

CREATE OR REPLACE FUNCTION portal_audit.stats(p_at TIMESTAMPTZ DEFAULT now()) RETURNS TABLE (key TEXT, number BIGINT)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
  WITH things (plural, type) AS (
    VALUES ('users', 'user'), ('organizations', 'organization'), ('projects', 'project')
  ), spans (place, name, length) AS (
    VALUES (1, '24_hours', interval '24 hours'), (2, '7_days', interval '168 hours'), (3, '30_days', interval '720 hours'),
           (4, '90_days', interval '2160 hours'), (5, '180_days', interval '4320 hours')
  ), here AS MATERIALIZED (
    -- Each by itself: joined, the planner takes all lifetimes, of which those of realizations are most.
    SELECT 'users' AS plural, h.state, h.facts ->> 'category' AS category FROM portal_audit.there('user', p_at) h
    UNION ALL SELECT 'organizations', h.state, h.facts ->> 'category' FROM portal_audit.there('organization', p_at) h
    UNION ALL SELECT 'projects', h.state, h.facts ->> 'category' FROM portal_audit.there('project', p_at) h
  ), seen AS MATERIALIZED (
    -- How many by the shortest of those spans that they were active in; 6: in none.
    SELECT t.plural, CASE WHEN a.last > p_at - interval '24 hours' THEN 1 WHEN a.last > p_at - interval '168 hours' THEN 2
                          WHEN a.last > p_at - interval '720 hours' THEN 3 WHEN a.last > p_at - interval '2160 hours' THEN 4
                          WHEN a.last > p_at - interval '4320 hours' THEN 5 ELSE 6 END AS place, count(*)::bigint AS number
      FROM things t CROSS JOIN LATERAL portal_audit.last_active(t.type, p_at) a WHERE t.plural <> 'organizations' GROUP BY 1, 2
  )
  SELECT t.plural, count(h.plural) FROM things t LEFT JOIN here h USING (plural) GROUP BY 1
  UNION ALL
  SELECT h.plural || '.state.' || coalesce(nullif(h.state, ''), '(none)'), count(*) FROM here h GROUP BY 1
  UNION ALL
  SELECT h.plural || '.category.' || coalesce(nullif(h.category, ''), '(none)'), count(*) FROM here h GROUP BY 1
  UNION ALL
  SELECT t.plural || '.active_within_' || s.name, coalesce(sum(a.number), 0)::bigint
    FROM things t CROSS JOIN spans s LEFT JOIN seen a ON a.plural = t.plural AND a.place <= s.place WHERE t.plural <> 'organizations' GROUP BY 1
  UNION ALL
  SELECT t.plural || '.active_cumulative', coalesce(sum(a.number), 0)::bigint
    FROM things t LEFT JOIN seen a USING (plural) WHERE t.plural <> 'organizations' GROUP BY 1
  UNION ALL
  SELECT p.plural || '.non_active_cumulative', count(DISTINCT n.subject)
    FROM (VALUES ('users'), ('projects')) AS p (plural)
    LEFT JOIN (SELECT 'users' AS plural, l.subject FROM portal_audit.lifetimes l
                WHERE l.subject_type = 'user' AND l.began <= p_at AND l.old_name IS NULL
                  AND NOT EXISTS (SELECT FROM portal_audit.active a WHERE a.kind = 'user' AND a.name = l.subject AND a.first <= p_at)
               UNION ALL
               SELECT 'projects' AS plural, l.subject FROM portal_audit.lifetimes l
                WHERE l.subject_type = 'project' AND l.began <= p_at AND l.old_name IS NULL
                  AND NOT EXISTS (SELECT FROM portal_audit.active a WHERE a.kind = 'project' AND a.name = l.subject AND a.first <= p_at)) AS n USING (plural) GROUP BY 1
  UNION ALL
  SELECT t.key, t.number FROM portal_audit.totals(p_at) t WHERE t.key NOT IN (SELECT plural FROM things)
   ORDER BY 1
$$;
COMMENT ON FUNCTION portal_audit.stats IS 'Numbers of the testbed as they were at a time; logins to the hour once retention has taken the events away';
REVOKE ALL ON FUNCTION portal_audit.stats FROM PUBLIC;

-- What is ours to comment: the given table may belong to others.
DO $$
BEGIN
  IF pg_has_role((SELECT relowner FROM pg_class WHERE oid = 'public.events'::regclass), 'USAGE') THEN
    COMMENT ON TABLE  public.events IS 'Audit events: who did what to whom in the portal, one row each. portal_audit.events_described has a sentence for each; SELECT portal_audit.folded_to() tells up to when it is whole';
    COMMENT ON COLUMN public.events.event_uuid IS 'Identifies the event: made from its place in the source''s log, so the same change always has the same; begins with the time';
    COMMENT ON COLUMN public.events.timestamp IS 'When the portal committed it';
    COMMENT ON COLUMN public.events.event_type IS 'What happened: <subject>_<past participle>, as in org_member_added; portal_audit.event_types has them all';
    COMMENT ON COLUMN public.events.caller IS 'Who did it: a username; empty: not known';
    COMMENT ON COLUMN public.events.subject IS 'To what it happened: its name at that time';
    COMMENT ON COLUMN public.events.subject_type IS 'What the subject is: user, organization, project, experiment, realization, materialization, …';
    COMMENT ON COLUMN public.events.target IS 'What else it concerns, such as the member who was added; NULL: nothing';
    COMMENT ON COLUMN public.events.success IS 'Whether it succeeded. A false one changed nothing, but for a materialization, which stays as a failed one';
    COMMENT ON COLUMN public.events.error_message IS 'Why it did not';
    COMMENT ON COLUMN public.events.payload IS 'More facts, by the type; payload->''_audit'' says how we know: source, position in its log, transaction, caller_from';
  END IF;
END $$;
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'portal_audit_writer') THEN
    GRANT EXECUTE ON FUNCTION portal_audit.fold, portal_audit.folded_to TO portal_audit_writer;
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'portal_audit_reader') THEN
    GRANT SELECT ON portal_audit.folded, portal_audit.lifetime_points, portal_audit.lifetimes, portal_audit.membership_points,
      portal_audit.resource_points, portal_audit.hourly, portal_audit.daily_sums, portal_audit.active_days, portal_audit.active,
      portal_audit.events_described, portal_audit.users_now, portal_audit.organizations_now, portal_audit.projects_now,
      portal_audit.experiments_now, portal_audit.resources_now, portal_audit.daily TO portal_audit_reader;
    GRANT EXECUTE ON FUNCTION portal_audit.folded_to, portal_audit.stats, portal_audit.totals TO portal_audit_reader;
  END IF;
END $$;
