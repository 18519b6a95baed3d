  -- The publication is the operator's: it is compared with what this database needs; before there is one, what its resource was printed with.
  DECLARE
    present JSONB := {{printed}};
    needed  JSONB := (
      SELECT jsonb_agg(jsonb_strip_nulls(jsonb_build_object('name', relname, 'schema', nspname, 'columns', columns))
                       ORDER BY nspname, relname)
        FROM portal_audit_plan WHERE NOT is_optional);
    broken  TEXT;
  BEGIN
    IF EXISTS (SELECT FROM pg_publication WHERE pubname = wanted_publication) THEN
      EXECUTE format(
        'SELECT coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(''name'', c.relname, ''schema'', n.nspname, ''columns'', %s))), ''[]'')
           FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
           JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE p.pubname = $1',
        CASE WHEN current_setting('server_version_num')::INT < 150000 THEN 'NULL'
             ELSE '(SELECT jsonb_agg(attname) FROM pg_attribute WHERE attrelid = r.prrelid AND attnum = ANY (r.prattrs::INT2[]))' END)
        INTO present USING wanted_publication;
      -- Replica identity FULL beside a column list breaks the portal's own UPDATE and DELETE, so the list goes first.
      broken := (SELECT string_agg(format('%I.%I', a ->> 'schema', a ->> 'name'), ', ')
                   FROM jsonb_array_elements(present) a
                   JOIN jsonb_array_elements(needed) b ON (a ->> 'schema', a ->> 'name') = (b ->> 'schema', b ->> 'name')
                  WHERE a ? 'columns' AND NOT b ? 'columns');
      IF broken IS NOT NULL THEN
        RAISE EXCEPTION 'publication % has a column list for %, which needs replica identity FULL', wanted_publication, broken
          USING HINT = 'Leave out columns of that table in the Publication, wait until the operator has applied it, and run this again.';
      END IF;
    END IF;
    IF NOT (present @> needed AND needed @> present) THEN
      RAISE WARNING E'the Publication does not fit this database. It must have:\n    objects:\n%',
        (SELECT string_agg('      - table: ' || entry::TEXT, E'\n') FROM jsonb_array_elements(needed) AS entry);
    END IF;
    IF options LIKE '%generated%' THEN
      RAISE WARNING 'the Publication must have among its parameters: publish_generated_columns: stored';
    END IF;
  END;
