-- The audit database: the table `events` as it is given, and the schema `portal_audit`, which is ours.
-- Safe to run again. Run it as the owner-to-be of these tables, in the audit database:
--     portal-audit sql audit | psql -d portal-audit
-- `portal-audit run` runs this very text when the schema is missing and its role may create it.

-- 1. The table that admins query. It may exist and hold rows of others: no column and no index is added, dropped or retyped,
--    and it has no foreign key, so that no event goes with its subject.
DO $$
BEGIN
  IF to_regclass('public.events') IS NULL THEN
    CREATE TABLE public.events (
      event_uuid    UUID PRIMARY KEY,
      timestamp     TIMESTAMPTZ NOT NULL,
      event_type    TEXT NOT NULL,
      caller        TEXT NOT NULL,
      subject       TEXT NOT NULL,
      subject_type  TEXT NOT NULL,
      target        TEXT,
      success       BOOLEAN NOT NULL,
      error_message TEXT,
      payload       JSONB NOT NULL DEFAULT '{}'::jsonb
    );
    CREATE INDEX idx_events_timestamp  ON public.events (timestamp DESC);
    CREATE INDEX idx_events_event_type ON public.events (event_type);
    CREATE INDEX idx_events_caller     ON public.events (caller);
    CREATE INDEX idx_events_subject    ON public.events (subject_type, subject);
    CREATE INDEX idx_events_target     ON public.events (target);
  END IF;
END $$;

-- 2. What the sidecar keeps for itself.
CREATE SCHEMA IF NOT EXISTS portal_audit;

-- A source is in state `creating` from before its slot exists until its first snapshot is written: only then may a slot be dropped by us.
CREATE TABLE IF NOT EXISTS portal_audit.progress (
  source            TEXT PRIMARY KEY,
  state             TEXT NOT NULL CHECK (state IN ('creating', 'streaming')),
  slot              TEXT NOT NULL,
  system_identifier TEXT NOT NULL,
  timeline          BIGINT NOT NULL,
  database_oid      BIGINT NOT NULL,
  end_lsn           PG_LSN NOT NULL,
  last_commit       TIMESTAMPTZ,
  complete_to       TIMESTAMPTZ,
  transactions      BIGINT NOT NULL DEFAULT 0,
  changes           BIGINT NOT NULL DEFAULT 0,
  events            BIGINT NOT NULL DEFAULT 0,
  updated_at        TIMESTAMPTZ NOT NULL DEFAULT now()
);
COMMENT ON TABLE  portal_audit.progress IS 'One row per source: what of its log is written to events';
COMMENT ON COLUMN portal_audit.progress.source IS 'Name of the source in the settings';
COMMENT ON COLUMN portal_audit.progress.state IS 'creating: the slot and first snapshot are being made; streaming: the log is followed';
COMMENT ON COLUMN portal_audit.progress.slot IS 'Replication slot on the source';
COMMENT ON COLUMN portal_audit.progress.system_identifier IS 'Cluster of the source, as IDENTIFY_SYSTEM says';
COMMENT ON COLUMN portal_audit.progress.timeline IS 'Timeline of the source; another one means a failover';
COMMENT ON COLUMN portal_audit.progress.database_oid IS 'Database of the source in its cluster';
COMMENT ON COLUMN portal_audit.progress.end_lsn IS 'Everything before this position is written, or had nothing to write';
COMMENT ON COLUMN portal_audit.progress.last_commit IS 'Commit time of the last transaction written';
COMMENT ON COLUMN portal_audit.progress.complete_to IS 'The record is complete up to this commit time';
COMMENT ON COLUMN portal_audit.progress.transactions IS 'Source transactions written since the source was first followed';
COMMENT ON COLUMN portal_audit.progress.changes IS 'Row changes among them';
COMMENT ON COLUMN portal_audit.progress.events IS 'Events they became';
COMMENT ON COLUMN portal_audit.progress.updated_at IS 'When this row was last written, by the audit database''s clock';

