
-- 5. Proof that nobody edited the record: a Merkle tree (RFC 6962) over the events of each source as they were written, and one over the
--    events that this database's own functions add. Leaves stay when rows go.
CREATE TABLE IF NOT EXISTS portal_audit.trees (
  tree TEXT PRIMARY KEY,
  size BIGINT NOT NULL DEFAULT 0
);
COMMENT ON TABLE  portal_audit.trees IS 'One Merkle tree per source, and two of this database''s own: `.adopted`, rows of events from before there was a tree, and `.own`, what functions of portal_audit add';
COMMENT ON COLUMN portal_audit.trees.tree IS 'Name of the source in the settings, .adopted or .own';
COMMENT ON COLUMN portal_audit.trees.size IS 'Leaves in it';

CREATE TABLE IF NOT EXISTS portal_audit.seals (
  tree   TEXT NOT NULL,
  first  BIGINT NOT NULL,
  events INT NOT NULL,
  uuids  BYTEA NOT NULL,
  salts  BYTEA NOT NULL,
  leaves BYTEA NOT NULL,
  PRIMARY KEY (tree, first)
);
ALTER TABLE portal_audit.seals ALTER uuids SET STORAGE EXTERNAL, ALTER salts SET STORAGE EXTERNAL, ALTER leaves SET STORAGE EXTERNAL;
COMMENT ON TABLE  portal_audit.seals IS 'Leaves of the trees in the order in which events were written, one row per audit transaction or piece of one';
COMMENT ON COLUMN portal_audit.seals.tree IS 'As in portal_audit.trees';
COMMENT ON COLUMN portal_audit.seals.first IS 'Index of its first leaf in the tree, from 0';
COMMENT ON COLUMN portal_audit.seals.events IS 'Number of leaves';
COMMENT ON COLUMN portal_audit.seals.uuids IS 'event_uuid of each, 16 bytes';
COMMENT ON COLUMN portal_audit.seals.salts IS 'Random salt of each, 16 bytes; without it a leaf tells nothing of its event. Zeros once the event was erased or pruned';
COMMENT ON COLUMN portal_audit.seals.leaves IS 'Hash of each, 32 bytes: portal_audit.leaf(salt, event)';

-- The hash of an event: SHA-256 over a zero byte (RFC 6962, section 2.1), the salt and the row's columns in the table's order, each as its
-- length in four bytes and its bytes, as COPY's binary format has them; NULL has length -1. The payload is its text as it is read back.
CREATE OR REPLACE FUNCTION portal_audit.leaf(p_salt BYTEA, e public.events) RETURNS BYTEA
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT sha256('\x00'::bytea || p_salt || '\x00000010'::bytea || uuid_send(e.event_uuid)
                || '\x00000008'::bytea || timestamptz_send(e.timestamp)
                || string_agg(CASE WHEN f.value IS NULL THEN '\xffffffff'::bytea
                                   ELSE int4send(octet_length(f.value)) || f.value END, '' ORDER BY f.place))
    FROM (VALUES (3, convert_to(e.event_type, 'UTF8')), (4, convert_to(e.caller, 'UTF8')),
                 (5, convert_to(e.subject, 'UTF8')), (6, convert_to(e.subject_type, 'UTF8')),
                 (7, convert_to(e.target, 'UTF8')), (8, boolsend(e.success)),
                 (9, convert_to(e.error_message, 'UTF8')), (10, convert_to(e.payload::text, 'UTF8'))) AS f (place, value)
$$;
COMMENT ON FUNCTION portal_audit.leaf IS 'The leaf of an event: what verify computes, for admins who want to see it by themselves';

-- Adds leaves to a tree, and only where the caller believes its end to be. In the transaction that writes their events.
CREATE OR REPLACE FUNCTION portal_audit.seal(p_tree TEXT, p_first BIGINT, p_uuids BYTEA, p_salts BYTEA, p_leaves BYTEA) RETURNS VOID
LANGUAGE plpgsql AS $$
DECLARE
  count CONSTANT BIGINT := octet_length(p_uuids) / 16;
BEGIN
  IF count = 0 OR octet_length(p_uuids) <> 16 * count OR octet_length(p_salts) <> 16 * count OR octet_length(p_leaves) <> 32 * count THEN
    RAISE EXCEPTION 'leaves of tree "%" do not fit together', p_tree;
  END IF;
  IF p_first = 0 THEN
    INSERT INTO portal_audit.trees (tree) VALUES (p_tree) ON CONFLICT DO NOTHING;
  END IF;
  UPDATE portal_audit.trees SET size = size + count WHERE tree = p_tree AND size = p_first;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'tree "%" does not have % leaves: another sidecar writes it', p_tree, p_first USING ERRCODE = 'PA001';
  END IF;
  INSERT INTO portal_audit.seals (tree, first, events, uuids, salts, leaves) VALUES (p_tree, p_first, count, p_uuids, p_salts, p_leaves);
