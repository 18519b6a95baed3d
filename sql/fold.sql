
-- 6. What follows the record, made from events alone: tables, how an event becomes points, fold. What admins query is made of them (views.sql).

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
  last  TIMESTAMPTZ,
  PRIMARY KEY (kind, name)
);
-- It came later. Nobody folds between the column and what it holds of those that are there.
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'portal_audit.active'::regclass AND attname = 'last' AND NOT attisdropped) THEN
    ALTER TABLE portal_audit.active ADD COLUMN last TIMESTAMPTZ;
    UPDATE portal_audit.active a SET last = (SELECT max(d.last) FROM portal_audit.active_days d WHERE d.kind = a.kind AND d.name = a.name);
  END IF;
END $$;
COMMENT ON TABLE  portal_audit.active IS 'From when to when users and projects are active; folded from events';
COMMENT ON COLUMN portal_audit.active.kind IS 'As in portal_audit.active_days';
COMMENT ON COLUMN portal_audit.active.name IS 'As in portal_audit.active_days';
COMMENT ON COLUMN portal_audit.active.first IS 'First event of all';
COMMENT ON COLUMN portal_audit.active.last IS 'Last event of all';

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
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
  m CONSTANT TEXT[] := regexp_match(p_event_type,
    '^(.+?)_(created|registered|started|activated|frozen|unfrozen|state_changed|updated|extended|completed|renamed|deleted|declined|relinquished|expired)$');
BEGIN
  RETURN CASE
    WHEN p_event_type = 'de' || regexp_replace(p_subject_type, 'ation$', 'ed') THEN 'ended'
    -- user_frozen of a user, org_frozen of an organization; but not token_created of a user.
    WHEN length(m[1]) >= 3 AND starts_with(p_subject_type, m[1]) THEN m[2]
  END;
END $$;
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
    INSERT INTO portal_audit.active AS a (kind, name, first, last) SELECT kind, name, min(first), max(last) FROM days GROUP BY 1, 2
    ON CONFLICT (kind, name) DO UPDATE SET first = least(a.first, excluded.first), last = greatest(a.last, excluded.last)
     WHERE a.first > excluded.first OR a.last < excluded.last
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

-- The next events of a tree, at most so many of them, from an index on. PL/pgSQL keeps its plan: in SQL it is a quarter of a small piece's time.
CREATE OR REPLACE FUNCTION portal_audit.next_leaves(p_tree TEXT, p_from BIGINT, p_limit INT) RETURNS UUID[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (
    SELECT array_agg(encode(substr(s.uuids, 16 * i + 1, 16), 'hex')::uuid)
      -- The part that is wanted of each row is read once.
      FROM (SELECT substr(uuids, 16 * skip + 1, 16 * length) AS uuids, length
              FROM (SELECT uuids, greatest(p_from - first, 0)::int AS skip,
                           (least(first + events, p_from + p_limit) - greatest(first, p_from))::int AS length
                      FROM portal_audit.seals
                     WHERE tree = p_tree AND first < p_from + p_limit
                       AND first >= (SELECT max(b.first) FROM portal_audit.seals b WHERE b.tree = p_tree AND b.first <= p_from)) AS pieces
            OFFSET 0) AS s
     CROSS JOIN LATERAL generate_series(0, s.length - 1) AS i);
END $$;
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

-- Of all three that are folded, each from a place of its own: what was there before one of them came is behind in that one alone.
CREATE OR REPLACE FUNCTION portal_audit.folding(OUT leaves BIGINT, OUT behind BIGINT)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  SELECT coalesce(sum(t.size), 0), coalesce(greatest(sum(t.size - coalesce(f.upto, 0)), sum(t.size - coalesce(h.upto, 0)),
                                                     sum(t.size - coalesce(u.upto, 0)) FILTER (WHERE t.tree <> '.own')), 0)
    INTO leaves, behind
    FROM portal_audit.trees t LEFT JOIN portal_audit.folded f USING (tree)
    LEFT JOIN portal_audit.things_folded h USING (tree) LEFT JOIN portal_audit.facility_folded u USING (tree);
END $$;
COMMENT ON FUNCTION portal_audit.folding IS 'How many leaves there are, and how many of them those of the derived tables that are farthest behind do not know yet';
REVOKE ALL ON FUNCTION portal_audit.folding FROM PUBLIC;

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