CREATE TABLE IF NOT EXISTS portal_audit.names (
  source TEXT NOT NULL,
  entity TEXT NOT NULL,
  key    TEXT NOT NULL,
  name   TEXT NOT NULL,
  upto   PG_LSN NOT NULL DEFAULT '0/0',
  PRIMARY KEY (source, entity, key)
);
ALTER TABLE portal_audit.names ADD COLUMN IF NOT EXISTS upto PG_LSN NOT NULL DEFAULT '0/0';
COMMENT ON TABLE  portal_audit.names IS 'Names of keys as of progress.end_lsn; an entry outlives its row';
COMMENT ON COLUMN portal_audit.names.source IS 'Name of the source in the settings';
COMMENT ON COLUMN portal_audit.names.entity IS 'The [names.X] table of the mapping';
COMMENT ON COLUMN portal_audit.names.key IS 'Key in the source';
COMMENT ON COLUMN portal_audit.names.name IS 'Its name after the last change that was written';
COMMENT ON COLUMN portal_audit.names.upto IS 'No change behind this position gave it: after a failover to a standby that was behind, later ones are forgotten';

CREATE TABLE IF NOT EXISTS portal_audit.event_types (
  event_type TEXT PRIMARY KEY,
  describe   TEXT NOT NULL,
  retention  TEXT NOT NULL,
  visible_to TEXT[] NOT NULL
);
COMMENT ON TABLE  portal_audit.event_types IS 'Every event type that a mapping of this database declares';
COMMENT ON COLUMN portal_audit.event_types.event_type IS 'As in events.event_type';
COMMENT ON COLUMN portal_audit.event_types.describe IS 'Sentence for people; its {placeholders} are filled when it is shown';
COMMENT ON COLUMN portal_audit.event_types.retention IS 'project: for ever; user: for a limited time';
COMMENT ON COLUMN portal_audit.event_types.visible_to IS 'Who may see events of this type';

CREATE TABLE IF NOT EXISTS portal_audit.unmapped (
  source     TEXT NOT NULL,
  relation   TEXT NOT NULL,
  operation  TEXT NOT NULL,
  changes    BIGINT NOT NULL,
  PRIMARY KEY (source, relation, operation)
);
COMMENT ON TABLE  portal_audit.unmapped IS 'Published changes that no rule of the mapping took, and attempts that cannot be told';
COMMENT ON COLUMN portal_audit.unmapped.source IS 'Name of the source in the settings';
COMMENT ON COLUMN portal_audit.unmapped.relation IS 'Table in the source';
COMMENT ON COLUMN portal_audit.unmapped.operation IS 'insert, update or delete; attempt undecided (the source no longer knows how it ended), attempt unreadable or attempt refused (too many wait)';
COMMENT ON COLUMN portal_audit.unmapped.changes IS 'How many since the source was first followed';

-- A loss that was accepted (`run --accept-gap`, or beforehand by `wal_budget_action`). Its end is not known until the source is followed again, and the row outlives its progress:
-- whoever begins the source anew ends the gap too. Its event is written in the transaction that fills the last three columns.
CREATE TABLE IF NOT EXISTS portal_audit.gaps (
  gap               BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  source            TEXT NOT NULL,
  reason            TEXT NOT NULL,
  slot              TEXT NOT NULL,
  system_identifier TEXT NOT NULL,
  timeline          BIGINT NOT NULL,
  database_oid      BIGINT NOT NULL,
  from_lsn          PG_LSN NOT NULL,
  from_time         TIMESTAMPTZ NOT NULL,
  last_commit       TIMESTAMPTZ,
  accepted_at       TIMESTAMPTZ NOT NULL DEFAULT now(),
  to_lsn            PG_LSN,
  to_time           TIMESTAMPTZ,
  event_uuid        UUID
);
ALTER TABLE portal_audit.gaps ADD COLUMN IF NOT EXISTS last_commit TIMESTAMPTZ;
CREATE UNIQUE INDEX IF NOT EXISTS gaps_open ON portal_audit.gaps (source) WHERE to_lsn IS NULL;
COMMENT ON TABLE  portal_audit.gaps IS 'Changes that are gone, as somebody accepted with run --accept-gap or in the settings, and sources that went back; each has one event, of type audit_gap or audit_diverged';
COMMENT ON COLUMN portal_audit.gaps.gap IS 'Counts them';
COMMENT ON COLUMN portal_audit.gaps.source IS 'Name of the source in the settings';
COMMENT ON COLUMN portal_audit.gaps.reason IS 'slot_lost, slot_ahead, slot_invalid, other_system, other_timeline, other_database, log_behind or wal_budget; diverged: a failover to a standby that was behind';
COMMENT ON COLUMN portal_audit.gaps.slot IS 'Replication slot that was followed until then';
COMMENT ON COLUMN portal_audit.gaps.system_identifier IS 'Cluster that was followed until then';
COMMENT ON COLUMN portal_audit.gaps.timeline IS 'Its timeline';
COMMENT ON COLUMN portal_audit.gaps.database_oid IS 'Database that was followed until then';
COMMENT ON COLUMN portal_audit.gaps.from_lsn IS 'progress.end_lsn before the loss: everything before it is written';
COMMENT ON COLUMN portal_audit.gaps.from_time IS 'The record is complete up to this commit time';
COMMENT ON COLUMN portal_audit.gaps.last_commit IS 'Commit time of the last transaction before: later than from_time if something waited to be decided';
COMMENT ON COLUMN portal_audit.gaps.accepted_at IS 'When it was accepted, by the audit database''s clock';
COMMENT ON COLUMN portal_audit.gaps.to_lsn IS 'Where the stream goes on, in the log of the cluster that is followed now; NULL until the new slot is made. Before from_lsn: the source went back';
COMMENT ON COLUMN portal_audit.gaps.to_time IS 'The source''s clock then: what is missing was committed before. Where the source went back: time of the last event that it still has';
COMMENT ON COLUMN portal_audit.gaps.event_uuid IS 'Its event';