END $$;
COMMENT ON FUNCTION portal_audit.seal IS 'Adds leaves at the end of a tree; raises PA001 if that is not where the caller believes it to be';

-- Seals rows of events that are in no tree, oldest first. Once, when the first tree is made: what came before is taken as it is.
CREATE OR REPLACE FUNCTION portal_audit.adopt() RETURNS BIGINT LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  adopted BIGINT := 0;
  part    RECORD;
BEGIN
  FOR part IN
    SELECT string_agg(uuid_send(event_uuid), '' ORDER BY place) AS uuids, string_agg(salt, '' ORDER BY place) AS salts,
           string_agg(portal_audit.leaf(salt, e), '' ORDER BY place) AS leaves, count(*) AS events
      FROM (SELECT e, e.event_uuid, row_number() OVER (ORDER BY e.timestamp, e.event_uuid) AS place,
                   uuid_send(gen_random_uuid()) AS salt FROM public.events e) AS numbered
     GROUP BY (place - 1) / 4096 ORDER BY (place - 1) / 4096
  LOOP
    PERFORM portal_audit.seal('.adopted', adopted, part.uuids, part.salts, part.leaves);
    adopted := adopted + part.events;
  END LOOP;
  RETURN adopted;
END $$;
COMMENT ON FUNCTION portal_audit.adopt IS 'Seals the rows of events from before there was a tree';
REVOKE ALL ON FUNCTION portal_audit.adopt, portal_audit.seal FROM PUBLIC;
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM portal_audit.trees) THEN
    INSERT INTO portal_audit.trees (tree) VALUES ('.own');
    PERFORM portal_audit.adopt();
  END IF;
END $$;

-- Adds an event that this database itself tells, such as a read of the log or an application of retention, to events and to the tree .own.
-- Nobody but the owner may call it: what others may record has functions of its own, which say who calls.
CREATE OR REPLACE FUNCTION portal_audit.record(
  p_event_type TEXT, p_caller TEXT, p_subject TEXT, p_subject_type TEXT, p_target TEXT, p_success BOOLEAN, p_error_message TEXT, p_payload JSONB
) RETURNS UUID LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  -- RFC 9562, version 7: milliseconds since 1970 in front, so that the primary key's index grows at its end.
  at    CONSTANT TIMESTAMPTZ := clock_timestamp();
  id    CONSTANT UUID := encode(set_byte(set_byte(
                   substr(int8send((extract(epoch FROM at) * 1000)::bigint), 3) || substr(uuid_send(gen_random_uuid()), 7),
                   6, 112 + get_byte(uuid_send(gen_random_uuid()), 0) % 16), 8, 128 + get_byte(uuid_send(gen_random_uuid()), 0) % 64), 'hex')::uuid;
  salt  CONSTANT BYTEA := uuid_send(gen_random_uuid());
  place BIGINT;
  e     public.events;
BEGIN
  SELECT size INTO STRICT place FROM portal_audit.trees WHERE tree = '.own' FOR UPDATE;
  INSERT INTO public.events (event_uuid, timestamp, event_type, caller, subject, subject_type, target, success, error_message, payload)
  VALUES (id, at, p_event_type, p_caller, p_subject, p_subject_type, p_target, p_success, p_error_message,
          p_payload || jsonb_build_object('_audit', jsonb_build_object('source', '.own', 'caller_from', 'session')))
  RETURNING * INTO e;
  PERFORM portal_audit.seal('.own', place, uuid_send(id), salt, portal_audit.leaf(salt, e));
  RETURN id;
END $$;
COMMENT ON FUNCTION portal_audit.record IS 'Adds an event of this database''s own to events and to its tree';
REVOKE ALL ON FUNCTION portal_audit.record FROM PUBLIC;

-- Where the leaf of an event is. Leaves stand nearly in the order of time: a search by halves comes near, and what is near is looked at. For
-- pages; `portal-audit verify --event` looks at every leaf.
CREATE OR REPLACE FUNCTION portal_audit.place_of(p_event UUID) RETURNS TABLE (tree TEXT, leaf BIGINT, hash BYTEA)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  wanted CONSTANT TIMESTAMPTZ := (SELECT e.timestamp - interval '2 s' FROM public.events e WHERE e.event_uuid = p_event);
  t      RECORD;
  s      RECORD;
  low    BIGINT;
  high   BIGINT;
BEGIN
  FOR t IN SELECT a.tree, a.size FROM portal_audit.trees a ORDER BY a.tree LOOP
    low := 0;
    high := t.size;
    WHILE low < high LOOP
      SELECT b.first, b.first + b.events AS next, encode(substr(b.uuids, 1, 16), 'hex')::uuid AS id INTO s
        FROM portal_audit.seals b WHERE b.tree = t.tree AND b.first <= (low + high) / 2 ORDER BY b.first DESC LIMIT 1;
      -- The id of an event begins with its time, which tells where its row is gone.
      IF coalesce((SELECT e.timestamp FROM public.events e WHERE e.event_uuid = s.id),
                  to_timestamp(('x' || left(replace(s.id::text, '-', ''), 12))::bit(48)::bigint / 1000.0)) < wanted THEN
        low := s.next;
      ELSE
        high := s.first;
      END IF;
    END LOOP;
    RETURN QUERY
    SELECT t.tree, near.first + near.place / 16, substr(near.leaves, 2 * near.place + 1, 32)
      FROM (SELECT b.first, b.leaves, position(uuid_send(p_event) IN b.uuids) - 1 AS place FROM portal_audit.seals b
             WHERE b.tree = t.tree AND b.first >= low ORDER BY b.first LIMIT 4000) AS near
     WHERE near.place >= 0 AND near.place % 16 = 0;
    EXIT WHEN FOUND;
  END LOOP;
