
-- 7. Retention and erasure.
--    What a class keeps is a row of portal_audit.retention and nowhere else:   UPDATE portal_audit.retention SET keep = '90 days' WHERE class = 'user';
--    prune() takes away what is older, in small transactions of their own; each is itself an event, retention_applied, and the proof stays
--    whole. It takes no rule from who calls it, so the sidecar's role may call it without being able to remove anything else.
--    No trigger stands on events, which is given: that nothing else is changed is a matter of privileges, and of the proof.
CREATE TABLE IF NOT EXISTS portal_audit.retention (
  class       TEXT PRIMARY KEY,
  keep        INTERVAL CHECK (keep > INTERVAL '0'),
  looked_to   TIMESTAMPTZ NOT NULL DEFAULT '-infinity',
  looked_uuid UUID NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
  pass_began  TIMESTAMPTZ NOT NULL DEFAULT now()
);
COMMENT ON TABLE  portal_audit.retention IS 'How long events are kept, by the class of their type (event_types.retention). A type without a class of these is kept for ever';
COMMENT ON COLUMN portal_audit.retention.class IS 'As in event_types.retention';
COMMENT ON COLUMN portal_audit.retention.keep IS 'How long; NULL: for ever. Change it here';
COMMENT ON COLUMN portal_audit.retention.looked_to IS 'Up to which event prune has looked: its time. It begins anew every week, for what is written late';
COMMENT ON COLUMN portal_audit.retention.looked_uuid IS 'Up to which event prune has looked: its id, among those of one time';
COMMENT ON COLUMN portal_audit.retention.pass_began IS 'When prune last began with the oldest event';
INSERT INTO portal_audit.retention (class, keep) VALUES ('project', NULL), ('user', INTERVAL '180 days') ON CONFLICT DO NOTHING;

INSERT INTO portal_audit.event_types (event_type, describe, retention, visible_to) VALUES
  ('retention_applied', '{payload.removed} events of class {subject} were older than it is kept, and are gone', 'project', ARRAY['admin']),
  ('hold_placed', '{caller} put hold {subject} on events: they stay', 'project', ARRAY['admin']),
  ('hold_released', '{caller} released hold {subject}', 'project', ARRAY['admin']),
  ('user_erased', '{caller} erased a person, who is {subject} now', 'project', ARRAY['admin'])
ON CONFLICT DO NOTHING;

-- A hold keeps what all of its conditions say; without any, everything.
CREATE TABLE IF NOT EXISTS portal_audit.holds (
  hold         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  about_user   TEXT,
  subject_type TEXT,
  subject      TEXT,
  event_type   TEXT,
  events_from  TIMESTAMPTZ,
  events_to    TIMESTAMPTZ,
  reason       TEXT NOT NULL CHECK (reason <> ''),
  placed_by    TEXT NOT NULL,
  placed_at    TIMESTAMPTZ NOT NULL DEFAULT now(),
  released_by  TEXT,
  released_at  TIMESTAMPTZ
);
COMMENT ON TABLE  portal_audit.holds IS 'Legal holds: events that neither retention nor erasure may touch. Use portal_audit.hold() and release()';
COMMENT ON COLUMN portal_audit.holds.hold IS 'Its number';
COMMENT ON COLUMN portal_audit.holds.about_user IS 'Events that name this user; NULL: whomever they name';
COMMENT ON COLUMN portal_audit.holds.subject_type IS 'As in events; NULL: any';
COMMENT ON COLUMN portal_audit.holds.subject IS 'As in events; NULL: any';
COMMENT ON COLUMN portal_audit.holds.event_type IS 'As in events; NULL: any';
COMMENT ON COLUMN portal_audit.holds.events_from IS 'Events of this time and later; NULL: from the first';
COMMENT ON COLUMN portal_audit.holds.events_to IS 'Events before this time; NULL: also those to come';
COMMENT ON COLUMN portal_audit.holds.reason IS 'Why';
COMMENT ON COLUMN portal_audit.holds.placed_by IS 'Who placed it';
COMMENT ON COLUMN portal_audit.holds.placed_at IS 'Since when it holds';
COMMENT ON COLUMN portal_audit.holds.released_by IS 'Who released it';
COMMENT ON COLUMN portal_audit.holds.released_at IS 'Since when it no longer holds; NULL: it holds';

