
-- 9. What a user of the portal may see, found without reading what the others did. The policy of section 8 alone says whether a row may be seen;
-- here is only where to look: what is newest, then what bears the names of the viewer and of what is theirs, by the given indexes. Most events
-- of a project bear the name of an experiment, a realization and so on, and no index leads from the project to those: one table of ours does.
CREATE TABLE IF NOT EXISTS portal_audit.project_things (
  project      TEXT NOT NULL,
  subject_type TEXT NOT NULL,
  key          TEXT NOT NULL,
  subject      TEXT,
  first        DATE NOT NULL,
  last         DATE NOT NULL,
  PRIMARY KEY (project, subject_type, key)
);
CREATE INDEX IF NOT EXISTS project_things_last ON portal_audit.project_things (project, last);
COMMENT ON TABLE  portal_audit.project_things IS 'Subjects of events whose payload names a project: its experiments, realizations and so on; folded from events';
COMMENT ON COLUMN portal_audit.project_things.project IS 'The project. Longer names than 600 bytes stand as a hash';
COMMENT ON COLUMN portal_audit.project_things.subject_type IS 'As in events.subject_type';
COMMENT ON COLUMN portal_audit.project_things.key IS 'As in events.subject; a longer name than 600 bytes as a hash';
COMMENT ON COLUMN portal_audit.project_things.subject IS 'The whole name where key is a hash';
COMMENT ON COLUMN portal_audit.project_things.first IS 'Day (UTC) of the first of those events';
COMMENT ON COLUMN portal_audit.project_things.last IS 'Day (UTC) of the last of them';

CREATE TABLE IF NOT EXISTS portal_audit.thing_types (
  event_type   TEXT NOT NULL,
  subject_type TEXT NOT NULL,
  PRIMARY KEY (event_type, subject_type)
);
COMMENT ON TABLE  portal_audit.thing_types IS 'What types those events have, by the type of their subject: whoever asks for other types need not look at the things of a project';
COMMENT ON COLUMN portal_audit.thing_types.event_type IS 'As in events.event_type';
COMMENT ON COLUMN portal_audit.thing_types.subject_type IS 'As in portal_audit.project_things';

CREATE TABLE IF NOT EXISTS portal_audit.things_folded (
  tree TEXT PRIMARY KEY,
  upto BIGINT NOT NULL,
  at   TIMESTAMPTZ NOT NULL DEFAULT '-infinity'
);
COMMENT ON TABLE  portal_audit.things_folded IS 'How far portal_audit.project_things has come in each tree';
COMMENT ON COLUMN portal_audit.things_folded.tree IS 'As in portal_audit.trees';
COMMENT ON COLUMN portal_audit.things_folded.upto IS 'Leaves that are taken: index of the next one';
COMMENT ON COLUMN portal_audit.things_folded.at IS 'Latest time of the events among them';

-- A place of its own, not that of portal_audit.folded: a database that was folded before there was this table takes all of its leaves once.
CREATE OR REPLACE FUNCTION portal_audit.fold_things(p_limit INT) RETURNS BIGINT
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
  taken  BIGINT := 0;
  t      RECORD;
  ids    UUID[];
  latest TIMESTAMPTZ;
