-- The oracle, continued: models, realizations and what they hold, materializations. It runs after journal.sql.

-- A time as an event shows it.
CREATE FUNCTION journal.time(moment TEXT) RETURNS TEXT
LANGUAGE sql STABLE SET datestyle = 'ISO'
AS $$ SELECT (moment::timestamptz AT TIME ZONE 'UTC')::text || '+00' $$;
COMMENT ON FUNCTION journal.time(TEXT) IS 'A time in UTC, in ISO form.';

-- Each value once, in the order of its first place, and no more than a payload lists.
CREATE FUNCTION journal.list(items TEXT[]) RETURNS JSONB
LANGUAGE sql IMMUTABLE
AS $$
    SELECT coalesce(jsonb_agg(item ORDER BY place), '[]')
    FROM (SELECT item, min(ordinality) AS place FROM unnest(items) WITH ORDINALITY AS i (item, ordinality)
          GROUP BY item ORDER BY 2 LIMIT 1000) AS distinct_items
$$;
COMMENT ON FUNCTION journal.list(TEXT[]) IS 'The distinct values of a list as JSON, at most 1,000.';

-- A long text stands as its hash, a long message is cut. (Beyond 64 KiB; messages of ASCII only.)
CREATE FUNCTION journal.value(content TEXT) RETURNS TEXT
LANGUAGE sql IMMUTABLE
AS $$
    SELECT CASE WHEN content IS NULL OR octet_length(content) <= 65536 THEN content
           ELSE format('sha256:%s of %s bytes', encode(sha256(convert_to(content, 'UTF8')), 'hex'), octet_length(content)) END
$$;
CREATE FUNCTION journal.message(content TEXT) RETURNS TEXT
LANGUAGE sql IMMUTABLE
AS $$ SELECT CASE WHEN content IS NULL OR octet_length(content) <= 65536 THEN content ELSE left(content, 65533) || '…' END $$;
COMMENT ON FUNCTION journal.value(TEXT) IS 'A value of a payload; its hash if it is long.';
COMMENT ON FUNCTION journal.message(TEXT) IS 'An error message, cut if it is long.';

-- What went wrong: the messages of level Error, in their order.
CREATE FUNCTION journal.errors(messages JSONB) RETURNS TEXT
LANGUAGE sql IMMUTABLE
AS $$
    SELECT journal.message(string_agg(m.message ->> 'message', '; ' ORDER BY m.ordinality))
    FROM jsonb_array_elements(messages) WITH ORDINALITY AS m (message, ordinality)
    WHERE m.message ->> 'level' = 'Error'
$$;
COMMENT ON FUNCTION journal.errors(JSONB) IS 'Messages of level Error, joined by "; "; NULL if there are none.';

-- What the audit still knows of a list when the row is not sent again: as much as goes into 16 KiB.
CREATE FUNCTION journal.remembered(items JSONB) RETURNS JSONB
LANGUAGE sql IMMUTABLE
AS $$
    WITH item AS (
        SELECT value, ordinality, sum(octet_length(value::text) + 1) OVER (ORDER BY ordinality) AS bytes
        FROM jsonb_array_elements(items) WITH ORDINALITY
    )
    SELECT coalesce(jsonb_agg(value ORDER BY ordinality) FILTER (WHERE bytes + 6 <= 16384), '[]')
        || CASE WHEN bool_or(bytes + 6 > 16384) THEN '["…"]'::jsonb ELSE '[]' END
    FROM item
$$;
COMMENT ON FUNCTION journal.remembered(JSONB) IS 'A list, cut as the audit keeps it.';

-- When a transaction was committed. Needs track_commit_timestamp.
CREATE FUNCTION journal.committed(xid BIGINT) RETURNS TIMESTAMPTZ
LANGUAGE sql STABLE
AS $$ SELECT pg_xact_commit_timestamp(xid::text::xid) $$;
COMMENT ON FUNCTION journal.committed(BIGINT) IS 'The commit time of a transaction.';

-- What a realization was given or gave back in one transaction.
CREATE VIEW journal.allocation AS
SELECT xid, op, min(seq) AS seq, r ->> 'pid' AS pid, r ->> 'eid' AS eid, r ->> 'rid' AS rid,
       jsonb_build_object(
           'resources', journal.list(array_agg(r ->> 'resource' ORDER BY seq)),
           'facilities', journal.list(array_agg(r ->> 'fid' ORDER BY seq)),
           'nodes', journal.list(array_agg(r ->> 'node' ORDER BY seq)),
           'virtual_nodes', journal.list(array_agg(r ->> 'node' ORDER BY seq) FILTER (WHERE (r ->> 'virt')::boolean))) AS held
