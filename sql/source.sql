-- What ops run on the source database {{database}}, as the owner of its tables or a superuser, with psql. Safe to run again:
--     portal-audit sql source --config portal-audit.toml{{flags}} | psql -d {{database}}
-- {{makes}} It refuses, and changes nothing, where that
-- would break the portal's own writes or publish a column whose name is a secret's. Each statement that it runs is told as a NOTICE.
-- The server needs wal_level = logical. Set max_slot_wal_keep_size, so that a sidecar that is away cannot fill the disk.
-- Run it before the sidecar's first start: a slot that is older than its publication cannot be read on PostgreSQL 14 to 17.

BEGIN;
SET LOCAL lock_timeout = '5s';

-- What the mapping reads: of each table the columns, those whose old value it needs when a row is changed or deleted, columns that it
-- reads where they exist, and whether the table itself may be missing.
CREATE TEMPORARY TABLE portal_audit_plan (nspname NAME, relname NAME, columns TEXT[], old_columns TEXT[], optional_columns TEXT[],
  is_optional BOOLEAN) ON COMMIT DROP;
INSERT INTO portal_audit_plan VALUES
{{plan}};

DO $portal_audit$
DECLARE
  wanted_role        CONSTANT TEXT := {{role}};
  wanted_publication CONSTANT TEXT := {{publication}};
  -- A column list and replica identity FULL exclude each other, so a table that needs FULL is published whole: then none of its columns may be a secret.
  secret CONSTANT TEXT := {{secret}};
  -- Foreign keys whose names have such a word and that hold ids.
  exempt CONSTANT TEXT[] := {{exempt}};
  plan      RECORD;
  tbl       RECORD;
  identity  TEXT[];
  listed    TEXT[];
  secrets   TEXT[];
  leaf      REGCLASS;
  tables    TEXT[] := '{}';
  statement TEXT;
  options   TEXT := 'publish = ''insert, update, delete, truncate'', publish_via_partition_root = true';
  generated TEXT;
BEGIN
  IF current_setting('wal_level') <> 'logical' THEN
    RAISE WARNING 'wal_level is %: set it to logical and restart the server', current_setting('wal_level');
  END IF;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted_role) THEN
    -- Without a password nobody can log in by one: set it with \password.
    statement := format('CREATE ROLE %I LOGIN REPLICATION NOINHERIT CONNECTION LIMIT 5', wanted_role);
    RAISE NOTICE '%', statement;  EXECUTE statement;
  ELSIF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted_role AND rolcanlogin AND (rolreplication OR rolsuper)) THEN
    RAISE WARNING 'role % exists and is not made for this: ALTER ROLE % LOGIN REPLICATION', wanted_role, quote_ident(wanted_role);
  END IF;
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), wanted_role);

  FOR plan IN SELECT * FROM portal_audit_plan ORDER BY 1, 2 LOOP
    SELECT c.oid, c.relreplident, format('%I.%I', plan.nspname, plan.relname) AS name INTO tbl
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = plan.nspname AND c.relname = plan.relname AND c.relkind IN ('r', 'p');
    IF NOT FOUND AND plan.is_optional THEN
      CONTINUE;
    ELSIF NOT FOUND THEN
      RAISE EXCEPTION 'table %.% of the mapping does not exist', plan.nspname, plan.relname;
    END IF;
    plan.columns := plan.columns || ARRAY(
      SELECT a.attname::TEXT FROM pg_attribute a
       WHERE a.attrelid = tbl.oid AND NOT a.attisdropped AND a.attname = ANY (plan.optional_columns));
    identity := ARRAY(
      SELECT a.attname::TEXT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid
         AND a.attnum = ANY ((i.indkey::INT2[])[0:i.indnkeyatts - 1])
       WHERE i.indrelid = tbl.oid AND CASE tbl.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END);
    secrets := ARRAY(
      SELECT a.attname::TEXT FROM pg_attribute a
       WHERE a.attrelid = tbl.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> ALL (exempt)
         AND regexp_replace(a.attname, '([a-z0-9])([A-Z])', '\1_\2', 'g') ~* secret);
    IF tbl.relreplident <> 'f' AND (cardinality(identity) = 0 OR NOT plan.old_columns <@ identity) THEN
      IF cardinality(secrets) > 0 THEN
        RAISE EXCEPTION 'table % needs old values (%) and holds what looks secret (%)', tbl.name, plan.old_columns, secrets
          USING HINT = format('CREATE UNIQUE INDEX ON %s (<its key>, %s); ALTER TABLE %s REPLICA IDENTITY USING INDEX <that index>; all columns NOT NULL.',
                              tbl.name, array_to_string(plan.old_columns, ', '), tbl.name);
      END IF;
      tbl.relreplident := 'f';
    END IF;
    listed := ARRAY(SELECT DISTINCT c FROM unnest(plan.columns || plan.old_columns || identity) AS c ORDER BY c);
    IF tbl.relreplident = 'f' THEN
      -- From 18 on the identity FULL has the generated columns too, and the portal's own UPDATE fails if one of them is not published.
      generated := (SELECT string_agg(DISTINCT a.attgenerated::TEXT, '') FROM pg_attribute a
                     WHERE a.attrelid = tbl.oid AND a.attnum > 0 AND NOT a.attisdropped);
      IF generated LIKE '%v%' THEN
        RAISE EXCEPTION 'table % needs replica identity FULL and has a virtual generated column, which cannot be published', tbl.name
          USING HINT = 'The portal''s own updates would fail. Give it the replica identity of an index.';
      ELSIF generated LIKE '%s%' AND current_setting('server_version_num')::INT >= 180000 AND options NOT LIKE '%generated%' THEN
        options := options || ', publish_generated_columns = stored';
      END IF;
      IF cardinality(secrets) > 0 THEN
        RAISE EXCEPTION 'table % has replica identity FULL and holds what looks secret (%)', tbl.name, secrets
          USING HINT = 'Give it the replica identity of an index, so that a column list can leave the secret out.';
      END IF;
      -- A partition has an identity of its own, and it is the partition's rows that are in the log.
      FOR leaf IN
        SELECT oid::REGCLASS FROM pg_class
         WHERE relreplident <> 'f' AND (oid = tbl.oid OR oid IN (SELECT relid FROM pg_partition_tree(tbl.oid)))
      LOOP
        statement := format('ALTER TABLE %s REPLICA IDENTITY FULL', leaf);
        RAISE NOTICE '%', statement;  EXECUTE statement;
      END LOOP;
      tables := tables || tbl.name;
    ELSIF current_setting('server_version_num')::INT < 150000 THEN
      -- Column lists came with 15: on 14 the whole row crosses the wire.
      IF cardinality(secrets) > 0 THEN
        RAISE WARNING 'PostgreSQL 14 sends all of table %, also what looks secret (%); it reaches no event', tbl.name, secrets;
      END IF;
      tables := tables || tbl.name;
    ELSE
      tables := tables || format('%s (%s)', tbl.name, (SELECT string_agg(quote_ident(c), ', ') FROM unnest(listed) AS c));
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', plan.nspname, wanted_role);
    -- For the first snapshot only; a REPLICATION role needs no grant for the stream.
    IF tbl.relreplident = 'f' THEN
      EXECUTE format('GRANT SELECT ON %s TO %I', tbl.name, wanted_role);
    ELSE
      EXECUTE format('GRANT SELECT (%s) ON %s TO %I',
                     (SELECT string_agg(quote_ident(c), ', ') FROM unnest(listed) AS c), tbl.name, wanted_role);
    END IF;
{{found}}  END LOOP;

{{publish}}END $portal_audit$;
COMMIT;