BEGIN
  IF NOT EXISTS (SELECT FROM portal_audit.trees r LEFT JOIN portal_audit.things_folded f USING (tree) WHERE r.size > coalesce(f.upto, 0))
     OR NOT pg_try_advisory_xact_lock(hashtext('portal_audit.fold_things'), 0) THEN
    RETURN 0;
  END IF;
  INSERT INTO portal_audit.things_folded (tree, upto) SELECT tree, 0 FROM portal_audit.trees ON CONFLICT DO NOTHING;
  FOR t IN SELECT f.tree, f.upto FROM portal_audit.trees r JOIN portal_audit.things_folded f USING (tree) WHERE r.size > f.upto ORDER BY f.tree LOOP
    ids := portal_audit.next_leaves(t.tree, t.upto, p_limit);
    -- One statement for all of them: at a portal's pace each row of seals has an event or two.
    WITH taken AS MATERIALIZED (
      SELECT e.timestamp, e.event_type, e.subject_type, e.subject,
             CASE WHEN e.subject_type <> 'project' AND octet_length(e.subject_type) <= 600 THEN e.payload ->> 'project' END AS project
        FROM public.events e WHERE e.event_uuid = ANY (ids)
    ), types AS (
      INSERT INTO portal_audit.thing_types (event_type, subject_type)
      SELECT DISTINCT event_type, subject_type FROM taken WHERE project IS NOT NULL AND octet_length(event_type) <= 600 ON CONFLICT DO NOTHING
    ), things AS (
      INSERT INTO portal_audit.project_things AS p (project, subject_type, key, subject, first, last)
      SELECT portal_audit.short(d.project), d.subject_type, portal_audit.short(d.subject),
             CASE WHEN octet_length(d.subject) > 600 THEN d.subject END, d.first, d.last
        FROM (SELECT project, subject_type, subject, min((timestamp AT TIME ZONE 'UTC')::date) AS first, max((timestamp AT TIME ZONE 'UTC')::date) AS last
                FROM taken WHERE project IS NOT NULL
               GROUP BY project, subject_type, subject) AS d
       ORDER BY 1, 2, 3
      ON CONFLICT (project, subject_type, key) DO UPDATE SET first = least(p.first, excluded.first), last = greatest(p.last, excluded.last)
       WHERE p.first > excluded.first OR p.last < excluded.last
    )
    SELECT max(timestamp) INTO latest FROM taken;
    UPDATE portal_audit.things_folded f SET upto = f.upto + cardinality(ids), at = greatest(f.at, latest) WHERE f.tree = t.tree;
    taken := taken + cardinality(ids);
  END LOOP;
  RETURN taken;
END $$;
COMMENT ON FUNCTION portal_audit.fold_things IS 'Takes at most so many leaves of each tree into portal_audit.project_things and says how many it took; 0: nothing is left, or another session is at it';

CREATE OR REPLACE FUNCTION portal_audit.things_to() RETURNS TIMESTAMPTZ
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  -- Commits of one second may stand in any order in the log.
  SELECT coalesce(min(coalesce(f.at, '-infinity') - interval '1 minute'), 'infinity')
    FROM portal_audit.trees t LEFT JOIN portal_audit.things_folded f USING (tree)
   -- What the audit database tells of itself is of no project.
   WHERE t.size > coalesce(f.upto, 0) AND t.tree <> '.own'
$$;
COMMENT ON FUNCTION portal_audit.things_to IS 'Up to which time of events portal_audit.project_things knows them; infinity: all';

-- A filter as conditions on events e, in the words that the program has: {"type": ["org_*"], "caller": [], "subject": [], "subject_type": [], "target": [],
-- "user": [], "success": true, "since": "2026-04-23", "until": "7d", "payload": ["role=maintainer"]}.
CREATE OR REPLACE FUNCTION portal_audit.meant(p_filter JSONB, OUT place TEXT, OUT named TEXT, OUT outcome TEXT, OUT held TEXT, OUT types TEXT[], OUT kinds TEXT[])
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  f     RECORD;
  words TEXT[];
  one   TEXT;
  at    TIMESTAMPTZ;
