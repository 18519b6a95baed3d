  -- Never dropped: while a slot lives, a publication that is missing for a moment stops it for good.
  IF EXISTS (SELECT FROM pg_publication WHERE pubname = wanted_publication) THEN
    -- The options first: at no moment may a table be published without what its identity needs. Not if they are so already: each
    -- ALTER of a publication's row is told as a change of what is covered.
    IF options LIKE '%generated%' OR NOT EXISTS (SELECT FROM pg_publication WHERE pubname = wanted_publication
         AND pubinsert AND pubupdate AND pubdelete AND pubtruncate AND pubviaroot) THEN
      EXECUTE format('ALTER PUBLICATION %I SET (%s)', wanted_publication, options);
    END IF;
    statement := format('ALTER PUBLICATION %I SET TABLE %s', wanted_publication, array_to_string(tables, ', '));
    RAISE NOTICE '%', statement;  EXECUTE statement;
  ELSE
    statement := format('CREATE PUBLICATION %I FOR TABLE %s WITH (%s)', wanted_publication, array_to_string(tables, ', '), options);
    RAISE NOTICE '%', statement;  EXECUTE statement;
  END IF;
