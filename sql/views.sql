
-- What admins query, of the tables of fold.sql: sentences; people and projects as of any time; numbers.

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
DROP INDEX IF EXISTS portal_audit.lifetimes_long;
CREATE INDEX IF NOT EXISTS lifetimes_lasted ON portal_audit.lifetimes (subject_type, ended) INCLUDE (began) WHERE ended - began > interval '7 days';
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

-- The last point mostly says all: what it leaves open is looked for among those before it.
CREATE OR REPLACE FUNCTION portal_audit.there(p_type TEXT, p_at TIMESTAMPTZ)
RETURNS TABLE (name TEXT, within TEXT, since TIMESTAMPTZ, state TEXT, facts JSONB) LANGUAGE sql STABLE AS $$
  SELECT l.subject, l.within, l.began,
         coalesce((n.last).state,
           (SELECT p.state FROM portal_audit.lifetime_points p
             WHERE p.subject_type = l.subject_type AND p.within = l.within AND p.subject = l.subject AND p.state IS NOT NULL AND p.at <= p_at
               AND (p.at, p.lsn, p.n) >= (l.began, l.began_lsn, l.began_n)
             ORDER BY p.at DESC, p.lsn DESC, p.n DESC, p.event_uuid DESC LIMIT 1),
           CASE WHEN l.old_name IS NOT NULL THEN (portal_audit.inherited(l.subject_type, l.old_within, l.old_name, l.began_uuid)).state END),
         coalesce((n.last).facts,
           (SELECT p.facts FROM portal_audit.lifetime_points p
             WHERE p.subject_type = l.subject_type AND p.within = l.within AND p.subject = l.subject AND p.facts IS NOT NULL AND p.at <= p_at
               AND (p.at, p.lsn, p.n) >= (l.began, l.began_lsn, l.began_n)
             ORDER BY p.at DESC, p.lsn DESC, p.n DESC, p.event_uuid DESC LIMIT 1),
           CASE WHEN l.old_name IS NOT NULL THEN (portal_audit.inherited(l.subject_type, l.old_within, l.old_name, l.began_uuid)).facts END)
    FROM portal_audit.alive(p_type, p_at) l
    -- A leaf of the index is read as a whole, as far as it fits: so what is near in time is asked for first.
    LEFT JOIN LATERAL (SELECT coalesce(
        (SELECT p FROM portal_audit.lifetime_points p
          WHERE p.subject_type = l.subject_type AND p.within = l.within AND p.subject = l.subject AND p.at <= p_at
            AND p.at > p_at - interval '30 days' AND (p.at, p.lsn, p.n) >= (l.began, l.began_lsn, l.began_n)
          ORDER BY p.at DESC, p.lsn DESC, p.n DESC, p.event_uuid DESC LIMIT 1),
        (SELECT p FROM portal_audit.lifetime_points p
          WHERE p.subject_type = l.subject_type AND p.within = l.within AND p.subject = l.subject AND p.at <= p_at
            AND (p.at, p.lsn, p.n) >= (l.began, l.began_lsn, l.began_n)
          ORDER BY p.at DESC, p.lsn DESC, p.n DESC, p.event_uuid DESC LIMIT 1)) AS last OFFSET 0) AS n ON true
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

-- Of these there were so many that the planner expects thousands where some hundreds stood: to compile such a plan takes longer than to run it.
CREATE OR REPLACE FUNCTION portal_audit.resources_held(p_at TIMESTAMPTZ DEFAULT now())
RETURNS TABLE (resource TEXT, subject_type TEXT, subject TEXT, project TEXT, experiment TEXT, since TIMESTAMPTZ) LANGUAGE sql STABLE SET jit = off AS $$
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
RETURNS TABLE (realization TEXT, project TEXT, experiment TEXT, since TIMESTAMPTZ) LANGUAGE sql STABLE SET jit = off AS $$
  SELECT t.name, t.facts ->> 'project', t.facts ->> 'experiment', t.since FROM portal_audit.there('realization', p_at) t
$$;
COMMENT ON FUNCTION portal_audit.realizations IS 'Realizations that stood at a time';

CREATE OR REPLACE FUNCTION portal_audit.materializations(p_at TIMESTAMPTZ DEFAULT now())
RETURNS TABLE (materialization TEXT, project TEXT, experiment TEXT, status TEXT, since TIMESTAMPTZ) LANGUAGE sql STABLE SET jit = off AS $$
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
   -- Of the present the last one is known; of the past, as in portal_audit.there.
   CROSS JOIN LATERAL (SELECT coalesce(
        CASE WHEN a.last <= p_at THEN a.last END,
        (SELECT d.last FROM portal_audit.active_days d
          WHERE d.kind = a.kind AND d.name = a.name AND d.day BETWEEN (p_at AT TIME ZONE 'UTC')::date - 6 AND (p_at AT TIME ZONE 'UTC')::date AND d.first <= p_at
          ORDER BY d.day DESC LIMIT 1),
        (SELECT d.last FROM portal_audit.active_days d
          WHERE d.kind = a.kind AND d.name = a.name AND d.day <= (p_at AT TIME ZONE 'UTC')::date AND d.first <= p_at
          ORDER BY d.day DESC LIMIT 1)) AS last OFFSET 0) AS d
   WHERE a.kind = p_kind AND a.first <= p_at AND d.last IS NOT NULL
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
  SELECT CASE c.span WHEN '' THEN c.name ELSE c.name || '.within_' || c.span END,
         CASE c.span WHEN '' THEN c.number ELSE max(c.number) FILTER (WHERE c.span = '') OVER (PARTITION BY c.name) - c.number END
    FROM (SELECT n.name, s.span, portal_audit.counted(n.types, p_at - s.length) AS number
            FROM (VALUES ('logins', ARRAY['login_succeeded', 'login_refreshed']), ('logins.failed', ARRAY['login_failed'])) AS n (name, types)
           CROSS JOIN (VALUES ('', interval '0'), ('24_hours', '24 hours'), ('7_days', '168 hours'), ('30_days', '720 hours')) AS s (span, length) OFFSET 0) AS c
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
    GRANT EXECUTE ON FUNCTION portal_audit.fold, portal_audit.folding, portal_audit.folded_to TO portal_audit_writer;
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'portal_audit_reader') THEN
    GRANT SELECT ON portal_audit.folded, portal_audit.lifetime_points, portal_audit.lifetimes, portal_audit.membership_points,
      portal_audit.resource_points, portal_audit.hourly, portal_audit.daily_sums, portal_audit.active_days, portal_audit.active,
      portal_audit.events_described, portal_audit.users_now, portal_audit.organizations_now, portal_audit.projects_now,
      portal_audit.experiments_now, portal_audit.resources_now, portal_audit.daily TO portal_audit_reader;
    GRANT EXECUTE ON FUNCTION portal_audit.folded_to, portal_audit.stats, portal_audit.totals TO portal_audit_reader;
  END IF;
END $$;