BEGIN
  place := 'true';
  outcome := 'true';
  held := 'true';
  FOR f IN SELECT key, value FROM jsonb_each(coalesce(p_filter, '{}')) WHERE value <> 'null' ORDER BY key LOOP
    IF jsonb_typeof(f.value) = 'array' THEN
      CONTINUE WHEN jsonb_array_length(f.value) = 0;
      SELECT array_agg(w) INTO words FROM jsonb_array_elements_text(f.value) AS w;
    END IF;
    CASE
      WHEN f.key = 'type' AND jsonb_typeof(f.value) = 'array' THEN
        -- Nobody but admins sees a type that is not declared.
        SELECT coalesce(array_agg(w), '{}') INTO types
          FROM (SELECT w FROM unnest(words) AS w WHERE w NOT LIKE '%*'
                UNION SELECT t.event_type FROM portal_audit.event_types t, unnest(words) AS w WHERE w LIKE '%*' AND starts_with(t.event_type, rtrim(w, '*'))) AS w (w);
        named := concat_ws(' AND ', named, format('e.event_type = ANY (%L::text[])', types));
      WHEN f.key IN ('caller', 'subject', 'subject_type', 'target') AND jsonb_typeof(f.value) = 'array' THEN
        named := concat_ws(' AND ', named, format('e.%I = ANY (%L::text[])', f.key, words));
        kinds := CASE f.key WHEN 'subject_type' THEN words ELSE kinds END;
        IF f.key = 'subject' AND coalesce(p_filter -> 'subject_type', '[]') IN ('[]', 'null') THEN
          named := format('%s AND e.subject_type = ANY (%L::text[])', named, portal_audit.subject_types());
        END IF;
      WHEN f.key = 'user' AND jsonb_typeof(f.value) = 'array' THEN
        named := concat_ws(' AND ', named, format(
          '(e.caller = ANY (%1$L::text[]) OR (e.subject_type = ANY (%2$L::text[]) AND e.subject = ANY (%1$L::text[])) OR e.target = ANY (%1$L::text[]))',
          words, portal_audit.subject_types()));
      WHEN f.key = 'success' AND jsonb_typeof(f.value) = 'boolean' THEN
        outcome := CASE WHEN f.value::boolean THEN 'e.success' ELSE 'NOT e.success' END;
      WHEN f.key IN ('since', 'until') AND jsonb_typeof(f.value) = 'string' THEN
        one := f.value #>> '{}';
        at := CASE WHEN one ~ '^[0-9]+[smhdw]$' THEN now() - one::interval
                   -- A day in UTC; as an end, its last instant.
                   WHEN one ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}$' THEN (one::date + (f.key = 'until')::int)::timestamp AT TIME ZONE 'UTC'
                   ELSE one::timestamptz END;
        place := format('%s AND e.timestamp %s %L::timestamptz', place, CASE f.key WHEN 'since' THEN '>=' ELSE '<' END, at);
      WHEN f.key = 'payload' AND jsonb_typeof(f.value) = 'array' THEN
        FOREACH one IN ARRAY words LOOP
          -- Most events have no such key, which is quickly seen.
          held := format('%1$s AND e.payload ? %5$L AND (e.payload #>> %2$L::text[] = %3$L OR e.payload #> %2$L::text[] @> %4$L::jsonb)', held,
            string_to_array(split_part(one, '=', 1), '.'), substr(one, strpos(one, '=') + 1), to_jsonb(substr(one, strpos(one, '=') + 1)),
            split_part(split_part(one, '=', 1), '.', 1));
        END LOOP;
      ELSE
        RAISE EXCEPTION 'a filter has no such condition: %', f.key USING ERRCODE = '22023';
    END CASE;
  END LOOP;
END $$;
COMMENT ON FUNCTION portal_audit.meant IS 'A filter as conditions on events e: on its time, by names that have an index (NULL: none), on its outcome, on its payload; and the types of event and of subject that it names';

-- Which rows of some are meant, if they are fewer than so many. Counting them is quick: the indexes answer it, but for what is quite new.
CREATE OR REPLACE FUNCTION portal_audit.gather(
  p_rows TEXT, p_meant TEXT, p_most BIGINT, p_types TEXT[], p_subjects TEXT[], OUT looked BIGINT, OUT ids UUID[], OUT times TIMESTAMPTZ[])
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  EXECUTE format('SELECT count(*) FROM (SELECT FROM (%s) AS e LIMIT $1) AS e', p_rows) INTO looked USING p_most, p_types, p_subjects;
  IF looked < p_most THEN
    EXECUTE format('SELECT coalesce(array_agg(e.event_uuid), ''{}''), coalesce(array_agg(e.timestamp), ''{}'') FROM (%s) AS e WHERE %s', p_rows, p_meant)
      INTO ids, times USING p_most, p_types, p_subjects;
  END IF;
