
-- 8. Who sees what. The rows of events are shown by policy (row-level security), so psql, the program, pages and exports obey one rule.
--    GRANT portal_audit_admin TO <login>;    sees all, and may apply retention and erasure
--    GRANT portal_audit_reader TO <login>;   sees all and changes nothing: dashboards, auditors
--    GRANT portal_audit_viewer TO <login>;   sees what the portal user of that login may see:
--      INSERT INTO portal_audit.viewers (role_name, portal_user) VALUES ('<login>', '<user of the portal>');
--    GRANT portal_audit_web TO <login>;      the pages: a login that says for each transaction which user it serves
--    The owner of the table and superusers are not held by policies: give events an owner that nobody logs in as. Functions of that
--    owner (phantoms, record, fold) see all rows for the same reason, which is why there is no FORCE ROW LEVEL SECURITY.
--
-- The words of `visible_to` in a mapping, and who sees an event by them. Without a word, or with another one, only admins see the type.
--   admin         those above
--   self          the user whom it is about: subject of type user, or target where the target is a user
--   project       who was a member of its project at the time, in any role, and whoever kept the project's organization then
--   organization  who kept the organization at the time: its creator, owners and maintainers
--   facility      who kept the facility at the time
--   Whoever did it sees it as well (caller), unless only admins see the type.
-- Membership is taken from the record itself, as of the event: *_member_added, _updated, _state_changed, _requested, _deleted. A membership
-- that is asked for and not active counts for nothing; it ends with the project, organization or facility it is in, so that one of the same name
-- that is made later shows nothing to members of the first. Its first and its last moment belong to it. In the same way the life of
-- a user begins with the last user_created after a user_deleted, user_declined or user_renamed of that name.
DO $$
DECLARE wanted TEXT;
BEGIN
  FOREACH wanted IN ARRAY ARRAY['portal_audit_admin', 'portal_audit_viewer', 'portal_audit_web'] LOOP
    BEGIN
      IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
        EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
      END IF;
    EXCEPTION
      WHEN insufficient_privilege THEN
        RAISE WARNING 'role % is missing and could not be created', wanted;
      WHEN duplicate_object OR unique_violation THEN
        NULL;  -- Another database of the cluster was set up at the same moment.
    END;
  END LOOP;
END $$;

CREATE TABLE IF NOT EXISTS portal_audit.viewers (
  role_name   NAME PRIMARY KEY,
  portal_user TEXT NOT NULL CHECK (portal_user <> '')
);
COMMENT ON TABLE  portal_audit.viewers IS 'Which user of the portal a login of this server stands for. Only rows here say so: a login''s own name says nothing';
COMMENT ON COLUMN portal_audit.viewers.role_name IS 'The login, a member of portal_audit_viewer';
COMMENT ON COLUMN portal_audit.viewers.portal_user IS 'As in events.caller';

-- session_user is who logged in: neither SET ROLE nor a function of another owner changes it. A setting may be set by anybody, so it
-- counts only for logins that were trusted with it.
CREATE OR REPLACE FUNCTION portal_audit.viewer() RETURNS TEXT
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE WHEN EXISTS (SELECT FROM pg_roles r WHERE r.rolname = 'portal_audit_web' AND pg_has_role(session_user, r.oid, 'MEMBER'))
              THEN nullif(current_setting('portal_audit.viewer', TRUE), '')
              ELSE (SELECT v.portal_user FROM portal_audit.viewers v WHERE v.role_name = session_user) END
$$;
COMMENT ON FUNCTION portal_audit.viewer() IS 'The portal user behind this session: of portal_audit.viewers, or, for members of portal_audit_web, the setting portal_audit.viewer. NULL for anybody else';

CREATE OR REPLACE FUNCTION portal_audit.sees_all() RETURNS BOOLEAN
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT NOT row_security_active('public.events'::regclass)
      OR EXISTS (SELECT FROM pg_roles WHERE rolname IN ('portal_audit_admin', 'portal_audit_reader') AND pg_has_role(oid, 'USAGE'))