END $$;
COMMENT ON FUNCTION portal_audit.place_of IS 'Tree, index from 0 and hash of the leaf of an event; no row: it is not where its time says';
REVOKE ALL ON FUNCTION portal_audit.place_of FROM PUBLIC;

-- Rows that are gone, or no longer as they were, by retention or erasure: verify takes them for that and for nothing else, because the
-- recording event, which is in the tree, holds the digest of what stands here.
CREATE TABLE IF NOT EXISTS portal_audit.removed (
  event_uuid UUID NOT NULL,
  tree       TEXT NOT NULL,
  first      BIGINT NOT NULL,
  places     INT[] NOT NULL,
  leaves     BYTEA,
  PRIMARY KEY (event_uuid, tree, first)
);
COMMENT ON TABLE  portal_audit.removed IS 'Leaves whose rows went by retention or were changed by erasure';
COMMENT ON COLUMN portal_audit.removed.event_uuid IS 'The event that records it, retention_applied or user_erased; its payload''s digest is the SHA-256 of these rows, ordered by tree (bytewise) and first: portal_audit.removed_digest';
COMMENT ON COLUMN portal_audit.removed.tree IS 'As in portal_audit.seals';
COMMENT ON COLUMN portal_audit.removed.first IS 'As in portal_audit.seals';
COMMENT ON COLUMN portal_audit.removed.places IS 'Which leaves of that row, from 0, ascending';
COMMENT ON COLUMN portal_audit.removed.leaves IS 'NULL: the rows are gone. Otherwise the hash of each row as it is now, with a salt of zeros';

CREATE OR REPLACE FUNCTION portal_audit.removed_digest(p_event UUID) RETURNS BYTEA
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT sha256(coalesce(string_agg(convert_to(format('%s %s %s %s' || E'\n', tree, first, array_to_string(places, ','), encode(coalesce(leaves, ''), 'hex')), 'UTF8'),
                                    '' ORDER BY tree COLLATE "C", first), ''))
    FROM portal_audit.removed WHERE event_uuid = p_event
$$;
COMMENT ON FUNCTION portal_audit.removed_digest IS 'SHA-256 over the rows of portal_audit.removed that one event records';
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'portal_audit_writer') THEN
    GRANT SELECT, INSERT, UPDATE ON portal_audit.trees TO portal_audit_writer;
    GRANT SELECT, INSERT ON portal_audit.seals TO portal_audit_writer;
    GRANT EXECUTE ON FUNCTION portal_audit.seal TO portal_audit_writer;
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'portal_audit_reader') THEN
    GRANT SELECT ON portal_audit.trees, portal_audit.seals, portal_audit.removed TO portal_audit_reader;
    GRANT EXECUTE ON FUNCTION portal_audit.place_of TO portal_audit_reader;
  END IF;
END $$;

-- Signed heads of all trees. What is behind one cannot be changed without the key; the sidecar adds them ([proof] in its settings), nobody
-- changes one.
CREATE TABLE IF NOT EXISTS portal_audit.checkpoints (
  number    BIGINT PRIMARY KEY,
  at        TIMESTAMPTZ NOT NULL,
  note      TEXT NOT NULL,
  frontiers JSONB NOT NULL
);
COMMENT ON TABLE  portal_audit.checkpoints IS 'Signed heads of the trees: behind one, nothing changes without the key. Keep copies elsewhere ([proof] copy_to_file, copy_to_command): they tell whether this database was taken back';
COMMENT ON COLUMN portal_audit.checkpoints.number IS 'From 1, without gaps';
COMMENT ON COLUMN portal_audit.checkpoints.at IS 'When it was made, by this database''s clock';
COMMENT ON COLUMN portal_audit.checkpoints.note IS 'Signed note (C2SP signed-note and tlog-checkpoint) with size and root of every tree';
COMMENT ON COLUMN portal_audit.checkpoints.frontiers IS 'Per tree the roots of its full subtrees, largest first, in hexadecimal digits: from them the next checkpoint goes on without reading what is before';
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'portal_audit_writer') THEN
    GRANT SELECT, INSERT ON portal_audit.checkpoints TO portal_audit_writer;
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'portal_audit_reader') THEN
    GRANT SELECT ON portal_audit.checkpoints TO portal_audit_reader;
  END IF;
END $$;