END $$;
COMMENT ON FUNCTION portal_audit.gather IS 'How many rows of a query on events there are, of so many that are counted, and if there are fewer, which are meant; portal_audit.my_page asks it';

-- The next events in time: which of so many are meant, until the page is full; and up to where that was, if there are others behind. Those of one
-- time are looked at together. p_during: the same as p_place, but by the time alone, which the index answers without the table.
CREATE OR REPLACE FUNCTION portal_audit.walk(
  p_during TEXT, p_meant TEXT, p_oldest_first BOOLEAN, p_most BIGINT, p_limit INT, OUT ids UUID[], OUT times TIMESTAMPTZ[], OUT edge TIMESTAMPTZ)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  way CONSTANT TEXT := CASE WHEN p_oldest_first THEN 'ASC' ELSE 'DESC' END;
BEGIN
  EXECUTE format('SELECT e.timestamp FROM public.events e WHERE %s ORDER BY e.timestamp %s OFFSET $1 LIMIT 1', p_during, way) INTO edge USING p_most;
  EXECUTE format('SELECT coalesce(array_agg(e.event_uuid), ''{}''), coalesce(array_agg(e.timestamp), ''{}'')
    FROM (SELECT e.event_uuid, e.timestamp FROM public.events e WHERE %s AND %s ORDER BY e.timestamp %s, e.event_uuid %3$s LIMIT $1) AS e',
    CASE WHEN edge IS NULL THEN 'true' ELSE format('e.timestamp %s= %L::timestamptz', CASE WHEN p_oldest_first THEN '<' ELSE '>' END, edge) END,
    p_meant, way) INTO ids, times USING p_limit;
END $$;
COMMENT ON FUNCTION portal_audit.walk IS 'Which of the next events in time are meant, and up to where it looked; portal_audit.my_page asks it';

-- Events that bear a name of the viewer or of what the viewer may see, each by an index. The rule decides which of them may be seen; apart from
-- that (OFFSET 0), or the planner takes all events of the types in the rule or the filter besides, of which there may be millions.
CREATE OR REPLACE FUNCTION portal_audit.arms_of(p_viewer TEXT, p_projects JSONB, p_organizations JSONB, p_facilities JSONB) RETURNS TEXT
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT string_agg('(SELECT e.* FROM public.events e WHERE ' || arm || ' OFFSET 0)', ' UNION ALL ') FROM (
    SELECT format(unnest(ARRAY['e.caller = %1$L', 'e.subject_type = ''user'' AND e.subject = %1$L', 'e.target = %1$L']), p_viewer)
    UNION ALL
    SELECT format('e.subject_type = %L AND e.subject = ANY (%L::text[])', k.kind, ARRAY(SELECT jsonb_object_keys(k.reach)))
      FROM (VALUES ('project', p_projects), ('organization', p_organizations), ('facility', p_facilities)) AS k (kind, reach) WHERE k.reach <> '{}'
    UNION ALL
    SELECT format('e.target = ANY (%L::text[]) AND e.event_type LIKE ''%%\_project\_%%''', ARRAY(SELECT jsonb_object_keys(p_projects))) WHERE p_projects <> '{}'
  ) AS arms (arm)
$$;
COMMENT ON FUNCTION portal_audit.arms_of IS 'The events that may be a viewer''s by a name in them; portal_audit.my_page asks it';