-- Who calls: the portal's user behind the session where that is known, otherwise the login.
CREATE OR REPLACE FUNCTION portal_audit.acting() RETURNS TEXT LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  viewer TEXT;
BEGIN
  IF to_regprocedure('portal_audit.viewer()') IS NOT NULL THEN
    EXECUTE 'SELECT portal_audit.viewer()' INTO viewer;
  END IF;
  RETURN coalesce(viewer, session_user);
END $$;
COMMENT ON FUNCTION portal_audit.acting IS 'Who calls: the portal''s user behind the session, or the login';

-- A text without a name. The name must stand by itself: before and behind it is no letter, digit, underscore or hyphen.
CREATE OR REPLACE FUNCTION portal_audit.without_name(p_text TEXT, p_name TEXT, p_pseudonym TEXT) RETURNS TEXT
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE WHEN strpos(p_text, p_name) = 0 THEN p_text
              ELSE regexp_replace(p_text, '(?<![[:alnum:]_-])' || regexp_replace(p_name, '([][(){}.*+?^$|\\-])', '\\\1', 'g') || '(?![[:alnum:]_-])',
                                  p_pseudonym, 'g') END
$$;
COMMENT ON FUNCTION portal_audit.without_name(TEXT, TEXT, TEXT) IS 'A text with a name replaced where it stands by itself';