$$;
COMMENT ON FUNCTION portal_audit.sees_all() IS 'Whether no policy hides rows of events from this session';

-- Names are used again. What an earlier bearer of the name did is not the viewer's.
CREATE OR REPLACE FUNCTION portal_audit.life_of(p_user TEXT) RETURNS TIMESTAMPTZ
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH births AS (
    SELECT max(timestamp) AS last FROM public.events
     WHERE subject_type = 'user' AND subject = p_user AND event_type IN ('user_created', 'user_renamed') AND success)
  SELECT CASE WHEN EXISTS (
      SELECT FROM public.events WHERE subject_type = 'user' AND subject = p_user AND success
         AND event_type IN ('user_deleted', 'user_declined') AND timestamp <= last
      UNION ALL
      SELECT FROM public.events WHERE event_type = 'user_renamed' AND payload ->> 'old_name' = p_user AND success
         AND timestamp <= last)
    THEN last ELSE '-infinity' END
    FROM births
$$;
COMMENT ON FUNCTION portal_audit.life_of IS 'When the present life of a user name began; -infinity if it has had one only';

CREATE OR REPLACE FUNCTION portal_audit.life() RETURNS TIMESTAMPTZ
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ SELECT portal_audit.life_of(portal_audit.viewer()) $$;
COMMENT ON FUNCTION portal_audit.life() IS 'portal_audit.life_of the viewer';

CREATE OR REPLACE FUNCTION portal_audit.types_for(VARIADIC p_words TEXT[]) RETURNS TEXT[]
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(array_agg(event_type), '{}') FROM portal_audit.event_types WHERE visible_to && p_words
$$;
COMMENT ON FUNCTION portal_audit.types_for IS 'Event types with one of these words in visible_to';

-- Under the policy a step in the index for each type becomes a walk through all rows, so who sees a part asks here.
CREATE OR REPLACE FUNCTION portal_audit.subject_types() RETURNS TEXT[]
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  WITH RECURSIVE steps (there) AS (
    (SELECT min(subject_type) FROM public.events)
    UNION ALL
    SELECT (SELECT min(subject_type) FROM public.events WHERE subject_type > there) FROM steps WHERE there IS NOT NULL)
  SELECT coalesce(array_agg(there), '{}') FROM steps WHERE there IS NOT NULL
$$;
COMMENT ON FUNCTION portal_audit.subject_types IS 'The types of subject that there are, whoever may see their events';

-- Memberships as spans of time, from events: whose target is p_member, or in p_subject. A row per subject, member and state that it was in.
CREATE OR REPLACE FUNCTION portal_audit.spans(p_member_kind TEXT, p_member TEXT, p_kind TEXT, p_subject TEXT)
RETURNS TABLE (kind TEXT, subject TEXT, member TEXT, role TEXT, during TSTZRANGE)
-- One plan for all: to make it anew takes longer than to follow it.
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
  member_types CONSTANT TEXT := '^[a-z]+_member_(requested|added|updated|state_changed|deleted)$';