-- The things of some projects, the nearest in time first, and up to which day none but these tells of the projects (NULL: none does).
CREATE OR REPLACE FUNCTION portal_audit.things_of(
  p_projects JSONB, p_types TEXT[], p_kinds TEXT[], p_from TIMESTAMPTZ, p_oldest_first BOOLEAN, p_most INT, OUT types TEXT[], OUT subjects TEXT[], OUT known_to TIMESTAMPTZ)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
  kinds TEXT[] := p_kinds;
BEGIN
  IF p_types IS NOT NULL THEN
    SELECT coalesce(array_agg(DISTINCT t.subject_type), '{}') INTO kinds
      FROM portal_audit.thing_types t WHERE t.event_type = ANY (p_types) AND (p_kinds IS NULL OR t.subject_type = ANY (p_kinds));
  END IF;
  WITH mine AS (
    SELECT portal_audit.short(p.key) AS project,
           (greatest(coalesce(lower(s.whole), '-infinity'), CASE WHEN p_oldest_first THEN p_from END) AT TIME ZONE 'UTC')::date AS low,
           (least(coalesce(upper(s.whole), 'infinity'), CASE WHEN NOT p_oldest_first THEN p_from END) AT TIME ZONE 'UTC')::date AS high
      FROM jsonb_each_text(p_projects) AS p
     CROSS JOIN LATERAL (SELECT range_merge(p.value::tstzmultirange) AS whole) AS s
  ), things AS (
    (SELECT t.*
       FROM mine m CROSS JOIN LATERAL (
         SELECT t.*, least(t.last, m.high) AS day FROM portal_audit.project_things t
          WHERE t.project = m.project AND t.first <= m.high AND t.last >= m.low AND (kinds IS NULL OR t.subject_type = ANY (kinds)) ORDER BY t.last DESC, t.subject_type, t.key LIMIT p_most + 1) AS t
      WHERE NOT p_oldest_first ORDER BY t.day DESC, t.last DESC, t.subject_type, t.key, t.project LIMIT p_most + 1)
    UNION ALL
    (SELECT t.*
       FROM mine m CROSS JOIN LATERAL (
         SELECT t.*, greatest(t.first, m.low) AS day FROM portal_audit.project_things t
          WHERE t.project = m.project AND t.first <= m.high AND t.last >= m.low AND (kinds IS NULL OR t.subject_type = ANY (kinds)) ORDER BY t.first, t.subject_type, t.key LIMIT p_most + 1) AS t
      WHERE p_oldest_first ORDER BY t.day, t.first, t.subject_type, t.key, t.project LIMIT p_most + 1)
  )
  SELECT array_agg(t.subject_type ORDER BY t.number), array_agg(coalesce(t.subject, t.key) ORDER BY t.number),
         CASE WHEN count(*) > p_most THEN (CASE WHEN p_oldest_first THEN max(t.day) ELSE min(t.day) + 1 END)::timestamp AT TIME ZONE 'UTC' END
    INTO types, subjects, known_to
    FROM (SELECT t.*, row_number() OVER (
            -- More of them begin with these, whatever the number: within a project they come in the order of their index.
            ORDER BY CASE WHEN p_oldest_first THEN t.day END, CASE WHEN NOT p_oldest_first THEN t.day END DESC, CASE WHEN p_oldest_first THEN t.first END, CASE WHEN NOT p_oldest_first THEN t.last END DESC, t.subject_type, t.key, t.project) AS number FROM things t) AS t;
END $$;
COMMENT ON FUNCTION portal_audit.things_of IS 'So many things of projects of portal_audit.reach, and up to which time they are all of them; portal_audit.my_page asks it';