-- The same for every key and every text of a payload, however deep. What stands in _audit is ours and names nobody.
CREATE OR REPLACE FUNCTION portal_audit.without_name(p_value JSONB, p_name TEXT, p_pseudonym TEXT) RETURNS JSONB
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  CASE jsonb_typeof(p_value)
    WHEN 'string' THEN
      RETURN to_jsonb(portal_audit.without_name(p_value #>> '{}', p_name, p_pseudonym));
    WHEN 'array' THEN
      RETURN (SELECT coalesce(jsonb_agg(portal_audit.without_name(item, p_name, p_pseudonym) ORDER BY place), '[]')
                FROM jsonb_array_elements(p_value) WITH ORDINALITY AS a (item, place));
    WHEN 'object' THEN
      RETURN (SELECT coalesce(jsonb_object_agg(CASE key WHEN '_audit' THEN key ELSE portal_audit.without_name(key, p_name, p_pseudonym) END,
                                               CASE key WHEN '_audit' THEN value ELSE portal_audit.without_name(value, p_name, p_pseudonym) END), '{}')
                FROM jsonb_each(p_value));
    ELSE
      RETURN p_value;
  END CASE;
END $$;
COMMENT ON FUNCTION portal_audit.without_name(JSONB, TEXT, TEXT) IS 'A payload with a name replaced in all its keys and texts, but for _audit';

-- Whether an event names somebody. The first search is for the plain text, because it is cheap and the second is not.
CREATE OR REPLACE FUNCTION portal_audit.mentions(e public.events, p_name TEXT) RETURNS BOOLEAN
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT p_name IN (e.caller, e.subject) OR coalesce(p_name = e.target, FALSE)
      OR (strpos(e.payload::text, substr(to_jsonb(p_name)::text, 2, length(to_jsonb(p_name)::text) - 2)) > 0
          AND portal_audit.without_name(e.payload, p_name, '') <> e.payload)
      OR coalesce(portal_audit.without_name(e.error_message, p_name, '') <> e.error_message, FALSE)
$$;
COMMENT ON FUNCTION portal_audit.mentions IS 'Whether an event names somebody: as caller, subject or target, in its payload or in its error message';

CREATE OR REPLACE FUNCTION portal_audit.held_by(e public.events) RETURNS BIGINT
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT h.hold FROM portal_audit.holds h
   WHERE h.released_at IS NULL AND (h.subject_type IS NULL OR h.subject_type = e.subject_type) AND (h.subject IS NULL OR h.subject = e.subject)
     AND (h.event_type IS NULL OR h.event_type = e.event_type) AND (h.events_from IS NULL OR h.events_from <= e.timestamp)
     AND (h.events_to IS NULL OR h.events_to > e.timestamp) AND (h.about_user IS NULL OR portal_audit.mentions(e, h.about_user))
   ORDER BY h.hold LIMIT 1
$$;
COMMENT ON FUNCTION portal_audit.held_by IS 'The first hold that keeps an event, or NULL';

-- One of prune, erase_user, hold and release at a time: a hold that is placed holds, whatever was being taken away at that moment.
CREATE OR REPLACE FUNCTION portal_audit.only_one() RETURNS VOID LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT pg_advisory_xact_lock(hashtextextended('portal_audit.removed', 0))
$$;
COMMENT ON FUNCTION portal_audit.only_one IS 'Waits until nobody else removes, erases or holds';

CREATE OR REPLACE FUNCTION portal_audit.hold(
  p_reason TEXT, p_user TEXT DEFAULT NULL, p_subject_type TEXT DEFAULT NULL, p_subject TEXT DEFAULT NULL, p_event_type TEXT DEFAULT NULL,
  p_from TIMESTAMPTZ DEFAULT NULL, p_to TIMESTAMPTZ DEFAULT NULL
) RETURNS BIGINT LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  h portal_audit.holds;
BEGIN
  PERFORM portal_audit.only_one();
  INSERT INTO portal_audit.holds (about_user, subject_type, subject, event_type, events_from, events_to, reason, placed_by)
  VALUES (p_user, p_subject_type, p_subject, p_event_type, p_from, p_to, p_reason, portal_audit.acting()) RETURNING * INTO h;
  PERFORM portal_audit.record('hold_placed', h.placed_by, h.hold::text, 'hold', p_user, TRUE, NULL, jsonb_strip_nulls(jsonb_build_object(
    'reason', p_reason, 'subject_type', p_subject_type, 'subject', p_subject, 'event_type', p_event_type, 'from', p_from, 'to', p_to)));
  RETURN h.hold;
END $$;
COMMENT ON FUNCTION portal_audit.hold IS 'Places a legal hold on the events that all its conditions name, and records it; gives its number';

CREATE OR REPLACE FUNCTION portal_audit.release(p_hold BIGINT) RETURNS VOID
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  h portal_audit.holds;
BEGIN
  PERFORM portal_audit.only_one();
  UPDATE portal_audit.holds SET released_at = now(), released_by = portal_audit.acting()
   WHERE hold = p_hold AND released_at IS NULL RETURNING * INTO h;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no hold % that holds: see portal_audit.holds', p_hold USING ERRCODE = 'PA002';
  END IF;
  PERFORM portal_audit.record('hold_released', h.released_by, h.hold::text, 'hold', h.about_user, TRUE, NULL, '{}');
  PERFORM portal_audit.look_again();
END $$;
COMMENT ON FUNCTION portal_audit.release IS 'Releases a legal hold, and records it';

CREATE OR REPLACE FUNCTION portal_audit.look_again() RETURNS VOID
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  UPDATE portal_audit.retention SET looked_to = DEFAULT, looked_uuid = DEFAULT, pass_began = now()
$$;
COMMENT ON FUNCTION portal_audit.look_again IS 'Lets prune begin with the oldest event again';

CREATE OR REPLACE FUNCTION portal_audit.keep_changed() RETURNS TRIGGER LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  NEW.looked_to := '-infinity';
  NEW.looked_uuid := '00000000-0000-0000-0000-000000000000';
  RETURN NEW;
END $$;
COMMENT ON FUNCTION portal_audit.keep_changed IS 'Of the trigger on portal_audit.retention: what was kept for longer may be due';
DROP TRIGGER IF EXISTS keep_changed ON portal_audit.retention;
CREATE TRIGGER keep_changed BEFORE UPDATE OF keep ON portal_audit.retention FOR EACH ROW
  WHEN (OLD.keep IS DISTINCT FROM NEW.keep) EXECUTE FUNCTION portal_audit.keep_changed();

CREATE OR REPLACE FUNCTION portal_audit.without_salts(p_salts BYTEA, p_places INT[]) RETURNS BYTEA
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  salts BYTEA := p_salts;
  place INT;
BEGIN
  FOREACH place IN ARRAY p_places LOOP
    salts := overlay(salts PLACING '\x00000000000000000000000000000000'::bytea FROM 16 * place + 1 FOR 16);
  END LOOP;
  RETURN salts;
END $$;
COMMENT ON FUNCTION portal_audit.without_salts IS 'Salts with zeros at some places: what the leaf there hides can no longer be guessed';

-- Ends a removal: the event that records it, whose digest is taken of rows that stand under an id of the moment until then.
CREATE OR REPLACE FUNCTION portal_audit.record_removed(
  p_event UUID, p_event_type TEXT, p_subject TEXT, p_subject_type TEXT, p_payload JSONB
) RETURNS UUID LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  id UUID;
BEGIN
  UPDATE portal_audit.seals s SET salts = portal_audit.without_salts(s.salts, r.places)
    FROM portal_audit.removed r WHERE r.event_uuid = p_event AND s.tree = r.tree AND s.first = r.first;
  id := portal_audit.record(p_event_type, portal_audit.acting(), p_subject, p_subject_type, NULL, TRUE, NULL,
                            p_payload || jsonb_build_object('digest', encode(portal_audit.removed_digest(p_event), 'hex')));
  UPDATE portal_audit.removed SET event_uuid = id WHERE event_uuid = p_event;
  RETURN id;
END $$;
COMMENT ON FUNCTION portal_audit.record_removed IS 'Zeroes the salts of leaves whose rows are gone or changed, and records the event that says so';

-- How far the tables that are folded from events have come in a tree: what they have not counted yet stays.
CREATE OR REPLACE FUNCTION portal_audit.counted_to() RETURNS TABLE (tree TEXT, upto BIGINT)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF to_regclass('portal_audit.folded') IS NULL THEN
    RETURN QUERY SELECT t.tree, t.size FROM portal_audit.trees t;
  ELSE
    RETURN QUERY EXECUTE 'SELECT t.tree, coalesce(f.upto, 0) FROM portal_audit.trees t LEFT JOIN portal_audit.folded f ON f.tree = t.tree';
  END IF;
END $$;
COMMENT ON FUNCTION portal_audit.counted_to IS 'Leaves of each tree that statistics have counted';

CREATE OR REPLACE FUNCTION portal_audit.prune(p_limit INT DEFAULT 1000, p_dry_run BOOLEAN DEFAULT FALSE)
RETURNS TABLE (event_type TEXT, events BIGINT, oldest TIMESTAMPTZ, newest TIMESTAMPTZ)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan SET jit = off AS $$
#variable_conflict use_column
DECLARE
  batch     CONSTANT INT := least(greatest(p_limit, 1), 10000);
  -- Stands for the id of the event that is not there yet.
  removal   CONSTANT UUID := gen_random_uuid();
  is_held   BOOLEAN;
  untaken   BIGINT;
  r         portal_audit.retention;
  due       UUID[];
  due_times TIMESTAMPTZ[];
  last_id   UUID;
  last_time TIMESTAMPTZ;
  leaves    portal_audit.removed[];
  blocked   INT;
  result    JSONB;
BEGIN
  IF p_dry_run THEN
    is_held := EXISTS (SELECT FROM portal_audit.holds WHERE released_at IS NULL);
    RETURN QUERY SELECT e.event_type, count(*), min(e.timestamp), max(e.timestamp)
      FROM public.events e JOIN portal_audit.event_types t USING (event_type) JOIN portal_audit.retention p ON p.class = t.retention
     WHERE e.timestamp < now() - p.keep AND (NOT is_held OR portal_audit.held_by(e) IS NULL) GROUP BY e.event_type ORDER BY e.event_type;
    RETURN;
  END IF;
  PERFORM portal_audit.only_one();
  untaken := portal_audit.take_leaf_times(100000);
  -- What is not counted yet stays, so where nobody else counts, this does.
  IF to_regprocedure('portal_audit.fold(int)') IS NOT NULL THEN
    EXECUTE 'SELECT portal_audit.fold(20000)';
  END IF;
  is_held := EXISTS (SELECT FROM portal_audit.holds WHERE released_at IS NULL);
  FOR r IN SELECT * FROM portal_audit.retention WHERE keep IS NOT NULL ORDER BY class LOOP
    -- 1. Look at the next events by their time, of whatever type; a few thousand at most, so that a call is short.
    WITH page AS (
      SELECT e AS event, e.event_uuid AS id, e.timestamp AS at FROM public.events e
       WHERE e.timestamp >= r.looked_to AND (e.timestamp, e.event_uuid) > (r.looked_to, r.looked_uuid) AND e.timestamp < now() - r.keep
       ORDER BY e.timestamp, e.event_uuid LIMIT 20 * batch
    ), judged AS (
      SELECT id, at, t.event_type IS NOT NULL AND (NOT is_held OR portal_audit.held_by(event) IS NULL) AS is_due
        FROM page LEFT JOIN portal_audit.event_types t ON t.event_type = (event).event_type AND t.retention = r.class
    ), numbered AS (
      SELECT *, count(*) FILTER (WHERE is_due) OVER (ORDER BY at, id) AS number FROM judged
    )
    SELECT array_agg(id ORDER BY at, id) FILTER (WHERE is_due), array_agg(at ORDER BY at, id) FILTER (WHERE is_due),
           (array_agg(id ORDER BY at DESC, id DESC))[1], max(at)
      INTO due, due_times, last_id, last_time FROM numbered WHERE number <= batch;
    IF last_id IS NULL THEN
      UPDATE portal_audit.retention SET looked_to = DEFAULT, looked_uuid = DEFAULT, pass_began = now()
       WHERE class = r.class AND pass_began < now() - INTERVAL '7 days';
      CONTINUE;
    END IF;

    -- 2. Find their leaves. One whose leaf is not found although it may have one, or that is not counted yet, waits, and with it what is younger.
    SELECT array_agg(ROW(p.event_uuid, p.tree, p.first, ARRAY[p.place], NULL)::portal_audit.removed) INTO leaves
      FROM portal_audit.places(due, (SELECT array_agg(portal_audit.id_time(id, at)) FROM unnest(due, due_times) AS d (id, at))) p;
    SELECT min(d.number) INTO blocked
      FROM unnest(due) WITH ORDINALITY AS d (id, number) LEFT JOIN unnest(leaves) l ON l.event_uuid = d.id
      LEFT JOIN portal_audit.counted_to() c ON c.tree = l.tree
     WHERE CASE WHEN l.tree IS NULL THEN untaken > 0 ELSE l.first + l.places[1] >= c.upto END;
    IF blocked IS NOT NULL THEN
      CONTINUE WHEN blocked = 1;
      last_id := due[blocked - 1];
      last_time := due_times[blocked - 1];
      due := due[1 : blocked - 1];
      leaves := ARRAY(SELECT l FROM unnest(leaves) l WHERE l.event_uuid = ANY (due));
    END IF;
    UPDATE portal_audit.retention SET looked_to = last_time, looked_uuid = last_id WHERE class = r.class;
    -- Rows of strangers are in no tree and stay.
    CONTINUE WHEN coalesce(cardinality(leaves), 0) = 0;

    -- 3. Take them away, and say so.
    WITH gone AS (
      DELETE FROM public.events e WHERE e.event_uuid = ANY (ARRAY(SELECT l.event_uuid FROM unnest(leaves) l)) RETURNING e.event_type, e.timestamp
    ), counted AS (
      SELECT event_type, count(*) AS events, min(timestamp) AS oldest, max(timestamp) AS newest FROM gone GROUP BY event_type
    )
    SELECT jsonb_agg(to_jsonb(c) ORDER BY c.event_type) INTO result FROM counted c;
    IF (SELECT coalesce(sum(c.events), 0) FROM jsonb_to_recordset(result) AS c (events BIGINT)) <> cardinality(leaves) THEN
      RAISE EXCEPTION 'somebody else removes events: run prune again' USING ERRCODE = '40001';
    END IF;
    INSERT INTO portal_audit.removed (event_uuid, tree, first, places)
    SELECT removal, l.tree, l.first, array_agg(l.places[1] ORDER BY l.places[1]) FROM unnest(leaves) l GROUP BY l.tree, l.first;
    PERFORM portal_audit.record_removed(removal, 'retention_applied', r.class, 'retention', jsonb_build_object(
      'keep', r.keep, 'before', now() - r.keep, 'removed', cardinality(leaves),
      'events', (SELECT jsonb_object_agg(c.event_type, c.events) FROM jsonb_to_recordset(result) AS c (event_type TEXT, events BIGINT))));
    RETURN QUERY SELECT c.* FROM jsonb_to_recordset(result) AS c (event_type TEXT, events BIGINT, oldest TIMESTAMPTZ, newest TIMESTAMPTZ);
    RETURN;
  END LOOP;
END $$;
COMMENT ON FUNCTION portal_audit.prune IS 'Takes up to p_limit events away that are older than their class is kept, oldest first, and records it; says how many of each type. With p_dry_run: all that are due, and nothing changes';

-- Whether prune has more to look at: the text changes with every call that got further, in looking or in counting.
CREATE OR REPLACE FUNCTION portal_audit.looked_to() RETURNS TEXT
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT string_agg(format('%s %s %s', class, looked_to, looked_uuid), ', ' ORDER BY class) || ', ' || coalesce((SELECT sum(upto) FROM portal_audit.counted_to()), 0)
    FROM portal_audit.retention
$$;
COMMENT ON FUNCTION portal_audit.looked_to IS 'Up to where prune has looked: changes with every call of prune that got further';

-- Facts about a person that go with the name: where it logged in from, what it said of itself. Categories stay, for they are counted.
CREATE OR REPLACE FUNCTION portal_audit.without_facts(e public.events, p_name TEXT) RETURNS JSONB
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT e.payload
         - CASE WHEN e.caller = p_name OR e.subject_type = 'user' AND e.subject = p_name THEN ARRAY['ip', 'user_agent'] ELSE '{}' END
         - CASE WHEN e.subject_type = 'user' AND e.subject = p_name
                THEN ARRAY['identifier', 'email', 'full_name', 'first_name', 'last_name', 'institution', 'address', 'description'] ELSE '{}' END
$$;
COMMENT ON FUNCTION portal_audit.without_facts IS 'The payload of an event without what tells of a person where that person is its caller or subject';

-- Gives one person another name in everything that is kept here, in one transaction. Searches all events, for a payload has no index.
CREATE OR REPLACE FUNCTION portal_audit.erase_user(p_user TEXT, p_dry_run BOOLEAN DEFAULT FALSE)
RETURNS TABLE (object TEXT, item TEXT, number BIGINT)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
#variable_conflict use_column
DECLARE
  removal   CONSTANT UUID := gen_random_uuid();
  pseudonym CONSTANT TEXT := 'erased-' || encode(substr(uuid_send(gen_random_uuid()), 1, 4), 'hex');
  -- As it stands in the text of a payload, without the quotes.
  quoted    CONSTANT TEXT := substr(to_jsonb(p_user)::text, 2, length(to_jsonb(p_user)::text) - 2);
  no_salt   CONSTANT BYTEA := decode(repeat('00', 16), 'hex');
  ids       UUID[];
  times     BIGINT[];
  held      BIGINT;
  counts    JSONB;
  changed   BIGINT;
  elsewhere JSONB := '{}';
  c         RECORD;
BEGIN
  IF coalesce(p_user, '') = '' THEN
    RAISE EXCEPTION 'say whom to erase' USING ERRCODE = 'PA002';
  END IF;
  PERFORM portal_audit.only_one();
  WHILE portal_audit.take_leaf_times(1000000) > 0 LOOP
  END LOOP;
  SELECT array_agg(e.event_uuid), array_agg(portal_audit.id_time(e.event_uuid, e.timestamp)), min(portal_audit.held_by(e))
    INTO ids, times, held FROM public.events e
   -- A call for each event would cost more than the search.
   WHERE (p_user IN (e.caller, e.subject) OR e.target = p_user OR strpos(e.payload::text, quoted) > 0 OR strpos(e.error_message, p_user) > 0)
     AND portal_audit.mentions(e, p_user);
  -- A hold on the person also keeps what is still to come, and could not under another name.
  held := coalesce(held, (SELECT min(h.hold) FROM portal_audit.holds h WHERE h.released_at IS NULL AND (h.about_user = p_user OR h.subject = p_user)));
  IF held IS NOT NULL THEN
    RAISE EXCEPTION 'hold % keeps events of this user: they cannot be erased before it is released', held USING ERRCODE = 'PA003';
  END IF;
  SELECT coalesce(jsonb_object_agg(n.event_type, n.number), '{}') INTO counts
    FROM (SELECT e.event_type, count(*) AS number FROM public.events e WHERE e.event_uuid = ANY (ids) GROUP BY e.event_type) AS n;

  -- 1. The events, and what their leaves are from now on.
  IF NOT p_dry_run AND ids IS NOT NULL THEN
    WITH changed AS (
      UPDATE public.events e
         SET caller = CASE caller WHEN p_user THEN pseudonym ELSE caller END, subject = CASE subject WHEN p_user THEN pseudonym ELSE subject END,
             target = CASE target WHEN p_user THEN pseudonym ELSE target END,
             error_message = CASE WHEN portal_audit.without_name(error_message, p_user, '') = error_message THEN error_message ELSE '' END,
             payload = portal_audit.without_name(portal_audit.without_facts(e, p_user), p_user, pseudonym)
       WHERE e.event_uuid = ANY (ids) RETURNING e.event_uuid, portal_audit.leaf(no_salt, e) AS leaf
    ), placed AS (
      SELECT p.tree, p.first, p.place, n.leaf FROM changed n JOIN portal_audit.places(ids, times) p USING (event_uuid)
    )
    INSERT INTO portal_audit.removed (event_uuid, tree, first, places, leaves)
    SELECT removal, tree, first, array_agg(place ORDER BY place), string_agg(leaf, '' ORDER BY place) FROM placed GROUP BY tree, first;
  END IF;

  -- 2. What is derived of them or waits to become one. By the names of columns, so that a table that is added here is not forgotten.
  FOR c IN
    SELECT a.attrelid::regclass AS relation, a.attname, a.atttypid = 'jsonb'::regtype AS is_json
      FROM pg_attribute a JOIN pg_class k ON k.oid = a.attrelid
     WHERE k.relnamespace = 'portal_audit'::regnamespace AND k.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
       AND (a.atttypid = 'text'::regtype
            AND a.attname IN ('name', 'key', 'caller', 'subject', 'target', 'member', 'within', 'old_within', 'old_name', 'project', 'experiment',
                              'resource', 'portal_user', 'about_user', 'reason', 'placed_by', 'released_by')
            OR a.atttypid = 'jsonb'::regtype AND a.attname IN ('facts', 'statements', 'payload'))
     ORDER BY k.relname, a.attnum LOOP
    IF c.attname = 'reason' AND c.relation <> 'portal_audit.holds'::regclass THEN
      CONTINUE;
    ELSIF p_dry_run THEN
      EXECUTE format('SELECT count(*) FROM %s WHERE %s', c.relation, portal_audit.where_named(c.attname, c.is_json)) INTO changed USING p_user, pseudonym;
    ELSIF c.attname = 'portal_user' THEN
      -- Who it was must not be told by the login that stood for it.
      EXECUTE format('DELETE FROM %s WHERE %I = $1', c.relation, c.attname) USING p_user;
      GET DIAGNOSTICS changed = ROW_COUNT;
    ELSE
      EXECUTE format('UPDATE %s SET %I = portal_audit.without_name(%2$I, $1, $2) WHERE %s', c.relation, c.attname,
                     portal_audit.where_named(c.attname, c.is_json)) USING p_user, pseudonym;
      GET DIAGNOSTICS changed = ROW_COUNT;
    END IF;
    IF changed > 0 THEN
      elsewhere := elsewhere || jsonb_build_object(c.relation::text, coalesce((elsewhere ->> c.relation::text)::bigint, 0) + changed);
    END IF;
  END LOOP;

  -- 3. The record of it, which names nobody.
  IF NOT p_dry_run AND (ids IS NOT NULL OR elsewhere <> '{}') THEN
    PERFORM portal_audit.record_removed(removal, 'user_erased', pseudonym, 'user', jsonb_build_object(
      'changed', coalesce(cardinality(ids), 0), 'events', counts, 'tables', elsewhere));
    RETURN QUERY SELECT 'pseudonym', pseudonym, 1::bigint;
  END IF;
  RETURN QUERY SELECT 'events', e.key, e.value::bigint FROM jsonb_each_text(counts) AS e ORDER BY e.key;
  RETURN QUERY SELECT 'table', e.key, e.value::bigint FROM jsonb_each_text(elsewhere) AS e ORDER BY e.key;
END $$;
COMMENT ON FUNCTION portal_audit.erase_user IS 'Gives one person a pseudonym in every event and every table of ours, and records it; says how many rows changed. With p_dry_run: would change. An earlier name of the person is another name: erase that too. A name inside a model file that an event holds as a hash is not found. Delete the account in the portal first, or new events bring the name back';

CREATE OR REPLACE FUNCTION portal_audit.where_named(p_column NAME, p_is_json BOOLEAN) RETURNS TEXT
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE WHEN p_is_json OR p_column = 'reason'
              THEN format('strpos(%1$I::text, $1) > 0 AND portal_audit.without_name(%1$I, $1, $2) <> %1$I', p_column)
              ELSE format('%I = $1 AND $2 IS NOT NULL', p_column) END
$$;
COMMENT ON FUNCTION portal_audit.where_named IS 'The condition by which erase_user finds rows of a table of ours';

REVOKE ALL ON FUNCTION portal_audit.only_one, portal_audit.hold, portal_audit.release, portal_audit.look_again, portal_audit.take_leaf_times,
  portal_audit.places, portal_audit.record_removed, portal_audit.counted_to, portal_audit.prune, portal_audit.looked_to,
  portal_audit.erase_user FROM PUBLIC;
DO $$
DECLARE
  wanted TEXT;
BEGIN
  BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'portal_audit_admin') THEN
      CREATE ROLE portal_audit_admin NOLOGIN;
    END IF;
  EXCEPTION
    WHEN insufficient_privilege THEN
      RAISE WARNING 'role portal_audit_admin is missing and could not be created';
    WHEN duplicate_object OR unique_violation THEN
      NULL;  -- Another database of the cluster was set up at the same moment.
  END;
  PERFORM FROM pg_catalog.pg_shseclabel LIMIT 1;  -- As in section 3.
  FOREACH wanted IN ARRAY ARRAY['portal_audit_writer', 'portal_audit_admin'] LOOP
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
      EXECUTE format('GRANT USAGE ON SCHEMA portal_audit TO %I', wanted);
      EXECUTE format('GRANT EXECUTE ON FUNCTION portal_audit.prune, portal_audit.looked_to, portal_audit.take_leaf_times TO %I', wanted);
    END IF;
  END LOOP;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'portal_audit_admin') THEN
    GRANT EXECUTE ON FUNCTION portal_audit.hold, portal_audit.release, portal_audit.look_again, portal_audit.erase_user TO portal_audit_admin;
    GRANT SELECT, UPDATE (keep) ON portal_audit.retention TO portal_audit_admin;
    GRANT SELECT ON portal_audit.holds TO portal_audit_admin;
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'portal_audit_reader') THEN
    GRANT SELECT ON portal_audit.retention, portal_audit.holds TO portal_audit_reader;
  END IF;
END $$;