BEGIN
  RETURN QUERY
  WITH told AS MATERIALIZED (
    SELECT e.subject_type, e.subject, e.target, e.timestamp AS at, e.event_type, e.payload FROM public.events e
     WHERE p_subject IS NULL AND e.target = p_member AND e.event_type ~ member_types AND e.success
       AND lower(coalesce(e.payload ->> 'kind', 'usermember')) = p_member_kind || 'member'
    UNION ALL
    SELECT e.subject_type, e.subject, e.target, e.timestamp, e.event_type, e.payload FROM public.events e
     WHERE e.subject_type = p_kind AND e.subject = p_subject AND e.event_type ~ member_types AND e.success
       AND lower(coalesce(e.payload ->> 'kind', 'usermember')) = p_member_kind || 'member'
  ), members AS (
    SELECT DISTINCT t.subject_type, t.subject, t.target FROM told t
  ), gone AS MATERIALIZED (
    -- By their types: by its name an index would lead to all that ever happened to each.
    SELECT e.subject_type, e.subject, e.event_type, e.timestamp AS at, e.payload FROM public.events e
     WHERE e.event_type IN ('project_deleted', 'project_declined', 'org_deleted', 'org_declined', 'organization_deleted', 'facility_deleted') AND e.success
  ), ends AS (
    -- What a membership is in may go without a word about its members, and so may a project that is a member.
    SELECT m.subject_type, m.subject, m.target, g.at, g.payload
      FROM members m JOIN gone g ON g.subject_type = m.subject_type AND g.subject = m.subject
    UNION ALL
    SELECT m.subject_type, m.subject, m.target, g.at, g.payload
      FROM members m JOIN gone g ON g.subject_type = 'project' AND g.subject = m.target AND g.event_type IN ('project_deleted', 'project_declined')
     WHERE p_member_kind = 'project'
  ), points AS (
    SELECT t.subject_type, t.subject, t.target, t.at, t.payload,
           CASE WHEN t.event_type LIKE '%\_deleted' THEN NULL
                WHEN lower(coalesce(t.payload ->> 'state', CASE WHEN t.event_type LIKE '%\_requested' THEN '' ELSE 'active' END)) <> 'active' THEN NULL
                ELSE lower(coalesce(t.payload ->> 'role', 'member')) END AS role
      FROM told t
    UNION ALL
    SELECT e.subject_type, e.subject, e.target, e.at, e.payload, NULL FROM ends e
  ), spans AS (
    -- Within one time the position in the source's log decides, then the number in the transaction, as far as events say them.
    SELECT p.*, tstzrange(p.at, lead(p.at) OVER (PARTITION BY p.subject_type, p.subject, p.target ORDER BY p.at,
             CASE WHEN p.payload #>> '{_audit,lsn}' ~ '^[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}$' THEN (p.payload #>> '{_audit,lsn}')::pg_lsn END NULLS FIRST,
             CASE WHEN p.payload #>> '{_audit,n}' ~ '^[0-9]{1,18}$' THEN (p.payload #>> '{_audit,n}')::bigint END NULLS FIRST,
             p.role NULLS LAST), '[]') AS during
      FROM points p
  )
  SELECT s.subject_type, s.subject, s.target, s.role, s.during FROM spans s WHERE s.role IS NOT NULL;
END $$;
COMMENT ON FUNCTION portal_audit.spans IS 'Active memberships as spans of time, ends included: of one member (user or project) anywhere, or of all members of a kind in one subject';

CREATE OR REPLACE FUNCTION portal_audit.keeps(p_role TEXT) RETURNS BOOLEAN
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$ SELECT p_role IN ('creator', 'owner', 'maintainer') $$;
COMMENT ON FUNCTION portal_audit.keeps IS 'Whether the role of a member is one that keeps an organization, project or facility';

-- What the viewer may see, of each kind as {name: times}. The memberships are looked up once for all of them.
CREATE OR REPLACE FUNCTION portal_audit.reaches(OUT projects JSONB, OUT organizations JSONB, OUT facilities JSONB)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  WITH me AS MATERIALIZED (SELECT portal_audit.viewer() AS name, portal_audit.life() AS since),
  mine AS MATERIALIZED (
    -- A membership that began in an earlier life of the name is another person's, whether an event ended it or not.
    SELECT s.* FROM me, portal_audit.spans('user', me.name, NULL, NULL) AS s WHERE me.name IS NOT NULL AND lower(s.during) >= me.since),
  kept AS (
    SELECT subject, range_agg(during) AS times FROM mine WHERE kind = 'organization' AND portal_audit.keeps(role) GROUP BY subject),
  times AS (
    SELECT kind, subject AS name, range_agg(during) AS times FROM mine
     WHERE kind = 'project' OR portal_audit.keeps(role) GROUP BY kind, subject
    UNION ALL
    SELECT 'project', s.member, range_agg(s.during) * kept.times
      FROM kept, portal_audit.spans('project', NULL, 'organization', kept.subject) AS s GROUP BY s.member, kept.times),
  joined AS (
    SELECT kind, name, range_agg(span)::text AS times FROM times, unnest(times) AS span GROUP BY kind, name)
  SELECT coalesce(jsonb_object_agg(name, times) FILTER (WHERE kind = 'project'), '{}'),
         coalesce(jsonb_object_agg(name, times) FILTER (WHERE kind = 'organization'), '{}'),
         coalesce(jsonb_object_agg(name, times) FILTER (WHERE kind = 'facility'), '{}')
    FROM joined
