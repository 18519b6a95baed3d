
-- Which leaf an event is. There is no index of the ids in seals, which would cost every event that is written. Ids of our own begin with
-- their time (RFC 9562, versions 7 and 8), and leaves stand nearly in its order; so the span of times of each 1,024 leaves tells where to
-- search, however far behind something was written. An id of another kind has the time of its row. Kept up by who searches.
CREATE TABLE IF NOT EXISTS portal_audit.leaf_times (
  tree   TEXT NOT NULL,
  bucket BIGINT NOT NULL,
  times  INT8RANGE,
  PRIMARY KEY (tree, bucket)
);
CREATE INDEX IF NOT EXISTS leaf_times_times ON portal_audit.leaf_times USING gist (times);
COMMENT ON TABLE  portal_audit.leaf_times IS 'From when to when events are whose leaves are near each other: tells where a leaf is to be found';
COMMENT ON COLUMN portal_audit.leaf_times.tree IS 'As in portal_audit.seals';
COMMENT ON COLUMN portal_audit.leaf_times.bucket IS 'Of the rows of seals whose column first, divided by 1024, is this';
COMMENT ON COLUMN portal_audit.leaf_times.times IS 'Milliseconds since 1970; NULL: no such row';

CREATE OR REPLACE FUNCTION portal_audit.id_time(p_id UUID, p_timestamp TIMESTAMPTZ) RETURNS BIGINT
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN get_byte(uuid_send(p_id), 6) >> 4 IN (7, 8) THEN ('x' || encode(substr(uuid_send(p_id), 1, 6), 'hex'))::bit(48)::bigint
              ELSE floor(extract(epoch FROM p_timestamp) * 1000)::bigint END
$$;
COMMENT ON FUNCTION portal_audit.id_time IS 'Milliseconds since 1970 that an id begins with, or, if it is not of that kind, of its event';

-- Takes up to p_limit leaves of each tree into leaf_times; gives how many are left. A bucket is taken when it is full.
CREATE OR REPLACE FUNCTION portal_audit.take_leaf_times(p_limit BIGINT) RETURNS BIGINT
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  left_over BIGINT := 0;
  t         RECORD;
  upto      BIGINT;
BEGIN
  FOR t IN SELECT tree, size / 1024 AS full_to,
                  coalesce((SELECT max(bucket) + 1 FROM portal_audit.leaf_times l WHERE l.tree = trees.tree), 0) AS begin_at
             FROM portal_audit.trees LOOP
    upto := least(t.full_to, t.begin_at + greatest(p_limit / 1024, 1));
    INSERT INTO portal_audit.leaf_times (tree, bucket, times)
    WITH rows AS MATERIALIZED (
      SELECT first / 1024 AS bucket, events, uuids || ''::bytea AS uuids FROM portal_audit.seals
       WHERE tree = t.tree AND first >= t.begin_at * 1024 AND first < upto * 1024
    ), ids AS (
      SELECT bucket, encode(substr(uuids, 16 * place + 1, 16), 'hex')::uuid AS id FROM rows, generate_series(0, events - 1) AS place
    ), timed AS (
      -- Only an id without a time of its own needs its row, if that is still there.
      SELECT bucket, portal_audit.id_time(id, CASE WHEN get_byte(uuid_send(id), 6) >> 4 NOT IN (7, 8)
                                                   THEN (SELECT e.timestamp FROM public.events e WHERE e.event_uuid = id) END) AS at FROM ids
    )
    SELECT t.tree, b, CASE WHEN min(at) IS NOT NULL THEN int8range(min(at), max(at), '[]') END
      FROM generate_series(t.begin_at, upto - 1) AS b LEFT JOIN timed ON bucket = b GROUP BY b
     -- Two may be at it, each by its own clock: a full bucket is the same for both.
     ORDER BY b ON CONFLICT (tree, bucket) DO NOTHING;
    left_over := left_over + (t.full_to - upto) * 1024;
  END LOOP;
  RETURN left_over;
END $$;
COMMENT ON FUNCTION portal_audit.take_leaf_times IS 'Keeps portal_audit.leaf_times up with the trees';

-- The leaves of some events. The end of each tree, which leaf_times does not have yet, is always searched.
CREATE OR REPLACE FUNCTION portal_audit.places(p_ids UUID[], p_times BIGINT[])
RETURNS TABLE (event_uuid UUID, tree TEXT, first BIGINT, place INT)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  WITH wanted AS MATERIALIZED (
    SELECT id FROM unnest(p_ids) AS id
  ), buckets AS MATERIALIZED (
    SELECT DISTINCT l.tree, l.bucket FROM (SELECT DISTINCT at FROM unnest(p_times) AS at) AS w JOIN portal_audit.leaf_times l ON l.times @> w.at
  ), rows AS MATERIALIZED (
    SELECT s.tree, s.first, s.events, s.uuids || ''::bytea AS uuids
      FROM buckets b JOIN portal_audit.seals s ON s.tree = b.tree AND s.first >= b.bucket * 1024 AND s.first < (b.bucket + 1) * 1024
    UNION ALL
    SELECT s.tree, s.first, s.events, s.uuids || ''::bytea
      FROM portal_audit.trees t JOIN portal_audit.seals s ON s.tree = t.tree AND s.first >= t.size / 1024 * 1024
  ), ids AS MATERIALIZED (
    -- Without the bytes of all the others, which a join would carry along.
    SELECT r.tree, r.first, p.place, encode(substr(r.uuids, 16 * p.place + 1, 16), 'hex')::uuid AS id
      FROM rows r CROSS JOIN LATERAL generate_series(0, r.events - 1) AS p (place)
  )
  SELECT i.id, i.tree, i.first, i.place FROM ids i JOIN wanted w ON w.id = i.id
$$;
COMMENT ON FUNCTION portal_audit.places IS 'Where the leaves of events are, by their ids and their id_time';

