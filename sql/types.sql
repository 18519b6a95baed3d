
-- 8. Event types. The sidecar declares those of its mapping, and may say anew how they read. How long events of a type are kept, and who may
--    see them, is taken from the first declaration and is the admins' from then on: or whoever has the sidecar's password could give a type to
--    a class that is kept for a while, and let prune() take what should stay.
INSERT INTO portal_audit.event_types (event_type, describe, retention, visible_to) VALUES
  ('event_type_changed', '{caller} changed for how long events of type {subject} are kept, or who may see them', 'project', ARRAY['admin'])
ON CONFLICT DO NOTHING;

-- Of types as somebody wants them, those that are kept otherwise. The lists of roles are joined by commas.
CREATE OR REPLACE FUNCTION portal_audit.types_kept(p_types TEXT[], p_retention TEXT[], p_visible_to TEXT[])
RETURNS TABLE (event_type TEXT, fix TEXT) LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT t.event_type, format('SELECT portal_audit.change_type(%L%s%s)', t.event_type,
                              CASE WHEN t.retention <> w.retention THEN format(', p_retention => %L', w.retention) END,
                              CASE WHEN NOT (t.visible_to @> v.roles AND t.visible_to <@ v.roles) THEN format(', p_visible_to => %L', v.roles::text) END)
    FROM unnest(p_types, p_retention, p_visible_to) AS w (event_type, retention, visible_to)
    JOIN portal_audit.event_types t USING (event_type)
   CROSS JOIN LATERAL (SELECT string_to_array(w.visible_to, ',') AS roles) AS v
   WHERE t.retention <> w.retention OR NOT (t.visible_to @> v.roles AND t.visible_to <@ v.roles)
   ORDER BY t.event_type
$$;
COMMENT ON FUNCTION portal_audit.types_kept IS 'Event types that are kept or seen otherwise than given here, and what an admin runs to change that';

CREATE OR REPLACE FUNCTION portal_audit.declare_types(p_types TEXT[], p_describe TEXT[], p_retention TEXT[], p_visible_to TEXT[])
RETURNS TABLE (event_type TEXT, fix TEXT) LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  w RECORD;
BEGIN
  FOR w IN SELECT n.*, r.keep FROM unnest(p_types, p_describe, p_retention, p_visible_to) AS n (event_type, describe, retention, visible_to)
             LEFT JOIN portal_audit.retention r ON r.class = n.retention
            WHERE NOT EXISTS (SELECT FROM portal_audit.event_types t WHERE t.event_type = n.event_type) LOOP
    -- A statement of its own: a start that declares nothing new must not wait for a lock on events, which a session that was left behind may hold.
    IF w.keep IS NOT NULL THEN
      IF EXISTS (SELECT FROM public.events e WHERE e.event_type = w.event_type) THEN
        -- Events that are there of a type that nobody declared were to stay.
        w.retention := 'project';
      END IF;
    END IF;
    INSERT INTO portal_audit.event_types (event_type, describe, retention, visible_to)
    VALUES (w.event_type, w.describe, w.retention, string_to_array(w.visible_to, ',')) ON CONFLICT DO NOTHING;
  END LOOP;
  UPDATE portal_audit.event_types t SET describe = n.describe
    FROM unnest(p_types, p_describe) AS n (event_type, describe) WHERE t.event_type = n.event_type AND t.describe <> n.describe;
  RETURN QUERY SELECT k.event_type, k.fix FROM portal_audit.types_kept(p_types, p_retention, p_visible_to) k;
END $$;
COMMENT ON FUNCTION portal_audit.declare_types IS 'Adds event types that are new, and takes the sentences of the others; says which are kept or seen otherwise, for that only change_type changes';

CREATE OR REPLACE FUNCTION portal_audit.change_type(p_event_type TEXT, p_retention TEXT DEFAULT NULL, p_visible_to TEXT[] DEFAULT NULL) RETURNS VOID
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  before portal_audit.event_types;
BEGIN
  SELECT * INTO before FROM portal_audit.event_types WHERE event_type = p_event_type FOR UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no event type "%": see portal_audit.event_types', p_event_type USING ERRCODE = 'PA002';
  END IF;
  IF p_retention IS NOT NULL AND NOT EXISTS (SELECT FROM portal_audit.retention WHERE class = p_retention) THEN
    RAISE EXCEPTION 'there is no class "%": see portal_audit.retention', p_retention USING ERRCODE = 'PA002';
  END IF;
  UPDATE portal_audit.event_types SET retention = coalesce(p_retention, retention), visible_to = coalesce(p_visible_to, visible_to)
   WHERE event_type = p_event_type AND (retention, visible_to) IS DISTINCT FROM (coalesce(p_retention, retention), coalesce(p_visible_to, visible_to));
  IF NOT FOUND THEN
    RETURN;
  END IF;
  PERFORM portal_audit.record('event_type_changed', portal_audit.acting(), p_event_type, 'event_type', NULL, TRUE, NULL, jsonb_strip_nulls(jsonb_build_object(
    'retention', p_retention, 'retention_before', CASE WHEN p_retention IS NOT NULL THEN before.retention END,
    'visible_to', p_visible_to, 'visible_to_before', CASE WHEN p_visible_to IS NOT NULL THEN before.visible_to END)));
  -- What was passed over may be due.
  PERFORM portal_audit.look_again();
END $$;
COMMENT ON FUNCTION portal_audit.change_type IS 'Gives an event type another class (portal_audit.retention), or shows it to others: admin, self, organization, project; and records it. NULL: as it is';
REVOKE ALL ON FUNCTION portal_audit.types_kept, portal_audit.declare_types, portal_audit.change_type FROM PUBLIC;
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'portal_audit_writer') THEN
    GRANT EXECUTE ON FUNCTION portal_audit.types_kept, portal_audit.declare_types TO portal_audit_writer;
    -- Until schema 2 the sidecar's role could write the table itself.
    REVOKE INSERT, UPDATE ON portal_audit.event_types FROM portal_audit_writer;
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'portal_audit_admin') THEN
    GRANT EXECUTE ON FUNCTION portal_audit.types_kept, portal_audit.change_type TO portal_audit_admin;
  END IF;
END $$;