$$;
COMMENT ON FUNCTION portal_audit.reaches IS 'Projects, organizations and facilities whose events the viewer may see, each with the times for which that holds';

-- Evaluated once in a query, not once a row.
CREATE OR REPLACE FUNCTION portal_audit.reach(p_kind TEXT) RETURNS JSONB
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE p_kind WHEN 'project' THEN r.projects WHEN 'organization' THEN r.organizations WHEN 'facility' THEN r.facilities END FROM portal_audit.reaches() AS r
$$;
COMMENT ON FUNCTION portal_audit.reach IS 'One of portal_audit.reaches: project, organization or facility';

-- The rule by which a user of the portal sees a row, with the answers to what it asks about the viewer, as SQL: when their life began, their name; the types
-- of events for any of the words of visible_to, and for self, project, organization and facility; their reach in projects, organizations and facilities.
-- The policy below asks anew in every query; portal_audit.my_page asks once.
CREATE OR REPLACE FUNCTION portal_audit.rule(VARIADIC p_answers TEXT[] DEFAULT ARRAY[
  '(SELECT portal_audit.life())', '(SELECT portal_audit.viewer())',
  '(SELECT portal_audit.types_for(''self'', ''project'', ''organization'', ''facility''))', '(SELECT portal_audit.types_for(''self''))',
  '(SELECT portal_audit.types_for(''project''))', '(SELECT portal_audit.types_for(''organization''))', '(SELECT portal_audit.types_for(''facility''))',
  '(SELECT portal_audit.reach(''project''))', '(SELECT portal_audit.reach(''organization''))', '(SELECT portal_audit.reach(''facility''))']) RETURNS TEXT
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT format($rule$
          timestamp >= %1$s
          AND (caller = %2$s AND event_type = ANY (%3$s::text[])
            OR (subject_type = 'user' AND subject = %2$s
                OR subject_type <> 'user' AND target = %2$s AND coalesce(payload ->> 'kind', 'usermember') = 'usermember')
                 AND event_type = ANY (%4$s::text[]))
          OR event_type = ANY (%5$s::text[])
             AND timestamp <@ (%8$s ->> (CASE WHEN subject_type = 'project' THEN subject WHEN payload ? 'project' THEN payload ->> 'project'
               WHEN event_type LIKE '%%\_project\_%%' THEN target END))::tstzmultirange
          OR event_type = ANY (%6$s::text[]) AND subject_type = 'organization' AND timestamp <@ (%9$s ->> subject)::tstzmultirange
          OR event_type = ANY (%7$s::text[]) AND subject_type = 'facility' AND timestamp <@ (%10$s ->> subject)::tstzmultirange$rule$, VARIADIC p_answers)
$$;
COMMENT ON FUNCTION portal_audit.rule IS 'The condition under which a user of the portal sees a row of events';