-- What the source's catalog said at the last look (every limits.coverage_interval_ms): with it the next look is compared, and what differs is an
-- event, coverage_changed or schema_changed, written in the transaction that replaces this row.
CREATE TABLE IF NOT EXISTS portal_audit.coverage (
  source            TEXT PRIMARY KEY,
  system_identifier TEXT NOT NULL,
  database_oid      BIGINT NOT NULL,
  settings          TEXT NOT NULL,
  picture           JSONB NOT NULL,
  holes             JSONB NOT NULL,
  lsn               PG_LSN NOT NULL,
  at                TIMESTAMPTZ NOT NULL
);
COMMENT ON TABLE  portal_audit.coverage IS 'What is covered of each source, as of the last look at its catalog';
COMMENT ON COLUMN portal_audit.coverage.source IS 'Name of the source in the settings';
COMMENT ON COLUMN portal_audit.coverage.system_identifier IS 'Cluster that was looked at';
COMMENT ON COLUMN portal_audit.coverage.database_oid IS 'Its database';
COMMENT ON COLUMN portal_audit.coverage.settings IS 'Tells whether the mapping and the publication''s name are the ones of the last look';
COMMENT ON COLUMN portal_audit.coverage.picture IS 'The publication and the mapped tables: operations, entries, row filters, column lists, replica identities, partitions, columns';
COMMENT ON COLUMN portal_audit.coverage.holes IS 'What is not covered now: object, reason, fix, rules that stand still, and since when';
COMMENT ON COLUMN portal_audit.coverage.lsn IS 'End of the source''s log when it was so: a later change came after this';
COMMENT ON COLUMN portal_audit.coverage.at IS 'The source''s clock then';

-- What the attempt trigger (`portal-audit sql attempt`) said of transactions whose end is not known yet: one row per transaction. It is stored
-- with the progress that passes it, and its row's deletion is what makes an event of it exactly once. It goes with its progress, for a
-- transaction id says nothing about another cluster.
CREATE TABLE IF NOT EXISTS portal_audit.attempts (
  source     TEXT NOT NULL REFERENCES portal_audit.progress ON DELETE CASCADE,
  xid        BIGINT NOT NULL,
  lsn        PG_LSN NOT NULL,
  at         TIMESTAMPTZ NOT NULL,
  relation   TEXT NOT NULL,
  operation  TEXT NOT NULL,
  caller     TEXT NOT NULL,
  flags      TEXT NOT NULL,
  nested     BOOLEAN NOT NULL,
  statements JSONB NOT NULL,
  left_out   BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (source, xid)
);
COMMENT ON TABLE  portal_audit.attempts IS 'Transactions with an attempt trigger''s messages whose end is not known yet';
COMMENT ON COLUMN portal_audit.attempts.source IS 'Name of the source in the settings';
COMMENT ON COLUMN portal_audit.attempts.xid IS 'Transaction, with its epoch: as pg_current_xact_id() gives it';
COMMENT ON COLUMN portal_audit.attempts.lsn IS 'Where its last message stands in the log';
COMMENT ON COLUMN portal_audit.attempts.at IS 'When its last statement began, by the source''s clock';
COMMENT ON COLUMN portal_audit.attempts.relation IS 'Table of its last statement that is not nested';
COMMENT ON COLUMN portal_audit.attempts.operation IS 'insert, update, delete or truncate: its last statement';
COMMENT ON COLUMN portal_audit.attempts.caller IS 'Who it says it is; empty if it does not say';
COMMENT ON COLUMN portal_audit.attempts.flags IS 'What was done to the caller so that it can stand here: escaped, redacted, truncated';
COMMENT ON COLUMN portal_audit.attempts.nested IS 'Whether a foreign key or a trigger did it: then the next statement takes its place';
COMMENT ON COLUMN portal_audit.attempts.statements IS 'Table and operation of each statement, in their order';
COMMENT ON COLUMN portal_audit.attempts.left_out IS 'Statements beyond the limit of that list';