FROM journal.change CROSS JOIN LATERAL (SELECT coalesce(new, old)) AS image (r)
WHERE tbl = 'allocations' AND op IN ('INSERT', 'DELETE')
GROUP BY xid, op, r ->> 'pid', r ->> 'eid', r ->> 'rid';
COMMENT ON VIEW journal.allocation IS 'Resources and nodes by transaction, INSERT or DELETE, and realization.';

CREATE VIEW journal.expected_experiments AS
WITH
model AS (
    SELECT seq, xid, op, old, new, coalesce(new, old) AS r,
           jsonb_build_object('project', coalesce(new, old) -> 'project', 'model_sha256', known -> 'model_sha256') AS facts
    FROM journal.change WHERE tbl = 'experiment_models'
),
model_event AS (
    SELECT seq, xid, 'experiment_model_pushed' AS event_type, r, TRUE AS success, NULL::text AS error_message,
           facts || jsonb_build_object('branch', r -> 'branch', 'tag', r -> 'tag',
                                       'model_file', journal.value(r ->> 'model_file')) AS payload
    FROM model WHERE op = 'INSERT'
    UNION ALL
    -- The verdict: the compiler has ended, or had before the row came.
    SELECT seq, xid, 'experiment_model_compiled', r, (r ->> 'compiled')::boolean,
           CASE WHEN NOT (r ->> 'compiled')::boolean THEN journal.message(r ->> 'msg') END, facts
    FROM model
    WHERE r -> 'in_progress' = 'false' AND (op = 'INSERT' OR (op = 'UPDATE' AND old -> 'in_progress' = 'true'))
    UNION ALL
    SELECT seq, xid, 'experiment_model_deleted', r, TRUE, NULL, facts
    FROM model WHERE op = 'DELETE'
),
realization AS (
    SELECT c.seq, c.xid, c.op, c.old, c.new, c.known, r,
           format('%s.%s.%s', r ->> 'id', r ->> 'eid', r ->> 'pid') AS subject,
           jsonb_build_object('realization', r -> 'id', 'experiment', r -> 'eid', 'project', r -> 'pid') AS names,
           jsonb_build_object('expires', journal.time(r ->> 'expires')) AS expiry,
           journal.remembered(jsonb_path_query_array(r -> 'links', '$.*.link')) AS links,
           new ->> 'code' IS NOT NULL AND (old IS NULL OR old -> 'code' <> new -> 'code') AS answered,
           '{"resources": [], "facilities": [], "nodes": [], "virtual_nodes": []}' || coalesce(a.held, '{}') AS held
    FROM journal.change AS c
    CROSS JOIN LATERAL (SELECT coalesce(new, old)) AS image (r)
    LEFT JOIN journal.allocation AS a
        ON a.xid = c.xid AND a.op = CASE c.op WHEN 'DELETE' THEN 'DELETE' ELSE 'INSERT' END
       AND (a.pid, a.eid, a.rid) = (r ->> 'pid', r ->> 'eid', r ->> 'id')
    WHERE tbl = 'realizations'
),
realization_event AS (
    SELECT seq, xid, 'realization_requested' AS event_type, subject, TRUE AS success, NULL::text AS error_message,
           names || expiry || known AS payload, nullif(r ->> 'creator', '') AS row_caller
    FROM realization WHERE op = 'INSERT' AND r ->> 'code' IS NULL
    UNION ALL
    SELECT seq, xid, 'realization_created', subject, r ->> 'code' = 'Ok',
           CASE WHEN r ->> 'code' <> 'Ok' THEN journal.errors(r -> 'diagnostics') END,
           names || expiry || known || held
               || jsonb_build_object('code', lower(r ->> 'code'), 'action', 'allocate',
                                     'links', links),
           nullif(r ->> 'creator', '')
    FROM realization WHERE op <> 'DELETE' AND answered
    UNION ALL
    SELECT seq, xid, 'realization_extended', subject, TRUE, NULL,
           names || expiry || jsonb_build_object('old_expires', journal.time(old ->> 'expires')), NULL
    FROM realization WHERE op = 'UPDATE' AND old -> 'expires' <> new -> 'expires'
    UNION ALL
    -- One that was given up in time, or that never ends, was given up; any other had ended by itself.
    SELECT seq, xid,
           CASE WHEN (r ->> 'expires')::timestamptz <= journal.committed(xid) THEN 'realization_expired' ELSE 'realization_relinquished' END,
           subject, TRUE, NULL,
           names || expiry || held
               || jsonb_build_object('revision', r -> 'revision', 'action', 'deallocate',
                                     'links', links),
           NULL
    FROM realization WHERE op = 'DELETE'
),
-- Allocations that no creation and no end of their realization tells.
allocation_event AS (
    SELECT a.seq, a.xid, CASE a.op WHEN 'INSERT' THEN 'resources_allocated' ELSE 'resources_deallocated' END AS event_type,
           format('%s.%s.%s', a.rid, a.eid, a.pid) AS subject,
           a.held || jsonb_build_object('realization', a.rid, 'experiment', a.eid, 'project', a.pid,
                                        'action', CASE a.op WHEN 'INSERT' THEN 'allocate' ELSE 'deallocate' END) AS payload
    FROM journal.allocation AS a
    WHERE NOT EXISTS (
        SELECT FROM realization AS r
        WHERE r.xid = a.xid AND (r.r ->> 'pid', r.r ->> 'eid', r.r ->> 'id') = (a.pid, a.eid, a.rid)
          AND CASE a.op WHEN 'INSERT' THEN r.op <> 'DELETE' AND r.answered ELSE r.op = 'DELETE' END)
),
materialization AS (
    SELECT seq, xid, op, old, new, known, r,
           format('%s.%s.%s', r ->> 'rid', r ->> 'eid', r ->> 'pid') AS subject,
           jsonb_build_object('realization', r -> 'rid', 'experiment', r -> 'eid', 'project', r -> 'pid') AS names,
           jsonb_path_query_array(r -> 'metal', '$[*].resource') AS resources,
           jsonb_path_query_array(r -> 'vms', '$[*].vm_alloc.node') AS nodes,
           jsonb_path_query_array(r -> 'links', '$[*].link') AS links
    FROM journal.change CROSS JOIN LATERAL (SELECT coalesce(new, old)) AS image (r)
    WHERE tbl = 'materializations'
),
listed AS (
    SELECT *, jsonb_build_object('resources', journal.remembered(resources), 'nodes', journal.remembered(nodes),
                                 'links', journal.remembered(links)) AS remembered
    FROM materialization
),
materialization_event AS (
    SELECT seq, xid, 'materialization_started' AS event_type, subject, TRUE AS success, NULL::text AS error_message,
           names || known || jsonb_build_object('action', 'allocate', 'resources', resources, 'nodes', nodes, 'links', links) AS payload
    FROM listed WHERE op = 'INSERT'
    UNION ALL
    SELECT seq, xid, 'materialization_completed', subject, r ->> 'highest_status' = 'Success',
           CASE WHEN r ->> 'highest_status' = 'Error' THEN journal.errors(r -> 'messages') END,
           names || known || jsonb_build_object('action', 'allocate', 'status', lower(r ->> 'highest_status')) || remembered
    FROM listed
    WHERE op <> 'DELETE' AND r ->> 'highest_status' IN ('Success', 'Error')
      AND (old IS NULL OR old -> 'highest_status' <> new -> 'highest_status')
    UNION ALL
    SELECT seq, xid, 'dematerialized', subject, TRUE, NULL,
           names || jsonb_build_object('action', 'deallocate', 'old_status', lower(r ->> 'highest_status')) || remembered
    FROM listed WHERE op = 'DELETE'
)
SELECT seq, xid, event_type, r ->> 'experiment' AS subject, 'experiment' AS subject_type, r ->> 'revision' AS target,
       success, error_message, jsonb_strip_nulls(payload) AS payload, NULL::text AS row_caller
FROM model_event
UNION ALL
SELECT seq, xid, event_type, subject, 'realization', NULL, success, error_message, jsonb_strip_nulls(payload), row_caller
FROM realization_event
UNION ALL
SELECT seq, xid, event_type, subject, 'realization', NULL, TRUE, NULL, payload, NULL
FROM allocation_event
UNION ALL
SELECT seq, xid, event_type, subject, 'materialization', NULL, success, error_message, jsonb_strip_nulls(payload), NULL
FROM materialization_event;
COMMENT ON VIEW journal.expected_experiments IS 'Events of models, realizations, their resources, and materializations.';