-- A read by a person is an event too. The program calls this once a command, before it shows the first row; pages do the same. What is read with
-- psql itself cannot be recorded from here: the extension pgaudit does that (pgaudit.log = 'read'), in the server's log.
CREATE OR REPLACE FUNCTION portal_audit.record_read(p_what TEXT, p_filter JSONB, p_rows BIGINT) RETURNS UUID
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF p_what IS NULL OR p_what NOT IN ('log_read', 'log_exported') THEN
    RAISE EXCEPTION 'a read is recorded as log_read or log_exported' USING ERRCODE = '22023';
  ELSIF octet_length(p_filter::text) > 8192 THEN
    RAISE EXCEPTION 'the filter of a read is recorded in 8192 bytes at most' USING ERRCODE = '22023';
  END IF;
  RETURN portal_audit.record(p_what, coalesce(portal_audit.viewer(), session_user), 'events', 'audit', NULL, TRUE, NULL,
    jsonb_build_object('filter', coalesce(p_filter, '{}'), 'rows', p_rows, 'login', session_user));
END $$;
COMMENT ON FUNCTION portal_audit.record_read IS 'Records that the person of this session read (log_read) or exported (log_exported) events: the filter, how many rows, and the login';
REVOKE ALL ON FUNCTION portal_audit.viewer, portal_audit.sees_all, portal_audit.life_of, portal_audit.life, portal_audit.types_for,
  portal_audit.subject_types, portal_audit.spans, portal_audit.keeps, portal_audit.reaches, portal_audit.reach, portal_audit.record_read FROM PUBLIC;
INSERT INTO portal_audit.event_types (event_type, describe, retention, visible_to) VALUES
  ('log_read', '{caller} read {payload.rows} events', 'user', '{admin}'),
  ('log_exported', '{caller} exported {payload.rows} events', 'user', '{admin}')
ON CONFLICT (event_type) DO NOTHING;