-- Stores attempts, given in the order of the log. One that comes a second time changes nothing, because its position is known by then.
-- Gives how many belong to transactions that there was no room for.
CREATE OR REPLACE FUNCTION portal_audit.keep_attempts(
  p_source TEXT, p_xids BIGINT[], p_lsns PG_LSN[], p_ats TIMESTAMPTZ[], p_relations TEXT[], p_operations TEXT[],
  p_callers TEXT[], p_flags TEXT[], p_nested BOOLEAN[], p_rows_max BIGINT, p_statements_max INT
) RETURNS BIGINT LANGUAGE plpgsql AS $$
DECLARE
  room    BIGINT := p_rows_max - (SELECT count(*) FROM portal_audit.attempts WHERE source = p_source);
  refused BIGINT := 0;
  a       RECORD;
BEGIN
  FOR a IN SELECT * FROM unnest(p_xids, p_lsns, p_ats, p_relations, p_operations, p_callers, p_flags, p_nested)
                      AS u (xid, lsn, at, relation, operation, caller, flags, nested) LOOP
    UPDATE portal_audit.attempts k
       SET lsn = a.lsn,
           (at, relation, operation, caller, flags, nested) = (
             SELECT t.at, t.relation, t.operation, t.caller, t.flags, t.nested
               FROM (VALUES (1, a.at, a.relation, a.operation, a.caller, a.flags, a.nested),
                            (2, k.at, k.relation, k.operation, k.caller, k.flags, k.nested))
                      AS t (place, at, relation, operation, caller, flags, nested)
              ORDER BY t.nested, t.place LIMIT 1),
           statements = CASE WHEN jsonb_array_length(k.statements) < p_statements_max
                             THEN k.statements || jsonb_build_array(jsonb_build_object('table', a.relation, 'operation', a.operation))
                             ELSE k.statements END,
           left_out = k.left_out + (jsonb_array_length(k.statements) >= p_statements_max)::INT
     WHERE source = p_source AND xid = a.xid AND k.lsn < a.lsn;
    CONTINUE WHEN FOUND OR EXISTS (SELECT FROM portal_audit.attempts WHERE source = p_source AND xid = a.xid);
    IF room <= 0 THEN
      refused := refused + 1;
      CONTINUE;
    END IF;
    INSERT INTO portal_audit.attempts (source, xid, lsn, at, relation, operation, caller, flags, nested, statements)
    VALUES (p_source, a.xid, a.lsn, a.at, a.relation, a.operation, a.caller, a.flags, a.nested,
            jsonb_build_array(jsonb_build_object('table', a.relation, 'operation', a.operation)));
    room := room - 1;
  END LOOP;
  RETURN refused;
END $$;
COMMENT ON FUNCTION portal_audit.keep_attempts IS 'Stores what the attempt trigger said of transactions whose end is not known yet';

-- Moves progress, and only from where the caller believes it to be: a second sidecar on the same source, or one that was cut off and came
-- back, cannot write anything twice, because its whole transaction fails here.
CREATE OR REPLACE FUNCTION portal_audit.advance(
  p_source TEXT, p_from PG_LSN, p_to PG_LSN, p_commit TIMESTAMPTZ, p_complete TIMESTAMPTZ,
  p_transactions BIGINT, p_changes BIGINT, p_events BIGINT
) RETURNS VOID LANGUAGE plpgsql AS $$
BEGIN
  UPDATE portal_audit.progress
     SET end_lsn = p_to,
         state = 'streaming',
         last_commit = COALESCE(p_commit, last_commit),
         -- An attempt that waits may become an event of its time, so the record is not complete beyond it; but it never moves back.
         complete_to = GREATEST(complete_to, LEAST(p_complete, (SELECT min(at) FROM portal_audit.attempts WHERE source = p_source))),
         transactions = transactions + p_transactions,
         changes = changes + p_changes,
         events = events + p_events,
         updated_at = now()
   WHERE source = p_source AND end_lsn = p_from;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'progress of source "%" is not at %: another sidecar writes it', p_source, p_from
      USING ERRCODE = 'PA001';
  END IF;