-- A page of what the viewer may see, by id. It looks at a bounded number of events and says how far it came: where its last row is not found,
-- all up to there was looked at and the page is not full; the next one begins there.
-- Runs as the owner, for whom there is no policy: so the rule of the policy is applied here, with its questions about the viewer answered once.
-- Nothing leaves this function but ids of rows that the rule lets through, and the place to which it looked, which is no row's.
CREATE OR REPLACE FUNCTION portal_audit.my_page(
  p_limit INT, p_filter JSONB DEFAULT '{}', p_beyond TIMESTAMPTZ DEFAULT NULL, p_beyond_uuid UUID DEFAULT NULL, p_oldest_first BOOLEAN DEFAULT FALSE
) RETURNS TABLE (is_event BOOLEAN, at TIMESTAMPTZ, event_uuid UUID)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off SET max_parallel_workers_per_gather = 0 AS $$
#variable_conflict use_column
DECLARE
  -- How many events are looked at, for a page of up to 500. To pass over one by its type or outcome takes a third of the time.
  share    CONSTANT FLOAT8 := greatest(1, p_limit / 500.0);
  near     CONSTANT BIGINT := greatest(4000, 2 * p_limit);
  far      BIGINT := 20000 * share;
  few      CONSTANT BIGINT := 10000 * share;
  own_few  BIGINT := 20000 * share;
  first    CONSTANT UUID := '00000000-0000-0000-0000-000000000000';
  last     CONSTANT UUID := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
  me       CONSTANT TEXT := portal_audit.viewer();
  projects JSONB;
  kept_org JSONB;
  kept_fac JSONB;
  known_to CONSTANT TIMESTAMPTZ := portal_audit.things_to();
  m        RECORD;
  during   TEXT;
  meant    TEXT;
  got      RECORD;
  mine     RECORD;
  things   RECORD;
  ids      UUID[];
  times    TIMESTAMPTZ[];
  -- Up to which time all is known, that time itself included or not; NULL: to the end.
  edge     TIMESTAMPTZ;
  is_with  BOOLEAN := TRUE;
  looks    BIGINT;
  taken    BIGINT := 0;