DO $$
BEGIN
  FOR attempt IN 1 .. 10 LOOP
    BEGIN
      PERFORM FROM pg_catalog.pg_shseclabel LIMIT 1;  -- As in section 3.
      IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'portal_audit_reader') THEN
        GRANT EXECUTE ON FUNCTION portal_audit.viewer, portal_audit.sees_all, portal_audit.record_read TO portal_audit_reader;
        GRANT SELECT ON portal_audit.viewers TO portal_audit_reader;
      END IF;
      IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'portal_audit_admin') THEN
        -- All that readers may, and to say who is who.
        IF NOT pg_has_role('portal_audit_admin', 'portal_audit_reader', 'MEMBER') THEN
          GRANT portal_audit_reader TO portal_audit_admin;
        END IF;
        GRANT SELECT, INSERT, UPDATE, DELETE ON portal_audit.viewers TO portal_audit_admin;
      END IF;
      IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'portal_audit_viewer') THEN
        GRANT USAGE ON SCHEMA portal_audit TO portal_audit_viewer;
        GRANT SELECT ON public.events, portal_audit.event_types TO portal_audit_viewer;
        -- Absence of an event means something only before complete_to.
        GRANT SELECT (source, state, complete_to) ON portal_audit.progress TO portal_audit_viewer;
        GRANT EXECUTE ON FUNCTION portal_audit.viewer, portal_audit.sees_all, portal_audit.life, portal_audit.types_for,
          portal_audit.subject_types, portal_audit.reach, portal_audit.record_read TO portal_audit_viewer;
        IF to_regclass('portal_audit.events_described') IS NOT NULL THEN
          GRANT SELECT ON portal_audit.events_described TO portal_audit_viewer;
        END IF;
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'portal_audit_web')
           AND NOT pg_has_role('portal_audit_web', 'portal_audit_viewer', 'MEMBER') THEN
          GRANT portal_audit_viewer TO portal_audit_web;
        END IF;
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
DO $$
DECLARE
  events CONSTANT REGCLASS := 'public.events';
  is_as_given CONSTANT BOOLEAN := 7 = (
    SELECT count(*) FROM pg_attribute a
      JOIN (VALUES ('timestamp', 'timestamptz'::regtype), ('event_type', 'text'), ('caller', 'text'), ('subject', 'text'),
                   ('subject_type', 'text'), ('target', 'text'), ('payload', 'jsonb')) AS g (name, type)
        ON g.name = a.attname AND g.type = a.atttypid AND a.atttypmod = -1
     WHERE a.attrelid = events AND NOT a.attisdropped);
  before TEXT;
  told   TEXT;
  policy RECORD;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_class WHERE oid = events AND pg_has_role(relowner, 'USAGE')) THEN
    RAISE WARNING 'public.events belongs to another role: it has to enable row-level security, else whoever may read it reads all of it'
      USING HINT = 'Run this script as that role.';
    RETURN;
  END IF;
  IF NOT (SELECT relrowsecurity FROM pg_class WHERE oid = events) THEN
    -- Who was let in by a grant of its own before there were policies keeps what it had. Later grants show nothing without a policy.
    SELECT string_agg(DISTINCT quote_ident(r.rolname), ', ') INTO before
      FROM pg_class c CROSS JOIN LATERAL (
           SELECT grantee FROM aclexplode(c.relacl)
           UNION SELECT a.grantee FROM pg_attribute t, aclexplode(t.attacl) AS a WHERE t.attrelid = c.oid) AS g
      JOIN pg_roles r ON r.oid = g.grantee
     WHERE c.oid = events AND r.oid <> c.relowner AND r.rolname NOT LIKE 'portal\_audit\_%';
    IF before IS NOT NULL AND NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = events) THEN
      EXECUTE format('CREATE POLICY portal_audit_before ON public.events TO %s USING (true) WITH CHECK (true)', before);
      COMMENT ON POLICY portal_audit_before ON public.events IS 'Roles that had privileges before there was row-level security keep them. Drop it once each has a role of portal_audit';
      RAISE WARNING 'these roles keep what they may do with events: %', before;
    END IF;
    ALTER TABLE public.events ENABLE ROW LEVEL SECURITY;
  END IF;
  FOR policy IN
    SELECT w.*, (SELECT string_agg(quote_ident(rolname), ', ') FROM pg_roles WHERE rolname = ANY (w.roles)) AS there
      FROM (VALUES
        ('portal_audit_writes', '{portal_audit_writer}'::text[], 'FOR INSERT', 'WITH CHECK (true)', 'The sidecar adds events'),
        ('portal_audit_counts', '{portal_audit_writer}', 'FOR SELECT', 'USING (true)', 'The sidecar learns which ids an INSERT did not pass over, and counts gaps: by the three columns that it may read'),
        ('portal_audit_sees_all', '{portal_audit_admin,portal_audit_reader}', 'FOR SELECT', 'USING (true)', 'Admins and dashboards see all'),
        ('portal_audit_sees_own', '{portal_audit_viewer,portal_audit_web}', 'FOR SELECT', format('USING (%s)', portal_audit.rule()),
          'A user of the portal sees what the words of visible_to give, by membership as of the event')
      ) AS w (name, roles, command, rule, comment)
  LOOP
    -- The comment says of what text it was made, so that one that is as it should be stays, and nobody waits for a lock.
    told := format('%s (%s)', policy.comment, left(md5(concat_ws(' ', policy.command, policy.there, policy.rule)), 8));
    CONTINUE WHEN told = (SELECT obj_description(oid, 'pg_policy') FROM pg_policy WHERE polrelid = events AND polname = policy.name);
    IF EXISTS (SELECT FROM pg_policy WHERE polrelid = events AND polname = policy.name) THEN
      EXECUTE format('DROP POLICY %I ON public.events', policy.name);
    END IF;
    -- Over a column of another type it cannot be made, and the type of a column that it reads cannot be changed.
    IF policy.name = 'portal_audit_sees_own' AND NOT is_as_given THEN
      RAISE WARNING 'public.events is not as it is given: portal users see nothing of it' USING HINT = 'Mend its columns, then run this script again.';
    ELSIF policy.there IS NOT NULL THEN
      EXECUTE format('CREATE POLICY %I ON public.events %s TO %s %s', policy.name, policy.command, policy.there, policy.rule);
      EXECUTE format('COMMENT ON POLICY %I ON public.events IS %L', policy.name, told);
    END IF;
  END LOOP;
END $$;