END $$;
COMMENT ON FUNCTION portal_audit.advance IS 'Compare-and-set of a source''s progress; raises PA001 if somebody else moved it';

-- What of a source's events lies between two positions of a timeline, and the time of the last event before those. The sidecar may not read
-- events, and learns nothing else of them. The newest are looked at first, until a thousand of that source were none of them.
CREATE OR REPLACE FUNCTION portal_audit.phantoms(
  p_source TEXT, p_timeline BIGINT, p_from PG_LSN, p_to PG_LSN,
  OUT events BIGINT, OUT first TIMESTAMPTZ, OUT last TIMESTAMPTZ, OUT before TIMESTAMPTZ
) LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  others INT := 0;
  e      RECORD;
BEGIN
  events := 0;
  FOR e IN SELECT timestamp AS at, (payload #>> '{_audit,lsn}')::pg_lsn AS lsn,
                  coalesce((payload #>> '{_audit,timeline}')::bigint, 1) AS timeline
             FROM public.events
            WHERE payload #>> '{_audit,source}' = p_source AND payload #> '{_audit,lsn}' IS NOT NULL
              AND NOT payload -> '_audit' ? 'backfill' AND event_type NOT IN ('audit_gap', 'audit_diverged')
            ORDER BY timestamp DESC LOOP
    IF e.lsn >= p_from AND e.lsn < p_to AND e.timeline = p_timeline THEN
      events := events + 1;
      first := least(first, e.at);
      last := greatest(last, e.at);
    ELSE
      others := others + 1;
      before := CASE WHEN e.lsn < p_from THEN greatest(before, e.at) ELSE before END;
      EXIT WHEN others >= 1000;
    END IF;
  END LOOP;
END $$;
COMMENT ON FUNCTION portal_audit.phantoms IS 'Counts events of a source between two positions of one timeline, for audit_diverged';
REVOKE ALL ON FUNCTION portal_audit.phantoms FROM PUBLIC;

-- 3. Who may do what: the sidecar may add events, never change or remove one; readers may read. Give the roles to logins:
--        GRANT portal_audit_writer TO <the sidecar's login>;   GRANT portal_audit_reader TO <an admin's login>;
DO $$
DECLARE wanted TEXT;
BEGIN
  FOREACH wanted IN ARRAY ARRAY['portal_audit_writer', 'portal_audit_reader'] LOOP
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
DO $$
BEGIN
  FOR attempt IN 1 .. 10 LOOP
    BEGIN
      -- A role that another database has made a moment ago is seen by a query before GRANT sees it: reading a relation that is not
      -- locked yet makes the session take notice of what others have committed.
      PERFORM FROM pg_catalog.pg_shseclabel LIMIT 1;
      IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'portal_audit_writer') THEN
        GRANT USAGE ON SCHEMA portal_audit TO portal_audit_writer;
        -- By two columns `status` counts gaps, and the id tells which events an INSERT did not pass over; no event can be read with them.
        GRANT INSERT, SELECT (event_uuid, event_type, subject) ON public.events TO portal_audit_writer;
        GRANT SELECT, INSERT, UPDATE ON portal_audit.progress, portal_audit.names, portal_audit.event_types,
          portal_audit.unmapped, portal_audit.attempts, portal_audit.gaps, portal_audit.coverage TO portal_audit_writer;
        GRANT EXECUTE ON FUNCTION portal_audit.phantoms TO portal_audit_writer;
        GRANT DELETE ON portal_audit.names, portal_audit.attempts TO portal_audit_writer;
      END IF;
      IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'portal_audit_reader') THEN
        GRANT USAGE ON SCHEMA portal_audit TO portal_audit_reader;
        GRANT SELECT ON public.events, portal_audit.progress, portal_audit.event_types, portal_audit.unmapped,
          portal_audit.attempts, portal_audit.gaps, portal_audit.coverage TO portal_audit_reader;
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