BEGIN
  IF p_limit NOT BETWEEN 1 AND 10000 THEN
    RAISE EXCEPTION 'a page has 1 to 10000 events' USING ERRCODE = '22023';
  ELSIF me IS NULL THEN
    RETURN;
  END IF;
  SELECT r.projects, r.organizations, r.facilities INTO projects, kept_org, kept_fac FROM portal_audit.reaches() AS r;
  m := portal_audit.meant(p_filter);
  during := m.place;
  meant := 'true';
  IF p_beyond IS NOT NULL THEN
    -- Where all of that time lies on this side, none of it is looked at again: of one time there may be more events than a page looks at.
    during := format('%s AND e.timestamp %s%s %L::timestamptz', during, CASE WHEN p_oldest_first THEN '>' ELSE '<' END,
      CASE WHEN coalesce(p_beyond_uuid, first) = CASE WHEN p_oldest_first THEN last ELSE first END THEN '' ELSE '=' END, p_beyond);
    meant := format('(e.timestamp, e.event_uuid) %s (%L::timestamptz, %L::uuid)', CASE WHEN p_oldest_first THEN '>' ELSE '<' END, p_beyond, coalesce(p_beyond_uuid, first));
  END IF;
  -- What is quickly seen stands first.
  meant := format('%s AND %s AND %s AND %s AND (%s) AND %s', during, meant, coalesce(m.named, 'true'), m.outcome, portal_audit.rule(
    format('%L::timestamptz', portal_audit.life_of(me)), quote_literal(me),
    quote_literal(portal_audit.types_for('self', 'project', 'organization', 'facility')), quote_literal(portal_audit.types_for('self')),
    quote_literal(portal_audit.types_for('project')), quote_literal(portal_audit.types_for('organization')), quote_literal(portal_audit.types_for('facility')),
    format('%L::jsonb', projects), format('%L::jsonb', kept_org), format('%L::jsonb', kept_fac)), m.held);
  IF m.named IS NOT NULL OR m.outcome = 'NOT e.success' THEN
    far := 3 * far;
    own_few := 2 * own_few;
  END IF;

  <<search>>
  BEGIN
    -- 1. What is next in time; and as far as a page may look, where some of it is found. An export has its names looked up once.
    FOREACH looks IN ARRAY ARRAY[near, far] LOOP
      SELECT w.ids, w.times, w.edge INTO ids, times, edge FROM portal_audit.walk(during, meant, p_oldest_first, looks, p_limit) AS w;
      EXIT search WHEN edge IS NULL OR cardinality(ids) >= p_limit OR looks = far;
      EXIT WHEN share > 1 OR cardinality(ids) * far < 2 * near * least(p_limit, 100);
    END LOOP;
    -- 2. By the names that are asked for.
    IF m.named IS NOT NULL THEN
      got := portal_audit.gather(format('SELECT e.* FROM public.events e WHERE %s OFFSET 0', m.named), meant, few, NULL, NULL);
      IF got.looked < few THEN
        ids := got.ids;
        times := got.times;
        edge := NULL;
        EXIT search;
      END IF;
    END IF;
    -- 3. By the viewer's own names, and those of the viewer's projects' things, of which ever more are taken until the page is full.
    IF p_oldest_first OR edge <= known_to THEN
      mine := portal_audit.gather(portal_audit.arms_of(me, projects, kept_org, kept_fac), meant, own_few, NULL, NULL);
      -- Of what is newer than what is known of things, the walk told.
      mine.ids := mine.ids || ids;
      mine.times := mine.times || times;
      WHILE mine.looked < own_few LOOP
        looks := 10 * taken + CASE WHEN m.named IS NULL THEN 100 ELSE 1000 END;
        things := portal_audit.things_of(projects, m.types, m.kinds, p_beyond, p_oldest_first, looks::int);
        got := portal_audit.gather('SELECT e.* FROM unnest($2, $3) AS t (kind, name)
          CROSS JOIN LATERAL (SELECT e.* FROM public.events e WHERE e.subject_type = t.kind AND e.subject = t.name OFFSET 0) AS e',
          meant, own_few - mine.looked, things.types[taken + 1:looks], things.subjects[taken + 1:looks]);
        mine.looked := mine.looked + got.looked;
        EXIT WHEN mine.looked >= own_few;
        mine.ids := mine.ids || got.ids;
        mine.times := mine.times || got.times;
        IF p_oldest_first AND known_to < 'infinity' THEN
          things.known_to := least(things.known_to, known_to);
        END IF;
        -- Of what is beyond there may be more.
        SELECT coalesce(array_agg(u.id), '{}'), coalesce(array_agg(u.at), '{}') INTO ids, times
          FROM (SELECT DISTINCT u.id, u.at FROM unnest(mine.ids, mine.times) AS u (id, at)) AS u
         WHERE things.known_to IS NULL OR CASE WHEN p_oldest_first THEN u.at < things.known_to ELSE u.at >= things.known_to END;
        edge := things.known_to;
        is_with := NOT p_oldest_first;
        EXIT search WHEN edge IS NULL OR cardinality(ids) >= p_limit;
        taken := looks;
        EXIT WHEN taken > 10000 OR edge = known_to;
      END LOOP;
    END IF;
    -- 4. What is next in time, as far as a page may look.
    SELECT w.ids, w.times, w.edge INTO got FROM portal_audit.walk(during, meant, p_oldest_first, far, p_limit) AS w;
    IF got.edge IS NULL OR cardinality(got.ids) >= p_limit OR (CASE WHEN p_oldest_first THEN got.edge >= edge ELSE got.edge <= edge END) THEN
      ids := got.ids;
      times := got.times;
      edge := got.edge;
      is_with := TRUE;
    END IF;
  END search;

  RETURN QUERY SELECT TRUE, u.at, u.id FROM (SELECT DISTINCT u.id, u.at FROM unnest(ids, times) AS u (id, at)) AS u
    ORDER BY CASE WHEN p_oldest_first THEN u.at END, CASE WHEN p_oldest_first THEN u.id END, u.at DESC, u.id DESC LIMIT p_limit;
  IF edge IS NOT NULL AND cardinality(ids) < p_limit THEN
    RETURN QUERY SELECT FALSE, edge, CASE WHEN p_oldest_first AND is_with THEN last ELSE first END;
  END IF;
END $$;
COMMENT ON FUNCTION portal_audit.my_page IS 'Ids of the newest or oldest events that the viewer may see and that a filter means, beyond a place. Looks at a bounded number of events: where the last row is not found, the next page begins at its place';

-- The same as events, as many as are asked for, however far it has to look. Runs as who calls: here the policy has the last word.
DROP FUNCTION IF EXISTS portal_audit.my_events(INT, TIMESTAMPTZ, UUID);
CREATE OR REPLACE FUNCTION portal_audit.my_events(
  p_limit INT DEFAULT 50, p_beyond TIMESTAMPTZ DEFAULT NULL, p_beyond_uuid UUID DEFAULT NULL, p_filter JSONB DEFAULT '{}', p_oldest_first BOOLEAN DEFAULT FALSE)
RETURNS SETOF public.events LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $$
DECLARE
  missing INT := p_limit;
  ids     UUID[];
  place   RECORD;
BEGIN
  LOOP
    SELECT array_agg(p.event_uuid) FILTER (WHERE p.is_event) AS ids, (array_agg(p.at) FILTER (WHERE NOT p.is_event))[1] AS at,
           (array_agg(p.event_uuid) FILTER (WHERE NOT p.is_event))[1] AS event_uuid
      INTO place FROM portal_audit.my_page(missing, p_filter, p_beyond, p_beyond_uuid, p_oldest_first) AS p;
    IF p_oldest_first THEN
      RETURN QUERY SELECT e.* FROM public.events e WHERE e.event_uuid = ANY (place.ids) ORDER BY e.timestamp, e.event_uuid;
    ELSE
      RETURN QUERY SELECT e.* FROM public.events e WHERE e.event_uuid = ANY (place.ids) ORDER BY e.timestamp DESC, e.event_uuid DESC;
    END IF;
    missing := missing - coalesce(cardinality(place.ids), 0);
    EXIT WHEN place.at IS NULL OR missing <= 0;
    p_beyond := place.at;
    p_beyond_uuid := place.event_uuid;
  END LOOP;
END $$;
COMMENT ON FUNCTION portal_audit.my_events IS 'The newest or oldest events that the viewer may see, beyond a place: the timestamp and event_uuid of the last one of the page before. p_filter as in {"type": ["org_*"], "user": ["glawler"], "success": false, "since": "7d", "payload": ["role=owner"]}';

REVOKE ALL ON FUNCTION portal_audit.fold_things, portal_audit.things_to, portal_audit.meant, portal_audit.gather, portal_audit.walk,
  portal_audit.rule, portal_audit.arms_of, portal_audit.things_of, portal_audit.my_page, portal_audit.my_events FROM PUBLIC;
DO $$
BEGIN
  FOR attempt IN 1 .. 10 LOOP
    BEGIN
      PERFORM FROM pg_catalog.pg_shseclabel LIMIT 1;  -- As in section 3.
      IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'portal_audit_viewer') THEN
        GRANT EXECUTE ON FUNCTION portal_audit.my_page, portal_audit.my_events TO portal_audit_viewer;
      END IF;
      IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'portal_audit_reader') THEN
        GRANT SELECT ON portal_audit.project_things, portal_audit.things_folded TO portal_audit_reader;
        GRANT EXECUTE ON FUNCTION portal_audit.things_to TO portal_audit_reader;
      END IF;
      IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'portal_audit_writer') THEN
        GRANT EXECUTE ON FUNCTION portal_audit.fold_things TO portal_audit_writer;
      END IF;
      EXIT;
    EXCEPTION WHEN undefined_object THEN
      IF attempt = 10 THEN
        RAISE;
      END IF;
      PERFORM pg_sleep(0.02);
    END;
  END LOOP;
END $$;
